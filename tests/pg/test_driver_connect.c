/* Connecting: what is found out on the way, what is refused, and what a failure says of itself. */
#include "driver_loop.h"
#include "server.h"

#include <setjmp.h>
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
    struct session session;
    struct wr_target *target;
};

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    loop_open(&f->loop, weir_driver_pg(), 4);
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

static bool connect_as(struct fixture *f, const struct wr_login *login)
{
    f->target = loop_target(&f->loop, login);
    return session_open(&f->session, &f->loop, f->target);
}

static bool connect_anon(struct fixture *f, const char *user, const char *role)
{
    return connect_as(f, &(struct wr_login){.pool = "anon@primary",
                                            .conninfo = server_conninfo(server, NULL),
                                            .user = user,
                                            .role = role,
                                            .kind = WEIR_ANON});
}

static bool connect_to(struct fixture *f, const char *conninfo)
{
    return connect_as(f, &(struct wr_login){.conninfo = conninfo});
}

/* ---- what a greeting brings ---- */

static void a_connect_tells_who_the_server_is(void **state)
{
    struct fixture *f = *state;
    assert_true(connect_to(f, server_conninfo(server, NULL)));
    const struct wr_greeting *greeting = &f->session.greeting;
    char system_id[32];
    snprintf(system_id, sizeof system_id, "%llu", (unsigned long long)greeting->system_id);
    assert_string_equal(system_id, server_ask(server, "select system_identifier from pg_control_system()"));
    assert_int_equal(greeting->timeline, 1);
    assert_false(greeting->in_recovery);
    assert_int_equal(greeting->server_version, server_ask_number(server, "show server_version_num"));
    assert_true(greeting->connect_ns > 0 && greeting->connect_ns < 5000000000u);
    assert_int_equal(greeting->backend_pid, f->loop.driver->pid(f->session.link));
    assert_int_equal(
        server_ask_number(server, "select pid from pg_stat_activity where application_name = 'test@primary'"),
        greeting->backend_pid);
}

static void a_promoted_standby_shows_the_new_timeline(void **state)
{
    struct fixture *f = *state;
    struct server *primary = server_start(NULL), *standby = server_standby(primary, NULL);
    assert_true(connect_to(f, server_conninfo(standby, NULL)));
    assert_true(f->session.greeting.in_recovery);
    assert_int_equal(f->session.greeting.timeline, 1);
    session_close(&f->session);
    server_promote(standby);
    assert_true(session_open(&f->session, &f->loop, f->target));
    assert_false(f->session.greeting.in_recovery);
    assert_int_equal(f->session.greeting.timeline, 2);
    session_close(&f->session);
    server_free(standby);
    server_free(primary);
}

static void a_service_session_would_rather_fail_than_be_filtered(void **state)
{
    struct fixture *f = *state;
    assert_true(
        connect_as(f, &(struct wr_login){.conninfo = server_conninfo(server, NULL), .user = "app_anon"}));
    const struct wr_reply *reply = session_query(&f->session, "select * from contacts");
    assert_true(reply->failed);
    assert_string_equal(reply->fault.sqlstate, "42501");
}

static void a_role_brings_its_own_settings_except_those_it_may_not_set(void **state)
{
    struct fixture *f = *state;
    server_exec(server,
                "alter role web_anon set work_mem = '5MB'; alter role web_anon set log_statement = 'none';"
                "alter role web_anon set client_encoding = 'LATIN1';"
                "alter role web_anon in database postgres set statement_timeout = '7s'");
    assert_true(connect_anon(f, "app_anon", "web_anon"));
    struct weir_statement asked[] = {statement("show work_mem"), statement("show client_encoding"),
                                     statement("show statement_timeout")};
    session_run(&f->session, &(struct wr_segment){.kind = WR_SEGMENT_SINGLE,
                                                  .role = "web_anon",
                                                  .claims = "{}",
                                                  .timeout_ms = 60000,
                                                  .statements = asked,
                                                  .count = 3});
    assert_string_equal(session_value(&f->session, 0), "5MB");
    assert_string_equal(session_value(&f->session, 1), "UTF8");
    assert_string_equal(session_value(&f->session, 2), "7s");
    server_exec(server, "alter role web_anon reset all; alter role web_anon in database postgres reset all");
}

/* ---- identity ---- */

