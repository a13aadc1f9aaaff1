--- Reads a scenario's table into a plan: every field checked, every default filled in, names looked up.
-- What is wrong raises one sentence that begins with FILE:LINE.
--
--     plan = { name, where, policy, policy_where, servers = { { name, options, answers, where } },
--              server_names, engines, arrivals, calls, caller_retries, caller_pause, load_where,
--              phases = { { name, from, to } }, phase_names, timeline, trouble_from, trouble_to, duration,
--              drain, setup (SQL for real servers), expect }

local arrivals = require "weir.scenario.arrivals"
local check = require "weir.scenario.check"
local expect = require "weir.scenario.expect"
local faults = require "weir.scenario.faults"
local phases = require "weir.scenario.phases"

local plan = {}

local ENGINES_MAX, CALLS_MAX, DURATION_MAX = 64, 64, 1e6

local scenario_keys = {
    policy = true, servers = true, engines = true, load = true, phases = true, faults = true, duration = true,
    drain = true, expect = true, setup = true,
}

-- ---- servers
-- ----------------------------------------------------------------------------------------------

local durations = { service = true, commit = true, connect = true, network = true, lag = true }
local server_keys = {
    workers = true, queue = true, service = true, commit = true, connect = true, network = true,
    connections = true, ignores_cancel = true, follows = true, lag = true, answers = true,
}
local answer_keys = {
    service = true, writes = true, error = true, message = true, rows = true, columns = true,
}

--- Checks options of a server; also those that s.change gives.
function plan.check_server(spot, options)
    check.keys(spot, options, server_keys)
    for _, key in ipairs(check.names(options)) do
        if durations[key] then check.duration(spot:at(key), options[key]) end
    end
    if options.workers ~= nil then check.whole(spot:at "workers", options.workers, 1, 100000) end
    if options.connections ~= nil then check.whole(spot:at "connections", options.connections, 1, 1000000) end
    if options.queue ~= nil then check.one_of(spot:at "queue", options.queue, { "fifo", "shared" }) end
    if options.follows ~= nil then check.type(spot:at "follows", options.follows, "string") end
    if options.ignores_cancel ~= nil then
        check.type(spot:at "ignores_cancel", options.ignores_cancel, "boolean", "true or false")
    end
end

-- { "text of the statement", service = ..., error = ... }, or { "text", function(asked) ... end }
local function read_answer(spot, answer)
    check.keys(spot, answer, answer_keys, true)
    check.type(spot, answer[1], "string", "a list that begins with a text of the statement")
    spot:mark(answer[1])
    if answer[2] ~= nil then check.type(spot, answer[2], "function", "followed by a function or by keys") end
    if answer.service ~= nil then check.duration(spot:at "service", answer.service) end
    local options = {}
    for key, value in pairs(answer) do
        if type(key) == "string" then options[key] = value end
    end
    return { text = answer[1], with = answer[2] or options, where = spot }
end

local function read_server(spot, name, given)
    if type(name) ~= "string" then spot:wrong("holds something without the name of a server") end
    local at = spot:at(name)
    check.type(at, given, "table", "a table of a server's options")
    plan.check_server(at, given)
    local options = {}
    for key, value in pairs(given) do
        if key ~= "answers" then options[key] = value end
    end
    local answers = given.answers and check.list(at:at "answers", given.answers, "answers", read_answer) or {}
    return { name = name, options = options, answers = answers, where = at }
end

local function check_leader(spot, name, leader, names)
    if leader == nil or names[leader] and leader ~= name then return end
    spot:at("follows"):wrong("is %s, which is no other server%s", check.shown(leader),
        check.hint(leader, check.names(names)))
end

