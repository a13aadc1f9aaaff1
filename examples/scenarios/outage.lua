-- The database is away for half a minute.
--
--     weir test examples/scenarios/outage.lua
--
-- A scenario runs the engine that runs in production, with its policy, against a simulated server and in
-- virtual time: the minute and a half below is over in a moment, and the same seed gives the same course of
-- events.

local s = require "weir.scenario"

s.scenario "the database is away for half a minute" {
    -- As weir.open takes it. Backends and clients may be left out here.
    policy = {
        timeout = 2,
        retries = 2,
        breaker = { window = 3, min_calls = 20, failure_rate = 0.5, open_for = 10 },
    },

    servers = { primary = { workers = 8, service = s.exponential(0.004) } },

    load = {
        arrivals = s.poisson(200), -- requests a second, at random moments
        calls = {
            { "GET /contacts", client = "anon", claims = { sub = "ada" }, sql = "select * from contacts",
              readonly = true, weight = 9 },
            { "POST /orders", client = "service", sql = "insert into orders values ($1)", weight = 1 },
        },
    },

    faults = { s.at(20, s.crash "primary" { restart_after = 30 }) },

    phases = { s.phase("before", 0, 20), s.phase("outage", 22, 50), s.phase("after", 55, 90) },
    duration = 90,

    expect = {
        s.goodput("before"):at_least(0.999),
        s.opens { within = 2 },                         -- after the crash
        s.refused("outage"):at_least(5000),             -- told at once that there is no database
        s.recovers { within = 5, to = 0.99 },           -- after the restart
        s.goodput("after"):at_least(0.999),
        s.latency("after", 0.99):at_most(0.1),
        s.amplification():at_most(1.2),                 -- attempts per request
        s.longest_call():at_most(2.1),                  -- nobody waits longer than his deadline
        s.server("primary", "connects_in_a_second"):at_most(40),
    },
}
