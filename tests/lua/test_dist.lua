-- Distributions as tables: what the constructors make, and what they refuse at the caller's line.

local lu = require "luaunit"
local core = require "weir.core"
local dist = require "weir.dist"

local function mean(value)
    return core.dist({ x = value }, "x")
end

TestDist = {}

function TestDist.test_each_kind_has_the_mean_it_should_have()
    lu.assertAlmostEquals(mean(dist.constant(0.5)), 0.5, 1e-12)
    lu.assertAlmostEquals(mean(dist.uniform(1, 3)), 2, 1e-12)
    lu.assertAlmostEquals(mean(dist.exponential(0.004)), 0.004, 1e-12)
    lu.assertAlmostEquals(mean(dist.normal(2, 0.1)), 2, 1e-12)
    lu.assertAlmostEquals(mean(dist.lognormal(1, 1)), math.exp(0.5), 1e-12)
    lu.assertAlmostEquals(mean(dist.pareto(1, 2, 1e9)), 2, 1e-6)
    lu.assertAlmostEquals(mean(dist.histogram { { 1, 1 }, { 3, 3 } }), (0.5 + 3 * 2) / 4, 1e-12)
end

function TestDist.test_a_number_is_a_constant()
    lu.assertEquals(mean(0.25), 0.25)
    lu.assertEquals(mean(nil), 0)
end

function TestDist.test_the_constructors_make_plain_tables()
    lu.assertEquals(dist.uniform(1, 2), { kind = "uniform", a = 1, b = 2 })
    lu.assertEquals(dist.histogram { { 2, 5 } }, { kind = "histogram", edges = { 0, 2 }, weights = { 5 } })
end

local refused = {
    { "constant: the duration is -1; it must be 0 or more seconds", dist.constant, -1 },
    { "constant: the duration is a nil; it must be a number", dist.constant },
    { "exponential: the mean is a string; it must be a number", dist.exponential, "fast" },
    { "exponential: the mean is not a number (nan)", dist.exponential, 0 / 0 },
    { "exponential.a is inf; it must be from", dist.exponential, math.huge },
    { "uniform: the longest is 1; it must be at least the shortest", dist.uniform, 2, 1 },
    { "normal: the deviation is -1", dist.normal, 1, -1 },
    { "lognormal: the deviation of the logarithm is 21; it must be 0 to 20", dist.lognormal, 1, 21 },
    { "pareto: the shape is 0; it must be above 0", dist.pareto, 1, 0 },
    { "pareto: the cut is 1; it must be 0, or at least the shortest", dist.pareto, 2, 1, 1 },
    { "histogram: the bins are a number", dist.histogram, 3 },
    { "histogram.weights holds 0 numbers; it must hold 1 to 4096", dist.histogram, {} },
    { "histogram: bin 1 is a number", dist.histogram, { 5 } },
    { "histogram: the weight of bin 2 is a nil", dist.histogram, { { 1, 1 }, { 2 } } },
    { "histogram: an edge is 2; it must be 0 or more seconds, and not above the next", dist.histogram,
        { { 2, 1 }, { 1, 1 } } },
    { "histogram: the sum of the weights is 0", dist.histogram, { { 1, 0 } } },
}

function TestDist.test_misuse_is_told_with_the_knob_the_value_and_the_limit()
    for _, case in ipairs(refused) do
        lu.assertErrorMsgContains("weir: " .. case[1], case[2], case[3], case[4], case[5])
    end
end

function TestDist.test_misuse_is_told_at_the_callers_line()
    local line = debug.getinfo(1, "l").currentline + 1
    local _, err = pcall(function() local made = dist.uniform(2, 1) return made end)
    lu.assertStrContains(err, ("test_dist.lua:%d: weir: uniform"):format(line))
end

function TestDist.test_a_table_of_ones_own_is_read_as_strictly()
    local cases = {
        { "x.kind is missing", {} },
        { "x.kind is 'bell'; it must be one of constant, uniform", { kind = "bell" } },
        { "x.mean is not a known option", { kind = "constant", mean = 1 } },
        { "x.edges is a nil; it must be a list of numbers", { kind = "histogram" } },
        { "x.edges holds 1 numbers; with 1 weights it must hold 2",
            { kind = "histogram", edges = { 0 }, weights = { 1 } } },
        { "x.weights holds a string at place 1",
            { kind = "histogram", edges = { 0, 1 }, weights = { "a" } } },
        { "x is a boolean; it must be a number of seconds or a distribution", true },
        { "x: the duration is -0.1; it must be 0 or more seconds", -0.1 },
    }
    for _, case in ipairs(cases) do
        local got, why = mean(case[2])
        lu.assertNil(got)
        lu.assertStrContains(why, case[1])
    end
end

os.exit(lu.LuaUnit.run())
