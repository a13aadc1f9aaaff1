/* Notifications: in order and whole, over restarts, lost and silent connections; and a gap is told, exactly once, where
 * something may have been missed. */
#include "support/harness.h"
#include "weir/listen.h"

#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAYLOAD_MOST = 7999, FLOOD = 100000, EACH = 5000 };

struct fixture {
    struct server *server;
    struct harness h;
};

struct ear { /* what one listener has told */
    struct fixture *f;
    weir_listener *listener;
    unsigned listening, gaps, lost, over;
    long notes, disorder; /* disorder: payloads that were not the next number */
    long wanted;
    uint32_t pid;
    char channel[64], *payload;
    weir_error error;
    bool free_inside; /* at the next notification */
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(&(struct server_options){.tcp = true});
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

/* ---- listening ------------------------------------------------------------------------------- */

static void hear(struct ear *ear, const weir_listen_event *event)
{
    ear->disorder += atol(event->payload) != ear->notes;
    ear->notes++;
    ear->pid = event->pid;
    snprintf(ear->channel, sizeof ear->channel, "%s", event->channel);
    free(ear->payload);
    ear->payload = strdup(event->payload);
}

static void on_event(void *user, weir_listener *listener, const weir_listen_event *event)
{
    struct ear *ear = user;
    assert_int_equal(ear->over, 0);
    switch (event->kind) {
    case WEIR_LISTENING:
        ear->listening++;
        ear->gaps += event->gap;
        assert_true(weir_listener_is_up(listener));
        break;
    case WEIR_NOTIFICATION:
        hear(ear, event);
        if (ear->free_inside) {
            weir_listener_free(listener);
            ear->listener = NULL;
        }
        break;
    case WEIR_LISTEN_LOST:
        ear->lost++;
        ear->error = *event->error;
        assert_false(weir_listener_is_up(listener));
        break;
    case WEIR_LISTEN_OVER:
        ear->over++;
        break;
    }
}

static int try_to_listen(struct ear *ear, struct fixture *f, const char *client, const char *channel,
                         char *why)
{
    *ear = (struct ear){.f = f};
    return weir_listener_open(&ear->listener, f->h.engine,
                              &(weir_listen_options){.client = client,
                                                     .channels = &channel,
                                                     .channel_count = channel != NULL,
                                                     .notify = on_event,
                                                     .user = ear},
                              why);
}

static bool is_listening(void *arg)
{
    struct ear *ear = arg;
    return ear->listening >= (unsigned)ear->wanted;
}

static bool has_lost(void *arg)
{
    return ((struct ear *)arg)->lost > 0;
}

static bool has_notes(void *arg)
{
    struct ear *ear = arg;
    return ear->notes >= ear->wanted;
}

static bool is_over(void *arg)
{
    return ((struct ear *)arg)->over > 0;
}

static void expect_listening(struct ear *ear, long times)
{
    ear->wanted = times;
    assert_true(harness_until(&ear->f->h, is_listening, ear, 20000));
}

static void expect_notes(struct ear *ear, long count)
{
    ear->wanted = count;
    assert_true(harness_until(&ear->f->h, has_notes, ear, 30000));
    assert_int_equal(ear->notes, count);
}

static void listen_to(struct ear *ear, struct fixture *f, const char *channel)
{
    char why[WEIR_WHY_MAX] = "";
    int code = try_to_listen(ear, f, "service", channel, why);
    if (code != WEIR_OK) fail_msg("%s", why);
    expect_listening(ear, 1);
    assert_int_equal(ear->gaps, 0);
}

static void stop_listening(struct ear *ear)
{
    weir_listener_free(ear->listener);
    free(ear->payload);
    harness_turn(&ear->f->h, 20);
}

static void open_engine(struct fixture *f, const char *conninfo)
{
    harness_prepare(&f->h, f->server, conninfo);
    harness_open(&f->h);
}

static void send_numbers(struct fixture *f, long first, long count)
{
    char sql[160];
    snprintf(sql, sizeof sql, "select count(pg_notify('numbers', n::text)) from generate_series(%ld, %ld) n",
             first, first + count - 1);
    server_exec(f->server, sql);
}

/* ---- what comes ------------------------------------------------------------------------------ */

static void notifications_come_in_order_with_the_pid_of_their_sender(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    open_engine(f, NULL);
    listen_to(&ear, f, "numbers");
    send_numbers(f, 0, 500);
    expect_notes(&ear, 500);
    assert_int_equal(ear.disorder, 0);
    assert_int_equal(ear.pid, server_ask_number(f->server, "select pg_backend_pid()"));
    assert_string_equal(ear.channel, "numbers");
    stop_listening(&ear);
    harness_close(&f->h);
}

static void a_payload_of_7999_bytes_comes_whole(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    open_engine(f, NULL);
    listen_to(&ear, f, "numbers");
    server_exec(f->server, "select pg_notify('numbers', repeat('0', 7998) || 'x')");
    expect_notes(&ear, 1);
    assert_int_equal(strlen(ear.payload), PAYLOAD_MOST);
    assert_int_equal(ear.payload[PAYLOAD_MOST - 1], 'x');
    server_exec(f->server, "notify numbers");
    expect_notes(&ear, 2);
    assert_string_equal(ear.payload, "");
    stop_listening(&ear);
    harness_close(&f->h);
}

static void a_channel_may_have_any_name_that_postgresql_can_hold(void **state)
{
    static const char *const names[] = {"We\"ird; drop table contacts",
                                        "UPPER",
                                        "öffentlich ☂",
                                        "a",
                                        "'quoted'",
                                        "\\back",
                                        "123456789012345678901234567890123456789012345678901234567890123"};
    struct fixture *f = *state;
    struct ear ear;
    open_engine(f, NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        listen_to(&ear, f, names[i]);
        struct job *job = harness_call(&f->h, SERVICE, "sends");
        job_step(job, "select pg_notify($1, 'x')");
        job_value(job, "%s", names[i]);
        harness_run(&f->h, job);
        job_assert(job, WEIR_CALL_OK);
        expect_notes(&ear, 1);
        assert_string_equal(ear.channel, names[i]);
        stop_listening(&ear);
    }
    assert_int_equal(harness_stat(&f->h, "service@primary", "calls", "ok"), sizeof names / sizeof *names);
    harness_close(&f->h);
}

static void channels_come_and_go_while_it_is_open(void **state)
{
    char name[64], why[WEIR_WHY_MAX] = "";
    struct fixture *f = *state;
    struct ear ear;
    open_engine(f, NULL);
    listen_to(&ear, f, "numbers");
    for (int i = 0; i < WEIR_CHANNELS_MAX - 1; i++) {
        snprintf(name, sizeof name, "Channel %d", i);
        assert_int_equal(weir_listener_add(ear.listener, name, why), WEIR_OK);
    }
    assert_false(weir_listener_is_up(ear.listener));
    assert_int_equal(weir_listener_add(ear.listener, "one too many", why), WEIR_EINVAL);
    assert_non_null(strstr(why, "256"));
    expect_listening(&ear, 2);
    server_exec(f->server,
                "notify \"Channel 0\", '0'; notify \"Channel 254\", '1'; notify \"Channel 255\", '2'");
    expect_notes(&ear, 2);
    assert_int_equal(weir_listener_remove(ear.listener, "numbers", why), WEIR_OK);
    assert_int_equal(weir_listener_remove(ear.listener, "Channel 254", why), WEIR_OK);
    server_exec(f->server, "notify numbers, '9'; notify \"Channel 254\", '9'; notify \"Channel 1\", '2'");
    expect_notes(&ear, 3);
    expect_listening(&ear, 3);
    assert_int_equal(ear.disorder + ear.gaps, 0);
    stop_listening(&ear);
    harness_close(&f->h);
}

static void of_a_hundred_thousand_none_is_missed_and_memory_stays_flat(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    open_engine(f, NULL);
    listen_to(&ear, f, "numbers");
    send_numbers(f, 0, EACH);
    expect_notes(&ear, EACH);
    size_t before = mallinfo2().uordblks;
    for (long sent = EACH; sent < FLOOD; sent += EACH) {
        send_numbers(f, sent, EACH);
        expect_notes(&ear, sent + EACH);
    }
    size_t after = mallinfo2().uordblks;
    assert_int_equal(ear.disorder + ear.gaps + ear.lost, 0);
    assert_true(after < before + 64 * 1024);
    stop_listening(&ear);
    harness_close(&f->h);
}

/* ---- what is lost ---------------------------------------------------------------------------- */

static void restart(struct fixture *f, enum server_stop how)
{
    struct ear ear;
    open_engine(f, NULL);
    listen_to(&ear, f, "numbers");
    send_numbers(f, 0, 10);
    expect_notes(&ear, 10);
    server_stop(f->server, how);
    assert_true(harness_until(&f->h, has_lost, &ear, 5000));
    harness_turn(&f->h, 300);
    server_run(f->server);
    expect_listening(&ear, 2);
    send_numbers(f, 10, 10);
    expect_notes(&ear, 20);
    assert_int_equal(ear.lost, 1);
    assert_int_equal(ear.gaps, 1);
    assert_int_equal(ear.listening, 2);
    assert_int_equal(ear.disorder, 0);
    stop_listening(&ear);
    harness_close(&f->h);
}

static void after_a_restart_it_listens_again_and_tells_the_gap_once(void **state)
{
    restart(*state, SERVER_FAST);
    restart(*state, SERVER_IMMEDIATE);
}

static void a_terminated_backend_is_a_loss_with_its_reason_and_a_gap(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    open_engine(f, NULL);
    listen_to(&ear, f, "numbers");
    for (unsigned i = 1; i <= 3; i++) {
        server_exec(f->server,
                    "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app_service'");
        expect_listening(&ear, 1 + (long)i);
        assert_int_equal(ear.gaps, i);
        assert_int_equal(ear.lost, i);
        assert_string_equal(ear.error.sqlstate, "57P01");
        assert_int_equal(ear.error.code, WEIR_CALL_LOST);
    }
    stop_listening(&ear);
    harness_close(&f->h);
}

static void a_server_that_is_silent_is_noticed_by_a_question(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    harness_prepare(&f->h, f->server, NULL);
    f->h.options.health_interval_ns = MS(100);
    f->h.options.connect_timeout_ns = MS(300);
    harness_open(&f->h);
    listen_to(&ear, f, "numbers");
    pid_t pid = (pid_t)server_ask_number(
        f->server, "select pid from pg_stat_activity where query like 'LISTEN%' and usename = 'app_service'");
    assert_true(pid > 0);
    harness_turn(&f->h, 500); /* answered questions change nothing */
    assert_int_equal(ear.lost, 0);
    server_signal(f->server, pid, SIGSTOP);
    expect_listening(&ear, 2);
    assert_int_equal(ear.lost, 1);
    assert_int_equal(ear.gaps, 1);
    assert_non_null(strstr(ear.error.message, "did not answer"));
    send_numbers(f, 0, 3);
    expect_notes(&ear, 3);
    server_signal(f->server, pid, SIGCONT);
    stop_listening(&ear);
    harness_close(&f->h);
}

static void a_network_that_swallows_everything_is_noticed_and_survived(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    struct proxy *proxy = proxy_start(f->server);
    harness_prepare(&f->h, f->server, proxy_conninfo(proxy, NULL));
    f->h.options.health_interval_ns = MS(100);
    f->h.options.connect_timeout_ns = MS(300);
    harness_open(&f->h);
    listen_to(&ear, f, "numbers");
    proxy_silence(proxy, true);
    assert_true(harness_until(&f->h, has_lost, &ear, 5000));
    send_numbers(f, 100, 3); /* nobody is there */
    proxy_silence(proxy, false);
    expect_listening(&ear, 2);
    send_numbers(f, 0, 3);
    expect_notes(&ear, 3);
    assert_int_equal(ear.lost, 1);
    assert_int_equal(ear.gaps, 1);
    stop_listening(&ear);
    harness_close(&f->h);
    proxy_stop(proxy);
}

/* ---- the pool -------------------------------------------------------------------------------- */

static void a_full_pool_is_told_after_a_while_and_then_a_place_is_taken(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    char why[WEIR_WHY_MAX] = "";
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = 1;
    f->h.options.acquire_timeout_ns = MS(100);
    harness_open(&f->h);
    struct job *job = harness_call(&f->h, SERVICE, "holds the only one");
    job_step(job, "select pg_sleep(0.7)");
    job_start(job);
    harness_turn(&f->h, 50);
    assert_int_equal(try_to_listen(&ear, f, "service", "numbers", why), WEIR_OK);
    assert_true(harness_until(&f->h, has_lost, &ear, 5000));
    assert_int_equal(ear.error.code, WEIR_CALL_ACQUIRE_TIMEOUT);
    assert_non_null(strstr(ear.error.message, "all are in use"));
    expect_listening(&ear, 1);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(ear.gaps, 0); /* it has never listened before: nothing is missed since */
    job = harness_call(&f->h, SERVICE, "finds none");
    job_step(job, "select 1");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_ACQUIRE_TIMEOUT);
    job = harness_call(&f->h, SERVICE, "gets the listener's place");
    job->request.timeout_ns = SECONDS(5);
    job_step(job, "select 1");
    job_start(job);
    weir_listener_free(ear.listener);
    harness_wait(&f->h);
    job_assert(job, WEIR_CALL_OK);
    harness_close(&f->h);
}

