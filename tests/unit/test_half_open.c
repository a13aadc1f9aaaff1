/* How an open breaker finds its way back: probes, leases, judgement, and what becomes of the lost ones. */
#include "guard/breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PERMITS = 4 };

struct fixture {
    weir_breaker *breaker;
    weir_breaker_config config;
    weir_evidence event;
    weir_permit probes[PERMITS];
};

/* Every test starts at the moment a breaker that opened at 0 s may be probed. */
static const uint64_t second = UINT64_C(1000000000), ready = UINT64_C(60000000000);

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->breaker = aligned_alloc(64, weir_breaker_size());
    weir_breaker_defaults(&f->config);
    f->config.permits = PERMITS;
    f->config.initial = WEIR_OPEN;
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
    assert_int_equal(weir_breaker_init(f->breaker, &f->config, 0, NULL), WEIR_OK);
}

static bool admitted(struct fixture *f, uint32_t owner, uint64_t now_ns, weir_permit *permit)
{
    return weir_breaker_admit(f->breaker, owner, now_ns, permit);
}

static bool refused(struct fixture *f, uint64_t now_ns)
{
    weir_permit permit;
    return !admitted(f, 0, now_ns, &permit);
}

static void begin_with_all_probes_out(struct fixture *f)
{
    begin(f);
    for (int i = 0; i < PERMITS; i++) assert_true(admitted(f, 0, ready, &f->probes[i]));
}

