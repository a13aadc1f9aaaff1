--- What `weir serve` does: opens the engine of a policy file, turns the HTTP server beside it, follows new
-- policies, and ends in order. The command lends what it needs of the system (src/cli/command_serve.c).

local core = require "weir.core"
local db = require "weir.db"
local loop = require "weir.loop"
local poll = require "weir.poll"
local policyfile = require "weir.policyfile"
local serveoptions = require "weir.serveoptions"

local serve = {}

local Serving = {}
Serving.__index = Serving

local UNHEARD_EVERY = 2 -- seconds: so long somebody may take until he joins a task that has failed

local TOKEN_MAX = 1024 -- characters
local ENDED = {} -- raised by the main task: what the policy's own tasks still do is not waited for

local function say(text)
    io.stdout:write("weir serve: ", text, "\n")
    io.stdout:flush()
end

local function complain(format, ...)
    io.stderr:write("weir serve: ", format:format(...), "\n")
end

local function read_token(path)
    if not path then return nil end
    local file, why = io.open(path, "rb")
    if not file then return nil, why end
    local text = file:read(TOKEN_MAX + 2) or ""
    file:close()
    local token = text:match "^[^\r\n]*"
    if not token:find "^[!-~]+$" or #token > TOKEN_MAX then
        return nil, path .. ": its first line must be the token: 1 to 1024 visible characters"
    end
    return token
end

-- ---- the policy -------------------------------------------------------------------------------------------

-- Figures outlive a change of policy only in an area: an engine whose options name none gets one of its own.
local function own_area(host)
    local folder = os.getenv "XDG_RUNTIME_DIR"
    if not folder or folder == "" then folder = "/dev/shm" end
    return ("%s/weir-serve-%d-%06x.area"):format(folder, host.process(), math.random(0, 0xffffff))
end

-- Options for the engine, on the area that the file or the command line names.
function Serving:settled(options)
    local wanted = self.options.area
    if options.area ~= nil and wanted and options.area ~= wanted then
        local both = "%s: area is %s there and %s on the command line"
        return nil, both:format(self.name, tostring(options.area), wanted)
    end
    if options.area == nil then options.area = wanted or self.private_area end
    if options.log == nil then options.log = {} end -- on stderr, as a server's log is
    local sound, why = core.check(options)
    if not sound then return nil, self.name .. ": " .. why end
    return options
end

-- What the text returns: options, or an engine that it has opened.
function Serving:evaluate(text)
    local result, why = policyfile.options(text, self.name)
    if not result or db.is(result) then return result, why end
    return self:settled(result)
end

-- A policy that takes the place of another.
function Serving:next_options(text)
    local options, why = self:evaluate(text)
    if not db.is(options) then return options, why end
    options:close()
    return nil, self.name .. ": what is read again must return options, not an engine"
end

local function open(options, name)
    local ok, opened, err = pcall(db.open, options)
    if not ok then return nil, name .. ": " .. tostring(opened) end
    if not opened then return nil, name .. ": " .. tostring(err) end
    return opened
end

function Serving:start()
    local text, why = policyfile.read(self.options.policy)
    if not text then return nil, why end
    local result, fault = self:evaluate(text)
    if not result then return nil, fault end
    self.scripted = db.is(result)
    if self.scripted then
        self.db = result
        return true
    end
    self.area = result.area
    self.db, fault = open(result, self.name)
    if not self.db then return nil, fault end
    self.in_force = text
    local replaced = self.db.core:area_replaced()
    if replaced ~= "" then complain("the area %s was replaced: %s", self.area, replaced) end
    return true
end

-- The engine that was there ends the calls that began with it.
local function retire(engine, seconds)
    engine.core:drain(seconds)
    while not engine.core:drained() do loop.sleep(0.05) end
    engine:close()
end

function Serving:refuse(generation, fault)
    complain("the policy was refused, the old one stays: %s", fault)
    self.db.core:policy_applied(generation, fault)
end

function Serving:bring_into_force(options, text, generation)
    local opened, fault = open(options, self.name)
    if not opened then return self:refuse(generation, fault) end
    self.in_force = text
    loop.spawn_daemon(retire, db.exchange(self.db, opened), self.options.drain)
    self.db.core:policy_applied(generation)
    say(("policy %d is in force"):format(generation))
end

-- Opens the logs anew and reads the file again. All processes on the area are told of it.
function Serving:reload()
    if self.attached then return end
    local logs, fault = core.reopen_logs()
    if fault then complain("%s", fault) end
    if self.scripted and logs > 0 then return end
    if self.scripted then
        return complain("%s opens its engine itself and is not read again; restart instead", self.name)
    end
    local text, why = policyfile.read(self.options.policy)
    local options
    if text then options, why = self:next_options(text) end
    if not options then return self:refuse(0, why) end
    local generation, reason = self.db.core:policy_publish(policyfile.stamped(text, os.time() * 1e6))
    if not generation then return self:refuse(0, reason) end
    self:bring_into_force(options, text, generation)
