---@meta weir.sim
-- weir.sim for the Lua language server: a simulated PostgreSQL in virtual time. Never loaded; README and tests show it
-- in use. Durations and moments are seconds; moments count from the start of the simulation.

---@class weir.sims
---@overload fun(options?: { seed?: integer }): weir.sim The same seed (1) gives the same course of events.
local sims = {}

---@param seconds number Always the same.
---@return weir.distribution
function sims.constant(seconds) end

---@param shortest number
---@param longest number
---@return weir.distribution
function sims.uniform(shortest, longest) end

---@param mean number
---@return weir.distribution
function sims.exponential(mean) end

---@param mean number
---@param deviation number
---@return weir.distribution
function sims.normal(mean, deviation) end

---@param median number
---@param sigma number The deviation of the logarithm.
---@return weir.distribution
function sims.lognormal(median, sigma) end

---@param least number
---@param shape number The smaller, the heavier the tail.
---@param cut? number The longest (1000 times the least).
---@return weir.distribution
function sims.pareto(least, shape, cut) end

---@param bins { [1]: number, [2]: number }[] Up to how many seconds, and its weight; in rising order, the first from 0.
---@return weir.distribution
function sims.histogram(bins) end

---The seed of simulations that name none.
---@param seed? integer
function sims.default_seed(seed) end

---The simulation that runs, or nil.
---@return weir.sim?
function sims.running() end

-- ---- a simulation -----------------------------------------------------------------------------------------

---@class weir.sim
---@field seed integer
---@field clock fun(): number Seconds since the start; also for weir.breaker { clock = sim.clock }.
local sim = {}

---Runs fn(...) in virtual time until it and all tasks it started have ended; what runs in real time stands still.
---Returns what fn returned and raises what it raised.
---@param fn fun(...): ...
---@return any ...
function sim:run(fn, ...) end

---Calls fn() as a task at that moment, before or inside run.
---@param seconds number
---@param fn fun()
---@return weir.task? task Inside run.
function sim:at(seconds, fn) end

---The server of that name, which the backend of the same name reaches; made with the defaults when first named.
---@param name string
---@return weir.sim_server
function sim:server(name) end

---How often the write whose first parameter is `value` took effect.
---@param value any
---@return integer
function sim:executions(value) end

---@class weir.sim_books What became of the writes of loads.
---@field opened integer
---@field closed integer
---@field twice integer Took effect more than once, and nobody had said that they may.
---@field lost integer Told as committed, and not there.
---@field undead integer Told as not committed, and there.
---@field gone integer Committed, then lost by a failover.
---@field unknown_there integer
---@field unknown_not_there integer

---@return weir.sim_books
function sim:books() end

---From now on there are these servers and no others; naming another one is misuse.
---@param servers table<string, boolean>
function sim:only(servers) end

---The wall clock jumps, as by NTP.
---@param seconds number
function sim:step_wall_clock(seconds) end

---The whole program stands still for so long.
---@param seconds number
function sim:stall(seconds) end

---A line of your own in the trace, and part of the hash.
---@param text string
function sim:note(text) end

---Sixteen digits that stand for everything that has happened, in order.
---@return string
function sim:hash() end

---Hands every event as a line to fn, which must only look; nil ends that.
---@param fn? fun(line: string)
function sim:trace(fn) end

-- ---- its servers ------------------------------------------------------------------------------------------

---A number of seconds, or how it is spread.
---@alias weir.duration number|weir.distribution

---@class weir.sim_server_options
---@field workers? integer Statements at a time (8).
---@field queue? "fifo"|"shared" The others wait in order, or all run at once and slow each other down.
---@field service? weir.duration Of a statement (exponential, 2 ms).
---@field commit? weir.duration Of a commit (0.5 ms).
---@field connect? weir.duration Of making a session, on a worker (3 ms).
---@field network? weir.duration One way (0.2 ms).
---@field connections? integer One more is refused with 53300 (100).
---@field ignores_cancel? boolean Neither cancel nor statement_timeout stop a statement.
---@field follows? string It is a replica of that server.
---@field lag? weir.duration Of a replica.

---@class weir.sim_asked What a rule is asked at the moment of execution.
---@field sql string
---@field params table With n; NULL is absent, everything else is text.
---@field claims? table
---@field role? string
---@field user string
---@field now number
---@field seen_until number A replica has seen what its primary committed until then.
---@field in_transaction boolean

---Rows, a number of affected rows, nothing for the usual answer, or nil, a SQLSTATE and a message.
---@alias weir.sim_answer fun(asked: weir.sim_asked): table[]|integer|nil, string?, string?

---@class weir.sim_rule
---@field service? weir.duration
---@field writes? boolean Has an effect; without, as the text says.
---@field error? string A SQLSTATE.
---@field message? string
---@field rows? table<string, any>[]
---@field columns? string[] Their order; without, by name.
---@field answer? weir.sim_answer

---@class weir.sim_fault
---@field lasts? number Until it ends by itself; without, until heal.
---@field after? number crash, restart: up again; without, not by itself. failover: until the address leads to `to`.
---@field recovery? number crash, restart: of it, refusing connects with 57P03.
---@field factor? number slow: how many times as long (10).
---@field rate? number reset, errors: how often, 0 to 1 (1).
---@field seconds? number latency: more, each way.
---@field sqlstate? string refuse (53300; "-": nobody listens), errors.
---@field text? string errors: a part of the statements meant; without, all.
---@field to? string failover: the replica that is promoted.
---@field phase? "before_send"|"after_send"|"before_answer"|"at_commit"|"after_commit" reset
---@field count? integer reset, errors: so many times.
---@field forgotten? boolean vanish: connections there were stay silent for ever.

---@alias weir.sim_fault_kind
---| "crash"
---| "restart"
---| "refuse"
---| "slow"
---| "freeze"
---| "vanish"
---| "latency"
---| "reset"
---| "errors"
---| "failover"
---| "role_lost"
---| "rotate"

---@class weir.sim_stats
---@field connects integer
---@field connects_refused integer
---@field statements integer
---@field commits integer
---@field rollbacks integer
---@field cancels integer
---@field writes integer
---@field busy number Seconds that workers have worked,
---@field wasted number and those of them for clients that had gone.
---@field sessions integer
---@field running integer
---@field waiting integer
---@field sessions_max integer
---@field waiting_max integer
---@field connects_in_a_second_max integer

---@class weir.sim_server
---@field name string
local server = {}

---@param options weir.sim_server_options
---@return weir.sim_server self
function server:set(options) end

---What statements that contain `text` (letters of any case) do; the first rule that fits rules.
---@param text string
---@param does weir.sim_rule|weir.sim_answer
---@return weir.sim_server self
function server:on(text, does) end

---Begins now; one of the same kind is replaced.
---@param kind weir.sim_fault_kind
---@param options? weir.sim_fault
---@return weir.sim_server self
function server:fault(kind, options) end

---Ends a fault; a server that is down comes up.
---@param kind weir.sim_fault_kind
---@return weir.sim_server self
function server:heal(kind) end

---@return weir.sim_stats
function server:stats() end
