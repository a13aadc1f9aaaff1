--- A figure with its bounds: s.goodput("after"):at_least(0.99). Incomplete until it has one.

local check = require "weir.scenario.check"
local place = require "weir.scenario.place"

local measure = {}

local Measure = { replaces = false }
local limits = { "at_least", "at_most", "between", "is" }

-- Who mistypes a limit is told of it.
function Measure:__index(key)
    if Measure[key] ~= nil or type(key) ~= "string" then return Measure[key] end
    local where = rawget(self, "where")
    where:fail("%s: %s is no limit of a figure%s", where.title, key, check.hint(key, limits))
end

--- A measure of `noun`. read(figures) gives the value and a particular to be said with it, or nil and why
-- there is no value; show(value) writes it. `needs`: { phase =, server = } names that must exist, and
-- `most`, above which the value never is.
function measure.new(spot, noun, read, show, needs)
    return setmetatable({
        where = spot, noun = noun, read = read, show = show, needs = needs or {}, bounds = {},
    }, Measure)
end

function measure.is(value)
    return getmetatable(value) == Measure
end

local function bound(self, word, limit, fine, upper)
    if not measure.is(self) then
        place.here("s"):fail("a limit follows a colon: s.goodput():at_least(0.99), not " ..
            "s.goodput().at_least(0.99)")
    end
    check.number(self.where, limit)
    if upper then check.number(self.where, upper, limit) end
    local most = self.needs.most
    if most and limit > most then
        self.where:fail("%s is a share, from 0 to %d; it cannot be %s", self.where.title, most,
            check.shown(limit))
    end
    self.bounds[#self.bounds + 1] = { word = word, limit = limit, upper = upper, fine = fine }
    return self
end

function Measure:at_most(limit)
    return bound(self, "at most", limit, function(value) return value <= limit end)
end

function Measure:at_least(limit)
    return bound(self, "at least", limit, function(value) return value >= limit end)
end

function Measure:between(least, most)
    return bound(self, "between", least, function(value) return value >= least and value <= most end, most)
end

function Measure:is(value)
    return bound(self, "", value, function(seen) return seen == value end)
end

--- Whether it has a bound.
function Measure:complete()
    return #self.bounds > 0
end

local function wanted(self, entry)
    if entry.upper then
        return ("between %s and %s"):format(self.show(entry.limit), self.show(entry.upper))
    end
    return (entry.word ~= "" and entry.word .. " " or "") .. self.show(entry.limit)
end

-- So many digits that a value which is not good enough does not look as if it were.
local function shown(self, value, entry)
    local text = self.show(value)
    local looks_fine = text == self.show(entry.limit) or entry.upper and text == self.show(entry.upper)
    return looks_fine and ("%.9g"):format(value) or text
end

--- True, or false and what is wrong.
function Measure:verify(seen)
    local value, particular = self.read(seen)
    for _, entry in ipairs(self.bounds) do
        if value == nil then
            return false, ("%s should be %s, but %s"):format(self.noun, wanted(self, entry), particular)
        elseif not entry.fine(value) then
            return false, ("%s should be %s, was %s%s"):format(self.noun, wanted(self, entry),
                shown(self, value, entry), particular and " " .. particular or "")
        end
    end
    return true
end

return measure
