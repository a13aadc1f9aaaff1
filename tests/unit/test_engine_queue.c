/* Waiting for a connection: who is served, who is dropped, who hears of a failed connect, and who owns the
 * places. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    struct fake fake, other;
    weir_options options;
    weir_client client;
};

static int set_up(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    fake_init(&f.fake);
    fake_init(&f.other);
    fake_options(&f.options);
    f.client = f.options.clients[0];
    f.client.max = 1;
    f.client.queue_max = 100;
    f.options.clients = &f.client;
    f.options.client_count = 1;
    f.options.timeout_ns = FAKE_MS(1000);
    f.options.breaker.min_calls = 10000;
    f.options.retries = 0;
    *state = &f;
    return 0;
}

static void run_ms(struct fixture *f, uint64_t ms)
{
    fake_run(&f->fake, FAKE_MS(ms));
}

enum { CALLS = 10 };

static void submit_many(struct fixture *f, weir_call **calls, weir_request request)
{
    char sql[32];
    for (int i = 0; i < CALLS; i++) {
        snprintf(sql, sizeof sql, "select %d", i);
        calls[i] = fake_submit(&f->fake, request, sql);
    }
}

static int ended_with(weir_call **calls, weir_code code)
{
    int count = 0;
    for (int i = 0; i < CALLS; i++)
        count += weir_call_status(calls[i]) == WEIR_ENDED && fake_code(calls[i]) == code;
    return count;
}

static void free_many(weir_call **calls)
{
    for (int i = 0; i < CALLS; i++) weir_call_free(calls[i]);
}

static void close_fake(struct fixture *f)
{
    run_ms(f, 20);
    fake_close(&f->fake);
}

/* ---- order and patience ---------------------------------------------------------------------- */

static void acquire_timeout_ends_those_who_wait_and_not_those_who_run(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->options.acquire_timeout_ns = FAKE_MS(50);
    f->fake.service_ns = FAKE_MS(200);
    fake_open(&f->fake, &f->options);
    submit_many(f, calls, (weir_request){0});
    run_ms(f, 60);
    assert_int_equal(ended_with(calls, WEIR_CALL_ACQUIRE_TIMEOUT), CALLS - 1);
    run_ms(f, 300);
    assert_int_equal(fake_code(calls[0]), WEIR_CALL_OK);
    free_many(calls);
    close_fake(f);
}

static void who_cannot_be_answered_in_time_gets_no_connection(void **state)
{
    struct fixture *f = *state;
    f->fake.service_ns = FAKE_MS(100);
    fake_open(&f->fake, &f->options);
    weir_call *first = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 150); /* now it is known that an answer takes 100 ms */
    weir_call *second = fake_submit(&f->fake, (weir_request){0}, "select 2");
    weir_call *hopeless = fake_submit(&f->fake, (weir_request){.timeout_ns = FAKE_MS(105)}, "select 3");
    run_ms(f, 101);
    assert_int_equal(fake_code(hopeless), WEIR_CALL_TIMEOUT);
    assert_int_equal(fake_outcome(hopeless), WEIR_OUTCOME_NONE);
    assert_int_equal(f->fake.singles, 2);
    weir_call_free(first);
    weir_call_free(second);
    weir_call_free(hopeless);
    close_fake(f);
}

static void slow_successes_do_not_condemn_a_quick_call(void **state)
{
    struct fixture *f = *state;
    f->fake.service_ns = FAKE_MS(5000);
    fake_open(&f->fake, &f->options);
    weir_call *slow = fake_submit(&f->fake, (weir_request){.timeout_ns = FAKE_MS(60000)}, "select 1");
    run_ms(f, 5010);
    f->fake.service_ns = FAKE_MS(20);
    weir_call *next = fake_begin(&f->fake, (weir_request){0});
    weir_call *quick =
        fake_submit(&f->fake, (weir_request){0}, "select 3"); /* 1 s is less than the 5 s seen so far */
    fake_finish(next, WEIR_COMMIT);
    run_ms(f, 100);
    assert_int_equal(fake_code(quick), WEIR_CALL_OK);
    weir_call_free(slow);
    weir_call_free(next);
    weir_call_free(quick);
    close_fake(f);
}

