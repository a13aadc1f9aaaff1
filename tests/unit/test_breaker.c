/* The breaker while calls flow: what counts, what trips, and being open. Probing is in test_half_open.c, telling and
 * steering in test_breaker_control.c. */
#include "breaker_fixture.h"

#include "guard/settings.h"

/* ---- what trips ---- */

static void it_is_closed_and_has_counted_nothing_at_first(void **state)
{
    struct fixture *f = *state;
    begin(f);
    weir_breaker_snapshot seen = snapshot(f, at_ms(0));
    assert_int_equal(seen.state, WEIR_CLOSED);
    assert_int_equal(seen.calls, 0);
    assert_true(seen.failure_rate == -1 && seen.slow_rate == -1);
    assert_int_equal(seen.refused, 0);
    assert_int_equal(seen.opened_count, 0);
    assert_int_equal(seen.retry_after_ns, 0);
    assert_int_equal(seen.evidence.rule, WEIR_RULE_NONE);
}

static void the_failure_rate_trips_at_the_threshold_and_not_below(void **state)
{
    static const struct {
        int successes, failures;
        double threshold;
        weir_breaker_state expected;
    } table[] = {
        {5, 5, 0.5, WEIR_OPEN},        {6, 4, 0.5, WEIR_CLOSED}, {7, 3, 0.3, WEIR_OPEN},
        {8, 2, 0.3, WEIR_CLOSED},      {9, 1, 0.1, WEIR_OPEN},   {10, 0, 0.1, WEIR_CLOSED},
        {0, 10, 1.0, WEIR_OPEN},       {1, 9, 1.0, WEIR_CLOSED}, {20, 10, 1.0 / 3, WEIR_OPEN},
        {21, 9, 1.0 / 3, WEIR_CLOSED},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        f->config.failure_rate = table[i].threshold;
        begin(f);
        calls(f, table[i].successes, WEIR_SUCCESS, at_ms(1));
        calls(f, table[i].failures, WEIR_FAILURE, at_ms(1));
        assert_int_equal(state_at(f, at_ms(1)), table[i].expected);
    }
}

static void no_rate_is_judged_below_min_calls(void **state)
{
    struct fixture *f = *state;
    begin(f);
    assert_false(calls(f, 9, WEIR_FAILURE, at_ms(1)));
    assert_int_equal(state_at(f, at_ms(1)), WEIR_CLOSED);
    assert_true(snapshot(f, at_ms(1)).failure_rate == -1);
}

static void a_success_that_fills_min_calls_can_trip(void **state)
{
    struct fixture *f = *state;
    begin(f);
    calls(f, 9, WEIR_FAILURE, at_ms(1));
    assert_true(calls(f, 1, WEIR_SUCCESS, at_ms(1)));
    assert_int_equal(f->event.rule, WEIR_RULE_FAILURE_RATE);
    assert_true(f->event.rate == 0.9);
}

static void a_success_can_trip_when_older_successes_leave_the_window(void **state)
{
    struct fixture *f = *state;
    begin(f);
    calls(f, 12, WEIR_SUCCESS, at_ms(0));
    calls(f, 10, WEIR_FAILURE, at_ms(5000)); /* 10 of 22 */
    assert_int_equal(state_at(f, at_ms(9999)), WEIR_CLOSED);
    assert_false(calls(f, 1, WEIR_SUCCESS, at_ms(9999)));
    assert_true(calls(f, 1, WEIR_SUCCESS, at_ms(10000))); /* 10 of 12 */
}

static void slow_is_strictly_longer(void **state)
{
    struct fixture *f = *state;
    f->config.slow_call_ns = ms(200);
    begin(f);
    timed_call(f, WEIR_SUCCESS, ms(200), at_ms(1));
    assert_counts(f, at_ms(1), 1, 0, 0);
    timed_call(f, WEIR_SUCCESS, ms(200) + 1, at_ms(1));
    assert_counts(f, at_ms(1), 2, 0, 1);
}

static void slow_successes_trip_the_slow_rate(void **state)
{
    struct fixture *f = *state;
    f->config.slow_call_ns = ms(200);
    f->config.slow_rate = 0.5;
    begin(f);
    calls(f, 5, WEIR_SUCCESS, at_ms(1));
    for (int i = 0; i < 4; i++) assert_false(timed_call(f, WEIR_SUCCESS, ms(300), at_ms(1)));
    assert_true(timed_call(f, WEIR_SUCCESS, ms(300), at_ms(1)));
    assert_int_equal(f->event.rule, WEIR_RULE_SLOW_RATE);
    assert_true(f->event.rate == 0.5 && f->event.threshold == 0.5);
    assert_int_equal(state_at(f, at_ms(1)), WEIR_OPEN);
}

static void a_slow_failure_counts_as_both(void **state)
{
    struct fixture *f = *state;
    f->config.slow_call_ns = ms(200);
    begin(f);
    timed_call(f, WEIR_FAILURE, ms(300), at_ms(1));
    assert_counts(f, at_ms(1), 1, 1, 1);
}

