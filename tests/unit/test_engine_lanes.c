/* Multiplexing: who shares a connection, what its neighbours feel of a call that fails, hangs or is given up, and that those
 * who need a connection for themselves get one. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct fake fake;
    weir_options options;
    weir_client client;
    struct fake_answer special; /* for the statement "select 99" */
    uint64_t seed;              /* of answers by chance */
};

static const weir_request reading = {.readonly = true};

static void answer_99(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                      struct fake_answer *answer)
{
    struct fixture *f = fake->user;
    (void)link;
    if (segment->count > 0 && strcmp(segment->statements[0].sql, "select 99") == 0) *answer = f->special;
}

static int set_up(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    fake_init(&f.fake);
    fake_options(&f.options);
    f.client = f.options.clients[0];
    f.client.max = 4;
    f.client.queue_max = 100;
    f.client.multiplex = 8;
    f.options.clients = &f.client;
    f.options.client_count = 1;
    f.options.timeout_ns = FAKE_MS(1000);
    f.options.cancel_wait_ns = FAKE_MS(200);
    f.options.breaker.min_calls = 10000;
    f.options.retries = 0;
    f.fake.service_ns = FAKE_MS(1) / 10;
    f.fake.answer = answer_99;
    f.fake.user = &f;
    f.special = (struct fake_answer){.after_ns = f.fake.service_ns};
    *state = &f;
    return 0;
}

static void run_ms(struct fixture *f, uint64_t ms)
{
    fake_run(&f->fake, FAKE_MS(ms));
}

/* One connection that is idle. */
static void open_warm(struct fixture *f)
{
    fake_open(&f->fake, &f->options);
    weir_call *first = fake_submit(&f->fake, reading, "select 1");
    run_ms(f, 50);
    assert_int_equal(fake_code(first), WEIR_CALL_OK);
    weir_call_free(first);
    assert_int_equal(f->fake.opened, 1);
}

static void close_fake(struct fixture *f)
{
    run_ms(f, 500);
    fake_close(&f->fake);
}

enum { CALLS = 8 };

static void submit_many(struct fixture *f, weir_call **calls, size_t count)
{
    for (size_t i = 0; i < count; i++) calls[i] = fake_submit(&f->fake, reading, "select 1");
}

static size_t ended_with(weir_call **calls, size_t count, weir_code code)
{
    size_t ended = 0;
    for (size_t i = 0; i < count; i++)
        ended += weir_call_status(calls[i]) == WEIR_ENDED && fake_code(calls[i]) == code;
    return ended;
}

static void free_many(weir_call **calls, size_t count)
{
    for (size_t i = 0; i < count; i++) weir_call_free(calls[i]);
}

/* ---- who shares ------------------------------------------------------------------------------------------------ */

static void reads_share_one_connection(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    open_warm(f);
    submit_many(f, calls, CALLS);
    assert_int_equal(f->fake.most_in_flight, CALLS);
    weir_held held;
    weir_held_now(f->fake.engine, &held);
    assert_int_equal(held.leased, 1);
    assert_int_equal(held.waiting, 0);
    run_ms(f, 5);
    assert_int_equal(ended_with(calls, CALLS, WEIR_CALL_OK), CALLS);
    assert_int_equal(f->fake.connects_begun, 1);
    free_many(calls, CALLS);
    close_fake(f);
}

static void more_than_multiplex_take_the_next_connection(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS + 1];
    open_warm(f);
    submit_many(f, calls, CALLS + 1);
    assert_int_equal(f->fake.connects_begun, 2);
    run_ms(f, 5);
    assert_int_equal(f->fake.most_in_flight, CALLS);
    assert_int_equal(ended_with(calls, CALLS + 1, WEIR_CALL_OK), CALLS + 1);
    free_many(calls, CALLS + 1);
    close_fake(f);
}

