/* A pooler between us and the server: whoever shares its server connections never sees another's rows, claims or
 * settings; cancels hit whom they are meant for; and what goes away comes back. PgBouncer, as Debian ships it. */
#include "support/harness.h"
#include "support/pooler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CROWD = 200, ROUNDS = 40 };

/* Who asks, and what of it is his: all rows he sees, and those of others among them. */
#define LOOK_AROUND                                                                                          \
    "select concat_ws('|', current_user, session_user, current_setting('request.jwt.claims', true),"         \
    " count(*), count(*) filter (where owner <> $1)) from contacts"

#define HIS_OWN "web_anon|app_anon|{\"sub\":\"u%d\"}|3|0"

/* What a session could have been left with. */
#define LEFT_BEHIND                                                                                          \
    "select concat_ws('|', current_user, current_setting('statement_timeout'), "                             \
    "current_setting('row_security'),"                                                                       \
    " coalesce(nullif(current_setting('request.jwt.claims', true), ''), 'none'), "                           \
    "current_setting('work_mem'),"                                                                           \
    " current_setting('application_name'), (select count(*) from pg_prepared_statements))"

struct fixture {
    struct server *server, *other;
    struct pooler *pooler;
    struct harness h;
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(NULL);
    harness_schema(fixture.server);
    server_exec(fixture.server, "create function undying() returns text language sql as"
                                " $$ select set_config('statement_timeout', '0', true) $$;"
                                "alter role web_anon set work_mem = '5MB'");
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    return 0;
}

static void prepare(struct fixture *f, const struct pooler_options *options, bool told)
{
    f->pooler = pooler_start(f->server, options);
    harness_prepare(&f->h, f->server, pooler_conninfo(f->pooler, NULL));
    f->h.backend.pooler = told;
}

/* A transaction pooler, and an engine that knows of it. */
static void open_pooled(struct fixture *f)
{
    prepare(f, NULL, true);
    harness_open(&f->h);
}

static bool no_clients(void *arg)
{
    return pooler_clients(((struct fixture *)arg)->pooler) == 0;
}

static void close_all(struct fixture *f)
{
    harness_close_blind(&f->h);
    for (int tries = 0; tries < 400 && !no_clients(f); tries++)
        server_ask(f->server, "select pg_sleep(0.005)");
    assert_true(no_clients(f));
    pooler_free(f->pooler);
}

static struct job *as_user(struct fixture *f, bool unit, int user)
{
    struct job *job = unit ? harness_unit(&f->h, ANON, "of a user") : harness_call(&f->h, ANON, "of a user");
    job_claims(job, "{\"sub\":\"u%d\"}", user);
    job_step(job, LOOK_AROUND);
    job_value(job, "u%d", user);
    return job;
}

static void check_own(const struct job *job, size_t step, int user)
{
    char expected[JOB_ANSWER];
    snprintf(expected, sizeof expected, HIS_OWN, user);
    job_assert(job, WEIR_CALL_OK);
    assert_string_equal(job->answers[step], expected);
}

static long executions(struct fixture *f, const char *id)
{
    char sql[160];
    snprintf(sql, sizeof sql, "select count(*) from ledger where id = '%s'", id);
    return server_ask_number(f->server, sql);
}

static struct job *write_unit(struct fixture *f, const char *id)
{
    struct job *job = harness_unit(&f->h, SERVICE, id);
    job_step(job, "insert into ledger values ($1)");
    job_value(job, "%s", id);
    return job;
}

/* ---- identity ------------------------------------------------------------------------------------------------------- */

static void calls_and_units_of_users_see_their_own_rows_alone(void **state)
{
    struct fixture *f = *state;
    open_pooled(f);
    for (int user = 0; user < 6; user++) {
        struct job *job = as_user(f, user % 2 == 0, user);
        harness_run(&f->h, job);
        check_own(job, 0, user);
    }
    job_assert(harness_query(&f->h, "select count(*) from contacts"), WEIR_CALL_OK);
    close_all(f);
}

