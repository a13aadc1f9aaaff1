#include "area_fixture.h"

#include <pthread.h>
#include <stddef.h>

static int open_code(struct area_fixture *f)
{
    struct wr_area *area = NULL;
    int code = wr_area_open(&area, f->path, "api", &f->shape, false, f->replaced, f->why);
    assert_true((code == WEIR_OK) == (area != NULL));
    wr_area_close(area);
    return code;
}

/* ---- shape ---- */

static void a_shape_out_of_bounds_is_refused_by_field(void **state)
{
    struct area_fixture *f = *state;
    static const struct {
        size_t field;
        uint32_t value;
        const char *name;
    } bad[] = {
        {offsetof(struct wr_area_shape, workers), 0, "workers is 0"},
        {offsetof(struct wr_area_shape, workers), 257, "workers is 257"},
        {offsetof(struct wr_area_shape, pools), 0, "pools is 0"},
        {offsetof(struct wr_area_shape, pools), 65, "pools is 65"},
        {offsetof(struct wr_area_shape, pool_bytes), 0, "pool_bytes is 0"},
        {offsetof(struct wr_area_shape, pool_bytes), UINT32_MAX, "pool_bytes is 4294967295"},
        {offsetof(struct wr_area_shape, labels), 1, "labels is 1"},
        {offsetof(struct wr_area_shape, labels), 4097, "labels is 4097"},
        {offsetof(struct wr_area_shape, calls), 8, "calls is 8"},
        {offsetof(struct wr_area_shape, calls), 100, "calls is 100, must be a power of two"},
        {offsetof(struct wr_area_shape, events), 131072, "events is 131072"},
        {offsetof(struct wr_area_shape, objects), 1025, "objects is 1025"},
        {offsetof(struct wr_area_shape, object_bytes), UINT32_MAX, "object_bytes is 4294967295"},
        {offsetof(struct wr_area_shape, servers), 65, "servers is 65"},
        {offsetof(struct wr_area_shape, server_bytes), UINT32_MAX, "server_bytes is 4294967295"},
        {offsetof(struct wr_area_shape, common_bytes), UINT32_MAX, "common_bytes is 4294967295"},
        {offsetof(struct wr_area_shape, worker_bytes), UINT32_MAX, "worker_bytes is 4294967295"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct wr_area_shape shape = f->shape;
        struct wr_area *area = (struct wr_area *)f;
        memcpy((char *)&shape + bad[i].field, &bad[i].value, sizeof bad[i].value);
        assert_int_equal(wr_area_private(&area, "api", &shape, f->why), WEIR_EINVAL);
        assert_null(area);
        assert_non_null(strstr(f->why, bad[i].name));
        assert_int_equal(wr_area_open(&area, f->path, "api", &shape, false, NULL, NULL), WEIR_EINVAL);
        assert_int_equal(access(f->path, F_OK), -1);
    }
}

/* 80 GB of address space, of which a few pages exist. */
static void the_largest_shape_costs_only_what_is_used(void **state)
{
    struct area_fixture *f = *state;
    f->shape = (struct wr_area_shape){.workers = 256,
                                      .pools = 64,
                                      .pool_bytes = 65536,
                                      .labels = 4096,
                                      .calls = 65536,
                                      .events = 65536,
                                      .objects = 1024,
                                      .object_bytes = 4096};
    struct wr_area *area = private_area(f);
    uint32_t pool = join_pool(area, "primary");
    wr_count(&wr_meter_series(area, pool, 4095)->ok, 1);
    wr_count(&wr_meter_pool(area, 63)->counter[WR_COUNTERS - 1], 1);
    assert_int_equal(wr_meter_counter(area, 63, WR_COUNTERS - 1), 1);
    wr_area_close(area);
}

static uint32_t random_below(uint64_t *seed, uint32_t bound)
{
    return (uint32_t)(next_random(seed) % bound);
}

static struct wr_area_shape random_shape(uint64_t *seed)
{
    return (struct wr_area_shape){.workers = 1 + random_below(seed, 256),
                                  .pools = 1 + random_below(seed, 64),
                                  .pool_bytes = 1 + random_below(seed, 9999),
                                  .labels = 2 + random_below(seed, 4095),
                                  .calls = 16u << random_below(seed, 13),
                                  .events = 16u << random_below(seed, 13),
                                  .objects = random_below(seed, 1025),
                                  .object_bytes = random_below(seed, 9999),
                                  .servers = random_below(seed, 65),
                                  .server_bytes = random_below(seed, 9999),
                                  .common_bytes = random_below(seed, 9999),
                                  .worker_bytes = random_below(seed, 9999)};
}

struct part {
    uint64_t offset, bytes;
};

static void assert_in_order(const struct part *part, size_t count)
{
    for (size_t i = 0; i + 1 < count; i++) assert_true(part[i].offset + part[i].bytes <= part[i + 1].offset);
}

static void the_parts_of_the_layout_do_not_overlap(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int round = 0; round < 1000; round++) {
        struct wr_area_shape shape = random_shape(&seed);
        struct wr_layout at;
        wr_layout_compute(&at, &shape);
        const struct part whole[] = {{0, sizeof(struct wr_header)},
                                     {at.shared, sizeof(struct wr_shared)},
                                     {at.slots, shape.workers * sizeof(struct wr_slot)},
                                     {at.pool_entries, shape.pools * sizeof(struct wr_entry)},
                                     {at.pool_records, shape.pools * at.pool_stride},
                                     {at.object_entries, shape.objects * sizeof(struct wr_entry)},
                                     {at.object_records, shape.objects * at.object_stride},
                                     {at.server_entries, shape.servers * sizeof(struct wr_entry)},
                                     {at.server_records, shape.servers * at.server_stride},
                                     {at.label_index, at.label_places * sizeof(uint32_t)},
                                     {at.labels, shape.labels * sizeof(struct wr_label)},
                                     {at.events, shape.events * sizeof(struct wr_event_cell)},
                                     {at.policy, sizeof(struct wr_policy_store)},
                                     {at.common, shape.common_bytes},
                                     {at.workers, shape.workers * at.worker_stride},
                                     {at.size, 0}};
        const struct part worker[] = {{0, shape.pools * sizeof(struct wr_pool_meter)},
                                      {at.touched, shape.pools * at.touched_words * sizeof(uint64_t)},
                                      {at.record, shape.worker_bytes},
                                      {at.recorder, shape.calls * sizeof(struct wr_call_cell)},
                                      {at.series,
                                       (uint64_t)shape.pools * shape.labels * sizeof(struct wr_series_meter)},
                                      {at.worker_stride, 0}};
        assert_in_order(whole, sizeof whole / sizeof whole[0]);
        assert_in_order(worker, sizeof worker / sizeof worker[0]);
        assert_int_equal((at.pool_records | at.pool_stride | at.object_records | at.object_stride |
                          at.server_records | at.server_stride | at.common | at.record) %
                             64,
                         0);
        assert_true(at.label_places >= shape.labels * UINT64_C(2));
    }
}