static void a_cold_pool_opens_one_connection_for_all_who_can_share_it(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    fake_open(&f->fake, &f->options);
    submit_many(f, calls, CALLS);
    run_ms(f, 50);
    assert_int_equal(f->fake.connects_begun, 1);
    assert_int_equal(ended_with(calls, CALLS, WEIR_CALL_OK), CALLS);
    free_many(calls, CALLS);
    close_fake(f);
}

static void as_many_may_wait_for_a_seat_as_ten_times_those_who_sit(void **state)
{
    struct fixture *f = *state;
    enum { SEATS = 8, ALL = 10 * SEATS };
    weir_call *calls[ALL];
    f->client.max = 1;
    f->client.queue_max = 0;
    fake_open(&f->fake, &f->options);
    for (int i = 0; i < ALL; i++) calls[i] = fake_submit(&f->fake, reading, "select 1");
    run_ms(f, 500);
    for (int i = 0; i < ALL; i++) {
        assert_int_equal(fake_code(calls[i]), WEIR_CALL_OK);
        weir_call_free(calls[i]);
    }
    assert_int_equal(f->fake.opened, 1);
    close_fake(f);
}

static void without_the_option_nothing_is_shared(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->client.multiplex = 1;
    open_warm(f);
    submit_many(f, calls, CALLS);
    run_ms(f, 50);
    assert_int_equal(f->fake.most_in_flight, 1);
    assert_int_equal(ended_with(calls, CALLS, WEIR_CALL_OK), CALLS);
    free_many(calls, CALLS);
    close_fake(f);
}

static void never_with_others(struct fixture *f, weir_request request, const char *sql)
{
    weir_call *read = fake_submit(&f->fake, reading, "select 1");
    weir_call *other = fake_submit(&f->fake, request, sql);
    weir_call *read_again = fake_submit(&f->fake, reading, "select 1");
    for (int i = 0; i < FAKE_LINKS; i++) {
        const struct fake_link *link = &f->fake.links[i];
        if (link->busy && !link->at_work.shared) assert_int_equal(link->behind_count, 0);
    }
    run_ms(f, 50);
    assert_int_equal(fake_code(other), WEIR_CALL_OK);
    weir_call_free(read);
    weir_call_free(other);
    weir_call_free(read_again);
}

static void what_may_lose_or_leave_something_is_alone(void **state)
{
    struct fixture *f = *state;
    static char large[100000];
    snprintf(large, sizeof large, "select '%080000d'", 0);
    open_warm(f);
    never_with_others(f, (weir_request){.readonly = false}, "select 1");
    never_with_others(f, reading, "set work_mem = '1MB'");
    never_with_others(f, reading, "vacuum");
    never_with_others(f, reading, large);
    assert_int_equal(f->fake.most_in_flight, 2); /* the reads around them */
    close_fake(f);
}

static void a_unit_has_its_connection_for_itself(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[3];
    open_warm(f);
    weir_call *unit = fake_begin(&f->fake, reading);
    run_ms(f, 5);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    submit_many(f, calls, 3);
    fake_send(unit, "select 2");
    run_ms(f, 50);
    assert_int_equal(ended_with(calls, 3, WEIR_CALL_OK), 3);
    assert_int_equal(weir_call_status(unit), WEIR_REPLIED);
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 5);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    weir_call_free(unit);
    free_many(calls, 3);
    close_fake(f);
}

/* ---- long statements ------------------------------------------------------------------------------------------- */

static void nobody_gets_on_behind_a_call_that_runs_long(void **state)
{
    struct fixture *f = *state;
    open_warm(f);
    f->special.after_ns = FAKE_MS(100);
    weir_call *slow = fake_submit(&f->fake, reading, "select 99");
    run_ms(f, 20);
    weir_call *quick = fake_submit(&f->fake, reading, "select 1");
    run_ms(f, 20);
    assert_int_equal(fake_code(quick), WEIR_CALL_OK);
    assert_int_equal(weir_call_status(slow), WEIR_WAITING);
    assert_int_equal(f->fake.most_in_flight, 1);
    run_ms(f, 100);
    assert_int_equal(fake_code(slow), WEIR_CALL_OK);
    weir_call_free(slow);
    weir_call_free(quick);
    close_fake(f);
}

