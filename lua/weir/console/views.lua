--- The views of `weir top`: for each its rows, the columns of its table, and the orders in which rows can
-- stand.

local amounts = require "weir.console.amounts"
local columns = require "weir.console.columns"
local timeline = require "weir.console.timeline"

local views = {}

-- ---- cells ------------------------------------------------------------------------------------------------

local states = { -- word, sign, look
    CLOSED = { "closed", "closed", "good" },
    OPEN = { "open", "open", "bad" },
    HALF_OPEN = { "half-open", "half_open", "warn" },
    FORCED_OPEN = { "forced open", "forced", "bad" },
    FORCED_CLOSED = { "forced closed", "forced", "warn" },
    DISABLED = { "disabled", "forced", "warn" },
    METRICS_ONLY = { "metrics only", "forced", "warn" },
}

local function state_cell(pool, glyphs)
    local state = states[pool.state] or { pool.state, "open", "warn" }
    if pool.paused or pool.draining then
        return glyphs.forced .. (pool.draining and " draining" or " paused"), "warn"
    end
    return glyphs[state[2]] .. " " .. state[1], state[3]
end

--- The word for a breaker's state, as it is shown.
function views.state_word(state)
    return states[state] and states[state][1] or state
end

local function use_cell(pool, glyphs, width)
    local text = ("%d/%d "):format(pool.busy, pool.max)
    local room = width - #text
    if room < 3 then return text, pool.busy >= pool.max and "warn" or "plain" end
    local full, rest = columns.bar(pool.max > 0 and pool.busy / pool.max or 0, room, glyphs)
    return { { text, "plain" }, { full, pool.busy >= pool.max and "warn" or "bar" }, { rest, "dim" } }
end

local function ok_look(share)
    if not share then return "dim" end
    return share < 0.9 and "bad" or share < 0.999 and "warn" or "good"
end

local function number(name, width, rank, of, look)
    return {
        name = name, width = width, rank = rank, right = true,
        cell = function(row)
            return of(row), look and look(row) or "plain"
        end,
    }
end

local function text(name, width, rank, of, flex, look)
    return {
        name = name, width = width, rank = rank, flex = flex,
        cell = function(row)
            return of(row), look and look(row) or "plain"
        end,
    }
end

local function positive(value)
    return value and value > 0
end

local common = {
    calls = number("call/s", 6, 3, function(row) return amounts.rate(row.calls_s) end),
    ok = number("ok%", 5, 2, function(row) return amounts.percent(row.ok_share) end,
        function(row) return ok_look(row.ok_share) end),
    p50 = number("p50", 5, 5, function(row) return amounts.ms(row.p50) end),
    p95 = number("p95", 5, 7, function(row) return amounts.ms(row.p95) end),
    p99 = number("p99", 5, 1, function(row) return amounts.ms(row.p99) end),
    errors = number("err/s", 5, 8, function(row) return amounts.rate(row.errors_s) end,
        function(row) return positive(row.errors_s) and "bad" or "plain" end),
    refused = number("ref/s", 5, 8, function(row) return amounts.rate(row.refused_s) end,
        function(row) return positive(row.refused_s) and "warn" or "plain" end),
    retries = number("retr/s", 6, 9, function(row) return amounts.rate(row.retries_s) end),
    pool = text("pool", 15, 0, function(row) return row.pool end, true),
}

-- ---- pools and breakers -----------------------------------------------------------------------------------

local function waiting_look(pool)
    return pool.waiting > 0 and "warn" or "plain"
end

local breaker_word = {
    name = "breaker", width = 13, rank = 1, cell = state_cell,
}

local pool_columns = {
    common.pool, breaker_word,
    { name = "in use/max", width = 12, rank = 4, cell = use_cell },
    number("idle", 4, 5, function(pool) return amounts.count(pool.idle) end),
    number("wait", 4, 2, function(pool) return amounts.count(pool.waiting) end, waiting_look),
    common.calls, common.ok, common.p50, common.p99, common.errors, common.refused, common.p95,
        common.retries,
    number("w.p99", 5, 10, function(pool) return amounts.ms(pool.wait_p99) end),
    number("budget", 6, 11, function(pool)
        return pool.budget.cap > 0 and ("%.0f%%"):format(pool.budget.level / pool.budget.cap * 100) or "-"
    end),
}

--- When a breaker will let somebody through, or what it waits for.
function views.next_step(pool)
    local breaker = pool.breaker
    if pool.state == "OPEN" then
        if positive(breaker.next_probe) then return "probe in " .. amounts.seconds(breaker.next_probe) end
        return positive(breaker.retry_after) and "half-open in " .. amounts.seconds(breaker.retry_after)
            or "half-open next"
    end
    if pool.state == "HALF_OPEN" then return ("probing, %d judged"):format(breaker.calls) end
    if positive(pool.forced_for) then return amounts.seconds(pool.forced_for) .. " left" end
    return states[pool.state] and states[pool.state][2] == "forced" and "until released" or "-"
