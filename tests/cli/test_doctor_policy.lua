-- weir doctor on the policy itself: its functions, its health checks, what lint finds; and how all is told.

local clinic = require "clinic"
local examination = require "examination"
local json = require "weir.json"
local lu = require "luaunit"
local policytrial = require "weir.doctor.policytrial"

local pg

-- Examined with these options: this finding alone.
local function wrong(more, id, ...)
    local report = clinic.assert_trouble(clinic.policy(pg, more), { id })
    local line = report:line(id)
    lu.assertNil(line.backend)
    for _, words in ipairs { ... } do lu.assertStrContains(line.found, words) end
    return line
end

TestFunctions = {}

function TestFunctions:test_sound_ones_are_told_of()
    local report = clinic.assert_sound(pg, clinic.policy(pg, [[
        retry = function(failure) if failure.safe and failure.attempt <= 3 then return failure:backoff() end
        end,
        route = function(call) return "primary" end,
        label = function(context) return (context:gsub("%?.*", "")) end]]))
    for _, id in ipairs { "policy.retry", "policy.route", "policy.label" } do
        lu.assertEquals(report:line(id).level, "ok")
    end
end

function TestFunctions:test_retry_that_raises()
    local line = wrong("retry = function(failure) return failure.nothing.at_all end", "policy.retry_fails",
        "for a read of anon that failed with 40001", "index a nil value")
    lu.assertEquals(line.level, "fail")
end

function TestFunctions:test_retry_that_raises_only_where_the_outcome_is_unknown()
    wrong([[retry = function(failure)
        if failure.class == "unknown" then error "not thought of" end
        if failure.safe and failure.attempt <= 3 then return failure:backoff() end
    end]], "policy.retry_fails", "connection_lost", "not thought of")
end

function TestFunctions:test_retry_that_gives_no_delay()
    wrong("retry = function(failure) return failure.safe and 'soon' or nil end", "policy.retry_fails",
        "gives soon")
end

function TestFunctions:test_retry_that_does_not_end()
    wrong("retry = function() while true do end end", "policy.retry_fails", "did not end within")
end

function TestFunctions:test_route_to_nowhere()
    wrong("route = function(call) return call.readonly and 'replica' or 'primary' end", "policy.route_fails",
        "sends a read of anon to replica; there is primary")
    wrong("route = function(call) if call.client == 'anon' then return 'primary' end end",
        "policy.route_fails",
        "a read of service to nil")
end

function TestFunctions:test_label_that_is_no_text()
    wrong("label = function(context) return context:match '^%u+' end", "policy.label_fails",
        "gives a nil for 'nightly: purge'")
end

function TestFunctions:test_a_password_in_an_error_is_not_repeated()
    local report = examination.of(clinic.policy(pg, "label = function() error 'what is anon-secret?' end"))
    lu.assertStrContains(report:line("policy.label_fails").found, "what is ***?")
    lu.assertNotStrContains(report.output, "anon-secret")
end

TestHealthChecks = {}

function TestHealthChecks:test_are_run_once()
    local report = clinic.assert_sound(pg, clinic.policy(pg,
        "health = { checks = { redis = function() require('weir').sleep(0.01) return true end } }"))
    lu.assertStrContains(report:line("policy.check").found, "redis is well")
end

function TestHealthChecks:test_unwell_ones_say_why()
    wrong("health = { checks = { redis = function() return false, 'no PONG' end } }", "policy.check_unwell",
        "redis says: no PONG")
    wrong("health = { checks = { redis = { check = function() error 'no ngx here' end, critical = true } } }",
        "policy.check_unwell", "no ngx here")
end

function TestHealthChecks:test_one_that_waits_for_ever_is_left()
    local report = clinic.assert_trouble(clinic.policy(pg,
        "health = { checks = { redis = function() require('weir').sleep(1e6) end } }"),
        { "policy.check_unwell" }, "--timeout 0.3")
    lu.assertStrContains(report:line("policy.check_unwell").found, "no answer within 300 ms")
end

TestLint = {}

