/* One connection's life: with the crew, idle, leased, cleaned, canceling, closed; see pool.h. */
#include "engine/pool.h"

#include "base/check.h"
#include "engine/call.h"
#include "engine/health.h"
#include "engine/lane.h"
#include "engine/listener.h"
#include "engine/outcome.h"
#include "engine/places.h"
#include "engine/queue.h"

#include <string.h>

#define MS 1000000ull
enum { CLEAN_WAIT_MS = 5000, NO_MEMORY_POLL_MS = 20 };

static const char *const conn_state_names[WR_CONN_STATES] = {"connecting", "idle",      "leased",
                                                             "shared",     "cleaning",  "canceling",
                                                             "probing",    "listening", "closed"};

/* Which state may follow which, as bits. */
static const unsigned conn_may_enter[WR_CONN_STATES] = {
    [WR_CONN_CONNECTING] =
        1u << WR_CONN_IDLE | 1u << WR_CONN_PROBING | 1u << WR_CONN_LISTENING | 1u << WR_CONN_CLOSED,
    [WR_CONN_IDLE] = 1u << WR_CONN_LEASED | 1u << WR_CONN_SHARED | 1u << WR_CONN_PROBING |
                     1u << WR_CONN_LISTENING | 1u << WR_CONN_CLOSED,
    [WR_CONN_LEASED] =
        1u << WR_CONN_IDLE | 1u << WR_CONN_CLEANING | 1u << WR_CONN_CANCELING | 1u << WR_CONN_CLOSED,
    [WR_CONN_SHARED] =
        1u << WR_CONN_IDLE | 1u << WR_CONN_CLEANING | 1u << WR_CONN_CANCELING | 1u << WR_CONN_CLOSED,
    [WR_CONN_CLEANING] = 1u << WR_CONN_IDLE | 1u << WR_CONN_CLOSED,
    [WR_CONN_CANCELING] = 1u << WR_CONN_IDLE | 1u << WR_CONN_CLEANING | 1u << WR_CONN_CLOSED,
    [WR_CONN_PROBING] = 1u << WR_CONN_IDLE | 1u << WR_CONN_CLOSED,
    [WR_CONN_LISTENING] = 1u << WR_CONN_CLOSED,
    [WR_CONN_CLOSED] = 0,
};

const char *wr_conn_state_name(uint32_t state)
{
    return state < WR_CONN_STATES ? conn_state_names[state] : "?";
}

/* ---- as others see it ------------------------------------------------------------------------------- */

static void take_card(struct wr_conn *conn)
{
    struct weir_engine *engine = conn->pool->engine;
    uint64_t vacant = ~engine->conn_cards;
    if (vacant == 0) return;
    unsigned place = (unsigned)__builtin_ctzll(vacant);
    engine->conn_cards |= UINT64_C(1) << place;
    conn->card = place + 1;
}

/* Its words are stored one by one, and cost no more than that. `call`: whose it becomes, or NULL. */
static void show(const struct wr_conn *conn, const struct weir_call *call)
{
    if (conn->card == 0) return;
    struct wr_conn_card *card = conn->pool->engine->conn_card + (conn->card - 1);
    uint64_t label = call == NULL ? 0 : call->label;
    uint64_t place = (uint64_t)conn->pool->index << 32 | conn->greeting.backend_pid;
    atomic_store_explicit(&card->pool_pid, place, memory_order_relaxed);
    atomic_store_explicit(&card->state_label, (uint64_t)conn->state << 32 | label, memory_order_relaxed);
    atomic_store_explicit(&card->since_ns, conn->pool->engine->now, memory_order_relaxed);
    atomic_store_explicit(&card->opened_ns, conn->opened_at, memory_order_relaxed);
    atomic_store_explicit(&card->call, call == NULL ? 0 : call->record.id, memory_order_relaxed);
    atomic_store_explicit(&card->id, conn->state == WR_CONN_CLOSED ? 0 : conn->id, memory_order_relaxed);
}

static void leave_card(struct wr_conn *conn)
{
    if (conn->card != 0) conn->pool->engine->conn_cards &= ~(UINT64_C(1) << (conn->card - 1));
    conn->card = 0;
}