static void a_waiter_keeps_its_place_when_the_link_it_got_is_dead(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    fake_open(&f->fake, &f->options);
    submit_many(f, calls, (weir_request){0});
    f->fake.send_fails = true;
    run_ms(f, 2);
    f->fake.send_fails = false;
    run_ms(f, 100);
    assert_int_equal(ended_with(calls, WEIR_CALL_OK), CALLS);
    for (int i = 0; i < CALLS; i++) assert_int_equal(f->fake.order[i], i);
    free_many(calls);
    close_fake(f);
}

static void codel_drops_the_old_from_a_standing_queue(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->options.queue = WEIR_QUEUE_CODEL;
    f->fake.service_ns = FAKE_MS(60);
    fake_open(&f->fake, &f->options);
    submit_many(f, calls, (weir_request){0});
    run_ms(f, 900);
    assert_in_range(ended_with(calls, WEIR_CALL_ACQUIRE_TIMEOUT), 1, CALLS - 2);
    assert_int_equal(ended_with(calls, WEIR_CALL_OK) + ended_with(calls, WEIR_CALL_ACQUIRE_TIMEOUT), CALLS);
    free_many(calls);
    close_fake(f);
}

static void a_queue_that_spends_half_its_patience_is_served_newest_first(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->fake.service_ns = FAKE_MS(300);
    fake_open(&f->fake, &f->options);
    submit_many(f, calls, (weir_request){0});
    run_ms(f, 1100);
    assert_int_equal(f->fake.order[0], 0);
    assert_int_equal(f->fake.order[1], 1);         /* 300 ms are not half of a second */
    assert_int_equal(f->fake.order[2], CALLS - 1); /* 600 ms are */
    free_many(calls);
    close_fake(f);
}

static void who_waits_is_not_started_when_all_is_ended(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *unit = fake_begin(&f->fake, (weir_request){0});
    run_ms(f, 5);
    weir_call *waiter = fake_submit(&f->fake, (weir_request){0}, "select 1");
    fake_free(&f->fake); /* frees the unit's connection, and nobody may have it */
    assert_int_equal(fake_code(waiter), WEIR_CALL_CANCELLED);
    assert_int_equal(fake_outcome(waiter), WEIR_OUTCOME_NONE);
    assert_int_equal(f->fake.singles, 0);
    weir_call_free(unit);
    weir_call_free(waiter);
}

static void an_attempt_after_the_deadline_is_not_made(void **state)
{
    struct fixture *f = *state;
    f->options.retries = 3;
    fake_open(&f->fake, &f->options);
    weir_call *first = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 10);
    f->fake.refuse = true;
    fake_crash(&f->fake);
    weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 2");
    run_ms(f, 3); /* it waits for its second attempt */
    f->fake.refuse = false;
    weir_call *opener = fake_submit(&f->fake, (weir_request){.timeout_ns = FAKE_MS(9000)}, "select 3");
    run_ms(f, 3);
    f->fake.now += FAKE_MS(2000); /* the loop stands still */
    run_ms(f, 5);
    assert_int_equal(fake_code(call), WEIR_CALL_TIMEOUT);
    assert_int_not_equal(fake_outcome(call), WEIR_OUTCOME_UNKNOWN);
    weir_call_free(first);
    weir_call_free(opener);
    weir_call_free(call);
    close_fake(f);
}

/* ---- failing connects ------------------------------------------------------------------------ */

