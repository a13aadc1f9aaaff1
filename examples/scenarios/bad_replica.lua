-- Two replicas share the reads; one of them is on a dying disk and answers a hundred times slower.
--
--     weir test examples/scenarios/bad_replica.lua
--
-- Every pool has a breaker of its own. Slow answers are answers, so it is told what counts as slow; then
-- the bad one's opens, its readers hear so at once, and the good one and the primary never notice.

local s = require "weir.scenario"

local turn

s.scenario "one bad replica does not pull down the others" {
    policy = function()
        turn = 0
        return {
            timeout = 2,
            breaker = { slow_call = 0.2, slow_rate = 0.5, min_calls = 20, open_for = 10 },
            route = function(call)
                if not call.readonly then return "primary" end
                turn = turn + 1
                return turn % 2 == 0 and "east" or "west"
            end,
        }
    end,
    servers = { primary = {}, east = { follows = "primary" }, west = { follows = "primary" } },
    load = {
        arrivals = s.poisson(100),
        calls = {
            { "GET /list", client = "service", sql = "select 1", readonly = true, weight = 4 },
            { "POST /pay", client = "service", sql = "insert into pay values ($1)" },
        },
    },
    faults = { s.between(20, 60, s.slow "west" { factor = 300 }) },
    phases = { s.phase("before", 0, 20), s.phase("while it is bad", 30, 60), s.phase("after", 80, 100) },
    duration = 100,
    expect = {
        s.goodput("before"):is(1),
        s.opens { within = 10, pool = "service@west" },
        s.goodput("while it is bad"):at_least(0.55),        -- all but the share of the bad one
        s.seen(function(report)
            for _, move in ipairs(report.figures.moves) do
                if move.pool ~= "service@west" then return false, move.pool .. " moved" end
            end
            return true
        end, "no other breaker moves"),
        s.goodput("after"):is(1),
    },
}
