/* The life of single-statement calls on a scripted server in virtual time. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct fake fake;
    weir_options options;
    int notified;
};

static int set_up(void **state)
{
    static struct fixture fixture;
    memset(&fixture, 0, sizeof fixture);
    fake_init(&fixture.fake);
    fake_options(&fixture.options);
    *state = &fixture;
    return 0;
}

static void count_notice(void *user, weir_call *call)
{
    (void)call;
    ((struct fixture *)user)->notified++;
}

static weir_call *submit_as(struct fixture *f, weir_request request, const char *sql)
{
    weir_statement statement = {.sql = sql};
    weir_call *call = NULL;
    char why[WEIR_WHY_MAX] = "";
    request.notify = count_notice;
    request.user = f;
    if (request.client == NULL) request.client = "service";
    if (request.context == NULL) request.context = "a test";
    int code = weir_submit(f->fake.engine, &request, &statement, 1, &call, why);
    assert_string_equal(why, "");
    assert_int_equal(code, WEIR_OK);
    return call;
}

static weir_call *submit(struct fixture *f)
{
    return submit_as(f, (weir_request){0}, "select 1");
}

static void open_engine(struct fixture *f)
{
    fake_open(&f->fake, &f->options);
}

static void a_call_ends_with_its_result_and_is_told_once(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    weir_call *call = submit(f);
    assert_int_equal(weir_call_status(call), WEIR_WAITING);
    fake_run(&f->fake, FAKE_MS(10));
    assert_int_equal(weir_call_status(call), WEIR_ENDED);
    assert_null(weir_call_error(call));
    assert_int_equal(weir_call_result_count(call), 1);
    assert_string_equal(weir_result_value(weir_call_result(call, 0), 0, 0, NULL), "1");
    assert_int_equal(f->notified, 1);
    weir_call_free(call);
    fake_close(&f->fake);
}

static void a_connection_is_used_again(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    for (int i = 0; i < 20; i++) {
        weir_call *call = submit(f);
        fake_run(&f->fake, FAKE_MS(5));
        assert_null(weir_call_error(call));
        weir_call_free(call);
    }
    assert_int_equal(f->fake.connects_begun, 1);
    fake_close(&f->fake);
}

static void waiting_calls_are_served_in_order(void **state)
{
    struct fixture *f = *state;
    static weir_call *calls[2000];
    weir_client clients[] = {
        {.name = "service", .kind = WEIR_SERVICE, .bypass_rls = true, .max = 10, .queue_max = 2000}};
    f->options.clients = clients;
    f->options.client_count = 1;
    open_engine(f);
    char sql[32];
    for (int i = 0; i < 2000; i++) {
        snprintf(sql, sizeof sql, "select %d", i);
        calls[i] = submit_as(f, (weir_request){0}, sql);
    }
    fake_run(&f->fake, FAKE_MS(2000));
    assert_int_equal(f->fake.order_count, 2000);
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(f->fake.order[i], i);
        assert_null(weir_call_error(calls[i]));
        weir_call_free(calls[i]);
    }
    assert_int_equal(f->fake.connects_begun, 10);
    fake_close(&f->fake);
}

static void a_full_queue_refuses_and_says_what_fills_it(void **state)
{
    struct fixture *f = *state;
    weir_client clients[] = {
        {.name = "service", .kind = WEIR_SERVICE, .bypass_rls = true, .max = 1, .queue_max = 2}};
    f->options.clients = clients;
    f->options.client_count = 1;
    open_engine(f);
    weir_call *calls[4];
    for (int i = 0; i < 4; i++) calls[i] = submit(f);
    fake_run(&f->fake, 0);
    assert_int_equal(weir_call_status(calls[3]), WEIR_ENDED);
    const weir_error *error = weir_call_error(calls[3]);
    assert_int_equal(error->code, WEIR_CALL_QUEUE_FULL);
    assert_non_null(strstr(error->message, "queue_max 2"));
    fake_run(&f->fake, FAKE_MS(100));
    for (int i = 0; i < 4; i++) weir_call_free(calls[i]);
    fake_close(&f->fake);
}

static void fail_serialization_twice(struct fake *fake, struct fake_link *link,
                                     const struct wr_segment *segment, struct fake_answer *answer)
{
    (void)link;
    if (segment->kind == WR_SEGMENT_SINGLE && fake->singles <= 2) memcpy(answer->sqlstate, "40001", 6);
}

static void a_serialization_failure_is_retried_until_it_succeeds(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fake.answer = fail_serialization_twice;
    weir_call *call = submit(f);
    fake_run(&f->fake, FAKE_MS(5000));
    assert_null(weir_call_error(call));
    assert_int_equal(weir_call_attempt(call), 3);
    weir_call_free(call);
    fake_close(&f->fake);
}

static void lose_the_first(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                           struct fake_answer *answer)
{
    (void)link;
    if (segment->kind == WR_SEGMENT_SINGLE && fake->singles == 1) answer->lost = true;
}

static void a_lost_write_is_unknown_and_not_repeated(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fake.answer = lose_the_first;
    weir_call *call = submit(f);
    fake_run(&f->fake, FAKE_MS(5000));
    const weir_error *error = weir_call_error(call);
    assert_int_equal(error->code, WEIR_CALL_LOST);
    assert_int_equal(error->outcome, WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(error->class_, WEIR_CLASS_UNKNOWN);
    assert_int_equal(f->fake.singles, 1);
    weir_call_free(call);
    fake_close(&f->fake);
}

static void a_lost_read_is_repeated_if_declared(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fake.answer = lose_the_first;
    weir_call *call = submit_as(f, (weir_request){.readonly = true}, "select 1");
    fake_run(&f->fake, FAKE_MS(5000));
    assert_null(weir_call_error(call));
    assert_int_equal(f->fake.singles, 2);
    weir_call_free(call);
    fake_close(&f->fake);
}

static void never_answer(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                         struct fake_answer *answer)
{
    (void)fake;
    (void)link;
    if (segment->kind != WR_SEGMENT_SINGLE) return;
    answer->never = true;
    answer->after_ns = FAKE_MS(100000000);
}

static void the_deadline_ends_a_call_on_a_server_that_is_silent(void **state)
{
    struct fixture *f = *state;
    f->options.timeout_ns = FAKE_MS(1000);
    f->fake.cancel_ns = UINT64_MAX;
    open_engine(f);
    f->fake.answer = never_answer;
    weir_call *call = submit(f);
    fake_run(&f->fake, FAKE_MS(1100));
    assert_int_equal(weir_call_status(call), WEIR_ENDED);
    assert_int_equal(weir_call_error(call)->code, WEIR_CALL_TIMEOUT);
    assert_int_equal(weir_call_error(call)->outcome, WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(f->fake.cancels, 1);
    weir_call_free(call);
    fake_run(&f->fake, FAKE_MS(11000)); /* cancel_wait closes the connection */
    assert_int_equal(f->fake.opened, 0);
    fake_close(&f->fake);
}

