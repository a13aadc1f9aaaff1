/* The books of a load: buckets of time, phases, latencies and levels. */
#include "load/tally.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS(n) ((uint64_t)(n)*1000000u)
#define S(n)  MS((uint64_t)(n)*1000u)

enum { WHOLE = WEIR_TALLY_PHASES };

static weir_tally *tally_of(const weir_phase_span *phases, size_t count)
{
    weir_tally *tally = NULL;
    char why[WEIR_WHY_MAX] = "";
    assert_int_equal(weir_tally_new(&tally, S(1000), MS(100), phases, count, why), WEIR_OK);
    return tally;
}

static void request_ends(weir_tally *tally, uint64_t arrived, uint64_t ended, weir_code code,
                         weir_outcome outcome)
{
    struct wr_verdict verdict = {wr_tally_arrived(tally, arrived), arrived, ended, code, outcome};
    wr_tally_called(tally, verdict.phases, ended, code, 1);
    wr_tally_ended(tally, &verdict);
}

static void request(weir_tally *tally, uint64_t arrived, uint64_t ended)
{
    request_ends(tally, arrived, ended, WEIR_CALL_OK, WEIR_OUTCOME_COMMITTED);
}

static weir_tally_bucket bucket(const weir_tally *tally, size_t index)
{
    weir_tally_bucket b;
    assert_true(weir_tally_bucket_at(tally, index, &b));
    return b;
}

static weir_tally_counts counts(const weir_tally *tally, size_t phase)
{
    weir_tally_counts c;
    assert_true(weir_tally_counts_of(tally, phase, &c));
    return c;
}

static void a_bucket_counts_arrivals_and_ends_by_their_own_moments(void **state)
{
    (void)state;
    weir_tally *tally = tally_of(NULL, 0);
    request(tally, S(1000) + MS(50), S(1000) + MS(350));
    assert_int_equal(weir_tally_bucket_count(tally), 4);
    assert_int_equal(bucket(tally, 0).counts.arrived, 1);
    assert_int_equal(bucket(tally, 0).counts.ok, 0);
    assert_int_equal(bucket(tally, 3).counts.ok, 1);
    assert_int_equal(bucket(tally, 3).counts.latency_max_ns, MS(300));
    assert_int_equal(bucket(tally, 3).from_ns, S(1000) + MS(300));
    assert_int_equal(bucket(tally, 3).to_ns, S(1000) + MS(400));
    weir_tally_bucket none;
    assert_false(weir_tally_bucket_at(tally, 4, &none));
    weir_tally_free(tally);
}

static void a_phase_counts_the_requests_that_arrived_in_it_whenever_they_end(void **state)
{
    (void)state;
    const weir_phase_span phases[] = {{"before", S(1000), S(1010)}, {"after", S(1010), S(1020)}};
    weir_tally *tally = tally_of(phases, 2);
    request(tally, S(1000), S(1001));
    request(tally, S(1010) - 1, S(1015));
    request(tally, S(1010), S(1011));
    request(tally, S(1020), S(1021));
    assert_int_equal(counts(tally, 0).arrived, 2);
    assert_int_equal(counts(tally, 0).ok, 2);
    assert_int_equal(counts(tally, 1).ok, 1);
    assert_int_equal(counts(tally, WHOLE).ok, 4);
    weir_tally_counts none;
    assert_false(weir_tally_counts_of(tally, 2, &none));
    weir_tally_free(tally);
}

static void phases_that_overlap_both_count(void **state)
{
    (void)state;
    const weir_phase_span phases[] = {{"all", S(1000), S(1020)}, {"middle", S(1005), S(1010)}};
    weir_tally *tally = tally_of(phases, 2);
    for (int i = 0; i < 20; i++) request(tally, S(1000 + i), S(1000 + i) + MS(1));
    assert_int_equal(counts(tally, 0).ok, 20);
    assert_int_equal(counts(tally, 1).ok, 5);
    weir_tally_free(tally);
}

static void arrivals_out_of_order_find_their_phase(void **state)
{
    (void)state;
    const weir_phase_span phases[] = {{"a", S(1000), S(1001)}, {"b", S(1001), S(1002)}};
    weir_tally *tally = tally_of(phases, 2);
    request(tally, S(1001), S(1002));
    request(tally, S(1000), S(1002));
    request(tally, S(999), S(1002)); /* before the origin: in no phase, and in the first bucket */
    request(tally, S(1001), S(1002));
    assert_int_equal(counts(tally, 0).arrived, 1);
    assert_int_equal(counts(tally, 1).arrived, 2);
    assert_int_equal(bucket(tally, 0).counts.arrived, 2);
    weir_tally_free(tally);
}

