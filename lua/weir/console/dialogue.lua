--- One session at the prompt: reads, evaluates as a task of the loop, prints. Everything else in the program
-- goes on meanwhile. It turns the loop itself, so it runs in a coroutine that is no task.

local complete = require "weir.console.complete"
local environment = require "weir.console.environment"
local errors = require "weir.errors"
local hindsight = require "weir.hindsight"
local listing = require "weir.listing"
local loop = require "weir.loop"
local names = require "weir.console.names"
local orders = require "weir.orders"
local policyfile = require "weir.policyfile"
local poll = require "weir.poll"
local printer = require "weir.console.printer"
local view = require "weir.view"

local session = {}

local Session = {}
Session.__index = Session

local has_terminal, terminal = pcall(require, "weir.terminal")

local LOOK_EVERY = 0.25 -- seconds: Ctrl-C is heard of so soon

-- ---- output -----------------------------------------------------------------------------------------------

function Session:say(text)
    io.stdout:write(text, "\n")
    io.stdout:flush()
end

function Session:complain(value)
    local text = type(value) == "string" and listing.harmless(value) or printer.text(value)
    io.stdout:flush()
    io.stderr:write(printer.coloured(text, "bad", self.colours), "\n")
end

-- ---- evaluating -------------------------------------------------------------------------------------------

-- A chunk, or nil and why, and whether more lines would make it one.
function Session:compile(text)
    local expression = text:gsub("^%s*=", "", 1)
    local chunk = load("return " .. expression, "=console", "t", self.env)
    if chunk then return chunk end
    local why
    chunk, why = load(expression, "=console", "t", self.env)
    return chunk, why, not chunk and why:find("<eof>", 1, true) ~= nil
end

-- Frames of the console's own say nothing to whoever made the mistake.
local function with_traceback(err)
    if type(err) ~= "string" then return err end
    local trace = debug.traceback(err, 2)
    return (trace:gsub("\n%s*%[C%]: in function 'xpcall'.*$", ""))
end

-- Runs fn as a task until it has ended; Ctrl-C cancels it where it waits, and ends it where it runs.
function Session:run(fn)
    local task = loop.spawn_daemon(function() return xpcall(fn, with_traceback) end)
    if has_terminal then terminal.evaluating(task.thread) end
    local ok, why = pcall(loop.turn_until, function()
        if has_terminal and terminal.interrupted() then task:cancel() end
        return task.ended or has_terminal and terminal.ended()
    end)
    if has_terminal then terminal.evaluating(nil) end
    if not ok then
        task:cancel()
        return { false, why, n = 2 }
    end
    if not task.ended then return { false, "the session ends", n = 2 } end
    local results = task.results
    if not task.ok then return { false, results[1], n = 2 } end
    return results
end

function Session:command_chunk(line)
    return function() return environment.command(self.env, line) end
end

local function is_interrupt(value)
    if type(value) == "string" then return value:find "^[^\n]*interrupted" ~= nil end
    return errors.is(value) and value.code == "cancelled"
end

-- nil and an error is how calls tell of the world; the error is what there is to see.
local function failure_of(results)
    if results.n == 3 and results[2] == nil and errors.is(results[3]) then return results[3] end
end

function Session:show(results)
    for i = 2, results.n do
        local value = results[i]
        if self.json then
            self:say(printer.json(value))
        else
            self:say(printer.text(value))
        end
    end
end

local exit_codes = { refused = 2, unreachable = 3 }
local PARTIAL = 4

local function is_partial(results)
    for i = 2, results.n do
        if orders.is_partial(results[i]) then return true end
    end
    return false
end

-- An error, and what the recorder has of the call that it ended.
function Session:tell(failure)
    if self.json then return self:say(printer.json(failure)) end
    self:complain(failure)
    local seen = self.env.view
    if not seen or (failure.attempts or 0) < 1 then return end
    local ok, timeline, id = pcall(hindsight.timeline_of, seen, failure)
    if ok and timeline then
        self:say("  call " .. id .. ":\n  " .. printer.text(timeline):gsub("\n", "\n  "))
    end
end

--- Evaluates a whole chunk or command, and prints what it gives. Returns the exit code that stands for it.
function Session:evaluate(fn)
    local results = self:run(fn)
    local failure = results[1] and failure_of(results)
    if not results[1] and is_interrupt(results[2]) then
        self:complain "interrupted"
        return 1
    elseif not results[1] then
        self.last_error = results[2]
        self:complain(results[2])
        return 1
    elseif failure then
        self:tell(failure)
        return exit_codes[failure.code] or 1
    end
    self:show(results)
    return is_partial(results) and PARTIAL or 0
end

-- ---- lines ------------------------------------------------------------------------------------------------

-- What is to be run for the text, "more" if it is not finished, or nil and why not.
function Session:read_text(text)
    local command = text:match "^%s*\\(.*)$"
    if command then return self:command_chunk(command) end
    local asked = text:match "^%s*%?+%s*(.-)%s*$"
    if asked then return function() return names.help(asked:gsub("^.*[%.:]", "")) end end
    local chunk, why, unfinished = self:compile(text)
    if chunk then return chunk end
    if unfinished then return "more" end
    return nil, why
end

--- One line, or the next of several. Returns the exit code if it was evaluated.
function Session:take(line)
    local text = self.unfinished and self.unfinished .. "\n" .. line or line
    if text:find "^%s*$" then return nil end
    local fn, why = self:read_text(text)
    if fn == "more" then
        self.unfinished = text
        return nil
    end
    self.unfinished = nil
    if fn then return self:evaluate(fn) end
    self.last_error = why
    self:complain(why)
    return 1
