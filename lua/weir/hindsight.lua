--- What has happened to an engine, for a view: finished calls, events, and why.

local errors = require "weir.errors"
local listing = require "weir.listing"
local view = require "weir.view"

local hindsight = {}

local View = view.View

local RECORDED_MAX = 8192

local REFUSALS = { breaker_open = true, queue_full = true, acquire_timeout = true, paused = true,
    draining = true }

-- ---- calls ------------------------------------------------------------------------------------------------

local function age(us, at)
    return (at - us) / 1e6
end

local function why_of(call)
    if call.code == "ok" then return "" end
    local parts = {}
    if call.outcome == "unknown" then parts[#parts + 1] = "outcome unknown" end
    if call.xid and call.xid ~= 0 then parts[#parts + 1] = ("xid %s"):format(call.xid) end
    if REFUSALS[call.code] then parts[#parts + 1] = "refused, nothing was sent" end
    local last = call.timeline[#call.timeline]
    if last and not REFUSALS[call.code] then
        parts[#parts + 1] = last.phase:gsub("_", " ") .. ", " .. last.class
    end
    return table.concat(parts, "; ")
end

local call_columns = {
    { "id", "id" },
    { "age", "age", listing.seconds, right = true },
    { "label", "label" }, { "pool", "pool" }, { "code", "end" },
    { "sqlstate", "sqlstate", function(text) return text ~= "" and text or "-" end },
    { "attempts", "attempts", right = true },
    { "duration_ms", "took", function(ms) return listing.seconds(ms / 1000) end, right = true },
    { "why", "why" },
}

local calls_filters = { label = "string", pool = "string", code = "string", failed = "boolean",
    slower = "number", last = "number", worker = "number" }

local counts = { last = true, worker = true, after = true }

local function check(filter, known, what)
    if filter ~= nil and type(filter) ~= "table" then
        errors.misusef("%s: the filter is a %s; it must be a table", what, type(filter))
    end
    for key, value in pairs(filter or {}) do
        if not known[key] then errors.misusef("%s: there is no filter '%s'", what, tostring(key)) end
        if type(value) ~= known[key] then
            errors.misusef("%s: %s is a %s; it must be a %s", what, key, type(value), known[key])
        end
        if counts[key] and not (value >= 0 and value < 2 ^ 53 and value % 1 == 0) then
            errors.misusef("%s: %s is %s; it must be a whole number, 0 or more", what, key, tostring(value))
        end
    end
end

local function wanted(call, filter)
    if filter.failed ~= nil and (call.code ~= "ok") ~= filter.failed then return false end
    if filter.slower and call.duration_ms / 1000 <= filter.slower then return false end
    if filter.label and call.label ~= filter.label then return false end
    if filter.pool and not call.pool:find(filter.pool, 1, true) then return false end
    if filter.worker and call.worker ~= filter.worker then return false end
    return not filter.code or call.code == filter.code
end

--- The last calls that have ended, newest first: { label =, pool =, code =, failed = true, slower = seconds,
-- worker =, last = 20 }.
function View:calls(filter)
    check(filter, calls_filters, "calls")
    filter = filter or {}
    local rows, most, now = {}, filter.last or 20, self:stats().now_us
    for _, call in ipairs(self:document("calls", RECORDED_MAX)) do
        if #rows >= most then break end
        if wanted(call, filter) then
            call.age, call.why = math.max(0, age(call.started_us, now)), why_of(call)
            rows[#rows + 1] = call
        end
    end
    return listing.new(call_columns, rows, "no such calls")
end

local function milliseconds(us)
    return listing.seconds(us / 1e6)
end

local timeline_columns = {
    { "at", "at", right = true }, { "what", "what" }, { "took", "took", right = true }, { "more", "" },
}

local function step(rows, us, what, took, more)
    rows[#rows + 1] = {
        at = ("+%.3f"):format(us / 1e6), what = what, took = took and milliseconds(took) or "",
            more = more or "",
    }
end

local function attempt_steps(rows, n, attempt)
    local at = attempt.start_us
    if attempt.connect_us > 0 then
        step(rows, at, "waits, and a connection is opened", attempt.wait_us)
    elseif attempt.phase ~= "not_sent" or attempt.backend_pid ~= 0 then
        step(rows, at, attempt.wait_us > 0 and "waits for a connection" or "has a connection at once",
            attempt.wait_us)
    end
    at = at + attempt.wait_us
    local state = attempt.sqlstate ~= "" and "sqlstate " .. attempt.sqlstate .. ", " or ""
    local backend = attempt.backend_pid ~= 0 and ("backend %d, "):format(attempt.backend_pid) or ""
    step(rows, at, ("attempt %d"):format(n), attempt.run_us,
        backend .. state .. attempt.phase:gsub("_", " ") .. (attempt.class ~= "none" and ", "
            .. attempt.class or ""))
    if attempt.backoff_us > 0 then step(rows, at + attempt.run_us, "backs off", attempt.backoff_us) end
end

--- One recorded call by its id, with its timeline: { call = ..., timeline = rows }.
function View:call(id)
    for _, call in ipairs(self:document("calls", RECORDED_MAX)) do
        if call.id == id then
            local rows = {}
            step(rows, 0, "begins: " .. call.context, nil, call.pool)
            local first = call.attempts - #call.timeline
            for i, attempt in ipairs(call.timeline) do attempt_steps(rows, first + i, attempt) end
            step(rows, call.duration_ms * 1000, "ends: " .. call.code, nil, why_of(call))
            return listing.new(timeline_columns, rows)
        end
    end
    return nil, errors.new("misuse", ("no call %s is recorded; the recorder keeps the last ones only"):format(tostring(id)))
end

--- The timeline of the call that an error tells of, as far as it is recorded; nil if it is not.
function hindsight.timeline_of(seen, err)
    if type(err.pool) ~= "string" or type(err.context) ~= "string" then return nil end
    for _, call in ipairs(seen:document("calls", 100)) do
        if call.pool == err.pool and call.code == err.code and call.context == err.context then
            return seen:call(call.id), call.id
        end
    end
end

-- ---- events -----------------------------------------------------------------------------------------------

local event_columns = {
    { "at_us", "at", listing.clock }, { "kind", "kind" }, { "pool", "pool" },
    { "worker", "worker", function(n) return n ~= 0 and ("%d"):format(n) or "-" end, right = true },
        { "text", "what" },
}

local event_filters = { kind = "string", pool = "string", worker = "number", last = "number",
    after = "number" }

--- The event log, oldest first: { kind =, pool =, worker =, after = sequence, last = 20 }.
function View:events(filter)
    check(filter, event_filters, "events")
    filter = filter or {}
    local rows = {}
    for _, event in ipairs(self:document("events", filter.after or 0)) do
        if (not filter.kind or event.kind == filter.kind) and (not filter.worker
            or event.worker == filter.worker)
            and (not filter.pool or event.pool:find(filter.pool, 1, true)) then
            rows[#rows + 1] = event
        end
    end
    local surplus = #rows - (filter.last or 20)
    if surplus > 0 then
        table.move(rows, surplus + 1, #rows, 1)
        for i = #rows, #rows - surplus + 1, -1 do rows[i] = nil end
    end
    return listing.new(event_columns, rows, "no such events")
end

-- ---- why --------------------------------------------------------------------------------------------------

-- What a closed breaker has counted, beside what opens it.
local function how_near(b, rules)
    local parts = {}
    if rules.rates then
        local window = rules.window_calls and "" or (" in the last %.4g s"):format(rules.window)
        parts[1] = ("%d of %d call%s%s failed, it opens at %.4g %% of %d or more"):format(b.failures, b.calls,
            b.calls == 1 and "" or "s", window, rules.failure_rate * 100, rules.min_calls)
        if rules.slow_call > 0 then
            parts[2] = ("%d took longer than %s, it opens at %.4g %%"):format(b.slow, listing.seconds(rules.slow_call),
                rules.slow_rate * 100)
        end
    end
    if rules.consecutive > 0 then
        parts[#parts + 1] = ("it opens after %d failure%s in a row"):format(rules.consecutive,
            rules.consecutive == 1 and "" or "s")
    end
    return "next: " .. table.concat(parts, "; ")
end

local function what_is_next(pool, rules)
    local b = pool.breaker
    if b.state == "OPEN" and b.retry_after > 0 then
        return ("next: half-open in %s at the latest, earlier if a background probe succeeds"):format(
            listing.seconds(b.retry_after))
    elseif b.state == "OPEN" then
        return "next: its time has passed, the next call is let in as a probe"
    elseif b.state == "HALF_OPEN" then
        return "next: the probes decide: closed if they succeed, open again if they fail"
    elseif b.state ~= "CLOSED" then
        return "next: nothing by itself; reset(\"" .. pool.pool .. "\") ends it"
    end
    return rules and how_near(b, rules) or "next: it opens when the rates of its configuration are reached"
end

local function refusals(pool, last)
    local parts = {}
    for _, reason in ipairs { "breaker_open", "queue_full", "acquire", "paused", "draining" } do
        local n = pool.refused[reason]
        if n > 0 then parts[#parts + 1] = ("%s %d"):format(reason, n) end
    end
    if #parts == 0 then return "no call has been refused" end
    local text = "refused so far: " .. table.concat(parts, ", ")
    if last then
        text = text .. ("; the last one %s (%s, call %s)"):format(listing.clock(last.started_us), last.code, last.id)
    end
    return text
end

local function last_refusal(self, pool)
    for _, call in ipairs(self:document("calls", RECORDED_MAX)) do
        if call.pool == pool and REFUSALS[call.code] then return call end
    end
end

local Why = { __name = "weir.why" }
Why.__index = Why

function Why:__tostring()
    return table.concat(self, "\n")
end

--- Why a pool is as it is, in plain words: its state, its last moves with their evidence, its refusals, and
-- what comes next. A call's id gives its timeline.
function View:why(name)
    if type(name) == "string" and name:find "^%x+$" and not self:pool(name) then return self:call(name) end
    local pool, err = self:pool(name)
    if not pool then return nil, err end
    local said = setmetatable({ pool = pool.pool, state = pool.state }, Why)
    said[1] = ("%s is %s%s"):format(pool.pool, view.glyphs[pool.state] or pool.state, pool.note ~= ""
        and "; " .. pool.note or "")
    for _, event in ipairs(self:events { pool = pool.pool, last = 8 }) do
        if event.kind == "breaker" or event.kind == "operator" or event.kind == "connect"
            or event.kind == "health" then
            said[#said + 1] = ("  %s  %s"):format(listing.clock(event.at_us), listing.printable(event.text))
        end
    end
    said[#said + 1] = "  " .. refusals(pool, last_refusal(self, pool.pool))
    said[#said + 1] = "  " .. what_is_next(pool, self:config().breaker)
    return said
end

return hindsight
