--- The real servers of a scenario: a throw-away PostgreSQL for each, with the logins of the policy, the
-- tables of the scenario's `setup` and a proxy in front; and a connection past the proxy by which the
-- scenario steers.

local check = require "weir.scenario.check"
local db = require "weir.db"
local loop = require "weir.loop"
local stagesql = require "weir.scenario.stagesql"
local testing = require "weir.testing"

local stage = {}

local Stage = {}
Stage.__index = Stage

local STEER_PAUSE = 0.05 -- seconds between two tries to reach a server that is away

-- ---- making one -------------------------------------------------------------------------------------------

local DEFAULT_CONNECTIONS = 100 -- the simulated server's

local function settings_of(options)
    -- PostgreSQL keeps three of its connections for superusers.
    local settings = { max_connections = (options.connections or DEFAULT_CONNECTIONS) + 3 }
    if options.follows then settings.default_transaction_read_only = true end
    return settings
end

local function started(plan, name, options, scram)
    local pg, why = testing.postgres {
        name = "live", settings = settings_of(options), hba = scram and "local all all scram-sha-256" or nil,
    }
    if not pg then plan.where:fail("server %s cannot be started: %s", check.shown(name), why) end
    return pg
end

-- SQL of the superuser; on a replica too.
local function run_sql(pg, sql)
    return pg:sql("set default_transaction_read_only = off;\n" .. sql)
end

local function set_up(plan, server, policy, call_count)
    local pg = server.pg
    local names = check.names(policy.clients)
    assert(run_sql(pg, stagesql.logins(policy.clients, names)))
    if plan.setup then
        local ok, why = run_sql(pg, plan.setup)
        if not ok then plan.where:at("setup"):fail("setup failed on the real server: %s", why) end
    end
    assert(run_sql(pg, stagesql.stage(call_count)))
end

-- ---- the scenario's own statements ------------------------------------------------------------------------

local preparable = {
    select = true, insert = true, update = true, delete = true, merge = true, with = true, values = true,
    table = true,
}

local TABLES_MAX = 20

-- A table that `setup` has not made gets one column: enough for `insert into orders values ($1)`.
local function made_table(pg, why)
    local missing = why:match 'relation "([%w_.]+)" does not exist'
    return missing and run_sql(pg, ("create table %s (id bigint)"):format(missing)) ~= nil
end

local function check_statement(plan, call, server, sql)
    local word = sql:match "^%s*(%a+)"
    if not word or not preparable[word:lower()] then return end
    local ok, why
    for _ = 1, TABLES_MAX do
        ok, why = run_sql(server.pg, "prepare weir_scenario_check as " .. sql)
        if ok or not made_table(server.pg, why) then break end
    end
    if ok then return end
    call.where:at("sql"):fail("%s: a real server says: %s%s", call.context, why:match "^[^\n]*",
        plan.setup and "" or "; the scenario's setup = \"create table ...\" can make what is missing")
end

local function check_statements(plan, server)
    for _, call in ipairs(plan.calls) do
        for _, sql in ipairs(call.sql or {}) do check_statement(plan, call, server, sql) end
    end
    assert(run_sql(server.pg, stagesql.grants))
end

-- ---- steering ---------------------------------------------------------------------------------------------

local function open_wire(pg)
    local url = pg:url() .. "?options=-cdefault_transaction_read_only%3Doff"
    return assert(db.open {
        name = "stage", backends = { primary = url },
        clients = { service = { user = "postgres", bypass_rls = true, max = 1 } },
        timeout = 5, retries = 0, breaker = { min_calls = 1000000 }, health = { interval = 0 },
    })
end

local function is_away(err)
    return err.code ~= "server_error" or err.class ~= "permanent"
end

--- Runs statements as superuser, past the proxy and in one transaction, as soon as the server takes them.
-- Returns the last one's rows; nil if the stage is closed before. Raises what the server has against them.
function Stage:steer(name, statements)
    local server = self.servers[name]
    while not self.closed do
        local rows, err = server.wire:with_service("steer", function(tx)
            local last
            for _, sql in ipairs(statements) do last = tx:query(sql) end
            return last
        end)
        if rows then return rows end
        if not is_away(err) then error(err, 0) end
        loop.sleep(STEER_PAUSE)
    end
end

-- ---- life -------------------------------------------------------------------------------------------------

local function add_server(self, plan, name, options, policy, scram)
    local server = { name = name, options = options }
    self.servers[name] = server
    server.pg = started(plan, name, options, scram)
    set_up(plan, server, policy, #plan.calls)
    check_statements(plan, server)
    assert(server.pg:sql "checkpoint") -- the server does not sync: a crash would take all that with it
    local why
    server.proxy, why = testing.proxy { to = server.pg }
    if not server.proxy then plan.where:fail("%s", why) end
    server.wire = open_wire(server.pg)
end

--- Builds the stage of a plan for a policy that has its backends and clients. `scram`: passwords are asked
-- for.
function stage.build(plan, policy, scram)
    local self = setmetatable({ servers = {}, names = check.names(plan.server_names) }, Stage)
    local options = {}
    for _, server in ipairs(plan.servers) do options[server.name] = server.options end
    local ok, why = pcall(function()
        for _, name in ipairs(self.names) do
            add_server(self, plan, name, options[name] or {}, policy, scram)
        end
    end)
    if ok then return self end
    self:close()
    error(why, 0)
end

--- Looks at the queue of a server every `step` seconds, as long as it answers; what it sees goes to
-- server.queue: { running, waiting, running_max, waiting_max }.
function Stage:watch_queue(name, step)
    local server = self.servers[name]
    local seen = { running = 0, waiting = 0, running_max = 0, waiting_max = 0 }
    server.queue = seen
    return loop.spawn_daemon(function()
        while not self.closed do
            local rows = server.wire:service():with({ timeout = 1 }):query("watch", stagesql.queue)
            for _, key in ipairs { "running", "waiting" } do
                seen[key] = rows and rows[1][key] or 0
                seen[key .. "_max"] = math.max(seen[key .. "_max"], seen[key])
            end
            loop.sleep(step)
        end
    end)
end

--- Ends all trouble, so that the books can be read: every server is up, thawed and reachable, and nobody of
-- the load works there any more. Nil and a sentence if a server does not come back.
function Stage:settle(seconds)
    for _, name in ipairs(self.names) do
        local server = self.servers[name]
        server.proxy:close()
        server.pg:thaw()
        local ok, why = server.pg:start()
        if not ok then return nil, ("server %s did not come back: %s"):format(check.shown(name), why) end
        local patience = loop.now() + seconds
        while self:steer(name, { stagesql.sessions })[1].n > 0 do
            if loop.now() > patience then self:steer(name, { stagesql.terminate }) end
            loop.sleep(STEER_PAUSE)
        end
    end
    return true
end

--- How often each numbered write took effect: { [number] = { n = times, call = of which call } }.
function Stage:effects()
    local found = {}
    for _, name in ipairs(self.names) do
        for _, row in ipairs(self:steer(name, { stagesql.effects })) do
            local entry = found[row.id] or { n = 0, call = row.call }
            entry.n = entry.n + row.n
            found[row.id] = entry
        end
    end
    return found
end

--- Removes everything. Any number of times.
function Stage:close()
    self.closed = true
    for _, name in ipairs(self.names) do
        local server = self.servers[name] or {}
        if server.wire then server.wire:close() end
        if server.proxy then pcall(server.proxy.close, server.proxy) end
        if server.pg then server.pg:close() end
    end
    self.servers = {}
end

return stage
