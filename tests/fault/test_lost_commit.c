/* A COMMIT and its answer lost in every way a network and a server can lose them: what the caller is told
 * is what the ledger says, and nothing runs twice. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct server *server;
    struct proxy *proxy;
    struct harness h;
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(&(struct server_options){.config = "wal_writer_delay = 10s\n"});
    harness_schema(fixture.server);
    server_exec(fixture.server, "create function linger() returns trigger language plpgsql as"
                                " $$ begin perform pg_sleep(0.4); return null; end $$;"
                                "create table slow (id text);"
                                "grant all on slow to app_service;"
                                "create constraint trigger lingers after insert on slow"
                                " deferrable initially deferred for each row execute function linger()");
    server_exec(fixture.server, "checkpoint");
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    return 0;
}

static void open_through_proxy(struct fixture *f)
{
    f->proxy = proxy_start(f->server);
    harness_prepare(&f->h, f->server, proxy_conninfo(f->proxy, NULL));
}

static void close_all(struct fixture *f)
{
    harness_close(&f->h);
    proxy_stop(f->proxy);
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

static void warm_up(struct fixture *f)
{
    harness_open(&f->h);
    job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
}

/* ---- one loss, one truth --------------------------------------------------------------------- */

static void a_swallowed_commit_is_rolled_back_and_the_retry_executes_it_once(void **state)
{
    struct fixture *f = *state;
    open_through_proxy(f);
    warm_up(f);
    proxy_at_commit(f->proxy, PROXY_LOSE_COMMIT, 1);
    struct job *job = write_unit(f, "swallowed");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(job->runs, 2);
    assert_int_equal(executions(f, "swallowed"), 1);
    assert_int_equal(proxy_losses(f->proxy), 1);
    assert_int_equal(harness_stat(&f->h, "service@primary", "events", "resolved_aborted"), 1);
    close_all(f);
}

static void without_retries_a_swallowed_commit_is_told_as_rolled_back(void **state)
{
    struct fixture *f = *state;
    open_through_proxy(f);
    f->h.options.retries = 0;
    warm_up(f);
    proxy_at_commit(f->proxy, PROXY_LOSE_COMMIT, 1);
    struct job *job = write_unit(f, "swallowed for good");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_LOST);
    assert_int_equal(job->outcome, WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(job->error.class_, WEIR_CLASS_SAFE);
    assert_int_equal(executions(f, "swallowed for good"), 0);
    close_all(f);
}

static void a_lost_acknowledgement_ends_as_committed_and_executes_once(void **state)
{
    struct fixture *f = *state;
    open_through_proxy(f);
    warm_up(f);
    proxy_at_commit(f->proxy, PROXY_LOSE_ANSWER, 1);
    struct job *job = write_unit(f, "unheard");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(job->runs, 1);
    assert_int_equal(executions(f, "unheard"), 1);
    assert_int_equal(proxy_losses(f->proxy), 1);
    assert_int_equal(harness_stat(&f->h, "service@primary", "events", "resolved_committed"), 1);
    close_all(f);
}

/* The client is cut off while the server is still at work on the COMMIT: asking once would hear "in
 * progress". */
static void a_slow_commit_whose_client_is_gone_is_asked_after_until_it_has_committed(void **state)
{
    struct fixture *f = *state;
    open_through_proxy(f);
    warm_up(f);
    proxy_at_commit(f->proxy, PROXY_LOSE_CLIENT, 1);
    struct job *job = harness_unit(&f->h, SERVICE, "slow commit");
    job_step(job, "insert into slow values ('a')");
    harness_run(&f->h, job);
    assert_int_equal(proxy_losses(f->proxy), 1);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(job->runs, 1);
    assert_true(job->took_ns >= MS(300));
    assert_int_equal(server_ask_number(f->server, "select count(*) from slow"), 1);
    close_all(f);
}

static bool commit_is_running(void *arg)
{
    struct fixture *f = arg;
    return server_ask_number(f->server,
                             "select count(*) from pg_stat_activity where wait_event = 'PgSleep'") > 0;
}

/* The server goes down hard while it works on the COMMIT, so the transaction cannot have survived. */
static void a_server_killed_during_commit_has_rolled_back_and_the_retry_executes_once(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    f->h.options.retries = 20;
    warm_up(f);
    struct job *job = harness_unit(&f->h, SERVICE, "killed in commit");
    job_step(job, "insert into slow values ('b')");
    job_start(job);
    assert_true(harness_until(&f->h, commit_is_running, f, 5000));
    server_restart(f->server, SERVER_IMMEDIATE);
    harness_wait(&f->h);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(job->runs, 2);
    assert_int_equal(server_ask_number(f->server, "select count(*) from slow where id = 'b'"), 1);
    harness_close(&f->h);
}

static void shut_the_door(struct job *job, size_t step)
{
    struct fixture *f = job->user;
    (void)step;
    if (job->runs == 1) proxy_door(f->proxy, PROXY_RESET);
}

static bool commit_was_lost(void *arg)
{
    struct fixture *f = arg;
    return proxy_losses(f->proxy) > 0;
}

