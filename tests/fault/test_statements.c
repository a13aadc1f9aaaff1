/* What a server may say to a statement, each for real: what heals by itself, what is tried again, what is
 * told at once. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct server *server;
    struct proxy *proxy;
    struct harness h;
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(&(struct server_options){.config = "deadlock_timeout = 20ms\n"});
    harness_schema(fixture.server);
    server_exec(fixture.server, "create table shape (a int); insert into shape values (1);"
                                "create table counters (id int primary key, n int not null);"
                                "insert into counters select i, 0 from generate_series(1, 4) i;"
                                "create table lately (id int unique deferrable initially deferred);"
                                "insert into lately values (1);"
                                "create procedure escapes() language plpgsql as $$ begin commit; end $$;"
                                "create function forgets() returns text language plpgsql as"
                                " $$ begin execute 'deallocate all'; return ''; end $$;"
                                "create function pretends(code text) returns text language plpgsql as"
                                " $$ begin raise exception 'not really' using errcode = code; end $$;"
                                "alter table shape owner to app_service;"
                                "grant all on shape, counters, lately to app_service, web_anon;");
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    return 0;
}

static void open_with(struct fixture *f, uint32_t max, uint32_t retries)
{
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = max;
    f->h.clients[SERVICE].queue_max = 100;
    f->h.options.retries = retries;
    harness_open(&f->h);
}

static void open_engine(struct fixture *f)
{
    open_with(f, 10, 20);
}

static struct job *service_unit(struct fixture *f, const char *sql)
{
    struct job *job = harness_unit(&f->h, SERVICE, "unit");
    job_step(job, "%s", sql);
    return job;
}

static long event(struct fixture *f, const char *name)
{
    return harness_stat(&f->h, "service@primary", "events", name);
}

/* ---- prepared statements --------------------------------------------------------------------- */

static void a_table_changed_under_load_makes_no_call_fail(void **state)
{
    struct fixture *f = *state;
    open_with(f, 10, 0);
    for (int round = 0; round < 10; round++) {
        struct job *jobs[60];
        for (int i = 0; i < 60; i++) {
            jobs[i] =
                i % 3 == 0 ? harness_unit(&f->h, SERVICE, "reads") : harness_call(&f->h, SERVICE, "reads");
            job_step(jobs[i], "select * from shape");
            job_start(jobs[i]);
        }
        harness_turn(&f->h, 1);
        struct job *ddl = harness_call(&f->h, SERVICE, "migration");
        job_step(ddl, "alter table shape add column c%d int", round);
        harness_run(&f->h, ddl);
        job_assert(ddl, WEIR_CALL_OK);
        harness_wait(&f->h);
        for (int i = 0; i < 60; i++) job_assert(jobs[i], WEIR_CALL_OK);
    }
    assert_true(event(f, "heals") > 10);
    harness_close(&f->h);
}

static void alter_between(struct job *job, size_t step)
{
    if (step == 0 && job->runs == 1)
        server_exec(job->harness->server, "alter table shape add column between_steps int");
}

static void a_plan_that_went_stale_inside_a_unit_is_cured_by_running_the_unit_again(void **state)
{
    struct fixture *f = *state;
    open_with(f, 1, 20);
    for (int i = 0; i < 2; i++) job_assert(harness_query(&f->h, "select * from shape"), WEIR_CALL_OK);
    struct job *job = service_unit(f, "insert into ledger values ('stale plan')");
    job_step(job, "select * from shape");
    job->on_reply = alter_between;
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    assert_int_equal(job->runs, 2);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger where id = 'stale plan'"), 1);
    harness_close(&f->h);
}

static void statements_thrown_away_behind_our_back_are_prepared_again(void **state)
{
    struct fixture *f = *state;
    static const char *const ways[] = {"deallocate all", "discard all", "select forgets()", "discard plans"};
    open_with(f, 1, 0);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        for (int times = 0; times < 3; times++)
            job_assert(harness_query(&f->h, "select count(*) from shape"), WEIR_CALL_OK);
        job_assert(harness_query(&f->h, ways[i]), WEIR_CALL_OK);
        job_assert(harness_query(&f->h, "select count(*) from shape"), WEIR_CALL_OK);
        struct job *unit = service_unit(f, "select count(*) from shape");
        harness_run(&f->h, unit);
        job_assert(unit, WEIR_CALL_OK);
    }
    harness_close(&f->h);
}

