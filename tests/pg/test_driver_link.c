/* A link under stress: loss, cancel, stale statements, close at any time, nothing left behind. */
#include "driver_loop.h"
#include "server.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct server *server;

struct fixture {
    struct loop loop;
    struct session session, other;
    struct wr_target *target;
};

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_true(server_wait(server, "select true", 10000)); /* the test before may have crashed it */
    loop_open(&f->loop, weir_driver_pg(), 4);
    f->target = loop_target(&f->loop,
                            &(struct wr_login){.conninfo = server_conninfo(server, NULL), .prepared_max = 8});
    assert_true(session_open(&f->session, &f->loop, f->target));
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    server_thaw(server);
    session_close(&f->session);
    session_close(&f->other);
    f->loop.driver->target_free(f->target);
    loop_close(&f->loop);
    free(f);
    return 0;
}

static void send_one(struct session *session, const char *sql)
{
    static struct weir_statement one;
    one = statement(sql);
    session_send(session, &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &one, .count = 1});
}

static const struct wr_reply *begin(struct session *session, const char *sql)
{
    struct weir_statement one = statement(sql);
    return session_run(session, &(struct wr_segment){.kind = WR_SEGMENT_BEGIN,
                                                     .statements = &one,
                                                     .count = 1,
                                                     .want_xid = true});
}

static const struct wr_reply *run(struct session *session, enum wr_segment_kind kind)
{
    return session_run(session, &(struct wr_segment){.kind = kind});
}

static void terminate(struct fixture *f)
{
    char sql[96];
    snprintf(sql, sizeof sql, "select pg_terminate_backend(%u, 5000)", f->loop.driver->pid(f->session.link));
    server_exec(server, sql);
}

static void until_active(struct fixture *f, const struct session *session)
{
    char sql[160];
    snprintf(sql, sizeof sql,
             "select coalesce((select state = 'active' from pg_stat_activity where pid = %u), false)",
             f->loop.driver->pid(session->link));
    assert_true(server_wait(server, sql, 3000));
}

/* ---- loss ---- */

static void the_first_error_is_kept_when_the_backend_is_terminated(void **state)
{
    struct fixture *f = *state;
    send_one(&f->session, "select pg_sleep(30)");
    until_active(f, &f->session);
    terminate(f);
    session_wait(&f->session);
    assert_true(f->session.reply.failed);
    assert_true(f->session.reply.fault.lost);
    assert_string_equal(f->session.reply.fault.sqlstate, "57P01");
    assert_string_equal(f->session.reply.fault.severity, "FATAL");
    assert_int_equal(f->session.reply.transaction, '\0');
    assert_false(f->session.lost);
}

static void a_killed_backend_is_a_loss_without_or_with_57P02(void **state)
{
    struct fixture *f = *state;
    assert_true(session_open(&f->other, &f->loop, f->target));
    send_one(&f->session, "select pg_sleep(30)");
    send_one(&f->other, "select pg_sleep(30)");
    until_active(f, &f->session);
    until_active(f, &f->other); /* unread bytes in its socket would cost us its last words */
    server_signal(server, (pid_t)f->loop.driver->pid(f->session.link), SIGKILL);
    session_wait(&f->session);
    assert_true(f->session.reply.fault.lost);
    assert_string_equal(f->session.reply.fault.sqlstate, "");
    session_wait(&f->other);
    assert_true(f->other.reply.fault.lost);
    assert_string_equal(f->other.reply.fault.sqlstate, "57P02");
    assert_int_not_equal(f->other.reply.fault.message[0], '\0');
    while (!server_try(server, "select 1")) usleep(20000);
}

static void an_idle_link_hears_at_once_that_its_server_goes(void **state)
{
    struct fixture *f = *state;
    assert_true(session_open(&f->other, &f->loop, f->target));
    server_restart(server, SERVER_FAST);
    session_wait_lost(&f->session);
    session_wait_lost(&f->other);
    assert_true(f->session.fault.lost);
    assert_string_equal(f->session.fault.sqlstate, "57P01");
    assert_int_equal(f->session.lost_times, 1);
    assert_false(f->loop.driver->peek(f->session.link));
    session_close(&f->session);
    assert_true(session_open(&f->session, &f->loop, f->target));
}

