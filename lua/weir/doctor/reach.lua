--- Whether a client reaches a backend, how fast, and who could listen in between.

local conninfo = require "weir.doctor.conninfo"
local phrases = require "weir.doctor.phrases"
local pooling = require "weir.doctor.pooling"

local reach = {}

-- ---- why not ----------------------------------------------------------------------------------------------

local function user_of(facts)
    return phrases.ident(facts.client.user or facts.backend.conninfo.user or "?")
end

local function database_of(facts)
    local named = facts.backend.conninfo
    return phrases.ident(named.dbname or facts.client.user or named.user or "?")
end

local function no_login(facts, message)
    local user = user_of(facts)
    if message:find "does not exist" then
        return ("create role %s login password '...';"):format(user)
    elseif message:find "not permitted to log in" then
        return ("alter role %s login;"):format(user)
    end
    return "a line for it in pg_hba.conf, then: select pg_reload_conf();", "system"
end

local function no_connection_left(facts, message)
    local sum = 2 * facts.client.max * facts.workers
    if message:find "for role" then
        return ("alter role %s connection limit %d;"):format(user_of(facts), sum)
    elseif message:find "for database" then
        return ("alter database %s connection limit %d;"):format(database_of(facts), sum)
    end
    return ("alter system set max_connections = %d; -- then restart the server; or close connections of " ..
        "others"):format(math.max(100, sum))
end

-- Of the server's own words: SQLSTATE -> id, why, remedy.
local by_state = {
    ["28P01"] = { "password", "the server does not take this password", function(facts)
        return ("alter role %s password '...';"):format(user_of(facts))
    end },
    ["28000"] = { "login", "the server lets this login in neither from here nor so", no_login },
    ["3D000"] = { "database", "there is no such database", function(facts)
        return ("create database %s;"):format(database_of(facts))
    end },
    ["53300"] = { "connections", "the server has no connection left for this login", no_connection_left },
    ["57P03"] = { "starting", "the server is starting up or shutting down; it will be there later" },
    ["42501"] = { "login", "the login may not connect to this database", function(facts)
        return ("grant connect on database %s to %s;"):format(database_of(facts), user_of(facts))
    end },
}

-- Of libpq's words, for whom nobody has answered.
local by_words = {
    { "could not translate host name", "dns", "the name leads to no address",
        "host=<the right name>, or mend the resolver of this machine", "conninfo" },
    { "no password supplied", "password", "the server wants a password and there is none",
        "password = os.getenv \"...\", of the client", "policy" },
    { "certificate", "certificate", "the server's certificate is not what the connection string asks for",
        "sslrootcert=<the authority that signed it>, and the name that stands in it as host", "conninfo" },
    { "SSL", "tls", "TLS could not be agreed on", "alter system set ssl = on; -- with ssl_cert_file and " ..
        "ssl_key_file" },
    { "Connection refused", "refused", "nobody listens there",
        "start the server there, or say the right host and port", "system" },
    { "No such file or directory", "refused", "there is no such socket: the server is down, or elsewhere",
        "start the server there, or say the right host and port", "system" },
    { "No route to host", "route", "the network knows no way there", "mend the route or the firewall",
        "system" },
    { "Network is unreachable", "route", "the network knows no way there", "mend the route or the firewall",
        "system" },
    { "no connection within", "timeout", "nobody answered: a firewall that swallows packets, or a server " ..
        "that hangs",
        "look whether host and port are right and let through, and whether the server still answers",
            "system" },
}

local function of_words(message)
    for _, entry in ipairs(by_words) do
        if message:find(entry[1], 1, true) then return entry end
    end
end

