---@meta resty.weir

--- Weir for OpenResty and nginx with ngx_lua: everything of `weir`, and what belongs to a request. A context of nil
--- stands for the request's method and route.
---@class resty.weir : weir
local weir = {}

--- The engine of weir_policy, the same for all code of this worker; nil and an error if it could not be opened.
---@return weir.db? db, weir.error? err
function weir.db() end

--- Another engine, of this worker alone. Keep it in a module, not in a request.
---@param options weir.options
---@return weir.db? db, weir.error? err
function weir.open(options) end

--- Brings a new policy into force in all workers: `text`, or the file of weir_policy as it is now. A mistake in it is
--- told, and the old one stays everywhere.
---@param text? string
---@return integer? generation, string? why
function weir.reload(text) end

--- The HTTP status that tells a client of an error: 503, 504 or 500.
---@param err weir.error|string
---@return integer
function weir.status_of(err) end

--- Ends the request with that status, Retry-After for a refusal, and a short JSON body; the rest goes to the error log.
---@param err weir.error|string
function weir.respond(err) end

return weir
