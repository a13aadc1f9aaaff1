-- Transactions that their owner drives himself (handle:begin), what a failed pipeline leaves behind,
-- parameters with declared types, and results that somebody else decodes.

local lu = require "luaunit"
local fixture = require "fixture"
local weir = require "weir"

local db
local function service()
    db = db or fixture.open { leak_after = 0 }
    return db:service()
end

local function fresh_log()
    fixture.server():sql "truncate log"
end

local function log_lines()
    return (fixture.server():sql "select string_agg(line, ',' order by line) from log")
end

TestByHand = {}

function TestByHand.setUp()
    fresh_log()
end

function TestByHand.tearDown()
    lu.assertEquals(fixture.leftovers(db), "")
end

function TestByHand.test_what_was_committed_is_there_and_nothing_before()
    local unit = assert(service():begin "import")
    lu.assertEquals(unit:query("insert into log values ($1)", "a"), { affected_rows = 1 })
    lu.assertEquals(log_lines(), "")
    lu.assertEquals(unit:query "select line from log", { { line = "a" } })
    lu.assertTrue(unit:commit())
    lu.assertEquals(log_lines(), "a")
end

function TestByHand.test_what_was_rolled_back_is_gone()
    local unit = assert(service():begin "import")
    unit:query "insert into log values ('a')"
    lu.assertTrue(unit:rollback())
    lu.assertEquals(log_lines(), "")
end

function TestByHand.test_nothing_can_be_done_after_the_end()
    local unit = assert(service():begin "import")
    unit:commit()
    lu.assertTrue(unit:is_over())
    lu.assertEquals(unit:remaining(), 0)
    local result, err = unit:query "select 1"
    lu.assertNil(result)
    lu.assertStrContains(err.message, "has ended")
    lu.assertNil((unit:commit()))
    lu.assertTrue(unit:rollback())
end

function TestByHand.test_an_error_is_returned_and_a_savepoint_leads_out_of_it()
    local unit = assert(service():begin "import")
    unit:query "insert into log values ('a')"
    unit:query "savepoint s"
    local result, err = unit:query "select * from nowhere"
    lu.assertNil(result)
    lu.assertEquals(err.sqlstate, "42P01")
    lu.assertFalse(unit:is_over())
    lu.assertTrue(unit:query "rollback to s")
    lu.assertTrue(unit:commit())
    lu.assertEquals(log_lines(), "a")
end

function TestByHand.test_a_failed_one_is_not_committed_and_says_so()
    local unit = assert(service():begin "import")
    unit:query "insert into log values ('a')"
    unit:query "select * from nowhere"
    local done, err = unit:commit()
    lu.assertNil(done)
    lu.assertEquals(err.code, "aborted")
    lu.assertEquals(err.outcome, "rolled_back")
    lu.assertEquals(log_lines(), "")
end

function TestByHand.test_an_error_leaves_what_came_before_it()
    local unit = assert(service():begin "import")
    local results, err, before = unit:pipeline { { "select 1 as one" }, { "select nothing" }, { "select 3" } }
    lu.assertNil(results)
    lu.assertEquals(err.sqlstate, "42703")
    lu.assertEquals(before, { { { one = 1 } } })
    unit:rollback()
end

-- Both read what the other writes; the second to commit cannot, and his statements have been seen.
function TestByHand.test_it_is_never_run_again_though_the_policy_would_retry()
    local handle = service():with { isolation = "serializable" }
    local one, other = assert(handle:begin "one"), assert(handle:begin "other")
    for _, unit in ipairs { one, other } do unit:query "select count(*) from log" end
    one:query "insert into log values ('one')"
    other:query "insert into log values ('other')"
    lu.assertTrue(one:commit())
    local done, err = other:commit()
    lu.assertNil(done)
    lu.assertEquals(err.sqlstate, "40001")
    lu.assertEquals(err.class, "safe")
    lu.assertEquals(err.attempts, 1)
    lu.assertEquals(log_lines(), "one")
end

function TestByHand.test_a_connection_that_is_lost_has_rolled_back()
    local unit = assert(service():begin "import")
    unit:query "insert into log values ('a')"
    local pid = unit:query("select pg_backend_pid() as pid")[1].pid
    fixture.server():sql("select pg_terminate_backend(" .. pid .. ")")
    local result, err = unit:query "insert into log values ('b')"
    lu.assertNil(result)
    lu.assertNotNil(err.code)
    lu.assertTrue(unit:rollback())
    lu.assertEquals(log_lines(), "")
