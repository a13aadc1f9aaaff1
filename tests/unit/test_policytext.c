/* The policy text in the area: whole or not there, whoever is killed while writing it. */
#include "area_fixture.h"

#include "area/policytext.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LONG_TEXT = 200000, ROUNDS = 30 };

static char long_text[LONG_TEXT + 1], out[WR_POLICY_BYTES + 1];

/* One letter throughout, so that a mixture of two texts shows. */
static const char *text_of(char letter, size_t length)
{
    memset(long_text, letter, length);
    long_text[length] = '\0';
    return long_text;
}

static void the_newest_text_is_given_back_with_its_generation(void **state)
{
    struct wr_area *area = open_area(*state);
    char why[WEIR_WHY_MAX] = "";
    uint64_t generation = 7;
    assert_int_equal(wr_policy_get(area, out, sizeof out, &generation), 0);
    assert_int_equal(generation, 0);
    assert_int_equal(wr_policy_put(area, "return {}", 9, &generation, why), WEIR_OK);
    assert_int_equal(generation, 1);
    assert_int_equal(wr_policy_put(area, "return { name = 'x' }", 21, &generation, why), WEIR_OK);
    assert_int_equal(wr_policy_get(area, out, sizeof out, &generation), 21);
    assert_int_equal(generation, 2);
    assert_string_equal(out, "return { name = 'x' }");
    assert_int_equal(wr_policy_get(area, out, 7, &generation), 21); /* cut, like snprintf */
    assert_string_equal(out, "return");
    wr_area_close(area);
}

static void nothing_and_too_much_are_refused(void **state)
{
    struct wr_area *area = open_area(*state);
    char why[WEIR_WHY_MAX] = "";
    uint64_t generation = 0;
    assert_int_equal(wr_policy_put(area, "", 0, &generation, why), WEIR_EINVAL);
    assert_int_equal(wr_policy_put(area, out, WR_POLICY_BYTES + 1, &generation, why), WEIR_EINVAL);
    assert_non_null(strstr(why, "262145 bytes"));
    assert_int_equal(wr_policy_generation(area), 0);
    wr_area_close(area);
}

static void publish_for_ever(void **state, char letter)
{
    struct wr_area *area = open_area(*state);
    char why[WEIR_WHY_MAX];
    uint64_t generation;
    const char *text = text_of(letter, LONG_TEXT);
    for (;;) {
        if (wr_policy_put(area, text, LONG_TEXT, &generation, why) != WEIR_OK) _exit(1);
    }
}

static void assert_whole(const char *text, size_t length)
{
    assert_int_equal(length, LONG_TEXT);
    assert_int_equal(strspn(text, (char[]){text[0], '\0'}), LONG_TEXT);
}

static void a_publisher_killed_in_the_middle_leaves_the_last_whole_text(void **state)
{
    struct wr_area *area = open_area(*state);
    uint64_t generation, before = 0;
    char why[WEIR_WHY_MAX] = "";
    for (int round = 0; round < ROUNDS; round++) {
        pid_t child = fork();
        if (child == 0) publish_for_ever(state, (char)('a' + round % 26));
        while (wr_policy_generation(area) <= before + 1) (void)poll(NULL, 0, 1);
        (void)poll(NULL, 0, round % 3);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        assert_whole(out, wr_policy_get(area, out, sizeof out, &generation));
        assert_true(generation > before);
        assert_int_equal(wr_policy_put(area, text_of('Z', LONG_TEXT), LONG_TEXT, &before, why), WEIR_OK);
        assert_true(before > generation);
        assert_whole(out, wr_policy_get(area, out, sizeof out, &generation));
        assert_int_equal(out[0], 'Z');
    }
    wr_area_close(area);
}

static void several_publishers_and_a_reader_never_see_a_mixture(void **state)
{
    struct wr_area *area = open_area(*state);
    uint64_t generation, last = 0;
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] == 0) publish_for_ever(state, (char)('a' + i));
    }
    for (int read = 0; read < 300;) {
        size_t length = wr_policy_get(area, out, sizeof out, &generation);
        if (length == 0) continue; /* none yet, or written over each time */
        assert_whole(out, length);
        assert_true(generation >= last);
        last = generation;
        read++;
    }
    for (int i = 0; i < 3; i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
    wr_area_close(area);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        area_test(the_newest_text_is_given_back_with_its_generation),
        area_test(nothing_and_too_much_are_refused),
        area_test(a_publisher_killed_in_the_middle_leaves_the_last_whole_text),
        area_test(several_publishers_and_a_reader_never_see_a_mixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