static void long_statements_are_spread_over_connections(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[4];
    open_warm(f);
    f->fake.service_ns = FAKE_MS(10);
    for (int round = 0; round < 40; round++) { /* until the pace is known */
        submit_many(f, calls, 4);
        run_ms(f, 100);
        free_many(calls, 4);
    }
    f->fake.most_in_flight = 0;
    submit_many(f, calls, 4);
    run_ms(f, 12);
    assert_int_equal(f->fake.most_in_flight, 1);
    assert_int_equal(ended_with(calls, 4, WEIR_CALL_OK), 4);
    free_many(calls, 4);
    close_fake(f);
}

/* ---- neighbours ------------------------------------------------------------------------------------------------ */

static void an_error_is_only_its_own_calls(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[4];
    open_warm(f);
    memcpy(f->special.sqlstate, "22012", 6);
    submit_many(f, calls, 2);
    weir_call *bad = fake_submit(&f->fake, reading, "select 99");
    submit_many(f, calls + 2, 2);
    run_ms(f, 5);
    assert_int_equal(f->fake.most_in_flight, 5);
    assert_int_equal(ended_with(calls, 4, WEIR_CALL_OK), 4);
    assert_int_equal(fake_code(bad), WEIR_CALL_SERVER);
    assert_string_equal(weir_call_error(bad)->sqlstate, "22012");
    free_many(calls, 4);
    weir_call_free(bad);
    close_fake(f);
}

static void a_stale_statement_is_healed_on_the_lane(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[4];
    open_warm(f);
    f->special.heal = true;
    weir_call *stale = fake_submit(&f->fake, reading, "select 99");
    submit_many(f, calls, 4);
    f->special = (struct fake_answer){.after_ns = f->fake.service_ns};
    run_ms(f, 5);
    assert_int_equal(fake_code(stale), WEIR_CALL_OK);
    assert_int_equal(ended_with(calls, 4, WEIR_CALL_OK), 4);
    assert_int_equal(fake_counter(&f->fake, "events", "heals"), 1);
    weir_call_free(stale);
    free_many(calls, 4);
    close_fake(f);
}

static void a_lost_connection_fails_each_call_on_it_once_and_as_safe(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->fake.service_ns = FAKE_MS(10);
    open_warm(f);
    submit_many(f, calls, CALLS);
    fake_crash(&f->fake);
    run_ms(f, 5);
    assert_int_equal(ended_with(calls, CALLS, WEIR_CALL_LOST), CALLS);
    for (int i = 0; i < CALLS; i++) {
        const weir_error *e = weir_call_error(calls[i]);
        assert_int_equal(e->class_, WEIR_CLASS_SAFE);
        assert_int_equal(e->outcome, WEIR_OUTCOME_ROLLED_BACK);
        assert_int_equal(e->phase, WEIR_PHASE_SENT);
        assert_string_equal(e->message, "connection lost");
    }
    assert_int_equal(fake_counter(&f->fake, "calls", "failed"), CALLS);
    assert_int_equal(fake_counter(&f->fake, "closed", "error"), 1);
    free_many(calls, CALLS);
    close_fake(f);
}

static void what_was_lost_together_is_tried_again_together(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->options.retries = 3;
    f->fake.service_ns = FAKE_MS(10);
    open_warm(f);
    submit_many(f, calls, CALLS);
    fake_crash(&f->fake);
    run_ms(f, 900);
    assert_int_equal(ended_with(calls, CALLS, WEIR_CALL_OK), CALLS);
    free_many(calls, CALLS);
    close_fake(f);
}

