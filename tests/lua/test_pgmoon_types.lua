-- Types on their way through pgmoon's interface: parameters, results, arrays, hstore, JSON, NULL.

local lu = require "luaunit"
local fixture = require "fixture"
local arrays = require "resty.weir.pgmoon.arrays"
local hstore = require "resty.weir.pgmoon.hstore"
local literals = require "resty.weir.pgmoon.literals"
local pgmoon = require "resty.weir.pgmoon"
local weir = require "weir"

local PostgresArray = arrays.PostgresArray
local wide = math.type ~= nil -- 64-bit integers

local function connected(more)
    local server = fixture.server()
    local options = { host = server.dir, port = server.port, database = "postgres", user = "postgres" }
    for key, value in pairs(more or {}) do options[key] = value end
    local pg = pgmoon.new(options)
    assert(pg:connect())
    return pg
end

local pg

local function set_up()
    pg = connected()
end

local function one(sql, ...)
    local rows, err = pg:query(sql, ...)
    if not rows then error(err, 2) end
    return rows[1]
end

-- ---- parameters -------------------------------------------------------------------------------------------

TestParameters = { setUp = set_up }

function TestParameters.test_strings_numbers_booleans_and_null()
    lu.assertEquals(one("select $1 a, $2 b, $3 c, $4 d", "one", "two", "three", "four"),
        { a = "one", b = "two", c = "three", d = "four" })
    lu.assertEquals(one("select $1 a, $2 b, $3 c, $4 d", true, false, pg.NULL, 44),
        { a = true, b = false, d = 44 })
    lu.assertEquals(one("select pg_typeof($1)::text a, pg_typeof($2)::text b, pg_typeof($3)::text c", "x", 1,
        true),
        { a = "text", b = "numeric", c = "boolean" })
end

function TestParameters.test_types_need_no_cast()
    lu.assertEquals(one("select $1 + $1 as sum", 7), { sum = 14 })
end

function TestParameters.test_nil_is_null()
    pg.convert_null = true
    lu.assertEquals(one("select $1 as hi, $2 as bye", 1, nil), { hi = 1, bye = pg.NULL })
end

function TestParameters.test_too_few_are_an_error_and_the_object_goes_on()
    local res, err = pg:extended_query "select $1 as hi"
    lu.assertNil(res)
    lu.assertEquals(err, 'ERROR: bind message supplies 0 parameters, but prepared statement "" requires 1')
    local _, other = pg:query("select $3", 1)
    lu.assertEquals(other, 'ERROR: bind message supplies 1 parameters, but prepared statement "" requires 3')
    lu.assertEquals(one "select 1 as one", { one = 1 })
end

function TestParameters.test_too_many_are_ignored()
    lu.assertEquals(one("select $1 as hi", 1, 2), { hi = 1 })
end

function TestParameters.test_only_one_statement_goes_with_them()
    local res, err = pg:query("select $1; select 2", 1)
    lu.assertNil(res)
    lu.assertStrContains(err, "cannot insert multiple commands into a prepared statement")
end

local function with_serializer(value, serialize)
    return setmetatable({ value }, { pgmoon_serialize = serialize })
end

function TestParameters.test_a_table_can_say_what_it_is()
    local function json(value)
        return with_serializer(value, function(self) return 114, literals.encode_json(self[1], tostring) end)
    end
    lu.assertEquals(one("select $1 as a, $2 as b", json { 1, 2, literals.json_null, 4 },
        json { color = "blue", yes = true }),
        { a = { 1, 2, literals.json_null, 4 }, b = { color = "blue", yes = true } })
end

function TestParameters.test_a_table_hears_which_object_asks_and_may_decline()
    local asked
    local res, err = pg:query("select $1", with_serializer(1, function(_, who)
        asked = who
        return nil, "not today"
    end))
    lu.assertIs(asked, pg)
    lu.assertEquals({ res, err }, { nil, "pgmoon: param 1: not today" })
end

function TestParameters.test_a_table_may_be_an_array_of_its_own()
    local function numbers(list)
        return with_serializer(list, function(self) return 1231, "{" .. table.concat(self[1], ",") .. "}" end)
    end
    lu.assertEquals(one("select $1 as a, $2 as b", numbers { 4, 99, 77, -4 }, numbers {}),
        { a = { 4, 99, 77, -4 }, b = {} })
    local res, err = pg:extended_query("select $1 as a", numbers { "hello" })
    lu.assertEquals({ res, err }, { nil, 'ERROR: invalid input syntax for type numeric: "hello"' })
    lu.assertEquals(one "select 1 as one", { one = 1 })
end

