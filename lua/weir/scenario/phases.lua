--- The phases of a scenario: the spans of time for which its requests are counted apart.

local check = require "weir.scenario.check"
local place = require "weir.scenario.place"
local wording = require "weir.scenario.wording"

local phases = {}

local Phase = {}
Phase.__index = Phase

local PHASES_MAX, NAME_MAX = 32, 31

--- The requests that arrive from one second to another, under a name.
function phases.phase(name, from, to)
    local spot = place.here("s.phase")
    if type(name) ~= "string" or name == "" or #name > NAME_MAX or name:find("%c") then
        spot:fail("s.phase: the name is %s; it must be a string of 1 to %d bytes", check.shown(name),
            NAME_MAX)
    end
    check.number(spot:at "from", from, 0)
    check.number(spot:at "to", to, 0)
    if to <= from then
        spot:fail("s.phase(%q, %s, %s) ends before it begins", name, check.shown(from), check.shown(to))
    end
    return setmetatable({ name = name, from = from, to = to, where = spot }, Phase)
end

-- Before, during and after the trouble; one phase if there is none.
local function from_faults(plan)
    local from, to, list = plan.trouble_from, plan.trouble_to, {}
    local function add(name, a, b)
        if b - a > 1e-9 then list[#list + 1] = { name = name, from = a, to = b } end
    end
    if not from then
        add("all", 0, plan.duration)
        return list
    end
    add("before", 0, from)
    add("during", from, to)
    add("after", to, plan.duration)
    return list
end

local function check_phase(at, phase, plan)
    if getmetatable(phase) ~= Phase then
        at:wrong("is %s; it must be s.phase(\"before\", 0, 20)", check.shown(phase))
    elseif phase.to > plan.duration then
        phase.where:fail("s.phase(%q, %s, %s) ends after the last arrival, %s s", phase.name,
            wording.moment(phase.from),
            wording.moment(phase.to), wording.moment(plan.duration))
    end
    return phase
end

--- The list of phases and a set of their names; made from the faults if the scenario names none.
function phases.read(spot, given, plan)
    local list = given == nil and from_faults(plan) or
        check.list(spot, given, "phases", function(at, phase) return check_phase(at, phase, plan) end)
    if #list > PHASES_MAX then spot:wrong("has %d phases; at most %d are possible", #list, PHASES_MAX) end
    local names = {}
    for _, phase in ipairs(list) do
        if names[phase.name] then
            phase.where:fail("there are two phases %q, the other one in line %d", phase.name,
                names[phase.name].where.line)
        end
        names[phase.name] = phase
    end
    return list, names
end

return phases
