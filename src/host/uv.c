/* The libuv host: one uv_poll per watched descriptor, one timerfd for the engine's single timer, and a uv_idle for
 * "as soon as possible".
 *
 * Descriptors. The engine may close a descriptor as soon as watch(fd, 0) has returned, and the kernel may give the
 * same number out again before the loop turns. uv_close takes the descriptor out of epoll at once and drops what
 * the current batch of events still holds for it; only the memory of the handle is busy until a later turn. So a handle
 * belongs to one period of watching, never to a number, and goes to a list of spares when libuv has let go of it. */
#include "weir/uv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

enum { NS_PER_S = 1000000000 };

/* One period of watching one descriptor. It is in uv->watches[fd], or being closed by libuv, or in uv->spares. */
struct watch {
    uv_poll_t poll;
    struct weir_uv *uv;
    struct watch *next_spare;
    int fd;
    unsigned events;
    weir_uv_ready ready; /* of weir_uv_watch; NULL: the engine's own */
    void *ctx;
};

struct weir_uv {
    uv_loop_t *loop;
    bool owns_loop;
    weir_engine *engine; /* NULL until bound: nothing is polled and the timer waits */
    weir_host host;
    struct watch **watches; /* by descriptor */
    size_t watch_room;
    struct watch *spares;
    uv_poll_t timer; /* of timer_fd; it keeps the loop alive inside weir_uv_run_until, and only there */
    int timer_fd;
    uint64_t due_ns;     /* arm(> 0); UINT64_MAX: not armed */
    uint64_t limit_ns;   /* of weir_uv_run_until; UINT64_MAX: none */
    uint64_t armed_ns;   /* when timer_fd will wake the loop, at the earlier of the two or before */
    uv_idle_t soon;      /* arm(0) */
    size_t open_handles; /* which libuv has not let go of */
    bool timer_due;      /* it fired before an engine was bound */
};

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static int start_watch(struct watch *watch);

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *watch = handle->data;

    watch->uv->open_handles--;
    watch->next_spare = watch->uv->spares;
    watch->uv->spares = watch;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct weir_uv *uv = watch->uv;
    int fd = watch->fd;
    unsigned ready = 0;

    if (events & UV_READABLE) ready |= WEIR_READ;
    if (events & UV_WRITABLE) ready |= WEIR_WRITE;
    /* An error on the descriptor: whoever reads or writes it is told which. */
    if (status < 0) ready = watch->events;
    if (watch->ready != NULL)
        watch->ready(watch->ctx, fd, ready);
    else
        weir_on_ready(uv->engine, fd, ready);
    /* libuv stops polling a descriptor in error. Interest ends only when its owner says so, so start again; he may have
     * forgotten the descriptor, or even watch a new one of the same number, hence the look-up. */
    if (status < 0 && (size_t)fd < uv->watch_room && uv->watches[fd] == watch) start_watch(watch);
}

static int start_watch(struct watch *watch)
{
    int events = 0;

    if (watch->events & WEIR_READ) events |= UV_READABLE;
    if (watch->events & WEIR_WRITE) events |= UV_WRITABLE;
    return uv_poll_start(&watch->poll, events, on_poll);
}

static int reserve_watches(struct weir_uv *uv, size_t room)
{
    struct watch **grown;
    size_t next = uv->watch_room ? uv->watch_room : 64;

    if (room <= uv->watch_room) return WEIR_OK;
    while (next < room) next *= 2;
    grown = realloc(uv->watches, next * sizeof(struct watch *));
    if (grown == NULL) return WEIR_ENOMEM;
    memset(grown + uv->watch_room, 0, (next - uv->watch_room) * sizeof(struct watch *));
    uv->watches = grown;
    uv->watch_room = next;
    return WEIR_OK;
}

static struct watch *take_spare(struct weir_uv *uv)
{
    struct watch *watch = uv->spares;

    if (watch == NULL) return malloc(sizeof(struct watch));
    uv->spares = watch->next_spare;
    return watch;
}

