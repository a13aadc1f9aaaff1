/* weir/sim.h: a PostgreSQL that does not exist, in a time that does not pass. Engines are opened on it exactly as on
 * libpq and libuv: with its host and its driver; everything between is what runs in production.
 *
 *     weir_sim_new(&sim, 7);
 *     weir_sim_host_new(&host, sim);
 *     weir_open(&engine, &options, weir_sim_hooks(host), weir_sim_driver(sim), why);
 *     weir_sim_bind(host, engine);
 *     ... weir_submit ...
 *     weir_sim_run(sim, &done, weir_sim_now_ns(sim) + 60 * SECOND);
 *
 * The same seed gives the same trace, event by event. A backend of the engine reaches the server of the same name; one
 * that nobody named is made with the defaults. Owner: who made it; one thread. Times are nanoseconds of the virtual
 * clock, which starts at WEIR_SIM_START. */
#ifndef WEIR_SIM_H
#define WEIR_SIM_H

#include "weir/dist.h"
#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_SIM_START UINT64_C(1000000000000) /* so that no moment of a run is 0 */

typedef struct weir_sim weir_sim;
typedef struct weir_sim_host weir_sim_host;
typedef struct weir_sim_server weir_sim_server;

/* ---- the world ------------------------------------------------------------------------------------------------ */

int weir_sim_new(weir_sim **out, uint64_t seed); /* WEIR_OK or WEIR_ENOMEM */
void weir_sim_free(weir_sim *sim);               /* engines and hosts freed before; accepts NULL */
uint64_t weir_sim_now_ns(const weir_sim *sim);
uint64_t weir_sim_random(weir_sim *sim); /* for seeds of whatever else runs in this world */

typedef enum weir_sim_end {
    WEIR_SIM_FLAG = 0, /* *flag became true */
    WEIR_SIM_TIME,     /* the moment has come; the clock stands there */
    WEIR_SIM_IDLE,     /* nothing will ever happen again; the clock stands where it stood */
    WEIR_SIM_STUCK     /* a million events without the clock moving on */
} weir_sim_end;
/* Runs events in order of time, those of one moment in the order they were planned. flag may be NULL; UINT64_MAX: no
 * end. Not from inside itself. */
weir_sim_end weir_sim_run(weir_sim *sim, const volatile bool *flag, uint64_t until_ns);

/* Calls fn(ctx) once at a moment (now, if it has passed), from weir_sim_run; it may do whatever the owner may. The alarm
 * is the caller's memory, zeroed before first use; setting one that is set moves it. */
typedef struct weir_sim_alarm {
    uint64_t private_[8];
} weir_sim_alarm;
void weir_sim_alarm_set(weir_sim *sim, weir_sim_alarm *alarm, uint64_t at_ns, void (*fn)(void *ctx),
                        void *ctx);
void weir_sim_alarm_clear(weir_sim *sim, weir_sim_alarm *alarm);

/* One line per event, without newline: "12.500000000 primary finished 17 0". Told in the middle of it, so the function
 * must only look. NULL: none, and only the hash is kept. */
void weir_sim_trace(weir_sim *sim, void (*line)(void *ctx, const char *text), void *ctx);
void weir_sim_note(weir_sim *sim, const char *text); /* a line of the program's own; part of the hash */
uint64_t weir_sim_hash(const weir_sim *sim);         /* of everything that happened, in order */

/* ---- what one engine runs on -------------------------------------------------------------------------------------- */

int weir_sim_host_new(weir_sim_host **out, weir_sim *sim);
const weir_host *weir_sim_hooks(weir_sim_host *host); /* its seed is drawn from the world's */
const weir_driver *weir_sim_driver(weir_sim *sim);
void weir_sim_bind(weir_sim_host *host, weir_engine *engine);
void weir_sim_host_free(weir_sim_host *host); /* after weir_free of its engine; accepts NULL */
/* The program is stopped (a long pause of its collector, SIGSTOP, a moved VM): nothing reaches the engine until then. */
void weir_sim_stall(weir_sim_host *host, uint64_t until_ns);
void weir_sim_stall_all(weir_sim *sim, uint64_t until_ns); /* of every host */
void weir_sim_step_wall_clock(weir_sim *sim,
                              int64_t by_us); /* as NTP does; the monotonic clock does not notice */

