-- The structured log inside nginx: its error log unless the policy names a file, which a reload opens anew; and the
-- request's traceparent on its way to the server.

local fixture = require "ngxfixture"
local lu = require "luaunit"

local TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
local PARENT = "00-" .. TRACE .. "-" .. SPAN .. "-01"

local places = [[
    location = /slow { content_by_lua_block {
        local rows = assert(weir.db():service():query(nil, "select query from pg_stat_activity, pg_sleep(0.03)"
            .. " where pid = pg_backend_pid()"))
        ngx.say(rows[1].query)
    } }
    location = /pause { content_by_lua_block { weir.db():pause() weir.db():pause(nil, false) ngx.say "ok" } }
    location = /reopen { content_by_lua_block { ngx.say(tostring(weir.db():reopen_log())) } }
]]

TestNginxLog = { tearDown = fixture.stop_all }

local function start(policy)
    return fixture.start { server = places, policy = fixture.policy(policy), level = "info", workers = 1,
        http = "init_by_lua_block { weir = require 'resty.weir' }" }
end

local function body_of(nginx, path, headers)
    local status, body = nginx:get(path, headers)
    lu.assertEquals(status, 200)
    return body
end

-- The lines of ours that tell of this event.
local function told(text, event)
    local found = {}
    for line in text:gmatch "[^\n]+" do
        if line:find("event=" .. event .. " ", 1, true) then found[#found + 1] = line end
    end
    return found
end

function TestNginxLog:test_its_lines_are_in_the_error_log_with_nginxs_levels()
    local nginx = start "slow_log = 0.02,"
    lu.assertEquals((nginx:get("/slow", { traceparent = PARENT })), 200)
    lu.assertEquals((nginx:get("/pause")), 200)
    local slow = told(nginx:log(), "call.slow")
    lu.assertEquals(#slow, 1)
    lu.assertStrMatches(slow[1], "%d+/%d+/%d+ %S+ %[warn%] %d+#%d+: weir: ts=%S+ level=warn event=call%.slow .*")
    lu.assertStrContains(slow[1], 'label="GET /slow"')
    lu.assertStrContains(slow[1], ("trace_id=%s span_id=%s trace_flags=01"):format(TRACE, SPAN))
    local orders = told(nginx:log(), "operator.order")
    lu.assertEquals(#orders > 0, true)
    lu.assertStrContains(orders[1], "[notice]")
    lu.assertEquals(#told(nginx:log(), "engine.opened"), 1)
end

function TestNginxLog:test_the_requests_traceparent_reaches_the_server()
    local nginx = start "trace = 'comment',"
    lu.assertStrContains(body_of(nginx, "/slow", { traceparent = PARENT }), "/*traceparent='" .. PARENT .. "'*/")
    lu.assertNotStrContains(body_of(nginx, "/slow", { traceparent = "'*/;--" }), "*/")
    lu.assertNotStrContains(body_of(nginx, "/slow"), "*/")
end

function TestNginxLog:test_a_policy_may_name_a_file_which_a_reload_opens_anew()
    local path = os.tmpname()
    local nginx = start(("log = { to = %q },"):format(path))
    lu.assertEquals((nginx:get("/pause")), 200)
    lu.assertTrue(#told(fixture.read(path), "operator.order") > 0)
    lu.assertEquals(#told(nginx:log(), "operator.order"), 0)
    assert(os.rename(path, path .. ".1"))
    lu.assertEquals(body_of(nginx, "/reopen"), "true\n")
    lu.assertEquals((nginx:get("/pause")), 200)
    lu.assertTrue(#told(fixture.read(path), "operator.order") > 0)
    assert(os.rename(path, path .. ".1"))
    nginx:signal "HUP"
    local opened = fixture.eventually(function() return #told(fixture.read(path), "engine.opened") > 0 end)
    os.remove(path)
    os.remove(path .. ".1")
    lu.assertTrue(opened)
end

function TestNginxLog:test_it_can_be_switched_off()
    local nginx = start "log = false,"
    lu.assertEquals((nginx:get("/pause")), 200)
    lu.assertEquals(#told(nginx:log(), "operator.order"), 0)
    lu.assertEquals(#told(nginx:log(), "engine.opened"), 0)
end

os.exit(lu.LuaUnit.run())
