/* When requests arrive, without any engine: rates, ramps, the statistics of Poisson arrivals, bursts. */
#include "load/arrivals.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS(n) ((uint64_t)(n)*1000000u)
#define S(n)  MS((uint64_t)(n)*1000u)

enum { MOMENTS = 400000 };

static uint64_t moments[MOMENTS];

/* All arrivals of these options, in order. */
static size_t arrivals_of(const weir_load_options *options, uint64_t seed)
{
    struct wr_arrivals arrivals;
    size_t count = 0;
    assert_int_equal(wr_arrivals_init(&arrivals, wr_memory_libc(), options, seed), WEIR_OK);
    for (uint64_t at; (at = wr_arrivals_next_ns(&arrivals)) != UINT64_MAX; wr_arrivals_take(&arrivals)) {
        assert_true(count < MOMENTS);
        assert_true(at >= options->from_ns && at < options->until_ns);
        assert_true(count == 0 || at >= moments[count - 1]);
        moments[count++] = at;
    }
    wr_arrivals_release(&arrivals);
    return count;
}

static size_t count_in(size_t count, uint64_t from, uint64_t to)
{
    size_t in = 0;
    for (size_t i = 0; i < count; i++) in += moments[i] >= from && moments[i] < to;
    return in;
}

static void even_arrivals_stand_in_the_middle_of_their_time(void **state)
{
    (void)state;
    const weir_load_rate rate = {0, 100};
    weir_load_options options = {.rates = &rate, .rate_count = 1, .from_ns = S(10), .until_ns = S(12)};
    assert_int_equal(arrivals_of(&options, 1), 200);
    assert_int_equal(moments[0], S(10) + MS(5));
    assert_int_equal(moments[1], S(10) + MS(15));
    assert_int_equal(moments[199], S(12) - MS(5));
}

static void even_arrivals_do_not_drift_in_a_million_seconds(void **state)
{
    (void)state;
    const weir_load_rate rate = {0, 0.3};
    weir_load_options options = {.rates = &rate, .rate_count = 1, .until_ns = S(1000000)};
    assert_int_equal(arrivals_of(&options, 1), 300000);
    for (size_t i = 0; i < 300000; i++) {
        double expected = ((double)i + 0.5) / 0.3 * 1e9;
        assert_true(fabs((double)moments[i] - expected) < 1000);
    }
}

static void a_ramp_has_as_many_arrivals_as_its_area(void **state)
{
    (void)state;
    const weir_load_rate rates[] = {{S(0), 0}, {S(10), 100}};
    weir_load_options options = {.rates = rates, .rate_count = 2, .until_ns = S(10)};
    size_t count = arrivals_of(&options, 1);
    assert_int_equal(count, 500);
    assert_int_equal(count_in(count, 0, S(5)), 125);
    assert_int_equal(moments[0], (uint64_t)(sqrt(0.5 / 5) * 1e9)); /* 5 t^2 = 1/2 */
}

static void a_ramp_down_to_nothing_ends(void **state)
{
    (void)state;
    const weir_load_rate rates[] = {{S(0), 100}, {S(10), 0}};
    weir_load_options options = {.rates = rates, .rate_count = 2, .until_ns = UINT64_MAX};
    size_t count = arrivals_of(&options, 1);
    assert_int_equal(count, 500);
    assert_int_equal(count_in(count, 0, S(5)), 375);
}

static void two_points_at_one_moment_are_a_step(void **state)
{
    (void)state;
    const weir_load_rate rates[] = {{S(1), 10}, {S(3), 10}, {S(3), 1000}, {S(4), 1000}, {S(4), 0}};
    weir_load_options options = {.rates = rates, .rate_count = 5, .until_ns = S(9)};
    size_t count = arrivals_of(&options, 1);
    assert_int_equal(count_in(count, 0, S(3)), 30); /* before the first point its rate holds */
    assert_int_equal(count_in(count, S(3), S(4)), 1000);
    assert_int_equal(count, 1030);
}

static void after_the_last_point_its_rate_holds(void **state)
{
    (void)state;
    const weir_load_rate rates[] = {{S(0), 0}, {S(1), 20}};
    weir_load_options options = {.rates = rates, .rate_count = 2, .until_ns = S(11)};
    size_t count = arrivals_of(&options, 1);
    assert_int_equal(count, 210);
    assert_int_equal(count_in(count, S(1), S(11)), 200);
}

static void a_load_that_begins_inside_a_ramp_begins_at_the_rate_it_has_there(void **state)
{
    (void)state;
    const weir_load_rate rates[] = {{S(0), 0}, {S(10), 100}};
    weir_load_options options = {.rates = rates, .rate_count = 2, .from_ns = S(5), .until_ns = S(8)};
    assert_int_equal(arrivals_of(&options, 1), 195); /* 5 * (64 - 25) */
}

