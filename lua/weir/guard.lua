--- The guards by themselves, for anything a script calls: breaker, backoff, retry budget, limit, rate; and
-- weir.guard, which puts them around a function. Their decisions are made by the same C code that guards
-- PostgreSQL.

local core = require "weir.core"
local errors = require "weir.errors"
local limit = require "weir.limit"
local loop = require "weir.loop"
local runner = require "weir.runner"

local guard = {}

local function check_options(what, options)
    if type(options) ~= "table" then
        errors.misusef("%s: the options are a %s; they must be a table", what, type(options))
    end
    local clock = options.clock
    if clock ~= nil and type(clock) ~= "function" then
        errors.misusef("%s: clock is a %s; it must be a function that gives seconds", what, type(clock))
    end
    if options.name ~= nil and type(options.name) ~= "string" then
        errors.misusef("%s: name is a %s; it must be a string", what, type(options.name))
    end
    return clock
end

local function made(what, object, why)
    if not object then errors.misuse(what .. ": " .. why) end
    return object
end

-- ---- breaker ----------------------------------------------------------------------------------------------

local Breaker = { __name = "weir.breaker" }
Breaker.__index = Breaker
guard.Breaker = Breaker

local events = { transition = true, refused = true, rate_exceeded = true }

--- A breaker; the keys are those of weir.open's `breaker`, and `name`, `clock`, `initial`, `open_for` as a
-- function.
function guard.breaker(options)
    options = options or {}
    local clock = check_options("breaker", options)
    return setmetatable({
        name = options.name,
        clock = clock,
        core = made("breaker", core.breaker(options, clock and clock())),
        handlers = {},
        handler_faults = 0,
    }, Breaker)
end

local function now(self)
    return self.clock and self.clock()
end

-- A handler that raises must not take down the call it watches; the fault is counted and kept for snapshot().
local function emit(self, event, ...)
    for _, handler in ipairs(self.handlers[event] or {}) do
        local ok, err = pcall(handler, ...)
        if not ok then
            self.handler_faults = self.handler_faults + 1
            self.handler_error = tostring(err)
        end
    end
end

local function moved(self, event)
    if not event then return end
    emit(self, event.from == event.to and "rate_exceeded" or "transition", event)
end

--- Calls fn(event) whenever the breaker moves ("transition"), refuses ("refused"), or, in METRICS_ONLY,
-- passes a threshold for the first time ("rate_exceeded"). Returns the breaker.
function Breaker:on(event, fn)
    if not events[event] then
        errors.misusef("on(%s): the events are transition, refused and rate_exceeded", tostring(event))
    end
    if type(fn) ~= "function" then
        errors.misusef("on: the handler is a %s; it must be a function", type(fn))
    end
    self.handlers[event] = self.handlers[event] or {}
    table.insert(self.handlers[event], fn)
    return self
end

local function refusal_of(self, at)
    local snapshot = self.core:snapshot(at)
    local evidence = snapshot.evidence and snapshot.evidence.text or "held by an operator"
    local message = ("the breaker%s is %s"):format(self.name and " " .. self.name or "", snapshot.state)
    local wait = snapshot.retry_after ~= 0 and snapshot.retry_after or nil
    return errors.new("breaker_open", message, { class = "safe", retry_after = wait, evidence = evidence })
end

--- A permit to go on, or nil and a refusal (code, message, retry_after, evidence).
function Breaker:admit()
    local at = now(self)
    local permit, event = self.core:admit(at)
    moved(self, event)
    if permit then return permit end
    local refusal = refusal_of(self, at)
    emit(self, "refused", refusal)
    return nil, refusal
end

--- Gives the permit back: "success", "failure" or "neutral", after so many seconds; code is kept as evidence.
function Breaker:settle(permit, verdict, elapsed, code)
    if code ~= nil and type(code) ~= "string" then
        errors.misusef("settle: the code is a %s; it must be a string", type(code))
    end
    local done, event = self.core:settle(permit, verdict, elapsed or 0, code, now(self))
    if not done then errors.misuse("settle: " .. event) end
    moved(self, event)
end

--- CLOSED, OPEN, HALF_OPEN, FORCED_OPEN, FORCED_CLOSED, DISABLED or METRICS_ONLY. Time alone may have moved
-- it.
function Breaker:state()
    moved(self, self.core:tick(now(self)))
    return self.core:state(now(self))
end

--- "open", "closed", "disabled", "metrics_only", or nil to end forcing with a fresh window.
function Breaker:force(state)
    local done, event = self.core:force(state, now(self))
    if not done then errors.misuse("force: " .. event) end
    moved(self, event)
end

--- Back to the beginning: closed (or its forced state), nothing counted.
function Breaker:reset()
    self.core:reset(now(self))
end

--- A probe of the script's own answered well: OPEN becomes HALF_OPEN now. True if it did.
function Breaker:probe_passed()
    local event = self.core:probe_passed(now(self))
    moved(self, event)
    return event ~= nil
end

--- calls, failures, slow, failure_rate and slow_rate (nil below min_calls), refused, state, opened_count,
-- retry_after (nil if nobody can know), evidence.
function Breaker:snapshot()
    moved(self, self.core:tick(now(self)))
    local snapshot = self.core:snapshot(now(self))
    snapshot.handler_faults = self.handler_faults
    snapshot.handler_error = self.handler_error
    return snapshot
end

-- ---- backoff ----------------------------------------------------------------------------------------------

