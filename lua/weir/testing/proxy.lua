--- A network that fails on purpose: a TCP proxy in front of a PostgreSQL, on the engine's own loop.
--
--     local testing = require "weir.testing"
--     local pg = assert(testing.postgres())
--     local proxy = assert(testing.proxy { to = pg })
--     local db = weir.open { backends = { primary = proxy:url() }, ... }
--     proxy:latency(0.05)                             -- seconds, each way
--     proxy:black_hole(true)                          -- packets vanish
--     proxy:reset("after_commit", { count = 1 })      -- the next COMMIT's answer is lost
--     proxy:refuse "53300"                            -- no new connections
--     proxy:clear()
--
-- It works while the loop turns: as long as this program computes or blocks, its connections stand still.
-- Needs LuaSocket (Debian: lua-socket). It speaks no TLS, and says so to a client that asks.

local core = require "weir.core"
local loop = require "weir.loop"
local poll = require("weir.poll").poll
local session = require "weir.testing.session"
local sim = require "weir.sim"
local url = require "weir.testing.url"

local CONNECTIONS_MAX = 1000 -- at once; more wait in the kernel's queue

local Proxy = {}
Proxy.__index = Proxy

-- Misuse is told at the line that called into lua/weir/testing.lua or below.
local own = debug.getinfo(1, "S").source:match "^(.*)[/\\]proxy%.lua$"

