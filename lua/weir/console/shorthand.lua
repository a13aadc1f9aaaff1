--- `\` commands: words instead of Lua, for the same functions.

local errors = require "weir.errors"
local names = require "weir.console.names"

local shorthand = {}

local units = { ms = 0.001, s = 1, m = 60, min = 60, h = 3600, d = 86400 }

--- Seconds from "5m", "200ms", "1.5h" or a plain number of seconds; nil if it is none.
function shorthand.seconds(word)
    local number, unit = tostring(word):match "^([%d.]+)(%a*)$"
    number = tonumber(number)
    local factor = unit == "" and 1 or units[unit]
    return number and factor and number * factor or nil
end

-- Words; one in quotes may hold spaces.
local function split(text)
    local words, at = {}, 1
    while true do
        at = text:find("%S", at)
        if not at then return words end
        local quote = text:match("^[\"']", at)
        local from, to, word
        if quote then
            from, to, word = text:find("^" .. quote .. "([^" .. quote .. "]*)" .. quote, at)
        else
            from, to, word = text:find("^(%S+)", at)
        end
        if not from then return nil, "a quote is not closed" end
        words[#words + 1] = word
        at = to + 1
    end
end

local function misuse(format, ...)
    return nil, errors.new("misuse", format:format(...))
end

-- ---- filters ----------------------------------------------------------------------------------------------

local flags = { failed = { "failed", true }, ok = { "failed", false }, leased = { "state", "leased" },
    idle = { "state", "idle" } }
local numbers = { last = true, worker = true, after = true }

local function put(filter, key, word)
    if numbers[key] then
        filter[key] = tonumber(word)
    elseif key == "slower" then
        filter[key] = shorthand.seconds(word)
    else
        filter[key] = word
    end
    return filter[key] ~= nil
end

-- "failed last 3", "pool=anon slower 50ms": words that are alone, and pairs.
local function read_filter(words)
    local filter, i = {}, 1
    while words[i] do
        local key, value = words[i]:match "^([%a_]+)=(.*)$"
        local flag = flags[words[i]]
        if flag then
            filter[flag[1]] = flag[2]
        else
            if not key then
                key, value, i = words[i], words[i + 1], i + 1
            end
            if not value or not put(filter, key, value) then
                return nil, ("%s %s"):format(key, value or "?")
            end
        end
        i = i + 1
    end
    return filter
end

local function filtered(name)
    return function(call, words)
        local filter, wrong = read_filter(words)
        if not filter then return misuse("\\%s does not understand '%s'", name, wrong) end
        return call(name, filter)
    end
end

-- ---- commands with a grammar of their own -----------------------------------------------------------------

local special = { calls = filtered "calls", events = filtered "events", conns = filtered "conns" }

-- What stands behind `word`, taken out of the list.
local function take(words, word)
    for i, other in ipairs(words) do
        if other == word then
            table.remove(words, i)
            return table.remove(words, i)
        end
    end
end

--- \breaker POOL [open|closed|disabled|metrics_only|auto [for TIME]] [reason TEXT]
function special.breaker(call, words)
    local reason, lasts = take(words, "reason"), take(words, "for")
    local pool, state = words[1], words[2]
    if not state then return call("breaker", pool) end
    local seconds = lasts and shorthand.seconds(lasts)
    if lasts and not seconds then return misuse("\\breaker: '%s' is no time; 30s, 5m and 1h are", lasts) end
    if state == "auto" then return call("reset", pool, reason) end
    return call("force", pool, state, seconds, reason)
end

function special.force(call, words)
    return special.breaker(call, words)
end

--- \resize POOL MAX|auto [reason TEXT]
function special.resize(call, words)
    local reason = take(words, "reason")
    local max = tonumber(words[2])
    if words[2] == nil or not max and words[2] ~= "auto" then
        return misuse("\\resize POOL MAX: '%s' is no number of connections", tostring(words[2]))
    end
    return call("resize", words[1], max, reason)
end

--- \watch SECONDS COMMAND
function special.watch(call, words)
    local seconds = shorthand.seconds(words[1])
    if not seconds or not words[2] then return misuse("\\watch SECONDS COMMAND, like \\watch 1 pools") end
    local command = "\\" .. table.concat(words, " ", 2):gsub("^\\", "")
    return call("watch", seconds, command)
end

local function plain(name)
    return function(call, words)
        local reason = take(words, "reason")
        if reason then return call(name, words[1], reason) end
        return call(name, table.unpack(words))
    end
end

--- Runs a command line without its backslash; call(name, ...) calls the function of that name.
function shorthand.run(line, call)
    local name, rest = line:match "^%s*([%a_]*)%s*(.-)%s*$"
    if not names.known[name] then
        return misuse("there is no \\%s; help() lists what there is", name)
    end
    local words, why = split(rest)
    if not words then return misuse("\\%s: %s", name, why) end
    return (special[name] or plain(name))(call, words)
end

return shorthand