struct refusal {
    const char *prepare, *user, *role, *says, *undo;
};

static void an_anon_login_that_could_get_around_row_security_is_refused(void **state)
{
    static const struct refusal table[] = {
        {"create role bad login superuser", "bad", "web_anon",
         "login bad may not be used for ANON: it is a superuser", ""},
        {"create role bad login bypassrls; grant web_anon to bad", "bad", "web_anon",
         "pool anon@primary: login bad may not be used for ANON: it has BYPASSRLS", ""},
        {"create role boss bypassrls; create role bad login; grant web_anon, boss to bad", "bad", "web_anon",
         "it is a member of boss, which has BYPASSRLS", "drop role boss;"},
        {"create role boss superuser; create role mid; grant boss to mid; create role bad login; grant "
         "web_anon, mid to bad",
         "bad", "web_anon", "it is a member of boss, which is a superuser", "drop role mid; drop role boss;"},
        {"create role boss bypassrls; create role bad login; grant boss to bad", "bad", "boss",
         "it is a member of boss, which has BYPASSRLS", "drop role boss;"},
        {"create role bad login createrole; grant web_anon to bad", "bad", "web_anon", "it has CREATEROLE",
         ""},
        {"create role bad login", "bad", "web_anon", "it is not a member of role web_anon", ""},
        {"create role bad login", "bad", "no such role", "role \"no such role\" does not exist", ""},
        {"create role bad login; grant web_anon to bad; create table owned(); alter table owned owner to bad;"
         "alter table owned enable row level security",
         "bad", "web_anon", "it owns owned, whose row-level security is enabled but not forced",
         "drop table owned;"},
        {"create role boss; create role bad login; grant web_anon, boss to bad; create table owned();"
         "alter table owned owner to boss; alter table owned enable row level security",
         "bad", "web_anon", "its role boss owns owned, whose", "drop table owned; drop role boss;"},
    };
    struct fixture *f = *state;
    /* Since 16 CREATEROLE reaches only what it was given ADMIN on. */
    bool since_16 = server_ask_number(server, "show server_version_num") >= 160000;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char undo[256];
        if (since_16 && strcmp(table[i].says, "it has CREATEROLE") == 0) continue;
        server_exec(server, table[i].prepare);
        assert_false(connect_anon(f, table[i].user, table[i].role));
        assert_true(f->session.fault.identity);
        assert_false(f->session.fault.unreachable);
        if (strstr(f->session.fault.message, table[i].says) == NULL)
            fail_msg("%zu: %s", i, f->session.fault.message);
        f->loop.driver->target_free(f->target);
        f->target = NULL;
        snprintf(undo, sizeof undo, "%s drop role bad", table[i].undo);
        server_exec(server, undo);
    }
}

static void an_anon_login_that_owns_forced_tables_is_welcome(void **state)
{
    struct fixture *f = *state;
    server_exec(server, "create role owner login; grant web_anon to owner; create table forced();"
                        "alter table forced owner to owner; alter table forced enable row level security;"
                        "alter table forced force row level security");
    assert_true(connect_anon(f, "owner", "web_anon"));
    session_close(&f->session);
    server_exec(server, "drop table forced; drop role owner");
}

static void a_server_that_reads_strings_differently_is_refused(void **state)
{
    struct fixture *f = *state;
    assert_false(connect_to(f, server_conninfo(server, "options='-c standard_conforming_strings=off'")));
    assert_non_null(strstr(f->session.fault.message, "standard_conforming_strings"));
    assert_false(f->session.fault.unreachable);
}

/* ---- failures ---- */

static void an_absent_server_is_unreachable(void **state)
{
    struct fixture *f = *state;
    assert_false(connect_to(f, "host=/tmp/no-such-directory dbname=x user=x"));
    assert_true(f->session.fault.unreachable);
    assert_true(f->session.fault.lost);
    assert_string_equal(f->session.fault.sqlstate, "");
    assert_null(strchr(f->session.fault.message, '\n'));
    f->loop.driver->target_free(f->target);
    assert_false(connect_to(f, "host=127.0.0.1 port=1 dbname=x user=x"));
    assert_true(f->session.fault.unreachable);
    assert_non_null(strstr(f->session.fault.message, "Connection refused"));
    f->loop.driver->target_free(f->target);
    assert_false(connect_to(f, "host=no.such.host.invalid dbname=x user=x"));
    assert_true(f->session.fault.unreachable);
}

