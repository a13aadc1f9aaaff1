--- A sound database and a sound policy for it, to be spoilt in one way at a time and mended by what the
-- doctor says.

local examination = require "examination"
local lu = require "luaunit"
local testing = require "weir.testing"

local clinic = {}

-- Nothing is wrong here: see clinic.policy.
local sound = [[
    create role web_anon nologin;
    create role app_anon login noinherit password 'anon-secret';
    create role app_service login bypassrls password 'service-secret';
    grant web_anon to app_anon;
    alter role web_anon set idle_in_transaction_session_timeout = '20s';
    alter role app_service set idle_in_transaction_session_timeout = '20s';
    create table contacts (id int primary key, owner text not null, name text not null);
    alter table contacts enable row level security;
    create policy own on contacts
        using (owner = nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub');
    grant select, insert on contacts to web_anon, app_service;
]]

-- Whatever the last test left.
local clean = [[
    drop schema public cascade;
    create schema public authorization pg_database_owner;
    grant usage on schema public to public;
    do $$ declare r text; begin
        for r in select quote_ident(rolname) from pg_roles where rolname !~ '^pg_' and rolname <> 'postgres'
        loop
            execute 'drop owned by ' || r || ' cascade';
            execute 'drop role ' || r;
        end loop;
    end $$;
]]

--- Makes the database sound again, whatever became of it.
function clinic.renew(pg)
    assert(pg:sql(clean .. sound))
end

--- A server with the sound database. Options as weir.testing.postgres.
function clinic.open(options)
    local pg = assert(testing.postgres(options))
    assert(pg:sql(sound))
    return pg
end

--- The text of a policy for it; `more` are further options as Lua text.
-- @param backends  name -> connection string, or Lua text of a table; the server itself as primary if nil
function clinic.policy(pg, more, backends)
    local parts = {}
    for name, backend in pairs(backends or { primary = pg:url() }) do
        parts[#parts + 1] = ("%s = %s"):format(name, backend:find "^{" and backend or ("%q"):format(backend))
    end
    return ([[
        return {
            backends = { %s },
            clients = {
                anon = { user = "app_anon", password = "anon-secret", role = "web_anon", max = 16 },
                service = { user = "app_service", password = "service-secret", max = 4, bypass_rls = true },
            },
            %s
        }]]):format(table.concat(parts, ", "), more or "")
end

--- Examined: nothing is wrong.
function clinic.assert_sound(pg, policy, arguments)
    local report = examination.of(policy or clinic.policy(pg), arguments)
    lu.assertEquals(report:trouble(), {}, report.output)
    lu.assertEquals(report.code, 0, report.output)
    return report
end

--- Examined: these ids and nothing else are wrong. Returns the report.
function clinic.assert_trouble(policy, ids, arguments)
    local report = examination.of(policy, arguments)
    lu.assertEquals(report:trouble(), ids, report.output)
    for _, line in ipairs(report.lines) do
        if line.level ~= "ok" then
            lu.assertTrue(#(line.why or "") > 10, line.id)
            lu.assertTrue(#(line.remedy or "") > 5, line.id)
        end
    end
    return report
end

--- Spoils the database with one piece of SQL, sees exactly this finding, runs its remedy, and sees a sound
-- one.
-- @param case  spoil, id, level, and optionally: found (in the line), client, more (options of the policy),
--   also (ids that come along), leaves (ids that are there afterwards)
function clinic.spoil_and_mend(pg, case)
    clinic.renew(pg)
    assert(pg:sql(case.spoil))
    local ids = { case.id }
    for _, id in ipairs(case.also or {}) do ids[#ids + 1] = id end
    table.sort(ids)
    local report = clinic.assert_trouble(clinic.policy(pg, case.more), ids)
    local line = report:line(case.id, case.client)
    lu.assertEquals(line.level, case.level or "fail")
    lu.assertEquals(line.kind, "sql")
    lu.assertStrContains(line.found, case.found or "")
    lu.assertEquals(report.code, line.level == "fail" and 1 or 0)
    assert(pg:sql(line.remedy))
    local mended = examination.of(clinic.policy(pg, case.more))
    lu.assertEquals(mended:all(case.id), {}, mended.output)
    lu.assertEquals(mended:trouble(), case.leaves or {}, mended.output)
end

return clinic
