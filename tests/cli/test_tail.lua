-- `weir tail`: what has ended and happened, each once and in order, from an engine at work in another
-- process.

local lu = require "luaunit"
local follow = require "weir.console.follow"
local watched = require "watched"
local weir = require "weir"

local folder, area, engine = watched.folder(), nil, nil

local function setup()
    if engine then return end
    area = folder .. "/area"
    engine = watched.engine(folder, area)
end

local function tail(arguments)
    return watched.start(folder, "LANG=C.UTF-8 TZ=UTC $weir tail " .. arguments)
end

-- Starts it, and waits until it follows: until it has told of an event or call that is there already.
local function following(arguments, first)
    local process = tail(arguments)
    process:wait_for(first or "opened")
    return process
end

local function objects(process)
    local list = {}
    for line in process:out():gmatch "([^\n]+)\n" do list[#list + 1] = assert(weir.json.decode(line),
        line) end
    return list
end

local function contexts(process)
    local list = {}
    for _, object in ipairs(objects(process)) do list[#list + 1] = object.context end
    return list
end

local function expected(from, to)
    local list = {}
    for i = from, to do list[#list + 1] = "call " .. i end
    return list
end

local function interrupted(process)
    process:signal "INT"
    return process:ended()
end

-- ---- arguments --------------------------------------------------------------------------------------------

TestArguments = {}

function TestArguments:test_wrong_usage_is_told_in_a_sentence()
    local cases = {
        [""] = "--area PATH is missing: the file that an engine keeps its area in",
        ["--area x --slower soon"] = "--slower soon: it must be a number of seconds",
        ["--area x --events --failed"] = "--failed is about calls, and --events leaves them out",
        ["--area x -n -1"] = "-n -1: it must be a whole number",
    }
    for arguments, sentence in pairs(cases) do
        local process = tail(arguments)
        lu.assertEquals({ process:ended(), process:out() }, { 2, "" }, arguments)
        lu.assertStrContains(process:err(), "weir tail: " .. sentence)
    end
end

function TestArguments:test_an_area_that_is_not_there_is_told()
    local process = tail("--area " .. folder .. "/nowhere")
    lu.assertEquals(process:ended(), 1)
    lu.assertStrContains(process:err(), "there is no such file")
end

-- ---- following --------------------------------------------------------------------------------------------

TestFollowing = { setUp = setup }

function TestFollowing:test_every_call_is_told_once_and_in_order()
    local process = following("--json -n 100 --area " .. area)
    for from = 1001, 1241, 30 do engine:order(("%d %d"):format(from, from + 29)) end
    process:wait_for "call 1270"
    lu.assertEquals(interrupted(process), 130)
    local seen = {}
    for _, context in ipairs(contexts(process)) do
        if tonumber(context:match "%d+" or 0) > 1000 then seen[#seen + 1] = context end
    end
    lu.assertEquals(seen, expected(1001, 1270))
    lu.assertNil(process:out():find "overwritten")
end

function TestFollowing:test_what_was_overwritten_is_counted()
    local own = folder .. "/small"
    local small = watched.engine(folder, own, 4 << 20)
    local process = following("--json -n 100 --area " .. own)
    small:order "1 5000"
    small:order "5001 5001"
    process:wait_for "call 5001"
    interrupted(process)
    local told, lost = #contexts(process), 0
    for _, object in ipairs(objects(process)) do
        local more = object.event == "tail.note" and object.msg:match "(%d+) calls were overwritten"
        lost = lost + tonumber(more or 0)
    end
    lu.assertTrue(lost > 0)
    lu.assertEquals(told + lost, 5001)
    small:stop()
end

function TestFollowing:test_it_begins_with_the_last_lines()
    engine:order "1 20"
    local process = tail("--calls --once -n 3 --json --area " .. area)
    lu.assertEquals(process:ended(), 0)
    lu.assertEquals(contexts(process), expected(18, 20))
end

function TestFollowing:test_without_last_lines_it_tells_only_what_comes()
    local process = tail("--calls -n 0 --json --area " .. area)
    watched.wait("a call that is told", function()
        engine:order "7 7"
        return process:out():find("call 7", 1, true)
    end)
    interrupted(process)
    for _, context in ipairs(contexts(process)) do lu.assertEquals(context, "call 7") end
end

function TestFollowing:test_filters_let_through_what_they_say()
    engine:order "1 3"
    engine:order "bad"
    engine:order "slow"
    local function events_and_labels(arguments)
        local process = tail(arguments .. " --once -n 50 --json --area " .. area)
        process:ended()
        local found = {}
        for _, object in ipairs(objects(process)) do found[object.label or object.event] = true end
        return found
    end
    lu.assertEquals(events_and_labels "--failed", { bad = true })
    lu.assertEquals(events_and_labels "--slower 0.15", { slow = true })
    lu.assertEquals(events_and_labels "--label slow", { slow = true })
    lu.assertEquals(events_and_labels "--pool nobody@nowhere", {})
    lu.assertTrue(events_and_labels("--pool service@primary").bad)
    local events = events_and_labels "--events"
    lu.assertTrue(events.engine)
    lu.assertNil(events.bad)
end

function TestFollowing:test_events_come_as_they_happen()
    local process = following("--events --area " .. area)
    engine:order "force"
    process:wait_for "service@primary: CLOSED -> FORCED_OPEN"
    engine:order "release"
    process:wait_for "FORCED_OPEN -> CLOSED"
    lu.assertEquals(interrupted(process), 130)
end

function TestFollowing:test_a_line_for_people_says_when_what_where_and_why()
    engine:order "bad"
    local process = tail("--failed --once -n 1 --area " .. area)
    process:ended()
    lu.assertStrMatches(process:out(),
        "%d%d:%d%d:%d%d%.%d%d%d call +%S+  server_error bad +service@primary +%x+  22012\n")
end

function TestFollowing:test_json_has_the_fields_of_the_log()
    engine:order "bad"
    local process = tail("--failed --once -n 1 --json --area " .. area)
    process:ended()
    local object = objects(process)[1]
    lu.assertStrMatches(object.ts, "%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d%d%d%dZ")
    lu.assertEquals({ object.level, object.event, object.name, object.pool, object.sqlstate, object.code },
        { "warn", "call.ended", "watched", "service@primary", "22012", "server_error" })
    lu.assertTrue(object.duration_ms > 0)
    lu.assertTrue(object.backend_pid > 0)
    lu.assertEquals(#object.timeline, 1)
end

-- ---- ends -------------------------------------------------------------------------------------------------

TestEnds = { setUp = setup }

function TestEnds:test_it_ends_when_its_reader_goes_away_even_if_nothing_happens()
    local process = watched.start(folder, watched.into_head("tail --area " .. area))
    process:wait_for_error "code 141"
end

function TestEnds:test_sigterm_ends_it()
    local process = following("--events --area " .. area)
    process:signal "TERM"
    lu.assertEquals(process:ended(), 143)
end

-- ---- the engine comes and goes ----------------------------------------------------------------------------

TestLife = {}

function TestLife:test_it_follows_over_a_restart_with_no_call_lost_or_told_twice()
    local own = folder .. "/restarted"
    local first = watched.engine(folder, own)
    local process = following("--json --area " .. own)
    first:order "1 20"
    process:wait_for "call 20"
    first:kill()
    process:wait_for "no worker is left"
    local second = watched.engine(folder, own)
    second:order "21 40"
    process:wait_for "call 40"
    second:stop()
    interrupted(process)
    lu.assertEquals(contexts(process), expected(1, 40))
end

function TestLife:test_it_goes_over_to_an_area_that_takes_the_place_of_the_old_and_says_so()
    local own = folder .. "/replaced"
    local first = watched.engine(folder, own)
    local process = following("--json --area " .. own)
    first:order "1 20"
    process:wait_for "call 20"
    first:stop()
    os.remove(own)
    local second = watched.engine(folder, own)
    process:wait_for "another area has taken the place"
    second:order "21 40"
    process:wait_for "call 40"
    second:stop()
    interrupted(process)
    lu.assertEquals(contexts(process), expected(1, 40))
end

function TestLife:test_what_a_larger_area_carries_over_is_not_told_again()
    local own = folder .. "/larger"
    local first = watched.engine(folder, own)
    local process = following("--json --area " .. own)
    first:order "1 20"
    process:wait_for "call 20"
    first:stop()
    local second = watched.engine(folder, own, 64 << 20)
    process:wait_for "another area has taken the place"
    second:order "21 40"
    process:wait_for "call 40"
    second:stop()
    interrupted(process)
    lu.assertEquals(contexts(process), expected(1, 40))
    lu.assertEquals(select(2, process:out():gsub('"event":"engine"[^\n]*opened', "")), 2)
end

function TestLife:test_with_wait_it_waits_for_an_area()
    local own = folder .. "/later"
    local process = tail("--wait --json --area " .. own)
    process:wait_for_error "waiting: area"
    local late = watched.engine(folder, own)
    late:order "1 5"
    process:wait_for "call 5"
    late:stop()
    interrupted(process)
end

-- ---- order, without an engine -----------------------------------------------------------------------------

TestOrder = {}

local function call(id, ended_us, ms)
    return { id = id, started_us = ended_us - ms * 1000, duration_ms = ms, pool = "a@b", label = "l" }
end

local function told(items)
    local list = {}
    for i, item in ipairs(items) do list[i] = item.text or item.what.id or item.what.text end
    return list
end

function TestOrder:test_what_is_seen_late_but_ended_early_comes_first()
    local f = follow.new()
    f:take({ calls = {}, events = {} }, 0)
    lu.assertEquals(told(f:take { calls = { call("b", 2000, 1) }, events = {} }), {})
    local second = f:take { calls = { call("b", 2000, 1), call("a", 1900, 1), call("c", 2100, 1) },
        events = {} }
    lu.assertEquals(told(second), { "a", "b" })
    lu.assertEquals(told(f:rest()), { "c" })
end

function TestOrder:test_calls_and_events_stand_in_one_order()
    local f = follow.new()
    f:take({ calls = {}, events = {} }, 0)
    f:take { calls = { call("call", 2000, 1) }, events = { { sequence = 1, at_us = 1500, text = "event" } } }
    lu.assertEquals(told(f:take { calls = {}, events = {} }), { "event", "call" })
end

function TestOrder:test_an_id_that_is_given_again_after_a_restart_is_another_call()
    local f = follow.new()
    f:take({ calls = { call("1", 2000, 1) }, events = {} }, 0)
    f:take { calls = { call("1", 2000, 1), call("1", 9000, 1) }, events = {} }
    lu.assertEquals(#f:take { calls = { call("1", 9000, 1) }, events = {} }, 1)
end

function TestOrder:test_events_that_the_ring_has_overtaken_are_counted()
    local f = follow.new()
    f:take({ calls = {}, events = { { sequence = 3, at_us = 1, text = "three" } } }, 0)
    f:take { calls = {}, events = { { sequence = 9, at_us = 2, text = "nine" } } }
    lu.assertStrContains(told(f:take { calls = {}, events = {} })[1] or "", "nine")
    lu.assertEquals(f.lost_events, 0)
end

local code = lu.LuaUnit.run()
if engine then engine:stop() end
watched.end_all()
watched.clean(folder)
os.exit(code)
