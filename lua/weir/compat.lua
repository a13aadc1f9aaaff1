--- The few names that differ between Lua 5.4 and LuaJIT.

local compat = {}

compat.unpack = table.unpack or unpack -- luacheck: ignore

compat.pack = table.pack or function(...)
    return { n = select("#", ...), ... }
end

--- True for a number that is whole and that this VM holds exactly.
if math.type then
    function compat.is_integer(value)
        return math.type(value) == "integer"
    end
else
    function compat.is_integer(value)
        return type(value) == "number" and value % 1 == 0 and math.abs(value) <= 9007199254740992
    end
end

--- A number as the shortest text that reads back the same, with a point whatever the locale is.
function compat.number_text(value)
    if value ~= value then return "NaN" end
    if value == math.huge then return "Infinity" end
    if value == -math.huge then return "-Infinity" end
    if compat.is_integer(value) then return ("%d"):format(value) end
    if value % 1 == 0 and math.abs(value) < 1e18 then return ("%.0f"):format(value) end
    local text
    for precision = 15, 17 do
        text = ("%." .. precision .. "g"):format(value)
        if tonumber(text) == value then break end
    end
    return (text:gsub(",", "."))
end

--- Calls `fn` when the Lua state closes. Tables have finalisers in 5.4 only, hence newproxy on LuaJIT.
function compat.at_close(fn)
    if newproxy then -- luacheck: ignore
        local proxy = newproxy(true) -- luacheck: ignore
        getmetatable(proxy).__gc = fn
        return proxy
    end
    return setmetatable({}, { __gc = fn })
end

return compat