local lint_cases = { -- the policy, with what is wrong last; what it is called
    { "", "breaker = { min_calls = 5000 }", "lint.min_calls_unreachable" },
    { "timeout = 2, connect_timeout = 1,", "breaker = { slow_call = 3 }", "lint.slow_call_above_timeout" },
    { "", "breaker = { open_for = 1 }", "lint.open_for_below_probe" },
    { "", "budget = { floor = 1 }", "lint.budget_below_one_call" },
    { "timeout = 2, connect_timeout = 1,", "backoff = { cap = 50 }", "lint.backoff_never_capped" },
    { "", "connect_timeout = 20", "lint.connect_timeout_above_timeout" },
    { "timeout = 1, connect_timeout = 0.5, backoff = { base = 1 },", "retries = 10",
        "lint.retries_do_not_fit" },
}

-- No server is needed for it, so none is asked.
local function linted(more)
    local options = load(("return { backends = { primary = '' }, clients = { anon = { role = 'x', max = " ..
        "16 } }, %s }")
        :format(more))()
    local lines = {}
    policytrial.lint({ options = options, workers = 1 }, function(_, id, words)
        lines[id] = words
    end)
    return lines
end

function TestLint:test_what_it_finds_is_mended_by_the_setting_that_is_printed()
    for _, case in ipairs(lint_cases) do
        local line = linted(case[1] .. case[2])[case[3]]
        lu.assertNotNil(line, case[2])
        lu.assertEquals(line.kind, "policy")
        lu.assertNil(linted(case[1] .. line.remedy)[case[3]], line.remedy)
    end
end

function TestLint:test_a_backoff_without_jitter()
    local line = wrong("backoff = { kind = 'constant' }", "lint.no_jitter")
    clinic.assert_sound(pg, clinic.policy(pg, line.remedy))
end

TestTelling = {}

function TestTelling:test_warnings_are_failures_only_with_strict()
    local policy = clinic.policy(pg, "backoff = { kind = 'constant' }")
    lu.assertEquals(examination.of(policy).code, 0)
    lu.assertEquals(examination.of(policy, "--strict").code, 1)
    lu.assertEquals(examination.of(clinic.policy(pg), "--strict").code, 0)
end

function TestTelling:test_text_and_json_tell_the_same()
    local policy = clinic.policy(pg, "backoff = { kind = 'constant' }, label = function() end")
    local report = examination.of(policy)
    local _, text = examination.with_file(policy, function(path)
        return examination.run(path)
    end)
    text = text:gsub("\n +", " ") -- long lines are broken
    for _, line in ipairs(report.lines) do
        lu.assertStrContains(text, ("[%s]"):format(line.id))
        if line.level ~= "ok" then
            lu.assertStrContains(text, line.why)
            lu.assertStrContains(text, (line.remedy:gsub("\n", " ")))
        end
    end
    lu.assertStrContains(text, "\n\nthe policy ")
    lu.assertStrContains(text, "1 warning, 1 failure\n")
end

function TestTelling:test_fields_stand_in_one_order()
    local report = examination.of(clinic.policy(pg, "backoff = { kind = 'constant' }"))
    local last = report.output:match "([^\n]*)\n$"
    lu.assertStrMatches(last, '{"level":"warn","id":"lint.no_jitter","subject":.*,"found":.*,"why":.*,' ..
        '"remedy":.*,"kind":"policy"}')
    lu.assertEquals(json.decode(last).subject, "backoff.kind")
end

-- As on a terminal, which util-linux' script lends.
local function on_a_terminal(environment)
    return examination.with_file(clinic.policy(pg), function(path)
        local command = ("env %s %s doctor %s"):format(environment, os.getenv "WEIR_BIN" or "build/weir",
            path)
        local pipe = io.popen(("script -qec '%s' /dev/null </dev/null"):format(command))
        local text = pipe:read "a"
        pipe:close()
        return text
    end)
end

function TestTelling:test_colours_are_for_terminals_that_want_them()
    lu.assertStrContains(on_a_terminal "-u NO_COLOR", "\27[32mok")
    local plain = on_a_terminal "NO_COLOR=1"
    lu.assertStrContains(plain, "ok    PostgreSQL")
    lu.assertNotStrContains(plain, "\27")
end

pg = clinic.open()
local code = lu.LuaUnit.run()
pg:close()
os.exit(code)
