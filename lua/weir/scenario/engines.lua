--- The engines of a scenario: its policy made ready for a run, and opened as often as the scenario has
-- programs.

local check = require "weir.scenario.check"
local db = require "weir.db"

local engines = {}

local function copy(given)
    local out = {}
    for key, value in pairs(given) do out[key] = value end
    return out
end

-- In a simulation a backend's connection string says nothing: the server of the same name is reached. So a
-- policy that takes it from the environment needs none.
local function with_conninfo(given)
    if type(given) == "string" then return given end
    if type(given) ~= "table" then return "" end
    local backend = copy(given)
    backend.conninfo = backend.conninfo or ""
    return backend
end

local function backends_of(given, plan)
    local backends = {}
    if type(given) == "table" then
        for name, backend in pairs(given) do backends[name] = with_conninfo(backend) end
    end
    if next(backends) then return backends end
    for _, server in ipairs(plan.servers) do backends[server.name] = "" end
    return backends
end

local function evaluated(plan)
    local policy = plan.policy
    if type(policy) ~= "function" then return policy or {} end
    local ok, made = pcall(policy)
    if not ok then plan.policy_where:fail("the function that makes the policy failed: %s", tostring(made)) end
    if type(made) ~= "table" then
        plan.policy_where:fail("the function that makes the policy returned %s; it must return a table",
            check.shown(made))
    end
    return made
end

--- The policy for one run, a fresh copy: backends for the servers if it names none, clients if it has none.
-- It keeps neither area nor log: what a scenario does is nobody else's business.
function engines.policy(plan)
    local policy = copy(evaluated(plan))
    policy.backends = backends_of(policy.backends, plan)
    policy.clients = policy.clients or {
        service = { bypass_rls = true, max = 10 },
        anon = { role = "web_anon", max = 10 },
    }
    policy.area, policy.log, policy.slow_log = nil, nil, nil
    return policy
end

-- The misuse names the option; where the policy stands in the scenario's file, the option is searched there.
local function blame(plan, message)
    local text = tostring(message):match("^[^\n]-:%d+: (.*)$") or tostring(message)
    text = text:gsub("^weir: ", ""):gsub("^open: ", "")
    local spot = plan.policy_where
    if type(plan.policy) == "table" then
        for key in (text:match("^[%w_.]+") or ""):gmatch("[%w_]+") do
            if plan.policy[key] ~= nil or spot ~= plan.policy_where then spot = spot:at(key) end
        end
    end
    spot:fail("policy: %s", text)
end

--- Opens the plan's engines; `adjust(policy, index)` may change each one's policy before. With a seed of
-- its own, every engine gets another one: programs do not share their dice.
function engines.open(plan, adjust)
    local list = {}
    for index = 1, plan.engines do
        local policy = engines.policy(plan)
        if type(policy.seed) == "number" then policy.seed = policy.seed + index - 1 end
        if adjust then adjust(policy, index) end
        local ok, opened, err = pcall(db.open, policy)
        if not ok or not opened then
            engines.close(list)
            blame(plan, not ok and opened or err)
        end
        list[index] = opened
    end
    return list
end

--- How often functions of the policy failed, in all engines, what the first one said, and whether the
-- policy was switched off for it. The built-in policy answered instead, so nothing else would show it.
function engines.policy_faults(list)
    local count, why, off = 0, nil, false
    for _, one in ipairs(list) do
        local ok, stats = pcall(one.stats, one)
        for _, pool in ipairs(ok and stats.pools or {}) do count = count + pool.events.policy_faults end
        if ok and stats.policy.message ~= "" then why = why or stats.policy.message end
        off = off or ok and stats.policy.off
    end
    return { count = count, why = why, off = off }
end

--- The names of the pools, which are those of every engine.
function engines.pools(list)
    local names = {}
    local ok, stats = pcall(list[1].stats, list[1])
    for _, pool in ipairs(ok and stats.pools or {}) do names[#names + 1] = pool.pool end
    return names
end

function engines.close(list)
    for _, one in ipairs(list) do one:close() end
end

return engines
