--- A terminal for tests: a program on a pseudo-terminal (by script(1)), and an xterm, as much of one as
-- ncurses and line editors ask for, that reads what the program draws.
--
--     local t = terminal.open { command = "build/weir top --area x", width = 80, height = 24 }
--     t:wait_for "calls"      t:type "q"      t:ended()

local terminal = {}

local Terminal = {}
Terminal.__index = Terminal

local opened = {}   -- those that are not closed yet
local PATIENCE = 20 -- seconds after which a test that waits gives up

-- ---- the screen -------------------------------------------------------------------------------------------

local function blank_row(width)
    local row = {}
    for i = 1, width do row[i] = " " end
    return row
end

local function clear(self)
    self.rows = {}
    for i = 1, self.height do self.rows[i] = blank_row(self.width) end
end

local function clamp(value, least, most)
    return math.max(least, math.min(most, value))
end

local function fill(self, row, first, last)
    for column = first, last do self.rows[row][column] = " " end
end

local function scroll(self, first, last, by)
    for _ = 1, math.abs(by) do
        table.remove(self.rows, by > 0 and first or last)
        table.insert(self.rows, by > 0 and last or first, blank_row(self.width))
    end
end

local function line_feed(self)
    if self.row == self.bottom then
        scroll(self, self.top, self.bottom, 1)
    else
        self.row = math.min(self.height, self.row + 1)
    end
end

local function put(self, letter)
    if self.column > self.width then
        self.column = 1
        line_feed(self)
    end
    self.rows[self.row][self.column] = letter
    self.last = letter
    self.column = self.column + 1
end

