--- The SQL with which a real PostgreSQL plays the server of a scenario: logins, the ledger of the writes, and
-- the clutch through which statements go whose time or failure the scenario prescribes.
--
-- A statement of the load is preceded, in its own transaction, by `select * from weir_scenario.tick_N`. A
-- view, because the engine judges statements by their text: one that named our function would look like work
-- of unknown effect. The function behind it fails at the rate that is set, and holds one of `workers` locks
-- while it sleeps for the time that is set: so many statements work at a time, and the others wait.

local stagesql = {}

-- ---- texts ------------------------------------------------------------------------------------------------

function stagesql.name(text)
    return '"' .. text:gsub('"', '""') .. '"'
end

function stagesql.text(value)
    if value == nil then return "null" end
    return "'" .. tostring(value):gsub("'", "''") .. "'"
end

local function number(value)
    return ("%.9g"):format(value)
end

-- ---- durations --------------------------------------------------------------------------------------------

local normal = "sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())"

local draws = {
    constant = function(d) return number(d.a) end,
    uniform = function(d) return ("%s + random() * %s"):format(number(d.a), number(d.b - d.a)) end,
    exponential = function(d) return ("-ln(1 - random()) * %s"):format(number(d.a)) end,
    normal = function(d) return ("abs(%s + %s * %s)"):format(number(d.a), number(d.b), normal) end,
    lognormal = function(d) return ("%s * exp(%s * %s)"):format(number(d.a), number(d.b), normal) end,
    pareto = function(d)
        local cut = d.c and d.c > 0 and d.c or d.a * 1000
        return ("least(%s, %s / power(1 - random(), %s))"):format(number(cut), number(d.a), number(1 / d.b))
    end,
}

function draws.histogram(d)
    local sum, cases, reached = 0, {}, 0
    for _, weight in ipairs(d.weights) do sum = sum + weight end
    for i, weight in ipairs(d.weights) do
        reached = reached + weight
        local when = i < #d.weights and ("when u < %s then"):format(number(reached / sum)) or "else"
        cases[i] = ("%s %s + random() * %s"):format(when, number(d.edges[i]),
            number(d.edges[i + 1] - d.edges[i]))
    end
    if #cases == 1 then return (cases[1]:gsub("^else ", "")) end
    return ("(select case %s end from (select random() as u) q)"):format(table.concat(cases, " "))
end

--- An expression that draws a duration in seconds.
function stagesql.draw(duration)
    if type(duration) == "number" then return number(duration) end
    return draws[duration.kind](duration)
end

-- ---- logins -----------------------------------------------------------------------------------------------

local function role(name, what)
    return ("do $$ begin create role %s %s; exception when duplicate_object then alter role %s %s; end $$;")
        :format(stagesql.name(name), what, stagesql.name(name), what)
end

