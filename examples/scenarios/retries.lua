-- One transfer in twenty fails for no fault of its own: serialization failures, as they come under load.
--
--     weir test examples/scenarios/retries.lua
--
-- A retry is right here: what failed was rolled back for sure, and the server is well. With backoff and
-- jitter, three retries turn one failure in twenty into one in a hundred thousand, for one attempt in
-- twenty more; the retry budget would pay for one in ten. A duplicate key is another thing: it fails each
-- time, so it is not tried again.

local s = require "weir.scenario"

local calls = {
    { "POST /transfer", client = "service", unit = true,
      sql = { "select balance from accounts", "update accounts set balance = $1" },
      values = { {}, { "1" } } },
}

s.scenario "serialization failures are retried with backoff" {
    policy = { timeout = 5, retries = 3, backoff = { kind = "full", base = 0.05, cap = 2 } },
    load = { arrivals = s.poisson(100), calls = calls },
    faults = { s.between(10, 50, s.errors "primary" { sqlstate = "40001", rate = 0.05, text = "update" }) },
    duration = 60,
    expect = {
        s.goodput("during"):at_least(0.999),
        s.amplification("during"):between(1.02, 1.1),
        s.latency("during", 0.99):at_most(0.3),
        s.never_opens(),                                    -- the server is working
    },
}

s.scenario "a duplicate key is not retried" {
    policy = { timeout = 5, retries = 3 },
    load = { arrivals = s.poisson(100), calls = calls },
    faults = { s.between(10, 50, s.errors "primary" { sqlstate = "23505", rate = 0.2, text = "update" }) },
    duration = 60,
    expect = {
        s.goodput("during"):between(0.75, 0.85),
        s.amplification():is(1),
        s.never_opens(),
    },
}
