--- What somebody who looks at an engine must not overlook, the worst first.

local amounts = require "weir.console.amounts"
local views = require "weir.console.views"

local warnings = {}

local STALE = 3 -- seconds after which a worker that says nothing is told of

local function of_area(state, add)
    local area = state.area
    if area.state ~= "live" then add("bad", ("%s: %s"):format(area.state, area.why)) end
    if area.replaced then add("warn", "another area has taken this one's place: counting anew") end
end

local function of_workers(figures, add)
    for _, worker in ipairs(figures.workers) do
        if worker.heartbeat_age > STALE then
            add("bad", ("worker %d (pid %d) has said nothing for %s"):format(worker.worker, worker.pid,
                amounts.seconds(worker.heartbeat_age)))
        end
    end
end

local function of_pool(pool, add)
    local word, left = views.state_word(pool.state), ""
    if (pool.forced_for or 0) > 0 then left = (", %s left"):format(amounts.seconds(pool.forced_for)) end
    if pool.state == "OPEN" or pool.state == "HALF_OPEN" then
        add(pool.state == "OPEN" and "bad" or "warn", ("breaker of %s is %s (%s): %s"):format(pool.pool, word,
            views.next_step(pool), pool.breaker.evidence))
    elseif pool.state ~= "CLOSED" then
        add("warn", ("breaker of %s is held by an operator: %s%s"):format(pool.pool, word, left))
    end
    if pool.draining then add("warn", ("%s is drained: calls are refused"):format(pool.pool)) end
    if pool.paused and not pool.draining then add("warn",
        ("%s is paused: calls are refused"):format(pool.pool)) end
    if pool.resized then
        add("warn", ("%s may have %d connections, not %d as configured"):format(pool.pool, pool.max,
            pool.configured_max))
    end
end

local function of_policy(figures, add)
    if figures.policy.off then add("bad", "the policy is switched off: " .. (figures.policy.message
        or "")) end
    if figures.draining then add("warn", "the engine is draining") end
end

local function of_checks(figures, add)
    local names = {}
    for name in pairs(figures.checks) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
        local check = figures.checks[name]
        if check.status == "unhealthy" and name ~= "database" then
            add("warn", ("check %s fails: %s"):format(name, check.message or ""))
        end
    end
end

--- A list of { text, look }.
function warnings.of(state)
    local bad, rest = {}, {}
    local function add(look, text)
        table.insert(look == "bad" and bad or rest, { text, look })
    end
    of_area(state, add)
    of_policy(state.figures, add)
    of_workers(state.figures, add)
    for _, pool in ipairs(state.figures.pools) do of_pool(pool, add) end
    of_checks(state.figures, add)
    return table.move(rest, 1, #rest, #bad + 1, bad)
end

return warnings
