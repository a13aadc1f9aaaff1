/* Shared segments: what they may leave in the session, so that those after them need not say it again. */
#include "driver_loop.h"
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct server *server;

struct fixture {
    struct loop loop;
    struct session service;
    struct wr_target *target;
};

static void open_as(struct fixture *f, const char *user)
{
    f->target = loop_target(&f->loop, &(struct wr_login){.pool = "service@primary",
                                                         .conninfo = server_conninfo(server, NULL),
                                                         .user = user,
                                                         .prepared_max = 16});
    assert_true(session_open(&f->service, &f->loop, f->target));
}

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    loop_open(&f->loop, weir_driver_pg(), 2);
    open_as(f, "app_service");
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    session_close(&f->service);
    f->loop.driver->target_free(f->target);
    loop_close(&f->loop);
    free(f);
    return 0;
}

static const struct wr_reply *shared(struct session *session, const char *sql, const char *application)
{
    struct weir_statement one = statement(sql);
    return session_run(session, &(struct wr_segment){.kind = WR_SEGMENT_SINGLE,
                                                     .readonly = true,
                                                     .shared = true,
                                                     .application = application,
                                                     .timeout_ms = 5000,
                                                     .statements = &one,
                                                     .count = 1});
}

static const char *setting(struct fixture *f, const char *name)
{
    char sql[128];
    (void)snprintf(sql, sizeof sql, "select current_setting('%s')", name);
    assert_false(session_query(&f->service, sql)->failed);
    return session_value(&f->service, 0);
}

static const char *shared_setting(struct fixture *f, const char *name)
{
    char sql[128];
    (void)snprintf(sql, sizeof sql, "select current_setting('%s')", name);
    assert_false(shared(&f->service, sql, "app")->failed);
    return session_value(&f->service, 0);
}

static const char insert[] = "insert into contacts values ('x', 'written')";

static void each_is_read_only_with_or_without_being_told(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
        assert_string_equal(shared_setting(f, "statement_timeout"), "5s");
        assert_string_equal(shared_setting(f, "application_name"), "app");
        assert_true(shared(&f->service, insert, "app")->failed);
        assert_string_equal(f->service.reply.fault.sqlstate, "25006");
    }
}

static void from_the_second_on_nothing_is_said(void **state)
{
    struct fixture *f = *state;
    static const char preambles[] = "select sum(generic_plans + custom_plans) from pg_prepared_statements "
                                    "where statement ~ '^select pg_catalog'";
    char first[24];
    assert_false(shared(&f->service, preambles, "app")->failed);
    (void)snprintf(first, sizeof first, "%s", session_value(&f->service, 0));
    for (int i = 0; i < 3; i++) {
        assert_false(shared(&f->service, preambles, "app")->failed);
        assert_string_equal(session_value(&f->service, 0), first);
    }
}

static void note_sqlstate(struct session *session)
{
    char(*codes)[6] = session->user;
    (void)snprintf(codes[session->settled_times == 1 ? 0 : 1], 6, "%s", session->reply.fault.sqlstate);
}

static bool both_settled(void *of)
{
    return ((const struct session *)of)->settled_times == 2;
}

static void those_behind_the_first_are_read_only_whatever_becomes_of_it(void **state)
{
    struct fixture *f = *state;
    char codes[2][6] = {"", ""};
    struct weir_statement fails = statement("select 1/0 from pg_sleep(0.02)"), write = statement(insert);
    struct wr_segment segment = {.kind = WR_SEGMENT_SINGLE, .readonly = true, .shared = true, .count = 1};
    f->service.user = codes;
    f->service.on_settled = note_sqlstate;
    segment.statements = &fails;
    session_send(&f->service, &segment);
    segment.statements = &write;
    session_send(&f->service, &segment);
    assert_true(loop_until(&f->loop, both_settled, &f->service, 10000));
    assert_string_equal(codes[0], "22012");
    assert_string_equal(codes[1], "25006");
}

