/* What the tests of the web layer share: an engine over the fake server, one page at a time, and ways to look at it. */
#ifndef WEB_FIXTURE_H
#define WEB_FIXTURE_H

#include "support/exposition.h"
#include "support/fake_server.h"
#include "weir/web.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct web {
    struct fake fake;
    weir_options options;
    weir_backend backends[2];
    bool out_of_memory;
    weir_page page;
    char *body; /* the page's, with a NUL behind */
};

/* Growing always moves, and what was left behind is spoilt: an address kept too long shows at once. */
static inline void *web_resize(void *ctx, void *old, size_t size)
{
    struct fake *fake = ctx;
    if (((struct web *)fake->user)->out_of_memory && size > 0) return NULL;
    size_t *before = old == NULL ? NULL : (size_t *)old - 2;
    size_t *after = size == 0 ? NULL : malloc(size + 2 * sizeof *after);
    if (after != NULL) *after = size;
    if (after != NULL && before != NULL) memcpy(after + 2, old, *before < size ? *before : size);
    if (before != NULL) memset(old, 0xdd, *before);
    free(before);
    return after == NULL ? NULL : after + 2;
}

static inline int web_set_up(void **state)
{
    struct web *w = calloc(1, sizeof *w);
    if (w == NULL) return -1;
    fake_init(&w->fake);
    fake_options(&w->options);
    w->backends[0] = (weir_backend){.name = "primary", .conninfo = "host=a"};
    w->backends[1] = (weir_backend){.name = "replica", .conninfo = "host=b", .critical = true};
    w->options.backends = w->backends;
    w->options.backend_count = 2;
    w->options.timeout_ns = FAKE_MS(500);
    w->options.breaker.min_calls = 3;
    w->options.retries = 0;
    w->fake.user = w;
    w->fake.host.resize = web_resize;
    *state = w;
    return 0;
}

static inline int web_tear_down(void **state)
{
    struct web *w = *state;
    free(w->body);
    free(w);
    return 0;
}

/* The body of what GET gives; the test fails if there is no such document. */
static inline const char *web_get(struct web *w, const char *path, const char *accept)
{
    bool known = weir_page_get(weir_engine_area(w->fake.engine), path, accept, &w->page);
    if (!known) print_error("no document %s\n", path);
    assert_true(known);
    free(w->body);
    w->body = strndup(w->page.body, w->page.length);
    assert_int_equal(strlen(w->body), w->page.length);
    return w->body;
}

static inline const char *web_metrics(struct web *w, bool open_metrics)
{
    const char *text = web_get(w, "/metrics", open_metrics ? "application/openmetrics-text" : NULL);
    const char *fault = exposition_fault(text, open_metrics);
    if (fault != NULL) print_error("%s\n", fault);
    assert_null(fault);
    return text;
}

static inline void web_expect(const struct web *w, const char *words)
{
    if (strstr(w->body, words) == NULL) print_error("no %s in\n%s\n", words, w->body);
    assert_non_null(strstr(w->body, words));
}

static inline void web_expect_not(const struct web *w, const char *words)
{
    if (strstr(w->body, words) != NULL) print_error("%s in\n%s\n", words, w->body);
    assert_null(strstr(w->body, words));
}

/* A call that is over when this returns. */
static inline void web_call(struct web *w, const char *context, const char *backend)
{
    weir_call *call =
        fake_submit(&w->fake, (weir_request){.backend = backend, .context = context}, "select 1");
    fake_run(&w->fake, FAKE_MS(20));
    weir_call_free(call);
}

static inline void web_outage(struct web *w, const char *backend)
{
    w->fake.refuse = true;
    for (int i = 0; i < 3; i++) web_call(w, "in vain", backend);
    w->fake.refuse = false;
}

#define web_test(test) cmocka_unit_test_setup_teardown(test, web_set_up, web_tear_down)

#endif
