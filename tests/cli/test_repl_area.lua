-- The prompt beside another process: attached by its area, whatever becomes of that, and as a command in
-- scripts.

local lu = require "luaunit"
local json = require "weir.json"
local serving = require "serving"
local typist = require "typist"

local BIN = os.getenv "WEIR_BIN" or "build/weir"

local folder, worker, who

local function policy(more)
    return ([[return {
        name = "api", area = %q, backends = { primary = "host=/nowhere" }, timeout = 0.05, retries = 0, %s
        clients = { anon = { max = 4, role = "web_anon" }, service = { bypass_rls = true, max = 3 } },
    }]]):format(folder .. "/api.area", more or "")
end

-- Somebody's program with an engine on the area that makes three calls.
local function start_worker(more)
    worker = serving.serve(([[
        local db = assert(require("weir").open((function() %s end)()))
        for _ = 1, 3 do db:service():query("GET /", "select 1") end
        return db
    ]]):format(policy(more)))
end

local function sit_down()
    who = typist.sit_down("repl --area api.area", { folder = folder, width = 250 })
    who:prompt()
end

-- Runs `weir repl ARGUMENTS` in the folder: exit code, stdout, stderr.
local function repl(arguments)
    os.execute(("cd %s && %s repl %s >out 2>err </dev/null; echo $? >code"):format(folder,
        serving.quote(BIN), arguments))
    return tonumber(serving.read(folder .. "/code")), serving.read(folder .. "/out"),
        serving.read(folder .. "/err")
end

local function set_up()
    folder = serving.folder()
end

local function tear_down()
    if who then who:gets_up() end
    if worker then worker:stop() end
    os.execute("rm -rf " .. serving.quote(folder))
    who, worker = nil, nil
end

-- ---- attached ---------------------------------------------------------------------------------------------

TestAttached = { setUp = set_up, tearDown = tear_down }

function TestAttached.test_it_sees_and_steers_the_other_process()
    start_worker()
    sit_down()
    for _, line in ipairs {
        "pool('service').calls.failed", "\\calls label \"GET /\" last 1",
            "\\breaker service open for 5m reason maint",
        "\\why service", "reset 'service@primary'", "\\resize service 1", "resize('service')", "\\pause anon",
        "\\resume anon", "\\events kind operator", "view:look()",
    } do
        who:enter(line)
    end
    who:matches("repl_attached", "TIME  [bc]a[cn][kn][eo]") -- backend ..., cannot connect: at any moment
    lu.assertStrMatches(who:enter "show 'clients'", "type .*\nC +weir serve +active .*")
end

-- From before there is a file until the engine works on it: a sentence, or the engine, and nothing in between.
function TestAttached.test_one_can_attach_at_any_moment_while_the_other_process_starts()
    serving.write(folder .. "/program.lua", ([[
        local weir = require "weir"
        local db = assert(weir.open((function() %s end)()))
        local file = io.open "program.lua" -- until the folder goes
        while file do
            file:close()
            weir.sleep(0.02)
            file = io.open "program.lua"
        end
        db:close()
    ]]):format(policy()))
    local code, out, err = repl "--area api.area -c 'pools()[1].pool'"
    lu.assertEquals({ code, out }, { 3, "" })
    lu.assertEquals(err, "weir repl: area api.area: there is no such file\n")
    os.execute(("cd %s && %s run program.lua >program.out 2>&1 &"):format(folder, serving.quote(BIN)))
    local till = os.time() + 20
    repeat
        code, out, err = repl "--area api.area -c 'pools()[1].pool'"
        lu.assertTrue(code == 0 or code == 3 and out == "" and err:find "^weir repl: [^\n]+\n$" ~= nil, err)
    until code == 0 or os.time() > till
    lu.assertEquals({ code, out, err }, { 0, '"anon@primary"\n', "" })
    sit_down()
    lu.assertStrContains(who:enter "workers()[1].host", "weir run")
end

function TestAttached.test_a_newer_policy_is_taken_by_a_worker_that_follows_one()
    serving.write(folder .. "/next.lua", policy "retry = function() return nil end,")
    worker = serving.serve(policy())
    sit_down()
    lu.assertEquals(who:enter "\\reload next.lua", "policy next.lua is in force, in 1 of 1 worker")
    serving.write(folder .. "/next.lua", policy "timeout = -1,")
    lu.assertStrContains(who:enter "\\reload next.lua", "the policy in force stays")
    lu.assertEquals(who:enter "workers()[1].policy_generation", "1")
