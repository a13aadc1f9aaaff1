/* Units of work: one transaction over several round trips, its owner at work in between. BEGIN and the preamble ride
 * with the first statement; the transaction's id is asked for until it is known; COMMIT goes alone, and only its own tag
 * counts as committed. */
#include "base/sqltext.h"
#include "engine/call.h"

#include <string.h>
#include <strings.h>

/* ---- the owner's side -------------------------------------------------------------------------------------------- */

static bool owner_may_act(const struct weir_call *call)
{
    return call->unit && call->state == WR_CALL_HELD && (call->status == WEIR_READY || call->status == WEIR_REPLIED);
}

static int bad_state(const struct weir_call *call, char *why)
{
    const char *what = !call->unit ? "the call is not a unit of work"
                       : call->state == WR_CALL_OVER ? "the unit of work has ended"
                                                     : "the unit of work waits for an answer";
    wr_text_format(why, WEIR_WHY_MAX, "%s", what);
    return WEIR_ESTATE;
}

static void reply_failed(struct weir_call *call)
{
    weir_error *e = &call->error;
    struct wr_circumstances at = {call->phase, true, call->readonly, false};
    struct wr_judgement j = wr_outcome_judge(&call->fault, &at);
    e->code = j.code;
    e->class_ = j.class_;
    e->outcome = j.outcome;
    e->phase = call->phase;
    e->attempts = call->attempt;
    e->position = call->fault.position;
    wr_text_copy(e->sqlstate, sizeof e->sqlstate, call->fault.sqlstate);
    wr_text_copy(e->severity, sizeof e->severity, call->fault.severity);
    wr_text_copy(e->message, sizeof e->message, call->fault.message);
    wr_text_copy(e->detail, sizeof e->detail, call->fault.detail);
    wr_text_copy(e->hint, sizeof e->hint, call->fault.hint);
    wr_text_copy(e->context, sizeof e->context, call->context);
    wr_text_copy(e->pool, sizeof e->pool, call->pool->name);
    call->failed = true;
    wr_call_notice(call, WEIR_REPLIED);
}

int weir_unit_send(weir_call *call, const weir_statement *statements, size_t count, char *why)
{
    char unused[WEIR_WHY_MAX];
    if (why == NULL) why = unused;
    if (!owner_may_act(call)) return bad_state(call, why);
    int code = wr_call_check_statements(statements, count, false, why);
    if (code == WEIR_OK) code = wr_call_keep_statements(call, statements, count, why);
    if (code != WEIR_OK) return code;
    wr_engine_refresh(call->engine);
    wr_call_drop_results(call);
    for (size_t i = 0; i < count; i++) call->notifies = call->notifies || strcasestr(statements[i].sql, "notify") != NULL;
    wr_list_remove(&call->notice);
    call->status = WEIR_WAITING;
    if (call->conn == NULL) {   /* lost while the owner was at work; wr_conn_lost has kept the reason */
        reply_failed(call);
    } else {
        wr_call_enter(call, WR_CALL_SENT);
        if (!wr_call_send(call, call->begun ? WR_SEGMENT_MORE : WR_SEGMENT_BEGIN)) {
            wr_call_enter(call, WR_CALL_NEW);
            wr_call_enter(call, WR_CALL_HELD);
            reply_failed(call);
        }
    }
    wr_engine_rearm(call->engine);
    return WEIR_OK;
}

/* The error that stood when the owner gave up, or a plain one if he swallowed or never had one. */
static struct wr_fault standing_fault(const struct weir_call *call)
{
    struct wr_fault fault = call->fault;
    if (fault.message[0] != '\0') return fault;
    memset(&fault, 0, sizeof fault);
    wr_text_copy(fault.message, sizeof fault.message, "the unit of work failed");
    return fault;
}

static void finish_failed(struct weir_call *call)
{
    struct wr_fault fault = standing_fault(call);
    wr_call_enter(call, WR_CALL_NEW);
    wr_call_let_go(call);
    wr_call_failed(call, &fault, false);
}

static void finish_rolled_back(struct weir_call *call, weir_code code, const char *message)
{
    wr_call_enter(call, WR_CALL_NEW);
    wr_call_let_go(call);
    call->error.outcome = WEIR_OUTCOME_ROLLED_BACK;
    call->error.class_ = WEIR_CLASS_PERMANENT;
    call->error.phase = call->phase;
    call->error.sqlstate[0] = '\0';
    wr_text_copy(call->error.message, sizeof call->error.message, message);
    wr_record_attempt_end(call, "", WEIR_CLASS_PERMANENT);
    wr_call_settle_permit(call, WEIR_SUCCESS, NULL);
    wr_call_over(call, code);
}

static void finish_empty(struct weir_call *call)
{
    wr_call_enter(call, WR_CALL_NEW);
    wr_call_let_go(call);
    wr_call_settle_permit(call, WEIR_NEUTRAL, NULL);   /* the server was never asked anything */
    wr_record_attempt_end(call, "", WEIR_CLASS_NONE);
    call->error.outcome = WEIR_OUTCOME_COMMITTED;
    wr_call_over(call, WEIR_CALL_OK);
}

