/* Several processes over one mapped area, as an nginx with workers is: one cap, one breaker, one set of
 * counters, also when a worker dies in the middle. */
#include "crowd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <uv.h>

enum { WORKERS = 4, MAX = 8, EACH = 6 };

struct fixture {
    struct crowd crowd;
    long sampled_most, counted[4];
};

static struct server *server;

static int start(void **state)
{
    static struct fixture fixture;
    server = server_start(NULL);
    harness_schema(server);
    server_exec(server, "create function fails() returns text language plpgsql as"
                        " $$ begin raise exception 'full' using errcode = '53200'; end $$");
    *state = &fixture;
    return 0;
}

static int end_workers(void **state)
{
    crowd_end(&((struct fixture *)*state)->crowd);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    server_free(server);
    return 0;
}

static void open_all(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    crowd_prepare(&f->crowd, server, WORKERS);
    crowd_open(&f->crowd, NULL);
}

/* Sessions that are there now and a moment later: one whose client has left needs some time to go. */
static long lasting_sessions(struct fixture *f)
{
    char pids[1024], sql[1200];
    snprintf(pids, sizeof pids, "%s",
             server_ask(f->crowd.server, "select coalesce(string_agg(pid::text, ','), '0')"
                                         " from pg_stat_activity where usename = 'app_service'"));
    harness_turn(&f->crowd.h, 30);
    snprintf(sql, sizeof sql, "select count(*) from pg_stat_activity where pid in (%s)", pids);
    return server_ask_number(f->crowd.server, sql);
}

/* Samples for so long; the cap must hold in every one, and no counter may go back. */
static void watch_the_cap(struct fixture *f, int ms)
{
    static const char *const counters[] = {"started", "ok", "failed", "refused"};
    for (uint64_t until = uv_hrtime() + MS(ms); uv_hrtime() < until;) {
        long now = lasting_sessions(f);
        assert_in_range(now, 0, MAX);
        assert_in_range(crowd_figure(&f->crowd, "connections", "open"), 0, MAX);
        if (now > f->sampled_most) f->sampled_most = now;
        for (int i = 0; i < 4; i++) {
            long count = crowd_figure(&f->crowd, "calls", counters[i]);
            if (count < f->counted[i])
                fail_msg("%s went back from %ld to %ld", counters[i], f->counted[i], count);
            f->counted[i] = count;
        }
    }
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void four_workers_together_never_pass_the_cap_and_all_get_their_turn(void **state)
{
    struct fixture *f = *state;
    open_all(f);
    assert_true(harness_until(&f->crowd.h, crowd_has_worked, &f->crowd, 10000));
    watch_the_cap(f, 700);
    crowd_order(&f->crowd, PRESS);
    watch_the_cap(f, 300);
    assert_in_range(f->sampled_most, MAX / 2, MAX); /* under pressure, and never above */
    crowd_order(&f->crowd, REST);
    assert_true(harness_until(&f->crowd.h, crowd_rests, &f->crowd, 5000));
    assert_int_equal(crowd_sum(&f->crowd, f->crowd.board->other), 0);
    assert_int_equal(crowd_figure(&f->crowd, "calls", "ok"), crowd_sum(&f->crowd, f->crowd.board->ok));
    assert_int_equal(crowd_figure(&f->crowd, "calls", "started"), crowd_sum(&f->crowd, f->crowd.board->ok));
    crowd_close(&f->crowd);
}

static bool dead_is_reaped(void *arg)
{
    struct fixture *f = arg;
    return crowd_figure(&f->crowd, "connections", "open") == crowd_sessions(&f->crowd) &&
           crowd_figure(&f->crowd, "connections", "in_flight") ==
               crowd_sum(&f->crowd, f->crowd.board->running);
}

static void what_a_killed_worker_held_is_free_again_within_three_seconds(void **state)
{
    struct fixture *f = *state;
    open_all(f);
    assert_true(harness_until(&f->crowd.h, crowd_has_worked, &f->crowd, 10000));
    watch_the_cap(f, 200);
    crowd_kill(&f->crowd, 1);
    f->sampled_most = 0;
    uint64_t killed = uv_hrtime();
    watch_the_cap(f, 300);
    crowd_order(&f->crowd, REST);
    assert_true(harness_until(&f->crowd.h, crowd_rests, &f->crowd, 5000));
    assert_true(harness_until(&f->crowd.h, dead_is_reaped, f, 5000));
    assert_true(uv_hrtime() - killed < SECONDS(3));
    long counted = crowd_figure(&f->crowd, "calls", "ok");
    assert_in_range(counted, crowd_sum(&f->crowd, f->crowd.board->ok),
                    crowd_sum(&f->crowd, f->crowd.board->ok) + EACH);
    crowd_order(&f->crowd, PRESS);
    watch_the_cap(f, 500);
    assert_in_range(f->sampled_most, MAX / 2, MAX);
    /* under pressure, and never above */ /* the others have its places */
    crowd_order(&f->crowd, RUN);
    crowd_start(&f->crowd, 1);
    watch_the_cap(f, 300);
    crowd_close(&f->crowd);
}

static bool all_are_refused(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < WORKERS; i++) {
        if (f->crowd.board->refused[i] == 0) return false;
    }
    return true;
}

static bool works_again(void *arg)
{
    struct fixture *f = arg;
    return strcmp(harness_breaker(&f->crowd.h, "service@primary"), "CLOSED") == 0;
}

static void the_breaker_one_worker_opens_is_open_for_all_and_closes_for_all(void **state)
{
    struct fixture *f = *state;
    open_all(f);
    assert_true(harness_until(&f->crowd.h, crowd_has_worked, &f->crowd, 10000));
    crowd_order(&f->crowd, REST);
    assert_true(harness_until(&f->crowd.h, crowd_rests, &f->crowd, 5000));
    weir_force_breaker(f->crowd.h.engine, NULL, WEIR_DISABLED, NULL); /* and back: with a fresh window */
    weir_force_breaker(f->crowd.h.engine, NULL, WEIR_CLOSED, NULL);
    f->crowd.board->order[2] = FAIL;
    assert_true(harness_until(&f->crowd.h, crowd_has_worked, &f->crowd, 10000));
    while (strcmp(harness_breaker(&f->crowd.h, "service@primary"), "OPEN") != 0) harness_turn(&f->crowd.h, 1);
    crowd_order(&f->crowd, RUN);
    assert_true(harness_until(&f->crowd.h, all_are_refused, f, 2000));
    assert_true(harness_until(&f->crowd.h, works_again, f, 10000));
    crowd_close(&f->crowd);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(four_workers_together_never_pass_the_cap_and_all_get_their_turn,
                                  end_workers),
        cmocka_unit_test_teardown(what_a_killed_worker_held_is_free_again_within_three_seconds, end_workers),
        cmocka_unit_test_teardown(the_breaker_one_worker_opens_is_open_for_all_and_closes_for_all,
                                  end_workers),
    };
    int code = crowd_work(argc, argv);
    if (code >= 0) return code;
    return cmocka_run_group_tests(tests, start, stop);
}
