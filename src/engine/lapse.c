/* Time and giving up: deadlines, acquire timeouts, grace, leaks, cancels. Whatever state a call is in, its deadline ends it,
 * at the latest GRACE after. */
#include "engine/call.h"
#include "engine/lane.h"
#include "engine/outcome.h"
#include "engine/queue.h"

#include "base/check.h"

#include <string.h>

/* After the deadline the cancel is on its way; most answers (57014, or the result after all) come within a round trip,
 * and then the outcome is known instead of unknown. */
#define GRACE_NS 80000000ull

/* A statement_timeout we set fires about when the deadline does, by the server's clock. */
#define SLACK_NS 50000000ull

bool wr_call_timed_out(const struct weir_call *call, const struct wr_fault *fault)
{
    bool due = call->overdue || call->engine->now + SLACK_NS >= call->deadline;
    return due && strcmp(fault->sqlstate, "57014") == 0;
}

static weir_outcome outcome_when_left(const struct weir_call *call)
{
    if (call->phase == WEIR_PHASE_NOT_SENT) return WEIR_OUTCOME_NONE;
    if (call->phase == WEIR_PHASE_DONE || call->readonly) return WEIR_OUTCOME_ROLLED_BACK;
    bool commit_may_run = call->phase == WEIR_PHASE_COMMIT_SENT || !call->unit;
    return commit_may_run ? WEIR_OUTCOME_UNKNOWN : WEIR_OUTCOME_ROLLED_BACK;
}

static bool on_the_wire(const struct weir_call *call)
{
    return call->state == WR_CALL_SENT || call->state == WR_CALL_OVERDUE ||
           call->state == WR_CALL_RESOLVE_SENT;
}

static bool is_resolving(const struct weir_call *call)
{
    return call->state == WR_CALL_RESOLVE_WAIT || call->state == WR_CALL_RESOLVE_QUEUED ||
           call->state == WR_CALL_RESOLVE_SENT;
}

/* A COMMIT is never cancelled: that could only make its outcome less certain. On a lane a cancel could hit a neighbour, so
 * there it is the lane's to decide. */
static void cancel_on_the_wire(struct weir_call *call)
{
    if (call->sending == WR_SEGMENT_COMMIT || call->conn->state == WR_CONN_SHARED) return;
    wr_count(&call->pool->meter->counter[WR_N_CANCELS], 1);
    call->engine->driver->cancel(call->conn->server);
}

/* Ends the call at once, from any state. A segment on the wire is cancelled and its connection waits for the last word. */
void wr_call_cancel_now(struct weir_call *call, weir_code code, const char *message)
{
    struct weir_engine *engine = call->engine;
    bool was_on_wire = on_the_wire(call);
    if (was_on_wire) call->server_ns += engine->now - call->sent_at;
    /* Between two attempts the last failure says more than "the deadline passed". */
    if (is_resolving(call)) {
        wr_count(&call->pool->meter->counter[WR_N_RESOLVED_NOT], 1);
    } else if (call->state != WR_CALL_BACKOFF) {
        wr_call_say(call, WEIR_CLASS_SAFE, outcome_when_left(call), message);
        wr_record_attempt_end(call, "", call->error.class_);
        if (code == WEIR_CALL_TIMEOUT) wr_count(&call->pool->meter->failed[wr_outcome_reason("timeout")], 1);
    }
    if (call->state == WR_CALL_SENT) cancel_on_the_wire(call);
    wr_call_let_go(call);
    bool unwell = code == WEIR_CALL_TIMEOUT && (was_on_wire || call->overdue);
    wr_call_settle_permit(call, unwell ? WEIR_FAILURE : WEIR_NEUTRAL, "timeout");
    wr_call_over(call, code);
}

static void become_overdue(struct weir_call *call)
{
    struct weir_engine *engine = call->engine;
    call->overdue = true;
    cancel_on_the_wire(call);
    if (call->conn->state == WR_CONN_SHARED) wr_lane_overdue(call->conn, call);
    wr_call_enter(call, WR_CALL_OVERDUE);
    wr_engine_arm(engine, &call->wake, engine->now + GRACE_NS);
}

/* A wait in vain is our own queue's matter and tells nothing of the backend, unless all the pool has is still being
 * connected or hangs on a cancel: then nobody answers, and the breaker must hear of it or each caller would wait out his
 * whole timeout in turn. The call leaves the queue first, for a breaker that opens empties it. */
