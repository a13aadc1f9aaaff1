/* The world itself: its clock, its order, its trace; programs that stand still; replicas; several engines. */
#include "sim_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- alarms and ends ---------------------------------------------------------------------------------------------- */

struct diary { /* who was called, in order */
    weir_sim *sim;
    char text[200];
    weir_sim_alarm alarms[4];
    weir_sim_end inner;
};

struct entry {
    struct diary *diary;
    const char *name;
};

static void note_down(void *ctx)
{
    struct entry *entry = ctx;
    size_t used = strlen(entry->diary->text);
    (void)snprintf(entry->diary->text + used, sizeof entry->diary->text - used, "%s@%llu ", entry->name,
                   (unsigned long long)((weir_sim_now_ns(entry->diary->sim) - WEIR_SIM_START) / 1000000));
}

static void alarms_come_in_order_of_time_and_then_of_planning(void **state)
{
    (void)state;
    struct diary d = {.sim = NULL};
    struct entry a = {&d, "a"}, b = {&d, "b"}, c = {&d, "c"}, late = {&d, "late"};
    assert_int_equal(weir_sim_new(&d.sim, 1), WEIR_OK);
    weir_sim_alarm_set(d.sim, &d.alarms[0], WEIR_SIM_START + MS(5), note_down, &a);
    weir_sim_alarm_set(d.sim, &d.alarms[1], WEIR_SIM_START + MS(2), note_down, &b);
    weir_sim_alarm_set(d.sim, &d.alarms[2], WEIR_SIM_START + MS(5), note_down, &c);
    weir_sim_alarm_set(d.sim, &d.alarms[3], WEIR_SIM_START + MS(9), note_down, &late);
    assert_int_equal(weir_sim_run(d.sim, NULL, WEIR_SIM_START + MS(5)), WEIR_SIM_TIME);
    assert_string_equal(d.text, "b@2 a@5 c@5 ");
    weir_sim_alarm_set(d.sim, &d.alarms[0], 1, note_down, &a); /* a moment that has passed is now */
    weir_sim_alarm_set(d.sim, &d.alarms[3], WEIR_SIM_START + MS(7), note_down, &late); /* moved */
    weir_sim_alarm_set(d.sim, &d.alarms[1], WEIR_SIM_START + MS(6), note_down, &b);
    weir_sim_alarm_clear(d.sim, &d.alarms[1]);
    weir_sim_alarm_clear(d.sim, &d.alarms[1]); /* twice does no harm */
    assert_int_equal(weir_sim_run(d.sim, NULL, UINT64_MAX), WEIR_SIM_IDLE);
    assert_string_equal(d.text, "b@2 a@5 c@5 a@5 late@7 ");
    assert_int_equal(weir_sim_now_ns(d.sim),
                     WEIR_SIM_START + MS(7)); /* idle: the clock stands where it stood */
    assert_int_equal(weir_sim_run(d.sim, NULL, AT(1)), WEIR_SIM_TIME);
    assert_int_equal(weir_sim_now_ns(d.sim), AT(1));
    assert_int_equal(weir_sim_run(d.sim, NULL, AT(0)), WEIR_SIM_TIME); /* never backwards */
    assert_int_equal(weir_sim_now_ns(d.sim), AT(1));
    weir_sim_alarm_set(d.sim, &d.alarms[2], AT(50), note_down, &c); /* still set as the world ends */
    weir_sim_free(d.sim);
    weir_sim_free(NULL);
}

static void raise_flag(void *ctx)
{
    *(volatile bool *)ctx = true;
}

static void a_flag_ends_a_run_at_once(void **state)
{
    (void)state;
    weir_sim *sim = NULL;
    weir_sim_alarm one = {{0}}, other = {{0}};
    volatile bool flag = true;
    assert_int_equal(weir_sim_new(&sim, 1), WEIR_OK);
    weir_sim_alarm_set(sim, &one, WEIR_SIM_START + MS(1), raise_flag, (void *)&flag);
    weir_sim_alarm_set(sim, &other, WEIR_SIM_START + MS(1), raise_flag, (void *)&flag);
    assert_int_equal(weir_sim_run(sim, &flag, AT(1)), WEIR_SIM_FLAG);
    assert_int_equal(weir_sim_now_ns(sim), WEIR_SIM_START); /* it was up before anything happened */
    flag = false;
    assert_int_equal(weir_sim_run(sim, &flag, AT(1)), WEIR_SIM_FLAG);
    assert_int_equal(weir_sim_now_ns(sim), WEIR_SIM_START + MS(1));
    flag = false;
    assert_int_equal(weir_sim_run(sim, &flag, AT(1)), WEIR_SIM_FLAG); /* the other one's turn */
    flag = false;
    assert_int_equal(weir_sim_run(sim, &flag, AT(1)), WEIR_SIM_TIME);
    weir_sim_free(sim);
}

