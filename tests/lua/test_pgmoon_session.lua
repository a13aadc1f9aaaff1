-- Transactions, settings, and what a connection of one's own was used for, through pgmoon's interface.

local lu = require "luaunit"
local fixture = require "fixture"
local pgmoon = require "resty.weir.pgmoon"
local pools = require "resty.weir.pgmoon.pool"
local weir = require "weir"

local function options(more)
    local server = fixture.server()
    local all = { host = server.dir, port = server.port, database = "postgres", user = "postgres" }
    for key, value in pairs(more or {}) do all[key] = value end
    return all
end

local function connected(more)
    local pg = pgmoon.new(options(more))
    assert(pg:connect())
    return pg
end

local pg

local function set_up()
    fixture.server():sql "truncate log"
    pg = connected()
end

local function tear_down()
    pg:keepalive()
    lu.assertEquals(fixture.leftovers(pg.engine.db), "")
end

local function ok(...)
    local result, err = pg:query(...)
    if result == nil then error(err, 2) end
    return result
end

local function error_of(...)
    local result, err = pg:query(...)
    lu.assertNil(result)
    return err
end

local function log_lines()
    return (fixture.server():sql "select coalesce(string_agg(line, ',' order by line), '') from log")
end

local ABORTED = "ERROR: current transaction is aborted, commands ignored until end of transaction block"

-- ---- transactions -----------------------------------------------------------------------------------------

TestTransactions = { setUp = set_up, tearDown = tear_down }

function TestTransactions.test_what_is_committed_is_there_and_nothing_before()
    lu.assertTrue(ok "BEGIN")
    lu.assertEquals(pg.transaction_status, "T")
    lu.assertEquals(ok "insert into log values ('a')", { affected_rows = 1 })
    lu.assertEquals(ok("insert into log values ($1)", "b"), { affected_rows = 1 })
    lu.assertEquals(log_lines(), "")
    lu.assertTrue(ok "COMMIT")
    lu.assertEquals(pg.transaction_status, "I")
    lu.assertEquals(log_lines(), "a,b")
end

function TestTransactions.test_every_spelling_is_known()
    for _, pair in ipairs {
        { "begin work", "end" }, { "start transaction", "commit work" },
        { "Begin Transaction;", "end transaction ;" },
        { "/* now */ begin", "-- done\ncommit" }, { "begin isolation level repeatable read",
            "commit and no chain" },
        { "begin read write, isolation level read uncommitted", "abort" },
        { "begin not deferrable", "rollback work" },
    } do
        ok(pair[1])
        lu.assertEquals(pg.transaction_status, "T", pair[1])
        ok "select 1"
        ok(pair[2])
        lu.assertEquals(pg.transaction_status, "I", pair[2])
    end
end

function TestTransactions.test_it_is_begun_as_it_was_asked_for()
    ok "begin isolation level serializable read only"
    lu.assertEquals(ok "show transaction_isolation", { { transaction_isolation = "serializable" } })
    lu.assertStrContains(error_of "insert into log values ('a')", "read-only transaction")
    ok "rollback"
    ok "begin"
    ok "set transaction isolation level repeatable read"
    lu.assertEquals(ok "show transaction_isolation", { { transaction_isolation = "repeatable read" } })
    lu.assertStrContains(error_of "set transaction isolation level serializable",
        "must be called before any query")
    ok "rollback"
    lu.assertStrContains(error_of "begin deferrable", "'DEFERRABLE' is not understood")
end

function TestTransactions.test_rollback_undoes_it()
    ok "begin"
    ok "insert into log values ('a')"
    lu.assertTrue(ok "rollback")
    lu.assertEquals(log_lines(), "")
end

function TestTransactions.test_after_an_error_only_the_end_is_left()
    ok "begin"
    ok "insert into log values ('a')"
    lu.assertStrContains(error_of "select nothing", 'column "nothing" does not exist')
    lu.assertEquals(pg.transaction_status, "E")
    for _, sql in ipairs { "select 1", "begin", "set local x.y = '1'", "savepoint a" } do
        lu.assertEquals(error_of(sql), ABORTED)
    end
    lu.assertEquals(error_of("select $1", 1), ABORTED)
    lu.assertTrue(ok "rollback")
    lu.assertEquals(ok "select 1 as one", { { one = 1 } })
    lu.assertEquals(log_lines(), "")
end

