/* The breaker while calls flow: what counts, what trips, what an operator does. Probing is in test_half_open.c. */
#include "guard/breaker.h"
#include "guard/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    weir_breaker *breaker;
    weir_breaker_config config;
    weir_evidence event; /* of the last settle, tick or force that moved it */
};

static const uint64_t start_ns = UINT64_C(1700000000000000000);

static uint64_t at_ms(uint64_t ms)
{
    return start_ns + ms * UINT64_C(1000000);
}

static uint64_t ms(uint64_t n)
{
    return n * UINT64_C(1000000);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->breaker = aligned_alloc(64, weir_breaker_size());
    memset(f->breaker, 0xa5, weir_breaker_size()); /* init must not rely on what the memory held */
    weir_breaker_defaults(&f->config);
    f->config.min_calls = 10;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    free(f->breaker);
    free(f);
    return 0;
}

static void begin(struct fixture *f)
{
    assert_int_equal(weir_breaker_init(f->breaker, &f->config, at_ms(0), NULL), WEIR_OK);
}

static weir_permit admit(struct fixture *f, uint64_t now_ns)
{
    weir_permit permit;
    assert_true(weir_breaker_admit(f->breaker, 0, now_ns, &permit));
    return permit;
}

static bool refused(struct fixture *f, uint64_t now_ns)
{
    weir_permit permit;
    return !weir_breaker_admit(f->breaker, 0, now_ns, &permit);
}

static bool settle(struct fixture *f, weir_permit permit, weir_verdict verdict, uint64_t now_ns)
{
    return weir_breaker_settle(f->breaker, permit, verdict, 0, "08006", now_ns, &f->event);
}

/* Admits and settles one call after the other; true if the last one moved the breaker. */
static bool calls(struct fixture *f, int n, weir_verdict verdict, uint64_t now_ns)
{
    bool moved = false;
    for (int i = 0; i < n; i++) moved = settle(f, admit(f, now_ns), verdict, now_ns);
    return moved;
}

static bool timed_call(struct fixture *f, weir_verdict verdict, uint64_t elapsed_ns, uint64_t now_ns)
{
    return weir_breaker_settle(f->breaker, admit(f, now_ns), verdict, elapsed_ns, NULL, now_ns, &f->event);
}

static weir_breaker_state state_at(struct fixture *f, uint64_t now_ns)
{
    return weir_breaker_state_at(f->breaker, now_ns);
}

static weir_breaker_snapshot snapshot(struct fixture *f, uint64_t now_ns)
{
    weir_breaker_snapshot out;
    weir_breaker_snapshot_at(f->breaker, now_ns, &out);
    return out;
}

static void assert_counts(struct fixture *f, uint64_t now_ns, uint32_t n, uint32_t failures, uint32_t slow)
{
    weir_breaker_snapshot seen = snapshot(f, now_ns);
    assert_int_equal(seen.calls, n);
    assert_int_equal(seen.failures, failures);
    assert_int_equal(seen.slow, slow);
}

static void trip(struct fixture *f, uint64_t now_ns)
{
    assert_true(calls(f, 10, WEIR_FAILURE, now_ns));
    assert_int_equal(state_at(f, now_ns), WEIR_OPEN);
}

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

/* ---- evidence ---- */

static void a_trip_is_told_with_its_evidence(void **state)
{
    struct fixture *f = *state;
    char text[WEIR_WHY_MAX];
    begin(f);
    calls(f, 2, WEIR_SUCCESS, at_ms(7));
    for (int i = 0; i < 7; i++)
        weir_breaker_settle(f->breaker, admit(f, at_ms(7)), WEIR_FAILURE, 0, "57P03", at_ms(7), NULL);
    weir_breaker_settle(f->breaker, admit(f, at_ms(7)), WEIR_FAILURE, 0, "53300", at_ms(7), &f->event);
    weir_evidence kept = snapshot(f, at_ms(8)).evidence;
    assert_memory_equal(&kept, &f->event, sizeof kept);
    assert_int_equal(kept.from, WEIR_CLOSED);
    assert_int_equal(kept.to, WEIR_OPEN);
    assert_int_equal(kept.generation, 2);
    assert_int_equal(kept.at_ns, at_ms(7));
    assert_string_equal(weir_evidence_text(&kept, text, sizeof text),
                        "failure rate 0.80 >= 0.50 over 10 calls, last 53300 57P03 57P03 57P03");
}

