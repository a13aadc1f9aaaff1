/* A simulated server without faults: queueing against theory, the connection limit, time limits, cancels, orphans,
 * savepoints, rules. */
#include "sim_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void start(struct sim_fixture *f, uint64_t seed)
{
    sim_prepare(f, seed);
    f->options.health_interval_ns = 0;
    f->options.retries = 0;
    sim_server_exact(f);
    sim_open(f);
}

/* ---- queueing ---------------------------------------------------------------------------------------------------- */

struct crowd { /* arrivals of a Poisson process, straight to the server: there is a connection for each */
    struct sim_fixture *f;
    weir_sim_alarm next;
    double per_second;
    unsigned left, ended;
    double total_s;         /* of all latencies */
    double short_s, long_s; /* by the text of the statement */
    unsigned shorts, longs;
};

struct arrival {
    struct crowd *crowd;
    uint64_t at;
    bool is_long;
};

static void crowd_ended(void *user, weir_call *call)
{
    struct arrival *arrival = user;
    struct crowd *crowd = arrival->crowd;
    double took = (double)(weir_sim_now_ns(crowd->f->sim) - arrival->at) / 1e9;
    assert_int_equal(sim_code(call), WEIR_CALL_OK);
    crowd->ended++;
    crowd->total_s += took;
    *(arrival->is_long ? &crowd->long_s : &crowd->short_s) += took;
    *(arrival->is_long ? &crowd->longs : &crowd->shorts) += 1;
    weir_call_free(call);
    free(arrival);
}

static void crowd_arrives(void *ctx)
{
    struct crowd *crowd = ctx;
    struct sim_fixture *f = crowd->f;
    char why[WEIR_WHY_MAX] = "";
    weir_call *call = NULL;
    struct arrival *arrival = malloc(sizeof *arrival);
    assert_non_null(arrival);
    *arrival = (struct arrival){crowd, weir_sim_now_ns(f->sim), weir_sim_random(f->sim) % 10 == 0};
    weir_statement statement = {.sql = arrival->is_long ? "select big" : "select small"};
    weir_request request = {.client = "service", .context = "crowd", .notify = crowd_ended, .user = arrival};
    if (weir_submit(f->engine, &request, &statement, 1, &call, why) != WEIR_OK) fail_msg("submit: %s", why);
    if (--crowd->left == 0) return;
    double u = ((double)(weir_sim_random(f->sim) >> 11) + 0.5) * 0x1.0p-53;
    uint64_t wait = (uint64_t)(-log(u) / crowd->per_second * 1e9);
    weir_sim_alarm_set(f->sim, &crowd->next, weir_sim_now_ns(f->sim) + wait, crowd_arrives, crowd);
}

static struct crowd run_crowd(uint64_t seed, weir_sim_options options, double per_second, unsigned count)
{
    struct sim_fixture f;
    struct crowd crowd = {.f = &f, .per_second = per_second, .left = count};
    sim_prepare(&f, seed);
    options.network = options.connect = sim_seconds(0);
    options.connections_max = 2000;
    sim_server_set(&f, options);
    f.options.timeout_ns = SECONDS(3000);
    f.options.health_interval_ns = 0;
    f.options.lifetime_ns = 0;
    f.options.idle_timeout_ns = 0;
    f.options.connect_at_once = 16;
    f.clients[0].min = f.clients[0].max = 600;
    f.options.breaker.slow_rate = 1;
    sim_open(&f);
    sim_run_to(&f, AT(2)); /* all connections are made */
    assert_int_equal(sim_stats(&f).sessions, 600);
    weir_sim_alarm_set(f.sim, &crowd.next, weir_sim_now_ns(f.sim), crowd_arrives, &crowd);
    while (crowd.ended < count) sim_run_to(&f, weir_sim_now_ns(f.sim) + SECONDS(1));
    sim_close(&f);
    return crowd;
}

static weir_sim_options server_with(uint32_t workers, weir_sim_queue queue, weir_dist service)
{
    weir_sim_options options;
    weir_sim_options_defaults(&options);
    options.workers = workers;
    options.queue = queue;
    options.service = service;
    return options;
}

/* Erlang's C formula: the part of the customers who wait. */
static double erlang_c(unsigned servers, double load)
{
    double term = 1, sum = 1;
    for (unsigned k = 1; k < servers; k++) sum += term *= load / k;
    double last = term * load / servers * (servers / (servers - load));
    return last / (sum + last);
}

static void assert_near(double seen, double expected, double tolerance)
{
    if (fabs(seen - expected) <= tolerance * expected) return;
    fail_msg("%g instead of %g, off by %.1f %%", seen, expected, 100 * fabs(seen - expected) / expected);
}

static void a_fifo_server_waits_as_erlang_says(void **state)
{
    (void)state;
    const double service = 0.01, per_second = 320;
    weir_dist exponential = {.kind = WEIR_DIST_EXPONENTIAL, .a = service};
    struct crowd crowd = run_crowd(3, server_with(4, WEIR_SIM_FIFO, exponential), per_second, 150000);
    double waits = erlang_c(4, per_second * service) * service / (4 - per_second * service);
    assert_near(crowd.total_s / crowd.ended, service + waits, 0.03);
}

