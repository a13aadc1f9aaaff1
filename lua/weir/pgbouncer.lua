--- show(): the tables of PgBouncer's admin console, for hands that know them, where they mean something here.
-- A pool of Weir's is a client (login) on a backend, so `database` is the backend and `user` the client.

local core = require "weir.core"
local errors = require "weir.errors"
local listing = require "weir.listing"
local view = require "weir.view"

local View = view.View

local function columns(...)
    local list = {}
    for i, name in ipairs { ... } do list[i] = { name, name } end
    return list
end

local show = {}

local modes = { CLOSED = "closed", OPEN = "open", HALF_OPEN = "half-open", FORCED_OPEN = "forced open" }

--- cl_*: calls; sv_*: connections.
function show.pools(self)
    local rows = {}
    for i, pool in ipairs(self:stats().pools) do
        local c = pool.connections
        rows[i] = {
            database = pool.backend, user = pool.client,
            cl_active = c.in_flight - c.waiting, cl_waiting = c.waiting,
            sv_active = c.busy, sv_active_cancel = c.canceling, sv_idle = c.idle, sv_login = c.connecting,
            pool_mode = "transaction",
            paused = pool.paused and 1 or 0, breaker = modes[pool.breaker.state]
                or pool.breaker.state:lower(),
        }
    end
    return listing.new(columns("database", "user", "cl_active", "cl_waiting", "sv_active", "sv_active_cancel",
        "sv_idle", "sv_login", "pool_mode", "paused", "breaker"), rows, "no pools")
end

--- A client is a worker: whoever makes calls here.
function show.clients(self)
    local rows = {}
    for i, worker in ipairs(self:document "workers") do
        rows[i] = {
            type = "C", application_name = worker.host, state = worker.draining and "closing" or "active",
            connect_time = os.date("%Y-%m-%d %H:%M:%S", math.floor(worker.opened_us / 1e6)),
            ptr = worker.worker, remote_pid = worker.pid, calls = worker.in_flight,
                servers = worker.connections,
        }
    end
    return listing.new(columns("type", "application_name", "state", "connect_time", "ptr", "remote_pid",
        "calls",
        "servers"), rows, "no clients")
end

--- A server is a connection.
function show.servers(self)
    local rows = {}
    for i, conn in ipairs(self:document "conns") do
        local client, backend = conn.pool:match "^(.*)@(.*)$"
        rows[i] = {
            type = "S", user = client, database = backend, state = conn.state, remote_pid = conn.backend_pid,
            age = math.floor(conn.age), since = math.floor(conn.since * 1000) / 1000, ptr = conn.id,
            link = conn.call or "", application_name = conn.label or "",
        }
    end
    return listing.new(columns("type", "user", "database", "state", "remote_pid", "age", "since", "ptr",
        "link",
        "application_name"), rows, "no servers")
end

--- Totals since the counters began, times in microseconds.
function show.stats(self)
    local rows = {}
    for i, pool in ipairs(self:stats().pools) do
        local calls, wait, duration = pool.calls, pool.wait_ms, pool.duration_ms
        rows[i] = {
            database = pool.backend, user = pool.client,
            total_query_count = pool.attempts.all, total_xact_count = calls.ok + calls.failed + calls.unknown,
            total_query_time = math.floor(duration.mean * duration.count * 1000),
            total_wait_time = math.floor(wait.mean * wait.count * 1000),
            avg_query_time = math.floor(duration.mean * 1000), avg_wait_time = math.floor(wait.mean * 1000),
        }
    end
    return listing.new(columns("database", "user", "total_xact_count", "total_query_count",
        "total_query_time",
        "total_wait_time", "avg_query_time", "avg_wait_time"), rows, "no pools")
end

local function flatten(rows, prefix, value)
    if type(value) ~= "table" then
        rows[#rows + 1] = { key = prefix, value = tostring(value) }
        return
    end
    local keys = {}
    for key in pairs(value) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, key in ipairs(keys) do
        local named = type(value[key]) == "table" and value[key].name or key
        flatten(rows, prefix == "" and tostring(named) or prefix .. "." .. tostring(named), value[key])
    end
end

--- The options in force.
function show.config(self)
    local rows = {}
    flatten(rows, "", self:config())
    return listing.new(columns("key", "value"), rows, "no worker has written its options")
end

function show.version()
    return listing.new(columns "version", { { version = "Weir " .. core.version } })
end

--- show "pools" | "clients" | "servers" | "stats" | "config" | "version".
function View:show(what)
    local table_of = show[type(what) == "string" and what:lower() or what]
    if table_of then return table_of(self) end
    return nil, errors.new("misuse", ("show knows pools, clients, servers, stats, config and version, not %s"):format(
        tostring(what)))
end

return View
