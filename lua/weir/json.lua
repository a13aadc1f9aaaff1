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

--- The value of a JSON text, or nil and why not. JSON null is `null`. Numbers are rounded to what Lua can hold.
function json.decode_rounding(text, null)
    local value, _, why = dkjson.decode(text, 1, null)
    if why then return nil, why end
    return value
end

--- The same without loss: whole numbers too large for a Lua number are text.
function json.decode_with(text, null)
    if find(text, "%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d") then text = protect_digits(text) end
    return json.decode_rounding(text, null)
end

--- The value of a JSON text, or nil and why not. JSON null is json.null.
function json.decode(text)
    return json.decode_with(text, json.null)
end

-- A value whose text is known already.
local Written = {
    __tojson = function(self)
        return self[1]
    end,
}

local function written(text)
    return setmetatable({ text }, Written)
end

local ready

-- dkjson takes an empty table for an array, and { n = 3 } for one of three nulls.
local function odd_table(value, kind)
    if kind == "array" then return nil end
    local key = next(value)
    if key == nil then return written "{}" end
    if key ~= "n" or next(value, key) ~= nil or type(value.n) ~= "number" then return nil end
    return written(('{"n":%s}'):format(dkjson.encode(ready(value.n))))
end

local function ready_table(value, depth)
    local meta = getmetatable(value)
    if type(meta) ~= "table" then meta = nil end
    if depth > 100 or (meta and meta.__tojson) then return value end
    local odd = odd_table(value, meta and meta.__jsontype)
    if odd then return odd end
    local copy
    for key, item in pairs(value) do
        local better = ready(item, depth + 1)
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

-- The value as dkjson writes it without loss; raises for what JSON cannot hold.
function ready(value, depth)
    if type(value) == "table" then return ready_table(value, depth) end
    if type(value) ~= "number" then return value end
    if value ~= value or value == math.huge or value == -math.huge then
        error(compat.number_text(value) .. " is no number in JSON; weir.null says that there is none", 0)
    end
    if tonumber(tostring(value)) == value then return value end
    return written(compat.number_text(value))
end

local function write(value)
    return dkjson.encode(ready(value, 0))
end

--- The JSON text of a value, or nil and why it has none. An empty table is an object unless its metatable says
-- otherwise (__jsontype = "array"), as it does after decode.
function json.encode(value)
    local ok, text = pcall(write, value)
    if not ok then return nil, (tostring(text):gsub("^.-:%d+: ", "")) end
    return text
end

--- The list as an array of JSON, even if it is empty.
function json.mark_array(list)
    return setmetatable(list, { __jsontype = "array" })
end

return json
