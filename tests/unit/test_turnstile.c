/* The turnstile: how many are inside, in which order they came in, and what is left of those who do not come back. */
#include "guard/turnstile.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)

enum { OWNERS = 64, CAP = 4, EACH = 8, CONNECT_MS = 5 };

static int set_up(void **state)
{
    *state = mmap(NULL, 2 * sizeof(struct wr_turnstile), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                  -1, 0);
    return *state == MAP_FAILED ? -1 : 0;
}

static int tear_down(void **state)
{
    return munmap(*state, 2 * sizeof(struct wr_turnstile));
}

static bool enter(struct wr_turnstile *t, uint32_t owner, uint32_t at_once, uint64_t now_ms)
{
    struct wr_turn turn = {.owner = owner, .at_once = at_once, .now_ns = now_ms * MS, .lasts_ns = 1000 * MS};
    uint64_t again;
    return wr_turnstile_enter(t, &turn, &again);
}

static void one_owner_alone_takes_all_that_is_free_at_once(void **state)
{
    struct wr_turnstile *t = *state;
    for (int i = 0; i < CAP; i++) assert_true(enter(t, 7, CAP, 1));
    assert_false(enter(t, 7, CAP, 1));
    wr_turnstile_leave(t, 7);
    assert_true(enter(t, 7, CAP, 1));
    assert_int_equal(wr_turnstile_inside(t, 1), CAP);
}

static void owners_go_in_as_they_came_however_often_others_ask(void **state)
{
    struct wr_turnstile *t = *state;
    assert_true(enter(t, 9, 1, 1));
    for (uint32_t owner = 8; owner > 0; owner--) assert_false(enter(t, owner, 1, 1));
    for (uint32_t next = 8, last = 9; next > 0; last = next--) {
        wr_turnstile_leave(t, last);
        for (uint32_t owner = 1; owner < next; owner++) assert_false(enter(t, owner, 1, 2));
        assert_true(enter(t, next, 1, 2));
    }
}

static void who_wants_another_turn_stands_at_the_end_again(void **state)
{
    struct wr_turnstile *t = *state;
    assert_true(enter(t, 1, 1, 1));
    assert_false(enter(t, 2, 1, 1));
    wr_turnstile_leave(t, 1);
    assert_false(enter(t, 1, 1, 1));
    assert_true(enter(t, 2, 1, 1));
}

static void with_two_free_the_first_two_do_not_wait_for_each_other(void **state)
{
    struct wr_turnstile *t = *state;
    assert_true(enter(t, 1, 2, 1));
    assert_true(enter(t, 1, 2, 1));
    for (uint32_t owner = 2; owner < 5; owner++) assert_false(enter(t, owner, 2, 1));
    wr_turnstile_leave(t, 1);
    wr_turnstile_leave(t, 1);
    assert_false(enter(t, 4, 2, 1));
    assert_true(enter(t, 3, 2, 1));
    assert_true(enter(t, 2, 2, 1));
}

/* Stopped, or busy in a script: it must not hold the others up, nor lose its place in the row. */
static void an_owner_that_does_not_ask_in_time_is_passed_over_until_it_asks(void **state)
{
    struct wr_turnstile *t = *state;
    assert_true(enter(t, 1, 1, 1));
    assert_false(enter(t, 2, 1, 1));
    assert_false(enter(t, 3, 1, 150));
    wr_turnstile_leave(t, 1);
    assert_true(enter(t, 3, 1, 160));
    assert_false(enter(t, 4, 1, 160));
    assert_false(enter(t, 2, 1, 160));
    wr_turnstile_leave(t, 3);
    assert_false(enter(t, 4, 1, 161));
    assert_true(enter(t, 2, 1, 161));
}

static void what_stays_inside_longer_than_it_said_counts_no_more(void **state)
{
    struct wr_turnstile *t = *state;
    assert_true(enter(t, 1, 1, 1));
    assert_false(enter(t, 2, 1, 900));
    assert_false(enter(t, 2, 1, 1001));
    assert_true(enter(t, 2, 1, 1002));
    wr_turnstile_leave(t, 1);
    assert_int_equal(wr_turnstile_inside(t, 1002 * MS), 1);
}

