/* Units of work: what is committed, what is rolled back, what is told, whatever happens in between. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct fake fake;
    weir_options options;
    weir_client client;            /* one pool, small */
    struct fake_answer answers[8]; /* by kind of segment, from the first to `until`-th of its kind */
    int until;
    bool scripted[8];
};

static int *seen_of(struct fake *fake, enum wr_segment_kind kind)
{
    static int none;
    int *const counts[] = {&fake->singles,   &fake->begins, &none,         &fake->commits,
                           &fake->rollbacks, &fake->probes, &fake->resets, &fake->xact_questions};
    return counts[kind];
}

static void scripted(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                     struct fake_answer *answer)
{
    struct fixture *f = fake->user;
    (void)link;
    if (!f->scripted[segment->kind] || *seen_of(fake, segment->kind) > f->until) return;
    uint64_t after = answer->after_ns, xid = answer->xid;
    *answer = f->answers[segment->kind];
    if (answer->after_ns == 0) answer->after_ns = after;
    if (answer->xid == 0) answer->xid = xid;
}

/* The first `times` segments of this kind are answered so; all others well. */
static void answer_with(struct fixture *f, enum wr_segment_kind kind, int times, struct fake_answer answer)
{
    f->scripted[kind] = true;
    f->answers[kind] = answer;
    f->until = times;
}

static int set_up(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    fake_init(&f.fake);
    fake_options(&f.options);
    f.client = f.options.clients[0];
    f.client.max = 1;
    f.options.clients = &f.client;
    f.options.client_count = 1;
    f.options.timeout_ns = FAKE_MS(1000);
    f.fake.user = &f;
    f.fake.answer = scripted;
    f.fake.books = true;
    *state = &f;
    return 0;
}

static void run_ms(struct fixture *f, uint64_t ms)
{
    fake_run(&f->fake, FAKE_MS(ms));
}

/* A unit that holds its connection and has sent "select 7" well. */
static weir_call *unit_at_work(struct fixture *f, weir_request request)
{
    weir_call *unit = fake_begin(&f->fake, request);
    run_ms(f, 5);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    fake_send(unit, "select 7");
    run_ms(f, 5);
    assert_int_equal(weir_call_status(unit), WEIR_REPLIED);
    return unit;
}

static void close_all(struct fixture *f, weir_call *unit)
{
    weir_call_free(unit);
    run_ms(f, 20);
    fake_close(&f->fake);
}

/* ---- the plain life -------------------------------------------------------------------------- */

static void a_unit_commits_what_it_sent(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    assert_null(weir_call_error(unit));
    assert_int_equal(weir_call_result_count(unit), 1);
    assert_int_equal(f->fake.effects[7], 0);
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 5);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    assert_int_equal(f->fake.effects[7], 1);
    close_all(f, unit);
}

static void a_unit_that_sends_nothing_ends_well_without_asking_the_server(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *unit = fake_begin(&f->fake, (weir_request){0});
    run_ms(f, 5);
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 1);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    assert_int_equal(f->fake.sends, 0);
    close_all(f, unit);
}

static void what_does_not_fit_the_status_is_refused(void **state)
{
    struct fixture *f = *state;
    weir_statement statement = {.sql = "select 1"}, ending = {.sql = "commit"};
    char why[WEIR_WHY_MAX];
    fake_open(&f->fake, &f->options);
    weir_call *single = fake_submit(&f->fake, (weir_request){0}, "select 1");
    assert_int_equal(weir_unit_send(single, &statement, 1, why), WEIR_ESTATE);
    run_ms(f, 10);
    weir_call_free(single);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    assert_int_equal(weir_unit_send(unit, &ending, 1, why), WEIR_EINVAL);
    assert_int_equal(weir_unit_send(unit, &statement, 0, why), WEIR_EINVAL);
    fake_send(unit, "select 8");
    assert_int_equal(weir_unit_send(unit, &statement, 1, why), WEIR_ESTATE);
    assert_int_equal(weir_unit_finish(unit, WEIR_COMMIT), WEIR_ESTATE);
    run_ms(f, 5);
    fake_finish(unit, WEIR_COMMIT);
    assert_int_equal(weir_unit_finish(unit, WEIR_COMMIT), WEIR_ESTATE);
    run_ms(f, 5);
    assert_int_equal(weir_unit_finish(unit, WEIR_COMMIT), WEIR_ESTATE);
    close_all(f, unit);
}

