--- What a connection string says, as far as it can be told without connecting: libpq's keywords or a URI, the
-- environment beneath them, and the defaults that Weir lays under both. Only for telling people about it; who
-- connects is libpq.

local conninfo = {}

-- Where libpq looks for what the string does not say.
local environment = {
    host = "PGHOST", port = "PGPORT", dbname = "PGDATABASE", user = "PGUSER", password = "PGPASSWORD",
    sslmode = "PGSSLMODE", sslrootcert = "PGSSLROOTCERT", service = "PGSERVICE",
}

-- See target.c.
local defaults = {
    sslmode = "prefer", keepalives = "1", keepalives_idle = "30", keepalives_interval = "5",
    keepalives_count = "3", tcp_user_timeout = "10000", port = "5432",
}

-- ---- keyword = value --------------------------------------------------------------------------------------

-- The value that begins at `at`, and where it ends; nil if a quote is not closed.
local function keyword_value(text, at)
    if text:sub(at, at) ~= "'" then
        local value = text:match("^[^%s]*", at)
        return value:gsub("\\(.)", "%1"), at + #value
    end
    local out, i = {}, at + 1
    while i <= #text do
        local c = text:sub(i, i)
        if c == "'" then return table.concat(out), i + 1 end
        if c == "\\" then
            i = i + 1
            c = text:sub(i, i)
        end
        out[#out + 1] = c
        i = i + 1
    end
    return nil
end

local function of_keywords(text)
    local said, at = {}, 1
    while true do
        local key, start = text:match("^%s*([%w_]+)%s*=%s*()", at)
        if not key then return text:find("^%s*$", at) and said or nil end
        local value, next_at = keyword_value(text, start)
        if not value then return nil end
        said[key], at = value, next_at
    end
end

-- ---- URI --------------------------------------------------------------------------------------------------

local function unescape(text)
    return (text:gsub("%%(%x%x)", function(hex)
        return string.char(tonumber(hex, 16))
    end))
end

local function put(said, key, value)
    if value and value ~= "" then said[key] = unescape(value) end
end

-- host:port,host:port; a host in brackets is an IPv6 address.
local function put_hosts(said, hosts)
    local names, ports = {}, {}
    for one in (hosts .. ","):gmatch "([^,]*)," do
        local name, port = one:match "^(%b[]):?(%d*)$"
        if name then
            name = name:sub(2, -2)
        else
            name, port = one:match "^([^:]*):?(.*)$"
        end
        names[#names + 1], ports[#ports + 1] = name, port
    end
    put(said, "host", table.concat(names, ","))
    put(said, "port", table.concat(ports, ","):gsub("^,*$", ""))
end

local function of_uri(text)
    local rest = text:match "^postgres://(.*)$" or text:match "^postgresql://(.*)$"
    if not rest then return nil end
    local said = {}
    local before, query = rest:match "^([^?]*)%??(.*)$"
    local authority, database = before:match "^([^/]*)/?(.*)$"
    local login, hosts = authority:match "^(.*)@([^@]*)$"
    local user, password = (login or ""):match "^([^:]*):?(.*)$"
    put(said, "user", user)
    put(said, "password", password)
    put_hosts(said, hosts or authority)
    put(said, "dbname", database)
    for key, value in query:gmatch "([^&=]+)=([^&]*)" do
        if key == "ssl" and value == "true" then key, value = "sslmode", "require" end
        put(said, key, value)
    end
    return said
end

-- ---- both -------------------------------------------------------------------------------------------------

--- The parameters by their names. `said[name]` is what the string itself gives, the table what will be used.
-- A string that cannot be read gives no parameters: the engine tells about that.
function conninfo.parse(text, getenv)
    getenv = getenv or os.getenv
    local said = of_uri(text) or of_keywords(text) or {}
    local used = { said = said }
    for key, value in pairs(defaults) do used[key] = value end
    for key, variable in pairs(environment) do
        local value = getenv(variable)
        if value and value ~= "" then used[key] = value end
    end
    for key, value in pairs(said) do used[key] = value end
    return used
end

--- Whether all its hosts are Unix sockets.
function conninfo.is_socket(used)
    if used.hostaddr then return false end
    if not used.host or used.host == "" then return true end
    for host in used.host:gmatch "[^,]+" do
        if not host:find "^[/@]" then return false end
    end
    return true
end

--- Whether nobody can stand between: Unix sockets, or addresses of this machine.
function conninfo.is_local(used)
    for host in (used.hostaddr or used.host or "/"):gmatch "[^,]+" do
        if not (host:find "^[/@]" or host:find "^127%." or host == "localhost" or
            host == "::1") then return false end
    end
    return true
end

--- Where it leads, in words; without user and password.
function conninfo.place(used)
    if conninfo.is_socket(used) then return "the socket in " .. (used.host or "libpq's own folder") end
    return ("%s, port %s"):format(used.host or used.hostaddr, used.port)
end

return conninfo
