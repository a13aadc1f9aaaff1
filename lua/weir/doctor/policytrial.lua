--- The policy itself: each of its functions is called with plausible values, and weir.lint looks at the rest.

local loop = require "weir.loop"
local phrases = require "weir.doctor.phrases"
local weir = require "weir"

local policytrial = {}

local MOST_SECONDS = 1 -- of one call of a policy's function
local NOWHERE = {}

-- ---- calling without being held up ------------------------------------------------------------------------

-- A function of the policy, stopped if it does not end. True, its results and the seconds it took; or false
-- and the error.
local function call(fn, ...)
    local began = os.clock()
    local function stop()
        if os.clock() - began > MOST_SECONDS then error(("it did not end within %d s"):format(MOST_SECONDS),
            0) end
    end
    local hook, mask, count = debug.gethook()
    debug.sethook(stop, "", 10000)
    local results = table.pack(pcall(fn, ...))
    debug.sethook(hook, mask, count)
    return results[1], results[2], os.clock() - began
end

local function said(facts, value)
    return phrases.discreet(tostring(value), facts.secrets)
end

-- ---- plausible values -------------------------------------------------------------------------------------

local Failure = {}
Failure.__index = Failure

function Failure:backoff()
    return self.delay
end

local failures = {
    { code = "server_error", sqlstate = "40001", class = "safe", safe = true, phase = "done" },
    { code = "connection_lost", class = "unknown", safe = false, phase = "sent" },
    { code = "connect_failed", class = "safe", safe = true, phase = "not_sent" },
    { code = "timeout", sqlstate = "57014", class = "permanent", safe = false, phase = "sent" },
}

local function sample_failure(like, at)
    local failure = {
        attempt = 1, elapsed = 0.05, remaining = 5, delay = 0.05, budget = 10, message = "a message",
        context = at.context, label = at.context, client = at.client, backend = at.backend,
        readonly = at.readonly, idempotent = at.readonly,
    }
    for key, value in pairs(like) do failure[key] = value end
    return setmetatable(failure, Failure)
end

