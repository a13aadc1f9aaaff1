/* The hooks behind every allocation, and the libc set of them. */
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static void *libc_resize(void *ctx, void *old, size_t size)
{
    (void)ctx;
    if (size == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, size);
}

const struct wr_memory *wr_memory_libc(void)
{
    static const struct wr_memory libc = {.resize = libc_resize, .ctx = NULL};
    return &libc;
}

void *wr_resize(const struct wr_memory *memory, void *old, size_t size)
{
    return memory->resize(memory->ctx, old, size);
}

void *wr_alloc(const struct wr_memory *memory, size_t size)
{
    void *fresh = wr_resize(memory, NULL, size);
    if (fresh != NULL) memset(fresh, 0, size);
    return fresh;
}

void wr_free(const struct wr_memory *memory, void *old)
{
    if (old != NULL) wr_resize(memory, old, 0);
}

char *wr_strdup(const struct wr_memory *memory, const char *text)
{
    if (text == NULL) return NULL;
    size_t size = strlen(text) + 1;
    char *copy = wr_resize(memory, NULL, size);
    if (copy != NULL) memcpy(copy, text, size);
    return copy;
}
