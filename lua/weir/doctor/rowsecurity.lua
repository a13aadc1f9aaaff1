--- What users can see that no policy filters, and policies that break.

local phrases = require "weir.doctor.phrases"

local rowsecurity = {}

local function has_acting_role(facts)
    return facts.client.role ~= nil
end

-- What takes away whatever the acting role may do there.
local function revoke(row, what)
    if not row.grantees then return nil end
    return ("revoke %s on %s from %s;"):format(what or "all", row.name, row.grantees)
end

-- ---- tables -----------------------------------------------------------------------------------------------

local function add_unfiltered(row, role, add)
    add("fail", "rls.table_without_rls", {
        found = ("%s can reach %s, which has no row-level security"):format(role, row.name),
        why = "every user reads, and where granted changes, the rows of every other",
        remedy = ("alter table %s enable row level security; -- then no row is seen until a policy says which"
            ):format(row.name), subject = row.name,
    })
end

local function add_unfilterable(row, role, add)
    local what = row.kind == "m" and "a materialized view" or "a foreign table"
    add("fail", "rls.cannot_be_filtered", {
        found = ("%s can reach %s, %s"):format(role, row.name, what),
        why = "row-level security does not exist for it: every user reads all of it",
        remedy = revoke(row) or ("alter %s %s owner to <somebody else>;"):format(
            row.kind == "m" and "materialized view" or "foreign table", row.name), subject = row.name,
    })
end

local function add_truncate(row, role, add)
    add("fail", "rls.truncate", {
        found = ("%s may TRUNCATE %s"):format(role, row.name),
        why = "no policy stands before TRUNCATE: one user empties the table of all",
        remedy = revoke(row, "truncate"), subject = row.name,
    })
end

local function add_without_policy(row, role, add)
    add("warn", "rls.without_policy", {
        found = ("%s has row-level security and no policy that lets %s see a row of it"):format(row.name,
            role),
        why = "it always seems empty to users; either they have no business there or a policy was forgotten",
        remedy = (revoke(row) or "") .. "\n-- or: create policy ... on " .. row.name .. " using (...);",
        subject = row.name,
    })
end

