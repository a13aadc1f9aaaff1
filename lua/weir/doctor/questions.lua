--- What a server is asked. Every name is qualified and every statement runs with search_path pinned, so that
-- what regclass and pg_get_expr give can be pasted anywhere.
--
-- Each: name, sql, and, where it needs them, `values(subject)`, the parameters; `when(subject)`, whether it
-- is asked at all. A subject is one client on one backend (interview.lua).

local questions = {}

local function acting_role(subject)
    return { subject.client.role or subject.login }
end

local function has_acting_role(subject)
    local role = subject.rows.role
    return not subject.client.role or role ~= nil and role[1].there
end

local function is_anon(subject)
    return subject.client.role ~= nil and has_acting_role(subject)
end

-- Schemas that are nobody's own.
local OWN = "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"

local ANY_TABLE = "'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'"
local ANY_COLUMN = "'SELECT, INSERT, UPDATE, REFERENCES'"

-- Relations of these kinds that $1 may do anything with.
local function visible(kinds)
    return ([[
        c.relkind in (%s) and %s and has_schema_privilege($1::name, n.oid, 'USAGE')
        and (has_table_privilege($1::name, c.oid, %s) or has_any_column_privilege($1::name, c.oid,
        %s))]]):format(
        kinds, OWN, ANY_TABLE, ANY_COLUMN)
end

-- To whom something was granted of which $1 has the benefit, ready for REVOKE.
local GRANTEES = [[
    (select string_agg(distinct case a.grantee when 0 then 'public' else
        quote_ident(pg_get_userbyid(a.grantee)) end,
        ', ')
     from (select (aclexplode(c.relacl)).grantee
           union all select (aclexplode(t.attacl)).grantee from pg_catalog.pg_attribute t where t.attrelid =
           c.oid) a
     where a.grantee = 0 or pg_has_role($1::name, a.grantee, 'USAGE')) as grantees]]

-- ---- the server -------------------------------------------------------------------------------------------

local server = [[
    select current_setting('server_version_num')::int as version_num, current_setting('server_version') as
        version,
        pg_is_in_recovery() as standby, session_user::text as login, quote_ident(session_user) as login_ident,
        quote_ident(current_database()) as database_ident, pg_backend_pid() as pid,
        inet_server_addr() is null as socket,
        extract(epoch from pg_postmaster_start_time())::float8 as started]]

local clock = "select extract(epoch from clock_timestamp())::float8 as now"

local tls = "select ssl, version, cipher, bits from pg_catalog.pg_stat_ssl where pid = pg_backend_pid()"

local system = "select system_identifier::text as id from pg_control_system()"

-- Bytes since the beginning of the WAL. What has been replayed counts as lag only if there is more.
local wal = [[
    select case when pg_is_in_recovery() then pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')
        else pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') end::float8 as at,
        case when pg_is_in_recovery() then pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0') end::float8 as
        received,
        extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8 as age,
        case when pg_is_in_recovery() then pg_is_wal_replay_paused() end as paused,
        exists (select from pg_catalog.pg_stat_wal_receiver where pid is not null) as streaming]]

local settings = [[
    select name, reset_val as setting, unit from pg_catalog.pg_settings where name in ('max_connections',
        'superuser_reserved_connections', 'reserved_connections', 'statement_timeout', 'lock_timeout',
        'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout',
        'tcp_keepalives_idle')]]

-- The doctor's own sessions are told by their application_name, which everybody may see.
local usage = [[
    with mine as (select usename, application_name in ('weir-doctor@it', 'weir doctor') as doctors
        from pg_catalog.pg_stat_activity)
    select (select sum(numbackends) from pg_catalog.pg_stat_database)::int as used,
        (select count(*) from mine where usename = session_user and not doctors)::int as own,
        (select count(*) from mine where doctors)::int as doctors,
        (select datconnlimit from pg_catalog.pg_database where datname = current_database()) as
        database_limit]]

-- ---- roles ------------------------------------------------------------------------------------------------

local login = [[
    select rolname::text as name, quote_ident(rolname) as ident, rolsuper as super, rolbypassrls as bypass,
        rolcreaterole as createrole, rolreplication as replication, rolconnlimit as connections
    from pg_catalog.pg_roles where rolname = session_user]]

