#include "weir/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    weir_budget *budget;
    weir_budget_config config;
};

static const uint64_t start_ns = UINT64_C(1700000000000000000);

static uint64_t at_ms(uint64_t ms)
{
    return start_ns + ms * UINT64_C(1000000);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->budget = aligned_alloc(64, weir_budget_size());
    memset(f->budget, 0xa5, weir_budget_size());
    weir_budget_defaults(&f->config);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    free(f->budget);
    free(f);
    return 0;
}

static void begin(struct fixture *f)
{
    assert_int_equal(weir_budget_init(f->budget, &f->config, start_ns, NULL), WEIR_OK);
}

static void begin_ratio(struct fixture *f, double share, double per_second)
{
    f->config = (weir_budget_config){.ratio = true,
                                     .per_success = share,
                                     .floor = per_second,
                                     .window_ns = UINT64_C(10000000000)};
    begin(f);
}

static void assert_level(struct fixture *f, uint64_t now_ns, double expected)
{
    double off = weir_budget_level(f->budget, now_ns) - expected;
    assert_true(off < 1e-6 && off > -1e-6);
}

/* How many retries are granted in a row, at most `asked`. */
static int granted(struct fixture *f, int asked, uint64_t now_ns)
{
    int n = 0;
    while (n < asked && weir_budget_withdraw(f->budget, now_ns)) n++;
    return n;
}

static void succeed(struct fixture *f, int n, uint64_t now_ns)
{
    for (int i = 0; i < n; i++) weir_budget_success(f->budget, now_ns);
}

static void request(struct fixture *f, int n, uint64_t now_ns)
{
    for (int i = 0; i < n; i++) weir_budget_request(f->budget, now_ns);
}

/* ---- tokens ---- */

static void it_starts_at_the_floor_and_each_retry_takes_one(void **state)
{
    struct fixture *f = *state;
    begin(f);
    assert_level(f, at_ms(0), 10);
    assert_int_equal(granted(f, 20, at_ms(0)), 10);
    assert_level(f, at_ms(0), 0);
    assert_true(weir_budget_cap(f->budget) == 100);
}

static void ten_successes_pay_one_retry(void **state)
{
    struct fixture *f = *state;
    begin(f);
    granted(f, 10, at_ms(0));
    succeed(f, 9, at_ms(0));
    assert_int_equal(granted(f, 1, at_ms(0)), 0);
    succeed(f, 1, at_ms(0));
    assert_int_equal(granted(f, 2, at_ms(0)), 1);
}

static void earning_stops_at_the_cap(void **state)
{
    struct fixture *f = *state;
    begin(f);
    succeed(f, 5000, at_ms(0));
    assert_level(f, at_ms(0), 100);
    assert_int_equal(granted(f, 200, at_ms(0)), 100);
}

static void time_alone_refills_to_the_floor_in_ten_seconds(void **state)
{
    struct fixture *f = *state;
    begin(f);
    granted(f, 10, at_ms(0));
    assert_level(f, at_ms(500), 0.5);
    assert_int_equal(granted(f, 1, at_ms(999)), 0);
    assert_int_equal(granted(f, 2, at_ms(1000)), 1);
    assert_level(f, at_ms(11000), 10);
    assert_level(f, at_ms(3600000), 10);
}

static void time_adds_nothing_above_the_floor(void **state)
{
    struct fixture *f = *state;
    begin(f);
    succeed(f, 50, at_ms(0));
    assert_level(f, at_ms(0), 15);
    assert_level(f, at_ms(60000), 15);
    granted(f, 3, at_ms(60000));
    assert_level(f, at_ms(120000), 12);
}

static void refilling_in_many_small_steps_loses_nothing(void **state)
{
    struct fixture *f = *state;
    f->config.per_success = 0;
    f->config.floor = 3;
    begin(f);
    granted(f, 3, at_ms(0));
    for (uint64_t step = 0; step < 10000; step++)
        weir_budget_success(f->budget, at_ms(step)); /* writes the level every time */
    assert_level(f, at_ms(5000), 1.5);
    assert_level(f, at_ms(10000), 3);
}

