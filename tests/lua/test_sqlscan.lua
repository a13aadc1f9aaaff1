-- Where statements end, with which words they begin, and how many parameters they have.

local lu = require "luaunit"
local sqlscan = require "weir.sqlscan"

TestSplit = {}

local function texts(sql)
    local found = {}
    for i, statement in ipairs(sqlscan.split(sql)) do found[i] = statement.text end
    return found
end

function TestSplit.test_statements_end_at_semicolons()
    lu.assertEquals(texts "select 1", { "select 1" })
    lu.assertEquals(texts "select 1; select 2", { "select 1", "select 2" })
    lu.assertEquals(texts "\n select 1;\n\tselect 2;\n", { "select 1", "select 2" })
    lu.assertEquals(texts "select 1;;; ;select 2", { "select 1", "select 2" })
end

function TestSplit.test_one_statement_keeps_its_end()
    lu.assertEquals(texts "select 1;", { "select 1;" })
    lu.assertEquals(texts "select 1 -- why; \n", { "select 1 -- why; \n" })
end

function TestSplit.test_what_says_nothing_is_no_statement()
    for _, sql in ipairs { "", " ", ";", " ; ;\n", "-- nothing", "/* nothing */", "/* ; */ ; -- ;" } do
        lu.assertEquals(texts(sql), {}, sql)
    end
end

function TestSplit.test_semicolons_inside_something_end_nothing()
    for _, sql in ipairs {
        "select ';'", "select 'it''s; so'", [[select E'\';']], [[select e'\\', ';']], [[select 'a\' || ';']],
            [[select ";"]],
        'select "a"";"', "select $$;$$", "select $a$ $$; $b$ ; $a$", "select 1 -- ;\n",
            "select /* ; /* ; */ ; */ 1",
        "select $1 || ';'", "select x$y$ || ';$y$'",
            "create rule r as on insert to t do (select 1; select 2)",
        "create function f() returns int begin atomic select 1; select case when true then 1 end; end",
        "create or replace procedure p() language sql begin atomic select 1; end", "select U&';'",
            "select E'a'\n';\\';'",
        "select 1 - ';'::int / ';'::int", "select 'ä;ö' as \"ü;\"",
    } do
        lu.assertEquals(texts(sql .. "; select 2"), { sql:gsub("\n$", "\n"), "select 2" }, sql)
    end
end

function TestSplit.test_begin_is_a_body_only_in_a_function()
    lu.assertEquals(texts "begin; select 1; end; select case when true then 1 end; select 2",
        { "begin", "select 1", "end", "select case when true then 1 end", "select 2" })
    lu.assertEquals(texts "create table function (a int); select 2", { "create table function (a int)",
        "select 2" })
end

function TestSplit.test_unfinished_text_is_one_statement()
    for _, sql in ipairs { "select ';", 'select ";', "select $a$;", "select /* ;", [[select E';\']],
        "select (;" } do
        lu.assertEquals(texts(sql), { sql }, sql)
        lu.assertEquals(texts(sql .. " x; y"), { sql .. " x; y" }, sql)
    end
end

function TestSplit.test_it_is_told_where_each_begins()
    local list = sqlscan.split "  select 'ä';\n  select 2; "
    lu.assertEquals(list, { { text = "select 'ä'", at = 3 }, { text = "select 2", at = 18 } })
    lu.assertEquals(sqlscan.characters_before("  select 'ä';\n  select 2; ", 18), 16)
end

TestWords = {}

function TestWords.test_the_first_words_tell_what_it_is()
    local cases = {
        { "select 1", { "SELECT" } },
        { "  /* a */ -- b\n Set  Local x = 1", { "SET", "LOCAL", "X" } },
        { "(select 1)", { "SELECT" } },
        { "start/**/transaction isolation", { "START", "TRANSACTION", "ISOLATION" } },
        { "set \"x\" = 1", { "SET" } },
        { "rollback;", { "ROLLBACK" } },
        { "e'begin'", {} }, { "", {} }, { "1", {} },
    }
    for _, case in ipairs(cases) do lu.assertEquals((sqlscan.words(case[1], 3)), case[2], case[1]) end
end

function TestWords.test_every_word_can_be_asked_for()
    local seen = {}
    sqlscan.each_word([[select "quoted", f(x) from t -- comment
        where 'literal' = $tag$ dollar $tag$ and n = 12e3 or E'\'x']],
            function(word) seen[#seen + 1] = word end)
    lu.assertEquals(table.concat(seen, " "), "SELECT F X FROM T WHERE AND N OR")
    lu.assertEquals(sqlscan.each_word("a b c", function(word) return word == "B" and "found" end), "found")
end

TestParameters = {}

function TestParameters.test_the_largest_counts()
    local cases = {
        { "select 1", 0 }, { "select $1", 1 }, { "select $2 + $10 - $3", 10 }, { "select '$1', $1", 1 },
        { "select $$ $2 $$, $1", 1 }, { "select x$3, $1", 1 }, { "select \"$4\" -- $5\n", 0 },
        { "select $1::int[$2]", 2 },
    }
    for _, case in ipairs(cases) do lu.assertEquals(sqlscan.parameters(case[1]), case[2], case[1]) end
end

os.exit(lu.LuaUnit.run(), true)
