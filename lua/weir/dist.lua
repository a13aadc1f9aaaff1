--- How a duration is spread: plain tables that a simulated server, a load or a user's pause takes wherever
-- it takes a number of seconds. What they mean, and what may stand in them, is decided in C (weir/dist.h).

local core = require "weir.core"
local errors = require "weir.errors"

local dist = {}

local function check_number(what, name, value)
    if type(value) ~= "number" or value ~= value then
        local given = type(value) == "number" and "not a number (nan)" or "a " .. type(value)
        errors.misusef("%s: %s is %s; it must be a number", what, name, given)
    end
    return value
end

-- The same check that the taker of the distribution makes, but here the caller's line is still known.
local function checked(what, made)
    local mean, why = core.dist({ [what] = made }, what)
    if not mean then errors.misuse(why) end
    return made
end

--- Always the same.
function dist.constant(seconds)
    return checked("constant", { kind = "constant", a = check_number("constant", "the duration", seconds) })
end

--- Anything between the two, each as likely.
function dist.uniform(shortest, longest)
    return checked("uniform", {
        kind = "uniform",
        a = check_number("uniform", "the shortest", shortest),
        b = check_number("uniform", "the longest", longest),
    })
end

--- Without memory: the usual model of a short statement.
function dist.exponential(mean)
    return checked("exponential", { kind = "exponential", a = check_number("exponential", "the mean", mean) })
end

--- Around a mean; what falls below zero counts by its size.
function dist.normal(mean, deviation)
    return checked("normal", {
        kind = "normal",
        a = check_number("normal", "the mean", mean),
        b = check_number("normal", "the deviation", deviation),
    })
end

--- Half of it below the median, the rest with a long tail; sigma is the deviation of the logarithm.
function dist.lognormal(median, sigma)
    return checked("lognormal", {
        kind = "lognormal",
        a = check_number("lognormal", "the median", median),
        b = check_number("lognormal", "sigma", sigma),
    })
end

--- A heavy tail above `least`: the smaller the shape, the heavier. Cut at `cut` (1000 times the least).
function dist.pareto(least, shape, cut)
    return checked("pareto", {
        kind = "pareto",
        a = check_number("pareto", "the least", least),
        b = check_number("pareto", "the shape", shape),
        c = check_number("pareto", "the cut", cut or 0),
    })
end

--- Recorded: a list of { up to how many seconds, weight }, in rising order, the first from 0.
function dist.histogram(bins)
    if type(bins) ~= "table" then
        errors.misusef("histogram: the bins are a %s; they must be a list of { seconds, weight }", type(bins))
    end
    local edges, weights = { 0 }, {}
    for i, bin in ipairs(bins) do
        if type(bin) ~= "table" then
            errors.misusef("histogram: bin %d is a %s; it must be { seconds, weight }", i, type(bin))
        end
        edges[i + 1] = check_number("histogram", ("the edge of bin %d"):format(i), bin[1])
        weights[i] = check_number("histogram", ("the weight of bin %d"):format(i), bin[2])
    end
    return checked("histogram", { kind = "histogram", edges = edges, weights = weights })
end

return dist
