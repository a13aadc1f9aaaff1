--- Weir: keeps an application upright when its PostgreSQL is slow, full, or gone.
--
--     local weir = require "weir"
--     local db = weir.open { backends = { primary = "..." }, clients = { anon = { role = "web_anon" } } }
--     local rows, err = db:anon { sub = user }:query("GET /contacts", "select * from contacts")

local core = require "weir.core"
local db = require "weir.db"
local errors = require "weir.errors"
local guard = require "weir.guard"
local json = require "weir.json"
local loop = require "weir.loop"
local poll = require "weir.poll"
local sim = require "weir.sim"
local types = require "weir.types"

-- Both bring a good deal of code with them, for a moment that most programs never have.
local function late(name)
    return function(...)
        return require(name)(...)
    end
end

return {
    version = core.version,
    host = core.host, -- "libuv" or "nginx": whose loop this is
    open = db.open,

    spawn = loop.spawn,
    sleep = loop.sleep,
    gather = loop.gather,
    run = loop.run,
    now = loop.now,
    poll = poll.poll,

    breaker = guard.breaker,
    backoff = guard.backoff,
    budget = guard.budget,
    limit = guard.limit,
    rate = guard.rate,
    guard = guard.guard,
    sim = sim,
    attach = function(path)
        require "weir.hindsight"
        require "weir.orders"
        require "weir.pgbouncer"
        return require("weir.view").attach(path)
    end,
    repl = function(options)
        return require("weir.console.repl").open(options)
    end,
    explain = late "weir.explain",
    lint = late "weir.lint",

    null = json.null,
    json = setmetatable({ encode = json.encode, decode = json.decode }, {
        __call = function(_, value)
            return types.json(value)
        end,
    }),
    array = types.array,
    bytea = types.bytea,

    is_error = errors.is,
}
