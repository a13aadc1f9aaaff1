--- From what pgmoon.new takes to an engine of Weir and a client of it. Engines are opened once per process
-- (in nginx per worker) and configuration, by the first connect; they and their connections outlive the
-- objects that use them.

local errors = require "weir.errors"

local logins = {}

-- ---- options ----------------------------------------------------------------------------------------------

-- What is refused, because leaving it out silently would weaken a connection.
local refused = {
    luasec_opts = "say cafile, cert and key instead",
    cqueues_openssl_context = "say ssl_verify, cafile, cert and key instead",
}

local known_ssl = { ssl = true, ssl_verify = true, ssl_required = true, ssl_version = true }

local tls_versions = { tlsv1_1 = "TLSv1.1", tlsv1_2 = "TLSv1.2", tlsv1_3 = "TLSv1.3", any = false }

local function check_tls(options)
    for key in pairs(options) do
        if type(key) == "string" and key:find "^ssl" and not known_ssl[key] then
            errors.misusef("pgmoon.new: '%s' is not known; left out, it might weaken the connection", key)
        end
    end
    local version = options.ssl_version
    if version ~= nil and tls_versions[version] == nil then
        errors.misusef("pgmoon.new: ssl_version is %s; it must be tlsv1_1, tlsv1_2, tlsv1_3 or any",
            tostring(version))
    end
    for _, key in ipairs { "cafile", "cert", "key" } do
        local path = options[key]
        if path ~= nil and (type(path) ~= "string" or path:find "%-%-%-%-%-BEGIN") then
            errors.misusef("pgmoon.new: %s must be the path of a file", key)
        end
    end
end

local function check_identity(options)
    if options.claims ~= nil and options.role == nil and options.weir == nil then
        errors.misuse("pgmoon.new: claims are for a client with a role, and none is given")
    end
    if options.role ~= nil and options.claims == nil then
        errors.misuse("pgmoon.new: with a role, claims say who is acting: claims = { sub = ... }")
    end
    if options.bypass_rls == false and options.role == nil and options.weir == nil then
        errors.misuse("pgmoon.new: a login without a role passes row-level security; to be under it, give role "
            .. "and claims")
    end
end

--- Misuse of pgmoon.new raises.
function logins.check(options)
    for key, instead in pairs(refused) do
        if options[key] ~= nil then errors.misusef("pgmoon.new: %s has no meaning here; %s", key, instead) end
    end
    check_tls(options)
    check_identity(options)
    local mode = options.numeric_mode
    if mode ~= nil and mode ~= "pgmoon" and mode ~= "lossless" then
        errors.misusef("pgmoon.new: numeric_mode is %s; it must be 'lossless' or 'pgmoon'", tostring(mode))
    end
    local more = options.weir_options
    if more ~= nil and (type(more) ~= "table" or more.backends or more.clients) then
        errors.misuse("pgmoon.new: weir_options is a table of what weir.open takes, without backends and "
            .. "clients")
    end
end

-- ---- conninfo ---------------------------------------------------------------------------------------------

local function quoted(value)
    return "'" .. tostring(value):gsub("[\\']", "\\%0") .. "'"
end

-- /var/run/postgresql/.s.PGSQL.5432: libpq wants the folder and the number.
local function socket_place(path)
    local folder, port = path:match "^(.*)/%.s%.PGSQL%.(%d+)$"
    if not folder then
        errors.misusef("pgmoon.new: socket_path is %s; it must end with /.s.PGSQL.<port>", path)
    end
    return folder, port
end

-- pgmoon's ssl alone goes on in clear if the server has none; ssl_required does not; ssl_verify must not.
local function sslmode(options)
    if not options.ssl then return "disable" end
    if options.ssl_verify then return "verify-full" end
    return options.ssl_required and "require" or "prefer"
end

local function conninfo(options)
    local host, port = options.host, options.port
    if options.socket_path then host, port = socket_place(options.socket_path) end
    local version = tls_versions[options.ssl_version or "any"]
    local parts = {}
    local function say(key, value)
        if value then parts[#parts + 1] = key .. "=" .. quoted(value) end
    end
    say("host", host)
    say("port", port)
    say("dbname", options.database)
    say("sslmode", sslmode(options))
    if options.ssl then
        say("sslrootcert", options.cafile)
        say("sslcert", options.cert)
        say("sslkey", options.key)
        say("ssl_min_protocol_version", version)
        say("ssl_max_protocol_version", version)
    end
    return table.concat(parts, " ")
end

-- ---- opening ----------------------------------------------------------------------------------------------

local opened = {} -- key -> { db =, proven = a connection has been made }

local ENGINES_MAX = 64 -- a bound for programs that make a new configuration for each request

-- How many are open; those that somebody has closed are forgotten.
local function count_open()
    local count = 0
    for key, engine in pairs(opened) do
        if engine.db.core:closed() then opened[key] = nil else count = count + 1 end
    end
    return count
end

-- A value as text that tells it from all others; functions are told apart by identity.
local function text_of(value)
    if type(value) ~= "table" then
        return ("%s %s"):format(type(value), (tostring(value):gsub("[%%|{}=]", "%%%0")))
    end
    local parts = {}
    for key, item in pairs(value) do parts[#parts + 1] = text_of(key) .. "=" .. text_of(item) end
    table.sort(parts)
    return "{" .. table.concat(parts, "|") .. "}"
end

-- What tells one engine from another.
local function key_of(options, target)
    return text_of {
        target, user = options.user, password = options.password, role = options.role, pool = options.pool,
        pool_name = options.pool_name, pool_size = options.pool_size, backlog = options.backlog,
        more = options.weir_options,
    }
end

local function client_options(options)
    local client = {
        user = options.user, password = options.password, role = options.role,
        max = tonumber(options.pool_size) or 10, queue_max = tonumber(options.backlog),
    }
    client.bypass_rls = not options.role or nil -- what a plain login of pgmoon could do, it still can
    return client
end

local function opener()
    local weir = require "weir"
    return weir.host == "nginx" and require("resty.weir").open or weir.open
end

local function open(options, target)
    local what = {
        name = "pgmoon", timeout = 60,
        backends = { primary = target },
        clients = { [options.role and "anon" or "service"] = client_options(options) },
    }
    for key, value in pairs(options.weir_options or {}) do what[key] = value end
    return opener()(what)
end

local function own_engine(options)
    local target = conninfo(options)
    local key = key_of(options, target)
    local engine = opened[key]
    if engine and not engine.db.core:closed() then return engine end
    if count_open() >= ENGINES_MAX then
        errors.misusef("pgmoon.new: %d different configurations are in use; functions in weir_options must be "
            .. "made once, not for each object", ENGINES_MAX)
    end
    local db, err = open(options, target)
    if not db then return nil, err end
    opened[key] = { db = db, client = options.role and "anon" or "service" }
    return opened[key]
end

local shared = setmetatable({}, { __mode = "k" }) -- engines that exist by themselves

local function given_engine(options)
    local db, err = options.weir, nil
    if db == true then db, err = require("resty.weir").db() end
    if not db then return nil, err end
    shared[db] = shared[db] or {}
    local client = options.client or (options.claims ~= nil and db.anon_client or db.service_client)
    if not client then errors.misuse("pgmoon.new: say which client of the engine: client = 'service'") end
    shared[db][client] = shared[db][client] or { db = db, client = client }
    return shared[db][client]
end

--- The engine of these options: { db =, client =, proven = }, or nil and an error.
function logins.find(options)
    if options.weir then return given_engine(options) end
    if not options.database then errors.misuse("missing database for connect") end
    return own_engine(options)
end

return logins
