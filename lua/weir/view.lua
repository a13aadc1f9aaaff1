--- What an operator sees and steers of an engine, his own or another process's: the same objects for both.
-- Every
-- figure comes from the area; see include/weir/area.h.
--
--     local view = weir.attach "/run/weir/api.area"        -- or db:view()
--     for _, pool in ipairs(view:pools()) do print(pool.pool, pool.state, pool.used) end
--     print(view:resize("anon@primary", 16))

local core = require "weir.core"
local errors = require "weir.errors"
local json = require "weir.json"
local listing = require "weir.listing"
local loop = require "weir.loop"

local view = {}

local View = { __name = "weir.view" }
View.__index = View
view.View = View

-- ---- handles ----------------------------------------------------------------------------------------------

local function new(area, path)
    return setmetatable({ area = area, path = path, samples = {} }, View)
end

--- A view by an area's handle, which it closes.
view.new = new

--- The engine that keeps its area in the file at `path`, in whatever process.
-- @return a view, or nil and an error (code "unreachable")
function view.attach(path)
    if type(path) ~= "string" or path == "" then
        errors.misuse("attach: the path of an area is missing; it is what `area` says in the options")
    end
    local area, why = core.attach(path)
    if not area then return nil, errors.new("unreachable", why) end
    return new(area, path)
end

--- A view of an engine of this program's.
function view.of(engine)
    local area, why = engine:area()
    if not area then errors.misuse(why) end
    return new(area)
end

function View:close()
    self.area:close()
end

--- "live", "deserted", "replaced", "gone" or "damaged", and a sentence. A file that has taken the place of
-- the one that was attached is attached in its stead.
function View:look()
    local state, why = self.area:look()
    if state == "replaced" and self.path then
        local area = core.attach(self.path)
        if area then
            self.area:close()
            self.area, self.samples = area, {}
            return area:look()
        end
    end
    return state or "gone", why
end

--- A document of the area: "stats", "health", "calls", "events", "workers", "conns", "config".
function View:document(name, argument)
    if self.path then self:look() end
    local text, why = self.area:json(name, argument)
    if not text then errors.misuse(why) end
    return json.decode(text)
end

-- ---- pools and breakers -----------------------------------------------------------------------------------

local glyphs = {
    CLOSED = "● closed", OPEN = "■ open", HALF_OPEN = "◐ half-open", FORCED_OPEN = "■ forced open",
    FORCED_CLOSED = "● forced closed", DISABLED = "○ disabled", METRICS_ONLY = "○ metrics only",
}
view.glyphs = glyphs

local function ended(calls)
    return calls.ok + calls.failed + calls.refused + calls.timeout + calls.unknown + calls.cancelled
end

