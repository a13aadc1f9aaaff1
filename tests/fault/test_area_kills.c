/* Workers that are killed with -9 in the middle of anything, and servers that come back to a crowd: what the dead held is
 * the others' again within two seconds, what they counted stays, and nobody storms. */
#include "crowd.h"

#include "proxy.h"
#include "weir/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>
#include <uv.h>

enum { KILLS = 20, LOOK_EVERY = 5, STORM_WORKERS = 8, STORM_CAP = 4 };

struct fixture {
    struct crowd crowd;
    weir_pool_figures seen;
    struct proxy *proxy;
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

static int clean_up(void **state)
{
    struct fixture *f = *state;
    crowd_end(&f->crowd);
    proxy_stop(f->proxy);
    memset(f, 0, sizeof *f);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    server_free(server);
    return 0;
}

/* ---- what is counted never goes back ------------------------------------------------------------ */

static const struct {
    const char *name;
    size_t at;
} counters[] = {
#define COUNTER(field)                                                                                       \
    {                                                                                                        \
#field, offsetof(weir_pool_figures, field)                                                           \
    }
    COUNTER(started),      COUNTER(ended.ok),        COUNTER(ended.failed),    COUNTER(ended.refused),
    COUNTER(abandoned),    COUNTER(ended.cancelled), COUNTER(ended.timeout),   COUNTER(ended.unknown),
    COUNTER(attempts),     COUNTER(opened),          COUNTER(closed_idle),     COUNTER(closed_lifetime),
    COUNTER(closed_error), COUNTER(connect_failed),  COUNTER(probes),          COUNTER(duration.count),
    COUNTER(wait.count),   COUNTER(connect.count),   COUNTER(duration.sum_ns),
#undef COUNTER
};

static uint64_t number(const weir_pool_figures *figures, size_t at)
{
    uint64_t value;
    memcpy(&value, (const char *)figures + at, sizeof value);
    return value;
}

static void look(struct fixture *f)
{
    weir_pool_figures now;
    assert_true(weir_read_pool(weir_engine_area(f->crowd.h.engine), 0, &now));
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
        uint64_t before = number(&f->seen, counters[i].at), after = number(&now, counters[i].at);
        if (after < before)
            fail_msg("%s went back from %llu to %llu", counters[i].name, (unsigned long long)before,
                     (unsigned long long)after);
    }
    assert_in_range(now.connections, 0, f->crowd.board->max);
    f->seen = now;
}

static bool look_until(struct fixture *f, bool (*condition)(void *arg), void *arg, int ms)
{
    for (uint64_t until = uv_hrtime() + MS(ms); uv_hrtime() < until;) {
        look(f);
        if (condition(arg)) return true;
        harness_turn(&f->crowd.h, 1);
    }
    return false;
}

static uint64_t ended(const weir_pool_figures *now)
{
    return now->ended.ok + now->ended.failed + now->ended.refused + now->ended.timeout + now->ended.unknown +
           now->ended.cancelled;
}

/* Nobody is at work: so nothing is running, each call is accounted for, and the server knows of no other session. */
static bool all_is_accounted_for(void *arg)
{
    struct fixture *f = arg;
    look(f);
    const weir_pool_figures *now = &f->seen;
    return now->in_flight == 0 && now->waiting == 0 && now->connecting == 0 && now->busy == 0 &&
           now->started == ended(now) + now->abandoned && now->connections == crowd_sessions(&f->crowd);
}

static void kill_and_replace(struct fixture *f, int round)
{
    int victim = round * 7 % f->crowd.size;
    harness_turn(&f->crowd.h, 5 + round * 13 % 40);
    crowd_kill(&f->crowd, victim);
    crowd_forget(&f->crowd);
    crowd_start(&f->crowd, victim);
}

