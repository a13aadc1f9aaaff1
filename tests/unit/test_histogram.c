#include "base/histogram.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SAMPLES = 20000 };

static const uint64_t microsecond = 1000, hour = UINT64_C(3600000000000);

struct fixture {
    struct wr_histogram_fine fine, second;
    struct wr_histogram_coarse coarse;
    struct wr_histogram_view view, other;
    uint64_t sample[SAMPLES];
};

static int set_up(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static const struct wr_histogram_view *view_of(struct fixture *f, const struct wr_histogram_fine *histogram)
{
    wr_histogram_view_init(&f->view, WR_FINE_BITS);
    wr_histogram_merge_fine(&f->view, histogram);
    return &f->view;
}

static double relative_error(uint64_t found, uint64_t exact)
{
    return fabs((double)found - (double)exact) / (double)exact;
}

static uint64_t log_spaced(uint64_t low, uint64_t high, unsigned i, unsigned count)
{
    return (uint64_t)((double)low * pow((double)high / (double)low, (double)i / (double)(count - 1)));
}

/* A larger second value keeps the exact maximum out of the way. */
static void a_fine_value_comes_back_within_one_percent_from_a_microsecond_to_an_hour(void **state)
{
    struct fixture *f = *state;
    double worst = 0;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t value = log_spaced(microsecond, hour, i, 100000);
        memset(&f->fine, 0, sizeof f->fine);
        wr_histogram_record_fine(&f->fine, value);
        wr_histogram_record_fine(&f->fine, 4 * hour);
        worst = fmax(worst, relative_error(wr_histogram_quantile(view_of(f, &f->fine), 0.5), value));
    }
    assert_true(worst <= 0.01);
    assert_true(worst > 0.001); /* and the measure measures */
}

static void a_coarse_value_comes_back_within_an_eighth(void **state)
{
    struct fixture *f = *state;
    double worst = 0;
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t value = log_spaced(microsecond, hour, i, 10000);
        memset(&f->coarse, 0, sizeof f->coarse);
        wr_histogram_record_coarse(&f->coarse, value);
        wr_histogram_record_coarse(&f->coarse, 4 * hour);
        wr_histogram_view_init(&f->view, WR_COARSE_BITS);
        wr_histogram_merge_coarse(&f->view, &f->coarse);
        worst = fmax(worst, relative_error(wr_histogram_quantile(&f->view, 0.5), value));
    }
    assert_true(worst <= 0.125);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static double uniform(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(*seed >> 11) / 9007199254740992.0;
}

static uint64_t uniform_ms(double u)
{
    return 1000000 + (uint64_t)(u * 9e6);
}
static uint64_t exponential_ms(double u)
{
    return 1000 + (uint64_t)(-log(1 - u) * 5e6);
}
static uint64_t two_humps(double u)
{
    return (u < 0.9 ? 1000000 : 2000000000) + (uint64_t)(u * 1e5);
}
static uint64_t heavy_tail(double u)
{
    return (uint64_t)(50000 / pow(1 - u + 1e-9, 1.5));
}
static uint64_t constant(double u)
{
    return u < 2 ? 7000000 : 0;
}

static void quantiles_agree_with_a_sorted_array(void **state)
{
    struct fixture *f = *state;
    static uint64_t (*const shape[])(double) = {uniform_ms, exponential_ms, two_humps, heavy_tail, constant};
    static const double q[] = {0, 0.0001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1};
    for (size_t s = 0; s < sizeof shape / sizeof shape[0]; s++) {
        uint64_t seed = 42;
        memset(&f->fine, 0, sizeof f->fine);
        for (size_t i = 0; i < SAMPLES; i++) {
            f->sample[i] = shape[s](uniform(&seed));
            wr_histogram_record_fine(&f->fine, f->sample[i]);
        }
        qsort(f->sample, SAMPLES, sizeof f->sample[0], by_size);
        for (size_t i = 0; i < sizeof q / sizeof q[0]; i++) {
            size_t rank = (size_t)fmax(1, ceil(q[i] * SAMPLES));
            uint64_t found = wr_histogram_quantile(view_of(f, &f->fine), q[i]);
            assert_true(relative_error(found, f->sample[rank - 1]) <= 0.01);
        }
    }
}

