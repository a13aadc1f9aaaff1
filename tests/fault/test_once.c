/* What a sceptic broke once: each test failed on the engine as he found it. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

struct fixture {
    struct server *server;
    struct proxy *proxy;
    struct harness h;
    bool foreign; /* postgres_fdw is there */
};

static const char functions[] =
    "create function remember(t text) returns text language plpgsql as $$ begin"
    " perform set_config('app.tenant', t, false), pg_advisory_lock(42);"
    " execute 'create temp table stash as select ' || quote_literal(t) || ' as x';"
    " execute 'listen gossip';"
    " execute 'declare held cursor with hold for select 1';"
    " return t; end $$;"
    "create function become(t text) returns text language plpgsql as"
    " $$ begin return set_config('role', t, false); end $$;"
    "create function drop_names() returns void language plpgsql as $$ begin execute 'deallocate all'; end $$;"
    "create function boom(code text) returns void language plpgsql as"
    " $$ begin raise exception 'mine' using errcode = code; end $$;"
    "create function write_behind(t text) returns text language sql as"
    " $$ insert into ledger values (t) returning id $$;"
    "grant web_anon to app_service;"
    "alter role app_service createdb";

static bool make_foreign_table(struct server *server)
{
    if (!server_try(server, "create extension postgres_fdw")) return false;
    server_exec(server,
                "do $$ begin execute format('create server loop foreign data wrapper postgres_fdw options"
                " (host %L, port %L, dbname %L)',"
                " split_part(current_setting('unix_socket_directories'), ',', 1),"
                " current_setting('port'), current_database()); end $$;"
                "create user mapping for public server loop"
                " options (user 'postgres', password_required 'false');"
                "create foreign table far (id text) server loop options (table_name 'ledger');"
                "grant all on far to app_service");
    return true;
}

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(NULL);
    harness_schema(fixture.server);
    server_exec(fixture.server, functions);
    fixture.foreign = make_foreign_table(fixture.server);
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    return 0;
}

static void prepare_one_connection(struct fixture *f)
{
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = f->h.clients[ANON].max = 1;
}

static void open_through_proxy(struct fixture *f)
{
    f->proxy = proxy_start(f->server);
    harness_prepare(&f->h, f->server, proxy_conninfo(f->proxy, NULL));
    harness_open(&f->h);
    job_assert(harness_query(&f->h, "select 1"), WEIR_CALL_OK);
}

static void close_all(struct fixture *f)
{
    harness_close(&f->h);
    proxy_stop(f->proxy);
}

static long executions(struct fixture *f, const char *id)
{
    char sql[160];
    snprintf(sql, sizeof sql, "select count(*) from ledger where id = '%s'", id);
    return server_ask_number(f->server, sql);
}

static struct job *run_one(struct fixture *f, size_t client, const char *user, const char *sql)
{
    struct job *job = harness_call(&f->h, client, "review");
    if (client == ANON) job_claims(job, "{\"sub\":\"%s\"}", user);
    job_step(job, "%s", sql);
    harness_run(&f->h, job);
    return job;
}

static struct job *run_unit(struct fixture *f, size_t client, const char *sql)
{
    struct job *job = harness_unit(&f->h, client, "review");
    if (client == ANON) job_claims(job, "{\"sub\":\"u1\"}");
    job_step(job, "%s", sql);
    harness_run(&f->h, job);
    return job;
}

/* ---- lost COMMITs ------------------------------------------------------------------------------ */

enum { FLIGHTS = 4, TOGETHER = 4 };

/* A unit that sends several statements at a time, goes on after errors, and commits. */
struct script {
    const char *flights[FLIGHTS][TOGETHER];
    weir_call *call;
    int at, runs, errors, endings;
    weir_code code;
    weir_outcome outcome;
};

static void next_flight(struct script *s)
{
    weir_statement statements[TOGETHER] = {{.sql = NULL}};
    char why[WEIR_WHY_MAX] = "";
    size_t count = 0;
    if (s->at == FLIGHTS || s->flights[s->at][0] == NULL) {
        assert_int_equal(weir_unit_finish(s->call, WEIR_COMMIT), WEIR_OK);
        return;
    }
    for (; count < TOGETHER && s->flights[s->at][count] != NULL; count++) {
        statements[count].sql = s->flights[s->at][count];
    }
    s->at++;
    if (weir_unit_send(s->call, statements, count, why) != WEIR_OK) fail_msg("%s", why);
}

