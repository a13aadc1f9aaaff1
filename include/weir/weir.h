/* weir/weir.h: the engine. Pools of PostgreSQL connections behind breakers, retries and budgets, driven by the
 * event loop of whoever embeds it.
 *
 * Threads: an engine belongs to the thread that opened it; every function here is called from that thread. After a fork the
 * child must not use it: functions there give WEIR_ESTATE or do nothing, weir_free included.
 * Durations are nanoseconds. Strings passed in are copied unless said otherwise. Functions that return int
 * return WEIR_OK or a negative WEIR_E... code of weir/guard.h and, where they take `why` (WEIR_WHY_MAX bytes,
 * may be NULL), leave a sentence that names the knob, the value and the limit. Secrets never appear in it. */
#ifndef WEIR_WEIR_H
#define WEIR_WEIR_H

#include "weir/guard.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_VERSION "0.1.0"

typedef struct weir_engine weir_engine;
typedef struct weir_call weir_call;
typedef struct weir_driver weir_driver; /* how to reach a server; see weir_driver_pg */
typedef struct weir_result weir_result;

/* ---- the host: what the embedding loop lends ------------------------------------------------------------ */

enum { WEIR_READ = 1, WEIR_WRITE = 2 };

typedef enum weir_log_level { /* of a line: the first three; least that is logged: also OFF */
                              WEIR_LOG_INFO = 0,
                              WEIR_LOG_WARN,
                              WEIR_LOG_ERROR,
                              WEIR_LOG_OFF
} weir_log_level;

typedef struct weir_host {
    void *ctx;
    uint64_t (*now_ns)(void *ctx);  /* monotonic */
    uint64_t (*wall_us)(void *ctx); /* since 1970, for records */
    int (*watch)(void *ctx, int fd,
                 unsigned events);            /* full interest, 0 forgets; 0 on success. Level-triggered:
                                                          * a readable descriptor is reported until it is drained */
    void (*arm)(void *ctx, int64_t delay_ns); /* the one timer, single shot; < 0 disarms; 0: soon, never
                                                          * from inside this call */
    void *(*resize)(void *ctx, void *old, size_t size); /* realloc; size 0 frees. NULL: libc's */
    uint64_t seed;                                      /* of all jitter; the same seed, the same delays */
    const char *
        scarce; /* what each watched descriptor takes one of, for the message when watch() has none left, such as
                         * "worker_connections of nginx"; NULL: "descriptors". Outlives the engine */
    /* Where the log goes if weir_options.log_to names nothing: a line at a time, without a line feed, of less than 2 KiB,
     * ended by a NUL that is not counted. False: the line is lost, which the log tells later on. It must not call the
     * engine. NULL: no log. Weir's own host leaves both alone: copy its hooks and set them. */
    bool (*log)(void *log_ctx, weir_log_level level, const char *line, size_t length);
    void *log_ctx;
} weir_host;

/* The loop reports here. All completions run inside these two and nowhere else; they must not be called from a
 * completion or a policy (WEIR_ESTATE, nothing done). */
int weir_on_ready(weir_engine *engine, int fd, unsigned events);
int weir_on_timer(weir_engine *engine);

/* ---- what went wrong ------------------------------------------------------------------------------------- */

typedef enum weir_code { /* how a call ended; only ever grows at the end */
                         WEIR_CALL_OK = 0,
                         WEIR_CALL_SERVER,       /* the server answered with an error; sqlstate tells */
                         WEIR_CALL_LOST,         /* the connection was lost with the call on it */
                         WEIR_CALL_CONNECT,      /* no connection could be made */
                         WEIR_CALL_TIMEOUT,      /* the deadline passed */
                         WEIR_CALL_BREAKER_OPEN, /* refused: the breaker is open */
                         WEIR_CALL_QUEUE_FULL,   /* refused: as many calls wait as may */
                         WEIR_CALL_ACQUIRE_TIMEOUT, /* refused: no connection within acquire_timeout, or dropped from a standing queue */
                         WEIR_CALL_PAUSED,    /* refused: an operator paused the pool */
                         WEIR_CALL_DRAINING,  /* refused: the engine is closing */
                         WEIR_CALL_CANCELLED, /* the caller gave up */
                         WEIR_CALL_IDENTITY,  /* the login may not be used as this kind of client */
                         WEIR_CALL_ABORTED,   /* COMMIT rolled back: an error before it had been swallowed */
                         WEIR_CALL_MISUSE,    /* e.g. transaction control inside a unit of work */
                         WEIR_CALL_NO_MEMORY,
                         WEIR_CALL_ROLLED_BACK /* the caller's own function asked for it; not an error of the database */
} weir_code;

