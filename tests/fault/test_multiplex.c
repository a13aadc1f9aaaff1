/* Calls that share a connection, against a real server: each gets its own answer under its own role and claims, whatever
 * befalls its neighbours. */
#include "base/sqltext.h"
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LANE = 16 };

struct fixture {
    struct server *server;
    struct harness h;
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(NULL);
    harness_schema(fixture.server);
    server_exec(
        fixture.server,
        "create function die() returns boolean security definer language sql as"
        " $$ select pg_terminate_backend(pg_backend_pid()) $$;"
        "create function forgets() returns text language plpgsql as"
        " $$ begin execute 'deallocate all'; return 'forgot'; end $$;"
        /* Functions that the engine does not know are not shared; behind a view it does not see them. */
        "create view death as select die();"
        "create view late_death as select pg_sleep(0.3) is null as slept, die();"
        "create view oblivion as select forgets();"
        "grant select on death, late_death, oblivion to app_service, web_anon;"
        "create table mine (owner text not null); grant all on mine to web_anon;"
        "alter table mine enable row level security; alter table mine force row level security;"
        "create policy own on mine using"
        " (owner = nullif(current_setting('request.jwt.claims', true), '')::json->>'sub');"
        "insert into mine select 'u' || i % 2 from generate_series(1, 6) i;"
        "create table shape (a int); insert into shape values (1);"
        "alter table shape owner to app_service;"
        "grant select on shape to web_anon;");
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
    for (int i = 0; i < CLIENTS; i++) {
        f->h.clients[i].max = max;
        f->h.clients[i].queue_max = 5000;
        f->h.clients[i].multiplex = LANE;
    }
    f->h.options.retries = retries;
    harness_open(&f->h);
}

/* One connection, idle, that knows the texts. */
static void open_warm(struct fixture *f, uint32_t retries)
{
    open_with(f, 1, retries);
    for (int i = 0; i < 3; i++) job_assert(harness_query(&f->h, "select 0"), WEIR_CALL_OK);
    harness_forget_jobs(&f->h);
}

/* One connection, idle, on which a call has taken half a second so far: its lane then takes more in until the oldest has
 * run for twice that, so all whom a test starts together board it, however slowly the machine starts them. */
static void open_patient(struct fixture *f, uint32_t retries)
{
    open_with(f, 1, retries);
    job_assert(harness_query(&f->h, "select pg_sleep(0.5)"), WEIR_CALL_OK);
    harness_forget_jobs(&f->h);
}

static void assert_all_aboard(struct fixture *f)
{
    struct weir_held held;
    weir_held_now(f->h.engine, &held);
    assert_int_equal(held.waiting, 0);
}

static struct job *reading(struct fixture *f, size_t client, const char *context)
{
    struct job *job = harness_call(&f->h, client, context);
    job->request.readonly = true;
    return job;
}

/* `select NUMBER` by name; started. */
static struct job *number(struct fixture *f, int number)
{
    struct job *job = reading(f, SERVICE, "number");
    job_step(job, "select $1::int");
    job_value(job, "%d", number);
    job_start(job);
    return job;
}

static struct job *read_this(struct fixture *f, const char *sql)
{
    struct job *job = reading(f, SERVICE, "special");
    job_step(job, "%s", sql);
    job_start(job);
    return job;
}

static void numbers_from(struct fixture *f, struct job **jobs, int from, int count)
{
    for (int i = 0; i < count; i++) jobs[from + i] = number(f, from + i);
}

static void assert_number(const struct job *job, int number)
{
    char text[16];
    snprintf(text, sizeof text, "%d", number);
    job_assert(job, WEIR_CALL_OK);
    assert_string_equal(job->answers[0], text);
}

static long event(struct fixture *f, const char *name)
{
    return harness_stat(&f->h, "service@primary", "events", name);
}

/* ---- neighbours ------------------------------------------------------------------------------------------------ */

