-- The same scenario in simulation and against a real PostgreSQL: both agree on every expectation, those that hold and
-- those that do not, and nothing is lost, executed twice or undead in either.
--
-- Each runs in a process of its own, several at a time, so that minutes of real time pass in seconds.

local lu = require "luaunit"
local s = require "weir.scenario"
local scenariofile = require "scenariofile"

local AT_ONCE = 5

local folder = debug.getinfo(1, "S").source:match "^@(.*)test_live%.lua$"

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function names_of_outages()
    s.registered(true)
    dofile(folder .. "outages.lua")
    local fine = #s.registered()
    dofile(folder .. "vain.lua")
    local names = {}
    for i, scenario in ipairs(s.registered(true)) do names[i] = scenario.name end
    return names, fine
end

local interpreter = arg[-1]
local names, fine = names_of_outages()
local running, over = {}, {}

-- The next ones are begun too, so that they run meanwhile.
local function output_of(number)
    for i = number, math.min(number + AT_ONCE - 1, #names) do
        if not over[i] then
            running[i] = running[i] or io.popen(("%s %s %s 2>&1"):format(interpreter, quote(folder .. "outage.lua"),
                quote(names[i])))
        end
    end
    local text = running[number]:read "a"
    running[number]:close()
    running[number], over[number] = nil, true
    return text
end

TestAgreement = {}

for i, name in ipairs(names) do
    TestAgreement[("test_%02d_%s"):format(i, name)] = function()
        local text = output_of(i)
        local simulated = text:match "sim %[([%d,]*)%] lost 0 twice 0 undead 0 of [1-9]%d+\n"
        local real = text:match "live %[([%d,]*)%] lost 0 twice 0 undead 0 of [1-9]%d+\n"
        lu.assertNotNil(simulated, text)
        lu.assertNotNil(real, text)
        lu.assertEquals(real, simulated, text)
        lu.assertEquals(simulated == "", i <= fine, text)
    end
end

function TestAgreement.test_the_command_runs_the_same_file_in_both()
    local weir = os.getenv "WEIR_BIN"
    local built = weir and io.open(weir)
    if not built then lu.skip "the command is not built" end
    built:close()
    for _, option in ipairs { "", "--live" } do
        local pipe = io.popen(("%s test %s --filter 'transactions that fail' %s 2>&1; echo rc $?"):format(quote(weir),
            option, quote(folder .. "outages.lua")))
        local text = pipe:read "a"
        pipe:close()
        lu.assertStrContains(text, "1 passed, 0 failed\nrc 0", text)
    end
end

-- ---- what cannot be ---------------------------------------------------------------------------------------

local function run(fields)
    return scenariofile.with(scenariofile.text(fields), function(scenario) return scenario:run { live = true } end)
end

local reads_people = "    load = { arrivals = s.constant(50), calls = { { 'read', sql = 'select name from people' } } },"

TestSentences = {}

function TestSentences.test_setup_that_fails_is_told_with_its_line()
    local told = run("    duration = 1,\n    load = { arrivals = s.constant(50) },\n    setup = 'create tabel people ()',")
    lu.assertStrMatches(told, 'outage.lua:6: setup failed on the real server: ERROR:  syntax error at or near "tabel".*')
end

function TestSentences.test_a_statement_the_server_refuses_is_told_with_its_line()
    local told = run("    duration = 1,\n" .. reads_people)
    lu.assertStrMatches(told, 'outage.lua:5: read: a real server says: ERROR:  column "name" does not exist; .*')
    lu.assertStrContains(told, 'the scenario\'s setup = "create table ..." can make what is missing')
end

function TestSentences.test_what_cannot_be_made_real_is_skipped()
    local base = "    duration = 3,\n    load = { arrivals = s.constant(50) },\n"
    local skipped = {
        ["faults = { s.at(1, s.clock_jump(60)) }"] = "a jump of the clock cannot be made real here",
        ["faults = { s.at(1, function() end) }"] = "a function on the timeline cannot be made real",
        ["faults = { s.at(1, s.change('primary', { connections = 5 })) }"] = "s.change of connections cannot be made real",
        ["servers = { primary = { ignores_cancel = true } }"] = 'server "primary" cannot be made real here',
        ["servers = { primary = { connections = 1001 } }"] = 'server "primary" cannot be made real here: it has 1001 connections, at most 1000 are possible',
        ["servers = { primary = {}, replica = { follows = 'primary' } }, "
            .. "faults = { s.at(1, s.failover 'primary' { to = 'replica' }) }"] = "a failover cannot be made real here",
    }
    for fields, why in pairs(skipped) do
        local report = run(base .. fields)
        lu.assertStrContains(report.skipped, why)
        lu.assertStrContains(report.text, "skipped: " .. why)
    end
end

function TestSentences.test_in_a_simulation_there_are_no_real_servers()
    local told = scenariofile.with(scenariofile.text("    duration = 1,\n    load = { arrivals = s.constant(50) },"),
        function(scenario)
            return require("weir").sim({}):run(function() return scenario:run { live = true } end)
        end)
    lu.assertStrContains(told, "outage.lua:3: a simulation is running; live runs are of the real world")
end

function TestSentences.test_without_luasocket_a_sentence_says_so()
    package.loaded.socket, package.preload.socket = nil, function() error "none" end
    local told = run("    duration = 1,\n    load = { arrivals = s.constant(50) },")
    package.preload.socket = nil
    lu.assertStrContains(told, "it needs LuaSocket, which is not installed")
end

function TestSentences.test_a_run_that_is_killed_leaves_nothing_behind()
    local script = ([[
        dir=$(mktemp -d) && chmod 1777 "$dir"
        TMPDIR=$dir %s %s "nothing happens" >/dev/null 2>&1 &
        pid=$!
        for i in $(seq 200); do ls -d "$dir"/weir-live.* >/dev/null 2>&1 && break; sleep 0.05; done
        sleep 1.5
        kill -s KILL $pid
        echo "began $(ls -d "$dir"/weir-live.* | wc -l)"
        for i in $(seq 200); do ls -d "$dir"/weir-live.* >/dev/null 2>&1 || break; sleep 0.05; done
        echo "left $(ls -d "$dir"/weir-live.* 2>/dev/null | wc -l) $(ps -A -o args= | grep -F "$dir/weir-live" | grep -vc grep)"
        rm -rf "$dir"
    ]]):format(interpreter, quote(folder .. "outage.lua"))
    local pipe = io.popen(script)
    local text = pipe:read "a"
    pipe:close()
    lu.assertEquals(text, "began 1\nleft 0 0\n")
end

function TestSentences.test_nothing_is_left_behind()
    local pipe = io.popen "exec ps -o args= --ppid $PPID"
    local children = pipe:read "a"
    pipe:close()
    lu.assertStrMatches(children, "ps %-o args= .*\n")
    lu.assertNotStrContains(children, "sh")
end

os.exit(lu.LuaUnit.run())