-- The counters of all pools at this moment are kept for a while: rates are taken from what was seen before.
local function remember(self, stats)
    local now, sample = loop.now(), { pools = {} }
    for _, pool in ipairs(stats.pools) do
        sample.pools[pool.pool] = { calls = ended(pool.calls), retries = pool.attempts.retries }
    end
    sample.at = now
    local samples = self.samples
    samples[#samples + 1] = sample
    while #samples > 2 and now - samples[2].at >= 1 do table.remove(samples, 1) end
    local before = samples[1]
    if #samples > 1 and now - before.at > 0.05 then return before, now - before.at end
end

local function rate(before, seconds, pool, key, value)
    local then_ = before and before.pools[pool.pool]
    return then_ and math.max(0, (value - then_[key]) / seconds) or nil
end

local function note(pool)
    local b, parts = pool.breaker, {}
    if pool.paused then parts[#parts + 1] = pool.draining and "draining" or "paused" end
    if pool.resized then parts[#parts + 1] = ("resized from %d"):format(pool.configured_max) end
    if b.state == "OPEN" then
        parts[#parts + 1] = "lets calls in again in " .. listing.seconds(b.retry_after)
    end
    if pool.forced_for and pool.forced_for > 0 then
        parts[#parts + 1] = "forced for another " .. listing.seconds(pool.forced_for)
    end
    if b.state ~= "CLOSED" and b.evidence then parts[#parts + 1] = b.evidence end
    return table.concat(parts, "; ")
end

local function share(part, whole)
    return whole > 0 and 100 * part / whole or nil
end

local function percent(value)
    return value and ("%.2f"):format(value) or "-"
end

local function milliseconds(value)
    return value and listing.seconds(value / 1000) or "-"
end

local function per_second(value)
    return value and ("%.1f"):format(value) or "-"
end

local pool_columns = {
    { "pool", "pool" },
    { "state", "state", function(state) return glyphs[state] or state end },
    { "used", "used", right = true }, { "idle", "idle", right = true }, { "connecting", "conn",
        right = true },
    { "max", "max", right = true }, { "waiting", "wait", right = true },
    { "calls_per_second", "calls/s", per_second, right = true }, { "ok_percent", "ok%", percent,
        right = true },
    { "p50_ms", "p50", milliseconds, right = true }, { "p99_ms", "p99", milliseconds, right = true },
    { "retries_per_second", "retry/s", per_second, right = true },
    { "budget_percent", "budget", function(value) return ("%.0f %%"):format(value) end, right = true },
    { "note", "" },
}

local function pool_row(pool, before, seconds)
    local c, done = pool.connections, ended(pool.calls)
    return {
        pool = pool.pool, client = pool.client, backend = pool.backend, kind = pool.kind,
        state = pool.breaker.state, paused = pool.paused, draining = pool.draining,
        used = c.busy, idle = c.idle, connecting = c.connecting, max = c.max, min = c.min,
            waiting = c.waiting,
        in_flight = c.in_flight, calls = pool.calls, refused = pool.refused, breaker = pool.breaker,
        calls_per_second = rate(before, seconds, pool, "calls", done),
        retries_per_second = rate(before, seconds, pool, "retries", pool.attempts.retries),
        ok_percent = share(pool.calls.ok, done), p50_ms = done > 0 and pool.duration_ms.p50 or nil,
        p99_ms = done > 0 and pool.duration_ms.p99 or nil,
        budget_percent = share(pool.budget.level, pool.budget.cap) or 100, note = note(pool),
    }
end

--- All figures as the stats document has them.
function View:stats()
    return self:document "stats"
end

--- A row for each pool; prints as a table.
function View:pools()
    local stats = self:stats()
    local before, seconds = remember(self, stats)
    local rows = {}
    for i, pool in ipairs(stats.pools) do rows[i] = pool_row(pool, before, seconds) end
    return listing.new(pool_columns, rows, "no pools")
end

-- The pool of that name, or the only one whose name holds it.
local function find(pools, name)
    local found, names = nil, {}
    for i, pool in ipairs(pools) do
        names[i] = pool.pool
        if pool.pool == name then return pool end
    end
    for _, pool in ipairs(pools) do
        if type(name) == "string" and name ~= "" and pool.pool:find(name, 1, true) then
            if found then found = nil break end
            found = pool
        end
    end
    if found then return found end
    local what = "there is no pool '%s', or more than one; there are %s"
    return nil, errors.new("misuse", what:format(tostring(name), table.concat(names, ", ")))
end

--- One row of pools(); the name may be cut short where that is clear.
function View:pool(name)
    return find(self:pools(), name)
end

--- The breaker of a pool: state, calls, failures, rates, evidence, retry_after.
function View:breaker(name)
    local pool, err = self:pool(name)
    if not pool then return nil, err end
    pool.breaker.pool = pool.pool
    return pool.breaker
end

local label_columns = {
    { "label", "label" }, { "pool", "pool" }, { "calls", "calls", right = true },
    { "ok_percent", "ok%", percent, right = true }, { "failed", "failed", right = true },
    { "refused", "refused", right = true }, { "timeout", "timeouts", right = true },
    { "unknown", "unknown", right = true }, { "retries", "retries", right = true },
    { "p50_ms", "p50", milliseconds, right = true }, { "p99_ms", "p99", milliseconds, right = true },
    { "total_ms", "time", milliseconds, right = true },
}

local function label_row(pool, label)
    local calls = ended(label)
    return {
        label = label.label, pool = pool.pool, calls = calls, ok_percent = share(label.ok, calls),
        ok = label.ok, failed = label.failed, refused = label.refused, timeout = label.timeout,
        unknown = label.unknown, cancelled = label.cancelled, retries = label.retries,
        p50_ms = label.duration_ms.p50, p99_ms = label.duration_ms.p99,
        total_ms = label.duration_ms.mean * label.duration_ms.count,
    }
end

--- A row for each label in each pool, the one that took most time first.
function View:labels()
    local rows = {}
    for _, pool in ipairs(self:stats().pools) do
        for _, label in ipairs(pool.labels) do rows[#rows + 1] = label_row(pool, label) end
    end
    table.sort(rows, function(a, b)
        if a.total_ms ~= b.total_ms then return a.total_ms > b.total_ms end
        return a.label .. a.pool < b.label .. b.pool
    end)
    return listing.new(label_columns, rows, "no calls yet")
end

-- ---- workers and connections ------------------------------------------------------------------------------

local worker_columns = {
    { "worker", "worker", right = true }, { "pid", "pid", right = true }, { "host", "host" },
    { "uptime", "up", listing.seconds, right = true },
    { "heartbeat_age", "heard", function(age) return listing.seconds(age) .. " ago" end, right = true },
    { "policy_generation", "policy", right = true }, { "connections", "conns", right = true },
    { "in_flight", "calls", right = true },
    { "rss", "memory", function(bytes) return bytes and ("%.1f MB"):format(bytes / 1e6) or "-" end,
        right = true },
    { "state", "" },
}

--- A row for each worker that lives.
function View:workers()
    local rows = self:document "workers"
    for _, worker in ipairs(rows) do
        worker.state = worker.draining and "draining" or worker.policy_off and "its policy is switched off"
            or worker.heartbeat_age > 5 and "not heard of" or ""
    end
    return listing.new(worker_columns, rows, "no worker lives")
end

local conn_columns = {
    { "id", "id" }, { "worker", "worker", right = true }, { "pool", "pool" }, { "state", "state" },
    { "backend_pid", "backend", right = true }, { "since", "since", listing.seconds, right = true },
    { "age", "age", listing.seconds, right = true }, { "label", "label" }, { "call", "call" },
}

local function matches(row, filter)
    for key, wanted in pairs(filter or {}) do
        if row[key] ~= wanted then return false end
    end
    return true
end

--- Connections one by one, 64 of each worker at most; filter by any of their fields, like { state =
-- "leased" }.
function View:conns(filter)
    local rows = {}
    for _, conn in ipairs(self:document "conns") do
        if matches(conn, filter) then rows[#rows + 1] = conn end
    end
    return listing.new(conn_columns, rows, "no connections")
end

--- The options in force; nothing secret is in them.
function View:config()
    return self:document "config"
end

return view