static void a_refused_connect_is_one_failed_attempt(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    fake_open(&f->fake, &f->options);
    f->fake.refuse = true;
    submit_many(f, calls, (weir_request){0});
    run_ms(f, 7); /* three connects of 2 ms, one after the other */
    assert_int_equal(ended_with(calls, WEIR_CALL_CONNECT), 3);
    f->fake.refuse = false;
    run_ms(f, 50);
    assert_int_equal(ended_with(calls, WEIR_CALL_OK), CALLS - 4); /* the fourth connect was on its way */
    free_many(calls);
    close_fake(f);
}

static void a_refused_login_fails_all_who_wait_and_leaves_the_breaker_alone(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->options.breaker.min_calls = 2;
    fake_open(&f->fake, &f->options);
    f->fake.identity = true;
    submit_many(f, calls, (weir_request){0});
    run_ms(f, 3);
    assert_int_equal(ended_with(calls, WEIR_CALL_IDENTITY), CALLS);
    assert_int_equal(weir_call_error(calls[0])->class_, WEIR_CLASS_PERMANENT);
    assert_int_equal(f->fake.connects_begun, 1);
    f->fake.identity = false;
    weir_call *after = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 10);
    assert_int_equal(fake_code(after), WEIR_CALL_OK);
    weir_call_free(after);
    free_many(calls);
    close_fake(f);
}

static void a_server_without_slots_is_waited_for_if_others_of_ours_live(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->client.max = 4;
    fake_open(&f->fake, &f->options);
    weir_call *first = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 10);
    weir_call_free(first);
    memcpy(f->fake.connect_sqlstate, "53300", 6);
    submit_many(f, calls, (weir_request){0});
    run_ms(f, 50);
    assert_int_equal(ended_with(calls, WEIR_CALL_OK), CALLS);
    assert_in_range(f->fake.connects_begun, 2, 8);
    free_many(calls);
    close_fake(f);
}

static void a_server_without_slots_fails_a_call_if_none_of_ours_lives(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    memcpy(f->fake.connect_sqlstate, "53300", 6);
    weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 5);
    assert_int_equal(fake_code(call), WEIR_CALL_CONNECT);
    assert_string_equal(weir_call_error(call)->sqlstate, "53300");
    weir_call_free(call);
    close_fake(f);
}

static void a_black_hole_costs_all_who_wait_one_connect_timeout(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->options.connect_timeout_ns = FAKE_MS(200);
    fake_open(&f->fake, &f->options);
    f->fake.mute = true;
    submit_many(f, calls, (weir_request){0});
    run_ms(f, 201);
    assert_int_equal(ended_with(calls, WEIR_CALL_CONNECT), CALLS);
    free_many(calls);
    run_ms(f, 300);
    close_fake(f);
}

static void failures_in_the_background_do_not_hold_up_a_caller(void **state)
{
    struct fixture *f = *state;
    f->client.min = 1;
    fake_open(&f->fake, &f->options);
    f->fake.refuse = true;
    run_ms(f, 20000); /* the pool has backed off to seconds by now */
    assert_in_range(f->fake.connects_begun, 10, 60);
    f->fake.refuse = false;
    weir_call *call = fake_submit(&f->fake, (weir_request){.timeout_ns = FAKE_MS(50)}, "select 1");
    run_ms(f, 10);
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(call);
    close_fake(f);
}

/* ---- connections that come and go ------------------------------------------------------------ */

static void the_least_number_of_connections_is_kept(void **state)
{
    struct fixture *f = *state;
    f->client.max = 4;
    f->client.min = 3;
    f->options.idle_timeout_ns = FAKE_MS(100);
    f->options.lifetime_ns = FAKE_MS(1000);
    fake_open(&f->fake, &f->options);
    run_ms(f, 10);
    assert_int_equal(f->fake.opened, 3);
    fake_crash(&f->fake);
    run_ms(f, 10);
    assert_int_equal(f->fake.opened, 3);
    run_ms(f, 5010);
    assert_int_equal(f->fake.opened, 3);
    assert_int_equal(fake_counter(&f->fake, "closed", "idle"), 0);
    assert_in_range(fake_counter(&f->fake, "closed", "lifetime"), 12, 18);
    close_fake(f);
}

