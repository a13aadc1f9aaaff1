/* The books of writes: what the caller was told against what took effect. */
#include "sim/ledger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { WRITE = 7 };

struct story {
    const char *what;
    weir_outcome told;
    int effects;
    bool idempotent, gone;
    weir_sim_books books;
};

static weir_sim_books books_of(const struct story *story)
{
    struct wr_ledger ledger = {0};
    wr_ledger_open(&ledger, WRITE, story->idempotent);
    wr_ledger_hold(&ledger, WRITE);
    for (int i = 0; i < story->effects; i++) wr_ledger_took_effect(&ledger, WRITE);
    if (story->gone) wr_ledger_lost_effect(&ledger, WRITE);
    wr_ledger_close(&ledger, WRITE, story->told);
    wr_ledger_let_go(&ledger, WRITE);
    weir_sim_books books = ledger.books;
    wr_ledger_release(&ledger);
    return books;
}

static void what_was_told_is_judged_by_what_took_effect(void **state)
{
    (void)state;
    const struct story stories[] = {
        {"well", WEIR_OUTCOME_COMMITTED, 1, false, false, {.opened = 1, .closed = 1}},
        {"failed", WEIR_OUTCOME_ROLLED_BACK, 0, false, false, {.opened = 1, .closed = 1}},
        {"never sent", WEIR_OUTCOME_NONE, 0, false, false, {.opened = 1, .closed = 1}},
        {"lost", WEIR_OUTCOME_COMMITTED, 0, false, false, {.opened = 1, .closed = 1, .lost = 1}},
        {"twice", WEIR_OUTCOME_COMMITTED, 2, false, false, {.opened = 1, .closed = 1, .twice = 1}},
        {"twice, and may be", WEIR_OUTCOME_COMMITTED, 2, true, false, {.opened = 1, .closed = 1}},
        {"undead", WEIR_OUTCOME_ROLLED_BACK, 1, false, false, {.opened = 1, .closed = 1, .undead = 1}},
        {"undead", WEIR_OUTCOME_NONE, 1, false, false, {.opened = 1, .closed = 1, .undead = 1}},
        {"unknown", WEIR_OUTCOME_UNKNOWN, 1, false, false, {.opened = 1, .closed = 1, .unknown_there = 1}},
        {"unknown",
         WEIR_OUTCOME_UNKNOWN,
         0,
         false,
         false,
         {.opened = 1, .closed = 1, .unknown_not_there = 1}},
        {"gone by failover", WEIR_OUTCOME_COMMITTED, 1, false, true, {.opened = 1, .closed = 1, .gone = 1}},
    };
    for (size_t i = 0; i < sizeof stories / sizeof *stories; i++) {
        weir_sim_books seen = books_of(&stories[i]);
        if (memcmp(&seen, &stories[i].books, sizeof seen) != 0) fail_msg("%s: other books", stories[i].what);
    }
}

static void a_write_is_judged_when_nobody_can_change_it_any_more(void **state)
{
    (void)state;
    struct wr_ledger ledger = {0};
    wr_ledger_open(&ledger, WRITE, false);
    wr_ledger_hold(&ledger, WRITE); /* a job runs on after its caller has gone */
    wr_ledger_close(&ledger, WRITE, WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(ledger.books.undead, 0);
    wr_ledger_took_effect(&ledger, WRITE);
    wr_ledger_let_go(&ledger, WRITE);
    assert_int_equal(ledger.books.undead, 1);
    wr_ledger_release(&ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_told_is_judged_by_what_took_effect),
        cmocka_unit_test(a_write_is_judged_when_nobody_can_change_it_any_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
