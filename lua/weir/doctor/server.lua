--- What the server is: version, primary or standby and how far behind, and what time it thinks it is. Judged
-- once for each backend; `others` are the facts of all backends, this one too.

local phrases = require "weir.doctor.phrases"

local server = {}

-- When the last minor version of each came, or will come.
local ends = {
    [9] = { 2021, 11, 11 }, [10] = { 2022, 11, 10 }, [11] = { 2023, 11, 9 }, [12] = { 2024, 11, 21 },
    [13] = { 2025, 11, 13 }, [14] = { 2026, 11, 12 }, [15] = { 2027, 11, 11 }, [16] = { 2028, 11, 9 },
    [17] = { 2029, 11, 8 }, [18] = { 2030, 11, 14 },
}

local SOON = 180 * 86400
local OLDEST = 13 -- pg_current_xact_id and friends, with which a lost COMMIT is asked for

local function first_row(facts, question)
    return facts.rows[question] and facts.rows[question][1]
end

-- ---- version ----------------------------------------------------------------------------------------------

local function upgrade(found, why, level, id, add)
    add(level, id, { found = found, why = why, remedy = "upgrade the server", kind = "system" })
end

--- `facts.today` is the time, in seconds since 1970.
function server.version(facts, add)
    local row = first_row(facts, "server")
    if not row then return end
    local major = math.floor(row.version_num / 10000)
    local name = "PostgreSQL " .. row.version:match "^%S+"
    local last = ends[major]
    local last_day = last and os.time { year = last[1], month = last[2], day = last[3], hour = 12 }
    if major < OLDEST then
        upgrade(name .. " is older than Weir supports", "what became of a lost COMMIT cannot be asked there",
            "fail", "server.version_unsupported", add)
    elseif last_day and last_day <= facts.today then
        upgrade(("%s gets no corrections since %04d-%02d-%02d"):format(name, last[1], last[2], last[3]),
            "holes that become known stay open", "warn", "server.version_ended", add)
    elseif last_day and last_day - facts.today < SOON then
        upgrade(("%s gets no corrections after %04d-%02d-%02d"):format(name, last[1], last[2], last[3]),
            "there is half a year left for the upgrade", "warn", "server.version_ends", add)
    else
        add("ok", "server.version", { found = name })
    end
end

-- ---- primary or standby -----------------------------------------------------------------------------------

local replica_words = { "replica", "standby", "secondary", "follower", "slave", "readonly", "read_only" }
local primary_words = { "primary", "master", "leader", "writer", "main" }

local function named_like(name, words)
    for _, word in ipairs(words) do
        if name:lower():find(word, 1, true) then return true end
    end
    return false
end

function server.part(facts, add)
    local row = first_row(facts, "server")
    if not row then return end
    local name = facts.backend.name
    local as_replica = named_like(name, replica_words)
    if row.standby and not as_replica and named_like(name, primary_words) then
        return add("fail", "server.standby_as_primary", {
            found = ("backend %s is a standby: it cannot write"):format(name),
            why = "every call that writes fails with 25006; after a failover the name may lead to the " ..
                "old server",
            remedy = ("backends.%s = <the primary's address>\n-- or, if this is to be the primary: " ..
                "select pg_promote();"):format(name), kind = "policy", subject = name,
        })
    elseif not row.standby and as_replica then
        return add("warn", "server.primary_as_replica", {
            found = ("backend %s is a primary"):format(name),
            why = "reads that were to be kept away from the primary land on it, or on a server that " ..
                "nobody copies to",
            remedy = ("backends.%s = <a standby's address>"):format(name), kind = "policy", subject = name,
        })
    end
    add("ok", "server.part", { found = row.standby and "a standby" or "a primary" })
end

-- ---- a standby's distance ---------------------------------------------------------------------------------

local function primary_of(facts, others)
    local system = first_row(facts, "system")
    for _, other in ipairs(others) do
        local row, its = first_row(other, "server"), first_row(other, "system")
        if row and not row.standby and system and its and its.id == system.id then return other end
    end
end

local function any_primary(others)
    for _, other in ipairs(others) do
        local row = first_row(other, "server")
        if row and not row.standby then return other end
    end
end

function server.same_data(facts, add, others)
    local row, system = first_row(facts, "server"), first_row(facts, "system")
    local primary = any_primary(others)
    local its = primary and first_row(primary, "system")
    if not row or not row.standby or not system or not its or primary_of(facts, others) then return end
    add("fail", "replica.other_data", {
        found = ("%s is a standby of another server than %s"):format(facts.backend.name,
            primary.backend.name),
        why = "it holds other data: a read here says nothing about what was written there",
        remedy = ("backends.%s = <a standby of %s>"):format(facts.backend.name, primary.backend.name),
        kind = "policy", subject = facts.backend.name,
    })
end

-- Bytes behind the primary, or if that cannot be asked behind what has arrived; and seconds, if there is more
-- to come: without writes the last transaction gets old and nothing is behind.
local function lag(facts, others)
    local wal, primary = first_row(facts, "wal"), primary_of(facts, others)
    local its = primary and first_row(primary, "wal")
    local ahead = math.max(its and its.at or 0, wal.received or 0)
    local bytes = math.max(ahead - wal.at, 0)
    return bytes, bytes > 0 and wal.age or 0, its ~= nil
end

function server.lag(facts, add, others)
    local row, wal = first_row(facts, "server"), first_row(facts, "wal")
    if not row or not row.standby or not wal or not wal.at then return end
    if wal.paused then
        add("warn", "replica.paused", {
            found = "the standby has been told to replay nothing",
            why = "reads here see the past until somebody lets it go on",
            remedy = "select pg_wal_replay_resume();",
        })
    end
    if wal.streaming == false then
        add("warn", "replica.not_streaming", {
            found = "the standby receives nothing from its primary",
            why = "it lives on what an archive brings, or has been left behind and does not know it",
            remedy = "alter system set primary_conninfo = 'host=... user=...'; select pg_reload_conf();",
        })
    end
    local bytes, seconds, known = lag(facts, others)
    local found = ("%s and %s behind%s"):format(phrases.bytes(bytes), phrases.seconds(seconds),
        known and "" or " what it has received; the primary could not be asked")
    if bytes < 16 * 1024 * 1024 and seconds < 10 then
        return add("ok", "replica.lag", { found = found })
    end
    add(seconds >= 300 and "fail" or "warn", "replica.lags", {
        found = found,
        why = "a reader does not find what he has just written, and a failover to it loses that much",
        remedy = "select * from pg_stat_replication; -- on the primary; there, too, what sent but not " ..
            "replayed is",
    })
end

-- ---- its clock --------------------------------------------------------------------------------------------

function server.clock(facts, add)
    local clock = facts.clock
    if not clock then return end
    local off = math.abs(clock.ahead)
    if off - clock.exact_to < 1 then
        return add("ok", "clock.agrees", {
            found = ("its clock and ours differ by less than %s"):format(phrases.seconds(
                math.max(off + clock.exact_to, 0.001))),
        })
    end
    add("warn", "clock.skew", {
        found = ("its clock is %s %s ours"):format(phrases.seconds(off),
            clock.ahead > 0 and "ahead of" or "behind"),
        why = "tokens that expire, and times written by both, contradict each other",
        remedy = "chronyc tracking   # on both machines; see that both follow a time server", kind = "system",
    })
end

server.checks = { server.version, server.part, server.same_data, server.lag, server.clock }

return server
