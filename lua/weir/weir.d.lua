---@meta weir
-- The public API of Weir for the Lua language server. Never loaded; README and examples show it in use.

---@class weir
---@field version string
---@field null weir.null SQL NULL inside arrays, in rows by the option `null`, and JSON null everywhere
---@field json weir.json
---@field sim weir.sims A simulated PostgreSQL in virtual time; see sim.d.lua.
local weir = {}

---@class weir.null

---@class weir.parameter What a value becomes as a parameter; made by weir.json, weir.array, weir.bytea.

---@alias weir.value nil|boolean|number|string|weir.null|weir.parameter

---@class weir.json
---An empty table becomes {}, weir.array{} becomes []; what decode gave stays what it was. weir.json(...) and
---weir.array(...) inside are what they wrap. NaN, infinity and weir.bytea are refused.
---@field encode fun(value: any): string?, string? The text, or nil and why there is none.
---@field decode fun(text: string): any, string? Whole numbers too large for a Lua number stay text.
---@overload fun(value: any): weir.parameter A value as a json or jsonb parameter; misuse raises.

---A list as an array parameter; nested lists for more dimensions, nil or weir.null for NULL.
---@param list table
---@return weir.parameter
function weir.array(list) end

---Bytes as a bytea parameter.
---@param bytes string
---@return weir.parameter
function weir.bytea(bytes) end

---@param value any
---@return boolean
function weir.is_error(value) end

-- ---- errors ---------------------------------------------------------------------------------------------

---What went wrong with a call; tostring gives it in one line.
---@class weir.error
---@field code weir.code|string
---@field class "safe"|"unknown"|"permanent"|"none" What a retry may assume.
---@field outcome "none"|"committed"|"rolled_back"|"unknown"
---@field phase? "not_sent"|"sent"|"commit_sent"|"done"
---@field message string
---@field sqlstate? string
---@field severity? string
---@field detail? string The server's DETAIL: it carries data, so do not log it.
---@field hint? string
---@field position? integer In the SQL text, from 1.
---@field attempts integer
---@field context? string
---@field pool? string client@backend
---@field retry_after? number Seconds until a refusal can be expected to end; nil if nobody can know.
---@field evidence? string Of a refusal: which guard, on what counts.

---@alias weir.code
---| "server_error"
---| "connection_lost"
---| "connect_failed"
---| "timeout"
---| "breaker_open"
---| "queue_full"
---| "acquire_timeout"
---| "paused"
---| "draining"
---| "cancelled"
---| "identity_refused"
---| "aborted"
---| "out_of_memory"
---| "rolled_back"
---| "limit_full"
---| "rate_limited"
---| "open_failed"

-- ---- opening --------------------------------------------------------------------------------------------

---Opens an engine; nothing is connected yet. Misuse raises.
---@param options weir.options
---@return weir.db?, weir.error?
function weir.open(options) end

-- ---- calls ----------------------------------------------------------------------------------------------

---@class weir.call_options
---@field timeout? number Seconds for the whole call.
---@field readonly? boolean Has no effect to lose; units run READ ONLY.
---@field idempotent? boolean Repeating it is harmless even if it was committed.
---@field isolation? "read committed"|"repeatable read"|"serializable" Of units; misuse for query and pipeline.
---@field backend? string Instead of asking the route policy.
---@field traceparent? string
---@field null? boolean

---Rows as a list of tables; { affected_rows = n } (with the rows of RETURNING) for changes; true for all
---else. `notices`, if there were any, stand beside.
---@alias weir.result table|true

---@alias weir.claims table|string A table, or a JSON object as text.
---@alias weir.statement table { sql, ..., types = { oid, ... } }; `n` counts a nil at the end.

---@class weir.db
local db = {}

---What an operator sees and steers of this engine; the same as weir.attach gives for another process.
---@return weir.view
function db:view() end

---@param claims weir.claims
---@return weir.handle
function db:anon(claims) end

---@return weir.handle
function db:service() end

---@param name string
---@param claims? weir.claims
---@return weir.handle
function db:client(name, claims) end

---Runs fn(tx) in one transaction as the user of the claims, under row-level security.
---@generic T
---@param context string What this call is for, like "GET /contacts".
---@param claims weir.claims
---@param fn fun(tx: weir.transaction): T
---@param options? weir.call_options
---@return T?, weir.error?
function db:with_anon(context, claims, fn, options) end

---Runs fn(tx) in one transaction of an administrator, past row-level security.
---@generic T
---@param context string
---@param fn fun(tx: weir.transaction): T
---@param options? weir.call_options
---@return T?, weir.error?
function db:with_service(context, fn, options) end

---@generic T
---@param name string The client.
---@param context string
---@param claims? weir.claims
---@param fn fun(tx: weir.transaction): T
---@param options? weir.call_options
---@return T?, weir.error?
function db:with(name, context, claims, fn, options) end

