/* More callers than connections: in order, within bounds, and with nothing left over. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CALLS = 10000, POOL = 10 };

struct fixture {
    struct server *server;
    struct harness h;
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(NULL);
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

static struct job *start_call(struct fixture *f, const char *sql)
{
    struct job *job = harness_call(&f->h, SERVICE, "queues");
    job_step(job, "%s", sql);
    job_start(job);
    return job;
}

/* ---- in order -------------------------------------------------------------------------------- */

static int by_ending(const void *a, const void *b)
{
    const struct job *const *one = a, *const *other = b;
    return (*one)->ended_as < (*other)->ended_as ? -1 : 1;
}

/* Served in order means: when one ends, everybody before it has ended or sits on one of the other
 * connections. */
static void assert_in_order(struct job **jobs)
{
    static bool over[CALLS];
    static struct job *ended[CALLS];
    size_t first = 0;
    memset(over, 0, sizeof over);
    memcpy(ended, jobs, sizeof ended);
    qsort(ended, CALLS, sizeof *ended, by_ending);
    for (size_t i = 0; i < CALLS; i++) {
        size_t number = (size_t)(uintptr_t)ended[i]->user, before = 0;
        over[number] = true;
        while (first < CALLS && over[first]) first++;
        for (size_t j = first; j < number; j++) before += over[j] ? 0 : 1;
        if (before >= POOL)
            fail_msg("call %zu ended while %zu before it had not begun", number, before - (POOL - 1));
    }
}

static void a_pool_of_ten_serves_ten_thousand_queued_calls_in_order(void **state)
{
    struct fixture *f = *state;
    static struct job *jobs[CALLS];
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = POOL;
    f->h.clients[SERVICE].queue_max = CALLS;
    f->h.options.timeout_ns = SECONDS(25);
    harness_open(&f->h);
    for (size_t i = 0; i < CALLS; i++) {
        jobs[i] = start_call(f, "select 1");
        jobs[i]->user = (void *)i;
    }
    harness_wait(&f->h);
    for (size_t i = 0; i < CALLS; i++) job_assert(jobs[i], WEIR_CALL_OK);
    assert_in_order(jobs);
    assert_int_equal(harness_stat(&f->h, "service@primary", "events", "opened"), POOL);
    assert_int_equal(harness_stat(&f->h, "service@primary", "calls", "ok"), CALLS);
    harness_close(&f->h);
}

/* ---- bounds ---------------------------------------------------------------------------------- */

static void who_finds_the_queue_full_is_refused_at_once(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[20];
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = 2;
    f->h.clients[SERVICE].queue_max = 5;
    harness_open(&f->h);
    for (int i = 0; i < 20; i++) jobs[i] = start_call(f, "select pg_sleep(0.05)");
    harness_wait(&f->h);
    for (int i = 0; i < 20; i++) {
        job_assert(jobs[i], i < 7 ? WEIR_CALL_OK : WEIR_CALL_QUEUE_FULL);
        if (i < 7) continue;
        assert_true(jobs[i]->took_ns < MS(50));
        assert_int_equal(jobs[i]->outcome, WEIR_OUTCOME_NONE);
        assert_int_equal(jobs[i]->error.class_, WEIR_CLASS_SAFE);
        assert_non_null(strstr(jobs[i]->error.message, "queue_max 5"));
    }
    assert_int_equal(harness_stat(&f->h, "service@primary", "refused", "queue_full"), 13);
    harness_close(&f->h);
}

static void who_waits_longer_than_acquire_timeout_is_refused(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = 1;
    f->h.options.acquire_timeout_ns = MS(100);
    harness_open(&f->h);
    job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
    struct job *holder = start_call(f, "select pg_sleep(0.5)");
    struct job *waiter = start_call(f, "select 1");
    harness_wait(&f->h);
    job_assert(holder, WEIR_CALL_OK);
    job_assert(waiter, WEIR_CALL_ACQUIRE_TIMEOUT);
    assert_in_range(waiter->took_ns / 1000000, 100, 350);
    harness_close(&f->h);
}

static void who_waits_past_his_deadline_has_sent_nothing(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = 1;
    harness_open(&f->h);
    job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
    start_call(f, "select pg_sleep(0.5)");
    struct job *waiter = harness_call(&f->h, SERVICE, "waits");
    job_step(waiter, "insert into ledger values ('waits')");
    waiter->request.timeout_ns = MS(100);
    harness_run(&f->h, waiter);
    job_assert(waiter, WEIR_CALL_TIMEOUT);
    assert_int_equal(waiter->outcome, WEIR_OUTCOME_NONE);
    harness_wait(&f->h);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger"), 0);
    harness_close(&f->h);
}

/* ---- closing --------------------------------------------------------------------------------- */

static void draining_lets_running_calls_end_and_refuses_new_ones(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[30];
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = 5;
    harness_open(&f->h);
    for (int i = 0; i < 30; i++) jobs[i] = start_call(f, "select pg_sleep(0.03)");
    harness_turn(&f->h, 30);
    weir_drain(f->h.engine, SECONDS(10));
    struct job *late = start_call(f, "select 1");
    harness_wait(&f->h);
    for (int i = 0; i < 30; i++) job_assert(jobs[i], WEIR_CALL_OK);
    job_assert(late, WEIR_CALL_DRAINING);
    harness_close(&f->h);
}

static void what_is_not_done_when_the_drain_is_over_is_cancelled(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    harness_open(&f->h);
    struct job *call = start_call(f, "select pg_sleep(30)");
    struct job *unit = harness_unit(&f->h, SERVICE, "held");
    job_step(unit, "insert into ledger values ('held')");
    unit->pause = true;
    job_start(unit);
    harness_turn(&f->h, 100);
    weir_drain(f->h.engine, MS(100));
    harness_wait(&f->h);
    job_assert(call, WEIR_CALL_CANCELLED);
    job_assert(unit, WEIR_CALL_CANCELLED);
    harness_close(&f->h);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger"), 0);
}

/* Calls in each state there is, and the engine freed under them. */
static void an_engine_freed_in_full_swing_ends_every_call_once_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = 4;
    f->h.clients[SERVICE].queue_max = 100;
    harness_open(&f->h);
    for (int i = 0; i < 60; i++) {
        struct job *job =
            i % 2 == 0 ? harness_unit(&f->h, SERVICE, "swings") : harness_call(&f->h, SERVICE, "swings");
        job_step(job, i % 7 == 0 ? "select 1/0" : "select pg_sleep(0.01)");
        job->pause = i == 12;
        job_start(job);
    }
    harness_turn(&f->h, 60);
    assert_true(f->h.running > 4);
    harness_cut_off(&f->h);
    harness_forget_jobs(&f->h);
    assert_true(server_wait(f->server,
                            "select not exists (select from pg_stat_activity where usename like 'app\\_%')",
                            3000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_of_ten_serves_ten_thousand_queued_calls_in_order),
        cmocka_unit_test(who_finds_the_queue_full_is_refused_at_once),
        cmocka_unit_test(who_waits_longer_than_acquire_timeout_is_refused),
        cmocka_unit_test(who_waits_past_his_deadline_has_sent_nothing),
        cmocka_unit_test(draining_lets_running_calls_end_and_refuses_new_ones),
        cmocka_unit_test(what_is_not_done_when_the_drain_is_over_is_cancelled),
        cmocka_unit_test(an_engine_freed_in_full_swing_ends_every_call_once_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
