-- The Lua part as LuaRocks installs it, under the module: every file of it comes from the rock, and it works.

local fixture = require "ngxfixture"
local lu = require "luaunit"

local source = assert(os.getenv "WEIR_SOURCE_DIR")

local server = [[
    location = /read { content_by_lua_block {
        local weir = require "resty.weir"
        ngx.say(assert(weir.db():service():query(nil, "select 42 as x"))[1].x)
    } }
    location = /moved { content_by_lua_block {
        local pgmoon = require "resty.weir.pgmoon"
        local pg = pgmoon.new { weir = true, client = "service" }
        assert(pg:connect())
        ngx.say(assert(pg:query("select $1 + $1 as sum", 7))[1].sum)
        assert(pg:keepalive())
    } }
    location = /from { content_by_lua_block {
        local weir, pgmoon = require "resty.weir", require "resty.weir.pgmoon"
        for _, fn in ipairs { weir.respond, pgmoon.new, weir.json.encode } do
            ngx.say(debug.getinfo(fn, "S").source)
        end
        ngx.say(debug.getinfo(require("weir.worker").start, "S").source)
    } }
]]

TestRock = { tearDown = fixture.stop_all }

function TestRock:setUp()
    self.tree = fixture.sh "mktemp -d":gsub("%s+$", "")
    fixture.sh("cp -R %s/lua %s/lua", source, self.tree)
    local said, code = fixture.sh("cd %s/lua && luarocks --lua-version 5.1 --tree %s/tree make --deps-mode none weir-0.1.0-1.rockspec",
        self.tree, self.tree)
    lu.assertEquals(code or 0, 0, said)
    fixture.sh("rm -rf %s/lua", self.tree)
end

function TestRock:test_it_serves_from_where_luarocks_put_it()
    local path = self.tree .. "/tree/share/lua/5.1"
    local nginx = fixture.start { workers = 1, server = server,
        http = ("lua_package_path '%s/?.lua;%s/?/init.lua;;';"):format(path, path) }
    lu.assertEquals(select(2, nginx:get "/read"), "42\n")
    lu.assertEquals(select(2, nginx:get "/moved"), "14\n")
    local _, from = nginx:get "/from"
    for line in from:gmatch "[^\n]+" do lu.assertStrContains(line, path) end
    lu.assertTrue(select(2, from:gsub("\n", "")) >= 3, from)
    lu.assertEquals(nginx:alerts(), "")
    nginx:stop()
    fixture.sh("rm -rf %s", self.tree)
end

os.exit(lu.LuaUnit.run())