static void blame_backend_if_silent(struct weir_call *call)
{
    const struct wr_pool *pool = call->pool;
    size_t silent = pool->count[WR_CONN_CONNECTING] + pool->count[WR_CONN_CANCELING];
    if (silent == 0 || wr_pool_total(pool) > silent) return;
    wr_call_enter(call, WR_CALL_NEW);
    wr_call_settle_permit(call, WEIR_FAILURE, "timeout");
}

void wr_call_deadline_fired(struct wr_timer *timer)
{
    struct weir_call *call = WR_CONTAINER(timer, struct weir_call, deadline_timer);
    switch (call->state) {
    case WR_CALL_QUEUED:
        blame_backend_if_silent(call);
        wr_call_refuse(call, WEIR_CALL_TIMEOUT, WR_N_REFUSED_ACQUIRE, NULL, 0,
                       "no connection of %s within the timeout%s%s", call->pool->name,
                       call->pool->connect_failing ? ", last: " : "",
                       call->pool->connect_failing ? call->pool->last_fault.message : "");
        break;
    case WR_CALL_SENT:
        become_overdue(call);
        break;
    case WR_CALL_HELD:
        wr_call_cancel_now(call, WEIR_CALL_TIMEOUT,
                           "the deadline passed while the unit of work held its connection");
        break;
    case WR_CALL_OVERDUE:
    case WR_CALL_OVER:
        break;
    default:
        wr_call_cancel_now(call, WEIR_CALL_TIMEOUT, "the deadline passed");
        break;
    }
}

void wr_call_wake_fired(struct wr_timer *timer)
{
    struct weir_call *call = WR_CONTAINER(timer, struct weir_call, wake);
    switch (call->state) {
    case WR_CALL_QUEUED:
        blame_backend_if_silent(call);
        wr_call_refuse(call, WEIR_CALL_ACQUIRE_TIMEOUT, WR_N_REFUSED_ACQUIRE, NULL, 0,
                       "no connection of %s within acquire_timeout", call->pool->name);
        break;
    case WR_CALL_BACKOFF:
        wr_call_attempt(call);
        break;
    case WR_CALL_OVERDUE:
        wr_call_cancel_now(call, WEIR_CALL_TIMEOUT, "the deadline passed and the server has not answered");
        break;
    case WR_CALL_RESOLVE_WAIT:
        wr_resolve_woken(call);
        break;
    default:
        WR_CHECK(!"a call woken in a state that does not wait");
    }
}

void wr_call_leak_fired(struct wr_timer *timer)
{
    struct weir_call *call = WR_CONTAINER(timer, struct weir_call, leak_timer);
    struct weir_engine *engine = call->engine;
    wr_count(&call->pool->meter->counter[WR_N_LEAKS], 1);
    wr_engine_event(engine, WR_EVENT_LEAK, call->pool,
                    &(struct wr_event_facts){.id = "connection.leaked", .level = WEIR_LOG_WARN, .call = call},
                    "a connection has been held for %.1f s by '%.120s'",
                    (double)(engine->now - call->leased_at) / 1e9, call->context);
}

void weir_call_cancel(weir_call *call)
{
    if (call->engine == NULL || call->state == WR_CALL_OVER || !wr_engine_is_ours(call->engine)) return;
    struct weir_engine *engine = call->engine;
    wr_engine_refresh(engine);
    wr_call_cancel_now(call, WEIR_CALL_CANCELLED, "cancelled by its caller");
    wr_engine_rearm(engine);
}

void weir_call_free(weir_call *call)
{
    struct weir_engine *engine = call->engine;
    if (engine == NULL) { /* the engine has gone before it */
        wr_engine_bury(call);
        return;
    }
    if (!wr_engine_is_ours(engine)) return;
    call->abandoned = true;
    call->notify = NULL;
    wr_list_remove(&call->notice);
    if (call->state == WR_CALL_OVER) {
        wr_call_recycle(call);
        return;
    }
    wr_engine_refresh(engine);
    wr_call_cancel_now(call, WEIR_CALL_CANCELLED, "given up by its owner"); /* recycles at its end */
    wr_engine_rearm(engine);
}
