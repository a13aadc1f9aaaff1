--- What an nginx worker runs: opens the engine of weir_policy, and changes over to a newer policy. Called by
-- the module (src/nginx/ngxlua.c) and never from requests, so nothing in here may wait.

local db = require "weir.db"
local nginx = require "weir.nginx"
local ngx_core = require "weir.ngx"
local policyfile = require "weir.policyfile"

local ngx = ngx -- luacheck: ignore

local worker = {
    db = nil,  -- the engine, once it is open
    why = "nginx is not serving requests yet: the engine of weir_policy is opened in its workers",
}

local conf -- of this worker
local in_force -- the text of the policy
local old = {} -- engines that are being drained: their calls end under the policy they began with

-- ---- opening ----------------------------------------------------------------------------------------------

local function open(text)
    local options, why = policyfile.engine_options(text, conf.name, conf.area, conf.area_size)
    if not options then return nil, why end
    local ok, opened, err = pcall(db.open, options)
    if not ok then return nil, conf.name .. ": " .. tostring(opened) end
    if not opened then return nil, tostring(err) end
    return opened
end

local function take(opened)
    worker.db, worker.why = opened, nil
    ngx_core.serve(opened.core:handle())
    local replaced = opened.core:area_replaced()
    if replaced ~= "" then ngx_core.log("warn", ("the area %s was replaced: %s"):format(conf.area, replaced)) end
end

-- The newer of what nginx read and what the area holds: a worker that is started anew after a crash gets
-- nginx's text, which may be long superseded.
local function settle_policy(opened)
    local held = opened.core:policy_read()
    local _, at = policyfile.unstamped(held or "")
    if not held or at < conf.read_at then
        return opened.core:policy_publish(policyfile.stamped(conf.text, conf.read_at))
    end
    worker.reload()
    return true
end

--- Opens the engine. Returns nothing, or a sentence.
function worker.start(text, name, area, area_size, drain_timeout, read_at)
    conf = { text = text, name = name, area = area, area_size = area_size, drain_timeout = drain_timeout,
        read_at = read_at }
    local opened, why = open(text)
    if not opened then
        worker.why = why
        return why
    end
    in_force = text
    opened.of_worker = true -- stays with the table when the engine inside is exchanged
    take(opened)
    nginx.also[#nginx.also + 1] = worker.stirred
    local settled, reason = settle_policy(opened)
    if not settled then ngx_core.log("error", "the policy cannot be given to other workers: " .. reason) end
end

-- ---- changing over ------------------------------------------------------------------------------------------

local function drain_old()
    for i = #old, 1, -1 do
        local engine = old[i]
        if engine.core:drained() then
            engine:close()
            table.remove(old, i)
        end
    end
    if #old > 0 then ngx_core.stir(0.05) end
end

-- Users hold the database by this table, and handles made from it: it goes on with another engine inside.
local function change_over(opened)
    local current = worker.db
    local retired = db.exchange(current, opened)
    old[#old + 1] = retired
    retired.core:drain(conf.drain_timeout)
    take(current)
end

--- Takes the policy that the area holds. What is wrong with it is told in the area's event log and nginx's
-- error log; the policy that was there stays.
function worker.reload()
    if not worker.db or ngx_core.exiting() then return end
    local core_engine = worker.db.core
    local held, generation = core_engine:policy_read()
    local text = policyfile.unstamped(held or "")
    if not held or text == in_force then return end
    local opened, why = open(text)
    if not opened then
        ngx_core.log("error", ("policy %d refused, the old one stays: %s"):format(generation, why))
        core_engine:policy_applied(generation, why)
        return
    end
    in_force = text
    change_over(opened)
    worker.db.core:policy_applied(generation)
    ngx_core.log("notice", ("policy %d is in force"):format(generation))
    drain_old()
end

--- Gives a new policy text to all workers, if it is sound; without one, the file of weir_policy as it is now.
-- @return its generation, or nil and a sentence
function worker.publish(text)
    if not worker.db then return nil, worker.why end
    if text == nil then
        local file, reason = io.open(conf.name, "rb")
        if not file then return nil, reason end
        text = file:read "*a"
        file:close()
    end
    local why = policyfile.check(text, conf.name, conf.area, conf.area_size)
    if why then return nil, why end
    ngx.update_time()
    return worker.db.core:policy_publish(policyfile.stamped(text, ngx.now() * 1e6))
end

--- Whenever there is news.
function worker.stirred()
    if worker.db and worker.db.core:policy_news() then worker.reload() end
    drain_old()
end

return worker