static void a_unit_rolled_back_by_its_owner_is_not_run_again(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_finish(unit, WEIR_ROLLBACK);
    run_ms(f, 50);
    assert_int_equal(fake_code(unit), WEIR_CALL_ROLLED_BACK);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(f->fake.rollbacks, 1);
    assert_int_equal(f->fake.effects[7], 0);
    close_all(f, unit);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void a_failed_unit_is_run_again_from_its_start(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_BEGIN, 1, (struct fake_answer){.sqlstate = "40001"});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    assert_string_equal(weir_call_error(unit)->sqlstate, "40001");
    fake_finish(unit, WEIR_FAILED);
    run_ms(f, 100);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    assert_int_equal(weir_call_attempt(unit), 2);
    assert_null(weir_call_error(unit));
    fake_send(unit, "select 7");
    run_ms(f, 5);
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 5);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    assert_int_equal(f->fake.effects[7], 1);
    close_all(f, unit);
}

static void a_swallowed_error_is_not_committed(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_BEGIN, 1, (struct fake_answer){.sqlstate = "22012"});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 5);
    assert_int_equal(fake_code(unit), WEIR_CALL_ABORTED);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(f->fake.commits, 0);
    close_all(f, unit);
}

static void the_first_error_decides_and_not_its_echo(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_BEGIN, 1, (struct fake_answer){.sqlstate = "40001"});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_send(unit, "select 8"); /* answered with 25P02 */
    run_ms(f, 5);
    assert_string_equal(weir_call_error(unit)->sqlstate, "40001");
    fake_finish(unit, WEIR_FAILED);
    run_ms(f, 100);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    close_all(f, unit);
}

static void a_commit_answered_with_rollback_is_told_as_aborted(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_COMMIT, 1, (struct fake_answer){.commit_says_rollback = true});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 5);
    assert_int_equal(fake_code(unit), WEIR_CALL_ABORTED);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_ROLLED_BACK);
    close_all(f, unit);
}

static void an_error_at_commit_is_retried_if_it_is_safe(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_COMMIT, 1, (struct fake_answer){.sqlstate = "40001"});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 100);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    assert_int_equal(weir_call_attempt(unit), 2);
    close_all(f, unit);
}

static void escape(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                   struct fake_answer *answer)
{
    (void)fake;
    (void)link;
    answer->escapes = segment->kind == WR_SEGMENT_BEGIN;
}

static void a_transaction_ended_behind_our_back_is_unknown_and_nothing_more_runs_in_it(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    f->fake.answer = escape;
    weir_call *unit = unit_at_work(f, (weir_request){0});
    assert_int_equal(weir_call_error(unit)->outcome, WEIR_OUTCOME_UNKNOWN);
    int sends = f->fake.sends;
    fake_send(unit, "select 8");
    run_ms(f, 5);
    assert_int_equal(weir_call_status(unit), WEIR_REPLIED);
    assert_int_equal(f->fake.sends, sends);
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 5);
    assert_int_equal(fake_code(unit), WEIR_CALL_ABORTED);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(f->fake.resets, 1); /* the role went with the transaction; whatever it left goes too */
    close_all(f, unit);
}

static void a_stale_statement_cache_at_begin_is_mended_once(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_BEGIN, 1, (struct fake_answer){.heal = true, .sqlstate = "26000"});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    assert_null(weir_call_error(unit));
    assert_int_equal(f->fake.begins, 2);
    assert_int_equal(weir_call_attempt(unit), 1);
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 5);
    assert_int_equal(f->fake.effects[7], 1);
    close_all(f, unit);
}

/* ---- losses ---------------------------------------------------------------------------------- */

static void a_loss_between_statements_is_heard_at_the_next_one(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_crash(&f->fake);
    run_ms(f, 1);
    assert_int_equal(weir_call_status(unit), WEIR_REPLIED);
    fake_send(unit, "select 8");
    run_ms(f, 1);
    assert_int_equal(weir_call_error(unit)->code, WEIR_CALL_LOST);
    assert_int_equal(weir_call_error(unit)->outcome, WEIR_OUTCOME_ROLLED_BACK);
    fake_finish(unit, WEIR_FAILED);
    run_ms(f, 100);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    close_all(f, unit);
}

