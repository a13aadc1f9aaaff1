/* The fence around the operator's hooks; see policy.h. */
#include "engine/policy.h"

#include "area/meter.h"
#include "engine/pool.h"

#include <string.h>

static const char *const hook_names[WR_HOOKS] = {"route", "label", "retry"};

/* why: WEIR_WHY_MAX bytes as the hook left them, maybe without their end; otherwise: what to say if it said nothing. */
static void policy_fault(struct weir_engine *engine, struct wr_pool *pool, enum wr_hook hook, char *why,
                         const char *otherwise)
{
    struct wr_pool *counted = pool != NULL ? pool : &engine->pools[0];
    const char *name = hook_names[hook];
    uint32_t in_a_row = ++engine->policy_faults[hook];
    why[WEIR_WHY_MAX - 1] = '\0';
    const char *reason = why[0] != '\0' ? why : otherwise;
    wr_count(&counted->meter->counter[WR_N_POLICY_FAULTS], 1);
    wr_text_format(engine->policy_message, sizeof engine->policy_message, "%s: %s", name, reason);
    static const struct wr_event_facts fault = {.id = "policy.fault", .level = WEIR_LOG_WARN};
    static const struct wr_event_facts off = {.id = "policy.off", .level = WEIR_LOG_ERROR};
    wr_engine_event(engine, WR_EVENT_POLICY, pool, &fault, "policy %s failed, the built-in one answers: %s",
                    name, reason);
    if (in_a_row < engine->config.options.policy_faults_max || engine->policy_off) return;
    engine->policy_off = true;
    wr_card_write(engine);
    wr_engine_event(engine, WR_EVENT_POLICY, pool, &off,
                    "policy switched off: %s failed %u times in a row (policy_faults)", name, in_a_row);
}

static void policy_answered(struct weir_engine *engine, struct wr_pool *pool, enum wr_hook hook)
{
    struct wr_pool *counted = pool != NULL ? pool : &engine->pools[0];
    wr_count(&counted->meter->counter[WR_N_POLICY_CALLS], 1);
    engine->policy_faults[hook] = 0;
}

size_t wr_policy_find_backend(const struct weir_engine *engine, const char *name)
{
    const weir_options *options = &engine->config.options;
    size_t i = 0;
    while (i < options->backend_count && strcmp(options->backends[i].name, name) != 0) i++;
    return i;
}

size_t wr_policy_route(struct weir_engine *engine, const weir_request *request)
{
    const weir_policy *policy = &engine->config.options.policy;
    if (policy->route == NULL || engine->policy_off) return 0;
    char name[WR_ENGINE_NAME_MAX + 1] = "", why[WEIR_WHY_MAX] = "";
    if (policy->route(policy->ctx, request, name, sizeof name, why) != WEIR_RETRY) {
        policy_fault(engine, NULL, WR_HOOK_ROUTE, why, "gave no backend");
        return 0;
    }
    name[sizeof name - 1] = '\0';
    size_t index = wr_policy_find_backend(engine, name);
    if (index == engine->config.options.backend_count) {
        wr_text_format(why, sizeof why, "there is no backend '%s'", name);
        policy_fault(engine, NULL, WR_HOOK_ROUTE, why, "");
        return 0;
    }
    policy_answered(engine, NULL, WR_HOOK_ROUTE);
    return index;
}

void wr_policy_label(struct weir_engine *engine, const char *context, char *label, size_t size)
{
    const weir_policy *policy = &engine->config.options.policy;
    if (policy->label != NULL && !engine->policy_off) {
        char why[WEIR_WHY_MAX] = "";
        label[0] = '\0';
        if (policy->label(policy->ctx, context, label, size, why) == WEIR_RETRY && label[0] != '\0') {
            label[size - 1] = '\0';
            policy_answered(engine, NULL, WR_HOOK_LABEL);
            return;
        }
        policy_fault(engine, NULL, WR_HOOK_LABEL, why, "gave no label");
    }
    wr_text_copy(label, size, context);
    char *query = strchr(label, '?');
    if (query != NULL && query != label) *query = '\0';
}

static bool built_in_retry(const struct weir_engine *engine, const weir_failure *failure, uint64_t *delay_ns)
{
    bool repeatable =
        failure->class_ == WEIR_CLASS_SAFE || (failure->class_ == WEIR_CLASS_UNKNOWN && failure->idempotent);
    *delay_ns = failure->backoff_ns;
    return repeatable && failure->attempt <= engine->config.options.retries;
}

bool wr_policy_retry(struct weir_engine *engine, struct wr_pool *pool, const weir_failure *failure,
                     uint64_t *delay_ns)
{
    const weir_policy *policy = &engine->config.options.policy;
    if (policy->retry == NULL || engine->policy_off) return built_in_retry(engine, failure, delay_ns);
    char why[WEIR_WHY_MAX] = "";
    *delay_ns = failure->backoff_ns;
    weir_decision decision = policy->retry(policy->ctx, failure, delay_ns, why);
    if (decision != WEIR_GIVE_UP && decision != WEIR_RETRY) {
        policy_fault(engine, pool, WR_HOOK_RETRY, why, "gave nonsense");
        return built_in_retry(engine, failure, delay_ns);
    }
    policy_answered(engine, pool, WR_HOOK_RETRY);
    return decision == WEIR_RETRY;
}
