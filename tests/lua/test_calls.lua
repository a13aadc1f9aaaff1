-- Single statements and pipelines through a real server.

local lu = require "luaunit"
local weir = require "weir"
local fixture = require "fixture"

TestCalls = {}

function TestCalls:setUp()
    self.db = fixture.open()
    self.service = self.db:service()
end

function TestCalls:tearDown()
    lu.assertEquals(fixture.leftovers(self.db), "")
    self.db:close()
end

local function first(rows, err)
    lu.assertNil(err)
    return rows[1]
end

function TestCalls:test_rows_arrive_as_a_list_of_tables()
    local rows = self.service:query("GET", "select * from (values (1, 'a'), (2, 'b')) v(id, name)")
    lu.assertEquals(rows, { { id = 1, name = "a" }, { id = 2, name = "b" } })
    lu.assertEquals(self.service:query("GET", "select 1 where false"), {})
    lu.assertEquals(first(self.service:query("GET", "select 1")), { ["?column?"] = 1 })
end

function TestCalls:test_null_is_absent_or_weir_null_by_option()
    lu.assertEquals(first(self.service:query("GET", "select null as a, 1 as b")), { b = 1 })
    local row = first(self.service:with({ null = true }):query("GET", "select null as a, 1 as b"))
    lu.assertIs(row.a, weir.null)
end

function TestCalls:test_of_two_columns_with_one_name_the_last_wins()
    lu.assertEquals(first(self.service:query("GET", "select 1 as a, 2 as a")), { a = 2 })
    lu.assertEquals(first(self.service:query("GET", "select 1 as a, null as a")), {})
end

function TestCalls:test_column_names_may_be_anything()
    local names = { "end", "1", "a b", 'q"uote', "back\\slash", "new\nline", "]]", "%s", "\195\164", "\1", "?column?" }
    local columns, expected = {}, {}
    for i, name in ipairs(names) do
        columns[i] = ('%d as "%s"'):format(i, (name:gsub('"', '""')))
        expected[name] = i
    end
    lu.assertEquals(self.service:query("GET", "select " .. table.concat(columns, ", ")), { expected })
end

function TestCalls:test_of_two_columns_of_one_name_the_last_wins()
    local sql = "select a, b, c as a from (values (1, 'x', 2), (3, 'y', null)) v(a, b, c)"
    lu.assertEquals(self.service:query("GET", sql), { { a = 2, b = "x" }, { b = "y" } })
end

function TestCalls:test_rows_may_be_as_wide_as_the_server_makes_them()
    for _, width in ipairs { 64, 65, 200, 201, 1600 } do
        local columns = {}
        for i = 1, width do columns[i] = ("n * %d as c%d"):format(i, i) end
        local rows = assert(self.service:query("GET",
            ("select %s from generate_series(1, 2) n"):format(table.concat(columns, ", "))))
        for n = 1, 2 do
            for i = 1, width do lu.assertEquals(rows[n]["c" .. i], n * i) end
        end
    end
end

function TestCalls:test_more_kinds_of_rows_than_are_kept()
    for round = 1, 2 do
        for i = 1, 300 do
            local rows = assert(self.service:query("GET", ("select %d as first, %d as c%d"):format(round, i, i)))
            lu.assertEquals(rows, { { first = round, ["c" .. i] = i } })
        end
    end
end

function TestCalls:test_changes_say_how_many_rows_they_touched()
    local service = self.service
    lu.assertEquals(service:query("POST", "insert into log values ('a'), ('b')"), { affected_rows = 2 })
    lu.assertEquals(service:query("POST", "update log set line = 'c' where false"), { affected_rows = 0 })
    lu.assertEquals(service:query("POST", "delete from log where line = 'a' returning line"),
        { affected_rows = 1, { line = "a" } })
    lu.assertEquals(service:query("POST", "delete from log"), { affected_rows = 1 })
end

function TestCalls:test_commands_without_rows_give_true()
    lu.assertTrue(self.service:query("ddl", "create temp table t (a int) on commit drop"))
    lu.assertTrue(self.service:query("ddl", "set local work_mem = '1MB'"))
