--- Waiting for a descriptor, on the loop that the engine turns anyway: what a socket library needs to live in
-- the same program. Whoever waits is a task like any other; cancelled, he hears of it here.

local core = require "weir.core"
local errors = require "weir.errors"
local loop = require "weir.loop"

local poll = {}

local readers, writers = {}, {} -- descriptor -> who waits: { fd, got, and what loop.wait puts in }

local known = { r = true, w = true, rw = true }

local function interest(fd)
    return (readers[fd] and "r" or "") .. (writers[fd] and "w" or "")
end

local function leave(waiter)
    local fd = waiter.fd
    if readers[fd] == waiter then readers[fd] = nil end
    if writers[fd] == waiter then writers[fd] = nil end
end

local function wake(waiter, what)
    waiter.got = (waiter.got or "") .. what
    leave(waiter)
    loop.fire(waiter)
end

function loop.on_polled(fd, what)
    local reader = what:find("r", 1, true) and readers[fd]
    local writer = what:find("w", 1, true) and writers[fd]
    if reader then wake(reader, "r") end
    if writer then wake(writer, "w") end
    core.watch(fd, interest(fd)) -- the other direction goes on, or nothing does
end

local function number_of(object)
    if type(object) == "number" then return object end
    local kind = type(object)
    local getfd = (kind == "table" or kind == "userdata") and object.getfd
    if not getfd then
        errors.misusef("poll: the first argument is a %s; it must be a descriptor's number or have a method "
            .. "getfd", kind)
    end
    return getfd(object)
end

local function check(fd, what, seconds)
    if not known[what] then
        errors.misusef("poll: the second argument is %s; it must be 'r', 'w' or 'rw'", tostring(what))
    end
    if seconds ~= nil and (type(seconds) ~= "number" or not (seconds >= 0 and seconds < 1e9)) then
        errors.misusef("poll: the time is %s; it must be a number of seconds, 0 or more", tostring(seconds))
    end
    if type(fd) ~= "number" or fd % 1 ~= 0 or fd < 0 then
        errors.misusef("poll: %s is no descriptor", tostring(fd))
    end
    if what ~= "w" and readers[fd] then
        errors.misusef("poll: another task waits to read from descriptor %d already", fd)
    end
    if what ~= "r" and writers[fd] then
        errors.misusef("poll: another task waits to write to descriptor %d already", fd)
    end
end

local function wait(waiter, seconds)
    if seconds then return loop.wait_for(waiter, seconds) end
    loop.wait(waiter)
end

--- Waits until a descriptor can be read from or written to, and lets others run meanwhile.
-- @param object   its number, or an object whose method getfd gives it (LuaSocket's do)
-- @param what     "r", "w", or "rw" for whichever comes first
-- @param seconds  how long at most; nil is for ever
-- @return what it is ready for, "r", "w" or "rw" (an error on it counts as all that was asked for); nil when
-- the time is over. Nobody may close it meanwhile.
function poll.poll(object, what, seconds)
    local fd = number_of(object)
    check(fd, what, seconds)
    local waiter = { fd = fd }
    if what ~= "w" then readers[fd] = waiter end
    if what ~= "r" then writers[fd] = waiter end
    local watched, why = core.watch(fd, interest(fd))
    if not watched then
        leave(waiter)
        errors.misuse("poll: " .. why)
    end
    loop.polls_waited = loop.polls_waited + 1
    local ok, err = pcall(wait, waiter, seconds)
    loop.polls_waited = loop.polls_waited - 1
    if not waiter.got then
        leave(waiter)
        core.watch(fd, interest(fd))
    end
    if not ok then error(err, 0) end
    return waiter.got
end

return poll
