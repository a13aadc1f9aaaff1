-- Reloads, kills and new policies under load: what is shared stays, what is lost is given back, nothing is left behind.

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
        local rows, err = weir.db():service():query(nil, "select pg_sleep(0.5), 1 as x")
        if not rows then return weir.respond(err) end
        ngx.say(rows[1].x)
    } }
    location = /reload { content_by_lua_block {
        ngx.req.read_body()
        local generation, why = weir.reload(ngx.req.get_body_data())
        ngx.say(generation or why)
    } }
    location = /max { content_by_lua_block {
        ngx.say(ngx.worker.pid(), " ", weir.json.decode(weir.db():health_json()).status, " ", weir.db().core:held().calls)
    } }
]]

local function start(more)
    local spec = { server = server, http = "init_by_lua_block { weir = require 'resty.weir' }" }
    for key, value in pairs(more or {}) do spec[key] = value end
    return fixture.start(spec)
end

local counters = {
    "weir_calls_total", "weir_attempts_total", "weir_connections_opened_total", "weir_connections_closed_total",
    "weir_call_duration_seconds_count",
}

-- Notes how far the counters are; error if one has gone back.
local function watch(nginx, seen)
    for _, name in ipairs(counters) do
        local value = nginx:metric(name)
        if value then
            if value < (seen[name] or 0) then error(("%s fell from %d to %d"):format(name, seen[name], value)) end
            seen[name] = value
        end
    end
end

local legal = { CLOSED = true, OPEN = true, HALF_OPEN = true }

local function assert_breakers_legal(nginx)
    for _, pool in ipairs(nginx:document "stats.json".pools) do
        lu.assertTrue(legal[pool.breaker.state], pool.breaker.state)
    end
end

local function area_size(nginx)
    return fixture.sh("stat -c %%s %s/area", nginx.folder)
end

-- After the load: as many sessions as the engines say they hold, and they hold no more than they may.
local function assert_no_session_leaked(nginx)
    local same = fixture.eventually(function()
        return fixture.sessions() == nginx:metric("weir_connections")
    end, 3)
    lu.assertTrue(same, ("%d sessions, %s connections"):format(fixture.sessions(), nginx:metric("weir_connections")))
    lu.assertTrue(fixture.sessions "and usename = 'app_service'" <= 8)
    lu.assertEquals(nginx:metric "weir_calls_in_flight", 0)
end

TestReload = { tearDown = fixture.stop_all }

function TestReload:test_ten_reloads_under_load_lose_nothing()
    local nginx = start()
    local size, seen = area_size(nginx), {}
    local finish = nginx:wrk("/read", 32, 6)
    for _ = 1, 10 do
        nginx:signal "HUP"
        socket.sleep(0.4)
        watch(nginx, seen)
    end
    local result = finish()
    lu.assertEquals(result.statuses[500], nil, result.text)
    lu.assertTrue(result.statuses[200] > 1000)
    lu.assertEquals(result.errors.timeout, 0)
    lu.assertTrue(fixture.eventually(function() return nginx:children() == 2 end), "old workers stay")
    assert_no_session_leaked(nginx)
    lu.assertEquals(nginx:metric("weir_calls_total", 'outcome="ok"'), nginx:metric "weir_calls_total")
    assert_breakers_legal(nginx)
    lu.assertEquals(area_size(nginx), size)
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
end

