/* The books of writes: what is counted as lost, twice, undead or gone, and that they stay small. */
#include "sim_fixture.h"

#include "sim/ledger.h"

#include <string.h>

static struct wr_ledger *fresh(void)
{
    static struct wr_ledger ledger;
    memset(&ledger, 0, sizeof ledger);
    return &ledger;
}

/* A write that takes effect so often, and whose caller is told so. */
static void write_it(struct wr_ledger *ledger, uint64_t number, unsigned effects, weir_outcome told,
                     bool idempotent)
{
    wr_ledger_open(ledger, number, idempotent);
    wr_ledger_hold(ledger, number);
    for (unsigned i = 0; i < effects; i++) wr_ledger_took_effect(ledger, number);
    wr_ledger_let_go(ledger, number);
    wr_ledger_close(ledger, number, told);
}

static void each_end_is_judged_by_what_is_there(void **state)
{
    (void)state;
    static const struct {
        unsigned effects;
        weir_outcome told;
        bool idempotent;
        weir_sim_books books;
    } cases[] = {
        {0, WEIR_OUTCOME_COMMITTED, false, {.opened = 1, .closed = 1, .lost = 1}},
        {1, WEIR_OUTCOME_COMMITTED, false, {.opened = 1, .closed = 1}},
        {2, WEIR_OUTCOME_COMMITTED, false, {.opened = 1, .closed = 1, .twice = 1}},
        {2, WEIR_OUTCOME_COMMITTED, true, {.opened = 1, .closed = 1}},
        {0, WEIR_OUTCOME_ROLLED_BACK, false, {.opened = 1, .closed = 1}},
        {1, WEIR_OUTCOME_ROLLED_BACK, false, {.opened = 1, .closed = 1, .undead = 1}},
        {1, WEIR_OUTCOME_NONE, true, {.opened = 1, .closed = 1, .undead = 1}},
        {2, WEIR_OUTCOME_NONE, false, {.opened = 1, .closed = 1, .undead = 1, .twice = 1}},
        {0, WEIR_OUTCOME_UNKNOWN, false, {.opened = 1, .closed = 1, .unknown_not_there = 1}},
        {1, WEIR_OUTCOME_UNKNOWN, false, {.opened = 1, .closed = 1, .unknown_there = 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wr_ledger *ledger = fresh();
        write_it(ledger, 5, cases[i].effects, cases[i].told, cases[i].idempotent);
        assert_memory_equal(&ledger->books, &cases[i].books, sizeof ledger->books);
        assert_int_equal(ledger->count, 0); /* and forgotten */
        wr_ledger_release(ledger);
    }
}

static void an_end_is_not_judged_while_something_is_under_way(void **state)
{
    (void)state;
    struct wr_ledger *ledger = fresh();
    wr_ledger_open(ledger, 9, false);
    wr_ledger_hold(ledger, 9);
    wr_ledger_hold(ledger, 9);
    wr_ledger_close(ledger, 9, WEIR_OUTCOME_UNKNOWN);
    wr_ledger_let_go(ledger, 9);
    assert_int_equal(ledger->books.unknown_there + ledger->books.unknown_not_there, 0);
    wr_ledger_took_effect(ledger, 9); /* late, but there */
    wr_ledger_let_go(ledger, 9);
    assert_int_equal(ledger->books.unknown_there, 1);
    wr_ledger_release(ledger);
}

static void what_a_failover_lost_is_gone_and_not_lost(void **state)
{
    (void)state;
    struct wr_ledger *ledger = fresh();
    wr_ledger_open(ledger, 1, false);
    wr_ledger_took_effect(ledger, 1);
    wr_ledger_lost_effect(ledger, 1);
    wr_ledger_close(ledger, 1, WEIR_OUTCOME_COMMITTED);
    assert_int_equal(ledger->books.gone, 1);
    assert_int_equal(ledger->books.lost, 0);
    wr_ledger_lost_effect(ledger, 77); /* one that has been forgotten */
    assert_int_equal(ledger->books.gone, 2);
    wr_ledger_release(ledger);
}

static void no_number_is_no_write(void **state)
{
    (void)state;
    struct wr_ledger *ledger = fresh();
    write_it(ledger, 0, 1, WEIR_OUTCOME_COMMITTED, false);
    assert_int_equal(ledger->books.opened + ledger->books.closed, 0);
    assert_int_equal(ledger->count, 0);
    wr_ledger_close(ledger, 5, WEIR_OUTCOME_COMMITTED); /* never opened */
    assert_int_equal(ledger->books.closed, 0);
    wr_ledger_release(ledger);
}

static void a_write_is_closed_once(void **state)
{
    (void)state;
    struct wr_ledger *ledger = fresh();
    wr_ledger_open(ledger, 3, false);
    wr_ledger_hold(ledger, 3);
    wr_ledger_close(ledger, 3, WEIR_OUTCOME_UNKNOWN);
    wr_ledger_close(ledger, 3, WEIR_OUTCOME_COMMITTED);
    wr_ledger_let_go(ledger, 3);
    assert_int_equal(ledger->books.closed, 1);
    assert_int_equal(ledger->books.unknown_not_there, 1);
    wr_ledger_release(ledger);
}

/* Against the simplest table there is: an array. */
static void thousands_of_writes_in_any_order_keep_their_own_counts(void **state)
{
    (void)state;
    enum { WRITES = 20000, SPAN = 4000 };
    static uint32_t effects[SPAN];
    static bool open[SPAN];
    struct wr_ledger *ledger = fresh();
    uint64_t dice = 88172645463325252u, committed = 0;
    memset(effects, 0, sizeof effects);
    memset(open, 0, sizeof open);
    for (int i = 0; i < WRITES; i++) {
        dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
        size_t at = dice % SPAN;
        uint64_t number = (at + 1) * 1048576u; /* all alike in their lower bits */
        if (!open[at]) {
            wr_ledger_open(ledger, number, true);
            open[at] = true;
        } else if ((dice >> 32) % 3 != 0) {
            wr_ledger_took_effect(ledger, number);
            effects[at]++;
        } else {
            wr_ledger_close(ledger, number, WEIR_OUTCOME_UNKNOWN);
            committed += effects[at] > 0;
            effects[at] = 0;
            open[at] = false;
        }
        size_t look = (dice >> 40) % SPAN;
        assert_int_equal(wr_ledger_effects(ledger, (look + 1) * 1048576u), effects[look]);
    }
    assert_int_equal(ledger->books.unknown_there, committed);
    assert_true(ledger->room <= 4 * SPAN);
    wr_ledger_release(ledger);
}

static void writes_nobody_opened_are_kept_but_not_without_end(void **state)
{
    (void)state;
    struct wr_ledger *ledger = fresh();
    for (uint64_t n = 1; n <= WR_LEDGER_KEPT + 10; n++) wr_ledger_took_effect(ledger, n);
    assert_int_equal(ledger->count, WR_LEDGER_KEPT);
    assert_int_equal(wr_ledger_effects(ledger, 1), 1);
    assert_int_equal(wr_ledger_effects(ledger, WR_LEDGER_KEPT + 5), 0);
    wr_ledger_open(ledger, WR_LEDGER_KEPT + 5, false); /* one that is told is always observed */
    wr_ledger_took_effect(ledger, WR_LEDGER_KEPT + 5);
    assert_int_equal(wr_ledger_effects(ledger, WR_LEDGER_KEPT + 5), 1);
    wr_ledger_open(ledger, 1, false); /* one that is opened after all makes room for another */
    wr_ledger_close(ledger, 1, WEIR_OUTCOME_COMMITTED);
    wr_ledger_took_effect(ledger, WR_LEDGER_KEPT + 7);
    assert_int_equal(wr_ledger_effects(ledger, WR_LEDGER_KEPT + 7), 1);
    wr_ledger_release(ledger);
}

static void a_write_is_known_by_its_first_value(void **state)
{
    (void)state;
    static const char *const values[] = {"0",
                                         "1",
                                         "00000000000000000000000000000001",
                                         "-1",
                                         "1.5",
                                         "ada",
                                         "",
                                         "123456789012345678",
                                         "1234567890123456789",
                                         "9e9"};
    struct sim_fixture f;
    sim_prepare(&f, 1);
    sim_open(&f);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        assert_int_equal(weir_sim_executions(f.sim, values[i]), 0);
        weir_call *call = sim_call(&f, (weir_request){0}, "insert into t values ($1)", values[i]);
        sim_expect_well(call);
        weir_call_free(call);
        assert_int_equal(weir_sim_executions(f.sim, values[i]), 1);
    }
    assert_int_equal(weir_sim_executions(f.sim, "bob"), 0);
    weir_call *call =
        sim_call(&f, (weir_request){0}, "insert into t values (1)", NULL); /* of no number: not kept */
    sim_expect_well(call);
    weir_call_free(call);
    assert_int_equal(weir_sim_executions(f.sim, "1"), 1);
    sim_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_end_is_judged_by_what_is_there),
        cmocka_unit_test(an_end_is_not_judged_while_something_is_under_way),
        cmocka_unit_test(what_a_failover_lost_is_gone_and_not_lost),
        cmocka_unit_test(no_number_is_no_write),
        cmocka_unit_test(a_write_is_closed_once),
        cmocka_unit_test(thousands_of_writes_in_any_order_keep_their_own_counts),
        cmocka_unit_test(writes_nobody_opened_are_kept_but_not_without_end),
        cmocka_unit_test(a_write_is_known_by_its_first_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