static void a_peek_sees_a_dead_server_before_the_loop_does(void **state)
{
    struct fixture *f = *state;
    assert_true(f->loop.driver->peek(f->session.link));
    terminate(f);
    assert_false(f->loop.driver->peek(f->session.link));
}

static void a_peek_is_not_alarmed_by_a_notification(void **state)
{
    struct fixture *f = *state;
    session_query(&f->session, "listen news");
    server_exec(server, "notify news");
    usleep(50000);
    assert_true(f->loop.driver->peek(f->session.link));
    assert_true(f->loop.driver->peek(f->session.link));
    session_query(&f->session, "select 1");
    assert_string_equal(session_value(&f->session, 0), "1");
}

static void a_unit_that_idles_is_told_of_the_loss_too(void **state)
{
    struct fixture *f = *state;
    begin(&f->session, "select 1");
    terminate(f);
    session_wait_lost(&f->session);
    assert_string_equal(f->session.fault.sqlstate, "57P01");
}

static void a_send_into_a_dead_connection_ends_as_lost(void **state)
{
    struct fixture *f = *state;
    terminate(f);
    struct weir_statement one = statement("select 1");
    struct wr_fault fault;
    int code =
        f->loop.driver->send(f->session.link,
                             &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &one, .count = 1},
                             &fault);
    if (code == WEIR_OK) {
        session_wait(&f->session);
        fault = f->session.reply.fault;
    }
    assert_true(fault.lost);
}

/* ---- cancel ---- */

static void a_cancel_ends_the_statement(void **state)
{
    struct fixture *f = *state;
    send_one(&f->session, "select pg_sleep(30)");
    until_active(f, &f->session);
    f->loop.driver->cancel(f->session.link);
    f->loop.driver->cancel(f->session.link);
    session_wait(&f->session);
    assert_string_equal(f->session.reply.fault.sqlstate, "57014");
    assert_false(f->session.reply.fault.lost);
    assert_int_equal(f->session.reply.transaction, 'I');
}

static void a_cancel_that_comes_too_early_is_repeated(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 60; i++) {
        send_one(&f->session, "select pg_sleep(9)");
        f->loop.driver->cancel(f->session.link);
        session_wait(&f->session);
        assert_string_equal(f->session.reply.fault.sqlstate, "57014");
        session_query(&f->session, "select pg_sleep(0.001)");
        assert_false(f->session.reply.failed);
    }
}

static void a_settled_link_is_never_hit_by_a_late_cancel(void **state)
{
    struct fixture *f = *state;
    unsigned cancelled = 0;
    for (int i = 0; i < 400; i++) {
        send_one(&f->session, "select 1");
        f->loop.driver->cancel(f->session.link);
        usleep((unsigned)(i % 5) * 100); /* not begun, under way, long over */
        session_wait(&f->session);
        if (f->session.reply.failed) cancelled++;
        session_query(&f->session, "select pg_sleep(0.0005)");
        if (f->session.reply.failed) fail_msg("round %d: %s", i, f->session.reply.fault.message);
    }
    assert_true(cancelled < 400);
}

static void a_cancel_with_nothing_under_way_is_harmless(void **state)
{
    struct fixture *f = *state;
    f->loop.driver->cancel(f->session.link);
    for (int i = 0; i < 20; i++) {
        session_query(&f->session, "select pg_sleep(0.001)");
        assert_false(f->session.reply.failed);
    }
}

static void a_link_can_be_closed_while_its_cancel_runs(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 50; i++) {
        send_one(&f->session, "select pg_sleep(1)");
        f->loop.driver->cancel(f->session.link);
        if (i % 3 == 0) usleep((unsigned)i * 100);
        session_close(&f->session);
        assert_true(session_open(&f->session, &f->loop, f->target));
    }
    assert_true(server_wait(
        server, "select count(*) = 1 from pg_stat_activity where application_name = 'test@primary'", 5000));
}