static void one_fifo_worker_with_even_service_waits_half_as_long(void **state)
{
    (void)state;
    const double service = 0.01, load = 0.7; /* Pollaczek and Khinchine */
    struct crowd crowd =
        run_crowd(4, server_with(1, WEIR_SIM_FIFO, sim_seconds(service)), load / service, 60000);
    assert_near(crowd.total_s / crowd.ended, service + service * load / (2 * (1 - load)), 0.03);
}

static void a_shared_server_slows_everybody_down_by_the_same_factor(void **state)
{
    (void)state;
    struct sim_fixture f;
    const double load = 0.7, small = 0.005, big = 0.05, mean = 0.9 * 0.005 + 0.1 * 0.05;
    weir_sim_options options = server_with(1, WEIR_SIM_SHARED, sim_seconds(small));
    struct crowd crowd = {.f = &f, .per_second = load / mean, .left = 60000};
    sim_prepare(&f, 5);
    options.network = options.connect = sim_seconds(0);
    options.connections_max = 2000;
    sim_server_set(&f, options);
    weir_sim_rule rule = {.text = "big", .timed = true, .service = sim_seconds(big), .writes = -1};
    assert_int_equal(weir_sim_rule_add(f.primary, &rule, NULL), WEIR_OK);
    f.options.timeout_ns = SECONDS(3000);
    f.options.health_interval_ns = f.options.lifetime_ns = f.options.idle_timeout_ns = 0;
    f.clients[0].min = f.clients[0].max = 600;
    sim_open(&f);
    sim_run_to(&f, AT(2));
    weir_sim_alarm_set(f.sim, &crowd.next, weir_sim_now_ns(f.sim), crowd_arrives, &crowd);
    while (crowd.ended < 60000) sim_run_to(&f, weir_sim_now_ns(f.sim) + SECONDS(1));
    assert_near(crowd.short_s / crowd.shorts, small / (1 - load),
                0.04); /* processor sharing: size / (1 - load) */
    assert_near(crowd.long_s / crowd.longs, big / (1 - load), 0.04);
    weir_sim_stats stats = sim_stats(&f);
    assert_near((double)stats.busy_ns / 1e9, crowd.shorts * small + crowd.longs * big, 0.001);
    assert_int_equal(stats.wasted_ns, 0);
    sim_close(&f);
}

static void statements_of_one_worker_end_in_the_order_they_came(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    weir_sim_options options = sim_server(&f);
    options.workers = 1;
    sim_server_set(&f, options);
    f.clients[0].min = 5;
    f.options.health_interval_ns = 0;
    sim_open(&f);
    sim_run_to(&f, AT(1));
    weir_call *calls[5];
    for (int i = 0; i < 5; i++) calls[i] = sim_submit(&f, (weir_request){0}, "select 1", NULL);
    for (int i = 0; i < 5; i++) {
        sim_wait(&f, calls[i]);
        sim_expect_well(calls[i]);
        sim_assert_ms(&f, 1000 + 2 + 10 * (i + 1));
    }
    assert_int_equal(sim_stats(&f).waiting_max, 4);
    assert_int_equal(sim_stats(&f).busy_ns, MS(50));
    for (int i = 0; i < 5; i++) weir_call_free(calls[i]);
    sim_close(&f);
}

