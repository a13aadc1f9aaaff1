-- This tree keeps the rules of rules.lua.

local lu = require "luaunit"
local house = require "house"
local rules = require "rules"

local tree = house.load(assert(os.getenv "WEIR_SOURCE_DIR", "WEIR_SOURCE_DIR is not set"))
local build = assert(os.getenv "WEIR_BUILD_DIR", "WEIR_BUILD_DIR is not set")

TestHouse = {}

for name, rule in pairs(rules) do
    if name ~= "declared_functions" then
        TestHouse["test_" .. name] = function()
            local found = rule(tree, build)
            table.sort(found)
            lu.assertEquals(table.concat(found, "\n"), "")
        end
    end
end

function TestHouse:test_the_tree_was_found()
    lu.assertNotNil(tree.files["CMakeLists.txt"])
    lu.assertNotNil(tree.files["include/weir/weir.h"])
    lu.assertNotNil(rules.declared_functions(tree).weir_open)
end

os.exit(lu.LuaUnit.run())