function TestParameters.test_a_plain_table_is_refused()
    local res, err = pg:extended_query("select $1 as a", { "hello", world = 9 })
    lu.assertNil(res)
    lu.assertEquals(err, "pgmoon: param 1: table does not implement pgmoon_serialize, can't serialize")
    local _, other = pg:query("select $1, $2", 1, print)
    lu.assertStrContains(other, "param 2: don't know how to serialize a function")
end

function TestParameters.test_weirs_own_wrappers_are_taken_too()
    lu.assertEquals(one("select $1::jsonb as j, $2::int[] as a, $3::bytea as b", weir.json { a = 1 },
        weir.array { 1, 2 },
        weir.bytea "\0\255"), { j = { a = 1 }, a = { 1, 2 }, b = "\0\255" })
end

-- ---- results ----------------------------------------------------------------------------------------------

TestTypes = { setUp = set_up }

local decoded = {
    { "true", true }, { "false", false }, { [[E'\\x68656c6c6f5c20776f726c6427'::bytea]], "hello\\ world'" },
    { "1::int2", 1 }, { "1::int4", 1 }, { "1::int8", 1 }, { "1.5::float4", 1.5 }, { "1.2::float8", 1.2 },
    { "10.50::numeric", 10.5 },
    { "'Infinity'::float8", math.huge },
    { [['{"hello": "world", "arr": [1,2,3], "nested": {"foo": "bar"}}'::json]],
        { hello = "world", arr = { 1, 2, 3 }, nested = { foo = "bar" } } },
    { [['{"hello": "world"}'::jsonb]], { hello = "world" } }, { "'null'::jsonb", literals.json_null },
    { [['"x"'::json]], "x" },
    { "'{t,f}'::bool[]", { true, false } }, { "'{{t,t},{t,f}}'::bool[]",
        { { true, true }, { true, false } } },
    { "'{1,2}'::int2[]", { 1, 2 } }, { "'{1,2}'::int4[]", { 1, 2 } }, { "'{1,2}'::int8[]", { 1, 2 } },
    { "'{1.5}'::float4[]", { 1.5 } }, { "'{1.5}'::float8[]", { 1.5 } },
    { "'{1.5,2}'::numeric[]", { 1.5, 2 } },
    { "'{one,two}'::text[]", { "one", "two" } }, { "'{one}'::varchar[]", { "one" } },
    { "'{1,2}'::char(3)[]", { "1  ", "2  " } },
    { "'{a}'::\"char\"[]", { "a" } },
    { "array['00000000-0000-0000-0000-000000000000']::uuid[]", { "00000000-0000-0000-0000-000000000000" } },
    { "'{127.0.0.1}'::inet[]", { "127.0.0.1" } },
    { "array(select row_to_json(t) from (values (1,'hello'), (2,'world')) as t(id, name))",
        { { id = 1, name = "hello" }, { id = 2, name = "world" } } },
    { "array(select row_to_json(t)::jsonb from (values (442,'itch')) as t(id, name))",
        { { id = 442, name = "itch" } } },
    { "timestamp '2024-02-29 12:00:00'", "2024-02-29 12:00:00" }, { "date '2024-02-29'", "2024-02-29" },
    { "interval '1 day'", "1 day" }, { "'6ecd8c99-4036-403d-bf84-cf8400f67836'::uuid",
        "6ecd8c99-4036-403d-bf84-cf8400f67836" },
    { "'10.0.0.0/8'::inet", "10.0.0.0/8" }, { "'[1,3)'::int4range", "[1,3)" }, { "1::oid", "1" },
    { "row(1, 'hello', 5.999)", "(1,hello,5.999)" }, { "'{2024-01-01}'::date[]", "{2024-01-01}" },
}

local function decodes(cases)
    for _, case in ipairs(cases) do lu.assertEquals(one("select " .. case[1] .. " as value").value, case[2],
        case[1]) end
end

function TestTypes.test_each_type_arrives_as_pgmoons_users_know_it()
    decodes(decoded)
end

function TestTypes.test_and_with_pgmoons_numbers_too()
    pg = connected { numeric_mode = "pgmoon" }
    decodes(decoded)
end

local large = "9223372036854775807"

function TestTypes.test_digits_are_not_lost()
    decodes {
        { large .. "::int8", wide and math.tointeger(large) or large },
        { "9007199254740993::int8", wide and math.tointeger "9007199254740993" or "9007199254740993" },
        { "12345678901234567890.5::numeric", "12345678901234567890.5" },
        { "array[9007199254740993]::int8[]", { wide and math.tointeger "9007199254740993"
            or "9007199254740993" } },
        { "'{12345678901234567890.5,1}'::numeric[]", { "12345678901234567890.5", 1 } },
        { [['{"a": 12345678901234567890, "b": null}'::jsonb]], { a = "12345678901234567890",
            b = literals.json_null } },
    }
