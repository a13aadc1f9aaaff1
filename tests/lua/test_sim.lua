-- weir.sim: virtual time, simulated servers from Lua, and that the real world notices nothing of it.

local core = require "weir.core"
local lu = require "luaunit"
local weir = require "weir"

-- As weir.open takes it; on the simulated server "primary".
local function options_of(more)
    local options = {
        backends = { primary = "host=nowhere" },
        clients = {
            service = { bypass_rls = true, max = 5 },
            anon = { role = "web_anon", user = "authenticator", max = 5 },
        },
        health = { interval = 0 },
    }
    for key, value in pairs(more or {}) do options[key] = value end
    return options
end

-- What fn(db, sim) returns, run in a simulation whose times can be foretold: 10 ms a statement, 1 ms each
-- way.
local function in_sim(fn, more, seed)
    local sim = weir.sim { seed = seed or 5 }
    sim:server("primary"):set { service = 0.01, commit = 0, connect = 0, network = 0.001 }
    return sim:run(function()
        local db = assert(weir.open(options_of(more)))
        local result = fn(db, sim)
        db:close()
        return result
    end), sim
end

local function near(seen, expected)
    lu.assertAlmostEquals(seen, expected, 1e-6)
end

-- The message of the error that fn raises.
local function raised(fn, ...)
    local ok, err = pcall(fn, ...)
    lu.assertFalse(ok)
    return tostring(err)
end

-- ---- time -------------------------------------------------------------------------------------------------

TestTime = {}

function TestTime.test_a_run_gives_what_its_function_returned()
    local sim = weir.sim {}
    local function give(...) return select("#", ...), nil, ... end
    lu.assertEquals({ sim:run(give, 1, nil) }, { 2, nil, 1, nil })
    lu.assertEquals(select("#", sim:run(function() return nil, nil end)), 2)
    lu.assertEquals(select("#", sim:run(function() end)), 0)
end

function TestTime.test_hours_pass_in_no_time()
    local sim = weir.sim {}
    sim:run(function()
        lu.assertEquals(weir.now(), 0)
        weir.sleep(36000)
        lu.assertEquals(weir.now(), 36000)
        lu.assertEquals(sim.clock(), 36000)
    end)
    lu.assertEquals(sim.clock(), 36000)
end

function TestTime.test_the_clock_goes_on_in_the_next_run()
    local sim = weir.sim {}
    sim:run(function() weir.sleep(5) end)
    sim:run(function()
        lu.assertEquals(weir.now(), 5)
        weir.sleep(1)
    end)
    lu.assertEquals(sim.clock(), 6)
end

