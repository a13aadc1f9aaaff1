/* A breaker over a clock of its own, and the few things tests do with it. */
#ifndef WR_BREAKER_FIXTURE_H
#define WR_BREAKER_FIXTURE_H

#include "guard/breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    weir_breaker *breaker;
    weir_breaker_config config;
    weir_evidence event; /* of the last settle, tick or force that moved it */
};

static const uint64_t start_ns = UINT64_C(1700000000000000000);

static inline uint64_t at_ms(uint64_t ms)
{
    return start_ns + ms * UINT64_C(1000000);
}

static inline uint64_t ms(uint64_t n)
{
    return n * UINT64_C(1000000);
}

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->breaker = aligned_alloc(64, weir_breaker_size());
    memset(f->breaker, 0xa5, weir_breaker_size()); /* init must not rely on what the memory held */
    weir_breaker_defaults(&f->config);
    f->config.min_calls = 10;
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    free(f->breaker);
    free(f);
    return 0;
}

static inline void begin(struct fixture *f)
{
    assert_int_equal(weir_breaker_init(f->breaker, &f->config, at_ms(0), NULL), WEIR_OK);
}

static inline weir_permit admit(struct fixture *f, uint64_t now_ns)
{
    weir_permit permit;
    assert_true(weir_breaker_admit(f->breaker, 0, now_ns, &permit));
    return permit;
}

static inline bool refused(struct fixture *f, uint64_t now_ns)
{
    weir_permit permit;
    return !weir_breaker_admit(f->breaker, 0, now_ns, &permit);
}

static inline bool settle(struct fixture *f, weir_permit permit, weir_verdict verdict, uint64_t now_ns)
{
    return weir_breaker_settle(f->breaker, permit, verdict, 0, "08006", now_ns, &f->event);
}

/* Admits and settles one call after the other; true if the last one moved the breaker. */
static inline bool calls(struct fixture *f, int n, weir_verdict verdict, uint64_t now_ns)
{
    bool moved = false;
    for (int i = 0; i < n; i++) moved = settle(f, admit(f, now_ns), verdict, now_ns);
    return moved;
}

static inline bool timed_call(struct fixture *f, weir_verdict verdict, uint64_t elapsed_ns, uint64_t now_ns)
{
    return weir_breaker_settle(f->breaker, admit(f, now_ns), verdict, elapsed_ns, NULL, now_ns, &f->event);
}

static inline weir_breaker_state state_at(struct fixture *f, uint64_t now_ns)
{
    return weir_breaker_state_at(f->breaker, now_ns);
}

static inline weir_breaker_snapshot snapshot(struct fixture *f, uint64_t now_ns)
{
    weir_breaker_snapshot out;
    weir_breaker_snapshot_at(f->breaker, now_ns, &out);
    return out;
}

static inline void assert_counts(struct fixture *f, uint64_t now_ns, uint32_t n, uint32_t failures,
                                 uint32_t slow)
{
    weir_breaker_snapshot seen = snapshot(f, now_ns);
    assert_int_equal(seen.calls, n);
    assert_int_equal(seen.failures, failures);
    assert_int_equal(seen.slow, slow);
}

static inline void trip(struct fixture *f, uint64_t now_ns)
{
    assert_true(calls(f, 10, WEIR_FAILURE, now_ns));
    assert_int_equal(state_at(f, now_ns), WEIR_OPEN);
}

#endif
