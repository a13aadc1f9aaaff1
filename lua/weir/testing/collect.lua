--- The test cases of one file: scenarios it has described, and luaunit's globals named Test... and test...
--
--     case = { name, base = the name without its seed, seed, file, line, scenario } or, of luaunit,
--            { ..., item = the name luaunit knows it by, instance = its table or function }

local collect = {}

local LOADED = {}                -- raised to end a file that wants to run its tests itself

-- ---- loading ---------------------------------------------------------------------------------------------

-- Files for luaunit end in `os.exit(lu.LuaUnit.run())`. Here that means: I am complete.
local function let_it_ask(lu, asked)
    local unit, exit = lu.LuaUnit, os.exit
    local suite, by_instances = unit.runSuite, unit.runSuiteByInstances
    unit.runSuite = function()
        asked.all = true
        return 0
    end
    unit.runSuiteByInstances = function(_, list)
        asked.list = asked.list or {}
        for _, item in ipairs(list) do table.insert(asked.list, item) end
        return 0
    end
    os.exit = function(code) -- luacheck: ignore 122
        if asked.all or asked.list then error(LOADED, 0) end
        error(("the file ends the program with os.exit(%s) while it is loaded"):format(tostring(code)), 2)
    end
    return function()
        unit.runSuite, unit.runSuiteByInstances = suite, by_instances
        os.exit = exit -- luacheck: ignore 122
    end
end

local function as_text(err)
    if type(err) == "string" then return err end
    local ok, text = pcall(tostring, err)
    return ok and text or ("an error object, a %s"):format(type(err))
end
collect.as_text = as_text

--- Loads and runs a file. `watch` is the host's, `limit` its seconds. Returns what it asked of luaunit, or
-- nil and a sentence.
function collect.load(file, lu, watch, limit)
    local chunk, why = loadfile(file, "t")
    if not chunk then return nil, why end
    local asked = {}
    local restore = let_it_ask(lu, asked)
    local ok, err = watch(limit, "@" .. file, chunk)
    restore()
    if ok or err == LOADED then return asked end
    return nil, as_text(err)
end

-- ---- finding the cases -----------------------------------------------------------------------------------

local function is_test(name)
    return type(name) == "string" and name:sub(1, 4):lower() == "test"
end

local function sorted_names(from, wanted)
    local names = {}
    for name, value in pairs(from) do
        if is_test(name) and wanted[type(value)] then names[#names + 1] = name end
    end
    table.sort(names)
    return names
end

local function line_of(fn)
    local facts = debug.getinfo(fn, "S")
    return facts.linedefined > 0 and facts.linedefined or nil
end

local function add_unit(cases, name, instance)
    if type(instance) == "function" then
        cases[#cases + 1] = { base = name, item = name, instance = instance, line = line_of(instance) }
        return
    end
    local class, method = name:match "^([^.]+)%.(.+)$"
    local methods = class and { method } or sorted_names(instance, { ["function"] = true })
    for _, one in ipairs(methods) do
        local whole = (class or name) .. "." .. one
        cases[#cases + 1] = { base = whole, item = whole, instance = instance, line = line_of(instance[one]) }
    end
end

local function add_units(cases, asked)
    for _, item in ipairs(asked.list or {}) do add_unit(cases, item[1], item[2]) end
    if asked.list and not asked.all then return end
    for _, name in ipairs(sorted_names(_G, { table = true, ["function"] = true })) do
        add_unit(cases, name, _G[name])
    end
end

local function add_scenarios(cases)
    local library = package.loaded["weir.scenario"]
    for _, scenario in ipairs(library and library.registered() or {}) do
        cases[#cases + 1] = { base = scenario.name, scenario = scenario, line = scenario.line }
    end
end

-- Only what draws from a simulation has a seed.
local function seeds_of(case, options)
    local seeded = case.scenario or package.loaded["weir.sim"]
    return seeded and options.seeds or 1
end

--- The cases of a loaded file in the order they run: scenarios, then luaunit's by name, each with all its
-- seeds. `selects` is told a name and says whether it is wanted. Also returns how many there are without
-- it.
function collect.cases(asked, file, options, selects)
    local found, cases = {}, {}
    add_scenarios(found)
    add_units(found, asked)
    for _, one in ipairs(found) do
        local seeds = selects(one.base) and seeds_of(one, options) or 0
        for seed = options.seed, options.seed + seeds - 1 do
            local name = seeds > 1 and ("%s (seed %d)"):format(one.base, seed) or one.base
            cases[#cases + 1] = setmetatable({ name = name, seed = seed, file = file }, { __index = one })
        end
    end
    return cases, #found
end

return collect