static void start_one_of_the_crowd(struct fixture *f, struct job **job, int number)
{
    *job = as_user(f, number % 2 == 0, number % 50);
    job_step(*job, "select pg_sleep(0.001)");
    job_step(*job, LOOK_AROUND);
    job_value(*job, "u%d", number % 50);
    if (number % 10 == 3) job_step(*job, "select 1 / 0");
    job_start(*job);
    if (number % 5 == 0) {
        struct job *service = harness_call(&f->h, SERVICE, "in between");
        job_step(service, "select pg_backend_pid()");
        job_start(service);
    }
}

static void two_hundred_interleaved_callers_on_four_connections_never_see_each_other(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[CROWD];
    prepare(f, NULL, true);
    f->h.clients[ANON].max = 20;
    f->h.clients[ANON].queue_max = CROWD;
    f->h.options.timeout_ns = SECONDS(20);
    harness_open(&f->h);
    for (int i = 0; i < CROWD; i++) start_one_of_the_crowd(f, &jobs[i], i);
    harness_wait(&f->h);
    for (int i = 0; i < CROWD; i++) {
        if (i % 10 == 3) {
            job_assert(jobs[i], WEIR_CALL_SERVER);
            continue;
        }
        check_own(jobs[i], 0, i % 50);
        check_own(jobs[i], 2, i % 50);
    }
    assert_int_equal(pooler_servers(f->pooler, "app_anon"), 4);
    /* More clients than server connections, or nothing was shared. */
    assert_in_range(harness_stat(&f->h, "anon@primary", "events", "opened"), 5, 20);
    close_all(f);
}

/* A login that may do too much is found out through the pooler, too. */
static void a_login_that_policies_do_not_bind_is_refused_through_the_pooler(void **state)
{
    struct fixture *f = *state;
    server_exec(f->server, "alter role app_anon bypassrls");
    open_pooled(f);
    struct job *job = as_user(f, false, 1);
    harness_run(&f->h, job);
    server_exec(f->server, "alter role app_anon nobypassrls");
    job_assert(job, WEIR_CALL_IDENTITY);
    assert_non_null(strstr(job->error.message, "it has BYPASSRLS"));
    close_all(f);
}

static void what_the_role_was_given_counts_in_every_transaction(void **state)
{
    struct fixture *f = *state;
    open_pooled(f);
    for (int i = 0; i < 8; i++) {
        struct job *job = i % 2 == 0 ? harness_call(&f->h, ANON, "asks") : harness_unit(&f->h, ANON, "asks");
        job_claims(job, "{}");
        job_step(job, "select current_setting('work_mem')");
        harness_run(&f->h, job);
        job_assert(job, WEIR_CALL_OK);
        assert_string_equal(job->answers[0], "5MB");
    }
    close_all(f);
}

/* ---- statements and settings ---------------------------------------------------------------------------------------- */

static void repeat_statements(struct fixture *f, int times)
{
    for (int i = 0; i < times; i++) {
        struct job *call = harness_call(&f->h, SERVICE, i % 2 == 0 ? "even" : "odd"), *unit, *user;
        job_step(call, "select $1::int + 1");
        job_value(call, "%d", i);
        job_step(call, "select count(*) from contacts where owner = $1");
        job_value(call, "u%d", i % 50);
        call->request.readonly = true;
        job_start(call);
        unit = harness_unit(&f->h, SERVICE, "unit");
        job_step(unit, "select count(*) from contacts where owner = $1");
        job_value(unit, "u%d", i % 50);
        job_start(unit);
        user = as_user(f, i % 2 == 0, i % 50);
        user->request.readonly = true;
        job_start(user);
        if (i % 8 == 7) harness_wait(&f->h);
    }
    harness_wait(&f->h);
}

static size_t bad_ends(const struct fixture *f)
{
    size_t count = 0;
    for (const struct job *job = f->h.jobs; job != NULL; job = job->next) {
        if (job->code == WEIR_CALL_OK) continue;
        if (count++ < 5) job_print(job);
    }
    return count;
}

/* Another program with the same login, on a server connection that we have used. */
static void check_nothing_left(struct fixture *f, const char *login, const char *password)
{
    char more[160], expected[160];
    snprintf(more, sizeof more, "user=%s password=%s application_name=stranger", login, password);
    snprintf(expected, sizeof expected, "%s|0|on|none|4MB|stranger|0", login);
    assert_string_equal(pooler_ask(f->pooler, more, LEFT_BEHIND), expected);
}

