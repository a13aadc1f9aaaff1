-- The breaker alone, from Lua, on a clock of the test's own.

local lu = require "luaunit"
local weir = require "weir"

TestBreaker = {}

function TestBreaker:setUp()
    self.now = 1000
    self.clock = function() return self.now end
end

function TestBreaker:breaker(options)
    options.clock = self.clock
    return weir.breaker(options)
end

local function fail(breaker, times, code)
    for _ = 1, times do breaker:settle(assert(breaker:admit()), "failure", 0.01, code) end
end

local function succeed(breaker, times)
    for _ = 1, times do breaker:settle(assert(breaker:admit()), "success", 0.01) end
end

function TestBreaker:test_opens_at_the_failure_rate_and_says_why()
    local breaker = self:breaker { name = "redis", min_calls = 4, failure_rate = 0.5, open_for = 5 }
    succeed(breaker, 2)
    fail(breaker, 2, "refused")
    lu.assertEquals(breaker:state(), "OPEN")
    local permit, refusal = breaker:admit()
    lu.assertNil(permit)
    lu.assertEquals(refusal.code, "breaker_open")
    lu.assertEquals(refusal.retry_after, 5)
    lu.assertStrContains(refusal.message, "redis")
    lu.assertStrContains(refusal.evidence, "refused")
end

function TestBreaker:test_forced_open_does_not_pretend_to_know_when_it_ends()
    local breaker = self:breaker {}
    breaker:force "open"
    local _, refusal = breaker:admit()
    lu.assertEquals(refusal.code, "breaker_open")
    lu.assertNil(refusal.retry_after)
    lu.assertNil(breaker:snapshot().retry_after)
    lu.assertNotStrContains(tostring(refusal), "retry after")
    breaker:force(nil)
    lu.assertEquals(breaker:snapshot().retry_after, 0)
end

function TestBreaker:test_admits_probes_after_open_for_and_closes_when_they_pass()
    local breaker = self:breaker { consecutive = 2, open_for = 5, half_open = { permits = 2 } }
    fail(breaker, 2)
    self.now = self.now + 4.9
    lu.assertEquals(breaker:state(), "OPEN")
    self.now = self.now + 0.1
    lu.assertEquals(breaker:state(), "HALF_OPEN")
    succeed(breaker, 2)
    lu.assertEquals(breaker:state(), "CLOSED")
end