local function names_of(map)
    local names = {}
    for name in pairs(map) do names[#names + 1] = name end
    table.sort(names)
    return names
end

-- A read and a write of each client.
local function sample_calls(options)
    local calls = {}
    for _, client in ipairs(names_of(options.clients)) do
        for _, readonly in ipairs { true, false } do
            calls[#calls + 1] = {
                client = client, readonly = readonly, idempotent = readonly,
                context = readonly and "GET /contacts" or "POST /contacts",
            }
        end
    end
    return calls
end

-- ---- each function ----------------------------------------------------------------------------------------

local function call_words(at)
    return ("a %s of %s"):format(at.readonly and "read" or "write", at.client)
end

local function trouble(knob, found, why)
    return { level = "fail", id = "policy." .. knob .. "_fails", found = found, why = why }
end

local BUILT_IN = "the built-in policy answers instead, and after a few faults the function is switched off"

-- The first thing wrong with `retry`, or nil and the longest time a call took.
local function try_retry(facts, retry)
    local longest = 0
    for _, at in ipairs(sample_calls(facts.options)) do
        for _, like in ipairs(failures) do
            local ok, delay, seconds = call(retry, sample_failure(like, at), at)
            local what = ("for %s that failed with %s"):format(call_words(at), like.sqlstate or like.code)
            if not ok then return trouble("retry", ("retry fails %s: %s"):format(what, said(facts, delay)),
                BUILT_IN) end
            if delay and (type(delay) ~= "number" or not (delay >= 0 and delay < math.huge)) then
                return trouble("retry", ("retry gives %s %s; it must be a delay in seconds, or nil"):format(
                    said(facts, delay), what), BUILT_IN)
            end
            longest = math.max(longest, seconds)
        end
    end
    return nil, longest
end

local function try_route(facts, route)
    local longest = 0
    for _, at in ipairs(sample_calls(facts.options)) do
        local ok, name, seconds = call(route, at)
        if not ok then
            return trouble("route", ("route fails for %s: %s"):format(call_words(at), said(facts, name)),
                BUILT_IN)
        elseif type(name) ~= "string" or not facts.options.backends[name] then
            return trouble("route", ("route sends %s to %s; there is %s"):format(call_words(at), said(facts,
                name),
                table.concat(names_of(facts.options.backends), ", ")), BUILT_IN)
        end
        longest = math.max(longest, seconds)
    end
    return nil, longest
end

local contexts = { "GET /contacts?workspace=abc123", "POST /orders/4711", "nightly: purge" }

local function try_label(facts, label)
    local longest = 0
    for _, context in ipairs(contexts) do
        local ok, text, seconds = call(label, context)
        if not ok then
            return trouble("label", ("label fails for '%s': %s"):format(context, said(facts, text)), BUILT_IN)
        elseif type(text) ~= "string" then
            return trouble("label", ("label gives a %s for '%s'; it must be a string"):format(type(text),
                context),
                BUILT_IN)
        end
        longest = math.max(longest, seconds)
    end
    return nil, longest
end

local trials = { -- knob, trial, what is said of one that is sound
    { "retry", try_retry, "retry gives a delay or nothing for each failure that was tried" },
    { "route", try_route, "route names a backend for each call that was tried" },
    { "label", try_label, "label gives a text for each context that was tried" },
}

local function add_slow(facts, add, knob, seconds)
    add("warn", "policy." .. knob .. "_slow", {
        found = ("%s took %s"):format(knob, phrases.seconds(seconds)),
        why = ("it runs for each call, and is stopped after policy_slice, %s"):format(phrases.seconds(
            facts.options.policy_slice or 0.01)),
        remedy = ("policy_slice = %.2g -- or less work in %s"):format(seconds * 4, knob), kind = "policy",
        subject = knob,
    })
end

--- Judges the policy's functions. `facts`: options, secrets.
function policytrial.functions(facts, add)
    for _, trial in ipairs(trials) do
        local knob, try = trial[1], trial[2]
        local fn = facts.options[knob]
        if type(fn) == "function" then
            local wrong, seconds = try(facts, fn)
            if wrong then
                add("fail", wrong.id, {
                    found = wrong.found, why = wrong.why, subject = knob, kind = "policy",
                    remedy = ("%s = function(...) ... end -- mended"):format(knob),
                })
            elseif seconds > (facts.options.policy_slice or 0.01) then
                add_slow(facts, add, knob, seconds)
            else
                add("ok", "policy." .. knob, { found = trial[3], subject = knob })
            end
        end
    end
end

--- Whether writes are routed to where they can be done. `facts.backends`: facts of each backend.
function policytrial.writes(facts, add)
    local route = facts.options.route
    if type(route) ~= "function" then return end
    local standby = {}
    for _, one in ipairs(facts.backends) do
        local row = one.rows.server and one.rows.server[1]
        standby[one.backend.name] = row and row.standby
    end
    for _, at in ipairs(sample_calls(facts.options)) do
        local ok, name = call(route, at)
        if ok and not at.readonly and standby[name or NOWHERE] then
            return add("fail", "policy.writes_to_standby", {
                found = ("route sends %s to %s, a standby"):format(call_words(at), name),
                why = "it fails with 25006, every time",
                remedy = "route = function(call) return call.readonly and \"replica\" or \"primary\" end",
                kind = "policy", subject = "route",
            })
        end
    end
end

-- ---- health checks ----------------------------------------------------------------------------------------

local function run_check(check, seconds)
    local signal, result = {}, nil
    local task = loop.spawn(function()
        result = table.pack(pcall(check))
        loop.fire(signal)
    end)
    if loop.wait_for(signal, seconds) then return table.unpack(result, 1, 3) end
    task:cancel()
    return false, ("no answer within %s"):format(phrases.seconds(seconds))
end

local function add_unwell(facts, add, name, ok, value, why)
    local reason = ok and (why or ("it returned %s"):format(tostring(value))) or value
    add("warn", "policy.check_unwell", {
        found = ("the health check %s says: %s"):format(name, said(facts, reason)),
        why = "health would be degraded, or unhealthy if the check is critical",
        remedy = "mend what it looks at; outside the program it runs in it may be another matter",
            kind = "system",
        subject = name,
    })
end

--- Runs each health check of the program's own once.
function policytrial.health(facts, add)
    local checks = type(facts.options.health) == "table" and facts.options.health.checks or {}
    for _, name in ipairs(names_of(checks)) do
        local check = checks[name]
        if type(check) == "table" then check = check.check end
        local ok, value, why = run_check(check, facts.timeout)
        if ok and value then
            add("ok", "policy.check", { found = ("the health check %s is well"):format(name),
                subject = name })
        else
            add_unwell(facts, add, name, ok, value, why)
        end
    end
end

-- ---- lint -------------------------------------------------------------------------------------------------

-- What is found out better here.
local told_elsewhere = { connections_above_server = true, policy_fails = true }

-- Knobs for which the limit that was measured leads to the setting to paste. Never rounded down: it would
-- be just below what is needed.
local function as_measured(finding)
    if finding.limit % 1 == 0 then return ("%d"):format(finding.limit) end
    return ("%.4g"):format(math.ceil(finding.limit * 100) / 100)
end

local function half(finding)
    return ("%.3g"):format(finding.limit / 2)
end

local pasted = {
    min_calls_unreachable = as_measured, blind_to_a_freeze = as_measured, open_for_below_probe = as_measured,
    permits_above_pool = as_measured, backoff_never_capped = as_measured, slow_call_above_timeout = half,
        connect_timeout_above_timeout = half,
    window_below_retry_span = function(finding)
        return ("%d"):format(math.ceil(finding.limit))
    end,
    retries_do_not_fit = function(finding) -- which half of the calls had room for; nearly all have for fewer
        return ("%d"):format(math.max(1, math.floor(finding.limit * 2 / 3)))
    end,
    budget_below_one_call = function(_, options)
        return ("%d"):format(math.max(10, options.retries or 3))
    end,
}

-- "breaker.half_open.permits", "8" -> "breaker = { half_open = { permits = 8 } }"
local function as_setting(knob, value)
    local first, rest = knob:match "^([^.]+)%.(.*)$"
    if not first then return ("%s = %s"):format(knob, value) end
    return ("%s = { %s }"):format(first, as_setting(rest, value))
end

local function remedy_of(finding, options)
    local knob = finding.knob or "policy"
    if finding.code == "no_jitter" then return "backoff = { kind = \"full\" }" end
    if finding.code == "repeats_unknown" then return "if not failure.safe then return nil end -- first, " ..
        "in retry" end
    if finding.code == "never_gives_up" then return "if failure.attempt > 3 then return nil end -- " ..
        "first, in retry" end
    local value = pasted[finding.code]
    if value and finding.limit and finding.value then return as_setting(knob, value(finding, options)) end
    return ("another %s; weir.explain shows what a change does"):format(knob)
end

--- What weir.lint finds. `facts.connections`: of the server, if known.
function policytrial.lint(facts, add)
    local about = { engines = math.min(facts.options.area and 1 or facts.workers, 64),
        connections = facts.connections }
    local ok, findings = pcall(weir.lint, facts.options, about)
    if not ok then
        return add("warn", "lint.impossible", {
            found = ("the policy cannot be simulated: %s"):format(said(facts, findings)),
            why = "what it does in an outage was not looked at", remedy = "mend it", kind = "policy",
        })
    end
    local count = 0
    for _, finding in ipairs(findings) do
        if not told_elsewhere[finding.code] then
            count = count + 1
            add(finding.severity == "error" and "fail" or "warn", "lint." .. finding.code, {
                found = finding.message, why = "measured by running the policy in a simulation",
                remedy = remedy_of(finding, facts.options), kind = "policy", subject = finding.knob,
            })
        end
    end
    if count == 0 then
        add("ok", "lint.clean", { found = "weir.lint finds nothing, at 100 calls a second" })
    end
end

policytrial.checks = { policytrial.functions, policytrial.writes, policytrial.health, policytrial.lint }

return policytrial