static void a_send_that_finds_the_link_dead_fails_those_who_were_under_way(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[3];
    open_warm(f);
    submit_many(f, calls, 3);
    f->fake.send_fails = true;
    weir_call *last = fake_submit(&f->fake, reading, "select 1");
    f->fake.send_fails = false;
    run_ms(f, 50);
    assert_int_equal(ended_with(calls, 3, WEIR_CALL_LOST), 3);
    assert_int_equal(fake_code(last), WEIR_CALL_OK); /* not sent there: it waits for another */
    free_many(calls, 3);
    weir_call_free(last);
    close_fake(f);
}

/* ---- giving up ------------------------------------------------------------------------------------------------- */

static void who_gives_up_among_others_is_gone_at_once_and_nothing_is_cancelled(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[3];
    f->fake.service_ns = FAKE_MS(10);
    open_warm(f);
    submit_many(f, calls, 3);
    weir_call_cancel(calls[1]);
    assert_int_equal(fake_code(calls[1]), WEIR_CALL_CANCELLED);
    run_ms(f, 100);
    assert_int_equal(fake_code(calls[0]), WEIR_CALL_OK);
    assert_int_equal(fake_code(calls[2]), WEIR_CALL_OK);
    assert_int_equal(f->fake.cancels, 0);
    free_many(calls, 3);
    close_fake(f);
}

static void who_is_alone_on_the_lane_is_cancelled_as_ever(void **state)
{
    struct fixture *f = *state;
    f->fake.service_ns = FAKE_MS(1);
    open_warm(f);
    f->special.never = true;
    weir_call *alone = fake_submit(&f->fake, reading, "select 99");
    run_ms(f, 5);
    weir_call_free(alone);
    assert_int_equal(f->fake.cancels, 1);
    run_ms(f, 20);
    assert_int_equal(f->fake.opened, 1); /* the connection came back */
    close_fake(f);
}

static void the_last_one_awaited_to_end_lets_the_rest_be_cancelled(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[4];
    open_warm(f);
    submit_many(f, calls, 2);
    f->special.never = true;
    calls[2] = fake_submit(&f->fake, reading, "select 99");
    calls[3] = fake_submit(&f->fake, reading, "select 99");
    weir_call_cancel(calls[2]);
    weir_call_cancel(calls[3]);
    assert_int_equal(f->fake.cancels, 0);
    run_ms(f, 100);
    assert_int_equal(ended_with(calls, 2, WEIR_CALL_OK), 2);
    assert_int_equal(f->fake.cancels, 2); /* one after the other */
    assert_int_equal(f->fake.opened, 1);
    free_many(calls, 4);
    close_fake(f);
}

static void a_deadline_ends_its_call_and_no_neighbour(void **state)
{
    struct fixture *f = *state;
    weir_request brief = {.readonly = true, .timeout_ns = FAKE_MS(20)};
    open_warm(f);
    f->fake.watch_timeout = true;
    f->special.never = true;
    weir_call *late = fake_submit(&f->fake, brief, "select 99");
    weir_call *neighbour = fake_submit(&f->fake, reading, "select 1");
    run_ms(f, 150);
    assert_int_equal(fake_code(late), WEIR_CALL_TIMEOUT);
    assert_int_equal(fake_code(neighbour),
                     WEIR_CALL_OK); /* statement_timeout ended the other on the server */
    assert_int_equal(f->fake.cancels, 0);
    weir_call_free(late);
    weir_call_free(neighbour);
    close_fake(f);
}

