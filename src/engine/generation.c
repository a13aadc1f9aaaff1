/* Which policy text is the newest: giving one to all engines on the area, and hearing of another one's. */
#include "area/policytext.h"
#include "engine/order.h"
#include "engine/policy.h"

#include <unistd.h>

static bool is_wanted(const struct weir_engine *engine)
{
    return engine->config.options.on_policy != NULL && engine->state == WR_ENGINE_OPEN;
}

/* Inside a turn only: nobody is told from inside a call of his own. */
void wr_policy_notice(struct weir_engine *engine)
{
    uint64_t newest = wr_policy_generation(engine->area);
    if (!is_wanted(engine) || newest == engine->policy_seen) return;
    engine->policy_seen = newest;
    engine->config.options.on_policy(engine->config.options.policy_ctx, newest);
}

void wr_policy_look(struct wr_timer *timer)
{
    wr_policy_notice(WR_CONTAINER(timer, struct weir_engine, policy_timer));
}

int weir_policy_publish(weir_engine *engine, const char *text, size_t length, uint64_t *generation, char *why)
{
    weir_order order = {.kind = WEIR_ORDER_POLICY, .text = text, .length = length};
    struct wr_order given;
    int code = wr_order_give(&engine->sight, &order, &given, why);
    if (code == WEIR_OK) *generation = given.number;
    return code;
}

/* In private memory nobody looks by himself. */
void wr_policy_look_soon(struct weir_engine *engine)
{
    if (is_wanted(engine)) wr_engine_arm(engine, &engine->policy_timer, engine->now);
}

size_t weir_policy_read(weir_engine *engine, char *out, size_t size, uint64_t *generation)
{
    size_t length = wr_policy_get(engine->area, out, size, generation);
    if (length > 0) engine->policy_seen = *generation;
    return length;
}

void weir_policy_applied(weir_engine *engine, uint64_t generation, const char *why)
{
    if (!wr_engine_is_ours(engine)) return;
    struct wr_event_facts facts = {.id = why == NULL ? "policy.applied" : "policy.refused",
                                   .level = why == NULL ? WEIR_LOG_INFO : WEIR_LOG_WARN};
    wr_engine_event(engine, WR_EVENT_OPERATOR, NULL, &facts, "policy %llu %s in process %ld%s%s",
                    (unsigned long long)generation, why == NULL ? "is in force" : "was refused",
                    (long)getpid(), why == NULL ? "" : ": ", why == NULL ? "" : why);
    wr_orders_policy(engine, generation, why);
}
