--- How requests arrive: the words of a scenario's load.arrivals, and what they mean for the load's
-- generator.

local check = require "weir.scenario.check"
local place = require "weir.scenario.place"

local arrivals = {}

local Arrivals = {}
Arrivals.__index = Arrivals

local BURSTS_MAX, POINTS_MAX, USERS_MAX = 256, 256, 100000

local window_keys = { from = true, to = true }

local function new(spot, kind, fields)
    fields.kind = kind
    fields.where = spot
    return setmetatable(fields, Arrivals)
end

--- Whether a value was made by one of these words.
function arrivals.is(value)
    return getmetatable(value) == Arrivals
end

local function check_window(spot, options)
    local from = options.from and check.number(spot:at "from", options.from, 0)
    local to = options.to and check.positive(spot:at "to", options.to)
    if from and to and to <= from then
        spot:at("to"):wrong("is %s; it must be more than from, %s", check.shown(to), check.shown(from))
    end
    return from, to
end

local function steady(word, poisson, per_second, options)
    local spot = place.here("s." .. word)
    check.positive(spot:at "per_second", per_second)
    local from, to = check_window(spot, check.keys(spot, options or {}, window_keys))
    return new(spot, word, {
        poisson = poisson, rates = { { 0, per_second } }, bursts = {}, users = 0, from = from, to = to,
    })
end

--- Independent users: so many requests a second on average, at random moments.
function arrivals.poisson(per_second, options)
    return steady("poisson", true, per_second, options)
end

--- So many requests a second, evenly spaced.
function arrivals.constant(per_second, options)
    return steady("constant", false, per_second, options)
end

local ramp_keys = { even = true }

--- A rate that changes evenly from point to point, { second, requests a second }; two points at one second
-- are a step. Random moments, or evenly spaced ones with even = true.
function arrivals.ramp(points)
    local spot = place.here("s.ramp")
    check.keys(spot, points, ramp_keys, true)
    local rates, before = {}, 0
    for i, point in ipairs(points) do
        local at = spot:at(i)
        check.type(at, point, "table", "a point { second, requests a second }")
        check.number(at, point[1], before)
        check.number(at, point[2], 0)
        rates[i], before = { point[1], point[2] }, point[1]
    end
    if #rates == 0 or #rates > POINTS_MAX then
        spot:fail("s.ramp has %d points; it takes 1 to %d, like { {0, 100}, {60, 500} }", #rates, POINTS_MAX)
    end
    return new(spot, "ramp", { poisson = not points.even, rates = rates, bursts = {}, users = 0 })
end

local burst_keys = { at = true, requests = true, every = true }

--- Many at one moment; again and again with `every`.
function arrivals.burst(options)
    local spot = place.here("s.burst")
    check.keys(spot, options, burst_keys)
    check.number(spot:at "at", options.at, 0)
    check.whole(spot:at "requests", options.requests, 1, 10000000)
    if options.every then check.positive(spot:at "every", options.every) end
    return new(spot, "burst", {
        rates = {}, bursts = { { options.at, options.requests } }, users = 0, every = options.every,
    })
end

local users_keys = { think = true, from = true, to = true }

--- A closed loop: each user sends, waits for the end, thinks, and sends again.
function arrivals.users(count, options)
    local spot = place.here("s.users")
    options = check.keys(spot, options or {}, users_keys)
    check.whole(spot:at "users", count, 1, USERS_MAX)
    local think = options.think or { kind = "exponential", a = 1 }
    check.duration(spot:at "think", think)
    local from, to = check_window(spot, options)
    return new(spot, "users", { rates = {}, bursts = {}, users = count, think = think, from = from, to = to })
end

-- A burst that is repeated, as all its moments until the end.
local function burst_list(self, duration)
    local first = self.bursts[1]
    if not first then return {} end
    if first[1] >= duration then
        self.where:fail("s.burst: at is %s, after the end of the load (%s s)", check.shown(first[1]),
            check.shown(duration))
    end
    if not self.every then return { first } end
    local count = math.ceil((duration - first[1]) / self.every)
    if count > BURSTS_MAX then
        self.where:fail("s.burst: every = %s gives %d bursts in %s s; at most %d are possible",
            check.shown(self.every), count, check.shown(duration), BURSTS_MAX)
    end
    local list = {}
    for i = 1, count do list[i] = { first[1] + (i - 1) * self.every, first[2] } end
    return list
end

--- The arrivals of one scenario, checked against its duration; a copy, since several scenarios may share
-- them.
function Arrivals:fit(duration)
    if (self.from or 0) >= duration then
        self.where:fail("s.%s: from is %s, after the end of the load (%s s)", self.kind,
            check.shown(self.from),
            check.shown(duration))
    end
    local fitted = {}
    for key, value in pairs(self) do fitted[key] = value end
    fitted.all_bursts = burst_list(self, duration)
    return setmetatable(fitted, Arrivals)
end

-- Whole things among several: the first ones get one more.
local function part_of(count, parts, index)
    local base = math.floor(count / parts)
    return base + (index <= count - base * parts and 1 or 0)
end

--- What engine `index` of `parts` gets of it, as fields of the load's options.
function Arrivals:share(parts, index, duration)
    local rates, bursts = {}, {}
    for i, point in ipairs(self.rates) do rates[i] = { point[1], point[2] / parts } end
    for _, burst in ipairs(self.all_bursts) do
        local requests = part_of(burst[2], parts, index)
        if requests > 0 then bursts[#bursts + 1] = { burst[1], requests } end
    end
    return {
        poisson = self.poisson or false, rates = rates, bursts = bursts, users = part_of(self.users, parts,
            index),
        think = self.think, from = self.from or 0, upto = math.min(self.to or duration, duration),
    }
end

return arrivals
