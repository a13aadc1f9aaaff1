/* Engines on nginx's event loop: a connection object per watched descriptor, one timer per engine.
 *
 * Level-triggered, against nginx's habit: PQconsumeInput does not read until the socket is empty. The descriptors are
 * libpq's, so a connection object is freed and never closed. All timers are cancelable: none of them keeps a worker
 * that was asked to leave. */
#include "ngxweir.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

struct watch { /* of one descriptor */
    ngx_connection_t *connection;
    struct loan *loan; /* whose engine is told; NULL: `ready` is */
    void (*ready)(void *user, int fd, unsigned events);
    void *user;
    int fd;
    unsigned events;
};

struct loan { /* what one engine is lent */
    ngx_queue_t link;
    weir_engine *engine; /* NULL until bound */
    ngx_event_t timer, soon;
};

static struct {
    ngx_log_t *log;
    ngx_queue_t loans;
    struct watch **watches; /* by descriptor */
    size_t room;
    bool started;
} host;

void wn_host_start(ngx_log_t *log)
{
    host.log = log;
    if (!host.started) {
        ngx_queue_init(&host.loans);
    }
    host.started = true;
}

/* ---- descriptors --------------------------------------------------------------------------------------- */

static void tell(ngx_event_t *event, unsigned what)
{
    ngx_connection_t *connection = event->data;
    struct watch *watch = connection->data;
    if (watch->loan == NULL)
        watch->ready(watch->user, watch->fd, what);
    else if (watch->loan->engine != NULL)
        (void)weir_on_ready(watch->loan->engine, watch->fd, what);
}

static void on_readable(ngx_event_t *event)
{
    tell(event, WEIR_READ);
}

static void on_writable(ngx_event_t *event)
{
    tell(event, WEIR_WRITE);
}

static bool reserve(size_t fd)
{
    size_t room = host.room > 0 ? host.room : 64;
    if (fd < host.room) return true;
    while (room <= fd) room *= 2;
    struct watch **grown = realloc(host.watches, room * sizeof(struct watch *));
    if (grown == NULL) return false;
    memset(grown + host.room, 0, (room - host.room) * sizeof(struct watch *));
    host.watches = grown;
    host.room = room;
    return true;
}

static void unpost(ngx_event_t *event)
{
    if (event->posted) {
        ngx_delete_posted_event(event); /* two statements: the braces are needed */
    }
}

static void forget(int fd)
{
    struct watch *watch = host.watches[fd];
    ngx_connection_t *connection = watch->connection;
    /* Not ngx_close_connection, which closes the descriptor; and not NGX_CLOSE_EVENT, which trusts that it will be. */
    if (connection->read->active || connection->write->active) (void)ngx_del_conn(connection, 0);
    unpost(connection->read);
    unpost(connection->write);
    connection->read->closed = 1;
    connection->write->closed = 1;
    ngx_free_connection(connection);
    connection->fd = (ngx_socket_t)-1;
    host.watches[fd] = NULL;
    free(watch);
}

static struct watch *begin(int fd)
{
    if (!reserve((size_t)fd)) return NULL;
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) return NULL;
    ngx_connection_t *connection = ngx_get_connection(fd, host.log);
    if (connection == NULL) { /* nginx has logged that worker_connections are not enough */
        free(watch);
        return NULL;
    }
    connection->data = watch;
    connection->log = connection->read->log = connection->write->log = host.log;
    connection->read->handler = on_readable;
    connection->write->handler = on_writable;
    connection->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    watch->connection = connection;
    watch->fd = fd;
    host.watches[fd] = watch;
    return watch;
}

/* Both directions always carry the same flag, or epoll would be told edge for the one and level for the other. */
static bool set_direction(ngx_event_t *event, ngx_int_t direction, bool wanted)
{
    if (wanted == (event->active != 0)) return true;
    return wanted ? ngx_add_event(event, direction, NGX_LEVEL_EVENT) == NGX_OK
                  : ngx_del_event(event, direction, 0) == NGX_OK;
}

static int set_watch(int fd, unsigned events, const struct watch *whose)
{
    struct watch *watch = fd >= 0 && (size_t)fd < host.room ? host.watches[fd] : NULL;
    if (fd < 0) return WEIR_EINVAL;
    if (events == 0) {
        if (watch != NULL) forget(fd);
        return WEIR_OK;
    }
    if (watch == NULL) watch = begin(fd);
    if (watch == NULL) return WEIR_ENOMEM;
    watch->loan = whose->loan;
    watch->ready = whose->ready;
    watch->user = whose->user;
    watch->events = events;
    if (set_direction(watch->connection->read, NGX_READ_EVENT, (events & WEIR_READ) != 0) &&
        set_direction(watch->connection->write, NGX_WRITE_EVENT, (events & WEIR_WRITE) != 0))
        return WEIR_OK;
    forget(fd);
    return WEIR_ESYS;
}

