-- What an operator sees and steers at the prompt: an outage watched live, breakers, sizes, policies, and
-- commands for scripts. Whole sessions are compared with files in golden/ (see typist.lua).

local lu = require "luaunit"
local serving = require "serving"
local testing = require "weir.testing"
local typist = require "typist"

local BIN = os.getenv "WEIR_BIN" or "build/weir"

local function policy(backend, more)
    return ([[return {
        name = "api", backends = { primary = %q }, timeout = 2, retries = 0, %s
        clients = { anon = { user = "app_anon", max = 4, role = "web_anon" },
            service = { bypass_rls = true, max = 3 } },
    }]]):format(backend, more or "")
end

local who, pg, folder

local function sit_down(text, arguments)
    folder = serving.folder()
    serving.write(folder .. "/policy.lua", text)
    who = typist.sit_down(arguments or "repl policy.lua", { folder = folder, width = 250 })
    who:prompt()
end

local function stand_up()
    if who then who:gets_up() end
    if pg then pg:close() end
    if folder then os.execute("rm -rf " .. serving.quote(folder)) end
    who, pg, folder = nil, nil, nil
end

-- ---- watched live -----------------------------------------------------------------------------------------

TestOutage = { tearDown = stand_up }

function TestOutage.test_an_outage_is_seen_as_it_happens_and_its_end_too()
    pg = assert(testing.postgres { name = "console" })
    sit_down(policy(pg:url(), "breaker = { window = 10, min_calls = 4, open_for = 60 }, health = { probe_interval = 0.2 },"))
    who:enter "q = function() return db:service():query('GET /', 'select 1 as one') end"
    who:enter "q()"
    pg:stop()
    who:enter "for _ = 1, 5 do q() end"
    who:enter "q()"
    who:enter "\\why service"
    who:enter "\\calls failed last 2"
    pg:start()
    who:enter "repeat weir.sleep(0.05) until breaker('service').state ~= 'OPEN'"
    who:enter "for _ = 1, 10 do q() end"
    who:enter "#q(), breaker('service').state"
    who:enter "\\events kind breaker"
    lu.assertEquals(who:leaves(), 0)
    who:matches("repl_outage", "TIME  [bc]a[cn][kn][eo]") -- backend ..., cannot connect: at any moment
end

-- ---- steering ---------------------------------------------------------------------------------------------

TestSteering = { tearDown = stand_up }

function TestSteering.test_each_order_says_what_it_did_and_how_to_undo_it()
    sit_down(policy "host=/nowhere")
    for _, line in ipairs {
        "\\breaker anon open for 5m reason \"db-maint 4711\"", "\\breaker anon", "weir.sleep(0.1)",
            "\\pools", "reset 'anon@primary'",
        "\\resize anon@primary 8", "resize('anon@primary')", "\\resize anon@primary none", "\\pause",
            "\\resume",
        "drain 'service'", "\\resume service", "reconnect()", "\\kill 12ab", "\\pause nowhere", "\\fly",
        "force('anon', 'ajar')", "\\why anon",
    } do
        who:enter(line)
    end
    who:matches "repl_steering"
end

function TestSteering.test_a_policy_with_a_mistake_is_shown_and_the_old_one_stays()
    sit_down(policy("host=/nowhere", "retry = function() return 0.5 end,"))
    serving.write(folder .. "/good.lua", policy("host=/nowhere", "retry = function() return nil end,"))
    serving.write(folder .. "/broken.lua", policy("host=/nowhere", "retry = function( return nil end,"))
    serving.write(folder .. "/wrong.lua", policy("host=/nowhere", "retrys = function() return nil end,"))
    serving.write(folder .. "/raises.lua", "local limit = nil\nreturn { timeout = limit.seconds }\n")
    for _, line in ipairs {
        "\\reload broken.lua", "\\reload wrong.lua", "\\reload raises.lua", "\\reload missing.lua",
        "config().policy_generation", "\\reload good.lua", "config().policy_generation",
        "\\events kind operator",
    } do
        who:enter(line)
    end
    who:matches "repl_reload"
end

os.exit(lu.LuaUnit.run())