static void publish(struct wr_pool *pool, enum wr_conn_state state)
{
    static const int gauge_of[WR_CONN_STATES] = {WR_G_CONNECTING, WR_G_IDLE, WR_G_BUSY, WR_G_BUSY, WR_G_BUSY,
                                                 WR_G_CANCELING,  WR_G_BUSY, WR_G_BUSY, -1};
    if (gauge_of[state] < 0) return;
    size_t value = pool->count[state];
    if (gauge_of[state] == WR_G_BUSY) {
        value = wr_pool_busy(pool);
    }
    atomic_store_explicit(&pool->meter->gauge[gauge_of[state]], (int64_t)value, memory_order_relaxed);
}

/* The only writer of conn->state, so a connection's state and the list it is on cannot disagree. Idle ones are taken
 * from the front: the warmest is used first and the coldest grow old. */
static void conn_enter_for(struct wr_conn *conn, enum wr_conn_state next, const struct weir_call *call)
{
    struct wr_pool *pool = conn->pool;
    if ((conn_may_enter[conn->state] & (1u << next)) == 0) {
        fprintf(stderr, "weir: connection %llu of %s: %s -> %s\n", (unsigned long long)conn->id, pool->name,
                conn_state_names[conn->state], conn_state_names[next]);
        WR_CHECK(!"connection state");
    }
    enum wr_conn_state last = conn->state;
    wr_list_remove(&conn->link);
    pool->count[last]--;
    conn->state = next;
    pool->count[next]++;
    if (next == WR_CONN_IDLE) {
        wr_list_prepend(&pool->conns[next], &conn->link);
    } else {
        wr_list_append(&pool->conns[next], &conn->link);
    }
    publish(pool, last);
    publish(pool, next);
    show(conn, call);
}

static void conn_enter(struct wr_conn *conn, enum wr_conn_state next)
{
    conn_enter_for(conn, next, NULL);
}

/* ---- opening ---------------------------------------------------------------------------------------- */

static void probe_failed(struct wr_conn *conn, const struct wr_fault *fault)
{
    struct wr_pool *pool = conn->pool;
    wr_conn_close(conn, WR_N_CLOSED_ERROR);
    wr_health_probed(pool, fault);
    wr_pool_serve(pool); /* its place may be what somebody waits for */
}

static void conn_timer_fired(struct wr_timer *timer)
{
    struct wr_conn *conn = WR_CONTAINER(timer, struct wr_conn, timer);
    switch (conn->state) {
    case WR_CONN_IDLE:
        wr_conn_idle_due(conn);
        break;
    case WR_CONN_SHARED:
        wr_lane_due(conn);
        break;
    case WR_CONN_CANCELING:
        wr_conn_close(conn, WR_N_CLOSED_CANCEL);
        wr_pool_serve(conn->pool);
        break;
    case WR_CONN_CLEANING:
        wr_conn_close(conn, WR_N_CLOSED_ERROR);
        wr_pool_serve(conn->pool);
        break;
    case WR_CONN_PROBING: {
        struct wr_fault fault = {.lost = true, .message = "the health probe got no answer in time"};
        probe_failed(conn, &fault);
        break;
    }
    default:
        break; /* leased in the meantime: its call watches the time */
    }
}

static struct wr_conn *conn_memory(struct weir_engine *engine)
{
    struct wr_list *node = wr_list_first(&engine->spare_conns);
    if (node != NULL) {
        wr_list_remove(node);
        struct wr_conn *conn = WR_CONTAINER(node, struct wr_conn, link);
        struct wr_lane *lane = conn->lane;
        memset(conn, 0, sizeof *conn);
        conn->lane = lane;
        wr_list_init(&conn->link);
        return conn;
    }
    if (wr_engine_reserve_timers(engine, 1) != WEIR_OK) return NULL;
    struct wr_conn *conn = wr_alloc(&engine->memory, sizeof *conn);
    if (conn != NULL) wr_list_init(&conn->link);
    return conn;
}