static void merging_two_histograms_equals_recording_all_in_one(void **state)
{
    struct fixture *f = *state;
    struct wr_histogram_fine *all = calloc(1, sizeof *all);
    uint64_t seed = 7;
    for (size_t i = 0; i < SAMPLES; i++) {
        uint64_t value = heavy_tail(uniform(&seed));
        wr_histogram_record_fine(i % 3 == 0 ? &f->fine : &f->second, value);
        wr_histogram_record_fine(all, value);
    }
    wr_histogram_record_fine(&f->fine, 2 * hour); /* the maximum comes from the one that is merged first */
    wr_histogram_record_fine(all, 2 * hour);
    wr_histogram_view_init(&f->other, WR_FINE_BITS);
    wr_histogram_merge_fine(&f->other, &f->fine);
    wr_histogram_merge_fine(&f->other, &f->second);
    assert_memory_equal(&f->other, view_of(f, all), sizeof f->other);
    free(all);
}

static void count_and_sum_and_max_are_exact(void **state)
{
    struct fixture *f = *state;
    static const uint64_t value[] = {0, 1, 999, 1023, 1024, 123456789, 3, UINT64_C(5000000000000)};
    uint64_t sum = 0;
    for (size_t i = 0; i < 8; i++) {
        wr_histogram_record_fine(&f->fine, value[i]);
        sum += value[i];
    }
    const struct wr_histogram_view *view = view_of(f, &f->fine);
    assert_int_equal(view->count, 8);
    assert_int_equal(view->sum_ns, sum);
    assert_int_equal(view->max_ns, value[7]);
    assert_int_equal(atomic_load(&f->fine.count), 8);
}

static void a_single_value_is_every_quantile(void **state)
{
    struct fixture *f = *state;
    wr_histogram_record_fine(&f->fine, 123457);
    static const double q[] = {0, 0.5, 1};
    const struct wr_histogram_view *view = view_of(f, &f->fine);
    for (size_t i = 0; i < 3; i++) assert_int_equal(wr_histogram_quantile(view, q[i]), 123457);
}

static void a_quantile_is_never_above_the_maximum(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 10; i++) wr_histogram_record_fine(&f->fine, 1 << 20); /* the lowest of its bucket */
    assert_int_equal(wr_histogram_quantile(view_of(f, &f->fine), 0.5), 1 << 20);
}

static void the_rank_of_a_quantile_is_rounded_up(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 1; i <= 4; i++) wr_histogram_record_fine(&f->fine, i << 20);
    static const struct {
        double q;
        uint64_t value;
    } expected[] = {{0.24, 1}, {0.25, 1}, {0.26, 2}, {0.5, 2}, {0.51, 3}, {0.75, 3}, {0.76, 4}};
    const struct wr_histogram_view *view = view_of(f, &f->fine);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        uint64_t found = wr_histogram_quantile(view, expected[i].q);
        assert_true(relative_error(found, expected[i].value << 20) <= 0.01);
    }
}

static void quantiles_grow_with_q(void **state)
{
    struct fixture *f = *state;
    uint64_t seed = 99, previous = 0;
    for (size_t i = 0; i < SAMPLES; i++) wr_histogram_record_fine(&f->fine, exponential_ms(uniform(&seed)));
    view_of(f, &f->fine);
    for (int i = 0; i <= 1000; i++) {
        uint64_t value = wr_histogram_quantile(&f->view, i / 1000.0);
        assert_true(value >= previous);
        previous = value;
    }
}

