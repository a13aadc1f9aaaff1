--- Runs a scenario in virtual time: servers, engines and load in one simulated world, which ends when the
-- last request has ended, or when the time to drain is over.

local check = require "weir.scenario.check"
local core = require "weir.core"
local engines = require "weir.scenario.engines"
local faults = require "weir.scenario.faults"
local figures = require "weir.scenario.figures"
local report = require "weir.scenario.report"
local sim = require "weir.sim"
local loop = require "weir.loop"
local traffic = require "weir.scenario.traffic"

local virtual = {}

-- ---- servers
-- ----------------------------------------------------------------------------------------------

local function make_servers(world, plan)
    for _, server in ipairs(plan.servers) do
        local made = server.where:translate(world.server, world, server.name)
        server.where:translate(made.set, made, server.options)
        for _, answer in ipairs(server.answers) do
            answer.where:translate(made.on, made, answer.text, answer.with)
        end
    end
end

-- ---- faults
-- -----------------------------------------------------------------------------------------------

local act = {}

function act.clock_jump(world, what)
    world:step_wall_clock(what.options.seconds)
end

function act.stall(world, what)
    world:stall(what.options.seconds)
end

function act.heal(world, what)
    local kind = faults.for_sim { kind = what.options.kind, options = {} }
    world:server(what.server):heal(kind)
end

function act.change(world, what)
    world:server(what.server):set(what.options)
end

local function begin(run, entry)
    local what = entry.what
    if type(what) == "function" then return what(run.world, run.engines[1], run.engines) end
    run.world:note(faults.title(what))
    if act[what.kind] then return what.where:translate(act[what.kind], run.world, what) end
    local kind, options = faults.for_sim(what)
    local server = run.world:server(what.server)
    what.where:translate(server.fault, server, kind, options)
end

-- What goes wrong with a fault is the scenario's mistake; it ends the run.
local function begin_at_its_time(run, entry)
    if entry.from > 0 then loop.sleep(entry.from - run.world.clock()) end
    local ok, err = pcall(begin, run, entry)
    if ok or run.mistake then return end
    run.mistake = type(entry.what) == "function" and
        entry.where:say("its function failed: %s", tostring(err)) or err
end

-- As daemons: a function of the operator's that never ends does not keep the run from ending.
local function plan_faults(run)
    for _, entry in ipairs(run.plan.timeline) do loop.spawn_daemon(begin_at_its_time, run, entry) end
end

-- ---- looking on
-- -------------------------------------------------------------------------------------------

local function sample(run)
    local at = run.world.clock()
    for _, name in ipairs(run.names) do
        local stats = run.world:server(name):stats()
        stats.at = at
        local list = run.samples[name]
        list[#list + 1] = stats
    end
end

-- Sleeps from one sample to the next, until the load is over and all requests have ended, or may have no
-- more time.
local function watch(run)
    local plan, step, count = run.plan, run.step, 0
    local finish = plan.duration + plan.drain
    while not run.mistake do
        local now = run.world.clock()
        if now >= finish or now >= plan.duration and run.traffic:open() == 0 then break end
        count = count + 1
        local target = math.min(count * step, finish)
        if now < plan.duration then target = math.min(target, plan.duration) end
        if target > now then loop.sleep(target - now) end
        if target == count * step then sample(run) else count = count - 1 end
        local misuse = run.traffic:misuse()
        if misuse then plan.load_where:fail("load: %s", misuse) end
    end
end

-- ---- the run
-- ----------------------------------------------------------------------------------------------

local function measured(run, tally)
    local stats = {}
    for _, name in ipairs(run.names) do stats[name] = run.world:server(name):stats() end
    local list, seen = run.traffic:faults()
    return figures.read(run.plan, tally, {
        seed = run.seed,
        ended = run.world.clock(),
        open = run.traffic:open(),
        oldest = run.traffic:oldest(),
        stuck = run.traffic:stuck(),
        faults_of_work = list,
        faults_of_work_seen = seen,
        policy_faults = engines.policy_faults(run.engines),
        pools = engines.pools(run.engines),
        books = run.world:books(),
        servers = stats,
        samples = run.samples,
    })
end

local function phase_spans(plan)
    local spans = {}
    for i, phase in ipairs(plan.phases) do
        spans[i] = { name = phase.name, from = phase.from, to = phase.to }
    end
    return spans
end

local function inside(run)
    local plan = run.plan
    run.engines = engines.open(plan)
    plan_faults(run)
    local tally, why = core.tally {
        bucket = figures.bucket(plan.duration + plan.drain), phases = phase_spans(plan),
    }
    if not tally then plan.where:fail("%s", why) end
    run.traffic = traffic.start(plan, run.engines, tally, { seed = run.seed })
    sample(run)
    watch(run)
    run.figures = measured(run, tally)
    run.traffic:stop()
    engines.close(run.engines)
end

local function server_names(plan)
    local names, samples = check.names(plan.server_names), {}
    for _, name in ipairs(names) do samples[name] = {} end
    return names, samples
end

-- What main raises when all is done, so that nobody waits for tasks the scenario's functions have left
-- behind.
local DONE = {}

-- What a function of a server's answers raised, if that does not say where by itself.
local function blame_answer(plan, failure)
    local text, where = tostring(failure), plan.where
    if failure == nil or text:find(where.file .. ":", 1, true) == 1 then return failure end
    for _, server in ipairs(plan.servers) do
        if #server.answers > 0 then where = server.answers[1].where end
    end
    return where:say("a function of the answers failed: %s", text:match("^[^\n]-:%d+: (.*)$") or text)
end

local function main(run)
    local ok, err = pcall(inside, run)
    run.mistake = run.mistake or not ok and err or blame_answer(run.plan, run.world.core:failure())
    error(DONE, 0)
end

-- The simulation itself gave up: somebody runs on without waiting. The work that has not ended is the first
-- suspect.
local function blame(run, err)
    local suspect = run.traffic and run.traffic:stuck()[1]
    local where = suspect and suspect.where or run.plan.where
    local message = tostring(err):match("^[^\n]-:%d+: ([^\n]*)") or tostring(err)
    where:fail("%s%s", suspect and ("work of %q: "):format(suspect.context) or "", (message:gsub("^weir: ",
        "")))
end

--- Runs the plan once and returns what was measured, and the hash of all that happened.
function virtual.measure(plan, options)
    local seed = options.seed or 1
    local world = sim { seed = seed }
    local names, samples = server_names(plan)
    local run = { plan = plan, seed = seed, world = world, names = names, samples = samples }
    run.step = figures.window(plan) / 4
    if options.record then world:trace(options.record) end
    make_servers(world, plan)
    world:only(plan.server_names)
    local _, err = pcall(world.run, world, main, run)
    if run.mistake then error(run.mistake, 0) end
    if err ~= DONE then blame(run, err) end
    run.figures.hash = world:hash()
    return run.figures
end

--- Runs a scenario; see Scenario:run.
function virtual.run(scenario, options)
    local started = os.clock()
    local seen = virtual.measure(scenario.plan, options)
    return report.new(scenario, seen, { ascii = options.ascii, seconds = os.clock() - started })
end

return virtual
