-- What requests do beside asking and answering: HTTP/2, bodies larger than memory, going elsewhere with a call under way,
-- more of them than there are connections.

local fixture = require "ngxfixture"
local lu = require "luaunit"

local server = [[
    location = /content { content_by_lua_block {
        ngx.say(weir.db():service():query(nil, "select 42 as x")[1].x)
    } }
    location = /echo { content_by_lua_block {
        local rows, err = weir.db():service():query(nil, "select pg_sleep(0.01), $1::int as x", tonumber(ngx.var.arg_x))
        if not rows then return weir.respond(err) end
        ngx.say(rows[1].x)
    } }
    location = /pinged { content_by_lua_block { weir.db() ngx.say(package.loaded.pinged) } }
    location = /later { content_by_lua_block {
        ngx.sleep(0.5)
        local rows, err = weir.db():service():query(nil, "select 1 as x")
        ngx.sleep(0.5) -- and keeps what it has
        ngx.say(rows and "ok" or ("%s|%s|%s"):format(err.code, err.class, err.message))
    } }
    location = /slow { content_by_lua_block {
        weir.db():service():query(nil, "select pg_sleep(20), 'slow'")
    } }
    location = /body {
        client_max_body_size 64m;
        client_body_buffer_size 8k;
        access_by_lua_block { ngx.ctx.before = weir.db():service():query(nil, "select pg_sleep(0.05), 1 as x")[1].x }
        content_by_lua_block {
            ngx.req.read_body()
            local text = ngx.req.get_body_data()
            local name = ngx.req.get_body_file()
            if name then
                local file = io.open(name, "rb")
                text = file:read "*a"
                file:close()
            end
            local rows, err = weir.db():service():query(nil, "select length($1) as n, md5($1) as sum", text)
            if not rows then return weir.respond(err) end
            ngx.say(ngx.ctx.before, " ", rows[1].n, " ", rows[1].sum)
        }
    }
    location = /half_body {
        client_max_body_size 64m;
        content_by_lua_block {
            local thread = ngx.thread.spawn(function() weir.db():service():query(nil, "select pg_sleep(20), 'slow'") end)
            ngx.req.read_body()
            ngx.thread.wait(thread)
        }
    }
    location = /exec { content_by_lua_block {
        ngx.thread.spawn(function() weir.db():service():query(nil, "select pg_sleep(20), 'slow'") end)
        weir.db():service():query(nil, "select 1")
        ngx.exec(ngx.var.arg_to)
    } }
    location = /exit { error_page 503 @fallback; content_by_lua_block {
        ngx.thread.spawn(function() weir.db():service():query(nil, "select pg_sleep(20), 'slow'") end)
        weir.db():service():query(nil, "select 1")
        ngx.exit(503)
    } }
    location = /jump { rewrite_by_lua_block {
        weir.db():service():query(nil, "select 1")
        ngx.req.set_uri("/content", true)
    } }
    location = /sub_slow { content_by_lua_block { ngx.location.capture "/slow" } }
    location = /sub_exit { content_by_lua_block {
        ngx.location.capture "/exit"
        weir.db():service():query(nil, "select 1")
        ngx.say "after"
    } }
    location = /on_abort { content_by_lua_block {
        ngx.on_abort(function()
            weir.db():service():query(nil, "insert into log values ('aborted')")
            ngx.exit(499)
        end)
        weir.db():service():query(nil, "select pg_sleep(20), 'slow'")
    } }
    location = /fails { content_by_lua_block {
        ngx.thread.spawn(function() weir.db():service():query(nil, "select pg_sleep(20), 'slow'") end)
        weir.db():service():query(nil, "select 1")
        error "my own"
    } }
    location = /killed_unit { content_by_lua_block {
        local thread = ngx.thread.spawn(function()
            weir.db():with_service(nil, function(tx)
                tx:query("insert into log values ('never')")
                ngx.sleep(20)
            end)
        end)
        ngx.sleep(0.2)
        ngx.say(ngx.thread.kill(thread))
        ngx.sleep(tonumber(ngx.var.arg_then))
    } }
    location = /missing { error_page 404 = /content; return 404; }
    location @fallback { content_by_lua_block {
        ngx.say("fallback ", weir.db():service():query(nil, "select 43 as x")[1].x)
    } }
    location @slow { content_by_lua_block { weir.db():service():query(nil, "select pg_sleep(20), 'slow'") } }
]]

