/* Users who share ten connections: nobody ever sees another's rows, claims, role or leftovers, whatever
 * befalls the calls in between. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { CALLS = 1000, USERS = 50 };

/* All that a borrower could inherit, in one text; and what he may see. */
#define BASELINE                                                                                             \
    "select concat_ws('|', current_user, session_user, current_setting('request.jwt.claims', true),"         \
    " current_setting('search_path'), current_setting('default_transaction_read_only'),"                     \
    " current_setting('work_mem'),"                                                                          \
    " (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),"               \
    " (select count(*) from pg_class where relnamespace = pg_my_temp_schema()),"                             \
    " (select count(*) from pg_listening_channels()), (select count(*) from pg_cursors where is_holdable),"  \
    " (select count(*) from pg_prepared_statements where from_sql),"                                         \
    " (select count(*) from contacts), (select count(*) from contacts where owner <> $1))"

#define AT_BASELINE "web_anon|app_anon|{\"sub\":\"u%d\"}|\"$user\", public|off|4MB|0|0|0|0|0|3|0"

struct fixture {
    struct server *server;
    struct harness h;
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(NULL);
    harness_schema(fixture.server);
    server_exec(fixture.server,
                "create function die() returns boolean security definer language sql as"
                " $$ select pg_terminate_backend(pg_backend_pid()) $$;"
                "create function stealthy() returns text language plpgsql as $$ begin"
                " perform set_config('search_path', 'pg_temp', false), pg_advisory_lock(7);"
                " perform set_config('work_mem', '1MB', false); return ''; end $$;"
                "create procedure sets() language plpgsql as"
                " $$ begin perform set_config('work_mem', '1MB', false), pg_advisory_lock(8); end $$;");
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    return 0;
}

/* ---- a thousand ------------------------------------------------------------------------------ */

enum fate { INNOCENT, KILLED, FAILS, OVERDUE, CANCELLED, LITTERS };

static enum fate fate_of(int number)
{
    static const enum fate fates[] = {KILLED, FAILS, OVERDUE, CANCELLED};
    if (number % 10 == 3) return fates[number / 10 % 4];
    return number % 10 == 7 ? LITTERS : INNOCENT;
}

static void add_fate(struct job *job, enum fate fate, int number)
{
    switch (fate) {
    case INNOCENT:
        job->request.readonly = true;
        break;
    case KILLED:
        job_step(job, "select die()");
        break;
    case FAILS:
        job_step(job, "select 1 / 0");
        break;
    case OVERDUE:
        job_step(job, "select pg_sleep(30)");
        break;
    case CANCELLED:
        job_step(job, "select pg_sleep(31)");
        break;
    case LITTERS:
        job_step(job,
                 "select set_config('request.jwt.claims', '{\"sub\":\"u0\"}', false), pg_advisory_lock(%d)",
                 number);
        job_step(job, "set search_path = pg_catalog");
        job_step(job, "create temp table litter_%d (a int)", number);
        job_step(job, "listen gossip");
        break;
    }
}

static struct job *start_one(struct fixture *f, int number)
{
    char context[40];
    snprintf(context, sizeof context, "user call %d", number);
    struct job *job =
        number % 2 == 0 ? harness_call(&f->h, ANON, context) : harness_unit(&f->h, ANON, context);
    job_claims(job, "{\"sub\":\"u%d\"}", number % USERS);
    job_step(job, BASELINE);
    job_value(job, "u%d", number % USERS);
    add_fate(job, fate_of(number), number);
    job->request.timeout_ns = fate_of(number) == OVERDUE ? MS(400) : SECONDS(25);
    job->user = (void *)(intptr_t)number;
    job_start(job);
    return job;
}

struct crowd {
    struct fixture *fixture;
    struct job *jobs[CALLS];
    int begun;
};

/* Sixteen at a time on ten connections; callers give up after a while, most of them while their query
 * runs. */
