-- What a scenario file says becomes a plan, and what is wrong with it becomes one sentence that begins with
-- its line.

local lu = require "luaunit"
local scenario = require "weir.scenario"
local scenariofile = require "scenariofile"

-- Fields that every scenario needs, on the lines 4 and 5.
local base = "  duration = 90,\n  load = { arrivals = s.poisson(200) },\n"

local function read(fields)
    local made = scenariofile.load(scenariofile.text(base .. fields))
    assert(type(made) == "table", made)
    return made.plan
end

-- The table: what stands in the scenario from line 6 on, and the sentence it makes.
local function assert_sentences(cases)
    for _, case in ipairs(cases) do
        lu.assertEquals(scenariofile.load(scenariofile.text(base .. case[1])), "outage.lua:" .. case[2],
            case[1])
    end
end

TestReading = {}

function TestReading.test_the_least_scenario_has_defaults_for_all_the_rest()
    local plan = read ""
    lu.assertEquals(plan.engines, 1)
    lu.assertEquals(#plan.servers, 1)
    lu.assertEquals(plan.servers[1].name, "primary")
    lu.assertEquals(plan.calls[1].sql, { "select 1" })
    lu.assertEquals(plan.drain, 15)
    lu.assertEquals(#plan.phases, 1)
    lu.assertEquals(plan.phases[1].name, "all")
end

function TestReading.test_phases_are_made_from_the_faults()
    local plan = read 'faults = { s.at(20, s.crash "primary" { restart_after = 30 }) },'
    local spans = {}
    for i, phase in ipairs(plan.phases) do spans[i] = { phase.name, phase.from, phase.to } end
    lu.assertEquals(spans, { { "before", 0, 20 }, { "during", 20, 50 }, { "after", 50, 90 } })
end

function TestReading.test_a_trouble_without_an_end_has_nothing_after_it()
    local plan = read 'faults = { s.at(20, s.rotate "primary") },'
    lu.assertEquals(#plan.phases, 2)
    lu.assertEquals(plan.phases[2].to, 90)
end

function TestReading.test_healing_ends_a_trouble()
    local plan = read 'faults = { s.at(20, s.freeze "primary"), s.at(40, s.heal("primary", "freeze")) },'
    lu.assertEquals(plan.trouble_to, 40)
end

function TestReading.test_between_says_how_long_a_fault_lasts()
    local plan = read [[faults = {
        s.between(20, 50, s.slow "primary" { factor = 10 }), s.between(60, 65, s.crash "primary"),
            s.between(70, 72, s.stall()),
    },]]
    lu.assertEquals(plan.timeline[1].what.options, { factor = 10, lasts = 30 })
    lu.assertEquals(plan.timeline[2].what.options, { restart_after = 5 })
    lu.assertEquals(plan.timeline[3].what.options, { seconds = 2 })
end

function TestReading.test_the_timeline_is_in_order_of_time()
    local plan = read [[faults = { s.at(30, s.stall(1)), s.at(5, s.clock_jump(-3600)), s.at(30,
        s.rotate "primary") },]]
    local kinds = {}
    for i, entry in ipairs(plan.timeline) do kinds[i] = entry.what.kind end
    lu.assertEquals(kinds, { "clock_jump", "stall", "rotate" })
end

function TestReading.test_primaries_stand_before_those_who_follow()
    local plan = read [[servers = {
        copy = { follows = "primary" }, archive = { follows = "primary" }, primary = {},
    },]]
    local names = {}
    for i, server in ipairs(plan.servers) do names[i] = server.name end
    lu.assertEquals(names, { "primary", "archive", "copy" })
end

function TestReading.test_a_write_that_carries_its_number_is_followed_in_the_books()
    local made = scenariofile.load(scenariofile.text [[
        duration = 10,
        load = { arrivals = s.constant(10), calls = {
            { "a", sql = "insert into orders values ($1)" },
            { "b", sql = "insert into log values ('x')" },
            { "c", sql = { "select 1", "update t set n = $1" }, weight = 2.5 },
            { "d", sql = "select $1", values = { 7 } },
            { "e", work = function() end },
        } },]])
    local writes, calls = {}, made.plan.calls
    for i, call in ipairs(calls) do writes[i] = call.writes end
    lu.assertEquals(writes, { true, false, true, false, false })
    lu.assertEquals(calls[3].weight, 2.5)
    lu.assertEquals(calls[4].values, { { 7 } })
end

function TestReading.test_the_drain_is_long_enough_for_the_last_call()
    local made = scenariofile.load(scenariofile.text [[
        policy = { timeout = 4 }, duration = 10,
        load = { arrivals = s.constant(10), caller_retries = 2, caller_pause = 1 },]])
    lu.assertEquals(made.plan.drain, 4 * 3 + 2 + 5)
end

function TestReading.test_scenarios_are_registered_in_order_until_cleared()
    scenario.registered(true)
    local fields = { duration = 1, load = { arrivals = scenario.constant(1) } }
    scenario.scenario "one" (fields)
    local two = scenario.scenario "two" (fields)
    lu.assertEquals(#scenario.registered(), 2)
    lu.assertIs(scenario.registered(true)[2], two)
    lu.assertEquals(scenario.registered(), {})
    lu.assertStrContains(two.file, "test_scenario.lua")
end

TestArrivals = {}

local function shares(arrival, parts)
    local list = {}
    arrival = arrival:fit(60)
    for index = 1, parts do list[index] = arrival:share(parts, index, 60) end
    return list
end

function TestArrivals.test_engines_share_rates_users_and_bursts()
    local rates = shares(scenario.poisson(100), 4)
    lu.assertEquals(rates[3].rates, { { 0, 25 } })
    local users = shares(scenario.users(5), 2)
    lu.assertEquals({ users[1].users, users[2].users }, { 3, 2 })
    local bursts = shares(scenario.burst { at = 10, requests = 5, every = 20 }, 2)
    lu.assertEquals(bursts[1].bursts, { { 10, 3 }, { 30, 3 }, { 50, 3 } })
    lu.assertEquals(bursts[2].bursts, { { 10, 2 }, { 30, 2 }, { 50, 2 } })
end

function TestArrivals.test_arrivals_may_be_limited_to_a_part_of_the_time()
    local share = shares(scenario.constant(10, { from = 20, to = 100 }), 1)[1]
    lu.assertEquals({ share.from, share.upto, share.poisson }, { 20, 60, false })
end

function TestArrivals.test_scenarios_may_share_arrivals_and_expectations()
    scenario.registered(true)
    local burst, opens = scenario.burst { at = 1, requests = 1, every = 1 }, scenario.opens { within = 1 }
    local function plan_of(name, duration, moment)
        return scenario.scenario(name) {
            duration = duration, load = { arrivals = burst }, expect = { opens },
            faults = { scenario.at(moment, scenario.crash "primary") },
        }.plan
    end
    local short, long = plan_of("short", 3, 1), plan_of("long", 5, 2)
    lu.assertEquals({ #short.arrivals[1].all_bursts, #long.arrivals[1].all_bursts }, { 2, 4 })
    lu.assertEquals({ short.expect[1].trouble_from, long.expect[1].trouble_from }, { 1, 2 })
end

TestMistakes = {}

function TestMistakes.test_an_unknown_key_is_told_with_the_nearest_known_one()
    assert_sentences {
        { "fault = {},", "6: fault is not a known key; did you mean faults?" },
        {
            "servers = {\n primary = { service = 0.1,\n  wrokers = 8 } },",
            "8: wrokers is not a known key of servers.primary; did you mean workers?",
        },
        { 'faults = { s.at(1, s.slow "primary" {\n facter = 2 }) },',
            "7: facter is not a known key of s.slow; did you mean factor?" },
        { 'expect = { s.recovers { withn = 2 } },',
            "6: withn is not a known key of s.recovers; did you mean within?" },
        {
            '--[[ wrokers = 1 ]] servers = { primary = { -- wrokers = 2\n  wrokers = 8 } },',
            "7: wrokers is not a known key of servers.primary; did you mean workers?",
        },
    }
end

function TestMistakes.test_a_value_is_told_with_its_limit()
    assert_sentences {
        { "engines = 1.5,", "6: engines is 1.5; it must be a whole number, 1 to 64" },
        { "drain = -1,", "6: drain is -1; it must be a number, 0 to 1000000" },
        { "policy = 7,",
            "6: policy is 7; it must be a table as weir.open takes, or a function that gives one" },
        {
            "servers = { primary = { workers = 0 } },",
            "6: servers.primary.workers is 0; it must be a whole number, 1 to 100000",
        },
        {
            "servers = { primary = { service = 'slow' } },",
            "6: servers.primary.service is \"slow\"; it must be a number of seconds or a distribution " ..
            "such as " ..
            "s.exponential(0.002)",
        },
        {
            "servers = { primary = {},\n copy = { follows = 'primry' } },",
            "7: servers.copy.follows is \"primry\", which is no other server; did you mean primary?",
        },
        { "phases = { s.phase('a', 5, 5) },", "6: s.phase(\"a\", 5, 5) ends before it begins" },
        { "phases = { s.phase('a', 5, 95) },", "6: s.phase(\"a\", 5, 95) ends after the last arrival, 90 s" },
        {
            "phases = { s.phase('a', 5, 6),\n s.phase('a', 7, 8) },",
            "7: there are two phases \"a\", the other one in line 6",
        },
    }
end

function TestMistakes.test_a_call_of_the_mix_is_found_by_its_context()
    local text = [[
  duration = 90,
  load = {
    arrivals = s.poisson(200),
    calls = {
      { "GET /contacts", sql = "select 1" },
      { "POST /orders", sql = "insert into orders values ($1)",
        weight = 0 },
    },
  },]]
    lu.assertEquals(scenariofile.load(scenariofile.text(text)),
        "outage.lua:10: load.calls[2].weight is 0; it must be a number, more than 0")
    lu.assertEquals(scenariofile.load(scenariofile.text((text:gsub("weight = 0", "client = 'anno'")))),
        "outage.lua:10: load.calls[2].client is \"anno\", which the policy does not have; did you mean anon?")
    lu.assertEquals(scenariofile.load(scenariofile.text((text:gsub("sql = \"insert[^\n]*\n *weight = 0",
        "weight = 1")))),
        "outage.lua:9: load.calls[2] (\"POST /orders\") needs sql or work, one of them")
end

function TestMistakes.test_what_is_missing_is_told()
    lu.assertEquals(scenariofile.load(scenariofile.text "load = { arrivals = s.poisson(1) }"),
        "outage.lua:3: duration is missing; it says for how many seconds requests arrive")
    lu.assertEquals(scenariofile.load(scenariofile.text "duration = 1"),
        "outage.lua:3: load is missing; it says who calls and how often: load = { arrivals = " ..
        "s.poisson(200) }")
    lu.assertEquals(scenariofile.load(scenariofile.text "duration = 1,\n load = {}"),
        "outage.lua:5: load.arrivals is nil; it must be arrivals, such as s.poisson(200)")
end

function TestMistakes.test_a_fault_lies_within_the_scenario()
    assert_sentences {
        { 'faults = { s.at(-1, s.crash "primary") },',
            "6: s.at: -1 s lies in the past; a scenario begins at 0" },
        {
            'faults = {\n s.at(90, s.crash "primary") },',
            "7: s.at: 90 s lies after the end of the scenario, 90 s",
        },
        {
            'faults = { s.between(20, 106, s.freeze "primary") },',
            "6: s.between: 106 s lies after the end of the scenario, 90 s and 15 s to drain",
        },
        { 'faults = { s.between(20, 10, s.freeze "primary") },',
            "6: s.between(20, 10) ends before it begins" },
        { 'faults = { s.crash "primary" },',
            "6: s.crash does not say when; put it into s.at(20, ...) or s.between(20, 50, ...)" },
        { 'faults = { "crash" },',
            "6: faults[1] is \"crash\"; it must be s.at(20, ...) or s.between(20, 50, ...)" },
    }
end

function TestMistakes.test_a_fault_is_known_and_complete_and_has_its_server()
    assert_sentences {
        { 'faults = { s.at(1, s.crash "primry") },',
            "6: there is no server \"primry\"; did you mean primary?" },
        {
            'faults = { s.at(1, s.failover "primary" { to = "copy" }) },',
            "6: there is no server \"copy\"; there is primary",
        },
        { 'faults = { s.at(1, s.slow "primary") },',
            "6: s.slow needs factor: s.slow \"primary\" { factor = ... }" },
        {
            'faults = { s.at(1, s.slow("primary", { factor = 2 })) },',
            "6: s.slow takes the server alone; its options follow: s.slow \"primary\" { ... }",
        },
        {
            'faults = { s.at(1, s.crash "primary") { restart_after = 3 } },',
            "6: s.at: options follow the fault, within the parentheses: s.at(20, " ..
                "s.crash \"primary\" { ... })",
        },
        {
            'faults = { s.at(1, "slwo") },',
            "6: s.at takes faults, such as s.crash \"primary\", or functions; this is \"slwo\"; did you " ..
            "mean slow?",
        },
        { 'faults = { s.at(1, s.crahs "primary") },',
            "6: s.crahs is no word of a scenario; did you mean crash?" },
        { 'faults = { s.at(1, s.slow { factor = 2 }) },',
            "6: s.slow takes the name of a server: s.slow \"primary\"; this is a table" },
        {
            'faults = { s.between(1, 2, s.failover "primary" { to = "primary" }) },',
            "6: s.failover has no end; say when it happens with s.at",
        },
        {
            'faults = { s.between(1, 2, s.slow "primary" { factor = 2, lasts = 3 }) },',
            "6: s.slow has lasts and stands in s.between, which says the same",
        },
        {
            'faults = { s.at(1, s.errors "primary" { sqlstate = "4001" }) },',
            "6: s.errors: sqlstate is \"4001\"; it must be five digits or capitals, like \"40001\"",
        },
        {
            'faults = { s.at(1, s.reset "primary" { phase = "sometimes" }) },',
            "6: s.reset: phase is \"sometimes\"; it must be one of before_send, after_send, " ..
            "before_answer, at_commit, " ..
            "after_commit",
        },
    }
end

function TestMistakes.test_the_same_trouble_cannot_be_twice_at_once()
    assert_sentences {
        {
            'faults = { s.at(20, s.crash "primary" { restart_after = 30 }),\n s.at(40, s.restart ' ..
            '"primary") },',
            "7: s.restart of primary at 40 s begins before that of line 6, from 20 s to 50 s, is over",
        },
        {
            'faults = { s.at(20, s.slow "primary" { factor = 2 }), s.at(40, s.slow "primary" { factor = ' ..
            '3 }) },',
            "6: s.slow of primary at 40 s begins before that of line 6, from 20 s to the end, is over",
        },
    }
    lu.assertEquals(#read([[faults = { s.at(20, s.slow "primary" { factor = 2 }), s.at(30, s.heal("primary",
        "slow")),
        s.at(40, s.slow "primary" { factor = 3 }) },]]).timeline, 3)
