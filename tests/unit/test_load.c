/* A load on an engine with a scripted server, in virtual time: who sends what, and what the tally says became of it. */
#include "load/traffic.h"
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WHOLE = WEIR_TALLY_PHASES, CLOSED_MAX = 4096 };

struct fixture {
    struct fake fake;
    weir_options options;
    weir_tally *tally;
    weir_load *load;
    uint64_t origin, numbers;
    /* what the load told */
    int opened, idempotent, closed, arrived, sooner;
    struct {
        uint64_t number;
        weir_outcome outcome;
    } ends[CLOSED_MAX];
    uint64_t open_at_once; /* most */
    /* the server's script */
    char seen[64][64]; /* first values or texts of statements, in order */
    int seen_count;
    int fail_first; /* so many segments fail */
    bool lose;      /* rather than answer with an error */
};

/* Notes what arrives at the server, and fails the first ones. */
static void script(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                   struct fake_answer *answer)
{
    struct fixture *f = fake->user;
    (void)link;
    for (size_t i = 0; i < segment->count && f->seen_count < 64; i++) {
        const weir_statement *s = &segment->statements[i];
        snprintf(f->seen[f->seen_count++], sizeof f->seen[0], "%s", s->count > 0 ? s->values[0] : s->sql);
    }
    if (segment->count == 0 || f->fail_first <= 0) return;
    f->fail_first--;
    if (f->lose)
        answer->lost = true;
    else
        memcpy(answer->sqlstate, "23505", 6);
}

static int set_up(void **state)
{
    static struct fixture fixture;
    static const weir_client clients[] = {
        {.name = "service", .kind = WEIR_SERVICE, .bypass_rls = true, .max = 20, .queue_max = 2000},
        {.name = "other", .kind = WEIR_SERVICE, .bypass_rls = true, .max = 2}};
    memset(&fixture, 0, sizeof fixture);
    fake_init(&fixture.fake);
    fake_options(&fixture.options);
    fixture.options.clients = clients;
    fixture.fake.user = &fixture;
    fixture.fake.answer = script;
    fixture.options.breaker.min_calls = 100000;
    *state = &fixture;
    return 0;
}

static uint64_t clock_of(void *ctx)
{
    return ((struct fixture *)ctx)->fake.now;
}

static void note_opened(void *ctx, uint64_t number, bool idempotent)
{
    struct fixture *f = ctx;
    (void)number;
    f->opened++;
    f->idempotent += idempotent;
}

static void note_closed(void *ctx, uint64_t number, weir_outcome outcome)
{
    struct fixture *f = ctx;
    assert_true(f->closed < CLOSED_MAX);
    f->ends[f->closed].number = number;
    f->ends[f->closed++].outcome = outcome;
}

static void note_arrived(void *ctx)
{
    ((struct fixture *)ctx)->arrived++;
}

static void note_sooner(void *ctx)
{
    ((struct fixture *)ctx)->sooner++;
}

static void open_engine(struct fixture *f)
{
    char why[WEIR_WHY_MAX] = "";
    fake_open(&f->fake, &f->options);
    f->origin = f->fake.now;
    assert_int_equal(weir_tally_new(&f->tally, f->origin, FAKE_MS(100), NULL, 0, why), WEIR_OK);
}

/* Times in the options are counted from the origin. */
static weir_load_options prepared(struct fixture *f, weir_load_options options)
{
    options.from_ns += f->origin;
    options.until_ns = options.until_ns == 0 ? UINT64_MAX : options.until_ns + f->origin;
    options.numbers = &f->numbers;
    options.now_ns = clock_of;
    options.opened = note_opened;
    options.closed = note_closed;
    options.arrived = note_arrived;
    options.sooner = note_sooner;
    options.ctx = f;
    if (options.seed == 0) options.seed = 1;
    return options;
}

static weir_load *load_of(struct fixture *f, weir_load_options options)
{
    weir_load *load = NULL;
    char why[WEIR_WHY_MAX] = "";
    weir_load_options ready = prepared(f, options);
    int code = weir_load_new(&load, f->fake.engine, f->tally, &ready, why);
    assert_string_equal(why, "");
    assert_int_equal(code, WEIR_OK);
    return load;
}

/* Lets time pass, and the load run whenever it is due. */
static void pass(struct fixture *f, weir_load *load, uint64_t ns)
{
    uint64_t until = f->fake.now + ns;
    while (f->fake.now < until) {
        weir_load_run(load);
        if (weir_load_open(load) > f->open_at_once) f->open_at_once = weir_load_open(load);
        uint64_t due = weir_load_due_ns(load), next = f->fake.now + FAKE_MS(1) / 4;
        assert_true(due > f->fake.now);
        if (due < next) next = due;
        fake_run(&f->fake, (next < until ? next : until) - f->fake.now);
    }
}

