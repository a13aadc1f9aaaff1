/* The figures as numbers, see weir/metrics.h. Everything comes from the area but what is said to be this worker's. */
#include "weir/metrics.h"

#include "engine/outcome.h"
#include "engine/pool.h"
#include "engine/sight.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

/* ---- histograms -------------------------------------------------------------------------------------------------- */

/* Powers of two and their quarters: borders of the fine and of the coarse histogram alike. */
static const uint64_t edges[WEIR_HISTOGRAM_EDGES] = {
    UINT64_C(2) << 18, /* 0.52 ms */
    UINT64_C(4) << 18, /* 1.05 ms */
    UINT64_C(4) << 19, /* 2.10 ms */
    UINT64_C(5) << 20, /* 5.24 ms */
    UINT64_C(5) << 21, /* 10.5 ms */
    UINT64_C(5) << 22, /* 21.0 ms */
    UINT64_C(6) << 23, /* 50.3 ms */
    UINT64_C(6) << 24, /* 101 ms */
    UINT64_C(6) << 25, /* 201 ms */
    UINT64_C(4) << 27, /* 537 ms */
    UINT64_C(4) << 28, /* 1.07 s */
    UINT64_C(4) << 29, /* 2.15 s */
    UINT64_C(5) << 30, /* 5.37 s */
    UINT64_C(5) << 31, /* 10.7 s */
    UINT64_C(7) << 32, /* 30.1 s */
};

uint64_t weir_histogram_edge_ns(size_t index)
{
    return index < WEIR_HISTOGRAM_EDGES ? edges[index] : 0;
}

static void cumulate(weir_histogram *out, const struct wr_histogram_view *view)
{
    out->count = view->count;
    out->sum_ns = view->sum_ns;
    out->max_ns = view->max_ns;
    wr_histogram_below(view, edges, out->below, WEIR_HISTOGRAM_EDGES);
}

static void read_histogram(const struct weir_area *sight, uint32_t pool, enum wr_pool_histogram which,
                           weir_histogram *out)
{
    struct wr_histogram_view view;
    wr_meter_histogram(sight->area, pool, which, &view);
    cumulate(out, &view);
}

/* ---- the engine and its backends ----------------------------------------------------------------------------------- */

void weir_read_engine(weir_area *area, weir_engine_figures *out)
{
    const struct wr_household *all = &area->household;
    wr_sight_look(area);
    *out = (weir_engine_figures){
        .name = wr_area_name(area->area),
        .created_us = wr_sight_created_us(area),
        .now_us = area->now_us,
        .uptime_ns = wr_sight_uptime_ns(area),
        .health = wr_assess(area),
        .draining = area->engine != NULL ? area->engine->state != WR_ENGINE_OPEN : all->draining,
        .policy_off = all->policy_off,
        .workers = all->workers,
        .labels = wr_area_label_count(area->area),
        .labels_max = wr_area_shape(area->area)->labels,
        .pools = wr_area_pool_count(area->area),
        .backends = all->backend_count,
    };
    for (uint32_t i = 0; i < all->backend_count; i++) {
        const struct wr_backend_card *b = &all->backend[i];
        if (b->critical && b->known && !b->ok) out->critical_down = true;
    }
}

bool weir_read_backend(weir_area *area, size_t index, weir_backend_figures *out)
{
    if (index == 0) wr_sight_look(area);
    if (index >= area->household.backend_count) return false;
    const struct wr_backend_card *seen = &area->household.backend[index];
    uint64_t age_us = area->now_ns > seen->at_ns ? (area->now_ns - seen->at_ns) / 1000 : 0;
    bool known = seen->known != 0;
    *out = (weir_backend_figures){
        .name = seen->name,
        .critical = seen->critical != 0,
        .known = known,
        .ok = known && seen->ok,
        .elapsed_ns = seen->elapsed_ns,
        .at_us = known && area->now_us > age_us ? area->now_us - age_us : 0,
        .message = known && !seen->ok ? seen->message : "",
    };
    return true;
}

