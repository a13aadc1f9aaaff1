-- core.tally and core.load without a database: what is refused, and loads on a simulated server.

local lu = require "luaunit"
local core = require "weir.core"
local dist = require "weir.dist"
local weir = require "weir"

local function options_of(more)
    local options = {
        backends = { primary = { conninfo = "host=nowhere" } },
        clients = { service = { bypass_rls = true, max = 10 } },
    }
    for key, value in pairs(more or {}) do options[key] = value end
    return options
end

-- fn(db, tally, world) in a simulation.
local function in_world(fn, options)
    local world = weir.sim { seed = 5 }
    world:run(function()
        local db = weir.open(options_of(options))
        local tally = assert(core.tally { bucket = 0.1, phases = {
            { name = "first", from = 0, to = 1 }, { name = "second", from = 1, to = 2 },
        } })
        fn(db, tally, world)
        db:close()
    end)
    return world
end

local function read_call(more)
    local call = { client = "service", context = "GET /x", sql = "select 1", readonly = true }
    for key, value in pairs(more or {}) do call[key] = value end
    return call
end

local function write_call(more)
    local call = {
        client = "service", context = "POST /x", sql = "insert into orders values ($1)", writes = true,
    }
    for key, value in pairs(more or {}) do call[key] = value end
    return call
end

TestTally = {}

local tally_refusals = {
    { { bucket = 0 }, "bucket is 0; it must be more than 0" },
    { { bucket = 5000 }, "bucket is 5000 s" },
    { { buckets = 1 }, "buckets is not a known option; did you mean bucket?" },
    { { phases = 1 }, "phases is a number; it must be a table" },
    { { phases = { 1 } }, "phases[1] is a number; it must be a table" },
    { { phases = { { from = 0, to = 1 } } }, "phases[1].name is missing or too long; it must have 1 to 31 bytes" },
    { { phases = { { name = "x", from = 2, to = 1 } } }, "phases[1].to is 1; it must be after from, 2" },
    { { phases = { { name = "x", from = -1, to = 1 } } }, "phases[1].from is -1" },
}

function TestTally.test_what_cannot_be_is_refused_with_a_sentence()
    for _, case in ipairs(tally_refusals) do
        local tally, why = core.tally(case[1])
        lu.assertNil(tally)
        lu.assertStrContains(why, case[2])
    end
end

function TestTally.test_an_empty_tally_is_all_zero()
    local tally = core.tally { phases = { { name = "x", from = 0, to = 1 } } }
    for _, phase in ipairs { "x", 1 } do
        lu.assertEquals(tally:counts(phase).arrived, 0)
        lu.assertEquals(tally:quantile(phase, 0.99, true), 0)
    end
    lu.assertEquals(tally:counts().latency_mean, 0)
    lu.assertEquals(tally:ended_as(), {})
    lu.assertEquals(tally:buckets(), {})
    lu.assertEquals({ tally:moves() }, { {}, 0 })
    lu.assertErrorMsgContains("there is no phase 'y'", tally.counts, tally, "y")
    lu.assertErrorMsgContains("there is no phase '2'", tally.counts, tally, 2)
end

TestLoadOptions = {}

local function many(n, value)
    local list = {}
    for i = 1, n do list[i] = value end
    return list
end

local load_refusals = {
    { {}, "calls is missing or empty; there must be 1 to 64" },
    { { calls = {} }, "calls is missing or empty" },
    { { calls = "x" }, "calls is a string; it must be a list" },
    { { calls = many(65, read_call()) }, "calls has 65 members; it must have at most 64" },
    { { calls = { read_call(), 7 } }, "calls[2] is a number; it must be a table" },
    { { calls = { read_call { weight = 0 } } }, "calls[1].weight is 0; it must be from 1e-09 to 1e+09" },
    { { calls = { read_call { sq = "x" } } }, "calls[1].sq is not a known option; did you mean sql?" },
    { { calls = { { context = "x", client = "service" } } }, "calls[1].sql is a nil; it must be a string or a list" },
    { { calls = { read_call { sql = {} } } }, "calls[1] cannot be sent: a pipeline of 0 statements" },
    { { calls = { read_call { sql = { 5 } } } }, "calls[1] cannot be sent: statement 1: the SQL is a number" },
    { { calls = { read_call { values = 5 } } }, "calls[1].values is a number; it must have a list for each" },
    { { calls = { read_call { values = { 5 } } } }, "calls[1].values has a number at place 1" },
    { { calls = { read_call { values = { {}, {} } } } }, "calls[1].values has 2 lists; there are 1 statements" },
    { { calls = { read_call { values = { { print } } } } }, "calls[1] cannot be sent: parameter $1 of statement 1" },
    { { calls = { read_call { isolation = "none" } } }, "calls[1].isolation is 'none'; it must be one of" },
    { { rates = { { 0, 1 }, { 1 } } }, "rates[2] has a rate that is a nil; it must be a number" },
    { { rates = { { 0, 1e8 } } }, "rates[1] has a rate of 100000000; it must be from 0 to 10000000" },
    { { rates = { { -1, 1 } } }, "rates[1] has a moment of -1" },
    { { rates = { { 2, 1 }, { 1, 1 } } }, "rate 2 lies before the one in front of it" },
    { { rates = many(257, { 0, 1 }) }, "rates has 257 members; it must have at most 256" },
    { { bursts = { { 0, "many" } } }, "bursts[1] has a number of requests that is a string" },
    { { users = 100001 }, "users is 100001; it must be a whole number from 0 to 100000" },
    { { users = 1, think = dist.uniform }, "think is a function; it must be a number of seconds or a distribution" },
    { { users = 1, think = -1 }, "think: the duration is -1" },
    { { from = 2, upto = 1 }, "upto is 1; it must be after from, 2" },
    { { caller_retries = 1001 }, "caller_retries is 1001" },
    { { caller_pause = 7200 }, "caller_pause is 7200 s; it must be at most 3600 s" },
    { { seed = 1.5 }, "seed is 1.5; it must be a whole number" },
    { { numbers = {} }, "numbers is a table; it must come from core.numbers()" },
    { { numbers = io.stdout }, "numbers is a userdata; it must come from core.numbers()" },
    { { speed = 1 }, "speed is not a known option" },
}