function TestTransactions.test_commit_after_an_error_says_that_it_was_none()
    ok "begin"
    ok "insert into log values ('a')"
    pg:query "select nothing"
    local result, err, _, _, _, _, object = pg:query "commit"
    lu.assertNil(result)
    lu.assertStrContains(err, 'COMMIT rolled back the transaction, which had failed before: column "nothing"')
    lu.assertEquals({ object.sqlstate, object.outcome }, { "25P02", "rolled_back" })
    lu.assertEquals(pg.transaction_status, "I")
    lu.assertEquals(log_lines(), "")
end

function TestTransactions.test_savepoints()
    ok "begin"
    ok "insert into log values ('a')"
    ok "savepoint s"
    ok "insert into log values ('b')"
    pg:query "select nothing"
    lu.assertTrue(ok "rollback to savepoint s")
    lu.assertEquals(pg.transaction_status, "T")
    ok "release s"
    ok "commit"
    lu.assertEquals(log_lines(), "a")
    lu.assertEquals(error_of "savepoint s", "ERROR: SAVEPOINT can only be used in transaction blocks")
    lu.assertEquals(error_of "release s", "ERROR: RELEASE SAVEPOINT can only be used in transaction blocks")
    lu.assertEquals(error_of "rollback to s",
        "ERROR: ROLLBACK TO SAVEPOINT can only be used in transaction blocks")
end

function TestTransactions.test_ends_and_beginnings_out_of_place_are_notices()
    for sql, notice in pairs {
        ["commit"] = "WARNING: there is no transaction in progress",
            ["rollback"] = "WARNING: there is no transaction in progress",
        ["set transaction read only"] = "WARNING: SET TRANSACTION can only be used in transaction blocks",
    } do
        lu.assertEquals({ pg:query(sql) }, { true, 1, nil, { notice } })
    end
    ok "begin"
    lu.assertEquals({ pg:query "begin" },
        { true, 1, nil, { "WARNING: there is already a transaction in progress" } })
    ok "rollback"
end

function TestTransactions.test_chains()
    ok "begin isolation level serializable"
    ok "insert into log values ('a')"
    ok "commit and chain"
    lu.assertEquals(pg.transaction_status, "T")
    lu.assertEquals(ok "show transaction_isolation", { { transaction_isolation = "serializable" } })
    ok "rollback and chain"
    ok "insert into log values ('b')"
    ok "rollback"
    lu.assertEquals(log_lines(), "a")
end

function TestTransactions.test_keepalive_and_disconnect_roll_back()
    for _, how in ipairs { "keepalive", "disconnect" } do
        ok "begin"
        ok "insert into log values ('a')"
        lu.assertTrue(pg[how](pg))
        lu.assertEquals(log_lines(), "")
        lu.assertTrue(pg:connect())
        lu.assertEquals(pg.transaction_status, "I")
        lu.assertEquals(ok "select count(*) from log", { { count = 0 } })
    end
end

function TestTransactions.test_a_lost_connection_leaves_it_failed_not_open()
    ok "begin"
    ok "insert into log values ('a')"
    local pid = ok("select pg_backend_pid() as pid")[1].pid
    fixture.server():sql("select pg_terminate_backend(" .. pid .. ")")
    lu.assertNotNil(error_of "insert into log values ('b')")
    lu.assertEquals(error_of "insert into log values ('c')", ABORTED)
    lu.assertNotNil(error_of "rollback to s")
    lu.assertNotNil(error_of "commit")
    lu.assertEquals(log_lines(), "")
    lu.assertEquals(ok "select 1 as one", { { one = 1 } })
end

function TestTransactions.test_its_deadline_is_that_of_the_whole()
    pg:settimeout(80)
    ok "begin"
    ok "insert into log values ('a')"
    lu.assertEquals(error_of "select pg_sleep(10)", "timeout")
    lu.assertEquals(error_of "insert into log values ('b')", ABORTED)
    lu.assertTrue(ok "rollback")
    lu.assertEquals(log_lines(), "")
end

function TestTransactions.test_it_is_one_conversation()
    ok "begin"
    local refused
    local task = weir.spawn(function() return pg:query "select pg_sleep(0.02)" end)
    local other = weir.spawn(function() refused = { pg:query "select 1" } end)
    task:join()
    other:join()
    lu.assertEquals({ refused[1], refused[2] }, { nil, "the transaction is busy with another query" })
    ok "commit"
    local tasks = {}
    for i = 1, 5 do
        tasks[i] = weir.spawn(function() return pg:query("select pg_sleep(0.01), " .. i .. " as i")[1].i end)
    end
    for i, one in ipairs(tasks) do lu.assertEquals(one:join(), i) end
    lu.assertFalse(pg.busy)