--- The logins of a policy's clients, and the roles they take on.
function stagesql.logins(clients, names)
    local parts = {}
    local function add(...) parts[#parts + 1] = (...) end
    for _, name in ipairs(names) do
        local client = clients[name]
        local right = client.bypass_rls and "bypassrls" or "nobypassrls"
        local login = ("login noinherit %s password %s"):format(right, stagesql.text(client.password))
        if client.user ~= "postgres" then add(role(client.user, login)) end
        if client.role then
            add(role(client.role, "nologin"))
            add(("grant %s to %s;"):format(stagesql.name(client.role), stagesql.name(client.user)))
        end
    end
    return table.concat(parts, "\n")
end

--- What the scenario's own `setup` has made, everybody may use; row-level security goes on to say who sees
-- what.
stagesql.grants = [[
grant usage on schema public to public;
grant select, insert, update, delete on all tables in schema public to public;
grant usage on all sequences in schema public to public;
]]

-- ---- the clutch -------------------------------------------------------------------------------------------

local LOCKS = 1462 -- the first half of the advisory locks that stand for workers

local stage = [[
create schema weir_scenario;
grant usage on schema weir_scenario to public;
create table weir_scenario.ledger (id bigint not null, call int not null);
grant insert on weir_scenario.ledger to public;
create table weir_scenario.clutch (
    paced bool not null default false, workers int not null default 8, factor float8 not null default 1,
    rate float8 not null default 0, sqlstate text, calls int[]);
insert into weir_scenario.clutch default values;

create function weir_scenario.draw() returns float8 language sql volatile as 'select 0.0::float8';

-- Whole milliseconds are all that pg_sleep knows; which one is left to chance, so the mean is right. The
-- error at the end of the inner block gives the lock back without ending the transaction.
create function weir_scenario.tick(call int) returns int language plpgsql volatile security definer
    set search_path = weir_scenario, pg_catalog, pg_temp as $$
declare
    clutch record;
    first int;
    held bool := false;
    ms int;
begin
    select * into clutch from weir_scenario.clutch;
    if clutch.rate > 0 and (clutch.calls is null or call = any(clutch.calls)) and random() < clutch.rate then
        raise exception using errcode = clutch.sqlstate, message = 'an error of the scenario';
    end if;
    if not clutch.paced then return 0; end if;
    begin
        first := floor(random() * clutch.workers);
        for i in 0 .. clutch.workers - 1 loop
            held := pg_try_advisory_xact_lock(LOCKS, (first + i) % clutch.workers);
            exit when held;
        end loop;
        if not held then perform pg_advisory_xact_lock(LOCKS, first); end if;
        ms := floor(weir_scenario.draw() * clutch.factor * 1000 + random());
        if ms > 0 then perform pg_sleep(ms / 1000.0); end if;
        raise sqlstate 'WS000';
    exception when sqlstate 'WS000' then
        return 1;
    end;
end $$;
]]

--- The schema weir_scenario, with a view for each of `count` calls.
function stagesql.stage(count)
    local parts = { (stage:gsub("LOCKS", tostring(LOCKS))) }
    for i = 1, count do
        parts[#parts + 1] = ("create view weir_scenario.tick_%d as select weir_scenario.tick(%d);")
            :format(i, i)
    end
    parts[#parts + 1] = "grant select on all tables in schema weir_scenario to public;"
    parts[#parts + 1] = "revoke select on weir_scenario.ledger, weir_scenario.clutch from public;"
    return table.concat(parts, "\n")
end

--- How long statements take, and how many work at a time: a list of statements.
function stagesql.pace(workers, service)
    return {
        "create or replace function weir_scenario.draw() returns float8 language sql volatile as "
            .. stagesql.text(("select (%s)::float8"):format(stagesql.draw(service))),
        ("update weir_scenario.clutch set paced = true, workers = %d"):format(workers),
    }
end

function stagesql.slow(factor)
    return ("update weir_scenario.clutch set factor = %s"):format(number(factor))
end

--- Statements of the calls with these numbers (nil: of all) fail at a rate.
function stagesql.errors(rate, sqlstate, calls)
    local list = calls and stagesql.text("{" .. table.concat(calls, ",") .. "}") or "null"
    return ("update weir_scenario.clutch set rate = %s, sqlstate = %s, calls = %s"):format(number(rate),
        stagesql.text(sqlstate), list)
end

stagesql.ledger = "insert into weir_scenario.ledger values ($1, %d)"
stagesql.tick = "select * from weir_scenario.tick_%d"

-- Statements of the load that have a worker's lock, and those that wait for one.
stagesql.queue = ("select count(*) filter (where granted) as running, count(*) filter (where not granted) as "
    .. "waiting from pg_locks where locktype = 'advisory' and classid = %d"):format(LOCKS)

-- Sessions of the load that are still there.
stagesql.sessions = "select count(*) as n from pg_stat_activity where usename <> 'postgres' "
    .. "and backend_type = 'client backend'"
stagesql.terminate = "select pg_terminate_backend(pid) from pg_stat_activity where usename <> 'postgres' "
    .. "and backend_type = 'client backend'"
stagesql.effects = "select id, call, count(*) as n from weir_scenario.ledger group by id, call"

return stagesql
