--- Tasks, and waiting. C hands out tickets; whoever waits for one is parked here, until the loop says it is
-- done.
--
-- Inside a task waiting means yielding to the scheduler. Outside of any (a plain script, or a coroutine that
-- somebody else resumes) it means turning the loop on the spot; the tasks go on meanwhile.

local core = require "weir.core"
local compat = require "weir.compat"
local errors = require "weir.errors"
local sleepers = require "weir.sleepers"

local loop = {}

local Task = {}
Task.__index = Task

local current                    -- the task being resumed, if any
local queue, first, last = {}, 1, 0
local parked = {}                -- key of a call -> the task waiting for it
local calls_waited = 0           -- how many wait for a call: these end by their deadlines
local tasks_alive = 0            -- not counting daemons, which nobody waits for
local unheard = {}               -- tasks that failed and that nobody joined, in order
local unheard_dropped = 0
local depth = 0                  -- of turns inside turns
local restless = false           -- somebody who turns the loop may have what he waited for
local served = 0                 -- calls in a row that were answered on the spot
local failed = 0                 -- calls that failed, since others were let run on that account
local stirred = true             -- the loop has something for wake_callers or start_checks

local UNHEARD_MAX = 100
-- A task that waits in a coroutine of its own turns the loop inside the scheduler's turn, and so may the task
-- resumed there. C allows some 200 nested calls; from here on inner turns serve the database only and resume
-- nobody.
local DEPTH_MAX = 16
-- How long the loop sleeps at most, so that Ctrl-C in a plain script is noticed; and how much time may pass
-- at once where that costs none.
local TURN_MAX, APART_TURN_MAX = 0.25, 10
local turn_max = TURN_MAX
-- How many calls in a row a task may have served on the spot.
local SERVED_MAX = 100

loop.now = core.now
-- How many wait for a descriptor or a notification; kept by weir.poll and weir.listen, which set on_polled
-- and on_heard.
loop.polls_waited = 0

-- Puts everything the scheduler knows aside and begins with nothing, or with what was put aside before.
-- Returns what was there.
local function exchange(other)
    local before = {
        current = current, queue = queue, first = first, last = last, parked = parked,
        calls_waited = calls_waited, tasks_alive = tasks_alive, unheard = unheard,
        unheard_dropped = unheard_dropped, depth = depth, restless = restless, served = served,
        stirred = stirred, polls_waited = loop.polls_waited,
        sleepers = sleepers.exchange(other and other.sleepers),
    }
    other = other or {
        queue = {}, first = 1, last = 0, parked = {}, calls_waited = 0, tasks_alive = 0, unheard = {},
        unheard_dropped = 0, depth = 0, restless = false, served = 0, stirred = true, polls_waited = 0,
    }
    current, queue, first, last = other.current, other.queue, other.first, other.last
    parked, calls_waited, tasks_alive = other.parked, other.calls_waited, other.tasks_alive
    unheard, unheard_dropped, depth = other.unheard, other.unheard_dropped, other.depth
    restless, served, stirred = other.restless, other.served, other.stirred
    loop.polls_waited = other.polls_waited
    return before
end

local function enqueue(task)
    if task.queued then return end
    task.queued = true
    last = last + 1
    queue[last] = task
end

--- The task this code runs in, or nil outside of tasks and in coroutines that a task has made itself.
local function this_task()
    return current and coroutine.running() == current.thread and current or nil
end
loop.this_task = this_task

-- ---- waiting ----------------------------------------------------------------------------------------------

local turn, patience

local function spin(done, subject)
    while not done(subject) do turn() end
end

-- Turns the loop until done(subject). Protected, so that an interrupt does not leave the depth wrong.
local function turn_until(done, subject)
    local before = depth
    depth = before + 1
    local ok, err = pcall(spin, done, subject)
    depth = before
    if not ok then error(err, 0) end
end

--- Turns the loop until done(subject), for whoever is no task: tasks must wait instead.
loop.turn_until = turn_until

local function has_answer(call)
    return not call:waiting()
end

local function await_in_task(task, call, key)
    parked[key] = task
    task.call = call
    if task.cancel_pending then
        task.cancel_pending = nil
        call:cancel()
    end
    while call:waiting() do coroutine.yield() end
    task.call = nil
    parked[key] = nil
end

