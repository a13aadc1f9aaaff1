--- The command `weir test`: reads its arguments, and is either the supervisor or one of its workers.
--
-- `host` is what it needs of the system, given by src/cli: see children.c and watchdog.c.

local arguments = require "weir.testing.arguments"
local jobs = require "weir.testing.jobs"
local reports = require "weir.testing.reports"

local command = {}

local GOOD, FAILED, USAGE = 0, 1, 2

local function complain(text)
    io.stderr:write("weir test: ", text, "\n")
    return USAGE
end

-- ---- where the results go --------------------------------------------------------------------------------

local function to_stdout(...)
    io.stdout:write(...)
end

local function text_to_stdout(host)
    local no_color = os.getenv "NO_COLOR"
    return reports.text(to_stdout, { colour = host.terminal() and (no_color == nil or no_color == "") })
end

-- The reports to write, or nil and why there are none.
local function open_reports(host, options)
    if not options.output then
        local report = options.format == "text" and text_to_stdout(host) or reports[options.format](to_stdout)
        return { report }
    end
    local file, why = io.open(options.output, "w")
    if not file then return nil, ("--output: cannot write %s"):format(why) end
    local report = reports[options.format](function(...)
        file:write(...)
    end, { colour = false })
    return { text_to_stdout(host), report, file = file }
end

local function make_folder(host, path)
    local kind, why = host.kind(path)
    if kind == "folder" then return true end
    if kind then return nil, ("--record %s: it must be a folder"):format(path) end
    if why == "No such file or directory" then
        local ok, failure = host.make_folder(path)
        return ok, not ok and ("--record: the folder cannot be made: %s"):format(failure) or nil
    end
    return nil, ("--record %s: %s"):format(path, why)
end

-- ---- the supervisor --------------------------------------------------------------------------------------

local function new_summary(options)
    return { passed = 0, failed = 0, skipped = 0, virtual = 0, unloadable = 0, files = #options.files }
end

local function count(summary, result)
    local key = result.status == "error" and "failed" or result.status
    summary[key] = summary[key] + 1
    summary.virtual = summary.virtual + (result.virtual or 0)
    if result.unloadable then summary.unloadable = summary.unloadable + 1 end
end

local function finish(written, summary)
    for _, report in ipairs(written) do report:finish(summary) end
    if not written.file then return true end
    local ok, why = written.file:close()
    if not ok then complain("--output: " .. why) end
    return ok
end

local function supervise(host, options, written)
    local summary, started = new_summary(options), host.now()
    local ok, selected = pcall(jobs.run, host, options, function(result)
        count(summary, result)
        for _, report in ipairs(written) do report:case(result) end
        io.stdout:flush()
    end)
    summary.seconds = host.now() - started
    summary.interrupted = not ok
    local all_written = finish(written, summary)
    if not ok then error(selected, 0) end
    if summary.unloadable > 0 then return USAGE end
    if selected == 0 then return complain "no case has a name that --filter lets through" end
    return summary.failed == 0 and all_written and GOOD or FAILED
end

local function list(host, options)
    local code = GOOD
    jobs.run(host, options, function(result)
        code = USAGE
        io.stderr:write("weir test: ", result.text, "\n")
    end, function(file, name)
        io.write(file, ": ", name, "\n")
    end)
    return code
end

--- Runs the command; returns its exit code.
function command.main(host, ...)
    local options, why = arguments.parse { ... }
    if not options then return complain(why) end
    if options.worker then
        if not host.work() then return complain "--worker is for its own use" end
        return require("weir.testing.suite").work(host, options)
    end
    if options.list then return list(host, options) end
    if options.record then
        local ok, failure = make_folder(host, options.record)
        if not ok then return complain(failure) end
    end
    local written, failure = open_reports(host, options)
    if not written then return complain(failure) end
    return supervise(host, options, written)
end

return command
