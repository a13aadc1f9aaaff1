--- weir.lint(policy [, about]): what in a policy does not do what it seems to say, each finding with the
-- figure that was measured by running it (weir.lab). What stands in the policy only decides which run is
-- made.

local Lab = require "weir.lab"
local unpack = require("weir.compat").unpack
local words = require "weir.words"

local count, percent, seconds = words.count, words.percent, words.seconds

-- ---- findings ---------------------------------------------------------------------------------------------

local Finding = { __name = "weir.finding" }
Finding.__index = Finding

--- warning min_calls_unreachable: breaker.min_calls is 1000; ...
function Finding:__tostring()
    return ("%s %s: %s"):format(self.severity, self.code, self.message)
end

local Findings = { __name = "weir.findings" }
Findings.__index = Findings

function Findings:__tostring()
    if #self == 0 then return "nothing found" end
    local lines = {}
    for i, finding in ipairs(self) do lines[i] = tostring(finding) end
    return table.concat(lines, "\n")
end

-- ---- a healthy server -------------------------------------------------------------------------------------

-- How most of those ended that did not end well.
local function usual_end(ended_as)
    local most, usual = 0, "nothing"
    for _, code in ipairs { "breaker_open", "timeout", "queue_full", "acquire_timeout", "connect_failed" } do
        if (ended_as[code] or 0) > most then most, usual = ended_as[code], code end
    end
    return usual
end

local function add_unwell(lab, add, calm)
    local max = ("clients.%s.max"):format(lab.setting.client)
    local usual = usual_end(calm.seen.ended_as)
    local blamed = {
        breaker_open = { "refuses_when_healthy", "breaker" },
        timeout = { "timeout_too_short", "timeout", lab.timeout },
        queue_full = { "pool_too_small", max, lab.max },
        acquire_timeout = { "pool_too_small", max, lab.max },
    }
    local code, knob, value = unpack(blamed[usual] or { "fails_when_healthy", "policy" })
    add(code, "error", {
        knob = knob, value = value, measured = calm.good,
        message = ("%s%s: with nothing wrong only %s of %g calls a second ended well, most others with " ..
            "%s, while the server was busy to %s"):format(
            knob, value and (" is %g"):format(value) or "", percent(calm.good),
            lab.setting.about.rate, usual, percent(calm.busy)),
    })
end

local function check_calm(lab, add)
    local calm, about = lab:calm(), lab.setting.about
    if calm.opened then
        add("opens_when_healthy", "error", {
            knob = "breaker", measured = calm.opened,
            message = ("with nothing wrong the breaker opened after %s: %s"):format(seconds(calm.opened),
                calm.seen.opened_why),
        })
    end
    if calm.good < 0.99 and calm.busy > 0.9 then
        add("overloaded", "error", {
            knob = "rate", value = about.rate, limit = about.capacity, measured = calm.good,
            message = ("%g calls a second are more than the server can do, about %.4g: with nothing " ..
                "wrong only %s of the calls ended well"):format(
                about.rate, about.capacity, percent(calm.good)),
        })
        return
    end
    if calm.good < 0.99 and not calm.opened then add_unwell(lab, add, calm) end
end

local function check_reuse(lab, add)
    local calm = lab:calm()
    if calm.arrived < 20 or calm.connects_per_call < 0.5 then return end
    local closed = calm.seen.pools.closed
    local knob = closed.lifetime > closed.idle and "lifetime" or "idle_timeout"
    add("connects_for_each_call", "warning", {
        knob = knob, value = lab:knob(knob), measured = calm.connects_per_call,
        message = ("%s is %s: %.2g connects were made for each call at %g calls a second; connections " ..
            "are hardly used twice"):format(
            knob, seconds(lab:knob(knob) or 0), calm.connects_per_call, lab.setting.about.rate),
    })
end

local function check_noise(lab, add)
    if lab:calm().opened then return end
    local noise = lab:brownout(0.01)
    if not noise.opened_after then return end
    add("trips_on_noise", "warning", {
        knob = "breaker", measured = noise.opened_after,
        message = ("one statement in a hundred failed, and the breaker opened after %s: %s"):format(
            seconds(noise.opened_after), noise.seen.opened_why),
    })
end

-- ---- does the breaker open? -------------------------------------------------------------------------------

