-- What a scenario must notice: each of these fails if the engine, the simulated server or the books do one thing
-- wrong that nothing else here would show.

local lu = require "luaunit"
local s = require "weir.scenario"
local scenariofile = require "scenariofile"

local function report_of(fields)
    s.registered(true)
    return s.scenario "small" (fields):run()
end

local function run(fields)
    local report = report_of(fields)
    if not report.ok then error(report.text, 0) end
    return report
end

TestEngine = {}

-- An error like 40001 says nothing of the server, so its probe has no vote; its place must be free for another.
function TestEngine.test_probes_without_a_vote_give_their_places_back()
    run {
        policy = {
            timeout = 1, retries = 0,
            breaker = { window = 2, min_calls = 5, open_for = 1, half_open = { permits = 2 } },
        },
        load = { arrivals = s.constant(50) },
        faults = {
            s.between(2, 5, s.crash "primary"), s.between(2, 8, s.errors "primary" { sqlstate = "40001" }),
        },
        duration = 20,
        expect = { s.opens { within = 1 }, s.recovers { within = 1 } },
    }
end

-- The sessions of before the failover are there still, to a server that only reads.
function TestEngine.test_connections_to_a_server_that_only_reads_are_left()
    run {
        policy = { timeout = 1, retries = 3 },
        servers = { primary = {}, copy = { follows = "primary", lag = 0 } },
        load = {
            arrivals = s.constant(50),
            calls = { { "write", sql = "insert into orders values ($1)" } },
        },
        faults = { s.at(5, s.failover "primary" { to = "copy" }) },
        duration = 15,
        expect = { s.recovers { within = 1 }, s.goodput():at_least(0.99) },
    }
end

TestWorld = {}

local function burst_on(server)
    server.network, server.connect = 0, 0
    return run {
        policy = { timeout = 5 }, servers = { primary = server },
        load = { arrivals = s.burst { at = 1, requests = 4 } },
        duration = 2,
    }.figures
end

function TestWorld.test_statements_that_share_a_worker_hold_each_other_up()
    local shared = burst_on { workers = 1, queue = "shared", service = 0.1 }
    lu.assertAlmostEquals(shared:quantile(nil, 0.1), 0.4, 0.02)
    lu.assertAlmostEquals(shared:quantile(nil, 1), 0.4, 0.02)
    local fifo = burst_on { workers = 1, service = 0.1 }
    lu.assertAlmostEquals(fifo:quantile(nil, 0.1), 0.1, 0.02)
    lu.assertAlmostEquals(fifo:quantile(nil, 1), 0.4, 0.02)
end

function TestWorld.test_work_for_those_who_have_gone_is_wasted()
    local function wasted(ignores)
        local report = report_of {
            policy = { timeout = 0.1, retries = 0, cancel_wait = 0.001, health = { interval = 0 } },
            servers = { primary = { workers = 4, service = 1, connect = 0, network = 0, ignores_cancel = ignores } },
            load = { arrivals = s.burst { at = 1, requests = 4 } },
            duration = 5,
        }
        return report.figures.servers.primary.wasted
    end
    local in_vain = wasted(true)
    lu.assertTrue(in_vain > 3 and in_vain <= 4, in_vain)
    lu.assertTrue(wasted(false) < 0.1)
end

function TestWorld.test_a_program_that_stands_still_is_late()
    local report = run {
        policy = { timeout = 10 }, load = { arrivals = s.constant(50) },
        faults = { s.at(3, s.stall(2)) }, duration = 8,
    }
    local longest = report.figures.whole.latency_max
    lu.assertTrue(longest > 1.9 and longest < 2.2, longest)
end

function TestWorld.test_a_change_and_a_healing_happen()
    run {
        policy = { timeout = 5 }, servers = { primary = { workers = 8, service = 0.01, network = 0 } },
        load = { arrivals = s.constant(20) },
        faults = {
            s.at(3, s.slow "primary" { factor = 20 }), s.at(6, s.heal("primary", "slow")),
            s.at(9, s.change("primary", { service = 0.1 })),
        },
        phases = { s.phase("slow", 3.5, 5.5), s.phase("healed", 6.5, 9), s.phase("changed", 9.5, 12) },
        duration = 12,
        expect = {
            s.latency("slow", 0.5):between(0.19, 0.22), s.latency("healed", 0.9):at_most(0.02),
            s.latency("changed", 0.5):between(0.09, 0.12),
        },
    }
