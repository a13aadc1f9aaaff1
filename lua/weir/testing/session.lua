--- One connection through weir.testing.proxy: two ways of bytes, and what the proxy's faults do to them. Each
-- way has a task that reads and one that writes, so that what is held back in one never holds up the other.

local core = require "weir.core"
local errors = require "weir.errors"
local loop = require "weir.loop"
local poll = require("weir.poll").poll
local messages = require "weir.testing.messages"

local CHUNK = 65536
local QUEUE_MAX = 1048576 -- bytes on their way in one direction; the sender waits then
local OPENING_WAIT = 60   -- seconds a client may take to say what it wants: PostgreSQL's own

local Session = {}
Session.__index = Session

local session = {}

-- ---- sockets ----------------------------------------------------------------------------------------------

--- A socket that never blocks, and that no server started later keeps alive.
function session.prepare(socket)
    socket:settimeout(0)
    core.unshare(socket:getfd())
    if socket.setoption then pcall(socket.setoption, socket, "tcp-nodelay", true) end -- not on a Unix socket
    return socket
end

--- Closes with a reset.
function session.close_hard(socket)
    pcall(socket.setoption, socket, "linger", { on = true, timeout = 0 })
    socket:close()
end

local function connect_path(path)
    local unix = require "socket.unix"
    local socket = session.prepare((type(unix) == "table" and unix.stream or unix)())
    if socket:connect(path) then return socket end
    socket:close()
end

local function connect_port(host, port)
    local socket = session.prepare(require("socket").tcp())
    local ok, why = socket:connect(host, port)
    if not ok and why == "timeout" then
        local ready, err = pcall(poll, socket, "w", OPENING_WAIT)
        ok = ready and socket:connect(host, port) -- asks what became of the first
        if not ready then
            socket:close()
            error(err, 0)
        end
    end
    if ok then return socket end
    socket:close()
end

local function connect(target)
    if target.path then return connect_path(target.path) end
    return connect_port(target.host, target.port)
end

-- ---- life -------------------------------------------------------------------------------------------------

-- The sockets are closed when no task waits for them any more.
local function leave(self, ok, err)
    if not ok and not self.ended and not errors.is(err) then self.broken = self.broken or err end
    if not ok then self:finish(true) end
    self.running = self.running - 1
    if self.running > 0 then return end
    if self.hard then session.close_hard(self.client) else self.client:close() end
    if self.server then self.server:close() end
    self.proxy:_gone(self, self.broken)
end

