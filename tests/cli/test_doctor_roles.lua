-- weir doctor on roles: one thing wrong at a time, seen, and mended by the remedy that was printed.

local clinic = require "clinic"
local lu = require "luaunit"
local roles = require "weir.doctor.roles"

local pg

local function spoil_and_mend(case)
    clinic.spoil_and_mend(pg, case)
end

TestSound = {}

function TestSound:test_a_sound_database_has_nothing_but_ok()
    clinic.renew(pg)
    local report = clinic.assert_sound(pg)
    for _, id in ipairs { "role.anon_login", "role.acting", "role.membership", "role.accepted",
        "role.service",
        "rls.tables", "rls.views", "function.definers", "policy.expressions", "capacity.server",
        "pooler.mode", "prepared.safe", "server.version", "clock.agrees", "lint.clean" } do
        lu.assertEquals(report:line(id).level, "ok", id)
    end
end

TestAnonLogin = {}

function TestAnonLogin:test_superuser()
    spoil_and_mend {
        spoil = "alter role app_anon superuser", id = "role.anon_superuser", found = "app_anon",
    }
end

function TestAnonLogin:test_bypassrls()
    spoil_and_mend { spoil = "alter role app_anon bypassrls", id = "role.anon_bypassrls" }
end

function TestAnonLogin:test_replication()
    spoil_and_mend { spoil = "alter role app_anon replication", id = "role.anon_replication" }
end

-- Since 16 it reaches only the roles it was given ADMIN on.
function TestAnonLogin:test_createrole()
    local spoil = "alter role app_anon createrole"
    local version = assert(pg:sql "show server_version_num")
    if tonumber(version) < 160000 then return spoil_and_mend { spoil = spoil, id = "role.anon_createrole" } end
    clinic.renew(pg)
    assert(pg:sql(spoil))
    clinic.assert_sound(pg)
end

TestActingRole = {}

function TestActingRole:test_it_cannot_be_set()
    spoil_and_mend { spoil = "revoke web_anon from app_anon", id = "role.not_granted",
        found = "app_anon may not" }
end

function TestActingRole:test_it_does_not_exist()
    spoil_and_mend {
        spoil = "alter role web_anon rename to web_nobody", id = "role.missing",
            found = "web_anon does not exist",
        leaves = { "timeout.idle_in_transaction_off" },
    }
end

TestMembership = {}

function TestMembership:test_directly_in_the_service_login()
    spoil_and_mend {
        spoil = "grant app_service to app_anon", id = "role.can_become",
            found = "app_anon can become app_service",
    }
end

function TestMembership:test_by_way_of_others()
    spoil_and_mend {
        spoil = "create role staff; create role boss bypassrls; grant staff to web_anon; grant boss to staff",
        id = "role.can_become", found = "boss by way of web_anon, staff, which has BYPASSRLS",
    }
end

function TestMembership:test_in_a_role_that_runs_programs()
    spoil_and_mend {
        spoil = "grant pg_execute_server_program to web_anon", id = "role.can_become",
            found = "runs programs",
    }
end

function TestMembership:test_a_name_that_needs_quotes_is_quoted_in_the_remedy()
    spoil_and_mend {
        spoil = [[create role "Big ""Boss" superuser; grant "Big ""Boss" to app_anon]],
            id = "role.can_become",
        found = [["Big ""Boss"]],
    }
end

-- Since 16 a membership may be for granting only.
function TestMembership:test_one_that_lets_neither_set_nor_inherit_leads_nowhere()
    local edge = { member = "app_anon", member_ident = "app_anon", name = "boss", ident = "boss",
        super = true }
    local facts = {
        client = { role = "web_anon" }, options = { clients = {} }, backend = { conninfo = {} },
        rows = { login = { { name = "app_anon", ident = "app_anon" } }, members = { edge } },
    }
    local function level()
        local seen
        roles.membership(facts, function(found)
            seen = found
        end)
        return seen
    end
    edge.usable = false
    lu.assertEquals(level(), "ok")
    edge.usable = true
    lu.assertEquals(level(), "fail")
end

TestOwner = {}

function TestOwner:test_of_a_table_whose_policies_do_not_bind_it()
    spoil_and_mend {
        spoil = "alter table contacts owner to app_anon", id = "rls.owner_not_forced",
            found = "public.contacts",
    }
end

TestService = {}

function TestService:test_one_that_is_superuser()
    spoil_and_mend {
        spoil = "alter role app_service superuser", id = "role.service_superuser", level = "warn",
            client = "service",
    }
end

function TestService:test_one_that_policies_bind_is_told_where()
    spoil_and_mend {
        spoil = "alter role app_service nobypassrls", id = "role.service_bound", level = "warn",
            client = "service",
        found = "cannot read public.contacts",
    }
end

TestCatalogs = {}

function TestCatalogs:test_one_that_may_not_be_read_is_named()
    clinic.renew(pg)
    assert(pg:sql "revoke select on pg_policy from public")
    local report = clinic.assert_trouble(clinic.policy(pg), { "catalog.unreadable" })
    for _, line in ipairs(report:all "catalog.unreadable") do
        lu.assertStrContains(line.found, "permission denied for table pg_policy")
        assert(pg:sql(line.remedy))
    end
    clinic.assert_sound(pg)
    assert(pg:sql "grant select on pg_policy to public")
end

function TestCatalogs:test_a_function_too()
    clinic.renew(pg)
    assert(pg:sql "revoke execute on function pg_control_system() from public")
    local report = clinic.assert_trouble(clinic.policy(pg), { "catalog.unreadable" })
    for _, line in ipairs(report:all "catalog.unreadable") do assert(pg:sql(line.remedy)) end
    clinic.assert_sound(pg)
    assert(pg:sql "grant execute on function pg_control_system() to public")
end

pg = clinic.open()
local code = lu.LuaUnit.run()
pg:close()
os.exit(code)
