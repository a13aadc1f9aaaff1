--- How the console shows a value: rows as aligned tables, tables with their keys in order, errors with their
-- fields. Bounded in depth, breadth and length, whatever it is given.

local errors = require "weir.errors"
local json = require "weir.json"
local listing = require "weir.listing"

local printer = {}

local DEPTH_MAX, ENTRIES_MAX, TEXT_MAX, ROWS_MAX, WIDTH = 5, 100, 2000, 500, 78

local colours = { good = "\27[32m", bad = "\27[31m", warn = "\27[33m", soft = "\27[2m", off = "\27[0m" }

--- The text in a colour, if there are colours.
function printer.coloured(text, name, on)
    if not on then return text end
    return colours[name] .. text .. colours.off
end

-- ---- tables -----------------------------------------------------------------------------------------------

local function quoted(text)
    local cut = #text > TEXT_MAX and text:sub(1, TEXT_MAX) or text
    local shown = listing.printable((("%q"):format(cut):gsub("\\\n", "\\n")))
    if cut == text then return shown end
    return ("%s... (%d bytes)"):format(shown, #text)
end

local rank = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
    local left, right = rank[type(a)] or 4, rank[type(b)] or 4
    if left ~= right then return left < right end
    if left > 2 then return tostring(a) < tostring(b) end
    return a < b
end

local function sorted_keys(value)
    local keys = {}
    for key in next, value do keys[#keys + 1] = key end
    table.sort(keys, before)
    return keys
end

local function is_name(key)
    return type(key) == "string" and key:find "^[%a_][%w_]*$" and not load("local " .. key) == false
end

local show

local function entry(key, position, value, indent, seen, depth)
    local text = show(value, indent, seen, depth)
    if key == position then return text end
    if is_name(key) then return ("%s = %s"):format(key, text) end
    return ("[%s] = %s"):format(show(key, indent, seen, DEPTH_MAX), text)
end

local function own_text(value)
    local meta = getmetatable(value)
    if type(meta) ~= "table" or meta.__tostring == nil then return nil end
    local ok, text = pcall(tostring, value)
    return ok and listing.printable(text) or "(its __tostring failed: " .. listing.printable(text) .. ")"
end

local function entries(value, indent, seen, depth)
    local list, keys = {}, sorted_keys(value)
    for i, key in ipairs(keys) do
        if i > ENTRIES_MAX then
            list[#list + 1] = ("... %d more"):format(#keys - ENTRIES_MAX)
            break
        end
        list[#list + 1] = entry(key, i, rawget(value, key), indent .. "  ", seen, depth + 1)
    end
    return list
end

local function braces(value, indent, seen, depth)
    if seen[value] then return "(shown above)" end
    if next(value) == nil then return "{}" end
    if depth >= DEPTH_MAX then return "{ ... }" end
    seen[value] = true
    local list = entries(value, indent, seen, depth)
    local line = "{ " .. table.concat(list, ", ") .. " }"
    if #line + #indent <= WIDTH and not line:find "\n" then return line end
    local inner = indent .. "  "
    return "{\n" .. inner .. table.concat(list, ",\n" .. inner) .. "\n" .. indent .. "}"
end

function show(value, indent, seen, depth)
    local kind = type(value)
    if kind == "string" then return quoted(value) end
    if kind == "table" then return own_text(value) or braces(value, indent, seen, depth) end
    if kind == "userdata" then return own_text(value) or "userdata" end
    return tostring(value)
end

-- ---- rows -------------------------------------------------------------------------------------------------

-- Rows of a result: a list of two or more flat tables with names for keys.
local function is_rows(value)
    if #value < 1 or getmetatable(value) ~= nil then return false end
    for _, row in ipairs(value) do
        if type(row) ~= "table" or getmetatable(row) ~= nil or #row > 0 or next(row) == nil then
            return false
        end
        for key, cell in next, row do
            if type(key) ~= "string" or type(cell) == "function" or type(cell) == "thread" then
                return false
            end
        end
    end
    return true
end

local function cell_text(value)
    if value == nil then return "" end
    if type(value) == "table" then
        return own_text(value) or (braces(value, "", {}, DEPTH_MAX - 2):gsub("%s*\n%s*", " "))
    end
    local text = tostring(value)
    return #text > 60 and text:sub(1, 57) .. "..." or text
end

local function rows_as_listing(rows)
    local known, columns, shown = {}, {}, {}
    for i, row in ipairs(rows) do
        if i > ROWS_MAX then break end
        for key in next, row do known[key] = known[key] ~= false and type(row[key]) == "number" end
        shown[i] = row
    end
    for _, key in ipairs(sorted_keys(known)) do
        columns[#columns + 1] = { key, key, cell_text, right = known[key] }
    end
    return listing.new(columns, table.move(shown, 1, #shown, 1, {}))
end

local function rows_text(rows)
    local text = table.concat(listing.lines(rows_as_listing(rows)), "\n")
    local count = ("(%d row%s)"):format(#rows, #rows == 1 and "" or "s")
    if #rows > ROWS_MAX then count = ("(the first %d of %d rows)"):format(ROWS_MAX, #rows) end
    return text .. "\n" .. count
end

-- ---- errors -----------------------------------------------------------------------------------------------

local facts = {
    "code", "sqlstate", "severity", "class", "outcome", "phase", "attempts", "retry_after", "evidence",
        "pool",
    "context", "detail", "hint", "position",
}

-- What says nothing: an error of the console's own was never sent anywhere.
local silent = { class = "none", outcome = "none", attempts = 0, phase = "not_sent" }

local function error_text(err)
    local lines = { listing.printable(tostring(err)) }
    if rawget(err, "context") == nil then return lines[1] end
    for _, name in ipairs(facts) do
        local value = rawget(err, name)
        if value ~= nil and value ~= "" and value ~= silent[name] then
            lines[#lines + 1] = ("  %-12s %s"):format(name, listing.printable(value))
        end
    end
    return table.concat(lines, "\n")
end

-- ---- what is called ---------------------------------------------------------------------------------------

--- The lines of a value at the prompt.
function printer.text(value)
    if type(value) ~= "table" then return show(value, "", {}, 0) end
    if listing.is(value) then return table.concat(listing.lines(value), "\n") end
    if errors.is(value) then return error_text(value) end
    local meta = getmetatable(value)
    if type(meta) == "table" and meta.__tostring then
        local ok, text = pcall(tostring, value)
        return ok and listing.harmless(text) or show(value, "", {}, 0)
    end
    if is_rows(value) then return rows_text(value) end
    return show(value, "", {}, 0)
end

-- What JSON cannot hold is told by its name.
local function plain(value, seen)
    local kind = type(value)
    if kind == "number" and (value ~= value or value == math.huge or value == -math.huge) then
        return tostring(value)
    end
    if kind ~= "table" then
        return (kind == "function" or kind == "userdata" or kind == "thread") and value ~= json.null
            and kind or value
    end
    if seen[value] then return "(circular)" end
    seen[value] = true
    local copy, list = {}, #value > 0
    for key, item in next, value do
        if not list or type(key) == "number" then
            copy[list and key or tostring(key)] = plain(item, seen)
        end
    end
    seen[value] = nil
    return listing.is(value) and #value == 0 and json.decode "[]" or copy
end

--- The same value as one line of JSON.
function printer.json(value)
    if type(value) == "table" and errors.is(value) then
        local text = tostring(value)
        value = plain(value, {})
        value.text = text
    end
    local text, why = json.encode(plain(value, {}))
    return text or ('{"error":%q}'):format(tostring(why))
end

return printer
