-- Every minute, on the minute, a cron job on many hosts asks for the same thing: five hundred requests at
-- once.
--
--     weir test examples/scenarios/cron_herd.lua
--
-- The pool has ten connections and a place in the queue for each of five hundred callers. Oldest first,
-- they are served within the second; the users of the site, who have a pool of their own, do not wait
-- behind them.

local s = require "weir.scenario"

s.scenario "a herd of cron jobs on the minute" {
    policy = {
        timeout = 5,
        clients = {
            service = { bypass_rls = true, max = 10, queue_max = 600 },
            anon = { role = "web_anon", max = 20 },
        },
    },
    servers = { primary = { workers = 16, queue = "shared", service = s.exponential(0.01) } },
    load = {
        arrivals = { s.poisson(100), s.burst { at = 60, requests = 500, every = 60 } },
        calls = {
            { "GET /home", client = "anon", claims = { sub = "ada" }, sql = "select 1", readonly = true },
            { "cron: report", client = "service", sql = "select 2", readonly = true, weight = 5 },
        },
    },
    phases = { s.phase("the minute", 60, 62), s.phase("between", 70, 110) },
    duration = 170,
    expect = {
        s.goodput():is(1),
        s.latency("the minute", 0.99):at_most(1.5),
        s.latency("between", 0.99):at_most(0.2),
        s.server("primary", "sessions"):at_most(30),
        s.never_opens(),
    },
}
