--- The command `weir tail`: what has ended and what has happened, as it does.
--
-- `host` is what it needs of the system, given by src/cli/luamain.c.

local columns = require "weir.console.columns"
local feed = require "weir.console.feed"
local follow = require "weir.console.follow"
local harvest = require "weir.console.harvest"
local oneline = require "weir.console.oneline"
local switches = require "weir.console.switches"

local tail = {}

local GOOD, FAILED, USAGE = 0, 1, 2
local PAUSE = 0.1     -- seconds between two looks
local LOOK_AGAIN = 10 -- looks after which it is asked whether the file is still the same
local LAST = 10       -- lines to begin with

local options = {
    { name = "--area", key = "area", read = switches.text },
    { name = "--json", key = "json" },
    { name = "--label", key = "label", read = switches.text },
    { name = "--pool", key = "pool", read = switches.text },
    { name = "--failed", key = "failed" },
    { name = "--slower", key = "slower", read = switches.seconds(0, 86400) },
    { name = "--events", key = "events" },
    { name = "--calls", key = "calls" },
    { name = "-n", key = "last", read = switches.whole(0, 1000) },
    { name = "--once", key = "once" },
    { name = "--wait", key = "wait" },
}

local function complain(code, text)
    io.stderr:write("weir tail: ", text, "\n")
    return code
end

local function parse(...)
    local settings, why = switches.parse(options, { ... })
    if not settings then return nil, why end
    if not settings.area then return nil, "--area PATH is missing: the file that an engine keeps its area in" end
    local of_calls = settings.failed and "--failed" or settings.slower and "--slower" or settings.label
        and "--label"
    if of_calls and settings.events and not settings.calls then
        return nil, ("%s is about calls, and --events leaves them out"):format(of_calls)
    end
    settings.both = not settings.events and not settings.calls
    -- who asks for calls of a sort does not want to be told of everything else
    settings.with_events = settings.events or (settings.both and not of_calls)
    settings.with_calls = settings.calls or settings.both
    return settings
end

-- ---- what is wanted ---------------------------------------------------------------------------------------

local function call_is_wanted(settings, call)
    if not settings.with_calls then return false end
    if settings.failed and call.code == "ok" then return false end
    if settings.slower and call.duration_ms <= settings.slower * 1000 then return false end
    return not settings.label or call.label == settings.label
end

--- Whether the settings let an item through.
function tail.wants(settings, item)
    if item.kind == "note" then return true end
    if settings.pool and item.what.pool ~= settings.pool then return false end
    if item.kind == "event" then return settings.with_events end
    return call_is_wanted(settings, item.what)
end

-- ---- printing ---------------------------------------------------------------------------------------------

local function print_item(session, item)
    if session.settings.json then
        io.write(oneline.json(item, session.name, math.floor(session.host.clock() * 1e6)), "\n")
    else
        local at = (item.at_us or 0) / 1e6
        io.write(oneline.text(item, switches.utc_offset(at), session.glyphs), "\n")
    end
end

local function print_items(session, items)
    for _, item in ipairs(items) do
        if tail.wants(session.settings, item) then print_item(session, item) end
    end
    if #items > 0 then io.stdout:flush() end
end

local function note(session, text)
    print_items(session, { { kind = "note", text = text } })
end

-- ---- following --------------------------------------------------------------------------------------------

local function begin_with(session)
    local stats = session.feed:document "stats"
    session.name = stats and stats.name or ""
    session.harvest = harvest.new(session.feed)
end

local function take(session)
    local settings, source = session.settings, session.feed
    local calls, lost = {}, 0
    if settings.with_calls then calls, lost = session.harvest:take() end
    local events = settings.with_events and source:document("events", session.follow:last_event()) or {}
    print_items(session, session.follow:take({ calls = calls, events = events, lost = lost }, settings.last))
end

local sentences = {
    live = "a worker is at work again",
    deserted = "no worker is left; waiting for one",
}

-- The old file may have got something more before the new one took its place.
local function go_over(session, why)
    take(session)
    take(session)
    if session.feed:follow() then
        note(session, "another area has taken the place of the one that was followed; going on with that")
        session.follow:elsewhere()
        begin_with(session)
        session.state = "live"
    elseif session.state ~= "gone" then
        note(session, why)
        session.state = "gone"
    end
end

local function look(session)
    local state, why = session.feed:look()
    if state == "replaced" or state == "gone" or state == "damaged" then
        go_over(session, why)
    elseif state ~= session.state then
        if sentences[state] then note(session, sentences[state]) end
        session.state = state
    end
end

local function follow_on(session)
    local turn = 0
    while true do
        session.host.wait(PAUSE)
        turn = turn + 1
        if turn % LOOK_AGAIN == 0 then look(session) end
        take(session)
    end
end

-- ---- beginning --------------------------------------------------------------------------------------------

local function open(host, settings)
    local source, why = feed.open(settings.area)
    local told = false
    while not source and settings.wait do
        if not told then io.stderr:write("weir tail: waiting: ", why, "\n") end
        told = true
        host.wait(PAUSE * 2)
        source, why = feed.open(settings.area)
    end
    return source, why
end

--- Runs the command; returns its exit code.
function tail.main(host, ...)
    local settings, why = parse(...)
    if not settings then return complain(USAGE, why) end
    settings.last = settings.last or LAST
    local source, wrong = open(host, settings)
    if not source then return complain(FAILED, wrong) end
    local session = { host = host, settings = settings, feed = source, state = "live",
        glyphs = host.utf8() and columns.unicode or columns.ascii }
    session.follow = follow.new(function(item) return tail.wants(settings, item) end)
    begin_with(session)
    take(session)
    if settings.once then return GOOD end
    look(session)
    follow_on(session)
end

return tail