-- In the order of names, primaries before those who follow them: never that of the hash.
local function read_servers(spot, given)
    check.type(spot, given, "table", "a table of servers by their names")
    for key in pairs(given) do
        if type(key) ~= "string" then spot:wrong("holds something without the name of a server") end
    end
    local list, names = {}, {}
    for _, name in ipairs(check.names(given)) do
        list[#list + 1] = read_server(spot, name, given[name])
        names[name] = true
    end
    for _, server in ipairs(list) do
        check_leader(server.where, server.name, server.options.follows, names)
    end
    table.sort(list, function(a, b)
        local a_leads, b_leads = not a.options.follows, not b.options.follows
        if a_leads ~= b_leads then return a_leads end
        return a.name < b.name
    end)
    return list, names
end

-- A backend that the policy names is a server too: with the defaults.
local function add_backends(names, policy)
    local backends = type(policy) == "table" and policy.backends
    if type(backends) ~= "table" then return end
    for _, name in ipairs(check.names(backends)) do names[name] = true end
end

-- ---- calls
-- ------------------------------------------------------------------------------------------------

local call_keys = {
    client = true, claims = true, sql = true, values = true, weight = true, unit = true, writes = true,
    readonly = true, idempotent = true, timeout = true, isolation = true, backend = true, work = true,
}
local flags = { "unit", "writes", "readonly", "idempotent" }
local texts = { "client", "isolation", "backend" }

local function read_statements(spot, sql)
    if type(sql) == "string" then return { sql } end
    if type(sql) ~= "table" then
        spot:wrong("is %s; it must be a statement or a list of statements", check.shown(sql))
    end
    local list = check.list(spot, sql, "statements", function(at, one)
        return check.type(at, one, "string")
    end)
    if #list == 0 then spot:wrong("holds no statement") end
    return list
end

local function starts_with_write(sql)
    local word = sql:match("^%s*(%a+)") or ""
    word = word:lower()
    return word == "insert" or word == "update" or word == "delete" or word == "merge"
end

-- The books know a write by its number, so one that does not carry it as its first value is not followed.
local function is_numbered_write(call)
    for i, sql in ipairs(call.sql or {}) do
        if starts_with_write(sql) and sql:find("$1", 1, true) and not (call.values and call.values[i]) then
            return true
        end
    end
    return false
end

local function check_call_values(spot, given)
    for _, key in ipairs(flags) do
        if given[key] ~= nil then check.type(spot:at(key), given[key], "boolean", "true or false") end
    end
    for _, key in ipairs(texts) do
        if given[key] ~= nil then check.type(spot:at(key), given[key], "string") end
    end
    if given.weight ~= nil then check.positive(spot:at "weight", given.weight) end
    if given.timeout ~= nil then check.positive(spot:at "timeout", given.timeout) end
    if given.values ~= nil then check.type(spot:at "values", given.values, "table", "a list of values") end
    if given.claims ~= nil and type(given.claims) ~= "string" then
        check.type(spot:at "claims", given.claims, "table", "a table or JSON as text")
    end
    if given.work ~= nil then check.type(spot:at "work", given.work, "function", "function(db, number)") end
end

-- { v, ... } for one statement, { { v, ... }, ... } for several.
local function read_values(spot, given, count)
    if given == nil then return nil end
    if count == 1 and type(given[1]) ~= "table" then return { given } end
    return check.list(spot, given, "values, one list for each statement", function(at, one)
        return check.type(at, one, "table", "a list of values")
    end)
end

local function read_call(spot, given)
    check.keys(spot, given, call_keys, true)
    check.type(spot, given[1], "string",
        "a table that begins with the context, like { \"GET /contacts\", sql = ... }")
    spot:mark(given[1])
    check_call_values(spot, given)
    if (given.sql == nil) == (given.work == nil) then
        spot:wrong("(%q) needs sql or work, one of them", given[1])
    end
    local call = {}
    for key, value in pairs(given) do
        if type(key) == "string" then call[key] = value end
    end
    call.context, call.where = given[1], spot
    call.weight = given.weight or 1
    call.sql = given.sql and read_statements(spot:at "sql", given.sql)
    call.values = call.sql and read_values(spot:at "values", given.values, #call.sql)
    if call.writes == nil then call.writes = not call.readonly and is_numbered_write(call) end
    return call
end

local function default_calls(spot)
    return { { context = "select 1", sql = { "select 1" }, weight = 1, readonly = true, writes = false,
        where = spot } }
end

-- Who calls, if the call does not say: the client "service", or the only one there is.
local function settle_clients(calls, policy)
    local clients = type(policy) == "table" and policy.clients
    local names = type(clients) == "table" and check.names(clients) or { "anon", "service" }
    local known = {}
    for _, name in ipairs(names) do known[name] = true end
    for _, call in ipairs(calls) do
        if call.client == nil and not call.work then call.client = known.service and "service" or names[1] end
        if type(policy) ~= "function" and call.client and not known[call.client] then
            call.where:at("client"):wrong("is %q, which the policy does not have%s", call.client,
                check.hint(call.client, names))
        end
        local client = type(clients) == "table" and clients[call.client]
        local anon = client and type(client) == "table" and client.role or
            not clients and call.client == "anon"
        if type(policy) ~= "function" and anon and call.claims == nil and not call.work then
            call.where:wrong("needs claims, as client %s is ANON and acts for a user: claims = { sub = %q }",
                call.client, "ada")
        end
    end
end

-- ---- load
-- -------------------------------------------------------------------------------------------------

local load_keys = { arrivals = true, calls = true, caller_retries = true, caller_pause = true }

local function read_arrivals(spot, given, duration)
    if arrivals.is(given) then given = { given } end
    local what = "arrivals, such as s.poisson(200)"
    if type(given) ~= "table" then spot:wrong("is %s; it must be %s", check.shown(given), what) end
    local list = check.list(spot, given, what, function(at, one)
        if not arrivals.is(one) then at:wrong("is %s; it must be %s", check.shown(one), what) end
        return one:fit(duration)
    end)
    if #list == 0 then spot:wrong("is empty; it must hold %s", what) end
    return list
end

local function read_load(spot, given, out)
    if given == nil then
        spot:fail("load is missing; it says who calls and how often: load = { arrivals = s.poisson(200) }")
    end
    check.keys(spot, given, load_keys)
    out.arrivals = read_arrivals(spot:at "arrivals", given.arrivals, out.duration)
    out.calls = given.calls and check.list(spot:at "calls", given.calls, "calls",
        read_call) or default_calls(spot)
    if #out.calls == 0 or #out.calls > CALLS_MAX then
        spot:at("calls"):wrong("has %d calls; it takes 1 to %d", #out.calls, CALLS_MAX)
    end
    settle_clients(out.calls, out.policy)
    out.caller_retries = check.whole(spot:at "caller_retries", given.caller_retries or 0, 0, 100)
    out.caller_pause = check.number(spot:at "caller_pause", given.caller_pause or 0, 0)
    out.load_where = spot
end

-- ---- lengths
-- ----------------------------------------------------------------------------------------------

-- Long enough for whatever arrived last to end by its deadline, tried again by its caller as often as that
-- may be.
local function default_drain(out)
    local policy = type(out.policy) == "table" and out.policy or {}
    local timeout = policy.timeout -- what is wrong with it is weir.open's to say
    local longest = type(timeout) == "number" and timeout == timeout and math.max(timeout, 0) or 10
    for _, call in ipairs(out.calls) do longest = math.max(longest, call.timeout or 0) end
    return longest * (1 + out.caller_retries) + out.caller_pause * out.caller_retries + 5
end

local function read_duration(spot, given)
    if given == nil then spot:fail("duration is missing; it says for how many seconds requests arrive") end
    check.positive(spot:at "duration", given)
    return check.number(spot:at "duration", given, 0, DURATION_MAX)
end

local function read_events(spot, given)
    return check.list(spot, given or {}, "faults", function(at, one)
        if faults.is_fault(one) then
            one.where:fail("%s does not say when; put it into s.at(20, ...) or s.between(20, 50, ...)",
                one.where.title)
        elseif not faults.is_event(one) then
            at:wrong("is %s; it must be s.at(20, ...) or s.between(20, 50, ...)", check.shown(one))
        end
        return one
    end)
end

local function check_policy(spot, policy)
    if policy ~= nil and type(policy) ~= "table" and type(policy) ~= "function" then
        spot:wrong("is %s; it must be a table as weir.open takes, or a function that gives one",
            check.shown(policy))
    end
    return policy
end

--- The plan of the scenario `name` that stands at `spot`.
function plan.read(spot, name, given)
    if type(given) ~= "table" then
        spot:fail("s.scenario %q is followed by %s; it must be a table: s.scenario %q { ... }", name,
            check.shown(given), name)
    end
    check.keys(spot, given, scenario_keys)
    local out = { name = name, where = spot, policy_where = spot:at "policy" }
    out.policy = check_policy(out.policy_where, given.policy)
    out.duration = read_duration(spot, given.duration)
    out.engines = check.whole(spot:at "engines", given.engines or 1, 1, ENGINES_MAX)
    out.servers, out.server_names = read_servers(spot:at "servers", given.servers or { primary = {} })
    add_backends(out.server_names, out.policy)
    read_load(spot:at "load", given.load, out)
    if given.setup ~= nil then check.type(spot:at "setup", given.setup, "string", "SQL, as text") end
    out.setup = given.setup
    out.drain = given.drain and check.number(spot:at "drain", given.drain, 0, DURATION_MAX) or
        math.min(default_drain(out), DURATION_MAX)
    local events = read_events(spot:at "faults", given.faults)
    out.timeline = faults.timeline(events, out.duration, out.drain, out.server_names)
    for _, entry in ipairs(out.timeline) do
        if type(entry.what) == "table" and entry.what.kind == "change" then
            plan.check_server(entry.what.where, entry.what.options)
            check_leader(entry.what.where, entry.what.server, entry.what.options.follows, out.server_names)
        end
    end
    out.trouble_from, out.trouble_to = faults.trouble(out.timeline, out.duration)
    out.phases, out.phase_names = phases.read(spot:at "phases", given.phases, out)
    out.expect = expect.read(spot:at "expect", given.expect or {}, out)
    return out
end

return plan