local function check_opens(lab, add)
    local down, about = lab:situation "down", lab.setting.about
    if down.opened_after then return end
    local min_calls = lab:knob "breaker.min_calls"
    local measured = down.breaker_calls or 0
    if measured < min_calls and (measured > 0 or down.arrived < min_calls) then
        add("min_calls_unreachable", "error", {
            knob = "breaker.min_calls", value = min_calls, limit = measured, measured = measured,
            message = ("breaker.min_calls is %d; at %g calls a second the breaker saw at most %d in its " ..
                "window, and never opened though the server was down for %s"):format(
                min_calls, about.rate, measured,
                seconds(down.lasts)),
        })
    else
        add("never_opens", "warning", {
            knob = "breaker", measured = down.lasts,
            message = ("the server was down for %s at %g calls a second, and the breaker never opened; " ..
                "it saw %d calls in its window"):format(seconds(down.lasts), about.rate, measured),
        })
    end
end

local function check_opens_when_frozen(lab, add)
    local frozen = lab:situation "frozen"
    if frozen.opened_after or not lab:situation("down").opened_after then return end
    local min_calls, measured = lab:knob "breaker.min_calls", frozen.breaker_calls
    add("blind_to_a_freeze", "warning", {
        knob = "breaker.min_calls", value = min_calls, limit = measured, measured = measured,
        message = ("breaker.min_calls is %d; a server that accepted and never answered for %s did not " ..
            "open the breaker, which saw at most %d calls in its window: each ends only after its timeout " ..
            "of %s"):format(min_calls, seconds(frozen.lasts), measured, seconds(lab.timeout)),
    })
end

local function check_window(lab, add)
    if lab:knob "breaker.window_calls" then return end
    local window, span = lab:knob "breaker.window", 0
    for _, fault in ipairs { "serialization", "lost" } do
        local lone = lab:lone("read", fault)
        if lone.span then span = math.max(span, lone.span.most) end
    end
    if span <= window then return end
    add("window_below_retry_span", "warning", {
        knob = "breaker.window", value = window, limit = span, measured = span,
        message = ("breaker.window is %s; from the first to the last attempt of one call %s passed: the " ..
            "breaker has forgotten a call's first failures when it meets its last"):format(
            seconds(window), seconds(span)),
    })
end

-- ---- does it come back? -----------------------------------------------------------------------------------

local function check_probe(lab, add)
    local open_for = lab:knob "breaker.open_for"
    local probe = lab:probe().seconds
    if open_for >= probe then return end
    local frozen = lab:situation "frozen"
    add("open_for_below_probe", "warning", {
        knob = "breaker.open_for", value = open_for, limit = probe, measured = probe,
        message = ("breaker.open_for is %s; to find out that a frozen server does not answer took %s, " ..
            "so calls are let in before the probe can tell: %s went in and failed in a freeze of " ..
            "%s"):format(seconds(open_for),
            seconds(probe), count(frozen.guinea_pigs or 0, "call"), seconds(frozen.lasts)),
    })
end

local function check_permits(lab, add)
    local permits = lab:knob "breaker.half_open.permits"
    if permits <= lab.max then return end
    local half_open = lab:half_open()
    if not half_open.met or half_open.waiting == 0 then return end
    add("permits_above_pool", "warning", {
        knob = "breaker.half_open.permits", value = permits, limit = lab.max, measured = half_open.waiting,
        message = ("breaker.half_open.permits is %d and the pool of %s has %d connections: half-open, " ..
            "%s let in waited behind the others, and the verdict with them"):format(
            permits, lab.setting.client, lab.max,
            count(half_open.waiting, "call")),
    })
end

