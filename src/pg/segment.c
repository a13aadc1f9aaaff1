/* Writing a segment: everything goes into libpq's buffer and leaves with the Sync, in one write if it is
 * small. */
#include "pg/link.h"

#include "base/check.h"
#include "base/sqltext.h"
#include "base/text.h"

#include <inttypes.h>
#include <string.h>

enum { TEXT_KEPT_MAX = 1 << 16 };

/* ---- flights and steps ---- */

/* One place per statement, made before anything is sent, so that no answer can be dropped for want of it. */
static bool open_results(struct wr_link *link, struct wr_flight *flight, size_t count)
{
    if (count > WR_SEGMENT_STATEMENTS) return false;
    if (count <= flight->result_room) return true;
    size_t room = flight->result_room == 0 ? 4 : flight->result_room;
    while (room < count) room *= 2;
    struct weir_result *wider = wr_resize(link->pg->env->memory, flight->results, room * sizeof *wider);
    if (wider == NULL) return false;
    flight->results = wider;
    flight->result_room = room;
    return true;
}

/* Its arrays keep their size from one segment to the next. */
static struct wr_flight *take_flight(struct wr_link *link)
{
    struct wr_list *spare = wr_list_first(&link->spare_flights);
    if (spare != NULL) {
        wr_list_remove(spare);
        return WR_CONTAINER(spare, struct wr_flight, place);
    }
    struct wr_flight *fresh = wr_alloc(link->pg->env->memory, sizeof *fresh);
    if (fresh != NULL) wr_list_init(&fresh->place);
    return fresh;
}

static bool room_for_steps(struct wr_link *link, size_t more)
{
    struct wr_flight *flight = link->writing;
    size_t wanted = flight->step_count + more;
    if (wanted <= flight->step_room) return true;
    size_t room = flight->step_room == 0 ? 16 : flight->step_room;
    while (room < wanted) room *= 2;
    struct wr_step *wider = wr_resize(link->pg->env->memory, flight->steps, room * sizeof *wider);
    if (wider == NULL) return false;
    flight->steps = wider;
    flight->step_room = room;
    return true;
}

static struct wr_step *push_step(struct wr_link *link, enum wr_step_kind kind, struct wr_statement *statement)
{
    struct wr_flight *flight = link->writing;
    WR_CHECK(flight->step_count < flight->step_room);
    struct wr_step *step = &flight->steps[flight->step_count++];
    *step = (struct wr_step){.kind = kind, .statement = statement};
    return step;
}

bool wr_link_send_unnamed(struct wr_link *link, const struct wr_command *command)
{
    if (!room_for_steps(link, 1)) return false;
    push_step(link, command->kind, NULL);
    return PQsendQueryParams(link->conn, command->sql, (int)command->count, command->types, command->values,
                             command->lengths, command->formats, 0) == 1;
}

static bool send_text(struct wr_link *link, enum wr_step_kind kind, const char *sql)
{
    return wr_link_send_unnamed(link, &(struct wr_command){.kind = kind, .sql = sql});
}

/* A name that another flight gives is not relied upon before the server has said so: that flight may fail. */
static bool send_named(struct wr_link *link, const struct wr_command *command, struct wr_statement *statement)
{
    bool unsure = statement->state == WR_STATEMENT_PARSING && statement->parser != link->writing->number;
    if (unsure) return wr_link_send_unnamed(link, command);
    if (!room_for_steps(link, 2)) return false;
    if (statement->state == WR_STATEMENT_NEW) {
        push_step(link, WR_STEP_PREPARE, statement);
        statement->state = WR_STATEMENT_PARSING;
        statement->parser = link->writing->number;
        if (PQsendPrepare(link->conn, statement->name, statement->sql, 0, NULL) != 1) return false;
    }
    push_step(link, command->kind, statement);
    return PQsendQueryPrepared(link->conn, statement->name, (int)command->count, command->values,
                               command->lengths, command->formats, 0) == 1;
}

/* The driver's own texts are worth a name from the first time on. */
bool wr_link_send_fixed(struct wr_link *link, const struct wr_command *command,
                        struct wr_statement **statement)
{
    if (*statement == NULL) *statement = wr_statement_fixed(&link->statements, command->sql);
    return *statement == NULL || link->statements.off ? wr_link_send_unnamed(link, command)
                                                      : send_named(link, command, *statement);
}