bool weir_read_check(weir_area *area, size_t index, weir_check_figures *out)
{
    if (index == 0) wr_sight_look(area);
    if (index >= area->household.check_count) return false;
    const struct wr_check_card *seen = &area->household.check[index];
    uint64_t age_us = area->now_ns > seen->at_ns ? (area->now_ns - seen->at_ns) / 1000 : 0;
    bool known = seen->known != 0;
    *out = (weir_check_figures){
        .name = seen->name,
        .critical = seen->critical != 0,
        .known = known,
        .ok = known && seen->ok,
        .elapsed_ns = seen->elapsed_ns,
        .at_us = known && area->now_us > age_us ? area->now_us - age_us : 0,
        .message = known && !seen->ok ? seen->message : "",
    };
    return true;
}

/* ---- pools ----------------------------------------------------------------------------------------------------------- */

struct counted {
    size_t offset;
    enum wr_counter counter;
};

#define COUNTED(field, counter)                                                                              \
    {                                                                                                        \
        offsetof(weir_pool_figures, field), counter                                                          \
    }

static const struct counted counted[] = {
    COUNTED(started, WR_N_STARTED),
    COUNTED(ended.ok, WR_N_OK),
    COUNTED(ended.failed, WR_N_FAILED),
    COUNTED(ended.refused, WR_N_REFUSED),
    COUNTED(ended.timeout, WR_N_TIMEOUT),
    COUNTED(ended.unknown, WR_N_UNKNOWN),
    COUNTED(ended.cancelled, WR_N_CANCELLED),
    COUNTED(abandoned, WR_N_ABANDONED),
    COUNTED(attempts, WR_N_ATTEMPTS),
    COUNTED(retries, WR_N_RETRIES),
    COUNTED(denied_budget, WR_N_DENIED_BUDGET),
    COUNTED(denied_deadline, WR_N_DENIED_DEADLINE),
    COUNTED(denied_unsafe, WR_N_DENIED_UNSAFE),
    COUNTED(denied_max, WR_N_DENIED_MAX),
    COUNTED(refused_breaker, WR_N_REFUSED_BREAKER),
    COUNTED(refused_queue, WR_N_REFUSED_QUEUE),
    COUNTED(refused_acquire, WR_N_REFUSED_ACQUIRE),
    COUNTED(refused_paused, WR_N_REFUSED_PAUSED),
    COUNTED(refused_draining, WR_N_REFUSED_DRAINING),
    COUNTED(opened, WR_N_OPENED),
    COUNTED(connect_failed, WR_N_CONNECT_FAILED),
    COUNTED(closed_idle, WR_N_CLOSED_IDLE),
    COUNTED(closed_lifetime, WR_N_CLOSED_LIFETIME),
    COUNTED(closed_error, WR_N_CLOSED_ERROR),
    COUNTED(closed_server, WR_N_CLOSED_PEEK),
    COUNTED(closed_cancel, WR_N_CLOSED_CANCEL),
    COUNTED(closed_shutdown, WR_N_CLOSED_SHUTDOWN),
    COUNTED(cancels, WR_N_CANCELS),
    COUNTED(resets, WR_N_RESETS),
    COUNTED(heals, WR_N_HEALS),
    COUNTED(leaks, WR_N_LEAKS),
    COUNTED(probes, WR_N_PROBES),
    COUNTED(probes_failed, WR_N_PROBES_FAILED),
    COUNTED(resolved_committed, WR_N_RESOLVED_COMMITTED),
    COUNTED(resolved_aborted, WR_N_RESOLVED_ABORTED),
    COUNTED(resolved_not, WR_N_RESOLVED_NOT),
    COUNTED(policy_calls, WR_N_POLICY_CALLS),
    COUNTED(policy_faults, WR_N_POLICY_FAULTS),
};

static_assert((int)WEIR_REASONS == (int)WR_REASONS, "they are told one by one");

const char *weir_reason_name(size_t number)
{
    return wr_outcome_reason_name(number);
}

