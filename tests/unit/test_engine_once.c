/* What a sceptic broke once in the engine alone: each test failed on the engine as he found it. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

struct fixture {
    struct fake fake;
    weir_options options;
    weir_client client;
    bool down;                  /* every single call fails as of a server in need */
    const char *probe_sqlstate; /* probes are answered with this error */
    weir_call *again;           /* submitted from a notify */
    int rounds, told;
};

static void answer(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                   struct fake_answer *answer)
{
    struct fixture *f = fake->user;
    (void)link;
    if (f->down && segment->kind == WR_SEGMENT_SINGLE) memcpy(answer->sqlstate, "53200", 6);
    if (f->probe_sqlstate != NULL && segment->kind == WR_SEGMENT_PROBE) {
        snprintf(answer->sqlstate, sizeof answer->sqlstate, "%s", f->probe_sqlstate);
    }
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
    f.options.breaker.min_calls = 4;
    f.options.retries = 0;
    f.fake.user = &f;
    f.fake.answer = answer;
    *state = &f;
    return 0;
}

static void run_ms(struct fixture *f, uint64_t ms)
{
    fake_run(&f->fake, FAKE_MS(ms));
}

static void close_fake(struct fixture *f)
{
    run_ms(f, 20);
    fake_close(&f->fake);
}

static weir_code code_of_one(struct fixture *f)
{
    weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 10);
    weir_code code = fake_code(call);
    weir_call_free(call);
    return code;
}

/* ---- refused by name ----------------------------------------------------------------------------- */

static void expect_refused(struct fixture *f, const char *name)
{
    char why[WEIR_WHY_MAX] = "";
    weir_engine *engine = NULL;
    assert_int_equal(weir_open(&engine, &f->options, &f->fake.host, fake_driver(&f->fake), why), WEIR_EINVAL);
    assert_null(engine);
    if (strstr(why, name) == NULL) fail_msg("no '%s' in: %s", name, why);
}

static void a_queue_reset_or_kind_out_of_range_is_refused_by_name(void **state)
{
    struct fixture *f = *state;
    f->options.queue = (weir_queue)9;
    expect_refused(f, "queue");
    f->options.queue = WEIR_QUEUE_ADAPTIVE;
    f->options.reset = (weir_reset)7;
    expect_refused(f, "reset");
    f->options.reset = WEIR_RESET_AUTO;
    f->client.kind = (weir_kind)5;
    expect_refused(f, "clients.service");
    f->client.kind = WEIR_SERVICE;
    fake_open(&f->fake, &f->options);
    close_fake(f);
}

static void isolation_on_a_single_call_is_misuse(void **state)
{
    struct fixture *f = *state;
    char why[WEIR_WHY_MAX] = "";
    weir_statement statement = {.sql = "select 1"};
    weir_request request = {.client = "service", .context = "a test", .isolation = "serializable"};
    weir_call *call = NULL;
    fake_open(&f->fake, &f->options);
    assert_int_equal(weir_submit(f->fake.engine, &request, &statement, 1, &call, why), WEIR_EINVAL);
    assert_null(call);
    assert_non_null(strstr(why, "isolation"));
    assert_int_equal(weir_begin(f->fake.engine, &request, &call, why), WEIR_OK);
    run_ms(f, 10);
    fake_finish(call, WEIR_COMMIT);
    run_ms(f, 10);
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(call);
    close_fake(f);
}

static void a_binary_value_without_lengths_is_misuse(void **state)
{
    static const char *const values[] = {"text", "\0\0\0\1"};
    static const char *const nulls[] = {"text", NULL};
    static const int formats[] = {0, 1};
    struct fixture *f = *state;
    char why[WEIR_WHY_MAX] = "";
    weir_statement statement = {.sql = "select $1, $2", .values = values, .formats = formats, .count = 2};
    weir_request request = {.client = "service", .context = "a test"};
    weir_call *call = NULL;
    fake_open(&f->fake, &f->options);
    assert_int_equal(weir_submit(f->fake.engine, &request, &statement, 1, &call, why), WEIR_EINVAL);
    assert_null(call);
    assert_non_null(strstr(why, "lengths"));
    weir_call *unit = fake_begin(&f->fake, (weir_request){0});
    run_ms(f, 10);
    assert_int_equal(weir_unit_send(unit, &statement, 1, why), WEIR_EINVAL);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    statement.values = nulls;
    assert_int_equal(weir_unit_send(unit, &statement, 1, why), WEIR_OK);
    run_ms(f, 10);
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 10);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    weir_call_free(unit);
    close_fake(f);
}

/* ---- the budget of an area that is there already ----------------------------------------------------- */

static const char *area_path(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/weir-review-%d.area", (int)getpid());
    return path;
}

static void expect_budget(struct fixture *f, const char *words)
{
    static char json[1 << 16];
    assert_true(weir_stats_json(f->fake.engine, json, sizeof json) < sizeof json);
    if (strstr(json, words) == NULL) fail_msg("no %s in %s", words, json);
}

static void the_newest_configuration_of_the_budget_counts_on_an_existing_area(void **state)
{
    struct fixture *f = *state;
    unlink(area_path());
    f->options.area_path = area_path();
    fake_open(&f->fake, &f->options);
    expect_budget(f, "\"budget\":{\"level\":10.0,\"cap\":100.0}");
    close_fake(f);
    f->options.budget.floor = 1;
    f->options.budget.cap = 2;
    fake_open(&f->fake, &f->options);
    expect_budget(f, "\"budget\":{\"level\":1.0,\"cap\":2.0}");
    close_fake(f);
    f->options.budget.floor = -5;
    expect_refused(f, "floor");
    f->options.budget.floor = 1;
    fake_open(&f->fake, &f->options);
    expect_budget(f, "\"budget\":{\"level\":1.0,\"cap\":2.0}");
    close_fake(f);
    unlink(area_path());
}

