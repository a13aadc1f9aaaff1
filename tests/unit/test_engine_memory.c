/* Memory that runs out: each allocation of a small life of an engine fails in turn, alone or with all after
 * it. Nothing crashes, nothing leaks, every call that was taken in ends, and what is told is true. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CALLS = 12, UNITS = 4, ALLOCATIONS_MOST = 2000 };

struct fixture {
    struct fake fake;
    weir_options options;
    long asked, fail_at; /* allocations so far; the one that fails, 0: none */
    bool for_good;       /* and all after it */
    long live;           /* blocks not given back */
    weir_call *calls[CALLS + UNITS];
    int taken, refused;
};

static bool must_fail(struct fixture *f)
{
    f->asked++;
    return f->fail_at != 0 && (f->asked == f->fail_at || (f->for_good && f->asked > f->fail_at));
}

static void *resize(void *ctx, void *old, size_t size)
{
    struct fake *fake = ctx;
    struct fixture *f = fake->user;
    if (size == 0) {
        f->live -= old != NULL;
        free(old);
        return NULL;
    }
    if (must_fail(f)) return NULL;
    void *block = realloc(old, size);
    assert_non_null(block);
    f->live += old == NULL;
    return block;
}

static void answer(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                   struct fake_answer *answer)
{
    (void)link;
    if (segment->kind == WR_SEGMENT_SINGLE && fake->singles % 5 == 2) memcpy(answer->sqlstate, "40001", 6);
    if (segment->kind == WR_SEGMENT_COMMIT && fake->commits == 1) answer->lost = answer->survives = true;
}

static void set_up(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    fake_init(&f->fake);
    fake_options(&f->options);
    f->options.timeout_ns = FAKE_MS(1000);
    f->options.cancel_wait_ns = FAKE_MS(500);
    f->options.health_interval_ns = FAKE_MS(100);
    f->fake.user = f;
    f->fake.answer = answer;
    f->fake.books = true;
    f->fake.host.resize = resize;
}

static void take(struct fixture *f, int code, weir_call *call)
{
    assert_true((code == WEIR_OK) == (call != NULL));
    if (code != WEIR_OK) {
        assert_int_equal(code, WEIR_ENOMEM);
        f->refused++;
    } else {
        f->calls[f->taken++] = call;
    }
}

/* Statements of growing size, so that a call used again must grow. */
static void submit_some(struct fixture *f)
{
    static char padding[4000];
    memset(padding, ' ', sizeof padding - 1);
    for (int i = 0; i < CALLS; i++) {
        char sql[4200];
        snprintf(sql, sizeof sql, "select %d%.*s", i + 1, i * 300, padding);
        weir_statement statements[] = {{.sql = sql}, {.sql = "select 0"}};
        weir_request request = {.client = i % 2 == 0 ? "service" : "anon",
                                .context = "memory",
                                .claims = "{}"};
        weir_call *call = NULL;
        int code = weir_submit(f->fake.engine, &request, statements, 1 + (size_t)(i % 2), &call, NULL);
        take(f, code, call);
        if (i % 4 == 3) fake_run(&f->fake, FAKE_MS(5));
    }
}

static void begin_some(struct fixture *f)
{
    for (int i = 0; i < UNITS; i++) {
        weir_request request = {.client = "service", .context = "unit"};
        weir_call *call = NULL;
        int code = weir_begin(f->fake.engine, &request, &call, NULL);
        take(f, code, call);
    }
}

static void work(weir_call *unit, int number)
{
    char sql[32];
    weir_statement statement = {.sql = sql};
    snprintf(sql, sizeof sql, "select %d", number);
    weir_status status = weir_call_status(unit);
    if (status == WEIR_READY && weir_unit_send(unit, &statement, 1, NULL) != WEIR_OK) {
        weir_unit_finish(unit, WEIR_ROLLBACK);
    } else if (status == WEIR_REPLIED) {
        weir_unit_finish(unit, weir_call_error(unit) == NULL ? WEIR_COMMIT : WEIR_FAILED);
    }
}

static void let_units_work(struct fixture *f, int first)
{
    for (int step = 0; step < 40; step++) {
        for (int i = first; i < f->taken; i++) work(f->calls[i], 100 + i);
        fake_run(&f->fake, FAKE_MS(10));
    }
}

static void check_call(weir_call *call)
{
    assert_int_equal(weir_call_status(call), WEIR_ENDED);
    weir_code code = fake_code(call);
    if (code == WEIR_CALL_NO_MEMORY) assert_int_equal(fake_outcome(call), WEIR_OUTCOME_COMMITTED);
    if (code == WEIR_CALL_OK) assert_true(weir_call_result_count(call) <= 2);
    if (code != WEIR_CALL_OK) assert_true(weir_call_error(call)->message[0] != '\0');
}

