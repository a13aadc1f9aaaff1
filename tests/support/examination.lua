--- Runs `weir doctor` on a policy given as text, for tests: what it printed, line by line, as tables.

local json = require "weir.json"

local examination = {}

local BIN = os.getenv "WEIR_BIN" or "build/weir"

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- Runs `weir doctor` with these arguments. Returns its exit code, standard output, and standard error.
function examination.run(arguments, environment)
    local errors = os.tmpname()
    local pipe = io.popen(("%s %s doctor %s 2>%s; echo \" $?\""):format(environment or "", quote(BIN),
        arguments, errors))
    local output, code = pipe:read("a"):match "^(.*) (%d+)\n$"
    pipe:close()
    local file = io.open(errors)
    local said = file:read "a"
    file:close()
    os.remove(errors)
    return tonumber(code), output, said
end

--- Writes the text to a file of its own, calls fn(path), removes it.
function examination.with_file(text, fn)
    local path = os.tmpname()
    local file = io.open(path, "w")
    file:write(text)
    file:close()
    local results = table.pack(pcall(fn, path))
    os.remove(path)
    if not results[1] then error(results[2], 0) end
    return table.unpack(results, 2, results.n)
end

local Report = {}
Report.__index = Report

--- The lines of this id, those of one client alone if it is given.
function Report:all(id, client)
    local found = {}
    for _, line in ipairs(self.lines) do
        if line.id == id and (not client or line.client == client) then found[#found + 1] = line end
    end
    return found
end

--- The only line of this id.
function Report:line(id, client)
    local found = self:all(id, client)
    if #found == 1 then return found[1] end
    error(("%d lines %s, not one:\n%s"):format(#found, id, self.output), 2)
end

--- The ids of all that is not ok, each once, sorted.
function Report:trouble()
    local ids, seen = {}, {}
    for _, line in ipairs(self.lines) do
        if line.level ~= "ok" and not seen[line.id] then
            seen[line.id] = true
            ids[#ids + 1] = line.id
        end
    end
    table.sort(ids)
    return ids
end

--- Examines the policy with --json.
-- @return { code, output, said, lines }
function examination.of(policy, arguments, environment)
    return examination.with_file(policy, function(path)
        local report = setmetatable({ lines = {} }, Report)
        report.code, report.output, report.said = examination.run(
            ("--json %s %s"):format(arguments or "", quote(path)), environment)
        for line in report.output:gmatch "[^\n]+" do
            report.lines[#report.lines + 1] = assert(json.decode(line))
        end
        return report
    end)
end

return examination
