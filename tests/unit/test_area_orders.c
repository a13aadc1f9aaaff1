/* Orders given through a handle on an area: what each does in every worker, who acknowledges it, what stands for those who
 * come later, and what is written down. */
#include "steer_fixture.h"

#include "engine/engine.h"
#include "engine/order.h"

static void paused_calls_are_refused_at_once_and_resumed_ones_go_on(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    uint64_t ticket =
        steer_order(s, (weir_order){.kind = WEIR_ORDER_PAUSE, .pool = "service@primary", .reason = "a test"});
    assert_int_equal(steer_progress(s, ticket).done, 0);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_PAUSED); /* before the worker has looked */
    fake_run(&s->one, FAKE_MS(1000));
    steer_expect_done(s, ticket, 1);
    steer_expect(s, "stats", "\"paused\":true,\"draining\":false");
    steer_expect(s, "stats", "\"idle\":1"); /* connections stay */
    ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_RESUME});
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_run(&s->one, FAKE_MS(300));
    steer_expect_done(s, ticket, 1);
    fake_close(&s->one);
}

static void a_drained_pool_closes_connections_as_they_get_free(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    s->one.service_ns = FAKE_MS(400);
    weir_call *running = fake_submit(&s->one, (weir_request){0}, "select 1");
    weir_call *second = fake_submit(&s->one, (weir_request){0}, "select 2");
    fake_run(&s->one, FAKE_MS(20));
    steer_expect(s, "stats", "\"open\":2");
    uint64_t ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_DRAIN, .pool = "service@primary"});
    fake_run(&s->one, FAKE_MS(1000));
    assert_int_equal(fake_code(running), WEIR_CALL_OK); /* what ran has run to its end */
    assert_int_equal(fake_code(second), WEIR_CALL_OK);
    steer_expect_done(s, ticket, 1);
    steer_expect(s, "stats", "\"open\":0");
    steer_expect(s, "stats", "\"paused\":true,\"draining\":true");
    assert_int_equal(steer_call(&s->one), WEIR_CALL_PAUSED);
    steer_order(s, (weir_order){.kind = WEIR_ORDER_RESUME});
    s->one.service_ns = FAKE_MS(1);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    weir_call_free(running);
    weir_call_free(second);
    fake_close(&s->one);
}

static void those_who_wait_in_a_pool_that_is_made_larger_are_served_at_once(void **state)
{
    struct steer *s = *state;
    weir_call *calls[6];
    steer_begin(s);
    s->one.service_ns = FAKE_MS(5000);
    for (int i = 0; i < 6; i++)
        calls[i] = fake_submit(&s->one, (weir_request){.timeout_ns = FAKE_MS(9000)}, "select 1");
    fake_run(&s->one, FAKE_MS(100));
    steer_expect(s, "stats", "\"waiting\":4"); /* two have the two connections */
    uint64_t ticket =
        steer_order(s, (weir_order){.kind = WEIR_ORDER_RESIZE, .pool = "service@primary", .max = 6});
    steer_expect(s, "stats", "\"max\":6");
    fake_run(&s->one, FAKE_MS(400));
    steer_expect_done(s, ticket, 1);
    steer_expect(s, "stats", "\"open\":6");
    steer_expect(s, "stats", "\"waiting\":0");
    fake_run(&s->one, FAKE_MS(6000));
    for (int i = 0; i < 6; i++) {
        assert_int_equal(fake_code(calls[i]), WEIR_CALL_OK);
        weir_call_free(calls[i]);
    }
    ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_RESIZE, .pool = "service@primary", .max = 1});
    fake_run(&s->one, FAKE_MS(400));
    steer_expect_done(s, ticket, 1);
    steer_expect(s, "stats", "\"open\":1"); /* the idle ones that are too many have gone */
    steer_expect(s, "stats", "\"resized\":true,\"configured_max\":2");
    steer_order(s, (weir_order){.kind = WEIR_ORDER_RESIZE});
    steer_expect(s, "stats", "\"resized\":false");
    fake_close(&s->one);
}