static void live_a_little(struct fixture *f)
{
    char text[64];
    submit_some(f);
    fake_run(&f->fake, FAKE_MS(150));
    fake_crash(&f->fake);
    int first_unit = f->taken;
    begin_some(f);
    let_units_work(f, first_unit);
    weir_health_json(f->fake.engine, text, sizeof text);
    weir_stats_json(f->fake.engine, text, sizeof text);
    weir_calls_json(f->fake.engine, 10, text, sizeof text);
    weir_events_json(f->fake.engine, 0, text, sizeof text);
    fake_run(&f->fake, FAKE_MS(1200));
    for (int i = 0; i < f->taken; i++) {
        check_call(f->calls[i]);
        if (i % 3 != 0) weir_call_free(f->calls[i]); /* the others outlive the engine */
    }
}

/* Returns how many allocations the life took. */
static long live_with_failure(long fail_at, bool for_good)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;
    char why[WEIR_WHY_MAX] = "";
    set_up(f);
    f->fail_at = fail_at;
    f->for_good = for_good;
    int code = weir_open(&f->fake.engine, &f->options, &f->fake.host, fake_driver(&f->fake), why);
    if (code != WEIR_OK) {
        assert_int_equal(code, WEIR_ENOMEM);
        assert_non_null(strstr(why, "memory"));
        assert_null(f->fake.engine);
        assert_int_equal(f->live, 0);
        return f->asked;
    }
    live_a_little(f);
    fake_free(&f->fake);
    for (int i = 0; i < f->taken; i += 3) {
        check_call(f->calls[i]);
        weir_call_free(f->calls[i]);
    }
    assert_int_equal(f->live, 0);
    return f->asked;
}

static void nothing_fails_while_there_is_memory(void **state)
{
    (void)state;
    assert_in_range(live_with_failure(0, false), 20, ALLOCATIONS_MOST);
}

static void each_allocation_may_fail_once(void **state)
{
    (void)state;
    long all = live_with_failure(0, false);
    for (long k = 1; k <= all; k++) live_with_failure(k, false);
}

static void each_allocation_and_all_after_it_may_fail(void **state)
{
    (void)state;
    long all = live_with_failure(0, false);
    for (long k = 1; k <= all; k++) live_with_failure(k, true);
}

/* A reply whose results cannot be kept: the statement took effect, so it must not look like one to repeat. */
static void a_result_without_memory_is_told_as_committed(void **state)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;
    (void)state;
    set_up(f);
    f->fake.answer = NULL;
    fake_open(&f->fake, &f->options);
    weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 7");
    fake_run(&f->fake, FAKE_MS(2));
    f->fail_at = f->asked + 1;
    f->for_good = true;
    fake_run(&f->fake, FAKE_MS(2));
    assert_int_equal(fake_code(call), WEIR_CALL_NO_MEMORY);
    assert_int_equal(fake_outcome(call), WEIR_OUTCOME_COMMITTED);
    assert_int_equal(weir_call_error(call)->class_, WEIR_CLASS_PERMANENT);
    assert_int_equal(f->fake.effects[7], 1);
    weir_call_free(call);
    fake_free(&f->fake);
}

static void a_unit_that_has_not_seen_its_results_does_not_commit(void **state)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;
    (void)state;
    set_up(f);
    f->fake.answer = NULL;
    fake_open(&f->fake, &f->options);
    weir_call *unit = fake_begin(&f->fake, (weir_request){0});
    fake_run(&f->fake, FAKE_MS(5));
    fake_send(unit, "select 7");
    f->fail_at = f->asked + 1;
    f->for_good = true;
    fake_run(&f->fake, FAKE_MS(5));
    f->for_good = false;
    assert_int_equal(weir_call_status(unit), WEIR_REPLIED);
    assert_non_null(weir_call_error(unit));
    fake_send(unit, "select 8"); /* its owner has swallowed the error */
    fake_run(&f->fake, FAKE_MS(5));
    assert_non_null(weir_call_error(unit));
    fake_finish(unit, WEIR_COMMIT);
    fake_run(&f->fake, FAKE_MS(10));
    assert_int_equal(fake_code(unit), WEIR_CALL_ABORTED);
    assert_int_equal(f->fake.effects[7], 0);
    weir_call_free(unit);
    fake_free(&f->fake);
}

static void a_result_outlives_the_engine_whose_memory_it_is_in(void **state)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;
    (void)state;
    set_up(f);
    f->fake.answer = NULL;
    f->fake.results_in_engine_memory = true;
    fake_open(&f->fake, &f->options);
    weir_call *calls[2];
    for (int i = 0; i < 2; i++) calls[i] = fake_submit(&f->fake, (weir_request){0}, "select 1");
    fake_run(&f->fake, FAKE_MS(10));
    fake_free(&f->fake);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(weir_result_value(weir_call_result(calls[i], 0), 0, 0, NULL), "1");
        assert_int_equal(weir_call_remaining_ns(calls[i]), 0);
        weir_call_cancel(calls[i]);
        weir_call_free(calls[i]);
    }
    assert_int_equal(f->live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_fails_while_there_is_memory),
        cmocka_unit_test(each_allocation_may_fail_once),
        cmocka_unit_test(each_allocation_and_all_after_it_may_fail),
        cmocka_unit_test(a_result_without_memory_is_told_as_committed),
        cmocka_unit_test(a_result_outlives_the_engine_whose_memory_it_is_in),
        cmocka_unit_test(a_unit_that_has_not_seen_its_results_does_not_commit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
