/* Two servers, one of them frozen: it takes connects and cancels and never answers. Whoever has business with
 * the other must not notice. */
#include "driver_loop.h"
#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { HANGING = 8, HEALTHY = 6 };

static struct server *sick, *well;

static int start_servers(void **state)
{
    (void)state;
    sick = server_start(NULL);
    well = server_start(NULL);
    harness_schema(sick);
    harness_schema(well);
    return 0;
}

static int free_servers(void **state)
{
    (void)state;
    server_free(sick);
    server_free(well);
    return 0;
}

/* ---- the driver alone ---- */

struct fixture {
    struct loop loop;
    struct wr_target *to_sick, *to_well;
    struct session on_sick[HANGING], on_well[HEALTHY];
};

static struct wr_target *target_of(struct fixture *f, struct server *server)
{
    return loop_target(&f->loop, &(struct wr_login){.conninfo = server_conninfo(server, NULL)});
}

static struct fixture *open_fixture(uint32_t connect_at_once)
{
    struct fixture *f = calloc(1, sizeof *f);
    loop_open(&f->loop, weir_driver_pg(), connect_at_once);
    f->to_sick = target_of(f, sick);
    f->to_well = target_of(f, well);
    return f;
}

static void close_fixture(struct fixture *f)
{
    for (size_t i = 0; i < HANGING; i++) session_close(&f->on_sick[i]);
    for (size_t i = 0; i < HEALTHY; i++) session_close(&f->on_well[i]);
    f->loop.driver->target_free(f->to_sick);
    f->loop.driver->target_free(f->to_well);
    uint64_t before = f->loop.env.now_ns(NULL);
    loop_close(&f->loop);
    assert_true(f->loop.env.now_ns(NULL) - before < SECONDS(3));
    free(f);
}

static void connects_go_on(uint32_t connect_at_once)
{
    struct fixture *f = open_fixture(connect_at_once);
    server_freeze(sick);
    for (size_t i = 0; i < HANGING; i++) session_start(&f->on_sick[i], &f->loop, f->to_sick, SECONDS(5));
    loop_turn(&f->loop, 50);
    uint64_t before = f->loop.env.now_ns(NULL);
    for (size_t i = 0; i < HEALTHY; i++) assert_true(session_open(&f->on_well[i], &f->loop, f->to_well));
    assert_true(f->loop.env.now_ns(NULL) - before < SECONDS(2));
    for (size_t i = 0; i < HANGING; i++) {
        assert_false(f->on_sick[i].connected);
        f->loop.driver->forget(f->loop.instance, &f->on_sick[i]);
    }
    close_fixture(f);
    server_thaw(sick);
}

static void connects_that_hang_keep_nobody_else_waiting(void **state)
{
    (void)state;
    connects_go_on(4);
    connects_go_on(1);
    connects_go_on(16);
}

static void a_server_that_thaws_gets_all_its_connects(void **state)
{
    (void)state;
    struct fixture *f = open_fixture(2);
    server_freeze(sick);
    for (size_t i = 0; i < HANGING; i++) session_start(&f->on_sick[i], &f->loop, f->to_sick, SECONDS(10));
    loop_turn(&f->loop, 50);
    server_thaw(sick);
    for (size_t i = 0; i < HANGING; i++) {
        while (!f->on_sick[i].connected) loop_turn(&f->loop, 100);
        assert_non_null(f->on_sick[i].link);
    }
    close_fixture(f);
}

static void send_sleep(struct session *session)
{
    struct weir_statement sleep = statement("select pg_sleep(60)");
    session_send(session, &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &sleep, .count = 1});
}

static void cancel_within_a_second(struct fixture *f, struct session *session)
{
    uint64_t before = f->loop.env.now_ns(NULL);
    f->loop.driver->cancel(session->link);
    session_wait(session);
    assert_true(f->loop.env.now_ns(NULL) - before < SECONDS(1));
    assert_true(session->reply.failed);
    assert_string_equal(session->reply.fault.sqlstate, "57014");
}

