/* The common result has no notices and is the PGresult itself: no memory of ours. One with notices is a small
 * pair. Every index is checked here, because libpq answers a bad one through the notice receiver of a
 * connection that may be long gone. */
#include "pg/pgresult.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

/* ---- over a PGresult ---- */

static size_t plain_rows(const void *handle)
{
    return (size_t)PQntuples(handle);
}

static size_t plain_columns(const void *handle)
{
    return (size_t)PQnfields(handle);
}

static const char *plain_name(const void *handle, size_t column)
{
    return column < plain_columns(handle) ? PQfname(handle, (int)column) : "";
}

static uint32_t plain_type(const void *handle, size_t column)
{
    return column < plain_columns(handle) ? (uint32_t)PQftype(handle, (int)column) : 0;
}

static void plain_values(const void *handle, size_t row, size_t column, size_t count, const char **values,
                         size_t *lengths)
{
    int at = (int)column;
    for (size_t i = 0; i < count; i++, at++) {
        lengths[i] = (size_t)PQgetlength(handle, (int)row, at);
        bool null = lengths[i] == 0 && PQgetisnull(handle, (int)row, at) != 0;
        values[i] = null ? NULL : PQgetvalue(handle, (int)row, at);
    }
}

static const char *plain_tag(const void *handle)
{
    return PQcmdStatus((PGresult *)(uintptr_t)handle); /* reads only, whatever its prototype says */
}

static uint64_t plain_affected(const void *handle)
{
    return strtoull(PQcmdTuples((PGresult *)(uintptr_t)handle), NULL, 10);
}

static size_t plain_notices(const void *handle)
{
    (void)handle;
    return 0;
}

static const char *plain_notice(const void *handle, size_t index)
{
    (void)handle;
    (void)index;
    return "";
}

static void plain_release(void *handle)
{
    PQclear(handle);
}

static const struct wr_result_ops plain_ops = {
    .rows = plain_rows,
    .columns = plain_columns,
    .name = plain_name,
    .type = plain_type,
    .values = plain_values,
    .tag = plain_tag,
    .affected = plain_affected,
    .notices = plain_notices,
    .notice = plain_notice,
    .release = plain_release,
};

/* ---- with notices ---- */

struct pair {
    PGresult *result;
    struct wr_notices *notices;
};

static const void *inner(const void *handle)
{
    return ((const struct pair *)handle)->result;
}

static size_t pair_rows(const void *handle)
{
    return plain_rows(inner(handle));
}

static size_t pair_columns(const void *handle)
{
    return plain_columns(inner(handle));
}

static const char *pair_name(const void *handle, size_t column)
{
    return plain_name(inner(handle), column);
}

static uint32_t pair_type(const void *handle, size_t column)
{
    return plain_type(inner(handle), column);
}

static void pair_values(const void *handle, size_t row, size_t column, size_t count, const char **values,
                        size_t *lengths)
{
    plain_values(inner(handle), row, column, count, values, lengths);
}

static const char *pair_tag(const void *handle)
{
    return plain_tag(inner(handle));
}

static uint64_t pair_affected(const void *handle)
{
    return plain_affected(inner(handle));
}

static size_t pair_notices(const void *handle)
{
    return ((const struct pair *)handle)->notices->count;
}

static const char *pair_notice(const void *handle, size_t index)
{
    const struct wr_notices *notices = ((const struct pair *)handle)->notices;
    return index < notices->count ? notices->text[index] : "";
}

static void pair_release(void *handle)
{
    struct pair *pair = handle;
    const struct wr_memory *memory = pair->notices->memory;
    PQclear(pair->result);
    wr_notices_drop(pair->notices);
    wr_free(memory, pair);
}

static const struct wr_result_ops pair_ops = {
    .rows = pair_rows,
    .columns = pair_columns,
    .name = pair_name,
    .type = pair_type,
    .values = pair_values,
    .tag = pair_tag,
    .affected = pair_affected,
    .notices = pair_notices,
    .notice = pair_notice,
    .release = pair_release,
};

struct weir_result wr_pgresult(PGresult *result)
{
    return (struct weir_result){.ops = &plain_ops, .handle = result};
}

void wr_pgresult_attach(struct weir_result *result, struct wr_notices *notices)
{
    struct pair *pair = result->ops == &plain_ops ? wr_alloc(notices->memory, sizeof *pair) : NULL;
    if (pair == NULL) return;
    pair->result = result->handle;
    pair->notices = notices;
    notices->references++;
    *result = (struct weir_result){.ops = &pair_ops, .handle = pair};
}

/* ---- notices ---- */

struct wr_notices *wr_notices_make(const struct wr_memory *memory)
{
    struct wr_notices *notices = wr_alloc(memory, sizeof *notices);
    if (notices != NULL) {
        notices->memory = memory;
        notices->references = 1;
    }
    return notices;
}

/* The last place tells how many there was no room for. */
void wr_notices_add(struct wr_notices *notices, const PGresult *notice)
{
    char *last = notices->text[WR_NOTICES - 1];
    if (notices->count < WR_NOTICES - 1) {
        const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY);
        const char *message = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
        wr_text_format(notices->text[notices->count++], WR_NOTICE_SIZE, "%s: %s",
                       severity == NULL ? "NOTICE" : severity, message == NULL ? "" : message);
        return;
    }
    notices->count = WR_NOTICES;
    wr_text_format(last, WR_NOTICE_SIZE, "WARNING: %zu more notices were dropped", ++notices->dropped);
}

void wr_notices_drop(struct wr_notices *notices)
{
    if (notices != NULL && --notices->references == 0) wr_free(notices->memory, notices);
}