function TestBreaker:test_open_for_may_be_a_function_of_how_often_in_a_row_it_opened()
    local asked = {}
    local breaker = self:breaker {
        consecutive = 1,
        half_open = { permits = 1 },
        open_for = function(k)
            asked[#asked + 1] = k
            return 2 * k
        end,
    }
    fail(breaker, 1)
    lu.assertEquals(breaker:snapshot().retry_after, 2)
    self.now = self.now + 2
    fail(breaker, 1)
    lu.assertEquals(breaker:snapshot().retry_after, 4)
    lu.assertEquals(asked[#asked], 2)
end

function TestBreaker:test_an_open_for_that_raises_or_returns_nonsense_leaves_the_default_and_is_reported()
    local nonsense = { error, function() return "soon" end, function() return -1 end }
    for _, open_for in ipairs(nonsense) do
        local events = {}
        local breaker = self:breaker { consecutive = 1, open_for = open_for }
        breaker:on("transition", function(event) events[#events + 1] = event end)
        fail(breaker, 1)
        lu.assertEquals(breaker:state(), "OPEN")
        lu.assertEquals(breaker:snapshot().retry_after, 60)
        lu.assertStrContains(events[1].fault, "open_for")
    end
end

function TestBreaker:test_tells_of_each_transition_with_its_evidence()
    local seen = {}
    local breaker = self:breaker { consecutive = 2, open_for = 1, half_open = { permits = 1 } }
    breaker:on("transition", function(event)
        seen[#seen + 1] = event.from .. ">" .. event.to .. ":" .. event.rule
    end)
    fail(breaker, 2)
    self.now = self.now + 1
    succeed(breaker, 1)
    lu.assertEquals(seen, {
        "CLOSED>OPEN:consecutive",
        "OPEN>HALF_OPEN:open_ended",
        "HALF_OPEN>CLOSED:half_open_passed",
    })
end

function TestBreaker:test_tells_of_refusals()
    local refused = 0
    local breaker = self:breaker { consecutive = 1 }
    breaker:on("refused", function() refused = refused + 1 end)
    fail(breaker, 1)
    breaker:admit()
    breaker:admit()
    lu.assertEquals(refused, 2)
    lu.assertEquals(breaker:snapshot().refused, 2)
end

function TestBreaker:test_metrics_only_admits_everything_and_reports_a_rate_once()
    local exceeded = 0
    local breaker = self:breaker { min_calls = 2, initial = "metrics_only" }
    breaker:on("rate_exceeded", function() exceeded = exceeded + 1 end)
    fail(breaker, 10)
    lu.assertEquals(breaker:state(), "METRICS_ONLY")
    lu.assertEquals(exceeded, 1)
end

function TestBreaker:test_an_operator_forces_it_and_lets_it_go()
    local breaker = self:breaker {}
    breaker:force("open")
    lu.assertEquals(breaker:state(), "FORCED_OPEN")
    lu.assertNil((breaker:admit()))
    breaker:force("closed")
    lu.assertEquals(breaker:state(), "FORCED_CLOSED")
    breaker:force("disabled")
    lu.assertEquals(breaker:state(), "DISABLED")
    breaker:force(nil)
    lu.assertEquals(breaker:state(), "CLOSED")
end

function TestBreaker:test_reset_forgets_what_was_counted()
    local breaker = self:breaker { consecutive = 2 }
    fail(breaker, 2)
    breaker:reset()
    lu.assertEquals(breaker:state(), "CLOSED")
    lu.assertEquals(breaker:snapshot().calls, 0)
end

function TestBreaker:test_rates_are_nil_below_min_calls()
    local breaker = self:breaker { min_calls = 3 }
    fail(breaker, 2)
    lu.assertNil(breaker:snapshot().failure_rate)
    fail(breaker, 1)
    lu.assertEquals(breaker:snapshot().failure_rate, 1)
end

function TestBreaker:test_a_neutral_outcome_counts_for_nothing()
    local breaker = self:breaker { consecutive = 1 }
    breaker:settle(breaker:admit(), "neutral", 0.1)
    lu.assertEquals(breaker:snapshot().calls, 0)
    lu.assertEquals(breaker:state(), "CLOSED")
end

function TestBreaker:test_a_good_probe_half_opens_it_early()
    local breaker = self:breaker { consecutive = 1 }
    fail(breaker, 1)
    lu.assertTrue(breaker:probe_passed())
    lu.assertEquals(breaker:state(), "HALF_OPEN")
    lu.assertFalse(breaker:probe_passed())
end

function TestBreaker:test_a_handler_that_raises_does_not_disturb_the_call()
    local breaker = self:breaker { consecutive = 1 }
    breaker:on("transition", function() error("bad handler") end)
    fail(breaker, 1)
    lu.assertEquals(breaker:state(), "OPEN")
    lu.assertEquals(breaker:snapshot().handler_faults, 1)
    lu.assertStrContains(breaker:snapshot().handler_error, "bad handler")
end

local misuses = {
    { { window = 0 }, "breaker: window is 0; it must be more than 0" },
    { { window = 61 }, "window is 61" },
    { { window_calls = 5000 }, "window_calls is 5000; it must be a whole number from 0 to 4096" },
    { { failure_rate = 1.5 }, "failure_rate is 1.5; it must be from 0 to 1" },
    { { failure_rate = 0 }, "failure_rate is 0" },
    { { failure_rate = 0 / 0 }, "failure_rate is" },
    { { min_calls = 2.5 }, "min_calls is 2.5; it must be a whole number" },
    { { min_cals = 2 }, "min_cals is not a known option; did you mean min_calls?" },
    { { half_open = { permits = 100 } }, "half_open.permits is 100" },
    { { half_open = 3 }, "half_open is a number; it must be a table" },
    { { open_for = "long" }, "open_for is a string; it must be a number of seconds or a function" },
    { { initial = "ajar" }, "initial is 'ajar'; it must be one of closed, open" },
    { { clock = 5 }, "clock is a number; it must be a function" },
    { { slow_call = -1 }, "slow_call is -1; it must be at least 0" },
    { "x", "the options are a string" },
}

function TestBreaker:test_misuse_raises_at_the_callers_line_and_names_the_knob()
    for _, case in ipairs(misuses) do
        local ok, err = pcall(function() weir.breaker(case[1]) end)
        lu.assertFalse(ok)
        lu.assertStrContains(err, "test_breaker.lua:")
        lu.assertStrContains(err, case[2])
    end
end

function TestBreaker:test_a_permit_is_settled_once_and_by_the_breaker_that_gave_it()
    local breaker, other = self:breaker {}, self:breaker {}
    local permit = breaker:admit()
    lu.assertErrorMsgContains("not one this breaker gave", function() other:settle(permit, "success", 0) end)
    lu.assertErrorMsgContains("must be 'success', 'failure' or 'neutral'", function()
        breaker:settle(permit, "ok", 0)
    end)
    breaker:settle(permit, "success", 0)
    lu.assertErrorMsgContains("settled before", function() breaker:settle(permit, "success", 0) end)
end

os.exit(lu.LuaUnit.run())