--- For how many seconds a call may be served on the spot, by a turn of the loop that no task would gain from;
-- 0 if somebody could run, or is to be told that he can. This and nothing else is what makes a single caller
-- fast: going through the scheduler takes longer than all the rest of a short call.
function loop.leisure()
    if first <= last or restless or current and current.cancel_pending then return 0 end
    -- An interrupt is raised in the task that was served, and caught by its pcall, if it has one. The rest of
    -- the program hears of it when the task next comes this way.
    served = served + 1
    if served >= SERVED_MAX then
        served = 0
        return 0
    end
    return sleepers.first_due() and patience() or turn_max
end

--- Waits until the engine has an answer for this call.
function loop.await(call, key)
    if not call:serve(loop.leisure()) then loop.park(call, key) end
end

--- The same, and lets others run meanwhile whether there are any or not.
function loop.park(call, key)
    if not call:waiting() then return end
    local task = this_task()
    calls_waited = calls_waited + 1
    if task then
        await_in_task(task, call, key)
        calls_waited = calls_waited - 1
        return
    end
    local before = depth
    depth = before + 1
    local ok, err = pcall(spin, has_answer, call)
    depth = before
    calls_waited = calls_waited - 1
    if not ok then error(err, 0) end
end

--- A call has failed, most likely at once: whoever tries again and again must not keep the loop from turning,
-- or what he waits for never comes.
function loop.breathe()
    failed = failed + 1
    if failed < SERVED_MAX then return end
    failed = 0
    if this_task() then
        coroutine.yield()
    elseif depth < DEPTH_MAX then
        loop.sleep(0)
    end
end

local function is_fired(signal)
    return signal.fired
end

-- A cancelled task hears of it where it waits, as an error of its own.
local function heed_cancel(task)
    if not task.cancel_pending then return end
    task.cancel_pending = nil
    task.signal = nil
    error(errors.new("cancelled", "the task was cancelled"), 0)
end

