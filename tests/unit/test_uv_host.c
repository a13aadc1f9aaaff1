/* The libuv host against a stand-in engine: the two functions through which a host reports are defined here, so what
 * is seen is the host alone. Descriptors are real pipes and socket pairs, time is the loop's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "weir/uv.h"

enum { MS = 1000000, SEEN_MAX = 64 };

/* ---- the stand-in engine ------------------------------------------------------------------------------------------ */

struct weir_engine {
    const weir_host *host;
    struct {
        int fd;
        unsigned events;
    } seen[SEEN_MAX];
    size_t seen_count;
    size_t timer_count;
    uint64_t timer_at_ns;
    bool stop;           /* ends weir_uv_run_until */
    bool drain;          /* on_ready reads what is there */
    unsigned rearm_soon; /* on_timer arms 0 again so many times */
    int swap_when_ready; /* on_ready of this descriptor ... */
    int swap_forget;     /* ... forgets and closes this one, */
    int swap_open;       /* whose number a duplicate of this one takes, and watches it */
};

int weir_on_ready(weir_engine *engine, int fd, unsigned events)
{
    char bytes[256];

    if (engine->seen_count < SEEN_MAX) {
        engine->seen[engine->seen_count].fd = fd;
        engine->seen[engine->seen_count].events = events;
    }
    engine->seen_count++;
    engine->stop = true;
    if (engine->drain) (void)!read(fd, bytes, sizeof(bytes));
    if (engine->swap_when_ready == fd && engine->swap_forget >= 0) {
        int number = engine->swap_forget;

        engine->swap_forget = -1;
        assert_int_equal(engine->host->watch(engine->host->ctx, number, 0), 0);
        close(number);
        assert_int_equal(dup2(engine->swap_open, number), number);
        assert_int_equal(engine->host->watch(engine->host->ctx, number, WEIR_READ), 0);
    }
    return WEIR_OK;
}

int weir_on_timer(weir_engine *engine)
{
    engine->timer_count++;
    engine->timer_at_ns = uv_hrtime();
    if (engine->rearm_soon > 0) {
        engine->rearm_soon--;
        engine->host->arm(engine->host->ctx, 0);
    } else {
        engine->stop = true;
    }
    return WEIR_OK;
}

/* ---- fixture ------------------------------------------------------------------------------------------------------- */

struct fixture {
    uv_loop_t loop;
    weir_uv *uv;
    const weir_host *host;
    struct weir_engine engine;
    int pair[2]; /* pair[0] is watched, pair[1] is the far end */
};

static int setup(void **state)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;

    *f = (struct fixture){.engine = {.swap_when_ready = -1, .swap_forget = -1}};
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(weir_uv_new(&f->uv, &f->loop, 42), WEIR_OK);
    f->host = weir_uv_hooks(f->uv);
    f->engine.host = f->host;
    weir_uv_bind(f->uv, &f->engine);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, f->pair), 0);
    *state = f;
    return 0;
}

/* Every test ends here: no handle may be left on the loop. */
static int teardown(void **state)
{
    struct fixture *f = *state;

    weir_uv_free(f->uv);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    for (int end = 0; end < 2; end++) {
        if (f->pair[end] >= 0) close(f->pair[end]);
    }
    return 0;
}

static void watch(struct fixture *f, int fd, unsigned events)
{
    assert_int_equal(f->host->watch(f->host->ctx, fd, events), 0);
}

static void say(int fd)
{
    assert_int_equal(write(fd, "x", 1), 1);
}

/* Turns the loop until something was reported; false if nothing was for timeout_ms. */
static bool await(struct fixture *f, uint64_t timeout_ms)
{
    f->engine.stop = false;
    return weir_uv_run_until(f->uv, &f->engine.stop, timeout_ms * MS);
}

static void close_end(struct fixture *f, int end)
{
    close(f->pair[end]);
    f->pair[end] = -1;
}

/* ---- descriptors ---------------------------------------------------------------------------------------------------- */

static void a_readable_descriptor_is_reported(void **state)
{
    struct fixture *f = *state;

    watch(f, f->pair[0], WEIR_READ);
    assert_false(await(f, 5));
    say(f->pair[1]);
    assert_true(await(f, 1000));
    assert_int_equal(f->engine.seen[0].fd, f->pair[0]);
    assert_int_equal(f->engine.seen[0].events, WEIR_READ);
}

static void readiness_is_reported_until_it_is_drained(void **state)
{
    struct fixture *f = *state;

    watch(f, f->pair[0], WEIR_READ);
    say(f->pair[1]);
    assert_true(await(f, 1000));
    assert_true(await(f, 1000));
    f->engine.drain = true;
    assert_true(await(f, 1000));
    assert_false(await(f, 5));
}

