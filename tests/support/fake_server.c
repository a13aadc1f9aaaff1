/* The scripted server; see fake_server.h. */
#include "support/fake_server.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake *current; /* the driver table has no room for a context before start() */

#define ORDER(f, n) ((f)->order[(f)->order_count++ % FAKE_EVENTS] = (n))

/* ---- host ---------------------------------------------------------------------------------------------------- */

static uint64_t host_now(void *ctx)
{
    return ((struct fake *)ctx)->now;
}

static uint64_t host_wall(void *ctx)
{
    return ((struct fake *)ctx)->wall_us + ((struct fake *)ctx)->now / 1000;
}

static int host_watch(void *ctx, int fd, unsigned events)
{
    (void)ctx;
    (void)fd;
    (void)events;
    return 0;
}

static void host_arm(void *ctx, int64_t delay_ns)
{
    struct fake *fake = ctx;
    fake->armed = delay_ns >= 0;
    if (fake->armed) fake->armed_at = fake->now + (uint64_t)delay_ns;
}

/* ---- driver --------------------------------------------------------------------------------------------------- */

static int driver_start(void **instance, const struct wr_driver_env *env, uint32_t connect_at_once, char *why)
{
    (void)connect_at_once;
    (void)why;
    current->env = *env;
    *instance = current;
    return WEIR_OK;
}

static void driver_stop(void *instance)
{
    (void)instance;
}

static int driver_target(void *instance, const struct wr_login *login, struct wr_target **out, char *why)
{
    (void)login;
    (void)why;
    *out = instance;
    return WEIR_OK;
}

static void driver_target_free(struct wr_target *target)
{
    (void)target;
}

static int driver_connect(void *instance, struct wr_target *target, uint64_t timeout_ns, void *owner)
{
    struct fake *fake = instance;
    (void)target;
    fake->connects_begun++;
    for (int i = 0; i < FAKE_LINKS; i++) {
        struct fake_connect *c = &fake->connects[i];
        if (c->used) continue;
        bool fail = fake->refuse || fake->mute || fake->identity || fake->connect_sqlstate[0] != '\0';
        *c = (struct fake_connect){owner, fake->now + (fake->mute ? timeout_ns : fake->connect_ns), true, fail};
        return WEIR_OK;
    }
    return WEIR_ENOMEM;
}

static void driver_forget(void *instance, void *owner)
{
    struct fake *fake = instance;
    for (int i = 0; i < FAKE_LINKS; i++) {
        if (fake->connects[i].used && fake->connects[i].owner == owner) fake->connects[i].used = false;
    }
}

static void driver_set_owner(struct wr_link *link, void *owner)
{
    ((struct fake_link *)(void *)link)->owner = owner;
}

static void count_segment(struct fake *fake, const struct wr_segment *segment)
{
    int *const counts[] = {&fake->singles, &fake->begins, NULL, &fake->commits, &fake->rollbacks, &fake->probes,
                           &fake->resets, &fake->xact_questions};
    if (counts[segment->kind] != NULL) (*counts[segment->kind])++;
    if (segment->kind == WR_SEGMENT_SINGLE && segment->count > 0) ORDER(fake, atoi(segment->statements[0].sql + 7));
}

static int driver_send(struct wr_link *of, const struct wr_segment *segment, struct wr_fault *fault)
{
    struct fake_link *link = (struct fake_link *)(void *)of;
    struct fake *fake = current;
    assert(link->open && !link->busy);
    if (link->is_idle_lost) {
        fault->lost = true;
        return WEIR_ESYS;
    }
    fake->sends++;
    count_segment(fake, segment);
    link->busy = true;
    link->cancelled = false;
    link->kind = segment->kind;
    link->statements = segment->count;
    link->answer = (struct fake_answer){.after_ns = fake->service_ns};
    if (fake->answer != NULL) fake->answer(fake, link, segment, &link->answer);
    link->due_at = link->answer.never ? UINT64_MAX : fake->now + link->answer.after_ns;
    return WEIR_OK;
}

static void driver_cancel(struct wr_link *of)
{
    struct fake_link *link = (struct fake_link *)(void *)of;
    current->cancels++;
    link->cancelled = true;
    if (current->cancel_ns == UINT64_MAX) return;   /* a cancel that has no effect */
    if (link->due_at > current->now + current->cancel_ns) link->due_at = current->now + current->cancel_ns;
}

static bool driver_peek(struct wr_link *of)
{
    return !current->peek_fails && !((struct fake_link *)(void *)of)->is_idle_lost;
}

static void driver_close(struct wr_link *of)
{
    struct fake_link *link = (struct fake_link *)(void *)of;
    assert(link->open);
    link->open = link->busy = false;
    current->opened--;
}

static uint32_t driver_pid(const struct wr_link *of)
{
    return (uint32_t)((const struct fake_link *)(const void *)of)->number;
}

