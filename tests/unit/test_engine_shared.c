/* Two engines on one area, each with a scripted server of its own: what they may do together. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { CALLS = 8 };

struct pair {
    struct fake one, two;
    char path[64];
};

static int set_up(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    if (pair == NULL) return -1;
    (void)snprintf(pair->path, sizeof pair->path, "/tmp/weir-shared-%ld", (long)getpid());
    (void)unlink(pair->path);
    *state = pair;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *pair = *state;
    (void)unlink(pair->path);
    free(pair);
    return 0;
}

static void open_pair(struct pair *pair, uint32_t max, uint32_t at_once)
{
    weir_options options;
    weir_client clients[2];
    fake_options(&options);
    memcpy(clients, options.clients, sizeof clients);
    clients[0].max = clients[1].max = max;
    options.clients = clients;
    options.area_path = pair->path;
    options.connect_at_once = at_once;
    fake_init(&pair->one);
    fake_init(&pair->two);
    pair->one.connect_ns = pair->two.connect_ns = FAKE_MS(10);
    fake_open(&pair->one, &options);
    fake_open(&pair->two, &options);
}

static int under_way(const struct fake *fake)
{
    int count = 0;
    for (int i = 0; i < FAKE_LINKS; i++) count += fake->connects[i].used;
    return count;
}

static void run_both(struct pair *pair, uint64_t ns)
{
    fake_run(&pair->one, ns);
    fake_run(&pair->two, ns);
}

static void close_pair(struct pair *pair)
{
    fake_close(&pair->one);
    fake_close(&pair->two);
}

static void connects_under_way_are_counted_over_all_engines(void **state)
{
    struct pair *pair = *state;
    weir_call *calls[2 * CALLS];
    int most = 0;
    open_pair(pair, CALLS * 2, 3);
    for (int i = 0; i < 2 * CALLS; i++)
        calls[i] = fake_submit(i < CALLS ? &pair->one : &pair->two, (weir_request){0}, "select 1");
    for (int ms = 0; ms < 1000; ms++) {
        int now = under_way(&pair->one) + under_way(&pair->two);
        if (now > most) most = now;
        run_both(pair, FAKE_MS(1));
    }
    assert_int_equal(most, 3);
    for (int i = 0; i < 2 * CALLS; i++) {
        assert_int_equal(fake_code(calls[i]), WEIR_CALL_OK);
        weir_call_free(calls[i]);
    }
    close_pair(pair);
}

static void a_connect_that_fails_or_is_given_up_gives_its_turn_back(void **state)
{
    struct pair *pair = *state;
    open_pair(pair, CALLS, 1);
    pair->one.refuse = true;
    for (int i = 0; i < 3; i++) {
        weir_call *call = fake_submit(&pair->one, (weir_request){.timeout_ns = FAKE_MS(50)}, "select 1");
        run_both(pair, FAKE_MS(200));
        assert_int_not_equal(fake_code(call), WEIR_CALL_OK);
        weir_call_free(call);
    }
    pair->one.refuse = false;
    pair->one.mute = true; /* the connect hangs, its caller gives up, and it is the monitor's no more */
    weir_call *hanging = fake_submit(&pair->one, (weir_request){.timeout_ns = FAKE_MS(20)}, "select 1");
    weir_call *other = fake_submit(&pair->two, (weir_request){0}, "select 1");
    run_both(pair, FAKE_MS(5));
    assert_int_equal(under_way(&pair->one) + under_way(&pair->two), 1);
    run_both(pair, FAKE_MS(6000));
    assert_int_equal(fake_code(other), WEIR_CALL_OK);
    weir_call_free(hanging);
    weir_call_free(other);
    close_pair(pair);
}

