--- An engine at work in a process of its own, to be looked at through its area; and commands that run
-- beside the test.

local watched = {}

local BIN = os.getenv "WEIR_BIN" or "build/weir"
local PATIENCE = 30 -- seconds after which a test that waits gives up

-- Calls "call FROM" to "call TO" one after another, says "done N", and goes on with what standard input
-- says: a line "FROM TO" for more calls, "slow" and "bad" for one of that sort, "force" and "release" for
-- its breaker, "outage" and "recovery" of its server, "end".
local script = [[
local weir = require "weir"
local server = assert(require("weir.testing").postgres())
local db = assert(weir.open {
    name = "watched", area = arg[1], area_size = tonumber(arg[2]), backends = { primary = server:url() },
    clients = { service = { user = "postgres", bypass_rls = true, max = 4 } }, health = { interval = 0 },
    breaker = { min_calls = 5, open_for = 2, half_open = { permits = 2 } },
    label = function(context) return (context:gsub(" %d+$", "")) end,
})
local function query(context, sql) return db:service():query(context, sql) end
local orders = {
    slow = function() query("slow", "select pg_sleep(0.2)") end,
    bad = function() query("bad", "select 1/0") end,
    force = function() db:breaker("service@primary"):force("open") end,
    release = function() db:breaker("service@primary"):force(nil) end,
    outage = function()
        assert(server:stop "immediate")
        for i = 1, 20 do query("call " .. i, "select 1") end
    end,
    recovery = function()
        assert(server:start())
        repeat weir.sleep(0.05) until query("call 1", "select 1")
        for i = 1, 20 do query("call " .. i, "select 1") end
    end,
}
local function obey(line)
    local from, to = line:match "^(%d+) (%d+)$"
    if from then
        for i = tonumber(from), tonumber(to) do assert(query("call " .. i, "select 1")) end
    else
        orders[line]()
    end
end
print "ready"
io.stdout:flush()
while true do
    weir.poll(0, "r")
    local text = io.read() -- a whole line: whoever writes flushes lines
    if not text or text == "end" then break end
    obey(text)
    print("done " .. text)
    io.stdout:flush()
end
db:close()
]]

-- ---- helpers ----------------------------------------------------------------------------------------------

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read "a"
    file:close()
    return text
end

--- Looks again and again until `seen` gives something; raises with `what` if that takes too long.
function watched.wait(what, seen)
    local limit = os.time() + PATIENCE
    while os.time() < limit do
        local value = seen()
        if value then return value end
        os.execute "sleep 0.03"
    end
    error(("waited in vain for %s"):format(type(what) == "function" and what() or what), 2)
end

--- A folder for one test; `clean` removes it.
function watched.folder()
    local path = os.tmpname()
    os.remove(path)
    assert(os.execute("mkdir " .. quote(path)))
    return path
end

--- Removes a folder.
function watched.clean(path)
    os.execute("rm -rf " .. quote(path))
end

-- ---- a command beside the test ----------------------------------------------------------------------------

local started = {} -- all of them

local Process = {}
Process.__index = Process

--- Starts a line of shell in which "$weir" is the binary. It must be one command, `exec`ed.
function watched.start(folder, line, input)
    local self = setmetatable({ base = ("%s/process%d"):format(folder, math.random(1 << 40)) }, Process)
    assert(os.execute(("weir=%s; (sh -c 'echo $$ >%s.pid; exec env --default-signal=INT,TERM %s' <%s >%s.out "
        .. "2>%s.err; echo $? >%s.code) &"):format(quote(BIN), self.base, line:gsub("%$weir", BIN),
        input or "/dev/null", self.base, self.base, self.base)))
    table.insert(started, self)
    return self
end

--- A line for `start`: a command whose reader goes away after one line; its exit code goes to standard error.
function watched.into_head(arguments)
    return ("sh -c \"$weir %s; echo code \\$? >&2\" | head -n 1"):format(arguments)
end

function Process:out()
    return read(self.base .. ".out") or ""
end

function Process:err()
    return read(self.base .. ".err") or ""
end

--- Waits until its output holds the text, plain.
function Process:wait_for(text)
    watched.wait(function() return ("%q in: %s%s"):format(text, self:out(), self:err()) end,
        function() return self:out():find(text, 1, true) end)
end

--- Waits until what it says on standard error holds the text, plain.
function Process:wait_for_error(text)
    watched.wait(function() return ("%q in: %s"):format(text, self:err()) end,
        function() return self:err():find(text, 1, true) end)
end

function Process:signal(name)
    local pid = watched.wait("its pid", function() return (read(self.base .. ".pid") or ""):match "%d+\n" end)
    os.execute(("kill -s %s %d 2>/dev/null"):format(name, tonumber(pid)))
end

--- Waits for its end; returns the exit code.
function Process:ended()
    return tonumber(watched.wait(function() return "the end of " .. self:out() end, function()
        return (read(self.base .. ".code") or ""):match "%d+\n"
    end))
end

--- Ends those that a failed test has left running.
function watched.end_all()
    for _, process in ipairs(started) do
        local pid = (read(process.base .. ".pid") or ""):match "%d+\n"
        if pid and not (read(process.base .. ".code") or ""):find "\n" then
            os.execute(("kill -s TERM %d 2>/dev/null"):format(tonumber(pid)))
        end
    end
end

-- ---- the engine -------------------------------------------------------------------------------------------

local Engine = {}
Engine.__index = Engine

--- Starts an engine with its area at `area`; `size` is its area_size.
function watched.engine(folder, area, size)
    local base = ("%s/engine%d"):format(folder, math.random(1 << 40))
    local file = assert(io.open(base .. ".lua", "w"))
    file:write(script)
    file:close()
    assert(os.execute("mkfifo " .. quote(base .. ".orders")))
    local self = setmetatable({ process = watched.start(folder,
        ("$weir run %s.lua %s %s"):format(base, area, size or ""), base .. ".orders") }, Engine)
    self.orders = assert(io.open(base .. ".orders", "w"))
    self.orders:setvbuf "line"
    self.process:wait_for "ready"
    return self
end

--- Has it do something, and waits until it is done.
function Engine:order(line)
    local _, before = self.process:out():gsub("done ", "")
    self.orders:write(line, "\n")
    watched.wait(function() return line .. ": " .. self.process:err() end, function()
        return select(2, self.process:out():gsub("done ", "")) > before
    end)
end

--- Ends it in order.
function Engine:stop()
    self.orders:write("end\n")
    self.orders:close()
    return self.process:ended()
end

--- Ends it at once, as a crash would.
function Engine:kill()
    self.process:signal "KILL"
    self.process:ended()
    self.orders:close()
end

return watched