static void a_rate_of_zero_brings_nobody(void **state)
{
    (void)state;
    const weir_load_rate rate = {0, 0};
    weir_load_options options = {.rates = &rate, .rate_count = 1, .poisson = true, .until_ns = UINT64_MAX};
    assert_int_equal(arrivals_of(&options, 1), 0);
}

static void poisson_arrivals_have_the_mean_and_the_spread_of_a_poisson_process(void **state)
{
    (void)state;
    const weir_load_rate rate = {0, 1000};
    weir_load_options options = {.poisson = true, .rates = &rate, .rate_count = 1, .until_ns = S(100)};
    size_t count = arrivals_of(&options, 7);
    assert_true(fabs((double)count - 100000) < 4 * sqrt(100000));
    double gaps = 0,
           squares = 0; /* of a second each, counts in 1000 windows of 100 ms: variance equals mean */
    for (uint64_t i = 0; i < 1000; i++) {
        double in = (double)count_in(count, MS(100 * i), MS(100 * i + 100)) - 100;
        squares += in * in;
    }
    assert_true(squares / 1000 > 80 && squares / 1000 < 120);
    for (size_t i = 1; i < count; i++) gaps += moments[i] - moments[i - 1] > MS(1); /* P(gap > mean) = 1/e */
    assert_true(fabs(gaps / (double)count - exp(-1)) < 0.01);
}

static void poisson_arrivals_follow_a_ramp(void **state)
{
    (void)state;
    const weir_load_rate rates[] = {{S(0), 0}, {S(100), 2000}};
    weir_load_options options = {.poisson = true, .rates = rates, .rate_count = 2, .until_ns = S(100)};
    size_t count = arrivals_of(&options, 7);
    for (uint64_t i = 0; i < 10; i++) {
        double expected = 1000.0 * (2 * (double)i + 1);
        double in = (double)count_in(count, S(10 * i), S(10 * i + 10));
        assert_true(fabs(in - expected) < 4 * sqrt(expected));
    }
}

static void the_same_seed_brings_the_same_arrivals_and_another_brings_others(void **state)
{
    (void)state;
    static uint64_t first[2000];
    const weir_load_rate rate = {0, 100};
    weir_load_options options = {.poisson = true, .rates = &rate, .rate_count = 1, .until_ns = S(10)};
    size_t count = arrivals_of(&options, 7);
    memcpy(first, moments, count * sizeof *first);
    assert_int_equal(arrivals_of(&options, 7), count);
    assert_memory_equal(first, moments, count * sizeof *first);
    (void)arrivals_of(&options, 8);
    assert_int_not_equal(first[0], moments[0]);
}

static void bursts_come_all_at_once_and_only_in_their_time(void **state)
{
    (void)state;
    const weir_load_burst bursts[] = {{S(1), 5}, {S(3), 0}, {S(4), 100}, {S(4), 2}, {S(7), 1}, {S(10), 9}};
    weir_load_options options = {.bursts = bursts, .burst_count = 6, .from_ns = S(2), .until_ns = S(10)};
    size_t count = arrivals_of(&options, 1);
    assert_int_equal(count, 103);
    assert_int_equal(count_in(count, S(4), S(4) + 1), 102);
    assert_int_equal(moments[102], S(7));
}

static void bursts_and_rates_add_up_in_order(void **state)
{
    (void)state;
    const weir_load_rate rate = {0, 10};
    const weir_load_burst burst = {S(5), 50};
    weir_load_options options = {
        .rates = &rate, .rate_count = 1, .bursts = &burst, .burst_count = 1, .until_ns = S(10)};
    size_t count = arrivals_of(&options, 1);
    assert_int_equal(count, 150);
    assert_int_equal(count_in(count, S(5), S(5) + 1), 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(even_arrivals_stand_in_the_middle_of_their_time),
        cmocka_unit_test(even_arrivals_do_not_drift_in_a_million_seconds),
        cmocka_unit_test(a_ramp_has_as_many_arrivals_as_its_area),
        cmocka_unit_test(a_ramp_down_to_nothing_ends),
        cmocka_unit_test(two_points_at_one_moment_are_a_step),
        cmocka_unit_test(after_the_last_point_its_rate_holds),
        cmocka_unit_test(a_load_that_begins_inside_a_ramp_begins_at_the_rate_it_has_there),
        cmocka_unit_test(a_rate_of_zero_brings_nobody),
        cmocka_unit_test(poisson_arrivals_have_the_mean_and_the_spread_of_a_poisson_process),
        cmocka_unit_test(poisson_arrivals_follow_a_ramp),
        cmocka_unit_test(the_same_seed_brings_the_same_arrivals_and_another_brings_others),
        cmocka_unit_test(bursts_come_all_at_once_and_only_in_their_time),
        cmocka_unit_test(bursts_and_rates_add_up_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
