-- Reads what `ctest --verbose` says and counts single test cases. An entry of ctest is a whole program; its cases are
-- the TAP lines it prints. One line is shown per entry, the output of those that failed, and last `N passed, N failed`.
--
--     ctest --verbose ... | lua5.4 tally.lua LOG
--
-- What counts as failed beside a `not ok` line: an entry that crashed, timed out, could not be started or exits with an error
-- without saying which case failed; one that planned more cases than it reported; one that reports no case at all,
-- unless it is a shell script, which is a case of its own.

local tally = {}

local OUTPUT_LINES = 80 -- shown of an entry that failed

local failures = {
    Failed = "exited with an error though no case failed",
    Exception = "crashed",
    Timeout = "was ended by its time limit",
    ["Not Run"] = "could not be started",
}

local function new_entry()
    return { planned = 0, passed = 0, failed = 0, skipped = 0, seen = {}, output = {} }
end

function tally.new()
    return { entries = {}, passed = 0, failed = 0, skipped = 0, ran = 0, complete = false }
end

local function read_case(entry, line)
    local verdict, rest = line:match "^(n?o?t? ?ok)%s+%d+(.*)$"
    if verdict ~= "ok" and verdict ~= "not ok" then return false end
    if entry.seen[line] then return true end -- a forked child has flushed its copy of the parent's buffer
    entry.seen[line] = true
    if rest:find("#%s*[Ss][Kk][Ii][Pp]") then
        entry.skipped = entry.skipped + 1
    elseif verdict == "ok" then
        entry.passed = entry.passed + 1
    else
        entry.failed = entry.failed + 1
    end
    return true
end

local function read_output(self, number, line)
    local entry = self.entries[number] or new_entry()
    self.entries[number] = entry
    if not entry.started then -- ctest first tells how it starts the program
        entry.started = line:find "^Test timeout computed to be" ~= nil
        return
    end
    entry.output[#entry.output + 1] = line
    local planned = line:match "^1%.%.(%d+)%s*$"
    if planned then
        entry.planned = entry.planned + tonumber(planned)
    else
        read_case(entry, line)
    end
end

-- What is wrong with an entry as a whole, or nil.
local function complaint(entry, name, status)
    local reported = entry.passed + entry.failed + entry.skipped
    if status == "Failed" and entry.failed > 0 then return nil end -- the cases have said it
    if status ~= "Passed" then return failures[status] or status:lower() end
    if reported < entry.planned then
        return ("%d cases planned, %d reported"):format(entry.planned, reported)
    end
    if reported == 0 then
        if not name:find "%.sh$" then return "reported no case" end
        entry.passed = 1
    end
    return nil
end

local function finish(self, number, name, status, seconds)
    local entry = self.entries[number] or new_entry()
    self.entries[number] = nil
    local wrong = complaint(entry, name, status)
    if wrong then entry.failed = entry.failed + 1 end
    self.ran = self.ran + 1
    self.passed = self.passed + entry.passed
    self.failed = self.failed + entry.failed
    self.skipped = self.skipped + entry.skipped
    return { name = name, entry = entry, wrong = wrong, seconds = seconds }
end

--- Takes one line of ctest; returns a report when an entry has ended.
function tally.read(self, line)
    local number, output = line:match "^(%d+): ?(.*)$"
    if number then
        read_output(self, number, output)
        return nil
    end
    local id, name, verdict = line:match "^%s*%d+/%d+%s+Test%s+#(%d+):%s+(%S+)%s+%.*%s*(.-)%s*$"
    if id then
        local status = verdict:match "^Passed" or verdict:match "%*%*%*(%a[%a ]-)%s*%f[%d:]" or "Not understood"
        return finish(self, id, name, status, verdict:match "([%d.]+) sec" or "?")
    end
    local ended = line:match "^ctest ended with (%d+)$"
    if ended then
        self.complete = true
        self.status = tonumber(ended)
    end
    return nil
end

--- True if something ran and nothing failed. Adds a failure where ctest and the count disagree.
function tally.verdict(self)
    local wrong
    if not self.complete then
        wrong = "ctest was cut short"
    elseif self.ran == 0 then
        wrong = "no test was run"
    elseif self.failed == 0 and self.status ~= 0 then
        wrong = ("ctest ended with %d"):format(self.status)
    elseif self.failed == 0 and self.passed == 0 then
        wrong = "every case was skipped"
    end
    if wrong then self.failed = self.failed + 1 end
    return self.failed == 0, wrong
end

local function show(report)
    local entry = report.entry
    local skipped = entry.skipped > 0 and (", %d skipped"):format(entry.skipped) or ""
    local good = entry.failed == 0
    print(("%-4s  %-44s %4d cases%s %8s s"):format(good and "ok" or "FAIL", report.name,
        entry.passed + entry.failed, skipped, report.seconds))
    if good then return end
    local first = math.max(1, #entry.output - OUTPUT_LINES + 1)
    if first > 1 then print(("      | (%d lines before)"):format(first - 1)) end
    for i = first, #entry.output do print("      | " .. entry.output[i]) end
    if report.wrong then print("      " .. report.name .. ": " .. report.wrong) end
end

local function main(path)
    io.stdout:setvbuf "line"
    local log = assert(io.open(path, "w"))
    local self = tally.new()
    for line in io.lines() do
        log:write(line, "\n")
        local report = tally.read(self, line)
        if report then show(report) end
    end
    log:close()
    local good, wrong = tally.verdict(self)
    if wrong then print(wrong .. ", which counts as one failure") end
    if self.skipped > 0 then print(("%d skipped"):format(self.skipped)) end
    if not good then print("everything the tests said: " .. path) end
    print(("%d passed, %d failed"):format(self.passed, self.failed))
    os.exit(good)
end

if ... ~= "tally" then main(...) end -- not by require, so run as a program
return tally
