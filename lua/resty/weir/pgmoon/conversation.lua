--- What a pgmoon object says to the server, statement by statement: a text is taken apart, BEGIN and COMMIT
-- become a transaction of Weir's, SET becomes the object's, and the rest goes out in as few round trips as it
-- can.
--
-- Several statements in one text are one transaction, as in the simple protocol. Without a BEGIN or COMMIT
-- among them they are one call of Weir; with one, an implicit transaction is begun that an explicit one takes
-- over.

local errors = require "weir.errors"
local listening = require "resty.weir.pgmoon.listening"
local sentences = require "resty.weir.pgmoon.sentences"
local settings = require "resty.weir.pgmoon.settings"
local sqlscan = require "weir.sqlscan"
local values = require "resty.weir.pgmoon.values"
local verbs = require "resty.weir.pgmoon.verbs"

local conversation = {}

local BATCH_MAX = 500 -- statements of one round trip; Weir takes 1024

-- ---- a talk: one text on its way --------------------------------------------------------------------------

local function new_talk(pg, sql)
    local read, heard = values.reader(pg)
    return { pg = pg, sql = sql, batch = {}, results = {}, read = read, heard = heard }
end

local function note(talk, notice)
    talk.notices = talk.notices or {}
    talk.notices[#talk.notices + 1] = notice
end

local function gather_notices(talk)
    for _, notice in ipairs(talk.heard.notices or {}) do note(talk, notice) end
    talk.heard.notices = nil
end

-- Everything that goes wrong ends here: false, and the error kept for the end of the text.
local function fail(talk, err, statement)
    talk.failure, talk.failed = err, statement
    return false
end

local function succeed(talk, result)
    talk.results[#talk.results + 1] = result
    return true
end

-- ---- transactions -----------------------------------------------------------------------------------------

local ABORTED = "current transaction is aborted, commands ignored until end of transaction block"

local function enter(pg, status, unit, implicit)
    pg.transaction_status, pg.unit, pg.implicit = status, unit, implicit
end

local function unit_handle(pg, wanted)
    local handle = pg:handle()
    if not wanted or next(wanted) == nil then return handle end
    return handle:with { isolation = wanted.isolation, readonly = wanted.readonly or nil }
end

local function open_unit(talk, wanted, implicit)
    local pg = talk.pg
    local unit, err = unit_handle(pg, wanted):begin(pg.context)
    if not unit then return fail(talk, err) end
    enter(pg, "T", unit, implicit)
    pg.wanted, pg.unit_used = wanted, false
    return true
end

local function close_unit(pg)
    local unit = pg.unit
    enter(pg, "I", nil, nil)
    return unit
end

--- Rolls back what is open, if anything is.
function conversation.abandon(pg)
    if pg.unit then close_unit(pg):rollback() end
end

local function broken(pg, err)
    if pg.implicit then
        close_unit(pg):rollback()
    elseif pg.unit then
        pg.transaction_status, pg.unit_error = "E", err
    end
end

-- ---- sending ----------------------------------------------------------------------------------------------

-- What goes out with the batch, and how many statements of it are ours.
local function with_settings(pg, batch)
    local first = (not pg.unit or not pg.unit_used) and settings.statement(pg.settings) or nil
    local statements = { first }
    for _, item in ipairs(batch) do statements[#statements + 1] = item.statement end
    return statements, first and 1 or 0
end

local function keep(talk, results, from)
    for i = from + 1, #results do talk.results[#talk.results + 1] = results[i] end
    gather_notices(talk)
end

local function send(pg, statements, read)
    if pg.unit then return pg.unit:pipeline(statements, read) end
    return pg:handle():pipeline(pg.context, statements, read)
end

local function flush(talk)
    local pg, batch = talk.pg, talk.batch
    if #batch == 0 then return true end
    talk.batch = {}
    local statements, ours = with_settings(pg, batch)
    local results, err, before = send(pg, statements, talk.read)
    if results then
        pg.unit_used = true
        keep(talk, results, ours)
        return true
    end
    before = before or {}
    keep(talk, before, ours)
    broken(pg, err)
    return fail(talk, err, batch[#before - ours + 1])
end

local function add(talk, item)
    item.statement = item.statement or { item.text }
    talk.batch[#talk.batch + 1] = item
    if #talk.batch >= BATCH_MAX then return flush(talk) end
    return true
end

-- ---- statements that are more than sent -------------------------------------------------------------------

local handlers = {}

function handlers.begin(talk, item)
    local pg = talk.pg
    local wanted, strange = verbs.modes(item.text)
    if not wanted then
        return fail(talk, sentences.refused("BEGIN", "'" .. strange .. "' is not understood here"))
    end
    if pg.unit and pg.implicit then
        pg.implicit = false -- what came before in this text is part of it now
    elseif pg.unit then
        note(talk, "WARNING: there is already a transaction in progress")
    elseif not open_unit(talk, wanted, false) then
        return false
    end
    return succeed(talk, true)
end

local function next_one(talk, item, wanted)
    return not verbs.chains(item.text) or open_unit(talk, wanted, false)
end

function handlers.commit(talk, item)
    local pg = talk.pg
    if not pg.unit then
        note(talk, "WARNING: there is no transaction in progress")
        return succeed(talk, true)
    end
    local failed, wanted = pg.transaction_status == "E", pg.wanted
    local done, err = close_unit(pg):commit()
    if failed then err = sentences.not_committed(pg.unit_error or err) end
    if not done then return fail(talk, err) end
    return next_one(talk, item, wanted) and succeed(talk, true)
end

function handlers.rollback(talk, item)
    local pg = talk.pg
    if not pg.unit then
        note(talk, "WARNING: there is no transaction in progress")
        return succeed(talk, true)
    end
    local wanted = pg.wanted
    close_unit(pg):rollback()
    return next_one(talk, item, wanted) and succeed(talk, true)
end

local function needs_block(talk, what)
    return fail(talk, sentences.server_error("25P01", what .. " can only be used in transaction blocks"))
end

function handlers.savepoint(talk, item)
    local what = sqlscan.words(item.text, 1)[1] == "RELEASE" and "RELEASE SAVEPOINT" or "SAVEPOINT"
    if not talk.pg.unit or talk.pg.implicit then return needs_block(talk, what) end
    return add(talk, item) and flush(talk)
end

function handlers.rollback_to(talk, item)
    local pg = talk.pg
    if not pg.unit or pg.implicit then return needs_block(talk, "ROLLBACK TO SAVEPOINT") end
    if not (add(talk, item) and flush(talk)) then return false end
    pg.transaction_status = "T"
    return true
end

-- Before anything was sent the transaction can still become another one.
function handlers.set_transaction(talk, item)
    local pg = talk.pg
    if not pg.unit then
        note(talk, "WARNING: SET TRANSACTION can only be used in transaction blocks")
        return succeed(talk, true)
    end
    local wanted = not pg.unit_used and verbs.modes(item.text, pg.wanted)
    if not wanted then return add(talk, item) end
    local implicit = pg.implicit
    close_unit(pg):rollback()
    return open_unit(talk, wanted, implicit) and succeed(talk, true)
end

-- ---- settings ---------------------------------------------------------------------------------------------

-- The server says whether it would take them.
local function adopt(talk, list)
    local pg = talk.pg
    local statement = settings.statement(list)
    local _, err
    if statement then _, err = pg:handle():pipeline(pg.context, { statement }) end
    if err then
        err.position = nil
        return fail(talk, err)
    end
    pg.settings = list
    return succeed(talk, true)
end

function handlers.set(talk, item)
    local pg = talk.pg
    if pg.unit then
        return fail(talk, sentences.refused("SET in a transaction", "it would not outlive it here; SET LOCAL "
            .. "lasts as long as the transaction, SET before BEGIN longer"))
    end
    local name, value, why = settings.read(item.text)
    if not name then return fail(talk, sentences.refused("SET", why)) end
    return adopt(talk, settings.with(pg.settings, name, value))
end

function handlers.reset(talk, item)
    local pg = talk.pg
    if pg.unit then return add(talk, item) end
    local name = settings.reset_name(item.text)
    pg.settings = name == "ALL" and {} or settings.with(pg.settings, name)
    return succeed(talk, true)
end

function handlers.discard(talk)
    if talk.pg.unit then
        local message = "DISCARD ALL cannot run inside a transaction block"
        return fail(talk, sentences.server_error("25001", message))
    end
    talk.pg.settings = {}
    return succeed(talk, true)
end

-- ---- the rest ---------------------------------------------------------------------------------------------

-- Procedures may commit, which would leave the role behind, so Weir wants a transaction around them.
function handlers.code(talk, item)
    if talk.pg.unit then return add(talk, item) end
    return flush(talk) and open_unit(talk, nil, true) and add(talk, item)
end

function handlers.alone(talk, item)
    local pg = talk.pg
    if #pg.settings > 0 and not pg.unit and not talk.several then
        local why = ("there are settings (SET %s), which are part of one; RESET them first"):format(
            pg.settings[1][1])
        return fail(talk, sentences.refused("a statement that cannot run in a transaction", why))
    end
    return add(talk, item)
end

function handlers.listen(talk, item)
    local done, err = listening.listen(talk.pg, verbs.channel(item.text))
    if not done then return fail(talk, err) end
    return succeed(talk, true)
end

function handlers.unlisten(talk, item)
    listening.unlisten(talk.pg, verbs.channel(item.text))
    return succeed(talk, true)
end

handlers.plain = add

local function refuse(kind)
    handlers[kind] = function(talk)
        return fail(talk, sentences.refusal(kind))
    end
end

local function refuse_outside(kind)
    handlers[kind] = function(talk, item)
        if talk.pg.unit or talk.several then return add(talk, item) end
        return fail(talk, sentences.refusal(kind))
    end
end

refuse "copy"
refuse "two_phase"
for _, kind in ipairs { "temporary", "prepared", "lock", "cursor" } do refuse_outside(kind) end

-- ---- a whole text -----------------------------------------------------------------------------------------

local in_batch = {
    plain = true, code = true, alone = true, temporary = true, prepared = true, lock = true, cursor = true,
}
local recovers = { commit = true, rollback = true, rollback_to = true }
local asks_for_unit = { begin = true, commit = true, rollback = true, set_transaction = true, code = true }

local function take(talk, item)
    local pg = talk.pg
    if pg.transaction_status == "E" and not recovers[item.kind] then
        return fail(talk, sentences.server_error("25P02", ABORTED))
    end
    if not in_batch[item.kind] and not flush(talk) then return false end
    local begins = talk.in_one and not pg.unit and in_batch[item.kind]
    if begins and not open_unit(talk, nil, true) then return false end
    return handlers[item.kind](talk, item)
end

-- The end of the text is the end of an implicit transaction.
local function conclude(talk)
    local pg = talk.pg
    if not flush(talk) or not pg.implicit then return end
    local done, err = close_unit(pg):commit()
    if not done then fail(talk, err) end
end

local function results_of(talk)
    local count = #talk.results
    if count <= 1 then return talk.results[1], count end
    return talk.results, count
end

local function answer(talk)
    gather_notices(talk)
    local results, count = results_of(talk)
    local heard = listening.heard(talk.pg)
    if talk.failure then
        local text = sentences.of(talk.failure, talk.failed, talk.sql)
        return nil, text, results, count, heard, talk.notices, talk.failure
    end
    if count == 0 then results = true end
    return results, count, heard, talk.notices
end

local function run(talk, list)
    talk.several = #list > 1
    for _, item in ipairs(list) do
        item.kind = item.kind or verbs.kind(item.text)
        talk.in_one = talk.in_one or (talk.several and asks_for_unit[item.kind]) or #list > BATCH_MAX
    end
    local ok = true
    for i = 1, #list do
        ok = take(talk, list[i])
        if not ok then break end
    end
    if ok then conclude(talk) elseif talk.pg.implicit then broken(talk.pg, talk.failure) end
    return answer(talk)
end

local function pass_on(pg, ok, ...)
    pg.talks = pg.talks - 1
    pg.busy = pg.talks > 0
    if not ok then error((...), 0) end
    return ...
end

-- Outside of a transaction one object serves any number of coroutines at once; a transaction is one
-- conversation.
local function hold(pg, sql, list)
    if pg.unit and pg.talks > 0 then return nil, "the transaction is busy with another query", nil, 0 end
    pg.talks = pg.talks + 1
    pg.busy = true
    return pass_on(pg, pcall(run, new_talk(pg, sql), list))
end

local function checked(pg, sql)
    if not pg.connected then return nil, "not connected" end
    if type(sql) ~= "string" then errors.misusef("the query is a %s; it must be a string", type(sql)) end
    if sql:find("\0", 1, true) then return nil, "invalid null byte in query" end
    return true
end

--- Any number of statements. See Postgres:query.
function conversation.simple(pg, sql)
    local fine, why = checked(pg, sql)
    if not fine then return nil, why end
    return hold(pg, sql, sqlscan.split(sql))
end

local function too_few(sql, count)
    local needed = sqlscan.parameters(sql)
    if needed <= count then return nil end
    local message = 'bind message supplies %d parameters, but prepared statement "" requires %d'
    return sentences.server_error("08P01", message:format(count, needed))
end

--- One statement with parameters. See Postgres:extended_query.
function conversation.extended(pg, sql, ...)
    local fine, why = checked(pg, sql)
    if not fine then return nil, why end
    local count = select("#", ...)
    local lacking = too_few(sql, count)
    if lacking then return nil, sentences.of(lacking), nil, 0, nil, nil, lacking end
    local statement
    statement, why = values.statement(pg, sql, count, ...)
    if not statement then return nil, why end
    local kind = verbs.kind(sql)
    if count > 0 and not in_batch[kind] then kind = "plain" end
    return hold(pg, sql, { { text = sql, at = 1, statement = statement, kind = kind } })
end

return conversation
