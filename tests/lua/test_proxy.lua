-- weir.testing.proxy: a real PostgreSQL, the real engine, and a network that fails between them.

local lu = require "luaunit"
local testing = require "weir.testing"
local weir = require "weir"
local fixture = require "fixture"

local proxy, db

local function open(more)
    local options = fixture.options(more)
    options.backends = { primary = proxy:url() }
    db = assert(weir.open(options))
    return db:service()
end

local function set_up()
    fixture.server()
    proxy = assert(testing.proxy { to = fixture.server() })
end

local function tear_down()
    if db then db:close() end
    db = nil
    proxy:close()
end

local function lines_of(name)
    return fixture.server():sql(("select count(*) from log where line = '%s'"):format(name))
end

local function timed(fn, ...)
    local before = weir.now()
    local result, err = fn(...)
    return weir.now() - before, result, err
end

-- One unit of work that leaves a line behind.
local function write_line(name, options)
    local runs = 0
    local ok, err = db:with_service("write", function(tx)
        runs = runs + 1
        tx:query("insert into log values ($1)", name)
        return true
    end, options)
    return ok, err, runs
end

TestPassing = { setUp = set_up, tearDown = tear_down }

function TestPassing.test_calls_go_through_unchanged()
    local service = open()
    lu.assertEquals(service:query("sum", "select 6 * 7 as x"), { { x = 42 } })
    lu.assertEquals(db:anon({ sub = "ann" }):query("rls", "select count(*) as n from contacts")[1].n, 2)
    lu.assertTrue((write_line "plain"))
    lu.assertEquals(lines_of "plain", "1")
    lu.assertEquals(proxy:connections(), 2)
    lu.assertEquals(proxy:stats().accepted, 2)
end

