-- What is done to nginx as a whole beside reloads: another binary takes over, logs are opened anew, patience ends, there is
-- no master at all.

local fixture = require "ngxfixture"
local lu = require "luaunit"
local socket = require "socket"

local server = [[
    location = /read { content_by_lua_block {
        local rows, err = weir.db():service():query(nil, "select pg_sleep(0.002), 1 as x")
        if not rows then return weir.respond(err) end
        ngx.say(rows[1].x)
    } }
    location = /long { content_by_lua_block {
        local rows, err = weir.db():service():query(nil, "select pg_sleep(20), 1 as x")
        if not rows then return weir.respond(err) end
        ngx.say(rows[1].x)
    } }
    location = /say { content_by_lua_block { require("weir.ngx").log("notice", ngx.var.arg_text) ngx.say "said" } }
]]

local function start(more)
    local spec = { server = server, http = "init_by_lua_block { weir = require 'resty.weir' }" }
    for key, value in pairs(more or {}) do spec[key] = value end
    return fixture.start(spec)
end

local function is_gone(pid)
    local state = fixture.read(("/proc/%s/stat"):format(pid)):match "%) (%a)"
    return state == nil or state == "Z"
end

local function assert_gone(pid, seconds)
    lu.assertTrue(fixture.eventually(function() return is_gone(pid) end, seconds), "process " .. pid .. " stays")
end

local function assert_no_session_leaked(nginx)
    local same = fixture.eventually(function()
        return fixture.sessions() == nginx:metric "weir_connections" and nginx:metric "weir_calls_in_flight" == 0
    end, 3)
    lu.assertTrue(same, ("%d sessions, %s connections"):format(fixture.sessions(), nginx:metric "weir_connections"))
end

local function begin_long(nginx)
    local client = nginx:connect()
    client:send "GET /long HTTP/1.0\r\n\r\n"
    lu.assertTrue(fixture.eventually(function() return fixture.sessions "and state = 'active'" > 0 end))
    return client
end

-- ---- another binary -----------------------------------------------------------------------------------------------------

TestUpgrade = {}

local old_master -- of the last upgrade; the fixture knows the new one

function TestUpgrade:tearDown()
    if old_master and not is_gone(old_master) then fixture.sh("kill -TERM %s", old_master) end
    fixture.stop_all()
end

-- Starts the new master beside the old one; their pids.
local function upgrade(nginx)
    local old = nginx:master()
    old_master = old
    nginx:signal "USR2"
    lu.assertTrue(fixture.eventually(function()
        local new = nginx:master()
        return new and new ~= old and #nginx:workers() == 2
    end), nginx:log())
    return old, nginx:master()
end

function TestUpgrade:test_a_new_binary_takes_over_under_load_and_the_counters_go_on()
    local nginx = start { daemon = "on" }
    local finish = nginx:wrk("/read", 16, 5)
    socket.sleep(0.5)
    local before = nginx:metric "weir_calls_total"
    local old = upgrade(nginx)
    lu.assertTrue(nginx:metric "weir_calls_total" >= before)
    socket.sleep(0.5)
    fixture.sh("kill -WINCH %s", old)
    socket.sleep(0.5)
    fixture.sh("kill -QUIT %s", old)
    assert_gone(old, 10)
    local result = finish()
    lu.assertTrue(result.statuses[200] > 500, result.text)
    lu.assertEquals({ result.statuses[500], result.statuses[503], result.statuses[504] }, {}, result.text)
    assert_no_session_leaked(nginx)
    local after = nginx:metric("weir_calls_total", 'outcome="ok"')
    lu.assertTrue(after >= result.statuses[200], ("%d counted, %d answered"):format(after, result.statuses[200]))
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
end

function TestUpgrade:test_an_upgrade_that_is_taken_back_leaves_the_old_one_serving()
    local nginx = start { daemon = "on" }
    local old, new = upgrade(nginx)
    fixture.sh("kill -QUIT %s", new)
    assert_gone(new, 10)
    lu.assertTrue(fixture.eventually(function() return nginx:master() == old end))
    for _ = 1, 20 do lu.assertEquals((nginx:get "/read"), 200) end
    assert_no_session_leaked(nginx)
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
end

function TestUpgrade:test_the_new_binarys_policy_is_in_force_in_the_old_workers_too()
    local nginx = start { daemon = "on" }
    fixture.write(nginx.folder .. "/policy.lua", fixture.policy "timeout = 3,")
    local old_workers = nginx:workers()
    local old = upgrade(nginx)
    lu.assertTrue(fixture.eventually(function()
        local log = nginx:log()
        for _, pid in ipairs(old_workers) do -- the new began with it: both gave it, or the first alone
            if not log:find(("%s#%s: weir: policy [23] is in force"):format(pid, pid)) then return false end
        end
        return #old_workers == 2
    end, 3), nginx:log())
    fixture.sh("kill -QUIT %s", old)
    assert_gone(old, 10)
    lu.assertEquals((nginx:get "/read"), 200)
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
end

-- ---- how many, how long -------------------------------------------------------------------------------------------------

TestWorkers = { tearDown = fixture.stop_all }

