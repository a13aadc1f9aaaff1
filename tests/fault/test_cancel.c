/* Deadlines and callers who give up: the statement on the server is cancelled, the call ends in time, and
 * a cancel never hits whoever uses the connection next. */
#include "support/harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct server *server;
    struct harness h;
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(NULL);
    harness_schema(fixture.server);
    server_exec(fixture.server, "create function linger() returns trigger language plpgsql as"
                                " $$ begin perform pg_sleep(0.4); return null; end $$;"
                                "create function undying() returns text language sql as"
                                " $$ select set_config('statement_timeout', '0', true) $$;"
                                "create table slow (id text);"
                                "grant all on slow to app_service;"
                                "create constraint trigger lingers after insert on slow"
                                " deferrable initially deferred for each row execute function linger()");
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    return 0;
}

static void open_engine(struct fixture *f, uint32_t max)
{
    harness_prepare(&f->h, f->server, NULL);
    f->h.options.cancel_wait_ns = SECONDS(1);
    f->h.clients[SERVICE].max = max;
    f->h.options.retries = 0;
    harness_open(&f->h);
}

static long cancels(struct fixture *f)
{
    return harness_stat(&f->h, "service@primary", "events", "cancels");
}

static bool nothing_runs(void *arg)
{
    struct fixture *f = arg;
    return server_ask_number(f->server, "select count(*) from pg_stat_activity where usename = 'app_service'"
                                        " and state <> 'idle'") == 0;
}

/* ---- the next borrower ----------------------------------------------------------------------- */

/* The deadline falls close to the end of the statement, so that cancels race answers; and the server's own
 * statement_timeout, which would mostly be faster, is put out behind the engine's back. */
static struct job *start_victim(struct fixture *f, int number)
{
    struct job *job =
        number % 2 == 0 ? harness_call(&f->h, SERVICE, "victim") : harness_unit(&f->h, SERVICE, "victim");
    job_step(job, "select undying()");
    job_step(job, "insert into ledger values ('victim %d')", number);
    job_step(job, "select pg_sleep(%d / 1000.0)", 8 + number % 7);
    job->request.timeout_ns = MS(10);
    job_start(job);
    return job;
}

static struct job *start_innocent(struct fixture *f)
{
    struct job *job = harness_call(&f->h, SERVICE, "innocent");
    job_step(job, "select pg_sleep(0.002)");
    job_start(job);
    return job;
}

static void check_victim(struct fixture *f, const struct job *job, int number)
{
    char sql[120];
    snprintf(sql, sizeof sql, "select count(*) from ledger where id = 'victim %d'", number);
    long times = server_ask_number(f->server, sql);
    if (job->code != WEIR_CALL_OK) job_assert(job, WEIR_CALL_TIMEOUT);
    if (job->outcome == WEIR_OUTCOME_COMMITTED)
        assert_int_equal(times, 1);
    else if (job->outcome != WEIR_OUTCOME_UNKNOWN)
        assert_int_equal(times, 0);
}

static void four_hundred_cancels_never_hit_the_next_borrower(void **state)
{
    struct fixture *f = *state;
    struct job *victims[4], *innocents[12];
    open_engine(f, 6);
    for (int number = 0; cancels(f) < 400; number += 4) {
        assert_true(number < 3000);
        for (int i = 0; i < 4; i++) victims[i] = start_victim(f, number + i);
        for (int i = 0; i < 12; i++) innocents[i] = start_innocent(f);
        harness_wait(&f->h);
        for (int i = 0; i < 12; i++) job_assert(innocents[i], WEIR_CALL_OK);
        for (int i = 0; i < 4; i++) check_victim(f, victims[i], number + i);
        harness_forget_jobs(&f->h);
    }
    /* They were used again, rather than replaced: that is what makes it dangerous. */
    assert_true(harness_stat(&f->h, "service@primary", "events", "opened") < 40);
    harness_close(&f->h);
}

/* ---- giving up ------------------------------------------------------------------------------- */

static struct job *start_sleeper(struct fixture *f, uint64_t timeout_ns)
{
    struct job *job = harness_call(&f->h, SERVICE, "sleeps long");
    job_step(job, "select pg_sleep(30)");
    job->request.timeout_ns = timeout_ns;
    job_start(job);
    return job;
}

static bool sleeps(void *arg)
{
    struct fixture *f = arg;
    return server_ask_number(f->server,
                             "select count(*) from pg_stat_activity where wait_event = 'PgSleep'") > 0;
}

static void what_its_caller_gives_up_ends_at_once_here_and_soon_on_the_server(void **state)
{
    struct fixture *f = *state;
    open_engine(f, 2);
    struct job *job = start_sleeper(f, SECONDS(20));
    assert_true(harness_until(&f->h, sleeps, f, 5000));
    uint64_t before = job->harness->ticked_ns;
    weir_call_cancel(job->call);
    harness_wait(&f->h);
    job_assert(job, WEIR_CALL_CANCELLED);
    assert_true(job->started_ns + job->took_ns - before < MS(200));
    assert_true(harness_until(&f->h, nothing_runs, f, 2000));
    job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
    harness_close(&f->h);
}

