--- Client handles (db:anon{...}, db:service()) and units of work: submit, park, collect, retry the unit's
-- function.

local compat = require "weir.compat"
local core = require "weir.core"
local errors = require "weir.errors"
local json = require "weir.json"
local listen = require "weir.listen"
local loop = require "weir.loop"
local sqltext = require "weir.sqltext"
require "weir.conversion"

local client = {}

local Handle = {}
Handle.__index = Handle

local Transaction = {}
Transaction.__index = Transaction

-- What tx:rollback() raises to leave the unit's function.
local ROLLBACK = {}

-- ---- requests ---------------------------------------------------------------------------------------------

local function claims_text(claims)
    if claims == nil then return nil end
    local text = claims
    if type(claims) == "table" then
        local why
        text, why = json.encode(claims)
        if not text then errors.misuse("the claims cannot be written as JSON: " .. why) end
    elseif type(claims) ~= "string" then
        errors.misusef("the claims are a %s; they must be a table or a JSON object as text", type(claims))
    end
    if not text:find("^%s*{") then errors.misuse("the claims must be a JSON object, like { sub = 'ann' }") end
    return text
end

local function make_request(db, spec)
    local request, why = db.core:request(spec)
    if not request then errors.misuse(why) end
    return request
end

local function merged(base, options)
    local spec = {}
    for key, value in pairs(base) do spec[key] = value end
    if options == nil then return spec end
    if type(options) ~= "table" then
        errors.misusef("the options are a %s; they must be a table", type(options))
    end
    for key, value in pairs(options) do
        if key == "client" or key == "claims" then
            errors.misuse(key .. " is not an option of a call; db:client(name, claims) gives another handle")
        end
        spec[key] = value
    end
    return spec
end

local function new_handle(db, spec)
    return setmetatable({
        db = db,
        spec = spec,
        request = make_request(db, spec),
        null = spec.null,
    }, Handle)
end

--- A handle for calls as `name` with `claims`; the claims are encoded here, once.
function client.new(db, name, claims, options)
    return new_handle(db, merged({ client = name, claims = claims_text(claims), null = db.null }, options))
end

--- The same handle with other options: timeout, readonly, idempotent, isolation, backend, traceparent, null.
function Handle:with(options)
    return new_handle(self.db, merged(self.spec, options))
end

-- nil and the error of a call that has ended with it, after others had their turn if that is due.
local function failed(failure)
    loop.breathe()
    return nil, errors.wrap(failure)
end

-- ---- single calls -----------------------------------------------------------------------------------------

local submit, collect = core.query, core.collect

--- Runs one statement in one round trip, retried as the policy says.
-- @return result, or nil and an error
function Handle:query(context, ...)
    local result, failure, call, key = submit(self.db.core, self.request, loop.leisure(), context, ...)
    if call then
        loop.park(call, key)
        result, failure = collect(call, self.null)
    end
    if failure == nil then return result end
    if type(failure) == "string" then errors.misuse(failure) end
    return failed(failure)
end

local function plain_result(call, number, null)
    return (call:result(number, null))
end

local function all_results(call, null, read)
    local results = {}
    for i = 1, call:count() do results[i] = (read or plain_result)(call, i, null) end
    return results
end

-- The call is over; what it gave is read and it is freed, whatever becomes of the reading.
local function read_and_free(call, null, read)
    local failure = call:error()
    local ok, results = pcall(all_results, call, null, read)
    call:free()
    if not ok then error(results, 0) end
    if not failure then return results end
    loop.breathe()
    return nil, errors.wrap(failure), results
end

--- Runs several statements ({ {sql, ...}, ... }) in one round trip and one transaction. A statement may have
-- types = { oid, ... }, those of its parameters; without, the server infers them.
-- @param read  function(call, number, null): how a result is read, for whoever decodes by himself
-- @return a list of results; or nil, an error, and the results of the statements before the one that failed,
-- which were rolled back with it
function Handle:pipeline(context, statements, read)
    local call, key = self.db.core:submit_many(self.request, context, statements)
    if not call then errors.misuse(key) end
    loop.await(call, key)
    return read_and_free(call, self.null, read)
end

--- Listens to channels on a connection of its own; waits until the server has confirmed.
-- @return a listener, or nil and an error
function Handle:listen(...)
    return listen.open(self.db.core, self.spec, ...)
end

-- ---- transactions driven by hand --------------------------------------------------------------------------

local ByHand = {}
ByHand.__index = ByHand

--- Begins a transaction that the caller drives himself: for interfaces that know BEGIN and COMMIT as
-- statements. It holds a connection until commit or rollback, or until its timeout, so transaction(context, fn)
-- is to be preferred wherever there is a function: that one cannot be forgotten, and it is run again where that
-- is safe. This one never is.
-- @return the transaction, or nil and an error if there is no connection to be had
function Handle:begin(context)
    local by_hand = self.by_hand or make_request(self.db, merged(self.spec, { by_hand = true }))
    self.by_hand = by_hand
    local call, key = self.db.core:begin(by_hand, context)
    if not call then errors.misuse(key) end
    loop.await(call, key)
    if call:status() == "ended" then return read_and_free(call) end
    return setmetatable({ call = call, key = key, null = self.null }, ByHand)
end

-- What ended the transaction, if anything has: its commit or rollback, or its deadline, or a lost connection.
local function ending(unit)
    if unit.over then return unit.over end
    if unit.call:status() ~= "ended" then return nil end
    unit.over = errors.wrap(unit.call:error() or {})
    unit.call:free()
    return unit.over
end