static bool send_deallocate(struct wr_link *link, struct wr_statement *statement)
{
    char sql[64];
    wr_text_format(sql, sizeof sql, "DEALLOCATE %s", statement->name);
    if (!send_text(link, WR_STEP_DEALLOCATE, sql)) return false;
    link->writing->steps[link->writing->step_count - 1].statement = statement;
    statement->closing = true;
    return true;
}

/* Writes, as libpq up to 16 does at each Sync. To hold back the writes of shared segments until a turn's end was tried (the
 * socket made to refuse them; TCP_CORK): the server then starts later, and the rate was the same or lower. */
static bool sync_up(struct wr_link *link)
{
    if (!room_for_steps(link, 1)) return false;
    push_step(link, WR_STEP_SYNC, NULL);
    return PQpipelineSync(link->conn) == 1;
}

/* ---- what the server must forget first ---- */

static bool send_housekeeping(struct wr_link *link)
{
    struct wr_statements *all = &link->statements;
    if (all->drop_all && all->dropping != all->edition) {
        all->dropping = all->edition;
        return send_text(link, WR_STEP_DEALLOCATE_ALL, "DEALLOCATE ALL");
    }
    for (struct wr_list *at = all->stale.next; at != &all->stale; at = at->next) {
        struct wr_statement *statement = WR_CONTAINER(at, struct wr_statement, place);
        if (!statement->closing && !send_deallocate(link, statement)) return false;
    }
    return true;
}

/* ---- the caller's statements ---- */

/* The statement with its call's traceparent as a comment, in the form of sqlcommenter: keys in order, values URL-encoded
 * and quoted. There is one key, and a sound value has nothing to encode or to quote. NULL: to be sent as it is. The text
 * lives until the next one is put together. */
static const char *commented(struct wr_link *link, const char *sql, const char *traceparent)
{
    size_t place = 0;
    if (traceparent == NULL || !wr_sql_comment_place(sql, &place)) return NULL;
    wr_buffer_clear(&link->text);
    wr_buffer_add(&link->text, sql, place);
    wr_buffer_printf(&link->text, " /*traceparent='%s'*/", traceparent);
    wr_buffer_add(&link->text, sql + place, strlen(sql + place));
    return link->text.failed ? NULL : link->text.data;
}

/* libpq has copied it. */
static void drop_great_text(struct wr_link *link)
{
    if (link->text.room > TEXT_KEPT_MAX) wr_buffer_release(&link->text);
}

/* One that stands alone gets no name: making room for it would put a DEALLOCATE into its transaction. Neither does one
 * with declared types: the book knows texts only, and the same text with other types is another statement. Nor one with a
 * comment of ours: with its trace's id in it each is a text that never comes again. */
static bool send_statement(struct wr_link *link, const struct wr_segment *segment, size_t index, bool alone)
{
    const weir_statement *given = &segment->statements[index];
    struct wr_statement *evicted = NULL, *named = NULL;
    const char *traced = commented(link, given->sql, segment->traceparent);
    if (!alone && given->types == NULL && traced == NULL)
        named = wr_statements_want(&link->statements, given->sql, link->segment, &evicted);
    struct wr_command command = {.kind = WR_STEP_STATEMENT,
                                 .sql = traced != NULL ? traced : given->sql,
                                 .count = given->count,
                                 .values = given->values,
                                 .lengths = given->lengths,
                                 .formats = given->formats,
                                 .types = given->types};
    if (evicted != NULL && !send_deallocate(link, evicted)) return false;
    if (wr_segment_facts(segment, index).may_dirty) link->writing->reply.dirty = true;
    bool sent = named != NULL ? send_named(link, &command, named) : wr_link_send_unnamed(link, &command);
    drop_great_text(link);
    return sent;
}

static bool send_statements(struct wr_link *link, const struct wr_segment *segment, bool alone)
{
    for (size_t i = 0; i < segment->count; i++) {
        if (!send_statement(link, segment, i, alone)) return false;
    }
    return true;
}

/* A pooler may have gone over to another server since the greeting, and there, or after a crash, the same
 * number is another transaction: no row then, so that nobody asks for it later. */
static const char guarded_xid_sql[] =
    "select pg_catalog.pg_current_xact_id_if_assigned() where $1::int8 = " WR_LIFE_SQL;
