--- The runs that weir.explain and weir.lint draw on, each made once, when its figures are first asked for.
--
--     local lab = Lab.new(surroundings.read("explain", policy, about))
--     lab:situation("down").opened_after

local errors = require "weir.errors"
local loop = require "weir.loop"
local sim = require "weir.sim"
local surroundings = require "weir.surroundings"
local trial = require "weir.trial"

local Lab = {}
Lab.__index = Lab

-- How many lone calls show how far the pauses spread.
local LONE = 16
-- As good as before: this share of what arrives ends well.
local GOOD = 0.95
-- Of how many lengths outages are tried, to meet the breaker's probe at different moments, and how much
-- longer the longest is: the slowest probe comes every 30 seconds.
local LENGTHS, LONGER = 10, 30

Lab.kinds = { "down", "frozen", "slow", "refusing" }

--- A laboratory for the policy; misuse raises, as weir.open would.
function Lab.new(what, policy, about)
    if sim.running() then
        errors.misusef("%s: it runs simulations of its own and cannot be called inside one", what)
    end
    local self = setmetatable({ setting = surroundings.read(what, policy, about), kept = {}, order = {} },
        Lab)
    self:try_open()
    return self
end

-- The policy is opened once; what weir.open finds wrong with it is told here, at the caller's line. The
-- rest is what an open engine tells of itself.
function Lab:try_open()
    local setting = self.setting
    local ok, found = pcall(trial.world, setting, trial.no_time, function()
        local opened, engine = pcall(trial.open, setting, setting.about.seed)
        if not opened then return { wrong = (tostring(engine):gsub("^weir: ", ""):gsub("\n.*", "")) } end
        local known = { pools = {} }
        for _, pool in ipairs(engine:stats().pools) do
            if pool.client == setting.client then known.max = pool.connections.max end
            known.pools[#known.pools + 1] = { name = pool.pool, max = pool.connections.max }
        end
        -- A unit of work knows what it has left: before it has begun that is the whole timeout.
        engine:client(setting.client, setting.claims):transaction("weir trial", function(tx)
            known.timeout = tx:remaining()
        end)
        engine:close()
        return known
    end)
    if not ok then error(found, 0) end
    if found.wrong then errors.misusef("%s: %s", setting.what, (found.wrong:gsub("^open: ", ""))) end
    self.max, self.timeout, self.pools = found.max, found.timeout or self:knob "timeout", found.pools
end

function Lab:knob(name)
    return surroundings.knob(self.setting, name)
end

-- Figures of `name`, made by make(self, ...) the first time.
function Lab:once(name, make, ...)
    if not self.kept[name] then
        self.kept[name] = make(self, ...)
        self.order[#self.order + 1] = name
    end
    return self.kept[name]
end

-- ---- times ------------------------------------------------------------------------------------------------

-- Before a trouble begins the breaker's window is full of good calls, as it is at night.
function Lab:warmth()
    local window = self:knob "breaker.window"
    local calls = self:knob "breaker.window_calls"
    if calls and calls > 0 then window = calls * self.setting.about.engines / self.setting.about.rate end
    return math.max(5, math.min(window + 1, 120))
end

-- A trouble lasts long enough for a call that began in it to end in it, unless that is a matter of hours.
function Lab:trouble()
    return math.max(self.setting.about.outage, math.min(self.timeout * 1.5 + 1, 900))
end

-- That many seconds in a row as good as before are a recovery; long enough for some calls to come.
function Lab:steady()
    return math.max(3, 10 / self.setting.about.rate)
end

-- How long after the end of a trouble the way back is watched.
function Lab:patience()
    return math.max(90, 5 * self:steady())
end

-- ---- a healthy server -------------------------------------------------------------------------------------

local function calm(self)
    local seconds = math.max(20, math.min(self:warmth() * 2, 120), 20 / self.setting.about.rate)
    local seen = trial.run(self.setting, { seconds = seconds })
    local counts = seen.counts
    return {
        seen = seen,
        arrived = counts.arrived,
        good = counts.arrived == 0 and 1 or counts.ok / counts.arrived,
        refused = counts.refused,
        p99 = seen.p99,
        statements_per_second = seen.servers.statements / seconds,
        connects_per_call = counts.arrived == 0 and 0 or seen.servers.connects / counts.arrived,
        busy = seen.servers.busy / (seconds * self.setting.about.workers * #self.setting.backends),
        opened = seen.moves[1] and seen.moves[1].at,
    }
end

--- Nothing is wrong.
function Lab:calm()
    return self:once("calm", calm)
end

-- ---- lone calls -------------------------------------------------------------------------------------------

local lone_faults = {
    lost = { kind = "reset", options = { phase = "before_answer", rate = 1 } },
    serialization = { sqlstate = "40001" },
    timeout = { kind = "freeze", options = {} },
    unreachable = { kind = "crash", options = {} },
    silent = { kind = "freeze", options = {}, cold = true }, -- no connection is there yet
}

local function spread(list)
    table.sort(list)
    return { least = list[1], median = list[math.floor((#list + 1) / 2)], most = list[#list] }
end

-- pauses[i]: before attempt i + 1, over all calls that made one. span: from the first attempt to the last.
local function pauses_of(calls)
    local pauses, spans = {}, {}
    for _, call in ipairs(calls) do
        local at = call.executions
        for i = 2, #at do
            pauses[i - 1] = pauses[i - 1] or {}
            table.insert(pauses[i - 1], at[i] - at[i - 1])
        end
        if #at > 0 then spans[#spans + 1] = at[#at] - at[1] end
    end
    for i, list in ipairs(pauses) do pauses[i] = spread(list) end
    return pauses, #spans > 0 and spread(spans) or nil
end

local function lone(self, call, fault)
    local spec = { call = call, count = LONE }
    for key, value in pairs(lone_faults[fault]) do spec[key] = value end
    local result = trial.lone(self.setting, spec)
    local attempts, seconds = {}, {}
    for i, one in ipairs(result.calls) do attempts[i], seconds[i] = one.attempts, one.seconds end
    local pauses, span = pauses_of(result.calls)
    return {
        attempts = spread(attempts), seconds = spread(seconds), pauses = pauses, span = span,
        pools = result.pools, count = #result.calls,
    }
end

--- Single calls on engines that have done nothing else. call: read, write, idempotent; fault: lost (the
-- answer is, with the connection), serialization (40001), timeout (the server freezes), unreachable, silent.
function Lab:lone(call, fault)
    return self:once(call .. " " .. fault, lone, call, fault)
end

-- ---- a load, and trouble ----------------------------------------------------------------------------------

-- How many times as slow a server is that can do half of what is asked of it, but still answers within a
-- quarter of the timeout whom it works for.
function Lab:slowness()
    local about = self.setting.about
    return math.max(2, math.min(2 * about.capacity / about.rate, self.timeout / 4 / about.service_mean))
end

local function faults_of(self, kind, at, lasts)
    if kind == "down" then return { { at = at, kind = "crash", options = { after = lasts } } } end
    if kind == "frozen" then return { { at = at, kind = "freeze", options = { lasts = lasts } } } end
    if kind == "slow" then
        return { { at = at, kind = "slow", options = { lasts = lasts, factor = self:slowness() } } }
    end
    return {
        { at = at, kind = "restart", options = { after = 0.001 } },
        { at = at, kind = "refuse", options = { lasts = lasts, sqlstate = "53300" } },
    }
end

-- Index of the last sample taken at or before `at`.
local function sample_before(samples, at)
    local index = #samples
    while index > 1 and samples[index].at > at + 1e-9 do index = index - 1 end
    return index
end

-- From `back` on: the first moment after which what arrives ends well for `steady` seconds, if there is one.
local function recovered_at(samples, back, steady)
    local first = sample_before(samples, back)
    for i = first, #samples do
        local j = i
        while samples[j] and samples[j].at < samples[i].at + steady - 1e-9 do j = j + 1 end
        local last = samples[j]
        if not last then return nil end
        local arrived = last.arrived - samples[i].arrived
        local well = last.ok - samples[i].ok
        if arrived > 0 and well >= GOOD * arrived and
            last.failed - samples[i].failed <= (1 - GOOD) * arrived + 1 then
            return samples[i].at
        end
    end
end

-- The first move into `state` at or after `from`.
local function first_move(moves, state, from)
    for _, move in ipairs(moves) do
        if move.to == state and move.at >= from - 1e-9 then return move.at end
    end
end

-- The most of a sample's counter in any one second from `from` on.
local function most_in_a_second(samples, key, from)
    local most, first = 0, sample_before(samples, from)
    for i = first, #samples do
        local j = i
        while samples[j + 1] and samples[j + 1].at <= samples[i].at + 1 + 1e-9 do j = j + 1 end
        most = math.max(most, samples[j][key] - samples[i][key])
    end
    return most
end

local function first_ok_after(samples, from)
    local before = samples[sample_before(samples, from)]
    for i = sample_before(samples, from) + 1, #samples do
        if samples[i].ok > before.ok then return samples[i].at end
    end
end

local function most_waiting(samples, from, to)
    local most = 0
    for _, taken in ipairs(samples) do
        if taken.at >= from and taken.at <= to then most = math.max(most, taken.waiting) end
    end
    return most
end

-- Calls that ended badly from `from` on until `to`, as told by the run's slices.
local function ended_badly(buckets, from, to)
    local count = 0
    for _, bucket in ipairs(buckets) do
        if bucket.from >= from - 0.05 and bucket.from < to then count = count + bucket.failed end
    end
    return count
end

local function let_in_in_vain(seen, opened, back)
    local first = seen.samples[sample_before(seen.samples, opened + 1)]
    local last = seen.samples[sample_before(seen.samples, back)]
    local again = first_move(seen.moves, "HALF_OPEN", opened)
    if not again or again >= back then return 0 end
    return math.max(0, last.admitted_badly - first.admitted_badly)
end

local function enough_after(back, patience, steady)
    return function(samples, last)
        if last.at < back + steady + 1 then return false end
        return last.at >= back + patience or recovered_at(samples, back, steady) ~= nil
    end
end

local function read_situation(kind, seen, from, back, steady)
    local opened = first_move(seen.moves, "OPEN", from)
    local during = seen.phases.during
    local let_in = opened and first_move(seen.moves, "HALF_OPEN", back)
    local recovered = recovered_at(seen.samples, back, steady)
    local ok_after = first_ok_after(seen.samples, back)
    return {
        kind = kind, seen = seen, lasts = back - from,
        longest = math.max(during.latency_max, seen.phases.before.latency_max),
        usual = during.usual, -- half of those that end well take no longer
        opened_after = opened and opened - from,
        failed_before_opening = opened and ended_badly(seen.buckets, from, opened),
        arrived = during.arrived, ok = during.ok, ended_as = during.ended_as, pools = seen.pools,
        let_in_after = let_in and let_in - back,
        first_ok_after = ok_after and ok_after - back,
        recovered_after = recovered and recovered - back,
        watched = seen.ended - back,
        connects_in_a_second = most_in_a_second(seen.samples, "connects", back),
        statements_in_a_second = most_in_a_second(seen.samples, "statements", back),
        waiting = most_waiting(seen.samples, from, back),
        breaker_calls = seen.extra.breaker_calls,
        -- Calls that were let in to find out that the trouble was not over.
        guinea_pigs = opened and let_in_in_vain(seen, opened, back),
    }
end

-- The most calls that a breaker has in its window while the trouble lasts, and what was before is forgotten.
local function look_at_breakers(run, last)
    local from, to = run.spec.phases[2].from, run.spec.phases[2].to
    local window = run.spec.phases[1].to -- the time to warm up
    run.extra.breaker_calls = run.extra.breaker_calls or 0
    if last.at < math.min(from + window, to - 1) or last.at > to then return end
    if last.at % 1 > 0.01 then return end -- once a second: it is read as text
    for _, engine in ipairs(run.engines) do
        for _, pool in ipairs(engine:stats().pools) do
            run.extra.breaker_calls = math.max(run.extra.breaker_calls, pool.breaker.calls)
        end
    end
end

local function situation(self, kind, lasts, look)
    local from = self:warmth()
    local back, patience = from + lasts, self:patience()
    local seen = trial.run(self.setting, {
        seconds = back + patience,
        faults = faults_of(self, kind, from, lasts),
        phases = {
            { name = "before", from = 0, to = from }, { name = "during", from = from, to = back },
            { name = "after", from = back, to = back + patience },
        },
        look = look,
        enough = enough_after(back, patience, self:steady()),
    })
    return read_situation(kind, seen, from, back, self:steady())
end

--- The load goes on while the servers are: down (crashed, and come back), frozen (they accept and do not
-- answer), slow (they can do half of what is asked, see slowness), refusing (every session is gone, and
-- there is no place for a new one).
function Lab:situation(kind)
    return self:once(kind, situation, kind, self:trouble(), look_at_breakers)
end

local function lengths(self)
    local list = {}
    for i = 1, LENGTHS do
        list[i] = situation(self, "down", self.setting.about.outage + LONGER * (i - 1) / LENGTHS)
    end
    return list
end

--- Outages of that length and longer ones, so that the server comes back at different moments between two
-- probes.
function Lab:outages()
    return self:once("outages", lengths)
end

-- ---- a part of all calls fails ----------------------------------------------------------------------------

-- As many workers as it takes not to hold anything up: what is measured is what would be asked of a server.
local function brownout(self, share)
    local lasts, from = math.max(20, 20 / self.setting.about.rate), self:warmth()
    local seen = trial.run(self.setting, {
        seconds = from + lasts,
        server = { workers = 100000, connections = 1000000 },
        faults = {
            { at = from, kind = "errors", options = { sqlstate = "53200", rate = share } },
        },
        phases = { { name = "during", from = from, to = from + lasts } },
    })
    local during = seen.phases.during
    local first = seen.samples[sample_before(seen.samples, from)]
    local last = seen.samples[sample_before(seen.samples, from + lasts)]
    local statements = last.statements - first.statements
    local opened = first_move(seen.moves, "OPEN", from)
    return {
        seen = seen,
        good = during.arrived == 0 and 1 or during.ok / during.arrived,
        statements_per_second = statements / lasts,
        peak_per_second = most_in_a_second(seen.samples, "statements", from),
        amplification = during.arrived == 0 and 0 or statements / during.arrived,
        opened_after = opened and opened - from,
    }
end

--- That share of all statements fails with an error that may be repeated (53200, out of memory).
function Lab:brownout(share)
    return self:once(("brownout %g"):format(share), brownout, share)
end

-- ---- what lint asks besides -------------------------------------------------------------------------------

local function probe(self)
    local setting = self.setting
    return trial.world(setting, trial.no_time, function(world)
        trial.each_server(world, setting, function(server) server:fault("freeze") end)
        local engine = trial.open(setting, setting.about.seed)
        local handle = engine:client(setting.client, setting.claims)
        local task = loop.spawn(function() return handle:query("weir trial", "select 1") end)
        local seconds
        while not seconds and world.clock() < 300 do
            loop.sleep(0.1)
            local events = trial.pool_stats({ engine }).events
            if events.connect_failed + events.probes_failed > 0 then seconds = world.clock() end
        end
        task:cancel()
        task:wait()
        engine:close()
        return { seconds = seconds or 300 }
    end)
end

--- How long it takes to find out that a frozen server does not answer: `seconds`.
function Lab:probe()
    return self:once("probe", probe)
end

local function look_at_half_open(run)
    local extra = run.extra
    extra.waiting = extra.waiting or 0
    for _, engine in ipairs(run.engines) do
        for _, pool in ipairs(engine:stats().pools) do
            local busy = pool.connections.connecting == 0 and pool.connections.busy >= pool.connections.max
            if pool.breaker.state == "HALF_OPEN" then
                extra.seen = true
                if busy then extra.waiting = math.max(extra.waiting, pool.connections.waiting) end
            end
        end
    end
end

local function half_open(self)
    local seen = trial.run(self.setting, {
        seconds = 40, step = 0.1, users = 3 * math.max(self:knob "breaker.half_open.permits", self.max),
        think = 0.05,
        server = { service = math.min(0.5, self.timeout / 8), workers = 100000 },
        faults = { { at = 2, kind = "crash", options = { after = 8 } } },
        look = look_at_half_open,
        enough = function(_, last)
            return last.at > 20
        end,
    })
    return { waiting = seen.extra.waiting, met = seen.extra.seen or false, pools = seen.pools }
end

--- More callers than permits stand before a breaker that is half-open: how many of those it let in found
-- every connection of the pool taken (`waiting`).
function Lab:half_open()
    return self:once("half open", half_open)
end

--- The most connections that all engines together may hold on one server.
function Lab:connections_wanted()
    local of, most = {}, 0
    for _, pool in ipairs(self.pools) do
        local backend = pool.name:match "@(.*)$"
        of[backend] = (of[backend] or 0) + pool.max
        most = math.max(most, of[backend])
    end
    return most * self.setting.about.engines
end

local function full_house(self)
    local setting, calls = self.setting, {}
    for i, name in ipairs(setting.clients) do
        local client = setting.given.clients[name]
        calls[i] = {
            client = name, context = "weir trial", sql = "select weir_trial()", weight = 1,
            claims = client.role ~= nil and '{"sub":"weir"}' or nil,
        }
    end
    local service = math.min(1, self.timeout / 4)
    local wanted = self:connections_wanted()
    local seen = trial.run(setting, {
        seconds = 8 * service, calls = calls, users = math.ceil(wanted / setting.about.engines) * 3 * #calls,
        server = { service = service, workers = 100000 },
    })
    return { refused = seen.servers.connects_refused, wanted = wanted }
end

--- Every pool of every engine is as full as it can be: `refused` connects, of `wanted` connections.
function Lab:full_house()
    return self:once("full house", full_house)
end

local function crawl(self)
    local seen = trial.run(self.setting, {
        seconds = self.timeout * 2, users = self.max, step = self.timeout / 20,
        server = { service = self.timeout * 0.9, workers = 100000 },
        enough = function(_, last) return last.ok >= 3 * self.max end,
    })
    return { slow = seen.pools.slow, calls = seen.counts.calls, longest = seen.counts.latency_max }
end

--- Every call takes nine tenths of the timeout: how many of them the breaker took for slow ones.
function Lab:crawl()
    return self:once("crawl", crawl)
end

return Lab