/* A place first, then a turn: who could not use it draws no token and no ticket. */
struct wr_conn *wr_conn_open(struct wr_pool *pool, bool probe)
{
    struct weir_engine *engine = pool->engine;
    pool->look_again_ns = NO_MEMORY_POLL_MS * MS;
    if (!wr_place_is_free(pool, &pool->look_again_ns)) return NULL;
    if (!wr_door_enter(engine, pool->backend_index, &pool->look_again_ns)) return NULL;
    bool placed = wr_place_take(pool, &pool->look_again_ns);
    struct wr_conn *conn = placed ? conn_memory(engine) : NULL;
    if (conn == NULL) {
        if (placed) wr_place_leave(pool);
        wr_door_leave(engine, pool->backend_index);
        return NULL;
    }
    conn->turn = true;
    conn->pool = pool;
    conn->id = ++engine->conn_sequence;
    conn->epoch = pool->epoch;
    conn->probe = probe;
    conn->timer.fire = conn_timer_fired;
    conn->state = WR_CONN_CONNECTING;
    pool->count[WR_CONN_CONNECTING]++;
    pool->total++;
    wr_list_append(&pool->conns[WR_CONN_CONNECTING], &conn->link);
    publish(pool, WR_CONN_CONNECTING);
    take_card(conn);
    show(conn, NULL);
    int code = engine->driver->connect(engine->instance, pool->target,
                                       engine->config.options.connect_timeout_ns, conn);
    if (code == WEIR_OK) return conn;
    wr_conn_close(conn, WR_N_CLOSED_ERROR);
    return NULL;
}

/* The connect is over, whatever came of it. */
static void give_turn(struct wr_conn *conn)
{
    if (conn->turn) wr_door_leave(conn->pool->engine, conn->pool->backend_index);
    conn->turn = false;
}

/* ---- resting ---------------------------------------------------------------------------------------- */

bool wr_conn_is_stale(const struct wr_conn *conn)
{
    const struct wr_pool *pool = conn->pool;
    bool leaving = pool->engine->state != WR_ENGINE_OPEN || wr_pool_is_drained(pool);
    return conn->epoch != pool->epoch || (conn->retire_at != 0 && pool->engine->now >= conn->retire_at) ||
           wr_places_are_short(pool) || (leaving && pool->waiting == 0);
}

/* When an idle connection next needs a look: whichever comes first of idle_timeout and the end of its life. */
static uint64_t idle_due_at(const struct wr_conn *conn)
{
    uint64_t idle_timeout = conn->pool->engine->config.options.idle_timeout_ns;
    uint64_t due = idle_timeout == 0 ? UINT64_MAX : conn->alive_at + idle_timeout;
    return conn->retire_at != 0 && conn->retire_at < due ? conn->retire_at : due;
}

/* The timer stays armed while a connection is leased and comes back: moving it at each lease would be the dearest
 * part of a short call. When it fires too early it is armed again. */
void wr_conn_idle(struct wr_conn *conn)
{
    conn_enter(conn, WR_CONN_IDLE);
    uint64_t due = idle_due_at(conn);
    if (due == UINT64_MAX) {
        wr_engine_disarm(conn->pool->engine, &conn->timer);
    } else if (!wr_timer_armed(&conn->timer) || conn->timer.at_ns > due) {
        wr_engine_arm(conn->pool->engine, &conn->timer, due);
    }
}

/* Idle, unless its time is over: too old, of an earlier epoch, one too many, or the engine is draining. */
static void rest(struct wr_conn *conn)
{
    if (!wr_conn_is_stale(conn)) {
        wr_conn_idle(conn);
    } else {
        wr_conn_close(conn, conn->epoch != conn->pool->epoch ? WR_N_CLOSED_ERROR : WR_N_CLOSED_LIFETIME);
    }
}

void wr_conn_idle_due(struct wr_conn *conn)
{
    struct wr_pool *pool = conn->pool;
    uint64_t now = pool->engine->now, due = idle_due_at(conn);
    bool old = conn->retire_at != 0 && now >= conn->retire_at;
    if (due == UINT64_MAX) return;
    if (now < due || (!old && wr_pool_total(pool) <= pool->client->min)) {
        wr_engine_arm(pool->engine, &conn->timer,
                      now < due ? due : now + pool->engine->config.options.idle_timeout_ns);
        return;
    }
    wr_conn_close(conn, old ? WR_N_CLOSED_LIFETIME : WR_N_CLOSED_IDLE);
    wr_pool_grow(pool);
}

