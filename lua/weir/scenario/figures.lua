--- Everything that was measured in one run, as plain tables: what expectations, pictures and reports read.
--
--     figures = {
--         seed, duration, drain, ended,          -- ended: the second at which the run was over
--         window,                                -- the width of `windows`: 1 second unless the run is long
--         whole = counts, phases = { { name, from, to, counts = counts }, ... },
--         buckets, windows, moves,               -- of the tally; windows with their `share`
--         open, oldest, stuck, faults_of_work,   -- what had not ended, and what work functions raised
--         policy_faults = { count, why, off },   -- how often the policy's functions failed
--         pools = { name, ... },                 -- of each engine
--         books, servers = { name = stats }, samples = { name = { { at, ... }, ... } },   -- of a simulation
--     }
--     counts = { arrived, ok, failed, refused, timed_out, unknown, calls, attempts, latency_mean,
--                latency_max, p50, p95, p99, ended_as = { ok = n, timeout = n, ... } }
--     figures:counts_of(phase or nil), figures:quantile(phase or nil, q), figures:span_of(phase or nil)

local series = require "weir.scenario.series"

local figures = {}

local Figures = {}
Figures.__index = Figures

local BUCKETS_MAX = 2000

--- The width of the tally's buckets for a run of so many seconds: a whole number of them makes a second,
-- and they never get too many.
function figures.bucket(seconds)
    for _, parts in ipairs { 100, 50, 20, 10, 5, 4, 2, 1 } do
        if seconds * parts <= BUCKETS_MAX then return 1 / parts end
    end
    return math.ceil(seconds / BUCKETS_MAX)
end

--- The width of the windows that are judged: a second, unless the buckets are wider.
function figures.window(plan)
    return math.max(1, figures.bucket(plan.duration + plan.drain))
end

local function counts_of(tally, phase)
    local counts = tally:counts(phase)
    counts.p50 = tally:quantile(phase, 0.50, true)
    counts.p95 = tally:quantile(phase, 0.95, true)
    counts.p99 = tally:quantile(phase, 0.99, true)
    counts.ended_as = tally:ended_as(phase)
    return counts
end

--- Reads the tally (of core.tally, or anything with its methods) after a run of `plan`. `more`: the fields
-- that the host of the run adds: seed, ended, open, books, servers, samples and so on.
function figures.read(plan, tally, more)
    local self = setmetatable({
        duration = plan.duration,
        drain = plan.drain,
        whole = counts_of(tally, nil),
        phases = {},
        by_name = {},
        buckets = tally:buckets(),
        moves = tally:moves(),
        tally = tally,
    }, Figures)
    for key, value in pairs(more) do self[key] = value end
    for i, phase in ipairs(plan.phases) do
        local entry = { name = phase.name, from = phase.from, to = phase.to, counts = counts_of(tally,
            phase.name) }
        self.phases[i], self.by_name[phase.name] = entry, entry
    end
    self.window = figures.window(plan)
    self.windows = series.shares(series.windows(self.buckets, 0, self.ended, self.window))
    return self
end

--- The counts of a phase, of the whole run if nil.
function Figures:counts_of(phase)
    return phase and self.by_name[phase].counts or self.whole
end

--- From when to when a phase is.
function Figures:span_of(phase)
    if not phase then return 0, self.duration end
    return self.by_name[phase].from, self.by_name[phase].to
end

--- The latency below which the share q of the successful requests of a phase stayed, in seconds.
function Figures:quantile(phase, q)
    return self.tally:quantile(phase, q, true)
end

return figures
