-- A failure that feeds itself: ten seconds of trouble, and the service is down until somebody pulls the
-- plug.
--
--     weir test examples/scenarios/metastable.lua
--
-- The server can do 300 calls a second and is asked for 280. It does them in order of arrival, and knows
-- nothing of callers who have gone. For ten seconds it freezes, so 2800 calls lie before it when it goes
-- on. Whoever is served now has given up long ago; if each then tries once more, 560 arrive each second,
-- and the queue never gets shorter. (After "Metastable Failures in Distributed Systems", HotOS 2021.)

local s = require "weir.scenario"

local server = {
    workers = 1, service = 1 / 300, ignores_cancel = true,
    connect = 0, network = 0, connections = 1000000, -- nothing but the work itself holds anybody up
}

-- A driver without Weir: as many connections as anybody asks for, a timeout, and nothing else.
local unprotected = {
    timeout = 1,
    retries = 0,
    queue = "fifo",
    breaker = { initial = "disabled" },
    cancel_wait = 0.001,                             -- who has given up hangs up
    health = { interval = 0 },
    clients = { service = { bypass_rls = true, min = 4000, max = 10000 } },
}

s.scenario "with one retry and no protection, it never recovers" {
    policy = unprotected,
    servers = { primary = server },
    load = { arrivals = s.poisson(280), caller_retries = 1 },
    faults = { s.between(30, 40, s.freeze "primary") },
    phases = { s.phase("before", 0, 28), s.phase("four minutes later", 280, 300) },
    duration = 300,
    expect = {
        s.goodput("before"):at_least(0.99),
        s.goodput("four minutes later"):at_most(0.01),
        s.server("primary", "waiting"):at_least(60000),
    },
}

s.scenario "without the retry, it takes two minutes" {
    policy = unprotected,
    servers = { primary = server },
    load = { arrivals = s.poisson(280) },
    faults = { s.between(30, 40, s.freeze "primary") },
    phases = { s.phase("before", 0, 28), s.phase("a minute and a half", 41, 130) },
    duration = 240,
    expect = {
        s.goodput("before"):at_least(0.99),
        s.goodput("a minute and a half"):at_most(0.01),
        s.recovers { within = 160 },
    },
}

-- Weir as it comes. It has ten connections, so ten calls lie before the frozen server and not 2800; all
-- others wait in its own queue, where a call whose time is up costs nobody anything. The breaker opens once
-- half of the calls of the last ten seconds have failed, and a probe that comes back closes it.
for _, retries in ipairs { 0, 1 } do
    s.scenario("with Weir, and callers who try again " .. (retries == 0 and "never" or "once")) {
        policy = { timeout = 1 },
        servers = { primary = server },
        load = { arrivals = s.poisson(280), caller_retries = retries },
        faults = { s.between(30, 40, s.freeze "primary") },
        phases = { s.phase("before", 0, 28), s.phase("after", 50, 120) },
        duration = 120,
        expect = {
            s.goodput("before"):at_least(0.99),
            s.opens { within = 8 },
            s.recovers { within = 5 },
            s.goodput("after"):at_least(0.99),
            s.server("primary", "waiting"):at_most(40),
        },
    }
end
