/* The policy text of an area, as engines hear of it; and options that are refused before anything is opened. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct pair {
    struct fake one, two;
    uint64_t told[2]; /* the last generation each was told of */
    int times[2];
    char path[64];
};

static int set_up(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    if (pair == NULL) return -1;
    (void)snprintf(pair->path, sizeof pair->path, "/tmp/weir-generation-%ld", (long)getpid());
    (void)unlink(pair->path);
    *state = pair;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *pair = *state;
    (void)unlink(pair->path);
    free(pair);
    return 0;
}

static void tell_one(void *ctx, uint64_t generation)
{
    struct pair *pair = ctx;
    pair->told[0] = generation;
    pair->times[0]++;
}

static void tell_two(void *ctx, uint64_t generation)
{
    struct pair *pair = ctx;
    pair->told[1] = generation;
    pair->times[1]++;
}

static void open_one(struct pair *pair, struct fake *fake, const char *path)
{
    weir_options options;
    fake_options(&options);
    options.area_path = path;
    options.on_policy = fake == &pair->one ? tell_one : tell_two;
    options.policy_ctx = pair;
    fake_init(fake);
    fake_open(fake, &options);
}

static uint64_t publish(struct fake *fake, const char *text)
{
    uint64_t generation = 0;
    assert_int_equal(weir_policy_publish(fake->engine, text, strlen(text), &generation, NULL), WEIR_OK);
    return generation;
}

static void all_engines_hear_of_a_new_text_within_half_a_second_once(void **state)
{
    struct pair *pair = *state;
    open_one(pair, &pair->one, pair->path);
    open_one(pair, &pair->two, pair->path);
    fake_run(&pair->one, FAKE_MS(600));
    fake_run(&pair->two, FAKE_MS(600));
    assert_int_equal(pair->times[0] + pair->times[1], 0);
    assert_int_equal(publish(&pair->one, "return {}"), 1);
    assert_int_equal(publish(&pair->two, "return { 1 }"), 2);
    fake_run(&pair->one, FAKE_MS(500));
    fake_run(&pair->two, FAKE_MS(500));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pair->told[i], 2);
        assert_int_equal(pair->times[i], 1); /* of the newest only */
    }
    fake_run(&pair->one, FAKE_MS(2000));
    assert_int_equal(pair->times[0], 1);
    fake_close(&pair->one);
    fake_close(&pair->two);
}

static void who_comes_later_reads_the_newest_and_is_told_of_the_next(void **state)
{
    struct pair *pair = *state;
    char text[32];
    uint64_t generation = 0;
    open_one(pair, &pair->one, pair->path);
    publish(&pair->one, "old");
    publish(&pair->one, "new");
    open_one(pair, &pair->two, pair->path);
    assert_int_equal(weir_policy_read(pair->two.engine, text, sizeof text, &generation), 3);
    assert_string_equal(text, "new");
    assert_int_equal(generation, 2);
    fake_run(&pair->two, FAKE_MS(600));
    assert_int_equal(pair->times[1], 0); /* it has read it */
    publish(&pair->one, "newer");
    fake_run(&pair->two, FAKE_MS(500));
    assert_int_equal(pair->told[1], 3);
    fake_close(&pair->one);
    fake_close(&pair->two);
}

static void in_private_memory_it_comes_in_the_next_turn(void **state)
{
    struct pair *pair = *state;
    open_one(pair, &pair->one, NULL);
    publish(&pair->one, "return {}");
    assert_int_equal(pair->times[0], 0); /* never from inside */
    fake_run(&pair->one, FAKE_MS(1));
    assert_int_equal(pair->told[0], 1);
    fake_close(&pair->one);
}

static void the_event_log_says_who_published_took_and_refused(void **state)
{
    struct pair *pair = *state;
    static char events[1 << 16];
    char process[40];
    open_one(pair, &pair->one, NULL);
    publish(&pair->one, "return {}");
    weir_policy_applied(pair->one.engine, 1, NULL);
    weir_policy_applied(pair->one.engine, 2, "clients is missing");
    (void)weir_events_json(pair->one.engine, 0, events, sizeof events);
    (void)snprintf(process, sizeof process, "process %ld", (long)getpid());
    assert_non_null(strstr(events, "policy 1 given to all workers"));
    assert_non_null(strstr(events, "policy 1 is in force"));
    assert_non_null(strstr(events, "policy 2 was refused"));
    assert_non_null(strstr(events, "clients is missing"));
    assert_non_null(strstr(events, process));
    fake_close(&pair->one);
}

