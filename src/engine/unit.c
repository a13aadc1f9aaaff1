/* Units of work: one transaction over several round trips, its owner at work in between. BEGIN and the preamble ride
 * with the first statement; the transaction's id is asked for until it is known; COMMIT goes alone, and only its own tag
 * counts as committed. */
#include "engine/call.h"

#include <string.h>
#include <strings.h>

/* ---- the owner's side -------------------------------------------------------------------------------------------- */

static bool owner_may_act(const struct weir_call *call)
{
    if (call->engine == NULL || !wr_engine_is_ours(call->engine)) return false;
    return call->unit && call->state == WR_CALL_HELD &&
           (call->status == WEIR_READY || call->status == WEIR_REPLIED);
}

static int bad_state(const struct weir_call *call, char *why)
{
    const char *what = !call->unit                   ? "the call is not a unit of work"
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
    wr_call_say(call, j.class_, j.outcome, call->fault.message);
    e->code = j.code;
    e->attempts = call->attempt;
    e->position = call->fault.position;
    wr_text_copy(e->sqlstate, sizeof e->sqlstate, call->fault.sqlstate);
    wr_text_copy(e->severity, sizeof e->severity, call->fault.severity);
    wr_text_copy(e->detail, sizeof e->detail, call->fault.detail);
    wr_text_copy(e->hint, sizeof e->hint, call->fault.hint);
    wr_text_copy(e->context, sizeof e->context, call->context);
    wr_text_copy(e->pool, sizeof e->pool, call->pool->name);
    call->failed = true;
    wr_call_notice(call, WEIR_REPLIED);
}

/* From the text: a data-modifying WITH answers as SELECT, and a function nobody knows may write to a foreign table. */
static bool may_have_effects(const char *sql, const struct wr_sql_facts *facts)
{
    static const char *const telling[] = {"insert", "update", "delete", "merge", "notify", "truncate"};
    for (size_t i = 0; i < sizeof telling / sizeof *telling; i++) {
        if (strcasestr(sql, telling[i]) != NULL) return true;
    }
    return facts->may_dirty;
}

