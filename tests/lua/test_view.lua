-- What an operator sees and steers of an engine in Lua: db:view(), on every host and VM.

local lu = require "luaunit"
local weir = require "weir"

TestView = {}

function TestView:setUp()
    self.db = assert(weir.open {
        name = "seen", backends = { primary = "host=/nowhere" }, timeout = 0.5, retries = 0,
        clients = { anon = { max = 4, role = "web_anon" }, service = { max = 3, bypass_rls = true } },
    })
    self.view = self.db:view()
end

function TestView:tearDown()
    self.view:close()
    self.db:close()
end

function TestView:test_pools_calls_and_reasons_are_rows()
    lu.assertNil((self.db:service():query("GET /", "select 1")))
    local pools = self.view:pools()
    lu.assertEquals({ #pools, pools[1].pool, pools[2].pool, pools[2].max }, { 2, "anon@primary", "service@primary", 3 })
    lu.assertEquals(pools[2].calls.failed, 1)
    local calls = self.view:calls { failed = true, pool = "service" }
    lu.assertEquals({ #calls, calls[1].label, calls[1].code }, { 1, "GET /", "connect_failed" })
    lu.assertTrue(calls[1].age >= 0 and calls[1].age < 60, calls[1].age)
    local timeline = self.view:call(calls[1].id)
    lu.assertEquals(timeline[#timeline].what, "ends: connect_failed")
    lu.assertEquals(#self.view:calls { slower = 1000 }, 0)
    lu.assertStrContains(tostring(self.view:why "service"), "service@primary is ● closed")
    lu.assertEquals(self.view:labels()[1].label, "GET /")
    lu.assertEquals(#self.view:show "pools", 2)
    lu.assertEquals(self.view:show "pools"[1].breaker, "closed")
    lu.assertEquals(self.view:config().name, "seen")
end

function TestView:test_of_a_closed_breaker_it_tells_how_near_it_is()
    for _, case in ipairs {
        { {}, "next: 2 of 2 calls in the last 10 s failed, it opens at 50 % of 20 or more" },
        { { window_calls = 9, min_calls = 7, failure_rate = 0.125, slow_call = 30, slow_rate = 0.8, consecutive = 5 },
            "next: 2 of 2 calls failed, it opens at 12.5 % of 7 or more; 0 took longer than 30.0 s, it opens at 80 %; "
            .. "it opens after 5 failures in a row" },
        { { consecutive = 4 }, "next: it opens after 4 failures in a row" },
    } do
        local db = assert(weir.open { backends = { primary = "host=/nowhere" }, retries = 0, breaker = case[1],
            clients = { service = { bypass_rls = true } } })
        for _ = 1, 2 do db:service():query("GET /", "select 1") end
        local said = db:view():why "service"
        lu.assertEquals(said[#said], "  " .. case[2])
        db:close()
    end
end

function TestView:test_a_name_may_be_cut_short_where_that_is_clear()
    lu.assertEquals(self.view:pool("anon").pool, "anon@primary")
    local pool, err = self.view:pool "primary"
    lu.assertNil(pool)
    lu.assertEquals(err.code, "misuse")
    lu.assertStrContains(err.message, "anon@primary, service@primary")
end

function TestView:test_orders_are_in_force_when_they_return_and_say_how_to_undo_them()
    local done = self.view:resize("service", 2, "quiet night")
    lu.assertEquals({ done.carried_out, done.undo }, { 1, 'resize("service@primary", 3)' })
    lu.assertStrContains(tostring(done), "2 connections at most, was 3, in 1 of 1 worker")
    lu.assertEquals(self.view:pool("service").max, 2)
    self.view:force("service", "open", 60)
    lu.assertEquals(self.view:breaker("service").state, "FORCED_OPEN")
    local _, err = self.db:service():query("GET /", "select 1")
    lu.assertEquals(err.code, "breaker_open")
    self.view:reset "service"
    lu.assertEquals(self.view:breaker("service").state, "CLOSED")
    self.view:pause()
    lu.assertTrue(self.view:pool("anon").paused)
    self.view:resume()
    lu.assertFalse(self.view:pool("anon").paused)
    local events = self.view:events { kind = "operator", last = 3 }
    lu.assertEquals(#events, 3)
    lu.assertStrContains(self.view:events({ kind = "operator" })[1].text, "quiet night")
end

function TestView:test_orders_that_make_no_sense_change_nothing()
    for _, give in ipairs {
        function() return self.view:resize("service", 0) end,
        function() return self.view:resize("service", 1.5) end,
        function() return self.view:resize(nil, 3) end,
        function() return self.view:force("service", "ajar") end,
        function() return self.view:force("service", "open", -1) end,
        function() return self.view:pause "nobody" end,
        function() return self.view:kill "the last one" end,
        function() return self.view:show "fools" end,
    } do
        local done, err = give()
        lu.assertNil(done)
        lu.assertEquals(err.code, "misuse")
    end
    lu.assertEquals(self.view:pool("service").max, 3)
    lu.assertEquals(#self.view:events { kind = "operator" }, 0)
end

function TestView:test_a_filter_that_is_no_filter_is_misuse()
    lu.assertErrorMsgContains("there is no filter 'colour'", self.view.calls, self.view, { colour = "red" })
    lu.assertErrorMsgContains("last is a string", self.view.events, self.view, { last = "3" })
end

function TestView:test_where_there_is_no_area_there_is_no_view()
    local view, err = weir.attach "/nowhere/at.all"
    lu.assertNil(view)
    lu.assertEquals(err.code, "unreachable")
    lu.assertErrorMsgContains("the path of an area is missing", weir.attach)
end

os.exit(lu.LuaUnit.run(), true)
