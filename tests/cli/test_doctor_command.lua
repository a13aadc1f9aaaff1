-- weir doctor as a command: arguments, what a policy file may be, exit codes, output.

local lu = require "luaunit"
local examination = require "examination"
local testing = require "weir.testing"

local pg

local function policy(clients)
    return ("return { backends = { primary = %q }, clients = { %s } }"):format(pg:url(), clients)
end

local SERVICE = 'service = { user = "postgres", max = 2, bypass_rls = true }'

TestArguments = {}

local function refused(arguments, ...)
    local code, output, said = examination.run(arguments)
    lu.assertEquals(code, 2, said)
    lu.assertEquals(output, "")
    for _, text in ipairs { ... } do lu.assertStrContains(said, text) end
end

function TestArguments:test_wrong_usage_is_2_and_a_sentence()
    refused("", "a policy is missing")
    refused("--bogus x.lua", "unknown option '--bogus'")
    refused("a.lua b.lua", "one policy at a time")
    refused("--timeout 0 a.lua", "--timeout wants a number from 0.1 to 600, not '0'")
    refused("--timeout", "--timeout wants a number")
    refused("--workers=1.5 a.lua", "--workers wants a whole number")
    refused("/nowhere/at/all.lua", "/nowhere/at/all.lua")
end

function TestArguments:test_help_tells_options_and_exit_codes()
    local code, output = examination.run "--help"
    lu.assertEquals(code, 0)
    for _, word in ipairs { "--json", "--workers", "--timeout", "--strict", "Exit codes" } do
        lu.assertStrContains(output, word)
    end
end

TestPolicyFile = {}

local function unreadable(text, ...)
    local report = examination.of(text)
    lu.assertEquals(report.code, 2, report.output)
    for _, words in ipairs { ... } do lu.assertStrContains(report.said, words) end
    return report.said
end

function TestPolicyFile:test_one_that_is_no_policy_is_refused_with_the_reason()
    unreadable("return 7", "returns a number and opens no engine")
    unreadable("return {", "<eof>")
    unreadable("error 'no such luck'", "no such luck")
    unreadable("return { backends = {}, clients = {} }", "backends")
    unreadable("return { backends = { primary = '' }, clients = { a = { bypass_rls = true } }, timeuot = " ..
        "1 }", "timeuot")
end

function TestPolicyFile:test_a_password_in_its_error_is_not_repeated()
    local said = unreadable("error 'cannot reach postgresql://ann:geheim@db/x nor password=heimlich'", "***")
    lu.assertNotStrContains(said, "geheim")
    lu.assertNotStrContains(said, "heimlich")
end

function TestPolicyFile:test_one_that_returns_its_options_is_examined()
    local report = examination.of(policy(SERVICE))
    lu.assertEquals(report:line("reach.connected").level, "ok")
    lu.assertEquals(report:line("reach.connected").client, "service")
end

function TestPolicyFile:test_one_that_opens_an_engine_is_examined_and_goes_no_further()
    local marker = os.tmpname()
    local text = ("local weir = require 'weir'\nlocal db = weir.open %s\nos.remove(%q)"):format(
        policy(SERVICE):gsub("^return ", ""), marker)
    local report = examination.of(text)
    lu.assertEquals(report:line("reach.connected").client, "service")
    lu.assertTrue(os.remove(marker))
end

TestOutput = {}

local function in_words(text, environment)
    return examination.with_file(text, function(path)
        return examination.run("'" .. path .. "'", environment)
    end)
end

function TestOutput:test_people_get_groups_by_backend_and_client_and_a_sum()
    local _, output = in_words(policy(SERVICE))
    lu.assertStrContains(output, "backend primary as client service\n")
    lu.assertStrContains(output, "  ok    connected in ")
    lu.assertStrMatches(output, ".*\n%d+ ok, %d+ warnings?, %d+ failures?\n")
    lu.assertNotStrContains(output, "\27")
end

function TestOutput:test_a_failure_is_1()
    local report = examination.of([[return { backends = { primary = "host=/nowhere" },
        clients = { s = { user = "x", password = "geheim", bypass_rls = true } } }]])
    lu.assertEquals(report.code, 1)
    lu.assertEquals(report:line("reach.refused").level, "fail")
    lu.assertNotStrContains(report.output, "geheim")
end

pg = assert(testing.postgres())
local code = lu.LuaUnit.run()
pg:close()
os.exit(code)
