-- pgmoon's interface: connecting, results, errors, text. What a user of pgmoon expects, case by case.

local lu = require "luaunit"
local fixture = require "fixture"
local compat = require "weir.compat"
local testing = require "weir.testing"
local pgmoon = require "resty.weir.pgmoon"
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

local function values(...)
    return { n = select("#", ...), ... }
end

TestResults = {}

function TestResults.setUp()
    pg = connected()
    assert(pg:query [[create table hello_world (id serial not null, name text,
        count integer not null default 0, flag boolean default true, primary key (id))]])
end

function TestResults.tearDown()
    assert(pg:query "drop table hello_world")
    pg:disconnect()
end

local function with_rows()
    for i = 1, 10 do
        assert(pg:query(("insert into hello_world (name, count) values ('thing_%d', %d)"):format(i, i)))
    end
end

function TestResults.test_what_has_no_rows_is_true()
    for _, sql in ipairs { "create table other (a int)", "truncate hello_world", "drop table other" } do
        lu.assertEquals(values(pg:query(sql)), { n = 4, true, 1 })
    end
end

function TestResults.test_rows_are_a_list_of_hashes()
    lu.assertEquals(values(pg:query "select 1 as one"), { n = 4, { { one = 1 } }, 1 })
    lu.assertEquals((pg:query "select 1"), { { ["?column?"] = 1 } })
    lu.assertEquals((pg:query "select * from hello_world limit 2"), {})
    lu.assertEquals((pg:query "select count(*) from hello_world"), { { count = 0 } })
    lu.assertEquals((pg:query "select 1 as dog, 'hello' as dog"), { { dog = "hello" } })
    lu.assertEquals((pg:query "select '{1}'::int[] as dog, 2 as dog"), { { dog = 2 } })
    lu.assertEquals((pg:query "select row(1, 'hello', 5.999)"), { { row = "(1,hello,5.999)" } })
    lu.assertEquals((pg:query "select (1, 'hello', 5.999)"), { { row = "(1,hello,5.999)" } })
end

function TestResults.test_changes_tell_how_many()
    lu.assertEquals((pg:query "insert into hello_world (name) values ('hi')"), { affected_rows = 1 })
    lu.assertEquals((pg:query "update hello_world set name = 'ho' where id = 77"), { affected_rows = 0 })
    lu.assertEquals((pg:query "delete from hello_world"), { affected_rows = 1 })
    lu.assertEquals((pg:query "delete from hello_world"), { affected_rows = 0 })
end

function TestResults.test_returning_gives_both()
    lu.assertEquals((pg:query "insert into hello_world (name) values ('hi') returning id"),
        { affected_rows = 1, { id = 1 } })
end

