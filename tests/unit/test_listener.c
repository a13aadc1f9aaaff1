/* Listeners over the scripted server, in virtual time: what stands on the one connection and when, and that no moment is a
 * bad one to lose it, to change its channels, or to free it. */
#include "support/fake_server.h"
#include "weir/listen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct fake fake;
    weir_options options;
    weir_listener *listener;
    int listening, gaps, notes, lost, over;
    char heard[256]; /* payloads, each with a space behind it */
    weir_code code;
};

static void on_event(void *user, weir_listener *listener, const weir_listen_event *event)
{
    struct fixture *f = user;
    (void)listener;
    f->listening += event->kind == WEIR_LISTENING;
    f->gaps += event->gap;
    f->lost += event->kind == WEIR_LISTEN_LOST;
    f->over += event->kind == WEIR_LISTEN_OVER;
    if (event->error != NULL) f->code = event->error->code;
    if (event->kind != WEIR_NOTIFICATION) return;
    f->notes++;
    snprintf(f->heard + strlen(f->heard), sizeof f->heard - strlen(f->heard), "%s ", event->payload);
}

static int set_up(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    fake_init(&f.fake);
    fake_options(&f.options);
    f.options.connect_timeout_ns = FAKE_MS(1000);
    f.options.retries = 0;
    *state = &f;
    return 0;
}

static void run_ms(struct fixture *f, uint64_t ms)
{
    fake_run(&f->fake, FAKE_MS(ms));
}

static void open_listener(struct fixture *f)
{
    static const char *const channels[] = {"news", "news", "more"};
    char why[WEIR_WHY_MAX] = "";
    fake_open(&f->fake, &f->options);
    int code = weir_listener_open(&f->listener, f->fake.engine,
                                  &(weir_listen_options){.client = "service",
                                                         .channels = channels,
                                                         .channel_count = 3,
                                                         .notify = on_event,
                                                         .user = f},
                                  why);
    if (code != WEIR_OK) fail_msg("%s", why);
}

static void close_all(struct fixture *f)
{
    weir_listener_free(f->listener);
    run_ms(f, 1);
    fake_close(&f->fake);
}

/* ---- one connection ------------------------------------------------------------------------------------- */

static void it_asks_for_all_channels_in_one_segment_and_tells_when_they_are_confirmed(void **state)
{
    struct fixture *f = *state;
    open_listener(f);
    assert_int_equal(f->fake.connects_begun, 0); /* nothing happens inside the call */
    run_ms(f, 2);
    assert_int_equal(f->listening, 0);
    assert_int_equal(f->fake.singles, 1);
    run_ms(f, 1);
    assert_int_equal(f->listening, 1);
    assert_true(weir_listener_is_up(f->listener));
    assert_int_equal(f->fake.statements_run, 2);
    assert_int_equal(fake_notify(&f->fake, "news", "a"), 1);
    assert_int_equal(fake_notify(&f->fake, "unknown", "b"), 1);
    assert_int_equal(fake_notify(&f->fake, "more", "c"), 1);
    assert_string_equal(f->heard, "a c ");
    close_all(f);
}

static void an_idle_connection_of_the_pool_is_taken_before_one_is_opened(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 1");
    run_ms(f, 10);
    weir_call_free(call);
    char why[WEIR_WHY_MAX] = "";
    assert_int_equal(
        weir_listener_open(&f->listener, f->fake.engine,
                           &(weir_listen_options){.client = "service", .notify = on_event, .user = f}, why),
        WEIR_OK);
    run_ms(f, 1);
    assert_int_equal(f->listening, 1); /* no channel: nothing to ask */
    assert_int_equal(f->fake.connects_begun, 1);
    assert_int_equal(weir_listener_add(f->listener, "news", why), WEIR_OK);
    run_ms(f, 2);
    assert_int_equal(f->listening, 2);
    close_all(f);
}

static void a_change_during_a_change_follows_it(void **state)
{
    struct fixture *f = *state;
    char why[WEIR_WHY_MAX] = "";
    open_listener(f);
    run_ms(f, 2); /* LISTEN is under way */
    assert_int_equal(weir_listener_remove(f->listener, "news", why), WEIR_OK);
    assert_int_equal(weir_listener_add(f->listener, "late", why), WEIR_OK);
    run_ms(f, 1);
    assert_int_equal(f->listening, 0); /* not all that is asked for is confirmed */
    run_ms(f, 1);
    assert_int_equal(f->listening, 1);
    assert_int_equal(f->fake.singles, 2);
    fake_notify(&f->fake, "news", "a");
    fake_notify(&f->fake, "late", "b");
    assert_string_equal(f->heard, "b ");
    close_all(f);
}

/* ---- losing it ------------------------------------------------------------------------------------------- */

