-- The database is away for a minute and nobody asks it anything: who notices, and who lets the next caller
-- in?
--
--     weir test examples/scenarios/health_checks.lua
--
-- One request every ten seconds opens no breaker by itself. The monitor asks the server every two seconds;
-- what it learns is what /health says, and a check of the program's own stands beside it.

local s = require "weir.scenario"

local told = {}                                             -- what health said, by the second

local function watch(_, db)
    local health = db:health()
    local checks = health.checks
    told[#told + 1] = health.status .. " " .. checks.database.status .. " " .. checks.cache.status
end

local looks = {}
for _, second in ipairs { 5, 20, 40, 75 } do looks[#looks + 1] = s.at(second, watch) end

s.scenario "the monitor notices an outage without traffic" {
    policy = function()
        told = {}
        return {
            timeout = 2,
            health = { interval = 2, checks = { cache = function() return true end } },
        }
    end,
    load = { arrivals = s.constant(0.1) },
    faults = { s.at(10, s.crash "primary" { restart_after = 60 }), looks[1], looks[2], looks[3], looks[4] },
    phases = { s.phase("before", 0, 10), s.phase("after", 72, 90) },
    duration = 90,
    expect = {
        s.goodput("before"):is(1),
        s.goodput("after"):is(1),
        s.seen(function()
            local seen = table.concat(told, ", ")
            local away = "unhealthy unhealthy healthy"
            return seen == ("healthy healthy healthy, %s, %s, healthy healthy healthy"):format(away, away), seen
        end, "healthy, unhealthy, unhealthy, healthy; and the cache is well all the time"),
    },
}
