--- Documents as an area gives them, made up: an engine in trouble, seen twice a second apart.

local topworld = {}

local T0 = 1795658802000000 -- us since 1970: 2026-11-26 02:06:42 UTC

local function spread(count, ms)
    local edges, below = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000 }, {}
    for i, edge in ipairs(edges) do below[i] = math.floor(count * math.min(1, edge / (ms * 4)) + 0.5) end
    return { edges_ms = edges, below = below, count = count }
end

local function summary(count, ms)
    return { count = count, sum = count * ms, mean = ms, p50 = ms * 0.8, p90 = ms * 2, p99 = ms * 3.5,
        p999 = ms * 4,
        max = ms * 4 }
end

local function label(name, counts, ms)
    local count = 0
    for _, key in ipairs { "ok", "failed", "refused", "timeout", "unknown", "cancelled" } do
        counts[key] = counts[key] or 0
        count = count + counts[key]
    end
    counts.label, counts.retries = name, counts.retries or 0
    counts.duration_ms, counts.histogram = summary(count, ms), spread(count, ms)
    return counts
end

local function sum(labels, key)
    local total = 0
    for _, one in ipairs(labels) do total = total + one[key] end
    return total
end

local function pool(name, ms, labels, connections, breaker)
    local client, backend = name:match "^(.-)@(.+)$"
    local calls = { abandoned = 0, started = connections.in_flight }
    for _, key in ipairs { "ok", "failed", "refused", "timeout", "unknown", "cancelled" } do
        calls[key] = sum(labels, key)
        calls.started = calls.started + calls[key]
    end
    local ended = calls.started - connections.in_flight
    return {
        pool = name, client = client, backend = backend, calls = calls,
        attempts = { all = ended + sum(labels, "retries"), retries = sum(labels, "retries"),
            denied_budget = 2,
            denied_deadline = 0, denied_unsafe = 1, denied_max = 0 },
        refused = { breaker_open = calls.refused, queue_full = 0, acquire = 0, paused = 0, draining = 0 },
        closed = { all = 3, idle = 2, lifetime = 1, error = 0, server = 0, cancel = 0, shutdown = 0 },
        events = { opened = 19, connect_failed = 4, cancels = 1, resets = 0, leaks = 0 },
        connections = connections, breaker = breaker, budget = { level = 61, cap = 100 },
        paused = false, draining = false, resized = false, configured_max = connections.max, forced_for = 0,
        duration_ms = summary(ended, ms), wait_ms = summary(ended, ms / 20), connect_ms = summary(19, 3),
        histogram = spread(ended, ms), labels = labels,
    }
end

local function closed(calls)
    return { state = "CLOSED", calls = calls, failures = 1, slow = 0, refused = 0, opened = 0,
        retry_after = 0,
        failure_rate = 0.0042, slow_rate = 0, evidence = "" }
end

local function open_breaker(turn)
    return { state = "OPEN", calls = 24, failures = 19, slow = 0, refused = 380 + 38 * turn, opened = 2,
        retry_after = 42.5 - turn, failure_rate = 0.7917, slow_rate = 0,
        evidence = "failure rate 0.79 >= 0.50 over 24 calls, last 53300 x7, connect x1" }
end

local function stats(turn)
    local primary = pool("anon@primary", 6, {
        label("GET /api/contacts", { ok = 40000 + 310 * turn, failed = 12 + turn }, 4),
        label("POST /api/payments", { ok = 9000 + 62 * turn, failed = 40, timeout = 2 + turn, unknown = 1,
            retries = 90 + 4 * turn }, 21),
        label("GET /api/reports/quarterly", { ok = 300 + 2 * turn, timeout = 7 }, 900),
    }, { max = 16, min = 2, open = 12, idle = 5, busy = 7, connecting = 1, canceling = 0, waiting = 0,
        in_flight = 7 },
        closed(412))
    local replica = pool("anon@replica", 30, {
        label("GET /api/contacts", { ok = 2000, failed = 19, refused = 380 + 38 * turn, retries = 12 }, 12),
    }, { max = 8, min = 0, open = 0, idle = 0, busy = 0, connecting = 0, canceling = 0, waiting = 0,
        in_flight = 0 },
        open_breaker(turn))
    local service = pool("service@primary", 2, { label("nightly: purge", { ok = 88 + turn }, 2) },
        { max = 4, min = 0, open = 4, idle = 0, busy = 4, connecting = 0, canceling = 0, waiting = 3,
            in_flight = 7 },
        closed(9))
    return {
        name = "api", health = "degraded", created_us = T0 - 273120000000, now_us = T0 + turn * 1000000,
            workers = 2, draining = false, uptime = 273120 + turn,
            in_flight = 14,
        allocations = 400, policy = { off = false, generation = 3, message = "" },
        checks = { database = { status = "healthy", responseTime = 2 },
            redis = { status = "unhealthy", responseTime = 1000, message = "no answer within 1 s" } },
        pools = { primary, replica, service },
    }
