-- examples/prometheus and examples/grafana: the rules do what their own tests say, the dashboard is one, and both speak of
-- metrics and labels that a real /metrics has.

local lu = require "luaunit"
local dashboard = require "dashboard"
local serving = require "serving"

local POLICY = [[
    local weir = require "weir"
    local db = assert(weir.open { name = "told", backends = { primary = "host=/nowhere", replica = "host=/nowhere" },
        clients = { service = { bypass_rls = true } }, timeout = 0.05, retries = 0, breaker = { min_calls = 1 } })
    for _ = 1, 5 do db:service():query("GET /", "select 1") end
    return db
]]

local function command(...)
    local pipe = io.popen(("{ %s; } 2>&1; echo \" $?\""):format(string.format(...)))
    local said = pipe:read "a"
    pipe:close()
    return said:match "^(.*) (%d+)\n$"
end

TestRules = {}

function TestRules.test_they_do_what_their_tests_say()
    local folder = serving.quote(dashboard.rules_folder)
    local said, code = command("cd %s && promtool check rules weir_rules.yml && promtool test rules weir_rules_test.yml", folder)
    lu.assertEquals(code, "0", said)
    lu.assertStrContains(said, "SUCCESS")
end

function TestRules.test_each_alert_is_tested_to_fire()
    local tests = serving.read(dashboard.rules_folder .. "/weir_rules_test.yml"):gsub("%f[\n]\n%s+", " ")
    for name in serving.read(dashboard.rules_folder .. "/weir_rules.yml"):gmatch "alert: (%w+)" do
        lu.assertNotNil(tests:find("alertname: " .. name .. " exp_alerts: - ", 1, true), name)
    end
end

-- ---- the dashboard ----------------------------------------------------------------------------------------------

TestDashboard = {}

local kinds = { row = true, stat = true, timeseries = true, heatmap = true, table = true, ["state-timeline"] = true }

function TestDashboard.test_its_panels_are_complete_and_do_not_overlap()
    local document = dashboard.document()
    lu.assertTrue(document.schemaVersion >= 36)
    local ids, taken = {}, {}
    for _, panel in ipairs(document.panels) do
        lu.assertNil(ids[panel.id], panel.title)
        ids[panel.id] = true
        lu.assertTrue(kinds[panel.type], panel.type)
        lu.assertEquals(panel.type ~= "row", panel.targets ~= nil, panel.title)
        local place = panel.gridPos
        lu.assertTrue(place.x + place.w <= 24, panel.title)
        for x = place.x, place.x + place.w - 1 do
            for y = place.y, place.y + place.h - 1 do
                local cell = x .. "," .. y
                lu.assertNil(taken[cell], panel.title)
                taken[cell] = true
            end
        end
        for _, target in ipairs(panel.targets or {}) do
            lu.assertEquals(target.datasource.uid, "${datasource}", panel.title)
            lu.assertTrue(#target.expr > 0 and #target.refId == 1, panel.title)
        end
    end
end

function TestDashboard.test_prometheus_can_read_each_expression()
    local lines = { "groups:", "  - name: dashboard", "    rules:" }
    for i, expression in ipairs(dashboard.expressions()) do
        lines[#lines + 1] = ("      - record: panel:x%d\n        expr: %s"):format(i, ("%q"):format(expression.text))
    end
    local path = serving.write(os.tmpname(), table.concat(lines, "\n") .. "\n")
    local said, code = command("promtool check rules %s", path)
    os.remove(path)
    lu.assertEquals(code, "0", said)
    lu.assertStrContains(said, ("%d rules found"):format(#dashboard.expressions()))
end

-- ---- names --------------------------------------------------------------------------------------------------------

-- metric -> label -> value -> true, of a text in Prometheus' format.
local function samples_of(text)
    local samples = {}
    for name, labels in text:gmatch "\n([%w_:]+)({?[^\n]*) %S+" do
        samples[name] = samples[name] or {}
        for label, value in labels:gmatch '([%w_]+)="(.-)"' do
            samples[name][label] = samples[name][label] or {}
            samples[name][label][value] = true
        end
    end
    return samples
end

local ADDED = { job = true, instance = true, le = true, pool = true } -- whatever their values are

-- Each metric that an expression selects is there, with the labels and values that it asks for.
local function check_selectors(expression, samples, recorded)
    local text = expression.text:gsub('"[^"]*"', function(value) return (value:gsub("weir_", "")) end)
    for name, selector in text:gmatch "([%a_:][%w_:]*)(%b{})" do
        lu.assertNotNil(samples[name], expression.title .. ": " .. name)
        for label, values in selector:gmatch '([%w_]+)[=!]~?"(.-)"' do
            if not ADDED[label] then
                local known = samples[name][label]
                lu.assertNotNil(known, ("%s: %s has no label %s"):format(expression.title, name, label))
                for value in values:gmatch "[^|]+" do
                    lu.assertNotNil(known[value], ("%s: %s{%s=%q}"):format(expression.title, name, label, value))
                end
            end
        end
    end
    for name in text:gmatch "%f[%w_:]([%a_:]*weir_[%w_:]+)" do
        lu.assertTrue(samples[name] ~= nil or recorded[name] == true, expression.title .. ": " .. name)
    end
end

function TestDashboard.test_rules_and_dashboard_speak_of_what_there_is()
    local server = serving.serve(POLICY)
    local _, _, text = server:get "/metrics"
    server:stop()
    local samples, checked = samples_of(text), 0
    samples.up = { job = {} }
    local rules, recorded = dashboard.rules()
    for _, list in ipairs { rules, dashboard.expressions() } do
        for _, expression in ipairs(list) do
            check_selectors(expression, samples, recorded)
            checked = checked + 1
        end
    end
    lu.assertTrue(checked > 60)
    lu.assertFalse((pcall(check_selectors, { title = "", text = 'weir_calls_total{outcome="fine"}' }, samples, {})))
    lu.assertFalse((pcall(check_selectors, { title = "", text = 'weir_calls_total{result="ok"}' }, samples, {})))
    lu.assertFalse((pcall(check_selectors, { title = "", text = "sum(weir_call_total)" }, samples, {})))
end

os.exit(lu.LuaUnit.run())
