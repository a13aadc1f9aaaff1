--- A run as rows of characters over a time axis: arrivals, goodput, failures, latency, breaker, retries,
-- queues. At most 100 columns wide; blocks of UTF-8, or plain characters by the option ascii.

local faults = require "weir.scenario.faults"
local series = require "weir.scenario.series"
local wording = require "weir.scenario.wording"

local picture = {}

local LABEL, CHART, NOTE = 10, 72, 17 -- with one space between label and chart: 100 columns

local styles = {
    utf8 = {
        levels = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }, zero = " ", tick = "┬", line = "─", open = "├",
            close = "┤",
        mark = "▲",
    },
    ascii = {
        levels = { ".", ":", "-", "=", "+", "*", "#", "@" }, zero = " ", tick = "+", line = "-", open = "|",
            close = "|",
        mark = "^",
    },
}

-- ---- columns
-- ----------------------------------------------------------------------------------------------

-- The run in columns of equal width, no narrower than a bucket.
local function columns_of(figures)
    local bucket = figures.buckets[1] and figures.buckets[1].to - figures.buckets[1].from or 1
    local count = math.max(1, math.min(CHART, math.floor(figures.ended / bucket + 1e-9)))
    local width = figures.ended / count
    return series.windows(figures.buckets, 0, figures.ended, width), width
end

local function column_at(moment, width, count)
    return math.max(1, math.min(count, math.floor(moment / width + 1e-9) + 1))
end

-- Attempts beyond the first of those requests that were let in at all.
local function retries_in(window)
    return math.max(0, window.attempts - window.ok - window.failed)
end

local function peak_of(samples, from, to, key)
    local most = 0
    for _, sample in ipairs(samples) do
        if sample.at >= from and sample.at < to then most = math.max(most, sample[key]) end
    end
    return most
end

-- ---- rows
-- -------------------------------------------------------------------------------------------------