const weir_driver *fake_driver(struct fake *fake)
{
    static const weir_driver driver = {"fake", driver_start, driver_stop, driver_target, driver_target_free,
                                       driver_connect, driver_forget, driver_set_owner, driver_send, driver_cancel,
                                       driver_peek, driver_close, driver_pid};
    current = fake;
    return &driver;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static size_t one(const void *handle)
{
    (void)handle;
    return 1;
}

static const char *column_name(const void *handle, size_t column)
{
    (void)handle;
    (void)column;
    return "n";
}

static uint32_t int4(const void *handle, size_t column)
{
    (void)handle;
    (void)column;
    return 23;
}

static const char *value(const void *handle, size_t row, size_t column, size_t *length)
{
    (void)row;
    (void)column;
    *length = strlen(handle);
    return handle;
}

static const char *tag(const void *handle)
{
    (void)handle;
    return "SELECT 1";
}

static uint64_t affected(const void *handle)
{
    (void)handle;
    return 1;
}

static size_t none(const void *handle)
{
    (void)handle;
    return 0;
}

static void release(void *handle)
{
    free(handle);
}

static const struct wr_result_ops ops = {one, one, column_name, int4, value, tag, affected, none, column_name, release};

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static void after_transaction(struct fake_link *link, const struct wr_reply *reply)
{
    static const char ends[] = {[WR_SEGMENT_SINGLE] = 'I', [WR_SEGMENT_BEGIN] = 'T', [WR_SEGMENT_MORE] = 'T',
                                [WR_SEGMENT_COMMIT] = 'I', [WR_SEGMENT_ROLLBACK] = 'I', [WR_SEGMENT_PROBE] = 'I',
                                [WR_SEGMENT_RESET] = 'I', [WR_SEGMENT_XACT_STATUS] = 'I'};
    link->transaction = ends[link->kind];
    bool in_unit = link->kind == WR_SEGMENT_BEGIN || link->kind == WR_SEGMENT_MORE;
    if (reply->failed && in_unit) link->transaction = 'E';
}

static void answer_now(struct fake *fake, struct fake_link *link)
{
    const struct fake_answer *a = &link->answer;
    struct weir_result results[64] = {{NULL, NULL}};
    struct wr_reply reply = {.results = results, .xid = a->xid, .heal = a->heal, .dirty = a->dirty, .xact = a->xact};
    bool cancelled = link->cancelled && fake->cancel_ns != UINT64_MAX && link->answer.after_ns > fake->cancel_ns;
    const char *sqlstate = a->sqlstate[0] != '\0' ? a->sqlstate : cancelled ? "57014" : "";
    reply.failed = a->failed || a->lost || sqlstate[0] != '\0';
    if (reply.failed) {
        snprintf(reply.fault.sqlstate, sizeof reply.fault.sqlstate, "%s", sqlstate);
        snprintf(reply.fault.severity, sizeof reply.fault.severity, "%s", a->lost ? "FATAL" : "ERROR");
        snprintf(reply.fault.message, sizeof reply.fault.message, "%s", a->lost ? "connection lost" : "made to fail");
        reply.fault.lost = a->lost;
    } else {
        reply.committed = link->kind == WR_SEGMENT_COMMIT && !a->commit_says_rollback;
        reply.count = link->statements;
        for (size_t i = 0; i < reply.count; i++) results[i] = (struct weir_result){&ops, strdup("1")};
        fake->statements_run += (int)reply.count;
    }
    reply.xid_asked = link->kind == WR_SEGMENT_BEGIN || link->kind == WR_SEGMENT_MORE;
    after_transaction(link, &reply);
    reply.transaction = link->transaction;
    link->busy = false;
    link->due_at = 0;
    fake->env.settled(link->owner, &reply);
    for (size_t i = 0; i < 64; i++) wr_result_release(&results[i]);
}

static void link_ready(void *arg, unsigned events)
{
    struct fake_link *link = arg;
    (void)events;
    if (link->busy) {
        answer_now(current, link);
        return;
    }
    struct wr_fault fault = {.lost = true, .sqlstate = "57P01", .message = "terminating connection"};
    current->env.lost(link->owner, &fault);
}

static void connect_done(void *arg, unsigned events)
{
    struct fake_connect *c = arg;
    struct fake *fake = current;
    (void)events;
    c->used = false;
    if (c->fail) {
        struct wr_fault fault = {.unreachable = fake->refuse || fake->mute, .identity = fake->identity, .lost = true};
        snprintf(fault.sqlstate, sizeof fault.sqlstate, "%s", fake->connect_sqlstate);
        snprintf(fault.message, sizeof fault.message, "%s", fake->mute ? "timeout" : "connection refused");
        fake->env.connected(c->owner, NULL, NULL, &fault);
        return;
    }
    for (int i = 0; i < FAKE_LINKS; i++) {
        struct fake_link *link = &fake->links[i];
        if (link->open) continue;
        *link = (struct fake_link){.open = true, .owner = c->owner, .number = i, .transaction = 'I'};
        fake->opened++;
        struct wr_greeting greeting = {.system_id = fake->system_id, .timeline = fake->timeline,
                                       .server_version = 150000, .backend_pid = (uint32_t)i + 1,
                                       .connect_ns = fake->connect_ns};
        fake->env.connected(c->owner, (struct wr_link *)(void *)link, &greeting, NULL);
        return;
    }
    abort();
}

/* ---- the virtual loop ------------------------------------------------------------------------------------------------ */

/* All events reach the engine as readiness of one descriptor, whose handler is set for the occasion. */
static void deliver(struct fake *fake, void (*ready)(void *, unsigned), void *arg)
{
    fake->env.watch(fake->engine, 3, WEIR_READ, ready, arg);
    int code = weir_on_ready(fake->engine, 3, WEIR_READ);
    assert(code == WEIR_OK);
    (void)code;
}

static bool earliest(struct fake *fake, uint64_t *at, struct fake_link **link, struct fake_connect **connect)
{
    *at = UINT64_MAX;
    *link = NULL;
    *connect = NULL;
    for (int i = 0; i < FAKE_LINKS; i++) {
        struct fake_link *l = &fake->links[i];
        struct fake_connect *c = &fake->connects[i];
        if (l->open && l->busy && l->due_at < *at) {
            *at = l->due_at;
            *link = l;
            *connect = NULL;
        }
        if (c->used && c->due_at < *at) {
            *at = c->due_at;
            *link = NULL;
            *connect = c;
        }
    }
    return *at != UINT64_MAX;
}

static bool step(struct fake *fake, uint64_t until)
{
    uint64_t at;
    struct fake_link *link;
    struct fake_connect *connect;
    bool any = earliest(fake, &at, &link, &connect);
    if (fake->armed && (!any || fake->armed_at <= at)) {
        if (fake->armed_at > until) return false;
        if (fake->armed_at > fake->now) fake->now = fake->armed_at;
        fake->armed = false;
        weir_on_timer(fake->engine);
        return true;
    }
    if (!any || at > until) return false;
    if (at > fake->now) fake->now = at;
    if (link != NULL) {
        deliver(fake, link_ready, link);
    } else {
        deliver(fake, connect_done, connect);
    }
    return true;
}

void fake_run(struct fake *fake, uint64_t ns)
{
    uint64_t until = fake->now + ns;
    long steps = 0;
    while (step(fake, until)) {
        if (++steps > 10000000) abort();   /* a loop that does not move the clock */
    }
    fake->now = until;
}

void fake_crash(struct fake *fake)
{
    for (int i = 0; i < FAKE_LINKS; i++) {
        struct fake_link *link = &fake->links[i];
        if (!link->open) continue;
        if (link->busy) {
            link->answer = (struct fake_answer){.lost = true};
            link->due_at = fake->now;
        } else {
            link->is_idle_lost = true;
            deliver(fake, link_ready, link);
        }
    }
}

void fake_init(struct fake *fake)
{
    memset(fake, 0, sizeof *fake);
    fake->now = FAKE_MS(1000000);
    fake->wall_us = 1700000000000000u;
    fake->service_ns = FAKE_MS(1);
    fake->connect_ns = FAKE_MS(2);
    fake->cancel_ns = FAKE_MS(3);
    fake->system_id = 42;
    fake->timeline = 1;
    fake->host = (weir_host){fake, host_now, host_wall, host_watch, host_arm, NULL, 7};
}

void fake_options(weir_options *options)
{
    static const weir_backend backends[] = {{.name = "primary", .conninfo = "host=nowhere"}};
    static const weir_client clients[] = {
        {.name = "service", .kind = WEIR_SERVICE, .user = "app_service", .bypass_rls = true, .max = 2},
        {.name = "anon", .kind = WEIR_ANON, .user = "app_anon", .role = "web_anon", .max = 2}};
    weir_options_defaults(options);
    options->name = "test";
    options->backends = backends;
    options->backend_count = 1;
    options->clients = clients;
    options->client_count = 2;
    options->health_interval_ns = 0;
}

void fake_open(struct fake *fake, const weir_options *options)
{
    char why[WEIR_WHY_MAX];
    int code = weir_open(&fake->engine, options, &fake->host, fake_driver(fake), why);
    if (code != WEIR_OK) {
        fprintf(stderr, "fake_open: %s\n", why);
        abort();
    }
}

void fake_assert_at_rest(struct fake *fake)
{
    weir_held held;
    weir_held_now(fake->engine, &held);
    if (held.calls + held.in_flight + held.leased + held.waiting + held.timers + held.canceling == 0) return;
    fprintf(stderr, "not at rest: %zu calls, %zu in flight, %zu leased, %zu waiting, %zu timers, %zu canceling\n", held.calls,
            held.in_flight, held.leased, held.waiting, held.timers, held.canceling);
    abort();
}

void fake_close(struct fake *fake)
{
    fake_assert_at_rest(fake);
    weir_free(fake->engine);
    fake->engine = NULL;
    if (fake->opened != 0) {
        fprintf(stderr, "%d links left open\n", fake->opened);
        abort();
    }
}