static void forget(struct weir_uv *uv, int fd)
{
    struct watch *watch = uv->watches[fd];

    uv->watches[fd] = NULL;
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

static int begin_watch(struct weir_uv *uv, int fd)
{
    struct watch *watch;

    if (reserve_watches(uv, (size_t)fd + 1) != WEIR_OK) return WEIR_ENOMEM;
    watch = take_spare(uv);
    if (watch == NULL) return WEIR_ENOMEM;
    memset(watch, 0, sizeof(*watch));
    watch->uv = uv;
    watch->fd = fd;
    /* Refuses what epoll cannot watch, a closed number or a regular file; uv_poll_start would abort on it later. */
    if (uv_poll_init(uv->loop, &watch->poll, fd) != 0) {
        watch->next_spare = uv->spares;
        uv->spares = watch;
        return WEIR_ESYS;
    }
    watch->poll.data = watch;
    uv_unref((uv_handle_t *)&watch->poll);
    uv->open_handles++;
    uv->watches[fd] = watch;
    return WEIR_OK;
}

static struct watch *watch_of(const struct weir_uv *uv, int fd)
{
    return fd >= 0 && (size_t)fd < uv->watch_room ? uv->watches[fd] : NULL;
}

/* ready NULL: for the engine, and polled only while there is one. */
static int set_watch(struct weir_uv *uv, int fd, unsigned events, weir_uv_ready ready, void *ctx)
{
    struct watch *watch = watch_of(uv, fd);
    int code;

    if (fd < 0 || (events & ~(unsigned)(WEIR_READ | WEIR_WRITE)) != 0) return WEIR_EINVAL;
    if (events == 0) {
        if (watch != NULL) forget(uv, fd);
        return WEIR_OK;
    }
    if (watch == NULL && (code = begin_watch(uv, fd)) != WEIR_OK) return code;
    watch = uv->watches[fd];
    watch->ready = ready;
    watch->ctx = ctx;
    if (watch->events == events) return WEIR_OK;
    watch->events = events;
    if (ready == NULL && uv->engine == NULL) return WEIR_OK;
    if (start_watch(watch) != 0) {
        forget(uv, fd);
        return WEIR_ESYS;
    }
    return WEIR_OK;
}

static int host_watch(void *ctx, int fd, unsigned events)
{
    const struct watch *watch = watch_of(ctx, fd);

    return watch != NULL && watch->ready != NULL ? WEIR_EINVAL : set_watch(ctx, fd, events, NULL, NULL);
}

/* ---- time ---------------------------------------------------------------------------------------------------------- */

static void fire(struct weir_uv *uv)
{
    if (uv->engine != NULL)
        weir_on_timer(uv->engine);
    else
        uv->timer_due = true;
}

/* The descriptor is told only when it must wake earlier than it would anyway, so moving a deadline out costs no system
 * call, at the price of an empty wake-up now and then. */
static void settle_timer(struct weir_uv *uv)
{
    uint64_t wanted = uv->due_ns < uv->limit_ns ? uv->due_ns : uv->limit_ns;
    struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(wanted / NS_PER_S), .tv_nsec = (long)(wanted % NS_PER_S)}};

    if (wanted == UINT64_MAX || wanted >= uv->armed_ns) return;
    uv->armed_ns = wanted;
    timerfd_settime(uv->timer_fd, TFD_TIMER_ABSTIME, &at, NULL); /* fails on a bad argument only */
}

static void on_timer(uv_poll_t *timer, int status, int events)
{
    struct weir_uv *uv = timer->data;
    uint64_t expirations;

    (void)status;
    (void)events;
    if (read(uv->timer_fd, &expirations, sizeof(expirations)) < 0) return;
    uv->armed_ns = UINT64_MAX;
    if (uv->due_ns <= uv_hrtime()) {
        uv->due_ns = UINT64_MAX; /* before the engine runs, which may arm it again */
        fire(uv);
    }
    settle_timer(uv);
}

static void on_soon(uv_idle_t *soon)
{
    uv_idle_stop(soon); /* single shot; before the engine runs, which may arm it again */
    fire(soon->data);
}

static uint64_t moment_after(uint64_t delay_ns)
{
    uint64_t now_ns = uv_hrtime();

    return delay_ns > UINT64_MAX - now_ns ? UINT64_MAX : now_ns + delay_ns;
}

static void host_arm(void *ctx, int64_t delay_ns)
{
    struct weir_uv *uv = ctx;

    uv->timer_due = false;
    uv->due_ns = UINT64_MAX;
    uv_idle_stop(&uv->soon);
    if (delay_ns < 0) return;
    if (delay_ns > 0) {
        uv->due_ns = moment_after((uint64_t)delay_ns);
        settle_timer(uv);
        return;
    }
    /* Not a timer of 0 ms: libuv 1.44 runs one that arms itself anew over and over in the same turn, and the
     * descriptors starve. An idle handle runs once in each turn, and the turn does not sleep. */
    uv_idle_start(&uv->soon, on_soon);
}

static uint64_t host_now_ns(void *ctx)
{
    (void)ctx;
    return uv_hrtime();
}

