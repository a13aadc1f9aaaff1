--- Rows with columns: what the console prints aligned, and writes as JSON as they are.

local listing = {}

local Listing = { __name = "weir.listing" }

--- @param columns  list of { key, heading, format }: format gives the text of a value and its row (tostring
-- without it); `right = true` aligns numbers
-- @param rows     list of tables; kept, and given its manners
-- @param empty    the sentence that stands for no rows
function listing.new(columns, rows, empty)
    return setmetatable(rows, { __index = Listing, columns = columns, empty = empty or "none",
        listing = true })
end

function listing.is(value)
    local meta = type(value) == "table" and getmetatable(value)
    return type(meta) == "table" and meta.listing == true
end

--- Seconds in words: "212 ms", "1.9 s", "3 min".
function listing.seconds(value)
    if type(value) ~= "number" then return "-" end
    if value > 0 and value < 0.001 then return ("%.0f us"):format(value * 1e6) end
    if value < 0.01 then return ("%.1f ms"):format(value * 1000) end
    if value < 1 then return ("%.0f ms"):format(value * 1000) end
    if value < 120 then return ("%.1f s"):format(value) end
    if value < 7200 then return ("%.0f min"):format(value / 60) end
    if value < 172800 then return ("%.0f h"):format(value / 3600) end
    return ("%.0f d"):format(value / 86400)
end

--- The moment of a wall clock in microseconds, by the local clock, to the millisecond.
function listing.clock(us)
    return os.date("%H:%M:%S", math.floor(us / 1e6)) .. (".%03d"):format(math.floor(us / 1000) % 1000)
end

-- How many cells a text takes: bytes that go on with a character take none.
local function width(text)
    return #(text:gsub("[\128-\191]", ""))
end
listing.width = width

-- In UTF-8: the control characters above ASCII (one of them begins a sequence like ESC and "["), and what breaks
-- or turns round a line.
local steering = { "\194[\128-\159]", "\216\156", "\226\128[\142\143\168-\174]", "\226\129[\160-\175]", "\239\187\191" }

local function in_bytes(letter)
    return (letter:gsub(".", function(c) return ("\\x%02x"):format(c:byte()) end))
end

--- The text without what steers a terminal, but with its line feeds and tabs.
function listing.harmless(text)
    text = tostring(text):gsub("[^%C\n\t]", in_bytes)
    if not text:find "[\128-\255]" then return text end
    for _, pattern in ipairs(steering) do text = text:gsub(pattern, in_bytes) end
    return text
end

-- Control characters would move the cursor; what comes from a server or from another process may hold any.
function listing.printable(text)
    return (listing.harmless(tostring(text):gsub("\n", " ")):gsub("\t", in_bytes))
end

local function cell(column, row)
    local value = row[column[1]]
    if column[3] then
        value = column[3](value, row)
    elseif value == nil then
        value = "-"
    end
    return listing.printable(value)
end

local function pad(text, to, right)
    local space = (" "):rep(to - width(text))
    return right and space .. text or text .. space
end

--- The lines of a table, its heading first.
function listing.lines(rows)
    local meta = getmetatable(rows)
    if #rows == 0 then return { meta.empty } end
    local texts, widths = { {} }, {}
    for i, column in ipairs(meta.columns) do texts[1][i] = column[2] end
    for _, row in ipairs(rows) do
        local line = {}
        for i, column in ipairs(meta.columns) do line[i] = cell(column, row) end
        texts[#texts + 1] = line
    end
    for _, line in ipairs(texts) do
        for i, text in ipairs(line) do widths[i] = math.max(widths[i] or 0, width(text)) end
    end
    local lines = {}
    for n, line in ipairs(texts) do
        for i, text in ipairs(line) do line[i] = pad(text, widths[i], meta.columns[i].right) end
        lines[n] = (table.concat(line, "  "):gsub("%s+$", ""))
    end
    return lines
end

return listing