static void script_goes_on(void *user, weir_call *call)
{
    struct script *s = user;
    const weir_error *error = weir_call_error(call);
    if (weir_call_status(call) == WEIR_ENDED) {
        s->endings++;
        s->code = error == NULL ? WEIR_CALL_OK : error->code;
        s->outcome = error == NULL ? WEIR_OUTCOME_COMMITTED : error->outcome;
        return;
    }
    if (weir_call_status(call) == WEIR_READY) {
        s->runs++;
        s->at = 0;
    } else if (error != NULL) {
        s->errors++;
    }
    next_flight(s);
}

static bool script_is_over(void *arg)
{
    return ((struct script *)arg)->endings > 0;
}

static void run_script(struct fixture *f, struct script *s)
{
    char why[WEIR_WHY_MAX] = "";
    weir_request request = {.client = "service", .context = "script", .notify = script_goes_on, .user = s};
    if (weir_begin(f->h.engine, &request, &s->call, why) != WEIR_OK) fail_msg("%s", why);
    assert_true(harness_until(&f->h, script_is_over, s, 10000));
    weir_call_free(s->call);
    assert_int_equal(s->endings, 1);
}

static void check_executed_once(struct fixture *f, struct script *s, const char *id)
{
    open_through_proxy(f);
    proxy_at_commit(f->proxy, PROXY_LOSE_ANSWER, 1);
    run_script(f, s);
    assert_int_equal(proxy_losses(f->proxy), 1);
    assert_int_equal(executions(f, id), 1);
    assert_int_equal(s->runs, 1);
    assert_int_equal(s->errors, 1);
    assert_int_equal(s->outcome, WEIR_OUTCOME_COMMITTED);
    close_all(f);
}

static void an_insert_in_one_flight_with_rollback_to_a_savepoint_is_executed_once(void **state)
{
    struct script script = {
        .flights = {{"savepoint a"},
                    {"select 1/0"},
                    {"rollback to a", "insert into ledger values ('after rollback to')"}}};
    check_executed_once(*state, &script, "after rollback to");
}

static void an_insert_before_the_savepoint_of_a_failed_flight_is_executed_once(void **state)
{
    struct script script = {
        .flights = {{"savepoint a"},
                    {"insert into ledger values ('before savepoint')", "savepoint b", "select 1/0"},
                    {"rollback to b"}}};
    check_executed_once(*state, &script, "before savepoint");
}

static void check_foreign(struct fixture *f, struct script *s, const char *id)
{
    if (!f->foreign) skip();
    open_through_proxy(f);
    proxy_at_commit(f->proxy, PROXY_LOSE_ANSWER, 1);
    run_script(f, s);
    assert_int_equal(proxy_losses(f->proxy), 1);
    assert_true(executions(f, id) <= 1);
    assert_int_equal(s->runs, 1);
    assert_int_equal(s->code, WEIR_CALL_LOST);
    assert_int_equal(s->outcome, WEIR_OUTCOME_UNKNOWN);
    close_all(f);
}

static void a_lost_commit_of_a_row_in_a_foreign_table_is_unknown_and_not_repeated(void **state)
{
    struct script script = {.flights = {{"insert into far values ('far')"}}};
    check_foreign(*state, &script, "far");
}

static void a_row_in_a_foreign_table_from_a_flight_that_failed_later_is_not_repeated(void **state)
{
    struct script script = {
        .flights = {{"savepoint a"},
                    {"insert into far values ('far, failed')", "savepoint b", "select 1/0"},
                    {"rollback to b"}}};
    check_foreign(*state, &script, "far, failed");
}

static void a_row_in_a_foreign_table_from_a_with_clause_is_not_repeated(void **state)
{
    struct script script = {
        .flights = {{"with i as (insert into far values ('far, with') returning 1) select count(*) from i"}}};
    check_foreign(*state, &script, "far, with");
}
static void a_row_in_a_foreign_table_from_explain_analyze_is_not_repeated(void **state)
{
    struct script script = {.flights = {{"explain analyze insert into far values ('far, explain')"}}};
    check_foreign(*state, &script, "far, explain");
}