end

function TestTypes.test_unless_they_are_asked_to_be()
    pg = connected { numeric_mode = "pgmoon" }
    decodes {
        { large .. "::int8", tonumber(large) }, { "12345678901234567890.5::numeric", 12345678901234567890.5 },
        { "'{12345678901234567890.5}'::numeric[]", { 12345678901234567890.5 } },
        { [['{"a": 12345678901234567890}'::jsonb]], { a = 12345678901234567890.0 } },
    }
end

function TestTypes.test_not_a_number_is_one()
    lu.assertIsNaN(one("select 'NaN'::float8 as value").value)
end

function TestTypes.test_null_is_absent()
    lu.assertEquals(one "select null the_null, 1 as one", { one = 1 })
end

function TestTypes.test_null_can_be_seen()
    pg.convert_null = true
    lu.assertEquals(one("select null the_null, 'null'::json as j"), { the_null = pg.NULL,
        j = literals.json_null })
    lu.assertIs(one("select null the_null").the_null, pg.NULL)
    lu.assertIs(connected({ convert_null = true }):query("select null as n")[1].n, pgmoon.NULL)
end

function TestTypes.test_null_can_be_anything()
    pg.convert_null, pg.NULL = true, { "hello" }
    local row = one "select null the_null, '{NULL,1}'::int[] as list, 'null'::json as j, 2 as two"
    lu.assertIs(row.the_null, pg.NULL)
    lu.assertIs(row.list[1], pg.NULL)
    lu.assertEquals({ row.j, row.two }, { literals.json_null, 2 })
    pg.NULL = "none"
    lu.assertEquals(one "select null a, 'none' b, '[]'::json c", { a = "none", b = "none", c = {} })
end

function TestTypes.test_a_deserializer_of_ones_own()
    local seen
    pg:set_type_deserializer(20, "bignumber", function(self, text, name)
        seen = { self == pg, name }
        return "HUGENUMBER:" .. text
    end)
    pg:set_type_deserializer("701", "bignumber")
    lu.assertEquals(one [[select 9223372036854775807::int8 as a, 1.5::float8 as b, 1::int4 as c,
        null::int8 as d]],
        { a = "HUGENUMBER:9223372036854775807", b = "HUGENUMBER:1.5", c = 1 })
    lu.assertEquals(seen, { true, "bignumber" })
    lu.assertEquals(pg.PG_TYPES[20], "bignumber")
    lu.assertEquals(pgmoon.Postgres.PG_TYPES[20], "number")
    lu.assertEquals((connected():query "select 1::int8 as a"), { { a = 1 } })
end

function TestTypes.test_a_deserializer_can_be_replaced_by_its_name()
    pg:set_type_deserializer(16, "boolean", function(_, text) return text == "t" and "yes" or "no" end)
    lu.assertEquals(one "select true as a, 5 as b", { a = "yes", b = 5 })
    pg:set_type_deserializer(1082, "array_string")
    lu.assertEquals(one "select date '2024-01-01' as a", { a = "2024-01-01" })
    pg:set_type_deserializer(1182, "array_string")
    lu.assertEquals(one "select '{2024-01-01}'::date[] as a", { a = { "2024-01-01" } })
    pg:set_type_deserializer(23, "nobody")
    lu.assertEquals(one "select 5 as a", { a = "5" })
end

function TestTypes.test_one_that_raises_leaves_the_object_usable()
    pg:set_type_deserializer(23, "angry", function() error "no numbers today" end)
    lu.assertErrorMsgContains("no numbers today", function() pg:query "select 5 as a" end)
    lu.assertFalse(pg.busy)
    lu.assertEquals(one "select 'x' as a", { a = "x" })
    lu.assertErrorMsgContains("is no type OID", function() pg:set_type_deserializer("x", "y") end)
end

-- ---- arrays -----------------------------------------------------------------------------------------------

TestArrays = { setUp = set_up }

function TestArrays.test_a_table_becomes_one()
    local array = PostgresArray { 1, 2, 3 }
    lu.assertEquals(array, { 1, 2, 3 })
    lu.assertIs(getmetatable(array), PostgresArray.__base)
    lu.assertIs(getmetatable(one("select '{1}'::int[] as a").a), PostgresArray.__base)
end