typedef enum weir_class {                      /* what a retry may assume */
                          WEIR_CLASS_NONE = 0, /* nothing failed */
                          WEIR_CLASS_SAFE, /* never sent, or rolled back for sure; may succeed if repeated */
                          WEIR_CLASS_UNKNOWN,  /* may have been committed */
                          WEIR_CLASS_PERMANENT /* repeating gives the same answer */
} weir_class;

typedef enum weir_outcome {
    WEIR_OUTCOME_NONE = 0, /* nothing was sent */
    WEIR_OUTCOME_COMMITTED,
    WEIR_OUTCOME_ROLLED_BACK,
    WEIR_OUTCOME_UNKNOWN
} weir_outcome;

typedef enum weir_phase {
    WEIR_PHASE_NOT_SENT = 0,
    WEIR_PHASE_SENT,
    WEIR_PHASE_COMMIT_SENT,
    WEIR_PHASE_DONE /* the server's verdict has arrived */
} weir_phase;

typedef struct weir_error {
    weir_code code;
    weir_class class_;
    weir_outcome outcome;
    weir_phase phase;
    char sqlstate[6]; /* "" if none */
    char severity[8]; /* "ERROR", "FATAL", ... or "" */
    uint32_t attempts;
    uint32_t position;       /* in the SQL text, 1-based; 0 if none */
    uint64_t retry_after_ns; /* when a refusal can be expected to end; 0 if not known */
    char message[512];
    char detail[256]; /* the server's DETAIL: carries data, for the caller only, never logged */
    char hint[256];
    char evidence[256]; /* of a refusal: which guard, on what counts */
    char context[96];
    char pool[64]; /* client@backend, "" before routing */
} weir_error;

const char *weir_code_name(weir_code code);          /* "server_error", "timeout", "breaker_open", ... */
const char *weir_class_name(weir_class class_);      /* "none", "safe", "unknown", "permanent" */
const char *weir_outcome_name(weir_outcome outcome); /* "none", "committed", "rolled_back", "unknown" */
const char *weir_phase_name(weir_phase phase);       /* "not_sent", "sent", "commit_sent", "done" */

/* ---- policy ------------------------------------------------------------------------------------------------ */

typedef struct weir_statement {
    const char *sql;           /* one statement, no NUL inside */
    const char *const *values; /* NULL: SQL NULL */
    const int *lengths;        /* used for binary values only; may be NULL if there are none */
    const int *formats;        /* 0 text, 1 binary; NULL: all text */
    const uint32_t *types;     /* type OIDs, 0: inferred by the server; NULL: all inferred */
    size_t count;              /* 0 .. 65535 */
} weir_statement;

typedef struct weir_request {
    const char *client; /* name of a client in the options */
    const char
        *context;       /* required: what this call is for; becomes application_name and the label's source */
    const char *claims; /* JSON object; required for ANON clients */
    const char *backend;   /* NULL: the route policy decides */
    const char *isolation; /* units: NULL, "read committed", "repeatable read", "serializable" */
    /* W3C trace context: kept in the flight recorder and, by weir_options.trace, sent to the server; what is none by its
     * form is only kept. NULL: none. */
    const char *traceparent;
    bool readonly;       /* declared: has no effect to lose; units run READ ONLY */
    bool idempotent;     /* declared: repeating it is harmless even if it was committed */
    bool by_hand;        /* units: never run again once READY: its results have been shown */
    uint64_t timeout_ns; /* 0: the engine's */
    void (*notify)(void *user,
                   weir_call *call); /* status became READY, REPLIED or ENDED; from the loop only */
    void *user;
} weir_request;

