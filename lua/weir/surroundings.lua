--- What weir.explain and weir.lint are given: the policy, made ready to be run in a world of its own,
-- and what stands around it there (the calls, the server, the other programs).

local core = require "weir.core"
local errors = require "weir.errors"

local surroundings = {}

-- ---- about ------------------------------------------------------------------------------------------------

local defaults = {
    rate = 100, service = 0.01, workers = 8, connections = 100, engines = 1, outage = 30, seed = 1,
    caller_retries = 0,
}

local limits = { -- least, most, whole
    rate = { 0.1, 100000 },
    workers = { 1, 100000, true },
    connections = { 1, 1000000, true },
    engines = { 1, 64, true },
    outage = { 1, 600 },
    seed = { 0, 2 ^ 52, true },
    caller_timeout = { 0.001, 86400 },
    caller_retries = { 0, 100, true },
}

-- In the order in which they are told of.
local keys = {
    "rate", "service", "workers", "connections", "engines", "outage", "seed", "client", "caller_timeout",
    "caller_retries",
}

local function check_known(what, about)
    local known, strange = {}, nil
    for _, key in ipairs(keys) do known[key] = true end
    for key in pairs(about) do -- which one is told must not depend on the order of the hash
        if not known[key] and (not strange or tostring(key) < strange) then strange = tostring(key) end
    end
    if strange then
        errors.misusef("%s: '%s' is nothing that surrounds a policy; there is %s", what, strange,
            table.concat(keys, ", "))
    end
end

local function check_number(what, key, value)
    local least, most, whole = limits[key][1], limits[key][2], limits[key][3]
    local fine = type(value) == "number" and value >= least and value <= most and
        (not whole or value % 1 == 0)
    if fine then return value end
    errors.misusef("%s: %s is %s; it must be a %s from %.14g to %.14g", what, key,
        type(value) == "number" and ("%.14g"):format(value) or "a " .. type(value),
        whole and "whole number" or "number", least, most)
end

-- A duration as a simulated server takes it; returns its mean.
local function check_service(what, value)
    if type(value) ~= "number" and type(value) ~= "table" then
        errors.misusef("%s: service is a %s; it must be a number of seconds or a distribution such as " ..
            "weir.sim.exponential(0.01)", what, type(value))
    end
    local mean, why = core.dist({ service = value }, "service")
    if not mean then errors.misusef("%s: %s", what, why) end
    if mean <= 0 then errors.misusef("%s: service is %g on average; it must be more than 0", what, mean) end
    return mean
end

local function read_about(what, given)
    if given ~= nil and type(given) ~= "table" then
        errors.misusef("%s: what surrounds the policy is a %s; it must be a table", what, type(given))
    end
    given = given or {}
    check_known(what, given)
    local about = {}
    for _, key in ipairs(keys) do
        local value = given[key]
        if value == nil then value = defaults[key] end
        if value ~= nil and limits[key] then check_number(what, key, value) end
        about[key] = value
    end
    about.service_mean = check_service(what, about.service)
    -- What the server can do in a second when nothing is wrong with it.
    about.capacity = about.workers / about.service_mean
    return about
end

-- ---- the policy -------------------------------------------------------------------------------------------

local function copy(given)
    local out = {}
    for key, value in pairs(given) do out[key] = value end
    return out
end

local function names_of(map)
    local names = {}
    for name in pairs(map) do names[#names + 1] = tostring(name) end
    table.sort(names)
    return names
end

local function evaluated(what, policy)
    if type(policy) == "function" then
        local ok, made = pcall(policy)
        if not ok then
            errors.misusef("%s: the function that makes the policy failed: %s", what, tostring(made))
        end
        if type(made) ~= "table" then
            errors.misusef("%s: the function that makes the policy returned a %s; it must return a " ..
                "table", what, type(made))
        end
        return made
    end
    if type(policy) == "table" then return policy end
    errors.misusef("%s: the policy is a %s; it must be the table that weir.open takes, or a function " ..
        "that makes it",
        what, type(policy))
end

-- The servers are simulated ones of the same names, so a connection string says nothing here, and one that
-- comes from the environment may be missing.
local function backends_of(given)
    local backends = {}
    if type(given) ~= "table" then return { primary = "" } end
    for name, backend in pairs(given) do
        if type(backend) == "table" then
            backend = copy(backend)
            backend.conninfo = ""
        end
        backends[name] = type(backend) == "table" and backend or ""
    end
    if next(backends) == nil then backends.primary = "" end
    return backends
end

-- Checks of the program's own reach into the real world, and so does an area that others read.
local function ready(made)
    local policy = copy(made)
    policy.backends = backends_of(made.backends)
    if made.clients == nil then policy.clients = { service = { bypass_rls = true } } end
    policy.area, policy.area_group_read = nil, nil
    if type(made.health) == "table" then
        policy.health = copy(made.health)
        policy.health.checks = nil
    end
    return policy
end

-- Whose calls are looked at: users' rather than the application's own, for there are more of them.
local function client_of(what, wanted, clients)
    if type(clients) ~= "table" then return nil end -- weir.open will say so
    local function is_anon(name)
        return type(clients[name]) == "table" and clients[name].role ~= nil
    end
    if wanted ~= nil then
        if clients[wanted] then return wanted, is_anon(wanted) end
        errors.misusef("%s: client is '%s'; the policy has %s", what, tostring(wanted),
            table.concat(names_of(clients), ", "))
    end
    if clients.anon and is_anon "anon" then return "anon", true end
    for _, name in ipairs(names_of(clients)) do
        if is_anon(name) then return name, true end
    end
    return clients.service and "service" or names_of(clients)[1], false
end

--- Checks both arguments; `what` is the function they were given to. Returns
-- { about, make(seed) -> a fresh policy, given (the policy once evaluated), client, claims, backends,
-- clients }.
function surroundings.read(what, policy, about)
    about = read_about(what, about)
    local given = ready(evaluated(what, policy))
    local client, is_anon = client_of(what, about.client, given.clients)
    return {
        what = what,
        about = about,
        given = given,
        client = client,
        claims = is_anon and '{"sub":"weir"}' or nil,
        backends = names_of(given.backends),
        clients = type(given.clients) == "table" and names_of(given.clients) or {},
        -- Evaluated again for each engine: a policy may keep something in its upvalues.
        make = function(seed)
            local fresh = ready(evaluated(what, policy))
            fresh.seed = seed
            return fresh
        end,
    }
end

local knob_defaults = {
    ["timeout"] = 10, ["connect_timeout"] = 3, ["retries"] = 3, ["backoff.cap"] = 2, ["backoff.base"] = 0.05,
    ["breaker.window"] = 10, ["breaker.min_calls"] = 20, ["breaker.failure_rate"] = 0.5,
    ["breaker.open_for"] = 60, ["breaker.half_open.permits"] = 10, ["breaker.slow_call"] = 0,
    ["budget.floor"] = 10, ["idle_timeout"] = 600,
}

--- What the policy says under a name like "breaker.half_open.permits", or what weir.open takes if it says
-- nothing. Second: whether the policy itself says it. Figures come from runs; this is what their
-- sentences name.
function surroundings.knob(setting, name)
    local value = setting.given
    for key in name:gmatch "[^.]+" do
        value = type(value) == "table" and value[key] or nil
    end
    if type(value) == "number" then return value, true end
    return knob_defaults[name], false
end

return surroundings
