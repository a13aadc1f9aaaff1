/* Segments: one flight each, identity, values, errors, transactions, resets. */
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
    struct session anon, service, pooled;
    struct wr_target *targets[3];
};

static int open_fixture(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const char *conninfo = server_conninfo(server, NULL);
    loop_open(&f->loop, weir_driver_pg(), 2);
    f->targets[0] = loop_target(&f->loop, &(struct wr_login){.pool = "anon@primary",
                                                             .conninfo = conninfo,
                                                             .user = "app_anon",
                                                             .role = "web_anon",
                                                             .kind = WEIR_ANON,
                                                             .prepared_max = 16});
    f->targets[1] = loop_target(&f->loop, &(struct wr_login){.pool = "service@primary",
                                                             .conninfo = conninfo,
                                                             .user = "app_service",
                                                             .prepared_max = 16});
    f->targets[2] = loop_target(&f->loop, &(struct wr_login){.pool = "pooled@primary",
                                                             .conninfo = conninfo,
                                                             .user = "app_anon",
                                                             .role = "web_anon",
                                                             .kind = WEIR_ANON,
                                                             .prepared_max = 16,
                                                             .pooler = true});
    assert_true(session_open(&f->anon, &f->loop, f->targets[0]));
    assert_true(session_open(&f->service, &f->loop, f->targets[1]));
    assert_true(session_open(&f->pooled, &f->loop, f->targets[2]));
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    session_close(&f->anon);
    session_close(&f->service);
    session_close(&f->pooled);
    for (int i = 0; i < 3; i++) f->loop.driver->target_free(f->targets[i]);
    loop_close(&f->loop);
    free(f);
    server_exec(server, "delete from contacts where name like 'new%'");
    return 0;
}

static const char alice[] = "{\"sub\":\"alice\"}", bob[] = "{\"sub\":\"bob\"}";

static struct wr_segment as_anon(enum wr_segment_kind kind, const char *claims,
                                 const weir_statement *statements, size_t count)
{
    return (struct wr_segment){.kind = kind,
                               .role = "web_anon",
                               .claims = claims,
                               .application = "GET /contacts",
                               .timeout_ms = 3000,
                               .statements = statements,
                               .count = count};
}

static const struct wr_reply *anon_query(struct session *session, const char *claims, const char *sql)
{
    struct weir_statement one = statement(sql);
    struct wr_segment segment = as_anon(WR_SEGMENT_SINGLE, claims, &one, 1);
    return session_run(session, &segment);
}

static const struct wr_reply *run(struct session *session, enum wr_segment_kind kind)
{
    return session_run(session, &(struct wr_segment){.kind = kind});
}

static const struct wr_reply *more(struct session *session, const char *sql)
{
    struct weir_statement one = statement(sql);
    return session_run(session, &(struct wr_segment){.kind = WR_SEGMENT_MORE,
                                                     .statements = &one,
                                                     .count = 1,
                                                     .want_xid = true});
}

/* What the server holds of the session at this moment, asked by the session itself without a preamble of
 * ours. */
static const char state_sql[] = "select concat_ws('|', current_user, current_setting('statement_timeout'), "
                                "current_setting('application_name'),"
                                " current_setting('request.jwt.claims', true))";

/* ---- SINGLE ---- */

static void a_single_sees_its_own_rows_only_and_leaves_nothing_behind(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        anon_query(&f->anon, alice, "select string_agg(name, ',') from contacts");
        assert_string_equal(session_value(&f->anon, 0), "a1,a2");
        anon_query(&f->anon, bob, "select string_agg(name, ',') from contacts");
        assert_string_equal(session_value(&f->anon, 0), "b1");
        assert_int_equal(f->anon.reply.transaction, 'I');
    }
    anon_query(&f->anon, alice, state_sql);
    assert_string_equal(session_value(&f->anon, 0), "web_anon|3s|GET /contacts|{\"sub\":\"alice\"}");
    run(&f->anon, WR_SEGMENT_PROBE);
    assert_string_equal(server_ask(server,
                                   "select application_name from pg_stat_activity where usename = 'app_anon' "
                                   "and application_name like 'anon%'"),
                        "anon@primary");
}

