--- One short run of a policy in a simulated world: engines with that policy, servers, a load, and
-- something that goes wrong. weir.explain and weir.lint say nothing that was not seen in one.
--
--     local setting = surroundings.read("explain", policy, about)
--     local crash = { at = 5, kind = "crash", options = { after = 10 } }
--     local seen = trial.run(setting, { seconds = 30, faults = { crash } })

local core = require "weir.core"
local db = require "weir.db"
local loop = require "weir.loop"
local sim = require "weir.sim"

local trial = {}

-- How often figures are taken down, in virtual seconds.
local STEP = 0.25

-- ---- the world --------------------------------------------------------------------------------------------

-- Every backend has a server of its own, all alike.
local function make_servers(world, setting, more)
    local about = setting.about
    local options = { service = about.service, workers = about.workers, connections = about.connections }
    for key, value in pairs(more or {}) do options[key] = value end
    for _, name in ipairs(setting.backends) do world:server(name):set(options) end
end

--- fn(server) for the server of each backend.
function trial.each_server(world, setting, fn)
    for _, name in ipairs(setting.backends) do fn(world:server(name)) end
end

--- The servers' figures added up.
function trial.server_stats(world, setting)
    local sums = { connects = 0, connects_refused = 0, statements = 0, busy = 0, sessions = 0, running = 0,
        waiting = 0 }
    trial.each_server(world, setting, function(server)
        local stats = server:stats()
        for key, sum in pairs(sums) do sums[key] = sum + stats[key] end
    end)
    return sums
end

--- Opens one engine with the policy. Its dice follow the seed.
function trial.open(setting, seed)
    return assert(db.open(setting.make(seed)))
end

-- The simulation gives math.random a seed. Afterwards it must not be one that is always the same.
local function apart(fn, ...)
    local dice = math.random(0, 2 ^ 31 - 1)
    local ok, result = pcall(fn, ...)
    math.randomseed(dice)
    if not ok then error(result, 0) end
    return result
end

local function in_world(setting, more, fn)
    local world, result = sim { seed = setting.about.seed }, nil
    make_servers(world, setting, more)
    world:run(function() result = fn(world) end)
    return result
end

-- What a server is whose work takes no time: what passes between two executions is what the engine waited.
trial.no_time = { service = 0, commit = 0, connect = 0, network = 0 }

--- Runs fn(world) in a world of its own and returns its result. The servers have their options from the
-- surroundings, and `more`, if given, on top.
function trial.world(setting, more, fn)
    return apart(in_world, setting, more, fn)
end

-- ---- what runs --------------------------------------------------------------------------------------------

local function default_calls(setting)
    return {
        {
            client = setting.client, claims = setting.claims, context = "weir trial", readonly = true,
            sql = "select weir_trial()",
        },
    }
end

local function start_load(run, engine, index)
    local setting, spec = run.setting, run.spec
    local options = {
        calls = spec.calls or default_calls(setting),
        upto = spec.seconds,
        seed = setting.about.seed * 64 + index,
        caller_retries = setting.about.caller_retries,
    }
    if spec.users then
        options.users = spec.users
        options.think = spec.think or 0
    else
        options.poisson = true
        options.rates = { { 0, (spec.rate or setting.about.rate) / setting.about.engines } }
    end
    return assert(core.load(engine.core, run.tally, options))
end

local function start(run)
    local about = run.setting.about
    run.tally = assert(core.tally { bucket = 0.05, phases = run.spec.phases })
    for i = 1, about.engines do
        run.engines[i] = trial.open(run.setting, about.seed * 64 + i)
        run.loads[i] = start_load(run, run.engines[i], i)
    end
end

local function begin_fault(run, fault)
    trial.each_server(run.world, run.setting, function(server)
        server:fault(fault.kind, fault.options)
    end)
end

-- ---- taking down ------------------------------------------------------------------------------------------

