--- The load of a scenario on its engines: core.load made from the plan, and the calls that are the
-- operator's own work. Knows nothing of the time it runs in, so a run in virtual time and one against a
-- real server share it:
--
--     traffic = traffic.start(plan, engines, tally, { seed = 7, keep_outcomes = bool })
--     traffic:due(), traffic:run()   -- if nobody else turns the loads: seconds to the next arrival, or nil
--     traffic:open()                 -- requests that have not ended
--     traffic:oldest()               -- when the oldest of them arrived
--     traffic:stuck()                -- work functions that have not ended: { { context, where, count } }
--     traffic:faults()               -- what work functions raised by mistake: { "FILE:LINE: ..." }
--     traffic:misuse()               -- why the engine would not take a call: a mistake in the scenario
--     traffic:outcomes()             -- with keep_outcomes: the outcome of those that write, by their numbers
--     traffic:stop()                 -- ends what is under way; before the engines are closed

local core = require "weir.core"
local errors = require "weir.errors"
local json = require "weir.json"
local loop = require "weir.loop"
local place = require "weir.scenario.place"

local traffic = {}

local Traffic = {}
Traffic.__index = Traffic

-- Traffic with calls of the operator's own, for the loop to ask when some have arrived.
local active = {}

-- ---- work
-- -------------------------------------------------------------------------------------------------

local FAULTS_MAX = 5

local function text_of(raised)
    local ok, text = pcall(tostring, raised)
    return ok and text or "an error object without a text"
end

