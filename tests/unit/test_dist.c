/* Distributions: what they give on average, where they end, and which are refused. */
#include "base/draw.h"

#include "weir/guard.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { DRAWS = 200000 };

static const double edges[] = {0, 1, 2, 10}, weights[] = {6, 0, 2};

struct moments {
    double mean, deviation, least, most;
};

static struct moments draw_many(const weir_dist *dist, uint64_t seed)
{
    struct wr_rng rng;
    struct moments m = {.least = HUGE_VAL};
    double sum = 0, squares = 0;
    wr_rng_seed(&rng, seed);
    for (int i = 0; i < DRAWS; i++) {
        double seconds = (double)wr_dist_draw(dist, &rng) / 1e9;
        sum += seconds;
        squares += seconds * seconds;
        if (seconds < m.least) m.least = seconds;
        if (seconds > m.most) m.most = seconds;
    }
    m.mean = sum / DRAWS;
    m.deviation = sqrt(squares / DRAWS - m.mean * m.mean);
    return m;
}

static void each_kind_has_its_moments_and_its_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        weir_dist dist;
        double mean, deviation, least, most;
    } cases[] = {
        {"constant", {.kind = WEIR_DIST_CONSTANT, .a = 0.25}, 0.25, 0, 0.25, 0.25},
        {"nothing", {.kind = WEIR_DIST_CONSTANT, .a = 0}, 0, 0, 0, 0},
        {"uniform", {.kind = WEIR_DIST_UNIFORM, .a = 1, .b = 3}, 2, 0.57735, 1, 3},
        {"exponential", {.kind = WEIR_DIST_EXPONENTIAL, .a = 0.5}, 0.5, 0.5, 0, 20},
        {"normal", {.kind = WEIR_DIST_NORMAL, .a = 10, .b = 1}, 10, 1, 4, 16},
        {"lognormal", {.kind = WEIR_DIST_LOGNORMAL, .a = 1, .b = 0.5}, 1.1331, 0.6039, 0, 20},
        {"pareto", {.kind = WEIR_DIST_PARETO, .a = 1, .b = 6}, 1.2, 0.2449, 1, 1000},
        {"cut pareto", {.kind = WEIR_DIST_PARETO, .a = 1, .b = 1, .c = 10}, 3.3026, 2.8444, 1, 10},
        {"histogram",
         {.kind = WEIR_DIST_HISTOGRAM, .edges = edges, .weights = weights, .count = 3},
         1.875,
         2.6585,
         0,
         10},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char why[WEIR_WHY_MAX] = "";
        assert_int_equal(weir_dist_check(&cases[i].dist, cases[i].name, why), WEIR_OK);
        struct moments m = draw_many(&cases[i].dist, 42);
        assert_true(fabs(m.mean - cases[i].mean) <= 0.015 * cases[i].mean);
        assert_true(fabs(weir_dist_mean(&cases[i].dist) - cases[i].mean) <= 0.001 * cases[i].mean);
        assert_true(fabs(m.deviation - cases[i].deviation) <= 0.03 * cases[i].deviation + 1e-4);
        assert_true(m.least >= cases[i].least - 1e-8 && m.most <= cases[i].most + 1e-8);
    }
}

static void a_bin_without_weight_is_never_drawn(void **state)
{
    (void)state;
    struct wr_rng rng;
    weir_dist dist = {.kind = WEIR_DIST_HISTOGRAM, .edges = edges, .weights = weights, .count = 3};
    wr_rng_seed(&rng, 1);
    for (int i = 0; i < DRAWS; i++) {
        uint64_t ns = wr_dist_draw(&dist, &rng);
        assert_false(ns >= UINT64_C(1000000000) && ns < UINT64_C(2000000000));
    }
}

static void the_same_seed_gives_the_same_values_and_another_seed_others(void **state)
{
    (void)state;
    weir_dist dist = {.kind = WEIR_DIST_LOGNORMAL, .a = 0.004, .b = 1};
    struct wr_rng one, same, other;
    wr_rng_seed(&one, 7);
    wr_rng_seed(&same, 7);
    wr_rng_seed(&other, 8);
    int different = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t value = wr_dist_draw(&dist, &one);
        assert_int_equal(value, wr_dist_draw(&dist, &same));
        if (value != wr_dist_draw(&dist, &other)) different++;
    }
    assert_true(different > 990);
}

