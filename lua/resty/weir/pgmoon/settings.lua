--- SET outside of a transaction. A connection belongs to nobody between two statements, so a setting is the
-- object's: it is read here, tried once on the server, and put in front of every statement from then on, for
-- its transaction alone.

local sqlscan = require "weir.sqlscan"

local settings = {}

-- Who acts, and in which encoding, is not a matter of taste.
local refused = {
    role = "the role is the client's: give role and claims to new",
    session_authorization = "the login is the client's",
    client_encoding = "text is UTF-8 here",
    standard_conforming_strings = "statements are read with it on",
    ["request.jwt.claims"] = "claims are given to new",
    row_security = "it goes with the kind of client",
}

-- Lists of names: each is quoted if it has to be. Other lists are plain text.
local lists_of_names = { search_path = true, temp_tablespaces = true, local_preload_libraries = true }

local function name_at(sql, at)
    local _, last, name = sql:find('^%s*([%a_][%w_$.]*)', at)
    if not name then return nil end
    return name:lower(), last + 1
end

-- One value at `at`: its text, where it ends, whether it was in quotes.
local function value_at(sql, at)
    at = sql:find("%S", at) or #sql + 1
    local _, last, text
    if sql:sub(at, at) == "'" then
        last = at
        repeat
            last = sql:find("'", last + 1, true)
            if not last then return nil end
            local doubled = sql:sub(last + 1, last + 1) == "'"
            if doubled then last = last + 1 end
        until not doubled
        return (sql:sub(at + 1, last - 1):gsub("''", "'")), last + 1, true
    end
    if sql:sub(at, at) == '"' then
        _, last, text = sql:find('^"([^"]+)"', at)
        if not text then return nil end
        return text, last + 1, true
    end
    _, last, text = sql:find("^([%w_.+-]+)", at)
    if not text then return nil end
    return text, last + 1, false
end

local function listed(name, text, in_quotes)
    if not lists_of_names[name] then return text end
    if in_quotes then return '"' .. text:gsub('"', '""') .. '"' end
    return text:lower()
end

local function values_at(sql, at, name)
    local parts = {}
    while true do
        local text, after, in_quotes = value_at(sql, at)
        if not text then return nil end
        parts[#parts + 1] = listed(name, text, in_quotes)
        at = sql:find("%S", after)
        if not at then return parts end
        if sql:sub(at, at) ~= "," then return nil end
        at = at + 1
    end
end

local function is_default(parts)
    return #parts == 1 and parts[1]:upper() == "DEFAULT"
end

-- name {= | TO} value, ... ; TIME ZONE value ; SCHEMA value ; NAMES value
local special = { SCHEMA = "search_path", NAMES = "client_encoding" }

-- The setting that is meant, and where its value begins.
local function subject(rest)
    local words = sqlscan.words(rest, 2)
    local _, last
    if words[1] == "TIME" and words[2] == "ZONE" then
        _, last = rest:find "^%a+%s+%a+"
        return "timezone", last + 1
    end
    local name, at = name_at(rest, 1)
    if not name then return nil end
    _, last = rest:find("^%s*=", at)
    if not last then _, last = rest:find("^%s+[tT][oO]%f[^%w_]", at) end
    if last then return name, last + 1 end
    return special[name:upper()], at
end

--- What a SET or SET SESSION says: name and value (nil: its default again); or nil, nil and why it cannot be
-- done.
function settings.read(sql)
    local rest = sql:gsub("[;%s]+$", ""):match "^%s*[sS][eE][tT]%s+(.*)$"
    if not rest then return nil, nil, "comments before SET" end
    rest = rest:gsub("^[sS][eE][sS][sS][iI][oO][nN]%s+", "", 1)
    local first = sqlscan.words(rest, 2)
    if first[1] == "ROLE" or first[1] == "AUTHORIZATION" then return nil, nil, refused.role end
    if first[1] == "CHARACTERISTICS" then return nil, nil, "say SET default_transaction_isolation" end
    local name, at = subject(rest)
    if not name then return nil, nil, "it is not of the form SET name = value" end
    local parts = values_at(rest, at, name)
    if not parts then return nil, nil, "its value is not a list of literals" end
    local is_utf8 = parts[1]:upper():gsub("[^%w]", "") == "UTF8"
    if name == "client_encoding" and is_utf8 then return name, nil end
    if refused[name] then return nil, nil, refused[name] end
    if is_default(parts) or (name == "timezone" and parts[1]:upper() == "LOCAL") then return name, nil end
    return name, table.concat(parts, ", ")
end

--- Which setting a RESET names; "ALL" for all.
function settings.reset_name(sql)
    local words = sqlscan.words(sql, 3)
    if words[2] == "ALL" then return "ALL" end
    if words[2] == "TIME" and words[3] == "ZONE" then return "timezone" end
    return (name_at(sql, select(2, sql:find "^%s*%a+") + 1))
end

--- The statement that puts the settings { { name, value }, ... } in force for its transaction; nil if there
-- are none.
function settings.statement(list)
    if #list == 0 then return nil end
    local calls, statement = {}, {}
    for i, setting in ipairs(list) do
        calls[i] = ("pg_catalog.set_config($%d, $%d, true)"):format(2 * i - 1, 2 * i)
        statement[#statement + 1] = setting[1]
        statement[#statement + 1] = setting[2]
    end
    table.insert(statement, 1, "select " .. table.concat(calls, ", "))
    return statement
end

--- The list with this setting changed (value nil: without it).
function settings.with(list, name, value)
    local changed = {}
    for _, setting in ipairs(list) do
        if setting[1] ~= name then changed[#changed + 1] = setting end
    end
    if value then changed[#changed + 1] = { name, value } end
    return changed
end

return settings
