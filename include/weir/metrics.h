/* weir/metrics.h: every figure the engine keeps, as plain numbers, for whoever writes them out in a form of his own.
 *
 * Counters and histograms are sums over all workers of the area, those that have died included: they never fall as
 * long as the area lives (`created_us` tells since when). Gauges count live workers only. What concerns the answering
 * worker alone is said so. Nothing here allocates, but for weir_scratch; nothing reads more than it is asked for.
 * Called from the engine's thread; a forked child may look too. */
#ifndef WEIR_METRICS_H
#define WEIR_METRICS_H

#include "weir/area.h"
#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- histograms ------------------------------------------------------------------------------------------------ */

enum { WEIR_HISTOGRAM_EDGES = 15 };

/* Durations, cumulated at fixed edges. The edges are bucket borders of the area's own histograms, so below[i] is exact:
 * how many durations were less than edge i, no interpolation and no estimate. */
typedef struct weir_histogram {
    uint64_t count, sum_ns, max_ns;
    uint64_t below[WEIR_HISTOGRAM_EDGES]; /* never falls from one to the next, never above count */
} weir_histogram;

/* In rising order, near 0.5 1 2 5 10 20 50 100 200 500 ms and 1 2 5 10 30 s, never below them; 0 if out of range. */
uint64_t weir_histogram_edge_ns(size_t index);

/* ---- the engine ------------------------------------------------------------------------------------------------ */

typedef struct weir_engine_figures {
    const char *name;            /* lives as long as the handle */
    uint64_t created_us;         /* wall clock: when all counters stood at zero */
    uint64_t now_us;             /* wall clock */
    uint64_t uptime_ns;          /* of the own engine; attached: of the oldest worker */
    weir_health health;          /* unhealthy when no worker lives */
    bool draining;               /* the own engine; attached: all workers */
    bool policy_off;             /* some worker's policy was switched off after faults */
    bool critical_down;          /* a backend marked critical does not answer */
    uint32_t workers;            /* alive: those whose heartbeat is not older than 5 s */
    uint32_t labels, labels_max; /* known, "other" included; how many there can be */
    size_t pools, backends;
} weir_engine_figures;

void weir_read_engine(weir_area *area, weir_engine_figures *out);

typedef struct weir_backend_figures {
    const char *name;
    bool critical;
    bool known, ok;      /* known: it was heard of, or asked in vain */
    uint64_t elapsed_ns; /* of the last answer */
    uint64_t at_us;      /* wall clock, of the last answer or failure; 0 if not known */
    const char
        *message; /* why it is not ok, "" otherwise; it and the name: until the area is looked at again */
} weir_backend_figures;

/* False: out of range. Index 0 looks anew, the others belong to that look. */
bool weir_read_backend(weir_area *area, size_t index, weir_backend_figures *out);

typedef struct weir_check_figures { /* a health check of the program's own */
    const char *name;
    bool critical;
    bool known, ok;      /* known: it has answered, or not in time */
    uint64_t elapsed_ns; /* that the last answer took */
    uint64_t at_us;      /* wall clock, of the last answer; 0 if not known */
    const char *message; /* why it is not ok, "" otherwise; as long as a backend's */
} weir_check_figures;

/* As weir_read_backend. */
bool weir_read_check(weir_area *area, size_t index, weir_check_figures *out);

/* ---- pools and labels ------------------------------------------------------------------------------------------ */

/* Why an attempt failed, by number: "serialization", "connection", "constraint", "timeout", ...; "?" out of range. */
enum { WEIR_REASONS = 35 };
const char *weir_reason_name(size_t number);

typedef struct weir_ended { /* calls by their end; all of them sum to the calls that have ended */
    uint64_t ok, failed, refused, timeout, unknown, cancelled;
} weir_ended;

typedef struct weir_pool_figures {
    const char *name, *client, *backend; /* live as long as the handle */

    /* counters */
    uint64_t started;
    weir_ended ended;
    uint64_t abandoned; /* their worker died: started, and not among the ended */
    uint64_t attempts, retries;
    uint64_t denied_budget, denied_deadline, denied_unsafe, denied_max; /* retries not made, and why */
    uint64_t
        attempts_failed[WEIR_REASONS];    /* those that met the call's deadline included, refused ones not */
    uint64_t retries_after[WEIR_REASONS]; /* sum to retries: why the attempt before failed */
    uint64_t connects_failed[WEIR_REASONS]; /* "connect": nobody answered, or not as a server does */
    uint64_t refused_breaker, refused_queue, refused_acquire, refused_paused, refused_draining;
    uint64_t opened, connect_failed;
    uint64_t closed_idle, closed_lifetime, closed_error, closed_server, closed_cancel, closed_shutdown;
    uint64_t cancels, resets, heals, leaks;
    uint64_t probes, probes_failed;
    uint64_t resolved_committed, resolved_aborted, resolved_not; /* what became of lost COMMITs */
    uint64_t policy_calls, policy_faults;

    /* gauges */
    int64_t connections, idle, busy, connecting, canceling, waiting, in_flight;
    uint32_t max, min; /* connections over all workers */
    bool paused;
    double budget_level, budget_cap;
    weir_breaker_snapshot breaker;

    /* whole calls; waiting for a connection; connecting; having one, from its lease until it is given back */
    weir_histogram duration, wait, connect, hold;
} weir_pool_figures;

bool weir_read_pool(weir_area *area, size_t index,
                    weir_pool_figures *out); /* false: out of range, or being made */

typedef struct weir_label_figures { /* one label in one pool */
    const char *label;              /* lives as long as the handle */
    weir_ended ended;
    uint64_t retries;
    weir_histogram duration; /* count is the sum of `ended`, at any moment */
} weir_label_figures;

/* label: 0 .. weir_engine_figures.labels - 1. False: out of range, or no call of that label has ended in that pool. */
bool weir_read_label(weir_area *area, size_t pool, uint32_t label, weir_label_figures *out);

/* ---- calls that somebody traces ---------------------------------------------------------------------------------- */

typedef struct weir_traced_call {
    uint32_t pool, label; /* by number, as above */
    uint64_t duration_ns;
    uint64_t ended_us; /* wall clock */
    char trace_id[33]; /* 32 hexadecimal digits, out of the call's traceparent */
} weir_traced_call;

/* Of the last 128 calls that the flight recorder holds, those with a sound traceparent: newest first, at most `most`. Returns
 * how many. */
size_t weir_read_traced(weir_area *area, weir_traced_call *out, size_t most);

/* ---- room ------------------------------------------------------------------------------------------------------ */

/* Memory for a text about the area, kept from one call to the next and freed with the handle: at least `least` bytes,
 * *room of them, with what stood in it before. It moves when it grows. NULL: out of memory, and what was there stays. */
char *weir_scratch(weir_area *area, size_t least, size_t *room);

#ifdef __cplusplus
}
#endif
#endif
