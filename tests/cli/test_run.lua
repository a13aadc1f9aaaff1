-- `weir run` and its neighbours, seen from outside: the built binary, its output and its exit codes.

local lu = require "luaunit"

local BIN = os.getenv "WEIR_BIN" or "build/weir"

-- ---- helpers ----------------------------------------------------------------------------------------------

local scratch = {}               -- files of this test, removed after it

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function write(text)
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
    scratch[#scratch + 1] = path
    return path
end

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read "a"
    file:close()
    return text
end

-- Runs lines of shell in which "$weir" is the binary. Returns the exit code, stdout and stderr.
local function shell(lines)
    local out, err = write "", write ""
    local redirected = ("weir=%s; { %s\n} >%s 2>%s"):format(quote(BIN), lines, quote(out), quote(err))
    local _, how, code = os.execute(redirected)
    return how == "exit" and code or 128 + code, read(out), read(err)
end

local function weir(arguments)
    return shell([["$weir" ]] .. arguments)
end

local function run(script, arguments)
    return weir(("run %s %s"):format(quote(write(script)), arguments or ""))
end

-- Runs a script and sends it signals, the first one when it calls ready().
local function run_and_signal(script, ...)
    local kills = {}
    for _, signal in ipairs { ... } do kills[#kills + 1] = ("kill -s %s $pid; sleep 0.1"):format(signal) end
    local fifo = os.tmpname()
    os.remove(fifo)
    local path = write("local function ready() print 'ready' io.stdout:flush() end " .. script)
    local code, out, err = shell(([[
        mkfifo %s; env --default-signal=INT,TERM,HUP "$weir" run %s >%s & pid=$!
        read -r first <%s; %s
        wait $pid
    ]]):format(fifo, quote(path), fifo, fifo, table.concat(kills, "\n")))
    os.remove(fifo)
    return code, out, err
end

local function clean_up()
    for _, path in ipairs(scratch) do os.remove(path) end
    scratch = {}
end

-- ---- the command itself -----------------------------------------------------------------------------------

TestCommand = { tearDown = clean_up }

function TestCommand:test_without_a_command_it_shows_the_commands_as_wrong_usage()
    local code, out, err = weir ""
    lu.assertEquals({ code, out }, { 2, "" })
    lu.assertStrContains(err, "run  ")
end

function TestCommand:test_an_unknown_command_is_told_what_exists()
    local code, out, err = weir "fly"
    lu.assertEquals({ code, out }, { 2, "" })
    lu.assertStrMatches(err, "weir: there is no command 'fly'; there are run, [%l, ]*doctor, [%l, ]*help and %-%-version\n")
end

function TestCommand:test_an_unknown_option_is_named()
    local code, _, err = weir "--fly"
    lu.assertEquals(code, 2)
    lu.assertStrContains(err, "no option '--fly'")
end

function TestCommand:test_the_version_goes_to_standard_output()
    local code, out = weir "--version"
    lu.assertEquals(code, 0)
    lu.assertStrMatches(out, "weir %d+%.%d+%.%d+\n")
end

function TestCommand:test_help_lists_the_commands()
    for _, how in ipairs { "help", "--help", "-h" } do
        local code, out, err = weir(how)
        lu.assertEquals({ code, err }, { 0, "" })
        lu.assertStrContains(out, "usage: weir COMMAND")
    end
end

function TestCommand:test_help_of_a_command_tells_its_exit_codes()
    for _, how in ipairs { "help run", "run --help" } do
        local code, out = weir(how)
        lu.assertEquals(code, 0)
        lu.assertStrContains(out, "usage: weir run [--repl-on-error] FILE.lua")
        lu.assertStrContains(out, "Exit codes: 0 well")
    end
end

function TestCommand:test_help_of_an_unknown_command_is_wrong_usage()
    local code, _, err = weir "help fly"
    lu.assertEquals(code, 2)
    lu.assertStrContains(err, "no command 'fly'")
end

-- ---- what cannot be run -----------------------------------------------------------------------------------

TestUsage = { tearDown = clean_up }

local function assert_usage(arguments, sentence)
    local code, out, err = weir(arguments)
    lu.assertEquals({ code, out }, { 2, "" })
    lu.assertStrContains(err, sentence)
    lu.assertEquals(select(2, err:gsub("\n", "")), 1, "one sentence: " .. err)
end

function TestUsage:test_a_missing_file_name_is_wrong_usage()
    assert_usage("run", "weir run: a script is missing")
end

function TestUsage:test_a_file_that_is_not_there_is_named()
    assert_usage("run /nowhere/x.lua", "cannot read /nowhere/x.lua: No such file or directory")
end

function TestUsage:test_a_directory_is_no_script()
    assert_usage("run /tmp", "/tmp is a directory")
end

function TestUsage:test_an_unknown_option_of_run_is_named()
    assert_usage("run --fast x.lua", "unknown option '--fast'")
end

function TestUsage:test_a_syntax_error_tells_file_and_line()
    local path = write "local a\nlocal b = = 1\n"
    assert_usage("run " .. quote(path), path .. ":2: unexpected symbol")
end

function TestUsage:test_a_precompiled_chunk_is_refused()
    local chunk = string.dump(function() end)
    assert_usage("run " .. quote(write(chunk)), "not a Lua script: attempt to load a binary chunk")
end

function TestUsage:test_a_file_that_is_no_text_is_refused()
    assert_usage("run " .. quote(write "\127ELF\0\0\1\2"), "not a Lua script")
end

-- ---- what a script sees -----------------------------------------------------------------------------------

TestScript = { tearDown = clean_up }

function TestScript:test_it_runs_and_ends_with_zero()
    local code, out, err = run "print(_VERSION)"
    lu.assertEquals({ code, out, err }, { 0, "Lua 5.4\n", "" })
end

function TestScript:test_arguments_arrive_as_varargs_and_in_arg()
    local code, out = run("print(select('#', ...), ...) print(#arg, arg[1], arg[2], arg[3], arg[0] ~= nil)",
        [[--x 'a b' '']])
    lu.assertEquals({ code, out }, { 0, "3\t--x\ta b\t\n3\t--x\ta b\t\ttrue\n" })
end

function TestScript:test_it_may_come_from_standard_input()
    local code, out = shell [[echo 'print(arg[0], ...)' | "$weir" run - x]]
    lu.assertEquals({ code, out }, { 0, "-\tx\n" })
end

function TestScript:test_it_may_come_from_a_pipe()
    local fifo = os.tmpname()
    os.remove(fifo)
    local code, out = shell(([[mkfifo %s; echo 'print(1)' >%s & "$weir" run %s]]):format(fifo, fifo, fifo))
    os.remove(fifo)
    lu.assertEquals({ code, out }, { 0, "1\n" })
end

function TestScript:test_a_first_line_with_a_hash_is_skipped()
    local code, out = run "#!/usr/bin/env -S weir run\nprint 'ran'"
    lu.assertEquals({ code, out }, { 0, "ran\n" })
end

function TestScript:test_it_is_a_task_and_others_run_while_it_sleeps()
    local code, out = run [[
        local weir = require "weir"
        local other = weir.spawn(function() print "other" end)
        weir.sleep(0.01)
        print("main", other:status(), coroutine.isyieldable())
    ]]
    lu.assertEquals({ code, out }, { 0, "other\nmain\tdone\ttrue\n" })
end

function TestScript:test_it_ends_when_its_last_task_has_ended()
    local code, out = run [[
        local weir = require "weir"
        weir.spawn(function() weir.sleep(0.02) print "late" end)
    ]]
    lu.assertEquals({ code, out }, { 0, "late\n" })
end

function TestScript:test_modules_of_the_tree_are_found_without_a_path()
    local code, out, err = shell(([[cd / && env -u LUA_PATH -u LUA_CPATH "$weir" run %s]]):format(
        quote(write "print(require('weir.testing').postgres ~= nil)")))
    lu.assertEquals({ code, out, err }, { 0, "true\n", "" })
end

function TestScript:test_an_installed_command_finds_the_modules_beside_it_and_not_those_of_its_source()
    local prefix = os.tmpname()
    os.remove(prefix)
    local code, out = shell(([[
        prefix=%s; modules=$prefix/share/lua/5.4/weir; mkdir -p "$prefix/bin" "$modules"
        cp "$weir" "$prefix/bin/weir"
        echo "return { run = function() print(package.path) return true end }" >"$modules/loop.lua"
        env -u LUA_PATH "$prefix/bin/weir" run %s
        rm -r "$prefix"
    ]]):format(prefix, quote(write "")))
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, prefix .. "/bin/../share/lua/5.4/?.lua;")
    lu.assertNotStrContains(out, (os.getenv "WEIR_SOURCE_DIR" or "no source") .. "/lua/")
end

function TestScript:test_the_folder_in_WEIR_LUA_PATH_comes_first()
    local folder = os.tmpname()
    os.remove(folder)
    local code, out = shell(([[
        folder=%s; mkdir "$folder"; echo 'return "mine"' >"$folder/weir.lua"
        WEIR_LUA_PATH=$folder "$weir" run %s
        rm -r "$folder"
    ]]):format(folder, quote(write "print((require 'weir'))")))
    lu.assertEquals({ code, out }, { 0, "mine\n" })
end

function TestScript:test_coroutines_of_its_own_behave_as_in_stock_lua()
    local code, out, err = run [[
        local function count(n) for i = 1, n do coroutine.yield(i) end return "end" end
        local co = coroutine.create(count)
        print(coroutine.resume(co, 1))
        print(coroutine.resume(co))
        print(coroutine.resume(co))
        local next = coroutine.wrap(count)
        print(next(1), next())
        print(pcall(coroutine.wrap(function() error("oops", 0) end)))
        print(pcall(coroutine.wrap(function() error({}) end)))
        print(pcall(coroutine.resume, 1))
        print(pcall(coroutine.wrap, 1))
    ]]
    lu.assertEquals({ code, err }, { 0, "" })
    lu.assertStrMatches(out, "true\t1\ntrue\tend\nfalse\tcannot resume dead coroutine\n1\tend\nfalse\toops\n"
        .. "false\ttable: 0x%x+\nfalse\tbad argument #1[^\n]*\nfalse\tbad argument #1[^\n]*\n")
end

-- ---- how it ends ------------------------------------------------------------------------------------------

TestEnd = { tearDown = clean_up }

function TestEnd:test_an_error_is_failure_with_message_and_traceback()
    local code, out, err = run "local function deep() error 'boom' end\nprint 'before'\ndeep()"
    lu.assertEquals({ code, out }, { 1, "before\n" })
    lu.assertStrMatches(err, "weir: [^\n]*:1: boom\nstack traceback:\n.*:3: in .*")
end

function TestEnd:test_an_error_object_speaks_for_itself()
    local code, _, err = run "error(setmetatable({}, { __tostring = function() return 'pool is full' end }))"
    lu.assertEquals({ code, err }, { 1, "weir: pool is full\n" })
end

function TestEnd:test_an_error_object_without_words_is_named_by_its_type()
    local code, _, err = run "error({})"
    lu.assertEquals({ code, err }, { 1, "weir: (error object is a table value)\n" })
end

function TestEnd:test_an_error_object_whose_words_fail_is_still_failure()
    local code, _, err = run "error(setmetatable({}, { __tostring = function() error 'again' end }))"
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "weir: the script failed")
end

