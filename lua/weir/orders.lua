--- Orders to an engine, for a view: each is carried out by all workers within a second, says what it did and
-- how to undo it, and is kept in the event log with who gave it.

local core = require "weir.core"
local errors = require "weir.errors"
local listing = require "weir.listing"
local loop = require "weir.loop"
local policyfile = require "weir.policyfile"
local view = require "weir.view"

local orders = {}

local View = view.View

local PATIENCE = 1.5 -- seconds; workers look four times in one
local OPENING = 3    -- seconds that an engine may take to be opened by a new policy

local Done = { __name = "weir.done" }
Done.__index = Done

function Done:__tostring()
    local text = self.done
    if self.undo then text = text .. "   undo: " .. self.undo end
    return text
end

--- What an order answers with: what was done, and what undoes it.
function orders.done(did, undo)
    return setmetatable({ done = did, undo = undo, workers = 1, carried_out = 1 }, Done)
end

--- Whether a value is what an order answered with, and a worker that lives has not carried it out.
function orders.is_partial(value)
    return getmetatable(value) == Done and value.carried_out < value.workers
end

-- Waits until every worker has carried the order out, or has refused it.
local function await(area, ticket)
    local till = loop.now() + PATIENCE
    local progress = area:progress(ticket)
    while progress.done + progress.refused < progress.workers and loop.now() < till do
        loop.sleep(0.02)
        progress = area:progress(ticket)
    end
    return progress
end

local function report(progress, did)
    local of = ("%d of %d worker%s"):format(progress.done, progress.workers, progress.workers == 1
        and "" or "s")
    if progress.workers == 0 then return did .. " (no worker lives; it holds for those that come)" end
    local text = ("%s, in %s"):format(did, of)
    local silent = progress.workers - progress.done - progress.refused
    if progress.refused > 0 then
        text = ("%s; %d refused: %s"):format(text, progress.refused, progress.why)
    end
    if silent > 0 then
        text = ("%s; %d %s nothing, and %s when %s on"):format(text, silent, silent == 1 and "says" or "say",
            silent == 1 and "obeys" or "obey", silent == 1 and "it goes" or "they go")
    end
    return text
end

local function give(self, order, did, undo, how_long)
    if self.path then self:look() end
    local may, reason = self.area:may_steer()
    if not may then return nil, errors.new("refused", reason) end
    local ticket, why = self.area:order(order)
    if not ticket then return nil, errors.new("refused", why) end
    local progress = how_long and how_long(self, ticket) or await(self.area, ticket)
    if progress.workers > 0 and progress.done == 0 and progress.refused > 0 then
        return nil, errors.new("refused", progress.why)
    end
    return setmetatable({
        done = report(progress, did), undo = undo, workers = progress.workers, carried_out = progress.done,
    }, Done)
end

-- The full name of a pool, or nil for all of them.
local function target(self, name)
    if name == nil or name == "*" then return nil, nil, "all pools" end
    local pool, err = self:pool(name)
    if not pool then return nil, err end
    return pool.pool, nil, pool.pool, pool
end

local function argument(pool)
    return pool and ("%q"):format(pool) or ""
end

local function on_pools(kind, did, undo)
    return function(self, name, reason)
        local pool, err, words = target(self, name)
        if err then return nil, err end
        return give(self, { kind = kind, pool = pool, reason = reason }, words .. " " .. did,
            undo and ("%s(%s)"):format(undo, argument(pool)))
    end
end

--- Calls are refused at once; connections stay. Without a name: all pools.
View.pause = on_pools("pause", "paused: calls are refused", "resume")
--- As pause, and connections are closed as they get free: before work on the database.
View.drain = on_pools("drain", "drained: calls are refused, connections are closed as they get free",
    "resume")
--- Ends pause and drain.
View.resume = on_pools("resume", "resumed", "pause")
--- Connections are closed as they get free, and new ones are opened as they are needed.
View.reconnect = on_pools("reconnect", "told to reconnect: present connections are closed as they get free")
--- The breaker back to normal, with a fresh window.
View.reset = on_pools("reset", "breaker back to normal, with a fresh window")

