-- Runs one scenario of this folder, named by the first argument, in simulation and against a real server. Prints how each ended:
-- a line "sim" or "live", the lines of the expectations that do not hold, and the books; then the live report.

local s = require "weir.scenario"

local folder = debug.getinfo(1, "S").source:match "^@(.*)outage%.lua$"
local name = ...

local function failed_lines(report)
    local lines = {}
    for i, sentence in ipairs(report.failures) do lines[i] = sentence:match ":(%d+):" end
    return table.concat(lines, ",")
end

local function tell(which, report)
    local books = report.figures.books
    print(("%s [%s] lost %d twice %d undead %d of %d"):format(which, failed_lines(report), books.lost, books.twice,
        books.undead, books.closed))
end

dofile(folder .. "outages.lua")
dofile(folder .. "vain.lua")
for _, scenario in ipairs(s.registered()) do
    if scenario.name == name then
        tell("sim", scenario:run())
        local report = scenario:run { live = true, ascii = true }
        tell("live", report)
        print(report.text)
    end
end
