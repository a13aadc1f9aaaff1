--- pgmoon's interface on Weir's engine: change require "pgmoon" to require "resty.weir.pgmoon".
--
--     local pgmoon = require "resty.weir.pgmoon"
--     local pg = pgmoon.new { host = "127.0.0.1", database = "app", user = "app", password = secret }
--     assert(pg:connect())
--     local rows = assert(pg:query("select * from contacts where workspace = $1", "abc123"))
--     pg:keepalive()
--
-- An object holds no connection: each query borrows one from the engine's pool, and a transaction holds one
-- from BEGIN to COMMIT. What the engine does goes with it: deadlines, breaker, retries of what is safe to
-- repeat, metrics, health. Options of `new`, beside pgmoon's:
--
--     role, claims      calls act as this role with these claims, under row-level security; without, the login
--                       is used as it is, and passes it: bypass_rls is implied, as the login could do so before
--     context           what calls are for, in metrics and application_name (in nginx: the request's method and
--                       route)
--     weir, client      an engine that exists, and which of its clients; weir = true is nginx's own (weir_policy)
--     weir_options      more for weir.open: breaker, retry, backoff, area, ...
--     numeric_mode      "lossless" (default) or "pgmoon": numbers lose the digits that pgmoon's lose
--     timeout           milliseconds, as settimeout
--
-- pool_size is `max`, backlog is `queue_max`, application_name the context. socket_type says nothing here;
-- what would weaken a connection if it were left out (luasec_opts, cqueues_openssl_context, unknown ssl_
-- keys) is refused.

local weir = require "weir"
local arrays = require "resty.weir.pgmoon.arrays"
local conversation = require "resty.weir.pgmoon.conversation"
local errors = require "weir.errors"
local hstore = require "resty.weir.pgmoon.hstore"
local listening = require "resty.weir.pgmoon.listening"
local literals = require "resty.weir.pgmoon.literals"
local logins = require "resty.weir.pgmoon.logins"
local sentences = require "resty.weir.pgmoon.sentences"
local values = require "resty.weir.pgmoon.values"

local Base = { -- what objects inherit; user, host and so on are what pgmoon falls back to
    user = "postgres", host = "127.0.0.1", port = "5432", ssl = false,
    convert_null = false,
    NULL = literals.NULL,
    PG_TYPES = values.PG_TYPES,
    type_deserializers = values.type_deserializers,
    sock_type = "weir",
    numeric_mode = "lossless",
}
Base.__index = Base

--- The class, which makes an object when it is called.
local Postgres = setmetatable({ __base = Base, __name = "Postgres" }, { __index = Base })

-- ---- making -----------------------------------------------------------------------------------------------

local kept = { -- options that the object shows under their names
    "user", "host", "port", "database", "password", "ssl", "ssl_verify", "ssl_required", "convert_null",
    "numeric_mode",
    "context",
}

local function milliseconds(value)
    if value == nil then return nil end
    local number = tonumber(value)
    if not number then
        errors.misusef("the timeout is %s; it must be a number of milliseconds", tostring(value))
    end
    return number > 0 and number or nil
end

local function new(options)
    options = options or {}
    if type(options) ~= "table" then
        errors.misusef("pgmoon.new: the options are a %s; they must be a table", type(options))
    end
    logins.check(options)
    local pg = setmetatable({
        config = options,
        transaction_status = "I", talks = 0, busy = false,
        settings = {}, channels = {}, notifications = {},
        timeout = milliseconds(options.timeout),
    }, Base)
    for _, name in ipairs(kept) do pg[name] = options[name] end
    if pg.context == nil and weir.host ~= "nginx" then pg.context = options.application_name or "pgmoon" end
    return pg
end

getmetatable(Postgres).__call = function(_, options)
    return new(options)
end

-- The options with what the object falls back to, or was given since.
local function login_of(pg)
    local login = {}
    for key, value in pairs(pg.config) do login[key] = value end
    for _, name in ipairs(kept) do login[name] = pg[name] end
    return login
end

-- ---- connecting -------------------------------------------------------------------------------------------

--- The client handle of Weir that queries go through, for what pgmoon has no words for.
function Base:handle()
    if self._handle then return self._handle end
    local handle = self.engine.db:client(self.engine.client, self.config.claims)
    local options = { backend = self.config.backend, timeout = self.timeout and self.timeout / 1000 or nil }
    if next(options) then handle = handle:with(options) end
    self._handle = handle
    return handle
end

-- The first object of an engine finds out whether there is a server behind it; for the others that costs
-- nothing.
local function prove(pg)
    if pg.engine.proven then return true end
    local done, err = pg:handle():pipeline(pg.context, { { "select 1" } })
    if not done then return nil, err end
    pg.engine.proven = true
    return true
end