struct again {
    weir_sim *sim;
    weir_sim_alarm alarm;
    uint64_t count, every_ns;
};

static void once_more(void *ctx)
{
    struct again *again = ctx;
    again->count++;
    weir_sim_alarm_set(again->sim, &again->alarm, weir_sim_now_ns(again->sim) + again->every_ns, once_more,
                       again);
}

static void a_world_that_stands_still_is_told_apart_from_a_busy_one(void **state)
{
    (void)state;
    struct again again = {.every_ns = 0};
    assert_int_equal(weir_sim_new(&again.sim, 1), WEIR_OK);
    weir_sim_alarm_set(again.sim, &again.alarm, WEIR_SIM_START, once_more, &again);
    assert_int_equal(weir_sim_run(again.sim, NULL, AT(1)), WEIR_SIM_STUCK);
    assert_in_range(again.count, 1000000, 1000010);
    assert_int_equal(weir_sim_now_ns(again.sim), WEIR_SIM_START);
    assert_int_equal(weir_sim_run(again.sim, NULL, AT(1)), WEIR_SIM_STUCK); /* and again */
    again.every_ns = 500;
    assert_int_equal(weir_sim_run(again.sim, NULL, AT(1)),
                     WEIR_SIM_TIME); /* two million events, but time passes */
    weir_sim_alarm_clear(again.sim, &again.alarm);
    weir_sim_free(again.sim);
}

/* ---- the same again ----------------------------------------------------------------------------------------------- */

struct script {
    char *text;
    size_t length, room;
};

static void write_down(void *ctx, const char *line)
{
    struct script *script = ctx;
    size_t length = strlen(line) + 1;
    while (script->length + length + 1 > script->room) {
        script->room = script->room == 0 ? 65536 : script->room * 2;
        script->text = realloc(script->text, script->room);
        assert_non_null(script->text);
    }
    (void)snprintf(script->text + script->length, script->room - script->length, "%s\n", line);
    script->length += length;
}

static uint64_t play(uint64_t seed, struct script *script)
{
    struct sim_fixture f;
    sim_prepare(&f, seed);
    if (script != NULL) weir_sim_trace(f.sim, write_down, script);
    sim_open(&f);
    sim_load(&f, 200, 5);
    sim_run_to(&f, AT(1));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_RESET, .phase = WEIR_SIM_AFTER_COMMIT, .rate = 0.1});
    sim_run_to(&f, AT(2));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_CRASH, .after_ns = MS(300), .recovery_ns = MS(100)});
    weir_sim_note(f.sim, "half of it is over");
    sim_run_to(&f, AT(20));
    uint64_t hash = weir_sim_hash(f.sim);
    sim_close(&f);
    return hash;
}

static void the_same_seed_writes_the_same_lines_byte_for_byte(void **state)
{
    (void)state;
    struct script a = {0}, b = {0}, c = {0};
    uint64_t first = play(7, &a), second = play(7, &b), other = play(8, &c), unseen = play(7, NULL);
    assert_true(first == second && first == unseen && first != other);
    assert_true(a.length == b.length && a.length > 100000);
    assert_memory_equal(a.text, b.text, a.length);
    assert_string_not_equal(a.text, c.text);
    assert_non_null(strstr(a.text, "\n2.000000000 half of it is over\n"));
    assert_non_null(strstr(a.text, "\n2.000000000 primary fault begins 0 0\n"));
    assert_non_null(strstr(a.text, "\n2.400000000 primary up 2 0\n"));
    free(a.text);
    free(b.text);
    free(c.text);
}

static void one_server_more_changes_nothing_on_the_others(void **state)
{
    (void)state;
    uint64_t busy[2];
    for (int more = 0; more < 2; more++) {
        struct sim_fixture f;
        sim_prepare(&f, 5);
        sim_open(&f);
        if (more == 1) {
            weir_sim_options options;
            weir_sim_server *other = weir_sim_server_named(f.sim, "other");
            weir_sim_options_defaults(&options);
            options.follows = "primary";
            assert_int_equal(weir_sim_server_set(other, &options, NULL), WEIR_OK);
        }
        sim_load(&f, 100, 5);
        sim_run_to(&f, AT(10));
        busy[more] = sim_stats(&f).busy_ns;
        sim_close(&f);
    }
    assert_true(busy[0] == busy[1] && busy[0] > 0);
}

/* ---- programs that stand still, clocks that jump --------------------------------------------------------------------- */

