-- The names of events in the log are what people search for: README lists them all, and nothing else.

local house = require "house"
local lu = require "luaunit"

local source = os.getenv "WEIR_SOURCE_DIR" or "."

TestEvents = {}

-- Names stand as literals where an event is told; knobs of the options look the same but stand in config.c.
local function told(tree)
    local names = {}
    for path, text in house.each(tree, { "src/engine" }, { ".c" }) do
        if path ~= "src/engine/config.c" then
            for name in text:gmatch '"(%l+%.%l+)"' do names[name] = true end
        end
    end
    return names
end

local function listed(readme)
    local names = {}
    local table_of_events = assert(readme:match "\n| `event` |[^\n]*\n(.-)\n\n", "README has lost its table of events")
    for row in table_of_events:gmatch "[^\n]+" do
        for name in row:match("^|([^|]*)|"):gmatch "`([%l.]+)`" do names[name] = true end
    end
    return names
end

function TestEvents:test_readme_lists_every_event_there_is()
    local tree = house.load(source)
    local names = told(tree)
    lu.assertTrue(names["breaker.moved"])
    lu.assertEquals(listed(tree.files["README.md"]), names)
end

os.exit(lu.LuaUnit.run())
