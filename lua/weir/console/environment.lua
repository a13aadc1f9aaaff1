--- What code at the prompt sees: the names given to the console, then the console's own, then the globals.
-- What it assigns becomes a global, or changes a name that was given.

local db = require "weir.db"
local errors = require "weir.errors"
local names = require "weir.console.names"
local shorthand = require "weir.console.shorthand"
local view = require "weir.view"

require "weir.hindsight"
require "weir.orders"
require "weir.pgbouncer"

local environment = {}

-- The view of the engine that is meant: the attached one, or that of `db` as it is now.
local function current_view(self)
    if self.view then return self.view end
    local engine = rawget(self.names, "db") or rawget(_G, "db")
    if not db.is(engine) or engine.core:closed() then return nil end
    -- A new policy brings another engine into the same table.
    if self.viewed ~= engine.core then self.viewed, self.own_view = engine.core, view.of(engine.core) end
    return self.own_view
end

local function method(self, name)
    return function(...)
        local seen = current_view(self)
        if not seen then
            return nil, errors.new("unreachable",
                "there is no engine: db = weir.open { ... }, or start with --area PATH")
        end
        return seen[name](seen, ...)
    end
end

local function explain(self)
    return function(file)
        local in_force = self.succession and self.succession.policy
        if file == nil and not in_force then
            return nil, errors.new("misuse", 'explain needs the policy\'s file: explain "policy.lua"')
        end
        local options, why = in_force, nil
        if file then options, why = self.read_policy(file) end
        if not options then return nil, errors.new("refused", why) end
        return require("weir.explain")(options)
    end
end

local own = { help = true, explain = true, watch = true }

--- @param self  the session: `view` (attached) or nil, `names` (given), `succession` or nil, `watch`
function environment.new(self)
    local functions = { weir = require "weir", help = names.help, explain = explain(self),
        watch = self.watch }
    for name in pairs(names.known) do
        if not own[name] then functions[name] = method(self, name) end
    end
    local given_reload = functions.reload
    functions.reload = function(...)
        if self.succession and not self.view then return self.succession:reload(...) end
        return given_reload(...)
    end
    return setmetatable({}, {
        __index = function(_, key)
            local given = self.names[key]
            if given ~= nil then return given end
            if key == "view" and functions.view == nil then return current_view(self) end
            local global = rawget(_G, key)
            if global ~= nil then return global end
            return functions[key]
        end,
        __newindex = function(_, key, value)
            if self.names[key] ~= nil then self.names[key] = value else rawset(_G, key, value) end
        end,
        functions = functions,
    })
end

--- Runs a `\` command through the same functions.
function environment.command(env, line)
    local functions = getmetatable(env).functions
    return shorthand.run(line, function(name, ...) return functions[name](...) end)
end

return environment
