/* weir/load.h: a load on an engine, and the books on what became of it. Arrivals come by the clock of whoever turns
 * it, virtual or real; so one load serves a simulation and a real server.
 *
 * A request is what a user wants; it is one call, and more if the caller himself tries again after an error. Owner of
 * everything: who made it; one thread, the engine's. Times are nanoseconds of the clock given in the options. */
#ifndef WEIR_LOAD_H
#define WEIR_LOAD_H

#include "weir/dist.h"
#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_tally weir_tally;
typedef struct weir_load weir_load;

/* ---- the tally: counts by time and by phase; bounded, however long the run ----------------------------------- */

/* An engine of more than WEIR_TALLY_POOLS pools is looked at at most once a millisecond. */
enum { WEIR_TALLY_PHASES = 32, WEIR_TALLY_BUCKETS = 2048, WEIR_TALLY_MOVES = 1024, WEIR_TALLY_POOLS = 16 };

typedef struct weir_phase_span { /* requests that arrived in [from, to) */
    const char *name;            /* up to 31 bytes */
    uint64_t from_ns, to_ns;
} weir_phase_span;

typedef struct weir_tally_counts {
    uint64_t arrived; /* requests */
    /* Requests that ended well, and badly: in a bucket by the moment of their end, in a phase by that of their arrival.
     * The three after `failed` are parts of it and may overlap: refused by a guard (breaker, queue, acquire_timeout,
     * pause, drain), ended by the deadline, and perhaps committed. */
    uint64_t ok, failed;
    uint64_t refused, timed_out, unknown;
    uint64_t calls;    /* calls that ended: one per request, and one per try of the caller's own */
    uint64_t attempts; /* of those calls, as the engine counts */
    uint64_t latency_sum_ns, latency_max_ns; /* of requests that ended, from arrival to end */
} weir_tally_counts;

typedef struct weir_tally_bucket {
    uint64_t from_ns, to_ns;
    weir_tally_counts counts;
    uint64_t latency_p95_ns;    /* to within a factor of 1.5; 0 if none ended */
    weir_breaker_state breaker; /* the worst of all pools in that time */
    uint32_t waiting;           /* most calls that waited for a connection, over all engines */
    uint32_t connections;       /* most connections open or opening, likewise */
} weir_tally_bucket;

typedef struct weir_tally_move { /* a breaker moved */
    uint64_t at_ns;
    char pool[64];
    weir_breaker_state from, to;
} weir_tally_move;

/* Buckets start `bucket_ns` wide and double their width when more than WEIR_TALLY_BUCKETS would be needed. Requests
 * outside every phase count in the whole and in no phase; in phases that overlap they count in each. origin_ns: the
 * start of the run; what happened before it counts in the first bucket. The spans are copied. */
int weir_tally_new(weir_tally **out, uint64_t origin_ns, uint64_t bucket_ns, const weir_phase_span *phases,
                   size_t phase_count, char *why);
void weir_tally_free(weir_tally *tally); /* loads on it freed before; accepts NULL */
/* The whole run (phase WEIR_TALLY_PHASES) or one phase by index. False: no such phase. */
bool weir_tally_counts_of(const weir_tally *tally, size_t phase, weir_tally_counts *out);
/* Latency of the requests that arrived in the phase and ended well (`well`) or all that ended: value error <= 1 %. */
uint64_t weir_tally_quantile(const weir_tally *tally, size_t phase, bool well, double q);
/* How the calls of the phase ended, by weir_code. */
uint64_t weir_tally_ended_as(const weir_tally *tally, size_t phase, weir_code code);
size_t weir_tally_bucket_count(const weir_tally *tally);
bool weir_tally_bucket_at(const weir_tally *tally, size_t index, weir_tally_bucket *out);
size_t weir_tally_move_count(const weir_tally *tally);   /* those that are kept, oldest first */
uint64_t weir_tally_moves_seen(const weir_tally *tally); /* all, kept or not */
bool weir_tally_move_at(const weir_tally *tally, size_t index, weir_tally_move *out);

/* ---- the load --------------------------------------------------------------------------------------------------- */

/* Put as a statement's value: the number of the request, unique over all loads of one `numbers` counter, as text. It is
 * the address that counts, so it never stands for a value of somebody's own. */
extern const char weir_load_number[];

/* One kind of call in the mix; nothing is copied, all must outlive the load. */
typedef struct weir_load_call {
    weir_request request; /* notify and user are the load's */
    const weir_statement *statements;
    size_t statement_count;
    double weight; /* its share of the arrivals; more than 0, at most 1e9 */
    bool unit;     /* BEGIN, the statements one after the other, COMMIT */
    bool writes;   /* has an effect: `opened` and `closed` are called for it */
    /* Its arrival is handed to the owner, who does the work: weir_load_take, weir_load_settle. Needs no statements; the
     * caller's own retries below are the owner's business too. */
    bool custom;
} weir_load_call;