end

-- ---- the prompt -------------------------------------------------------------------------------------------

local shown_at_most = 4

local colour_of = { CLOSED = "good", OPEN = "bad", FORCED_OPEN = "bad" }

local function marked(text, name, colours)
    if not colours then return text end
    local on = printer.coloured("\0", name, true)
    local before, after = on:match "^(.-)%z(.*)$"
    return "\1" .. before .. "\1" .. text .. "\1" .. after .. "\1"
end

-- "anon● service■ api> ": a few pools by their breakers, and who is looked at.
function Session:prompt()
    if self.unfinished then return "   ...> " end
    local seen = self.env.view
    if not seen then return "weir> " end
    local ok, stats = pcall(seen.stats, seen)
    if not ok then return "(no engine) weir> " end
    local parts, worst = {}, 0
    for _, pool in ipairs(stats.pools) do
        local state = pool.breaker.state
        local glyph = pool.paused and "‖" or (view.glyphs[state] or "?"):match "^(%S+)"
        if #parts < shown_at_most then
            parts[#parts + 1] = listing.printable(pool.pool) .. marked(glyph, colour_of[state] or "warn", self.colours)
        elseif state ~= "CLOSED" then
            worst = worst + 1
        end
    end
    local rest = #stats.pools - #parts
    if rest > 0 then
        parts[#parts + 1] = worst > 0 and ("+%d (%d not closed)"):format(rest, worst) or ("+%d"):format(rest)
    end
    local dead = seen.path and seen:look() or "live"
    local where = listing.printable(stats.name)
    if dead ~= "live" then where = ("%s (%s)"):format(where, dead) end
    return table.concat(parts, " ") .. " " .. where .. "> "
end

-- Turns the loop until a key can be read. False: this line is given up.
local function wait_for_key()
    while not terminal.ended() do
        if terminal.interrupted() then return false end
        if poll.poll(0, "r", LOOK_EVERY) then return true end
    end
    return false
end

local function history_file()
    local named = os.getenv "WEIR_HISTORY"
    if named then return named ~= "" and named or nil end
    local home = os.getenv "HOME"
    return home and home ~= "" and home .. "/.weir_history" or nil
end

function Session:remember(line)
    if line:find "^%s*$" then return end
    terminal.remember(line)
    if self.history then terminal.save(self.history) end
end

function Session:interact()
    local function candidates(text) return complete.candidates(self.env, self.names, text) end
    self.history = history_file()
    if self.history then terminal.load(self.history) end
    while not terminal.ended() do
        local line, why = terminal.read(self:prompt(), wait_for_key, candidates)
        if line then
            self:remember(line)
            self:take(line)
        elseif why == "interrupted" then
            self:say "^C"
            self.unfinished = nil
        else
            self:say ""
            return 0
        end
    end
    return 0
end

-- Lines that nobody types: no prompt, and the first thing that goes wrong decides the exit code.
function Session:read_script()
    local worst = 0
    for line in io.lines() do
        local code = self:take(line)
        if code and worst == 0 then worst = code end
        if has_terminal and terminal.ended() then break end
    end
    if self.unfinished then
        self:complain("the last chunk is not finished: " .. listing.printable(self.unfinished))
        return worst == 0 and 1 or worst
    end
    return worst
end

-- ---- watching ---------------------------------------------------------------------------------------------

-- watch(seconds, fn or command): again and again until Ctrl-C.
local function watcher(self)
    return function(seconds, what)
        if type(seconds) ~= "number" or not (seconds >= 0.1 and seconds < 1e6) then
            return nil, errors.new("misuse",
                "watch: the first argument must be a number of seconds, 0.1 or more")
        end
        local fn = type(what) == "string" and self:command_chunk(what:gsub("^\\", "")) or what
        if type(fn) ~= "function" then
            return nil, errors.new("misuse",
                'watch needs a function or a command: watch(1, pools), watch(1, "pools")')
        end
        while true do
            self:say(os.date "-- %H:%M:%S")
            self:show(table.pack(true, fn()))
            loop.sleep(seconds)
        end
    end
end

-- ---- life -------------------------------------------------------------------------------------------------

local function read_policy(path)
    local text, why = policyfile.read(path)
    if not text then return nil, why end
    return policyfile.options(text, path)
end

--- @param options  view (attached), names (a table of what is seen at the prompt), succession, json,
-- colours
function session.new(options)
    local self = setmetatable({
        view = options.view, names = options.names or {}, succession = options.succession,
            json = options.json,
        colours = options.colours, read_policy = read_policy,
    }, Session)
    self.watch = watcher(self)
    self.env = environment.new(self)
    return self
end

--- Whether there is somebody to talk to.
function session.interactive()
    if not has_terminal then return false end
    return (terminal.is())
end

-- The loop must be turned by a coroutine that is no task, whoever calls.
local function apart(fn, ...)
    local results = table.pack(coroutine.wrap(function(...)
        if has_terminal then terminal.console(true) end
        local packed = table.pack(pcall(fn, ...))
        if has_terminal then terminal.console(false) end
        return table.unpack(packed, 1, packed.n)
    end)(...))
    if not results[1] then error(results[2], 0) end
    return table.unpack(results, 2, results.n)
end

--- Reads and evaluates until the end of the input. Returns the exit code.
function Session:live()
    return apart(session.interactive() and self.interact or self.read_script, self)
end

--- Evaluates one text, as if it had been typed.
function Session:once(text)
    return apart(function()
        local code = self:take(text)
        if not self.unfinished then return code or 0 end
        self:complain("not finished: " .. listing.printable(text))
        return 1
    end)
end

return session