int weir_unit_send(weir_call *call, const weir_statement *statements, size_t count, char *why)
{
    char unused[WEIR_WHY_MAX];
    if (why == NULL) why = unused;
    if (!owner_may_act(call)) return bad_state(call, why);
    int code = wr_call_check_statements(call->engine, statements, count, false, why);
    if (code == WEIR_OK) code = wr_call_keep_statements(call, statements, count, why);
    if (code != WEIR_OK) return code;
    wr_engine_refresh(call->engine);
    wr_call_drop_results(call);
    for (size_t i = 0; i < count; i++) {
        call->has_effects = call->has_effects || may_have_effects(statements[i].sql, &call->facts[i]);
    }
    wr_list_remove(&call->notice);
    call->status = WEIR_WAITING;
    if (call->conn == NULL ||
        call->spoiled) { /* lost while the owner was at work, or ended; the reason is kept */
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
    struct wr_fault fault = {.message = "the unit of work failed"};
    return call->faulted ? call->fault : fault;
}

static void finish_failed(struct weir_call *call)
{
    struct wr_fault fault = standing_fault(call);
    wr_call_enter(call, WR_CALL_NEW);
    wr_call_let_go(call);
    wr_call_failed(call, &fault, false);
}

/* A unit that its owner rolled back tells of the server what its statements told. */
static struct wr_judgement what_the_server_showed(const struct weir_call *call)
{
    struct wr_circumstances at = {call->phase, true, call->readonly, false};
    if (call->faulted) return wr_outcome_judge(&call->fault, &at);
    return (struct wr_judgement){.verdict = call->begun ? WEIR_SUCCESS : WEIR_NEUTRAL};
}

static void finish_rolled_back(struct weir_call *call, weir_code code, const char *message)
{
    wr_call_enter(call, WR_CALL_NEW);
    wr_call_let_go(call);
    wr_call_say(call, WEIR_CLASS_PERMANENT, WEIR_OUTCOME_ROLLED_BACK, message);
    wr_record_attempt_end(call, "", WEIR_CLASS_PERMANENT);
    struct wr_judgement j = what_the_server_showed(call);
    wr_call_settle_permit(call, j.verdict, j.reason);
    wr_call_over(call, code);
}

static void finish_empty(struct weir_call *call)
{
    wr_call_enter(call, WR_CALL_NEW);
    wr_call_let_go(call);
    wr_call_settle_permit(call, WEIR_NEUTRAL, NULL); /* the server was never asked anything */
    wr_record_attempt_end(call, "", WEIR_CLASS_NONE);
    call->error.outcome = WEIR_OUTCOME_COMMITTED;
    wr_call_over(call, WEIR_CALL_OK);
}

static void finish_commit(struct weir_call *call)
{
    if (call->conn == NULL) {
        finish_failed(call); /* lost before COMMIT: rolled back for sure */
    } else if (!call->begun) {
        finish_empty(call);
    } else if (call->transaction != 'T' || call->spoiled) {
        finish_rolled_back(call, WEIR_CALL_ABORTED,
                           "not committed: a statement of the unit had failed and its error was swallowed");
    } else {
        call->xid_system = call->conn->greeting.system_id;
        call->xid_timeline = call->conn->greeting.timeline;
        call->xid_life = call->conn->greeting.life;
        wr_call_enter(call, WR_CALL_SENT);
        if (wr_call_send(call, WR_SEGMENT_COMMIT)) return;
        wr_call_enter(call, WR_CALL_NEW);
        struct wr_fault fault = call->fault; /* not a byte of COMMIT left: rolled back */
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
    wr_call_keep_fault(call, fault);
    call->transaction = 0;
    wr_conn_close(wr_call_detach(call), WR_N_CLOSED_ERROR);
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
        wr_call_say(call, WEIR_CLASS_PERMANENT, WEIR_OUTCOME_ROLLED_BACK,
                    "COMMIT was answered with ROLLBACK");
        wr_record_attempt_end(call, "", WEIR_CLASS_PERMANENT);
        wr_call_settle_permit(call, WEIR_SUCCESS, NULL);
        wr_call_over(call, WEIR_CALL_ABORTED);
    }
}

/* "Current transaction is aborted" says nothing that the failure before it has not said better. */
static void keep_fault(struct weir_call *call, const struct wr_fault *fault)
{
    bool echo = strcmp(fault->sqlstate, "25P02") == 0 && call->faulted;
    if (!echo) wr_call_keep_fault(call, fault);
}

/* A statement must leave the transaction open. One that ended it may have committed what came before, and what came
 * after would run without role and on its own, so nothing more is sent and nobody claims to know the outcome. */
static void escaped(struct weir_call *call)
{
    struct wr_fault fault = {.sqlstate = "25P01",
                             .message = "a statement ended the transaction of its unit of work"};
    wr_call_keep_fault(call, &fault);
    call->spoiled = call->dirty = true;
    call->past = WEIR_OUTCOME_UNKNOWN;
}

/* What came back, in the unit's own terms: true if its statements succeeded and their results are kept. */
static bool statements_succeeded(struct weir_call *call, struct wr_reply *reply)
{
    bool open = reply->transaction == 'T' || reply->transaction == 'E';
    if (reply->failed) {
        struct wr_fault fault = reply->fault;
        if (fault.lost) {
            connection_lost(call, &fault);
        } else {
            keep_fault(call, &fault);
            call->spoiled = call->spoiled || !open;
            (void)wr_call_take_results(call,
                                       reply); /* of what came before the error; for want of memory, none */
        }
        return false;
    }
    if (!open) {
        escaped(call);
        return false;
    }
    if (!wr_call_take_results(call, reply)) {
        struct wr_fault fault = {.message = "out of memory keeping the result"};
        wr_call_keep_fault(call, &fault);
        call->spoiled = true; /* the owner has not seen what its statements did: it must not commit them */
        return false;
    }
    call->faulted = false;
    return true;
}

/* A row written to a foreign table needs no xid here, so "no xid" alone is no proof that nothing happened: the tags must
 * say so as well. What a function called by a SELECT does elsewhere stays invisible (README names it). */
static void note_effects(struct weir_call *call, const struct wr_reply *reply)
{
    static const char *const harmless[] = {"SELECT", "SHOW", "SAVEPOINT", "RELEASE", "ROLLBACK", "SET",
                                           "FETCH",  "MOVE", "DECLARE",   "CLOSE",   "EXPLAIN"};
    for (size_t r = 0; r < reply->count; r++) {
        const char *tag = weir_result_tag(&reply->results[r]);
        bool known = false;
        for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
            known = known || strncmp(tag, harmless[i], strlen(harmless[i])) == 0;
        }
        call->has_effects = call->has_effects || !known;
    }
}

static void statements_settled(struct weir_call *call, struct wr_reply *reply)
{
    wr_call_enter(call, WR_CALL_HELD);
    call->begun = true;
    call->transaction = reply->transaction;
    call->dirty = call->dirty || reply->dirty;
    /* "Nothing written so far" holds for the flight that asked, not for the one after it. */
    call->xid_asked = reply->xid_asked || call->xid != 0;
    if (reply->xid != 0) call->xid = reply->xid;
    note_effects(call, reply);
    if (reply->failed && wr_call_timed_out(call, &reply->fault)) call->overdue = true; /* before our timer */
    bool succeeded = statements_succeeded(call, reply);
    if (call->overdue) {
        wr_call_cancel_now(call, WEIR_CALL_TIMEOUT, "the deadline passed");
    } else if (succeeded) {
        call->failed = false;
        wr_call_notice(call, WEIR_REPLIED);
    } else {
        reply_failed(call);
    }
}

void wr_unit_settled(struct weir_call *call, struct wr_reply *reply)
{
    if (call->sending == WR_SEGMENT_COMMIT) {
        commit_settled(call, reply);
    } else {
        statements_settled(call, reply);
    }
}
