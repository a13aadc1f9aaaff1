-- Backoff, budget, limit and rate alone, and weir.guard, which puts guards around a function.

local lu = require "luaunit"
local weir = require "weir"

local function in_loop(fn)
    local ok, err = weir.run(fn)
    if not ok then error(err, 0) end
end

TestBackoff = {}

function TestBackoff.test_exponential_doubles_from_base_to_cap()
    local backoff = weir.backoff { kind = "exponential", base = 0.1, cap = 0.5 }
    local delays = { backoff:next(), backoff:next(), backoff:next(), backoff:next() }
    lu.assertAlmostEquals(delays, { 0.1, 0.2, 0.4, 0.5 }, 1e-9)
    backoff:reset()
    lu.assertAlmostEquals(backoff:next(), 0.1, 1e-9)
end

function TestBackoff.test_the_same_seed_gives_the_same_delays()
    local one, other = weir.backoff { seed = 42 }, weir.backoff { seed = 42 }
    for _ = 1, 5 do lu.assertEquals(one:next(), other:next()) end
end

function TestBackoff.test_jitter_stays_inside_its_bounds()
    local backoff = weir.backoff { kind = "full", base = 0.1, cap = 1 }
    for _ = 1, 100 do
        local delay = backoff:next()
        lu.assertTrue(delay >= 0 and delay <= 1)
    end
end

function TestBackoff.test_misuse_is_told()
    lu.assertErrorMsgContains("kind is 'fast'; it must be one of full", weir.backoff, { kind = "fast" })
    lu.assertErrorMsgContains("base is 0", weir.backoff, { base = 0 })
    lu.assertErrorMsgContains("cap", weir.backoff, { base = 2, cap = 1 })
    lu.assertErrorMsgContains("seed is a string", weir.backoff, { seed = "x" })
end

TestBudget = {}

function TestBudget.test_retries_are_paid_for_by_successes()
    local now = 0
    local budget = weir.budget { per_success = 0.5, floor = 1, cap = 10, clock = function() return now end }
    lu.assertTrue(budget:withdraw())
    lu.assertFalse(budget:withdraw())
    budget:success()
    budget:success()
    lu.assertTrue(budget:withdraw())
    lu.assertEquals(budget:cap(), 10)
end

function TestBudget.test_the_ratio_kind_allows_a_share_of_requests()
    local now = 100
    local budget = weir.budget {
        kind = "ratio", per_success = 0.2, floor = 0, window = 10, clock = function() return now end,
    }
    for _ = 1, 10 do budget:request() end
    lu.assertTrue(budget:withdraw())
    lu.assertTrue(budget:withdraw())
    lu.assertFalse(budget:withdraw())
end

TestLimit = {}

function TestLimit.test_refuses_beyond_max_and_says_how_many()
    local limit = weir.limit { max = 2 }
    lu.assertTrue(limit:acquire())
    lu.assertTrue(limit:acquire())
    local ok, refusal = limit:acquire()
    lu.assertNil(ok)
    lu.assertEquals(refusal.code, "limit_full")
    lu.assertEquals(refusal.evidence, "2 of 2 in use, 0 of 0 waiting")
    limit:release()
    lu.assertEquals(limit:used(), 1)
    lu.assertTrue(limit:acquire())
end