static void no_call_is_slow_while_slow_call_is_off(void **state)
{
    struct fixture *f = *state;
    f->config.slow_rate = 0.1;
    begin(f);
    for (int i = 0; i < 20; i++) assert_false(timed_call(f, WEIR_SUCCESS, ms(3600000), at_ms(1)));
    assert_counts(f, at_ms(1), 20, 0, 0);
}

static void a_neutral_outcome_counts_nothing(void **state)
{
    struct fixture *f = *state;
    f->config.consecutive = 3;
    f->config.slow_call_ns = 1;
    begin(f);
    calls(f, 2, WEIR_FAILURE, at_ms(1));
    timed_call(f, WEIR_NEUTRAL, ms(500), at_ms(1));
    assert_counts(f, at_ms(1), 2, 2, 0);
    assert_true(calls(f, 1, WEIR_FAILURE, at_ms(1))); /* nor does it break the row */
}

static void failures_in_a_row_trip_at_the_limit_and_a_success_breaks_the_row(void **state)
{
    struct fixture *f = *state;
    f->config.consecutive = 3;
    begin(f);
    calls(f, 2, WEIR_FAILURE, at_ms(1));
    calls(f, 1, WEIR_SUCCESS, at_ms(1));
    assert_false(calls(f, 2, WEIR_FAILURE, at_ms(1)));
    assert_true(calls(f, 1, WEIR_FAILURE, at_ms(1)));
    assert_int_equal(f->event.rule, WEIR_RULE_CONSECUTIVE);
    assert_true(f->event.rate == 3 && f->event.threshold == 3);
}

static void the_row_is_not_forgotten_with_the_window(void **state)
{
    struct fixture *f = *state;
    f->config.consecutive = 2;
    begin(f);
    calls(f, 1, WEIR_FAILURE, at_ms(0));
    assert_true(calls(f, 1, WEIR_FAILURE, at_ms(60000)));
}

static void with_the_rates_off_only_the_row_trips(void **state)
{
    struct fixture *f = *state;
    f->config.rates_off = true;
    f->config.consecutive = 5;
    f->config.slow_call_ns = 1;
    f->config.slow_rate = 0.1;
    begin(f);
    for (int i = 0; i < 20; i++) {
        assert_false(calls(f, 4, WEIR_FAILURE, at_ms(1)));
        assert_false(timed_call(f, WEIR_SUCCESS, ms(1), at_ms(1)));
    }
    assert_true(calls(f, 5, WEIR_FAILURE, at_ms(1)));
}

static void a_failure_leaves_a_time_window_after_its_seconds(void **state)
{
    struct fixture *f = *state;
    begin(f);
    calls(f, 3, WEIR_FAILURE, at_ms(500));
    assert_counts(f, at_ms(9999), 3, 3, 0);
    assert_counts(f, at_ms(10000), 0, 0, 0);
}

static void a_count_window_keeps_the_last_calls_only(void **state)
{
    struct fixture *f = *state;
    f->config.window_calls = 10;
    begin(f);
    calls(f, 4, WEIR_FAILURE, at_ms(1));
    calls(f, 6, WEIR_SUCCESS, at_ms(1));
    assert_counts(f, at_ms(1), 10, 4, 0);
    calls(f, 3, WEIR_SUCCESS, at_ms(3600000)); /* time alone drops nothing */
    assert_counts(f, at_ms(3600000), 10, 1, 0);
    assert_int_equal(state_at(f, at_ms(3600000)), WEIR_CLOSED);
    assert_true(calls(f, 4, WEIR_FAILURE, at_ms(3600000)) == false);
    assert_true(calls(f, 1, WEIR_FAILURE, at_ms(3600000)));
}

static void min_calls_beyond_a_count_window_means_the_whole_window(void **state)
{
    struct fixture *f = *state;
    f->config.window_calls = 5;
    f->config.min_calls = 100;
    begin(f);
    assert_false(calls(f, 4, WEIR_FAILURE, at_ms(1)));
    assert_true(calls(f, 1, WEIR_FAILURE, at_ms(1)));
}

/* ---- open ---- */

static void open_admits_none_until_open_for_has_passed(void **state)
{
    struct fixture *f = *state;
    begin(f);
    trip(f, at_ms(100));
    assert_true(refused(f, at_ms(100)));
    assert_true(refused(f, at_ms(60100) - 1));
    assert_int_equal(state_at(f, at_ms(60100) - 1), WEIR_OPEN);
    assert_int_equal(state_at(f, at_ms(60100)), WEIR_HALF_OPEN);
    assert_int_equal(snapshot(f, at_ms(60100)).refused, 2);
    admit(f, at_ms(60100));
}

static void a_refusal_says_when_to_come_back(void **state)
{
    struct fixture *f = *state;
    begin(f);
    trip(f, at_ms(0));
    assert_int_equal(snapshot(f, at_ms(0)).retry_after_ns, ms(60000));
    assert_int_equal(snapshot(f, at_ms(59999)).retry_after_ns, ms(1));
    assert_int_equal(snapshot(f, at_ms(60000)).retry_after_ns, 0);
}

