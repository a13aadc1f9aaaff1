-- The server restarts under ten programs with twenty connections each, and making a connection costs it work.
--
--     weir test examples/scenarios/connection_storm.lua
--
-- If all came back at once, two hundred logins would stand before the first query. Each program connects
-- four at a time, opens no more connections than it has callers waiting, and lets callers in only after a
-- probe was answered.

local s = require "weir.scenario"

s.scenario "ten programs come back after a restart" {
    policy = { timeout = 3, clients = { service = { bypass_rls = true, max = 20 } } },
    engines = 10,
    servers = {
        primary = { workers = 4, service = s.exponential(0.005), connect = 0.02, connections = 250 },
    },
    load = { arrivals = s.poisson(400) },
    faults = { s.at(20, s.restart "primary" { restart_after = 5, recovery = 0.5 }) },
    phases = { s.phase("before", 5, 19), s.phase("coming back", 25, 40), s.phase("after", 40, 60) },
    duration = 60,
    expect = {
        s.goodput("before"):at_least(0.999),
        s.server("primary", "connects_in_a_second", "coming back"):at_most(100),
        s.server("primary", "sessions"):at_most(200),
        s.recovers { within = 12 },
        s.goodput("after"):at_least(0.999),
        s.latency("after", 0.99):at_most(0.1),
    },
}