-- Since 16 being a member does not mean that one may SET ROLE.
local role = [[
    select quote_ident($1) as ident, exists (select from pg_catalog.pg_roles where rolname = $1) as there,
        (select pg_has_role(session_user, r.oid, case when current_setting('server_version_num')::int >= 160000
            then 'SET' else 'MEMBER' end) from pg_catalog.pg_roles r where r.rolname = $1) as member]]

-- Edges from the login outwards. Before 16 every membership lets SET ROLE; since then it says so itself.
local members = [[
    with recursive edge(member, roleid, usable) as (
        select m.member, m.roleid, coalesce((to_jsonb(m) ->> 'set_option')::bool
            or (to_jsonb(m) ->> 'inherit_option')::bool, true)
        from pg_catalog.pg_auth_members m where m.member = (select oid from pg_catalog.pg_roles where rolname
        = session_user)
        union
        select m.member, m.roleid, coalesce((to_jsonb(m) ->> 'set_option')::bool
            or (to_jsonb(m) ->> 'inherit_option')::bool, true)
        from pg_catalog.pg_auth_members m join edge on edge.roleid = m.member)
    select b.rolname::text as member, quote_ident(b.rolname) as member_ident, r.rolname::text as name,
        quote_ident(r.rolname) as ident, e.usable, r.rolsuper as super, r.rolbypassrls as bypass,
        r.rolreplication as replication, r.rolcreaterole as createrole
    from edge e join pg_catalog.pg_roles b on b.oid = e.member join pg_catalog.pg_roles r on r.oid = e.roleid
    order by 3, 1]]

-- What is set for the role alone: SET ROLE does not load it, Weir does.
local role_settings = [[
    select split_part(c, '=', 1) as name, substr(c, strpos(c, '=') + 1) as value
    from pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c
    where s.setrole = (select oid from pg_catalog.pg_roles where rolname = $1) and s.setdatabase in
        (0, (select oid from pg_catalog.pg_database where datname = current_database()))
    order by s.setdatabase]]

-- ---- row-level security -----------------------------------------------------------------------------------

local owned = [[
    select c.oid::regclass::text as name, quote_ident(r.rolname) as owner
    from pg_catalog.pg_class c join pg_catalog.pg_roles r on r.oid = c.relowner
    where c.relrowsecurity and not c.relforcerowsecurity and pg_has_role(session_user, c.relowner, 'MEMBER')
    order by 1 limit 100]]

local tables = [[
    select c.oid::regclass::text as name, c.relkind::text as kind, c.relrowsecurity as rls,
        (select count(*) from pg_catalog.pg_policy p where p.polrelid = c.oid and p.polpermissive and exists
        (select
            from unnest(p.polroles) r where r = 0 or pg_has_role($1::name, r, 'USAGE')))::int as policies,
        has_table_privilege($1::name, c.oid, 'TRUNCATE') as truncates,
        pg_has_role($1::name, c.relowner, 'USAGE') as owned, ]] .. GRANTEES .. [[
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where ]] .. visible "'r', 'p', 'f', 'm'" .. [[
    order by 1 limit 500]]

