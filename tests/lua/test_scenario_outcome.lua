-- What is said about a run: the sentences of expectations that do not hold, and the picture. The figures
-- are made up.

local lu = require "luaunit"
local figures = require "weir.scenario.figures"
local picture = require "weir.scenario.picture"
local report = require "weir.scenario.report"
local scenariofile = require "scenariofile"
local series = require "weir.scenario.series"
local wording = require "weir.scenario.wording"

-- ---- a run that never was
-- ---------------------------------------------------------------------------------

local counters = { "arrived", "ok", "failed", "refused", "timed_out", "unknown", "calls", "attempts" }

local function no_counts()
    local counts = { latency_mean = 0.005, latency_max = 0 }
    for _, key in ipairs(counters) do counts[key] = 0 end
    return counts
end

-- Buckets of half a second: of 50 requests each as many end badly as bad(second) says.
local function made_buckets(seconds, bad)
    local buckets = {}
    for i = 1, seconds * 2 do
        local from = (i - 1) / 2
        local failed = bad(from)
        local bucket = no_counts()
        bucket.from, bucket.to = from, from + 0.5
        bucket.arrived, bucket.ok, bucket.failed = 50, 50 - failed, failed
        bucket.calls, bucket.attempts = 50, 50 + failed
        bucket.latency_p95, bucket.latency_max = 0.010 + from / 1000, 0.1
        bucket.breaker, bucket.waiting, bucket.connections = failed > 25 and "OPEN" or "CLOSED", failed, 10
        buckets[i] = bucket
    end
    return buckets
end

-- What core.tally would give.
local function made_tally(plan, buckets, moves)
    local tally = {}
    function tally.counts(_, name)
        local phase = name and plan.phase_names[name]
        local counts = no_counts()
        for _, bucket in ipairs(buckets) do
            if not phase or bucket.from >= phase.from and bucket.to <= phase.to then
                for _, key in ipairs(counters) do counts[key] = counts[key] + bucket[key] end
                counts.latency_max = math.max(counts.latency_max, bucket.latency_max)
            end
        end
        return counts
    end
    function tally.quantile(_, _, q) return q / 10 end
    function tally.ended_as() return { ok = 1 } end
    function tally.buckets() return buckets end
    function tally.moves() return moves or {} end
    return tally
end