static void a_smaller_pool_is_smaller_over_all_workers_together(void **state)
{
    struct steer *s = *state;
    weir_call *calls[4];
    weir_client clients[2];
    memcpy(clients, s->options.clients, sizeof clients);
    clients[0].max = 8;
    s->options.clients = clients;
    steer_begin(s);
    steer_open(s, &s->two);
    s->one.service_ns = s->two.service_ns = FAKE_MS(1500);
    for (int i = 0; i < 4; i++)
        calls[i] = fake_submit(i % 2 == 0 ? &s->one : &s->two, (weir_request){0}, "select 1");
    fake_run(&s->one, FAKE_MS(100));
    fake_run(&s->two, FAKE_MS(100));
    steer_expect(s, "stats", "\"open\":4");
    uint64_t ticket =
        steer_order(s, (weir_order){.kind = WEIR_ORDER_RESIZE, .pool = "service@primary", .max = 2});
    for (int i = 0; i < 20; i++) {
        fake_run(&s->one, FAKE_MS(100));
        fake_run(&s->two, FAKE_MS(100));
    }
    steer_expect_done(s, ticket, 2);
    steer_expect(s, "stats", "\"open\":2"); /* the others were closed as they came back */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(fake_code(calls[i]), WEIR_CALL_OK);
        weir_call_free(calls[i]);
    }
    fake_close(&s->one);
    fake_close(&s->two);
}

static void reconnecting_replaces_every_connection(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    int before = s->one.connects_begun;
    uint64_t ticket =
        steer_order(s, (weir_order){.kind = WEIR_ORDER_RECONNECT, .reason = "new certificates"});
    fake_run(&s->one, FAKE_MS(300));
    steer_expect_done(s, ticket, 1);
    steer_expect(s, "stats", "\"open\":0");
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    assert_int_equal(s->one.connects_begun, before + 1);
    fake_close(&s->one);
}

static void a_breaker_forced_open_refuses_at_once_and_those_who_wait_too(void **state)
{
    struct steer *s = *state;
    weir_call *calls[4];
    steer_begin(s);
    s->one.service_ns = FAKE_MS(2000);
    for (int i = 0; i < 4; i++) calls[i] = fake_submit(&s->one, (weir_request){0}, "select 1");
    fake_run(&s->one, FAKE_MS(50));
    uint64_t ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_FORCE,
                                                  .pool = "service@primary",
                                                  .state = WEIR_FORCED_OPEN});
    assert_int_equal(steer_call(&s->one), WEIR_CALL_BREAKER_OPEN);
    fake_run(&s->one, FAKE_MS(300));
    steer_expect_done(s, ticket, 1);
    assert_int_equal(fake_code(calls[3]), WEIR_CALL_BREAKER_OPEN);
    steer_expect(s, "stats", "\"state\":\"FORCED_OPEN\"");
    steer_expect(s, "health", "\"status\":\"degraded\"");
    fake_run(&s->one, FAKE_MS(2500));
    for (int i = 0; i < 4; i++) weir_call_free(calls[i]);
    steer_order(s, (weir_order){.kind = WEIR_ORDER_RESET, .pool = "service@primary"});
    s->one.service_ns = FAKE_MS(1);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_close(&s->one);
}

static void a_state_forced_for_a_while_ends_by_itself(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    steer_order(s, (weir_order){.kind = WEIR_ORDER_FORCE,
                                .pool = "service@primary",
                                .state = WEIR_FORCED_OPEN,
                                .lasts_ns = FAKE_MS(3000)});
    steer_expect(s, "stats", "\"forced_for\":");
    assert_int_equal(steer_call(&s->one), WEIR_CALL_BREAKER_OPEN);
    fake_run(&s->one, FAKE_MS(2000));
    assert_int_equal(steer_call(&s->one), WEIR_CALL_BREAKER_OPEN);
    fake_run(&s->one, FAKE_MS(1500));
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    steer_expect(s, "events", "FORCED_OPEN -> CLOSED: the time is over for which it was forced");
    steer_expect(s, "stats", "the time is over for which it was forced");
    steer_expect_not(s, "events", "moved it to CLOSED");
    fake_close(&s->one);
}

static void the_same_in_private_memory_with_nobody_to_look(void **state)
{
    struct steer *s = *state;
    s->options.area_path = NULL;
    steer_open(s, &s->one);
    weir_area *own = weir_engine_area(s->one.engine);
    weir_order order = {.kind = WEIR_ORDER_FORCE, .state = WEIR_FORCED_OPEN, .lasts_ns = FAKE_MS(3000)};
    weir_order_progress progress;
    uint64_t ticket = 0;
    assert_int_equal(weir_area_order(own, &order, &ticket, s->why), WEIR_OK);
    weir_area_progress(own, ticket, &progress);
    assert_int_equal(progress.workers, 1);
    assert_int_equal(progress.done, 1); /* when the order returned */
    fake_run(&s->one, FAKE_MS(2900));
    assert_int_equal(steer_call(&s->one), WEIR_CALL_BREAKER_OPEN);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_close(&s->one);
}

