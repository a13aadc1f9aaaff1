--- The calls that have ended since the last time, from documents that know no "since".
--
-- "calls" gives the newest by their start, so mostly a few of them are enough, and as many more as it
-- takes to meet one that was seen. A call that has lasted long stands further back: once in a while all
-- are looked at. How many calls the rings lost meanwhile is told by the counters, as a lower bound: some
-- may have ended between the two readings.

local harvest = {}

local Harvest = {}
Harvest.__index = Harvest

local FEW, ALL = 32, 1024
local SWEEP = 10 -- every so many times, all

local ends = { "ok", "failed", "refused", "timeout", "unknown", "cancelled" }

local function ended(feed)
    local stats, sum = feed:document "stats", 0
    for _, pool in ipairs(stats and stats.pools or {}) do
        for _, name in ipairs(ends) do sum = sum + pool.calls[name] end
    end
    return stats and sum
end

local function key_of(call)
    return ("%s@%d"):format(call.id, call.started_us)
end

-- Marks what is seen for the first time; true if something in the list was known before.
local function mark(self, calls)
    local met, fresh = false, {}
    for _, call in ipairs(calls) do
        local key = key_of(call)
        if self.seen[key] or self.seen_before[key] then
            met = true
        else
            fresh[#fresh + 1] = key
        end
        self.seen[key] = true
    end
    self.count = self.count + #fresh
    return met
end

local function forget(self)
    self.seen_before, self.seen = self.seen, {}
end

local function newest(self, most)
    return self.feed:document("calls", most) or {}
end

local function a_few(self)
    local most = FEW
    while true do
        local calls = newest(self, most)
        local met = mark(self, calls)
        if met or #calls < most or most >= ALL then return calls end
        most = most * 4 > ALL and ALL or most * 4
    end
end

local function all(self)
    local before = ended(self.feed)
    forget(self)
    local calls = newest(self, ALL)
    mark(self, calls)
    if not self.base then
        self.base = (ended(self.feed) or 0) - self.count
        return calls, 0
    end
    local lost = math.max(0, (before or 0) - self.base - self.count)
    local more = math.max(0, lost - self.lost)
    self.lost = self.lost + more
    return calls, more
end

--- Calls that have ended, among them all that were not seen yet; how many were lost, at least.
function Harvest:take()
    self.turn = self.turn + 1
    if self.turn % SWEEP == 1 then return all(self) end
    return a_few(self), 0
end

--- Of a feed.
function harvest.new(feed)
    return setmetatable({ feed = feed, turn = 0, count = 0, lost = 0, seen = {}, seen_before = {} }, Harvest)
end

return harvest
