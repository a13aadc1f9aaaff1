--- Where the documents of `weir top` and `weir tail` come from: the area of an engine, of this process or
-- of another.
--
-- Nobody else here knows that there are areas. When another file takes the place of the one that is looked
-- at, the feed goes over to it, and says so.

local core = require "weir.core"
local dkjson = require "dkjson"

local feed = {}

local Feed = {}
Feed.__index = Feed

-- An area that somebody has written over may tell any number. What no engine ever counts to is cut, so
-- that those who reckon with numbers need not ask what they are.
local MOST = 1 << 53

local function tame(value)
    if type(value) == "table" then
        for key, item in pairs(value) do value[key] = tame(item) end
    elseif type(value) == "number" then
        if value ~= value then return 0 end
        if value > MOST then return MOST end
        if value < -MOST then return -MOST end
    end
    return value
end

--- The feed of an area that is open already, such as an engine's own.
function feed.of(area)
    return setmetatable({ area = area }, Feed)
end

--- The feed of the file at `path`; nil and a sentence if there is no area to look at.
function feed.open(path)
    local area, why = core.attach(path)
    if not area then return nil, why end
    return setmetatable({ area = area, path = path, life = 1 }, Feed)
end

-- The new file, if it can be had already; until then the old one tells what it has.
local function go_over(self)
    local area = self.path and core.attach(self.path)
    if not area then return false end
    self.area:close()
    self.area = area
    self.life = self.life + 1
    return true
end

--- How the area stands: "live", "deserted", "replaced", "gone" or "damaged", and a sentence. After
-- "replaced" the feed is that of the new file, if that is one: `life` counts them.
function Feed:look()
    local state, why = self.area:look()
    if not state then return "gone", why end
    return state, why
end

--- Goes over to the file that is at the path now; true if that could be done.
function Feed:follow()
    return go_over(self)
end

--- One document, decoded; nil and a sentence if it cannot be had. Not in a pcall: it would swallow the
-- error that a signal is.
function Feed:document(name, argument)
    local text, why = self.area:json(name, argument)
    if not text then return nil, why end
    local value, _, wrong = dkjson.decode(text)
    if value == nil then return nil, ("the document %s: %s"):format(name, wrong) end
    return tame(value)
end

-- Looks, and goes over to another file where that is the thing to do.
local function look_and_follow(self)
    local state, why = self:look()
    if (state == "replaced" or state == "gone" or state == "damaged") and self:follow() then
        state, why = self:look()
        return state, why, true
    end
    return state, why, false
end

--- The calls that ended last, the newest first. They take by far the longest of all to read.
function Feed:calls(most)
    return self:document("calls", most or 1000) or {}
end

--- Everything that `weir top` shows, as of now: stats, calls (unless most_calls is 0), events, workers, and `area` = {
-- state, why, replaced }. `at` is the wall clock in seconds. nil and a sentence if the area cannot be
-- read.
function Feed:reading(at, most_calls)
    local state, why, replaced = look_and_follow(self)
    local reading = { at = at, area = { state = state, why = why, replaced = replaced } }
    local wrong
    reading.stats, wrong = self:document "stats"
    if not reading.stats then return nil, wrong end
    reading.workers = self:document "workers" or {}
    if most_calls ~= 0 then reading.calls = self:calls(most_calls) end
    reading.events = self:document("events", 0) or {}
    return reading
end

--- Gives the area back.
function Feed:close()
    self.area:close()
end

return feed