static void a_head_that_hangs_past_its_deadline_is_cut_after_cancel_wait(void **state)
{
    struct fixture *f = *state;
    weir_request brief = {.readonly = true, .timeout_ns = FAKE_MS(20)};
    open_warm(f);
    f->special.never = true;
    weir_call *hung = fake_submit(&f->fake, brief, "select 99");
    weir_call *neighbour = fake_submit(&f->fake, reading, "select 1");
    run_ms(f, 110);
    assert_int_equal(fake_code(hung), WEIR_CALL_TIMEOUT);
    assert_int_equal(weir_call_status(neighbour), WEIR_WAITING);
    run_ms(f, 150);
    assert_int_equal(fake_code(neighbour), WEIR_CALL_LOST);
    assert_int_equal(weir_call_error(neighbour)->class_, WEIR_CLASS_SAFE);
    assert_int_equal(f->fake.cancels, 0);
    assert_int_equal(fake_counter(&f->fake, "closed", "cancel"), 1);
    weir_call_free(hung);
    weir_call_free(neighbour);
    close_fake(f);
}

static void a_deserted_lane_that_never_speaks_is_closed_after_cancel_wait(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[3];
    open_warm(f);
    f->special.never = true;
    f->fake.cancel_ns = UINT64_MAX;
    for (int i = 0; i < 3; i++) calls[i] = fake_submit(&f->fake, reading, "select 99");
    free_many(calls, 3);
    run_ms(f, 190);
    assert_int_equal(f->fake.opened, 1);
    run_ms(f, 20);
    assert_int_equal(f->fake.opened, 0);
    assert_int_equal(fake_counter(&f->fake, "closed", "cancel"), 1);
    close_fake(f);
}

static void nobody_is_sent_behind_a_cancel(void **state)
{
    struct fixture *f = *state;
    weir_request brief = {.readonly = true, .timeout_ns = FAKE_MS(20)};
    open_warm(f);
    f->special.never = true;
    f->fake.cancel_ns = FAKE_MS(30);
    weir_call *late = fake_submit(&f->fake, brief, "select 99");
    run_ms(f, 25);
    assert_int_equal(f->fake.cancels, 1); /* alone, so it could be */
    weir_call *next =
        fake_submit(&f->fake, reading, "select 1"); /* the fake aborts if it came on that link */
    run_ms(f, 100);
    assert_int_equal(fake_code(late), WEIR_CALL_TIMEOUT);
    assert_int_equal(fake_code(next), WEIR_CALL_OK);
    weir_call_free(late);
    weir_call_free(next);
    close_fake(f);
}

/* ---- fairness and bounds --------------------------------------------------------------------------------------- */

static void a_write_gets_the_connection_although_reads_never_cease(void **state)
{
    struct fixture *f = *state;
    weir_call *reads[400];
    size_t count = 0;
    f->client.max = 1;
    open_warm(f);
    reads[count++] = fake_submit(&f->fake, reading, "select 1");
    weir_call *write = fake_submit(&f->fake, (weir_request){.readonly = false}, "select 2");
    for (int i = 0; i < 100; i++) {
        reads[count++] = fake_submit(&f->fake, reading, "select 1");
        reads[count++] = fake_submit(&f->fake, reading, "select 1");
        fake_run(&f->fake, FAKE_MS(1) / 10);
        if (weir_call_status(write) == WEIR_ENDED) break;
    }
    assert_int_equal(fake_code(write), WEIR_CALL_OK);
    assert_true(count < 40); /* one lane's fill went before it, not more */
    run_ms(f, 100);
    assert_int_equal(ended_with(reads, count, WEIR_CALL_OK), count);
    free_many(reads, count);
    weir_call_free(write);
    close_fake(f);
}

static void a_link_that_is_full_takes_no_more(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[3];
    open_warm(f);
    calls[0] = fake_submit(&f->fake, reading, "select 1");
    f->fake.full = true;
    calls[1] = fake_submit(&f->fake, reading, "select 1");
    calls[2] = fake_submit(&f->fake, reading, "select 1");
    assert_int_equal(f->fake.most_in_flight, 1);
    run_ms(f, 50);
    assert_int_equal(ended_with(calls, 3, WEIR_CALL_OK), 3);
    free_many(calls, 3);
    close_fake(f);
}

