-- The database is there, and takes a hundred times as long as it should. Nothing fails at once, which makes
-- this worse than an outage: every caller waits, and connections and queues fill up. A breaker that counts
-- slow calls too sends them away.
--
--     weir test examples/scenarios/slow_database.lua

local s = require "weir.scenario"

s.scenario "the database is a hundred times slower for half a minute" {
    policy = {
        timeout = 2,
        breaker = { window = 5, slow_call = 0.2, slow_rate = 0.5, open_for = 5 },
    },

    servers = { primary = { workers = 8, service = s.exponential(0.004) } },

    load = {
        arrivals = s.poisson(200),
        calls = { { "GET /contacts", sql = "select * from contacts", readonly = true } },
    },

    -- Phases may be left out: "before", "during" and "after" are made from the faults.
    faults = { s.between(20, 50, s.slow "primary" { factor = 100 }) },
    duration = 90,

    expect = {
        s.goodput("before"):at_least(0.999),
        s.opens { within = 5 },
        s.refused("during"):at_least(1000),             -- sent away at once instead of waiting
        s.recovers { within = 10 },
        s.longest_call():at_most(2.1),
        s.server("primary", "waiting"):at_most(30),
    },
}
