--- Whether the connections that the pools may hold are there to be had.

local phrases = require "weir.doctor.phrases"
local pooling = require "weir.doctor.pooling"

local capacity = {}

-- ---- how many are wanted ----------------------------------------------------------------------------------

-- With an area the limits count for all who share it.
local function programs(facts)
    return facts.options.area and 1 or facts.workers
end

--- What all pools of one backend may hold together.
function capacity.wanted(facts)
    local sum = 0
    for _, client in pairs(facts.options.clients) do sum = sum + (client.max or 10) end
    return sum * programs(facts)
end

local function is_same_server(one, other)
    local a, b = one.rows.server and one.rows.server[1], other.rows.server and other.rows.server[1]
    local x, y = one.rows.system and one.rows.system[1], other.rows.system and other.rows.system[1]
    return one == other or a and b and x and y and a.started == b.started and x.id == y.id
end

local function backends_there(facts, others)
    local count = 0
    for _, other in ipairs(others) do
        if is_same_server(facts, other) then count = count + 1 end
    end
    return math.max(count, 1)
end

local function setting(facts, name)
    for _, row in ipairs(facts.rows.settings or {}) do
        if row.name == name then return tonumber(row.setting) end
    end
end

--- What ordinary logins may have of the server; nil if unknown.
function capacity.usable(facts)
    local all = setting(facts, "max_connections")
    if not all then return nil end
    return all - (setting(facts, "superuser_reserved_connections") or 0) -
        (setting(facts, "reserved_connections") or 0), all
end

-- What others hold now. Sessions of our own logins may be those of this very policy at work.
local function used_by_others(facts)
    local row = facts.rows.usage and facts.rows.usage[1]
    if not row then return nil end
    local used = row.used
    for _, sibling in ipairs(facts.siblings or { facts }) do
        local its = sibling.rows.usage and sibling.rows.usage[1]
        used = used - (its and its.own or 0)
    end
    return math.max(used - row.doctors, 0)
end

-- ---- the server -------------------------------------------------------------------------------------------

local function sum_words(facts, backends)
    local parts, names = {}, {}
    for name in pairs(facts.options.clients) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do parts[i] = ("%s %d"):format(name, facts.options.clients[name].max or
        10) end
    local words = table.concat(parts, " + ")
    if programs(facts) > 1 then words = ("(%s) x %d workers"):format(words, programs(facts)) end
    if backends > 1 then words = ("%s, on %d backends that are one server"):format(words, backends) end
    return words
end

function capacity.server(facts, add, others)
    local usable, all = capacity.usable(facts)
    if not usable or not facts.rows.usage then return end
    local backends = backends_there(facts, others)
    local wanted = capacity.wanted(facts) * backends
    local words = sum_words(facts, backends)
    if pooling.kind(facts) == "transaction" then
        return add("ok", "capacity.pooler", {
            found = ("up to %d connections to the pooler (%s): its max_client_conn must allow " ..
                "them"):format(wanted, words),
        })
    end
    local taken = used_by_others(facts)
    local room = ("%d of max_connections %d are for ordinary logins, %d used by others now"):format(usable,
        all, taken)
    local remedy = ("alter system set max_connections = %d; -- then restart; or smaller clients.*.max"):format(
        wanted + taken + all - usable)
    if wanted > usable then
        return add("fail", "capacity.max_connections", {
            found = ("the pools may hold %d connections (%s); %s"):format(wanted, words, room),
            why = "under load connects are refused (53300), and the breakers open",
            remedy = remedy, subject = "max_connections",
        })
    elseif wanted > usable - taken then
        return add("warn", "capacity.tight", {
            found = ("the pools may hold %d connections (%s); %s"):format(wanted, words, room),
            why = "as long as the others stay, the pools cannot grow to their max",
            remedy = remedy, subject = "max_connections",
        })
    end
    add("ok", "capacity.server", { found = ("the pools may hold %d connections (%s); %s"):format(wanted,
        words, room) })
end

function capacity.database(facts, add)
    local row = facts.rows.usage and facts.rows.usage[1]
    local server = facts.rows.server and facts.rows.server[1]
    if not row or not server or row.database_limit < 0 then return end
    local wanted = capacity.wanted(facts)
    if row.database_limit >= wanted then
        return add("ok", "capacity.database", {
            found = ("the database allows %d connections, the pools may hold %d"):format(row.database_limit,
                wanted),
        })
    end
    add("fail", "capacity.database_limit", {
        found = ("the database allows %d connections, and the pools may hold %d"):format(row.database_limit,
            wanted),
        why = "under load connects are refused (53300), and the breakers open",
        remedy = ("alter database %s connection limit %d;"):format(server.database_ident, wanted),
        subject = server.database_ident,
    })
end

-- ---- the login --------------------------------------------------------------------------------------------

--- Of one client.
function capacity.login(facts, add)
    local row = facts.rows.login and facts.rows.login[1]
    if not row or row.connections < 0 or row.super then return end
    local wanted = 0
    for _, client in pairs(facts.options.clients) do -- several may share a login
        if (client.user or facts.backend.conninfo.user) == (facts.client.user or
            facts.backend.conninfo.user) then
            wanted = wanted + (client.max or 10) * programs(facts)
        end
    end
    if row.connections >= wanted then
        return add("ok", "capacity.login", {
            found = ("%s may have %d connections, its pool may hold %d"):format(row.ident, row.connections,
                wanted),
        })
    end
    add("fail", "capacity.role_limit", {
        found = ("%s may have %d connections, and its pool may hold %d"):format(row.ident, row.connections,
            wanted),
        why = "under load connects are refused (53300), and the breaker opens",
        remedy = ("alter role %s connection limit %d;"):format(row.ident, wanted), subject = row.ident,
    })
end

-- ---- the server's own way to notice us gone ---------------------------------------------------------------

function capacity.ghosts(facts, add)
    local conninfo = require "weir.doctor.conninfo"
    local idle = setting(facts, "tcp_keepalives_idle")
    local row = facts.rows.server and facts.rows.server[1]
    if not idle or not row or row.socket or conninfo.is_local(facts.backend.conninfo) then return end
    if idle > 0 and idle <= 900 then
        return add("ok", "network.server_keepalives", {
            found = ("the server notices a client that is gone after %s"):format(phrases.seconds(idle)),
        })
    end
    add("warn", "network.server_keepalives_late", {
        found = ("the server looks after a silent client only after %s"):format(idle > 0 and
            phrases.seconds(idle) or
            "what its system says, usually two hours"),
        why = "connections and locks of a machine that has vanished are held that long",
        remedy = "alter system set tcp_keepalives_idle = 60; select pg_reload_conf();",
        subject = "tcp_keepalives_idle",
    })
end

capacity.checks = { capacity.server, capacity.database, capacity.ghosts }
capacity.checks_of_client = { capacity.login }

return capacity