static void more_statements_than_are_kept_all_work(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = 2;
    f->h.options.prepared_max = 8;
    harness_open(&f->h);
    for (int i = 0; i < 400; i++) {
        struct job *job =
            i % 2 == 0 ? harness_call(&f->h, SERVICE, "many") : harness_unit(&f->h, SERVICE, "many");
        job_step(job, "select %d", i % 37);
        job_step(job, i % 11 == 0 ? "select 1 / 0" : "select %d + 100", i % 23);
        job_start(job);
        if (i % 8 == 7) harness_wait(&f->h);
        job->user = (void *)(intptr_t)i;
    }
    harness_wait(&f->h);
    for (struct job *job = f->h.jobs; job != NULL; job = job->next) {
        job_assert(job, (intptr_t)job->user % 11 == 0 ? WEIR_CALL_SERVER : WEIR_CALL_OK);
    }
    harness_close(&f->h);
}

/* ---- inside a unit --------------------------------------------------------------------------- */

static void an_error_that_was_swallowed_ends_as_aborted_and_not_as_committed(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    struct job *job = service_unit(f, "insert into ledger values ('swallowed')");
    job_step(job, "select 1 / 0");
    job_step(job, "insert into ledger values ('swallowed')");
    job->swallow = true;
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_ABORTED);
    assert_int_equal(job->outcome, WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(job->runs, 1);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger where id = 'swallowed'"), 0);
    harness_close(&f->h);
}

static void its_owner_may_roll_a_unit_back(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    struct job *job = service_unit(f, "insert into ledger values ('regretted')");
    job->finish = WEIR_ROLLBACK;
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_ROLLED_BACK);
    assert_int_equal(job->runs, 1);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger where id = 'regretted'"), 0);
    harness_close(&f->h);
}

static void code_blocks_run_in_units_and_may_not_commit_there(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    struct job *block = service_unit(f, "do $$ begin insert into ledger values ('block'); end $$");
    harness_run(&f->h, block);
    job_assert(block, WEIR_CALL_OK);
    struct job *escape = service_unit(f, "insert into ledger values ('escape')");
    job_step(escape, "call escapes()");
    harness_run(&f->h, escape);
    job_assert(escape, WEIR_CALL_SERVER);
    assert_string_equal(escape->error.sqlstate, "2D000");
    assert_int_equal(server_ask_number(f->server,
                                       "select count(*) from ledger where id in ('block', 'escape')"),
                     1);
    harness_close(&f->h);
}

/* ---- told at once ---------------------------------------------------------------------------- */

static void a_violated_constraint_is_told_at_once_with_its_detail(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    struct job *job = harness_query(&f->h, "insert into counters values (1, 0)");
    job_assert(job, WEIR_CALL_SERVER);
    assert_string_equal(job->error.sqlstate, "23505");
    assert_string_equal(job->error.severity, "ERROR");
    assert_int_equal(job->error.class_, WEIR_CLASS_PERMANENT);
    assert_int_equal(job->attempts, 1);
    assert_non_null(strstr(job->error.detail, "(id)=(1)"));
    harness_close(&f->h);
}

static void a_constraint_that_speaks_up_at_commit_has_rolled_back(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    struct job *job = service_unit(f, "insert into lately values (1)");
    job_step(job, "insert into ledger values ('deferred')");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_SERVER);
    assert_string_equal(job->error.sqlstate, "23505");
    assert_int_equal(job->outcome, WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(job->error.phase, WEIR_PHASE_DONE);
    assert_int_equal(job->runs, 1);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger where id = 'deferred'"), 0);
    harness_close(&f->h);
}

/* A function may raise any code it likes; the connection lives, so the server is not going down. */
static void a_function_that_pretends_the_server_is_down_fools_nobody(void **state)
{
    struct fixture *f = *state;
    static const char *const codes[] = {"57P01", "57P02", "57P03", "08006", "08003"};
    harness_prepare(&f->h, f->server, NULL);
    f->h.options.breaker.min_calls = 1;
    f->h.clients[SERVICE].max = 1;
    harness_open(&f->h);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        char sql[80];
        snprintf(sql, sizeof sql, "select pretends('%s')", codes[i]);
        struct job *job = harness_query(&f->h, sql);
        job_assert(job, WEIR_CALL_SERVER);
        assert_string_equal(job->error.sqlstate, codes[i]);
        assert_int_equal(job->attempts, 1);
    }
    assert_string_equal(harness_breaker(&f->h, "service@primary"), "CLOSED");
    assert_int_equal(event(f, "opened"), 1);
    harness_close(&f->h);
}