static void ends_are_told_apart(void **state)
{
    (void)state;
    weir_tally *tally = tally_of(NULL, 0);
    static const struct {
        weir_code code;
        weir_outcome outcome;
    } ends[] = {
        {WEIR_CALL_OK, WEIR_OUTCOME_COMMITTED},    {WEIR_CALL_BREAKER_OPEN, WEIR_OUTCOME_NONE},
        {WEIR_CALL_QUEUE_FULL, WEIR_OUTCOME_NONE}, {WEIR_CALL_ACQUIRE_TIMEOUT, WEIR_OUTCOME_NONE},
        {WEIR_CALL_PAUSED, WEIR_OUTCOME_NONE},     {WEIR_CALL_DRAINING, WEIR_OUTCOME_NONE},
        {WEIR_CALL_TIMEOUT, WEIR_OUTCOME_UNKNOWN}, {WEIR_CALL_TIMEOUT, WEIR_OUTCOME_ROLLED_BACK},
        {WEIR_CALL_LOST, WEIR_OUTCOME_UNKNOWN},    {WEIR_CALL_SERVER, WEIR_OUTCOME_ROLLED_BACK},
    };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        request_ends(tally, S(1000), S(1001), ends[i].code, ends[i].outcome);
    weir_tally_counts c = counts(tally, WHOLE);
    assert_int_equal(c.ok, 1);
    assert_int_equal(c.failed, 9);
    assert_int_equal(c.refused, 5);
    assert_int_equal(c.timed_out, 2);
    assert_int_equal(c.unknown, 2);
    assert_int_equal(c.calls, 10);
    assert_int_equal(weir_tally_ended_as(tally, WHOLE, WEIR_CALL_TIMEOUT), 2);
    assert_int_equal(weir_tally_ended_as(tally, WHOLE, WEIR_CALL_OK), 1);
    assert_int_equal(weir_tally_ended_as(tally, WHOLE, WEIR_CALL_MISUSE), 0);
    assert_int_equal(weir_tally_ended_as(tally, WHOLE, (weir_code)99), 0);
    assert_int_equal(weir_tally_ended_as(tally, 5, WEIR_CALL_OK), 0);
    weir_tally_free(tally);
}

static void quantiles_are_right_to_one_percent_and_know_good_ends_from_all(void **state)
{
    (void)state;
    weir_tally *tally = tally_of(NULL, 0);
    for (uint64_t i = 1; i <= 1000; i++) request(tally, S(1000), S(1000) + i * 1000000);
    for (int i = 0; i < 1000; i++)
        request_ends(tally, S(1000), S(1000) + 100, WEIR_CALL_BREAKER_OPEN, WEIR_OUTCOME_NONE);
    uint64_t p99 = weir_tally_quantile(tally, WHOLE, true, 0.99);
    assert_true(p99 >= MS(980) && p99 <= MS(1000));
    assert_true(weir_tally_quantile(tally, WHOLE, false, 0.4) < 1000);
    assert_int_equal(weir_tally_quantile(tally, WHOLE, true, 1), MS(1000));
    assert_int_equal(weir_tally_quantile(tally, 7, true, 0.5), 0);
    weir_tally_free(tally);
}

static void the_p95_of_a_bucket_is_right_to_a_factor_of_one_and_a_half(void **state)
{
    (void)state;
    for (uint64_t ns = 500; ns < S(2000); ns = ns * 17 / 10) {
        weir_tally *tally = tally_of(NULL, 0);
        for (int i = 0; i < 90; i++) request(tally, S(1000) - MS(1), S(1000) + MS(1));
        for (int i = 0; i < 10; i++) request(tally, S(5000) - ns, S(5000));
        size_t last = weir_tally_bucket_count(tally) - 1;
        double p95 = (double)bucket(tally, last).latency_p95_ns;
        bool near = p95 <= 1.5 * (double)ns && p95 * 1.5 >= (double)ns;
        if (!near && ns >= 1024) fail_msg("%g for %g", p95, (double)ns);
        weir_tally_free(tally);
    }
}

