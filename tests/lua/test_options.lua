-- Misuse of weir.open: one clear sentence that names the knob, the value and the limit, at the caller's line.

local lu = require "luaunit"
local weir = require "weir"

local anon = { user = "app_anon", role = "web_anon" }

-- Options that are fine but for `more`.
local function options(more)
    local all = { backends = { primary = "host=/nowhere" }, clients = { anon = anon } }
    for key, value in pairs(more) do all[key] = value end
    return all
end

local function raised_by_open(given)
    local ok, err = pcall(function() return weir.open(given) end)
    lu.assertFalse(ok)
    return err
end

TestOptions = {}

local cases = {
    { { bakends = {} }, "bakends is not a known option; did you mean backends?" },
    { { Timeout = 1 }, "Timeout is not a known option; did you mean timeout?" },
    { { xyzzy = 1 }, "xyzzy is not a known option" },
    { { [1] = "x" }, "has a key that is a number; options have names" },
    { { timeout = 0 }, "timeout is 0; it must be more than 0 and at most a year, in seconds" },
    { { timeout = -1 }, "timeout is -1" },
    { { timeout = 0 / 0 }, "timeout is" },
    { { timeout = math.huge }, "timeout is inf" },
    { { timeout = "10" }, "timeout is a string; it must be a number of seconds" },
    { { idle_timeout = -0.5 }, "idle_timeout is -0.5; it must be at least 0" },
    { { name = 5 }, "name is a number; it must be a string" },
    { { name = "" }, "name is ''" },
    { { name = ("x"):rep(32) }, "name is 'x" },
    { { name = "a b" }, "name is 'a b'" },
    { { connect_at_once = 17 }, "connect_at_once is 17; it must be a whole number from 1 to 16" },
    { { connect_at_once = 1.5 }, "connect_at_once is 1.5" },
    { { prepared = -1 }, "prepared is -1" },
    { { reset = "sometimes" }, "reset is 'sometimes'; it must be one of auto, always, never" },
    { { retry = "often" }, "retry is a string; it must be a function, or a number of retries" },
    { { retry = -1 }, "retry is -1; it must be a whole number from 0 to 1000" },
    { { retries = 1.5 }, "retries is 1.5" },
    { { route = "primary" }, "route is a string; it must be a function" },
    { { label = {} }, "label is a table; it must be a function" },
    { { seed = -1 }, "seed is -1" },
    { { null = "yes" }, "null is a string; it must be true or false" },
    { { policy_slice = 0 }, "policy_slice is 0" },
    { { queue = "lifo" }, "queue is 'lifo'; it must be one of adaptive, fifo, codel" },
    { { queue = { target = 0 } }, "queue.target is 0" },
    { { queue = { kynd = "fifo" } }, "queue.kynd is not a known option; did you mean kind?" },
    { { breaker = { failure_rate = 2 } }, "breaker.failure_rate is 2; it must be from 0 to 1" },
    {
        { breaker = { half_open = { permits = 0 } } },
        "breaker.half_open.permits is 0; it must be a whole number from 1 to 64",
    },
    { { breaker = { open_for = function() end } }, "breaker.open_for is a function" },
    { { breaker = { clock = print } }, "breaker.clock is not for weir.open" },
    { { budget = { name = "x" } }, "budget.name is not for weir.open" },
    { { backoff = { seed = 1 } }, "backoff.seed is not for weir.open" },
    { { breaker = "on" }, "breaker is a string; it must be a table" },
    { { backoff = { kind = "slow" } }, "backoff.kind is 'slow'; it must be one of full, equal" },
    { { backoff = { base = 5, cap = 1 } }, "cap" },
    { { budget = { floor = -1 } }, "budget.floor is -1" },
    { { health = { interval = "30" } }, "health.interval is a string" },
    {
        { health = { checks = { redis = 5 } } },
        "health.checks.redis must be a function, or a table with check = function",
    },
    {
        { health = { checks = { redis = { critical = true } } } },
        "health.checks.redis.check must be a function",
    },
    { { health = { checks = { redis = { check = print, timeout = 0 } } } }, "health.checks.redis.timeout is 0" },
    { { health = { checks = { ["a b"] = print } } }, "health.checks has the key 'a b'" },
    { { backends = {} }, "backends is empty" },
    { { backends = "postgresql://x" }, "backends is a string; it must be a table" },
    { { backends = { primary = 5 } }, "backends.primary is a number; it must be a connection string" },
    { { backends = { primary = {} } }, "backends.primary.conninfo is missing" },
    {
        { backends = { primary = { conninfo = "x", poler = true } } },
        "backends.primary.poler is not a known option; did you mean pooler?",
    },
    {
        { backends = { ["my db"] = "x" } },
        "backends has the key 'my db'; names are 1 to 31 letters, digits, - and _",
    },
    { { backends = { a = "x", b = "y" } }, "backends has 2 members and none is named primary" },
    { { clients = {} }, "clients is empty" },
    { { clients = { anon = { user = "x" } } }, "clients.anon needs role = '...' (ANON" },
    {
        { clients = { anon = { role = "x", bypass_rls = true } } },
        "clients.anon has both role and bypass_rls",
    },
    {
        { clients = { anon = { role = "x", max = 0 } } },
        "clients.anon.max is 0; it must be a whole number from 1 to 10000",
    },
    { { clients = { anon = { role = "x", max = 10001 } } }, "clients.anon.max is 10001" },
    {
        { clients = { anon = { role = "x", min = 5, max = 2 } } },
        "clients.anon.min is 5; it must be at most max, which is 2",
    },
    {
        { clients = { anon = { role = "x", maxx = 5 } } },
        "clients.anon.maxx is not a known option; did you mean max?",
    },
    {
        { clients = { anon = { role = "x", multiplex = 65 } } },
        "clients.anon.multiplex is 65; it must be a whole number from 0 to 64",
    },
    { { clients = { anon = { role = 5 } } }, "clients.anon.role is a number; it must be a string" },
    { { clients = { anon = 5 } }, "clients.anon is a number; it must be a table" },
    {
        { clients = { anon = { role = "x", user = "same" }, admin = { bypass_rls = true, user = "same" } } },
        "'same'",
    },
}