local function check_recovery(lab, add)
    if lab:calm().good < 0.95 then return end
    for _, kind in ipairs(Lab.kinds) do
        local s = lab:situation(kind)
        if not s.recovered_after then
            local last = s.seen.samples[#s.seen.samples]
            local first = s.seen.samples[math.max(1, #s.seen.samples - 40)]
            local arrived, ok = last.arrived - first.arrived, last.ok - first.ok
            add("no_recovery", "error", {
                knob = "policy", measured = arrived > 0 and ok / arrived or 0,
                message = ("the server was %s for %s; %s after that was over still only %s of the calls " ..
                    "ended well: the policy keeps it from coming back"):format(
                    kind, seconds(s.lasts), seconds(s.watched),
                    percent(ok, arrived)),
            })
            return
        end
    end
end

-- ---- retries ----------------------------------------------------------------------------------------------

local function configured_retries(lab)
    local given = lab.setting.given
    if type(given.retry) == "number" then return given.retry end
    if type(given.retry) == "function" then return nil end
    return (lab:knob "retries")
end

local function comes_back(lab)
    local down = lab:situation "down"
    if not down.recovered_after then
        return ("After an outage of %s the calls did not end well again in %s"):format(seconds(down.lasts),
            seconds(down.watched))
    end
    return ("After an outage of %s it took %s until calls ended well again"):format(seconds(down.lasts),
        seconds(down.recovered_after))
end

local function check_overload(lab, add)
    local about = lab.setting.about
    if about.rate >= about.capacity then return end
    for _, share in ipairs { 0.1, 0.5, 1 } do
        local b = lab:brownout(share)
        if b.statements_per_second > about.capacity then
            add("amplified_above_capacity", "error", {
                knob = "budget", value = b.amplification, limit = about.capacity,
                measured = b.statements_per_second,
                message = ("while %s of the statements failed, %g calls a second became %.4g statements " ..
                    "a second; the server can do %.4g. %s"):format(
                    percent(share), about.rate, b.statements_per_second,
                    about.capacity, comes_back(lab)),
            })
            return
        end
    end
end

local function check_fit(lab, add)
    local lone = lab:lone("read", "serialization")
    local denied = lone.pools.attempts.denied_deadline
    if denied <= lone.count / 10 then return end
    local wanted = configured_retries(lab)
    add("retries_do_not_fit", "warning", {
        knob = wanted and "retries" or "retry", value = wanted, limit = lone.attempts.median - 1,
        measured = lone.attempts.median,
        message = ("%s; in a timeout of %s a call that always failed made %s, and in %d of %d " ..
            "calls the next pause would have been longer than the time left"):format(
            wanted and ("retries is %d"):format(wanted) or "the retry function wants more attempts",
            seconds(lab.timeout),
            lone.attempts.median == 1 and "one attempt" or ("%d attempts"):format(lone.attempts.median),
            denied, lone.count),
    })
end

local function check_cap(lab, add)
    local cap, said = lab:knob "backoff.cap"
    if not said or cap <= math.min(lab.timeout, 60) then return end
    local longest = 0
    for _, fault in ipairs { "serialization", "lost" } do
        for _, pause in ipairs(lab:lone("read", fault).pauses) do longest = math.max(longest, pause.most) end
    end
    if longest >= cap then return end
    add("backoff_never_capped", "warning", {
        knob = "backoff.cap", value = cap, limit = lab.timeout, measured = longest,
        message = ("backoff.cap is %s; calls end after %s, and the longest pause any call made was %s: " ..
            "the cap is never reached"):format(seconds(cap), seconds(lab.timeout), seconds(longest)),
    })
end

local function check_jitter(lab, add)
    local pause = lab:lone("read", "serialization").pauses[1]
    if not pause or pause.most - pause.least > pause.most / 1000 then return end
    add("no_jitter", "warning", {
        knob = "backoff.kind", measured = pause.most,
        message = ("%d calls that failed at one moment all came back after %s: what fails together is " ..
            "sent again together"):format(lab:lone("read", "serialization").count, seconds(pause.most)),
    })
end

local function check_budget_for_one(lab, add)
    local lone = lab:lone("read", "serialization")
    local denied = lone.pools.attempts.denied_budget
    if denied == 0 then return end
    local floor = lab:knob "budget.floor"
    add("budget_below_one_call", "warning", {
        knob = "budget.floor", value = floor, limit = lone.attempts.most, measured = lone.attempts.median,
        message = ("budget.floor is %g; a single call, with nothing else going on, got no further than " ..
            "%s, for the budget was empty"):format(floor, count(lone.attempts.median, "attempt")),
    })
end

local function check_never_gives_up(lab, add)
    local lone = lab:lone("read", "serialization")
    local denied = lone.pools.attempts.denied_max
    if denied == 0 then return end
    add("never_gives_up", "warning", {
        knob = "retry", measured = lone.attempts.most, limit = lone.attempts.most - 1,
        message = ("after %s the retry function still asked for another; retries_max ended it"):format(
            count(lone.attempts.most, "attempt")),
    })
end

local function check_unknown(lab, add)
    local lone = lab:lone("write", "lost")
    local denied = lone.pools.attempts.denied_unsafe
    if denied == 0 then return end
    add("repeats_unknown", "warning", {
        knob = "retry", measured = denied,
        message = ("of %d writes whose answer was lost the retry function asked to repeat %d; each may " ..
            "have been committed, so the engine refused. Look at failure.safe, or " ..
            "failure.idempotent"):format(lone.count,
            denied),
    })
end

-- ---- time -------------------------------------------------------------------------------------------------

local function check_connect_timeout(lab, add)
    local connect_timeout = lab:knob "connect_timeout"
    if connect_timeout < lab.timeout then return end
    local lone = lab:lone("read", "silent")
    if lone.attempts.most > 1 then return end
    add("connect_timeout_above_timeout", "warning", {
        knob = "connect_timeout", value = connect_timeout, limit = lab.timeout, measured = lone.seconds.most,
        message = ("connect_timeout is %s; one connect that nobody answered took all of the call's %s, " ..
            "and no second one was tried"):format(seconds(connect_timeout), seconds(lone.seconds.most)),
    })
end

-- Where weir.open chose the length, those who wait in vain are those who could not have been served anyway,
-- unless the ones who are served have waited long too.
local function check_queue(lab, add)
    local slow = lab:situation "slow"
    local waited = math.min(slow.pools.refused.acquire, slow.ended_as.timeout or 0)
    local said = lab.setting.given.clients[lab.setting.client].queue_max ~= nil
    if waited <= slow.arrived / 100 or not said and slow.usual < lab.timeout / 2 then return end
    local knob = ("clients.%s.queue_max"):format(lab.setting.client)
    local client = lab.setting.given.clients[lab.setting.client]
    local most = client.queue_max or 10 * lab.max
    add("queue_outlasts_timeout", "warning", {
        knob = knob, value = most, limit = slow.waiting, measured = waited,
        message = ("%s is %d; with the server %.3g times as slow, %d of %d calls waited " ..
            "out their timeout of %s for a connection they never got, and half of those that ended well " ..
            "took more than %s"):format(knob, most, lab:slowness(), waited, slow.arrived,
            seconds(lab.timeout), seconds(slow.usual)),
    })
end

local function check_slow_call(lab, add)
    local slow_call = lab:knob "breaker.slow_call"
    if slow_call <= 0 or slow_call < lab.timeout then return end
    local crawl = lab:crawl()
    if crawl.slow > 0 then return end
    add("slow_call_above_timeout", "warning", {
        knob = "breaker.slow_call", value = slow_call, limit = lab.timeout, measured = crawl.longest,
        message = ("breaker.slow_call is %s and timeout %s: %d calls of up to %s were made, and none " ..
            "counted as slow"):format(
            seconds(slow_call), seconds(lab.timeout), crawl.calls, seconds(crawl.longest)),
    })
end

local function check_caller(lab, add)
    local limit = lab.setting.about.caller_timeout
    if not limit then return end
    local longest, worst = 0, nil
    for _, kind in ipairs(Lab.kinds) do
        local s = lab:situation(kind)
        if s.longest > longest then longest, worst = s.longest, kind end
    end
    if longest <= limit then return end
    add("timeout_above_caller", "warning", {
        knob = "timeout", value = lab.timeout, limit = limit, measured = longest,
        message = ("timeout is %s; with the server %s a call took %s, and its caller waits only %s: " ..
            "nobody hears the answer, and what was done for it is lost"):format(
            seconds(lab.timeout), worst, seconds(longest),
            seconds(limit)),
    })
end

-- ---- the rest ---------------------------------------------------------------------------------------------

local function check_connections(lab, add)
    local about, wanted = lab.setting.about, lab:connections_wanted()
    if wanted <= about.connections then return end
    local refused = lab:full_house().refused
    if refused == 0 then return end
    add("connections_above_server", "error", {
        knob = "clients.*.max", value = wanted, limit = about.connections, measured = refused,
        message = ("the pools of %s may hold %d connections and the server has %d: with all of them " ..
            "busy %s refused")
            :format(count(about.engines, "engine"), wanted, about.connections,
            refused == 1 and "1 connect was" or refused .. " connects were"),
    })
end

-- Last, for it looks at whatever has been run.
local function check_policy_faults(lab, add)
    local faults, why = 0, nil
    for _, name in ipairs(lab.order) do
        local kept = lab.kept[name]
        local pools = kept.pools or kept.seen and kept.seen.pools
        if pools and pools.events.policy_faults > 0 then
            faults = faults + pools.events.policy_faults
            why = why or pools.off
        end
    end
    if faults == 0 then return end
    add("policy_fails", "error", {
        knob = why and why:match "^%w+" or "policy", measured = faults,
        message = ("a function of the policy failed %s, and the built-in one answered instead: %s"):format(
            faults == 1 and "once" or faults .. " times", why or "no reason was kept"),
    })
end

local checks = {
    check_calm, check_reuse, check_noise, check_opens, check_opens_when_frozen, check_window, check_probe,
    check_permits, check_overload, check_recovery, check_fit, check_cap, check_jitter, check_budget_for_one,
    check_never_gives_up, check_unknown, check_connect_timeout, check_queue, check_slow_call, check_caller,
    check_connections, check_policy_faults,
}

--- What an operator should know of before the night: a list of { code, severity ("warning" or "error"), knob,
-- value, limit, message, measured }, each with tostring; empty if there is nothing. See weir.explain for the
-- arguments.
return function(policy, about)
    local lab = Lab.new("lint", policy, about)
    local findings = setmetatable({}, Findings)
    local function add(code, severity, fields)
        fields.code, fields.severity = code, severity
        findings[#findings + 1] = setmetatable(fields, Finding)
    end
    for _, check in ipairs(checks) do check(lab, add) end
    return findings
end