end

function TestCalls:test_parameters_arrive_as_they_were()
    local sql = [[select $1::text as s, $2::int8 as i, $3::float8 as f, $4::bool as t, $5::bool as f2,
        $6::text as n, $7::int as z]]
    local row = first(self.service:query("GET", sql, "it's \"x\" \\ ü", 1234567890123, 0.1 + 0.2, true,
        false, nil, weir.null))
    lu.assertEquals(row.s, "it's \"x\" \\ ü")
    lu.assertEquals(row.i, 1234567890123)
    lu.assertEquals(row.f, 0.1 + 0.2)
    lu.assertIs(row.t, true)
    lu.assertIs(row.f2, false)
    lu.assertNil(row.n)
    lu.assertNil(row.z)
end

function TestCalls:test_a_nil_at_the_end_is_a_parameter_too()
    lu.assertEquals(first(self.service:query("GET", "select coalesce($1, 'none') as a", nil)), { a = "none" })
end

function TestCalls:test_whole_floats_serve_as_integers()
    local row = first(self.service:query("GET", "select $1::int as a, $2::int8 as b", 3.0, 1e15))
    lu.assertEquals(row, { a = 3, b = 10 ^ 15 })
end

function TestCalls:test_wrapped_values_become_json_arrays_and_bytes()
    local sql = [[select $1::jsonb ->> 'a' as j, $2::int[] as i, $3::text[] as t, $4::bytea as b,
        octet_length($4::bytea) as n]]
    local row = first(self.service:query("GET", sql, weir.json { a = "x" }, weir.array { 1, weir.null, 3 },
        weir.array { "NULL", 'q"', "" }, weir.bytea "\0\1\255"))
    lu.assertEquals(row.j, "x")
    lu.assertEquals(row.i, { 1, weir.null, 3 })
    lu.assertEquals(row.t, { "NULL", 'q"', "" })
    lu.assertEquals(row.b, "\0\1\255")
    lu.assertEquals(row.n, 3)
end

function TestCalls:test_the_servers_own_text_of_every_type_is_understood()
    local row = first(self.service:query("GET", [[select '[0:2]={1,2,3}'::int[] as bounds,
        '{"a": 12345678901234567890}'::jsonb as j, 12345678901234567890.5::numeric as big,
        1.50::numeric as small, '\xdead'::bytea as b, array['a', null] as t,
        '2024-01-01'::date as d, 'NaN'::float8 as nan,
        'NULL'::text as n, '{}'::int[] as e, true as y]]))
    lu.assertEquals(row.bounds, { 1, 2, 3 })
    lu.assertEquals(row.j.a, "12345678901234567890")
    lu.assertEquals(row.big, "12345678901234567890.5")
    lu.assertEquals(row.small, 1.5)
    lu.assertEquals(row.b, "\xde\xad")
    lu.assertEquals(row.t, { "a", weir.null })
    lu.assertEquals(row.d, "2024-01-01")
    lu.assertIsNaN(row.nan)
    lu.assertEquals(row.n, "NULL")
    lu.assertEquals(row.e, {})
    lu.assertIs(row.y, true)
end

function TestCalls:test_notices_stand_beside_the_result()
    fixture.server():sql [[create or replace function shout() returns int language plpgsql as
        $$ begin raise notice 'hear me'; return 1; end $$]]
    local rows = assert(self.service:query("POST", "select shout() as a"))
    lu.assertStrContains(rows.notices[1], "hear me")
end

function TestCalls:test_a_pipeline_is_one_transaction()
    local results = self.service:pipeline("POST", {
        { "insert into log values ($1)", "p" },
        { "select count(*) as n from log where line = $1", "p" },
        { "delete from log" },
    })
    lu.assertEquals(results, { { affected_rows = 1 }, { { n = 1 } }, { affected_rows = 1 } })

    local none, err = self.service:pipeline("POST", { { "insert into log values ('q')" }, { "select 1/0" } })
    lu.assertNil(none)
    lu.assertEquals(err.sqlstate, "22012")
    lu.assertEquals(self.service:query("GET", "select * from log"), {})
