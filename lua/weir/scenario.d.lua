---@meta weir.scenario
-- The words of a scenario for the Lua language server. Never loaded; examples/scenarios show them in use. Durations
-- and moments are seconds; moments count from the beginning of the scenario.

---@class weir.scenario
local s = {}

---How a duration is spread; made by s.exponential and its like.
---@class weir.distribution

---A duration: a number of seconds, or how it is spread.
---@alias weir.scenario.duration number|weir.distribution

---@class weir.scenario.server
---@field workers? integer Statements at a time (8).
---@field queue? "fifo"|"shared" The others wait in order, or all run at once and slow each other down.
---@field service? weir.scenario.duration Of a statement (exponential, 2 ms).
---@field commit? weir.scenario.duration
---@field connect? weir.scenario.duration Of making a session, on a worker.
---@field network? weir.scenario.duration One way.
---@field connections? integer One more is refused with 53300 (100).
---@field ignores_cancel? boolean A statement whose client has gone runs on.
---@field follows? string It is a replica of that server.
---@field lag? weir.scenario.duration Of a replica.
---@field answers? table[] { "text of a statement", service=, writes=, error=, message=, rows=, columns= } or { "text", function(asked) ... end }

---One kind of call; the context comes first: { "GET /contacts", client = "anon", claims = { sub = "ada" }, sql = "..." }
---@class weir.scenario.call
---@field client? string "service", or the only one there is.
---@field claims? table|string
---@field sql? string|string[] $1 without values is the request's number, by which the books know a write.
---@field values? table
---@field weight? number How often, against the others (1).
---@field unit? boolean BEGIN, the statements one after the other, COMMIT.
---@field writes? boolean Followed in the books; by itself for a write whose first value is the number.
---@field readonly? boolean
---@field idempotent? boolean
---@field timeout? number
---@field isolation? string
---@field backend? string
---@field work? fun(db: weir.db, number: integer): any, any Instead of sql: code of your own.

---@class weir.scenario.load
---@field arrivals weir.scenario.arrivals|weir.scenario.arrivals[] A list adds up.
---@field calls? weir.scenario.call[]
---@field caller_retries? integer How often the caller himself tries again after an error (0).
---@field caller_pause? number His pause before it (0).

---@class weir.scenario.fields
---@field policy? table|fun(): table As weir.open takes it; a function gives a fresh one for each run.
---@field servers? table<string, weir.scenario.server>
---@field engines? integer Programs, each with this policy and its share of the load (1).
---@field load weir.scenario.load
---@field phases? weir.scenario.phase[] Made from the faults, if left out: before, during, after.
---@field faults? weir.scenario.event[]
---@field duration number Requests arrive for so long.
---@field drain? number And have so long to end.
---@field expect? weir.scenario.expectation[]
---@field setup? string SQL that makes the tables of the calls, for runs against a real server.

---@class weir.scenario.made
---@field name string
---@field file string
---@field line integer
---@field run fun(self, options?: { seed?: integer, live?: boolean, record?: fun(line: string), ascii?: boolean }): weir.scenario.report
---@field check fun(self, options?: table): weir.scenario.report Raises the report's text if it failed.

---@class weir.scenario.report
---@field ok boolean
---@field name string
---@field seed integer
---@field failures string[] "FILE:LINE: sentence"
---@field skipped? string Why it was not run.
---@field text string
---@field picture string
---@field hash? string The same seed gives the same one; none of a live run.
---@field live? boolean It ran against real servers.
---@field notes? string[] Of a live run: what could not be checked.
---@field figures table Everything that was measured.
---@field seconds number

---@param name string
---@return fun(fields: weir.scenario.fields): weir.scenario.made
function s.scenario(name) end

---The scenarios made since the list was last cleared.
---@param clear? boolean
---@return weir.scenario.made[]
function s.registered(clear) end

-- ---- arrivals -------------------------------------------------------------------------------------------

---@class weir.scenario.arrivals

---So many requests a second on average, at random moments.
---@param per_second number
---@param options? { from?: number, to?: number }
---@return weir.scenario.arrivals
function s.poisson(per_second, options) end

---So many requests a second, evenly spaced.
---@param per_second number
---@param options? { from?: number, to?: number }
---@return weir.scenario.arrivals
function s.constant(per_second, options) end

---A rate that changes evenly from point to point: s.ramp { {0, 100}, {60, 500} }; even = true spaces evenly.
---@param points table
---@return weir.scenario.arrivals
function s.ramp(points) end

---@param options { at: number, requests: integer, every?: number }
---@return weir.scenario.arrivals
function s.burst(options) end

---Users who send, wait for the end, think, and send again.
---@param count integer
---@param options? { think?: weir.scenario.duration, from?: number, to?: number }
---@return weir.scenario.arrivals
function s.users(count, options) end

-- ---- durations ------------------------------------------------------------------------------------------

---@param shortest number
---@param longest number
---@return weir.distribution
function s.uniform(shortest, longest) end

---@param mean number
---@return weir.distribution
function s.exponential(mean) end

---@param mean number
---@param deviation number
---@return weir.distribution
function s.normal(mean, deviation) end

---@param median number
---@param sigma number
---@return weir.distribution
function s.lognormal(median, sigma) end

---@param least number
---@param shape number
---@param cut? number
---@return weir.distribution
function s.pareto(least, shape, cut) end

---@param bins table { { up to how many seconds, weight }, ... }
---@return weir.distribution
function s.histogram(bins) end

-- ---- phases and faults ----------------------------------------------------------------------------------

---@class weir.scenario.phase

---@param name string
---@param from number
---@param to number
---@return weir.scenario.phase
function s.phase(name, from, to) end