static void workers_may_be_added_while_others_wait(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    weir_sim_options options = sim_server(&f);
    options.workers = 1;
    options.service = sim_seconds(1);
    sim_server_set(&f, options);
    f.clients[0].min = 3;
    sim_open(&f);
    sim_run_to(&f, AT(1));
    weir_call *calls[3];
    for (int i = 0; i < 3; i++) calls[i] = sim_submit(&f, (weir_request){0}, "select 1", NULL);
    sim_run_to(&f, AT(1) + MS(501));
    options.workers = 3;
    sim_server_set(&f, options);
    options.queue = WEIR_SIM_SHARED;
    char why[WEIR_WHY_MAX];
    assert_int_equal(weir_sim_server_set(f.primary, &options, why), WEIR_EINVAL);
    assert_string_equal(why, "queue cannot change while 3 statements run");
    for (int i = 0; i < 3; i++) {
        sim_wait(&f, calls[i]);
        sim_assert_ms(&f, i == 0 ? 2002 : 2502);
        weir_call_free(calls[i]);
    }
    sim_close(&f);
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static void one_session_too_many_is_refused_with_53300(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    weir_sim_options options = sim_server(&f);
    options.connections_max = 1;
    sim_server_set(&f, options);
    f.options.retries = 0;
    f.options.health_interval_ns = 0;
    sim_open(&f);
    weir_call *holder = sim_begin(&f, (weir_request){0});
    weir_call *other = sim_call(&f, (weir_request){.client = "anon", .claims = "{}"}, "select 1", NULL);
    sim_expect(other, (struct sim_end){WEIR_CALL_CONNECT, WEIR_CLASS_SAFE, WEIR_OUTCOME_NONE,
                                       WEIR_PHASE_NOT_SENT, "53300", 1});
    assert_int_equal(sim_stats(&f).connects_refused, 1);
    assert_int_equal(sim_stats(&f).sessions, 1);
    weir_call_free(other);
    sim_finish(&f, holder, WEIR_COMMIT);
    weir_call_free(holder);
    sim_close(&f);
}

static void connects_are_work_on_a_worker(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    weir_sim_options options = sim_server(&f);
    options.workers = 1;
    options.connect = sim_seconds(0.1);
    sim_server_set(&f, options);
    f.options.health_interval_ns = 0;
    sim_open(&f);
    weir_call *calls[4];
    for (int i = 0; i < 4; i++) calls[i] = sim_submit(&f, (weir_request){0}, "select 1", NULL);
    for (int i = 0; i < 4; i++) sim_wait(&f, calls[i]);
    assert_int_equal(sim_stats(&f).connects_in_a_second_max, 4);
    assert_in_range(sim_stats(&f).busy_ns, MS(4 * 100 + 4 * 10), MS(4 * 100 + 4 * 10));
    assert_true(sim_ms(&f) >= 410); /* the last of four had to wait for the others */
    for (int i = 0; i < 4; i++) weir_call_free(calls[i]);
    sim_close(&f);
}

static void the_engine_is_told_how_long_a_connect_took(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    weir_sim_options options = sim_server(&f);
    options.connect = sim_seconds(0.25);
    sim_server_set(&f, options);
    sim_open(&f);
    weir_call_free(sim_call(&f, (weir_request){0}, "select 1", NULL));
    static char text[65536];
    weir_stats_json(f.engine, text, sizeof text);
    const char *connect = strstr(text, "\"connect_ms\"");
    assert_non_null(connect);
    double most = 0;
    const char *max = strstr(connect, "\"max\":");
    assert_non_null(max);
    most = strtod(max + 6, NULL);
    if (most < 252 || most > 260) fail_msg("%.100s", connect);
    sim_close(&f);
}

/* ---- limits and cancels ---------------------------------------------------------------------------------------------- */

static void slow_statements(struct sim_fixture *f, double seconds, bool ignores_cancel)
{
    weir_sim_options options = sim_server(f);
    options.service = sim_seconds(seconds);
    options.ignores_cancel = ignores_cancel;
    sim_server_set(f, options);
}

static void a_statement_that_takes_too_long_ends_rolled_back(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    slow_statements(&f, 5, false);
    weir_call *call = sim_call(&f, (weir_request){.timeout_ns = MS(100)}, "insert into t values ($1)", "7");
    assert_int_equal(sim_code(call), WEIR_CALL_TIMEOUT);
    assert_int_equal(weir_call_error(call)->outcome, WEIR_OUTCOME_ROLLED_BACK);
    assert_string_equal(weir_call_error(call)->sqlstate, "57014");
    assert_in_range((uint64_t)sim_ms(&f), 100, 110);
    assert_int_equal(weir_sim_executions(f.sim, "7"), 0);
    weir_call_free(call);
    sim_run_to(&f, AT(10));
    assert_in_range(sim_stats(&f).busy_ns, MS(95), MS(105));
    sim_close(&f);
}

static void a_cancel_of_the_caller_stops_the_statement(void **state)
{
    (void)state;
    struct sim_fixture f;
    for (int queue = WEIR_SIM_FIFO; queue <= WEIR_SIM_SHARED; queue++) {
        sim_prepare(&f, 1);
        sim_server_exact(&f);
        weir_sim_options options = sim_server(&f);
        options.queue = (weir_sim_queue)queue;
        sim_server_set(&f, options);
        f.options.health_interval_ns = 0;
        sim_open(&f);
        slow_statements(&f, 5, false);
        weir_call *call = sim_submit(&f, (weir_request){0}, "insert into t values ($1)", "7");
        sim_run_to(&f, AT(1));
        weir_call_cancel(call);
        assert_int_equal(sim_code(call), WEIR_CALL_CANCELLED);
        weir_call_free(call);
        sim_run_to(&f, AT(2));
        weir_sim_stats stats = sim_stats(&f);
        assert_int_equal(stats.running, 0);
        assert_int_equal(stats.cancels, 1);
        assert_int_equal(stats.sessions, 1); /* the connection is used again */
        assert_in_range(stats.busy_ns, MS(990), MS(1010));
        weir_call *after = sim_call(&f, (weir_request){.timeout_ns = SECONDS(8)}, "select 1", NULL);
        sim_expect_well(after);
        assert_int_equal(sim_stats(&f).connects, 1);
        weir_call_free(after);
        sim_run_to(&f, AT(9));
        assert_int_equal(weir_sim_executions(f.sim, "7"), 0);
        sim_close(&f);
    }
}

static void a_cancel_that_finds_nothing_is_repeated(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    slow_statements(&f, 5, false);
    weir_call_free(sim_begin(&f, (weir_request){0})); /* a connection is there */
    sim_run_to(&f, AT(1));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_LATENCY, .seconds = 0.3});
    weir_call *call = sim_submit(&f, (weir_request){0}, "select 1", NULL);
    sim_run_to(&f, weir_sim_now_ns(f.sim) + MS(10));
    weir_sim_heal(f.primary, WEIR_SIM_LATENCY); /* the cancel overtakes the statement */
    weir_call_cancel(call);
    weir_call_free(call);
    sim_run_to(&f, AT(3));
    assert_int_equal(sim_stats(&f).running, 0);
    assert_in_range(sim_stats(&f).cancels, 2, 7);
    sim_close(&f);
}

