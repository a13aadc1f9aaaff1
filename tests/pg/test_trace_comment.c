/* trace = COMMENT against a real server, which logs each text that it executes: a call's traceparent is in it once and
 * in the right place, and a text that is new in each call piles nothing up. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PARENT  "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#define COMMENT "/*traceparent='" PARENT "'*/"

struct fixture {
    struct server *server;
    struct harness h;
};

static int start(void **state)
{
    static struct fixture fixture;
    static const struct server_options options = {.config = "log_statement = 'all'\n"};
    fixture.server = server_start(&options);
    harness_schema(fixture.server);
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    return 0;
}

static int open_engine(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    f->h.options.trace = WEIR_TRACE_COMMENT;
    f->h.clients[SERVICE].max = 1;
    f->h.clients[SERVICE].multiplex = 8;
    harness_open(&f->h);
    return 0;
}

static int close_engine(void **state)
{
    struct fixture *f = *state;
    harness_close(&f->h);
    return 0;
}

static struct job *run(struct fixture *f, const char *traceparent, bool unit, const char *sql)
{
    struct job *job = unit ? harness_unit(&f->h, SERVICE, "traced") : harness_call(&f->h, SERVICE, "traced");
    job->request.traceparent = traceparent;
    job_step(job, "%s", sql);
    harness_run(&f->h, job);
    return job;
}

/* How often the server was given exactly this text: what is logged of one ends with it. */
static size_t given(struct fixture *f, const char *text)
{
    char line[256];
    snprintf(line, sizeof line, ": %s\n", text);
    return server_log_count(f->server, line);
}

static void assert_given_once(struct fixture *f, const char *text)
{
    if (given(f, text) != 1) fail_msg("given %zu times: %s", given(f, text), text);
}

static void the_comment_stands_once_behind_the_statement(void **state)
{
    struct fixture *f = *state;
    job_assert(run(f, PARENT, false, "select 'a call'"), WEIR_CALL_OK);
    assert_given_once(f, "select 'a call' " COMMENT);
    job_assert(run(f, PARENT, true, "select 'a unit'"), WEIR_CALL_OK);
    assert_given_once(f, "select 'a unit' " COMMENT);
    assert_int_equal(given(f, "BEGIN " COMMENT), 0);
    assert_int_equal(given(f, "COMMIT " COMMENT), 0);
    job_assert(run(f, PARENT, false, "select 'ends' ; "), WEIR_CALL_OK);
    assert_given_once(f, "select 'ends' " COMMENT " ; ");
    job_assert(run(f, PARENT, false, "vacuum ledger"), WEIR_CALL_OK);
    assert_given_once(f, "vacuum ledger " COMMENT);
    struct job *shared = harness_call(&f->h, SERVICE, "traced");
    shared->request.traceparent = PARENT;
    shared->request.readonly = true;
    job_step(shared, "select 'shares'");
    harness_run(&f->h, shared);
    job_assert(shared, WEIR_CALL_OK);
    assert_given_once(f, "select 'shares' " COMMENT);
}

static void each_statement_of_a_pipeline_has_it(void **state)
{
    struct fixture *f = *state;
    struct job *job = harness_call(&f->h, SERVICE, "traced");
    job->request.traceparent = PARENT;
    job_step(job, "select 'first'");
    job_step(job, "select 'second' || $1");
    job_value(job, "-- is a value");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    assert_string_equal(job->answers[1], "second-- is a value");
    assert_given_once(f, "select 'first' " COMMENT);
    assert_given_once(f, "select 'second' || $1 " COMMENT);
}

static void a_statement_with_a_comment_of_its_own_is_left_alone(void **state)
{
    struct fixture *f = *state;
    static const char *const own[] = {"select 'own' /* mine */", "select 'line' -- mine",
                                      "/*+ hint */ select 'hint'", "select 'line, ended' -- mine;"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        job_assert(run(f, PARENT, false, own[i]), WEIR_CALL_OK);
        assert_given_once(f, own[i]);
    }
}

static void what_is_no_traceparent_is_kept_and_not_sent(void **state)
{
    struct fixture *f = *state;
    static const char *const odd[] = {"00-0-0-01", "*/; drop table ledger; /*", "", PARENT "-more"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        job_assert(run(f, odd[i], false, "select 'odd'"), WEIR_CALL_OK);
    job_assert(run(f, NULL, false, "select 'odd'"), WEIR_CALL_OK);
    assert_int_equal(given(f, "select 'odd'"), 5);
    char *calls = harness_calls(&f->h);
    assert_non_null(strstr(calls, "\"traceparent\":\"*/; drop table ledger; /*\""));
    free(calls);
}

static void texts_that_change_per_call_pile_up_nowhere(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 40; i++) { /* each twice: a text seen twice would get a name */
        char parent[64];
        snprintf(parent, sizeof parent, "00-4bf92f3577b34da6a3ce929d0e0e%04x-00f067aa0ba902b7-01", i / 2);
        job_assert(run(f, parent, false, "select count(*) from ledger"), WEIR_CALL_OK);
    }
    struct job *count =
        run(f, PARENT, false, "select count(*) from pg_prepared_statements where statement like '%ledger%'");
    assert_string_equal(count->answers[0], "0");
    for (int i = 0; i < 4; i++) job_assert(run(f, NULL, false, "select count(*) from ledger"), WEIR_CALL_OK);
    count =
        run(f, PARENT, false, "select count(*) from pg_prepared_statements where statement like '%ledger%'");
    assert_string_equal(count->answers[0], "1"); /* without a trace it is what it was */
}

static void an_error_keeps_its_position_in_the_callers_text(void **state)
{
    struct fixture *f = *state;
    struct job *job = run(f, PARENT, false, "select nonsense");
    job_assert(job, WEIR_CALL_SERVER);
    assert_int_equal(job->error.position, 8);
}

static void without_the_option_nothing_is_sent(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    harness_prepare(h, f->server, NULL);
    harness_open(h);
    job_assert(run(f, PARENT, false, "select 'untold'"), WEIR_CALL_OK);
    assert_given_once(f, "select 'untold'");
    harness_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_comment_stands_once_behind_the_statement, open_engine,
                                        close_engine),
        cmocka_unit_test_setup_teardown(each_statement_of_a_pipeline_has_it, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(a_statement_with_a_comment_of_its_own_is_left_alone, open_engine,
                                        close_engine),
        cmocka_unit_test_setup_teardown(what_is_no_traceparent_is_kept_and_not_sent, open_engine,
                                        close_engine),
        cmocka_unit_test_setup_teardown(texts_that_change_per_call_pile_up_nowhere, open_engine,
                                        close_engine),
        cmocka_unit_test_setup_teardown(an_error_keeps_its_position_in_the_callers_text, open_engine,
                                        close_engine),
        cmocka_unit_test(without_the_option_nothing_is_sent),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