static void each_gets_its_own_answer_between_those_that_fail(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[200];
    open_warm(f, 0);
    for (int i = 0; i < 200; i++) jobs[i] = i % 5 == 3 ? read_this(f, "select 1 / 0") : number(f, i);
    harness_wait(&f->h);
    for (int i = 0; i < 200; i++) {
        if (i % 5 != 3) {
            assert_number(jobs[i], i);
        } else {
            job_assert(jobs[i], WEIR_CALL_SERVER);
            assert_string_equal(jobs[i]->error.sqlstate, "22012");
        }
    }
    assert_int_equal(event(f, "opened"), 1);
    harness_close(&f->h);
}

static void a_backend_that_dies_takes_only_those_behind_it_and_they_are_safe(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[LANE];
    open_patient(f, 0);
    numbers_from(f, jobs, 0, 6);
    jobs[6] = read_this(f, "select * from late_death"); /* not before all are aboard */
    numbers_from(f, jobs, 7, LANE - 7);
    assert_all_aboard(f);
    harness_wait(&f->h);
    for (int i = 0; i < 6; i++) assert_number(jobs[i], i);
    for (int i = 6; i < LANE; i++) {
        job_assert(jobs[i], WEIR_CALL_LOST);
        assert_int_equal(jobs[i]->error.class_, WEIR_CLASS_SAFE);
        assert_int_equal(jobs[i]->outcome, WEIR_OUTCOME_ROLLED_BACK);
        assert_string_equal(jobs[i]->error.sqlstate, "57P01");
    }
    harness_close(&f->h);
}

static bool backend_is_gone(void *arg)
{
    const struct fixture *f = arg;
    return server_ask_number(f->server,
                             "select count(*) from pg_stat_activity where usename = 'app_service'") == 0;
}

/* Writing on what the server has closed, libpq reads first what it said, and drops it when it then finds the end. */
static void who_boards_a_connection_that_has_died_takes_no_answer_from_the_others(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[7];
    open_patient(f, 0);
    numbers_from(f, jobs, 0, 4);
    struct job *death = read_this(f, "select * from death");
    while (!backend_is_gone(f)) continue; /* and this engine has not turned since */
    numbers_from(f, jobs, 4, 3);
    harness_wait(&f->h);
    for (int i = 0; i < 4; i++) assert_number(jobs[i], i);
    job_assert(death, WEIR_CALL_LOST);
    job_assert(jobs[4], WEIR_CALL_LOST);
    harness_close(&f->h);
}