static void codes_of_an_earlier_window_are_no_evidence(void **state)
{
    struct fixture *f = *state;
    begin(f);
    trip(f, at_ms(0));
    weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(1), &f->event);
    assert_string_equal(f->event.codes[0], "");
    for (int i = 0; i < 10; i++)
        weir_breaker_settle(f->breaker, admit(f, at_ms(2)), WEIR_FAILURE, 0,
                            i == 3 ? "refused by peer" : NULL, at_ms(2), &f->event);
    assert_string_equal(f->event.codes[0], "refused");
    assert_string_equal(f->event.codes[1], "");
}

static void codes_come_back_printable(void **state)
{
    struct fixture *f = *state;
    f->config.consecutive = 1;
    begin(f);
    weir_breaker_settle(f->breaker, admit(f, at_ms(0)), WEIR_FAILURE, 0, "a\033[2J", at_ms(0), &f->event);
    assert_string_equal(f->event.codes[0], "a?[2J");
}

static void a_half_written_record_is_not_believed(void **state)
{
    struct fixture *f = *state;
    begin(f);
    trip(f, at_ms(0));
    atomic_fetch_add(&f->breaker->log.slot[2].word[1], 1);
    weir_breaker_snapshot seen = snapshot(f, at_ms(0));
    assert_int_equal(seen.state, WEIR_OPEN);
    assert_int_equal(seen.evidence.rule, WEIR_RULE_NONE);
}

static void each_rule_has_its_sentence(void **state)
{
    static const struct {
        weir_evidence evidence;
        const char *text;
    } table[] = {
        {{.rule = WEIR_RULE_NONE}, "it has not moved"},
        {{.rule = WEIR_RULE_FAILURE_RATE, .calls = 1, .rate = 1, .threshold = 1},
         "failure rate 1.00 >= 1.00 over 1 call"},
        {{.rule = WEIR_RULE_SLOW_RATE, .calls = 20, .rate = 0.75, .threshold = 0.7},
         "slow rate 0.75 >= 0.70 over 20 calls"},
        {{.rule = WEIR_RULE_CONSECUTIVE, .rate = 5, .threshold = 5}, "5 failures in a row, limit 5"},
        {{.rule = WEIR_RULE_OPEN_ENDED}, "its open time has passed"},
        {{.rule = WEIR_RULE_PROBE}, "a background probe succeeded"},
        {{.rule = WEIR_RULE_HALF_OPEN_PASSED, .calls = 10, .failures = 1},
         "probes passed: 1 of 10 failed, 0 slow"},
        {{.rule = WEIR_RULE_HALF_OPEN_FAILED, .calls = 2, .failures = 1, .rate = 0.5, .threshold = 0.5},
         "probes failed: 1 of 2 failed, 0 slow, rate 0.50 >= 0.50"},
        {{.rule = WEIR_RULE_HALF_OPEN_WAIT, .calls = 1}, "half-open without judgement in time, 1 verdict"},
        {{.rule = WEIR_RULE_OPERATOR, .to = WEIR_DISABLED}, "an operator moved it to DISABLED"},
        {{.rule = WEIR_RULE_RESET}, "it was reset"},
        {{.rule = (weir_rule)99}, "it has not moved"},
    };
    char text[WEIR_WHY_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        assert_string_equal(weir_evidence_text(&table[i].evidence, text, sizeof text), table[i].text);
}

static void states_have_names_and_others_a_question_mark(void **state)
{
    (void)state;
    assert_string_equal(weir_breaker_state_name(WEIR_CLOSED), "CLOSED");
    assert_string_equal(weir_breaker_state_name(WEIR_HALF_OPEN), "HALF_OPEN");
    assert_string_equal(weir_breaker_state_name(WEIR_METRICS_ONLY), "METRICS_ONLY");
    assert_string_equal(weir_breaker_state_name((weir_breaker_state)7), "?");
    assert_string_equal(weir_breaker_state_name((weir_breaker_state)-1), "?");
}

/* ---- an operator ---- */

static void a_forced_breaker_admits_and_counts_as_its_state_says(void **state)
{
    static const struct {
        weir_breaker_state forced;
        bool admits;
        uint32_t counted;
    } table[] = {
        {WEIR_FORCED_OPEN, false, 0},
        {WEIR_FORCED_CLOSED, true, 50},
        {WEIR_DISABLED, true, 0},
        {WEIR_METRICS_ONLY, true, 50},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        begin(f);
        assert_true(weir_breaker_force(f->breaker, table[i].forced, at_ms(0), &f->event));
        assert_int_equal(f->event.rule, WEIR_RULE_OPERATOR);
        weir_permit permit;
        for (int n = 0; n < 50; n++) {
            assert_int_equal(weir_breaker_admit(f->breaker, 0, at_ms(1), &permit), table[i].admits);
            settle(f, permit, WEIR_FAILURE, at_ms(1));
        }
        assert_int_equal(state_at(f, at_ms(1)), table[i].forced);
        assert_counts(f, at_ms(1), table[i].counted, table[i].counted, 0);
        assert_int_equal(state_at(f, at_ms(3600000)), table[i].forced); /* time does not end it */
    }
}

static void ending_a_forced_state_gives_a_fresh_window(void **state)
{
    struct fixture *f = *state;
    begin(f);
    weir_breaker_force(f->breaker, WEIR_FORCED_CLOSED, at_ms(0), NULL);
    calls(f, 50, WEIR_FAILURE, at_ms(1));
    assert_true(weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(2), NULL));
    assert_counts(f, at_ms(2), 0, 0, 0);
    assert_false(calls(f, 1, WEIR_FAILURE, at_ms(2)));
}