local head = [[
  duration = 20,
  load = { arrivals = s.constant(100) },
  faults = { s.between(5, 10, s.freeze "primary") },
  expect = {
]]

local function outage(second)
    return second >= 5 and second < 12 and 40 or 0
end

-- The report of a run of 20 seconds in which requests fail from 5 s to 12 s.
local function report_of(expectations, more)
    local text = scenariofile.text(head .. "    " .. table.concat(expectations, ",\n    ") .. "\n  },")
    return scenariofile.with(text, function(made)
        local samples = {}
        for i = 0, 20 do
            samples[i + 1] = {
                at = i, connects = i < 10 and i or i * 3, statements = i * 100, sessions = 10, waiting = i,
            }
        end
        local fields = {
            seed = 7, ended = 20, open = 0, samples = { primary = samples },
            servers = { primary = {
                connects = 60, statements = 2000, sessions_max = 10, waiting_max = 25,
                    connects_in_a_second_max = 21,
            } },
        }
        for key, value in pairs(more or {}) do fields[key] = value end
        local moves = {
            { at = 6.25, pool = "service@primary", from = "CLOSED", to = "OPEN" },
            { at = 12, pool = "service@primary", from = "OPEN", to = "HALF_OPEN" },
            { at = 12.5, pool = "service@primary", from = "HALF_OPEN", to = "CLOSED" },
        }
        local tally = made_tally(made.plan, made_buckets(20, outage), moves)
        local seen = figures.read(made.plan, tally, fields)
        local told = report.new(made, seen, { seconds = 0, ascii = true })
        for i, sentence in ipairs(told.failures) do
            told.failures[i] = sentence:gsub(made.file:gsub("%W", "%%%0"), "outage.lua")
        end
        return told
    end)
end

-- Each expectation stands alone on line 8; the sentence is what it makes, or nil if it holds.
local function assert_outcomes(cases, more)
    for _, case in ipairs(cases) do
        local told = report_of({ case[1] }, more)
        if type(told) == "string" then error(told, 0) end
        lu.assertEquals(told.failures, { case[2] and "outage.lua:8: " .. case[2] }, case[1])
    end
end

TestExpectations = {}

function TestExpectations.test_goodput_is_told_with_its_worst_second()
    assert_outcomes {
        { 's.goodput("before"):at_least(1)' },
        {
            's.goodput("during"):at_least(0.99)',
            'goodput of phase "during" should be at least 0.99, was 0.2 (100 of 500 requests); worst ' ..
            'second 5-6 s: 0.2',
        },
        {
            's.goodput():between(0.9, 1)',
            "goodput of the whole run should be between 0.9 and 1, was 0.72 (1 440 of 2 000 requests); " ..
            "worst second 5-6 s: 0.2",
        },
        { 's.goodput("during"):at_most(0.1999999)',
            'goodput of phase "during" should be at most 0.2, was 0.2 ' ..
            "(100 of 500 requests); worst second 5-6 s: 0.2" },
    }
end

function TestExpectations.test_latency_and_the_longest_call_are_told_in_seconds()
    assert_outcomes {
        { 's.latency("after", 0.99):at_most(0.1)' },
        {
            's.latency("after", 0.5):at_most(0.01)',
            'latency (50 %) of phase "after" should be at most 10 ms, was 50 ms (840 successes); ' ..
            "slowest second 19-20 s: about 29.5 ms",
        },
        { "s.longest_call():at_most(0.05)",
            "the longest call should be at most 50 ms, was 100 ms (ended at 0-1 s)" },
    }
end

function TestExpectations.test_a_breaker_has_its_moments()
    assert_outcomes {
        { "s.opens { within = 1.25 }" },
        { "s.closes { within = 3 }" },
        { 's.never_opens("before")' },
        {
            "s.opens { within = 1 }",
            "a breaker should open within 1 s after 5 s, did after 1.25 s (service@primary, at 6.25 s)",
        },
        {
            's.opens { within = 1, pool = "anon@primary" }',
            "the breaker of anon@primary should open within 1 s after 5 s, but did not until the end; " ..
            "it never moved",
        },
        {
            "s.closes { within = 3, after = 13 }",
            "a breaker should close within 3 s after 13 s, but did not until the end; its moves: " ..
            "service@primary OPEN " ..
            "at 6.25 s, service@primary HALF_OPEN at 12 s, service@primary CLOSED at 12.5 s",
        },
        { "s.never_opens()", "no breaker should open, but that of service@primary did at 6.25 s" },
    }
end

function TestExpectations.test_recovery_counts_from_the_end_of_the_trouble()
    assert_outcomes {
        { "s.recovers { within = 2 }" },
        { "s.recovers { within = 1, to = 0.2 }" },
        {
            "s.recovers { within = 1.5 }",
            "at least 0.95 of the requests should end well again within 1.5 s after 10 s, did after 2 " ..
            "s, at 12 s " ..
            "(worst second 10-11 s: 0.2)",
        },
    }
end

function TestExpectations.test_counts_and_amplification()
    assert_outcomes {
        { 's.failed("before"):is(0)' },
        { "s.amplification():at_most(1.28)" },
        {
            's.failed("during"):at_most(100)',
            'failed requests of phase "during" should be at most 100, was 400 of 500 requests; most in ' ..
            'second 5-6 s: 80',
        },
        {
            's.amplification("during"):at_most(1.2)',
            'retry amplification of phase "during" should be at most 1.2, was 1.8 (900 attempts for 500 ' ..
            'requests)',
        },
    }
end

function TestExpectations.test_figures_of_a_server()
    assert_outcomes {
        { 's.server("primary", "connects"):is(60)' },
        { 's.server("primary", "connects", "before"):is(5)' },
        {
            's.server("primary", "connects_in_a_second"):at_most(20)',
            "connects in a second of server primary should be at most 20, was 21 (at 9 s)",
        },
        {
            's.server("primary", "waiting"):at_most(20)',
            "waiting of server primary should be at most 20, was 25 (at 20 s)",
        },
    }
end

function TestExpectations.test_the_operators_own_is_called_with_the_report()
    assert_outcomes {
        { "s.seen(function(report) return report.seed == 7 and report.figures.whole.ok == 1440 end)" },
        { 's.seen(function() return false, "too few" end)', "too few" },
        { 's.seen(function() return false end, "should be more")', "should be more" },
        { "s.seen(function() error 'no' end)", "its function failed: outage.lua:8: no" },
    }
end

function TestExpectations.test_what_must_never_happen_is_checked_unsaid()
    local sentence = "outage.lua:3: calls lost should be at most 0, were 3: 2 requests had not ended 0 " ..
        "s after the " ..
        "last arrival, the oldest from 4 s; and 1 write reported as committed is not there"
    local told = report_of({ "s.goodput():at_least(0.1)" },
        { open = 2, oldest = 4, books = { lost = 1, twice = 1, undead = 0 } })
    lu.assertEquals(told.failures, { sentence,
        "outage.lua:3: calls executed twice should be at most 0, were 1" })
    lu.assertFalse(told.ok)
end

function TestExpectations.test_unless_the_scenario_allows_it()
    local told = report_of({ "s.calls_lost(3), s.executed_twice(1)" },
        { open = 2, oldest = 4, books = { lost = 1, twice = 1, undead = 0 } })
    lu.assertEquals(told.failures, {})
    lu.assertTrue(told.ok)
    lu.assertStrContains(told.text, "test: as expected (2 000 requests in 20 s, seed 7)")
end

-- ---- windows
-- ----------------------------------------------------------------------------------------------

TestSeries = {}

function TestSeries.test_a_window_in_which_nothing_ended_has_the_share_of_the_next()
    local windows = series.shares {
        { arrived = 5, ok = 5, failed = 0 }, { arrived = 5, ok = 0, failed = 0 }, { arrived = 5, ok = 1,
            failed = 3 },
        { arrived = 0, ok = 0, failed = 0 }, { arrived = 5, ok = 0, failed = 0 },
    }
    local list = {}
    for i, window in ipairs(windows) do list[i] = window.share or "none" end
    lu.assertEquals(list, { 1, 0.25, 0.25, "none", 0 })
end

function TestSeries.test_what_is_bad_until_the_end_has_not_recovered()
    local buckets = made_buckets(20, function(second) return second >= 19 and 10 or 0 end)
    local since, worst = series.recovered(buckets, 5, 20, 1, 20, 0.95)
    lu.assertNil(since)
    lu.assertEquals(worst.from, 19)
end

function TestSeries.test_where_nothing_arrives_nothing_has_recovered()
    lu.assertNil((series.recovered(made_buckets(5, function() return 0 end), 10, 20, 1, 20, 0.95)))
end

function TestSeries.test_requests_that_hang_until_the_load_ends_count_by_how_they_end()
    local buckets = made_buckets(20, function() return 0 end)
    for i = 31, 40 do buckets[i].ok, buckets[i].failed = 0, 0 end -- from 15 s on nothing ends
    lu.assertNil((series.recovered(buckets, 5, 20, 1, 30, 0.95)))
end

function TestSeries.test_buckets_make_whole_seconds_and_are_bounded()
    for _, seconds in ipairs { 1, 19, 105, 700, 1999, 5000, 86400 } do
        local bucket = figures.bucket(seconds)
        lu.assertTrue(seconds / bucket <= 2000, seconds)
        lu.assertTrue(bucket >= 1 and bucket % 1 == 0 or (1 / bucket) % 1 == 0, seconds)
    end
end

-- ---- the picture
-- ------------------------------------------------------------------------------------------

TestPicture = {}

local function columns_of(line)
    return #line:gsub("[\128-\191]", "")
end

function TestPicture.test_it_shows_the_run_over_its_seconds()
    lu.assertEquals(report_of({ "s.calls_lost(0)" }).picture, table.concat({
        "phase      |before--||during--||after-------------|",
        "arrivals   @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@ max 100/s",
        "goodput    @@@@@@@@@@::::::::::::::@@@@@@@@@@@@@@@@ max 100/s",
        "failures             ##############                 max 80/s",
        "p95        ---=======+++++++********#######@@@@@@@@ max 29.5 ms",
        "breaker    CCCCCCCCCCOOOOOOOOOOOOOOCCCCCCCCCCCCCCCC C O H",
        "retries              @@@@@@@@@@@@@@                 max 80/s",
        "waiting              @@@@@@@@@@@@@@                 max 40 calls",
        "db queue     . . : : - - - = = + + * * * # # @ @ @  max 19",
        "           +---------+---------+---------+---------",
        "seconds    0         5         10        15",
        "faults               ^ freeze primary",
    }, "\n"))
end

function TestPicture.test_it_is_no_wider_than_100_columns()
    local told = report_of { "s.goodput():at_least(1)" }
    for _, ascii in ipairs { true, false } do
        local text = scenariofile.with(scenariofile.text(head .. "}"), function(made)
            told.figures.buckets = made_buckets(20, outage)
            return picture.draw(made.plan, told.figures, { ascii = ascii })
        end)
        for line in text:gmatch("[^\n]+") do lu.assertTrue(columns_of(line) <= 100, line) end
    end
end

TestWording = {}

function TestWording.test_numbers_as_people_read_them()
    lu.assertEquals({ wording.count(2431), wording.count(999), wording.count(1234567), wording.count(-2431) },
        { "2 431", "999", "1 234 567", "-2 431" })
    lu.assertEquals({ wording.share(0.99996), wording.share(1), wording.share(0.00001),
        wording.share(0.83124) },
        { "0.9999", "1", "0.0001", "0.8312" })
    lu.assertEquals({ wording.seconds(0.0008), wording.seconds(0.012), wording.seconds(2.1),
        wording.seconds(0) },
        { "0.8 ms", "12 ms", "2.1 s", "0 s" })
    lu.assertEquals({ wording.number(12.345), wording.number(0.5), wording.number(100.04),
        wording.number(2431) },
        { "12.35", "0.5", "100", "2 431" })
end

os.exit(lu.LuaUnit.run(), true)