static void crash_and_give_the_number_to_another(struct fixture *f, long ours)
{
    server_restart(f->server, SERVER_IMMEDIATE);
    long theirs = server_ask_number(f->server, "select pg_current_xact_id()");
    assert_true(theirs <= ours); /* else it had been written down, and the test would show nothing */
    while (theirs < ours) theirs = server_ask_number(f->server, "select pg_current_xact_id()");
}

/* PostgreSQL gives out a number again if a crash came before it was in the log: "committed" is then about
 * a stranger. */
static void a_number_given_out_again_after_a_crash_is_not_taken_for_ours(void **state)
{
    struct fixture *f = *state;
    server_exec(f->server, "checkpoint");
    open_through_proxy(f);
    warm_up(f);
    struct job *job = write_unit(f, "given out again");
    job_step(job, "select pg_current_xact_id()");
    job->on_reply = shut_the_door;
    job->user = f;
    proxy_at_commit(f->proxy, PROXY_LOSE_COMMIT, 1);
    job_start(job);
    assert_true(harness_until(&f->h, commit_was_lost, f, 5000));
    crash_and_give_the_number_to_another(f, strtol(job->answers[1], NULL, 10));
    proxy_door(f->proxy, PROXY_OPEN);
    harness_wait(&f->h);
    job_assert(job, WEIR_CALL_LOST);
    assert_int_equal(job->outcome, WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(executions(f, "given out again"), 0);
    close_all(f);
}

/* ---- another server -------------------------------------------------------------------------- */

struct failover {
    struct fixture *fixture;
    struct server *standby;
};

static void fail_over(struct job *job, size_t step)
{
    struct failover *over = job->user;
    (void)step;
    if (job->runs > 1) return;
    server_promote(over->standby);
    proxy_upstream(over->fixture->proxy, over->standby);
}

/* The standby knows the transaction's number only by hearsay, and gives it to somebody else after its
 * promotion. */
static void after_a_failover_a_lost_commit_is_unknown_and_not_repeated(void **state)
{
    struct fixture *f = *state;
    struct failover over = {f, server_standby(f->server, NULL)};
    open_through_proxy(f);
    warm_up(f);
    proxy_at_commit(f->proxy, PROXY_LOSE_COMMIT, 1);
    struct job *job = write_unit(f, "failed over");
    job->on_reply = fail_over;
    job->user = &over;
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_LOST);
    assert_int_equal(job->outcome, WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(job->runs, 1);
    assert_non_null(strstr(job->error.message, "another server"));
    assert_int_equal(harness_stat(&f->h, "service@primary", "events", "resolved_not"), 1);
    close_all(f);
    server_free(over.standby);
}

/* ---- autocommit ------------------------------------------------------------------------------ */

static struct job *write_call(struct fixture *f, const char *id)
{
    struct job *job = harness_call(&f->h, SERVICE, id);
    job_step(job, "insert into ledger values ($1)");
    job_value(job, "%s", id);
    return job;
}

static void a_lost_autocommit_write_is_told_as_unknown_and_not_repeated(void **state)
{
    struct fixture *f = *state;
    open_through_proxy(f);
    warm_up(f);
    proxy_lose_answer_to(f->proxy, "insert into ledger");
    struct job *job = write_call(f, "autocommit");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_LOST);
    assert_int_equal(job->outcome, WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(job->error.class_, WEIR_CLASS_UNKNOWN);
    assert_int_equal(job->attempts, 1);
    assert_int_equal(executions(f, "autocommit"), 1);
    assert_int_equal(harness_stat(&f->h, "service@primary", "calls", "unknown"), 1);
    close_all(f);
}

static void a_lost_autocommit_write_declared_idempotent_is_repeated(void **state)
{
    struct fixture *f = *state;
    open_through_proxy(f);
    warm_up(f);
    proxy_lose_answer_to(f->proxy, "insert into ledger");
    struct job *job = write_call(f, "harmless");
    job->request.idempotent = true;
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(job->attempts, 2);
    assert_int_equal(executions(f, "harmless"), 2);
    close_all(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_swallowed_commit_is_rolled_back_and_the_retry_executes_it_once),
        cmocka_unit_test(without_retries_a_swallowed_commit_is_told_as_rolled_back),
        cmocka_unit_test(a_lost_acknowledgement_ends_as_committed_and_executes_once),
        cmocka_unit_test(a_slow_commit_whose_client_is_gone_is_asked_after_until_it_has_committed),
        cmocka_unit_test(a_server_killed_during_commit_has_rolled_back_and_the_retry_executes_once),
        cmocka_unit_test(a_number_given_out_again_after_a_crash_is_not_taken_for_ours),
        cmocka_unit_test(after_a_failover_a_lost_commit_is_unknown_and_not_repeated),
        cmocka_unit_test(a_lost_autocommit_write_is_told_as_unknown_and_not_repeated),
        cmocka_unit_test(a_lost_autocommit_write_declared_idempotent_is_repeated),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
