-- A running nginx seen and steered from another process: every worker does what it is told within a second and says so, and
-- no request is answered wrongly while that goes on.

local core = require "weir.core"
local fixture = require "ngxfixture"
local json = require "weir.json"
local lu = require "luaunit"

local server = [[
    location = /read { content_by_lua_block {
        local rows, err = weir.db():service():query("GET /read", "select 1 as x")
        if not rows then return weir.respond(err) end
        ngx.say(rows[1].x)
    } }
    location = /slow { content_by_lua_block {
        local rows, err = weir.db():service():query("GET /slow", "select pg_sleep(4)")
        ngx.say(rows and "ok" or err.message)
    } }
]]

TestAttach = { tearDown = fixture.stop_all }

local function start()
    local nginx = fixture.start { server = server, level = "crit",
        http = "init_by_lua_block { weir = require 'resty.weir' }" }
    local area = assert(core.attach(nginx.folder .. "/area"))
    return nginx, area
end

local function document(area, name)
    return json.decode(assert(area:json(name)))
end

-- Given, and done by both workers in time.
local function both(area, order)
    local ticket = assert(area:order(order))
    lu.assertTrue(fixture.eventually(function() return area:progress(ticket).done == 2 end, 1))
    lu.assertEquals(area:progress(ticket), { workers = 2, done = 2, refused = 0, why = "" })
end

local function statuses(nginx, count)
    local seen = {}
    for _ = 1, count or 20 do
        local status = nginx:get "/read"
        seen[status] = (seen[status] or 0) + 1
    end
    return seen
end

function TestAttach:test_shows_its_workers()
    local nginx, area = start()
    lu.assertEquals(statuses(nginx), { [200] = 20 })
    local pids = {}
    for _, worker in ipairs(document(area, "workers")) do
        lu.assertStrMatches(worker.host, "nginx/[%d.]+ %(worker%)")
        lu.assertTrue(worker.rss > 1e6)
        pids[#pids + 1] = tostring(worker.pid)
    end
    local real = nginx:workers()
    table.sort(pids)
    table.sort(real)
    lu.assertEquals(pids, real)
    lu.assertEquals(area:page "/health", 200)
    lu.assertEquals(document(area, "config").name, "test")
    area:close()
    nginx:stop()
end

function TestAttach:test_is_paused_drained_and_resumed_in_every_worker()
    local nginx, area = start()
    lu.assertEquals(statuses(nginx), { [200] = 20 })
    both(area, { kind = "pause", reason = "db maintenance" })
    lu.assertEquals(statuses(nginx), { [503] = 20 })
    both(area, { kind = "drain" })
    lu.assertEquals(document(area, "conns"), {})
    both(area, { kind = "resume" })
    lu.assertEquals(statuses(nginx), { [200] = 20 })
    both(area, { kind = "force", pool = "service@primary", state = "open" })
    lu.assertEquals(statuses(nginx), { [503] = 20 })
    both(area, { kind = "reset" })
    lu.assertEquals(statuses(nginx), { [200] = 20 })
    lu.assertStrContains(area:json "events", ": db maintenance")
    area:close()
    nginx:stop()
end

function TestAttach:test_steering_under_load_loses_no_request()
    local nginx, area = start()
    local finish = nginx:wrk("/read", 16, 4)
    for round = 1, 3 do
        both(area, { kind = "reconnect" })
        both(area, { kind = "resize", pool = "service@primary", max = round })
    end
    both(area, { kind = "resize" })
    local result = finish()
    lu.assertTrue(result.statuses[200] > 500, result.text)
    result.statuses[200] = nil
    lu.assertEquals(result.statuses, {})
    lu.assertEquals(nginx:alerts(), "")
    area:close()
    nginx:stop()
end

function TestAttach:test_ends_a_call_of_one_worker()
    local nginx, area = start()
    local said = io.popen(("curl -s --unix-socket %s/http http://test/slow"):format(nginx.folder))
    local call = fixture.eventually(function()
        for _, conn in ipairs(document(area, "conns")) do
            if conn.label == "GET /slow" then return conn.call end
        end
    end)
    both(area, { kind = "kill", call = call, reason = "too long" })
    lu.assertStrContains(said:read "a", ": too long")
    said:close()
    area:close()
    nginx:stop()
end

function TestAttach:test_is_seen_to_be_stopped()
    local nginx, area = start()
    lu.assertEquals((area:look()), "live")
    nginx:stop()
    lu.assertTrue(fixture.eventually(function() return area:look() ~= "live" end))
    lu.assertEquals(document(area, "workers"), {})
    lu.assertFalse((area:may_steer()))
    area:close()
end

os.exit(lu.LuaUnit.run())