/* ---- servers -------------------------------------------------------------------------------------------------------- */

typedef enum weir_sim_queue {
    WEIR_SIM_FIFO = 0, /* `workers` statements at a time, the others wait in order */
    WEIR_SIM_SHARED    /* all run at once, and slow each other down when they are more than `workers` */
} weir_sim_queue;

/* The statements of one segment share its statement_timeout. There are no prepared statements, so none goes stale. */
typedef struct weir_sim_options {
    uint32_t workers; /* 1 .. 100 000 */
    weir_sim_queue queue;
    weir_dist service;        /* of a statement */
    weir_dist commit;         /* of COMMIT; ROLLBACK, probes and questions about a transaction take none */
    weir_dist connect;        /* of making a session, on a worker: a storm of connects is load */
    weir_dist network;        /* one way */
    uint32_t connections_max; /* sessions; one more is refused with 53300 */
    bool
        ignores_cancel; /* neither cancel nor statement_timeout stop a statement (a pooler that does not pass them on);
                               * a client that has gone stops none anyway */
    const char *follows; /* a replica of that server: read-only until promoted; NULL: a primary */
    weir_dist lag;       /* of a replica */
} weir_sim_options;

void weir_sim_options_defaults(
    weir_sim_options *options); /* 8 workers, exponential 2 ms, 100 connections, ... */
/* The server of that name, made with the defaults if there is none. NULL: out of memory, or a bad name. */
weir_sim_server *weir_sim_server_named(weir_sim *sim, const char *name);
/* At any time; what runs already keeps its time. */
int weir_sim_server_set(weir_sim_server *server, const weir_sim_options *options, char *why);
void weir_sim_server_get(const weir_sim_server *server, weir_sim_options *out);

/* Statements that contain `text` (letters of any case), in the order the rules were added; the first one that fits rules.
 * Strings are copied. */
struct weir_sim_asked;
struct weir_sim_answer;
typedef struct weir_sim_rule {
    const char *text;
    bool timed; /* service below is used */
    weir_dist service;
    int writes;                     /* -1: as the text says; 0 or 1 */
    const char *sqlstate, *message; /* fails so; NULL: it does not */
    /* Its rows, all as text; NULL names: one row, one column "?column?" holding 1, or no rows for a write. */
    const char *const *names;
    const uint32_t *types;
    size_t columns, rows;
    const char *const *values; /* row by row; NULL: SQL NULL */
    /* Asked at the moment of execution instead: fills the answer, whose strings it keeps until it is asked again. It may
     * begin faults; one that brings its own server down ends its statement too. */
    void (*answer)(void *ctx, const struct weir_sim_asked *asked, struct weir_sim_answer *answer);
    void *ctx;
} weir_sim_rule;

typedef struct weir_sim_asked {
    const char *sql, *claims, *role, *user; /* claims, role: NULL if none */
    const weir_statement *statement;
    uint64_t at_ns, seen_until_ns; /* a replica has seen what its primary committed until then */
    bool in_transaction;
} weir_sim_asked;

typedef struct weir_sim_answer { /* preset to the rule's own */
    const char *sqlstate, *message;
    const char *const *names;
    const uint32_t *types;
    size_t columns, rows;
    const char *const *values;
    uint64_t affected;
} weir_sim_answer;

int weir_sim_rule_add(weir_sim_server *server, const weir_sim_rule *rule, char *why);
void weir_sim_rules_clear(weir_sim_server *server);

/* ---- faults --------------------------------------------------------------------------------------------------------- */

