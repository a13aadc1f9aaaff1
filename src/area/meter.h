/* What is counted, per worker. Every worker writes only its own meters (plain relaxed stores); readers add up all
 * slots, used and unused: a slot that changes hands goes on counting from where it stood, so sums never go down. */
#ifndef WR_METER_H
#define WR_METER_H

#include "area/sharedarea.h"
#include "base/histogram.h"

#include <stdatomic.h>
#include <stdint.h>

enum wr_counter {                   /* monotonic, per pool */
                  WR_N_STARTED = 0, /* calls taken in */
                  WR_N_OK,
                  WR_N_FAILED,
                  WR_N_REFUSED,
                  WR_N_TIMEOUT,
                  WR_N_UNKNOWN,
                  WR_N_CANCELLED, /* calls ended: these sum to ended */
                  WR_N_ABANDONED, /* calls whose worker died: started, never ended */
                  WR_N_ATTEMPTS,
                  WR_N_RETRIES,
                  WR_N_DENIED_BUDGET,
                  WR_N_DENIED_DEADLINE,
                  WR_N_DENIED_UNSAFE,
                  WR_N_DENIED_MAX, /* retries not made, and why */
                  WR_N_REFUSED_BREAKER,
                  WR_N_REFUSED_QUEUE,
                  WR_N_REFUSED_ACQUIRE,
                  WR_N_REFUSED_PAUSED,
                  WR_N_REFUSED_DRAINING,
                  WR_N_OPENED,
                  WR_N_CLOSED,
                  WR_N_CLOSED_IDLE,
                  WR_N_CLOSED_LIFETIME,
                  WR_N_CLOSED_ERROR,
                  WR_N_CLOSED_PEEK,
                  WR_N_CLOSED_CANCEL,
                  WR_N_CLOSED_SHUTDOWN,
                  WR_N_CONNECT_FAILED,
                  WR_N_CANCELS,
                  WR_N_RESETS,
                  WR_N_HEALS,
                  WR_N_LEAKS,
                  WR_N_PROBES,
                  WR_N_PROBES_FAILED,
                  WR_N_RESOLVED_COMMITTED,
                  WR_N_RESOLVED_ABORTED,
                  WR_N_RESOLVED_NOT,
                  WR_N_POLICY_CALLS,
                  WR_N_POLICY_FAULTS,
                  WR_COUNTERS
};

enum wr_gauge {                       /* per pool and worker, zeroed when the worker dies */
                WR_G_CONNECTIONS = 0, /* open or being opened: what the cap over all workers counts */
                WR_G_IDLE,
                WR_G_BUSY,
                WR_G_CONNECTING,
                WR_G_CANCELING,
                WR_G_WAITING,
                WR_G_IN_FLIGHT,
                WR_GAUGES
};

enum { WR_REASONS = 35 }; /* why an attempt failed: the engine's words, by number */

struct wr_pool_meter {
    _Atomic uint64_t counter[WR_COUNTERS];
    _Atomic uint64_t failed[WR_REASONS],
        repeated[WR_REASONS]; /* attempts; those of them that another one followed */
    _Atomic uint64_t unconnected[WR_REASONS]; /* connects that failed; they sum to WR_N_CONNECT_FAILED */
    _Atomic int64_t gauge[WR_GAUGES];
    struct wr_histogram_fine duration, wait, connect, hold;
};

struct wr_series_meter { /* per pool and label */
    _Atomic uint64_t ok, failed, refused, timeout, unknown, cancelled, retries;
    struct wr_histogram_coarse duration;
};

/* The own worker's meters; valid while the area is open. pool and label below the shape's limits. */
struct wr_pool_meter *wr_meter_pool(struct wr_area *area, uint32_t pool);
struct wr_series_meter *wr_meter_series(struct wr_area *area, uint32_t pool, uint32_t label);

static inline void wr_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

/* Gauges take part in the cap over workers, so they are real atomic adds, in one order for all: who adds to its own
 * and then sums (wr_meter_gauge) sees every add that came before. Returns the new value. */
static inline int64_t wr_gauge_add(_Atomic int64_t *gauge, int64_t n)
{
    return atomic_fetch_add(gauge, n) + n;
}

/* Owned slots in which this pool's meter was ever handed out: the workers that have the pool, or had it. */
uint32_t wr_meter_workers(const struct wr_area *area, uint32_t pool);

/* Sums over all slots. */
uint64_t wr_meter_counter(const struct wr_area *area, uint32_t pool, enum wr_counter counter);
struct wr_reason_sums {
    uint64_t failed[WR_REASONS], repeated[WR_REASONS], unconnected[WR_REASONS];
};
void wr_meter_reasons(const struct wr_area *area, uint32_t pool, struct wr_reason_sums *sums);
int64_t wr_meter_gauge(const struct wr_area *area, uint32_t pool,
                       enum wr_gauge gauge); /* live workers only */
enum wr_pool_histogram { WR_H_DURATION, WR_H_WAIT, WR_H_CONNECT, WR_H_HOLD, WR_POOL_HISTOGRAMS };
void wr_meter_histogram(const struct wr_area *area, uint32_t pool, enum wr_pool_histogram which,
                        struct wr_histogram_view *view);
struct wr_series_sum {
    uint64_t ok, failed, refused, timeout, unknown, cancelled, retries;
    struct wr_histogram_view duration;
};
void wr_meter_series_sum(const struct wr_area *area, uint32_t pool, uint32_t label,
                         struct wr_series_sum *sum);

#endif
