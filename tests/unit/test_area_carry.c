/* An area of another size at the path: what the old one holds is in the new one, whoever is at work or killed meanwhile. */
#include "area_fixture.h"

#include "area/policytext.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { KILLS = 60 };

static int settled;

static void settle(void *ctx, void *record)
{
    settled++;
    assert_ptr_equal(ctx, &settled);
    memset((char *)record + 96, 's', 4);
}

static const struct wr_carrier carrier = {settle, &settled};

static struct wr_area *open_carrying(struct area_fixture *f)
{
    struct wr_area *area = NULL;
    int code = wr_area_open_carrying(&area, f->path, "api", &f->shape, false, &carrier, f->replaced, f->why);
    if (code != WEIR_OK) print_error("%s\n", f->why);
    assert_int_equal(code, WEIR_OK);
    return area;
}

static void count_on(struct wr_area *area, const char *name, const char *label, uint64_t n)
{
    uint32_t pool = join_pool(area, name);
    struct wr_pool_meter *meter = wr_meter_pool(area, pool);
    wr_count(&meter->counter[WR_N_STARTED], n + 1); /* one of them goes on for ever */
    wr_count(&meter->counter[WR_N_OK], n);
    wr_count(&meter->failed[3], n);
    wr_count(&meter->unconnected[4], n);
    wr_gauge_add(&meter->gauge[WR_G_CONNECTIONS], 4);
    wr_histogram_record_fine(&meter->duration, n * 1000000);
    struct wr_series_meter *series = wr_meter_series(area, pool, wr_area_label(area, label));
    wr_count(&series->ok, n);
    wr_histogram_record_coarse(&series->duration, n * 1000000);
}

static void note(struct wr_area *area, uint64_t id, const char *label, const char *text)
{
    struct wr_recorded_call call = {.id = id,
                                    .started_us = id,
                                    .pool = join_pool(area, "replica"),
                                    .label = wr_area_label(area, label)};
    wr_recorder_add(area, &call);
    wr_event_add(area, WR_EVENT_OPERATOR, 2, id, text);
}

static uint64_t count_of(const struct wr_area *area, uint32_t pool, enum wr_counter counter)
{
    return wr_meter_counter(area, pool, counter);
}

/* One slot of a worker that has left, one of one that is still there. */
static struct wr_area *fill(struct area_fixture *f)
{
    void *record;
    uint32_t index;
    bool created;
    uint64_t generation;
    struct wr_area *live = open_carrying(f), *gone = open_carrying(f);
    count_on(live, "primary", "GET /a", 10);
    count_on(gone, "primary", "GET /b", 5);
    count_on(gone, "replica", "GET /b", 7);
    note(gone, 1001, "GET /a", "first");
    note(live, 1002, "GET /b", "second");
    assert_int_equal(wr_area_pool(live, "replica", &record, &index, &created), WEIR_OK);
    memset(record, 'r', f->shape.pool_bytes);
    assert_int_equal(wr_policy_put(live, "return {}", 9, &generation, f->why), WEIR_OK);
    assert_int_equal(wr_policy_put(live, "return {1}", 10, &generation, f->why), WEIR_OK);
    wr_area_close(gone);
    return live;
}

static void check_counts(const struct wr_area *area)
{
    struct wr_histogram_view *view = malloc(sizeof *view);
    struct wr_reason_sums sums;
    assert_int_equal(wr_area_pool_count(area), 2);
    assert_string_equal(wr_area_pool_name(area, 0), "primary");
    assert_string_equal(wr_area_pool_name(area, 1), "replica");
    assert_int_equal(count_of(area, 0, WR_N_OK), 15);
    assert_int_equal(count_of(area, 1, WR_N_OK), 7);
    assert_int_equal(count_of(area, 0, WR_N_STARTED),
                     count_of(area, 0, WR_N_OK) + count_of(area, 0, WR_N_ABANDONED));
    assert_int_equal(count_of(area, 0, WR_N_ABANDONED), 2);
    wr_meter_reasons(area, 0, &sums);
    assert_int_equal(sums.failed[3], 15);
    assert_int_equal(sums.unconnected[4], 15);
    wr_meter_histogram(area, 0, WR_H_DURATION, view);
    assert_int_equal(view->count, 2);
    assert_int_equal(view->sum_ns, 15000000);
    assert_int_equal(view->max_ns, 10000000);
    assert_int_equal(wr_meter_gauge(area, 0, WR_G_CONNECTIONS), 0);
    free(view);
}

