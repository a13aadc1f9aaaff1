/* What a caller asks for, checked and then copied into the call. A call's memory is made once and used again: two arenas
 * that keep their size, so calls of a size seen before allocate nothing. */
#include "engine/call.h"

#include "base/traceparent.h"
#include "engine/policy.h"

#include <string.h>

enum {
    CALL_TIMERS = 3,
    SPARE_CALLS_MAX = 4096,
    ARENA_AT_FIRST = 512,
    ARENA_KEPT_MAX = 1 << 16,
    RESULTS_KEPT_MAX = 64
};

/* ---- checks ------------------------------------------------------------------------------------------ */

int wr_call_check_request(struct weir_engine *engine, const weir_request *r, char *why)
{
    if (!wr_engine_is_ours(engine)) {
        wr_text_format(why, WEIR_WHY_MAX,
                       "the engine was opened before a fork: a child opens one of its own");
        return WEIR_ESTATE;
    }
    const weir_options *o = &engine->config.options;
    size_t client = 0;
    while (client < o->client_count && (r->client == NULL || strcmp(o->clients[client].name, r->client) != 0))
        client++;
    if (client == o->client_count) {
        wr_text_format(why, WEIR_WHY_MAX, "there is no client '%.60s'", r->client == NULL ? "" : r->client);
    } else if (r->context == NULL || r->context[0] == '\0') {
        wr_text_format(why, WEIR_WHY_MAX, "context is missing: every call says what it is for");
    } else if (strlen(r->context) > WR_CONTEXT_MAX) {
        wr_text_format(why, WEIR_WHY_MAX, "context is %zu bytes: at most %d", strlen(r->context),
                       WR_CONTEXT_MAX);
    } else if (o->clients[client].kind == WEIR_ANON && (r->claims == NULL || r->claims[0] == '\0')) {
        wr_text_format(why, WEIR_WHY_MAX, "claims are missing: client '%s' is ANON and acts for somebody",
                       r->client);
    } else if (r->claims != NULL && strlen(r->claims) > WR_CLAIMS_MAX) {
        wr_text_format(why, WEIR_WHY_MAX, "claims are %zu bytes: at most %d", strlen(r->claims),
                       WR_CLAIMS_MAX);
    } else if (r->backend != NULL && wr_policy_find_backend(engine, r->backend) == o->backend_count) {
        wr_text_format(why, WEIR_WHY_MAX, "there is no backend '%.60s'", r->backend);
    } else if (r->isolation != NULL && strcmp(r->isolation, "read committed") != 0 &&
               strcmp(r->isolation, "repeatable read") != 0 && strcmp(r->isolation, "serializable") != 0) {
        wr_text_format(why, WEIR_WHY_MAX,
                       "isolation is '%.40s': read committed, repeatable read or serializable", r->isolation);
    } else {
        return WEIR_OK;
    }
    return WEIR_EINVAL;
}

static bool lacks_lengths(const weir_statement *statement)
{
    if (statement->formats == NULL || statement->lengths != NULL) return false;
    for (size_t i = 0; i < statement->count; i++) {
        if (statement->formats[i] != 0 && statement->values[i] != NULL) return true;
    }
    return false;
}

int wr_call_check_statements(struct weir_engine *engine, const weir_statement *statements, size_t count,
                             bool alone, char *why)
{
    if (count == 0 || count > WR_SEGMENT_STATEMENTS) {
        wr_text_format(why, WEIR_WHY_MAX, "%zu statements: 1 to %d", count, WR_SEGMENT_STATEMENTS);
        return WEIR_EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        enum wr_sql_kind kind = WR_SQL_EMPTY;
        if (statements[i].sql != NULL) kind = wr_sql_recall(&engine->texts, statements[i].sql).kind;
        const char *problem = NULL;
        if (kind == WR_SQL_TRANSACTION) problem = "begins or ends a transaction: that is Weir's to do";
        if (kind == WR_SQL_COPY) problem = "is a COPY, which does not work in a pipeline";
        if (kind == WR_SQL_CALL && alone)
            problem = "may commit inside and so escape the role: run it in a transaction";
        if (kind == WR_SQL_EMPTY) problem = "is empty";
        if (kind == WR_SQL_SAVEPOINT && alone) problem = "needs a transaction";
        if (problem == NULL && statements[i].count > 65535) problem = "has more than 65535 parameters";
        if (problem == NULL && lacks_lengths(&statements[i])) problem = "has a binary value without lengths";
        if (problem == NULL) continue;
        wr_text_format(why, WEIR_WHY_MAX, "statement %zu %s: %.60s", i + 1, problem,
                       statements[i].sql == NULL ? "" : statements[i].sql);
        return WEIR_EINVAL;
    }
    return WEIR_OK;
}

