-- Whole scenarios: the words of a scenario on the production engine, in virtual time.

local lu = require "luaunit"
local s = require "weir.scenario"
local scenariofile = require "scenariofile"
local weir = require "weir"

-- A scenario of ten seconds at fifty requests a second, changed by `more`.
local function small(more)
    s.registered(true)
    local fields = {
        policy = { timeout = 1, retries = 2, breaker = { open_for = 2 } },
        servers = { primary = { workers = 8, service = s.exponential(0.004) } },
        load = {
            arrivals = s.poisson(50),
            calls = {
                { "read", client = "anon", claims = { sub = "ada" }, sql = "select 1", readonly = true,
                    weight = 3 },
                { "write", client = "service", sql = "insert into orders values ($1)" },
            },
        },
        duration = 10,
    }
    for key, value in pairs(more or {}) do fields[key] = value end
    return s.scenario "small" (fields)
end

local function run(more, options)
    local report = small(more):run(options)
    if not report.ok then error(report.text, 0) end
    return report
end

local function crash()
    return { s.at(3, s.crash "primary" { restart_after = 2 }) }
end

TestRuns = {}

function TestRuns.test_a_healthy_server_answers_everything()
    local report = run { expect = { s.goodput():is(1), s.never_opens(), s.amplification():is(1) } }
    local figures = report.figures
    lu.assertTrue(figures.whole.arrived > 400 and figures.whole.arrived < 600, figures.whole.arrived)
    lu.assertEquals(figures.whole.ok, figures.whole.arrived)
    lu.assertEquals(figures.books.opened, figures.books.closed)
    lu.assertEquals(figures.open, 0)
    lu.assertTrue(figures.servers.primary.statements >= figures.whole.arrived)
end

function TestRuns.test_a_crash_opens_the_breaker_and_is_recovered_from()
    local report = run {
        faults = crash(),
        expect = {
            s.goodput("before"):at_least(0.99), s.goodput("during"):at_most(0.5), s.opens { within = 2 },
            s.closes { within = 4 }, s.recovers { within = 4 }, s.longest_call():at_most(1.05),
                s.calls_lost(0),
        },
    }
    lu.assertStrContains(report.picture, "crash primary")
    lu.assertStrContains(report.picture, "O")
end

