#include "weir/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int set_up(void **state)
{
    *state = aligned_alloc(64, weir_limit_size());
    memset(*state, 0xa5, weir_limit_size());
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static void begin(weir_limit *limit, uint32_t max)
{
    assert_int_equal(weir_limit_init(limit, max, NULL), WEIR_OK);
}

static uint32_t acquired(weir_limit *limit, uint32_t owner, uint32_t asked)
{
    uint32_t n = 0;
    while (n < asked && weir_limit_acquire(limit, owner)) n++;
    return n;
}

static void exactly_max_are_admitted_whoever_asks(void **state)
{
    weir_limit *limit = *state;
    begin(limit, 5);
    assert_int_equal(acquired(limit, 0, 3), 3);
    assert_int_equal(acquired(limit, 255, 10), 2);
    assert_int_equal(weir_limit_used(limit), 5);
    assert_int_equal(weir_limit_max(limit), 5);
    assert_false(weir_limit_acquire(limit, 7));
}

static void a_release_makes_room_for_anyone(void **state)
{
    weir_limit *limit = *state;
    begin(limit, 1);
    assert_true(weir_limit_acquire(limit, 3));
    weir_limit_release(limit, 3);
    assert_int_equal(weir_limit_used(limit), 0);
    assert_true(weir_limit_acquire(limit, 4));
}

static void releasing_more_than_was_held_changes_nothing(void **state)
{
    weir_limit *limit = *state;
    begin(limit, 2);
    assert_true(weir_limit_acquire(limit, 1));
    weir_limit_release(limit, 2);
    assert_int_equal(weir_limit_used(limit), 1);
    weir_limit_release(limit, 1);
    weir_limit_release(limit, 1);
    assert_int_equal(weir_limit_used(limit), 0);
    assert_int_equal(acquired(limit, 1, 10), 2);
}

static void reclaiming_returns_all_of_one_owner_and_no_others(void **state)
{
    weir_limit *limit = *state;
    begin(limit, 10);
    acquired(limit, 1, 6);
    acquired(limit, 2, 4);
    weir_limit_reclaim(limit, 1);
    assert_int_equal(weir_limit_used(limit), 4);
    weir_limit_reclaim(limit, 1);
    assert_int_equal(acquired(limit, 3, 10), 6);
}

/* A limiter begins with its turn word: this is what a process leaves that was killed after it had taken its turn. */
static void leave_unfinished(weir_limit *limit, uint64_t serial, uint32_t owner)
{
    atomic_store((_Atomic uint64_t *)(void *)limit, serial << 32 | (owner + 1));
}

static void an_acquisition_its_process_did_not_finish_is_finished_by_the_next(void **state)
{
    weir_limit *limit = *state;
    begin(limit, 2);
    assert_true(weir_limit_acquire(limit, 6));
    weir_limit_release(limit, 6);
    leave_unfinished(limit, 2, 5);
    assert_true(weir_limit_acquire(limit, 4));
    assert_int_equal(weir_limit_used(limit), 2);
    assert_false(weir_limit_acquire(limit, 4));
    weir_limit_reclaim(limit, 5);
    assert_int_equal(weir_limit_used(limit), 1);
}

static void a_dead_owner_gets_nothing_after_it_was_reclaimed(void **state)
{
    weir_limit *limit = *state;
    begin(limit, 2);
    leave_unfinished(limit, 1, 0);
    weir_limit_reclaim(limit, 0);
    assert_true(weir_limit_acquire(limit, 1));
    assert_int_equal(weir_limit_used(limit), 1);
}

static void an_owner_out_of_range_is_never_admitted(void **state)
{
    weir_limit *limit = *state;
    begin(limit, 10);
    assert_false(weir_limit_acquire(limit, 256));
    weir_limit_release(limit, 256);
    weir_limit_reclaim(limit, UINT32_MAX);
    assert_int_equal(weir_limit_used(limit), 0);
}

static void the_bounds_of_max_are_kept_and_told(void **state)
{
    weir_limit *limit = *state;
    char why[WEIR_WHY_MAX];
    assert_int_equal(weir_limit_init(limit, 0, why), WEIR_EINVAL);
    assert_string_equal(why, "max is 0: it must be 1 to 1000000");
    assert_int_equal(weir_limit_init(limit, 1000001, why), WEIR_EINVAL);
    assert_string_equal(why, "max is 1000001: it must be 1 to 1000000");
    begin(limit, 1000000);
    assert_int_equal(acquired(limit, 0, 1000001), 1000000);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(exactly_max_are_admitted_whoever_asks),
        CASE(a_release_makes_room_for_anyone),
        CASE(releasing_more_than_was_held_changes_nothing),
        CASE(reclaiming_returns_all_of_one_owner_and_no_others),
        CASE(an_acquisition_its_process_did_not_finish_is_finished_by_the_next),
        CASE(a_dead_owner_gets_nothing_after_it_was_reclaimed),
        CASE(an_owner_out_of_range_is_never_admitted),
        CASE(the_bounds_of_max_are_kept_and_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