static void what_a_dead_owner_held_comes_back(void **state)
{
    struct wr_turnstile *t = *state;
    assert_true(enter(t, 1, 1, 1));
    assert_false(enter(t, 2, 1, 1));
    assert_false(enter(t, 3, 1, 1));
    wr_turnstile_reclaim(t, 1);
    wr_turnstile_reclaim(t, 2);
    assert_true(enter(t, 3, 1, 1));
    wr_turnstile_leave(t, 1); /* a late one of the dead's takes nobody's */
    assert_int_equal(wr_turnstile_inside(t, MS), 1);
}

static void a_rate_is_kept_over_all_owners_and_says_when_to_ask(void **state)
{
    struct wr_turnstile *t = *state;
    weir_rate *rate = (weir_rate *)(void *)(t + 1);
    assert_true(weir_rate_size() <= sizeof *t);
    assert_int_equal(weir_rate_init(rate, 10, 2, 0, NULL), WEIR_OK);
    struct wr_turn turn = {.at_once = CAP, .now_ns = MS, .lasts_ns = 1000 * MS, .rate = rate};
    uint64_t again = 0;
    for (turn.owner = 1; turn.owner <= 2; turn.owner++) assert_true(wr_turnstile_enter(t, &turn, &again));
    assert_false(wr_turnstile_enter(t, &turn, &again));
    assert_int_equal(again, 50 * MS); /* half of the wait: who no longer wants to is not waited for */
    assert_int_equal(wr_turnstile_inside(t, MS), 2);
    turn.now_ns += again;
    assert_false(wr_turnstile_enter(t, &turn, &again));
    assert_in_range(again, 40 * MS, 50 * MS);
    turn.now_ns += again;
    assert_true(wr_turnstile_enter(t, &turn, &again));
}

/* ---- a recovery: everybody wants in at once ---- */

struct crowd {
    uint64_t ask_at[OWNERS], out_at[OWNERS][CAP];
    int left[OWNERS];
    long asks, most, took_ms;
    int least_done, most_done;
};

static int inside_of(const struct crowd *crowd)
{
    int inside = 0;
    for (int i = 0; i < OWNERS; i++) {
        for (int k = 0; k < CAP; k++) inside += crowd->out_at[i][k] != 0;
    }
    return inside;
}

static void let_out(struct wr_turnstile *t, struct crowd *crowd, int owner, uint64_t now)
{
    for (int k = 0; k < CAP; k++) {
        if (crowd->out_at[owner][k] == 0 || crowd->out_at[owner][k] > now) continue;
        crowd->out_at[owner][k] = 0;
        wr_turnstile_leave(t, (uint32_t)owner + 1);
        crowd->ask_at[owner] = now; /* an engine looks at once when a connect of its own has ended */
    }
}

static void ask(struct wr_turnstile *t, struct crowd *crowd, int owner, uint64_t now)
{
    struct wr_turn turn = {.owner = (uint32_t)owner + 1,
                           .at_once = CAP,
                           .now_ns = now,
                           .lasts_ns = 1000 * MS};
    while (crowd->left[owner] > 0 && crowd->ask_at[owner] <= now) {
        uint64_t again = 0;
        crowd->asks++;
        if (!wr_turnstile_enter(t, &turn, &again)) {
            crowd->ask_at[owner] = now + again;
            return;
        }
        crowd->left[owner]--;
        int k = 0;
        while (crowd->out_at[owner][k] != 0) k++;
        crowd->out_at[owner][k] = now + CONNECT_MS * MS;
    }
}

static void spread(struct crowd *crowd)
{
    crowd->least_done = EACH;
    for (int i = 0; i < OWNERS; i++) {
        int done = EACH - crowd->left[i];
        if (done < crowd->least_done) crowd->least_done = done;
        if (done > crowd->most_done) crowd->most_done = done;
    }
}