static void orders_that_cannot_be_are_refused_with_a_sentence(void **state)
{
    struct steer *s = *state;
    static const struct {
        weir_order order;
        const char *why;
    } wrong[] = {
        {{.kind = WEIR_ORDER_PAUSE, .pool = "service@nowhere"}, "there is no pool 'service@nowhere'"},
        {{.kind = WEIR_ORDER_RESIZE, .max = 10001}, "max is 10001: 1 to 10000"},
        {{.kind = WEIR_ORDER_FORCE, .state = WEIR_OPEN}, "cannot be forced to OPEN"},
        {{.kind = WEIR_ORDER_FORCE, .state = WEIR_FORCED_OPEN, .lasts_ns = UINT64_MAX}, "a year at most"},
        {{.kind = WEIR_ORDER_KILL, .call = 5}, "there is no call 5"},
        {{.kind = WEIR_ORDER_KILL, .call = UINT64_MAX}, "there is no call"},
        {{.kind = WEIR_ORDER_POLICY, .text = "", .length = 0}, "the policy has 0 bytes"},
        {{.kind = (weir_order_kind)99}, "no order of kind 99"},
    };
    steer_begin(s);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint64_t ticket = 77;
        assert_int_equal(weir_area_order(s->area, &wrong[i].order, &ticket, s->why), WEIR_EINVAL);
        if (strstr(s->why, wrong[i].why) == NULL) fail_msg("'%s' does not say '%s'", s->why, wrong[i].why);
        assert_int_equal(ticket, 77);
    }
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_close(&s->one);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

/* The id that `conns` shows of the call that holds a connection. */
static uint64_t running(struct steer *s)
{
    const char *at = strstr(steer_read(s, s->area, "conns"), "\"state\":\"leased\"");
    assert_non_null(at);
    at = strstr(at, "\"call\":\"");
    assert_non_null(at);
    return strtoull(at + 8, NULL, 16);
}

static void a_running_call_is_killed_by_the_id_that_is_shown(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    steer_open(s, &s->two);
    s->one.service_ns = FAKE_MS(9000);
    weir_call *call = fake_submit(&s->one, (weir_request){.context = "GET /report"}, "select 1");
    fake_run(&s->one, FAKE_MS(50));
    s->one.service_ns = FAKE_MS(1); /* of what comes afterwards */
    steer_expect(s, "conns", "\"label\":\"GET /report\"");
    uint64_t id = running(s);
    uint64_t ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_KILL, .call = id, .reason = "too slow"});
    fake_run(&s->one, FAKE_MS(300));
    fake_run(&s->two, FAKE_MS(300));
    assert_int_equal(fake_code(call), WEIR_CALL_CANCELLED);
    assert_non_null(strstr(weir_call_error(call)->message, "killed by "));
    assert_non_null(strstr(weir_call_error(call)->message, ": too slow"));
    steer_expect_done(s, ticket, 2); /* whoever has no part in it has done his */
    weir_call_free(call);
    ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_KILL, .call = id});
    fake_run(&s->one, FAKE_MS(300));
    fake_run(&s->two, FAKE_MS(300));
    weir_order_progress progress = steer_progress(s, ticket);
    assert_int_equal(progress.refused, 1);
    assert_non_null(strstr(progress.why, "runs any more"));
    fake_close(&s->one);
    fake_close(&s->two);
}

static void a_unit_that_holds_its_connection_is_killed_too(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    weir_call *unit = fake_begin(&s->one, (weir_request){.context = "a unit"});
    fake_run(&s->one, FAKE_MS(50));
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    steer_order(s, (weir_order){.kind = WEIR_ORDER_KILL, .call = running(s)});
    fake_run(&s->one, FAKE_MS(300));
    assert_int_equal(weir_call_status(unit), WEIR_ENDED);
    assert_int_equal(fake_code(unit), WEIR_CALL_CANCELLED);
    weir_call_free(unit);
    fake_run(&s->one, FAKE_MS(50));
    steer_expect_not(s, "conns", "\"state\":\"leased\"");
    fake_close(&s->one);
}

