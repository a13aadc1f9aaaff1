-- handle:listen: notifications in Lua. Waiting parks, what is missed is told, and nothing keeps a listener that
-- nobody holds.

local lu = require "luaunit"
local weir = require "weir"
local fixture = require "fixture"

local db

local function send(channel, payload)
    assert(db:service():query("sends", "select pg_notify($1, $2)", channel, payload))
end

local function payloads(listener, count)
    local all = {}
    for i = 1, count do
        local n, err = listener:wait(5)
        if not n then error(tostring(err)) end
        all[i] = n.payload
    end
    return all
end

local function code_of(listener, seconds)
    local n, err = listener:wait(seconds)
    return n and n.payload or err.code
end

local function kill_listeners()
    assert(fixture.server():sql [[
        select pg_terminate_backend(pid) from pg_stat_activity
            where query ilike '%listen "%' and pid <> pg_backend_pid()
    ]])
end

TestListen = {}

function TestListen.setUp()
    db = fixture.open()
end

function TestListen.tearDown()
    lu.assertEquals(fixture.leftovers(db), "")
    db:close()
end

function TestListen.test_notifications_come_in_order_with_channel_payload_and_pid()
    local l = assert(db:service():listen("news", 'Odd "Näme"'))
    send("news", "one")
    send('Odd "Näme"', "two")
    send("elsewhere", "not for us")
    send("news", "")
    local n = l:wait(5)
    lu.assertEquals(n.channel, "news")
    lu.assertEquals(n.payload, "one")
    lu.assertTrue(n.pid > 0)
    lu.assertEquals(l:wait(5).channel, 'Odd "Näme"')
    lu.assertEquals(l:wait(5).payload, "")
    lu.assertEquals(code_of(l, 0.02), "timeout")
    l:close()
end

function TestListen.test_a_payload_of_7999_bytes_comes_whole()
    local l = assert(db:service():listen("news"))
    local long = ("xyz"):rep(2666) .. "!"
    send("news", long)
    lu.assertEquals(l:wait(5).payload, long)
    l:close()
end

