--- Command lines of the commands that look at an area.

local switches = {}

--- A value that is not empty.
function switches.text(value)
    if value ~= "" then return value end
    return nil, "a text that is not empty"
end

--- A whole number in a range.
function switches.whole(least, most)
    return function(value)
        local number = value:find "^%d+$" and math.tointeger(tonumber(value))
        if number and number >= least and number <= most then return number end
        return nil, ("a whole number from %d to %d"):format(least, most)
    end
end

--- A number of seconds in a range.
function switches.seconds(least, most)
    return function(value)
        local number = (value:find "^%d+%.?%d*$" or value:find "^%.%d+$") and tonumber(value)
        if number and number >= least and number <= most then return number end
        return nil, ("a number of seconds from %g to %g"):format(least, most)
    end
end

local function names_of(options)
    local names = {}
    for _, option in ipairs(options) do names[#names + 1] = option.name end
    return table.concat(names, ", ")
end

local function find(options, name)
    for _, option in ipairs(options) do
        if option.name == name then return option end
    end
end

-- Takes the word at words[at]; returns where to go on, or nil and what is wrong.
local function take(parsed, options, words, at)
    local name, value = words[at]:match "^(%-%-[^=]+)=(.*)$"
    name = name or words[at]
    local option = find(options, name)
    if not option and name:sub(1, 1) ~= "-" then return nil,
        ("what is '%s'? All that it takes are options"):format(name) end
    if not option then return nil, ("unknown option '%s'; there are %s"):format(name, names_of(options)) end
    if not option.read then
        if value then return nil, ("%s takes no value, but was given '%s'"):format(name, value) end
        parsed[option.key] = true
        return at + 1
    end
    if not value then
        at = at + 1
        value = words[at]
        if not value then return nil, ("%s needs a value"):format(name) end
    end
    local read, wanted = option.read(value)
    if read == nil then return nil, ("%s %s: it must be %s"):format(name, value == "" and "''" or value,
        wanted) end
    parsed[option.key] = read
    return at + 1
end

--- The words by the options' keys; or nil and what is wrong. An option is { name = "--x", key = "x", read =
-- function(value) giving the value or nil and what is wanted, none if it takes no value }.
function switches.parse(options, words)
    local parsed, at = {}, 1
    while words[at] do
        local after, why = take(parsed, options, words, at)
        if not after then return nil, why end
        at = after
    end
    return parsed
end

--- The offset of local time to UTC in seconds, at this moment.
function switches.utc_offset(at)
    local sign, hours, minutes = os.date("%z", math.floor(at)):match "^([+-])(%d%d)(%d%d)$"
    if not sign then return 0 end
    return (sign == "-" and -1 or 1) * (tonumber(hours) * 3600 + tonumber(minutes) * 60)
end

return switches
