/* Passwords and claims are in no message, event, report or line of the log, whatever goes wrong. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#define PASSWORD "hunter2-open-sesame"
#define WRONG    "wr0ng-abracadabra"
#define TOKEN    "t0ken-of-the-user"
#define VALUE    "v4lue-in-a-row"

struct fixture {
    struct server *server;
    struct harness h;
    char log[32];
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(NULL);
    harness_schema(fixture.server);
    server_exec(
        fixture.server,
        "set password_encryption = 'scram-sha-256';"
        "alter role app_anon password '" PASSWORD "'; alter role app_service password '" PASSWORD "';"
        "create function gossips() returns text language plpgsql as $$ begin"
        " raise exception 'claims are %', current_setting('request.jwt.claims', true); end $$;"
        "create function whispers() returns text language plpgsql as $$ begin"
        " raise notice 'claims are %', current_setting('request.jwt.claims', true); return ''; end $$;"
        "create table keyed (k text primary key); grant all on keyed to web_anon, app_service");
    server_hba(fixture.server, "local all postgres trust\nlocal all all scram-sha-256\n");
    strcpy(fixture.log, "/tmp/weir-secrets.XXXXXX");
    close(mkstemp(fixture.log));
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    unlink(f->log);
    return 0;
}

/* ---- looking for them ------------------------------------------------------------------------ */

enum scope { PASSWORDS = 4, AND_CLAIMS = 5, AND_VALUES = 6 }; /* so many of the list */

static void assert_silent(const char *where, const char *text, enum scope scope)
{
    static const char *const secrets[] = {"hunter2", "sesame", "wr0ng", "abracadabra", "t0ken", VALUE};
    for (size_t i = 0; i < (size_t)scope; i++) {
        if (strstr(text, secrets[i]) != NULL) fail_msg("%s tells '%s': %s", where, secrets[i], text);
    }
}

/* DETAIL carries data by design, his own and for the caller alone; no password is ever data. */
static void assert_error_is_silent(const struct job *job)
{
    const weir_error *e = &job->error;
    assert_silent("the message", e->message, AND_CLAIMS);
    assert_silent("the detail", e->detail, PASSWORDS);
    assert_silent("the hint", e->hint, AND_CLAIMS);
    assert_silent("the evidence", e->evidence, AND_CLAIMS);
}

static void assert_reports_are_silent(struct fixture *f)
{
    char *(*const all[])(struct harness * h) = {harness_stats, harness_health, harness_calls, harness_events};
    static const char *const names[] = {"the statistics", "the health", "the flight recorder",
                                        "the event log"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char *text = all[i](&f->h);
        assert_silent(names[i], text, AND_VALUES);
        free(text);
    }
    char *lines = NULL;
    size_t room = 0, count = 0;
    FILE *log = fopen(f->log, "r");
    for (; getline(&lines, &room, log) > 0; count++) assert_silent("the log", lines, AND_VALUES);
    fclose(log);
    free(lines);
    assert_true(count > 1);
}

static void open_engine(struct fixture *f, const char *conninfo, const char *password)
{
    harness_prepare(&f->h, f->server, conninfo);
    f->h.clients[SERVICE].password = f->h.clients[ANON].password = password;
    f->h.options.retries = 2;
    f->h.options.health_interval_ns = MS(50);
    f->h.options.log_to = f->log;
    f->h.options.slow_log_ns = 1;
    f->h.options.trace = WEIR_TRACE_COMMENT;
    harness_open(&f->h);
}

/* ---- connecting ------------------------------------------------------------------------------ */

static struct job *connect_badly(struct fixture *f, const char *conninfo, const char *password)
{
    open_engine(f, conninfo, password);
    struct job *job = harness_query(&f->h, "select 1");
    job_assert(job, WEIR_CALL_CONNECT);
    assert_error_is_silent(job);
    harness_turn(&f->h, 120); /* the monitor fails, too, and says so */
    assert_reports_are_silent(f);
    return job;
}

static void a_wrong_password_is_told_without_it_and_not_tried_again(void **state)
{
    struct fixture *f = *state;
    struct job *job = connect_badly(f, NULL, WRONG);
    assert_string_equal(job->error.sqlstate, "28P01");
    assert_int_equal(job->attempts, 1);
    harness_close(&f->h);
}

static void connects_that_fail_otherwise_tell_no_password_either(void **state)
{
    struct fixture *f = *state;
    static const char *const ways[] = {
        "host=/nowhere password=" WRONG,
        "host=127.0.0.1 port=1 password=" WRONG,
        "postgresql://app_service:" WRONG "@127.0.0.1:1/postgres",
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        connect_badly(f, ways[i], PASSWORD);
        harness_close(&f->h);
    }
}