end

function TestMistakes.test_an_expectation_is_complete_and_names_what_there_is()
    assert_sentences {
        { 'expect = {\n s.goodput("all") },',
            "7: s.goodput says no limit: add :at_least(n), :at_most(n), :between(a, b) or :is(n)" },
        { 'expect = { s.goodput("al"):at_least(1) },',
            "6: s.goodput: there is no phase \"al\"; did you mean all?" },
        {
            'expect = { s.server("primry", "connects"):at_most(1) },',
            "6: s.server: there is no server \"primry\"; did you mean primary?",
        },
        {
            'expect = { s.server("primary", "conects"):at_most(1) },',
            "6: s.server: there is no figure \"conects\"; did you mean connects?",
        },
        { 'expect = { s.goodput():at_least("all") },', '6: s.goodput is "all"; it must be a number' },
        { 'expect = { s.latency("all", 99):at_most(1) },',
            "6: s.latency: the quantile is 99; it must be a number above 0, at most 1, like 0.99" },
        { 'expect = { s.opens {} },', "6: s.opens says no time: s.opens { within = 10 }, in seconds" },
        { 'expect = { s.recovers(10) },',
            "6: s.recovers says no time: s.recovers { within = 10 }, in seconds" },
        { 'expect = { s.opens { after = 5 } },',
            "6: s.opens: within is nil; it must be a number, 0 or more" },
        { 'expect = { s.goodput():at_least(99) },', "6: s.goodput is a share, from 0 to 1; it cannot be 99" },
        { 'expect = { s.goodput():at_leats(1) },',
            "6: s.goodput: at_leats is no limit of a figure; did you mean at_least?" },
        {
            'expect = { s.goodput().at_least(1) },',
            "6: a limit follows a colon: s.goodput():at_least(0.99), not s.goodput().at_least(0.99)",
        },
        { 'expect = { s.recovers { within = 5 } },',
            "6: s.recovers: after is missing, and no fault has an end to count from" },
        { 'expect = { s.opens { within = 5, after = 95 } },',
            "6: s.opens: after is 95, and the load ends at 90 s" },
        { 'expect = { 0.99 },',
            "6: expect[1] is 0.99; it must be an expectation, such as s.goodput(\"after\"):at_least(0.99)" },
    }