static void who_ignores_cancels_works_on_for_nobody(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    slow_statements(&f, 5, true);
    weir_call *call = sim_call(&f, (weir_request){.timeout_ns = MS(100)}, "insert into t values ($1)", "7");
    sim_expect(call, (struct sim_end){WEIR_CALL_TIMEOUT, WEIR_CLASS_UNKNOWN, WEIR_OUTCOME_UNKNOWN,
                                      WEIR_PHASE_SENT, "", 1});
    weir_call_free(call);
    assert_int_equal(weir_sim_executions(f.sim, "7"), 0);
    sim_run_to(&f, AT(20));
    assert_int_equal(weir_sim_executions(f.sim, "7"), 1); /* an UNKNOWN that is there */
    assert_int_equal(sim_stats(&f).busy_ns, MS(5001));
    sim_close(&f);
}

static void an_orphan_runs_on_and_is_wasted(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    f.options.cancel_wait_ns = MS(500);
    f.options.health_interval_ns = 0;
    sim_open(&f);
    slow_statements(&f, 5, true);
    weir_call *call = sim_call(&f, (weir_request){.timeout_ns = MS(100)}, "insert into t values ($1)", "7");
    weir_call_free(call);
    sim_run_to(&f, AT(2));
    assert_int_equal(sim_stats(&f).running, 1);
    assert_int_equal(sim_stats(&f).sessions, 1); /* a dead client stops nothing */
    sim_run_to(&f, AT(6));
    assert_int_equal(weir_sim_executions(f.sim, "7"), 1);
    assert_int_equal(sim_stats(&f).wasted_ns, MS(5001));
    assert_int_equal(sim_stats(&f).sessions, 0);
    sim_close(&f);
}

static void a_cancel_arrives_though_its_connection_was_closed_meanwhile(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    f.options.cancel_wait_ns = MS(500);
    f.options.health_interval_ns = 0;
    sim_open(&f);
    slow_statements(&f, 30, false);
    weir_call *call =
        sim_submit(&f, (weir_request){.timeout_ns = SECONDS(60)}, "insert into t values ($1)", "7");
    sim_run_to(&f, AT(1));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_LATENCY, .seconds = 1});
    weir_call_cancel(call); /* takes three seconds to get there; the connection is given up after a half */
    weir_call_free(call);
    sim_run_to(&f, AT(3));
    assert_int_equal(sim_stats(&f).running, 1);
    sim_run_to(&f, AT(5));
    assert_int_equal(sim_stats(&f).running, 0);
    assert_int_equal(sim_stats(&f).cancels, 1);
    assert_int_equal(sim_stats(&f).sessions, 0);
    assert_int_equal(weir_sim_executions(f.sim, "7"), 0);
    sim_close(&f);
}

static void a_world_may_end_with_a_cancel_on_its_way(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    f.options.cancel_wait_ns = MS(500);
    sim_open(&f);
    slow_statements(&f, 30, false);
    weir_call *call = sim_submit(&f, (weir_request){.timeout_ns = SECONDS(60)}, "select 1", NULL);
    sim_run_to(&f, AT(1));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_LATENCY, .seconds = 1});
    weir_call_cancel(call);
    weir_call_free(call);
    sim_run_to(&f, AT(2));
    sim_close(&f);
}

static void a_world_may_end_in_the_middle_of_everything(void **state)
{
    (void)state;
    for (int queue = WEIR_SIM_FIFO; queue <= WEIR_SIM_SHARED; queue++) {
        for (unsigned ms = 0; ms < 40; ms++) {
            struct sim_fixture f;
            sim_prepare(&f, ms + 1);
            weir_sim_options options = sim_server(&f);
            options.queue = (weir_sim_queue)queue;
            options.workers = 2;
            options.service = options.connect = sim_seconds(0.010);
            options.network = sim_seconds(0.003);
            sim_server_set(&f, options);
            sim_open(&f);
            weir_call *calls[6];
            for (int i = 0; i < 6; i++) calls[i] = sim_submit(&f, (weir_request){0}, "select 1", NULL);
            sim_run_to(&f, WEIR_SIM_START + MS(ms));
            for (int i = 0; i < 6; i++) weir_call_free(calls[i]);
            weir_free(f.engine);
            f.engine = NULL;
            sim_close(&f);
        }
    }
}