local function is_ours(frame)
    return frame.what == "C" or frame.source == "=(tail call)" or frame.source:sub(1, #own) == own
end

local function misuse(format, ...)
    local level = 2
    while true do
        local frame = debug.getinfo(level, "S")
        if not frame or not is_ours(frame) then break end
        level = level + 1
    end
    error("weir.testing.proxy: " .. format:format(...), level)
end

-- ---- coming in --------------------------------------------------------------------------------------------

local function note_arrival(self)
    local second = math.floor(core.now())
    if second ~= self._second then self._second, self._in_second = second, 0 end
    self._in_second = self._in_second + 1
    local seen = self._seen
    seen.accepted = seen.accepted + 1
    seen.connects_in_a_second_max = math.max(seen.connects_in_a_second_max, self._in_second)
end

--- A session tells that it is more than a cancel request, and has come through.
function Proxy:_arrived()
    note_arrival(self)
end

--- The gate of the black hole: passes when nothing vanishes.
function Proxy:_pass()
    while self._hole do loop.wait(self._hole) end
end

--- Whether a reset strikes here.
function Proxy:_strikes(phase)
    local reset = self._resets[phase]
    if not reset or reset.rate < 1 and math.random() >= reset.rate then return false end
    if reset.count then
        reset.count = reset.count - 1
        if reset.count == 0 then self._resets[phase] = nil end
    end
    self._seen.struck = self._seen.struck + 1
    return true
end

--- A session has ended; `err` if by a fault of this code.
function Proxy:_gone(one, err)
    self._sessions[one] = nil
    self._count = self._count - 1
    self._broken = self._broken or err
    loop.fire(self._left)
    self._left = {}
end

local function let_in(self, client)
    if self._refusal == "-" then
        self._seen.refused = self._seen.refused + 1
        return session.close_hard(client)
    end
    self._count = self._count + 1
    self._sessions[session.start(self, client)] = true
    self._seen.most_connections = math.max(self._seen.most_connections, self._count)
end

local function serve(self)
    while not self._closed do
        self:_pass()
        while self._count >= CONNECTIONS_MAX do loop.wait(self._left) end
        local client, why = self._listener:accept()
        if client then
            let_in(self, client)
        elseif why == "timeout" then
            poll(self._listener, "r")
        else
            loop.sleep(0.01) -- no descriptor left, or the client was gone at once
        end
    end
end

-- ---- making one -------------------------------------------------------------------------------------------

local function target_of(to)
    if type(to) ~= "table" then
        misuse("to is a %s; it must be a server of weir.testing or { host =, port = }", type(to))
    end
    if to.dir and not to.tcp then return { path = ("%s/.s.PGSQL.%d"):format(to.dir, to.port) } end
    if to.dir then return { host = "127.0.0.1", port = to.port } end
    if type(to.host) ~= "string" or type(to.port) ~= "number" then
        misuse("to must be a server of weir.testing or { host = a string, port = a number }")
    end
    return { host = to.host, port = to.port }
end

local function check_options(options)
    if type(options) ~= "table" then misuse("the options are a %s; they must be a table", type(options)) end
    for name in pairs(options) do
        if name ~= "to" then misuse("unknown option '%s' (known: to)", tostring(name)) end
    end
end

--- Starts a proxy on a free port of 127.0.0.1.
-- @param options  { to = a server of weir.testing or { host =, port = } }
-- @return the proxy, or nil and a sentence that says what is missing
local function proxy(options)
    check_options(options)
    if sim.running() then misuse("a simulation has no descriptors") end
    local target = target_of(options.to)
    local found, socket = pcall(require, "socket")
    if not found then
        return nil, "weir.testing.proxy: it needs LuaSocket, which is not installed (Debian: apt-get install "
            .. "lua-socket)"
    end
    local listener, why = socket.bind("127.0.0.1", 0, 1024)
    if not listener then return nil, "weir.testing.proxy: no port to listen on: " .. tostring(why) end
    session.prepare(listener)
    local _, port = listener:getsockname()
    local self = setmetatable({
        port = tonumber(port), _target = target, _listener = listener, _sessions = {}, _count = 0, _left = {},
        _resets = {}, _latency = 0,
        _seen = { accepted = 0, refused = 0, struck = 0, most_connections = 0, connects_in_a_second_max = 0 },
    }, Proxy)
    self._server = loop.spawn_daemon(serve, self)
    return self
end

-- ---- methods ----------------------------------------------------------------------------------------------

--- The URL of the server through this proxy; as a server's own, see weir.testing.
function Proxy:url(user, db, password)
    return url("127.0.0.1", self.port, user, db, password, "sslmode=disable")
end

--- So long is every byte under way, in each direction. 0: no longer.
function Proxy:latency(seconds)
    if type(seconds) ~= "number" or not (seconds >= 0 and seconds <= 3600) then
        misuse("latency(%s): it must be a number of seconds, 0 to 3600", tostring(seconds))
    end
    self._latency = seconds
end

--- Packets vanish, in both directions, those that end a connection too. When they no longer do, TCP sends
-- what was lost again; unless `forgotten`: then the connections of before stay silent for good, as after a
-- restart of a firewall.
function Proxy:black_hole(on, forgotten)
    if type(on) ~= "boolean" then misuse("black_hole(%s): it must be true or false", tostring(on)) end
    if on then
        self._hole = self._hole or {}
        return
    end
    if self._hole and forgotten then
        for one in pairs(self._sessions) do one:hush() end
    end
    local hole = self._hole
    self._hole = nil
    if hole then loop.fire(hole) end
end

local phases = {
    before_send = true, after_send = true, before_answer = true, at_commit = true, after_commit = true,
}

--- Connections are reset at a phase of a request:
--   before_send     when its first byte comes; the server sees nothing of it
--   after_send      when its last byte has come; the server sees nothing of it
--   before_answer   when the server has done it; its answer is lost
--   at_commit       when its COMMIT comes; the server sees no COMMIT
--   after_commit    when the server has answered its COMMIT; the answer is lost
-- A request is what the server answers with one ReadyForQuery; the first three phases are of those that are
-- neither a COMMIT nor clean up after one that failed. What a client sends before anything was answered is
-- left alone.
-- @param how  { rate = 0 to 1, count = how many times }, default always; false: no more
function Proxy:reset(phase, how)
    if not phases[phase] then
        misuse("reset(%s): the phase must be before_send, after_send, before_answer, at_commit or "
            .. "after_commit", tostring(phase))
    end
    if how == false then
        self._resets[phase] = nil
        return
    end
    how = how or {}
    local rate, count = how.rate or 1, how.count
    if type(rate) ~= "number" or not (rate >= 0 and rate <= 1) then
        misuse("reset: rate is %s; it must be a number from 0 to 1", tostring(rate))
    end
    if count ~= nil and (type(count) ~= "number" or count < 0 or count % 1 ~= 0) then
        misuse("reset: count is %s; it must be a whole number, 1 or more", tostring(count))
    end
    self._resets[phase] = { rate = rate, count = count ~= 0 and count or nil }
end

--- New connections are refused: with a SQLSTATE by an answer, with "-" by a reset as if nobody listened.
-- false: no longer. Cancel requests come through all but the latter.
function Proxy:refuse(sqlstate)
    if sqlstate ~= false and sqlstate ~= "-" and not (type(sqlstate) == "string" and sqlstate:find "^[%u%d]+$"
        and #sqlstate == 5) then
        misuse("refuse(%s): it must be a SQLSTATE such as '53300', '-' or false", tostring(sqlstate))
    end
    self._refusal = sqlstate
end

--- Resets all connections, once.
function Proxy:cut()
    for one in pairs(self._sessions) do one:finish(true) end
end

--- Ends all faults. What was held back goes on.
function Proxy:clear()
    self._latency, self._resets, self._refusal = 0, {}, false
    self:black_hole(false)
end

--- How many connections are open now.
function Proxy:connections()
    return self._count
end

--- What was seen so far: accepted (connections that reached the server or were refused with a SQLSTATE, no
-- cancel requests), connects_in_a_second_max (of those), refused, struck (resets), most_connections.
function Proxy:stats()
    local copy = {}
    for name, value in pairs(self._seen) do copy[name] = value end
    return copy
end

--- Resets what is left and stops listening. Any number of times.
function Proxy:close()
    if self._closed then return true end
    self._closed = true
    self._server:cancel()
    self._server:wait()
    self._listener:close()
    self:cut()
    while self._count > 0 do loop.wait(self._left) end
    if self._broken then error(self._broken, 0) end
    return true
end

function Proxy:__tostring()
    return ("proxy on 127.0.0.1:%d"):format(self.port)
end

return proxy
