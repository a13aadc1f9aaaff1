-- What `weir top` shows, made from documents that do not change and compared with files in golden/. To
-- write them anew: WEIR_GOLDEN=write lua5.4 tests/cli/test_top_frames.lua, and then look at what has
-- changed.

local lu = require "luaunit"
local columns = require "weir.console.columns"
local frame = require "weir.console.frame"
local topdoc = require "weir.console.topdoc"
local topkeys = require "weir.console.topkeys"
local topworld = require "topworld"
local views = require "weir.console.views"
local weir = require "weir"

local GOLDEN = (os.getenv "WEIR_SOURCE_DIR" or ".") .. "/tests/cli/golden/"

-- ---- helpers ----------------------------------------------------------------------------------------------

local function state(settings, readings)
    local made = frame.state(settings)
    made.figures = topworld.figures(readings or 2)
    return made
end

-- Letters are keys of their own, names of keys stand in <>.
local function press(made, keys)
    local at = 1
    while at <= #keys do
        local name, after = keys:match("^<(%a%w+)>()", at)
        after = after or utf8.offset(keys, 2, at)
        topkeys.press(made, name or keys:sub(at, after - 1))
        at = after
    end
    return made
end

local function read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read "a"
    file:close()
    return text
end

local function assert_golden(name, text)
    local path = GOLDEN .. name .. ".txt"
    if os.getenv "WEIR_GOLDEN" == "write" then
        local file = assert(io.open(path, "wb"))
        file:write(text)
        file:close()
    end
    lu.assertEquals(text, read(path), name)
end

local function assert_frame(name, made, width, height)
    assert_golden(name, frame.text(made, width, height))
end

local function line_with(text, part)
    for line in text:gmatch "[^\n]+" do
        if line:find(part, 1, true) then return line end
    end
    return nil
end

local function column_of(made, name, field)
    local list = {}
    for i, row in ipairs(views.rows(made, name)) do list[i] = row[field] end
    return list
end

-- ---- golden frames ----------------------------------------------------------------------------------------

TestGolden = {}

function TestGolden:test_the_overview_on_a_terminal_of_80_by_24()
    assert_frame("overview_80x24", state(), 80, 24)
end

function TestGolden:test_the_overview_on_a_large_terminal()
    assert_frame("overview_120x40", state(nil, 12), 120, 40)
end

function TestGolden:test_the_overview_on_a_tiny_terminal()
    assert_frame("overview_40x10", state(), 40, 10)
end

function TestGolden:test_the_overview_in_ascii()
    assert_frame("overview_ascii_80x24", state { glyphs = columns.ascii }, 80, 24)
end

function TestGolden:test_a_plain_frame_has_no_foot_and_no_empty_lines()
    assert_frame("once_80", state { plain = true }, 80)
end

function TestGolden:test_every_view_on_80_by_24()
    for i, view in ipairs(views.list) do
        if i > 1 and not view.hidden then assert_frame(view.name .. "_80x24", press(state(), tostring(i)),
            80, 24) end
    end
end

function TestGolden:test_a_label_and_its_slowest_calls()
    local made = state()
    made.selected.overview = "POST /api/payments"
    assert_frame("label_80x24", press(made, "<enter>"), 80, 24)
    assert_frame("call_80x24", press(made, "<down><enter>"), 80, 24)
end

function TestGolden:test_help()
    assert_frame("help_80x24", press(state(), "?"), 80, 24)
end

-- ---- sizes ------------------------------------------------------------------------------------------------

TestSizes = {}