static weir_tally_counts counts(struct fixture *f)
{
    weir_tally_counts c;
    assert_true(weir_tally_counts_of(f->tally, WHOLE, &c));
    return c;
}

static void end(struct fixture *f, weir_load *load)
{
    weir_load_free(load);
    weir_tally_free(f->tally);
    fake_run(&f->fake, FAKE_MS(5000)); /* cancels end */
    fake_close(&f->fake);
}

static const char *const number[] = {weir_load_number};
static const weir_statement read_one = {.sql = "select 1"};
static const weir_statement write_one = {.sql = "insert into orders values ($1)",
                                         .values = number,
                                         .count = 1};

#define READ                                                                                                 \
    {                                                                                                        \
        .request = {.client = "service", .context = "GET /x", .readonly = true}, .statements = &read_one,    \
        .statement_count = 1, .weight = 1                                                                    \
    }
#define WRITE                                                                                                \
    {                                                                                                        \
        .request = {.client = "service", .context = "POST /x"}, .statements = &write_one,                    \
        .statement_count = 1, .weight = 1, .writes = true                                                    \
    }

static const weir_load_call reading[] = {READ};
static const weir_load_call writing[] = {WRITE};

/* ---- open arrivals ---------------------------------------------------------------------------------------------- */

static void every_arrival_becomes_a_call_and_is_counted(void **state)
{
    struct fixture *f = *state;
    const weir_load_rate rate = {0, 200};
    open_engine(f);
    weir_load *load = load_of(f, (weir_load_options){.calls = reading,
                                                     .call_count = 1,
                                                     .rates = &rate,
                                                     .rate_count = 1,
                                                     .until_ns = FAKE_MS(2000)});
    pass(f, load, FAKE_MS(3000));
    weir_tally_counts c = counts(f);
    assert_int_equal(c.arrived, 400);
    assert_int_equal(c.ok, 400);
    assert_int_equal(c.calls, 400);
    assert_int_equal(c.attempts, 400);
    assert_int_equal(f->fake.singles, 400);
    assert_int_equal(weir_load_open(load), 0);
    assert_int_equal(weir_load_oldest_ns(load), UINT64_MAX);
    assert_int_equal(weir_load_due_ns(load), UINT64_MAX);
    assert_int_equal(weir_tally_quantile(f->tally, WHOLE, true, 1), c.latency_max_ns);
    assert_true(c.latency_max_ns >= FAKE_MS(1) && c.latency_max_ns <= FAKE_MS(5));
    assert_int_equal(f->opened, 0); /* nothing writes */
    end(f, load);
}

static void a_request_that_is_submitted_late_counts_from_the_moment_it_was_due(void **state)
{
    struct fixture *f = *state;
    const weir_load_burst burst = {UINT64_C(1000000000000) + FAKE_MS(100),
                                   1}; /* the fake's clock starts there */
    open_engine(f);
    weir_load *load =
        load_of(f,
                (weir_load_options){.calls = reading, .call_count = 1, .bursts = &burst, .burst_count = 1});
    fake_run(&f->fake, FAKE_MS(700)); /* the program was stopped */
    pass(f, load, FAKE_MS(100));
    assert_int_equal(counts(f).ok, 1);
    assert_true(counts(f).latency_max_ns >= FAKE_MS(601));
    end(f, load);
}

static void a_burst_waits_in_the_queue_and_is_seen_there(void **state)
{
    struct fixture *f = *state;
    const weir_load_burst burst = {UINT64_C(1000000000000) + FAKE_MS(50), 100};
    open_engine(f);
    weir_load *load =
        load_of(f,
                (weir_load_options){.calls = reading, .call_count = 1, .bursts = &burst, .burst_count = 1});
    pass(f, load, FAKE_MS(90));
    weir_tally_bucket bucket;
    assert_true(weir_tally_bucket_at(f->tally, 0, &bucket));
    assert_int_equal(bucket.counts.arrived, 100);
    assert_true(bucket.waiting >= 80);
    assert_int_equal(bucket.connections, 20);
    assert_int_equal(counts(f).ok, 100);
    end(f, load);
}

static void the_mix_comes_by_weight(void **state)
{
    struct fixture *f = *state;
    weir_load_call calls[] = {READ, WRITE};
    calls[0].weight = 9;
    const weir_load_rate rate = {0, 1000};
    open_engine(f);
    weir_load *load = load_of(f, (weir_load_options){.calls = calls,
                                                     .call_count = 2,
                                                     .poisson = true,
                                                     .rates = &rate,
                                                     .rate_count = 1,
                                                     .until_ns = FAKE_MS(5000)});
    pass(f, load, FAKE_MS(6000));
    uint64_t arrived = counts(f).arrived;
    assert_true(arrived > 4700 && arrived < 5300);
    assert_in_range(f->opened, arrived / 10 - 80, arrived / 10 + 80);
    assert_int_equal(f->closed, f->opened);
    end(f, load);
}