static void a_loss_is_told_once_and_its_gap_once(void **state)
{
    struct fixture *f = *state;
    open_listener(f);
    run_ms(f, 10);
    f->fake.refuse = true;
    fake_crash(&f->fake);
    run_ms(f, 30000);
    assert_int_equal(f->lost, 1);
    assert_true(f->fake.connects_begun > 10 && f->fake.connects_begun < 100); /* it backs off */
    assert_int_equal(f->gaps, 0);
    f->fake.refuse = false;
    run_ms(f, 3000);
    assert_int_equal(f->listening, 2);
    assert_int_equal(f->gaps, 1);
    assert_int_equal(f->lost, 1);
    fake_crash(&f->fake);
    run_ms(f, 3000);
    assert_int_equal(f->lost, 2);
    assert_int_equal(f->gaps, 2);
    close_all(f);
}

static void a_loss_before_it_has_ever_listened_is_no_gap(void **state)
{
    struct fixture *f = *state;
    open_listener(f);
    run_ms(f, 2); /* LISTEN is under way */
    fake_crash(&f->fake);
    run_ms(f, 3000);
    assert_int_equal(f->lost, 1);
    assert_int_equal(f->listening, 1);
    assert_int_equal(f->gaps, 0);
    close_all(f);
}

static void no_answer_to(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                         struct fake_answer *answer)
{
    (void)fake;
    answer->never = link->number == 0 && segment->kind == WR_SEGMENT_PROBE;
}

static void silence_is_asked_about_and_a_silent_connection_given_up(void **state)
{
    struct fixture *f = *state;
    f->fake.answer = no_answer_to;
    open_listener(f);
    run_ms(f, 29000);
    fake_notify(&f->fake, "news", "a"); /* that is a sign of life as well */
    run_ms(f, 29000);
    assert_int_equal(f->fake.probes, 0);
    run_ms(f, 1500);
    assert_int_equal(f->fake.probes, 1);
    assert_int_equal(f->lost, 0);
    run_ms(f, 4000);
    assert_int_equal(f->lost, 1);
    assert_int_equal(f->gaps, 1);
    assert_true(weir_listener_is_up(f->listener));
    close_all(f);
}

static void refuse_listen(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                          struct fake_answer *answer)
{
    (void)link;
    if (segment->kind == WR_SEGMENT_SINGLE && fake->singles < 3) memcpy(answer->sqlstate, "25006", 6);
}

static void a_refused_listen_is_a_loss_and_tried_again(void **state)
{
    struct fixture *f = *state;
    f->fake.answer = refuse_listen;
    open_listener(f);
    run_ms(f, 3000);
    assert_int_equal(f->lost, 1);
    assert_int_equal(f->code, WEIR_CALL_SERVER);
    assert_int_equal(f->fake.singles, 3);
    assert_int_equal(f->listening, 1);
    close_all(f);
}

/* ---- at any moment --------------------------------------------------------------------------------------- */

/* Half a millisecond apart: with the crew, asking, at rest, lost, backing off. */
static void freed_or_drained_or_ended_at_any_moment_it_leaves_nothing(void **state)
{
    for (int how = 0; how < 3; how++) {
        for (uint64_t at = 0; at < 60; at++) {
            struct fixture *f = *state;
            set_up(state);
            open_listener(f);
            fake_run(&f->fake, at * FAKE_MS(1) / 4);
            if (at % 3 == 2) fake_crash(&f->fake);
            fake_run(&f->fake, at % 7 * FAKE_MS(1));
            if (how == 0) weir_listener_free(f->listener);
            if (how == 1) weir_drain(f->fake.engine, FAKE_MS(50));
            if (how < 2) run_ms(f, 5);
            if (how == 1) assert_true(weir_drained(f->fake.engine));
            if (how < 2) fake_assert_at_rest(&f->fake);
            fake_free(&f->fake);
            assert_int_equal(f->over, how > 0);
            if (how > 0) weir_listener_free(f->listener); /* it has outlived its engine */
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(it_asks_for_all_channels_in_one_segment_and_tells_when_they_are_confirmed,
                               set_up),
        cmocka_unit_test_setup(an_idle_connection_of_the_pool_is_taken_before_one_is_opened, set_up),
        cmocka_unit_test_setup(a_change_during_a_change_follows_it, set_up),
        cmocka_unit_test_setup(a_loss_is_told_once_and_its_gap_once, set_up),
        cmocka_unit_test_setup(a_loss_before_it_has_ever_listened_is_no_gap, set_up),
        cmocka_unit_test_setup(silence_is_asked_about_and_a_silent_connection_given_up, set_up),
        cmocka_unit_test_setup(a_refused_listen_is_a_loss_and_tried_again, set_up),
        cmocka_unit_test_setup(freed_or_drained_or_ended_at_any_moment_it_leaves_nothing, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