static void interest_can_be_widened_and_narrowed(void **state)
{
    struct fixture *f = *state;

    watch(f, f->pair[0], WEIR_READ);
    assert_false(await(f, 5));
    watch(f, f->pair[0], WEIR_READ | WEIR_WRITE);
    assert_true(await(f, 1000));
    assert_int_equal(f->engine.seen[0].events, WEIR_WRITE);
    watch(f, f->pair[0], WEIR_READ);
    assert_false(await(f, 5));
}

static void a_forgotten_descriptor_is_silent_and_may_be_forgotten_again(void **state)
{
    struct fixture *f = *state;

    watch(f, f->pair[0], WEIR_READ);
    say(f->pair[1]);
    watch(f, f->pair[0], 0);
    watch(f, f->pair[0], 0);
    watch(f, 100000, 0);
    assert_false(await(f, 5));
}

static void a_number_reused_at_once_belongs_to_the_new_descriptor(void **state)
{
    struct fixture *f = *state;
    int fresh[2];
    int number = f->pair[0];

    watch(f, number, WEIR_READ | WEIR_WRITE);
    assert_true(await(f, 1000));
    watch(f, number, 0);
    close(number);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fresh), 0);
    assert_int_equal(fresh[0], number); /* the lowest free one */
    watch(f, number, WEIR_READ);
    f->engine.seen_count = 0;
    assert_false(await(f, 5));
    say(fresh[1]);
    assert_true(await(f, 1000));
    assert_int_equal(f->engine.seen[0].fd, number);
    assert_int_equal(f->engine.seen[0].events, WEIR_READ);
    close(fresh[1]);
}

/* Both old descriptors are ready in one batch of epoll; the first callback replaces the second descriptor by a silent
 * one of the same number. The event the batch still holds for the old one must not reach the new one. */
static void an_event_of_the_old_descriptor_never_reaches_the_new_one(void **state)
{
    struct fixture *f = *state;
    int second[2], silent[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, second), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, silent), 0);
    f->engine.swap_when_ready = f->pair[0];
    f->engine.swap_forget = second[0];
    f->engine.swap_open = silent[0];
    f->engine.drain = true;
    watch(f, f->pair[0], WEIR_READ);
    watch(f, second[0], WEIR_READ);
    say(f->pair[1]);
    say(second[1]);
    assert_true(await(f, 1000));
    assert_false(await(f, 5));
    assert_int_equal(f->engine.seen_count, 1);
    assert_int_equal(f->engine.seen[0].fd, f->pair[0]);
    say(silent[1]);
    assert_true(await(f, 1000));
    assert_int_equal(f->engine.seen[1].fd, second[0]);
    watch(f, second[0], 0);
    close(second[0]);
    close(second[1]);
    close(silent[0]);
    close(silent[1]);
}

static void a_descriptor_can_be_watched_anew_a_thousand_times(void **state)
{
    struct fixture *f = *state;

    for (int turn = 0; turn < 1000; turn++) {
        watch(f, f->pair[0], WEIR_READ | WEIR_WRITE);
        assert_true(await(f, 1000));
        watch(f, f->pair[0], 0);
    }
    assert_int_equal(f->engine.seen_count, 1000);
}

static void a_hang_up_is_reported_as_readable(void **state)
{
    struct fixture *f = *state;

    watch(f, f->pair[0], WEIR_READ);
    close_end(f, 1);
    assert_true(await(f, 1000));
    assert_int_equal(f->engine.seen[0].events & WEIR_READ, WEIR_READ);
}

/* A pipe whose reader is gone gives EPOLLERR, on which libuv stops polling by itself. */
static void an_error_is_reported_as_the_interest_and_goes_on_being_reported(void **state)
{
    struct fixture *f = *state;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    watch(f, ends[1], WEIR_WRITE);
    close(ends[0]);
    assert_true(await(f, 1000));
    assert_int_equal(f->engine.seen[0].events, WEIR_WRITE);
    assert_true(await(f, 1000));
    watch(f, ends[1], 0);
    close(ends[1]);
    f->engine.seen_count = 0;
    assert_false(await(f, 5));
    assert_int_equal(f->engine.seen_count, 0);
}

