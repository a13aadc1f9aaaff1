/* What the text of a statement tells, and what must not fool it. */
#include "base/sqlmemo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_statement_is_known_by_its_first_words(void **state)
{
    static const struct {
        const char *sql;
        enum wr_sql_kind kind;
    } table[] = {
        {"select 1", WR_SQL_PLAIN},
        {"", WR_SQL_EMPTY},
        {" \n\t;;-- x\n/* y */ (", WR_SQL_EMPTY},
        {"begin", WR_SQL_TRANSACTION},
        {"BEGIN;", WR_SQL_TRANSACTION},
        {"start transaction", WR_SQL_TRANSACTION},
        {"commit", WR_SQL_TRANSACTION},
        {"CoMmIt AND CHAIN", WR_SQL_TRANSACTION},
        {"end", WR_SQL_TRANSACTION},
        {"abort", WR_SQL_TRANSACTION},
        {"rollback", WR_SQL_TRANSACTION},
        {"rollback work", WR_SQL_TRANSACTION},
        {"rollback to s", WR_SQL_SAVEPOINT},
        {"rollback work to savepoint s", WR_SQL_SAVEPOINT},
        {"rollback /* x */ transaction -- y\n to s", WR_SQL_SAVEPOINT},
        {"rollback prepared 'to'", WR_SQL_TRANSACTION},
        {"commit prepared 'x'", WR_SQL_TRANSACTION},
        {"prepare transaction 'x'", WR_SQL_TRANSACTION},
        {"prepare transactions as select 1", WR_SQL_PLAIN},
        {"prepare p as select 1", WR_SQL_PLAIN},
        {"savepoint s", WR_SQL_SAVEPOINT},
        {"release s", WR_SQL_SAVEPOINT},
        {"call p()", WR_SQL_CALL},
        {"do $$ begin end $$", WR_SQL_CALL},
        {"copy t to stdout", WR_SQL_COPY},
        {"\"commit\"", WR_SQL_PLAIN},
        {"-- select\ncommit", WR_SQL_TRANSACTION},
        {"/* /* nested */ select */ commit", WR_SQL_TRANSACTION},
        {";;; commit", WR_SQL_TRANSACTION},
        {"((select 1))", WR_SQL_PLAIN},
        {"commits", WR_SQL_PLAIN},
        {"commit_log", WR_SQL_PLAIN},
        {"commit$1", WR_SQL_PLAIN},
        {"/* never closed commit", WR_SQL_EMPTY},
        {"-- never closed", WR_SQL_EMPTY},
        {"with x as (select 1) select * from x", WR_SQL_PLAIN},
        {"commit/**/work", WR_SQL_TRANSACTION},
        {"/**/commit", WR_SQL_TRANSACTION},
        {"\fcommit", WR_SQL_TRANSACTION},
        {"\xc3\xa4 commit", WR_SQL_PLAIN},
        {"/", WR_SQL_PLAIN},
        {"-", WR_SQL_PLAIN},
        {"/*", WR_SQL_EMPTY},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (wr_sql_classify(table[i].sql) != table[i].kind) fail_msg("%s", table[i].sql);
    }
}

