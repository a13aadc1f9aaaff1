/* Another attempt, or the end. The policy proposes; what may not be repeated, cannot be in time, or is not in the budget
 * is not repeated whatever it says. */
#include "engine/call.h"
#include "engine/policy.h"

static void end_with(struct weir_call *call, enum wr_counter denied)
{
    if (denied != WR_COUNTERS) wr_count(&call->pool->meter->counter[denied], 1);
    wr_call_over(call, call->error.code);
}

/* Why the proposed retry cannot be, or WR_COUNTERS if it can. */
static enum wr_counter forbidden(const struct weir_call *call, uint64_t delay_ns)
{
    const struct weir_engine *engine = call->engine;
    bool repeatable = call->error.outcome != WEIR_OUTCOME_UNKNOWN || call->idempotent || call->readonly;
    if (!repeatable) return WR_N_DENIED_UNSAFE;
    if (call->attempt > engine->config.options.retries_max) return WR_N_DENIED_MAX;
    if (engine->state != WR_ENGINE_OPEN) return WR_N_DENIED_DEADLINE;
    if (delay_ns >= call->deadline - engine->now) return WR_N_DENIED_DEADLINE;
    return WR_COUNTERS;
}

void wr_retry_decide(struct weir_call *call)
{
    struct weir_engine *engine = call->engine;
    struct wr_pool *pool = call->pool;
    if (call->abandoned || engine->now >= call->deadline) {
        end_with(call, WR_N_DENIED_DEADLINE);
        return;
    }
    if (call->by_hand && call->shown) {
        end_with(call, WR_COUNTERS);
        return;
    }
    weir_failure failure = {
        .client = call->client,
        .backend = pool->backend->name,
        .context = call->context,
        .label = call->label_text,
        .code = call->error.code,
        .class_ = call->error.class_,
        .phase = call->phase,
        .sqlstate = call->error.sqlstate,
        .message = call->error.message,
        .attempt = call->attempt,
        .elapsed_ns = engine->now - call->started,
        .remaining_ns = call->deadline - engine->now,
        .backoff_ns = weir_backoff_next(&call->backoff, wr_rng_next(&engine->rng)),
        .readonly = call->readonly,
        .idempotent = call->idempotent,
        .budget = weir_budget_level(pool->budget, engine->now),
    };
    uint64_t delay = 0;
    if (!wr_policy_retry(engine, pool, &failure, &delay)) {
        end_with(call, WR_COUNTERS);
        return;
    }
    enum wr_counter denied = forbidden(call, delay);
    if (denied == WR_COUNTERS && !weir_budget_withdraw(pool->budget, engine->now))
        denied = WR_N_DENIED_BUDGET;
    if (denied != WR_COUNTERS) {
        end_with(call, denied);
        return;
    }
    wr_count(&pool->meter->counter[WR_N_RETRIES], 1);
    wr_count(&pool->meter->repeated[call->reason], 1);
    wr_record_backoff(call, delay);
    call->past = call->error.outcome;
    wr_call_enter(call, WR_CALL_BACKOFF);
    wr_engine_arm(engine, &call->wake, engine->now + delay);
}