end

function TestMistakes.test_a_nil_in_a_list_does_not_hide_what_follows()
    assert_sentences {
        {
            "expect = { nil, s.goodput():at_least(1) },",
            "6: expect[1] is nil; it must be an expectation, such as s.goodput(\"after\"):at_least(0.99)",
        },
        { "faults = { [2] = s.at(1, s.stall(1)) },", "6: faults[1] is nil; it must be s.at(20, ...) or " ..
            "s.between(20, 50, ...)" },
    }
end

function TestMistakes.test_arrivals_say_what_is_wrong_at_their_line()
    local function load_with(arrivals)
        local fields = "duration = 90,\nload = {\n arrivals = " .. arrivals .. " },"
        return scenariofile.load(scenariofile.text(fields))
    end
    lu.assertEquals(load_with "s.poisson(0)",
        "outage.lua:6: s.poisson: per_second is 0; it must be a number, more than 0")
    lu.assertEquals(load_with "s.ramp { {0, 1}, {60, -1} }",
        "outage.lua:6: s.ramp: [2] is -1; it must be a number, 0 or more")
    lu.assertEquals(load_with "s.burst { at = 95, requests = 3 }",
        "outage.lua:6: s.burst: at is 95, after the end of the load (90 s)")
    lu.assertEquals(load_with "s.burst { at = 5, requests = 3, every = 0.1 }",
        "outage.lua:6: s.burst: every = 0.1 gives 850 bursts in 90 s; at most 256 are possible")
    lu.assertEquals(load_with "s.users(1.5)",
        "outage.lua:6: s.users: users is 1.5; it must be a whole number, 1 to 100000")
    lu.assertEquals(load_with "200",
        "outage.lua:6: load.arrivals is 200; it must be arrivals, such as s.poisson(200)")
