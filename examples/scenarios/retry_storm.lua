-- For a minute nine of ten statements fail on a server that is busy to three quarters. Everybody tries again.
--
--     weir test examples/scenarios/retry_storm.lua
--
-- Ten retries of each call would be ten times the load, on a server with a third to spare: nothing would
-- work, not even the tenth that would have. A retry budget lets successes pay for retries: one for every
-- ten.

local s = require "weir.scenario"

local function storm(budget, breaker)
    return {
        policy = { timeout = 5, retries = 10, budget = budget, breaker = breaker,
                   backoff = { kind = "full", base = 0.05, cap = 1 },
                   clients = { service = { bypass_rls = true, max = 20 } } },
        servers = { primary = { workers = 4, service = s.exponential(0.01) } }, -- 400 a second at most
        load = { arrivals = s.poisson(300) },
        faults = { s.between(20, 80, s.errors "primary" { sqlstate = "40001", rate = 0.9 }) },
        duration = 120,
    }
end

local without = storm({ floor = 1000000, cap = 1000000 }, { initial = "disabled" })
without.expect = {
    s.amplification("during"):at_least(2),
    s.server("primary", "statements_in_a_second", "during"):at_least(390),
}
s.scenario "without a budget, retries fill the server" (without)

local with = storm({ per_success = 0.1, floor = 10, cap = 100 }, { initial = "disabled" })
with.expect = {
    s.amplification("during"):at_most(1.1),
    s.recovers { within = 2 },
    s.goodput("after"):at_least(0.99),
}
s.scenario "with one, they stay a tenth" (with)
