--- What the Lua tests share: one throw-away server per file, its schema, and an engine per test.

local weir = require "weir"
local testing = require "weir.testing"

local fixture = {}

local server

local schema = [[
    create role web_anon nologin;
    create role app_anon login noinherit in role web_anon;
    create role app_service login bypassrls;
    create table contacts (id serial primary key, owner text not null, name text);
    alter table contacts enable row level security;
    create policy own on contacts
        using (owner = nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub');
    create table log (line text);
    grant all on contacts, contacts_id_seq, log to web_anon, app_service;
    insert into contacts (owner, name) values ('ann', 'Bob'), ('ann', 'Cid'), ('joe', 'Dee');
]]

--- The file's server, started at the first call; it ends with the process.
function fixture.server()
    if not server then
        server = assert(testing.postgres())
        assert(server:sql(schema))
        assert(server:sql("checkpoint")) -- the server does not sync: a crash would take the schema with it
    end
    return server
end

--- Options that connect to the server, with `more` on top.
function fixture.options(more)
    local options = {
        name = "test",
        backends = { primary = fixture.server():url() },
        clients = {
            anon = { user = "app_anon", role = "web_anon", max = 4, queue_max = 1000 },
            service = { user = "app_service", bypass_rls = true, max = 2, queue_max = 1000 },
        },
        seed = 1,
        backoff = { base = 0.001, cap = 0.01 },
        health = { interval = 0 }, -- a probe under way would look like a leak
    }
    for key, value in pairs(more or {}) do options[key] = value end
    return options
end

--- An engine on the server.
function fixture.open(more)
    return assert(weir.open(fixture.options(more)))
end

local function held_now(db)
    local held, left = db:held(), {}
    for _, name in ipairs { "calls", "in_flight", "leased", "canceling", "timers", "waiting" } do
        if held[name] ~= 0 then left[#left + 1] = name .. " = " .. held[name] end
    end
    return table.concat(left, ", ")
end

--- What is still held that should not be: calls, leases, timers, waiters. A session that is being reset or a
-- cancel that is being confirmed is given a moment.
function fixture.leftovers(db)
    local patience = weir.now() + 2
    while held_now(db) ~= "" and weir.now() < patience do weir.sleep(0.002) end
    return held_now(db)
end

--- The message fn raises, with the position of the line that called it, or nil if it raises nothing.
function fixture.raised(fn, ...)
    local ok, err = pcall(fn, ...)
    if ok then return nil end
    return err
end

return fixture
