-- `weir top` itself: arguments, plain frames, and the live screen on a terminal, looking at an engine at
-- work.

local lu = require "luaunit"
local terminal = require "terminal"
local watched = require "watched"
local weir = require "weir"

local BIN = os.getenv "WEIR_BIN" or "build/weir"

local folder, area, engine = watched.folder(), nil, nil

local function setup()
    if engine then return end
    area = folder .. "/area"
    engine = watched.engine(folder, area)
    engine:order "1 20"
    engine:order "bad"
end

-- Runs `weir top` to its end; returns exit code, output, errors.
local function top(arguments, env)
    local process = watched.start(folder, ("env %s LANG=C.UTF-8 TZ=UTC $weir top %s"):format(env
        or "-u COLUMNS",
        arguments))
    return process:ended(), process:out(), process:err()
end

-- ---- arguments --------------------------------------------------------------------------------------------

TestArguments = {}

function TestArguments:test_wrong_usage_is_told_in_a_sentence()
    local cases = {
        [""] = "--area PATH is missing: the file that an engine keeps its area in",
        ["--area"] = "--area needs a value",
        ["--fly"] = "unknown option '--fly'",
        ["--area x extra"] = "what is 'extra'?",
        ["--area x --interval 0"] = "--interval 0: it must be a number of seconds from 0.2 to 3600",
        ["--area x --once -n 3"] = "--once is one frame: -n has no place beside it",
        ["--area x -n 0"] = "-n 0: it must be a whole number",
        ["--area x --json=1"] = "--json takes no value",
    }
    for arguments, sentence in pairs(cases) do
        local code, out, err = top(arguments)
        lu.assertEquals({ code, out }, { 2, "" }, arguments)
        lu.assertStrContains(err, "weir top: " .. sentence)
    end
end

function TestArguments:test_an_area_that_is_not_there_is_told()
    local code, out, err = top("--once --area " .. folder .. "/nowhere")
    lu.assertEquals({ code, out }, { 1, "" })
    lu.assertEquals(err, ("weir top: area %s/nowhere: there is no such file\n"):format(folder))
end

function TestArguments:test_a_file_that_is_no_area_is_told()
    assert(os.execute("echo hello >" .. folder .. "/text"))
    local code, _, err = top("--once --area " .. folder .. "/text")
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "is not an area")
end

function TestArguments:test_help_tells_keys_and_exit_codes()
    local code, out = top "--help"
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, "usage: weir top --area PATH")
    lu.assertStrContains(out, "Exit codes: 0 well")
end

-- ---- plain frames -----------------------------------------------------------------------------------------

TestPlain = { setUp = setup }

function TestPlain:test_once_prints_one_frame_of_80_columns()
    local code, out, err = top("--once --interval 0.2 --area " .. area)
    lu.assertEquals({ code, err }, { 0, "" })
    lu.assertStrContains(out, "watched")
    lu.assertStrContains(out, "service@primary")
    lu.assertStrContains(out, "bad")
    lu.assertNil(out:find "\27")
    for line in out:gmatch "[^\n]+" do lu.assertTrue(utf8.len(line) <= 80, line) end
end

function TestPlain:test_columns_says_how_wide_a_frame_is()
    local _, out = top("--once --interval 0.2 --area " .. area, "COLUMNS=40")
    for line in out:gmatch "[^\n]+" do lu.assertTrue(utf8.len(line) <= 40, line) end
end

function TestPlain:test_another_locale_gets_ascii()
    local _, out = top("--once --interval 0.2 --area " .. area, "-u COLUMNS LC_ALL=C")
    lu.assertNil(out:find "[\128-\255]")
    lu.assertStrContains(out, "+ closed")
end

