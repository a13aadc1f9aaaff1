-- weir doctor where a client does not get in, or gets no answer: each reason by its name, and mended.

local clinic = require "clinic"
local conninfo = require "weir.doctor.conninfo"
local examination = require "examination"
local lu = require "luaunit"
local reach = require "weir.doctor.reach"

local pg

local function policy_of(backend)
    return clinic.policy(pg, "", { primary = backend })
end

-- What a policy says when nobody gets in; both clients say the same.
local function refused(backend, id, arguments)
    local report = examination.of(policy_of(backend), arguments or "--timeout 1")
    lu.assertEquals(report:trouble(), { id }, report.output)
    lu.assertEquals(report.code, 1)
    return report:all(id)
end

TestNobodyThere = {}

function TestNobodyThere:test_each_reason_has_its_name()
    lu.assertStrContains(refused("host=127.0.0.1 port=1", "reach.refused")[1].found, "127.0.0.1, port 1")
    refused("host=/nowhere/at/all", "reach.refused")
    lu.assertStrContains(refused("host=nowhere.invalid", "reach.dns")[1].why, "name leads to no address")
    refused("postgresql://app@127.0.0.1:1/x?sslmode=require", "reach.refused")
end

function TestNobodyThere:test_a_server_that_accepts_and_says_nothing_is_a_timeout()
    clinic.renew(pg)
    assert(pg:pause())
    refused(pg:url(), "reach.timeout", "--timeout 0.5")
    assert(pg:resume())
    clinic.assert_sound(pg)
end

