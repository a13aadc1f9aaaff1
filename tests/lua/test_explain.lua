-- weir.explain: figures and words about a policy, all from running it.

local lu = require "luaunit"
local weir = require "weir"

TestExplain = {}

local function file_exists(path)
    local file = io.open(path)
    if file then file:close() end
    return file ~= nil
end

-- ---- what it says -----------------------------------------------------------------------------------------

function TestExplain.test_it_tells_how_long_a_call_of_the_defaults_can_take()
    local figures = weir.explain {}
    lu.assertEquals(figures.worst_call.situation, "frozen")
    lu.assertTrue(figures.worst_call.seconds >= 10 and figures.worst_call.seconds <= 10.2)
    lu.assertTrue(figures.situations.down.longest < 1)
end

function TestExplain.test_it_tells_how_often_a_call_is_tried()
    local attempts = weir.explain({}).attempts
    lu.assertEquals(attempts.read.lost, { least = 4, most = 4 })
    lu.assertEquals(attempts.write.lost, { least = 1, most = 1 })
    lu.assertEquals(attempts.idempotent.lost, { least = 4, most = 4 })
    lu.assertEquals(attempts.write.serialization, { least = 4, most = 4 })
    lu.assertEquals(attempts.read.timeout, { least = 1, most = 1 })
    lu.assertEquals(attempts.write.unreachable, { least = 4, most = 4 })
end

