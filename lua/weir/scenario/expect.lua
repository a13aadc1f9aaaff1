--- What a scenario expects of its outcome: s.goodput, s.latency, s.opens, s.recovers and so on. An
-- expectation has `where` and verify(figures, report), which gives true, or false and a sentence.

local check = require "weir.scenario.check"
local measure = require "weir.scenario.measure"
local place = require "weir.scenario.place"
local series = require "weir.scenario.series"
local wording = require "weir.scenario.wording"

local expect = {}

local Expectation = {}
Expectation.__index = Expectation

local words = {}
expect.words = words

local function of_phase(noun, phase)
    if phase == nil then return noun .. " of the whole run" end
    return ("%s of phase %q"):format(noun, phase)
end

local function check_phase(spot, phase)
    if phase ~= nil and type(phase) ~= "string" then
        spot:fail("%s: the phase is %s; it must be the name of one, or left out for the whole run",
            spot.title, check.shown(phase))
    end
end

local function when(window)
    return ("%s-%s s"):format(wording.moment(window.from), wording.moment(window.to))
end

-- What a window is called: runs of more than half an hour have wider ones.
local function span(figures)
    return figures.window == 1 and "second" or wording.moment(figures.window) .. " s,"
end

-- ---- requests
-- ---------------------------------------------------------------------------------------------

local function goodput(phase)
    return function(figures)
        local counts = figures:counts_of(phase)
        if counts.arrived == 0 then return nil, "no request arrived" end
        local text = ("(%s of %s)"):format(wording.count(counts.ok), wording.several(counts.arrived,
            "request"))
        local from, to = figures:span_of(phase)
        local worst = series.worst(figures.windows, from, to, "share")
        if worst and worst.share < 1 then
            text = ("%s; worst %s %s: %s"):format(text, span(figures), when(worst),
                wording.share(worst.share))
        end
        return counts.ok / counts.arrived, text
    end
end

--- The share of the requests that arrived in the phase and ended well, 0 to 1.
function words.goodput(phase)
    local spot = place.here("s.goodput")
    check_phase(spot, phase)
    return measure.new(spot, of_phase("goodput", phase), goodput(phase), wording.share,
        { phase = phase, most = 1 })
end

--- The time in seconds within which the share q of the phase's successful requests had ended:
-- s.latency("after", 0.99).
function words.latency(phase, q)
    local spot = place.here("s.latency")
    check_phase(spot, phase)
    if type(q) ~= "number" or not (q > 0 and q <= 1) then
        spot:fail("s.latency: the quantile is %s; it must be a number above 0, at most 1, like 0.99",
            check.shown(q))
    end
    local noun = of_phase(("latency (%s %%)"):format(wording.number(q * 100)), phase)
    return measure.new(spot, noun, function(figures)
        local counts = figures:counts_of(phase)
        if counts.ok == 0 then return nil, "no request ended well" end
        local from, to = figures:span_of(phase)
        local worst = series.worst(figures.windows, from, to, "latency_p95")
        local text = worst and worst.latency_p95 > 0 and
            ("; slowest %s %s: about %s"):format(span(figures), when(worst),
                wording.seconds(worst.latency_p95)) or ""
        return figures:quantile(phase, q), ("(%s)%s"):format(wording.several(counts.ok, "success",
            "successes"), text)
    end, wording.seconds, { phase = phase })
end

--- Attempts per request that ended: retries of the policy and of the caller included; a refusal counts as
-- one.
function words.amplification(phase)
    local spot = place.here("s.amplification")
    check_phase(spot, phase)
    return measure.new(spot, of_phase("retry amplification", phase), function(figures)
        local counts = figures:counts_of(phase)
        local ended = counts.ok + counts.failed
        if ended == 0 then return nil, "no request ended" end
        return counts.attempts / ended, ("(%s for %s)"):format(wording.several(counts.attempts, "attempt"),
            wording.several(ended, "request"))
    end, wording.number, { phase = phase })
