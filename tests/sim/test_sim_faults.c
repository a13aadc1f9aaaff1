/* Each fault of the simulation, and what exactly a caller and the books see of it. */
#include "sim_fixture.h"

#include <string.h>

/* No retries, no monitor, two connections at most: what is seen is the fault itself. */
static void prepare(struct sim_fixture *f)
{
    sim_prepare(f, 1);
    f->options.health_interval_ns = 0;
    f->options.retries = 0;
    sim_server_exact(f);
}

static void start(struct sim_fixture *f)
{
    prepare(f);
    sim_open(f);
}

static void warm_up(struct sim_fixture *f) /* one idle connection; it is a round second */
{
    weir_call *call = sim_call(f, (weir_request){0}, "select 1", NULL);
    sim_expect_well(call);
    weir_call_free(call);
    sim_run_to(f, AT(1));
}

static const char insert[] = "insert into t values ($1)";

static weir_call *write_one(struct sim_fixture *f, const char *value)
{
    return sim_call(f, (weir_request){0}, insert, value);
}

static void expect_executions(const struct sim_fixture *f, const char *value, uint32_t count)
{
    assert_int_equal(weir_sim_executions(f->sim, value), count);
}

static const struct sim_end unknown_lost = {
    WEIR_CALL_LOST, WEIR_CLASS_UNKNOWN, WEIR_OUTCOME_UNKNOWN, WEIR_PHASE_SENT, "", 1};
static const struct sim_end unknown_timeout = {
    WEIR_CALL_TIMEOUT, WEIR_CLASS_UNKNOWN, WEIR_OUTCOME_UNKNOWN, WEIR_PHASE_SENT, "", 1};

/* ---- down and up --------------------------------------------------------------------------------------------------- */

static void a_crash_ends_what_runs_and_undoes_it(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    weir_call *call = sim_submit(&f, (weir_request){0}, insert, "7");
    sim_run_to(&f, AT(1) + MS(5));
    sim_fault(&f,
              (weir_sim_fault){.kind = WEIR_SIM_CRASH, .after_ns = SECONDS(2), .recovery_ns = SECONDS(1)});
    sim_wait(&f, call);
    sim_assert_ms(&f, 1006);
    sim_expect(call, unknown_lost);
    weir_call_free(call);
    expect_executions(&f, "7", 0);
    weir_sim_stats stats = sim_stats(&f);
    assert_int_equal(stats.sessions + stats.running, 0);
    assert_int_equal(stats.busy_ns, MS(14)); /* what had been done until then counts */

    call = write_one(&f, "8"); /* nobody there */
    sim_expect(call, (struct sim_end){WEIR_CALL_CONNECT, WEIR_CLASS_SAFE, WEIR_OUTCOME_NONE,
                                      WEIR_PHASE_NOT_SENT, "", 1});
    weir_call_free(call);
    sim_run_to(&f, AT(3) + MS(500)); /* in recovery */
    call = write_one(&f, "8");
    sim_expect(call, (struct sim_end){WEIR_CALL_CONNECT, WEIR_CLASS_SAFE, WEIR_OUTCOME_NONE,
                                      WEIR_PHASE_NOT_SENT, "57P03", 1});
    weir_call_free(call);
    sim_run_to(&f, AT(4) + MS(500)); /* and up */
    call = write_one(&f, "8");
    sim_expect_well(call);
    weir_call_free(call);
    expect_executions(&f, "8", 1);
    sim_close(&f);
}

static void a_crash_without_an_end_is_ended_by_heal(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_CRASH});
    sim_run_to(&f, AT(100));
    weir_call *call = write_one(&f, "1");
    assert_int_equal(sim_code(call), WEIR_CALL_CONNECT);
    weir_call_free(call);
    weir_sim_heal(f.primary, WEIR_SIM_CRASH);
    sim_run_to(&f, AT(101));
    call = write_one(&f, "1");
    sim_expect_well(call);
    weir_call_free(call);
    sim_close(&f);
}

static void idle_connections_hear_of_a_restart(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_RESTART, .after_ns = MS(100)});
    sim_run_to(&f, AT(1) + MS(2));
    weir_held held;
    weir_held_now(f.engine, &held);
    assert_int_equal(held.idle, 0);
    sim_run_to(&f, AT(2));
    weir_call *call = write_one(&f, "1"); /* not even an attempt was lost */
    sim_expect_well(call);
    assert_int_equal(weir_call_attempt(call), 1);
    weir_call_free(call);
    sim_close(&f);
}

static void a_running_statement_is_told_57P01_by_a_restart(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    weir_call *write = sim_submit(&f, (weir_request){0}, insert, "7");
    weir_call *read = sim_submit(&f, (weir_request){.readonly = true}, "select 1", NULL);
    sim_run_to(&f, AT(1) + MS(8));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_RESTART, .after_ns = SECONDS(1)});
    sim_wait(&f, write);
    sim_wait(&f, read);
    sim_expect(write, (struct sim_end){WEIR_CALL_LOST, WEIR_CLASS_UNKNOWN, WEIR_OUTCOME_UNKNOWN,
                                       WEIR_PHASE_SENT, "57P01", 1});
    assert_string_equal(weir_call_error(write)->severity, "FATAL");
    sim_expect(read, (struct sim_end){WEIR_CALL_LOST, WEIR_CLASS_SAFE, WEIR_OUTCOME_ROLLED_BACK,
                                      WEIR_PHASE_SENT, "57P01", 1});
    weir_call_free(write);
    weir_call_free(read);
    expect_executions(&f, "7", 0);
    sim_close(&f);
}

