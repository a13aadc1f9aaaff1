--- Tasks and waiting inside nginx, where the loop turns by itself. A task is one of ngx_lua's light threads,
-- so it lives and ends with the request (or timer) that started it; whoever waits stands at a gate, which is
-- a semaphore of ngx_lua's. It takes the place of the scheduler in weir.loop, except while a simulation runs:
-- that is all virtual, and needs a scheduler of its own.

local compat = require "weir.compat"
local core = require "weir.core"
local errors = require "weir.errors"
local ngx_core = require "weir.ngx"

local ngx = ngx -- luacheck: ignore

local nginx = {}

local Task = {}
Task.__index = Task

local of_thread = setmetatable({}, { __mode = "k" }) -- coroutine -> the task it runs
local of_program = setmetatable({}, { __mode = "k" }) -- coroutine -> the run (nginx.run) it is part of
local FOREVER = 1e9

-- ---- waiting ----------------------------------------------------------------------------------------------

--- The task this code runs in, or nil: requests are none.
function nginx.this_task()
    return of_thread[coroutine.running()]
end

--- Nobody else would run meanwhile but nginx itself, which never waits for us.
function nginx.leisure()
    return 0
end

--- Waits until the engine has an answer for this call.
function nginx.park(call)
    local task = nginx.this_task()
    if not task then
        while call:pass() ~= nil do end
        return
    end
    task.call = call
    if task.cancel_pending then
        task.cancel_pending = nil
        call:cancel()
    end
    while call:pass() ~= nil do end
    task.call = nil
end

nginx.await = nginx.park

local function heed_cancel(task)
    if not task or not task.cancel_pending then return end
    task.cancel_pending = nil
    error(errors.new("cancelled", "the task was cancelled"), 0)
end

local function new_gate()
    local gate, why = core.gate()
    if not gate then errors.misuse(why) end
    return gate
end

local function check_may_wait()
    new_gate():drop()
end

local function leave(signal, gate)
    for i, other in ipairs(signal.waiters or {}) do
        if other == gate then table.remove(signal.waiters, i) break end
    end
    gate:drop()
end

-- Until the signal fires or the moment has come. True if it fired.
local function stand(signal, gate, task, due)
    while not signal.fired do
        local left = due and due - core.now() or FOREVER
        if left <= 0 then return false end
        gate:pass(left)
        heed_cancel(task)
    end
    return true
end