static void a_lane_that_one_call_dirtied_is_cleaned_before_anybody_else_comes(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[3];
    f->fake.books = true; /* it aborts if somebody borrows what is dirty */
    open_warm(f);
    f->special.dirty = true;
    calls[0] = fake_submit(&f->fake, reading, "select 99");
    calls[1] = fake_submit(&f->fake, reading, "select 1");
    fake_run(&f->fake, f->fake.service_ns + 1000);
    calls[2] = fake_submit(&f->fake, reading, "select 1");
    run_ms(f, 50);
    assert_int_equal(f->fake.most_in_flight, 2);
    assert_int_equal(f->fake.resets, 1);
    assert_int_equal(ended_with(calls, 3, WEIR_CALL_OK), 3);
    free_many(calls, 3);
    close_fake(f);
}

static void draining_waits_for_all_who_ride(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->fake.service_ns = FAKE_MS(1);
    open_warm(f);
    submit_many(f, calls, CALLS);
    weir_drain(f->fake.engine, FAKE_MS(500));
    run_ms(f, 50);
    assert_int_equal(ended_with(calls, CALLS, WEIR_CALL_OK), CALLS);
    assert_true(weir_drained(f->fake.engine));
    free_many(calls, CALLS);
    fake_close(&f->fake);
}

static void an_engine_can_be_freed_with_calls_on_a_lane(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    f->fake.service_ns = FAKE_MS(10);
    open_warm(f);
    submit_many(f, calls, CALLS);
    weir_call_cancel(calls[3]);
    fake_free(&f->fake);
    assert_int_equal(ended_with(calls, CALLS, WEIR_CALL_CANCELLED), CALLS);
    free_many(calls, CALLS);
}

static void a_warm_lane_allocates_nothing(void **state)
{
    struct fixture *f = *state;
    weir_call *calls[CALLS];
    weir_held before, after;
    open_warm(f);
    submit_many(f, calls, CALLS);
    run_ms(f, 5);
    free_many(calls, CALLS);
    weir_held_now(f->fake.engine, &before);
    for (int round = 0; round < 20; round++) {
        submit_many(f, calls, CALLS);
        run_ms(f, 5);
        free_many(calls, CALLS);
    }
    weir_held_now(f->fake.engine, &after);
    assert_int_equal(after.allocations, before.allocations);
    close_fake(f);
}

/* ---- anything at any time -------------------------------------------------------------------------------------- */

static uint32_t draw(uint64_t *seed, uint32_t below)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33) % below;
}

static void answer_by_chance(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                             struct fake_answer *answer)
{
    uint64_t *seed = &((struct fixture *)fake->user)->seed;
    static const char *const states[] = {"22012", "40001", "57014"};
    (void)link;
    if (segment->kind != WR_SEGMENT_SINGLE) return;
    uint32_t luck = draw(seed, 100);
    answer->after_ns = (uint64_t)draw(seed, 100) * FAKE_MS(1) / 50;
    if (luck < 6) memcpy(answer->sqlstate, states[luck % 3], 6);
    answer->never = luck == 6;
    answer->lost = luck == 7;
    answer->heal = luck == 8 || luck == 9;
    answer->dirty = luck == 10;
}

enum { CROWD = 48, STEPS = 4000 };

static void live_through(struct fixture *f, uint64_t seed)
{
    weir_call *crowd[CROWD] = {NULL};
    f->seed = seed;
    for (int step = 0; step < STEPS; step++) {
        weir_call **call = &crowd[draw(&seed, CROWD)];
        uint32_t luck = draw(&seed, 100);
        if (*call != NULL && (weir_call_status(*call) == WEIR_ENDED || luck < 5)) {
            weir_call_free(*call);
            *call = NULL;
        } else if (*call != NULL && luck < 10) {
            weir_call_cancel(*call);
        } else if (*call == NULL) {
            weir_request request = {.readonly = luck < 85, .timeout_ns = FAKE_MS(1 + draw(&seed, 100))};
            *call = fake_submit(&f->fake, request, "select 1");
        }
        if (luck == 99) fake_crash(&f->fake);
        fake_run(&f->fake, FAKE_MS(draw(&seed, 10)) / 10);
    }
    for (int i = 0; i < CROWD; i++) {
        if (crowd[i] != NULL) weir_call_free(crowd[i]);
    }
}