end

-- ---- transactions inside one text -------------------------------------------------------------------------

TestTexts = { setUp = set_up, tearDown = tear_down }

function TestTexts.test_begin_and_commit_among_the_statements()
    local results, count = pg:query [[begin; insert into log values ('a'); select line from log; commit;
        select 1 as one]]
    lu.assertEquals(count, 5)
    lu.assertEquals(results, { true, { affected_rows = 1 }, { { line = "a" } }, true, { { one = 1 } } })
    lu.assertEquals(pg.transaction_status, "I")
    lu.assertEquals(log_lines(), "a")
end

function TestTexts.test_what_comes_before_a_begin_is_part_of_it()
    ok "insert into log values ('a'); begin; insert into log values ('b')"
    lu.assertEquals(pg.transaction_status, "T")
    ok "rollback"
    lu.assertEquals(log_lines(), "")
end

function TestTexts.test_what_comes_before_an_end_is_ended_by_it()
    ok "insert into log values ('a'); commit; insert into log values ('b')"
    lu.assertEquals(log_lines(), "a,b")
    ok "insert into log values ('c'); rollback; insert into log values ('d')"
    lu.assertEquals(log_lines(), "a,b,d")
end

function TestTexts.test_an_error_ends_the_text()
    local sql = "begin; insert into log values ('a'); select nothing; commit"
    local result, err, partial, count = pg:query(sql)
    lu.assertEquals({ result, err, partial, count }, {
        nil, ('ERROR: column "nothing" does not exist (%d)'):format(sql:find "nothing"),
            { true, { affected_rows = 1 } }, 2,
    })
    lu.assertEquals(pg.transaction_status, "E")
    ok "rollback"
    error_of "insert into log values ('b'); commit; insert into log values ('c'); select nothing"
    lu.assertEquals(pg.transaction_status, "I")
    lu.assertEquals(log_lines(), "b")
end

function TestTexts.test_code_runs_in_a_transaction_of_its_own()
    lu.assertEquals({ pg:query "do $$ begin raise notice 'hi'; insert into log values ('a'); end $$" },
        { true, 1, nil, { "NOTICE: hi" } })
    ok "insert into log values ('b'); do $$ begin insert into log values ('c'); end $$"
    lu.assertEquals(log_lines(), "a,b,c")
    error_of "insert into log values ('d'); do $$ begin raise 'no'; end $$"
    lu.assertEquals(log_lines(), "a,b,c")
    lu.assertEquals(pg.transaction_status, "I")
    ok "begin; do $$ begin insert into log values ('e'); end $$; rollback"
    lu.assertEquals(log_lines(), "a,b,c")
end

function TestTexts.test_a_deferred_constraint_speaks_at_the_end()
    ok "create table deferred (a int unique deferrable initially deferred)"
    lu.assertStrContains(error_of "insert into deferred values (1); insert into deferred values (1)",
        "duplicate key")
    ok "begin; insert into deferred values (1); insert into deferred values (1)"
    lu.assertStrContains(error_of "commit", "duplicate key")
    lu.assertEquals(pg.transaction_status, "I")
    ok "drop table deferred"
end

function TestTexts.test_what_cannot_run_in_a_transaction_runs_alone()
    lu.assertTrue(ok "vacuum log")
    lu.assertTrue(ok "create index concurrently log_line on log (line)")
    lu.assertTrue(ok "drop index log_line")
    ok "begin"
    lu.assertStrContains(error_of "vacuum log", "cannot run inside a transaction block")
    ok "rollback"
end

-- ---- settings ---------------------------------------------------------------------------------------------

TestSettings = { setUp = set_up, tearDown = tear_down }

local function shown(name)
    return (next(ok("show " .. name)[1]) and select(2, next(ok("show " .. name)[1])))
end