function rowsecurity.tables(facts, add)
    local rows, bad = facts.rows.tables, false
    if not has_acting_role(facts) or not rows then return end
    local function note(...)
        bad = true
        add(...)
    end
    local role = phrases.ident(facts.client.role)
    for _, row in ipairs(rows) do
        if row.kind == "m" or row.kind == "f" then
            add_unfilterable(row, role, note)
        elseif not row.rls then
            add_unfiltered(row, role, note)
        elseif row.policies == 0 and not row.owned then
            add_without_policy(row, role, note)
        end
        if row.truncates and row.rls and not row.owned then add_truncate(row, role, note) end
    end
    if bad then return end
    add("ok", "rls.tables", { found = ("%d table%s in reach of %s, each under row-level " ..
        "security"):format(#rows,
        #rows == 1 and "" or "s", role) })
end

-- ---- views ------------------------------------------------------------------------------------------------

local function invoker_remedy(facts, row)
    local version = facts.rows.server and facts.rows.server[1].version_num or 0
    if row.kind == "v" and version >= 150000 then
        return ("alter view %s set (security_invoker = true);"):format(row.name)
    end
    return revoke(row)
end

function rowsecurity.views(facts, add)
    local rows, bad = facts.rows.views, false
    if not has_acting_role(facts) or not rows then return end
    for _, row in ipairs(rows) do
        if row.tables and row.kind == "v" then
            bad = true
            add("fail", "rls.view_bypasses", {
                found = ("the view %s shows %s as %s, whom no policy binds there"):format(row.name,
                    row.tables,
                    row.owner),
                why = "a view reads with its owner's rights: users see the rows of all others through it",
                remedy = invoker_remedy(facts, row), subject = row.name,
            })
        elseif row.kind == "v" and row.super then
            bad = true
            add("warn", "rls.view_of_superuser", {
                found = ("the view %s reads as %s, a superuser"):format(row.name, row.owner),
                why = "row-level security that is added to its tables later will not bind it",
                remedy = invoker_remedy(facts, row), subject = row.name,
            })
        end
    end
    if not bad then add("ok", "rls.views", { found = "no view in reach goes past row-level security" }) end
end

-- ---- functions --------------------------------------------------------------------------------------------

function rowsecurity.functions(facts, add)
    local rows, bad = facts.rows.functions, false
    if not has_acting_role(facts) or not rows then return end
    for _, row in ipairs(rows) do
        if not row.pinned then
            bad = true
            add("fail", "function.search_path", {
                found = ("the SECURITY DEFINER function %s has no search_path of its own"):format(row.name),
                why = ("it runs as %s with the caller's search_path: who can create a table or a " ..
                    "function there " ..
                    "has it run as %s"):format(row.owner, row.owner),
                remedy = ("alter routine %s set search_path = pg_catalog, %s, pg_temp;"):format(row.name,
                    row.schema),
                subject = row.name,
            })
        end
    end
    if bad then return end
    add("ok", "function.definers", {
        found = #rows == 0 and "no SECURITY DEFINER function in reach" or
            ("%d SECURITY DEFINER function%s in reach, each with a search_path of its own"):format(#rows,
                #rows == 1 and "" or "s"),
    })
end

--- Whoever can create a table or a function in a schema can put it in the way of others' names.
function rowsecurity.schemas(facts, add)
    local rows = facts.rows.creates
    if not has_acting_role(facts) or not rows then return end
    local role = phrases.ident(facts.client.role)
    for _, row in ipairs(rows) do
        add("warn", "schema.open", {
            found = ("%s may create in the schema %s"):format(role, row.name),
            why = "what is created there can stand before what others mean by the same name, and no " ..
                "policy is on it",
            remedy = row.grantees and ("revoke create on schema %s from %s;"):format(row.name,
                row.grantees) or
                ("alter schema %s owner to <somebody else>;"):format(row.name), subject = row.name,
        })
    end
    if #rows == 0 then add("ok", "schema.closed", { found = ("%s may create nothing"):format(role) }) end
end

-- ---- what policies say ------------------------------------------------------------------------------------

-- Where the text in brackets that opens at `at` ends, and the commas of its own level.
local function bracket(text, at)
    local depth, commas, i = 0, {}, at
    while i <= #text do
        local c = text:sub(i, i)
        if c == "'" or c == '"' then
            i = text:find(c, i + 1, true) or #text
        elseif c == "(" then
            depth = depth + 1
        elseif c == ")" then
            depth = depth - 1
            if depth == 0 then return i, commas end
        elseif c == "," and depth == 1 then
            commas[#commas + 1] = i
        end
        i = i + 1
    end
    return #text, commas
end

-- Whether what ends at `last` is cast to json or jsonb, through brackets and the name of a sub-select.
local function is_cast_to_json(text, last)
    local rest = text:sub(last + 1):gsub("^[%s)]+", "")
    rest = rest:gsub("^AS%s+[%w_]+[%s)]*", "")
    return rest:find "^::jsonb?%f[^%w_]" ~= nil
end

--- The calls of current_setting in an expression: { first, last, argument, missing_ok, guarded (by nullif),
-- json (what it gives becomes JSON as it is) }.
function rowsecurity.settings_read(expression)
    local calls, at = {}, 1
    while true do
        local first, open = expression:find("%f[%w_]current_setting%(", at)
        if not first then return calls end
        local last, commas = bracket(expression, open)
        local second = commas[1] and expression:sub(commas[1] + 1, last - 1)
        calls[#calls + 1] = {
            first = first, last = last, missing_ok = second ~= nil and second:find "true" ~= nil,
            argument = expression:sub(open + 1, (commas[1] or last) - 1),
            guarded = expression:sub(1, first - 1):find "NULLIF%($" ~= nil or
                expression:sub(1, first - 1):find "NULLIF%(%s*%(*%s*SELECT%s+$" ~= nil,
            json = is_cast_to_json(expression, last),
        }
        at = last + 1
    end
end

--- The expression with every setting read so that it may be missing, and empty before it becomes JSON.
function rowsecurity.mended(expression)
    if not expression then return nil end
    local out, at = {}, 1
    for _, call in ipairs(rowsecurity.settings_read(expression)) do
        local text = ("current_setting(%s, true)"):format(call.argument)
        if call.json and not call.guarded then text = ("NULLIF(%s, '')"):format(text) end
        out[#out + 1] = expression:sub(at, call.first - 1)
        out[#out + 1] = text
        at = call.last + 1
    end
    out[#out + 1] = expression:sub(at)
    return table.concat(out)
end

local function alter_policy(row)
    local qual, check = rowsecurity.mended(row.qual), rowsecurity.mended(row.check)
    return ("alter policy %s on %s%s%s;"):format(row.name, row.on_table,
        qual and (" using (%s)"):format(qual) or "", check and (" with check (%s)"):format(check) or "")
end

local function faults_of(row)
    local bare, strict = false, false
    for _, expression in ipairs { row.qual or "", row.check or "" } do
        for _, call in ipairs(rowsecurity.settings_read(expression)) do
            bare = bare or call.json and not call.guarded
            strict = strict or not call.missing_ok
        end
    end
    return bare, strict
end

function rowsecurity.policies(facts, add)
    local rows, bad = facts.rows.policies, false
    if not has_acting_role(facts) or not rows then return end
    for _, row in ipairs(rows) do
        local bare, strict = faults_of(row)
        local subject = ("%s on %s"):format(row.name, row.on_table)
        if bare then
            add("warn", "policy.json_without_nullif", {
                found = ("the policy %s makes JSON of a setting that may be empty"):format(subject),
                why = "after a transaction with claims the setting is '' and not NULL, and ''::json is " ..
                    "an error (22P02) " ..
                    "for everybody who comes without claims",
                remedy = alter_policy(row), subject = subject,
            })
        end
        if strict then
            add("warn", "policy.setting_must_exist", {
                found = ("the policy %s reads a setting without missing_ok"):format(subject),
                why = "in a session where nobody has set it yet, every statement on the table fails with " ..
                    "42704",
                remedy = alter_policy(row), subject = subject,
            })
        end
        bad = bad or bare or strict
    end
    if bad then return end
    local count = ("%d %s"):format(#rows, #rows == 1 and "policy" or "policies")
    add("ok", "policy.expressions", { found = count .. " for it, none that breaks without claims" })
end

rowsecurity.checks = {
    rowsecurity.tables, rowsecurity.views, rowsecurity.functions, rowsecurity.schemas,
    rowsecurity.policies,
}

return rowsecurity
