--- One call as a picture: how its time went by, attempt after attempt.

local amounts = require "weir.console.amounts"
local columns = require "weir.console.columns"

local timeline = {}

-- { first, last, what } in us after the call's start. Connecting is the end of waiting.
local function spans_of(call)
    local spans = {}
    for _, attempt in ipairs(call.timeline or {}) do
        local at = attempt.start_us
        local function add(us, what)
            if us > 0 then spans[#spans + 1] = { at, at + us, what } end
            at = at + us
        end
        add(math.max(0, attempt.wait_us - attempt.connect_us), "wait")
        add(math.min(attempt.connect_us, attempt.wait_us), "connect")
        add(attempt.run_us, "run")
        add(attempt.backoff_us, "pause")
    end
    return spans
end

-- What took most of the time from `first` to `last`.
local function main_part(spans, first, last)
    local most, what = 0, "pause"
    for _, span in ipairs(spans) do
        local shared = math.min(last, span[2]) - math.max(first, span[1])
        if shared > most then most, what = shared, span[3] end
    end
    return what
end

local looks = { wait = "warn", connect = "warn", run = "good", pause = "plain" }

--- The call's time in `width` columns: waiting for a connection, connecting, running, and pauses between.
function timeline.bar(call, width, glyphs)
    local spans, line = spans_of(call), {}
    local whole = math.max(call.duration_ms * 1000, 1)
    for i = 1, width do
        local what = main_part(spans, (i - 1) / width * whole, i / width * whole)
        local last = line[#line]
        if last and last.what == what then
            last[1] = last[1] .. glyphs[what]
        else
            line[#line + 1] = { glyphs[what], looks[what], what = what }
        end
    end
    return line
end

local function us(value)
    return amounts.ms(value / 1000)
end

local function attempt_text(attempt)
    local words = {}
    if attempt.wait_us > 0 then words[#words + 1] = "waited " .. us(attempt.wait_us) end
    if attempt.connect_us > 0 then
        words[#words + 1] = ("(%s of it connecting)"):format(us(attempt.connect_us))
    end
    if attempt.run_us > 0 then words[#words + 1] = "ran " .. us(attempt.run_us) end
    if attempt.backend_pid > 0 then words[#words + 1] = ("in backend %d"):format(attempt.backend_pid) end
    if attempt.sqlstate ~= "" then words[#words + 1] = "SQLSTATE " .. attempt.sqlstate end
    if attempt.class ~= "none" then words[#words + 1] = ("(%s, %s)"):format(attempt.phase, attempt.class) end
    if attempt.backoff_us > 0 then words[#words + 1] = ("then paused %s"):format(us(attempt.backoff_us)) end
    return #words > 0 and table.concat(words, " ") or attempt.phase
end

-- The text in lines, broken at blanks; those after the first stand further in.
local function wrapped(text, width, look, glyphs)
    local lines, indent = {}, (" "):rep(math.min(12, width // 4))
    text = columns.clean(text, glyphs)
    while columns.width(text) > width do
        local part = columns.fit(text, width + 1, glyphs)
        local at = part:match "^.*() "
        if not at or at <= #indent + 1 then break end
        lines[#lines + 1] = { { text:sub(1, at - 1), look } }
        text = indent .. text:sub(at + 1)
    end
    lines[#lines + 1] = { { columns.cut(text, width, glyphs), look } }
    return lines
end

local function attempt_lines(call, i, width, glyphs)
    local attempt = call.timeline[i]
    local number = call.attempts - #call.timeline + i
    local text = ("  +%-8s attempt %d: %s"):format(us(attempt.start_us), number, attempt_text(attempt))
    return wrapped(text, width, attempt.sqlstate ~= "" and "warn" or "plain", glyphs)
end

local function end_text(call)
    local words = { ("  +%-8s %s"):format(amounts.ms(call.duration_ms), call.code) }
    if call.outcome ~= "none" then words[#words + 1] = call.outcome end
    if call.sqlstate ~= "" then words[#words + 1] = "SQLSTATE " .. call.sqlstate end
    if tostring(call.xid) ~= "0" then words[#words + 1] = ("xid %s"):format(call.xid) end
    if call.traceparent ~= "" then words[#words + 1] = "trace " .. call.traceparent end
    return table.concat(words, ", ")
end

--- The look of a call by its end.
function timeline.look(call)
    if call.code == "ok" then return "good" end
    return call.outcome == "unknown" and "bad" or "warn"
end

local function add(lines, more)
    table.move(more, 1, #more, #lines + 1, lines)
end

--- The call's whole story in lines of at most `width` columns.
function timeline.lines(call, width, glyphs, offset)
    local head = ("%s  %s  %s  %s  worker %d  %s"):format(call.id, amounts.clock_ms(call.started_us / 1e6,
        offset),
        call.context, call.pool, call.worker, call.unit and "transaction" or "call")
    local lines = wrapped(head, width, "head", glyphs)
    local bar = timeline.bar(call, math.max(1, width - 4), glyphs)
    table.insert(bar, 1, { "  |", "dim" })
    bar[#bar + 1] = { "|", "dim" }
    lines[#lines + 1] = bar
    for i = 1, #(call.timeline or {}) do add(lines, attempt_lines(call, i, width, glyphs)) end
    add(lines, wrapped(end_text(call), width, timeline.look(call), glyphs))
    return lines
end

--- What the signs of the bar mean.
function timeline.legend(glyphs)
    return ("%s waits for a connection   %s connects   %s runs   blank: pauses"):format(glyphs.wait,
        glyphs.connect,
        glyphs.run)
end

return timeline
