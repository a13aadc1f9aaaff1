-- A server that is restarted in the middle of the load: nobody waits past his deadline, refusals say when to come back, and
-- the workers together do not storm the server that returns. WEIR_LONG=1: the 30 s form.

local fixture = require "ngxfixture"
local lu = require "luaunit"
local socket = require "socket"

local long = os.getenv "WEIR_LONG" ~= nil
local SECONDS, DEADLINE = long and 30 or 8, 2

local policy = [[
    timeout = 2, acquire_timeout = 1, connect_timeout = 1,
    breaker = { window = 3, min_calls = 10, open_for = 5 },
    retries = 1,
]]

local server = [[
    location = /read { content_by_lua_block {
        local rows, err = weir.db():service():with({ readonly = true }):query(nil, "select pg_sleep(0.001), 1 as x")
        if not rows then return weir.respond(err) end
        ngx.say(rows[1].x)
    } }
    location = /time { content_by_lua_block {
        ngx.update_time()
        local started = ngx.now()
        local rows, err = weir.db():service():query(nil, "select 1 as x")
        ngx.update_time()
        ngx.say(rows and "ok" or err.code, " ", ngx.now() - started, " ", err and err.retry_after or "-")
    } }
]]

TestOutage = { tearDown = fixture.stop_all }

local function start()
    return fixture.start { server = server, policy = fixture.policy(policy), level = "crit",
        http = "init_by_lua_block { weir = require 'resty.weir' }" }
end

-- How many processes of the server are setting up a session, or trying to, at this moment.
local function starting()
    return tonumber((fixture.sh("ps -eo args= | grep -c '[p]ostgres: app_service.*\\(startup\\|authentication\\)'"))) or 0
end

function TestOutage:test_a_restart_in_the_middle_of_the_load()
    local nginx = start()
    local finish = nginx:wrk("/read", 64, SECONDS)
    socket.sleep(SECONDS / 4)
    fixture.server():stop "immediate"
    socket.sleep(SECONDS / 4)
    fixture.server():start()
    local most = 0
    local deadline = socket.gettime() + SECONDS / 4
    while socket.gettime() < deadline do most = math.max(most, starting()) end
    local result = finish()
    lu.assertTrue(result.slowest <= DEADLINE + 0.5, "the slowest took " .. result.slowest)
    lu.assertEquals(result.errors.timeout, 0)
    for status in pairs(result.statuses) do
        lu.assertTrue(status == 200 or status == 503 or status == 504, result.text)
    end
    lu.assertTrue(result.statuses[200] > 1000, result.text)
    lu.assertTrue((result.statuses[503] or 0) > 100, result.text)
    lu.assertEquals(result.bare503, 0, "each refusal says when to come back")
    lu.assertTrue(most <= 4, "connects under way over all workers: " .. most)
    lu.assertTrue(fixture.eventually(function() return nginx:get "/read" == 200 end, 10))
    lu.assertTrue(fixture.sessions "and usename = 'app_service'" <= 8)
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
end

function TestOutage:test_a_refusal_by_an_open_breaker_needs_no_time()
    local nginx = start()
    fixture.server():stop "immediate"
    lu.assertTrue(fixture.eventually(function()
        local _, body = nginx:get "/time"
        return body:find "breaker_open" ~= nil
    end))
    local took, count = 0, 0
    for _ = 1, 50 do
        local _, body = nginx:get "/time"
        local code, seconds, after = body:match "(%S+) (%S+) (%S+)"
        if code == "breaker_open" then
            took, count = took + tonumber(seconds), count + 1
            lu.assertTrue(tonumber(after) >= 0 and tonumber(after) <= 5)
        end
    end
    fixture.server():start()
    lu.assertTrue(count >= 40)
    lu.assertTrue(took / count < 0.002, "a refusal takes " .. took / count)
    nginx:stop()
end

os.exit(lu.LuaUnit.run())