end

function TestMistakes.test_two_scenarios_of_one_file_have_different_names()
    local one = 's.scenario "test" { duration = 1, load = { arrivals = s.constant(1) } }\n'
    lu.assertEquals(scenariofile.load('local s = require "weir.scenario"\n' .. one .. one),
        "outage.lua:3: there is a scenario of that name in line 2")
end

function TestMistakes.test_a_scenario_without_its_table_is_told()
    lu.assertEquals(scenariofile.load 'local s = require "weir.scenario"\ns.scenario "one"\n',
        'outage.lua:2: s.scenario takes a name and then a table: s.scenario "name" { ... }')
end

function TestMistakes.test_a_run_knows_its_options()
    local made = scenariofile.load(scenariofile.text(base))
    lu.assertErrorMsgContains("seed is 1.5; it must be a whole number", made.run, made, { seed = 1.5 })
    lu.assertErrorMsgContains("lively is not a known key of run", made.run, made, { lively = true })
end

function TestMistakes.test_a_fault_without_its_server_is_no_function_of_the_timeline()
    assert_sentences {
        { "faults = { s.at(2, s.crash) },", "6: s.at: s.crash needs the name of a server: s.crash \"primary\"" },
    }
end

function TestMistakes.test_what_is_more_than_all_cannot_be_expected()
    assert_sentences {
        { "expect = { s.goodput():at_least(99) },", "6: s.goodput is a share, from 0 to 1; it cannot be 99" },
        { "expect = { s.goodput():at_most(95) },", "6: s.goodput is a share, from 0 to 1; it cannot be 95" },
    }
end

function TestMistakes.test_a_change_cannot_make_a_server_follow_nobody()
    assert_sentences {
        {
            'faults = { s.at(1, s.change("primary", { follows = "copy" })) },',
            '6: s.change: follows is "copy", which is no other server; there is primary',
        },
    }
end

function TestMistakes.test_a_name_wants_a_table()
    lu.assertStrContains(scenariofile.load 's = require "weir.scenario"\ns.scenario "one" (nil)',
        'outage.lua:2: s.scenario "one" is followed by nil; it must be a table')
end

os.exit(lu.LuaUnit.run(), true)