static void repeated_statements_work_and_leave_nothing_behind(void **state)
{
    struct fixture *f = *state;
    prepare(f, &(struct pooler_options){.size = 1}, true);
    harness_open(&f->h);
    repeat_statements(f, 40);
    assert_int_equal(bad_ends(f), 0);
    assert_int_equal(harness_stat(&f->h, "service@primary", "events", "heals"), 0);
    check_nothing_left(f, "app_service", "service-secret");
    check_nothing_left(f, "app_anon", "anon-secret");
    close_all(f);
}

static void what_must_stand_alone_does_so_through_the_pooler(void **state)
{
    struct fixture *f = *state;
    open_pooled(f);
    server_exec(f->server, "create table dusty (a int); alter table dusty owner to app_service");
    for (int i = 0; i < 3; i++) job_assert(harness_query(&f->h, "vacuum dusty"), WEIR_CALL_OK);
    close_all(f);
}

/* What we send at the start by ourselves PgBouncer takes. This it does not, and says so. */
static void startup_options_are_refused_by_the_pooler_with_a_sentence(void **state)
{
    struct fixture *f = *state;
    f->pooler = pooler_start(f->server, NULL);
    harness_prepare(&f->h, f->server, pooler_conninfo(f->pooler, "options='-c work_mem=1MB'"));
    f->h.backend.pooler = true;
    harness_open(&f->h);
    struct job *job = harness_query(&f->h, "select 1");
    job_assert(job, WEIR_CALL_CONNECT);
    assert_int_equal(job->attempts, 1);
    const char *said =
        strstr(job->error.message, "unsupported startup parameter"); /* ": options", "in options: work_mem" */
    assert_non_null(said);
    assert_non_null(strstr(said, "options"));
    close_all(f);
}

/* Nobody has said that there is a pooler. */
static void a_pooler_nobody_told_of_makes_no_call_fail_and_is_left_clean(void **state)
{
    struct fixture *f = *state;
    for (int size = 1; size <= 4; size += 3) {
        prepare(f, &(struct pooler_options){.size = size}, false);
        harness_open(&f->h);
        repeat_statements(f, 40);
        assert_int_equal(bad_ends(f), 0);
        check_nothing_left(f, "app_service", "service-secret");
        check_nothing_left(f, "app_anon", "anon-secret");
        close_all(f);
    }
}

static void a_session_pooler_serves_calls_and_units(void **state)
{
    struct fixture *f = *state;
    prepare(f, &(struct pooler_options){.mode = POOLER_SESSION, .size = 10}, false);
    harness_open(&f->h);
    repeat_statements(f, 20);
    assert_int_equal(bad_ends(f), 0);
    close_all(f);
}

static void a_statement_pooler_serves_calls_and_refuses_units_with_its_reason(void **state)
{
    struct fixture *f = *state;
    prepare(f, &(struct pooler_options){.mode = POOLER_STATEMENT}, true);
    harness_open(&f->h);
    struct job *call = as_user(f, false, 7), *unit = write_unit(f, "statement pooler");
    harness_run(&f->h, call);
    harness_run(&f->h, unit);
    check_own(call, 0, 7);
    job_assert(unit, WEIR_CALL_LOST);
    assert_int_equal(unit->outcome, WEIR_OUTCOME_ROLLED_BACK);
    assert_non_null(strstr(unit->error.message, "transaction blocks not allowed in statement pooling mode"));
    assert_int_equal(executions(f, "statement pooler"), 0);
    close_all(f);
}

/* ---- units ---------------------------------------------------------------------------------------------------------- */

static void units_commit_and_roll_back_as_the_server_says(void **state)
{
    struct fixture *f = *state;
    open_pooled(f);
    struct job *good = write_unit(f, "pooled"), *swallowed = write_unit(f, "pooled, swallowed");
    struct job *undone = write_unit(f, "pooled, undone");
    job_step(swallowed, "select 1 / 0");
    swallowed->swallow = true;
    undone->finish = WEIR_ROLLBACK;
    job_start(good);
    job_start(swallowed);
    job_start(undone);
    harness_wait(&f->h);
    job_assert(good, WEIR_CALL_OK);
    job_assert(swallowed, WEIR_CALL_ABORTED);
    job_assert(undone, WEIR_CALL_ROLLED_BACK);
    assert_int_equal(executions(f, "pooled"), 1);
    assert_int_equal(executions(f, "pooled, swallowed"), 0);
    assert_int_equal(executions(f, "pooled, undone"), 0);
    close_all(f);
}