typedef struct weir_failure { /* what a retry policy sees */
    const char *client, *backend, *context, *label;
    weir_code code;
    weir_class class_;
    weir_phase phase;
    const char *sqlstate, *message;
    uint32_t attempt; /* 1 after the first attempt */
    uint64_t elapsed_ns, remaining_ns;
    uint64_t backoff_ns; /* what the configured backoff would wait; drawn once */
    bool readonly, idempotent;
    double budget; /* tokens left */
} weir_failure;

typedef enum weir_decision { WEIR_GIVE_UP = 0, WEIR_RETRY, WEIR_POLICY_FAULT } weir_decision;

/* The operator's hooks; each may be NULL. They run on the loop, must not block and must not call the engine. A hook
 * that answers WEIR_POLICY_FAULT (why: WEIR_WHY_MAX bytes) or nonsense is replaced by the built-in policy for this
 * call, counted and logged, and switched off after `policy_faults_max` faults in a row. */
typedef struct weir_policy {
    void *ctx;
    weir_decision (*retry)(void *ctx, const weir_failure *failure, uint64_t *delay_ns, char *why);
    weir_decision (*route)(void *ctx, const weir_request *request, char *backend, size_t size,
                           char *why); /* WEIR_RETRY: set */
    weir_decision (*label)(void *ctx, const char *context, char *label, size_t size,
                           char *why); /* WEIR_RETRY: set */
} weir_policy;

enum { WEIR_POLICY_MAX = 256 * 1024 }; /* bytes of a policy's text */

/* ---- options ------------------------------------------------------------------------------------------------ */

typedef enum weir_kind { WEIR_SERVICE = 0, WEIR_ANON } weir_kind;

typedef struct weir_backend {
    const char *name;     /* letters, digits, - and _; up to 31 bytes */
    const char *conninfo; /* libpq keywords or URI */
    bool pooler;          /* a transaction pooler stands between: no named statements, no session state */
    bool critical;        /* its loss makes the engine unhealthy, however many others answer */
} weir_backend;

typedef struct weir_client {
    const char *name;
    weir_kind kind;
    const char *user, *password; /* NULL: what the conninfo says */
    const char *role;            /* ANON: the role statements run under; required */
    bool bypass_rls;             /* SERVICE: must be true, said out loud */
    uint32_t min, max;  /* connections over all workers of the area: 0 <= min <= max, 1 <= max <= 10 000 */
    uint32_t queue_max; /* waiting calls; 0: 10 for each that may run, so 10 * max, times multiplex */
    /* Calls that may share one connection at a time, 2 .. 64; 0 or 1: none. Only single, declared read-only calls do, each
     * in a transaction of its own; a lost connection then loses them all (class safe). No effect behind a pooler. */
    uint32_t multiplex;
} weir_client;

typedef enum weir_queue { WEIR_QUEUE_ADAPTIVE = 0, WEIR_QUEUE_FIFO, WEIR_QUEUE_CODEL } weir_queue;
typedef enum weir_trace { WEIR_TRACE_OFF = 0, WEIR_TRACE_COMMENT } weir_trace;
typedef enum weir_reset { WEIR_RESET_AUTO = 0, WEIR_RESET_ALWAYS, WEIR_RESET_NEVER } weir_reset;

typedef struct weir_check { /* a health check of the program's own */
    const char *name;
    bool critical;
} weir_check;

