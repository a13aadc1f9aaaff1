-- Outages of a few seconds that a simulation and a real server judge alike: every fault that can be made real.
--
--     weir test tests/live/outages.lua             in a moment
--     weir test --live tests/live/outages.lua      in a minute and a half

local s = require "weir.scenario"

local policy = { timeout = 1, retries = 3, breaker = { window = 2, min_calls = 10, open_for = 1 } }

local servers = { primary = { workers = 8, service = s.exponential(0.004), connections = 40 } }

local setup = [[
    create table contacts (id int primary key, owner text not null);
    insert into contacts values (1, 'ada'), (2, 'grace');
    create table orders (id bigint not null);
]]

local calls = {
    { "GET /contacts", client = "anon", claims = { sub = "ada" }, sql = "select * from contacts", readonly = true,
      weight = 3 },
    { "POST /orders", client = "service", sql = "insert into orders values ($1)" },
    { "move an order", client = "service", unit = true,
      sql = { "insert into orders values ($1)", "select count(*) from contacts" } },
}

local function outage(name, faults, expect, more)
    local fields = {
        policy = policy, servers = servers, setup = setup, load = { arrivals = s.poisson(80), calls = calls },
        faults = faults, duration = 5, drain = 3, expect = expect,
    }
    for key, value in pairs(more or {}) do fields[key] = value end
    return s.scenario(name)(fields)
end

outage("nothing happens", {}, {
    s.goodput():is(1), s.never_opens(), s.amplification():is(1), s.latency(nil, 0.5):at_most(0.05),
    s.longest_call():at_most(0.5), s.server("primary", "connects_in_a_second"):at_most(30),
})

outage("a crash", { s.at(1, s.crash "primary" { restart_after = 1.5 }) }, {
    s.goodput("before"):at_least(0.95), s.goodput("during"):at_most(0.6), s.opens { within = 1 },
    s.recovers { within = 2 }, s.closes { within = 2 }, s.longest_call():at_most(1.2),
})

outage("a restart in order", { s.at(1, s.restart "primary" { restart_after = 1 }) }, {
    s.goodput("before"):at_least(0.95), s.recovers { within = 2 }, s.longest_call():at_most(1.2),
})

outage("a frozen server", { s.between(1, 2.5, s.freeze "primary") }, {
    s.goodput("before"):at_least(0.95), s.goodput("during"):at_most(0.6), s.recovers { within = 2 },
    s.longest_call():at_most(1.3), s.timed_out():at_least(1),
})

outage("packets vanish", { s.between(1, 2.5, s.vanish "primary") }, {
    s.goodput("before"):at_least(0.95), s.goodput("during"):at_most(0.6), s.recovers { within = 2 },
    s.longest_call():at_most(1.3), s.timed_out():at_least(1),
})

outage("a slow server", { s.between(1, 3, s.slow "primary" { factor = 60 }) }, {
    s.latency("before", 0.5):at_most(0.03), s.latency("during", 0.9):at_least(0.15), s.recovers { within = 2 },
    s.longest_call():at_most(1.3), s.server("primary", "waiting", "before"):at_most(4),
    s.server("primary", "running", "during"):between(4, 8),
}, { duration = 7 })

outage("a slow network", { s.between(1, 3, s.delay "primary" { seconds = 0.03 }) }, {
    s.goodput():at_least(0.99), s.latency("before", 0.5):at_most(0.03), s.latency("during", 0.5):at_least(0.06),
    s.latency("after", 0.9):at_most(0.2),
})

outage("transactions that fail", { s.between(1, 3, s.errors "primary" { sqlstate = "40001", rate = 0.2 }) }, {
    s.goodput():at_least(0.9), s.amplification("during"):between(1.05, 1.8), s.amplification("before"):at_most(1.04),
    s.never_opens(),
})

outage("errors of one statement",
    { s.between(1, 3, s.errors "primary" { sqlstate = "23505", text = "insert into orders" }) }, {
        s.goodput("during"):between(0.4, 0.8), s.amplification():is(1), s.never_opens(), s.unknown():is(0),
    })

outage("answers to COMMIT are lost", { s.between(1, 3, s.reset "primary" { phase = "after_commit", rate = 0.5 }) }, {
    s.goodput():at_least(0.9), s.executed_twice(0), s.calls_lost(0), s.unknown():is(0),
})

outage("answers are lost", { s.between(1, 3, s.reset "primary" { phase = "before_answer", rate = 0.25 }) }, {
    s.goodput():at_least(0.8), s.unknown():at_least(1), s.executed_twice(0), s.calls_lost(0),
})

outage("requests are lost", { s.between(1, 3, s.reset "primary" { phase = "before_send", rate = 0.05 }) }, {
    s.goodput():at_least(0.9), s.goodput("before"):at_least(0.9), s.executed_twice(0),
})

outage("no more connections", { s.between(1, 3, s.refuse "primary" { sqlstate = "53300" }) }, {
    s.goodput():at_least(0.9), s.longest_call():at_most(1.2),
}, { policy = { timeout = 1, retries = 3, lifetime = 0, idle_timeout = 0 } })

outage("a role is lost", { s.between(1, 3, s.role_lost "primary") }, {
    s.goodput("before"):at_least(0.9), s.goodput("during"):between(0.2, 0.6), s.amplification():at_most(1.05),
    s.recovers { within = 1 },
})

outage("passwords are rotated", { s.between(0.5, 3, s.rotate "primary") }, {
    s.goodput("before"):at_least(0.9), s.goodput("during"):at_most(0.5), s.recovers { within = 3 },
}, { policy = { timeout = 1, retries = 1, lifetime = 0.3, breaker = policy.breaker } })

outage("the program stands still", { s.at(1, s.stall(0.5)) }, {
    s.goodput():at_least(0.9), s.longest_call():at_most(1.7), s.recovers { within = 1 },
})

outage("healed before its time, and changed", {
    s.at(1, s.delay "primary" { seconds = 0.05 }), s.at(2, s.heal("primary", "delay")),
    s.at(3, s.change("primary", { service = 0.05 })),
}, {
    s.latency("one", 0.5):at_most(0.03), s.latency("two", 0.5):at_least(0.1), s.latency("three", 0.5):at_most(0.05),
    s.latency("four", 0.5):between(0.05, 0.2),
}, { phases = { s.phase("one", 0, 1), s.phase("two", 1.1, 1.9), s.phase("three", 2.2, 3), s.phase("four", 3.2, 5) } })