/* ---- memory ------------------------------------------------------------------------------------------ */

static void reset_for_use(struct weir_call *call, struct weir_engine *engine)
{
    call->engine = engine;
    call->memory = engine->memory;
    call->pool = NULL;
    call->conn = NULL;
    call->state = WR_CALL_NEW;
    call->status = WEIR_WAITING;
    call->unit = call->readonly = call->idempotent = call->abandoned = call->failed = call->permit_held =
        false;
    call->dirty = call->rides = call->shown = false;
    call->attempt = 0;
    call->past = WEIR_OUTCOME_NONE;
    call->result_count = 0;
    call->statement_count = 0;
    call->statements = NULL;
    call->facts = NULL;
    call->resolve_step = 0;
    call->error.code = WEIR_CALL_OK;
    call->error.outcome = WEIR_OUTCOME_NONE;
    call->error.class_ = WEIR_CLASS_NONE;
    call->error.phase = WEIR_PHASE_NOT_SENT;
    call->error.position = 0;
    call->error.retry_after_ns = 0;
    call->error.sqlstate[0] = call->error.severity[0] = call->error.message[0] = call->error.detail[0] = '\0';
    call->error.hint[0] = call->error.evidence[0] = call->error.context[0] = call->error.pool[0] = '\0';
}

static struct weir_call *make(struct weir_engine *engine)
{
    if (wr_engine_reserve_timers(engine, CALL_TIMERS) != WEIR_OK) return NULL;
    struct weir_call *call = wr_alloc(&engine->memory, sizeof *call);
    if (call == NULL) return NULL;
    wr_list_init(&call->place);
    wr_list_init(&call->notice);
    call->deadline_timer.fire = wr_call_deadline_fired;
    call->wake.fire = wr_call_wake_fired;
    call->leak_timer.fire = wr_call_leak_fired;
    return call;
}

struct weir_call *wr_call_new(struct weir_engine *engine)
{
    struct wr_list *spare = wr_list_first(&engine->spare_calls);
    struct weir_call *call;
    if (spare != NULL) {
        wr_list_remove(spare);
        engine->spare_count--;
        call = WR_CONTAINER(spare, struct weir_call, place);
    } else {
        call = make(engine);
        if (call == NULL) return NULL;
    }
    reset_for_use(call, engine);
    call->record.id = (uint64_t)wr_area_worker(engine->area) << 40 | ++engine->call_sequence;
    engine->call_count++;
    engine->in_flight++;
    wr_list_append(&engine->calls[WR_CALL_NEW], &call->place);
    return call;
}

static bool arena_reserve(struct weir_call *call, struct wr_arena *arena, size_t size)
{
    if (size <= arena->room) return true;
    size_t room = arena->room == 0 ? ARENA_AT_FIRST : arena->room;
    while (room < size) room *= 2;
    wr_free(&call->memory, arena->data); /* nothing of the old contents is wanted */
    arena->data = wr_alloc(&call->memory, room);
    arena->room = arena->data == NULL ? 0 : room;
    return arena->data != NULL;
}

static char *put(char **cursor, const char *text, size_t length)
{
    char *place = memcpy(*cursor, text, length);
    *cursor += length;
    return place;
}

static size_t text_size(const char *text)
{
    return text == NULL ? 0 : strlen(text) + 1;
}

static const char *put_text(char **cursor, const char *text)
{
    return text == NULL ? NULL : put(cursor, text, strlen(text) + 1);
}

static int no_memory(char *why)
{
    wr_text_format(why, WEIR_WHY_MAX, "out of memory keeping the request");
    return WEIR_ENOMEM;
}

int wr_call_keep_request(struct weir_call *call, const weir_request *r, char *why)
{
    struct weir_engine *engine = call->engine;
    size_t size = text_size(r->context) + text_size(r->claims) + text_size(r->backend) +
                  text_size(r->isolation) + text_size(r->traceparent);
    if (!arena_reserve(call, &call->head, size)) return no_memory(why);
    call->request_size = size;
    char *cursor = call->head.data;
    call->context = put_text(&cursor, r->context);
    call->claims = put_text(&cursor, r->claims);
    call->backend = put_text(&cursor, r->backend);
    call->isolation = put_text(&cursor, r->isolation);
    call->traceparent = put_text(&cursor, r->traceparent);
    call->traced = wr_traceparent_sound(call->traceparent);
    const weir_options *o = &engine->config.options;
    call->client_index = 0;
    while (strcmp(o->clients[call->client_index].name, r->client) != 0) call->client_index++;
    call->client = o->clients[call->client_index].name;
    call->readonly = r->readonly;
    call->by_hand = r->by_hand;
    call->idempotent = r->idempotent;
    call->notify = r->notify;
    call->user = r->user;
    call->started = engine->now;
    call->deadline = wr_after(engine->now, r->timeout_ns != 0 ? r->timeout_ns : o->timeout_ns);
    return WEIR_OK;
}