/* ---- connected -------------------------------------------------------------------------------------- */

static uint64_t jittered_lifetime(struct weir_engine *engine)
{
    uint64_t lifetime = engine->config.options.lifetime_ns;
    return lifetime - (uint64_t)((double)lifetime * 0.1 * wr_rng_unit(&engine->rng));
}

static void connect_ended(struct wr_pool *pool, const struct wr_fault *fault)
{
    if (fault == NULL) {
        static const struct wr_event_facts again = {.id = "connect.restored", .level = WEIR_LOG_INFO};
        if (pool->connect_failing)
            wr_engine_event(pool->engine, WR_EVENT_CONNECT, pool, &again, "connects again");
        pool->connect_failing = false;
        weir_backoff_reset(&pool->connect_backoff);
        pool->connect_not_before = pool->fill_not_before = 0;
        return;
    }
    struct wr_judgement judged = wr_outcome_judge(fault, &(struct wr_circumstances){.connecting = true});
    wr_count(&pool->meter->counter[WR_N_CONNECT_FAILED], 1);
    wr_count(&pool->meter->unconnected[wr_outcome_reason(judged.reason)], 1);
    pool->last_fault = *fault;
    if (!pool->connect_failing) {
        struct wr_event_facts facts = {.id = "connect.failing",
                                       .level = WEIR_LOG_WARN,
                                       .sqlstate = fault->sqlstate};
        if (fault->identity) facts.id = "identity.refused";
        if (fault->identity) facts.level = WEIR_LOG_ERROR;
        wr_engine_event(pool->engine, fault->identity ? WR_EVENT_IDENTITY : WR_EVENT_CONNECT, pool, &facts,
                        "cannot connect: %s%s%s", fault->sqlstate, fault->sqlstate[0] != '\0' ? " " : "",
                        fault->message);
    }
    pool->connect_failing = true;
}

void wr_pool_probe_send(struct wr_conn *conn)
{
    struct wr_pool *pool = conn->pool;
    struct wr_fault fault = {.lost = true};
    conn_enter(conn, WR_CONN_PROBING);
    struct wr_segment segment = {.kind = WR_SEGMENT_PROBE};
    wr_engine_arm(pool->engine, &conn->timer,
                  pool->engine->now + pool->engine->config.options.connect_timeout_ns);
    if (pool->engine->driver->send(conn->server, &segment, &fault) == WEIR_OK) return;
    probe_failed(conn, &fault);
}

void wr_conn_connected(void *owner, struct wr_link *link, const struct wr_greeting *greeting,
                       const struct wr_fault *fault)
{
    struct wr_conn *conn = owner;
    struct wr_pool *pool = conn->pool;
    struct weir_engine *engine = pool->engine;
    bool probe = conn->probe;
    give_turn(conn);
    connect_ended(pool, link == NULL ? fault : NULL);
    wr_health_connected(pool, link == NULL ? fault : NULL, link == NULL ? 0 : greeting->connect_ns);
    if (link == NULL) {
        struct wr_fault kept = *fault;
        struct weir_listener *listener = conn->listener;
        wr_conn_close(conn, WR_COUNTERS);
        if (listener != NULL) wr_listener_unconnected(listener, &kept);
        if (probe) wr_health_probed(pool, &kept);
        wr_queue_connect_failed(pool, &kept, probe);
        return;
    }
    conn->server = link;
    conn->greeting = *greeting;
    conn->alive_at = conn->opened_at = engine->now;
    if (engine->config.options.lifetime_ns != 0) conn->retire_at = engine->now + jittered_lifetime(engine);
    wr_count(&pool->meter->counter[WR_N_OPENED], 1);
    wr_histogram_record_fine(&pool->meter->connect, greeting->connect_ns);
    if (probe) {
        wr_pool_probe_send(conn);
        return;
    }
    if (conn->listener != NULL) {
        conn_enter(conn, WR_CONN_LISTENING);
        wr_listener_connected(conn->listener);
    } else {
        rest(conn);
    }
    wr_pool_serve(pool);
}

