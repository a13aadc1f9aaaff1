--- The worker of `weir test`: runs the cases of one file under luaunit and tells the supervisor each result.

local arguments = require "weir.testing.arguments"
local collect = require "weir.testing.collect"
local wire = require "weir.testing.wire"

local suite = {}

local ENOUGH = {}                -- raised to end luaunit's run before its last case

local function nothing() end

-- ---- what a case shows -----------------------------------------------------------------------------------

-- The lines of a traceback that say more than the message: without the runner's own, which begin with the
-- call of guard(), and without the one line where the message comes from.
local function clean_trace(trace, message)
    local lines = {}
    for line in (trace or ""):gmatch "[^\n]+" do
        if line:find("weir/testing/suite.lua:", 1, true) then break end
        local own = line:find("luaunit.lua:", 1, true) or line:find "^stack traceback"
            or line:find("[C]: in function 'error'", 1, true)
        if not own then lines[#lines + 1] = line:gsub("^%s+", ""):gsub("in local 'fn'", "in the test") end
    end
    local where = #lines == 1 and lines[1]:match "^(.-:%d+:)"
    if where and type(message) == "string" and message:sub(1, #where) == where then return "" end
    return table.concat(lines, "\n")
end

-- "path/to/outage.lua", 3, "a crash, and back" -> "path-to-outage-003-a-crash-and-back-seed1.trace"
local function trace_path(folder, case, number)
    local stem = case.file:gsub("^%./", ""):gsub("%.lua$", ""):gsub("[^%w_.]+", "-"):gsub("^[-.]+", "")
    local slug = case.base:gsub("[^%w_.]+", "-"):gsub("^%-", ""):sub(1, 60):gsub("%-$", "")
    return ("%s/%s-%03d-%s-seed%d.trace"):format(folder, stem:sub(-80), number, slug, case.seed)
end

-- ---- running a scenario ----------------------------------------------------------------------------------

local function open_record(self, case)
    if not self.options.record then return nil end
    local path = trace_path(self.options.record, case, self.number)
    local file, why = io.open(path, "w")
    if not file then error(("--record: no trace can be written: %s"):format(why), 0) end
    return { path = path, file = file }
end

local function close_record(self, record)
    if not record then return end
    record.file:close()
    if self.host.interrupted() then
        os.remove(record.path)
    else
        self.current.record = record.path
    end
end

-- Whether whoever looks at the picture may see only plain characters.
local function wants_ascii()
    for _, name in ipairs { "LC_ALL", "LC_CTYPE", "LANG" } do
        local value = os.getenv(name)
        if value and value ~= "" then return not value:upper():find "UTF%-?8" end
    end
    return true
end

local function run_scenario(self, case)
    local record = open_record(self, case)
    local options = { seed = case.seed, live = self.options.live, ascii = wants_ascii() }
    if record then
        options.record = function(line)
            record.file:write(line, "\n")
        end
    end
    local ok, report = pcall(case.scenario.run, case.scenario, options)
    close_record(self, record)
    if not ok then error(report, 0) end
    self.current.report = report
    if report.skipped then self.lu.skip(report.skipped) end
    if not report.ok then self.lu.fail(report.text or table.concat(report.failures, "\n")) end
end

-- ---- calls, each within the limit ------------------------------------------------------------------------

-- A task that failed and that nobody joined has spoken on stderr.
local function hear_tasks()
    local loop = package.loaded["weir.loop"]
    if loop and loop.run(nothing) == false then
        error("a task failed and nobody joined it; what it said is in the output", 0)
    end
end

local function call_and_hear(fn, ...)
    fn(...)
    hear_tasks()
end

-- What luaunit calls instead of a function of the file. The errors of a Weir object are to be read as text.
local function guard(self, fn, instance)
    return function()
        self.tell { event = "beat" }
        local watch, limit = self.host.watch, self.options.limit
        local ok, err, trace, late = watch(limit, self.chunk, call_and_hear, fn, instance)
        if ok then return end
        self.trace, self.late = trace, self.late or late
        if not late then watch(limit, self.chunk, pcall, hear_tasks) end
        local meta = type(err) == "table" and getmetatable(err)
        error(type(meta) == "table" and rawget(meta, "__tostring") and collect.as_text(err) or err, 0)
    end
end

local function make_runner(self)
    local unit = self.lu.LuaUnit
    local runner = unit.new()
    function runner.protectedCall(runner_self, instance, fn, name)
        self.trace, self.call_name = nil, name
        -- luaunit would put the name into the trace, and a % in it says something else there
        local result = unit.protectedCall(runner_self, nil, guard(self, fn, instance))
        if result.trace then result.trace = clean_trace(self.trace, result.msg) end
        return result
    end
    -- luaunit has no case to blame for what a set-up of a whole class or file does
    function runner.updateStatus(runner_self, result)
        if runner_self.result.currentNode then return unit.updateStatus(runner_self, result) end
        if result.status ~= "SUCCESS" and result.status ~= "SKIP" then
            self.stray(result)
        end
    end
    runner.outputType = { new = function() return self.output end }
    return runner
end

-- ---- telling what happens --------------------------------------------------------------------------------

local words = { SUCCESS = "passed", FAIL = "failed", ERROR = "error", SKIP = "skipped" }

local function set_seed(case)
    math.randomseed(case.seed)
    local sim = package.loaded["weir.sim"]
    if sim then sim.default_seed(case.seed) end
end

local function text_to_tell(status, message, report, pictures)
    if status == "SUCCESS" then return pictures and report and report.picture or nil end
    if status == "SKIP" and report then return report.skipped end
    if status == "FAIL" and report and report.text then return report.text end -- without a line of ours
    return collect.as_text(message)
end

-- A limit that ran out in the middle of our own code has no line of the file's; then it is that of the case.
local function with_line(self, text)
    local case, file = self.current and self.current.case, self.options.files[1]
    local has_line = text:sub(1, #file + 1) == file .. ":"
    if not self.late or not case or not case.line or has_line then return text end
    return ("%s:%d: %s"):format(file, case.line, text:match "^[^\n]-:%d+: (.*)$" or text)
end

local function tell_begin(self, case, number)
    self.tell {
        event = "begin", number = number, name = case.name, base = case.base, seed = case.seed,
        line = case.line, at = self.host.printed(),
    }
end

-- What is wrong in a scenario file is said in one sentence with its line; a traceback adds nothing.
local function trace_to_tell(self, status, text, trace)
    if status ~= "ERROR" or not trace or trace == "" then return nil end
    local says_where = text:sub(1, #self.options.files[1] + 1) == self.options.files[1] .. ":"
    if says_where and (self.late or self.current and self.current.case.scenario) then return nil end
    return trace
end

local function tell_end(self, status, message, trace, seconds)
    local report = self.current and self.current.report
    local figures = report and report.figures
    local text = text_to_tell(status, message, report, self.options.pictures)
    text = text and status ~= "SUCCESS" and with_line(self, text) or text
    self.tell {
        event = "end", status = words[status], text = text,
        trace = trace_to_tell(self, status, text or "", trace), seconds = seconds,
        virtual = not self.options.live and type(figures) == "table" and tonumber(figures.ended) or nil,
        hash = report and report.hash or nil, record = self.current and self.current.record,
        at = self.host.printed(),
    }
end

local function stop_if_need_be(self)
    if self.host.interrupted() then error(ENOUGH, 0) end
    if not self.late then return end
    -- What was cut off in the middle has left who knows what behind: a fresh process takes the rest.
    self.tell { event = "again" }
    error(ENOUGH, 0)
end

local function make_output(self)
    local output = { startSuite = nothing, updateStatus = nothing, endClass = nothing, endSuite = nothing }
    function output.startTest()
        self.number = self.number + 1
        local case = self.cases[self.number]
        self.current = { case = case, started = self.host.now() }
        set_seed(case)
        tell_begin(self, case, self.number)
    end
    function output.endTest(_, node)
        tell_end(self, node.status, node.msg, node.stackTrace, self.host.now() - self.current.started)
        self.current = nil
        stop_if_need_be(self)
    end
    function output.startClass()
        set_seed(self.cases[self.number + 1])
    end
    return output
end

-- A failed setupClass and its like, as a case of its own.
local function make_stray(self)
    return function(result)
        local name = self.call_name
        tell_begin(self, { name = name, base = name, seed = self.options.seed }, 0)
        tell_end(self, result.status, result.msg, result.trace, 0)
        stop_if_need_be(self)
    end
end

-- ---- the whole -------------------------------------------------------------------------------------------

local function item_of(self, case)
    if not case.scenario then return { case.item, case.instance } end
    return { case.name, function()
        run_scenario(self, case)
    end }
end

local function run_cases(self, from)
    local items = {}
    for number = from, #self.cases do items[#items + 1] = item_of(self, self.cases[number]) end
    self.number = from - 1
    self.output, self.stray = make_output(self), make_stray(self)
    local runner = make_runner(self)
    runner:registerSuite()
    local ok, err = pcall(runner.internalRunSuiteByInstances, runner, items)
    runner:unregisterSuite()
    if ok then
        self.tell { event = "done", at = self.host.printed() }
    elseif err ~= ENOUGH then
        error(err, 0)
    end
end

local function list_cases(self)
    for _, case in ipairs(self.cases) do self.tell { event = "case", name = case.name } end
    self.tell { event = "done", at = self.host.printed() }
end

--- Runs the one file of `options`, from its case number options.worker on. Returns the exit code.
function suite.work(host, options)
    local file = options.files[1]
    local function tell(event)
        host.tell(wire.encode(event))
    end
    rawset(_G, "arg", { [-2] = "weir", [-1] = "test", [0] = file })
    local found, lu = pcall(require, "luaunit")
    if not found then
        tell { event = "unloadable", text = "luaunit is not to be found (Debian: lua-unit)", at = 0 }
        return 2
    end
    math.randomseed(options.seed)
    local asked, why = collect.load(file, lu, host.watch, options.limit)
    if not asked then
        tell { event = "unloadable", text = why, at = host.printed() }
        return 2
    end
    local cases, all = collect.cases(asked, file, options, function(name)
        return arguments.selects(options.filters, name)
    end)
    tell { event = "plan", count = #cases, all = all, at = host.printed() }
    local self = { host = host, options = options, lu = lu, cases = cases, tell = tell, chunk = "@" .. file }
    if options.list then list_cases(self) else run_cases(self, options.worker) end
    return 0
end

return suite