/* ---- policies ---------------------------------------------------------------------------------------------------- */

static void note_generation(void *ctx, uint64_t generation)
{
    *(uint64_t *)ctx = generation;
}

static void a_policy_from_outside_reaches_every_worker_and_their_word_comes_back(void **state)
{
    struct steer *s = *state;
    uint64_t told = 0;
    s->options.on_policy = note_generation;
    s->options.policy_ctx = &told;
    steer_begin(s);
    uint64_t ticket =
        steer_order(s, (weir_order){.kind = WEIR_ORDER_POLICY, .text = "return {}", .length = 9});
    fake_run(&s->one, FAKE_MS(600));
    assert_int_equal(told, 1);
    assert_int_equal(steer_progress(s, ticket).done, 0); /* it was told, and has not said yet */
    weir_policy_applied(s->one.engine, 1, NULL);
    steer_expect_done(s, ticket, 1);
    fake_run(&s->one, FAKE_MS(1100));
    steer_expect(s, "workers", "\"policy_generation\":1");
    ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_POLICY, .text = "return (", .length = 8});
    fake_run(&s->one, FAKE_MS(600));
    weir_policy_applied(s->one.engine, 2, "line 1: unexpected symbol");
    weir_order_progress progress = steer_progress(s, ticket);
    assert_int_equal(progress.refused, 1);
    assert_string_equal(progress.why, "line 1: unexpected symbol");
    fake_run(&s->one, FAKE_MS(1100));
    steer_expect(s, "workers", "\"policy_generation\":1"); /* the old one stays */
    fake_close(&s->one);
}

static void who_follows_no_policy_says_so(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    uint64_t ticket =
        steer_order(s, (weir_order){.kind = WEIR_ORDER_POLICY, .text = "return {}", .length = 9});
    fake_run(&s->one, FAKE_MS(600));
    weir_order_progress progress = steer_progress(s, ticket);
    assert_int_equal(progress.refused, 1);
    assert_non_null(strstr(progress.why, "does not follow policies"));
    fake_close(&s->one);
}

/* ---- who was there ----------------------------------------------------------------------------------------------- */

static void who_comes_later_finds_what_stands_and_repeats_nothing(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    steer_order(s, (weir_order){.kind = WEIR_ORDER_PAUSE, .pool = "anon@primary"});
    steer_order(s, (weir_order){.kind = WEIR_ORDER_RESIZE, .pool = "service@primary", .max = 1});
    uint64_t once = steer_order(s, (weir_order){.kind = WEIR_ORDER_RECONNECT});
    fake_run(&s->one, FAKE_MS(300));
    steer_open(s, &s->two);
    assert_int_equal(steer_call(&s->two), WEIR_CALL_OK);
    fake_run(&s->two, FAKE_MS(600));
    steer_expect_done(s, once, 1);          /* it was not there */
    steer_expect(s, "stats", "\"open\":1"); /* and has not closed its connection on the old order */
    weir_pool_view view;
    assert_true(weir_pool_now(s->two.engine, 0, &view));
    assert_int_equal(view.max, 1);
    weir_call *call = fake_submit(&s->two, (weir_request){.client = "anon", .claims = "{}"}, "select 1");
    fake_run(&s->two, FAKE_MS(50));
    assert_int_equal(fake_code(call), WEIR_CALL_PAUSED);
    weir_call_free(call);
    fake_close(&s->one);
    fake_close(&s->two);
}

static void what_stands_is_carried_into_an_area_of_another_size(void **state)
{
    struct steer *s = *state;
    s->options.area_size = 64 << 20;
    steer_begin(s);
    steer_order(s, (weir_order){.kind = WEIR_ORDER_PAUSE, .pool = "anon@primary"});
    steer_order(s, (weir_order){.kind = WEIR_ORDER_RESIZE, .pool = "service@primary", .max = 7});
    steer_order(s, (weir_order){.kind = WEIR_ORDER_FORCE,
                                .pool = "service@primary",
                                .state = WEIR_FORCED_OPEN,
                                .lasts_ns = FAKE_MS(2000)});
    fake_close(&s->one);
    s->options.area_size = 16 << 20;
    steer_open(s, &s->two);
    assert_int_equal(weir_area_look(s->area, s->why), WEIR_AREA_REPLACED);
    weir_area_detach(s->area);
    steer_attach(s);
    steer_expect(s, "stats", "\"connections\":{\"max\":7");
    steer_expect(s, "stats", "\"paused\":true");
    assert_int_equal(steer_call(&s->two), WEIR_CALL_BREAKER_OPEN);
    fake_run(&s->two, FAKE_MS(2500));
    assert_int_equal(steer_call(&s->two), WEIR_CALL_OK);
    uint64_t ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_RESUME});
    fake_run(&s->two, FAKE_MS(300));
    steer_expect_done(s, ticket, 1);
    fake_close(&s->two);
}