static void what_stays_in_the_session_is_suspected(void **state)
{
    static const char *const dirty[] = {
        "set work_mem = 1",
        "SET SESSION x.y = 1",
        "set session characteristics as transaction read only",
        "set time zone 'UTC'",
        "set role x",
        "reset all",
        "listen x",
        "unlisten *",
        "prepare p as select 1",
        "execute p",
        "deallocate p",
        "discard all",
        "load 'x'",
        "call p()",
        "do $$ begin end $$",
        "create temp table t()",
        "create temporary view v as select 1",
        "create or replace temp view v as select 1",
        "create local temporary sequence s",
        "select 1 into temp t",
        "select 1 into temporary table t",
        "declare c cursor with hold for select 1",
        "select set_config('a.b', 'c', false)",
        "select pg_catalog.SET_CONFIG('a','b',true)",
        "select pg_advisory_lock(1)",
        "select pg_try_advisory_lock(1, 2)",
        "select pg_advisory_lock_shared(1)",
        "select \"set_config\"('a','b',false)",
        "select U&\"set\\005fconfig\"('a','b')",
        "/* x */ set a = 1",
        "(select set_config('a','b',false))",
        "create table pg_temp.x()",
        "select setseed(0.5)",
        "explain analyze execute p",
        "select '''', set_config('a','b',false)",
        "select $$ ' $$, set_config('a','b','f')",
        "select E'\\'', set_config('a','b',false)",
        "select '\\', set_config('a','b',false), '\\'",
        "select $1, set_config('a',$2,false)",
        "select $a$ $b$ $a$, set_config('x','y',false)",
        "select E'x'\n  '\\'', set_config('a','b',false), '",
        "select E'x' -- c\n '\\'', set_config('a','b',false), '",
        "select \"a\"\"b\", set_config('a','b',false)",
        "select 1/*'*/, set_config('a','b',false)",
        "select a$x$, set_config('a','b',false), b$x$ from t",
        "select 1 where x=$1 and set_config('$','$',false)='1'",
        "select 1-- '\n, set_config('a','b',false)",
        "with t as (select pg_advisory_lock(1)) select 1",
        "select become('web_anon')", /* who knows what is in there */
        "select * from app.remember ($1)",
        "select remember/* */('x')",
        "select remember -- why\n ('x')",
        "select app.lower('x')",
        "select \"lower\"('x')",
        "select sets('x'), key(1)",
        "update pg_settings set setting = 'x' where name = 'search_path'",
    };
    (void)state;
    for (size_t i = 0; i < sizeof dirty / sizeof *dirty; i++) {
        if (!wr_sql_may_dirty(dirty[i])) fail_msg("%s", dirty[i]);
    }
}

static void what_ends_with_its_transaction_is_not(void **state)
{
    static const char *const clean[] = {
        "",
        "select 1",
        "set local work_mem = 1",
        "set transaction read only",
        "set constraints all deferred",
        "select pg_advisory_xact_lock(1)",
        "select pg_try_advisory_xact_lock(1)",
        "update t set a = 1",
        "insert into t values (1) on conflict do nothing",
        "insert into t values (1) on conflict do update set a = 2",
        "select temp from sensors",
        "select 'set_config('",
        "select $$set_config($$",
        "select $x$ set_config $x$",
        "-- set_config\nselect 1",
        "/* pg_advisory_lock( */ select 1",
        "declare c cursor for select 1",
        "create table t(temp int, hold int)",
        "select current_setting('a')",
        "select my_set_config_x from t",
        "insert into contacts (id, name) values ($1, lower($2)) returning coalesce(name, '')",
        "select count(*), max(a) from t where b in (1, 2) group by (c)",
        "insert into t (id) values ($1) on conflict (id) do update set a = pg_catalog.lower($2)",
        "create table x (a int primary key, b int, foreign key (b) references y (c))",
        "select a from t group by (a) order by (a)",
        "with x (a) as (select now()) select a::numeric(10, 2) from x",
        "delete from listen",
        "select prepare from t",
        "notify x",
        "select E'\\' set_config'",
        "grant execute on function f to x",
        "select 1 as \"not_temp\"",
    };
    (void)state;
    for (size_t i = 0; i < sizeof clean / sizeof *clean; i++) {
        if (wr_sql_may_dirty(clean[i])) fail_msg("%s", clean[i]);
    }
}

static void some_statements_stand_alone(void **state)
{
    static const char *const alone[] = {"vacuum t",
                                        "(vacuum",
                                        "create index concurrently i on t(a)",
                                        "call p()",
                                        "/* x */ REINDEX table concurrently t",
                                        "alter system set a = 1"};
    static const char *const company[] = {"select 1", "insert into t values (1)",
                                          "with x as (select 1) select 1", ""};
    (void)state;
    for (size_t i = 0; i < sizeof alone / sizeof *alone; i++) assert_true(wr_sql_stands_alone(alone[i]));
    for (size_t i = 0; i < sizeof company / sizeof *company; i++)
        assert_false(wr_sql_stands_alone(company[i]));
}

