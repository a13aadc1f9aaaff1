-- Two tenants on few connections, with aborts, timeouts and kills at random: nobody ever sees a foreign row, foreign claims
-- or a row of an earlier request's result. WEIR_LONG=1: 2 x 100 000 requests.

local fixture = require "ngxfixture"
local json = require "weir.json"
local lu = require "luaunit"
local socket = require "socket"

local REQUESTS = os.getenv "WEIR_LONG" and 100000 or 4000 -- of each tenant

local server = [[
    location = /notes { content_by_lua_block {
        local tenant, number = ngx.var.arg_t, ngx.var.arg_n
        local user = weir.db():anon({ sub = tenant, number = number })
        local sleep = ngx.var.arg_sleep or "0"
        local rows, err
        if ngx.var.arg_unit then
            rows, err = user:transaction(nil, function(tx)
                tx:query("select pg_sleep($1::float)", sleep)
                return tx:query("select owner, $1::text as number, current_setting('request.jwt.claims') as claims from notes", number)
            end, { timeout = 0.3 })
        else
            rows, err = user:with({ timeout = 0.3, readonly = true }):query(nil,
                "select owner, $1::text as number, current_setting('request.jwt.claims') as claims from notes, pg_sleep($2::float)",
                number, sleep)
        end
        if not rows then return weir.respond(err) end
        if #rows ~= 20 then return ngx.exit(555) end
        for _, row in ipairs(rows) do
            local claims = weir.json.decode(row.claims)
            if row.owner ~= tenant or row.number ~= number or claims.sub ~= tenant or claims.number ~= number then
                ngx.log(ngx.ALERT, "FOREIGN: ", tenant, " ", number, " ", weir.json.encode(row))
                return ngx.exit(556)
            end
        end
        ngx.say "ok"
    } }
    location = /killed { content_by_lua_block {
        local user = weir.db():anon({ sub = ngx.var.arg_t, number = "killed" })
        local thread = ngx.thread.spawn(function()
            user:query(nil, "select owner, 'killed' as number, current_setting('request.jwt.claims') as claims from notes, pg_sleep(0.05)")
        end)
        ngx.sleep(0.01)
        ngx.thread.kill(thread)
        ngx.say "killed"
    } }
]]

-- wrk with a random mixture: most ask and wait, some for too long, some are killed inside.
local mixture = [[
    local tenant, n = "%s", 0
    math.randomseed(%d)
    request = function()
        n = n + 1
        local dice = math.random(100)
        if dice <= 3 then return wrk.format("GET", "/killed?t=" .. tenant) end
        local sleep = dice <= 6 and "&sleep=0.4" or dice <= 20 and "&sleep=0.005" or ""
        local unit = dice %% 3 == 0 and "&unit=1" or ""
        return wrk.format("GET", ("/notes?t=%%s&n=%%s%%d%%s%%s"):format(tenant, tenant, n, sleep, unit))
    end
    function init() statuses = {} end
    function response(status) statuses[status] = (statuses[status] or 0) + 1 end
    local threads = {}
    function setup(thread) table.insert(threads, thread) end
    function done()
        for _, thread in ipairs(threads) do
            for status, count in pairs(thread:get "statuses") do print(("status %%d %%d"):format(status, count)) end
        end
    end
]]

TestIsolation = { tearDown = fixture.stop_all }

-- Clients that ask and go away before they have an answer.
local function abort_some(nginx, tenant, count)
    for i = 1, count do
        local client = nginx:connect()
        client:send(("GET /notes?t=%s&n=a%d&sleep=0.02%s HTTP/1.1\r\nHost: x\r\n\r\n"):format(tenant, i, i % 2 == 0 and "&unit=1" or ""))
        socket.sleep(0.002)
        client:close()
    end
end

local function load(nginx, tenant, seconds, seed)
    local script, output = nginx.folder .. "/" .. tenant .. ".lua", nginx.folder .. "/" .. tenant .. ".out"
    fixture.write(script, mixture:format(tenant, seed))
    os.execute(("{ wrk -t1 -c16 -d%ds --timeout 10s -s %s http://127.0.0.1:%d/; echo ended; } >%s 2>&1 &"):format(
        seconds, script, nginx.port, output))
    return function()
        return fixture.eventually(function()
            local said = fixture.read(output)
            return said:find "ended" and said
        end, seconds + 30)
    end
end

function TestIsolation:test_nobody_ever_sees_what_is_not_his()
    fixture.ask [[truncate notes; insert into notes
        select i, owner, repeat('x', 100) from generate_series(1, 20) i, (values ('ann'), ('bob')) as t(owner)]]
    local nginx = fixture.start {
        server = server, level = "alert",
        policy = fixture.policy "cancel_wait = 1, breaker = { min_calls = 1000000 }, retries = 0,",
        http = "lua_check_client_abort on; init_by_lua_block { weir = require 'resty.weir' }",
    }
    local asked = 0
    local statuses = {}
    while asked < 2 * REQUESTS do
        local ann, bob = load(nginx, "ann", 3, asked + 1), load(nginx, "bob", 3, asked + 2)
        abort_some(nginx, "ann", 60)
        abort_some(nginx, "bob", 60)
        for status, count in (ann() .. bob()):gmatch "status (%d+) (%d+)" do
            statuses[status] = (statuses[status] or 0) + tonumber(count)
            asked = asked + tonumber(count)
        end
    end
    lu.assertNil(statuses["555"], "a result of another length")
    lu.assertNil(statuses["556"], nginx:log())
    for status in pairs(statuses) do
        lu.assertTrue(status == "200" or status == "503" or status == "504", json.encode(statuses))
    end
    lu.assertTrue(statuses["200"] > REQUESTS, json.encode(statuses))
    lu.assertTrue((statuses["504"] or 0) > 20, "some were to be too slow: " .. json.encode(statuses))
    lu.assertTrue(fixture.eventually(function() return nginx:metric "weir_calls_in_flight" == 0 end))
    lu.assertEquals(nginx:alerts(), "")
    print(("# %d requests: %s"):format(asked, json.encode(statuses)))
    nginx:stop()
end

os.exit(lu.LuaUnit.run())