static void a_failed_single_leaves_nothing_behind_either(void **state)
{
    struct fixture *f = *state;
    struct weir_statement two[] = {statement("insert into contacts values ('alice', 'new')"),
                                   statement("select 1/0")};
    struct wr_segment segment = as_anon(WR_SEGMENT_SINGLE, alice, two, 2);
    const struct wr_reply *reply = session_run(&f->anon, &segment);
    assert_true(reply->failed);
    assert_string_equal(reply->fault.sqlstate, "22012");
    assert_string_equal(reply->fault.severity, "ERROR");
    assert_false(reply->fault.lost);
    assert_int_equal(reply->count, 1);
    assert_int_equal(reply->transaction, 'I');
    assert_int_equal(server_ask_number(server, "select count(*) from contacts where name = 'new'"), 0);
}

static void an_anon_link_runs_nothing_as_its_login(void **state)
{
    struct fixture *f = *state;
    struct weir_statement one = statement("select current_user");
    struct wr_fault fault;
    struct wr_segment segment = {.kind = WR_SEGMENT_SINGLE, .statements = &one, .count = 1};
    assert_int_not_equal(f->loop.driver->send(f->anon.link, &segment, &fault), WEIR_OK);
    assert_true(fault.lost);
    assert_non_null(strstr(fault.message, "role and claims"));
}

static void values_types_names_and_tags_come_back(void **state)
{
    struct fixture *f = *state;
    const char *values[] = {"7", NULL, "wörld"};
    struct weir_statement some = {
        .sql = "select $1::int8 as n, $2::text as nothing, $3::text as t, '\\x00ff'::bytea, 1.5",
        .values = values,
        .count = 3};
    session_run(&f->service,
                &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &some, .count = 1});
    const struct weir_result *result = &f->service.results[0];
    const struct wr_result_ops *ops = result->ops;
    size_t length = 99;
    assert_int_equal(ops->rows(result->handle), 1);
    assert_int_equal(ops->columns(result->handle), 5);
    assert_string_equal(ops->name(result->handle, 0), "n");
    assert_int_equal(ops->type(result->handle, 0), 20);
    assert_string_equal(weir_result_value(result, 0, 0, &length), "7");
    assert_int_equal(length, 1);
    assert_null(weir_result_value(result, 0, 1, &length));
    assert_int_equal(length, 0);
    assert_string_equal(weir_result_value(result, 0, 2, &length), "wörld");
    assert_int_equal(length, 6);
    assert_string_equal(weir_result_value(result, 0, 3, &length), "\\x00ff");
    assert_string_equal(ops->tag(result->handle), "SELECT 1");
    assert_null(weir_result_value(result, 1, 0, &length));
    assert_null(weir_result_value(result, 0, 5, &length));
    const char *row[6] = {[5] = "as it was"};
    size_t lengths[6] = {[5] = 9};
    assert_int_equal(weir_result_values(result, 0, 0, 6, row, lengths), 5);
    assert_string_equal(row[0], "7");
    assert_null(row[1]);
    assert_int_equal(lengths[1], 0);
    assert_int_equal(lengths[2], 6);
    assert_string_equal(row[4], "1.5");
    assert_string_equal(row[5], "as it was");
    assert_int_equal(weir_result_values(result, 0, 3, 1, row, lengths), 1);
    assert_string_equal(row[0], "\\x00ff");
    assert_int_equal(weir_result_values(result, 0, 5, 1, row, lengths), 0);
    assert_int_equal(weir_result_values(result, 1, 0, 1, row, lengths), 0);
    assert_int_equal(weir_result_values(NULL, 0, 0, 1, row, lengths), 0);
    assert_string_equal(ops->name(result->handle, 5), "");
    assert_int_equal(ops->type(result->handle, 5), 0);
    session_query(&f->service, "insert into contacts values ('x', 'new1'), ('x', 'new2')");
    assert_int_equal(f->service.results[0].ops->affected(f->service.results[0].handle), 2);
    assert_string_equal(f->service.results[0].ops->tag(f->service.results[0].handle), "INSERT 0 2");
}

