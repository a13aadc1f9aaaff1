-- What the page is shown of: a real PostgreSQL, a load, and the page's server: `weir serve`, or an nginx
-- (argument "nginx"). Says the page's address, then obeys a line at a time from its input and answers each
-- with "done"; with the input it ends.

local core = require "weir.core"
local serving = require "serving"
local testing = require "weir.testing"

local pg, server, area

local POLICY = [[
    local weir = require "weir"
    local db = assert(weir.open { name = "api", area = %q, timeout = 1,
        backends = { primary = %q, replica = %q },
        clients = { service = { bypass_rls = true, max = 6 }, reports = { bypass_rls = true, max = 2 } },
        connect_timeout = 0.5, health = { interval = 1 }, retries = 2,
        breaker = { min_calls = 10, window = 4, open_for = 20 },
        label = function(context) return (context:gsub("%%?.*", "")) end })
    local contexts = {
        "GET /api/contacts?workspace=1", "GET /api/notes?id=7", [=[<img src="x" onerror="boom()">]=],
    }
    local function work(task)
        local handle = db:service()
        if task == 3 then handle = db:client("reports"):with { backend = "replica" } end
        while true do
            handle:query(contexts[task], "select pg_sleep($1)", ({ 0.01, 0.02, 0 })[task] * math.random())
            weir.sleep(0.05)
        end
    end
    for task = 1, 3 do weir.spawn(work, task) end
    return db
]]

local obey = {}

function obey.stop() pg:stop "immediate" end

function obey.start() pg:start() end

-- freeze and thaw the page's server
function obey.freeze() server:signal "STOP" end

function obey.thaw() server:signal "CONT" end

-- a call, where the load is not made by the policy
function obey.call() assert(server:get "/call") end

local function order(what)
    local seen = assert(core.attach(area))
    assert(seen:order(what))
    seen:close()
end

function obey.force(pool, state, seconds)
    order { kind = "force", pool = pool, state = state, seconds = tonumber(seconds) }
end

function obey.reset(pool) order { kind = "reset", pool = pool } end

function obey.pause(pool) order { kind = "pause", pool = pool } end

function obey.resume(pool) order { kind = "resume", pool = pool } end

function obey.resize(pool, max) order { kind = "resize", pool = pool, max = tonumber(max) } end

local function serve_with_weir()
    local folder = serving.folder()
    pg = assert(testing.postgres { name = "page" })
    area = folder .. "/area"
    server = serving.serve(POLICY:format(area, pg:url(), pg:url()))
    return server.url, function() os.execute("rm -rf " .. serving.quote(folder)) end
end

local function serve_with_nginx()
    local fixture = require "ngxfixture"
    pg = fixture.server()
    server = fixture.start {
        http = "init_by_lua_block { weir = require 'resty.weir' }",
        server = [[ location = /call { content_by_lua_block {
            ngx.say(weir.db():service():query(nil, "select 1 as x")[1].x)
        } } ]],
    }
    return ("http://127.0.0.1:%d/weir/"):format(server.port), function() end
end

local function main(kind)
    local url, clean = (kind == "nginx" and serve_with_nginx or serve_with_weir)()
    print(url)
    io.stdout:flush()
    for line in io.lines() do
        local words = {}
        for word in line:gmatch "%S+" do words[#words + 1] = word end
        local good, why = pcall(obey[words[1]], table.unpack(words, 2))
        print(good and "done" or tostring(why):gsub("\n", " "))
        io.stdout:flush()
    end
    if kind ~= "nginx" then obey.thaw() end -- a case that failed may have left it frozen
    server:stop()
    pg:close()
    clean()
end

main(...)