function TestSettings.test_they_hold_for_every_statement_of_the_object_and_for_no_other()
    lu.assertTrue(ok "set search_path to pg_catalog, \"My Schema\", 'public'")
    lu.assertEquals(shown "search_path", 'pg_catalog, "My Schema", "public"')
    lu.assertEquals((connected():query "show search_path"), { { search_path = '"$user", public' } })
    ok "begin"
    lu.assertEquals(shown "search_path", 'pg_catalog, "My Schema", "public"')
    ok "rollback"
    lu.assertEquals(pg:query "select 1 as one; select 2 as two", { { { one = 1 } }, { { two = 2 } } })
    lu.assertEquals(error_of "select 1; select nothing", 'ERROR: column "nothing" does not exist (18)')
    pg:keepalive()
    pg:connect()
    lu.assertEquals(shown "search_path", '"$user", public')
end

function TestSettings.test_every_spelling_is_known()
    for sql, expected in pairs {
        ["set datestyle = 'SQL, DMY'"] = { "datestyle", "SQL, DMY" },
            ["SET SESSION work_mem TO '8MB';"] = { "work_mem", "8MB" },
        ["set datestyle to iso, mdy"] = { "datestyle", "ISO, MDY" },
            ["set time zone 'Europe/Berlin'"] = { "timezone", "Europe/Berlin" },
        ["set timezone = utc"] = { "timezone", "UTC" }, ["set schema 'pg_catalog'"] = { "search_path",
            '"pg_catalog"' },
        ["set app.name = 'o''hara'"] = { "app.name", "o'hara" },
            ["set statement_timeout = 1234"] = { "statement_timeout", "1234ms" },
        ["set enable_seqscan to off"] = { "enable_seqscan", "off" },
    } do
        lu.assertTrue(ok(sql), sql)
        lu.assertEquals(shown(expected[1]), expected[2], sql)
        lu.assertTrue(ok "reset all")
    end
    lu.assertTrue(ok "set names 'utf8'")
    lu.assertTrue(ok "set client_encoding to UTF8")
end

function TestSettings.test_they_can_be_taken_back()
    ok "set work_mem = '8MB'; set datestyle = 'german'"
    ok "reset work_mem"
    lu.assertEquals(shown "work_mem", "4MB")
    lu.assertEquals(shown "datestyle", "German, DMY")
    ok "set datestyle to default"
    lu.assertEquals(shown "datestyle", "ISO, MDY")
    ok "set work_mem = '8MB'"
    ok "discard all"
    lu.assertEquals(shown "work_mem", "4MB")
end

function TestSettings.test_the_server_says_which_it_takes()
    lu.assertEquals(error_of "set nope to 1", 'ERROR: unrecognized configuration parameter "nope"')
    lu.assertStrContains(error_of "set work_mem to 'lots'", 'invalid value for parameter "work_mem"')
    lu.assertEquals(shown "work_mem", "4MB")
end

function TestSettings.test_identity_and_encoding_are_not_to_be_set()
    for _, sql in ipairs {
        "set role web_anon", "set session role web_anon", "set session authorization app_anon",
            "set role to 'web_anon'",
        "set client_encoding to latin1", "set names 'latin1'", "set \"role\" = x",
            "set request.jwt.claims = '{}'",
        "set row_security = off", "set session characteristics as transaction read only",
            "set work_mem = (select 1)",
    } do
        lu.assertStrContains(error_of(sql), "refused: SET: ", sql)
    end
end

function TestSettings.test_in_a_transaction_they_are_local_or_refused()
    ok "begin"
    ok "set local work_mem = '9MB'"
    lu.assertEquals(shown "work_mem", "9MB")
    lu.assertStrContains(error_of "set work_mem = '8MB'", "SET LOCAL")
    lu.assertEquals(pg.transaction_status, "T")
    ok "commit"
    lu.assertEquals(shown "work_mem", "4MB")
end

function TestSettings.test_with_them_what_cannot_run_in_a_transaction_is_refused()
    ok "set work_mem = '8MB'"
    lu.assertStrContains(error_of "vacuum log", "RESET them first")
    ok "reset all"
    ok "vacuum log"
end

-- ---- what belongs to a connection -------------------------------------------------------------------------

TestRefusals = { setUp = set_up, tearDown = tear_down }

local of_a_session = {
    { "create temp table t (a int)", "temporary table" }, { "create local temporary table t (a int)",
        "temporary table" },
    { "prepare p as select 1", "PREPARE" }, { "execute p", "PREPARE" }, { "deallocate all", "PREPARE" },
    { "load 'x'", "PREPARE" },
    { "select pg_advisory_lock(1)", "advisory lock" }, { "select PG_TRY_ADVISORY_LOCK_SHARED (1)",
        "advisory lock" },
    { "declare c cursor with hold for select 1", "WITH HOLD" },
}