static void what_cannot_be_watched_is_refused(void **state)
{
    struct fixture *f = *state;
    int closed = dup(f->pair[0]);
    int regular = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    close(closed);
    assert_int_equal(f->host->watch(f->host->ctx, closed, WEIR_READ), WEIR_ESYS);
    assert_int_equal(f->host->watch(f->host->ctx, regular, WEIR_READ), WEIR_ESYS);
    assert_int_equal(f->host->watch(f->host->ctx, -1, WEIR_READ), WEIR_EINVAL);
    assert_int_equal(f->host->watch(f->host->ctx, f->pair[0], 4), WEIR_EINVAL);
    assert_false(await(f, 5));
    close(regular);
}

static void readiness_before_the_engine_is_bound_is_kept(void **state)
{
    struct fixture *f = *state;

    weir_uv_bind(f->uv, NULL);
    watch(f, f->pair[0], WEIR_READ);
    f->host->arm(f->host->ctx, 0);
    say(f->pair[1]);
    assert_false(await(f, 5));
    weir_uv_bind(f->uv, &f->engine);
    assert_true(await(f, 1000));
    assert_true(f->engine.seen_count > 0 || await(f, 1000));
    assert_int_equal(f->engine.seen[0].events, WEIR_READ);
    assert_int_equal(f->engine.timer_count, 1);
}

/* ---- descriptors of the caller's own ---------------------------------------------------------------------------------- */

struct heard {
    weir_uv *uv;
    int count;
    unsigned events;
    bool stop, forget;
};

static void hear(void *ctx, int fd, unsigned events)
{
    struct heard *heard = ctx;

    heard->count++;
    heard->events = events;
    heard->stop = true;
    if (heard->forget) assert_int_equal(weir_uv_watch(heard->uv, fd, 0, NULL, NULL), WEIR_OK);
}

static bool await_heard(struct fixture *f, struct heard *heard, uint64_t timeout_ms)
{
    heard->stop = false;
    return weir_uv_run_until(f->uv, &heard->stop, timeout_ms * MS);
}

static void the_callers_descriptor_is_reported_to_the_caller_alone(void **state)
{
    struct fixture *f = *state;
    struct heard heard = {.uv = f->uv};

    assert_int_equal(weir_uv_watch(f->uv, f->pair[0], WEIR_READ, hear, &heard), WEIR_OK);
    assert_false(await_heard(f, &heard, 5));
    say(f->pair[1]);
    assert_true(await_heard(f, &heard, 1000));
    assert_int_equal(heard.events, WEIR_READ);
    assert_int_equal(f->engine.seen_count, 0);
    assert_int_equal(weir_uv_watch(f->uv, f->pair[0], WEIR_WRITE, hear, &heard), WEIR_OK);
    assert_true(await_heard(f, &heard, 1000));
    assert_int_equal(heard.events, WEIR_WRITE);
    assert_int_equal(weir_uv_watch(f->uv, f->pair[0], 0, NULL, NULL), WEIR_OK);
    assert_false(await_heard(f, &heard, 5));
}

static void the_caller_needs_no_engine(void **state)
{
    struct fixture *f = *state;
    struct heard heard = {.uv = f->uv};

    weir_uv_bind(f->uv, NULL);
    assert_int_equal(weir_uv_watch(f->uv, f->pair[0], WEIR_WRITE, hear, &heard), WEIR_OK);
    assert_true(await_heard(f, &heard, 1000));
    weir_uv_bind(f->uv, &f->engine);
    weir_uv_bind(f->uv, NULL);
    assert_true(await_heard(f, &heard, 1000));
}

static void a_descriptor_may_be_forgotten_inside_its_own_callback(void **state)
{
    struct fixture *f = *state;
    struct heard heard = {.uv = f->uv, .forget = true};

    for (int turn = 1; turn <= 100; turn++) {
        assert_int_equal(weir_uv_watch(f->uv, f->pair[0], WEIR_READ | WEIR_WRITE, hear, &heard), WEIR_OK);
        assert_true(await_heard(f, &heard, 1000));
        assert_int_equal(heard.count, turn);
    }
    close_end(f, 1); /* an error, on which libuv stops polling by itself */
    assert_int_equal(weir_uv_watch(f->uv, f->pair[0], WEIR_WRITE, hear, &heard), WEIR_OK);
    assert_true(await_heard(f, &heard, 1000));
    assert_false(await_heard(f, &heard, 5));
}