function TestLimit.test_waiters_get_their_places_in_order()
    local limit, order = weir.limit { max = 1, queue = 5 }, {}
    in_loop(function()
        local function work(name)
            return function()
                assert(limit:acquire())
                weir.sleep(0.002)
                order[#order + 1] = name
                limit:release()
            end
        end
        weir.gather(work "a", work "b", work "c")
    end)
    lu.assertEquals(order, { "a", "b", "c" })
    lu.assertEquals(limit:used(), 0)
end

function TestLimit.test_the_queue_is_bounded_and_waiting_has_an_end()
    local limit = weir.limit { max = 1, queue = 1 }
    in_loop(function()
        limit:acquire()
        local waiter = weir.spawn(function() return limit:acquire(0.01) end)
        weir.sleep(0)
        local _, full = limit:acquire()
        lu.assertEquals(full.code, "queue_full")
        local _, late = waiter:join()
        lu.assertEquals(late.code, "acquire_timeout")
        lu.assertEquals(limit:waiting(), 0)
    end)
end

function TestLimit.test_releasing_what_was_not_acquired_raises()
    lu.assertErrorMsgContains("released more often", function() weir.limit({ max = 1 }):release() end)
    lu.assertErrorMsgContains("limit: max is nil", weir.limit, {})
end

TestRate = {}

function TestRate.test_gives_its_burst_and_then_says_when_to_come_back()
    local now = 5
    local rate = weir.rate { per_second = 10, burst = 2, clock = function() return now end }
    lu.assertTrue(rate:take())
    lu.assertTrue(rate:take())
    local ok, refusal = rate:take()
    lu.assertNil(ok)
    lu.assertEquals(refusal.code, "rate_limited")
    lu.assertAlmostEquals(refusal.retry_after, 0.1, 0.001)
    now = now + 0.11
    lu.assertTrue(rate:take())
end

function TestRate.test_wait_sleeps_until_it_is_its_turn()
    local rate = weir.rate { per_second = 100, burst = 1 }
    rate:wait()
    local started = weir.now()
    rate:wait()
    lu.assertTrue(weir.now() - started >= 0.009)
end

TestGuard = {}

function TestGuard.test_passes_values_on_and_counts_them_as_success()
    local breaker = weir.breaker {}
    local guard = weir.guard { breaker = breaker }
    lu.assertEquals({ guard:run("GET", function() return 1, nil, 3 end) }, { 1, nil, 3 })
    lu.assertNil((guard:run("GET", function() end)))
    lu.assertEquals(breaker:snapshot().calls, 2)
    lu.assertEquals(breaker:snapshot().failures, 0)
end

function TestGuard.test_retries_failures_and_passes_the_last_one_on()
    local guard = weir.guard { retry = { retries = 2, base = 0.001 } }
    local tries = 0
    local value, err = guard:run("GET", function()
        tries = tries + 1
        return nil, "down"
    end)
    lu.assertNil(value)
    lu.assertEquals(err, "down")
    lu.assertEquals(tries, 3)
end

function TestGuard.test_a_raised_error_is_a_failure_and_is_raised_again_unchanged()
    local breaker, object = weir.breaker {}, { mine = true }
    local guard = weir.guard { breaker = breaker, retry = { retries = 1, base = 0.001 } }
    local ok, err = pcall(guard.run, guard, "GET", function() error(object) end)
    lu.assertFalse(ok)
    lu.assertIs(err, object)
    lu.assertEquals(breaker:snapshot().failures, 2)
end

function TestGuard.test_fails_fast_while_the_breaker_is_open()
    local guard, called = weir.guard { breaker = { consecutive = 1 } }, 0
    local function down()
        called = called + 1
        return nil, "down"
    end
    guard:run("GET", down)
    local _, err = guard:run("GET session", down)
    lu.assertEquals(err.code, "breaker_open")
    lu.assertEquals(err.context, "GET session")
    lu.assertEquals(called, 1)
end

function TestGuard.test_a_timeout_ends_a_function_that_waits()
    local breaker = weir.breaker {}
    local guard = weir.guard { breaker = breaker, timeout = 0.01 }
    local value, err = guard:run("GET", function() weir.sleep(10) end)
    lu.assertNil(value)
    lu.assertEquals(err.code, "timeout")
    lu.assertEquals(breaker:snapshot().failures, 1)
end

function TestGuard.test_a_function_that_blocks_past_its_timeout_keeps_its_value_but_counts_as_failure()
    local breaker = weir.breaker {}
    local guard = weir.guard { breaker = breaker, timeout = 0.002 }
    local value = guard:run("GET", function()
        local stop = weir.now() + 0.004
        while weir.now() < stop do end
        return "late"
    end)
    lu.assertEquals(value, "late")
    lu.assertEquals(breaker:snapshot().failures, 1)
end

function TestGuard.test_the_budget_ends_retrying()
    local now, tries = 0, 0
    local guard = weir.guard {
        budget = weir.budget { floor = 1, clock = function() return now end },
        retry = { retries = 5, base = 0.001 },
    }
    guard:run("GET", function()
        tries = tries + 1
        return nil, "down"
    end)
    lu.assertEquals(tries, 2)
end

function TestGuard.test_when_decides_what_is_worth_a_retry()
    local tries = 0
    local function worthwhile(err) return err ~= "wrong" end
    local guard = weir.guard { retry = { retries = 5, base = 0.001, when = worthwhile } }
    guard:run("GET", function()
        tries = tries + 1
        return nil, "wrong"
    end)
    lu.assertEquals(tries, 1)
end

function TestGuard.test_the_limit_is_given_back_whatever_happens()
    local limit = weir.limit { max = 1 }
    local guard = weir.guard { limit = limit, timeout = 0.01 }
    guard:run("GET", function() return 1 end)
    pcall(guard.run, guard, "GET", function() error("x") end)
    guard:run("GET", function() weir.sleep(1) end)
    lu.assertEquals(limit:used(), 0)
end

local misuses = {
    { { breakers = {} }, "guard: breakers is not a known option" },
    { { timeout = 0 }, "guard: timeout is 0; it must be more than 0" },
    { { timeout = "1" }, "guard: timeout is a string" },
    { { retry = { retries = -1 } }, "retry.retries is -1" },
    { { retry = { tries = 1 } }, "guard: retry: tries is not a known option" },
    { { retry = { base = -1 } }, "base is -1" },
    { { breaker = 5 }, "guard: breaker is a number" },
    { { limit = { max = 0 } }, "limit: max is 0" },
}

function TestGuard.test_misuse_is_told_when_the_guard_is_made()
    for _, case in ipairs(misuses) do
        lu.assertErrorMsgContains(case[2], weir.guard, case[1])
    end
    lu.assertErrorMsgContains("the label is", function() weir.guard({}):run("", print) end)
    lu.assertErrorMsgContains("fn is a nil", function() weir.guard({}):run("x") end)
end

os.exit(lu.LuaUnit.run())