static void a_write_after_them_is_written(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
        assert_false(session_query(&f->service, insert)->failed);
        assert_string_equal(setting(f, "default_transaction_read_only"), "off");
    }
}

static void a_unit_after_them_writes(void **state)
{
    struct fixture *f = *state;
    struct weir_statement write = statement(insert);
    assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
    const struct wr_segment begin = {.kind = WR_SEGMENT_BEGIN, .statements = &write, .count = 1};
    assert_false(session_run(&f->service, &begin)->failed);
    assert_false(session_run(&f->service, &(struct wr_segment){.kind = WR_SEGMENT_COMMIT})->failed);
    assert_true(f->service.reply.committed);
}

static void what_stands_alone_after_them_stands_alone(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
    assert_false(session_query(&f->service, "vacuum contacts")->failed);
}

static void several_after_them_are_one_transaction(void **state)
{
    struct fixture *f = *state;
    struct weir_statement both[] = {statement("create database nobody"), statement("select 1")};
    assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
    const struct wr_segment segment = {.kind = WR_SEGMENT_SINGLE, .statements = both, .count = 2};
    assert_true(session_run(&f->service, &segment)->failed);
    assert_string_equal(f->service.reply.fault.sqlstate, "25001");
}

static void the_first_of_several_cannot_make_the_others_write(void **state)
{
    struct fixture *f = *state;
    struct weir_statement both[] = {statement("set transaction read write"), statement(insert)};
    for (int i = 0; i < 2; i++) {
        const struct wr_segment segment = {
            .kind = WR_SEGMENT_SINGLE, .readonly = true, .shared = true, .statements = both, .count = 2};
        assert_true(session_run(&f->service, &segment)->failed);
        assert_string_equal(f->service.reply.fault.sqlstate, "25001");
        assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
    }
}

static void a_session_that_was_made_writable_is_noticed(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
    static const char undo[] = "select set_config('default_transaction_read_only', 'off', false)";
    assert_false(shared(&f->service, undo, "app")->failed);
    assert_true(shared(&f->service, insert, "app")->failed);
    assert_string_equal(f->service.reply.fault.sqlstate, "25006");
}

static void a_reset_ends_it(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
    assert_false(session_run(&f->service, &(struct wr_segment){.kind = WR_SEGMENT_RESET})->failed);
    assert_false(session_query(&f->service, insert)->failed);
    assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
}

static void a_login_that_is_read_only_by_itself_stays_so(void **state)
{
    struct fixture *f = *state;
    session_close(&f->service);
    f->loop.driver->target_free(f->target);
    open_as(f, "app_reader");
    assert_string_equal(shared_setting(f, "transaction_read_only"), "on");
    assert_true(session_query(&f->service, insert)->failed);
    assert_string_equal(f->service.reply.fault.sqlstate, "25006");
    assert_string_equal(setting(f, "default_transaction_read_only"), "on");
}

static int start_server(void **state)
{
    (void)state;
    server = server_start(NULL);
    server_exec(server,
                "create role app_service login; create role app_reader login;"
                "alter role app_reader set default_transaction_read_only = on;"
                "create table contacts(owner text, name text); alter table contacts owner to app_service;"
                "grant all on contacts to app_reader");
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
        TEST(each_is_read_only_with_or_without_being_told),
        TEST(from_the_second_on_nothing_is_said),
        TEST(those_behind_the_first_are_read_only_whatever_becomes_of_it),
        TEST(a_write_after_them_is_written),
        TEST(a_unit_after_them_writes),
        TEST(what_stands_alone_after_them_stands_alone),
        TEST(several_after_them_are_one_transaction),
        TEST(the_first_of_several_cannot_make_the_others_write),
        TEST(a_session_that_was_made_writable_is_noticed),
        TEST(a_reset_ends_it),
        TEST(a_login_that_is_read_only_by_itself_stays_so),
    };
    return cmocka_run_group_tests(tests, start_server, free_server);
}
