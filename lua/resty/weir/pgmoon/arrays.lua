--- Arrays, in and out: require "pgmoon.arrays" for code that moves to Weir.

local compat = require "weir.compat"
local literals = require "resty.weir.pgmoon.literals"

local arrays = {}

local NO_SERIALIZER = "table does not implement pgmoon_serialize, can't serialize"

-- ---- writing ----------------------------------------------------------------------------------------------

local Array = {} -- the metatable of arrays
Array.__index = Array

--- Marks a table as an array: as a parameter it is written as one. Its own metatable is replaced.
arrays.PostgresArray = setmetatable({ __base = Array, __name = "PostgresArray" }, {
    __call = function(_, list)
        return setmetatable(list, Array)
    end,
})

local function quoted(text)
    return '"' .. text:gsub('["\\]', "\\%0") .. '"'
end

local function table_element(value, pg)
    local meta = getmetatable(value)
    local serialize = type(meta) == "table" and meta.pgmoon_serialize
    if not serialize then return nil, NO_SERIALIZER end
    local oid, text = serialize(value, pg)
    if not oid then return nil, text end
    if meta == Array then return text end
    return quoted(text) -- of the syntax of its type nothing is known
end

local function element(value, pg)
    local kind = type(value)
    if value == literals.NULL or (pg and value == pg.NULL) then return "NULL" end
    if kind == "string" then return quoted(value) end
    if kind == "number" then return compat.number_text(value) end
    if kind == "boolean" then return value and "t" or "f" end
    if kind == "table" then return table_element(value, pg) end
    return nil, "a " .. kind .. " is no element of an array"
end

local array_of = { string = 1009, number = 1231, boolean = 1000 }

--- The array as a parameter: its type, from the first element that is not NULL (0: the server finds out), and
-- its text.
function Array:pgmoon_serialize(pg)
    local parts, oid = {}, nil
    for i = 1, #self do
        local text, why = element(self[i], pg)
        if not text then return nil, why end
        parts[i] = text
        if not oid and text ~= "NULL" then oid = array_of[type(self[i])] or 0 end
    end
    return oid or 0, "{" .. table.concat(parts, ",") .. "}"
end

local function append(parts, list, escape)
    parts[#parts + 1] = "["
    for i, value in ipairs(list) do
        if i > 1 then parts[#parts + 1] = "," end
        if type(value) == "table" and value ~= literals.NULL then
            append(parts, value, escape)
        else
            parts[#parts + 1] = escape(value)
        end
    end
    parts[#parts + 1] = "]"
end

--- A list, nested or not, as ARRAY[...]. An empty one needs a cast: ARRAY[]::text[].
function arrays.encode_array(list, escape)
    local parts = { "ARRAY" }
    append(parts, list, escape or literals.escape)
    return table.concat(parts)
end

-- ---- reading ----------------------------------------------------------------------------------------------

local function malformed(reader)
    error(("array is malformed at byte %d: %s"):format(reader.at, reader.text:sub(1, 100)), 0)
end

local function read_quoted(reader)
    local text, at, parts = reader.text, reader.at + 1, {}
    while true do
        local stop = text:find('["\\]', at)
        if not stop then malformed(reader) end
        parts[#parts + 1] = text:sub(at, stop - 1)
        if text:sub(stop, stop) == '"' then
            reader.at = stop + 1
            return table.concat(parts)
        end
        parts[#parts + 1] = text:sub(stop + 1, stop + 1)
        at = stop + 2
    end
end

local read_list

local function read_element(reader)
    local sign = reader.text:sub(reader.at, reader.at)
    if sign == "{" then return read_list(reader) end
    local value
    if sign == '"' then
        value = read_quoted(reader)
    else
        value = reader.text:match('^[^%s{},"\\]+', reader.at)
        if not value then malformed(reader) end
        reader.at = reader.at + #value
        if value:upper() == "NULL" then return reader.null end
    end
    if not reader.convert then return value end
    value = reader.convert(value)
    if value == nil then return reader.null end
    return value
end

function read_list(reader)
    local list, text = setmetatable({}, Array), reader.text
    reader.at = reader.at + 1
    if text:sub(reader.at, reader.at) == "}" then
        reader.at = reader.at + 1
        return list
    end
    while true do
        list[#list + 1] = read_element(reader)
        local sign = text:sub(reader.at, reader.at)
        reader.at = reader.at + 1
        if sign == "}" then return list end
        if sign ~= "," then malformed(reader) end
    end
end

--- The text of an array as a PostgresArray, bounds or not ('[0:2]={1,2,3}'); indices start at 1. Raises if it
-- is none.
-- @param convert  function(text): what an element becomes; nil leaves text
-- @param null  what stands for NULL, literals.NULL if not given; text that says "NULL" stays text
function arrays.decode_array(text, convert, null)
    if type(text) == "table" then return text end
    local _, bounds = text:find "^%[[%d:%]%[-]*="
    local reader = { text = text, at = (bounds or 0) + 1, convert = convert, null = null }
    if null == nil then reader.null = literals.NULL end
    if text:sub(reader.at, reader.at) ~= "{" then malformed(reader) end
    local list = read_list(reader)
    if reader.at <= #text then malformed(reader) end
    return list
end

return arrays