function TestPassing.test_large_answers_and_large_values_pass_whole()
    local service = open()
    local text = ("0123456789"):rep(300000)
    local row = assert(service:query("large", "select $1::text as t, length($1) as n", text))[1]
    lu.assertEquals(row.n, #text)
    lu.assertTrue(row.t == text)
    lu.assertEquals(#assert(service:query("rows", "select generate_series(1, 50000) as n")), 50000)
end

function TestPassing.test_many_callers_at_once()
    local service = open { clients = { service = { user = "app_service", bypass_rls = true, max = 20 } } }
    local tasks = {}
    for i = 1, 200 do
        tasks[i] = function() return service:query("many", "select $1::int as n, pg_sleep(0.002)", i)[1].n end
    end
    for i, packed in ipairs(weir.gather(tasks)) do lu.assertEquals(packed[1], i) end
    lu.assertEquals(proxy:connections(), 20)
end

function TestPassing.test_a_cancel_request_passes()
    local service = open()
    local took, _, err = timed(function()
        return service:with({ timeout = 0.2 }):query("slow", "select pg_sleep(30)")
    end)
    lu.assertEquals(err.code, "timeout")
    lu.assertTrue(took < 5)
    lu.assertEquals(fixture.leftovers(db), "")
    lu.assertEquals(fixture.server():sql [[select count(*) from pg_stat_activity
        where query like 'select pg_sleep(30)%' and state = 'active']], "0")
end

function TestPassing.test_the_end_of_the_client_is_passed_on()
    local service = open()
    service:query("begin", "select 1")
    db:close()
    local patience = weir.now() + 5
    while proxy:connections() > 0 and weir.now() < patience do weir.sleep(0.005) end
    lu.assertEquals(proxy:connections(), 0)
end

function TestPassing.test_a_server_on_tcp_is_reached_too()
    local pg = assert(testing.postgres { tcp = true })
    local second = assert(testing.proxy { to = pg })
    local other = assert(weir.open { backends = { primary = second:url() }, clients = {
        service = { user = "postgres", bypass_rls = true } }, health = { interval = 0 } })
    local rows = other:service():query("who", "select inet_server_addr()::text as at")
    lu.assertEquals(rows, { { at = "127.0.0.1/32" } })
    other:close()
    second:close()
    pg:close()
end

function TestPassing.test_a_server_that_is_gone_is_a_reset()
    local third = assert(testing.proxy { to = { host = "127.0.0.1", port = 1 } })
    local other = assert(weir.open { backends = { primary = third:url() }, clients = {
        service = { user = "postgres", bypass_rls = true } }, health = { interval = 0 }, timeout = 0.5 })
    local _, err = other:service():query("nobody", "select 1")
    lu.assertStrContains(tostring(err), "service@primary")
    other:close()
    third:close()
end

-- ---- a client of a few bytes ------------------------------------------------------------------------------

local function message(kind, body)
    local length = #body + 4
    return kind .. string.char(0, 0, (length - length % 256) / 256, length % 256) .. body
end

local function raw_client()
    local client = require("socket").tcp()
    assert(client:connect("127.0.0.1", proxy.port))
    client:settimeout(0)
    local told = ""
    local self = { socket = client }
    -- Sends it, and waits for so many ReadyForQuery; what came since the last time.
    function self.ask(bytes, answers)
        client:send(bytes)
        told = ""
        while answers > 0 do
            if not weir.poll(client, "r", 5) then return told end
            local some, why, part = client:receive(65536)
            told = told .. (some or part)
            answers = answers - select(2, (some or part):gsub("Z%z%z%z\5", ""))
            if why == "closed" then return told, "closed" end
        end
        return told
    end
    self.ask(message("", "\0\3\0\0user\0app_service\0database\0postgres\0\0"), 1)
    return self
end

function TestPassing.test_a_client_that_does_not_read_is_not_read_for()
    local client = raw_client()
    collectgarbage()
    local before = collectgarbage "count"
    client.ask(message("Q", "select repeat('x', 1000) from generate_series(1, 60000)\0"), 0)
    weir.sleep(0.5)
    lu.assertTrue(collectgarbage "count" - before < 20000, "of 60 MB")
    local bytes = 0
    while weir.poll(client.socket, "r", 0.5) do
        local some, _, part = client.socket:receive(1048576)
        bytes = bytes + #(some or part)
    end
    lu.assertTrue(bytes > 60000 * 1000 and bytes < 61000 * 1050, bytes)
    client.socket:close()
end

function TestPassing.test_messages_in_pieces_are_put_together()
    local client = raw_client()
    client.ask(message("Q", "begin\0"), 1)
    proxy:reset "after_commit"
    local bytes = message("Q", "insert into log values ('pieces')\0") .. message("Q", "\n COMMIT\0")
    for at = 1, #bytes do
        client.socket:send(bytes:sub(at, at))
        weir.sleep(0.001)
    end
    local told, why = client.ask("", 2)
    lu.assertStrContains(told, "INSERT 0 1")
    lu.assertNotStrContains(told, "COMMIT")
    lu.assertEquals(why, "closed")
    lu.assertEquals(lines_of "pieces", "1")
end

function TestPassing.test_a_commit_prepared_by_name_is_known_again()
    local client = raw_client()
    client.ask(message("P", "done\0commit\0\0\0") .. message("S", ""), 1)
    client.ask(message("Q", "begin; insert into log values ('named')\0"), 1)
    proxy:reset "at_commit"
    local _, why = client.ask(message("B", "\0done\0\0\0\0\0\0\0") .. message("E", "\0\0\0\0\0")
        .. message("S", ""), 1)
    lu.assertEquals(why, "closed")
    lu.assertEquals(lines_of "named", "0")
end

function TestPassing.test_who_asks_for_tls_is_told_that_there_is_none()
    local client = require("socket").tcp()
    assert(client:connect("127.0.0.1", proxy.port))
    client:settimeout(0)
    client:send "\0\0\0\8\4\210\22\47"
    lu.assertEquals(weir.poll(client, "r", 5), "r")
    lu.assertEquals(client:receive(1), "N")
    client:close()
end

function TestPassing.test_what_is_no_postgresql_is_reset()
    local client = require("socket").tcp()
    assert(client:connect("127.0.0.1", proxy.port))
    client:settimeout(0)
    client:send "GET / HTTP/1.0\r\n\r\n"
    lu.assertEquals(weir.poll(client, "r", 5), "r")
    lu.assertEquals({ client:receive(1) }, { nil, "closed", "" })
    client:close()
end

TestFaults = { setUp = set_up, tearDown = tear_down }

function TestFaults.test_latency_is_added_each_way()
    local service = open()
    service:query("warm", "select 1")
    proxy:latency(0.05)
    local took = timed(service.query, service, "slow", "select 1")
    lu.assertTrue(took >= 0.1 and took < 1, took)
    proxy:latency(0)
    lu.assertTrue((timed(service.query, service, "quick", "select 1")) < 0.05)
end

function TestFaults.test_what_vanished_arrives_when_the_hole_closes()
    local service = open()
    service:query("warm", "select 1")
    proxy:black_hole(true)
    weir.spawn(function()
        weir.sleep(0.1)
        proxy:black_hole(false)
    end)
    local took, rows = timed(service.query, service, "late", "select 1 as x")
    lu.assertEquals(rows, { { x = 1 } })
    lu.assertTrue(took >= 0.1)
end

function TestFaults.test_a_call_into_a_black_hole_ends_by_its_deadline()
    local service = open { timeout = 0.3 }
    service:query("warm", "select 1")
    proxy:black_hole(true)
    local took, _, err = timed(service.query, service, "lost", "select 1")
    lu.assertEquals(err.code, "timeout")
    lu.assertTrue(took < 2)
    proxy:black_hole(false)
    weir.sleep(0) -- what waited in the hole has begun a connection, and closing finds its tasks not yet begun
end

function TestFaults.test_a_connection_forgotten_in_the_hole_stays_silent()
    local service = open { timeout = 0.3, cancel_wait = 0.1, connect_timeout = 0.5 }
    service:query("warm", "select 1")
    proxy:black_hole(true)
    proxy:black_hole(false, true)
    local _, err = service:query("lost", "select 1")
    lu.assertEquals(err.code, "timeout")
    weir.sleep(0.3)
    lu.assertNotNil(service:query("on a new one", "select 1"))
end

-- What a reset does to a unit of work: the phase, how often it ran, and what is there in the end.
local fates = {
    { "before_send", runs = 2, lines = "1" },
    { "after_send", runs = 2, lines = "1" },
    { "before_answer", runs = 2, lines = "1" },
    { "at_commit", runs = 2, lines = "1" },
    { "after_commit", runs = 1, lines = "1" },
}

for _, fate in ipairs(fates) do
    TestFaults["test_a_reset_" .. fate[1] .. "_is_repaired_by_the_engine"] = function()
        local service = open()
        service:query("warm", "select 1")
        proxy:reset(fate[1], { count = 1 })
        local ok, err, runs = write_line(fate[1])
        lu.assertTrue(ok, tostring(err))
        lu.assertEquals(runs, fate.runs)
        lu.assertEquals(lines_of(fate[1]), fate.lines)
        lu.assertEquals(proxy:stats().struck, 1)
    end
end

function TestFaults.test_the_answer_to_a_single_write_is_lost_and_the_write_is_not()
    local service = open()
    service:query("warm", "select 1")
    proxy:reset("before_answer", { count = 1 })
    local _, err = service:query("write", "insert into log values ('single')")
    lu.assertEquals(err.outcome, "unknown")
    lu.assertEquals(lines_of "single", "1")
end

function TestFaults.test_a_request_lost_before_it_was_sent_is_not_executed()
    local service = open { retries = 0 }
    service:query("warm", "select 1")
    for _, phase in ipairs { "before_send", "after_send" } do
        proxy:reset(phase, { count = 1 })
        local ok, err = service:query("write", "insert into log values ('never')")
        lu.assertNil(ok)
        lu.assertNotNil(err)
    end
    lu.assertEquals(lines_of "never", "0")
end

function TestFaults.test_a_rate_strikes_some()
    local service = open { retries = 0, breaker = { min_calls = 1000 } }
    service:query("warm", "select 1")
    proxy:reset("before_answer", { rate = 0.5 })
    local failed = 0
    for _ = 1, 60 do
        if not service:query("some", "select 1") then failed = failed + 1 end
    end
    lu.assertTrue(failed > 5 and failed < 55, failed)
    proxy:reset("before_answer", false)
    lu.assertNotNil(service:query("none", "select 1"))
end

function TestFaults.test_refused_with_a_sqlstate()
    proxy:refuse "53300"
    local service = open { timeout = 0.5 }
    local _, err = service:query("full", "select 1")
    lu.assertStrContains(tostring(err), "too many clients")
    proxy:refuse(false)
    lu.assertTrue(proxy:stats().refused > 0)
end

function TestFaults.test_refused_as_if_nobody_listened()
    proxy:refuse "-"
    local service = open { timeout = 0.5 }
    lu.assertNil((service:query("nobody", "select 1")))
    proxy:clear()
    lu.assertTrue(proxy:stats().refused > 0)
end

function TestFaults.test_cutting_all_connections()
    local service = open()
    local running = weir.spawn(service.query, service, "cut", "select pg_sleep(20)")
    weir.sleep(0.1)
    proxy:cut()
    local _, _, err = running:wait()
    lu.assertNotNil(err)
    lu.assertTrue(proxy:connections() <= 1)
end

TestMisuse = {}

function TestMisuse.test_a_simulation_has_no_proxies()
    local ok, err = pcall(function()
        weir.sim({}):run(testing.proxy, { to = { host = "127.0.0.1", port = 1 } })
    end)
    lu.assertFalse(ok)
    lu.assertStrContains(err, "a simulation has no descriptors")
end

local wrong = {
    { "unknown option 'form' (known: to)", function() testing.proxy { form = 1 } end },
    { "the options are a string", function() testing.proxy "x" end },
    { "to is a nil; it must be a server of weir.testing", function() testing.proxy {} end },
    { "to must be a server of weir.testing or", function() testing.proxy { to = { host = "x" } } end },
    { "latency(-1): it must be a number of seconds, 0 to 3600", function() proxy:latency(-1) end },
    { "black_hole(1): it must be true or false", function() proxy:black_hole(1) end },
    { "reset(commit): the phase must be before_send, after_send", function() proxy:reset "commit" end },
    { "rate is 2; it must be a number from 0 to 1", function() proxy:reset("at_commit", { rate = 2 }) end },
    { "count is 0.5; it must be a whole number", function() proxy:reset("at_commit", { count = 0.5 }) end },
    { "refuse(nil): it must be a SQLSTATE", function() proxy:refuse() end },
}

for _, case in ipairs(wrong) do
    TestMisuse["test_" .. case[1]] = function()
        set_up()
        local ok, err = pcall(case[2])
        proxy:close()
        lu.assertFalse(ok)
        lu.assertStrContains(err, case[1])
        lu.assertStrMatches(err, ".*test_proxy%.lua:%d+: weir%.testing%.proxy: .*")
    end
end

function TestMisuse.test_without_luasocket_a_sentence_says_so()
    local loaded, path, cpath = package.loaded.socket, package.path, package.cpath
    package.loaded.socket, package.path, package.cpath = nil, "", ""
    local none, why = testing.proxy { to = { host = "127.0.0.1", port = 1 } }
    package.loaded.socket, package.path, package.cpath = loaded, path, cpath
    lu.assertNil(none)
    lu.assertStrContains(why, "it needs LuaSocket, which is not installed (Debian: apt-get install "
        .. "lua-socket)")
end

os.exit(lu.LuaUnit.run())