end

function TestAttached.test_an_engine_that_follows_no_policy_says_so()
    serving.write(folder .. "/next.lua", policy())
    start_worker()
    sit_down()
    lu.assertStrContains(who:enter "\\reload next.lua", "refused: no worker has taken the policy")
end

function TestAttached.test_a_worker_that_dies_is_told_and_so_is_the_next_one()
    start_worker()
    sit_down()
    worker:kill()
    worker = nil
    serving.wait(function()
        who:enter ""
        return who:enter("view:look()"):find "deserted"
    end, "a deserted area")
    lu.assertEquals(who:enter "pool('service').calls.failed", "3")
    lu.assertStrContains(who:enter "\\pause", "refused: ")
    lu.assertStrContains(who.terminal:text(), "api (deserted)>")
    start_worker()
    serving.wait(function() return who:enter("view:look()"):find '"live"' end, "a live one")
    lu.assertStrContains(who:enter "\\pause anon", "in 1 of 1 worker")
end

function TestAttached.test_another_file_in_its_place_is_taken_up()
    start_worker()
    sit_down()
    worker:stop()
    os.remove(folder .. "/api.area")
    lu.assertStrContains(who:enter "view:look()", "gone")
    start_worker()
    lu.assertStrContains(who:enter "view:look()", '"live"')
    lu.assertEquals(who:enter "pool('service').calls.failed", "3")
end

-- ---- there is nothing to attach ---------------------------------------------------------------------------

TestUnreachable = { setUp = set_up, tearDown = tear_down }

local function refused(bytes)
    if bytes then serving.write(folder .. "/api.area", bytes) end
    local code, out, err = repl "--area api.area -c '\\pools'"
    lu.assertEquals({ code, out }, { 3, "" }, err)
    return err
end

function TestUnreachable.test_a_file_that_is_missing_empty_foreign_or_cut_short()
    lu.assertStrContains(refused(), "api.area")
    refused ""
    refused "#!/bin/sh\n"
    refused(("\0"):rep(70000))
end

function TestUnreachable.test_an_area_of_another_layout_is_named()
    start_worker()
    local bytes = serving.read(folder .. "/api.area")
    worker:stop()
    worker = nil
    -- the layout's number comes after eight bytes by which an area is known
    local err = refused(bytes:sub(1, 8) .. string.pack("<I4", 4711) .. bytes:sub(13))
    lu.assertStrContains(err, "4711")
end

-- ---- in scripts -------------------------------------------------------------------------------------------

TestCommands = { setUp = set_up, tearDown = tear_down }

function TestCommands.test_exit_codes_tell_what_went_wrong()
    serving.write(folder .. "/policy.lua", policy())
    lu.assertEquals((repl "policy.lua -c '1 + 1' -c '\\pools'"), 0)
    lu.assertEquals((repl "policy.lua -c 'error()' -c '1'"), 1)
    lu.assertEquals((repl "policy.lua -c 'x = = 1'"), 1)
    lu.assertEquals((repl "policy.lua -c 'for'"), 1)
    lu.assertEquals((repl "policy.lua -c '\\kill ffff'"), 2)
    lu.assertEquals((repl "-c '\\pools'"), 3)
    lu.assertEquals((repl "missing.lua"), 1)
    lu.assertEquals((repl "--fly"), 2)
end

function TestCommands.test_a_policy_without_end_is_not_read_to_its_end()
    local code, out, err = repl "/dev/zero -c 1"
    lu.assertEquals({ code, out, err }, { 1, "", "weir repl: /dev/zero: a policy has 262144 bytes at most\n" })
    code, out, err = repl "-c 'explain \"/dev/zero\"'"
    lu.assertEquals({ code, out, err }, { 2, "", "refused: /dev/zero: a policy has 262144 bytes at most\n" })
end

