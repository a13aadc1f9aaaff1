--- Who a client is, and who it could become.

local phrases = require "weir.doctor.phrases"

local roles = {}

local function login_row(facts)
    return facts.rows.login and facts.rows.login[1]
end

-- ---- the login of an ANON client --------------------------------------------------------------------------

-- Attribute -> id, what it is called, why it must not be.
local dangers = {
    { "super", "role.anon_superuser", "is a superuser", "nosuperuser",
        "row-level security does not bind it" },
    { "bypass", "role.anon_bypassrls", "has BYPASSRLS", "nobypassrls",
        "row-level security does not bind it" },
    { "replication", "role.anon_replication", "has REPLICATION", "noreplication",
        "it can copy the whole server, past row-level security" },
    { "createrole", "role.anon_createrole", "has CREATEROLE", "nocreaterole",
        "it can make itself a member of nearly every role" },
}

-- Since 16 CREATEROLE reaches only the roles it was given ADMIN on.
local function createrole_is_all(facts)
    local server = facts.rows.server
    return server and server[1].version_num < 160000
end

function roles.anon_login(facts, add)
    local row = login_row(facts)
    if not facts.client.role or not row then return end
    local bad = false
    for _, danger in ipairs(dangers) do
        local key, id, found, clause, why = table.unpack(danger)
        if row[key] and (key ~= "createrole" or createrole_is_all(facts)) then
            bad = true
            add("fail", id, {
                found = ("the login %s of an ANON client %s"):format(row.ident, found), why = why,
                remedy = ("alter role %s %s;"):format(row.ident, clause), subject = row.ident,
            })
        end
    end
    if not bad then
        add("ok", "role.anon_login", { found = ("%s is an ordinary login"):format(row.ident) })
    end
end

-- ---- the role it acts as ----------------------------------------------------------------------------------

function roles.acting(facts, add)
    local row, login = facts.rows.role and facts.rows.role[1], login_row(facts)
    if not row or not login then return end
    if not row.there then
        return add("fail", "role.missing", {
            found = ("the role %s does not exist"):format(row.ident),
            why = "every call of this client fails",
            remedy = ("create role %s nologin;\ngrant %s to %s;"):format(row.ident, row.ident, login.ident),
            subject = row.ident,
        })
    elseif not row.member then
        return add("fail", "role.not_granted", {
            found = ("%s may not become %s"):format(login.ident, row.ident),
            why = "every call of this client fails",
            remedy = ("grant %s to %s;"):format(row.ident, login.ident), subject = row.ident,
        })
    end
    add("ok", "role.acting", { found = ("it may become %s"):format(row.ident) })
end

-- ---- whom it could become ---------------------------------------------------------------------------------

-- Roles that are as good as superuser, from within SQL.
local powers = {
    pg_execute_server_program = "runs programs on the server",
    pg_write_server_files = "writes files on the server",
    pg_read_server_files = "reads files on the server",
}

-- The logins of the policy's SERVICE clients.
local function service_names(facts)
    local names = {}
    for _, client in pairs(facts.options.clients) do
        local user = client.user or facts.backend.conninfo.user
        if client.role == nil and user then names[user] = true end
    end
    return names
end

local function danger_of(edge, services, facts)
    if edge.super then return "is a superuser" end
    if edge.bypass then return "has BYPASSRLS" end
    if edge.replication then return "has REPLICATION" end
    if edge.createrole and createrole_is_all(facts) then return "has CREATEROLE, and so can become any " ..
        "role" end
    if services[edge.name] then return "is the login of a SERVICE client" end
    return powers[edge.name]
end

