/* The figures as numbers, see weir/metrics.h. Everything comes from the area but what is said to be this worker's. */
#include "weir/metrics.h"

#include "base/check.h"
#include "engine/health.h"
#include "engine/outcome.h"
#include "engine/pool.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)

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

static void read_histogram(const struct wr_pool *pool, enum wr_pool_histogram which, weir_histogram *out)
{
    struct wr_histogram_view view;
    wr_meter_histogram(pool->engine->area, pool->index, which, &view);
    cumulate(out, &view);
}

/* ---- the engine and its backends ----------------------------------------------------------------------------------- */

enum { HEARTBEAT_STALE_S = 5 }; /* it is renewed once a second */

static uint32_t workers_alive(const weir_engine *engine)
{
    const struct wr_area *area = engine->area;
    uint32_t alive = 1; /* who asks */
    for (uint32_t worker = 1; worker <= wr_area_shape(area)->workers; worker++) {
        if (worker == wr_area_worker(area) || wr_area_worker_pid(area, worker) == 0) continue;
        uint64_t heard = wr_area_worker_heartbeat(area, worker);
        if (heard != 0 && engine->now < heard + HEARTBEAT_STALE_S * SECOND) alive++;
    }
    return alive;
}

void weir_read_engine(weir_engine *engine, weir_engine_figures *out)
{
    wr_engine_refresh(engine);
    const weir_options *o = &engine->config.options;
    bool shared = wr_area_is_shared(engine->area);
    *out = (weir_engine_figures){
        .name = o->name,
        .created_us = shared ? wr_area_created_us(engine->area) : engine->opened_wall_us,
        .now_us = engine->host.wall_us(engine->host.ctx),
        .uptime_ns = engine->now - engine->opened_at,
        .health = weir_health_now(engine),
        .draining = engine->state != WR_ENGINE_OPEN,
        .policy_off = engine->policy_off,
        .workers = workers_alive(engine),
        .labels = wr_area_label_count(engine->area),
        .labels_max = wr_area_shape(engine->area)->labels,
        .pools = engine->pool_count,
        .backends = o->backend_count,
    };
    for (size_t i = 0; i < o->backend_count; i++) {
        struct wr_backend_view view = wr_health_of_backend(engine, i);
        if (o->backends[i].critical && view.known && !view.ok) out->critical_down = true;
    }
}

