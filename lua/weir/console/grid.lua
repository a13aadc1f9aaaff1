--- Lines of a frame, and tables whose columns give way when the screen is narrow.
--
-- A line is a list of runs { text, look }; looks are those of src/cli/screen.c: plain, head, dim, rule,
-- good, warn, bad, select, bar.

local columns = require "weir.console.columns"

local grid = {}

-- ---- lines ------------------------------------------------------------------------------------------------

--- How many columns a line takes.
function grid.width(line)
    local width = 0
    for _, run in ipairs(line) do width = width + columns.width(run[1]) end
    return width
end

--- The line in at most `width` columns.
function grid.clip(line, width, glyphs)
    if grid.width(line) <= width then return line end
    local clipped, left = {}, width
    for _, run in ipairs(line) do
        local wide = columns.width(run[1])
        if wide > left then
            if left > 0 then clipped[#clipped + 1] = { columns.fit(run[1], left, glyphs), run[2] } end
            break
        end
        clipped[#clipped + 1] = run
        left = left - wide
    end
    return clipped
end

--- What the line says, without looks and without blanks at its end.
function grid.plain(line)
    local texts = {}
    for i, run in ipairs(line) do texts[i] = run[1] end
    return (table.concat(texts):gsub("%s+$", ""))
end

--- A heading in a rule over the whole width.
function grid.rule(title, width, glyphs)
    local text = glyphs.rule:rep(2) .. title
    local rest = math.max(0, width - columns.width(text))
    return grid.clip({ { glyphs.rule:rep(2), "rule" }, { title, "head" }, { glyphs.rule:rep(rest),
        "rule" } }, width,
        glyphs)
end

-- How many columns the segments take beside each other.
local function width_of_segments(segments, gap)
    local width = 0
    for i, segment in ipairs(segments) do
        width = width + columns.width(segment[1]) + (i > 1 and gap or 0)
    end
    return width
end

local function drop_last_in_rank(segments)
    local worst = 1
    for i, segment in ipairs(segments) do
        if (segment.rank or 0) >= (segments[worst].rank or 0) then worst = i end
    end
    table.remove(segments, worst)
end

--- Segments { text, look, rank = } beside each other, `gap` blanks between: where they do not fit, those
-- with the highest rank are left out. Also how many columns are left.
function grid.segments(list, width, gap)
    local segments, line = table.move(list, 1, #list, 1, {}), {}
    while #segments > 1 and width_of_segments(segments, gap) > width do drop_last_in_rank(segments) end
    for i, segment in ipairs(segments) do
        if i > 1 then line[#line + 1] = { (" "):rep(gap), "plain" } end
        line[#line + 1] = { segment[1], segment[2] or "plain" }
    end
    return line, width - width_of_segments(segments, gap)
end

-- ---- tables -----------------------------------------------------------------------------------------------

local function needed(specs)
    local width = 1 -- the mark of the selected line
    for i, spec in ipairs(specs) do width = width + spec.width + (i > 1 and 1 or 0) end
    return width
end

--- The columns for which there is room, each with the width that it gets. A spec is { name, width, rank =
-- the higher the sooner it is left out, right = whether it ends on the right, flex = whether it takes what
-- is left, cell = function(row, glyphs, width, offset) giving a text and a look, or a list of runs of that
-- width }.
function grid.choose(specs, width)
    local chosen = table.move(specs, 1, #specs, 1, {})
    while #chosen > 1 and needed(chosen) > width do drop_last_in_rank(chosen) end
    local spare = math.max(0, width - needed(chosen))
    for i, spec in ipairs(chosen) do
        local wide = spec.width + (spec.flex and spare or 0)
        if spec.flex then spare = 0 end
        chosen[i] = { spec = spec, width = #chosen == 1 and math.min(wide, width - 1) or wide }
    end
    return chosen
end

-- The name of a column, in a rule as wide as the column.
local function head_cell(line, column, glyphs)
    local name = columns.cut(column.spec.name, column.width, glyphs)
    local rest = { glyphs.rule:rep(column.width - columns.width(name)), "rule" }
    if column.spec.right then line[#line + 1] = rest end
    line[#line + 1] = { name, "head" }
    if not column.spec.right then line[#line + 1] = rest end
end

--- The line with the names of the columns, in a rule; before the one that is sorted by is a mark.
function grid.head(chosen, sorted, width, glyphs)
    local line, taken = {}, 0
    for _, column in ipairs(chosen) do
        local here = column.spec.name == sorted
        line[#line + 1] = { here and glyphs.down or glyphs.rule, here and "head" or "rule" }
        head_cell(line, column, glyphs)
        taken = taken + column.width + 1
    end
    line[#line + 1] = { glyphs.rule:rep(math.max(0, width - taken)), "rule" }
    return line
end

local function add_cell(line, column, row, options)
    local glyphs = options.glyphs
    local text, look = column.spec.cell(row, glyphs, column.width, options.offset)
    if type(text) == "table" then
        for _, run in ipairs(text) do line[#line + 1] = run end
        return
    end
    text = columns.fit(columns.clean(text, glyphs), column.width, glyphs, column.spec.right)
    line[#line + 1] = { text, look or "plain" }
end

local function in_one_look(line, look, width)
    local text = {}
    for i, run in ipairs(line) do text[i] = run[1] end
    text = table.concat(text)
    return { { text .. (" "):rep(width - columns.width(text)), look } }
end

local function row_line(chosen, row, selected, options)
    local line = { { selected and options.glyphs.mark or " ", "plain" } }
    for i, column in ipairs(chosen) do
        if i > 1 then line[#line + 1] = { " ", "plain" } end
        add_cell(line, column, row, options)
    end
    if selected then return in_one_look(line, "select", options.width) end
    return line
end

-- The first row to show, so that the selected one is among them.
local function first_row(count, selected, room)
    if not selected or selected <= room then return 1 end
    return math.min(selected, math.max(1, count - room + 1), selected - room + 1)
end

--- The heading and at most `room` rows. Options: width, room, glyphs, selected = number of a row, sorted =
-- name of a column, offset = of local time to UTC in seconds.
function grid.table(specs, rows, options)
    local glyphs, width = options.glyphs, options.width
    local chosen = grid.choose(specs, width)
    local lines = { grid.head(chosen, options.sorted, width, glyphs) }
    local first = first_row(#rows, options.selected, options.room)
    for i = first, math.min(#rows, first + options.room - 1) do
        lines[#lines + 1] = row_line(chosen, rows[i], i == options.selected, options)
    end
    return lines
end

return grid