function TestListen.test_others_run_while_one_waits()
    local l = assert(db:service():listen("news"))
    local order = {}
    weir.gather(function()
        local n = l:wait(5)
        order[#order + 1] = n.payload
    end, function()
        weir.sleep(0.01)
        order[#order + 1] = "others ran"
        send("news", "heard")
    end)
    lu.assertEquals(order, { "others ran", "heard" })
    l:close()
end

function TestListen.test_of_several_who_wait_each_gets_his_own()
    local l, got = assert(db:service():listen("news")), {}
    local function one()
        local n = l:wait(5)
        got[n.payload] = true
    end
    weir.gather(one, one, one, function()
        weir.sleep(0.01)
        for _, payload in ipairs { "a", "b", "c" } do send("news", payload) end
    end)
    lu.assertEquals(got, { a = true, b = true, c = true })
    l:close()
end

function TestListen.test_wait_0_takes_what_is_there()
    local l = assert(db:service():listen("news"))
    lu.assertEquals(code_of(l, 0), "timeout")
    send("news", "one")
    local n, patience = nil, weir.now() + 5
    while not n and weir.now() < patience do n = l:wait(0) end
    lu.assertEquals(n.payload, "one")
    l:close()
end

function TestListen.test_a_lost_connection_is_one_gap_and_it_goes_on()
    local l = assert(db:service():listen("news"))
    send("news", "before")
    lu.assertEquals(payloads(l, 1), { "before" })
    kill_listeners()
    lu.assertEquals(code_of(l, 5), "gap")
    lu.assertEquals(l:state(), "listening")
    send("news", "after")
    lu.assertEquals(payloads(l, 1), { "after" })
    lu.assertEquals(code_of(l, 0.02), "timeout")
    l:close()
end

function TestListen.test_what_the_queue_has_no_room_for_is_a_gap_where_it_was_missed()
    local l = assert(db:service():listen("news", { queue = 3 }))
    for i = 1, 5 do send("news", tostring(i)) end
    send("other", "by now all have come")
    weir.sleep(0.05)
    lu.assertEquals(payloads(l, 3), { "1", "2", "3" })
    send("news", "6")
    weir.sleep(0.05)
    lu.assertEquals(code_of(l, 5), "gap")
    lu.assertEquals(code_of(l, 5), "6")
    lu.assertEquals(code_of(l, 0.02), "timeout")
    l:close()
end

function TestListen.test_channels_come_and_go()
    local l = assert(db:service():listen("news"))
    lu.assertTrue(l:listen("more"))
    lu.assertTrue(l:unlisten("news"))
    send("news", "no")
    send("more", "yes")
    lu.assertEquals(payloads(l, 1), { "yes" })
    l:close()
    local ok, err = l:listen("again")
    lu.assertNil(ok)
    lu.assertEquals(err.code, "closed")
end

function TestListen.test_each_goes_on_until_it_is_closed()
    local l, got = assert(db:service():listen("news")), {}
    weir.gather(function()
        for n in l:each() do got[#got + 1] = n.payload or n.gap and "gap" end
    end, function()
        send("news", "one")
        weir.sleep(0.05)
        kill_listeners()
        while l:state() ~= "lost" do weir.sleep(0.001) end
        while l:state() ~= "listening" do weir.sleep(0.001) end
        send("news", "two")
        weir.sleep(0.05)
        l:close()
    end)
    lu.assertEquals(got, { "one", "gap", "two" })
    lu.assertEquals(code_of(l, 5), "closed")
end

function TestListen.test_closing_wakes_who_waits_and_so_does_the_engines_end()
    local l = assert(db:service():listen("news"))
    local task = weir.spawn(function() return code_of(l) end)
    weir.sleep(0.01)
    l:close()
    lu.assertEquals(task:join(), "closed")
    l = assert(db:service():listen("news"))
    task = weir.spawn(function() return code_of(l) end)
    weir.sleep(0.01)
    db:drain(1)
    lu.assertEquals(task:join(), "closed")
    local none, err = db:service():listen("news")
    lu.assertNil(none)
    lu.assertEquals(err.code, "draining")
end

function TestListen.test_a_cancelled_task_stops_waiting()
    local l = assert(db:service():listen("news"))
    local task = weir.spawn(function() l:wait() end)
    weir.sleep(0.01)
    task:cancel()
    local ok, err = task:wait()
    lu.assertFalse(ok)
    lu.assertEquals(err.code, "cancelled")
    send("news", "one")
    lu.assertEquals(payloads(l, 1), { "one" })
    l:close()
end

function TestListen.test_a_listener_nobody_holds_gives_its_connection_back()
    for _ = 1, 5 do assert(db:service():listen("news")) collectgarbage() collectgarbage() weir.sleep(0.02) end
    collectgarbage()
    collectgarbage()
    lu.assertEquals(fixture.leftovers(db), "")
end

function TestListen.test_a_full_pool_is_an_error_after_a_while()
    local narrow = fixture.open { acquire_timeout = 1 }
    local service = narrow:service()
    local one, two = assert(service:begin "holds"), assert(service:begin "holds the other")
    local l, err = service:listen("news")
    lu.assertNil(l)
    lu.assertEquals(err.code, "acquire_timeout")
    lu.assertStrContains(tostring(err), "all are in use")
    one:rollback()
    assert(service:listen("news")):close()
    two:rollback()
    lu.assertEquals(fixture.leftovers(narrow), "")
    narrow:close()
end

function TestListen.test_no_server_is_an_error()
    local lost = fixture.open { backends = { primary = "host=/nowhere port=1" } }
    local l, err = lost:service():listen("news")
    lu.assertNil(l)
    lu.assertEquals(err.code, "connect_failed")
    lost:close()
end

function TestListen.test_misuse_is_raised_at_the_callers_line()
    local service = db:service()
    lu.assertStrContains(fixture.raised(function() service:listen() end), "test_listen.lua")
    lu.assertStrContains(fixture.raised(service.listen, service), "no channel is named")
    lu.assertStrContains(fixture.raised(service.listen, service, 7), "must be a string")
    lu.assertStrContains(fixture.raised(service.listen, service, "a", { que = 1 }), "unknown option 'que'")
    lu.assertStrContains(fixture.raised(service.listen, service, "a", { queue = 0 }), "1 .. 1000000")
    lu.assertStrContains(fixture.raised(service.listen, service, ("x"):rep(64)), "63 bytes")
    lu.assertStrContains(fixture.raised(service.listen, service, "a\0b"), "NUL")
    local anon = db:anon { sub = "ann" }
    lu.assertStrContains(fixture.raised(anon.listen, anon, "a"), "row-level security")
    local l = assert(service:listen("news"))
    lu.assertStrContains(fixture.raised(l.wait, l, -1), "wait(-1)")
    l:close()
end

function TestListen.test_behind_a_pooler_it_is_misuse()
    local url = fixture.server():url()
    local pooled = fixture.open { backends = { primary = { conninfo = url, pooler = true } } }
    local service = pooled:service()
    lu.assertStrContains(fixture.raised(service.listen, service, "a"), "pooler")
    pooled:close()
end

function TestListen.test_thousands_keep_their_order_and_leave_no_memory()
    local l = assert(db:service():listen("numbers", { queue = 5000 }))
    local expected = 0
    local sql = "select count(pg_notify('numbers', n::text)) from generate_series(1, 2000) n"
    local function round()
        assert(db:service():query("sends", sql))
        for i = 1, 2000 do
            if l:wait(5).payload ~= tostring(i) then error("out of order") end
            expected = expected + 1
        end
        collectgarbage()
        collectgarbage()
        return collectgarbage("count")
    end
    round()
    local before = round()
    for _ = 1, 8 do round() end
    lu.assertTrue(round() < before + 64)
    lu.assertEquals(expected, 22000)
    l:close()
end

os.exit(lu.LuaUnit.run())
