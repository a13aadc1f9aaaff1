/* The loop: level-triggered, and wary of descriptors that are forgotten while others of the same turn are
 * reported. */
#include "driver_loop.h"

#include "base/check.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WAIT_MS = 10000 };

__attribute__((format(printf, 1, 2))) _Noreturn static void give_up(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("driver loop: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

static uint64_t now_ns(void *engine)
{
    struct timespec now;
    (void)engine;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *counted_resize(void *ctx, void *old, size_t size)
{
    struct loop *loop = ctx;
    loop->allocations++;
    if (size == 0) {
        if (old != NULL) loop->allocated--;
        free(old);
        return NULL;
    }
    if (loop->allocations == loop->refuse_at) return NULL;
    if (old == NULL) loop->allocated++;
    return realloc(old, size);
}

/* ---- descriptors ---- */

static struct watched *find(struct loop *loop, int fd)
{
    for (size_t i = 0; i < loop->fd_count; i++) {
        if (loop->fds[i].fd == fd) return &loop->fds[i];
    }
    return NULL;
}

static int watch(void *engine, int fd, unsigned events, void (*ready)(void *arg, unsigned events), void *arg)
{
    struct loop *loop = engine;
    struct watched *at = find(loop, fd);
    loop->watch_calls++;
    if (events == 0) {
        if (at != NULL) *at = loop->fds[--loop->fd_count];
        return 0;
    }
    if (at == NULL) {
        if (loop->fd_count == LOOP_FDS) return -1;
        at = &loop->fds[loop->fd_count++];
        at->serial = ++loop->serial;
    }
    *at = (struct watched){.fd = fd, .events = events, .serial = at->serial, .ready = ready, .arg = arg};
    return 0;
}

void loop_turn(struct loop *loop, int ms)
{
    struct pollfd fds[LOOP_FDS];
    unsigned serials[LOOP_FDS];
    size_t count = loop->fd_count;
    for (size_t i = 0; i < count; i++) {
        const struct watched *at = &loop->fds[i];
        fds[i] = (struct pollfd){.fd = at->fd,
                                 .events = (short)(((at->events & WEIR_READ) != 0 ? POLLIN : 0) |
                                                   ((at->events & WEIR_WRITE) != 0 ? POLLOUT : 0))};
        serials[i] = at->serial;
    }
    if (poll(fds, count, ms) <= 0) return;
    for (size_t i = 0; i < count; i++) {
        const struct watched *at = find(loop, fds[i].fd);
        if (fds[i].revents == 0 || at == NULL || at->serial != serials[i]) continue;
        if ((fds[i].revents & POLLNVAL) != 0) give_up("descriptor %d was closed while watched", fds[i].fd);
        unsigned events = ((fds[i].revents & (POLLIN | POLLERR | POLLHUP)) != 0 ? WEIR_READ : 0u) |
                          ((fds[i].revents & POLLOUT) != 0 ? WEIR_WRITE : 0u);
        at->ready(at->arg, events);
    }
}

bool loop_until(struct loop *loop, bool (*done)(void *arg), void *arg, int ms)
{
    uint64_t until = now_ns(NULL) + (uint64_t)ms * 1000000u;
    while (!done(arg)) {
        uint64_t now = now_ns(NULL);
        if (now >= until) return false;
        loop_turn(loop, (int)((until - now) / 1000000u) + 1);
    }
    return true;
}

/* ---- what the driver tells ---- */

static void on_connected(void *owner, struct wr_link *link, const struct wr_greeting *greeting,
                         const struct wr_fault *fault)
{
    struct session *session = owner;
    WR_CHECK(!session->connected);
    WR_CHECK((link == NULL) == (fault != NULL) && (link == NULL) == (greeting == NULL));
    session->connected = true;
    session->link = link;
    if (greeting != NULL) session->greeting = *greeting;
    if (fault != NULL) session->fault = *fault;
}

static void on_settled(void *owner, struct wr_reply *reply)
{
    struct session *session = owner;
    session_drop_results(session);
    session->reply = *reply;
    session->reply.results = session->results;
    for (size_t i = 0; i < reply->count; i++) {
        session->results[i] = reply->results[i];
        reply->results[i] = (struct weir_result){.ops = NULL};
    }
    session->settled = true;
    session->settled_times++;
    if (session->on_settled != NULL) session->on_settled(session);
}

static void on_lost(void *owner, const struct wr_fault *fault)
{
    struct session *session = owner;
    session->lost = true;
    session->lost_times++;
    session->fault = *fault;
}

/* ---- loop ---- */

void loop_open(struct loop *loop, const struct weir_driver *driver, uint32_t connect_at_once)
{
    char why[WEIR_WHY_MAX];
    memset(loop, 0, sizeof *loop);
    loop->driver = driver;
    loop->memory = (struct wr_memory){.resize = counted_resize, .ctx = loop};
    loop->env = (struct wr_driver_env){.engine = loop,
                                       .memory = &loop->memory,
                                       .now_ns = now_ns,
                                       .watch = watch,
                                       .connected = on_connected,
                                       .settled = on_settled,
                                       .lost = on_lost};
    if (driver->start(driver, &loop->instance, &loop->env, connect_at_once, why) != WEIR_OK)
        give_up("start: %s", why);
}

void loop_close(struct loop *loop)
{
    loop->driver->stop(loop->instance);
    if (loop->fd_count != 0) give_up("%zu descriptors are still watched", loop->fd_count);
    if (loop->allocated != 0) give_up("%ld blocks are still allocated", loop->allocated);
}

struct wr_target *loop_target(struct loop *loop, const struct wr_login *login)
{
    char why[WEIR_WHY_MAX] = "";
    struct wr_login full = *login;
    struct wr_target *target = NULL;
    if (full.pool == NULL) full.pool = "test@primary";
    if (loop->driver->target(loop->instance, &full, &target, why) != WEIR_OK) give_up("target: %s", why);
    return target;
}

/* ---- sessions ---- */

static bool is_connected(void *arg)
{
    return ((struct session *)arg)->connected;
}

static bool is_settled(void *arg)
{
    return ((struct session *)arg)->settled;
}

static bool is_lost(void *arg)
{
    return ((struct session *)arg)->lost;
}

void session_start(struct session *session, struct loop *loop, struct wr_target *target, uint64_t timeout_ns)
{
    memset(session, 0, sizeof *session);
    session->loop = loop;
    if (loop->driver->connect(loop->instance, target, timeout_ns, session) != WEIR_OK)
        give_up("connect refused");
}

bool session_open(struct session *session, struct loop *loop, struct wr_target *target)
{
    session_start(session, loop, target, 5000000000u);
    if (!loop_until(loop, is_connected, session, WAIT_MS)) give_up("connected() did not come");
    return session->link != NULL;
}

void session_drop_results(struct session *session)
{
    for (size_t i = 0; i < session->reply.count; i++) {
        if (session->results[i].ops != NULL) session->results[i].ops->release(session->results[i].handle);
        session->results[i].ops = NULL;
    }
    session->reply.count = 0;
}

void session_close(struct session *session)
{
    session_drop_results(session);
    if (session->link != NULL) session->loop->driver->close(session->link);
    session->link = NULL;
}

void session_send(struct session *session, const struct wr_segment *segment)
{
    struct wr_fault fault;
    session->settled = false;
    if (session->loop->driver->send(session->link, segment, &fault) != WEIR_OK)
        give_up("send: %s", fault.message);
    if (session->settled) give_up("settled() came from inside send()");
}

void session_wait(struct session *session)
{
    if (!loop_until(session->loop, is_settled, session, WAIT_MS)) give_up("settled() did not come");
}

void session_wait_lost(struct session *session)
{
    if (!loop_until(session->loop, is_lost, session, WAIT_MS)) give_up("lost() did not come");
}

const struct wr_reply *session_run(struct session *session, const struct wr_segment *segment)
{
    session_send(session, segment);
    session_wait(session);
    return &session->reply;
}

struct weir_statement statement(const char *sql)
{
    return (struct weir_statement){.sql = sql};
}

const struct wr_reply *session_query(struct session *session, const char *sql)
{
    struct weir_statement one = statement(sql);
    return session_run(session,
                       &(struct wr_segment){.kind = WR_SEGMENT_SINGLE, .statements = &one, .count = 1});
}

const char *session_value(const struct session *session, size_t index)
{
    if (index >= session->reply.count) return "(none)";
    const struct weir_result *result = &session->results[index];
    if (weir_result_rows(result) == 0) return "(none)";
    const char *value = weir_result_value(result, 0, 0, NULL);
    return value == NULL ? "(null)" : value;
}
