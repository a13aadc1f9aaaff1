/* The breaker as the engine uses it: who is refused and why, probes, forced states, and what each end tells
 * it. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct fake fake;
    weir_options options;
    weir_client client;
    bool down; /* every statement fails as of a server in need */
    bool probe_is_mute;
    bool lose_singles;
    bool slow_begins;
};

static void answer(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                   struct fake_answer *answer)
{
    struct fixture *f = fake->user;
    (void)link;
    bool statement = segment->kind == WR_SEGMENT_SINGLE || segment->kind == WR_SEGMENT_BEGIN;
    if (f->down && statement) memcpy(answer->sqlstate, "53200", 6);
    if (f->lose_singles && segment->kind == WR_SEGMENT_SINGLE) answer->lost = answer->survives = true;
    if (f->slow_begins && segment->kind == WR_SEGMENT_BEGIN) answer->after_ns = FAKE_MS(5000);
    if (f->probe_is_mute && segment->kind == WR_SEGMENT_PROBE) answer->never = true;
}

static int set_up(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    fake_init(&f.fake);
    fake_options(&f.options);
    f.client = f.options.clients[0];
    f.options.clients = &f.client;
    f.options.client_count = 1;
    f.options.timeout_ns = FAKE_MS(1000);
    f.options.connect_timeout_ns = FAKE_MS(500);
    f.options.breaker.min_calls = 4;
    f.options.retries = 0;
    f.fake.user = &f;
    f.fake.answer = answer;
    f.fake.books = true;
    *state = &f;
    return 0;
}

static void run_ms(struct fixture *f, uint64_t ms)
{
    fake_run(&f->fake, FAKE_MS(ms));
}

static weir_code code_of_one(struct fixture *f)
{
    weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 10);
    weir_code code = fake_code(call);
    weir_call_free(call);
    return code;
}

static void trip(struct fixture *f)
{
    f->down = true;
    for (int i = 0; i < 4; i++) assert_int_equal(code_of_one(f), WEIR_CALL_SERVER);
    f->down = false;
}

static void expect_state(struct fixture *f, const char *name)
{
    char json[8192], wanted[64];
    weir_health_json(f->fake.engine, json, sizeof json);
    snprintf(wanted, sizeof wanted, "\"circuitState\":\"%s\"", name);
    assert_non_null(strstr(json, wanted));
}

static void close_fake(struct fixture *f)
{
    run_ms(f, 20);
    fake_close(&f->fake);
}

/* ---- opening --------------------------------------------------------------------------------- */

static void an_open_breaker_refuses_with_evidence_and_a_time(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    trip(f);
    int sends = f->fake.sends;
    weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 1");
    assert_int_equal(fake_code(call), WEIR_CALL_BREAKER_OPEN);
    assert_int_equal(fake_outcome(call), WEIR_OUTCOME_NONE);
    assert_non_null(strstr(weir_call_error(call)->evidence, "53200"));
    assert_in_range(weir_call_error(call)->retry_after_ns, FAKE_MS(50000), FAKE_MS(60000));
    assert_int_equal(f->fake.sends, sends);
    weir_call_free(call);
    close_fake(f);
}

static void who_waits_when_it_opens_is_refused_at_once(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[20];
    f->client.max = 1;
    f->client.queue_max = 100;
    fake_open(&f->fake, &f->options);
    f->down = true;
    for (int i = 0; i < 20; i++) calls[i] = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 10);
    int refused = 0;
    for (int i = 0; i < 20; i++) {
        refused += fake_code(calls[i]) == WEIR_CALL_BREAKER_OPEN;
        weir_call_free(calls[i]);
    }
    assert_int_equal(refused, 16);
    close_fake(f);
}

static void the_callers_own_mistakes_do_not_open_it(void **state)
{
    static const char *const states[] = {"23505", "42601", "22012", "40001",
                                         "57014", "55P03", "42501", "XX000"};
    struct fixture *f = *state;
    f->fake.answer = NULL;
    fake_open(&f->fake, &f->options);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        weir_call *unit = fake_begin(&f->fake, (weir_request){0});
        run_ms(f, 5);
        fake_send(unit, "select 1");
        for (int l = 0; l < FAKE_LINKS; l++) memcpy(f->fake.links[l].at_work.answer.sqlstate, states[i], 6);
        run_ms(f, 5);
        fake_finish(unit, WEIR_FAILED);
        run_ms(f, 5);
        weir_call_free(unit);
    }
    expect_state(f, "CLOSED");
    assert_int_equal(code_of_one(f), WEIR_CALL_OK);
    close_fake(f);
}

static void a_loss_hidden_by_a_rollback_of_the_owner_counts_all_the_same(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    for (int i = 0; i < 4; i++) {
        weir_call *unit = fake_begin(&f->fake, (weir_request){0});
        run_ms(f, 5);
        fake_crash(&f->fake);
        fake_finish(unit, WEIR_ROLLBACK);
        run_ms(f, 5);
        weir_call_free(unit);
    }
    expect_state(f, "OPEN");
    close_fake(f);
}