/* ---- tried again ----------------------------------------------------------------------------- */

static void units_that_could_not_be_serialized_are_repeated_until_all_are_through(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[24];
    open_engine(f);
    server_exec(f->server, "update counters set n = 0");
    for (int i = 0; i < 24; i++) {
        jobs[i] = service_unit(f, "select n from counters where id = 1");
        job_step(jobs[i], "select pg_sleep(0.003)");
        job_step(jobs[i], "update counters set n = n + 1 where id = 1");
        jobs[i]->request.isolation = i % 2 == 0 ? "serializable" : "repeatable read";
        job_start(jobs[i]);
    }
    harness_wait(&f->h);
    for (int i = 0; i < 24; i++) job_assert(jobs[i], WEIR_CALL_OK);
    assert_int_equal(server_ask_number(f->server, "select n from counters where id = 1"), 24);
    assert_true(harness_stat(&f->h, "service@primary", "attempts", "retries") > 0);
    harness_close(&f->h);
}

static void units_that_ran_into_a_deadlock_are_repeated(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[12];
    open_engine(f);
    server_exec(f->server, "update counters set n = 0");
    for (int i = 0; i < 12; i++) {
        jobs[i] = service_unit(f, i % 2 == 0 ? "update counters set n = n + 1 where id = 1"
                                             : "update counters set n = n + 1 where id = 2");
        job_step(jobs[i], "select pg_sleep(0.005)");
        job_step(jobs[i], "update counters set n = n + 1 where id = %d", i % 2 == 0 ? 2 : 1);
        job_start(jobs[i]);
    }
    harness_wait(&f->h);
    for (int i = 0; i < 12; i++) job_assert(jobs[i], WEIR_CALL_OK);
    assert_int_equal(server_ask_number(f->server, "select sum(n) from counters"), 24);
    assert_true(harness_stat(&f->h, "service@primary", "attempts", "retries") > 0);
    harness_close(&f->h);
}

/* ---- the wrong node -------------------------------------------------------------------------- */

static void come_home(struct job *job)
{
    struct fixture *f = job->user;
    if (job->runs == 2) proxy_upstream(f->proxy, f->server);
}

static void a_write_that_met_a_standby_finds_its_way_to_the_primary(void **state)
{
    struct fixture *f = *state;
    struct server *standby = server_standby(f->server, NULL);
    f->proxy = proxy_start(standby);
    harness_prepare(&f->h, f->server, proxy_conninfo(f->proxy, NULL));
    f->h.options.retries = 5;
    harness_open(&f->h);
    struct job *job = service_unit(f, "insert into ledger values ('wrong node')");
    job->on_ready = come_home;
    job->user = f;
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    assert_in_range(job->runs, 2, 3);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger where id = 'wrong node'"), 1);
    harness_close(&f->h);
    proxy_stop(f->proxy);
    server_free(standby);
}

static void a_write_that_was_declared_readonly_is_told_so_at_once(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    struct job *job = service_unit(f, "insert into ledger values ('readonly')");
    job->request.readonly = true;
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_SERVER);
    assert_string_equal(job->error.sqlstate, "25006");
    assert_int_equal(job->runs, 1);
    harness_close(&f->h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_changed_under_load_makes_no_call_fail),
        cmocka_unit_test(a_plan_that_went_stale_inside_a_unit_is_cured_by_running_the_unit_again),
        cmocka_unit_test(statements_thrown_away_behind_our_back_are_prepared_again),
        cmocka_unit_test(more_statements_than_are_kept_all_work),
        cmocka_unit_test(an_error_that_was_swallowed_ends_as_aborted_and_not_as_committed),
        cmocka_unit_test(its_owner_may_roll_a_unit_back),
        cmocka_unit_test(code_blocks_run_in_units_and_may_not_commit_there),
        cmocka_unit_test(a_violated_constraint_is_told_at_once_with_its_detail),
        cmocka_unit_test(a_constraint_that_speaks_up_at_commit_has_rolled_back),
        cmocka_unit_test(a_function_that_pretends_the_server_is_down_fools_nobody),
        cmocka_unit_test(units_that_could_not_be_serialized_are_repeated_until_all_are_through),
        cmocka_unit_test(units_that_ran_into_a_deadlock_are_repeated),
        cmocka_unit_test(a_write_that_met_a_standby_finds_its_way_to_the_primary),
        cmocka_unit_test(a_write_that_was_declared_readonly_is_told_so_at_once),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