typedef struct weir_load_rate { /* between two points the rate changes evenly; two at one moment are a step */
    uint64_t at_ns;
    double per_second; /* 0 .. 1e7 */
} weir_load_rate;

typedef struct weir_load_burst { /* all at one moment */
    uint64_t at_ns;
    uint32_t requests;
} weir_load_burst;

typedef struct weir_load_options {
    const weir_load_call *calls; /* see there */
    size_t call_count;           /* 1 .. 64 */
    /* open arrivals: by rate, evenly or as a Poisson process, and bursts. Both lists in rising order, copied. Before the
     * first and after the last point the rate is that of the point. They wait for nobody: one that is submitted late
     * counts from the moment it was due. */
    bool poisson;
    const weir_load_rate *rates;
    size_t rate_count; /* 0 .. 256 */
    const weir_load_burst *bursts;
    size_t burst_count; /* 0 .. 256 */
    /* a closed loop: each user sends, waits for the end, thinks, and sends again. He begins with a part of a pause, so
     * that users do not march in step; after a request that took no time, as a refusal does, he pauses 1 ms at least. */
    uint32_t users;             /* 0 .. 100 000 */
    weir_dist think;            /* seconds */
    uint64_t from_ns, until_ns; /* arrivals in [from, until) */
    /* the caller's own habit of trying again after an error of whatever kind: the retries of a browser or of a naive
     * program around the engine */
    uint32_t caller_retries;  /* 0 .. 1000 */
    uint64_t caller_pause_ns; /* at most an hour */
    uint64_t seed;
    /* The last number given out, shared by the loads of one run. NULL: the load's own, from 1. */
    uint64_t *numbers;
    uint64_t (*now_ns)(void *ctx);
    /* A request with an effect begins (`idempotent`: as declared), and has ended for good: with the outcome of its last
     * call, COMMITTED if any was, UNKNOWN if any was unknown and none committed. Either may be NULL. */
    void (*opened)(void *ctx, uint64_t number, bool idempotent);
    void (*closed)(void *ctx, uint64_t number, weir_outcome outcome);
    /* Custom arrivals wait to be taken; called once when the first one does. May be NULL without custom calls. */
    void (*arrived)(void *ctx);
    /* A call ended and weir_load_due_ns has become earlier by it; called from the engine's completion. May be NULL if
     * the owner asks for the due time after every turn. */
    void (*sooner)(void *ctx);
    void *ctx; /* these callbacks must not free the load or call the engine */
} weir_load_options;

/* The tally hears of this load's requests and of the breakers of its engine, once per engine however many loads it has.
 * The tally, the engine and the calls must outlive the load. WEIR_OK, WEIR_EINVAL or WEIR_ENOMEM. */
int weir_load_new(weir_load **out, weir_engine *engine, weir_tally *tally, const weir_load_options *options,
                  char *why);
/* When weir_load_run has something to do; UINT64_MAX: never again by itself. May move earlier whenever a call of the
 * load ends (never before that moment). */
uint64_t weir_load_due_ns(const weir_load *load);
/* Submits what is due by now_ns. Not from a completion. */
void weir_load_run(weir_load *load);
/* Looks at the breakers, queue and connections for the tally; done by itself whenever requests were begun or a call
 * ended. A call costs some 20 ns per pool. */
void weir_load_observe(weir_load *load);
/* The next custom arrival: its place in `calls` and its number. False: none waits. */
bool weir_load_take(weir_load *load, size_t *call, uint64_t *number);
/* The end of a custom request: error NULL if it went well, else its code and outcome count; attempts as the engine
 * counted, 1 if it knows none. A number that is not under way here is ignored. */
void weir_load_settle(weir_load *load, uint64_t number, const weir_error *error, uint32_t attempts);
size_t weir_load_open(const weir_load *load);        /* requests that have not ended, custom ones included */
uint64_t weir_load_oldest_ns(const weir_load *load); /* when the oldest of them arrived; UINT64_MAX: none */
/* What the engine said when it refused a call as misuse (WEIR_EINVAL), the first time; "" if it never did. Such a call
 * counts as ended with WEIR_CALL_MISUSE, and a load whose every call does is a mistake in its options. */
const char *weir_load_misuse(const weir_load *load);
/* Cancels what is under way, which counts as ended badly. Before weir_free of its engine, not from a completion.
 * Accepts NULL. */
void weir_load_free(weir_load *load);

#ifdef __cplusplus
}
#endif
#endif
