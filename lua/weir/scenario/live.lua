--- Runs a scenario against real PostgreSQL servers, in real time: the same file, the same load, the same
-- expectations as in simulation.
--
-- What is real: the servers (a throw-away one for each of the scenario's), the engine, its connections, the
-- faults. What is arranged: `service` and `workers` of a server are a sleep and a set of locks in front of
-- each statement of the load, because a real server is as fast as it is; how long COMMIT, connecting and
-- replication take is the server's own. A server that `follows` another is read-only and empty, no replica
-- of it. `answers` are not given. Statements of `work` functions are sent as they are, and their writes are
-- not in the books. A reset before_send looks to the engine like one after_send: no real client knows how far
-- its bytes have come.

local core = require "weir.core"
local engines = require "weir.scenario.engines"
local figures = require "weir.scenario.figures"
local loop = require "weir.loop"
local report = require "weir.scenario.report"
local sim = require "weir.sim"
local stage = require "weir.scenario.stage"
local stagesql = require "weir.scenario.stagesql"
local traffic = require "weir.scenario.traffic"
local trouble = require "weir.scenario.trouble"

local live = {}

local STEP = 0.002       -- seconds the load may come late
local SETTLE = 3         -- seconds that sessions of the load may take to end
local DEFAULT_WORKERS, DEFAULT_SERVICE = 8, { kind = "exponential", a = 0.002 } -- the simulated server's

-- ---- the plan, as it is run -------------------------------------------------------------------------------

-- The policy with all that a real login needs.
local function real_policy(plan)
    local policy = engines.policy(plan)
    local clients = {}
    for name, given in pairs(policy.clients) do
        local client = {}
        for key, value in pairs(given) do client[key] = value end
        client.user = client.user or "app_" .. name
        client.password = client.password or "secret of " .. name
        clients[name] = client
    end
    policy.clients = clients
    return policy
end

local function has(plan, kind)
    for _, entry in ipairs(plan.timeline) do
        if entry.what.kind == kind then return true end
    end
    return false
end

-- Whether statements must go through the clutch: somebody prescribes their time or their failure.
local function needs_clutch(plan)
    for _, server in ipairs(plan.servers) do
        if server.options.workers or server.options.service then return true end
    end
    return has(plan, "slow") or has(plan, "errors") or has(plan, "change")
end

-- The statements of a call with those of ours between them, and their values.
local function dressed(call, number, clutch)
    local sql, values, given = {}, {}, call.values or {}
    local function add(text, list)
        sql[#sql + 1], values[#values + 1] = text, list
    end
    for i, text in ipairs(call.sql) do
        if clutch then add(stagesql.tick:format(number), {}) end
        add(text, given[i] or text:find("%$1%f[^%d]") and { core.number } or {})
    end
    if call.writes then add(stagesql.ledger:format(number), { core.number }) end
    return sql, values
end

-- A write is followed by its entry in the ledger, in the same transaction: both are there, or none.
local function real_plan(plan)
    local clutch, calls = needs_clutch(plan), {}
    for i, call in ipairs(plan.calls) do
        calls[i] = setmetatable({}, { __index = call })
        if call.sql then
            calls[i].sql, calls[i].values = dressed(call, i, clutch)
        else
            calls[i].writes = false
        end
    end
    return setmetatable({ calls = calls, paced = clutch }, { __index = plan })
end

-- ---- what can be measured ---------------------------------------------------------------------------------

-- Of a real server its proxy's figures are known, and how many statements are in the clutch.
local measured = { connects = true, sessions = true, connects_in_a_second = true }
local measured_of_clutch = { running = true, waiting = true }

-- The plan without expectations of which nothing is known here, and sentences on those.
local function measurable(plan)
    local kept, notes, clutch = {}, {}, needs_clutch(plan)
    for _, one in ipairs(plan.expect) do
        local figure = one.needs and one.needs.figure
        if figure and not measured[figure] and not (clutch and measured_of_clutch[figure]) then
            notes[#notes + 1] = one.where:say("%s of a real server is not measured; not checked",
                figure:gsub("_", " "))
        else
            kept[#kept + 1] = one
        end
    end
    return setmetatable({ expect = kept }, { __index = plan }), notes
end

local function server_stats(server)
    local seen, queue = server.proxy:stats(), server.queue or {}
    return {
        running = queue.running, waiting = queue.waiting, running_max = queue.running_max,
        waiting_max = queue.waiting_max,
        connects = seen.accepted, sessions = server.proxy:connections(),
        sessions_max = seen.most_connections, connects_in_a_second_max = seen.connects_in_a_second_max,
    }
end

local function sample(run)
    for _, name in ipairs(run.stage.names) do
        local stats = server_stats(run.stage.servers[name])
        stats.at = run.clock()
        local list = run.samples[name]
        list[#list + 1] = stats
    end
end

-- ---- the run ----------------------------------------------------------------------------------------------

local function set_the_pace(run)
    for _, name in ipairs(run.stage.names) do
        local server = run.stage.servers[name]
        local options = server.options
        server.network = options.network and core.dist({ network = options.network }, "network") or 0
        server.proxy:latency(server.network)
        server.workers = options.workers or DEFAULT_WORKERS
        server.service = options.service or DEFAULT_SERVICE
        if run.plan.paced then
            run.stage:steer(name, stagesql.pace(server.workers, server.service))
            run.stage:watch_queue(name, run.step)
        end
    end
end

-- Each engine reaches the servers through their proxies, and has no server but those.
local function point_at_stage(run)
    return function(policy)
        local backends = {}
        for name, given in pairs(policy.backends) do
            local backend = {}
            for key, value in pairs(type(given) == "table" and given or {}) do backend[key] = value end
            backend.conninfo = run.stage.servers[name].proxy:url()
            backends[name] = backend
        end
        policy.backends, policy.clients = backends, run.policy.clients
    end
end

-- Turns the load until it is over and all requests have ended, or may have no more time.
local function drive(run)
    local plan, step, next_sample = run.plan, run.step, run.step
    local finish = plan.duration + plan.drain
    while not run.mistake do
        local now = run.clock()
        if now >= finish or now >= plan.duration and run.traffic:open() == 0 then break end
        if now >= next_sample then
            sample(run)
            next_sample = next_sample + step
        end
        run.traffic:run()
        loop.sleep(math.min(run.traffic:due() or STEP, STEP))
    end
    sample(run)
end

local function begin(run)
    local plan = run.plan
    run.engines = engines.open(plan, point_at_stage(run))
    local spans = {}
    for i, phase in ipairs(plan.phases) do
        spans[i] = { name = phase.name, from = phase.from, to = phase.to }
    end
    local tally, why = core.tally { bucket = figures.bucket(plan.duration + plan.drain), phases = spans }
    if not tally then plan.where:fail("%s", why) end
    run.tally = tally
    local origin = core.now()
    run.clock = function() return core.now() - origin end
    trouble.start(run)
    run.traffic = traffic.start(plan, run.engines, tally, { seed = run.seed, keep_outcomes = true })
    sample(run)
end

local function measure(run)
    local stats = {}
    for _, name in ipairs(run.stage.names) do stats[name] = server_stats(run.stage.servers[name]) end
    local list, seen = run.traffic:faults()
    return figures.read(run.plan, run.tally, {
        seed = run.seed, ended = run.clock(), open = run.traffic:open(), oldest = run.traffic:oldest(),
        stuck = run.traffic:stuck(), faults_of_work = list, faults_of_work_seen = seen,
        policy_faults = engines.policy_faults(run.engines),
        pools = engines.pools(run.engines),
        servers = stats, samples = run.samples, live = true, queues = run.plan.paced,
    })
end

-- ---- the books --------------------------------------------------------------------------------------------

local function judge(books, outcome, effect, idempotent)
    books.closed = books.closed + 1
    if outcome == "committed" then
        if effect == 0 then books.lost = books.lost + 1 end
    elseif outcome == "unknown" then
        local key = effect > 0 and "unknown_there" or "unknown_not_there"
        books[key] = books[key] + 1
    elseif effect > 0 then
        books.undead = books.undead + 1
    end
    if effect > 1 and not idempotent then books.twice = books.twice + 1 end
end

-- What callers were told, against what is there.
local function read_books(run, outcomes)
    local books = {
        closed = 0, twice = 0, lost = 0, undead = 0, gone = 0, unknown_there = 0, unknown_not_there = 0,
    }
    local effects = run.stage:effects()
    for number, outcome in pairs(outcomes) do
        local entry = effects[number]
        judge(books, outcome, entry and entry.n or 0, entry and run.plan.calls[entry.call].idempotent)
    end
    books.opened = books.closed
    return books
end

local function inside(run)
    set_the_pace(run)
    begin(run)
    drive(run)
    if run.mistake then error(run.mistake, 0) end
    run.figures = measure(run)
    local outcomes = run.traffic:outcomes()
    run.over = true
    run.traffic:stop()
    engines.close(run.engines)
    run.engines = nil
    local settled, why = run.stage:settle(SETTLE)
    if not settled then run.plan.where:fail("%s", why) end
    run.figures.books = read_books(run, outcomes)
end

local function clean_up(run)
    run.over = true
    if run.traffic then run.traffic:stop() end
    if run.engines then engines.close(run.engines) end
    run.stage:close()
end

--- Runs the plan once, in real time, and returns what was measured.
function live.measure(plan, options)
    local policy = real_policy(plan)
    local run = { plan = real_plan(plan), seed = options.seed or 1, policy = policy, samples = {} }
    run.step = figures.window(plan) / 4
    run.stage = stage.build(plan, policy, has(plan, "rotate"))
    for _, name in ipairs(run.stage.names) do run.samples[name] = {} end
    local ok, err = pcall(inside, run)
    clean_up(run)
    if not ok then error(err, 0) end
    return run.figures
end

-- ---- in whole ---------------------------------------------------------------------------------------------

local function add_notes(one, notes)
    one.live, one.notes = true, notes
    if #notes > 0 then one.text = one.text .. "\n" .. table.concat(notes, "\n") end
    return one
end

--- Runs a scenario; see Scenario:run. Where something in it cannot be made real, the report says why it was
-- skipped. A report's `notes` say what could not be checked.
function live.run(scenario, options)
    local obstacle = trouble.obstacle(scenario.plan)
    if obstacle then return report.skip(scenario, options.seed or 1, obstacle) end
    if sim.running() then
        scenario.plan.where:fail("a simulation is running; live runs are of the real world")
    end
    local started = core.now()
    local plan, notes = measurable(scenario.plan)
    local seen = live.measure(plan, options)
    local judged = { name = scenario.name, plan = plan }
    local made = { ascii = options.ascii, seconds = core.now() - started }
    return add_notes(report.new(judged, seen, made), notes)
end


return live
