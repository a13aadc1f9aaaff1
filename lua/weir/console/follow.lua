--- Calls and events in the order in which they happened, each once, from readings that overlap.
--
-- What two workers write at about the same time may be seen in either order, so what a reading brings is
-- held back until the next one, unless it is older than the newest of the one before. No clock is asked.
--
-- An item is { kind = "call" or "event", at_us = when it ended or happened, what = the document's entry },
-- or { kind = "note", text = }.

local follow = {}

local Follow = {}
Follow.__index = Follow

local REMEMBERED = 4096 -- keys, at least

local function end_of(call)
    return call.started_us + math.floor(call.duration_ms * 1000 + 0.5)
end

-- ---- what is new ------------------------------------------------------------------------------------------

-- Readings overlap by less than is remembered: whoever is met again is remembered anew.
local function is_new(self, key)
    local known = self.seen[key] or self.seen_before[key]
    if not self.seen[key] then
        self.seen[key] = true
        self.seen_count = self.seen_count + 1
        if self.seen_count > REMEMBERED then self.seen_before, self.seen, self.seen_count = self.seen, {},
            0 end
    end
    return not known
end

-- A worker that starts again gives the same ids once more, at another time.
local function new_calls(self, calls, items)
    for _, call in ipairs(calls) do
        if is_new(self, ("%s@%d"):format(call.id, call.started_us)) then
            items[#items + 1] = { kind = "call", at_us = end_of(call), what = call }
        end
    end
end

-- Sequence numbers have no gaps, unless the ring has overtaken us. An area that took the place of another
-- may have the other's events, or begin with 1.
local function new_events(self, events, items)
    for _, event in ipairs(events) do
        if self.event and event.sequence > self.event + 1 then
            self.lost_events = self.lost_events + event.sequence - self.event - 1
        end
        self.event = event.sequence
        if is_new(self, ("event %d@%d"):format(event.sequence, event.at_us)) then
            items[#items + 1] = { kind = "event", at_us = event.at_us, what = event }
        end
    end
end

-- ---- order ------------------------------------------------------------------------------------------------

local function sort(items)
    for i, item in ipairs(items) do item.place = i end
    table.sort(items, function(a, b)
        if a.at_us ~= b.at_us then return a.at_us < b.at_us end
        return a.place < b.place
    end)
    return items
end

local function newest(items)
    return #items > 0 and items[#items].at_us or nil
end

-- Those that are ready now; the others wait for the next reading.
local function release(self, items)
    local horizon = newest(self.held)
    local all = sort(table.move(items, 1, #items, #self.held + 1, self.held))
    local ready, held = {}, {}
    for _, item in ipairs(all) do
        local to = horizon and item.at_us <= horizon and ready or held
        to[#to + 1] = item
    end
    self.held = held
    return ready
end

local function note_losses(self, lost_calls, ready)
    local texts = {}
    if lost_calls > 0 then
        texts[1] = ("%d calls were overwritten before they could be read"):format(lost_calls)
    end
    if self.lost_events > 0 then
        texts[#texts + 1] = ("%d events were overwritten before they could be read"):format(self.lost_events)
    end
    self.lost_events = 0
    for i, text in ipairs(texts) do table.insert(ready, i, { kind = "note", text = text }) end
end

--- Takes a reading { calls, events, lost = calls that were overwritten } in; returns the items that are
-- ready, in order. Of the first reading it is the last `most`.
function Follow:take(reading, most)
    self.turn = self.turn + 1
    local items, first = {}, self.turn == 1
    new_calls(self, reading.calls, items)
    new_events(self, reading.events, items)
    if first then return self:begin(items, most or 0) end
    local ready = release(self, items)
    note_losses(self, reading.lost or 0, ready)
    return ready
end

--- The last `most` of the first reading's items that `wanted` lets through.
function Follow:begin(items, most)
    local kept, wanted = {}, self.wanted
    sort(items)
    for i = #items, 1, -1 do
        if #kept >= most then break end
        if wanted(items[i]) then table.insert(kept, 1, items[i]) end
    end
    return kept
end

--- What is still held back, in order: for the end.
function Follow:rest()
    local held = self.held
    self.held = {}
    return held
end

--- Another area has taken the place of the one that was followed; its events may be counted anew.
function Follow:elsewhere()
    self.event = nil
end

--- The sequence number of the last event, 0 if there was none.
function Follow:last_event()
    return self.event or 0
end

--- Follows; `wanted(item)` says which items count for the first reading.
function follow.new(wanted)
    return setmetatable({
        turn = 0, seen = {}, seen_before = {}, seen_count = 0, held = {}, lost_events = 0,
        wanted = wanted or function() return true end,
    }, Follow)
end

return follow