static void a_loss_before_commit_is_rolled_back_and_run_again(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_crash(&f->fake);
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 100);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    assert_int_equal(f->fake.commits, 0);
    close_all(f, unit);
}

static void a_unit_whose_link_dies_at_a_send_makes_room_for_who_waits(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    weir_call *waiter = fake_submit(&f->fake, (weir_request){0}, "select 9");
    f->fake.send_fails = true;
    fake_send(unit, "select 8");
    f->fake.send_fails = false;
    run_ms(f, 20);
    assert_int_equal(fake_code(waiter), WEIR_CALL_OK); /* the pool has one place */
    assert_int_equal(weir_call_error(unit)->code, WEIR_CALL_LOST);
    weir_call_free(waiter);
    close_all(f, unit);
}

static void a_lost_commit_of_nothing_is_safe_to_repeat(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    f->fake.books = false; /* no transaction id is ever assigned */
    answer_with(f, WR_SEGMENT_COMMIT, 1, (struct fake_answer){.lost = true});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 100);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    assert_int_equal(f->fake.xact_questions, 0);
    close_all(f, unit);
}

static void a_lost_commit_of_a_notify_is_unknown(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    f->fake.books = false;
    answer_with(f, WR_SEGMENT_COMMIT, 1, (struct fake_answer){.lost = true});
    weir_call *unit = fake_begin(&f->fake, (weir_request){0});
    run_ms(f, 5);
    fake_send(unit, "NOTIFY door");
    run_ms(f, 5);
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 5);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
    close_all(f, unit);
}

static void nothing_written_so_far_holds_for_the_flight_that_asked_alone(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    f->fake.books = false;
    answer_with(f, WR_SEGMENT_MORE, 1, (struct fake_answer){.no_xid_answer = true});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_send(unit, "select 8");
    run_ms(f, 5);
    answer_with(f, WR_SEGMENT_COMMIT, 1, (struct fake_answer){.lost = true});
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 5);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
    close_all(f, unit);
}

static void a_lost_commit_of_a_readonly_unit_is_run_again(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_COMMIT, 1, (struct fake_answer){.lost = true});
    weir_call *unit = unit_at_work(f, (weir_request){.readonly = true});
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 100);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    close_all(f, unit);
}

/* ---- deadlines, cancels, drains -------------------------------------------------------------- */

static void the_deadline_ends_a_held_unit_and_rolls_it_back(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    run_ms(f, 1000);
    assert_int_equal(fake_code(unit), WEIR_CALL_TIMEOUT);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(f->fake.rollbacks, 1);
    close_all(f, unit);
}

static void the_deadline_on_the_wire_cancels_and_rolls_back(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_MORE, 1, (struct fake_answer){.never = true});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_send(unit, "select 8");
    run_ms(f, 1000);
    assert_int_equal(fake_code(unit), WEIR_CALL_TIMEOUT);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(f->fake.cancels, 1);
    close_all(f, unit);
}

/* A loop that is late reads the server's 57014 before its own timer. */
static void the_deadline_told_by_the_server_is_the_deadline(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_MORE, 1, (struct fake_answer){.sqlstate = "57014", .after_ns = FAKE_MS(970)});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_send(unit, "select 8");
    run_ms(f, 985);
    assert_int_equal(fake_code(unit), WEIR_CALL_TIMEOUT);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_ROLLED_BACK);
    assert_int_equal(f->fake.cancels, 0);
    close_all(f, unit);
}

static void a_statement_cancelled_by_somebody_else_is_no_deadline(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_MORE, 1, (struct fake_answer){.sqlstate = "57014"});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_send(unit, "select 8");
    run_ms(f, 5);
    assert_int_equal(weir_call_status(unit), WEIR_REPLIED);
    assert_string_equal(weir_call_error(unit)->sqlstate, "57014");
    assert_int_equal(weir_call_error(unit)->code, WEIR_CALL_SERVER);
    fake_finish(unit, WEIR_ROLLBACK);
    run_ms(f, 5);
    close_all(f, unit);
}

static void a_commit_is_never_cancelled_and_its_deadline_leaves_it_unknown(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_COMMIT, 1, (struct fake_answer){.after_ns = FAKE_MS(1500)});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 1080);
    assert_int_equal(fake_code(unit), WEIR_CALL_TIMEOUT);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(f->fake.cancels, 0);
    run_ms(f, 1000);
    assert_int_equal(f->fake.effects[7], 1); /* and it did commit */
    close_all(f, unit);
}