/* A network to lose things in, between the pooler and the server. */
static struct proxy *open_proxied(struct fixture *f)
{
    struct proxy *proxy = proxy_start(f->server);
    char upstream[64];
    int port = atoi(strstr(proxy_conninfo(proxy, NULL), "port=") + 5);
    snprintf(upstream, sizeof upstream, "host=127.0.0.1 port=%d", port);
    prepare(f, &(struct pooler_options){.upstream = upstream}, true);
    f->h.options.retries = 1;
    harness_open(&f->h);
    for (int i = 0; i < 3; i++) job_start(write_unit(f, "warms up"));
    harness_wait(&f->h);
    return proxy;
}

static bool is_at_rest(void *engine)
{
    struct weir_held held;
    weir_held_now(engine, &held);
    return held.connecting == 0 && held.canceling == 0 && held.leased == 0;
}

/* The pooler's own connections, which it keeps, are not the engine's leak. It makes new ones as long as the engine asks
 * anything, be it only when it connects. */
static void close_proxied(struct fixture *f, struct proxy *proxy)
{
    assert_true(harness_until(&f->h, is_at_rest, f->h.engine, 5000));
    proxy_reset_all(proxy);
    close_all(f);
    proxy_stop(proxy);
}

static void lose_commits(struct fixture *f, enum proxy_loss loss, const char *id, unsigned runs)
{
    struct proxy *proxy = open_proxied(f);
    proxy_at_commit(proxy, loss, 1);
    struct job *job = write_unit(f, id);
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(job->runs, runs);
    assert_int_equal(proxy_losses(proxy), 1);
    assert_int_equal(executions(f, id), 1);
    close_proxied(f, proxy);
}

static void a_commit_whose_answer_was_lost_behind_the_pooler_is_found_out(void **state)
{
    lose_commits(*state, PROXY_LOSE_ANSWER, "pooled, unheard", 1);
}

static void a_commit_that_was_lost_behind_the_pooler_is_repeated_once(void **state)
{
    lose_commits(*state, PROXY_LOSE_COMMIT, "pooled, swallowed by the net", 2);
}

static void lead_elsewhere(struct job *job, size_t step)
{
    struct fixture *f = job->user;
    char upstream[200];
    (void)step;
    snprintf(upstream, sizeof upstream, "host=%s port=%d", server_socket_dir(f->other),
             server_port(f->other));
    pooler_upstream(f->pooler, upstream);
}

/* A failover that our connections to the pooler outlive: the new primary never heard of our transaction, and has given
 * its number to another. */
static void what_the_next_server_says_of_a_lost_commit_is_not_believed(void **state)
{
    struct fixture *f = *state;
    f->other = server_standby(f->server, NULL);
    server_promote(f->other);
    for (int i = 0; i < 40; i++) server_exec(f->other, "insert into ledger values ('of the other server')");
    struct proxy *proxy = open_proxied(f);
    proxy_at_commit(proxy, PROXY_LOSE_COMMIT, 1);
    struct job *job = write_unit(f, "on the old server");
    job->on_reply = lead_elsewhere;
    job->user = f;
    harness_run(&f->h, job);
    assert_int_equal(proxy_losses(proxy), 1);
    job_assert(job, WEIR_CALL_LOST);
    assert_int_equal(job->outcome, WEIR_OUTCOME_UNKNOWN);
    assert_non_null(strstr(job->error.message, "another server answers now"));
    close_proxied(f, proxy);
    server_free(f->other);
}

/* The same server after a crash that our connections to the pooler outlive: they are found to be of the past by the
 * first unit that writes, and replaced, so that the next lost answer can be found out again. */
static void after_a_crash_behind_the_pooler_lost_answers_are_found_out_again(void **state)
{
    struct fixture *f = *state;
    struct proxy *proxy = open_proxied(f);
    server_restart(f->server, SERVER_IMMEDIATE);
    server_ask(f->server, "select 1"); /* the fixture's own connection is no leak */
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < 3; k++) job_start(write_unit(f, "after the crash"));
        harness_wait(&f->h);
        harness_turn(&f->h, 5); /* a connection not used for a moment is looked at before it is lent */
    }
    proxy_at_commit(proxy, PROXY_LOSE_ANSWER, 1);
    struct job *job = write_unit(f, "unheard after the crash");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(proxy_losses(proxy), 1);
    assert_int_equal(executions(f, "unheard after the crash"), 1);
    close_proxied(f, proxy);
}

