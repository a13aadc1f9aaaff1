-- The database accepts connections and answers nothing. Without a breaker every caller waits out his whole
-- timeout.
--
--     weir test examples/scenarios/circuit_breaker.lua
--
-- Five failures in a row open the breaker here; from then on a caller hears "no" at once, and when to come
-- back. In the background a probe asks after a second, then after two, four and so on, and lets callers in
-- as soon as it is answered.

local s = require "weir.scenario"

s.scenario "the breaker answers for a database that does not" {
    policy = {
        timeout = 2,
        retries = 0,
        breaker = { consecutive = 5, open_for = 60, half_open = { permits = 5 } },
    },
    load = { arrivals = s.poisson(50) },
    faults = { s.between(20, 50, s.freeze "primary") },
    phases = { s.phase("before", 0, 18), s.phase("while it is open", 25, 50), s.phase("after", 70, 90) },
    duration = 90,
    expect = {
        s.goodput("before"):at_least(0.999),
        s.opens { within = 3 },
        s.refused("while it is open"):at_least(1150),       -- of some 1250
        s.seen(function(report)
            local worst = report.figures:counts_of("while it is open").p50
            return worst <= 0.001, ("%g s"):format(worst)
        end, "half of the callers hear at once, open or not"),
        s.recovers { within = 20 },
        s.goodput("after"):at_least(0.999),
    },
}
