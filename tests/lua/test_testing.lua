-- weir.testing against real servers: what users' tests, and ours, stand on.

local lu = require "luaunit"
local testing = require "weir.testing"

-- ---- helpers ----------------------------------------------------------------------------------------------

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function output_of(command)
    local pipe = assert(io.popen(command, "r"))
    local text = pipe:read "*a"
    pipe:close()
    return (text:gsub("%s+$", ""))
end

local function exists(path)
    return output_of("test -e " .. quote(path) .. " && echo yes") == "yes"
end

-- Alive, that is neither gone nor waiting to be reaped by whoever adopted it.
local function lives(pid)
    return output_of(("ps -o stat= -p %d | grep -v Z"):format(pid)) ~= ""
end

local function children_of(pid)
    return output_of(("ps -A -o ppid= -o stat= | awk '$1 == %d { print $2 }'"):format(pid))
end

local function eventually(condition, seconds)
    for _ = 1, seconds * 20 do
        if condition() then return true end
        os.execute "sleep 0.05"
    end
    return false
end

local function milliseconds()
    return tonumber(output_of "date +%s%N") / 1e6
end

local servers = {}

local function start(opts)
    local pg = assert(testing.postgres(opts))
    servers[#servers + 1] = pg
    return pg
end

local function close_all()
    for _, pg in ipairs(servers) do pg:close() end
    servers = {}
end

-- One server for all tests that leave it as they found it; running, whatever happened before.
local everybodys

local function shared()
    everybodys = everybodys or assert(testing.postgres())
    assert(everybodys:resume() or everybodys:start())
    return everybodys
end

-- Runs Lua in a process of its own that starts a server and calls tell(pg); the shell then does what
-- `meanwhile` says, with $pid the process and $dir the server's directory. Returns that directory and the
-- postmaster's pid.
local function in_a_process(body, meanwhile)
    local script = os.tmpname()
    local file = assert(io.open(script, "w"))
    file:write(("package.path = %q\n"):format(package.path), [[
        local pg = assert(require("weir.testing").postgres())
        local function tell() print(pg.dir) print(pg:pid()) io.stdout:flush() end
    ]], body)
    file:close()
    local text = output_of(([[
        exec 2>/dev/null
        fifo=$(mktemp -u); mkfifo "$fifo"
        lua5.4 %s >"$fifo" & pid=$!
        { read -r dir; read -r server; } <"$fifo"; rm "$fifo"
        %s
        echo "$dir $server"
    ]]):format(quote(script), meanwhile))
    os.remove(script)
    local dir, server = text:match "(%S+) (%d+)$"
    return dir, tonumber(server)
end

local function assert_all_gone(dir, server)
    lu.assertNotNil(dir, "the process started a server")
    lu.assertTrue(eventually(function() return not exists(dir) end, 10), "the directory is gone")
    lu.assertTrue(eventually(function() return not lives(server) end, 10), "the server is gone")
    lu.assertEquals(output_of("ps -A -o args= | grep -F " .. quote(dir) .. " | grep -v grep"), "")
end

-- ---- a server's life --------------------------------------------------------------------------------------

TestServer = { tearDown = close_all }

function TestServer:test_it_answers_sql_as_superuser()
    local pg = shared()
    lu.assertEquals(pg:sql "select current_user, 6 * 7", "postgres|42")
    lu.assertEquals(pg:sql "create temp table t as values (1), (2); select * from t", "1\n2")
    lu.assertEquals(pg:sql "create temp table nothing ()", "")
end

function TestServer:test_it_runs_as_an_unprivileged_user_in_a_private_directory()
    local pg = shared()
    lu.assertNotEquals(output_of(("ps -o user= -p %d"):format(pg:pid())), "root")
    lu.assertEquals(output_of("stat -c %a " .. quote(pg.dir)), "700")
end

function TestServer:test_its_url_works_with_psql()
    local pg = shared()
    pg:sql "create role ada login; create database sums owner ada"
    local psql = output_of "command -v psql"
    lu.assertEquals(output_of(("%s -X -At %s -c 'select current_user, current_database()'"):format(psql,
        quote(pg:url("ada", "sums")))), "ada|sums")
end

function TestServer:test_its_url_escapes_what_is_special()
    local pg = shared()
    lu.assertStrContains(pg:url("a b", "x/y", "p@:%"), "postgresql://a%20b:p%40%3A%25@%2F")
    lu.assertStrContains(pg:url("a b", "x/y"), ":5432/x%2Fy")
end

function TestServer:test_sql_is_never_seen_by_the_shell()
    local pg = shared()
    lu.assertEquals(pg:sql "select '$(echo no)' || '`echo no`' || '''' || '\"'", "$(echo no)`echo no`'\"")
    local name = [[odd '"$(x)\ name]]
    pg:sql([[create database "odd '""$(x)\ name"]])
    lu.assertEquals(pg:sql("select current_database()", name), name)
end

function TestServer:test_wrong_sql_gives_the_servers_message()
    local pg = shared()
    local out, err = pg:sql "select 1; select nope"
    lu.assertNil(out)
    lu.assertStrContains(err, 'ERROR:  column "nope" does not exist')
    pg:sql "create sequence steps; select nextval('steps'); select 1/0; select nextval('steps')"
    lu.assertEquals(pg:sql "select last_value from steps", "1", "it stops at the first error")
end

function TestServer:test_it_stops_and_starts_with_its_data()
    local pg = shared()
    local url = pg:url()
    pg:sql "create table kept as select 1 as x"
    for _, mode in ipairs { "fast", "immediate", "smart" } do
        lu.assertTrue(pg:stop(mode))
        lu.assertFalse(pg:running())
        lu.assertNil(pg:pid())
        lu.assertTrue(pg:start())
        lu.assertTrue(pg:running())
        lu.assertEquals(pg:sql "select x from kept", "1")
    end
    lu.assertEquals(pg:url(), url)
end

function TestServer:test_what_was_committed_survives_an_immediate_stop()
    local pg = shared()
    pg:sql "create table committed (x int)"
    for i = 1, 5 do
        pg:sql(("insert into committed values (%d)"):format(i))
        pg:restart "immediate"
    end
    lu.assertEquals(pg:sql "select count(*) from committed", "5")
end

function TestServer:test_stopping_twice_and_starting_twice_is_harmless()
    local pg = shared()
    local pid = pg:pid()
    lu.assertTrue(pg:start())
    lu.assertEquals(pg:pid(), pid)
    lu.assertTrue(pg:stop())
    lu.assertTrue(pg:stop "immediate")
end

function TestServer:test_a_restart_is_another_postmaster()
    local pg = shared()
    local before = pg:pid()
    lu.assertTrue(pg:restart "immediate")
    lu.assertNotEquals(pg:pid(), before)
end

function TestServer:test_a_stopped_server_tells_so_instead_of_answering()
    local pg = shared()
    pg:stop()
    local out, err = pg:sql "select 1"
    lu.assertNil(out)
    lu.assertStrContains(err, "connection to server")
    lu.assertEquals({ pg:pause() }, { nil, "weir.testing: the server is not running" })
end

function TestServer:test_a_smart_stop_gives_up_when_a_client_stays()
    local pg = shared()
    local client = io.popen(("exec %s/psql -X %s -c 'select pg_sleep(60)' >/dev/null 2>&1"):format(pg.bin,
        quote(pg:url())), "w")
    lu.assertTrue(eventually(function()
        return pg:sql "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'" == "1"
    end, 5))
    local ok, err = pg:stop("smart", 1)
    lu.assertNil(ok)
    lu.assertStrContains(err, "did not stop within 1 s (mode smart)")
    lu.assertTrue(pg:stop "fast")
    client:close()
end

function TestServer:test_a_paused_server_goes_on_when_resumed_and_stops_when_told()
    local pg = shared()
    lu.assertTrue(pg:pause())
    lu.assertStrMatches(output_of(("ps -o stat= -p %d"):format(pg:pid())), "T.*")
    lu.assertTrue(pg:resume())
    lu.assertEquals(pg:sql "select 1", "1")
    pg:pause()
    lu.assertTrue(pg:stop "fast")
end

function TestServer:test_a_frozen_server_answers_nobody_and_goes_on_where_it_stood()
    local pg = shared()
    local client = io.popen(("exec %s/psql -X -At %s -c 'select pg_sleep(0.3), 42' 2>&1"):format(pg.bin,
        quote(pg:url())), "r")
    lu.assertTrue(eventually(function()
        return pg:sql "select count(*) from pg_stat_activity where query like 'select pg_sleep(0.3)%'" == "1"
    end, 5))
    lu.assertTrue(pg:freeze())
    lu.assertTrue(pg:freeze(), "any number of times")
    local states = output_of(("ps -o stat= -p %d --ppid %d | grep -v Z | cut -c1 | sort -u"):format(pg:pid(),
        pg:pid()))
    lu.assertEquals(states, "T")
    local fresh = output_of(("timeout 0.5 %s/psql -X %s -c 'select 1' >/dev/null; echo $?"):format(pg.bin,
        quote(pg:url())))
    lu.assertEquals(fresh, "124", "a new connection is accepted and hangs")
    lu.assertTrue(pg:thaw())
    lu.assertEquals(client:read "*a", "|42\n")
    client:close()
    lu.assertEquals(pg:sql "select 1", "1")
end

function TestServer:test_a_frozen_server_can_be_stopped()
    local pg = shared()
    pg:freeze()
    lu.assertTrue(pg:stop "immediate")
    lu.assertEquals({ pg:freeze() }, { nil, "weir.testing: the server is not running" })
    lu.assertEquals({ pg:thaw() }, { nil, "weir.testing: the server is not running" })
    lu.assertTrue(pg:start())
end

function TestServer:test_a_killed_backend_is_missed_by_its_client()
    local pg = shared()
    local _, err = pg:sql "select 'self' from pg_terminate_backend(pg_backend_pid())"
    lu.assertStrContains(err, "terminating connection")
    local victim = pg:sql "select pid from pg_stat_activity where backend_type = 'checkpointer'"
    lu.assertTrue(pg:kill_backend(victim, "KILL"))
    lu.assertTrue(eventually(function() return pg:sql "select 1" == "1" end, 10), "it recovers")
    lu.assertStrContains(pg:log(), "was terminated by signal 9")
end

function TestServer:test_only_its_own_backends_can_be_killed()
    local pg = shared()
    local ok, err = pg:kill_backend(1)
    lu.assertNil(ok)
    lu.assertEquals(err, "weir.testing: process 1 is no backend of this server")
end

function TestServer:test_a_killed_postmaster_can_be_started_again()
    local pg = shared()
    os.execute("kill -s KILL " .. pg:pid())
    lu.assertTrue(eventually(function() return not pg:running() end, 5))
    lu.assertTrue(eventually(function() return pg:start() end, 5))
    lu.assertEquals(pg:sql "select 1", "1")
end

function TestServer:test_it_says_what_it_is()
    local pg = start { name = "named" }
    lu.assertStrMatches(pg.version, "%d+.*")
    lu.assertStrContains(tostring(pg), "PostgreSQL " .. pg.version)
    lu.assertStrContains(pg.dir, "/weir-named.")
    lu.assertTrue(exists(pg.bin .. "/postgres"))
    lu.assertStrContains(pg:log(), "database system is ready to accept connections")
    pg:close()
    lu.assertStrContains(tostring(pg), "closed")
end

function TestServer:test_closing_removes_all_and_may_be_repeated()
    local pg = start()
    local dir, pid = pg.dir, pg:pid()
    lu.assertTrue(pg:close())
    lu.assertFalse(exists(dir))
    lu.assertEquals(output_of("ps -o pid= -p " .. pid), "", "reaped, too")
    lu.assertTrue(pg:close())
    for _, method in ipairs { "sql", "stop", "start", "pause", "log" } do
        lu.assertEquals({ pg[method](pg, method == "sql" and "select 1" or nil) },
            { nil, "weir.testing: this server was closed" })
    end
end

function TestServer:test_closing_a_paused_server_with_a_frozen_backend_takes_no_longer()
    local pg = start()
    pg:kill_backend(pg:sql "select pid from pg_stat_activity where backend_type = 'checkpointer'", "STOP")
    pg:pause()
    local before, dir = milliseconds(), pg.dir
    pg:close()
    lu.assertFalse(exists(dir))
    lu.assertTrue(milliseconds() - before < 4000, "not after the server's own patience of 5 s")
end

function TestServer:test_nothing_is_left_to_reap()
    local pg = start()
    pg:restart()
    pg:sql "select 1"
    pg:close()
    local me = output_of "echo $PPID"
    lu.assertNotStrContains(children_of(me), "Z")
end

-- ---- several, and again -----------------------------------------------------------------------------------

TestSeveral = { tearDown = close_all }

function TestSeveral:test_two_at_once_know_nothing_of_each_other()
    local one, two = start(), shared()
    one:sql "create table only_here ()"
    lu.assertEquals(two:sql "select to_regclass('only_here') is null", "t")
    one:stop "immediate"
    lu.assertTrue(two:running())
    one:close()
    lu.assertEquals(two:sql "select 1", "1")
end

function TestSeveral:test_the_second_one_is_a_copy_of_a_template()
    local one, two = shared(), start()
    lu.assertFalse(exists(two.dir .. "/initdb.log"))
    local identifier = "select system_identifier from pg_control_system()"
    lu.assertEquals(one:sql(identifier), two:sql(identifier))
end

function TestSeveral:test_a_damaged_template_is_made_anew()
    local temporary = output_of "mktemp -d && chmod 1777 $(ls -dt /tmp/tmp.* | head -1)"
    local script = ([[
        export TMPDIR=%s
        lua5.4 -e 'package.path = %s
            local testing = require "weir.testing"
            assert(testing.postgres()):close()
            os.execute "rm -r %s/weir-testing-*/*/base/1"
            local pg = assert(testing.postgres())
            print((pg:sql "select 1"), pg.dir:sub(1, %d))
            pg:close()'
        rm -rf %s
    ]]):format(temporary, ("%q"):format(package.path):gsub("'", "'\\''"), temporary, #temporary, temporary)
    lu.assertEquals(output_of(script), "1\t" .. temporary)
end

-- ---- options ----------------------------------------------------------------------------------------------

TestOptions = { tearDown = close_all }

function TestOptions:test_settings_reach_the_server()
    local odd = [[it's a \ test]]
    local pg = start { settings = { max_connections = 17, autovacuum = false, cluster_name = odd } }
    lu.assertEquals(pg:sql "show max_connections", "17")
    lu.assertEquals(pg:sql "show autovacuum", "off")
    lu.assertEquals(pg:sql "show cluster_name", odd)
end

function TestOptions:test_it_is_quick_rather_than_durable_unless_asked()
    lu.assertEquals(shared():sql "show fsync", "off")
    lu.assertEquals(start({ durable = true }):sql "show fsync", "on")
end

function TestOptions:test_with_tcp_it_listens_on_loopback_on_a_port_it_keeps()
    local pg = start { tcp = true }
    lu.assertStrMatches(pg:url(), "postgresql://postgres@127%.0%.0%.1:%d+/postgres")
    local ask = pg.bin .. "/psql -X -At " .. quote(pg:url()) .. " -c 'select inet_server_addr()'"
    lu.assertEquals(output_of(ask), "127.0.0.1")
    pg:restart "immediate"
    lu.assertEquals(output_of(ask), "127.0.0.1")
end

function TestOptions:test_without_tcp_no_port_is_open()
    lu.assertEquals(shared():sql "show listen_addresses", "")
end

function TestOptions:test_lines_of_hba_come_first_and_leave_the_superuser_his_way_in()
    local pg = start { hba = "local all ada scram-sha-256\nlocal all bob reject" }
    pg:sql "create role ada login password 'secret'; create role bob login"
    local function who(user, password)
        return output_of(("%s/psql -w -X -At %s -c 'select current_user' 2>&1"):format(pg.bin,
            quote(pg:url(user, nil, password))))
    end
    lu.assertEquals(who("ada", "secret"), "ada")
    lu.assertStrContains(who("ada", "wrong"), "password authentication failed")
    lu.assertStrContains(who "bob", "pg_hba.conf rejects connection")
end

local wrong = { -- options, what the error must say
    { { durabel = true }, "unknown option 'durabel' (known: bin, durable, hba, name, settings, tcp" },
    { { tcp = 1 }, "tcp must be a boolean, not a number" },
    { { name = "a b" }, "name must be 1 to 16 letters, digits, - or _, not 'a b'" },
    { { name = "../../etc" }, "name must be" },
    { { name = ("x"):rep(17) }, "name must be" },
    { { version = 15.5 }, "version must be a major version such as 15, not 15.5" },
    { { settings = { port = 1 } }, "settings.port is chosen by weir.testing" },
    { { settings = { work_mem = {} } }, "settings.work_mem must be a string, number or boolean" },
    { { settings = { work_mem = "1\nfsync = on" } }, "settings.work_mem must be one line" },
    { { settings = { ["a = b"] = 1 } }, "settings has no valid name 'a = b'" },
    { { bin = "/x\n" }, "bin must not contain control characters" },
    { { hba = "local\0" }, "hba must not contain a NUL byte" },
    { "fast", "options must be a table, not a string" },
}

for _, case in ipairs(wrong) do
    TestOptions["test_misuse_raises_" .. case[2]] = function()
        local ok, err = pcall(testing.postgres, case[1])
        lu.assertFalse(ok)
        lu.assertStrContains(err, "weir.testing.postgres: " .. case[2])
    end
end

function TestOptions:test_misuse_is_told_at_the_callers_line()
    local ok, err = pcall(function() testing.postgres { nope = 1 } end)
    lu.assertFalse(ok)
    lu.assertStrMatches(err, ".*test_testing.lua:%d+: weir.testing.postgres: unknown option.*")
    local pg = shared()
    for _, misuse in ipairs {
        function() pg:stop "now" end, function() pg:sql(1) end, function() pg:stop("fast", -1) end,
        function() pg:kill_backend "x" end, function() pg:kill_backend(2, "9; reboot") end,
    } do
        lu.assertStrMatches(select(2, pcall(misuse)), ".*test_testing.lua:%d+: pg:.*")
    end
end

function TestOptions:test_missing_binaries_are_one_clear_sentence()
    local pg, err = testing.postgres { bin = "/nowhere with 'spaces'" }
    lu.assertNil(pg)
    lu.assertEquals(err, "weir.testing: no PostgreSQL server binaries found "
        .. "(looked in /nowhere with 'spaces'); install postgresql-15")
    pg, err = testing.postgres { version = 9 }
    lu.assertNil(pg)
    lu.assertStrContains(err, "no PostgreSQL 9 server binaries found (looked in PATH,")
    lu.assertStrContains(err, "install postgresql-9")
end

function TestOptions:test_a_server_that_cannot_start_says_why_and_leaves_nothing()
    local name = "broken" .. tostring({}):match("(%x%x%x%x%x%x%x)$") -- other processes run this test at the same time
    local count = ("ls -d ${TMPDIR:-/tmp}/weir-%s.* /dev/shm/weir-%s.* 2>/dev/null | wc -l"):format(name, name)
    local pg, err = testing.postgres { name = name, settings = { no_such_knob = 1 } }
    lu.assertNil(pg)
    lu.assertStrContains(err, 'unrecognized configuration parameter "no_such_knob"')
    lu.assertEquals(output_of(count), "0")
end

-- ---- the end of the process -------------------------------------------------------------------------------

TestEndOfProcess = { tearDown = close_all }

function TestEndOfProcess:test_a_normal_end_removes_all()
    assert_all_gone(in_a_process("tell()", "wait $pid"))
end

function TestEndOfProcess:test_an_exit_without_closing_the_state_removes_all()
    assert_all_gone(in_a_process("tell() os.exit(0, false)", "wait $pid"))
end

function TestEndOfProcess:test_a_kill_removes_all()
    assert_all_gone(in_a_process("tell() while true do end", "kill -s KILL $pid; wait $pid"))
end

function TestEndOfProcess:test_a_kill_during_a_patient_stop_removes_all()
    local body = [[
        tell()
        local client = io.popen(pg.bin .. "/psql -X '" .. pg:url() .. "' -c 'select pg_sleep(60)'", "w")
        os.execute "sleep 0.3"
        pg:stop("smart", 3600)
    ]]
    assert_all_gone(in_a_process(body, "sleep 1; kill -s KILL $pid; wait $pid"))
end

function TestEndOfProcess:test_a_kill_removes_all_even_if_a_child_outlives_the_process()
    assert_all_gone(in_a_process("os.execute 'sleep 15 >/dev/null 2>&1 &' tell() while true do end",
        "kill -s KILL $pid; wait $pid"))
end

function TestEndOfProcess:test_a_kill_removes_all_of_a_paused_server()
    assert_all_gone(in_a_process("pg:pause() tell() while true do end", "kill -s KILL $pid; wait $pid"))
end

function TestEndOfProcess:test_a_kill_removes_all_of_a_frozen_server()
    assert_all_gone(in_a_process("pg:freeze() tell() while true do end", "kill -s KILL $pid; wait $pid"))
end

function TestEndOfProcess:test_the_terminals_signals_do_not_reach_the_server()
    local pg = shared()
    local group = output_of(("ps -o sid= -p %d"):format(pg:pid()))
    lu.assertNotEquals(group, output_of "ps -o sid= -p $$")
end

local failures = lu.LuaUnit.run()
if everybodys then everybodys:close() end
os.exit(failures)
