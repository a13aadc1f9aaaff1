/* What the tests of weir/area.h share: up to two workers on one area, and a handle of somebody who looks on from outside.
 * The workers' clock is virtual but begins at the real one, since the onlooker reads that. */
#ifndef STEER_FIXTURE_H
#define STEER_FIXTURE_H

#include "support/fake_server.h"
#include "weir/area.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { STEER_TEXT = 1 << 18 };

struct steer {
    struct fake one, two;
    weir_options options;
    weir_area *area; /* from outside */
    char path[64], why[WEIR_WHY_MAX];
    char *text; /* the last document */
};

static inline int steer_set_up(void **state)
{
    struct steer *s = calloc(1, sizeof *s);
    if (s == NULL) return -1;
    s->text = malloc(STEER_TEXT);
    (void)snprintf(s->path, sizeof s->path, "/tmp/weir-steer-%ld", (long)getpid());
    (void)unlink(s->path);
    fake_options(&s->options);
    s->options.area_path = s->path;
    *state = s;
    return s->text == NULL ? -1 : 0;
}

static inline int steer_tear_down(void **state)
{
    struct steer *s = *state;
    weir_area_detach(s->area);
    (void)unlink(s->path);
    free(s->text);
    free(s);
    return 0;
}

static inline void steer_open(struct steer *s, struct fake *fake)
{
    struct timespec now;
    fake_init(fake);
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    fake->now = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    fake_open(fake, &s->options);
}

static inline void steer_attach(struct steer *s)
{
    int code = weir_area_attach(&s->area, s->path, s->why);
    if (code != WEIR_OK) print_error("%s\n", s->why);
    assert_int_equal(code, WEIR_OK);
}

/* One worker, and somebody outside. */
static inline void steer_begin(struct steer *s)
{
    steer_open(s, &s->one);
    steer_attach(s);
}

static inline const char *steer_read(struct steer *s, weir_area *area, const char *document)
{
    size_t length =
        weir_area_json(area, document, strcmp(document, "calls") == 0 ? 100 : 0, s->text, STEER_TEXT);
    assert_in_range(length, 2, STEER_TEXT - 1);
    return s->text;
}

static inline void steer_expect(struct steer *s, const char *document, const char *words)
{
    if (strstr(steer_read(s, s->area, document), words) == NULL) fail_msg("no %s in\n%s", words, s->text);
}

static inline void steer_expect_not(struct steer *s, const char *document, const char *words)
{
    if (strstr(steer_read(s, s->area, document), words) != NULL) fail_msg("%s in\n%s", words, s->text);
}

static inline uint64_t steer_order(struct steer *s, weir_order order)
{
    uint64_t ticket = 0;
    int code = weir_area_order(s->area, &order, &ticket, s->why);
    if (code != WEIR_OK) print_error("%s\n", s->why);
    assert_int_equal(code, WEIR_OK);
    assert_int_not_equal(ticket, 0);
    return ticket;
}

static inline weir_order_progress steer_progress(struct steer *s, uint64_t ticket)
{
    weir_order_progress progress;
    weir_area_progress(s->area, ticket, &progress);
    return progress;
}

static inline void steer_expect_done(struct steer *s, uint64_t ticket, uint32_t workers)
{
    weir_order_progress progress = steer_progress(s, ticket);
    if (progress.refused > 0) print_error("%s\n", progress.why);
    assert_int_equal(progress.workers, workers);
    assert_int_equal(progress.done, workers);
    assert_int_equal(progress.refused, 0);
}

static inline weir_code steer_call(struct fake *fake)
{
    weir_call *call = fake_submit(fake, (weir_request){.timeout_ns = FAKE_MS(100)}, "select 1");
    fake_run(fake, FAKE_MS(150));
    weir_code code = fake_code(call);
    weir_call_free(call);
    return code;
}

#define steer_test(test) cmocka_unit_test_setup_teardown(test, steer_set_up, steer_tear_down)

#endif
