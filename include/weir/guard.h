/* weir/guard.h: the guards by themselves, for anything a program calls: breaker, backoff, retry budget,
 * limiter, rate limiter. The engine uses exactly these functions for PostgreSQL.
 *
 * Common rules. A guard is flat memory without pointers: the caller supplies `..._size()` bytes aligned to
 * 64, and may put them in private memory or in a file mapped by several processes. Nothing here allocates,
 * blocks, reads a clock or draws randomness: `now_ns` is CLOCK_MONOTONIC or any clock that does not run
 * backwards, in nanoseconds, and random numbers are arguments. Every function may be called from any thread or
 * process that maps the memory, at once; all state is lock-free atomics, and a process killed in the middle of
 * a call leaves the guard usable. Configurations are copied by `..._init`.
 * `..._init` returns WEIR_OK, or WEIR_EINVAL with a sentence naming the knob, the value and the limit in
 * `why` (of WEIR_WHY_MAX bytes, may be NULL). */
#ifndef WEIR_GUARD_H
#define WEIR_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { WEIR_OK = 0, WEIR_EINVAL = -1, WEIR_ENOMEM = -2, WEIR_ESYS = -3, WEIR_ECLOSED = -4, WEIR_ESTATE = -5 };
enum { WEIR_WHY_MAX = 256 };

/* ---- breaker ------------------------------------------------------------------------------------------- */

typedef struct weir_breaker weir_breaker;

typedef enum weir_breaker_state {
    WEIR_CLOSED = 0,    /* admits all, counts all */
    WEIR_OPEN,          /* admits none until open_for has passed or a probe succeeded */
    WEIR_HALF_OPEN,     /* admits `permits` probes and is judged by their verdicts */
    WEIR_FORCED_OPEN,   /* an operator holds it open */
    WEIR_FORCED_CLOSED, /* an operator holds it closed: admits all, counts all, never trips */
    WEIR_DISABLED,      /* admits all, counts nothing */
    WEIR_METRICS_ONLY   /* admits all, counts, reports each exceeded threshold once, never trips */
} weir_breaker_state;

enum { WEIR_BREAKER_STATES = 7 };

typedef enum weir_verdict {
    WEIR_SUCCESS = 0,
    WEIR_FAILURE,
    WEIR_NEUTRAL /* the permit goes back and nothing is counted */
} weir_verdict;

typedef enum weir_rule { /* what tripped, or what moved the breaker */
                         WEIR_RULE_NONE = 0,
                         WEIR_RULE_FAILURE_RATE,
                         WEIR_RULE_SLOW_RATE,
                         WEIR_RULE_CONSECUTIVE,
                         WEIR_RULE_OPEN_ENDED, /* open_for passed */
                         WEIR_RULE_PROBE,      /* a background probe succeeded while open */
                         WEIR_RULE_HALF_OPEN_PASSED,
                         WEIR_RULE_HALF_OPEN_FAILED,
                         WEIR_RULE_HALF_OPEN_WAIT, /* no judgement within half_open_wait */
                         WEIR_RULE_OPERATOR,
                         WEIR_RULE_RESET,
                         WEIR_RULE_FORCE_ENDED /* the time is over for which it was forced */
} weir_rule;

typedef struct weir_breaker_config {
    uint64_t window_ns;    /* sliding time window in 1 s buckets: 1 s .. 60 s; used if window_calls is 0 */
    uint32_t window_calls; /* sliding window over the last n calls: 1 .. 4096; 0: time window */
    uint32_t min_calls;    /* no rate is judged below this many calls; >= 1 */
    double failure_rate;   /* 0 < r <= 1; trips at >= */
    uint64_t slow_call_ns; /* a call strictly longer is slow; 0: off */
    double slow_rate;      /* 0 < r <= 1; trips at >= */
    uint32_t consecutive;  /* n failures in a row trip; 0: off */
    bool rates_off;        /* only `consecutive` trips */
    uint64_t open_for_ns;  /* upper bound of one OPEN spell; > 0 */
    uint64_t (*open_for)(void *ctx,
                         uint32_t k); /* NULL, or ns for the k-th opening in a row (1, 2, ...); 0 means
                                  * open_for_ns. A pointer of this program: when another one opens a shared breaker,
                                  * open_for_ns counts */
    void *open_for_ctx;
    uint32_t permits;           /* half-open probes: 1 .. 64 */
    uint64_t half_open_wait_ns; /* no judgement within this opens again; 0: wait without limit */
    uint64_t lease_ns;          /* an unsettled half-open permit older than this returns as neutral; > 0 */
    weir_breaker_state initial;
} weir_breaker_config;