static void a_wrong_database_has_its_sqlstate_and_a_plain_message(void **state)
{
    struct fixture *f = *state;
    assert_false(connect_to(f, server_conninfo(server, "dbname=nowhere")));
    assert_string_equal(f->session.fault.sqlstate, "3D000");
    assert_string_equal(f->session.fault.severity, "FATAL");
    assert_false(f->session.fault.unreachable);
    assert_non_null(strstr(f->session.fault.message, "FATAL: database \"nowhere\" does not exist"));
    assert_null(strstr(f->session.fault.message, "3D000"));
    assert_null(strstr(f->session.fault.message, "LOCATION"));
    assert_null(strstr(f->session.fault.message, ".c:"));
}

static void a_full_server_says_53300(void **state)
{
    struct fixture *f = *state;
    server_exec(server, "alter role app_service connection limit 0");
    assert_false(
        connect_as(f, &(struct wr_login){.conninfo = server_conninfo(server, NULL), .user = "app_service"}));
    assert_string_equal(f->session.fault.sqlstate, "53300");
    assert_false(f->session.fault.unreachable);
    server_exec(server, "alter role app_service connection limit -1");
}

static void a_frozen_server_is_given_up_at_the_deadline(void **state)
{
    struct fixture *f = *state;
    f->target = loop_target(&f->loop, &(struct wr_login){.conninfo = server_conninfo(server, NULL)});
    server_freeze(server);
    uint64_t before = f->loop.env.now_ns(NULL);
    session_start(&f->session, &f->loop, f->target, 200000000u);
    while (!f->session.connected) loop_turn(&f->loop, 100);
    uint64_t took = f->loop.env.now_ns(NULL) - before;
    server_thaw(server);
    assert_null(f->session.link);
    assert_true(f->session.fault.unreachable);
    assert_non_null(strstr(f->session.fault.message, "no connection within 0.2 s"));
    assert_true(took >= 200000000u && took < 400000000u);
}

static void a_wrong_password_is_tried_once(void **state)
{
    struct fixture *f = *state;
    struct server *guarded =
        server_start(&(struct server_options){.tcp = true,
                                              .tls = true,
                                              .config = "log_connections = on\n",
                                              .hba = "local all postgres trust\nhost all all 127.0.0.1/32 "
                                                     "scram-sha-256\nlocal all all scram-sha-256\n"});
    server_exec(guarded, "create role app login password 'right-password'");
    const struct wr_login wrong = {.conninfo = server_conninfo_tcp(guarded, NULL),
                                   .user = "app",
                                   .password = "wrong-password"};
    assert_false(connect_as(f, &wrong));
    assert_string_equal(f->session.fault.sqlstate, "28P01");
    assert_false(f->session.fault.unreachable);
    assert_null(strstr(f->session.fault.message, "wrong-password"));
    assert_int_equal(server_log_count(guarded, "password authentication failed"), 1);
    f->loop.driver->target_free(f->target);
    const struct wr_login right = {.conninfo = server_conninfo_tcp(guarded, NULL),
                                   .user = "app",
                                   .password = "right-password"};
    assert_true(connect_as(f, &right));
    session_query(&f->session, "select ssl from pg_stat_ssl where pid = pg_backend_pid()");
    assert_string_equal(session_value(&f->session, 0), "t");
    session_close(&f->session);
    server_free(guarded);
}

static void a_missing_line_in_pg_hba_falls_back_to_no_tls_as_libpq_does(void **state)
{
    struct fixture *f = *state;
    struct server *guarded = server_start(&(struct server_options){
        .tcp = true, .tls = true, .hba = "local all postgres trust\nhostnossl all all 127.0.0.1/32 trust\n"});
    assert_true(connect_to(f, server_conninfo_tcp(guarded, NULL)));
    session_close(&f->session);
    f->loop.driver->target_free(f->target);
    assert_false(connect_to(f, server_conninfo_tcp(guarded, "sslmode=require")));
    assert_string_equal(f->session.fault.sqlstate, "28000");
    server_free(guarded);
}

