/* Guards hammered by several workers at once: processes over one shared mapping, threads (for the thread sanitizer),
 * and processes killed at any instruction. Time is a shared counter; nobody sleeps. */
#include "weir/guard.h"

#include "base/rng.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    WORKERS = 4,
    STEPS = 20000,
    GENERATIONS = 1 << 16,
    LIMIT = 5,
    PERMITS = 6,
    GUARD_ROOM = 16384,
    KILLS = 150
};

static const uint64_t ms = 1000000;

/* What the workers share. `broken` is the line of a violated invariant: an assertion in a child would be lost. */
struct shared {
    _Alignas(64) unsigned char breaker_memory[GUARD_ROOM];
    _Alignas(64) unsigned char limit_memory[GUARD_ROOM];
    _Alignas(64) unsigned char budget_memory[GUARD_ROOM];
    _Alignas(64) unsigned char rate_memory[GUARD_ROOM];
    _Atomic uint64_t now_ns;
    _Atomic uint64_t progress[WORKERS];
    _Atomic uint32_t broken;
    _Atomic uint32_t inside, admitted_once;
    _Atomic uint32_t opened, earned, withdrawn, requested, taken;
    _Atomic uint16_t probes[GENERATIONS];
};

static weir_breaker *breaker_of(struct shared *s)
{
    return (weir_breaker *)s->breaker_memory;
}

static weir_limit *limit_of(struct shared *s)
{
    return (weir_limit *)s->limit_memory;
}

static weir_budget *budget_of(struct shared *s)
{
    return (weir_budget *)s->budget_memory;
}

static weir_rate *rate_of(struct shared *s)
{
    return (weir_rate *)s->rate_memory;
}

static void expect_at(struct shared *s, bool holds, uint32_t line)
{
    if (!holds) atomic_store(&s->broken, line);
}

#define expect(s, holds) expect_at(s, holds, __LINE__)

static uint64_t tick(struct shared *s)
{
    return atomic_fetch_add(&s->now_ns, ms) + ms;
}

static void init_breaker(struct shared *s, uint32_t window_calls)
{
    weir_breaker_config config;
    weir_breaker_defaults(&config);
    config.window_calls = window_calls;
    config.min_calls = 10;
    config.failure_rate = 0.2;
    config.permits = PERMITS;
    config.open_for_ns = 20 * ms;
    config.initial = WEIR_CLOSED;
    config.lease_ns = UINT64_MAX;
    assert_int_equal(weir_breaker_init(breaker_of(s), &config, 0, NULL), WEIR_OK);
}

static void init_budget(struct shared *s, bool ratio)
{
    weir_budget_config config = {.ratio = ratio, .per_success = 0.25, .cap = 1e6, .window_ns = 60000 * ms};
    assert_int_equal(weir_budget_init(budget_of(s), &config, 0, NULL), WEIR_OK);
}

static int set_up(void **state)
{
    struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED || weir_breaker_size() > GUARD_ROOM || weir_limit_size() > GUARD_ROOM ||
        weir_budget_size() > GUARD_ROOM || weir_rate_size() > GUARD_ROOM)
        return -1;
    init_breaker(s, 0);
    init_budget(s, false);
    *state = s;
    return weir_limit_init(limit_of(s), LIMIT, NULL) == WEIR_OK &&
                   weir_rate_init(rate_of(s), 100, 10, 0, NULL) == WEIR_OK
               ? 0
               : -1;
}

static int tear_down(void **state)
{
    return munmap(*state, sizeof(struct shared));
}

/* ---- what a worker does in one step ---- */

typedef void (*step)(struct shared *s, uint32_t worker, struct wr_rng *rng);

static void look_at_breaker(struct shared *s, uint64_t now_ns)
{
    weir_breaker_snapshot seen;
    weir_breaker_snapshot_at(breaker_of(s), now_ns, &seen);
    const weir_evidence *e = &seen.evidence;
    expect(s, seen.state <= WEIR_HALF_OPEN);
    expect(s, seen.failures <= seen.calls && seen.slow <= seen.calls);
    expect(s, e->rule <= WEIR_RULE_FORCE_ENDED && e->from <= WEIR_HALF_OPEN && e->to <= WEIR_HALF_OPEN);
    expect(s, e->rule != WEIR_RULE_FAILURE_RATE || (e->rate >= e->threshold && e->calls >= 10));
    expect(s, e->rule != WEIR_RULE_HALF_OPEN_FAILED || e->calls == PERMITS);
}