static const char guarded_status_sql[] =
    "select pg_catalog.pg_xact_status($1::xid8) where $2::int8 = " WR_LIFE_SQL;

static bool send_xid_question(struct wr_link *link, const struct wr_segment *segment)
{
    static const struct wr_command command = {.kind = WR_STEP_XID,
                                              .sql = "select pg_catalog.pg_current_xact_id_if_assigned()"};
    const char *values[] = {link->life};
    const struct wr_command guarded = {.kind = WR_STEP_XID,
                                       .count = 1,
                                       .values = values,
                                       .sql = guarded_xid_sql};
    if (!segment->want_xid) return true;
    return link->pooler ? wr_link_send_unnamed(link, &guarded)
                        : wr_link_send_fixed(link, &command, &link->xid_question);
}

/* ---- the kinds of segment ---- */

/* Nothing of this segment's is on its way in the transaction that comes next. */
static bool begins_anew(const struct wr_flight *flight)
{
    return flight->step_count == 0 || flight->steps[flight->step_count - 1].kind == WR_STEP_SYNC;
}

/* What goes ahead of a statement that stands alone (VACUUM) must not share its transaction, so it gets a Sync
 * of its own; its failure is then not the caller's either. */
static bool sync_ahead(struct wr_link *link)
{
    struct wr_flight *flight = link->writing;
    if (begins_anew(flight)) return true;
    for (size_t i = 0; i < flight->step_count; i++) flight->steps[i].lenient = true;
    return sync_up(link);
}

/* For one that writes after those that may not. In a transaction of its own: it takes effect in the next. */
static bool end_readonly(struct wr_link *link)
{
    if (!link->made_readonly || !wr_preamble_readonly(link, "on")) return true;
    return send_text(link, WR_STEP_PLAIN, "RESET default_transaction_read_only") && sync_ahead(link);
}

/* CREATE DATABASE as the first of several would commit by itself, whatever becomes of the others. With anything ahead of
 * it the server refuses it (25001). */
static bool make_one_transaction(struct wr_link *link, const struct wr_segment *segment)
{
    bool bare = begins_anew(link->writing) && segment->count > 1;
    return !bare || !wr_segment_facts(segment, 0).stands_alone || send_text(link, WR_STEP_PLAIN, "select 1");
}

static bool write_single(struct wr_link *link, const struct wr_segment *segment)
{
    bool own = wr_preamble_identity(segment) == 0;
    bool alone = own && segment->count == 1 && wr_segment_facts(segment, 0).stands_alone;
    /* Behind a pooler nothing can be set for it: not for the session, and it is in no transaction of ours. */
    if (alone && link->pooler) return send_statements(link, segment, true);
    return (segment->readonly || end_readonly(link)) && send_housekeeping(link) &&
           wr_preamble_single(link, segment) && (!alone || sync_ahead(link)) &&
           (alone || make_one_transaction(link, segment)) && send_statements(link, segment, alone);
}

static const char *begin_text(char *to, size_t size, const struct wr_segment *segment)
{
    wr_text_format(to, size, "BEGIN%s%s%s", segment->isolation != NULL ? " ISOLATION LEVEL " : "",
                   segment->isolation != NULL ? segment->isolation : "",
                   segment->readonly ? " READ ONLY" : "");
    return to;
}

static bool write_begin(struct wr_link *link, const struct wr_segment *segment)
{
    char begin[64];
    return (segment->readonly || end_readonly(link)) &&
           send_text(link, WR_STEP_PLAIN, begin_text(begin, sizeof begin, segment)) &&
           send_housekeeping(link) &&
           wr_preamble_local(link, segment) && /* or it would close the preamble too */
           send_statements(link, segment, false) && send_xid_question(link, segment);
}

/* In a failed transaction only ROLLBACK TO can do anything: whatever we added ahead of it would fail
 * first. */
static bool write_more(struct wr_link *link, const struct wr_segment *segment)
{
    bool failed = PQtransactionStatus(link->conn) == PQTRANS_INERROR;
    return (failed || (send_housekeeping(link) && wr_preamble_more(link, segment))) &&
           send_statements(link, segment, failed) && send_xid_question(link, segment);
}