static void a_deadline_on_the_wire_counts_for_units_too(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    f->slow_begins = true;
    for (int i = 0; i < 4; i++) {
        weir_call *unit = fake_begin(&f->fake, (weir_request){.timeout_ns = FAKE_MS(100)});
        run_ms(f, 5);
        fake_send(unit, "select 1");
        run_ms(f, 200);
        assert_int_equal(fake_code(unit), WEIR_CALL_TIMEOUT);
        weir_call_free(unit);
    }
    expect_state(f, "OPEN");
    close_fake(f);
}

static void a_refusal_after_a_doubtful_attempt_keeps_the_doubt(void **state)
{
    struct fixture *f = *state;
    f->options.retries = 3;
    f->options.backoff = WEIR_BACKOFF_CONSTANT;
    fake_open(&f->fake, &f->options);
    f->lose_singles = true;
    weir_call *call = fake_submit(&f->fake, (weir_request){.idempotent = true}, "select 7");
    run_ms(f, 10);
    assert_int_equal(weir_call_status(call), WEIR_WAITING); /* backing off after a loss that did commit */
    weir_force_breaker(f->fake.engine, NULL, WEIR_FORCED_OPEN, NULL);
    run_ms(f, 100);
    assert_int_equal(fake_code(call), WEIR_CALL_BREAKER_OPEN);
    assert_int_equal(f->fake.effects[7], 1);
    assert_int_equal(fake_outcome(call), WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(weir_call_error(call)->class_, WEIR_CLASS_UNKNOWN);
    weir_call_free(call);
    close_fake(f);
}

/* ---- half open ------------------------------------------------------------------------------- */

static void half_open_lets_few_through_and_closes_when_they_succeed(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.permits = 2;
    f->options.breaker.open_for_ns = FAKE_MS(500);
    f->options.probe_interval_ns = FAKE_MS(60000);
    fake_open(&f->fake, &f->options);
    trip(f);
    run_ms(f, 500);
    weir_call *calls[3];
    for (int i = 0; i < 3; i++) calls[i] = fake_submit(&f->fake, (weir_request){0}, "select 1");
    assert_int_equal(fake_code(calls[2]), WEIR_CALL_BREAKER_OPEN);
    run_ms(f, 10);
    for (int i = 0; i < 3; i++) weir_call_free(calls[i]);
    expect_state(f, "CLOSED");
    close_fake(f);
}

static void a_cancelled_call_gives_its_half_open_permit_back(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.permits = 1;
    f->options.breaker.open_for_ns = FAKE_MS(500);
    f->options.probe_interval_ns = FAKE_MS(60000);
    fake_open(&f->fake, &f->options);
    trip(f);
    run_ms(f, 500);
    for (int i = 0; i < 5; i++) {
        weir_call *call = fake_begin(&f->fake, (weir_request){0});
        run_ms(f, (uint64_t)i);
        weir_call_free(call);
    }
    expect_state(f, "HALF_OPEN");
    weir_call *untouched = fake_begin(&f->fake, (weir_request){0});
    run_ms(f, 5);
    fake_finish(untouched, WEIR_ROLLBACK); /* the server was never asked: no vote */
    run_ms(f, 5);
    weir_call_free(untouched);
    expect_state(f, "HALF_OPEN");
    assert_int_equal(code_of_one(f), WEIR_CALL_OK);
    expect_state(f, "CLOSED");
    close_fake(f);
}

static void failures_in_half_open_open_it_again(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.permits = 1;
    f->options.breaker.open_for_ns = FAKE_MS(500);
    f->options.probe_interval_ns = FAKE_MS(60000);
    fake_open(&f->fake, &f->options);
    trip(f);
    run_ms(f, 500);
    f->down = true;
    assert_int_equal(code_of_one(f), WEIR_CALL_SERVER);
    assert_int_equal(code_of_one(f), WEIR_CALL_BREAKER_OPEN);
    close_fake(f);
}

/* ---- probes ---------------------------------------------------------------------------------- */

static void a_good_probe_lets_calls_through_before_open_for(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    trip(f);
    run_ms(f, 1010);
    assert_int_equal(f->fake.probes, 1);
    expect_state(f, "HALF_OPEN");
    close_fake(f);
}

static void failing_probes_come_ever_more_seldom_up_to_half_a_minute(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.open_for_ns = FAKE_MS(3600000);
    fake_open(&f->fake, &f->options);
    trip(f);
    f->fake.refuse = true;
    fake_crash(&f->fake);
    run_ms(f, 70000); /* after 1, 2, 4, 8, 16 s, then every 30 s */
    long early = fake_counter(&f->fake, "events", "probes_failed");
    assert_in_range(early, 5, 7);
    run_ms(f, 300000);
    assert_in_range(fake_counter(&f->fake, "events", "probes_failed") - early, 9, 11);
    f->fake.refuse = false;
    run_ms(f, 31000);
    expect_state(f, "HALF_OPEN");
    close_fake(f);
}

static void a_probe_without_an_answer_gives_its_place_back(void **state)
{
    struct fixture *f = *state;
    f->client.max = 1;
    f->options.breaker.min_calls = 1000;
    f->options.health_interval_ns = FAKE_MS(100);
    fake_open(&f->fake, &f->options);
    assert_int_equal(code_of_one(f), WEIR_CALL_OK);
    f->probe_is_mute = true;
    while (f->fake.probes == 0) run_ms(f, 10);
    f->probe_is_mute = false;
    weir_call *call = fake_submit(&f->fake, (weir_request){.timeout_ns = FAKE_MS(3000)}, "select 1");
    run_ms(f, 600);
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(call);
    close_fake(f);
}

static void a_pool_that_is_all_busy_is_not_probed(void **state)
{
    struct fixture *f = *state;
    f->options.health_interval_ns = FAKE_MS(100);
    f->fake.service_ns = FAKE_MS(900);
    fake_open(&f->fake, &f->options);
    weir_call *calls[2];
    for (int i = 0; i < 2; i++) calls[i] = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 880);
    assert_int_equal(f->fake.probes, 0);
    run_ms(f, 100);
    for (int i = 0; i < 2; i++) weir_call_free(calls[i]);
    fake_free(&f->fake);
}

