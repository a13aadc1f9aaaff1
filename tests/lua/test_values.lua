-- Values on their way in and out, without a server: core.decode turns the server's text into Lua values.

local lu = require "luaunit"
local weir = require "weir"
local core = require "weir.core"
local compat = require "weir.compat"

local BOOL, BYTEA, INT8, INT4, TEXT, JSON, FLOAT8, NUMERIC, JSONB = 16, 17, 20, 23, 25, 114, 701, 1700, 3802
local BOOL_ARRAY, INT4_ARRAY, TEXT_ARRAY, FLOAT8_ARRAY, NUMERIC_ARRAY, JSONB_ARRAY, BYTEA_ARRAY, DATE_ARRAY =
    1000, 1007, 1009, 1022, 1231, 3807, 1001, 1182

local null = weir.null
local wide = math.type ~= nil -- 64-bit integers

TestDecoding = {}

local scalars = {
    { BOOL, "t", true },
    { BOOL, "f", false },
    { INT4, "0", 0 },
    { INT4, "-2147483648", -2147483648 },
    { INT8, "9007199254740992", 9007199254740992 },
    { FLOAT8, "1.5", 1.5 },
    { FLOAT8, "0.1", 0.1 },
    { FLOAT8, "-1e-300", -1e-300 },
    { FLOAT8, "Infinity", math.huge },
    { FLOAT8, "-Infinity", -math.huge },
    { NUMERIC, "10", 10 },
    { NUMERIC, "10.50", 10.5 },
    { NUMERIC, "-0.000001", -0.000001 },
    { NUMERIC, "0.1234567890123456", 0.1234567890123456 },
    { NUMERIC, "12345678901234567.89", "12345678901234567.89" },
    { NUMERIC, "0.12345678901234567890", "0.12345678901234567890" },
    { NUMERIC, "100000000000000000000", 1e20 },
    { NUMERIC, "12345678901234567890123", "12345678901234567890123" },
    { NUMERIC, "Infinity", math.huge },
    { BYTEA, "\\x00ff41", "\0\255A" },
    { BYTEA, "\\x", "" },
    { BYTEA, "a\\\\b\\001c", "a\\b\1c" },
    { TEXT, "", "" },
    { TEXT, "12", "12" },
    { 1082, "2024-02-29", "2024-02-29" },
    { 2950, "6ecd8c99-4036-403d-bf84-cf8400f67836", "6ecd8c99-4036-403d-bf84-cf8400f67836" },
    { JSON, "12", 12 },
    { JSON, "null", null },
    { JSONB, '"text"', "text" },
}

function TestDecoding.test_scalars_keep_their_value()
    for _, case in ipairs(scalars) do
        lu.assertEquals(core.decode(case[1], case[2]), case[3], case[2])
    end
end

function TestDecoding.test_decimals_are_the_numbers_nearest_to_their_text()
    local state = 1
    local function digits(count)
        local text = {}
        for i = 1, count do
            state = (state * 16807) % 2147483647
            text[i] = state % 10
        end
        return table.concat(text)
    end
    for length = 1, 18 do
        for before = 1, length do
            for _ = 1, 20 do
                local text = digits(length)
                if before < length then text = text:sub(1, before) .. "." .. text:sub(before + 1) end
                local nearest = tonumber(text) + 0.0
                lu.assertIs(core.decode(FLOAT8, text) == nearest, true, text)
                lu.assertIs(core.decode(FLOAT8, "-" .. text) == -nearest, true, text)
            end
        end
    end
end

function TestDecoding.test_minus_zero_keeps_its_sign()
    lu.assertEquals(1 / core.decode(FLOAT8, "-0"), -math.huge)
end

function TestDecoding.test_not_a_number_arrives_as_such()
    lu.assertIsNaN(core.decode(FLOAT8, "NaN"))
    lu.assertIsNaN(core.decode(NUMERIC, "NaN"))
end