/* The first engine holds all places, and has work for all of them, for ever. */
static void a_late_worker_gets_its_share_under_constant_load(void **state)
{
    struct pair *pair = *state;
    weir_call *calls[CALLS];
    open_pair(pair, 4, 4);
    pair->one.service_ns = FAKE_MS(5);
    for (int i = 0; i < CALLS; i++) calls[i] = fake_submit(&pair->one, (weir_request){0}, "select 1");
    weir_call *late = NULL;
    for (int ms = 0; ms < 300; ms++) {
        run_both(pair, FAKE_MS(1));
        for (int i = 0; i < CALLS; i++) {
            if (weir_call_status(calls[i]) != WEIR_ENDED) continue;
            weir_call_free(calls[i]);
            calls[i] = fake_submit(&pair->one, (weir_request){0}, "select 1");
        }
        if (ms == 100) late = fake_submit(&pair->two, (weir_request){.timeout_ns = FAKE_MS(150)}, "select 1");
    }
    assert_int_equal(fake_code(late), WEIR_CALL_OK);
    weir_call_free(late);
    run_both(pair, FAKE_MS(500));
    for (int i = 0; i < CALLS; i++) weir_call_free(calls[i]);
    close_pair(pair);
}

static int times_told(struct fake *fake, const char *text)
{
    static char events[1 << 17];
    int times = 0;
    (void)weir_events_json(fake->engine, 0, events, sizeof events);
    for (const char *at = events; (at = strstr(at, text)) != NULL; at++) times++;
    return times;
}

static void a_file_that_is_removed_is_told_of_once_and_work_goes_on(void **state)
{
    struct pair *pair = *state;
    open_pair(pair, CALLS, 4);
    run_both(pair, FAKE_MS(3000));
    assert_int_equal(times_told(&pair->one, "no longer at its path"), 0);
    assert_int_equal(unlink(pair->path), 0);
    run_both(pair, FAKE_MS(5000));
    assert_int_equal(times_told(&pair->one, "no longer at its path"), 2); /* by each of the two */
    weir_call *call = fake_submit(&pair->one, (weir_request){0}, "select 1");
    run_both(pair, FAKE_MS(100));
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(call);
    close_pair(pair);
}

/* As after a change of area_size: the breaker stays as it was, and counts go on. */
static void an_area_of_another_size_goes_on_from_the_old_one(void **state)
{
    struct pair *pair = *state;
    weir_options options;
    uint64_t generation = 0;
    char text[16];
    fake_options(&options);
    options.area_path = pair->path;
    options.area_size = 64 << 20;
    fake_init(&pair->one);
    fake_open(&pair->one, &options);
    weir_call *call = fake_submit(&pair->one, (weir_request){0}, "select 1");
    fake_run(&pair->one, FAKE_MS(100));
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(call);
    assert_int_equal(weir_force_breaker(pair->one.engine, "service@primary", WEIR_FORCED_OPEN, NULL),
                     WEIR_OK);
    assert_int_equal(weir_policy_publish(pair->one.engine, "return {}", 9, &generation, NULL), WEIR_OK);
    options.area_size = 16 << 20;
    fake_init(&pair->two);
    fake_open(&pair->two, &options);
    assert_string_equal(weir_area_replaced(pair->one.engine), "");
    assert_non_null(strstr(weir_area_replaced(pair->two.engine), "found"));
    assert_non_null(strstr(weir_area_replaced(pair->two.engine), "carried over"));
    assert_int_equal(fake_counter(&pair->two, "calls", "ok"), 1);
    weir_pool_view view;
    assert_true(weir_pool_now(pair->two.engine, 0, &view));
    assert_int_equal(view.breaker, WEIR_FORCED_OPEN);
    assert_int_equal(weir_policy_read(pair->two.engine, text, sizeof text, &generation), 9);
    assert_true(times_told(&pair->two, "carried over") == 1);
    close_pair(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(connects_under_way_are_counted_over_all_engines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_connect_that_fails_or_is_given_up_gives_its_turn_back, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_area_of_another_size_goes_on_from_the_old_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_is_removed_is_told_of_once_and_work_goes_on, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_late_worker_gets_its_share_under_constant_load, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
