-- Large results, thousands that wait, clients that go away: memory stays flat and no descriptor is left. WEIR_LONG=1: 5 000
-- that wait and 100 samples.

local fixture = require "ngxfixture"
local lu = require "luaunit"
local socket = require "socket"

local long = os.getenv "WEIR_LONG" ~= nil
local WAITING, SAMPLES = long and 5000 or 1000, long and 100 or 24

local server = [[
    location = /large { content_by_lua_block {
        local rows, err = weir.db():service():query(nil, "select repeat('x', 1048576) as x from generate_series(1, 24)")
        if not rows then return weir.respond(err) end
        local size = 0
        for _, row in ipairs(rows) do size = size + #row.x end
        ngx.say(size)
        rows = nil
        collectgarbage()
    } }
    location = /slow { content_by_lua_block {
        local rows, err = weir.db():service():query(nil, "select pg_sleep(0.002), 1 as x")
        if not rows then return weir.respond(err) end
        ngx.say(rows[1].x)
    } }
    location = /access { access_by_lua_block { weir.db():service():query(nil, "select pg_sleep(0.5)") }
        content_by_lua_block { ngx.say "x" } }
    location = /rewrite { rewrite_by_lua_block { weir.db():service():query(nil, "select pg_sleep(0.5)") }
        content_by_lua_block { ngx.say "x" } }
    location = /content { content_by_lua_block { weir.db():service():query(nil, "select pg_sleep(0.5)") } }
    location = /unit { content_by_lua_block {
        weir.db():with_service(nil, function(tx) tx:query("select pg_sleep(0.5)") end)
    } }
    location = /gc { content_by_lua_block { collectgarbage() collectgarbage() ngx.say(collectgarbage "count") } }
]]

TestMemory = { tearDown = fixture.stop_all }

function TestMemory:setUp()
    self.nginx = fixture.start {
        workers = 1, server = server, level = "warn",
        policy = fixture.policy "timeout = 60, health = { interval = 0 }, cancel_wait = 5, prepared = 16,",
        http = "lua_check_client_abort on; init_by_lua_block { weir = require 'resty.weir' }",
    }
    self.worker = self.nginx:workers()[1]
end

function TestMemory:settle()
    lu.assertTrue(fixture.eventually(function() return self.nginx:metric "weir_calls_in_flight" == 0 end, 30))
    self.nginx:get "/gc"
    return fixture.usage(self.worker)
end

-- Kilobytes a round by which the middle of the second half of the samples lies above that of the first, ends left out.
local function slope(samples)
    local half = math.floor(#samples / 2)
    local function middle(from, to)
        local part = { table.unpack(samples, from, to) }
        table.sort(part)
        return part[math.floor(#part / 2) + 1]
    end
    return (middle(half + 1, #samples) - middle(1, half)) / half
end

-- Does it once to warm up, then over and over.
function TestMemory:assert_flat(round, allowed)
    local samples, fds = {}, nil
    for i = 1, 4 do round(i) self:settle() end
    for i = 1, SAMPLES do
        round(i)
        local rss, open = self:settle()
        samples[#samples + 1] = rss
        fds = fds or open
        lu.assertTrue(open <= fds + 2, ("%d descriptors, %d at first"):format(open, fds))
    end
    local grows = slope(samples)
    print(("# %.1f kB a round, from %d to %d kB"):format(grows, samples[1], samples[#samples]))
    lu.assertTrue(grows < allowed, ("grows by %.1f kB a round: %s"):format(grows, table.concat(samples, " ")))
    lu.assertEquals(self.nginx:alerts(), "")
end

function TestMemory:test_results_of_24_megabytes()
    self:assert_flat(function()
        local _, body = self.nginx:get "/large"
        lu.assertEquals(body, "25165824\n")
    end, 200)
end

function TestMemory:test_thousands_that_wait_get_their_answer()
    local before = select(2, fixture.usage(self.worker))
    local finish = self.nginx:wrk("/slow", WAITING, long and 40 or 6)
    local most, samples = 0, {}
    socket.sleep(long and 14 or 3) -- until each connection, and each call's memory, has been used a few times
    for _ = 1, long and 100 or 20 do
        socket.sleep(long and 0.25 or 0.15)
        most = math.max(most, self.nginx:metric "weir_waiters" or 0)
        samples[#samples + 1] = fixture.usage(self.worker)
    end
    local result = finish()
    lu.assertEquals(result.errors, { connect = 0, read = 0, write = 0, timeout = 0 })
    for status in pairs(result.statuses) do lu.assertEquals(status, 200) end
    lu.assertTrue(most > WAITING * 0.9, "so many waited at once: " .. most)
    print(("# %d waited at once, %d to %d kB"):format(most, samples[1], samples[#samples]))
    lu.assertTrue(slope(samples) < (long and 8 or 60), table.concat(samples, " "))
    self:settle()
    local left = function() return select(2, fixture.usage(self.worker)) <= before + 24 end -- the pool's own, and its crew's
    lu.assertTrue(fixture.eventually(left), ("%d descriptors, %d before"):format(select(2, fixture.usage(self.worker)), before))
    lu.assertEquals(self.nginx:alerts(), "")
end

function TestMemory:test_clients_that_go_away_in_each_phase()
    local paths = { "/access", "/rewrite", "/content", "/unit" }
    self:assert_flat(function()
        local clients = {}
        for i = 1, 100 do
            clients[i] = assert(self.nginx:connect())
            clients[i]:send(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(paths[i % 4 + 1]))
        end
        socket.sleep(0.02)
        for _, client in ipairs(clients) do client:close() end
    end, 30)
end

os.exit(lu.LuaUnit.run())
