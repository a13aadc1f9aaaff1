/* Permits, refusals and transitions; see admission.h. */
#include "engine/admission.h"

#include "engine/health.h"
#include "engine/queue.h"

void wr_breaker_refuse(struct weir_call *call, const weir_evidence *evidence)
{
    struct wr_pool *pool = call->pool;
    weir_breaker_snapshot snapshot;
    weir_breaker_snapshot_at(pool->breaker, pool->engine->now, &snapshot);
    if (evidence == NULL) evidence = &snapshot.evidence;
    /* Forced open: until an operator says otherwise, which nobody can know. */
    uint64_t retry_after = snapshot.retry_after_ns == UINT64_MAX ? 0 : snapshot.retry_after_ns;
    /* Half-open, all probes given out: their verdicts come in the time of a call, not in that of a lease. */
    uint64_t soon = pool->engine->config.options.probe_interval_ns;
    if (snapshot.state == WEIR_HALF_OPEN && retry_after > soon) retry_after = soon;
    wr_call_refuse(call, WEIR_CALL_BREAKER_OPEN, WR_N_REFUSED_BREAKER, evidence, retry_after,
                   "the breaker of %s is %s", pool->name, weir_breaker_state_name(snapshot.state));
}

bool wr_breaker_admit(struct weir_call *call)
{
    struct wr_pool *pool = call->pool;
    uint32_t owner = wr_area_worker(pool->engine->area);
    call->permit_held = weir_breaker_admit(pool->breaker, owner, pool->engine->now, &call->permit);
    if (call->permit_held) return true;
    wr_health_watch(pool); /* another worker may have opened it */
    wr_breaker_refuse(call, NULL);
    return false;
}

void wr_breaker_moved(struct wr_pool *pool, const weir_evidence *evidence)
{
    char text[WEIR_WHY_MAX];
    weir_evidence_text(evidence, text, sizeof text);
    if (evidence->from == evidence->to) {
        wr_engine_event(pool->engine, WR_EVENT_BREAKER, pool,
                        &(struct wr_event_facts){.id = "breaker.exceeded", .level = WEIR_LOG_WARN},
                        "threshold exceeded, breaker only watches: %s", text);
        return;
    }
    bool opened = evidence->to == WEIR_OPEN || evidence->to == WEIR_FORCED_OPEN;
    weir_log_level level = opened ? WEIR_LOG_WARN : WEIR_LOG_INFO;
    wr_engine_event(pool->engine, WR_EVENT_BREAKER, pool,
                    &(struct wr_event_facts){"breaker.moved", level, NULL, NULL}, "%s -> %s: %s",
                    weir_breaker_state_name(evidence->from), weir_breaker_state_name(evidence->to), text);
    if (opened) wr_queue_flush(pool, evidence);
    wr_health_watch(pool);
}

void wr_breaker_tell(struct wr_pool *pool, weir_verdict verdict, const char *code)
{
    weir_permit permit;
    weir_evidence moved;
    uint64_t now = pool->engine->now;
    if (!weir_breaker_admit(pool->breaker, wr_area_worker(pool->engine->area), now, &permit)) return;
    if (weir_breaker_settle(pool->breaker, permit, verdict, 0, code, now, &moved))
        wr_breaker_moved(pool, &moved);
}