static void a_comment_goes_ahead_of_the_end_and_only_where_there_is_none(void **state)
{
    static const struct {
        const char *sql, *behind; /* NULL: nowhere */
    } table[] = {
        {"select 1", "select 1"},
        {"select 1;", "select 1"},
        {"select 1 ; \n", "select 1"},
        {"select 1 ;; ", "select 1"},
        {"select ';'", "select ';'"},
        {"select \"a;\"", "select \"a;\""},
        {"select $$;$$;", "select $$;$$"},
        {"select '--'", "select '--'"},
        {"select '/* x */'", "select '/* x */'"},
        {"select \"--\"", "select \"--\""},
        {"select $a$ -- $a$", "select $a$ -- $a$"},
        {"select E'\\'--'", "select E'\\'--'"},
        {"select E'a'\n'--'", "select E'a'\n'--'"},
        {"select 4 - - 2", "select 4 - - 2"},
        {"select 4 / 2 * 3", "select 4 / 2 * 3"},
        {"select 1 -- x", NULL},
        {"select 1 --", NULL},
        {"select 1 -- x\n", NULL},
        {"select 1; -- x", NULL},
        {"-- x\nselect 1", NULL},
        {"/*+ SeqScan(t) */ select 1", NULL},
        {"select /**/ 1", NULL},
        {"select 1 /* x */;", NULL},
        {"select 1/*", NULL},
        {"select E'a' -- x\n'b'", NULL},
        {"select 'a' /* x */", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        size_t place = 0;
        bool found = wr_sql_comment_place(table[i].sql, &place);
        size_t wanted = table[i].behind == NULL ? 0 : strlen(table[i].behind);
        if (found != (table[i].behind != NULL) || (found && place != wanted))
            fail_msg("%s: %s, %zu", table[i].sql, found ? "there" : "nowhere", place);
    }
}

static void assert_recalled(struct wr_sql_memo *memo, const char *sql)
{
    struct wr_sql_facts told = wr_sql_facts(sql), recalled = wr_sql_recall(memo, sql);
    if (recalled.kind != told.kind || recalled.may_dirty != told.may_dirty ||
        recalled.stands_alone != told.stands_alone)
        fail_msg("%.60s: %d %d %d", sql, recalled.kind, recalled.may_dirty, recalled.stands_alone);
}

/* Texts of the same length and the same first, middle and last bytes share a place. */
static void no_text_gets_what_was_told_of_another(void **state)
{
    static const char *const alike[] = {
        "select 1 /* the text that all of these share */ + abs (1)",
        "select 1 /* the text that all of these share */ + bad (1)",
        "select 1 -- the text that all of these share */ + bad (1)",
        "vacuum t",
        "select 1",
        "call it ",
        "listen a",
        "commit",
        "select",
        "a",
        "",
    };
    struct wr_sql_memo *memo = calloc(1, sizeof *memo);
    (void)state;
    assert_non_null(memo);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof alike / sizeof *alike; i++) assert_recalled(memo, alike[i]);
    }
    char kept[WR_SQL_MEMO_TEXT + 2], other[WR_SQL_MEMO_TEXT + 2];
    for (size_t length = WR_SQL_MEMO_TEXT - 1; length <= WR_SQL_MEMO_TEXT + 1; length++) {
        memset(kept, ' ', length);
        memcpy(kept, "select 1", 8);
        kept[length] = '\0';
        memcpy(other, kept, sizeof other);
        memcpy(other + 700, "nextval(1)", 10);
        for (int round = 0; round < 2; round++) {
            assert_recalled(memo, kept);
            assert_recalled(memo, other);
        }
    }
    free(memo);
}

/* Every prefix of every text, so that each way of being cut short is tried; a sanitizer watches. */
static void no_text_however_cut_is_read_past_its_end(void **state)
{
    static const char text[] = "select E'\\'' \n 'x\\' U&\"a\" $t$ b $t /* /* */ -- c\n \"q\"\"r\" $1 $$ '";
    (void)state;
    for (size_t from = 0; from < sizeof text; from++) {
        for (size_t length = 0; from + length < sizeof text; length++) {
            char copy[sizeof text];
            memcpy(copy, text + from, length);
            copy[length] = '\0';
            wr_sql_classify(copy);
            wr_sql_may_dirty(copy);
            wr_sql_stands_alone(copy);
            size_t place = 0;
            if (wr_sql_comment_place(copy, &place)) assert_true(place <= length);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_statement_is_known_by_its_first_words),
        cmocka_unit_test(what_stays_in_the_session_is_suspected),
        cmocka_unit_test(what_ends_with_its_transaction_is_not),
        cmocka_unit_test(some_statements_stand_alone),
        cmocka_unit_test(a_comment_goes_ahead_of_the_end_and_only_where_there_is_none),
        cmocka_unit_test(no_text_gets_what_was_told_of_another),
        cmocka_unit_test(no_text_however_cut_is_read_past_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
