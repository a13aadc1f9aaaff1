/* The scripted server; see fake_server.h. */
#include "support/fake_server.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake *current; /* the driver table has no room for a context before start() */

enum { DOORBELL = 3 };

#define ORDER(f, n) ((f)->order[(f)->order_count++ % FAKE_EVENTS] = (n))

/* ---- host ------------------------------------------------------------------------------------ */

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

/* ---- driver ---------------------------------------------------------------------------------- */

/* All events reach the engine as readiness of one descriptor. */
static void ring(void *arg, unsigned events)
{
    struct fake *fake = arg;
    fake->ready(fake->ready_arg, events);
}

static int driver_start(const weir_driver *self, void **instance, const struct wr_driver_env *env,
                        uint32_t connect_at_once, char *why)
{
    (void)self;
    (void)connect_at_once;
    (void)why;
    current->env = *env;
    *instance = current;
    return env->watch(env->engine, DOORBELL, WEIR_READ, ring, current);
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
        *c = (struct fake_connect){fake, owner, fake->now + (fake->mute ? timeout_ns : fake->connect_ns),
                                   true, fail};
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

static void count_segment(struct fake *fake, const struct wr_segment *segment)
{
    int *const counts[] = {&fake->singles,   &fake->begins, NULL,          &fake->commits,
                           &fake->rollbacks, &fake->probes, &fake->resets, &fake->xact_questions};
    if (counts[segment->kind] != NULL) (*counts[segment->kind])++;
    if (segment->kind == WR_SEGMENT_SINGLE && segment->count > 0)
        ORDER(fake, atoi(segment->statements[0].sql + 7));
}

/* The engine's duty: only what the transaction's state allows, and no borrower on what another left behind. */
static void check_order(const struct fake_link *link, const struct wr_segment *segment)
{
    enum wr_segment_kind kind = segment->kind;
    bool inside = kind == WR_SEGMENT_MORE || kind == WR_SEGMENT_COMMIT || kind == WR_SEGMENT_ROLLBACK;
    bool fits = inside ? link->transaction != 'I' : link->transaction == 'I';
    bool borrows = kind == WR_SEGMENT_SINGLE || kind == WR_SEGMENT_BEGIN;
    bool joins =
        segment->shared && link->at_work.shared && !link->cancelling && link->behind_count < FAKE_SHARE;
    if (link->open && (!link->busy || joins) && fits && !(borrows && link->dirty && link->fake->books))
        return;
    fprintf(stderr, "segment %d on link %d: open %d, busy %d, transaction %c, dirty %d\n", (int)kind,
            link->number, link->open, link->busy, link->transaction, link->dirty);
    abort();
}

static void note(struct fake *fake, uint64_t what)
{
    fake->trace = (fake->trace ^ what ^ fake->now * 31) * 1099511628211u;
}

static void remember_numbers(struct fake_flight *flight, const struct wr_segment *segment)
{
    flight->number_count = 0;
    for (size_t i = 0; i < segment->count && i < FAKE_PENDING; i++) {
        flight->numbers[flight->number_count++] = atoi(segment->statements[i].sql + 7);
    }
}

static void begin_work(struct fake_link *link)
{
    const struct fake_answer *answer = &link->at_work.answer;
    link->busy = true;
    link->cancelled = false;
    link->due_at = answer->never ? UINT64_MAX : link->fake->now + answer->after_ns;
}

/* The server takes up what has been sent behind the segment it is done with. */
static void next_work(struct fake_link *link)
{
    link->busy = link->cancelling = false;
    link->due_at = 0;
    if (link->behind_count == 0) return;
    link->at_work = link->behind[0];
    memmove(link->behind, link->behind + 1, (size_t)--link->behind_count * sizeof *link->behind);
    begin_work(link);
}

static bool driver_has_room(const struct wr_link *of)
{
    const struct fake_link *link = (const struct fake_link *)(const void *)of;
    return !link->fake->full && (!link->busy || (link->at_work.shared && !link->cancelling));
}

static int driver_send(struct wr_link *of, const struct wr_segment *segment, struct wr_fault *fault)
{
    struct fake_link *link = (struct fake_link *)(void *)of;
    struct fake *fake = link->fake;
    check_order(link, segment);
    if (link->is_idle_lost || fake->send_fails) {
        fault->lost = true;
        return WEIR_ESYS;
    }
    fake->sends++;
    note(fake, (uint64_t)segment->kind << 32 | (uint64_t)link->number);
    count_segment(fake, segment);
    struct fake_flight *flight = link->busy ? &link->behind[link->behind_count++] : &link->at_work;
    if (link->behind_count + 1 > fake->most_in_flight) fake->most_in_flight = link->behind_count + 1;
    *flight = (struct fake_flight){.kind = segment->kind,
                                   .statements = segment->count,
                                   .want_xid = segment->want_xid,
                                   .shared = segment->shared,
                                   .answer = {.after_ns = fake->service_ns}};
    remember_numbers(flight, segment);
    if (fake->books && segment->want_xid && !segment->readonly) {
        if (link->xid == 0) link->xid = ++fake->last_xid;
        fake->xids[link->xid % FAKE_IDS] = (struct fake_xid){WR_XACT_IN_PROGRESS, UINT64_MAX};
        flight->answer.xid = link->xid;
    }
    if (fake->books && segment->kind == WR_SEGMENT_XACT_STATUS) {
        const struct fake_xid *x = &fake->xids[segment->xid % FAKE_IDS];
        flight->answer.xact = fake->now < x->end_at ? WR_XACT_IN_PROGRESS : x->end;
    }
    if (fake->answer != NULL) fake->answer(fake, link, segment, &flight->answer);
    uint64_t limit = segment->timeout_ms * 1000000u;
    if (fake->watch_timeout && limit != 0 && (flight->answer.never || flight->answer.after_ns > limit)) {
        flight->answer = (struct fake_answer){.after_ns = limit, .sqlstate = "57014"};
    }
    if (flight == &link->at_work) begin_work(link);
    return WEIR_OK;
}

/* The answer waits for the cancel's own end, so that no cancel ever hits the next segment. */
static void driver_cancel(struct wr_link *of)
{
    struct fake_link *link = (struct fake_link *)(void *)of;
    struct fake *fake = link->fake;
    fake->cancels++;
    if (fake->cancel_ns == UINT64_MAX || !link->busy) return; /* a cancel that has no effect */
    uint64_t confirmed = fake->now + fake->cancel_ns;
    link->cancelling = true;
    link->cancelled = link->due_at > confirmed;
    link->due_at = confirmed;
}

static bool driver_peek(struct wr_link *of)
{
    struct fake_link *link = (struct fake_link *)(void *)of;
    return !link->fake->peek_fails && !link->is_idle_lost;
}

/* ---- books: what took effect ----------------------------------------------------------------- */

static void end_transaction(struct fake_link *link, bool committed, uint64_t end_at)
{
    struct fake *fake = link->fake;
    if (committed) {
        for (int i = 0; i < link->pending_count; i++) fake->effects[link->pending[i] % FAKE_IDS]++;
    }
    if (link->xid != 0) {
        fake->xids[link->xid % FAKE_IDS] =
            (struct fake_xid){committed ? WR_XACT_COMMITTED : WR_XACT_ABORTED, end_at};
    }
    link->pending_count = 0;
    link->xid = 0;
}

static void add_pending(struct fake_link *link)
{
    for (int i = 0; i < link->at_work.number_count && link->pending_count < FAKE_PENDING; i++) {
        link->pending[link->pending_count++] = link->at_work.numbers[i];
    }
}

/* The segment on the wire has run its course: what did it do? */
static void keep_books(struct fake_link *link, bool succeeded)
{
    bool single = link->at_work.kind == WR_SEGMENT_SINGLE, commit = link->at_work.kind == WR_SEGMENT_COMMIT;
    if (single || link->at_work.kind == WR_SEGMENT_BEGIN || link->at_work.kind == WR_SEGMENT_MORE)
        add_pending(link);
    if (single || commit) {
        end_transaction(link, succeeded && !link->at_work.answer.commit_says_rollback, 0);
    } else if (link->at_work.kind == WR_SEGMENT_ROLLBACK) {
        end_transaction(link, false, 0);
    } else if (link->at_work.kind == WR_SEGMENT_RESET && succeeded) {
        link->dirty = false;
    }
}

/* The link is gone. A dead client does not stop its COMMIT. */
static void close_books(struct fake_link *link)
{
    bool last =
        link->busy && (link->at_work.kind == WR_SEGMENT_SINGLE || link->at_work.kind == WR_SEGMENT_COMMIT);
    bool takes_effect = last && link->at_work.answer.survives && link->at_work.answer.sqlstate[0] == '\0' &&
                        !link->at_work.answer.failed;
    if (link->busy && link->at_work.kind == WR_SEGMENT_SINGLE) add_pending(link);
    end_transaction(link, takes_effect, link->fake->now + link->at_work.answer.in_progress_ns);
}

static void driver_close(struct wr_link *of)
{
    struct fake_link *link = (struct fake_link *)(void *)of;
    assert(link->open);
    note(link->fake, 1000 + (uint64_t)link->number);
    close_books(link);
    link->open = link->busy = false;
    link->fake->opened--;
}

static uint32_t driver_pid(const struct wr_link *of)
{
    return (uint32_t)((const struct fake_link *)(const void *)of)->number;
}

const weir_driver *fake_driver(struct fake *fake)
{
    static const weir_driver driver = {"fake",
                                       driver_start,
                                       driver_stop,
                                       driver_target,
                                       driver_target_free,
                                       driver_connect,
                                       driver_forget,
                                       driver_send,
                                       driver_has_room,
                                       driver_cancel,
                                       driver_peek,
                                       driver_close,
                                       driver_pid,
                                       NULL,
                                       NULL};
    current = fake;
    return &driver;
}

/* ---- answers --------------------------------------------------------------------------------- */

static void after_transaction(struct fake_link *link, const struct wr_reply *reply)
{
    static const char ends[] = {
        [WR_SEGMENT_SINGLE] = 'I', [WR_SEGMENT_BEGIN] = 'T',      [WR_SEGMENT_MORE] = 'T',
        [WR_SEGMENT_COMMIT] = 'I', [WR_SEGMENT_ROLLBACK] = 'I',   [WR_SEGMENT_PROBE] = 'I',
        [WR_SEGMENT_RESET] = 'I',  [WR_SEGMENT_XACT_STATUS] = 'I'};
    link->transaction = ends[link->at_work.kind];
    bool in_unit = link->at_work.kind == WR_SEGMENT_BEGIN || link->at_work.kind == WR_SEGMENT_MORE;
    if (reply->failed && in_unit) link->transaction = 'E';
}

static void fill_fault(const struct fake_link *link, struct wr_reply *reply)
{
    const struct fake_answer *a = &link->at_work.answer;
    bool lost = a->lost && !link->cancelled;
    bool aborted = link->at_work.kind == WR_SEGMENT_MORE && link->transaction == 'E';
    const char *sqlstate = aborted ? "25P02" : link->cancelled ? "57014" : a->sqlstate;
    reply->failed = a->failed || a->heal || lost || sqlstate[0] != '\0';
    if (!reply->failed) return;
    snprintf(reply->fault.sqlstate, sizeof reply->fault.sqlstate, "%s", sqlstate);
    snprintf(reply->fault.severity, sizeof reply->fault.severity, "%s", lost ? "FATAL" : "ERROR");
    snprintf(reply->fault.message, sizeof reply->fault.message, "%s",
             lost ? "connection lost" : "made to fail");
    reply->fault.lost = lost;
}

static void answer_now(struct fake *fake, struct fake_link *link)
{
    const struct fake_answer answer = link->at_work.answer, *a = &answer;
    struct weir_result results[64] = {{NULL, NULL}};
    struct wr_reply reply = {
        .results = results, .xid = a->xid, .heal = a->heal && !a->lost, .dirty = a->dirty, .xact = a->xact};
    fill_fault(link, &reply);
    if (!reply.failed) {
        reply.committed = link->at_work.kind == WR_SEGMENT_COMMIT && !a->commit_says_rollback;
        reply.count = link->at_work.statements;
        for (size_t i = 0; i < reply.count; i++) results[i] = fake_result(fake);
        fake->statements_run += (int)reply.count;
    }
    reply.xid_asked = !reply.failed && link->at_work.want_xid && !link->at_work.answer.no_xid_answer;
    note(fake, 2000 + (uint64_t)link->number * 2 + reply.failed);
    if (reply.fault.lost) {
        close_books(link);
    } else {
        link->dirty = link->dirty || (a->dirty && !a->heal);
        keep_books(link, !reply.failed);
    }
    after_transaction(link, &reply);
    if (a->escapes) link->transaction = 'I';
    if (a->heal) { /* the driver has rolled back */
        end_transaction(link, false, 0);
        link->transaction = 'I';
    }
    reply.transaction = reply.fault.lost ? 0 : link->transaction;
    if (reply.fault.lost) link->behind_count = 0; /* gone with it, and not told one by one */
    next_work(link);
    fake->env.settled(link->owner, &reply);
    for (size_t i = 0; i < 64; i++) wr_result_release(&results[i]);
}

static void link_ready(void *arg, unsigned events)
{
    struct fake_link *link = arg;
    (void)events;
    if (link->busy) {
        answer_now(link->fake, link);
        return;
    }
    struct wr_fault fault = {.lost = true, .sqlstate = "57P01", .message = "terminating connection"};
    link->fake->env.lost(link->owner, &fault);
}

static void connect_done(void *arg, unsigned events)
{
    struct fake_connect *c = arg;
    struct fake *fake = c->fake;
    (void)events;
    c->used = false;
    if (c->fail) {
        struct wr_fault fault = {.unreachable = fake->refuse || fake->mute,
                                 .identity = fake->identity,
                                 .lost = true};
        snprintf(fault.sqlstate, sizeof fault.sqlstate, "%s", fake->connect_sqlstate);
        snprintf(fault.message, sizeof fault.message, "%s", fake->mute ? "timeout" : "connection refused");
        fake->env.connected(c->owner, NULL, NULL, &fault);
        return;
    }
    for (int i = 0; i < FAKE_LINKS; i++) {
        struct fake_link *link = &fake->links[i];
        if (link->open) continue;
        *link = (struct fake_link){
            .fake = fake, .open = true, .owner = c->owner, .number = i, .transaction = 'I'};
        fake->opened++;
        struct wr_greeting greeting = {.system_id = fake->system_id,
                                       .life = fake->life,
                                       .timeline = fake->timeline,
                                       .server_version = 150000,
                                       .backend_pid = (uint32_t)i + 1,
                                       .connect_ns = fake->connect_ns};
        fake->env.connected(c->owner, (struct wr_link *)(void *)link, &greeting, NULL);
        return;
    }
    abort();
}

/* ---- the virtual loop ------------------------------------------------------------------------ */

static void deliver(struct fake *fake, void (*ready)(void *, unsigned), void *arg)
{
    fake->ready = ready;
    fake->ready_arg = arg;
    int code = weir_on_ready(fake->engine, DOORBELL, WEIR_READ);
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
        if (++steps > 10000000) abort(); /* a loop that does not move the clock */
    }
    fake->now = until;
}