function TestEnd:test_no_error_object_at_all_is_still_failure()
    local code, _, err = run "error()"
    lu.assertEquals({ code, err }, { 1, "weir: the script failed\n" })
end

function TestEnd:test_a_failed_task_that_nobody_joined_is_failure()
    local code, _, err = run "require('weir').spawn(function() error 'unheard' end)"
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "unheard")
end

function TestEnd:test_os_exit_gives_its_code_and_closes_the_state()
    local code, out = run "x = setmetatable({}, { __gc = function() print 'closed' end }) os.exit(7)"
    lu.assertEquals({ code, out }, { 7, "closed\n" })
end

function TestEnd:test_os_exit_works_in_a_task_and_with_booleans()
    lu.assertEquals(run "require('weir').spawn(os.exit, 9) require('weir').sleep(5)", 9)
    lu.assertEquals(run "os.exit(false)", 1)
    lu.assertEquals(run "os.exit(true)", 0)
    lu.assertEquals(run "os.exit()", 0)
end

function TestEnd:test_a_reader_that_goes_away_ends_a_printing_script_quietly()
    local code, out, err = shell(([[{ "$weir" run %s; echo $? >&2; } | head -n 1]]):format(
        quote(write "while true do print 'line' end")))
    lu.assertEquals({ code, out, err }, { 0, "line\n", "141\n" })
