-- Calls from each place where ngx_lua runs code: where they work, what they are told to be for, and who ends them.

local fixture = require "ngxfixture"
local lu = require "luaunit"

local places = [[
    location = /content { content_by_lua_block {
        ngx.say(weir.db():service():query(nil, "select 42 as x")[1].x)
    } }
    location = /access { access_by_lua_block {
        ngx.ctx.x = weir.db():service():query(nil, "select 42 as x")[1].x
    } content_by_lua_block { ngx.say(ngx.ctx.x) } }
    location = /rewrite { rewrite_by_lua_block {
        ngx.ctx.x = weir.db():service():query(nil, "select 42 as x")[1].x
    } content_by_lua_block { ngx.say(ngx.ctx.x) } }
    location = /subrequests { content_by_lua_block {
        local a, b = ngx.location.capture_multi { { "/content" }, { "/rewrite" } } -- a subrequest has no access phase
        ngx.say(a.body, b.body)
    } }
    location = /thread { content_by_lua_block {
        local function ask() return weir.db():service():query(nil, "select 42 as x")[1].x end
        local thread, task = ngx.thread.spawn(ask), weir.spawn(ask)
        local _, x = ngx.thread.wait(thread)
        ngx.say(x, " ", task:join())
    } }
    location = /coroutine { content_by_lua_block {
        ngx.say(coroutine.wrap(function() return weir.db():service():query(nil, "select 42 as x")[1].x end)())
    } }
    location = /simulation { content_by_lua_block {
        local sim = weir.sim { seed = 7 }
        local _, err = pcall(sim.run, sim, function()
            local app = weir.open { backends = { primary = "" }, clients = { service = { bypass_rls = true } } }
            assert(app:service():query("in a simulation", "select 1"))
            weir.sleep(3600)
            ngx.sleep(0.2)
        end)
        ngx.say(sim.clock() >= 3600, " ", err)
    } }
    location = /timer { content_by_lua_block {
        local ok = ngx.timer.at(0, function()
            local rows, err = weir.db():service():query("timer", "insert into log values ('from a timer') returning line")
            ngx.log(ngx.NOTICE, "timer: ", rows and rows[1].line or tostring(err))
        end)
        ngx.say(ok)
    } }
    location = /timer_without_context { content_by_lua_block {
        ngx.timer.at(0, function()
            local ok, err = pcall(function() return weir.db():service():query(nil, "select 1") end)
            ngx.log(ngx.NOTICE, "timer: ", tostring(ok), " ", tostring(err))
        end)
        ngx.say "ok"
    } }
    location = /unit { content_by_lua_block {
        local count, err = weir.db():with_service(nil, function(tx)
            tx:query("insert into log values ('in a unit')")
            weir.sleep(0.01)
            if ngx.var.arg_fail then error({ mine = true }) end
            return tx:query("select count(*) as n from log where line = 'in a unit'")[1].n
        end)
        ngx.say(count)
    } }
    location = /forbidden {
        set_by_lua_block $x {
            local ok, err = pcall(function() return weir.db():service():query(nil, "insert into log values ('set')") end)
            return tostring(err)
        }
        header_filter_by_lua_block {
            local ok, err = pcall(function() return weir.db():service():query(nil, "insert into log values ('header')") end)
            ngx.header["X-Header"] = tostring(err)
        }
        log_by_lua_block {
            local ok, err = pcall(function() return weir.db():service():query(nil, "insert into log values ('log')") end)
            ngx.log(ngx.NOTICE, "log phase: ", tostring(err))
        }
        content_by_lua_block {
            local ok, err = pcall(string.gsub, "a", "a", function()
                return weir.db():service():query(nil, "insert into log values ('gsub')")
            end)
            ngx.say(ngx.var.x, "\n", tostring(err))
        }
    }
    location /orders/ { content_by_lua_block {
        ngx.say(weir.db():service():query(nil, "select current_setting('application_name') as n")[1].n)
    } }
    location ~ ^/named/\d+$ { set $weir_route "/named/:id"; content_by_lua_block {
        ngx.say(weir.db():service():query(nil, "select current_setting('application_name') as n")[1].n)
    } }
    location = /broken { content_by_lua_block {
        local rows, err = weir.db():service():query(nil, "select 1 / 0")
        return weir.respond(err)
    } }
]]