--- Delays: :next() gives one in seconds, :reset() starts over. Keys: kind ("full", "equal", "decorrelated",
-- "exponential", "constant"), base, cap, factor, seed.
function guard.backoff(options)
    options = options or {}
    check_options("backoff", options)
    return made("backoff", core.backoff(options))
end

-- ---- retry budget -----------------------------------------------------------------------------------------

local Budget = { __name = "weir.budget" }
Budget.__index = Budget

--- A retry budget. Keys: per_success, floor, cap; kind = "ratio" with per_success as the share of requests,
-- and window.
function guard.budget(options)
    options = options or {}
    local clock = check_options("budget", options)
    local object = made("budget", core.budget(options, clock and clock()))
    return setmetatable({ clock = clock, core = object }, Budget)
end

--- A first attempt starts.
function Budget:request()
    self.core:request(now(self))
end

--- An attempt succeeded.
function Budget:success()
    self.core:success(now(self))
end

--- Charges one retry. False if there is nothing left for it.
function Budget:withdraw()
    return self.core:withdraw(now(self))
end

--- Retries left.
function Budget:level()
    return self.core:level(now(self))
end

function Budget:cap()
    return self.core:cap()
end

-- ---- rate limiter -----------------------------------------------------------------------------------------

local Rate = { __name = "weir.rate" }
Rate.__index = Rate

local function check_number(what, value)
    if type(value) ~= "number" then
        errors.misusef("%s is a %s; it must be a number", what, type(value))
    end
    return value
end

--- At most per_second a second on average, burst (per_second) at once.
function guard.rate(options)
    local clock = check_options("rate", options)
    local per_second = check_number("rate: per_second", options.per_second)
    local burst = check_number("rate: burst", options.burst or math.max(1, per_second))
    local object = made("rate", core.rate(per_second, burst, clock and clock()))
    return setmetatable({ clock = clock, core = object }, Rate)
end

--- True, or nil and a refusal with retry_after.
function Rate:take()
    local taken, wait = self.core:take(now(self))
    if taken then return true end
    return nil, errors.new("rate_limited", "over the rate", { class = "safe", retry_after = wait })
end

--- Waits for its turn.
function Rate:wait()
    local taken, wait = self.core:take(now(self))
    while not taken do
        loop.sleep(wait)
        taken, wait = self.core:take(now(self))
    end
end

guard.limit = limit.new

-- ---- all of them around a function ------------------------------------------------------------------------

local Guard = { __name = "weir.guard" }
Guard.__index = Guard

local guard_keys = { breaker = true, timeout = true, retry = true, limit = true, budget = true, rate = true }
local backoff_keys = { "kind", "base", "cap", "factor", "seed" }
local retry_keys = { retries = true, when = true }
for _, key in ipairs(backoff_keys) do retry_keys[key] = true end

local function check_keys(what, options, known)
    for key in pairs(options) do
        if not known[key] then errors.misusef("%s: %s is not a known option", what, tostring(key)) end
    end
end

-- A guard may be given as its options or as one made before and shared.
local function member(options, key, class, make)
    local given = options[key]
    if given == nil or getmetatable(given) == class then return given end
    if type(given) ~= "table" then
        errors.misusef("guard: %s is a %s; it must be a table or a %s made before", key, type(given), key)
    end
    return make(given)
end

local function read_retry(retry)
    if retry == nil then return { retries = 0 } end
    if type(retry) ~= "table" then errors.misusef("guard: retry is a %s; it must be a table", type(retry)) end
    check_keys("guard: retry", retry, retry_keys)
    local retries = check_number("guard: retry.retries", retry.retries or 3)
    if retries < 0 or retries % 1 ~= 0 then
        errors.misusef("guard: retry.retries is %s; it must be a whole number, 0 or more", tostring(retries))
    end
    if retry.when ~= nil and type(retry.when) ~= "function" then
        errors.misusef("guard: retry.when is a %s; it must be a function", type(retry.when))
    end
    local backoff = {}
    for _, key in ipairs(backoff_keys) do backoff[key] = retry[key] end
    guard.backoff(backoff)       -- so that a wrong knob is told now and not at the first failure
    return { retries = retries, when = retry.when, backoff = backoff }
end

--- Guards around a function. Keys, all optional, each a table of options or an object made before: breaker,
-- limit, budget, rate; timeout (seconds, of one attempt); retry = { retries, base, cap, kind, factor, seed,
-- when = function(err, attempt) }.
function guard.guard(options)
    options = options or {}
    check_options("guard", options)
    check_keys("guard", options, guard_keys)
    if options.timeout ~= nil and not (check_number("guard: timeout", options.timeout) > 0) then
        errors.misusef("guard: timeout is %s; it must be more than 0", tostring(options.timeout))
    end
    return setmetatable({
        timeout = options.timeout,
        retry = read_retry(options.retry),
        breaker = member(options, "breaker", Breaker, guard.breaker),
        budget = member(options, "budget", Budget, guard.budget),
        rate = member(options, "rate", Rate, guard.rate),
        limit = member(options, "limit", limit.Limit, limit.new),
    }, Guard)
end

--- Runs fn() behind the guards and returns what it returns. A failure is nil and an error, or a raised error:
-- both count for the breaker and are retried, and the last one is passed on as it came. A guard's own
-- refusal, and a timeout, are nil and an error. nil alone is a success.
function Guard:run(label, fn)
    if type(label) ~= "string" or label == "" then
        errors.misusef("guard: the label is %s; say in a string what this call is for", tostring(label))
    end
    if type(fn) ~= "function" then errors.misusef("guard: fn is a %s; it must be a function", type(fn)) end
    return runner.run(self, label, fn)
end

return guard