function TestArrays.test_they_are_encoded()
    lu.assertEquals(arrays.encode_array {}, "ARRAY[]")
    lu.assertEquals(arrays.encode_array { 1, 2, 3 }, "ARRAY[1,2,3]")
    lu.assertEquals(arrays.encode_array { "hello", "wor'ld" }, "ARRAY['hello','wor''ld']")
    lu.assertEquals(arrays.encode_array { { 4, 5 }, { 6, 7 } }, "ARRAY[[4,5],[6,7]]")
    lu.assertEquals(arrays.encode_array { 1, pgmoon.NULL }, "ARRAY[1,NULL]")
    lu.assertEquals(arrays.encode_array({ "a" }, function(value) return "<" .. value .. ">" end),
        "ARRAY[<a>]")
    lu.assertEquals(pg:encode_array { 1 }, "ARRAY[1]")
end

function TestArrays.test_they_are_decoded()
    local decode = arrays.decode_array
    lu.assertEquals(decode "{}", {})
    lu.assertEquals(decode("{1,3}", tonumber), { 1, 3 })
    lu.assertEquals(decode("{1.2,-1.4}", tonumber), { 1.2, -1.4 })
    lu.assertEquals(decode("{{1,2,3},{4,5,6}}", tonumber), { { 1, 2, 3 }, { 4, 5, 6 } })
    lu.assertEquals(decode "{hello,world}", { "hello", "world" })
    lu.assertEquals(decode "{{hello,world},{foo,bar}}", { { "hello", "world" }, { "foo", "bar" } })
    lu.assertEquals(decode [[{"hello world"}]], { "hello world" })
    lu.assertEquals(decode [[{{"hello world"},{"yes"}}]], { { "hello world" }, { "yes" } })
    lu.assertEquals(decode [[{"hello \\ \" yeah"}]], { [[hello \ " yeah]] })
    lu.assertEquals(decode "{1one,2two}", { "1one", "2two" })
    lu.assertEquals(decode("[0:2]={1,2,3}", tonumber), { 1, 2, 3 })
    lu.assertEquals(decode("[-1:0][2:3]={{1,2},{3,4}}", tonumber), { { 1, 2 }, { 3, 4 } })
    lu.assertEquals(decode [[{"NULL",NULL}]], { "NULL", pgmoon.NULL })
    lu.assertEquals(decode("{NULL}", nil, "none"), { "none" })
    lu.assertEquals(decode { 1 }, { 1 })
    lu.assertEquals(pg:decode_array "{a}", { "a" })
end

function TestArrays.test_what_is_none_raises()
    for _, text in ipairs { "{1, 2, 3}", "{", "{1", "{1,,2}", "1", "{1}x", '{"a', "", "{1}}", "[0:1]" } do
        lu.assertErrorMsgContains("array is malformed", arrays.decode_array, text)
    end
end

function TestArrays.test_bounds_do_not_break_a_query()
    lu.assertEquals(one "select '[0:2]={1,2,3}'::int[] as a", { a = { 1, 2, 3 } })
    lu.assertEquals(one "select '{\"NULL\",NULL}'::text[] as a", { a = { "NULL", pg.NULL } })
end

local function serialized(list)
    return { getmetatable(list).pgmoon_serialize(list, pg) }
end

function TestArrays.test_as_parameters_they_know_their_type()
    local cases = {
        { {}, 0, "{}" }, { { pg.NULL }, 0, "{NULL}" }, { { 1, 2, 3 }, 1231, "{1,2,3}" },
        { { -23892 }, 1231, "{-23892}" },
        { { pg.NULL, 5 }, 1231, "{NULL,5}" }, { { "hello" }, 1009, '{"hello"}' },
        { { "hello", pg.NULL, "world" }, 1009, '{"hello",NULL,"world"}' },
        { { ",", [[f"f]], "}{", '"' }, 1009, [[{",","f\"f","}{","\""}]] },
        { { true }, 1000, "{t}" }, { { false, pg.NULL, true }, 1000, "{f,NULL,t}" },
        { { PostgresArray { 1, 2 }, PostgresArray { 3, 4 } }, 0, "{{1,2},{3,4}}" },
    }
    for _, case in ipairs(cases) do lu.assertEquals(serialized(PostgresArray(case[1])),
        { case[2], case[3] }) end
    lu.assertEquals(serialized(PostgresArray { {} }),
        { nil, "table does not implement pgmoon_serialize, can't serialize" })
end

function TestArrays.test_as_parameters_they_go_round()
    local texts = { "hello", pg.NULL, "world", ",", [[f"f]], "}{", "'", '"', "back\\slash", "NULL", "" }
    lu.assertEquals(one("select $1 val, pg_typeof($1)", PostgresArray(texts)),
        { pg_typeof = "text[]", val = texts })
    lu.assertEquals(one("select $1 val, pg_typeof($1)", PostgresArray { false, pg.NULL, true }),
        { pg_typeof = "boolean[]", val = { false, pg.NULL, true } })
    lu.assertEquals(one("select $1 val, pg_typeof($1)", PostgresArray { 1, 2.5 }),
        { pg_typeof = "numeric[]", val = { 1, 2.5 } })
    local json = { pgmoon_serialize = function(self) return 114, literals.encode_json(self[1], tostring) end }
    lu.assertEquals(one("select $1::json[] val, pg_typeof($1::json[])",
        PostgresArray { setmetatable({ { a = 'x"y' } }, json) }),
        { pg_typeof = "json[]", val = { { a = 'x"y' } } })
    lu.assertEquals(one("select $1::int[] val", PostgresArray { PostgresArray { 1, 2 },
        PostgresArray { 3, 4 } }),
        { val = { { 1, 2 }, { 3, 4 } } })
end

-- ---- JSON and hstore --------------------------------------------------------------------------------------

TestJson = { setUp = set_up }

function TestJson.test_literals()
    lu.assertEquals(pg:encode_json { hello = "world" }, [['{"hello":"world"}']])
    lu.assertEquals(pg:encode_json { foo = "some 'string'" }, [['{"foo":"some ''string''"}']])
    lu.assertEquals(pg:encode_json({ hello = "world" }, function(text) return "`" .. text .. "`" end),
        [[`{"hello":"world"}`]])
    lu.assertEquals(pg:decode_json [[{"a":[1]}]], { a = { 1 } })
end

function TestJson.test_they_go_round()
    for _, text in ipairs { "some 'string'", 'some "string"' } do
        lu.assertEquals(one("select " .. pg:encode_json { foo = text } .. "::json as j"),
            { j = { foo = text } })
    end
end

TestHstore = { setUp = set_up }

function TestHstore.test_literals()
    lu.assertEquals(hstore.encode_hstore { foo = "bar" }, [['"foo"=>"bar"']])
    lu.assertEquals(hstore.encode_hstore { foo = "bar's" }, [['"foo"=>"bar''s"']])
    lu.assertEquals(hstore.encode_hstore { foo = 'a"b\\' }, [['"foo"=>"a\"b\\"']])
    lu.assertEquals(hstore.encode_hstore { foo = pgmoon.NULL }, [['"foo"=>NULL']])
    lu.assertEquals(hstore.encode_hstore({ n = 1 }, tostring), [["n"=>"1"]])
    local two = hstore.encode_hstore { foo = "bar", abc = "123" }
    lu.assertTrue(two == [['"foo"=>"bar", "abc"=>"123"']] or two == [['"abc"=>"123", "foo"=>"bar"']])
end

function TestHstore.test_decoding()
    lu.assertEquals(hstore.decode_hstore "", {})
    lu.assertEquals(hstore.decode_hstore [["foo"=>"bar", "1-a"=>"anything at all"]],
        { foo = "bar", ["1-a"] = "anything at all" })
    lu.assertEquals(hstore.decode_hstore [["hello"=>"wo\"rld", "b"=>"\\"]], { hello = 'wo"rld', b = "\\" })
    lu.assertEquals(hstore.decode_hstore [["a"=>NULL, "b"=>"NULL"]], { b = "NULL" })
    lu.assertEquals(hstore.decode_hstore([["a"=>NULL]], "none"), { a = "none" })
    for _, text in ipairs { '"a"', '"a"=>', "a=>b", '"a"=>"b" "c"=>"d"', '"a' } do
        lu.assertErrorMsgContains("hstore is malformed", hstore.decode_hstore, text)
    end
end

function TestHstore.test_after_setup_they_arrive_as_tables()
    lu.assertErrorMsgContains("hstore oid not found", function() pg:setup_hstore() end)
    lu.skipIf(not fixture.server():sql "create extension hstore", "the extension is not installed")
    lu.assertTrue(pg:setup_hstore())
    local wanted = { foo = "bar", abc = 'a"b\\c', null = "NULL" }
    lu.assertEquals(one("select " .. hstore.encode_hstore(wanted) .. "::hstore as h"), { h = wanted })
    lu.assertEquals(one("select 'a=>NULL'::hstore as h"), { h = {} })
    pg.convert_null = true
    lu.assertEquals(one("select 'a=>NULL'::hstore as h"), { h = { a = pg.NULL } })
    fixture.server():sql "drop extension hstore"
end

os.exit(lu.LuaUnit.run(), true)
