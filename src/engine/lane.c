/* Several calls on one connection; see lane.h. */
#include "engine/lane.h"

#include "base/check.h"
#include "engine/call.h"
#include "engine/queue.h"

#define LANE_NS      2000000ull /* what is on a lane should be through within this */
#define HEAD_LONG_NS 2000000ull /* beside twice what a quick call takes: the oldest runs long */
enum { REQUEST_MAX = 1 << 16, STATEMENTS_MAX = 16 };

/* ---- who rides, and where -------------------------------------------------------------------------------------- */

bool wr_lane_admits(const struct weir_call *call)
{
    if (call->unit || !call->readonly || call->statement_count > STATEMENTS_MAX) return false;
    if (call->request_size > REQUEST_MAX) return false;
    for (size_t i = 0; i < call->statement_count; i++) {
        if (call->facts[i].stands_alone || call->facts[i].may_dirty) return false;
    }
    return true;
}

uint32_t wr_lane_depth(const struct wr_pool *pool)
{
    uint64_t deep = pool->pace_ns == 0 ? pool->share : LANE_NS / pool->pace_ns;
    if (deep == 0) return 1;
    return deep < pool->share ? (uint32_t)deep : pool->share;
}

/* Somebody needs a connection that is idle. */
static bool is_contested(const struct wr_pool *pool)
{
    return pool->alone > 0 || atomic_load_explicit(&pool->record->wanted, memory_order_relaxed) != 0;
}

static bool has_room(const struct wr_conn *conn, uint32_t depth)
{
    const struct wr_pool *pool = conn->pool;
    const struct wr_lane *lane = conn->lane;
    if (lane->count >= depth || lane->sealed || wr_conn_is_stale(conn)) return false;
    if (lane->carried >= pool->share && is_contested(pool)) return false;
    if (lane->count == 0) return true;
    uint64_t patience = HEAD_LONG_NS + 2 * pool->service_floor_ns;
    bool slow = pool->engine->now - lane->head_since >= patience || lane->riders[lane->first].left_at != 0;
    return !slow && pool->engine->driver->has_room(conn->server);
}

struct wr_conn *wr_lane_find(struct wr_pool *pool)
{
    struct wr_list *lanes = &pool->conns[WR_CONN_SHARED];
    uint32_t depth = wr_lane_depth(pool);
    for (struct wr_list *n = lanes->next; n != lanes; n = n->next) {
        struct wr_conn *conn = WR_CONTAINER(n, struct wr_conn, link);
        if (has_room(conn, depth)) return conn;
    }
    return NULL;
}

/* ---- getting on ------------------------------------------------------------------------------------------------ */

bool wr_lane_board(struct wr_conn *conn, struct weir_call *call)
{
    if (!call->rides) return false;
    if (conn->lane == NULL) conn->lane = wr_alloc(&conn->pool->engine->memory, sizeof *conn->lane);
    if (conn->lane == NULL) return false;
    if (conn->state == WR_CONN_IDLE) {
        conn->lane->count = conn->lane->awaited = conn->lane->carried = 0;
        conn->lane->sealed = conn->lane->cancelling = false;
        wr_conn_share(conn);
    }
    call->conn = conn;
    return true;
}

void wr_lane_sent(struct wr_conn *conn, struct weir_call *call)
{
    struct wr_lane *lane = conn->lane;
    uint64_t now = conn->pool->engine->now;
    WR_CHECK(lane->count < WR_LANE_MOST);
    if (lane->count == 0) lane->head_since = now;
    uint32_t at = (lane->first + lane->count) % WR_LANE_MOST;
    lane->riders[at] = (struct wr_rider){.call = call, .sent_at = now};
    lane->count++;
    lane->awaited++;
    lane->carried++;
}

/* ---- the pace -------------------------------------------------------------------------------------------------- */

/* What one call takes of a lane. One that waited behind another shows it, from the one answer to the next; one that was
 * alone shows it with the way there and back, so it can only lower the figure. With nothing to learn from, hope grows. */
static void note_pace(struct wr_pool *pool, const struct wr_lane *lane, const struct wr_rider *rider)
{
    uint64_t took = pool->engine->now - lane->head_since;
    if (took > LANE_NS) took = LANE_NS;
    bool behind = rider->sent_at < lane->head_since;
    if (took < pool->pace_ns) {
        pool->pace_ns -= (pool->pace_ns - took + 63) / 64;
    } else if (behind) {
        pool->pace_ns += (took - pool->pace_ns) / 64;
    } else {
        pool->pace_ns -= pool->pace_ns / 1024;
    }
}

static struct wr_rider take_oldest(struct wr_conn *conn)
{
    struct wr_lane *lane = conn->lane;
    WR_CHECK(lane->count > 0);
    struct wr_rider rider = lane->riders[lane->first];
    note_pace(conn->pool, lane, &rider);
    lane->first = (lane->first + 1) % WR_LANE_MOST;
    lane->count--;
    if (rider.left_at == 0) lane->awaited--;
    lane->cancelling = false;
    lane->head_since = conn->pool->engine->now;
    return rider;
}