end

function TestEnd:test_a_reader_that_goes_away_ends_a_script_that_ignores_it()
    local _, out, err = shell(([[{ "$weir" run %s; echo $? >&2; } | head -n 1]]):format(
        quote(write "while true do pcall(io.write, 'line\\n') end")))
    lu.assertEquals({ out, err }, { "line\n", "141\n" })
end

function TestEnd:test_output_that_cannot_be_written_is_failure()
    local code, _, err = shell(([["$weir" run %s >/dev/full]]):format(quote(write "io.write 'x'")))
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "could not be written")
end

function TestEnd:test_closed_descriptors_are_no_place_for_what_the_script_opens()
    local script = quote(write [[
        print(io.read "a")
        require("weir").sleep(0.01)
        local path = os.tmpname()
        local file = assert(io.open(path, "w"))
        print "to nobody"
        file:write "kept"
        file:close()
        assert(io.open(path)):close()
        assert(io.lines(path)() == "kept")
        os.remove(path)
    ]])
    for _, closed in ipairs { ">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-" } do
        lu.assertEquals(shell(([[ </dev/null "$weir" run %s %s]]):format(script, closed)), 0, closed)
    end
end

-- ---- signals ----------------------------------------------------------------------------------------------

TestSignals = { tearDown = clean_up }