function TestResults.test_rows_come_and_go()
    with_rows()
    lu.assertEquals(#pg:query "select * from hello_world", 10)
    lu.assertEquals((pg:query "update hello_world set name = 'blahblah'"), { affected_rows = 10 })
    lu.assertEquals((pg:query "select name from hello_world limit 1"), { { name = "blahblah" } })
    lu.assertEquals((pg:query "delete from hello_world where id = 1"), { affected_rows = 1 })
    lu.assertEquals((pg:query "select * from hello_world where id = 1"), {})
end

function TestResults.test_several_statements_give_a_list()
    with_rows()
    local two = [[
        select id, flag from hello_world order by id asc limit 2;
        select id, flag from hello_world order by id asc limit 2 offset 2;
    ]]
    local first = { { id = 1, flag = true }, { id = 2, flag = true } }
    local second = { { id = 3, flag = true }, { id = 4, flag = true } }
    lu.assertEquals(values(pg:query(two)), { n = 4, { first, second }, 2 })
    lu.assertEquals(values(pg:query(two .. "select 1 as one")), { n = 4, { first, second, { { one = 1 } } },
        3 })
    local update = "update hello_world set flag = false where id = 3; "
    lu.assertEquals((pg:query(update .. "update hello_world set flag = true")),
        { { affected_rows = 1 }, { affected_rows = 10 } })
    lu.assertEquals((pg:query(update .. "select flag from hello_world where id = 3")),
        { { affected_rows = 1 }, { { flag = false } } })
end

function TestResults.test_an_error_in_the_second_gives_the_first_and_undoes_it()
    with_rows()
    local sql = "select id, flag from hello_world order by id asc limit 1;\n"
        .. "  select id, flag from jello_world limit 1;"
    local position = sql:find "jello"
    local result = values(pg:query(sql))
    lu.assertNil(result[1])
    lu.assertEquals(result[2], ('ERROR: relation "jello_world" does not exist (%d)'):format(position))
    lu.assertEquals(result[3], { { id = 1, flag = true } })
    lu.assertEquals(result[4], 1)
    lu.assertEquals(result[7].sqlstate, "42P01")
    pg:query "delete from hello_world; select * from jello_world"
    lu.assertEquals(#pg:query "select * from hello_world", 10)
end

function TestResults.test_positions_are_counted_in_characters()
    local _, err = pg:query "select 'äöü€𝄞'; select nothing"
    lu.assertEquals(err, 'ERROR: column "nothing" does not exist (24)')
end

function TestResults.test_an_error_is_a_string_and_the_object_goes_on()
    local result = values(pg:query "select * from blahlbhabhabh")
    lu.assertEquals({ result[1], result[2], result[3], result[4] },
        { nil, 'ERROR: relation "blahlbhabhabh" does not exist (15)', nil, 0 })
    lu.assertTrue(weir.is_error(result[7]))
    lu.assertEquals((pg:query "select 1 as one"), { { one = 1 } })
end

function TestResults.test_a_detail_is_on_a_line_of_its_own()
    pg:query "insert into hello_world (id) values (1)"
    local _, err = pg:query "insert into hello_world (id) values (1)"
    lu.assertEquals(err, 'ERROR: duplicate key value violates unique constraint "hello_world_pkey"\n'
        .. "Key (id)=(1) already exists.")
end

function TestResults.test_notices_are_the_fourth_value()
    lu.assertEquals(values(pg:query "drop table if exists farts"),
        { n = 4, true, 1, nil, { 'NOTICE: table "farts" does not exist, skipping' } })
end

function TestResults.test_nothing_at_all_is_no_query()
    lu.assertEquals(values(pg:query " -- nothing; "), { n = 4, true, 0 })
end

function TestResults.test_a_zero_byte_is_refused()
    lu.assertEquals(values(pg:query "select '\0'"), { n = 2, nil, "invalid null byte in query" })
    lu.assertErrorMsgContains("test_pgmoon.lua:", function() pg:query(nil) end)
end

function TestResults.test_many_statements_are_one_transaction_still()
    local parts = {}
    for i = 1, 1200 do parts[i] = "insert into hello_world (count) values (" .. i .. ")" end
    local results, count = pg:query(table.concat(parts, ";"))
    lu.assertEquals({ #results, count }, { 1200, 1200 })
    local _, err, _, done = pg:query(table.concat(parts, ";") .. "; select * from nowhere")
    lu.assertStrContains(err, "nowhere")
    lu.assertEquals(done, 1200)
    lu.assertEquals((pg:query "select count(*) from hello_world"), { { count = 1200 } })
end

function TestResults.test_simple_query_and_extended_query_can_be_called_by_name()
    lu.assertEquals((pg:simple_query "select 1 as num"), { { num = 1 } })
    lu.assertEquals((pg:extended_query("select $1::int as num", 42)), { { num = 42 } })
end

TestConnecting = {}

function TestConnecting.test_a_database_that_is_not_there()
    local result = values(pgmoon.new(options { database = "doesnotexist" }):connect())
    lu.assertEquals({ result[1], result[2] }, { nil, 'FATAL: database "doesnotexist" does not exist' })
    lu.assertEquals(result[3].code, "connect_failed")
end

function TestConnecting.test_without_a_database_it_is_misuse()
    lu.assertErrorMsgContains("missing database for connect",
        function() pgmoon.new({ host = "/nowhere" }):connect() end)
end

function TestConnecting.test_a_server_that_is_not_there()
    local done, err = pgmoon.new(options { host = "/nowhere", weir_options = { retries = 0 } }):connect()
    lu.assertNil(done)
    lu.assertStrContains(err, "No such file or directory")
end

function TestConnecting.test_a_server_that_does_not_answer()
    fixture.server():freeze()
    local late = pgmoon.new(options { pool = "late" })
    late:settimeout(50)
    local done, err = late:connect()
    fixture.server():thaw()
    lu.assertEquals({ done, err }, { nil, "timeout" })
end

function TestConnecting.test_ssl_goes_on_in_clear_unless_it_is_required()
    local server = assert(testing.postgres { tcp = true, name = "tcp" }) -- there is no TLS on a Unix socket
    local function try(more)
        more.host, more.port, more.weir_options = "127.0.0.1", server.port, { retries = 0 }
        return pgmoon.new(options(more)):connect()
    end
    lu.assertTrue(try {})
    lu.assertTrue(try { ssl = true })
    local required = values(try { ssl = true, ssl_required = true })
    lu.assertEquals({ required[1], required[2] }, { nil, "the server does not support SSL connections" })
    lu.assertNil((try { ssl = true, ssl_verify = true, cafile = "/dev/null" }))
    server:close()
end

function TestConnecting.test_keepalive_and_connect_again()
    local it = connected()
    lu.assertTrue(it:keepalive())
    lu.assertEquals(values(it:query "select 1"), { n = 2, nil, "not connected" })
    lu.assertEquals(values(it:keepalive()), { n = 2, nil, "not connected" })
    lu.assertTrue(it:connect())
    lu.assertEquals((it:query "select 1 as one"), { { one = 1 } })
    lu.assertTrue(it:disconnect())
    lu.assertTrue(it:disconnect())
    lu.assertEquals(values(it:wait_for_notification()), { n = 2, nil, "not connected" })
end

function TestConnecting.test_objects_of_one_configuration_share_an_engine()
    local one, other, third = connected(), connected(), connected { pool = "another" }
    lu.assertIs(one.engine, other.engine)
    lu.assertNotIs(one.engine, third.engine)
    local function with_options()
        return connected { weir_options = { retries = 1, breaker = { window = 5 } } }
    end
    lu.assertIs(with_options().engine, with_options().engine)
    lu.assertNotIs(with_options().engine, one.engine)
    lu.assertNotIs(connected({ weir_options = { retries = 2, breaker = { window = 5 } } }).engine, with_options().engine)
end

function TestConnecting.test_configurations_without_end_are_misuse()
    local made = {}
    lu.assertErrorMsgContains("must be made once", function()
        for i = 1, 100 do
            made[i] = pgmoon.new(options { weir_options = { label = function(context) return context .. i end } })
            made[i]:connect()
        end
    end)
    for _, it in ipairs(made) do
        if it.engine then it.engine.db:close() end
    end
end

function TestConnecting.test_socket_path_names_folder_and_port()
    local server = fixture.server()
    local it = pgmoon.new { socket_path = ("%s/.s.PGSQL.%d"):format(server.dir, server.port),
        database = "postgres" }
    lu.assertTrue(it:connect())
    lu.assertErrorMsgContains("socket_path", function()
        pgmoon.new({ socket_path = "/tmp/socket", database = "postgres" }):connect()
    end)
end

function TestConnecting.test_a_query_that_takes_too_long()
    local it = connected()
    it:settimeout(50)
    local result, err = it:query "select pg_sleep(10)"
    lu.assertEquals({ result, err }, { nil, "timeout" })
    it:settimeout(5000)
    lu.assertEquals((it:query "select 1 as one"), { { one = 1 } })
end

function TestConnecting.test_an_engine_that_exists()
    local db = fixture.open()
    local it = pgmoon.new { weir = db, client = "service" }
    lu.assertTrue(it:connect())
    lu.assertEquals((it:query "select current_user as who"), { { who = "app_service" } })
    local ann = pgmoon.new { weir = db, claims = { sub = "ann" } }
    lu.assertTrue(ann:connect())
    lu.assertEquals(#ann:query "select * from contacts", 2)
    lu.assertEquals((ann:query "select current_user as who"), { { who = "web_anon" } })
    db:force(nil, "open")
    local result = values(ann:query "select 1")
    lu.assertNil(result[1])
    lu.assertStrContains(result[2], "breaker_open")
    lu.assertEquals(result[7].code, "breaker_open")
    db:close()
end

function TestConnecting.test_with_a_role_calls_are_under_row_level_security()
    local it = connected { user = "app_anon", role = "web_anon", claims = { sub = "joe" } }
    lu.assertEquals((it:query "select name from contacts"), { { name = "Dee" } })
    assert(it:query "begin")
    lu.assertEquals((it:query "select name from contacts"), { { name = "Dee" } })
    assert(it:query "commit")
    local done, err = pgmoon.new(options { role = "web_anon", claims = {sub = "joe"} }):connect()
    lu.assertNil(done)
    lu.assertStrContains(err, "identity_refused")
end

function TestConnecting.test_the_context_is_told_to_the_server()
    local it = connected { application_name = "reports" }
    lu.assertEquals((it:query "show application_name")[1].application_name,
        weir.host == "nginx" and "GET /" or "reports")
    lu.assertEquals((connected { context = "nightly" }:query "show application_name"),
        { { application_name = "nightly" } })
end

TestOptions = {}

function TestOptions.test_what_would_weaken_a_connection_is_refused()
    for option, value in pairs {
        luasec_opts = {}, cqueues_openssl_context = {}, ssl_requird = true, ssl_version = "sslv3",
            cafile = {},
        cert = "-----BEGIN CERTIFICATE-----", numeric_mode = "fast", claims = { sub = "a" },
            role = "web_anon",
        bypass_rls = false, weir_options = { clients = {} }, timeout = "soon",
    } do
        lu.assertErrorMsgContains("test_pgmoon.lua:", function() pgmoon.new { [option] = value } end)
    end
    lu.assertErrorMsgContains("the options are a string", pgmoon.new, "host=localhost")
end

function TestOptions.test_what_has_no_meaning_here_is_ignored()
    local it = connected { socket_type = "luasocket", backend = "primary", pool_size = 3, backlog = 5,
        pool_name = "mine" }
    lu.assertEquals((it:query "select 1 as one"), { { one = 1 } })
end

function TestOptions.test_the_class_makes_objects_too()
    local it = pgmoon.Postgres(options())
    lu.assertEquals({ it.user, it.database, it.sock_type }, { "postgres", "postgres", "weir" })
    lu.assertEquals(pgmoon.Postgres().host, "127.0.0.1")
    lu.assertIs(getmetatable(it), pgmoon.Postgres.__base)
    lu.assertEquals(pgmoon.VERSION, weir.version)
end

function TestOptions.test_it_says_how_it_stands()
    local it = pgmoon.new(options())
    lu.assertEquals(tostring(it), "<Postgres socket: weir, not connected>")
    it:connect()
    lu.assertEquals(tostring(it), "<Postgres socket: weir, idle>")
    it:query "begin"
    lu.assertEquals(tostring(it), "<Postgres socket: weir, in a transaction>")
    it:query "nonsense"
    lu.assertEquals(tostring(it), "<Postgres socket: weir, in a failed transaction>")
    it:keepalive()
end

function TestOptions.test_libraries_that_ask_for_pgmoon_can_be_given_this()
    pgmoon.install()
    lu.assertIs(require "pgmoon", pgmoon)
    lu.assertIs(require("pgmoon.arrays").PostgresArray, require("resty.weir.pgmoon.arrays").PostgresArray)
    lu.assertEquals(require("pgmoon.json").encode_json({ a = 1 }), [['{"a":1}']])
    lu.assertIsFunction(require("pgmoon.hstore").encode_hstore)
    lu.assertNotNil(require("pgmoon.pool").PostgresPool)
    for _, name in ipairs { "", ".arrays", ".json", ".hstore", ".pool" } do package.loaded["pgmoon"
        .. name] = nil end
    package.preload["pgmoon.pool"] = nil
end

TestText = {}

function TestText.test_identifiers()
    local it = pgmoon.new()
    for name, expected in pairs { dad = '"dad"', select = '"select"', ['love"fish'] = '"love""fish"' } do
        lu.assertEquals(it:escape_identifier(name), expected)
    end
end

function TestText.test_literals()
    local it = pgmoon.new()
    local cases = {
        { 3434, "3434" }, { 34.342, "34.342" }, { "cat's soft fur", "'cat''s soft fur'" }, { true, "TRUE" },
        { false, "FALSE" },
        { pgmoon.NULL, "NULL" }, { 1 / 0, "'Infinity'" }, { 2 ^ 53, "9007199254740992" },
        { 0.1 + 0.2, "0.30000000000000004" },
    }
    for _, case in ipairs(cases) do lu.assertEquals(it:escape_literal(case[1]), case[2]) end
    it.NULL = {}
    lu.assertEquals(it:escape_literal(it.NULL), "NULL")
    lu.assertEquals(pgmoon.Postgres:escape_literal "hello", "'hello'")
end

function TestText.test_what_is_no_literal_raises_at_the_caller()
    for _, value in ipairs { {}, print } do
        lu.assertErrorMsgContains("don't know how to escape value",
            function() pgmoon.new():escape_literal(value) end)
    end
    lu.assertErrorMsgContains("don't know how to escape value: nil",
        function() pgmoon.new():escape_literal(nil) end)
end

function TestText.test_bytes_go_round()
    local it, bytes = connected(), "encoded' string\\\0\255"
    lu.assertEquals((it:query("select " .. it:encode_bytea(bytes) .. "::bytea")), { { bytea = bytes } })
    lu.assertEquals(it:decode_bytea "a\\\\b\\001\\\\001", "a\\b\1\\001")
    lu.assertEquals(it:decode_bytea "\\x00ff41", "\0\255A")
end

function TestText.test_integers_of_the_wire()
    local it = pgmoon.new()
    local four = {
        [16777216] = { 1, 0, 0, 0 }, [65536] = { 0, 1, 0, 0 }, [131073] = { 0, 2, 0, 1 },
            [1] = { 0, 0, 0, 1 },
        [-2097152000] = { 131, 0, 0, 0 }, [-1862234112] = { 145, 0, 144, 0 }, [-1] = { 255, 255, 255, 255 },
        [2147483647] = { 127, 255, 255, 255 },
    }
    for number, bytes in pairs(four) do
        local text = string.char(compat.unpack(bytes))
        lu.assertEquals(it:encode_int(number), text)
        lu.assertEquals(it:decode_int(text), number)
    end
    for number, bytes in pairs { [256] = { 1, 0 }, [513] = { 2, 1 }, [63992] = { 249, 248 } } do
        local text = string.char(compat.unpack(bytes))
        lu.assertEquals(it:encode_int(number, 2), text)
        lu.assertEquals(it:decode_int(text), number)
    end
    lu.assertErrorMsgContains("3 byte", function() it:encode_int(1, 3) end)
    lu.assertErrorMsgContains("3 byte", function() it:decode_int "abc" end)
end

os.exit(lu.LuaUnit.run(), true)