/* ---- transactions ---------------------------------------------------------------------------------------------------- */

static void a_unit_takes_effect_as_a_whole(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    weir_call *call = sim_begin(&f, (weir_request){0});
    assert_string_equal(sim_send(&f, call, "insert into t values ($1)", "1"), "");
    assert_string_equal(sim_send(&f, call, "insert into t values ($1)", "2"), "");
    assert_int_equal(weir_sim_executions(f.sim, "1"), 0);
    sim_finish(&f, call, WEIR_COMMIT);
    sim_expect_well(call);
    assert_int_equal(weir_sim_executions(f.sim, "1"), 1);
    assert_int_equal(weir_sim_executions(f.sim, "2"), 1);
    assert_int_equal(sim_stats(&f).writes, 2);
    weir_call_free(call);
    sim_close(&f);
}

static void a_unit_rolled_back_leaves_nothing(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    weir_call *call = sim_begin(&f, (weir_request){0});
    assert_string_equal(sim_send(&f, call, "insert into t values ($1)", "1"), "");
    sim_finish(&f, call, WEIR_ROLLBACK);
    assert_int_equal(sim_code(call), WEIR_CALL_ROLLED_BACK);
    weir_call_free(call);
    sim_run_to(&f, AT(1));
    assert_int_equal(weir_sim_executions(f.sim, "1"), 0);
    assert_int_equal(sim_stats(&f).rollbacks, 1);
    assert_int_equal(sim_stats(&f).writes, 0);
    sim_close(&f);
}

static void savepoints_go_by_their_names(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    weir_call *call = sim_begin(&f, (weir_request){0});
    const char *const steps[][3] = {
        {"insert into t values ($1)", "1", ""},
        {"savepoint a", NULL, ""},
        {"insert into t values ($1)", "2", ""},
        {"SAVEPOINT b", NULL, ""},
        {"insert into t values ($1)", "3", ""},
        {"savepoint c;", NULL, ""},
        {"release savepoint c", NULL, ""},
        {"rollback to savepoint c", NULL, "3B001"},
        {"insert into t values ($1)", "4", "25P02"},
        {"ROLLBACK TO A", NULL, ""},
        {"insert into t values ($1)", "5", ""},
        {"rollback to b", NULL, "3B001"},
        {"rollback to a", NULL, ""},
        {"insert into t values ($1)", "6", ""},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const char *said = sim_send(&f, call, steps[i][0], steps[i][1]);
        const char *expected =
            strcmp(steps[i][2], "25P02") == 0 ? "3B001" : steps[i][2]; /* the first failure is kept */
        if (strcmp(said, expected) != 0) fail_msg("%s: '%s' instead of '%s'", steps[i][0], said, expected);
    }
    sim_finish(&f, call, WEIR_COMMIT);
    sim_expect_well(call);
    weir_call_free(call);
    const char *const there[] = {"1", "6"}, *const gone[] = {"2", "3", "4", "5"};
    for (size_t i = 0; i < 2; i++) assert_int_equal(weir_sim_executions(f.sim, there[i]), 1);
    for (size_t i = 0; i < 4; i++) assert_int_equal(weir_sim_executions(f.sim, gone[i]), 0);
    assert_int_equal(sim_stats(&f).writes, 2);
    sim_close(&f);
}

static void more_savepoints_than_are_kept_cost_the_outermost(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    char sql[40];
    weir_call *call = sim_begin(&f, (weir_request){0});
    for (int i = 0; i < 20; i++) {
        (void)snprintf(sql, sizeof sql, "savepoint s%d", i);
        assert_string_equal(sim_send(&f, call, sql, NULL), "");
        assert_string_equal(sim_send(&f, call, "insert into t values ($1)", "9"), "");
    }
    assert_string_equal(sim_send(&f, call, "rollback to s19", NULL), "");
    assert_string_equal(sim_send(&f, call, "rollback to s5", NULL), "");
    sim_finish(&f, call, WEIR_COMMIT);
    weir_call_free(call);
    assert_int_equal(weir_sim_executions(f.sim, "9"), 5);
    sim_close(&f);
}

static void a_swallowed_error_is_told_at_commit(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    weir_sim_rule rule = {.text = "bad", .sqlstate = "23505", .message = "there is one", .writes = -1};
    assert_int_equal(weir_sim_rule_add(f.primary, &rule, NULL), WEIR_OK);
    weir_call *call = sim_begin(&f, (weir_request){0});
    assert_string_equal(sim_send(&f, call, "insert into t values ($1)", "1"), "");
    assert_string_equal(sim_send(&f, call, "insert into bad values ($1)", "2"), "23505");
    double before = sim_ms(&f);
    assert_string_equal(sim_send(&f, call, "select 1", NULL), "23505"); /* 25P02, which says less */
    sim_assert_ms(&f, before + 2);                                      /* and is said at once */
    sim_finish(&f, call, WEIR_COMMIT);
    assert_int_equal(sim_code(call), WEIR_CALL_ABORTED);
    assert_int_equal(weir_sim_executions(f.sim, "1"), 0);
    weir_call_free(call);
    sim_close(&f);
}