-- Signals are any tables; see weir.loop.
local function wait(signal, seconds)
    if signal.fired then return true end
    local task = nginx.this_task()
    heed_cancel(task)
    local gate = new_gate()
    signal.waiters = signal.waiters or {}
    signal.waiters[#signal.waiters + 1] = gate
    if task then task.gate = gate end
    local ok, fired = pcall(stand, signal, gate, task, seconds and core.now() + seconds)
    if task then task.gate = nil end
    leave(signal, gate)
    if not ok then error(fired, 0) end
    return fired
end

--- Waits until nginx.fire(signal).
function nginx.wait(signal)
    wait(signal)
end

--- The same, for so long at most. True if it fired; else it counts as fired from now on.
function nginx.wait_for(signal, seconds)
    if wait(signal, seconds) then return true end
    signal.fired = true
    return false
end

function nginx.fire(signal)
    signal.fired = true
    for _, gate in ipairs(signal.waiters or {}) do gate:open() end
end

local passing = {} -- gates that open in the loop's next turn

-- Lets everybody else run once. Not ngx.sleep(0): a stock nginx makes a timer of it, and a warning in the
-- log.
local function pass_once()
    local gate = new_gate()
    passing[#passing + 1] = gate
    ngx_core.stir()
    gate:pass(FOREVER)
    gate:drop()
end

local failed = 0 -- calls, since others were let run on that account

--- A call has failed; see weir.loop.
function nginx.breathe()
    failed = failed + 1
    if failed < 100 then return end
    failed = 0
    pass_once()
end

--- Sleeps. 0 lets others run.
function nginx.sleep(seconds)
    if type(seconds) ~= "number" or not (seconds >= 0 and seconds < 1e9) then
        errors.misusef("sleep(%s): it must be a number of seconds, 0 or more", tostring(seconds))
    end
    if seconds == 0 then
        heed_cancel(nginx.this_task())
        return pass_once()
    end
    wait({}, seconds)
end

-- ---- tasks ------------------------------------------------------------------------------------------------

local function finish(task, ok, ...)
    task.ended = true
    task.ok = ok
    task.results = compat.pack(...)
    nginx.fire(task)
    -- Who joins it later hears of it too; but most likely nobody will.
    local lonely = not ok and not task.heard
    if lonely then ngx_core.log("error", "a task failed and nobody waits for it: " .. tostring((...))) end
    local program = task.program
    if not program then return end
    program.alive = program.alive - 1
    if lonely then program.lonely = program.lonely + 1 end
    if program.alive == 0 then nginx.fire(program) end
end

local function body(task)
    local thread = coroutine.running()
    of_thread[thread], of_program[thread] = task, task.program
    pass_once() -- a task begins when whoever made it next waits
    if task.cancel_pending then
        return finish(task, false, errors.new("cancelled", "the task was cancelled before it began"))
    end
    finish(task, pcall(task.fn, compat.unpack(task.arguments, 1, task.arguments.n)))
end

--- Starts fn(...) as a task; it begins to run when the caller next waits.
function nginx.spawn(fn, ...)
    if type(fn) ~= "function" then
        errors.misusef("spawn: the first argument is a %s; it must be a function", type(fn))
    end
    check_may_wait() -- where nothing may, ngx.thread.spawn raises with half a thread made, and the worker dies of it
    local program = of_program[coroutine.running()]
    local task = setmetatable({ fn = fn, arguments = compat.pack(...), program = program }, Task)
    task.thread = ngx.thread.spawn(body, task)
    if program then program.alive = program.alive + 1 end
    return task
end

--- A task whose failure is its own business.
function nginx.spawn_daemon(fn, ...)
    local task = nginx.spawn(fn, ...)
    task.heard = true
    return task
end

--- Waits for the end of the task. True and its results, or false and what it raised.
function Task:wait()
    if self == nginx.this_task() then errors.misuse("a task cannot wait for itself") end
    self.heard = true
    if not self.ended then wait(self) end
    return self.ok, compat.unpack(self.results, 1, self.results.n)
end

local function results_or_raise(ok, ...)
    if not ok then error((...), 0) end
    return ...
end

--- Waits for the end of the task: its results, or its error raised again.
function Task:join()
    return results_or_raise(self:wait())
end

--- Asks the task to stop: the call it waits for is cancelled, a sleep or a wait raises. One that is at work
-- hears of it where it next waits.
function Task:cancel()
    if self.ended then return end
    if self.call then
        self.call:cancel()
    else
        self.cancel_pending = true
        if self.gate then self.gate:open() end
    end
end

--- "running", "done" or "failed".
function Task:status()
    if not self.ended then return "running" end
    return self.ok and "done" or "failed"
end

nginx.Task = Task

--- pcall for what must not let nginx's loop turn meanwhile, such as a simulation.
nginx.apart = ngx_core.apart

-- ---- running a whole program ------------------------------------------------------------------------------

local function with_traceback(err)
    return type(err) == "string" and debug.traceback(err, 2) or err
end

--- Calls main(...) where it stands, and waits until all tasks it started have ended. Returns true and its
-- results, or false and what it raised (strings with a traceback), or false and nil if only tasks failed that
-- nobody joined.
function nginx.run(main, ...)
    check_may_wait()
    local arguments = compat.pack(...)
    local thread = coroutine.running()
    local outer, program = of_program[thread], { alive = 0, lonely = 0 }
    of_program[thread] = program
    local results = compat.pack(xpcall(function()
        return main(compat.unpack(arguments, 1, arguments.n))
    end, with_traceback))
    of_program[thread] = outer
    while results[1] and program.alive > 0 do
        program.fired = nil
        wait(program)
    end
    if results[1] and program.lonely > 0 then return false, nil end
    return compat.unpack(results, 1, results.n)
end

-- ---- health checks ----------------------------------------------------------------------------------------

-- Checks fall due in the engine, where nothing may wait; a timer's handler may. It can only be made by code
-- of a request, a timer or init_worker_by_lua, so one such handler stands ready for as long as the worker
-- lives.
local daemon = { due = {} }

local function run_due(premature, key, index)
    if not premature and nginx.on_check then nginx.on_check(key, index) end
end

local function serve_checks(premature)
    if premature or daemon.serving then return end
    daemon.gate = new_gate()
    daemon.serving = true
    while not ngx_core.exiting() do
        local due = daemon.due
        daemon.due = {}
        for _, check in ipairs(due) do
            local ok, why = ngx.timer.at(0, run_due, check[1], check[2])
            if not ok then ngx_core.log("error", "a health check cannot be run: " .. tostring(why)) end
        end
        if #daemon.due == 0 then daemon.gate:pass(FOREVER) end
    end
    daemon.gate:drop()
    daemon.gate, daemon.serving = nil, nil
end

local ASK_AGAIN = 1 -- seconds: nginx drops a timer that falls due while it has no connections left

--- Called where a timer can be made; does nothing once the handler runs.
function nginx.start_daemon()
    if daemon.serving or not ngx_core.lasting() then return end
    local now = core.now()
    if daemon.asked and now - daemon.asked < ASK_AGAIN then return end
    local ok, started = pcall(ngx.timer.at, 0, serve_checks)
    daemon.asked = ok and started and now or nil
end

--- Fetches all the news there is; runs outside of requests, whenever C says so.
function nginx.stirred()
    local opening = passing
    passing = {}
    for _, gate in ipairs(opening) do gate:open() end
    local key, index = core.due()
    while key do
        daemon.due[#daemon.due + 1] = { key, index }
        key, index = core.due()
    end
    local fd, what = core.polled()
    while fd do
        nginx.on_polled(fd, what)
        fd, what = core.polled()
    end
    for _, fn in ipairs(nginx.also) do fn() end
    if daemon.gate then daemon.gate:open() end
end

nginx.also = {} -- what else wants to be asked

return nginx
