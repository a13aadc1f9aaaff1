--- What a Lua value should become as a parameter, where that is not obvious: json, arrays, bytes.

local compat = require "weir.compat"
local errors = require "weir.errors"
local json = require "weir.json"

local types = {}

-- [1] is the text, [2] whether it is sent as binary. C knows this metatable (core.setup).
local Parameter = { __name = "weir.parameter" }
types.Parameter = Parameter

local function parameter(text, binary)
    return setmetatable({ text, binary }, Parameter)
end

--- A value as json or jsonb.
function types.json(value)
    local text, why = json.encode(value)
    if not text then errors.misuse("weir.json: " .. why) end
    return parameter(text, false)
end

--- Bytes as bytea, zero bytes and all.
function types.bytea(bytes)
    if type(bytes) ~= "string" then
        errors.misusef("weir.bytea: the bytes are a %s; they must be a string", type(bytes))
    end
    return parameter(bytes, true)
end

local function quoted(text)
    return '"' .. text:gsub('["\\]', "\\%0") .. '"'
end

local function hex(bytes)
    return "\\x" .. bytes:gsub(".", function(byte)
        return ("%02x"):format(byte:byte())
    end)
end

local array_text

local function element_text(value, path)
    if value == nil or value == json.null then return "NULL" end
    local kind = type(value)
    if kind == "string" then
        if value:find("\0", 1, true) then
            errors.misuse("weir.array: " .. path .. " holds a zero byte; wrap it in weir.bytea")
        end
        return quoted(value)
    elseif kind == "number" then
        return compat.number_text(value)
    elseif kind == "boolean" then
        return value and "t" or "f"
    elseif getmetatable(value) == Parameter then
        return quoted(value[2] and hex(value[1]) or value[1])
    elseif kind == "table" then
        return array_text(value, path)
    end
    errors.misuse("weir.array: " .. path .. " is a " .. kind)
end

-- The length: n if given, else the largest index, so that a nil in the middle is NULL.
local function length_of(list, path)
    local most = list.n or 0
    for key in pairs(list) do
        if type(key) == "number" and key % 1 == 0 and key >= 1 then
            if key > most then most = key end
        elseif key ~= "n" then
            errors.misusef("weir.array: %s has the key %s; lists have whole numbers", path, tostring(key))
        end
    end
    return most
end

function array_text(list, path)
    local parts = {}
    for i = 1, length_of(list, path) do
        parts[i] = element_text(list[i], ("%s[%d]"):format(path, i))
    end
    return "{" .. table.concat(parts, ",") .. "}"
end

--- A list as an array of the type the statement wants: weir.array{1, 2}, nested for more dimensions,
-- weir.null or nil for NULL (give n when the last is nil), weir.json(...) and weir.bytea(...) as elements.
function types.array(list)
    if type(list) ~= "table" then
        errors.misusef("weir.array: the list is a %s; it must be a table", type(list))
    end
    return parameter(array_text(list, "list"), false)
end

return types
