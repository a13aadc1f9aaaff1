--- Weir for OpenResty and nginx with ngx_lua: everything of `weir`, and what belongs to a request.
--
--     local weir = require "resty.weir"
--     local rows, err = weir.db():anon { sub = user }:query(nil, "select * from contacts")
--     if not rows then return weir.respond(err) end
--
-- A context of nil stands for the request's method and route (`$weir_route`, the location unless it is set),
-- and the request's traceparent goes along. Calls may be made wherever ngx_lua allows waiting: rewrite,
-- access, content, timers, light threads, subrequests; anywhere else they raise before anything is sent.

local weir = require "weir"
local errors = require "weir.errors"
local nginx = require "weir.nginx"
local ngx_core = require "weir.ngx"
local worker = require "weir.worker"

local ngx = ngx -- luacheck: ignore

local face = setmetatable({}, { __index = weir })

--- The engine of weir_policy, the same for all code of this worker.
-- @return the engine, or nil and an error if this worker could not open it
function face.db()
    if not ngx_core.lasting() then
        return nil, errors.new("open_failed", "lua_code_cache is off: this request has a Lua state of its own, and the "
            .. "engine lives in the worker's")
    end
    nginx.start_daemon()
    if worker.db then return worker.db end
    return nil, errors.new("open_failed", worker.why)
end

--- Opens an engine of this worker's own, beside that of weir_policy; see weir.open. Keep it in a module: one
-- for each request would have no connections to use again.
function face.open(options)
    local sim = package.loaded["weir.sim"] -- inside one there is no request, nor a phase
    if ngx.get_phase() == "init" and not (sim and sim.running()) then
        errors.misuse("open: an engine belongs to a worker; in init_by_lua there is none yet. Open it in "
            .. "init_worker_by_lua, or when a module is first used")
    end
    return weir.open(options)
end

--- Brings a new policy into force in all workers: `text`, or the file of weir_policy as it is now. If there is
-- a mistake in it, the old one stays everywhere. Each worker changes over within a second; calls end under
-- the policy they began with.
-- @return its generation, or nil and a sentence
function face.reload(text)
    return worker.publish(text)
end

-- ---- answering --------------------------------------------------------------------------------------------

-- Nothing was done, and asking again later is right.
local refusals = {
    breaker_open = true, queue_full = true, acquire_timeout = true, paused = true, draining = true,
    connect_failed = true, open_failed = true, cancelled = true,
}

--- The HTTP status that tells a client of an error: 503 for a refusal, or a connection lost with nothing done
-- on it; 504 for a timeout; 500 for the rest. A call that was cancelled while its code lives on was so by a
-- worker that leaves: 503 too.
function face.status_of(err)
    local code = type(err) == "table" and err.code
    if refusals[code] or code == "connection_lost" and err.class == "safe" then return 503 end
    if code == "timeout" then return 504 end
    return 500
end

--- Ends the request with the status of the error, Retry-After where the end of a refusal can be expected, and
-- a short JSON body. What the database said goes to nginx's error log and not to the client.
function face.respond(err)
    local status = face.status_of(err)
    ngx.log(ngx.ERR, tostring(err))
    if ngx.headers_sent then return ngx.exit(ngx.ERROR) end
    ngx.status = status
    if status == 503 then
        local after = type(err) == "table" and err.retry_after or 1
        ngx.header["Retry-After"] = math.max(1, math.ceil(after))
    end
    ngx.header["Content-Type"] = "application/json"
    ngx.print(weir.json.encode { status = status, error = type(err) == "table" and err.code or "error" })
    return ngx.exit(status)
end

return face
