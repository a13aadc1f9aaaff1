/* Several shared segments under way on one link: order, room, what is refused, what a loss and a lack of memory tell. */
#include "driver_loop.h"
#include "pg/link.h"
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <poll.h>
#include <signal.h>

static struct server *server;

enum { TAPE = 128 };

struct fixture {
    struct loop loop;
    struct session session;
    struct wr_target *target;
    char tape[TAPE][32]; /* first value or SQLSTATE of each answer */
    unsigned wanted;
    unsigned close_at; /* the answer at which the link is closed; 0: none */
};

static void write_down(struct session *session)
{
    struct fixture *f = session->user;
    const struct wr_reply *reply = &session->reply;
    char *line = f->tape[(session->settled_times - 1) % TAPE];
    snprintf(line, sizeof f->tape[0], "%.30s",
             reply->failed ? reply->fault.sqlstate : session_value(session, 0));
    if (session->settled_times == f->close_at) session_close(session);
}

static void open_session(struct fixture *f)
{
    assert_true(session_open(&f->session, &f->loop, f->target));
    f->session.on_settled = write_down;
    f->session.user = f;
}

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    loop_open(&f->loop, weir_driver_pg(), 2);
    f->target = loop_target(&f->loop, &(struct wr_login){.conninfo = server_conninfo(server, NULL),
                                                         .user = "postgres",
                                                         .prepared_max = 16});
    open_session(f);
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    session_close(&f->session);
    f->loop.driver->target_free(f->target);
    loop_close(&f->loop);
    free(f);
    return 0;
}

static int send_shared(struct fixture *f, const weir_statement *one, struct wr_fault *fault)
{
    struct wr_segment segment = {.kind = WR_SEGMENT_SINGLE,
                                 .readonly = true,
                                 .shared = true,
                                 .application = "shared",
                                 .timeout_ms = 60000,
                                 .statements = one,
                                 .count = 1};
    return f->loop.driver->send(f->session.link, &segment, fault);
}

static void share(struct fixture *f, const char *sql)
{
    struct weir_statement one = statement(sql);
    struct wr_fault fault = {.lost = false};
    assert_int_equal(send_shared(f, &one, &fault), WEIR_OK);
}

static bool has_room(const struct fixture *f)
{
    return f->loop.driver->has_room(f->session.link);
}

static bool enough_settled(void *arg)
{
    const struct fixture *f = arg;
    return f->session.settled_times >= f->wanted;
}

static void wait_for(struct fixture *f, unsigned answers)
{
    f->wanted = answers;
    assert_true(loop_until(&f->loop, enough_settled, f, 10000));
}

static pid_t backend(const struct fixture *f)
{
    return (pid_t)f->loop.driver->pid(f->session.link);
}

/* ---- order and room -------------------------------------------------------------------------------------------- */

static void answers_come_in_the_order_of_sending_and_errors_stay_where_they_are(void **state)
{
    struct fixture *f = *state;
    static const char *const sql[] = {"select 'a'", "select 1 / 0", "select 'b'",
                                      "selec",      "select 'c'",   "select 'a'"};
    static const char *const expected[] = {"a", "22012", "b", "42601", "c", "a"};
    for (int round = 0; round < 4; round++) { /* unnamed, prepared, executed by name */
        for (int i = 0; i < 6; i++) share(f, sql[i]);
        wait_for(f, 6 * (unsigned)(round + 1));
        for (int i = 0; i < 6; i++) assert_string_equal(f->tape[(round * 6 + i) % TAPE], expected[i]);
        assert_int_equal(f->session.reply.transaction, 'I');
    }
}

static void room_is_on_an_idle_link_and_behind_shared_segments_only(void **state)
{
    struct fixture *f = *state;
    struct weir_statement one = statement("select 'x'");
    assert_true(has_room(f));
    share(f, "select 'y'");
    assert_true(has_room(f));
    wait_for(f, 1);
    session_send(&f->session,
                 &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &one, .count = 1});
    assert_false(has_room(f));
    wait_for(f, 2);
    assert_true(has_room(f));
}

static void nothing_may_follow_a_cancel_until_it_is_confirmed(void **state)
{
    struct fixture *f = *state;
    share(f, "select pg_sleep(20)");
    f->loop.driver->cancel(f->session.link);
    assert_false(has_room(f));
    wait_for(f, 1);
    assert_string_equal(f->tape[0], "57014");
    assert_true(has_room(f));
    share(f, "select 'unhurt'");
    wait_for(f, 2);
    assert_string_equal(f->tape[1], "unhurt");
}

static void what_could_lose_something_is_refused_among_others(void **state)
{
    struct fixture *f = *state;
    struct weir_statement one = statement("select 1");
    struct wr_fault fault;
    struct wr_segment writes = {.kind = WR_SEGMENT_SINGLE, .shared = true, .statements = &one, .count = 1};
    share(f, "select 1");
    assert_int_equal(f->loop.driver->send(f->session.link, &writes, &fault), WEIR_ESYS);
    assert_non_null(strstr(fault.message, "read-only"));
    session_close(&f->session);
    open_session(f);
    share(f, "select 1");
    struct wr_segment begins = {.kind = WR_SEGMENT_BEGIN};
    assert_int_equal(f->loop.driver->send(f->session.link, &begins, &fault), WEIR_ESYS);
    assert_non_null(strstr(fault.message, "not idle"));
}

