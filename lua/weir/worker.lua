--- What an nginx worker runs: opens the engine of weir_policy. Called by the module
-- (src/nginx/ngxlua.c) and never from requests, so nothing in here may wait.

local db = require "weir.db"
local ngx_core = require "weir.ngx"
local policyfile = require "weir.policyfile"

local worker = {
    db = nil,  -- the engine, once it is open
    why = "nginx is not serving requests yet: the engine of weir_policy is opened in its workers",
}

local conf -- of this worker

-- ---- opening ----------------------------------------------------------------------------------------------

local function open(text)
    local options, why = policyfile.engine_options(text, conf.name, conf.area)
    if not options then return nil, why end
    local ok, opened, err = pcall(db.open, options)
    if not ok then return nil, conf.name .. ": " .. tostring(opened) end
    if not opened then return nil, tostring(err) end
    return opened
end

local function take(opened)
    worker.db, worker.why = opened, nil
    ngx_core.serve(opened.core:handle())
end

--- Opens the engine. Returns nothing, or a sentence.
function worker.start(text, name, area)
    conf = { text = text, name = name, area = area }
    local opened, why = open(text)
    if not opened then
        worker.why = why
        return why
    end
    take(opened)
end

return worker