static void what_is_wrong_with_a_conninfo_is_told_without_quoting_it(void **state)
{
    struct fixture *f = *state;
    static const char *const odd[] = {
        "host=x password=" PASSWORD " sesame",
        "host=x password='" PASSWORD,
        "password=a"
        " " PASSWORD,
        "postgresql://u:p%ZZ" PASSWORD "@h/db",
        "postgresql://u:" PASSWORD "@[::1/db",
        "passwordd=" PASSWORD,
        "host=x " PASSWORD,
        "=" PASSWORD,
        "postgresql://u:" PASSWORD "@h:port/db",
        "sslmode=" PASSWORD,
        "host=x options='-c " PASSWORD "' nonsense",
        "service=" PASSWORD "-none",
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        char why[WEIR_WHY_MAX] = "";
        harness_prepare(&f->h, f->server, odd[i]);
        int code = harness_try(&f->h, why);
        assert_silent("the reason", why, AND_VALUES);
        if (code != WEIR_OK) assert_true(why[0] != '\0'); /* some show only when they are used */
    }
}

/* ---- statements ------------------------------------------------------------------------------ */

static struct job *run_as_user(struct fixture *f, const char *claims, const char *sql, bool unit)
{
    struct job *job =
        unit ? harness_unit(&f->h, ANON, "says too much") : harness_call(&f->h, ANON, "says too much");
    job_claims(job, "%s", claims);
    job_step(job, "%s", sql);
    harness_run(&f->h, job);
    assert_error_is_silent(job);
    return job;
}

static void claims_that_are_no_json_are_not_quoted_back(void **state)
{
    struct fixture *f = *state;
    static const char *const claims[] = {TOKEN, "{\"sub\": " TOKEN "}",
                                         "{\"sub\":\"u1\",\"jwt\":\"" TOKEN "\"", "[\"" TOKEN "\","};
    open_engine(f, NULL, PASSWORD);
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        job_assert(run_as_user(f, claims[i], "select count(*) from contacts", i % 2 == 0), WEIR_CALL_SERVER);
    }
    assert_reports_are_silent(f);
    harness_close(&f->h);
}

static void what_a_statement_fails_with_is_not_in_the_reports(void **state)
{
    struct fixture *f = *state;
    static const char *const claims = "{\"sub\":\"u1\",\"jwt\":\"" TOKEN "\"}";
    static const char *const bad[] = {
        "select 1 / 0",
        "select nonsense",
        "insert into contacts (owner, name) values ('u2', 'x')",
        "select pg_sleep('x')",
        "insert into keyed values ('" VALUE "'), ('" VALUE "')",
        "select '" VALUE "'::int",
    };
    open_engine(f, NULL, PASSWORD);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        job_assert(run_as_user(f, claims, bad[i], false), WEIR_CALL_SERVER);
        job_assert(run_as_user(f, claims, bad[i], true), WEIR_CALL_SERVER);
    }
    assert_reports_are_silent(f);
    harness_close(&f->h);
}

/* A function that speaks of the claims is the user's own; its text is for the caller, and for nobody else. */
static void what_a_function_tells_of_the_claims_stays_with_its_caller(void **state)
{
    struct fixture *f = *state;
    open_engine(f, NULL, PASSWORD);
    struct job *job = harness_call(&f->h, ANON, "gossips");
    job_claims(job, "{\"sub\":\"u1\",\"jwt\":\"" TOKEN "\"}");
    job_step(job, "select gossips()");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_SERVER);
    struct job *whisper = harness_call(&f->h, ANON, "whispers");
    job_claims(whisper, "{\"sub\":\"u1\",\"jwt\":\"" TOKEN "\"}");
    job_step(whisper, "select whispers()");
    harness_run(&f->h, whisper);
    job_assert(whisper, WEIR_CALL_OK);
    assert_reports_are_silent(f);
    harness_close(&f->h);
}

static void a_connection_lost_under_a_user_tells_nothing_of_him(void **state)
{
    struct fixture *f = *state;
    open_engine(f, NULL, PASSWORD);
    struct job *job = harness_unit(&f->h, ANON, "is lost");
    job_claims(job, "{\"sub\":\"u1\",\"jwt\":\"" TOKEN "\"}");
    job_step(job, "select pg_sleep(20)");
    job->request.timeout_ns = SECONDS(3);
    job_start(job);
    harness_turn(&f->h, 100);
    server_restart(f->server, SERVER_IMMEDIATE);
    server_exec(f->server, "alter role app_anon nologin");
    harness_wait(&f->h);
    server_exec(f->server, "alter role app_anon login");
    assert_error_is_silent(job);
    assert_true(job->code != WEIR_CALL_OK);
    assert_reports_are_silent(f);
    harness_close(&f->h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_password_is_told_without_it_and_not_tried_again),
        cmocka_unit_test(connects_that_fail_otherwise_tell_no_password_either),
        cmocka_unit_test(what_is_wrong_with_a_conninfo_is_told_without_quoting_it),
        cmocka_unit_test(claims_that_are_no_json_are_not_quoted_back),
        cmocka_unit_test(what_a_statement_fails_with_is_not_in_the_reports),
        cmocka_unit_test(what_a_function_tells_of_the_claims_stays_with_its_caller),
        cmocka_unit_test(a_connection_lost_under_a_user_tells_nothing_of_him),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