-- A task that is cancelled before it has begun never runs at all, so those are left to see for themselves.
local function start_task(self, fn, way)
    local job = {}
    self.running = self.running + 1
    self.jobs[#self.jobs + 1] = job
    job.task = loop.spawn_daemon(function()
        job.begun = true
        if self.ended then return leave(self, true) end
        leave(self, pcall(fn, self, way))
    end)
end

--- Ends the session, with a reset or in order.
function Session:finish(hard)
    if self.ended then return end
    self.ended, self.hard = true, hard
    local me = loop.this_task()
    for _, job in ipairs(self.jobs) do
        if job.begun and job.task ~= me then job.task:cancel() end
    end
end

--- From now on nothing moves here any more, until the proxy ends.
function Session:hush()
    self.hushed = {}
end

-- Passes when nothing vanishes.
local function pass(self)
    self.proxy:_pass()
    if self.hushed then loop.wait(self.hushed) end
end

-- ---- moving bytes -----------------------------------------------------------------------------------------

local END = {} -- queued behind the last bytes

local function new_way(from, to)
    return {
        from = from, to = to, first = 1, last = 0, bytes = 0, more = {}, room = {},
        stream = messages.stream(),
    }
end

local function enqueue(self, way, bytes)
    way.last = way.last + 1
    way[way.last] = { bytes = bytes, due = core.now() + self.proxy._latency }
    if bytes ~= END then way.bytes = way.bytes + #bytes end
    loop.fire(way.more)
end

-- What the kernel takes at once needs no second task.
local function push(self, way, bytes)
    if bytes == "" then return end
    if way.first > way.last and not way.busy and self.proxy._latency == 0 and not self.proxy._hole
        and not self.hushed then
        local sent, why, part = way.to:send(bytes)
        if sent then return end
        if why ~= "timeout" then return self:finish(true) end
        bytes = bytes:sub(part + 1)
    end
    enqueue(self, way, bytes)
end

local function dequeue(way)
    while way.first > way.last do
        way.more = {}
        loop.wait(way.more)
    end
    local item = way[way.first]
    way[way.first] = nil
    way.first = way.first + 1
    return item
end

local function send_all(self, way, bytes)
    local at = 1
    while at <= #bytes do
        pass(self)
        local sent, why, part = way.to:send(bytes, at)
        if not sent and why ~= "timeout" then return self:finish(true) end
        at = (sent or part) + 1
        if not sent then poll(way.to, "w") end
    end
    way.bytes = way.bytes - #bytes
    loop.fire(way.room)
    way.room = {}
end

local function end_way(self, way)
    pass(self)
    way.to:shutdown "send"
    way.over = true
    if self.up.over and self.down.over then self:finish(false) end
end

local function write_on(self, way)
    while not self.ended and not way.over do
        local item = dequeue(way)
        way.busy = true
        local early = item.due - core.now()
        if early > 0 then loop.sleep(early) end
        if item.bytes == END then end_way(self, way) else send_all(self, way, item.bytes) end
        way.busy = false
    end
end

local function read_on(self, way)
    while not self.ended do
        pass(self)
        local bytes, why, part = way.from:receive(CHUNK)
        bytes = bytes or part
        if bytes ~= "" then way.take(self, bytes) end
        if why == "closed" or why and why ~= "timeout" then return enqueue(self, way, END) end
        if why and not self.ended then poll(way.from, "r") end
        while way.bytes >= QUEUE_MAX and not self.ended do loop.wait(way.room) end
    end
end

-- ---- what the client says ---------------------------------------------------------------------------------

-- How a request fares that is neither COMMIT nor cleaning up: nil, or how it ends.
local function judge_work(self)
    local proxy = self.proxy
    if proxy:_strikes "before_send" then return "reset" end
    if proxy:_strikes "after_send" then return "swallow" end
    if proxy:_strikes "before_answer" then self.doomed = self.requests end
end

-- How the client's next message fares. What is sent before anything was answered belongs to logging in.
local function judge_message(self, message, prefix)
    local begins, subject, runs = self.speaker:hear(message, prefix)
    if begins then self.requests = self.requests + 1 end
    if self.answers < 2 then return nil end
    if begins and subject ~= "commit" and subject ~= "tidy" then return judge_work(self) end
    if subject ~= "commit" or not runs then return nil end
    if self.proxy:_strikes "at_commit" then return "reset" end
    if self.proxy:_strikes "after_commit" then self.doomed = self.requests end
end

local function swallow(self, bytes)
    local _, stop = self.up.stream:feed(bytes, function(message)
        return (message == "S" or message == "Q" or message == "F") and "after" or nil
    end)
    if stop then self:finish(true) end
end

local function take_request(self, bytes)
    if self.swallowing then return swallow(self, bytes) end
    local fate
    local good, stop, rest = self.up.stream:feed(bytes, function(message, prefix)
        fate = judge_message(self, message, prefix)
        return fate and "before" or nil
    end)
    push(self, self.up, good)
    if not stop then return end
    if fate == "reset" then return self:finish(true) end
    self.swallowing = true
    swallow(self, rest)
end

-- ---- what the server says ---------------------------------------------------------------------------------

local function take_answer(self, bytes)
    local lost = self.doomed and self.answers >= self.doomed - 1
    local good, stop, rest = self.down.stream:feed(bytes, function(message)
        if message ~= "Z" then return nil end
        self.answers = self.answers + 1
        return self.doomed and self.answers >= self.doomed - 1 and "after" or nil
    end)
    if not lost then push(self, self.down, good) end
    if not stop then return end
    if self.answers >= self.doomed then return self:finish(true) end
    take_answer(self, rest)
end

-- ---- the beginning ----------------------------------------------------------------------------------------

local function read_some(self)
    while true do
        pass(self)
        local bytes, why, part = self.client:receive(CHUNK)
        bytes = bytes or part
        if bytes ~= "" then return bytes end
        if why ~= "timeout" or not poll(self.client, "r", OPENING_WAIT) then return nil end
    end
end

-- What the client wants, and all bytes it has sent of and after that.
local function read_opening(self)
    local text = ""
    while true do
        local kind, length = messages.opening(text)
        if kind == false then return nil end
        if kind == "ssl" or kind == "gss" then
            self.client:send "N"
            text = text:sub(length + 1)
        elseif kind then
            return kind, text, length
        else
            local more = read_some(self)
            if not more then return nil end
            text = text .. more
        end
    end
end

local reasons = {
    ["53300"] = "sorry, too many clients already",
    ["57P03"] = "the database system is starting up",
    ["28P01"] = "password authentication failed",
}

local function refuse(self, sqlstate)
    self.proxy:_arrived()
    self.proxy._seen.refused = self.proxy._seen.refused + 1
    self.client:send(messages.fatal(sqlstate, reasons[sqlstate] or "the connection was refused"))
    self:finish(false)
end

local function pass_raw(way)
    return function(self, bytes) push(self, way, bytes) end
end

local function start_ways(self, raw)
    self.up, self.down = new_way(self.client, self.server), new_way(self.server, self.client)
    self.up.take = raw and pass_raw(self.up) or take_request
    self.down.take = raw and pass_raw(self.down) or take_answer
    for _, way in ipairs { self.up, self.down } do
        start_task(self, read_on, way)
        start_task(self, write_on, way)
    end
end

local function open(self)
    local kind, text, length = read_opening(self)
    if not kind then return self:finish(true) end
    if self.proxy._refusal == "-" then return self:finish(true) end
    if kind == "startup" and self.proxy._refusal then return refuse(self, self.proxy._refusal) end
    pass(self)
    self.server = connect(self.proxy._target)
    if not self.server then return self:finish(true) end
    if kind == "startup" then self.proxy:_arrived() end
    start_ways(self, kind == "cancel")
    push(self, self.up, text:sub(1, length))
    if #text > length then self.up.take(self, text:sub(length + 1)) end
end

--- Begins the session of an accepted client.
function session.start(proxy, client)
    local self = setmetatable({
        proxy = proxy, client = session.prepare(client), jobs = {}, running = 0,
        requests = 1, answers = 0, speaker = messages.speaker(),
    }, Session)
    start_task(self, open)
    return self
end

return session