static void the_second_host_is_reached_when_the_first_is_dead(void **state)
{
    struct fixture *f = *state;
    char conninfo[512];
    snprintf(conninfo, sizeof conninfo,
             "host=/tmp/no-such-directory,%s port=1,%d dbname=postgres user=postgres",
             server_socket_dir(server), server_port(server));
    assert_true(connect_to(f, conninfo));
}

/* ---- conninfo ---- */

static void a_conninfo_is_refused_without_being_quoted(void **state)
{
    static const char *const bad[] = {
        "password=s3cr3t word",
        "password=s3cr3t word host=x",
        "postgres://u:s3cr3t%ZZ@host/db",
        "host=x s3cr3t",
        "postgres://u:a@s3cr3t@host/db",
        "postgres://u:a/s3cr3t@host/db",
        "postgres://u:1/s3cr3t@host",
        "postgres://u:p@host/db@s3cr3t",
        "postgresql://u:s3cr3t?x/@host",
        "port=s3cr3t",
        "host=a@s3cr3t",
        "postgres://u:s3cr3t/x@host",
        "client_encoding=s3cr3t",
        "replication=s3cr3t",
        "postgres://u:p@[s3cr3t",
        "password='s3cr3t",
        "nonsense=s3cr3t",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char why[WEIR_WHY_MAX] = "";
        struct wr_target *target = NULL;
        const struct wr_login login = {.pool = "p@b", .conninfo = bad[i]};
        assert_int_equal(f->loop.driver->target(f->loop.instance, &login, &target, why), WEIR_EINVAL);
        assert_null(target);
        assert_non_null(strstr(why, "conninfo: "));
        assert_null(strstr(why, "s3cr3t"));
    }
}

static void no_password_shows_in_any_failure_to_connect(void **state)
{
    static const char *const odd[] = {
        "host=/tmp/s3cr3t password=s3cr3t",
        "postgres://u:s3cr3t@127.0.0.1:1/s3cr3t",
        "host=s3cr3t.invalid password=s3cr3t user=s3cr3t",
        "host=127.0.0.1 port=1 user='s3cr3t' password='s3cr3t'",
        "postgres://u:s3cr3t%2Fx%40y@127.0.0.1:1/db",
        "host=127.0.0.1 port=1 sslmode=s3cr3t password=s3cr3t",
        "host=127.0.0.1 port=1 password=x sslpassword=s3cr3t target_session_attrs=s3cr3t",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        assert_false(connect_to(f, odd[i]));
        assert_null(strstr(f->session.fault.message, "s3cr3t"));
        f->loop.driver->target_free(f->target);
        f->target = NULL;
    }
}

static void an_anon_target_needs_a_role(void **state)
{
    struct fixture *f = *state;
    char why[WEIR_WHY_MAX] = "";
    struct wr_target *target = NULL;
    struct wr_login login = {.pool = "p@b", .conninfo = "", .kind = WEIR_ANON};
    assert_int_equal(f->loop.driver->target(f->loop.instance, &login, &target, why), WEIR_EINVAL);
    assert_non_null(strstr(why, "role: "));
    login.role = "none";
    assert_int_equal(f->loop.driver->target(f->loop.instance, &login, &target, why), WEIR_EINVAL);
}

/* ---- forgetting, stopping ---- */

static void a_connect_can_be_forgotten_at_any_moment(void **state)
{
    struct fixture *f = *state;
    struct session *many = calloc(40, sizeof *many);
    f->target = loop_target(&f->loop, &(struct wr_login){.conninfo = server_conninfo(server, NULL)});
    for (unsigned i = 0; i < 40; i++) {
        session_start(&many[i], &f->loop, f->target, 5000000000u);
        if (i % 3 == 0) usleep(i * 200);
        if (i % 4 == 0) loop_turn(&f->loop, 0);
        if (!many[i].connected) f->loop.driver->forget(f->loop.instance, &many[i]);
        if (many[i].link != NULL) session_close(&many[i]);
    }
    for (unsigned i = 0; i < 20; i++) loop_turn(&f->loop, 10);
    assert_true(server_wait(
        server, "select count(*) = 0 from pg_stat_activity where application_name = 'test@primary'", 3000));
    free(many);
}