static void open_shows_the_counts_it_opened_on(void **state)
{
    struct fixture *f = *state;
    begin(f);
    trip(f, at_ms(0));
    weir_breaker_snapshot seen = snapshot(f, at_ms(30000));
    assert_int_equal(seen.calls, 10);
    assert_int_equal(seen.failures, 10);
    assert_true(seen.failure_rate == 1.0 && seen.slow_rate == 0.0);
    assert_int_equal(seen.opened_count, 1);
}

static void a_late_verdict_does_not_reach_the_next_generation(void **state)
{
    struct fixture *f = *state;
    begin(f);
    weir_permit stale = admit(f, at_ms(0));
    trip(f, at_ms(0));
    weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(10), NULL);
    assert_false(settle(f, stale, WEIR_FAILURE, at_ms(10)));
    assert_counts(f, at_ms(10), 0, 0, 0);
}

static void a_zeroed_permit_settles_to_nothing(void **state)
{
    struct fixture *f = *state;
    begin(f);
    assert_false(settle(f, (weir_permit){0}, WEIR_FAILURE, at_ms(1)));
    assert_counts(f, at_ms(1), 0, 0, 0);
}

static uint64_t doubling(void *ctx, uint32_t k)
{
    *(uint32_t *)ctx = k;
    return ms(1000) << (k - 1);
}

static void open_for_may_grow_with_each_opening_in_a_row(void **state)
{
    struct fixture *f = *state;
    uint32_t asked = 0;
    f->config.open_for = doubling;
    f->config.open_for_ctx = &asked;
    f->config.permits = 1;
    begin(f);
    trip(f, at_ms(0));
    assert_int_equal(snapshot(f, at_ms(0)).retry_after_ns, ms(1000));
    settle(f, admit(f, at_ms(1000)), WEIR_FAILURE, at_ms(1000));
    assert_int_equal(asked, 2);
    assert_int_equal(snapshot(f, at_ms(1000)).retry_after_ns, ms(2000));
    settle(f, admit(f, at_ms(3000)), WEIR_SUCCESS, at_ms(3000));
    trip(f, at_ms(3000)); /* it had closed, so the row starts anew */
    assert_int_equal(asked, 1);
    assert_int_equal(snapshot(f, at_ms(3000)).retry_after_ns, ms(1000));
}

static void an_open_for_function_of_another_program_is_never_called(void **state)
{
    (void)state;
    struct wr_settings settings = {0};
    weir_breaker_config config;
    uint32_t asked = 0;
    weir_breaker_defaults(&config);
    config.open_for = doubling;
    config.open_for_ctx = &asked;
    wr_settings_store(&settings, &config);
    assert_int_equal(wr_settings_open_for(&settings, 1), ms(1000));
    atomic_fetch_xor(&settings.seal, 1); /* as a program with another mark would find it */
    asked = 0;
    assert_int_equal(wr_settings_open_for(&settings, 1), ms(60000));
    assert_int_equal(asked, 0);
}

static uint64_t no_answer(void *ctx, uint32_t k)
{
    (void)ctx;
    (void)k;
    return 0;
}

static void an_open_for_function_that_gives_nothing_means_the_plain_value(void **state)
{
    struct fixture *f = *state;
    f->config.open_for = no_answer;
    begin(f);
    trip(f, at_ms(0));
    assert_int_equal(snapshot(f, at_ms(0)).retry_after_ns, ms(60000));
}

static void an_open_spell_without_end_does_not_overflow(void **state)
{
    struct fixture *f = *state;
    f->config.open_for_ns = UINT64_MAX;
    begin(f);
    trip(f, at_ms(0));
    assert_true(refused(f, UINT64_MAX - 1));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(it_is_closed_and_has_counted_nothing_at_first),
        CASE(the_failure_rate_trips_at_the_threshold_and_not_below),
        CASE(no_rate_is_judged_below_min_calls),
        CASE(a_success_that_fills_min_calls_can_trip),
        CASE(a_success_can_trip_when_older_successes_leave_the_window),
        CASE(slow_is_strictly_longer),
        CASE(slow_successes_trip_the_slow_rate),
        CASE(a_slow_failure_counts_as_both),
        CASE(no_call_is_slow_while_slow_call_is_off),
        CASE(a_neutral_outcome_counts_nothing),
        CASE(failures_in_a_row_trip_at_the_limit_and_a_success_breaks_the_row),
        CASE(the_row_is_not_forgotten_with_the_window),
        CASE(with_the_rates_off_only_the_row_trips),
        CASE(a_failure_leaves_a_time_window_after_its_seconds),
        CASE(a_count_window_keeps_the_last_calls_only),
        CASE(min_calls_beyond_a_count_window_means_the_whole_window),
        CASE(open_admits_none_until_open_for_has_passed),
        CASE(a_refusal_says_when_to_come_back),
        CASE(open_shows_the_counts_it_opened_on),
        CASE(a_late_verdict_does_not_reach_the_next_generation),
        CASE(a_zeroed_permit_settles_to_nothing),
        CASE(open_for_may_grow_with_each_opening_in_a_row),
        CASE(an_open_for_function_of_another_program_is_never_called),
        CASE(an_open_for_function_that_gives_nothing_means_the_plain_value),
        CASE(an_open_spell_without_end_does_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