static int loan_watch(void *ctx, int fd, unsigned events)
{
    return set_watch(fd, events, &(struct watch){.loan = ctx});
}

/* nginx logs an alert for what epoll refuses. */
static bool can_be_watched(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

int wn_host_watch(void *ctx, int fd, unsigned events, void (*ready)(void *user, int fd, unsigned events),
                  void *user)
{
    (void)ctx;
    const struct watch *watch = fd >= 0 && (size_t)fd < host.room ? host.watches[fd] : NULL;
    if (watch != NULL && watch->loan != NULL) return WEIR_EINVAL; /* an engine's */
    if (watch == NULL && events != 0 && !can_be_watched(fd)) return WEIR_ESYS;
    return set_watch(fd, events, &(struct watch){.ready = ready, .user = user});
}

/* ---- time ---------------------------------------------------------------------------------------------- */

static uint64_t clock_in(clockid_t clock, uint64_t per_second)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * per_second + (uint64_t)now.tv_nsec / (1000000000 / per_second);
}

static uint64_t loan_now_ns(void *ctx)
{
    (void)ctx;
    return clock_in(CLOCK_MONOTONIC, 1000000000);
}

static uint64_t loan_wall_us(void *ctx)
{
    (void)ctx;
    return clock_in(CLOCK_REALTIME, 1000000);
}

static void on_timer(ngx_event_t *event)
{
    struct loan *loan = event->data;
    if (loan->engine != NULL) (void)weir_on_timer(loan->engine);
}

/* nginx puts its own time and process in front, and a line feed behind. A level that error_log does not let through costs
 * nothing here; nor does nginx tell whether it could write. */
static bool loan_log(void *ctx, weir_log_level level, const char *line, size_t length)
{
    static const ngx_uint_t levels[] = {NGX_LOG_NOTICE, NGX_LOG_WARN, NGX_LOG_ERR};
    (void)ctx;
    ngx_log_error(levels[level], host.log, 0, "weir: %*s", length, line);
    return true;
}

/* nginx counts milliseconds from the moment the loop last woke, so a timer may fire early by what has passed since; the
 * engine then arms it again. An armed timer is taken out first: nginx leaves one alone that moves by less than 300 ms. */
static void loan_arm(void *ctx, int64_t delay_ns)
{
    struct loan *loan = ctx;
    if (loan->timer.timer_set) ngx_del_timer(&loan->timer);
    unpost(&loan->soon);
    if (delay_ns == 0) {
        ngx_post_event((&loan->soon), &ngx_posted_next_events);
    } else if (delay_ns > 0) {
        ngx_add_timer(&loan->timer, (ngx_msec_t)((delay_ns + 999999) / 1000000));
    }
}

/* ---- loans --------------------------------------------------------------------------------------------- */

static void make_timer(ngx_event_t *event, struct loan *loan)
{
    event->handler = on_timer;
    event->data = loan;
    event->log = host.log;
    event->cancelable = 1;
}

/* init_worker_by_lua runs before our own start. The master has no connections, and its helpers do not stop us. */
static bool has_loop(void)
{
    return wn_is_worker() && ngx_cycle->connections != NULL;
}

int wn_host_lend(void *ctx, uint64_t seed, weir_host *hooks, void **out)
{
    (void)ctx;
    *out = NULL;
    if (!has_loop()) return WEIR_ESTATE;
    if (!host.started) wn_host_start(ngx_cycle->log);
    struct loan *loan = calloc(1, sizeof *loan);
    if (loan == NULL) return WEIR_ENOMEM;
    make_timer(&loan->timer, loan);
    make_timer(&loan->soon, loan);
    ngx_queue_insert_tail(&host.loans, &loan->link);
    *hooks = (weir_host){.ctx = loan,
                         .now_ns = loan_now_ns,
                         .wall_us = loan_wall_us,
                         .watch = loan_watch,
                         .arm = loan_arm,
                         .log = loan_log,
                         .seed = seed,
                         .scarce = "worker_connections of nginx"};
    *out = loan;
    return WEIR_OK;
}

void wn_host_bind(void *of, weir_engine *engine)
{
    struct loan *loan = of;
    loan->engine = engine;
}

void wn_host_take_back(void *of)
{
    struct loan *loan = of;
    if (loan->engine != NULL && loan->engine == wn_status_engine) wn_status_engine = NULL;
    loan_arm(loan, -1);
    for (size_t fd = 0; fd < host.room; fd++) {
        if (host.watches[fd] != NULL && host.watches[fd]->loan == loan) forget((int)fd);
    }
    ngx_queue_remove(&loan->link);
    free(loan);
}

void wn_host_drain(void)
{
    for (ngx_queue_t *at = ngx_queue_head(&host.loans); at != ngx_queue_sentinel(&host.loans);
         at = ngx_queue_next(at)) {
        struct loan *loan = ngx_queue_data(at, struct loan, link);
        if (loan->engine != NULL) weir_drain(loan->engine, 0);
    }
}
