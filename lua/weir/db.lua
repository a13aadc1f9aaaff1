--- An open engine: client handles, units of work, and what an operator sees and steers.

local client = require "weir.client"
local core = require "weir.core"
local errors = require "weir.errors"
local guard = require "weir.guard"
local json = require "weir.json"
local loop = require "weir.loop"

local db = {}

local Db = { __name = "weir.db" }
Db.__index = Db

local OF_ENGINE = {
    "core", "key", "null", "backoff_options", "anon_client", "service_client", "checks", "checks_running",
}

-- Key of an engine -> its db, for the health checks that fall due while somebody turns the loop.
local open = setmetatable({}, { __mode = "v" })

-- ---- opening ----------------------------------------------------------------------------------------------

-- The client that with_anon or with_service means: the one of that name, or the only one of that kind.
local function default_client(clients, name, is_kind)
    if clients[name] and is_kind(clients[name]) then return name end
    local found
    for other, options in pairs(clients) do
        if is_kind(options) then
            if found then return nil end
            found = other
        end
    end
    return found
end

local CHECK_TIMEOUT = 5 -- seconds, or the interval if that is shorter

-- In the engine's order: { run =, timeout = }.
local function checks_of(health, names)
    local otherwise = health.interval or CHECK_TIMEOUT
    if otherwise == 0 or otherwise > CHECK_TIMEOUT then otherwise = CHECK_TIMEOUT end
    local checks = {}
    for i, name in ipairs(names) do
        local check = health.checks[name]
        local plain = type(check) ~= "table"
        checks[i] = { run = plain and check or check.check, timeout = not plain and check.timeout or otherwise }
    end
    return checks
end

--- weir.open(options): misuse raises; what the world refuses is nil and an error.
function db.open(options)
    if type(options) ~= "table" then
        errors.misusef("open: the options are a %s; they must be a table", type(options))
    end
    local engine, key, more = core.open(options)
    if not engine then
        if key then errors.misuse("open: " .. key) end
        return nil, errors.new("open_failed", more)
    end
    local self = setmetatable({
        core = engine,
        key = key,
        null = options.null,
        backoff_options = options.backoff or {},
        anon_client = default_client(options.clients, "anon", function(c) return c.role ~= nil end),
        service_client = default_client(options.clients, "service", function(c) return c.role == nil end),
        checks = #more > 0 and checks_of(options.health, more) or nil,
        checks_running = {},
    }, Db)
    open[key] = self
    if self.checks and loop.on_checks then loop.on_checks() end
    return self
end

--- Whether a value is an engine that db.open has opened.
function db.is(value)
    return getmetatable(value) == Db
end

--- The open engine of this program, if there is just one.
function db.only()
    local found
    for _, engine in pairs(open) do
        if not engine.core:closed() then
            if found then return nil end
            found = engine
        end
    end
    return found
end

--- Puts the engine of `other` into `self`, and the other way round, with all that belongs to an engine.
-- Handles are of a table and not of an engine, so those of `self` go on with what `other` had.
function db.exchange(self, other)
    for _, field in ipairs(OF_ENGINE) do self[field], other[field] = other[field], self[field] end
    open[self.key], open[other.key] = self, other
    return other
end

-- ---- health checks of the program's own -------------------------------------------------------------------

local function judge(protected, value, why)
    if protected and value then return true end
    return false, tostring(not protected and value or why or "the check returned " .. tostring(value))
end

-- A check that is cancelled and goes on all the same counts as running until it ends. The engine may be exchanged for
-- another meanwhile: the answer goes to the one that asked.
local function run_check(self, index)
    local engine, running, check = self.core, self.checks_running, self.checks[index]
    local started, signal = core.now(), {}
    local ok, message
    local task = loop.spawn_daemon(function()
        ok, message = judge(pcall(check.run))
        running[index] = nil
        loop.fire(signal)
    end)
    if not loop.wait_for(signal, check.timeout) then
        task:cancel()
        ok, message = false, ("the check has not answered within %g s"):format(check.timeout)
    end
    if not engine:closed() then engine:settle_check(index, ok, core.now() - started, message) end
end

-- One that is still running from last time is left alone: the engine knows that it is late.
function loop.on_check(key, index)
    local self = open[key]
    if not self or not self.checks or self.checks_running[index] then return end
    self.checks_running[index] = true
    loop.spawn_daemon(run_check, self, index)
end

-- ---- calls ------------------------------------------------------------------------------------------------

--- A handle for calls as the client `name`, for users (ANON clients) with their claims.
function Db:client(name, claims)
    return client.new(self, name, claims)
end

local function require_client(name, kind, with)
    if name then return name end
    errors.misusef("no single %s client; name one 'anon' or 'service', or use db:%s(name, ...)", kind, with)
end

function Db:anon(claims)
    return client.new(self, require_client(self.anon_client, "ANON", "client"), claims)
end

-- Without claims all handles are alike, so there is one.
function Db:service()
    local handle = self.service_handle
    if not handle then
        handle = client.new(self, require_client(self.service_client, "SERVICE", "client"))
        self.service_handle = handle
    end
    return handle
end

--- Runs fn(tx) in one transaction as the client `name`.
function Db:with(name, context, claims, fn, options)
    return client.new(self, name, claims):transaction(context, fn, options)
end