--- Opens the engine if this is the first object of its kind.
-- @return true, or nil and why there is no connection to be had, and the error object
function Base:connect()
    if self.connected then return true end
    local engine, err = logins.find(login_of(self))
    if not engine then return nil, tostring(err), err end
    self.engine, self._handle = engine, nil
    local done
    done, err = prove(self)
    if not done then return nil, sentences.of(err), err end
    self.connected = true
    return true
end

--- The time for a query, or for a transaction as a whole, in milliseconds. Without, it is a minute.
function Base:settimeout(time)
    self.timeout = milliseconds(time)
    self._handle = nil
end

-- A transaction that is still open is rolled back.
local function let_go(pg)
    conversation.abandon(pg)
    listening.stop(pg)
    pg.settings, pg.connected = {}, false
    return true
end

--- The object is to be connected again before it is used. The engine and its connections stay.
function Base:disconnect()
    return let_go(self)
end

--- The same: there is no connection to be put anywhere.
function Base:keepalive()
    if not self.connected then return nil, "not connected" end
    return let_go(self)
end

-- ---- queries ----------------------------------------------------------------------------------------------

--- Runs statements; with parameters one statement, as in extended_query.
-- @return the result (a list of them, if there were several statements), their number, notifications, notices;
-- or nil, a string, the results before it, their number, notifications, notices, and Weir's error object
function Base:query(sql, ...)
    if select("#", ...) > 0 then return conversation.extended(self, sql, ...) end
    return conversation.simple(self, sql)
end

--- Any number of statements without parameters.
function Base:simple_query(sql)
    return conversation.simple(self, sql)
end

--- One statement with parameters $1, $2, ...: strings, numbers, booleans, NULL, or tables whose metatable has
-- pgmoon_serialize.
function Base:extended_query(sql, ...)
    return conversation.extended(self, sql, ...)
end

--- Waits for a notification of a channel that LISTEN was said for, at most for the timeout.
-- @return { operation = "notification", channel =, payload =, pid = }, or nil and why there is none
function Base:wait_for_notification()
    if not self.connected then return nil, "not connected" end
    return listening.wait(self, self.timeout and self.timeout / 1000)
end

-- ---- types ------------------------------------------------------------------------------------------------

local function own_copy(object, name)
    if rawget(object, name) then return end
    local copy = {}
    for key, value in pairs(object[name]) do copy[key] = value end
    object[name] = copy
end

--- Values of this type go through the deserializer of this name, which is `fn(self, text, name)` if that is
-- given.
function Base:set_type_deserializer(oid, name, fn)
    local number = tonumber(oid)
    if not number then errors.misusef("set_type_deserializer: %s is no type OID", tostring(oid)) end
    own_copy(self, "PG_TYPES")
    self.PG_TYPES[number] = name
    if not fn then return end
    own_copy(self, "type_deserializers")
    self.type_deserializers[name] = fn
end

Base.set_type_oid = Base.set_type_deserializer

--- Values of type hstore become tables.
function Base:setup_hstore()
    local rows, err = self:query "select oid::int8 as oid from pg_catalog.pg_type where typname = 'hstore'"
    if not rows then return nil, err end
    if not rows[1] then error("hstore oid not found", 2) end
    self:set_type_deserializer(rows[1].oid, "hstore")
    return true
end

-- ---- text -------------------------------------------------------------------------------------------------

function Base:escape_literal(value)
    return literals.escape(value, self and self.NULL)
end

function Base.escape_identifier(_, name)
    return literals.escape_identifier(name)
end

-- As methods of objects and of the class, which other modules of pgmoon have as functions.
local function method(fn)
    return function(_, ...)
        return fn(...)
    end
end

for _, name in ipairs {
    "encode_bytea", "decode_bytea", "encode_json", "decode_json", "encode_int", "decode_int",
} do
    Base[name] = method(literals[name])
end
Base.encode_array, Base.decode_array = method(arrays.encode_array), method(arrays.decode_array)
Base.encode_hstore, Base.decode_hstore = method(hstore.encode_hstore), method(hstore.decode_hstore)

local states = { I = "idle", T = "in a transaction", E = "in a failed transaction" }

function Base:__tostring()
    local state = self.connected and states[self.transaction_status] or "not connected"
    return ("<Postgres socket: weir, %s>"):format(state)
end

-- ---- the module -------------------------------------------------------------------------------------------

local pgmoon = { new = new, Postgres = Postgres, VERSION = weir.version, NULL = literals.NULL }

local json = { encode_json = literals.encode_json, decode_json = literals.decode_json }

--- Answers require "pgmoon" and its modules too, for libraries that ask for them by name, as Lapis does. To
-- be called before they are loaded.
function pgmoon.install()
    package.loaded["pgmoon"] = pgmoon
    package.loaded["pgmoon.arrays"] = arrays
    package.loaded["pgmoon.hstore"] = hstore
    package.loaded["pgmoon.json"] = json
    package.preload["pgmoon.pool"] = function() return require "resty.weir.pgmoon.pool" end
    return pgmoon
end

return pgmoon
