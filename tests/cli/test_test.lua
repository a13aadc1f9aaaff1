-- `weir test`, seen from outside: the built binary, its reports and its exit codes. Scenarios are described
-- by a stand-in for weir.scenario, so that each kind of report can be had.

local lu = require "luaunit"

local BIN = os.getenv "WEIR_BIN" or os.getenv "PWD" .. "/build/weir"

-- ---- helpers ----------------------------------------------------------------------------------------------

local folder                     -- of this test, removed after it

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function set_up()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. quote(folder)))
end

local function clean_up()
    os.execute("rm -rf " .. quote(folder))
end

local function class()
    return { setUp = set_up, tearDown = clean_up }
end

local function write(name, text)
    local file = assert(io.open(folder .. "/" .. name, "wb"))
    file:write(text)
    file:close()
end

local function read(name)
    local file = assert(io.open(folder .. "/" .. name, "rb"))
    local text = file:read "a"
    file:close()
    return text
end

-- Runs lines of shell in the folder; "$weir" is the binary. Returns the exit code, stdout and stderr.
local function shell(lines)
    local place = ("cd %s; weir=%s; export LC_ALL=C TMPDIR=%s WEIR_LUA_PATH=%s"):format(quote(folder),
        quote(BIN), quote(folder), quote(folder .. "/modules"))
    local _, how, code = os.execute(("%s; { %s\n} >.out 2>.err </dev/null"):format(place, lines))
    return how == "exit" and code or 128 + code, read ".out", read ".err"
end

local function test(arguments)
    return shell([["$weir" test ]] .. arguments)
end

-- Writes the file t.lua and runs it.
local function run(text, options)
    write("t.lua", text)
    return test((options or "") .. " t.lua")
end

local function last_line(text)
    return text:match "([^\n]*)\n$"
end