bool weir_read_backend(weir_engine *engine, size_t index, weir_backend_figures *out)
{
    if (index >= engine->config.options.backend_count) return false;
    const weir_backend *backend = &engine->config.options.backends[index];
    wr_engine_refresh(engine);
    struct wr_backend_view view = wr_health_of_backend(engine, index);
    uint64_t wall_us = engine->host.wall_us(engine->host.ctx);
    *out = (weir_backend_figures){
        .name = backend->name,
        .critical = backend->critical,
        .known = view.known,
        .ok = view.known && view.ok,
        .elapsed_ns = view.elapsed_ns,
        .at_us = view.known ? wall_us - (engine->now - view.at_ns) / 1000 : 0,
        .message = view.known && !view.ok ? engine->backends[index].message : "",
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

static void read_counters(const struct wr_pool *pool, weir_pool_figures *out)
{
    wr_meter_reasons(pool->engine->area, pool->index, out->attempts_failed, out->retries_after);
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++) {
        uint64_t sum = wr_meter_counter(pool->engine->area, pool->index, counted[i].counter);
        memcpy((char *)out + counted[i].offset, &sum, sizeof sum);
    }
}

/* A worker that has just died may leave a gauge that its successors' do not match for a second: never below zero. */
static int64_t gauge(const struct wr_pool *pool, enum wr_gauge which)
{
    int64_t sum = wr_meter_gauge(pool->engine->area, pool->index, which);
    return sum > 0 ? sum : 0;
}

static void read_gauges(const struct wr_pool *pool, weir_pool_figures *out)
{
    out->connections = gauge(pool, WR_G_CONNECTIONS);
    out->idle = gauge(pool, WR_G_IDLE);
    out->busy = gauge(pool, WR_G_BUSY);
    out->connecting = gauge(pool, WR_G_CONNECTING);
    out->canceling = gauge(pool, WR_G_CANCELING);
    out->waiting = gauge(pool, WR_G_WAITING);
    out->in_flight = gauge(pool, WR_G_IN_FLIGHT);
    out->max = wr_pool_max(pool);
    out->min = pool->client->min;
    out->paused = atomic_load_explicit(&pool->record->paused, memory_order_relaxed) != 0;
    out->budget_level = weir_budget_level(pool->budget, pool->engine->now);
    out->budget_cap = weir_budget_cap(pool->budget);
}

bool weir_read_pool(weir_engine *engine, size_t index, weir_pool_figures *out)
{
    if (index >= engine->pool_count) return false;
    const struct wr_pool *pool = &engine->pools[index];
    wr_engine_refresh(engine);
    memset(out, 0, sizeof *out);
    out->name = pool->name;
    out->client = pool->client->name;
    out->backend = pool->backend->name;
    read_counters(pool, out);
    read_gauges(pool, out);
    weir_breaker_snapshot_at(pool->breaker, engine->now, &out->breaker);
    read_histogram(pool, WR_H_DURATION, &out->duration);
    read_histogram(pool, WR_H_WAIT, &out->wait);
    read_histogram(pool, WR_H_CONNECT, &out->connect);
    return true;
}

/* ---- labels ------------------------------------------------------------------------------------------------------------ */

static uint64_t ended_of(const struct wr_series_sum *sum)
{
    return sum->ok + sum->failed + sum->refused + sum->timeout + sum->unknown + sum->cancelled;
}

/* A worker counts an end first and its duration after, so a reader may come in between: look again. What stays different
 * is the last call of a worker that was killed just there; it has no duration, and counts as longer than every edge. */
static uint64_t read_series(const struct wr_pool *pool, uint32_t label, struct wr_series_sum *sum)
{
    enum { LOOKS = 8 };
    uint64_t ended = 0;
    for (int look = 0; look < LOOKS; look++) {
        wr_meter_series_sum(pool->engine->area, pool->index, label, sum);
        ended = ended_of(sum);
        if (ended == sum->duration.count) break;
    }
    return ended;
}

bool weir_read_label(weir_engine *engine, size_t pool, uint32_t label, weir_label_figures *out)
{
    if (pool >= engine->pool_count || label >= wr_area_label_count(engine->area)) return false;
    struct wr_series_sum sum;
    uint64_t ended = read_series(&engine->pools[pool], label, &sum);
    if (ended == 0) return false;
    out->label = wr_area_label_text(engine->area, label);
    out->ended = (weir_ended){sum.ok, sum.failed, sum.refused, sum.timeout, sum.unknown, sum.cancelled};
    out->retries = sum.retries;
    cumulate(&out->duration, &sum.duration);
    out->duration.count = ended;
    for (size_t i = 0; i < WEIR_HISTOGRAM_EDGES; i++) {
        if (out->duration.below[i] > ended) out->duration.below[i] = ended;
    }
    return true;
}

/* ---- room -------------------------------------------------------------------------------------------------------------- */

char *weir_scratch(weir_engine *engine, size_t least, size_t *room)
{
    if (least > engine->scratch_room || engine->scratch == NULL) {
        size_t larger = engine->scratch_room < 4096 ? 4096 : engine->scratch_room;
        while (larger < least && larger <= SIZE_MAX / 2) larger *= 2;
        char *moved = larger < least ? NULL : wr_resize(&engine->memory, engine->scratch, larger);
        if (moved == NULL) return NULL;
        engine->scratch = moved;
        engine->scratch_room = larger;
    }
    *room = engine->scratch_room;
    return engine->scratch;
}