static void whatever_happens_everything_is_given_back(void **state)
{
    struct fixture *f = *state;
    f->options.retries = 2;
    f->options.breaker.min_calls = 100;
    f->options.breaker.open_for_ns = FAKE_MS(20);
    f->fake.answer = answer_by_chance;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        f->fake.answer = answer_by_chance;
        fake_open(&f->fake, &f->options);
        live_through(f, seed);
        fake_run(&f->fake, FAKE_MS(5000));
        assert_true(f->fake.most_in_flight > 1);
        fake_close(&f->fake);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reads_share_one_connection, set_up),
        cmocka_unit_test_setup(more_than_multiplex_take_the_next_connection, set_up),
        cmocka_unit_test_setup(a_cold_pool_opens_one_connection_for_all_who_can_share_it, set_up),
        cmocka_unit_test_setup(as_many_may_wait_for_a_seat_as_ten_times_those_who_sit, set_up),
        cmocka_unit_test_setup(without_the_option_nothing_is_shared, set_up),
        cmocka_unit_test_setup(what_may_lose_or_leave_something_is_alone, set_up),
        cmocka_unit_test_setup(a_unit_has_its_connection_for_itself, set_up),
        cmocka_unit_test_setup(nobody_gets_on_behind_a_call_that_runs_long, set_up),
        cmocka_unit_test_setup(long_statements_are_spread_over_connections, set_up),
        cmocka_unit_test_setup(an_error_is_only_its_own_calls, set_up),
        cmocka_unit_test_setup(a_stale_statement_is_healed_on_the_lane, set_up),
        cmocka_unit_test_setup(a_lost_connection_fails_each_call_on_it_once_and_as_safe, set_up),
        cmocka_unit_test_setup(what_was_lost_together_is_tried_again_together, set_up),
        cmocka_unit_test_setup(a_send_that_finds_the_link_dead_fails_those_who_were_under_way, set_up),
        cmocka_unit_test_setup(who_gives_up_among_others_is_gone_at_once_and_nothing_is_cancelled, set_up),
        cmocka_unit_test_setup(who_is_alone_on_the_lane_is_cancelled_as_ever, set_up),
        cmocka_unit_test_setup(the_last_one_awaited_to_end_lets_the_rest_be_cancelled, set_up),
        cmocka_unit_test_setup(a_deadline_ends_its_call_and_no_neighbour, set_up),
        cmocka_unit_test_setup(a_head_that_hangs_past_its_deadline_is_cut_after_cancel_wait, set_up),
        cmocka_unit_test_setup(a_deserted_lane_that_never_speaks_is_closed_after_cancel_wait, set_up),
        cmocka_unit_test_setup(nobody_is_sent_behind_a_cancel, set_up),
        cmocka_unit_test_setup(a_write_gets_the_connection_although_reads_never_cease, set_up),
        cmocka_unit_test_setup(a_link_that_is_full_takes_no_more, set_up),
        cmocka_unit_test_setup(a_lane_that_one_call_dirtied_is_cleaned_before_anybody_else_comes, set_up),
        cmocka_unit_test_setup(draining_waits_for_all_who_ride, set_up),
        cmocka_unit_test_setup(an_engine_can_be_freed_with_calls_on_a_lane, set_up),
        cmocka_unit_test_setup(a_warm_lane_allocates_nothing, set_up),
        cmocka_unit_test_setup(whatever_happens_everything_is_given_back, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
