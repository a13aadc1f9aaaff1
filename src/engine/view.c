/* What a caller may read of his call and of the engine, and the names of things. */
#include "base/check.h"
#include "engine/call.h"

#include <string.h>

static const char *name_in(const char *const *names, size_t count, int index)
{
    return index >= 0 && (size_t)index < count ? names[index] : "?";
}

#define NAME_IN(names, index) name_in(names, sizeof(names) / sizeof *(names), (int)(index))

const char *weir_code_name(weir_code code)
{
    static const char *const names[] = {"ok",      "server_error", "connection_lost", "connect_failed",
                                        "timeout", "breaker_open", "queue_full",      "acquire_timeout",
                                        "paused",  "draining",     "cancelled",       "identity_refused",
                                        "aborted", "misuse",       "out_of_memory",   "rolled_back"};
    return NAME_IN(names, code);
}

const char *weir_class_name(weir_class class_)
{
    static const char *const names[] = {"none", "safe", "unknown", "permanent"};
    return NAME_IN(names, class_);
}

const char *weir_outcome_name(weir_outcome outcome)
{
    static const char *const names[] = {"none", "committed", "rolled_back", "unknown"};
    return NAME_IN(names, outcome);
}

const char *weir_phase_name(weir_phase phase)
{
    static const char *const names[] = {"not_sent", "sent", "commit_sent", "done"};
    return NAME_IN(names, phase);
}

weir_status weir_call_status(const weir_call *call)
{
    return call->status;
}

const weir_error *weir_call_error(const weir_call *call)
{
    bool settled = call->status == WEIR_ENDED || call->status == WEIR_REPLIED;
    return settled && call->failed ? &call->error : NULL;
}

uint32_t weir_call_attempt(const weir_call *call)
{
    return call->attempt;
}

uint64_t weir_call_remaining_ns(const weir_call *call)
{
    if (call->engine == NULL) return 0;
    uint64_t now = wr_engine_refresh(call->engine);
    return now >= call->deadline ? 0 : call->deadline - now;
}

size_t weir_call_result_count(const weir_call *call)
{
    return call->result_count;
}

const weir_result *weir_call_result(const weir_call *call, size_t index)
{
    return index < call->result_count ? &call->results[index] : NULL;
}

void *weir_call_user(const weir_call *call)
{
    return call->user;
}

/* ---- results ------------------------------------------------------------------------------------------------ */

void wr_result_release(struct weir_result *result)
{
    if (result->ops != NULL) result->ops->release(result->handle);
    *result = (struct weir_result){NULL, NULL};
}

size_t weir_result_rows(const weir_result *result)
{
    return result == NULL ? 0 : result->ops->rows(result->handle);
}

size_t weir_result_columns(const weir_result *result)
{
    return result == NULL ? 0 : result->ops->columns(result->handle);
}

const char *weir_result_name(const weir_result *result, size_t column)
{
    return column < weir_result_columns(result) ? result->ops->name(result->handle, column) : "";
}

uint32_t weir_result_type(const weir_result *result, size_t column)
{
    return column < weir_result_columns(result) ? result->ops->type(result->handle, column) : 0;
}

size_t weir_result_values(const weir_result *result, size_t row, size_t column, size_t count,
                          const char **values, size_t *lengths)
{
    size_t columns = weir_result_columns(result);
    if (column >= columns || row >= weir_result_rows(result)) return 0;
    if (count > columns - column) count = columns - column;
    result->ops->values(result->handle, row, column, count, values, lengths);
    return count;
}

const char *weir_result_value(const weir_result *result, size_t row, size_t column, size_t *length)
{
    const char *value = NULL;
    size_t unused;
    if (length == NULL) length = &unused;
    *length = 0;
    weir_result_values(result, row, column, 1, &value, length);
    return value;
}

const char *weir_result_tag(const weir_result *result)
{
    return result == NULL ? "" : result->ops->tag(result->handle);
}

uint64_t weir_result_affected(const weir_result *result)
{
    return result == NULL ? 0 : result->ops->affected(result->handle);
}

size_t weir_result_notice_count(const weir_result *result)
{
    return result == NULL ? 0 : result->ops->notices(result->handle);
}

const char *weir_result_notice(const weir_result *result, size_t index)
{
    return index < weir_result_notice_count(result) ? result->ops->notice(result->handle, index) : "";
}

/* ---- what is held --------------------------------------------------------------------------------------- */

void weir_held_now(const weir_engine *engine, weir_held *out)
{
    *out = (weir_held){.calls = engine->call_count,
                       .in_flight = engine->in_flight,
                       .allocations = engine->allocations};
    for (size_t i = 0; i < engine->pool_count; i++) {
        const struct wr_pool *pool = &engine->pools[i];
        out->leased += wr_pool_busy(pool);
        out->connecting += pool->count[WR_CONN_CONNECTING];
        out->canceling += pool->count[WR_CONN_CANCELING];
        out->idle += pool->count[WR_CONN_IDLE];
        out->waiting += pool->waiting;
    }
    for (size_t i = 0; i < engine->timers.count; i++) {
        void (*fire)(struct wr_timer *) = engine->timers.slots[i]->fire;
        out->timers +=
            fire == wr_call_deadline_fired || fire == wr_call_wake_fired || fire == wr_call_leak_fired;
    }
}

/* ---- one pool, cheaply ------------------------------------------------------------------------------------------ */

size_t weir_pool_count(const weir_engine *engine)
{
    return engine->pool_count;
}

bool weir_pool_now(const weir_engine *engine, size_t index, weir_pool_view *out)
{
    if (index >= engine->pool_count) return false;
    const struct wr_pool *pool = &engine->pools[index];
    *out = (weir_pool_view){
        .name = pool->name,
        .breaker = weir_breaker_state_at(pool->breaker, engine->host.now_ns(engine->host.ctx)),
        .max = wr_pool_max(pool),
        .connections = (uint32_t)wr_pool_total(pool),
        .idle = (uint32_t)pool->count[WR_CONN_IDLE],
        .waiting = (uint32_t)pool->waiting,
    };
    return true;
}
