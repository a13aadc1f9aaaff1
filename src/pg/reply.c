/* Reading a segment's answers, step by step, and handing them over. */
#include "pg/link.h"

#include <stdlib.h>
#include <string.h>

/* ---- a step that went well ---- */

/* From what the server says it did, for what the text alone did not show. */
static void heed_tag(struct wr_link *link, struct wr_flight *flight, const char *tag)
{
    static const char *const dirty[] = {"LISTEN",         "UNLISTEN", "PREPARE", "DEALLOCATE",
                                        "DEALLOCATE ALL", "RESET",    "DISCARD", "LOAD",
                                        "CALL",           "DO",       NULL};
    size_t length = strlen(tag);
    bool counted = length > 0 && tag[length - 1] >= '0' && tag[length - 1] <= '9';
    if (counted) return; /* "SELECT 1": what gives rows or counts them leaves no state behind */
    for (const char *const *at = dirty; *at != NULL; at++) {
        if (strcmp(tag, *at) == 0) flight->reply.dirty = true;
    }
    if (strcmp(tag, "PREPARE") == 0) link->user_prepared = true;
    if (strcmp(tag, "CALL") == 0 || strcmp(tag, "DO") == 0) flight->called = true;
    /* By the caller's own hand: ours are gone too. Later steps still point into the book, so it is emptied at
     * the end. */
    if (strcmp(tag, "DEALLOCATE ALL") == 0 || strcmp(tag, "DISCARD ALL") == 0) flight->stale_all = true;
}

static void keep_result(struct wr_link *link, struct wr_flight *flight, PGresult *result)
{
    struct wr_reply *reply = &flight->reply;
    heed_tag(link, flight, PQcmdStatus(result));
    flight->results[reply->count++] = wr_pgresult(result);
}

/* Behind a pooler: no row means that the server which answers is not the one that greeted us. Lost, so that
 * the question is asked again on a connection that knows better. */
static void read_xact(const struct wr_link *link, struct wr_reply *reply, const PGresult *result)
{
    if (link->pooler && PQntuples(result) == 0) {
        wr_pgfault_say(&reply->fault, "the pooler leads to another server than it did");
        reply->failed = reply->fault.lost = true;
    }
    const char *status = PQntuples(result) > 0 && !PQgetisnull(result, 0, 0) ? PQgetvalue(result, 0, 0) : "";
    reply->xact = strcmp(status, "committed") == 0     ? WR_XACT_COMMITTED
                  : strcmp(status, "aborted") == 0     ? WR_XACT_ABORTED
                  : strcmp(status, "in progress") == 0 ? WR_XACT_IN_PROGRESS
                                                       : WR_XACT_FORGOTTEN;
}

static void step_done(struct wr_link *link, struct wr_flight *flight, const struct wr_step *step,
                      PGresult *result)
{
    struct wr_reply *reply = &flight->reply;
    switch (step->kind) {
    case WR_STEP_STATEMENT:
        keep_result(link, flight, result);
        return;
    case WR_STEP_PREPARE: /* unless the book has been emptied since */
        if (step->statement->parser == flight->number && step->statement->state == WR_STATEMENT_PARSING)
            step->statement->state = WR_STATEMENT_READY;
        break;
    case WR_STEP_DEALLOCATE:
        wr_statements_closed(&link->statements, step->statement);
        break;
    case WR_STEP_DEALLOCATE_ALL:
        if (flight->edition == link->statements.edition) link->statements.drop_all = false;
        break;
    case WR_STEP_XID:
        reply->xid_asked = PQntuples(result) == 1;
        link->moved = !reply->xid_asked;
        if (reply->xid_asked && !PQgetisnull(result, 0, 0)) {
            reply->xid = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
        }
        break;
    case WR_STEP_COMMIT:
        reply->committed = strcmp(PQcmdStatus(result), "COMMIT") == 0;
        break;
    case WR_STEP_XACT:
        read_xact(link, reply, result);
        break;
    case WR_STEP_PREAMBLE:
    case WR_STEP_PLAIN:
    case WR_STEP_SYNC:
        break;
    }
    PQclear(result);
}