static void binary_values_may_hold_zero_bytes(void **state)
{
    struct fixture *f = *state;
    const char *values[] = {"a\0b"};
    const int lengths[] = {3}, formats[] = {1};
    struct weir_statement some = {.sql = "select encode($1::bytea, 'hex')",
                                  .values = values,
                                  .lengths = lengths,
                                  .formats = formats,
                                  .count = 1};
    session_run(&f->service,
                &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &some, .count = 1});
    assert_string_equal(session_value(&f->service, 0), "610062");
}

static void an_error_carries_position_detail_and_hint(void **state)
{
    struct fixture *f = *state;
    session_query(&f->service, "select nme from contacts");
    assert_string_equal(f->service.reply.fault.sqlstate, "42703");
    assert_int_equal(f->service.reply.fault.position, 8);
    assert_non_null(strstr(f->service.reply.fault.hint, "contacts.name"));
    session_query(&f->service,
                  "do $$ begin raise exception 'no' using detail = 'why', errcode = '57P01'; end $$");
    assert_string_equal(f->service.reply.fault.sqlstate, "57P01");
    assert_string_equal(f->service.reply.fault.detail, "why");
    assert_false(f->service.reply.fault.lost);
    session_query(&f->service, "select 1");
    assert_false(f->service.reply.failed);
}

static void a_statement_timeout_ends_the_statement(void **state)
{
    struct fixture *f = *state;
    struct weir_statement one = statement("select pg_sleep(5)");
    struct wr_segment segment = as_anon(WR_SEGMENT_SINGLE, alice, &one, 1);
    segment.timeout_ms = 50;
    session_run(&f->anon, &segment);
    assert_string_equal(f->anon.reply.fault.sqlstate, "57014");
    segment.kind = WR_SEGMENT_SINGLE;
    segment.role = segment.claims = NULL;
    session_run(&f->service, &segment);
    assert_string_equal(f->service.reply.fault.sqlstate, "57014");
}

static void many_statements_travel_in_one_segment(void **state)
{
    struct fixture *f = *state;
    static struct weir_statement many[1000];
    for (int i = 0; i < 1000; i++) many[i] = statement("select generate_series(1, 20)");
    session_run(&f->service,
                &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = many, .count = 1000});
    assert_false(f->service.reply.failed);
    assert_int_equal(f->service.reply.count, 1000);
    assert_int_equal(f->service.results[999].ops->rows(f->service.results[999].handle), 20);
}

static void a_deferred_constraint_fails_at_the_end_of_a_single(void **state)
{
    struct fixture *f = *state;
    const char *insert = "insert into child values (99)";
    session_query(&f->service, insert);
    assert_true(f->service.reply.failed);
    assert_string_equal(f->service.reply.fault.sqlstate, "23503");
    assert_int_equal(f->service.reply.transaction, 'I');
    assert_int_equal(server_ask_number(server, "select count(*) from child"), 0);
    session_query(&f->service, "select 1");
    assert_string_equal(session_value(&f->service, 0), "1");
}

/* ---- the session's two settings ---- */

static const struct wr_reply *service_query(struct session *session, const char *sql, const char *application,
                                            uint64_t timeout_ms)
{
    struct weir_statement one = statement(sql);
    return session_run(session, &(struct wr_segment){.kind = WR_SEGMENT_SINGLE,
                                                     .application = application,
                                                     .timeout_ms = timeout_ms,
                                                     .statements = &one,
                                                     .count = 1});
}

static void service_settings_follow_each_call(void **state)
{
    static const char sql[] =
        "select current_setting('statement_timeout') || ' ' || current_setting('application_name')";
    struct fixture *f = *state;
    struct session *s = &f->service;
    service_query(s, sql, "job one", 2000);
    assert_string_equal(session_value(s, 0), "2s job one");
    service_query(s, sql, "job one", 1900); /* near enough: 2 s stands */
    assert_string_equal(session_value(s, 0), "2s job one");
    service_query(s, sql, "job two", 1900);
    assert_string_equal(session_value(s, 0), "2s job two");
    service_query(s, sql, "job two", 1500);
    assert_string_equal(session_value(s, 0), "1500ms job two");
    service_query(s, sql,
                  "j\xc3\xb6"
                  "b \xff\n",
                  2000);
    assert_string_equal(session_value(s, 0), "2s j??b ??");
    service_query(s, sql, NULL, 0);
    assert_string_equal(session_value(s, 0), "2s j??b ??");
}

