--- The words of a scenario: an outage written down, run in virtual time on the engine that runs in
-- production.
--
--     local s = require "weir.scenario"
--     s.scenario "the database is away for half a minute" {
--         policy   = { timeout = 2, retries = 3 },
--         load     = { arrivals = s.poisson(200) },
--         faults   = { s.at(20, s.crash "primary" { restart_after = 30 }) },
--         duration = 90,
--         expect   = { s.goodput("before"):at_least(0.99), s.recovers { within = 15 } },
--     }
--
-- `weir test FILE` runs it. What is wrong in it raises one sentence that begins with FILE:LINE.

local arrivals = require "weir.scenario.arrivals"
local check = require "weir.scenario.check"
local dist = require "weir.dist"
local expect = require "weir.scenario.expect"
local faults = require "weir.scenario.faults"
local phases = require "weir.scenario.phases"
local place = require "weir.scenario.place"
local plan = require "weir.scenario.plan"

local scenario = {}

local Scenario = { __name = "weir.scenario" }
Scenario.__index = Scenario

-- Those made since the list was last cleared, in order.
local registered = {}

-- The last s.scenario "name" whose table has not followed: without it there would be no scenario, and no word
-- of it.
local unfinished

local function check_finished()
    local spot = unfinished
    unfinished = nil
    if spot then spot:fail("s.scenario takes a name and then a table: s.scenario \"name\" { ... }") end
end

local function register(made)
    for _, other in ipairs(registered) do
        if other.name == made.name and other.file == made.file then
            made.plan.where:fail("there is a scenario of that name in line %d", other.line)
        end
    end
    registered[#registered + 1] = made
    return made
end

--- s.scenario "name" { ... }: reads and checks it, registers it for `weir test`, and returns it.
function scenario.scenario(name)
    local spot = place.here()
    if type(name) ~= "string" or name == "" or name:find("%c") then
        spot:fail("s.scenario takes a name, one line, and then a table; the name is %s", check.shown(name))
    end
    check_finished()
    unfinished = spot
    return function(given)
        unfinished = nil
        local read = plan.read(spot, name, given)
        return register(setmetatable({ name = name, file = spot.file, line = spot.line, plan = read },
            Scenario))
    end
end

--- The scenarios made since registered(true) last cleared the list.
function scenario.registered(clear)
    local list = registered
    if clear then
        registered, unfinished = {}, nil
    end
    check_finished()
    return list
end

local run_keys = { seed = true, live = true, record = true, ascii = true }

local function check_run(options)
    local spot = place.here("run")
    check.keys(spot, options, run_keys)
    if options.seed ~= nil then check.whole(spot:at "seed", options.seed, 0, 9007199254740991) end
    if options.record ~= nil then check.type(spot:at "record", options.record, "function") end
    return options
end

--- Runs it and returns a report: ok, failures, text, picture, figures, hash, seed, seconds, skipped.
-- Options: seed (1), live (against a real server), record = function(line) that hears every event, ascii (a
-- picture of plain characters).
function Scenario:run(options)
    options = check_run(options or {})
    if options.live then return require("weir.scenario.live").run(self, options) end
    return require("weir.scenario.virtual").run(self, options)
end

--- Runs it, and raises the report's text if it failed.
function Scenario:check(options)
    local report = self:run(options)
    if not report.ok then error(report.text, 0) end
    return report
end

-- ---- the words
-- --------------------------------------------------------------------------------------------

for name, word in pairs(faults.words) do scenario[name] = word end
for name, word in pairs(expect.words) do scenario[name] = word end

scenario.phase = phases.phase

scenario.poisson = arrivals.poisson
scenario.constant = arrivals.constant
scenario.ramp = arrivals.ramp
scenario.burst = arrivals.burst
scenario.users = arrivals.users

-- Of a duration that never changes, the number alone is enough.
scenario.uniform = dist.uniform
scenario.exponential = dist.exponential
scenario.normal = dist.normal
scenario.lognormal = dist.lognormal
scenario.pareto = dist.pareto
scenario.histogram = dist.histogram

-- A word that does not exist is told with the line it stands on, not as a nil that is called.
setmetatable(scenario, {
    __index = function(_, word)
        if type(word) ~= "string" or word:find("^_") then return nil end
        place.here():fail("s.%s is no word of a scenario%s", word, check.near(word, check.names(scenario)))
    end,
})

return scenario
