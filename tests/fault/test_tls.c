/* TLS through the public API: all works as without, what is asked for is not given up in silence, and what cannot be
 * trusted is refused with a sentence. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MEGABYTES = 24 };

struct fixture {
    struct server *server, *plain;
    struct harness h;
    size_t bytes;
};

/* The one insists on TLS and on passwords, the other has no TLS. */
static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(
        &(struct server_options){.tcp = true,
                                 .tls = true,
                                 .hba = "local all postgres trust\nhostssl all postgres 127.0.0.1/32 trust\n"
                                        "host all all 127.0.0.1/32 scram-sha-256\n"});
    fixture.plain = server_start(&(struct server_options){.tcp = true, .config = "log_connections = on\n"});
    harness_schema(fixture.server);
    harness_schema(fixture.plain);
    server_exec(fixture.server, "create function encrypted() returns boolean security definer language sql as"
                                " $$ select ssl from pg_stat_ssl where pid = pg_backend_pid() $$");
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    server_free(f->plain);
    return 0;
}

static void open_tls(struct fixture *f, struct server *server, const char *more)
{
    harness_prepare(&f->h, server, server_conninfo_tcp(server, more));
    f->h.options.retries = 0;
    f->h.options.timeout_ns = SECONDS(20);
    harness_open(&f->h);
}

/* "sslmode=MODE sslrootcert=..." with the certificate of this server for authority. */
static const char *trusting(struct server *server, const char *rest)
{
    static char more[256];
    snprintf(more, sizeof more, "sslrootcert=%s/data/server.crt %s", server_socket_dir(server), rest);
    return more;
}

static void check_encrypted(struct fixture *f)
{
    struct job *job = harness_query(&f->h, "select encrypted()");
    job_assert(job, WEIR_CALL_OK);
    assert_string_equal(job->answers[0], "t");
}

/* ---- all works ------------------------------------------------------------------------------------------------------ */

static void calls_and_units_go_encrypted(void **state)
{
    struct fixture *f = *state;
    open_tls(f, f->server, "sslmode=require");
    check_encrypted(f);
    for (int i = 0; i < 20; i++) {
        struct job *job =
            i % 2 == 0 ? harness_call(&f->h, ANON, "encrypted") : harness_unit(&f->h, ANON, "encrypted");
        job_claims(job, "{\"sub\":\"u%d\"}", i);
        job_step(job, "select count(*) from contacts");
        job_step(job, "select encrypted()");
        job_start(job);
    }
    harness_wait(&f->h);
    for (const struct job *job = f->h.jobs; job != NULL; job = job->next) job_assert(job, WEIR_CALL_OK);
    assert_string_equal(f->h.jobs->answers[0], "3");
    assert_string_equal(f->h.jobs->answers[1], "t");
    harness_close(&f->h);
}

static void weigh(struct job *job, size_t step)
{
    struct fixture *f = job->user;
    const weir_result *result = weir_call_result(job->call, job->unit ? 0 : step);
    for (size_t row = 0; row < weir_result_rows(result); row++) {
        size_t length = 0;
        weir_result_value(result, row, 0, &length);
        f->bytes += length;
    }
}

/* Records of TLS do not end where libpq's buffer does: what is left inside OpenSSL shows on no socket. */
static void results_of_many_megabytes_come_whole(void **state)
{
    struct fixture *f = *state;
    static const char *const all[] = {"select repeat('x', 24 * 1024 * 1024)",
                                      "select repeat('x', 1024) from generate_series(1, 24 * 1024)"};
    open_tls(f, f->server, "sslmode=require");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct job *call = harness_call(&f->h, SERVICE, "large"),
                   *unit = harness_unit(&f->h, SERVICE, "large");
        job_step(call, "%s", all[i]);
        job_step(unit, "%s", all[i]);
        call->on_reply = unit->on_reply = weigh;
        call->user = unit->user = f;
        f->bytes = 0;
        job_start(call);
        job_start(unit);
        harness_wait(&f->h);
        job_assert(call, WEIR_CALL_OK);
        job_assert(unit, WEIR_CALL_OK);
        assert_int_equal(f->bytes, 2 * MEGABYTES * 1024 * 1024);
    }
    harness_close(&f->h);
}

static void values_of_many_megabytes_arrive_whole(void **state)
{
    struct fixture *f = *state;
    size_t length = (size_t)8 * 1024 * 1024;
    char *text = malloc(length + 1);
    assert_non_null(text);
    memset(text, 'y', length);
    text[length] = '\0';
    open_tls(f, f->server, "sslmode=require");
    struct job *job = harness_call(&f->h, SERVICE, "large value");
    job_step(job, "select length($1::text)");
    job_value(job, "%s", text);
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(strtol(job->answers[0], NULL, 10), length);
    free(text);
    harness_close(&f->h);
}

