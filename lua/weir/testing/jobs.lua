--- The supervisor of `weir test`: a worker process per file, so many at once, their results in the order of
-- the files. A worker that crashes, or hangs where Lua cannot be interrupted, costs the case it was at;
-- another one takes the rest of its file.

local arguments = require "weir.testing.arguments"
local wire = require "weir.testing.wire"

local jobs = {}

local GRACE = 3                  -- seconds for a worker to tell that a limit is over, beyond the limit
local FAREWELL = 2               -- seconds for a worker to end in order, after Ctrl-C
local TURN = 0.25                -- seconds the supervisor sleeps at most
local OUTPUT_MAX = 64 * 1024 * 1024 -- bytes a worker may print: they are kept in memory
local OUTPUT_SHOWN = 8 * 1024    -- bytes of that, the last ones, which are shown of a case

local signals = {
    [4] = "SIGILL", [6] = "SIGABRT", [7] = "SIGBUS", [8] = "SIGFPE", [9] = "SIGKILL", [11] = "SIGSEGV",
    [15] = "SIGTERM",
}

-- ---- results ---------------------------------------------------------------------------------------------

local function output_between(job, from, to)
    return job.child:output(math.max(from or 0, to - OUTPUT_SHOWN), to)
end

local function add_result(self, job, result)
    result.file = job.file
    result.again = result.status ~= "passed" and result.status ~= "skipped" and result.base
        and arguments.again(self.options, result.base, result.seed, job.file) or nil
    job.results[#job.results + 1] = result
end

-- A failure that is nobody's case.
local function add_failure(self, job, name, text, unloadable)
    add_result(self, job, {
        name = name, status = "error", text = text, seconds = self.host.now() - job.started,
        output = output_between(job, job.mark, job.child:written()), unloadable = unloadable,
    })
end

local function end_case(self, job, event)
    local begun = job.current or {}
    local failed = event.status == "failed" or event.status == "error"
    job.current, job.mark = nil, event.at
    add_result(self, job, {
        name = begun.name, base = begun.number ~= 0 and begun.base or nil, seed = begun.seed,
        line = begun.line, status = event.status, text = event.text, trace = event.trace,
        seconds = event.seconds, virtual = event.virtual, hash = event.hash, record = event.record,
        output = failed and output_between(job, begun.at, event.at) or "",
    })
end

-- The case a worker was at when it ended.
local function lose_case(self, job, why)
    end_case(self, job, {
        status = "error", text = why, seconds = self.host.now() - job.case_started, at = job.child:written(),
    })
end

-- ---- what a worker tells ---------------------------------------------------------------------------------

local hears = {}

function hears.plan(self, job, event)
    job.planned, job.mark = event.count, event.at
    job.selected = event.count
    if event.all > 0 then return end
    add_failure(self, job, "(no case)", job.file .. ": holds no test case: neither a scenario nor a global "
        .. "table or function named Test... or test...", true)
end

function hears.begin(self, job, event)
    job.current = event
    job.case_started = self.host.now()
    if event.number > 0 then job.next = event.number + 1 end
end

hears["end"] = end_case

function hears.case(_, job, event)
    job.names[#job.names + 1] = event.name
end

function hears.unloadable(self, job, event)
    job.mark, job.finished, job.unloadable = 0, true, true
    add_failure(self, job, "(not loaded)", event.text, true)
end

function hears.again(_, job)
    job.again = true
end

function hears.done(_, job, event)
    job.finished, job.mark = true, event.at
end

function hears.beat() end

local function hear(self, job, text)
    job.heard = self.host.now()
    job.pending = job.pending .. text
    local at = 1
    while true do
        local stop = job.pending:find("\n", at, true)
        if not stop then break end
        local event = wire.decode(job.pending:sub(at, stop))
        hears[event.event](self, job, event)
        at = stop + 1
    end
    job.pending = job.pending:sub(at)
end

-- ---- the life of a worker --------------------------------------------------------------------------------

local function start(self, job)
    local child, why = self.host.start(arguments.of_worker(self.options, job.file, job.next))
    if not child then error("weir test: " .. why, 0) end
    job.child, job.pending, job.current, job.planned, job.again = child, "", nil, nil, nil
    job.started, job.heard, job.mark, job.first = self.host.now(), self.host.now(), 0, job.next
    job.killed = nil
    self.running[#self.running + 1] = job
end

local function how_it_ended(job, how, number, when)
    if job.killed then return job.killed end
    if how == "signal" then
        local name = signals[number] and (" (%s)"):format(signals[number]) or ""
        return ("its process was ended %s by signal %d%s"):format(when, number, name)
    end
    return ("its process ended %s with exit code %d"):format(when, number)
end

local function tell_loss(self, job, how, number)
    if job.current then
        lose_case(self, job, how_it_ended(job, how, number, "in the middle of this case"))
    elseif job.planned then
        add_failure(self, job, "(between cases)", how_it_ended(job, how, number, "between two cases"))
    else
        local why = how_it_ended(job, how, number, "while the file was loaded")
        add_failure(self, job, "(not loaded)", job.file .. ": " .. why, true)
    end
end

-- Whether the job is over; if not, it wants another worker.
local function conclude(self, job, how, number)
    local code = job.unloadable and 2 or 0
    if job.finished then
        if how == "exit" and number == code then return true end
        add_failure(self, job, "(end of file)", how_it_ended(job, how, number, "after the last case"))
        return true
    end
    if not job.again then tell_loss(self, job, how, number) end
    if not job.planned or job.next > job.planned then return true end
    if job.next > job.first then return false end
    add_failure(self, job, "(not run)", ("%d cases were not run: their process does not get that far"):format(
        job.planned - job.next + 1))
    return true
end

local function end_worker(self, job)
    local how, number = job.child:reap()
    local over = conclude(self, job, how, number)
    job.child:close()
    job.child = nil
    for i = #self.running, 1, -1 do
        if self.running[i] == job then table.remove(self.running, i) end
    end
    if over then job.over = true else start(self, job) end
end

local function end_by_force(job, why)
    if job.killed then return end
    job.killed = why
    job.child:signal "KILL"
end

local function check_limits(self, job)
    if job.again then return end -- it is about to end
    if job.child:written() > OUTPUT_MAX then
        end_by_force(job, ("its process was ended: it printed more than %d MB"):format(OUTPUT_MAX / 1048576))
    end
    if self.host.now() - job.heard <= self.options.limit + GRACE then return end
    local where = job.current and job.current.line and ("%s:%d: "):format(job.file, job.current.line) or ""
    end_by_force(job, ("%sstill at work %g s after the limit of %g s, in one long call that cannot be "
        .. "interrupted: its process was ended"):format(where, GRACE, self.options.limit))
end

local function serve(self, job)
    local text = job.child:read()
    while text and text ~= "" do
        hear(self, job, text)
        text = job.child:read()
    end
    if text then check_limits(self, job) else end_worker(self, job) end
end

-- ---- the whole -------------------------------------------------------------------------------------------

local function children(self)
    local list = {}
    for i, job in ipairs(self.running) do list[i] = job.child end
    return list
end

-- Tells results in the order of the files; those of a later file wait.
local function publish(self, all)
    while self.head <= #self.jobs do
        local job = self.jobs[self.head]
        for i = job.told + 1, #job.results do
            job.told = i
            self.on_result(job.results[i])
        end
        if job.over then
            for _, name in ipairs(job.names) do self.on_name(job.file, name) end
        elseif not all then
            return
        end
        self.head = self.head + 1
    end
end

local function supervise(self)
    local started = 0
    while true do
        while #self.running < self.at_once and started < #self.jobs do
            started = started + 1
            start(self, self.jobs[started])
        end
        if #self.running == 0 then break end
        self.host.poll(children(self), TURN)
        local now_running = {}
        for i, job in ipairs(self.running) do now_running[i] = job end
        for _, job in ipairs(now_running) do serve(self, job) end
        publish(self)
    end
    publish(self)
end

-- Workers get time to remove what they have made.
local function end_all(self)
    local patience = self.host.now() + FAREWELL
    for _, job in ipairs(self.running) do job.child:signal "TERM" end
    while #self.running > 0 do
        local late = self.host.now() > patience
        for i = #self.running, 1, -1 do
            local job = self.running[i]
            if late then job.child:signal "KILL" end
            local text = job.child:read()
            while text and text ~= "" do text = job.child:read() end
            if not text then
                job.child:reap()
                table.remove(self.running, i)
            end
        end
        self.host.poll(children(self), 0.05)
    end
end

--- Runs the files. on_result is told each result, a table { name, file, status = "passed", "failed",
-- "error" or "skipped", text, trace, output, seconds, virtual, hash, record, again, unloadable }, and
-- on_name(file, name) each case with --list. Returns how many cases were selected; an error ends all
-- workers and is passed on.
function jobs.run(host, options, on_result, on_name)
    local self = {
        host = host, options = options, jobs = {}, running = {}, head = 1,
        on_result = on_result, on_name = on_name,
        at_once = options.jobs or options.live and 1 or host.cores(),
    }
    for i, file in ipairs(options.files) do
        self.jobs[i] = { file = file, next = 1, results = {}, told = 0, names = {}, selected = 0 }
    end
    local ok, err = pcall(supervise, self)
    if not ok then
        end_all(self)
        publish(self, true)
        error(err, 0)
    end
    local selected = 0
    for _, job in ipairs(self.jobs) do selected = selected + job.selected end
    return selected
end

return jobs