static void finish_commit(struct weir_call *call)
{
    if (call->conn == NULL) {
        finish_failed(call);   /* lost before COMMIT: rolled back for sure */
    } else if (!call->begun) {
        finish_empty(call);
    } else if (call->transaction != 'T') {
        finish_rolled_back(call, WEIR_CALL_ABORTED,
                           "not committed: a statement of the unit had failed and its error was swallowed");
    } else {
        call->xid_system = call->conn->greeting.system_id;
        call->xid_timeline = call->conn->greeting.timeline;
        wr_call_enter(call, WR_CALL_SENT);
        if (wr_call_send(call, WR_SEGMENT_COMMIT)) return;
        wr_call_enter(call, WR_CALL_NEW);
        struct wr_fault fault = call->fault;   /* not a byte of COMMIT left: rolled back */
        wr_call_failed(call, &fault, false);
    }
}

int weir_unit_finish(weir_call *call, weir_finish how)
{
    char unused[WEIR_WHY_MAX];
    if (!owner_may_act(call)) return bad_state(call, unused);
    wr_engine_refresh(call->engine);
    wr_list_remove(&call->notice);
    call->status = WEIR_WAITING;
    wr_call_drop_results(call);
    if (how == WEIR_COMMIT) {
        finish_commit(call);
    } else if (how == WEIR_FAILED) {
        finish_failed(call);
    } else {
        finish_rolled_back(call, WEIR_CALL_ROLLED_BACK, "rolled back by its own function");
    }
    wr_engine_rearm(call->engine);
    return WEIR_OK;
}

/* ---- the server's side -------------------------------------------------------------------------------------------- */

static void connection_lost(struct weir_call *call, const struct wr_fault *fault)
{
    struct wr_conn *conn = call->conn;
    call->fault = *fault;
    call->conn = NULL;
    call->transaction = 0;
    wr_conn_close(conn, WR_N_CLOSED_ERROR);
    wr_pool_grow(call->pool);
}

static void commit_settled(struct weir_call *call, struct wr_reply *reply)
{
    struct wr_fault fault = reply->fault;
    bool failed = reply->failed, committed = reply->committed;
    wr_call_enter(call, WR_CALL_NEW);
    if (failed && fault.lost) {
        connection_lost(call, &fault);
        wr_call_failed(call, &fault, false);
        return;
    }
    call->phase = WEIR_PHASE_DONE;
    call->transaction = reply->transaction;
    call->dirty = call->dirty || reply->dirty;
    wr_call_let_go(call);
    if (failed) {
        wr_call_failed(call, &fault, false);
    } else if (committed) {
        wr_call_succeeded(call);
    } else {
        call->error.outcome = WEIR_OUTCOME_ROLLED_BACK;
        call->error.class_ = WEIR_CLASS_PERMANENT;
        call->error.phase = call->phase;
        wr_text_copy(call->error.message, sizeof call->error.message, "COMMIT was answered with ROLLBACK");
        wr_record_attempt_end(call, "", WEIR_CLASS_PERMANENT);
        wr_call_settle_permit(call, WEIR_SUCCESS, NULL);
        wr_call_over(call, WEIR_CALL_ABORTED);
    }
}

/* A statement must leave the transaction open; a procedure that ended it would let the rest run without role. */
static bool escaped(const struct weir_call *call, const struct wr_reply *reply)
{
    return !reply->failed && reply->transaction == 'I' && call->begun;
}

static void statements_settled(struct weir_call *call, struct wr_reply *reply)
{
    bool overdue = call->overdue;
    wr_call_enter(call, WR_CALL_HELD);
    call->begun = true;
    call->transaction = reply->transaction;
    call->dirty = call->dirty || reply->dirty;
    if (reply->xid_asked) {
        call->xid_asked = true;
        call->xid = reply->xid;
    }
    if (reply->failed || escaped(call, reply)) {
        struct wr_fault fault = reply->fault;
        if (!reply->failed) {
            memset(&fault, 0, sizeof fault);
            wr_text_copy(fault.message, sizeof fault.message, "a statement ended the transaction of its unit of work");
            wr_text_copy(fault.sqlstate, sizeof fault.sqlstate, "25P01");
        }
        if (fault.lost) connection_lost(call, &fault);
        call->fault = fault;
        if (!overdue) {
            reply_failed(call);
            return;
        }
    } else if (!wr_call_take_results(call, reply)) {
        wr_text_copy(call->fault.message, sizeof call->fault.message, "out of memory keeping the result");
        reply_failed(call);
        return;
    }
    if (overdue) {
        wr_call_cancel_now(call, WEIR_CALL_TIMEOUT, "the deadline passed");
        return;
    }
    call->failed = false;
    wr_call_notice(call, WEIR_REPLIED);
}

void wr_unit_settled(struct weir_call *call, struct wr_reply *reply)
{
    if (call->sending == WR_SEGMENT_COMMIT) {
        commit_settled(call, reply);
    } else {
        statements_settled(call, reply);
    }
}