/* ---- deadlines ------------------------------------------------------------------------------------------------------ */

static struct job *start_victim(struct fixture *f, int number)
{
    struct job *job =
        number % 2 == 0 ? harness_call(&f->h, SERVICE, "victim") : harness_unit(&f->h, SERVICE, "victim");
    job_step(job, "select undying()");
    job_step(job, "select pg_sleep(%d / 1000.0)", number % 3 == 0 ? 30000 : 8 + number % 7);
    job->request.timeout_ns = MS(10);
    job_start(job);
    return job;
}

static void deadlines_cancel_what_they_are_meant_for_and_hit_nobody_else(void **state)
{
    struct fixture *f = *state;
    open_pooled(f);
    for (int round = 0; round < ROUNDS; round++) {
        struct job *victims[2], *innocents[6];
        for (int i = 0; i < 2; i++) victims[i] = start_victim(f, round * 2 + i);
        for (int i = 0; i < 6; i++) {
            innocents[i] = i % 2 == 0 ? harness_call(&f->h, SERVICE, "innocent") : as_user(f, false, i);
            job_step(innocents[i], "select pg_sleep(0.002)");
            job_start(innocents[i]);
        }
        harness_wait(&f->h);
        for (int i = 0; i < 6; i++) job_assert(innocents[i], WEIR_CALL_OK);
        for (int i = 0; i < 2; i++) {
            if (victims[i]->code != WEIR_CALL_OK) job_assert(victims[i], WEIR_CALL_TIMEOUT);
        }
        harness_forget_jobs(&f->h);
    }
    assert_true(harness_stat(&f->h, "service@primary", "events", "cancels") >= ROUNDS / 2);
    assert_true(server_wait(f->server,
                            "select not exists (select from pg_stat_activity where wait_event = 'PgSleep')",
                            1000));
    close_all(f);
}

/* A request to cancel what waits has no effect on PgBouncer, so it may yet run once the pause is over, until we hang up:
 * for a single call nobody can know. */
static void what_waits_in_a_paused_pooler_ends_by_its_deadline(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[6];
    open_pooled(f);
    for (int i = 0; i < 3; i++) job_start(write_unit(f, "before the pause"));
    harness_wait(&f->h);
    pooler_pause(f->pooler);
    for (int i = 0; i < 6; i++) {
        jobs[i] =
            i % 2 == 0 ? harness_call(&f->h, SERVICE, "paused") : harness_unit(&f->h, SERVICE, "paused");
        job_step(jobs[i], "insert into ledger values ('paused')");
        jobs[i]->request.timeout_ns = MS(150);
        job_start(jobs[i]);
    }
    harness_wait(&f->h);
    for (int i = 0; i < 6; i++) {
        bool sent = jobs[i]->error.phase != WEIR_PHASE_NOT_SENT;
        job_assert(jobs[i], WEIR_CALL_TIMEOUT);
        assert_true(jobs[i]->took_ns < MS(400));
        assert_int_equal(jobs[i]->outcome, !sent           ? WEIR_OUTCOME_NONE
                                           : jobs[i]->unit ? WEIR_OUTCOME_ROLLED_BACK
                                                           : WEIR_OUTCOME_UNKNOWN);
    }
    pooler_resume(f->pooler);
    job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
    close_all(f);
    assert_in_range(executions(f, "paused"), 0, 3);
}

/* ---- going and coming ----------------------------------------------------------------------------------------------- */