static void a_server_that_does_not_read_leaves_no_room_after_a_bounded_number_of_bytes(void **state)
{
    struct fixture *f = *state;
    static char text[60001];
    memset(text, 'x', sizeof text - 1);
    const char *values[] = {text};
    struct weir_statement one = {.sql = "select length($1)", .values = values, .count = 1};
    struct wr_fault fault;
    unsigned sent = 0;
    pid_t frozen = backend(f);
    server_signal(server, frozen, SIGSTOP);
    while (has_room(f) && sent < TAPE) {
        assert_int_equal(send_shared(f, &one, &fault), WEIR_OK);
        sent++;
    }
    server_signal(server, frozen, SIGCONT);
    assert_in_range(sent, 1, 100); /* what fits into the socket, and one more */
    assert_false(has_room(f));
    wait_for(f, sent);
    for (unsigned i = 0; i < sent; i++) assert_string_equal(f->tape[i], "60000");
    assert_true(has_room(f));
}

/* libpq reads while it writes to a full socket; the loop hears nothing of what came in that way. */
static void what_was_read_while_sending_is_told(void **state)
{
    struct fixture *f = *state;
    share(f, "select 'early'");
    struct pollfd socket = {.fd = f->session.link->fd, .events = POLLIN};
    assert_int_equal(poll(&socket, 1, 5000), 1);
    assert_int_equal(PQconsumeInput(f->session.link->conn), 1);
    share(f, "select pg_sleep(20)");
    wait_for(f, 1);
    assert_string_equal(f->tape[0], "early");
    f->loop.driver->cancel(f->session.link);
    wait_for(f, 2);
    assert_string_equal(f->tape[1], "57014");
}

/* ---- the end of it --------------------------------------------------------------------------------------------- */

static void a_link_closed_at_an_answer_tells_no_more(void **state)
{
    struct fixture *f = *state;
    f->close_at = 3;
    for (int i = 0; i < 10; i++) share(f, "select 'x'");
    wait_for(f, 3);
    loop_turn(&f->loop, 50);
    assert_int_equal(f->session.settled_times, 3);
    assert_null(f->session.link);
}

static void a_loss_is_told_once_with_the_oldest(void **state)
{
    struct fixture *f = *state;
    char sql[80];
    share(f, "select 'before'");
    share(f, "select pg_sleep(20)");
    for (int i = 0; i < 5; i++) share(f, "select 'never'");
    wait_for(f, 1);
    snprintf(sql, sizeof sql, "select pg_terminate_backend(%d)", (int)backend(f));
    server_exec(server, sql);
    wait_for(f, 2);
    loop_turn(&f->loop, 50);
    assert_int_equal(f->session.settled_times, 2);
    assert_string_equal(f->tape[0], "before");
    assert_string_equal(f->tape[1], "57P01");
    assert_true(f->session.reply.fault.lost);
    assert_false(has_room(f));
}

/* Whichever allocation fails, the answers that come are right and nothing is left behind. */
static void a_lack_of_memory_loses_the_link_at_most(void **state)
{
    struct fixture *f = *state;
    static const char *const sql[] = {"select '0'", "select '1'", "select '2'"};
    for (long k = 1; k < 60; k++) {
        session_close(&f->session);
        open_session(f);
        f->loop.refuse_at = f->loop.allocations + k;
        unsigned sent = 0;
        struct wr_fault fault = {.lost = false};
        for (int code = WEIR_OK; code == WEIR_OK && sent < 12;) {
            struct weir_statement one = statement(sql[sent % 3]);
            code = send_shared(f, &one, &fault);
            sent += code == WEIR_OK;
        }
        f->loop.refuse_at = 0;
        if (sent == 12) {
            wait_for(f, 12);
        } else {
            assert_true(fault.lost);
        }
        for (unsigned i = 0; i < f->session.settled_times; i++) assert_int_equal(f->tape[i][0], '0' + i % 3);
    }
}

static int start_server(void **state)
{
    (void)state;
    server = server_start(NULL);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    server_free(server);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers_come_in_the_order_of_sending_and_errors_stay_where_they_are),
        TEST(room_is_on_an_idle_link_and_behind_shared_segments_only),
        TEST(nothing_may_follow_a_cancel_until_it_is_confirmed),
        TEST(what_could_lose_something_is_refused_among_others),
        TEST(a_server_that_does_not_read_leaves_no_room_after_a_bounded_number_of_bytes),
        TEST(what_was_read_while_sending_is_told),
        TEST(a_link_closed_at_an_answer_tells_no_more),
        TEST(a_loss_is_told_once_with_the_oldest),
        TEST(a_lack_of_memory_loses_the_link_at_most),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