/* A failed transaction can only be rolled back, and asking for COMMIT would be answered by just that. */
static bool write_commit(struct wr_link *link, const struct wr_segment *segment)
{
    (void)segment;
    bool open = PQtransactionStatus(link->conn) == PQTRANS_INTRANS;
    return send_text(link, WR_STEP_COMMIT, open ? "COMMIT" : "ROLLBACK");
}

static bool write_rollback(struct wr_link *link, const struct wr_segment *segment)
{
    (void)segment;
    return send_text(link, WR_STEP_PLAIN, "ROLLBACK");
}

static bool write_probe(struct wr_link *link, const struct wr_segment *segment)
{
    static const struct wr_command command = {.kind = WR_STEP_PLAIN, .sql = "select 1"};
    (void)segment;
    return wr_link_send_fixed(link, &command, &link->probe);
}

/* DISCARD ALL, except that it would cost every prepared statement. Those of the SQL command PREPARE can only
 * go together with ours. */
static bool write_reset(struct wr_link *link, const struct wr_segment *segment)
{
    static const char *const parts[] = {"CLOSE ALL",    "SET SESSION AUTHORIZATION DEFAULT",
                                        "RESET ROLE",   "RESET ALL",
                                        "UNLISTEN *",   "select pg_catalog.pg_advisory_unlock_all()",
                                        "DISCARD TEMP", "DISCARD SEQUENCES"};
    (void)segment;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!send_text(link, WR_STEP_PLAIN, parts[i])) return false;
    }
    if (link->user_prepared) wr_link_forget_statements(link);
    link->wanted = link->baseline;
    return send_housekeeping(link) &&
           (link->settings.count == 0 || link->pooler ||
            wr_preamble_send(link, segment, WR_SHAPE_SESSION, &link->baseline, &link->settings));
}

static bool write_xact_status(struct wr_link *link, const struct wr_segment *segment)
{
    char text[24];
    const char *values[] = {text, link->life};
    wr_text_format(text, sizeof text, "%" PRIu64, segment->xid);
    return wr_link_send_unnamed(
        link, &(struct wr_command){.kind = WR_STEP_XACT,
                                   .count = link->pooler ? 2 : 1,
                                   .values = values,
                                   .sql = link->pooler ? guarded_status_sql
                                                       : "select pg_catalog.pg_xact_status($1::xid8)"});
}

/* ---- sending ---- */

/* Which transaction status each kind starts from: a letter of "ITE" that is not there is a segment in the
 * wrong place, and a link about which we and the server disagree is of no more use. */
static const struct {
    bool (*write)(struct wr_link *link, const struct wr_segment *segment);
    const char *from;
} kinds[] = {
    [WR_SEGMENT_SINGLE] = {write_single, "I"},      [WR_SEGMENT_BEGIN] = {write_begin, "I"},
    [WR_SEGMENT_MORE] = {write_more, "TE"},         [WR_SEGMENT_COMMIT] = {write_commit, "TE"},
    [WR_SEGMENT_ROLLBACK] = {write_rollback, "TE"}, [WR_SEGMENT_PROBE] = {write_probe, "I"},
    [WR_SEGMENT_RESET] = {write_reset, "I"},        [WR_SEGMENT_XACT_STATUS] = {write_xact_status, "I"},
};

char wr_link_transaction(const struct wr_link *link)
{
    switch (PQtransactionStatus(link->conn)) {
    case PQTRANS_IDLE:
        return 'I';
    case PQTRANS_INTRANS:
        return 'T';
    case PQTRANS_INERROR:
        return 'E';
    default:
        return '\0';
    }
}

static bool is_isolation(const char *text)
{
    return text == NULL || strcmp(text, "read committed") == 0 || strcmp(text, "repeatable read") == 0 ||
           strcmp(text, "serializable") == 0;
}

/* In an implicit transaction a procedure may commit, and what follows in it runs as the login: role and
 * claims ended with the transaction. In a unit the same COMMIT is an error (2D000). The engine refuses it
 * first, with more grace. */
static bool could_escape(const struct wr_segment *segment)
{
    if (segment->kind != WR_SEGMENT_SINGLE || segment->role == NULL) return false;
    for (size_t i = 0; i < segment->count; i++) {
        if (wr_segment_facts(segment, i).kind == WR_SQL_CALL) return true;
    }
    return false;
}