function TestRuns.test_the_same_seed_is_the_same_run_and_another_one_is_not()
    local traces = {}
    local function traced(seed)
        local lines = {}
        local report = run({ faults = crash() }, { seed = seed,
            record = function(line) lines[#lines + 1] = line end })
        traces[#traces + 1] = table.concat(lines, "\n")
        return report
    end
    local one, two, other = traced(7), traced(7), traced(8)
    lu.assertEquals(one.hash, two.hash)
    lu.assertTrue(traces[1] == traces[2])
    lu.assertEquals(one.picture, two.picture)
    lu.assertNotEquals(one.hash, other.hash)
    lu.assertStrContains(one.text, "seed 7")
end

function TestRuns.test_what_does_not_hold_is_told_with_its_line_and_a_picture()
    local told = scenariofile.with([[
local s = require "weir.scenario"
s.scenario "hopes" {
  load = { arrivals = s.constant(50) },
  faults = { s.between(3, 6, s.freeze "primary") },
  duration = 10,
  expect = {
    s.goodput("before"):at_least(0.9),
    s.goodput("during"):at_least(0.9),
  },
}]], function(made)
        local report = made:run { ascii = true }
        lu.assertFalse(report.ok)
        lu.assertErrorMsgContains("goodput of phase", made.check, made)
        return report.text:gsub(made.file:gsub("%W", "%%%0"), "outage.lua")
    end)
    lu.assertStrContains(told, "hopes: 1 failure")
    lu.assertStrContains(told, 'outage.lua:8: goodput of phase "during" should be at least 0.9, was 0')
    lu.assertStrContains(told, "\nphase      |before")
end

function TestRuns.test_several_engines_share_the_load()
    local one = run { engines = 1 }
    local four = run { engines = 4, load = { arrivals = { s.poisson(25), s.constant(25) } } }
    lu.assertAlmostEquals(four.figures.whole.arrived, one.figures.whole.arrived, 80)
    lu.assertTrue(four.figures.servers.primary.sessions_max >= 4)
end

function TestRuns.test_users_wait_for_their_answers()
    local report = run { load = { arrivals = s.users(5, { think = 0.1 }) } }
    local arrived = report.figures.whole.arrived
    lu.assertTrue(arrived > 400 and arrived < 520, arrived)
end

function TestRuns.test_a_burst_and_a_ramp_arrive_when_they_should()
    local report = run {
        load = { arrivals = { s.burst { at = 5, requests = 100 }, s.ramp { { 0, 0 }, { 10, 20 },
            even = true } } },
        phases = { s.phase("first half", 0, 5), s.phase("burst", 5, 5.01), s.phase("second half", 5.01, 10) },
    }
    local figures = report.figures
    lu.assertEquals(figures.by_name.burst.counts.arrived, 100)
    lu.assertAlmostEquals(figures.by_name["first half"].counts.arrived, 25, 2)
    lu.assertAlmostEquals(figures.by_name["second half"].counts.arrived, 75, 2)
end

function TestRuns.test_callers_who_try_again_are_counted_as_amplification()
    local report = run {
        policy = { timeout = 1, retries = 0, breaker = { min_calls = 1000000 } },
        load = { arrivals = s.constant(50), caller_retries = 3 },
        faults = { s.at(0, s.errors "primary" { sqlstate = "57014" }) },
        expect = { s.amplification():is(4), s.goodput():is(0) },
    }
    lu.assertEquals(report.figures.whole.calls, 4 * report.figures.whole.arrived)
end

function TestRuns.test_servers_answer_as_the_scenario_says()
    run {
        servers = {
            primary = {
                answers = {
                    { "from contacts", rows = { { name = "Bob" } }, columns = { "name" } },
                    { "from counters", function(asked) return { { n = #asked.sql } } end },
                    { "from broken", error = "23505" },
                },
            },
        },
        load = {
            arrivals = s.constant(20),
            calls = {
                { "work", work = function(db)
                    assert(assert(db:service():query("a", "select name from contacts"))[1].name == "Bob")
                    assert(tonumber(assert(db:service():query("b", "select n from counters"))[1].n) == 22)
                    local _, err = db:service():query("c", "select x from broken")
                    assert(err.sqlstate == "23505")
                end },
            },
        },
        expect = { s.goodput():is(1) },
    }
end

function TestRuns.test_a_jump_of_the_clock_moves_the_event_log_and_nothing_that_is_measured()
    local seen = {}
    local function look(world, db)
        db:pause(nil, false) -- makes an event
        local events = db:events()
        seen[#seen + 1] = { loop = world.clock(), wall = events[#events].at_us / 1e6 }
    end
    local report = run {
        load = { arrivals = s.constant(10) },
        faults = { s.at(4, look), s.at(5, s.clock_jump(3600)), s.at(6, look) },
        expect = { s.goodput():is(1), s.longest_call():at_most(0.5) },
    }
    lu.assertTrue(report.ok)
    lu.assertAlmostEquals(seen[2].loop - seen[1].loop, 2, 0.01)
    lu.assertAlmostEquals(seen[2].wall - seen[1].wall, 3602, 0.2)
end

function TestRuns.test_a_pool_that_does_not_exist_is_told_as_such()
    local report = small({
        faults = crash(),
        expect = { s.opens { within = 5, pool = "servce@primary" }, s.closes { within = 5, pool = "zzz" },
            s.opens { within = 5, pool = "service@primary" } },
    }):run()
    lu.assertEquals(#report.failures, 2, report.text)
    lu.assertStrContains(report.failures[1], "there is no pool 'servce@primary'; did you mean service@primary?")
    lu.assertStrContains(report.failures[2], "there is no pool 'zzz'; there is anon@primary, service@primary")
end

function TestRuns.test_a_breaker_that_stands_open_has_not_stayed_shut()
    local report = small({
        faults = { s.at(3, s.crash "primary" { restart_after = 30 }) },
        phases = { s.phase("later", 7, 7.5) },
        expect = { s.never_opens("later") },
    }):run()
    lu.assertFalse(report.ok)
    lu.assertStrContains(report.failures[1], 'no breaker should open in phase "later", but that of ')
    lu.assertStrContains(report.failures[1], " stood open as it began")
end

function TestRuns.test_functions_may_stand_on_the_timeline()
    local seen = {}
    run {
        faults = {
            s.at(4, function(world, db) seen[#seen + 1] = { world.clock(), db:health().status } end),
            s.at(2, s.clock_jump(3600), s.stall(0.2)), s.at(6, s.change("primary", { workers = 2 })),
        },
    }
    lu.assertEquals(seen, { { 4, "healthy" } })
end

function TestRuns.test_a_policy_may_be_a_function_fresh_for_each_run()
    local made = 0
    local scenario = small {
        policy = function()
            made = made + 1
            local attempts = 0
            return { retry = function() attempts = attempts + 1 end }
        end,
    }
    lu.assertEquals(scenario:run().hash, scenario:run().hash)
    lu.assertEquals(made, 2)
end

function TestRuns.test_an_example_policy_is_taken_as_it_is()
    run {
        policy = dofile(os.getenv "WEIR_SOURCE_DIR" .. "/examples/policies/retries.lua"),
        faults = { s.between(3, 4, s.errors "primary" { sqlstate = "40001", rate = 0.5 }) },
        expect = { s.goodput():at_least(0.99), s.amplification():at_least(1.01) },
    }
end

function TestRuns.test_nothing_of_a_run_is_left()
    local before = weir.now()
    run { faults = crash() }
    lu.assertTrue(weir.now() - before < 60)
    lu.assertNil(require("weir.sim").running())
end

function TestRuns.test_a_write_that_took_effect_twice_fails_the_scenario()
    -- The answer to a committed write is lost, and the caller, not the engine, sends it again.
    local report = small({
        policy = { timeout = 1, retries = 0, breaker = { min_calls = 1000000 } },
        load = {
            arrivals = s.constant(50), caller_retries = 2,
            calls = { { "write", sql = "insert into orders values ($1)" } },
        },
        faults = { s.between(2, 4, s.reset "primary" { phase = "before_answer", rate = 0.3 }) },
    }):run()
    lu.assertEquals(#report.failures, 1)
    lu.assertStrContains(report.failures[1], "calls executed twice should be at most 0, were ")
end

function TestRuns.test_phases_may_overlap()
    local report = run {
        load = { arrivals = s.constant(50) },
        phases = { s.phase("a", 0, 6), s.phase("b", 4, 10), s.phase("all", 0, 10) },
    }
    local arrived = {}
    for i, phase in ipairs(report.figures.phases) do arrived[i] = phase.counts.arrived end
    lu.assertEquals(arrived, { 300, 300, 500 })
end

function TestRuns.test_an_hour_is_soon_over_and_its_figures_are_bounded()
    local report = run {
        duration = 3600, load = { arrivals = s.poisson(20) },
        faults = { s.between(1000, 1100, s.freeze "primary") },
        expect = { s.recovers { within = 30 } },
    }
    lu.assertTrue(#report.figures.buckets <= 2000)
    lu.assertEquals(report.figures.window, 2)
end

function TestRuns.test_load_on_the_server_can_be_bounded_for_a_phase()
    run {
        engines = 10,
        faults = crash(),
        expect = {
            s.server("primary", "connects_in_a_second", "after"):at_most(60),
            s.server("primary", "statements", "before"):between(100, 300),
            s.server("primary", "busy"):between(1, 4),
            s.server("primary", "connects_refused"):at_least(1),
        },
    }
end

TestWork = {}

local function work_text(body, more)
    return scenariofile.text([[
  duration = 2, drain = 1,
  load = { arrivals = s.constant(10), calls = {
    { "mine",
      work = function(db, number)
]] .. body .. "\n      end },\n  } },\n" .. (more or ""))
end

function TestWork.test_it_gets_the_engine_and_its_number()
    local report = scenariofile.with(work_text [[
        assert(number > 0)
        return db:with_service("mine", function(tx) return tx:query("insert into t values ($1)",
            number) end)]],
        function(made) return made:run() end)
    lu.assertEquals(report.failures, {})
    lu.assertEquals(report.figures.whole.ok, report.figures.whole.arrived)
    lu.assertEquals(report.figures.servers.primary.writes, report.figures.whole.arrived)
end

function TestWork.test_an_error_of_a_call_is_a_failed_request()
    local report = scenariofile.with(work_text("        return assert(db:service():query('x', 'select 1'))",
        '  faults = { s.between(0, 2, s.errors "primary" { sqlstate = "57014" }) },'),
        function(made) return made:run() end)
    lu.assertEquals(report.failures, {})
    lu.assertEquals(report.figures.whole.failed, report.figures.whole.arrived)
end

function TestWork.test_an_error_of_its_own_is_told_with_its_line()
    local report = scenariofile.with(work_text "        local x = nil\n        return x.y", function(made)
        local told = made:run()
        told.failures[1] = told.failures[1]:gsub(made.file:gsub("%W", "%%%0"), "outage.lua")
        return told
    end)
    lu.assertEquals(#report.failures, 1)
    lu.assertStrContains(report.failures[1],
        'outage.lua:7: work of "mine" raised an error of its own: outage.lua:')
end

function TestWork.test_one_that_never_ends_is_told_with_the_line_it_waits_at()
    local report = scenariofile.with(work_text([[
        while true do
          require("weir").sleep(1)
        end]]), function(made)
        local told = made:run()
        told.failures[1] = told.failures[1]:gsub(made.file:gsub("%W", "%%%0"), "outage.lua")
        return told
    end)
    lu.assertEquals(report.figures.ended, 3)
    lu.assertStrContains(report.failures[1],
        "outage.lua:3: calls lost should be at most 0, were 20: 20 requests had " ..
        "not ended 1 s after the last arrival")
    lu.assertStrContains(report.failures[1], '20 calls of "mine", the oldest waiting at outage.lua:9')
end

function TestWork.test_one_that_spins_without_letting_time_pass_is_told()
    local told = scenariofile.with(work_text "        while true do require('weir').sleep(0) end",
        function(made) return made:run() end)
    lu.assertStrContains(told, 'outage.lua:8: work of "mine": the simulation stands still')
end

function TestWork.test_tasks_it_leaves_behind_do_not_keep_the_run()
    local report = scenariofile.with(work_text [[
        local weir = require "weir"
        weir.spawn(function() while true do weir.sleep(10) end end)]], function(made) return made:run() end)
    lu.assertEquals(report.failures, {})
end

TestTrouble = {}

function TestTrouble.test_an_answer_that_fails_is_told_with_its_line()
    local told = scenariofile.with(scenariofile.text([[
  duration = 1,
  load = { arrivals = s.constant(10) },
  servers = { primary = { answers = { { "select",
    function(asked) return asked.nothing.x end } } } },]]), function(made) return made:run() end)
    lu.assertStrContains(tostring(told), "outage.lua:7: attempt to index")
end

function TestTrouble.test_a_policy_that_weir_open_refuses_is_told_with_its_line()
    local function told(policy)
        return scenariofile.with(scenariofile.text("  duration = 1,\n  load = { arrivals = " ..
            "s.constant(1) },\n  policy = " ..
            policy .. ","), function(made) return made:run() end)
    end
    lu.assertStrContains(told "{\n    timeout = 'long' }", "outage.lua:7: policy: timeout is")
    lu.assertStrContains(told "{\n    breaker = {\n      min_calls = -1 } }",
        "outage.lua:8: policy: breaker.min_calls is -1")
    lu.assertStrContains(told "function() return 7 end",
        "outage.lua:6: the function that makes the policy returned 7; it must return a table")
    lu.assertStrContains(told "function() error 'no' end",
        "outage.lua:6: the function that makes the policy failed: ")
end

-- The built-in policy answers for one that fails, so everything else may look as it should.
function TestTrouble.test_a_policy_that_fails_is_told_with_its_line()
    local policies = {
        { 'retry = function() error "boom" end', "retry failed 5 times, and the built-in policy answered instead: outage.lua:3: boom" },
        { "retry = function() while true do end end", "answered instead: ran longer than its time slice of 0.01 seconds" },
        { "retry = function() return 0 / 0 end", "retry failed 5 times, and the built-in policy answered instead: returned " },
        { 'route = function() return "nowhere" end', "answered instead: there is no backend 'nowhere'" },
    }
    for _, case in ipairs(policies) do
        local told = scenariofile.with(scenariofile.text("policy = { " .. case[1] .. [[ },
  load = { arrivals = s.constant(50) }, faults = { s.between(1, 3, s.crash "primary") }, duration = 10,]]),
        function(made)
            local report = made:run()
            lu.assertEquals(#report.failures, 1, report.text)
            return report.failures[1]:gsub(made.file:gsub("%W", "%%%0"), "outage.lua")
        end)
        lu.assertStrContains(told, "outage.lua:4: policy: ")
        lu.assertStrContains(told, (case[2]:gsub(":3:", ":4:")))
    end
end

function TestTrouble.test_a_policy_may_fail_as_often_as_the_scenario_says()
    run { policy = { route = function() return "nowhere" end }, expect = { s.policy_faults(5) } }
end

function TestTrouble.test_a_function_on_the_timeline_that_fails_ends_the_run()
    local told = scenariofile.with(scenariofile.text([[
  duration = 5,
  load = { arrivals = s.constant(10) },
  faults = {
    s.at(1, function() error("no") end),
  },]]), function(made) return made:run() end)
    lu.assertEquals(told, "outage.lua:7: its function failed: outage.lua:7: no")
end

function TestTrouble.test_a_route_that_names_none_is_told_and_that_it_was_switched_off()
    local report = scenariofile.with(scenariofile.text([[
  duration = 5,
  policy = {
    timeout = 2,
    route = function(call) if call.readonly then return "primary" end end,
  },
  load = { arrivals = s.constant(10), calls = { { "write", sql = "insert into orders values ($1)" } } },]]),
        function(made) return made:run() end)
    lu.assertFalse(report.ok)
    lu.assertEquals(#report.failures, 1)
    lu.assertStrContains(report.failures[1], ":5: policy: route failed 5 times, and the built-in policy " ..
        "answered instead: returned nil; it must name a backend for every call; too many in a row " ..
        "(policy_faults): from then on no function of the policy was asked")
end

function TestTrouble.test_what_the_load_refuses_is_told_at_its_call()
    local told = scenariofile.with(scenariofile.text([[
  duration = 5,
  load = { arrivals = s.constant(10), calls = {
    { "read", sql = "select 1" },
    { "write", sql = "insert into orders values ($1)", unit = true,
      isolation = "sometimes" },
  } },]]), function(made) return made:run() end)
    lu.assertStrContains(tostring(told), "outage.lua:8: load: calls[2].isolation is 'sometimes'; it must be ")
end

function TestTrouble.test_a_call_that_the_engine_refuses_as_misuse_is_told()
    local told = scenariofile.with(scenariofile.text([[
  duration = 5, policy = function() return {} end,
  load = { arrivals = s.constant(10), calls = { { "read", client = "anon", sql = "select 1" } } },]]),
        function(made) return made:run() end)
    lu.assertStrContains(tostring(told), "outage.lua:5: load: ")
    lu.assertStrContains(tostring(told), "claims")
end

os.exit(lu.LuaUnit.run(), true)