static void lifetimes_differ_so_that_connections_do_not_retire_together(void **state)
{
    struct fixture *f = *state;
    f->client.max = f->client.min = 8;
    f->options.lifetime_ns = FAKE_MS(1000);
    fake_open(&f->fake, &f->options);
    run_ms(f, 950);
    assert_in_range(fake_counter(&f->fake, "closed", "lifetime"), 1, 7);
    close_fake(f);
}

static void refuse_writes_once(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                               struct fake_answer *answer)
{
    (void)link;
    if (segment->kind == WR_SEGMENT_SINGLE && fake->singles == 1) memcpy(answer->sqlstate, "25006", 6);
}

static void a_write_refused_by_a_standby_is_repeated_on_a_new_connection(void **state)
{
    struct fixture *f = *state;
    f->options.retries = 3;
    fake_open(&f->fake, &f->options);
    f->fake.answer = refuse_writes_once;
    weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 200);
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    assert_int_equal(f->fake.connects_begun, 2);
    weir_call_free(call);
    close_fake(f);
}

static void a_paused_pool_refuses_until_it_is_resumed(void **state)
{
    struct fixture *f = *state;
    char why[WEIR_WHY_MAX];
    fake_open(&f->fake, &f->options);
    assert_int_equal(weir_pause(f->fake.engine, "service@mars", true, why), WEIR_EINVAL);
    assert_int_equal(weir_pause(f->fake.engine, "service@primary", true, why), WEIR_OK);
    weir_call *refused = fake_submit(&f->fake, (weir_request){0}, "select 1");
    assert_int_equal(fake_code(refused), WEIR_CALL_PAUSED);
    weir_pause(f->fake.engine, NULL, false, why);
    weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 10);
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(refused);
    weir_call_free(call);
    close_fake(f);
}

/* ---- two engines on one area ----------------------------------------------------------------- */

static const char *area_path(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/weir-queue-%d.area", (int)getpid());
    return path;
}

static void open_both(struct fixture *f)
{
    f->options.area_path = area_path();
    unlink(area_path());
    fake_open(&f->fake, &f->options);
    fake_open(&f->other, &f->options);
}

static void run_both_ms(struct fixture *f, uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i++) {
        fake_run(&f->fake, FAKE_MS(1));
        fake_run(&f->other, FAKE_MS(1));
    }
}

static void the_cap_holds_over_all_engines_of_an_area(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->client.max = 3;
    f->fake.service_ns = FAKE_MS(100);
    open_both(f);
    submit_many(f, calls, (weir_request){0});
    run_both_ms(f, 50);
    weir_call *there = fake_submit(&f->other, (weir_request){0}, "select 1");
    run_both_ms(f, 50);
    assert_int_equal(f->fake.opened + f->other.opened, 3);
    run_both_ms(f, 900);
    assert_int_equal(fake_code(there), WEIR_CALL_OK);
    assert_true(f->fake.opened + f->other.opened <= 3);
    weir_call_free(there);
    free_many(calls);
    fake_close(&f->other);
    fake_close(&f->fake);
    unlink(area_path());
}

static void idle_connections_of_one_engine_do_not_starve_another(void **state)
{
    struct fixture *f = *state;
    f->client.max = f->client.min = 2;
    open_both(f);
    run_both_ms(f, 10);
    struct fake *holder = f->fake.opened == 2 ? &f->fake : &f->other;
    struct fake *starving = holder == &f->fake ? &f->other : &f->fake;
    assert_int_equal(holder->opened, 2);
    weir_call *call = fake_submit(starving, (weir_request){.timeout_ns = FAKE_MS(3000)}, "select 1");
    run_both_ms(f, 1200); /* idle engines look once a second */
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(call);
    fake_close(&f->other);
    fake_close(&f->fake);
    unlink(area_path());
}