end

--- The longest time in seconds any request took, well or not, from its arrival to its end.
function words.longest_call()
    return measure.new(place.here("s.longest_call"), "the longest call", function(figures)
        local longest = figures.whole.latency_max
        local waited = figures.oldest and figures.ended - figures.oldest or 0
        if waited > longest then
            return waited, ("(arrived at %s s, and has not ended)"):format(wording.moment(figures.oldest))
        end
        local worst = series.worst(figures.windows, 0, figures.ended, "latency_max")
        return longest, worst and worst.latency_max > 0 and ("(ended at %s)"):format(when(worst)) or nil
    end, wording.seconds)
end

local function counted(word, key, noun)
    words[word] = function(phase)
        local spot = place.here("s." .. word)
        check_phase(spot, phase)
        return measure.new(spot, of_phase(noun, phase), function(figures)
            local counts = figures:counts_of(phase)
            local from, to = figures:span_of(phase)
            local worst = series.worst(figures.windows, from, to, key)
            local text = ("of %s"):format(wording.several(counts.arrived, "request"))
            if worst and worst[key] > 0 then
                text = ("%s; most in %s %s: %s"):format(text, span(figures), when(worst),
                    wording.count(worst[key]))
            end
            return counts[key], text
        end, wording.count, { phase = phase })
    end
end

counted("failed", "failed", "failed requests")
counted("refused", "refused", "refused requests")
counted("timed_out", "timed_out", "requests that met their deadline")
counted("unknown", "unknown", "requests with an unknown outcome")

-- ---- servers
-- ----------------------------------------------------------------------------------------------

-- How a figure is read for a phase: as growth of a counter, as a peak, or as the fastest growth in a
-- second. For the whole run the server's own count is exact.
local server_figures = {
    connects = { "growth" }, connects_refused = { "growth" }, statements = { "growth" },
        commits = { "growth" },
    rollbacks = { "growth" }, cancels = { "growth" }, writes = { "growth" }, busy = { "growth" },
    wasted = { "growth" },
    sessions = { "peak", whole = "sessions_max" }, waiting = { "peak", whole = "waiting_max" },
    running = { "peak" },
    connects_in_a_second = { "fastest", of = "connects", whole = "connects_in_a_second_max" },
    statements_in_a_second = { "fastest", of = "statements" },
}
local maxima = {
    sessions_max = "sessions", waiting_max = "waiting", connects_in_a_second_max = "connects_in_a_second",
}

local function server_value(figures, name, figure, phase)
    local spec = server_figures[figure]
    local samples = figures.samples[name]
    local from, to = figures:span_of(phase)
    if not phase then to = figures.ended end
    local kind, key = spec[1], spec.of or figure
    if kind == "growth" then
        if not phase then return figures.servers[name][key] end
        return series.growth(samples, from, to, key)
    end
    local value, at
    if kind == "peak" then
        value, at = series.peak(samples, from, to, key)
    else
        value, at = series.fastest(samples, from, to, key, figures.window)
    end
    if not phase and spec.whole then value = math.max(value, figures.servers[name][spec.whole]) end
    return value, ("(at %s s)"):format(wording.moment(at))
end

--- A figure of a simulated server: connects, connects_refused, statements, commits, rollbacks, cancels,
-- writes, busy and wasted (seconds), sessions, waiting, running (most at once), connects_in_a_second,
-- statements_in_a_second (most).
function words.server(name, figure, phase)
    local spot = place.here("s.server")
    check_phase(spot, phase)
    if type(name) ~= "string" then
        spot:fail("s.server takes the name of a server and of a figure; the first is %s", check.shown(name))
    end
    figure = maxima[figure] or figure
    if not server_figures[figure] then
        spot:fail("s.server: there is no figure %s%s", check.shown(figure),
            check.hint(figure, check.names(server_figures)))
    end
    local noun = ("%s of server %s%s"):format(figure:gsub("_", " "), name,
        phase and (" in phase %q"):format(phase) or "")
    return measure.new(spot, noun, function(figures)
        return server_value(figures, name, figure, phase)
    end, wording.number, { phase = phase, server = name, figure = figure })
