---@meta weir.options
-- What weir.open takes, and what a policy's functions are given, for the Lua language server. Never loaded.

---@class weir.backend
---@field conninfo string libpq keywords or URI.
---@field pooler? boolean A transaction pooler stands between: no named statements, no session state.
---@field critical? boolean Readiness depends on it.

---@class weir.client_options ANON: role. SERVICE: bypass_rls = true. One of the two, never both.
---@field user? string
---@field password? string
---@field role? string The role users' statements run under.
---@field bypass_rls? boolean
---@field min? integer Connections kept (0).
---@field max? integer Connections at most (10).
---@field queue_max? integer Waiting calls (10 * max, times multiplex).
---@field multiplex? integer Read-only single calls that may share a connection at a time, up to 64 (0: none).

---@class weir.breaker_options
---@field window? number Seconds, sliding, 1 to 60 (10).
---@field window_calls? integer Instead: the last n calls.
---@field min_calls? integer No rate is judged below (20).
---@field failure_rate? number Above 0, at most 1 (0.5).
---@field slow_call? number Seconds; a call is slow if it took longer (off).
---@field slow_rate? number Above 0, at most 1 (1).
---@field consecutive? integer Failures in a row that trip; named without a rate it judges alone.
---@field open_for? number|fun(k: integer): number Seconds (60); a function only alone.
---@field half_open? { permits?: integer, wait?: number }
---@field lease? number Seconds after which an unsettled half-open permit is taken back (60).
---@field initial? "closed"|"open"|"half_open"|"forced_open"|"forced_closed"|"disabled"|"metrics_only"

---@class weir.backoff_options
---@field kind? "full"|"equal"|"decorrelated"|"exponential"|"constant"
---@field base? number Seconds (0.05).
---@field cap? number Seconds (2).
---@field factor? number (2)
---@field seed? integer The same seed gives the same delays.

---@class weir.budget_options
---@field kind? "tokens"|"ratio"
---@field per_success? number Tokens per success (0.1); ratio: retries per request.
---@field floor? number Tokens at the start (10); ratio: retries a second always allowed.
---@field cap? number Most tokens (100).
---@field window? number ratio: seconds.

---What a retry policy sees.
---@class weir.failure
---@field safe boolean Never sent, or rolled back for sure.
---@field class "safe"|"unknown"|"permanent"
---@field code weir.code
---@field phase "not_sent"|"sent"|"commit_sent"|"done"
---@field sqlstate? string
---@field message? string
---@field attempt integer 1 after the first attempt.
---@field elapsed number
---@field remaining number
---@field delay number What backoff() gives.
---@field budget number Retries left in the budget.
---@field context string
---@field label? string
---@field client string
---@field backend string
---@field readonly boolean
---@field idempotent boolean
local failure = {}

---What the configured backoff would wait, in seconds; drawn once.
---@return number
function failure:backoff() end

---What a policy is told of the call; valid until it returns.
---@class weir.call
---@field client string
---@field context string
---@field readonly boolean
---@field idempotent boolean
---@field backend? string
---@field label? string

---@class weir.check
---@field check fun(): any, any A true value is well; nil or false and a reason is not, nor is an error.
---@field critical? boolean Its failure makes the whole engine unhealthy.
---@field timeout? number Seconds until it counts as failed and is cancelled where it waits (5, at most the interval).

---A delay in seconds; nil or false gives up.
---@alias weir.retry_policy fun(failure: weir.failure, call: weir.call): number|false|nil

---@class weir.health_options
---@field interval? number Seconds (30; 0: no monitor).
---@field probe_interval? number Seconds between probes while a breaker is open; doubles (1).
---@field checks? table<string, weir.check|fun(): any, any>

---@class weir.log_options
---@field to? string "stderr", "nginx" inside nginx, or a path with a "/" in it ("stderr"; inside nginx "nginx").
---@field format? "logfmt"|"json" ("logfmt")
---@field level? "info"|"warn"|"error"|"off" The least that is written ("info").

---@class weir.options
---@field backends table<string, string|weir.backend> The default route is `primary`, or the only one.
---@field clients table<string, weir.client_options>
---@field name? string
---@field timeout? number Of the whole call, seconds (10).
---@field connect_timeout? number (3)
---@field acquire_timeout? number (what is left of timeout)
---@field idle_timeout? number (600; 0: never)
---@field lifetime? number (1800; 0: for ever)
---@field leak_after? number A unit holding a connection longer is reported (30).
---@field cancel_wait? number (10)
---@field connect_at_once? integer 1 to 16 (4), over all workers of the area.
---@field connect_rate? number Connects per second to one server over all workers; 0 off (0).
---@field prepared? integer Prepared statements per connection (256; 0: none).
---@field queue? "adaptive"|"fifo"|"codel"|{ kind?: string, target?: number, interval?: number }
---@field reset? "auto"|"always"|"never"
---@field breaker? weir.breaker_options
---@field backoff? weir.backoff_options
---@field budget? weir.budget_options
---@field retries? integer Of the built-in policy (3).
---@field retries_max? integer The most any policy gets (20).
---@field retry? integer|weir.retry_policy
---@field route? fun(call: weir.call): string Names the backend.
---@field label? fun(context: string): string Bounds what metrics are split by.
---@field log? weir.log_options|false Where events and slow calls are logged (nowhere; inside nginx its error log).
---@field slow_log? number A call that took longer, in seconds, is logged with its timeline (0: none); without `log`, on stderr.
---@field trace? "off"|"comment" Whether a call's traceparent goes to the server behind its statements ("off").
---@field policy_slice? number How long a policy may run, seconds (0.01).
---@field policy_faults? integer Faults in a row that switch a policy off (5).
---@field health? weir.health_options
---@field area? string A file shared by several workers; private memory without it.
---@field area_size? integer Bytes: the largest layout that fits.
---@field area_group_read? boolean
---@field seed? integer
---@field null? boolean SQL NULL arrives as weir.null instead of being absent.