/* The cancel goes over a connection of its own, which libpq 15 does not encrypt: it holds the key and nothing else. */
static void deadlines_cancel_what_runs_on_the_server(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[8];
    open_tls(f, f->server, "sslmode=require");
    for (int i = 0; i < 8; i++) {
        jobs[i] =
            i % 2 == 0 ? harness_call(&f->h, SERVICE, "sleeps") : harness_unit(&f->h, SERVICE, "sleeps");
        job_step(jobs[i], "select set_config('statement_timeout', '0', true)");
        job_step(jobs[i], "select pg_sleep(20)");
        jobs[i]->request.timeout_ns = MS(300);
        job_start(jobs[i]);
    }
    harness_wait(&f->h);
    for (int i = 0; i < 8; i++) job_assert(jobs[i], WEIR_CALL_TIMEOUT);
    assert_true(harness_stat(&f->h, "service@primary", "events", "cancels") > 0);
    assert_true(server_wait(f->server,
                            "select not exists (select from pg_stat_activity where wait_event = 'PgSleep')",
                            1000));
    check_encrypted(f);
    harness_close(&f->h);
}

static void the_server_is_believed_when_its_certificate_and_its_name_are_right(void **state)
{
    struct fixture *f = *state;
    open_tls(f, f->server, trusting(f->server, "sslmode=verify-full host=localhost hostaddr=127.0.0.1"));
    check_encrypted(f);
    harness_close(&f->h);
}

/* ---- what is refused ------------------------------------------------------------------------------------------------ */

static void expect_refusal(struct fixture *f, struct server *server, const char *more, const char *sentence)
{
    open_tls(f, server, more);
    struct job *job = harness_query(&f->h, "select 1");
    job_assert(job, WEIR_CALL_CONNECT);
    assert_int_equal(job->outcome, WEIR_OUTCOME_NONE);
    assert_int_equal(job->attempts, 1);
    assert_true(job->took_ns < SECONDS(2));
    if (strstr(job->error.message, sentence) == NULL) job_print(job);
    assert_non_null(strstr(job->error.message, sentence));
    assert_null(strstr(job->error.message, "service-secret"));
    assert_int_equal(harness_stat(&f->h, "service@primary", "events", "opened"), 0);
    assert_int_equal(harness_stat(&f->h, "service@primary", "events", "connect_failed"), 1);
    harness_close(&f->h);
}

static void
a_server_without_tls_is_refused_where_tls_is_required_and_never_spoken_to_in_the_clear(void **state)
{
    struct fixture *f = *state;
    server_ask(f->plain, "select 1");
    size_t authorized = server_log_count(f->plain, "connection authorized");
    size_t received = server_log_count(f->plain, "connection received");
    expect_refusal(f, f->plain, "sslmode=require", "server does not support SSL, but SSL was required");
    assert_int_equal(server_log_count(f->plain, "connection authorized"), authorized);
    assert_int_equal(server_log_count(f->plain, "connection received"), received + 1);
}

static void a_server_by_another_name_is_refused(void **state)
{
    struct fixture *f = *state;
    expect_refusal(f, f->server, trusting(f->server, "sslmode=verify-full"),
                   "does not match host name \"127.0.0.1\"");
}

static void a_server_nobody_vouches_for_is_refused(void **state)
{
    struct fixture *f = *state;
    struct server *other = server_start(&(struct server_options){.tcp = true, .tls = true});
    expect_refusal(f, f->server, trusting(other, "sslmode=verify-full host=localhost hostaddr=127.0.0.1"),
                   "certificate verify failed");
    expect_refusal(f, f->server, trusting(other, "sslmode=verify-ca"), "certificate verify failed");
    expect_refusal(f, f->server, "sslmode=verify-full sslrootcert=/nowhere/root.crt", "/nowhere/root.crt");
    server_free(other);
}

static void a_wrong_password_is_tried_once(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, server_conninfo_tcp(f->server, NULL));
    f->h.clients[SERVICE].password = "not-the-secret";
    harness_open(&f->h);
    struct job *job = harness_query(&f->h, "select 1");
    job_assert(job, WEIR_CALL_CONNECT);
    assert_string_equal(job->error.sqlstate, "28P01");
    assert_int_equal(job->error.class_, WEIR_CLASS_PERMANENT);
    assert_int_equal(job->attempts, 1);
    assert_null(strstr(job->error.message, "not-the-secret"));
    assert_int_equal(server_log_count(f->server, "password authentication failed"), 1);
    harness_close(&f->h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_and_units_go_encrypted),
        cmocka_unit_test(results_of_many_megabytes_come_whole),
        cmocka_unit_test(values_of_many_megabytes_arrive_whole),
        cmocka_unit_test(deadlines_cancel_what_runs_on_the_server),
        cmocka_unit_test(the_server_is_believed_when_its_certificate_and_its_name_are_right),
        cmocka_unit_test(
            a_server_without_tls_is_refused_where_tls_is_required_and_never_spoken_to_in_the_clear),
        cmocka_unit_test(a_server_by_another_name_is_refused),
        cmocka_unit_test(a_server_nobody_vouches_for_is_refused),
        cmocka_unit_test(a_wrong_password_is_tried_once),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