static void a_crowd_goes_in_quickly_in_turn_and_without_a_herd(void **state)
{
    struct wr_turnstile *t = *state;
    struct crowd crowd = {0};
    uint64_t now = 1000 * MS;
    for (int i = 0; i < OWNERS; i++) {
        crowd.left[i] = EACH;
        crowd.ask_at[i] = now;
    }
    for (int i = 0; i < CAP; i++) assert_true(enter(t, OWNERS + 1, CAP, 1000));
    for (int i = 0; i < OWNERS; i++)
        ask(t, &crowd, i, now); /* all stand in the row before the first goes in */
    for (int i = 0; i < CAP; i++) wr_turnstile_leave(t, OWNERS + 1);
    int wanting = OWNERS;
    for (; wanting > 0; now += MS / 2) {
        wanting = 0;
        for (int i = 0; i < OWNERS; i++) {
            let_out(t, &crowd, i, now);
            ask(t, &crowd, i, now);
            wanting += crowd.left[i] > 0;
        }
        if (inside_of(&crowd) > crowd.most) crowd.most = inside_of(&crowd);
        if (now == 1320 * MS) spread(&crowd);
    }
    long ms = (long)((now - 1000 * MS) / MS), ideal = OWNERS * EACH * CONNECT_MS / CAP;
    assert_int_equal(crowd.most, CAP);
    assert_in_range(ms, ideal, 2 * ideal);
    assert_in_range(crowd.most_done - crowd.least_done, 0, 2);
    assert_in_range(crowd.asks, OWNERS * EACH, 12 * ms); /* of 64 at 2 ms it would be 32 each millisecond */
}

/* ---- processes that are killed ---- */

struct hall { /* behind the turnstile */
    _Atomic int inside;
    _Atomic long visits;
    _Atomic int broken;
};

static void come_and_go(struct wr_turnstile *t, struct hall *hall, uint32_t owner)
{
    for (;;) {
        struct wr_turn turn = {.owner = owner, .at_once = 2, .now_ns = MS, .lasts_ns = 1000 * MS};
        uint64_t again;
        if (!wr_turnstile_enter(t, &turn, &again)) continue;
        hall->visits++;
        if (wr_turnstile_inside(t, MS) == 0) hall->broken = 1;
        wr_turnstile_leave(t, owner);
    }
}

static void owners_killed_anywhere_leave_a_turnstile_that_turns(void **state)
{
    struct wr_turnstile *t = *state;
    struct hall *hall = (struct hall *)(void *)(t + 1);
    for (int round = 0; round < 60; round++) {
        pid_t child[4];
        long before = hall->visits;
        for (uint32_t i = 0; i < 4; i++) {
            child[i] = fork();
            if (child[i] == 0) come_and_go(t, hall, i + 1);
        }
        while (hall->visits < before + 50) (void)usleep(100);
        for (uint32_t i = 0; i < 4; i++) {
            kill(child[i], SIGKILL);
            waitpid(child[i], NULL, 0);
            wr_turnstile_reclaim(t, i + 1);
        }
        assert_int_equal(wr_turnstile_inside(t, MS), 0);
        assert_int_equal(hall->broken, 0);
        assert_true(enter(t, 9, 1, 1));
        wr_turnstile_leave(t, 9);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_owner_alone_takes_all_that_is_free_at_once),
        TEST(owners_go_in_as_they_came_however_often_others_ask),
        TEST(who_wants_another_turn_stands_at_the_end_again),
        TEST(with_two_free_the_first_two_do_not_wait_for_each_other),
        TEST(an_owner_that_does_not_ask_in_time_is_passed_over_until_it_asks),
        TEST(what_stays_inside_longer_than_it_said_counts_no_more),
        TEST(what_a_dead_owner_held_comes_back),
        TEST(a_rate_is_kept_over_all_owners_and_says_when_to_ask),
        TEST(a_crowd_goes_in_quickly_in_turn_and_without_a_herd),
        TEST(owners_killed_anywhere_leave_a_turnstile_that_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