static void a_failed_segment_takes_its_settings_with_it_and_the_book_knows(void **state)
{
    static const char sql[] =
        "select current_setting('statement_timeout') || ' ' || current_setting('application_name')";
    struct fixture *f = *state;
    struct session *s = &f->service;
    service_query(s, "select 1", "before", 9000);
    service_query(s, "select 1/0", "during", 1000);
    assert_true(s->reply.failed);
    service_query(s, sql, "during", 1000);
    assert_string_equal(session_value(s, 0), "1s during");
}

static void a_timeout_of_the_server_is_never_raised(void **state)
{
    struct fixture *f = *state;
    server_exec(server, "alter role app_service set statement_timeout = '4s'");
    session_close(&f->service);
    assert_true(session_open(&f->service, &f->loop, f->targets[1]));
    server_exec(server, "alter role app_service reset statement_timeout");
    service_query(&f->service, "show statement_timeout", "x", 60000);
    assert_string_equal(session_value(&f->service, 0), "4s");
    service_query(&f->service, "show statement_timeout", "x", 1000);
    assert_string_equal(session_value(&f->service, 0), "1s");
    service_query(&f->service, "show statement_timeout", "x", 60000);
    assert_string_equal(session_value(&f->service, 0), "4s");
}

static void what_cannot_run_in_a_transaction_runs_alone(void **state)
{
    struct fixture *f = *state;
    static const char *const alone[] = {"vacuum contacts", "create index concurrently ci on contacts(name)",
                                        "drop index concurrently ci",
                                        "/* note */ reindex table concurrently contacts"};
    for (unsigned i = 0; i < 12; i++) {
        char application[16];
        snprintf(application, sizeof application, "job %u", i);
        service_query(&f->service, alone[i % 4], application, 9000 - 2000 * (i % 3));
        if (f->service.reply.failed) fail_msg("%u: %s", i, f->service.reply.fault.message);
        assert_int_equal(f->service.reply.count, 1);
        service_query(&f->service, "show application_name", NULL, 0);
        assert_string_equal(session_value(&f->service, 0), application);
    }
}

static void behind_a_pooler_nothing_is_named_and_nothing_stays(void **state)
{
    struct fixture *f = *state;
    server_exec(server, "alter role web_anon set work_mem = '5MB'");
    session_close(&f->pooled);
    assert_true(session_open(&f->pooled, &f->loop, f->targets[2]));
    server_exec(server, "alter role web_anon reset work_mem");
    for (int i = 0; i < 3; i++) {
        anon_query(&f->pooled, alice,
                   "select current_setting('work_mem') || (select count(*) from contacts)");
        assert_string_equal(session_value(&f->pooled, 0), "5MB2");
        anon_query(&f->pooled, alice, "select count(*) from pg_prepared_statements");
        assert_string_equal(session_value(&f->pooled, 0), "0");
    }
    run(&f->pooled, WR_SEGMENT_PROBE);
    assert_string_equal(
        server_ask(server, "select application_name from pg_stat_activity where application_name like "
                           "'pooled%'"),
        "pooled@primary");
}

/* ---- units ---- */