static void a_unit_that_is_lost_between_its_statements_is_rolled_back(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    weir_call *call = sim_begin(&f, (weir_request){0});
    assert_string_equal(sim_send(&f, call, insert, "1"), "");
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_RESTART, .after_ns = MS(100)});
    sim_run_to(&f, AT(1));
    sim_finish(&f, call, WEIR_COMMIT);
    sim_expect(call, (struct sim_end){WEIR_CALL_LOST, WEIR_CLASS_SAFE, WEIR_OUTCOME_ROLLED_BACK,
                                      WEIR_PHASE_SENT, "57P01", 1});
    weir_call_free(call);
    expect_executions(&f, "1", 0);
    sim_close(&f);
}

static void a_connect_that_is_half_done_when_the_server_falls_ends(void **state)
{
    (void)state;
    for (unsigned us = 0; us < 14000; us += 250) {
        struct sim_fixture f;
        prepare(&f);
        weir_sim_options options = sim_server(&f);
        options.connect = sim_seconds(0.010);
        sim_server_set(&f, options);
        f.clients[0].max = 1; /* one lost for ever would be noticed */
        sim_open(&f);
        weir_call *call = sim_submit(&f, (weir_request){0}, insert, "1");
        sim_run_to(&f, WEIR_SIM_START + us * 1000u);
        sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_CRASH, .after_ns = MS(100)});
        sim_wait(&f, call);
        assert_true(sim_code(call) == WEIR_CALL_CONNECT || sim_code(call) == WEIR_CALL_LOST);
        weir_call_free(call);
        sim_run_to(&f, AT(1));
        assert_int_equal(sim_stats(&f).sessions, 0);
        call = sim_call(&f, (weir_request){.timeout_ns = SECONDS(1)}, insert, "2");
        sim_expect_well(call);
        weir_call_free(call);
        sim_close(&f);
    }
}

/* ---- connects ------------------------------------------------------------------------------------------------------ */

static void connects_are_refused_as_told(void **state)
{
    (void)state;
    static const struct {
        weir_sim_fault fault;
        const char *sqlstate;
        weir_class class_;
    } cases[] = {{{.kind = WEIR_SIM_REFUSE}, "53300", WEIR_CLASS_SAFE},
                 {{.kind = WEIR_SIM_REFUSE, .sqlstate = "57P03"}, "57P03", WEIR_CLASS_SAFE},
                 {{.kind = WEIR_SIM_REFUSE, .sqlstate = "-"}, "", WEIR_CLASS_SAFE},
                 {{.kind = WEIR_SIM_ROTATE}, "28P01", WEIR_CLASS_PERMANENT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim_fixture f;
        start(&f);
        warm_up(&f);
        weir_call *holder = sim_begin(&f, (weir_request){0});
        sim_fault(&f, cases[i].fault);
        weir_request anon = {.client = "anon", .claims = "{}"}; /* whose pool has no connection yet */
        weir_call *call = sim_call(&f, anon, insert, "1");
        sim_expect(call, (struct sim_end){WEIR_CALL_CONNECT, cases[i].class_, WEIR_OUTCOME_NONE,
                                          WEIR_PHASE_NOT_SENT, cases[i].sqlstate, 1});
        weir_call_free(call);
        assert_string_equal(sim_send(&f, holder, insert, "2"), ""); /* who is in stays in */
        sim_finish(&f, holder, WEIR_COMMIT);
        sim_expect_well(holder);
        weir_call_free(holder);
        weir_sim_heal(f.primary, cases[i].fault.kind);
        call = sim_call(&f, anon, insert, "1");
        sim_expect_well(call);
        weir_call_free(call);
        expect_executions(&f, "1", 1);
        expect_executions(&f, "2", 1);
        sim_close(&f);
    }
}

/* ---- slow, frozen, far away ------------------------------------------------------------------------------------------ */

static void a_slow_server_takes_so_many_times_as_long(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_SLOW, .factor = 10, .lasts_ns = SECONDS(1)});
    weir_call_free(sim_call(&f, (weir_request){0}, "select 1", NULL));
    sim_assert_ms(&f, 1102);
    sim_run_to(&f, AT(2)); /* it is over by itself */
    weir_call_free(sim_call(&f, (weir_request){0}, "select 1", NULL));
    sim_assert_ms(&f, 2012);
    sim_close(&f);
}

static void latency_is_added_each_way(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_LATENCY, .seconds = 0.25});
    weir_call_free(sim_call(&f, (weir_request){0}, "select 1", NULL));
    sim_assert_ms(&f, 1512);
    sim_close(&f);
}

static void with_queue(struct sim_fixture *f, int queue)
{
    weir_sim_options options = sim_server(f);
    options.queue = (weir_sim_queue)queue;
    options.service = sim_seconds(1);
    sim_server_set(f, options);
}

