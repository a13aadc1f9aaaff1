-- Every name of the console is documented, and nothing else is: in help(), as a function, as a `\` command,
-- in README.

local lu = require "luaunit"
local environment = require "weir.console.environment"
local names = require "weir.console.names"
local serving = require "serving"
local shorthand = require "weir.console.shorthand"
local view = require "weir.view"

local BIN = os.getenv "WEIR_BIN" or "build/weir"
local SOURCE = os.getenv "WEIR_SOURCE_DIR" or "."

local POLICY = [[return { name = "api", backends = { primary = "host=/nowhere" }, timeout = 0.05, retries = 0,
    clients = { anon = { max = 4, role = "web_anon" }, service = { bypass_rls = true } } }]]

TestNames = {}

local function documented()
    local found = {}
    for _, entry in ipairs(names.list) do found[entry[1]] = true end
    return found
end

function TestNames.test_every_function_at_the_prompt_has_help_and_an_example()
    local there = {}
    for name, value in pairs(getmetatable(environment.new { names = {},
        watch = function() end }).functions) do
        if type(value) == "function" then there[name] = true end
    end
    lu.assertEquals(there, documented())
    for _, entry in ipairs(names.list) do
        local said = tostring(names.help(entry[1]))
        lu.assertStrContains(said, entry[2])
        lu.assertStrContains(said, "example: " .. entry[4])
        lu.assertStrContains(entry[4], entry[1])
        lu.assertStrContains(tostring(names.help()), entry[4])
    end
end

function TestNames.test_every_method_of_a_view_is_a_function_at_the_prompt()
    local of_handles = { close = true, look = true, document = true }
    for name, value in pairs(view.View) do
        if type(value) == "function" and name:sub(1, 2) ~= "__" and not of_handles[name] then
            lu.assertTrue(documented()[name], name)
        end
    end
end

function TestNames.test_every_name_is_a_command_and_calls_the_function_of_that_name()
    local words = { breaker = "anon", resize = "anon 3", watch = "1 pools", force = "anon open" }
    for name in pairs(documented()) do
        local called
        shorthand.run(name .. " " .. (words[name] or ""), function(first) called = first end)
        lu.assertEquals(called, name)
    end
end

function TestNames.test_the_readme_lists_them_all_and_no_other()
    local text = serving.read(SOURCE .. "/README.md"):match "\n## The console\n(.-)\n## "
    local listed = {}
    for name in text:gmatch "\n| `(%l+)[({][^\n]*" do listed[name] = true end
    lu.assertEquals(listed, documented())
end

function TestNames.test_every_example_runs()
    local folder = serving.folder()
    serving.write(folder .. "/policy.lua", POLICY)
    local refused = { call = true, kill = true } -- there is no such call
    for _, entry in ipairs(names.list) do
        local example = entry[1] == "watch" and "watch(60, function() os.exit(0) end)" or entry[4]
        os.execute(("cd %s && %s repl policy.lua -c %s >out 2>&1 </dev/null; echo $? >code"):format(folder,
            serving.quote(BIN), serving.quote(example)))
        local code = tonumber(serving.read(folder .. "/code"))
        lu.assertEquals({ example, refused[entry[1]] and code > 0 or code == 0 }, { example, true },
            serving.read(folder .. "/out"))
    end
    os.execute("rm -rf " .. serving.quote(folder))
end

os.exit(lu.LuaUnit.run())