static void the_outcome_is_told_even_if_the_server_dies_before_the_cancel_ends(void **state)
{
    struct fixture *f = *state;
    server_freeze(server); /* the postmaster alone: the cancel hangs, the backend goes on */
    send_one(&f->session, "select 42");
    f->loop.driver->cancel(f->session.link);
    usleep(50000); /* or it would be withdrawn before it has begun */
    for (int i = 0; i < 10; i++) loop_turn(&f->loop, 10);
    assert_false(f->session.settled);
    server_signal(server, (pid_t)f->loop.driver->pid(f->session.link), SIGTERM);
    for (int i = 0; i < 10; i++) loop_turn(&f->loop, 10);
    server_thaw(server);
    session_wait(&f->session);
    assert_false(f->session.reply.failed);
    assert_string_equal(session_value(&f->session, 0), "42");
    session_wait_lost(&f->session);
}

/* ---- a stopped backend ---- */

static void closing_a_link_to_a_frozen_backend_does_not_hang(void **state)
{
    struct fixture *f = *state;
    pid_t backend = (pid_t)f->loop.driver->pid(f->session.link);
    char *large = malloc(20000001);
    memset(large, 'x', 20000000);
    large[20000000] = '\0';
    const char *values[] = {large};
    struct weir_statement one = {.sql = "select length($1)", .values = values, .count = 1};
    server_signal(server, backend, SIGSTOP);
    uint64_t before = f->loop.env.now_ns(NULL);
    session_send(&f->session,
                 &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &one, .count = 1});
    for (int i = 0; i < 5; i++) loop_turn(&f->loop, 10);
    assert_false(f->session.settled);
    session_close(&f->session);
    assert_true(f->loop.env.now_ns(NULL) - before < 1000000000u);
    server_signal(server, backend, SIGCONT);
    free(large);
}

static void a_hanging_cancel_does_not_hang_the_stop(void **state)
{
    (void)state;
    struct loop loop;
    struct session session;
    loop_open(&loop, weir_driver_pg(), 2);
    struct wr_target *target =
        loop_target(&loop, &(struct wr_login){.conninfo = server_conninfo(server, NULL)});
    assert_true(session_open(&session, &loop, target));
    send_one(&session, "select pg_sleep(30)");
    server_freeze(server);
    loop.driver->cancel(session.link);
    usleep(20000);
    session_close(&session);
    loop.driver->target_free(target);
    uint64_t before = loop.env.now_ns(NULL);
    loop_close(&loop);
    uint64_t took = loop.env.now_ns(NULL) - before;
    server_thaw(server);
    assert_true(took < 3000000000u);
    usleep(100000);
}

/* ---- inside settled() ---- */

static void close_inside(struct session *session)
{
    session->loop->driver->close(session->link);
    session->link = NULL;
}

static void send_on_inside(struct session *session)
{
    struct wr_fault fault;
    static struct weir_statement one;
    one = statement("select 'second'");
    session->on_settled = NULL;
    session->settled = false;
    assert_int_equal(session->loop->driver->send(
                         session->link,
                         &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &one, .count = 1},
                         &fault),
                     WEIR_OK);
}

static void a_link_may_be_closed_inside_settled(void **state)
{
    struct fixture *f = *state;
    f->session.on_settled = close_inside;
    session_query(&f->session, "select 1");
    assert_string_equal(session_value(&f->session, 0), "1");
    assert_null(f->session.link);
    assert_true(server_wait(
        server, "select count(*) = 0 from pg_stat_activity where application_name = 'test@primary'", 3000));
}

static void a_link_may_be_sent_on_inside_settled(void **state)
{
    struct fixture *f = *state;
    f->session.on_settled = send_on_inside;
    session_query(&f->session, "select 'first'");
    assert_string_equal(session_value(&f->session, 0), "second");
    assert_int_equal(f->session.settled_times, 2);
}

/* ---- prepared statements ---- */

static long prepared(struct fixture *f)
{
    struct weir_statement one =
        statement("select count(*) from pg_prepared_statements where name like 'weir%'");
    session_run(&f->session, &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &one, .count = 1});
    return strtol(session_value(&f->session, 0), NULL, 10);
}

static void a_statement_is_prepared_at_its_second_use(void **state)
{
    struct fixture *f = *state;
    static const char sql[] = "select count(*) from pg_prepared_statements where statement like '%twice%'";
    session_query(&f->session, sql);
    assert_string_equal(session_value(&f->session, 0), "0");
    session_query(&f->session, sql);
    assert_string_equal(session_value(&f->session, 0), "1");
    session_query(&f->session, sql);
    assert_string_equal(session_value(&f->session, 0), "1");
}

