--- Policies of the console's own engine: `weir repl POLICY.lua` is a worker like any other, and takes a new
-- policy given here or by another process on the same area. Calls that began under the old one end under
-- it.

local core = require "weir.core"
local db = require "weir.db"
local errors = require "weir.errors"
local loop = require "weir.loop"
local orders = require "weir.orders"
local policyfile = require "weir.policyfile"
local view = require "weir.view"

local succession = {}

local Succession = {}
Succession.__index = Succession

local LOOK_EVERY, DRAIN = 0.1, 30 -- seconds

local function open(options, name)
    local ok, opened, err = pcall(db.open, options)
    if not ok then return nil, name .. ": " .. tostring(opened) end
    if not opened then return nil, name .. ": " .. tostring(err) end
    return opened
end

local function retire(engine)
    engine.core:drain(DRAIN)
    while not engine.core:drained() do loop.sleep(0.05) end
    engine:close()
end

local function drop(engine)
    loop.spawn_daemon(retire, engine)
end

-- The options of a text, on the area that the engine has; nil and why not.
function Succession:options(text, name)
    local options, why = policyfile.options(text, name)
    if not options then return nil, why end
    options.area = options.area or self.area
    local sound, reason = core.check(options)
    if not sound then return nil, name .. ": " .. reason end
    return options
end

-- True, or nil and why the old one stays.
function Succession:bring_into_force(text, name)
    local options, why = self:options(text, name)
    if not options then return nil, why end
    local opened, fault = open(options, name)
    if not opened then return nil, fault end
    drop(db.exchange(self.engine, opened))
    self.in_force, self.policy = text, options
    return true
end

-- Another process on the area has been given a newer policy, or this one through the area.
function Succession:follow()
    if self.engine.core:closed() or not self.engine.core:policy_news() then return end
    local held, generation = self.engine.core:policy_read()
    local text = held and policyfile.unstamped(held)
    if not text or text == self.in_force then return end
    local good, why = self:bring_into_force(text, self.name)
    self.engine.core:policy_applied(generation, not good and why or nil)
end

--- reload(file): the file is tried first; with a mistake in it the policy in force stays.
function Succession:reload(path, reason)
    local former = self.name
    if self.area then
        local everybody, err = view.attach(self.area)
        if not everybody then return nil, err end
        if type(path) == "string" then self.name = path end
        local done, why = everybody:reload(path, reason)
        everybody:close()
        if done then
            done.undo = ("reload(%q)"):format(former)
            return done
        end
        self.name = former
        return nil, why
    end
    local text, why = orders.read_policy(path)
    local good = text
    if text then good, why = self:bring_into_force(text, path) end
    if not good then return nil, errors.new("refused", why .. "; the policy in force stays") end
    self.name = path
    local generation = self.engine.core:policy_publish(policyfile.stamped(text, os.time() * 1e6))
    if generation then self.engine.core:policy_applied(generation) end
    return orders.done(("policy %s is in force, in 1 of 1 worker"):format(path),
        ("reload(%q)"):format(former))
end

--- @param engine   of the policy file at `name`; `policy`: its options
function succession.new(engine, name, policy)
    local area = policy.area ~= "" and policy.area or nil
    local self = setmetatable({ engine = engine, name = name, policy = policy, area = area }, Succession)
    loop.spawn_daemon(function()
        while true do
            self:follow()
            loop.sleep(LOOK_EVERY)
        end
    end)
    return self
end

return succession