/* ---- given up -------------------------------------------------------------------------------------------------- */

static struct wr_rider *seat_of(struct wr_lane *lane, const struct weir_call *call)
{
    for (uint32_t i = 0; i < lane->count; i++) {
        struct wr_rider *rider = &lane->riders[(lane->first + i) % WR_LANE_MOST];
        if (rider->call == call) return rider;
    }
    WR_CHECK(!"a call without a seat");
    return NULL;
}

static bool is_deserted(const struct wr_lane *lane)
{
    for (uint32_t i = 0; i < lane->count; i++) {
        if (lane->riders[(lane->first + i) % WR_LANE_MOST].call != NULL) return false;
    }
    return true;
}

static void cancel(struct wr_conn *conn)
{
    if (conn->lane->cancelling) return;
    conn->lane->cancelling = true;
    wr_count(&conn->pool->meter->counter[WR_N_CANCELS], 1);
    conn->pool->engine->driver->cancel(conn->server);
}

/* Until when the oldest, which is given up, may keep the others waiting. */
static uint64_t patience_ends(const struct wr_conn *conn)
{
    const struct wr_lane *lane = conn->lane;
    uint64_t left_at = lane->riders[lane->first].left_at;
    uint64_t since = left_at > lane->head_since ? left_at : lane->head_since;
    return wr_after(since, conn->pool->engine->config.options.cancel_wait_ns);
}

/* After each change: what a lane whose riders leave needs. */
static void mind(struct wr_conn *conn)
{
    struct wr_lane *lane = conn->lane;
    if (lane->count == 0) return;
    if (lane->awaited == 0) {
        lane->sealed = true; /* nobody may come near a cancel */
        cancel(conn);
        if (is_deserted(lane)) wr_conn_abandon(conn);
    } else if (lane->riders[lane->first].left_at != 0) {
        wr_engine_arm(conn->pool->engine, &conn->timer, patience_ends(conn));
    }
}

static void give_up(struct wr_conn *conn, struct wr_rider *rider)
{
    if (rider->left_at != 0) return;
    rider->left_at = conn->pool->engine->now;
    conn->lane->awaited--;
}

void wr_lane_overdue(struct wr_conn *conn, const struct weir_call *call)
{
    give_up(conn, seat_of(conn->lane, call));
    mind(conn);
}

void wr_lane_leave(struct wr_conn *conn, const struct weir_call *call)
{
    struct wr_rider *rider = seat_of(conn->lane, call);
    give_up(conn, rider);
    rider->call = NULL;
    mind(conn);
}

bool wr_lane_forsakes(struct wr_conn *conn)
{
    if (conn->lane == NULL || conn->lane->count == 0) return false;
    take_oldest(conn);
    if (conn->lane->count == 0) return false;
    cancel(conn);
    return true;
}

void wr_lane_due(struct wr_conn *conn)
{
    const struct wr_lane *lane = conn->lane;
    if (lane->count == 0 || lane->riders[lane->first].left_at == 0) return;
    uint64_t at = patience_ends(conn);
    if (conn->pool->engine->now < at) {
        wr_engine_arm(conn->pool->engine, &conn->timer, at);
        return;
    }
    struct wr_fault fault = {.lost = true,
                             .message =
                                 "the shared connection was closed: a call ahead on it had been given up "
                                 "and did not end"};
    struct wr_pool *pool = conn->pool;
    wr_lane_break(conn, &fault, WR_N_CLOSED_CANCEL);
    wr_pool_serve(pool);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

void wr_lane_break(struct wr_conn *conn, const struct wr_fault *fault, enum wr_counter reason)
{
    struct wr_pool *pool = conn->pool;
    struct wr_fault kept = *fault;
    struct weir_call *calls[WR_LANE_MOST];
    size_t count = 0;
    while (conn->lane->count > 0) {
        struct wr_rider rider = take_oldest(conn);
        if (rider.call != NULL) calls[count++] = rider.call;
    }
    for (size_t i = 0; i < count; i++) wr_call_detach(calls[i]);
    wr_conn_close(conn, reason);
    wr_pool_grow(pool);
    for (size_t i = 0; i < count; i++) {
        calls[i]->server_ns += pool->engine->now - calls[i]->sent_at;
        wr_call_failed(calls[i], &kept, false);
    }
}

void wr_lane_settled(struct wr_conn *conn, struct wr_reply *reply)
{
    if (reply->failed && reply->fault.lost) {
        wr_lane_break(conn, &reply->fault, WR_N_CLOSED_ERROR);
        return;
    }
    struct wr_rider rider = take_oldest(conn);
    conn->alive_at = conn->pool->engine->now;
    conn->lane->sealed = conn->lane->sealed || reply->dirty;
    if (rider.call != NULL) {
        wr_call_settled(rider.call, reply); /* gives back, or sends again */
    } else {
        wr_conn_give_back(conn, reply->transaction, reply->dirty);
    }
    if (conn->state == WR_CONN_SHARED) mind(conn);
}
