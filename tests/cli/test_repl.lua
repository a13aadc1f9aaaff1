-- The console by hand: a prompt on a pseudo-terminal, what is typed there and what comes back, as
-- transcripts.

local lu = require "luaunit"
local serving = require "serving"
local typist = require "typist"

local POLICY = [[return {
    name = "api", backends = { primary = "host=/nowhere" }, timeout = 1, retries = 0,
    clients = { anon = { max = 4, role = "web_anon" }, service = { bypass_rls = true } },
}]]

local who

local function sit_down(arguments, options)
    options = options or {}
    options.folder = options.folder or serving.folder()
    serving.write(options.folder .. "/policy.lua", options.policy or POLICY)
    who = typist.sit_down(arguments or "repl policy.lua", options)
    who:prompt()
    return who
end

local function stand_up()
    if who then
        who:gets_up()
        os.execute("rm -rf " .. serving.quote(who.folder))
    end
    who = nil
end

-- ---- a session --------------------------------------------------------------------------------------------

TestPrompt = { tearDown = stand_up }

function TestPrompt.test_expressions_statements_and_chunks_of_several_lines()
    sit_down()
    who:enter "1 + 1"
    who:enter "= 2 ^ 10, nil, 'text'"
    who:enter "x = { 1, { a = true }, n = { deep = {} } }"
    who:enter "x.self = x"
    who:enter "x"
    who:enter "for i = 1, 2 do"
    who:enter "  print(i, [["
    who:enter "end]])"
    who:enter "end"
    who:enter "local no = nil; no.field = 1"
    who:enter "x = = 1"
    who:enter "{ { id = 7, name = 'ann' }, { id = 12, name = 'bo' } }"
    lu.assertEquals(who:transcript(), [[
weir 0.1.0 · api · weir repl · 1 worker · policy as started · help() lists what there is
anon@primary● service@primary● api> 1 + 1
2
anon@primary● service@primary● api> = 2 ^ 10, nil, 'text'
1024.0
nil
"text"
anon@primary● service@primary● api> x = { 1, { a = true }, n = { deep = {} } }
anon@primary● service@primary● api> x.self = x
anon@primary● service@primary● api> x
{ 1, { a = true }, n = { deep = {} }, self = (shown above) }
anon@primary● service@primary● api> for i = 1, 2 do
   ...>   print(i, [[
   ...> end]].."]]"..[[)
   ...> end
1       end
2       end
anon@primary● service@primary● api> local no = nil; no.field = 1
console:1: attempt to index a nil value (local 'no')
stack traceback:
        console:1: in main chunk
anon@primary● service@primary● api> x = = 1
console:1: unexpected symbol near '='
anon@primary● service@primary● api> { { id = 7, name = 'ann' }, { id = 12, name = 'bo' } }
id  name
 7  ann
12  bo
(2 rows)
anon@primary● service@primary● api>]])
    lu.assertEquals(who:leaves(), 0)
end

function TestPrompt.test_an_endless_loop_is_ended_by_ctrl_c_and_the_session_goes_on()
    sit_down()
    who:interrupts "while true do end"
    who:interrupts "while true do pcall(function() while true do end end) end"
    lu.assertStrContains(who:transcript(), "interrupted")
    lu.assertEquals(who:enter "'still here'", '"still here"')
end

function TestPrompt.test_a_waiting_call_a_sleep_and_a_watch_are_ended_by_ctrl_c()
    local patient = "timeout = 60, retries = 20, backoff = { base = 30, cap = 60 }"
    sit_down(nil, { policy = POLICY:gsub("timeout = 1, retries = 0", patient) })
    for _, waiting in ipairs {
        "weir.sleep(1000)", "db:service():query('GET /slow', 'select 1')", "\\watch 1 workers",
    } do
        local said = who:interrupts(waiting)
        lu.assertTrue(said:find "interrupted" ~= nil or said:find "cancelled" ~= nil, said)
    end
    lu.assertEquals(who:enter "6 * 7", "42")
end

function TestPrompt.test_ctrl_c_at_the_prompt_forgets_the_line_and_the_lines_before()
    sit_down()
    who:enter "for i = 1, 2 do"
    who:keys "print 'never'\3"
    who:wait_for "^C"
    who:prompt "api> ?$"
    lu.assertEquals(who:enter "1", "1")
    lu.assertNotStrContains(who:transcript(), "never\n")
    lu.assertEquals(who:leaves(), 0)
end

function TestPrompt.test_the_loop_turns_while_the_prompt_waits()
    sit_down()
    who:enter "n = 0; weir.spawn(function() while n < 1000 do n = n + 1; weir.sleep(0.01) end end)"
    os.execute "sleep 0.5"
    local first = tonumber(who:enter "n")
    lu.assertTrue(first > 5, first)
    os.execute "sleep 0.3"
    lu.assertTrue(tonumber(who:enter "n") > first)
end

-- ---- completion and history -------------------------------------------------------------------------------

TestKeys = { tearDown = stand_up }

function TestKeys.test_tab_completes_names_fields_methods_pools_and_commands()
    sit_down()
    who:enter "orders = { total = 3, tax = 1 }"
    for typed, becomes in pairs {
        ["orde\t.to\t"] = "orders.total", ["string.for\t"] = "string.format",
            ["db:with_s\t"] = "db:with_service",
        ["why 'ser\t"] = "why 'service@primary", ["\\resu\t ano\t"] = "\\resume anon@primary",
        ["?reco\t"] = "?reconnect", ["whil\t"] = "while", ["\\conf\t"] = "\\config",
    } do
        who:keys(typed)
        who:wait_for(becomes)
        who:keys "\1\11" -- to the beginning, and what follows is cut
        who:sees "api>$"
    end
end

function TestKeys.test_a_second_tab_shows_what_there_is()
    sit_down()
    who:keys "\\re\t"
    for _, name in ipairs { "reconnect", "reload", "reset", "resize", "resume" } do who:wait_for(name) end
    who:keys "\1\11"
end

function TestKeys.test_history_outlives_the_session_and_is_for_nobody_else_to_read()
    local folder = serving.folder()
    sit_down(nil, { folder = folder })
    who:enter "first = 'line'"
    who:enter "second = 'line'"
    lu.assertEquals(who:leaves(), 0)
    who:gets_up()
    local pipe = io.popen("stat -c %a " .. folder .. "/history")
    lu.assertEquals(pipe:read "a", "600\n")
    pipe:close()
    sit_down(nil, { folder = folder })
    who:keys "\27[A\27[A"
    who:wait_for "first = 'line'"
    who:keys "\r"
    who.from = who.from + 1
    who:prompt()
    lu.assertEquals(who:enter "first", '"line"')
end

function TestKeys.test_without_a_name_no_history_is_kept()
    sit_down(nil, { env = { WEIR_HISTORY = "" } })
    who:enter "1"
    lu.assertEquals(who:leaves(), 0)
    lu.assertEquals(serving.read(who.folder .. "/history"), "")
end

-- ---- colours, and the terminal ----------------------------------------------------------------------------

TestTerminal = { tearDown = stand_up }

function TestTerminal.test_colours_on_a_terminal_alone_and_never_under_no_color()
    sit_down(nil, { env = { NO_COLOR = "" } })
    who:enter "error 'red'"
    lu.assertStrContains(who.terminal:sent(), "\27[31m")
    stand_up()
    sit_down()
    who:enter "error 'red'"
    lu.assertNotStrContains(who.terminal:sent(), "\27[31m")
    stand_up()
    sit_down("repl policy.lua --no-color", { env = { NO_COLOR = "" } })
    who:enter "error 'red'"
    lu.assertNotStrContains(who.terminal:sent(), "\27[31m")
end

function TestTerminal.test_what_a_server_says_moves_no_cursor()
    sit_down()
    who:enter "weird = { ('\\27[2J'):rep(1) }"
    lu.assertEquals(who:enter "weird", '{ "\\27[2J" }')
    lu.assertStrContains(who:enter "error('\\27[2J', 0)", "\\x1b[2J")
end

function TestTerminal.test_it_is_given_back_as_it_was_however_the_session_ends()
    for _, ends in ipairs {
        function() who:keys "\4" end,
        function() who.terminal:signal "TERM" end,
        function()
            who:keys "while true do pcall(function() while true do end end) end\r"
            os.execute "sleep 0.3"
            who.terminal:signal "TERM"
            os.execute "sleep 0.1"
            who.terminal:signal "TERM"
        end,
        function()
            who.terminal:signal "TERM"
            who.terminal:signal "TERM"
        end,
    } do
        sit_down()
        ends()
        local _, before, after = who.terminal:ended()
        lu.assertEquals(after, before)
        stand_up()
    end
end

os.exit(lu.LuaUnit.run())