static void a_breaker_that_opens_during_a_probe_is_probed_on(void **state)
{
    struct fixture *f = *state;
    f->options.health_interval_ns = FAKE_MS(3600000); /* one look at the start */
    f->options.breaker.open_for_ns = FAKE_MS(3600000);
    f->fake.connect_ns = FAKE_MS(300);
    f->probe_is_mute = true;
    fake_open(&f->fake, &f->options);
    run_ms(f, 310);
    assert_int_equal(f->fake.probes, 1);
    f->fake.connect_ns = FAKE_MS(2);
    f->down = true;
    weir_call *calls[4];
    for (int i = 0; i < 4; i++) calls[i] = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 50);
    for (int i = 0; i < 4; i++) weir_call_free(calls[i]);
    expect_state(f, "OPEN");
    f->down = f->probe_is_mute = false;
    run_ms(f, 5000);
    expect_state(f, "HALF_OPEN");
    close_fake(f);
}

/* ---- the operator ---------------------------------------------------------------------------- */

static void forced_states_hold_until_they_are_ended(void **state)
{
    struct fixture *f = *state;
    char why[WEIR_WHY_MAX];
    fake_open(&f->fake, &f->options);
    assert_int_equal(weir_force_breaker(f->fake.engine, NULL, WEIR_OPEN, why), WEIR_EINVAL);
    assert_int_equal(weir_force_breaker(f->fake.engine, "nobody@primary", WEIR_FORCED_OPEN, why),
                     WEIR_EINVAL);
    weir_force_breaker(f->fake.engine, "service@primary", WEIR_FORCED_OPEN, why);
    assert_int_equal(code_of_one(f), WEIR_CALL_BREAKER_OPEN);
    run_ms(f, 120000);
    assert_int_equal(code_of_one(f), WEIR_CALL_BREAKER_OPEN);
    static const weir_breaker_state admitting[] = {WEIR_FORCED_CLOSED, WEIR_DISABLED, WEIR_METRICS_ONLY};
    f->down = true;
    for (size_t i = 0; i < 3; i++) {
        weir_force_breaker(f->fake.engine, NULL, admitting[i], why);
        for (int k = 0; k < 10; k++) assert_int_equal(code_of_one(f), WEIR_CALL_SERVER);
        expect_state(f, weir_breaker_state_name(admitting[i]));
    }
    weir_force_breaker(f->fake.engine, NULL, WEIR_CLOSED, why);
    f->down = false;
    assert_int_equal(code_of_one(f), WEIR_CALL_OK);
    close_fake(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_open_breaker_refuses_with_evidence_and_a_time, set_up),
        cmocka_unit_test_setup(who_waits_when_it_opens_is_refused_at_once, set_up),
        cmocka_unit_test_setup(the_callers_own_mistakes_do_not_open_it, set_up),
        cmocka_unit_test_setup(a_loss_hidden_by_a_rollback_of_the_owner_counts_all_the_same, set_up),
        cmocka_unit_test_setup(a_deadline_on_the_wire_counts_for_units_too, set_up),
        cmocka_unit_test_setup(a_refusal_after_a_doubtful_attempt_keeps_the_doubt, set_up),
        cmocka_unit_test_setup(half_open_lets_few_through_and_closes_when_they_succeed, set_up),
        cmocka_unit_test_setup(a_cancelled_call_gives_its_half_open_permit_back, set_up),
        cmocka_unit_test_setup(failures_in_half_open_open_it_again, set_up),
        cmocka_unit_test_setup(a_good_probe_lets_calls_through_before_open_for, set_up),
        cmocka_unit_test_setup(failing_probes_come_ever_more_seldom_up_to_half_a_minute, set_up),
        cmocka_unit_test_setup(a_probe_without_an_answer_gives_its_place_back, set_up),
        cmocka_unit_test_setup(a_pool_that_is_all_busy_is_not_probed, set_up),
        cmocka_unit_test_setup(a_breaker_that_opens_during_a_probe_is_probed_on, set_up),
        cmocka_unit_test_setup(forced_states_hold_until_they_are_ended, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
