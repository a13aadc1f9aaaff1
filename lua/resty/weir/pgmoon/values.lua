--- Results as pgmoon gives them, and parameters as it takes them. What needs no Lua is decoded in C; the rest
-- arrives as the server's text with its type, and goes through the type deserializers here.

local arrays = require "resty.weir.pgmoon.arrays"
local hstore = require "resty.weir.pgmoon.hstore"
local literals = require "resty.weir.pgmoon.literals"
local types = require "weir.types"

local values = {}

-- ---- types ------------------------------------------------------------------------------------------------

--- Type OID -> name of its deserializer. What is not here stays text.
values.PG_TYPES = {
    [16] = "boolean", [17] = "bytea",
    [20] = "number", [21] = "number", [23] = "number", [700] = "number", [701] = "number", [1700] = "number",
    [114] = "json", [3802] = "json",
    [1000] = "array_boolean",
    [1005] = "array_number", [1007] = "array_number", [1016] = "array_number", [1021] = "array_number",
    [1022] = "array_number", [1231] = "array_number",
    [1002] = "array_string", [1009] = "array_string", [1014] = "array_string", [1015] = "array_string",
    [1041] = "array_string", [2951] = "array_string",
    [199] = "array_json", [3807] = "array_json",
}

local core -- of Weir, for single values; loaded late, so that literals alone need no module in C

local function lossless(text)
    core = core or require "weir.core"
    return core.decode(1700, text)
end

local function boolean_of(text)
    return text == "t"
end

-- Lua 5.4 knows no text for infinity.
local function as_pgmoon(text)
    return tonumber(text) or lossless(text)
end

local function number_of(pg)
    return pg.numeric_mode == "pgmoon" and as_pgmoon or lossless
end

local function json_of(pg)
    return pg.numeric_mode == "pgmoon" and literals.decode_json_as_pgmoon or literals.decode_json
end

-- Text of a type that somebody declared to be an array and that is none stays text.
local function array_of(pg, text, convert)
    local ok, list = pcall(arrays.decode_array, text, convert, pg.NULL)
    return ok and list or text
end

--- Name -> function(pg, text, name): what the text becomes.
values.type_deserializers = {
    json = function(pg, text) return json_of(pg)(text) end,
    bytea = function(_, text) return literals.decode_bytea(text) end,
    boolean = function(_, text) return boolean_of(text) end,
    number = function(pg, text) return number_of(pg)(text) end,
    array_boolean = function(pg, text) return array_of(pg, text, boolean_of) end,
    array_number = function(pg, text) return array_of(pg, text, number_of(pg)) end,
    array_string = function(pg, text) return array_of(pg, text) end,
    array_json = function(pg, text) return array_of(pg, text, json_of(pg)) end,
    hstore = function(pg, text) return hstore.decode_hstore(text, pg.convert_null and pg.NULL or nil) end,
}

-- ---- results ----------------------------------------------------------------------------------------------

-- What C decodes just as well, as long as nobody has other plans with it.
local in_c = {
    [16] = true, [17] = true, [20] = true, [21] = true, [23] = true, [700] = true, [701] = true, [1700] = true,
}
local in_c_without_numbers = { [16] = true, [17] = true }

local function is_as_it_was(pg, oid)
    local name = values.PG_TYPES[oid]
    return pg.PG_TYPES[oid] == name and pg.type_deserializers[name] == values.type_deserializers[name]
end

--- The types that C decodes for this object.
function values.native(pg)
    local wanted = pg.numeric_mode == "pgmoon" and in_c_without_numbers or in_c
    local chosen = wanted
    for oid in pairs(wanted) do
        if not is_as_it_was(pg, oid) then
            if chosen == wanted then
                chosen = {}
                for other in pairs(wanted) do chosen[other] = true end
            end
            chosen[oid] = nil
        end
    end
    return chosen
end

-- Name of a column -> what is to be done with it; of two of one name the last counts. Second: whether
-- anything is.
local function plan(pg, columns, native)
    local steps, needed = {}, false
    for i = 1, #columns, 2 do
        local name, oid = columns[i], columns[i + 1]
        local type_name = not native[oid] and pg.PG_TYPES[oid]
        steps[name] = type_name and pg.type_deserializers[type_name] and type_name or false
    end
    for _, step in pairs(steps) do needed = needed or step end
    return steps, needed
end

local function finish_row(pg, row, steps, replace)
    local null, deserializers = literals.NULL, pg.type_deserializers
    for name, step in pairs(steps) do
        local value = row[name]
        if value == null then
            if replace then row[name] = pg.NULL end
        elseif step and value ~= nil then
            row[name] = deserializers[step](pg, value, step)
        end
    end
end

--- A function for pipelines that reads a call's results for this object, and where it leaves the notices.
function values.reader(pg)
    local heard, native, nulls = {}, values.native(pg), pg.convert_null and true or false
    local replace = nulls and pg.NULL ~= literals.NULL
    return function(call, number)
        local rows, columns, notices = call:result(number, nulls, native)
        heard.notices = notices
        if type(rows) ~= "table" or #rows == 0 then return rows end
        local steps, needed = plan(pg, columns, native)
        if needed or replace then
            for _, row in ipairs(rows) do finish_row(pg, row, steps, replace) end
        end
        return rows
    end, heard
end

-- ---- parameters -------------------------------------------------------------------------------------------

local function table_parameter(pg, value)
    local meta = getmetatable(value)
    if meta == types.Parameter then return 0, value end -- weir.json, weir.array, weir.bytea
    local serialize = type(meta) == "table" and meta.pgmoon_serialize
    if not serialize then return nil, "table does not implement pgmoon_serialize, can't serialize" end
    return serialize(value, pg)
end

local function parameter(pg, value)
    if value == nil or value == literals.NULL or value == pg.NULL then return 0, nil end
    local kind = type(value)
    if kind == "string" then return 25, value end
    if kind == "number" then return 1700, value end
    if kind == "boolean" then return 16, value end
    if kind == "table" then return table_parameter(pg, value) end
    return nil, "don't know how to serialize a " .. kind
end

--- The statement { sql, ..., types = } for a pipeline, or nil and why a parameter cannot be sent.
function values.statement(pg, sql, count, ...)
    local statement, oids = { sql, n = count + 1 }, {}
    for i = 1, count do
        local oid, text = parameter(pg, (select(i, ...)))
        if not oid then return nil, ("pgmoon: param %d: %s"):format(i, tostring(text)) end
        oids[i], statement[i + 1] = oid, text
    end
    if count > 0 then statement.types = oids end
    return statement
end

return values