static void twenty_kills_under_load_lose_nothing_and_hold_nothing(void **state)
{
    struct fixture *f = *state;
    crowd_prepare(&f->crowd, server, 4);
    f->crowd.board->lifetime_ns = MS(60); /* somebody is always connecting */
    f->crowd.board->connect_at_once = 2;
    crowd_open(&f->crowd, NULL);
    crowd_order(&f->crowd, PRESS);
    assert_true(look_until(f, crowd_has_worked, &f->crowd, 10000));
    for (int round = 0; round < KILLS; round++) {
        kill_and_replace(f, round);
        assert_true(look_until(f, crowd_has_worked, &f->crowd, 10000)); /* a lost turn would stop them all */
        if (round % LOOK_EVERY != 0) continue;
        crowd_order(&f->crowd, REST);
        assert_true(look_until(f, crowd_rests, &f->crowd, 5000));
        assert_true(look_until(f, all_is_accounted_for, f, 2000));
        crowd_order(&f->crowd, PRESS);
    }
    assert_in_range(f->seen.abandoned, 1, (uint64_t)KILLS * f->crowd.board->each);
    crowd_close(&f->crowd);
}

#define HOLDERS                                                                                              \
    "from pg_stat_activity where usename = 'app_service' and state = 'active' and query like "               \
    "'%pg_sleep(60)%'"

static void wait_for_holders(struct fixture *f)
{
    while (server_ask_number(server, "select count(*) " HOLDERS) < (long)f->crowd.board->each)
        harness_turn(&f->crowd.h, 1);
}

/* A backend at work does not notice that its client has died. */
static void end_holders(struct fixture *f)
{
    server_exec(server, "select pg_terminate_backend(pid) " HOLDERS);
    while (server_ask_number(server, "select count(*) " HOLDERS) > 0) harness_turn(&f->crowd.h, 1);
}

/* From the moment of the kill, with nobody else at work. */
static void what_one_held_is_free_within_two_seconds(void **state)
{
    struct fixture *f = *state;
    crowd_prepare(&f->crowd, server, 4);
    crowd_open(&f->crowd, NULL);
    crowd_order(&f->crowd, REST);
    f->crowd.board->order[1] = HOLD;
    while (crowd_figure(&f->crowd, "connections", "in_flight") < (long)f->crowd.board->each) {
        harness_turn(&f->crowd.h, 1);
    }
    wait_for_holders(f);
    crowd_kill(&f->crowd, 1);
    end_holders(f);
    assert_true(look_until(f, all_is_accounted_for, f, 2000));
    assert_int_equal(f->seen.abandoned, f->crowd.board->each);
    crowd_close(&f->crowd);
}

/* ---- a half-open breaker's permits -------------------------------------------------------------- */

static bool breaker_is(struct fixture *f, const char *state)
{
    return strcmp(harness_breaker(&f->crowd.h, "service@primary"), state) == 0;
}

static bool closed(void *arg)
{
    return breaker_is(arg, "CLOSED");
}

static bool half_open(void *arg)
{
    return breaker_is(arg, "HALF_OPEN");
}

/* Four permits, all held by calls that do not end, and leases far too long to wait for. */
static void the_permits_of_a_killed_worker_are_given_to_others(void **state)
{
    struct fixture *f = *state;
    crowd_prepare(&f->crowd, server, 3);
    f->crowd.board->breaker.permits = 4;
    f->crowd.board->breaker.min_calls = 5;
    f->crowd.board->breaker.open_for_ns = MS(100);
    f->crowd.board->breaker.lease_ns = SECONDS(60);
    f->crowd.board->each = 4;
    crowd_open(&f->crowd, NULL);
    crowd_order(&f->crowd, PRESS);
    assert_true(look_until(f, crowd_has_worked, &f->crowd, 10000));
    crowd_order(&f->crowd, REST);
    assert_true(look_until(f, crowd_rests, &f->crowd, 5000));
    weir_force_breaker(f->crowd.h.engine, NULL, WEIR_DISABLED, NULL); /* and back: with a fresh window */
    weir_force_breaker(f->crowd.h.engine, NULL, WEIR_CLOSED, NULL);
    f->crowd.board->order[0] = FAIL;
    while (breaker_is(f, "CLOSED")) harness_turn(&f->crowd.h, 1);
    f->crowd.board->order[0] = HOLD;
    assert_true(look_until(f, half_open, f, 5000));
    wait_for_holders(f);
    crowd_kill(&f->crowd, 0);
    f->crowd.board->order[1] = f->crowd.board->order[2] = PRESS;
    assert_true(look_until(f, closed, f, 2500));
    crowd_order(&f->crowd, REST);
    assert_true(look_until(f, crowd_rests, &f->crowd, 5000));
    end_holders(f);
    crowd_close(&f->crowd);
}

