--- Timeouts that the server has for a client, against those of the policy.

local phrases = require "weir.doctor.phrases"

local timeouts = {}

local factors = { us = 0.001, ms = 1, s = 1000, min = 60000, h = 3600000, d = 86400000 }

-- "5s", "250", "1.5 min" of a role's setting, in milliseconds; nil if it is none.
local function milliseconds(text)
    local number, unit = text:match "^%s*([%d.]+)%s*(%a*)%s*$"
    local factor = unit == "" and 1 or factors[unit or ""]
    return tonumber(number) and factor and tonumber(number) * factor or nil
end

--- What holds for this client's calls, in seconds, 0 for none; nil if unknown. What is set for the role that
-- an ANON client acts as is loaded by Weir and wins.
function timeouts.effective(facts, name)
    local found
    local role = facts.rows.role and facts.rows.role[1]
    if role and not role.there then return nil end -- it will be told of, and then have settings of its own
    for _, row in ipairs(facts.rows.settings or {}) do
        if row.name == name then found = milliseconds(row.setting .. (row.unit or "")) end
    end
    for _, row in ipairs(facts.rows.role_settings or {}) do
        if row.name:lower() == name then found = milliseconds(row.value) or found end
    end
    return found and found / 1000
end

local function alter(facts, name, seconds)
    local role = facts.client.role and phrases.ident(facts.client.role) or facts.rows.login and
        facts.rows.login[1].ident or phrases.ident(facts.login or "?")
    local value = seconds == 0 and "0" or ("'%dms'"):format(math.ceil(seconds * 1000))
    if seconds > 0 and seconds % 1 == 0 then value = ("'%ds'"):format(seconds) end
    return ("alter role %s set %s = %s;"):format(role, name, value)
end

local function call_timeout(facts)
    return facts.options.timeout or 10
end

-- ---- what ends a statement --------------------------------------------------------------------------------

local function below_call(facts, add, name, what)
    local limit, timeout = timeouts.effective(facts, name), call_timeout(facts)
    if not limit then return end
    local words = ("%s is %s, and timeout of a call %s"):format(name, phrases.seconds(limit),
        phrases.seconds(timeout))
    if limit == 0 then
        words = ("%s 0: each statement is sent with what is left of its call's %s"):format(name,
            phrases.seconds(timeout))
    end
    if limit == 0 or limit >= timeout then
        return add("ok", "timeout." .. name, { found = words, subject = name })
    end
    add("warn", "timeout." .. name .. "_below_call", {
        found = words,
        why = ("a %s that takes longer ends with an error of the server although its caller would have " ..
            "waited"):format(what),
        remedy = alter(facts, name, timeout), subject = name,
    })
end

function timeouts.statement(facts, add)
    below_call(facts, add, "statement_timeout", "statement")
end

--- Since PostgreSQL 17.
function timeouts.transaction(facts, add)
    below_call(facts, add, "transaction_timeout", "transaction")
end

function timeouts.lock(facts, add)
    local limit = timeouts.effective(facts, "lock_timeout")
    if not limit then return end
    add("ok", "timeout.lock_timeout", {
        found = limit == 0 and "lock_timeout 0: a lock is waited for until the call's deadline" or
            ("lock_timeout %s: a lock that takes longer is 55P03, which is tried " ..
                "again"):format(phrases.seconds(limit)),
        subject = "lock_timeout",
    })
end

-- ---- what ends a session ----------------------------------------------------------------------------------

function timeouts.idle_in_transaction(facts, add)
    local name, timeout = "idle_in_transaction_session_timeout", call_timeout(facts)
    local limit = timeouts.effective(facts, name)
    if not limit then return end
    if limit == 0 then
        return add("warn", "timeout.idle_in_transaction_off", {
            found = name .. " is 0: nothing ends a transaction whose program has stopped",
            why = "a worker that hangs or is suspended inside a unit holds its locks, and vacuum back, " ..
                "until somebody looks",
            remedy = alter(facts, name, 2 * timeout), subject = name,
        })
    elseif limit < 1 then
        return add("warn", "timeout.idle_in_transaction_short", {
            found = ("%s is %s"):format(name, phrases.seconds(limit)),
            why = "a unit of work that computes, or waits for something else, between two statements " ..
                "loses its session",
            remedy = alter(facts, name, 2 * timeout), subject = name,
        })
    end
    add("ok", "timeout.idle_in_transaction", { found = ("%s %s"):format(name, phrases.seconds(limit)),
        subject = name })
end

function timeouts.idle_session(facts, add)
    local name = "idle_session_timeout"
    local limit, idle = timeouts.effective(facts, name), facts.options.idle_timeout or 600
    if not limit then return end
    if limit == 0 or idle > 0 and idle < limit then
        return add("ok", "timeout.idle_session", {
            found = limit == 0 and name .. " 0: idle connections are the pool's to close" or
                ("%s %s, after the pool's idle_timeout of %s"):format(name, phrases.seconds(limit),
                    phrases.seconds(idle)),
            subject = name,
        })
    end
    add("warn", "timeout.idle_session_below_pool", {
        found = ("%s is %s, and idle_timeout of the pool %s"):format(name, phrases.seconds(limit),
            idle == 0 and "never" or phrases.seconds(idle)),
        why = "the server closes connections that the pool holds ready: calls find them dead and connect " ..
            "first",
        remedy = ("idle_timeout = %.4g"):format(limit * 0.8), kind = "policy", subject = "idle_timeout",
    })
end

timeouts.checks = {
    timeouts.statement, timeouts.transaction, timeouts.lock, timeouts.idle_in_transaction,
        timeouts.idle_session,
}

return timeouts
