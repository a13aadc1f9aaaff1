/* What became of a COMMIT whose answer was lost. The transaction's id was taken before; another connection to the same
 * server asks pg_xact_status until it is no longer in progress or the call's deadline passes. A dead client does not
 * stop its COMMIT, so asking once is not enough; and after a failover the id may mean another transaction, so the answer
 * counts only from the same system on the same timeline, and not from a standby. */
#include "engine/call.h"
#include "engine/queue.h"

#define MS 1000000ull
enum { FIRST_POLL_MS = 20, SLOWEST_POLL_MS = 500 };

static void poll_later(struct weir_call *call)
{
    uint64_t wait = FIRST_POLL_MS * MS << (call->resolve_step < 5 ? call->resolve_step : 5);
    if (wait > SLOWEST_POLL_MS * MS) wait = SLOWEST_POLL_MS * MS;
    call->resolve_step++;
    wr_call_enter(call, WR_CALL_RESOLVE_WAIT);
    wr_engine_arm(call->engine, &call->wake, call->engine->now + wait);
}

void wr_resolve_start(struct weir_call *call)
{
    call->resolve_step = 0;
    wr_engine_event(call->engine, WR_EVENT_UNKNOWN, call->pool,
                    &(struct wr_event_facts){.id = "commit.unanswered", .level = WEIR_LOG_WARN, .call = call},
                    "COMMIT of '%.80s' got no answer, asking about xid %llu", call->context,
                    (unsigned long long)call->xid);
    poll_later(call);
}

void wr_resolve_woken(struct weir_call *call)
{
    wr_queue_join(call->pool, call, true);
}

void wr_resolve_no_connection(struct weir_call *call)
{
    poll_later(call);
}

static void resolved_unknown(struct weir_call *call, const char *why)
{
    char message[sizeof call->error.message];
    wr_text_format(message, sizeof message, "%.300s (xid %llu: %s)", call->error.message,
                   (unsigned long long)call->xid, why);
    wr_text_copy(call->error.message, sizeof call->error.message, message);
    wr_count(&call->pool->meter->counter[WR_N_RESOLVED_NOT], 1);
    wr_call_enter(call, WR_CALL_NEW);
    wr_retry_decide(call);
}

void wr_resolve_leased(struct weir_call *call, struct wr_conn *conn)
{
    const struct wr_greeting *g = &conn->greeting;
    bool same = g->system_id != 0 && g->system_id == call->xid_system && g->timeline == call->xid_timeline &&
                !g->in_recovery;
    wr_call_enter(call, WR_CALL_RESOLVE_SENT);
    if (!same) {
        wr_call_detach(call);
        resolved_unknown(call, "another server answers now");
        wr_conn_give_back(conn, 'I', false);
        return;
    }
    if (!wr_call_send(call, WR_SEGMENT_XACT_STATUS)) poll_later(call);
}

/* Good news or bad, it is known now. */
static void tell_resolved(struct weir_call *call, const char *what)
{
    wr_engine_event(call->engine, WR_EVENT_UNKNOWN, call->pool,
                    &(struct wr_event_facts){.id = "commit.resolved", .call = call},
                    "COMMIT of '%.80s' has been answered for: xid %llu %s", call->context,
                    (unsigned long long)call->xid, what);
}

/* Rolled back for sure, unless an earlier attempt of an idempotent unit is still in doubt. */
static void resolved_aborted(struct weir_call *call)
{
    bool doubt = call->past == WEIR_OUTCOME_UNKNOWN;
    call->error.class_ = doubt ? WEIR_CLASS_UNKNOWN : WEIR_CLASS_SAFE;
    call->error.outcome = doubt ? WEIR_OUTCOME_UNKNOWN : WEIR_OUTCOME_ROLLED_BACK;
    wr_count(&call->pool->meter->counter[WR_N_RESOLVED_ABORTED], 1);
    tell_resolved(call, "was rolled back");
    wr_call_enter(call, WR_CALL_NEW);
    wr_retry_decide(call);
}

static void resolved_committed(struct weir_call *call)
{
    wr_count(&call->pool->meter->counter[WR_N_RESOLVED_COMMITTED], 1);
    tell_resolved(call, "was committed");
    wr_call_enter(call, WR_CALL_NEW);
    wr_call_succeeded(call);
}

/* After a crash the server gives out again the numbers it had not yet written down, so "committed" may be said of
 * somebody else's transaction. All else means that ours is gone: a commit that survived would be told as committed. */
static enum wr_xact believed(const struct weir_call *call, const struct wr_conn *conn, enum wr_xact said)
{
    bool same_life = conn->greeting.life == call->xid_life;
    if (same_life || said == WR_XACT_FORGOTTEN || said == WR_XACT_NONE) return said;
    return said == WR_XACT_COMMITTED ? WR_XACT_FORGOTTEN : WR_XACT_ABORTED;
}

void wr_resolve_settled(struct weir_call *call, struct wr_reply *reply)
{
    struct wr_conn *conn = wr_call_detach(call);
    bool lost = reply->failed && reply->fault.lost;
    char transaction = lost ? 0 : reply->transaction;
    enum wr_xact xact = believed(call, conn, reply->xact);
    if (lost || (!reply->failed && xact == WR_XACT_IN_PROGRESS)) {
        poll_later(call);
    } else if (reply->failed) {
        resolved_unknown(call, "the server would not tell");
    } else if (xact == WR_XACT_COMMITTED) {
        resolved_committed(call);
    } else if (xact == WR_XACT_ABORTED) {
        resolved_aborted(call);
    } else {
        resolved_unknown(call, "the server cannot tell any more");
    }
    wr_conn_give_back(conn, transaction, false);
}
