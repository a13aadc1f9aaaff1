/* Waiting for a connection; see queue.h. */
#include "engine/queue.h"

#include "engine/admission.h"
#include "engine/call.h"
#include "engine/lane.h"

#include <string.h>

#define MS 1000000ull

void wr_queue_init(struct wr_pool *pool)
{
    const weir_options *o = &pool->engine->config.options;
    static const enum wr_queue_kind kinds[] = {[WEIR_QUEUE_ADAPTIVE] = WR_QUEUE_ADAPTIVE,
                                               [WEIR_QUEUE_FIFO] = WR_QUEUE_FIFO,
                                               [WEIR_QUEUE_CODEL] = WR_QUEUE_CODEL};
    wr_discipline_init(&pool->discipline, kinds[o->queue], o->queue_target_ns, o->queue_interval_ns);
}

static struct weir_call *call_at(struct wr_list *node)
{
    return node == NULL ? NULL : WR_CONTAINER(node, struct weir_call, place);
}

static void publish_waiting(struct wr_pool *pool)
{
    atomic_store_explicit(&pool->meter->gauge[WR_G_WAITING], (int64_t)pool->waiting, memory_order_relaxed);
}

static struct weir_call *oldest_ordinary(struct wr_pool *pool)
{
    for (struct wr_list *n = pool->waiters.next; n != &pool->waiters; n = n->next) {
        if (call_at(n)->state == WR_CALL_QUEUED) return call_at(n);
    }
    return NULL;
}

static void observe(struct wr_pool *pool)
{
    struct weir_call *oldest =
        oldest_ordinary(pool); /* who looks into a lost COMMIT stands outside the order */
    uint64_t now = pool->engine->now;
    if (oldest == NULL) {
        wr_discipline_observe(&pool->discipline, now, true, 0, 0);
        return;
    }
    wr_discipline_observe(&pool->discipline, now, false, now - oldest->queued_from,
                          oldest->deadline - oldest->queued_from);
}

/* Room for those the pool could still open connections for comes on top of queue_max: they wait for a connect, not
 * for each other. */
static bool is_full(const struct wr_pool *pool, const struct weir_call *call)
{
    size_t serving = wr_pool_total(pool) - pool->count[WR_CONN_CONNECTING];
    size_t can_open = serving < wr_pool_max(pool) ? wr_pool_max(pool) - serving : 0;
    if (call->rides) can_open *= wr_lane_depth(pool);
    return pool->waiting >= pool->client->queue_max + can_open;
}

/* Past those who need a connection for themselves, but not past others who would ride. */
static bool ride_at_once(struct wr_pool *pool, struct weir_call *call)
{
    struct wr_conn *lane;
    while (pool->waiting == pool->alone && (lane = wr_lane_find(pool)) != NULL) {
        if (wr_call_leased(call, lane)) return true;
    }
    return false;
}

bool wr_queue_join(struct wr_pool *pool, struct weir_call *call, bool front)
{
    call->queued_from = pool->engine->now;
    struct wr_conn *conn = NULL;
    if (call->rides && ride_at_once(pool, call)) return true;
    while ((pool->waiting == 0 || front) && (conn = wr_pool_take_idle(pool)) != NULL) {
        if (wr_call_leased(call, conn)) return true;
    }
    if (!front && is_full(pool, call)) return false;
    wr_call_enter(call, front ? WR_CALL_RESOLVE_QUEUED : WR_CALL_QUEUED);
    if (front) {
        wr_list_remove(&call->place);
        wr_list_prepend(&pool->waiters, &call->place);
    }
    pool->waiting++;
    if (!call->rides) pool->alone++;
    publish_waiting(pool);
    observe(pool);
    wr_pool_grow(pool);
    return true;
}

void wr_queue_leave(struct wr_pool *pool, struct weir_call *call)
{
    wr_list_remove(&call->place);
    pool->waiting--;
    if (!call->rides) pool->alone--;
    publish_waiting(pool);
}

/* Nobody was faster than service_floor lately, but this one may be: where only slow calls have succeeded so far, the
 * floor says little of a quick one, so it counts only against those who have used up most of their time. */
static uint64_t least_service(const struct wr_pool *pool, const struct weir_call *call)
{
    uint64_t tenth = (call->deadline - call->started) / 10;
    return pool->service_floor_ns < tenth ? pool->service_floor_ns : tenth;
}