local function sample(run)
    local counts, stats = run.tally:counts(), trial.server_stats(run.world, run.setting)
    local waiting = 0
    for _, engine in ipairs(run.engines) do waiting = waiting + engine.core:held().waiting end
    local taken = {
        at = run.world.clock(), arrived = counts.arrived, ok = counts.ok, failed = counts.failed,
        attempts = counts.attempts, admitted_badly = counts.failed - counts.refused,
        statements = stats.statements, connects = stats.connects, waiting = waiting,
    }
    run.samples[#run.samples + 1] = taken
    return taken
end

local function open_requests(run)
    local count = 0
    for _, load in ipairs(run.loads) do count = count + load:open() end
    return count
end

-- Sums over all pools of all engines of the counters of db:stats(), by group and name: refused.queue_full.
local function add_pool(sums, pool)
    for _, group in ipairs { "calls", "attempts", "refused", "closed", "events" } do
        sums[group] = sums[group] or {}
        for name, count in pairs(pool[group]) do sums[group][name] = (sums[group][name] or 0) + count end
    end
    sums.slow = (sums.slow or 0) + pool.breaker.slow
    sums.wait_max = math.max(sums.wait_max or 0, pool.wait_ms.max / 1000)
end

--- The counters of all pools of some engines; `off` is why a policy was replaced, if one was.
function trial.pool_stats(engines)
    local sums = {}
    for _, engine in ipairs(engines) do
        local stats = engine:stats()
        for _, pool in ipairs(stats.pools) do add_pool(sums, pool) end
        if stats.policy.message ~= "" then sums.off = sums.off or stats.policy.message end
    end
    return sums
end

-- On what evidence a breaker first opened.
local function opened_why(engines)
    for _, engine in ipairs(engines) do
        for _, event in ipairs(engine:events()) do
            local why = event.kind == "breaker" and event.text:match "%-> OPEN: (.*)$"
            if why then return why end
        end
    end
    return "no evidence was kept"
end

local function phase_figures(run)
    local figures = {}
    for _, phase in ipairs(run.spec.phases or {}) do
        figures[phase.name] = run.tally:counts(phase.name)
        figures[phase.name].ended_as = run.tally:ended_as(phase.name)
        figures[phase.name].usual = run.tally:quantile(phase.name, 0.5, true)
        figures[phase.name].p99 = run.tally:quantile(phase.name, 0.99, false)
    end
    return figures
end

local function conclude(run)
    local seen = {
        counts = run.tally:counts(),
        ended_as = run.tally:ended_as(),
        p99 = run.tally:quantile(nil, 0.99, false),
        moves = (run.tally:moves()),
        buckets = run.tally:buckets(),
        phases = phase_figures(run),
        pools = trial.pool_stats(run.engines),
        opened_why = opened_why(run.engines),
        servers = trial.server_stats(run.world, run.setting),
        samples = run.samples,
        ended = run.world.clock(),
        extra = run.extra,
    }
    for _, load in ipairs(run.loads) do load:free() end
    for _, engine in ipairs(run.engines) do engine:close() end
    return seen
end

-- ---- the course of a run ----------------------------------------------------------------------------------

local function next_moment(run, now)
    local step = run.spec.step or STEP
    local due = (math.floor(now / step + 1e-9) + 1) * step
    local fault = run.faults[run.next_fault]
    if fault and fault.at < due then due = fault.at end
    return due
end

local function drive(run)
    while true do
        local now = run.world.clock()
        local fault = run.faults[run.next_fault]
        while fault and fault.at <= now do
            begin_fault(run, fault)
            run.next_fault = run.next_fault + 1
            fault = run.faults[run.next_fault]
        end
        local taken = sample(run)
        if run.spec.look then run.spec.look(run, taken) end
        if run.spec.enough and run.spec.enough(run.samples, taken) then return end
        if now >= run.spec.seconds and open_requests(run) == 0 then return end
        loop.sleep(math.max(next_moment(run, now) - now, 1e-6))
    end
end

--- Runs the policy under a load. `spec`: seconds (of arrivals); rate, or users (of each engine; with think);
-- calls (as core.load takes them; one kind of read if absent); server (changes to it); phases; faults, a
-- list in order of { at, kind, options }, which strike all servers; look(run, last), called each `step`
-- (0.25) seconds, which may keep something in run.extra; enough(samples, last), asked as often whether
-- the run may end. It ends when arrivals have ended and every call has.
function trial.run(setting, spec)
    return trial.world(setting, spec.server, function(world)
        local run = {
            world = world, setting = setting, spec = spec, engines = {}, loads = {}, samples = {}, extra = {},
            faults = spec.faults or {}, next_fault = 1,
        }
        start(run)
        drive(run)
        return conclude(run)
    end)
end

-- ---- one call at a time -----------------------------------------------------------------------------------

local kinds_of_call = {
    read = { sql = "select weir_trial($1)", readonly = true },
    write = { sql = "insert into weir_trial values ($1)" },
    idempotent = { sql = "insert into weir_trial values ($1)", idempotent = true },
}

local function note_executions(world, setting, fault)
    local executions = {}
    trial.each_server(world, setting, function(server)
        server:on("weir_trial", function(asked)
            local list = executions[asked.params[1]]
            if list then list[#list + 1] = asked.now end
            if fault.sqlstate and asked.params[1] ~= "warm" then return nil, fault.sqlstate end
            return 1
        end)
    end)
    return executions
end

-- One call on an engine of its own, so that neither breaker nor budget remember another one's.
local function one_call(run, number)
    local setting, how = run.setting, kinds_of_call[run.spec.call]
    local engine = trial.open(setting, setting.about.seed * 64 + number)
    local handle = engine:client(setting.client, setting.claims)
    if not run.spec.cold then handle:query("weir trial", how.sql, "warm") end
    run.ready = run.ready + 1
    loop.wait(run.go)
    local key = tostring(number)
    run.executions[key] = {}
    local started = run.world.clock()
    handle = handle:with { readonly = how.readonly, idempotent = how.idempotent }
    local _, err = handle:query("weir trial", how.sql, key)
    local call = {
        seconds = run.world.clock() - started, attempts = err and err.attempts or 1,
        code = err and err.code or "ok", outcome = err and err.outcome, executions = run.executions[key],
    }
    run.engines[number] = engine
    run.calls[number] = call
end

local function lone_calls(world, setting, spec)
    local run = {
        world = world, setting = setting, spec = spec, calls = {}, engines = {}, ready = 0, go = {},
    }
    run.executions = note_executions(world, setting, spec)
    local tasks = {}
    if spec.kind and spec.cold then begin_fault(run, spec) end
    for i = 1, spec.count do tasks[i] = loop.spawn(one_call, run, i) end
    while run.ready < spec.count do loop.sleep(0.01) end
    if spec.kind and not spec.cold then begin_fault(run, spec) end
    loop.fire(run.go)
    loop.gather(tasks)
    local pools = trial.pool_stats(run.engines)
    for _, engine in ipairs(run.engines) do engine:close() end
    return { calls = run.calls, pools = pools }
end

--- Some calls, each on an engine of its own, against servers on which something is always wrong: `kind` and
-- `options` of a fault, or the sqlstate that every statement ends with. `call`: read, write or
-- idempotent; `cold`: no connection is there yet; `count`: how many. Returns { calls = list of {
-- seconds, attempts, code, outcome, executions }, pools }; executions are the moments at which the
-- server did it.
function trial.lone(setting, spec)
    return trial.world(setting, trial.no_time, function(world)
        return lone_calls(world, setting, spec)
    end)
end

return trial
