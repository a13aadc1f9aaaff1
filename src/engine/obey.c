/* Carrying out orders; see order.h. Where several processes share the area each looks four times a second, also for a newer
 * policy. In private memory there is nothing to look for but the end of a forced state, and orders are carried out as they
 * are given. */
#include "engine/order.h"

#include "engine/admission.h"
#include "engine/call.h"
#include "engine/health.h"
#include "engine/policy.h"
#include "engine/pool.h"
#include "engine/queue.h"

#include <string.h>

#define LOOK_EVERY_NS 250000000ull

enum { LOOKS_AT_ONE = 4 }; /* its giver has died, or he stands still: others wait behind it no longer */

/* ---- one order, one pool --------------------------------------------------------------------------------------- */

/* What a breaker that another process has moved asks of this one. */
static void follow_breaker(struct wr_pool *pool)
{
    weir_breaker_state state = weir_breaker_state_at(pool->breaker, pool->engine->now);
    if (state == WEIR_OPEN || state == WEIR_FORCED_OPEN) wr_queue_flush(pool, NULL);
    wr_health_watch(pool);
    wr_pool_serve(pool);
}

static void obey_in_pool(struct wr_pool *pool, const struct wr_order *order)
{
    switch ((weir_order_kind)order->kind) {
    case WEIR_ORDER_DRAIN:
        if (wr_pool_is_drained(pool) && pool->waiting == 0) wr_pool_close_idle(pool);
        break;
    case WEIR_ORDER_RESUME:
        wr_pool_serve(pool);
        break;
    case WEIR_ORDER_RESIZE:
        wr_pool_shrink(pool);
        wr_pool_serve(pool);
        break;
    case WEIR_ORDER_RECONNECT:
        wr_pool_evict(pool);
        wr_pool_serve(pool);
        break;
    case WEIR_ORDER_FORCE:
    case WEIR_ORDER_RESET:
        follow_breaker(pool);
        break;
    case WEIR_ORDER_PAUSE:
    case WEIR_ORDER_KILL:
    case WEIR_ORDER_POLICY:
        break;
    }
}

static void obey_in_pools(struct weir_engine *engine, const struct wr_order *order)
{
    for (size_t i = 0; i < engine->pool_count; i++) {
        struct wr_pool *pool = &engine->pools[i];
        if (order->pool == 0 || order->pool == pool->index + 1) obey_in_pool(pool, order);
    }
    wr_order_ack(engine->area, order->ticket, WR_VERDICT_DONE, "");
}

/* ---- a call ---------------------------------------------------------------------------------------------------- */

static struct weir_call *call_on(struct wr_list *list, uint64_t id)
{
    for (struct wr_list *node = list->next; node != list; node = node->next) {
        struct weir_call *call = WR_CONTAINER(node, struct weir_call, place);
        if (call->record.id == id) return call;
    }
    return NULL;
}

static struct weir_call *find_call(struct weir_engine *engine, uint64_t id)
{
    struct weir_call *call = NULL;
    for (size_t i = 0; i < engine->pool_count && call == NULL; i++)
        call = call_on(&engine->pools[i].waiters, id);
    for (int state = 0; state < WR_CALL_OVER && call == NULL; state++)
        call = call_on(&engine->calls[state], id);
    return call;
}

static void kill_call(struct weir_engine *engine, const struct wr_order *order)
{
    char why[WEIR_WHY_MAX];
    if (order->number >> 40 != wr_area_worker(engine->area)) { /* another worker's: nothing to do here */
        wr_order_ack(engine->area, order->ticket, WR_VERDICT_DONE, "");
        return;
    }
    struct weir_call *call = find_call(engine, order->number);
    if (call == NULL) {
        wr_text_format(why, sizeof why, "no call %llx runs any more", (unsigned long long)order->number);
        wr_order_ack(engine->area, order->ticket, WR_VERDICT_REFUSED, why);
        return;
    }
    wr_text_format(why, sizeof why, "killed by %s%s%s", order->user, order->reason[0] != '\0' ? ": " : "",
                   order->reason);
    wr_call_cancel_now(call, WEIR_CALL_CANCELLED, why);
    wr_order_ack(engine->area, order->ticket, WR_VERDICT_DONE, "");
}