end

-- ---- the breaker
-- ------------------------------------------------------------------------------------------

local function expectation(spot, verify, needs)
    return setmetatable({ where = spot, verify = verify, needs = needs or {} }, Expectation)
end

local function first_move(figures, to, after, pool)
    for _, move in ipairs(figures.moves) do
        if move.to == to and move.at >= after - 1e-9 and (not pool or move.pool == pool) then return move end
    end
    return nil
end

local function moves_text(figures, pool)
    local list = {}
    for _, move in ipairs(figures.moves) do
        if not pool or move.pool == pool then
            list[#list + 1] = ("%s %s at %s s"):format(move.pool, move.to, wording.moment(move.at))
        end
        if #list == 6 then
            list[#list + 1] = "..."
            break
        end
    end
    return #list == 0 and "it never moved" or "its moves: " .. table.concat(list, ", ")
end

local function check_within(spot, options)
    if type(options) == "table" and next(options) ~= nil then return end
    spot:fail("%s says no time: %s { within = 10 }, in seconds", spot.title, spot.title)
end

-- A pool that no engine has never moves, which would be told as a breaker that did not.
local function unknown_pool(figures, pool)
    local names = pool and figures.pools or {}
    for _, name in ipairs(names) do
        if name == pool then return nil end
    end
    return #names > 0 and ("there is no pool '%s'%s"):format(pool, check.hint(pool, names)) or nil
end

local move_keys = { within = true, after = true, pool = true }

local function moves_to(word, state, verb, default)
    words[word] = function(options)
        local spot = place.here("s." .. word)
        check_within(spot, options)
        check.keys(spot, options, move_keys)
        check.number(spot:at "within", options.within, 0)
        if options.after ~= nil then check.number(spot:at "after", options.after, 0) end
        if options.pool ~= nil then check.type(spot:at "pool", options.pool, "string") end
        local function verify(self, figures)
            local after = options.after or self[default] or 0
            local unknown = unknown_pool(figures, options.pool)
            if unknown then return false, unknown end
            local move = first_move(figures, state, after, options.pool)
            if move and move.at - after <= options.within + 1e-9 then return true end
            local which = options.pool and "the breaker of " .. options.pool or "a breaker"
            local sentence = ("%s should %s within %s after %s s"):format(which, verb,
                wording.seconds(options.within), wording.moment(after))
            if not move then
                return false, ("%s, but did not until the end; %s"):format(sentence, moves_text(figures,
                    options.pool))
            end
            return false, ("%s, did after %s (%s, at %s s)"):format(sentence,
                wording.seconds(move.at - after),
                move.pool, wording.moment(move.at))
        end
        return expectation(spot, verify, { after = options.after, after_key = default })
    end
end

--- A breaker opens within so many seconds after a moment (the beginning of the trouble, if left out);
-- `pool` names one.
moves_to("opens", "OPEN", "open", "trouble_from")
--- A breaker closes again, likewise (after the end of the trouble).
moves_to("closes", "CLOSED", "close", "trouble_to")

-- The pool whose breaker stands open at that moment, or nil.
local function open_at(figures, moment)
    local state, pools = {}, {}
    for _, move in ipairs(figures.moves) do
        if move.at < moment then
            if not state[move.pool] then pools[#pools + 1] = move.pool end
            state[move.pool] = move.to
        end
    end
    for _, pool in ipairs(pools) do
        if state[pool] == "OPEN" then return pool end
    end
end

--- No breaker opens in the phase, or stands open as it begins; or none ever.
function words.never_opens(phase)
    local spot = place.here("s.never_opens")
    check_phase(spot, phase)
    return expectation(spot, function(_, figures)
        local from, to = figures:span_of(phase)
        local before = open_at(figures, from)
        if before then
            return false, ("no breaker should open in phase %q, but that of %s stood open as it began")
                :format(phase, before)
        end
        local move = first_move(figures, "OPEN", from)
        if not move or phase and move.at >= to then return true end
        return false, ("no breaker should open%s, but that of %s did at %s s"):format(
            phase and (" in phase %q"):format(phase) or "", move.pool, wording.moment(move.at))
    end, { phase = phase })
end

local recovers_keys = { within = true, after = true, to = true }

--- From some moment within so many seconds after `after` (the end of the trouble, if left out), the share
-- of requests that end well stays at `to` (0.95) or above in every second.
function words.recovers(options)
    local spot = place.here("s.recovers")
    check_within(spot, options)
    check.keys(spot, options, recovers_keys)
    check.number(spot:at "within", options.within, 0)
    if options.after ~= nil then check.number(spot:at "after", options.after, 0) end
    local least = options.to or 0.95
    check.number(spot:at "to", least, 0, 1)
    local function verify(self, figures)
        local after = options.after or self.trouble_to
        local since, worst = series.recovered(figures.buckets, after, figures.duration, figures.window,
            figures.ended,
            least)
        if since and since - after <= options.within + 1e-9 then return true end
        local sentence = ("at least %s of the requests should end well again within %s after %s s"):format(
            wording.share(least), wording.seconds(options.within), wording.moment(after))
        local low = worst and (" (worst %s %s: %s)"):format(span(figures), when(worst),
            wording.share(worst.share)) or ""
        if not worst then return false, sentence .. ", but none arrived after that" end
        if not since then
            return false, ("%s, but they did not until the end of the load, %s s%s"):format(sentence,
                wording.moment(figures.duration), low)
        end
        return false, ("%s, did after %s, at %s s%s"):format(sentence, wording.seconds(since - after),
            wording.moment(since), low)
    end
    return expectation(spot, verify, { after = options.after, after_key = "trouble_to", needs_after = true })
end

-- ---- what must never happen
-- -------------------------------------------------------------------------------

local function stuck_text(figures)
    local stuck = figures.stuck or {}
    local first = stuck[1]
    if not first then return "" end
    return ("; %s of %q, the oldest waiting at %s"):format(wording.several(first.count, "call"),
        first.context,
        first.where:text())
end

local function judge_lost(most, figures)
    local open, lost = figures.open or 0, figures.books and figures.books.lost or 0
    if open + lost <= most then return true end
    local parts = {}
    if open > 0 then
        parts[#parts + 1] = ("%s had not ended %s s after the last arrival, the oldest from %s s%s"):format(
            wording.several(open, "request"), wording.moment(figures.ended - figures.duration),
            wording.moment(figures.oldest or 0), stuck_text(figures))
    end
    if lost > 0 then
        parts[#parts + 1] = wording.several(lost, "write") .. " reported as committed " ..
            (lost == 1 and "is" or "are") .. " not there"
    end
    return false, ("calls lost should be at most %d, were %d: %s"):format(most, open + lost,
        table.concat(parts, "; and "))
end

local function judge_twice(most, figures)
    local twice = figures.books and figures.books.twice or 0
    if twice <= most then return true end
    return false, ("calls executed twice should be at most %d, were %d"):format(most, twice)
end

local function judge_policy(most, figures)
    local faults = figures.policy_faults or { count = 0 }
    if faults.count <= most then return true end
    local hook, reason = (faults.why or "a function: no reason was kept"):match "^([^:]*): (.*)$"
    return false, ("policy: %s failed %s, and the built-in policy answered instead: %s%s"):format(hook,
        wording.several(faults.count, "time"), reason,
        faults.off and "; too many in a row (policy_faults): from then on no function of the policy was asked"
            or "")
end

local function never(word, judge)
    words[word] = function(most)
        local spot = place.here("s." .. word)
        check.whole(spot, most == nil and 0 or most, 0)
        local one = expectation(spot, function(_, figures) return judge(most or 0, figures) end)
        one.replaces = word
        return one
    end
end

--- At most so many requests have no end, or are committed for the caller and not for the database. Checked
-- with 0 in every scenario that does not say so.
never("calls_lost", judge_lost)
--- At most so many requests took effect more than once. Checked with 0 likewise.
never("executed_twice", judge_twice)

--- At most so many times a function of the policy fails, runs too long or gives nonsense. Checked with 0
-- likewise.
never("policy_faults", judge_policy)

local function judge_undead(_, figures)
    local undead = figures.books and figures.books.undead or 0
    if undead == 0 then return true end
    return false, ("%s reported as not committed %s there"):format(wording.several(undead, "write"),
        undead == 1 and "is" or "are")
end

--- What is checked in every scenario, said or not.
function expect.always(plan)
    local said = {}
    for _, one in ipairs(plan.expect) do
        if one.replaces then said[one.replaces] = true end
    end
    local out = {}
    for _, entry in ipairs {
        { "calls_lost", judge_lost, plan.where }, { "executed_twice", judge_twice, plan.where },
        { "undead", judge_undead, plan.where }, { "policy_faults", judge_policy, plan.policy_where },
    } do
        if not said[entry[1]] then
            out[#out + 1] = expectation(entry[3], function(_, figures) return entry[2](0, figures) end)
        end
    end
    return out
end

--- Whatever else: fn(report) gives true, or false and a sentence; `sentence` is said if it gives none.
function words.seen(fn, sentence)
    local spot = place.here("s.seen")
    check.type(spot, fn, "function")
    if sentence ~= nil then check.type(spot, sentence, "string") end
    return expectation(spot, function(_, _, report)
        local ok, fine, why = pcall(fn, report)
        if not ok then return false, "its function failed: " .. tostring(fine) end
        if fine then return true end
        return false, why or sentence or "is not so"
    end)
end

-- ---- reading the list
-- -------------------------------------------------------------------------------------

local function check_needs(one, plan)
    local needs = one.needs
    if needs.phase and not plan.phase_names[needs.phase] then
        one.where:fail("%s: there is no phase %q%s", one.where.title, needs.phase,
            check.hint(needs.phase, check.names(plan.phase_names)))
    elseif needs.server and not plan.server_names[needs.server] then
        one.where:fail("%s: there is no server %q%s", one.where.title, needs.server,
            check.hint(needs.server, check.names(plan.server_names)))
    elseif needs.after and needs.after >= plan.duration then
        one.where:fail("%s: after is %s, and the load ends at %s s", one.where.title,
            check.shown(needs.after),
            check.shown(plan.duration))
    elseif needs.needs_after and not needs.after and (plan.trouble_to or plan.duration) >= plan.duration then
        one.where:fail("%s: after is missing, and no fault has an end to count from", one.where.title)
    end
end

-- A copy that knows the plan: several scenarios may share an expectation.
local function bound_to(one, plan)
    local copy = {}
    for key, value in pairs(one) do copy[key] = value end
    copy.trouble_from, copy.trouble_to = plan.trouble_from, plan.trouble_to
    return setmetatable(copy, getmetatable(one))
end

--- Checks the expectations of a scenario against its plan.
function expect.read(spot, list, plan)
    return check.list(spot, list, "expectations", function(at, one)
        if measure.is(one) then
            if not one:complete() then
                one.where:fail("%s says no limit: add :at_least(n), :at_most(n), :between(a, b) or :is(n)",
                    one.where.title)
            end
        elseif getmetatable(one) ~= Expectation then
            at:wrong("is %s; it must be an expectation, such as s.goodput(\"after\"):at_least(0.99)",
                check.shown(one))
        end
        check_needs(one, plan)
        return bound_to(one, plan)
    end)
end

return expect