-- The shortest way from the login to each role: role -> the last edge of the way.
local function ways(edges, login)
    local last, frontier = {}, { login }
    while #frontier > 0 do
        local next_ones = {}
        for _, from in ipairs(frontier) do
            for _, edge in ipairs(edges) do
                if edge.member == from and edge.usable and not last[edge.name] and edge.name ~= login then
                    last[edge.name] = edge
                    next_ones[#next_ones + 1] = edge.name
                end
            end
        end
        frontier = next_ones
    end
    return last
end

local function way_text(last, edge, login)
    local names = { edge.ident }
    while edge.member ~= login do
        edge = last[edge.member]
        table.insert(names, 1, edge.ident)
    end
    return #names > 1 and (" by way of " .. table.concat(names, ", ", 1, #names - 1)) or ""
end

function roles.membership(facts, add)
    local edges, row = facts.rows.members, login_row(facts)
    if not facts.client.role or not edges or not row then return end
    local services, last, bad, seen = service_names(facts), ways(edges, row.name), false, {}
    for _, edge in ipairs(edges) do
        local way, danger = last[edge.name], danger_of(edge, services, facts)
        if way and danger and not seen[edge.name] then
            bad, seen[edge.name] = true, true
            add("fail", "role.can_become", {
                found = ("%s can become %s%s, which %s"):format(row.ident, edge.ident,
                    way_text(last, way, row.name), danger),
                why = "one SET ROLE in a statement of a user, and no policy filters anything",
                remedy = ("revoke %s from %s;"):format(way.ident, way.member_ident), subject = edge.ident,
            })
        end
    end
    if not bad then add("ok", "role.membership", { found = "no membership leads past row-level " ..
        "security" }) end
end

-- ---- tables it owns ---------------------------------------------------------------------------------------

function roles.owner(facts, add)
    local row = login_row(facts)
    if not facts.client.role or not facts.rows.owned or not row or
        row.super then return end -- whom all is open to
    for _, one in ipairs(facts.rows.owned) do
        add("fail", "rls.owner_not_forced", {
            found = ("%s, which this login is or can become, owns %s, whose row-level security is not " ..
                "forced"):format(
                one.owner, one.name),
            why = "policies do not bind a table's owner unless it is forced; the engine refuses such a login",
            remedy = ("alter table %s force row level security;"):format(one.name), subject = one.name,
        })
    end
end

-- ---- SERVICE ----------------------------------------------------------------------------------------------

function roles.service(facts, add)
    local row, filtered = login_row(facts), facts.rows.filtered
    if facts.client.role or not row then return end
    if row.super then
        return add("warn", "role.service_superuser", {
            found = ("the login %s of a SERVICE client is a superuser"):format(row.ident),
            why = "BYPASSRLS and grants are enough for its work; what goes wrong as superuser goes wrong " ..
                "everywhere",
            remedy = ("alter role %s nosuperuser bypassrls;"):format(row.ident), subject = row.ident,
        })
    elseif row.bypass then
        return add("ok", "role.service", { found = ("%s is above row-level security"):format(row.ident) })
    elseif not filtered then
        return
    end
    local names = {}
    for i, one in ipairs(filtered) do names[i] = one.name end
    if #names == 0 then
        return add("ok", "role.service", {
            found = ("%s has no BYPASSRLS, and sees no table that would need it"):format(row.ident),
        })
    end
    add("warn", "role.service_bound", {
        found = ("%s has no BYPASSRLS and cannot read %s"):format(row.ident,
            phrases.some(names, 5)),
        why = "policies bind it there: statements that they would filter fail with 42501",
        remedy = ("alter role %s bypassrls;"):format(row.ident), subject = row.ident,
    })
end

-- ---- what the engine says ---------------------------------------------------------------------------------

local function is_explained(facts)
    local bad = false
    local function note(level)
        bad = bad or level == "fail"
    end
    for _, check in ipairs { roles.anon_login, roles.acting, roles.membership, roles.owner } do check(facts,
        note) end
    return bad
end

-- Told only where the lines above do not tell it already.
function roles.as_the_engine_sees_it(facts, add)
    local err = facts.as_client
    if not facts.client.role or facts.failure or facts.hangs or err and is_explained(facts) then return end
    if not err then
        return add("ok", "role.accepted", { found = "the engine takes it, with its role and claims" })
    end
    add("fail", "role.refused", {
        found = tostring(err.message or err),
        why = "no call of this client would be made",
        remedy = "mend what the other lines of this client say", kind = "system",
    })
end

roles.checks = {
    roles.anon_login, roles.acting, roles.membership, roles.owner, roles.service, roles.as_the_engine_sees_it,
}

return roles
