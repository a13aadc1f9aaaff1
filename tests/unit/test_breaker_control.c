/* What a breaker tells about its moves, and what an operator does to it. */
#include "breaker_fixture.h"

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
                        "failure rate 0.80 >= 0.50 over 10 calls, last 53300, 57P03 x3");
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

static void the_reason_of_an_earlier_state_does_not_pass_for_this_ones(void **state)
{
    struct fixture *f = *state;
    begin(f);
    trip(f, at_ms(0));
    weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(1), NULL);
    atomic_fetch_add(&f->breaker->log.slot[3].seal, 1); /* its writer was killed in the middle */
    weir_evidence evidence = snapshot(f, at_ms(1)).evidence;
    assert_int_equal(evidence.rule, WEIR_RULE_NONE);
    assert_int_equal(evidence.to, WEIR_CLOSED);
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
        {{.rule = WEIR_RULE_FORCE_ENDED}, "the time is over for which it was forced"},
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

static void a_release_ends_what_was_forced_and_nothing_newer(void **state)
{
    struct fixture *f = *state;
    weir_breaker_snapshot before;
    begin(f);
    weir_breaker_snapshot_at(f->breaker, at_ms(0), &before);
    assert_false(weir_breaker_release(f->breaker, before.generation, at_ms(0), &f->event)); /* not forced */
    assert_true(weir_breaker_force(f->breaker, WEIR_FORCED_OPEN, at_ms(0), NULL));
    weir_breaker_snapshot_at(f->breaker, at_ms(1), &before);
    assert_false(weir_breaker_force(f->breaker, WEIR_FORCED_OPEN, at_ms(1), NULL)); /* once more */
    assert_false(weir_breaker_release(f->breaker, before.generation, at_ms(2), &f->event));
    assert_int_equal(state_at(f, at_ms(2)), WEIR_FORCED_OPEN);
    weir_breaker_snapshot_at(f->breaker, at_ms(2), &before);
    assert_true(weir_breaker_release(f->breaker, before.generation, at_ms(3), &f->event));
    assert_int_equal(f->event.from, WEIR_FORCED_OPEN);
    assert_int_equal(f->event.to, WEIR_CLOSED);
    assert_int_equal(f->event.rule, WEIR_RULE_FORCE_ENDED);
    assert_int_equal(state_at(f, at_ms(3)), WEIR_CLOSED);
    assert_false(weir_breaker_release(f->breaker, before.generation, at_ms(3), &f->event));
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

static void forcing_into_the_same_state_or_a_state_of_its_own_is_no_move(void **state)
{
    struct fixture *f = *state;
    begin(f);
    assert_false(weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(0), &f->event));
    assert_false(weir_breaker_force(f->breaker, WEIR_OPEN, at_ms(0), &f->event));
    assert_false(weir_breaker_force(f->breaker, WEIR_HALF_OPEN, at_ms(0), &f->event));
    assert_false(weir_breaker_force(f->breaker, (weir_breaker_state)40, at_ms(0), &f->event));
    assert_true(weir_breaker_force(f->breaker, WEIR_DISABLED, at_ms(0), &f->event));
    assert_false(weir_breaker_force(f->breaker, WEIR_DISABLED, at_ms(0), &f->event));
    assert_int_equal(snapshot(f, at_ms(0)).entered[WEIR_DISABLED], 1);
    assert_int_equal(snapshot(f, at_ms(0)).generation, 3); /* but a word newer than the first */
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
    unsigned reports[WEIR_RULE_FORCE_ENDED + 1] = {0};
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

static void moves_are_counted_by_the_state_they_lead_to(void **state)
{
    struct fixture *f = *state;
    weir_breaker_snapshot now;
    f->config.open_for_ns = ms(100);
    f->config.permits = 1;
    begin(f);
    assert_true(calls(f, 10, WEIR_FAILURE, at_ms(1)));
    assert_true(settle(f, admit(f, at_ms(200)), WEIR_FAILURE, at_ms(200))); /* half-open, and open again */
    assert_true(settle(f, admit(f, at_ms(400)), WEIR_SUCCESS, at_ms(400)));
    weir_breaker_force(f->breaker, WEIR_DISABLED, at_ms(500), NULL);
    weir_breaker_force(f->breaker, WEIR_DISABLED, at_ms(500), NULL);
    weir_breaker_force(f->breaker, WEIR_CLOSED, at_ms(500), NULL);
    weir_breaker_reset(f->breaker, at_ms(600)); /* from closed to closed: no move */
    weir_breaker_snapshot_at(f->breaker, at_ms(600), &now);
    static const uint64_t expected[WEIR_BREAKER_STATES] = {
        [WEIR_CLOSED] = 2, [WEIR_OPEN] = 2, [WEIR_HALF_OPEN] = 2, [WEIR_DISABLED] = 1};
    for (int i = 0; i < WEIR_BREAKER_STATES; i++) assert_int_equal(now.entered[i], expected[i]);
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
        CASE(a_trip_is_told_with_its_evidence),
        CASE(codes_of_an_earlier_window_are_no_evidence),
        CASE(codes_come_back_printable),
        CASE(a_half_written_record_is_not_believed),
        CASE(the_reason_of_an_earlier_state_does_not_pass_for_this_ones),
        CASE(each_rule_has_its_sentence),
        CASE(states_have_names_and_others_a_question_mark),
        CASE(a_forced_breaker_admits_and_counts_as_its_state_says),
        CASE(a_release_ends_what_was_forced_and_nothing_newer),
        CASE(ending_a_forced_state_gives_a_fresh_window),
        CASE(forcing_into_the_same_state_or_a_state_of_its_own_is_no_move),
        CASE(a_call_admitted_while_disabled_is_not_counted_afterwards),
        CASE(metrics_only_reports_each_exceeded_threshold_once),
        CASE(metrics_only_reports_again_after_it_was_entered_again),
        CASE(reset_closes_and_forgets),
        CASE(moves_are_counted_by_the_state_they_lead_to),
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