local function reason(facts)
    local failure = facts.failure
    local state = by_state[failure.sqlstate or ""]
    if state then
        local remedy, kind
        if state[3] then remedy, kind = state[3](facts, failure.message or "") end
        return "reach." .. state[1], { why = state[2], remedy = remedy, kind = kind }
    end
    if failure.code == "timeout" then return "reach.timeout", { why = by_words[#by_words][3],
        remedy = by_words[#by_words][4], kind = "system" } end
    local entry = of_words(failure.message or "")
    if entry then return "reach." .. entry[2], { why = entry[3], remedy = entry[4], kind = entry[5] } end
    return "reach.failed", { why = "without a connection nothing else can be looked at" }
end

function reach.connection(facts, add)
    if not facts.failure then
        return add("ok", "reach.connected", {
            found = ("connected in %s to %s; a round trip takes " ..
                "%s"):format(phrases.seconds(facts.connect_seconds),
                conninfo.place(facts.backend.conninfo), phrases.seconds(facts.round_trip_seconds)),
        })
    end
    local id, words = reason(facts)
    if not words.remedy then words.remedy, words.kind = "look into the server's log, and try again",
        "system" end
    words.found = ("no connection to %s: %s"):format(conninfo.place(facts.backend.conninfo),
        phrases.discreet(facts.failure.message or tostring(facts.failure)))
    add("fail", id, words)
end

-- ---- round trips, hanging ---------------------------------------------------------------------------------

function reach.distance(facts, add)
    if not facts.round_trip_seconds or facts.round_trip_seconds < 0.02 then return end
    add("warn", "reach.far", {
        found = ("a round trip takes %s"):format(phrases.seconds(facts.round_trip_seconds)),
        why = "each statement of a transaction waits that long, and holds its connection and its locks " ..
            "meanwhile",
        remedy = "run the program nearer to the server; use pipeline() for several statements",
            kind = "system",
    })
end

function reach.answers(facts, add)
    if not facts.hangs then return end
    add("fail", "reach.hangs", {
        found = ("the server took the connection and then did not answer within %s; nothing more was " ..
            "asked"):format(
            phrases.seconds(facts.timeout)),
        why = "what a program asks would hang as well, until its deadline",
        remedy = "look for locks on the catalogs (pg_locks), a stopped disk, or a full machine",
            kind = "system",
    })
end

--- Against what the policy itself allows a connect.
function reach.speed(facts, add)
    local took, allowed = facts.connect_seconds, facts.options.connect_timeout or 3
    if not took or took < allowed / 2 then return end
    add(took >= allowed and "fail" or "warn", "reach.slow", {
        found = ("a connect takes %s, and connect_timeout is %s"):format(phrases.seconds(took),
            phrases.seconds(allowed)),
        why = "connects that take longer count as failures, and the breaker opens on a server that is well",
        remedy = ("connect_timeout = %.2g"):format(4 * took), kind = "policy", subject = "connect_timeout",
    })
end

-- ---- TLS --------------------------------------------------------------------------------------------------

local function tls_words(tls)
    return ("%s, %s"):format(tls.version or "TLS", tls.cipher or "?")
end

local VERIFY = "sslmode=verify-full sslrootcert=<the authority's certificate>"

local function unverified(mode)
    if mode == "verify-ca" then
        return "certificate verified, host name not", "any host with a certificate of that authority can " ..
            "pose as it"
    end
    return "certificate not verified", "whoever stands in between can pose as the server and read everything"
end

-- Over a network. What the server says of its connection is the pooler's where there is one; of ours then
-- only the string is known, and only from `require` on it insists.
local function judge_tls(facts, add, tls, mode)
    local insists = mode == "require" or mode == "verify-ca" or mode == "verify-full"
    local hidden = facts.pooler and pooling.kind(facts) ~= "none"
    local words = hidden and "TLS to the pooler" or tls_words(tls)
    if hidden and not insists or not hidden and not tls.ssl then
        return add("fail", "tls.none", {
            found = hidden and ("TLS to the pooler is not insisted on (sslmode %s)"):format(mode) or
                ("no TLS (sslmode %s)"):format(mode),
            why = "rows, parameters and claims may travel readable for everybody on the way",
            remedy = VERIFY .. "\n# and on the server: alter system set ssl = on;", kind = "conninfo",
        })
    elseif mode == "verify-full" then
        return add("ok", "tls.verified", { found = words .. ", certificate and host name verified" })
    end
    local how, why = unverified(mode)
    add("warn", "tls.unverified", {
        found = ("%s, %s (sslmode %s)"):format(words, how, mode), why = why, remedy = VERIFY,
            kind = "conninfo",
    })
end

function reach.tls(facts, add)
    local parameters = facts.backend.conninfo
    local tls = facts.rows.tls and facts.rows.tls[1]
    if conninfo.is_socket(parameters) and not facts.failure then
        return add("ok", "tls.socket", { found = "a Unix socket: no TLS, and none needed" })
    end
    if not tls then return end
    local mode = parameters.sslmode
    if not conninfo.is_local(parameters) then return judge_tls(facts, add, tls, mode) end
    add("ok", "tls.local", {
        found = ("%s, on this machine's own addresses (sslmode %s)"):format(tls.ssl and tls_words(tls) or
            "no TLS", mode),
    })
end

-- ---- what keeps a client's own side alive -----------------------------------------------------------------

function reach.silent_death(facts, add)
    local parameters = facts.backend.conninfo
    if conninfo.is_socket(parameters) or facts.failure then return end
    if parameters.keepalives == "0" then
        add("warn", "network.keepalives_off", {
            found = "keepalives=0: nothing is sent while a connection is idle",
            why = "a connection that a firewall has forgotten, or whose server is gone, is noticed only " ..
                "when a call uses it",
            remedy = "leave keepalives out: Weir asks after 30 s of silence", kind = "conninfo",
                subject = "keepalives",
        })
    end
    local limit = tonumber(parameters.tcp_user_timeout) or 0
    if limit <= 0 or limit > 60000 then
        return add("warn", "network.user_timeout", {
            found = limit <= 0 and "tcp_user_timeout=0: lost packets are repeated for about 15 minutes" or
                ("tcp_user_timeout is %s"):format(phrases.seconds(limit / 1000)),
            why = "a cancel, and a session that has to be cleaned, waits that long for a peer that is gone",
            remedy = "tcp_user_timeout=10000", kind = "conninfo", subject = "tcp_user_timeout",
        })
    end
    if parameters.keepalives ~= "0" then
        add("ok", "network.detects_death", {
            found = ("a dead peer is noticed: keepalives after %s s, tcp_user_timeout %s"):format(
                parameters.keepalives_idle, phrases.seconds(limit / 1000)),
        })
    end
end

reach.checks = { reach.connection, reach.answers, reach.distance, reach.speed, reach.tls, reach.silent_death }

return reach