static void a_cancel_that_is_confirmed_in_time_makes_the_outcome_known(void **state)
{
    struct fixture *f = *state;
    f->options.timeout_ns = FAKE_MS(1000);
    open_engine(f);
    f->fake.answer = never_answer;
    weir_call *call = submit(f);
    fake_run(&f->fake, FAKE_MS(1100));
    assert_int_equal(weir_call_error(call)->code, WEIR_CALL_TIMEOUT);
    assert_int_equal(weir_call_error(call)->outcome, WEIR_OUTCOME_ROLLED_BACK);
    weir_call_free(call);
    fake_close(&f->fake);
}

static void no_server_opens_the_breaker_and_then_refuses_with_evidence(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.min_calls = 5;
    f->options.retries = 0;
    open_engine(f);
    f->fake.refuse = true;
    for (int i = 0; i < 5; i++) {
        weir_call *call = submit(f);
        fake_run(&f->fake, FAKE_MS(20));
        assert_int_equal(weir_call_error(call)->code, WEIR_CALL_CONNECT);
        weir_call_free(call);
    }
    weir_call *refused = submit(f);
    fake_run(&f->fake, 0);
    const weir_error *error = weir_call_error(refused);
    assert_int_equal(error->code, WEIR_CALL_BREAKER_OPEN);
    assert_true(error->retry_after_ns > 0);
    assert_non_null(strstr(error->evidence, "5"));
    weir_call_free(refused);
    fake_close(&f->fake);
}