static void a_frozen_server_goes_on_where_it_stood(void **state)
{
    (void)state;
    for (int queue = WEIR_SIM_FIFO; queue <= WEIR_SIM_SHARED; queue++) {
        struct sim_fixture f;
        prepare(&f);
        with_queue(&f, queue);
        f.options.timeout_ns = SECONDS(60);
        sim_open(&f);
        weir_call *call = sim_submit(&f, (weir_request){0}, insert, "1"); /* connected at 2, begins at 3 ms */
        sim_run_to(&f, WEIR_SIM_START + MS(503));
        sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FREEZE, .lasts_ns = SECONDS(2)});
        sim_run_to(&f, WEIR_SIM_START + MS(2603)); /* on for 100 ms, then once more */
        sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FREEZE, .lasts_ns = SECONDS(3)});
        sim_wait(&f, call);
        sim_assert_ms(&f, 3 + 1001 + 2000 + 3000 + 1);
        sim_expect_well(call);
        weir_call_free(call);
        assert_int_equal(sim_stats(&f).busy_ns, MS(1001));
        sim_close(&f);
    }
}

static void a_frozen_server_given_more_workers_starts_nobody(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    with_queue(&f, WEIR_SIM_FIFO);
    weir_sim_options options = sim_server(&f);
    options.workers = 1;
    sim_server_set(&f, options);
    sim_open(&f);
    weir_call *first = sim_submit(&f, (weir_request){0}, insert, "1");
    weir_call *second = sim_submit(&f, (weir_request){0}, insert, "2");
    sim_run_to(&f, WEIR_SIM_START + MS(500)); /* one runs, the other waits for the worker */
    assert_int_equal(sim_stats(&f).waiting, 1);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FREEZE, .lasts_ns = SECONDS(2)});
    options.workers = 2;
    sim_server_set(&f, options);
    assert_int_equal(sim_stats(&f).running, 1);
    sim_run_to(&f, WEIR_SIM_START + MS(2501)); /* thawed: now it has its worker */
    assert_int_equal(sim_stats(&f).running, 2);
    sim_wait(&f, first);
    sim_wait(&f, second);
    sim_expect_well(first);
    sim_expect_well(second);
    weir_call_free(first);
    weir_call_free(second);
    sim_close(&f);
}

static void a_statement_arriving_at_a_frozen_server_waits_there(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FREEZE, .lasts_ns = SECONDS(2)});
    weir_call *call = write_one(&f, "1");
    sim_expect_well(call);
    sim_assert_ms(&f, 3000 + 11 + 1);
    weir_call_free(call);
    sim_close(&f);
}

static void time_limits_fire_as_a_frozen_server_thaws(void **state)
{
    (void)state;
    for (int queue = WEIR_SIM_FIFO; queue <= WEIR_SIM_SHARED; queue++) {
        struct sim_fixture f;
        prepare(&f);
        with_queue(&f, queue);
        f.options.cancel_wait_ns = SECONDS(1); /* it has been given up long before */
        sim_open(&f);
        weir_call *call = sim_submit(&f, (weir_request){.timeout_ns = MS(900)}, insert, "1");
        sim_run_to(&f, WEIR_SIM_START + MS(503));
        sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FREEZE, .lasts_ns = SECONDS(10)});
        sim_wait(&f, call);
        sim_expect(call, unknown_timeout);
        sim_assert_ms(&f, 980);
        weir_call_free(call);
        sim_run_to(&f, AT(10) + MS(502));
        assert_int_equal(sim_stats(&f).sessions, 1);
        sim_run_to(&f, AT(10) + MS(504));
        assert_int_equal(sim_stats(&f).sessions, 0); /* statement_timeout, at the very moment */
        assert_int_equal(sim_stats(&f).busy_ns, MS(500));
        expect_executions(&f, "1", 0);
        sim_close(&f);
    }
}

static void a_cancel_that_lay_at_a_frozen_server_takes_effect_as_it_thaws(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    with_queue(&f, WEIR_SIM_FIFO);
    weir_sim_options options = sim_server(&f);
    options.service = sim_seconds(60);
    sim_server_set(&f, options);
    f.options.cancel_wait_ns = SECONDS(1);
    sim_open(&f);
    weir_call *call = sim_submit(&f, (weir_request){.timeout_ns = SECONDS(50)}, insert, "1");
    sim_run_to(&f, AT(1));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FREEZE, .lasts_ns = SECONDS(10)});
    weir_call_cancel(call);
    weir_call_free(call);
    sim_run_to(&f, AT(10));
    assert_int_equal(sim_stats(&f).cancels, 0);
    sim_run_to(&f, AT(11) + MS(1));
    assert_int_equal(sim_stats(&f).cancels, 1);
    assert_int_equal(sim_stats(&f).running, 0);
    assert_int_equal(sim_stats(&f).sessions, 0);
    sim_close(&f);
}

static void a_server_may_fall_while_it_is_frozen(void **state)
{
    (void)state;
    for (int queue = WEIR_SIM_FIFO; queue <= WEIR_SIM_SHARED; queue++) {
        struct sim_fixture f;
        prepare(&f);
        with_queue(&f, queue);
        sim_open(&f);
        weir_call *running = sim_submit(&f, (weir_request){0}, insert, "1");
        sim_run_to(&f, WEIR_SIM_START + MS(503));
        sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FREEZE, .lasts_ns = SECONDS(10)});
        weir_call *waiting = sim_submit(&f, (weir_request){0}, insert, "2");
        sim_run_to(&f, AT(1));
        sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_CRASH, .after_ns = SECONDS(1)});
        sim_wait(&f, running);
        sim_wait(&f, waiting);
        sim_expect(running, unknown_lost);
        assert_int_equal(sim_code(waiting), WEIR_CALL_CONNECT);
        weir_call_free(running);
        weir_call_free(waiting);
        sim_run_to(&f, AT(20));
        weir_call *call = write_one(&f, "3");
        sim_expect_well(call);
        weir_call_free(call);
        sim_close(&f);
    }
}

