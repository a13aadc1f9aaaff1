-- Every Lua snippet of README.md, run as a reader would run it: in order, as one script, on the schema README gives,
-- and printing what its comments say it prints.

local lu = require "luaunit"
local testing = require "weir.testing"

local BIN = os.getenv "WEIR_BIN" or "build/weir"
local SOURCE = os.getenv "WEIR_SOURCE_DIR" or "."

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read "a"
    file:close()
    return text
end

-- The fenced blocks of one language, in order.
local function blocks(text, language)
    local found = {}
    for block in text:gmatch("\n```" .. language .. "\n(.-)\n```") do found[#found + 1] = block end
    return found
end

-- `print(x)   --> y` becomes a check that x prints as y; the script says at its end how many there were.
local function with_checks(script)
    local count
    script, count = script:gsub("print(%b())[ \t]*%-%->[ \t]*([^\n]*)", function(arguments, expected)
        return ("expect(%q, %s"):format(expected, arguments:sub(2))
    end)
    return [[
        local function expect(expected, ...)
            local seen = {}
            for i = 1, select("#", ...) do seen[i] = tostring((select(i, ...))) end
            local line = table.concat(seen, "\t")
            if line ~= expected then error(("README says %s, the script says %s"):format(expected, line), 2) end
        end
    ]] .. script, count
end

local function run(script, url)
    local path, output = os.tmpname(), os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write(script)
    file:close()
    local ok = os.execute(("DATABASE_URL='%s' '%s' run %s >%s 2>&1"):format(url, BIN, path, output))
    local text = read(output)
    os.remove(path)
    os.remove(output)
    return ok, text
end

TestReadme = {}

function TestReadme:setUp()
    self.readme = read(SOURCE .. "/README.md")
    self.server = assert(testing.postgres())
end

function TestReadme:tearDown()
    self.server:close()
end

function TestReadme:test_its_snippets_run_in_order_and_print_what_it_says_every_time()
    local schema = blocks(self.readme, "sql")
    lu.assertEquals(#schema, 1)
    assert(self.server:sql(schema[1]))
    local snippets = blocks(self.readme, "lua")
    lu.assertTrue(#snippets >= 4, "README has lost its snippets")
    local script, checks = with_checks(table.concat(snippets, "\n"))
    lu.assertTrue(checks >= 6, "README's snippets say what they print")
    local ok, output = run(script .. "\ndb:close()\n", self.server:url())
    lu.assertTrue(ok == true, output)
    ok, output = run(script .. "\ndb:close()\n", self.server:url())
    lu.assertTrue(ok == true, "the second time: " .. output)
end

local function weir_test(arguments, text)
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
    local pipe = io.popen(("LC_ALL=C.UTF-8 '%s' test %s %s 2>&1"):format(BIN, arguments, path))
    local output = pipe:read "a"
    local ok = pipe:close()
    os.remove(path)
    return ok == true, output
end

function TestReadme:test_its_scenario_holds_for_every_seed_it_names()
    local scenarios = blocks(self.readme, "lua scenario")
    lu.assertEquals(#scenarios, 1)
    local ok, output = weir_test("--seeds 20", scenarios[1])
    lu.assertTrue(ok, output)
    lu.assertStrContains(output, "20 passed, 0 failed")
end

function TestReadme:test_its_picture_is_what_the_scenario_shows_when_too_much_is_hoped_for()
    local hopeful = blocks(self.readme, "lua scenario")[1]:gsub("s.recovers { within = 10 }", "s.recovers { within = 2 }")
    local ok, output = weir_test("--seed 1", hopeful)
    lu.assertFalse(ok)
    local shown = blocks(self.readme, "text")[1]
    for line in shown:gmatch "[^\n]+" do lu.assertStrContains(output, (line:gsub("^outage.lua", ""))) end
end

function TestReadme:test_a_wrong_expectation_would_be_noticed()
    local script = with_checks "print(1 + 1)   --> 3"
    local ok, output = run(script, self.server:url())
    lu.assertNotEquals(ok, true)
    lu.assertStrContains(output, "README says 3, the script says 2")
end

os.exit(lu.LuaUnit.run())
