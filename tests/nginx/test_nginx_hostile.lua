-- What nobody should do and somebody will: engines opened before there is a worker, methods made up by clients, functions
-- of a unit that are left in the middle.

local fixture = require "ngxfixture"
local lu = require "luaunit"

local http = [[
    lua_check_client_abort on;
    init_by_lua_block {
        weir = require "resty.weir"
        local function own()
            return require("weir").open { name = "own", backends = { primary = "@URL@" },
                clients = { service = { user = "app_service", bypass_rls = true } } }
        end
        package.loaded.own = { open = own }
        package.loaded.own.early, package.loaded.own.why = own()
    }
    init_worker_by_lua_block { package.loaded.own.db = assert(package.loaded.own.open()) }
]]

local server = [[
    location = /early { content_by_lua_block { ngx.say(tostring(package.loaded.own.early), " ", tostring(package.loaded.own.why)) } }
    location = /own { content_by_lua_block { ngx.say(package.loaded.own.db:service():query(nil, "select 5 as x")[1].x) } }
    location = /read { content_by_lua_block { ngx.say(weir.db():service():query(nil, "select 42 as x")[1].x) } }
    location = /leaves { content_by_lua_block {
        weir.db():with_service(nil, function(tx)
            tx:query "insert into log values ('left')"
            ngx.exit(204)
        end)
    } }
    location = /spawns { content_by_lua_block {
        local ok, err = pcall(string.gsub, "x", "x", function() weir.spawn(function() weir.sleep(0.1) end) end)
        ngx.say(ok, " ", err)
        ngx.say(weir.run(function() pcall(string.gsub, "x", "x", function() weir.spawn(function() end) end) return "over" end))
    } }
    location = /runs { content_by_lua_block { ngx.say "x" } header_filter_by_lua_block {
        ngx.header.x = select(2, pcall(weir.run, function() end))
    } }
    location = /closes { content_by_lua_block {
        for _, what in ipairs { "close", "drain" } do
            local ok, err = pcall(weir.db()[what], weir.db())
            ngx.say(ok, " ", err)
        end
    } }
    location = /listens { content_by_lua_block {
        local listener = weir.db():service():listen "news"
        package.loaded.own.listener = listener
        local note, err = listener:wait(20)
        ngx.say(note and note.payload or err.code)
    } }
    location = /stale { content_by_lua_block {
        local listener = package.loaded.own.listener
        ngx.say(listener:state(), " ", select(2, listener:wait(5)).code, " ", select(2, listener:listen "more").code)
        listener:close()
    } }
]]

-- Put before the server of the tests; the handshake asks the database whether it may go on.
local handshake = [[
    server {
        listen unix:@FOLDER@/tls ssl;
        ssl_certificate @FOLDER@/certificate.pem;
        ssl_certificate_key @FOLDER@/key.pem;
        ssl_certificate_by_lua_block {
            local rows, err = weir.db():service():query("a handshake", "select pg_sleep(0.2), 3 as x")
            if not rows then ngx.log(ngx.ERR, "handshake: ", tostring(err)) return ngx.exit(ngx.ERROR) end
        }
        location / { content_by_lua_block { ngx.say(weir.db():service():query(nil, "select 42 as x")[1].x) } }
    }
]]

TestHostile = {}

function TestHostile:setUp()
    fixture.ask "truncate log"
    local url = fixture.server():url()
    self.nginx = fixture.start { workers = 1, server = server, http = (http:gsub("@URL@", function() return url end)),
        policy = fixture.policy "health = { interval = 0 }," }
end

function TestHostile:tearDown()
    local alerts = self.nginx:alerts()
    fixture.stop_all()
    lu.assertEquals(alerts, "")
end

function TestHostile:test_an_engine_opened_in_init_worker_serves_and_one_opened_in_the_master_is_refused()
    for _ = 1, 10 do lu.assertEquals(select(2, self.nginx:get "/own"), "5\n") end
    lu.assertStrContains(select(2, self.nginx:get "/early"), "engines are opened in workers")
    self.nginx:signal "HUP"
    lu.assertTrue(fixture.eventually(function() return self.nginx:children() == 1 end))
    for _ = 1, 10 do lu.assertEquals(select(2, self.nginx:get "/own"), "5\n") end
end

