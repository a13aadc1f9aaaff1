--- A simulated PostgreSQL in virtual time, for plain tests and for scenarios.
--
--     local sim = weir.sim { seed = 7 }
--     sim:server("primary"):set { workers = 4, service = weir.sim.exponential(0.005) }
--     sim:at(10, function() sim:server("primary"):fault("crash", { after = 30 }) end)
--     sim:run(function()
--         local db = assert(weir.open { ... })      -- on the simulated server of each backend's name
--         ...
--     end)
--
-- Inside run everything of Weir lives in virtual time: engines, guards, sleeps, tasks. The same seed gives
-- the same course of events. Lua's own math.random is seeded too; os.time and os.clock know nothing of it.

local compat = require "weir.compat"
local core = require "weir.core"
local dist = require "weir.dist"
local errors = require "weir.errors"
local json = require "weir.json"
local loop = require "weir.loop"

local Sim = { __name = "weir.sim" }
Sim.__index = Sim

local Server = {}
Server.__index = Server

local default_seed = 1
local running                    -- the simulation that runs, if any

-- ---- servers ----------------------------------------------------------------------------------------------

local function checked(done, why)
    if not done then errors.misuse(why) end
end

local function check_type(what, value, wanted)
    if type(value) ~= wanted then
        errors.misusef("%s is a %s; it must be a %s", what, type(value), wanted)
    end
end

local function table_or_nothing(what, value)
    if value ~= nil and type(value) ~= "table" then
        errors.misusef("%s: the options are a %s; they must be a table", what, type(value))
    end
    return value or {}
end

--- Changes the server: workers, queue ("fifo" or "shared"), service, commit, connect, network (durations in
-- seconds or distributions), connections, ignores_cancel, follows (of which server it is a replica), lag.
function Server:set(options)
    checked(self.sim.core:set(self.name, table_or_nothing("set", options)))
    return self
end

-- What a function is asked with: claims decoded.
local function with_claims(fn)
    return function(asked)
        if asked.claims then asked.claims = json.decode(asked.claims) end
        return fn(asked)
    end
end

--- What statements that contain `text` (letters of any case) do; the first rule that fits rules. `does` is
-- a table: service (duration), writes (whether it has an effect), error (a SQLSTATE) and message, rows and
-- columns; or a function(asked) giving rows, a number of affected rows, nothing (the usual answer), or nil,
-- a SQLSTATE and a message. It is called at the moment of execution, with { sql, params, claims, role,
-- user, now, seen_until, in_transaction }, and must not wait.
function Server:on(text, does)
    check_type("on: the part of the statements meant", text, "string")
    local rule = {}
    if type(does) == "function" then
        rule.answer = with_claims(does)
    else
        for key, value in pairs(table_or_nothing("on", does)) do rule[key] = value end
        if type(rule.answer) == "function" then rule.answer = with_claims(rule.answer) end
    end
    rule.text = text
    checked(self.sim.core:rule(self.name, rule))
    return self
end

--- Begins a fault now: "crash", "restart", "refuse", "slow", "freeze", "vanish", "latency", "reset",
-- "errors", "failover", "role_lost", "rotate". Options: lasts (seconds; without, until heal), and by kind
-- after, recovery, factor, rate, seconds, sqlstate, text, to, phase, count, forgotten.
function Server:fault(kind, options)
    check_type("fault: the kind", kind, "string")
    checked(self.sim.core:fault(self.name, kind, table_or_nothing("fault", options)))
    return self
end

--- Ends a fault; a server that is down comes up.
function Server:heal(kind)
    check_type("heal: the kind", kind, "string")
    checked(self.sim.core:heal(self.name, kind))
    return self
end

--- What it has seen so far: connects, statements, commits, sessions, waiting_max and more.
function Server:stats()
    local stats, why = self.sim.core:stats(self.name)
    checked(stats, why)
    return stats
end

-- ---- the simulation ---------------------------------------------------------------------------------------

local function check_seed(seed)
    if seed == nil then return default_seed end
    if type(seed) ~= "number" or seed < 0 or seed > 2 ^ 53 or seed % 1 ~= 0 then
        errors.misusef("sim: seed is %s; it must be a whole number from 0 to 2^53", tostring(seed))
    end
    return seed
end

local function check_known(options)
    for key in pairs(options) do
        if key ~= "seed" then errors.misusef("sim: '%s' is no option; there is seed", tostring(key)) end
    end
end

local function new(options)
    options = table_or_nothing("sim", options)
    check_known(options)
    local seed = check_seed(options.seed)
    local self = setmetatable({ seed = seed, core = core.sim(seed), plans = {} }, Sim)
    --- Seconds since the start.
    self.clock = function() return self.core:now() end
    return self
end

--- The server of that name; made with the defaults when first named.
function Sim:server(name)
    check_type("server: the name", name, "string")
    if self.servers and not self.servers[name] then
        errors.misusef("server: there is no server '%s'", name)
    end
    checked(self.core:stats(name))
    return setmetatable({ sim = self, name = name }, Server)