static void requests_carry_their_number_which_no_two_share(void **state)
{
    struct fixture *f = *state;
    const weir_load_burst burst = {UINT64_C(1000000000000), 5};
    open_engine(f);
    f->numbers = 1234567890123;
    weir_load_options options = {.calls = writing, .call_count = 1, .bursts = &burst, .burst_count = 1};
    weir_load *one = load_of(f, options), *other = load_of(f, options);
    weir_load_run(one);
    weir_load_run(other);
    fake_run(&f->fake, FAKE_MS(100));
    assert_int_equal(f->seen_count, 10);
    for (int i = 0; i < 10; i++) {
        char expected[32];
        snprintf(expected, sizeof expected, "%llu", 1234567890124ULL + (unsigned)i);
        assert_string_equal(f->seen[i], expected);
    }
    assert_int_equal(f->numbers, 1234567890133);
    weir_load_free(one);
    end(f, other);
}

/* ---- a closed loop ----------------------------------------------------------------------------------------------- */

static void users_wait_for_the_end_and_think_before_they_send_again(void **state)
{
    struct fixture *f = *state;
    f->fake.service_ns = FAKE_MS(10);
    open_engine(f);
    weir_load *load = load_of(f, (weir_load_options){.calls = reading,
                                                     .call_count = 1,
                                                     .users = 10,
                                                     .think = {.kind = WEIR_DIST_CONSTANT, .a = 0.09},
                                                     .until_ns = FAKE_MS(10000)});
    pass(f, load, FAKE_MS(11000));
    assert_in_range(counts(f).ok, 950, 1010); /* ten users, 10 requests a second each */
    assert_true(f->open_at_once <= 10);
    assert_int_equal(weir_load_due_ns(load), UINT64_MAX);
    end(f, load);
}

static void the_owner_is_told_when_an_end_makes_the_load_due(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    weir_load *load = load_of(f, (weir_load_options){.calls = reading,
                                                     .call_count = 1,
                                                     .users = 1,
                                                     .think = {.kind = WEIR_DIST_CONSTANT, .a = 0.02}});
    fake_run(&f->fake, weir_load_due_ns(load) - f->fake.now);
    weir_load_run(load);
    assert_int_equal(weir_load_due_ns(load), UINT64_MAX); /* he waits for his answer */
    assert_int_equal(f->sooner, 0);
    fake_run(&f->fake, FAKE_MS(10));
    assert_int_equal(f->sooner, 1);
    assert_in_range(weir_load_due_ns(load), f->fake.now, f->fake.now + FAKE_MS(20));
    end(f, load);
}

static void users_do_not_march_in_step(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    weir_load *load = load_of(f, (weir_load_options){.calls = reading,
                                                     .call_count = 1,
                                                     .users = 100,
                                                     .think = {.kind = WEIR_DIST_CONSTANT, .a = 1}});
    pass(f, load, FAKE_MS(1000));
    for (size_t i = 0; i < 10; i++) {
        weir_tally_bucket bucket;
        assert_true(weir_tally_bucket_at(f->tally, i, &bucket));
        assert_in_range(bucket.counts.arrived, 1, 25);
    }
    end(f, load);
}

static void a_user_who_is_refused_at_once_does_not_stop_the_clock(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    assert_int_equal(weir_pause(f->fake.engine, NULL, true, NULL), WEIR_OK);
    weir_load *load = load_of(f, (weir_load_options){.calls = reading, .call_count = 1, .users = 3});
    pass(f, load, FAKE_MS(100));
    assert_in_range(counts(f).refused, 290, 303);
    assert_int_equal(weir_tally_ended_as(f->tally, WHOLE, WEIR_CALL_PAUSED), counts(f).failed);
    end(f, load);
}

/* ---- units of work ----------------------------------------------------------------------------------------------- */

static const weir_statement steps[] = {{.sql = "insert into a values ($1)", .values = number, .count = 1},
                                       {.sql = "update b"}};
static const weir_load_call unit[] = {{.request = {.client = "service", .context = "POST /u"},
                                       .statements = steps,
                                       .statement_count = 2,
                                       .weight = 1,
                                       .unit = true,
                                       .writes = true}};

static weir_load *one_of(struct fixture *f, const weir_load_call *call, uint32_t retries, uint64_t pause_ns)
{
    static weir_load_burst burst;
    burst = (weir_load_burst){f->origin, 1};
    return load_of(f, (weir_load_options){.calls = call,
                                          .call_count = 1,
                                          .bursts = &burst,
                                          .burst_count = 1,
                                          .caller_retries = retries,
                                          .caller_pause_ns = pause_ns});
}

