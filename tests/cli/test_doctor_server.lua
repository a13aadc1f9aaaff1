-- weir doctor on what a server is: version, primary or standby, how far behind, its clock.

local clinic = require "clinic"
local companions = require "companions"
local lu = require "luaunit"
local server = require "weir.doctor.server"

local pg, standby

local function policy(backends, more)
    return clinic.policy(pg, more, backends)
end

-- Until what the primary has is there as well.
local function caught_up()
    local at = pg:sql "select pg_current_wal_lsn()"
    while standby:sql(("select pg_last_wal_replay_lsn() >= '%s'"):format(at)) ~= "t" do end
end

TestPart = {}

function TestPart:test_a_primary_and_its_standby_are_sound()
    caught_up()
    local report = clinic.assert_sound(pg, policy { primary = pg:url(), replica = standby:url "postgres" })
    lu.assertEquals(report:line("replica.lag").backend, "replica")
    lu.assertEquals(report:line("replica.lag").level, "ok")
    local parts = report:all "server.part"
    lu.assertEquals({ parts[1].found, parts[2].found }, { "a primary", "a standby" })
end

function TestPart:test_a_standby_as_primary()
    local report = clinic.assert_trouble(policy { primary = standby:url "postgres" }, {
        "server.standby_as_primary" })
    lu.assertEquals(report:line("server.standby_as_primary").level, "fail")
    lu.assertStrContains(report:line("server.standby_as_primary").remedy, "backends.primary = ")
end

function TestPart:test_a_primary_as_replica()
    local report = clinic.assert_trouble(policy { primary = pg:url(), replica = pg:url() },
        { "server.primary_as_replica" })
    lu.assertEquals(report:line("server.primary_as_replica").backend, "replica")
end

function TestPart:test_a_route_that_sends_writes_to_the_standby()
    caught_up()
    local backends = { primary = pg:url(), replica = standby:url "postgres" }
    local report = clinic.assert_trouble(policy(backends, "route = function() return 'replica' end"),
        { "policy.writes_to_standby" })
    clinic.assert_sound(pg, policy(backends, report:line("policy.writes_to_standby").remedy))
end

TestLag = {}

function TestLag:test_a_standby_that_replays_nothing_falls_behind()
    caught_up()
    standby:sql "select pg_wal_replay_pause()"
    pg:sql [[create table bulk as select repeat(md5(n::text), 30) as text from generate_series(1, 25000) n;
        select pg_switch_wal()]]
    local backends = { primary = pg:url(), replica = standby:url "postgres" }
    local report = clinic.assert_trouble(policy(backends), { "replica.lags", "replica.paused" })
    local behind = tonumber(report:line("replica.lags").found:match "^([%d.]+) MiB")
    lu.assertTrue(behind > 16, report:line("replica.lags").found)
    standby:sql(report:line("replica.paused").remedy)
    caught_up()
    clinic.assert_sound(pg, policy(backends))
end

function TestLag:test_a_standby_that_receives_nothing()
    caught_up()
    local old = standby:sql "select current_setting('primary_conninfo')"
    local function follow(remedy, what)
        for statement in remedy:gsub("'.*'", function()
            return "'" .. what:gsub("'", "''") .. "'"
        end):gmatch "[^;]+;" do standby:sql(statement) end
    end
    follow("alter system set primary_conninfo = ''; select pg_reload_conf();", "host=/nowhere")
    while standby:sql "select count(*) from pg_stat_wal_receiver" ~= "0" do end
    local backends = { primary = pg:url(), replica = standby:url "postgres" }
    local report = clinic.assert_trouble(policy(backends), { "replica.not_streaming" })
    follow(report:line("replica.not_streaming").remedy, old)
    while standby:sql "select count(*) from pg_stat_wal_receiver" ~= "1" do end
    clinic.assert_sound(pg, policy(backends))
end

TestFacts = {}

