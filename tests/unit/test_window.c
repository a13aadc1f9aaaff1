#include "guard/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct wr_time_window time;
    struct wr_count_window count;
    struct wr_slide slide;
};

static int set_up(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static void assert_sums(struct wr_counts counts, uint32_t calls, uint32_t failures, uint32_t slow)
{
    assert_int_equal(counts.calls, calls);
    assert_int_equal(counts.failures, failures);
    assert_int_equal(counts.slow, slow);
}

/* Adds verdicts written as letters: s success, f failure, l slow success, b slow failure. */
static void add_all(struct wr_count_window *window, uint32_t generation, uint32_t size, const char *verdicts)
{
    for (; *verdicts != '\0'; verdicts++) {
        bool failed = *verdicts == 'f' || *verdicts == 'b', slow = *verdicts == 'l' || *verdicts == 'b';
        wr_count_window_add(window, generation, size, failed, slow);
    }
}

static void nanoseconds_round_down_to_their_second(void **state)
{
    (void)state;
    assert_int_equal(wr_window_second(999999999), 0);
    assert_int_equal(wr_window_second(1000000000), 1);
}

static void a_slide_sums_the_seconds_asked_for(void **state)
{
    struct fixture *f = *state;
    for (uint64_t second = 100; second < 110; second++) wr_slide_add(&f->slide, 1, second);
    static const struct {
        uint64_t at;
        uint32_t seconds;
        uint64_t sum;
    } table[] = {{109, 10, 10}, {109, 1, 1},  {109, 3, 3}, {110, 10, 9},
                 {118, 10, 1},  {119, 10, 0}, {104, 10, 5}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        assert_int_equal(wr_slide_sum(&f->slide, 1, table[i].at, table[i].seconds), table[i].sum);
}

static void a_second_that_shares_a_bucket_replaces_the_old_one(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++) wr_slide_add(&f->slide, 1, 7);
    wr_slide_add(&f->slide, 1, 7 + WR_SLIDE_BUCKETS);
    assert_int_equal(wr_slide_sum(&f->slide, 1, 7 + WR_SLIDE_BUCKETS, 1), 1);
}

static void a_straggler_cannot_undo_a_bucket_that_rolled_on(void **state)
{
    struct fixture *f = *state;
    wr_slide_add(&f->slide, 1, 7 + WR_SLIDE_BUCKETS);
    wr_slide_add(&f->slide, 1, 7);
    assert_int_equal(wr_slide_sum(&f->slide, 1, 7 + WR_SLIDE_BUCKETS, 1), 1);
    wr_slide_add(&f->slide, 3, 9);
    wr_slide_add(&f->slide, 2, 9);
    assert_int_equal(wr_slide_sum(&f->slide, 3, 9, 1), 1);
    assert_int_equal(wr_slide_sum(&f->slide, 2, 9, 1), 0);
}

static void a_new_generation_starts_at_zero_within_the_same_second(void **state)
{
    struct fixture *f = *state;
    wr_slide_add(&f->slide, 1, 7);
    assert_int_equal(wr_slide_sum(&f->slide, 2, 7, 10), 0);
    wr_slide_add(&f->slide, 2, 7);
    assert_int_equal(wr_slide_sum(&f->slide, 2, 7, 10), 1);
}

static void a_slide_counts_across_the_wrap_of_its_generation(void **state)
{
    struct fixture *f = *state;
    wr_slide_add(&f->slide, 0x3fff, 7);
    wr_slide_add(&f->slide, 0x4000, 7);
    assert_int_equal(wr_slide_sum(&f->slide, 0x4000, 7, 1), 1);
    wr_slide_add(&f->slide, 0x3fff, 7);
    assert_int_equal(wr_slide_sum(&f->slide, 0x4000, 7, 1), 1);
}

static void a_bucket_saturates_instead_of_running_into_its_tag(void **state)
{
    struct fixture *f = *state;
    wr_slide_add(&f->slide, 1, 7);
    atomic_fetch_or(&f->slide.bucket[7], 0xffffff);
    wr_slide_add(&f->slide, 1, 7);
    assert_int_equal(wr_slide_sum(&f->slide, 1, 7, 1), 0xffffff);
}

static void what_was_added_can_be_taken_back_once(void **state)
{
    struct fixture *f = *state;
    wr_slide_add(&f->slide, 1, 7);
    wr_slide_take_back(&f->slide, 1, 7);
    wr_slide_take_back(&f->slide, 1, 7);
    assert_int_equal(wr_slide_sum(&f->slide, 1, 7, 1), 0);
    wr_slide_add(&f->slide, 1, 7 + WR_SLIDE_BUCKETS);
    wr_slide_take_back(&f->slide, 1, 7); /* its bucket has rolled on */
    assert_int_equal(wr_slide_sum(&f->slide, 1, 7 + WR_SLIDE_BUCKETS, 1), 1);
}

static void a_time_window_counts_each_kind(void **state)
{
    struct fixture *f = *state;
    wr_time_window_add(&f->time, 1, 50, false, false);
    wr_time_window_add(&f->time, 1, 51, true, false);
    wr_time_window_add(&f->time, 1, 52, false, true);
    wr_time_window_add(&f->time, 1, 53, true, true);
    assert_sums(wr_time_window_sum(&f->time, 1, 53, 10), 4, 2, 2);
    assert_sums(wr_time_window_sum(&f->time, 1, 61, 10), 2, 1, 2);
}

static void the_longest_time_window_holds_all_its_seconds(void **state)
{
    struct fixture *f = *state;
    for (uint64_t second = 1000; second < 1200; second++)
        wr_time_window_add(&f->time, 1, second, true, false);
    assert_sums(wr_time_window_sum(&f->time, 1, 1199, WR_SLIDE_SECONDS), 60, 60, 0);
}

static void a_count_window_holds_the_last_n(void **state)
{
    static const struct {
        uint32_t size;
        const char *verdicts;
        uint32_t calls, failures, slow;
    } table[] = {
        {5, "", 0, 0, 0},
        {5, "sfl", 3, 1, 1},
        {5, "fffsssss", 5, 0, 0},
        {5, "fffssss", 5, 1, 0},
        {1, "sfb", 1, 1, 1},
        {1, "bs", 1, 0, 0},
        {16, "ffffffffffffffffs", 16, 15, 0},
        {17, "bssssssssssssssss", 17, 1, 1},
        {17, "bsssssssssssssssss", 17, 0, 0},
        {33, "llllllllllllllllllllllllllllllllllllllll", 33, 0, 33},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        memset(&f->count, 0, sizeof f->count);
        add_all(&f->count, 1, table[i].size, table[i].verdicts);
        assert_sums(wr_count_window_sum(&f->count, 1, table[i].size), table[i].calls, table[i].failures,
                    table[i].slow);
    }
}

static void the_longest_count_window_counts_every_call(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < WR_COUNT_CALLS + 100; i++)
        wr_count_window_add(&f->count, 1, WR_COUNT_CALLS, true, true);
    assert_sums(wr_count_window_sum(&f->count, 1, WR_COUNT_CALLS), WR_COUNT_CALLS, WR_COUNT_CALLS,
                WR_COUNT_CALLS);
}