--- Waits until loop.fire(signal); signal is any table.
function loop.wait(signal)
    local task = this_task()
    if not task then
        if depth >= DEPTH_MAX then
            error("weir: too many coroutines wait inside each other; start them with weir.spawn instead", 0)
        end
        return turn_until(is_fired, signal)
    end
    heed_cancel(task)
    signal.waiters = signal.waiters or {}
    signal.waiters[#signal.waiters + 1] = task
    task.signal = signal
    while not signal.fired do
        coroutine.yield()
        heed_cancel(task)
    end
    task.signal = nil
end

function loop.fire(signal)
    signal.fired = true
    restless = true
    for _, task in ipairs(signal.waiters or {}) do enqueue(task) end
    signal.waiters = nil
end

--- Sleeps. 0 lets others run.
function loop.sleep(seconds)
    if type(seconds) ~= "number" or not (seconds >= 0 and seconds < 1e9) then
        errors.misusef("sleep(%s): it must be a number of seconds, 0 or more", tostring(seconds))
    end
    local signal = {}
    local sleeper = sleepers.add(core.now() + seconds, signal)
    local ok, err = pcall(loop.wait, signal)
    sleepers.remove(sleeper)
    if not ok then error(err, 0) end
end

--- Waits for the signal, at most so long. True if it fired. When the time is over the signal counts as fired
-- too, so it must be one that only this caller waits for.
function loop.wait_for(signal, seconds)
    local sleeper = sleepers.add(core.now() + seconds, { alarm_of = signal })
    local ok, err = pcall(loop.wait, signal)
    sleepers.remove(sleeper)
    if not ok then error(err, 0) end
    return not signal.late
end

-- ---- tasks ------------------------------------------------------------------------------------------------

local function note_failure(task, err)
    if task.heard then return end
    if #unheard >= UNHEARD_MAX then
        unheard_dropped = unheard_dropped + 1
        return
    end
    task.trace = type(err) == "string" and debug.traceback(task.thread, err) or tostring(err)
    unheard[#unheard + 1] = task
end

local function finish(task, ok, ...)
    task.ended = true
    task.ok = ok
    task.results = compat.pack(...)
    if not task.daemon then tasks_alive = tasks_alive - 1 end
    if not ok then note_failure(task, (...)) end
    loop.fire(task)
end

local function after_resume(task, ok, ...)
    if coroutine.status(task.thread) == "dead" then
        finish(task, ok, ...)
    elseif not task.call and not task.signal then
        enqueue(task)            -- a plain coroutine.yield(): let others run
    end
end

local function step(task)
    local before = current
    current = task
    if task.started then
        after_resume(task, coroutine.resume(task.thread))
    elseif task.cancel_pending then
        finish(task, false, errors.new("cancelled", "the task was cancelled before it began"))
    else
        task.started = true
        after_resume(task, coroutine.resume(task.thread, compat.unpack(task.arguments, 1, task.arguments.n)))
    end
    current = before
end

local function make_task(daemon, fn, ...)
    local task = setmetatable({ daemon = daemon, arguments = compat.pack(...) }, Task)
    task.thread = coroutine.create(fn)
    if not daemon then tasks_alive = tasks_alive + 1 end
    enqueue(task)
    return task
end

--- Starts fn(...) as a task; it begins to run when the caller next waits.
function loop.spawn(fn, ...)
    if type(fn) ~= "function" then
        errors.misusef("spawn: the first argument is a %s; it must be a function", type(fn))
    end
    return make_task(false, fn, ...)
end

--- A task nobody waits for and whose failure is its own business: health checks.
function loop.spawn_daemon(fn, ...)
    local task = make_task(true, fn, ...)
    task.heard = true
    return task
end

local function forget_unheard(task)
    for i = 1, #unheard do
        if unheard[i] == task then return table.remove(unheard, i) end
    end
end

--- Waits for the end of the task. True and its results, or false and what it raised.
function Task:wait()
    if self == this_task() then errors.misuse("a task cannot wait for itself") end
    if not self.ended then loop.wait(self) end
    if not self.heard then
        self.heard = true
        forget_unheard(self)
    end
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
        if self.signal then enqueue(self) end
    end
end

--- "running", "done" or "failed".
function Task:status()
    if not self.ended then return "running" end
    return self.ok and "done" or "failed"
end

local function is_task(item)
    return getmetatable(item) == Task or loop.foreign_task and getmetatable(item) == loop.foreign_task
end

local function as_tasks(...)
    local list = { ... }
    if #list == 1 and type(list[1]) == "table" and not is_task(list[1]) then list = list[1] end
    local tasks = {}
    for i, item in ipairs(list) do
        if type(item) == "function" then
            tasks[i] = loop.spawn(item)
        elseif is_task(item) then
            tasks[i] = item
        else
            errors.misusef("gather: argument %d is a %s; it must be a task or a function", i, type(item))
        end
    end
    return tasks
end

--- Waits for all of the given tasks or functions (or one list of them). Returns a list with the packed
-- results of each; when all have ended, the first error is raised again.
function loop.gather(...)
    local tasks, results, failed = as_tasks(...), {}, nil
    for i, task in ipairs(tasks) do
        local ok = task:wait()
        if not ok and not failed then failed = task end
        results[i] = task.results
    end
    if failed then error(failed.results[1], 0) end
    return results
end

-- ---- turning ----------------------------------------------------------------------------------------------

local function wake_callers()
    local key = core.ready()
    local any = key ~= nil
    while key do
        local task = parked[key]
        if task then enqueue(task) else restless = true end
        key = core.ready()
    end
    return any
end

local function wake_sleepers()
    if not sleepers.first_due() then return false end
    local now = core.now()
    local signal = sleepers.pop_due(now)
    local any = signal ~= nil
    while signal do
        if signal.alarm_of then
            signal = signal.alarm_of
            signal.late = not signal.fired
        end
        loop.fire(signal)
        signal = sleepers.pop_due(now)
    end
    return any
end

local function wake_pollers()
    local fd, what = core.polled()
    local any = fd ~= nil
    while fd do
        loop.on_polled(fd, what)
        fd, what = core.polled()
    end
    return any
end

local function wake_listeners()
    local key = core.heard()
    local any = key ~= nil
    while key do
        loop.on_heard(key)
        key = core.heard()
    end
    return any
end

local function start_checks()
    local key, index = core.due()
    while key do
        if loop.on_check then loop.on_check(key, index) end
        key, index = core.due()
    end
end

-- Runs who is runnable now; who becomes runnable meanwhile waits for the next round, so that the loop gets
-- its turn.
local function run_tasks()
    local stop = last
    while first <= stop do
        local task = queue[first]
        queue[first] = nil
        first = first + 1
        task.queued = false
        if not task.ended then step(task) end
    end
end

-- How long the loop may sleep.
function patience()
    local due = sleepers.first_due()
    local seconds = due and due - core.now() or turn_max
    if not due and calls_waited == 0 and loop.polls_waited == 0 then
        error("weir: deadlock: every task waits for another one and nothing is under way", 0)
    end
    return seconds < 0 and 0 or seconds < turn_max and seconds or turn_max
end

-- One round. It never sleeps after something has happened: whoever turns the loop may be waiting for just
-- that.
function turn()
    local happened = false
    restless = false
    if stirred then
        happened = wake_callers()
        happened = wake_pollers() or happened
        happened = wake_listeners() or happened
        start_checks()
        if core.arrivals() and loop.on_arrival then loop.on_arrival() end
        stirred = false
    end
    -- Who keeps running, or sleeps for no time again and again, must not starve the connections.
    local woken = wake_sleepers()
    if first <= last and depth <= DEPTH_MAX then
        run_tasks()
        if first <= last or sleepers.is_due(core.now()) then stirred = core.turn(0) end
    elseif woken or not happened then
        stirred = core.turn(woken and 0 or patience())
    end
end

-- ---- running a whole program ------------------------------------------------------------------------------

-- `before` were alive when the program began: it may itself be part of one.
local function all_ended(before)
    return tasks_alive <= before
end

local function report_unheard()
    local failed = #unheard
    for _, task in ipairs(unheard) do
        io.stderr:write("weir: a task failed and nobody joined it: ", task.trace, "\n")
    end
    if unheard_dropped > 0 then io.stderr:write(("weir: and %d more\n"):format(unheard_dropped)) end
    unheard, unheard_dropped = {}, 0
    return failed
end

--- Tells on stderr of tasks that have failed and that nobody has joined so far. For programs without an end.
loop.report_unheard = report_unheard

-- A plain script never calls loop.run; what failed unheard is told when the state closes.
loop.closing = compat.at_close(report_unheard)

local function with_traceback(err)
    return type(err) == "string" and debug.traceback(err, 2) or err
end

-- The main task, then the tasks it leaves behind. Returns what loop.run returns.
local function run_to_end(task, before)
    turn_until(is_fired, task)
    local results = task.results
    if not task.ok then return false, results[1] end
    if results[1] then turn_until(all_ended, before) end
    return compat.unpack(results, 1, results.n)
end

local function conclude(protected, ok, ...)
    local heard = report_unheard() == 0
    if not protected then return false, ok end
    if ok and not heard then return false, nil end
    return ok, ...
end

--- Calls fn(...) in a world of its own: with a scheduler that knows none of the tasks there are and forgets
-- what is left when fn returns. All others stand still meanwhile. Errors pass through. For simulations.
function loop.apart(fn, ...)
    local outside = exchange()
    local came_from = loop.enter_virtual()
    turn_max = APART_TURN_MAX
    local results = compat.pack((came_from and came_from.apart or pcall)(fn, ...))
    turn_max = TURN_MAX
    loop.leave_virtual(came_from)
    exchange(outside)
    if not results[1] then error(results[2], 0) end
    return compat.unpack(results, 2, results.n)
end

--- Runs main(...) as a task until it and all tasks it started have ended. Returns true and its results, or
-- false and what it raised (strings with a traceback), or false and nil if only tasks failed that nobody
-- joined; those have been written to stderr.
function loop.run(main, ...)
    local arguments, before = compat.pack(...), tasks_alive
    local task = make_task(false, function()
        return xpcall(function()
            return main(compat.unpack(arguments, 1, arguments.n))
        end, with_traceback)
    end)
    return conclude(pcall(run_to_end, task, before))
end

-- ---- loops that turn by themselves ------------------------------------------------------------------------

-- Inside nginx all that waits is taken over by weir.nginx, except in a simulation: its world stands still for
-- everybody else, and its tasks are ours. What others have taken from this table at load time must follow,
-- hence the functions that ask each time.
local real = core.host == "nginx" and require "weir.nginx" or nil

function loop.enter_virtual()
    local came_from = real
    real = nil
    return came_from
end

function loop.leave_virtual(came_from)
    real = came_from
end

if real then
    local names = {
        "leisure", "await", "park", "breathe", "wait", "wait_for", "fire", "sleep", "spawn", "spawn_daemon", "run",
        "this_task",
    }
    for _, name in ipairs(names) do
        local virtual = loop[name]
        loop[name] = function(...)
            if real then return real[name](...) end
            return virtual(...)
        end
    end
    loop.foreign_task = real.Task
    loop.on_checks = real.start_daemon
    function real.on_check(key, index)
        if loop.on_check then loop.on_check(key, index) end
    end
    function real.on_polled(fd, what)
        if loop.on_polled then loop.on_polled(fd, what) end
    end
    require "weir.ngx".on_stir(real.stirred)
end

return loop