local function lines_of(check, facts, others)
    local lines = {}
    check(facts, function(level, id, words)
        lines[#lines + 1] = { level = level, id = id, found = words.found }
    end, others or { facts })
    return lines
end

local function at(year, month, day)
    return os.time { year = year, month = month, day = day, hour = 12 }
end

local versions = { -- server_version_num, version, today, level, id
    { 120022, "12.22", at(2024, 1, 1), "fail", "server.version_unsupported" },
    { 130023, "13.23 (Debian)", at(2025, 11, 12), "warn", "server.version_ends" },
    { 130023, "13.23", at(2025, 11, 13), "warn", "server.version_ended" },
    { 160004, "16.4", at(2027, 1, 1), "ok", "server.version" },
    { 990001, "99.1", at(2027, 1, 1), "ok", "server.version" },
}

function TestFacts:test_versions_have_an_end()
    for _, case in ipairs(versions) do
        local facts = { today = case[3], rows = { server = { { version_num = case[1],
            version = case[2] } } } }
        local line = lines_of(server.version, facts)[1]
        lu.assertEquals({ line.level, line.id }, { case[4], case[5] }, case[2])
    end
end

function TestFacts:test_clocks_are_compared_as_exactly_as_the_round_trip_allows()
    local function clock(ahead, exact_to)
        return lines_of(server.clock, { clock = { ahead = ahead, exact_to = exact_to } })[1]
    end
    lu.assertEquals(clock(0.2, 0.001).id, "clock.agrees")
    lu.assertEquals(clock(1.2, 0.3).id, "clock.agrees")
    lu.assertEquals(clock(1.2, 0.1).id, "clock.skew")
    lu.assertStrContains(clock(-90, 0.1).found, "90 s behind ours")
end

local function standby_facts(wal)
    return {
        backend = { name = "replica" },
        rows = { server = { { standby = true } }, system = { { id = "1" } }, wal = { wal } },
    }
end

local names = { -- of a backend, whether it is a standby, what is said
    { "primary", false, "server.part" }, { "primary", true, "server.standby_as_primary" },
    { "replica2", true, "server.part" }, { "replica2", false, "server.primary_as_replica" },
    { "main_replica", true, "server.part" }, { "eu_west", true, "server.part" }, { "eu_west", false,
        "server.part" },
}

function TestFacts:test_names_say_what_a_backend_is_meant_to_be()
    for _, case in ipairs(names) do
        local facts = standby_facts { at = 1 }
        facts.backend.name, facts.rows.server[1].standby = case[1], case[2]
        lu.assertEquals(lines_of(server.part, facts)[1].id, case[3], case[1])
    end
end

-- Throw-away servers are copies of one template, so their data cannot be told apart.
function TestFacts:test_a_standby_of_somebody_else()
    local replica, primary = standby_facts { at = 1 }, standby_facts { at = 1 }
    primary.rows.server[1].standby, primary.backend.name = false, "primary"
    lu.assertEquals(lines_of(server.same_data, replica, { primary, replica }), {})
    replica.rows.system[1].id = "2"
    local line = lines_of(server.same_data, replica, { primary, replica })[1]
    lu.assertEquals({ line.level, line.id }, { "fail", "replica.other_data" })
    lu.assertEquals(line.found, "replica is a standby of another server than primary")
end

function TestFacts:test_old_transactions_are_no_lag_where_nothing_is_outstanding()
    local line = lines_of(server.lag, standby_facts { at = 1000, received = 1000, age = 86400 })[1]
    lu.assertEquals(line.id, "replica.lag")
end

function TestFacts:test_lag_in_seconds_counts_where_there_is_more_to_come()
    local line = lines_of(server.lag, standby_facts { at = 1000, received = 1001, age = 86400 })[1]
    lu.assertEquals({ line.level, line.id }, { "fail", "replica.lags" })
    line = lines_of(server.lag, standby_facts { at = 1000, received = 1001, age = 30 })[1]
    lu.assertEquals({ line.level, line.id }, { "warn", "replica.lags" })
end

pg = clinic.open { hba = "local replication all trust" }
standby = companions.standby(pg)
local code = lu.LuaUnit.run()
standby:close()
pg:close()
os.exit(code)
