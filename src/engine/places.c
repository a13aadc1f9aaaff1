/* Places over all workers; see places.h. A claim stands until a moment in the pool's shared record, which its owner renews
 * while it waits: one that dies or is content claims no longer. Each claim frees one place: who wants more asks again. */
#include "engine/places.h"

#define MS 1000000ull

enum { POLL_MS = 20, NOBODY_WAITS_POLL_MS = 1000, CLAIM_MS = 50, TURN_MS = 200 };

/* 0 if there are more workers than places. */
static uint32_t whole_share(const struct wr_pool *pool)
{
    uint32_t workers = wr_meter_workers(pool->engine->area, pool->index);
    return wr_pool_max(pool) / (workers > 0 ? workers : 1);
}

static uint32_t fair_share(const struct wr_pool *pool)
{
    uint32_t share = whole_share(pool);
    return share > 0 ? share : 1;
}

static bool claim_stands(const struct wr_pool *pool)
{
    uint64_t until = atomic_load_explicit(&pool->record->claimed_until, memory_order_relaxed);
    uint64_t now = pool->engine->now;
    return until > now && until - now <= CLAIM_MS * MS; /* a longer one is damaged */
}

/* Whoever waits asks for what others leave idle; who has less than its share claims more than that. */
static void claim(struct wr_pool *pool)
{
    struct wr_pool_record *record = pool->record;
    atomic_store_explicit(&record->wanted, 1, memory_order_relaxed);
    if (wr_pool_total(pool) >= fair_share(pool)) return;
    atomic_store_explicit(&record->claimed_until, pool->engine->now + CLAIM_MS * MS, memory_order_relaxed);
    atomic_store_explicit(&record->claimed, 1, memory_order_relaxed);
}

/* Before a place is counted as ours: one that we claimed is claimed no longer. Others renew theirs soon. */
static void claim_is_met(struct wr_pool *pool)
{
    if (wr_pool_total(pool) >= fair_share(pool)) return;
    atomic_store_explicit(&pool->record->claimed, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->record->claimed_until, 0, memory_order_relaxed);
}

static bool refused(struct wr_pool *pool, uint64_t *again_ns)
{
    if (pool->waiting > 0) claim(pool);
    *again_ns = (pool->waiting > 0 ? POLL_MS : NOBODY_WAITS_POLL_MS) * MS;
    return false;
}

/* Others wait with a better claim than ours. */
static bool must_stand_back(const struct wr_pool *pool)
{
    return claim_stands(pool) && wr_pool_total(pool) >= fair_share(pool);
}

static int64_t taken(const struct wr_pool *pool)
{
    return wr_meter_gauge(pool->engine->area, pool->index, WR_G_CONNECTIONS);
}

bool wr_places_are_short(const struct wr_pool *pool)
{
    if (wr_pool_total(pool) > wr_pool_max(pool)) return true;
    if (atomic_load_explicit(&pool->record->resized, memory_order_relaxed) == 0) return false;
    return wr_area_is_shared(pool->engine->area) && taken(pool) > (int64_t)wr_pool_max(pool);
}

bool wr_place_is_free(struct wr_pool *pool, uint64_t *again_ns)
{
    if (!wr_area_is_shared(pool->engine->area)) return true;
    if (taken(pool) < (int64_t)wr_pool_max(pool) && !must_stand_back(pool)) return true;
    return refused(pool, again_ns);
}

/* The gauge goes up first, so two workers can both be refused but never both be let through. */
bool wr_place_take(struct wr_pool *pool, uint64_t *again_ns)
{
    wr_gauge_add(&pool->meter->gauge[WR_G_CONNECTIONS], 1);
    if (!wr_area_is_shared(pool->engine->area)) return true;
    if (taken(pool) <= (int64_t)wr_pool_max(pool)) {
        claim_is_met(pool);
        return true;
    }
    wr_place_leave(pool);
    return refused(pool, again_ns);
}

void wr_place_leave(struct wr_pool *pool)
{
    wr_gauge_add(&pool->meter->gauge[WR_G_CONNECTIONS], -1);
}

bool wr_place_is_owed(const struct wr_conn *conn)
{
    struct wr_pool *pool = conn->pool;
    uint64_t now = pool->engine->now;
    _Atomic uint32_t *claimed = &pool->record->claimed;
    if (atomic_load_explicit(claimed, memory_order_relaxed) == 0 || !claim_stands(pool)) return false;
    if (!wr_area_is_shared(pool->engine->area)) return false;
    bool its_turn_is_over = whole_share(pool) == 0 && now - conn->opened_at > TURN_MS * MS;
    if (wr_pool_total(pool) <= fair_share(pool) && !its_turn_is_over) return false;
    if (atomic_exchange(claimed, 0) == 0) return false;
    pool->lent_until = now + CLAIM_MS * MS; /* or we would take it back at once */
    return true;
}