static uint64_t series_ok(const struct wr_area *area, uint32_t pool, uint32_t label)
{
    struct wr_series_sum *sum = malloc(sizeof *sum);
    wr_meter_series_sum(area, pool, label, sum);
    uint64_t ok = sum->ok;
    free(sum);
    return ok;
}

static void check_history(struct area_fixture *f, const struct wr_area *area)
{
    struct wr_recorded_call calls[4];
    struct wr_event events[4];
    char text[32];
    uint64_t generation;
    assert_int_equal(wr_recorder_read(area, calls, 4), 2);
    assert_int_equal(calls[0].id, 1002);
    assert_int_equal(calls[1].id, 1001);
    assert_string_equal(wr_area_label_text(area, calls[1].label), "GET /a");
    assert_int_equal(wr_event_read(area, 0, events, 4), 2);
    assert_int_equal(events[0].sequence, 1);
    assert_int_equal(events[0].worker, 2);
    assert_string_equal(events[1].text, "second");
    assert_int_equal(wr_policy_get(area, text, sizeof text, &generation), 10);
    assert_int_equal(generation, 2);
    assert_string_equal(text, "return {1}");
    (void)f;
}

static void all_that_is_counted_and_told_is_in_the_new_area(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *live = fill(f);
    uint64_t created_us = wr_area_created_us(live);
    settled = 0;
    f->shape.workers = 8;
    f->shape.labels = 32;
    f->shape.events = 64;
    struct wr_area *area = open_carrying(f);
    assert_string_equal(f->replaced, "workers 4 found, 8 expected; what it held was carried over");
    assert_int_equal(wr_area_created_us(area), created_us);
    check_counts(area);
    check_history(f, area);
    assert_int_equal(series_ok(area, 0, wr_area_label(area, "GET /a")), 10);
    assert_int_equal(series_ok(area, 0, wr_area_label(area, "GET /b")), 5);
    assert_int_equal(series_ok(area, 1, wr_area_label(area, "GET /b")), 7);
    assert_int_equal(settled, 2);
    const char *record = wr_area_pool_record(area, 1);
    for (int i = 0; i < 100; i++) assert_int_equal(record[i], i < 96 ? 'r' : 's');
    wr_area_close(live);
    wr_area_close(area);
}

static void counting_goes_on_from_there_and_in_the_old_area_apart(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *live = fill(f);
    f->shape.workers = 8;
    struct wr_area *area = open_carrying(f), *second = open_carrying(f);
    assert_string_equal(f->replaced, "");
    count_on(area, "primary", "GET /a", 1);
    count_on(second, "primary", "GET /a", 2);
    count_on(live, "primary", "GET /a", 100);
    note(second, 1003, "GET /a", "third");
    assert_int_equal(count_of(area, 0, WR_N_OK), 18);
    assert_int_equal(count_of(live, 0, WR_N_OK), 115);
    struct wr_event last;
    assert_int_equal(wr_event_read(area, 2, &last, 1), 1);
    assert_int_equal(last.sequence, 3);
    assert_false(wr_area_is_at_path(live));
    assert_true(wr_area_is_at_path(area));
    assert_int_equal(each_file(f, NULL), 1);
    wr_area_close(live);
    wr_area_close(area);
    wr_area_close(second);
}

static void what_finds_no_room_in_a_smaller_area_is_other_or_the_newest(void **state)
{
    struct area_fixture *f = *state;
    f->shape.events = 64;
    struct wr_area *live = fill(f);
    for (uint64_t i = 0; i < 40; i++) note(live, 2000 + i, "GET /a", "again");
    f->shape.workers = 1;
    f->shape.labels = 2; /* one beside other */
    f->shape.events = 16;
    f->shape.pools = 2;
    struct wr_area *area = open_carrying(f);
    struct wr_recorded_call calls[64];
    struct wr_event events[64];
    check_counts(area);
    assert_int_equal(series_ok(area, 0, 0) + series_ok(area, 0, 1), 15);
    assert_int_equal(wr_recorder_read(area, calls, 64), 16);
    assert_int_equal(calls[0].id, 2039);
    assert_int_equal(wr_event_read(area, 0, events, 64), 16);
    assert_int_equal(events[15].sequence, 42);
    wr_area_close(live);
    wr_area_close(area);
}

