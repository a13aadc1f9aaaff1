--- The figures of `weir top` as one JSON object.

local json = require "weir.json"
local views = require "weir.console.views"
local warnings = require "weir.console.warnings"

local topdoc = {}

local function rounded(value)
    if type(value) ~= "number" or value % 1 == 0 then return value end
    return tonumber(("%.6g"):format(value))
end

local rates_of = { "calls_s", "errors_s", "refused_s", "retries_s", "ok_share", "p50", "p95", "p99" }
local names = { p50 = "p50_ms", p95 = "p95_ms", p99 = "p99_ms", calls_s = "calls_per_second",
    errors_s = "errors_per_second", refused_s = "refused_per_second", retries_s = "retries_per_second" }

local function figures_of(row, more)
    local out = {}
    for _, name in ipairs(rates_of) do out[names[name] or name] = rounded(row[name]) end
    for _, name in ipairs(more) do out[name] = rounded(row[name]) end
    return out
end

local function pool_of(pool)
    local out = figures_of(pool, { "pool", "max", "busy", "idle", "waiting", "connecting", "in_flight",
        "paused",
        "draining", "resized", "configured_max" })
    out.lifetime_wait_p99_ms = rounded(pool.wait_p99)
    out.breaker, out.budget, out.forced_for = pool.breaker, pool.budget, pool.forced_for
    out.next = views.next_step(pool)
    return out
end

local function list_of(rows, make)
    local list = {}
    for i, row in ipairs(rows) do list[i] = make(row) end
    return json.mark_array(list)
end

local function texts_of(list)
    return list_of(list, function(warning) return warning[1] end)
end

local function last_of(list, most)
    return json.mark_array(table.move(list, math.max(1, #list - most + 1), #list, 1, {}))
end

--- What a frame shows, as a table that json.encode takes.
function topdoc.of(state)
    local f = state.figures
    return {
        name = f.name, health = f.health, workers = json.mark_array(f.workers), uptime = rounded(f.uptime),
        at = rounded(f.at * 1000) / 1000, seconds = rounded(f.seconds), area = state.area, policy = f.policy,
        draining = f.draining, warnings = texts_of(warnings.of(state)),
        quantiles = f.first and "lifetime" or "interval",
        total = figures_of(f.total, { "max", "busy", "idle", "waiting", "connecting", "in_flight" }),
        pools = list_of(f.pools, pool_of),
        labels_seconds = rounded(f.window),
        labels = list_of(views.rows(state, "labels"), function(label)
            return figures_of(label, { "label", "time_share", "pool" })
        end),
        events = last_of(f.events, 20),
    }
end

return topdoc
