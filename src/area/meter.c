/* The meters: where they lie, and their sums over all slots. Readers look only at meters that were handed out
 * at least once: reading a hole of a mapped tmpfs file would fill it. */
#include "area/layout.h"

#include "base/check.h"

static struct wr_pool_meter *pool_meter(const struct wr_area *area, uint32_t worker, uint32_t pool)
{
    return (struct wr_pool_meter *)(void *)wr_worker_part(area, worker) + pool;
}

static struct wr_series_meter *series_meter(const struct wr_area *area, uint32_t worker, uint32_t pool,
                                            uint32_t label)
{
    char *series = wr_worker_part(area, worker) + area->at.series;
    return (struct wr_series_meter *)(void *)series + ((size_t)pool * area->shape.labels + label);
}

static _Atomic uint64_t *touched_word(const struct wr_area *area, uint32_t worker, uint32_t pool,
                                      uint32_t label)
{
    char *touched = wr_worker_part(area, worker) + area->at.touched;
    return (_Atomic uint64_t *)(void *)touched + (pool * area->at.touched_words + label / WR_MASK_BITS);
}

static uint64_t bit_of(uint32_t number)
{
    return UINT64_C(1) << (number % WR_MASK_BITS);
}

/* Only the owner of the slot sets bits in it, so a load and a store will do. The store happens once in the
 * life of a meter and is sequentially consistent for the cap over workers, see wr_meter_gauge. */
static void touch(_Atomic uint64_t *mask, uint64_t bit)
{
    uint64_t old = atomic_load_explicit(mask, memory_order_relaxed);
    if ((old & bit) == 0) atomic_store(mask, old | bit);
}

static bool pool_touched(const struct wr_area *area, uint32_t worker, uint32_t pool)
{
    uint64_t mask = atomic_load(&wr_slot_of(area, worker)->pools_touched);
    return (mask & bit_of(pool)) != 0;
}

struct wr_pool_meter *wr_meter_pool(struct wr_area *area, uint32_t pool)
{
    WR_CHECK(pool < area->shape.pools);
    touch(&wr_slot_of(area, area->worker)->pools_touched, bit_of(pool));
    return pool_meter(area, area->worker, pool);
}

struct wr_series_meter *wr_meter_series(struct wr_area *area, uint32_t pool, uint32_t label)
{
    WR_CHECK(pool < area->shape.pools && label < area->shape.labels);
    touch(touched_word(area, area->worker, pool, label), bit_of(label));
    touch(&wr_slot_of(area, area->worker)->pools_touched, bit_of(pool));
    return series_meter(area, area->worker, pool, label);
}

uint64_t wr_meter_counter(const struct wr_area *area, uint32_t pool, enum wr_counter counter)
{
    WR_CHECK(pool < area->shape.pools && counter < WR_COUNTERS);
    uint64_t sum = 0;
    for (uint32_t worker = 1; worker <= wr_slots_used(area); worker++) {
        if (!pool_touched(area, worker, pool)) continue;
        sum += atomic_load_explicit(&pool_meter(area, worker, pool)->counter[counter], memory_order_relaxed);
    }
    return sum;
}

static void add_relaxed(uint64_t *sum, const _Atomic uint64_t *counter)
{
    *sum += atomic_load_explicit(counter, memory_order_relaxed);
}

void wr_meter_reasons(const struct wr_area *area, uint32_t pool, struct wr_reason_sums *sums)
{
    WR_CHECK(pool < area->shape.pools);
    memset(sums, 0, sizeof *sums);
    for (uint32_t worker = 1; worker <= wr_slots_used(area); worker++) {
        if (!pool_touched(area, worker, pool)) continue;
        const struct wr_pool_meter *meter = pool_meter(area, worker, pool);
        for (int i = 0; i < WR_REASONS; i++) {
            add_relaxed(&sums->failed[i], &meter->failed[i]);
            add_relaxed(&sums->repeated[i], &meter->repeated[i]);
            add_relaxed(&sums->unconnected[i], &meter->unconnected[i]);
        }
    }
}

