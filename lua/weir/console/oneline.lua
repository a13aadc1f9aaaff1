--- Calls and events as single lines: for people, or as JSON with the fields of Weir's log.

local amounts = require "weir.console.amounts"
local columns = require "weir.console.columns"
local json = require "weir.json"

local oneline = {}

-- ---- for people -------------------------------------------------------------------------------------------

local function call_words(call)
    local words = {}
    if call.sqlstate ~= "" then words[#words + 1] = call.sqlstate end
    if call.outcome == "unknown" then words[#words + 1] = "outcome unknown" end
    if call.attempts > 1 then words[#words + 1] = ("%d attempts"):format(call.attempts) end
    if tostring(call.xid) ~= "0" and call.code ~= "ok" then words[#words + 1] = "xid "
        .. tostring(call.xid) end
    if call.context ~= call.label then words[#words + 1] = ("(%s)"):format(call.context) end
    return table.concat(words, " ")
end

local function call_line(item, offset, glyphs)
    local call = item.what
    return ("%s %-8s %7s  %-12s %s  %s  %s  %s"):format(amounts.clock_ms(item.at_us / 1e6, offset), "call",
        amounts.ms(call.duration_ms), call.code, columns.fit(columns.clean(call.label, glyphs), 24, glyphs),
        columns.fit(columns.clean(call.pool, glyphs), 18, glyphs), call.id, columns.clean(call_words(call),
            glyphs))
end

local function event_line(item, offset, glyphs)
    local event = item.what
    local pool = event.pool ~= "" and event.pool .. ": " or ""
    return ("%s %-8s %s%s"):format(amounts.clock_ms(item.at_us / 1e6, offset), event.kind,
        columns.clean(pool, glyphs), columns.clean(event.text, glyphs))
end

--- The item in one line, without a line feed.
function oneline.text(item, offset, glyphs)
    if item.kind == "note" then return "-- " .. columns.clean(item.text, glyphs) end
    local line = (item.kind == "call" and call_line or event_line)(item, offset, glyphs)
    return (line:gsub("%s+$", ""))
end

-- ---- for programs -----------------------------------------------------------------------------------------

local function timestamp(at_us)
    local seconds = math.floor(at_us / 1000000)
    return os.date("!%Y-%m-%dT%H:%M:%S", seconds) .. (".%06dZ"):format(math.floor(at_us - seconds * 1000000))
end

local function call_level(call)
    if call.code == "ok" then return "info" end
    return call.outcome == "unknown" and "error" or "warn"
end

local function add_trace(out, traceparent)
    local trace, span, flags = traceparent:match "^%x%x%-(%x+)%-(%x+)%-(%x%x)$"
    out.trace_id, out.span_id, out.trace_flags = trace, span, flags
end

local function nothing_if_empty(text)
    return text ~= "" and text or nil
end

local function call_object(call)
    local last = call.timeline[#call.timeline]
    local out = {
        level = call_level(call), event = "call.ended", msg = ("%s %s"):format(call.label, call.code),
        call_id = call.id, pool = call.pool, label = call.label, context = call.context, worker = call.worker,
        code = call.code, outcome = call.outcome, sqlstate = nothing_if_empty(call.sqlstate),
            attempts = call.attempts,
        duration_ms = call.duration_ms, unit = call.unit, xid = tostring(call.xid) ~= "0" and call.xid or nil,
        backend_pid = last and last.backend_pid ~= 0 and last.backend_pid or nil,
        timeline = json.mark_array(call.timeline),
    }
    add_trace(out, call.traceparent)
    return out
end

-- As the log has them.
local levels = { identity = "error", area = "info", engine = "info", operator = "info" }

local function event_object(event)
    return {
        level = levels[event.kind] or "warn", event = event.kind, msg = event.text,
            pool = nothing_if_empty(event.pool),
        worker = event.worker, sequence = event.sequence,
    }
end

local order = { "ts", "level", "event", "msg", "name", "worker", "pool", "call_id", "label", "context",
    "duration_ms",
    "code", "outcome", "sqlstate", "attempts", "backend_pid" }

local function object_of(item)
    if item.kind == "note" then return { level = "warn", event = "tail.note", msg = item.text } end
    return (item.kind == "call" and call_object or event_object)(item.what)
end

--- The item as a JSON object in one line, without a line feed. `now_us` is the time of what has none.
function oneline.json(item, name, now_us)
    local object = object_of(item)
    object.ts, object.name = timestamp(item.at_us or now_us), name
    return assert(json.encode(setmetatable(object, { __jsonorder = order })))
end

return oneline