static void a_unit_knows_its_transaction_id_once_it_writes(void **state)
{
    struct fixture *f = *state;
    struct session *s = &f->anon;
    struct weir_statement one = statement("select count(*) from contacts");
    struct wr_segment begin = as_anon(WR_SEGMENT_BEGIN, alice, &one, 1);
    begin.want_xid = true;
    begin.isolation = "repeatable read";
    session_run(s, &begin);
    assert_int_equal(s->reply.transaction, 'T');
    assert_string_equal(session_value(s, 0), "2");
    assert_true(s->reply.xid_asked);
    assert_int_equal(s->reply.xid, 0);
    more(s,
         "insert into contacts values ('alice', 'new') returning current_setting('transaction_isolation')");
    assert_string_equal(session_value(s, 0), "repeatable read");
    uint64_t xid = s->reply.xid;
    assert_true(s->reply.xid_asked && xid > 0);
    session_run(&f->service, &(struct wr_segment){.kind = WR_SEGMENT_XACT_STATUS, .xid = xid});
    assert_int_equal(f->service.reply.xact, WR_XACT_IN_PROGRESS);
    run(s, WR_SEGMENT_COMMIT);
    assert_true(s->reply.committed);
    assert_int_equal(s->reply.transaction, 'I');
    session_run(&f->service, &(struct wr_segment){.kind = WR_SEGMENT_XACT_STATUS, .xid = xid});
    assert_int_equal(f->service.reply.xact, WR_XACT_COMMITTED);
    assert_int_equal(server_ask_number(server, "select count(*) from contacts where name = 'new'"), 1);
}

static void the_fate_of_other_transactions_is_told(void **state)
{
    struct fixture *f = *state;
    struct session *s = &f->service;
    session_run(s, &(struct wr_segment){.kind = WR_SEGMENT_BEGIN, .want_xid = true});
    more(s, "insert into contacts values ('alice', 'new')");
    uint64_t xid = s->reply.xid;
    run(s, WR_SEGMENT_ROLLBACK);
    assert_int_equal(s->reply.transaction, 'I');
    session_run(s, &(struct wr_segment){.kind = WR_SEGMENT_XACT_STATUS, .xid = xid});
    assert_int_equal(s->reply.xact, WR_XACT_ABORTED);
    session_run(s, &(struct wr_segment){.kind = WR_SEGMENT_XACT_STATUS, .xid = xid + 1000000});
    assert_int_equal(s->reply.xact, WR_XACT_FUTURE);
    assert_false(s->reply.failed);
}

static void a_unit_declared_readonly_cannot_write(void **state)
{
    struct fixture *f = *state;
    struct wr_segment begin = as_anon(WR_SEGMENT_BEGIN, alice, NULL, 0);
    begin.readonly = true;
    session_run(&f->anon, &begin);
    assert_int_equal(f->anon.reply.transaction, 'T');
    more(&f->anon, "insert into contacts values ('alice', 'new')");
    assert_string_equal(f->anon.reply.fault.sqlstate, "25006");
    assert_int_equal(f->anon.reply.transaction, 'E');
    assert_false(f->anon.reply.xid_asked);
    run(&f->anon, WR_SEGMENT_ROLLBACK);
    assert_int_equal(f->anon.reply.transaction, 'I');
}

static void committing_a_failed_transaction_is_not_called_committed(void **state)
{
    struct fixture *f = *state;
    session_run(&f->service, &(struct wr_segment){.kind = WR_SEGMENT_BEGIN});
    more(&f->service, "insert into contacts values ('alice', 'new')");
    more(&f->service, "select 1/0");
    run(&f->service, WR_SEGMENT_COMMIT);
    assert_false(f->service.reply.committed);
    assert_false(f->service.reply.failed);
    assert_int_equal(f->service.reply.transaction, 'I');
    assert_int_equal(server_ask_number(server, "select count(*) from contacts where name = 'new'"), 0);
}

static void a_commit_without_a_transaction_is_refused(void **state)
{
    struct fixture *f = *state;
    struct wr_fault fault;
    assert_int_not_equal(f->loop.driver->send(f->service.link,
                                              &(struct wr_segment){.kind = WR_SEGMENT_COMMIT}, &fault),
                         WEIR_OK);
    assert_true(fault.lost);
    assert_non_null(strstr(fault.message, "no transaction"));
}

static void a_deferred_constraint_fails_at_commit(void **state)
{
    struct fixture *f = *state;
    session_run(&f->service, &(struct wr_segment){.kind = WR_SEGMENT_BEGIN});
    more(&f->service, "insert into child values (99)");
    assert_false(f->service.reply.failed);
    run(&f->service, WR_SEGMENT_COMMIT);
    assert_true(f->service.reply.failed);
    assert_string_equal(f->service.reply.fault.sqlstate, "23503");
    assert_false(f->service.reply.committed);
    assert_int_equal(f->service.reply.transaction, 'I');
}