/* ---- the black hole ---------------------------------------------------------------------------------------------------- */

static void a_request_made_in_the_hole_arrives_when_tcp_sends_it_again(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    f.options.timeout_ns = SECONDS(1);
    f.options.cancel_wait_ns = SECONDS(1);
    sim_open(&f);
    warm_up(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_VANISH, .lasts_ns = SECONDS(5)});
    weir_call *call = write_one(&f, "7");
    sim_expect(call, unknown_timeout);
    weir_call_free(call);
    sim_run_to(&f, AT(6));
    expect_executions(&f, "7", 0);
    assert_int_equal(sim_stats(&f).sessions, 1); /* nobody told the server that its client has gone */
    sim_run_to(&f, AT(7) + MS(199)); /* sent at 1.0; again after 0.2, 0.6, 1.4, 3.0, 6.2 s: at 7.2 */
    expect_executions(&f, "7", 0);
    sim_run_to(&f, AT(7) + MS(230));
    expect_executions(&f, "7", 1); /* an UNKNOWN that is there, though its client left */
    assert_int_equal(sim_stats(&f).sessions, 0);
    assert_int_equal(sim_stats(&f).wasted_ns, MS(11));
    sim_close(&f);
}

static void a_call_that_waits_long_enough_gets_its_answer_after_the_hole(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_VANISH, .lasts_ns = MS(300)});
    weir_call *call = write_one(&f, "7");
    sim_expect_well(call);
    sim_assert_ms(&f, 1000 + 600 + 1 + 11 + 1);
    weir_call_free(call);
    sim_close(&f);
}

static void an_answer_lost_in_the_hole_comes_later(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    weir_call *call = sim_submit(&f, (weir_request){0}, insert, "7");
    sim_run_to(&f, AT(1) + MS(5));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_VANISH, .lasts_ns = SECONDS(1)});
    sim_wait(&f, call);
    sim_expect_well(call);
    sim_assert_ms(&f, 1012 + 1400 + 1); /* answered at 1.012; again after 0.2, 0.6, 1.4 s */
    weir_call_free(call);
    sim_close(&f);
}

static void the_end_of_a_connection_told_into_the_hole_is_heard_later(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    weir_held held;
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_VANISH, .lasts_ns = SECONDS(5)});
    sim_run_to(&f, AT(2));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_RESTART, .after_ns = MS(100)});
    sim_run_to(&f, AT(5));
    weir_held_now(f.engine, &held);
    assert_int_equal(held.idle, 1); /* it looks alive */
    sim_run_to(&f, AT(9));
    weir_held_now(f.engine, &held);
    assert_int_equal(held.idle, 0);
    weir_call *call = write_one(&f, "1");
    sim_expect_well(call);
    assert_int_equal(weir_call_attempt(call), 1);
    weir_call_free(call);
    sim_close(&f);
}

static void a_connect_given_up_in_the_hole_is_not_tried_again(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    f.options.connect_timeout_ns = SECONDS(2);
    sim_open(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_VANISH, .lasts_ns = SECONDS(30)});
    weir_call *call = write_one(&f, "1");
    sim_expect(call, (struct sim_end){WEIR_CALL_CONNECT, WEIR_CLASS_SAFE, WEIR_OUTCOME_NONE,
                                      WEIR_PHASE_NOT_SENT, "", 1});
    sim_assert_ms(&f, 2000);
    weir_call_free(call);
    sim_run_to(&f, AT(200));
    assert_int_equal(sim_stats(&f).connects, 0);
    sim_close(&f);
}

static void a_forgotten_connection_never_answers_again(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    f.options.timeout_ns = SECONDS(1);
    f.options.cancel_wait_ns = SECONDS(1);
    sim_open(&f);
    warm_up(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_VANISH, .lasts_ns = SECONDS(5), .forgotten = true});
    weir_call *first = write_one(&f, "7");
    sim_expect(first, unknown_timeout);
    weir_call_free(first);
    sim_run_to(&f, AT(100));
    expect_executions(&f, "7", 0);
    assert_int_equal(sim_stats(&f).sessions, 1); /* a ghost: its place is taken for hours */
    weir_call *next = write_one(&f, "8");
    sim_expect_well(next); /* on a new connection */
    weir_call_free(next);
    assert_int_equal(sim_stats(&f).sessions, 2);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_RESTART, .after_ns = MS(10)});
    assert_int_equal(sim_stats(&f).sessions, 0);
    sim_run_to(&f, AT(101));
    sim_close(&f);
}

static void an_idle_connection_that_was_forgotten_looks_alive(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    f.options.timeout_ns = SECONDS(1);
    f.options.cancel_wait_ns = SECONDS(1);
    sim_open(&f);
    warm_up(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_VANISH, .lasts_ns = MS(10), .forgotten = true});
    sim_run_to(&f, AT(2));
    weir_call *call = write_one(&f, "7");
    sim_expect(call, unknown_timeout);
    weir_call_free(call);
    sim_run_to(&f, AT(60));
    expect_executions(&f, "7", 0);
    call = write_one(&f, "8");
    sim_expect_well(call);
    weir_call_free(call);
    sim_close(&f);
}