end

--- From now on there are these servers ({ [name] = true }) and no others.
function Sim:only(servers)
    self.servers = servers
end

local function wait_and_call(self, at, fn)
    local wait = at - self.core:now()
    if wait > 0 then loop.sleep(wait) end
    return fn()
end

--- Calls fn() as a task at `seconds` since the start; the run waits for it.
function Sim:at(seconds, fn)
    if type(seconds) ~= "number" or not (seconds >= 0 and seconds < 1e9) then
        errors.misusef("at(%s): it must be a number of seconds since the start, 0 or more", tostring(seconds))
    end
    check_type("at: the second argument", fn, "function")
    local now = self.core:now()
    if seconds < now then
        errors.misusef("at(%g): that moment has passed, it is %g s", seconds, now)
    end
    if running == self then
        return loop.spawn(wait_and_call, self, seconds, fn)
    end
    self.plans[#self.plans + 1] = { at = seconds, fn = fn }
end

-- What was planned before the run comes first, also at the moment of its start.
local function run_inside(self, fn, ...)
    local plans = self.plans
    self.plans = {}
    if #plans == 0 then return compat.pack(loop.run(fn, ...)) end
    return compat.pack(loop.run(function(...)
        for _, plan in ipairs(plans) do loop.spawn(wait_and_call, self, plan.at, plan.fn) end
        coroutine.yield()
        return fn(...)
    end, ...))
end

-- Inside nginx a simulation runs in a coroutine that belongs to no request: ngx.sleep and its like then say so.
local function explained(err)
    if core.host ~= "nginx" or type(err) ~= "string" then return err end
    return (err:gsub("no request found", "%0: a simulation belongs to none, and may not wait for nginx", 1))
end

local function conclude(results)
    if not results[1] then
        if results[2] == nil then error("weir.sim: a task failed and nobody joined it; see above", 0) end
        error(explained(results[2]), 0)
    end
    return compat.unpack(results, 2, results.n)
end

--- Runs fn(...) in virtual time until it and all tasks it started have ended, those of `at` included.
-- Returns what fn returned and raises what it raised. What runs in real time stands still meanwhile.
function Sim:run(fn, ...)
    check_type("run: the argument", fn, "function")
    if running then errors.misuse("run: a simulation is running already; one runs at a time") end
    self.core:enter()
    running = self
    local afterwards = math.random(0, 2 ^ 31 - 1) -- the program's own sequence must not repeat after each run
    math.randomseed(self.seed)
    local ok, results = pcall(loop.apart, run_inside, self, fn, ...)
    math.randomseed(afterwards)
    running = nil
    self.core:leave()
    local failure = self.core:failure()
    if not ok then error(results, 0) end
    if failure ~= nil and results[1] then error(failure, 0) end
    return conclude(results)
end

--- How often the write whose first parameter is `value` took effect.
function Sim:executions(value)
    local whole = type(value) == "number" and value % 1 == 0 -- 5.0 is sent as 5
    return self.core:executions(whole and ("%.0f"):format(value) or tostring(value))
end

--- What became of the writes of scenarios: opened, closed, twice, lost, undead, gone, unknown_there,
-- unknown_not_there.
function Sim:books()
    return self.core:books()
end

local function check_seconds(what, seconds, least)
    if type(seconds) ~= "number" or not (seconds >= least and seconds <= 1e9) then
        errors.misusef("%s(%s): it must be a number of seconds, %s or more", what, tostring(seconds), least)
    end
end

--- The wall clock steps, as NTP does; nothing that measures time may notice.
function Sim:step_wall_clock(seconds)
    check_seconds("step_wall_clock", seconds, -1e9)
    self.core:step_wall_clock(seconds)
end

--- The whole program stands still for so long, as in a pause of a collector or a moved VM.
function Sim:stall(seconds)
    check_seconds("stall", seconds, 0)
    self.core:stall(seconds)
end

--- A line of the script's own in the trace.
function Sim:note(text)
    check_type("note: the text", text, "string")
    self.core:note(text)
end

--- Sixteen digits that stand for everything that has happened, in order.
function Sim:hash()
    return self.core:hash()
end

--- Hands every event as a line to fn, which must only look; nil ends that.
function Sim:trace(fn)
    if fn ~= nil then check_type("trace: the argument", fn, "function") end
    self.core:trace(fn)
end

local sim = {
    constant = dist.constant, uniform = dist.uniform, exponential = dist.exponential, normal = dist.normal,
    lognormal = dist.lognormal, pareto = dist.pareto, histogram = dist.histogram,
    --- The seed of simulations that name none.
    default_seed = function(seed) default_seed = check_seed(seed) end,
    --- The simulation that runs, or nil.
    running = function() return running end,
}

return setmetatable(sim, {
    __call = function(_, options)
        return new(options)
    end,
})