static void q_outside_its_range_is_clamped(void **state)
{
    struct fixture *f = *state;
    wr_histogram_record_fine(&f->fine, 2000000);
    wr_histogram_record_fine(&f->fine, 8000000);
    const struct wr_histogram_view *view = view_of(f, &f->fine);
    static const double low[] = {-1, -INFINITY, NAN, 0}, high[] = {1.5, INFINITY, 1};
    for (size_t i = 0; i < 4; i++) {
        assert_true(relative_error(wr_histogram_quantile(view, low[i]), 2000000) <= 0.01);
    }
    for (size_t i = 0; i < 3; i++) assert_int_equal(wr_histogram_quantile(view, high[i]), 8000000);
}

static void an_empty_histogram_answers_zero(void **state)
{
    struct fixture *f = *state;
    const struct wr_histogram_view *view = view_of(f, &f->fine);
    assert_int_equal(wr_histogram_quantile(view, 0.5), 0);
    assert_int_equal(wr_histogram_count_below(view, UINT64_MAX), 0);
}

static void values_past_the_range_share_the_last_bucket_and_answer_with_the_maximum(void **state)
{
    struct fixture *f = *state;
    wr_histogram_record_fine(&f->fine, UINT64_C(1) << 42);
    wr_histogram_record_fine(&f->fine, UINT64_C(1) << 50);
    wr_histogram_record_fine(&f->fine, UINT64_MAX / 2);
    const struct wr_histogram_view *view = view_of(f, &f->fine);
    assert_int_equal(view->bucket[WR_FINE_BUCKETS - 1], 3);
    assert_int_equal(wr_histogram_quantile(view, 0.1), UINT64_MAX / 2);
}

static void count_below_counts_all_up_to_the_bound_and_few_beyond(void **state)
{
    struct fixture *f = *state;
    uint64_t seed = 5;
    for (size_t i = 0; i < SAMPLES; i++) {
        f->sample[i] = heavy_tail(uniform(&seed));
        wr_histogram_record_fine(&f->fine, f->sample[i]);
    }
    view_of(f, &f->fine);
    for (unsigned b = 0; b < 500; b++) {
        uint64_t bound = log_spaced(microsecond, hour, b, 500), least = 0, most = 0;
        for (size_t i = 0; i < SAMPLES; i++) {
            least += f->sample[i] <= bound;
            most += (double)f->sample[i] <= (double)bound * (1 + 1.0 / 64);
        }
        uint64_t counted = wr_histogram_count_below(&f->view, bound);
        assert_in_range(counted, least, most);
    }
}

static void every_boundary_value_lands_in_the_next_bucket(void **state)
{
    struct fixture *f = *state;
    for (unsigned octave = 10; octave <= 42; octave++) {
        memset(&f->fine, 0, sizeof f->fine);
        wr_histogram_record_fine(&f->fine, (UINT64_C(1) << octave) - 1);
        wr_histogram_record_fine(&f->fine, UINT64_C(1) << octave);
        const struct wr_histogram_view *view = view_of(f, &f->fine);
        size_t bucket = (size_t)(octave - 9) << WR_FINE_BITS;
        assert_int_equal(view->bucket[bucket - 1], 1);
        assert_int_equal(view->bucket[bucket], 1);
    }
}

#define histogram_test(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        histogram_test(a_fine_value_comes_back_within_one_percent_from_a_microsecond_to_an_hour),
        histogram_test(a_coarse_value_comes_back_within_an_eighth),
        histogram_test(quantiles_agree_with_a_sorted_array),
        histogram_test(merging_two_histograms_equals_recording_all_in_one),
        histogram_test(count_and_sum_and_max_are_exact),
        histogram_test(a_single_value_is_every_quantile),
        histogram_test(a_quantile_is_never_above_the_maximum),
        histogram_test(the_rank_of_a_quantile_is_rounded_up),
        histogram_test(quantiles_grow_with_q),
        histogram_test(q_outside_its_range_is_clamped),
        histogram_test(an_empty_histogram_answers_zero),
        histogram_test(values_past_the_range_share_the_last_bucket_and_answer_with_the_maximum),
        histogram_test(count_below_counts_all_up_to_the_bound_and_few_beyond),
        histogram_test(every_boundary_value_lands_in_the_next_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