static bool all_begun(void *arg)
{
    struct crowd *crowd = arg;
    struct harness *h = &crowd->fixture->h;
    while (crowd->begun < CALLS && h->running < 16) {
        crowd->jobs[crowd->begun] = start_one(crowd->fixture, crowd->begun);
        crowd->begun++;
    }
    for (int i = 3; i < crowd->begun; i += 10) {
        struct job *job = crowd->jobs[i];
        if (fate_of(i) == CANCELLED && job->call != NULL && h->ticked_ns > job->started_ns + MS(150)) {
            weir_call_cancel(job->call);
        }
    }
    return crowd->begun == CALLS && h->running == 0;
}

/* Ends an idle or busy session of somebody from outside. */
static void disturb(struct fixture *f)
{
    server_exec(f->server, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app_anon'"
                           " order by random() limit 1");
}

static void check_one(const struct job *job)
{
    int number = (int)(intptr_t)job->user;
    char expected[JOB_ANSWER];
    snprintf(expected, sizeof expected, AT_BASELINE, number % USERS);
    assert_int_equal(job->endings, 1);
    if (job->answers[0][0] != '\0') assert_string_equal(job->answers[0], expected);
    bool disturbed = job->code == WEIR_CALL_LOST || job->code == WEIR_CALL_CONNECT; /* often in a row */
    switch (fate_of(number)) {
    case INNOCENT:
        job_assert(job, WEIR_CALL_OK);
        break;
    case KILLED:
        assert_true(disturbed);
        break;
    case FAILS:
        assert_true(disturbed || job->code == WEIR_CALL_SERVER);
        break;
    case OVERDUE:
        assert_true(disturbed || job->code == WEIR_CALL_TIMEOUT);
        break;
    case CANCELLED:
        assert_true(disturbed || job->code == WEIR_CALL_CANCELLED);
        break;
    case LITTERS:
        assert_true(disturbed || job->code == WEIR_CALL_OK);
        break;
    }
}

static void a_thousand_interleaved_calls_of_many_users_never_see_each_other(void **state)
{
    struct fixture *f = *state;
    static struct crowd crowd;
    crowd = (struct crowd){.fixture = f};
    harness_prepare(&f->h, f->server, NULL);
    f->h.options.retries = 10;
    harness_open(&f->h);
    for (int i = 0; !harness_until(&f->h, all_begun, &crowd, 50); i++) {
        assert_true(i < 500);
        disturb(f);
    }
    for (int i = 0; i < CALLS; i++) check_one(crowd.jobs[i]);
    assert_true(harness_stat(&f->h, "anon@primary", "events", "cancels") > 10);
    assert_true(harness_stat(&f->h, "anon@primary", "events", "resets") > 50);
    harness_close(&f->h);
}

/* ---- one connection, one after another ------------------------------------------------------- */

static void open_with_one_connection(struct fixture *f, weir_reset reset)
{
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[ANON].max = 1;
    f->h.options.reset = reset;
    harness_open(&f->h);
}

static struct job *run_as(struct fixture *f, int user, bool unit, const char *sql)
{
    struct job *job = unit ? harness_unit(&f->h, ANON, "litters") : harness_call(&f->h, ANON, "litters");
    job_claims(job, "{\"sub\":\"u%d\"}", user);
    job_step(job, "%s", sql);
    harness_run(&f->h, job);
    return job;
}

static void assert_baseline(struct fixture *f, int user, const char *after)
{
    char expected[JOB_ANSWER];
    struct job *job = harness_call(&f->h, ANON, "looks around");
    job_claims(job, "{\"sub\":\"u%d\"}", user);
    job_step(job, BASELINE);
    job_value(job, "u%d", user);
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    snprintf(expected, sizeof expected, AT_BASELINE, user);
    if (strcmp(job->answers[0], expected) != 0) fprintf(stderr, "left behind by: %s\n", after);
    assert_string_equal(job->answers[0], expected);
}