function TestReload:test_twenty_killed_workers_lose_nothing_that_was_counted()
    local nginx = start()
    local size, seen = area_size(nginx), {}
    local finish = nginx:wrk("/read", 32, 8)
    for i = 1, 20 do
        local workers = nginx:workers()
        fixture.sh("kill -9 %s", workers[i % #workers + 1])
        socket.sleep(0.3)
        watch(nginx, seen)
    end
    local result = finish()
    lu.assertTrue(result.statuses[200] > 1000)
    lu.assertTrue(fixture.eventually(function() return #nginx:workers() == 2 end))
    assert_no_session_leaked(nginx)
    assert_breakers_legal(nginx)
    watch(nginx, seen)
    lu.assertEquals(area_size(nginx), size)
    lu.assertEquals(nginx:alerts "exited on signal 9", "")
    nginx:stop()
end

local function breaker_of(nginx, name)
    for _, pool in ipairs(nginx:document "stats.json".pools) do
        if pool.pool == name then return pool.breaker end
    end
end

function TestReload:test_an_open_breaker_stays_open_over_a_reload()
    local nginx = start { policy = fixture.policy "breaker = { min_calls = 3, open_for = 60 }, retries = 0," }
    lu.assertEquals((nginx:get "/read"), 200)
    fixture.server():stop "immediate"
    for _ = 1, 8 do lu.assertEquals((nginx:get "/read"), 503) end
    local before = breaker_of(nginx, "service@primary")
    lu.assertEquals(before.state, "OPEN")
    nginx:signal "HUP"
    lu.assertTrue(fixture.eventually(function() return nginx:log():find "gracefully shutting down" and nginx:children() == 2 end))
    local after = breaker_of(nginx, "service@primary")
    local status, body, headers = nginx:get "/read"
    fixture.server():start()
    lu.assertEquals({ after.state, after.opened }, { "OPEN", before.opened })
    lu.assertEquals({ status, body:match "breaker_open" }, { 503, "breaker_open" })
    lu.assertTrue(tonumber(headers["retry-after"]) >= 1)
    lu.assertTrue(fixture.eventually(function() return nginx:get "/read" == 200 end, 20), "and it closes again")
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
end

-- ---- policies ---------------------------------------------------------------------------------------------------------

TestPolicy = { tearDown = fixture.stop_all }

local function policy_event(nginx, text)
    local count = 0
    for _, event in ipairs(nginx:document "events.json") do
        if event.text:find(text) then count = count + 1 end
    end
    return count
end

-- Gives all workers a new policy; its generation.
local function give(nginx, more)
    local _, generation = nginx:request("POST", "/reload", {}, fixture.policy(more))
    return tonumber(generation)
end

function TestPolicy:test_a_new_policy_is_in_force_everywhere_within_a_second_and_running_calls_end_well()
    local nginx = start()
    local answer
    local waiting = nginx:connect()
    waiting:send "GET /long HTTP/1.0\r\n\r\n"
    socket.sleep(0.1)
    local generation = give(nginx, "timeout = 3,")
    local in_force = ("^policy %d is in force"):format(generation)
    lu.assertTrue(fixture.eventually(function() return policy_event(nginx, in_force) == 2 end, 1))
    answer = fixture.parse(waiting:receive "*a")
    lu.assertEquals(answer, 200)
    lu.assertEquals((nginx:get "/read"), 200)
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
end

function TestPolicy:test_a_policy_with_a_mistake_is_refused_and_changes_nothing()
    local nginx = start()
    local mistakes = {
        { "return {", "policy.lua:1: unexpected symbol" },
        { "return 5", "returns a number" },
        { "error 'no'", "policy.lua:1: no" },
        { fixture.policy "breaker = { failure_rate = 2 },", "failure_rate" },
        { fixture.policy "no_such_knob = 1,", "no_such_knob" },
        { fixture.policy "area = '/tmp/x',", "weir_area sets it" },
    }
    local given = policy_event(nginx, "^policy %d+ given") -- each worker may find nobody's yet, and give its own
    for _, mistake in ipairs(mistakes) do
        local _, said = nginx:request("POST", "/reload", {}, mistake[1])
        lu.assertStrContains(said, mistake[2])
    end
    fixture.write(nginx.folder .. "/policy.lua", "return {")
    local said, good = nginx:test()
    lu.assertFalse(good)
    lu.assertStrContains(said, "policy.lua:1:")
    nginx:signal "HUP"
    lu.assertTrue(fixture.eventually(function() return nginx:log():find "weir_policy" ~= nil end))
    lu.assertEquals((nginx:get "/read"), 200)
    lu.assertEquals(policy_event(nginx, "^policy %d+ given"), given)
    lu.assertEquals(nginx:alerts "weir_policy", "")
    nginx:stop()
end

function TestPolicy:test_another_name_needs_another_area_and_a_reload_says_so_before_any_worker_is_without()
    local nginx = start()
    local renamed = fixture.policy():gsub('name = "test"', 'name = "other"')
    local _, said = nginx:request("POST", "/reload", {}, renamed)
    lu.assertStrContains(said, "belongs to engine 'test', and this one is 'other'")
    fixture.write(nginx.folder .. "/policy.lua", renamed)
    local told, good = nginx:test()
    lu.assertFalse(good)
    lu.assertStrContains(told, "belongs to engine 'test', and this one is 'other'")
    nginx:signal "HUP"
    lu.assertTrue(fixture.eventually(function() return nginx:log():find "belongs to engine" ~= nil end))
    for _ = 1, 10 do lu.assertEquals((nginx:get "/read"), 200) end
    local path = nginx.folder .. "/nginx.conf"
    fixture.write(path, (fixture.read(path):gsub("/area 16m", "/other 16m")))
    nginx:signal "HUP"
    lu.assertTrue(fixture.eventually(function() return nginx:children() == 2 and nginx:document "stats.json".name == "other" end))
    for _ = 1, 10 do lu.assertEquals((nginx:get "/read"), 200) end
    lu.assertEquals(nginx:alerts "belongs to engine", "")
    nginx:stop()
end

function TestPolicy:test_a_worker_that_is_started_anew_follows_the_newest_policy()
    local nginx = start()
    local in_force = ("^policy %d is in force"):format(give(nginx, "timeout = 3,"))
    lu.assertTrue(fixture.eventually(function() return policy_event(nginx, in_force) == 2 end, 1))
    local given = policy_event(nginx, "^policy %d+ given")
    fixture.sh("kill -9 %s", nginx:workers()[1])
    lu.assertTrue(fixture.eventually(function() return policy_event(nginx, in_force) == 3 end, 3))
    nginx:signal "HUP" -- but what nginx reads after that is newer still
    lu.assertTrue(fixture.eventually(function() return policy_event(nginx, "^policy %d+ given") > given end, 3))
    nginx:stop()
end

-- ---- leaving ----------------------------------------------------------------------------------------------------------

TestLeaving = { tearDown = fixture.stop_all }

function TestLeaving:test_a_worker_that_leaves_lets_its_calls_end_for_as_long_as_they_may()
    local nginx = start { http = "weir_drain_timeout 300ms; init_by_lua_block { weir = require 'resty.weir' }",
        policy = fixture.policy "timeout = 20," , server = server .. [[
        location = /very_long { content_by_lua_block {
            local rows, err = weir.db():service():query(nil, "select pg_sleep(15), 1 as x")
            if not rows then return weir.respond(err) end
            ngx.say "x"
        } }]] }
    local waiting = nginx:connect()
    waiting:send "GET /very_long HTTP/1.0\r\n\r\n"
    lu.assertTrue(fixture.eventually(function() return fixture.sessions "and state = 'active'" > 0 end))
    nginx:signal "QUIT"
    lu.assertEquals(fixture.parse(waiting:receive "*a"), 503)
    lu.assertTrue(fixture.eventually(function() return not io.open(nginx.folder .. "/pid") end, 5))
    lu.assertEquals(nginx:alerts(), "")
    lu.assertEquals(fixture.sessions(), 0)
    fixture.sh("rm -rf %s", nginx.folder)
end

os.exit(lu.LuaUnit.run())