function TestRefusals.test_what_would_be_gone_at_once_is_refused()
    for _, case in ipairs(of_a_session) do
        local result = { pg:query(case[1]) }
        lu.assertStrContains(result[2], case[2], false, false, case[1])
        lu.assertEquals(result[7].code, "refused")
    end
    lu.assertEquals(ok "select 'pg_advisory_lock' as text", { { text = "pg_advisory_lock" } })
    lu.assertEquals(ok "select pg_advisory_xact_lock(1) is null as done", { { done = false } })
end

function TestRefusals.test_in_a_transaction_it_is_there_as_long_as_that()
    ok "begin"
    ok "create temp table t (a int)"
    ok "insert into t values (1)"
    ok "prepare p as select a from t"
    lu.assertEquals(ok "execute p", { { a = 1 } })
    ok "select pg_advisory_lock(7)"
    ok "commit"
    lu.assertEquals(fixture.leftovers(pg.engine.db), "")
    lu.assertStrContains(error_of "select * from t", 'relation "t" does not exist')
    lu.assertEquals(ok "select count(*) from pg_locks where locktype = 'advisory'", { { count = 0 } })
end

function TestRefusals.test_and_in_one_text_too()
    lu.assertEquals(ok "create temp table t as select 1 as a; select a from t",
        { { affected_rows = 1 }, { { a = 1 } } })
end

function TestRefusals.test_copy_and_two_phases_are_refused_everywhere()
    for _, sql in ipairs { "copy log to stdout", "prepare transaction 'a'", "commit prepared 'a'",
        "rollback prepared 'a'" } do
        lu.assertStrContains(error_of(sql), "refused: ")
        ok "begin"
        lu.assertStrContains(error_of(sql), "refused: ")
        ok "rollback"
    end
end

-- ---- LISTEN ---------------------------------------------------------------------------------------------------------

TestListening = { setUp = set_up, tearDown = tear_down }