end

TestBooks = {}

-- The first try may have been committed, whatever the second one says.
function TestBooks.test_a_request_stays_unknown_when_its_second_try_was_refused()
    local report = run {
        policy = { timeout = 1, retries = 0, breaker = { min_calls = 1, open_for = 60 }, health = { interval = 0 } },
        load = {
            arrivals = s.burst { at = 3, requests = 1 }, caller_retries = 1,
            calls = { { "write", sql = "insert into orders values ($1)" } },
        },
        faults = { s.between(2, 4, s.reset "primary" { phase = "before_answer" }) },
        duration = 5,
        expect = { s.refused():is(1) },
    }
    local books = report.figures.books
    lu.assertEquals({ books.unknown_there, books.undead }, { 1, 0 })
end

TestFigures = {}

function TestFigures.test_latency_is_that_of_the_phase()
    run {
        policy = { timeout = 5 }, servers = { primary = { service = 0.01, network = 0 } },
        load = { arrivals = s.constant(20) },
        faults = { s.between(4, 8, s.slow "primary" { factor = 20 }) },
        duration = 12,
        expect = {
            s.latency("before", 0.9):at_most(0.02), s.latency("during", 0.5):between(0.19, 0.22),
            s.latency("after", 0.9):at_most(0.05),
        },
    }
end

function TestFigures.test_counters_of_a_server_are_those_of_the_phase()
    run {
        policy = { health = { interval = 0 } }, servers = { primary = { service = 0.001 } },
        load = { arrivals = s.constant(100) },
        phases = { s.phase("first", 0, 5), s.phase("last", 5, 10) },
        duration = 10,
        expect = {
            s.server("primary", "statements", "first"):between(480, 520),
            s.server("primary", "statements", "last"):between(480, 520),
        },
    }
end

TestMistakes = {}

-- What running the text says, with the file called outage.lua.
local function told(text)
    return tostring(scenariofile.with(scenariofile.text("  duration = 5, load = { arrivals = s.constant(10), " .. text),
        function(made)
            local report = made:run()
            return (report.text:gsub(made.file:gsub("%W", "%%%0"), "outage.lua"))
        end))
end

function TestMistakes.test_an_answer_that_makes_no_sense_is_told_with_its_line()
    -- LuaJIT puts file and line into the error of a yield by itself, and they are not put there twice.
    local yield_at = rawget(_G, "jit") and "outage.lua:6: " or "outage.lua:6: a function of the answers failed: "
    for _, case in ipairs {
        { "return 'x'", "outage.lua:6: a function of the answers failed: ", "a rule must return rows" },
        { "require('weir').sleep(1)", "outage.lua:6: a function of the answers failed: ", "must not wait" },
        { "coroutine.yield()", yield_at, "attempt to yield" },
    } do
        local text = "},\n  servers = { primary = {\n    answers = { { 'select', function() %s end } } } },"
        lu.assertStrContains(told(text:format(case[1])), case[2])
        lu.assertStrContains(told(text:format(case[1])), case[3])
    end
end

function TestMistakes.test_a_timeline_cannot_make_servers_up()
    lu.assertStrContains(told '},\n  faults = { s.at(1, function(world) world:server("primry") end) },',
        "outage.lua:5: its function failed: ")
    lu.assertStrContains(told '},\n  faults = { s.at(1, function(world) world:server("primry") end) },',
        "there is no server 'primry'")
end

function TestMistakes.test_work_that_raises_what_has_no_text_is_told()
    lu.assertStrContains(told [[
  calls = { { "mine", work = function()
    error(setmetatable({}, { __tostring = function() error "no" end })) end } } },]],
        'work of "mine" raised an error of its own: an error object without a text')
end

function TestMistakes.test_a_timeout_that_is_no_number_is_the_policys()
    lu.assertStrContains(told "},\n  policy = { timeout = 0 / 0 },", "outage.lua:5: policy: timeout is")
    lu.assertStrContains(told "},\n  policy = { timeout = math.huge },", "outage.lua:5: policy: timeout is")
end

os.exit(lu.LuaUnit.run(), true)