static uint64_t host_wall_us(void *ctx)
{
    struct timespec now;

    (void)ctx;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- public -------------------------------------------------------------------------------------------------------- */

static void add_handle(struct weir_uv *uv, uv_handle_t *handle)
{
    handle->data = uv;
    uv_unref(handle);
    uv->open_handles++;
}

static bool make_loop(struct weir_uv *uv)
{
    uv->loop = malloc(sizeof(*uv->loop));
    if (uv->loop == NULL) return false;
    uv->owns_loop = uv_loop_init(uv->loop) == 0;
    if (!uv->owns_loop) free(uv->loop);
    return uv->owns_loop;
}

static void free_loop(struct weir_uv *uv)
{
    if (!uv->owns_loop) return;
    uv_loop_close(uv->loop);
    free(uv->loop);
}

/* Not a uv_timer: with one armed each epoll_wait carries a time-out, for which the kernel sets up and tears down a timer
 * of its own, at several per cent of a short call. And this one counts nanoseconds. */
static bool make_timer(struct weir_uv *uv)
{
    uv->due_ns = uv->limit_ns = uv->armed_ns = UINT64_MAX;
    uv->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (uv->timer_fd < 0) return false;
    if (uv_poll_init(uv->loop, &uv->timer, uv->timer_fd) != 0) {
        close(uv->timer_fd);
        return false;
    }
    add_handle(uv, (uv_handle_t *)&uv->timer);
    uv_poll_start(&uv->timer, UV_READABLE, on_timer); /* cannot fail: uv_poll_init has tried the descriptor */
    return true;
}

int weir_uv_new(weir_uv **out, struct uv_loop_s *loop, uint64_t seed)
{
    struct weir_uv *uv = calloc(1, sizeof(*uv));

    *out = NULL;
    if (uv == NULL) return WEIR_ENOMEM;
    uv->loop = loop;
    if (loop == NULL && !make_loop(uv)) {
        free(uv);
        return WEIR_ENOMEM;
    }
    if (!make_timer(uv)) {
        free_loop(uv);
        free(uv);
        return WEIR_ESYS;
    }
    uv_idle_init(uv->loop, &uv->soon); /* cannot fail */
    add_handle(uv, (uv_handle_t *)&uv->soon);
    uv->host = (weir_host){.ctx = uv,
                           .now_ns = host_now_ns,
                           .wall_us = host_wall_us,
                           .watch = host_watch,
                           .arm = host_arm,
                           .seed = seed};
    *out = uv;
    return WEIR_OK;
}

struct uv_loop_s *weir_uv_loop(const weir_uv *uv)
{
    return uv->loop;
}

const weir_host *weir_uv_hooks(weir_uv *uv)
{
    return &uv->host;
}

void weir_uv_bind(weir_uv *uv, weir_engine *engine)
{
    uv->engine = engine;
    for (size_t fd = 0; fd < uv->watch_room; fd++) {
        if (uv->watches[fd] == NULL || uv->watches[fd]->ready != NULL) continue;
        if (engine != NULL)
            start_watch(uv->watches[fd]); /* cannot fail: begin_watch has tried the descriptor */
        else
            uv_poll_stop(&uv->watches[fd]->poll);
    }
    if (engine != NULL && uv->timer_due) host_arm(uv, 0);
}

int weir_uv_watch(weir_uv *uv, int fd, unsigned events, weir_uv_ready ready, void *ctx)
{
    const struct watch *watch = watch_of(uv, fd);

    if (watch != NULL && watch->ready == NULL) return WEIR_EINVAL;
    return ready == NULL && events != 0 ? WEIR_EINVAL : set_watch(uv, fd, events, ready, ctx);
}

bool weir_uv_run_until(weir_uv *uv, const volatile bool *flag, uint64_t timeout_ns)
{
    uint64_t due_ns = timeout_ns > 0 ? moment_after(timeout_ns) : UINT64_MAX;

    if (*flag) return true;
    uv->limit_ns = due_ns;
    settle_timer(uv);
    uv_ref((uv_handle_t *)&uv->timer);
    while (!*flag && (timeout_ns == 0 || uv_hrtime() < due_ns)) uv_run(uv->loop, UV_RUN_ONCE);
    uv_unref((uv_handle_t *)&uv->timer);
    uv->limit_ns = UINT64_MAX;
    return *flag;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct weir_uv *uv = handle->data;

    uv->open_handles--;
}

void weir_uv_free(weir_uv *uv)
{
    if (uv == NULL) return;
    for (size_t fd = 0; fd < uv->watch_room; fd++) {
        if (uv->watches[fd] != NULL) forget(uv, (int)fd);
    }
    uv_close((uv_handle_t *)&uv->timer, on_handle_closed);
    uv_close((uv_handle_t *)&uv->soon, on_handle_closed);
    close(uv->timer_fd);
    while (uv->open_handles > 0) uv_run(uv->loop, UV_RUN_NOWAIT);
    while (uv->spares != NULL) {
        struct watch *spare = uv->spares;

        uv->spares = spare->next_spare;
        free(spare);
    }
    free(uv->watches);
    free_loop(uv);
    free(uv);
}