static void a_count_window_starts_afresh_with_a_generation(void **state)
{
    struct fixture *f = *state;
    add_all(&f->count, 1, 20, "ffffffffffffffffffff");
    assert_sums(wr_count_window_sum(&f->count, 2, 20), 0, 0, 0);
    add_all(&f->count, 2, 20, "sf");
    assert_sums(wr_count_window_sum(&f->count, 2, 20), 2, 1, 0);
}

static void an_older_generation_cannot_add_to_a_count_window(void **state)
{
    struct fixture *f = *state;
    add_all(&f->count, 2, 20, "s");
    add_all(&f->count, 1, 20, "ffff");
    assert_sums(wr_count_window_sum(&f->count, 2, 20), 1, 0, 0);
}

static void a_count_window_counts_across_the_wrap_of_its_generation(void **state)
{
    struct fixture *f = *state;
    add_all(&f->count, UINT32_MAX, 20, "ff");
    add_all(&f->count, 1, 20, "s");
    add_all(&f->count, UINT32_MAX, 20, "ff");
    assert_sums(wr_count_window_sum(&f->count, 1, 20), 1, 0, 0);
}

static void words_left_alone_for_any_number_of_generations_are_no_obstacle(void **state)
{
    static const uint32_t later[] = {1, 8191, 8192, 8193, 12000, 16383, 32768, 40000, 65535, 65536, 1u << 31};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        memset(f, 0, sizeof *f);
        wr_slide_add(&f->slide, 5, 7);
        wr_slide_add(&f->slide, 5 + later[i], 7 + WR_SLIDE_BUCKETS);
        assert_int_equal(wr_slide_sum(&f->slide, 5 + later[i], 7 + WR_SLIDE_BUCKETS, 1), 1);
        add_all(&f->count, 5, 64, "ffffffffffffffffffffffffffffffffffffffff");
        add_all(&f->count, 5 + later[i], 64, "sfs");
        assert_sums(wr_count_window_sum(&f->count, 5 + later[i], 64), 3, 1, 0);
    }
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(nanoseconds_round_down_to_their_second),
        CASE(a_slide_sums_the_seconds_asked_for),
        CASE(a_second_that_shares_a_bucket_replaces_the_old_one),
        CASE(a_straggler_cannot_undo_a_bucket_that_rolled_on),
        CASE(a_new_generation_starts_at_zero_within_the_same_second),
        CASE(a_slide_counts_across_the_wrap_of_its_generation),
        CASE(a_bucket_saturates_instead_of_running_into_its_tag),
        CASE(what_was_added_can_be_taken_back_once),
        CASE(a_time_window_counts_each_kind),
        CASE(the_longest_time_window_holds_all_its_seconds),
        CASE(a_count_window_holds_the_last_n),
        CASE(the_longest_count_window_counts_every_call),
        CASE(a_count_window_starts_afresh_with_a_generation),
        CASE(an_older_generation_cannot_add_to_a_count_window),
        CASE(a_count_window_counts_across_the_wrap_of_its_generation),
        CASE(words_left_alone_for_any_number_of_generations_are_no_obstacle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
