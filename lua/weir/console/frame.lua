--- The picture of `weir top`: a pure function from what is known and where one is to lines with looks.
--
-- state = { figures = of rates.lua, area = { state, why }, view = "overview", sorted = { view = number },
-- selected = { view = id }, filter = text, filtering, frozen, help = booleans, label, call = what was
-- drilled into, glyphs = of columns.lua, offset = of local time to UTC in seconds, interval = seconds }

local amounts = require "weir.console.amounts"
local columns = require "weir.console.columns"
local grid = require "weir.console.grid"
local timeline = require "weir.console.timeline"
local views = require "weir.console.views"
local warnings = require "weir.console.warnings"

local frame = {}

-- ---- head -------------------------------------------------------------------------------------------------

local health_looks = { healthy = "good", degraded = "warn", unhealthy = "bad" }

local function policy_text(policy)
    if policy.off then return "policy off" end
    return policy.generation and policy.generation > 0 and ("policy %d"):format(policy.generation)
        or "policy: own file"
end

local function name_line(state, width)
    local f, glyphs = state.figures, state.glyphs
    local line, left = grid.segments({
        { "weir top", "dim", rank = 5 },
        { columns.clean(f.name, glyphs), "head" },
        { f.health, health_looks[f.health] },
        { f.worker_count == 1 and "1 worker" or ("%d workers"):format(f.worker_count),
            f.worker_count > 0 and "plain" or "bad", rank = 2 },
        { "up " .. amounts.seconds(f.uptime), "plain", rank = 3 },
        { policy_text(f.policy), f.policy.off and "bad" or "plain", rank = 4 },
        { state.frozen and "FROZEN" or "", "warn", rank = state.frozen and 0 or 9 },
    }, width - 10, 2)
    line[#line + 1] = { (" "):rep(math.max(0, left + 2)) .. amounts.clock(f.at, state.offset), "dim" }
    return line
end

-- A line of segments whose first curve takes what is left, at most 40 columns.
local function line_with_curve(list, values, width, glyphs)
    local line, left = grid.segments(list, width, 2)
    local room = math.min(40, left - 2)
    if room >= 4 and #values > 0 then
        line[#line + 1] = { "  " .. columns.curve(values, room, glyphs), "bar" }
    end
    return line
end

local function positive(value, look)
    return value and value > 0 and look or "plain"
end

local function traffic_line(state, width)
    local t = state.figures.total
    local ok_look = not t.ok_share and "dim" or t.ok_share < 0.9 and "bad" or t.ok_share < 0.999
        and "warn" or "good"
    return line_with_curve({
        { ("calls %s/s"):format(amounts.rate(t.calls_s)), "head" },
        { ("ok %s%%"):format(amounts.percent(t.ok_share)), ok_look },
        { ("errors %s/s"):format(amounts.rate(t.errors_s)), positive(t.errors_s, "bad"), rank = 2 },
        { ("refused %s/s"):format(amounts.rate(t.refused_s)), positive(t.refused_s, "warn"), rank = 3 },
        { ("retries %s/s"):format(amounts.rate(t.retries_s)), "plain", rank = 4 },
    }, state.figures.history.calls_s or {}, width, state.glyphs)
end

local function since_text(state)
    return state.figures.first and "since the start"
        or ("of %s"):format(amounts.seconds(state.figures.seconds))
end

local function latency_line(state, width)
    local t = state.figures.total
    return line_with_curve({
        { ("p50 %s"):format(amounts.ms(t.p50)), "plain", rank = 3 },
        { ("p95 %s"):format(amounts.ms(t.p95)), "plain", rank = 2 },
        { ("p99 %s"):format(amounts.ms(t.p99)), "head" },
        { since_text(state), "dim", rank = 6 },
        { ("in use %d/%d"):format(t.busy, t.max), t.busy >= t.max and t.max > 0 and "warn" or "plain",
            rank = 1 },
        { ("waiting %d"):format(t.waiting), positive(t.waiting, "warn"), rank = 4 },
        { ("running %d"):format(t.in_flight), "plain", rank = 5 },
    }, state.figures.history.p99 or {}, width, state.glyphs)
end

local function add_warnings(lines, state, width, most)
    local list = warnings.of(state)
    for i = 1, math.min(#list, most) do
        local more = i == most and #list > most and (" (+%d)"):format(#list - most) or ""
        local text = state.glyphs.warning .. " " .. columns.clean(list[i][1], state.glyphs)
        lines[#lines + 1] = { { columns.cut(text, width - #more, state.glyphs) .. more, list[i][2] } }
    end
end

local function head(state, width, height)
    local lines = { name_line(state, width), traffic_line(state, width), latency_line(state, width) }
    add_warnings(lines, state, width, height and (height >= 20 and 3 or height >= 8 and 1 or 0) or 10)
    return lines
end

-- ---- foot -------------------------------------------------------------------------------------------------

local function foot(state, width)
    if state.filtering then
        return grid.clip({ { "filter: ", "head" }, { columns.clean(state.filter, state.glyphs) .. "_",
            "plain" },
            { "   Enter keeps it, Esc drops it", "dim" } }, width, state.glyphs)
    end
    local segments = {}
    for i, view in ipairs(views.list) do
        if not view.hidden then
            local here = view.name == state.view
            segments[#segments + 1] = { ("%d %s"):format(i, view.name), here and "head" or "dim",
                rank = here and 1 or 3 }
        end
    end
    for i, text in ipairs { "? help", "q quit", "/ filter", "s sort", "Enter look", "Space freeze" } do
        segments[#segments + 1] = { text, "dim", rank = i <= 2 and 2 or i + 3 }
    end
    return (grid.segments(segments, width, 1))
end

-- ---- tables -----------------------------------------------------------------------------------------------

local function add(lines, more)
    table.move(more, 1, #more, #lines + 1, lines)
end

local function show_table(state, name, width, room)
    local rows, view = views.rows(state, name), views.by_name[name]
    local lines = grid.table(view.columns, rows, {
        width = width, room = room, glyphs = state.glyphs, offset = state.offset,
        sorted = views.order(state, name).column,
        selected = not state.plain and name == state.view and views.selected(state, name, rows) or nil,
    })
    if #rows == 0 and room > 0 then
        local why = state.filter ~= "" and ("  nothing holds '%s'"):format(state.filter) or "  nothing yet"
        lines[2] = { { columns.cut(columns.clean(why, state.glyphs), width, state.glyphs), "dim" } }
    end
    return lines, rows
end

local function filter_text(state)
    return state.filter ~= "" and ("  filter: %s"):format(columns.clean(state.filter, state.glyphs)) or ""
end

-- How many rows pools, labels and events get of `room` lines, headings not counted; and whether labels
-- have a title.
local function shares(state, room)
    local pools, labels, events = math.max(1, #state.figures.pools), math.max(1, #state.figures.labels),
        math.max(1, #state.figures.events)
    if not room then return pools, math.min(10, labels), math.min(5, events), true end
    local titled = room >= 12
    local left = room - (titled and 4 or 2)
    local for_pools = math.min(pools, math.max(1, left * 2 // 5))
    local for_events = titled and math.min(events, math.max(2, left // 4)) or 0
    local for_labels = math.max(1, left - for_pools - for_events)
    if titled and for_labels > labels then for_labels, for_events = labels, left - for_pools - labels end
    return for_pools, for_labels, for_events, titled
end

local function label_title(state)
    local f = state.figures
    local span = f.first and "since the start" or "last " .. amounts.seconds(f.window)
    return (" labels by %s, %s%s "):format(views.order(state, state.view).name, span, filter_text(state))
end

local function overview(state, width, room)
    local for_pools, for_labels, for_events, titled = shares(state, room)
    local unfiltered = setmetatable({ filter = "" }, { __index = state })
    local lines = show_table(unfiltered, "pools", width, for_pools)
    if titled then lines[#lines + 1] = grid.rule(label_title(state), width, state.glyphs) end
    add(lines, (show_table(state, "overview", width, for_labels)))
    if for_events > 0 then add(lines, (show_table(unfiltered, "events", width, for_events))) end
    return lines
end

-- ---- what is told of a selected row -----------------------------------------------------------------------

local function sentence(state, width, text, look)
    return { { columns.cut(columns.clean(text, state.glyphs), width, state.glyphs), look or "plain" } }
end

local function counts_text(title, counts, names)
    local words = {}
    for _, name in ipairs(names) do
        if (counts[name] or 0) > 0 then
            words[#words + 1] = ("%s %s"):format(name:gsub("_", " "), amounts.count(counts[name]))
        end
    end
    return ("%s: %s"):format(title, #words > 0 and table.concat(words, ", ") or "none")
end

local function pool_details(state, pool, width)
    local whole = pool.whole
    return {
        grid.rule((" %s since the start "):format(columns.clean(pool.pool, state.glyphs)), width,
            state.glyphs),
        sentence(state, width, counts_text("calls", whole.calls, { "started", "ok", "failed", "refused",
            "timeout",
            "unknown", "cancelled", "abandoned" })),
        sentence(state, width, counts_text("refused", whole.refused, { "breaker_open", "queue_full",
            "acquire", "paused",
            "draining" })),
        sentence(state, width, counts_text("attempts", whole.attempts, { "all", "retries", "denied_budget",
            "denied_deadline", "denied_unsafe", "denied_max" })),
        sentence(state, width, counts_text("connections", whole.events, { "opened", "connect_failed",
            "cancels", "resets",
            "leaks" }) .. "; " .. counts_text("closed", whole.closed, { "idle", "lifetime", "error",
                "server", "cancel",
            "shutdown" })),
        sentence(state, width, ("breaker %s: %s"):format(views.state_word(pool.state),
            pool.breaker.evidence ~= "" and pool.breaker.evidence or "has never opened")),
    }
end

local function breaker_details(state, pool, width)
    local lines = { grid.rule((" %s "):format(columns.clean(pool.pool, state.glyphs)), width, state.glyphs) }
    lines[2] = sentence(state, width, ("%s, %s"):format(views.state_word(pool.state), views.next_step(pool)))
    lines[3] = sentence(state, width, pool.breaker.evidence ~= "" and pool.breaker.evidence
        or "has never opened")
    for i = #state.figures.events, 1, -1 do
        local event = state.figures.events[i]
        if event.kind == "breaker" and event.pool == pool.pool then
            lines[#lines + 1] = sentence(state, width, ("%s  %s"):format(amounts.clock(event.at_us / 1e6,
                state.offset),
                event.text))
        end
        if #lines >= 8 then break end
    end
    return lines
end

local function call_details(state, call, width)
    local lines = timeline.lines(call, width, state.glyphs, state.offset)
    table.insert(lines, 1, grid.rule(" its time ", width, state.glyphs))
    return lines
end

local details = { pools = pool_details, breakers = breaker_details, calls = call_details,
    label = call_details }

local function part_lines(state, part, width)
    local now = ("%s: %s/s, ok %s%%, mean %s, p50 %s p95 %s p99 %s"):format(part.pool,
        amounts.rate(part.calls_s),
        amounts.percent(part.ok_share), amounts.ms(part.mean_ms), amounts.ms(part.p50), amounts.ms(part.p95),
        amounts.ms(part.p99))
    local ever = counts_text("  since the start", part.whole, { "ok", "failed", "refused", "timeout",
        "unknown",
        "cancelled", "retries" })
    return { sentence(state, width, now), sentence(state, width, ever) }
end

local function label_parts(state, label, width)
    local lines = { grid.rule((" %s, last %s "):format(columns.clean(label.label, state.glyphs),
        amounts.seconds(state.figures.window)), width, state.glyphs) }
    for _, part in ipairs(label.parts) do add(lines, part_lines(state, part, width)) end
    return lines
end

local function label_head(state, width)
    for _, label in ipairs(state.figures.labels) do
        if label.label == state.label then return label_parts(state, label, width) end
    end
    return { grid.rule(" " .. columns.clean(state.label, state.glyphs) .. " ", width, state.glyphs) }
end

local function one_table(state, width, room)
    local lines = state.view == "label" and label_head(state, width) or {}
    if state.filter ~= "" then lines[#lines + 1] = sentence(state, width, "filter: " .. state.filter,
        "dim") end
    local rows = views.rows(state, state.view)
    local at = views.selected(state, state.view, rows)
    local more = at and details[state.view] and details[state.view](state, rows[at], width) or {}
    local left = room and math.max(1, room - #lines - 1) or #rows
    if room and #more > left - 3 then more = {} end
    add(lines, (show_table(state, state.view, width, room and math.max(1, left - #more) or #rows)))
    for _ = 1, room and room - #lines - #more or 0 do lines[#lines + 1] = {} end
    add(lines, more)
    return lines
end

-- ---- one call, and help -----------------------------------------------------------------------------------

local function one_call(state, width)
    local lines = { grid.rule(" one call ", width, state.glyphs) }
    add(lines, timeline.lines(state.call, width, state.glyphs, state.offset))
    lines[#lines + 1] = {}
    lines[#lines + 1] = sentence(state, width, timeline.legend(state.glyphs), "dim")
    return lines
end

local help = {
    "1 to 7, Tab     a view: overview, pools, breakers, labels, calls, events, workers",
    "arrows, PgUp, PgDn, Home, End: select a line",
    "Enter           look into it: a label's slowest calls, a call's time",
    "Esc             back",
    "s, < and >      another order",
    "/               show only lines that hold a text; an empty one shows all",
    "Space           freeze, and go on",
    "q               end",
    "",
    "Rates and quantiles are of the time between two readings, those of labels of the last ten.",
    "err/s: failed, timed out, or unknown; ref/s: refused by a guard;",
    "w.p99: waiting for a connection, since the start.",
    "Nothing here is asked of the engine: all of it is read from its area.",
}

local function help_lines(state, width)
    local lines = { grid.rule(" help, any key goes back ", width, state.glyphs) }
    for _, text in ipairs(help) do lines[#lines + 1] = sentence(state, width, text) end
    return lines
end

-- ---- the whole --------------------------------------------------------------------------------------------

local function body(state, width, room)
    if state.help then return help_lines(state, width) end
    if state.call then return one_call(state, width) end
    if state.view == "overview" then return overview(state, width, room) end
    return one_table(state, width, room)
end

--- The lines of a frame: `height` of them, or as many as it takes if that is nil; none is wider than
-- `width`.
function frame.make(state, width, height)
    local lines = head(state, width, height)
    local room = height and math.max(1, height - #lines - 1)
    add(lines, body(state, width, room))
    if height then
        for _ = #lines + 1, height - 1 do lines[#lines + 1] = {} end
        for i = #lines, math.max(2, height), -1 do lines[i] = nil end
        if height > 1 then lines[height] = foot(state, width) end
    end
    for i, line in ipairs(lines) do lines[i] = grid.clip(line, width, state.glyphs) end
    return lines
end

--- The frame as plain text.
function frame.text(state, width, height)
    local texts = {}
    for i, line in ipairs(frame.make(state, width, height)) do texts[i] = grid.plain(line) end
    return table.concat(texts, "\n") .. "\n"
end

--- A state to begin with.
function frame.state(settings)
    local state = { view = "overview", sorted = {}, selected = {}, filter = "", area = { state = "live",
        why = "" },
        glyphs = columns.unicode, offset = 0, interval = 1 }
    for name, value in pairs(settings or {}) do state[name] = value end
    return state
end

return frame
