--- What the locations of the bench do: each fetches through one variant, and prints one field of what it
-- got, so that everything was decoded. nginx.conf is written by throughput.lua.

local ngx = ngx -- luacheck: ignore

local handlers = {}

local queries = {
    one = { sql = "SELECT 1 AS a", field = "a", row = 1 },
    ten = { sql = "SELECT * FROM t10", field = "note", row = 10 },
}

local function answer(query, rows, err)
    if not rows then
        ngx.log(ngx.ERR, tostring(err))
        return ngx.exit(500)
    end
    ngx.print(rows[query.row][query.field])
end

--- No database: what HTTP and Lua cost by themselves.
function handlers.hello()
    ngx.print "hello"
end

--- The way drivers over cosockets are used: connect, query and give back in every request.
function handlers.cosocket(name)
    local cosocket, query = require "cosocket", queries[name]
    local pg, why = cosocket.connect(handlers.server)
    if not pg then return answer(query, nil, why) end
    local rows, err = pg:query(query.sql)
    pg:keepalive(60000, 64)
    answer(query, rows, err)
end

local clients = { -- by variant; calls that share a connection have to be read-only
    weir = { max = 8 },
    ["multiplex"] = { max = 1, multiplex = 64 },
    ["multiplex-2"] = { max = 2, multiplex = 64 },
}

local handles = {} -- by variant, made when first used

local function open(variant)
    local client = { user = handlers.server.user, bypass_rls = true }
    for key, value in pairs(clients[variant]) do client[key] = value end
    local db = assert(require "resty.weir".open {
        name = "bench",
        backends = { primary = handlers.server.conninfo },
        clients = { service = client },
    })
    handles[variant] = db:service():with { readonly = client.multiplex ~= nil }
    return handles[variant]
end

--- The way Weir is used: the engine and what belongs to no request in a module, one call in every request.
function handlers.weir(variant, name)
    local query = queries[name]
    local service = handles[variant] or open(variant)
    answer(query, service:query("GET /" .. name, query.sql))
end

return handlers