static void forcing_into_the_same_state_or_a_state_of_its_own_does_nothing(void **state)
{
    struct fixture *f = *state;
    begin(f);
    assert_false(weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(0), &f->event));
    assert_false(weir_breaker_force(f->breaker, WEIR_OPEN, at_ms(0), &f->event));
    assert_false(weir_breaker_force(f->breaker, WEIR_HALF_OPEN, at_ms(0), &f->event));
    assert_false(weir_breaker_force(f->breaker, (weir_breaker_state)40, at_ms(0), &f->event));
    assert_true(weir_breaker_force(f->breaker, WEIR_DISABLED, at_ms(0), &f->event));
    assert_false(weir_breaker_force(f->breaker, WEIR_DISABLED, at_ms(0), &f->event));
    assert_int_equal(snapshot(f, at_ms(0)).generation, 2);
}

static void a_call_admitted_while_disabled_is_not_counted_afterwards(void **state)
{
    struct fixture *f = *state;
    begin(f);
    weir_breaker_force(f->breaker, WEIR_DISABLED, at_ms(0), NULL);
    weir_permit permit = admit(f, at_ms(0));
    weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(1), NULL);
    settle(f, permit, WEIR_FAILURE, at_ms(2));
    assert_counts(f, at_ms(2), 0, 0, 0);
}

static void metrics_only_reports_each_exceeded_threshold_once(void **state)
{
    struct fixture *f = *state;
    f->config.slow_call_ns = ms(1);
    f->config.slow_rate = 0.5;
    f->config.consecutive = 12;
    f->config.initial = WEIR_METRICS_ONLY;
    begin(f);
    unsigned reports[WEIR_RULE_RESET + 1] = {0};
    for (int i = 0; i < 100; i++) {
        if (timed_call(f, WEIR_FAILURE, ms(2), at_ms(1))) {
            assert_int_equal(f->event.from, WEIR_METRICS_ONLY);
            assert_int_equal(f->event.to, WEIR_METRICS_ONLY);
            reports[f->event.rule]++;
        }
    }
    assert_int_equal(reports[WEIR_RULE_FAILURE_RATE], 1);
    assert_int_equal(reports[WEIR_RULE_SLOW_RATE], 1);
    assert_int_equal(reports[WEIR_RULE_CONSECUTIVE], 1);
    assert_int_equal(state_at(f, at_ms(1)), WEIR_METRICS_ONLY);
}

