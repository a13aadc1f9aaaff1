-- The operator's hooks: what they see, what they may answer, and what happens when they misbehave.

local core = require "weir.core"
local lu = require "luaunit"
local weir = require "weir"
local fixture = require "fixture"

-- A statement that fails in a way that is safe to repeat.
local transient = "select transient()"

local function define_transient()
    assert(fixture.server():sql [[
        create or replace function transient() returns int language plpgsql as
        $$ begin raise exception 'try again' using errcode = '40001'; end $$;
        grant execute on function transient() to public;
    ]])
end

TestRetry = {}

function TestRetry.setUp()
    define_transient()
end

-- Runs the failing statement under a retry policy; the error it ends with, and the engine's events.
local function run_under(retry, more)
    local options = { retry = retry, policy_slice = 0.005 }
    for key, value in pairs(more or {}) do options[key] = value end
    local db = fixture.open(options)
    local rows, err = db:service():query("GET /x", transient)
    lu.assertNil(rows)
    local events, stats = db:events(), db:stats()
    lu.assertEquals(fixture.leftovers(db), "")
    db:close()
    return err, events, stats
end

local function faults(events)
    local found = {}
    for _, event in ipairs(events) do
        if event.kind:find("policy", 1, true) then found[#found + 1] = event.text end
    end
    return table.concat(found, "\n")
end

function TestRetry.test_sees_the_failure_and_the_call()
    local seen, call_seen
    run_under(function(failure, call)
        seen, call_seen = failure, { client = call.client, context = call.context, readonly = call.readonly }
    end)
    lu.assertTrue(seen.safe)
    lu.assertEquals({ seen.class, seen.sqlstate, seen.code, seen.attempt, seen.client, seen.backend },
        { "safe", "40001", "server_error", 1, "service", "primary" })
    lu.assertEquals(seen.message, "try again")
    lu.assertEquals(seen.context, "GET /x")
    lu.assertTrue(seen.remaining > 0 and seen.remaining <= 10)
    lu.assertTrue(seen.elapsed >= 0)
    lu.assertTrue(seen.budget > 0)
    lu.assertIsFalse(seen.idempotent)
    lu.assertEquals(call_seen, { client = "service", context = "GET /x", readonly = false })
end

function TestRetry.test_a_delay_retries_and_nil_or_false_gives_up()
    lu.assertEquals(run_under(function(failure) return failure.attempt <= 2 and 0 end).attempts, 3)
    lu.assertEquals(run_under(function() return nil end).attempts, 1)
    lu.assertEquals(run_under(function() return false end).attempts, 1)
end

function TestRetry.test_backoff_is_drawn_once_and_inside_its_bounds()
    local first, second
    run_under(function(failure)
        first, second = failure:backoff(), failure:backoff()
    end, { backoff = { base = 0.01, cap = 0.02 } })
    lu.assertEquals(first, second)
    lu.assertTrue(first >= 0 and first <= 0.01)
end

function TestRetry.test_a_failure_may_be_kept()
    local kept = {}
    run_under(function(failure)
        kept[#kept + 1] = failure
        return failure.attempt < 3 and 0
    end)
    lu.assertEquals({ kept[1].attempt, kept[2].attempt, kept[3].attempt }, { 1, 2, 3 })
end

local function forever()
    while true do end
end

-- Each misbehaves in its own way; the built-in policy (2 retries) then answers, and the fault is told.
local misbehaviours = {
    { "raises", function() error("no idea") end, "no idea" },
    { "raises a table", function() error({}) end, "raised a table" },
    { "raises nil", function() error() end, "raised a nil" },
    { "loops", forever, "time slice" },
    { "loops inside pcall", function() while true do pcall(forever) end end, "time slice" },
    { "loops in a coroutine", function() coroutine.wrap(forever)() end, "time slice" },
    { "loops in coroutines under pcall", function()
        while true do pcall(coroutine.wrap(function() pcall(forever) end)) end
    end, "time slice" },
    { "yields", function() coroutine.yield() end, "yield" },
    { "sleeps", function() weir.sleep(1) end, "a policy must not wait" },
    { "returns a string", function() return "soon" end, "returned a string" },
    { "returns true", function() return true end, "returned a boolean" },
    { "returns a negative number", function() return -1 end, "returned -1" },
    { "returns not a number", function() return 0 / 0 end, "nan" },
    { "returns infinity", function() return math.huge end, "returned inf" },
    {
        "overflows the stack", function() local function f() return 1 + f() end return f() end,
        "policy retry failed",
    },
}

function TestRetry.test_whatever_it_does_the_built_in_policy_answers_and_the_fault_is_told()
    for _, case in ipairs(misbehaviours) do
        local name, policy, told = case[1], case[2], case[3]
        local started = weir.now()
        local err, events = run_under(policy, { retries = 2 })
        lu.assertEquals(err.attempts, 3, name)
        lu.assertStrContains(faults(events), told, false, false)
        lu.assertTrue(weir.now() - started < 3, name)
    end
end

function TestRetry.test_a_policy_cannot_call_the_database()
    local db, told
    db = fixture.open {
        retry = function()
            local ok, err = pcall(function() return db:service():query("GET", "select 1") end)
            told = not ok and err
        end,
    }
    lu.assertNil((db:service():query("GET", transient)))
    lu.assertStrContains(told, "a policy must not wait or call the database")
    lu.assertEquals(fixture.leftovers(db), "")
    db:close()
end

function TestRetry.test_objects_that_die_inside_a_policy_do_no_harm()
    local db, policy_ran
    db = fixture.open {
        retry = function(failure)
            for _ = 1, 3 do collectgarbage() end
            policy_ran = true
            return failure.attempt < 3 and 0
        end,
    }
    local running = db:service()
    for _ = 1, 5 do
        fixture.open() -- nobody holds these engines
        local request = db.core:request { client = "service" }
        core.query(db.core, request, 0, "GET", "select pg_sleep(0.01)") -- nor these calls
        lu.assertNil((running:query("GET", transient)))
    end
    lu.assertTrue(policy_ran)
    collectgarbage()
    collectgarbage()
    lu.assertEquals(fixture.leftovers(db), "")
    db:close()
end

function TestRetry.test_after_repeated_faults_the_policy_is_switched_off()
    local runs = 0
    local db = fixture.open {
        policy_faults = 3,
        retries = 0,
        retry = function()
            runs = runs + 1
            error("always")
        end,
    }
    for _ = 1, 10 do db:service():query("GET", transient) end
    lu.assertEquals(runs, 3)
    lu.assertEquals(db:health().status, "degraded")
    db:close()
end

function TestRetry.test_the_rest_of_the_program_is_not_bound_by_the_slice()
    run_under(forever)
    local stop = weir.now() + 0.02
    while weir.now() < stop do end
    local step = coroutine.wrap(function()
        local sum = 0
        for i = 1, 1e6 do sum = sum + i end
        return sum
    end)
    lu.assertEquals(step(), 500000500000)
end

TestRoute = {}

local function two_backends(route)
    local url = fixture.server():url()
    return fixture.open { backends = { primary = url, replica = url }, route = route }
end

function TestRoute.test_picks_the_backend_by_what_the_call_declares()
    local db = two_backends(function(call) return call.readonly and "replica" or "primary" end)
    local function pool_of(handle)
        return select(2, handle:query("GET", "select 1/0")).pool
    end
    lu.assertEquals(pool_of(db:service()), "service@primary")
    lu.assertEquals(pool_of(db:service():with { readonly = true }), "service@replica")
    lu.assertEquals(pool_of(db:service():with { readonly = true, backend = "primary" }), "service@primary")
    db:close()
end

function TestRoute.test_an_unknown_backend_or_nonsense_falls_back_to_the_first_and_is_told()
    for _, answer in ipairs { "nowhere", 5, "", ("x"):rep(100), false } do
        local db = two_backends(function() return answer end)
        local _, err = db:service():query("GET", "select 1/0")
        lu.assertEquals(err.pool, "service@primary")
        lu.assertNotEquals(faults(db:events()), "")
        db:close()
    end
end

TestLabel = {}

local function labels_of(db)
    local names = {}
    for _, pool in ipairs(db:stats().pools) do
        for _, label in ipairs(pool.labels) do names[label.label] = true end
    end
    return names
end

function TestLabel.test_bounds_what_the_metrics_are_split_by()
    local db = fixture.open { label = function(context) return (context:gsub("%?.*", "")) end }
    assert(db:service():query("GET /contacts?id=1", "select 1"))
    assert(db:service():query("GET /contacts?id=2", "select 1"))
    lu.assertEquals(labels_of(db), { ["GET /contacts"] = true })
    db:close()
end

function TestLabel.test_nonsense_leaves_the_call_alone_and_is_told()
    local nonsense = { function() return 5 end, function() error("x") end, function() return "" end, forever }
    for _, policy in ipairs(nonsense) do
        local db = fixture.open { label = policy, policy_slice = 0.002 }
        assert(db:service():query("GET /contacts", "select 1"))
        lu.assertNotEquals(faults(db:events()), "")
        db:close()
    end
end

TestHealth = {}

function TestHealth.test_the_document_has_the_agreed_shape()
    local db = fixture.open()
    assert(db:service():query("GET", "select 1"))
    local health = db:health()
    lu.assertEquals(health.status, "healthy")
    lu.assertEquals(health.pool.totalRequests, 1)
    lu.assertEquals(health.pool.successRate, "100.00")
    lu.assertEquals(health.pool.circuitState, "CLOSED")
    lu.assertEquals(health.pool.averageResponseTime % 1, 0)
    lu.assertEquals(weir.json.decode(db:health_json()).status, "healthy")
    db:close()
end

-- Turns the loop until the named check has a verdict; its status.
local function status_of(db, name)
    local patience = weir.now() + 3
    while weir.now() < patience do
        local check = db:health().checks[name]
        if check and check.status ~= "unknown" and check.status ~= "pending" then return check.status end
        weir.sleep(0.01)
    end
    return "never told"
end

function TestHealth.test_checks_of_the_programs_own_run_as_tasks_and_are_told()
    local db = fixture.open {
        health = {
            interval = 0.05,
            checks = {
                good = function()
                    weir.sleep(0.005)
                    return true
                end,
                bad = function() return nil, "no answer" end,
                worse = { check = function() error("broken") end },
            },
        },
    }
    lu.assertEquals(status_of(db, "good"), "healthy")
    lu.assertEquals(status_of(db, "bad"), "unhealthy")
    lu.assertEquals(status_of(db, "worse"), "unhealthy")
    lu.assertEquals(db:health().status, "degraded")
    db:close()
end

function TestHealth.test_a_critical_check_that_fails_is_unhealthy()
    local db = fixture.open {
        health = {
            interval = 0.05,
            checks = { vault = { critical = true, check = function() return false end } },
        },
    }
    lu.assertEquals(status_of(db, "vault"), "unhealthy")
    lu.assertEquals(db:health().status, "unhealthy")
    db:close()
end

function TestHealth.test_an_operator_forces_and_pauses_pools()
    local db = fixture.open()
    local service = db:service()
    db:breaker("service@primary"):force("open")
    lu.assertEquals(select(2, service:query("GET", "select 1")).code, "breaker_open")
    lu.assertEquals(db:breaker("service@primary"):state(), "FORCED_OPEN")
    lu.assertEquals(db:breaker("anon@primary"):state(), "CLOSED")
    db:force(nil, nil)
    lu.assertEquals(#assert(service:query("GET", "select 1")), 1)
    db:pause("service@primary")
    lu.assertEquals(select(2, service:query("GET", "select 1")).code, "paused")
    db:pause("service@primary", false)
    lu.assertEquals(#assert(service:query("GET", "select 1")), 1)
    db:close()
end

function TestHealth.test_finished_calls_and_events_can_be_read()
    local db = fixture.open()
    assert(db:service():query("GET /one", "select 1"))
    assert(db:service():query("GET /two", "select 1"))
    local calls = db:calls(1)
    lu.assertEquals(#calls, 1)
    lu.assertEquals(calls[1].context, "GET /two")
    local events = db:events()
    lu.assertEquals(db:events(events[#events].sequence), {})
    db:close()
end

function TestHealth.test_backoff_has_the_engines_settings()
    local db = fixture.open { backoff = { kind = "constant", base = 0.25, cap = 1 } }
    lu.assertEquals(db:backoff():next(), 0.25)
    db:close()
end

os.exit(lu.LuaUnit.run(), true)
