--- What may stand in a scenario's tables: known keys, right types, values within limits. Everything that is
-- wrong is one sentence with the knob, the value and the limit.

local compat = require "weir.compat"
local core = require "weir.core"

local check = {}

-- ---- words that look alike
-- --------------------------------------------------------------------------------

-- How many letters must be changed, added, left out or swapped with their neighbour to get from one to the
-- other.
local function distance(a, b)
    local before, row = nil, {}
    for j = 0, #b do row[j] = j end
    for i = 1, #a do
        local next_row = { [0] = i }
        for j = 1, #b do
            local same = a:byte(i) == b:byte(j)
            local least = math.min(row[j] + 1, next_row[j - 1] + 1, row[j - 1] + (same and 0 or 1))
            local swapped = i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j)
            next_row[j] = swapped and math.min(least, before[j - 2] + 1) or least
        end
        before, row = row, next_row
    end
    return row[#b]
end

--- The name of the list that looks most like `name`, if one does.
function check.nearest(name, names)
    local best, least
    local text = tostring(name):lower()
    for _, other in ipairs(names) do
        local far = distance(text, other:lower())
        if not least or far < least then best, least = other, far end
    end
    return least and least <= math.max(1, math.floor(#text / 3)) and best or nil
end

--- The keys of a table that are strings, in order.
function check.names(map)
    local names = {}
    for name in pairs(map) do
        if type(name) == "string" then names[#names + 1] = name end
    end
    table.sort(names)
    return names
end

--- "; did you mean workers?", or nothing.
function check.near(name, names)
    local near = check.nearest(name, names)
    return near and ("; did you mean %s?"):format(near) or ""
end

--- The same, or which names there are.
function check.hint(name, names)
    if check.nearest(name, names) or #names == 0 then return check.near(name, names) end
    return "; there is " .. table.concat(names, ", ")
end

-- ---- values
-- -----------------------------------------------------------------------------------------------

--- A value as it would stand in the file.
function check.shown(value)
    if type(value) == "string" then
        return ("%q"):format(#value > 40 and value:sub(1, 37) .. "..." or value)
    end
    if type(value) == "number" then return compat.number_text(value) end
    if type(value) == "table" or type(value) == "function" then return "a " .. type(value) end
    return tostring(value)
end

function check.type(spot, value, wanted, what)
    if type(value) ~= wanted then
        spot:wrong("is %s; it must be %s", check.shown(value), what or "a " .. wanted)
    end
    return value
end

--- A table of options: nothing but the known keys. `list` says that it may have list elements too.
function check.keys(spot, value, known, list)
    check.type(spot, value, "table")
    local strange
    for key in pairs(value) do -- which one is told must not depend on the order of the hash
        local fine = type(key) == "string" and known[key] or list and type(key) == "number"
        if not fine and (strange == nil or tostring(key) < tostring(strange)) then strange = key end
    end
    if strange == nil then return value end
    local name = type(strange) == "string" and strange or ("[%s]"):format(tostring(strange))
    local at = type(strange) == "string" and spot:at(strange) or spot
    local owner = spot:name()
    at:fail("%s", ("%s is not a known key%s%s"):format(name, owner ~= "" and " of " .. owner or "",
        check.hint(strange, check.names(known))))
end

local function limits_text(least, most)
    if least and most then
        return (", %s to %s"):format(compat.number_text(least), compat.number_text(most))
    end
    if most then return (", at most %s"):format(compat.number_text(most)) end
    return least and (", %s or more"):format(compat.number_text(least)) or ""
end

--- A number from least to most (nil: no limit).
function check.number(spot, value, least, most)
    local fine = type(value) == "number" and value == value and math.abs(value) ~= math.huge and
        (not least or value >= least) and (not most or value <= most)
    if not fine then
        spot:wrong("is %s; it must be a number%s", check.shown(value), limits_text(least, most))
    end
    return value
end

--- A number above 0.
function check.positive(spot, value)
    if type(value) ~= "number" or not (value > 0 and value < math.huge) then
        spot:wrong("is %s; it must be a number, more than 0", check.shown(value))
    end
    return value
end

--- A whole number from least to most.
function check.whole(spot, value, least, most)
    local fine = type(value) == "number" and value % 1 == 0 and (not least or value >= least) and
        (not most or value <= most)
    if not fine then
        spot:wrong("is %s; it must be a whole number%s", check.shown(value), limits_text(least, most))
    end
    return value
end

function check.one_of(spot, value, choices)
    for _, choice in ipairs(choices) do
        if value == choice then return value end
    end
    spot:wrong("is %s; it must be one of %s", check.shown(value), table.concat(choices, ", "))
end

--- How long something takes: a number of seconds, or a distribution.
function check.duration(spot, value)
    if type(value) == "number" then return check.number(spot, value, 0) end
    if type(value) ~= "table" then
        spot:wrong("is %s; it must be a number of seconds or a distribution such as s.exponential(0.002)",
            check.shown(value))
    end
    local mean, why = core.dist({ duration = value }, "duration")
    if not mean then spot:fail("%s", (why:gsub("^duration", spot:name()))) end
    return value
end

--- A list, every element read by read(spot, element, number).
function check.list(spot, value, what, read)
    check.type(spot, value, "table", "a list of " .. what)
    -- A nil in between, of a condition for one, must not cut the list off.
    local out, last = {}, 0
    for key in pairs(value) do
        if type(key) ~= "number" then
            spot:at(key):wrong("stands in a list of %s and has a name", what)
        end
        last = math.max(last, key)
    end
    for i = 1, last do out[i] = read(spot:at(i), value[i], i) end
    return out
end

return check