static void call_through_breaker(struct shared *s, uint32_t worker, struct wr_rng *rng)
{
    weir_permit permit;
    weir_evidence event;
    uint64_t now_ns = tick(s), random = wr_rng_next(rng);
    bool failing = now_ns / (200 * ms) % 2 == 1; /* the backend is well and unwell by turns */
    if (random % 64 == 0) look_at_breaker(s, now_ns);
    if (!weir_breaker_admit(breaker_of(s), worker, now_ns, &permit)) return;
    if (permit.lease != 0) {
        uint16_t before = atomic_fetch_add(&s->probes[permit.generation % GENERATIONS], 1);
        expect(s, before < PERMITS);
    }
    weir_verdict verdict = failing && random >> 32 & 1 ? WEIR_FAILURE : WEIR_SUCCESS;
    if (weir_breaker_settle(breaker_of(s), permit, verdict, 0, "08006", tick(s), &event) &&
        event.to == WEIR_OPEN)
        atomic_fetch_add(&s->opened, 1);
}

static void pass_the_limit(struct shared *s, uint32_t worker, struct wr_rng *rng)
{
    (void)rng;
    if (!weir_limit_acquire(limit_of(s), worker)) return;
    expect(s, atomic_fetch_add(&s->inside, 1) < LIMIT);
    atomic_fetch_sub(&s->inside, 1);
    weir_limit_release(limit_of(s), worker);
}

static void take_and_keep(struct shared *s, uint32_t worker, struct wr_rng *rng)
{
    (void)rng;
    if (weir_limit_acquire(limit_of(s), worker)) atomic_fetch_add(&s->admitted_once, 1);
}

static void earn_and_spend(struct shared *s, uint32_t worker, struct wr_rng *rng)
{
    (void)worker;
    if (wr_rng_next(rng) & 1) {
        weir_budget_success(budget_of(s), 0);
        atomic_fetch_add(&s->earned, 1);
    } else if (weir_budget_withdraw(budget_of(s), 0)) {
        atomic_fetch_add(&s->withdrawn, 1);
    }
}

static void request_and_retry(struct shared *s, uint32_t worker, struct wr_rng *rng)
{
    (void)worker;
    if (wr_rng_next(rng) & 1) {
        atomic_fetch_add(&s->requested, 1);
        weir_budget_request(budget_of(s), 0);
    } else if (weir_budget_withdraw(budget_of(s), 0)) {
        atomic_fetch_add(&s->withdrawn, 1);
    }
}

static void take_a_token(struct shared *s, uint32_t worker, struct wr_rng *rng)
{
    (void)worker;
    (void)rng;
    if (weir_rate_take(rate_of(s), tick(s), NULL)) atomic_fetch_add(&s->taken, 1);
}

/* All of it, holding limiter slots across steps so that most kills strike while something is held. */
static void everything(struct shared *s, uint32_t worker, struct wr_rng *rng)
{
    uint64_t random = wr_rng_next(rng);
    weir_permit permit;
    if (random & 1) {
        (void)weir_limit_acquire(limit_of(s), worker);
    } else {
        weir_limit_release(limit_of(s), worker);
    }
    if (weir_breaker_admit(breaker_of(s), worker, tick(s), &permit)) {
        weir_verdict verdict = (weir_verdict)(random >> 8 & 1);
        weir_breaker_settle(breaker_of(s), permit, verdict, 0, "57P01", tick(s), NULL);
    }
    if (random >> 16 & 1) weir_budget_success(budget_of(s), atomic_load(&s->now_ns));
    if (random >> 17 & 1) (void)weir_budget_withdraw(budget_of(s), atomic_load(&s->now_ns));
    if (random % 64 == 0) look_at_breaker(s, atomic_load(&s->now_ns));
}

