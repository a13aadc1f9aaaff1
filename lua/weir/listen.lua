--- Notifications: a listener holds a connection of its own and comes back by itself when that is lost. What
-- may have been missed meanwhile is told as a gap, once, where it would have stood.

local core = require "weir.core"
local errors = require "weir.errors"
local loop = require "weir.loop"

local listen = {}

local Listener = { __name = "weir.listener" }
Listener.__index = Listener

local QUEUE = 1000 -- notifications nobody has waited for yet
local OPEN_WITHIN = 10

-- Key of a listener -> it, for the news that come while somebody turns the loop.
local open = setmetatable({}, { __mode = "v" })

-- ---- waiting ----------------------------------------------------------------------------------------------

-- Everybody who waits looks for himself: which of them is to have it is nobody's business here.
function loop.on_heard(key)
    local self = open[key]
    if not self then return end
    local waiters = self.waiters
    self.waiters = {}
    for _, signal in ipairs(waiters) do loop.fire(signal) end
end

-- Where the loop turns by itself its news are fetched by weir.nginx, which asks us too.
if core.host == "nginx" then
    local also = require("weir.nginx").also
    also[#also + 1] = function()
        local key = core.heard()
        while key do
            loop.on_heard(key)
            key = core.heard()
        end
    end
end

local function forget(waiters, signal)
    for i, other in ipairs(waiters) do
        if other == signal then return table.remove(waiters, i) end
    end
end

-- Until there is news of any kind, or the moment `due` has come (nil: never).
local function stand_by(self, due)
    local signal = {}
    self.waiters[#self.waiters + 1] = signal
    loop.polls_waited = loop.polls_waited + 1
    local ok, err
    if due then
        ok, err = pcall(loop.wait_for, signal, math.max(due - core.now(), 0))
    else
        ok, err = pcall(loop.wait, signal)
    end
    loop.polls_waited = loop.polls_waited - 1
    forget(self.waiters, signal)
    if not ok then error(err, 0) end
end

local sentences = {
    gap = "notifications may have been missed: the connection was lost, or more came than the queue holds",
    closed = "the listener is closed",
    timeout = "no notification has come in time",
}

local function said(code)
    return nil, errors.new(code, sentences[code])
end

local function take(self)
    local channel, payload, pid = self.core:take()
    if channel then return { channel = channel, payload = payload, pid = pid } end
    if channel == false then return said(payload) end
end

local function check_seconds(seconds)
    if seconds == nil or type(seconds) == "number" and seconds >= 0 and seconds < 1e9 then return end
    errors.misusef("wait(%s): it must be a number of seconds, 0 or more, or nil", tostring(seconds))
end

--- Waits for the next notification and lets others run meanwhile.
-- @param seconds  how long at most; nil is for ever
-- @return { channel =, payload =, pid = }; or nil and an error with the code "timeout", "gap" (something may
-- have been missed here; told once, and it goes on) or "closed"
function Listener:wait(seconds)
    check_seconds(seconds)
    local due = seconds and core.now() + seconds
    local notification, err = take(self)
    if seconds == 0 and not notification and not err then
        loop.sleep(0) -- who asks again and again must not keep the loop from hearing of anything
        notification, err = take(self)
    end
    while not notification and not err do
        if due and core.now() >= due then return said "timeout" end
        stand_by(self, due)
        notification, err = take(self)
    end
    return notification, err
end

local function next_of(self)
    local notification, err = self:wait()
    if notification then return notification end
    if err.code == "closed" then return nil end
    return { gap = true }
end

--- for n in listener:each() do: one notification after the other, until the listener is closed. Where
-- something may have been missed comes { gap = true }.
function Listener:each()
    return next_of, self
end

-- ---- channels ---------------------------------------------------------------------------------------------

local function check_channel(channel)
    if type(channel) ~= "string" then
        errors.misusef("listen: a channel is a %s; it must be a string", type(channel))
    end
    if channel:find("%z") then errors.misuse("listen: a channel's name holds a NUL byte") end
end

-- Until it is known what has become of opening it, or of a change.
local function settled(self)
    local due = core.now() + OPEN_WITHIN
    local state, failure = self.core:state()
    while (state == "opening" or state == "asking") and core.now() < due do
        stand_by(self, due)
        state, failure = self.core:state()
    end
    if state == "listening" then return true end
    if failure then return nil, errors.wrap(failure) end
    return said(state == "closed" and "closed" or "timeout")
end

local function change(self, how, channel)
    check_channel(channel)
    if self.core:state() == "closed" then return said "closed" end
    local done, why = self.core[how](self.core, channel)
    if not done then errors.misuse("listen: " .. why) end
    return settled(self)
end

--- Takes another channel in. True once the server has confirmed; nil and an error if there is no connection
-- now: the channel is then taken in with the others when there is.
function Listener:listen(channel)
    return change(self, "add", channel)
end

--- Leaves a channel out; nothing is heard of it from now on. Returns what listen returns.
function Listener:unlisten(channel)
    return change(self, "remove", channel)
end

--- "listening", "lost" (it tries to come back) and the error, "asking" (a change is not confirmed yet) or
-- "closed".
function Listener:state()
    local state, failure = self.core:state()
    return state, failure and errors.wrap(failure) or nil
end

--- Ends it; whoever waits is told "closed".
function Listener:close()
    self.core:close()
    local waiters = self.waiters
    self.waiters = {}
    for _, signal in ipairs(waiters) do loop.fire(signal) end
end

Listener.__close = Listener.close
listen.Listener = Listener

-- ---- opening ----------------------------------------------------------------------------------------------

local function read_arguments(...)
    local channels, options = { ... }, {}
    if type(channels[#channels]) == "table" then options = table.remove(channels) end
    for i = 1, select("#", ...) - (next(options) and 1 or 0) do
        if i > #channels then break end
        check_channel(channels[i])
    end
    for key, value in pairs(options) do
        if key ~= "queue" then errors.misusef("listen: unknown option '%s'; known: queue", tostring(key)) end
        if type(value) ~= "number" or value % 1 ~= 0 then
            errors.misusef("listen: queue is %s; it must be a whole number", tostring(value))
        end
    end
    if #channels == 0 then errors.misuse("listen: no channel is named") end
    return channels, options.queue or QUEUE
end

--- handle:listen(channel, ..., { queue = 1000 }), see weir.client.
function listen.open(engine, spec, ...)
    local channels, most = read_arguments(...)
    local listener, key, why = engine:listen(spec.client, spec.backend, channels, most)
    if not listener then
        if key then errors.misuse(key) end
        return nil, errors.new("draining", why)
    end
    local self = setmetatable({ core = listener, waiters = {} }, Listener)
    open[key] = self
    local ok, done, err = pcall(settled, self)
    if ok and done then return self end
    self:close()
    if not ok then error(done, 0) end
    return nil, err
end

return listen