static bool all_wait(void *arg)
{
    struct fixture *f = arg;
    return server_ask_number(f->server,
                             "select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == 4;
}

static void a_restart_of_the_pooler_ends_what_runs_and_the_pool_recovers(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[4];
    prepare(f, NULL, true);
    f->h.options.retries = 0;
    harness_open(&f->h);
    for (int i = 0; i < 4; i++) {
        jobs[i] =
            i % 2 == 0 ? harness_call(&f->h, SERVICE, "cut off") : harness_unit(&f->h, SERVICE, "cut off");
        job_step(jobs[i], "select pg_sleep(20)");
        job_start(jobs[i]);
    }
    assert_true(harness_until(&f->h, all_wait, f, 5000));
    pooler_stop(f->pooler);
    harness_wait(&f->h);
    for (int i = 0; i < 4; i++) job_assert(jobs[i], WEIR_CALL_LOST);
    job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_CONNECT);
    pooler_run(f->pooler);
    for (int user = 0; user < 4; user++) {
        struct job *job = as_user(f, user % 2 == 0, user);
        harness_run(&f->h, job);
        check_own(job, 0, user);
        job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
    }
    close_all(f);
}

/* The pooler hangs up only on those whose statement was running; the others never hear of it. */
static void a_restart_of_the_server_behind_the_pooler_is_survived(void **state)
{
    struct fixture *f = *state;
    prepare(f, NULL, true);
    f->h.options.retries = 10;
    harness_open(&f->h);
    repeat_statements(f, 8);
    server_restart(f->server, SERVER_FAST);
    server_ask(f->server, "select 1"); /* the fixture's own connection is no leak */
    repeat_statements(f, 8);
    assert_int_equal(bad_ends(f), 0);
    close_all(f);
}

/* The pooler lets clients in and only then finds that it has nobody to send them to. */
static void while_the_server_is_down_callers_hear_what_the_pooler_says(void **state)
{
    struct fixture *f = *state;
    prepare(f, NULL, true);
    f->h.options.retries = 0;
    f->h.options.timeout_ns = MS(500);
    harness_open(&f->h);
    job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
    server_stop(f->server, SERVER_FAST);
    job_assert(harness_query(&f->h, "select 1"),
               WEIR_CALL_TIMEOUT); /* the pooler lets it wait for the server */
    struct job *job = harness_query(&f->h, "select 1");
    server_run(f->server);
    server_ask(f->server, "select 1"); /* the fixture's own connection is no leak */
    job_assert(job, WEIR_CALL_CONNECT);
    assert_int_equal(job->error.class_, WEIR_CLASS_SAFE);
    if (strstr(job->error.message, "server login has been failing") == NULL) job_print(job);
    assert_non_null(strstr(job->error.message, "server login has been failing"));
    close_all(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_and_units_of_users_see_their_own_rows_alone),
        cmocka_unit_test(two_hundred_interleaved_callers_on_four_connections_never_see_each_other),
        cmocka_unit_test(a_login_that_policies_do_not_bind_is_refused_through_the_pooler),
        cmocka_unit_test(what_the_role_was_given_counts_in_every_transaction),
        cmocka_unit_test(repeated_statements_work_and_leave_nothing_behind),
        cmocka_unit_test(what_must_stand_alone_does_so_through_the_pooler),
        cmocka_unit_test(startup_options_are_refused_by_the_pooler_with_a_sentence),
        cmocka_unit_test(a_pooler_nobody_told_of_makes_no_call_fail_and_is_left_clean),
        cmocka_unit_test(a_session_pooler_serves_calls_and_units),
        cmocka_unit_test(a_statement_pooler_serves_calls_and_refuses_units_with_its_reason),
        cmocka_unit_test(units_commit_and_roll_back_as_the_server_says),
        cmocka_unit_test(a_commit_whose_answer_was_lost_behind_the_pooler_is_found_out),
        cmocka_unit_test(a_commit_that_was_lost_behind_the_pooler_is_repeated_once),
        cmocka_unit_test(what_the_next_server_says_of_a_lost_commit_is_not_believed),
        cmocka_unit_test(after_a_crash_behind_the_pooler_lost_answers_are_found_out_again),
        cmocka_unit_test(deadlines_cancel_what_they_are_meant_for_and_hit_nobody_else),
        cmocka_unit_test(what_waits_in_a_paused_pooler_ends_by_its_deadline),
        cmocka_unit_test(a_restart_of_the_pooler_ends_what_runs_and_the_pool_recovers),
        cmocka_unit_test(while_the_server_is_down_callers_hear_what_the_pooler_says),
        cmocka_unit_test(a_restart_of_the_server_behind_the_pooler_is_survived),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