static void forgotten_connects_to_a_frozen_server_free_their_turn_at_once(void **state)
{
    struct fixture *f = *state;
    struct session *many = calloc(12, sizeof *many);
    f->target = loop_target(&f->loop, &(struct wr_login){.conninfo = server_conninfo(server, NULL)});
    server_freeze(server);
    for (unsigned i = 0; i < 12; i++) session_start(&many[i], &f->loop, f->target, 30000000000u);
    usleep(50000);
    for (unsigned i = 0; i < 12; i++) f->loop.driver->forget(f->loop.instance, &many[i]);
    server_thaw(server);
    uint64_t before = f->loop.env.now_ns(NULL);
    assert_true(session_open(&f->session, &f->loop, f->target));
    assert_true(f->loop.env.now_ns(NULL) - before < 1000000000u);
    free(many);
}

static void stopping_calls_off_what_is_under_way(void **state)
{
    (void)state;
    struct loop loop;
    struct session sessions[6];
    loop_open(&loop, weir_driver_pg(), 2);
    struct wr_target *target =
        loop_target(&loop, &(struct wr_login){.conninfo = server_conninfo(server, NULL)});
    server_freeze(server);
    for (unsigned i = 0; i < 6; i++) session_start(&sessions[i], &loop, target, 30000000000u);
    usleep(30000);
    uint64_t before = loop.env.now_ns(NULL);
    loop.driver->target_free(target);
    loop_close(&loop);
    assert_true(loop.env.now_ns(NULL) - before < 1000000000u);
    server_thaw(server);
}

static void at_most_connect_at_once_are_under_way(void **state)
{
    struct fixture *f = *state;
    struct session *many = calloc(20, sizeof *many);
    f->target = loop_target(&f->loop, &(struct wr_login){.conninfo = server_conninfo(server, NULL)});
    for (unsigned i = 0; i < 20; i++) session_start(&many[i], &f->loop, f->target, 5000000000u);
    char path[64];
    snprintf(path, sizeof path, "ls /proc/%d/task | wc -l", (int)getpid());
    FILE *tasks = popen(path, "r");
    int threads = 0;
    assert_int_equal(fscanf(tasks, "%d", &threads), 1);
    pclose(tasks);
    assert_in_range(threads, 2, 6); /* four connectors, ourselves, and what a sanitizer adds */
    for (unsigned i = 0; i < 20; i++) {
        while (!many[i].connected) loop_turn(&f->loop, 100);
        assert_non_null(many[i].link);
        session_close(&many[i]);
    }
    free(many);
}

static int start_server(void **state)
{
    (void)state;
    server = server_start(NULL);
    server_exec(
        server,
        "create role web_anon; create role app_anon login; grant web_anon to app_anon;"
        "create role app_service login bypassrls;"
        "create table contacts(owner text, name text); alter table contacts enable row level security;"
        "create policy own on contacts using (owner = current_setting('request.jwt.claims')::json->>'sub');"
        "grant select on contacts to web_anon, app_anon");
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
        TEST(a_connect_tells_who_the_server_is),
        TEST(a_promoted_standby_shows_the_new_timeline),
        TEST(a_service_session_would_rather_fail_than_be_filtered),
        TEST(a_role_brings_its_own_settings_except_those_it_may_not_set),
        TEST(an_anon_login_that_could_get_around_row_security_is_refused),
        TEST(an_anon_login_that_owns_forced_tables_is_welcome),
        TEST(a_server_that_reads_strings_differently_is_refused),
        TEST(an_absent_server_is_unreachable),
        TEST(a_wrong_database_has_its_sqlstate_and_a_plain_message),
        TEST(a_full_server_says_53300),
        TEST(a_frozen_server_is_given_up_at_the_deadline),
        TEST(a_wrong_password_is_tried_once),
        TEST(a_missing_line_in_pg_hba_falls_back_to_no_tls_as_libpq_does),
        TEST(the_second_host_is_reached_when_the_first_is_dead),
        TEST(a_conninfo_is_refused_without_being_quoted),
        TEST(no_password_shows_in_any_failure_to_connect),
        TEST(an_anon_target_needs_a_role),
        TEST(a_connect_can_be_forgotten_at_any_moment),
        TEST(forgotten_connects_to_a_frozen_server_free_their_turn_at_once),
        TEST(stopping_calls_off_what_is_under_way),
        TEST(at_most_connect_at_once_are_under_way),
    };
    return cmocka_run_group_tests(tests, start_server, free_server);
}