local function assert_fits(made, width, height)
    local lines = frame.make(made, width, height)
    lu.assertEquals(#lines, height)
    for i, line in ipairs(lines) do
        local wide = 0
        for _, run in ipairs(line) do wide = wide + columns.width(run[1]) end
        lu.assertTrue(wide <= width, ("%s %dx%d line %d takes %d"):format(made.view, width, height, i, wide))
    end
end

function TestSizes:test_no_frame_is_larger_than_the_screen()
    for _, keys in ipairs { "1", "2", "3", "4", "5", "6", "7", "?", "/x", "1<enter>", "5<enter>" } do
        local made = press(state(), keys)
        for _, width in ipairs { 1, 2, 7, 20, 39, 40, 60, 80, 81, 132, 300 } do
            for _, height in ipairs { 1, 2, 3, 5, 8, 10, 24, 50 } do assert_fits(made, width, height) end
        end
    end
end

function TestSizes:test_ascii_glyphs_draw_nothing_else()
    for key = 1, 7 do
        local text = frame.text(press(state { glyphs = columns.ascii }, tostring(key)), 120, 40)
        lu.assertNil(text:find "[\128-\255]", text)
    end
end

function TestSizes:test_what_comes_from_outside_cannot_steer_the_terminal()
    local made = state()
    made.figures.labels[1].label = "GET /\27[2J\7\r\n\155\xff\xc3\x28 \u{202e}\u{61c}名前"
    made.figures.events[1].text = "\27]0;title\7"
    for key = 1, 7 do
        local text = frame.text(press(made, tostring(key)), 120, 40)
        lu.assertNil(text:find "[%z\1-\9\11-\31\127]")
        lu.assertNotNil(utf8.len(text))
        for _, sign in ipairs { "\u{9b}", "\u{202e}", "\u{61c}" } do lu.assertNil(text:find(sign, 1, true)) end
    end
end

function TestSizes:test_wide_letters_take_two_columns()
    lu.assertEquals(columns.width "名前", 4)
    lu.assertEquals(columns.fit("名前x", 4, columns.unicode), "名… ")
    lu.assertEquals(columns.fit("e\u{301}", 3, columns.unicode), "e\u{301}  ")
end

-- ---- sorting, filtering, drilling in ----------------------------------------------------------------------

TestKeys = {}

function TestKeys:test_labels_are_sorted_by_time_then_by_errors_then_by_p99()
    local made = press(state(), "4")
    lu.assertEquals(column_of(made, "labels", "label")[1], "GET /api/reports/quarterly")
    press(made, "s")
    lu.assertEquals(views.order(made, "labels").name, "errors")
    lu.assertEquals(column_of(made, "labels", "errors_s"), { 1, 1, 0, 0 })
    press(made, "s")
    lu.assertEquals(views.order(made, "labels").name, "p99")
    lu.assertEquals(column_of(made, "labels", "label")[1], "GET /api/reports/quarterly")
    press(made, ">")
    lu.assertEquals(column_of(made, "labels", "label")[1], "GET /api/contacts")
end

function TestKeys:test_the_order_goes_round_both_ways()
    local made = press(state(), "5")
    local first = views.order(made, "calls").name
    press(made, "<")
    lu.assertNotEquals(views.order(made, "calls").name, first)
    press(made, ">")
    lu.assertEquals(views.order(made, "calls").name, first)
end

function TestKeys:test_the_worst_breaker_stands_first()
    lu.assertEquals(column_of(press(state(), "3"), "breakers", "state"), { "OPEN", "CLOSED", "CLOSED" })
end

function TestKeys:test_a_filter_leaves_what_holds_it_in_letters_of_any_case()
    local made = press(state(), "5/PAYments<enter>")
    lu.assertFalse(made.filtering)
    lu.assertEquals(#views.rows(made, "calls"), 3)
    lu.assertStrContains(frame.text(made, 80, 24), "filter: PAYments")
    press(made, "<escape>")
    lu.assertEquals(#views.rows(made, "calls"), 5)
end

function TestKeys:test_while_a_filter_is_typed_keys_are_letters()
    local made = press(state(), "4/q1")
    lu.assertEquals({ made.filter, made.view, made.filtering }, { "q1", "labels", true })
    topkeys.press(made, "backspace")
    topkeys.press(made, "ü")
    lu.assertEquals(made.filter, "qü")
    topkeys.press(made, "backspace")
    topkeys.press(made, "backspace")
    topkeys.press(made, "backspace")
    lu.assertEquals(made.filter, "")
    lu.assertFalse(topkeys.press(made, "resize"))
end

function TestKeys:test_a_filter_that_nothing_passes_says_so()
    lu.assertStrContains(frame.text(press(state(), "4/zebra<enter>"), 80, 24), "nothing holds 'zebra'")
end

function TestKeys:test_the_selection_stays_with_its_line_when_the_order_changes()
    local made = press(state(), "4<down>")
    local chosen = line_with(frame.text(made, 80, 24), "▸")
    press(made, "sss")
    lu.assertStrContains(line_with(frame.text(made, 80, 24), "▸"), chosen:match "▸(%S+ %S+)")
end

function TestKeys:test_the_selection_stops_at_both_ends()
    local made = press(state(), "4<up>")
    lu.assertEquals(views.selected(made, "labels", views.rows(made, "labels")), 1)
    press(made, "<end><down>")
    lu.assertEquals(views.selected(made, "labels", views.rows(made, "labels")), 4)
    press(made, "<home>")
    lu.assertEquals(views.selected(made, "labels", views.rows(made, "labels")), 1)
end

function TestKeys:test_a_selected_line_is_always_on_the_screen()
    local made = press(state(), "5<end>")
    lu.assertNotNil(line_with(frame.text(made, 80, 7), "▸"))
end

function TestKeys:test_enter_goes_from_a_label_to_its_calls_to_one_call_and_esc_back()
    local made = press(state(), "4")
    made.selected.labels = "POST /api/payments"
    press(made, "<enter>")
    lu.assertEquals({ made.view, made.label }, { "label", "POST /api/payments" })
    lu.assertEquals(column_of(made, "label", "id"), { "10000001890", "100000018b7", "1000000188a" })
    press(made, "<enter>")
    lu.assertEquals(made.call.id, "10000001890")
    lu.assertStrContains(frame.text(made, 100, 24), "xid 7412")
    press(made, "<escape>")
    lu.assertNil(made.call)
    press(made, "<escape>")
    lu.assertEquals(made.view, "labels")
end

function TestKeys:test_tab_goes_through_the_views_and_round()
    local made, seen = state(), {}
    for i = 1, 8 do
        seen[i] = made.view
        press(made, "<tab>")
    end
    lu.assertEquals(seen, { "overview", "pools", "breakers", "labels", "calls", "events", "workers",
        "overview" })
    press(made, "<backtab><backtab>")
    lu.assertEquals(made.view, "workers")
end

function TestKeys:test_q_ends_space_freezes_and_a_lost_terminal_ends()
    local made = state()
    lu.assertFalse(topkeys.press(made, " "))
    lu.assertTrue(made.frozen)
    lu.assertStrContains(frame.text(made, 80, 24), "FROZEN")
    lu.assertTrue(topkeys.press(made, "q"))
    lu.assertTrue(topkeys.press(made, "gone"))
end

-- ---- figures ----------------------------------------------------------------------------------------------

TestFigures = {}

function TestFigures:test_rates_are_differences_of_two_readings()
    local figures = topworld.figures(2)
    lu.assertAlmostEquals(figures.total.calls_s, 310 + 1 + 62 + 1 + 2 + 38 + 1, 1e-6)
    lu.assertAlmostEquals(figures.pools[2].refused_s, 38, 1e-6)
    lu.assertEquals(figures.pools[2].ok_share, 0)
    lu.assertAlmostEquals(figures.pools[1].retries_s, 4, 1e-6)
end

function TestFigures:test_quantiles_are_those_of_the_difference()
    local rates, spread = require("weir.console.rates").new(), require "weir.console.spread"
    local first, second = topworld.reading(0), topworld.reading(1)
    rates:take(first)
    local figures = rates:take(second)
    local difference = spread.since(spread.of(second.stats.pools[1].histogram),
        spread.of(first.stats.pools[1].histogram))
    lu.assertEquals(figures.pools[1].p99, (spread.quantiles(difference, 0.99)))
    lu.assertEquals(difference.count, 310 + 1 + 62 + 1 + 2)
end

function TestFigures:test_a_quantile_lies_in_the_bucket_of_its_rank()
    local spread = require "weir.console.spread"
    local made = { count = 100, edges = { 1, 2, 4 }, below = { 50, 90, 99 } }
    lu.assertEquals({ spread.quantiles(made, 0.5, 0.51, 0.95, 1) }, { 0.5, 1.5, 3, 4 })
    lu.assertNil(spread.quantiles({ count = 0, edges = { 1 }, below = { 0 } }, 0.5))
end

function TestFigures:test_the_first_reading_has_means_since_the_start()
    local figures = topworld.figures(1)
    lu.assertTrue(figures.first)
    lu.assertAlmostEquals(figures.pools[3].calls_s, 88 / 273120, 1e-9)
    lu.assertStrContains(frame.text(frame.state { figures = figures }, 80, 24), "since the start")
end

function TestFigures:test_counters_that_have_fallen_are_those_of_another_area()
    local rates = require("weir.console.rates").new()
    rates:take(topworld.reading(100))
    local fresh = topworld.reading(101)
    for _, pool in ipairs(fresh.stats.pools) do
        for name in pairs(pool.calls) do pool.calls[name] = 0 end
    end
    local figures = rates:take(fresh)
    lu.assertTrue(figures.first)
    lu.assertEquals(figures.total.calls_s, 0)
end

function TestFigures:test_warnings_name_what_must_not_be_overlooked()
    local made = state()
    local pool = made.figures.pools[1]
    pool.state, pool.forced_for, pool.paused = "FORCED_OPEN", 200, true
    made.area = { state = "deserted", why = "no worker lives" }
    made.figures.policy = { off = true, message = "retry raised 10 times" }
    local text = frame.text(made, 120)
    for _, part in ipairs { "deserted: no worker lives", "policy is switched off: retry raised 10 times",
        "worker 2 (pid 4102) has said nothing for 7.5s", "held by an operator: forced open, 3m20s left",
        "anon@primary is paused", "breaker of anon@replica is open (half-open in 42s)",
            "check redis fails" } do
        lu.assertStrContains(text, part)
    end
end

function TestFigures:test_more_warnings_than_there_is_room_for_are_counted()
    lu.assertStrContains(frame.text(state(), 80, 10), "(+2)")
end

function TestFigures:test_an_engine_without_a_single_call_makes_a_frame()
    local sim = weir.sim { seed = 1 }
    local reading = sim:run(function()
        local db = assert(weir.open { backends = { primary = "host=nowhere" },
            clients = { service = { bypass_rls = true } }, health = { interval = 0 } })
        local made = require("weir.console.feed").of(db.core:area()):reading(1000)
        db:close()
        return made
    end)
    local figures = require("weir.console.rates").new():take(reading)
    lu.assertStrContains(frame.text(frame.state { figures = figures }, 80, 24), "service@primary")
end

function TestFigures:test_an_engine_at_work_is_read_as_it_is()
    local sim = weir.sim { seed = 1 }
    sim:server("primary"):set { service = 0.01 }
    local first, second = sim:run(function()
        local db = assert(weir.open { backends = { primary = "host=nowhere" },
            clients = { service = { bypass_rls = true, max = 3 } }, health = { interval = 0 } })
        local source = require("weir.console.feed").of(db.core:area())
        assert(db:service():query("GET /", "select 1"))
        local before = source:reading(1000)
        for _ = 1, 50 do assert(db:service():query("GET /", "select 1")) end
        local after = source:reading(1002)
        db:close()
        return before, after
    end)
    local rates = require("weir.console.rates").new()
    rates:take(first)
    local figures = rates:take(second)
    lu.assertAlmostEquals(figures.total.calls_s, 25, 1e-6)
    lu.assertEquals(figures.total.ok_share, 1)
    lu.assertTrue(figures.total.p50 > 8 and figures.total.p50 < 13, tostring(figures.total.p50))
    lu.assertEquals(#figures.calls, 51)
end

function TestFigures:test_the_json_has_the_figures_of_the_frame()
    local document = weir.json.decode(assert(weir.json.encode(topdoc.of(state()))))
    lu.assertEquals(document.name, "api")
    lu.assertEquals(document.quantiles, "interval")
    lu.assertAlmostEquals(document.total.calls_per_second, 415, 1e-3)
    lu.assertEquals(document.pools[2].breaker.state, "OPEN")
    lu.assertEquals(document.pools[2].next, "half-open in 42s")
    lu.assertEquals(#document.labels, 4)
    lu.assertEquals(document.labels[1].label, "GET /api/reports/quarterly")
    lu.assertEquals(#document.events, 4)
    lu.assertStrContains(document.warnings[1], "worker 2")
end

os.exit(lu.LuaUnit.run())
