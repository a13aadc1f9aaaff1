-- Each rule of rules.lua is shown a small tree that keeps it and one that breaks it.

local lu = require "luaunit"
local house = require "house"
local rules = require "rules"

local function run(command)
    lu.assertTrue(os.execute(command), command)
end

local function write(root, path, text)
    run("mkdir -p " .. house.quote((root .. "/" .. path):match "^(.*)/"))
    local file = assert(io.open(root .. "/" .. path, "w"))
    file:write(text)
    file:close()
end

local clean = {
    ["CMakeLists.txt"] = "project(Small)\n",
    ["README.md"] = "# Small\n",
    LICENSE = "MIT\n",
    ["lua/weir/init.lua"] = "return {}\n",
    ["tests/run.sh"] = "# -L luajit\napt-get install luajit2\ncmake -DWEIR_LUAJIT=ON\nmktemp /tmp/small.XXXXXX\n",
    ["tests/setup.sh"] = "13) jit=lua" .. "jit ;;\n",
    ["examples/hello.lua"] = "print 'hello'\n",
    ["include/weir/weir.h"] = [[
#ifndef WEIR_WEIR_H
#define WEIR_WEIR_H
#ifdef __cplusplus
extern "C" {
#endif
typedef struct weir_hooks { int (*now)(void *ctx); } weir_hooks;
typedef int (*weir_callback)(void *ctx);
int weir_open(const weir_hooks *hooks); /* not weir_absent(void); */
#ifdef __cplusplus
}
#endif
#endif
]],
    ["src/base/list.h"] = "struct wr_list { int length; };\n",
    ["src/engine/engine.c"] = [[
#include "base/list.h"
#include "weir/weir.h"
/* sleep(1) and PQexec(c) in a comment, "system(x)" in a string */
const char *text(void);
const char *text(void)
{
    return "PQexec(conn, \"strcpy(a, b)\")";
}
]],
    ["src/pg/crew.c"] = "#include <libpq-fe.h>\nvoid start(void)\n{\n    PQconnectStart(\"\");\n}\n",
    ["src/lua/core.c"] = "#include <lua.h>\n#include \"weir/weir.h\"\n",
    ["src/host/loop.c"] = "#include <uv.h>\n#include \"weir/uv.h\"\n",
}

-- The findings of a rule on the clean tree with some files added or replaced (false: removed).
local function judge(rule, changes, build)
    local root = house.lines_of_command("mktemp -d")[1]
    for path, text in pairs(clean) do
        if changes[path] ~= false then write(root, path, changes[path] or text) end
    end
    for path, text in pairs(changes) do
        if text and not clean[path] then write(root, path, text) end
    end
    local ok, found = pcall(function()
        if build then build(root) end
        return rule(house.load(root), root .. "/build")
    end)
    os.execute("rm -rf " .. house.quote(root))
    if not ok then error(found, 0) end
    return found
end

local function long_function(lines)
    return "void f(void)\n{\n" .. ("    ;\n"):rep(lines) .. "}\n"
end

local header = clean["include/weir/weir.h"]