/* ---- private and shared ---- */

static void a_private_area_is_worker_one_of_nobody_else(void **state)
{
    struct wr_area *area = private_area(*state);
    assert_int_equal(wr_area_worker(area), 1);
    assert_false(wr_area_is_shared(area));
    assert_int_equal(wr_area_shape(area)->pool_bytes, 100);
    assert_true(wr_area_worker_alive(area, 1));
    assert_int_equal(wr_area_worker_pid(area, 1), getpid());
    for (int i = 0; i < 8; i++) assert_int_equal(wr_area_reap(area), 0);
    wr_area_close(area);
    wr_area_close(NULL);
}

static void a_sound_file_is_joined_and_not_replaced(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *first = open_area(f), *second = open_area(f);
    assert_string_equal(f->replaced, "");
    assert_int_equal(wr_area_worker(first), 1);
    assert_int_equal(wr_area_worker(second), 2);
    wr_area_heartbeat(first, 123456789);
    assert_int_equal(wr_area_worker_heartbeat(second, 1), 123456789);
    assert_int_equal(wr_area_worker_heartbeat(second, 99), 0);
    wr_area_close(first);
    assert_false(wr_area_worker_alive(second, 1));
    assert_int_equal(wr_area_worker_pid(second, 1), 0);
    wr_area_close(second);
}