---@class weir.scenario.event

---A fault; called with a table it takes options: s.crash "primary" { restart_after = 30 }
---@class weir.scenario.fault
---@overload fun(options: table): weir.scenario.fault

---@param moment number
---@param ... weir.scenario.fault|fun(world: table, db: weir.db)
---@return weir.scenario.event
function s.at(moment, ...) end

---@param from number
---@param to number
---@param ... weir.scenario.fault
---@return weir.scenario.event
function s.between(from, to, ...) end

---Power fails. Options: restart_after, recovery.
---@param server string
---@return weir.scenario.fault
function s.crash(server) end

---A fast shutdown: sessions end with 57P01. Options: restart_after, recovery.
---@param server string
---@return weir.scenario.fault
function s.restart(server) end

---New connections are refused. Options: sqlstate ("53300", or "-" for nobody listening), lasts.
---@param server string
---@return weir.scenario.fault
function s.refuse(server) end

---Statements take longer. Options: factor, lasts.
---@param server string
---@return weir.scenario.fault
function s.slow(server) end

---The server accepts and never answers. Options: lasts.
---@param server string
---@return weir.scenario.fault
function s.freeze(server) end

---Packets vanish both ways. Options: lasts, forgotten.
---@param server string
---@return weir.scenario.fault
function s.vanish(server) end

---The network takes longer, each way. Options: seconds, lasts.
---@param server string
---@return weir.scenario.fault
function s.delay(server) end

---Connections are reset. Options: phase (before_send, after_send, before_answer, at_commit, after_commit), rate,
---count, lasts.
---@param server string
---@return weir.scenario.fault
function s.reset(server) end

---Statements fail. Options: sqlstate, rate, text, lasts.
---@param server string
---@return weir.scenario.fault
function s.errors(server) end

---The server becomes read-only and another one is promoted. Options: to, reconnect_after: after so many seconds new
---connections to its name reach the other one.
---@param server string
---@return weir.scenario.fault
function s.failover(server) end

---SET ROLE is refused. Options: lasts.
---@param server string
---@return weir.scenario.fault
function s.role_lost(server) end

---Passwords have changed: new connections are refused. Options: lasts.
---@param server string
---@return weir.scenario.fault
function s.rotate(server) end

---The wall clock jumps.
---@param by number
---@return weir.scenario.fault
function s.clock_jump(by) end

---The program stands still.
---@param length? number Not in s.between.
---@return weir.scenario.fault
function s.stall(length) end

---@param server string
---@param kind string
---@return weir.scenario.fault
function s.heal(server, kind) end

---@param server string
---@param options weir.scenario.server
---@return weir.scenario.fault
function s.change(server, options) end

-- ---- expectations ---------------------------------------------------------------------------------------

---@class weir.scenario.expectation

---A figure without its limit.
---@class weir.scenario.measure
local measure = {}

---@param limit number
---@return weir.scenario.expectation
function measure:at_least(limit) end

---@param limit number
---@return weir.scenario.expectation
function measure:at_most(limit) end

---@param least number
---@param most number
---@return weir.scenario.expectation
function measure:between(least, most) end

---@param value number
---@return weir.scenario.expectation
function measure:is(value) end

---The share of the requests that ended well, 0 to 1.
---@param phase? string The whole run, if left out.
---@return weir.scenario.measure
function s.goodput(phase) end

---Seconds within which the share q of the successful requests had ended.
---@param phase? string
---@param q number
---@return weir.scenario.measure
function s.latency(phase, q) end

---Attempts per request.
---@param phase? string
---@return weir.scenario.measure
function s.amplification(phase) end

---Seconds from arrival to end of the longest.
---@return weir.scenario.measure
function s.longest_call() end

---@param phase? string
---@return weir.scenario.measure
function s.failed(phase) end

---Refused by a guard: breaker, queue, pause, drain.
---@param phase? string
---@return weir.scenario.measure
function s.refused(phase) end

---@param phase? string
---@return weir.scenario.measure
function s.timed_out(phase) end

---May have been committed.
---@param phase? string
---@return weir.scenario.measure
function s.unknown(phase) end

---@param name string
---@param figure "connects"|"connects_refused"|"statements"|"commits"|"rollbacks"|"cancels"|"writes"|"busy"|"wasted"|"sessions"|"waiting"|"running"|"connects_in_a_second"|"statements_in_a_second"
---@param phase? string
---@return weir.scenario.measure
function s.server(name, figure, phase) end

---A breaker opens. `after`: the beginning of the trouble, if left out.
---@param options { within: number, after?: number, pool?: string }
---@return weir.scenario.expectation
function s.opens(options) end

---A breaker closes. `after`: the end of the trouble, if left out.
---@param options { within: number, after?: number, pool?: string }
---@return weir.scenario.expectation
function s.closes(options) end

---@param phase? string
---@return weir.scenario.expectation
function s.never_opens(phase) end

---The share of requests that end well stays at `to` (0.95) or above. `after`: the end of the trouble, if left out.
---@param options { within: number, after?: number, to?: number }
---@return weir.scenario.expectation
function s.recovers(options) end

---@param most? integer (0)
---@return weir.scenario.expectation
function s.calls_lost(most) end

---@param most? integer (0)
---@return weir.scenario.expectation
function s.executed_twice(most) end

---How often a function of the policy may fail, run too long or give nonsense.
---@param most? integer (0)
---@return weir.scenario.expectation
function s.policy_faults(most) end

---@param fn fun(report: weir.scenario.report): any, string?
---@param sentence? string
---@return weir.scenario.expectation
function s.seen(fn, sentence) end

return s
