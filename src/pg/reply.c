/* Reading a segment's answers, step by step, and handing them over. */
#include "pg/link.h"

#include <stdlib.h>
#include <string.h>

/* ---- room ---- */

/* One place per statement, made before anything is sent, so that no answer can be dropped for want of it. */
bool wr_link_open_results(struct wr_link *link, size_t count)
{
    if (count > WR_SEGMENT_STATEMENTS) return false;
    if (count <= link->result_room) return true;
    size_t room = link->result_room == 0 ? 4 : link->result_room;
    while (room < count) room *= 2;
    struct weir_result *wider = wr_resize(link->pg->env->memory, link->results, room * sizeof *wider);
    if (wider == NULL) return false;
    link->results = wider;
    link->result_room = room;
    return true;
}

/* ---- a step that went well ---- */

/* From what the server says it did, for what the text alone did not show. */
static void heed_tag(struct wr_link *link, const char *tag)
{
    static const char *const dirty[] = {"LISTEN",         "UNLISTEN", "PREPARE", "DEALLOCATE",
                                        "DEALLOCATE ALL", "RESET",    "DISCARD", "LOAD",
                                        "CALL",           "DO",       NULL};
    size_t length = strlen(tag);
    bool counted = length > 0 && tag[length - 1] >= '0' && tag[length - 1] <= '9';
    if (counted) return; /* "SELECT 1": what gives rows or counts them leaves no state behind */
    for (const char *const *at = dirty; *at != NULL; at++) {
        if (strcmp(tag, *at) == 0) link->reply.dirty = true;
    }
    if (strcmp(tag, "PREPARE") == 0) link->user_prepared = true;
    if (strcmp(tag, "CALL") == 0 || strcmp(tag, "DO") == 0) link->called = true;
    /* By the caller's own hand: ours are gone too. Later steps still point into the book, so it is emptied at
     * the end. */
    if (strcmp(tag, "DEALLOCATE ALL") == 0 || strcmp(tag, "DISCARD ALL") == 0) link->stale_all = true;
}

static void keep_result(struct wr_link *link, PGresult *result)
{
    struct wr_reply *reply = &link->reply;
    heed_tag(link, PQcmdStatus(result));
    link->results[reply->count++] = wr_pgresult(result);
}

/* Behind a pooler: no row means that the server which answers is not the one that greeted us. Lost, so that
 * the question is asked again on a connection that knows better. */
static void read_xact(struct wr_link *link, const PGresult *result)
{
    if (link->pooler && PQntuples(result) == 0) {
        wr_pgfault_say(&link->reply.fault, "the pooler leads to another server than it did");
        link->reply.failed = link->reply.fault.lost = true;
    }
    const char *status = PQntuples(result) > 0 && !PQgetisnull(result, 0, 0) ? PQgetvalue(result, 0, 0) : "";
    link->reply.xact = strcmp(status, "committed") == 0     ? WR_XACT_COMMITTED
                       : strcmp(status, "aborted") == 0     ? WR_XACT_ABORTED
                       : strcmp(status, "in progress") == 0 ? WR_XACT_IN_PROGRESS
                                                            : WR_XACT_FORGOTTEN;
}