static void a_worker_too_many_is_told_so_and_the_next_free_slot_is_reused(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *worker[4];
    for (int i = 0; i < 4; i++) worker[i] = open_area(f);
    assert_int_equal(open_code(f), WEIR_ESYS);
    assert_non_null(strstr(f->why, "slot"));
    assert_non_null(strstr(f->why, f->path));
    wr_area_close(worker[2]);
    worker[2] = open_area(f);
    assert_int_equal(wr_area_worker(worker[2]), 3);
    for (int i = 0; i < 4; i++) wr_area_close(worker[i]);
}

/* ---- pools and objects ---- */

static void a_pool_is_created_once_and_shared_by_all(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *one = open_area(f), *two = open_area(f);
    void *record, *again;
    uint32_t index, same;
    bool created;
    assert_int_equal(wr_area_pool(one, "primary", &record, &index, &created), WEIR_OK);
    assert_true(created);
    for (int i = 0; i < 100; i++) assert_int_equal(((char *)record)[i], 0);
    memcpy(record, "hello", 6);
    wr_area_pool_ready(one, index);
    assert_int_equal(wr_area_pool(two, "primary", &again, &same, &created), WEIR_OK);
    assert_false(created);
    assert_int_equal(same, index);
    assert_string_equal(again, "hello");
    assert_int_equal(wr_area_pool_count(two), 1);
    assert_string_equal(wr_area_pool_name(two, 0), "primary");
    wr_area_close(one);
    wr_area_close(two);
}

static void pools_keep_their_order_and_a_full_directory_says_so(void **state)
{
    struct wr_area *area = private_area(*state);
    static const char *const name[] = {"a", "b", "c"};
    void *record;
    uint32_t index;
    bool created;
    for (uint32_t i = 0; i < 3; i++) assert_int_equal(join_pool(area, name[i]), i);
    assert_int_equal(wr_area_pool(area, "d", &record, &index, &created), WEIR_ENOMEM);
    assert_null(record);
    assert_false(created);
    assert_int_equal(join_pool(area, "b"), 1);
    assert_int_equal(wr_area_pool_count(area), 3);
    assert_string_equal(wr_area_pool_name(area, 3), "");
    assert_string_equal(wr_area_pool_name(area, UINT32_MAX), "");
    wr_area_close(area);
}

static void a_name_that_does_not_fit_is_refused_rather_than_cut(void **state)
{
    struct wr_area *area = private_area(*state);
    char longest[WR_NAME_MAX + 1];
    void *record;
    uint32_t index;
    bool created;
    memset(longest, 'n', sizeof longest);
    longest[WR_NAME_MAX] = '\0';
    const char *const name[] = {"", NULL, longest};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(wr_area_pool(area, name[i], &record, &index, &created), WEIR_EINVAL);
    }
    longest[WR_NAME_MAX - 1] = '\0';
    assert_int_equal(join_pool(area, longest), 0);
    wr_area_close(area);
}