-- A view reads with its owner's rights, and so does what that view reads, unless it says security_invoker:
-- then the rights of whoever reads it go on. Below one that users read with their own rights there is nothing
-- to look for: what they may not read themselves stays shut, and what they may is looked at by itself.
local views = [[
    with recursive view as (
        select c.oid, c.relowner, c.relkind, exists (select from unnest(c.reloptions) o
            where o ~ '^security_invoker=(true|on|yes|1)$') as invoker
        from pg_catalog.pg_class c where c.relkind in ('v', 'm')),
    below(root, reader, rel) as (
        select v.oid, v.relowner, d.refobjid
        from view v join pg_catalog.pg_class c on c.oid = v.oid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            join pg_catalog.pg_rewrite w on w.ev_class = v.oid
            join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
                and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> v.oid
        where not v.invoker and ]] .. visible "'v', 'm'" .. [[
        union
        select b.root, case when v.invoker then b.reader else v.relowner end, d.refobjid
        from below b join view v on v.oid = b.rel join pg_catalog.pg_rewrite w on w.ev_class = v.oid
            join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
                and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> v.oid)
    select c.oid::regclass::text as name, c.relkind::text as kind, quote_ident(o.rolname) as owner,
        o.rolsuper and not exists (select from pg_catalog.pg_depend e where e.objid = c.oid and e.deptype =
        'e'
            and e.classid = 'pg_catalog.pg_class'::regclass) as super, x.tables, ]] .. GRANTEES .. [[
    from pg_catalog.pg_class c join pg_catalog.pg_roles o on o.oid = c.relowner
        join lateral (select string_agg(distinct t.oid::regclass::text, ', ')
            filter (where t.relrowsecurity and (c.relkind = 'm' or r.rolsuper or r.rolbypassrls
                or t.relowner = r.oid and not t.relforcerowsecurity)) as tables
            from below b join pg_catalog.pg_class t on t.oid = b.rel
                left join pg_catalog.pg_roles r on r.oid = b.reader where b.root = c.oid) x on true
    where exists (select from below b where b.root = c.oid)
    order by 1 limit 200]]

local functions = [[
    select p.oid::regprocedure::text as name, quote_ident(n.nspname) as schema, quote_ident(r.rolname) as
        owner,
        exists (select from unnest(p.proconfig) s where s ~ '^search_path=') as pinned
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        join pg_catalog.pg_roles r on r.oid = p.proowner
    where p.prosecdef and ]] .. OWN .. [[ and has_schema_privilege($1::name, n.oid, 'USAGE')
        and has_function_privilege($1::name, p.oid, 'EXECUTE')
    order by 1 limit 200]]

local creates = [[
    select quote_ident(n.nspname) as name,
        (select string_agg(distinct case a.grantee when 0 then 'public' else
        quote_ident(pg_get_userbyid(a.grantee)) end,
            ', ')
         from aclexplode(n.nspacl) a
         where a.privilege_type = 'CREATE' and (a.grantee = 0 or pg_has_role($1::name, a.grantee, 'USAGE')))
         as grantees
    from pg_catalog.pg_namespace n where ]] .. OWN .. [[ and has_schema_privilege($1::name, n.oid, 'CREATE')
    order by 1 limit 100]]

local policies = [[
    select quote_ident(p.polname) as name, p.polrelid::regclass::text as on_table,
        pg_get_expr(p.polqual, p.polrelid) as qual, pg_get_expr(p.polwithcheck, p.polrelid) as check
    from pg_catalog.pg_policy p
    where exists (select from unnest(p.polroles) r where r = 0 or pg_has_role($1::name, r, 'USAGE'))
    order by 2, 1 limit 500]]

-- What a login without BYPASSRLS is not shown.
local filtered = [[
    select c.oid::regclass::text as name
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relrowsecurity and ]] .. visible "'r', 'p'" .. [[
        and not (pg_has_role($1::name, c.relowner, 'USAGE') and not c.relforcerowsecurity)
    order by 1 limit 100]]

-- The first one has to come first: others need what it tells.
local list = {
    { name = "server", sql = server },
    { name = "clock", sql = clock },
    { name = "tls", sql = tls },
    { name = "system", sql = system },
    { name = "wal", sql = wal },
    { name = "settings", sql = settings },
    { name = "usage", sql = usage },
    { name = "login", sql = login },
    { name = "role", sql = role, values = acting_role, when = function(s) return s.client.role ~= nil end },
    { name = "role_settings", sql = role_settings, values = acting_role, when = is_anon },
    { name = "members", sql = members },
    { name = "owned", sql = owned, when = is_anon },
    { name = "tables", sql = tables, values = acting_role, when = is_anon },
    { name = "views", sql = views, values = acting_role, when = is_anon },
    { name = "functions", sql = functions, values = acting_role, when = is_anon },
    { name = "creates", sql = creates, values = acting_role, when = is_anon },
    { name = "policies", sql = policies, values = acting_role, when = is_anon },
    { name = "filtered", sql = filtered, values = acting_role,
        when = function(s) return not s.client.role end },
}

questions.list = list

return questions