end

local breaker_columns = {
    common.pool,
    { name = "breaker", width = 15, rank = 0, cell = state_cell },
    text("next", 17, 1, views.next_step),
    number("failures", 8, 4, function(pool)
        return amounts.percent(pool.breaker.failure_rate) .. (pool.breaker.failure_rate and "%" or "")
    end),
    number("slow", 7, 7, function(pool)
        return amounts.percent(pool.breaker.slow_rate) .. (pool.breaker.slow_rate and "%" or "")
    end),
    number("window", 6, 5, function(pool) return amounts.count(pool.breaker.calls) end),
    number("refused", 7, 3, function(pool) return amounts.count(pool.breaker.refused) end),
    number("opened", 6, 6, function(pool) return amounts.count(pool.breaker.opened) end),
    text("evidence", 30, 8, function(pool) return pool.breaker.evidence end),
}

-- ---- labels -----------------------------------------------------------------------------------------------

local label_columns = {
    text("label", 14, 0, function(row) return row.label end, true),
    number("time", 7, 1, function(row) return amounts.percent(row.time_share) .. "%" end),
    common.calls, common.ok, common.errors, common.p50, common.p95, common.p99, common.refused,
        common.retries,
    text("pool", 18, 12, function(row) return row.pool end),
}

-- ---- calls, events, workers -------------------------------------------------------------------------------

local function call_look(call)
    return call.code == "ok" and "plain" or timeline.look(call)
end

--- Why a call ended as it did, in a word or two.
function views.call_end(call)
    if call.code == "ok" then return "ok" end
    local word = call.outcome == "unknown" and "unknown" or call.code
    return call.sqlstate ~= "" and word .. " " .. call.sqlstate or word
end

local function ended_at(call)
    return call.started_us / 1e6 + call.duration_ms / 1e3
end

local call_columns = {
    {
        name = "ended", width = 8, rank = 3,
        cell = function(call, _, _, offset) return amounts.clock(ended_at(call), offset), "dim" end,
    },
    text("label", 14, 0, function(call) return call.label end, true),
    number("took", 7, 1, function(call) return amounts.ms(call.duration_ms) end),
    text("end", 16, 2, views.call_end, false, call_look),
    number("tries", 5, 4, function(call) return amounts.count(call.attempts) end),
    {
        name = "time", width = 16, rank = 6,
        cell = function(call, glyphs, width) return timeline.bar(call, width, glyphs) end,
    },
    text("pool", 18, 5, function(call) return call.pool end),
    text("id", 12, 7, function(call) return call.id end),
}

local alarming = { breaker = "warn", policy = "warn", connect = "warn", leak = "bad", identity = "bad",
    unknown = "bad" }

local function event_look(event)
    if event.kind == "breaker" then return event.text:find "%-> CLOSED" and "good" or "bad" end
    return alarming[event.kind] or "plain"
end

local event_columns = {
    {
        name = "time", width = 8, rank = 0,
        cell = function(event, _, _, offset) return amounts.clock(event.at_us / 1e6, offset), "dim" end,
    },
    text("kind", 8, 2, function(event) return event.kind end, false, event_look),
    text("pool", 16, 3, function(event) return event.pool end),
    text("what", 20, 1, function(event) return event.text end, true),
}

local function stale_look(worker)
    return worker.heartbeat_age > 3 and "bad" or "plain"
end

local worker_columns = {
    number("worker", 6, 1, function(worker) return amounts.count(worker.worker) end),
    number("pid", 8, 0, function(worker) return ("%d"):format(worker.pid) end),
    text("host", 10, 6, function(worker) return worker.host end, true),
    number("up", 7, 3, function(worker) return amounts.seconds(worker.uptime) end),
    number("heard", 6, 2, function(worker) return amounts.seconds(worker.heartbeat_age) end, stale_look),
    number("policy", 6, 7, function(worker)
        return worker.policy_off and "off" or ("%d"):format(worker.policy_generation)
    end, function(worker) return worker.policy_off and "bad" or "plain" end),
    number("conns", 5, 4, function(worker) return amounts.count(worker.connections) end),
    number("calls", 5, 5, function(worker) return amounts.count(worker.in_flight) end),
    number("memory", 7, 8, function(worker) return amounts.bytes(worker.rss) end),
    text("", 8, 9, function(worker) return worker.draining and "draining" or "" end),
}

-- ---- orders -----------------------------------------------------------------------------------------------

local function by(name, column, of, rising)
    return { name = name, column = column, of = of, rising = rising }
end

