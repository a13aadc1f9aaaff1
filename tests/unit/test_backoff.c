#include "weir/guard.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const uint64_t ms = 1000000;

static weir_backoff made(weir_backoff_kind kind, uint64_t base_ns, uint64_t cap_ns, double factor)
{
    weir_backoff backoff;
    assert_int_equal(weir_backoff_init(&backoff, kind, base_ns, cap_ns, factor, NULL), WEIR_OK);
    return backoff;
}

static void each_kind_spans_its_range_from_the_lowest_to_the_highest_draw(void **state)
{
    static const struct {
        weir_backoff_kind kind;
        uint64_t lowest[4], highest[4]; /* ms; base 100, cap 500, factor 2 */
    } table[] = {
        {WEIR_BACKOFF_EXPONENTIAL, {100, 200, 400, 500}, {100, 200, 400, 500}},
        {WEIR_BACKOFF_CONSTANT, {100, 100, 100, 100}, {100, 100, 100, 100}},
        {WEIR_BACKOFF_FULL, {0, 0, 0, 0}, {100, 200, 400, 500}},
        {WEIR_BACKOFF_EQUAL, {50, 100, 200, 250}, {100, 200, 400, 500}},
        {WEIR_BACKOFF_DECORRELATED, {100, 100, 100, 100}, {300, 500, 500, 500}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        weir_backoff low = made(table[i].kind, 100 * ms, 500 * ms, 2);
        weir_backoff high = low;
        for (int n = 0; n < 4; n++) {
            assert_int_equal(weir_backoff_next(&low, 0), table[i].lowest[n] * ms);
            assert_int_equal(weir_backoff_next(&high, UINT64_MAX), table[i].highest[n] * ms);
        }
    }
}

static void reset_starts_from_base_again(void **state)
{
    (void)state;
    for (unsigned kind = WEIR_BACKOFF_FULL; kind <= WEIR_BACKOFF_CONSTANT; kind++) {
        weir_backoff backoff = made((weir_backoff_kind)kind, 100 * ms, 10000 * ms, 2);
        uint64_t first = weir_backoff_next(&backoff, UINT64_MAX);
        weir_backoff_next(&backoff, UINT64_MAX);
        weir_backoff_next(&backoff, UINT64_MAX);
        weir_backoff_reset(&backoff);
        assert_int_equal(weir_backoff_next(&backoff, UINT64_MAX), first);
    }
}

static void no_delay_is_ever_above_the_cap(void **state)
{
    static const struct {
        uint64_t base, cap;
        double factor;
    } table[] = {
        {1, 1, 1},         {1, UINT64_MAX, 1e300},  {UINT64_MAX, UINT64_MAX, 2},
        {3, 1000, 1.0001}, {7, UINT64_MAX / 2, 10},
    };
    (void)state;
    struct wr_rng rng;
    wr_rng_seed(&rng, 7);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        for (unsigned kind = WEIR_BACKOFF_FULL; kind <= WEIR_BACKOFF_CONSTANT; kind++) {
            weir_backoff backoff =
                made((weir_backoff_kind)kind, table[i].base, table[i].cap, table[i].factor);
            for (int n = 0; n < 2000; n++)
                assert_true(weir_backoff_next(&backoff, wr_rng_next(&rng)) <= table[i].cap);
        }
    }
}

static void it_stays_at_the_cap_however_long_it_goes_on(void **state)
{
    (void)state;
    weir_backoff backoff = made(WEIR_BACKOFF_EXPONENTIAL, 1, 1000, 1.5);
    backoff.step = UINT32_MAX;
    assert_int_equal(weir_backoff_next(&backoff, 0), 1000);
    assert_int_equal(weir_backoff_next(&backoff, 0), 1000);
}

static void a_factor_of_one_repeats_base(void **state)
{
    (void)state;
    weir_backoff backoff = made(WEIR_BACKOFF_EXPONENTIAL, 5, 1000, 1);
    backoff.step = 1000000;
    assert_int_equal(weir_backoff_next(&backoff, 0), 5);
}

static void full_jitter_is_spread_evenly(void **state)
{
    (void)state;
    struct wr_rng rng;
    int quarter[4] = {0};
    wr_rng_seed(&rng, 1);
    for (int i = 0; i < 40000; i++) {
        weir_backoff backoff = made(WEIR_BACKOFF_FULL, 1000, 1000, 2);
        uint64_t delay = weir_backoff_next(&backoff, wr_rng_next(&rng));
        quarter[delay < 1000 ? delay / 250 : 3]++;
    }
    for (int i = 0; i < 4; i++) assert_in_range(quarter[i], 9500, 10500);
}

static void decorrelated_follows_the_delay_before(void **state)
{
    (void)state;
    weir_backoff backoff = made(WEIR_BACKOFF_DECORRELATED, 100, 100000, 2);
    assert_int_equal(weir_backoff_next(&backoff, UINT64_MAX), 300);
    assert_int_equal(weir_backoff_next(&backoff, UINT64_MAX), 900);
    assert_int_equal(weir_backoff_next(&backoff, 0), 100);
    assert_int_equal(weir_backoff_next(&backoff, UINT64_MAX / 2), 200);
}

static void bad_knobs_are_refused_by_name(void **state)
{
    static const struct {
        unsigned kind;
        uint64_t base, cap;
        double factor;
        const char *why;
    } table[] = {
        {5, 1, 1, 2, "kind is 5: there is no such backoff"},
        {0, 0, 1, 2, "base is 0: it must be above 0"},
        {0, 2000000000, 1000000000, 2, "cap is 1 s: it must not be below base"},
        {0, 1, 1, 0.5, "factor is 0.5: it must be at least 1"},
        {0, 1, 1, (double)__builtin_nanf(""), "factor is nan: it must be at least 1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        weir_backoff backoff;
        char why[WEIR_WHY_MAX] = "";
        weir_backoff_kind kind = (weir_backoff_kind)table[i].kind;
        assert_int_equal(weir_backoff_init(&backoff, kind, table[i].base, table[i].cap, table[i].factor, why),
                         WEIR_EINVAL);
        assert_string_equal(why, table[i].why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_spans_its_range_from_the_lowest_to_the_highest_draw),
        cmocka_unit_test(reset_starts_from_base_again),
        cmocka_unit_test(no_delay_is_ever_above_the_cap),
        cmocka_unit_test(it_stays_at_the_cap_however_long_it_goes_on),
        cmocka_unit_test(a_factor_of_one_repeats_base),
        cmocka_unit_test(full_jitter_is_spread_evenly),
        cmocka_unit_test(decorrelated_follows_the_delay_before),
        cmocka_unit_test(bad_knobs_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
