-- The primary becomes read-only, a replica is promoted, and three seconds later the name leads to it.
--
--     weir test examples/scenarios/failover.lua
--
-- Writes fail with 25006 until then. All connections there are lead to the wrong server, so the first of
-- these errors replaces them all. The replica lagged by a tenth of a second: what was committed in it is
-- gone, which no client can know (the books call it "gone"). Reads never fail.

local s = require "weir.scenario"

s.scenario "a failover to a replica" {
    policy = { timeout = 5, retries = 5, backoff = { base = 0.2, cap = 2 } },
    servers = { primary = {}, replica = { follows = "primary", lag = 0.1 } },
    load = {
        arrivals = s.poisson(100),
        calls = {
            { "GET /contacts", client = "anon", claims = { sub = "ada" }, sql = "select 1", readonly = true,
              weight = 4 },
            { "POST /orders", client = "service", sql = "insert into orders values ($1)", weight = 1 },
        },
    },
    faults = { s.at(20, s.failover "primary" { to = "replica", reconnect_after = 3 }) },
    phases = { s.phase("before", 0, 19), s.phase("during", 20, 23), s.phase("after", 35, 60) },
    duration = 60,
    expect = {
        s.goodput("before"):is(1),
        s.goodput("during"):at_least(0.7),                  -- the reads
        s.goodput("after"):is(1),
        s.server("replica", "writes"):at_least(400),
        s.executed_twice(0),
        s.seen(function(report)
            local gone = report.figures.books.gone
            return gone <= 10, gone .. " writes"
        end, "no more is gone than the lag explains"),
    },
}