local http = "lua_check_client_abort on; init_by_lua_block { weir = require 'resty.weir' }"

local function running()
    return fixture.sessions "and (state = 'active' and query like '%slow%' or state like 'idle in%')"
end

local function is_at_rest(nginx)
    return running() == 0 and nginx:metric "weir_calls_in_flight" == 0 and nginx:metric "weir_waiters" == 0
end

local function assert_comes_to_rest(nginx, what)
    lu.assertTrue(fixture.eventually(function() return is_at_rest(nginx) end, 3), what .. " leaves something running")
end

local function tear_down(self)
    local alerts = self.nginx:alerts()
    fixture.stop_all()
    lu.assertEquals(alerts, "")
end

local function set_up(self)
    self.nginx = fixture.start { workers = 2, server = server, http = http,
        policy = fixture.policy "health = { interval = 0 }, cancel_wait = 2," }
end

-- ---- going elsewhere --------------------------------------------------------------------------------------------------

TestElsewhere = { setUp = set_up, tearDown = tear_down }

function TestElsewhere:test_a_request_that_goes_elsewhere_ends_the_calls_it_leaves_and_may_make_others()
    local ways = {
        { "/exec?to=/content", 200, "42\n" }, { "/exec?to=@fallback", 200, "fallback 43\n" },
        { "/exit", 503, "fallback 43\n" }, { "/jump", 200, "42\n" }, { "/missing", 200, "42\n" },
    }
    for _, way in ipairs(ways) do
        local status, body = self.nginx:get(way[1])
        lu.assertEquals({ status, body }, { way[2], way[3] }, way[1])
        assert_comes_to_rest(self.nginx, way[1])
    end
end

function TestElsewhere:test_a_client_that_goes_away_ends_what_was_begun_elsewhere()
    for _, path in ipairs { "/exec?to=/slow", "/exec?to=@slow" } do
        local client = self.nginx:connect()
        client:send(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(path))
        lu.assertTrue(fixture.eventually(function() return running() > 0 end), path)
        client:close()
        assert_comes_to_rest(self.nginx, path)
    end
end

function TestElsewhere:test_a_client_that_goes_away_ends_the_calls_of_subrequests()
    local client = self.nginx:connect()
    client:send "GET /sub_slow HTTP/1.1\r\nHost: x\r\n\r\n"
    lu.assertTrue(fixture.eventually(function() return running() > 0 end))
    client:close()
    lu.assertTrue(fixture.eventually(function() return is_at_rest(self.nginx) end, 3), "the subrequest's call runs on")
    lu.assertEquals((self.nginx:get "/content"), 200)
end

function TestElsewhere:test_a_subrequest_that_leaves_a_call_ends_it_and_the_request_goes_on()
    local status, body = self.nginx:get "/sub_exit"
    lu.assertEquals({ status, body }, { 200, "after\n" })
    assert_comes_to_rest(self.nginx, "/sub_exit")
end

function TestElsewhere:test_a_handler_of_aborts_may_make_calls()
    fixture.ask "truncate log"
    local client = self.nginx:connect()
    client:send "GET /on_abort HTTP/1.1\r\nHost: x\r\n\r\n"
    lu.assertTrue(fixture.eventually(function() return running() > 0 end))
    client:close()
    assert_comes_to_rest(self.nginx, "/on_abort")
    lu.assertEquals(fixture.ask "select line from log", "aborted")
end

function TestElsewhere:test_code_that_fails_ends_the_calls_of_its_threads()
    lu.assertEquals((self.nginx:get "/fails"), 500)
    assert_comes_to_rest(self.nginx, "/fails")
end

