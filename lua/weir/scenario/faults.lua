--- What goes wrong, and when: s.crash "primary" { restart_after = 30 } and its like, s.at, s.between.
--
-- A timeline is a list of events { from, to (nil: no end of its own), what, where }, in order of time.
-- `what` is a fault { kind, server, options, where }, or a function of the operator's. The kinds are those
-- of the simulated server, and `clock_jump`, `stall`, `heal`, `change`, which concern the world.

local check = require "weir.scenario.check"
local place = require "weir.scenario.place"
local wording = require "weir.scenario.wording"

local faults = {}

local Fault = {}
Fault.__index = Fault

local Event = {}
Event.__index = Event

-- ---- the kinds
-- --------------------------------------------------------------------------------------------

local function seconds(spot, value)
    check.number(spot, value, 0, 1e6)
end

local function share(spot, value)
    if type(value) ~= "number" or not (value > 0 and value <= 1) then
        spot:wrong("is %s; it must be a number above 0, at most 1", check.shown(value))
    end
end

local function text(spot, value)
    check.type(spot, value, "string")
end

local function sqlstate(spot, value)
    if type(value) ~= "string" or not value:find("^[%u%d][%u%d][%u%d][%u%d][%u%d]$") then
        spot:wrong("is %s; it must be five digits or capitals, like \"40001\"", check.shown(value))
    end
end

local function refusal(spot, value)
    if value ~= "-" then sqlstate(spot, value) end
end

local function flag(spot, value)
    check.type(spot, value, "boolean", "true or false")
end

local function factor(spot, value)
    check.positive(spot, value)
end

local function count(spot, value)
    check.whole(spot, value, 0, 1000000)
end

local function phase(spot, value)
    check.one_of(spot, value, { "before_send", "after_send", "before_answer", "at_commit", "after_commit" })
end

-- `ending`: the option that says when it is over; without it there is none. `needs`: what has no default.
-- `sim`: the simulation's word, where it has another one.
local kinds = {
    crash = { options = { restart_after = seconds, recovery = seconds }, ending = "restart_after" },
    restart = { options = { restart_after = seconds, recovery = seconds }, ending = "restart_after" },
    refuse = { options = { lasts = seconds, sqlstate = refusal }, ending = "lasts" },
    slow = { options = { lasts = seconds, factor = factor }, ending = "lasts", needs = "factor" },
    freeze = { options = { lasts = seconds }, ending = "lasts" },
    vanish = { options = { lasts = seconds, forgotten = flag }, ending = "lasts" },
    delay = { options = { lasts = seconds, seconds = seconds }, ending = "lasts", needs = "seconds",
        sim = "latency" },
    reset = { options = { lasts = seconds, phase = phase, rate = share, count = count }, ending = "lasts" },
    errors = {
        options = { lasts = seconds, sqlstate = sqlstate, rate = share, text = text },
        ending = "lasts", needs = "sqlstate",
    },
    failover = { options = { to = text, reconnect_after = seconds }, needs = "to" },
    role_lost = { options = { lasts = seconds }, ending = "lasts" },
    rotate = { options = { lasts = seconds }, ending = "lasts" },
}
local sim_names = { restart_after = "after", reconnect_after = "after" }

--- The kinds of trouble a server may have, in order.
function faults.kinds()
    return check.names(kinds)
end

-- ---- the words
-- --------------------------------------------------------------------------------------------

local function check_server(spot, word, server)
    if type(server) ~= "string" or server == "" then
        spot:fail("s.%s takes the name of a server: s.%s \"primary\"; this is %s", word, word,
            check.shown(server))
    end
end

function Fault:__call(options)
    local spot, spec = self.where, kinds[self.kind]
    if not spec then spot:fail("s.%s takes no options", self.kind) end
    check.keys(spot, options, spec.options)
    for _, key in ipairs(check.names(options)) do spec.options[key](spot:at(key), options[key]) end
    return setmetatable({ kind = self.kind, server = self.server, options = options, where = spot }, Fault)
end

local function server_fault(kind)
    return function(server, ...)
        local spot = place.here("s." .. kind)
        check_server(spot, kind, server)
        if select("#", ...) > 0 then
            spot:fail("s.%s takes the server alone; its options follow: s.%s %q { ... }", kind, kind, server)
        end
        return setmetatable({ kind = kind, server = server, options = {}, where = spot }, Fault)
    end
end

local words = {}
faults.words = words
for _, kind in ipairs(faults.kinds()) do words[kind] = server_fault(kind) end