static void a_stalled_program_hears_of_nothing_until_it_goes_on(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    f.options.health_interval_ns = 0;
    sim_open(&f);
    weir_call *call =
        sim_submit(&f, (weir_request){.timeout_ns = SECONDS(5)}, "insert into t values ($1)", "1");
    weir_sim_stall(f.host, WEIR_SIM_START + SECONDS(2));
    weir_sim_stall(f.host, WEIR_SIM_START + SECONDS(1)); /* a shorter one changes nothing */
    sim_wait(&f, call);
    sim_expect_well(call);
    sim_assert_ms(&f, 2000 + 12 + 1); /* its connect ended at 2 ms, and was heard of at 2 s */
    weir_call_free(call);
    sim_close(&f);
}

static void a_deadline_that_passed_in_a_stall_is_met_right_after_it(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    sim_open(&f);
    weir_sim_options options = sim_server(&f);
    options.service = sim_seconds(1);
    sim_server_set(&f, options);
    weir_call *call =
        sim_submit(&f, (weir_request){.timeout_ns = SECONDS(5)}, "insert into t values ($1)", "1");
    sim_run_to(&f, WEIR_SIM_START + MS(500));
    weir_sim_stall_all(f.sim, AT(10));
    sim_wait(&f, call);
    sim_assert_ms(&f, 10000);
    weir_sim_books books;
    weir_sim_books_now(f.sim, &books);
    assert_int_equal(weir_sim_executions(f.sim, "1"), 1); /* the server knew nothing of it */
    bool told_well = weir_call_error(call) == NULL;
    assert_true(told_well || weir_call_error(call)->outcome != WEIR_OUTCOME_ROLLED_BACK);
    weir_call_free(call);
    sim_close(&f);
}

static void what_ended_during_a_stall_is_seen_before_it_is_used(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    f.options.health_interval_ns = 0;
    sim_open(&f);
    weir_call_free(sim_call(&f, (weir_request){0}, "select 1", NULL));
    sim_run_to(&f, AT(1));
    weir_sim_stall(f.host, AT(3));
    sim_run_to(&f, AT(2));
    sim_fault(&f, (weir_sim_fault){.kind = WEIR_SIM_RESTART, .after_ns = MS(100)});
    sim_run_to(&f, AT(3) - 1);
    weir_call *call =
        sim_submit(&f, (weir_request){0}, "insert into t values ($1)", "1"); /* the very first it does */
    sim_wait(&f, call);
    sim_expect_well(call);
    assert_int_equal(weir_call_attempt(call), 1);
    weir_call_free(call);
    sim_close(&f);
}

static void the_wall_clock_may_jump_and_nothing_that_lasts_notices(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    sim_open(&f);
    const weir_host *hooks = weir_sim_hooks(f.host);
    uint64_t before = hooks->wall_us(hooks->ctx);
    weir_call *call = sim_submit(&f, (weir_request){.timeout_ns = MS(100)}, "select 1", NULL);
    weir_sim_step_wall_clock(f.sim, -3600 * INT64_C(1000000));
    assert_true(hooks->wall_us(hooks->ctx) == before - 3600 * UINT64_C(1000000));
    sim_wait(&f, call);
    sim_expect_well(call);
    weir_sim_step_wall_clock(f.sim, 7200 * INT64_C(1000000));
    assert_true(hooks->wall_us(hooks->ctx) == before + 3600 * UINT64_C(1000000) + 14000);
    weir_call_free(call);
    call = sim_call(&f, (weir_request){.timeout_ns = MS(100)}, "select 1", NULL);
    sim_expect_well(call);
    weir_call_free(call);
    sim_close(&f);
}

/* ---- replicas -------------------------------------------------------------------------------------------------------- */

struct glance {
    weir_sim *sim;
    double lag_s[20]; /* how far behind, each time it was asked */
    uint64_t seen[20];
    size_t count;
};

static void look(void *ctx, const weir_sim_asked *asked, weir_sim_answer *answer)
{
    struct glance *glance = ctx;
    (void)answer;
    assert_in_range(glance->count, 0, 19);
    glance->seen[glance->count] = asked->seen_until_ns;
    glance->lag_s[glance->count++] = (double)(asked->at_ns - asked->seen_until_ns) / 1e9;
}

