/* Results: rows that a rule was given, shared by all that show them, and the usual answers. */
#include "sim/simresult.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

static size_t rows_of(const void *handle)
{
    return ((const struct wr_sim_rows *)handle)->rows;
}

static size_t columns_of(const void *handle)
{
    return ((const struct wr_sim_rows *)handle)->columns;
}

static const char *name_of(const void *handle, size_t column)
{
    const struct wr_sim_rows *rows = handle;
    if (column >= rows->columns) return "";
    return rows->names == NULL ? "?column?" : rows->names[column];
}

static uint32_t type_of(const void *handle, size_t column)
{
    const struct wr_sim_rows *rows = handle;
    if (column >= rows->columns) return 0;
    return rows->types == NULL ? 23 : rows->types[column];
}

static void values_of(const void *handle, size_t row, size_t column, size_t count, const char **values,
                      size_t *lengths)
{
    const struct wr_sim_rows *rows = handle;
    for (size_t i = 0; i < count; i++) {
        values[i] = rows->values == NULL ? "1" : rows->values[row * rows->columns + column + i];
        lengths[i] = values[i] == NULL ? 0 : strlen(values[i]);
    }
}

static const char *tag_of(const void *handle)
{
    return ((const struct wr_sim_rows *)handle)->tag;
}

static uint64_t affected_of(const void *handle)
{
    return ((const struct wr_sim_rows *)handle)->affected;
}

static size_t no_notices(const void *handle)
{
    (void)handle;
    return 0;
}

static const char *no_notice(const void *handle, size_t index)
{
    (void)handle;
    (void)index;
    return "";
}

void wr_sim_texts_free(char **texts, size_t count)
{
    for (size_t i = 0; texts != NULL && i < count; i++) free(texts[i]);
    free(texts);
}

void wr_sim_rows_drop(void *handle)
{
    struct wr_sim_rows *rows = handle;
    if (rows->references == 0 || --rows->references > 0) return; /* 0: one of the usual ones */
    if (rows->of != NULL) {
        wr_sim_rows_drop(rows->of);
    } else {
        wr_sim_texts_free(rows->names, rows->columns);
        wr_sim_texts_free(rows->values, rows->columns * rows->rows);
        free(rows->types);
    }
    free(rows);
}

static const struct wr_result_ops result_ops = {rows_of,   columns_of,      name_of,     type_of,
                                                values_of, tag_of,          affected_of, no_notices,
                                                no_notice, wr_sim_rows_drop};

char **wr_sim_texts_copy(const char *const *texts, size_t count)
{
    char **copies = calloc(count + 1, sizeof *copies);
    for (size_t i = 0; copies != NULL && i < count; i++) {
        if (texts[i] == NULL || (copies[i] = strdup(texts[i])) != NULL) continue;
        wr_sim_texts_free(copies, count);
        return NULL;
    }
    return copies;
}

struct wr_sim_rows *wr_sim_rows_new(const struct weir_sim_answer *answer)
{
    struct wr_sim_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL) return NULL;
    *rows = (struct wr_sim_rows){.references = 1,
                                 .columns = answer->columns,
                                 .rows = answer->rows,
                                 .affected = answer->affected};
    rows->names = wr_sim_texts_copy(answer->names, rows->columns);
    rows->values = wr_sim_texts_copy(answer->values, rows->columns * rows->rows);
    rows->types = calloc(rows->columns + 1, sizeof *rows->types);
    if (rows->names == NULL || rows->values == NULL || rows->types == NULL) {
        wr_sim_rows_drop(rows);
        return NULL;
    }
    for (size_t i = 0; i < rows->columns; i++) rows->types[i] = answer->types == NULL ? 25 : answer->types[i];
    return rows;
}

static void write_tag(const struct wr_sim_rows *rows, char verb, char *tag, size_t size)
{
    const char *name = verb == 'i' ? "INSERT 0" : verb == 'u' ? "UPDATE" : verb == 'd' ? "DELETE" : "SELECT";
    size_t count = rows->columns > 0 ? rows->rows : (size_t)rows->affected;
    wr_text_format(tag, size, "%s %zu", name, count);
}

/* One rule may answer statements of several kinds, and the tag tells them apart. */
static struct wr_sim_rows *under_another_tag(struct wr_sim_rows *rows, const char *tag)
{
    struct wr_sim_rows *other = malloc(sizeof *other);
    if (other == NULL) return NULL;
    *other = *rows;
    other->references = 1;
    other->of = rows;
    wr_text_copy(other->tag, sizeof other->tag, tag);
    return other;
}

void wr_sim_rows_show(struct wr_sim_rows *rows, char verb, struct weir_result *out)
{
    struct wr_sim_rows *shown = rows;
    if (rows->references > 0) { /* not one of the usual ones, whose tag is their own */
        char tag[sizeof rows->tag];
        write_tag(rows, verb, tag, sizeof tag);
        if (rows->tag[0] == '\0') wr_text_copy(rows->tag, sizeof rows->tag, tag);
        rows->references++;
        struct wr_sim_rows *other = strcmp(rows->tag, tag) == 0 ? NULL : under_another_tag(rows, tag);
        if (other != NULL) shown = other;
    }
    *out = (struct weir_result){&result_ops, shown};
}

struct wr_sim_rows *wr_sim_rows_usual(char verb)
{
    static struct wr_sim_rows select = {.columns = 1, .rows = 1, .tag = "SELECT 1", .affected = 1};
    static struct wr_sim_rows insert = {.tag = "INSERT 0 1", .affected = 1};
    static struct wr_sim_rows update = {.tag = "UPDATE 1", .affected = 1};
    static struct wr_sim_rows delete_ = {.tag = "DELETE 1", .affected = 1};
    static struct wr_sim_rows savepoint = {.tag = "SAVEPOINT"};
    static struct wr_sim_rows rollback = {.tag = "ROLLBACK"};
    static struct wr_sim_rows release = {.tag = "RELEASE"};
    static struct wr_sim_rows set = {.tag = "SET"};
    switch (verb) {
    case 'i':
        return &insert;
    case 'u':
        return &update;
    case 'd':
        return &delete_;
    case 'S':
        return &savepoint;
    case 'R':
        return &rollback;
    case 'L':
        return &release;
    case '-':
        return &set;
    default:
        return &select;
    }
}