/* ---- resets, in each of the five phases ------------------------------------------------------------------------------------ */

static weir_sim_fault reset_at(weir_sim_phase phase)
{
    return (weir_sim_fault){.kind = WEIR_SIM_RESET, .phase = phase, .rate = 1, .count = 1};
}

static void a_reset_before_anything_was_sent_is_safe(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    warm_up(&f);
    sim_fault(&f, reset_at(WEIR_SIM_BEFORE_SEND));
    weir_call *call = write_one(&f, "1"); /* the pool takes another connection, and that was all */
    sim_expect_well(call);
    weir_call_free(call);
    expect_executions(&f, "1", 1);
    assert_int_equal(sim_stats(&f).connects, 2);

    sim_fault(&f, reset_at(WEIR_SIM_BEFORE_SEND)); /* a unit holds one and has no other */
    call = sim_begin(&f, (weir_request){0});
    assert_string_equal(sim_send(&f, call, insert, "2"), "connection_lost");
    sim_finish(&f, call, WEIR_FAILED);
    sim_expect(call, (struct sim_end){WEIR_CALL_LOST, WEIR_CLASS_SAFE, WEIR_OUTCOME_NONE, WEIR_PHASE_NOT_SENT,
                                      "", 1});
    weir_call_free(call);
    expect_executions(&f, "2", 0);
    sim_close(&f);
}

static void a_single_write_that_is_lost_on_its_way_is_unknown_and_not_there(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    f.options.retries = 3;
    sim_open(&f);
    warm_up(&f);
    sim_fault(&f, reset_at(WEIR_SIM_AFTER_SEND));
    weir_call *call = write_one(&f, "1");
    sim_expect(call, unknown_lost);
    weir_call_free(call);
    expect_executions(&f, "1", 0);
    sim_fault(&f, reset_at(WEIR_SIM_AFTER_SEND));
    call = sim_call(&f, (weir_request){.idempotent = true}, insert, "2"); /* who may be repeated is */
    sim_expect_well(call);
    assert_int_equal(weir_call_attempt(call), 2);
    weir_call_free(call);
    expect_executions(&f, "2", 1);
    sim_close(&f);
}

static void a_single_write_whose_answer_is_lost_is_unknown_and_there(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    f.options.retries = 3;
    sim_open(&f);
    warm_up(&f);
    sim_fault(&f, reset_at(WEIR_SIM_BEFORE_ANSWER));
    weir_call *call = write_one(&f, "1");
    sim_expect(call, unknown_lost);
    weir_call_free(call);
    expect_executions(&f, "1", 1);
    sim_fault(&f, reset_at(WEIR_SIM_BEFORE_ANSWER));
    call = sim_call(&f, (weir_request){.readonly = true}, "select 1", NULL);
    sim_expect_well(call);
    assert_int_equal(weir_call_attempt(call), 2);
    weir_call_free(call);
    sim_close(&f);
}

static void a_unit_that_loses_a_statement_is_rolled_back_and_repeated(void **state)
{
    (void)state;
    for (weir_sim_phase phase = WEIR_SIM_BEFORE_SEND; phase <= WEIR_SIM_BEFORE_ANSWER; phase++) {
        struct sim_fixture f;
        prepare(&f);
        f.options.retries = 1;
        sim_open(&f);
        warm_up(&f);
        sim_fault(&f, reset_at(phase));
        weir_call *call = sim_write_unit(&f, (weir_request){0}, "1");
        sim_expect_well(call);
        assert_int_equal(weir_call_attempt(call), 2);
        weir_call_free(call);
        expect_executions(&f, "1", 1);
        sim_close(&f);
    }
}

static void a_commit_that_is_lost_is_found_aborted_and_the_unit_repeated_once(void **state)
{
    (void)state;
    struct sim_fixture f;
    static char text[65536];
    prepare(&f);
    f.options.retries = 3;
    sim_open(&f);
    warm_up(&f);
    sim_fault(&f, reset_at(WEIR_SIM_AT_COMMIT));
    weir_call *call = sim_write_unit(&f, (weir_request){0}, "1");
    sim_expect_well(call);
    assert_int_equal(weir_call_attempt(call), 2);
    weir_call_free(call);
    expect_executions(&f, "1", 1);
    weir_stats_json(f.engine, text, sizeof text);
    assert_non_null(strstr(text, "\"resolved_aborted\":1"));
    sim_close(&f);
}

static void a_commit_whose_answer_is_lost_is_found_committed(void **state)
{
    (void)state;
    struct sim_fixture f;
    static char text[65536];
    prepare(&f);
    f.options.retries = 3;
    sim_open(&f);
    warm_up(&f);
    sim_fault(&f, reset_at(WEIR_SIM_AFTER_COMMIT));
    weir_call *call = sim_write_unit(&f, (weir_request){0}, "1");
    sim_expect_well(call);
    assert_int_equal(weir_call_attempt(call), 1);
    weir_call_free(call);
    expect_executions(&f, "1", 1);
    weir_stats_json(f.engine, text, sizeof text);
    assert_non_null(strstr(text, "\"resolved_committed\":1"));
    sim_close(&f);
}