static void objects_of_different_kinds_may_share_a_name(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *one = open_area(f), *two = open_area(f);
    void *breaker, *budget, *again;
    bool created;
    assert_int_equal(wr_area_object(one, 1, "redis", &breaker, &created), WEIR_OK);
    memcpy(breaker, "breaker", 8);
    wr_area_object_ready(one, breaker);
    assert_int_equal(wr_area_object(one, 2, "redis", &budget, &created), WEIR_OK);
    assert_true(created && budget != breaker);
    wr_area_object_ready(one, budget);
    assert_int_equal(wr_area_object(two, 1, "redis", &again, &created), WEIR_OK);
    assert_false(created);
    assert_string_equal(again, "breaker");
    wr_area_close(one);
    wr_area_close(two);
}

static void an_area_may_have_no_objects(void **state)
{
    struct area_fixture *f = *state;
    void *record;
    bool created;
    f->shape.objects = f->shape.object_bytes = 0;
    struct wr_area *area = private_area(f);
    assert_int_equal(wr_area_object(area, 1, "redis", &record, &created), WEIR_ENOMEM);
    wr_area_close(area);
}

static void records_are_aligned_to_a_cache_line(void **state)
{
    struct wr_area *area = private_area(*state);
    static const char *const name[] = {"a", "b", "c"};
    for (size_t i = 0; i < 3; i++) {
        void *pool, *object;
        uint32_t index;
        bool created;
        assert_int_equal(wr_area_pool(area, name[i], &pool, &index, &created), WEIR_OK);
        assert_int_equal(wr_area_object(area, 1, name[i], &object, &created), WEIR_OK);
        assert_int_equal(((uintptr_t)pool | (uintptr_t)object) % 64, 0);
        wr_area_pool_ready(area, index);
        wr_area_object_ready(area, object);
    }
    wr_area_close(area);
}

static void the_record_for_all_is_one_and_each_worker_has_its_own(void **state)
{
    struct area_fixture *f = *state;
    f->shape.common_bytes = 24;
    f->shape.worker_bytes = 16;
    struct wr_area *one = open_area(f), *two = open_area(f);
    char *common = wr_area_common(one), *own = wr_area_worker_record(one, 1);
    memset(common, 'c', 24);
    memset(own, 'o', 16);
    assert_memory_equal(wr_area_common(two), common, 24);
    assert_memory_equal(wr_area_worker_record(two, 1), own, 16);
    for (int i = 0; i < 16; i++) assert_int_equal(((char *)wr_area_worker_record(two, 2))[i], 0);
    assert_null(wr_area_worker_record(one, 0));
    assert_null(wr_area_worker_record(one, 5)); /* of 4 */
    wr_area_close(one);
    wr_area_close(two);
    struct wr_area *private = private_area(f);
    for (int i = 0; i < 24; i++) assert_int_equal(((char *)wr_area_common(private))[i], 0);
    wr_area_close(private);
}

static void an_area_may_have_neither_record(void **state)
{
    struct wr_area *area = private_area(*state);
    assert_null(wr_area_common(area));
    assert_null(wr_area_worker_record(area, 1));
    wr_area_close(area);
}

static void a_record_being_made_by_a_live_worker_is_waited_for_and_not_for_ever(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *maker = open_area(f), *waiter = open_area(f);
    void *record;
    uint32_t index;
    bool created;
    waiter->naps = 2;
    assert_int_equal(wr_area_pool(maker, "slow", &record, &index, &created), WEIR_OK);
    assert_int_equal(wr_area_pool(waiter, "slow", &record, &index, &created), WEIR_ESYS);
    assert_int_equal(wr_area_pool(waiter, "quick", &record, &index, &created), WEIR_OK);
    assert_int_equal(index, 1);
    wr_area_close(maker);
    wr_area_close(waiter);
}

