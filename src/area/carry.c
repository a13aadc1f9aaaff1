/* Carrying over: what an area of another shape holds goes into the one that takes its place, before that gets its name.
 *
 * All that the old workers have counted becomes the counts of slot 1 of the new one, whose owner goes on from there. The old
 * workers may be at work meanwhile, and go on in the old file: a reader of live memory here, as anywhere. What cannot be
 * theirs and ours at once stays behind: gauges, turns to connect, guards by name (nobody here knows who holds what of
 * them). Their running calls end over there, so here they count as abandoned. */
#include "area/layout.h"

#include "base/memory.h"
#include "base/text.h"

#include <stdlib.h>

/* ---- pools ----------------------------------------------------------------------------------------------------- */

/* Pools keep their places, as calls and events name them by number. One that is still being made ends the row. */
static uint32_t carry_pools(struct wr_area *to, const struct wr_area *from, const struct wr_carrier *carrier)
{
    uint32_t index = 0, place = 0;
    for (; index < wr_area_pool_count(from); index++) {
        const void *old = wr_area_pool_record(from, index);
        void *record = NULL;
        bool created = false;
        if (old == NULL) break;
        if (wr_area_pool(to, wr_area_pool_name(from, index), &record, &place, &created) != WEIR_OK ||
            place != index)
            break;
        /* In rising order: a record's word of state comes first, and what is newer than it is as good as not there. */
        for (size_t at = 0; at < to->at.pool_stride; at += 8) {
            uint64_t word = atomic_load((const _Atomic uint64_t *)(const void *)((const char *)old + at));
            memcpy((char *)record + at, &word, sizeof word);
        }
        if (carrier->settle != NULL) carrier->settle(carrier->ctx, record);
        wr_area_pool_ready(to, place);
    }
    return index;
}

/* ---- meters ---------------------------------------------------------------------------------------------------- */

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    if (n > 0) wr_count(counter, n);
}

static void raise_max(_Atomic uint64_t *max, uint64_t value)
{
    if (value > atomic_load(max)) atomic_store(max, value);
}

static void carry_fine(struct wr_histogram_fine *to, const struct wr_histogram_view *view)
{
    for (size_t i = 0; i < WR_FINE_BUCKETS; i++) add(&to->bucket[i], view->bucket[i]);
    add(&to->count, view->count);
    add(&to->sum_ns, view->sum_ns);
    raise_max(&to->max_ns, view->max_ns);
}

static void carry_coarse(struct wr_histogram_coarse *to, const struct wr_histogram_view *view)
{
    for (size_t i = 0; i < WR_COARSE_BUCKETS; i++) add(&to->bucket[i], view->bucket[i]);
    add(&to->count, view->count);
    add(&to->sum_ns, view->sum_ns);
    raise_max(&to->max_ns, view->max_ns);
}

/* Ends before starts, so that no call has ended that was not started. */
static void carry_counters(struct wr_pool_meter *meter, const struct wr_area *from, uint32_t pool)
{
    struct wr_reason_sums sums;
    for (int c = WR_COUNTERS - 1; c >= 0; c--)
        add(&meter->counter[c], wr_meter_counter(from, pool, (enum wr_counter)c));
    wr_meter_reasons(from, pool, &sums);
    for (int i = 0; i < WR_REASONS; i++) {
        add(&meter->failed[i], sums.failed[i]);
        add(&meter->repeated[i], sums.repeated[i]);
        add(&meter->unconnected[i], sums.unconnected[i]);
    }
}

static void carry_pool_meter(struct wr_area *to, const struct wr_area *from, uint32_t pool)
{
    struct wr_pool_meter *meter = wr_meter_pool(to, pool);
    struct wr_histogram_fine *histograms[] = {[WR_H_DURATION] = &meter->duration,
                                              [WR_H_WAIT] = &meter->wait,
                                              [WR_H_CONNECT] = &meter->connect,
                                              [WR_H_HOLD] = &meter->hold};
    struct wr_histogram_view *view = malloc(sizeof *view);
    carry_counters(meter, from, pool);
    for (int i = 0; i < WR_POOL_HISTOGRAMS && view != NULL; i++) {
        wr_meter_histogram(from, pool, (enum wr_pool_histogram)i, view);
        carry_fine(histograms[i], view);
    }
    free(view);
}

static bool is_nothing(const struct wr_series_sum *sum)
{
    return (sum->ok | sum->failed | sum->refused | sum->timeout | sum->unknown | sum->cancelled |
            sum->retries) == 0;
}

static void carry_series(struct wr_series_meter *to, const struct wr_series_sum *sum)
{
    add(&to->ok, sum->ok);
    add(&to->failed, sum->failed);
    add(&to->refused, sum->refused);
    add(&to->timeout, sum->timeout);
    add(&to->unknown, sum->unknown);
    add(&to->cancelled, sum->cancelled);
    add(&to->retries, sum->retries);
    carry_coarse(&to->duration, &sum->duration);
}

/* A label that finds no place counts as "other" from now on. */
static uint32_t label_in(struct wr_area *to, const struct wr_area *from, uint32_t label)
{
    return label == 0 ? 0 : wr_area_label(to, wr_area_label_text(from, label));
}

static void carry_labels(struct wr_area *to, const struct wr_area *from, uint32_t pools)
{
    struct wr_series_sum *sum = malloc(sizeof *sum);
    for (uint32_t label = 0; label < wr_area_label_count(from) && sum != NULL; label++) {
        uint32_t place = label_in(to, from, label);
        for (uint32_t pool = 0; pool < pools; pool++) {
            wr_meter_series_sum(from, pool, label, sum);
            if (!is_nothing(sum)) carry_series(wr_meter_series(to, pool, place), sum);
        }
    }
    free(sum);
}

/* ---- what happened --------------------------------------------------------------------------------------------- */

static void carry_calls(struct wr_area *to, const struct wr_area *from, uint32_t pools)
{
    struct wr_recorded_call *calls = calloc(to->shape.calls, sizeof *calls);
    size_t count = calls == NULL ? 0 : wr_recorder_read(from, calls, to->shape.calls);
    while (count > 0) { /* newest first */
        struct wr_recorded_call *call = &calls[--count];
        if (call->pool >= pools) continue;
        call->label = call->label < from->shape.labels ? label_in(to, from, call->label) : 0;
        wr_recorder_add(to, call);
    }
    free(calls);
}

static void carry_events(struct wr_area *to, const struct wr_area *from)
{
    struct wr_event *events = calloc(to->shape.events, sizeof *events);
    size_t count = events == NULL ? 0 : wr_event_read(from, 0, events, to->shape.events);
    for (size_t i = 0; i < count; i++) wr_event_put_back(to, &events[i]);
    free(events);
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

void wr_area_carry(struct wr_area *to, const struct wr_area *from, const struct wr_carrier *carrier)
{
    to->worker = 1;
    atomic_store(&wr_shared_of(to)->slots_used, 1);
    uint32_t pools = carry_pools(to, from, carrier);
    for (uint32_t pool = 0; pool < pools; pool++) carry_pool_meter(to, from, pool);
    carry_labels(to, from, pools);
    carry_calls(to, from, pools);
    carry_events(to, from);
    wr_policy_carry(to, from);
    to->worker = 0;
}

bool wr_area_can_carry(const struct wr_area_shape *to, const struct wr_area *from)
{
    return from->shape.pool_bytes == to->pool_bytes && wr_area_pool_count(from) <= to->pools;
}