static void read_counters(const struct wr_area *area, uint32_t pool, weir_pool_figures *out)
{
    struct wr_reason_sums reasons;
    wr_meter_reasons(area, pool, &reasons);
    memcpy(out->attempts_failed, reasons.failed, sizeof reasons.failed);
    memcpy(out->retries_after, reasons.repeated, sizeof reasons.repeated);
    memcpy(out->connects_failed, reasons.unconnected, sizeof reasons.unconnected);
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++) {
        uint64_t sum = wr_meter_counter(area, pool, counted[i].counter);
        memcpy((char *)out + counted[i].offset, &sum, sizeof sum);
    }
}

/* A worker that has just died may leave a gauge that its successors' do not match for a second: never below zero. */
static int64_t gauge(const struct wr_area *area, uint32_t pool, enum wr_gauge which)
{
    int64_t sum = wr_meter_gauge(area, pool, which);
    return sum > 0 ? sum : 0;
}

static void read_gauges(const struct wr_area *area, uint32_t pool, weir_pool_figures *out)
{
    out->connections = gauge(area, pool, WR_G_CONNECTIONS);
    out->idle = gauge(area, pool, WR_G_IDLE);
    out->busy = gauge(area, pool, WR_G_BUSY);
    out->connecting = gauge(area, pool, WR_G_CONNECTING);
    out->canceling = gauge(area, pool, WR_G_CANCELING);
    out->waiting = gauge(area, pool, WR_G_WAITING);
    out->in_flight = gauge(area, pool, WR_G_IN_FLIGHT);
}

bool weir_read_pool(weir_area *area, size_t index, weir_pool_figures *out)
{
    struct wr_pool_seen pool;
    wr_sight_look_at_clock(area);
    memset(out, 0, sizeof *out);
    if (index >= wr_area_pool_count(area->area) || !wr_sight_pool(area, (uint32_t)index, &pool)) return false;
    out->name = pool.name;
    out->client = pool.client;
    out->backend = pool.backend;
    read_counters(area->area, pool.index, out);
    read_gauges(area->area, pool.index, out);
    out->max = pool.max;
    out->min = pool.min;
    out->paused = pool.paused;
    out->budget_level = weir_budget_level(pool.budget, area->now_ns);
    out->budget_cap = weir_budget_cap(pool.budget);
    wr_sight_breaker(area, &pool, &out->breaker);
    read_histogram(area, pool.index, WR_H_DURATION, &out->duration);
    read_histogram(area, pool.index, WR_H_WAIT, &out->wait);
    read_histogram(area, pool.index, WR_H_CONNECT, &out->connect);
    read_histogram(area, pool.index, WR_H_HOLD, &out->hold);
    return true;
}

/* ---- labels ------------------------------------------------------------------------------------------------------------ */

static uint64_t ended_of(const struct wr_series_sum *sum)
{
    return sum->ok + sum->failed + sum->refused + sum->timeout + sum->unknown + sum->cancelled;
}

/* A worker counts an end first and its duration after, so a reader may come in between: look again. What stays different
 * is the last call of a worker that was killed just there; it has no duration, and counts as longer than every edge. */
static uint64_t read_series(const struct wr_area *area, uint32_t pool, uint32_t label,
                            struct wr_series_sum *sum)
{
    enum { LOOKS = 8 };
    uint64_t ended = 0;
    for (int look = 0; look < LOOKS; look++) {
        wr_meter_series_sum(area, pool, label, sum);
        ended = ended_of(sum);
        if (ended == sum->duration.count) break;
    }
    return ended;
}

bool weir_read_label(weir_area *area, size_t pool, uint32_t label, weir_label_figures *out)
{
    if (pool >= wr_area_pool_count(area->area) || label >= wr_area_label_count(area->area)) return false;
    struct wr_series_sum sum;
    uint64_t ended = read_series(area->area, (uint32_t)pool, label, &sum);
    if (ended == 0) return false;
    out->label = wr_sight_label(area, label);
    out->ended = (weir_ended){sum.ok, sum.failed, sum.refused, sum.timeout, sum.unknown, sum.cancelled};
    out->retries = sum.retries;
    cumulate(&out->duration, &sum.duration);
    out->duration.count = ended;
    for (size_t i = 0; i < WEIR_HISTOGRAM_EDGES; i++) {
        if (out->duration.below[i] > ended) out->duration.below[i] = ended;
    }
    return true;
}