function TestTime.test_everything_happens_in_order_of_time_and_then_of_planning()
    local sim, seen = weir.sim {}, {}
    local function note(name)
        return function() seen[#seen + 1] = ("%s@%g"):format(name, sim.clock()) end
    end
    sim:at(2, note "late")
    sim:at(1, note "a")
    sim:at(1, note "b")
    sim:run(function()
        note "main" ()
        local task = weir.spawn(function()
            weir.sleep(0.5)
            note "task" ()
            sim:at(1, note "c")
            sim:at(0.5, note "now")
        end)
        weir.sleep(1)
        note "main" ()
        task:join()
    end)
    lu.assertEquals(table.concat(seen, " "), "main@0 task@0.5 now@0.5 a@1 b@1 main@1 c@1 late@2")
end

function TestTime.test_moments_are_met_exactly()
    local sim = weir.sim {}
    for i = 1, 500 do
        sim:at(i * 0.1, function() near(sim.clock(), i * 0.1) end)
    end
    sim:run(function() end)
    near(sim.clock(), 50)
end

function TestTime.test_a_run_waits_for_all_tasks_it_began()
    local sim, ended = weir.sim {}, 0
    sim:run(function()
        weir.spawn(function()
            weir.sleep(10)
            weir.spawn(function()
                weir.sleep(10)
                ended = sim.clock()
            end)
        end)
    end)
    lu.assertEquals(ended, 20)
end

function TestTime.test_tasks_may_be_gathered_and_cancelled()
    weir.sim {}:run(function()
        local function slow() weir.sleep(3) return "a" end
        local function quick() weir.sleep(1) return "b" end
        local results = weir.gather(slow, quick)
        lu.assertEquals({ results[1][1], results[2][1], weir.now() }, { "a", "b", 3 })
        local task = weir.spawn(function() weir.sleep(1000) end)
        weir.sleep(1)
        task:cancel()
        local ok, err = task:wait()
        lu.assertFalse(ok)
        lu.assertEquals(err.code, "cancelled")
        lu.assertEquals(weir.now(), 4)
    end)
end

function TestTime.test_what_is_no_moment_is_refused_at_its_line()
    local sim = weir.sim {}
    sim:run(function() weir.sleep(2) end)
    for _, case in ipairs {
        { { 1, print }, "at(1): that moment has passed, it is 2 s" },
        { { -1, print }, "at(-1): it must be a number of seconds since the start, 0 or more" },
        { { 0 / 0, print }, "it must be a number of seconds since the start" },
        { { "3", print }, "at(3): it must be a number of seconds since the start, 0 or more" },
        { { 3, 4 }, "at: the second argument is a number; it must be a function" },
    } do
        local message = raised(function() sim:at(case[1][1], case[1][2]) end)
        lu.assertStrContains(message, case[2])
        lu.assertStrMatches(message, ".*test_sim%.lua:%d+: weir: .*")
    end
end

-- ---- the database -----------------------------------------------------------------------------------------

TestDatabase = {}

function TestDatabase.test_calls_take_the_time_of_the_server()
    in_sim(function(db, sim)
        lu.assertEquals(assert(db:service():query("GET /x", "select 1")), { { ["?column?"] = 1 } })
        near(sim.clock(), 0.014) -- there and back for the connect, there and back for the statement
        lu.assertEquals(db:service():transaction("POST /x", function(tx)
            assert(tx:query("insert into t values ($1)", 7))
            return "done"
        end), "done")
        lu.assertEquals({ sim:executions(7), sim:executions "7", sim:executions(7.0) }, { 1, 1, 1 })
        lu.assertEquals(sim:executions(8), 0)
        local stats = sim:server("primary"):stats()
        lu.assertEquals({ stats.statements, stats.writes, stats.sessions, stats.connects }, { 2, 1, 1, 1 })
        near(stats.busy, 0.02)
    end)
end

function TestDatabase.test_a_queue_forms_when_workers_are_few()
    in_sim(function(db, sim)
        sim:server("primary"):set { workers = 1 }
        local calls = {}
        for i = 1, 4 do calls[i] = function() assert(db:service():query("GET /x", "select 1")) end end
        weir.gather(calls)
        near(sim.clock(), 0.002 + 0.002 + 4 * 0.01)
        lu.assertEquals(sim:server("primary"):stats().waiting_max, 3)
    end)
end

function TestDatabase.test_rows_have_the_types_of_their_values()
    in_sim(function(db, sim)
        sim:server("primary"):on("contacts", {
            rows = {
                { id = 1, name = "ada", rate = 0.5, vip = true },
                { id = 2, rate = 2, name = weir.null },
            },
        })
        local rows = assert(db:service():query("GET /contacts", "select * from contacts"))
        lu.assertEquals(rows, { { id = 1, name = "ada", rate = 0.5, vip = true }, { id = 2, rate = 2 } })
        sim:server("primary"):on("ordered", { columns = { "b", "a" }, rows = { { a = 1, b = 2 } } })
        lu.assertEquals(assert(db:service():query("GET /x", "select ordered")), { { a = 1, b = 2 } })
        sim:server("primary"):on("large", { rows = { { big = 1e15, huge = 1e300, nan = 0 / 0 } } })
        local large = assert(db:service():query("GET /x", "select large"))[1]
        lu.assertEquals({ large.big, large.huge, large.nan ~= large.nan }, { 1e15, 1e300, true })
        sim:server("primary"):on("nothing", { rows = {} })
        lu.assertEquals(#assert(db:service():query("GET /x", "select nothing")), 0)
    end)
end

function TestDatabase.test_a_rule_may_fail_take_time_or_have_no_effect()
    in_sim(function(db, sim)
        sim:server("primary")
            :on("taken", { error = "23505", message = "there is one already" })
            :on("slow", { service = weir.sim.constant(2) })
            :on("into log", { writes = false })
        local rows, err = db:service():query("POST /x", "insert into taken values ($1)", 1)
        lu.assertNil(rows)
        lu.assertEquals({ err.code, err.sqlstate, err.message, err.outcome },
            { "server_error", "23505", "there is one already", "rolled_back" })
        local before = sim.clock()
        assert(db:service():query("GET /slow", "select SLOW"))
        near(sim.clock() - before, 2.002)
        assert(db:service():query("POST /log", "insert into log values ($1)", 5))
        lu.assertEquals(sim:executions(5), 0)
    end)
end

function TestDatabase.test_a_function_is_asked_at_the_moment_of_execution()
    in_sim(function(db, sim)
        local seen = {}
        sim:server("primary"):on("orders", function(asked)
            seen[#seen + 1] = asked
            if asked.params[1] == "1" then return { { id = 1 }, { id = 2 } } end
            if asked.params[1] == "2" then return 3 end
            if asked.params[1] == "3" then return nil, "40001", "again" end
            if asked.params[1] == "4" then return { { a = 1, b = 2 } }, { "b", "a" } end
        end)
        local anon = db:anon { sub = "ada" }
        local rows = assert(anon:query("GET /orders", "select * from orders where a = $1", 1))
        lu.assertEquals(rows, { { id = 1 }, { id = 2 } })
        local first = seen[1]
        near(first.now, 0.013)
        lu.assertEquals({ first.sql, first.claims.sub, first.role, first.user },
            { "select * from orders where a = $1", "ada", "web_anon", "authenticator" })
        lu.assertEquals({ first.in_transaction, first.params.n }, { false, 1 })
        lu.assertEquals(first.seen_until, first.now)
        db:service():transaction("PUT /orders", function(tx)
            local result = assert(tx:query("update orders set a = $1 where b = $2", 2, nil))
            lu.assertEquals(result.affected_rows, 3)
        end)
        lu.assertEquals({ seen[2].in_transaction, seen[2].params.n, seen[2].params[2] }, { true, 2, nil })
        lu.assertNil(seen[2].claims)
        local service, sql = db:service():with { timeout = 0.05 }, "select orders where a = $1"
        local none, err = service:query("GET /orders", sql, 3)
        lu.assertNil(none)
        lu.assertEquals({ err.sqlstate, err.message }, { "40001", "again" })
        lu.assertEquals(assert(service:query("GET /orders", sql, 4)), { { a = 1, b = 2 } })
        lu.assertEquals(assert(service:query("GET /orders", sql, 9)), { { ["?column?"] = 1 } })
    end, { retries = 0 })
end

function TestDatabase.test_a_rule_may_begin_faults_and_make_rules_while_it_is_traced()
    local lines = 0
    in_sim(function(db, sim)
        sim:trace(function() lines = lines + 1 end)
        sim:server("primary"):on("insert", function()
            sim:server("primary"):on("select 5", { rows = { { five = 5 } } })
            sim:server("primary"):fault("crash", { after = 1 })
            sim:note "the server falls"
        end)
        local rows, err = db:service():query("POST /x", "insert into t values ($1)", 1)
        lu.assertNil(rows)
        lu.assertEquals({ err.code, err.outcome }, { "connection_lost", "unknown" })
        lu.assertEquals(sim:executions(1), 0)
        weir.sleep(2)
        lu.assertEquals(assert(db:service():query("GET /x", "select 5")), { { five = 5 } })
        sim:trace(nil)
    end)
    lu.assertTrue(lines > 10)
end

function TestDatabase.test_faults_begin_and_end_by_their_names()
    local kinds = {
        crash = {}, restart = { after = 1, recovery = 1 }, refuse = { sqlstate = "-" }, slow = { factor = 3 },
        freeze = {}, vanish = { forgotten = true }, latency = { seconds = 1 }, role_lost = {}, rotate = {},
        reset = { phase = "at_commit", rate = 0.5, count = 2 },
        errors = { sqlstate = "40001", text = "insert" },
    }
    for kind, options in pairs(kinds) do
        in_sim(function(db, sim)
            assert(db:service():query("GET /x", "select 1"))
            options.lasts = 2
            local server = sim:server "primary"
            lu.assertIs(server:fault(kind, options), server)
            db:service():with { timeout = 1 }:query("GET /x", "select 1")
            lu.assertIs(server:heal(kind), server)
            weir.sleep(10)
            local rows, err = db:service():query("GET /x", "select 1")
            lu.assertNotNil(rows, kind .. ": " .. tostring(err))
        end, { breaker = { consecutive = 1000, min_calls = 1000 }, cancel_wait = 1 })
    end
end

function TestDatabase.test_a_replica_is_promoted()
    in_sim(function(db, sim)
        sim:server("copy"):set { follows = "primary", lag = 0.1 }
        sim:server("primary"):fault("failover", { to = "copy", after = 0.3 })
        assert(db:service():query("POST /x", "insert into t values ($1)", 1))
        lu.assertEquals(sim:executions(1), 1)
        lu.assertEquals(sim:server("copy"):stats().writes, 1)
    end, { retries = 20, backoff = { kind = "constant", base = 0.1 } })
end

function TestDatabase.test_what_cannot_be_is_refused_at_its_line()
    local sim = weir.sim {}
    local server = sim:server "primary"
    for _, case in ipairs {
        {
            function() weir.sim { seed = 1.5 } end,
            "sim: seed is 1.5; it must be a whole number from 0 to 2^53",
        },
        { function() weir.sim { sead = 1 } end, "sim: 'sead' is no option; there is seed" },
        { function() weir.sim(7) end, "sim: the options are a number; they must be a table" },
        { function() sim:server(7) end, "server: the name is a number; it must be a string" },
        { function() sim:server "a b" end, "a server cannot be named 'a b'; a name is 1 to 31 letters" },
        { function() server:set { workers = 0 } end, "workers is 0" },
        { function() server:set { worker = 1 } end, "worker is not a known option; did you mean workers?" },
        { function() server:set { service = -1 } end, "service" },
        { function() server:set(5) end, "set: the options are a number; they must be a table" },
        { function() server:set { queue = "lifo" } end, "queue is 'lifo'" },
        { function() server:set { follows = "primary" } end, "follows names the server itself" },
        {
            function() server:on(1, {}) end,
            "on: the part of the statements meant is a number; it must be a string",
        },
        {
            function() server:on("", {}) end,
            "text is empty; a rule needs a part of the statements it is for",
        },
        { function() server:on("x", { eror = "40001" }) end, "eror is not a known option" },
        {
            function() server:on("x", { error = "4" }) end,
            "sqlstate is not five characters long, like 40001",
        },
        {
            function() server:on("x", { rows = { 1 } }) end,
            "rows must be a list of tables with columns by name",
        },
        {
            function() server:on("x", { rows = { { a = {} } } }) end,
            "a row holds a value that is no string (without zero bytes), number",
        },
        { function() server:on("x", { answer = 5 }) end, "answer must be a function" },
        {
            function() server:fault "flood" end,
            "there is no fault 'flood'; there are crash, restart, refuse",
        },
        { function() server:fault(5) end, "fault: the kind is a number; it must be a string" },
        { function() server:fault("slow", { factor = 0 }) end, "factor is 0; it must be above 0" },
        { function() server:fault("errors") end, "sqlstate must be five characters, like 40001" },
        { function() server:fault("reset", { phase = "noon" }) end, "phase is 'noon'" },
        { function() server:heal "flood" end, "there is no fault 'flood'" },
        { function() sim:run(5) end, "run: the argument is a number; it must be a function" },
        { function() sim:stall "x" end, "stall(x): it must be a number of seconds, 0 or more" },
        { function() sim:step_wall_clock {} end, "it must be a number of seconds" },
        { function() sim:note(5) end, "note: the text is a number; it must be a string" },
        { function() sim:trace(5) end, "trace: the argument is a number; it must be a function" },
        { function() weir.sim.exponential "x" end, "exponential: the mean is a string; it must be a number" },
    } do
        local message = raised(case[1])
        lu.assertStrContains(message, case[2])
        lu.assertStrMatches(message, ".*test_sim%.lua:%d+: weir: .*")
    end
end

-- ---- guards and policies ---------------------------------------------------------------------------------

TestGuards = {}

function TestGuards.test_a_breaker_opens_and_recovers_in_virtual_time()
    weir.sim {}:run(function()
        local breaker = weir.breaker { consecutive = 2, open_for = 30, half_open = { permits = 1 } }
        local guard = weir.guard { breaker = breaker }
        local up = false
        local function work() if up then return "up" end return nil, "down" end
        guard:run("x", work)
        guard:run("x", work)
        lu.assertEquals(breaker:state(), "OPEN")
        weir.sleep(29)
        local _, err = guard:run("x", work)
        lu.assertEquals(err.code, "breaker_open")
        near(err.retry_after, 1)
        up = true
        weir.sleep(2)
        lu.assertEquals(guard:run("x", work), "up")
        lu.assertEquals(breaker:state(), "CLOSED")
    end)
end

function TestGuards.test_the_clock_of_a_simulation_may_be_given_to_a_breaker()
    local sim = weir.sim {}
    local breaker = weir.breaker { consecutive = 1, open_for = 5, clock = sim.clock }
    breaker:settle(breaker:admit(), "failure", 0)
    lu.assertEquals(breaker:state(), "OPEN")
    sim:run(function() weir.sleep(6) end)
    lu.assertNotNil(breaker:admit())
end

function TestGuards.test_a_timeout_ends_what_waits_too_long()
    in_sim(function(db, sim)
        sim:server("primary"):set { service = 60 }
        local guard = weir.guard { timeout = 3 }
        local value, err = guard:run("GET /x", function() return db:service():query("GET /x", "select 1") end)
        lu.assertNil(value)
        lu.assertEquals(err.code, "timeout")
        near(sim.clock(), 3)
        weir.sleep(1)
        lu.assertEquals(sim:server("primary"):stats().running, 0)
    end)
end

function TestGuards.test_who_waits_for_a_limit_waits_in_line()
    local sim = weir.sim {}
    local order = {}
    sim:run(function()
        local limit = weir.limit { max = 1, queue = 10 }
        for i = 1, 4 do
            weir.spawn(function()
                assert(limit:acquire(100))
                weir.sleep(1)
                order[#order + 1] = ("%d@%g"):format(i, sim.clock())
                limit:release()
            end)
        end
        weir.sleep(0.5)
        lu.assertEquals({ limit:used(), limit:waiting() }, { 1, 3 })
        local got, err = limit:acquire(1)
        lu.assertNil(got)
        lu.assertEquals(err.code, "acquire_timeout")
        lu.assertEquals(sim.clock(), 1.5)
    end)
    lu.assertEquals(table.concat(order, " "), "1@1 2@2 3@3 4@4")
end

function TestGuards.test_rates_and_retries_wait_in_virtual_time()
    local sim = weir.sim {}
    sim:run(function()
        local rate = weir.rate { per_second = 10, burst = 1 }
        for _ = 1, 11 do rate:wait() end
        near(sim.clock(), 1)
        local tries = 0
        local guard = weir.guard { retry = { retries = 3, base = 10, cap = 10, kind = "constant" } }
        guard:run("x", function()
            tries = tries + 1
            return nil, "down"
        end)
        lu.assertEquals(tries, 4)
        near(sim.clock(), 31)
    end)
end

TestPolicies = {}

function TestPolicies.test_an_engine_is_as_its_policy_says()
    in_sim(function(db, sim)
        sim:server("primary"):fault("errors", { sqlstate = "40001", count = 3 })
        assert(db:service():query("POST /x", "insert into t values ($1)", 1))
        near(sim.clock(), 0.002 + 4 * 0.012 + 0.5 + 1 + 1.5)
        lu.assertEquals(sim:executions(1), 1)
    end, { retry = function(failure) return failure.safe and failure.attempt * 0.5 end, timeout = 60 })
end

-- Stopped by counting instructions, not by a clock: the same way each time.
function TestPolicies.test_one_that_loops_is_stopped_at_the_same_instruction_each_time()
    local hashes, rounds = {}, {}
    for run = 1, 2 do
        local count = 0
        local _, sim = in_sim(function(db, sim)
            sim:server("primary"):fault("errors", { sqlstate = "40001", count = 2 })
            assert(db:service():query("POST /x", "insert into t values ($1)", 1))
            local events = db:events()
            lu.assertStrContains(events[#events].text, "time slice")
        end, {
            retries = 5,
            retry = function()
                while true do count = count + 1 end
            end,
        })
        hashes[run], rounds[run] = sim:hash(), count
    end
    lu.assertEquals(hashes[1], hashes[2])
    lu.assertEquals(rounds[1], rounds[2])
    lu.assertTrue(rounds[1] > 100)
end

function TestPolicies.test_health_checks_run_in_virtual_time()
    local sim, moments = weir.sim {}, {}
    sim:run(function()
        local db = assert(weir.open(options_of {
            health = { interval = 10, checks = { mine = function()
                moments[#moments + 1] = sim.clock()
                return true
            end } },
        }))
        weir.sleep(45)
        db:close()
    end)
    lu.assertTrue(#moments >= 4 and #moments <= 6)
    lu.assertTrue(moments[#moments] <= 45)
end

function TestPolicies.test_each_check_has_its_own_time_and_is_cancelled_after_it()
    local sim, cancelled, stubborn, told = weir.sim {}, 0, 0, nil
    sim:run(function()
        local db = assert(weir.open(options_of {
            health = { interval = 10, checks = {
                patient = { timeout = 3, check = function()
                    weir.sleep(2)
                    return true
                end },
                hasty = { timeout = 1, check = function()
                    local ok, err = pcall(weir.sleep, 2)
                    if not ok and err.code == "cancelled" then cancelled = cancelled + 1 end
                    return true
                end },
                stubborn = { timeout = 1, check = function()
                    stubborn = stubborn + 1
                    for _ = 1, 8 do pcall(weir.sleep, 3) end
                end },
                silent = function() weir.sleep(9) end,
            } },
        }))
        weir.sleep(1.5)
        told = db:health().checks
        weir.sleep(7)
        told.silent = db:health().checks.silent
        weir.sleep(3.5)
        told.patient = db:health().checks.patient
        db:close()
    end)
    lu.assertEquals(told.hasty.status, "unhealthy")
    lu.assertEquals(told.hasty.message, "the check has not answered within 1 s")
    lu.assertEquals(told.silent.message, "the check has not answered within 5 s")
    lu.assertEquals(told.patient.status, "healthy")
    lu.assertEquals(cancelled, 2)
    lu.assertEquals(stubborn, 1)
end

function TestPolicies.test_the_engine_refuses_what_a_policy_must_not_do()
    local told
    in_sim(function(db, sim)
        sim:server("primary"):fault("errors", { sqlstate = "40001", count = 1 })
        assert(db:service():query("GET /x", "select 1"))
    end, {
        retry = function()
            told = raised(function() weir.sim {}:run(function() end) end)
            return 0
        end,
    })
    lu.assertStrContains(told, "a simulation is running already; one runs at a time")
end

-- ---- determinism ------------------------------------------------------------------------------------------

TestDeterminism = {}

local function course(seed)
    local sim, lines = weir.sim { seed = seed }, {}
    sim:trace(function(line) lines[#lines + 1] = line end)
    sim:at(3, function() sim:server("primary"):fault("crash", { after = 1, recovery = 0.5 }) end)
    sim:at(6, function()
        sim:server("primary"):fault("reset", { phase = "after_commit", rate = 0.5, lasts = 1 })
    end)
    sim:run(function()
        local db = assert(weir.open(options_of()))
        local stop = 8
        for worker = 1, 5 do
            weir.spawn(function()
                local n = 0
                while weir.now() < stop do
                    n = n + 1
                    db:service():transaction("POST /x", function(tx)
                        return assert(tx:query("insert into t values ($1)", worker * 1000 + n))
                    end)
                    weir.sleep(math.random() * 0.05)
                end
            end)
        end
        weir.sleep(stop + 10)
        sim:note "that was all"
        db:close()
    end)
    return sim:hash(), table.concat(lines, "\n"), #lines
end

function TestDeterminism.test_the_same_seed_writes_the_same_lines()
    local hash, text, count = course(11)
    local again, same = course(11)
    lu.assertEquals(again, hash)
    lu.assertTrue(same == text)
    lu.assertTrue(count > 1000)
    lu.assertStrMatches(hash, "%x+")
    lu.assertEquals(#hash, 16)
    lu.assertStrContains(text, "18.000000000 that was all")
    local other = course(12)
    lu.assertNotEquals(other, hash)
end

function TestDeterminism.test_a_trace_changes_nothing()
    local quiet = weir.sim { seed = 3 }
    local told = weir.sim { seed = 3 }
    told:trace(function() end)
    for _, sim in ipairs { quiet, told } do
        sim:run(function()
            local db = assert(weir.open(options_of()))
            for _ = 1, 10 do assert(db:service():query("GET /x", "select 1")) end
            db:close()
        end)
    end
    lu.assertEquals(told:hash(), quiet:hash())
end

function TestDeterminism.test_default_seed()
    weir.sim.default_seed(9)
    lu.assertEquals(weir.sim {}.seed, 9)
    lu.assertEquals(weir.sim { seed = 4 }.seed, 4)
    weir.sim.default_seed(1)
    lu.assertEquals(weir.sim().seed, 1)
end

function TestDeterminism.test_random_numbers_are_the_seeds_inside_and_the_programs_own_outside()
    local function draw(seed) return weir.sim { seed = seed }:run(function() return math.random(1e9) end) end
    math.randomseed(42)
    local first, before = draw(7), math.random(1e9)
    lu.assertEquals(draw(7), first)
    lu.assertNotEquals(draw(8), first)
    lu.assertNotEquals(math.random(1e9), before) -- not the same again after each run
end

-- ---- the real world --------------------------------------------------------------------------------------

TestRealWorld = {}

function TestRealWorld.test_real_tasks_stand_still_meanwhile_and_go_on_afterwards()
    local seen = {}
    local task = weir.spawn(function()
        for i = 1, 3 do
            seen[#seen + 1] = "real " .. i
            weir.sleep(0.001)
        end
    end)
    weir.sleep(0)
    weir.sim {}:run(function()
        weir.sleep(3600)
        seen[#seen + 1] = "virtual"
    end)
    task:join()
    lu.assertEquals(table.concat(seen, ", "), "real 1, virtual, real 2, real 3")
end

function TestRealWorld.test_a_real_task_may_run_a_simulation()
    local value = weir.spawn(function()
        weir.sleep(0.001)
        local hours = weir.sim {}:run(function()
            weir.sleep(7200)
            return weir.now() / 3600
        end)
        weir.sleep(0.001)
        return hours
    end):join()
    lu.assertEquals(value, 2)
end

function TestRealWorld.test_its_clock_is_its_own()
    local before = weir.now()
    weir.sim {}:run(function() weir.sleep(1e6) end)
    lu.assertTrue(weir.now() - before < 60)
end

function TestRealWorld.test_an_engine_belongs_to_the_world_it_was_opened_in()
    local sentence = "this engine was opened outside the simulation that runs, or inside one that has ended"
    local real = assert(weir.open(options_of()))
    local sim, kept = weir.sim {}, nil
    sim:run(function()
        lu.assertStrContains(raised(function() real:service():query("GET /x", "select 1") end), sentence)
        kept = assert(weir.open(options_of()))
        assert(kept:service():query("GET /x", "select 1"))
    end)
    lu.assertStrContains(raised(function() kept:service():query("GET /x", "select 1") end), sentence)
    weir.sim {}:run(function()
        lu.assertStrContains(raised(function() kept:service():query("GET /x", "select 1") end), sentence)
    end)
    sim:run(function() assert(kept:service():query("GET /x", "select 1")) end) -- back in its own
    kept:close()
    real:close()
end

function TestRealWorld.test_one_runs_at_a_time()
    local sim, other = weir.sim {}, weir.sim {}
    lu.assertNil(weir.sim.running())
    sim:run(function()
        lu.assertIs(weir.sim.running(), sim)
        for _, inner in ipairs { sim, other } do
            lu.assertStrContains(raised(function() inner:run(function() end) end),
                "run: a simulation is running already; one runs at a time")
        end
        other:at(1, function() end)
    end)
    lu.assertNil(weir.sim.running())
    other:run(function() weir.sleep(2) end)
end

function TestRealWorld.test_an_error_inside_leaves_everything_usable()
    local object = { mine = true }
    local sim = weir.sim {}
    local ok, err = pcall(sim.run, sim, function() error(object) end)
    lu.assertFalse(ok)
    lu.assertIs(err, object)
    lu.assertStrContains(raised(sim.run, sim, function() error("out of luck", 0) end), "out of luck")
    lu.assertEquals(sim:run(function() weir.sleep(1) return "still here" end), "still here")
    lu.assertEquals(weir.spawn(function() weir.sleep(0.001) return "here too" end):join(), "here too")
end

function TestRealWorld.test_tasks_left_behind_are_forgotten()
    local sim, woken = weir.sim {}, false
    lu.assertStrContains(raised(sim.run, sim, function()
        local db = assert(weir.open(options_of()))
        weir.spawn(function()
            weir.sleep(10)
            woken = true
        end)
        weir.spawn(function() db:service():query("GET /x", "select 1") end)
        weir.sleep(0.001)
        error("enough", 0)
    end), "enough")
    lu.assertEquals(sim:run(function() weir.sleep(100) return sim.clock() end), 100.001)
    lu.assertFalse(woken)
    collectgarbage()
    collectgarbage()
    weir.sleep(0)
end

function TestRealWorld.test_answers_that_wait_outside_are_not_heard_inside()
    local db = assert(weir.open(options_of { timeout = 0.005, connect_timeout = 0.005, retries = 0 }))
    local real = weir.spawn(function() return db:service():query("GET /x", "select 1") end)
    weir.sleep(0)
    local stop = os.clock() + 0.02
    while os.clock() < stop do end -- its deadline has passed, and nobody has been told
    weir.sim {}:run(function()
        local inner = assert(weir.open(options_of()))
        for _ = 1, 5 do assert(inner:service():query("GET /x", "select 1")) end
        lu.assertEquals(real:status(), "running")
        inner:close()
    end)
    local rows, err = real:join()
    lu.assertNil(rows)
    lu.assertNotNil(err.code)
    db:close()
end

function TestRealWorld.test_a_stall_holds_up_the_whole_program()
    in_sim(function(db, sim)
        sim:stall(5)
        assert(db:service():query("GET /x", "select 1"))
        lu.assertTrue(sim.clock() >= 5)
        sim:step_wall_clock(-3600)
        assert(db:service():query("GET /x", "select 1"))
        lu.assertTrue(sim.clock() < 6)
    end)
end

-- ---- trouble ---------------------------------------------------------------------------------------------

TestTrouble = {}

function TestTrouble.test_an_error_of_a_rule_ends_the_run_with_it()
    local sim = weir.sim {}
    sim:server("primary"):on("select", function() error("no such table in my head", 0) end)
    local seen
    local message = raised(sim.run, sim, function()
        local db = assert(weir.open(options_of()))
        local _, err = db:service():query("GET /x", "select 1")
        seen = err
        db:close()
    end)
    lu.assertStrContains(message, "no such table in my head")
    lu.assertEquals({ seen.sqlstate, seen.message }, { "XX000", "no such table in my head" })
    sim:run(function() end) -- told once
end

function TestTrouble.test_an_answer_that_makes_no_sense_is_told()
    for _, case in ipairs {
        { "text", "a rule must return rows, a number of affected rows, nothing, or nil and a SQLSTATE" },
        { { 1, 2 }, "rows must be a list of tables with columns by name, or come with columns" },
        { { { a = print } }, "a row holds a value that is no string (without zero bytes), number, boolean" },
    } do
        local sim = weir.sim {}
        sim:server("primary"):on("select", function() return case[1] end)
        lu.assertStrContains(raised(sim.run, sim, function()
            local db = assert(weir.open(options_of()))
            db:service():query("GET /x", "select 1")
            db:close()
        end), case[2])
    end
end

function TestTrouble.test_a_rule_must_not_wait()
    local sim, told = weir.sim {}, {}
    sim:run(function()
        local db = assert(weir.open(options_of()))
        sim:server("primary"):on("select", function()
            told[1] = raised(function() weir.sleep(1) end)
            told[2] = raised(function() db:service():query("GET /x", "select 2") end)
            told[3] = raised(function() sim:run(function() end) end)
            told[4] = raised(coroutine.yield)
        end)
        assert(db:service():query("GET /x", "select 1"))
        db:close()
    end)
    lu.assertStrContains(told[1], "must not wait")
    lu.assertStrContains(told[2], "must not wait")
    lu.assertStrContains(told[3], "one runs at a time")
    lu.assertStrContains(told[4], "yield")
end

function TestTrouble.test_the_trace_must_only_look()
    local sim, told = weir.sim {}, {}
    sim:trace(function()
        if #told > 0 then return end
        told[1] = raised(function() sim:server("primary"):fault("crash") end)
        told[2] = raised(function() sim:note("x") end)
        told[3] = raised(function() sim:stall(1) end)
        told[4] = raised(function() weir.sleep(1) end)
    end)
    sim:run(function()
        sim:server("primary"):fault("slow")
        weir.sleep(1)
    end)
    for i = 1, 3 do
        lu.assertStrContains(told[i], "the function that is traced to must only look, not change")
    end
    lu.assertStrContains(told[4], "must not wait")
end

function TestTrouble.test_an_error_of_the_trace_ends_the_run_with_it()
    local sim = weir.sim {}
    sim:trace(function() error("I cannot read this", 0) end)
    lu.assertStrContains(raised(sim.run, sim, function()
        local db = assert(weir.open(options_of()))
        db:service():query("GET /x", "select 1")
        db:close()
    end), "I cannot read this")
end

function TestTrouble.test_an_error_of_a_planned_function_is_told()
    local sim, written = weir.sim {}, {}
    local stderr = io.stderr
    local function write(_, ...) written[#written + 1] = table.concat { ... } end
    io.stderr = { write = write } -- luacheck: ignore
    sim:at(1, function() error("at one", 0) end)
    local ok, err = pcall(sim.run, sim, function() weir.sleep(2) end)
    io.stderr = stderr -- luacheck: ignore
    lu.assertFalse(ok)
    lu.assertStrContains(tostring(err), "a task failed and nobody joined it")
    lu.assertStrContains(table.concat(written), "at one")
end

function TestTrouble.test_a_deadlock_is_told()
    local message = raised(function()
        weir.sim {}:run(function()
            local first, second
            first = weir.spawn(function() second:join() end)
            second = weir.spawn(function() first:join() end)
            first:join()
        end)
    end)
    lu.assertStrContains(message, "deadlock: every task waits for another one and nothing is under way")
end

local function stands_still(fn)
    local message = raised(function() weir.sim {}:run(fn) end)
    lu.assertStrContains(message, "the simulation stands still")
end

function TestTrouble.test_time_that_cannot_pass_is_told()
    stands_still(function()
        while true do weir.sleep(0) end
    end)
    stands_still(function()
        weir.spawn(function()
            while true do coroutine.yield() end
        end)
        weir.sleep(1)
    end)
    stands_still(function()
        local function again() weir.spawn(again) end
        again()
    end)
end

-- ---- memory ----------------------------------------------------------------------------------------------

TestMemory = {}

function TestMemory.test_worlds_and_engines_go_in_any_order()
    for round = 1, 12 do
        local sim, db, other = weir.sim { seed = round }, nil, nil
        sim:server("primary"):on("select", function() return { { a = round } } end)
        sim:trace(function() end)
        sim:run(function()
            db = assert(weir.open(options_of { retry = function() return 0 end }))
            other = assert(weir.open(options_of()))
            assert(db:service():query("GET /x", "select 1"))
            assert(other:service():query("GET /x", "insert into t values ($1)", 1))
            if round % 3 == 0 then db:close() end
        end)
        if round % 2 == 0 then sim = nil end
        if round % 4 < 2 then db = nil end
        collectgarbage()
        other = nil
        collectgarbage()
        if sim then lu.assertEquals(sim:executions(1), 1) end
        sim, db = nil, nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        lu.assertNil(sim or db or other)
    end
end

function TestMemory.test_a_world_outlives_its_name_while_an_engine_needs_it()
    local db
    do
        local sim = weir.sim {}
        sim:run(function() db = assert(weir.open(options_of())) end)
    end
    collectgarbage()
    collectgarbage()
    lu.assertEquals(type(db:stats()), "table")
    db:close()
end

function TestMemory.test_real_calls_and_checks_may_be_collected_inside()
    local function left_behind()
        local db = assert(weir.open(options_of {
            timeout = 0.002, retries = 0,
            health = { interval = 0.001, checks = { mine = function() return true end } },
        }))
        weir.spawn(function() db:service():query("GET /x", "select 1") end)
        weir.sleep(0)
    end
    left_behind()
    local stop = os.clock() + 0.01
    while os.clock() < stop do end
    if core.host ~= "nginx" then core.turn(0) end
    weir.sim {}:run(function()
        collectgarbage()
        weir.sleep(1)
        collectgarbage()
    end)
    collectgarbage()
    weir.sleep(0.005)
end

function TestMemory.test_many_worlds_cost_no_more_than_one()
    local function one(seed)
        local sim = weir.sim { seed = seed }
        sim:run(function()
            local db = assert(weir.open(options_of()))
            for i = 1, 5 do assert(db:service():query("POST /x", "insert into t values ($1)", i)) end
            db:close()
        end)
    end
    for seed = 1, 20 do one(seed) end
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for seed = 1, 200 do one(seed) end
    collectgarbage()
    collectgarbage()
    lu.assertTrue(collectgarbage("count") - before < 100)
end

os.exit(lu.LuaUnit.run(), true)
