/* What goes ahead of a segment's statements: role, claims, timeout, name and read-only, as one select of set_configs. */
#include "pg/link.h"

#include "base/text.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

enum { PREAMBLE_VALUES = 4 };

/* What the server would make of it, so that the book compares like with like and no byte can be invalid
 * UTF-8. */
static void clean_application(char *to, const char *from)
{
    size_t length = 0;
    for (; from[length] != '\0' && length < WR_APPLICATION - 1; length++) {
        to[length] = from[length] >= ' ' && from[length] <= '~' ? from[length] : '?';
    }
    to[length] = '\0';
}

/* The server's or role's own statement_timeout is a limit somebody set on purpose: ours only ever lowers
 * it. */
static uint64_t wanted_timeout(const struct wr_link *link, uint64_t timeout_ms)
{
    if (timeout_ms > INT_MAX) timeout_ms = INT_MAX;
    return link->timeout_cap_ms > 0 && timeout_ms > link->timeout_cap_ms ? link->timeout_cap_ms : timeout_ms;
}

/* `context` is what is in force; it becomes what the segment wants, and the answer tells which parts must be
 * sent. A timeout up to a quarter too long is left alone: the remaining time of a deadline is never twice the
 * same. */
static unsigned change_context(const struct wr_link *link, struct wr_context *context,
                               const struct wr_segment *segment)
{
    unsigned shape = 0;
    uint64_t wanted_ms = wanted_timeout(link, segment->timeout_ms);
    bool near = context->timeout_ms >= wanted_ms && context->timeout_ms * 4 <= wanted_ms * 5;
    if (segment->timeout_ms > 0 && !near) {
        context->timeout_ms = wanted_ms;
        shape |= WR_SHAPE_TIMEOUT;
    }
    if (segment->application != NULL) {
        char name[WR_APPLICATION];
        clean_application(name, segment->application);
        if (!context->named || strcmp(context->application, name) != 0) shape |= WR_SHAPE_APPLICATION;
        context->named = true;
        memcpy(context->application, name, sizeof name);
    }
    return shape;
}

/* The values of the shape, then the extra settings. `is null` keeps the claims from travelling back. */
static void write_preamble(struct wr_buffer *sql, unsigned shape, const struct wr_settings *extra)
{
    static const char *const names[PREAMBLE_VALUES] = {"role", "request.jwt.claims", "statement_timeout",
                                                       "application_name"};
    const char *local = (shape & WR_SHAPE_SESSION) != 0 ? "false" : "true";
    const char *joint = "select";
    size_t count = 0;
    wr_buffer_clear(sql);
    for (unsigned i = 0; i < PREAMBLE_VALUES; i++, joint = count == 0 ? "select" : ",") {
        if ((shape & (1u << i)) == 0) continue;
        wr_buffer_printf(sql, "%s pg_catalog.set_config('%s', $%zu, %s) is null", joint, names[i], ++count,
                         local);
    }
    if ((shape & WR_SHAPE_READONLY) != 0) {
        wr_buffer_printf(sql, "%s pg_catalog.set_config('transaction_read_only', 'on', true) is null", joint);
        joint = ",";
    }
    if ((shape & WR_SHAPE_READONLY_ON) != 0) {
        wr_buffer_printf(sql,
                         "%s pg_catalog.set_config('default_transaction_read_only', 'on', false) is null",
                         joint);
        joint = ",";
    }
    for (size_t i = 0; i < (extra == NULL ? 0 : extra->count); i++, joint = ",") {
        wr_buffer_printf(sql, "%s pg_catalog.set_config($%zu, $%zu, %s) is null", joint, count + 1, count + 2,
                         local);
        count += 2;
    }
}

static size_t add_settings(const char **values, size_t count, const struct wr_settings *settings)
{
    const char *at = settings->text;
    for (size_t i = 0; i < settings->count * 2; i++) {
        values[count++] = at;
        at += strlen(at) + 1;
    }
    return count;
}