static void a_unit_sends_its_statements_one_by_one_and_commits(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    weir_load *load = one_of(f, unit, 0, 0);
    pass(f, load, FAKE_MS(100));
    assert_int_equal(f->fake.begins, 1);
    assert_int_equal(f->fake.commits, 1);
    assert_int_equal(f->seen_count, 2);
    assert_string_equal(f->seen[0], "1");
    assert_string_equal(f->seen[1], "update b");
    assert_int_equal(counts(f).ok, 1);
    assert_int_equal(f->ends[0].outcome, WEIR_OUTCOME_COMMITTED);
    end(f, load);
}

static void a_unit_whose_statement_fails_is_rolled_back(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fail_first = 1;
    weir_load *load = one_of(f, unit, 0, 0);
    pass(f, load, FAKE_MS(100));
    assert_int_equal(f->fake.commits, 0);
    assert_int_equal(counts(f).failed, 1);
    assert_int_equal(f->ends[0].outcome, WEIR_OUTCOME_ROLLED_BACK);
    end(f, load);
}

static void serialization_fails_once(struct fake *fake, struct fake_link *link,
                                     const struct wr_segment *segment, struct fake_answer *answer)
{
    struct fixture *f = fake->user;
    (void)link;
    if (segment->kind == WR_SEGMENT_MORE && f->fail_first-- > 0) memcpy(answer->sqlstate, "40001", 6);
    if (segment->count > 0)
        snprintf(f->seen[f->seen_count++], sizeof f->seen[0], "%s", segment->statements[0].sql);
}

static void a_unit_that_the_engine_repeats_starts_from_its_first_statement(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fake.answer = serialization_fails_once;
    f->fail_first = 1;
    weir_load *load = one_of(f, unit, 0, 0);
    pass(f, load, FAKE_MS(2000));
    assert_int_equal(counts(f).ok, 1);
    assert_int_equal(counts(f).calls, 1);
    assert_int_equal(counts(f).attempts, 2);
    assert_int_equal(f->seen_count, 4);
    assert_string_equal(f->seen[2], steps[0].sql);
    end(f, load);
}

static void a_unit_the_engine_will_not_send_ends_as_misuse(void **state)
{
    struct fixture *f = *state;
    static const weir_statement commit = {.sql = "commit"};
    weir_load_call call = unit[0];
    call.statements = &commit;
    call.statement_count = 1;
    open_engine(f);
    weir_load *load = one_of(f, &call, 0, 0);
    pass(f, load, FAKE_MS(100));
    assert_int_equal(weir_tally_ended_as(f->tally, WHOLE, WEIR_CALL_MISUSE), 1);
    assert_non_null(strstr(weir_load_misuse(load), "begins or ends a transaction"));
    end(f, load);
}

/* ---- the caller's own retries ------------------------------------------------------------------------------------- */

static void a_caller_who_tries_again_makes_more_calls_of_one_request(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fail_first = 2;
    weir_load *load = one_of(f, writing, 5, FAKE_MS(100));
    pass(f, load, FAKE_MS(90));
    assert_int_equal(weir_load_open(load), 1);
    assert_int_equal(weir_load_oldest_ns(load), f->origin);
    pass(f, load, FAKE_MS(900));
    weir_tally_counts c = counts(f);
    assert_int_equal(c.arrived, 1);
    assert_int_equal(c.ok, 1);
    assert_int_equal(c.failed, 0);
    assert_int_equal(c.calls, 3);
    assert_true(c.latency_max_ns > FAKE_MS(200) && c.latency_max_ns < FAKE_MS(220));
    assert_int_equal(weir_tally_ended_as(f->tally, WHOLE, WEIR_CALL_SERVER), 2);
    assert_int_equal(f->opened, 1);
    assert_int_equal(f->closed, 1);
    for (int i = 0; i < 3; i++) assert_string_equal(f->seen[i], "1"); /* the same request */
    end(f, load);
}

static void a_caller_gives_up_when_his_tries_are_spent(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fail_first = 100;
    weir_load *load = one_of(f, writing, 3, 0);
    pass(f, load, FAKE_MS(1000));
    assert_int_equal(counts(f).calls, 4);
    assert_int_equal(counts(f).failed, 1);
    assert_int_equal(f->ends[0].outcome, WEIR_OUTCOME_ROLLED_BACK);
    end(f, load);
}