end

local function attempt(start, wait, connect, run, backoff, sqlstate, class)
    return { start_us = start, wait_us = wait, connect_us = connect, run_us = run, backoff_us = backoff,
        backend_pid = run > 0 and 4711 or 0, sqlstate = sqlstate or "", phase = run > 0 and "done"
            or "not_sent",
        class = class or "none" }
end

local function call(id, ago_ms, ms, name, code, more)
    local made = { id = id, started_us = T0 + 1000000 - ago_ms * 1000, duration_ms = ms,
        pool = "anon@primary", label = name,
        context = name, worker = 1, code = code, outcome = code == "ok" and "committed" or "none",
            unit = false, xid = 0,
        sqlstate = "", traceparent = "", attempts = 1,
        timeline = { attempt(0, 0, 0, math.floor(ms * 1000), 0) } }
    for key, value in pairs(more or {}) do made[key] = value end
    return made
end

local function calls()
    return {
        call("100000018c1", 210, 3.2, "GET /api/contacts", "ok"),
        call("200000018c0", 240, 0, "GET /api/contacts", "breaker_open", { pool = "anon@replica", worker = 2,
            timeline = { attempt(0, 0, 0, 0, 0, "", "safe") } }),
        call("100000018b7", 900, 310.5, "POST /api/payments", "ok", { attempts = 3, outcome = "committed",
            unit = true,
            timeline = { attempt(0, 12000, 9000, 40000, 50000, "40001", "safe"),
                attempt(102000, 0, 0, 61000, 100000, "40001", "safe"), attempt(263000, 500, 0, 46000, 0) } }),
        call("10000001890", 9400, 5000, "POST /api/payments", "connection_lost", { outcome = "unknown",
            xid = 7412,
            traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", unit = true,
            timeline = { attempt(0, 0, 0, 1180000, 0, "", "unknown") } }),
        call("1000000188a", 9900, 0.4, "POST /api/payments", "server_error", { sqlstate = "23505",
            outcome = "rolled_back",
            timeline = { attempt(0, 0, 0, 400, 0, "23505", "permanent") } }),
    }
end

local function event(sequence, ago_ms, kind, name, text)
    return { sequence = sequence, at_us = T0 + 1000000 - ago_ms * 1000, kind = kind, worker = 1,
        pool = name, text = text }
end

local function events()
    return {
        event(41, 90000, "engine", "", "engine api opened with 3 pools"),
        event(42, 20000, "connect", "anon@replica", "cannot connect: FATAL: sorry, too many clients already"),
        event(43, 17500, "breaker", "anon@replica",
            "CLOSED -> OPEN: failure rate 0.79 >= 0.50 over 24 calls, last 53300 x7, connect x1"),
        event(44, 3000, "unknown", "anon@primary",
            "POST /api/payments: the connection was lost after COMMIT was sent"),
    }
end

local function workers(turn)
    local list = {}
    for number = 1, 2 do
        list[number] = { worker = number, pid = 4100 + number, opened_us = T0 - 273120000000,
            host = "db-gw-1",
            heartbeat_age = number == 2 and 7.5 or 0.4, uptime = 273120 + turn, policy_generation = 3,
                policy_off = false,
            draining = false, connections = 8, in_flight = 7, rss = 12 * 1024 * 1024 }
    end
    return list
end

--- The reading number `turn`, from 0.
function topworld.reading(turn)
    return { at = T0 / 1e6 + turn, stats = stats(turn), calls = calls(), events = events(),
        workers = workers(turn),
        area = { state = "live", why = "" } }
end

--- The figures after so many readings.
function topworld.figures(readings)
    local rates = require("weir.console.rates").new()
    local figures
    for turn = 0, readings - 1 do figures = rates:take(topworld.reading(turn)) end
    return figures
end

return topworld
