-- weir.lint: each finding appears for a policy with that one mistake, with what was measured, and is gone
-- when the mistake is mended.

local lu = require "luaunit"
local weir = require "weir"

TestLint = {}

local function codes(findings)
    local list = {}
    for i, finding in ipairs(findings) do list[i] = finding.code end
    return table.concat(list, " ")
end

local function service(options)
    options.bypass_rls = true
    return { service = options }
end

local function three_times(failure)
    if failure.safe and failure.attempt <= 3 then return failure:backoff() end
end

-- code, knob; wrong and mended: { policy, about }.
local cases = {
    min_calls_unreachable = {
        "breaker.min_calls",
        wrong = { { breaker = { min_calls = 5000 } } }, mended = { { breaker = { min_calls = 100 } } },
    },
    never_opens = {
        "breaker",
        wrong = { { breaker = { initial = "disabled" } } }, mended = { {} },
    },
    blind_to_a_freeze = {
        "breaker.min_calls",
        wrong = { { breaker = { min_calls = 500 } } }, mended = { { breaker = { min_calls = 50 } } },
    },
    window_below_retry_span = {
        "breaker.window",
        wrong = { { breaker = { window = 1 }, backoff = { kind = "equal", base = 1 } } },
        mended = { { breaker = { window = 10 }, backoff = { kind = "equal", base = 1 } } },
    },
    open_for_below_probe = {
        "breaker.open_for",
        wrong = { { breaker = { open_for = 1 } } },
        mended = { { breaker = { open_for = 1 }, connect_timeout = 0.5 } },
    },
    permits_above_pool = {
        "breaker.half_open.permits",
        wrong = { { breaker = { half_open = { permits = 30 } } } },
        mended = { { breaker = { half_open = { permits = 30 } }, clients = service { max = 30 } } },
    },
    amplified_above_capacity = {
        "budget",
        wrong = {
            { budget = { per_success = 10, floor = 1000, cap = 10000 }, breaker = { failure_rate = 0.9 } },
            { rate = 600 },
        },
        mended = { { breaker = { failure_rate = 0.9 } }, { rate = 600 } },
    },
    no_recovery = {
        "policy",
        wrong = { { breaker = { half_open = { wait = 0.001 } } } },
        mended = { { breaker = { half_open = { wait = 10 } } } },
    },
    retries_do_not_fit = {
        "retries",
        wrong = { { timeout = 4, retries = 8, backoff = { kind = "equal", base = 0.5 } } },
        mended = { { timeout = 4, retries = 3, backoff = { kind = "equal", base = 0.5 } } },
    },
    backoff_never_capped = {
        "backoff.cap",
        wrong = { { backoff = { cap = 600 } } }, mended = { { backoff = { cap = 5 } } },
    },
    no_jitter = {
        "backoff.kind",
        wrong = { { backoff = { kind = "exponential" } } }, mended = { { backoff = { kind = "equal" } } },
    },
    budget_below_one_call = {
        "budget.floor",
        wrong = { { budget = { floor = 0 } } }, mended = { { budget = { floor = 5 } } },
    },
    never_gives_up = {
        "retry",
        wrong = {
            {
                retry = function(failure) return failure.safe and failure:backoff() or nil end,
                backoff = { cap = 0.1 }, budget = { floor = 50 },
            },
        },
        mended = { { retry = three_times, backoff = { cap = 0.1 }, budget = { floor = 50 } } },
    },
    repeats_unknown = {
        "retry",
        wrong = { { retry = function(failure) return failure.attempt < 4 and failure:backoff() or nil end } },
        mended = { { retry = three_times } },
    },
    connect_timeout_above_timeout = {
        "connect_timeout",
        wrong = { { timeout = 5, connect_timeout = 5 } }, mended = { { timeout = 5, connect_timeout = 1 } },
    },
    queue_outlasts_timeout = {
        "clients.service.queue_max",
        wrong = { { clients = service { queue_max = 5000 } } },
        mended = { { clients = service { queue_max = 200 } } },
    },
    slow_call_above_timeout = {
        "breaker.slow_call",
        wrong = { { breaker = { slow_call = 20 } } }, mended = { { breaker = { slow_call = 2 } } },
    },
    timeout_above_caller = {
        "timeout",
        wrong = { {}, { caller_timeout = 5 } }, mended = { { timeout = 4 }, { caller_timeout = 5 } },
    },
    connections_above_server = {
        "clients.*.max",
        wrong = { { clients = service { max = 30 } }, { engines = 4 } },
        mended = { { clients = service { max = 20 } }, { engines = 4 } },
    },
    connects_for_each_call = {
        "idle_timeout",
        wrong = { { idle_timeout = 0.001 } }, mended = { { idle_timeout = 60 } },
    },
    trips_on_noise = {
        "breaker",
        wrong = { { breaker = { consecutive = 1 } } }, mended = { { breaker = { consecutive = 10 } } },
    },
    opens_when_healthy = {
        "breaker",
        wrong = { { breaker = { slow_call = 0.005, slow_rate = 0.5 } } },
        mended = { { breaker = { slow_call = 0.1, slow_rate = 0.5 } } },
    },
    overloaded = {
        "rate",
        wrong = { { clients = service { max = 30 } }, { rate = 1000 } },
        mended = { { clients = service { max = 30 } }, { rate = 1000, workers = 16 } },
    },
    pool_too_small = {
        "clients.service.max",
        wrong = { { clients = service { max = 1, queue_max = 2 } }, { rate = 200 } },
        mended = { { clients = service { max = 10 } }, { rate = 200 } },
    },
    timeout_too_short = {
        "timeout",
        wrong = { { timeout = 0.02, connect_timeout = 0.01 }, { service = weir.sim.exponential(0.01) } },
        mended = { { timeout = 1, connect_timeout = 0.5 }, { service = weir.sim.exponential(0.01) } },
    },
    refuses_when_healthy = {
        "breaker",
        wrong = { { breaker = { initial = "forced_open" } } }, mended = { {} },
    },
    policy_fails = {
        "retry",
        wrong = { { retry = function(failure) return failure.nothing.there end } },
        mended = { { retry = three_times } },
    },
}