static void what_was_perhaps_committed_stays_so_until_it_is_known(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->lose = true;
    f->fail_first = 1;
    weir_load *load = one_of(f, writing, 0, 0);
    pass(f, load, FAKE_MS(500));
    assert_int_equal(f->ends[0].outcome, WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(counts(f).unknown, 1);
    weir_load_free(load);

    f->fail_first = 1; /* lost, and then done */
    load = one_of(f, writing, 1, FAKE_MS(1));
    pass(f, load, FAKE_MS(500));
    assert_int_equal(f->ends[1].outcome, WEIR_OUTCOME_COMMITTED);
    assert_int_equal(counts(f).unknown, 1);
    end(f, load);
}

/* ---- custom requests ---------------------------------------------------------------------------------------------- */

static const weir_load_call custom[] = {
    READ, {.request = {.idempotent = true}, .weight = 1e9, .custom = true, .writes = true}};

static weir_load *three_customs(struct fixture *f)
{
    static weir_load_burst burst;
    burst = (weir_load_burst){f->origin + FAKE_MS(10), 3};
    weir_load *load = load_of(f, (weir_load_options){.calls = custom,
                                                     .call_count = 2,
                                                     .bursts = &burst,
                                                     .burst_count = 1,
                                                     .caller_retries = 9});
    pass(f, load, FAKE_MS(20));
    return load;
}

static void custom_requests_are_handed_out_in_order_and_told_once(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    weir_load *load = three_customs(f);
    size_t call = 9;
    uint64_t got = 0;
    assert_int_equal(f->arrived, 1);
    for (uint64_t i = 1; i <= 3; i++) {
        assert_true(weir_load_take(load, &call, &got));
        assert_int_equal(call, 1);
        assert_int_equal(got, i);
    }
    assert_false(weir_load_take(load, &call, &got));
    assert_int_equal(weir_load_open(load), 3);
    assert_int_equal(weir_load_oldest_ns(load), f->origin + FAKE_MS(10));
    assert_int_equal(f->idempotent, 3);
    end(f, load);
}

static void the_owner_says_how_a_custom_request_ended(void **state)
{
    struct fixture *f = *state;
    weir_error late = {.code = WEIR_CALL_TIMEOUT, .outcome = WEIR_OUTCOME_UNKNOWN};
    weir_error strange = {.code = (weir_code)77, .outcome = WEIR_OUTCOME_NONE};
    open_engine(f);
    weir_load *load = three_customs(f);
    pass(f, load, FAKE_MS(100));
    weir_load_settle(load, 2, NULL, 4);
    weir_load_settle(load, 1, &late, 2);
    weir_load_settle(load, 3, &strange, 1);
    weir_load_settle(load, 3, NULL, 1); /* once is enough */
    weir_load_settle(load, 99, NULL, 1);
    weir_tally_counts c = counts(f);
    assert_int_equal(c.ok, 1);
    assert_int_equal(c.timed_out, 1);
    assert_int_equal(c.unknown, 1);
    assert_int_equal(c.attempts, 7);
    assert_int_equal(weir_tally_ended_as(f->tally, WHOLE, WEIR_CALL_SERVER), 1);
    assert_int_equal(f->ends[0].number, 2);
    assert_int_equal(f->ends[0].outcome, WEIR_OUTCOME_COMMITTED);
    assert_int_equal(f->ends[1].outcome, WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(weir_load_open(load), 0);
    end(f, load);
}

static void many_custom_requests_are_found_by_number(void **state)
{
    struct fixture *f = *state;
    static weir_load_burst burst;
    burst = (weir_load_burst){f->fake.now, 1000};
    open_engine(f);
    weir_load *load = load_of(
        f, (weir_load_options){.calls = custom + 1, .call_count = 1, .bursts = &burst, .burst_count = 1});
    weir_load_run(load);
    for (uint64_t i = 0; i < 1000; i++) weir_load_settle(load, (i * 7919) % 1000 + 1, NULL, 1);
    assert_int_equal(counts(f).ok, 1000);
    end(f, load);
}

/* ---- the end, and mistakes ---------------------------------------------------------------------------------------- */

static void a_load_that_is_freed_cancels_what_is_under_way_and_says_so(void **state)
{
    struct fixture *f = *state;
    static weir_load_burst burst;
    f->fake.service_ns = FAKE_MS(1000);
    open_engine(f);
    burst = (weir_load_burst){f->origin, 50};
    weir_load *load = load_of(f, (weir_load_options){.calls = writing,
                                                     .call_count = 1,
                                                     .bursts = &burst,
                                                     .burst_count = 1,
                                                     .users = 5,
                                                     .think = {.kind = WEIR_DIST_CONSTANT, .a = 60},
                                                     .caller_retries = 3});
    pass(f, load, FAKE_MS(100));
    assert_int_equal(weir_load_open(load), 50);
    weir_load_free(load);
    assert_int_equal(counts(f).failed, 50);
    assert_int_equal(weir_tally_ended_as(f->tally, WHOLE, WEIR_CALL_CANCELLED), 50);
    assert_int_equal(f->closed, 50);
    int unknown = 0, nothing = 0;
    for (int i = 0; i < 50; i++) {
        unknown += f->ends[i].outcome == WEIR_OUTCOME_UNKNOWN;
        nothing += f->ends[i].outcome == WEIR_OUTCOME_NONE;
    }
    assert_int_equal(unknown, 20); /* those that were on a connection */
    assert_int_equal(nothing, 30);
    end(f, NULL);
}

static void a_load_that_is_freed_ends_pausing_and_custom_requests_too(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fail_first = 1;
    weir_load *load = one_of(f, writing, 1, FAKE_MS(60000));
    pass(f, load, FAKE_MS(100));
    weir_load_free(load);
    assert_int_equal(f->ends[0].outcome, WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(counts(f).failed, 1);

    f->origin = f->fake.now;
    load = three_customs(f);
    size_t call;
    uint64_t got;
    assert_true(weir_load_take(load, &call, &got));
    weir_load_free(load);
    assert_int_equal(f->closed, 4);
    assert_int_equal(f->ends[1].outcome, WEIR_OUTCOME_UNKNOWN); /* nobody knows what its owner did */
    assert_int_equal(f->ends[2].outcome, WEIR_OUTCOME_NONE);
    end(f, NULL);
}

static void a_call_the_engine_will_not_take_ends_as_misuse_with_its_sentence(void **state)
{
    struct fixture *f = *state;
    weir_load_call call = WRITE;
    call.request.client = "nobody";
    const weir_load_rate rate = {0, 100};
    open_engine(f);
    weir_load *load = load_of(
        f, (weir_load_options){.calls = &call, .call_count = 1, .rates = &rate, .rate_count = 1, .users = 2});
    assert_string_equal(weir_load_misuse(load), "");
    pass(f, load, FAKE_MS(1000));
    assert_true(counts(f).failed >= 100);
    assert_int_equal(weir_tally_ended_as(f->tally, WHOLE, WEIR_CALL_MISUSE), counts(f).failed);
    assert_string_equal(weir_load_misuse(load), "there is no client 'nobody'");
    assert_int_equal(f->closed, f->opened);
    end(f, load);
}

static void a_breaker_that_moves_is_told_once_however_many_loads_watch(void **state)
{
    struct fixture *f = *state;
    const weir_load_rate rate = {0, 100};
    f->options.breaker.min_calls = 5;
    f->options.retries = 0;
    open_engine(f);
    f->fake.refuse = true;
    weir_load_options options = {.calls = reading, .call_count = 1, .rates = &rate, .rate_count = 1};
    weir_load *one = load_of(f, options), *other = load_of(f, options);
    for (int i = 0; i < 200; i++) {
        weir_load_run(one);
        weir_load_run(other);
        fake_run(&f->fake, FAKE_MS(1));
    }
    weir_tally_move move;
    assert_int_equal(weir_tally_move_count(f->tally), 1);
    assert_true(weir_tally_move_at(f->tally, 0, &move));
    assert_string_equal(move.pool, "service@primary");
    assert_int_equal(move.from, WEIR_CLOSED);
    assert_int_equal(move.to, WEIR_OPEN);
    assert_true(counts(f).refused > 20);
    weir_tally_bucket bucket;
    assert_true(weir_tally_bucket_at(f->tally, 1, &bucket));
    assert_int_equal(bucket.breaker, WEIR_OPEN);
    weir_force_breaker(f->fake.engine, "service@primary", WEIR_FORCED_CLOSED, NULL);
    weir_load_observe(one); /* nobody need call for it to be seen */
    assert_int_equal(weir_tally_move_count(f->tally), 2);
    weir_load_free(one);
    end(f, other);
}

static void the_same_seed_goes_the_same_way(void **state)
{
    struct fixture *f = *state;
    uint64_t traces[3];
    const uint64_t seeds[] = {5, 5, 6};
    const weir_load_rate rate = {0, 300};
    weir_load_call calls[] = {READ, WRITE};
    for (int i = 0; i < 3; i++) {
        set_up(state);
        open_engine(f);
        weir_load *load = load_of(f, (weir_load_options){.calls = calls,
                                                         .call_count = 2,
                                                         .poisson = true,
                                                         .rates = &rate,
                                                         .rate_count = 1,
                                                         .users = 20,
                                                         .think = {.kind = WEIR_DIST_EXPONENTIAL, .a = 0.05},
                                                         .seed = seeds[i]});
        pass(f, load, FAKE_MS(1000));
        traces[i] = f->fake.trace;
        end(f, load);
    }
    assert_int_equal(traces[0], traces[1]);
    assert_int_not_equal(traces[0], traces[2]);
}

static void what_cannot_be_is_refused_with_a_sentence(void **state)
{
    struct fixture *f = *state;
    static weir_load_call bad_weight[] = {READ, READ}, no_statements[] = {READ};
    static const weir_load_rate minus[] = {{0, -1}}, back[] = {{5, 1}, {4, 1}};
    static const weir_load_burst bursts_back[] = {{5, 1}, {4, 1}};
    static const int binary[] = {1};
    static const weir_statement no_sql = {0},
                                binary_number = {.sql = "x", .values = number, .formats = binary, .count = 1};
    static weir_load_call empty[] = {READ}, with_binary[] = {WRITE};
    bad_weight[1].weight = 0;
    no_statements[0].statement_count = 0;
    empty[0].statements = &no_sql;
    with_binary[0].statements = &binary_number;
    const struct {
        weir_load_options options;
        const char *words;
    } cases[] = {
        {{.calls = reading}, "calls are 0; there must be 1 to 64"},
        {{.calls = bad_weight, .call_count = 2}, "call 2 has the weight 0; it must be more than 0"},
        {{.calls = no_statements, .call_count = 1}, "call 1 has no statements"},
        {{.calls = empty, .call_count = 1}, "call 1: statement 1 has no SQL"},
        {{.calls = with_binary, .call_count = 1},
         "call 1: statement 1 asks for its number as a binary value"},
        {{.calls = reading, .call_count = 1, .rates = minus, .rate_count = 1},
         "rate 1 is -1 a second; it must be from 0"},
        {{.calls = reading, .call_count = 1, .rates = back, .rate_count = 2},
         "rate 2 lies before the one in front"},
        {{.calls = reading, .call_count = 1, .rate_count = 300}, "rates are 300; there may be 256"},
        {{.calls = reading, .call_count = 1, .bursts = bursts_back, .burst_count = 2}, "burst 2 lies before"},
        {{.calls = reading, .call_count = 1, .burst_count = 300}, "bursts are 300; there may be 256"},
        {{.calls = reading, .call_count = 1, .users = 100001}, "users is 100001; it must be at most 100000"},
        {{.calls = reading, .call_count = 1, .users = 1, .think = {.a = -1}}, "think: the duration is -1"},
        {{.calls = reading, .call_count = 1, .caller_retries = 1001},
         "caller_retries is 1001; it must be at most 1000"},
        {{.calls = reading, .call_count = 1, .caller_pause_ns = FAKE_MS(4000000)}, "caller_pause is 4000 s"},
        {{.calls = reading, .call_count = 1, .from_ns = FAKE_MS(2), .until_ns = FAKE_MS(1)},
         "it must be after from"},
    };
    open_engine(f);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char why[WEIR_WHY_MAX] = "";
        weir_load *load = (weir_load *)1;
        weir_load_options options = prepared(f, cases[i].options);
        assert_int_equal(weir_load_new(&load, f->fake.engine, f->tally, &options, why), WEIR_EINVAL);
        assert_null(load);
        if (strstr(why, cases[i].words) == NULL) fail_msg("'%s' lacks '%s'", why, cases[i].words);
    }
    weir_load_options options = prepared(f, (weir_load_options){.calls = custom, .call_count = 2});
    options.arrived = NULL;
    assert_int_equal(weir_load_new(&f->load, f->fake.engine, f->tally, &options, NULL), WEIR_EINVAL);
    options = prepared(f, (weir_load_options){.calls = reading, .call_count = 1});
    options.now_ns = NULL;
    assert_int_equal(weir_load_new(&f->load, f->fake.engine, f->tally, &options, NULL), WEIR_EINVAL);
    end(f, NULL);
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

struct stingy {
    int allowed, live, made;
};

static void *stingy_resize(void *ctx, void *old, size_t size)
{
    struct stingy *s = ctx;
    if (size == 0) {
        s->live--;
        free(old);
        return NULL;
    }
    if (s->allowed-- <= 0) return NULL;
    s->made++;
    if (old == NULL) s->live++;
    return realloc(old, size);
}

static weir_load_options all_kinds(struct fixture *f)
{
    static weir_load_call calls[] = {READ, WRITE, {.weight = 1, .custom = true}};
    static const weir_load_rate rate = {0, 500};
    static weir_load_burst burst;
    burst = (weir_load_burst){f->origin + FAKE_MS(50), 400};
    return prepared(f, (weir_load_options){.calls = calls,
                                           .call_count = 3,
                                           .rates = &rate,
                                           .rate_count = 1,
                                           .bursts = &burst,
                                           .burst_count = 1,
                                           .users = 10,
                                           .think = {.kind = WEIR_DIST_EXPONENTIAL, .a = 0.1}});
}

static void settle_all(weir_load *load)
{
    size_t call;
    uint64_t got;
    while (weir_load_take(load, &call, &got)) weir_load_settle(load, got, NULL, 1);
}

static void each_allocation_may_fail_and_leaves_nothing_behind(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    weir_load_options options = all_kinds(f);
    int code = WEIR_ENOMEM;
    for (int allowed = 0; code != WEIR_OK; allowed++) {
        struct stingy stingy = {.allowed = allowed};
        struct wr_memory memory = {stingy_resize, &stingy};
        char why[WEIR_WHY_MAX] = "";
        code = wr_load_new(&memory, &f->load, f->fake.engine, f->tally, &options, why);
        if (code != WEIR_OK) assert_string_equal(why, "out of memory");
        weir_load_free(f->load);
        assert_int_equal(stingy.live, 0);
        assert_true(allowed < 30);
    }
    end(f, NULL);
}

static void a_request_there_is_no_memory_for_is_counted_as_failed(void **state)
{
    struct fixture *f = *state;
    struct stingy stingy = {.allowed = 1000};
    struct wr_memory memory = {stingy_resize, &stingy};
    open_engine(f);
    weir_load_options options = all_kinds(f);
    assert_int_equal(wr_load_new(&memory, &f->load, f->fake.engine, f->tally, &options, NULL), WEIR_OK);
    stingy.allowed = 0;
    pass(f, f->load, FAKE_MS(60));
    settle_all(f->load);
    pass(f, f->load, FAKE_MS(100));
    weir_tally_counts c = counts(f);
    uint64_t lost = weir_tally_ended_as(f->tally, WHOLE, WEIR_CALL_NO_MEMORY);
    assert_true(lost > 100);
    assert_true(c.ok > 50);
    assert_int_equal(c.arrived, c.ok + c.failed + weir_load_open(f->load));
    end(f, f->load);
    assert_int_equal(stingy.live, 0);
}

static void a_steady_state_allocates_nothing(void **state)
{
    struct fixture *f = *state;
    struct stingy stingy = {.allowed = 1000};
    struct wr_memory memory = {stingy_resize, &stingy};
    open_engine(f);
    weir_load_options options = all_kinds(f);
    assert_int_equal(wr_load_new(&memory, &f->load, f->fake.engine, f->tally, &options, NULL), WEIR_OK);
    weir_held before = {0}, after = {0};
    int made = 0;
    for (int i = 0; i < 500; i++) {
        pass(f, f->load, FAKE_MS(2));
        settle_all(f->load);
        if (i != 250) continue;
        made = stingy.made;
        weir_held_now(f->fake.engine, &before);
    }
    weir_held_now(f->fake.engine, &after);
    assert_int_equal(stingy.made, made);
    assert_int_equal(after.allocations, before.allocations);
    end(f, f->load);
}

#define T(test) cmocka_unit_test_setup(test, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(every_arrival_becomes_a_call_and_is_counted),
        T(a_request_that_is_submitted_late_counts_from_the_moment_it_was_due),
        T(a_burst_waits_in_the_queue_and_is_seen_there),
        T(the_mix_comes_by_weight),
        T(requests_carry_their_number_which_no_two_share),
        T(users_wait_for_the_end_and_think_before_they_send_again),
        T(the_owner_is_told_when_an_end_makes_the_load_due),
        T(users_do_not_march_in_step),
        T(a_user_who_is_refused_at_once_does_not_stop_the_clock),
        T(a_unit_sends_its_statements_one_by_one_and_commits),
        T(a_unit_whose_statement_fails_is_rolled_back),
        T(a_unit_that_the_engine_repeats_starts_from_its_first_statement),
        T(a_unit_the_engine_will_not_send_ends_as_misuse),
        T(a_caller_who_tries_again_makes_more_calls_of_one_request),
        T(a_caller_gives_up_when_his_tries_are_spent),
        T(what_was_perhaps_committed_stays_so_until_it_is_known),
        T(custom_requests_are_handed_out_in_order_and_told_once),
        T(the_owner_says_how_a_custom_request_ended),
        T(many_custom_requests_are_found_by_number),
        T(a_load_that_is_freed_cancels_what_is_under_way_and_says_so),
        T(a_load_that_is_freed_ends_pausing_and_custom_requests_too),
        T(a_call_the_engine_will_not_take_ends_as_misuse_with_its_sentence),
        T(a_breaker_that_moves_is_told_once_however_many_loads_watch),
        T(the_same_seed_goes_the_same_way),
        T(what_cannot_be_is_refused_with_a_sentence),
        T(each_allocation_may_fail_and_leaves_nothing_behind),
        T(a_request_there_is_no_memory_for_is_counted_as_failed),
        T(a_steady_state_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