static void a_unit_keeps_role_and_claims_until_it_ends(void **state)
{
    struct fixture *f = *state;
    struct wr_segment begin = as_anon(WR_SEGMENT_BEGIN, bob, NULL, 0);
    session_run(&f->anon, &begin);
    more(&f->anon, state_sql);
    assert_string_equal(session_value(&f->anon, 0), "web_anon|3s|GET /contacts|{\"sub\":\"bob\"}");
    struct weir_statement one = statement(state_sql);
    session_run(&f->anon, &(struct wr_segment){
                              .kind = WR_SEGMENT_MORE, .timeout_ms = 1000, .statements = &one, .count = 1});
    assert_string_equal(session_value(&f->anon, 0), "web_anon|1s|GET /contacts|{\"sub\":\"bob\"}");
    run(&f->anon, WR_SEGMENT_COMMIT);
    anon_query(&f->anon, "{}", state_sql);
    assert_string_equal(session_value(&f->anon, 0), "web_anon|3s|GET /contacts|{}");
}

/* ---- notices, COPY, reset ---- */

static void notices_are_kept_within_bounds(void **state)
{
    struct fixture *f = *state;
    session_query(
        &f->service,
        "do $$ begin for i in 1..5000 loop raise notice 'n% %', i, repeat('x', 5000); end loop; end $$");
    const struct weir_result *result = &f->service.results[0];
    assert_false(f->service.reply.failed);
    assert_int_equal(result->ops->notices(result->handle), 32);
    assert_memory_equal(result->ops->notice(result->handle, 0), "NOTICE: n1 xxx", 14);
    assert_int_equal(strlen(result->ops->notice(result->handle, 0)), 255);
    assert_string_equal(result->ops->notice(result->handle, 31), "WARNING: 4969 more notices were dropped");
    assert_string_equal(result->ops->notice(result->handle, 32), "");
    session_query(&f->service, "drop table if exists nothing");
    result = &f->service.results[0];
    assert_int_equal(result->ops->notices(result->handle), 1);
    assert_string_equal(result->ops->notice(result->handle, 0),
                        "NOTICE: table \"nothing\" does not exist, skipping");
    assert_string_equal(result->ops->tag(result->handle), "DROP TABLE");
    session_query(&f->service, "select 1");
    result = &f->service.results[0];
    assert_int_equal(result->ops->notices(result->handle), 0);
}

static void a_copy_is_refused_and_costs_the_link(void **state)
{
    struct fixture *f = *state;
    session_query(&f->service, "copy contacts to stdout");
    assert_true(f->service.reply.failed);
    assert_true(f->service.reply.fault.lost);
    assert_non_null(strstr(f->service.reply.fault.message, "COPY"));
    session_close(&f->service);
    assert_true(session_open(&f->service, &f->loop, f->targets[1]));
    session_query(&f->service, "copy contacts from stdin");
    assert_true(f->service.reply.fault.lost);
    assert_non_null(strstr(f->service.reply.fault.message, "COPY"));
}

static void dirt_is_reported(void **state)
{
    static const struct {
        const char *sql;
        bool dirty;
    } table[] = {{"select 1", false},
                 {"set work_mem = '1MB'", true},
                 {"set local work_mem = '1MB'", false},
                 {"listen x", true},
                 {"create temp table t1()", true},
                 {"select pg_advisory_lock(1)", true},
                 {"select pg_advisory_xact_lock(1)", false},
                 {"prepare p as select 1", true},
                 {"do $$ begin end $$", true},
                 {"insert into contacts values ('a', 'new set_config(')", false}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        session_query(&f->service, table[i].sql);
        assert_false(f->service.reply.failed);
        if (f->service.reply.dirty != table[i].dirty) fail_msg("%s", table[i].sql);
    }
}