--- Runs several statements in one round trip.
-- @return a list of results; or nil, an error, and the results before it. After an error only `rollback to` a
-- savepoint is of use; when the transaction is over (see is_over) every call gives the error that ended it.
function ByHand:pipeline(statements, read)
    if ending(self) then return nil, self.over, {} end
    local sent, why = self.call:send_many(statements)
    if not sent and not ending(self) then errors.misuse(why) end
    if not sent then return nil, self.over, {} end
    loop.await(self.call, self.key)
    if ending(self) then return nil, self.over, {} end
    local results = all_results(self.call, self.null, read)
    local failure = self.call:error()
    if failure then return nil, errors.wrap(failure), results end
    return results
end

--- Runs one statement.
-- @return its result, or nil and an error
function ByHand:query(...)
    local results, err = self:pipeline({ compat.pack(...) })
    if not results then return nil, err end
    return results[1]
end

--- True once nothing can be done in it any more.
function ByHand:is_over()
    return ending(self) ~= nil
end

--- Seconds left for the whole transaction.
function ByHand:remaining()
    return ending(self) and 0 or self.call:remaining()
end

local function end_by_hand(unit, how)
    local sent, why = unit.call:finish(how)
    if not sent and not ending(unit) then errors.misuse(why) end
    if unit.over then return nil, unit.over end
    loop.await(unit.call, unit.key)
    local failure = unit.call:error()
    unit.over = errors.new("misuse", "the transaction has ended")
    unit.call:free()
    if failure then return nil, errors.wrap(failure) end
    return true
end

--- Commits.
-- @return true, or nil and an error whose outcome says what is known; after a statement that had failed it was
-- a rollback
function ByHand:commit()
    if ending(self) then return nil, self.over end
    return end_by_hand(self, "commit")
end

--- Rolls back, or gives back what is left of it. Never fails: a connection that is lost has rolled back.
function ByHand:rollback()
    if not ending(self) then end_by_hand(self, "rollback") end
    return true
end

-- ---- units of work ----------------------------------------------------------------------------------------

local function check_open(tx)
    if tx.ended then errors.misuse("the transaction has ended; it lives only inside its function") end
end

local function check_well(tx)
    check_open(tx)
    if tx.failure then error(tx.failure, 0) end
end

-- Waits for the answer to what was just sent; an error is raised, so that nobody can overlook it. The unit
-- may have ended while its function was doing something else: its deadline passed, or the engine was closed.
local function await_reply(tx, sent, why)
    if not sent and tx.call:status() ~= "ended" then errors.misuse(why) end
    loop.await(tx.call, tx.key)
    local failure = tx.call:error()
    if failure then
        tx.failure = errors.wrap(failure)
        error(tx.failure, 0)
    end
end

-- A statement that failed leaves nothing to do but this; it needs a transaction that still stands.
local function may_recover(tx, sql)
    return tx.call:status() ~= "ended" and type(sql) == "string" and sqltext.is_rollback_to(sql)
end

--- Runs one statement. Raises the error object if it fails; the unit is then rolled back, and retried if the
-- policy says so. After that only ROLLBACK TO a savepoint is sent, and with it the unit goes on; anything else
-- raises the same error again.
function Transaction:query(...)
    check_open(self)
    if self.failure and not may_recover(self, (...)) then error(self.failure, 0) end
    await_reply(self, self.call:send(...))
    self.failure = nil
    return self.call:result(1, self.null)
end

--- Runs several statements ({ {sql, ...}, ... }) in one round trip. Raises like query.
function Transaction:pipeline(statements)
    check_well(self)
    await_reply(self, self.call:send_many(statements))
    return all_results(self.call, self.null)
end

--- Leaves the function, rolls back, and makes the unit return nil and an error with code "rolled_back".
function Transaction:rollback()
    check_well(self)
    error(ROLLBACK, 0)
end

--- Seconds left for the whole unit.
function Transaction:remaining()
    check_well(self)
    return self.call:remaining()
end

local function finish(tx, how)
    local sent, why = tx.call:finish(how)
    if not sent and tx.call:status() ~= "ended" then errors.misuse(why) end
    loop.await(tx.call, tx.key)
end

-- How the unit's function ended, in the engine's words, and its own error if it had one.
local function verdict(tx, ok, raised)
    if ok then return "commit" end
    if raised == ROLLBACK then return "rollback" end
    if raised == tx.failure and raised ~= nil then return "failed" end
    return "rollback", true
end

local function attempt(unit, fn)
    local tx = setmetatable({
        call = unit.call,
        key = unit.key,
        null = unit.null,
        attempt = unit.call:attempt(),
    }, Transaction)
    local results = compat.pack(pcall(fn, tx))
    tx.ended = true
    local how, own = verdict(tx, results[1], results[2])
    finish(tx, how)
    return results, own
end

local function conclude(call, results, own)
    local failure = call:error()
    call:free()
    if own then error(results[2], 0) end
    if failure then return failed(failure) end
    return compat.unpack(results, 2, results.n)
end

-- A unit whose caller was thrown out of it (an interrupt, a deadlock) must not keep its connection.
local function guarded(unit, fn)
    local results, own
    loop.await(unit.call, unit.key)
    while unit.call:status() ~= "ended" do
        results, own = attempt(unit, fn)
    end
    return results or { n = 0 }, own
end

--- Runs fn(tx) in one transaction, again from its start if the policy retries.
-- @return what fn returned, or nil and an error; an error fn raised itself is raised again
function Handle:transaction(context, fn, options)
    if type(fn) ~= "function" then
        errors.misusef("the unit's function is a %s; it must be a function taking the transaction", type(fn))
    end
    local handle = options and self:with(options) or self
    local call, key = handle.db.core:begin(handle.request, context)
    if not call then errors.misuse(key) end
    local ok, results, own = pcall(guarded, { call = call, key = key, null = handle.null }, fn)
    if not ok then
        call:free()
        error(results, 0)
    end
    return conclude(call, results, own)
end

return client