bool wr_preamble_send(struct wr_link *link, const struct wr_segment *segment, unsigned shape,
                      const struct wr_context *context, const struct wr_settings *extra)
{
    char timeout[24];
    const char *values[PREAMBLE_VALUES + 2 * WR_SETTINGS_MAX];
    struct wr_command command = {.kind = WR_STEP_PREAMBLE, .values = values};
    wr_text_format(timeout, sizeof timeout, "%" PRIu64, context->timeout_ms);
    if ((shape & WR_SHAPE_ROLE) != 0) values[command.count++] = segment->role;
    if ((shape & WR_SHAPE_CLAIMS) != 0) values[command.count++] = segment->claims;
    if ((shape & WR_SHAPE_TIMEOUT) != 0) values[command.count++] = timeout;
    if ((shape & WR_SHAPE_APPLICATION) != 0) values[command.count++] = context->application;
    if (extra != NULL) command.count = add_settings(values, command.count, extra);
    struct wr_statement **known = &link->preambles[shape];
    if (extra != NULL || *known == NULL) {
        write_preamble(&link->text, shape, extra);
        if (link->text.failed) return false;
    }
    command.sql = extra != NULL || *known == NULL ? link->text.data : (*known)->sql;
    return extra != NULL ? wr_link_send_unnamed(link, &command) : wr_link_send_fixed(link, &command, known);
}

/* What must hold for this transaction alone. A unit's BEGIN says READ ONLY by itself. */
unsigned wr_preamble_identity(const struct wr_segment *segment)
{
    bool readonly = segment->kind == WR_SEGMENT_SINGLE && segment->readonly;
    return (segment->role != NULL ? WR_SHAPE_ROLE : 0u) | (segment->claims != NULL ? WR_SHAPE_CLAIMS : 0u) |
           (readonly ? WR_SHAPE_READONLY : 0u);
}

/* Role, claims, and whatever else must not outlive the transaction. Behind a pooler nothing is known of the
 * session, and what a session of our own would have been given once is given to each transaction. */
bool wr_preamble_local(struct wr_link *link, const struct wr_segment *segment)
{
    static const struct wr_context nothing;
    const struct wr_settings *extra = link->pooler && link->settings.count > 0 ? &link->settings : NULL;
    link->local = link->pooler ? nothing : link->session;
    unsigned shape = change_context(link, &link->local, segment) | wr_preamble_identity(segment);
    return (shape == 0 && extra == NULL) || wr_preamble_send(link, segment, shape, &link->local, extra);
}

/* Inside an open transaction only the time left changes. */
bool wr_preamble_more(struct wr_link *link, const struct wr_segment *segment)
{
    unsigned shape = change_context(link, &link->local, segment);
    return shape == 0 || wr_preamble_send(link, segment, shape, &link->local, NULL);
}

/* Without role and claims the two settings are the session's, so calls of one kind pay for them once. They
 * take part in the segment's transaction: if that fails, the book forgets them. */
static bool send_session_preamble(struct wr_link *link, const struct wr_segment *segment)
{
    unsigned shape = change_context(link, &link->wanted, segment);
    return shape == 0 || wr_preamble_send(link, segment, shape | WR_SHAPE_SESSION, &link->wanted, NULL);
}

/* ---- what shared segments share ---- */

/* Of 14 and later the server says so, before it says that it is ready. */
bool wr_preamble_readonly(const struct wr_link *link, const char *value)
{
    const char *reported = PQparameterStatus(link->conn, "default_transaction_read_only");
    return reported != NULL && strcmp(reported, value) == 0;
}

/* Shared segments come in crowds, all of them read-only, and most alike: one that is alone on the connection leaves
 * read-only, timeout and name in the session. Those sent before its end is known say all for themselves. So does one
 * of several statements that it is read-only: only a query ahead of them keeps the first from being SET TRANSACTION. */
static bool send_shared_preamble(struct wr_link *link, const struct wr_segment *segment)
{
    static const struct wr_context nothing;
    bool alone = wr_link_oldest(link) == link->writing, told = wr_preamble_readonly(link, "on");
    unsigned shape = !told || segment->count > 1 ? WR_SHAPE_READONLY : 0u;
    struct wr_context *context = alone ? &link->wanted : &link->local;
    *context = link->session;
    shape |= change_context(link, context, segment);
    if (alone && wr_preamble_readonly(link, "off")) {
        shape |= WR_SHAPE_READONLY_ON;
        link->made_readonly = true;
    }
    if (alone && shape != 0) {
        shape |= WR_SHAPE_SESSION;
        link->writing->settles = true;
        link->session = nothing;
    }
    return shape == 0 || wr_preamble_send(link, segment, shape, context, NULL);
}

bool wr_preamble_single(struct wr_link *link, const struct wr_segment *segment)
{
    unsigned identity = wr_preamble_identity(segment);
    if (link->pooler) return wr_preamble_local(link, segment);
    if (identity == 0) return send_session_preamble(link, segment);
    bool alike = segment->shared && identity == WR_SHAPE_READONLY;
    return alike ? send_shared_preamble(link, segment) : wr_preamble_local(link, segment);
}
