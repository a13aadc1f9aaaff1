/* The pool itself: its guards, how many connections it may have, which one a call gets. One connection's life is in
 * conn.c, the queue of calls in front of the pool in queue.c. */
#include "engine/pool.h"

#include "base/check.h"
#include "engine/call.h"
#include "engine/health.h"
#include "engine/lane.h"
#include "engine/places.h"
#include "engine/queue.h"

#include <string.h>

#define MS 1000000ull
enum { PEEK_AFTER_MS = 1 };

/* ---- the pool itself --------------------------------------------------------------------------------------- */

static void grow_fired(struct wr_timer *timer)
{
    wr_pool_serve(WR_CONTAINER(timer, struct wr_pool, grow_timer));
}

static size_t round_up(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

size_t wr_pool_record_bytes(void)
{
    return round_up(sizeof(struct wr_pool_record)) + round_up(weir_breaker_size()) +
           round_up(weir_budget_size());
}

weir_breaker *wr_pool_breaker_in(void *record)
{
    return (weir_breaker *)(void *)((char *)record + round_up(sizeof(struct wr_pool_record)));
}

weir_budget *wr_pool_budget_in(void *record)
{
    return (weir_budget *)(void *)((char *)wr_pool_breaker_in(record) + round_up(weir_breaker_size()));
}

static void publish_config(const struct wr_pool *pool)
{
    struct wr_pool_record *record = pool->record;
    atomic_store_explicit(&record->max, pool->client->max, memory_order_relaxed);
    atomic_store_explicit(&record->min, pool->client->min, memory_order_relaxed);
    atomic_store_explicit(&record->kind, (uint32_t)pool->client->kind, memory_order_relaxed);
    atomic_store_explicit(&record->multiplex, pool->share, memory_order_relaxed);
}

/* The first worker that sees a pool makes its guards; a later one brings its own configuration: after a policy reload
 * the newest counts, and state and windows stay. */
static int init_record(struct wr_pool *pool, bool created, char *why)
{
    struct weir_engine *engine = pool->engine;
    const weir_options *o = &engine->config.options;
    pool->breaker = wr_pool_breaker_in(pool->record);
    pool->budget = wr_pool_budget_in(pool->record);
    if (!created) {
        int code = weir_budget_check(&o->budget, why); /* before anything of a live pool is changed */
        if (code == WEIR_OK) code = weir_breaker_configure(pool->breaker, &o->breaker, engine->now, why);
        return code == WEIR_OK ? weir_budget_configure(pool->budget, &o->budget, engine->now, why) : code;
    }
    int code = weir_breaker_init(pool->breaker, &o->breaker, engine->now, why);
    if (code == WEIR_OK) code = weir_budget_init(pool->budget, &o->budget, engine->now, why);
    if (code == WEIR_OK) wr_area_pool_ready(engine->area, pool->index);
    return code;
}

static int init_target(struct wr_pool *pool, char *why)
{
    struct wr_login login;
    wr_config_login(&login, &pool->engine->config.options, pool->client, pool->backend, pool->name);
    char reason[WEIR_WHY_MAX] = "";
    int code = pool->engine->driver->target(pool->engine->instance, &login, &pool->target, reason);
    if (code != WEIR_OK) wr_text_format(why, WEIR_WHY_MAX, "backends.%s: %s", pool->backend->name, reason);
    return code;
}

int wr_pool_init(struct wr_pool *pool, struct weir_engine *engine, size_t client, size_t backend, char *why)
{
    const weir_options *o = &engine->config.options;
    pool->engine = engine;
    pool->client = &o->clients[client];
    pool->backend = &o->backends[backend];
    pool->backend_index = backend;
    wr_text_format(pool->name, sizeof pool->name, "%s@%s", pool->client->name, pool->backend->name);
    for (size_t i = 0; i < WR_CONN_STATES; i++) wr_list_init(&pool->conns[i]);
    wr_list_init(&pool->waiters);
    wr_queue_init(pool);
    bool lanes = engine->driver->has_room != NULL && !pool->backend->pooler && pool->client->multiplex > 1;
    pool->share = lanes ? pool->client->multiplex : 0;
    pool->grow_timer.fire = grow_fired;
    pool->probe_timer.fire = wr_health_probe_fired;

    void *record = NULL;
    bool created = false;
    int code = wr_area_pool(engine->area, pool->name, &record, &pool->index, &created);
    if (code != WEIR_OK) {
        wr_text_format(why, WEIR_WHY_MAX, "no room for pool %s in the area: %u pools at most", pool->name,
                       wr_area_shape(engine->area)->pools);
        return code;
    }
    pool->record = record;
    pool->meter = wr_meter_pool(engine->area, pool->index);
    code = init_record(pool, created, why);
    if (code == WEIR_OK) publish_config(pool);
    if (code == WEIR_OK)
        code = weir_backoff_init(&pool->connect_backoff, WEIR_BACKOFF_FULL, 50 * MS, 2000 * MS, 2, why);
    if (code == WEIR_OK) code = init_target(pool, why);
    return code;
}

void wr_pool_release(struct wr_pool *pool)
{
    wr_engine_disarm(pool->engine, &pool->grow_timer);
    wr_engine_disarm(pool->engine, &pool->probe_timer);
    if (pool->target != NULL) pool->engine->driver->target_free(pool->target);
    pool->target = NULL;
}

uint32_t wr_pool_max(const struct wr_pool *pool)
{
    uint32_t resized = atomic_load_explicit(&pool->record->resized, memory_order_relaxed);
    return resized == 0 || resized > WR_POOL_MAX ? pool->client->max : resized;
}

size_t wr_pool_busy(const struct wr_pool *pool)
{
    return pool->count[WR_CONN_LEASED] + pool->count[WR_CONN_SHARED] + pool->count[WR_CONN_CLEANING] +
           pool->count[WR_CONN_PROBING] + pool->count[WR_CONN_LISTENING];
}

size_t wr_pool_total(const struct wr_pool *pool)
{
    return pool->total;
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

static size_t more_than(size_t wanted, size_t there)
{
    return wanted > there ? wanted - there : 0;
}

/* Those who can share one wait for it together. */
static size_t connections_waited_for(const struct wr_pool *pool)
{
    if (pool->share == 0) return pool->waiting;
    size_t sharing = pool->waiting - pool->alone, depth = wr_lane_depth(pool);
    return pool->alone + (sharing + depth - 1) / depth;
}

/* How many more connections are wanted now. Who waits is served by a connect of its own, whatever happened to those in
 * the background: its attempt, and not the pool, decides when to try again. */
static size_t connections_wanted(struct wr_pool *pool)
{
    struct weir_engine *engine = pool->engine;
    size_t to_serve = more_than(connections_waited_for(pool), pool->count[WR_CONN_CONNECTING]);
    size_t to_fill = wr_pool_is_drained(pool) ? 0 : more_than(pool->client->min, wr_pool_total(pool));
    if (to_serve + to_fill > 0 && engine->now < pool->connect_not_before) {
        wr_engine_arm(engine, &pool->grow_timer, pool->connect_not_before);
        return 0;
    }
    if (to_fill > to_serve && engine->now < pool->fill_not_before) {
        wr_engine_arm(engine, &pool->grow_timer, pool->fill_not_before);
        return to_serve;
    }
    return to_fill > to_serve ? to_fill : to_serve;
}

void wr_pool_grow(struct wr_pool *pool)
{
    struct weir_engine *engine = pool->engine;
    if (engine->state == WR_ENGINE_CLOSING || (engine->state == WR_ENGINE_DRAINING && pool->waiting == 0))
        return;
    if (engine->now < pool->lent_until) {
        wr_engine_arm(engine, &pool->grow_timer, pool->lent_until);
        return;
    }
    size_t wanted = connections_wanted(pool);
    while (wanted > 0 && wr_pool_total(pool) < wr_pool_max(pool)) {
        if (wr_conn_open(pool, false) == NULL) {
            /* Others hold the places or connect just now, or there is no memory: nobody will call us. */
            wr_engine_arm(engine, &pool->grow_timer, engine->now + pool->look_again_ns);
            return;
        }
        wanted--;
    }
}

/* ---- the monitor's use ------------------------------------------------------------------------------------------ */

bool wr_pool_probe(struct wr_pool *pool)
{
    struct wr_list *idle =
        wr_list_last(&pool->conns[WR_CONN_IDLE]); /* the coldest says most about the server */
    if (idle != NULL) {
        wr_pool_probe_send(WR_CONTAINER(idle, struct wr_conn, link));
        return true;
    }
    if (wr_pool_total(pool) >= wr_pool_max(pool)) return false;
    return wr_conn_open(pool, true) != NULL;
}

/* ---- going back, going away --------------------------------------------------------------------------------------- */

/* Idle connections of one worker would otherwise starve the others until idle_timeout. One at a time: who wants more
 * asks again. */
void wr_pool_lend(struct wr_pool *pool)
{
    struct wr_list *coldest = wr_list_last(&pool->conns[WR_CONN_IDLE]);
    if (coldest == NULL || atomic_load_explicit(&pool->record->wanted, memory_order_relaxed) == 0) return;
    if (atomic_exchange(&pool->record->wanted, 0) == 0) return;
    wr_conn_close(WR_CONTAINER(coldest, struct wr_conn, link), WR_N_CLOSED_IDLE);
}

bool wr_pool_is_drained(const struct wr_pool *pool)
{
    return atomic_load_explicit(&pool->record->paused, memory_order_relaxed) == WR_POOL_DRAINED;
}

void wr_pool_shrink(struct wr_pool *pool)
{
    struct wr_list *coldest;
    while (wr_places_are_short(pool) && (coldest = wr_list_last(&pool->conns[WR_CONN_IDLE])) != NULL)
        wr_conn_close(WR_CONTAINER(coldest, struct wr_conn, link), WR_N_CLOSED_IDLE);
}

void wr_pool_evict(struct wr_pool *pool)
{
    pool->epoch++;
    wr_pool_close_idle(pool);
}

void wr_pool_close_idle(struct wr_pool *pool)
{
    struct wr_list *node;
    while ((node = wr_list_first(&pool->conns[WR_CONN_IDLE])) != NULL) {
        wr_conn_close(WR_CONTAINER(node, struct wr_conn, link), WR_N_CLOSED_SHUTDOWN);
    }
}

void wr_pool_close_all(struct wr_pool *pool)
{
    for (size_t s = 0; s < WR_CONN_CLOSED; s++) {
        struct wr_list *node;
        while ((node = wr_list_first(&pool->conns[s])) != NULL) {
            struct wr_conn *conn = WR_CONTAINER(node, struct wr_conn, link);
            WR_CHECK(conn->call == NULL); /* calls end before their connections do */
            wr_conn_close(conn, WR_N_CLOSED_SHUTDOWN);
        }
    }
}

/* A connection for a call, or NULL. One that was in use a moment ago is taken as alive; an older one is asked with a
 * peek at its socket, which costs no round trip. */
struct wr_conn *wr_pool_take_idle(struct wr_pool *pool)
{
    struct wr_list *node;
    while ((node = wr_list_first(&pool->conns[WR_CONN_IDLE])) != NULL) {
        struct wr_conn *conn = WR_CONTAINER(node, struct wr_conn, link);
        bool fresh = pool->engine->now - conn->alive_at < PEEK_AFTER_MS * MS;
        if (wr_conn_is_stale(conn) && pool->engine->state == WR_ENGINE_OPEN) {
            wr_conn_close(conn, WR_N_CLOSED_LIFETIME);
        } else if (!fresh && !pool->engine->driver->peek(conn->server)) {
            wr_conn_close(conn, WR_N_CLOSED_PEEK);
        } else {
            return conn;
        }
    }
    return NULL;
}