/* ---- a step that did not ---- */

static bool says(const PGresult *result, int field, const char *text)
{
    const char *value = PQresultErrorField(result, field);
    return value != NULL && strcmp(value, text) == 0;
}

static bool names(const PGresult *result, const struct wr_statement *statement)
{
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *at = message == NULL ? NULL : strstr(message, statement->name);
    if (at == NULL) return false;
    char after = at[strlen(statement->name)];
    return after < '0' || after > '9'; /* weir_1 is not weir_12 */
}

void wr_link_forget_statements(struct wr_link *link)
{
    wr_statements_forget(&link->statements);
    for (size_t i = 0; i < WR_PREAMBLES; i++) {
        if (link->preambles[i] != NULL) link->preambles[i]->state = WR_STATEMENT_NEW;
    }
    if (link->xid_question != NULL) link->xid_question->state = WR_STATEMENT_NEW;
    if (link->probe != NULL) link->probe->state = WR_STATEMENT_NEW;
    link->statements.drop_all = true;
}

/* Whether the error is about our book rather than the caller's SQL, and the book put right. The same
 * SQLSTATEs come from statements that use PREPARE and EXECUTE themselves, so the code alone is not enough. */
static bool is_stale(struct wr_link *link, const struct wr_step *step, const PGresult *result)
{
    if (step->statement == NULL) return false;
    if (step->kind == WR_STEP_PREPARE) {
        bool taken = says(result, PG_DIAG_SQLSTATE, "42P05");
        if (taken) link->statements.off = true;
        return taken;
    }
    if (says(result, PG_DIAG_SQLSTATE, "26000")) return names(result, step->statement);
    return says(result, PG_DIAG_SQLSTATE, "0A000") &&
           says(result, PG_DIAG_SOURCE_FUNCTION, "RevalidateCachedQuery");
}

/* The part of the book this one step is about. What concerns all of it waits until the segment is through:
 * later steps still point into it. */
static void step_undone(struct wr_link *link, const struct wr_flight *flight, const struct wr_step *step,
                        const PGresult *error)
{
    struct wr_statements *all = &link->statements;
    bool unknown = error != NULL && says(error, PG_DIAG_SQLSTATE, "26000");
    if (step->kind == WR_STEP_PREPARE) wr_statements_unknown(all, step->statement, flight->number);
    if (step->kind == WR_STEP_DEALLOCATE) step->statement->closing = false;
    if (step->kind == WR_STEP_DEALLOCATE && unknown) wr_statements_closed(all, step->statement);
    if (step->kind == WR_STEP_DEALLOCATE_ALL && flight->edition == all->edition) all->dropping = 0;
}

/* The plans this flight used are out of date. What it has not had an answer to may be on its way still. Others under way
 * meet the same error by themselves; by then there is nothing left to do here. */
static void stale_used(struct wr_link *link, const struct wr_flight *flight)
{
    for (size_t i = 0; i < flight->step_count; i++) {
        const struct wr_step *step = &flight->steps[i];
        if (step->kind == WR_STEP_STATEMENT && step->statement != NULL &&
            step->statement->state == WR_STATEMENT_READY) {
            wr_statements_stale(&link->statements, step->statement);
        }
    }
}

/* False if the connection is lost with it. */
static bool step_failed(struct wr_link *link, struct wr_flight *flight, const struct wr_step *step,
                        const PGresult *error)
{
    struct wr_reply *reply = &flight->reply;
    struct wr_fault fault;
    struct wr_secrets secrets = wr_link_secrets(link);
    wr_pgfault_from_result(&fault, error, &secrets);
    if (!fault.lost && step->kind == WR_STEP_XACT && strcmp(fault.sqlstate, "22023") == 0) {
        reply->xact = WR_XACT_FUTURE;
        return true;
    }
    if (!fault.lost && step->lenient) {
        memset(&link->wanted, 0, sizeof link->wanted);
    } else if (!reply->failed) {
        reply->failed = true;
        reply->fault = fault;
        flight->stale = !fault.lost && is_stale(link, step, error);
        bool plans_only = strcmp(fault.sqlstate, "0A000") == 0;
        if (flight->stale && plans_only) stale_used(link, flight);
        if (flight->stale && !plans_only) flight->stale_all = true;
    }
    step_undone(link, flight, step, error);
    return !fault.lost;
}