static void no_more_are_prepared_than_allowed(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 200; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "select %d", (i / 2) % 25);
        session_query(&f->session, sql);
        assert_false(f->session.reply.failed);
        if (i % 10 == 9) assert_true(prepared(f) <= 8);
    }
    for (int i = 0; i < 4; i++) prepared(f);
    assert_int_equal(prepared(f), 8);
}

static void one_segment_with_more_texts_than_places_goes_through(void **state)
{
    struct fixture *f = *state;
    static char texts[40][32];
    static struct weir_statement many[40];
    for (int i = 0; i < 40; i++) {
        snprintf(texts[i], sizeof texts[i], "select %d", i);
        many[i] = statement(texts[i]);
    }
    for (int round = 0; round < 5; round++) {
        session_run(&f->session,
                    &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = many, .count = 40});
        assert_false(f->session.reply.failed);
        assert_int_equal(f->session.reply.count, 40);
        assert_string_equal(session_value(&f->session, 39), "39");
        assert_true(prepared(f) <= 8);
    }
}

static void a_failed_parse_leaves_the_book_right(void **state)
{
    struct fixture *f = *state;
    struct weir_statement some[] = {statement("select 'good'"), statement("select nonsense"),
                                    statement("select 'after'")};
    for (int i = 0; i < 5; i++) {
        session_run(&f->session,
                    &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = some, .count = 3});
        assert_string_equal(f->session.reply.fault.sqlstate, "42703");
        assert_false(f->session.reply.heal);
        session_query(&f->session, "select 'after'");
        assert_string_equal(session_value(&f->session, 0), "after");
        session_query(&f->session, "select 'good'");
        assert_string_equal(session_value(&f->session, 0), "good");
    }
}

/* The engine's part: again, once, when told so. */
static const struct wr_reply *run_healing(struct session *session, enum wr_segment_kind kind, const char *sql,
                                          bool *healed)
{
    struct weir_statement one = statement(sql);
    struct wr_segment segment = {.kind = kind, .statements = &one, .count = 1};
    session_run(session, &segment);
    *healed = session->reply.heal;
    return *healed ? session_run(session, &segment) : &session->reply;
}

static void a_cache_emptied_behind_our_back_heals(void **state)
{
    static const char *const emptied[] = {"deallocate all", "discard all", "deallocate weir_%",
                                          "do $$ begin execute 'deallocate all'; end $$"};
    struct fixture *f = *state;
    for (int i = 0; i < 12; i++) {
        bool healed = false;
        enum wr_segment_kind kind = i % 2 == 0 ? WR_SEGMENT_SINGLE : WR_SEGMENT_BEGIN;
        for (int k = 0; k < 3; k++) session_query(&f->session, "select 'mine'");
        char sql[96];
        snprintf(sql, sizeof sql, "%s", emptied[i % 4]);
        if (i % 4 == 2) {
            session_query(&f->session,
                          "select name from pg_prepared_statements where statement = 'select ''mine'''");
            snprintf(sql, sizeof sql, "deallocate %s", session_value(&f->session, 0));
        }
        session_query(&f->session, sql);
        if (f->session.reply.failed) fail_msg("%s: %s", sql, f->session.reply.fault.message);
        run_healing(&f->session, kind, "select 'mine'", &healed);
        assert_false(f->session.reply.failed);
        assert_string_equal(session_value(&f->session, 0), "mine");
        if (i % 4 >= 2) assert_true(healed);
        if (kind == WR_SEGMENT_BEGIN) run(&f->session, WR_SEGMENT_ROLLBACK);
    }
}

static void a_plan_that_changed_its_type_heals(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 6; i++) {
        bool healed = false;
        enum wr_segment_kind kind = i % 2 == 0 ? WR_SEGMENT_SINGLE : WR_SEGMENT_BEGIN;
        server_exec(server,
                    "drop table if exists shape; create table shape(a int); insert into shape values (1)");
        for (int k = 0; k < 3; k++) session_query(&f->session, "select * from shape");
        bool warm = false;
        run_healing(&f->session, WR_SEGMENT_SINGLE, "select * from shape", &warm);
        server_exec(server, "alter table shape alter a type text");
        run_healing(&f->session, kind, "select * from shape", &healed);
        assert_true(healed);
        assert_false(f->session.reply.failed);
        assert_string_equal(session_value(&f->session, 0), "1");
        assert_int_equal(f->session.reply.transaction, kind == WR_SEGMENT_BEGIN ? 'T' : 'I');
        if (kind == WR_SEGMENT_BEGIN) run(&f->session, WR_SEGMENT_ROLLBACK);
    }
}