static bool settle(struct fixture *f, weir_permit permit, weir_verdict verdict, uint64_t now_ns)
{
    return weir_breaker_settle(f->breaker, permit, verdict, 0, "57P01", now_ns, &f->event);
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

/* ---- permits ---- */

static void exactly_permits_probes_are_admitted(void **state)
{
    struct fixture *f = *state;
    begin_with_all_probes_out(f);
    assert_true(refused(f, ready));
    settle(f, f->probes[0], WEIR_SUCCESS, ready);
    assert_true(refused(f, ready)); /* a vote uses the permit up */
}

static void a_neutral_probe_gives_its_permit_back(void **state)
{
    struct fixture *f = *state;
    begin_with_all_probes_out(f);
    assert_false(settle(f, f->probes[2], WEIR_NEUTRAL, ready));
    assert_int_equal(snapshot(f, ready).calls, 0);
    assert_true(admitted(f, 0, ready, &f->probes[2]));
    assert_true(refused(f, ready));
}

static void a_probe_settled_twice_votes_once(void **state)
{
    struct fixture *f = *state;
    begin_with_all_probes_out(f);
    for (int i = 0; i < PERMITS; i++) assert_false(settle(f, f->probes[0], WEIR_FAILURE, ready));
    assert_int_equal(snapshot(f, ready).calls, 1);
    assert_int_equal(state_at(f, ready), WEIR_HALF_OPEN);
}

static void a_permit_given_back_cannot_vote_with_its_successors_place(void **state)
{
    struct fixture *f = *state;
    begin_with_all_probes_out(f);
    weir_permit old = f->probes[1];
    settle(f, old, WEIR_NEUTRAL, ready);
    assert_true(admitted(f, 0, ready, &f->probes[1]));
    settle(f, old, WEIR_FAILURE, ready);
    assert_int_equal(snapshot(f, ready).calls, 0);
}

static void a_forged_lease_is_ignored(void **state)
{
    struct fixture *f = *state;
    begin_with_all_probes_out(f);
    weir_permit forged = f->probes[0];
    static const uint16_t leases[] = {0, 2, WR_LEASES, WR_LEASES + 1, UINT16_MAX};
    for (size_t i = 0; i < sizeof leases / sizeof leases[0]; i++) {
        forged.lease = leases[i];
        settle(f, forged, WEIR_FAILURE, ready);
    }
    assert_int_equal(snapshot(f, ready).calls, 0);
}

/* ---- judgement ---- */

static void it_is_judged_by_rate_after_exactly_permits_verdicts(void **state)
{
    static const struct {
        int failures;
        double threshold;
        weir_breaker_state expected;
        weir_rule rule;
    } table[] = {
        {0, 0.5, WEIR_CLOSED, WEIR_RULE_HALF_OPEN_PASSED}, {1, 0.5, WEIR_CLOSED, WEIR_RULE_HALF_OPEN_PASSED},
        {2, 0.5, WEIR_OPEN, WEIR_RULE_HALF_OPEN_FAILED},   {4, 0.5, WEIR_OPEN, WEIR_RULE_HALF_OPEN_FAILED},
        {1, 0.25, WEIR_OPEN, WEIR_RULE_HALF_OPEN_FAILED},  {3, 1.0, WEIR_CLOSED, WEIR_RULE_HALF_OPEN_PASSED},
    };
    struct fixture *f = *state;
    for (size_t t = 0; t < sizeof table / sizeof table[0]; t++) {
        f->config.failure_rate = table[t].threshold;
        begin_with_all_probes_out(f);
        for (int i = 0; i < PERMITS - 1; i++)
            assert_false(settle(f, f->probes[i], i < table[t].failures ? WEIR_FAILURE : WEIR_SUCCESS, ready));
        weir_verdict last = table[t].failures == PERMITS ? WEIR_FAILURE : WEIR_SUCCESS;
        assert_true(settle(f, f->probes[PERMITS - 1], last, ready));
        assert_int_equal(state_at(f, ready), table[t].expected);
        assert_int_equal(f->event.rule, table[t].rule);
        assert_int_equal(f->event.calls, PERMITS);
        assert_int_equal(f->event.failures, table[t].failures);
    }
}

static void slow_probes_open_it_by_the_slow_rate(void **state)
{
    struct fixture *f = *state;
    f->config.slow_call_ns = 100;
    f->config.slow_rate = 0.5;
    begin_with_all_probes_out(f);
    for (int i = 0; i < PERMITS; i++)
        weir_breaker_settle(f->breaker, f->probes[i], WEIR_SUCCESS, i < 2 ? 101 : 100, NULL, ready,
                            &f->event);
    assert_int_equal(state_at(f, ready), WEIR_OPEN);
    assert_int_equal(f->event.slow, 2);
}

static void failures_in_a_row_open_it_at_once(void **state)
{
    struct fixture *f = *state;
    f->config.consecutive = 2;
    begin_with_all_probes_out(f);
    assert_false(settle(f, f->probes[0], WEIR_FAILURE, ready));
    assert_true(settle(f, f->probes[1], WEIR_FAILURE, ready));
    assert_int_equal(f->event.rule, WEIR_RULE_CONSECUTIVE);
    assert_int_equal(state_at(f, ready), WEIR_OPEN);
}

static void a_row_on_the_last_vote_opens_though_the_rate_would_close(void **state)
{
    struct fixture *f = *state;
    f->config.consecutive = 2;
    f->config.failure_rate = 0.9;
    begin_with_all_probes_out(f);
    settle(f, f->probes[0], WEIR_SUCCESS, ready);
    settle(f, f->probes[1], WEIR_SUCCESS, ready);
    settle(f, f->probes[2], WEIR_FAILURE, ready);
    assert_true(settle(f, f->probes[3], WEIR_FAILURE, ready));
    assert_int_equal(f->event.to, WEIR_OPEN);
}

static void a_failed_probe_counts_even_with_the_rates_off(void **state)
{
    struct fixture *f = *state;
    f->config.rates_off = true;
    f->config.consecutive = 5;
    f->config.permits = 1;
    begin(f);
    assert_true(admitted(f, 0, ready, &f->probes[0]));
    assert_true(settle(f, f->probes[0], WEIR_FAILURE, ready));
    assert_int_equal(state_at(f, ready), WEIR_OPEN);
}

static void a_judgement_its_judge_did_not_live_to_pass_is_passed_by_the_next(void **state)
{
    struct fixture *f = *state;
    begin_with_all_probes_out(f);
    for (int i = 0; i < PERMITS; i++) /* the votes stand, but the process died before it judged */
        assert_true(wr_lease_settle(&f->breaker->leases, f->probes[i], WR_BALLOT_VOTED, ready));
    assert_int_equal(state_at(f, ready), WEIR_CLOSED);
    assert_true(weir_breaker_tick(f->breaker, ready, &f->event));
    assert_int_equal(f->event.rule, WEIR_RULE_HALF_OPEN_PASSED);
}

static void without_ticks_an_admission_passes_it_once_the_judge_must_be_dead(void **state)
{
    struct fixture *f = *state;
    weir_permit permit;
    f->config.lease_ns = 5 * second;
    begin_with_all_probes_out(f);
    for (int i = 0; i < PERMITS; i++)
        assert_true(wr_lease_settle(&f->breaker->leases, f->probes[i], WR_BALLOT_VOTED, ready));
    assert_true(refused(f, ready + 5 * second - 1)); /* the judge may be about to report it */
    assert_true(admitted(f, 0, ready + 5 * second, &permit));
    assert_int_equal(snapshot(f, ready + 5 * second).evidence.rule, WEIR_RULE_HALF_OPEN_PASSED);
}

static void closing_gives_a_fresh_window(void **state)
{
    struct fixture *f = *state;
    f->config.failure_rate = 1.0;
    begin_with_all_probes_out(f);
    for (int i = 0; i < PERMITS; i++) settle(f, f->probes[i], i == 0 ? WEIR_SUCCESS : WEIR_FAILURE, ready);
    weir_breaker_snapshot seen = snapshot(f, ready);
    assert_int_equal(seen.state, WEIR_CLOSED);
    assert_int_equal(seen.calls, 0);
}

static void a_probe_of_an_earlier_half_open_cannot_vote_in_the_next(void **state)
{
    struct fixture *f = *state;
    f->config.consecutive = 1;
    begin_with_all_probes_out(f);
    settle(f, f->probes[0], WEIR_FAILURE, ready);
    weir_permit fresh;
    assert_true(admitted(f, 0, 2 * ready, &fresh)); /* takes place 1 again */
    assert_false(settle(f, f->probes[1], WEIR_FAILURE, 2 * ready));
    assert_false(settle(f, f->probes[0], WEIR_FAILURE, 2 * ready));
    assert_int_equal(state_at(f, 2 * ready), WEIR_HALF_OPEN);
    assert_int_equal(snapshot(f, 2 * ready).calls, 0);
}

static void each_opening_is_counted(void **state)
{
    struct fixture *f = *state;
    f->config.permits = 1;
    begin(f);
    for (uint64_t k = 1; k <= 3; k++) {
        assert_true(admitted(f, 0, k * ready, &f->probes[0]));
        assert_true(settle(f, f->probes[0], WEIR_FAILURE, k * ready));
        assert_int_equal(snapshot(f, k * ready).opened_count, k);
    }
}

/* ---- lost probes ---- */

static void an_expired_lease_comes_back_as_neutral(void **state)
{
    struct fixture *f = *state;
    f->config.lease_ns = 5 * second;
    begin_with_all_probes_out(f);
    assert_true(refused(f, ready + 5 * second - 1));
    assert_int_equal(snapshot(f, ready + second).retry_after_ns, 4 * second);
    weir_permit fresh;
    assert_true(admitted(f, 0, ready + 5 * second, &fresh));
    assert_int_equal(snapshot(f, ready + 5 * second).calls, 0);
}

static void a_verdict_after_the_lease_ended_is_not_counted(void **state)
{
    struct fixture *f = *state;
    f->config.lease_ns = 5 * second;
    begin_with_all_probes_out(f);
    assert_false(settle(f, f->probes[0], WEIR_FAILURE, ready + 5 * second));
    assert_int_equal(snapshot(f, ready + 5 * second).calls, 0);
    weir_permit fresh;
    assert_true(admitted(f, 0, ready + 5 * second, &fresh));
}

static void reclaiming_a_dead_owner_frees_its_probes_and_no_others(void **state)
{
    struct fixture *f = *state;
    begin(f);
    for (int i = 0; i < PERMITS; i++) assert_true(admitted(f, i < 3 ? 7 : 8, ready, &f->probes[i]));
    weir_breaker_reclaim(f->breaker, 7, ready);
    assert_false(settle(f, f->probes[0], WEIR_FAILURE, ready)); /* it was not dead after all: too late */
    for (int i = 0; i < 3; i++) assert_true(admitted(f, 9, ready, &f->probes[i]));
    assert_true(refused(f, ready));
}

static void reclaiming_does_not_take_votes_back(void **state)
{
    struct fixture *f = *state;
    begin(f);
    assert_true(admitted(f, 7, ready, &f->probes[0]));
    settle(f, f->probes[0], WEIR_SUCCESS, ready);
    weir_breaker_reclaim(f->breaker, 7, ready);
    assert_int_equal(snapshot(f, ready).calls, 1);
}

/* ---- time ---- */

static void without_a_wait_limit_it_stays_half_open(void **state)
{
    struct fixture *f = *state;
    begin_with_all_probes_out(f);
    assert_int_equal(state_at(f, ready + 86400 * second), WEIR_HALF_OPEN);
}

static void no_judgement_within_the_wait_opens_it_again(void **state)
{
    struct fixture *f = *state;
    f->config.half_open_wait_ns = 10 * second;
    begin_with_all_probes_out(f);
    assert_false(weir_breaker_tick(f->breaker, ready + 10 * second - 1, &f->event));
    assert_int_equal(state_at(f, ready + 10 * second), WEIR_OPEN);
    assert_int_equal(snapshot(f, ready + 11 * second).retry_after_ns, 59 * second);
    assert_true(weir_breaker_tick(f->breaker, ready + 10 * second, &f->event));
    assert_int_equal(f->event.rule, WEIR_RULE_HALF_OPEN_WAIT);
    assert_true(refused(f, ready + 10 * second));
}

static void a_verdict_after_the_wait_opens_instead_of_voting(void **state)
{
    struct fixture *f = *state;
    f->config.half_open_wait_ns = 10 * second;
    f->config.permits = 1;
    begin(f);
    assert_true(admitted(f, 0, ready, &f->probes[0]));
    assert_true(settle(f, f->probes[0], WEIR_SUCCESS, ready + 10 * second));
    assert_int_equal(f->event.rule, WEIR_RULE_HALF_OPEN_WAIT);
    assert_int_equal(state_at(f, ready + 10 * second), WEIR_OPEN);
}

static void a_wait_nobody_noticed_counts_from_when_it_ran_out(void **state)
{
    struct fixture *f = *state;
    f->config.half_open_wait_ns = 10 * second;
    begin_with_all_probes_out(f);
    uint64_t much_later = ready + 10 * second + ready;
    assert_int_equal(state_at(f, much_later - 1), WEIR_OPEN);
    assert_int_equal(state_at(f, much_later), WEIR_HALF_OPEN);
    weir_permit fresh;
    assert_true(admitted(f, 0, much_later, &fresh));
}

static void a_tick_opens_the_door_without_a_call(void **state)
{
    struct fixture *f = *state;
    begin(f);
    assert_false(weir_breaker_tick(f->breaker, ready - 1, &f->event));
    assert_true(weir_breaker_tick(f->breaker, ready, &f->event));
    assert_int_equal(f->event.from, WEIR_OPEN);
    assert_int_equal(f->event.to, WEIR_HALF_OPEN);
    assert_int_equal(f->event.rule, WEIR_RULE_OPEN_ENDED);
    assert_false(weir_breaker_tick(f->breaker, ready, &f->event));
}

static void a_background_probe_opens_the_door_early_and_only_when_open(void **state)
{
    struct fixture *f = *state;
    begin(f);
    assert_true(weir_breaker_probe_passed(f->breaker, second, &f->event));
    assert_int_equal(f->event.rule, WEIR_RULE_PROBE);
    assert_int_equal(state_at(f, second), WEIR_HALF_OPEN);
    assert_false(weir_breaker_probe_passed(f->breaker, second, &f->event));
    weir_breaker_force(f->breaker, WEIR_FORCED_OPEN, second, NULL);
    assert_false(weir_breaker_probe_passed(f->breaker, second, &f->event));
}

static void fewer_permits_in_a_new_configuration_are_judged_as_they_stand(void **state)
{
    struct fixture *f = *state;
    begin_with_all_probes_out(f);
    settle(f, f->probes[0], WEIR_SUCCESS, ready);
    settle(f, f->probes[1], WEIR_SUCCESS, ready);
    f->config.permits = 2;
    weir_breaker_configure(f->breaker, &f->config, ready, NULL);
    assert_int_equal(state_at(f, ready), WEIR_CLOSED);
}

static void a_new_window_does_not_let_further_probes_in(void **state)
{
    struct fixture *f = *state;
    begin_with_all_probes_out(f);
    f->config.window_calls = 100;
    weir_breaker_configure(f->breaker, &f->config, ready, NULL);
    assert_true(refused(f, ready));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(exactly_permits_probes_are_admitted),
        CASE(a_neutral_probe_gives_its_permit_back),
        CASE(a_probe_settled_twice_votes_once),
        CASE(a_permit_given_back_cannot_vote_with_its_successors_place),
        CASE(a_forged_lease_is_ignored),
        CASE(it_is_judged_by_rate_after_exactly_permits_verdicts),
        CASE(slow_probes_open_it_by_the_slow_rate),
        CASE(failures_in_a_row_open_it_at_once),
        CASE(a_row_on_the_last_vote_opens_though_the_rate_would_close),
        CASE(a_failed_probe_counts_even_with_the_rates_off),
        CASE(a_judgement_its_judge_did_not_live_to_pass_is_passed_by_the_next),
        CASE(without_ticks_an_admission_passes_it_once_the_judge_must_be_dead),
        CASE(closing_gives_a_fresh_window),
        CASE(a_probe_of_an_earlier_half_open_cannot_vote_in_the_next),
        CASE(each_opening_is_counted),
        CASE(an_expired_lease_comes_back_as_neutral),
        CASE(a_verdict_after_the_lease_ended_is_not_counted),
        CASE(reclaiming_a_dead_owner_frees_its_probes_and_no_others),
        CASE(reclaiming_does_not_take_votes_back),
        CASE(without_a_wait_limit_it_stays_half_open),
        CASE(no_judgement_within_the_wait_opens_it_again),
        CASE(a_verdict_after_the_wait_opens_instead_of_voting),
        CASE(a_wait_nobody_noticed_counts_from_when_it_ran_out),
        CASE(a_tick_opens_the_door_without_a_call),
        CASE(a_background_probe_opens_the_door_early_and_only_when_open),
        CASE(fewer_permits_in_a_new_configuration_are_judged_as_they_stand),
        CASE(a_new_window_does_not_let_further_probes_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