typedef struct weir_permit { /* a lease: by value, valid once; a zeroed permit settles to nothing */
    uint32_t generation;     /* of the breaker when admitted; a settle from an older one cannot vote */
    uint16_t lease;          /* index + 1 of the half-open lease held, 0 none */
    uint16_t counted;        /* 1 if the verdict is to be counted */
    uint64_t stamp;          /* identity of the lease */
} weir_permit;

typedef struct weir_evidence { /* why a breaker is where it is */
    weir_breaker_state from, to;
    weir_rule rule;
    uint32_t generation; /* after the move */
    uint32_t calls, failures, slow;
    double rate, threshold; /* of the rule; 0 where it has none */
    uint64_t at_ns;
    char codes[4][8]; /* the last failure codes (SQLSTATE or short word), newest first, "" if none */
} weir_evidence;

typedef struct weir_breaker_snapshot {
    weir_breaker_state state;
    uint32_t calls, failures, slow; /* in the window (or among the half-open verdicts) */
    double failure_rate, slow_rate; /* -1 below min_calls */
    uint64_t refused;               /* since init or reset */
    uint32_t opened_count;          /* since init or reset */
    uint32_t generation;
    uint64_t entered[WEIR_BREAKER_STATES]; /* moves into each state from another one, since init */
    uint64_t retry_after_ns;               /* until the next admission can be expected; 0 if now, UINT64_MAX
                                                * if only an operator can tell (FORCED_OPEN) */
    weir_evidence evidence;                /* of the last transition; rule NONE if there was none */
} weir_breaker_snapshot;

/* Defaults of DESIGN: 10 s window, 20 calls, 0.5, slow off (1.0), open 60 s, 10 permits, no wait limit, lease 60 s. */
void weir_breaker_defaults(weir_breaker_config *config);
size_t weir_breaker_size(void);
int weir_breaker_init(weir_breaker *breaker, const weir_breaker_config *config, uint64_t now_ns, char *why);

/* Changes the configuration of a live breaker and keeps its state; counts of a window of another kind are dropped. */
int weir_breaker_configure(weir_breaker *breaker, const weir_breaker_config *config, uint64_t now_ns,
                           char *why);

/* True and a permit if the call may go on. `owner` names the holder (a worker slot; 0 for private memory) so that
 * weir_breaker_reclaim can take back what a dead one held. OPEN whose time has passed moves to HALF_OPEN here. */
bool weir_breaker_admit(weir_breaker *breaker, uint32_t owner, uint64_t now_ns, weir_permit *permit);

/* What a call's end does to the breaker; exactly once per permit. `code` is kept as evidence of a failure (NULL: none).
 * Returns true if it moved the breaker or, in METRICS_ONLY, if a threshold is exceeded for the first time;
 * *event then tells (event may be NULL). */
bool weir_breaker_settle(weir_breaker *breaker, weir_permit permit, weir_verdict verdict, uint64_t elapsed_ns,
                         const char *code, uint64_t now_ns, weir_evidence *event);

/* Moves time on without a call: OPEN -> HALF_OPEN when due, half-open wait, expired leases. True if it moved. */
bool weir_breaker_tick(weir_breaker *breaker, uint64_t now_ns, weir_evidence *event);

/* A background probe answered well: OPEN -> HALF_OPEN now. False and no effect in any other state. */
bool weir_breaker_probe_passed(weir_breaker *breaker, uint64_t now_ns, weir_evidence *event);

/* FORCED_OPEN, FORCED_CLOSED, DISABLED, METRICS_ONLY; WEIR_CLOSED ends forcing with a fresh window. True if it moved. To
 * force it once more where it is forced already is no move, but begins a new generation with a fresh window. */
bool weir_breaker_force(weir_breaker *breaker, weir_breaker_state state, uint64_t now_ns,
                        weir_evidence *event);

/* Ends what was forced, as WEIR_CLOSED does, where that is of `generation` still: a newer word of an operator stands. True
 * if it moved. */
bool weir_breaker_release(weir_breaker *breaker, uint32_t generation, uint64_t now_ns, weir_evidence *event);

void weir_breaker_reset(weir_breaker *breaker, uint64_t now_ns);

/* Half-open permits held by `owner` (dead) come back as neutral. */
void weir_breaker_reclaim(weir_breaker *breaker, uint32_t owner, uint64_t now_ns);

weir_breaker_state weir_breaker_state_at(const weir_breaker *breaker, uint64_t now_ns);
void weir_breaker_snapshot_at(const weir_breaker *breaker, uint64_t now_ns, weir_breaker_snapshot *out);
const char *
weir_breaker_state_name(weir_breaker_state state); /* "CLOSED", "HALF_OPEN", ... ; "?" if out of range */

