--- The command line of `weir test`.

local compat = require "weir.compat"

local arguments = {}

local LARGEST_SEED = 9007199254740991 -- the largest that every Lua holds exactly

local formats = { text = true, tap = true, junit = true }

-- ---- what a value may be: each returns the value, or nil and what is wanted ------------------------------

local function text(value)
    if value ~= "" then return value end
    return nil, "a text that is not empty"
end

local function whole(least, most)
    return function(value)
        local number = value:find "^%d+$" and tonumber(value)
        if number and number >= least and number <= most then return number end
        return nil, ("a whole number from %d to %d"):format(least, most)
    end
end

local function seconds(value)
    local number = value:find "^[%d.]+$" and tonumber(value)
    if number and number >= 0.01 and number <= 86400 then return number end
    return nil, "a number of seconds from 0.01 to 86400"
end

local function format(value)
    if formats[value] then return value end
    return nil, "text, tap or junit"
end

local options = {
    { name = "--format", key = "format", read = format },
    { name = "--output", key = "output", read = text },
    { name = "--filter", key = "filters", read = text, several = true },
    { name = "--seed", key = "seed", read = whole(0, LARGEST_SEED) },
    { name = "--seeds", key = "seeds", read = whole(1, 1000000) },
    { name = "--record", key = "record", read = text },
    { name = "--jobs", key = "jobs", read = whole(1, 256) },
    { name = "--limit", key = "limit", read = seconds },
    { name = "--live", key = "live" },
    { name = "--list", key = "list" },
    { name = "--pictures", key = "pictures" },
    -- how the supervisor starts a worker: the number of the case to begin with
    { name = "--worker", key = "worker", read = whole(1, LARGEST_SEED), internal = true },
}

local by_name, names = {}, {}
for _, option in ipairs(options) do
    by_name[option.name] = option
    if not option.internal then names[#names + 1] = option.name end
end

-- ---- reading ---------------------------------------------------------------------------------------------

local function store(parsed, option, value)
    if not option.read then
        parsed[option.key] = true
        return true
    end
    local read, wanted = option.read(value)
    if read == nil then
        return nil, ("%s %s: it must be %s"):format(option.name, value == "" and "''" or value, wanted)
    end
    if option.several then
        table.insert(parsed[option.key], read)
    else
        parsed[option.key] = read
    end
    return true
end

-- Takes the option at list[at]; returns where to go on, or nil and what is wrong.
local function take_option(parsed, list, at)
    local name, value = list[at]:match "^(%-%-[^=]+)=(.*)$"
    name = name or list[at]
    local option = by_name[name]
    if not option then
        return nil, ("unknown option '%s'; there are %s"):format(name, table.concat(names, ", "))
    end
    if not option.read and value then
        return nil, ("%s takes no value, but was given '%s'"):format(name, value)
    end
    if option.read and not value then
        at = at + 1
        value = list[at]
        if not value then return nil, ("%s needs a value"):format(name) end
    end
    local ok, why = store(parsed, option, value)
    if not ok then return nil, why end
    return at + 1
end

local function check(parsed)
    if #parsed.files == 0 then return nil, "a file is missing (usage: weir test [OPTIONS] FILE.lua...)" end
    if parsed.seed + parsed.seeds - 1 > LARGEST_SEED then
        return nil, ("--seeds %d: from --seed %d on, it must be %d at most"):format(parsed.seeds, parsed.seed,
            LARGEST_SEED - parsed.seed + 1)
    end
    return parsed
end

--- Reads a list of arguments: the options by their keys, with `files` and `filters` as lists; or nil and
-- what is wrong with it.
function arguments.parse(list)
    local parsed = { format = "text", filters = {}, seed = 1, seeds = 1, files = {} }
    local at = 1
    while list[at] do
        if list[at] == "--" then
            for i = at + 1, #list do table.insert(parsed.files, list[i]) end
            break
        elseif list[at]:sub(1, 1) == "-" and list[at] ~= "-" then
            local why
            at, why = take_option(parsed, list, at)
            if not at then return nil, why end
        else
            table.insert(parsed.files, list[at])
            at = at + 1
        end
    end
    parsed.limit = parsed.limit or (parsed.live and 600 or 60)
    return check(parsed)
end

--- The arguments that start a worker for `file` from its case number `from` on.
function arguments.of_worker(parsed, file, from)
    local list = { "test", "--worker", ("%d"):format(from), "--seed", ("%d"):format(parsed.seed),
        "--seeds", ("%d"):format(parsed.seeds), "--limit", compat.number_text(parsed.limit) }
    for _, filter in ipairs(parsed.filters) do list[#list + 1] = "--filter=" .. filter end
    if parsed.record then list[#list + 1] = "--record=" .. parsed.record end
    if parsed.live then list[#list + 1] = "--live" end
    if parsed.list then list[#list + 1] = "--list" end
    if parsed.pictures then list[#list + 1] = "--pictures" end
    list[#list + 1] = "--"
    list[#list + 1] = file
    return list
end

-- ---- filters ---------------------------------------------------------------------------------------------

-- A name such as "retry-storm (slow)" is meant as it stands, though its signs mean something else in a
-- pattern.
local function holds(name, pattern)
    if name:find(pattern, 1, true) then return true end
    local ok, found = pcall(string.find, name, pattern)
    return ok and found ~= nil
end

--- Whether the filters let a case of this name through.
function arguments.selects(filters, name)
    local wanted, asked = false, false
    for _, filter in ipairs(filters) do
        if filter:sub(1, 1) == "!" then
            if holds(name, filter:sub(2)) then return false end
        else
            asked = true
            wanted = wanted or holds(name, filter)
        end
    end
    return wanted or not asked
end

local function quote(value)
    if value:find "^[%w_./:=@%%+,-]+$" then return value end
    return "'" .. value:gsub("'", "'\\''") .. "'"
end

--- The command that runs one case again: name, seed, file.
function arguments.again(parsed, name, seed, file)
    local pattern = "^" .. name:gsub("[%^%$%(%)%%%.%[%]%*%+%-%?]", "%%%0") .. "$"
    local words = { "weir test", "--seed " .. ("%d"):format(seed), "--filter " .. quote(pattern) }
    if parsed.live then words[#words + 1] = "--live" end
    if file:sub(1, 1) == "-" then words[#words + 1] = "--" end
    words[#words + 1] = quote(file)
    return table.concat(words, " ")
end

return arguments