local function world_fault(kind, options)
    return setmetatable({ kind = kind, options = options, where = place.here("s." .. kind) }, Fault)
end

--- The wall clock jumps by so many seconds, back if negative, as when NTP finds it wrong.
function words.clock_jump(by)
    local fault = world_fault("clock_jump", { seconds = by })
    check.number(fault.where:at "seconds", by, -1e9, 1e9)
    return fault
end

--- The program stands still: a long pause of its collector, SIGSTOP, a moved virtual machine.
function words.stall(length)
    local fault = world_fault("stall", { seconds = length })
    if length ~= nil then seconds(fault.where:at "seconds", length) end
    return fault
end

--- Ends a trouble before its time: s.heal("primary", "slow").
function words.heal(server, kind)
    local fault = world_fault("heal", { kind = kind })
    check_server(fault.where, "heal", server)
    check.one_of(fault.where:at "kind", kind, faults.kinds())
    fault.server = server
    return fault
end

--- Changes a server's options: s.change("primary", { workers = 4 }).
function words.change(server, options)
    local fault = world_fault("change", options)
    check_server(fault.where, "change", server)
    check.type(fault.where, options, "table", "a table of a server's options")
    fault.server = server
    return fault
end

-- ---- events
-- -----------------------------------------------------------------------------------------------

local function check_what(spot, what)
    local names = check.names(words)
    for _, name in ipairs(names) do
        if rawequal(what, words[name]) then
            spot:fail("%s: s.%s needs the name of a server: s.%s \"primary\"", spot.title, name, name)
        end
    end
    if getmetatable(what) == Fault or type(what) == "function" then return end
    local hint = type(what) == "string" and check.hint(what, names) or ""
    spot:fail("%s takes faults, such as s.crash \"primary\", or functions; this is %s%s", spot.title,
        check.shown(what), hint)
end

-- A brace that closes too late: s.at(20, s.crash "primary") { restart_after = 30 }
function Event:__call()
    self.where:fail("%s: options follow the fault, within the parentheses: %s, s.crash \"primary\" { ... })",
        self.where.title, self.to and "s.between(20, 50" or "s.at(20")
end

local function event(spot, from, to, ...)
    local list = { ... }
    if select("#", ...) == 0 then spot:fail("%s says when, but not what happens", spot.title) end
    for i = 1, select("#", ...) do check_what(spot, list[i]) end
    return setmetatable({ from = from, to = to, list = list, where = spot }, Event)
end

local function check_moment(spot, value)
    if type(value) ~= "number" or value ~= value then
        spot:fail("%s: the moment is %s; it must be a number of seconds", spot.title, check.shown(value))
    elseif value < 0 then
        spot:fail("%s: %s s lies in the past; a scenario begins at 0", spot.title, check.shown(value))
    end
end

--- So many seconds after the beginning, this happens; several things, or functions, too.
function words.at(moment, ...)
    local spot = place.here("s.at")
    check_moment(spot, moment)
    return event(spot, moment, nil, ...)
end

--- From one moment to another, this is so.
function words.between(from, to, ...)
    local spot = place.here("s.between")
    check_moment(spot, from)
    check_moment(spot, to)
    if to <= from then
        spot:fail("s.between(%s, %s) ends before it begins", check.shown(from), check.shown(to))
    end
    return event(spot, from, to, ...)
end

--- Whether a value was made by s.at or s.between, or is a fault without its moment.
function faults.is_event(value)
    return getmetatable(value) == Event
end

function faults.is_fault(value)
    return getmetatable(value) == Fault
end

-- ---- the timeline
-- -----------------------------------------------------------------------------------------

-- s.between says by itself how long: a crash comes back then, a stall is that long.
local function with_end(what, from, to)
    local where, options = what.where, {}
    for key, value in pairs(what.options) do options[key] = value end
    local spec = kinds[what.kind]
    local ending = what.kind == "stall" and "seconds" or spec and spec.ending
    if to and not ending then
        where:fail("s.%s has no end; say when it happens with s.at", what.kind)
    elseif to and options[ending] then
        where:fail("s.%s has %s and stands in s.between, which says the same", what.kind, ending)
    elseif to then
        options[ending] = to - from
    end
    return options
end

local function complete(what, from, to)
    local spec, options = kinds[what.kind], with_end(what, from, to)
    if spec and spec.needs and options[spec.needs] == nil then
        what.where:fail("s.%s needs %s: s.%s %q { %s = ... }", what.kind, spec.needs, what.kind,
            what.server, spec.needs)
    elseif what.kind == "stall" and not options.seconds then
        what.where:fail("s.stall needs the number of seconds, or stands in s.between")
    end
    return setmetatable({ kind = what.kind, server = what.server, options = options, where = what.where },
        Fault)