/* ---- a policy -------------------------------------------------------------------------------------------------- */

/* Whoever follows the text says later what has become of it; the newest is the only one that he will take. */
static void await_policy(struct weir_engine *engine, const struct wr_order *order)
{
    if (engine->config.options.on_policy == NULL) {
        wr_order_ack(engine->area, order->ticket, WR_VERDICT_REFUSED,
                     "this worker does not follow policies of the area");
        return;
    }
    if (engine->awaited_ticket != 0)
        wr_order_ack(engine->area, engine->awaited_ticket, WR_VERDICT_DONE, "a newer one came at once");
    wr_policy_look_soon(engine);
    engine->awaited_ticket = order->ticket;
    engine->awaited_generation = order->number;
    if (engine->policy_generation >= order->number) wr_orders_policy(engine, engine->policy_generation, NULL);
    if (engine->awaited_ticket != 0 && engine->refused_generation == order->number)
        wr_orders_policy(engine, order->number, engine->refused_why);
}

void wr_orders_policy(struct weir_engine *engine, uint64_t generation, const char *why)
{
    if (why != NULL) {
        engine->refused_generation = generation;
        wr_text_copy(engine->refused_why, sizeof engine->refused_why, why);
    } else {
        engine->policy_generation = generation;
    }
    if (engine->awaited_ticket == 0 || generation < engine->awaited_generation) return;
    wr_order_ack(engine->area, engine->awaited_ticket, why == NULL ? WR_VERDICT_DONE : WR_VERDICT_REFUSED,
                 why);
    engine->awaited_ticket = 0;
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

/* Who is attached and gives an order has no log, so each worker that carries it out says who wanted it. */
static void log_order(struct weir_engine *engine, const struct wr_order *order)
{
    static const char *const words[] = {
        [WEIR_ORDER_PAUSE] = "pause",         [WEIR_ORDER_DRAIN] = "drain",
        [WEIR_ORDER_RESUME] = "resume",       [WEIR_ORDER_RESIZE] = "resize",
        [WEIR_ORDER_RECONNECT] = "reconnect", [WEIR_ORDER_FORCE] = "force breaker",
        [WEIR_ORDER_RESET] = "reset breaker", [WEIR_ORDER_KILL] = "kill call",
        [WEIR_ORDER_POLICY] = "policy"};
    static const struct wr_event_facts facts = {.id = "operator.order"};
    const struct wr_pool *concerned = NULL;
    char text[WR_EVENT_TEXT], number[24] = "";
    bool known = order->kind < sizeof words / sizeof *words && words[order->kind] != NULL;
    if (order->ticket == engine->order_given || !known) return;
    for (size_t i = 0; i < engine->pool_count; i++) {
        if (engine->pools[i].index + 1 == order->pool) concerned = &engine->pools[i];
    }
    if (order->kind == WEIR_ORDER_RESIZE || order->kind == WEIR_ORDER_POLICY)
        wr_text_format(number, sizeof number, " %llu", (unsigned long long)order->number);
    if (order->kind == WEIR_ORDER_KILL)
        wr_text_format(number, sizeof number, " %llx", (unsigned long long)order->number);
    if (order->kind == WEIR_ORDER_FORCE)
        wr_text_format(number, sizeof number, " %s",
                       weir_breaker_state_name((weir_breaker_state)order->number));
    wr_text_format(text, sizeof text, "%s%s ordered by %s (uid %u, process %u)%s%s", words[order->kind],
                   number, order->user, order->uid, order->pid, order->reason[0] != '\0' ? ": " : "",
                   order->reason);
    wr_log_event(engine, WR_EVENT_OPERATOR, concerned, &facts, engine->host.wall_us(engine->host.ctx), text);
}

static void obey(struct weir_engine *engine, const struct wr_order *order)
{
    log_order(engine, order);
    if (order->kind == WEIR_ORDER_KILL) {
        kill_call(engine, order);
    } else if (order->kind == WEIR_ORDER_POLICY) {
        await_policy(engine, order);
    } else {
        obey_in_pools(engine, order);
    }
}

/* An order was missed: what it wanted to be done once is lost, but what it left standing asks the same of us. */
static void follow_what_stands(struct weir_engine *engine)
{
    for (size_t i = 0; i < engine->pool_count; i++) {
        struct wr_pool *pool = &engine->pools[i];
        obey_in_pool(pool, &(struct wr_order){.kind = WEIR_ORDER_DRAIN});
        obey_in_pool(pool, &(struct wr_order){.kind = WEIR_ORDER_RESIZE});
        obey_in_pool(pool, &(struct wr_order){.kind = WEIR_ORDER_FORCE});
    }
}

/* What came while we slept for longer than the ring is. */
static bool skip_the_lost(struct weir_engine *engine, uint64_t newest)
{
    if (newest - engine->orders_seen <= WR_ORDERS) return false;
    engine->orders_seen = newest - WR_ORDERS;
    return true;
}

static void read_orders(struct weir_engine *engine)
{
    uint64_t newest = wr_order_newest(engine->area);
    if (newest < engine->orders_seen) return; /* nobody's doing but a stranger's */
    bool missed = skip_the_lost(engine, newest);
    while (engine->orders_seen < newest) {
        struct wr_order order;
        enum wr_order_found found = wr_order_get(engine->area, engine->orders_seen + 1, &order);
        if (found == WR_ORDER_COMES && ++engine->order_looks < LOOKS_AT_ONE) break;
        engine->order_looks = 0;
        engine->orders_seen++;
        if (found == WR_ORDER_THERE)
            obey(engine, &order);
        else
            missed = true;
    }
    if (missed) follow_what_stands(engine);
}

/* ---- forced for a while ---------------------------------------------------------------------------------------- */

/* Whichever worker comes first ends it. An order writes first until when, and then the breaker: if it comes in between, it
 * meets another time than the one that has passed, or makes a generation newer than the one that is released. */
static void end_forcing(struct wr_pool *pool)
{
    struct weir_engine *engine = pool->engine;
    weir_breaker_snapshot held;
    weir_evidence moved;
    uint64_t until = atomic_load(&pool->record->forced_until);
    if (until == 0 || engine->now < until) return;
    weir_breaker_snapshot_at(pool->breaker, engine->now, &held);
    if (!atomic_compare_exchange_strong(&pool->record->forced_until, &until, 0)) return;
    if (!weir_breaker_release(pool->breaker, held.generation, engine->now, &moved)) return;
    wr_engine_event(engine, WR_EVENT_OPERATOR, pool, &(struct wr_event_facts){.id = "breaker.released"},
                    "the time is over for which the breaker was forced");
    wr_breaker_moved(pool, &moved);
    wr_pool_serve(pool);
}

static uint64_t next_look(const struct weir_engine *engine)
{
    uint64_t at = wr_area_is_shared(engine->area) ? engine->now + LOOK_EVERY_NS : UINT64_MAX;
    for (size_t i = 0; i < engine->pool_count; i++) {
        uint64_t until = atomic_load_explicit(&engine->pools[i].record->forced_until, memory_order_relaxed);
        if (until > engine->now && until < at) at = until;
    }
    return at;
}

void wr_orders_look(struct weir_engine *engine)
{
    if (engine->state == WR_ENGINE_CLOSING) return;
    read_orders(engine);
    for (size_t i = 0; i < engine->pool_count; i++) end_forcing(&engine->pools[i]);
    uint64_t at = next_look(engine);
    if (at != UINT64_MAX) wr_engine_arm(engine, &engine->order_timer, at);
}

static void look_fired(struct wr_timer *timer)
{
    struct weir_engine *engine = WR_CONTAINER(timer, struct weir_engine, order_timer);
    if (wr_area_is_shared(engine->area)) wr_policy_notice(engine);
    wr_orders_look(engine);
}

/* Of two words that are written by a giver the standing one comes first, so what we do not hear of stands already. */
void wr_orders_open(struct weir_engine *engine)
{
    struct wr_worker_record *record = wr_area_worker_record(engine->area, wr_area_worker(engine->area));
    engine->orders_seen = wr_order_newest(engine->area);
    atomic_store(&record->orders_from, engine->orders_seen);
    engine->order_timer.fire = look_fired;
}

void wr_orders_start(struct weir_engine *engine)
{
    wr_orders_look(engine);
}
