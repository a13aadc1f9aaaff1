---@meta weir.view
-- What weir.attach and db:view() give, for the Lua language server. Never loaded.

---Rows with columns; tostring-like at the console, a list of tables everywhere else.
---@alias weir.rows table[]

---What an order did. tostring gives it as a sentence.
---@class weir.done
---@field done string What was done, and in how many workers.
---@field undo? string The call that undoes it.
---@field workers integer Workers that live.
---@field carried_out integer Those that have done it.

---An engine, one's own or another process's, as its operator sees it. Failures are nil and an error: code "refused"
---(who may only read, or what is wrong with an order), "unreachable", "misuse". Names of pools may be cut short where
---that is clear.
---@class weir.view
local view = {}

---Ends it; the engine goes on.
function view:close() end

---How it stands, and a sentence. A file that has taken the place of the attached one is attached in its stead.
---@return "live"|"deserted"|"replaced"|"gone"|"damaged" state, string why
function view:look() end

---A document of the area as it is.
---@param name "stats"|"health"|"calls"|"events"|"workers"|"conns"|"config"
---@param argument? integer calls: how many at most; events: those after this sequence number.
---@return table
function view:document(name, argument) end

---@return table
function view:stats() end

---@return weir.rows
function view:pools() end

---@param name string
---@return table? row, weir.error? err
function view:pool(name) end

---State, counts, rates, evidence, retry_after.
---@param name string
---@return table? breaker, weir.error? err
function view:breaker(name) end

---@return weir.rows
function view:labels() end

---@return weir.rows
function view:workers() end

---@param filter? { pool?: string, state?: string, worker?: integer }
---@return weir.rows
function view:conns(filter) end

---The last calls, newest first.
---@param filter? { label?: string, pool?: string, code?: string, failed?: boolean, slower?: number, worker?: integer, last?: integer }
---@return weir.rows
function view:calls(filter) end

---The timeline of one call.
---@param id string
---@return weir.rows? timeline, weir.error? err
function view:call(id) end

---The event log, oldest first.
---@param filter? { kind?: string, pool?: string, worker?: integer, after?: integer, last?: integer }
---@return weir.rows
function view:events(filter) end

---Why a pool is as it is, in sentences; or the timeline of a call.
---@param name string
---@return string[]? sentences, weir.error? err
function view:why(name) end

---The options in force.
---@return table
function view:config() end

---PgBouncer's tables.
---@param what "pools"|"clients"|"servers"|"stats"|"config"|"version"
---@return weir.rows? rows, weir.error? err
function view:show(what) end

---Calls are refused; connections stay. Without a pool: all.
---@param pool? string
---@param reason? string For the event log.
---@return weir.done? done, weir.error? err
function view:pause(pool, reason) end

---The same, and connections are closed as they get free.
---@param pool? string
---@param reason? string
---@return weir.done? done, weir.error? err
function view:drain(pool, reason) end

---Ends both.
---@param pool? string
---@param reason? string
---@return weir.done? done, weir.error? err
function view:resume(pool, reason) end

---Connections that the pool may have, over all workers; nil: as configured.
---@param pool string
---@param max? integer 1 to 10000.
---@param reason? string
---@return weir.done? done, weir.error? err
function view:resize(pool, max, reason) end

---@param pool? string
---@param reason? string
---@return weir.done? done, weir.error? err
function view:reconnect(pool, reason) end

---Holds the breaker; "auto" ends that.
---@param pool? string
---@param state "open"|"closed"|"disabled"|"metrics_only"|"auto"
---@param seconds? number nil: until reset.
---@param reason? string
---@return weir.done? done, weir.error? err
function view:force(pool, state, seconds, reason) end

---@param pool? string
---@param reason? string
---@return weir.done? done, weir.error? err
function view:reset(pool, reason) end

---Tries the policy file, then gives it to all workers. With a mistake in it the policy in force stays.
---@param path string
---@param reason? string
---@return weir.done? done, weir.error? err
function view:reload(path, reason) end

---Ends a running call as cancelled.
---@param id string As conns() shows it.
---@param reason? string
---@return weir.done? done, weir.error? err
function view:kill(id, reason) end

return view
