-- tests/support/tally.lua decides whether a run of the tests was good, so it is tested too: on what ctest says.

local lu = require "luaunit"
local tally = require "tally"

local function ran(lines)
    local self = tally.new()
    local last
    for line in (lines .. "\n"):gmatch "(.-)\n" do last = tally.read(self, line) or last end
    local good, wrong = tally.verdict(self)
    return { passed = self.passed, failed = self.failed, skipped = self.skipped, good = good,
        wrong = wrong or (last and last.wrong) }
end

local function entry(output, verdict, name)
    local lines = { "1: Test command: /x", "1: Test timeout computed to be: 60" }
    for line in (output .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = "1: " .. line end
    lines[#lines + 1] = ("1/1 Test #1: %s .........%s 0.01 sec"):format(name or "unit/test_x", verdict)
    return table.concat(lines, "\n")
end

local PASSED, FAILED = "   Passed   ", "***Failed   "
local GOOD, BAD = "\nctest ended with 0", "\nctest ended with 8"

local cases = { -- what happened, what ctest said, passed, failed, skipped
    { "two cases of cmocka", entry("1..2\nok 1 - a\nok 2 - b", PASSED) .. GOOD, 2, 0, 0 },
    { "two cases of luaunit", entry("1..2\nok     1\tT.a\nok     2\tT.b", PASSED) .. GOOD, 2, 0, 0 },
    { "one failed of two", entry("1..2\nok 1 - a\nnot ok 2 - b\n# why", FAILED) .. BAD, 1, 1, 0 },
    { "a skipped one is not a passed one", entry("1..2\nok 1 - a\nok 2\t# SKIP no server", PASSED) .. GOOD, 1, 0, 1 },
    { "nothing but skipped", entry("1..1\nok 1\t# SKIP no server", PASSED) .. GOOD, 0, 1, 1 },
    { "a crash", entry("1..2\nok 1 - a", "Subprocess aborted***Exception:  ") .. BAD, 1, 1, 0 },
    { "a crash by signal", entry("1..2\nok 1 - a", "***Exception: SegFault ") .. BAD, 1, 1, 0 },
    { "a crash after a failure", entry("1..3\nok 1 - a\nnot ok 2 - b", "***Exception: SegFault ") .. BAD, 1, 2, 0 },
    { "a hang", entry("1..2\nok 1 - a", "***Timeout  ") .. BAD, 1, 1, 0 },
    { "a program that is not there", entry("", "***Not Run  ") .. BAD, 0, 1, 0 },
    { "an early exit without an error", entry("1..3\nok 1 - a", PASSED) .. GOOD, 1, 1, 0 },
    { "an error that no case tells", entry("1..1\nok 1 - a", FAILED) .. BAD, 1, 1, 0 },
    { "a program without cases", entry("hello", PASSED) .. GOOD, 0, 1, 0 },
    { "a plan of nothing", entry("1..0", PASSED) .. GOOD, 0, 1, 0 },
    { "a shell script that only exits", entry("hello", PASSED, "cli/test_x.sh") .. GOOD, 1, 0, 0 },
    { "a shell script that fails", entry("hello", FAILED, "cli/test_x.sh") .. BAD, 0, 1, 0 },
    { "a line said twice by parent and child", entry("1..2\nok 1 - a\nok 1 - a\nok 2 - b", PASSED) .. GOOD, 2, 0, 0 },
    { "no test at all", "No tests were found!!!" .. GOOD, 0, 1, 0 },
    { "ctest itself was killed", entry("1..1\nok 1 - a", PASSED), 1, 1, 0 },
    { "ctest knows of an error we do not", entry("1..1\nok 1 - a", PASSED) .. BAD, 1, 1, 0 },
}

TestTally = {}

for _, case in ipairs(cases) do
    TestTally["test_" .. case[1]] = function()
        local result = ran(case[2])
        lu.assertEquals({ result.passed, result.failed, result.skipped }, { case[3], case[4], case[5] })
        lu.assertEquals(result.good, case[4] == 0)
    end
end

function TestTally:test_the_reason_is_told()
    lu.assertStrContains(ran(entry("1..3\nok 1 - a", PASSED) .. GOOD).wrong, "3 cases planned, 1 reported")
    lu.assertStrContains(ran(entry("1..3", "***Timeout ") .. BAD).wrong, "time limit")
end

os.exit(lu.LuaUnit.run())