static bool refuse_copy(struct wr_link *link, struct wr_reply *reply)
{
    if (!reply->failed) {
        wr_pgfault_say(&reply->fault, "COPY cannot be run here: it would keep the connection to itself");
        reply->failed = true;
    }
    wr_link_lose(link);
    return false;
}

/* ---- the end of a segment ---- */

/* What is known of the session afterwards. A shared segment that had others ahead of it leaves it as it was, failed or
 * not: what it set was its own transaction's. */
static void settle_session(struct wr_link *link, const struct wr_flight *flight)
{
    static const struct wr_context nothing;
    const struct wr_reply *reply = &flight->reply;
    if (flight->kind == WR_SEGMENT_RESET && !reply->failed) {
        link->user_prepared = false;
        link->session = link->baseline;
    } else if (flight->shared && !flight->settles) {
        if (reply->dirty || flight->called) link->session = nothing;
    } else {
        link->session = reply->failed || reply->dirty ? nothing : link->wanted;
    }
}

/* If the book has been emptied since this flight was written, what stands in it now was written behind it. */
static void settle_book(struct wr_link *link, const struct wr_flight *flight)
{
    if (flight->stale_all && flight->edition == link->statements.edition) wr_link_forget_statements(link);
    settle_session(link, flight);
}

/* Nothing had effect, and the same segment would go through now. */
static bool is_healed(const struct wr_flight *flight)
{
    return flight->stale && (flight->kind == WR_SEGMENT_SINGLE || flight->kind == WR_SEGMENT_BEGIN) &&
           !flight->called && flight->reply.transaction == 'I';
}

/* With others behind it libpq does not tell; but a shared segment cannot have left a transaction open. */
static char transaction_after(struct wr_link *link, const struct wr_flight *flight)
{
    bool last = flight->place.next == &link->flights;
    return last ? wr_link_transaction(link) : 'I';
}

static bool conclude(struct wr_link *link, struct wr_flight *flight)
{
    bool healing = link->state == WR_LINK_HEALING;
    if (!healing) settle_book(link, flight);
    flight->reply.transaction = transaction_after(link, flight);
    if (!healing && flight->stale && flight->kind == WR_SEGMENT_BEGIN && flight->reply.transaction == 'E') {
        link->state = WR_LINK_HEALING;
        if (!wr_link_send_rollback(link)) wr_link_doom(link);
        return true;
    }
    flight->reply.heal = is_healed(flight);
    if (!wr_link_uncancelled(link)) {
        link->state = WR_LINK_HELD;
        return true;
    }
    return wr_link_settle(link);
}

static void attach_notices(struct wr_reply *reply, struct wr_notices *notices)
{
    for (size_t i = 0; notices != NULL && i < reply->count; i++)
        wr_pgresult_attach(&reply->results[i], notices);
    wr_notices_drop(notices);
}

static void land(struct wr_link *link, struct wr_flight *flight)
{
    wr_list_remove(&flight->place);
    bool last = wr_list_empty(&link->flights);
    if (last) wr_statements_calm(&link->statements);
    if (link->state != WR_LINK_OVER) link->state = last ? WR_LINK_IDLE : WR_LINK_RUNNING;
    attach_notices(&flight->reply, flight->notices);
    flight->notices = NULL;
}

/* The engine may send on inside, with another flight; and it may close the link, which then goes when this one's memory is
 * not needed any more. */
bool wr_link_settle(struct wr_link *link)
{
    struct wr_flight *flight = wr_link_oldest(link);
    flight->reply.results = flight->results;
    size_t count = flight->reply.count;
    land(link, flight);
    link->delivering = true;
    link->pg->env->settled(link->owner, &flight->reply);
    for (size_t i = 0; i < count; i++) wr_result_release(&flight->results[i]);
    flight->reply.count = 0;
    wr_list_prepend(&link->spare_flights, &flight->place);
    link->delivering = false;
    if (link->closed) {
        wr_link_close(link);
        return false;
    }
    if (link->state == WR_LINK_OVER) return false;
    wr_link_tell_notifications(
        link); /* those that came with the answer: the owner knows by now what it was */
    return true;
}