static void a_long_run_doubles_the_width_and_loses_nothing(void **state)
{
    (void)state;
    weir_tally *tally = tally_of(NULL, 0); /* 2048 buckets of 0.1 s are 204.8 s */
    struct wr_level level = {WEIR_OPEN, 7, 3}, calm = {WEIR_CLOSED, 0, 1};
    wr_tally_level(tally, &level, S(1010));
    wr_tally_level(tally, &calm, S(1011));
    for (uint64_t i = 0; i < 10000; i++) request(tally, S(1000 + i), S(1000 + i) + MS(2));
    assert_true(weir_tally_bucket_count(tally) <= WEIR_TALLY_BUCKETS);
    assert_int_equal(bucket(tally, 0).to_ns - bucket(tally, 0).from_ns, MS(6400));
    uint64_t arrived = 0, ok = 0;
    for (size_t i = 0; i < weir_tally_bucket_count(tally); i++) {
        arrived += bucket(tally, i).counts.arrived;
        ok += bucket(tally, i).counts.ok;
        assert_int_equal(bucket(tally, i).breaker, i == 1 ? WEIR_OPEN : WEIR_CLOSED);
        assert_int_equal(bucket(tally, i).waiting, i == 1 ? 7 : 0);
    }
    assert_int_equal(arrived, 10000);
    assert_int_equal(ok, 10000);
    weir_tally_free(tally);
}

static void a_jump_of_years_still_fits(void **state)
{
    (void)state;
    weir_tally *tally = tally_of(NULL, 0);
    request(tally, S(1000), S(1001));
    request(tally, S(1000), S(100000000));
    assert_true(weir_tally_bucket_count(tally) <= WEIR_TALLY_BUCKETS);
    assert_int_equal(counts(tally, WHOLE).ok, 2);
    weir_tally_free(tally);
}

static void a_level_holds_until_it_is_told_anew(void **state)
{
    (void)state;
    weir_tally *tally = tally_of(NULL, 0);
    struct wr_level open = {WEIR_OPEN, 4, 2}, closed = {WEIR_CLOSED, 0, 9};
    wr_tally_level(tally, &open, S(1000) + MS(150));
    wr_tally_level(tally, &closed, S(1000) + MS(450));
    request(tally, S(1000) + MS(650), S(1000) + MS(660));
    static const weir_breaker_state expected[] = {WEIR_CLOSED, WEIR_OPEN,   WEIR_OPEN,  WEIR_OPEN,
                                                  WEIR_OPEN,   WEIR_CLOSED, WEIR_CLOSED};
    assert_int_equal(weir_tally_bucket_count(tally), 7);
    for (size_t i = 0; i < 7; i++) assert_int_equal(bucket(tally, i).breaker, expected[i]);
    assert_int_equal(bucket(tally, 3).waiting, 4);
    assert_int_equal(bucket(tally, 4).connections, 9);
    assert_int_equal(bucket(tally, 6).connections, 9);
    weir_tally_free(tally);
}

static void the_worst_state_of_a_breaker_is_the_one_that_admits_least(void **state)
{
    (void)state;
    assert_int_equal(wr_breaker_worse(WEIR_OPEN, WEIR_HALF_OPEN), WEIR_OPEN);
    assert_int_equal(wr_breaker_worse(WEIR_HALF_OPEN, WEIR_OPEN), WEIR_OPEN);
    assert_int_equal(wr_breaker_worse(WEIR_FORCED_OPEN, WEIR_OPEN), WEIR_FORCED_OPEN);
    assert_int_equal(wr_breaker_worse(WEIR_CLOSED, WEIR_DISABLED), WEIR_DISABLED);
    assert_int_equal(wr_breaker_worse(WEIR_CLOSED, WEIR_HALF_OPEN), WEIR_HALF_OPEN);
}

static void moves_beyond_the_bound_are_counted_only(void **state)
{
    (void)state;
    weir_tally *tally = tally_of(NULL, 0);
    weir_tally_move move = {.pool = "service@primary", .from = WEIR_CLOSED, .to = WEIR_OPEN}, got;
    for (uint64_t i = 0; i < WEIR_TALLY_MOVES + 10; i++) {
        move.at_ns = i;
        wr_tally_moved(tally, &move);
    }
    assert_int_equal(weir_tally_move_count(tally), WEIR_TALLY_MOVES);
    assert_int_equal(weir_tally_moves_seen(tally), WEIR_TALLY_MOVES + 10);
    assert_true(weir_tally_move_at(tally, WEIR_TALLY_MOVES - 1, &got));
    assert_int_equal(got.at_ns, WEIR_TALLY_MOVES - 1);
    assert_string_equal(got.pool, "service@primary");
    assert_false(weir_tally_move_at(tally, WEIR_TALLY_MOVES, &got));
    weir_tally_free(tally);
}