local function found(findings, code)
    for _, finding in ipairs(findings) do
        if finding.code == code then return finding end
    end
end

for code, case in pairs(cases) do
    TestLint["test_" .. code] = function()
        local finding = found(weir.lint(case.wrong[1], case.wrong[2]), code)
        lu.assertNotNil(finding, "not found")
        lu.assertEquals(finding.knob, case[1])
        lu.assertEquals(type(finding.measured), "number")
        lu.assertTrue(finding.severity == "warning" or finding.severity == "error")
        lu.assertStrContains(tostring(finding), ("%s %s: "):format(finding.severity, code))
        lu.assertNil(tostring(finding):find "[\n]")
        lu.assertEquals(codes(weir.lint(case.mended[1], case.mended[2])), "")
    end
end

-- ---- one mistake, one finding -----------------------------------------------------------------------------

function TestLint.test_most_mistakes_are_told_once_and_alone()
    for _, code in ipairs {
        "min_calls_unreachable", "window_below_retry_span", "open_for_below_probe", "permits_above_pool",
        "amplified_above_capacity", "no_recovery", "retries_do_not_fit", "backoff_never_capped", "no_jitter",
        "budget_below_one_call", "never_gives_up", "repeats_unknown", "connect_timeout_above_timeout",
        "queue_outlasts_timeout", "slow_call_above_timeout", "timeout_above_caller",
        "connections_above_server", "trips_on_noise", "policy_fails",
    } do
        local wrong = cases[code].wrong
        lu.assertEquals(codes(weir.lint(wrong[1], wrong[2])), code)
    end
end

function TestLint.test_it_names_the_knob_the_value_and_what_was_measured()
    local finding = weir.lint({ breaker = { min_calls = 5000 } })[1]
    lu.assertEquals(finding.value, 5000)
    lu.assertTrue(finding.limit > 500 and finding.limit < 5000)
    lu.assertStrContains(finding.message,
        ("breaker.min_calls is 5000; at 100 calls a second the breaker saw at most %d in"):format(finding.limit))
end

-- ---- good policies ----------------------------------------------------------------------------------------

function TestLint.test_the_defaults_are_fine_whatever_the_dice()
    for seed = 1, 5 do lu.assertEquals(tostring(weir.lint({}, { seed = seed })), "nothing found") end
end

function TestLint.test_the_example_policies_are_fine()
    for _, name in ipairs { "retries", "labels", "replica" } do
        local policy = dofile(("examples/policies/%s.lua"):format(name))
        lu.assertEquals(tostring(weir.lint(policy)), "nothing found", name)
    end
end

function TestLint.test_the_defaults_are_fine_at_other_rates_and_services()
    for _, rate in ipairs { 1, 20, 500 } do
        for _, spread in ipairs { weir.sim.constant(0.01), weir.sim.exponential(0.01) } do
            lu.assertEquals(tostring(weir.lint({}, { rate = rate, service = spread })), "nothing found")
        end
    end
end

function TestLint.test_the_same_seed_gives_the_same_findings()
    local policy = { timeout = 2, retries = 12, breaker = { window = 1 } }
    lu.assertEquals(tostring(weir.lint(policy, { seed = 3 })), tostring(weir.lint(policy, { seed = 3 })))
end

function TestLint.test_misuse_is_a_sentence_at_the_callers_line()
    local ok, err = pcall(function() return (weir.lint({ timeout = -1 })) end)
    lu.assertFalse(ok)
    lu.assertStrContains(err, "test_lint_policy.lua:")
    lu.assertStrContains(err, "weir: lint: timeout is -1; it must be more than 0")
end

os.exit(lu.LuaUnit.run(), true)
