#include "weir/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint64_t start_ns = UINT64_C(1700000000000000000), ms = 1000000;

static int set_up(void **state)
{
    *state = aligned_alloc(64, weir_rate_size());
    memset(*state, 0xa5, weir_rate_size());
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static void begin(weir_rate *rate, double per_second, double burst)
{
    assert_int_equal(weir_rate_init(rate, per_second, burst, start_ns, NULL), WEIR_OK);
}

static int taken(weir_rate *rate, int asked, uint64_t now_ns)
{
    int n = 0;
    while (n < asked && weir_rate_take(rate, now_ns, NULL)) n++;
    return n;
}

static void a_full_bucket_gives_its_burst_at_once(void **state)
{
    weir_rate *rate = *state;
    begin(rate, 10, 5);
    assert_int_equal(taken(rate, 100, start_ns), 5);
}

static void a_refusal_says_when_the_next_token_is_there(void **state)
{
    weir_rate *rate = *state;
    uint64_t wait = 1;
    begin(rate, 10, 1);
    assert_true(weir_rate_take(rate, start_ns, &wait));
    assert_int_equal(wait, 0);
    assert_false(weir_rate_take(rate, start_ns + 30 * ms, &wait));
    assert_int_equal(wait, 70 * ms);
    assert_false(weir_rate_take(rate, start_ns + 100 * ms - 1, &wait));
    assert_int_equal(wait, 1);
    assert_true(weir_rate_take(rate, start_ns + 100 * ms, &wait));
}

static void refused_takes_cost_nothing(void **state)
{
    weir_rate *rate = *state;
    begin(rate, 10, 1);
    assert_int_equal(taken(rate, 1, start_ns), 1);
    for (int i = 0; i < 1000; i++) assert_false(weir_rate_take(rate, start_ns, NULL));
    assert_true(weir_rate_take(rate, start_ns + 100 * ms, NULL));
}

static void rest_fills_the_bucket_and_no_further(void **state)
{
    weir_rate *rate = *state;
    begin(rate, 10, 5);
    assert_int_equal(taken(rate, 5, start_ns), 5);
    assert_int_equal(taken(rate, 100, start_ns + 250 * ms), 2);
    assert_int_equal(taken(rate, 100, start_ns + 86400000 * ms), 5);
}

static void the_rate_is_kept_in_the_long_run(void **state)
{
    static const struct {
        double per_second;
        uint64_t step_ns;
        int seconds, least, most;
    } table[] = {
        {3, 1000000, 100, 300, 302},
        {7.5, 1000000, 100, 750, 752},
        {300000, 100, 1, 299990, 300005},
        {0.5, 10000000, 100, 50, 52},
    };
    weir_rate *rate = *state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        int n = 0;
        begin(rate, table[i].per_second, 2); /* room for what falls between two steps */
        uint64_t end = start_ns + (uint64_t)table[i].seconds * 1000 * ms;
        for (uint64_t now = start_ns; now < end; now += table[i].step_ns)
            n += weir_rate_take(rate, now, NULL);
        assert_in_range(n, table[i].least, table[i].most);
    }
}

static void a_clock_before_the_start_is_the_start(void **state)
{
    weir_rate *rate = *state;
    begin(rate, 10, 2);
    assert_int_equal(taken(rate, 10, 0), 2);
}

static void bad_knobs_are_refused_by_name(void **state)
{
    static const struct {
        double per_second, burst;
        const char *why;
    } table[] = {
        {0, 1, "per_second is 0: it must be above 0 and at most 1000000"},
        {-3, 1, "per_second is -3: it must be above 0 and at most 1000000"},
        {2e6, 1, "per_second is 2e+06: it must be above 0 and at most 1000000"},
        {1, 0.5, "burst is 0.5: it must be at least 1"},
        {1e-3, 1e9, "burst is 1e+09: at this per_second it would take more than 1e8 s to fill"},
    };
    weir_rate *rate = *state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char why[WEIR_WHY_MAX] = "";
        assert_int_equal(weir_rate_init(rate, table[i].per_second, table[i].burst, 0, why), WEIR_EINVAL);
        assert_string_equal(why, table[i].why);
    }
}

static void a_new_configuration_counts_at_once_and_what_was_taken_stays_taken(void **state)
{
    weir_rate *rate = *state;
    begin(rate, 10, 5);
    assert_int_equal(taken(rate, 100, start_ns), 5);
    assert_int_equal(weir_rate_configure(rate, 100, 5, NULL), WEIR_OK);
    assert_int_equal(taken(rate, 100, start_ns), 0);
    assert_int_equal(taken(rate, 100, start_ns + 600 * ms), 5);
    assert_int_equal(taken(rate, 100, start_ns + 650 * ms), 5);
    assert_int_equal(weir_rate_configure(rate, 0, 5, NULL), WEIR_EINVAL);
    assert_int_equal(weir_rate_configure(rate, 100, 0.5, NULL), WEIR_EINVAL);
    assert_int_equal(taken(rate, 100, start_ns + 700 * ms), 5);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_full_bucket_gives_its_burst_at_once),
        CASE(a_refusal_says_when_the_next_token_is_there),
        CASE(refused_takes_cost_nothing),
        CASE(rest_fills_the_bucket_and_no_further),
        CASE(the_rate_is_kept_in_the_long_run),
        CASE(a_clock_before_the_start_is_the_start),
        CASE(bad_knobs_are_refused_by_name),
        cmocka_unit_test_setup_teardown(a_new_configuration_counts_at_once_and_what_was_taken_stays_taken,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
