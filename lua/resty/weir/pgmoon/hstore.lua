--- hstore, in and out: require "pgmoon.hstore" for code that moves to Weir.

local literals = require "resty.weir.pgmoon.literals"

local hstore = {}

local function quoted(value)
    if value == literals.NULL then return "NULL" end
    return '"' .. tostring(value):gsub('["\\]', "\\%0") .. '"'
end

--- A table as a literal of type hstore. Keys and values become text; literals.NULL is NULL.
function hstore.encode_hstore(pairs_of, escape)
    local parts = {}
    for key, value in pairs(pairs_of) do parts[#parts + 1] = quoted(key) .. "=>" .. quoted(value) end
    return (escape or literals.escape)(table.concat(parts, ", "))
end

local function read_quoted(text, at)
    local parts = {}
    if text:sub(at, at) ~= '"' then return nil end
    at = at + 1
    while true do
        local stop = text:find('["\\]', at)
        if not stop then return nil end
        parts[#parts + 1] = text:sub(at, stop - 1)
        if text:sub(stop, stop) == '"' then return table.concat(parts), stop + 1 end
        parts[#parts + 1] = text:sub(stop + 1, stop + 1)
        at = stop + 2
    end
end

local function read_value(text, at, null)
    if text:sub(at, at + 3) == "NULL" then return null, at + 4 end
    return read_quoted(text, at)
end

local function malformed(text)
    error("hstore is malformed: " .. text:sub(1, 100), 0)
end

--- The text of an hstore as a table. A NULL is left out, or is `null` if that is given.
function hstore.decode_hstore(text, null)
    local found, at = {}, 1
    while at <= #text do
        local key, value
        key, at = read_quoted(text, at)
        if not key or text:sub(at, at + 1) ~= "=>" then malformed(text) end
        value, at = read_value(text, at + 2, null)
        if not at then malformed(text) end
        found[key] = value
        if at <= #text and text:sub(at, at + 1) ~= ", " then malformed(text) end
        at = at + 2
    end
    return found
end

return hstore
