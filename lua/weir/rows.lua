--- What the rows of a result are made by: for each list of column names a function of its own, which takes the values
-- and gives the table. A table constructor that knows its keys is the quickest way to such a table, from C too.

local load = loadstring or load -- luacheck: ignore

local rows = {}

local KEPT_MAX = 256
local LOCALS_MAX = 200 -- that a Lua function may have

--- By the names, each with a zero byte behind it. C looks here first, and then calls rows.maker (core.setup).
rows.makers = {}

local kept = 0

local function split(key)
    local names, at = {}, 1
    while at <= #key do
        local zero = key:find("\0", at, true)
        names[#names + 1] = key:sub(at, zero - 1)
        at = zero + 1
    end
    return names
end

-- A name may be anything, so nothing of it but letters and digits goes into code as it is.
local function literal(name)
    return '"' .. name:gsub("[^A-Za-z0-9_]", function(byte) return ("\\%03d"):format(byte:byte()) end) .. '"'
end

local function narrow(names)
    local values, fields = {}, {}
    for i, name in ipairs(names) do
        values[i] = "v" .. i
        fields[i] = ("[%s]=v%d"):format(literal(name), i)
    end
    local code = "return function(%s) return {%s} end"
    return assert(load(code:format(table.concat(values, ","), table.concat(fields, ",")), "=row"))()
end

local function wide(names)
    return function(...)
        local values, row = { ... }, {}
        for i, name in ipairs(names) do row[name] = values[i] end
        return row
    end
end

--- The function for these names, from now on in rows.makers. Of two columns of one name the last wins, also with nil.
function rows.maker(key)
    local names = split(key)
    local maker = (#names <= LOCALS_MAX and narrow or wide)(names)
    if kept == KEPT_MAX then
        for old in pairs(rows.makers) do rows.makers[old] = nil end
        kept = 0
    end
    rows.makers[key] = maker
    kept = kept + 1
    return maker
end

return rows