/* True if the call was dropped: it could not be answered in time, or the discipline gives it up. */
static bool drop_hopeless(struct wr_pool *pool, struct weir_call *call)
{
    uint64_t now = pool->engine->now;
    if (call->state == WR_CALL_RESOLVE_QUEUED) return false;
    if (call->deadline <= now + least_service(pool, call)) {
        wr_call_refuse(
            call, WEIR_CALL_TIMEOUT, WR_N_REFUSED_ACQUIRE, NULL, 0,
            "waited %.0f ms for a connection; what is left of the timeout is too short to be answered in",
            (double)(now - call->queued_from) / 1e6);
        return true;
    }
    if (wr_discipline_should_drop(&pool->discipline, now - call->queued_from)) {
        wr_call_refuse(call, WEIR_CALL_ACQUIRE_TIMEOUT, WR_N_REFUSED_ACQUIRE, NULL,
                       pool->engine->config.options.queue_interval_ns,
                       "dropped from a standing queue after %.0f ms (queue codel)",
                       (double)(now - call->queued_from) / 1e6);
        return true;
    }
    return false;
}

static struct weir_call *next_waiter(struct wr_pool *pool)
{
    observe(pool);
    struct weir_call *first = call_at(wr_list_first(&pool->waiters));
    if (first == NULL || first->state == WR_CALL_RESOLVE_QUEUED) return first;
    return wr_discipline_newest_first(&pool->discipline) ? call_at(wr_list_last(&pool->waiters)) : first;
}

static struct weir_call *next_to_ride(struct wr_pool *pool)
{
    observe(pool);
    bool newest = wr_discipline_newest_first(&pool->discipline);
    struct wr_list *node = newest ? pool->waiters.prev : pool->waiters.next;
    while (node != &pool->waiters && !call_at(node)->rides) node = newest ? node->prev : node->next;
    return node == &pool->waiters ? NULL : call_at(node);
}

/* Lanes before idle connections, as few of them as will do. */
static bool serve_one_to_ride(struct wr_pool *pool)
{
    if (pool->waiting == pool->alone) return false;
    struct wr_conn *lane = wr_lane_find(pool);
    struct weir_call *call = lane == NULL ? NULL : next_to_ride(pool);
    if (call == NULL) return false;
    if (!drop_hopeless(pool, call)) wr_call_leased(call, lane);
    return true;
}

void wr_pool_serve(struct wr_pool *pool)
{
    while (pool->waiting > 0) {
        if (serve_one_to_ride(pool)) continue;
        struct wr_conn *conn = wr_pool_take_idle(pool);
        if (conn == NULL) break;
        struct weir_call *call = next_waiter(pool);
        if (!drop_hopeless(pool, call)) wr_call_leased(call, conn);
    }
    if (pool->waiting == 0) wr_pool_lend(pool);
    wr_pool_grow(pool);
}

void wr_queue_flush(struct wr_pool *pool, const weir_evidence *evidence)
{
    size_t standing = pool->waiting;
    for (size_t i = 0; i < standing; i++) {
        struct weir_call *call = call_at(wr_list_last(&pool->waiters));
        if (call == NULL || call->state == WR_CALL_RESOLVE_QUEUED) return;
        wr_breaker_refuse(call, evidence);
    }
}

static bool another_connection_lives(const struct wr_pool *pool)
{
    return pool->count[WR_CONN_LEASED] + pool->count[WR_CONN_SHARED] + pool->count[WR_CONN_CLEANING] +
               pool->count[WR_CONN_IDLE] >
           0;
}

static void resolvers_hear(struct wr_pool *pool)
{
    struct weir_call *first;
    while ((first = call_at(wr_list_first(&pool->waiters))) != NULL &&
           first->state == WR_CALL_RESOLVE_QUEUED) {
        wr_resolve_no_connection(first);
    }
}

/* One failed connect is one failed attempt: of the oldest waiter. Those who have by then waited a whole connect_timeout
 * themselves fail with it (a server that does not answer would else cost a connect_timeout per waiter). When the server
 * has only run out of slots (53300), or this process of descriptors, and others of ours live, the waiters wait for those and the pool stops pushing. */
void wr_queue_connect_failed(struct wr_pool *pool, const struct wr_fault *fault, bool probe)
{
    struct weir_engine *engine = pool->engine;
    uint64_t backoff = weir_backoff_next(&pool->connect_backoff, wr_rng_next(&engine->rng));
    resolvers_hear(pool);
    bool no_room = strcmp(fault->sqlstate, "53300") == 0 || fault->ours;
    if (no_room && another_connection_lives(pool)) {
        pool->connect_not_before = engine->now + backoff;
        wr_pool_grow(pool);
        return;
    }
    struct weir_call *call = oldest_ordinary(pool);
    if (call == NULL || probe) {
        if (!probe && !fault->ours) wr_breaker_tell(pool, WEIR_FAILURE, fault->sqlstate);
        pool->fill_not_before = engine->now + backoff;
        wr_pool_grow(pool);
        return;
    }
    /* A refused login is refused for all who wait. */
    uint64_t patience = fault->identity ? 0 : engine->config.options.connect_timeout_ns;
    wr_call_failed(call, fault, true);
    for (size_t most = pool->waiting; most > 0 && (call = oldest_ordinary(pool)) != NULL; most--) {
        if (engine->now - call->queued_from < patience) break;
        wr_call_failed(call, fault, true);
    }
    wr_pool_grow(pool);
}