end

-- Another process on the area has been given a newer policy.
function Serving:follow()
    if self.scripted or not self.db.core:policy_news() then return end
    local held, generation = self.db.core:policy_read()
    local text = held and policyfile.unstamped(held)
    if not text or text == self.in_force then return end
    local options, why = self:next_options(text)
    if not options then return self:refuse(generation, why) end
    self:bring_into_force(options, text, generation)
end

-- ---- serving ----------------------------------------------------------------------------------------------

-- What is shown, and what is wrong with it.
function Serving:shown()
    if self.attached then return self.attached, self.trouble end
    local engine = self.db and self.db.core
    if engine and not engine:closed() then return engine:handle() end
    return nil, self.db and "the engine is closed" or "starting"
end

function Serving:turn()
    local server = self.server
    while self.server do
        local wait = server:run(self:shown())
        if self.db and not self.ending then self:follow() end
        poll.poll(server, "r", math.min(wait or 1, 1))
    end
end

-- A server has no end at which to tell of its tasks.
local function tell_of_failures()
    while true do
        loop.sleep(UNHEARD_EVERY)
        loop.report_unheard()
    end
end

-- Looks once a second what is at the path, and tells when that changes.
function Serving:look()
    local trouble = self.attached:look()
    if self.ending then trouble = "draining" end
    if trouble ~= self.trouble then complain("%s", trouble or "all is well at " .. self.options.area) end
    self.trouble = trouble
end

function Serving:keep_looking()
    while true do
        loop.sleep(1)
        self:look()
    end
end

-- Until it is time to end.
function Serving:heed_signals(fd)
    while true do
        local signal = self.host.signal()
        if signal == "term" then return end
        if signal == "hup" then
            self:reload()
        else
            poll.poll(fd, "r", 60)
        end
    end
end

function Serving:drain()
    local till = loop.now() + self.options.linger
    self.ending = true
    if self.attached then
        self:look()
        while loop.now() < till do loop.sleep(0.02) end
        return
    end
    if not self.db.core:closed() then self.db.core:drain(self.options.drain) end
    while loop.now() < till or not (self.db.core:closed() or self.db.core:drained()) do loop.sleep(0.02) end
end

-- Answers that are on their way arrive; streams and idle connections are cut.
function Serving:finish()
    local till = loop.now() + 1
    self.server:quiesce()
    while self.server:connections() > 0 and loop.now() < till do
        self.server:run(self:shown())
        loop.sleep(0.02)
    end
end

-- Without a policy: what others keep in their area.
function Serving:attach()
    self.attached = self.host.attach(self.options.area)
    self:look()
    loop.spawn_daemon(self.keep_looking, self)
    say(("area %s on %s"):format(self.options.area, (self.server:address())))
end

function Serving:open()
    local ok, why = self:start()
    if not ok then
        complain("%s", why)
        return false
    end
    local area = self.area and ", area " .. self.area or ""
    say(("%s on %s%s"):format(self.db:stats().name, (self.server:address()), area))
    return true
end

function Serving:run()
    local fd = self.host.signals()
    if not self.options.policy then
        self:attach()
    elseif not self:open() then
        return 1
    end
    loop.spawn_daemon(self.turn, self)
    loop.spawn_daemon(tell_of_failures)
    self:heed_signals(fd)
    self:drain()
    self:finish()
    return 0
end

function Serving:close()
    local server = self.server
    self.server = nil
    core.watch(server:getfd(), "") -- who turned it still waits for it; libuv aborts on a closed descriptor
    server:close()
    if self.attached then self.attached:close() end
    if self.db then self.db:close() end
    os.remove(self.private_area)
end

-- ---- the command ------------------------------------------------------------------------------------------

local function serve_with(host, options)
    local token, why = read_token(options.token_file)
    if why then
        complain("%s", why)
        return 2
    end
    local server, fault = host.listen(options.listen, token)
    if not server then
        complain("%s", fault)
        return 1
    end
    local address, open_to_all = server:address()
    if open_to_all and not token then
        complain("whoever reaches %s may read everything; see --token-file", address)
    end
    local self = setmetatable({
        host = host, options = options, server = server, name = options.policy, private_area = own_area(host),
    }, Serving)
    local code = 1
    local ok, raised = loop.run(function()
        code = self:run()
        error(ENDED, 0)
    end)
    self:close()
    if not ok and raised ~= ENDED then
        complain("%s", tostring(raised))
        return 1
    end
    return code
end

--- The command.
-- @param host  what the command lends
-- @return its exit code
function serve.main(host, ...)
    local options, why = serveoptions.read { ... }
    if not options then
        complain("%s", why)
        return 2
    end
    return serve_with(host, options)
end

return serve
