-- HTTP clients that misbehave, beside calls that go on: each is cut off, newcomers are served all the same, and no call
-- fails. Each limit of time is waited for once, all of them together.

local lu = require "luaunit"
local socket = require "socket"
local serving = require "serving"
local testing = require "weir.testing"

local CROWD = 1000
local CONTEXTS = 60 -- long ones: what a stream tells each second is large

local pg, server

-- Calls all the time, eight at once.
local function policy(url)
    return ([[
        local weir = require "weir"
        local db = assert(weir.open { name = "busy", backends = { primary = %q }, timeout = 10, retries = 0,
            clients = { service = { bypass_rls = true, max = 8 } } })
        for task = 1, 8 do
            weir.spawn(function()
                local n = task
                while true do
                    n = n + 1
                    db:service():query("GET /" .. ("long"):rep(20) .. n %% %d, "select 1")
                    weir.sleep(0.002)
                end
            end)
        end
        return db
    ]]):format(url, CONTEXTS)
end

local function set_up()
    pg = assert(testing.postgres { name = "hostile" })
    server = serving.serve(policy(pg:url()))
end

local function tear_down()
    if server then lu.assertEquals(server:stop(), 0) end
    if pg then pg:close() end
    server, pg = nil, nil
end

local function calls(outcomes)
    local _, _, body = server:get "/metrics"
    local total = 0
    for outcome, value in body:gmatch '\nweir_calls_total{[^\n]*outcome="(%w+)"} (%d+)' do
        if outcomes[outcome] then total = total + tonumber(value) end
    end
    return total
end

local BAD = { failed = true, rejected = true, timeout = true, unknown = true, cancelled = true }

local function descriptors()
    local pipe = io.popen(("ls /proc/%d/fd | wc -l"):format(server.pid))
    local count = tonumber(pipe:read "a")
    pipe:close()
    return count
end

-- Connections that the server holds open, as the kernel knows it: nobody has to read from them to find out.
local function held()
    local port, count = (":%04X$"):format(server.port), 0
    for line in serving.read "/proc/net/tcp":gmatch "[^\n]+" do
        local name, state = line:match "^%s*%d+: (%S+) %S+ (%S+)"
        if name and name:find(port) and state == "01" then count = count + 1 end
    end
    return count
end

TestHostile = { setUp = set_up, tearDown = tear_down }

function TestHostile.test_a_thousand_connections_are_borne_and_a_newcomer_is_served()
    local crowd = {}
    for i = 1, CROWD do
        crowd[i] = server:connect()
        crowd[i]:send(i % 2 == 0 and "GET /metrics HT" or "")
    end
    lu.assertEquals((server:get "/livez"), 200)
    lu.assertTrue(descriptors() < 500, "descriptors of the server")
    lu.assertEquals(calls(BAD), 0)
    lu.assertTrue(calls { ok = true } > 0)
    for _, connection in ipairs(crowd) do connection:close() end
end

function TestHostile.test_a_huge_header_is_refused()
    local connection = server:connect()
    local status = serving.exchange(connection, "GET /livez HTTP/1.1\r\nHost: x\r\nX: " .. ("y"):rep(100000) .. "\r\n\r\n")
    lu.assertTrue(status == nil or status == 431 or status == 413 or status == 400, tostring(status))
    connection:close()
    for _, rubbish in ipairs { "\0\1\2\r\n\r\n", "GET\r\n\r\n", ("\r\n"):rep(100), "GET /livez HTTP/9.9\r\n\r\n" } do
        local other = server:connect()
        other:send(rubbish)
        other:close()
    end
    lu.assertEquals((server:get "/livez"), 200)
end

function TestHostile.test_many_large_documents_at_once_are_answered_or_put_off()
    local connections, put_off = {}, 0
    serving.wait(function() return calls { ok = true } > 3000 end, "calls")
    for i = 1, 50 do
        connections[i] = server:connect()
        local requests = {}
        for k = 1, 10 do requests[k] = serving.request(("/stats.json?nonce=%d"):format(10 * i + k)) end
        connections[i]:send(table.concat(requests)) -- no two alike
    end
    for k = 1, 10 * #connections do
        local status, headers = serving.exchange(connections[(k - 1) // 10 + 1], "")
        lu.assertTrue(status == 200 or status == 503, tostring(status))
        if status == 503 then lu.assertNotNil(headers["retry-after"]) end
        put_off = put_off + (status == 503 and 1 or 0)
    end
    for _, connection in ipairs(connections) do connection:close() end
    lu.assertTrue(put_off > 0, "requests put off")
    lu.assertEquals((server:get "/health"), 200)
    lu.assertEquals(calls(BAD), 0)
end

function TestHostile.test_who_is_slow_is_cut_off_and_no_call_fails()
    local half, trickle, idle = server:connect(), server:connect(), server:connect()
    half:send "GET /metrics HTTP/1.1\r\nHost: x\r\n"
    local slow, stream = server:connect(), server:connect()
    slow:send((serving.request "/"):rep(500)) -- tens of megabytes that nobody reads
    stream:send(serving.request "/events") -- and a hundred kilobytes each second
    lu.assertTrue(serving.wait(function() return held() >= 5 end))
    serving.wait(function()
        trickle:send "x" -- a byte now and then is no request
        return held() == 0
    end, "that all are cut off", 45)
    lu.assertEquals(calls(BAD), 0)
    for _, connection in ipairs { half, trickle, idle, slow, stream } do connection:close() end
end

os.exit(lu.LuaUnit.run())