end

-- When the trouble that begins at `from` is over; nil if never.
local function end_of(what, from)
    if type(what) == "function" then return from end
    local spec, options = kinds[what.kind], what.options
    if what.kind == "stall" then return from + options.seconds end
    if not spec then return from end
    if what.kind == "failover" then return from + (options.reconnect_after or 0) end
    local length = options[spec.ending]
    if not length and (options.count or 0) > 0 then return from end
    if not length or spec.ending == "lasts" and length == 0 then return nil end
    return from + length + (options.recovery or 0)
end

local function check_fits(spot, from, to, duration, drain)
    if from >= duration then
        spot:fail("%s: %s s lies after the end of the scenario, %s s", spot.title, check.shown(from),
            check.shown(duration))
    elseif to and to > duration + drain then
        spot:fail("%s: %s s lies after the end of the scenario, %s s and %s s to drain", spot.title,
            check.shown(to), check.shown(duration), check.shown(drain))
    end
end

local function check_names(what, servers)
    local options = what.options
    for _, name in ipairs { what.server or false, what.kind == "failover" and options.to or false } do
        if name and not servers[name] then
            what.where:fail("there is no server %s%s", check.shown(name), check.hint(name,
                check.names(servers)))
        end
    end
end

-- Crash and restart are one trouble: a server that is down cannot go down.
local function clash_key(what)
    if type(what) == "function" or not kinds[what.kind] then return nil end
    local kind = what.kind == "restart" and "crash" or what.kind
    return kind .. " of " .. what.server
end

local function heal(busy, entry)
    local what = entry.what
    local kind = what.options.kind == "restart" and "crash" or what.options.kind
    local key = kind .. " of " .. what.server
    local healed = busy[key]
    if healed then healed.ends = math.min(healed.ends or entry.from, entry.from) end
    busy[key] = nil
end

local function check_clashes(timeline)
    local busy = {}
    for _, entry in ipairs(timeline) do
        local what = entry.what
        local key = clash_key(what)
        local other = key and busy[key]
        if type(what) == "table" and what.kind == "heal" then
            heal(busy, entry)
        elseif other and entry.from < (other.ends or math.huge) then
            what.where:fail("s.%s of %s at %s s begins before that of line %d, from %s s to %s, is over",
                what.kind, what.server, wording.moment(entry.from), other.what.where.line,
                wording.moment(other.from), other.ends and wording.moment(other.ends) .. " s" or "the end")
        end
        if key then busy[key] = entry end
    end
end

--- The events of a scenario as one timeline, checked against its length and its servers ({ [name] = true }).
function faults.timeline(events, duration, drain, servers)
    local timeline = {}
    for _, one in ipairs(events) do
        check_fits(one.where, one.from, one.to, duration, drain)
        for _, what in ipairs(one.list) do
            if type(what) == "table" then
                what = complete(what, one.from, one.to)
                check_names(what, servers)
            end
            timeline[#timeline + 1] = {
                from = one.from, to = one.to, ends = end_of(what, one.from), what = what, where = one.where,
                order = #timeline,
            }
        end
    end
    table.sort(timeline, function(a, b)
        if a.from ~= b.from then return a.from < b.from end
        return a.order < b.order
    end)
    check_clashes(timeline)
    return timeline
end

--- From when to when something is wrong: the first beginning and the last end within `duration`; nil if
-- nothing is.
function faults.trouble(timeline, duration)
    local from, to
    for _, entry in ipairs(timeline) do
        local ends = math.min(entry.ends or duration, duration)
        if type(entry.what) == "table" and entry.what.kind ~= "heal" then
            from = math.min(from or entry.from, entry.from)
            to = math.max(to or ends, ends)
        end
    end
    return from, to
end

--- A fault's kind and options in the words of the simulated server.
function faults.for_sim(what)
    local options = {}
    for key, value in pairs(what.options) do options[sim_names[key] or key] = value end
    return kinds[what.kind].sim or what.kind, options
end

--- "crash primary", "clock jump 3600 s": a short name for pictures and notes.
function faults.title(what)
    if type(what) == "function" then return "your function" end
    local kind = what.kind:gsub("_", " ")
    if what.kind == "heal" then return ("heal %s (%s)"):format(what.server, what.options.kind) end
    if what.server then return kind .. " " .. what.server end
    return ("%s %s s"):format(kind, wording.moment(what.options.seconds))
end

return faults