static void an_engine_that_closes_gives_its_places_back(void **state)
{
    struct fixture *f = *state;
    open_both(f);
    weir_call *unit = fake_begin(&f->fake, (weir_request){.timeout_ns = FAKE_MS(60000)});
    run_both_ms(f, 10);
    weir_call *call = fake_submit(&f->other, (weir_request){.timeout_ns = FAKE_MS(3000)}, "select 1");
    run_both_ms(f, 1500);
    assert_int_equal(weir_call_status(call), WEIR_WAITING);
    fake_free(&f->fake);
    fake_run(&f->other, FAKE_MS(100));
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(unit);
    weir_call_free(call);
    fake_close(&f->other);
    unlink(area_path());
}

static void fail_everything(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                            struct fake_answer *answer)
{
    (void)fake;
    (void)link;
    if (segment->kind == WR_SEGMENT_SINGLE) memcpy(answer->sqlstate, "53200", 6);
}

static void a_breaker_opened_by_one_engine_is_open_for_all(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.min_calls = 3;
    open_both(f);
    f->fake.answer = fail_everything;
    for (int i = 0; i < 3; i++) {
        weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 1");
        run_both_ms(f, 10);
        weir_call_free(call);
    }
    weir_call *call = fake_submit(&f->other, (weir_request){0}, "select 1");
    assert_int_equal(fake_code(call), WEIR_CALL_BREAKER_OPEN);
    weir_call_free(call);
    run_both_ms(f, 20);
    fake_close(&f->other);
    fake_close(&f->fake);
    unlink(area_path());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(acquire_timeout_ends_those_who_wait_and_not_those_who_run, set_up),
        cmocka_unit_test_setup(who_cannot_be_answered_in_time_gets_no_connection, set_up),
        cmocka_unit_test_setup(slow_successes_do_not_condemn_a_quick_call, set_up),
        cmocka_unit_test_setup(a_waiter_keeps_its_place_when_the_link_it_got_is_dead, set_up),
        cmocka_unit_test_setup(codel_drops_the_old_from_a_standing_queue, set_up),
        cmocka_unit_test_setup(a_queue_that_spends_half_its_patience_is_served_newest_first, set_up),
        cmocka_unit_test_setup(who_waits_is_not_started_when_all_is_ended, set_up),
        cmocka_unit_test_setup(an_attempt_after_the_deadline_is_not_made, set_up),
        cmocka_unit_test_setup(a_refused_connect_is_one_failed_attempt, set_up),
        cmocka_unit_test_setup(a_refused_login_fails_all_who_wait_and_leaves_the_breaker_alone, set_up),
        cmocka_unit_test_setup(a_server_without_slots_is_waited_for_if_others_of_ours_live, set_up),
        cmocka_unit_test_setup(a_server_without_slots_fails_a_call_if_none_of_ours_lives, set_up),
        cmocka_unit_test_setup(a_black_hole_costs_all_who_wait_one_connect_timeout, set_up),
        cmocka_unit_test_setup(failures_in_the_background_do_not_hold_up_a_caller, set_up),
        cmocka_unit_test_setup(the_least_number_of_connections_is_kept, set_up),
        cmocka_unit_test_setup(lifetimes_differ_so_that_connections_do_not_retire_together, set_up),
        cmocka_unit_test_setup(a_write_refused_by_a_standby_is_repeated_on_a_new_connection, set_up),
        cmocka_unit_test_setup(a_paused_pool_refuses_until_it_is_resumed, set_up),
        cmocka_unit_test_setup(the_cap_holds_over_all_engines_of_an_area, set_up),
        cmocka_unit_test_setup(idle_connections_of_one_engine_do_not_starve_another, set_up),
        cmocka_unit_test_setup(an_engine_that_closes_gives_its_places_back, set_up),
        cmocka_unit_test_setup(a_breaker_opened_by_one_engine_is_open_for_all, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
