--- Whether a pooler stands between, what kind, and what that means for prepared statements. Judged once for
-- each backend.

local pooling = {}

--- "none", "session", "transaction", or nil if it could not be found out.
function pooling.kind(facts)
    local seen = facts.pooler
    if not seen or not seen.pid then return nil end
    if seen.moved then return "transaction" end
    local introduced = seen.shown_pid ~= nil and seen.shown_pid ~= 0
    if introduced and seen.shown_pid ~= seen.pid then return "session" end
    return "none"
end

local function in_policy(facts, pooler)
    return ("backends.%s = { conninfo = ..., pooler = %s }"):format(facts.backend.name, tostring(pooler))
end

-- One that gives out process ids of its own is noticed by the engine, told or not.
local function is_noticed(facts)
    local shown = facts.pooler.shown_pid
    return shown ~= nil and shown ~= 0 and shown ~= facts.pooler.pid
end

local function add_undeclared(facts, add)
    local noticed = is_noticed(facts)
    add(noticed and "warn" or "fail", "pooler.undeclared", {
        found = "a transaction pooler stands between, and the policy does not say so",
        why = noticed and "the engine notices it at each connect and does without named statements; it " ..
            "cannot know " ..
            "beforehand, so listeners and multiplex are refused late" or
            "prepared statements and session settings of one call would be met by another, or be gone",
        remedy = in_policy(facts, true), kind = "policy", subject = facts.backend.name,
    })
end

function pooling.mode(facts, add)
    local kind, declared = pooling.kind(facts), facts.backend.pooler
    if kind == nil then return end
    if kind == "transaction" and not declared then return add_undeclared(facts, add) end
    if kind ~= "transaction" and declared then
        return add("warn", "pooler.unneeded", {
            found = kind == "none" and "pooler = true, and the server is reached directly" or
                "pooler = true, and the pooler keeps a server connection for each session",
            why = "statements are parsed and planned anew for each call, for nothing",
            remedy = in_policy(facts, false), kind = "policy", subject = facts.backend.name,
        })
    end
    local found = {
        none = "no pooler in between",
        transaction = "a transaction pooler, as the policy says",
        session = "a pooler in session mode: a server connection stays with each of ours",
    }
    add("ok", "pooler.mode", { found = found[kind] })
end

function pooling.prepared(facts, add)
    local seen, kind = facts.pooler, pooling.kind(facts)
    if kind == nil or not seen.named then return end
    if seen.named > 0 and kind == "transaction" then
        return add("fail", "prepared.unsafe", {
            found = "prepared statements are used by name behind a transaction pooler",
            why = "the next transaction may be served by a process that does not know them (26000), or " ..
                "that knows " ..
                "another of that name (42P05)",
            remedy = in_policy(facts, true), kind = "policy", subject = facts.backend.name,
        })
    end
    add("ok", "prepared.safe", {
        found = seen.named > 0 and "prepared statements stay with their session, and are used" or
            "statements go unnamed, which is safe everywhere",
    })
end

-- What PgBouncer and its like cannot pass on.
function pooling.options(facts, add)
    local parameters = facts.backend.conninfo
    if pooling.kind(facts) ~= "transaction" or not parameters.said.options then return end
    add("warn", "pooler.options", {
        found = "the connection string has options, which a pooler may refuse or give to everybody",
        why = "the next server connection does not have them",
        remedy = "alter role <login> set <name> = <value>;", subject = facts.backend.name,
    })
end

pooling.checks = { pooling.mode, pooling.prepared, pooling.options }

return pooling