static void a_commit_answered_within_the_grace_is_told_as_it_is(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_COMMIT, 1, (struct fake_answer){.after_ns = FAKE_MS(1030)});
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 1100);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    close_all(f, unit);
}

static void a_cancelled_unit_says_what_became_of_it(void **state)
{
    static const struct {
        enum wr_segment_kind at;
        weir_outcome outcome;
        int cancels;
    } cases[] = {{WR_SEGMENT_PROBE, WEIR_OUTCOME_ROLLED_BACK, 0}, /* held: nothing on the wire */
                 {WR_SEGMENT_MORE, WEIR_OUTCOME_ROLLED_BACK, 1},
                 {WR_SEGMENT_COMMIT, WEIR_OUTCOME_UNKNOWN, 0}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_up(state);
        fake_open(&f->fake, &f->options);
        weir_call *unit = unit_at_work(f, (weir_request){0});
        if (cases[i].at == WR_SEGMENT_MORE) fake_send(unit, "select 8");
        if (cases[i].at == WR_SEGMENT_COMMIT) fake_finish(unit, WEIR_COMMIT);
        weir_call_cancel(unit);
        assert_int_equal(fake_code(unit), WEIR_CALL_CANCELLED);
        assert_int_equal(fake_outcome(unit), cases[i].outcome);
        assert_int_equal(f->fake.cancels, cases[i].cancels);
        run_ms(f, 20);
        close_all(f, unit);
    }
}

static void a_held_unit_outlives_a_drain_until_its_timeout(void **state)
{
    struct fixture *f = *state;
    f->options.timeout_ns = FAKE_MS(60000);
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    weir_drain(f->fake.engine, FAKE_MS(200));
    run_ms(f, 100);
    assert_int_equal(weir_call_status(unit), WEIR_REPLIED);
    assert_false(weir_drained(f->fake.engine));
    run_ms(f, 101);
    assert_int_equal(fake_code(unit), WEIR_CALL_CANCELLED);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_ROLLED_BACK);
    assert_true(weir_drained(f->fake.engine));
    assert_int_equal(f->fake.opened, 0);
    close_all(f, unit);
}

static void a_unit_that_commits_while_draining_leaves_no_connection(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    weir_call *waiter = fake_submit(&f->fake, (weir_request){0}, "select 9");
    weir_drain(f->fake.engine, FAKE_MS(5000));
    fake_finish(unit, WEIR_COMMIT);
    run_ms(f, 10);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    assert_int_equal(fake_code(waiter), WEIR_CALL_OK);
    assert_int_equal(f->fake.connects_begun, 1); /* the waiter got the unit's */
    assert_true(weir_drained(f->fake.engine));
    weir_call_free(waiter);
    close_all(f, unit);
}

/* ---- leaks and leavings ---------------------------------------------------------------------- */

static void a_unit_that_holds_too_long_is_reported_once(void **state)
{
    struct fixture *f = *state;
    f->options.leak_after_ns = FAKE_MS(100);
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    run_ms(f, 500);
    assert_int_equal(fake_counter(&f->fake, "events", "leaks"), 1);
    close_all(f, unit);
}

static void who_has_lost_its_connection_holds_none(void **state)
{
    struct fixture *f = *state;
    f->options.leak_after_ns = FAKE_MS(100);
    fake_open(&f->fake, &f->options);
    weir_call *unit = unit_at_work(f, (weir_request){0});
    fake_crash(&f->fake);
    run_ms(f, 500);
    assert_int_equal(fake_counter(&f->fake, "events", "leaks"), 0);
    close_all(f, unit);
}

static void the_reset_rule_is_kept_after_a_rollback(void **state)
{
    static const struct {
        weir_reset rule;
        bool dirty;
        int resets;
    } cases[] = {{WEIR_RESET_AUTO, false, 0},
                 {WEIR_RESET_AUTO, true, 1},
                 {WEIR_RESET_ALWAYS, false, 1},
                 {WEIR_RESET_NEVER, true, 0}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_up(state);
        f->options.reset = cases[i].rule;
        fake_open(&f->fake, &f->options);
        answer_with(f, WR_SEGMENT_BEGIN, 1, (struct fake_answer){.dirty = cases[i].dirty});
        weir_call *unit = unit_at_work(f, (weir_request){0});
        fake_finish(unit, WEIR_ROLLBACK);
        run_ms(f, 10);
        assert_int_equal(f->fake.rollbacks, 1);
        assert_int_equal(f->fake.resets, cases[i].resets);
        assert_int_equal(f->fake.opened, 1);
        close_all(f, unit);
    }
}

