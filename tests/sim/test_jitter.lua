-- The comparison of jitters in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), with the
-- backoffs that production runs on: clients contend for one row under optimistic concurrency, each message
-- on its way for N(10, 2) ms. Every read and write goes through the engine to a simulated server.

local lu = require "luaunit"
local weir = require "weir"

-- Means of 2000 runs of jitter_reference.lua, which knows nothing of Weir: writes tried, and seconds until
-- the last client has written. The published simulator gives 796, 813, 1005 and 1847 calls at 100 clients.
local reference = {
    full = { [10] = { 39.0, 0.465 }, [50] = { 332.5, 2.893 }, [100] = { 795.9, 4.902 } },
    equal = { [10] = { 42.5, 0.731 }, [50] = { 347.0, 4.242 }, [100] = { 812.1, 6.604 } },
    decorrelated = { [10] = { 37.7, 0.436 }, [50] = { 374.7, 2.188 }, [100] = { 1002.7, 4.582 } },
    exponential = { [10] = { 50.8, 3.433 }, [50] = { 623.7, 36.400 }, [100] = { 1854.8, 63.478 } },
}

-- The published procedure draws its first delay from base * 2; decorrelated jitter starts from the base
-- itself.
local backoffs = {
    full = { kind = "full", base = 0.010, cap = 2 },
    equal = { kind = "equal", base = 0.010, cap = 2 },
    exponential = { kind = "exponential", base = 0.010, cap = 2 },
    decorrelated = { kind = "decorrelated", base = 0.005, cap = 2 },
}

local function serve(server)
    local row = { version = 0, tries = 0 }
    server:set {
        network = weir.sim.normal(0.010, 0.002), service = 0, commit = 0, connect = 0, connections = 200,
    }
    server:on("select version", function() return { { version = row.version } } end)
    server:on("update row", function(asked)
        row.tries = row.tries + 1
        if tonumber(asked.params[1]) ~= row.version then return 0 end
        row.version = row.version + 1
        return 1
    end)
    return row
end

local function contend(db, options)
    local backoff = weir.backoff(options)
    while true do
        local rows = assert(db:query("read", "select version from row"))
        local written = assert(db:query("write", "update row set version = version + 1 where version = $1",
            rows[1].version))
        if written.affected_rows == 1 then return end
        weir.sleep(backoff:next())
    end
end

-- Connections are there before the first client starts, one for each, so that no call waits for another.
local function open(clients)
    local db = assert(weir.open {
        name = "jitter",
        backends = { primary = "" },
        clients = { service = { bypass_rls = true, min = clients, max = clients } },
        timeout = 3600,
        connect_at_once = 16,
    })
    weir.sleep(5)
    return db
end

-- Means over the runs: writes tried, and seconds until all were done.
local function compare(kind, clients, runs)
    local sim = weir.sim { seed = 1 }
    local row = serve(sim:server "primary")
    return sim:run(function()
        local db = open(clients)
        local service, seconds = db:service(), 0
        for _ = 1, runs do
            local tasks, from = {}, weir.now()
            for i = 1, clients do
                tasks[i] = weir.spawn(contend, service, backoffs[kind])
            end
            weir.gather(tasks)
            seconds = seconds + weir.now() - from
        end
        lu.assertEquals(row.version, runs * clients)
        db:close()
        return row.tries / runs, seconds / runs
    end)
end

-- The published comparison takes the mean of 100 runs. The more clients, the less runs differ:
-- these are within four per cent, and take half of the time.
local runs = { [10] = 100, [50] = 50, [100] = 25 }

local function assert_within(what, seen, expected)
    local off = math.abs(seen / expected - 1)
    if off > 0.05 then
        lu.fail(("%s: %.4g, which is %.1f %% off the %.4g of the reference"):format(what, seen, 100 * off,
            expected))
    end
end

local function reproduces(kind)
    for clients, expected in pairs(reference[kind]) do
        local calls, seconds = compare(kind, clients, runs[clients])
        local what = ("%s jitter, %d clients"):format(kind, clients)
        assert_within(what .. ", calls", calls, expected[1])
        assert_within(what .. ", seconds", seconds, expected[2])
    end
end

TestJitter = {}

function TestJitter.test_full_jitter_as_published()
    reproduces "full"
end

function TestJitter.test_equal_jitter_as_published()
    reproduces "equal"
end

function TestJitter.test_decorrelated_jitter_as_published()
    reproduces "decorrelated"
end

function TestJitter.test_exponential_backoff_without_jitter_as_published()
    reproduces "exponential"
end

os.exit(lu.LuaUnit.run())
