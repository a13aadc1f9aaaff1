/* What a guard costs on the path of every call. Prints one line per figure, and how often memory was allocated while
 * measuring, which must be never. */
#include "weir/guard.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 5, ITERATIONS = 2000000, WARM_UP = 100000 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { ALLOCATIONS_COUNTED = 0 }; /* a sanitizer needs the allocator's names for itself */
static unsigned long allocations;
#else
enum { ALLOCATIONS_COUNTED = 1 };

/* The libc's own allocator, under the names it exports for programs that interpose theirs. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static unsigned long allocations;

void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    allocations++;
    return __libc_realloc(old, size);
}

#endif

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

struct guards {
    weir_breaker *breaker;
    weir_budget *budget;
    weir_limit *limit;
    weir_rate *rate;
};

/* Guarded calls arrive 1 us apart, so windows roll as they do in life; reading the clock is not part of the figure. */
typedef void (*step)(struct guards *g, uint32_t i, uint64_t now_ns);

static double one_round(struct guards *g, step run, uint64_t *now_ns)
{
    uint64_t start = clock_ns();
    for (uint32_t i = 0; i < ITERATIONS; i++) run(g, i, *now_ns += 1000);
    return (double)(clock_ns() - start) / ITERATIONS;
}

/* The best of several rounds: whatever else the machine does can only add to a figure. */
static void measure(const char *name, struct guards *g, step run)
{
    static uint64_t now_ns = UINT64_C(1000000000000);
    for (uint32_t i = 0; i < WARM_UP; i++) run(g, i, now_ns += 1000);
    unsigned long before = allocations;
    double best = one_round(g, run, &now_ns);
    for (int i = 1; i < ROUNDS; i++) {
        double each = one_round(g, run, &now_ns);
        if (each < best) best = each;
    }
    unsigned long allocated = allocations - before; /* printf allocates too */
    printf("%-46s %6.1f ns", name, best);
    if (ALLOCATIONS_COUNTED) printf("   %lu allocations", allocated);
    printf("\n");
}

static void guarded_call(struct guards *g, uint64_t now_ns, weir_verdict verdict)
{
    weir_permit permit;
    weir_evidence event;
    if (!weir_breaker_admit(g->breaker, 0, now_ns, &permit)) {
        fprintf(stderr, "bench_guard: the breaker opened, so the figure means nothing\n");
        exit(1);
    }
    weir_breaker_settle(g->breaker, permit, verdict, 800, "08006", now_ns + 800, &event);
}

static void success(struct guards *g, uint32_t i, uint64_t now_ns)
{
    (void)i;
    guarded_call(g, now_ns, WEIR_SUCCESS);
}

static void one_in_a_hundred_fails(struct guards *g, uint32_t i, uint64_t now_ns)
{
    guarded_call(g, now_ns, i % 100 == 0 ? WEIR_FAILURE : WEIR_SUCCESS);
}

static void budget_success(struct guards *g, uint32_t i, uint64_t now_ns)
{
    (void)i;
    weir_budget_success(g->budget, now_ns);
}

/* Keeps the level away from cap and floor, so that every call writes. */
static void budget_earn_and_spend(struct guards *g, uint32_t i, uint64_t now_ns)
{
    weir_budget_success(g->budget, now_ns);
    if (i % 10 == 0) (void)weir_budget_withdraw(g->budget, now_ns);
}

static void limit_round(struct guards *g, uint32_t i, uint64_t now_ns)
{
    (void)now_ns;
    uint32_t owner = i % 4;
    if (weir_limit_acquire(g->limit, owner)) weir_limit_release(g->limit, owner);
}

static void rate_take(struct guards *g, uint32_t i, uint64_t now_ns)
{
    uint64_t wait;
    (void)i;
    (void)weir_rate_take(g->rate, now_ns, &wait);
}

static void *guard_memory(size_t size)
{
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    if (memory == NULL) abort();
    return memory;
}

static void make_breaker(struct guards *g, uint64_t window_ns, uint32_t window_calls)
{
    weir_breaker_config config;
    weir_breaker_defaults(&config);
    config.window_ns = window_ns;
    config.window_calls = window_calls;
    config.slow_call_ns = 2000000000;
    if (weir_breaker_init(g->breaker, &config, 0, NULL) != WEIR_OK) abort();
}

int main(void)
{
    struct guards g = {guard_memory(weir_breaker_size()), guard_memory(weir_budget_size()),
                       guard_memory(weir_limit_size()), guard_memory(weir_rate_size())};
    weir_budget_config budget;
    weir_budget_defaults(&budget);
    if (weir_budget_init(g.budget, &budget, 0, NULL) != WEIR_OK ||
        weir_limit_init(g.limit, 100, NULL) != WEIR_OK ||
        weir_rate_init(g.rate, 1e6, 100, 0, NULL) != WEIR_OK)
        abort();

    make_breaker(&g, UINT64_C(10000000000), 0);
    measure("guard admit+settle (closed, success)", &g, success);
    measure("guard admit+settle (closed, 1% failures)", &g, one_in_a_hundred_fails);
    make_breaker(&g, UINT64_C(60000000000), 0);
    measure("guard admit+settle (closed, 1%, window 60 s)", &g, one_in_a_hundred_fails);
    make_breaker(&g, 0, 100);
    measure("guard admit+settle (closed, 1%, 100 calls)", &g, one_in_a_hundred_fails);
    make_breaker(&g, 0, 4096);
    measure("guard admit+settle (closed, 1%, 4096 calls)", &g, one_in_a_hundred_fails);
    measure("budget success (full)", &g, budget_success);
    measure("budget success + 1/10 withdraw", &g, budget_earn_and_spend);
    measure("limit acquire+release (4 owners)", &g, limit_round);
    measure("rate take", &g, rate_take);
    free(g.breaker);
    free(g.budget);
    free(g.limit);
    free(g.rate);
    return 0;
}