static void a_read_only_transaction_writes_nothing(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    weir_call *call = sim_call(&f, (weir_request){.readonly = true}, "insert into t values ($1)", "1");
    sim_expect(call, (struct sim_end){WEIR_CALL_SERVER, WEIR_CLASS_PERMANENT, WEIR_OUTCOME_ROLLED_BACK,
                                      WEIR_PHASE_DONE, "25006", 1});
    weir_call_free(call);
    call = sim_begin(&f, (weir_request){.readonly = true});
    assert_string_equal(sim_send(&f, call, "select 1", NULL), "");
    assert_string_equal(sim_send(&f, call, "insert into t values ($1)", "1"), "25006");
    sim_finish(&f, call, WEIR_FAILED);
    weir_call_free(call);
    assert_int_equal(weir_sim_executions(f.sim, "1"), 0);
    sim_close(&f);
}

static void the_session_is_reset_after_what_may_have_changed_it(void **state)
{
    (void)state;
    struct sim_fixture f;
    static char text[65536];
    start(&f, 1);
    weir_call_free(sim_call(&f, (weir_request){0}, "select 1", NULL));
    weir_call_free(sim_call(&f, (weir_request){0}, "listen news", NULL));
    sim_run_to(&f, AT(1));
    weir_stats_json(f.engine, text, sizeof text);
    assert_non_null(strstr(text, "\"resets\":1"));
    sim_close(&f);
}

/* ---- rules ---------------------------------------------------------------------------------------------------------- */

static void a_rule_answers_with_rows_for_whoever_asks(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    static const char *const names[] = {"id", "name"}, *const values[] = {"1", "ada", "2", NULL};
    static const uint32_t types[] = {20, 25};
    weir_sim_rule rule = {.text = "CONTACTS",
                          .writes = -1,
                          .names = names,
                          .types = types,
                          .columns = 2,
                          .rows = 2,
                          .values = values};
    assert_int_equal(weir_sim_rule_add(f.primary, &rule, NULL), WEIR_OK);
    weir_call *insert = sim_call(&f, (weir_request){0}, "insert into contacts values ($1) returning *", "5");
    weir_call *select = sim_call(&f, (weir_request){0}, "select * from contacts", NULL);
    const weir_result *rows = weir_call_result(select, 0);
    assert_int_equal(weir_result_rows(rows), 2);
    assert_int_equal(weir_result_columns(rows), 2);
    assert_string_equal(weir_result_name(rows, 1), "name");
    assert_int_equal(weir_result_type(rows, 0), 20);
    assert_string_equal(weir_result_value(rows, 0, 1, NULL), "ada");
    assert_null(weir_result_value(rows, 1, 1, NULL));
    assert_string_equal(weir_result_tag(rows), "SELECT 2");
    assert_string_equal(weir_result_tag(weir_call_result(insert, 0)), "INSERT 0 2");
    weir_call_free(select);
    weir_sim_rules_clear(f.primary);
    weir_call *usual = sim_call(&f, (weir_request){0}, "select * from contacts", NULL);
    assert_string_equal(weir_result_value(weir_call_result(usual, 0), 0, 0, NULL), "1");
    weir_call_free(usual);
    weir_engine *engine = f.engine; /* results outlive the engine and the world */
    weir_sim_bind(f.host, NULL);
    weir_free(engine);
    f.engine = NULL;
    sim_close(&f);
    assert_string_equal(weir_result_value(weir_call_result(insert, 0), 0, 1, NULL), "ada");
    weir_call_free(insert);
}

static void the_first_rule_that_fits_rules(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    weir_sim_rule first = {.text = "orders", .writes = -1, .sqlstate = "40001", .message = "again"};
    weir_sim_rule second = {.text = "insert into orders", .writes = 0};
    weir_sim_rule effect = {.text = "select note", .writes = 1, .timed = true, .service = sim_seconds(0.5)};
    assert_int_equal(weir_sim_rule_add(f.primary, &first, NULL), WEIR_OK);
    assert_int_equal(weir_sim_rule_add(f.primary, &second, NULL), WEIR_OK);
    assert_int_equal(weir_sim_rule_add(f.primary, &effect, NULL), WEIR_OK);
    weir_call *call = sim_call(&f, (weir_request){0}, "insert into orders values ($1)", "1");
    sim_expect(call, (struct sim_end){WEIR_CALL_SERVER, WEIR_CLASS_SAFE, WEIR_OUTCOME_ROLLED_BACK,
                                      WEIR_PHASE_DONE, "40001", 1});
    assert_string_equal(weir_call_error(call)->message, "again");
    weir_call_free(call);
    double before = sim_ms(&f);
    call = sim_call(&f, (weir_request){0}, "SELECT NOTE($1)", "77");
    sim_assert_ms(&f, before + 500 + 1 + 2);
    assert_int_equal(weir_sim_executions(f.sim, "77"), 1);
    weir_call_free(call);
    sim_close(&f);
}

