/* A result as the driver gave it: an opaque handle and the table of functions that read it. Owner: the call, which
 * releases it; moving one is copying the struct and clearing the source. */
#ifndef WR_RESULT_H
#define WR_RESULT_H

#include <stddef.h>
#include <stdint.h>

struct wr_result_ops {
    size_t (*rows)(const void *handle);
    size_t (*columns)(const void *handle);
    const char *(*name)(const void *handle, size_t column);
    uint32_t (*type)(const void *handle, size_t column);
    /* Of `count` columns of a row, all of which are there. NULL and 0 for NULL. */
    void (*values)(const void *handle, size_t row, size_t column, size_t count, const char **values,
                   size_t *lengths);
    const char *(*tag)(const void *handle);
    uint64_t (*affected)(const void *handle);
    size_t (*notices)(const void *handle);
    const char *(*notice)(const void *handle, size_t index);
    void (*release)(void *handle);
};

struct weir_result {
    const struct wr_result_ops *ops; /* NULL: empty */
    void *handle;
};

/* Releases and empties; accepts an empty one. */
void wr_result_release(struct weir_result *result);

#endif
