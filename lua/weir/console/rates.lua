--- Figures of an engine from readings of its area: what changed between two of them, in a second, and since
-- when.
--
-- A reading is { at = seconds, stats = document, histograms = document or nil, workers, calls, events =
-- documents }. `rates.new():take(reading)` returns the figures; they hold no more than plain values and
-- lists of them.

local spread = require "weir.console.spread"

local rates = {}

local Rates = {}
Rates.__index = Rates

local WINDOW = 10      -- intervals that the figures of labels are of
local HISTORY = 240    -- moments that curves are drawn of, at most

local ends = { "ok", "failed", "refused", "timeout", "unknown", "cancelled" }

-- ---- what is kept of a reading ----------------------------------------------------------------------------

local function counts_of(source, retries)
    local counts = { retries = retries or 0, ended = 0 }
    for _, name in ipairs(ends) do
        counts[name] = source[name] or 0
        counts.ended = counts.ended + counts[name]
    end
    return counts
end

local function add_counts(to, from)
    for name, value in pairs(from) do
        if type(value) == "number" then to[name] = (to[name] or 0) + value end
    end
end

local function with_durations(counts, source, edges)
    counts.spread, counts.sum_ms = spread.of(source.histogram, edges), source.duration_ms.sum
    return counts
end

local function mark_label(marks, pool, label, edges)
    local part = with_durations(counts_of(label, label.retries), label, edges)
    part.pool = pool
    local whole = marks.labels[label.label]
    if not whole then
        whole = { label = label.label, parts = {} }
        marks.labels[label.label] = whole
    end
    add_counts(whole, part)
    whole.spread = spread.sum(whole.spread, part.spread)
    whole.parts[#whole.parts + 1] = part
end

local function mark_of(reading)
    local marks = { at = reading.at, pools = {}, labels = {} }
    for _, pool in ipairs(reading.stats.pools or {}) do
        local mark = with_durations(counts_of(pool.calls, pool.attempts.retries), pool)
        mark.started = pool.calls.started
        marks.pools[pool.pool] = mark
        for _, label in ipairs(pool.labels or {}) do
            mark_label(marks, pool.pool, label, pool.histogram and pool.histogram.edges_ms)
        end
    end
    return marks
end

-- ---- differences ------------------------------------------------------------------------------------------

local function difference(new, old, seconds)
    local found = { seconds = seconds, ended = 0 }
    for _, name in ipairs(ends) do
        found[name] = new[name] - (old and old[name] or 0)
        if found[name] < 0 then return difference(new, nil, seconds) end
        found.ended = found.ended + found[name]
    end
    found.retries = math.max(0, new.retries - (old and old.retries or 0))
    found.sum_ms = math.max(0, new.sum_ms - (old and old.sum_ms or 0))
    found.spread = spread.since(new.spread, old and old.spread)
    return found
end

local function share(part, whole)
    if whole > 0 then return part / whole end
end

-- Rates, shares and quantiles of a difference.
local function described(found)
    local per = found.seconds > 0 and 1 / found.seconds or 0
    found.calls_s = found.ended * per
    found.errors = found.failed + found.timeout + found.unknown
    found.errors_s = found.errors * per
    found.refused_s = found.refused * per
    found.retries_s = found.retries * per
    found.ok_share = share(found.ok, found.ended)
    found.mean_ms = share(found.sum_ms, found.ended)
    found.p50, found.p95, found.p99 = spread.quantiles(found.spread, 0.5, 0.95, 0.99)
    return found
end

-- ---- the figures ------------------------------------------------------------------------------------------

local function pool_figures(pool, new, old, seconds)
    local found = described(difference(new, old, seconds))
    local c = pool.connections
    found.pool, found.client, found.backend = pool.pool, pool.client, pool.backend
    found.max, found.busy, found.idle, found.waiting = c.max, c.busy, c.idle, c.waiting
    found.connecting, found.open, found.in_flight, found.canceling = c.connecting, c.open, c.in_flight,
        c.canceling
    found.paused, found.draining, found.forced_for = pool.paused, pool.draining, pool.forced_for
    found.resized, found.configured_max = pool.resized, pool.configured_max
    found.breaker, found.budget, found.state = pool.breaker, pool.budget, pool.breaker.state
    found.wait_p99 = pool.wait_ms.count > 0 and pool.wait_ms.p99 or nil
    found.whole = { calls = pool.calls, attempts = pool.attempts, refused = pool.refused,
        closed = pool.closed, events = pool.events }
    return found
end

local gauges = { "max", "busy", "idle", "waiting", "connecting", "open", "in_flight" }

local function total_of(pools, seconds)
    local total = { retries = 0, sum_ms = 0, ended = 0, seconds = seconds }
    for _, name in ipairs(ends) do total[name] = 0 end
    for _, name in ipairs(gauges) do total[name] = 0 end
    for _, pool in ipairs(pools) do
        for name, value in pairs(total) do
            if name ~= "seconds" and name ~= "spread" then total[name] = value + (pool[name] or 0) end
        end
        total.spread = spread.sum(total.spread, pool.spread)
    end
    return described(total)
end

local function label_part(new, old, seconds)
    for _, before in ipairs(old and old.parts or {}) do
        if before.pool == new.pool then
            return described(difference(new, before, seconds))
        end
    end
    return described(difference(new, nil, seconds))
end

local function label_figures(new, old, seconds)
    local found = described(difference(new, old, seconds))
    found.label, found.parts, found.whole = new.label, {}, new
    for i, part in ipairs(new.parts) do
        local figures = label_part(part, old, seconds)
        figures.pool, figures.whole = part.pool, part
        found.parts[i] = figures
    end
    found.pool = #found.parts == 1 and found.parts[1].pool or ("%d pools"):format(#found.parts)
    return found
end

local function all_labels(new, old, seconds)
    local list, time = {}, 0
    for label, mark in pairs(new.labels) do
        local found = label_figures(mark, old and old.labels[label], seconds)
        time = time + found.sum_ms
        list[#list + 1] = found
    end
    for _, found in ipairs(list) do found.time_share = share(found.sum_ms, time) or 0 end
    table.sort(list, function(a, b) return a.label < b.label end)
    return list
end

-- ---- one reading after another ----------------------------------------------------------------------------

-- Counters fall only when another area has taken the place of this one.
local function belongs_to(new, old)
    for name, pool in pairs(old.pools) do
        local now = new.pools[name]
        if not now or now.started < pool.started then return false end
    end
    return true
end

local function remember(self, marks)
    local last = self.marks[#self.marks]
    if last and not belongs_to(marks, last) then self.marks = {} end
    table.insert(self.marks, marks)
    if #self.marks > WINDOW + 1 then table.remove(self.marks, 1) end
end

local function add_moment(history, name, value)
    local list = history[name]
    list[#list + 1] = value or false
    if #list > HISTORY then table.remove(list, 1) end
end

local function remember_moment(self, total)
    for _, name in ipairs { "calls_s", "ok_share", "errors_s", "p50", "p95", "p99", "waiting", "busy" } do
        self.history[name] = self.history[name] or {}
        add_moment(self.history, name, total[name])
    end
end

-- The first reading is of the time since all counters stood at zero.
local function seconds_between(new, old, stats)
    local seconds = old and new.at - old.at or (stats.now_us - stats.created_us) / 1e6
    return seconds > 0 and seconds or 1
end

local function copied(history)
    local copy = {}
    for name, list in pairs(history) do copy[name] = table.move(list, 1, #list, 1, {}) end
    return copy
end

--- Takes a reading in; returns the figures. The first one has no rates of a moment: its are means since the
-- start.
function Rates:take(reading)
    local stats, marks = reading.stats, mark_of(reading)
    remember(self, marks)
    local last, first = self.marks[#self.marks - 1], #self.marks > 1 and self.marks[1] or nil
    local seconds = seconds_between(marks, last, stats)
    local pools = {}
    for i, pool in ipairs(stats.pools or {}) do
        pools[i] = pool_figures(pool, marks.pools[pool.pool], last and last.pools[pool.pool], seconds)
    end
    local total = total_of(pools, seconds)
    if last then remember_moment(self, total) end
    return {
        at = reading.at, seconds = seconds, first = last == nil, pools = pools, total = total,
        window = first and marks.at - first.at or seconds,
        labels = all_labels(marks, first, seconds_between(marks, first, stats)),
            history = copied(self.history),
        name = stats.name, health = stats.health, worker_count = stats.workers, uptime = stats.uptime,
        policy = stats.policy, draining = stats.draining, checks = stats.checks or {},
        workers = reading.workers or {}, calls = reading.calls or {}, events = reading.events or {},
    }
end

--- What takes readings.
function rates.new()
    return setmetatable({ marks = {}, history = {} }, Rates)
end

return rates
