#include "base/heap.h"

#include "base/rng.h"
#include "weir/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { TIMERS = 500 };

struct fixture {
    struct wr_heap heap;
    struct wr_timer timer[TIMERS];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    wr_heap_init(&f->heap, wr_memory_libc());
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < TIMERS; i++) wr_heap_disarm(&f->heap, &f->timer[i]);
    wr_heap_release(&f->heap);
    free(f);
    return 0;
}

static void arm(struct fixture *f, int i, uint64_t at_ns)
{
    assert_int_equal(wr_heap_arm(&f->heap, &f->timer[i], at_ns), WEIR_OK);
}

static int pop(struct fixture *f)
{
    struct wr_timer *timer = wr_heap_pop_due(&f->heap, UINT64_MAX);
    return timer == NULL ? -1 : (int)(timer - f->timer);
}

static void an_empty_heap_has_no_earliest_and_nothing_due(void **state)
{
    struct fixture *f = *state;
    assert_null(wr_heap_earliest(&f->heap));
    assert_null(wr_heap_pop_due(&f->heap, UINT64_MAX));
}

static void timers_come_out_in_the_order_of_their_deadlines(void **state)
{
    struct fixture *f = *state;
    static const uint64_t at[] = {50, 10, 40, 20, 30};
    static const int expected[] = {1, 3, 4, 2, 0, -1};
    for (int i = 0; i < 5; i++) arm(f, i, at[i]);
    for (int i = 0; i < 6; i++) assert_int_equal(pop(f), expected[i]);
}

static void ties_fire_in_the_order_they_were_armed(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 100; i++) arm(f, 99 - i, 7);
    for (int i = 0; i < 100; i++) assert_int_equal(pop(f), 99 - i);
}

static void a_timer_is_due_at_its_deadline_and_not_before(void **state)
{
    struct fixture *f = *state;
    arm(f, 0, 100);
    assert_null(wr_heap_pop_due(&f->heap, 99));
    assert_true(wr_timer_armed(&f->timer[0]));
    assert_ptr_equal(wr_heap_pop_due(&f->heap, 100), &f->timer[0]);
    assert_false(wr_timer_armed(&f->timer[0]));
}

static void a_timer_armed_twice_moves(void **state)
{
    struct fixture *f = *state;
    arm(f, 0, 10);
    arm(f, 1, 20);
    arm(f, 2, 30);
    arm(f, 0, 40);
    arm(f, 2, 5);
    assert_int_equal(f->heap.count, 3);
    assert_int_equal(pop(f), 2);
    assert_int_equal(pop(f), 1);
    assert_int_equal(pop(f), 0);
}

static void a_timer_moved_to_the_same_deadline_goes_behind_its_equals(void **state)
{
    struct fixture *f = *state;
    arm(f, 0, 10);
    arm(f, 1, 10);
    arm(f, 0, 10);
    assert_int_equal(pop(f), 1);
}

static void disarming_an_unarmed_timer_does_nothing(void **state)
{
    struct fixture *f = *state;
    arm(f, 0, 10);
    wr_heap_disarm(&f->heap, &f->timer[1]);
    wr_heap_disarm(&f->heap, &f->timer[0]);
    wr_heap_disarm(&f->heap, &f->timer[0]);
    assert_null(wr_heap_earliest(&f->heap));
}

static int earliest_by_search(const struct fixture *f)
{
    int best = -1;
    for (int i = 0; i < TIMERS; i++) {
        const struct wr_timer *t = &f->timer[i], *b = best < 0 ? NULL : &f->timer[best];
        if (!wr_timer_armed(t)) continue;
        if (b == NULL || t->at_ns < b->at_ns || (t->at_ns == b->at_ns && t->order < b->order)) best = i;
    }
    return best;
}

static void after_any_sequence_the_earliest_is_what_a_search_finds(void **state)
{
    struct fixture *f = *state;
    struct wr_rng rng;
    wr_rng_seed(&rng, 42);
    for (int step = 0; step < 20000; step++) {
        uint64_t random = wr_rng_next(&rng);
        int i = (int)(random % TIMERS);
        if (random >> 32 & 1) {
            arm(f, i, random >> 33 & 0xff);
        } else {
            wr_heap_disarm(&f->heap, &f->timer[i]);
        }
        int expected = earliest_by_search(f);
        assert_ptr_equal(wr_heap_earliest(&f->heap), expected < 0 ? NULL : &f->timer[expected]);
    }
}

/* Memory that runs out after `left` allocations. */
static void *rationed(void *ctx, void *old, size_t size)
{
    int *left = ctx;
    if (size > 0 && (*left)-- <= 0) return NULL;
    return wr_resize(wr_memory_libc(), old, size);
}

static void arming_without_memory_fails_and_leaves_the_heap_as_it_was(void **state)
{
    (void)state;
    int left = 1;
    const struct wr_memory memory = {.resize = rationed, .ctx = &left};
    struct wr_heap heap;
    struct wr_timer timers[100] = {0};
    wr_heap_init(&heap, &memory);
    int armed = 0;
    while (armed < 100 && wr_heap_arm(&heap, &timers[armed], 1000 - (uint64_t)armed) == WEIR_OK) armed++;
    assert_in_range(armed, 1, 99);
    assert_false(wr_timer_armed(&timers[armed]));
    for (int i = armed - 1; i >= 0; i--) assert_ptr_equal(wr_heap_pop_due(&heap, 1000), &timers[i]);
    wr_heap_release(&heap);
}

static void reserved_room_cannot_fail_later(void **state)
{
    (void)state;
    int left = 1;
    const struct wr_memory memory = {.resize = rationed, .ctx = &left};
    struct wr_heap heap;
    struct wr_timer timers[100] = {0};
    wr_heap_init(&heap, &memory);
    assert_int_equal(wr_heap_reserve(&heap, 100), WEIR_OK);
    assert_int_equal(wr_heap_reserve(&heap, 50), WEIR_OK);
    for (int i = 0; i < 100; i++) assert_int_equal(wr_heap_arm(&heap, &timers[i], 1), WEIR_OK);
    assert_int_equal(wr_heap_reserve(&heap, 101), WEIR_ENOMEM);
    for (int i = 0; i < 100; i++) assert_ptr_equal(wr_heap_pop_due(&heap, 1), &timers[i]);
    wr_heap_release(&heap);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(an_empty_heap_has_no_earliest_and_nothing_due),
        CASE(timers_come_out_in_the_order_of_their_deadlines),
        CASE(ties_fire_in_the_order_they_were_armed),
        CASE(a_timer_is_due_at_its_deadline_and_not_before),
        CASE(a_timer_armed_twice_moves),
        CASE(a_timer_moved_to_the_same_deadline_goes_behind_its_equals),
        CASE(disarming_an_unarmed_timer_does_nothing),
        CASE(after_any_sequence_the_earliest_is_what_a_search_finds),
        CASE(arming_without_memory_fails_and_leaves_the_heap_as_it_was),
        CASE(reserved_room_cannot_fail_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
