--- LISTEN and notifications. A connection of the pool cannot listen for anybody, so the object's channels are
-- those of a listener of Weir's, which has a connection of its own and comes back by itself when that is
-- lost.

local compat = require "weir.compat"
local sentences = require "resty.weir.pgmoon.sentences"

local listening = {}

local function names_of(channels)
    local names = {}
    for name in pairs(channels) do names[#names + 1] = name end
    table.sort(names)
    return names
end

local function as_pgmoon(notification)
    return {
        operation = "notification",
        pid = notification.pid, channel = notification.channel, payload = notification.payload,
    }
end

-- What the listener has heard already.
local function drain(pg)
    while pg.listener do
        local notification = pg.listener:wait(0)
        if not notification then return end
        pg.notifications[#pg.notifications + 1] = as_pgmoon(notification)
    end
end

local function close(pg)
    if pg.listener then pg.listener:close() end
    pg.listener = nil
end

-- The new one listens before the old one stops: twice is better than never.
local function listen_to(pg, channels)
    local names, listener = names_of(channels), nil
    if #names > 0 then
        local handle = pg:handle()
        if not handle.listen then return nil, sentences.refused("LISTEN", "this build has no listener") end
        local err
        listener, err = handle:listen(compat.unpack(names))
        if not listener then return nil, err end
    end
    drain(pg)
    close(pg)
    pg.listener, pg.channels = listener, channels
    return true
end

--- LISTEN channel: true, or nil and an error.
function listening.listen(pg, channel)
    if not channel then return nil, sentences.server_error("42601", "syntax error in LISTEN") end
    if pg.channels[channel] then return true end
    local channels = { [channel] = true }
    for name in pairs(pg.channels) do channels[name] = true end
    return listen_to(pg, channels)
end

--- UNLISTEN channel, or "*" for all.
function listening.unlisten(pg, channel)
    local channels = {}
    for name in pairs(pg.channels) do
        if channel ~= "*" and name ~= channel then channels[name] = true end
    end
    if #names_of(channels) < #names_of(pg.channels) then listen_to(pg, channels) end
end

--- The notifications that have come since they were last asked for; nil if there are none.
function listening.heard(pg)
    drain(pg)
    if #pg.notifications == 0 then return nil end
    local heard = pg.notifications
    pg.notifications = {}
    return heard
end

--- Waits for the next notification, at most so long (nil: for ever).
-- @return it, or nil and why not
function listening.wait(pg, seconds)
    if #pg.notifications > 0 then return table.remove(pg.notifications, 1) end
    if not pg.listener then return nil, "not listening" end
    local notification, err = pg.listener:wait(seconds)
    if notification then return as_pgmoon(notification) end
    return nil, err and sentences.of(err) or "timeout"
end

--- Nothing is listened to any more.
function listening.stop(pg)
    close(pg)
    pg.channels, pg.notifications = {}, {}
end

return listening