function TestCommands.test_json_has_the_rows_of_the_table_one_value_a_line()
    start_worker()
    local code, out, err = repl "--area api.area --json -c '\\pools' -c '\\calls failed last 2' -c 'events{kind=\"none\"}'"
    lu.assertEquals({ code, err }, { 0, "" })
    local lines = {}
    for line in out:gmatch "[^\n]+" do lines[#lines + 1] = json.decode(line) end
    lu.assertEquals(#lines, 3)
    lu.assertEquals({ lines[1][1].pool, lines[1][2].pool, lines[1][2].max }, { "anon@primary",
        "service@primary", 3 })
    lu.assertEquals({ #lines[2], lines[2][1].label, lines[2][1].pool }, { 2, "GET /", "service@primary" })
    lu.assertStrContains(out, "\n[]\n")
    code, out = repl "--area api.area --json -c '\\resize service 2'"
    lu.assertEquals({ code, json.decode(out).carried_out, json.decode(out).undo },
        { 0, 1, 'resize("service@primary", 3)' })
end

function TestCommands.test_an_order_that_a_stopped_worker_has_not_carried_out_says_so()
    start_worker()
    worker:signal "STOP"
    local code, out, err = repl "--area api.area -c '\\pause anon' -c 'pools()'"
    worker:signal "CONT"
    lu.assertEquals({ code, err }, { 4, "" })
    lu.assertEquals(out, "anon@primary paused: calls are refused, in 0 of 1 worker; 1 says nothing, and obeys when it goes on"
        .. "   undo: resume(\"anon@primary\")\n")
    code, out = repl "--area api.area -c '\\resume anon'"
    lu.assertEquals({ code, out:match "in [^\n]*worker" }, { 0, "in 1 of 1 worker" })
end

function TestCommands.test_the_shortest_time_for_which_a_breaker_is_forced_is_over_soon()
    start_worker()
    local code, out = repl([[--area api.area -c 'force("service", "open", 1e-12)' -c 'repeat weir.sleep(0.02) until breaker("service").state == "CLOSED"' -c 'events{kind="operator"}']])
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, "breaker held FORCED_OPEN for 1e-09 s by")
end

function TestCommands.test_a_filter_that_counts_takes_whole_numbers()
    start_worker()
    for _, command in ipairs { "events after -5", "events last 1.5", "calls last 1.5", "events worker -1" } do
        local code, _, err = repl("--area api.area -c " .. serving.quote("\\" .. command))
        lu.assertEquals(code, 1)
        lu.assertStrContains(err, "it must be a whole number, 0 or more")
    end
end

-- Code that makes a text which would begin a sequence, turn the line round, and set a title.
local HOSTILE = [["\u{9b}31m\u{202e}\u{61c}\27]0;title\7"]]

function TestCommands.test_no_text_steers_the_terminal_of_who_looks_at_it()
    for _, chunk in ipairs { "%s", "{ { name = %s } }", "error(%s)", 'require("weir.listing").new({ { "a", "A" } }, { { a = %s } })' } do
        local _, out, err = repl("-c " .. serving.quote(chunk:format(HOSTILE)))
        lu.assertStrContains(out .. err, "31m")
        for _, bytes in ipairs { "\194\155", "\226\128\174", "\216\156", "\27", "\7" } do
            lu.assertNotStrContains(out .. err, bytes)
        end
    end
end

function TestCommands.test_lines_from_a_file_are_run_without_a_prompt()
    start_worker()
    serving.write(folder .. "/input", "n = 0\nfor _, pool in ipairs(pools()) do\n  n = n + pool.max\nend\nn\n\\fly\nn + 1\n")
    os.execute(("cd %s && %s repl --area api.area <input >out 2>err; echo $? >code"):format(folder,
        serving.quote(BIN)))
    lu.assertEquals(serving.read(folder .. "/out"), "7\n8\n")
    lu.assertStrContains(serving.read(folder .. "/err"), "there is no \\fly")
    lu.assertEquals(serving.read(folder .. "/code"), "1\n")
end

function TestCommands.test_who_may_only_read_is_refused_by_name()
    local nobody = "cd / && setpriv --reuid=65534 --clear-groups "
    lu.skipIf(not os.execute(nobody .. "test -x " .. serving.quote(BIN)), BIN .. " is in a folder that only root may enter")
    start_worker()
    os.execute(("chmod 755 %s; chmod 644 %s/api.area"):format(folder, folder))
    local pipe = io.popen(nobody .. ("env HOME=/nonexistent %s repl --area %s/api.area -c '\\pause' 2>&1; echo $?"):format(
        serving.quote(BIN), folder))
    local said = pipe:read "a"
    pipe:close()
    lu.assertStrMatches(said, "refused: .*\n2\n")
end

os.exit(lu.LuaUnit.run())