static void step_done(struct wr_link *link, const struct wr_step *step, PGresult *result)
{
    switch (step->kind) {
    case WR_STEP_STATEMENT:
        keep_result(link, result);
        return;
    case WR_STEP_PREPARE:
        step->statement->state = WR_STATEMENT_READY;
        break;
    case WR_STEP_DEALLOCATE:
        wr_statements_closed(&link->statements, step->statement);
        break;
    case WR_STEP_DEALLOCATE_ALL:
        link->statements.drop_all = false;
        break;
    case WR_STEP_XID:
        link->reply.xid_asked = PQntuples(result) == 1;
        link->moved = !link->reply.xid_asked;
        if (link->reply.xid_asked && !PQgetisnull(result, 0, 0)) {
            link->reply.xid = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
        }
        break;
    case WR_STEP_COMMIT:
        link->reply.committed = strcmp(PQcmdStatus(result), "COMMIT") == 0;
        break;
    case WR_STEP_XACT:
        read_xact(link, result);
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
static void step_undone(struct wr_link *link, const struct wr_step *step, const PGresult *error)
{
    bool unknown = error != NULL && says(error, PG_DIAG_SQLSTATE, "26000");
    if (step->kind == WR_STEP_PREPARE) wr_statements_unknown(&link->statements, step->statement);
    if (step->kind == WR_STEP_DEALLOCATE && unknown) wr_statements_closed(&link->statements, step->statement);
}

/* False if the connection is lost with it. */
static bool step_failed(struct wr_link *link, const struct wr_step *step, const PGresult *error)
{
    struct wr_fault fault;
    struct wr_secrets secrets = wr_link_secrets(link);
    wr_pgfault_from_result(&fault, error, &secrets);
    if (!fault.lost && step->kind == WR_STEP_XACT && strcmp(fault.sqlstate, "22023") == 0) {
        link->reply.xact = WR_XACT_FUTURE;
        return true;
    }
    if (!fault.lost && step->lenient) {
        memset(&link->wanted, 0, sizeof link->wanted);
    } else if (!link->reply.failed) {
        link->reply.failed = true;
        link->reply.fault = fault;
        link->stale = !fault.lost && is_stale(link, step, error);
        if (link->stale && strcmp(fault.sqlstate, "0A000") != 0) link->stale_all = true;
    }
    step_undone(link, step, error);
    return !fault.lost;
}

static bool refuse_copy(struct wr_link *link)
{
    if (!link->reply.failed) {
        wr_pgfault_say(&link->reply.fault, "COPY cannot be run here: it would keep the connection to itself");
        link->reply.failed = true;
    }
    wr_link_lose(link);
    return false;
}

/* ---- the end of a segment ---- */

static void settle_book(struct wr_link *link)
{
    static const struct wr_context nothing;
    if (link->stale_all) {
        wr_link_forget_statements(link);
    } else if (link->stale) {
        wr_statements_stale_used(&link->statements, link->segment);
    }
    if (link->kind == WR_SEGMENT_RESET && !link->reply.failed) {
        link->user_prepared = false;
        link->session = link->baseline;
    } else {
        link->session = link->reply.failed || link->reply.dirty ? nothing : link->wanted;
    }
}

/* Nothing had effect, and the same segment would go through now. */
static bool is_healed(const struct wr_link *link)
{
    return link->stale && (link->kind == WR_SEGMENT_SINGLE || link->kind == WR_SEGMENT_BEGIN) &&
           !link->called && link->reply.transaction == 'I';
}

static bool conclude(struct wr_link *link)
{
    bool healing = link->state == WR_LINK_HEALING;
    wr_link_drop_notifications(link);
    if (!healing) settle_book(link);
    link->reply.transaction = wr_link_transaction(link);
    if (!healing && link->stale && link->kind == WR_SEGMENT_BEGIN && link->reply.transaction == 'E') {
        link->state = WR_LINK_HEALING;
        if (!wr_link_send_rollback(link)) wr_link_doom(link);
        return true;
    }
    link->reply.heal = is_healed(link);
    if (!wr_link_uncancelled(link)) {
        link->state = WR_LINK_HELD;
        return true;
    }
    wr_link_settle(link);
    return false;
}

static void attach_notices(struct wr_reply *reply, struct wr_notices *notices)
{
    for (size_t i = 0; notices != NULL && i < reply->count; i++)
        wr_pgresult_attach(&reply->results[i], notices);
    wr_notices_drop(notices);
}

static void release_left(struct weir_result *results, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (results[i].ops != NULL) results[i].ops->release(results[i].handle);
    }
}

/* The engine may send on inside, so the reply it reads is a copy and the results an array of their own, which
 * trades places with the next segment's. */
void wr_link_settle(struct wr_link *link)
{
    struct wr_reply reply = link->reply;
    struct weir_result *results = link->results;
    size_t room = link->result_room, count = reply.count;
    reply.results = results;
    link->reply.count = 0;
    attach_notices(&reply, link->notices);
    link->notices = NULL;
    link->results = link->spare;
    link->result_room = link->spare_room;
    link->spare = NULL;
    link->spare_room = 0;
    if (link->state != WR_LINK_OVER) link->state = WR_LINK_IDLE;
    link->delivering = true;
    link->pg->env->settled(link->owner, &reply);
    release_left(results, count);
    link->spare = results;
    link->spare_room = room;
    link->delivering = false;
    if (link->closed) wr_link_close(link);
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
 * socket. */
void wr_link_lose(struct wr_link *link)
{
    struct wr_reply *reply = &link->reply;
    enum wr_link_state state = link->state;
    if (state == WR_LINK_OVER) return;
    if (state == WR_LINK_IDLE) {
        struct wr_fault fault;
        explain_loss(link, &fault);
        wr_link_abandon(link);
        link->pg->env->lost(link->owner, &fault);
        return;
    }
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

static void next_step(struct wr_link *link)
{
    link->step_at++;
    link->answered = false;
}

/* False: reported. */
static bool take_result(struct wr_link *link, PGresult *result)
{
    const struct wr_step *step = &link->steps[link->step_at];
    ExecStatusType status = PQresultStatus(result);
    link->answered = true;
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY) {
        step_done(link, step, result);
        return true;
    }
    bool alive = true;
    if (status == PGRES_PIPELINE_ABORTED) {
        step_undone(link, step, NULL);
    } else if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
        PQclear(result);
        return refuse_copy(link);
    } else {
        alive = step_failed(link, step, result);
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
    bool at_sync = link->steps[link->step_at].kind == WR_STEP_SYNC;
    if (result == NULL) {
        if (!link->answered) return out_of_step(link, NULL);
        if (at_sync)
            link->answered = false;
        else
            next_step(link);
        return true;
    }
    bool is_sync = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
    if (is_sync != at_sync && !(at_sync && PQresultStatus(result) == PGRES_FATAL_ERROR)) {
        return out_of_step(link, result);
    }
    if (!is_sync) return take_result(link, result);
    PQclear(result);
    next_step(link);
    return link->step_at < link->step_count || conclude(link);
}

bool wr_link_read(struct wr_link *link)
{
    while ((link->state == WR_LINK_RUNNING || link->state == WR_LINK_HEALING) && !PQisBusy(link->conn)) {
        if (!take(link, PQgetResult(link->conn))) return false;
    }
    return true;
}
