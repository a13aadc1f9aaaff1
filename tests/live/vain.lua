-- Expectations that do not hold, neither in simulation nor against a real server.

local s = require "weir.scenario"

local function vain(name, faults, expect)
    return s.scenario(name) {
        policy = { timeout = 0.5, retries = 0, breaker = { window = 2, min_calls = 10, open_for = 10 } },
        servers = { primary = { workers = 4, service = 0.005 } },
        load = { arrivals = s.constant(100), calls = {
            { "read", sql = "select 1", readonly = true, weight = 2 },
            { "write", sql = "insert into orders values ($1)" },
        } },
        faults = faults, duration = 4, drain = 2, expect = expect,
    }
end

vain("hopes for a crashed server", { s.at(1, s.crash "primary" {}) }, {
    s.goodput("before"):at_least(0.99), -- holds
    s.goodput():at_least(0.9),
    s.never_opens(),
    s.recovers { within = 1, after = 1.5 },
    s.opens { within = 2 }, -- holds
})

vain("hopes for a slow server", { s.between(1, 3, s.slow "primary" { factor = 20 }) }, {
    s.latency("before", 0.9):at_most(0.05), -- holds
    s.latency("during", 0.5):at_most(0.05),
    s.goodput("during"):at_least(0.9),
    s.timed_out():is(0),
})
