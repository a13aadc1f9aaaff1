/* What counts as a traceparent: what comes from outside is sent on only if it cannot be anything else. */
#include "base/traceparent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN  "00f067aa0ba902b7"

static void the_form_of_the_standard_is_sound(void **state)
{
    (void)state;
    assert_true(wr_traceparent_sound("00-" TRACE "-" SPAN "-01"));
    assert_true(wr_traceparent_sound("00-" TRACE "-" SPAN "-00"));
    assert_true(
        wr_traceparent_sound("cc-" TRACE "-" SPAN "-ff")); /* of a later version, in this one's form */
}

static void anything_else_is_not(void **state)
{
    static const char *const unsound[] = {
        "",
        "00",
        "00-",
        "00-" TRACE "-" SPAN,
        "00-" TRACE "-" SPAN "-0",
        "00-" TRACE "-" SPAN "-011",
        "00-" TRACE "-" SPAN "-01-more",
        "cc-" TRACE "-" SPAN "-01-more",
        "ff-" TRACE "-" SPAN "-01",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
        "00_" TRACE "-" SPAN "-01",
        "00-" TRACE "_" SPAN "-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-" SPAN "-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47'*-" SPAN "-01",
        " 00-" TRACE "-" SPAN "-01",
        "00-" TRACE "-" SPAN "-01 ",
        "00-" TRACE "-" SPAN "-01\n",
    };
    (void)state;
    assert_false(wr_traceparent_sound(NULL));
    for (size_t i = 0; i < sizeof unsound / sizeof *unsound; i++) {
        if (wr_traceparent_sound(unsound[i])) fail_msg("sound: %s", unsound[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_form_of_the_standard_is_sound),
        cmocka_unit_test(anything_else_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
