--- A binary heap of tasks by the time they are due; of two due at once, the one that lay down first.

local sleepers = {}

local heap, count, order = {}, 0, 0

local function before(a, b)
    return a.due < b.due or (a.due == b.due and a.order < b.order)
end

local function place(sleeper, index)
    heap[index] = sleeper
    sleeper.index = index
end

local function rise(sleeper, index)
    while index > 1 do
        local above = (index - index % 2) / 2
        if not before(sleeper, heap[above]) then break end
        place(heap[above], index)
        index = above
    end
    place(sleeper, index)
end

local function sink(sleeper, index)
    while true do
        local below = index * 2
        if below > count then break end
        if below < count and before(heap[below + 1], heap[below]) then below = below + 1 end
        if not before(heap[below], sleeper) then break end
        place(heap[below], index)
        index = below
    end
    place(sleeper, index)
end

--- Puts all sleepers aside and begins with none, or with those put aside before. Returns what was there.
function sleepers.exchange(others)
    local before = { heap = heap, count = count, order = order }
    others = others or { heap = {}, count = 0, order = 0 }
    heap, count, order = others.heap, others.count, others.order
    return before
end

--- Adds a sleeper for `owner`, due at `due`; returned so that it can be removed.
function sleepers.add(due, owner)
    count = count + 1
    order = order + 1
    local sleeper = { due = due, owner = owner, order = order }
    rise(sleeper, count)
    return sleeper
end

--- Takes one out before its time; nothing happens if it has left already.
function sleepers.remove(sleeper)
    local index = sleeper.index
    if not index then return end
    local last = heap[count]
    heap[count] = nil
    count = count - 1
    sleeper.index = nil
    if last == sleeper then return end
    rise(last, index)
    sink(last, last.index)
end

--- When the first is due, or nil if nobody sleeps.
function sleepers.first_due()
    return count > 0 and heap[1].due or nil
end

--- Whether one is due at `now`.
function sleepers.is_due(now)
    return count > 0 and heap[1].due <= now
end

--- Takes out and returns the owner of the first one due at `now`, or nil.
function sleepers.pop_due(now)
    local first = heap[1]
    if not first or first.due > now then return nil end
    sleepers.remove(first)
    return first.owner
end

return sleepers