function TestDecoding.test_int8_keeps_every_digit()
    local expected = wide and math.tointeger("9223372036854775807") or "9223372036854775807"
    lu.assertEquals(core.decode(INT8, "9223372036854775807"), expected)
    lu.assertEquals(tostring(core.decode(INT8, "-9223372036854775808")), "-9223372036854775808")
    lu.assertEquals(tostring(core.decode(INT8, "9007199254740993")), "9007199254740993")
end

function TestDecoding.test_numbers_do_not_follow_the_scripts_locale()
    local before = os.setlocale(nil, "numeric")
    local comma = os.setlocale("de_DE.UTF-8", "numeric") or os.setlocale("fr_FR.UTF-8", "numeric")
    local value = core.decode(FLOAT8, "1.5")
    os.setlocale(before, "numeric")
    lu.skipIf(not comma, "no locale with a decimal comma is installed")
    lu.assertEquals(value, 1.5)
end

local arrays = {
    { INT4_ARRAY, "{}", {} },
    { INT4_ARRAY, "{1,2,3}", { 1, 2, 3 } },
    { INT4_ARRAY, "{1,NULL,3}", { 1, null, 3 } },
    { INT4_ARRAY, "{{1,2},{3,4}}", { { 1, 2 }, { 3, 4 } } },
    { INT4_ARRAY, "[0:2]={1,2,3}", { 1, 2, 3 } },
    { INT4_ARRAY, "[-1:0][2:3]={{1,2},{3,4}}", { { 1, 2 }, { 3, 4 } } },
    { BOOL_ARRAY, "{t,f,NULL}", { true, false, null } },
    { FLOAT8_ARRAY, "{1.5,-2}", { 1.5, -2.0 } },
    { NUMERIC_ARRAY, "{1.25,12345678901234567890.5}", { 1.25, "12345678901234567890.5" } },
    { TEXT_ARRAY, '{hello,"wide world"}', { "hello", "wide world" } },
    { TEXT_ARRAY, '{"NULL",NULL}', { "NULL", null } },
    { TEXT_ARRAY, [[{"a\"b","c\\d","e,f","{g}",""}]], { 'a"b', "c\\d", "e,f", "{g}", "" } },
    { JSONB_ARRAY, [[{"{\"a\": 1}","[1, 2]"}]], { { a = 1 }, { 1, 2 } } },
    { BYTEA_ARRAY, [[{"\\x00ff","\\x41"}]], { "\0\255", "A" } },
    { DATE_ARRAY, "{2024-01-01,2024-01-02}", { "2024-01-01", "2024-01-02" } },
}

function TestDecoding.test_arrays_become_tables()
    for _, case in ipairs(arrays) do
        lu.assertEquals(core.decode(case[1], case[2]), case[3], case[2])
    end
end

function TestDecoding.test_text_that_is_no_array_stays_text()
    local deep = ("{"):rep(20) .. ("}"):rep(20)
    for _, text in ipairs { "{", "{1,2", "{1,,2}", "1,2", "{1}x", '{"a', '{"a\\', "[0:1]", deep } do
        lu.assertEquals(core.decode(INT4_ARRAY, text), text)
    end
end

TestJson = {}

function TestJson.test_large_whole_numbers_keep_their_digits()
    local value = weir.json.decode [[{"a": 12345678901234567890, "b": [-98765432109876543210],
        "c": "12345678901234567890"}]]
    lu.assertEquals(value.a, "12345678901234567890")
    lu.assertEquals(value.b[1], "-98765432109876543210")
    lu.assertEquals(value.c, "12345678901234567890")
end

function TestJson.test_numbers_that_fit_stay_numbers()
    local value = weir.json.decode [[{"a": 9007199254740992, "b": 0.12345678901234567,
        "c": 1234567890123456e2, "d": "\"1234567890123456789\""}]]
    lu.assertEquals(value.a, 9007199254740992)
    lu.assertEquals(value.b, 0.12345678901234567)
    lu.assertEquals(value.c, 1234567890123456e2)
    lu.assertEquals(value.d, '"1234567890123456789"')
end