function TestElsewhere:test_a_unit_whose_thread_is_killed_between_statements_ends_with_the_request_or_its_deadline()
    fixture.ask "truncate log"
    lu.assertEquals((self.nginx:get "/killed_unit?then=0.01"), 200)
    assert_comes_to_rest(self.nginx, "a killed unit of a request that ended")
    local client = self.nginx:connect()
    client:send "GET /killed_unit?then=9 HTTP/1.1\r\nHost: x\r\n\r\n"
    lu.assertTrue(fixture.eventually(function() return running() > 0 end))
    lu.assertTrue(fixture.eventually(function() return is_at_rest(self.nginx) end, 7), "the unit outlives its deadline")
    client:close()
    lu.assertEquals(fixture.ask "select count(*) from log", "0")
end

-- ---- bodies -----------------------------------------------------------------------------------------------------------

TestBodies = { setUp = set_up, tearDown = tear_down }

function TestBodies:test_a_large_body_that_arrives_while_a_call_waits_arrives_whole()
    local text = ("0123456789abcdef"):rep(512 * 1024) -- 8 MiB
    local sum = fixture.ask "select md5(repeat('0123456789abcdef', 512 * 1024))"
    for _ = 1, 3 do
        local status, body = self.nginx:request("POST", "/body", {}, text)
        lu.assertEquals({ status, body }, { 200, ("1 %d %s\n"):format(#text, sum) })
    end
end

function TestBodies:test_a_client_that_goes_away_with_half_a_body_ends_the_call_beside_it()
    local client = self.nginx:connect()
    client:send("POST /half_body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" .. ("x"):rep(100000))
    lu.assertTrue(fixture.eventually(function() return running() > 0 end))
    client:close()
    assert_comes_to_rest(self.nginx, "half a body")
end

-- ---- HTTP/2 -----------------------------------------------------------------------------------------------------------

TestHttp2 = { tearDown = tear_down }

function TestHttp2:setUp()
    self.nginx = fixture.start { workers = 2, server = server,
        http = http .. " server { listen unix:@FOLDER@/http2 http2; " .. server .. " }",
        policy = fixture.policy "health = { interval = 0 }, cancel_wait = 2," }
end

-- Frames of RFC 9113: length in 24 bits, type, flags, stream.
local DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8

local function frame(kind, flags, stream, payload)
    return string.pack(">I3BBI4", #payload, kind, flags, stream) .. payload
end

-- A header that is neither indexed nor compressed (RFC 7541, 6.2.2).
local function literal(name, value)
    return "\0" .. string.pack("s1s1", name, value)
end

local function head(stream, method, path, with_body)
    return frame(HEADERS, with_body and 4 or 5, stream, literal(":method", method) .. literal(":scheme", "http")
        .. literal(":path", path) .. literal(":authority", "x"))
end

function TestHttp2:connect()
    local unix = require "socket.unix"
    local client = assert(unix())
    assert(client:connect(self.nginx.folder .. "/http2"))
    client:settimeout(10)
    client:send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" .. frame(SETTINGS, 0, 0, ""))
    return client
end

-- Reads frames until `count` streams have ended: their bodies by stream.
local function answers(client, count)
    local bodies, ended = {}, 0
    while ended < count do
        local length, kind, flags, stream = string.unpack(">I3BBI4", assert(client:receive(9)))
        local payload = length > 0 and assert(client:receive(length)) or ""
        if kind == DATA then bodies[stream] = (bodies[stream] or "") .. payload end
        if kind == RST_STREAM then bodies[stream] = "reset" end
        if kind == RST_STREAM or kind <= HEADERS and flags & 1 == 1 then ended = ended + 1 end
    end
    return bodies
end

function TestHttp2:test_each_stream_of_a_connection_gets_its_own_answer()
    local client, requests = self:connect(), {}
    for i = 1, 100 do requests[i] = head(2 * i - 1, "GET", "/echo?x=" .. i) end
    client:send(table.concat(requests))
    local bodies = answers(client, 100)
    for i = 1, 100 do lu.assertEquals(bodies[2 * i - 1], i .. "\n") end
    client:close()
end

function TestHttp2:test_a_stream_that_is_given_up_ends_its_call_and_no_other()
    local client = self:connect()
    client:send(head(1, "GET", "/slow") .. head(3, "GET", "/slow"))
    lu.assertTrue(fixture.eventually(function() return running() == 2 end))
    client:send(frame(RST_STREAM, 0, 1, string.pack(">I4", 8)))
    lu.assertTrue(fixture.eventually(function() return running() == 1 end, 3), "the call of stream 1 runs on")
    client:send(head(5, "GET", "/content"))
    lu.assertEquals(answers(client, 1), { [5] = "42\n" })
    lu.assertEquals(running(), 1)
    client:close()
    assert_comes_to_rest(self.nginx, "a closed connection")
end

function TestHttp2:test_a_body_that_arrives_while_a_call_waits_arrives_whole()
    local text = ("0123456789abcdef"):rep(1024) -- as much as a window lets through in advance, twice
    local sum = fixture.ask "select md5(repeat('0123456789abcdef', 2048))"
    local client = self:connect()
    client:send(head(1, "POST", "/body", true) .. frame(DATA, 0, 1, text) .. frame(WINDOW_UPDATE, 0, 0, "\0\0\1\0"))
    client:send(frame(DATA, 1, 1, text))
    lu.assertEquals(answers(client, 1), { [1] = ("1 %d %s\n"):format(2 * #text, sum) })
    client:close()
end

-- ---- too many -----------------------------------------------------------------------------------------------------------

TestScarcity = { tearDown = fixture.stop_all }

function TestScarcity:test_a_worker_without_free_connections_refuses_calls_and_recovers()
    self.nginx = fixture.start { workers = 1, server = server, http = http, connections = 24,
        policy = fixture.policy "retries = 0, timeout = 2," }
    local clients = {}
    for i = 1, 30 do
        clients[i] = self.nginx:connect()
        clients[i]:send("GET /echo?x=1 HTTP/1.0\r\n\r\n")
    end
    for i = 1, 30 do
        local status = fixture.parse(clients[i]:receive "*a")
        lu.assertTrue(status == nil or status == 200 or status == 503 or status == 504, status)
        clients[i]:close()
    end
    lu.assertTrue(fixture.eventually(function() return self.nginx:get "/content" == 200 end))
    assert_comes_to_rest(self.nginx, "scarcity")
    lu.assertEquals(self.nginx:alerts "worker_connections are not enough", "")
end

function TestScarcity:test_what_nginx_has_no_connections_for_is_not_held_against_the_database()
    self.nginx = fixture.start { workers = 1, server = server, http = http, connections = 24,
        policy = fixture.policy [[retries = 0, breaker = { consecutive = 2 }, health = { interval = 0.2,
            checks = { ping = function() package.loaded.pinged = "yes" return true end } },]] }
    local clients, refused = {}, 0
    for i = 1, 30 do
        clients[i] = self.nginx:connect()
        clients[i]:send "GET /later HTTP/1.0\r\n\r\n"
    end
    for i = 1, 30 do
        local _, said = fixture.parse(clients[i]:receive "*a") -- nil: nginx had no connection for it
        clients[i]:close()
        if said and said ~= "ok\n" then
            refused = refused + 1
            lu.assertStrContains(said, "connect_failed|safe|")
            lu.assertStrContains(said, "worker_connections of nginx")
        end
    end
    lu.assertTrue(refused >= 3, refused .. " were refused")
    for _, pool in ipairs(self.nginx:document "stats.json".pools) do
        lu.assertEquals(pool.breaker.state, "CLOSED")
        lu.assertEquals(pool.breaker.failures, 0)
    end
    lu.assertTrue(fixture.eventually(function() return self.nginx:get "/content" == 200 end))
    -- nginx threw the handler of the policy's own checks away, too; it is asked for again.
    lu.assertTrue(fixture.eventually(function()
        return select(2, self.nginx:get "/pinged") == "yes\n"
    end))
    lu.assertEquals(self.nginx:alerts("worker_connections are not enough", "could not create fake connection"), "")
end

os.exit(lu.LuaUnit.run())