static void a_reset_strikes_at_its_rate_and_as_often_as_told(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    weir_sim_fault fault = {.kind = WEIR_SIM_RESET, .phase = WEIR_SIM_BEFORE_ANSWER, .rate = 0.25};
    f.options.breaker.min_calls = 1000000;
    sim_fault(&f, fault);
    int lost = 0;
    for (int i = 0; i < 400; i++) {
        weir_call *call = sim_call(&f, (weir_request){.readonly = true}, "select 1", NULL);
        lost += sim_code(call) == WEIR_CALL_LOST;
        weir_call_free(call);
    }
    assert_in_range(lost, 70, 130);
    fault.rate = 1;
    fault.count = 3;
    sim_fault(&f, fault);
    lost = 0;
    for (int i = 0; i < 20; i++) {
        weir_call *call = sim_call(&f, (weir_request){.readonly = true}, "select 1", NULL);
        lost += sim_code(call) == WEIR_CALL_LOST;
        weir_call_free(call);
    }
    assert_int_equal(lost, 3);
    sim_close(&f);
}

/* ---- errors ---------------------------------------------------------------------------------------------------------------- */

static void errors_strike_what_they_name(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    sim_fault(&f,
              (weir_sim_fault){.kind = WEIR_SIM_ERRORS, .sqlstate = "40001", .rate = 1, .text = "T VALUES"});
    weir_call *call = write_one(&f, "1");
    sim_expect(call, (struct sim_end){WEIR_CALL_SERVER, WEIR_CLASS_SAFE, WEIR_OUTCOME_ROLLED_BACK,
                                      WEIR_PHASE_DONE, "40001", 1});
    assert_string_equal(weir_call_error(call)->severity, "ERROR");
    weir_call_free(call);
    call = sim_call(&f, (weir_request){0}, "select 1", NULL);
    sim_expect_well(call);
    weir_call_free(call);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_ERRORS, .sqlstate = "53200", .rate = 1});
    call = sim_call(&f, (weir_request){0}, "select 1", NULL);
    sim_expect(call, (struct sim_end){WEIR_CALL_SERVER, WEIR_CLASS_SAFE, WEIR_OUTCOME_ROLLED_BACK,
                                      WEIR_PHASE_DONE, "53200", 1});
    weir_call_free(call);
    weir_sim_heal(f.primary, WEIR_SIM_ERRORS);
    call = write_one(&f, "1");
    sim_expect_well(call);
    weir_call_free(call);
    expect_executions(&f, "1", 1);
    assert_int_equal(sim_stats(&f).connects, 1); /* an error costs no connection */
    sim_close(&f);
}

static void an_error_counts_down_and_is_repeated(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    f.options.retries = 3;
    sim_open(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_ERRORS, .sqlstate = "40P01", .rate = 1, .count = 2});
    weir_call *call = sim_write_unit(&f, (weir_request){0}, "1");
    sim_expect_well(call);
    assert_int_equal(weir_call_attempt(call), 3);
    weir_call_free(call);
    expect_executions(&f, "1", 1);
    sim_close(&f);
}

static void an_error_may_come_at_commit(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    f.options.retries = 1;
    sim_open(&f);
    sim_fault(&f, (weir_sim_fault){
                      .kind = WEIR_SIM_ERRORS, .sqlstate = "40001", .rate = 1, .text = "commit", .count = 2});
    weir_call *call = sim_write_unit(&f, (weir_request){0}, "1");
    sim_expect(call, (struct sim_end){WEIR_CALL_SERVER, WEIR_CLASS_SAFE, WEIR_OUTCOME_ROLLED_BACK,
                                      WEIR_PHASE_DONE, "40001", 2});
    weir_call_free(call);
    expect_executions(&f, "1", 0);
    call = sim_write_unit(&f, (weir_request){0}, "1");
    sim_expect_well(call);
    weir_call_free(call);
    expect_executions(&f, "1", 1);
    sim_close(&f);
}

static void a_lost_role_is_denied_to_anon_only(void **state)
{
    (void)state;
    struct sim_fixture f;
    start(&f);
    weir_request anon = {.client = "anon", .claims = "{}"};
    weir_call *unit = sim_begin(&f, anon);
    assert_string_equal(sim_send(&f, unit, "select 1", NULL), "");
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_ROLE_LOST});
    assert_string_equal(sim_send(&f, unit, "select 1", NULL), ""); /* it has the role already */
    sim_finish(&f, unit, WEIR_COMMIT);
    sim_expect_well(unit);
    weir_call_free(unit);
    weir_call *call = sim_call(&f, anon, "select 1", NULL);
    sim_expect(call, (struct sim_end){WEIR_CALL_SERVER, WEIR_CLASS_PERMANENT, WEIR_OUTCOME_ROLLED_BACK,
                                      WEIR_PHASE_DONE, "42501", 1});
    weir_call_free(call);
    call = write_one(&f, "1");
    sim_expect_well(call);
    weir_call_free(call);
    sim_close(&f);
}

/* ---- failover ---------------------------------------------------------------------------------------------------------------- */

static weir_sim_server *with_replica(struct sim_fixture *f, double lag)
{
    char why[WEIR_WHY_MAX] = "";
    weir_sim_options options = sim_server(f);
    weir_sim_server *replica = weir_sim_server_named(f->sim, "replica");
    options.follows = "primary";
    options.lag = sim_seconds(lag);
    if (weir_sim_server_set(replica, &options, why) != WEIR_OK) fail_msg("%s", why);
    f->options.backend_count = 2;
    return replica;
}