struct asked {
    struct sim_fixture *f;
    int count;
    char seen[200];
    const char *sqlstate;
    weir_sim_fault_kind does;
    bool faults;
};

static void answer(void *ctx, const weir_sim_asked *asked, weir_sim_answer *answer)
{
    struct asked *a = ctx;
    a->count++;
    (void)snprintf(a->seen, sizeof a->seen, "%s|%s|%s|%s|%s|%d", asked->sql,
                   asked->claims == NULL ? "-" : asked->claims, asked->role == NULL ? "-" : asked->role,
                   asked->user, asked->statement->count > 0 ? asked->statement->values[0] : "-",
                   asked->in_transaction);
    assert_int_equal(asked->at_ns, weir_sim_now_ns(a->f->sim));
    assert_int_equal(asked->seen_until_ns, asked->at_ns);
    answer->sqlstate = a->sqlstate;
    if (a->faults) sim_fault(a->f, (weir_sim_fault){.kind = a->does, .after_ns = MS(100)});
}

static void a_rule_may_be_asked_at_the_moment_of_execution(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    f.clients[1].user = "authenticator";
    f.options.retries = 0;
    sim_open(&f);
    struct asked a = {.f = &f};
    weir_sim_rule rule = {.text = "t", .writes = -1, .answer = answer, .ctx = &a};
    assert_int_equal(weir_sim_rule_add(f.primary, &rule, NULL), WEIR_OK);
    weir_request anon = {.client = "anon", .claims = "{\"sub\":\"ada\"}"};
    weir_call *call = sim_call(&f, anon, "select * from t where a = $1", "x");
    assert_string_equal(a.seen, "select * from t where a = $1|{\"sub\":\"ada\"}|web_anon|authenticator|x|0");
    assert_string_equal(weir_result_value(weir_call_result(call, 0), 0, 0, NULL), "1"); /* the usual answer */
    weir_call_free(call);
    call = sim_begin(&f, anon);
    assert_string_equal(sim_send(&f, call, "select set", NULL), "");
    assert_string_equal(sim_send(&f, call, "insert into t values ($1)", "y"), "");
    assert_string_equal(a.seen, "insert into t values ($1)|{\"sub\":\"ada\"}|web_anon|authenticator|y|1");
    assert_int_equal(weir_result_affected(weir_call_result(call, 0)), 1);
    sim_finish(&f, call, WEIR_COMMIT);
    weir_call_free(call);
    a.sqlstate = "22012";
    call = sim_call(&f, (weir_request){0}, "insert into t values ($1)", "z");
    assert_string_equal(a.seen, "insert into t values ($1)|-|-||z|0");
    assert_int_equal(sim_code(call), WEIR_CALL_SERVER);
    assert_int_equal(weir_sim_executions(f.sim, "z"), 0);
    weir_call_free(call);
    sim_close(&f);
}

static void a_rule_may_bring_its_own_server_down(void **state)
{
    (void)state;
    for (weir_sim_fault_kind kind = WEIR_SIM_CRASH; kind < WEIR_SIM_FAULTS; kind++) {
        struct sim_fixture f;
        if (kind == WEIR_SIM_ERRORS || kind == WEIR_SIM_FAILOVER || kind == WEIR_SIM_SLOW) continue;
        start(&f, 1);
        struct asked a = {.f = &f, .faults = true, .does = kind};
        weir_sim_rule rule = {.text = "insert", .writes = -1, .answer = answer, .ctx = &a};
        assert_int_equal(weir_sim_rule_add(f.primary, &rule, NULL), WEIR_OK);
        weir_call *call =
            sim_call(&f, (weir_request){.timeout_ns = SECONDS(2)}, "insert into t values ($1)", "5");
        bool falls = kind == WEIR_SIM_CRASH || kind == WEIR_SIM_RESTART; /* in the middle of the statement */
        assert_int_equal(weir_sim_executions(f.sim, "5"), falls ? 0 : 1);
        assert_string_equal(weir_call_error(call) == NULL ? "" : weir_call_error(call)->sqlstate,
                            kind == WEIR_SIM_RESTART ? "57P01" : "");
        assert_int_equal(a.count, 1);
        if (sim_code(call) != WEIR_CALL_OK)
            assert_int_equal(weir_call_error(call)->outcome, WEIR_OUTCOME_UNKNOWN);
        weir_call_free(call);
        weir_sim_heal(f.primary, kind);
        sim_run_to(&f, AT(20));
        sim_close(&f);
    }
}