/* ---- leased, given back, closed ---------------------------------------------------------------------- */

void wr_conn_lease(struct wr_conn *conn, struct weir_call *call)
{
    conn_enter_for(conn, WR_CONN_LEASED, call);
    conn->call = call;
    call->conn = conn;
}

void wr_conn_share(struct wr_conn *conn)
{
    conn_enter(conn, WR_CONN_SHARED);
}

void wr_conn_listen(struct wr_conn *conn, struct weir_listener *listener)
{
    conn_enter(conn, WR_CONN_LISTENING);
    conn->listener = listener;
    listener->conn = conn;
}

static bool clean(struct wr_conn *conn, enum wr_segment_kind kind)
{
    struct wr_fault fault;
    struct wr_segment segment = {.kind = kind};
    struct weir_engine *engine = conn->pool->engine;
    if (conn->state != WR_CONN_CLEANING) conn_enter(conn, WR_CONN_CLEANING);
    wr_engine_arm(engine, &conn->timer, engine->now + CLEAN_WAIT_MS * MS);
    if (kind == WR_SEGMENT_RESET) wr_count(&conn->pool->meter->counter[WR_N_RESETS], 1);
    conn->resetting = kind == WR_SEGMENT_RESET;
    return engine->driver->send(conn->server, &segment, &fault) == WEIR_OK;
}

static bool wants_reset(const struct wr_conn *conn)
{
    weir_reset rule = conn->pool->engine->config.options.reset;
    return rule == WEIR_RESET_ALWAYS || (rule == WEIR_RESET_AUTO && conn->dirty);
}

void wr_conn_give_back(struct wr_conn *conn, char transaction, bool dirty)
{
    struct wr_pool *pool = conn->pool;
    conn->call = NULL;
    conn->alive_at = pool->engine->now;
    conn->dirty = conn->dirty || dirty;
    if (conn->state == WR_CONN_SHARED && conn->lane->count > 0) {
        wr_pool_serve(pool); /* the others ride on, and there is room for one more */
        return;
    }
    if (transaction == 'T' || transaction == 'E') {
        if (!clean(conn, WR_SEGMENT_ROLLBACK)) wr_conn_close(conn, WR_N_CLOSED_ERROR);
    } else if (transaction != 'I') {
        wr_conn_close(conn, WR_N_CLOSED_ERROR);
    } else if (!wr_conn_is_stale(conn) && wants_reset(conn)) {
        if (!clean(conn, WR_SEGMENT_RESET)) wr_conn_close(conn, WR_N_CLOSED_ERROR);
    } else if (wr_place_is_owed(conn)) {
        wr_conn_close(conn, WR_N_CLOSED_IDLE);
    } else {
        rest(conn);
    }
    wr_pool_serve(pool);
}

void wr_conn_abandon(struct wr_conn *conn)
{
    struct weir_engine *engine = conn->pool->engine;
    conn->call = NULL;
    conn->dirty = true; /* nobody will read what it did */
    conn_enter(conn, WR_CONN_CANCELING);
    wr_engine_arm(engine, &conn->timer, engine->now + engine->config.options.cancel_wait_ns);
}

/* reason WR_COUNTERS: a connect that failed, counted elsewhere. */
void wr_conn_close(struct wr_conn *conn, enum wr_counter reason)
{
    struct wr_pool *pool = conn->pool;
    struct weir_engine *engine = pool->engine;
    if (conn->server == NULL) { /* still with the crew */
        if (reason != WR_COUNTERS) engine->driver->forget(engine->instance, conn);
    } else {
        wr_count(&pool->meter->counter[WR_N_CLOSED], 1);
        wr_count(&pool->meter->counter[reason], 1);
    }
    if (conn->server != NULL) engine->driver->close(conn->server);
    conn->server = NULL;
    conn->call = NULL;
    if (conn->listener != NULL) conn->listener->conn = NULL;
    conn->listener = NULL;
    if (conn->lane != NULL) conn->lane->count = 0; /* those who are left on it have no call */
    give_turn(conn);
    wr_engine_disarm(engine, &conn->timer);
    conn_enter(conn, WR_CONN_CLOSED);
    pool->total--;
    leave_card(conn);
    wr_list_remove(&conn->link);
    pool->count[WR_CONN_CLOSED]--;
    wr_list_append(&engine->retired, &conn->link);
    wr_place_leave(pool);
}

