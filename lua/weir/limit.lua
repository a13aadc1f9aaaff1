--- At most so many at once, and a bounded queue of those who wait for their turn, first come first served.

local core = require "weir.core"
local errors = require "weir.errors"
local loop = require "weir.loop"

local limit = {}

local Limit = { __name = "weir.limit" }
Limit.__index = Limit
limit.Limit = Limit

local function check_whole(what, value, least)
    if type(value) ~= "number" or value % 1 ~= 0 or value < least then
        errors.misusef("limit: %s is %s; it must be a whole number, %d or more", what, tostring(value), least)
    end
    return value
end

--- max: how many at once; queue: how many may wait (0).
function limit.new(options)
    if type(options) ~= "table" then
        errors.misusef("limit: the options are a %s; they must be a table", type(options))
    end
    for key in pairs(options) do
        if key ~= "max" and key ~= "queue" then
            errors.misusef("limit: %s is not a known option", tostring(key))
        end
    end
    local object, why = core.limit(check_whole("max", options.max, 1))
    if not object then errors.misuse("limit: " .. why) end
    return setmetatable({
        core = object,
        queue = check_whole("queue", options.queue or 0, 0),
        waiting_list = {},
    }, Limit)
end

local function refuse(self, code, message)
    local format = "%d of %d in use, %d of %d waiting"
    local evidence = format:format(self:used(), self:max(), self:waiting(), self.queue)
    return nil, errors.new(code, message, { class = "safe", evidence = evidence })
end

local function leave_queue(self, waiter)
    for i, other in ipairs(self.waiting_list) do
        if other == waiter then return table.remove(self.waiting_list, i) end
    end
end

local function wait_turn(waiter, seconds)
    if seconds then return loop.wait_for(waiter, seconds) end
    loop.wait(waiter)
    return true
end

--- Takes a place, waiting in the queue if there is room, at most `seconds` if given. True, or nil and a
-- refusal.
function Limit:acquire(seconds)
    if #self.waiting_list == 0 and self.core:acquire() then return true end
    if #self.waiting_list >= self.queue then
        return refuse(self, self.queue == 0 and "limit_full" or "queue_full", "as many are at work as may be")
    end
    local waiter = {}
    table.insert(self.waiting_list, waiter)
    local ok, got = pcall(wait_turn, waiter, seconds)
    if ok and got then return true end
    leave_queue(self, waiter)
    if waiter.granted then self:release() end -- the place came just as this one gave up
    if not ok then error(got, 0) end
    return refuse(self, "acquire_timeout", ("no place within %g s"):format(seconds))
end

--- Gives the place back: to the first in the queue, if there is one.
function Limit:release()
    if self.core:used() == 0 then errors.misuse("limit: released more often than acquired") end
    local waiter = table.remove(self.waiting_list, 1)
    if not waiter then return self.core:release() end
    waiter.granted = true
    loop.fire(waiter)
end

function Limit:used()
    return self.core:used()
end

function Limit:max()
    return self.core:max()
end

function Limit:waiting()
    return #self.waiting_list
end

return limit