void fake_crash(struct fake *fake)
{
    for (int i = 0; i < FAKE_LINKS; i++) {
        struct fake_link *link = &fake->links[i];
        if (!link->open) continue;
        if (link->busy) {
            link->at_work.answer.lost = true;
            link->cancelled = false;
            link->due_at = fake->now;
        } else {
            link->is_idle_lost = true;
            deliver(fake, link_ready, link);
        }
    }
}

static void link_notified(void *arg, unsigned events)
{
    struct fake_link *link = arg;
    (void)events;
    link->fake->env.notified(link->owner, link->fake->channel, link->fake->payload, 4711);
}

int fake_notify(struct fake *fake, const char *channel, const char *payload)
{
    int heard = 0;
    fake->channel = channel;
    fake->payload = payload;
    for (int i = 0; i < FAKE_LINKS; i++) {
        struct fake_link *link = &fake->links[i];
        if (!link->open || link->busy) continue;
        deliver(fake, link_notified, link);
        heard++;
    }
    return heard;
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
    fake->host = (weir_host){.ctx = fake,
                             .now_ns = host_now,
                             .wall_us = host_wall,
                             .watch = host_watch,
                             .arm = host_arm,
                             .seed = 7};
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
    fprintf(stderr,
            "not at rest: %zu calls, %zu in flight, %zu leased, %zu waiting, %zu timers, %zu canceling\n",
            held.calls, held.in_flight, held.leased, held.waiting, held.timers, held.canceling);
    abort();
}

void fake_close(struct fake *fake)
{
    fake_assert_at_rest(fake);
    fake_free(fake);
}

void fake_free(struct fake *fake)
{
    weir_free(fake->engine);
    fake->engine = NULL;
    if (fake->opened != 0) {
        fprintf(stderr, "%d links left open\n", fake->opened);
        abort();
    }
}