static void what_its_owner_frees_is_cancelled_and_he_hears_no_more(void **state)
{
    struct fixture *f = *state;
    open_engine(f, 2);
    struct job *job = start_sleeper(f, SECONDS(20));
    assert_true(harness_until(&f->h, sleeps, f, 5000));
    weir_call_free(job->call);
    assert_true(harness_until(&f->h, nothing_runs, f, 2000));
    assert_int_equal(job->endings, 0);
    job->call = NULL;
    job->started_ns = 0; /* not ours to end any more */
    f->h.running--;
    harness_close(&f->h);
}

/* The owner is at work and nothing is on the wire: the deadline ends the unit all the same. */
static void a_unit_whose_owner_dawdles_past_its_deadline_is_rolled_back(void **state)
{
    struct fixture *f = *state;
    open_engine(f, 1);
    struct job *job = harness_unit(&f->h, SERVICE, "dawdles");
    job_step(job, "insert into ledger values ('dawdler')");
    job->pause = true;
    job->request.timeout_ns = MS(100);
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_TIMEOUT);
    assert_int_equal(job->outcome, WEIR_OUTCOME_ROLLED_BACK);
    job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger where id = 'dawdler'"), 0);
    harness_close(&f->h);
}

static bool slow_is_committed(void *arg)
{
    struct fixture *f = arg;
    return server_ask_number(f->server, "select count(*) from slow where id = 'late'") == 1;
}

static void a_commit_past_its_deadline_is_unknown_and_not_cancelled(void **state)
{
    struct fixture *f = *state;
    open_engine(f, 1);
    struct job *job = harness_unit(&f->h, SERVICE, "commits late");
    job_step(job, "insert into slow values ('late')");
    job->request.timeout_ns = MS(150);
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_TIMEOUT);
    assert_int_equal(job->outcome, WEIR_OUTCOME_UNKNOWN);
    assert_true(harness_until(&f->h, slow_is_committed, f, 3000));
    assert_int_equal(cancels(f), 0);
    harness_close(&f->h);
}

/* ---- a server that does not react ------------------------------------------------------------ */

static void freeze_it(struct job *job, size_t step)
{
    if (step != 0) return;
    server_signal(job->harness->server, (pid_t)strtol(job->answers[0], NULL, 10), SIGSTOP);
}

static void a_frozen_backend_is_left_at_the_deadline_and_its_connection_not_used_again(void **state)
{
    struct fixture *f = *state;
    open_engine(f, 2);
    struct job *job = harness_unit(&f->h, SERVICE, "frozen");
    job_step(job, "select pg_backend_pid()");
    job_step(job, "insert into ledger values ('frozen')");
    job->on_reply = freeze_it;
    job->request.timeout_ns = MS(300);
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_TIMEOUT);
    assert_int_equal(job->outcome, WEIR_OUTCOME_ROLLED_BACK);
    for (int i = 0; i < 20; i++) {
        struct job *next = harness_query(&f->h, "select pg_backend_pid()");
        job_assert(next, WEIR_CALL_OK);
        assert_string_not_equal(next->answers[0], job->answers[0]);
    }
    server_signal(f->server, (pid_t)strtol(job->answers[0], NULL, 10), SIGCONT);
    harness_close(&f->h);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger where id = 'frozen'"), 0);
}

static bool none_canceling(void *arg)
{
    struct fixture *f = arg;
    struct weir_held held;
    weir_held_now(f->h.engine, &held);
    return held.canceling == 0;
}

/* The postmaster is frozen, so cancels are neither refused nor answered; the backends live. */
static void while_cancels_hang_calls_end_in_time_and_other_connections_serve(void **state)
{
    struct fixture *f = *state;
    struct job *victims[4];
    open_engine(f, 6);
    for (int i = 0; i < 6; i++) start_innocent(f);
    harness_wait(&f->h);
    server_freeze(f->server);
    for (int i = 0; i < 4; i++) victims[i] = start_sleeper(f, MS(100));
    harness_wait(&f->h);
    for (int i = 0; i < 4; i++) job_assert(victims[i], WEIR_CALL_TIMEOUT);
    for (int i = 0; i < 50; i++) job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
    harness_turn(&f->h, 1100); /* longer than cancel_wait: they are given up */
    assert_true(harness_until(&f->h, none_canceling, f, 2000));
    server_thaw(f->server);
    assert_true(harness_until(&f->h, nothing_runs, f, 5000));
    harness_close(&f->h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_hundred_cancels_never_hit_the_next_borrower),
        cmocka_unit_test(what_its_caller_gives_up_ends_at_once_here_and_soon_on_the_server),
        cmocka_unit_test(what_its_owner_frees_is_cancelled_and_he_hears_no_more),
        cmocka_unit_test(a_unit_whose_owner_dawdles_past_its_deadline_is_rolled_back),
        cmocka_unit_test(a_commit_past_its_deadline_is_unknown_and_not_cancelled),
        cmocka_unit_test(a_frozen_backend_is_left_at_the_deadline_and_its_connection_not_used_again),
        cmocka_unit_test(while_cancels_hang_calls_end_in_time_and_other_connections_serve),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