static void a_stale_statement_inside_a_unit_is_just_an_error(void **state)
{
    struct fixture *f = *state;
    for (int k = 0; k < 3; k++) session_query(&f->session, "select 'mine'");
    session_query(&f->session, "do $$ begin execute 'deallocate all'; end $$");
    session_run(&f->session, &(struct wr_segment){.kind = WR_SEGMENT_BEGIN});
    struct weir_statement one = statement("select 'mine'");
    session_run(&f->session, &(struct wr_segment){.kind = WR_SEGMENT_MORE, .statements = &one, .count = 1});
    assert_string_equal(f->session.reply.fault.sqlstate, "26000");
    assert_false(f->session.reply.heal);
    assert_int_equal(f->session.reply.transaction, 'E');
    run(&f->session, WR_SEGMENT_ROLLBACK);
    session_query(&f->session, "select 'mine'");
    assert_string_equal(session_value(&f->session, 0), "mine");
}

static void names_already_taken_heal_by_doing_without(void **state)
{
    struct fixture *f = *state;
    for (int i = 1; i < 40; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "prepare weir_%d as select 'theirs'", i);
        session_query(&f->session, sql);
    }
    bool any = false;
    for (int i = 0; i < 5; i++) {
        bool healed = false;
        run_healing(&f->session, i == 2 ? WR_SEGMENT_BEGIN : WR_SEGMENT_SINGLE, "select 'mine'", &healed);
        assert_false(f->session.reply.failed);
        assert_string_equal(session_value(&f->session, 0), "mine");
        if (i == 2) run(&f->session, WR_SEGMENT_ROLLBACK);
        any = any || healed;
    }
    assert_true(any);
}

static void the_callers_own_execute_is_not_taken_for_ours(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 4; i++) {
        session_query(&f->session, "execute nothing_of_the_kind");
        assert_string_equal(f->session.reply.fault.sqlstate, "26000");
        assert_false(f->session.reply.heal);
    }
}

/* ---- TLS, and too little memory ---- */

static void tls_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct server *secure = server_start(&(struct server_options){.tcp = true, .tls = true});
    struct wr_target *target =
        loop_target(&f->loop, &(struct wr_login){.conninfo = server_conninfo_tcp(secure, "sslmode=require"),
                                                 .prepared_max = 8});
    assert_true(session_open(&f->other, &f->loop, target));
    f->loop.driver->target_free(target);
    for (int i = 0; i < 3; i++) {
        session_query(
            &f->other,
            "select repeat('x', 24000000), (select ssl from pg_stat_ssl where pid = pg_backend_pid())");
        assert_false(f->other.reply.failed);
        session_query(&f->other, "select i, repeat('y', 1000) from generate_series(1, 20000) i");
        assert_int_equal(f->other.results[0].ops->rows(f->other.results[0].handle), 20000);
    }
    assert_true(f->loop.driver->peek(f->other.link));
    send_one(&f->other, "select pg_sleep(9)");
    f->loop.driver->cancel(f->other.link);
    session_wait(&f->other);
    assert_string_equal(f->other.reply.fault.sqlstate, "57014");
    server_restart(secure, SERVER_FAST);
    session_wait_lost(&f->other);
    assert_string_equal(f->other.fault.sqlstate, "57P01");
    session_close(&f->other);
    server_free(secure);
}