local planted = { -- rule, what is wrong, changes to the clean tree, part of the finding
    { "includes_point_downwards", "base includes engine", { ["src/base/bad.c"] = '#include "engine/engine.h"\n' }, "src/base/bad.c:1" },
    { "includes_point_downwards", "area includes guard", { ["src/area/bad.c"] = '#include "guard/breaker.h"\n' }, "guard/breaker.h" },
    { "includes_point_downwards", "engine includes pg", { ["src/engine/bad.c"] = '\n#include "pg/wire.h"\n' }, "src/engine/bad.c:2" },
    { "includes_point_downwards", "pg includes host", { ["src/pg/bad.c"] = '#include "host/uv.h"\n' }, "src/pg/bad.c" },
    { "includes_point_downwards", "lua includes base", { ["src/lua/bad.c"] = '#include "base/list.h"\n' }, "src/lua may not" },
    { "includes_point_downwards", "cli includes lua", { ["src/cli/bad.c"] = '#include "lua/core.h"\n' }, "src/cli may not" },
    { "includes_point_downwards", "a way round by ..", { ["src/base/bad.c"] = '#include "../engine/x.h"\n' }, "../engine/x.h" },
    { "includes_point_downwards", "a header of another folder by its bare name", { ["src/engine/bad.c"] = '#include "list.h"\n' }, "list.h is not in" },
    { "includes_point_downwards", "engine knows a loop", { ["src/engine/bad.c"] = '#include "weir/uv.h"\n' }, "knows no loop" },
    { "includes_point_downwards", "a folder that is no layer", { ["src/misc/bad.c"] = "int x;\n" }, "no layer" },
    { "libraries_are_known_in_one_place", "libpq in the engine", { ["src/engine/bad.c"] = "#include <libpq-fe.h>\n" }, "libpq" },
    { "libraries_are_known_in_one_place", "libpq in a public header", { ["include/weir/bad.h"] = "#include <postgresql/libpq-fe.h>\n" }, "libpq" },
    { "libraries_are_known_in_one_place", "lua in pg", { ["src/pg/bad.c"] = "#include <lua.h>\n" }, "lua.h" },
    { "libraries_are_known_in_one_place", "lauxlib in the engine", { ["src/engine/bad.c"] = "#  include <lauxlib.h>\n" }, "lauxlib.h" },
    { "libraries_are_known_in_one_place", "uv in the binding", { ["src/lua/bad.c"] = "#include <uv.h>\n" }, "uv.h" },
    { "nothing_blocks_or_overruns", "PQexec", { ["src/pg/bad.c"] = "x = PQexec (c, \"\");\n" }, "PQexec" },
    { "nothing_blocks_or_overruns", "PQconnectdbParams", { ["src/pg/crew.c"] = "PQconnectdbParams(a);\n" }, "PQconnectdbParams" },
    { "nothing_blocks_or_overruns", "usleep", { ["src/base/bad.h"] = "usleep(3);\n" }, "usleep" },
    { "nothing_blocks_or_overruns", "sprintf after a comment", { ["src/base/bad.c"] = "/* a */ sprintf(a, b);\n" }, "sprintf" },
    { "nothing_blocks_or_overruns", "system", { ["src/cli/bad.c"] = "\n\nsystem(\"ls\");\n" }, "src/cli/bad.c:3" },
    { "connecting_and_cancelling_belong_to_the_crew", "PQcancel on the loop", { ["src/pg/bad.c"] = "PQcancel(c, b, 1);\n" }, "PQcancel" },
    { "connecting_and_cancelling_belong_to_the_crew", "a crew of another layer", { ["src/engine/crew.c"] = "PQconnectStartParams(a);\n" }, "PQconnectStartParams" },
    { "the_top_level_is_fixed", "a file too many", { ["Makefile"] = "all:\n" }, "Makefile" },
    { "the_top_level_is_fixed", "a file too few", { LICENSE = false }, "LICENSE" },
    { "file_names_are_unique", "a name twice", { ["src/pg/list.h"] = "int x;\n" }, "list.h" },
    { "file_names_are_unique", "a name twice over folders", { ["lua/weir/core.c"] = "x\n" }, "core.c" },
    { "a_file_tells_one_story", "a file of 601 lines", { ["lua/weir/long.lua"] = ("x = 1\n"):rep(601) }, "601 lines" },
    { "a_function_fits_on_a_screen", "a function of 61 lines", { ["src/base/long.c"] = long_function(61) }, "61 lines" },
    { "scripts_install_the_right_luajit", "the wrong package", { ["tests/run.sh"] = "apt-get install lua" .. "jit\n" }, "tests/run.sh:1" },
    { "scripts_install_the_right_luajit", "the wrong library", { [".ci/run"] = "apt-get install liblua" .. "jit-5.1-dev\n" }, ".ci/run:1" },
    { "nothing_is_promised_for_later", "a promise in C", { ["src/base/bad.c"] = "/* TO" .. "DO: think */\n" }, "src/base/bad.c:1" },
    { "nothing_is_promised_for_later", "a promise in the README", { ["README.md"] = "FIX" .. "ME\n" }, "README.md" },
    { "public_headers_compile_alone", "a type from nowhere", { ["include/weir/bad.h"] = "int weir_x(size_t n);\n" }, "bad.h" },
    { "public_headers_compile_alone", "a word that C++ reserves", { ["include/weir/bad.h"] = "struct x { int class; };\n" }, "as C++" },
}

TestRules = {}

for index, case in ipairs(planted) do
    local rule, what, changes, part = case[1], case[2], case[3], case[4]
    TestRules[("test_%02d_%s: %s"):format(index, rule, what)] = function()
        lu.assertStrContains(table.concat(judge(rules[rule], changes), "\n"), part)
    end
end

for name, rule in pairs(rules) do
    if name ~= "declared_functions" and name ~= "the_libraries_export_what_the_headers_declare" then
        TestRules["test_a_clean_tree_passes: " .. name] = function()
            lu.assertEquals(judge(rule, { ["src/base/fits.c"] = long_function(60) }), {})
        end
    end
end

function TestRules:test_every_rule_is_shown_to_fail()
    local shown = { declared_functions = true, the_libraries_export_what_the_headers_declare = true }
    for _, case in ipairs(planted) do shown[case[1]] = true end
    for name in pairs(rules) do lu.assertTrue(shown[name], name) end
end

function TestRules:test_a_build_tree_is_not_ours()
    local found = judge(rules.the_top_level_is_fixed, { ["build/CMakeCache.txt"] = "", ["build/x.c"] = "TO" .. "DO" })
    lu.assertEquals(found, {})
end

-- ---- exports need libraries -------------------------------------------------------------------------------------

local function libraries(first, second)
    return function(root)
        write(root, "build/CMakeCache.txt", "")
        local codes = { ["libweir.so"] = first, ["libweir-uv.so"] = second, ["libweir-repl.so"] = "typedef int none;" }
        for name, code in pairs(codes) do
            write(root, "build/x.c", code)
            run(("cc -shared -fPIC -o %s %s"):format(house.quote(root .. "/build/" .. name),
                house.quote(root .. "/build/x.c")))
        end
    end
end

local function exports(first, second)
    local found = judge(rules.the_libraries_export_what_the_headers_declare, {
        ["include/weir/weir.h"] = header,
        ["include/weir/uv.h"] = "int weir_uv_new(void);\n",
    }, libraries(first, second))
    return table.concat(found, "\n")
end

function TestRules:test_exports_that_agree_pass()
    lu.assertEquals(exports("int weir_open(void){return 0;}", "int weir_uv_new(void){return 0;}"), "")
end

function TestRules:test_a_declared_function_that_no_library_defines_is_found()
    lu.assertStrContains(exports("static int x; int *y(void); ", "int weir_uv_new(void){return 0;}"), "declares weir_open")
end

function TestRules:test_an_export_that_no_header_declares_is_found()
    local found = exports("int weir_open(void){return 0;} int weir_more(void){return 0;} int wr_inner;",
        "int weir_uv_new(void){return 0;}")
    lu.assertStrContains(found, "exports weir_more")
    lu.assertStrContains(found, "exports wr_inner")
end

os.exit(lu.LuaUnit.run())
