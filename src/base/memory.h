/* Memory as an argument: every layer allocates through the hooks it was given, so a test can count, refuse or cap. */
#ifndef WR_MEMORY_H
#define WR_MEMORY_H

#include <stddef.h>

struct wr_memory {
    /* realloc semantics; size 0 frees and returns NULL. NULL for a size > 0 means: out of memory. */
    void *(*resize)(void *ctx, void *old, size_t size);
    void *ctx;
};

const struct wr_memory *wr_memory_libc(void);
void *wr_alloc(const struct wr_memory *memory, size_t size); /* zeroed, or NULL */
void *wr_resize(const struct wr_memory *memory, void *old, size_t size);
void wr_free(const struct wr_memory *memory, void *old);           /* accepts NULL */
char *wr_strdup(const struct wr_memory *memory, const char *text); /* NULL for NULL or when out of memory */

#endif