static void what_cannot_be_carried_is_replaced_and_said_so(void **state)
{
    struct area_fixture *f = *state;
    static const struct {
        size_t field;
        uint32_t value;
        const char *reason;
    } cases[] = {
        {offsetof(struct wr_area_shape, pools), 1, "pools 3 found, 1 expected"},
        {offsetof(struct wr_area_shape, pool_bytes), 200, "pool_bytes 100 found, 200 expected"},
    };
    for (size_t i = 0; i < 2; i++) {
        struct wr_area_shape before = f->shape;
        wr_area_close(fill(f));
        memcpy((char *)&f->shape + cases[i].field, &cases[i].value, sizeof cases[i].value);
        struct wr_area *area = open_carrying(f);
        assert_string_equal(f->replaced, cases[i].reason);
        assert_int_equal(wr_area_pool_count(area), 0);
        wr_area_close(area);
        assert_int_equal(remove(f->path), 0);
        f->shape = before;
    }
}

static void a_damaged_area_of_another_shape_is_not_read(void **state)
{
    struct area_fixture *f = *state;
    wr_area_close(fill(f));
    assert_int_equal(truncate(f->path, 4096), 0);
    f->shape.workers = 8;
    struct wr_area *area = open_carrying(f);
    assert_null(strstr(f->replaced, "carried"));
    assert_int_equal(wr_area_pool_count(area), 0);
    wr_area_close(area);
}

/* ---- others at work, others killed --------------------------------------------------------------------------------- */

static void count_for_ever(struct area_fixture *f)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* whatever becomes of the test */
    struct wr_area *area = open_carrying(f);
    struct wr_pool_meter *meter = wr_meter_pool(area, join_pool(area, "primary"));
    for (;;) {
        wr_count(&meter->counter[WR_N_STARTED], 1);
        wr_count(&meter->counter[WR_N_OK], 1);
    }
}

static void a_worker_at_work_meanwhile_is_carried_as_far_as_it_was(void **state)
{
    struct area_fixture *f = *state;
    for (uint32_t round = 0; round < 10; round++) {
        struct wr_area *old = open_carrying(f);
        uint32_t pool = join_pool(old, "primary");
        pid_t child = fork();
        if (child == 0) count_for_ever(f);
        uint64_t start = count_of(old, pool, WR_N_OK);
        while (count_of(old, pool, WR_N_OK) < start + 1000) (void)usleep(100);
        uint64_t before = count_of(old, pool, WR_N_OK);
        f->shape.workers = 4 + (round + 1) % 2;
        struct wr_area *area = open_carrying(f);
        uint64_t after = count_of(old, pool, WR_N_OK), carried = count_of(area, pool, WR_N_OK);
        assert_in_range(carried, before, after);
        uint64_t abandoned = count_of(old, pool, WR_N_ABANDONED); /* in the rounds before */
        assert_in_range(count_of(area, pool, WR_N_STARTED) - carried - abandoned, 0, after - before + 1);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        wr_area_close(old);
        wr_area_close(area);
    }
}

static void change_shape_for_ever(struct area_fixture *f, uint64_t expected)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint32_t i = 0;; i++) {
        f->shape.workers = 4 + i % 3;
        struct wr_area *area = open_carrying(f);
        if (count_of(area, 0, WR_N_OK) != expected) _exit(99);
        wr_area_close(area);
    }
}

static void an_opener_killed_while_carrying_loses_nothing(void **state)
{
    struct area_fixture *f = *state;
    uint64_t seed = 99, expected = 1;
    struct wr_area *first = open_carrying(f);
    wr_count(&wr_meter_pool(first, join_pool(first, "primary"))->counter[WR_N_OK], 1);
    wr_area_close(first);
    for (int round = 0; round < KILLS; round++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) change_shape_for_ever(f, expected);
        (void)usleep((useconds_t)(next_random(&seed) % 6000));
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        f->shape.workers = 4 + (uint32_t)round % 3;
        struct wr_area *area = open_carrying(f);
        assert_int_equal(count_of(area, 0, WR_N_OK), expected);
        wr_count(&wr_meter_pool(area, 0)->counter[WR_N_OK], 1);
        expected++;
        wr_area_close(area);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        area_test(all_that_is_counted_and_told_is_in_the_new_area),
        area_test(counting_goes_on_from_there_and_in_the_old_area_apart),
        area_test(what_finds_no_room_in_a_smaller_area_is_other_or_the_newest),
        area_test(what_cannot_be_carried_is_replaced_and_said_so),
        area_test(a_damaged_area_of_another_shape_is_not_read),
        area_test(a_worker_at_work_meanwhile_is_carried_as_far_as_it_was),
        area_test(an_opener_killed_while_carrying_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