static void those_who_lost_their_connection_try_again_and_succeed(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[LANE];
    open_patient(f, 5);
    numbers_from(f, jobs, 0, 4);
    struct job *slow = read_this(f, "select pg_sleep(0.2)");
    numbers_from(f, jobs, 4, LANE - 5);
    assert_all_aboard(f);
    harness_turn(&f->h, 50);
    server_exec(f->server,
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app_service'");
    harness_wait(&f->h);
    job_assert(slow, WEIR_CALL_OK);
    assert_int_equal(slow->attempts, 2);
    for (int i = 0; i < LANE - 1; i++) assert_number(jobs[i], i);
    harness_close(&f->h);
}

/* ---- giving up ------------------------------------------------------------------------------------------------- */

static void a_caller_who_gives_up_cancels_nobody(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[LANE];
    size_t cancels = server_log_count(f->server, "due to user request");
    open_patient(f, 0);
    struct job *slow = read_this(f, "select pg_sleep(0.3)");
    numbers_from(f, jobs, 0, LANE - 1);
    assert_all_aboard(f);
    harness_turn(&f->h, 50);
    weir_call_cancel(slow->call);
    weir_call_cancel(jobs[3]->call);
    harness_wait(&f->h);
    job_assert(slow, WEIR_CALL_CANCELLED);
    job_assert(jobs[3], WEIR_CALL_CANCELLED);
    for (int i = 0; i < LANE - 1; i++) {
        if (i != 3) assert_number(jobs[i], i);
    }
    assert_int_equal(event(f, "cancels"), 0);
    assert_int_equal(server_log_count(f->server, "due to user request"), cancels);
    assert_int_equal(event(f, "opened"), 1);
    harness_close(&f->h);
}

static bool nobody_works(void *arg)
{
    const struct fixture *f = arg;
    return server_ask_number(f->server, "select count(*) from pg_stat_activity where usename = 'app_service'"
                                        " and state = 'active'") == 0;
}

struct tally {
    struct fixture *fixture;
    size_t cancels;
};

/* What PostgreSQL logs of them: between two statements of a lane nobody seems to work. */
static bool all_were_cancelled(void *arg)
{
    const struct tally *tally = arg;
    return server_log_count(tally->fixture->server, "due to user request") >= tally->cancels;
}

static void when_all_have_given_up_the_server_is_told(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[4];
    struct tally tally = {f, server_log_count(f->server, "due to user request") + 4};
    open_patient(f, 0);
    for (int i = 0; i < 4; i++) jobs[i] = read_this(f, "select pg_sleep(20)");
    assert_all_aboard(f);
    harness_turn(&f->h, 50);
    for (int i = 0; i < 4; i++) weir_call_cancel(jobs[i]->call);
    harness_wait(&f->h);
    assert_true(harness_until(&f->h, all_were_cancelled, &tally, 5000));
    assert_true(harness_until(&f->h, nobody_works, f, 5000));
    assert_int_equal(server_log_count(f->server, "due to user request"), tally.cancels);
    assert_int_equal(event(f, "opened"), 1);
    struct job *after = number(f, 7);
    harness_wait(&f->h);
    assert_number(after, 7);
    harness_close(&f->h);
}

static void a_deadline_ends_its_own_statement_on_the_server(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[LANE];
    open_patient(f, 0);
    struct job *slow = reading(f, SERVICE, "slow");
    job_step(slow, "select pg_sleep(20)");
    slow->request.timeout_ns = MS(150);
    job_start(slow);
    numbers_from(f, jobs, 0, LANE - 1);
    assert_all_aboard(f);
    harness_wait(&f->h);
    job_assert(slow, WEIR_CALL_TIMEOUT);
    for (int i = 0; i < LANE - 1; i++) assert_number(jobs[i], i);
    assert_int_equal(event(f, "opened"), 1);
    harness_close(&f->h);
}

static void a_server_that_stands_still_costs_the_lane_and_not_the_calls(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[4];
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = 2;
    f->h.clients[SERVICE].multiplex = LANE;
    f->h.options.cancel_wait_ns = MS(200);
    f->h.options.retries = 5;
    harness_open(&f->h);
    struct job *who = harness_query(&f->h, "select pg_backend_pid()");
    pid_t backend = (pid_t)atol(who->answers[0]);
    server_signal(f->server, backend, 19); /* SIGSTOP */
    struct job *stuck = reading(f, SERVICE, "stuck");
    job_step(stuck, "select 1");
    stuck->request.timeout_ns = MS(100);
    job_start(stuck);
    numbers_from(f, jobs, 0, 4);
    harness_wait(&f->h);
    server_signal(f->server, backend, 18); /* SIGCONT */
    job_assert(stuck, WEIR_CALL_TIMEOUT);
    for (int i = 0; i < 4; i++) {
        assert_number(jobs[i], i);
        assert_int_equal(jobs[i]->attempts, 2);
    }
    assert_int_equal(harness_stat(&f->h, "service@primary", "closed", "cancel"), 1);
    harness_close(&f->h);
}

/* ---- prepared statements --------------------------------------------------------------------------------------- */

static void a_table_changed_under_a_full_lane_makes_no_call_fail(void **state)
{
    struct fixture *f = *state;
    open_warm(f, 0);
    long heals = event(f, "heals");
    for (int round = 0; round < 20; round++) {
        char ddl[80];
        struct job *jobs[4 * LANE];
        for (int i = 0; i < 4 * LANE; i++) jobs[i] = read_this(f, "select * from shape");
        harness_turn(&f->h, 1);
        snprintf(ddl, sizeof ddl, "alter table shape add column m%d int", round);
        server_exec(f->server, ddl);
        for (int i = 0; i < LANE; i++) read_this(f, "select * from shape");
        harness_wait(&f->h);
        for (int i = 0; i < 4 * LANE; i++) job_assert(jobs[i], WEIR_CALL_OK);
        for (struct job *job = f->h.jobs; job != NULL; job = job->next) job_assert(job, WEIR_CALL_OK);
        harness_forget_jobs(&f->h);
    }
    assert_true(event(f, "heals") > heals);
    assert_int_equal(event(f, "opened"), 1);
    harness_close(&f->h);
}

static void statements_that_vanish_on_the_server_are_made_again(void **state)
{
    struct fixture *f = *state;
    open_warm(f, 0);
    for (int round = 0; round < 20; round++) {
        struct job *jobs[4 * LANE];
        for (int i = 0; i < 4 * LANE; i++)
            jobs[i] = i % 11 == 5 ? read_this(f, "select * from oblivion") : number(f, i);
        harness_wait(&f->h);
        for (int i = 0; i < 4 * LANE; i++) {
            if (i % 11 != 5) assert_number(jobs[i], i);
            if (i % 11 == 5) job_assert(jobs[i], WEIR_CALL_OK);
        }
        harness_forget_jobs(&f->h);
    }
    assert_true(event(f, "heals") > 0);
    assert_int_equal(event(f, "opened"), 1);
    harness_close(&f->h);
}

static void more_texts_than_may_be_prepared_make_room_while_under_way(void **state)
{
    struct fixture *f = *state;
    uint64_t seed = 42;
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = 1;
    f->h.clients[SERVICE].queue_max = 5000;
    f->h.clients[SERVICE].multiplex = LANE;
    f->h.options.prepared_max = 3;
    f->h.options.retries = 0;
    harness_open(&f->h);
    for (int round = 0; round < 20; round++) {
        struct job *jobs[100];
        int texts[100];
        for (int i = 0; i < 100; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            texts[i] = (int)(seed >> 33) % 12;
            jobs[i] = reading(f, SERVICE, "many texts");
            job_step(jobs[i], texts[i] == 11 ? "select 11 / 0" : "select %d", texts[i]);
            job_start(jobs[i]);
        }
        harness_wait(&f->h);
        for (int i = 0; i < 100; i++) {
            if (texts[i] == 11) job_assert(jobs[i], WEIR_CALL_SERVER);
            if (texts[i] != 11) assert_number(jobs[i], texts[i]);
        }
        harness_forget_jobs(&f->h);
    }
    struct job *count =
        harness_query(&f->h,
                      "select count(*) from pg_prepared_statements where statement not like '%set_config%'");
    assert_true(atoi(count->answers[0]) <= 4);
    assert_int_equal(event(f, "opened"), 1);
    harness_close(&f->h);
}

/* ---- settings -------------------------------------------------------------------------------------------------- */

/* Name and time limit of the session itself change between calls that share it, and calls that fail take theirs back. */
static void each_runs_under_its_own_name_and_time_limit(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[400];
    open_warm(f, 0);
    for (int i = 0; i < 400; i++) {
        char context[32];
        snprintf(context, sizeof context, "caller %d", i % 7);
        bool writes = i % 13 == 0;
        jobs[i] = harness_call(&f->h, SERVICE, context);
        jobs[i]->request.readonly = !writes;
        jobs[i]->request.timeout_ns = SECONDS(i % 3 == 0 ? 5 : 20);
        job_step(
            jobs[i],
            "select current_setting('application_name') || '|' || current_setting('transaction_read_only')"
            " || '|' || (extract(epoch from current_setting('statement_timeout')::interval) > 7)%s",
            i % 5 == 4 ? " || (1 / 0)" : "");
        job_start(jobs[i]);
    }
    harness_wait(&f->h);
    for (int i = 0; i < 400; i++) {
        char expected[64];
        snprintf(expected, sizeof expected, "caller %d|%s|%s", i % 7, i % 13 == 0 ? "off" : "on",
                 i % 3 == 0 ? "false" : "true");
        job_assert(jobs[i], i % 5 == 4 ? WEIR_CALL_SERVER : WEIR_CALL_OK);
        if (i % 5 != 4) assert_string_equal(jobs[i]->answers[0], expected);
    }
    assert_int_equal(event(f, "opened"), 1);
    harness_close(&f->h);
}

static void a_read_that_writes_is_refused_by_the_server(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[4];
    open_warm(f, 0);
    numbers_from(f, jobs, 0, 2);
    struct job *liar = read_this(f, "insert into ledger values ('lie') returning id");
    numbers_from(f, jobs, 2, 2);
    harness_wait(&f->h);
    job_assert(liar, WEIR_CALL_SERVER);
    assert_string_equal(liar->error.sqlstate, "25006");
    for (int i = 0; i < 4; i++) assert_number(jobs[i], i);
    assert_int_equal(server_ask_number(f->server, "select count(*) from ledger where id = 'lie'"), 0);
    harness_close(&f->h);
}

/* ---- size ------------------------------------------------------------------------------------------------------ */

static void large_answers_and_questions_pass_through_a_lane(void **state)
{
    struct fixture *f = *state;
    struct job *jobs[4 * LANE];
    static char text[50000];
    memset(text, 'x', sizeof text - 1);
    open_warm(f, 0);
    for (int i = 0; i < 4 * LANE; i++) {
        jobs[i] = reading(f, SERVICE, "large");
        job_step(jobs[i], "select length($1) + %d, repeat('y', 2000000)", i);
        job_value(jobs[i], "%s", text);
        job_start(jobs[i]);
    }
    harness_wait(&f->h);
    for (int i = 0; i < 4 * LANE; i++) assert_number(jobs[i], (int)sizeof text - 1 + i);
    assert_int_equal(event(f, "opened"), 1);
    harness_close(&f->h);
}

/* ---- two tenants, a hundred thousand calls ---------------------------------------------------------------------- */

/* All by which a call could see the other tenant; `$1` is who it is. */
#define WHO                                                                                                  \
    "select $1::text || '|' || current_user || '|' || session_user || '|'"                                   \
    " || current_setting('request.jwt.claims', true) || '|' || current_setting('transaction_read_only')"     \
    " || '|' || count(*) || '|' || sum(case when owner <> $1 then 1 else 0 end) from mine"

enum { TOTAL = 100000, WAVE = 2000, AT_ONCE = 64 };

enum fate { INNOCENT, FAILS, OVERDUE, GIVES_UP, DIES, WRITES };

struct crowd {
    struct fixture *fixture;
    uint64_t seed;
    int begun, checked;
    long ends[WEIR_CALL_ROLLED_BACK + 1];
};

static uint32_t draw(struct crowd *crowd, uint32_t below)
{
    crowd->seed = crowd->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(crowd->seed >> 33) % below;
}

static enum fate fate_by_chance(struct crowd *crowd)
{
    uint32_t luck = draw(crowd, 1000);
    return luck < 30    ? FAILS
           : luck < 40  ? OVERDUE
           : luck < 80  ? GIVES_UP
           : luck < 81  ? DIES
           : luck < 120 ? WRITES
                        : INNOCENT;
}

static void start_tenant(struct crowd *crowd)
{
    static const char *const last_words[] = {
        [FAILS] = "select 1 / 0", [OVERDUE] = "select pg_sleep(0.01)", [DIES] = "select * from death"};
    struct fixture *f = crowd->fixture;
    enum fate fate = fate_by_chance(crowd);
    int tenant = (int)draw(crowd, 2);
    struct job *job = reading(f, ANON, tenant == 0 ? "tenant 0" : "tenant 1");
    job->request.readonly = fate != WRITES;
    job->request.timeout_ns = fate == OVERDUE ? MS(5) : SECONDS(25);
    job->user = (void *)(intptr_t)(tenant + 1);
    job_claims(job, "{\"sub\":\"u%d\"}", tenant);
    job_step(job, WHO);
    job_value(job, "u%d", tenant);
    if (fate == FAILS || fate == OVERDUE || fate == DIES) job_step(job, "%s", last_words[fate]);
    job_start(job);
    crowd->begun++;
    if (fate == GIVES_UP && draw(crowd, 2) == 0) weir_call_cancel(job->call);
    if (fate == GIVES_UP) job->pause = true; /* the mark of one to be given up later */
}

static void check_tenant(struct crowd *crowd, const struct job *job)
{
    int tenant = (int)(intptr_t)job->user - 1;
    char expected[160];
    crowd->ends[job->code]++;
    crowd->checked++;
    if (job->code != WEIR_CALL_OK) return;
    snprintf(expected, sizeof expected, "u%d|web_anon|app_anon|{\"sub\":\"u%d\"}|%s|3|0", tenant, tenant,
             job->request.readonly ? "on" : "off");
    assert_string_equal(job->answers[0], expected);
}

static bool wave_is_over(void *arg)
{
    struct crowd *crowd = arg;
    struct harness *h = &crowd->fixture->h;
    int until = crowd->checked + WAVE;
    if (draw(crowd, 4) == 0) {
        int looked = 0;
        for (struct job *job = h->jobs; job != NULL && looked < AT_ONCE; job = job->next, looked++) {
            if (job->pause && job->call != NULL) weir_call_cancel(job->call);
        }
    }
    while (crowd->begun < until && h->running < AT_ONCE) start_tenant(crowd);
    return crowd->begun == until && h->running == 0;
}

static void nobody_among_a_hundred_thousand_sees_the_other_tenant(void **state)
{
    struct fixture *f = *state;
    struct crowd crowd = {.fixture = f, .seed = 20240607};
    assert_false(wr_sql_may_dirty(WHO)); /* or it would not be shared */
    open_with(f, 2, 5);
    while (crowd.checked < TOTAL) {
        assert_true(harness_until(&f->h, wave_is_over, &crowd, 60000));
        for (const struct job *job = f->h.jobs; job != NULL; job = job->next) check_tenant(&crowd, job);
        harness_forget_jobs(&f->h);
    }
    assert_true(crowd.ends[WEIR_CALL_OK] > TOTAL * 85 / 100);
    assert_true(crowd.ends[WEIR_CALL_CANCELLED] > 1000);
    assert_true(crowd.ends[WEIR_CALL_TIMEOUT] > 100);
    assert_true(crowd.ends[WEIR_CALL_SERVER] > 1000);
    harness_close(&f->h);
}

int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_gets_its_own_answer_between_those_that_fail),
        cmocka_unit_test(a_backend_that_dies_takes_only_those_behind_it_and_they_are_safe),
        cmocka_unit_test(who_boards_a_connection_that_has_died_takes_no_answer_from_the_others),
        cmocka_unit_test(those_who_lost_their_connection_try_again_and_succeed),
        cmocka_unit_test(a_caller_who_gives_up_cancels_nobody),
        cmocka_unit_test(when_all_have_given_up_the_server_is_told),
        cmocka_unit_test(a_deadline_ends_its_own_statement_on_the_server),
        cmocka_unit_test(a_server_that_stands_still_costs_the_lane_and_not_the_calls),
        cmocka_unit_test(a_table_changed_under_a_full_lane_makes_no_call_fail),
        cmocka_unit_test(statements_that_vanish_on_the_server_are_made_again),
        cmocka_unit_test(more_texts_than_may_be_prepared_make_room_while_under_way),
        cmocka_unit_test(each_runs_under_its_own_name_and_time_limit),
        cmocka_unit_test(a_read_that_writes_is_refused_by_the_server),
        cmocka_unit_test(large_answers_and_questions_pass_through_a_lane),
        cmocka_unit_test(nobody_among_a_hundred_thousand_sees_the_other_tenant),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