static void a_reset_undoes_everything_but_our_prepared_statements(void **state)
{
    static const char *const dirt[] = {"set role web_anon",
                                       "set work_mem = '1MB'",
                                       "select pg_advisory_lock(42)",
                                       "listen news",
                                       "create temp table t1()",
                                       "set statement_timeout = '77s'",
                                       "set application_name = 'mine'",
                                       "set row_security = on",
                                       "set session characteristics as transaction read only"};
    struct fixture *f = *state;
    struct session *s = &f->service;
    for (int i = 0; i < 3; i++) service_query(s, "select 'kept'", "a job", 5000);
    for (size_t i = 0; i < sizeof dirt / sizeof *dirt; i++) {
        session_query(s, dirt[i]);
        if (s->reply.failed) fail_msg("%s: %s", dirt[i], s->reply.fault.message);
    }
    run(s, WR_SEGMENT_RESET);
    assert_false(s->reply.failed);
    assert_int_equal(s->reply.transaction, 'I');
    session_query(
        s, "select concat_ws('|', current_user, current_setting('work_mem'), current_setting('row_security'),"
           " current_setting('statement_timeout'), current_setting('application_name'),"
           " (select count(*) from pg_locks where locktype = 'advisory'), (select count(*) from"
           " pg_listening_channels()), to_regclass('pg_temp.t1') is null,"
           " current_setting('default_transaction_read_only'))");
    assert_string_equal(session_value(s, 0), "app_service|4MB|off|0|service@primary|0|0|t|off");
    assert_true(server_ask_number(server, "select 1") == 1);
    session_query(
        s, "select string_agg(statement, ',') from pg_prepared_statements where statement like '%kept%'"
           " and statement not like '%string_agg%'");
    assert_string_equal(session_value(s, 0), "select 'kept'");
    service_query(s, "select current_setting('statement_timeout') || current_setting('application_name')",
                  "a job", 5000);
    assert_string_equal(session_value(s, 0), "5sa job");
}

static void a_reset_takes_prepared_statements_of_the_caller_along(void **state)
{
    struct fixture *f = *state;
    struct session *s = &f->service;
    for (int i = 0; i < 3; i++) service_query(s, "select 'kept'", "a job", 5000);
    session_query(s, "prepare mine as select 1");
    run(s, WR_SEGMENT_RESET);
    assert_false(s->reply.failed);
    for (int i = 0; i < 4; i++) {
        service_query(s, "select 'kept'", "a job", 5000);
        assert_false(s->reply.failed);
        assert_string_equal(session_value(s, 0), "kept");
    }
    session_query(s, "select count(*) from pg_prepared_statements where name = 'mine'");
    assert_string_equal(session_value(s, 0), "0");
}

static void a_probe_proves_the_server_answers(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        run(&f->anon, WR_SEGMENT_PROBE);
        assert_false(f->anon.reply.failed);
        assert_int_equal(f->anon.reply.count, 0);
    }
}

/* A procedure that commits inside an implicit transaction ends role and claims with it, and goes on as the
 * login: tried without the refusal, the rows it wrote said web_anon first, then app_anon. */
static void a_procedure_cannot_escape_the_role_by_committing(void **state)
{
    struct fixture *f = *state;
    struct weir_statement call = statement("call escape()");
    struct wr_segment begin = as_anon(WR_SEGMENT_BEGIN, alice, &call, 1);
    session_run(&f->anon, &begin);
    assert_string_equal(f->anon.reply.fault.sqlstate, "2D000");
    run(&f->anon, WR_SEGMENT_ROLLBACK);
    struct wr_segment single = as_anon(WR_SEGMENT_SINGLE, alice, &call, 1);
    struct wr_fault fault;
    assert_int_not_equal(f->loop.driver->send(f->anon.link, &single, &fault), WEIR_OK);
    assert_non_null(strstr(fault.message, "CALL"));
    session_query(&f->service, "call escape()");
    assert_false(f->service.reply.failed);
    assert_string_equal(server_ask(server, "select string_agg(who, ',' order by n) from seen"),
                        "app_service,app_service");
}

/* ---- results of every size ---- */

