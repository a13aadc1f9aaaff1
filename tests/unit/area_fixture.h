/* What the area's tests share: a directory of their own, a small shape, and short ways to open. */
#ifndef AREA_FIXTURE_H
#define AREA_FIXTURE_H

#include "area/layout.h"

#include <dirent.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct area_fixture {
    char directory[PATH_MAX - 64];
    char path[PATH_MAX];
    char replaced[WEIR_WHY_MAX], why[WEIR_WHY_MAX];
    struct wr_area_shape shape;
};

static inline int area_set_up(void **state)
{
    struct area_fixture *f = calloc(1, sizeof *f);
    const char *tmp = getenv("TMPDIR");
    if (f == NULL) return -1;
    f->shape = (struct wr_area_shape){.workers = 4,
                                      .pools = 3,
                                      .pool_bytes = 100,
                                      .labels = 8,
                                      .calls = 16,
                                      .events = 16,
                                      .objects = 4,
                                      .object_bytes = 40,
                                      .servers = 2,
                                      .server_bytes = 72};
    (void)snprintf(f->directory, sizeof f->directory, "%s/weir-area-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(f->directory) == NULL) return -1;
    (void)snprintf(f->path, sizeof f->path, "%s/area", f->directory);
    *state = f;
    return 0;
}

/* Calls `visit` for every file in the directory; returns how many there are. */
static inline int each_file(const struct area_fixture *f, int (*visit)(const char *path))
{
    DIR *directory = opendir(f->directory);
    int count = 0;
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char path[PATH_MAX + 256];
        if (entry->d_name[0] == '.') continue;
        (void)snprintf(path, sizeof path, "%s/%s", f->directory, entry->d_name);
        if (visit != NULL) (void)visit(path);
        count++;
    }
    (void)closedir(directory);
    return count;
}

static inline int area_tear_down(void **state)
{
    struct area_fixture *f = *state;
    (void)each_file(f, remove);
    (void)rmdir(f->directory);
    free(f);
    return 0;
}

static inline struct wr_area *open_area(struct area_fixture *f)
{
    struct wr_area *area = NULL;
    int code = wr_area_open(&area, f->path, "api", &f->shape, false, f->replaced, f->why);
    if (code != WEIR_OK) print_error("%s\n", f->why);
    assert_int_equal(code, WEIR_OK);
    return area;
}

static inline struct wr_area *private_area(const struct area_fixture *f)
{
    struct wr_area *area = NULL;
    assert_int_equal(wr_area_private(&area, "api", &f->shape, NULL), WEIR_OK);
    return area;
}

/* The pool's index, made ready if this call created it. */
static inline uint32_t join_pool(struct wr_area *area, const char *name)
{
    void *record;
    uint32_t index;
    bool created;
    assert_int_equal(wr_area_pool(area, name, &record, &index, &created), WEIR_OK);
    if (created) wr_area_pool_ready(area, index);
    return index;
}

/* What stands in a slot's gauge, whether the sums would count it or not. */
static inline int64_t raw_gauge(const struct wr_area *area, uint32_t worker, uint32_t pool,
                                enum wr_gauge gauge)
{
    struct wr_pool_meter *meter = (struct wr_pool_meter *)(void *)wr_worker_part(area, worker);
    return atomic_load(&meter[pool].gauge[gauge]);
}

/* xorshift: the same numbers in every run. */
static inline uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

#define area_test(test) cmocka_unit_test_setup_teardown(test, area_set_up, area_tear_down)

#endif
