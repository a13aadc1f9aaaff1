-- weir doctor on what users can reach past row-level security: one thing wrong at a time, and mended.

local clinic = require "clinic"
local examination = require "examination"
local lu = require "luaunit"
local rowsecurity = require "weir.doctor.rowsecurity"

local pg

local function spoil_and_mend(case)
    clinic.spoil_and_mend(pg, case)
end

TestTables = {}

function TestTables:test_one_without_row_level_security()
    spoil_and_mend {
        spoil = "create table orders (id int); grant select on orders to web_anon",
        id = "rls.table_without_rls", found = "web_anon can reach public.orders",
        leaves = { "rls.without_policy" }, -- which is for whoever knows whose rows they are
    }
end

function TestTables:test_one_that_everybody_may_read()
    spoil_and_mend {
        spoil = "create table orders (id int); grant select on orders to public",
        id = "rls.table_without_rls", leaves = { "rls.without_policy" },
    }
end

function TestTables:test_one_of_which_a_column_may_be_read()
    spoil_and_mend {
        spoil = "create table orders (id int, price int); grant select (id) on orders to web_anon",
        id = "rls.table_without_rls", leaves = { "rls.without_policy" },
    }
end

function TestTables:test_a_partition_is_a_table_of_its_own()
    spoil_and_mend {
        spoil = [[create table parts (id int) partition by range (id);
            create table part1 partition of parts for values from (0) to (9);
            alter table parts enable row level security;
            create policy own on parts using (id = 1);
            grant select on parts, part1 to web_anon]],
        id = "rls.table_without_rls", found = "public.part1", leaves = { "rls.without_policy" },
    }
end

function TestTables:test_one_without_any_policy()
    spoil_and_mend {
        spoil = [[create table orders (id int); alter table orders enable row level security;
            grant select on orders to web_anon; grant select (id) on orders to public]],
        id = "rls.without_policy", level = "warn", found = "public.orders",
    }
end

function TestTables:test_one_whose_policies_are_for_others_or_only_restrict()
    spoil_and_mend {
        spoil = [[create table orders (id int); alter table orders enable row level security;
            create policy staff on orders to app_service using (true);
            create policy less on orders as restrictive using (true);
            grant select on orders to web_anon]],
        id = "rls.without_policy", level = "warn", found = "no policy that lets web_anon see a row",
    }
end

function TestTables:test_truncate_knows_no_policies()
    spoil_and_mend { spoil = "grant truncate on contacts to web_anon", id = "rls.truncate" }
end

function TestTables:test_a_materialized_view_cannot_be_filtered()
    spoil_and_mend {
        spoil = "create materialized view names as select name from contacts; grant select on names to " ..
            "web_anon",
        id = "rls.cannot_be_filtered", found = "public.names, a materialized view",
    }
end

function TestTables:test_a_schema_that_is_closed_hides_them()
    clinic.renew(pg)
    assert(pg:sql "create schema shut create table orders (id int); grant select on shut.orders to web_anon")
    clinic.assert_sound(pg)
    assert(pg:sql "drop schema shut cascade")
end

TestViews = {}

function TestViews:test_one_that_reads_as_somebody_whom_policies_do_not_bind()
    spoil_and_mend {
        spoil = "create view names as select name from contacts; grant select on names to web_anon",
        id = "rls.view_bypasses", found = "public.names shows public.contacts as postgres",
    }
end

function TestViews:test_one_of_the_tables_own_owner()
    spoil_and_mend {
        spoil = [[create role keeper; alter table contacts owner to keeper;
            grant all on schema public to keeper;
            set role keeper; create view names as select name from contacts; grant select on names to
            web_anon]],
        id = "rls.view_bypasses", found = "as keeper",
    }
end

function TestViews:test_one_behind_another()
    spoil_and_mend {
        spoil = [[create view inner_names as select name from contacts;
            create view names with (security_invoker = true) as select name from inner_names;
            create view all_names as select name from names;
            grant select on all_names to web_anon]],
        id = "rls.view_bypasses", found = "public.all_names",
    }
end

function TestViews:test_one_of_a_superuser_on_a_table_without_policies()
    spoil_and_mend {
        spoil = [[create table prices (id int); create view cheap as select id from prices;
            grant select on cheap to web_anon]],
        id = "rls.view_of_superuser", level = "warn",
    }
end

function TestViews:test_one_of_an_owner_whom_policies_bind_is_fine()
    clinic.renew(pg)
    assert(pg:sql [[create role keeper; grant all on schema public to keeper;
        grant select on contacts to keeper;
        set role keeper; create view names as select name from contacts; grant select on names to web_anon]])
    clinic.assert_sound(pg)
end

TestFunctions = {}

function TestFunctions:test_a_security_definer_without_a_search_path()
    spoil_and_mend {
        spoil = [[create function "Total"(a int, text) returns bigint security definer language sql
            as 'select count(*) from contacts']],
        id = "function.search_path", found = [[public."Total"(integer,text)]],
    }
end

function TestFunctions:test_one_that_users_may_not_call_is_none_of_their_business()
    clinic.renew(pg)
    assert(pg:sql [[create function total() returns bigint security definer language sql
        as 'select count(*) from contacts'; revoke execute on function total() from public]])
    clinic.assert_sound(pg)
end

TestSchemas = {}