/* Each allocation in turn is refused; whatever fails says so, and what was made is given back. */
static void a_lack_of_memory_fails_one_thing_and_leaks_nothing(void **state)
{
    struct fixture *f = *state;
    for (long k = 1; k < 60; k++) {
        f->loop.refuse_at = f->loop.allocations + k;
        if (!session_open(&f->other, &f->loop, f->target)) {
            assert_non_null(strstr(f->other.fault.message, "memory"));
            continue;
        }
        struct weir_statement some[20];
        for (int i = 0; i < 20; i++) some[i] = statement("do $$ begin raise notice 'x'; end $$");
        struct wr_segment segment = {.kind = WR_SEGMENT_BEGIN,
                                     .application = "x",
                                     .timeout_ms = 5000,
                                     .want_xid = true,
                                     .statements = some,
                                     .count = 20};
        struct wr_fault fault;
        if (f->loop.driver->send(f->other.link, &segment, &fault) == WEIR_OK) {
            session_wait(&f->other);
            assert_false(f->other.reply.failed);
            assert_int_equal(f->other.reply.count, 20);
        } else {
            assert_true(fault.lost);
        }
        session_close(&f->other);
    }
    f->loop.refuse_at = 0;
}

/* ---- nothing left ---- */

static int entries(const char *path)
{
    int count = 0;
    DIR *directory = opendir(path);
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count;
}

static void opening_and_closing_leaves_no_descriptor_and_no_thread(void **state)
{
    (void)state;
    server_ask(server, "select 1");
    int fds = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    for (int round = 0; round < 20; round++) {
        struct loop loop;
        struct session *some = calloc(5, sizeof *some);
        loop_open(&loop, weir_driver_pg(), 3);
        struct wr_target *target =
            loop_target(&loop, &(struct wr_login){.conninfo = server_conninfo(server, NULL)});
        for (int i = 0; i < 5; i++) assert_true(session_open(&some[i], &loop, target));
        send_one(&some[0], "select pg_sleep(30)");
        loop.driver->cancel(some[0].link);
        session_wait(&some[0]);
        for (int i = 0; i < 5; i++) session_close(&some[i]);
        loop.driver->target_free(target);
        loop_close(&loop);
        free(some);
    }
    assert_int_equal(entries("/proc/self/fd"), fds);
    assert_int_equal(entries("/proc/self/task"), threads);
}

static int start_server(void **state)
{
    (void)state;
    server = server_start(NULL);
    return 0;
}

static int free_server(void **state)
{
    (void)state;
    server_free(server);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_first_error_is_kept_when_the_backend_is_terminated),
        TEST(a_killed_backend_is_a_loss_without_or_with_57P02),
        TEST(an_idle_link_hears_at_once_that_its_server_goes),
        TEST(a_peek_sees_a_dead_server_before_the_loop_does),
        TEST(a_peek_is_not_alarmed_by_a_notification),
        TEST(a_unit_that_idles_is_told_of_the_loss_too),
        TEST(a_send_into_a_dead_connection_ends_as_lost),
        TEST(a_cancel_ends_the_statement),
        TEST(a_cancel_that_comes_too_early_is_repeated),
        TEST(a_settled_link_is_never_hit_by_a_late_cancel),
        TEST(a_cancel_with_nothing_under_way_is_harmless),
        TEST(a_link_can_be_closed_while_its_cancel_runs),
        TEST(the_outcome_is_told_even_if_the_server_dies_before_the_cancel_ends),
        TEST(closing_a_link_to_a_frozen_backend_does_not_hang),
        TEST(a_link_may_be_closed_inside_settled),
        TEST(a_link_may_be_sent_on_inside_settled),
        TEST(a_statement_is_prepared_at_its_second_use),
        TEST(no_more_are_prepared_than_allowed),
        TEST(one_segment_with_more_texts_than_places_goes_through),
        TEST(a_failed_parse_leaves_the_book_right),
        TEST(a_cache_emptied_behind_our_back_heals),
        TEST(a_plan_that_changed_its_type_heals),
        TEST(a_stale_statement_inside_a_unit_is_just_an_error),
        TEST(names_already_taken_heal_by_doing_without),
        TEST(the_callers_own_execute_is_not_taken_for_ours),
        TEST(tls_changes_nothing),
        TEST(a_lack_of_memory_fails_one_thing_and_leaks_nothing),
        cmocka_unit_test(opening_and_closing_leaves_no_descriptor_and_no_thread),
        cmocka_unit_test(
            a_hanging_cancel_does_not_hang_the_stop), /* last: it leaves a thread behind, as documented */
    };
    return cmocka_run_group_tests(tests, start_server, free_server);
}