static void a_replica_has_seen_what_is_older_than_its_lag(void **state)
{
    (void)state;
    static const weir_dist lags[] = {{.kind = WEIR_DIST_CONSTANT, .a = 0.5},
                                     {.kind = WEIR_DIST_UNIFORM, .a = 0, .b = 5}};
    for (size_t l = 0; l < 2; l++) {
        struct sim_fixture f;
        sim_prepare(&f, 3);
        struct glance glance = {.sim = f.sim};
        weir_sim_server *replica = weir_sim_server_named(f.sim, "replica");
        weir_sim_options options = sim_server(&f);
        options.follows = "primary";
        options.lag = lags[l];
        assert_int_equal(weir_sim_server_set(replica, &options, NULL), WEIR_OK);
        weir_sim_rule rule = {.text = "select", .writes = -1, .answer = look, .ctx = &glance};
        assert_int_equal(weir_sim_rule_add(replica, &rule, NULL), WEIR_OK);
        f.options.backend_count = 2;
        sim_open(&f);
        for (int i = 0; i < 20; i++) {
            weir_request request = {.backend = "replica", .readonly = true};
            weir_call_free(sim_call(&f, request, "select 1", NULL));
            assert_true(glance.lag_s[i] <= 5 && (l == 1 || glance.lag_s[i] == 0.5));
            assert_true(i == 0 || glance.seen[i] >= glance.seen[i - 1]); /* it does not unsee */
        }
        sim_close(&f);
    }
}

static void two_engines_share_one_server(void **state)
{
    (void)state;
    struct sim_fixture f;
    weir_sim_host *host = NULL;
    weir_engine *other = NULL;
    char why[WEIR_WHY_MAX] = "";
    sim_prepare(&f, 1);
    sim_server_exact(&f);
    weir_sim_options options = sim_server(&f);
    options.workers = 1;
    sim_server_set(&f, options);
    f.options.health_interval_ns = 0;
    sim_open(&f);
    assert_int_equal(weir_sim_host_new(&host, f.sim), WEIR_OK);
    assert_true(weir_sim_hooks(host)->seed != weir_sim_hooks(f.host)->seed);
    assert_int_equal(weir_open(&other, &f.options, weir_sim_hooks(host), weir_sim_driver(f.sim), why),
                     WEIR_OK);
    weir_sim_bind(host, other);
    weir_engine *engines[] = {f.engine, other};
    weir_call *calls[2];
    for (int i = 0; i < 2; i++) {
        f.engine = engines[i];
        calls[i] = sim_submit(&f, (weir_request){0}, "select 1", NULL);
    }
    weir_sim_stall(host, WEIR_SIM_START + MS(100)); /* the other one only */
    sim_wait(&f, calls[0]);
    sim_assert_ms(&f, 14);
    sim_wait(&f, calls[1]);
    sim_assert_ms(&f, 112);
    assert_int_equal(sim_stats(&f).sessions, 2);
    for (int i = 0; i < 2; i++) weir_call_free(calls[i]);
    weir_free(other);
    weir_sim_host_free(host);
    weir_sim_host_free(NULL);
    f.engine = engines[0];
    sim_run_to(&f, weir_sim_now_ns(f.sim) + MS(10));
    assert_int_equal(sim_stats(&f).sessions, 1);
    sim_close(&f);
}

static void a_backend_reaches_the_server_of_its_name(void **state)
{
    (void)state;
    struct sim_fixture f;
    sim_prepare(&f, 1);
    f.backends[0].name = "of-nobody_yet";
    f.options.health_interval_ns = 0;
    sim_open(&f);
    weir_call *call = sim_call(&f, (weir_request){0}, "select 1", NULL);
    sim_expect_well(call);
    weir_call_free(call);
    weir_sim_stats stats;
    weir_sim_server_stats(weir_sim_server_named(f.sim, "of-nobody_yet"), &stats);
    assert_int_equal(stats.statements, 1);
    assert_int_equal(sim_stats(&f).connects, 0);
    sim_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alarms_come_in_order_of_time_and_then_of_planning),
        cmocka_unit_test(a_flag_ends_a_run_at_once),
        cmocka_unit_test(a_world_that_stands_still_is_told_apart_from_a_busy_one),
        cmocka_unit_test(the_same_seed_writes_the_same_lines_byte_for_byte),
        cmocka_unit_test(one_server_more_changes_nothing_on_the_others),
        cmocka_unit_test(a_stalled_program_hears_of_nothing_until_it_goes_on),
        cmocka_unit_test(a_deadline_that_passed_in_a_stall_is_met_right_after_it),
        cmocka_unit_test(what_ended_during_a_stall_is_seen_before_it_is_used),
        cmocka_unit_test(the_wall_clock_may_jump_and_nothing_that_lasts_notices),
        cmocka_unit_test(a_replica_has_seen_what_is_older_than_its_lag),
        cmocka_unit_test(two_engines_share_one_server),
        cmocka_unit_test(a_backend_reaches_the_server_of_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