function TestJson.test_null_is_weir_null_inside_and_outside()
    lu.assertIs(weir.json.decode("null"), null)
    lu.assertIs(weir.json.decode("[null]")[1], null)
    lu.assertEquals(weir.json.encode { null }, "[null]")
end

function TestJson.test_floats_are_written_with_all_their_digits()
    for _, number in ipairs { 0.1 + 0.2, 1 / 3, 123456789012345.5, 1e300, 5e-324, 2 ^ 53 } do
        lu.assertEquals(weir.json.decode(weir.json.encode({ number }))[1], number)
    end
end

function TestJson.test_what_has_no_json_is_nil_and_why()
    lu.assertEquals({ weir.json.encode { print } }, { nil, "type 'function' is not supported by JSON." })
    local value, why = weir.json.decode "{]"
    lu.assertNil(value)
    lu.assertStrContains(why, "no valid JSON")
end

function TestJson.test_empty_tables_are_objects_and_lists_say_that_they_are_lists()
    lu.assertEquals(weir.json({})[1], "{}")
    lu.assertEquals(weir.json({ list = {} })[1], '{"list":{}}')
    lu.assertEquals(weir.json(weir.array {})[1], "[]")
    lu.assertEquals(weir.json({ list = weir.array {} })[1], '{"list":[]}')
    lu.assertEquals(weir.json(setmetatable({}, { __jsontype = "array" }))[1], "[]")
end

function TestJson.test_what_was_decoded_is_written_as_it_came()
    for _, text in ipairs { "{}", "[]", '[{},[],[[]],{"a":{}}]', '{"a":[]}', '{"n":3}', '{"n":0}', "[null]", "null" } do
        lu.assertEquals(weir.json.encode((weir.json.decode(text))), text)
    end
end

function TestJson.test_a_count_alone_is_an_object_and_not_a_list_of_nulls()
    lu.assertEquals(weir.json({ n = 3 })[1], '{"n":3}')
    lu.assertEquals(weir.json({ 1, nil, n = 3 })[1], "[1,null,null]")
end

function TestJson.test_numbers_that_json_cannot_hold_are_refused()
    for text, number in pairs { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge } do
        for _, value in ipairs { number, { a = { number } }, { n = number }, weir.array { number } } do
            lu.assertErrorMsgContains("test_values.lua:", function() weir.json(value) end)
            lu.assertErrorMsgContains("weir.json: " .. text .. " is no number in JSON", weir.json, value)
        end
        local encoded, why = weir.json.encode { number }
        lu.assertNil(encoded)
        lu.assertStrContains(why, text)
    end
end

TestWrappers = {}

function TestWrappers.test_inside_json_they_are_what_they_wrap()
    lu.assertEquals(weir.json({ weir.array { 1, "a", true, null, 0.1 } })[1], '[[1,"a",true,null,0.1]]')
    lu.assertEquals(weir.json(weir.array { 1, nil, 3, n = 4 })[1], "[1,null,3,null]")
    lu.assertEquals(weir.json(weir.array { {}, { 1 } })[1], "[[],[1]]")
    lu.assertEquals(weir.json(weir.array { weir.json { a = 1 }, weir.json {} })[1], '[{"a":1},{}]')
    lu.assertEquals(weir.json(weir.json { a = weir.json "x" })[1], '{"a":"x"}')
    lu.assertEquals(weir.json.encode(weir.array {}), "[]")
end

function TestWrappers.test_bytes_inside_json_are_refused()
    for _, value in ipairs { weir.bytea "x", { weir.bytea "x" }, weir.array { weir.bytea "x" } } do
        lu.assertErrorMsgContains("weir.json: bytes are no JSON", weir.json, value)
    end
end

local function text_of(wrapper)
    return wrapper[1]
end