local FOR_EVER = "ready() while true do end"

function TestSignals:test_ctrl_c_ends_a_busy_script_with_130()
    local code, _, err = run_and_signal(FOR_EVER, "INT")
    lu.assertEquals({ code, err }, { 130, "weir: interrupted\n" })
end

function TestSignals:test_a_termination_ends_it_with_143()
    local code, _, err = run_and_signal(FOR_EVER, "TERM")
    lu.assertEquals({ code, err }, { 143, "weir: terminated\n" })
end

function TestSignals:test_a_hangup_ends_it_with_129()
    local code, _, err = run_and_signal(FOR_EVER, "HUP")
    lu.assertEquals({ code, err }, { 129, "weir: hung up\n" })
    code = run_and_signal("ready() require('weir').sleep(60)", "HUP")
    lu.assertEquals(code, 129)
end

-- Moves the log away, says ready, and is over once there is a new one.
local WRITES_A_LOG = [[
    local weir = require "weir"
    local path = %q
    local db = assert(weir.open { backends = { primary = "host=/nowhere" }, clients = { service = { bypass_rls = true } },
        health = { interval = 0 }, log = { to = path } })
    os.rename(path, path .. ".1")
    %s
    ready()
    local patience = weir.now() + 20
    while not io.open(path) and weir.now() < patience do %s end
    db:pause()
]]