static void a_replica_is_read_only(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    with_replica(&f, 0.2);
    sim_open(&f);
    weir_call *call = sim_call(&f, (weir_request){.backend = "replica"}, insert, "1");
    sim_expect(call, (struct sim_end){WEIR_CALL_SERVER, WEIR_CLASS_SAFE, WEIR_OUTCOME_ROLLED_BACK,
                                      WEIR_PHASE_DONE, "25006", 1});
    weir_call_free(call);
    call = sim_call(&f, (weir_request){.backend = "replica", .readonly = true}, "select 1", NULL);
    sim_expect_well(call);
    weir_call_free(call);
    expect_executions(&f, "1", 0);
    sim_close(&f);
}

static void a_failover_loses_what_the_replica_had_not_seen(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    with_replica(&f, 0.2);
    f.options.retries = 8;
    f.options.backoff = WEIR_BACKOFF_CONSTANT;
    f.options.backoff_base_ns = MS(200);
    f.options.timeout_ns = SECONDS(8);
    sim_open(&f);
    weir_sim_write_opened(f.sim, 1, false);
    weir_sim_write_opened(f.sim, 2, false);
    weir_call_free(write_one(&f, "1"));
    sim_run_to(&f, AT(1));
    weir_call_free(write_one(&f, "2")); /* committed at 1.012 */
    sim_run_to(&f, AT(1) + MS(100));
    weir_call *open = sim_begin(&f, (weir_request){0});
    assert_string_equal(sim_send(&f, open, insert, "3"), "");
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FAILOVER, .to = "replica", .after_ns = SECONDS(1)});
    expect_executions(&f, "1", 1);
    expect_executions(&f, "2", 0);
    sim_finish(&f, open, WEIR_COMMIT); /* on the old primary, and lost with the rest */
    sim_expect_well(open);
    weir_call_free(open);
    expect_executions(&f, "3", 0);

    weir_call *call =
        write_one(&f, "4"); /* 25006, the pool evicted, again until the address leads elsewhere */
    sim_expect_well(call);
    assert_true(weir_call_attempt(call) > 1);
    assert_true(sim_ms(&f) > 2100);
    weir_call_free(call);
    expect_executions(&f, "4", 1);
    weir_sim_stats promoted;
    weir_sim_server_stats(weir_sim_server_named(f.sim, "replica"), &promoted);
    assert_int_equal(promoted.writes, 1);

    weir_sim_write_closed(f.sim, 1, WEIR_OUTCOME_COMMITTED);
    weir_sim_write_closed(f.sim, 2, WEIR_OUTCOME_COMMITTED);
    weir_sim_books books;
    weir_sim_books_now(f.sim, &books);
    assert_int_equal(books.gone, 2);
    assert_int_equal(books.lost, 0);
    sim_close(&f);
}

static void a_commit_whose_answer_is_lost_in_a_failover_stays_unknown(void **state)
{
    (void)state;
    struct sim_fixture f;
    prepare(&f);
    with_replica(&f, 0.2);
    f.options.timeout_ns = SECONDS(5);
    sim_open(&f);
    warm_up(&f);
    sim_fault(&f, reset_at(WEIR_SIM_AFTER_COMMIT));
    weir_call *call = sim_begin(&f, (weir_request){0});
    assert_string_equal(sim_send(&f, call, insert, "1"), "");
    assert_int_equal(weir_unit_finish(call, WEIR_COMMIT), WEIR_OK);
    sim_run_to(&f, weir_sim_now_ns(f.sim) + MS(4));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FAILOVER, .to = "replica", .after_ns = 0});
    sim_wait(&f, call);
    sim_expect(call, (struct sim_end){WEIR_CALL_LOST, WEIR_CLASS_UNKNOWN, WEIR_OUTCOME_UNKNOWN,
                                      WEIR_PHASE_COMMIT_SENT, "", 1});
    weir_call_free(call);
    sim_close(&f);
}

static void an_address_follows_from_failover_to_failover_and_back(void **state)
{
    (void)state;
    struct sim_fixture f;
    char why[WEIR_WHY_MAX];
    prepare(&f);
    weir_sim_server *replica = with_replica(&f, 0);
    f.options.backend_count = 1;
    f.options.retries = 5;
    sim_open(&f);
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_FAILOVER, .to = "replica", .after_ns = MS(1)});
    sim_run_to(&f, AT(1));
    weir_sim_options back = sim_server(&f);
    back.follows = "replica";
    assert_int_equal(weir_sim_server_set(f.primary, &back, why), WEIR_OK);
    weir_call_free(write_one(&f, "1"));
    expect_executions(&f, "1", 1);
    assert_int_equal(sim_stats(&f).sessions, 0);
    weir_sim_fault fault = {.kind = WEIR_SIM_FAILOVER, .to = "primary", .after_ns = MS(1)};
    assert_int_equal(weir_sim_fault_begin(replica, &fault, why), WEIR_OK);
    sim_run_to(&f, AT(2));
    weir_call *call = write_one(&f, "2");
    sim_expect_well(call);
    weir_call_free(call);
    expect_executions(&f, "2", 1);
    assert_int_equal(sim_stats(&f).sessions, 1);
    sim_close(&f);
}

/* ---- misuse -------------------------------------------------------------------------------------------------------------------- */