function TestPlain:test_json_is_one_object_in_one_line()
    local code, out = top("--json --interval 0.2 --area " .. area)
    lu.assertEquals(code, 0)
    lu.assertEquals(select(2, out:gsub("\n", "")), 1)
    local document = assert(weir.json.decode(out))
    lu.assertEquals(document.name, "watched")
    lu.assertEquals(document.area.state, "live")
    lu.assertEquals(document.pools[1].breaker.state, "CLOSED")
    lu.assertEquals(#document.workers, 1)
end

function TestPlain:test_batch_prints_so_many_frames()
    local code, out = top("-b -n 3 --interval 0.2 --area " .. area)
    lu.assertEquals(code, 0)
    lu.assertEquals(select(2, out:gsub("weir top  ", "")), 3)
end

function TestPlain:test_without_a_terminal_the_screen_is_refused()
    local code, out, err = top("--area " .. area)
    lu.assertEquals({ code, out }, { 1, "" })
    lu.assertStrContains(err, "no terminal; --once, -b and --json need none")
end

function TestPlain:test_batch_ends_when_its_reader_goes_away()
    local process = watched.start(folder, watched.into_head("top -b --interval 0.2 --area " .. area))
    process:wait_for_error "code 141"
end

-- ---- the live screen --------------------------------------------------------------------------------------

TestScreen = { setUp = setup }

local function open(options)
    options = options or {}
    options.command = ("%s top --interval 0.3 --area %s"):format(BIN, options.area or area)
    local screen = terminal.open(options)
    screen:wait_for "service@primary"
    return screen
end

local function assert_restored(screen, wanted)
    local code, before, after = screen:ended()
    lu.assertEquals(code, wanted)
    lu.assertEquals(after, before)
    lu.assertFalse(screen.alternate)
    lu.assertTrue(screen.cursor)
    screen:close()
end

function TestScreen:test_it_shows_views_looks_into_a_label_and_gives_the_terminal_back()
    local screen = open()
    lu.assertTrue(screen.alternate)
    lu.assertFalse(screen.cursor)
    screen:type "2"
    screen:wait_for "calls: started"
    screen:type "4/ba\r"
    screen:wait_for "filter: ba"
    screen:type "\r"
    screen:wait_for "SQLSTATE 22012"
    screen:type "\r"
    screen:wait_for "one call"
    screen:type "\27"
    screen:wait_without "one call"
    screen:type "?"
    screen:wait_for "any key goes back"
    screen:type "xq"
    assert_restored(screen, 0)
end

function TestScreen:test_arrows_are_keys_and_not_escapes()
    local screen = open()
    screen:type "6"
    screen:wait_for "engine watched opened"
    screen:type "\27OB\27[A\t"
    screen:wait_for "▼worker"
    screen:type "q"
    assert_restored(screen, 0)
end

function TestScreen:test_it_follows_what_happens()
    local screen = open()
    engine:order "force"
    screen:wait_for "held by an operator: forced open"
    engine:order "release"
    screen:wait_without "held by an operator"
    screen:type "q"
    assert_restored(screen, 0)
end

function TestScreen:test_an_outage_is_watched_as_it_comes_and_goes()
    local screen = open()
    engine:order "outage"
    screen:wait_for "breaker of service@primary is open"
    screen:wait_for "cannot connect"
    screen:type "3"
    screen:wait_for "failure rate"
    engine:order "recovery"
    screen:wait_without "breaker of service@primary is"
    screen:wait_for "HALF_OPEN -> CLOSED"
    screen:type "q"
    assert_restored(screen, 0)
end

function TestScreen:test_frozen_it_stays_as_it_is()
    local screen = open()
    screen:type " "
    screen:wait_for "FROZEN"
    engine:order "force"
    os.execute "sleep 0.7" -- two readings and more
    lu.assertNil(screen:text():find("held by an operator", 1, true))
    screen:type " "
    screen:wait_for "held by an operator"
    engine:order "release"
    screen:type "q"
    assert_restored(screen, 0)
end

function TestScreen:test_it_takes_the_size_that_the_terminal_has_now()
    local screen = open()
    screen:resize(120, 40)
    screen:wait_for "Space freeze"
    lu.assertEquals(#screen:lines(), 40)
    lu.assertStrContains(screen:lines()[40], "1 overview")
    screen:resize(40, 10)
    watched.wait("the foot in line 10", function() return screen:lines()[10]:find "q quit" end)
    for _, line in ipairs(screen:lines()) do lu.assertTrue(utf8.len(line) <= 40) end
    screen:type "q"
    assert_restored(screen, 0)
end

function TestScreen:test_signals_give_the_terminal_back()
    for name, code in pairs { TERM = 143, INT = 130, HUP = 129, QUIT = 131, SEGV = 139, ABRT = 134 } do
        local screen = open()
        screen:signal(name)
        assert_restored(screen, code)
    end
end

function TestScreen:test_a_second_signal_that_ends_it_at_once_gives_the_terminal_back_too()
    local screen = open()
    for _, name in ipairs { "STOP", "INT", "TERM", "CONT" } do screen:signal(name) end
    local code = screen:ended()
    lu.assertTrue(code == 130 or code == 143)
    assert_restored(screen, code)
end

function TestScreen:test_ctrl_c_ends_it()
    local screen = open()
    screen:type "\3"
    assert_restored(screen, 130)
end

function TestScreen:test_colours_are_used_unless_no_color_is_set()
    local screen = open()
    screen:type "q"
    screen:ended()
    lu.assertTrue(screen.colours)
    screen:close()
    screen = open { env = { NO_COLOR = "1" } }
    screen:type "q"
    screen:ended()
    lu.assertNotTrue(screen.colours)
    lu.assertTrue(screen.attributes) -- bold and reverse are no colours
    screen:close()
end

function TestScreen:test_another_locale_gets_ascii()
    local screen = open { env = { LANG = "C" } }
    screen:wait_for "+ closed"
    lu.assertNil(screen:text():find "[\128-\255]")
    screen:type "q"
    assert_restored(screen, 0)
end

function TestScreen:test_an_unknown_terminal_is_told()
    local screen = terminal.open { command = ("%s top --area %s"):format(BIN, area),
        env = { TERM = "no-such" } }
    lu.assertEquals(screen:ended(), 1)
    lu.assertStrContains(screen:text(), "a terminal of the kind 'no-such' is not known here")
    screen:close()
end

-- ---- areas that cannot be trusted ---------------------------------------------------------------------------

TestHostile = { setUp = setup }

-- A copy of the area, written over in many places behind its header.
local function spoilt(seed)
    local path = folder .. "/spoilt"
    assert(os.execute(("cp %s %s"):format(area, path)))
    math.randomseed(seed)
    local file = assert(io.open(path, "r+b"))
    local size = file:seek "end"
    for _ = 1, 4000 do
        file:seek("set", 4096 + math.random(size - 8192))
        file:write(string.char(math.random(0, 255)):rep(math.random(1, 16)))
    end
    file:close()
    return path
end

function TestHostile:test_nonsense_in_an_area_gives_figures_or_a_sentence_and_no_error_of_ours()
    for seed = 1, 8 do
        local path = spoilt(seed)
        for _, command in ipairs { "top --once --interval 0.2", "top --json --interval 0.2", "tail --once -n 1000",
            "tail --once -n 1000 --json" } do
            local process = watched.start(folder, ("$weir %s --area %s"):format(command, path))
            local code, err = process:ended(), process:err()
            lu.assertTrue(code == 0 or code == 1, ("seed %d: %s: %d %s"):format(seed, command, code, err))
            lu.assertNil(err:find(".lua:", 1, true), ("seed %d: %s: %s"):format(seed, command, err))
        end
    end
end

function TestHostile:test_an_area_that_is_cut_short_while_it_is_looked_at_says_so()
    local path = folder .. "/cut"
    assert(os.execute(("cp %s %s"):format(area, path)))
    local screen = open { area = path }
    assert(os.execute("truncate -s 5000 " .. path))
    screen:wait_for "damaged: area"
    screen:type "q"
    assert_restored(screen, 0)
end

-- ---- the engine comes and goes ----------------------------------------------------------------------------

TestLife = {}

function TestLife:test_it_stays_when_the_engine_dies_and_goes_on_when_it_comes_back()
    local own = folder .. "/own"
    local first = watched.engine(folder, own)
    first:order "1 5"
    local screen = open { area = own }
    first:kill()
    screen:wait_for "deserted"
    local second = watched.engine(folder, own)
    screen:wait_without "deserted"
    second:stop()
    screen:type "q"
    assert_restored(screen, 0)
end

function TestLife:test_it_goes_over_to_an_area_that_takes_the_place_of_the_old()
    local own = folder .. "/moved"
    local first = watched.engine(folder, own)
    first:order "1 5"
    local screen = open { area = own }
    first:stop()
    os.remove(own)
    screen:wait_for "gone"
    local second = watched.engine(folder, own)
    second:order "bad"
    screen:wait_without "gone"
    screen:type "4"
    screen:wait_for "bad"
    second:stop()
    screen:type "q"
    assert_restored(screen, 0)
end

local code = lu.LuaUnit.run()
if engine then engine:stop() end
terminal.close_all()
watched.end_all()
watched.clean(folder)
os.exit(code)
