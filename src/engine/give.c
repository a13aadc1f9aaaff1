/* Giving orders; see order.h. */
#include "engine/order.h"

#include "area/policytext.h"
#include "area/recorder.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/sight.h"

#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define A_YEAR_NS (UINT64_C(366) * 24 * 3600 * 1000000000)

/* One weir_area_order on its way. */
struct giving {
    struct weir_area *sight;
    const weir_order *order;
    struct wr_order put;
    char who[96]; /* for the event log */
    char *why;
};

static int refuse(struct giving *g, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(struct giving *g, int code, const char *format, ...)
{
    char text[WEIR_WHY_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    wr_text_copy(g->why, WEIR_WHY_MAX, text);
    return code;
}

/* ---- who may, who does ----------------------------------------------------------------------------------------- */

bool weir_area_may_steer(const weir_area *area, char *why)
{
    char unasked[WEIR_WHY_MAX];
    if (why == NULL) why = unasked;
    why[0] = '\0';
    if (area->engine != NULL) {
        if (wr_engine_is_ours(area->engine)) return true;
        wr_text_copy(why, WEIR_WHY_MAX, "the engine was opened before a fork");
        return false;
    }
    if (!wr_area_is_writable(area->area)) {
        wr_text_format(why, WEIR_WHY_MAX,
                       "area %s may be read but not written by this process (uid %u): steering needs write "
                       "permission on the file",
                       weir_area_path(area), (unsigned)geteuid());
        return false;
    }
    enum wr_sight sight = wr_area_sight(area->area, why);
    return sight != WR_SIGHT_DESERTED && sight != WR_SIGHT_DAMAGED && wr_area_is_worked_on(area->area);
}

static void sign(struct giving *g)
{
    struct passwd entry, *found = NULL;
    char room[1024];
    struct wr_order *put = &g->put;
    put->uid = (uint32_t)geteuid();
    put->pid = (uint32_t)getpid();
    (void)getpwuid_r(geteuid(), &entry, room, sizeof room, &found);
    if (found != NULL) wr_text_copy(put->user, sizeof put->user, found->pw_name);
    if (found == NULL) wr_text_format(put->user, sizeof put->user, "uid %u", put->uid);
    wr_text_copy(put->reason, sizeof put->reason, g->order->reason);
    wr_text_format(g->who, sizeof g->who, "by %s (uid %u, process %u)", put->user, put->uid, put->pid);
}

/* Given through a worker's own handle: it stands in its log. Who is attached has none; then those who obey tell it. */
static void log_event(struct weir_engine *engine, enum wr_event_kind kind, uint32_t pool, uint64_t at_us,
                      const char *text)
{
    const struct wr_pool *concerned = NULL;
    struct wr_event_facts facts = {.id = kind == WR_EVENT_BREAKER ? "breaker.moved" : "operator.order"};
    for (size_t i = 0; i < engine->pool_count; i++) {
        if (engine->pools[i].index + 1 == pool) concerned = &engine->pools[i];
    }
    wr_log_event(engine, kind, concerned, &facts, at_us, text);
}

/* `pool`: index + 1, 0 none. */
static void event(const struct giving *g, enum wr_event_kind kind, uint32_t pool, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void event(const struct giving *g, enum wr_event_kind kind, uint32_t pool, const char *format, ...)
{
    char text[WR_EVENT_TEXT], whole[WR_EVENT_TEXT];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    wr_text_copy(whole, sizeof whole, text); /* cut between characters */
    wr_event_add(g->sight->area, kind, pool, g->sight->now_us, whole);
    if (g->sight->engine != NULL) log_event(g->sight->engine, kind, pool, g->sight->now_us, whole);
}

/* "paused by root (uid 0, process 42): maintenance" */
static void operator_event(const struct giving *g, uint32_t pool, const char *what)
{
    event(g, WR_EVENT_OPERATOR, pool, "%s %s%s%s", what, g->who, g->put.reason[0] != '\0' ? ": " : "",
          g->put.reason);
}

/* ---- what stands ----------------------------------------------------------------------------------------------- */

static void move_breaker(const struct giving *g, uint32_t index, struct wr_pool_record *record)
{
    weir_breaker *breaker = wr_pool_breaker_in(record);
    weir_evidence moved;
    char text[WEIR_WHY_MAX];
    uint64_t now = g->sight->now_ns, lasts = g->order->lasts_ns;
    bool ends = g->order->kind == WEIR_ORDER_RESET || g->order->state == WEIR_CLOSED;
    atomic_store(&record->forced_until, ends || lasts == 0 ? 0 : now + lasts);
    if (g->order->kind == WEIR_ORDER_RESET) {
        weir_breaker_reset(breaker, now);
        return;
    }
    if (!weir_breaker_force(breaker, g->order->state, now, &moved)) return;
    event(g, WR_EVENT_BREAKER, index + 1, "%s -> %s: %s", weir_breaker_state_name(moved.from),
          weir_breaker_state_name(moved.to), weir_evidence_text(&moved, text, sizeof text));
}

static void tell_what(const struct giving *g, uint32_t index, const struct wr_pool_record *record)
{
    char what[128];
    const weir_order *o = g->order;
    static const char *const words[] = {[WEIR_ORDER_PAUSE] = "paused",
                                        [WEIR_ORDER_DRAIN] = "drained",
                                        [WEIR_ORDER_RESUME] = "resumed",
                                        [WEIR_ORDER_RECONNECT] = "connections to be made anew",
                                        [WEIR_ORDER_RESET] = "breaker reset"};
    wr_text_copy(what, sizeof what, o->kind <= WEIR_ORDER_RESET ? words[o->kind] : "");
    if (o->kind == WEIR_ORDER_RESIZE && o->max != 0)
        wr_text_format(what, sizeof what, "resized to %u connections", o->max);
    if (o->kind == WEIR_ORDER_RESIZE && o->max == 0)
        wr_text_format(what, sizeof what, "back to its %u configured connections", atomic_load(&record->max));
    if (o->kind == WEIR_ORDER_FORCE && o->state == WEIR_CLOSED)
        wr_text_copy(what, sizeof what, "breaker no longer forced");
    if (o->kind == WEIR_ORDER_FORCE && o->state != WEIR_CLOSED && o->lasts_ns == 0)
        wr_text_format(what, sizeof what, "breaker held %s", weir_breaker_state_name(o->state));
    if (o->kind == WEIR_ORDER_FORCE && o->state != WEIR_CLOSED && o->lasts_ns != 0)
        wr_text_format(what, sizeof what, "breaker held %s for %.9g s", weir_breaker_state_name(o->state),
                       (double)o->lasts_ns / 1e9);
    operator_event(g, index + 1, what);
}

static void stand_in_pool(const struct giving *g, uint32_t index, struct wr_pool_record *record)
{
    switch (g->order->kind) {
    case WEIR_ORDER_PAUSE:
        atomic_store(&record->paused, WR_POOL_PAUSED);
        break;
    case WEIR_ORDER_DRAIN:
        atomic_store(&record->paused, WR_POOL_DRAINED);
        break;
    case WEIR_ORDER_RESUME:
        atomic_store(&record->paused, 0);
        break;
    case WEIR_ORDER_RESIZE:
        atomic_store(&record->resized, g->order->max);
        break;
    case WEIR_ORDER_FORCE:
    case WEIR_ORDER_RESET:
        move_breaker(g, index, record);
        break;
    default:
        break;
    }
    tell_what(g, index, record);
}

/* ---- checking -------------------------------------------------------------------------------------------------- */

static int find_pool(struct giving *g)
{
    const char *wanted = g->order->pool;
    if (wanted == NULL) return WEIR_OK;
    for (uint32_t i = 0; i < wr_area_pool_count(g->sight->area); i++) {
        if (wr_area_pool_record(g->sight->area, i) == NULL) continue;
        if (strcmp(wr_sight_pool_name(g->sight, i, ""), wanted) == 0) {
            g->put.pool = i + 1;
            return WEIR_OK;
        }
    }
    return refuse(g, WEIR_EINVAL, "there is no pool '%.60s' (client@backend)", wanted);
}

static int check_force(struct giving *g)
{
    weir_breaker_state state = g->order->state;
    if (state != WEIR_CLOSED && (state < WEIR_FORCED_OPEN || state > WEIR_METRICS_ONLY))
        return refuse(g, WEIR_EINVAL, "a breaker cannot be forced to %s", weir_breaker_state_name(state));
    if (g->order->lasts_ns > A_YEAR_NS)
        return refuse(g, WEIR_EINVAL, "a breaker can be forced for a year at most");
    g->put.number = (uint64_t)state;
    return find_pool(g);
}

static int check_kill(struct giving *g)
{
    uint64_t worker = g->order->call >> 40;
    g->put.number = g->order->call;
    if (worker >= 1 && worker <= UINT32_MAX && wr_area_worker_alive(g->sight->area, (uint32_t)worker))
        return WEIR_OK;
    return refuse(g, WEIR_EINVAL, "there is no call %llx: no worker %llu lives; conns() has the ids",
                  (unsigned long long)g->order->call, (unsigned long long)worker);
}

static int check(struct giving *g)
{
    switch (g->order->kind) {
    case WEIR_ORDER_PAUSE:
    case WEIR_ORDER_DRAIN:
    case WEIR_ORDER_RESUME:
    case WEIR_ORDER_RECONNECT:
    case WEIR_ORDER_RESET:
        return find_pool(g);
    case WEIR_ORDER_RESIZE:
        if (g->order->max > WR_POOL_MAX)
            return refuse(g, WEIR_EINVAL, "max is %u: 1 to %d", g->order->max, WR_POOL_MAX);
        g->put.number = g->order->max;
        return find_pool(g);
    case WEIR_ORDER_FORCE:
        return check_force(g);
    case WEIR_ORDER_KILL:
        return check_kill(g);
    case WEIR_ORDER_POLICY:
        return wr_policy_put(g->sight->area, g->order->text, g->order->length, &g->put.number, g->why);
    }
    return refuse(g, WEIR_EINVAL, "there is no order of kind %d", (int)g->order->kind);
}

/* ---- giving ---------------------------------------------------------------------------------------------------- */

static void stand(const struct giving *g)
{
    char what[80];
    if (g->order->kind == WEIR_ORDER_KILL) {
        wr_text_format(what, sizeof what, "call %llx to be killed", (unsigned long long)g->put.number);
        operator_event(g, 0, what);
        return;
    }
    if (g->order->kind == WEIR_ORDER_POLICY) {
        wr_text_format(what, sizeof what, "policy %llu given to all workers",
                       (unsigned long long)g->put.number);
        operator_event(g, 0, what);
        return;
    }
    for (uint32_t i = 0; i < wr_area_pool_count(g->sight->area); i++) {
        struct wr_pool_record *record = wr_area_pool_record(g->sight->area, i);
        if (record != NULL && (g->put.pool == 0 || g->put.pool == i + 1)) stand_in_pool(g, i, record);
    }
}

int wr_order_give(weir_area *area, const weir_order *order, struct wr_order *given, char *why)
{
    char unasked[WEIR_WHY_MAX];
    struct giving g = {.sight = area, .order = order, .put = {.kind = (uint32_t)order->kind}};
    g.why = why != NULL ? why : unasked;
    if (!weir_area_may_steer(area, g.why)) return area->engine != NULL ? WEIR_ESTATE : WEIR_ESYS;
    wr_sight_look_at_clock(area);
    int code = check(&g);
    if (code != WEIR_OK) return code;
    sign(&g);
    stand(&g);
    wr_order_put(area->area, &g.put);
    *given = g.put;
    if (area->engine == NULL) return WEIR_OK;
    area->engine->order_given = g.put.ticket;
    wr_orders_look(area->engine);
    wr_engine_rearm(area->engine);
    return WEIR_OK;
}

int weir_area_order(weir_area *area, const weir_order *order, uint64_t *ticket, char *why)
{
    struct wr_order given;
    int code = wr_order_give(area, order, &given, why);
    if (code == WEIR_OK && ticket != NULL) *ticket = given.ticket;
    return code;
}

/* ---- the same for an engine ------------------------------------------------------------------------------------ */

int weir_force_breaker(weir_engine *engine, const char *pool, weir_breaker_state state, char *why)
{
    weir_order order = {.kind = WEIR_ORDER_FORCE, .pool = pool, .state = state};
    return weir_area_order(&engine->sight, &order, NULL, why);
}

int weir_pause(weir_engine *engine, const char *pool, bool paused, char *why)
{
    weir_order order = {.kind = paused ? WEIR_ORDER_PAUSE : WEIR_ORDER_RESUME, .pool = pool};
    return weir_area_order(&engine->sight, &order, NULL, why);
}