-- A listener as Weir's are, that hears what is said to it here.
local function with_listener()
    local listeners = {}
    local function listen(_, ...)
        local listener = { channels = { ... }, heard = {} }
        function listener:wait(seconds)
            self.waited = seconds
            return table.remove(self.heard, 1)
        end
        function listener:close() self.closed = true end
        listeners[#listeners + 1] = listener
        return listener
    end
    pg._handle = setmetatable({ listen = listen }, { __index = pg:handle() })
    return listeners
end

function TestListening.test_notifications_come_with_queries_and_can_be_waited_for()
    local listeners = with_listener()
    lu.assertTrue(ok "listen Jobs")
    lu.assertTrue(ok "listen jobs")
    lu.assertEquals(#listeners, 1)
    lu.assertEquals(listeners[1].channels, { "jobs" })
    table.insert(listeners[1].heard, { channel = "jobs", payload = "1", pid = 7 })
    local _, _, notifications = pg:query "select 1"
    local expected = { operation = "notification", channel = "jobs", payload = "1", pid = 7 }
    lu.assertEquals(notifications, { expected })
    lu.assertNil((select(3, pg:query "select 1")))
    table.insert(listeners[1].heard, { channel = "jobs", payload = "1", pid = 7 })
    pg:settimeout(2500)
    pg._handle = nil
    lu.assertEquals(pg:wait_for_notification(), expected)
    lu.assertEquals(listeners[1].waited, 2.5)
    lu.assertEquals({ pg:wait_for_notification() }, { nil, "timeout" })
end

function TestListening.test_channels_come_and_go()
    local listeners = with_listener()
    ok 'listen a; listen "B b"'
    table.insert(listeners[2].heard, { channel = "a", payload = "", pid = 1 })
    ok "unlisten a"
    lu.assertEquals(listeners[2].channels, { "B b", "a" })
    lu.assertEquals(listeners[3].channels, { "B b" })
    lu.assertTrue(listeners[1].closed and listeners[2].closed)
    ok "unlisten *"
    lu.assertTrue(listeners[3].closed)
    lu.assertEquals({ pg:wait_for_notification() }, { nil, "not listening" })
    ok "listen a"
    pg:keepalive()
    lu.assertTrue(listeners[4].closed)
end

function TestListening.test_a_real_notification()
    lu.skipIf(not pg:handle().listen, "this build has no listener")
    ok "listen jobs"
    fixture.server():sql "notify jobs, 'one'"
    pg:settimeout(5000)
    local notification = assert(pg:wait_for_notification())
    lu.assertEquals({ notification.operation, notification.channel, notification.payload },
        { "notification", "jobs", "one" })
end

-- ---- PostgresPool -----------------------------------------------------------------------------------------

TestPool = {}

local pool

function TestPool.setUp()
    pool = pools.PostgresPool(options())
    assert(pool:connect())
end

function TestPool.tearDown()
    pool:disconnect()
end

function TestPool.test_it_is_connected_once()
    lu.assertEquals(pool:pool_size(), 1)
    lu.assertEquals({ pool:connect() }, { nil, "already connected" })
    lu.assertTrue(pool:disconnect())
    lu.assertEquals(pool:pool_size(), 0)
    lu.assertEquals({ pool:query "select 1" }, { nil, "not connected", nil, 0 })
    lu.assertEquals({ pool:reserve() }, { nil, "not connected" })
    local nowhere = pools.new(options { database = "nonexistent_db_xyz" })
    local done, err = nowhere:connect()
    lu.assertEquals({ done, err }, { nil, 'FATAL: database "nonexistent_db_xyz" does not exist' })
end

function TestPool.test_it_queries_like_one_object()
    lu.assertEquals((pool:query "select 1 as num"), { { num = 1 } })
    lu.assertEquals((pool:simple_query "select 1 as num"), { { num = 1 } })
    lu.assertEquals((pool:extended_query("select $1::int as num", 42)), { { num = 42 } })
    lu.assertEquals(pool:escape_identifier "my_table", '"my_table"')
    lu.assertEquals(pool:escape_literal "hello", "'hello'")
    lu.assertEquals(tostring(pool), "<PostgresPool size: 1>")
    lu.assertErrorMsgContains("can't use wait for notification with pool",
        function() pool:wait_for_notification() end)
end

function TestPool.test_it_grows_only_when_all_are_busy()
    pool:query "select 1"
    pool:query "select 2"
    lu.assertEquals({ pool:pool_size(), pool:active_connections() }, { 1, 0 })
    pool.pool[1].busy = true
    lu.assertEquals(pool:active_connections(), 1)
    lu.assertNotNil((pool:query "select 1"))
    lu.assertEquals(pool:pool_size(), 2)
    pool.pool[1].busy = false
    lu.assertEquals(pool:active_connections(), 0)
end

function TestPool.test_it_grows_up_to_its_size()
    pool = pools.new(options { max_pool_size = 2 })
    pool:connect()
    local first, second = pool:reserve(), pool:reserve()
    lu.assertEquals(pool:pool_size(), 2)
    lu.assertEquals({ pool:query "select 1" }, { nil, "pool exhausted, max_pool_size reached", nil, 0 })
    lu.assertEquals({ pool:reserve() }, { nil, "pool exhausted, max_pool_size reached" })
    lu.assertTrue(pool:release(first))
    lu.assertTrue(pool:release(second))
end

function TestPool.test_settings_are_for_all_there_are_and_will_be()
    pool:settimeout(5000)
    pool:set_type_deserializer(25, "my_text", function(_, text) return "my " .. text end)
    pool.pool[1].busy = true
    lu.assertEquals((pool:query "select 'test'::text as t"), { { t = "my test" } })
    pool.pool[1].busy = false
    lu.assertEquals({ pool.pool[1].timeout, pool.pool[2].timeout }, { 5000, 5000 })
    lu.assertIs(pool.pool[1].PG_TYPES, pool.PG_TYPES)
    lu.assertIs(pool.pool[2].PG_TYPES, pool.PG_TYPES)
    lu.assertEquals(pool.PG_TYPES[25], "my_text")
end

function TestPool.test_one_can_be_had_alone_for_a_transaction()
    local one = pool:reserve()
    lu.assertTrue(one.reserved)
    one:query "begin"
    lu.assertNotNil((pool:query "select 1"))
    lu.assertEquals(pool:pool_size(), 2)
    one:query "select * from nonexistent_table_xyz"
    lu.assertEquals(one.transaction_status, "E")
    lu.assertTrue(pool:release(one))
    lu.assertEquals({ one.transaction_status, one.reserved }, { "I" })
    lu.assertEquals({ pool:release(one) }, { nil, "connection not reserved" })
    lu.assertEquals({ pool:release(pgmoon.new()) }, { nil, "connection not from this pool" })
    lu.assertTrue(pool:keepalive())
end

os.exit(lu.LuaUnit.run(), true)