static void a_worker_that_died_holds_nothing_up(void **state)
{
    struct steer *s = *state;
    int ready[2];
    steer_begin(s);
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct fake *fake = calloc(1, sizeof *fake);
        fake_init(fake);
        fake_open(fake, &s->options);
        (void)!write(ready[1], "x", 1);
        pause();
        _exit(0);
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    uint64_t ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_RECONNECT});
    fake_run(&s->one, FAKE_MS(300));
    weir_order_progress progress = steer_progress(s, ticket);
    assert_int_equal(progress.workers, 2);
    assert_int_equal(progress.done, 1);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    steer_expect_done(s, ticket, 1); /* who is asked is who lives */
    (void)close(ready[0]);
    (void)close(ready[1]);
    fake_close(&s->one);
}

static void an_order_whose_giver_died_half_way_is_passed_over(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    struct wr_order_ring *ring = wr_area_common(s->one.engine->area);
    atomic_fetch_add(&ring->begun, 1); /* a ticket was drawn, and nothing came of it */
    uint64_t ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_RECONNECT});
    fake_run(&s->one, FAKE_MS(500));
    assert_int_equal(steer_progress(s, ticket).done, 0);
    fake_run(&s->one, FAKE_MS(1000));
    steer_expect_done(s, ticket, 1);
    fake_close(&s->one);
}

static void more_orders_than_the_ring_holds_leave_what_stands(void **state)
{
    struct steer *s = *state;
    uint64_t ticket = 0;
    steer_begin(s);
    for (uint32_t i = 1; i <= 100; i++)
        ticket = steer_order(s, (weir_order){.kind = WEIR_ORDER_RESIZE, .pool = "service@primary", .max = i});
    fake_run(&s->one, FAKE_MS(300));
    steer_expect_done(s, ticket, 1);
    steer_expect(s, "stats", "\"max\":100");
    assert_int_equal(steer_progress(s, 1).workers, 0); /* forgotten */
    assert_int_equal(steer_progress(s, ticket + 1).workers, 0);
    fake_close(&s->one);
}

/* What is to be done once is lost; what is done because something stands is done all the same. */
static void who_missed_orders_does_what_stands_asks_of_him(void **state)
{
    struct steer *s = *state;
    weir_call *calls[4];
    steer_begin(s);
    s->one.service_ns = FAKE_MS(5000);
    for (int i = 0; i < 4; i++)
        calls[i] = fake_submit(&s->one, (weir_request){.timeout_ns = FAKE_MS(9000)}, "select 1");
    fake_run(&s->one, FAKE_MS(100));
    steer_expect(s, "stats", "\"waiting\":2");
    steer_order(s, (weir_order){.kind = WEIR_ORDER_RESIZE, .pool = "service@primary", .max = 4});
    for (int i = 0; i < 100; i++)
        steer_order(s, (weir_order){.kind = WEIR_ORDER_PAUSE, .pool = "anon@primary"});
    fake_run(&s->one, FAKE_MS(300));
    steer_expect(s, "stats", "\"waiting\":0");
    for (int i = 0; i < 4; i++) {
        fake_run(&s->one, FAKE_MS(6000));
        weir_call_free(calls[i]);
    }
    steer_expect(s, "stats", "\"open\":4");
    steer_order(s, (weir_order){.kind = WEIR_ORDER_DRAIN, .pool = "service@primary"});
    for (int i = 0; i < 100; i++)
        steer_order(s, (weir_order){.kind = WEIR_ORDER_PAUSE, .pool = "anon@primary"});
    fake_run(&s->one, FAKE_MS(300));
    steer_expect_not(s, "stats", "\"open\":4");
    fake_close(&s->one);
}

