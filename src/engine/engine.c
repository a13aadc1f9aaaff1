/* Opening, turning and closing an engine. A turn is one weir_on_ready or weir_on_timer: the driver or a timer moves
 * calls on, then the turn ends: owners are told, closed connections freed, the host's timer set. */
#include "engine/engine.h"

#include "base/check.h"
#include "engine/call.h"
#include "engine/health.h"
#include "engine/housekeeping.h"
#include "engine/listener.h"
#include "engine/order.h"
#include "engine/policy.h"
#include "engine/pool.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { WATCHES_AT_FIRST = 64, LAST_NOTICES = 64 };

/* ---- fork ------------------------------------------------------------------------------------------------- */

/* A connection or a descriptor of the parent's must not be used by its child, so an engine knows in which process it was
 * opened. Counting forks is cheaper than asking for the pid at each call. */
static _Atomic unsigned forks;

static void in_child(void)
{
    forks++;
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

bool wr_engine_is_ours(const struct weir_engine *engine)
{
    return engine->forks == forks;
}

/* ---- memory, clock, events ------------------------------------------------------------------------------ */

static void *counted_resize(void *ctx, void *old, size_t size)
{
    struct weir_engine *engine = ctx;
    if (size > 0) engine->allocations++;
    if (engine->host.resize != NULL) return engine->host.resize(engine->host.ctx, old, size);
    const struct wr_memory *libc = wr_memory_libc();
    return libc->resize(libc->ctx, old, size);
}

uint64_t wr_engine_refresh(struct weir_engine *engine)
{
    engine->now = engine->host.now_ns(engine->host.ctx);
    return engine->now;
}

void wr_engine_event(struct weir_engine *engine, enum wr_event_kind kind, const struct wr_pool *pool,
                     const struct wr_event_facts *facts, const char *format, ...)
{
    char text[WR_EVENT_TEXT], whole[WR_EVENT_TEXT];
    uint64_t at_us = engine->host.wall_us(engine->host.ctx);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    wr_text_copy(whole, sizeof whole, text); /* cut between characters */
    wr_event_add(engine->area, kind, pool == NULL ? 0 : pool->index + 1, at_us, whole);
    wr_log_event(engine, kind, pool, facts, at_us, whole);
}

/* ---- timers ------------------------------------------------------------------------------------------------ */

int wr_engine_reserve_timers(struct weir_engine *engine, size_t more)
{
    int code = wr_heap_reserve(&engine->timers, engine->timers_made + more);
    if (code == WEIR_OK) engine->timers_made += more;
    return code;
}

void wr_engine_arm(struct weir_engine *engine, struct wr_timer *timer, uint64_t at_ns)
{
    int code = wr_heap_arm(&engine->timers, timer, at_ns);
    WR_CHECK(code == WEIR_OK); /* room was reserved when the owner was made */
}

void wr_engine_disarm(struct weir_engine *engine, struct wr_timer *timer)
{
    wr_heap_disarm(&engine->timers, timer);
}

/* The host is told only when it must call earlier than it would anyway: a call's deadline that is disarmed in time
 * costs no system call, at the price of an empty wake-up now and then. */
void wr_engine_rearm(struct weir_engine *engine)
{
    if (engine->in_turn) return;
    uint64_t wanted = UINT64_MAX;
    struct wr_timer *earliest = wr_heap_earliest(&engine->timers);
    if (earliest != NULL) wanted = earliest->at_ns;
    if (!wr_list_empty(&engine->notices) || !wr_list_empty(&engine->retired)) wanted = engine->now;
    if (wanted == UINT64_MAX || (engine->armed_at != 0 && engine->armed_at <= wanted)) return;
    engine->armed_at = wanted == 0 ? 1 : wanted;
    engine->host.arm(engine->host.ctx, wanted <= engine->now ? 0 : (int64_t)(wanted - engine->now));
}

/* ---- turns -------------------------------------------------------------------------------------------------- */

/* Only notices that stood when delivery began are delivered: an owner who submits from his callback and is
 * refused at once gets his answer in the next turn, so he cannot keep this one from ending. */
static void deliver_notices(struct weir_engine *engine)
{
    struct wr_list standing;
    wr_list_init(&standing);
    struct wr_list *node;
    while ((node = wr_list_first(&engine->notices)) != NULL) {
        wr_list_remove(node);
        wr_list_append(&standing, node);
    }
    while ((node = wr_list_first(&standing)) != NULL) {
        wr_list_remove(node);
        struct weir_call *call = WR_CONTAINER(node, struct weir_call, notice);
        if (call->notify != NULL) call->notify(call->user, call); /* may free the call */
    }
}

static void free_retired(struct weir_engine *engine)
{
    struct wr_list *node;
    while ((node = wr_list_first(&engine->retired)) != NULL) {
        wr_list_remove(node);
        wr_list_append(&engine->spare_conns, node);
    }
}

static void end_turn(struct weir_engine *engine)
{
    deliver_notices(engine);
    free_retired(engine);
    engine->in_turn = false;
    wr_engine_rearm(engine);
}

int weir_on_ready(weir_engine *engine, int fd, unsigned events)
{
    if (engine->in_turn || !wr_engine_is_ours(engine)) return WEIR_ESTATE;
    engine->in_turn = true;
    wr_engine_refresh(engine);
    if (fd >= 0 && (size_t)fd < engine->watch_room && engine->watches[fd].events != 0) {
        struct wr_watch *watch = &engine->watches[fd];
        watch->ready(watch->arg, events);
    }
    end_turn(engine);
    return WEIR_OK;
}

int weir_on_timer(weir_engine *engine)
{
    if (engine->in_turn || !wr_engine_is_ours(engine)) return WEIR_ESTATE;
    engine->in_turn = true;
    engine->armed_at = 0;
    uint64_t now = wr_engine_refresh(engine);
    struct wr_timer *due;
    while ((due = wr_heap_pop_due(&engine->timers, now)) != NULL) due->fire(due);
    end_turn(engine);
    return WEIR_OK;
}

/* ---- what the driver is lent ---------------------------------------------------------------------------------- */

static uint64_t env_now(void *engine)
{
    return ((struct weir_engine *)engine)->now;
}

static int env_watch(void *of, int fd, unsigned events, void (*ready)(void *arg, unsigned events), void *arg)
{
    struct weir_engine *engine = of;
    if (fd < 0) return WEIR_EINVAL;
    if ((size_t)fd >= engine->watch_room) {
        if (events == 0) return WEIR_OK;
        size_t room = engine->watch_room == 0 ? WATCHES_AT_FIRST : engine->watch_room;
        while (room <= (size_t)fd) room *= 2;
        struct wr_watch *grown = wr_resize(&engine->memory, engine->watches, room * sizeof *grown);
        if (grown == NULL) return WEIR_ENOMEM;
        memset(grown + engine->watch_room, 0, (room - engine->watch_room) * sizeof *grown);
        engine->watches = grown;
        engine->watch_room = room;
    }
    struct wr_watch before = engine->watches[fd];
    engine->watches[fd] = (struct wr_watch){ready, arg, events};
    int code = engine->host.watch(engine->host.ctx, fd, events);
    if (code != 0) engine->watches[fd] = before;
    return code;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static int open_area(struct weir_engine *engine, char *why)
{
    const weir_options *o = &engine->config.options;
    struct wr_area_shape shape;
    int code = wr_engine_shape(o, &shape, why);
    if (code != WEIR_OK) return code;
    if (o->area_path == NULL) return wr_area_private(&engine->area, o->name, &shape, why);
    struct wr_carrier carrier = {.settle = wr_settle_record, .ctx = engine};
    code = wr_area_open_carrying(&engine->area, o->area_path, o->name, &shape, o->area_group_read, &carrier,
                                 engine->replaced, why);
    if (code == WEIR_OK && engine->replaced[0] != '\0') {
        static const struct wr_event_facts facts = {.id = "area.replaced", .level = WEIR_LOG_WARN};
        wr_engine_event(engine, WR_EVENT_AREA, NULL, &facts, "area %s replaced: %s", o->area_path,
                        engine->replaced);
    }
    return code;
}

static int open_pools(struct weir_engine *engine, char *why)
{
    const weir_options *o = &engine->config.options;
    engine->pools = wr_alloc(&engine->memory, o->client_count * o->backend_count * sizeof *engine->pools);
    if (engine->pools == NULL) return WEIR_ENOMEM;
    for (size_t c = 0; c < o->client_count; c++) {
        for (size_t b = 0; b < o->backend_count; b++) {
            int code = wr_pool_init(&engine->pools[engine->pool_count], engine, c, b, why);
            if (code != WEIR_OK) return code;
            engine->pool_count++;
        }
    }
    return WEIR_OK;
}

/* What others see of us, and how we see it. Connections of whoever had this slot before are not ours. */
static int open_sight(struct weir_engine *engine)
{
    struct wr_worker_record *record = wr_area_worker_record(engine->area, wr_area_worker(engine->area));
    engine->conn_card = record->conn;
    for (int i = 0; i < WR_CONN_CARDS; i++) atomic_store(&record->conn[i].id, 0);
    engine->sight.area = engine->area;
    engine->sight.engine = engine;
    wr_orders_open(engine);
    return wr_sight_init(&engine->sight, &engine->memory);
}

static void init_lists(struct weir_engine *engine)
{
    for (size_t i = 0; i < WR_CALL_STATES; i++) wr_list_init(&engine->calls[i]);
    wr_list_init(&engine->notices);
    wr_list_init(&engine->spare_calls);
    wr_list_init(&engine->listeners);
    wr_list_init(&engine->retired);
    wr_list_init(&engine->spare_conns);
    wr_heap_init(&engine->timers, &engine->memory);
    engine->policy_timer.fire = wr_policy_look;
}

static int start(struct weir_engine *engine, const weir_options *options, char *why)
{
    int code = wr_config_copy(&engine->config, options, &engine->memory, why);
    if (code != WEIR_OK) return code;
    wr_rng_seed(&engine->rng, engine->host.seed);
    code = wr_log_open(engine, why);
    if (code == WEIR_OK) code = open_area(engine, why);
    if (code != WEIR_OK) return code;
    code = open_sight(engine);
    if (code != WEIR_OK) return code;
    engine->env = (struct wr_driver_env){
        .engine = engine,
        .memory = &engine->memory,
        .now_ns = env_now,
        .watch = env_watch,
        .scarce = engine->host.scarce != NULL ? engine->host.scarce : "descriptors",
        .connected = wr_conn_connected,
        .settled = wr_conn_settled,
        .lost = wr_conn_lost,
        .notified = wr_listener_notified,
    };
    code =
        engine->driver->start(engine->driver, &engine->instance, &engine->env, options->connect_at_once, why);
    if (code != WEIR_OK) {
        engine->instance = NULL;
        return code;
    }
    code = wr_doors_open(engine, why);
    wr_reclaim(engine, wr_area_worker(engine->area));
    if (code == WEIR_OK) code = open_pools(engine, why);
    if (code != WEIR_OK) return code;
    size_t own_timers = 8 + 4 * engine->pool_count;
    code = wr_engine_reserve_timers(engine, own_timers);
    if (code != WEIR_OK) return code;
    wr_housekeeping_start(engine);
    wr_health_start(engine);
    wr_options_write(engine);
    wr_card_write(engine);
    wr_orders_start(engine);
    wr_engine_event(engine, WR_EVENT_ENGINE, NULL, &(struct wr_event_facts){.id = "engine.opened"},
                    "engine %s opened with %zu pools", options->name, engine->pool_count);
    return WEIR_OK;
}

/* Accepts a half-opened engine. Connections and calls are gone before. */
static void dismantle(struct weir_engine *engine)
{
    wr_log_close(engine);
    wr_engine_disarm(engine, &engine->housekeeping);
    wr_engine_disarm(engine, &engine->policy_timer);
    wr_engine_disarm(engine, &engine->order_timer);
    wr_engine_disarm(engine, &engine->health_timer);
    wr_engine_disarm(engine, &engine->drain_timer);
    for (size_t i = 0; i < engine->pool_count; i++) wr_pool_release(&engine->pools[i]);
    if (engine->instance != NULL) engine->driver->stop(engine->instance);
    wr_free(&engine->memory, engine->pools);
    struct wr_list *node;
    free_retired(engine);
    while ((node = wr_list_first(&engine->spare_conns)) != NULL) {
        wr_list_remove(node);
        struct wr_conn *conn = WR_CONTAINER(node, struct wr_conn, link);
        wr_free(&engine->memory, conn->lane);
        wr_free(&engine->memory, conn);
    }
    while ((node = wr_list_first(&engine->spare_calls)) != NULL) {
        wr_list_remove(node);
        wr_call_destroy(WR_CONTAINER(node, struct weir_call, place));
    }
    wr_heap_release(&engine->timers);
    wr_sight_release(&engine->sight);
    wr_free(&engine->memory, engine->watches);
    wr_area_close(engine->area);
    wr_config_release(&engine->config, &engine->memory);
}

const char *weir_area_replaced(const weir_engine *engine)
{
    return engine->replaced;
}

int weir_open(weir_engine **out, const weir_options *options, const weir_host *host,
              const weir_driver *driver, char *why)
{
    char unused[WEIR_WHY_MAX];
    if (why == NULL) why = unused;
    why[0] = '\0';
    *out = NULL;
    struct weir_engine *engine = calloc(1, sizeof *engine); /* not counted: it holds the counter */
    if (engine == NULL) {
        wr_text_format(why, WEIR_WHY_MAX, "out of memory");
        return WEIR_ENOMEM;
    }
    engine->host = *host;
    engine->memory = (struct wr_memory){counted_resize, engine};
    engine->driver = driver;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    engine->forks = forks;
    init_lists(engine);
    engine->opened_at = wr_engine_refresh(engine);
    engine->opened_wall_us = host->wall_us(host->ctx);
    int code = start(engine, options, why);
    if (code != WEIR_OK) {
        if (why[0] == '\0') wr_text_format(why, WEIR_WHY_MAX, "out of memory");
        dismantle(engine);
        free(engine);
        return code;
    }
    wr_engine_rearm(engine);
    *out = engine;
    return WEIR_OK;
}

/* ---- closing ------------------------------------------------------------------------------------------------------ */

static void end_calls_on(struct wr_list *list, weir_code code, const char *message)
{
    struct wr_list *node;
    while ((node = wr_list_first(list)) != NULL) { /* ending one may move others */
        wr_call_cancel_now(WR_CONTAINER(node, struct weir_call, place), code, message);
    }
}

/* Ends every call that has not ended. Those who wait go first: a connection that another one gives up must not start
 * work that is cancelled the moment after. */
static void end_all_calls(struct weir_engine *engine, weir_code code, const char *message)
{
    for (size_t i = 0; i < engine->pool_count; i++) end_calls_on(&engine->pools[i].waiters, code, message);
    for (size_t s = 0; s < WR_CALL_OVER; s++) end_calls_on(&engine->calls[s], code, message);
}

static void drain_fired(struct wr_timer *timer)
{
    struct weir_engine *engine = WR_CONTAINER(timer, struct weir_engine, drain_timer);
    end_all_calls(engine, WEIR_CALL_CANCELLED, "the engine closed before the call had ended");
    for (size_t i = 0; i < engine->pool_count; i++) wr_pool_close_all(&engine->pools[i]);
}

void weir_drain(weir_engine *engine, uint64_t timeout_ns)
{
    if (!wr_engine_is_ours(engine)) return;
    wr_engine_refresh(engine);
    if (engine->state == WR_ENGINE_OPEN) {
        engine->state = WR_ENGINE_DRAINING;
        wr_engine_event(engine, WR_EVENT_ENGINE, NULL, &(struct wr_event_facts){.id = "engine.draining"},
                        "draining: %zu calls in flight", engine->in_flight);
        wr_health_stop(engine);
        wr_listeners_drain(engine);
        for (size_t i = 0; i < engine->pool_count; i++) wr_pool_close_idle(&engine->pools[i]);
        engine->drain_timer.fire = drain_fired;
        wr_card_write(engine);
    }
    wr_engine_arm(engine, &engine->drain_timer, wr_after(engine->now, timeout_ns));
    wr_engine_rearm(engine);
}

bool weir_drained(const weir_engine *engine)
{
    if (engine->state == WR_ENGINE_OPEN || engine->in_flight > 0) return false;
    for (size_t i = 0; i < engine->pool_count; i++) {
        if (wr_pool_total(&engine->pools[i]) > 0) return false;
    }
    return true;
}

/* Calls whose owners have not freed them become orphans: readable, attached to nothing. Their memory and that of their
 * results goes back through the engine's hooks, so the bare structure stays until the last of them is buried. */
static void orphan_calls(struct weir_engine *engine)
{
    struct wr_list *node;
    while ((node = wr_list_first(&engine->calls[WR_CALL_OVER])) != NULL) {
        struct weir_call *call = WR_CONTAINER(node, struct weir_call, place);
        wr_list_remove(node);
        wr_list_remove(&call->notice);
        call->pool = NULL;
        call->engine = NULL;
        engine->orphans++;
    }
}

void wr_engine_bury(struct weir_call *orphan)
{
    struct weir_engine *engine = orphan->memory.ctx;
    wr_call_destroy(orphan);
    if (--engine->orphans == 0) free(engine);
}

void weir_free(weir_engine *engine)
{
    if (engine == NULL || !wr_engine_is_ours(engine)) return;
    WR_CHECK(!engine->in_turn);
    engine->state = WR_ENGINE_CLOSING;
    wr_engine_refresh(engine);
    engine->in_turn = true;
    wr_health_stop(engine);
    end_all_calls(engine, WEIR_CALL_CANCELLED, "the engine was closed");
    wr_listeners_end(engine);
    for (size_t i = 0; i < engine->pool_count; i++) wr_pool_close_all(&engine->pools[i]);
    for (int round = 0; round < LAST_NOTICES && !wr_list_empty(&engine->notices); round++)
        deliver_notices(engine);
    orphan_calls(engine);
    wr_engine_event(engine, WR_EVENT_ENGINE, NULL, &(struct wr_event_facts){.id = "engine.closed"},
                    "engine %s closed", engine->config.options.name);
    engine->host.arm(engine->host.ctx, -1);
    dismantle(engine);
    if (engine->orphans == 0) free(engine);
}
