--- How the chart is printed: in words grouped by backend and client, or as one JSON object a line.

local json = require "weir.json"

local writeup = {}

local marks = { ok = "ok  ", warn = "warn", fail = "fail" }
local colours = { ok = "\27[32m", warn = "\27[33m", fail = "\27[31;1m" }
local RESET = "\27[0m"

local places = { sql = "run", policy = "in the policy", conninfo = "in the connection string", system = "do" }

-- ---- text -------------------------------------------------------------------------------------------------

local function heading(line)
    if not line.backend then return "the policy" end
    if not line.client then return line.backend end
    return ("%s as %s"):format(line.backend, line.client)
end

local function indented(label, text)
    local first, rest = text:match "^([^\n]*)\n?(.*)$"
    local out = ("        %s: %s\n"):format(label, first)
    if rest == "" then return out end
    return out .. rest:gsub("[^\n]+\n?", function(line)
        return (" "):rep(#label + 10) .. line
    end):gsub("\n*$", "\n")
end

local function line_text(line, colour)
    local mark = marks[line.level]
    if colour then mark = colours[line.level] .. mark .. RESET end
    local out = ("  %s  %s  [%s]\n"):format(mark, line.found, line.id)
    if line.level == "ok" then return out end
    if line.why then out = out .. indented("why", line.why) end
    if line.remedy then out = out .. indented(places[line.kind], line.remedy) end
    return out
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

--- The chart for programs: one object a line.
function writeup.json(chart)
    local out = {}
    for i, line in ipairs(chart.lines) do out[i] = assert(json.encode(line)) .. "\n" end
    return table.concat(out)
end

-- ---- secrets ----------------------------------------------------------------------------------------------

--- The text without any of the secrets. Drivers' messages have none; a policy's own error may quote anything.
-- Short ones are left: hiding every "a" of a text tells more than it hides.
function writeup.without(secrets, text)
    for _, secret in ipairs(secrets) do
        if #secret >= 3 then
            text = text:gsub(secret:gsub("%p", "%%%0"), "***")
        end
    end
    return text
end

return writeup