/* One sentence, e.g. "failure rate 0.80 >= 0.50 over 10 calls, last 53300, 57P03 x3". Returns out. */
const char *weir_evidence_text(const weir_evidence *evidence, char *out, size_t size);

/* ---- backoff ------------------------------------------------------------------------------------------- */

typedef enum weir_backoff_kind {
    WEIR_BACKOFF_FULL = 0,     /* uniform in [0, e], e = min(cap, base * factor^n) */
    WEIR_BACKOFF_EQUAL,        /* e/2 + uniform in [0, e/2] */
    WEIR_BACKOFF_DECORRELATED, /* min(cap, uniform in [base, 3 * previous]); previous starts at base */
    WEIR_BACKOFF_EXPONENTIAL,  /* e, no jitter */
    WEIR_BACKOFF_CONSTANT      /* base */
} weir_backoff_kind;

typedef struct weir_backoff { /* plain value: copy freely, not shared between processes */
    weir_backoff_kind kind;
    uint64_t base_ns, cap_ns; /* 0 < base <= cap */
    double factor;            /* >= 1 */
    uint32_t step;            /* delays given so far */
    uint64_t previous_ns;     /* decorrelated only */
} weir_backoff;

int weir_backoff_init(weir_backoff *backoff, weir_backoff_kind kind, uint64_t base_ns, uint64_t cap_ns,
                      double factor, char *why);
/* The next delay. `random` is 64 uniformly distributed bits. Never above cap, never overflows. */
uint64_t weir_backoff_next(weir_backoff *backoff, uint64_t random);
void weir_backoff_reset(weir_backoff *backoff);

/* ---- retry budget --------------------------------------------------------------------------------------- */

typedef struct weir_budget weir_budget;

typedef struct weir_budget_config {
    bool ratio;         /* false: success-funded tokens; true: share of requests in a sliding window */
    double per_success; /* tokens earned per success; ratio: retries allowed per request (0.2 = 20 %) */
    double floor;       /* tokens: the start and the level that time alone refills to within 10 s;
                                    ratio: retries per second always allowed */
    double cap;         /* most tokens; ratio: unused */
    uint64_t window_ns; /* ratio: 1 s .. 60 s */
} weir_budget_config;

void weir_budget_defaults(weir_budget_config *config); /* 0.1 per success, floor 10, cap 100 */
int weir_budget_check(const weir_budget_config *config,
                      char *why); /* WEIR_OK or WEIR_EINVAL; changes nothing */
size_t weir_budget_size(void);
int weir_budget_init(weir_budget *budget, const weir_budget_config *config, uint64_t now_ns, char *why);
/* Changes the configuration of a live budget. Its level goes back to the floor if anything differs; the same
 * configuration changes nothing. */
int weir_budget_configure(weir_budget *budget, const weir_budget_config *config, uint64_t now_ns, char *why);
void weir_budget_request(weir_budget *budget,
                         uint64_t now_ns); /* a first attempt starts (ratio kind counts it) */
void weir_budget_success(weir_budget *budget, uint64_t now_ns); /* an attempt succeeded (token kind earns) */
bool weir_budget_withdraw(weir_budget *budget,
                          uint64_t now_ns); /* a retry or hedge is scheduled; false: not now */
double weir_budget_level(const weir_budget *budget,
                         uint64_t now_ns); /* tokens, or retries left in the window */
double weir_budget_cap(const weir_budget *budget);

/* ---- limiter: at most `max` at once ----------------------------------------------------------------------- */

typedef struct weir_limit weir_limit;
size_t weir_limit_size(void);
int weir_limit_init(weir_limit *limit, uint32_t max, char *why); /* 1 .. 1 000 000 */
bool weir_limit_acquire(weir_limit *limit, uint32_t owner);      /* owner as in weir_breaker_admit, < 256 */
void weir_limit_release(weir_limit *limit, uint32_t owner);
uint32_t weir_limit_used(const weir_limit *limit);
uint32_t weir_limit_max(const weir_limit *limit);
void weir_limit_reclaim(weir_limit *limit, uint32_t owner); /* all a dead owner held comes back */

/* ---- rate limiter: token bucket ---------------------------------------------------------------------------- */

typedef struct weir_rate weir_rate;
size_t weir_rate_size(void);
int weir_rate_init(weir_rate *rate, double per_second, double burst, uint64_t now_ns, char *why);
/* Changes the configuration of a live limiter: what was taken stays taken. */
int weir_rate_configure(weir_rate *rate, double per_second, double burst, char *why);
/* True if one token was taken; else *wait_ns (may be NULL) says when one will be there. */
bool weir_rate_take(weir_rate *rate, uint64_t now_ns, uint64_t *wait_ns);

#ifdef __cplusplus
}
#endif
#endif
