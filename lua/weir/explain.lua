--- weir.explain(policy [, about]): what a policy does, in words and numbers, each measured by running it
-- (weir.lab).

local Lab = require "weir.lab"
local words = require "weir.words"

local count, percent, seconds = words.count, words.percent, words.seconds

local Explanation = { __name = "weir.explanation" }
Explanation.__index = Explanation

-- ---- figures ----------------------------------------------------------------------------------------------

local calls = { "read", "write", "idempotent" }
local faults = { "lost", "serialization", "timeout", "unreachable", "silent" }
local shares = { 0.1, 0.5, 1 }

local function share(part, whole)
    return whole > 0 and part / whole or 0
end

local function healthy(lab)
    local calm = lab:calm()
    return {
        good = calm.good, p99 = calm.p99, busy = calm.busy,
        statements_per_second = calm.statements_per_second,
        breaker_opened_after = calm.opened,
    }
end

local function one_situation(lab, kind)
    local s = lab:situation(kind)
    local ended = s.ended_as
    return {
        lasts = s.lasts, longest = s.longest, opened_after = s.opened_after,
        failed_before = s.failed_before_opening,
        good = share(s.ok, s.arrived),
        refused_by_breaker = share(ended.breaker_open or 0, s.arrived),
        refused_by_queue = share(ended.queue_full or 0, s.arrived),
        waited_in_vain = share(s.pools.refused.acquire, s.arrived),
        timed_out = share(ended.timeout or 0, s.arrived),
        factor = kind == "slow" and lab:slowness() or nil,
        waiting = s.waiting, let_in_after = s.let_in_after, recovered_after = s.recovered_after,
        watched = s.watched,
    }
end

local function situations(lab)
    local all, worst = {}, nil
    for _, kind in ipairs(Lab.kinds) do
        all[kind] = one_situation(lab, kind)
        if kind == "frozen" then
            all[kind].longest = math.max(all[kind].longest, lab:lone("read", "timeout").seconds.most)
        end
        if not worst or all[kind].longest > all[worst].longest then worst = kind end
    end
    return all, { seconds = all[worst].longest, situation = worst }
end

local function attempts(lab)
    local all = {}
    for _, call in ipairs(calls) do
        all[call] = {}
        for _, fault in ipairs(faults) do
            local made = lab:lone(call, fault).attempts
            all[call][fault] = { least = made.least, most = made.most }
        end
    end
    return all
end

local function extent(list, key)
    local least, most
    for _, one in ipairs(list) do
        local value = one[key]
        if value then
            least = least and math.min(least, value) or value
            most = most and math.max(most, value) or value
        end
    end
    return least and { least = least, most = most } or nil
end