---@return table
function db:health() end

---@return string
function db:health_json() end

---@return table
function db:stats() end

---What an HTTP server shows at this path; nothing if there is no such document.
---@param path string "/health", "/livez", "/readyz", "/metrics", "/stats.json", "/calls.json", "/events.json" or "/"
---@param accept? string The request's Accept header.
---@return integer? status
---@return string? content_type
---@return string? body
function db:page(path, accept) end

---@param most? integer (100)
---@return table[] Finished calls with their timelines, newest first.
function db:calls(most) end

---@param after? integer Only events after this sequence number.
---@return table[]
function db:events(after) end

---@return table<string, integer>
function db:held() end

---@param pool string "client@backend"
---@return weir.pool_breaker
function db:breaker(pool) end

---@param pool? string nil: all pools.
---@param state? "open"|"closed"|"disabled"|"metrics_only" nil: end forcing.
function db:force(pool, state) end

---@param pool? string nil: all pools.
---@param paused? boolean (true)
function db:pause(pool, paused) end

---Opens the file of `log` anew, after a rotation; on failure the log goes on in the file it had.
---@return boolean? done
---@return string? why
function db:reopen_log() end

---@return weir.backoff
function db:backoff() end

---Lets running calls end, refuses new ones, and returns when nothing is left.
---@param seconds? number (10)
function db:drain(seconds) end

---Ends everything at once.
function db:close() end

---@class weir.pool_breaker
local pool_breaker = {}

---@param state? "open"|"closed"|"disabled"|"metrics_only"
function pool_breaker:force(state) end

---@return string
function pool_breaker:state() end

---@return table
function pool_breaker:snapshot() end

---@class weir.handle
local handle = {}

---The same client with other options.
---@param options weir.call_options
---@return weir.handle
function handle:with(options) end

---One statement in one round trip.
---@param context string
---@param sql string
---@param ... weir.value
---@return weir.result?, weir.error?
function handle:query(context, sql, ...) end

---Several statements in one round trip and one transaction.
---@param context string
---@param statements weir.statement[]
---@param read? fun(call: userdata, number: integer, null: boolean): any How a result is read.
---@return weir.result[]?, weir.error?, weir.result[]? before The results before the error, rolled back with it.
function handle:pipeline(context, statements, read) end

---Channels, then options if any. SERVICE clients only; it takes one connection of the pool.
---@param ... string|weir.listen_options
---@return weir.listener?, weir.error?
function handle:listen(...) end

---A transaction that is driven by hand, for interfaces that know BEGIN and COMMIT as statements. Never run again.
---@param context string
---@return weir.by_hand?, weir.error?
function handle:begin(context) end

---@generic T
---@param context string
---@param fn fun(tx: weir.transaction): T Run again from its start when the policy retries.
---@param options? weir.call_options
---@return T?, weir.error?
function handle:transaction(context, fn, options) end

---@class weir.transaction
---@field attempt integer 1 at first.
local transaction = {}

---Raises a weir.error if it fails; the unit is then rolled back. Caught, it leaves one way on: ROLLBACK TO a
---savepoint. Anything else raises the same error again.
---@param sql string
---@param ... weir.value
---@return weir.result
function transaction:query(sql, ...) end

---@param statements weir.statement[]
---@return weir.result[]
function transaction:pipeline(statements) end

---Leaves the function and rolls back; the unit returns nil and an error with code "rolled_back".
function transaction:rollback() end

---@return number seconds left for the whole unit
function transaction:remaining() end

-- ---- tasks ----------------------------------------------------------------------------------------------

---@class weir.task
local task = {}

---Its results, or its error raised again.
---@return ...
function task:join() end

---@return boolean ok, any ... results, or what it raised
function task:wait() end

---The call it waits for is cancelled; a sleep or a wait raises.
function task:cancel() end

---@return "running"|"done"|"failed"
function task:status() end

---@param fn fun(...)
---@param ... any
---@return weir.task
function weir.spawn(fn, ...) end

---@param seconds number 0 lets others run.
function weir.sleep(seconds) end

---Waits until a descriptor can be read from or written to, while others run. One waiter for each direction.
---@param descriptor integer|{ getfd: fun(self): integer } Not to be closed meanwhile.
---@param what "r"|"w"|"rw" "rw": whichever comes first.
---@param seconds? number How long at most; nil: for ever.
---@return "r"|"w"|"rw"|nil ready What it is ready for; nil when the time is over.
function weir.poll(descriptor, what, seconds) end

---Waits for all; then the first error is raised again.
---@param ... weir.task|fun()|(weir.task|fun())[]
---@return table[] results The packed results of each: { n = count, ... }.
function weir.gather(...) end

