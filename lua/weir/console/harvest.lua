--- The calls that have ended since the last time: each worker's ring numbers them, so what was overwritten
-- before it could be read leaves a gap.

local harvest = {}

local Harvest = {}
Harvest.__index = Harvest

local MANY = 1024 -- calls of one ring that a document holds, at most
local NUMBERS = 1 << 40 -- a worker's number stands above those of its calls

-- What a document holds of a ring after the number `after`; nothing if the area cannot be read.
local function page(self, worker, after)
    return self.feed:document("finished", worker * NUMBERS + after)
end

-- Gaps count from the second look on: what was before we came is nobody's loss.
local function take_calls(self, worker, list, calls)
    local last, lost = self.last[worker], 0
    for _, call in ipairs(list) do
        if last then lost = lost + call.n - last - 1 end
        last = call.n
        calls[#calls + 1] = call
    end
    self.last[worker] = last or self.last[worker]
    return lost
end

-- Returns how many workers there are, and how many calls were lost.
local function take_ring(self, worker, calls)
    local workers, lost = 0, 0
    repeat
        local found = page(self, worker, self.last[worker] or 0)
        if not found then break end
        workers = found.workers
        lost = lost + take_calls(self, worker, found.calls, calls)
        self.last[worker] = self.last[worker] or found.recorded
    until #found.calls < MANY
    return workers, lost
end

--- The calls that have ended since the last time, and how many of them were lost.
function Harvest:take()
    local calls, lost, worker, workers = {}, 0, 1, 1
    while worker <= workers do
        local more
        workers, more = take_ring(self, worker, calls)
        lost, worker = lost + more, worker + 1
    end
    return calls, lost
end

--- Of a feed.
function harvest.new(feed)
    return setmetatable({ feed = feed, last = {} }, Harvest)
end

return harvest