static void what_follows_a_failing_statement_takes_no_time(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f, 1);
    weir_sim_rule rule = {.text = "bad", .sqlstate = "23505", .writes = -1};
    assert_int_equal(weir_sim_rule_add(f.primary, &rule, NULL), WEIR_OK);
    weir_call_free(sim_call(&f, (weir_request){0}, "select 1", NULL));
    const weir_statement three[] = {{.sql = "select 1"},
                                    {.sql = "insert into bad"},
                                    {.sql = "insert into t"}};
    weir_request request = {.client = "service", .context = "three"};
    weir_call *call = NULL;
    double before = sim_ms(&f);
    assert_int_equal(weir_submit(f.engine, &request, three, 3, &call, NULL), WEIR_OK);
    while (weir_call_status(call) != WEIR_ENDED) sim_run_to(&f, weir_sim_now_ns(f.sim) + MS(1));
    sim_assert_ms(&f, before + 20 + 2);
    assert_int_equal(sim_code(call), WEIR_CALL_SERVER);
    weir_call_free(call);
    sim_close(&f);
}

/* ---- misuse ------------------------------------------------------------------------------------------------------------ */

static void what_cannot_be_is_refused_with_a_sentence(void **state)
{
    (void)state;
    struct sim_fixture f;
    char why[WEIR_WHY_MAX];
    sim_prepare(&f, 1);
    weir_sim_options o = sim_server(&f);
    o.workers = 0;
    assert_int_equal(weir_sim_server_set(f.primary, &o, why), WEIR_EINVAL);
    assert_string_equal(why, "workers is 0; it must be 1 to 100 000");
    o = sim_server(&f);
    o.connections_max = 2000000;
    assert_int_equal(weir_sim_server_set(f.primary, &o, why), WEIR_EINVAL);
    assert_string_equal(why, "connections is 2e+06; it must be 1 to 1 000 000");
    o = sim_server(&f);
    o.follows = "primary";
    assert_int_equal(weir_sim_server_set(f.primary, &o, why), WEIR_EINVAL);
    assert_string_equal(why, "follows names the server itself");
    o = sim_server(&f);
    o.service.a = -1;
    assert_int_equal(weir_sim_server_set(f.primary, &o, why), WEIR_EINVAL);
    assert_non_null(strstr(why, "service"));
    weir_sim_rule rule = {.text = ""};
    assert_int_equal(weir_sim_rule_add(f.primary, &rule, why), WEIR_EINVAL);
    rule = (weir_sim_rule){.text = "x", .sqlstate = "1"};
    assert_int_equal(weir_sim_rule_add(f.primary, &rule, why), WEIR_EINVAL);
    assert_null(weir_sim_server_named(f.sim, ""));
    assert_null(weir_sim_server_named(f.sim, "a b"));
    assert_null(weir_sim_server_named(f.sim, "a-name-that-is-much-longer-than-31-characters"));
    sim_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fifo_server_waits_as_erlang_says),
        cmocka_unit_test(one_fifo_worker_with_even_service_waits_half_as_long),
        cmocka_unit_test(a_shared_server_slows_everybody_down_by_the_same_factor),
        cmocka_unit_test(statements_of_one_worker_end_in_the_order_they_came),
        cmocka_unit_test(workers_may_be_added_while_others_wait),
        cmocka_unit_test(one_session_too_many_is_refused_with_53300),
        cmocka_unit_test(connects_are_work_on_a_worker),
        cmocka_unit_test(the_engine_is_told_how_long_a_connect_took),
        cmocka_unit_test(a_statement_that_takes_too_long_ends_rolled_back),
        cmocka_unit_test(a_cancel_of_the_caller_stops_the_statement),
        cmocka_unit_test(a_cancel_that_finds_nothing_is_repeated),
        cmocka_unit_test(who_ignores_cancels_works_on_for_nobody),
        cmocka_unit_test(an_orphan_runs_on_and_is_wasted),
        cmocka_unit_test(a_cancel_arrives_though_its_connection_was_closed_meanwhile),
        cmocka_unit_test(a_world_may_end_with_a_cancel_on_its_way),
        cmocka_unit_test(a_world_may_end_in_the_middle_of_everything),
        cmocka_unit_test(a_unit_takes_effect_as_a_whole),
        cmocka_unit_test(a_unit_rolled_back_leaves_nothing),
        cmocka_unit_test(savepoints_go_by_their_names),
        cmocka_unit_test(more_savepoints_than_are_kept_cost_the_outermost),
        cmocka_unit_test(a_swallowed_error_is_told_at_commit),
        cmocka_unit_test(a_read_only_transaction_writes_nothing),
        cmocka_unit_test(the_session_is_reset_after_what_may_have_changed_it),
        cmocka_unit_test(a_rule_answers_with_rows_for_whoever_asks),
        cmocka_unit_test(the_first_rule_that_fits_rules),
        cmocka_unit_test(a_rule_may_be_asked_at_the_moment_of_execution),
        cmocka_unit_test(a_rule_may_bring_its_own_server_down),
        cmocka_unit_test(what_follows_a_failing_statement_takes_no_time),
        cmocka_unit_test(what_cannot_be_is_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