static void a_large_result_and_a_large_value_pass(void **state)
{
    struct fixture *f = *state;
    char *large = malloc(20000001);
    memset(large, 'x', 20000000);
    large[20000000] = '\0';
    const char *values[] = {large};
    struct weir_statement some[] = {{.sql = "select length($1::text), repeat('y', 24000000), $1::text",
                                     .values = values,
                                     .count = 1},
                                    statement("select generate_series(1, 200000)")};
    session_run(&f->service, &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = some, .count = 2});
    assert_false(f->service.reply.failed);
    assert_string_equal(session_value(&f->service, 0), "20000000");
    assert_int_equal(f->service.results[1].ops->rows(f->service.results[1].handle), 200000);
    free(large);
}

static void the_steady_state_allocates_nothing(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++) {
        anon_query(&f->anon, alice, "select 1");
        service_query(&f->service, "select 1", "x", 1000);
    }
    long before = f->loop.allocations;
    unsigned watched = f->loop.watch_calls;
    for (int i = 0; i < 50; i++) {
        anon_query(&f->anon, alice, "select 1");
        service_query(&f->service, "select 1", "x", 1000);
    }
    assert_int_equal(f->loop.allocations, before);
    assert_int_equal(f->loop.watch_calls, watched);
}

static int start_server(void **state)
{
    (void)state;
    server = server_start(NULL);
    server_exec(
        server,
        "create role web_anon; create role app_anon login; grant web_anon to app_anon;"
        "create role app_service login bypassrls; grant web_anon to app_service;"
        "grant create on schema public to app_service;"
        "create table contacts(owner text, name text); alter table contacts owner to app_service;"
        "alter table contacts enable row level security; alter table contacts force row level security;"
        "create policy own on contacts using (owner = current_setting('request.jwt.claims')::json->>'sub');"
        "grant select, insert on contacts to web_anon;"
        "insert into contacts values ('alice', 'a1'), ('alice', 'a2'), ('bob', 'b1');"
        "create table parent(id int primary key);"
        "create table child(id int references parent deferrable initially deferred);"
        "grant all on parent, child to app_service;"
        "create table seen(n serial, who text); grant all on seen to public; grant all on seen_n_seq to "
        "public;"
        "create procedure escape() language plpgsql as $$ begin insert into seen(who) values (current_user); "
        "commit;"
        " insert into seen(who) values (current_user); commit; end $$");
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
        TEST(a_single_sees_its_own_rows_only_and_leaves_nothing_behind),
        TEST(a_failed_single_leaves_nothing_behind_either),
        TEST(an_anon_link_runs_nothing_as_its_login),
        TEST(values_types_names_and_tags_come_back),
        TEST(binary_values_may_hold_zero_bytes),
        TEST(an_error_carries_position_detail_and_hint),
        TEST(a_statement_timeout_ends_the_statement),
        TEST(many_statements_travel_in_one_segment),
        TEST(a_deferred_constraint_fails_at_the_end_of_a_single),
        TEST(service_settings_follow_each_call),
        TEST(a_failed_segment_takes_its_settings_with_it_and_the_book_knows),
        TEST(a_timeout_of_the_server_is_never_raised),
        TEST(what_cannot_run_in_a_transaction_runs_alone),
        TEST(behind_a_pooler_nothing_is_named_and_nothing_stays),
        TEST(a_unit_knows_its_transaction_id_once_it_writes),
        TEST(the_fate_of_other_transactions_is_told),
        TEST(a_unit_declared_readonly_cannot_write),
        TEST(committing_a_failed_transaction_is_not_called_committed),
        TEST(a_commit_without_a_transaction_is_refused),
        TEST(a_deferred_constraint_fails_at_commit),
        TEST(a_unit_keeps_role_and_claims_until_it_ends),
        TEST(notices_are_kept_within_bounds),
        TEST(a_copy_is_refused_and_costs_the_link),
        TEST(dirt_is_reported),
        TEST(a_reset_undoes_everything_but_our_prepared_statements),
        TEST(a_reset_takes_prepared_statements_of_the_caller_along),
        TEST(a_probe_proves_the_server_answers),
        TEST(a_procedure_cannot_escape_the_role_by_committing),
        TEST(a_large_result_and_a_large_value_pass),
        TEST(the_steady_state_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, start_server, free_server);
}
