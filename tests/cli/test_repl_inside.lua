-- The prompt inside programs: weir.repl() in a script, `weir run --repl-on-error`, and weir_repl_run in a C
-- program.

local lu = require "luaunit"
local serving = require "serving"
local typist = require "typist"

local BIN = os.getenv "WEIR_BIN" or "build/weir"
local BUILD = os.getenv "WEIR_BUILD_DIR" or "build"

local who

local function run(script, arguments, options)
    options = options or {}
    options.folder = serving.folder()
    serving.write(options.folder .. "/script.lua", script)
    who = typist.sit_down(arguments or "run script.lua", options)
    return who
end

local function stand_up()
    if who then
        who:gets_up()
        os.execute("rm -rf " .. serving.quote(who.folder))
    end
    who = nil
end

-- ---- in a script ------------------------------------------------------------------------------------------

TestScript = { tearDown = stand_up }

function TestScript.test_a_script_stops_at_the_prompt_with_the_names_it_gives_and_goes_on_after()
    run [[
        local weir = require "weir"
        local ticks, orders = 0, { 3, 4 }
        local names = { orders = orders, limit = 10 }
        weir.spawn(function() while names.limit == 10 do ticks = ticks + 1; weir.sleep(0.01) end end)
        weir.repl { names = names }
        print("limit is now", names.limit, ticks > 3)
    ]]
    who:prompt()
    who:enter "orders"
    who:enter "pools()"
    who:enter "weir.sleep(0.2)"
    who:enter "limit = 11"
    who:keys "\4"
    lu.assertEquals((who.terminal:ended()), 0)
    lu.assertEquals(who:transcript(), [[
weir> orders
{ 3, 4 }
weir> pools()
unreachable: there is no engine: db = weir.open { ... }, or start with --area PATH
weir> weir.sleep(0.2)
weir> limit = 11
weir> ^D
limit is now    11      true]])
end

function TestScript.test_its_only_engine_is_seen_without_being_named()
    run [[
        local weir = require "weir"
        local db = assert(weir.open { name = "shop", backends = { primary = "host=/nowhere" },
            clients = { service = { bypass_rls = true, max = 3 } } })
        weir.repl()
        db:close()
    ]]
    who:prompt "shop> ?$"
    lu.assertEquals(who:enter "pool('service').max, db:view():pool('service').max", "3\n3")
    lu.assertEquals(who:leaves(), 0)
end

function TestScript.test_stock_lua_has_a_plain_reader_of_lines()
    local folder = serving.folder()
    serving.write(folder .. "/script.lua", [[
        local weir = require "weir"
        weir.repl { names = { n = 20 } }
        print "after"
    ]])
    serving.write(folder .. "/input", "n + 1\nfor i = 1, 2 do\nprint(i)\nend\n\\events\n")
    local pipe = io.popen(("%s %s/script.lua <%s/input 2>&1"):format(arg[-1], folder, folder))
    lu.assertEquals(pipe:read "a", "21\n1\n2\nunreachable: there is no engine: db = weir.open { ... }, "
        .. "or start with --area PATH\nafter\n")
    pipe:close()
    os.execute("rm -rf " .. serving.quote(folder))
end

-- ---- on an error ------------------------------------------------------------------------------------------

TestOnError = { tearDown = stand_up }

local FAILING = [[
local function charge(order)
    local cents = order.total * 100
    return cents
end
charge { id = 7 }
]]

function TestOnError.test_the_prompt_opens_where_the_script_failed_with_its_locals()
    run(FAILING, "run --repl-on-error script.lua")
    who:prompt()
    lu.assertEquals(who:enter "order.id", "7")
    lu.assertEquals(who:enter "err", [["script.lua:2: attempt to perform arithmetic on a nil value (field 'total')"]])
    lu.assertStrContains(who:enter "print(traceback)", "script.lua:5: in")
    lu.assertEquals(who:leaves(), 1)
    lu.assertStrContains(who:transcript(),
        "script.lua:2: attempt to perform arithmetic on a nil value (field 'total')")
end

function TestOnError.test_without_a_terminal_it_fails_as_ever()
    local folder = serving.folder()
    serving.write(folder .. "/script.lua", FAILING)
    local pipe = io.popen(("cd %s && echo 'print(1)' | %s run --repl-on-error script.lua 2>&1; echo $?"):format(folder,
        serving.quote(BIN)))
    local said = pipe:read "a"
    pipe:close()
    lu.assertStrContains(said, "script.lua:2: attempt to perform arithmetic")
    lu.assertStrMatches(said, ".*\n1\n")
    os.execute("rm -rf " .. serving.quote(folder))
end

function TestOnError.test_a_script_that_ends_well_opens_none()
    run("print(...)", "run --repl-on-error script.lua well")
    lu.assertEquals((who.terminal:ended()), 0)
    lu.assertEquals(who:transcript(), "well")
end

-- ---- in C -------------------------------------------------------------------------------------------------

TestProgram = { tearDown = stand_up }

function TestProgram.test_its_engine_is_seen_and_steered_on_its_own_loop()
    run("", "host=/nowhere", { command = BUILD .. "/weir_example_console" })
    who:prompt()
    who:enter "\\resize service@primary 2 reason quiet"
    who:enter "pool('service').max"
    who:enter "\\breaker service open"
    who:enter "db:breaker('service').state"
    who:enter "\\breaker service auto"
    who:enter "events{ kind = 'operator' }"
    lu.assertEquals(who:leaves(), 0)
    lu.assertEquals(who:transcript(), [[
weir 0.1.0 · embedded · weir_example_console · 1 worker · policy as started · help() lists what there is
service@primary● embedded> \resize service@primary 2 reason quiet
service@primary: 2 connections at most, was 4, in 1 of 1 worker   undo: resize("service@primary", 4)
service@primary● embedded> pool('service').max
2
service@primary● embedded> \breaker service open
service@primary: breaker forced open, in 1 of 1 worker   undo: reset("service@primary")
service@primary■ embedded> db:breaker('service').state
"FORCED_OPEN"
service@primary■ embedded> \breaker service auto
service@primary breaker back to normal, with a fresh window, in 1 of 1 worker
service@primary● embedded> events{ kind = 'operator' }
at            kind      pool             worker  what
TIME  operator  service@primary       1  resized to 2 connections by USER (uid UID, process PID): quiet
TIME  operator  service@primary       1  breaker held FORCED_OPEN by USER (uid UID, process PID)
TIME  operator  service@primary       1  breaker reset by USER (uid UID, process PID)
service@primary● embedded> ^D]])
end

function TestProgram.test_ctrl_c_ends_what_runs_and_sigterm_the_session()
    run("", "host=/nowhere", { command = BUILD .. "/weir_example_console" })
    who:prompt()
    lu.assertStrContains(who:interrupts "while true do end", "interrupted")
    lu.assertEquals(who:enter "6 * 7", "42")
    who.terminal:signal "TERM"
    local code, before, after = who.terminal:ended()
    lu.assertEquals({ code, after }, { 143, before })
end

os.exit(lu.LuaUnit.run())