static void a_maker_that_left_or_starts_over_is_succeeded_with_a_clean_record(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *one = open_area(f), *two = open_area(f);
    void *record;
    uint32_t index;
    bool created;
    assert_int_equal(wr_area_pool(one, "p", &record, &index, &created), WEIR_OK);
    memset(record, 0xff, 100);
    /* its own earlier attempt counts as abandoned */
    assert_int_equal(wr_area_pool(one, "p", &record, &index, &created), WEIR_OK);
    assert_true(created && ((char *)record)[99] == 0);
    memset(record, 0xff, 100);
    wr_area_close(one);
    assert_int_equal(wr_area_pool(two, "p", &record, &index, &created), WEIR_OK);
    assert_true(created && ((char *)record)[0] == 0 && ((char *)record)[99] == 0);
    wr_area_pool_ready(two, index);
    assert_int_equal(wr_area_pool(two, "p", &record, &index, &created), WEIR_OK);
    assert_false(created);
    wr_area_close(two);
}

/* ---- at once ---- */

enum { THREADS = 4, NAMES = 3, MEETINGS = 50 };

struct joiner {
    pthread_t thread;
    struct wr_area *area;
    uint32_t start, index[NAMES], made;
};

static void *join_all(void *argument)
{
    static const char *const name[NAMES] = {"primary", "replica", "reports"};
    struct joiner *joiner = argument;
    for (uint32_t i = 0; i < NAMES; i++) {
        uint32_t which = (joiner->start + i) % NAMES;
        void *record;
        bool created;
        uint32_t *index = &joiner->index[which];
        if (wr_area_pool(joiner->area, name[which], &record, index, &created) != WEIR_OK) break;
        if (created) memset(record, 'a' + (int)which, 100); /* plain stores: readiness must publish them */
        if (created) wr_area_pool_ready(joiner->area, *index);
        joiner->made += created && ((char *)record)[99] == 'a' + (int)which;
        joiner->made += ((char *)record)[99] == 'a' + (int)which ? 0 : 1000;
    }
    return NULL;
}

static void workers_that_join_the_same_pools_at_once_create_each_of_them_once(void **state)
{
    struct area_fixture *f = *state;
    for (uint32_t meeting = 0; meeting < MEETINGS; meeting++) {
        struct joiner joiner[THREADS] = {{.made = 0}};
        uint32_t made = 0;
        for (uint32_t t = 0; t < THREADS; t++) {
            joiner[t].area = open_area(f);
            joiner[t].start = t * (meeting % 3);
        }
        for (uint32_t t = 0; t < THREADS; t++) {
            assert_int_equal(pthread_create(&joiner[t].thread, NULL, join_all, &joiner[t]), 0);
        }
        for (uint32_t t = 0; t < THREADS; t++) assert_int_equal(pthread_join(joiner[t].thread, NULL), 0);
        for (uint32_t t = 0; t < THREADS; t++) {
            made += joiner[t].made;
            assert_memory_equal(joiner[t].index, joiner[0].index, sizeof joiner[t].index);
            wr_area_close(joiner[t].area);
        }
        assert_int_equal(made, NAMES);
        assert_int_equal(remove(f->path), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        area_test(a_shape_out_of_bounds_is_refused_by_field),
        area_test(the_largest_shape_costs_only_what_is_used),
        area_test(the_parts_of_the_layout_do_not_overlap),
        area_test(a_private_area_is_worker_one_of_nobody_else),
        area_test(a_sound_file_is_joined_and_not_replaced),
        area_test(a_worker_too_many_is_told_so_and_the_next_free_slot_is_reused),
        area_test(a_pool_is_created_once_and_shared_by_all),
        area_test(pools_keep_their_order_and_a_full_directory_says_so),
        area_test(a_name_that_does_not_fit_is_refused_rather_than_cut),
        area_test(objects_of_different_kinds_may_share_a_name),
        area_test(an_area_may_have_no_objects),
        area_test(records_are_aligned_to_a_cache_line),
        area_test(the_record_for_all_is_one_and_each_worker_has_its_own),
        area_test(an_area_may_have_neither_record),
        area_test(a_record_being_made_by_a_live_worker_is_waited_for_and_not_for_ever),
        area_test(a_maker_that_left_or_starts_over_is_succeeded_with_a_clean_record),
        area_test(workers_that_join_the_same_pools_at_once_create_each_of_them_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
