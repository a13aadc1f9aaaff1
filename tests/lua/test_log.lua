-- The structured log and traces as a script sees them: what is written where, what never is, and options that
-- are refused. Runs on both VMs and inside nginx, whose error log is then the default.

local compat = require "weir.compat"
local core = require "weir.core"
local fixture = require "fixture"
local json = require "weir.json"
local lu = require "luaunit"
local weir = require "weir"

local IN_NGINX = core.host == "nginx"
local MARK = "m4rker"
local TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
local PARENT = "00-" .. TRACE .. "-" .. SPAN .. "-01"

TestLog = {}

function TestLog:setUp()
    self.path = os.tmpname()
    os.remove(self.path)
end

function TestLog:tearDown()
    if self.db then self.db:close() end
    self.db = nil
    os.remove(self.path)
    os.remove(self.path .. ".1")
end

local function read(path)
    local file = io.open(path, "rb")
    if not file then return "" end
    local text = file:read "*a"
    file:close()
    return text
end

function TestLog:open(more, log)
    more = more or {}
    more.log = log or { to = self.path, format = "json" }
    self.db = fixture.open(more)
    return self.db
end

-- The lines of that event.
function TestLog:lines(event, path)
    local found = {}
    for text in read(path or self.path):gmatch "[^\n]+" do
        local line = assert(json.decode(text), text)
        if not event or line.event == event then found[#found + 1] = line end
    end
    return found
end

-- ---- what is written --------------------------------------------------------------------------------------

function TestLog:test_each_line_is_an_object_that_says_when_what_and_who()
    local db = self:open()
    db:pause("service@primary")
    db:pause("service@primary", false)
    db:close()
    local lines = self:lines()
    lu.assertEquals(lines[1].event, "engine.opened")
    lu.assertEquals(lines[#lines].event, "engine.closed")
    for _, line in ipairs(lines) do
        lu.assertStrMatches(line.ts, "%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d%d%d%dZ")
        lu.assertEquals({ line.name, line.worker, line.level }, { "test", 1, "info" })
        lu.assertEquals(type(line.msg), "string")
    end
    local orders = self:lines "operator.order"
    lu.assertEquals({ orders[1].pool, orders[2].pool }, { "service@primary", "service@primary" })
    lu.assertStrMatches(orders[1].msg, "paused by .*")
end

function TestLog:test_logfmt_is_the_default()
    local db = self:open(nil, { to = self.path })
    db:close()
    local first = read(self.path):match "[^\n]+"
    lu.assertStrMatches(first,
        'ts=%S+Z level=info event=engine%.opened msg="engine test opened with 2 pools" name=test worker=1')
end

function TestLog:test_a_slow_call_is_there_with_its_timeline_and_its_trace()
    local db = self:open { slow_log = 0.03 }
    local slow = db:service():with { traceparent = PARENT }
    assert(slow:query("GET /slow?who=ann", "select pg_sleep(0.04)"))
    assert(db:service():query("GET /quick", "select 1"))
    assert(db:with_service("unit", function(tx) tx:query "select pg_sleep(0.04)" return true end))
    local lines = self:lines "call.slow"
    lu.assertEquals(#lines, 2)
    local first, unit = lines[1], lines[2]
    lu.assertEquals({ first.label, first.pool, first.code, first.outcome, first.attempts, first.level },
        { "GET /slow", "service@primary", "ok", "committed", 1, "warn" })
    lu.assertEquals({ first.trace_id, first.span_id, first.trace_flags }, { TRACE, SPAN, "01" })
    lu.assertTrue(first.duration_ms >= 40, first.duration_ms)
    lu.assertTrue(first.timeline[1].run_us >= 40000, first.timeline[1].run_us)
    lu.assertEquals({ unit.label, unit.trace_id }, { "unit" })
    local known = {}
    for _, call in ipairs(db:calls()) do known[call.id] = call.label end
    lu.assertEquals(known[first.call_id], "GET /slow")
end

function TestLog:test_the_level_bounds_what_is_written()
    local log = { to = self.path, format = "json", level = "warn" }
    local db = self:open({ retry = function() error("no") end }, log)
    db:service():query("fails", "select 1/0")
    db:close()
    local lines = self:lines()
    lu.assertEquals(#lines, 1)
    lu.assertEquals({ lines[1].event, lines[1].level }, { "policy.fault", "warn" })
end

-- ---- what is never written --------------------------------------------------------------------------------

local function fail_in_every_way(db)
    local bad = {
        { "select $1::int", MARK }, { "select '" .. MARK .. "'::int" }, { "selekt '" .. MARK .. "'" },
        { "insert into log (line, nothing) values ($1, $1)", MARK },
        { "select pg_sleep($1::text::float8)", MARK },
    }
    for _, client in ipairs { db:service(), db:anon { sub = MARK, jwt = MARK } } do
        for _, statement in ipairs(bad) do
            lu.assertNil((client:with { traceparent = MARK }:query("bad", compat.unpack(statement))))
        end
        lu.assertFalse((pcall(client.transaction, client, "raises", function(tx)
            tx:query("select $1", MARK)
            error(MARK)
        end)))
        lu.assertNil((client:with { timeout = 0.02 }:query("late", "select pg_sleep(1), $1", MARK)))
        local ok, err = client:query("breaks", "select pg_terminate_backend(pg_backend_pid()), $1", MARK)
        lu.assertEquals({ ok, type(err) }, { nil, "table" })
    end
end

function TestLog:test_sql_claims_and_parameters_are_in_no_line_whatever_goes_wrong()
    local log = { to = self.path, format = "json" }
    local breaker = { min_calls = 3 }
    local db = self:open({ slow_log = 0.000001, retries = 1, trace = "comment", breaker = breaker }, log)
    local ok, err = pcall(fail_in_every_way, db)
    lu.assertTrue(ok, err)
    db:close()
    local options = fixture.options { log = log, retries = 0 }
    options.clients.service.password, options.clients.anon.password = MARK, MARK
    for _, conninfo in ipairs { "host=/nowhere password=" .. MARK, "host=127.0.0.1 port=1 password=" .. MARK,
                                fixture.server():url("x", "nowhere", MARK) } do
        options.backends = { primary = conninfo }
        self.db = assert(weir.open(options))
        lu.assertNil((self.db:service():query("connects", "select 1")))
        self.db:close()
    end
    lu.assertTrue(#self:lines "call.slow" > 0)
    lu.assertTrue(#self:lines "connect.failing" >= 3)
    lu.assertNotStrContains(read(self.path), MARK)
end

function TestLog:test_a_hostile_text_stays_in_its_field()
    local db = self:open { label = function(context) return context end, slow_log = 0.000001 }
    local nasty = 'a"\nlevel=error\r\27[31m\\ ' .. ("\195\164"):rep(40)
    assert(db:service():query(nasty, "select 1"))
    db:close()
    local line = self:lines "call.slow"[1]
    lu.assertEquals(line.label:sub(1, 20), nasty:sub(1, 20))
    lu.assertNil(read(self.path):find "[%z\1-\9\11-\31\127]")
end

-- ---- where it goes ----------------------------------------------------------------------------------------

function TestLog:test_after_a_rotation_the_file_is_opened_anew()
    local db = self:open()
    assert(os.rename(self.path, self.path .. ".1"))
    db:pause()
    lu.assertEquals(#self:lines(), 0)
    lu.assertEquals({ db:reopen_log() }, { true })
    db:pause(nil, false)
    lu.assertEquals(#self:lines("operator.order", self.path .. ".1"), 2)
    lu.assertEquals(#self:lines "operator.order", 2)
    lu.assertEquals(#self:lines "engine.opened", 0)
    lu.assertEquals(core.reopen_logs(), 1)
    db:close()
    lu.assertEquals(core.reopen_logs(), 0)
end

function TestLog:test_several_engines_may_write_to_one_file()
    local one = self:open { name = "one" }
    local other = fixture.open { name = "other", log = { to = self.path, format = "json" } }
    for i = 1, 10 do (i % 2 == 0 and one or other):pause(nil, i % 4 < 2) end
    one:close()
    other:close()
    local names = { one = 0, other = 0 }
    for _, line in ipairs(self:lines()) do names[line.name] = names[line.name] + 1 end
    lu.assertTrue(names.one >= 7 and names.other >= 7)
end

function TestLog:test_in_a_simulation_nothing_is_logged()
    local sim = weir.sim { seed = 1 }
    sim:server("primary")
    sim:run(function()
        local db = assert(weir.open { backends = { primary = "" },
            clients = { service = { bypass_rls = true } }, log = { to = self.path }, slow_log = 0.000001 })
        assert(db:service():query("a", "select 1"))
        db:close()
    end)
    lu.assertEquals(read(self.path), "")
end

-- ---- options ----------------------------------------------------------------------------------------------

local function refusal(more)
    local message = fixture.raised(weir.open, fixture.options(more))
    return message and tostring(message):gsub("^.-open: ", "")
end

function TestLog:test_what_cannot_be_is_refused_by_name()
    lu.assertEquals(refusal { log = true }, "log is true; it must be a table, or false")
    lu.assertEquals(refusal { log = "stderr" }, "log is a string; it must be a table")
    lu.assertStrContains(refusal { log = { format = "xml" } }, "log.format")
    lu.assertStrContains(refusal { log = { level = "chatty" } }, "log.level")
    lu.assertStrContains(refusal { log = { too = "stderr" } },
        "log.too is not a known option; did you mean to?")
    lu.assertEquals(refusal { log = { to = "weir.log" } },
        "log.to is 'weir.log': stderr, or a path with a '/' in it")
    lu.assertStrContains(refusal { trace = "always" }, "trace")
    lu.assertStrContains(refusal { slow_log = -1 }, "slow_log")
    local db, err = weir.open(fixture.options { log = { to = "/no/such/folder/log" } })
    lu.assertNil(db)
    lu.assertEquals(err.code, "open_failed")
    lu.assertStrContains(tostring(err), "cannot open the log /no/such/folder/log: No such file or directory")
end

function TestLog:test_nginxs_log_is_known_by_its_name_where_there_is_one()
    local refused = refusal { log = { to = "nginx" } }
    if IN_NGINX then
        lu.assertNil(refused)
    else
        lu.assertStrContains(refused, "log.to is 'nginx'")
    end
end

-- What the command writes to standard error while a script opens an engine with these options and closes it.
local function stderr_of(options)
    local script, output = os.tmpname(), os.tmpname()
    local file = assert(io.open(script, "wb"))
    file:write(([[
        assert(require "weir".open { backends = { primary = "host=/nowhere" }, health = { interval = 0 },
            clients = { service = { bypass_rls = true } }, %s }):close()
    ]]):format(options))
    file:close()
    os.execute(("'%s' run %s 2>%s"):format(os.getenv "WEIR_BIN", script, output))
    local text = read(output)
    os.remove(script)
    os.remove(output)
    return text
end

function TestLog:test_slow_calls_alone_ask_for_a_log_on_standard_error()
    lu.assertStrContains(stderr_of "slow_log = 0.1", "event=engine.opened")
    lu.assertStrContains(stderr_of "log = {}", "event=engine.opened")
    lu.assertEquals(stderr_of "slow_log = 0.1, log = false", "")
    lu.assertEquals(stderr_of "slow_log = 0, log = nil", "")
end

-- ---- traces -----------------------------------------------------------------------------------------------

TestTrace = {}

local function text_at_the_server(options, call_options)
    local db = fixture.open(options)
    local rows = assert(db:service():with(call_options or {}):query("traced",
        "select query from pg_stat_activity where pid = pg_backend_pid();"))
    db:close()
    return rows[1].query
end

function TestTrace:test_the_server_sees_the_traceparent_of_a_call_as_a_comment()
    local with = { traceparent = PARENT }
    lu.assertEquals(text_at_the_server({ trace = "comment" }, with),
        "select query from pg_stat_activity where pid = pg_backend_pid() /*traceparent='" .. PARENT .. "'*/;")
    local bare = "select query from pg_stat_activity where pid = pg_backend_pid();"
    lu.assertEquals(text_at_the_server({ trace = "comment" }), bare)
    lu.assertEquals(text_at_the_server({ trace = "comment" }, { traceparent = "'*/ drop" }), bare)
    lu.assertEquals(text_at_the_server({ trace = "off" }, with), bare)
    lu.assertEquals(text_at_the_server({}, with), bare)
end

os.exit(lu.LuaUnit.run())
