--- What a Lua value should become as a parameter, where that is not obvious: json, arrays, bytes.

local compat = require "weir.compat"
local errors = require "weir.errors"
local json = require "weir.json"

local types = {}

-- [1] is the text, [2] whether it is sent as binary. C knows this metatable (core.setup). Beside them what it is
-- inside weir.json: `json`, its text there, or `list`, what weir.array was given.
local Parameter = { __name = "weir.parameter" }
types.Parameter = Parameter

--- A value as json or jsonb. An empty table is {}, weir.array{} is [].
function types.json(value)
    local text, why = json.encode(value)
    if not text then errors.misuse("weir.json: " .. why) end
    return setmetatable({ text, false, json = text }, Parameter)
end

--- Bytes as bytea, zero bytes and all.
function types.bytea(bytes)
    if type(bytes) ~= "string" then
        errors.misusef("weir.bytea: the bytes are a %s; they must be a string", type(bytes))
    end
    return setmetatable({ bytes, true }, Parameter)
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
    return setmetatable({ array_text(list, "list"), false, list = list }, Parameter)
end

-- As weir.array reads it: every table in it that is no wrapper is a list, however empty.
local function json_list(list)
    local copy = {}
    for i = 1, length_of(list, "list") do
        local item = list[i]
        if item == nil then
            item = json.null
        elseif type(item) == "table" and item ~= json.null and getmetatable(item) ~= Parameter then
            item = json_list(item)
        end
        copy[i] = item
    end
    return json.mark_array(copy)
end

--- A wrapper inside weir.json is what it wraps.
function Parameter:__tojson()
    if self.json then return self.json end
    if self.list then return json.encode(json_list(self.list)) end
    return nil, "bytes are no JSON; weir.bytea cannot be in it, text can"
end

return types