function TestLoadOptions.test_what_cannot_be_is_refused_with_a_sentence()
    in_world(function(db, tally)
        for _, case in ipairs(load_refusals) do
            local options = case[1]
            if not options.calls and next(options) then options.calls = { read_call() } end
            local load, why = core.load(db.core, tally, options)
            lu.assertNil(load)
            lu.assertStrContains(why, case[2])
        end
    end)
end

function TestLoadOptions.test_a_closed_engine_takes_no_load()
    in_world(function(db, tally)
        db:close()
        lu.assertEquals({ core.load(db.core, tally, { calls = { read_call() } }) }, { nil, "the engine is closed" })
    end)
end

TestLoad = {}

function TestLoad.test_a_load_comes_by_itself_in_a_simulation()
    in_world(function(db, tally)
        local load = assert(core.load(db.core, tally, {
            calls = { read_call { weight = 3 }, write_call() },
            rates = { { 0, 100 }, { 1, 100 }, { 1, 300 } }, upto = 2, keep_outcomes = true,
        }))
        lu.assertAlmostEquals(load:due(), 0.005, 1e-9)
        weir.sleep(3)
        lu.assertEquals(tally:counts("first").ok, 100)
        lu.assertEquals(tally:counts("second").ok, 300)
        lu.assertEquals(tally:counts().arrived, 400)
        lu.assertEquals(tally:ended_as(), { ok = 400 })
        lu.assertTrue(tally:quantile(nil, 0.5, true) > 0)
        lu.assertNil(load:due())
        lu.assertEquals(load:open(), 0)
        lu.assertNil(load:oldest())
        lu.assertNil(load:misuse())
        local buckets = tally:buckets()
        lu.assertEquals(buckets[1].arrived, 10)
        lu.assertEquals(buckets[15].arrived, 30)
        lu.assertEquals(buckets[1].breaker, "CLOSED")
        lu.assertAlmostEquals(buckets[15].from, 1.4, 1e-9)
        local written = 0
        for number, outcome in pairs(load:outcomes()) do
            lu.assertTrue(number >= 1 and number <= 400)
            lu.assertEquals(outcome, "committed")
            written = written + 1
        end
        lu.assertTrue(written > 60 and written < 140)
    end)
end

function TestLoad.test_the_books_of_the_world_know_every_write()
    local world = in_world(function(db, tally, world)
        assert(core.load(db.core, tally, { calls = { write_call() }, users = 5, think = dist.exponential(0.01), upto = 2 }))
        world:at(1, function() world:server("primary"):fault("crash", { after = 0.2, recovery = 0.1 }) end)
        weir.sleep(8)
        lu.assertTrue(tally:counts().failed > 0)
    end)
    local books = world:books()
    lu.assertTrue(books.opened > 100)
    lu.assertEquals(books.opened, books.closed)
    lu.assertEquals({ books.lost, books.undead, books.twice }, { 0, 0, 0 })
end

