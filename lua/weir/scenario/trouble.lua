--- The faults of a scenario, made real: signals, lost connections and refusals that a real server and a real
-- network would show. Nothing here waits for the server: the program under test goes on meanwhile.

local check = require "weir.scenario.check"
local faults = require "weir.scenario.faults"
local loop = require "weir.loop"
local stagesql = require "weir.scenario.stagesql"

local trouble = {}

local STOP_WAIT = 30 -- seconds a server may take to stop

-- ---- the kinds: how each begins, and how it ends ----------------------------------------------------------

-- A server that is down refuses; one that is coming up says so for as long as the scenario wants.
local function come_back(server, options)
    server.pg:_post("start")
    local recovery = options.recovery or 0
    if recovery <= 0 then return end
    server.proxy:refuse "57P03"
    loop.sleep(recovery)
    server.proxy:refuse(false)
end

local function goes_down(mode)
    return {
        begin = function(server) server.pg:_post("stop", mode, STOP_WAIT) end,
        finish = come_back,
    }
end

-- The calls whose statements contain a text, as the simulated server would find them.
local function calls_with(plan, text)
    if not text then return nil end
    local list = {}
    for i, call in ipairs(plan.calls) do
        for _, sql in ipairs(call.sql or {}) do
            if sql:lower():find(text:lower(), 1, true) and list[#list] ~= i then list[#list + 1] = i end
        end
    end
    return list
end

local function with_all_roles(server, run, format)
    local parts = {}
    for _, name in ipairs(check.names(run.policy.clients)) do
        local client = run.policy.clients[name]
        if client.role then
            parts[#parts + 1] = format:format(stagesql.name(client.role), stagesql.name(client.user))
        end
    end
    if #parts > 0 then run.stage:steer(server.name, parts) end
end

local function with_all_logins(server, run, suffix)
    local parts = {}
    for _, name in ipairs(check.names(run.policy.clients)) do
        local client = run.policy.clients[name]
        parts[#parts + 1] = ("alter role %s password %s"):format(stagesql.name(client.user),
            stagesql.text(client.password .. suffix))
    end
    run.stage:steer(server.name, parts)
end

local kinds = {
    crash = goes_down "immediate",
    restart = goes_down "fast",
    refuse = {
        begin = function(server, options) server.proxy:refuse(options.sqlstate or "53300") end,
        finish = function(server) server.proxy:refuse(false) end,
    },
    slow = {
        begin = function(server, options, run)
            run.stage:steer(server.name, { stagesql.slow(options.factor) })
        end,
        finish = function(server, _, run) run.stage:steer(server.name, { stagesql.slow(1) }) end,
    },
    freeze = {
        begin = function(server) server.pg:_post("freeze") end,
        finish = function(server) server.pg:_post("thaw") end,
    },
    vanish = {
        begin = function(server) server.proxy:black_hole(true) end,
        finish = function(server, options) server.proxy:black_hole(false, options.forgotten) end,
    },
    delay = {
        begin = function(server, options) server.proxy:latency(server.network + options.seconds) end,
        finish = function(server) server.proxy:latency(server.network) end,
    },
    reset = {
        begin = function(server, options)
            local count = options.count ~= 0 and options.count or nil
            server.proxy:reset(options.phase or "before_send", { rate = options.rate, count = count })
        end,
        finish = function(server, options) server.proxy:reset(options.phase or "before_send", false) end,
    },
    errors = {
        begin = function(server, options, run)
            run.stage:steer(server.name, { stagesql.errors(options.rate or 1, options.sqlstate,
                calls_with(run.plan, options.text)) })
        end,
        finish = function(server, _, run) run.stage:steer(server.name, { stagesql.errors(0) }) end,
    },
    role_lost = {
        begin = function(server, _, run) with_all_roles(server, run, "revoke %s from %s") end,
        finish = function(server, _, run) with_all_roles(server, run, "grant %s to %s") end,
    },
    rotate = {
        begin = function(server, _, run) with_all_logins(server, run, " rotated") end,
        finish = function(server, _, run) with_all_logins(server, run, "") end,
    },
}

-- ---- what cannot be made real -----------------------------------------------------------------------------

local unreal = {
    failover = "a failover cannot be made real here: the servers do not replicate",
    clock_jump = "a jump of the clock cannot be made real here: it is the whole machine's",
}

-- Each is a process, and takes shared memory whether it is used or not.
local CONNECTIONS_MAX = 1000

local real_changes = { workers = true, service = true }

local function why_not(what)
    if type(what) == "function" then
        return "a function on the timeline cannot be made real: it is given the simulation"
    end
    if what.kind == "change" then
        for _, key in ipairs(check.names(what.options)) do
            if not real_changes[key] then
                return ("s.change of %s cannot be made real here: that of a running server stays what it is")
                    :format(key)
            end
        end
    end
    return unreal[what.kind]
end

--- Why a plan cannot be run against real servers, or nil.
function trouble.obstacle(plan)
    for _, entry in ipairs(plan.timeline) do
        local why = why_not(entry.what)
        if why then return why end
    end
    for _, server in ipairs(plan.servers) do
        local options, name = server.options, check.shown(server.name)
        if options.ignores_cancel then
            return ("server %s cannot be made real here: PostgreSQL hears of a cancel"):format(name)
        elseif (options.connections or 0) > CONNECTIONS_MAX then
            return ("server %s cannot be made real here: it has %d connections, at most %d are possible")
                :format(name, options.connections, CONNECTIONS_MAX)
        end
    end
end

-- ---- the timeline -----------------------------------------------------------------------------------------

-- A crash and a restart are one trouble: a server that is down.
local function key_of(what, kind)
    return (kind == "restart" and "crash" or kind) .. " of " .. what.server
end

local function ending(what)
    local options = what.options
    if what.kind == "crash" or what.kind == "restart" then
        return (options.restart_after or 0) > 0 and options.restart_after or nil
    end
    return (options.lasts or 0) > 0 and options.lasts or nil
end

local function begin(run, what)
    local server, kind = run.stage.servers[what.server], kinds[what.kind]
    local key, mine = key_of(what, what.kind), {}
    run.troubles[key] = { what = what, mine = mine }
    kind.begin(server, what.options, run)
    local lasts = ending(what)
    if not lasts then return end
    loop.sleep(lasts - (run.clock() - run.began[what]))
    local now = run.troubles[key]
    if not now or now.mine ~= mine then return end -- healed, or replaced by another of its kind
    run.troubles[key] = nil
    kind.finish(server, what.options, run)
end

local function heal(run, what)
    local key = key_of(what, what.options.kind)
    local entry = run.troubles[key]
    run.troubles[key] = nil
    if entry then kinds[entry.what.kind].finish(run.stage.servers[what.server], entry.what.options, run) end
end

local function change(run, what)
    local server = run.stage.servers[what.server]
    server.workers = what.options.workers or server.workers
    server.service = what.options.service or server.service
    run.stage:steer(what.server, stagesql.pace(server.workers, server.service))
end

-- The whole program stands still, and its proxies with it: what comes meanwhile waits in the kernel.
local function stall(what)
    os.execute(("sleep %.3f"):format(what.options.seconds))
end

local function happen(run, entry)
    local what = entry.what
    local wait = entry.from - run.clock()
    if wait > 0 then loop.sleep(wait) end
    run.began[what] = run.clock()
    if what.kind == "heal" then return heal(run, what) end
    if what.kind == "change" then return change(run, what) end
    if what.kind == "stall" then return stall(what) end
    return begin(run, what)
end

--- Makes what is on the timeline happen at its time, counted by run.clock(). run = { plan, policy, stage,
-- clock }; a fault of ours is kept in run.mistake.
function trouble.start(run)
    run.troubles, run.began = {}, {}
    for _, entry in ipairs(run.plan.timeline) do
        loop.spawn_daemon(function()
            local ok, err = pcall(happen, run, entry)
            if not ok and not run.over then
                run.mistake = run.mistake
                    or entry.where:say("%s: %s", faults.title(entry.what), tostring(err))
            end
        end)
    end
end

return trouble