typedef struct weir_options {
    const char *name; /* of the engine, 1 .. 31 bytes */
    const weir_backend *backends;
    size_t backend_count; /* 1 .. 16; the first is the default route */
    const weir_client *clients;
    size_t client_count; /* 1 .. 16 */

    uint64_t timeout_ns; /* whole call */
    uint64_t connect_timeout_ns;
    uint64_t acquire_timeout_ns; /* 0: what is left of timeout */
    uint64_t idle_timeout_ns;    /* 0: never */
    uint64_t lifetime_ns;        /* minus up to 10 % jitter; 0: for ever */
    uint64_t leak_after_ns;      /* a unit holding a connection longer is reported; 0: never */
    uint64_t cancel_wait_ns;     /* a cancelled connection not back by then is closed */
    uint32_t
        connect_at_once; /* connects under way per server, over all workers of the area, 1 .. 16: the storm cap */
    double
        connect_rate; /* connects begun per second per server, over all workers, after a first connect_at_once; 0: off */
    uint32_t prepared_max; /* prepared statements per connection; 0: none */
    weir_queue queue;
    uint64_t queue_target_ns, queue_interval_ns; /* CODEL's */
    weir_reset reset;

    weir_breaker_config breaker; /* of each pool */
    weir_backoff_kind backoff;
    uint64_t backoff_base_ns, backoff_cap_ns;
    double backoff_factor;
    uint32_t retries; /* of the built-in policy, and the most any policy gets is retries_max */
    uint32_t retries_max;
    weir_budget_config budget;

    uint64_t health_interval_ns; /* 0: no monitor */
    uint64_t probe_interval_ns;  /* while a breaker is open; doubles up to 30 s */
    const weir_check *checks;
    size_t check_count;                        /* 0 .. 32 */
    void (*on_check)(void *ctx, size_t index); /* due now: answer with weir_check_settle */
    void *check_ctx;

    weir_policy policy;
    uint32_t policy_faults_max;

    /* The area holds a policy text of a generation that this engine has not read: from the loop, within half a second. */
    void (*on_policy)(void *ctx, uint64_t generation);
    void *policy_ctx;

    /* COMMENT: a call's traceparent goes to the server as a comment behind each of its statements that has none of its own
     * (sqlcommenter). A text that is another one in every call gets no prepared statement: it is parsed each time. */
    weir_trace trace;

    /* The structured log: what this engine puts in the event log, and slow calls, one line each. Never SQL, parameters,
     * claims or passwords. Of one sort at most so many lines a second; what is suppressed is counted in a line. */
    const char
        *log_to; /* "stderr", or a path with a '/' in it; NULL: weir_host.log, or nowhere if there is none */
    bool log_json; /* one JSON object per line; false: logfmt */
    weir_log_level log_level;
    uint64_t
        slow_log_ns; /* a call that took longer is logged (WARN) with its timeline; 0: none. Needs a log */

    const char
        *host_name; /* what runs this engine, for whoever looks at the area; NULL: the program's name */
    const char *area_path; /* NULL: private memory */
    uint64_t area_size;    /* bytes: the largest layout that fits; 0: the default one. Equal in all workers */
    bool area_group_read;
} weir_options;

void weir_options_defaults(weir_options *options); /* every default of the README's table */

/* libpq. The only driver in this library. */
const weir_driver *weir_driver_pg(void);

/* Opens the engine; nothing is connected yet (pools with min > 0 start on the first timer). The host is copied, what
 * its ctx points to must outlive the engine. On failure *out is NULL and nothing is left behind. */
int weir_open(weir_engine **out, const weir_options *options, const weir_host *host,
              const weir_driver *driver, char *why);

/* What weir_open would refuse, as far as the options alone tell, and whose area the file at area_path is: nothing is
 * opened. driver: may be NULL; else it reads the conninfos. WEIR_OK, WEIR_EINVAL, WEIR_ENOMEM. */
int weir_options_check(const weir_options *options, const weir_driver *driver, char *why);

/* Why the area found at area_path was replaced by another when this engine opened: damaged, of another layout, size or
 * boot. "" if it was not. Lives as long as the engine. */
const char *weir_area_replaced(const weir_engine *engine);

/* No new calls from now on (WEIR_CALL_DRAINING); running ones may end until timeout_ns has passed, then they are
 * cancelled. weir_drained turns true when no call and no connection is left. */
void weir_drain(weir_engine *engine, uint64_t timeout_ns);
bool weir_drained(const weir_engine *engine);

/* Ends what is left at once (unfinished calls: WEIR_CALL_CANCELLED, their notify runs inside), joins threads, frees.
 * Calls not yet freed by their owner stay readable until weir_call_free (for which the host's resize must still work).
 * A call submitted from one of these last notifies is refused, and told so as long as that goes on for at most 64 rounds. Accepts NULL. Not from a completion. */
