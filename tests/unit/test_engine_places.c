/* Several engines on one area that all have more work than places, all the time: who gets the places. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ENGINES = 5, CALLS = 24 };

struct crowd {
    struct fake fakes[ENGINES];
    bool open[ENGINES];
    weir_call *calls[ENGINES][CALLS];
    int busy[ENGINES]; /* calls to keep up */
    long done[ENGINES];
    weir_options options;
    weir_client clients[2];
    char path[64];
};

static int set_up(void **state)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);
    if (crowd == NULL) return -1;
    (void)snprintf(crowd->path, sizeof crowd->path, "/tmp/weir-places-%ld", (long)getpid());
    (void)unlink(crowd->path);
    fake_options(&crowd->options);
    memcpy(crowd->clients, crowd->options.clients, sizeof crowd->clients);
    crowd->options.clients = crowd->clients;
    crowd->options.area_path = crowd->path;
    crowd->options.connect_at_once = 4;
    *state = crowd;
    return 0;
}

static int tear_down(void **state)
{
    struct crowd *crowd = *state;
    (void)unlink(crowd->path);
    free(crowd);
    return 0;
}

/* From now on this engine has so many calls under way, always. */
static void put_under_load(struct crowd *crowd, int i, int calls)
{
    uint64_t now = 0;
    for (int k = 0; k < ENGINES; k++) now = crowd->open[k] ? crowd->fakes[k].now : now;
    fake_init(&crowd->fakes[i]);
    if (now > 0) crowd->fakes[i].now = now; /* one clock for all */
    crowd->fakes[i].service_ns = FAKE_MS(3);
    crowd->fakes[i].connect_ns = FAKE_MS(2);
    fake_open(&crowd->fakes[i], &crowd->options);
    crowd->open[i] = true;
    crowd->busy[i] = calls;
}

static void keep_up(struct crowd *crowd, int i)
{
    for (int k = 0; k < crowd->busy[i]; k++) {
        weir_call **call = &crowd->calls[i][k];
        if (*call != NULL && weir_call_status(*call) != WEIR_ENDED) continue;
        if (*call != NULL) {
            crowd->done[i] += fake_code(*call) == WEIR_CALL_OK;
            weir_call_free(*call);
        }
        *call = fake_submit(&crowd->fakes[i], (weir_request){.timeout_ns = FAKE_MS(5000), .readonly = true},
                            "select 1");
    }
}

static void run(struct crowd *crowd, int ms)
{
    for (; ms > 0; ms--) {
        int opened = 0;
        for (int i = 0; i < ENGINES; i++) {
            if (!crowd->open[i]) continue;
            keep_up(crowd, i);
            fake_run(&crowd->fakes[i], FAKE_MS(1));
            opened += crowd->fakes[i].opened;
        }
        assert_in_range(opened, 0, crowd->clients[0].max);
    }
}

static void close_all(struct crowd *crowd)
{
    for (int i = 0; i < ENGINES; i++) {
        if (!crowd->open[i]) continue;
        for (int k = 0; k < crowd->busy[i]; k++) weir_call_free(crowd->calls[i][k]);
        fake_run(&crowd->fakes[i], FAKE_MS(100));
        fake_close(&crowd->fakes[i]);
    }
}

static long closed_for_others(struct crowd *crowd)
{
    return fake_counter(&crowd->fakes[0], "closed", "idle");
}

/* Eight places, five workers: nobody holds more than two when the last one comes, and one of eight must go. */
static void a_late_worker_gets_its_share_of_places_that_are_never_idle(void **state)
{
    struct crowd *crowd = *state;
    crowd->clients[0].max = 8;
    for (int i = 0; i < ENGINES - 1; i++) put_under_load(crowd, i, 8);
    run(crowd, 500);
    put_under_load(crowd, ENGINES - 1, 8);
    run(crowd, 200);
    assert_true(crowd->done[ENGINES - 1] > 0);
    run(crowd, 300);
    for (int i = 0; i < ENGINES; i++) assert_in_range(crowd->fakes[i].opened, 1, 3);
    close_all(crowd);
}

static void one_that_held_all_gives_to_each_that_comes(void **state)
{
    struct crowd *crowd = *state;
    crowd->clients[0].max = 10;
    put_under_load(crowd, 0, 20);
    run(crowd, 200);
    assert_int_equal(crowd->fakes[0].opened, 10);
    for (int i = 1; i < ENGINES; i++) put_under_load(crowd, i, 4);
    run(crowd, 800);
    for (int i = 0; i < ENGINES; i++) assert_int_equal(crowd->fakes[i].opened, 2);
    close_all(crowd);
}

static void with_fewer_places_than_workers_the_places_go_round(void **state)
{
    struct crowd *crowd = *state;
    crowd->clients[0].max = 2;
    for (int i = 0; i < ENGINES; i++) put_under_load(crowd, i, 3);
    run(crowd, 2500);
    for (int i = 0; i < ENGINES; i++) assert_true(crowd->done[i] > 20);
    close_all(crowd);
}

static void workers_that_have_their_share_close_nothing_for_each_other(void **state)
{
    struct crowd *crowd = *state;
    crowd->clients[0].max = 10;
    for (int i = 0; i < ENGINES; i++) put_under_load(crowd, i, 6);
    run(crowd, 1000);
    long before = closed_for_others(crowd);
    run(crowd, 1000);
    assert_int_equal(closed_for_others(crowd), before);
    for (int i = 0; i < ENGINES; i++) assert_int_equal(crowd->fakes[i].opened, 2);
    close_all(crowd);
}

/* What nobody claims may be used by whoever needs it. */
static void a_worker_alone_with_work_may_hold_all_places(void **state)
{
    struct crowd *crowd = *state;
    crowd->clients[0].max = 8;
    put_under_load(crowd, 0, 16);
    for (int i = 1; i < ENGINES; i++) put_under_load(crowd, i, 0);
    run(crowd, 300);
    assert_int_equal(crowd->fakes[0].opened, 8);
    close_all(crowd);
}

static void a_connection_that_many_calls_share_is_given_up_too(void **state)
{
    struct crowd *crowd = *state;
    crowd->clients[0].max = 2;
    crowd->clients[0].multiplex = 8;
    put_under_load(crowd, 0, 20);
    run(crowd, 300);
    assert_int_equal(crowd->fakes[0].opened, 2);
    put_under_load(crowd, 1, 4);
    run(crowd, 300);
    assert_true(crowd->done[1] > 0);
    assert_int_equal(crowd->fakes[1].opened, 1);
    close_all(crowd);
}

static void connects_keep_to_the_rate_over_all_engines(void **state)
{
    struct crowd *crowd = *state;
    crowd->clients[0].max = 40;
    crowd->options.connect_rate = 20;
    for (int i = 0; i < ENGINES; i++) put_under_load(crowd, i, 8);
    run(crowd, 500);
    int begun = 0;
    for (int i = 0; i < ENGINES; i++) {
        begun += crowd->fakes[i].connects_begun;
        assert_true(crowd->fakes[i].connects_begun > 0);
    }
    assert_in_range(begun, 12, 14); /* a first 4, and 20 a second */
    close_all(crowd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_late_worker_gets_its_share_of_places_that_are_never_idle),
        TEST(one_that_held_all_gives_to_each_that_comes),
        TEST(with_fewer_places_than_workers_the_places_go_round),
        TEST(workers_that_have_their_share_close_nothing_for_each_other),
        TEST(a_worker_alone_with_work_may_hold_all_places),
        TEST(a_connection_that_many_calls_share_is_given_up_too),
        TEST(connects_keep_to_the_rate_over_all_engines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
