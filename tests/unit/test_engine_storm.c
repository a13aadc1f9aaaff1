/* A random storm in virtual time: calls and units over two clients and two backends, while the server fails
 * in every way it knows and owners cancel, free and submit at random moments. After each storm the books are
 * compared: what the server did against what the engine said. A failing seed is printed; run the program
 * with it to see it alone. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEEDS = 320, ITEMS = 220, STEPS_MAX = 3, GRACE_MS = 100 };

struct storm;

struct item { /* a call or unit and what its owner saw of it */
    struct storm *storm;
    weir_call *call;         /* NULL: freed */
    int number, steps, sent; /* its statements are number .. number + steps - 1; sent in this attempt */
    bool unit, readonly, idempotent, ended, told, attempted;
    uint64_t deadline;
    weir_code code;
    weir_outcome outcome;
};

struct storm {
    struct fake fake;
    weir_options options;
    weir_backend backends[2];
    weir_client clients[2];
    uint64_t seed, random;
    uint64_t lag_ns; /* most that the loop ever stood still */
    int rough;       /* percent of answers that are not what one wishes */
    bool calm, closing;
    struct item items[ITEMS];
    int count, numbers;
};

static struct storm storm;

#define EXPECT(s, condition)                                                                                 \
    do {                                                                                                     \
        if (!(condition)) fail_seed(s, #condition, __LINE__);                                                \
    } while (0)

static void fail_seed(const struct storm *s, const char *condition, int line)
{
    fprintf(stderr, "seed %llu, line %d, at %.3f ms: not so: %s\n", (unsigned long long)s->seed, line,
            (double)s->fake.now / 1e6, condition);
    fail();
}

static void aborted(int signal_number)
{
    (void)signal_number;
    fprintf(stderr, "in seed %llu\n", (unsigned long long)storm.seed);
}

/* ---- chance ---------------------------------------------------------------------------------- */

static uint64_t draw(struct storm *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random * 2685821657736338717u >> 11;
}

static uint64_t below(struct storm *s, uint64_t n)
{
    return draw(s) % n;
}

static bool chance(struct storm *s, uint64_t percent)
{
    return below(s, 100) < percent;
}

/* ---- the server's whims ---------------------------------------------------------------------- */

static void pick_sqlstate(struct storm *s, char *sqlstate)
{
    static const char *const states[] = {"40001", "40P01", "23505", "22012", "42601", "57014",
                                         "55P03", "53200", "53100", "25006", "57P01", "0A000",
                                         "XX000", "26000", "40003", "ZZ999", "08006", "53400"};
    memcpy(sqlstate, states[below(s, sizeof states / sizeof *states)], 6);
}

static void pick_time(struct storm *s, struct fake_answer *a)
{
    uint64_t kind = below(s, 100);
    a->after_ns = FAKE_MS(1) / 5 + below(s, FAKE_MS(5));
    if (kind < 5) a->after_ns = FAKE_MS(20) + below(s, FAKE_MS(400));
    if (kind == 5) a->after_ns = FAKE_MS(5000);
    if (kind == 6) a->never = true;
}

static void pick_failure(struct storm *s, enum wr_segment_kind kind, struct fake_answer *a)
{
    bool starts = kind == WR_SEGMENT_SINGLE || kind == WR_SEGMENT_BEGIN;
    switch (below(s, 8)) {
    case 0:
    case 1:
        a->lost = true;
        break;
    case 2:
        a->heal = starts;
        break;
    case 3:
        a->commit_says_rollback = kind == WR_SEGMENT_COMMIT;
        break;
    default:
        pick_sqlstate(s, a->sqlstate);
        break;
    }
    if (kind == WR_SEGMENT_XACT_STATUS && a->sqlstate[0] == '\0') a->xact = WR_XACT_FORGOTTEN;
}

static void answer(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                   struct fake_answer *a)
{
    struct storm *s = fake->user;
    (void)link;
    if (s->calm) return;
    pick_time(s, a);
    a->survives = chance(s, 50);
    a->in_progress_ns = chance(s, 50) ? below(s, FAKE_MS(300)) : 0;
    a->dirty = chance(s, 4) && segment->count > 0;
    if (chance(s, (uint64_t)s->rough)) pick_failure(s, segment->kind, a);
}

/* ---- the owners' whims ----------------------------------------------------------------------- */

static void submit_one(struct storm *s);

static struct item *anyone(struct storm *s)
{
    return s->count == 0 ? NULL : &s->items[below(s, (uint64_t)s->count)];
}

static void look_at_end(struct item *item)
{
    struct storm *s = item->storm;
    const weir_error *error = weir_call_error(item->call);
    EXPECT(s, !item->ended);
    item->ended = true;
    item->code = error == NULL ? WEIR_CALL_OK : error->code;
    item->outcome = error == NULL ? WEIR_OUTCOME_COMMITTED : error->outcome;
    EXPECT(s, error == NULL || error->outcome == WEIR_OUTCOME_UNKNOWN || error->class_ != WEIR_CLASS_UNKNOWN);
    EXPECT(s, error == NULL || error->message[0] != '\0');
}

static void free_item(struct item *item)
{
    if (item->call == NULL) return;
    if (!item->ended && weir_call_status(item->call) == WEIR_ENDED) look_at_end(item);
    weir_call *call = item->call;
    item->call = NULL;
    weir_call_free(call);
}

static void send_next(struct item *item)
{
    char sql[32];
    snprintf(sql, sizeof sql, "select %d", item->number + item->sent);
    weir_statement statement = {.sql = sql};
    item->attempted = true;
    EXPECT(item->storm, weir_unit_send(item->call, &statement, 1, NULL) == WEIR_OK);
    item->sent++;
}

/* A unit's owner gets to work: sends what is next, or ends. */
static void work(struct item *item)
{
    struct storm *s = item->storm;
    weir_status status = weir_call_status(item->call);
    bool failed = weir_call_error(item->call) != NULL;
    if (status != WEIR_READY && status != WEIR_REPLIED) return;
    if (status == WEIR_READY) item->sent = 0;
    if (failed && chance(s, 80)) {
        EXPECT(s, weir_unit_finish(item->call, WEIR_FAILED) == WEIR_OK);
    } else if (chance(s, 4)) {
        EXPECT(s, weir_unit_finish(item->call, WEIR_ROLLBACK) == WEIR_OK);
    } else if (item->sent < item->steps) {
        send_next(item);
    } else {
        EXPECT(s, weir_unit_finish(item->call, WEIR_COMMIT) == WEIR_OK);
    }
}

static void meddle(struct storm *s)
{
    struct item *other = anyone(s);
    uint64_t what = below(s, 20);
    if (other == NULL || other->call == NULL) return;
    if (what == 0) {
        free_item(other);
    } else if (what == 1) {
        weir_call_cancel(other->call);
    } else if (what < 4) {
        submit_one(s);
    } else if (what < 10) {
        work(other);
    }
}

static void hear(void *user, weir_call *call)
{
    struct item *item = user;
    struct storm *s = item->storm;
    EXPECT(s, item->call == call && !item->told);
    EXPECT(s, weir_call_status(call) != WEIR_WAITING);
    if (weir_call_status(call) == WEIR_ENDED) {
        item->told = true;
        EXPECT(s, s->fake.now <= item->deadline + FAKE_MS(GRACE_MS) + s->lag_ns);
        if (!item->ended) look_at_end(item);
        if (chance(s, 60)) free_item(item);
    } else if (chance(s, 80)) {
        work(item);
    }
    meddle(s);
}

static weir_request request_of(struct storm *s, struct item *item)
{
    static const char *const contexts[] = {"GET /a?x=1", "POST /b", "nightly"};
    bool anon = chance(s, 50);
    weir_request request = {.client = anon ? "anon" : "service",
                            .claims = anon ? "{}" : NULL,
                            .context = contexts[below(s, 3)],
                            .readonly = item->readonly,
                            .idempotent = item->idempotent,
                            .timeout_ns = FAKE_MS(20) + below(s, FAKE_MS(1500)),
                            .notify = hear,
                            .user = item};
    if (chance(s, 30)) request.backend = chance(s, 50) ? "primary" : "replica";
    item->deadline = s->fake.now + request.timeout_ns;
    return request;
}

static void submit_one(struct storm *s)
{
    if (s->count == ITEMS || s->closing) return;
    struct item *item = &s->items[s->count++];
    *item = (struct item){.storm = s,
                          .number = s->numbers,
                          .unit = chance(s, 50),
                          .readonly = chance(s, 40),
                          .idempotent = chance(s, 20),
                          .steps = 1 + (int)below(s, STEPS_MAX)};
    s->numbers += item->steps;
    weir_request request = request_of(s, item);
    char sql[STEPS_MAX][32];
    weir_statement statements[STEPS_MAX];
    for (int i = 0; i < item->steps; i++) {
        snprintf(sql[i], sizeof sql[i], "select %d", item->number + i);
        statements[i] = (weir_statement){.sql = sql[i]};
    }
    int code = item->unit ? weir_begin(s->fake.engine, &request, &item->call, NULL)
                          : weir_submit(s->fake.engine, &request, statements, (size_t)item->steps,
                                        &item->call, NULL);
    EXPECT(s, code == WEIR_OK && item->call != NULL);
}

/* ---- the world ------------------------------------------------------------------------------- */

static void change_the_world(struct storm *s)
{
    struct fake *f = &s->fake;
    switch (below(s, 16)) {
    case 0:
        fake_crash(f);
        break;
    case 1:
        fake_crash(f);
        f->timeline++;
        f->refuse = true;
        break;
    case 2:
        f->refuse = true;
        break;
    case 3:
        f->mute = true;
        break;
    case 4:
        memcpy(f->connect_sqlstate, "53300", 6);
        break;
    case 5:
        f->peek_fails = true;
        break;
    case 6:
        f->send_fails = true;
        break;
    case 7:
        f->cancel_ns = chance(s, 50) ? UINT64_MAX : FAKE_MS(3);
        break;
    case 8:
        weir_pause(f->engine, NULL, true, NULL);
        break;
    case 9:
        weir_force_breaker(f->engine, NULL, (weir_breaker_state)(WEIR_FORCED_OPEN + below(s, 4)), NULL);
        break;
    case 10:
        f->identity = chance(s, 30);
        break;
    case 11:
        f->now += below(s, s->lag_ns + 1);
        break;
    default:
        f->refuse = f->mute = f->peek_fails = f->send_fails = f->identity = false;
        f->connect_sqlstate[0] = '\0';
        weir_pause(f->engine, NULL, false, NULL);
        weir_force_breaker(f->engine, NULL, WEIR_CLOSED, NULL);
        break;
    }
}

static void blow(struct storm *s)
{
    for (int i = 0; i < 400; i++) {
        uint64_t what = below(s, 100);
        if (what < 55) submit_one(s);
        if (what >= 55 && what < 92) meddle(s);
        if (what >= 96) change_the_world(s);
        fake_run(&s->fake, below(s, FAKE_MS(12)));
    }
}

/* ---- the operator's whims -------------------------------------------------------------------- */

static weir_decision retry(void *ctx, const weir_failure *failure, uint64_t *delay_ns, char *why)
{
    struct storm *s = ctx;
    EXPECT(s, failure->attempt > 0 && failure->client != NULL && failure->remaining_ns > 0);
    (void)why;
    if (chance(s, 20)) *delay_ns = below(s, FAKE_MS(50));
    uint64_t what = below(s, 20);
    return what == 0   ? WEIR_POLICY_FAULT
           : what == 1 ? (weir_decision)77
           : what < 16 ? WEIR_RETRY
                       : WEIR_GIVE_UP;
}

static weir_decision route(void *ctx, const weir_request *request, char *backend, size_t size, char *why)
{
    struct storm *s = ctx;
    (void)request;
    (void)why;
    static const char *const names[] = {"primary", "replica", "mars"};
    snprintf(backend, size, "%s", names[chance(s, 3) ? 2 : below(s, 2)]);
    return WEIR_RETRY;
}

static void pick_options(struct storm *s)
{
    weir_options *o = &s->options;
    fake_options(o);
    s->backends[0] = (weir_backend){.name = "primary", .conninfo = "host=a"};
    s->backends[1] = (weir_backend){.name = "replica", .conninfo = "host=b"};
    for (int i = 0; i < 2; i++) {
        uint32_t max = 1 + (uint32_t)below(s, 4);
        s->clients[i] = o->clients[i];
        s->clients[i].max = max;
        s->clients[i].min = chance(s, 30) ? 1 : 0;
        s->clients[i].queue_max = chance(s, 30) ? 2 : 0;
        s->clients[i].multiplex = chance(s, 50) ? 2 + (uint32_t)below(s, 15) : 0;
    }
    o->backends = s->backends;
    o->backend_count = 2;
    o->clients = s->clients;
    o->queue = (weir_queue)below(s, 3);
    o->reset = (weir_reset)below(s, 2);
    o->acquire_timeout_ns = chance(s, 30) ? FAKE_MS(50) : 0;
    o->connect_timeout_ns = FAKE_MS(200);
    o->cancel_wait_ns = FAKE_MS(500);
    o->idle_timeout_ns = chance(s, 30) ? FAKE_MS(100) : 0;
    o->lifetime_ns = chance(s, 30) ? FAKE_MS(700) : 0;
    o->leak_after_ns = FAKE_MS(100);
    o->health_interval_ns = chance(s, 50) ? FAKE_MS(100) : 0;
    o->probe_interval_ns = FAKE_MS(50);
    o->breaker.min_calls = chance(s, 50) ? 8 : 100000;
    o->breaker.open_for_ns = FAKE_MS(400);
    o->breaker.consecutive = chance(s, 20) ? 5 : 0;
    o->policy_faults_max = chance(s, 50) ? 3 : 1000;
    if (chance(s, 40)) o->policy = (weir_policy){.ctx = s, .retry = retry, .route = route};
}

/* ---- the reckoning --------------------------------------------------------------------------- */

static void check_effects(struct storm *s, const struct item *item)
{
    for (int i = 0; i < item->steps && !item->readonly; i++) {
        int effects = s->fake.effects[item->number + i];
        if (!item->idempotent) EXPECT(s, effects <= 1);
        if (!item->ended) continue; /* its owner left before the end */
        if (item->code == WEIR_CALL_OK) EXPECT(s, effects >= 1);
        if (item->outcome == WEIR_OUTCOME_ROLLED_BACK || item->outcome == WEIR_OUTCOME_NONE)
            EXPECT(s, effects == 0);
    }
}

static void check_counters(struct storm *s)
{
    struct fake *f = &s->fake;
    long ended = 0;
    static const char *const ends[] = {"ok", "failed", "refused", "timeout", "unknown", "cancelled"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) ended += fake_counter(f, "calls", ends[i]);
    EXPECT(s, fake_counter(f, "calls", "started") == s->count);
    EXPECT(s, ended == s->count);
    EXPECT(s, fake_counter(f, "attempts", "all") <= s->count + fake_counter(f, "attempts", "retries"));
    EXPECT(s, fake_counter(f, "events", "opened") - fake_counter(f, "closed", "all") == f->opened);
    EXPECT(s, fake_counter(f, "connections", "open") ==
                  f->opened + fake_counter(f, "connections", "connecting"));
    EXPECT(s, fake_counter(f, "connections", "in_flight") == 0 &&
                  fake_counter(f, "connections", "waiting") == 0);
    long why = 0;
    static const char *const reasons[] = {"idle", "lifetime", "error", "server", "cancel", "shutdown"};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        why += fake_counter(f, "closed", reasons[i]);
    EXPECT(s, why == fake_counter(f, "closed", "all"));
}

static void become_calm(struct storm *s)
{
    struct fake *f = &s->fake;
    s->calm = true;
    f->refuse = f->mute = f->peek_fails = f->send_fails = f->identity = false;
    f->connect_sqlstate[0] = '\0';
    f->cancel_ns = FAKE_MS(3);
    weir_pause(f->engine, NULL, false, NULL);
    weir_force_breaker(f->engine, NULL, WEIR_CLOSED, NULL);
    fake_run(f, FAKE_MS(1600 + GRACE_MS) + s->lag_ns);
}

static void everyone_has_heard(struct storm *s)
{
    for (int i = 0; i < s->count; i++) {
        struct item *item = &s->items[i];
        if (item->call == NULL) continue;
        EXPECT(s, weir_call_status(item->call) == WEIR_ENDED && item->told);
        free_item(item);
    }
}

static void a_plain_call_succeeds_after(struct storm *s)
{
    weir_statement statement = {.sql = "select 0"};
    weir_call *call = NULL;
    weir_request request = {.client = "service",
                            .context = "after",
                            .backend = "primary",
                            .timeout_ns = FAKE_MS(5000)};
    EXPECT(s, weir_submit(s->fake.engine, &request, &statement, 1, &call, NULL) == WEIR_OK);
    s->count++; /* in the books */
    fake_run(&s->fake, FAKE_MS(4900));
    if (weir_call_error(call) != NULL) fprintf(stderr, "after: %s\n", weir_call_error(call)->message);
    EXPECT(s, weir_call_status(call) == WEIR_ENDED && weir_call_error(call) == NULL);
    weir_call_free(call);
}

/* The monitor may be probing at any moment. */
static void come_to_rest(struct storm *s)
{
    weir_held held = {.leased = 1};
    for (int i = 0; i < 50 && held.leased > 0; i++) {
        fake_run(&s->fake, FAKE_MS(1));
        weir_held_now(s->fake.engine, &held);
    }
}

static void end_well(struct storm *s)
{
    become_calm(s);
    everyone_has_heard(s);
    s->closing = true;
    fake_run(&s->fake, FAKE_MS(6000)); /* what was never answered is given up after 5 s */
    a_plain_call_succeeds_after(s);
    come_to_rest(s);
    check_counters(s);
    s->count--;
    fake_close(&s->fake);
}

static void end_by_draining(struct storm *s)
{
    weir_drain(s->fake.engine, below(s, FAKE_MS(600)));
    for (int i = 0; i < 10; i++) submit_one(s);
    fake_run(&s->fake, FAKE_MS(700) + s->lag_ns);
    EXPECT(s, weir_drained(s->fake.engine));
    EXPECT(s, s->fake.opened == 0);
    everyone_has_heard(s);
    check_counters(s);
    fake_close(&s->fake);
}

static void end_at_once(struct storm *s)
{
    s->closing = true;
    fake_free(&s->fake);
    everyone_has_heard(s);
}

static uint64_t run_storm(uint64_t seed)
{
    struct storm *s = &storm;
    memset(s, 0, sizeof *s);
    s->seed = seed;
    s->random = seed * 0x9e3779b97f4a7c15u + 1;
    s->rough = (int)below(s, 30);
    s->lag_ns = chance(s, 25) ? FAKE_MS(300) : 0;
    fake_init(&s->fake);
    s->fake.user = s;
    s->fake.answer = answer;
    s->fake.books = true;
    s->fake.watch_timeout = chance(s, 50);
    s->fake.host.seed = seed;
    pick_options(s);
    s->numbers = 1;
    fake_open(&s->fake, &s->options);
    blow(s);
    uint64_t how = below(s, 10);
    if (how < 6) end_well(s);
    if (how >= 6 && how < 8) end_by_draining(s);
    if (how >= 8) end_at_once(s);
    uint64_t trace = s->fake.trace;
    for (int i = 0; i < s->count; i++) {
        check_effects(s, &s->items[i]);
        trace = trace * 31 + (uint64_t)s->items[i].code * 4 + (uint64_t)s->items[i].outcome;
    }
    return trace;
}

static uint64_t only_seed;

static void what_the_engine_said_is_what_the_server_did(void **state)
{
    (void)state;
    int shared = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        if (only_seed == 0 || only_seed == seed) run_storm(seed);
        shared += storm.fake.most_in_flight > 1;
    }
    if (only_seed == 0) assert_in_range(shared, SEEDS / 10, SEEDS); /* connections carried several calls */
}

static void the_same_seed_gives_the_same_storm(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) assert_int_equal(run_storm(seed), run_storm(seed));
    assert_int_not_equal(run_storm(1), run_storm(2));
}

int main(int argc, char **argv)
{
    signal(SIGABRT, aborted);
    only_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_engine_said_is_what_the_server_did),
        cmocka_unit_test(the_same_seed_gives_the_same_storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