local by_name = by("name", "pool", function(row) return row.pool end, true)
local by_calls = by("calls", "call/s", function(row) return row.calls_s end)
local by_errors = by("errors", "err/s", function(row) return row.errors_s + row.refused_s * 1e-9 end)
local by_p99 = by("p99", "p99", function(row) return row.p99 or -1 end)

local worst = { OPEN = 7, FORCED_OPEN = 6, HALF_OPEN = 5, DISABLED = 4, METRICS_ONLY = 3, FORCED_CLOSED = 2 }

local pool_orders = {
    by_name, by_calls, by_errors, by_p99,
    by("waiting", "wait", function(pool) return pool.waiting end),
    by("in use", "in use/max", function(pool) return pool.max > 0 and pool.busy / pool.max or 0 end),
}
local label_orders = {
    by("time", "time", function(row) return row.time_share end), by_errors, by_p99, by_calls,
    by("name", "label", function(row) return row.label end, true),
}
local call_orders = {
    by("newest", "ended", ended_at), by("slowest", "took", function(call) return call.duration_ms end),
    by("attempts", "tries", function(call) return call.attempts end),
}

-- ---- the views --------------------------------------------------------------------------------------------

local function from(name)
    return function(figures) return figures[name] end
end

local label_view = { rows = from "labels", columns = label_columns, orders = label_orders,
    id = function(row) return row.label end, words = { "label", "pool" } }
local call_view = { rows = from "calls", columns = call_columns, orders = call_orders,
    id = function(call) return call.id .. call.started_us end, words = { "label", "context", "pool",
        "code", "sqlstate" } }

views.list = {
    { name = "overview", rows = label_view.rows, columns = label_columns, orders = label_orders,
        id = label_view.id,
        words = label_view.words },
    { name = "pools", rows = from "pools", columns = pool_columns, orders = pool_orders,
        id = function(pool) return pool.pool end, words = { "pool" } },
    { name = "breakers", rows = from "pools", columns = breaker_columns,
        orders = { by("worst", "breaker", function(pool) return worst[pool.state] or 0 end), by_name },
        id = function(pool) return pool.pool end, words = { "pool", "state" } },
    { name = "labels", rows = label_view.rows, columns = label_columns, orders = label_orders,
        id = label_view.id,
        words = label_view.words },
    { name = "calls", of_calls = true, rows = call_view.rows, columns = call_columns, orders = call_orders,
        id = call_view.id, words = call_view.words },
    { name = "events", rows = from "events", columns = event_columns,
        orders = { by("newest", "time", function(event) return event.sequence end) },
        id = function(event) return event.sequence end, words = { "kind", "pool", "text" } },
    { name = "workers", rows = from "workers", columns = worker_columns,
        orders = { by("number", "worker", function(worker) return worker.worker end, true),
            by("connections", "conns", function(worker) return worker.connections end),
            by("heartbeat", "heard", function(worker) return worker.heartbeat_age end) },
        id = function(worker) return worker.worker end, words = { "host", "pid" } },
    -- not chosen by a key: the calls of one label, which one comes to from that label
    { name = "label", hidden = true, of_calls = true, rows = function(figures, state)
        local rows = {}
        for _, call in ipairs(figures.calls) do
            if call.label == state.label then rows[#rows + 1] = call end
        end
        return rows
    end, columns = call_columns, orders = { call_orders[2], call_orders[1], call_orders[3] },
        id = call_view.id,
        words = call_view.words },
}

views.by_name = {}
for _, view in ipairs(views.list) do views.by_name[view.name] = view end

local function holds(row, words, filter)
    for _, word in ipairs(words) do
        if tostring(row[word] or ""):lower():find(filter, 1, true) then return true end
    end
    return false
end

--- The order in which a view's rows stand.
function views.order(state, name)
    local view = views.by_name[name]
    return view.orders[state.sorted[name] or 1]
end

--- The rows of a view that pass the filter, in their order; rows that are equal stand as they came.
function views.rows(state, name)
    local view, order, rows = views.by_name[name], views.order(state, name), {}
    local filter, keys = state.filter:lower(), {}
    for i, row in ipairs(view.rows(state.figures, state)) do
        if filter == "" or holds(row, view.words, filter) then
            rows[#rows + 1] = row
            keys[row] = { order.of(row), i }
        end
    end
    table.sort(rows, function(a, b)
        local one, other = keys[a], keys[b]
        if one[1] == other[1] then return one[2] < other[2] end
        if order.rising then return one[1] < other[1] end
        return one[1] > other[1]
    end)
    return rows
end

--- Which of the rows is selected: the one chosen before, wherever it stands now, else the first. nil if
-- there is none.
function views.selected(state, name, rows)
    local view, id = views.by_name[name], state.selected[name]
    for i, row in ipairs(rows) do
        if view.id(row) == id then return i end
    end
    return #rows > 0 and 1 or nil
end

return views
