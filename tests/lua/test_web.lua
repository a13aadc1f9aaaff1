-- db:page: what an HTTP server in Lua has to send.

local lu = require "luaunit"
local weir = require "weir"

local function in_sim(fn)
    local sim = weir.sim { seed = 3 }
    return sim:run(function()
        local db = assert(weir.open {
            backends = { primary = "host=nowhere" },
            clients = { service = { bypass_rls = true, max = 5 } },
            health = { interval = 0 },
        })
        local first, second, third = fn(db, sim)
        db:close()
        return first, second, third
    end)
end

TestPage = {}

function TestPage.test_gives_status_type_and_body()
    local status, kind, body = in_sim(function(db)
        assert(db:service():query("GET /", "select 1"))
        return db:page "/health"
    end)
    lu.assertEquals(status, 200)
    lu.assertEquals(kind, "application/json")
    lu.assertEquals(weir.json.decode(body).pool.totalRequests, 1)
end

function TestPage.test_heeds_accept()
    local _, kind, body = in_sim(function(db)
        return db:page("/metrics", "application/openmetrics-text; version=1.0.0")
    end)
    lu.assertEquals(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    lu.assertEquals(body:sub(-6), "# EOF\n")
end

function TestPage.test_has_nothing_at_an_unknown_path()
    lu.assertNil(in_sim(function(db) return db:page "/nowhere" end))
end

function TestPage.test_a_draining_engine_is_not_ready()
    local status = in_sim(function(db)
        db:drain(1)
        return db:page "/readyz"
    end)
    lu.assertEquals(status, 503)
end

function TestPage.test_refuses_misuse_at_the_callers_line()
    in_sim(function(db)
        lu.assertErrorMsgContains("test_web.lua", function() db:page() end)
        lu.assertErrorMsgContains("the path is nil; it must be a string", function() db:page() end)
        lu.assertErrorMsgContains("accept is 5; it must be a string", function() db:page("/", 5) end)
    end)
end

function TestPage.test_a_closed_engine_says_so()
    local closed = in_sim(function(db) return db end)
    lu.assertErrorMsgContains("the engine is closed", function() closed:page "/health" end)
end

os.exit(lu.LuaUnit.run())