static const char *const litter[] = {
    "set search_path = pg_temp, public",
    "set work_mem = '1MB'",
    "set session work_mem = '1MB'",
    "set default_transaction_read_only = on",
    "set session characteristics as transaction read only",
    "set statement_timeout = 1",
    "select set_config('request.jwt.claims', '{\"sub\":\"u9\"}', false)",
    "select set_config('role', 'none', false)",
    "set role web_anon",
    "set session role web_anon",
    "reset role",
    "reset all",
    "select pg_advisory_lock(1)",
    "select pg_try_advisory_lock(2)",
    "create temp table litter as select 1 as a",
    "select 1 as a into temp other_litter",
    "listen gossip",
    "declare c cursor with hold for select 1",
    "prepare p as select 1",
    "deallocate all",
    "do $$ begin perform set_config('work_mem', '1MB', false), pg_advisory_lock(3); end $$",
    "call sets()",
    "load 'plpgsql'",
};

static void what_a_user_sets_in_a_unit_of_work_is_gone_for_the_next(void **state)
{
    struct fixture *f = *state;
    open_with_one_connection(f, WEIR_RESET_AUTO);
    for (size_t i = 0; i < sizeof litter / sizeof *litter; i++) {
        run_as(f, 1, true, litter[i]);
        assert_baseline(f, 2, litter[i]);
    }
    harness_close(&f->h);
}

static void what_a_user_sets_in_a_single_call_is_gone_for_the_next(void **state)
{
    struct fixture *f = *state;
    open_with_one_connection(f, WEIR_RESET_AUTO);
    for (size_t i = 0; i < sizeof litter / sizeof *litter; i++) {
        bool units_only = strncmp(litter[i], "do", 2) == 0 || strncmp(litter[i], "call", 4) == 0;
        if (units_only) continue;
        run_as(f, 1, false, litter[i]);
        assert_baseline(f, 2, litter[i]);
    }
    harness_close(&f->h);
}

/* What a function sets inside cannot be seen from outside; `reset = always` is for those who call such
 * functions. */
static void with_reset_always_even_what_a_function_sets_is_gone(void **state)
{
    struct fixture *f = *state;
    open_with_one_connection(f, WEIR_RESET_ALWAYS);
    job_assert(run_as(f, 1, false, "select stealthy()"), WEIR_CALL_OK);
    assert_baseline(f, 2, "stealthy() in a call");
    job_assert(run_as(f, 1, true, "select stealthy()"), WEIR_CALL_OK);
    assert_baseline(f, 2, "stealthy() in a unit");
    harness_close(&f->h);
}

static void a_user_who_leaves_his_role_sees_less_and_not_more(void **state)
{
    struct fixture *f = *state;
    static const char *const ways[] = {"reset role", "set role none",
                                       "select set_config('role', 'none', true)",
                                       "set session authorization default"};
    open_with_one_connection(f, WEIR_RESET_AUTO);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct job *job = harness_unit(&f->h, ANON, "leaves his role");
        job_claims(job, "{\"sub\":\"u1\"}");
        job_step(job, "%s", ways[i]);
        job_step(job, "select count(*) from contacts");
        harness_run(&f->h, job);
        job_assert(job, WEIR_CALL_SERVER);
        assert_string_equal(job->error.sqlstate, "42501");
        assert_baseline(f, 2, ways[i]);
    }
    harness_close(&f->h);
}

static void a_user_cannot_become_the_service(void **state)
{
    struct fixture *f = *state;
    open_with_one_connection(f, WEIR_RESET_AUTO);
    struct job *job = run_as(f, 1, true, "set role app_service");
    job_assert(job, WEIR_CALL_SERVER);
    assert_string_equal(job->error.sqlstate, "42501");
    harness_close(&f->h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_interleaved_calls_of_many_users_never_see_each_other),
        cmocka_unit_test(what_a_user_sets_in_a_unit_of_work_is_gone_for_the_next),
        cmocka_unit_test(what_a_user_sets_in_a_single_call_is_gone_for_the_next),
        cmocka_unit_test(with_reset_always_even_what_a_function_sets_is_gone),
        cmocka_unit_test(a_user_who_leaves_his_role_sees_less_and_not_more),
        cmocka_unit_test(a_user_cannot_become_the_service),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
