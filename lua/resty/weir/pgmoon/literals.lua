--- Lua values as SQL text and as parameters, the way pgmoon writes them.

local compat = require "weir.compat"
local json = require "weir.json"

local literals = {}

--- SQL NULL where absence will not do. Weir's own, so that results need not be gone through for it.
literals.NULL = json.null

local function number_literal(value)
    local text = compat.number_text(value)
    if value ~= value or value == math.huge or value == -math.huge then return "'" .. text .. "'" end
    return text
end

--- A value as a literal of SQL. `null` is what stands for NULL beside literals.NULL.
function literals.escape(value, null)
    if value == literals.NULL or (null ~= nil and value == null) then return "NULL" end
    local kind = type(value)
    if kind == "number" then return number_literal(value) end
    if kind == "string" then return "'" .. value:gsub("'", "''") .. "'" end
    if kind == "boolean" then return value and "TRUE" or "FALSE" end
    error("don't know how to escape value: " .. tostring(value), 3)
end

function literals.escape_identifier(name)
    return '"' .. tostring(name):gsub('"', '""') .. '"'
end

function literals.encode_bytea(bytes)
    return "E'\\\\x" .. bytes:gsub(".", function(char)
        return ("%02x"):format(char:byte())
    end) .. "'"
end

local function from_hex(digits)
    return string.char(tonumber(digits, 16))
end

local function from_escape(first, rest)
    if first == "\\" then return "\\" .. rest end
    return string.char(tonumber(first .. rest, 8))
end

--- The bytes of a bytea as the server writes it, in either of its forms.
function literals.decode_bytea(text)
    if text:sub(1, 2) == "\\x" then return (text:sub(3):gsub("%x%x", from_hex)) end
    return (text:gsub("\\([\\%d])(%d?%d?)", from_escape))
end

-- ---- JSON -------------------------------------------------------------------------------------------------

-- With cjson, as with pgmoon, JSON null is cjson.null; where it is missing, it is weir.null.
local has_cjson, cjson = pcall(require, "cjson")

literals.json_null = has_cjson and cjson.null or json.null

local function decoded(decode, text)
    local value, why = decode(text, literals.json_null)
    if why then return text end
    return value
end

local function without_loss(text)
    return decoded(json.decode_with, text)
end

--- The value of a JSON text. Whole numbers that a Lua number would round keep their digits as text.
function literals.decode_json(text)
    if not has_cjson or text:find "%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d" then return without_loss(text) end
    local ok, value = pcall(cjson.decode, text)
    if ok then return value end
    return without_loss(text)
end

--- The same with the digits that pgmoon leaves.
function literals.decode_json_as_pgmoon(text)
    if has_cjson then return cjson.decode(text) end
    return decoded(json.decode_rounding, text)
end

local function json_text(value)
    if has_cjson then return cjson.encode(value) end
    local text, why = json.encode(value)
    if not text then error(why, 3) end
    return text
end

--- A value as a literal of type json.
function literals.encode_json(value, escape)
    return (escape or literals.escape)(json_text(value))
end

-- ---- integers of the wire ---------------------------------------------------------------------------------

--- A whole number as 2 or 4 bytes, the highest first.
function literals.encode_int(number, bytes)
    bytes = bytes or 4
    if bytes ~= 2 and bytes ~= 4 then error("don't know how to encode " .. bytes .. " byte(s)", 2) end
    number = number % 256 ^ bytes
    local out = {}
    for i = bytes, 1, -1 do
        out[i] = string.char(number % 256)
        number = math.floor(number / 256)
    end
    return table.concat(out)
end

--- The number of 2 bytes (without sign) or 4 (with one).
function literals.decode_int(text, bytes)
    bytes = bytes or #text
    if bytes ~= 2 and bytes ~= 4 then error("don't know how to decode " .. bytes .. " byte(s)", 2) end
    local number = 0
    for i = 1, bytes do number = number * 256 + text:byte(i) end
    return number >= 2147483648 and number - 4294967296 or number
end

return literals