static size_t value_length(const weir_statement *s, size_t i)
{
    bool binary = s->formats != NULL && s->formats[i] != 0;
    return binary ? (size_t)s->lengths[i] : strlen(s->values[i]) + 1;
}

static size_t statements_size(const weir_statement *statements, size_t count)
{
    size_t size = count * (sizeof *statements + sizeof(struct wr_sql_facts));
    for (size_t i = 0; i < count; i++) {
        const weir_statement *s = &statements[i];
        size += s->count * (sizeof(char *) + 2 * sizeof(int) + sizeof(uint32_t)) + strlen(s->sql) + 1;
        for (size_t v = 0; v < s->count; v++) size += s->values[v] == NULL ? 0 : value_length(s, v);
    }
    return size;
}

/* Arrays first, text after: everything stays aligned. */
static void copy_arrays(weir_statement *to, const weir_statement *from, size_t count, char **cursor)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = from[i];
        to[i].values = (const char *const *)(void *)*cursor;
        *cursor += from[i].count * sizeof(char *);
    }
    for (size_t i = 0; i < count; i++) {
        if (from[i].lengths != NULL)
            to[i].lengths =
                (const int *)(void *)put(cursor, (const char *)from[i].lengths, from[i].count * sizeof(int));
        if (from[i].formats != NULL)
            to[i].formats =
                (const int *)(void *)put(cursor, (const char *)from[i].formats, from[i].count * sizeof(int));
        if (from[i].types != NULL)
            to[i].types = (const uint32_t *)(void *)put(cursor, (const char *)from[i].types,
                                                        from[i].count * sizeof(uint32_t));
    }
}

static void copy_text(weir_statement *to, const weir_statement *from, size_t count, char **cursor)
{
    for (size_t i = 0; i < count; i++) {
        to[i].sql = put_text(cursor, from[i].sql);
        char **values = (char **)(void *)(size_t)to[i].values; /* ours, not yet const */
        for (size_t v = 0; v < from[i].count; v++) {
            values[v] =
                from[i].values[v] == NULL ? NULL : put(cursor, from[i].values[v], value_length(&from[i], v));
        }
    }
}

int wr_call_keep_statements(struct weir_call *call, const weir_statement *statements, size_t count, char *why)
{
    size_t size = statements_size(statements, count);
    if (!arena_reserve(call, &call->body, size)) return no_memory(why);
    call->request_size += size;
    weir_statement *kept = (weir_statement *)(void *)call->body.data;
    struct wr_sql_facts *facts = (struct wr_sql_facts *)(void *)(kept + count);
    char *cursor = (char *)(facts + count);
    copy_arrays(kept, statements, count, &cursor);
    copy_text(kept, statements, count, &cursor);
    for (size_t i = 0; i < count; i++) facts[i] = wr_sql_recall(&call->engine->texts, kept[i].sql);
    call->statements = kept;
    call->facts = facts;
    call->statement_count = count;
    return WEIR_OK;
}

static void shrink(struct weir_call *call, struct wr_arena *arena)
{
    if (arena->room <= ARENA_KEPT_MAX) return;
    wr_free(&call->memory, arena->data);
    *arena = (struct wr_arena){NULL, 0};
}

/* Claims and parameters do not outlive the call in our memory by accident, but they are not wiped either: only
 * passwords are. One great call must not make every spare one great, so outsized arenas go back. */
void wr_call_recycle(struct weir_call *call)
{
    struct weir_engine *engine = call->engine;
    wr_call_drop_results(call);
    wr_list_remove(&call->place);
    wr_list_remove(&call->notice);
    engine->call_count--;
    shrink(call, &call->head);
    shrink(call, &call->body);
    if (call->result_room > RESULTS_KEPT_MAX) {
        wr_free(&call->memory, call->results);
        call->results = NULL;
        call->result_room = 0;
    }
    if (engine->spare_count >= SPARE_CALLS_MAX) {
        engine->timers_made -= CALL_TIMERS;
        wr_call_destroy(call);
        return;
    }
    engine->spare_count++;
    wr_list_prepend(&engine->spare_calls, &call->place);
}

void wr_call_destroy(struct weir_call *call)
{
    struct wr_memory memory = call->memory;
    wr_call_drop_results(call);
    wr_free(&memory, call->head.data);
    wr_free(&memory, call->body.data);
    wr_free(&memory, call->results);
    wr_free(&memory, call);
}