static void a_constant_draws_nothing_from_the_generator(void **state)
{
    (void)state;
    weir_dist dist = {.kind = WEIR_DIST_CONSTANT, .a = 1};
    struct wr_rng rng, untouched;
    wr_rng_seed(&rng, 3);
    untouched = rng;
    (void)wr_dist_draw(&dist, &rng);
    assert_int_equal(wr_rng_next(&rng), wr_rng_next(&untouched));
}

static void no_value_is_longer_than_a_hundred_years(void **state)
{
    (void)state;
    struct wr_rng rng;
    weir_dist dist = {.kind = WEIR_DIST_LOGNORMAL, .a = 3e9, .b = 20};
    assert_int_equal(weir_dist_check(&dist, "x", NULL), WEIR_OK);
    wr_rng_seed(&rng, 3);
    for (int i = 0; i < 1000; i++)
        assert_true(wr_dist_draw(&dist, &rng) <= UINT64_C(100) * 366 * 24 * 3600 * 1000000000);
}

static void what_is_no_distribution_is_refused_with_its_knob(void **state)
{
    (void)state;
    static const double down[] = {2, 1}, one[] = {1}, minus[] = {-1}, zero[] = {0}, flat[] = {0, 1};
    static const struct {
        weir_dist dist;
        const char *words;
    } cases[] = {
        {{.kind = (weir_dist_kind)99}, "service: the kind is 99; it must be one of the known ones"},
        {{.kind = WEIR_DIST_CONSTANT, .a = -1}, "service: the duration is -1; it must be 0 or more"},
        {{.kind = WEIR_DIST_EXPONENTIAL, .a = NAN}, "service: the duration is"},
        {{.kind = WEIR_DIST_CONSTANT, .a = 1e10}, "service: the duration is 1e+10"},
        {{.kind = WEIR_DIST_UNIFORM, .a = 2, .b = 1}, "service: the longest is 1"},
        {{.kind = WEIR_DIST_NORMAL, .a = 1, .b = -1}, "service: the deviation is -1"},
        {{.kind = WEIR_DIST_LOGNORMAL, .a = 1, .b = 21}, "service: the deviation of the logarithm is 21"},
        {{.kind = WEIR_DIST_PARETO, .a = 1, .b = 0}, "service: the shape is 0"},
        {{.kind = WEIR_DIST_PARETO, .a = 2, .b = 1, .c = 1}, "service: the cut is 1"},
        {{.kind = WEIR_DIST_HISTOGRAM}, "service: the number of bins is 0; it must be 1 to 4096"},
        {{.kind = WEIR_DIST_HISTOGRAM, .count = 5000}, "the number of bins is 5000"},
        {{.kind = WEIR_DIST_HISTOGRAM, .edges = down, .weights = one, .count = 1}, "service: an edge is 2"},
        {{.kind = WEIR_DIST_HISTOGRAM, .edges = flat, .weights = minus, .count = 1},
         "service: a weight is -1"},
        {{.kind = WEIR_DIST_HISTOGRAM, .edges = flat, .weights = zero, .count = 1},
         "the sum of the weights is 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char why[WEIR_WHY_MAX] = "";
        assert_int_equal(weir_dist_check(&cases[i].dist, "service", why), WEIR_EINVAL);
        if (strstr(why, cases[i].words) == NULL) fail_msg("'%s' lacks '%s'", why, cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_has_its_moments_and_its_bounds),
        cmocka_unit_test(a_bin_without_weight_is_never_drawn),
        cmocka_unit_test(the_same_seed_gives_the_same_values_and_another_seed_others),
        cmocka_unit_test(a_constant_draws_nothing_from_the_generator),
        cmocka_unit_test(no_value_is_longer_than_a_hundred_years),
        cmocka_unit_test(what_is_no_distribution_is_refused_with_its_knob),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