-- A stand-in whose scenarios run a function that changes the report.
local SCENARIO = [[
local made = {}
local scenario = {}
function scenario.scenario(name)
    return function(change)
        local self = { name = name, file = "t.lua", line = debug.getinfo(2, "l").currentline }
        function self:run(options)
            local report = { ok = true, name = name, seed = options.seed, failures = {}, text = "",
                picture = "", hash = "0123456789abcdef", figures = { ended = 90 }, seconds = 0.1 }
            change(report, options)
            return report
        end
        made[#made + 1] = self
        return self
    end
end
function scenario.registered(clear)
    local list = made
    if clear then made = {} end
    return list
end
return scenario
]]

local SIM = [[
local seed = 1
return { default_seed = function(n) seed = n end, seed = function() return seed end }
]]

local function with_stand_ins()
    assert(os.execute("mkdir -p " .. quote(folder .. "/modules/weir")))
    write("modules/weir/scenario.lua", SCENARIO)
    write("modules/weir/sim.lua", SIM)
end

local FAILING_SCENARIO = [[
local s = require "weir.scenario"
s.scenario "a server & <crashes>" (function(report)
    report.ok = false
    report.text = "t.lua:9: goodput before: at least 0.99 was expected, 0.5 seen at 20 s\n"
        .. "goodput |##..##|\n        0  90"
end)
]]

-- ---- a small reader of TAP, and one of XML ----------------------------------------------------------------

local function parse_tap(text)
    local tap = { cases = {}, notes = {} }
    for line in text:gmatch "([^\n]*)\n" do
        local verdict, number, rest = line:match "^(n?o?t? ?ok) (%d+) %- (.*)$"
        if verdict then
            lu.assertEquals(tonumber(number), #tap.cases + 1)
            local name, skip = rest:match "^(.-) # SKIP (.*)$"
            tap.cases[#tap.cases + 1] = { ok = verdict == "ok", name = name or rest, skip = skip }
        elseif line:find "^#" then
            tap.notes[#tap.notes + 1] = line
        elseif line:find "^1%.%.%d+$" then
            tap.plan = tonumber(line:match "%d+$")
        elseif line:find "^TAP version 13$" then
            lu.assertEquals(#tap.cases, 0)
            tap.version = line
        elseif line:find "^Bail out!" then
            tap.bailed = line
        else
            error("not TAP: " .. line)
        end
    end
    return tap
end

local function check_text(text)
    lu.assertNil(text:find "[<>]")
    for entity in text:gmatch "&([^;]*;?)" do
        lu.assertTrue(("amp; lt; gt; quot; apos; "):find(entity .. " ", 1, true) ~= nil
            or entity:find "^#%d+;$" ~= nil, "&" .. entity)
    end
    lu.assertNil(text:find "[%z\1-\8\11\12\14-\31]")
    lu.assertNotNil(utf8.len(text))
end

local function read_attributes(text)
    local attributes, rest = {}, text
    for name, value in text:gmatch '%s([%w_:]+)="([^"]*)"' do
        check_text(value)
        lu.assertNil(attributes[name])
        attributes[name] = value
    end
    lu.assertEquals((rest:gsub('%s[%w_:]+="[^"]*"', ""):gsub("%s", "")), "")
    return attributes
end

-- The root element as { name, attributes, element..., text }; raises if the text is not well-formed.
local function parse_xml(text)
    local root = { name = "(document)", text = "" }
    local declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
    local stack, at = { root }, #declaration + 1
    lu.assertEquals(text:sub(1, #declaration), declaration)
    local tag = "([^<]*)<(/?)([%w]+)([^<>]-)(/?)>()"
    for before, closing, name, attributes, empty, after in text:gmatch(tag, at) do
        check_text(before)
        stack[#stack].text = stack[#stack].text .. before
        if closing == "/" then
            lu.assertEquals(table.remove(stack).name, name)
        else
            local element = { name = name, attributes = read_attributes(attributes), text = "" }
            table.insert(stack[#stack], element)
            if empty ~= "/" then stack[#stack + 1] = element end
        end
        at = after
    end
    lu.assertEquals(#stack, 1)
    lu.assertEquals(text:sub(at), "\n")
    return root[1]
end

local function plain(text)
    local characters = { lt = "<", gt = ">", quot = '"', ["#10"] = "\n", amp = "&" }
    return (text:gsub("&([^;]+);", characters))
end

-- ---- processes --------------------------------------------------------------------------------------------

-- Whether a process still runs a moment later; one that only waits to be reaped does not.
local function is_alive(pid)
    for _ = 1, 50 do
        local file = io.open("/proc/" .. pid .. "/stat")
        local state = file and file:read("a"):match "%) (%a)"
        if file then file:close() end
        if not state or state == "Z" then return false end
        os.execute "sleep 0.02"
    end
    return true
end

-- ---- usage ------------------------------------------------------------------------------------------------

TestUsage = class()

local function assert_usage(arguments, sentence)
    local code, out, err = test(arguments)
    lu.assertEquals({ code, out, err }, { 2, "", "weir test: " .. sentence .. "\n" })
end

function TestUsage:test_help_tells_options_and_exit_codes()
    for _, how in ipairs { "help test", "test --help", "test -h" } do
        local code, out, err = shell([["$weir" ]] .. how)
        lu.assertEquals({ code, err }, { 0, "" })
        lu.assertStrContains(out, "usage: weir test [OPTIONS] FILE.lua...")
        lu.assertStrContains(out, "--seeds N")
        lu.assertStrContains(out, "Exit codes: 0 all passed")
    end
end

function TestUsage:test_without_a_file_it_is_wrong_usage()
    assert_usage("", "a file is missing (usage: weir test [OPTIONS] FILE.lua...)")
    assert_usage("--seed 3", "a file is missing (usage: weir test [OPTIONS] FILE.lua...)")
end

function TestUsage:test_an_unknown_option_is_named_with_those_there_are()
    assert_usage("--fast x.lua", "unknown option '--fast'; there are --format, --output, --filter, --seed, "
        .. "--seeds, --record, --jobs, --limit, --live, --list, --pictures")
end

function TestUsage:test_a_bad_value_is_told_what_is_allowed()
    for arguments, sentence in pairs {
        ["--seed x t.lua"] = "--seed x: it must be a whole number from 0 to 9007199254740991",
        ["--seed=-1 t.lua"] = "--seed -1: it must be a whole number from 0 to 9007199254740991",
        ["--seeds 0 t.lua"] = "--seeds 0: it must be a whole number from 1 to 1000000",
        ["--jobs 1.5 t.lua"] = "--jobs 1.5: it must be a whole number from 1 to 256",
        ["--limit 0 t.lua"] = "--limit 0: it must be a number of seconds from 0.01 to 86400",
        ["--limit 1.2.3 t.lua"] = "--limit 1.2.3: it must be a number of seconds from 0.01 to 86400",
        ["--format xml t.lua"] = "--format xml: it must be text, tap or junit",
        ["--filter= t.lua"] = "--filter '': it must be a text that is not empty",
        ["t.lua --seed"] = "--seed needs a value",
        ["--live=yes t.lua"] = "--live takes no value, but was given 'yes'",
        ["--seed 9007199254740990 --seeds 3 t.lua"] =
            "--seeds 3: from --seed 9007199254740990 on, it must be 2 at most",
        ["--worker 1 t.lua"] = "--worker is for its own use",
    } do
        assert_usage(arguments, sentence)
    end
end

function TestUsage:test_a_file_whose_name_looks_like_an_option_comes_after_two_dashes()
    write("--odd.lua", "function test_it() end")
    local code, out = test "-- --odd.lua"
    lu.assertEquals({ code, last_line(out) }, { 0, "1 passed, 0 failed" })
end

function TestUsage:test_options_may_stand_behind_the_files()
    write("t.lua", "function test_it() end function test_other() end")
    local code, out = test "t.lua --filter it"
    lu.assertEquals({ code, last_line(out) }, { 0, "1 passed, 0 failed" })
end

function TestUsage:test_a_report_that_cannot_be_written_is_wrong_usage()
    write("t.lua", "function test_it() end")
    assert_usage("--output nowhere/x t.lua", "--output: cannot write nowhere/x: No such file or directory")
    assert_usage("--record t.lua t.lua", "--record t.lua: it must be a folder")
end

-- ---- luaunit's tests --------------------------------------------------------------------------------------

TestUnits = class()

function TestUnits:test_functions_and_methods_are_cases()
    local code, out, err = run [[
        TestA = {}
        function TestA:test_first() end
        function TestA:test_second() end
        function TestA:helper() error "not a test" end
        function test_alone() end
        Testament = "no test"
    ]]
    lu.assertEquals({ code, err, last_line(out) }, { 0, "", "3 passed, 0 failed" })
    lu.assertEquals((out:gsub("%f[%d]%d%.%d%d s", "T")), "t.lua\n  ok    TestA.test_first (T)\n"
        .. "  ok    TestA.test_second (T)\n  ok    test_alone (T)\n\n"
        .. "1 file, 3 cases in T\n3 passed, 0 failed\n")
end

function TestUnits:test_a_failure_says_where_what_was_printed_and_how_to_see_it_again()
    local code, out = run [[
        local lu = require "luaunit"
        TestA = {}
        function TestA:test_it() print "seen" io.stderr:write "and heard\n" lu.assertEquals(1, 2) end
        function TestA:test_quiet() print "unseen" end
    ]]
    lu.assertEquals(code, 1)
    lu.assertStrContains(out, "        t.lua:3: expected: 2, actual: 1\n        output:\n          | seen\n"
        .. "          | and heard\n        again: weir test --seed 1 --filter '^TestA%.test_it$' t.lua\n")
    lu.assertNotStrContains(out, "unseen")
    lu.assertEquals(last_line(out), "1 passed, 1 failed")
end

function TestUnits:test_the_command_that_repeats_a_case_repeats_it()
    local _, out = run [[
        TestA = {}
        TestA["test it's (50% - odd)?"] = function() error "no" end
        TestA.test_other = function() end
    ]]
    local again = out:match "again: weir (test [^\n]*)"
    local code, second = shell([["$weir" ]] .. again)
    lu.assertEquals({ code, last_line(second) }, { 1, "0 passed, 1 failed" })
end

function TestUnits:test_an_error_shows_the_way_to_it()
    local code, out = run [[
        local function deep(x) return #x + 0 end
        function test_it() local n = deep(nil) return n end
    ]]
    lu.assertEquals(code, 1)
    lu.assertStrContains(out, "t.lua:1: attempt to get length of a nil value (local 'x')\n")
    lu.assertStrContains(out, "t.lua:2: in function 'test_it'")
    lu.assertNotStrContains(out, "luaunit.lua")
end

function TestUnits:test_error_objects_are_read_as_text()
    local code, out = run [[
        local full = setmetatable({}, { __tostring = function() return "full" end })
        function test_it() error(full) end
    ]]
    lu.assertEquals(code, 1)
    lu.assertStrContains(out, "        full\n")
end

function TestUnits:test_skipped_cases_are_counted_apart()
    local code, out = run "function test_a() require('luaunit').skip 'no network' end function test_b() end"
    lu.assertEquals({ code, last_line(out) }, { 0, "1 passed, 0 failed, 1 skipped" })
    lu.assertStrContains(out, "  skip  test_a: no network\n")
end

function TestUnits:test_set_up_and_tear_down_are_called_around_each_case()
    local code, out = run [[
        local said = {}
        local function say(word) return function() said[#said + 1] = word end end
        TestA = { setUp = say "up", tearDown = say "down", test_1 = say "one", test_2 = say "two" }
        function test_z() assert(table.concat(said, " ") == "up one down up two down") end
    ]]
    lu.assertEquals({ code, last_line(out) }, { 0, "3 passed, 0 failed" })
end

function TestUnits:test_a_failed_set_up_of_a_class_is_a_failure_by_its_name()
    local code, out = run "TestA = { setupClass = function() error 'no' end, test_1 = function() end }"
    lu.assertEquals({ code, last_line(out) }, { 1, "1 passed, 1 failed" })
    lu.assertStrContains(out, "  FAIL  TestA.setupClass (0.00 s)\n        t.lua:1: no\n")
end

function TestUnits:test_files_that_run_themselves_are_taken_as_they_are()
    local code, out = run [[
        local lu = require "luaunit"
        function test_it() end
        os.exit(lu.LuaUnit.run())
    ]]
    lu.assertEquals({ code, last_line(out) }, { 0, "1 passed, 0 failed" })
    code, out = run [[
        local lu = require "luaunit"
        local t = { test_local = function() end }
        os.exit(lu.LuaUnit.new():runSuiteByInstances { { "t", t } })
    ]]
    lu.assertEquals({ code, last_line(out) }, { 0, "1 passed, 0 failed" })
end

function TestUnits:test_luaunits_own_environment_changes_nothing()
    write("t.lua", "function test_it() end")
    for _, format in ipairs { "tap", "junit", "nil" } do
        local code, out = shell("LUAUNIT_OUTPUT=" .. format .. [[ "$weir" test t.lua]])
        lu.assertEquals({ code, last_line(out) }, { 0, "1 passed, 0 failed" })
    end
end

function TestUnits:test_a_task_that_fails_unheard_fails_the_case()
    local code, out = run [[
        local weir = require "weir"
        function test_a() weir.spawn(function() error "unheard" end) end
        function test_b() local task = weir.spawn(error, "heard") task:wait() end
        function test_c() weir.sleep(0.001) end
    ]]
    lu.assertEquals({ code, last_line(out) }, { 1, "2 passed, 1 failed" })
    lu.assertStrContains(out, "a task failed and nobody joined it")
    lu.assertStrContains(out, "| weir: a task failed and nobody joined it: t.lua:2: unheard\n")
end

function TestUnits:test_chance_is_the_same_each_time()
    write("t.lua", "function test_it() error(tostring(math.random(1e9)), 0) end")
    local _, first = test "t.lua"
    local _, second = test "t.lua"
    local _, other = test "--seed 2 t.lua"
    local drawn = first:match "\n        (%d+)\n"
    lu.assertEquals(second:match "\n        (%d+)\n", drawn)
    lu.assertNotEquals(other:match "\n        (%d+)\n", drawn)
end

-- ---- choosing cases ---------------------------------------------------------------------------------------

TestFilter = class()

local FOUR = [[
    function test_ab() end function test_ac() end function test_b() end
    TestX = { ["test a-b (c)"] = test_b }
]]

function TestFilter:test_patterns_choose_and_exclamation_marks_exclude()
    for options, passed in pairs {
        ["--filter a"] = 3, ["--filter _a --filter b$"] = 3, ["--filter '^test_[bc]$'"] = 1,
        ["--filter '!_a'"] = 2, ["--filter _a --filter '!c'"] = 1, ["--filter 'a-b (c)'"] = 1,
        ["--filter TestX.test"] = 1,
    } do
        local code, out = run(FOUR, options)
        lu.assertEquals({ code, last_line(out) }, { 0, passed .. " passed, 0 failed" }, options)
    end
end

function TestFilter:test_a_filter_that_lets_nothing_through_is_wrong_usage()
    local code, out, err = run(FOUR, "--filter '[z'")
    lu.assertEquals({ code, last_line(out) }, { 2, "0 passed, 0 failed" })
    lu.assertEquals(err, "weir test: no case has a name that --filter lets through\n")
end

function TestFilter:test_a_list_names_cases_and_runs_none()
    write("u.lua", "print 'loaded' function test_u() os.exit(9) end")
    write("t.lua", FOUR)
    local code, out, err = test "--list --filter '!_a' u.lua t.lua"
    lu.assertEquals({ code, out, err },
        { 0, "u.lua: test_u\nt.lua: TestX.test a-b (c)\nt.lua: test_b\n", "" })
end

-- ---- files that are none ----------------------------------------------------------------------------------

TestFiles = class()

function TestFiles:test_what_cannot_be_loaded_is_told_and_the_others_are_run()
    write("good.lua", "function test_it() end")
    for text, sentence in pairs {
        ["local a\nlocal b = = 1"] = "bad.lua:2: unexpected symbol near '='",
        ["\n\nerror 'no policy'"] = "bad.lua:3: no policy",
        ["error({}, 0)"] = "table: 0x",
        ["x = 1"] = "bad.lua: holds no test case: neither a scenario nor a global table or function named",
        ["print 'x' os.exit(3)"] = "bad.lua:1: the file ends the program with os.exit(3) while it is loaded",
        ["require 'nowhere'"] = "bad.lua:1: module 'nowhere' not found",
        ["os.execute('kill -s ABRT $PPID')"] =
            "its process was ended while the file was loaded by signal 6 (SIGABRT)",
        ["while true do end"] = "bad.lua:1: still at work after 0.2 s, the limit",
        ["\27Lua"] = "attempt to load a binary chunk",
    } do
        write("bad.lua", text)
        local code, out = test "--limit 0.2 bad.lua good.lua"
        lu.assertEquals({ code, last_line(out) }, { 2, "1 passed, 1 failed" }, text)
        lu.assertStrContains(out, sentence)
        lu.assertStrContains(out, "good.lua\n  ok    test_it")
    end
end

function TestFiles:test_files_that_are_not_there_are_told_too()
    write("good.lua", "function test_it() end")
    local code, out = test "good.lua nowhere.lua ."
    lu.assertEquals({ code, last_line(out) }, { 2, "1 passed, 2 failed" })
    lu.assertStrContains(out, "nowhere.lua: No such file or directory")
end

function TestFiles:test_each_file_has_a_state_of_its_own()
    write("a.lua", "shared = 1 function test_a() end")
    write("b.lua", "function test_b() assert(shared == nil and test_a == nil) end")
    local code, out = test "--jobs 1 a.lua b.lua"
    lu.assertEquals({ code, last_line(out) }, { 0, "2 passed, 0 failed" })
end

function TestFiles:test_results_come_in_the_order_of_the_files_however_many_run_at_once()
    local names = {}
    for i = 1, 6 do
        names[i] = ("f%d.lua"):format(i)
        write(names[i], ("function test_%d() require('weir').sleep(%g) end"):format(i, (6 - i) * 0.03))
    end
    for _, jobs in ipairs { 1, 3, 6 } do
        local code, out = test(("--jobs %d %s"):format(jobs, table.concat(names, " ")))
        lu.assertEquals(code, 0)
        local order = {}
        for name in out:gmatch "(f%d%.lua)\n" do order[#order + 1] = name end
        lu.assertEquals(order, names)
    end
end

function TestFiles:test_so_many_files_run_at_once_and_no_more()
    local meeting = "function test_it() local f = io.open('met', 'a') f:write '+\\n' f:close() "
        .. "require('weir').sleep(0.3) f = io.open('met', 'a') f:write '-\\n' f:close() end"
    for _, name in ipairs { "a", "b", "c", "d" } do write(name .. ".lua", meeting) end
    for jobs, most_wanted in pairs { [1] = 1, [2] = 2, [4] = 4 } do
        os.remove(folder .. "/met")
        lu.assertEquals(test(("--jobs %d a.lua b.lua c.lua d.lua"):format(jobs)), 0)
        local now, most = 0, 0
        for sign in read("met"):gmatch "[+-]" do
            now = now + (sign == "+" and 1 or -1)
            most = math.max(most, now)
        end
        lu.assertEquals(most, most_wanted)
    end
end

-- ---- what hangs and what crashes --------------------------------------------------------------------------

TestLimits = class()

local function assert_limited(body, line)
    local text = "TestA = {}\nfunction TestA:test_1()\n%s\nend\nfunction TestA:test_2() end"
    local code, out = run(text:format(body), "--limit 0.2")
    lu.assertEquals({ code, last_line(out) }, { 1, "1 passed, 1 failed" }, body .. out)
    lu.assertStrContains(out, ("        t.lua:%d: still at work after 0.2 s, the limit\n"):format(line))
end

function TestLimits:test_an_endless_loop_ends_with_its_line_and_the_next_case_runs()
    assert_limited("while true do end", 3)
end

function TestLimits:test_no_pcall_can_swallow_that_for_ever()
    assert_limited("while true do pcall(function()\nwhile true do end end) end", 4)
    assert_limited("local function f() while true do pcall(error) end end\n"
        .. "while true do xpcall(f, print) end", 3)
end

function TestLimits:test_a_caught_limit_still_fails_the_case()
    assert_limited("pcall(function()\nwhile true do end end)", 4)
end

function TestLimits:test_coroutines_and_tasks_are_found()
    assert_limited("coroutine.wrap(function()\nwhile true do end end)()", 4)
    assert_limited("require('weir').spawn(function()\nwhile true do end end):join()", 4)
    assert_limited("local weir = require 'weir'\nweir.spawn(function() weir.sleep(60) end):join()", 4)
    assert_limited("local co = coroutine.create(function() while true do coroutine.yield() end end) "
        .. "while true do coroutine.resume(co) end", 3)
end

function TestLimits:test_waiting_is_not_for_ever_either()
    assert_limited("require('weir').sleep(60)", 3)
    assert_limited("local pipe = io.popen 'sleep 5'\nlocal text = pipe:read 'a'\nreturn text", 4)
end

-- Of 100 000 users the time goes by in our own code.
function TestLimits:test_a_limit_within_our_own_code_is_told_with_the_line_of_the_scenario()
    local _, out = run([[
        local s = require "weir.scenario"
        s.scenario "crowd" { load = { arrivals = s.users(100000) }, duration = 1000 }
    ]], "--limit 0.3")
    lu.assertStrContains(out, "        t.lua:2: still at work after 0.3 s, the limit\n")
end

function TestLimits:test_set_up_and_tear_down_have_the_limit_too()
    local code, out = run([[
        TestA = { test_1 = function() end }
        function TestA:tearDown() while true do end end
    ]], "--limit 0.2")
    lu.assertEquals({ code, last_line(out) }, { 1, "0 passed, 1 failed" })
    lu.assertStrContains(out, "t.lua:2: still at work")
end

function TestLimits:test_tear_down_and_finalisers_run_after_a_limit()
    local code, out = run([[
        TestA = {}
        function TestA:test_1() io.open("began", "w"):close() while true do end end
        function TestA:tearDown() os.remove "began" io.open("tore", "w"):close() end
        Kept = setmetatable({}, { __gc = function() io.open("closed", "w"):close() end })
    ]], "--limit 0.2")
    lu.assertEquals({ code, last_line(out) }, { 1, "0 passed, 1 failed" })
    lu.assertNil(io.open(folder .. "/began"))
    lu.assertNotNil(io.open(folder .. "/tore"))
    lu.assertNotNil(io.open(folder .. "/closed"))
end

function TestLimits:test_one_long_call_costs_the_process_but_no_other_case()
    local code, out = run([[
        TestA = {}
        function TestA:test_1() end
        function TestA:test_2() return (("a"):rep(60)):find((".-"):rep(30) .. "b") end
        function TestA:test_3() end
    ]], "--limit 0.2")
    lu.assertEquals({ code, last_line(out) }, { 1, "2 passed, 1 failed" })
    lu.assertStrContains(out, "t.lua:3: still at work 3 s after the limit of 0.2 s, in one long call that "
        .. "cannot be interrupted: its process was ended")
end

function TestLimits:test_a_crash_costs_its_case_only()
    local code, out = run [[
        TestA = {}
        function TestA:test_1() end
        function TestA:test_2() io.write "last words" io.stdout:flush() os.execute "kill -s ABRT $PPID" end
        function TestA:test_3() require("luaunit").unregisterCurrentSuite() os.exit(7) end
        function TestA:test_4() os.exit(7) end
        function TestA:test_5() end
    ]]
    lu.assertEquals({ code, last_line(out) }, { 1, "2 passed, 3 failed" })
    lu.assertStrContains(out, "its process was ended in the middle of this case by signal 6 (SIGABRT)\n")
    lu.assertStrContains(out, "| last words\n")
    lu.assertStrContains(out, "its process ended in the middle of this case with exit code 7\n")
    lu.assertStrContains(out, "You are trying to exit but there is still a running instance of LuaUnit.")
end

function TestLimits:test_a_crash_at_the_end_of_a_file_is_a_failure()
    local code, out = run [[
        function test_it() end
        x = setmetatable({}, { __gc = function() os.execute "kill -s ABRT $PPID" end })
    ]]
    lu.assertEquals({ code, last_line(out) }, { 1, "1 passed, 1 failed" })
    lu.assertStrContains(out, "its process was ended after the last case by signal 6 (SIGABRT)\n")
end

function TestLimits:test_endless_output_has_an_end()
    local code, out = run([[
        function test_1() while true do io.write(("x"):rep(1e6), "\n") end end
        function test_2() end
    ]], "--limit 20")
    lu.assertEquals({ code, last_line(out) }, { 1, "1 passed, 1 failed" })
    lu.assertStrContains(out, "its process was ended: it printed more than 64 MB\n")
end

function TestLimits:test_what_a_test_has_started_ends_with_it()
    local code = run "function test_it() os.execute 'sleep 60 & echo $! >pid' end"
    lu.assertEquals(code, 0)
    lu.assertFalse(is_alive(read("pid"):match "%d+"))
end

-- ---- scenarios --------------------------------------------------------------------------------------------

TestScenarios = class()

function TestScenarios:test_scenarios_are_cases_with_real_and_virtual_seconds()
    with_stand_ins()
    local code, out = run [[
        local s = require "weir.scenario"
        s.scenario "second by name" (function() end)
        s.scenario "first by name" (function() end)
        function test_beside() end
    ]]
    lu.assertEquals({ code, last_line(out) }, { 0, "3 passed, 0 failed" })
    lu.assertEquals((out:gsub("%f[%d]%d%.%d%d s", "T")),
        "t.lua\n  ok    second by name (T for 90.00 s)\n  ok    first by name (T for 90.00 s)\n"
        .. "  ok    test_beside (T)\n\n"
        .. "1 file, 3 cases in T for 180.00 s of virtual time\n3 passed, 0 failed\n")
end

function TestScenarios:test_a_failed_one_shows_its_sentences_and_picture()
    with_stand_ins()
    local code, out = run(FAILING_SCENARIO)
    lu.assertEquals({ code, last_line(out) }, { 1, "0 passed, 1 failed" })
    lu.assertStrContains(out,
        "        t.lua:9: goodput before: at least 0.99 was expected, 0.5 seen at 20 s\n"
        .. "        goodput |##..##|\n                0  90\n"
        .. "        again: weir test --seed 1 --filter '^a server & <crashes>$' t.lua\n")
end

function TestScenarios:test_an_error_in_one_is_its_sentence_without_a_traceback()
    with_stand_ins()
    local code, out = run [[
        local s = require "weir.scenario"
        s.scenario "wrong" (function()
            error("t.lua:7: unknown fault 'crush'; there are crash, slow", 0)
        end)
    ]]
    lu.assertEquals(code, 1)
    lu.assertStrContains(out, "  t.lua:7: unknown fault 'crush'; there are crash, slow\n        again: ")
end

function TestScenarios:test_a_skipped_one_says_why()
    with_stand_ins()
    local code, out = run [[
        local s = require "weir.scenario"
        s.scenario "live only" (function(report) report.skipped = "no server binaries" end)
    ]]
    lu.assertEquals({ code, last_line(out) }, { 0, "0 passed, 0 failed, 1 skipped" })
    lu.assertStrContains(out, "  skip  live only: no server binaries\n")
end

function TestScenarios:test_a_sweep_runs_each_seed_and_tells_the_failing_one()
    with_stand_ins()
    write("t.lua", [[
        local s = require "weir.scenario"
        s.scenario "only 9 fails" (function(report, options)
            report.ok = options.seed ~= 9
            report.text = "seed " .. options.seed
        end)
        s.scenario "never" (function() end)
    ]])
    local code, out = test "--seed 8 --seeds 3 t.lua"
    lu.assertEquals({ code, last_line(out) }, { 1, "5 passed, 1 failed" })
    lu.assertStrContains(out, "  FAIL  only 9 fails (seed 9) (")
    local again = out:match "again: weir (test [^\n]*)"
    lu.assertEquals(again, "test --seed 9 --filter '^only 9 fails$' t.lua")
    code, out = shell([["$weir" ]] .. again)
    lu.assertEquals({ code, last_line(out) }, { 1, "0 passed, 1 failed" })
end

function TestScenarios:test_units_that_use_a_simulation_are_swept_too_and_others_are_not()
    with_stand_ins()
    write("t.lua", "local sim = require 'weir.sim' function test_it() assert(sim.seed() ~= 9) end")
    write("u.lua", "function test_plain() end")
    local code, out = test "--seed 8 --seeds 3 t.lua u.lua"
    lu.assertEquals({ code, last_line(out) }, { 1, "3 passed, 1 failed" })
    lu.assertStrContains(out, "  FAIL  test_it (seed 9)")
    lu.assertStrContains(out, "  ok    test_plain (")
end

function TestScenarios:test_live_is_passed_on_and_repeated()
    with_stand_ins()
    local code, out = run([[
        local s = require "weir.scenario"
        s.scenario "live" (function(report, options)
            report.ok = not options.live
            report.text = "live"
        end)
    ]], "--live")
    lu.assertEquals(code, 1)
    lu.assertStrContains(out, "  FAIL  live (0.00 s)\n")
    lu.assertStrContains(out, "again: weir test --seed 1 --filter '^live$' --live t.lua\n")
end

function TestScenarios:test_a_record_keeps_the_trace_of_each()
    with_stand_ins()
    local code, out = run([[
        local s = require "weir.scenario"
        s.scenario "a crash, and back" (function(report, options)
            options.record "line one"
            options.record("seed " .. options.seed)
            report.ok = options.seed ~= 2
            report.text = "no"
        end)
    ]], "--record kept --seeds 2")
    lu.assertEquals(code, 1)
    lu.assertEquals(read "kept/t-001-a-crash-and-back-seed1.trace", "line one\nseed 1\n")
    lu.assertEquals(read "kept/t-002-a-crash-and-back-seed2.trace", "line one\nseed 2\n")
    lu.assertStrContains(out, "        trace: kept/t-002-a-crash-and-back-seed2.trace\n")
end

function TestScenarios:test_a_name_may_hold_what_means_something_in_a_pattern()
    local code, out = run([[
        local s = require "weir.scenario"
        s.scenario "100%d of %s" {
            load = { arrivals = s.constant(5) }, duration = 1, expect = { s.goodput():is(0) },
        }
    ]], "")
    lu.assertEquals({ code, last_line(out) }, { 1, "0 passed, 1 failed" })
    lu.assertStrContains(out, "100%d of %s: 1 failure")
    lu.assertStrContains(out, "--filter '^100%%d of %%s$'")
end

-- ---- real scenarios ---------------------------------------------------------------------------------------

TestVirtualTime = class()

local OUTAGE = [[
local s = require "weir.scenario"
s.scenario "an outage of 5 s" {
    policy   = { timeout = 1, retries = 1 },
    load     = { arrivals = s.poisson(50), calls = { { "GET /x", sql = "select 1", readonly = true } } },
    faults   = { s.at(5, s.crash "primary" { restart_after = 5 }) },
    duration = 20,
    expect   = { s.goodput("before"):at_least(%s) },
}
]]

function TestVirtualTime:test_a_scenario_passes_and_tells_its_virtual_seconds()
    local code, out = run(OUTAGE:format "0.9", "--seeds 3")
    lu.assertEquals({ code, last_line(out) }, { 0, "3 passed, 0 failed" })
    lu.assertStrContains(out, "  ok    an outage of 5 s (seed 3) (")
    lu.assertStrMatches(out, ".*3 cases in %d+%.%d%d s for 6%d%.%d%d s of virtual time\n.*")
end

function TestVirtualTime:test_a_case_that_passes_shows_its_picture_when_asked()
    local good = OUTAGE:format "0.5"
    local code, plain = run(good)
    lu.assertEquals(code, 0)
    lu.assertNotStrContains(plain, "arrivals")
    for _, options in ipairs { "--pictures", "--pictures --format tap" } do
        local _, out = run(good, options)
        for _, row in ipairs { "arrivals", "goodput", "failures", "breaker" } do
            lu.assertStrMatches(out, ".*\n[# ]+" .. row .. "  .*")
        end
        lu.assertNotStrContains(out, "again:")
    end
end

function TestVirtualTime:test_a_failure_shows_line_sentence_and_picture_in_each_format()
    local wrong = OUTAGE:format "0.5" .. [[
        s.scenario "too much to hope" {
            load = { arrivals = s.poisson(50), calls = { { "GET /x", sql = "select 1", readonly = true } } },
            faults = { s.at(5, s.crash "primary" { restart_after = 5 }) },
            duration = 20,
            expect = { s.goodput("outage"):at_least(1) },
            phases = { s.phase("outage", 5, 10) },
        }
    ]]
    local code, text = run(wrong)
    lu.assertEquals({ code, last_line(text) }, { 1, "1 passed, 1 failed" })
    local sentence = "t.lua:13: goodput of phase \"outage\" should be at least"
    for _, out in ipairs { text, (select(2, run(wrong, "--format tap"))) } do
        lu.assertStrContains(out, sentence)
        for _, row in ipairs { "arrivals", "goodput", "failures", "breaker" } do
            lu.assertStrMatches(out, ".*\n[# ]+" .. row .. "  .*")
        end
        lu.assertNil(out:find "[\128-\255]")
    end
    local _, xml = shell [[LC_ALL=C.UTF-8 "$weir" test --format junit t.lua]]
    local properties, failure = table.unpack(parse_xml(xml)[1][2])
    lu.assertStrMatches(properties[2].attributes.value, "%x+")
    lu.assertStrContains(plain(failure.text), sentence)
    lu.assertStrMatches(failure.text, ".*\nbreaker    [CHO]+ .*")
    lu.assertNotNil(failure.text:find "\226\150\136")
end

function TestVirtualTime:test_the_same_seed_keeps_the_same_trace_byte_for_byte()
    write("t.lua", OUTAGE:format "0.9")
    for _, kept in ipairs { "one", "two" } do lu.assertEquals(test("--record " .. kept .. " t.lua"), 0) end
    local name = "/t-001-an-outage-of-5-s-seed1.trace"
    local first = read("one" .. name)
    lu.assertTrue(#first > 1000)
    lu.assertTrue(read("two" .. name) == first)
end

function TestVirtualTime:test_what_is_wrong_in_a_file_is_one_sentence_with_its_line()
    for change, sentence in pairs {
        ["duration = 20"] = { "durationn = 20", "t.lua:6: " },
        ['s.crash "primary"'] = { 's.crush "primary"', "t.lua:5: " },
        ["s.at(5,"] = { "s.at(50,", "t.lua:5: " },
    } do
        local text = OUTAGE:format("0.9")
        local from, to = text:find(change, 1, true)
        local code, out = run(text:sub(1, from - 1) .. sentence[1] .. text:sub(to + 1))
        lu.assertEquals({ code, last_line(out) }, { 2, "0 passed, 1 failed" }, change)
        lu.assertStrContains(out, "        " .. sentence[2])
    end
end

function TestVirtualTime:test_code_of_its_own_that_never_ends_is_found()
    local limit = "still at work after 0.3 s, the limit\n"
    for work, ending in pairs {
        ["while true do end"] = { "0.3", limit },
        ["while true do pcall(function() while true do end end) end"] = { "0.3", limit },
        ["local weir = require 'weir' while true do weir.sleep(0) end"] =
            { "50", "work of \"own\": the simulation stands still: " },
    } do
        local code, out = run(([[
            local s = require "weir.scenario"
            s.scenario "stuck" {
                load = { arrivals = s.constant(10), calls = {
                    -- a call of the operator's own
                    { "own", work = function()
                        %s
                    end } } },
                duration = 5,
            }
            function test_after() end
        ]]):format(work), "--limit " .. ending[1])
        lu.assertEquals({ code, last_line(out) }, { 1, "1 passed, 1 failed" }, work)
        lu.assertStrContains(out, "        t.lua:6: " .. ending[2])
    end
end

function TestVirtualTime:test_units_get_the_seed_as_the_default_of_their_simulations()
    local code, out = run([[
        local weir = require "weir"
        function test_it()
            local sim = weir.sim {}
            local slept
            sim:run(function() weir.sleep(3600) slept = sim.clock() end)
            assert(slept == 3600 and sim.seed ~= 9)
        end
    ]], "--seed 8 --seeds 2")
    lu.assertEquals({ code, last_line(out) }, { 1, "1 passed, 1 failed" })
    lu.assertStrContains(out, "  FAIL  test_it (seed 9)")
end

-- ---- the other formats ------------------------------------------------------------------------------------

TestFormats = class()

local MANY = [==[
local lu = require "luaunit"
function test_a_good() end
function test_b_skipped() lu.skip "no # network" end
function test_c_failed() print "1 < 2 & \1\255" lu.fail "two\nlines \"quoted\" ]]> <b>" end
function test_d_error() error "ok 1 - not me" end
TestOdd = { ["test #1 \\ <&>\""] = function() end }
]==]

function TestFormats:test_tap_is_tap()
    local code, out, err = run(MANY, "--format tap")
    local tap = parse_tap(out)
    lu.assertEquals({ code, err, tap.version, tap.plan, #tap.cases }, { 1, "", "TAP version 13", 5, 5 })
    lu.assertEquals(tap.cases[1], { ok = true, name = [[TestOdd.test \#1 \\ <&>"]] })
    lu.assertEquals(tap.cases[3], { ok = true, name = "test_b_skipped", skip = [[no \# network]] })
    lu.assertEquals({ tap.cases[4].ok, tap.cases[5].ok }, { false, false })
    local notes = table.concat(tap.notes, "\n")
    lu.assertStrContains(notes, "# lines \"quoted\"")
    lu.assertStrContains(notes, "ok 1 - not me")
    lu.assertStrContains(notes, "# again: weir test --seed 1")
end

function TestFormats:test_tap_shows_the_picture_in_comments()
    with_stand_ins()
    local _, out = run(FAILING_SCENARIO, "--format tap")
    lu.assertStrContains(out, "not ok 1 - a server & <crashes>\n# t.lua:9: goodput before: at least 0.99 was "
        .. "expected, 0.5 seen at 20 s\n# goodput |##..##|\n#         0  90\n")
end

function TestFormats:test_tap_of_a_file_that_cannot_be_loaded_is_a_failed_case()
    local code, out = run("= 1", "--format tap")
    local tap = parse_tap(out)
    lu.assertEquals({ code, tap.plan, tap.cases[1].ok }, { 2, 1, false })
end

function TestFormats:test_junit_is_well_formed_and_counts()
    local code, out = run(MANY, "--format junit")
    local root = parse_xml(out)
    lu.assertEquals(code, 1)
    lu.assertEquals({ root.name, root.attributes.tests, root.attributes.failures, root.attributes.errors,
        root.attributes.skipped }, { "testsuites", "5", "1", "1", "1" })
    local suite = root[1]
    lu.assertEquals({ #root, suite.name, suite.attributes.name, #suite }, { 1, "testsuite", "t.lua", 5 })
    lu.assertEquals(plain(suite[1].attributes.name), [[TestOdd.test #1 \ <&>"]])
    lu.assertEquals({ suite[2].attributes.classname, suite[2].attributes.line, #suite[2] }, { "t", "2", 0 })
    lu.assertEquals({ suite[3][1].name, suite[3][1].attributes.message }, { "skipped", "no # network" })
    local failure = suite[4][1]
    lu.assertEquals(failure.name, "failure")
    lu.assertStrContains(plain(failure.text), 'two\nlines "quoted" ]]> <b>\n')
    lu.assertStrContains(plain(failure.text), "| 1 < 2 & ?\239\191\189\n")
    lu.assertEquals(suite[5][1].name, "error")
end

function TestFormats:test_junit_has_the_picture_in_the_failure()
    with_stand_ins()
    local _, out = run(FAILING_SCENARIO, "--format junit")
    local properties, failure = table.unpack(parse_xml(out)[1][1])
    lu.assertEquals(properties[1].attributes, { name = "seed", value = "1" })
    lu.assertEquals(properties[2].attributes, { name = "hash", value = "0123456789abcdef" })
    lu.assertEquals(failure.attributes.message,
        "t.lua:9: goodput before: at least 0.99 was expected, 0.5 seen at 20 s")
    lu.assertStrContains(failure.text, "\ngoodput |##..##|\n        0  90\n")
end

function TestFormats:test_bytes_that_are_no_utf8_do_not_break_xml()
    for _, bytes in ipairs {
        "\255", "\192\128", "\237\160\128", "\244\144\128\128", "\239\191\191", "\226\150", "\0",
    } do
        write("t.lua", ("function test_it() error(%q, 0) end"):format("<" .. bytes .. "\226\150\136>"))
        local _, out = test "--format junit t.lua"
        lu.assertStrContains(plain(parse_xml(out)[1][1][1].text), "\226\150\136>")
    end
end

function TestFormats:test_with_output_the_report_goes_there_and_a_text_to_stdout()
    for format, parse in pairs { tap = parse_tap, junit = parse_xml } do
        local code, out = run(MANY, "--format " .. format .. " --output report")
        lu.assertEquals({ code, last_line(out) }, { 1, "2 passed, 2 failed, 1 skipped" })
        parse(read "report")
    end
end

function TestFormats:test_a_full_disk_is_failure()
    local code, _, err = run("function test_it() end", "--output /dev/full")
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "weir test: --output: No space left on device")
end

function TestFormats:test_no_colours_outside_a_terminal_and_none_under_NO_COLOR()
    write("t.lua", "function test_it() end")
    local _, out = test "t.lua"
    lu.assertNil(out:find "\27")
    if not os.execute "command -v script >/dev/null" then lu.skip "no script(1) to lend a terminal" end
    _, out = shell([[env -u NO_COLOR script -qec "'$weir' test t.lua" /dev/null]])
    lu.assertStrContains(out, "\27[32mok  \27[0m  test_it")
    _, out = shell([[NO_COLOR=1 script -qec "'$weir' test t.lua" /dev/null]])
    lu.assertNil(out:find "\27%[%d")
end

-- ---- signals ----------------------------------------------------------------------------------------------

TestSignals = class()

-- Runs files of which each writes its process id and then does as told, and sends the signal when all have.
local function run_and_signal(body, signal, options)
    for _, name in ipairs { "a", "b" } do
        os.remove(folder .. "/" .. name .. ".pid")
        local tell = ("os.execute 'echo $PPID >%s.tmp; mv %s.tmp %s.pid'"):format(name, name, name)
        write(name .. ".lua", ("function test_it() %s %s end"):format(tell, body))
    end
    local code, out, err = shell(([[
        env --default-signal=INT,TERM "$weir" test --jobs 2 %s a.lua b.lua & pid=$!
        while [ ! -s a.pid ] || [ ! -s b.pid ]; do sleep 0.02; done
        kill -s %s $pid; wait $pid
    ]]):format(options or "", signal))
    for _, name in ipairs { "a.pid", "b.pid" } do
        lu.assertFalse(is_alive(read(name):match "%d+"), name)
    end
    return code, out, err
end

function TestSignals:test_ctrl_c_ends_all_workers_in_order()
    local code, out, err = run_and_signal([[
        Kept = setmetatable({}, { __gc = function() io.open("closed", "w"):close() end })
        require("weir").sleep(60)
    ]], "INT")
    lu.assertEquals({ code, err, last_line(out) }, { 130, "weir test: interrupted\n", "0 passed, 0 failed" })
    lu.assertStrContains(out, "interrupted: not all cases were run\n")
    lu.assertNotNil(io.open(folder .. "/closed"))
end

function TestSignals:test_a_termination_ends_workers_that_do_not_hear()
    local code, _, err = run_and_signal("return (('a'):rep(60)):find(('.-'):rep(30) .. 'b')", "TERM")
    lu.assertEquals({ code, err }, { 143, "weir test: terminated\n" })
end

function TestSignals:test_reports_are_completed_on_the_way_out()
    run_and_signal("while true do end", "INT", "--format junit --output report")
    local root = parse_xml(read "report")
    lu.assertEquals(root[#root][1].attributes.name, "(interrupted)")
    run_and_signal("while true do end", "INT", "--format tap --output report")
    lu.assertEquals(parse_tap(read "report").bailed, "Bail out! interrupted")
end

function TestSignals:test_workers_do_not_outlive_a_killed_supervisor()
    local code = run_and_signal("require('weir').sleep(60)", "KILL")
    lu.assertEquals(code, 137)
end

function TestSignals:test_no_trace_of_an_interrupted_run_is_kept()
    with_stand_ins()
    write("t.lua", [[
        local s = require "weir.scenario"
        s.scenario "long" (function(_, options)
            options.record "line"
            io.open("began", "w"):close()
            while true do end
        end)
    ]])
    local code = shell [[
        env --default-signal=INT,TERM "$weir" test --record kept t.lua & pid=$!
        while [ ! -e began ]; do sleep 0.02; done
        kill -s INT $pid; wait $pid
    ]]
    lu.assertEquals(code, 130)
    lu.assertNil(io.open(folder .. "/kept/t-001-long-seed1.trace"))
end

function TestSignals:test_a_reader_that_goes_away_ends_the_run()
    write("t.lua", "for i = 1, 200 do _G['test_' .. i] = function() require('weir').sleep(0.01) end end")
    local _, out, err = shell [[{ "$weir" test t.lua; echo $? >&2; } | head -n 1]]
    lu.assertEquals({ out, err }, { "t.lua\n", "141\n" })
    _, out, err = shell [[{ "$weir" test --filter 'test_1$' t.lua; echo $? >&2; } | { exec <&-; sleep 0.5; }]]
    lu.assertEquals({ out, err }, { "", "141\n" })
end

function TestSignals:test_no_private_file_is_left_behind()
    run "function test_it() error 'no' end function test_b() os.execute 'kill -s ABRT $PPID' end"
    local pipe = assert(io.popen("ls -A " .. quote(folder)))
    local files = pipe:read "a"
    pipe:close()
    lu.assertEquals(files, ".err\n.out\nt.lua\n")
end

os.exit(lu.LuaUnit.run())
