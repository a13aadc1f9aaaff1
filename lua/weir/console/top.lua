--- The command `weir top`: reads the area again and again, and shows what has changed.
--
-- `host` is what it needs of the system, given by src/cli: luamain.c and screen.c.

local columns = require "weir.console.columns"
local feed = require "weir.console.feed"
local frame = require "weir.console.frame"
local json = require "weir.json"
local rates = require "weir.console.rates"
local switches = require "weir.console.switches"
local topdoc = require "weir.console.topdoc"
local topkeys = require "weir.console.topkeys"
local views = require "weir.console.views"

local top = {}

local GOOD, FAILED, USAGE = 0, 1, 2
local WIDTH = 80 -- of a plain frame, if COLUMNS says nothing else

local options = {
    { name = "--area", key = "area", read = switches.text },
    { name = "--interval", key = "interval", read = switches.seconds(0.2, 3600) },
    { name = "--once", key = "once" },
    { name = "--json", key = "json" },
    { name = "-b", key = "batch" },
    { name = "-n", key = "frames", read = switches.whole(1, 1000000000) },
}

local function complain(code, text)
    io.stderr:write("weir top: ", text, "\n")
    return code
end

local function parse(...)
    local settings, why = switches.parse(options, { ... })
    if not settings then return nil, why end
    if not settings.area then return nil, "--area PATH is missing: the file that an engine keeps its area in" end
    if settings.once and settings.frames then return nil, "--once is one frame: -n has no place beside it" end
    settings.interval = settings.interval or 1
    local one = settings.once or (settings.json and not settings.batch)
    settings.frames = settings.frames or (one and 1) or nil
    settings.plain = settings.once or settings.batch or settings.json
    return settings
end

-- ---- readings ---------------------------------------------------------------------------------------------

-- Calls are read for the views that show them, and not each second for nothing.
local function read_calls(session)
    local state = session.state
    if not views.by_name[state.view].of_calls or state.has_calls then return end
    state.figures.calls, state.has_calls = session.feed:calls(), true
end

local function take_reading(session)
    local reading, why = session.feed:reading(session.host.clock(), 0)
    if not reading then return nil, why end
    local state = session.state
    if reading.area.replaced then session.rates = rates.new() end
    state.figures = session.rates:take(reading)
    state.area = reading.area
    state.has_calls = false
    read_calls(session)
    state.offset = switches.utc_offset(reading.at)
    return true
end

local function is_set(name)
    local value = os.getenv(name)
    return value ~= nil and value ~= ""
end

local function open(host, settings)
    local source, why = feed.open(settings.area)
    if not source then return nil, why end
    local state = frame.state {
        interval = settings.interval, plain = settings.plain,
        glyphs = host.utf8() and columns.unicode or columns.ascii,
    }
    return { host = host, feed = source, rates = rates.new(), state = state, settings = settings }
end

-- ---- plain frames -----------------------------------------------------------------------------------------

local function width_of_output()
    local width = math.tointeger(tonumber(os.getenv "COLUMNS" or ""))
    return width and width >= 20 and width <= 1000 and width or WIDTH
end

local function print_frame(session)
    if session.settings.json then
        io.write(assert(json.encode(topdoc.of(session.state))), "\n")
    else
        io.write(frame.text(session.state, width_of_output()))
    end
    io.stdout:flush()
end

-- The first reading has nothing before it and is not shown.
local function print_frames(session)
    local settings, host = session.settings, session.host
    local left, due = settings.frames or math.huge, host.now()
    while left > 0 do
        due = due + settings.interval
        host.wait(due - host.now())
        local ok, why = take_reading(session)
        if not ok then return complain(FAILED, why) end
        if not settings.json and settings.frames ~= 1 and left ~= (settings.frames
            or math.huge) then io.write "\n" end
        print_frame(session)
        left = left - 1
    end
    return GOOD
end

-- ---- the live screen --------------------------------------------------------------------------------------

local function draw(session)
    local screen = session.host.screen
    local width, height = screen.size()
    screen.clear()
    for row, line in ipairs(frame.make(session.state, width, height)) do
        local column = 0
        for _, run in ipairs(line) do
            screen.put(row - 1, column, run[1], run[2])
            column = column + columns.width(run[1])
        end
    end
    screen.show()
end

-- Keys until the next reading is due; true if one of them was the end.
local function serve_keys(session, due)
    local host = session.host
    while true do
        local left = due - host.now()
        if left <= 0 then return false end
        local key = host.screen.key(left)
        if key then
            if topkeys.press(session.state, key) then return true end
            read_calls(session)
            draw(session)
        end
    end
end

local function live(session)
    local settings, host = session.settings, session.host
    local shown, due = 0, host.now()
    while true do
        if not session.state.frozen then
            local ok, why = take_reading(session)
            if not ok then return why end
        end
        draw(session)
        shown = shown + 1
        if settings.frames and shown > settings.frames then return nil end
        due = math.max(due + settings.interval, host.now())
        if serve_keys(session, due) then return nil end
    end
end

local function show(session)
    local host = session.host
    if not host.terminal() then
        return complain(FAILED, "standard input and output are no terminal; --once, -b and --json need none")
    end
    local begun, why = host.screen.begin(not is_set "NO_COLOR")
    if not begun then return complain(FAILED, why .. "; --once, -b and --json need no terminal") end
    local wrong = live(session)
    host.screen.finish()
    return wrong and complain(FAILED, wrong) or GOOD
end

--- Runs the command; returns its exit code.
function top.main(host, ...)
    local settings, why = parse(...)
    if not settings then return complain(USAGE, why) end
    local session, wrong = open(host, settings)
    if not session then return complain(FAILED, wrong) end
    if settings.plain then
        local ok, failure = take_reading(session)
        return ok and print_frames(session) or complain(FAILED, failure)
    end
    return show(session)
end

return top