static void metrics_only_reports_again_after_it_was_entered_again(void **state)
{
    struct fixture *f = *state;
    f->config.initial = WEIR_METRICS_ONLY;
    begin(f);
    assert_true(calls(f, 10, WEIR_FAILURE, at_ms(1)));
    weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(2), NULL);
    weir_breaker_force(f->breaker, WEIR_METRICS_ONLY, at_ms(2), NULL);
    assert_true(calls(f, 10, WEIR_FAILURE, at_ms(3)));
}

static void reset_closes_and_forgets(void **state)
{
    struct fixture *f = *state;
    begin(f);
    trip(f, at_ms(0));
    assert_true(refused(f, at_ms(1)));
    weir_breaker_reset(f->breaker, at_ms(2));
    weir_breaker_snapshot seen = snapshot(f, at_ms(2));
    assert_int_equal(seen.state, WEIR_CLOSED);
    assert_int_equal(seen.calls, 0);
    assert_int_equal(seen.refused, 0);
    assert_int_equal(seen.opened_count, 0);
    assert_int_equal(seen.evidence.rule, WEIR_RULE_RESET);
}

static void it_may_start_in_any_state(void **state)
{
    struct fixture *f = *state;
    for (unsigned initial = WEIR_CLOSED; initial <= WEIR_METRICS_ONLY; initial++) {
        f->config.initial = (weir_breaker_state)initial;
        begin(f);
        assert_int_equal(state_at(f, at_ms(0)), initial);
    }
    f->config.initial = WEIR_OPEN;
    begin(f);
    assert_int_equal(snapshot(f, at_ms(0)).retry_after_ns, ms(60000));
}

static void a_damaged_word_admits_nothing_and_can_be_reset(void **state)
{
    struct fixture *f = *state;
    begin(f);
    atomic_store(&f->breaker->word, UINT64_MAX);
    assert_true(refused(f, at_ms(0)));
    assert_string_equal(weir_breaker_state_name(snapshot(f, at_ms(0)).state), "?");
    weir_breaker_reset(f->breaker, at_ms(0));
    admit(f, at_ms(0));
}

static void generations_wrap_around_the_zeroed_permit(void **state)
{
    struct fixture *f = *state;
    begin(f);
    atomic_store(&f->breaker->word, UINT64_C(0xffffffff) << 32 | WEIR_CLOSED);
    trip(f, at_ms(0));
    assert_int_equal(snapshot(f, at_ms(0)).generation, 1);
    weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(1), NULL);
    trip(f, at_ms(1));
}

/* ---- configuration ---- */

static void a_new_configuration_keeps_state_and_counts(void **state)
{
    struct fixture *f = *state;
    begin(f);
    weir_permit flying = admit(f, at_ms(0));
    calls(f, 4, WEIR_FAILURE, at_ms(1));
    f->config.min_calls = 5;
    assert_int_equal(weir_breaker_configure(f->breaker, &f->config, at_ms(2), NULL), WEIR_OK);
    assert_counts(f, at_ms(2), 4, 4, 0);
    assert_true(settle(f, flying, WEIR_FAILURE, at_ms(2)));
}

static void a_stricter_threshold_is_applied_at_the_next_call(void **state)
{
    struct fixture *f = *state;
    begin(f);
    calls(f, 16, WEIR_SUCCESS, at_ms(1));
    calls(f, 4, WEIR_FAILURE, at_ms(1));
    f->config.failure_rate = 0.1;
    weir_breaker_configure(f->breaker, &f->config, at_ms(1), NULL);
    assert_true(calls(f, 1, WEIR_SUCCESS, at_ms(1)));
}

static void counts_of_a_window_of_another_kind_are_dropped(void **state)
{
    struct fixture *f = *state;
    begin(f);
    calls(f, 9, WEIR_FAILURE, at_ms(1));
    f->config.window_calls = 50;
    weir_breaker_configure(f->breaker, &f->config, at_ms(1), NULL);
    assert_counts(f, at_ms(1), 0, 0, 0);
    calls(f, 9, WEIR_FAILURE, at_ms(1));
    f->config.window_calls = 0;
    weir_breaker_configure(f->breaker, &f->config, at_ms(1), NULL);
    assert_counts(f, at_ms(1), 0, 0, 0);
}