/* ---- what one caller leaves for the next --------------------------------------------------------- */

#define LEFTOVERS                                                                                            \
    "select concat_ws('|', current_user, nullif(current_setting('app.tenant', true), ''),"                   \
    " current_setting('search_path'),"                                                                       \
    " (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),"               \
    " (select count(*) from pg_class where relnamespace = pg_my_temp_schema()),"                             \
    " (select count(*) from pg_listening_channels()), (select count(*) from pg_cursors where is_holdable))"

static void check_nothing_left_by(struct fixture *f, size_t client, const char *sql)
{
    const char *clean =
        client == ANON ? "web_anon|\"$user\", public|0|0|0|0" : "app_service|\"$user\", public|0|0|0|0";
    prepare_one_connection(f);
    assert_int_equal(f->h.options.reset, WEIR_RESET_AUTO);
    harness_open(&f->h);
    assert_string_equal(run_one(f, client, "u2", LEFTOVERS)->answers[0], clean);
    job_assert(run_one(f, client, "u1", sql), WEIR_CALL_OK);
    struct job *after = run_one(f, client, "u2", LEFTOVERS);
    job_assert(after, WEIR_CALL_OK);
    assert_string_equal(after->answers[0], clean);
    job_assert(run_unit(f, client, sql), WEIR_CALL_OK);
    assert_string_equal(run_one(f, client, "u2", LEFTOVERS)->answers[0], clean);
    harness_close(&f->h);
}

static void a_function_that_changes_the_session_leaves_nothing_for_the_next_caller(void **state)
{
    check_nothing_left_by(*state, ANON, "select remember('secret of u1')");
    check_nothing_left_by(*state, SERVICE, "select remember('secret of u1')");
    check_nothing_left_by(*state, SERVICE, "select * from public . \"remember\" ('secret of u1')");
}

static void a_role_taken_inside_a_function_is_gone_for_the_next_caller(void **state)
{
    check_nothing_left_by(*state, SERVICE, "select become('web_anon')");
    check_nothing_left_by(*state, ANON, "select become('web_anon')");
}

static void a_setting_changed_through_pg_settings_is_gone_for_the_next_caller(void **state)
{
    const char *sql = "update pg_settings set setting = 'pg_temp' where name = 'search_path'";
    check_nothing_left_by(*state, ANON, sql);
    check_nothing_left_by(*state, SERVICE, sql);
}

static void ordinary_statements_with_the_servers_own_functions_cause_no_reset(void **state)
{
    static const char *const statements[] = {
        "select count(*), max(id), coalesce(min(name), '') from contacts where name in ('a', 'b')",
        "insert into contacts (owner, name) values ('u1', lower('ADA')) on conflict (id) do nothing",
        "select now(), to_char(now(), 'YYYY'), date_trunc('day', now()), extract(year from now())",
        "select jsonb_build_object('a', array_agg(name)) from (select name from contacts) c",
        "with few (n) as (select generate_series(1, 3))"
        " select sum(n), row_number() over (order by 1) from few group by n",
        "update contacts set name = upper(substring(name from 1 for 3)) where owner = 'u1'",
        "select cast(1 as numeric(10, 2)), format('%s', 1), current_setting('work_mem'), gen_random_uuid()"};
    struct fixture *f = *state;
    prepare_one_connection(f);
    harness_open(&f->h);
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        job_assert(run_one(f, ANON, "u1", statements[i]), WEIR_CALL_OK);
        job_assert(run_unit(f, ANON, statements[i]), WEIR_CALL_OK);
        job_assert(run_one(f, SERVICE, "", statements[i]), WEIR_CALL_OK);
        assert_int_equal(harness_stat(&f->h, "anon@primary", "events", "resets"), 0);
        assert_int_equal(harness_stat(&f->h, "service@primary", "events", "resets"), 0);
    }
    harness_close(&f->h);
}

