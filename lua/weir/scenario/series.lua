--- What was measured, as series in time: windows of the tally's buckets, and of the servers' samples.

local series = {}

local rank = {
    CLOSED = 1, DISABLED = 1, FORCED_CLOSED = 1, METRICS_ONLY = 1, HALF_OPEN = 2, OPEN = 3, FORCED_OPEN = 3,
}

local function worse(a, b)
    return (rank[b] or 0) > (rank[a] or 0) and b or a
end

local sums = { "arrived", "ok", "failed", "refused", "timed_out", "unknown", "calls", "attempts" }
local peaks = { "latency_p95", "latency_max", "waiting", "connections" }

local function new_window(from, to)
    local window = { from = from, to = to }
    for _, key in ipairs(sums) do window[key] = 0 end
    for _, key in ipairs(peaks) do window[key] = 0 end
    return window
end

local function add(window, bucket)
    for _, key in ipairs(sums) do window[key] = window[key] + (bucket[key] or 0) end
    for _, key in ipairs(peaks) do window[key] = math.max(window[key], bucket[key] or 0) end
    window.breaker = worse(window.breaker, bucket.breaker)
end

--- Windows of `width` seconds from `from` to `to`, the last one perhaps shorter; a bucket belongs to the
-- one its middle lies in. Counts are sums, latency_p95, waiting and connections are maxima, breaker is the
-- worst.
function series.windows(buckets, from, to, width)
    local windows = {}
    local count = math.ceil((to - from) / width - 1e-9)
    for i = 1, count do
        windows[i] = new_window(from + (i - 1) * width, math.min(to, from + i * width))
    end
    for _, bucket in ipairs(buckets) do
        local middle = (bucket.from + bucket.to) / 2
        local index = math.floor((middle - from) / width) + 1
        if middle >= from and windows[index] then add(windows[index], bucket) end
    end
    return windows
end

local function share_of(window)
    local ended = window.ok + window.failed
    return ended > 0 and window.ok / ended or nil
end

--- Gives every window its `share`: of the requests that ended in it, how many ended well. Where requests
-- arrived and none ended, they ended later: the share is that of the next window that has one, or 0 if
-- there is none. Where nothing happened it is nil.
function series.shares(windows)
    local following = 0
    for i = #windows, 1, -1 do
        local window = windows[i]
        window.share = share_of(window)
        if window.share then
            following = window.share
        elseif window.arrived > 0 then
            window.share = following
        end
    end
    return windows
end

--- The window inside [from, to] with the least share, or the largest value of `key`; nil if none has any.
function series.worst(windows, from, to, key)
    local worst, most
    for _, window in ipairs(windows) do
        local inside = window.from >= from - 1e-9 and window.to <= to + 1e-9
        local value = window[key]
        if inside and value then
            local badness = key == "share" and -value or value
            if not worst or badness > most then worst, most = window, badness end
        end
    end
    return worst
end

--- From which moment on the share of all later windows stays at `least` or above. Returns that moment, or
-- nil, and the worst window after `from`. Where nothing arrived, nothing has recovered.
function series.recovered(buckets, from, to, width, finish, least)
    local windows = series.shares(series.windows(buckets, from, math.max(finish, to), width))
    local since, worst = from, nil
    for _, window in ipairs(windows) do
        if window.from < to - 1e-9 and window.share then
            if window.share < least then since = window.to end
            if not worst or window.share < worst.share then worst = window end
        end
    end
    if not worst or since >= to - 1e-9 then return nil, worst end
    return since, worst
end

-- ---- samples of a server
-- ----------------------------------------------------------------------------------

local function sample_at(samples, moment)
    local found = samples[1]
    for _, sample in ipairs(samples) do
        if sample.at > moment + 1e-9 then break end
        found = sample
    end
    return found
end

--- How much a counter grew from one moment to another.
function series.growth(samples, from, to, key)
    if #samples == 0 then return 0 end
    return sample_at(samples, to)[key] - sample_at(samples, from)[key]
end

--- The highest of the sampled values between two moments, and when.
function series.peak(samples, from, to, key)
    local most, at = 0, from
    for _, sample in ipairs(samples) do
        if sample.at >= from - 1e-9 and sample.at <= to + 1e-9 and sample[key] > most then
            most, at = sample[key], sample.at
        end
    end
    return most, at
end

--- The fastest growth of a counter within `width` seconds between two moments, and when it began.
function series.fastest(samples, from, to, key, width)
    local most, at, first = 0, from, 1
    for _, sample in ipairs(samples) do
        if sample.at > to + 1e-9 then break end
        while samples[first].at < sample.at - width - 1e-9 do first = first + 1 end
        local begin = samples[first]
        if begin.at >= from - 1e-9 and sample[key] - begin[key] > most then
            most, at = sample[key] - begin[key], begin.at
        end
    end
    return most, at
end

return series