function TestLoad.test_the_server_gets_the_values_and_the_number()
    in_world(function(db, tally, world)
        local seen = {}
        world:server("primary"):on("orders", function(asked)
            seen[#seen + 1] = asked.params
        end)
        local numbers = core.numbers()
        local call = { client = "service", context = "POST /x", unit = true, writes = true,
            sql = { "insert into orders values ($1)", "update orders set a = $1 where id = $2" },
            values = { nil, nil } }
        call.values = { { core.number, "x" }, { 7, core.number } }
        call.sql[1] = "insert into orders values ($1, $2)"
        for _ = 1, 2 do
            assert(core.load(db.core, tally, { calls = { call }, bursts = { { 0.1, 1 } }, numbers = numbers }))
        end
        weir.sleep(1)
        lu.assertEquals(tally:ended_as(), { ok = 2 })
        lu.assertItemsEquals(seen, { { "1", "x" }, { "7", "1" }, { "2", "x" }, { "7", "2" } })
    end)
end

function TestLoad.test_options_may_be_thrown_away()
    in_world(function(db, tally)
        local options = { calls = {}, rates = { { 0, 50 } }, upto = 1 }
        options.calls[1] = read_call { sql = table.concat { "select ", "12345", " + 1" }, claims = "{" .. "}" }
        assert(core.load(db.core, tally, options))
        options.calls[1].sql, options.calls[1].context, options.calls = nil, nil, nil
        collectgarbage()
        collectgarbage()
        weir.sleep(2)
        lu.assertEquals(tally:ended_as(), {})
    end)
end

function TestLoad.test_custom_requests_are_taken_and_settled()
    in_world(function(db, tally)
        local load = assert(core.load(db.core, tally, {
            calls = { { context = "work", custom = true, writes = true } }, bursts = { { 0.5, 4 } }, keep_outcomes = true,
        }))
        lu.assertFalse(core.arrivals())
        weir.sleep(0.6)
        local taken = {}
        local index, number = load:take()
        while index do
            taken[#taken + 1] = { index, number }
            index, number = load:take()
        end
        lu.assertEquals(taken, { { 1, 1 }, { 1, 2 }, { 1, 3 }, { 1, 4 } })
        lu.assertAlmostEquals(load:oldest(), 0.5, 1e-9)
        load:settle(1)
        load:settle(2, { code = "timeout", outcome = "rolled_back" }, 3)
        load:settle(3, "an error of somebody's own")
        load:settle(4, { code = "queue_full", outcome = "none" })
        load:settle(5)
        lu.assertEquals(tally:ended_as(), { ok = 1, timeout = 1, server_error = 1, queue_full = 1 })
        lu.assertEquals(tally:counts().attempts, 6)
        lu.assertEquals(load:outcomes(), { "committed", "rolled_back", "unknown", "none" })
    end)
end

function TestLoad.test_closing_the_engine_ends_the_load_first()
    in_world(function(db, tally, world)
        world:server("primary"):set { service = 60 }
        local load = assert(core.load(db.core, tally, { calls = { read_call() }, bursts = { { 0.1, 3 } } }))
        weir.sleep(1)
        lu.assertEquals(load:open(), 3)
        db:close(0)
        lu.assertEquals(load:open(), 0)
        lu.assertNil(load:due())
        load:run()
        load:free()
        lu.assertEquals(tally:counts().failed, 3)
    end)
end

function TestLoad.test_a_load_outlives_what_it_was_made_of()
    in_world(function(db)
        local load
        do
            local tally = core.tally {}
            load = assert(core.load(db.core, tally, { calls = { read_call() }, rates = { { 0, 10 } }, upto = 1,
                numbers = core.numbers() }))
        end
        collectgarbage()
        collectgarbage()
        weir.sleep(2)
        lu.assertEquals(load:open(), 0)
        load = nil
        lu.assertNil(load)
        collectgarbage()
        collectgarbage()
    end)
end

function TestLoad.test_what_the_engine_refuses_is_told()
    in_world(function(db, tally)
        local load = assert(core.load(db.core, tally, {
            calls = { read_call { client = "nobody" } }, bursts = { { 0, 2 } },
        }))
        weir.sleep(0.1)
        lu.assertEquals(load:misuse(), "there is no client 'nobody'")
        lu.assertEquals(tally:ended_as(), { misuse = 2 })
    end)
end

function TestLoad.test_a_policy_must_not_drive_a_load()
    local load, raised
    in_world(function(db, tally, world)
        world:server("primary"):on("select 1", { error = "40001" })
        load = assert(core.load(db.core, tally, { calls = { read_call() }, bursts = { { 0.1, 1 } } }))
        weir.sleep(1)
        lu.assertEquals(tally:ended_as(), { server_error = 1 })
        lu.assertStrContains(raised, "a policy must not drive a load")
    end, { retry = function()
        local ok, err = pcall(load.run, load)
        raised = not ok and tostring(err) or "it did not raise"
        return nil
    end })
end

function TestLoad.test_without_a_simulation_a_load_is_turned_by_its_owner()
    local ok, err = weir.run(function()
        local options = options_of()
        options.backends.primary.conninfo = "host=/nonexistent connect_timeout=1"
        options.timeout, options.retries = 0.5, 0
        local db = weir.open(options)
        local tally = assert(core.tally {})
        local load = assert(core.load(db.core, tally, { calls = { read_call() }, bursts = { { 0, 2 } }, upto = 1 }))
        lu.assertEquals(load:due(), 0)
        load:run()
        local last = core.now() + 5
        while load:open() > 0 and core.now() < last do weir.sleep(0.005) end
        lu.assertEquals(tally:counts().failed, 2)
        load:free()
        load:free()
        db:close()
    end)
    if not ok then error(err, 0) end
end

os.exit(lu.LuaUnit.run())
