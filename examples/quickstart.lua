-- Weir in a few seconds: a PostgreSQL, its loss half way, and its return.
-- Without DATABASE_URL it starts a server of its own, which it may stop. With it (a superuser's), it uses
-- that server for the harmless part only, in a schema and with roles of its own that it drops afterwards.

local weir = require "weir"

local USERS = { "ada", "alan", "barbara", "donald", "edsger", "grace", "john", "ken", "margaret", "niklaus" }
local url, pg = os.getenv "DATABASE_URL", nil -- pg: the throw-away server, if it is ours
if url == "" then url = nil end
local secret = io.open("/dev/urandom"):read(12):gsub(".", function(c) return ("%x"):format(c:byte()) end)
local id = url and "weir_quickstart_" .. secret:sub(1, 8) or "app" -- of the schema and the roles
local colours, step_number = not os.getenv "NO_COLOR" and os.execute "test -t 1" == true, 0

local function paint(code, text)
    return colours and ("\27[%sm%s\27[0m"):format(code, text) or text
end

local function step(title)
    step_number = step_number + 1
    print(("\n%s  %s"):format(paint("36", step_number), paint("1", title)))
end

local function say(...)
    print("   " .. string.format(...))
end

local function check(holds, ...)
    say("%s %s", holds and paint("32", "✔") or paint("31", "✘"), string.format(...))
    if not holds then error("the quickstart did not show what it should", 0) end
end

-- ---- the database ---------------------------------------------------------------------------------------

-- Each user sees only his own contacts, and the server itself sees to that: the claims of a call reach the
-- policy as a setting. Users' calls log in as $id_anon, which may do nothing but act as $id_web.
local SETUP = {
    "create schema $id",
    "create table $id.contacts (id serial primary key, owner text not null, name text not null)",
    "insert into $id.contacts (owner, name) select owner, 'contact ' || n "
        .. "from unnest('{" .. table.concat(USERS, ",") .. "}'::text[]) owner, generate_series(1, 20) n",
    "alter table $id.contacts enable row level security",
    "alter table $id.contacts force row level security",
    "create policy own on $id.contacts "
        .. "using (owner = nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub')",
    "create role $id_web nologin",
    "create role $id_anon login noinherit password '$secret' in role $id_web",
    "create role $id_service login bypassrls password '$secret'",
    "grant usage on schema $id to $id_web, $id_service",
    "grant select on $id.contacts to $id_web, $id_service",
}
local CLEANUP = { "drop schema $id cascade", "drop role $id_anon, $id_web, $id_service" }

-- Runs the statements in one transaction and one round trip, as the login of the URL.
local function administer(context, statements)
    local clients, list = { service = { bypass_rls = true, max = 1 } }, {}
    local admin = assert(weir.open { name = "admin", backends = { primary = url }, clients = clients })
    for i, sql in ipairs(statements) do list[i] = { (sql:gsub("%$id", id):gsub("%$secret", secret)) } end
    assert(admin:service():pipeline(context, list))
    admin:close()
end

local function open_engine()
    local role = id .. "_web" -- what users' calls act as
    return assert(weir.open {
        name     = "quickstart",
        backends = { primary = url },
        clients  = {
            service = { user = id .. "_service", password = secret, max = 2, bypass_rls = true },
            anon    = { user = id .. "_anon", password = secret, max = 8, queue_max = 500, role = role },
        },
        timeout  = 5, -- seconds, for the whole call
        breaker  = { window_calls = 20, min_calls = 10, failure_rate = 0.5, open_for = 60 },
        health   = { interval = 1, probe_interval = 0.1 },
        retry    = function(failure) -- nil or false gives up
            if failure.safe and failure.attempt <= 2 then return failure:backoff() end
        end,
    })
end

-- One request of one user, as a web handler makes it. The statement names no user; the server adds that.
local function contacts_of(db, user)
    return db:anon({ sub = user }):with({ readonly = true })
        :query("GET /contacts", "select owner, name from " .. id .. ".contacts")
end

-- `count` calls as different users, each in a task of its own, one beginning every `pause` seconds.
local function spawn_calls(db, count, pause)
    local tally = { ok = 0, refused = 0, failed = 0, rows = 0, foreign = 0, slowest = 0, tasks = {} }
    local function call(i)
        local user = USERS[i % #USERS + 1]
        weir.sleep(pause * i)
        local began = weir.now()
        local rows, err = contacts_of(db, user)
        tally.slowest = math.max(tally.slowest, weir.now() - began)
        local how = rows and "ok" or err.code == "breaker_open" and "refused" or "failed"
        tally[how] = tally[how] + 1
        for _, row in ipairs(rows or {}) do
            tally.rows = tally.rows + 1
            if row.owner ~= user then tally.foreign = tally.foreign + 1 end
        end
    end
    for i = 1, count do tally.tasks[i] = weir.spawn(call, i) end
    return tally
end

-- ---- the steps ------------------------------------------------------------------------------------------

local function show_database()
    step "A database with row-level security"
    if url then
        say "The server of DATABASE_URL. It is not stopped, and all we make there is dropped at the end."
    else
        pg = assert(require("weir.testing").postgres { name = "quickstart" })
        url = pg:url()
        say("PostgreSQL %s in %s, gone when this script ends, in whatever way.", pg.version, pg.dir)
    end
    administer("quickstart: set up", SETUP)
    say("Table contacts: %d users with 20 rows each. A policy shows each user only his own.", #USERS)
end

local function show_concurrency(db)
    step "400 calls at once, as 10 different users, over 8 connections"
    local began = weir.now()
    local tally = spawn_calls(db, 400, 0)
    weir.gather(tally.tasks)
    say("%d ok in %.0f ms, each a transaction with its role, claims and deadline in one round trip.",
        tally.ok, (weir.now() - began) * 1000)
    check(tally.ok == 400 and tally.foreign == 0, "%d rows came back, %d of them of another user.",
        tally.rows, tally.foreign)
    local count = assert(db:with_service("nightly: count", function(tx)
        return tx:query("select count(*) as n from " .. id .. ".contacts")[1].n
    end))
    say("The application's own login, above row-level security, counts %d.", count)
end

local function show_outage(db)
    step "The same load over a second, and half way through the server is killed"
    local tally = spawn_calls(db, 400, 0.0025)
    weir.sleep(0.5)
    assert(pg:stop "immediate")
    weir.gather(tally.tasks)
    say("%d ok, %d failed, %d refused.", tally.ok, tally.failed, tally.refused)
    say("The slowest took %.0f ms: nobody waited for the deadline of 5 s.", tally.slowest * 1000)
    check(db:breaker("anon@primary"):state() == "OPEN", "The breaker is open. What a caller hears now:")
    local began, err = weir.now(), nil
    for _ = 1, 200 do _, err = contacts_of(db, "ada") end
    local each = (weir.now() - began) / 200
    say("  code %s, retry_after %.1f s, refused in %.1f µs", err.code, err.retry_after, each * 1e6)
    say("  evidence: %s", err.evidence)
end

local function show_recovery(db)
    step "The server comes back"
    weir.sleep(1)
    local _, refusal = contacts_of(db, "ada")
    local began = weir.now()
    assert(pg:start())
    local ready = weir.now()
    while not contacts_of(db, "ada") and weir.now() < began + 20 do weir.sleep(0.005) end
    local ended = weir.now()
    local delay, early = (ended - ready) * 1000, refusal.retry_after - (ended - began)
    say "Nobody told Weir: while the breaker is open, it probes in the background."
    check(early > 0, "First success %.0f ms after the server was ready, %.0f s early.", delay, early)
    weir.gather(spawn_calls(db, 200, 0).tasks)
    for _, event in ipairs(db:events()) do
        if event.kind == "breaker" then say("  %s", event.text) end
    end
end

local STATES = { CLOSED = "32 ● closed", OPEN = "31 ○ open", HALF_OPEN = "33 ◐ half-open" }

local function show_statistics(db)
    step "What each pool has seen"
    say "pool              calls       ok       p50        p99  retries  refused  conns  breaker"
    for _, pool in ipairs(db:stats().pools) do
        local calls, duration = pool.calls, pool.duration_ms
        say("%-16s %6d %7.2f%% %6.2f ms %7.2f ms %8d %8d %6s  %s", pool.pool, calls.started,
            100 * calls.ok / math.max(1, calls.started), duration.p50, duration.p99, pool.attempts.retries,
            calls.refused, pool.connections.open .. "/" .. pool.connections.max,
            paint(STATES[pool.breaker.state]:match "(%d+) (.*)"))
    end
end

local function show_health(db)
    step "Health, as an endpoint serves it"
    say("%s", (db:health_json():gsub(":", ": "):gsub(',"', ', "'):gsub("}, ", "},\n    ")
        :gsub(' "circuit', '\n             "circuit')))
end

show_database()
local db = open_engine()
local ok, err = pcall(function()
    show_concurrency(db)
    if pg then show_outage(db) show_recovery(db) else say "Without DATABASE_URL, more would be shown." end
    show_statistics(db)
    show_health(db)
end)
db:close()
if not pg then administer("quickstart: clean up", CLEANUP) end
if not ok then error(err, 0) end