/* What is not yet sent waits in libpq's memory, without a bound: the next one waits for the socket. Nor does a cancel
 * under way tell whom it will hit. What libpq took in while it wrote is looked at first: where the server has hung up,
 * another write would make libpq drop it, and with it answers to calls that ended well. */
bool wr_link_has_room(const struct wr_link *link)
{
    if (link->state == WR_LINK_IDLE) return true;
    return link->state == WR_LINK_RUNNING && link->writing->shared && !link->canceling &&
           (link->watched & WEIR_WRITE) == 0 && wr_list_empty(&link->doomed) &&
           wr_list_empty(&link->unread) && !link->catching_up;
}

/* Where the segment would find itself. Behind others the state of the transaction is not known, nor need it be: none of
 * them can have left one open. */
static const char *bad_place(const struct wr_link *link, const struct wr_segment *segment)
{
    bool behind_others = segment->shared && link->state == WR_LINK_RUNNING && link->writing->shared;
    if (behind_others) return NULL;
    char transaction = wr_link_transaction(link);
    if (link->state != WR_LINK_IDLE) return "the connection is not idle";
    if (transaction == '\0' || strchr(kinds[segment->kind].from, transaction) == NULL) {
        return transaction == 'I' ? "no transaction is open on this connection"
                                  : "the connection is not in the transaction state this needs";
    }
    return NULL;
}

/* Only what sets nothing beyond its own transaction. */
static bool may_share(const struct wr_segment *segment)
{
    return segment->kind == WR_SEGMENT_SINGLE && segment->readonly && segment->count > 0;
}

/* Identity fails closed: an ANON link never runs a caller's statement as its login. */
static const char *objection(const struct wr_link *link, const struct wr_segment *segment)
{
    bool first = segment->kind == WR_SEGMENT_SINGLE || segment->kind == WR_SEGMENT_BEGIN;
    const char *misplaced = bad_place(link, segment);
    if (misplaced != NULL) return misplaced;
    if (segment->shared && !may_share(segment))
        return "only a read-only single segment can share a connection";
    if (!is_isolation(segment->isolation)) return "the isolation level is not one of PostgreSQL's";
    if (first && link->target->kind == WEIR_ANON && (segment->role == NULL || segment->claims == NULL)) {
        return "an ANON connection needs role and claims";
    }
    if (could_escape(segment)) return "CALL and DO could leave the role by committing: run them in a unit";
    return NULL;
}

static bool start_segment(struct wr_link *link, const struct wr_segment *segment)
{
    struct wr_flight *flight = take_flight(link);
    if (flight == NULL) return false;
    flight->number = ++link->segment;
    flight->kind = segment->kind;
    flight->shared = segment->shared;
    flight->edition = link->statements.edition;
    flight->step_count = flight->step_at = 0;
    flight->answered = flight->stale = flight->stale_all = flight->called = flight->settles = false;
    flight->reply = (struct wr_reply){.count = 0};
    flight->notices = NULL;
    wr_list_append(&link->flights, &flight->place);
    link->writing = flight;
    link->cancel_tries = 0;
    link->wanted = link->session;
    return open_results(link, flight, segment->count);
}

int wr_link_send(struct wr_link *link, const struct wr_segment *segment, struct wr_fault *fault)
{
    const char *why = objection(link, segment);
    if (why != NULL) {
        wr_pgfault_say(fault, "%s", why);
    } else if (start_segment(link, segment) && kinds[segment->kind].write(link, segment)) {
        link->state = WR_LINK_RUNNING;
        /* From here on the server may have it all, whatever becomes of the call: no failure is "not sent" any
         * more. */
        if (!sync_up(link) || !wr_link_push(link)) wr_link_doom(link);
        return WEIR_OK;
    } else {
        struct wr_secrets secrets = wr_link_secrets(link);
        wr_pgfault_from_conn(fault, link->conn, &secrets);
        if (*PQerrorMessage(link->conn) == '\0') wr_pgfault_say(fault, "out of memory");
    }
    fault->lost = true;
    wr_link_abandon(link);
    return WEIR_ESYS;
}

bool wr_link_send_rollback(struct wr_link *link)
{
    struct wr_flight *flight = link->writing;
    flight->step_count = flight->step_at = 0;
    flight->answered = false;
    return send_text(link, WR_STEP_PLAIN, "ROLLBACK") && sync_up(link) && wr_link_push(link);
}