end

function TestCalls:test_an_error_tells_everything_the_server_said()
    local rows, err = self.service:query("GET /x", "select * from contacts where nam = 1")
    lu.assertNil(rows)
    lu.assertTrue(weir.is_error(err))
    lu.assertEquals({ err.code, err.sqlstate, err.class, err.severity, err.context, err.attempts, err.pool },
        { "server_error", "42703", "permanent", "ERROR", "GET /x", 1, "service@primary" })
    lu.assertStrContains(err.message, "nam")
    lu.assertStrContains(err.hint, "contacts.name")
    lu.assertEquals(err.position, 30)
    lu.assertStrContains(tostring(err), 'GET /x: server_error 42703 on service@primary: column "nam"')
end

function TestCalls:test_users_see_their_own_rows_only()
    local function names(claims)
        local rows = assert(self.db:anon(claims):query("GET", "select name from contacts order by name"))
        local found = {}
        for i, row in ipairs(rows) do found[i] = row.name end
        return table.concat(found, ",")
    end
    lu.assertEquals(names { sub = "ann" }, "Bob,Cid")
    lu.assertEquals(names { sub = "joe" }, "Dee")
    lu.assertEquals(names '{"sub": "joe"}', "Dee")
    lu.assertEquals(names {}, "")
end

function TestCalls:test_options_of_a_handle_hold_for_its_calls()
    local slow = self.service:with { timeout = 0.05 }
    local rows, err = slow:query("GET slow", "select pg_sleep(5)")
    lu.assertNil(rows)
    lu.assertEquals(err.code, "timeout")
    lu.assertEquals(#assert(self.service:query("GET", "select 1")), 1)
end

function TestCalls:test_many_calls_at_once_each_get_their_own_answer()
    local tasks = {}
    for i = 1, 200 do
        tasks[i] = weir.spawn(function()
            return first(self.service:query("GET", "select $1::int as i", i)).i
        end)
    end
    for i, packed in ipairs(weir.gather(tasks)) do lu.assertEquals(packed[1], i) end
end

function TestCalls:test_a_call_from_a_coroutine_of_ones_own_works()
    local step = coroutine.wrap(function()
        for i = 1, 3 do coroutine.yield(first(self.service:query("GET", "select $1::int as i", i)).i) end
    end)
    lu.assertEquals({ step(), step(), step() }, { 1, 2, 3 })
end

function TestCalls:test_cancelling_a_task_cancels_its_call()
    local started = weir.now()
    local task = weir.spawn(function() return self.service:query("GET slow", "select pg_sleep(30)") end)
    weir.sleep(0.05)
    task:cancel()
    local rows, err = task:join()
    lu.assertNil(rows)
    lu.assertEquals(err.code, "cancelled")
    lu.assertTrue(weir.now() - started < 5)
end

-- A call of the only task that can run is waited for without asking the scheduler.
TestServedOnTheSpot = { setUp = TestCalls.setUp, tearDown = TestCalls.tearDown }

-- Refused at once, and tried again at once: nothing else would run any more.
local function tries_until_another_has_run(try)
    local over, tries = false, 0
    local other = weir.spawn(function()
        weir.sleep(0.005)
        over = true
    end)
    while not over and tries < 1e6 do
        local _, err = try()
        lu.assertEquals(err.code, "breaker_open")
        tries = tries + 1
    end
    lu.assertTrue(over)
    other:join()
end

function TestCalls:test_whoever_tries_a_refused_call_again_and_again_lets_others_run()
    self.db:force("service@primary", "open")
    tries_until_another_has_run(function() return self.service:query("GET", "select 1") end)
    tries_until_another_has_run(function() return self.service:transaction("GET", function() end) end)
    tries_until_another_has_run(function() return self.service:pipeline("GET", { { "select 1" } }) end)
    local task = weir.spawn(tries_until_another_has_run, function() return self.service:query("GET", "select 1") end)
    task:join()
end

local PLENTY = 10000 -- calls, after which what a test waits for will not come

local function calls_until(service, done)
    local calls = 0
    while not done() and calls < PLENTY do
        assert(service:query("GET", "select 1"))
        calls = calls + 1
    end
    return calls
end

function TestServedOnTheSpot:test_a_sleeper_wakes_while_a_call_is_in_flight()
    local woken
    local task = weir.spawn(function()
        weir.sleep(0.01)
        woken = weir.now()
    end)
    weir.sleep(0)
    assert(self.service:query("GET", "select pg_sleep(0.2)"))
    lu.assertTrue(woken and weir.now() - woken > 0.1)
    task:join()
end

function TestServedOnTheSpot:test_a_sleeper_wakes_between_short_calls()
    local woken = false
    local task = weir.spawn(function()
        weir.sleep(0.01)
        woken = true
    end)
    lu.assertTrue(calls_until(self.service, function() return woken end) < PLENTY)
    task:join()
end

function TestServedOnTheSpot:test_a_task_that_sleeps_for_no_time_does_not_starve_the_calls()
    local task = weir.spawn(function() return self.service:query("GET", "select 1 as n") end)
    local patience = weir.now() + 5
    while task:status() == "running" and weir.now() < patience do weir.sleep(0) end
    lu.assertEquals(task:status(), "done")
    lu.assertEquals(task:join()[1].n, 1)
end

function TestServedOnTheSpot:test_callers_take_turns()
    local theirs = 0
    local task = weir.spawn(function()
        for _ = 1, 100 do
            assert(self.service:query("GET", "select 1"))
            theirs = theirs + 1
        end
    end)
    lu.assertTrue(calls_until(self.service, function() return theirs == 100 end) < 1000)
    task:join()
end

function TestServedOnTheSpot:test_a_new_task_begins_at_the_next_call()
    local begun = false
    local task = weir.spawn(function() begun = true end)
    lu.assertEquals(calls_until(self.service, function() return begun end), 1)
    task:join()
end

function TestServedOnTheSpot:test_a_coroutine_that_waits_for_a_task_hears_of_its_end_at_the_next_call()
    local heard, calls = false, 0
    local ends_at_once = weir.spawn(function() end)
    local looper = weir.spawn(function()
        calls_until(self.service, function()
            calls = calls + 1
            return heard
        end)
    end)
    coroutine.wrap(function() ends_at_once:join() end)()
    heard = true
    lu.assertEquals(calls, 1)
    looper:join()
end

function TestServedOnTheSpot:test_a_call_may_take_longer_than_the_loop_sleeps()
    lu.assertEquals(#assert(self.service:query("GET", "select pg_sleep(0.3)")), 1)
end

function TestServedOnTheSpot:test_a_cancel_from_before_the_call_cancels_it()
    local task = weir.spawn(function()
        coroutine.yield()
        return self.service:query("GET", "select pg_sleep(30)")
    end)
    weir.sleep(0)
    task:cancel()
    local rows, err = task:join()
    lu.assertNil(rows)
    lu.assertEquals(err.code, "cancelled")
end

function TestServedOnTheSpot:test_a_finaliser_may_call_in_the_middle_of_a_call()
    local sums = 0
    local function call()
        sums = sums + first(self.service:query("GET", "select 1 as one")).one
    end
    local function finaliser() coroutine.wrap(call)() end -- nobody can yield out of a finaliser
    for i = 1, 300 do
        setmetatable({}, { __gc = finaliser })
        local rows = assert(self.service:query("GET", "select $1::int as i, repeat('x', 2000) as x", i))
        lu.assertEquals(rows[1].i, i)
    end
    collectgarbage()
    lu.assertTrue(sums == 300 or jit ~= nil) -- tables have no finalisers in LuaJIT
end

function TestServedOnTheSpot:test_a_transaction_is_served_like_a_call()
    local sum = assert(self.service:transaction("GET", function(tx)
        local total = 0
        for i = 1, 150 do total = total + tx:query("select $1::int as i", i)[1].i end
        return total
    end))
    lu.assertEquals(sum, 11325)
end

TestMisuse = {}

function TestMisuse:setUp()
    self.db = fixture.open()
end

function TestMisuse:tearDown()
    lu.assertEquals(fixture.leftovers(self.db), "")
    self.db:close()
end

local misuses = {
    { function(db) db:anon():query("GET", "select 1") end, "claims are missing" },
    { function(db) db:anon(5) end, "the claims are a number" },
    { function(db) db:anon "sub=ann" end, "must be a JSON object" },
    { function(db) db:anon { 1, 2 } end, "must be a JSON object" },
    { function(db) db:anon { f = print } end, "the claims cannot be written as JSON" },
    { function(db) db:client("nobody", {}):query("GET", "select 1") end, "nobody" },
    { function(db) db:service():query(nil, "select 1") end, "the context is a nil; say in a string",
        without_request = true },
    { function(db) db:service():query("", "select 1") end, "the context is empty" },
    { function(db) db:service():query("GET") end, "the SQL is a nil; it must be a string" },
    { function(db) db:service():query("GET", "select 1\0") end, "the SQL holds a zero byte" },
    {
        function(db) db:service():query("GET", "select $1", {}) end,
        "parameter $1 is a plain table; wrap it in weir.json(t)",
    },
    {
        function(db) db:service():query("GET", "select $1, $2", 1, print) end,
        "parameter $2 is a function; it must be nil",
    },
    { function(db) db:service():query("GET", "commit") end, "transaction" },
    {
        function(db) db:service():pipeline("GET", "select 1") end,
        "the statements are a string; they must be a list",
    },
    { function(db) db:service():pipeline("GET", {}) end, "a pipeline of 0 statements" },
    {
        function(db) db:service():pipeline("GET", { "select 1" }) end,
        "statement 1 is a string; it must be a table { sql, ... }",
    },
    {
        function(db) db:service():pipeline("GET", { { "select 1" }, { 5 } }) end,
        "statement 2: the SQL is a number",
    },
    {
        function(db) db:service():pipeline("GET", { { "select $1", {} } }) end,
        "parameter $1 of statement 1 is a plain table",
    },
    {
        function(db) db:service():with { timout = 1 } end,
        "timout is not a known option; did you mean timeout?",
    },
    { function(db) db:service():with { timeout = -1 } end, "timeout is -1" },
    {
        function(db) db:service():with { isolation = "chaos" } end,
        "isolation is 'chaos'; it must be one of read committed",
    },
    { function(db) db:service():with { client = "anon" } end, "client is not an option of a call" },
    { function(db) db:service():with(5) end, "the options are a number" },
    { function(db) db:service():transaction("GET") end, "the unit's function is a nil" },
    {
        function(db) db:with_service("GET", function(tx) tx:query("select $1", {}) end) end,
        "parameter $1 is a plain table",
    },
    { function(db) db:with_service("GET", function(tx) tx:query("rollback") end) end, "transaction" },
    { function(db) db:breaker(5) end, "a pool is named" },
    { function(db) db:breaker("x@y"):force("open") end, "x@y" },
    { function(db) db:breaker("service@primary"):force("ajar") end, "force(ajar)" },
    { function(db) db:calls(-1) end, "the number of calls is -1" },
    { function(db) db:drain(-1) end, "drain(-1)" },
}

function TestMisuse:test_raises_one_clear_sentence_at_the_callers_line()
    for i, case in ipairs(misuses) do
        if case.without_request and weir.host == "nginx" then case[1] = function() error("weir: " .. case[2]) end end
        local ok, err = pcall(case[1], self.db)
        lu.assertFalse(ok, i)
        lu.assertStrContains(err, "test_calls.lua:")
        lu.assertStrContains(err, "weir: ")
        lu.assertStrContains(err, case[2])
    end
end

os.exit(lu.LuaUnit.run(), true)
