--- Where in the operator's file something stands, and sentences that begin with it.
--
-- A word like s.crash knows its line from the call stack. A key inside a table has no line of its own, so it
-- is searched in the source, from the line of the word on, key by key: good enough to put the reader there.

local place = {}

local Spot = {}
Spot.__index = Spot

-- Frames of the scenario's own modules are ours; the first one outside belongs to the operator.
local own = debug.getinfo(1, "S").source:match("^(.*[/\\])[^/\\]*$"):gsub("[/\\]$", "")

local function is_ours(frame)
    return frame.what == "C" or frame.source:sub(1, 2) == "=(" or frame.source == "=?" or
        frame.source:sub(1, #own) == own and not frame.source:find("^[%w_-]", #own + 1)
end

local function file_of(frame)
    return frame.source:sub(1, 1) == "@" and frame.source:sub(2) or frame.short_src
end

--- The line of the operator's file that called into us; `title` begins the names of what is looked up below
-- it.
function place.here(title)
    local level = 2
    local frame = debug.getinfo(level, "Sl")
    while frame and is_ours(frame) do
        level = level + 1
        frame = debug.getinfo(level, "Sl")
    end
    if not frame then return place.spot("?", 0, title) end
    return place.spot(file_of(frame), frame.currentline, title)
end

--- Where a function was written.
function place.of_function(fn)
    local frame = debug.getinfo(fn, "S")
    return place.spot(file_of(frame), frame.linedefined)
end

--- Where a coroutine that waits stands in the operator's file; nil if it is nowhere in there.
function place.of_thread(thread)
    local level = 0
    local frame = debug.getinfo(thread, level, "Sl")
    local weir = own:gsub("[^/\\]*$", "")
    while frame do
        if frame.what ~= "C" and frame.source:sub(1, #weir) ~= weir then
            return place.spot(file_of(frame), frame.currentline)
        end
        level = level + 1
        frame = debug.getinfo(thread, level, "Sl")
    end
    return nil
end

function place.spot(file, line, title)
    return setmetatable({ file = file, line = line, title = title, steps = {} }, Spot)
end

--- The spot of the field or element `key` of the table that stands here.
function Spot:at(key)
    local steps = {}
    for i, step in ipairs(self.steps) do steps[i] = step end
    steps[#steps + 1] = { key = key }
    return setmetatable({ file = self.file, line = self.line, title = self.title, steps = steps }, Spot)
end

--- An element of a list has no key to search for; a string that stands in it will do.
function Spot:mark(hint)
    self.steps[#self.steps].hint = hint
end

--- The name of what stands here: servers.primary.workers, load.calls[2].weight.
function Spot:name()
    local parts = {}
    for _, step in ipairs(self.steps) do
        if type(step.key) == "number" then
            parts[#parts + 1] = ("[%d]"):format(step.key)
        else
            parts[#parts + 1] = (#parts > 0 and "." or "") .. tostring(step.key)
        end
    end
    local path = table.concat(parts)
    if not self.title then return path end
    return path == "" and self.title or self.title .. ": " .. path
end

-- ---- searching
-- --------------------------------------------------------------------------------------------

local function lines_of(path)
    local file = io.open(path, "r")
    if not file then return nil end
    local lines = {}
    for line in file:lines() do lines[#lines + 1] = line end
    file:close()
    return lines
end

-- The line without its comment; two dashes between quotes are none.
local function code_of(line)
    local quote
    for i = 1, #line do
        local c = line:sub(i, i)
        if quote then
            if c == quote and line:sub(i - 1, i - 1) ~= "\\" then quote = nil end
        elseif c == '"' or c == "'" then
            quote = c
        elseif line:sub(i, i + 1) == "--" then
            return line:sub(1, i - 1)
        end
    end
    return line
end

local function plain(text)
    return (text:gsub("%W", "%%%0"))
end

local function find_step(line, step, from)
    if step.hint then return line:find(step.hint, from, true) end
    if type(step.key) ~= "string" then return nil end
    local key = plain(step.key)
    return line:find("%f[%w_]" .. key .. "%f[^%w_]%s*=%f[^=]", from) or
        line:find("%[%s*[\"']" .. key .. "[\"']%s*%]%s*=", from)
end

local function find_from(lines, number, from, step)
    for at = number, #lines do
        local line = code_of(lines[at])
        -- Another scenario has keys of the same names.
        if at > number and line:find("%.scenario%s*[%(\"'%[]") then return nil end
        local column = find_step(line, step, from)
        if column then return at, column + 1 end
        from = 1
    end
    return nil
end

--- The line, as near as it can be found.
function Spot:found()
    local lines = #self.steps > 0 and lines_of(self.file)
    if not lines then return self.line end
    local number, from = self.line, 1
    for _, step in ipairs(self.steps) do
        local at, column = find_from(lines, number, from, step)
        if at then number, from = at, column end
    end
    return number
end

-- ---- speaking
-- ---------------------------------------------------------------------------------------------

--- FILE:LINE
function Spot:text()
    return ("%s:%d"):format(self.file, self:found())
end

--- FILE:LINE: sentence.
function Spot:say(format, ...)
    return self:text() .. ": " .. (select("#", ...) > 0 and format:format(...) or format)
end

--- Raises one sentence that begins with FILE:LINE.
function Spot:fail(format, ...)
    error(self:say(format, ...), 0)
end

--- The same, with the name of what stands here before the sentence.
function Spot:wrong(format, ...)
    local sentence = select("#", ...) > 0 and format:format(...) or format
    self:fail("%s", self:name() .. " " .. sentence)
end

--- Calls fn(...); the misuse it raises, which blames a line of ours, is said of this spot.
function Spot:translate(fn, ...)
    local ok, result, more = pcall(fn, ...)
    if ok then return result, more end
    if type(result) ~= "string" then error(result, 0) end
    local message = result:match("^[^\n]-:%d+: (.*)$") or result
    self:fail("%s", (message:gsub("^weir: ", "")))
end

return place
