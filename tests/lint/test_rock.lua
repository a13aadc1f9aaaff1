-- The rockspec names every Lua file there is and nothing else, and carries the version that everything else does.

local lu = require "luaunit"

local source = os.getenv "WEIR_SOURCE_DIR" or "."

local function rockspec()
    local found = {}
    local chunk = assert(loadfile(source .. "/lua/weir-0.1.0-1.rockspec", "t", found))
    chunk()
    return found
end

TestRock = {}

function TestRock:test_it_names_every_module()
    local named = rockspec().build.modules
    local pipe = io.popen(("cd '%s/lua' && find . -name '*.lua' ! -name '*.d.lua'"):format(source))
    local there = {}
    for path in pipe:lines() do
        path = path:sub(3)
        local module = path:gsub("%.lua$", ""):gsub("/", "."):gsub("%.init$", "")
        there[module] = path
    end
    pipe:close()
    lu.assertEquals(named, there)
end

function TestRock:test_its_version_is_the_engines()
    local header = io.open(source .. "/include/weir/weir.h"):read "a"
    local version = header:match '#define WEIR_VERSION "([^"]+)"'
    lu.assertEquals(rockspec().version, version .. "-1")
    local dist = io.open(source .. "/lua/dist.ini"):read "a"
    lu.assertEquals(dist:match "\nversion = (%S+)", version)
end

os.exit(lu.LuaUnit.run())