function TestNobodyThere:test_the_other_backends_are_looked_at_all_the_same()
    clinic.renew(pg)
    local report = clinic.assert_trouble(clinic.policy(pg, "", { primary = pg:url(),
        spare = "host=/nowhere" }),
        { "reach.refused" })
    lu.assertEquals(#report:all "reach.connected", 2)
    lu.assertEquals(report:line("server.version").backend, "primary")
end

TestNotLetIn = {}

-- Mended by the remedy that was printed.
local function spoil_and_mend(spoil, id, client, database)
    clinic.renew(pg)
    assert(pg:sql(spoil))
    local policy = policy_of(pg:url("app_service", database))
    local report = examination.of(policy)
    lu.assertEquals(report:trouble(), { id }, report.output)
    local line = report:line(id, client)
    lu.assertEquals(line.kind, "sql")
    assert(pg:sql(line.remedy))
    local mended = examination.of(policy)
    lu.assertEquals(#mended:all "reach.connected", 2, mended.output)
    return line
end

function TestNotLetIn:test_no_such_login()
    spoil_and_mend("drop owned by app_service; drop role app_service", "reach.login", "service")
end

function TestNotLetIn:test_a_role_that_may_not_log_in()
    local line = spoil_and_mend("alter role app_anon nologin", "reach.login", "anon")
    lu.assertEquals(line.remedy, "alter role app_anon login;")
end

function TestNotLetIn:test_no_connection_left_for_the_role()
    local line = spoil_and_mend("alter role app_anon connection limit 0", "reach.connections", "anon")
    lu.assertStrContains(line.remedy, "alter role app_anon connection limit")
end

function TestNotLetIn:test_no_right_to_connect()
    spoil_and_mend("revoke connect on database postgres from public; grant connect on database postgres " ..
        "to app_anon",
        "reach.login", "service")
    assert(pg:sql "grant connect on database postgres to public")
end

function TestNotLetIn:test_no_such_database()
    clinic.renew(pg)
    local policy = policy_of(pg:url("app_service", "shop"))
    local report = clinic.assert_trouble(policy, { "reach.database" })
    assert(pg:sql(report:line("reach.database", "anon").remedy))
    lu.assertEquals(#examination.of(policy):all "reach.connected", 2)
    assert(pg:sql "drop database shop")
end

function TestNotLetIn:test_the_wrong_password()
    clinic.renew(pg)
    local guarded <close> = clinic.open { hba = "local all app_anon scram-sha-256" }
    assert(guarded:sql "alter role app_anon password 'another'")
    local policy = clinic.policy(guarded)
    local report = examination.of(policy)
    lu.assertEquals(report:trouble(), { "reach.password" }, report.output)
    lu.assertNotStrContains(report.output .. report.said, "anon-secret")
    local line = report:line("reach.password", "anon")
    assert(guarded:sql((line.remedy:gsub("%.%.%.", "anon-secret"))))
    clinic.assert_sound(guarded)
end

function TestNotLetIn:test_no_tls_where_it_is_asked_for()
    local open <close> = clinic.open { tcp = true }
    local report = examination.of(clinic.policy(open, "", { primary = open:url() .. "?sslmode=require" }))
    lu.assertEquals(report:trouble(), { "reach.tls" }, report.output)
end

TestTls = {}

local make_certificate = [[
set -e
cd "$(mktemp -d /tmp/weir-doctor-XXXXXX)"
for name in server stranger; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$name" \
        -addext subjectAltName=IP:127.0.0.1 -keyout $name.key -out $name.crt 2>/dev/null
done
chmod 755 . && chmod 600 server.key
[ "$(id -u)" != 0 ] || chown postgres server.key
pwd
]]

local function output_of(command)
    local pipe = io.popen(command)
    local text = pipe:read "a"
    pipe:close()
    return (text:gsub("%s+$", ""))
end

function TestTls:test_a_certificate_of_a_stranger_is_named_and_the_right_one_is_fine()
    local folder = output_of(make_certificate)
    local secure <close> = clinic.open { tcp = true, settings = {
        ssl = true, ssl_cert_file = folder .. "/server.crt", ssl_key_file = folder .. "/server.key",
    } }
    local function trusting(name)
        local url = ("%s?sslmode=verify-full&sslrootcert=%s/%s.crt"):format(secure:url(), folder, name)
        return clinic.policy(secure, "", { primary = url })
    end
    clinic.assert_trouble(trusting "stranger", { "reach.certificate" })
    local report = clinic.assert_sound(secure, trusting "server")
    lu.assertStrContains(report:line("tls.local", "anon").found, "TLSv1.3, TLS_AES_256_GCM_SHA384")
    os.execute("rm -rf " .. folder)
end

TestHanging = {}

-- While fn runs somebody else has the table to himself.
local function with_lock(name, fn)
    local holder = io.popen(("psql -X -q -d '%s' >/dev/null 2>&1"):format(pg:url()), "w")
    holder:write(("begin; lock table %s in access exclusive mode;\n"):format(name))
    holder:flush()
    while pg:sql(("select count(*) from pg_locks where relation = '%s'::regclass and granted and "
        .. "mode = 'AccessExclusiveLock'"):format(name)) ~= "1" do end
    local ok, why = pcall(fn)
    holder:close()
    if not ok then error(why, 0) end
end

function TestHanging:test_a_question_without_an_answer_is_named_and_the_rest_goes_on()
    clinic.renew(pg)
    with_lock("pg_policy", function()
        local report = clinic.assert_trouble(clinic.policy(pg), { "catalog.too_late" }, "--timeout 0.5")
        local late = {}
        for _, line in ipairs(report:all "catalog.too_late") do late[line.subject] = line.client end
        lu.assertEquals(late, { tables = "anon", policies = "anon" })
        lu.assertEquals(report:line("rls.views").level, "ok")
        lu.assertEquals(report:line("role.membership").level, "ok")
    end)
    clinic.assert_sound(pg)
end

function TestHanging:test_a_server_that_has_stopped_answering_is_asked_no_more()
    clinic.renew(pg)
    with_lock("pg_auth_members", function()
        local report = examination.of(clinic.policy(pg), "--timeout 0.5")
        lu.assertEquals(report:line("reach.hangs", "anon").level, "fail")
        lu.assertEquals(report:all("rls.views"), {})
        lu.assertEquals(report:line("reach.connected", "anon").level, "ok")
    end)
end

TestFacts = {}

local function lines_of(check, facts)
    local lines = {}
    check(facts, function(level, id, words)
        lines[#lines + 1] = { level = level, id = id, found = words.found, remedy = words.remedy }
    end)
    return lines
end

local function over(text, tls)
    return { backend = { conninfo = conninfo.parse(text, function() end) }, rows = { tls = { tls } },
        client = {} }
end

local ON = { ssl = true, version = "TLSv1.3", cipher = "TLS_AES_256_GCM_SHA384" }

local tls_cases = { -- connection string, what the server says, level, id
    { "host=db.example", { ssl = false }, "fail", "tls.none" },
    { "host=db.example sslmode=require", ON, "warn", "tls.unverified" },
    { "host=db.example sslmode=verify-ca", ON, "warn", "tls.unverified" },
    { "host=db.example sslmode=verify-full", ON, "ok", "tls.verified" },
    { "host=127.0.0.1", { ssl = false }, "ok", "tls.local" },
    { "postgresql://ann:pw@db.example:5433/x?sslmode=verify-full", ON, "ok", "tls.verified" },
    { "host=/run/postgresql", { ssl = false }, "ok", "tls.socket" },
    { "dbname=x", { ssl = false }, "ok", "tls.socket" },
}

function TestFacts:test_tls_is_judged_by_where_the_connection_goes()
    for _, case in ipairs(tls_cases) do
        local line = lines_of(reach.tls, over(case[1], case[2]))[1]
        lu.assertEquals({ line.level, line.id }, { case[3], case[4] }, case[1])
    end
end

local ON_TO_THE_POOLER = { shown_pid = 1, pid = 2 }

local pooler_cases = { -- connection string, level, id
    { "host=db.example", "fail", "tls.none" },
    { "host=db.example sslmode=require", "warn", "tls.unverified" },
    { "host=db.example sslmode=verify-full", "ok", "tls.verified" },
}

-- What the server says of TLS is of the pooler's connection then.
function TestFacts:test_behind_a_pooler_tls_is_judged_by_what_is_insisted_on()
    for _, case in ipairs(pooler_cases) do
        local facts = over(case[1], ON)
        facts.pooler = ON_TO_THE_POOLER
        local line = lines_of(reach.tls, facts)[1]
        lu.assertEquals({ line.level, line.id }, { case[2], case[3] }, case[1])
    end
end

function TestFacts:test_connects_that_take_nearly_their_timeout()
    local function line(took, allowed)
        local facts = { connect_seconds = took, options = { connect_timeout = allowed } }
        return lines_of(reach.speed, facts)[1] or {}
    end
    lu.assertNil(line(1.4, nil).id)
    lu.assertEquals({ line(1.6, nil).level, line(1.6, nil).id }, { "warn", "reach.slow" })
    lu.assertEquals({ line(4, nil).level, line(4, nil).remedy }, { "fail", "connect_timeout = 16" })
    lu.assertNil(line(4, 10).id)
end

local network_cases = { -- connection string, ids
    { "host=db.example", { "network.detects_death" } },
    { "host=db.example tcp_user_timeout=0", { "network.user_timeout" } },
    { "host=db.example keepalives=0", { "network.keepalives_off" } },
    { "host=db.example keepalives=0 tcp_user_timeout=600000", { "network.keepalives_off",
        "network.user_timeout" } },
    { "host=/tmp tcp_user_timeout=0", {} },
}

function TestFacts:test_a_dead_peer_has_to_be_noticed()
    for _, case in ipairs(network_cases) do
        local ids = {}
        for i, line in ipairs(lines_of(reach.silent_death, over(case[1], ON))) do ids[i] = line.id end
        lu.assertEquals(ids, case[2], case[1])
    end
end

local failures = { -- sqlstate, message, id
    { "57P03", "the database system is starting up", "reach.starting" },
    { "53300", "sorry, too many clients already", "reach.connections" },
    { nil, "server certificate for \"x\" does not match host name", "reach.certificate" },
    { nil, "could not connect: No route to host", "reach.route" },
    { "XX000", "something else", "reach.failed" },
}

function TestFacts:test_reasons_that_cannot_be_made_here()
    for _, case in ipairs(failures) do
        local facts = over("host=db.example", ON)
        facts.failure = { sqlstate = case[1], message = case[2], code = "connect_failed" }
        facts.client, facts.workers = { max = 10, user = "app" }, 1
        lu.assertEquals(lines_of(reach.connection, facts)[1].id, case[3])
    end
end

function TestFacts:test_a_far_server_is_a_warning()
    lu.assertEquals(lines_of(reach.distance, { round_trip_seconds = 0.05 })[1].id, "reach.far")
    lu.assertEquals(lines_of(reach.distance, { round_trip_seconds = 0.005 }), {})
end

TestConninfo = {}

local strings = { -- text, host, port, user, dbname, password
    { "host=a port=1 user=b dbname=c password='d e\\'f'", "a", "1", "b", "c", "d e'f" },
    { "postgresql://b:d%40@a:1/c?sslmode=require", "a", "1", "b", "c", "d@" },
    { "postgres://b@/c?host=/tmp&port=1", "/tmp", "1", "b", "c", nil },
    { "postgresql://b@[::1]:1/c", "::1", "1", "b", "c", nil },
    { "postgresql://b@a1:1,a2:2/c", "a1,a2", "1,2", "b", "c", nil },
    { "host = a  port = 1 user=b dbname=c", "a", "1", "b", "c", nil },
}

function TestConninfo:test_both_forms_are_read()
    for _, case in ipairs(strings) do
        local used = conninfo.parse(case[1], function() end)
        lu.assertEquals({ used.host, used.port, used.user, used.dbname, used.password },
            { case[2], case[3], case[4], case[5], case[6] }, case[1])
    end
end

function TestConninfo:test_the_environment_lies_beneath_and_defaults_beneath_that()
    local environment = { PGHOST = "e", PGSSLMODE = "verify-full" }
    local used = conninfo.parse("host=a", function(name)
        return environment[name]
    end)
    lu.assertEquals({ used.host, used.sslmode, used.tcp_user_timeout }, { "a", "verify-full", "10000" })
    lu.assertNil(used.said.sslmode)
end

function TestConninfo:test_where_it_leads_is_told_without_a_password()
    lu.assertEquals(conninfo.place(conninfo.parse("postgresql://b:geheim@a:1/c", function() end)),
        "a, port 1")
end

pg = clinic.open()
local code = lu.LuaUnit.run()
pg:close()
os.exit(code)
