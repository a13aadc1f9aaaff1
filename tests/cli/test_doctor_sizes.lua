-- weir doctor on sizes and timeouts: one thing wrong at a time, and mended.

local capacity = require "weir.doctor.capacity"
local clinic = require "clinic"
local lu = require "luaunit"

local pg

local function spoil_and_mend(case)
    clinic.spoil_and_mend(pg, case)
end

TestConnections = {}

-- What needs a restart of the server.
local function mended_after_restart(policy, arguments, ids)
    local report = clinic.assert_trouble(policy, ids, arguments)
    local line = report:line(ids[1])
    assert(pg:sql(line.remedy))
    assert(pg:restart())
    clinic.assert_sound(pg, policy, arguments)
    assert(pg:sql "alter system reset all")
    assert(pg:restart())
    return line
end

function TestConnections:test_more_than_the_server_has()
    clinic.renew(pg)
    local line = mended_after_restart(clinic.policy(pg), "--workers 10", { "capacity.max_connections" })
    lu.assertEquals(line.level, "fail")
    lu.assertStrContains(line.found, "may hold 200 connections ((anon 16 + service 4) x 10 workers)")
    lu.assertStrContains(line.found, "197 of max_connections 200 are for ordinary logins")
end

function TestConnections:test_more_than_others_leave()
    clinic.renew(pg)
    assert(pg:sql "create role other login")
    local others = {}
    for i = 1, 20 do others[i] = io.popen(("psql -X -q -d '%s' >/dev/null"):format(pg:url "other"), "w") end
    for _, other in ipairs(others) do
        other:write "select 1;\n"
        other:flush()
    end
    while pg:sql "select count(*) from pg_stat_activity where usename = 'other'" ~= "20" do end
    local report = clinic.assert_trouble(clinic.policy(pg), { "capacity.tight" }, "--workers 9")
    for _, other in ipairs(others) do other:close() end
    lu.assertEquals(report:line("capacity.tight").level, "warn")
end

function TestConnections:test_an_area_holds_for_all_workers()
    clinic.renew(pg)
    local area = os.tmpname()
    os.remove(area)
    clinic.assert_sound(pg, clinic.policy(pg, ("area = %q"):format(area)), "--workers 10")
    lu.assertNil(io.open(area), "the doctor makes no area")
end

function TestConnections:test_two_backends_that_are_one_server()
    clinic.renew(pg)
    local policy = clinic.policy(pg, "", { primary = pg:url(), reports = pg:url() })
    local report = clinic.assert_trouble(policy, { "capacity.max_connections" }, "--workers 5")
    lu.assertStrContains(report:all("capacity.max_connections")[1].found, "on 2 backends that are one server")
end

function TestConnections:test_more_than_the_role_may_have()
    spoil_and_mend {
        spoil = "alter role app_anon connection limit 15", id = "capacity.role_limit",
        found = "app_anon may have 15 connections, and its pool may hold 16",
    }
end

function TestConnections:test_more_than_the_database_takes()
    spoil_and_mend {
        spoil = "alter database postgres connection limit 19", id = "capacity.database_limit",
        found = "allows 19 connections, and the pools may hold 20",
    }
    assert(pg:sql "alter database postgres connection limit -1")
end

TestTimeouts = {}

function TestTimeouts:test_statements_that_end_before_their_call()
    spoil_and_mend {
        spoil = "alter role web_anon set statement_timeout = '2s'",
            id = "timeout.statement_timeout_below_call",
        level = "warn", client = "anon", found = "statement_timeout is 2 s, and timeout of a call 10 s",
    }
    spoil_and_mend {
        spoil = "alter role app_service set statement_timeout = '1500'", client = "service",
        id = "timeout.statement_timeout_below_call", level = "warn",
            found = "1.5 s, and timeout of a call 2.5 s",
        more = "timeout = 2.5, connect_timeout = 1",
    }
end

function TestTimeouts:test_transactions_that_nothing_ends()
    spoil_and_mend {
        spoil = "alter role web_anon reset all", id = "timeout.idle_in_transaction_off", level = "warn",
        client = "anon",
    }
end

function TestTimeouts:test_transactions_that_may_not_think()
    spoil_and_mend {
        spoil = "alter role app_service set idle_in_transaction_session_timeout = '200ms'",
            client = "service",
        id = "timeout.idle_in_transaction_short", level = "warn",
    }
end

function TestTimeouts:test_sessions_that_end_before_the_pool_lets_go()
    clinic.renew(pg)
    assert(pg:sql "alter role app_service set idle_session_timeout = '5min'")
    local report = clinic.assert_trouble(clinic.policy(pg), { "timeout.idle_session_below_pool" })
    local line = report:line "timeout.idle_session_below_pool"
    lu.assertEquals({ line.client, line.kind, line.remedy }, { "service", "policy", "idle_timeout = 240" })
    clinic.assert_sound(pg, clinic.policy(pg, line.remedy))
end

function TestTimeouts:test_locks_are_told_of()
    clinic.renew(pg)
    assert(pg:sql "alter role web_anon set lock_timeout = '1s'")
    local report = clinic.assert_sound(pg)
    lu.assertStrContains(report:line("timeout.lock_timeout", "anon").found, "lock_timeout 1 s")
    lu.assertStrContains(report:line("timeout.lock_timeout", "service").found, "lock_timeout 0")
end

TestFacts = {}

local function lines_of(check, facts)
    local lines = {}
    check(facts, function(level, id, words)
        lines[#lines + 1] = { level = level, id = id, found = words.found, remedy = words.remedy }
    end, { facts })
    return lines
end

function TestFacts:test_reserved_connections_of_16_are_taken_off()
    local usable, all = capacity.usable { rows = { settings = {
        { name = "max_connections", setting = "100" }, { name = "superuser_reserved_connections",
            setting = "3" },
        { name = "reserved_connections", setting = "10" },
    } } }
    lu.assertEquals({ usable, all }, { 87, 100 })
end

function TestFacts:test_a_server_that_looks_after_silent_clients_too_late()
    local facts = {
        backend = { conninfo = { host = "db.example", said = {} } },
        rows = { server = { { socket = false } }, settings = { { name = "tcp_keepalives_idle",
            setting = "7200" } } },
    }
    lu.assertEquals(lines_of(capacity.ghosts, facts)[1].id, "network.server_keepalives_late")
    facts.rows.settings[1].setting = "60"
    lu.assertEquals(lines_of(capacity.ghosts, facts)[1].level, "ok")
    facts.backend.conninfo.host = "127.0.0.1"
    lu.assertEquals(lines_of(capacity.ghosts, facts), {})
end

pg = clinic.open()
local code = lu.LuaUnit.run()
pg:close()
os.exit(code)