function TestWorkers:test_there_may_be_more_workers_after_a_reload_and_fewer_again()
    local nginx = start()
    local path = nginx.folder .. "/nginx.conf"
    for _, count in ipairs { 6, 1 } do
        fixture.write(path, (fixture.read(path):gsub("worker_processes %d+", "worker_processes " .. count)))
        nginx:signal "HUP"
        lu.assertTrue(fixture.eventually(function() return nginx:children() == count and #nginx:workers() == count end))
        for _ = 1, 30 do lu.assertEquals((nginx:get "/read"), 200) end
        assert_no_session_leaked(nginx)
    end
    lu.assertTrue(nginx:metric("weir_calls_total", 'outcome="ok"') >= 60)
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
end

function TestWorkers:test_when_nginx_loses_patience_before_weir_does_the_worker_goes_and_its_session_too()
    local nginx = start { main = "worker_shutdown_timeout 500ms;", policy = fixture.policy "timeout = 20," }
    local client, master = begin_long(nginx), nginx:master()
    nginx:signal "QUIT"
    assert_gone(master, 5)
    client:close()
    lu.assertTrue(fixture.eventually(function() return fixture.sessions() == 0 end, 3), "sessions stay")
    lu.assertEquals(nginx:alerts "open socket", "")
    fixture.sh("rm -rf %s", nginx.folder)
end

function TestWorkers:test_a_call_of_a_timer_does_not_hold_a_worker_that_leaves_for_longer_than_it_may()
    local nginx = start { policy = fixture.policy "timeout = 20,", http = [[
        weir_drain_timeout 300ms;
        init_by_lua_block { weir = require 'resty.weir' }
    ]], server = [[ location = /timer { content_by_lua_block {
        ngx.timer.at(0, function()
            local rows, err = weir.db():service():query("timer", "select pg_sleep(20), 1 as x")
            ngx.log(ngx.NOTICE, "timer: ", rows and "answered" or err.code)
        end)
        ngx.say "begun"
    } } ]] }
    local log = nginx.folder .. "/error.log"
    lu.assertEquals((nginx:get "/timer"), 200)
    lu.assertTrue(fixture.eventually(function() return fixture.sessions "and state = 'active'" > 0 end))
    local master = nginx:master()
    nginx:signal "QUIT"
    assert_gone(master, 5)
    lu.assertStrContains(fixture.read(log), "timer: cancelled")
    lu.assertTrue(fixture.eventually(function() return fixture.sessions() == 0 end, 3), "sessions stay")
    lu.assertEquals(nginx:alerts(), "")
    fixture.sh("rm -rf %s", nginx.folder)
end

function TestWorkers:test_a_fast_stop_does_not_wait_for_calls()
    local nginx = start { policy = fixture.policy "timeout = 20," }
    local client, master = begin_long(nginx), nginx:master()
    nginx:signal "TERM"
    assert_gone(master, 5)
    client:close()
    lu.assertTrue(fixture.eventually(function() return fixture.sessions() == 0 end, 3), "sessions stay")
    lu.assertEquals(nginx:alerts(), "")
    fixture.sh("rm -rf %s", nginx.folder)
end

function TestWorkers:test_what_weir_says_goes_to_the_log_that_was_opened_anew()
    local nginx = start { workers = 1 }
    nginx:get "/say?text=first"
    fixture.sh("mv %s/error.log %s/error.log.1", nginx.folder, nginx.folder)
    nginx:signal "USR1"
    lu.assertTrue(fixture.eventually(function() return io.open(nginx.folder .. "/error.log") ~= nil end))
    lu.assertTrue(fixture.eventually(function()
        nginx:get "/say?text=second"
        return nginx:log():find "weir: second" ~= nil
    end, 3))
    lu.assertStrContains(fixture.read(nginx.folder .. "/error.log.1"), "weir: first")
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
end

-- ---- no master ----------------------------------------------------------------------------------------------------------

TestAlone = { tearDown = fixture.stop_all }

function TestAlone:test_without_a_master_the_one_process_serves_and_ends()
    for _, signal in ipairs { "QUIT", "TERM" } do
        local nginx = start { workers = 0 }
        local process = nginx:master()
        for _ = 1, 5 do lu.assertEquals((nginx:get "/read"), 200) end
        nginx:signal(signal)
        assert_gone(process, 5)
        lu.assertEquals(fixture.sessions(), 0)
        lu.assertEquals(nginx:alerts(), "")
        fixture.sh("rm -rf %s", nginx.folder)
    end
end

function TestAlone:test_without_a_master_a_reload_is_refused_and_it_serves_on()
    local nginx = start { workers = 0 }
    local process = nginx:master()
    lu.assertEquals((nginx:get "/read"), 200)
    nginx:signal "HUP"
    lu.assertTrue(fixture.eventually(function() return nginx:log():find "it must be restarted" ~= nil end))
    for _ = 1, 5 do lu.assertEquals((nginx:get "/read"), 200) end
    lu.assertFalse(is_gone(process), nginx:log())
    nginx:signal "QUIT"
    assert_gone(process, 5)
    lu.assertNil(nginx:log():find "signal 11")
    lu.assertEquals(fixture.read(nginx.folder .. "/said"), "")
    lu.assertTrue(fixture.eventually(function() return fixture.sessions() == 0 end, 3), "sessions stay")
    fixture.sh("rm -rf %s", nginx.folder)
end

os.exit(lu.LuaUnit.run())