function TestSignals:test_a_hangup_opens_the_log_of_a_script_anew_and_ends_nothing()
    for _, pass_time in ipairs { "weir.sleep(0.01)", "local x = 1", "coroutine.wrap(function() weir.sleep(0.01) end)()" } do
        local log = write ""
        scratch[#scratch + 1] = log .. ".1"
        local code, _, err = run_and_signal(WRITES_A_LOG:format(log, "", pass_time), "HUP")
        lu.assertEquals({ code, err }, { 0, "" })
        lu.assertStrContains(read(log), "event=operator.order")
        lu.assertNotStrContains(read(log), "event=engine.opened")
        lu.assertStrContains(read(log .. ".1"), "event=engine.opened")
    end
end

function TestSignals:test_a_log_that_cannot_be_opened_anew_is_told_and_goes_on()
    local log = write ""
    scratch[#scratch + 1] = log .. ".1"
    local blocked = "os.execute('mkdir ' .. path)"
    local script = WRITES_A_LOG:format(log, blocked, "return"):gsub("while.-end\n", "weir.sleep(0.3)\n")
    local code, _, err = run_and_signal(script, "HUP")
    os.remove(log)
    lu.assertEquals(code, 0)
    lu.assertEquals(err, ("weir: cannot open the log %s: Is a directory\n"):format(log))
    lu.assertStrContains(read(log .. ".1"), "event=operator.order")
end

function TestSignals:test_ctrl_c_ends_a_sleeping_script()
    local code, _, err = run_and_signal("ready() require('weir').sleep(60)", "INT")
    lu.assertEquals({ code, err }, { 130, "weir: interrupted\n" })
end

function TestSignals:test_ctrl_c_ends_a_script_that_waits_for_input()
    local code = run_and_signal("local pipe = io.popen 'sleep 1' ready() pipe:read 'l'", "INT")
    lu.assertEquals(code, 130)
end

function TestSignals:test_ctrl_c_reaches_a_coroutine_in_a_coroutine_of_a_task()
    local code = run_and_signal([[
        local weir = require "weir"
        weir.spawn(function()
            coroutine.wrap(function()
                local co = coroutine.create(function() ready() while true do end end)
                coroutine.resume(co)
            end)()
        end)
        weir.sleep(60)
    ]], "INT")
    lu.assertEquals(code, 130)
end

function TestSignals:test_the_script_sees_the_error_interrupted_and_may_clean_up()
    local code, _, err = run_and_signal([[
        local ok, err = pcall(function() ready() while true do end end)
        io.stderr:write("cleaned up after ", err, "\n")
    ]], "INT")
    lu.assertEquals({ code, err }, { 130, "cleaned up after interrupted\nweir: interrupted\n" })
end

function TestSignals:test_the_state_is_closed_after_ctrl_c()
    local code, _, err = run_and_signal([[
        x = setmetatable({}, { __gc = function() io.stderr:write "closed\n" end })
        ready()
        while true do end
    ]], "INT")
    lu.assertEquals({ code, err }, { 130, "weir: interrupted\nclosed\n" })
end

function TestSignals:test_a_second_ctrl_c_ends_it_at_once()
    local code, _, err = run_and_signal([[
        pcall(function() ready() while true do end end)
        while true do end
    ]], "INT", "INT")
    lu.assertEquals({ code, err }, { 130, "" })
end

function TestSignals:test_an_ignored_ctrl_c_stays_ignored()
    local code, out = shell(([[env --ignore-signal=INT "$weir" run %s]]):format(
        quote(write "os.execute('kill -s INT $PPID') print 'alive'")))
    lu.assertEquals({ code, out }, { 0, "alive\n" })
end

function TestSignals:test_ctrl_c_ends_a_script_that_calls_the_database_and_overlooks_errors()
    local code, _, err = run_and_signal([[
        local weir = require "weir"
        local server = assert(require("weir.testing").postgres())
        local db = assert(weir.open {
            backends = { primary = server:url() },
            clients = { service = { bypass_rls = true } },
        })
        local service = db:service()
        assert(service:query("GET", "select 1"))
        ready()
        while true do pcall(service.query, service, "GET", "select 1") end
    ]], "INT")
    lu.assertEquals({ code, err }, { 130, "weir: interrupted\n" })
end

function TestSignals:test_ctrl_c_leaves_no_throw_away_server_behind()
    local code, _, err = run_and_signal([[
        local pg = assert(require("weir.testing").postgres())
        io.stderr:write(pg.dir, "\n")
        ready()
        while true do end
    ]], "INT")
    lu.assertEquals(code, 130)
    local dir = err:match "^(/[^\n]+)\n"
    lu.assertNil(io.open(dir .. "/commands", "r+"))
end

os.exit(lu.LuaUnit.run())