--- Runs fn(tx) in one transaction as the user of the claims, under row-level security.
function Db:with_anon(context, claims, fn, options)
    return self:with(require_client(self.anon_client, "ANON", "with"), context, claims, fn, options)
end

--- Runs fn(tx) in one transaction of an administrator, past row-level security.
function Db:with_service(context, fn, options)
    return self:with(require_client(self.service_client, "SERVICE", "with"), context, nil, fn, options)
end

-- ---- seeing -----------------------------------------------------------------------------------------------

--- What an operator sees and steers of this engine; see weir.attach.
function Db:view()
    require "weir.hindsight"
    require "weir.orders"
    require "weir.pgbouncer"
    return require("weir.view").of(self.core)
end

local function document(text, why)
    if not text then errors.misuse(why) end
    return json.decode(text)
end

--- Health as the endpoint gives it.
function Db:health()
    return document(self.core:health())
end

--- The same as JSON text.
function Db:health_json()
    local text, why = self.core:health()
    if not text then errors.misuse(why) end
    return text
end

--- All figures: engine, pools, breakers, latencies.
function Db:stats()
    return document(self.core:stats())
end

local function check_count(what, value)
    if value ~= nil and (type(value) ~= "number" or value < 0 or value % 1 ~= 0) then
        errors.misusef("%s is %s; it must be a whole number, 0 or more", what, tostring(value))
    end
    return value
end

--- The last finished calls with their timelines, newest first; at most `most` (100).
function Db:calls(most)
    return document(self.core:calls(check_count("the number of calls", most)))
end

--- The event log: transitions, policy faults, leaks; only those after number `after`.
function Db:events(after)
    return document(self.core:events(check_count("the number of the event", after)))
end

--- What is held at this moment; all zero but `idle` and `allocations` when nothing is under way.
function Db:held()
    return self.core:held()
end

--- What an HTTP server shows of the engine at `path`: /health, /livez, /readyz, /metrics, /stats.json,
-- /calls.json,
--- /events.json, and the page /. `accept` is the request's Accept header, if it has one.
-- @return status, content type, body; nothing if there is no such document
function Db:page(path, accept)
    if type(path) ~= "string" then errors.misusef("the path is %s; it must be a string", tostring(path)) end
    if accept ~= nil and type(accept) ~= "string" then
        errors.misusef("accept is %s; it must be a string or nil", tostring(accept))
    end
    local status, kind, body = self.core:page(path, accept)
    if status == nil and kind then errors.misuse(kind) end
    return status, kind, body
end

-- ---- steering ---------------------------------------------------------------------------------------------

local Breaker = {}
Breaker.__index = Breaker

local function checked(done, why)
    if not done then errors.misuse(why) end
end

local forced = { open = true, closed = true, disabled = true, metrics_only = true }

--- "open", "closed", "disabled", "metrics_only", or nil to end forcing.
function Breaker:force(state)
    if state ~= nil and not forced[state] then
        local known = "'open', 'closed', 'disabled', 'metrics_only', or nil to end forcing"
        errors.misusef("force(%s): it must be %s", tostring(state), known)
    end
    checked(self.db.core:force(self.pool, state or "auto"))
end

local function pool_stats(self)
    for _, pool in ipairs(self.db:stats().pools) do
        if pool.pool == self.pool then return pool end
    end
    errors.misusef("there is no pool %s", self.pool)
end

--- What stats() says of this pool's breaker.
function Breaker:snapshot()
    return pool_stats(self).breaker
end

--- CLOSED, OPEN, HALF_OPEN, FORCED_OPEN, FORCED_CLOSED, DISABLED or METRICS_ONLY.
function Breaker:state()
    return self:snapshot().state
end

--- The breaker of one pool, "client@backend".
function Db:breaker(pool)
    if type(pool) ~= "string" then
        errors.misusef("breaker(%s): a pool is named 'client@backend'", tostring(pool))
    end
    return setmetatable({ db = self, pool = pool }, Breaker)
end

--- Forces the breaker of one pool, or of all if pool is nil.
function Db:force(pool, state)
    Breaker.force({ db = self, pool = pool }, state)
end

--- Holds back new calls of one pool, or of all if pool is nil; false lets them go on.
function Db:pause(pool, paused)
    checked(self.core:pause(pool, paused ~= false))
end

--- Opens the file of `log` anew, after a rotation has moved it away; nothing to do if the log goes elsewhere.
-- @return true; or nil and why, and the log goes on in the file it had
function Db:reopen_log()
    return self.core:reopen_log()
end

--- A backoff with this engine's settings, for loops of the script's own.
function Db:backoff()
    return guard.backoff(self.backoff_options)
end

local function check_ours(self, what)
    if not self.of_worker then return end
    errors.misusef("%s: the engine of weir_policy is that of all code in this worker and ends with it; pause holds calls off",
        what)
end

--- Lets running calls end for up to `seconds` (10), refuses new ones, and returns when nothing is left.
function Db:drain(seconds)
    seconds = seconds or 10
    if type(seconds) ~= "number" or not (seconds >= 0 and seconds < 1e9) then
        errors.misusef("drain(%s): it must be a number of seconds, 0 or more", tostring(seconds))
    end
    check_ours(self, "drain")
    self.core:drain(seconds)
    while not self.core:drained() do loop.sleep(0.005) end
end

--- Ends everything at once: calls under way end as cancelled.
function Db:close()
    check_ours(self, "close")
    self.core:close()
end

Db.__close = Db.close

return db