/* The ring is full, and nothing in it is overwritten yet. */
static void as_many_orders_as_the_ring_holds_are_all_carried_out(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    steer_expect(s, "stats", "\"open\":1");
    uint64_t first = steer_order(s, (weir_order){.kind = WEIR_ORDER_RECONNECT, .pool = "service@primary"});
    for (int i = 1; i < WR_ORDERS; i++) steer_order(s, (weir_order){.kind = WEIR_ORDER_RESET});
    fake_run(&s->one, FAKE_MS(300));
    steer_expect_done(s, first, 1);
    steer_expect_not(s, "stats", "\"open\":1");
    fake_close(&s->one);
}

static void the_event_log_keeps_who_gave_an_order_and_why(void **state)
{
    struct steer *s = *state;
    char who[64];
    steer_begin(s);
    steer_order(s,
                (weir_order){.kind = WEIR_ORDER_PAUSE, .pool = "service@primary", .reason = "ticket 4711"});
    (void)snprintf(who, sizeof who, "(uid %u, process %ld): ticket 4711", (unsigned)geteuid(),
                   (long)getpid());
    steer_expect(s, "events", who);
    steer_expect(s, "events",
                 "\"kind\":\"operator\",\"worker\":0,\"pool\":\"service@primary\",\"text\":\"paused by ");
    fake_close(&s->one);
}

/* ---- who may not ------------------------------------------------------------------------------------------------- */

static void who_may_only_read_is_told_so(void **state)
{
    struct steer *s = *state;
    int status = 0;
    steer_open(s, &s->one);
    assert_int_equal(chmod(s->path, 0644), 0);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(2);
        if (geteuid() != 65534) (void)chmod(s->path, 0444);
        if (weir_area_attach(&s->area, s->path, s->why) != WEIR_OK) _exit(3);
        weir_order order = {.kind = WEIR_ORDER_PAUSE};
        if (weir_area_order(s->area, &order, NULL, s->why) != WEIR_ESYS) _exit(4);
        if (strstr(s->why, "steering needs write permission on the file") == NULL) _exit(5);
        if (weir_area_look(s->area, s->why) != WEIR_AREA_LIVE) _exit(6);
        if (strstr(steer_read(s, s->area, "stats"), "service@primary") == NULL) _exit(7);
        if (strstr(steer_read(s, s->area, "health"), "healthy") == NULL) _exit(8);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_close(&s->one);
}

static void a_child_gives_no_orders_in_its_parents_name(void **state)
{
    struct steer *s = *state;
    int status = 0;
    steer_open(s, &s->one);
    pid_t child = fork();
    if (child == 0) {
        weir_order order = {.kind = WEIR_ORDER_PAUSE};
        int code = weir_area_order(weir_engine_area(s->one.engine), &order, NULL, s->why);
        _exit(code == WEIR_ESTATE && strstr(s->why, "before a fork") != NULL ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_close(&s->one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        steer_test(paused_calls_are_refused_at_once_and_resumed_ones_go_on),
        steer_test(a_drained_pool_closes_connections_as_they_get_free),
        steer_test(those_who_wait_in_a_pool_that_is_made_larger_are_served_at_once),
        steer_test(a_smaller_pool_is_smaller_over_all_workers_together),
        steer_test(reconnecting_replaces_every_connection),
        steer_test(a_breaker_forced_open_refuses_at_once_and_those_who_wait_too),
        steer_test(a_state_forced_for_a_while_ends_by_itself),
        steer_test(the_same_in_private_memory_with_nobody_to_look),
        steer_test(orders_that_cannot_be_are_refused_with_a_sentence),
        steer_test(a_running_call_is_killed_by_the_id_that_is_shown),
        steer_test(a_unit_that_holds_its_connection_is_killed_too),
        steer_test(a_policy_from_outside_reaches_every_worker_and_their_word_comes_back),
        steer_test(who_follows_no_policy_says_so),
        steer_test(who_comes_later_finds_what_stands_and_repeats_nothing),
        steer_test(what_stands_is_carried_into_an_area_of_another_size),
        steer_test(a_worker_that_died_holds_nothing_up),
        steer_test(an_order_whose_giver_died_half_way_is_passed_over),
        steer_test(more_orders_than_the_ring_holds_leave_what_stands),
        steer_test(who_missed_orders_does_what_stands_asks_of_him),
        steer_test(as_many_orders_as_the_ring_holds_are_all_carried_out),
        steer_test(the_event_log_keeps_who_gave_an_order_and_why),
        steer_test(who_may_only_read_is_told_so),
        steer_test(a_child_gives_no_orders_in_its_parents_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