local function note_fault(self, call, raised)
    self.faults_seen = self.faults_seen + 1
    if #self.fault_list >= FAULTS_MAX then return end
    local text = ("%s: work of %q raised an error of its own: %s"):format(place.of_function(call.work):text(),
        call.context, text_of(raised))
    if self.faults_told[text] then return end
    self.faults_told[text] = true
    self.fault_list[#self.fault_list + 1] = text
end

-- How a work function ended, in the words of the tally: nil, or an error.
local function verdict(self, call, ok, value, err)
    if not ok then
        if errors.is(value) then return value end
        note_fault(self, call, value)
        return errors.new("server_error", text_of(value), { outcome = "unknown" })
    end
    if value == nil and errors.is(err) then return err end
    return nil
end

local function work(self, entry, call, number)
    local err = verdict(self, call, pcall(call.work, entry.db, number))
    self.running[number] = nil
    if not self.stopped then entry.load:settle(number, err, err and err.attempts or 1) end
end

local function take_arrivals(self)
    for _, entry in ipairs(self.entries) do
        local index, number = entry.load:take()
        while index do
            local call = self.plan.calls[index]
            local task = loop.spawn_daemon(work, self, entry, call, number)
            self.running[number] = { task = task, call = call }
            index, number = entry.load:take()
        end
    end
end

-- The loop asks when a load has handed out something.
function loop.on_arrival()
    for _, one in ipairs(active) do take_arrivals(one) end
end

-- ---- the loads
-- --------------------------------------------------------------------------------------------

local function claims_text(call)
    if type(call.claims) ~= "table" then return call.claims end
    local text, why = json.encode(call.claims)
    if not text then call.where:at("claims"):wrong("cannot be written as JSON: %s", why) end
    return text
end

-- A call of the plan as core.load takes it.
local function call_options(call)
    return {
        client = call.client, context = call.context, claims = claims_text(call), backend = call.backend,
        sql = call.sql, values = call.values, weight = call.weight, unit = call.unit, writes = call.writes,
        readonly = call.readonly, idempotent = call.idempotent, timeout = call.timeout,
            isolation = call.isolation,
        custom = call.work ~= nil or nil,
    }
end

local function load_options(plan, share, seed, options)
    local calls = {}
    for i, call in ipairs(plan.calls) do calls[i] = call_options(call) end
    share.calls = calls
    share.caller_retries = plan.caller_retries
    share.caller_pause = plan.caller_pause
    share.seed = seed
    share.numbers = options.numbers
    share.keep_outcomes = options.keep_outcomes
    return share
end

-- A sentence of the load names the call by its place and the field; both can be found in the file.
local function blame(plan, why)
    local place_in_list, field = why:match("^calls%[(%d+)%]%.?([%w_]*)")
    local call = plan.calls[tonumber(place_in_list)]
    local spot = call and call.where or plan.load_where
    if call and field ~= "" then spot = spot:at(field) end
    spot:fail("load: %s", why)
end

local function begin(self, db, arrival, index, options)
    local plan = self.plan
    local share = arrival:share(plan.engines, index, plan.duration)
    if share.users == 0 and #share.rates == 0 and #share.bursts == 0 then return end
    local seed = (options.seed or 1) * 1009 + #self.entries + 1
    local load, why = core.load(db.core, self.tally, load_options(plan, share, seed, options))
    if not load then blame(plan, why) end
    self.entries[#self.entries + 1] = { load = load, db = db }
end

--- Starts the load on the engines, each with its share. Moments of the plan are counted from now.
function traffic.start(plan, engines, tally, options)
    options.numbers = core.numbers()
    local self = setmetatable({
        plan = plan, tally = tally, entries = {}, running = {}, fault_list = {}, faults_told = {},
            faults_seen = 0,
    }, Traffic)
    local ok, why = pcall(function()
        for index, db in ipairs(engines) do
            for _, arrival in ipairs(plan.arrivals) do begin(self, db, arrival, index, options) end
        end
    end)
    if not ok then
        self:stop()
        error(why, 0)
    end
    active[#active + 1] = self
    return self
end

-- ---- turning and looking
-- ----------------------------------------------------------------------------------

-- The least that any of the loads answers to this question; nil if none has an answer.
local function least_of(self, question)
    local least
    for _, entry in ipairs(self.entries) do
        local answer = entry.load[question](entry.load)
        if answer and (not least or answer < least) then least = answer end
    end
    return least
end

function Traffic:due()
    return least_of(self, "due")
end

function Traffic:run()
    for _, entry in ipairs(self.entries) do entry.load:run() end
end

function Traffic:open()
    local count = 0
    for _, entry in ipairs(self.entries) do count = count + entry.load:open() end
    return count
end

function Traffic:oldest()
    return least_of(self, "oldest")
end

--- What the engine said of a call that it would not take, or nil.
function Traffic:misuse()
    for _, entry in ipairs(self.entries) do
        local why = entry.load:misuse()
        if why then return why end
    end
    return nil
end

function Traffic:outcomes()
    local all = {}
    for _, entry in ipairs(self.entries) do
        for number, outcome in pairs(entry.load:outcomes()) do all[number] = outcome end
    end
    return all
end

function Traffic:stuck()
    local numbers, by_call, list = {}, {}, {}
    for number in pairs(self.running) do numbers[#numbers + 1] = number end
    table.sort(numbers)
    for _, number in ipairs(numbers) do
        local one = self.running[number]
        local entry = by_call[one.call]
        if not entry then
            local where = place.of_thread(one.task.thread) or place.of_function(one.call.work)
            entry = { context = one.call.context, count = 0, where = where }
            by_call[one.call], list[#list + 1] = entry, entry
        end
        entry.count = entry.count + 1
    end
    return list
end

function Traffic:faults()
    return self.fault_list, self.faults_seen
end

local function forget(self)
    for i = #active, 1, -1 do
        if active[i] == self then table.remove(active, i) end
    end
end

--- Ends what is under way. Work functions that wait hear of it as an error.
function Traffic:stop()
    forget(self)
    self.stopped = true
    local numbers = {}
    for number in pairs(self.running) do numbers[#numbers + 1] = number end
    table.sort(numbers)
    for _, number in ipairs(numbers) do self.running[number].task:cancel() end
    for _, entry in ipairs(self.entries) do entry.load:free() end
    self.entries = {}
end

return traffic
