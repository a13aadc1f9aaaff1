--- JSON by dkjson, without losing digits: whole numbers too large for a Lua number are decoded as text, and
-- floats are encoded so that they read back the same (dkjson alone writes 14 digits).

local dkjson = require "dkjson"
local compat = require "weir.compat"

local json = {}

--- JSON null, and SQL NULL where absence will not do. dkjson's own, so that what it decodes elsewhere is the
-- same value.
json.null = dkjson.null

local find, sub = string.find, string.sub

-- The end of the string literal that starts at `at`.
local function string_end(text, at)
    at = at + 1
    while true do
        local stop = find(text, '["\\]', at)
        if not stop then return #text end
        if sub(text, stop, stop) == '"' then return stop end
        at = stop + 2
    end
end

-- Puts quotes around whole numbers that this VM would round.
local function protect_digits(text)
    local out, copied, at = {}, 1, 1
    while true do
        local start = find(text, '["%d-]', at)
        if not start then break end
        if sub(text, start, start) == '"' then
            at = string_end(text, start) + 1
        else
            local _, last = find(text, "^%-?[%d.eE+-]*", start)
            local number = sub(text, start, last)
            if #number > 15 and not find(number, "[.eE]") and not compat.is_integer(tonumber(number)) then
                out[#out + 1] = sub(text, copied, start - 1) .. '"' .. number .. '"'
                copied = last + 1
            end
            at = last + 1
        end
    end
    out[#out + 1] = sub(text, copied)
    return table.concat(out)
end

--- The value of a JSON text, or nil and why not. JSON null is json.null.
function json.decode(text)
    if find(text, "%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d") then text = protect_digits(text) end
    local value, _, why = dkjson.decode(text, 1, json.null)
    if why then return nil, why end
    return value
end

local Exact = {
    __tojson = function(self)
        return self[1]
    end,
}

local exact

local function exact_table(value, depth)
    local meta = getmetatable(value)
    if depth > 100 or (type(meta) == "table" and meta.__tojson) then return value end
    local copy
    for key, item in pairs(value) do
        local better = exact(item, depth + 1)
        if not rawequal(better, item) then
            if not copy then
                copy = {}
                for k, v in pairs(value) do copy[k] = v end
                setmetatable(copy, meta)
            end
            copy[key] = better
        end
    end
    return copy or value
end

function exact(value, depth)
    if type(value) == "table" then return exact_table(value, depth) end
    if type(value) ~= "number" or tonumber(tostring(value)) == value then return value end
    if value ~= value or value == math.huge or value == -math.huge then return value end
    return setmetatable({ compat.number_text(value) }, Exact)
end

--- The JSON text of a value, or nil and why it has none. An empty table is an array unless its metatable says
-- otherwise (__jsontype = "object").
function json.encode(value)
    local ok, text = pcall(dkjson.encode, exact(value, 0))
    if not ok then return nil, (tostring(text):gsub("^.-:%d+: ", "")) end
    return text
end

return json