TestCalls = {}

function TestCalls:setUp()
    fixture.ask "truncate log"
    self.nginx = fixture.start { workers = 1, server = places, http = "init_by_lua_block { weir = require 'resty.weir' }" }
end

function TestCalls:tearDown()
    local alerts = self.nginx:alerts()
    fixture.stop_all()
    lu.assertEquals(alerts, "")
end

function TestCalls:logged(pattern)
    return self.nginx:log():find(pattern) ~= nil
end

function TestCalls:body(path, headers)
    local status, body = self.nginx:get(path, headers)
    lu.assertEquals(status, 200, self.nginx:log())
    return (body:gsub("%s+$", ""))
end

function TestCalls:test_wherever_code_may_wait_a_call_works()
    for _, path in ipairs { "/content", "/access", "/rewrite", "/coroutine" } do
        lu.assertEquals(self:body(path), "42", path)
    end
    lu.assertEquals(self:body "/subrequests", "42\n42")
    lu.assertEquals(self:body "/thread", "42 42")
    self:body "/timer"
    lu.assertTrue(fixture.eventually(function() return self:logged "timer: from a timer" end))
end

function TestCalls:test_a_unit_commits_or_is_rolled_back_by_the_callers_error()
    lu.assertEquals(self:body "/unit", "1")
    lu.assertEquals((self.nginx:get "/unit?fail=1"), 500)
    lu.assertEquals(fixture.ask "select count(*) from log where line = 'in a unit'", "1")
end

function TestCalls:test_wherever_nothing_may_wait_it_raises_before_anything_is_sent()
    local _, body, headers = self.nginx:get "/forbidden"
    lu.assertStrContains(body, "API disabled in the context of set_by_lua")
    lu.assertStrContains(body, "string.gsub")
    lu.assertStrContains(headers["x-header"], "API disabled in the context of header_filter_by_lua")
    lu.assertTrue(fixture.eventually(function()
        return self:logged "log phase: [^\n]*API disabled in the context of log_by_lua"
    end))
    lu.assertEquals(fixture.ask "select count(*) from log", "0")
end

function TestCalls:test_a_simulation_that_would_wait_for_nginx_raises_and_nobody_else_notices_it()
    local client = self.nginx:connect()
    client:send "GET /simulation HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    for _ = 1, 5 do lu.assertEquals(self:body "/content", "42") end
    local _, said = fixture.parse(client:receive "*a")
    lu.assertStrContains(said, "true ")
    lu.assertStrContains(said, "a simulation belongs to none, and may not wait for nginx")
    client:close()
end

function TestCalls:test_the_context_is_method_and_location_or_what_weir_route_says()
    lu.assertEquals(self:body "/orders/17", "GET /orders/")
    lu.assertEquals(self:body "/named/17", "GET /named/:id")
    self:body "/timer_without_context"
    lu.assertTrue(fixture.eventually(function() return self:logged "timer: false[^\n]*the context is a nil" end))
    local labels = {}
    for _, pool in ipairs(self.nginx:document "stats.json".pools) do
        for _, label in ipairs(pool.labels or {}) do labels[label.label] = true end
    end
    lu.assertTrue(labels["GET /named/:id"], "the route is the label")
end

function TestCalls:test_the_requests_traceparent_goes_along()
    local traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    self:body("/content", { traceparent = traceparent })
    lu.assertEquals(self.nginx:document "calls.json"[1].traceparent, traceparent)
end