function TestExplain.test_it_tells_the_pauses_between_attempts()
    local pauses = weir.explain({ backoff = { kind = "equal", base = 0.1, cap = 1 }, retries = 3 }).pauses
    lu.assertEquals(#pauses, 3)
    for i, top in ipairs { 0.1, 0.2, 0.4 } do
        lu.assertTrue(pauses[i].least >= top / 2 - 1e-6, tostring(pauses[i].least))
        lu.assertTrue(pauses[i].most <= top + 1e-6, tostring(pauses[i].most))
        lu.assertTrue(pauses[i].least < pauses[i].median and pauses[i].median < pauses[i].most)
    end
end

function TestExplain.test_it_tells_when_the_breaker_opens_and_how_much_it_refuses()
    local quick = weir.explain({ breaker = { window = 2, min_calls = 5 } }).situations.down
    local slow = weir.explain({ breaker = { window = 20, min_calls = 5 } }).situations.down
    lu.assertTrue(quick.opened_after < slow.opened_after)
    lu.assertTrue(quick.failed_before < slow.failed_before)
    lu.assertTrue(quick.refused_by_breaker > 0.9)
end

function TestExplain.test_a_breaker_that_never_opens_is_told_as_such()
    local explanation = weir.explain { breaker = { min_calls = 1000000 } }
    lu.assertNil(explanation.situations.down.opened_after)
    lu.assertStrContains(tostring(explanation), "down: not in 30 s")
end

function TestExplain.test_it_tells_when_calls_are_let_in_again_at_best_and_at_worst()
    local back = weir.explain({}).coming_back
    lu.assertEquals(back.outages.count, 10)
    lu.assertEquals(back.never, 0)
    lu.assertTrue(back.let_in_after.least < 2)
    lu.assertTrue(back.let_in_after.most > 5 and back.let_in_after.most <= 30)
    lu.assertTrue(back.connects_in_a_second <= 10)
    lu.assertTrue(back.of_normal < 1.5)
end

function TestExplain.test_it_tells_how_retries_amplify_a_brown_out()
    local generous = {
        budget = { per_success = 10, floor = 1000, cap = 10000 }, breaker = { failure_rate = 1 },
    }
    local thrifty = weir.explain({ breaker = { failure_rate = 1 } }).brownouts[2]
    local wasteful = weir.explain(generous).brownouts[2]
    lu.assertTrue(thrifty.amplification < 1.3, tostring(thrifty.amplification))
    lu.assertTrue(wasteful.amplification > 1.7, tostring(wasteful.amplification))
end

function TestExplain.test_it_tells_what_the_queue_refuses()
    local slow = weir.explain({}).situations.slow
    lu.assertTrue(slow.refused_by_queue > 0.3)
    lu.assertEquals(slow.waiting, 100)
    lu.assertAlmostEquals(slow.good, 0.5, 0.1)
end

function TestExplain.test_the_text_names_the_surroundings_and_every_figure()
    local text = tostring(weir.explain({}, {
        rate = 50, workers = 4, service = weir.sim.exponential(0.02), engines = 2,
    }))
    for _, piece in ipairs {
        "50 calls a second by client service", "2 engines", "4 workers", "20 ms on average (exponential)",
        "Longest call", "Attempts", "Pauses", "Breaker opens", "Coming back", "Load then", "Brown-out",
        "Queue",
    } do
        lu.assertStrContains((text:gsub("%s+", " ")), piece)
    end
    for line in text:gmatch "[^\n]+" do lu.assertTrue(#line <= 100, line) end
end

function TestExplain.test_the_same_seed_gives_the_same_text()
    local about = { seed = 7, service = weir.sim.exponential(0.01) }
    lu.assertEquals(tostring(weir.explain({}, about)), tostring(weir.explain({}, about)))
    about.seed = 8
    lu.assertNotEquals(tostring(weir.explain({}, about)), tostring(weir.explain({}, { seed = 7 })))
end

-- ---- what it is given -------------------------------------------------------------------------------------

function TestExplain.test_the_operators_own_functions_are_run()
    local seen = {}
    local figures = weir.explain {
        retry = function(failure)
            seen[failure.sqlstate or ""] = true
            if failure.sqlstate == "40001" and failure.attempt < 3 then return 0.25 end
        end,
    }
    lu.assertTrue(seen["40001"] and seen["53200"])
    lu.assertEquals(figures.attempts.read.serialization, { least = 3, most = 3 })
    lu.assertEquals(figures.attempts.read.lost, { least = 1, most = 1 })
    lu.assertAlmostEquals(figures.pauses[1].most, 0.25, 1e-6)
end

function TestExplain.test_a_function_may_make_the_policy()
    local made = 0
    local figures = weir.explain(function()
        made = made + 1
        return { timeout = 4 }
    end)
    lu.assertTrue(made > 10) -- once for each engine
    lu.assertEquals(figures.timeout, 4)
end

function TestExplain.test_users_calls_are_looked_at_unless_another_client_is_named()
    local policy = dofile "examples/policies/retries.lua"
    lu.assertEquals(weir.explain(policy).client, "anon")
    lu.assertEquals(weir.explain(policy, { client = "service" }).pool, 4)
end

function TestExplain.test_nothing_reaches_out_into_the_real_world()
    local area, called = os.tmpname(), false
    os.remove(area)
    weir.explain {
        area = area,
        health = { interval = 1, checks = { redis = function() called = true end } },
    }
    lu.assertFalse(file_exists(area))
    lu.assertFalse(called)
end

function TestExplain.test_the_policy_is_left_as_it_was()
    local policy = { timeout = 5, backends = {}, health = { interval = 3 } }
    weir.explain(policy)
    lu.assertEquals(policy, { timeout = 5, backends = {}, health = { interval = 3 } })
end

function TestExplain.test_the_dice_of_the_script_are_not_always_the_same_afterwards()
    local thrown = {}
    for i = 1, 2 do
        math.randomseed(i)
        weir.explain {}
        thrown[i] = math.random()
    end
    lu.assertNotEquals(thrown[1], thrown[2])
end

-- ---- where it may be called -------------------------------------------------------------------------------

function TestExplain.test_it_may_be_called_in_a_task_and_others_stand_still_meanwhile()
    local ticks, before = 0, nil
    local ticker = weir.spawn(function()
        for _ = 1, 5 do
            weir.sleep(0.001)
            ticks = ticks + 1
        end
    end)
    local task = weir.spawn(function()
        before = ticks
        local figures = weir.explain {}
        return figures.pool, ticks
    end)
    local pool, after = task:join()
    lu.assertEquals(pool, 10)
    lu.assertEquals(after, before)
    ticker:join()
    lu.assertEquals(ticks, 5)
end

function TestExplain.test_misuse_is_a_sentence_at_the_callers_line()
    local cases = {
        { "the policy is a number; it must be the table that weir.open takes", 3 },
        { "timout is not a known option; did you mean timeout?", { timout = 3 } },
        { "timeout is -1; it must be more than 0", { timeout = -1 } },
        { "the function that makes the policy returned a nil", function() end },
        { "what surrounds the policy is a number; it must be a table", {}, 3 },
        { "'rates' is nothing that surrounds a policy; there is rate, service", {}, { rates = 3 } },
        { "rate is 0; it must be a number from 0.1 to 100000", {}, { rate = 0 } },
        { "workers is 1.5; it must be a whole number from 1 to 100000", {}, { workers = 1.5 } },
        { "engines is a string; it must be a whole number", {}, { engines = "2" } },
        { "service is a string; it must be a number of seconds or a distribution", {}, { service = "1 s" } },
        { "service.kind is 'slow'; it must be one of", {}, { service = { kind = "slow" } } },
        { "service is 0 on average; it must be more than 0", {}, { service = 0 } },
        { "client is 'web'; the policy has service", {}, { client = "web" } },
    }
    for _, case in ipairs(cases) do
        local ok, err = pcall(function() return (weir.explain(case[2], case[3])) end)
        lu.assertFalse(ok, case[1])
        lu.assertStrContains(err, "test_explain.lua:")
        lu.assertStrContains(err, "weir: explain: " .. case[1])
    end
end

function TestExplain.test_it_is_misuse_inside_a_simulation()
    for _, name in ipairs { "explain", "lint" } do
        local ok, err
        weir.sim({}):run(function() ok, err = pcall(weir[name], {}) end)
        lu.assertFalse(ok)
        lu.assertStrContains(err, name .. ": it runs simulations of its own and cannot be called inside one")
    end
end

os.exit(lu.LuaUnit.run(), true)
