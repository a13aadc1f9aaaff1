/* The heartbeat, the dead, the lent, and the file; see housekeeping.h. */
#include "engine/housekeeping.h"

#include "engine/pool.h"

#define HOUSEKEEPING_NS 1000000000ull

/* ---- the dead -------------------------------------------------------------------------------------------------- */

void wr_reclaim(struct weir_engine *engine, uint32_t worker)
{
    for (uint32_t i = 0; i < wr_area_pool_count(engine->area); i++) {
        void *record = wr_area_pool_record(engine->area, i);
        if (record != NULL) weir_breaker_reclaim(wr_pool_breaker_in(record), worker, engine->now);
    }
    wr_doors_reclaim(engine, worker);
}

void wr_settle_record(void *ctx, void *record)
{
    const struct weir_engine *engine = ctx;
    struct wr_pool_record *pool = record;
    for (uint32_t worker = 0; worker < WR_TURN_OWNERS; worker++)
        weir_breaker_reclaim(wr_pool_breaker_in(record), worker, engine->now);
    pool->wanted = pool->claimed = 0;
}

static uint32_t last_slot_taken(const struct wr_area *area)
{
    uint32_t slot = wr_area_shape(area)->workers;
    while (slot > 0 && wr_area_worker_pid(area, slot) == 0) slot--;
    return slot;
}

/* One look at each slot: what a dead worker held is free again after a second or two, however many workers there are. */
static void look_for_the_dead(struct weir_engine *engine)
{
    for (uint32_t looks = last_slot_taken(engine->area); looks > 0; looks--) {
        uint32_t dead = wr_area_reap(engine->area);
        if (dead == 0) continue;
        wr_reclaim(engine, dead);
        wr_engine_event(engine, WR_EVENT_AREA, NULL,
                        &(struct wr_event_facts){.id = "worker.died", .level = WEIR_LOG_WARN},
                        "worker %u has died: its leases and connections are reclaimed", dead);
    }
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

/* Whoever comes later makes another one and shares nothing with us. Told once each time it happens. */
static void look_for_the_file(struct weir_engine *engine)
{
    bool there = wr_area_is_at_path(engine->area);
    if (!there && !engine->area_adrift) {
        wr_engine_event(engine, WR_EVENT_AREA, NULL,
                        &(struct wr_event_facts){.id = "area.adrift", .level = WEIR_LOG_WARN},
                        "area %s is no longer at its path: worker %u goes on with the one it has, and "
                        "workers that come later share another",
                        engine->config.options.area_path, wr_area_worker(engine->area));
    }
    engine->area_adrift = !there;
}

static void housekeeping_fired(struct wr_timer *timer)
{
    struct weir_engine *engine = WR_CONTAINER(timer, struct weir_engine, housekeeping);
    wr_area_heartbeat(engine->area, engine->now);
    wr_card_write(engine);
    look_for_the_dead(engine);
    look_for_the_file(engine);
    for (size_t i = 0; i < engine->pool_count; i++) wr_pool_lend(&engine->pools[i]);
    wr_engine_arm(engine, timer, engine->now + HOUSEKEEPING_NS);
}

void wr_housekeeping_start(struct weir_engine *engine)
{
    engine->housekeeping.fire = housekeeping_fired;
    if (!wr_area_is_shared(engine->area)) return;
    wr_area_heartbeat(engine->area, engine->now);
    wr_engine_arm(engine, &engine->housekeeping, engine->now + HOUSEKEEPING_NS);
}
