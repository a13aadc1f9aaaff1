-- Units of work: one transaction, as somebody, run again when that is safe.

local lu = require "luaunit"
local weir = require "weir"
local fixture = require "fixture"

TestUnits = {}

function TestUnits:setUp()
    self.db = fixture.open()
end

function TestUnits:tearDown()
    assert(self.db:with_service("clean", function(tx) return tx:query("delete from log") end))
    lu.assertEquals(fixture.leftovers(self.db), "")
    self.db:close()
end

function TestUnits:lines()
    return #assert(self.db:service():query("count", "select * from log"))
end

function TestUnits:test_returns_what_its_function_returned()
    local a, b, c = self.db:with_anon("GET", { sub = "ann" }, function(tx)
        return tx:query("select count(*) as n from contacts")[1].n, nil, "x"
    end)
    lu.assertEquals({ a, b, c }, { 2, nil, "x" })
end

function TestUnits:test_commits_when_the_function_returns()
    self.db:with_service("POST", function(tx) tx:query("insert into log values ('a')") end)
    lu.assertEquals(self:lines(), 1)
end

function TestUnits:test_an_error_of_a_statement_rolls_back_and_is_returned()
    local value, err = self.db:with_service("POST", function(tx)
        tx:query("insert into log values ('a')")
        tx:query("select 1/0")
        error("never reached")
    end)
    lu.assertNil(value)
    lu.assertEquals(err.sqlstate, "22012")
    lu.assertEquals(err.outcome, "rolled_back")
    lu.assertEquals(self:lines(), 0)
end

function TestUnits:test_the_functions_own_error_rolls_back_and_is_raised_unchanged()
    local object, runs = { mine = true }, 0
    local ok, err = pcall(self.db.with_service, self.db, "POST", function(tx)
        runs = runs + 1
        tx:query("insert into log values ('a')")
        error(object)
    end)
    lu.assertFalse(ok)
    lu.assertIs(err, object)
    lu.assertEquals(runs, 1)
    lu.assertEquals(self:lines(), 0)
end

function TestUnits:test_rollback_leaves_quietly()
    local value, err = self.db:with_service("POST", function(tx)
        tx:query("insert into log values ('a')")
        tx:rollback()
    end)
    lu.assertNil(value)
    lu.assertEquals(err.code, "rolled_back")
    lu.assertEquals(self:lines(), 0)
end

function TestUnits:test_an_error_that_was_swallowed_is_not_committed()
    local value, err = self.db:with_service("POST", function(tx)
        tx:query("insert into log values ('a')")
        pcall(tx.query, tx, "select 1/0")
        return "all is well"
    end)
    lu.assertNil(value)
    lu.assertEquals(err.code, "aborted")
    lu.assertEquals(self:lines(), 0)
end

function TestUnits:test_after_an_error_every_statement_raises_that_error_again()
    local first, second
    self.db:with_service("POST", function(tx)
        first = select(2, pcall(tx.query, tx, "select 1/0"))
        second = select(2, pcall(tx.query, tx, "select 1"))
        error(second)
    end)
    lu.assertIs(first, second)
end

function TestUnits:test_a_rollback_to_a_savepoint_lets_a_failed_unit_go_on_and_commit()
    local first
    local value, err = self.db:with_service("POST", function(tx)
        tx:query("insert into log values ('before')")
        tx:query("savepoint a")
        first = select(2, pcall(tx.query, tx, "insert into log values ((1 / 0)::text)"))
        tx:query("/* again */ ROLLBACK TO SAVEPOINT a")
        tx:query("insert into log values ('after')")
        return "done"
    end)
    lu.assertEquals(first.sqlstate, "22012")
    lu.assertEquals({ value, err }, { "done" })
    local rows = assert(self.db:service():query("GET", "select line from log order by line"))
    lu.assertEquals(rows, { { line = "after" }, { line = "before" } })
end

function TestUnits:test_a_savepoint_can_be_gone_back_to_again_and_again()
    local value, err = self.db:with_anon("POST", { sub = "ann" }, function(tx)
        tx:query("savepoint a")
        for _ = 1, 3 do
            lu.assertFalse((pcall(tx.query, tx, "select 1/0")))
            lu.assertFalse((pcall(tx.query, tx, "select 1")))
            tx:query("rollback work to a")
        end
        return tx:query("select count(*) as n from contacts")[1].n
    end)
    lu.assertEquals({ value, err }, { 2 })