static void check_heals(struct fixture *f, weir_reset reset)
{
    prepare_one_connection(f);
    f->h.options.reset = reset;
    harness_open(&f->h);
    for (int i = 0; i < 2; i++) job_assert(run_unit(f, ANON, "select 1"), WEIR_CALL_OK);
    job_assert(run_unit(f, ANON, "select drop_names()"), WEIR_CALL_OK);
    for (int i = 0; i < 10; i++) job_assert(run_unit(f, ANON, "select 1"), WEIR_CALL_OK);
    assert_in_range(harness_stat(&f->h, "anon@primary", "events", "heals"), 0, 2);
    harness_close(&f->h);
}

static void after_deallocate_all_inside_a_function_ten_units_heal_at_most_twice(void **state)
{
    check_heals(*state, WEIR_RESET_AUTO);
    check_heals(*state, WEIR_RESET_NEVER);
}

/* ---- fork ------------------------------------------------------------------------------------------ */

static void unused(void *user, weir_call *call)
{
    (void)user;
    (void)call;
}

/* How many of the things a child may not do it could do. */
static int misdeeds_of_a_child(struct harness *h)
{
    char why[WEIR_WHY_MAX] = "";
    weir_call *call = NULL;
    weir_statement statement = {.sql = "select 1"};
    weir_request request = {.client = "service", .context = "child", .notify = unused};
    int misdeeds = weir_submit(h->engine, &request, &statement, 1, &call, why) != WEIR_ESTATE;
    misdeeds += strstr(why, "fork") == NULL;
    misdeeds += call != NULL;
    misdeeds += weir_begin(h->engine, &request, &call, why) != WEIR_ESTATE;
    misdeeds += weir_on_timer(h->engine) != WEIR_ESTATE;
    misdeeds += weir_on_ready(h->engine, 0, WEIR_READ) != WEIR_ESTATE;
    weir_drain(h->engine, 0);
    weir_free(h->engine);
    return misdeeds;
}

static void a_forked_child_may_not_use_the_engine_and_does_not_harm_its_parent(void **state)
{
    struct fixture *f = *state;
    int status = -1;
    char backend[JOB_ANSWER];
    prepare_one_connection(f);
    harness_open(&f->h);
    memcpy(backend, harness_query(&f->h, "select pg_backend_pid()")->answers[0], sizeof backend);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(10);
        _exit(misdeeds_of_a_child(&f->h));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    struct job *after = harness_query(&f->h, "select pg_backend_pid()");
    job_assert(after, WEIR_CALL_OK);
    assert_string_equal(after->answers[0], backend);
    harness_close(&f->h);
}

/* ---- one transaction, and read-only ------------------------------------------------------------------ */

/* The third call of a context has nothing to set ahead of its statements. */
static void a_pipeline_whose_first_statement_would_commit_by_itself_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    prepare_one_connection(f);
    harness_open(&f->h);
    for (int i = 0; i < 2; i++) job_assert(run_one(f, SERVICE, "", "select 1"), WEIR_CALL_OK);
    struct job *job = harness_call(&f->h, SERVICE, "review");
    job_step(job, "create database half_done");
    job_step(job, "select 1/0");
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_SERVER);
    assert_int_equal(job->outcome, WEIR_OUTCOME_ROLLED_BACK);
    const char *sql = "select count(*) from pg_database where datname = 'half_done'";
    assert_int_equal(server_ask_number(f->server, sql), 0);
    job_assert(run_one(f, SERVICE, "", "create database whole"), WEIR_CALL_OK);
    harness_close(&f->h);
    server_exec(f->server, "drop database whole");
}

static void check_refused_as_read_only(struct fixture *f, size_t client, const char *sql)
{
    struct job *job = harness_call(&f->h, client, "review");
    if (client == ANON) job_claims(job, "{\"sub\":\"u1\"}");
    job_step(job, "%s", sql);
    job->request.readonly = true;
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_SERVER);
    assert_string_equal(job->error.sqlstate, "25006");
    assert_int_equal(job->attempts, 1);
}