void weir_free(weir_engine *engine);

/* ---- calls --------------------------------------------------------------------------------------------------- */

typedef enum weir_status {
    WEIR_WAITING = 0, /* the engine is at work */
    WEIR_READY,       /* units: a connection is held, run the unit's function from its start */
    WEIR_REPLIED,     /* units: the last send has its results or its error */
    WEIR_ENDED        /* for good: results or error */
} weir_status;

/* Submits statements as one implicit transaction in one round trip, retried as a whole. On misuse (unknown client, no
 * context, ANON without claims, transaction control in the SQL) *out is NULL, WEIR_EINVAL and why. Everything else that
 * goes wrong ends the call. The caller owns the call and frees it exactly once. */
int weir_submit(weir_engine *engine, const weir_request *request, const weir_statement *statements,
                size_t count, weir_call **out, char *why);

/* Begins a unit of work: one transaction over several round trips. First status: READY (attempt 1) or ENDED. */
int weir_begin(weir_engine *engine, const weir_request *request, weir_call **out, char *why);

/* READY or REPLIED -> WAITING -> REPLIED. WEIR_ESTATE in any other status, WEIR_EINVAL for SQL that would end the
 * transaction, WEIR_ENOMEM; none of them changes the status. An error in REPLIED leaves the transaction failed: end the unit. */
int weir_unit_send(weir_call *call, const weir_statement *statements, size_t count, char *why);

typedef enum weir_finish {
    WEIR_COMMIT = 0, /* the function returned */
    WEIR_ROLLBACK,   /* the function raised an error of its own: roll back, never retry */
    WEIR_FAILED      /* the engine's error ended the function: roll back, retry if the policy says so */
} weir_finish;

/* READY or REPLIED -> WAITING -> READY (run again, attempt + 1) or ENDED. */
int weir_unit_finish(weir_call *call, weir_finish how);

/* The caller gives up: the call has ENDED with CANCELLED when this returns (its notify comes in the next turn); what runs
 * on the server is cancelled. No effect on one that has ended. */
void weir_call_cancel(weir_call *call);
/* Gives back all memory; an unfinished call is cancelled first and its notify is not called any more. */
void weir_call_free(weir_call *call);

weir_status weir_call_status(const weir_call *call);
const weir_error *weir_call_error(const weir_call *call); /* NULL when REPLIED or ENDED well */
uint32_t weir_call_attempt(const weir_call *call);        /* 1 .. */
uint64_t weir_call_remaining_ns(const weir_call *call);   /* until its deadline */
size_t weir_call_result_count(const weir_call *call);
/* NULL if out of range. Valid until the next weir_unit_send, finish or free. After a statement failed there are the results
 * of those before it; what they changed has been, or will be, rolled back with it. */
const weir_result *weir_call_result(const weir_call *call, size_t index);
void *weir_call_user(const weir_call *call);

/* Results: rows and columns from 0; out of range gives 0, NULL or "". Values as text, except binary-only. */
size_t weir_result_rows(const weir_result *result);
size_t weir_result_columns(const weir_result *result);
const char *weir_result_name(const weir_result *result, size_t column);
uint32_t weir_result_type(const weir_result *result, size_t column); /* type OID */
const char *weir_result_value(const weir_result *result, size_t row, size_t column,
                              size_t *length); /* NULL: SQL NULL */
/* The same of up to `count` columns from `column` on, at less cost each. Returns how many there are, which is how much of
 * both arrays it has written. */
size_t weir_result_values(const weir_result *result, size_t row, size_t column, size_t count,
                          const char **values, size_t *lengths);
const char *weir_result_tag(const weir_result *result); /* "SELECT 3", "INSERT 0 1", ... */
uint64_t weir_result_affected(const weir_result *result);
size_t weir_result_notice_count(const weir_result *result);              /* of its segment, bounded */
const char *weir_result_notice(const weir_result *result, size_t index); /* "NOTICE: text" */