typedef enum weir_sim_fault_kind {
    WEIR_SIM_CRASH = 0, /* as power failing; back `after` + `recovery` later (after 0: stays down) */
    WEIR_SIM_RESTART,   /* fast shutdown: sessions end with 57P01; back likewise */
    WEIR_SIM_REFUSE,    /* connects are refused, with `sqlstate` (53300) or, "-", by nobody listening */
    WEIR_SIM_SLOW,      /* every statement that begins takes `factor` times as long */
    WEIR_SIM_FREEZE,    /* accepts, never answers; afterwards it goes on where it stood */
    WEIR_SIM_VANISH, /* packets vanish both ways; afterwards TCP sends them again. `forgotten`: connections that there
                         * were stay silent for ever, and the server's ends keep their places until it restarts */
    WEIR_SIM_LATENCY, /* `seconds` more, each way */
    WEIR_SIM_RESET, /* the connection is reset at `phase`, with probability `rate`, `count` times (0: always) */
    WEIR_SIM_ERRORS, /* statements that contain `text` (NULL: all) fail with `sqlstate` at `rate`, `count` times (0:
                      * always); "commit": COMMIT does, as serializable transactions and deferred constraints make it */
    WEIR_SIM_FAILOVER, /* read-only from now on, and what open transactions still commit here is lost; server `to` is
                        * promoted; after `after`, who connects here gets there */
    WEIR_SIM_ROLE_LOST, /* SET ROLE is refused: 42501 */
    WEIR_SIM_ROTATE,    /* new connects are refused: 28P01; sessions stay */
    WEIR_SIM_FAULTS
} weir_sim_fault_kind;

typedef enum weir_sim_phase {
    WEIR_SIM_BEFORE_SEND = 0, /* the client cannot even send */
    WEIR_SIM_AFTER_SEND,      /* the request is lost: nothing has happened */
    WEIR_SIM_BEFORE_ANSWER,   /* the answer is lost: all of it has happened */
    WEIR_SIM_AT_COMMIT,       /* COMMIT is lost */
    WEIR_SIM_AFTER_COMMIT     /* the answer to COMMIT is lost */
} weir_sim_phase;

typedef struct weir_sim_fault {
    weir_sim_fault_kind kind;
    uint64_t lasts_ns; /* 0: until weir_sim_heal */
    uint64_t after_ns, recovery_ns;
    double factor, rate, seconds;
    const char *sqlstate, *text, *to;
    weir_sim_phase phase;
    uint32_t count;
    bool forgotten;
} weir_sim_fault;

/* Begins now. WEIR_EINVAL with a sentence: a value out of range, no such server. One of the same kind replaces it. */
int weir_sim_fault_begin(weir_sim_server *server, const weir_sim_fault *fault, char *why);
void weir_sim_heal(weir_sim_server *server, weir_sim_fault_kind kind); /* CRASH, RESTART: back at once */
const char *weir_sim_fault_name(weir_sim_fault_kind kind);             /* "crash", "restart", ... */

/* ---- what was seen ---------------------------------------------------------------------------------------------------- */

typedef struct weir_sim_stats {
    uint64_t connects, connects_refused, statements, commits, rollbacks, cancels;
    uint64_t writes;    /* effects committed */
    uint64_t busy_ns;   /* worker time spent */
    uint64_t wasted_ns; /* of it on statements whose client had gone */
    uint32_t sessions, running, waiting;
    uint32_t sessions_max, waiting_max;
    uint32_t connects_in_a_second_max;
} weir_sim_stats;
void weir_sim_server_stats(const weir_sim_server *server, weir_sim_stats *out);

/* The ledger: what became of each write, known by its statement's first value. A write told with weir_sim_write_opened is
 * forgotten once its end was told and nothing of it is left on any server; others are kept (1 000 000 at most). */
void weir_sim_write_opened(weir_sim *sim, uint64_t number, bool idempotent);
void weir_sim_write_closed(weir_sim *sim, uint64_t number, weir_outcome outcome);
/* Of a write that is kept, by its first value as text. */
uint32_t weir_sim_executions(const weir_sim *sim, const char *value);

typedef struct weir_sim_books {
    uint64_t opened, closed;
    uint64_t twice;  /* took effect more than once, and was not told to be idempotent */
    uint64_t lost;   /* told as committed, and not there */
    uint64_t undead; /* told as not committed, and there */
    uint64_t gone;   /* committed, then lost by an asynchronous failover: no client could have known */
    uint64_t unknown_there, unknown_not_there;
} weir_sim_books;
void weir_sim_books_now(const weir_sim *sim, weir_sim_books *out);

#ifdef __cplusplus
}
#endif
#endif
