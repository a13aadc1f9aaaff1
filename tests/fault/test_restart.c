/* PostgreSQL goes away and comes back under load: nobody waits past his deadline, what was acknowledged is
 * there exactly once, the breaker opens, and closes again as soon as a probe gets through. */
#include "support/harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { RUNNING_MOST = 200, EACH_TURN = 6, CONNECT_AT_ONCE = 4 };

struct fixture {
    struct server *server;
    struct proxy *proxy;
    struct harness h;
    const char *name;
    int begun;
    const char *wanted; /* state of the breaker */
    uint64_t started_turn_ns;
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(&(struct server_options){.durable = true});
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

/* ---- load ------------------------------------------------------------------------------------ */

static void start_one(struct fixture *f)
{
    int number = f->begun++;
    struct job *job;
    if (number % 3 == 0) {
        job = harness_unit(&f->h, SERVICE, "writes");
        job_step(job, "insert into ledger values ($1)");
        job_value(job, "%s %d", f->name, number);
        job_step(job, "select count(*) from contacts");
    } else if (number % 3 == 1) {
        job = harness_call(&f->h, SERVICE, "writes alone");
        job_step(job, "insert into ledger values ($1)");
        job_value(job, "%s %d", f->name, number);
    } else {
        job = harness_call(&f->h, SERVICE, "reads");
        job_step(job, "select count(*) from contacts where owner = $1");
        job_value(job, "u%d", number % 50);
        job->request.readonly = true;
    }
    job_start(job);
}

/* A few new callers at each turn of the ticker, up to some hundreds at a time. */
static void press(struct fixture *f)
{
    if (f->started_turn_ns == f->h.ticked_ns) return;
    f->started_turn_ns = f->h.ticked_ns;
    for (int i = 0; i < EACH_TURN && f->h.running < RUNNING_MOST; i++) start_one(f);
}

static bool pressing(void *arg)
{
    press(arg);
    return false;
}

static bool server_is_down(void *arg)
{
    press(arg);
    return !server_running(((struct fixture *)arg)->server);
}

static bool breaker_is_as_wanted(void *arg)
{
    struct fixture *f = arg;
    press(f);
    return strcmp(harness_breaker(&f->h, "service@primary"), f->wanted) == 0;
}

/* ---- afterwards ------------------------------------------------------------------------------ */

static void check_reads_and_writes(struct fixture *f, size_t *good)
{
    for (const struct job *job = f->h.jobs; job != NULL; job = job->next) {
        char sql[160];
        assert_int_equal(job->endings, 1);
        if (job->code == WEIR_CALL_OK) ++*good;
        if (strstr(job->steps[0].sql, "ledger") == NULL) {
            if (job->code == WEIR_CALL_OK) assert_string_equal(job->answers[0], "3");
            assert_true(job->outcome != WEIR_OUTCOME_UNKNOWN);
            continue;
        }
        snprintf(sql, sizeof sql, "select count(*) from ledger where id = '%s'", job->steps[0].values[0]);
        long times = server_ask_number(f->server, sql);
        if (job->outcome == WEIR_OUTCOME_UNKNOWN) {
            assert_in_range(times, 0, 1);
        } else {
            if (times != (job->code == WEIR_CALL_OK)) job_print(job);
            assert_int_equal(times, job->code == WEIR_CALL_OK ? 1 : 0);
        }
    }
}

static void check_pool_is_whole(struct fixture *f)
{
    struct job *jobs[40];
    for (int i = 0; i < 40; i++) {
        jobs[i] = harness_call(&f->h, SERVICE, "afterwards");
        job_step(jobs[i], "select pg_sleep(0.01)");
        job_start(jobs[i]);
    }
    harness_wait(&f->h);
    for (int i = 0; i < 40; i++) job_assert(jobs[i], WEIR_CALL_OK);
    assert_int_equal(harness_stat(&f->h, "service@primary", "connections", "idle"), 10);
    assert_int_equal(harness_stat(&f->h, "service@primary", "connections", "open"), 10);
    assert_int_equal(server_ask_number(f->server,
                                       "select count(*) from pg_stat_activity where usename = 'app_service'"),
                     10);
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void open_engine(struct fixture *f, const char *name, const char *conninfo)
{
    f->name = name;
    f->begun = 0;
    harness_prepare(&f->h, f->server, conninfo);
    f->h.clients[SERVICE].queue_max = RUNNING_MOST;
    f->h.options.timeout_ns = SECONDS(2);
    f->h.options.connect_at_once = CONNECT_AT_ONCE;
    f->h.options.breaker.min_calls = 20;
    f->h.options.breaker.window_ns = SECONDS(2);
    f->h.options.breaker.open_for_ns = SECONDS(60);
    f->h.options.probe_interval_ns = MS(50);
    harness_open(&f->h);
}

static void restart_under_load(struct fixture *f, enum server_stop how)
{
    size_t good = 0;
    assert_false(harness_until(&f->h, pressing, f, 400));
    server_stop_begin(f->server, how);
    assert_true(harness_until(&f->h, server_is_down, f, 10000));
    f->wanted = "OPEN";
    assert_true(harness_until(&f->h, breaker_is_as_wanted, f, 3000));
    assert_false(harness_until(&f->h, pressing, f, 300));
    server_run(f->server);
    f->wanted = "CLOSED";
    assert_true(harness_until(&f->h, breaker_is_as_wanted, f, 10000));
    assert_false(harness_until(&f->h, pressing, f, 300));
    harness_wait(&f->h);
    check_reads_and_writes(f, &good);
    assert_true(good > 100);
    assert_true(harness_stat(&f->h, "service@primary", "refused", "breaker_open") > 50);
    check_pool_is_whole(f);
}

static void a_fast_restart_under_load_loses_nothing_that_was_acknowledged(void **state)
{
    struct fixture *f = *state;
    open_engine(f, "fast", NULL);
    restart_under_load(f, SERVER_FAST);
    harness_close(&f->h);
}

static void an_immediate_restart_under_load_loses_nothing_that_was_acknowledged(void **state)
{
    struct fixture *f = *state;
    open_engine(f, "immediate", NULL);
    restart_under_load(f, SERVER_IMMEDIATE);
    harness_close(&f->h);
}

static void coming_back_the_engine_makes_only_a_few_connections_at_once(void **state)
{
    struct fixture *f = *state;
    f->proxy = proxy_start(f->server);
    open_engine(f, "storm", proxy_conninfo(f->proxy, NULL));
    proxy_delay(f->proxy, 3); /* connecting takes long enough to be seen overlapping */
    restart_under_load(f, SERVER_IMMEDIATE);
    assert_in_range(proxy_most_connecting(f->proxy), 2, CONNECT_AT_ONCE);
    assert_true(proxy_accepted(f->proxy) >= 20);
    harness_close(&f->h);
    proxy_stop(f->proxy);
}

/* One backend dies hard: PostgreSQL ends all the others and recovers, with the postmaster alive. */
static void a_crashed_backend_takes_the_others_along_and_all_is_well_after(void **state)
{
    struct fixture *f = *state;
    size_t good = 0;
    open_engine(f, "crash", NULL);
    f->h.options.breaker.min_calls = 1000000;
    assert_false(harness_until(&f->h, pressing, f, 300));
    pid_t pid =
        (pid_t)server_ask_number(f->server,
                                 "select pid from pg_stat_activity where usename = 'app_service' limit 1");
    server_signal(f->server, pid, SIGKILL);
    f->wanted = "CLOSED";
    assert_false(harness_until(&f->h, pressing, f, 1500));
    while (!server_try(f->server, "select 1")) harness_turn(&f->h, 10); /* the fixture's own died, too */
    assert_true(harness_until(&f->h, breaker_is_as_wanted, f, 10000));
    harness_wait(&f->h);
    check_reads_and_writes(f, &good);
    assert_true(good > 100);
    check_pool_is_whole(f);
    harness_close(&f->h);
}

/* Accepted, then silence: only deadlines help, and the breaker spares those who come later. */
static void a_server_that_says_nothing_more_costs_nobody_more_than_his_deadline(void **state)
{
    struct fixture *f = *state;
    size_t good = 0;
    f->proxy = proxy_start(f->server);
    open_engine(f, "mute", proxy_conninfo(f->proxy, NULL));
    assert_false(harness_until(&f->h, pressing, f, 300));
    proxy_silence(f->proxy, true);
    f->wanted = "OPEN";
    assert_true(harness_until(&f->h, breaker_is_as_wanted, f, 5000));
    assert_false(harness_until(&f->h, pressing, f, 200));
    proxy_silence(f->proxy, false);
    f->wanted = "CLOSED";
    assert_true(harness_until(&f->h, breaker_is_as_wanted, f, 10000));
    harness_wait(&f->h);
    check_reads_and_writes(f, &good);
    check_pool_is_whole(f);
    harness_close(&f->h);
    proxy_stop(f->proxy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fast_restart_under_load_loses_nothing_that_was_acknowledged),
        cmocka_unit_test(an_immediate_restart_under_load_loses_nothing_that_was_acknowledged),
        cmocka_unit_test(coming_back_the_engine_makes_only_a_few_connections_at_once),
        cmocka_unit_test(a_crashed_backend_takes_the_others_along_and_all_is_well_after),
        cmocka_unit_test(a_server_that_says_nothing_more_costs_nobody_more_than_his_deadline),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