/* ---- who does it ---- */

struct task {
    struct shared *shared;
    step run;
    uint32_t worker;
    uint64_t steps;
};

static void *work(void *argument)
{
    const struct task *task = argument;
    struct wr_rng rng;
    wr_rng_seed(&rng, task->worker + atomic_load(&task->shared->now_ns));
    for (uint64_t i = 0; i < task->steps; i++) {
        task->run(task->shared, task->worker, &rng);
        atomic_fetch_add_explicit(&task->shared->progress[task->worker], 1, memory_order_relaxed);
    }
    return NULL;
}

static pid_t start_process(struct shared *s, step run, uint32_t worker, uint64_t steps)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct task task = {s, run, worker, steps};
        work(&task);
        _exit(0);
    }
    assert_true(pid > 0);
    return pid;
}

static void in_processes(struct shared *s, step run)
{
    pid_t pids[WORKERS];
    for (uint32_t i = 0; i < WORKERS; i++) pids[i] = start_process(s, run, i, STEPS);
    for (int i = 0; i < WORKERS; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}

static void in_threads(struct shared *s, step run)
{
    pthread_t threads[WORKERS];
    struct task tasks[WORKERS];
    for (uint32_t i = 0; i < WORKERS; i++) {
        tasks[i] = (struct task){s, run, i, STEPS};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &tasks[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
}

typedef void (*crowd)(struct shared *s, step run);

static const crowd crowds[] = {in_processes, in_threads};

enum { CROWDS = sizeof crowds / sizeof crowds[0] };

/* ---- tests ---- */

static void a_breaker_stays_legal_and_tells_each_opening_once(void **state)
{
    struct shared *s = *state;
    for (int i = 0; i < CROWDS; i++) {
        init_breaker(s, i == 0 ? 0 : 100);
        memset(s->probes, 0, sizeof s->probes);
        atomic_store(&s->opened, 0);
        crowds[i](s, call_through_breaker);
        weir_breaker_snapshot seen;
        weir_breaker_snapshot_at(breaker_of(s), atomic_load(&s->now_ns), &seen);
        assert_int_equal(atomic_load(&s->broken), 0);
        assert_in_range(seen.opened_count, 2, UINT32_MAX); /* or the test has tested nothing */
        assert_int_equal(seen.opened_count, atomic_load(&s->opened));
    }
}

static void a_limit_is_never_passed(void **state)
{
    struct shared *s = *state;
    for (int i = 0; i < CROWDS; i++) {
        crowds[i](s, pass_the_limit);
        assert_int_equal(atomic_load(&s->broken), 0);
        assert_int_equal(weir_limit_used(limit_of(s)), 0);
    }
}

static void a_limit_is_reached_exactly_however_many_rush_for_it(void **state)
{
    struct shared *s = *state;
    for (int i = 0; i < CROWDS; i++) {
        assert_int_equal(weir_limit_init(limit_of(s), 1000, NULL), WEIR_OK);
        atomic_store(&s->admitted_once, 0);
        crowds[i](s, take_and_keep);
        assert_int_equal(atomic_load(&s->admitted_once), 1000);
        assert_int_equal(weir_limit_used(limit_of(s)), 1000);
    }
}

static void a_budget_neither_loses_nor_invents_tokens(void **state)
{
    struct shared *s = *state;
    for (int i = 0; i < CROWDS; i++) {
        init_budget(s, false);
        atomic_store(&s->earned, 0);
        atomic_store(&s->withdrawn, 0);
        crowds[i](s, earn_and_spend);
        double expected = 0.25 * atomic_load(&s->earned) - atomic_load(&s->withdrawn);
        double off = weir_budget_level(budget_of(s), 0) - expected;
        assert_true(off > -1e-6 && off < 1e-6);
        assert_in_range(atomic_load(&s->withdrawn), 1000, UINT32_MAX);
    }
}

static void a_share_of_requests_is_not_exceeded(void **state)
{
    struct shared *s = *state;
    for (int i = 0; i < CROWDS; i++) {
        init_budget(s, true);
        atomic_store(&s->requested, 0);
        atomic_store(&s->withdrawn, 0);
        crowds[i](s, request_and_retry);
        double left = 0.25 * atomic_load(&s->requested) - atomic_load(&s->withdrawn);
        assert_true(left >= 0);
        assert_true(weir_budget_level(budget_of(s), 0) == left);
        assert_in_range(atomic_load(&s->withdrawn), 1000, UINT32_MAX);
    }
}

static void a_rate_is_not_exceeded(void **state)
{
    struct shared *s = *state;
    for (int i = 0; i < CROWDS; i++) crowds[i](s, take_a_token);
    double seconds = (double)atomic_load(&s->now_ns) / 1e9;
    assert_true(atomic_load(&s->taken) <= 10 + 100 * seconds);
    assert_true(atomic_load(&s->taken) >= 100 * seconds * 0.95);
}

/* Lets the worker run for a random while, then kills it wherever it is. */
static void kill_midway(struct shared *s, uint32_t worker, pid_t pid, uint64_t steps)
{
    uint64_t until = atomic_load(&s->progress[worker]) + steps;
    while (atomic_load(&s->progress[worker]) < until) sched_yield();
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void reclaim_all_of(struct shared *s, uint32_t worker)
{
    weir_limit_reclaim(limit_of(s), worker);
    weir_breaker_reclaim(breaker_of(s), worker, atomic_load(&s->now_ns));
}

static void assert_still_useful(struct shared *s)
{
    for (int i = 0; i < LIMIT; i++) assert_true(weir_limit_acquire(limit_of(s), 9));
    assert_false(weir_limit_acquire(limit_of(s), 9));
    uint64_t now_ns = tick(s);
    weir_permit permit;
    weir_breaker_reset(breaker_of(s), now_ns);
    for (int i = 0; i < 10; i++) {
        assert_true(weir_breaker_admit(breaker_of(s), 9, now_ns, &permit));
        weir_breaker_settle(breaker_of(s), permit, WEIR_FAILURE, 0, NULL, now_ns, NULL);
    }
    assert_int_equal(weir_breaker_state_at(breaker_of(s), now_ns), WEIR_OPEN);
    for (int i = 0; i < PERMITS; i++) {
        assert_true(weir_breaker_admit(breaker_of(s), 9, now_ns + 20 * ms, &permit));
        weir_breaker_settle(breaker_of(s), permit, WEIR_SUCCESS, 0, NULL, now_ns + 20 * ms, NULL);
    }
    assert_int_equal(weir_breaker_state_at(breaker_of(s), now_ns + 20 * ms), WEIR_CLOSED);
}

static void workers_killed_anywhere_leave_the_guards_whole(void **state)
{
    struct shared *s = *state;
    pid_t pids[WORKERS];
    struct wr_rng rng;
    wr_rng_seed(&rng, 2024);
    for (uint32_t i = 0; i < WORKERS; i++) pids[i] = start_process(s, everything, i, UINT64_MAX);
    for (uint32_t n = 0; n < KILLS; n++) {
        uint32_t victim = n % WORKERS;
        kill_midway(s, victim, pids[victim], wr_rng_next(&rng) % 300);
        reclaim_all_of(s, victim);
        pids[victim] = start_process(s, everything, victim, UINT64_MAX);
    }
    for (uint32_t i = 0; i < WORKERS; i++) {
        kill_midway(s, i, pids[i], 1);
        reclaim_all_of(s, i);
    }
    assert_int_equal(atomic_load(&s->broken), 0);
    assert_int_equal(weir_limit_used(limit_of(s)), 0);
    assert_still_useful(s);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(a_breaker_stays_legal_and_tells_each_opening_once),
        CASE(a_limit_is_never_passed),
        CASE(a_limit_is_reached_exactly_however_many_rush_for_it),
        CASE(a_budget_neither_loses_nor_invents_tokens),
        CASE(a_share_of_requests_is_not_exceeded),
        CASE(a_rate_is_not_exceeded),
        CASE(workers_killed_anywhere_leave_the_guards_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