/* ---- seeing and steering --------------------------------------------------------------------------------------- */

typedef enum weir_health { WEIR_HEALTHY = 0, WEIR_DEGRADED, WEIR_UNHEALTHY } weir_health;

weir_health weir_health_now(weir_engine *engine);
/* JSON as the health endpoint gives it / all figures per pool, recorder and events. Writes at most size bytes with NUL and
 * returns the length of the whole text without NUL, like snprintf.
 * In stats, a pool's "histogram" tells how many of its calls took less than each edge ("edges_ms", four per octave from
 * 0.033 ms to 34 s: "below"): what took how long between two readings is their difference. A label's tells only what is
 * neither 0 nor all of them, from the edge "first" on. */
size_t weir_health_json(weir_engine *engine, char *out, size_t size);
size_t weir_stats_json(weir_engine *engine, char *out, size_t size);
size_t weir_calls_json(weir_engine *engine, size_t most, char *out,
                       size_t size); /* flight recorder, newest first */
size_t weir_events_json(weir_engine *engine, uint64_t after, char *out, size_t size);

/* The answer to on_check; elapsed_ns as measured by the checker, message NULL if it is well. */
void weir_check_settle(weir_engine *engine, size_t index, bool ok, uint64_t elapsed_ns, const char *message);

/* Orders of weir/area.h in short: FORCE, and PAUSE or RESUME. pool: "client@backend", or NULL for all. WEIR_EINVAL if there
 * is no such pool. */
int weir_force_breaker(weir_engine *engine, const char *pool, weir_breaker_state state, char *why);
int weir_pause(weir_engine *engine, const char *pool, bool paused, char *why);

/* The policy as text, whatever its language: kept in the area, so that all engines on it can follow the same one. Its
 * generation counts from 1 in the life of the area. A text is whole or not there, whoever is killed in the middle.
 * publish: WEIR_OK; WEIR_EINVAL: empty, or longer than WEIR_POLICY_MAX; WEIR_ESYS: another process has been at it for a
 * second. read: the newest; at most size bytes with NUL, and returns its length like snprintf, 0 if there is none; the
 * engine counts it as read. applied: tells the event log that a generation is in force here (why NULL), or why it
 * was refused. */
int weir_policy_publish(weir_engine *engine, const char *text, size_t length, uint64_t *generation,
                        char *why);
size_t weir_policy_read(weir_engine *engine, char *out, size_t size, uint64_t *generation);
void weir_policy_applied(weir_engine *engine, uint64_t generation, const char *why);

/* Opens the file of log_to anew, after a rotation has moved it. WEIR_OK, also where there is no file; WEIR_ESYS and why:
 * it goes on with the one it had. From anywhere in the engine's thread, a completion or a policy too. */
int weir_log_reopen(weir_engine *engine, char *why);
/* The path that the log is written to; NULL: to none. Lives as long as the engine. */
const char *weir_log_path(const weir_engine *engine);

/* One pool at this moment, cheap enough to be asked after every call. Pools are numbered from 0, client by client and
 * within a client backend by backend, in the order of the options. */
typedef struct weir_pool_view {
    const char *name; /* client@backend; lives as long as the engine */
    weir_breaker_state breaker;
    uint32_t max;                        /* connections it may have */
    uint32_t connections, idle, waiting; /* of this engine: open or opening; idle; calls that wait for one */
} weir_pool_view;
size_t weir_pool_count(const weir_engine *engine);
bool weir_pool_now(const weir_engine *engine, size_t index, weir_pool_view *out); /* false: out of range */

/* What is held at this moment; all zero when the engine is at rest. */
typedef struct weir_held {
    size_t calls;     /* not yet freed by their owners */
    size_t in_flight; /* not yet ended */
    size_t leased;    /* connections on a call */
    size_t connecting, canceling, idle;
    size_t timers; /* armed for calls */
    size_t waiting;
    uint64_t allocations; /* ever made by the engine itself */
} weir_held;
void weir_held_now(const weir_engine *engine, weir_held *out);

#ifdef __cplusplus
}
#endif
#endif
