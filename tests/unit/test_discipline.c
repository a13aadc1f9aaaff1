#include "guard/discipline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const uint64_t ms = 1000000;

static struct wr_discipline made(enum wr_queue_kind kind)
{
    struct wr_discipline d;
    wr_discipline_init(&d, kind, 5 * ms, 100 * ms);
    return d;
}

/* A queue whose oldest waiter has waited so long of an allowance of 1000 ms. */
static void standing(struct wr_discipline *d, uint64_t now_ms, uint64_t waited_ms)
{
    wr_discipline_observe(d, now_ms * ms, false, waited_ms * ms, 1000 * ms);
}

static void emptied(struct wr_discipline *d, uint64_t now_ms)
{
    wr_discipline_observe(d, now_ms * ms, true, 0, 0);
}

static void fifo_never_turns_round_and_never_drops(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_FIFO);
    for (uint64_t now = 0; now < 100000; now += 50) standing(&d, now, now);
    assert_false(wr_discipline_newest_first(&d));
    assert_false(wr_discipline_should_drop(&d, UINT64_MAX));
}

static void adaptive_turns_round_past_half_of_the_allowance(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_ADAPTIVE);
    standing(&d, 1000, 500);
    assert_false(wr_discipline_newest_first(&d));
    standing(&d, 1001, 501);
    assert_true(wr_discipline_newest_first(&d));
}

static void adaptive_turns_back_below_a_quarter_and_not_in_between(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_ADAPTIVE);
    standing(&d, 1000, 501);
    standing(&d, 1001, 250);
    assert_true(wr_discipline_newest_first(&d));
    standing(&d, 1002, 249);
    assert_false(wr_discipline_newest_first(&d));
    standing(&d, 1003, 250);
    assert_false(wr_discipline_newest_first(&d));
}

static void adaptive_goes_by_the_waiters_own_allowance(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_ADAPTIVE);
    wr_discipline_observe(&d, 30000 * ms, false, 29000 * ms, 60000 * ms);
    assert_false(wr_discipline_newest_first(&d));
    wr_discipline_observe(&d, 30000 * ms, false, 6 * ms, 10 * ms);
    assert_true(wr_discipline_newest_first(&d));
}

static void an_empty_queue_ends_overload_of_either_kind(void **state)
{
    (void)state;
    static const enum wr_queue_kind kinds[] = {WR_QUEUE_ADAPTIVE, WR_QUEUE_CODEL};
    for (int i = 0; i < 2; i++) {
        struct wr_discipline d = made(kinds[i]);
        standing(&d, 1000, 900);
        assert_true(wr_discipline_newest_first(&d));
        emptied(&d, 1001);
        assert_false(wr_discipline_newest_first(&d));
    }
}

static void adaptive_never_drops(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_ADAPTIVE);
    standing(&d, 1000, 999);
    assert_true(wr_discipline_newest_first(&d));
    assert_false(wr_discipline_should_drop(&d, 999 * ms));
}

static void codel_turns_round_after_a_whole_interval_above_target(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_CODEL);
    standing(&d, 1000, 6); /* crossed the target at 999 */
    standing(&d, 1098, 60);
    assert_false(wr_discipline_newest_first(&d));
    standing(&d, 1099, 60);
    assert_true(wr_discipline_newest_first(&d));
}

static void codel_starts_its_interval_again_when_the_delay_was_short_in_between(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_CODEL);
    standing(&d, 1000, 6);
    standing(&d, 1050, 5);
    standing(&d, 1060, 6);
    standing(&d, 1150, 50);
    assert_false(wr_discipline_newest_first(&d));
    standing(&d, 1160, 50);
    assert_true(wr_discipline_newest_first(&d));
}

static void codel_starts_its_interval_again_when_the_queue_was_empty(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_CODEL);
    standing(&d, 1000, 6);
    emptied(&d, 1050);
    standing(&d, 1110, 6);
    assert_false(wr_discipline_newest_first(&d));
}

static void codel_knows_from_one_look_that_a_waiter_stood_too_long(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_CODEL);
    standing(&d, 1000, 104);
    assert_false(wr_discipline_newest_first(&d));
    d = made(WR_QUEUE_CODEL);
    standing(&d, 1000, 105);
    assert_true(wr_discipline_newest_first(&d));
}

static void codel_drops_only_under_overload_and_only_past_the_target(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_CODEL);
    assert_false(wr_discipline_should_drop(&d, 1000 * ms));
    standing(&d, 1000, 200);
    assert_false(wr_discipline_should_drop(&d, 5 * ms));
    assert_true(wr_discipline_should_drop(&d, 5 * ms + 1));
}

static void codel_stays_on_guard_until_the_delay_was_short_for_an_interval(void **state)
{
    (void)state;
    struct wr_discipline d = made(WR_QUEUE_CODEL);
    standing(&d, 1000, 200);
    standing(&d, 1001, 3); /* the old ones were dropped */
    standing(&d, 1100, 3);
    assert_true(wr_discipline_newest_first(&d));
    standing(&d, 1101, 3);
    assert_false(wr_discipline_newest_first(&d));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fifo_never_turns_round_and_never_drops),
        cmocka_unit_test(adaptive_turns_round_past_half_of_the_allowance),
        cmocka_unit_test(adaptive_turns_back_below_a_quarter_and_not_in_between),
        cmocka_unit_test(adaptive_goes_by_the_waiters_own_allowance),
        cmocka_unit_test(an_empty_queue_ends_overload_of_either_kind),
        cmocka_unit_test(adaptive_never_drops),
        cmocka_unit_test(codel_turns_round_after_a_whole_interval_above_target),
        cmocka_unit_test(codel_starts_its_interval_again_when_the_delay_was_short_in_between),
        cmocka_unit_test(codel_starts_its_interval_again_when_the_queue_was_empty),
        cmocka_unit_test(codel_knows_from_one_look_that_a_waiter_stood_too_long),
        cmocka_unit_test(codel_drops_only_under_overload_and_only_past_the_target),
        cmocka_unit_test(codel_stays_on_guard_until_the_delay_was_short_for_an_interval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
