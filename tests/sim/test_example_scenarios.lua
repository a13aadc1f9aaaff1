-- The scenarios of examples/scenarios hold, whatever the seed, and the same seed is the same run.

local lu = require "luaunit"
local s = require "weir.scenario"

local SEEDS = 5

TestExampleScenarios = {}

local function all_files()
    local folder = assert(os.getenv "WEIR_SOURCE_DIR") .. "/examples/scenarios"
    local pipe = assert(io.popen("ls '" .. folder .. "'/*.lua"))
    local files = {}
    for path in pipe:lines() do files[#files + 1] = path end
    pipe:close()
    assert(#files > 0, "there are no scenarios in examples/scenarios")
    return files
end

local function check(scenario)
    for seed = 1, SEEDS do
        local report = scenario:run { seed = seed }
        lu.assertEquals(report.failures, {}, report.text)
    end
    lu.assertEquals(scenario:run().hash, scenario:run().hash)
end

for _, path in ipairs(all_files()) do
    local name = path:match("([%w_]+)%.lua$")
    TestExampleScenarios["test_" .. name] = function()
        s.registered(true)
        dofile(path)
        local made = s.registered(true)
        lu.assertTrue(#made > 0, path)
        for _, scenario in ipairs(made) do check(scenario) end
    end
end

os.exit(lu.LuaUnit.run(), true)