/* All loads on the way are sequentially consistent, as is wr_gauge_add: of two workers that add to their own
 * gauge and then sum, at least one sees the other, so a cap checked in this order is never passed by both. */
int64_t wr_meter_gauge(const struct wr_area *area, uint32_t pool, enum wr_gauge gauge)
{
    WR_CHECK(pool < area->shape.pools && gauge < WR_GAUGES);
    uint64_t sum = 0; /* unsigned: numbers in a damaged file may overflow */
    for (uint32_t worker = 1; worker <= wr_slots_used(area); worker++) {
        if (!pool_touched(area, worker, pool) || !wr_slot_is_owned(area, worker)) continue;
        sum += (uint64_t)atomic_load(&pool_meter(area, worker, pool)->gauge[gauge]);
    }
    return (int64_t)sum;
}

uint32_t wr_meter_workers(const struct wr_area *area, uint32_t pool)
{
    WR_CHECK(pool < area->shape.pools);
    uint32_t count = 0;
    for (uint32_t worker = 1; worker <= wr_slots_used(area); worker++) {
        if (pool_touched(area, worker, pool) && wr_slot_is_owned(area, worker)) count++;
    }
    return count;
}

static const struct wr_histogram_fine *histogram_of(const struct wr_pool_meter *meter,
                                                    enum wr_pool_histogram which)
{
    switch (which) {
    case WR_H_WAIT:
        return &meter->wait;
    case WR_H_CONNECT:
        return &meter->connect;
    case WR_H_HOLD:
        return &meter->hold;
    default: /* WR_H_DURATION */
        break;
    }
    return &meter->duration;
}

void wr_meter_histogram(const struct wr_area *area, uint32_t pool, enum wr_pool_histogram which,
                        struct wr_histogram_view *view)
{
    WR_CHECK(pool < area->shape.pools);
    wr_histogram_view_init(view, WR_FINE_BITS);
    for (uint32_t worker = 1; worker <= wr_slots_used(area); worker++) {
        if (!pool_touched(area, worker, pool)) continue;
        wr_histogram_merge_fine(view, histogram_of(pool_meter(area, worker, pool), which));
    }
}

static void add_series(struct wr_series_sum *sum, const struct wr_series_meter *meter)
{
    sum->ok += atomic_load_explicit(&meter->ok, memory_order_relaxed);
    sum->failed += atomic_load_explicit(&meter->failed, memory_order_relaxed);
    sum->refused += atomic_load_explicit(&meter->refused, memory_order_relaxed);
    sum->timeout += atomic_load_explicit(&meter->timeout, memory_order_relaxed);
    sum->unknown += atomic_load_explicit(&meter->unknown, memory_order_relaxed);
    sum->cancelled += atomic_load_explicit(&meter->cancelled, memory_order_relaxed);
    sum->retries += atomic_load_explicit(&meter->retries, memory_order_relaxed);
    wr_histogram_merge_coarse(&sum->duration, &meter->duration);
}

void wr_meter_series_sum(const struct wr_area *area, uint32_t pool, uint32_t label, struct wr_series_sum *sum)
{
    WR_CHECK(pool < area->shape.pools && label < area->shape.labels);
    sum->ok = sum->failed = sum->refused = sum->timeout = sum->unknown = sum->cancelled = sum->retries = 0;
    wr_histogram_view_init(&sum->duration, WR_COARSE_BITS);
    for (uint32_t worker = 1; worker <= wr_slots_used(area); worker++) {
        if (!pool_touched(area, worker, pool)) continue;
        uint64_t mask = atomic_load_explicit(touched_word(area, worker, pool, label), memory_order_relaxed);
        if ((mask & bit_of(label)) != 0) add_series(sum, series_meter(area, worker, pool, label));
    }
}
