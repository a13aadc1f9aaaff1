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
    to.mean_ms = to.ended > 0 and to.sum_ms / to.ended or 0
    to.exact_sum = from.exact_sum
end

-- Time in all: as the document says, else as far as its mean tells.
local function with_durations(counts, source, edges)
    local summary = source.duration_ms
    counts.spread, counts.mean_ms = spread.of(source.histogram, edges), summary.mean
    counts.sum_ms, counts.exact_sum = summary.sum or summary.mean * summary.count, summary.sum ~= nil
    return counts
end

local function mark_label(marks, pool, label, edges)
    local part = with_durations(counts_of(label, label.retries), label, edges)
    part.pool, part.lasting = pool, label.duration_ms
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

-- A mean has three decimals: of many calls, what it says of the last few drowns in its rounding. Their
-- usual time says more then.
local function time_between(new, old, ended)
    local time = math.max(0, new.sum_ms - (old and old.sum_ms or 0))
    local usual = ended * (new.mean_ms or 0)
    if not old or new.exact_sum or new.ended * 0.001 < usual * 0.05 then return time end
    return usual
end

local function difference(new, old, seconds)
    local found = { seconds = seconds, ended = 0 }
    for _, name in ipairs(ends) do
        found[name] = new[name] - (old and old[name] or 0)
        if found[name] < 0 then return difference(new, nil, seconds) end
        found.ended = found.ended + found[name]
    end
    found.retries = math.max(0, new.retries - (old and old.retries or 0))
    found.sum_ms = time_between(new, old, found.ended)
    found.spread = spread.since(new.spread, old and old.spread)
    return found
end

local function share(part, whole)
    if whole > 0 then return part / whole end
end

-- Rates, shares and quantiles of a difference. `lasting` is what the documents say of the quantiles since
-- the area was made, for those who have no buckets.
local function described(found, lasting)
    local per = found.seconds > 0 and 1 / found.seconds or 0
    found.calls_s = found.ended * per
    found.errors = found.failed + found.timeout + found.unknown
    found.errors_s = found.errors * per
    found.refused_s = found.refused * per
    found.retries_s = found.retries * per
    found.ok_share = share(found.ok, found.ended)
    found.mean_ms = share(found.sum_ms, found.ended)
    if found.spread then
        found.p50, found.p95, found.p99 = spread.quantiles(found.spread, 0.5, 0.95, 0.99)
    elseif lasting and (lasting.count or 0) > 0 then
        found.p50, found.p95, found.p99 = lasting.p50, lasting.p95, lasting.p99
    end
    return found
end

-- ---- the figures ------------------------------------------------------------------------------------------

local function pool_figures(pool, new, old, seconds)
    local found = described(difference(new, old, seconds), pool.duration_ms)
    local c = pool.connections
    found.pool, found.client, found.backend = pool.pool, pool.client, pool.backend
    found.max, found.busy, found.idle, found.waiting = c.max, c.busy, c.idle, c.waiting
    found.connecting, found.open, found.in_flight, found.canceling = c.connecting, c.open, c.in_flight,
        c.canceling
    found.paused, found.draining, found.forced_for = pool.paused, pool.draining, pool.forced_for
    found.resized, found.configured_max = pool.resized, pool.configured_max
    found.breaker, found.budget, found.state = pool.breaker, pool.budget, pool.breaker.state
    if (pool.wait_ms.count or 0) > 0 then
        found.wait_p99 = pool.wait_ms.p99
    end
    found.whole = { calls = pool.calls, attempts = pool.attempts, refused = pool.refused,
        closed = pool.closed,
        events = pool.events }
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
    -- without buckets there is no telling what several pools have together; the worst of them is no lie
    local worst
    for _, pool in ipairs(pools) do
        if not total.spread and pool.p99 and (not worst or pool.p99 > worst.p99) then
            worst = { count = 1, p50 = pool.p50, p95 = pool.p95, p99 = pool.p99 }
        end
    end
    return described(total, worst)
end

local function label_part(new, old, seconds)
    for _, before in ipairs(old and old.parts or {}) do
        if before.pool == new.pool then
            return described(difference(new, before, seconds), new.lasting)
        end
    end
    return described(difference(new, nil, seconds), new.lasting)
end

local function label_figures(new, old, seconds)
    local found = described(difference(new, old, seconds), new.parts[1].lasting)
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

local function seconds_between(new, old, uptime)
    local seconds = old and new.at - old.at or uptime or 0
    return seconds > 0 and seconds or 1
end

-- With the newest generation that a worker has taken.
local function policy_of(stats, workers)
    local policy = { off = stats.policy.off, message = stats.policy.message, generation = 0 }
    for _, worker in ipairs(workers) do
        policy.generation = math.max(policy.generation, worker.policy_generation or 0)
    end
    return policy
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
    local seconds = seconds_between(marks, last, stats.uptime)
    local pools = {}
    for i, pool in ipairs(stats.pools or {}) do
        pools[i] = pool_figures(pool, marks.pools[pool.pool], last and last.pools[pool.pool], seconds)
    end
    local total = total_of(pools, seconds)
    if last then remember_moment(self, total) end
    local labels = all_labels(marks, first, seconds_between(marks, first, stats.uptime))
    return {
        at = reading.at, seconds = seconds, first = last == nil, pools = pools, total = total,
        window = first and marks.at - first.at or seconds,
        labels = labels, labels_exact = labels[1] ~= nil and labels[1].spread ~= nil,
        exact = total.spread ~= nil, created_us = stats.created_us, history = copied(self.history),
        name = stats.name, health = stats.health, worker_count = stats.workers, uptime = stats.uptime,
        policy = policy_of(stats, reading.workers or {}), draining = stats.draining,
            checks = stats.checks or {},
        workers = reading.workers or {}, calls = reading.calls or {}, events = reading.events or {},
    }
end

--- What takes readings.
function rates.new()
    return setmetatable({ marks = {}, history = {} }, Rates)
end

return rates