/* ---- coming back -------------------------------------------------------------------------------- */

static bool down(void *arg)
{
    (void)arg;
    return !server_running(server);
}

static void eight_workers_come_back_without_a_storm(void **state)
{
    struct fixture *f = *state;
    f->proxy = proxy_start(server);
    proxy_delay(f->proxy, 2); /* connecting takes long enough to be seen overlapping */
    crowd_prepare(&f->crowd, server, STORM_WORKERS);
    f->crowd.board->max = 64;
    f->crowd.board->each = 8;
    f->crowd.board->connect_at_once = STORM_CAP;
    f->crowd.board->breaker.open_for_ns = MS(300);
    crowd_open(&f->crowd, proxy_conninfo(f->proxy, NULL));
    crowd_order(&f->crowd, PRESS);
    assert_true(harness_until(&f->crowd.h, crowd_has_worked, &f->crowd, 20000));
    server_stop_begin(server, SERVER_IMMEDIATE);
    assert_true(harness_until(&f->crowd.h, down, NULL, 10000));
    harness_turn(&f->crowd.h, 300);
    crowd_forget(&f->crowd);
    server_run(server);
    assert_true(harness_until(&f->crowd.h, crowd_has_worked, &f->crowd, 20000));
    assert_in_range(proxy_most_connecting(f->proxy), 2, STORM_CAP);
    assert_true(proxy_accepted(f->proxy) >= 2 * STORM_WORKERS);
    crowd_order(&f->crowd, REST);
    assert_true(harness_until(&f->crowd.h, crowd_rests, &f->crowd, 5000));
    assert_in_range(crowd_sessions(&f->crowd), 0, f->crowd.board->max);
    crowd_close(&f->crowd);
}

/* It may hold the only turn, or the first ticket, and is not dead. */
static void a_stopped_worker_holds_up_nobody_for_longer_than_a_connect_may_take(void **state)
{
    struct fixture *f = *state;
    f->proxy = proxy_start(server);
    crowd_prepare(&f->crowd, server, 3);
    f->crowd.board->lifetime_ns = MS(60);
    f->crowd.board->connect_at_once = 1;
    crowd_open(&f->crowd, proxy_conninfo(f->proxy, NULL));
    crowd_order(&f->crowd, PRESS);
    assert_true(look_until(f, crowd_has_worked, &f->crowd, 10000));
    kill(f->crowd.workers[0], SIGSTOP);
    crowd_forget(&f->crowd);
    f->crowd.board->ok[0] = 1000;
    bool worked = look_until(f, crowd_has_worked, &f->crowd, 8000);
    kill(f->crowd.workers[0], SIGCONT);
    assert_true(worked);
    crowd_order(&f->crowd, REST);
    assert_true(look_until(f, crowd_rests, &f->crowd, 8000));
    crowd_close(&f->crowd);
}

#define TEST(name) cmocka_unit_test_teardown(name, clean_up)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(twenty_kills_under_load_lose_nothing_and_hold_nothing),
        TEST(what_one_held_is_free_within_two_seconds),
        TEST(the_permits_of_a_killed_worker_are_given_to_others),
        TEST(eight_workers_come_back_without_a_storm),
        TEST(a_stopped_worker_holds_up_nobody_for_longer_than_a_connect_may_take),
    };
    int code = crowd_work(argc, argv);
    if (code >= 0) return code;
    return cmocka_run_group_tests(tests, start, stop);
}
