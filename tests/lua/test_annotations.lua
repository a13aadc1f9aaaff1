-- The definition file for the language server: it names what there is, all of it, and nothing else.

local lu = require "luaunit"
local scenario = require "weir.scenario"
local weir = require "weir"

TestAnnotations = {}

local function read_definitions(name)
    local path = assert(package.searchpath("weir.errors", package.path)):gsub("errors%.lua$", name or "weir.d.lua")
    local file = assert(io.open(path))
    local text = file:read("*a")
    file:close()
    return text
end

-- The methods defined for a local of the file, like `function db:query(`.
local function defined(text, name)
    local found = {}
    for method in text:gmatch("\nfunction " .. name .. "[:.]([%w_]+)%(") do found[method] = true end
    return found
end

local function public(class)
    local found = {}
    for name, value in pairs(class) do
        if type(value) == "function" and name:sub(1, 2) ~= "__" then found[name] = true end
    end
    return found
end

function TestAnnotations.test_every_public_function_is_annotated_and_nothing_else()
    local text = read_definitions()
    lu.assertEquals(defined(text, "weir"), public(weir))
end

function TestAnnotations.test_so_are_the_methods_of_every_object()
    local text = read_definitions()
    local db = assert(weir.open {
        backends = { primary = "host=/nowhere" },
        clients = { service = { bypass_rls = true } },
    })
    local objects = {
        db = db,
        handle = db:service(),
        pool_breaker = db:breaker("service@primary"),
        task = weir.spawn(function() end),
        breaker = weir.breaker {},
        backoff = weir.backoff {},
        budget = weir.budget {},
        limit = weir.limit { max = 1 },
        rate = weir.rate { per_second = 1 },
        guard = weir.guard {},
    }
    for name, object in pairs(objects) do
        lu.assertEquals(defined(text, name), public(getmetatable(object).__index), name)
    end
    db:close()
end

function TestAnnotations.test_so_are_views()
    local db = assert(weir.open {
        backends = { primary = "host=/nowhere" },
        clients = { service = { bypass_rls = true } },
    })
    local seen = db:view()
    lu.assertEquals(defined(read_definitions "view.d.lua", "view"), public(getmetatable(seen).__index))
    seen:close()
    db:close()
end

function TestAnnotations.test_so_are_listeners()
    lu.assertEquals(defined(read_definitions "listen.d.lua", "listener"), public(require("weir.listen").Listener))
end

function TestAnnotations.test_so_are_simulations_and_their_servers()
    local text, made = read_definitions "sim.d.lua", weir.sim {}
    lu.assertEquals(defined(text, "sims"), public(weir.sim))
    lu.assertEquals(defined(text, "sim"), public(getmetatable(made).__index))
    lu.assertEquals(defined(text, "server"), public(getmetatable(made:server "primary").__index))
end

function TestAnnotations.test_so_are_the_words_of_a_scenario()
    local text = read_definitions "scenario.d.lua"
    lu.assertEquals(defined(text, "s"), public(scenario))
    lu.assertEquals(defined(text, "measure"), {
        at_least = true, at_most = true, between = true, is = true,
    })
end

os.exit(lu.LuaUnit.run(), true)