end

function TestUnits:test_a_rollback_to_a_savepoint_that_is_not_there_leaves_the_unit_failed()
    local seen = {}
    local value, err = self.db:with_service("POST", function(tx)
        tx:query("insert into log values ('a')")
        for _, sql in ipairs { "select 1/0", "rollback to nowhere", "select 1" } do
            seen[#seen + 1] = select(2, pcall(tx.query, tx, sql))
        end
    end)
    lu.assertNil(value)
    lu.assertEquals(err.code, "aborted")
    lu.assertEquals({ seen[1].sqlstate, seen[2].sqlstate }, { "22012", "3B001" })
    lu.assertIs(seen[3], seen[2])
    lu.assertEquals(self:lines(), 0)
end

function TestUnits:test_after_its_deadline_a_unit_cannot_be_recovered()
    local seen = {}
    self.db:with_service("POST", function(tx)
        tx:query("savepoint a")
        for _, sql in ipairs { "select pg_sleep(5)", "rollback to a" } do
            seen[#seen + 1] = select(2, pcall(tx.query, tx, sql))
        end
    end, { timeout = 0.1 })
    lu.assertEquals(seen[1].code, "timeout")
    lu.assertIs(seen[2], seen[1])
end

function TestUnits:test_a_serialization_failure_runs_the_whole_unit_again()
    local attempts = {}
    local value = assert(self.db:with_service("POST", function(tx)
        attempts[#attempts + 1] = tx.attempt
        tx:query("insert into log values ('a')")
        if tx.attempt < 3 then tx:query("do $$ begin raise exception using errcode = '40001'; end $$") end
        return "done"
    end))
    lu.assertEquals(value, "done")
    lu.assertEquals(attempts, { 1, 2, 3 })
    lu.assertEquals(self:lines(), 1)
end

function TestUnits:test_a_pipeline_inside_is_one_round_trip()
    local results = self.db:with_service("POST", function(tx)
        return tx:pipeline { { "insert into log values ($1)", "x" }, { "select line from log" } }
    end)
    lu.assertEquals(results, { { affected_rows = 1 }, { { line = "x" } } })
end

function TestUnits:test_a_read_only_unit_cannot_write()
    local value, err = self.db:with_service("GET", function(tx)
        tx:query("insert into log values ('a')")
    end, { readonly = true })
    lu.assertNil(value)
    lu.assertEquals(err.sqlstate, "25006")
end

function TestUnits:test_the_isolation_asked_for_is_the_transactions()
    local level = self.db:with_service("GET", function(tx)
        return tx:query("select current_setting('transaction_isolation') as level")[1].level
    end, { isolation = "serializable" })
    lu.assertEquals(level, "serializable")
end

function TestUnits:test_isolation_is_of_units_and_a_single_statement_that_asks_for_it_is_told_so()
    local handle = self.db:service():with { isolation = "serializable" }
    for _, call in ipairs {
        function() handle:query("GET", "select 1") end,
        function() handle:pipeline("GET", { { "select 1" } }) end,
    } do
        local err = fixture.raised(call)
        lu.assertStrContains(err, "test_units.lua:")
        lu.assertStrContains(err, "isolation")
    end
end

function TestUnits:test_a_timeout_holds_for_the_whole_unit()
    local started = weir.now()
    local value, err = self.db:with_service("GET", function(tx)
        while true do tx:query("select pg_sleep(0.02)") end
    end, { timeout = 0.1 })
    lu.assertNil(value)
    lu.assertEquals(err.code, "timeout")
    lu.assertTrue(weir.now() - started < 2)
end

function TestUnits:test_the_transaction_is_of_no_use_outside_its_function()
    local kept
    self.db:with_service("GET", function(tx) kept = tx end)
    local err = fixture.raised(function() kept:query("select 1") end)
    lu.assertStrContains(err, "test_units.lua:")
    lu.assertStrContains(err, "the transaction has ended")
end

function TestUnits:test_identity_ends_with_the_transaction()
    for _, user in ipairs { "ann", "joe", "ann" } do
        local row = self.db:with_anon("GET", { sub = user }, function(tx)
            return tx:query [[select current_user as role,
                current_setting('request.jwt.claims')::json ->> 'sub' as sub]][1]
        end)
        lu.assertEquals(row, { role = "web_anon", sub = user })
    end
end

function TestUnits:test_units_of_many_users_never_meet()
    local owners, tasks = { "ann", "joe" }, {}
    for i = 1, 100 do
        tasks[i] = weir.spawn(function()
            local owner = owners[i % 2 + 1]
            return self.db:with_anon("GET", { sub = owner }, function(tx)
                for _, row in ipairs(tx:query("select owner from contacts")) do
                    if row.owner ~= owner then return "saw " .. row.owner end
                end
                return "ok"
            end)
        end)
    end
    for _, packed in ipairs(weir.gather(tasks)) do lu.assertEquals(packed[1], "ok") end
end

function TestUnits:test_a_cancelled_task_gives_its_connection_back()
    local begun
    local task = weir.spawn(function()
        return self.db:with_service("GET", function(tx)
            tx:query("select 1")
            begun = true
            weir.sleep(100)
        end)
    end)
    while not begun do weir.sleep(0.002) end
    task:cancel()
    local ok, err = pcall(task.join, task)
    lu.assertFalse(ok)
    lu.assertEquals(err.code, "cancelled")
end

function TestUnits:test_claims_and_context_are_demanded_before_anything_runs()
    local ran = false
    local function unit() ran = true end
    lu.assertStrContains(fixture.raised(function() self.db:with_anon("GET", nil, unit) end), "claims")
    if weir.host ~= "nginx" then -- where a request's method and route are the default
        lu.assertStrContains(fixture.raised(function() self.db:with_anon(nil, {}, unit) end), "context")
    end
    lu.assertStrContains(fixture.raised(function() self.db:with_service("", unit) end), "context")
    lu.assertFalse(ran)
end

TestOutage = {}

function TestOutage.test_calls_fail_fast_while_the_server_is_away_and_work_when_it_is_back()
    local server = fixture.server()
    local db = fixture.open {
        breaker = { min_calls = 3, open_for = 30 },
        health = { interval = 0.2, probe_interval = 0.02 },
        retries = 0,
        connect_timeout = 1,
    }
    local service = db:service()
    assert(service:query("GET", "select 1"))
    server:stop("immediate")
    for _ = 1, 4 do lu.assertNil((service:query("GET", "select 1"))) end
    local started = weir.now()
    local _, err = service:query("GET", "select 1")
    lu.assertEquals(err.code, "breaker_open")
    lu.assertTrue(weir.now() - started < 0.1)
    lu.assertEquals(db:breaker("service@primary"):state(), "OPEN")
    server:start()
    local rows
    for _ = 1, 200 do
        rows = service:query("GET", "select 1 as a")
        if rows then break end
        weir.sleep(0.02)
    end
    lu.assertEquals(rows, { { a = 1 } })
    lu.assertEquals(fixture.leftovers(db), "")
    db:close()
end

function TestOutage.test_drain_lets_running_calls_end_and_refuses_new_ones()
    local db = fixture.open()
    local running = weir.spawn(function()
        return db:service():query("GET", "select pg_sleep(0.05) is null as a")
    end)
    weir.sleep(0.01)
    local drained = weir.spawn(function() db:drain(5) end)
    weir.sleep(0)
    local _, err = db:service():query("GET", "select 1")
    lu.assertEquals(err.code, "draining")
    lu.assertEquals(running:join(), { { a = false } })
    drained:join()
    db:close()
end

function TestOutage.test_closing_ends_what_is_under_way_as_cancelled()
    local db = fixture.open()
    local task = weir.spawn(function() return db:service():query("GET", "select pg_sleep(30)") end)
    weir.sleep(0.05)
    db:close()
    local rows, err = task:join()
    lu.assertNil(rows)
    lu.assertEquals(err.code, "cancelled")
end

os.exit(lu.LuaUnit.run(), true)
