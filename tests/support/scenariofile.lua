--- Scenario files for tests: written where a search for a line finds them, and gone afterwards.

local scenario = require "weir.scenario"

local scenariofile = {}

local function with_file(text, fn)
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    local ok, result = pcall(fn, path)
    os.remove(path)
    if not ok then error(result, 0) end
    return result
end

--- Loads the text as a scenario file and calls fn(scenario) while the file is there. An error is returned
-- instead of raised, with the path called outage.lua.
function scenariofile.with(text, fn)
    return with_file(text, function(path)
        scenario.registered(true)
        local ok, result = pcall(function()
            assert(loadfile(path))()
            return fn(scenario.registered()[1])
        end)
        if ok then return result end
        return (tostring(result):gsub(path:gsub("%W", "%%%0"), "outage.lua"))
    end)
end

--- What loading the text raises, or the scenario.
function scenariofile.load(text)
    return scenariofile.with(text, function(made) return made end)
end

--- Fills a scenario that is fine but for `fields`, lines of text from line 4 on.
function scenariofile.text(fields)
    return 'local s = require "weir.scenario"\n\ns.scenario "test" {\n' .. fields .. "\n}\n"
end

return scenariofile