local controls = {
    ["\r"] = function(self) self.column = 1 end,
    ["\n"] = line_feed,
    ["\b"] = function(self) self.column = math.max(1, math.min(self.column, self.width) - 1) end,
    ["\t"] = function(self) self.column = math.min(self.width, (self.column - 1) // 8 * 8 + 9) end,
    ["\a"] = function(self) self.bells = self.bells + 1 end,
}

-- Commands of the form ESC [ numbers letter; n is the first number or nil.
local commands = {
    H = function(self, n, m)
        self.row, self.column = clamp(n or 1, 1, self.height), clamp(m or 1, 1, self.width)
    end,
    A = function(self, n) self.row = math.max(1, self.row - (n or 1)) end,
    B = function(self, n) self.row = math.min(self.height, self.row + (n or 1)) end,
    C = function(self, n) self.column = math.min(self.width, self.column + (n or 1)) end,
    D = function(self, n) self.column = math.max(1, self.column - (n or 1)) end,
    d = function(self, n) self.row = clamp(n or 1, 1, self.height) end,
    G = function(self, n) self.column = clamp(n or 1, 1, self.width) end,
    K = function(self, n)
        fill(self, self.row, (n or 0) == 0 and self.column or 1, n == 1 and self.column or self.width)
    end,
    J = function(self, n)
        if n == 2 then return clear(self) end
        fill(self, self.row, self.column, self.width)
        for row = self.row + 1, self.height do fill(self, row, 1, self.width) end
    end,
    X = function(self, n) fill(self, self.row, self.column, math.min(self.width, self.column + (n
        or 1) - 1)) end,
    P = function(self, n)
        for _ = 1, n or 1 do
            table.remove(self.rows[self.row], self.column)
            table.insert(self.rows[self.row], " ")
        end
    end,
    ["@"] = function(self, n)
        for _ = 1, n or 1 do
            table.insert(self.rows[self.row], self.column, " ")
            table.remove(self.rows[self.row])
        end
    end,
    b = function(self, n)
        for _ = 1, n or 1 do put(self, self.last) end
    end,
    L = function(self, n) scroll(self, self.row, self.bottom, -(n or 1)) end,
    M = function(self, n) scroll(self, self.row, self.bottom, n or 1) end,
    S = function(self, n) scroll(self, self.top, self.bottom, n or 1) end,
    T = function(self, n) scroll(self, self.top, self.bottom, -(n or 1)) end,
    r = function(self, n, m)
        self.top, self.bottom, self.row, self.column = n or 1, m or self.height, 1, 1
    end,
    m = function(self, _, _, list)
        for _, number in ipairs(list) do
            self.attributes = self.attributes or (number and number > 0 and number < 30)
            self.colours = self.colours or (number and number >= 30 and number <= 37)
        end
    end,
}

local function take_command(self, text, at)
    local private, numbers, letter, after = text:match("^\27%[([?>!]?)([%d;]*)([%a@])()", at)
    if not letter then return nil end
    local action = private == "" and commands[letter]
    if action then
        local list = {}
        for number in (numbers .. ";"):gmatch "(%d*);" do list[#list + 1] = tonumber(number) or false end
        action(self, list[1] or nil, list[2] or nil, list)
    end
    if private == "?" and numbers == "1049" then self.alternate = letter == "h" end
    if private == "?" and numbers:find "%f[%d]25%f[%D]" then self.cursor = letter == "h" end
    return after
end

local function take_escape(self, text, at)
    if text:sub(at, at + 1) == "\27[" then return take_command(self, text, at) end
    if text:find("^\27[()].", at) then return at + 3 end
    if text:sub(at, at + 1) == "\27M" then self.row = math.max(1, self.row - 1) end
    return #text > at and at + 2 or nil
end

-- Where the character that starts at `at` ends, or nil if it is not whole yet.
local function character_end(text, at)
    local byte = text:byte(at)
    local length = byte < 0x80 and 1 or byte < 0xe0 and 2 or byte < 0xf0 and 3 or 4
    return at + length - 1 <= #text and at + length - 1 or nil
end

local function draw(self, text)
    text = self.rest .. text
    local at = 1
    while at <= #text do
        local first, after = text:sub(at, at), nil
        if first == "\27" then
            after = take_escape(self, text, at)
        elseif controls[first] then
            controls[first](self)
            after = at + 1
        elseif first:byte() < 32 then
            after = at + 1
        else
            local last = character_end(text, at)
            if last then put(self, text:sub(at, last)) end
            after = last and last + 1
        end
        if not after then break end
        at = after
    end
    self.rest = text:sub(at)
end

-- ---- the program ------------------------------------------------------------------------------------------

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function write(path, text)
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
end

local function read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read "a"
    file:close()
    return text
end

local function settings_of(options)
    local lines = { "unset LINES COLUMNS NO_COLOR LC_ALL LC_CTYPE", "export TERM=xterm LANG=C.UTF-8 TZ=UTC" }
    for name, value in pairs(options.env or {}) do lines[#lines + 1] = ("export %s=%s"):format(name,
        quote(value)) end
    return table.concat(lines, "\n")
end

--- Starts `command` (for sh) on a terminal of `width` by `height`, with `env` on top of a plain
-- environment.
function terminal.open(options)
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute(("mkdir %s && mkfifo %s/keys"):format(quote(folder), quote(folder))))
    local self = setmetatable({
        folder = folder, width = options.width or 80, height = options.height or 24, rest = "", read = 0,
            bells = 0,
        row = 1, column = 1, top = 1, bottom = options.height or 24, last = " ", cursor = true,
    }, Terminal)
    clear(self)
    write(folder .. "/inside", ([[
        cd %s; %s
        stty rows %d cols %d; tty >tty.new; mv tty.new tty; stty -g >before
        cd - >/dev/null
        trap : INT QUIT HUP # the program's own affair
        sh -c 'echo $$ >%s/pid; exec %s'
        echo $? >%s/code.new
        cd %s && stty -g >after && mv code.new code
    ]]):format(quote(folder), settings_of(options), self.height, self.width, folder,
        options.command:gsub("'", "'\\''"), folder, quote(folder)))
    local started = "env --default-signal=INT,QUIT,HUP script -qfec 'sh %s/inside' /dev/null <%s/keys >%s/drawn 2>&1 &"
    assert(os.execute(started:format(folder, folder, folder)))
    self.keys = assert(io.open(folder .. "/keys", "w"))
    self.keys:setvbuf "no"
    opened[self] = true
    return self
end

--- Presses keys.
function Terminal:type(text)
    self.keys:write(text)
end

local function update(self)
    local file = io.open(self.folder .. "/drawn", "rb")
    if not file then return end
    file:seek("set", self.read)
    local text = file:read "a"
    file:close()
    self.read = self.read + #text
    draw(self, text)
end

--- The screen as it is now: lines, without blanks at their ends.
function Terminal:lines()
    update(self)
    local lines = {}
    for i, row in ipairs(self.rows) do lines[i] = (table.concat(row):gsub("%s+$", "")) end
    return lines
end

--- The same as one text.
function Terminal:text()
    return table.concat(self:lines(), "\n")
end

--- Everything that was sent to the terminal since the beginning, escape sequences and all.
function Terminal:sent()
    return read(self.folder .. "/drawn") or ""
end

-- Looks until `seen` gives something; nil if that takes too long.
local function look_until(seen)
    local limit = os.time() + PATIENCE
    while os.time() < limit do
        local value = seen()
        if value then return value end
        os.execute "sleep 0.05"
    end
end

--- Waits until the screen holds the text, plain; raises with the screen if it never does.
function Terminal:wait_for(text)
    local found = look_until(function() return self:text():find(text, 1, true) end)
    if not found then error(("%q is not on the screen:\n%s"):format(text, self:text()), 2) end
end

--- Waits until the screen does not hold the text any more.
function Terminal:wait_without(text)
    local gone = look_until(function() return not self:text():find(text, 1, true) end)
    if not gone then error(("%q stays on the screen:\n%s"):format(text, self:text()), 2) end
end

--- Gives the terminal another size; the screen is drawn anew by the program.
function Terminal:resize(width, height)
    self:text()
    self.width, self.height, self.top, self.bottom = width, height, 1, height
    self.row, self.column = math.min(self.row, height), math.min(self.column, width)
    clear(self)
    local tty = read(self.folder .. "/tty"):match "%S+"
    assert(os.execute(("stty -F %s rows %d cols %d"):format(tty, height, width)))
end

--- Sends a signal to the program: "TERM", "INT", ...
function Terminal:signal(name)
    local pid = look_until(function() return (read(self.folder .. "/pid") or ""):match "%d+\n" end)
    assert(os.execute(("kill -s %s %d"):format(name, tonumber(pid))))
end

--- Waits for the end; returns the exit code, and the terminal's settings before and after (as stty -g says
-- them).
function Terminal:ended()
    local code = look_until(function() return read(self.folder .. "/code") end)
    if not code then error("the program has not ended:\n" .. self:text(), 2) end
    self:text()
    return tonumber(code), read(self.folder .. "/before"), read(self.folder .. "/after")
end

--- Ends what still runs and forgets the folder.
function Terminal:close()
    opened[self] = nil
    local pid = (read(self.folder .. "/pid") or ""):match "%d+"
    local ended = read(self.folder .. "/code")
    if pid and not ended then os.execute(("kill -s KILL %s 2>/dev/null"):format(pid)) end
    self.keys:close()
    os.execute(("rm -rf %s"):format(quote(self.folder)))
end

--- Closes those that a failed test has left open.
function terminal.close_all()
    for screen in pairs(opened) do screen:close() end
end

return terminal