static void without_a_floor_only_success_pays(void **state)
{
    struct fixture *f = *state;
    f->config.floor = 0;
    f->config.per_success = 0.5;
    begin(f);
    assert_int_equal(granted(f, 1, at_ms(3600000)), 0);
    succeed(f, 3, at_ms(3600000));
    assert_int_equal(granted(f, 5, at_ms(3600000)), 1);
    assert_level(f, at_ms(7200000), 0.5);
}

static void a_request_earns_no_token(void **state)
{
    struct fixture *f = *state;
    begin(f);
    request(f, 100, at_ms(0));
    assert_level(f, at_ms(0), 10);
}

/* ---- ratio ---- */

static void a_share_of_requests_may_be_retried(void **state)
{
    static const struct {
        int requests;
        double share;
        int granted;
    } table[] = {{100, 0.2, 20}, {10, 0.2, 2}, {9, 0.2, 1}, {4, 0.2, 0},
                 {10, 0.1, 1},   {30, 0.1, 3}, {0, 0.2, 0}, {10, 2, 20}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        begin_ratio(f, table[i].share, 0);
        request(f, table[i].requests, at_ms(100));
        assert_int_equal(granted(f, 100, at_ms(100)), table[i].granted);
    }
}

static void some_retries_per_second_are_always_allowed(void **state)
{
    struct fixture *f = *state;
    begin_ratio(f, 0.2, 2);
    assert_level(f, at_ms(0), 20);
    assert_int_equal(granted(f, 100, at_ms(0)), 20);
    assert_int_equal(granted(f, 100, at_ms(9999)), 0);
    assert_int_equal(granted(f, 100, at_ms(10000)), 20);
}

static void requests_and_retries_leave_the_window_with_time(void **state)
{
    struct fixture *f = *state;
    begin_ratio(f, 0.5, 0);
    request(f, 10, at_ms(0));
    assert_int_equal(granted(f, 3, at_ms(5000)), 3);
    assert_level(f, at_ms(9999), 2);
    assert_level(f, at_ms(10000), 0); /* the requests are gone, three retries stand: no debt is shown */
    request(f, 10, at_ms(10000));
    assert_level(f, at_ms(14999), 2);
    assert_level(f, at_ms(15000), 5);
}

static void a_success_changes_no_ratio(void **state)
{
    struct fixture *f = *state;
    begin_ratio(f, 0.5, 0);
    succeed(f, 100, at_ms(0));
    assert_level(f, at_ms(0), 0);
}

static void bad_knobs_are_refused_by_name(void **state)
{
    static const struct {
        weir_budget_config config;
        const char *why;
    } table[] = {
        {{.per_success = -1, .cap = 10}, "per_success is -1: it must be 0 to 1e9"},
        {{.floor = -2, .cap = 10}, "floor is -2: it must be 0 to 1e9"},
        {{.floor = 5, .cap = 4}, "cap is 4: it must be floor to 1e9"},
        {{.cap = 0.5}, "cap is 0.5: below 1 no retry could ever be paid"},
        {{.cap = 1e10}, "cap is 1e+10: it must be floor to 1e9"},
        {{.ratio = true, .window_ns = 1}, "window is 1e-09 s: it must be 1 to 60 s"},
        {{.ratio = true, .window_ns = UINT64_C(61000000000)}, "window is 61 s: it must be 1 to 60 s"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char why[WEIR_WHY_MAX] = "";
        assert_int_equal(weir_budget_init(f->budget, &table[i].config, 0, why), WEIR_EINVAL);
        assert_string_equal(why, table[i].why);
    }
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(it_starts_at_the_floor_and_each_retry_takes_one),
        CASE(ten_successes_pay_one_retry),
        CASE(earning_stops_at_the_cap),
        CASE(time_alone_refills_to_the_floor_in_ten_seconds),
        CASE(time_adds_nothing_above_the_floor),
        CASE(refilling_in_many_small_steps_loses_nothing),
        CASE(without_a_floor_only_success_pays),
        CASE(a_request_earns_no_token),
        CASE(a_share_of_requests_may_be_retried),
        CASE(some_retries_per_second_are_always_allowed),
        CASE(requests_and_retries_leave_the_window_with_time),
        CASE(a_success_changes_no_ratio),
        CASE(bad_knobs_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