function TestSchemas:test_one_where_users_may_create()
    spoil_and_mend {
        spoil = "grant create on schema public to web_anon, public", id = "schema.open", level = "warn",
        found = "web_anon may create in the schema public",
    }
end

TestPolicies = {}

-- Both faults have one remedy.
local function mended_by_either(spoil)
    for _, id in ipairs { "policy.json_without_nullif", "policy.setting_must_exist" } do
        spoil_and_mend {
            spoil = spoil, id = id, level = "warn",
            also = { id:find "json" and "policy.setting_must_exist" or "policy.json_without_nullif" },
        }
    end
end

function TestPolicies:test_a_cast_to_json_of_what_may_be_empty_and_missing()
    mended_by_either [[alter policy own on contacts
        using (owner = current_setting('request.jwt.claims')::json ->> 'sub')]]
end

function TestPolicies:test_in_a_sub_select_and_in_with_check()
    mended_by_either [[alter policy own on contacts using (true)
        with check (owner = ((select current_setting('request.jwt.claims'))::jsonb ->> 'sub'))]]
end

function TestPolicies:test_missing_ok_alone_does_not_help_against_empty()
    spoil_and_mend {
        spoil = [[alter policy own on contacts
            using (owner = current_setting('request.jwt.claims', true)::json ->> 'sub')]],
        id = "policy.json_without_nullif", level = "warn", found = "own on public.contacts",
    }
end

function TestPolicies:test_a_setting_of_its_own_that_must_exist()
    spoil_and_mend {
        spoil = "alter policy own on contacts using (owner = current_setting('app.user'))",
        id = "policy.setting_must_exist", level = "warn",
    }
end

function TestPolicies:test_one_that_is_not_for_users_is_none_of_their_business()
    clinic.renew(pg)
    assert(pg:sql [[create role staff; create policy staff on contacts to staff
        using (owner = current_setting('app.user'))]])
    clinic.assert_sound(pg)
end

TestExpressions = {}

local expressions = { -- what pg_get_expr gives, json, guarded, missing_ok, mended
    { "(owner = ((current_setting('a.b'::text))::json ->> 'sub'::text))", true, false, false,
        "(owner = ((NULLIF(current_setting('a.b'::text, true), ''))::json ->> 'sub'::text))" },
    { "(o = ((NULLIF(current_setting('a.b'::text, true), ''::text))::jsonb ->> 'sub'::text))", false, true,
        true,
        "(o = ((NULLIF(current_setting('a.b'::text, true), ''::text))::jsonb ->> 'sub'::text))" },
    { "(o = current_setting('a,b)'::text, false))", false, false, false,
        "(o = current_setting('a,b)'::text, true))" },
    { "(o = (( SELECT current_setting('a.b'::text, true) AS current_setting))::json)", true, false, true,
        "(o = (( SELECT NULLIF(current_setting('a.b'::text, true), '') AS current_setting))::json)" },
    { "(o = (current_setting('a.b'::text, true))::jsonpath)", false, false, true,
        "(o = (current_setting('a.b'::text, true))::jsonpath)" },
}

function TestExpressions:test_are_read_and_mended_as_the_server_writes_them()
    for _, case in ipairs(expressions) do
        local call = rowsecurity.settings_read(case[1])[1]
        lu.assertEquals({ call.json, call.guarded, call.missing_ok }, { case[2], case[3], case[4] }, case[1])
        lu.assertEquals(rowsecurity.mended(case[1]), case[5])
        lu.assertEquals(rowsecurity.mended(case[5]), case[5], "mending is done once")
    end
end

TestReadOnly = {}

-- Transactions of the server's log in which the doctor asked something: which of them could only read.
local function transactions(log)
    local asked, read_only = {}, {}
    for user, application, transaction, said in log:gmatch "\n(app_%w+)|([^|\n]*)|([%d/]+)|([^\n]*)" do
        if application == "weir doctor" and said:find "execute" then asked[transaction] = user .. ": " ..
            said end
        if said:find "BEGIN READ ONLY" or said:find "set_config%('transaction_read_only', 'on', true%)" then
            read_only[transaction] = true
        end
    end
    return asked, read_only
end

function TestReadOnly:test_everything_is_asked_in_a_transaction_that_can_only_read()
    clinic.renew(pg)
    assert(pg:sql "alter system set log_statement = 'all'; alter system set log_line_prefix = '%u|%a|%v|'; \
        select pg_reload_conf()")
    clinic.assert_sound(pg)
    assert(pg:sql "alter system reset all; select pg_reload_conf()")
    local asked, read_only = transactions(pg:log())
    local count = 0
    for transaction, said in pairs(asked) do
        count = count + 1
        lu.assertTrue(read_only[transaction], said)
    end
    lu.assertTrue(count > 30, count)
end

function TestReadOnly:test_nothing_is_left_behind()
    clinic.renew(pg)
    local sessions = "select count(*) from pg_stat_activity where usename like 'app%' or " ..
        "application_name like 'weir%'"
    examination.of(clinic.policy(pg))
    while pg:sql(sessions) ~= "0" do end
    lu.assertEquals(pg:sql "select count(*) from pg_prepared_xacts", "0")
end

pg = clinic.open()
local code = lu.LuaUnit.run()
pg:close()
os.exit(code)