static void while_nobody_can_connect_the_loss_is_told_once(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    char why[WEIR_WHY_MAX] = "";
    open_engine(f, NULL);
    server_stop(f->server, SERVER_FAST);
    assert_int_equal(try_to_listen(&ear, f, "service", "numbers", why), WEIR_OK);
    assert_true(harness_until(&f->h, has_lost, &ear, 5000));
    assert_int_equal(ear.error.code, WEIR_CALL_CONNECT);
    assert_false(harness_until(&f->h, is_over, &ear, 600));
    assert_true(harness_stat(&f->h, "service@primary", "events", "connect_failed") > 1);
    server_run(f->server);
    expect_listening(&ear, 1);
    assert_int_equal(ear.lost, 1);
    send_numbers(f, 0, 3);
    expect_notes(&ear, 3);
    stop_listening(&ear);
    harness_close(&f->h);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static bool is_drained(void *arg)
{
    struct fixture *f = arg;
    return weir_drained(f->h.engine);
}

static void draining_ends_it(void **state)
{
    struct fixture *f = *state;
    struct ear ear, late;
    char why[WEIR_WHY_MAX] = "";
    open_engine(f, NULL);
    listen_to(&ear, f, "numbers");
    weir_drain(f->h.engine, SECONDS(5));
    assert_int_equal(ear.over, 0); /* not inside the call */
    assert_true(harness_until(&f->h, is_drained, f, 2000));
    assert_int_equal(ear.over, 1);
    assert_int_equal(weir_listener_add(ear.listener, "more", why), WEIR_ESTATE);
    assert_int_equal(try_to_listen(&late, f, "service", "numbers", why), WEIR_ESTATE);
    assert_null(late.listener);
    stop_listening(&ear);
    harness_close(&f->h);
}

static void it_may_outlive_its_engine(void **state)
{
    struct fixture *f = *state;
    struct ear idle, connecting;
    char why[WEIR_WHY_MAX] = "";
    open_engine(f, NULL);
    listen_to(&idle, f, "numbers");
    assert_int_equal(try_to_listen(&connecting, f, "service", "numbers", why), WEIR_OK);
    harness_cut_off(&f->h);
    assert_int_equal(idle.over, 1);
    assert_int_equal(connecting.over, 1);
    assert_int_equal(weir_listener_add(idle.listener, "more", why), WEIR_ESTATE);
    assert_false(weir_listener_is_up(idle.listener));
    weir_listener_free(idle.listener);
    weir_listener_free(connecting.listener);
}

static void it_may_be_freed_from_its_own_callback_and_while_it_connects(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    char why[WEIR_WHY_MAX] = "";
    open_engine(f, NULL);
    listen_to(&ear, f, "numbers");
    ear.free_inside = true;
    send_numbers(f, 0, 100);
    expect_notes(&ear, 1);
    harness_turn(&f->h, 50);
    assert_int_equal(ear.notes, 1);
    free(ear.payload);
    for (int ms = 0; ms < 6; ms++) {
        assert_int_equal(try_to_listen(&ear, f, "service", "numbers", why), WEIR_OK);
        harness_turn(&f->h, ms);
        weir_listener_free(ear.listener);
    }
    harness_turn(&f->h, 100);
    harness_close(&f->h);
}

/* ---- refused --------------------------------------------------------------------------------- */

static void an_anon_client_an_unknown_one_and_a_bad_name_are_refused(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    char why[WEIR_WHY_MAX] = "";
    open_engine(f, NULL);
    assert_int_equal(try_to_listen(&ear, f, "anon", "numbers", why), WEIR_EINVAL);
    assert_non_null(strstr(why, "row-level security"));
    assert_int_equal(try_to_listen(&ear, f, "nobody", "numbers", why), WEIR_EINVAL);
    assert_non_null(strstr(why, "nobody"));
    assert_int_equal(try_to_listen(&ear, f, "service", "", why), WEIR_EINVAL);
    assert_int_equal(try_to_listen(&ear, f, "service",
                                   "1234567890123456789012345678901234567890123456789012345678901234", why),
                     WEIR_EINVAL);
    assert_non_null(strstr(why, "63"));
    assert_null(ear.listener);
    harness_close(&f->h);
}

static void behind_a_transaction_pooler_it_is_refused_in_a_sentence(void **state)
{
    struct fixture *f = *state;
    struct ear ear;
    char why[WEIR_WHY_MAX] = "";
    harness_prepare(&f->h, f->server, NULL);
    f->h.backend.pooler = true;
    harness_open(&f->h);
    assert_int_equal(try_to_listen(&ear, f, "service", "numbers", why), WEIR_EINVAL);
    assert_non_null(strstr(why, "pooler"));
    harness_close(&f->h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(notifications_come_in_order_with_the_pid_of_their_sender),
        cmocka_unit_test(a_payload_of_7999_bytes_comes_whole),
        cmocka_unit_test(a_channel_may_have_any_name_that_postgresql_can_hold),
        cmocka_unit_test(channels_come_and_go_while_it_is_open),
        cmocka_unit_test(of_a_hundred_thousand_none_is_missed_and_memory_stays_flat),
        cmocka_unit_test(after_a_restart_it_listens_again_and_tells_the_gap_once),
        cmocka_unit_test(a_terminated_backend_is_a_loss_with_its_reason_and_a_gap),
        cmocka_unit_test(a_server_that_is_silent_is_noticed_by_a_question),
        cmocka_unit_test(a_network_that_swallows_everything_is_noticed_and_survived),
        cmocka_unit_test(a_full_pool_is_told_after_a_while_and_then_a_place_is_taken),
        cmocka_unit_test(while_nobody_can_connect_the_loss_is_told_once),
        cmocka_unit_test(draining_ends_it),
        cmocka_unit_test(it_may_outlive_its_engine),
        cmocka_unit_test(it_may_be_freed_from_its_own_callback_and_while_it_connects),
        cmocka_unit_test(an_anon_client_an_unknown_one_and_a_bad_name_are_refused),
        cmocka_unit_test(behind_a_transaction_pooler_it_is_refused_in_a_sentence),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