--- Another maximum of connections for a pool, over all workers; nil: the configured one.
function View:resize(name, max, reason)
    local name_of, err, words, pool = target(self, name)
    if err then return nil, err end
    if not name_of then return nil, errors.new("misuse", "resize needs the name of a pool") end
    if max ~= nil and (type(max) ~= "number" or max % 1 ~= 0 or max < 1 or max > 10000) then
        return nil, errors.new("misuse", ("max is %s; it must be a whole number from 1 to 10000"):format(tostring(max)))
    end
    local did = max and ("%s: %d connection%s at most, was %d"):format(words, max, max == 1 and "" or "s",
        pool.max)
        or words .. ": as many connections as configured"
    return give(self, { kind = "resize", pool = name_of, max = max, reason = reason }, did,
        ("resize(%q, %d)"):format(name_of, pool.max))
end

local states = { open = true, closed = true, disabled = true, metrics_only = true }

--- Holds the breaker of a pool: "open", "closed", "disabled", "metrics_only"; for so many seconds, or until
-- reset.
function View:force(name, state, seconds, reason)
    local pool, err, words = target(self, name)
    if err then return nil, err end
    if state == "auto" then return self:reset(name, reason) end
    if not states[state] then
        local what = "a breaker is forced to open, closed, disabled or metrics_only (auto ends it), not to %s"
        return nil, errors.new("misuse", what:format(tostring(state)))
    end
    if seconds ~= nil and (type(seconds) ~= "number" or not (seconds > 0 and seconds < 1e8)) then
        return nil, errors.new("misuse", "the time is not a number of seconds above 0")
    end
    local did = ("%s: breaker forced %s%s"):format(words, state, seconds and " for "
        .. listing.seconds(seconds) or "")
    return give(self, { kind = "force", pool = pool, state = state, seconds = seconds, reason = reason }, did,
        ("reset(%s)"):format(argument(pool)))
end

--- Ends a running call as cancelled; its id is that of conns().
function View:kill(id, reason)
    if type(id) ~= "string" or not id:find "^%x+$" then
        return nil, errors.new("misuse", "kill needs the id of a running call, as conns() shows it")
    end
    return give(self, { kind = "kill", call = id, reason = reason }, ("call %s: told to end"):format(id))
end

--- The text of a policy file, or nil and why not.
function orders.read_policy(path)
    if type(path) ~= "string" then return nil, "reload needs the policy's file" end
    return policyfile.read(path)
end

-- What a worker would refuse it for, as far as this process can tell; nil if nothing.
local function fault_of(text, path, area)
    local options, why = policyfile.options(text, path)
    if not options then return why end
    options.area = options.area or area
    local sound, reason = core.check(options)
    return not sound and path .. ": " .. reason or nil
end

-- Workers that are to stay, and how many of them work by a policy newer than `former`; the newest of theirs.
local function policies_in_force(self, former)
    local workers, newer, newest = 0, 0, 0
    for _, worker in ipairs(self:document "workers") do
        if not worker.draining then
            workers = workers + 1
            if worker.policy_generation > former then newer = newer + 1 end
            newest = math.max(newest, worker.policy_generation)
        end
    end
    return workers, newer, newest
end

-- A worker that changes over may do so by another engine, in another slot.
local function await_policy(former)
    return function(self, ticket)
        local till = loop.now() + OPENING
        while true do
            local told = self.area:progress(ticket)
            local workers, newer = policies_in_force(self, former)
            if told.refused > 0 or newer >= workers or loop.now() > till then
                return { workers = workers, done = newer, refused = told.refused, why = told.why }
            end
            loop.sleep(0.02)
        end
    end
end

--- Gives all workers a new policy: the file is tried here first, and if there is a mistake in it, the old
-- one stays.
function View:reload(path, reason)
    local text, why = orders.read_policy(path)
    if text then why = fault_of(text, path, self.path) end
    if why then return nil, errors.new("refused", why .. "; the policy in force stays") end
    local order = { kind = "policy", text = policyfile.stamped(text, os.time() * 1e6), reason = reason }
    local _, _, former = policies_in_force(self, 0)
    local done, err = give(self, order, ("policy %s is in force"):format(path), nil, await_policy(former))
    if done and done.workers > 0 and done.carried_out == 0 then
        return nil, errors.new("refused", "no worker has taken the policy: an engine that a program opens by itself "
            .. "follows none")
    end
    if not done then return nil, err end
    return done
end

return orders
