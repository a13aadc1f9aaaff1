--- How the chart is printed: in words grouped by backend and client, or as one JSON object a line.

local json = require "weir.json"

local writeup = {}

local marks = { ok = "ok  ", warn = "warn", fail = "fail" }
local colours = { ok = "\27[32m", warn = "\27[33m", fail = "\27[31;1m" }
local RESET = "\27[0m"

local places = { sql = "run", policy = "in the policy", conninfo = "in the connection string", system = "do" }

-- ---- text -------------------------------------------------------------------------------------------------

local WIDTH = 110

local function heading(line)
    if not line.backend then return "the policy" end
    if not line.client then return "backend " .. line.backend end
    return ("backend %s as client %s"):format(line.backend, line.client)
end

-- Broken between words, all lines but the first begin with `indent` blanks.
local function wrapped(text, indent)
    local out, column = {}, indent
    for word in text:gmatch "%S+" do
        if column + #word > WIDTH and column > indent then
            out[#out + 1] = "\n" .. (" "):rep(indent)
            column = indent
        elseif #out > 0 then
            out[#out + 1] = " "
        end
        out[#out + 1] = word
        column = column + #word + 1
    end
    return table.concat(out)
end

-- As it is, for pasting: only lines of its own begin where the first does.
local function indented(text, indent)
    return (text:gsub("\n", "\n" .. (" "):rep(indent)))
end

local function line_text(line, colour)
    local mark = marks[line.level]
    if colour then mark = colours[line.level] .. mark .. RESET end
    local out = ("  %s  %s\n"):format(mark, wrapped(("%s  [%s]"):format(line.found, line.id), 8))
    if line.level == "ok" then return out end
    if line.why then out = out .. ("        why: %s\n"):format(wrapped(line.why, 13)) end
    if not line.remedy then return out end
    local where = places[line.kind]
    return out .. ("        %s: %s\n"):format(where, indented(line.remedy, #where + 10))
end

local function plural(number, one)
    return ("%d %s%s"):format(number, one, number == 1 and "" or "s")
end

local function summary(count)
    return ("%d ok, %s, %s\n"):format(count.ok, plural(count.warn, "warning"), plural(count.fail, "failure"))
end

--- The chart for people.
function writeup.text(chart, colour)
    local out, last = {}, nil
    for _, line in ipairs(chart.lines) do
        local title = heading(line)
        if title ~= last then out[#out + 1] = ("%s%s\n"):format(last and "\n" or "", title) end
        out[#out + 1] = line_text(line, colour)
        last = title
    end
    out[#out + 1] = "\n" .. summary(chart.count)
    return table.concat(out)
end

-- ---- JSON -------------------------------------------------------------------------------------------------

local keys = { "level", "id", "backend", "client", "subject", "found", "why", "remedy", "kind" }

local function object(line)
    local fields = {}
    for _, key in ipairs(keys) do
        if line[key] ~= nil then fields[#fields + 1] = ("%s:%s"):format(json.encode(key),
            json.encode(line[key])) end
    end
    return "{" .. table.concat(fields, ",") .. "}\n"
end

--- The chart for programs: one object a line, its fields always in the same order.
function writeup.json(chart)
    local out = {}
    for i, line in ipairs(chart.lines) do out[i] = object(line) end
    return table.concat(out)
end

return writeup
