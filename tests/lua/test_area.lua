-- core.attach and engine:area(): the same methods for one's own area and for one that is attached.

local lu = require "luaunit"
local core = require "weir.core"
local fixture = require "fixture"
local weir = require "weir"

local path

local function temporary()
    local name = os.tmpname()
    os.remove(name)
    return name
end

local function open(more)
    local options = { area = path }
    for key, value in pairs(more or {}) do options[key] = value end
    return fixture.open(options)
end

-- What an engine's workers have to do they do within a second.
local function within_a_second(condition)
    local patience = weir.now() + 1
    while not condition() do
        if weir.now() > patience then return false end
        weir.sleep(0.02)
    end
    return true
end

local function follow(area, order)
    local ticket = assert(area:order(order))
    lu.assertTrue(within_a_second(function() return area:progress(ticket).done == 1 end))
    return area:progress(ticket)
end

TestArea = {}

function TestArea:setUp()
    path = temporary()
    self.db = open()
    self.area = assert(core.attach(path))
end

function TestArea:tearDown()
    self.area:close()
    self.db:close()
    os.remove(path)
end

local function decode(area, document, argument)
    return weir.json.decode(assert(area:json(document, argument)))
end

function TestArea:test_tells_how_it_stands()
    lu.assertEquals({ self.area:look() }, { "live", "" })
    lu.assertEquals({ self.area:may_steer() }, { true, "" })
    lu.assertEquals(self.area:path(), path)
    self.db:close()
    local state, why = self.area:look()
    lu.assertEquals(state, "deserted")
    lu.assertStrContains(why, "no worker that lives")
    lu.assertFalse((self.area:may_steer()))
    os.remove(path)
    lu.assertEquals((self.area:look()), "gone")
end

function TestArea:test_gives_every_document()
    assert(self.db:service():query("GET /", "select 1"))
    lu.assertEquals(decode(self.area, "stats").name, "test")
    lu.assertEquals(decode(self.area, "health").pool.totalRequests, 1)
    lu.assertEquals(decode(self.area, "calls", 5)[1].label, "GET /")
    lu.assertEquals(decode(self.area, "events")[1].kind, "engine")
    lu.assertEquals(decode(self.area, "workers")[1].worker, 1)
    lu.assertEquals(decode(self.area, "conns")[1].state, "idle")
    local config = decode(self.area, "config")
    lu.assertEquals(config.clients[1].max + config.clients[2].max, 6)
    lu.assertStrContains(config.backends[1].server, "dbname=")
    lu.assertErrorMsgContains("there is no such document", function() self.area:json "nonsense" end)
    lu.assertErrorMsgContains("a whole number is needed", function() self.area:json("calls", -1) end)
end

function TestArea:test_gives_pages()
    local http, kind, body = self.area:page "/stats.json"
    lu.assertEquals(http, 200)
    lu.assertEquals(kind, "application/json")
    lu.assertEquals(weir.json.decode(body).name, "test")
    lu.assertNil(self.area:page "/nowhere")
end

function TestArea:test_steers_a_live_engine()
    local service = self.db:service()
    follow(self.area, { kind = "pause", pool = "service@primary", reason = "a test" })
    local rows, err = service:query("GET /", "select 1")
    lu.assertNil(rows)
    lu.assertEquals(err.code, "paused")
    follow(self.area, { kind = "resume" })
    lu.assertNotNil(service:query("GET /", "select 1"))
    follow(self.area, { kind = "force", pool = "service@primary", state = "open", seconds = 60 })
    lu.assertEquals(select(2, service:query("GET /", "select 1")).code, "breaker_open")
    follow(self.area, { kind = "reset" })
    lu.assertNotNil(service:query("GET /", "select 1"))
    follow(self.area, { kind = "resize", pool = "service@primary", max = 1 })
    follow(self.area, { kind = "drain" })
    lu.assertEquals(decode(self.area, "conns"), {})
    follow(self.area, { kind = "resume" })
    follow(self.area, { kind = "reconnect" })
    lu.assertStrContains(self.area:json "events", ": a test")
end

function TestArea:test_kills_the_call_that_it_shows()
    local message
    local task = weir.spawn(function()
        local _, err = self.db:service():query("a long one", "select pg_sleep(20)")
        message = err.message
    end)
    local call
    lu.assertTrue(within_a_second(function()
        for _, conn in ipairs(decode(self.area, "conns")) do
            if conn.label == "a long one" then call = conn.call end
        end
        return call ~= nil
    end))
    follow(self.area, { kind = "kill", call = call, reason = "enough" })
    task:wait()
    lu.assertStrContains(message, "killed by ")
    lu.assertStrContains(message, ": enough")
end

function TestArea:test_gives_a_policy_and_hears_what_became_of_it()
    local ticket = assert(self.area:order { kind = "policy", text = "return {}" })
    lu.assertTrue(within_a_second(function() return self.db.core:policy_news() end))
    local text, generation = self.db.core:policy_read()
    lu.assertEquals({ text, generation }, { "return {}", 1 })
    self.db.core:policy_applied(1, "no pools in it")
    lu.assertEquals(self.area:progress(ticket), { workers = 1, done = 0, refused = 1, why = "no pools in it" })
end

function TestArea:test_refuses_what_cannot_be()
    local function refused(order, why)
        local ticket, said = self.area:order(order)
        lu.assertNil(ticket)
        lu.assertStrContains(said, why)
    end
    refused({ kind = "pause", pool = "nobody@nowhere" }, "there is no pool 'nobody@nowhere'")
    refused({ kind = "resize", max = 20000 }, "max is 20000")
    refused({ kind = "kill", call = "rubbish" }, "there is no call 0")
    refused({ kind = "policy", text = "" }, "the policy has 0 bytes")
    local function raises(order, why)
        lu.assertErrorMsgContains(why, function() self.area:order(order) end)
    end
    raises({}, "kind must be")
    raises({ kind = "explode" }, "kind must be")
    raises({ kind = "force" }, "state must be")
    raises({ kind = "force", state = "ajar" }, "state must be")
    raises({ kind = "kill" }, "call is missing")
    raises({ kind = "policy" }, "text is missing")
    raises({ kind = "pause", pool = 5 }, "pool must be a string")
    raises({ kind = "resize", max = -1 }, "max must be a number")
end

function TestArea:test_an_engines_own_area_is_the_same()
    local own = assert(self.db.core:area())
    lu.assertEquals(own:path(), path)
    lu.assertEquals({ own:look() }, { "live", "" })
    local ticket = assert(own:order { kind = "pause" })
    lu.assertEquals(own:progress(ticket), { workers = 1, done = 1, refused = 0, why = "" })
    lu.assertTrue(decode(self.area, "stats").pools[1].paused)
    lu.assertNotNil(own:order { kind = "resume" })
    self.db:close()
    lu.assertEquals({ own:json "stats" }, { nil, "the engine is closed" })
    lu.assertEquals({ own:order { kind = "pause" } }, { nil, "the engine is closed" })
    lu.assertEquals({ own:may_steer() }, { false, "the engine is closed" })
end

function TestArea:test_a_closed_handle_says_so()
    self.area:close()
    self.area:close()
    lu.assertEquals({ self.area:json "stats" }, { nil, "the area is closed" })
    lu.assertEquals({ self.area:look() }, { nil, "the area is closed" })
end

function TestArea:test_what_is_no_area_is_refused()
    local area, why = core.attach(path .. ".not")
    lu.assertNil(area)
    lu.assertStrContains(why, "there is no such file")
    lu.assertNil((core.attach "/tmp"))
end

os.exit(lu.LuaUnit.run())