static void what_cannot_be_a_fault_is_refused_with_a_sentence(void **state)
{
    (void)state;
    static const char long_text[] =
        "a text that is longer than the longest part of a statement that a fault can keep, "
        "and would be cut";
    static const struct {
        weir_sim_fault fault;
        const char *why;
    } cases[] = {
        {{.kind = WEIR_SIM_SLOW}, "factor is 0; it must be above 0 and at most 1 000 000"},
        {{.kind = WEIR_SIM_LATENCY, .seconds = -1}, "seconds is -1; it must be 0 to 3 600"},
        {{.kind = WEIR_SIM_REFUSE, .sqlstate = "1"},
         "sqlstate must be five characters like 53300, or - for nobody listening"},
        {{.kind = WEIR_SIM_ERRORS, .rate = 1}, "sqlstate must be five characters, like 40001"},
        {{.kind = WEIR_SIM_ERRORS, .sqlstate = "40001", .rate = 2}, "rate is 2; it must be 0 to 1"},
        {{.kind = WEIR_SIM_ERRORS, .sqlstate = "40001", .rate = 1, .text = long_text},
         "text is 98 characters long; 95 are the most"},
        {{.kind = WEIR_SIM_RESET, .phase = (weir_sim_phase)9, .rate = 1}, "phase is 9, which is none"},
        {{.kind = WEIR_SIM_FAILOVER}, "to is missing; it must be the name of a replica"},
        {{.kind = WEIR_SIM_FAILOVER, .to = "primary"}, "to is no name of another server"},
        {{.kind = WEIR_SIM_FAILOVER, .to = "other"}, "to names a server that does not follow this one"},
        {{.kind = WEIR_SIM_FAULTS}, "kind is 12, which is none"},
    };
    struct sim_fixture f;
    prepare(&f);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char why[WEIR_WHY_MAX] = "";
        assert_int_equal(weir_sim_fault_begin(f.primary, &cases[i].fault, why), WEIR_EINVAL);
        assert_string_equal(why, cases[i].why);
    }
    for (int kind = 0; kind < WEIR_SIM_FAULTS; kind++) {
        assert_string_not_equal(weir_sim_fault_name((weir_sim_fault_kind)kind), "?");
        weir_sim_heal(f.primary, (weir_sim_fault_kind)kind); /* of one that is not there: nothing */
    }
    assert_string_equal(weir_sim_fault_name(WEIR_SIM_FAULTS), "?");
    sim_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_ends_what_runs_and_undoes_it),
        cmocka_unit_test(a_crash_without_an_end_is_ended_by_heal),
        cmocka_unit_test(idle_connections_hear_of_a_restart),
        cmocka_unit_test(a_running_statement_is_told_57P01_by_a_restart),
        cmocka_unit_test(a_unit_that_is_lost_between_its_statements_is_rolled_back),
        cmocka_unit_test(a_connect_that_is_half_done_when_the_server_falls_ends),
        cmocka_unit_test(connects_are_refused_as_told),
        cmocka_unit_test(a_slow_server_takes_so_many_times_as_long),
        cmocka_unit_test(latency_is_added_each_way),
        cmocka_unit_test(a_frozen_server_goes_on_where_it_stood),
        cmocka_unit_test(a_frozen_server_given_more_workers_starts_nobody),
        cmocka_unit_test(a_statement_arriving_at_a_frozen_server_waits_there),
        cmocka_unit_test(time_limits_fire_as_a_frozen_server_thaws),
        cmocka_unit_test(a_cancel_that_lay_at_a_frozen_server_takes_effect_as_it_thaws),
        cmocka_unit_test(a_server_may_fall_while_it_is_frozen),
        cmocka_unit_test(a_request_made_in_the_hole_arrives_when_tcp_sends_it_again),
        cmocka_unit_test(a_call_that_waits_long_enough_gets_its_answer_after_the_hole),
        cmocka_unit_test(an_answer_lost_in_the_hole_comes_later),
        cmocka_unit_test(the_end_of_a_connection_told_into_the_hole_is_heard_later),
        cmocka_unit_test(a_connect_given_up_in_the_hole_is_not_tried_again),
        cmocka_unit_test(a_forgotten_connection_never_answers_again),
        cmocka_unit_test(an_idle_connection_that_was_forgotten_looks_alive),
        cmocka_unit_test(a_reset_before_anything_was_sent_is_safe),
        cmocka_unit_test(a_single_write_that_is_lost_on_its_way_is_unknown_and_not_there),
        cmocka_unit_test(a_single_write_whose_answer_is_lost_is_unknown_and_there),
        cmocka_unit_test(a_unit_that_loses_a_statement_is_rolled_back_and_repeated),
        cmocka_unit_test(a_commit_that_is_lost_is_found_aborted_and_the_unit_repeated_once),
        cmocka_unit_test(a_commit_whose_answer_is_lost_is_found_committed),
        cmocka_unit_test(a_reset_strikes_at_its_rate_and_as_often_as_told),
        cmocka_unit_test(errors_strike_what_they_name),
        cmocka_unit_test(an_error_counts_down_and_is_repeated),
        cmocka_unit_test(an_error_may_come_at_commit),
        cmocka_unit_test(a_lost_role_is_denied_to_anon_only),
        cmocka_unit_test(a_replica_is_read_only),
        cmocka_unit_test(a_failover_loses_what_the_replica_had_not_seen),
        cmocka_unit_test(a_commit_whose_answer_is_lost_in_a_failover_stays_unknown),
        cmocka_unit_test(an_address_follows_from_failover_to_failover_and_back),
        cmocka_unit_test(what_cannot_be_a_fault_is_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