local function coming_back(lab)
    local list, normal = lab:outages(), lab:calm().statements_per_second
    local never = 0
    for _, one in ipairs(list) do
        if not one.recovered_after then never = never + 1 end
    end
    local statements = extent(list, "statements_in_a_second").most
    return {
        outages = { least = list[1].lasts, most = list[#list].lasts, count = #list },
        let_in_after = extent(list, "let_in_after"), recovered_after = extent(list, "recovered_after"),
        never = never, watched = list[#list].watched,
        connects_in_a_second = extent(list, "connects_in_a_second").most,
        statements_in_a_second = statements, of_normal = share(statements, normal),
    }
end

local function brownouts(lab)
    local list = {}
    for i, part in ipairs(shares) do
        local b = lab:brownout(part)
        list[i] = {
            share = part, good = b.good, amplification = b.amplification, peak_per_second = b.peak_per_second,
            opened_after = b.opened_after,
            of_normal = share(b.statements_per_second, lab:calm().statements_per_second),
        }
    end
    return list
end

local function measure(lab)
    local setting = lab.setting
    local all, worst = situations(lab)
    return {
        about = setting.about, client = setting.client, pool = lab.max, timeout = lab.timeout,
        healthy = healthy(lab), situations = all, worst_call = worst, attempts = attempts(lab),
        pauses = lab:lone("read", "serialization").pauses, coming_back = coming_back(lab),
        brownouts = brownouts(lab),
    }
end

-- ---- words ------------------------------------------------------------------------------------------------

-- From the one to the other, or the one if they are alike.
local function range(of, say)
    local least, most = say(of.least), say(of.most)
    return least == most and least or least .. " to " .. most
end

local function number(value)
    return ("%.4g"):format(value)
end

local WIDTH, MARGIN = 100, 15

-- One paragraph under a title at the left, broken at spaces, but not between a number and its unit.
local function paragraph(lines, title, text)
    local line, lead = "", title .. (" "):rep(MARGIN - #title)
    text = text:gsub("(%d) (m?s)%f[%W]", "%1\1%2"):gsub("(%d) %%", "%1\1%%")
    for word in text:gmatch "%S+" do
        word = word:gsub("\1", " ")
        if #line > 0 and #line + 1 + #word > WIDTH - MARGIN then
            lines[#lines + 1] = lead .. line
            line, lead = "", (" "):rep(MARGIN)
        end
        line = line == "" and word or line .. " " .. word
    end
    lines[#lines + 1] = lead .. line
end

local function service_text(about)
    if type(about.service) == "number" then return seconds(about.service) end
    return ("%s on average (%s)"):format(seconds(about.service_mean), tostring(about.service.kind))
end

local function say_healthy(lines, f)
    local about, h = f.about, f.healthy
    paragraph(lines, "Surroundings", ("%s a second by client %s, whose pool has %s, in %s; a server " ..
        "with %s that takes %s for a statement."):format(
        count(about.rate, "call"), f.client, count(f.pool, "connection"),
        count(about.engines, "engine"), count(about.workers, "worker"), service_text(about)))
    paragraph(lines, "Healthy", ("%s of the calls end well, 99 of 100 within %s; the server " ..
        "is busy to %s.%s"):format(
        percent(h.good), seconds(h.p99), percent(h.busy),
        h.breaker_opened_after and " The breaker opens with nothing wrong!" or ""))
end

local function say_longest(lines, f)
    local parts = {}
    for _, kind in ipairs(Lab.kinds) do
        parts[#parts + 1] = ("%s %s"):format(kind, seconds(f.situations[kind].longest))
    end
    paragraph(lines, "Longest call", ("%s, with the server %s. By situation: %s."):format(
        seconds(f.worst_call.seconds),
        f.worst_call.situation, table.concat(parts, ", ")))
end

local fault_words = {
    lost = "answer lost", serialization = "always 40001", timeout = "server frozen",
    unreachable = "connect refused", silent = "connect hangs",
}

local function say_attempts(lines, f)
    local row = "%-17s%-9s%-9s%s"
    lines[#lines + 1] = ("Attempts" .. (" "):rep(MARGIN - 8) .. row):format("of one call", "read", "write",
        "idempotent write")
    for _, fault in ipairs(faults) do
        local cells = {}
        for i, call in ipairs(calls) do cells[i] = range(f.attempts[call][fault], number) end
        local format = (" "):rep(MARGIN) .. row
        lines[#lines + 1] = format:format(fault_words[fault], cells[1], cells[2], cells[3])
    end
end

local function say_pauses(lines, f)
    local parts = {}
    for i, pause in ipairs(f.pauses) do
        if i > 6 then break end
        parts[i] = ("%d. %s (half below %s)"):format(i, range(pause, seconds), seconds(pause.median))
    end
    if #f.pauses > 6 then
        local last = f.pauses[#f.pauses]
        parts[7] = ("... %d. %s"):format(#f.pauses, range(last, seconds))
    end
    paragraph(lines, "Pauses", #parts > 0 and table.concat(parts, ", ") .. "." or
        "none: nothing is tried again.")
end

local function say_breaker(lines, f)
    local parts = {}
    for _, kind in ipairs(Lab.kinds) do
        local s = f.situations[kind]
        parts[#parts + 1] = s.opened_after and ("%s: after %s and %s"):format(kind, seconds(s.opened_after),
            count(s.failed_before, "failed call")) or ("%s: not in %s"):format(kind, seconds(s.lasts))
    end
    paragraph(lines, "Breaker opens", table.concat(parts, "; ") .. ".")
    local down = f.situations.down
    if not down.opened_after then return end
    paragraph(lines, "", ("While the server is down for %s, %s of all calls are refused at once."):format(
        seconds(down.lasts), percent(down.refused_by_breaker)))
end

local function say_coming_back(lines, f)
    local c = f.coming_back
    local text = ("after outages of %s "):format(range(c.outages, seconds))
    if c.let_in_after then
        text = text .. ("the breaker lets calls in %s after the server is back. "):format(
            range(c.let_in_after, seconds))
    else
        text = text .. "no breaker has to let anybody in. "
    end
    if c.recovered_after then
        text = text .. ("Calls end well again after %s."):format(range(c.recovered_after, seconds))
    end
    if c.never > 0 then
        text = text .. (" After %d of %d outages they did not within %s!"):format(c.never, c.outages.count,
            seconds(c.watched))
    end
    paragraph(lines, "Coming back", text)
    paragraph(lines, "Load then", ("at most %s and %s in a second, which is %s times what is normal."):format(
        count(c.connects_in_a_second, "connect"), count(c.statements_in_a_second, "statement"),
        ("%.2f"):format(c.of_normal)))
end

local function say_brownouts(lines, f)
    for i, b in ipairs(f.brownouts) do
        paragraph(lines, i == 1 and "Brown-out" or "", ("%s of the statements fail: %s of the calls end " ..
            "well, with %s statements for each call; %s."):format(percent(b.share), percent(b.good),
            ("%.2f"):format(b.amplification),
            b.opened_after and ("the breaker opens after %s"):format(seconds(b.opened_after)) or
            "the breaker stays closed"))
    end
end

local function say_queue(lines, f)
    local slow = f.situations.slow
    paragraph(lines, "Queue", ("with the server %s times as slow, %s of the calls end " ..
        "well; %s are refused since the queue is full (at most %s waiting), %s by the breaker, %s wait " ..
        "in vain for a connection."):format(
        number(slow.factor), percent(slow.good), percent(slow.refused_by_queue), number(slow.waiting),
        percent(slow.refused_by_breaker),
        percent(slow.waited_in_vain)))
end

--- Plain text for whoever is awake at three in the morning.
function Explanation:__tostring()
    local lines = {}
    for _, say in ipairs {
        say_healthy, say_longest, say_attempts, say_pauses, say_breaker, say_coming_back, say_brownouts,
        say_queue,
    } do
        say(lines, self)
    end
    return table.concat(lines, "\n")
end

--- What the policy does, as figures; tostring gives them in words. `policy` is the table that weir.open
-- takes, without backends and clients if need be, or a function that makes it; it is run as it is, but
-- for area and health.checks, which reach out into the real world. `about`, all optional: rate (calls a
-- second), service (of a statement: seconds or a distribution), workers and connections (of the server),
-- engines (programs that share the rate), outage (seconds), client (whose calls), caller_timeout,
-- caller_retries, seed.
return function(policy, about)
    return setmetatable(measure(Lab.new("explain", policy, about)), Explanation)
end
