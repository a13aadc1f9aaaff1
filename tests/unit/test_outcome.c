/* The words for what went wrong: each has a number of its own, under which the meters count it. */
#include "engine/outcome.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

static void expect_numbered(const struct wr_fault *fault, const struct wr_circumstances *at)
{
    struct wr_judgement j = wr_outcome_judge(fault, at);
    assert_string_equal(wr_outcome_reason_name(wr_outcome_reason(j.reason)), j.reason);
}

static void every_word_that_a_judgement_uses_has_its_number(void **state)
{
    static const char *const ends[] = {"000", "001", "002", "003", "006", "014", "100", "300",
                                       "400", "501", "P01", "P02", "P03", "P04", "P05", "ZZZ"};
    (void)state;
    for (size_t i = 0; i < 36 * 36 * sizeof ends / sizeof *ends; i++) {
        struct wr_fault fault = {.severity = "ERROR"};
        snprintf(fault.sqlstate, sizeof fault.sqlstate, "%c%c%s", digits[i % 36], digits[i / 36 % 36],
                 ends[i / 36 / 36]);
        struct wr_circumstances at = {.phase = WEIR_PHASE_SENT};
        expect_numbered(&fault, &at);
        at.connecting = true;
        expect_numbered(&fault, &at);
        fault.identity = true;
        expect_numbered(&fault, &at);
        fault = (struct wr_fault){.lost = true};
        at.connecting = false;
        expect_numbered(&fault, &at);
    }
}

static void what_is_no_such_word_counts_as_other(void **state)
{
    (void)state;
    assert_string_equal(wr_outcome_reason_name(wr_outcome_reason("bad luck")), "other");
    assert_string_equal(wr_outcome_reason_name(SIZE_MAX), "?");
    assert_string_equal(wr_outcome_reason_name(wr_outcome_reason("timeout")), "timeout");
}

static void what_this_process_has_run_out_of_is_not_held_against_the_server(void **state)
{
    (void)state;
    struct wr_fault fault = {.lost = true, .ours = true};
    struct wr_circumstances at = {.connecting = true};
    struct wr_judgement j = wr_outcome_judge(&fault, &at);
    assert_int_equal(j.code, WEIR_CALL_CONNECT);
    assert_int_equal(j.class_, WEIR_CLASS_SAFE);
    assert_int_equal(j.verdict, WEIR_NEUTRAL);
    expect_numbered(&fault, &at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_word_that_a_judgement_uses_has_its_number),
        cmocka_unit_test(what_this_process_has_run_out_of_is_not_held_against_the_server),
        cmocka_unit_test(what_is_no_such_word_counts_as_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