local function pad(text, width)
    return text .. (" "):rep(width - #text)
end

local function row(label, cells, note)
    local text = pad(label, LABEL) .. " " .. table.concat(cells)
    if note then text = text .. " " .. note end
    return (text:gsub("%s+$", ""))
end

local function bars(values, most, style)
    local cells = {}
    for i, value in ipairs(values) do
        local level = most > 0 and math.ceil(value / most * #style.levels - 1e-9) or 0
        cells[i] = value > 0 and style.levels[math.max(1, math.min(#style.levels, level))] or style.zero
    end
    return cells
end

local function largest(values)
    local most = 0
    for _, value in ipairs(values) do most = math.max(most, value) end
    return most
end

local function values_of(columns, read)
    local values = {}
    for i, column in ipairs(columns) do values[i] = read(column, math.max(column.to - column.from, 1e-9)) end
    return values
end

local function per_second(most)
    return ("max %s/s"):format(most < 10 and wording.moment(math.ceil(most * 10) / 10) or wording.count(most))
end

local letters = {
    CLOSED = "C", HALF_OPEN = "H", OPEN = "O", FORCED_OPEN = "O", FORCED_CLOSED = "C", DISABLED = "D",
        METRICS_ONLY = "M",
}

local function breaker_cells(columns)
    local cells, before = {}, " "
    for i, column in ipairs(columns) do
        before = letters[column.breaker] or before -- where nothing happened it stood as it was
        cells[i] = before
    end
    return cells
end

-- ---- axis, phases and faults
-- ------------------------------------------------------------------------------

local function blank(count)
    local cells = {}
    for i = 1, count do cells[i] = " " end
    return cells
end

-- Writes text into the cells, cut off at `last`; one byte is one column.
local function write(cells, at, text, last)
    for i = 1, #text do
        if at + i - 1 > last then return end
        cells[at + i - 1] = text:sub(i, i)
    end
end

local function tick_step(seconds)
    local step = 1e-3
    while true do
        for _, factor in ipairs { 1, 2, 5 } do
            if seconds / (step * factor) <= 9 then return step * factor end
        end
        step = step * 10
    end
end

local function axis(figures, width, count, style)
    local line, numbers = {}, blank(count)
    for i = 1, count do line[i] = style.line end
    local step = tick_step(figures.ended)
    for i = 0, math.floor(figures.ended / step + 1e-9) do
        local at = column_at(i * step, width, count)
        local text = wording.moment(i * step)
        if at + #text - 1 <= count then
            line[at] = style.tick
            write(numbers, at, text, count)
        end
    end
    return row("", line), row("seconds", numbers)
end

local function free(cells, from, to)
    for i = from, to do
        if cells[i] ~= " " then return false end
    end
    return true
end

-- The columns whose middle lies in the phase: so phases that follow each other share none.
local function columns_within(phase, width, count)
    local from = math.max(1, math.min(count, math.ceil(phase.from / width + 0.5)))
    local to = math.min(count, math.ceil(phase.to / width + 0.5) - 1)
    return from, math.max(from, to)
end

-- Phases may overlap: each goes into the first row that has room for it.
local function phase_rows(plan, width, count, style)
    local rows = {}
    for _, phase in ipairs(plan.phases) do
        local from, to = columns_within(phase, width, count)
        local cells
        for _, other in ipairs(rows) do
            if free(other, from, to) then
                cells = other
                break
            end
        end
        if not cells then
            cells = blank(count)
            rows[#rows + 1] = cells
        end
        for i = from, to do cells[i] = style.line end
        cells[from], cells[to] = style.open, style.close
        if to - from >= 3 then write(cells, from + 1, phase.name:gsub("[^%g ]", "?"), to - 1) end
    end
    return rows
end

local MARK_ROWS_MAX = 4

local function mark_rows(plan, width, count, style)
    local rows = {}
    for _, entry in ipairs(plan.timeline) do
        local at = column_at(entry.from, width, count)
        local title = " " .. faults.title(entry.what):gsub("[^%g ]", "?")
        local start = at
        local last = math.min(count, at + #title)
        local cells
        for _, other in ipairs(rows) do
            if free(other, math.max(1, start - 1), math.min(count, last + 1)) then
                cells = other
                break
            end
        end
        if not cells and #rows < MARK_ROWS_MAX then
            cells = blank(count)
            rows[#rows + 1] = cells
        end
        if cells then
            write(cells, at + 1, title, count)
            cells[at] = style.mark
        end
    end
    return rows
end

-- ---- the picture
-- ------------------------------------------------------------------------------------------

local function request_rows(add, columns, style)
    local arrivals = values_of(columns, function(c, s) return c.arrived / s end)
    local goodput = values_of(columns, function(c, s) return c.ok / s end)
    local failures = values_of(columns, function(c, s) return c.failed / s end)
    -- One scale for the three, so that they can be compared by eye.
    local scale = math.max(largest(arrivals), largest(goodput), largest(failures))
    add(row("arrivals", bars(arrivals, scale, style), per_second(largest(arrivals))))
    add(row("goodput", bars(goodput, scale, style), per_second(largest(goodput))))
    add(row("failures", bars(failures, scale, style), per_second(largest(failures))))
end

local function engine_rows(add, columns, style)
    local latency = values_of(columns, function(c) return c.latency_p95 end)
    add(row("p95", bars(latency, largest(latency), style), "max " .. wording.seconds(largest(latency))))
    add(row("breaker", breaker_cells(columns), "C O H"))
    local retries = values_of(columns, function(c, s) return retries_in(c) / s end)
    add(row("retries", bars(retries, largest(retries), style), per_second(largest(retries))))
    local waiting = values_of(columns, function(c) return c.waiting end)
    add(row("waiting", bars(waiting, largest(waiting), style), "max " .. wording.several(largest(waiting),
        "call")))
end

local SERVERS_MAX = 4

-- Of a server its queue; of a real one where nobody knows that, its sessions.
local function server_rows(add, plan, figures, columns, style)
    local unknown = figures.live and not figures.queues
    local key = unknown and "sessions" or "waiting"
    local one, many = unknown and "sessions" or "db queue", unknown and " s" or " q"
    local names = {}
    for _, server in ipairs(plan.servers) do
        if figures.samples and figures.samples[server.name] and #names < SERVERS_MAX then
            names[#names + 1] = server.name
        end
    end
    for _, name in ipairs(names) do
        local queue = values_of(columns, function(c)
            return peak_of(figures.samples[name], c.from, c.to, key)
        end)
        local label = (#names == 1 and one or name:sub(1, LABEL - 3) .. many)
        add(row(label, bars(queue, largest(queue), style), "max " .. wording.count(largest(queue))))
    end
end

--- Draws the figures of a run of `plan`; options: ascii.
function picture.draw(plan, figures, options)
    local style = options and options.ascii and styles.ascii or styles.utf8
    if figures.ended <= 0 then return "" end
    local columns, width = columns_of(figures)
    local lines = {}
    local function add(line) lines[#lines + 1] = line end
    for i, cells in ipairs(phase_rows(plan, width, #columns, style)) do
        add(row(i == 1 and "phase" or "", cells))
    end
    request_rows(add, columns, style)
    engine_rows(add, columns, style)
    server_rows(add, plan, figures, columns, style)
    local line, numbers = axis(figures, width, #columns, style)
    add(line)
    add(numbers)
    for i, cells in ipairs(mark_rows(plan, width, #columns, style)) do
        add(row(i == 1 and "faults" or "", cells))
    end
    return table.concat(lines, "\n")
end

picture.columns = LABEL + 1 + CHART + NOTE

return picture
