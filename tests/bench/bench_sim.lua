-- The Lua side of bench_sim.c, and a bench by itself: `weir run tests/bench/bench_sim.lua [calls per
-- round]`. The load is the engine's own; what runs in Lua is the policy: route and label for every call,
-- and retry, which the second kind of call needs once for each.
local core = require "weir.core"
local weir = require "weir"

local PER_SECOND, WORKERS, ROUNDS = 5000, 64, 5
local calls = tonumber(arg and arg[1]) or 50000

local policy = {
    route = function(call) return call.context:find("^GET /report") and "replica" or "primary" end,
    label = function(context) return (context:gsub("%?.*", "")) end,
    retry = function(failure, call)
        if failure.safe and failure.attempt <= 3 and call.client == "service" then
            return failure:backoff()
        end
    end,
}

local function open()
    return assert(weir.open {
        name = "bench",
        backends = { primary = "", replica = "" },
        clients = { service = { bypass_rls = true, max = 2 * WORKERS } },
        backoff = { base = 0.001, cap = 0.002 },
        budget = { per_success = 10, floor = 1000, cap = 1e6 },
        breaker = { initial = "metrics_only" },
        route = policy.route, label = policy.label, retry = policy.retry,
    })
end

-- `fails`: the server refuses every other attempt, so that retry is asked about once for each call.
local function serve(server, fails)
    server:set { workers = WORKERS, connections = 4 * WORKERS, service = weir.sim.exponential(0.001) }
    if fails then server:fault("errors", { sqlstate = "40001", rate = 0.5 }) end
end

local function begin(db, tally)
    return assert(core.load(db.core, tally, {
        calls = { {
            client = "service", context = "GET /contacts?page=7", sql = "select 1", readonly = true,
        } },
        poisson = true, rates = { { 0, PER_SECOND } }, from = 0, upto = 1e6, seed = 1,
        numbers = core.numbers(),
    }))
end

-- Calls per second of processor time; the process never waits, so that is real time on a core of its own.
local function rate(tally, count)
    local before, from = tally:counts(), os.clock()
    weir.sleep(count / PER_SECOND)
    local after, took = tally:counts(), os.clock() - from
    return (after.calls - before.calls) / took
end

local function resident()
    local file = assert(io.open("/proc/self/statm"))
    local pages = tonumber(file:read("a"):match("%d+ (%d+)"))
    file:close()
    return pages / 256
end

local function measure(name, fails)
    local sim = weir.sim { seed = 1 }
    serve(sim:server "primary", fails)
    sim:run(function()
        local db = open()
        local tally = assert(core.tally { bucket = 0.01, phases = {} })
        local load, rates = begin(db, tally), {}
        rate(tally, 45 * PER_SECOND)           -- the tally has used all of its buckets then
        for i = 1, ROUNDS do rates[i] = rate(tally, calls) end
        collectgarbage()
        local before = resident()
        rate(tally, calls * ROUNDS * 9)
        collectgarbage()
        table.sort(rates)
        print(("  %-44s %8.0f calls/s   ten times as long: %+.2f MiB"):format(name, rates[(ROUNDS + 1) / 2],
            resident() - before))
        load:free()
        db:close()
    end)
end

measure("with a Lua policy, one statement", false)
measure("with a Lua policy, half of all attempts fail", true)