static void a_good_probe_ends_the_outage_long_before_open_for(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.min_calls = 5;
    f->options.retries = 0;
    open_engine(f);
    f->fake.refuse = true;
    for (int i = 0; i < 5; i++) {
        weir_call *call = submit(f);
        fake_run(&f->fake, FAKE_MS(20));
        weir_call_free(call);
    }
    fake_run(&f->fake, FAKE_MS(3000));
    f->fake.refuse = false;
    fake_run(&f->fake, FAKE_MS(8000));
    for (int i = 0; i < 12; i++) {
        weir_call *call = submit(f);
        fake_run(&f->fake, FAKE_MS(20));
        assert_null(weir_call_error(call));
        weir_call_free(call);
    }
    char health[4096];
    weir_health_json(f->fake.engine, health, sizeof health);
    assert_non_null(strstr(health, "\"circuitState\":\"CLOSED\""));
    fake_close(&f->fake);
}

static void misuse_is_told_at_once(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    static const struct {
        weir_request request;
        const char *sql, *word;
    } cases[] = {
        {{.client = "nobody", .context = "x"}, "select 1", "nobody"},
        {{.client = "service"}, "select 1", "context"},
        {{.client = "anon", .context = "x"}, "select 1", "claims"},
        {{.client = "service", .context = "x", .backend = "mars"}, "select 1", "mars"},
        {{.client = "service", .context = "x"}, "commit", "transaction"},
        {{.client = "service", .context = "x"}, "  /* a */ BEGIN", "transaction"},
        {{.client = "service", .context = "x"}, "copy t to stdout", "COPY"},
        {{.client = "service", .context = "x"}, "call p()", "escape"},
        {{.client = "service", .context = "x"}, "", "empty"},
        {{.client = "service", .context = "x", .isolation = "chaos"}, "select 1", "isolation"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        weir_statement statement = {.sql = cases[i].sql};
        weir_call *call = (weir_call *)1;
        char why[WEIR_WHY_MAX] = "";
        assert_int_equal(weir_submit(f->fake.engine, &cases[i].request, &statement, 1, &call, why),
                         WEIR_EINVAL);
        assert_null(call);
        assert_non_null(strstr(why, cases[i].word));
    }
    fake_close(&f->fake);
}

static void a_steady_state_allocates_nothing(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    uint64_t before = 0;
    for (int i = 0; i < 1000; i++) {
        if (i == 100) {
            weir_held held;
            weir_held_now(f->fake.engine, &held);
            before = held.allocations;
        }
        weir_call *call = submit(f);
        fake_run(&f->fake, FAKE_MS(5));
        weir_call_free(call);
    }
    weir_held held;
    weir_held_now(f->fake.engine, &held);
    assert_int_equal(held.allocations, before);
    fake_close(&f->fake);
}

static void a_call_freed_by_its_owner_is_cancelled_and_forgotten(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fake.answer = never_answer;
    weir_call *call = submit(f);
    fake_run(&f->fake, FAKE_MS(10));
    weir_call_free(call);
    fake_run(&f->fake, FAKE_MS(10));
    assert_int_equal(f->fake.cancels, 1);
    assert_int_equal(f->notified, 0);
    fake_close(&f->fake);
}

static void draining_refuses_new_calls_and_lets_running_ones_end(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    weir_call *running = submit(f);
    fake_run(&f->fake, FAKE_MS(2));
    weir_drain(f->fake.engine, FAKE_MS(1000));
    weir_call *late = submit(f);
    fake_run(&f->fake, FAKE_MS(10));
    assert_null(weir_call_error(running));
    assert_int_equal(weir_call_error(late)->code, WEIR_CALL_DRAINING);
    assert_true(weir_drained(f->fake.engine));
    weir_call_free(running);
    weir_call_free(late);
    fake_close(&f->fake);
}

static void an_idle_connection_that_dies_costs_no_call(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    weir_call *first = submit(f);
    fake_run(&f->fake, FAKE_MS(10));
    weir_call_free(first);
    fake_crash(&f->fake);
    assert_int_equal(f->fake.opened, 0);
    weir_call *second = submit(f);
    fake_run(&f->fake, FAKE_MS(10));
    assert_null(weir_call_error(second));
    assert_int_equal(weir_call_attempt(second), 1);
    weir_call_free(second);
    fake_close(&f->fake);
}

static void a_crash_under_load_ends_every_call_and_the_pool_is_whole_after(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.min_calls = 1000;
    open_engine(f);
    weir_call *calls[20];
    for (int i = 0; i < 20; i++) calls[i] = submit_as(f, (weir_request){.readonly = i % 2 == 0}, "select 1");
    fake_run(&f->fake, FAKE_MS(3) + FAKE_MS(1) / 2);
    f->fake.refuse = true;
    fake_crash(&f->fake);
    fake_run(&f->fake, FAKE_MS(500));
    f->fake.refuse = false;
    fake_run(&f->fake, FAKE_MS(12000));
    for (int i = 0; i < 20; i++) {
        assert_int_equal(weir_call_status(calls[i]), WEIR_ENDED);
        weir_call_free(calls[i]);
    }
    assert_int_equal(f->notified, 20);
    weir_call *after = submit(f);
    fake_run(&f->fake, FAKE_MS(20));
    assert_null(weir_call_error(after));
    weir_call_free(after);
    fake_close(&f->fake);
}

static void connections_retire_when_idle_or_old(void **state)
{
    struct fixture *f = *state;
    f->options.idle_timeout_ns = FAKE_MS(1000);
    open_engine(f);
    weir_call *call = submit(f);
    fake_run(&f->fake, FAKE_MS(500));
    weir_call_free(call);
    assert_int_equal(f->fake.opened, 1);
    fake_run(&f->fake, FAKE_MS(2000));
    assert_int_equal(f->fake.opened, 0);
    fake_close(&f->fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_call_ends_with_its_result_and_is_told_once, set_up),
        cmocka_unit_test_setup(a_connection_is_used_again, set_up),
        cmocka_unit_test_setup(waiting_calls_are_served_in_order, set_up),
        cmocka_unit_test_setup(a_full_queue_refuses_and_says_what_fills_it, set_up),
        cmocka_unit_test_setup(a_serialization_failure_is_retried_until_it_succeeds, set_up),
        cmocka_unit_test_setup(a_lost_write_is_unknown_and_not_repeated, set_up),
        cmocka_unit_test_setup(a_lost_read_is_repeated_if_declared, set_up),
        cmocka_unit_test_setup(the_deadline_ends_a_call_on_a_server_that_is_silent, set_up),
        cmocka_unit_test_setup(a_cancel_that_is_confirmed_in_time_makes_the_outcome_known, set_up),
        cmocka_unit_test_setup(no_server_opens_the_breaker_and_then_refuses_with_evidence, set_up),
        cmocka_unit_test_setup(a_good_probe_ends_the_outage_long_before_open_for, set_up),
        cmocka_unit_test_setup(misuse_is_told_at_once, set_up),
        cmocka_unit_test_setup(a_steady_state_allocates_nothing, set_up),
        cmocka_unit_test_setup(a_call_freed_by_its_owner_is_cancelled_and_forgotten, set_up),
        cmocka_unit_test_setup(draining_refuses_new_calls_and_lets_running_ones_end, set_up),
        cmocka_unit_test_setup(an_idle_connection_that_dies_costs_no_call, set_up),
        cmocka_unit_test_setup(a_crash_under_load_ends_every_call_and_the_pool_is_whole_after, set_up),
        cmocka_unit_test_setup(connections_retire_when_idle_or_old, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
