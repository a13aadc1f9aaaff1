--- What the word before the cursor may become: globals and the console's names, fields and methods of values
-- that are there already, pools and labels inside quotes and behind `\` commands. Nothing is called to find
-- out.

local names = require "weir.console.names"

local complete = {}

local keywords = {
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
        "nil",
    "not", "or", "repeat", "return", "then", "true", "until", "while",
}

local function add_keys(found, source, prefix, suffix)
    if type(source) ~= "table" then return end
    for key, value in next, source do
        if type(key) == "string" and key:find "^[%a_][%w_]*$" and key:sub(1, #prefix) == prefix then
            found[key .. (suffix and type(value) == "function" and suffix or "")] = true
        end
    end
end

local function index_of(value)
    local meta = getmetatable(value)
    local index = type(meta) == "table" and rawget(meta, "__index")
    return type(index) == "table" and index or nil
end

-- The value that a chain of names leads to, by fields that are there.
local function follow(env, chain)
    local value
    for name in chain:gmatch "[%a_][%w_]*" do
        if value == nil then
            value = env[name]
        elseif type(value) == "table" then
            local field = rawget(value, name)
            local class = index_of(value)
            if field == nil and class then field = rawget(class, name) end
            value = field
        else
            local class = index_of(value)
            value = class and rawget(class, name)
        end
        if value == nil then return nil end
    end
    return value
end

local function fields(env, chain, separator, prefix)
    local found, value = {}, follow(env, chain)
    if value == nil then return found end
    if separator == "." and type(value) == "table" then add_keys(found, value, prefix) end
    local class, depth = index_of(value), 0
    while class and depth < 8 do
        add_keys(found, class, prefix)
        class, depth = index_of(class), depth + 1
    end
    return found
end

local function globals(env, prefix, given)
    local found = {}
    add_keys(found, _G, prefix)
    add_keys(found, given, prefix)
    add_keys(found, getmetatable(env).functions, prefix)
    for _, word in ipairs(keywords) do
        if word:sub(1, #prefix) == prefix then found[word] = true end
    end
    return found
end

-- Names of pools and of labels.
local function known_texts(env, prefix)
    local found, view = {}, env.view
    if not view then return found end
    local ok, stats = pcall(view.stats, view)
    for _, pool in ipairs(ok and stats.pools or {}) do
        if pool.pool:sub(1, #prefix) == prefix then found[pool.pool] = true end
        for _, label in ipairs(pool.labels) do
            if label.label:sub(1, #prefix) == prefix then found[label.label] = true end
        end
    end
    return found
end

local function commands(prefix)
    local found = {}
    for name in pairs(names.known) do
        if name:sub(1, #prefix) == prefix then found[name] = true end
    end
    return found
end

local function sorted(found)
    local list = {}
    for name in pairs(found) do list[#list + 1] = name end
    table.sort(list)
    return list
end

--- @return a sorted list of what the last word may become, and how many bytes of it are there
function complete.candidates(env, given, text)
    local command = text:match "^%s*\\([%a_]*)$"
    if command then return sorted(commands(command)), #command end
    local asked = text:match "^%s*%?+([%a_]*)$"
    if asked then return sorted(commands(asked)), #asked end
    local argument = text:match "^%s*\\[%a_]+%s.-([^%s]*)$"
    if argument then return sorted(known_texts(env, argument)), #argument end
    local quoted = text:match "[\"']([^\"']*)$"
    if quoted and select(2, text:gsub("[\"']", "")) % 2 == 1 then
        return sorted(known_texts(env, quoted)), #quoted
    end
    local chain, separator, prefix = text:match "([%a_][%w_%.]*)([%.:])([%w_]*)$"
    if chain then return sorted(fields(env, chain, separator, prefix)), #prefix end
    local word = text:match "[%a_][%w_]*$" or ""
    return sorted(globals(env, word, given)), #word
end

return complete
