--- One run of a function behind the guards of weir.guard: admitted, tried, settled, perhaps tried again.

local compat = require "weir.compat"
local core = require "weir.core"
local errors = require "weir.errors"
local loop = require "weir.loop"

local runner = {}

-- ---- one attempt: outcome = { raised, value..., err, verdict, elapsed } -----------------------------------

local function timed_out(label, seconds)
    local message = ("no answer within %g s"):format(seconds)
    return errors.new("timeout", message, { context = label, class = "unknown" })
end

-- In a task of its own, so that whoever waits can stop waiting. A function that never waits cannot be
-- interrupted: it is measured afterwards, and its value, late as it is, is passed on.
local function call_with_timeout(label, fn, seconds)
    local signal, results = {}, nil
    local task = loop.spawn_daemon(function()
        results = compat.pack(pcall(fn))
        loop.fire(signal)
    end)
    local ok, in_time = pcall(loop.wait_for, signal, seconds)
    if results then return results end
    task:cancel()
    if not ok then return { n = 2, false, in_time } end
    return { n = 3, true, nil, timed_out(label, seconds) }
end

local function is_cancelled(err)
    return errors.is(err) and err.code == "cancelled"
end

local function code_of(err)
    if type(err) ~= "table" then return "error" end
    local code = rawget(err, "sqlstate") or rawget(err, "code")
    return type(code) == "string" and code or "error"
end

local function verdict_of(self, results, elapsed)
    local err = not results[1] and results[2] or results[2] == nil and results[3] or nil
    if err ~= nil then return is_cancelled(err) and "neutral" or "failure", err end
    if not results[1] then return "failure", "error(nil)" end
    if self.timeout and elapsed > self.timeout then return "failure", nil end
    return "success", nil
end

local function try(self, label, fn)
    local started = core.now()
    local results = self.timeout and call_with_timeout(label, fn, self.timeout) or compat.pack(pcall(fn))
    local elapsed = core.now() - started
    local verdict, err = verdict_of(self, results, elapsed)
    return results, verdict, err, elapsed
end

-- ---- admission --------------------------------------------------------------------------------------------

local function refused(label, refusal)
    refusal.context = label
    return nil, refusal
end

-- The permit last: whoever holds one must settle it.
local function admit(self, label)
    local ok, refusal
    if self.rate then
        ok, refusal = self.rate:take()
        if not ok then return refused(label, refusal) end
    end
    if self.limit then
        ok, refusal = self.limit:acquire(self.timeout)
        if not ok then return refused(label, refusal) end
    end
    if not self.breaker then return true end
    ok, refusal = self.breaker:admit()
    if ok then return ok end
    if self.limit then self.limit:release() end
    return refused(label, refusal)
end

local function settle(self, permit, verdict, err, elapsed)
    if self.breaker then
        local code = verdict == "failure" and (err == nil and "late" or code_of(err)) or nil
        self.breaker:settle(permit, verdict, elapsed, code)
    end
    if self.limit then self.limit:release() end
    if self.budget and verdict == "success" then self.budget:success() end
end

-- ---- again? -----------------------------------------------------------------------------------------------

local function wants_retry(self, attempt, verdict, err)
    local retry = self.retry
    if verdict ~= "failure" or err == nil or attempt > retry.retries then return false end
    if retry.when and not retry.when(err, attempt) then return false end
    return not self.budget or self.budget:withdraw()
end

local function pass_on(results)
    if not results[1] then error(results[2], 0) end
    return compat.unpack(results, 2, results.n)
end

--- See Guard:run.
function runner.run(self, label, fn)
    local attempt, backoff, results = 0, nil, nil
    if self.budget then self.budget:request() end
    while true do
        attempt = attempt + 1
        local permit, refusal = admit(self, label)
        if not permit then
            if results then return pass_on(results) end -- what went wrong says more than the refusal
            return nil, refusal
        end
        local verdict, err, elapsed
        results, verdict, err, elapsed = try(self, label, fn)
        settle(self, permit, verdict, err, elapsed)
        if not wants_retry(self, attempt, verdict, err) then return pass_on(results) end
        backoff = backoff or core.backoff(self.retry.backoff)
        loop.sleep(backoff:next())
    end
end

return runner
