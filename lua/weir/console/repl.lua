--- `weir repl`: what the command line asks for, and weir.repl() for scripts.

local db = require "weir.db"
local errors = require "weir.errors"
local listing = require "weir.listing"
local loop = require "weir.loop"
local policyfile = require "weir.policyfile"
local session = require "weir.console.dialogue"
local succession = require "weir.console.succession"
local view = require "weir.view"

local repl = {}

local USAGE, UNREACHABLE = 2, 3

local function complain(format, ...)
    io.stderr:write("weir repl: ", format:format(...), "\n")
end

-- ---- the command line -------------------------------------------------------------------------------------

local flags = { ["--json"] = "json", ["--no-color"] = "plain", ["--no-colour"] = "plain" }

local function read_arguments(arguments)
    local options, i = { commands = {} }, 1
    while arguments[i] do
        local word = arguments[i]
        local name, joined = word:match "^(%-%-%w+)=(.*)$"
        local key = name or word
        if flags[word] then
            options[flags[word]] = true
        elseif key == "--area" or word == "-c" then
            local value = joined
            if not value then
                i = i + 1
                value = arguments[i]
            end
            if not value then return nil, key .. " needs a value" end
            if word == "-c" then table.insert(options.commands, value) else options.area = value end
        elseif word:sub(1, 1) == "-" then
            return nil, ("there is no option '%s'"):format(word)
        elseif options.policy then
            return nil, ("one policy at most, not '%s' too"):format(word)
        else
            options.policy = word
        end
        i = i + 1
    end
    return options
end

local private -- the path of an area that nobody else is told of

-- In a file, so that a new policy's engine goes on with what the old one's has counted.
local function private_area()
    private = os.tmpname()
    os.remove(private)
    return private
end

-- The engine of a policy file, and its options where it returned those.
local function open_policy(path, area)
    local text, why = policyfile.read(path)
    if not text then return nil, why end
    local result, fault = policyfile.options(text, path)
    if not result then return nil, fault end
    if db.is(result) then return result end
    result.area = result.area or area or private_area()
    local ok, opened, err = pcall(db.open, result)
    if not ok then return nil, path .. ": " .. tostring(opened) end
    if not opened then return nil, path .. ": " .. tostring(err) end
    return opened, result
end

local function colours(options)
    local forbidden = os.getenv "NO_COLOR"
    if options.plain or forbidden and forbidden ~= "" then return false end
    local ok, terminal = pcall(require, "weir.terminal")
    return ok and select(2, terminal.is()) and os.getenv "TERM" ~= "dumb"
end

local function greet(self)
    local seen = self.env.view
    if not seen then
        return self:say("weir " .. require("weir").version .. " · help() lists what there is")
    end
    local workers, stats = seen:workers(), seen:stats()
    local host = workers[1] and listing.printable(workers[1].host) or "no worker"
    local config = seen:config()
    local generation = config.policy_generation or 0
    self:say(("weir %s · %s · %s · %d worker%s · policy %s · help() lists what there is"):format(
        require("weir").version, listing.printable(stats.name), host, #workers, #workers == 1 and "" or "s",
        generation > 0 and tostring(generation) or "as started"))
    local may, why = seen.area:may_steer()
    if not may then self:say("read-only: " .. why) end
end

-- What the session looks at. Returns its options, or nil, why, and the exit code.
local function subject(options)
    local made = { names = {}, json = options.json, colours = colours(options) }
    if options.policy then
        local engine, more = open_policy(options.policy, options.area)
        if not engine then return nil, more, 1 end
        _G.db = engine
        if more then made.succession = succession.new(engine, options.policy, more) end
    elseif options.area then
        local attached, err = view.attach(options.area)
        if not attached then return nil, err.message, UNREACHABLE end
        made.view = attached
    end
    return made
end

local function run_commands(self, commands)
    for _, command in ipairs(commands) do
        local code = self:once(command)
        if code ~= 0 then return code end
    end
    return 0
end

local function converse(self, options)
    if #options.commands > 0 then return run_commands(self, options.commands) end
    if session.interactive() and not options.json then greet(self) end
    return self:live()
end

--- What `weir repl ARGUMENTS` does. Returns the exit code.
function repl.main(_, ...)
    local options, wrong = read_arguments { ... }
    if not options then
        complain("%s; see weir help repl", wrong)
        return USAGE
    end
    local made, why, code = subject(options)
    if not made then
        complain("%s", why)
        return code
    end
    local ok, raised = pcall(function() code = converse(session.new(made), options) end)
    if private then os.remove(private) end
    if not ok then error(raised, 0) end
    return code
end

-- ---- in a script ------------------------------------------------------------------------------------------

--- weir.repl(options): the prompt where a script stands; returns when it ends (Ctrl-D). Other tasks go on.
-- @param options  names (a table: what is seen at the prompt beside the globals), error (shown first, and
-- `err`),
-- view (of an attached engine), json
function repl.open(options)
    options = options or {}
    if type(options) ~= "table" then
        errors.misusef("repl: the argument is a %s; it must be a table", type(options))
    end
    local names = options.names or {}
    if options.error ~= nil then names.err = options.error end
    if names.db == nil and rawget(_G, "db") == nil then names.db = db.only() end
    local self = session.new { view = options.view, names = names, json = options.json,
        colours = colours(options) }
    if options.error ~= nil then
        self:complain(options.error)
        if names.traceback then self:say(names.traceback) end
        self:say "err and traceback hold it; Ctrl-D ends"
    end
    self:live()
end

-- ---- weir run --repl-on-error -----------------------------------------------------------------------------

-- The locals of the function that raised, by their names; the innermost wins. `level` as blamed_level gives
-- it.
local function locals_at(level)
    local found = {}
    for i = 1, 200 do
        local name, value = debug.getlocal(level, i)
        if not name then break end
        if name:find "^[%a_]" then found[name] = value end
    end
    return found
end

local here = debug.getinfo(1, "S").source:match "^(.*[/\\])console[/\\]"

-- The level of the script's own function that is to blame, from the one who calls.
local function blamed_level()
    for level = 2, 50 do
        local info = debug.getinfo(level, "S")
        if not info then return nil end
        if info.what ~= "C" and not (here and info.source:sub(1, #here) == here) then return level end
    end
end

local function keep_scene(scene)
    return function(err)
        local level = blamed_level()
        scene.names = level and locals_at(level) or {}
        scene.names.traceback = debug.traceback(nil, 2)
        return err
    end
end

local function wanted(err)
    local interrupt = type(err) == "string" and err:find "interrupted$"
    return not interrupt and session.interactive()
end

--- What `weir run --repl-on-error FILE` does instead of loop.run: where the script fails, the prompt opens,
-- with `err`, `traceback` and the locals of the function that raised; when that ends, the script has
-- failed.
function repl.run(main, ...)
    return loop.run(function(...)
        local scene = {}
        local results = table.pack(xpcall(main, keep_scene(scene), ...))
        if results[1] then return table.unpack(results, 2, results.n) end
        local err = results[2]
        if not wanted(err) then error(err, 0) end
        repl.open { error = err, names = scene.names }
        error(err, 0)
    end, ...)
end

-- ---- in a program in C ------------------------------------------------------------------------------------

--- What weir_repl_run does: `area` is the handle of the program's engine, or nil. Returns the exit code.
function repl.embedded(area)
    local seen = area and view.new(area)
    local self = session.new { view = seen, names = { db = seen }, colours = colours {} }
    if session.interactive() then greet(self) end
    local code = self:live()
    if seen then seen:close() end
    return code
end

return repl