static void engine_and_caller_never_share_a_descriptor(void **state)
{
    struct fixture *f = *state;
    struct heard heard = {.uv = f->uv};
    weir_uv *second;

    watch(f, f->pair[0], WEIR_READ);
    assert_int_equal(weir_uv_watch(f->uv, f->pair[0], WEIR_READ, hear, &heard), WEIR_EINVAL);
    assert_int_equal(weir_uv_watch(f->uv, f->pair[0], 0, NULL, NULL), WEIR_EINVAL);
    assert_int_equal(weir_uv_new(&second, &f->loop, 7), WEIR_OK);
    assert_int_equal(weir_uv_watch(second, f->pair[0], WEIR_READ, hear, &heard), WEIR_ESYS);
    weir_uv_free(second);
    assert_int_equal(weir_uv_watch(f->uv, f->pair[1], WEIR_READ, NULL, NULL), WEIR_EINVAL);
    assert_int_equal(weir_uv_watch(f->uv, -1, WEIR_READ, hear, &heard), WEIR_EINVAL);
    assert_int_equal(weir_uv_watch(f->uv, f->pair[1], WEIR_WRITE, hear, &heard), WEIR_OK);
    assert_int_equal(f->host->watch(f->host->ctx, f->pair[1], WEIR_READ), WEIR_EINVAL);
    assert_true(await_heard(f, &heard, 1000));
}

/* ---- time ------------------------------------------------------------------------------------------------------------ */

static void the_timer_fires_once_and_never_early(void **state)
{
    static const int64_t delays_ns[] = {1, 200000, 1 * MS, 1500000, 7 * MS + 1, 20 * MS};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(delays_ns) / sizeof(delays_ns[0]); i++) {
        uint64_t armed_at_ns = uv_hrtime();

        f->engine.timer_count = 0;
        f->host->arm(f->host->ctx, delays_ns[i]);
        assert_true(await(f, 2000));
        assert_true(f->engine.timer_at_ns - armed_at_ns >= (uint64_t)delays_ns[i]);
        assert_false(await(f, 3));
        assert_int_equal(f->engine.timer_count, 1);
    }
}

static void arming_again_replaces_and_a_negative_delay_disarms(void **state)
{
    struct fixture *f = *state;

    f->host->arm(f->host->ctx, 1 * MS);
    f->host->arm(f->host->ctx, 0);
    f->host->arm(f->host->ctx, -1);
    assert_false(await(f, 5));
    f->host->arm(f->host->ctx, 0);
    f->host->arm(f->host->ctx, 1 * MS);
    assert_true(await(f, 1000));
    assert_false(await(f, 5));
    assert_int_equal(f->engine.timer_count, 1);
    f->host->arm(f->host->ctx, INT64_MAX);
    assert_false(await(f, 5));
}

static void zero_fires_in_the_next_turn_and_never_inside(void **state)
{
    struct fixture *f = *state;

    f->host->arm(f->host->ctx, 0);
    assert_int_equal(f->engine.timer_count, 0);
    assert_true(await(f, 1000));
    assert_int_equal(f->engine.timer_count, 1);
}

static void zero_armed_anew_each_time_does_not_starve_descriptors(void **state)
{
    struct fixture *f = *state;

    watch(f, f->pair[0], WEIR_READ);
    say(f->pair[1]);
    f->engine.rearm_soon = 1000000;
    f->host->arm(f->host->ctx, 0);
    assert_true(await(f, 10000));
    assert_int_equal(f->engine.seen[0].fd, f->pair[0]);
    assert_true(f->engine.timer_count < 10);
}

static void zero_takes_turns_and_not_milliseconds(void **state)
{
    struct fixture *f = *state;
    uint64_t started_ns = uv_hrtime();

    f->engine.rearm_soon = 1000; /* at 1 ms each, this would take a second */
    f->host->arm(f->host->ctx, 0);
    assert_true(await(f, 10000));
    assert_int_equal(f->engine.timer_count, 1001);
    assert_true(uv_hrtime() - started_ns < (uint64_t)900 * MS);
}