static void a_forked_child_cannot_publish_for_its_parent(void **state)
{
    struct pair *pair = *state;
    uint64_t generation;
    char why[WEIR_WHY_MAX] = "", text[8];
    int status = 0;
    open_one(pair, &pair->one, pair->path);
    pid_t child = fork();
    if (child == 0) {
        int code = weir_policy_publish(pair->one.engine, "x", 1, &generation, why);
        weir_policy_applied(pair->one.engine, 7, NULL);
        _exit(code == WEIR_ESTATE && strstr(why, "fork") != NULL ? 0 : 1);
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(weir_policy_read(pair->one.engine, text, sizeof text, &generation), 0);
    fake_close(&pair->one);
}

/* ---- options ------------------------------------------------------------------------------------- */

static void refused(weir_options *options, const char *sentence)
{
    char checked[WEIR_WHY_MAX] = "", opened[WEIR_WHY_MAX] = "";
    struct fake *fake = calloc(1, sizeof *fake);
    weir_engine *engine = NULL;
    fake_init(fake);
    assert_int_equal(weir_options_check(options, NULL, checked), WEIR_EINVAL);
    if (strstr(checked, sentence) == NULL) fail_msg("'%s' does not say '%s'", checked, sentence);
    assert_int_equal(weir_open(&engine, options, &fake->host, fake_driver(fake), opened), WEIR_EINVAL);
    assert_string_equal(opened, checked);
    assert_null(engine);
    free(fake);
}

static void what_opening_would_refuse_is_refused_by_looking(void **state)
{
    struct pair *pair = *state;
    char longest[5000];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    static const struct {
        size_t at;
        uint64_t value;
        const char *sentence;
    } sizes[] = {{0, 1, "area_size is 1 bytes; 2 pools need "}, {0, 100000, "area_size is 100000 bytes"}};
    weir_options options;
    for (size_t i = 0; i < 2; i++) {
        fake_options(&options);
        options.area_path = pair->path;
        options.area_size = sizes[i].value;
        refused(&options, sizes[i].sentence);
    }
    fake_options(&options);
    options.breaker.failure_rate = 2;
    refused(&options, "failure_rate is 2");
    fake_options(&options);
    options.budget.cap = -1;
    refused(&options, "cap");
    fake_options(&options);
    options.connect_rate = 0.001;
    refused(&options, "connect_rate is 0.001");
    fake_options(&options);
    options.area_path = "";
    refused(&options, "area is ''");
    options.area_path = longest;
    refused(&options, "area is a path of 4999 bytes");
    assert_int_equal(access(pair->path, F_OK), -1);
}

/* Whatever fits is used; what is said to be the least is enough. */
static void the_least_size_that_is_named_is_enough(void **state)
{
    struct pair *pair = *state;
    char why[WEIR_WHY_MAX];
    weir_options options;
    fake_options(&options);
    options.area_path = pair->path;
    options.area_size = 1;
    assert_int_equal(weir_options_check(&options, NULL, why), WEIR_EINVAL);
    const char *need = strstr(why, "need ");
    assert_non_null(need);
    options.area_size = strtoull(need + 5, NULL, 10);
    assert_int_equal(weir_options_check(&options, NULL, why), WEIR_OK);
    fake_init(&pair->one);
    fake_open(&pair->one, &options);
    fake_close(&pair->one);
    options.area_size--;
    assert_int_equal(weir_options_check(&options, NULL, why), WEIR_EINVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_engines_hear_of_a_new_text_within_half_a_second_once),
        TEST(who_comes_later_reads_the_newest_and_is_told_of_the_next),
        TEST(in_private_memory_it_comes_in_the_next_turn),
        TEST(the_event_log_says_who_published_took_and_refused),
        TEST(a_forked_child_cannot_publish_for_its_parent),
        TEST(what_opening_would_refuse_is_refused_by_looking),
        TEST(the_least_size_that_is_named_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
