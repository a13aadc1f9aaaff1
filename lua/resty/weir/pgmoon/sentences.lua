--- Errors as the strings that pgmoon gives.

local errors = require "weir.errors"
local sqlscan = require "weir.sqlscan"

local sentences = {}

-- The server counts characters from the start of the statement; the caller, from the start of what he wrote.
local function position_in(err, statement, sql)
    if not err.position then return nil end
    if not statement or not sql or statement.at == 1 then return err.position end
    return err.position + sqlscan.characters_before(sql, statement.at)
end

local function of_server(err, position)
    local text = ("%s: %s"):format(err.severity or "ERROR", err.message)
    if position then text = ("%s (%d)"):format(text, position) end
    if err.detail then text = text .. "\n" .. err.detail end
    return text
end

local NO_TLS = "the server does not support SSL connections"

-- "connection to server at ... failed: FATAL: database ..." says the server after all.
local function of_connect(err)
    local message = err.message or ""
    if message:find "server does not support SSL" then return NO_TLS end
    local from_server = err.severity and message:match("failed: (" .. err.severity .. ": .*)$")
    return from_server or message
end

--- The string for an error of Weir. `statement` is the one that failed, in the text `sql`.
function sentences.of(err, statement, sql)
    if err.code == "timeout" then return "timeout" end
    if err.code == "connect_failed" then return of_connect(err) end
    if err.severity then return of_server(err, position_in(err, statement, sql)) end
    local bare = {}
    for key, value in pairs(err) do bare[key] = value end
    bare.context = nil
    return tostring(errors.wrap(bare))
end

--- An error that the server would give and that is known without asking it.
function sentences.server_error(sqlstate, message)
    local fields = { severity = "ERROR", sqlstate = sqlstate, outcome = "rolled_back" }
    return errors.new("server_error", message, fields)
end

--- COMMIT of a transaction that had failed before with `err`. PostgreSQL answers it with ROLLBACK and no
-- error, so that whoever has not heard the first one believes his work done.
function sentences.not_committed(err)
    local message = "COMMIT rolled back the transaction, which had failed before: "
        .. (err.message or tostring(err))
    return sentences.server_error("25P02", message)
end

local function refusal(what, why)
    return errors.new("refused", ("%s: %s"):format(what, why))
end

local SESSION = "a connection is nobody's between two statements, so it would be gone at once"

local reasons = {
    temporary = { "a temporary table outside of a transaction", SESSION },
    prepared = { "PREPARE, EXECUTE, DEALLOCATE and LOAD outside of a transaction",
        SESSION .. "; statements with parameters are prepared by themselves" },
    lock = { "an advisory lock of the session outside of a transaction",
        SESSION .. "; in a transaction it lasts until its end, as pg_advisory_xact_lock does" },
    cursor = { "a cursor WITH HOLD outside of a transaction", SESSION },
    copy = { "COPY", "it would keep the connection to itself, and pgmoon has no way to feed it" },
    two_phase = { "a transaction in two phases", "Weir could not tell what became of it" },
}

--- Why a statement of this kind is refused.
function sentences.refusal(kind)
    return refusal(reasons[kind][1], reasons[kind][2])
end

sentences.refused = refusal

return sentences
