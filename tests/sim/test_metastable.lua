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

-- Seconds from the end of the outage to the first of those from which on 95 % end well; nil: it never comes.
local function recovery(report)
    local figures = report.figures
    local since = series.recovered(figures.buckets, OUTAGE_ENDS, figures.duration, figures.window, figures.ended, 0.95)
    return since and since - OUTAGE_ENDS
end

TestMetastable = {}

function TestMetastable.test_a_naive_retry_never_recovers()
    local report = naive:check { seed = 1 }
    lu.assertNil(recovery(report))
    lu.assertEquals(report.figures:counts_of("ten minutes later").ok, 0)
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