static void a_rollback_that_is_never_answered_costs_the_connection(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    answer_with(f, WR_SEGMENT_ROLLBACK, 1, (struct fake_answer){.never = true});
    weir_call *unit = unit_at_work(f, (weir_request){.timeout_ns = FAKE_MS(100)});
    weir_call *waiter = fake_submit(&f->fake, (weir_request){.timeout_ns = FAKE_MS(9000)}, "select 9");
    fake_finish(unit, WEIR_ROLLBACK);
    run_ms(f, 5100);
    assert_int_equal(fake_code(waiter), WEIR_CALL_OK);
    weir_call_free(waiter);
    close_all(f, unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_unit_commits_what_it_sent, set_up),
        cmocka_unit_test_setup(a_unit_that_sends_nothing_ends_well_without_asking_the_server, set_up),
        cmocka_unit_test_setup(what_does_not_fit_the_status_is_refused, set_up),
        cmocka_unit_test_setup(a_unit_rolled_back_by_its_owner_is_not_run_again, set_up),
        cmocka_unit_test_setup(a_failed_unit_is_run_again_from_its_start, set_up),
        cmocka_unit_test_setup(a_swallowed_error_is_not_committed, set_up),
        cmocka_unit_test_setup(the_first_error_decides_and_not_its_echo, set_up),
        cmocka_unit_test_setup(a_commit_answered_with_rollback_is_told_as_aborted, set_up),
        cmocka_unit_test_setup(an_error_at_commit_is_retried_if_it_is_safe, set_up),
        cmocka_unit_test_setup(a_transaction_ended_behind_our_back_is_unknown_and_nothing_more_runs_in_it,
                               set_up),
        cmocka_unit_test_setup(a_stale_statement_cache_at_begin_is_mended_once, set_up),
        cmocka_unit_test_setup(a_loss_between_statements_is_heard_at_the_next_one, set_up),
        cmocka_unit_test_setup(a_loss_before_commit_is_rolled_back_and_run_again, set_up),
        cmocka_unit_test_setup(a_unit_whose_link_dies_at_a_send_makes_room_for_who_waits, set_up),
        cmocka_unit_test_setup(a_lost_commit_of_nothing_is_safe_to_repeat, set_up),
        cmocka_unit_test_setup(a_lost_commit_of_a_notify_is_unknown, set_up),
        cmocka_unit_test_setup(nothing_written_so_far_holds_for_the_flight_that_asked_alone, set_up),
        cmocka_unit_test_setup(a_lost_commit_of_a_readonly_unit_is_run_again, set_up),
        cmocka_unit_test_setup(the_deadline_ends_a_held_unit_and_rolls_it_back, set_up),
        cmocka_unit_test_setup(the_deadline_on_the_wire_cancels_and_rolls_back, set_up),
        cmocka_unit_test_setup(the_deadline_told_by_the_server_is_the_deadline, set_up),
        cmocka_unit_test_setup(a_statement_cancelled_by_somebody_else_is_no_deadline, set_up),
        cmocka_unit_test_setup(a_commit_is_never_cancelled_and_its_deadline_leaves_it_unknown, set_up),
        cmocka_unit_test_setup(a_commit_answered_within_the_grace_is_told_as_it_is, set_up),
        cmocka_unit_test_setup(a_cancelled_unit_says_what_became_of_it, set_up),
        cmocka_unit_test_setup(a_held_unit_outlives_a_drain_until_its_timeout, set_up),
        cmocka_unit_test_setup(a_unit_that_commits_while_draining_leaves_no_connection, set_up),
        cmocka_unit_test_setup(a_unit_that_holds_too_long_is_reported_once, set_up),
        cmocka_unit_test_setup(who_has_lost_its_connection_holds_none, set_up),
        cmocka_unit_test_setup(the_reset_rule_is_kept_after_a_rollback, set_up),
        cmocka_unit_test_setup(a_rollback_that_is_never_answered_costs_the_connection, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