function TestWrappers.test_arrays_are_written_as_the_server_reads_them()
    lu.assertEquals(text_of(weir.array {}), "{}")
    lu.assertEquals(text_of(weir.array { 1, 2.5, -3 }), "{1,2.5,-3}")
    lu.assertEquals(text_of(weir.array { true, false }), "{t,f}")
    lu.assertEquals(text_of(weir.array { "a", 'b"c', "d\\e", "NULL", "" }), [[{"a","b\"c","d\\e","NULL",""}]])
    lu.assertEquals(text_of(weir.array { 1, null, 3 }), "{1,NULL,3}")
    lu.assertEquals(text_of(weir.array { 1, nil, 3 }), "{1,NULL,3}")
    lu.assertEquals(text_of(weir.array { 1, n = 2 }), "{1,NULL}")
    lu.assertEquals(text_of(weir.array { { 1, 2 }, { 3, 4 } }), "{{1,2},{3,4}}")
    lu.assertEquals(text_of(weir.array { weir.json { a = 1 } }), [[{"{\"a\":1}"}]])
    lu.assertEquals(text_of(weir.array { weir.bytea "\0\255" }), [[{"\\x00ff"}]])
end

function TestWrappers.test_misuse_names_the_element()
    lu.assertErrorMsgContains("weir.array: list[2] is a function", weir.array, { 1, print })
    lu.assertErrorMsgContains("list[1] has the key x", weir.array, { { x = 1 } })
    lu.assertErrorMsgContains("zero byte", weir.array, { "a\0b" })
    lu.assertErrorMsgContains("weir.array: the list is a string", weir.array, "{1}")
    lu.assertErrorMsgContains("weir.bytea: the bytes are a number", weir.bytea, 5)
    lu.assertErrorMsgContains("weir.json:", weir.json, { print })
end

function TestWrappers.test_numbers_are_written_shortest_and_exact()
    local texts = { ["0.1"] = 0.1, ["1e+300"] = 1e300, ["100000000000000000"] = 1e17, ["-2"] = -2.0 }
    for text, number in pairs(texts) do
        lu.assertEquals(compat.number_text(number), text)
    end
end

TestSqltext = {}

local sqltext = require "weir.sqltext"

function TestSqltext.test_a_rollback_to_a_savepoint_is_recognized_however_it_is_written()
    for _, sql in ipairs {
        "rollback to a", "ROLLBACK TO SAVEPOINT a;", "Rollback Work To a", "rollback transaction to savepoint a",
        " \n\t rollback\nto\ta", "-- why\nrollback to a", "/* one /* two */ three */ rollback/**/to/***/a",
        "/*/ */rollback--x\r to a", "--\n--\nrollback to\"a\"", "/* // ** */rollback to a",
    } do
        lu.assertTrue(sqltext.is_rollback_to(sql), sql)
    end
end

function TestSqltext.test_nothing_else_is_taken_for_one()
    for _, sql in ipairs {
        "", " ", "rollback", "rollback;", "rollback work", "rollback and chain", "rollbackto a", "rollback prepared 'to'",
        "-- rollback to a", "/* rollback to a", "/* /* */ rollback to a", "select 1; rollback to a", "rollback tomorrow",
        "release savepoint a", "savepoint a", "rollback work work to a", "/", "-", "/*",
    } do
        lu.assertFalse(sqltext.is_rollback_to(sql), sql)
    end
end

TestErrorText = {}

local errors = require "weir.errors"

function TestErrorText.test_is_one_line_with_everything_one_needs()
    local err = errors.wrap {
        code = "server_error", sqlstate = "23505", message = "duplicate key\nvalue", pool = "anon@primary",
        context = "POST /contacts", outcome = "rolled_back", attempts = 2, class = "permanent",
    }
    lu.assertEquals(tostring(err),
        "POST /contacts: server_error 23505 on anon@primary: duplicate key value (rolled back; 2 attempts)")
end

function TestErrorText.test_a_refusal_tells_its_evidence_and_when_to_come_back()
    local evidence = { evidence = "8 of 10 failed", retry_after = 2.5 }
    local err = errors.new("breaker_open", "the breaker is OPEN", evidence)
    lu.assertEquals(tostring(err), "breaker_open: the breaker is OPEN (8 of 10 failed; retry after 2.5 s)")
    lu.assertTrue(weir.is_error(err))
    lu.assertFalse(weir.is_error {})
end

os.exit(lu.LuaUnit.run())