static void clocks_are_the_systems(void **state)
{
    struct fixture *f = *state;
    uint64_t before_ns = f->host->now_ns(f->host->ctx);

    assert_true(f->host->now_ns(f->host->ctx) >= before_ns);
    assert_true(f->host->wall_us(f->host->ctx) > UINT64_C(1700000000000000));
    assert_int_equal(f->host->seed, 42);
    assert_null(f->host->resize);
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

static void run_until_returns_at_its_timeout_and_at_once_if_the_flag_is_up(void **state)
{
    struct fixture *f = *state;
    bool up = true, down = false;
    uint64_t started_ns = uv_hrtime();

    assert_true(weir_uv_run_until(f->uv, &up, 0));
    assert_false(weir_uv_run_until(f->uv, &down, 10 * MS));
    assert_true(uv_hrtime() - started_ns >= (uint64_t)10 * MS);
}

static void raise_flag(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static void run_until_survives_a_stopped_loop_and_the_callers_own_timer_ends_it(void **state)
{
    struct fixture *f = *state;
    static uv_timer_t timer; /* libuv lets go of it when the fixture closes the loop */
    bool flag = false;

    timer.data = &flag;
    uv_timer_init(&f->loop, &timer);
    uv_timer_start(&timer, raise_flag, 3, 0);
    uv_stop(&f->loop);
    assert_true(weir_uv_run_until(f->uv, &flag, 0));
    uv_close((uv_handle_t *)&timer, NULL);
}

static void handles_do_not_keep_the_loop_alive(void **state)
{
    struct fixture *f = *state;

    watch(f, f->pair[0], WEIR_READ);
    f->host->arm(f->host->ctx, 60 * (int64_t)1000 * MS);
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
}

static void two_hosts_share_a_loop(void **state)
{
    struct fixture *f = *state;
    struct weir_engine other = {.swap_when_ready = -1, .swap_forget = -1};
    weir_uv *second;

    assert_int_equal(weir_uv_new(&second, &f->loop, 7), WEIR_OK);
    weir_uv_bind(second, &other);
    weir_uv_hooks(second)->arm(weir_uv_hooks(second)->ctx, 0);
    f->host->arm(f->host->ctx, 3 * MS);
    assert_true(await(f, 1000)); /* turning one turns both */
    assert_int_equal(other.timer_count, 1);
    assert_int_equal(f->engine.timer_count, 1);
    weir_uv_free(second);
    weir_uv_free(NULL);
}

static void a_host_without_a_loop_makes_one_that_others_can_join(void **state)
{
    struct weir_engine first_engine = {.swap_when_ready = -1, .swap_forget = -1};
    struct weir_engine second_engine = {.swap_when_ready = -1, .swap_forget = -1};
    volatile bool never = false;
    weir_uv *first, *second;

    (void)state;
    assert_int_equal(weir_uv_new(&first, NULL, 1), WEIR_OK);
    assert_int_equal(weir_uv_new(&second, weir_uv_loop(first), 2), WEIR_OK);
    weir_uv_bind(first, &first_engine);
    weir_uv_bind(second, &second_engine);
    weir_uv_hooks(second)->arm(weir_uv_hooks(second)->ctx, 0);
    assert_false(weir_uv_run_until(first, &never, 5 * MS));
    assert_int_equal(second_engine.timer_count, 1);
    weir_uv_free(second);
    weir_uv_free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_readable_descriptor_is_reported, setup, teardown),
        cmocka_unit_test_setup_teardown(readiness_is_reported_until_it_is_drained, setup, teardown),
        cmocka_unit_test_setup_teardown(interest_can_be_widened_and_narrowed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_forgotten_descriptor_is_silent_and_may_be_forgotten_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_number_reused_at_once_belongs_to_the_new_descriptor, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_event_of_the_old_descriptor_never_reaches_the_new_one, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_descriptor_can_be_watched_anew_a_thousand_times, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hang_up_is_reported_as_readable, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_is_reported_as_the_interest_and_goes_on_being_reported,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_watched_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(readiness_before_the_engine_is_bound_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(the_callers_descriptor_is_reported_to_the_caller_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_caller_needs_no_engine, setup, teardown),
        cmocka_unit_test_setup_teardown(a_descriptor_may_be_forgotten_inside_its_own_callback, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(engine_and_caller_never_share_a_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(the_timer_fires_once_and_never_early, setup, teardown),
        cmocka_unit_test_setup_teardown(arming_again_replaces_and_a_negative_delay_disarms, setup, teardown),
        cmocka_unit_test_setup_teardown(zero_fires_in_the_next_turn_and_never_inside, setup, teardown),
        cmocka_unit_test_setup_teardown(zero_armed_anew_each_time_does_not_starve_descriptors, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(zero_takes_turns_and_not_milliseconds, setup, teardown),
        cmocka_unit_test_setup_teardown(clocks_are_the_systems, setup, teardown),
        cmocka_unit_test_setup_teardown(run_until_returns_at_its_timeout_and_at_once_if_the_flag_is_up, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(run_until_survives_a_stopped_loop_and_the_callers_own_timer_ends_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(handles_do_not_keep_the_loop_alive, setup, teardown),
        cmocka_unit_test_setup_teardown(two_hosts_share_a_loop, setup, teardown),
        cmocka_unit_test(a_host_without_a_loop_makes_one_that_others_can_join),
    };

    return cmocka_run_group_tests_name("uv_host", tests, NULL, NULL);
}