static void cancels_that_hang_keep_nobody_else_waiting(void **state)
{
    (void)state;
    struct fixture *f = open_fixture(4);
    for (size_t i = 0; i < 2; i++) {
        assert_true(session_open(&f->on_sick[i], &f->loop, f->to_sick));
        assert_true(session_open(&f->on_well[i], &f->loop, f->to_well));
        send_sleep(&f->on_sick[i]);
        send_sleep(&f->on_well[i]);
    }
    loop_turn(&f->loop, 50);
    server_freeze(sick);
    for (size_t i = 0; i < 2; i++) f->loop.driver->cancel(f->on_sick[i].link);
    loop_turn(&f->loop, 50);
    for (size_t i = 0; i < 2; i++) cancel_within_a_second(f, &f->on_well[i]);
    for (size_t i = 0; i < 2; i++) assert_false(f->on_sick[i].settled);
    server_thaw(sick); /* whose cancels come through then, the one that waited its turn too */
    for (size_t i = 0; i < 2; i++) {
        session_wait(&f->on_sick[i]);
        assert_string_equal(f->on_sick[i].reply.fault.sqlstate, "57014");
    }
    close_fixture(f);
}

/* ---- with an engine ---- */

enum { CALLS = 20 };

static void note_end(void *user, weir_call *call)
{
    if (weir_call_status(call) == WEIR_ENDED) *(bool *)user = true;
}

static weir_engine *open_two(struct harness *h, weir_uv *uv, weir_backend two[2])
{
    static char first[512], second[512];
    char why[WEIR_WHY_MAX] = "";
    weir_engine *engine = NULL;
    harness_prepare(h, sick, NULL);
    snprintf(first, sizeof first, "%s", server_conninfo(sick, NULL));
    snprintf(second, sizeof second, "%s", server_conninfo(well, NULL));
    two[0] = (weir_backend){.name = "primary", .conninfo = first};
    two[1] = (weir_backend){.name = "second", .conninfo = second};
    h->options.backends = two;
    h->options.backend_count = 2;
    h->options.clients = h->clients;
    h->options.client_count = CLIENTS;
    h->options.connect_timeout_ns = SECONDS(3);
    assert_int_equal(weir_open(&engine, &h->options, weir_uv_hooks(uv), weir_driver_pg(), why), WEIR_OK);
    weir_uv_bind(uv, engine);
    return engine;
}

static weir_call *submit(weir_engine *engine, size_t client, const char *backend, bool *ended)
{
    char why[WEIR_WHY_MAX] = "";
    weir_call *call = NULL;
    weir_statement one = {.sql = "select 1"};
    weir_request request = {.client = client == ANON ? "anon" : "service",
                            .claims = client == ANON ? "{}" : NULL,
                            .context = "a test",
                            .backend = backend,
                            .timeout_ns = SECONDS(10),
                            .user = ended,
                            .notify = note_end};
    assert_int_equal(weir_submit(engine, &request, &one, 1, &call, why), WEIR_OK);
    return call;
}

static void a_call_on_a_healthy_backend_does_not_notice_a_mute_one(void **state)
{
    (void)state;
    struct harness h;
    weir_uv *uv = NULL;
    weir_backend two[2];
    weir_call *hanging[CALLS], *call;
    bool never = false, any = false, ended = false;
    assert_int_equal(weir_uv_new(&uv, NULL, 4711), WEIR_OK);
    weir_engine *engine = open_two(&h, uv, two);
    server_freeze(sick);
    for (size_t i = 0; i < CALLS; i++) hanging[i] = submit(engine, i % CLIENTS, "primary", &any);
    weir_uv_run_until(uv, &never, MS(100));
    call = submit(engine, SERVICE, "second", &ended);
    weir_uv_run_until(uv, &ended, SECONDS(1));
    assert_true(ended);
    assert_null(weir_call_error(call));
    assert_false(any);
    for (size_t i = 0; i < CALLS; i++) weir_call_free(hanging[i]);
    weir_call_free(call);
    weir_free(engine);
    weir_uv_free(uv);
    server_thaw(sick);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connects_that_hang_keep_nobody_else_waiting),
        cmocka_unit_test(a_server_that_thaws_gets_all_its_connects),
        cmocka_unit_test(cancels_that_hang_keep_nobody_else_waiting),
        cmocka_unit_test(a_call_on_a_healthy_backend_does_not_notice_a_mute_one),
    };
    return cmocka_run_group_tests(tests, start_servers, free_servers);
}