end

function TestByHand.test_its_deadline_ends_it()
    local unit = assert(service():with({ timeout = 0.05 }):begin "import")
    unit:query "insert into log values ('a')"
    local result, err = unit:query "select pg_sleep(10)"
    lu.assertNil(result)
    lu.assertEquals(err.code, "timeout")
    lu.assertTrue(unit:is_over())
    local done, again = unit:commit()
    lu.assertNil(done)
    lu.assertEquals(again.code, "timeout")
    lu.assertEquals(log_lines(), "")
end

function TestByHand.test_without_a_connection_there_is_none()
    local nowhere = assert(weir.open {
        backends = { primary = "host=/nowhere" }, clients = { service = { bypass_rls = true } }, retries = 0,
    })
    local unit, err = nowhere:service():begin "import"
    lu.assertNil(unit)
    lu.assertEquals(err.code, "connect_failed")
    nowhere:close()
end

function TestByHand.test_it_is_under_row_level_security_too()
    local unit = assert(fixture.open():anon({ sub = "ann" }):begin "mine")
    lu.assertEquals(#unit:query "select name from contacts", 2)
    unit:commit()
end

TestPipelines = {}

function TestPipelines.test_an_error_leaves_the_results_before_it_and_no_effects()
    fresh_log()
    local results, err, before = service():pipeline("both", {
        { "insert into log values ('a')" }, { "select line from log" }, { "select * from nowhere" },
    })
    lu.assertNil(results)
    lu.assertEquals(err.sqlstate, "42P01")
    lu.assertEquals(before, { { affected_rows = 1 }, { { line = "a" } } })
    lu.assertEquals(log_lines(), "")
end

function TestPipelines.test_a_lost_connection_leaves_nothing()
    local results, err, before = service():with({ timeout = 0.05 }):pipeline("late", {
        { "select 1" }, { "select pg_sleep(10)" },
    })
    lu.assertNil(results)
    lu.assertEquals(err.code, "timeout")
    lu.assertTrue(#before <= 1)
end

function TestPipelines.test_types_can_be_declared_for_parameters()
    local results = assert(service():pipeline("types", {
        { "select $1 + $1 as sum", 7, types = { 1700 } },
        { "select pg_typeof($1)::text as a, pg_typeof($2)::text as b", nil, "x", n = 3, types = { 16, 25 } },
        { "select $1::int + $2 as sum", 1, 2, types = { 0, 23 } },
        { "select $1 as excess", "a", "b", types = { 25, 25 } },
    }))
    lu.assertEquals(results, {
        { { sum = 14 } }, { { a = "boolean", b = "text" } }, { { sum = 3 } }, { { excess = "a" } },
    })
end

function TestPipelines.test_types_that_are_none_are_misuse()
    for _, types in ipairs { "text", { "text" }, { -1 }, { 1.5 }, { 2 ^ 32 } } do
        lu.assertErrorMsgContains("statement 1: types", function()
            service():pipeline("types", { { "select $1", 1, types = types } })
        end)
    end
end

function TestPipelines.test_results_can_be_read_by_hand()
    local function read(call, number, null)
        local rows, columns, notices = call:result(number, null, { [23] = true })
        return { rows = rows, columns = columns, notices = notices }
    end
    local results = assert(service():pipeline("raw", {
        { "select 1 as one, 2::int8 as two, '{1,2}'::int[] as list, null as nothing, true as yes" },
        { "drop table if exists nowhere" },
    }, read))
    lu.assertEquals(results[1].rows, { { one = 1, two = "2", list = "{1,2}", yes = "t" } })
    lu.assertEquals(results[1].columns, { "one", 23, "two", 20, "list", 1007, "nothing", 25, "yes", 16 })
    lu.assertEquals(results[2].rows, true)
    lu.assertEquals(results[2].columns, {})
    lu.assertEquals(results[2].notices, { 'NOTICE: table "nowhere" does not exist, skipping' })
end

function TestPipelines.test_what_a_reader_raises_is_passed_on_and_nothing_is_held()
    lu.assertErrorMsgContains("unreadable", function()
        service():pipeline("raw", { { "select 1" } }, function() error "unreadable" end)
    end)
    lu.assertEquals(fixture.leftovers(db), "")
end

os.exit(lu.LuaUnit.run(), true)