/* ---- the driver's answers ---------------------------------------------------------------------------- */

/* The rollback or the reset is done, or the abandoned segment has spoken its last word. */
static void cleaned(struct wr_conn *conn, const struct wr_reply *reply)
{
    struct wr_pool *pool = conn->pool;
    bool was_reset = conn->state == WR_CONN_CLEANING && conn->resetting;
    bool lost = reply->fault.lost && reply->failed;
    if (!lost && conn->state == WR_CONN_CANCELING && wr_lane_forsakes(conn)) return;
    if (lost) {
        wr_conn_close(conn, conn->state == WR_CONN_CANCELING ? WR_N_CLOSED_CANCEL : WR_N_CLOSED_ERROR);
    } else if (reply->transaction == 'T' || reply->transaction == 'E') {
        bool again = conn->state == WR_CONN_CLEANING; /* a ROLLBACK that did not end it: no second try */
        if (again || !clean(conn, WR_SEGMENT_ROLLBACK)) wr_conn_close(conn, WR_N_CLOSED_ERROR);
    } else if (reply->transaction != 'I' || (was_reset && reply->failed)) {
        wr_conn_close(conn, WR_N_CLOSED_ERROR);
    } else if (!was_reset && !wr_conn_is_stale(conn) && wants_reset(conn)) {
        if (!clean(conn, WR_SEGMENT_RESET)) wr_conn_close(conn, WR_N_CLOSED_ERROR);
    } else {
        conn->dirty = false;
        conn->alive_at = pool->engine->now;
        wr_engine_disarm(pool->engine, &conn->timer);
        rest(conn);
    }
    wr_pool_serve(pool);
}

static void probed(struct wr_conn *conn, const struct wr_reply *reply)
{
    struct wr_pool *pool = conn->pool;
    if (reply->failed && reply->fault.lost) {
        struct wr_fault fault = reply->fault;
        probe_failed(conn, &fault);
        return;
    }
    /* Even an error is an answer: the server is there. */
    conn->alive_at = pool->engine->now;
    conn->probe = false;
    wr_engine_disarm(pool->engine, &conn->timer);
    rest(conn);
    wr_health_probed(pool, NULL);
    wr_pool_serve(pool);
}

void wr_conn_settled(void *owner, struct wr_reply *reply)
{
    struct wr_conn *conn = owner;
    switch (conn->state) {
    case WR_CONN_LEASED:
        wr_call_settled(conn->call, reply);
        break;
    case WR_CONN_SHARED:
        wr_lane_settled(conn, reply);
        break;
    case WR_CONN_CLEANING:
    case WR_CONN_CANCELING:
        cleaned(conn, reply);
        break;
    case WR_CONN_PROBING:
        probed(conn, reply);
        break;
    case WR_CONN_LISTENING:
        wr_listener_settled(conn->listener, reply);
        break;
    default:
        WR_CHECK(!"an answer nobody asked for");
    }
}

/* The server hung up on a connection with nothing on the wire: idle, or held by a unit between two statements. */
void wr_conn_lost(void *owner, const struct wr_fault *fault)
{
    struct wr_conn *conn = owner;
    struct wr_pool *pool = conn->pool;
    struct wr_fault kept = *fault;
    kept.lost = true;
    if (conn->state == WR_CONN_LEASED) {
        struct weir_call *call = conn->call;
        wr_call_detach(call);
        wr_call_keep_fault(call, &kept); /* the unit hears of it at its next statement or at its end */
        call->transaction = 0;
        wr_conn_close(conn, WR_N_CLOSED_ERROR);
    } else if (conn->state == WR_CONN_SHARED) {
        wr_lane_break(conn, &kept, WR_N_CLOSED_ERROR);
    } else if (conn->state == WR_CONN_LISTENING) {
        wr_listener_lost(conn->listener, &kept);
    } else {
        wr_conn_close(conn, WR_N_CLOSED_PEEK);
    }
    wr_pool_serve(pool);
}