static void a_bad_configuration_is_refused_by_name_and_changes_nothing(void **state)
{
    static const struct {
        size_t offset, size;
        union {
            double d;
            uint64_t u64;
            uint32_t u32;
        } value;
        const char *why;
    } table[] = {
#define KNOB(field) offsetof(weir_breaker_config, field), sizeof((weir_breaker_config){0}.field)
        {KNOB(window_ns), {.u64 = 999999999}, "window is 0.999999999 s: it must be 1 to 60 s"},
        {KNOB(window_ns), {.u64 = 60000000001}, "window is 60.000000001 s: it must be 1 to 60 s"},
        {KNOB(window_calls), {.u32 = 4097}, "window_calls is 4097: it must be at most 4096"},
        {KNOB(min_calls), {.u32 = 0}, "min_calls is 0: it must be at least 1"},
        {KNOB(failure_rate), {.d = 0}, "failure_rate is 0: it must be above 0 and at most 1"},
        {KNOB(failure_rate), {.d = 1.5}, "failure_rate is 1.5: it must be above 0 and at most 1"},
        {KNOB(failure_rate),
         {.u64 = 0x7ff8000000000000},
         "failure_rate is nan: it must be above 0 and at most 1"},
        {KNOB(slow_rate), {.d = -0.1}, "slow_rate is -0.1: it must be above 0 and at most 1"},
        {KNOB(rates_off), {.u32 = 1}, "consecutive is 0 with the rates off: nothing could ever trip"},
        {KNOB(open_for_ns), {.u64 = 0}, "open_for is 0: it must be above 0"},
        {KNOB(permits), {.u32 = 0}, "half-open permits is 0: it must be 1 to 64"},
        {KNOB(permits), {.u32 = 65}, "half-open permits is 65: it must be 1 to 64"},
        {KNOB(lease_ns), {.u64 = 0}, "lease is 0: it must be above 0"},
        {KNOB(initial), {.u32 = 7}, "initial state is 7: there is no such state"},
    };
    struct fixture *f = *state;
    begin(f);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        weir_breaker_config bad = f->config;
        char why[WEIR_WHY_MAX] = "";
        memcpy((char *)&bad + table[i].offset, &table[i].value, table[i].size);
        assert_int_equal(weir_breaker_configure(f->breaker, &bad, at_ms(0), why), WEIR_EINVAL);
        assert_string_equal(why, table[i].why);
        assert_int_equal(weir_breaker_init(f->breaker, &bad, at_ms(0), NULL), WEIR_EINVAL);
    }
    trip(f, at_ms(0));
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
        CASE(a_trip_is_told_with_its_evidence),
        CASE(codes_of_an_earlier_window_are_no_evidence),
        CASE(codes_come_back_printable),
        CASE(a_half_written_record_is_not_believed),
        CASE(each_rule_has_its_sentence),
        CASE(states_have_names_and_others_a_question_mark),
        CASE(a_forced_breaker_admits_and_counts_as_its_state_says),
        CASE(ending_a_forced_state_gives_a_fresh_window),
        CASE(forcing_into_the_same_state_or_a_state_of_its_own_does_nothing),
        CASE(a_call_admitted_while_disabled_is_not_counted_afterwards),
        CASE(metrics_only_reports_each_exceeded_threshold_once),
        CASE(metrics_only_reports_again_after_it_was_entered_again),
        CASE(reset_closes_and_forgets),
        CASE(it_may_start_in_any_state),
        CASE(a_damaged_word_admits_nothing_and_can_be_reset),
        CASE(generations_wrap_around_the_zeroed_permit),
        CASE(a_new_configuration_keeps_state_and_counts),
        CASE(a_stricter_threshold_is_applied_at_the_next_call),
        CASE(counts_of_a_window_of_another_kind_are_dropped),
        CASE(a_bad_configuration_is_refused_by_name_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
