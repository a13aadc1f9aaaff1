/* The results of the scripted server: one row, one column, the text 1. */
#include "support/fake_server.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t one(const void *handle)
{
    (void)handle;
    return 1;
}

static const char *column_name(const void *handle, size_t column)
{
    (void)handle;
    (void)column;
    return "n";
}

static uint32_t int4(const void *handle, size_t column)
{
    (void)handle;
    (void)column;
    return 23;
}

struct handle {
    const struct wr_memory *memory;
    char text[8];
};

static void values(const void *handle, size_t row, size_t column, size_t count, const char **out,
                   size_t *lengths)
{
    if (row != 0 || column != 0 || count != 1) abort(); /* the engine has looked */
    out[0] = ((const struct handle *)handle)->text;
    lengths[0] = strlen(out[0]);
}

static const char *tag(const void *handle)
{
    (void)handle;
    return "SELECT 1";
}

static uint64_t affected(const void *handle)
{
    (void)handle;
    return 1;
}

static size_t none(const void *handle)
{
    (void)handle;
    return 0;
}

static void release(void *of)
{
    struct handle *handle = of;
    wr_free(handle->memory, handle);
}

static const struct wr_result_ops ops = {one, one,      column_name, int4,        values,
                                         tag, affected, none,        column_name, release};

struct weir_result fake_result(const struct fake *fake)
{
    const struct wr_memory *memory = fake->results_in_engine_memory ? fake->env.memory : wr_memory_libc();
    struct handle *handle = wr_alloc(memory, sizeof *handle);
    if (handle == NULL) abort();
    *handle = (struct handle){memory, "1"};
    return (struct weir_result){&ops, handle};
}