/* ---- losing it ---- */

static void explain_loss(struct wr_link *link, struct wr_fault *fault)
{
    struct wr_secrets secrets = wr_link_secrets(link);
    if (link->fatal_heard) {
        *fault = link->last_words;
    } else {
        wr_pgfault_from_conn(fault, link->conn, &secrets);
        memcpy(fault->sqlstate, link->last_words.sqlstate, sizeof fault->sqlstate);
    }
    fault->lost = true;
}

/* What a segment in HELD came to is known, and is told first; the loss shows on the next look at the
 * socket. Those behind the oldest are lost with it and not told one by one. */
void wr_link_lose(struct wr_link *link)
{
    enum wr_link_state state = link->state;
    if (state == WR_LINK_OVER) return;
    if (state == WR_LINK_IDLE) {
        struct wr_fault fault;
        explain_loss(link, &fault);
        wr_link_abandon(link);
        link->pg->env->lost(link->owner, &fault);
        return;
    }
    struct wr_reply *reply = &wr_link_oldest(link)->reply;
    wr_link_abandon(link);
    if (state != WR_LINK_HELD) {
        if (!reply->failed) explain_loss(link, &reply->fault);
        if (reply->fault.sqlstate[0] == '\0') {
            memcpy(reply->fault.sqlstate, link->last_words.sqlstate, sizeof reply->fault.sqlstate);
        }
        reply->failed = true;
        reply->heal = false;
        reply->transaction = '\0';
    }
    reply->fault.lost = true;
    wr_link_settle(link);
}

/* ---- reading ---- */

static void next_step(struct wr_flight *flight)
{
    flight->step_at++;
    flight->answered = false;
}

/* False: reported. */
static bool take_result(struct wr_link *link, struct wr_flight *flight, PGresult *result)
{
    const struct wr_step *step = &flight->steps[flight->step_at];
    ExecStatusType status = PQresultStatus(result);
    flight->answered = true;
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY) {
        step_done(link, flight, step, result);
        return true;
    }
    bool alive = true;
    if (status == PGRES_PIPELINE_ABORTED) {
        step_undone(link, flight, step, NULL);
    } else if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
        PQclear(result);
        return refuse_copy(link, &flight->reply);
    } else {
        alive = step_failed(link, flight, step, result);
    }
    PQclear(result);
    if (!alive) wr_link_lose(link);
    return alive;
}

/* What a deferred constraint has to say comes at the Sync, where the implicit transaction commits: an error
 * first, then the Sync itself. Otherwise a Sync where none belongs, or none where one does, means that we
 * have lost count: nothing read after it could be trusted to belong to whom we think. */
static bool out_of_step(struct wr_link *link, PGresult *result)
{
    PQclear(result);
    wr_link_lose(link);
    return false;
}

static bool take(struct wr_link *link, PGresult *result)
{
    struct wr_flight *flight = wr_link_oldest(link);
    bool at_sync = flight->steps[flight->step_at].kind == WR_STEP_SYNC;
    if (result == NULL) {
        if (!flight->answered) return out_of_step(link, NULL);
        if (at_sync)
            flight->answered = false;
        else
            next_step(flight);
        return true;
    }
    bool is_sync = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
    if (is_sync != at_sync && !(at_sync && PQresultStatus(result) == PGRES_FATAL_ERROR)) {
        return out_of_step(link, result);
    }
    if (!is_sync) return take_result(link, flight, result);
    PQclear(result);
    next_step(flight);
    return flight->step_at < flight->step_count || conclude(link, flight);
}

/* One flight after the other: what libpq has read, the socket does not tell of again. */
bool wr_link_read(struct wr_link *link)
{
    while ((link->state == WR_LINK_RUNNING || link->state == WR_LINK_HEALING) && !PQisBusy(link->conn)) {
        if (!take(link, PQgetResult(link->conn))) return false;
    }
    return link->state != WR_LINK_OVER;
}