function TestOptions.test_each_mistake_is_told_by_its_path_its_value_and_its_limit()
    for _, case in ipairs(cases) do
        local err = raised_by_open(options(case[1]))
        lu.assertStrContains(err, "test_options.lua:")
        lu.assertStrContains(err, "weir: open: ")
        lu.assertStrContains(err, case[2])
    end
end

function TestOptions.test_missing_parts_are_named()
    lu.assertStrContains(raised_by_open {}, "backends is missing")
    lu.assertStrContains(raised_by_open { backends = { primary = "x" } }, "clients is missing")
    lu.assertStrContains(raised_by_open "x", "the options are a string; they must be a table")
end

function TestOptions.test_a_password_is_never_repeated()
    local secrets = {
        { clients = { anon = { role = "x", password = { "hunter2" } } } },
        { backends = { primary = "password=top hunter2" } },
        { backends = { primary = "postgresql://u:p%ZZhunter2@/x" } },
        { backends = { primary = "hunter2\0" } },
    }
    for _, case in ipairs(secrets) do
        lu.assertNotStrContains(raised_by_open(options(case)), "hunter2")
    end
end

function TestOptions.test_too_many_members_are_told()
    local backends = { primary = "x" }
    for i = 1, 17 do backends["b" .. i] = "x" end
    lu.assertStrContains(raised_by_open(options { backends = backends }), "backends has more than 16 members")
end

function TestOptions.test_an_area_that_cannot_be_made_is_the_worlds_failure()
    local db, err = weir.open(options { area = "/proc/no/such/area" })
    lu.assertNil(db)
    lu.assertEquals(err.code, "open_failed")
    lu.assertStrContains(tostring(err), "/proc/no/such/area")
end

function TestOptions.test_opening_connects_nothing_and_closing_twice_is_fine()
    local db = weir.open(options {})
    lu.assertEquals(db:held().connecting, 0)
    db:close()
    db:close()
end

function TestOptions.test_a_closed_engine_says_so_at_the_callers_line()
    local db = weir.open(options {})
    local handle = db:anon { sub = "ann" }
    db:close()
    for _, use in ipairs {
        function() return handle:query("GET", "select 1") end,
        function() return handle:transaction("GET", print) end,
        function() return db:health() end,
        function() return db:force(nil, "open") end,
    } do
        local ok, err = pcall(use)
        lu.assertFalse(ok)
        lu.assertStrContains(err, "test_options.lua:")
        lu.assertStrContains(err, "closed")
    end
end

function TestOptions.test_an_engine_nobody_holds_is_collected()
    local finalised = setmetatable({}, { __mode = "k" })
    for _ = 1, 5 do
        local db
        db = assert(weir.open(options {
            retry = function() return db end, -- a policy that holds its engine makes a cycle
            health = { checks = { x = function() return db end } },
        }))
        finalised[db] = true
    end
    collectgarbage()
    collectgarbage()
    lu.assertNil(next(finalised))
end

os.exit(lu.LuaUnit.run())