---Runs main(...) as a task until it and all it started have ended.
---@param main fun(...)
---@param ... any
---@return boolean ok, any ...
function weir.run(main, ...) end

---The engine that keeps its area in the file at `path`, in whatever process: what `weir repl --area` sees.
---@param path string
---@return weir.view? view, weir.error? err
function weir.attach(path) end

---The console's prompt where a script stands; returns when it ends (Ctrl-D). Other tasks go on meanwhile. Full line
---editing under the command `weir`, plain lines elsewhere.
---@param options? { names?: table<string, any>, view?: weir.view, error?: any, json?: boolean } names: seen at the
---prompt beside the globals; view: what is seen and steered (else `db`, or the only engine there is).
function weir.repl(options) end

---@return number seconds Monotonic.
function weir.now() end

-- ---- what a policy does (see explain.d.lua) --------------------------------------------------------------

---Runs the policy in simulations and tells what it does; tostring gives it in words.
---@param policy weir.policy|fun(): weir.policy
---@param about? weir.surroundings
---@return weir.explanation
function weir.explain(policy, about) end

---Runs the policy in simulations and tells what in it does not do what it seems to say; empty if nothing.
---@param policy weir.policy|fun(): weir.policy
---@param about? weir.surroundings
---@return weir.finding[]
function weir.lint(policy, about) end

-- ---- guards alone ---------------------------------------------------------------------------------------

---@class weir.refusal: weir.error

---@class weir.permit

---@class weir.breaker
local breaker = {}

---@class weir.breaker_alone: weir.breaker_options
---@field name? string
---@field clock? fun(): number Seconds; for tests.

---@param options? weir.breaker_alone
---@return weir.breaker
function weir.breaker(options) end

---@return weir.permit?, weir.refusal?
function breaker:admit() end

---@param permit weir.permit
---@param verdict "success"|"failure"|"neutral" neutral: nothing is counted.
---@param elapsed? number Seconds.
---@param code? string Kept as evidence of a failure.
function breaker:settle(permit, verdict, elapsed, code) end

---@return "CLOSED"|"OPEN"|"HALF_OPEN"|"FORCED_OPEN"|"FORCED_CLOSED"|"DISABLED"|"METRICS_ONLY"
function breaker:state() end

---@param state? "open"|"closed"|"disabled"|"metrics_only"
function breaker:force(state) end

function breaker:reset() end

---OPEN becomes HALF_OPEN now.
---@return boolean
function breaker:probe_passed() end

---@return table counts, rates, state, refused, opened_count, retry_after, evidence
function breaker:snapshot() end

---@param event "transition"|"refused"|"rate_exceeded"
---@param fn fun(event: table)
---@return weir.breaker
function breaker:on(event, fn) end

---@class weir.backoff
local backoff = {}

---@param options? weir.backoff_options
---@return weir.backoff
function weir.backoff(options) end

---@return number seconds
function backoff:next() end

function backoff:reset() end

---@class weir.budget
local budget = {}

---@class weir.budget_alone: weir.budget_options
---@field clock? fun(): number

---@param options? weir.budget_alone
---@return weir.budget
function weir.budget(options) end

function budget:request() end

function budget:success() end

---@return boolean
function budget:withdraw() end

---@return number
function budget:level() end

---@return number
function budget:cap() end

---@class weir.limit
local limit = {}

---@param options { max: integer, queue?: integer }
---@return weir.limit
function weir.limit(options) end

---@param seconds? number How long to wait in the queue.
---@return true?, weir.refusal?
function limit:acquire(seconds) end

function limit:release() end

---@return integer
function limit:used() end

---@return integer
function limit:max() end

---@return integer
function limit:waiting() end

---@class weir.rate
local rate = {}

---@param options { per_second: number, burst?: number, clock?: fun(): number }
---@return weir.rate
function weir.rate(options) end

---@return true?, weir.refusal?
function rate:take() end

function rate:wait() end

---@class weir.guard
local guard = {}

---@class weir.guard_options
---@field breaker? weir.breaker|weir.breaker_alone
---@field limit? weir.limit|{ max: integer, queue?: integer }
---@field budget? weir.budget|weir.budget_alone
---@field rate? weir.rate|{ per_second: number, burst?: number }
---@field timeout? number Seconds, of one attempt. What never waits is measured afterwards.
---@field retry? weir.guard_retry

---@class weir.guard_retry: weir.backoff_options
---@field retries? integer (3)
---@field when? fun(err: any, attempt: integer): boolean

---@param options? weir.guard_options
---@return weir.guard
function weir.guard(options) end

---Runs fn behind the guards. nil and an error, or a raised error, is a failure: counted, retried, and the
---last one passed on as it came. Refusals and timeouts are nil and an error.
---@param label string
---@param fn fun(): ...
---@return ...
function guard:run(label, fn) end

return weir
