--- Somebody who types at a Weir console on a pseudo-terminal and keeps the transcript, with what differs
-- from one run to the next (times, process ids, measured durations, folders) put in words.

local lu = require "luaunit"
local serving = require "serving"
local terminal = require "terminal"

local typist = {}

local Typist = {}
Typist.__index = Typist

local BIN = os.getenv "WEIR_BIN" or "build/weir"
local PATIENCE = 30 -- seconds

--- Starts `weir ARGUMENTS` in a folder of its own: folder (made if none is given), command (instead of
-- `weir`), env. The terminal is high enough to hold a whole session.
function typist.sit_down(arguments, options)
    options = options or {}
    local folder = options.folder or serving.folder()
    local env = { WEIR_HISTORY = folder .. "/history", NO_COLOR = "1" }
    for name, value in pairs(options.env or {}) do env[name] = value end
    local command = ("env --default-signal=INT,TERM,HUP -C %s %s %s"):format(folder, options.command
        or BIN, arguments)
    local self = setmetatable({ folder = folder, keeps_folder = options.folder ~= nil, from = 1 }, Typist)
    self.terminal = terminal.open { command = command, width = options.width or 150, height = 240, env = env }
    return self
end

-- The number of the last line that is not empty, and the line.
local function last_line(lines)
    for i = #lines, 1, -1 do
        if lines[i] ~= "" then return i, lines[i] end
    end
    return 0, ""
end

--- Waits for a prompt under everything that was there before; returns the lines since then, the prompt
-- among them.
function Typist:prompt(pattern)
    local lines = serving.wait(function()
        local lines = self.terminal:lines()
        local n, text = last_line(lines)
        return n >= self.from and text:find(pattern or "> ?$") and lines
    end, "a prompt:\n" .. self.terminal:text(), PATIENCE)
    local n = last_line(lines)
    local said = table.move(lines, self.from, n, 1, {})
    self.from = n
    return said
end

--- Types one line and waits for the next prompt. Returns what came between, without prompts.
function Typist:enter(line, pattern)
    self.terminal:type(line .. "\r")
    self.from = self.from + 1
    local said = self:prompt(pattern)
    said[#said] = nil
    return table.concat(said, "\n")
end

--- Types without Enter.
function Typist:keys(keys)
    self.terminal:type(keys)
end

--- Types a line that does not end by itself, and presses Ctrl-C until there is a prompt. Returns what came
-- between.
function Typist:interrupts(line)
    local start, pressed = self.from, 0
    self.terminal:type(line .. "\r")
    serving.wait(function()
        os.execute "sleep 0.3"
        local n, text = last_line(self.terminal:lines())
        if n > start and text:find "[^.]> ?$" then return true end
        self.terminal:type "\3"
        pressed = pressed + 1
    end, "the end of " .. line, PATIENCE)
    if pressed > 1 then os.execute "sleep 0.5" end -- the last one may have come late, and made a prompt more
    local lines = self.terminal:lines()
    self.from = last_line(lines)
    return table.concat(lines, "\n", start + 1, self.from - 1)
end

--- Waits until the last line matches; returns it.
function Typist:sees(pattern)
    return serving.wait(function()
        local _, text = last_line(self.terminal:lines())
        return text:find(pattern) and text
    end, pattern, PATIENCE)
end

--- Waits for the text anywhere on the screen.
function Typist:wait_for(text)
    self.terminal:wait_for(text)
end

local words = {
    { "%d%d:%d%d:%d%d%.%d%d%d", "TIME" }, { "%d%d:%d%d:%d%d", "TIME" },
    { "retry_after  [%d.]+", "retry_after  SECONDS" }, { "retry after [%d.]+ s", "retry after SECONDS" },
    { "in [%d.]+ s at the latest", "in SECONDS at the latest" }, { "again in [%d.]+ s", "again in SECONDS" },
    { "/dev/shm/weir%-[%w.]+", "SERVER" }, { "/tmp/weir%-[%w.]+", "SERVER" },
    { "%f[%d]%d+%.%d ms%f[^%w]", "DURATION" }, { "%f[%d]%d+ [mu]s%f[^%w]", "DURATION" },
    { "%f[%d]%d+%.%d s%f[^%w]", "DURATION" },
    { "by %S+ %(uid %d+, process %d+%)", "by USER (uid UID, process PID)" }, { "in process %d+",
        "in process PID" },
}

--- The text with what is different each time put in words.
function Typist:steady(text)
    text = text:gsub(self.folder:gsub("%p", "%%%0"), "FOLDER")
    for _, pair in ipairs(words) do text = text:gsub(pair[1], pair[2]) end
    return text
end

--- The whole session so far.
function Typist:transcript()
    local lines = self.terminal:lines()
    return self:steady(table.concat(lines, "\n", 1, (last_line(lines))))
end

local GOLDEN = (os.getenv "WEIR_SOURCE_DIR" or ".") .. "/tests/cli/golden/"

-- Columns are as wide as what is measured.
local function without_widths(text)
    return (text:gsub("(%S)  +", "%1  "):gsub(" +DURATION", " DURATION"))
end

--- Compares the whole session with golden/NAME.txt, without lines that hold `left_out`. WEIR_GOLDEN=write
-- writes it anew.
function Typist:matches(name, left_out)
    local kept = {}
    for line in self:transcript():gmatch "[^\n]+" do
        if not left_out or not line:find(left_out) then kept[#kept + 1] = without_widths(line) end
    end
    local text = table.concat(kept, "\n") .. "\n"
    if os.getenv "WEIR_GOLDEN" == "write" then serving.write(GOLDEN .. name .. ".txt", text) end
    lu.assertEquals(text, serving.read(GOLDEN .. name .. ".txt"))
end

--- Ctrl-D, and the exit code.
function Typist:leaves()
    self.terminal:type "\4"
    return (self.terminal:ended())
end

--- Ends what still runs, and clears up.
function Typist:gets_up()
    self.terminal:close()
    if not self.keeps_folder then os.execute("rm -rf " .. serving.quote(self.folder)) end
end

return typist