function TestCalls:test_what_the_database_said_goes_to_the_log_and_not_to_the_client()
    local status, body = self.nginx:get "/broken"
    lu.assertEquals(status, 500)
    lu.assertNotStrContains(body, "zero")
    lu.assertStrContains(self.nginx:log(), "division by zero")
end

TestCodeCache = { tearDown = TestCalls.tearDown }

function TestCodeCache:test_without_a_code_cache_it_says_why_there_is_no_engine()
    self.nginx = fixture.start { workers = 1, http = "lua_code_cache off;", server = [[
        location = / { content_by_lua_block { ngx.say(tostring(select(2, require "resty.weir".db()))) } }
    ]] }
    for _ = 1, 3 do
        lu.assertStrContains(select(2, self.nginx:get "/"), "lua_code_cache is off")
    end
end

-- ---- who ends a call -----------------------------------------------------------------------------------------------

local waits = [[
    location = /slow { content_by_lua_block {
        weir.db():service():query(nil, "select pg_sleep(20), 'slow'")
    } }
    location = /slow_access { access_by_lua_block { weir.db():service():query(nil, "select pg_sleep(20), 'slow'") }
        content_by_lua_block { ngx.say "x" } }
    location = /slow_rewrite { rewrite_by_lua_block { weir.db():service():query(nil, "select pg_sleep(20), 'slow'") }
        content_by_lua_block { ngx.say "x" } }
    location = /slow_unit { content_by_lua_block {
        weir.db():with_service(nil, function(tx)
            tx:query("insert into log values ('never')")
            tx:query("select pg_sleep(20), 'slow'")
        end)
    } }
    location = /idle_unit { content_by_lua_block {
        weir.db():with_service(nil, function(tx)
            tx:query("insert into log values ('never')")
            ngx.sleep(20)
        end)
    } }
    location = /queued { content_by_lua_block {
        local tasks = {}
        for i = 1, 20 do
            tasks[i] = weir.spawn(function() weir.db():service():query(nil, "select pg_sleep(20), 'slow'") end)
        end
        weir.gather(tasks)
    } }
    location = /killed { content_by_lua_block {
        local thread = ngx.thread.spawn(function() weir.db():service():query(nil, "select pg_sleep(20), 'slow'") end)
        ngx.sleep(0.1)
        ngx.say(ngx.thread.kill(thread))
    } }
]]

TestEnds = {}

function TestEnds:setUp()
    fixture.ask "truncate log"
    self.nginx = fixture.start {
        workers = 1, server = waits, policy = fixture.policy "health = { interval = 0 }, cancel_wait = 2,",
        http = "lua_check_client_abort on; init_by_lua_block { weir = require 'resty.weir' }",
    }
end

TestEnds.tearDown = TestCalls.tearDown

local function running()
    return fixture.sessions "and (state = 'active' and query like '%slow%' or state like 'idle in%')"
end

function TestEnds:is_at_rest()
    return running() == 0 and self.nginx:metric "weir_calls_in_flight" == 0 and self.nginx:metric "weir_waiters" == 0
end

function TestEnds:test_a_client_that_goes_away_ends_its_calls_in_every_phase()
    for _, path in ipairs { "/slow", "/slow_access", "/slow_rewrite", "/slow_unit", "/idle_unit", "/queued" } do
        local client = self.nginx:connect()
        client:send(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(path))
        lu.assertTrue(fixture.eventually(function() return running() > 0 end), path)
        client:close()
        lu.assertTrue(fixture.eventually(function() return self:is_at_rest() end, 3), path .. " runs on")
    end
    lu.assertEquals(fixture.ask "select count(*) from log", "0")
end

function TestEnds:test_a_light_thread_that_is_killed_ends_its_call()
    local status, body = self.nginx:get "/killed"
    lu.assertEquals({ status, body }, { 200, "1\n" })
    lu.assertTrue(fixture.eventually(function() return self:is_at_rest() end, 3))
end

os.exit(lu.LuaUnit.run())
