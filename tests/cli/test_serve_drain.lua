-- The end of `weir serve` while a call is under way in a real PostgreSQL.

local lu = require "luaunit"
local serving = require "serving"
local testing = require "weir.testing"

-- One call that takes its time, and a file that tells how it ended.
local SLOW = [[
    local weir = require "weir"
    local db = assert(weir.open { name = "slow", backends = { primary = %q }, timeout = 10,
        clients = { service = { bypass_rls = true } } })
    weir.spawn(function()
        local rows = db:service():query("POST /slow", "select pg_sleep(3), 7 as seven")
        local file = assert(io.open("ended", "w"))
        file:write(tostring(rows and rows[1].seven))
        file:close()
    end)
    return db
]]

TestDrain = {}

function TestDrain.test_calls_under_way_end_before_the_process_does()
    local pg = assert(testing.postgres { name = "drained" })
    local server = serving.serve(SLOW:format(pg:url()))
    serving.wait(function()
        return select(3, server:get "/metrics"):find 'weir_connections{pool="service@primary",state="used"} 1\n'
    end, "the call")
    server:signal "TERM"
    serving.wait(function() return server:get "/readyz" == 503 end, "not ready")
    lu.assertEquals(serving.read(server.folder .. "/ended"), "")
    lu.assertEquals(server:code(), 0)
    lu.assertEquals(serving.read(server.folder .. "/ended"), "7")
    server:stop()
    pg:close()
end

os.exit(lu.LuaUnit.run())