static void what_cannot_be_is_refused_with_a_sentence(void **state)
{
    (void)state;
    static weir_phase_span many[WEIR_TALLY_PHASES + 1];
    for (size_t i = 0; i < WEIR_TALLY_PHASES + 1; i++) many[i] = (weir_phase_span){"x", 0, 1};
    const struct {
        uint64_t bucket;
        weir_phase_span phase;
        const weir_phase_span *phases;
        size_t count;
        const char *words;
    } cases[] = {
        {.bucket = 0, .words = "bucket is 0 s; it must be more than 0"},
        {.bucket = S(4000), .words = "bucket is 4000 s"},
        {.bucket = 1,
         .phases = many,
         .count = WEIR_TALLY_PHASES + 1,
         .words = "phases are 33; there may be 32"},
        {.bucket = 1, .phase = {"", 0, 1}, .count = 1, .words = "phase 1 has the name ''"},
        {.bucket = 1, .phase = {NULL, 0, 1}, .count = 1, .words = "phase 1 has the name ''"},
        {.bucket = 1,
         .phase = {"a name that is too long for a phase", 0, 1},
         .count = 1,
         .words = "1 to 31 bytes"},
        {.bucket = 1,
         .phase = {"x", S(2), S(2)},
         .count = 1,
         .words = "phase 'x' ends at 2 s; it must end after"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char why[WEIR_WHY_MAX] = "";
        weir_tally *tally = (weir_tally *)1;
        const weir_phase_span *phases = cases[i].phases != NULL ? cases[i].phases : &cases[i].phase;
        assert_int_equal(weir_tally_new(&tally, 0, cases[i].bucket, phases, cases[i].count, why),
                         WEIR_EINVAL);
        assert_null(tally);
        if (strstr(why, cases[i].words) == NULL) fail_msg("'%s' lacks '%s'", why, cases[i].words);
    }
}

struct stingy {
    int allowed, live;
};

static void *stingy_resize(void *ctx, void *old, size_t size)
{
    struct stingy *s = ctx;
    if (size == 0) {
        s->live--;
        free(old);
        return NULL;
    }
    if (old == NULL && s->allowed-- <= 0) return NULL;
    if (old == NULL) s->live++;
    return realloc(old, size);
}

static void each_allocation_may_fail_and_leaves_nothing_behind(void **state)
{
    (void)state;
    const weir_phase_span phases[] = {{"a", 0, 1}};
    int code = WEIR_ENOMEM;
    for (int allowed = 0; code != WEIR_OK; allowed++) {
        struct stingy stingy = {.allowed = allowed};
        struct wr_memory memory = {stingy_resize, &stingy};
        weir_tally *tally = NULL;
        char why[WEIR_WHY_MAX] = "";
        code = wr_tally_new(&memory, &tally, 0, 1, phases, 1, why);
        if (code != WEIR_OK) assert_string_equal(why, "out of memory");
        weir_tally_free(tally);
        assert_int_equal(stingy.live, 0);
        assert_true(allowed < 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bucket_counts_arrivals_and_ends_by_their_own_moments),
        cmocka_unit_test(a_phase_counts_the_requests_that_arrived_in_it_whenever_they_end),
        cmocka_unit_test(phases_that_overlap_both_count),
        cmocka_unit_test(arrivals_out_of_order_find_their_phase),
        cmocka_unit_test(ends_are_told_apart),
        cmocka_unit_test(quantiles_are_right_to_one_percent_and_know_good_ends_from_all),
        cmocka_unit_test(the_p95_of_a_bucket_is_right_to_a_factor_of_one_and_a_half),
        cmocka_unit_test(a_long_run_doubles_the_width_and_loses_nothing),
        cmocka_unit_test(a_jump_of_years_still_fits),
        cmocka_unit_test(a_level_holds_until_it_is_told_anew),
        cmocka_unit_test(the_worst_state_of_a_breaker_is_the_one_that_admits_least),
        cmocka_unit_test(moves_beyond_the_bound_are_counted_only),
        cmocka_unit_test(what_cannot_be_is_refused_with_a_sentence),
        cmocka_unit_test(each_allocation_may_fail_and_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