local function start_with_handshake()
    local nginx = fixture.prepare { workers = 1, server = server,
        http = "lua_check_client_abort on; init_by_lua_block { weir = require 'resty.weir' }" .. handshake }
    fixture.sh("cd %s && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out certificate.pem -days 2 -subj /CN=test",
        nginx.folder)
    return nginx
end

function TestHostile:test_a_handshake_may_ask_and_one_that_is_broken_off_ends_its_call()
    fixture.stop_all()
    self.nginx = fixture.run(start_with_handshake(), 1)
    local url = ("curl -sk --unix-socket %s/tls https://test/"):format(self.nginx.folder)
    lu.assertEquals((fixture.sh(url)), "42\n")
    for _ = 1, 10 do fixture.sh("timeout 0.1 " .. url) end
    lu.assertTrue(fixture.eventually(function()
        return self.nginx:metric "weir_calls_in_flight" == 0 and fixture.sessions "and state <> 'idle'" == 0
    end, 3))
    lu.assertEquals((fixture.sh(url)), "42\n")
end

function TestHostile:test_tasks_are_refused_where_nothing_may_wait()
    local said = select(2, self.nginx:get "/spawns")
    lu.assertStrContains(said, "false ")
    lu.assertStrContains(said, "here nothing may: this function was called by one of C")
    lu.assertStrContains(said, "trueover")
    local _, _, headers = self.nginx:get "/runs"
    lu.assertStrContains(headers.x, "API disabled in the context of header_filter_by_lua")
    lu.assertEquals((self.nginx:get "/read"), 200)
end

function TestHostile:test_one_request_cannot_close_the_engine_of_all()
    local said = select(2, self.nginx:get "/closes")
    lu.assertStrContains(said, "close: the engine of weir_policy")
    lu.assertNil(said:find "true")
    lu.assertStrContains(said, "drain: the engine of weir_policy")
    lu.assertEquals((self.nginx:get "/weir/health"), 200)
    lu.assertEquals((self.nginx:get "/read"), 200)
end

function TestHostile:test_methods_that_clients_make_up_do_not_use_up_the_labels()
    for i = 0, 199 do
        lu.assertEquals((self.nginx:request(("M%c%c"):format(65 + i % 26, 65 + i // 26), "/read")), 200)
    end
    lu.assertEquals((self.nginx:get "/read"), 200)
    local _, metrics = self.nginx:get "/weir/metrics"
    lu.assertStrContains(metrics, 'label="OTHER /read"')
    lu.assertStrContains(metrics, 'label="GET /read"')
    lu.assertNil(metrics:find('label="M%u%u /read"'))
end

function TestHostile:test_a_unit_that_is_left_by_ngx_exit_is_rolled_back_at_once()
    for _ = 1, 20 do lu.assertEquals((self.nginx:get "/leaves"), 204) end
    lu.assertTrue(fixture.eventually(function() return fixture.sessions "and state like 'idle in%'" == 0 end, 2))
    lu.assertEquals(fixture.ask "select count(*) from log", "0")
end

function TestHostile:test_a_listener_ends_with_the_request_that_opened_it()
    for _ = 1, 20 do -- of a pool of 8
        local client = self.nginx:connect()
        client:send "GET /listens HTTP/1.0\r\n\r\n"
        lu.assertTrue(fixture.eventually(function() return fixture.sessions [[and query ilike 'listen%']] > 0 end))
        client:close()
        lu.assertTrue(fixture.eventually(function() return fixture.sessions [[and query ilike 'listen%']] == 0 end, 3))
    end
    lu.assertEquals((self.nginx:get "/read"), 200)
end

function TestHostile:test_who_has_kept_a_listener_of_a_request_that_is_over_is_told()
    local client = self.nginx:connect()
    client:send "GET /listens HTTP/1.0\r\n\r\n"
    lu.assertTrue(fixture.eventually(function() return fixture.sessions [[and query ilike 'listen%']] > 0 end))
    fixture.ask "notify news, 'hello'"
    local answer = client:receive "*a"
    client:close()
    lu.assertStrContains(answer, "hello")
    lu.assertTrue(fixture.eventually(function()
        local status, said = self.nginx:get "/stale"
        return status == 200 and said == "closed closed closed\n"
    end))
end

os.exit(lu.LuaUnit.run())
