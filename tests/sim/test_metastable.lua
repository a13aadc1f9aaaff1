-- The set-up of "Metastable Failures in Distributed Systems" (HotOS 2021), as
-- examples/scenarios/metastable.lua tells it: 300 calls a second at most, 280 asked for, a timeout of a
-- second, ten seconds of outage.

local lu = require "luaunit"
local scenario = require "weir.scenario"
local series = require "weir.scenario.series"

local OUTAGE_ENDS = 40

scenario.registered(true)
dofile "examples/scenarios/metastable.lua"
local naive, patient, weir, weir_with_retry = require("weir.compat").unpack(scenario.registered(true))

-- The first of them for ten minutes after the outage, and evenly, as in the paper.
local ten_minutes = scenario.scenario "a naive retry, ten minutes later" {
    policy = {
        timeout = 1, retries = 0, queue = "fifo", cancel_wait = 0.001,
        breaker = { initial = "disabled" },
        health = { interval = 0 },
        clients = { service = { bypass_rls = true, min = 4000, max = 10000 } },
    },
    servers = {
        primary = {
            workers = 1, service = 1 / 300, ignores_cancel = true,
            connect = 0, network = 0, connections = 1000000,
        },
    },
    load = { arrivals = scenario.constant(280), caller_retries = 1 },
    faults = { scenario.between(30, OUTAGE_ENDS, scenario.freeze "primary") },
    phases = { scenario.phase("before", 0, 30), scenario.phase("ten minutes later", 600, 640) },
    duration = 640,
    expect = {
        scenario.goodput("before"):at_least(0.99),
        scenario.goodput("ten minutes later"):is(0),
    },
}

-- Seconds from the end of the outage to the first of those from which on 95 % end well; nil: it never comes.
local function recovery(report)
    local figures = report.figures
    local since = series.recovered(figures.buckets, OUTAGE_ENDS, figures.duration, figures.window,
        figures.ended, 0.95)
    return since and since - OUTAGE_ENDS
end

TestMetastable = {}

function TestMetastable.test_a_naive_retry_never_recovers()
    for _, one in ipairs { naive, ten_minutes } do
        lu.assertNil(recovery(one:check { seed = 1 }))
    end
end

function TestMetastable.test_without_a_retry_the_backlog_takes_two_minutes()
    for seed = 1, 3 do
        local seconds = recovery(patient:check { seed = seed })
        lu.assertTrue(seconds >= 120 and seconds <= 145, ("it took %s s"):format(seconds))
    end
end

function TestMetastable.test_weir_recovers_within_fifteen_seconds()
    for _, one in ipairs { weir, weir_with_retry } do
        for seed = 1, 10 do
            local seconds = recovery(one:check { seed = seed })
            lu.assertTrue(seconds <= 15, ("%s: it took %s s"):format(one.name, seconds))
        end
    end
end

os.exit(lu.LuaUnit.run())