/* ---- the last notices ------------------------------------------------------------------------------- */

static void submits_again(void *user, weir_call *call)
{
    struct fixture *f = user;
    char why[WEIR_WHY_MAX];
    if (weir_call_status(call) != WEIR_ENDED) return;
    f->told++;
    if (f->rounds-- <= 0) return;
    if (f->again != NULL) weir_call_free(f->again);
    weir_request request = {.client = "service", .context = "again", .notify = submits_again, .user = f};
    weir_statement statement = {.sql = "select 2"};
    assert_int_equal(weir_submit(f->fake.engine, &request, &statement, 1, &f->again, why), WEIR_OK);
}

static void a_call_submitted_from_a_notify_inside_free_is_told(void **state)
{
    struct fixture *f = *state;
    f->fake.service_ns = FAKE_MS(500);
    fake_open(&f->fake, &f->options);
    f->rounds = 1;
    weir_request request = {.notify = submits_again, .user = f};
    weir_call *call = fake_submit(&f->fake, request, "select 1");
    run_ms(f, 10);
    fake_free(&f->fake);
    assert_int_equal(f->told, 2);
    assert_int_equal(fake_code(call), WEIR_CALL_CANCELLED);
    assert_int_equal(fake_code(f->again), WEIR_CALL_DRAINING);
    weir_call_free(call);
    weir_call_free(f->again);
}

/* ---- for ever ----------------------------------------------------------------------------------------- */

static void the_greatest_number_means_for_ever_on_any_clock(void **state)
{
    struct fixture *f = *state;
    f->fake.service_ns = FAKE_MS(5000); /* longer than the engine's own timeout */
    fake_open(&f->fake, &f->options);
    weir_call *call = fake_submit(&f->fake, (weir_request){.timeout_ns = UINT64_MAX}, "select 1");
    run_ms(f, 1500);
    assert_int_equal(weir_call_status(call), WEIR_WAITING);
    weir_drain(f->fake.engine, UINT64_MAX);
    run_ms(f, 6000);
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(call);
    run_ms(f, 10);
    assert_true(weir_drained(f->fake.engine));
    close_fake(f);
}

/* ---- probes and half-open ------------------------------------------------------------------------------ */

static void a_probe_answered_by_an_error_counts_as_answering(void **state)
{
    static const char *const errors[] = {"26000", "57014"};
    struct fixture *f = *state;
    f->options.health_interval_ns = FAKE_MS(1000);
    f->options.idle_timeout_ns = 0;
    fake_open(&f->fake, &f->options);
    assert_int_equal(code_of_one(f), WEIR_CALL_OK);
    long opened = fake_counter(&f->fake, "events", "opened");
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        int probes = f->fake.probes;
        f->probe_sqlstate = errors[i];
        run_ms(f, 5000);
        assert_true(f->fake.probes > probes);
        assert_int_equal(fake_counter(&f->fake, "events", "probes_failed"), 0);
        assert_int_equal(weir_health_now(f->fake.engine), WEIR_HEALTHY);
    }
    assert_int_equal(fake_counter(&f->fake, "events", "opened"), opened);
    close_fake(f);
}

static void a_refusal_while_half_open_says_to_come_back_after_a_probe(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.permits = 1;
    f->options.breaker.open_for_ns = FAKE_MS(100);
    f->options.probe_interval_ns = FAKE_MS(1000);
    fake_open(&f->fake, &f->options);
    f->down = true;
    for (int i = 0; i < 4; i++) assert_int_equal(code_of_one(f), WEIR_CALL_SERVER);
    f->down = false;
    run_ms(f, 200);
    f->fake.service_ns = FAKE_MS(300);
    weir_call *probe = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 10);
    weir_call *refused = fake_submit(&f->fake, (weir_request){0}, "select 1");
    assert_int_equal(fake_code(refused), WEIR_CALL_BREAKER_OPEN);
    assert_non_null(strstr(weir_call_error(refused)->message, "HALF_OPEN"));
    assert_in_range(weir_call_error(refused)->retry_after_ns, 1, f->options.probe_interval_ns);
    run_ms(f, 500);
    assert_int_equal(fake_code(probe), WEIR_CALL_OK);
    weir_call_free(probe);
    weir_call_free(refused);
    close_fake(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_queue_reset_or_kind_out_of_range_is_refused_by_name, set_up),
        cmocka_unit_test_setup(isolation_on_a_single_call_is_misuse, set_up),
        cmocka_unit_test_setup(a_binary_value_without_lengths_is_misuse, set_up),
        cmocka_unit_test_setup(the_newest_configuration_of_the_budget_counts_on_an_existing_area, set_up),
        cmocka_unit_test_setup(a_call_submitted_from_a_notify_inside_free_is_told, set_up),
        cmocka_unit_test_setup(the_greatest_number_means_for_ever_on_any_clock, set_up),
        cmocka_unit_test_setup(a_probe_answered_by_an_error_counts_as_answering, set_up),
        cmocka_unit_test_setup(a_refusal_while_half_open_says_to_come_back_after_a_probe, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