static void a_single_call_declared_readonly_cannot_write(void **state)
{
    struct fixture *f = *state;
    prepare_one_connection(f);
    harness_open(&f->h);
    for (size_t client = 0; client < CLIENTS; client++) {
        check_refused_as_read_only(f, client, "insert into ledger values ('readonly')");
        check_refused_as_read_only(f, client, "select write_behind('readonly')");
        assert_int_equal(executions(f, "readonly"), 0);
        job_assert(run_one(f, client, "u1", "insert into ledger values ('next')"), WEIR_CALL_OK);
    }
    assert_int_equal(executions(f, "next"), 2);
    harness_close(&f->h);
}

/* ---- for ever ------------------------------------------------------------------------------------------ */

static void a_timeout_of_the_greatest_number_means_for_ever(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    harness_open(&f->h);
    for (int unit = 0; unit < 2; unit++) {
        struct job *job =
            unit ? harness_unit(&f->h, SERVICE, "for ever") : harness_call(&f->h, SERVICE, "for ever");
        job_step(job, "select pg_sleep(0.05)");
        job->request.timeout_ns = UINT64_MAX;
        harness_run(&f->h, job);
        job_assert(job, WEIR_CALL_OK);
    }
    f->h.late_ms = 0; /* its own sum overflows, too */
    harness_close(&f->h);
}

static void a_drain_with_the_greatest_number_waits_for_what_runs(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    harness_open(&f->h);
    struct job *job = harness_call(&f->h, SERVICE, "runs on");
    job_step(job, "select pg_sleep(0.3)");
    job_start(job);
    harness_turn(&f->h, 100);
    weir_drain(f->h.engine, UINT64_MAX);
    harness_wait(&f->h);
    job_assert(job, WEIR_CALL_OK);
    harness_close(&f->h);
}

/* ---- guards ------------------------------------------------------------------------------------ */

static void errors_raised_by_a_function_as_if_the_server_were_full_leave_the_breaker_closed(void **state)
{
    struct fixture *f = *state;
    harness_prepare(&f->h, f->server, NULL);
    f->h.options.retries = 0;
    weir_breaker_defaults(&f->h.options.breaker);
    harness_open(&f->h);
    for (int i = 0; i < 30; i++) {
        job_assert(run_one(f, ANON, "u1", "select boom('53300')"), WEIR_CALL_SERVER);
    }
    assert_string_equal(harness_breaker(&f->h, "anon@primary"), "CLOSED");
    job_assert(run_one(f, ANON, "u2", "select 1"), WEIR_CALL_OK);
    harness_close(&f->h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_insert_in_one_flight_with_rollback_to_a_savepoint_is_executed_once),
        cmocka_unit_test(an_insert_before_the_savepoint_of_a_failed_flight_is_executed_once),
        cmocka_unit_test(a_lost_commit_of_a_row_in_a_foreign_table_is_unknown_and_not_repeated),
        cmocka_unit_test(a_row_in_a_foreign_table_from_a_flight_that_failed_later_is_not_repeated),
        cmocka_unit_test(a_row_in_a_foreign_table_from_a_with_clause_is_not_repeated),
        cmocka_unit_test(a_row_in_a_foreign_table_from_explain_analyze_is_not_repeated),
        cmocka_unit_test(a_function_that_changes_the_session_leaves_nothing_for_the_next_caller),
        cmocka_unit_test(a_role_taken_inside_a_function_is_gone_for_the_next_caller),
        cmocka_unit_test(a_setting_changed_through_pg_settings_is_gone_for_the_next_caller),
        cmocka_unit_test(ordinary_statements_with_the_servers_own_functions_cause_no_reset),
        cmocka_unit_test(after_deallocate_all_inside_a_function_ten_units_heal_at_most_twice),
        cmocka_unit_test(a_forked_child_may_not_use_the_engine_and_does_not_harm_its_parent),
        cmocka_unit_test(a_pipeline_whose_first_statement_would_commit_by_itself_leaves_nothing),
        cmocka_unit_test(a_single_call_declared_readonly_cannot_write),
        cmocka_unit_test(a_timeout_of_the_greatest_number_means_for_ever),
        cmocka_unit_test(a_drain_with_the_greatest_number_waits_for_what_runs),
        cmocka_unit_test(errors_raised_by_a_function_as_if_the_server_were_full_leave_the_breaker_closed),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
