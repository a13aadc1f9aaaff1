--- How results are written: as text for people, as TAP, as JUnit's XML. A report is made by
-- reports.FORMAT(write, options), is told each result with :case(result) (see jobs.lua), and the sum of
-- them with :finish(summary), a table { passed, failed, skipped, files, seconds, virtual, interrupted }.

local reports = {}

local OUTPUT_LINES = 40          -- of what a failed case has printed, the last ones
local OUTPUT_COLUMNS = 300       -- of each of them

local function each_line(text)
    return ((text or ""):gsub("\n+$", "") .. "\n"):gmatch "([^\n]*)\n"
end

local function seconds_text(seconds)
    return (("%.2f"):format(seconds):gsub(",", "."))
end

-- Terminals, logs and readers of TAP are to see characters, not commands.
local function printable(line)
    return (line:gsub("[%z\1-\8\11-\31\127]", "?"))
end

-- The end of what a case has printed.
local function add_output(lines, output)
    local printed = {}
    for line in each_line(output) do
        printed[#printed + 1] = #line > OUTPUT_COLUMNS and line:sub(1, OUTPUT_COLUMNS) .. "..." or line
    end
    lines[#lines + 1] = "output:"
    for i = math.max(1, #printed - OUTPUT_LINES + 1), #printed do
        lines[#lines + 1] = "  | " .. printable(printed[i])
    end
end

local function is_good(result)
    return result.status == "passed" or result.status == "skipped"
end

-- What there is to say about a case, line by line: of one that passed, its picture if that was asked for.
local function explanation(result)
    local lines = {}
    local function add(text, indent)
        if not text or text == "" then return end
        for line in each_line(text) do lines[#lines + 1] = (indent or "") .. printable(line) end
    end
    add(result.text)
    add(result.trace, "  ")
    if is_good(result) then return lines end
    if result.output and result.output ~= "" then add_output(lines, result.output) end
    if result.record then add("trace: " .. result.record) end
    if result.again then add("again: " .. result.again) end
    return lines
end

-- ---- text ------------------------------------------------------------------------------------------------

local Text = {}
Text.__index = Text

local colours = { ok = 32, FAIL = 31, skip = 33 }

--- options.colour: whether words are coloured.
function reports.text(write, options)
    return setmetatable({ write = write, colour = options.colour }, Text)
end

function Text:word(word)
    local padded = ("%-4s"):format(word)
    return self.colour and ("\27[%dm%s\27[0m"):format(colours[word], padded) or padded
end

function Text:case(result)
    if result.file ~= self.file then
        self.write(printable(result.file), "\n")
        self.file = result.file
    end
    local word = result.status == "skipped" and "skip" or is_good(result) and "ok" or "FAIL"
    local times = seconds_text(result.seconds) .. " s"
    if result.virtual then times = times .. (" for %s s"):format(seconds_text(result.virtual)) end
    local name = printable((result.name:gsub("\n", " ")))
    if result.status == "skipped" then
        self.write("  ", self:word(word), "  ", name, ": ", table.concat(explanation(result), " "), "\n")
        return
    end
    self.write("  ", self:word(word), "  ", name, " (", times, ")\n")
    for _, line in ipairs(explanation(result)) do self.write(line == "" and "" or "        ", line, "\n") end
end

local function count_text(count, noun)
    return ("%d %s%s"):format(count, noun, count == 1 and "" or "s")
end

function Text:finish(summary)
    local cases = summary.passed + summary.failed + summary.skipped
    local times = ("%s in %s s"):format(count_text(cases, "case"), seconds_text(summary.seconds))
    if summary.virtual > 0 then
        times = ("%s for %s s of virtual time"):format(times, seconds_text(summary.virtual))
    end
    self.write("\n", count_text(summary.files, "file"), ", ", times, "\n")
    if summary.interrupted then self.write "interrupted: not all cases were run\n" end
    self.write(("%d passed, %d failed%s\n"):format(summary.passed, summary.failed,
        summary.skipped > 0 and (", %d skipped"):format(summary.skipped) or ""))
end

-- ---- TAP 13, with the escapes of TAP 14, which name what every reader does already ------------------------

local Tap = {}
Tap.__index = Tap

function reports.tap(write)
    return setmetatable({ write = write, count = 0, started = false }, Tap)
end

local function tap_text(text)
    return (printable(text:gsub("\n", " ")):gsub("[\\#]", "\\%0"))
end

function Tap:begin()
    if not self.started then self.write "TAP version 13\n" end
    self.started = true
end

function Tap:case(result)
    self:begin()
    if result.file ~= self.file then
        self.write("# ", printable(result.file), "\n")
        self.file = result.file
    end
    self.count = self.count + 1
    self.write(("%s %d - %s"):format(is_good(result) and "ok" or "not ok", self.count, tap_text(result.name)))
    if result.status == "skipped" then
        self.write(" # SKIP ", tap_text(table.concat(explanation(result), " ")), "\n")
        return
    end
    self.write "\n"
    for _, line in ipairs(explanation(result)) do self.write("# ", line, "\n") end
end

function Tap:finish(summary)
    self:begin()
    if summary.interrupted then
        self.write "Bail out! interrupted\n"
        return
    end
    self.write(("1..%d\n"):format(self.count))
end

-- ---- JUnit -----------------------------------------------------------------------------------------------

local Junit = {}
Junit.__index = Junit

function reports.junit(write)
    return setmetatable({ write = write, suites = {}, started = os.time() }, Junit)
end

-- The bytes of one character of UTF-8 that XML may hold, from `at` on; nil if there is none.
local function character(text, at)
    local first = text:byte(at)
    if first < 0x80 then
        return (first >= 0x20 or first == 9 or first == 10 or first == 13) and text:sub(at, at) or nil
    end
    local length = first >= 0xF0 and first <= 0xF4 and 4 or first >= 0xE0 and first < 0xF0 and 3
        or first >= 0xC2 and first < 0xE0 and 2
    local bytes = length and text:match("^[\128-\191]+", at + 1)
    if not bytes or #bytes < length - 1 then return nil end
    local one = text:sub(at, at + length - 1)
    local second = one:byte(2)
    local bad = first == 0xE0 and second < 0xA0 or first == 0xED and second >= 0xA0 -- overlong, surrogate
        or first == 0xF0 and second < 0x90 or first == 0xF4 and second >= 0x90
        or one == "\239\191\190" or one == "\239\191\191"
    return not bad and one or nil
end

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["\r"] = "&#13;" }
local REPLACEMENT = "\239\191\189"

local function xml(text)
    if not text:find "[^\t\n\32-\126]" then return (text:gsub('[&<>"]', entities)) end
    local out, at = {}, 1
    while at <= #text do
        local one = character(text, at)
        out[#out + 1] = one and (entities[one] or one) or REPLACEMENT
        at = at + (one and #one or 1)
    end
    return table.concat(out)
end

local function attribute(text)
    return (xml(text):gsub("\n", "&#10;"):gsub("\t", "&#9;"))
end

function Junit:case(result)
    local suite = self.suites[#self.suites]
    if not suite or suite.name ~= result.file then
        suite = { name = result.file, failed = 0, errors = 0, skipped = 0, seconds = 0 }
        self.suites[#self.suites + 1] = suite
    end
    suite[#suite + 1] = result
    suite.seconds = suite.seconds + result.seconds
    if result.status == "failed" then suite.failed = suite.failed + 1 end
    if result.status == "error" then suite.errors = suite.errors + 1 end
    if result.status == "skipped" then suite.skipped = suite.skipped + 1 end
end

local function class_of(file)
    return (file:gsub("^%./", ""):gsub("%.lua$", ""):gsub("/", "."))
end

-- What makes a run in virtual time the same again, or shows that it was.
local function properties(result)
    if not result.hash then return "" end
    return ('\n      <properties><property name="seed" value="%d"/><property name="hash" value="%s"/>'
        .. "</properties>"):format(result.seed, attribute(result.hash))
end

function Junit:write_case(result)
    self.write(('    <testcase classname="%s" name="%s" file="%s"'):format(attribute(class_of(result.file)),
        attribute(result.name), attribute(result.file)))
    if result.line then self.write((' line="%d"'):format(result.line)) end
    self.write((' time="%s"'):format(("%.3f"):format(result.seconds):gsub(",", ".")))
    local lines, more = explanation(result), properties(result)
    if result.status == "passed" then
        self.write(more == "" and "/>\n" or ">" .. more .. "\n    </testcase>\n")
    elseif result.status == "skipped" then
        self.write((">%s\n      <skipped message=\"%s\"/>\n    </testcase>\n"):format(more,
            attribute(table.concat(lines, " "))))
    else
        local kind = result.status == "failed" and "failure" or "error"
        local message = (result.text or ""):match "[^\n]*"
        self.write((">%s\n      <%s message=\"%s\">%s</%s>\n    </testcase>\n"):format(more, kind,
            attribute(message), xml(table.concat(lines, "\n")), kind))
    end
end

local function numbers(tests, failed, errors, skipped, seconds)
    local time = ("%.3f"):format(seconds):gsub(",", ".")
    return ('tests="%d" failures="%d" errors="%d" skipped="%d" time="%s"'):format(tests, failed, errors,
        skipped, time)
end

function Junit:finish(summary)
    local errors, failed, cases = 0, 0, summary.passed + summary.failed + summary.skipped
    if summary.interrupted then
        self:case { file = "weir test", name = "(interrupted)", status = "error", seconds = 0,
            text = "interrupted: not all cases were run" }
        cases = cases + 1
    end
    for _, suite in ipairs(self.suites) do
        errors, failed = errors + suite.errors, failed + suite.failed
    end
    self.write('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="weir test" ',
        numbers(cases, failed, errors, summary.skipped, summary.seconds), ">\n")
    for _, suite in ipairs(self.suites) do
        self.write(('  <testsuite name="%s" timestamp="%s" '):format(attribute(suite.name),
            os.date("!%Y-%m-%dT%H:%M:%S", self.started)),
            numbers(#suite, suite.failed, suite.errors, suite.skipped, suite.seconds), ">\n")
        for _, result in ipairs(suite) do self:write_case(result) end
        self.write "  </testsuite>\n"
    end
    self.write "</testsuites>\n"
end

return reports
