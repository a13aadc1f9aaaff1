-- What /metrics gives, before and after an outage, judged by Prometheus' own tools.

local lu = require "luaunit"

local BIN = os.getenv "WEIR_BIN" or "build/weir"

-- Writes /metrics in the form that arg[1] asks for to arg[2], after arg[3] seconds of load with an outage in it;
-- arg[4] is its path.
local script = [[
local weir = require "weir"
local accept, path, seconds = arg[1], arg[2], tonumber(arg[3])
local sim = weir.sim { seed = 7 }
sim:server("primary"):set { service = 0.01, network = 0.001 }
sim:run(function()
    local db = assert(weir.open {
        name = "judged",
        backends = { primary = "host=nowhere", replica = "host=nowhere" },
        clients = { service = { bypass_rls = true, max = 5 }, anon = { role = "web_anon", user = "a", max = 5 } },
        timeout = 1,
        breaker = { min_calls = 5, open_for = 5 },
    })
    sim:at(2, function() sim:server("primary"):fault("crash", { after = 3 }) end)
    while weir.now() < seconds do
        db:service():query("GET /\"quoted\\\n" .. math.floor(weir.now()), "select 1")
        db:anon { sub = "ann" }:query("GET /\255", "select 1")
        weir.sleep(0.01)
    end
    local _, _, body = db:page(arg[4], accept)
    local file = assert(io.open(path, "wb"))
    file:write(body)
    file:close()
    db:close()
end)
]]

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function write(text)
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
    return path
end

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read "a"
    file:close()
    return text
end

-- Runs a command; true if it went well, and what it said.
local function command(...)
    local out = os.tmpname()
    local well = os.execute(("{ %s; } >%s 2>&1 </dev/null"):format(string.format(...), quote(out)))
    local said = read(out)
    os.remove(out)
    return well == true, said
end

local function metrics_after(seconds, accept, path)
    local program, out = write(script), os.tmpname()
    local well, said = command("%s run %s %s %s %d %s", quote(BIN), program, quote(accept), out, seconds,
        quote(path or "/metrics"))
    lu.assertTrue(well, said)
    local text = read(out)
    os.remove(program)
    os.remove(out)
    return text
end

local function sum(text, pattern)
    local total = 0
    for value in text:gmatch(pattern) do total = total + tonumber(value) end
    return total
end

TestPrometheus = {}

function TestPrometheus.test_promtool_has_nothing_to_say_about_the_text_format()
    for _, seconds in ipairs { 0, 12 } do
        local path = write(metrics_after(seconds, "text/plain"))
        local well, said = command("promtool check metrics <%s", quote(path))
        os.remove(path)
        lu.assertEquals(said, "")
        lu.assertTrue(well)
    end
end

function TestPrometheus.test_promtool_minds_one_name_of_opentelemetry_and_nothing_else()
    local path = write(metrics_after(12, "text/plain", "/metrics?set=otel"))
    local well, said = command("promtool check metrics <%s", quote(path))
    os.remove(path)
    lu.assertFalse(well)
    lu.assertEquals(said, "db_client_connection_count "
        .. 'non-histogram and non-summary metrics should not have "_count" suffix\n')
end

-- Its importer is the only one of Prometheus' tools that reads OpenMetrics; it wants a time behind each value.
local function import(text)
    local directory = os.tmpname()
    os.remove(directory)
    local dated = text:gsub("[^\n]+", function(line) return line:sub(1, 1) ~= "#" and line .. " 1700000000" or nil end)
    local path = write(dated)
    local well, said = command("promtool tsdb create-blocks-from openmetrics %s %s", path, directory)
    os.execute("rm -rf " .. quote(directory))
    os.remove(path)
    return well, said
end

function TestPrometheus.test_prometheus_reads_openmetrics_and_loses_no_sample()
    for _, seconds in ipairs { 0, 12 } do
        local text = metrics_after(seconds, "application/openmetrics-text")
        local well, said = import(text)
        lu.assertTrue(well, said)
        local _, samples = text:gsub("\n[^#]", "")
        lu.assertEquals(tonumber(said:match "1ms%s+(%d+)"), samples, said)
    end
    lu.assertFalse((import "weir_x{a=\"b} 1\n# EOF\n"))
end

-- The last name of "`weir_a`, `weir_b`" included; histograms are named without their suffixes.
local function names_in(section)
    local names = {}
    for name in section:gmatch "`(weir_[%w_]+)`" do names[name] = true end
    return names
end

function TestPrometheus.test_readme_names_each_family_and_no_other()
    local readme = read((os.getenv "WEIR_SOURCE_DIR" or ".") .. "/README.md")
    local told = names_in(readme:match("| metric | type |.-\n\n"))
    local there = {}
    for name in metrics_after(0, "text/plain"):gmatch "# TYPE (%S+)" do there[name] = true end
    lu.assertEquals(told, there)
end

function TestPrometheus.test_the_outage_shows_and_the_sums_agree()
    local text = metrics_after(12, "text/plain")
    local ended = sum(text, "\nweir_calls_total{[^\n]*} (%d+)")
    lu.assertTrue(ended > 100)
    lu.assertEquals(sum(text, "\nweir_call_duration_seconds_count{[^\n]*} (%d+)"), ended)
    lu.assertEquals(sum(text, "\nweir_calls_started_total{[^\n]*} (%d+)"), ended)
    lu.assertTrue(sum(text, 'outcome="rejected"} (%d+)') > 0)
    lu.assertEquals(sum(text, '\nweir_rejected_total{[^\n]*} (%d+)'), sum(text, 'outcome="rejected"} (%d+)'))
    lu.assertEquals(sum(text, '\nweir_breaker_transitions_total{pool="service@primary",to="closed"} (%d+)'), 1)
end

os.exit(lu.LuaUnit.run())
