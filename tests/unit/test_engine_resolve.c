/* Lost COMMITs: the engine asks what became of them, and says so, or says that nobody can know. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct fake fake;
    weir_options options;
    weir_client client;
    struct fake_answer commit;   /* of the first COMMIT */
    struct fake_answer question; /* of the questions about it, if has_question */
    bool has_question;
};

static void lose_the_commit(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                            struct fake_answer *answer)
{
    struct fixture *f = fake->user;
    (void)link;
    uint64_t after = answer->after_ns;
    if (segment->kind == WR_SEGMENT_COMMIT && fake->commits == 1) *answer = f->commit;
    if (segment->kind == WR_SEGMENT_XACT_STATUS && f->has_question) *answer = f->question;
    if (answer->after_ns == 0) answer->after_ns = after;
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
    f.options.timeout_ns = FAKE_MS(2000);
    f.commit = (struct fake_answer){.lost = true, .survives = true};
    f.fake.user = &f;
    f.fake.answer = lose_the_commit;
    f.fake.books = true;
    *state = &f;
    return 0;
}

static void run_ms(struct fixture *f, uint64_t ms)
{
    fake_run(&f->fake, FAKE_MS(ms));
}

static void at_work(struct fixture *f, weir_call *unit)
{
    run_ms(f, 5);
    fake_send(unit, "select 7");
    run_ms(f, 5);
    fake_finish(unit, WEIR_COMMIT);
}

/* A unit whose COMMIT is on the wire and about to be lost. */
static weir_call *committing(struct fixture *f, weir_request request)
{
    fake_open(&f->fake, &f->options);
    weir_call *unit = fake_begin(&f->fake, request);
    at_work(f, unit);
    return unit;
}

static void end(struct fixture *f, weir_call *unit)
{
    weir_call_free(unit);
    run_ms(f, 20);
    fake_close(&f->fake);
}

static void a_commit_found_committed_is_told_as_committed(void **state)
{
    struct fixture *f = *state;
    weir_call *unit = committing(f, (weir_request){0});
    run_ms(f, 100);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    assert_int_equal(f->fake.effects[7], 1);
    assert_int_equal(fake_counter(&f->fake, "events", "resolved_committed"), 1);
    end(f, unit);
}

static void a_commit_found_aborted_is_run_again(void **state)
{
    struct fixture *f = *state;
    f->commit.survives = false;
    weir_call *unit = committing(f, (weir_request){0});
    run_ms(f, 200);
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    at_work(f, unit);
    run_ms(f, 5);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    assert_int_equal(f->fake.effects[7], 1);
    assert_int_equal(fake_counter(&f->fake, "events", "resolved_aborted"), 1);
    end(f, unit);
}

static void a_commit_still_running_is_asked_about_until_it_ends(void **state)
{
    struct fixture *f = *state;
    f->commit.in_progress_ns = FAKE_MS(700);
    weir_call *unit = committing(f, (weir_request){0});
    run_ms(f, 600);
    assert_int_equal(weir_call_status(unit), WEIR_WAITING);
    run_ms(f, 1000);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    assert_in_range(f->fake.xact_questions, 3, 10);
    end(f, unit);
}

static void a_commit_that_outlasts_the_deadline_is_unknown(void **state)
{
    struct fixture *f = *state;
    f->commit.in_progress_ns = FAKE_MS(60000);
    weir_call *unit = committing(f, (weir_request){0});
    run_ms(f, 2000);
    assert_int_equal(fake_code(unit), WEIR_CALL_TIMEOUT);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(fake_counter(&f->fake, "events", "resolved_not"), 1);
    end(f, unit);
}

static void what_the_server_cannot_tell_is_unknown(void **state)
{
    static const struct fake_answer answers[] = {{.xact = WR_XACT_FORGOTTEN},
                                                 {.sqlstate = "42501"},
                                                 {.xact = WR_XACT_NONE}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        set_up(state);
        f->has_question = true;
        f->question = answers[i];
        weir_call *unit = committing(f, (weir_request){0});
        run_ms(f, 200);
        assert_int_equal(fake_code(unit), WEIR_CALL_LOST);
        assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
        assert_int_equal(f->fake.commits, 1);
        assert_int_equal(fake_counter(&f->fake, "events", "resolved_not"), 1);
        end(f, unit);
    }
}

static void another_server_is_not_believed(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        set_up(state);
        weir_call *unit = committing(f, (weir_request){0});
        f->fake.timeline += i == 0;
        f->fake.system_id = i == 0 ? f->fake.system_id : i == 1 ? 43 : 0;
        run_ms(f, 200);
        assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
        assert_int_equal(f->fake.xact_questions, 0);
        end(f, unit);
    }
}

static void after_a_crash_of_the_server_only_bad_news_is_believed(void **state)
{
    static const struct {
        enum wr_xact said;
        bool run_again;
    } cases[] = {{WR_XACT_COMMITTED, false}, {WR_XACT_FORGOTTEN, false},  {WR_XACT_NONE, false},
                 {WR_XACT_ABORTED, true},    {WR_XACT_IN_PROGRESS, true}, {WR_XACT_FUTURE, true}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_up(state);
        f->has_question = true;
        f->question = (struct fake_answer){.xact = cases[i].said};
        weir_call *unit = committing(f, (weir_request){0});
        f->fake.life++;
        run_ms(f, 300);
        assert_int_equal(weir_call_status(unit), cases[i].run_again ? WEIR_READY : WEIR_ENDED);
        end(f, unit);
    }
}

static void no_connection_means_asking_later(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.min_calls = 1000;
    weir_call *unit = committing(f, (weir_request){0});
    f->fake.refuse = true;
    run_ms(f, 900);
    assert_int_equal(weir_call_status(unit), WEIR_WAITING);
    f->fake.refuse = false;
    run_ms(f, 600);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    end(f, unit);
}

static void no_connection_until_the_deadline_is_unknown(void **state)
{
    struct fixture *f = *state;
    weir_call *unit = committing(f, (weir_request){0});
    f->fake.mute = true;
    run_ms(f, 2010);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
    f->fake.mute = false;
    end(f, unit);
}

static void an_open_breaker_does_not_stop_the_question(void **state)
{
    struct fixture *f = *state;
    weir_call *unit = committing(f, (weir_request){0});
    run_ms(f, 5);
    weir_force_breaker(f->fake.engine, NULL, WEIR_FORCED_OPEN, NULL);
    run_ms(f, 200);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    end(f, unit);
}

static void the_question_goes_before_all_who_wait(void **state)
{
    struct fixture *f = *state;
    weir_call *unit = committing(f, (weir_request){0});
    weir_call *waiters[8];
    for (int i = 0; i < 8; i++) waiters[i] = fake_submit(&f->fake, (weir_request){0}, "select 9");
    f->fake.service_ns = FAKE_MS(15);
    run_ms(f, 65); /* the first waiters use the new connection, then it is the question's turn */
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    assert_int_equal(weir_call_status(waiters[7]), WEIR_WAITING);
    run_ms(f, 500);
    for (int i = 0; i < 8; i++) weir_call_free(waiters[i]);
    end(f, unit);
}

static void a_lost_question_is_asked_again(void **state)
{
    struct fixture *f = *state;
    f->has_question = true;
    f->question = (struct fake_answer){.lost = true};
    weir_call *unit = committing(f, (weir_request){0});
    run_ms(f, 60);
    f->has_question = false;
    run_ms(f, 200);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    end(f, unit);
}

static void a_commit_lost_after_the_deadline_is_not_asked_about(void **state)
{
    struct fixture *f = *state;
    f->commit.after_ns = FAKE_MS(2030);
    weir_call *unit = committing(f, (weir_request){0});
    run_ms(f, 2100);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
    assert_int_equal(f->fake.xact_questions, 0);
    end(f, unit);
}

static void cancelling_while_asking_leaves_it_unknown(void **state)
{
    struct fixture *f = *state;
    weir_call *unit = committing(f, (weir_request){0});
    run_ms(f, 10);
    weir_call_cancel(unit);
    assert_int_equal(fake_code(unit), WEIR_CALL_CANCELLED);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN);
    end(f, unit);
}

static void a_drain_waits_for_the_answer(void **state)
{
    struct fixture *f = *state;
    weir_call *unit = committing(f, (weir_request){0});
    weir_drain(f->fake.engine, FAKE_MS(1500)); /* before the loss is known */
    run_ms(f, 200);
    assert_int_equal(fake_code(unit), WEIR_CALL_OK);
    assert_true(weir_drained(f->fake.engine));
    end(f, unit);
}

static void doubt_about_an_earlier_attempt_is_never_forgotten(void **state)
{
    struct fixture *f = *state;
    f->has_question = true;
    f->question = (struct fake_answer){.xact = WR_XACT_FORGOTTEN};
    weir_call *unit = committing(f, (weir_request){.idempotent = true});
    run_ms(f, 500);
    assert_int_equal(weir_call_status(unit), WEIR_READY); /* idempotent: run again */
    weir_pause(f->fake.engine, NULL, true, NULL);
    fake_finish(unit, WEIR_ROLLBACK);
    run_ms(f, 5);
    assert_int_equal(fake_code(unit), WEIR_CALL_ROLLED_BACK);
    assert_int_equal(fake_outcome(unit), WEIR_OUTCOME_UNKNOWN); /* the first attempt did commit */
    assert_int_equal(f->fake.effects[7], 1);
    end(f, unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_commit_found_committed_is_told_as_committed, set_up),
        cmocka_unit_test_setup(a_commit_found_aborted_is_run_again, set_up),
        cmocka_unit_test_setup(a_commit_still_running_is_asked_about_until_it_ends, set_up),
        cmocka_unit_test_setup(a_commit_that_outlasts_the_deadline_is_unknown, set_up),
        cmocka_unit_test_setup(what_the_server_cannot_tell_is_unknown, set_up),
        cmocka_unit_test_setup(another_server_is_not_believed, set_up),
        cmocka_unit_test_setup(after_a_crash_of_the_server_only_bad_news_is_believed, set_up),
        cmocka_unit_test_setup(no_connection_means_asking_later, set_up),
        cmocka_unit_test_setup(no_connection_until_the_deadline_is_unknown, set_up),
        cmocka_unit_test_setup(an_open_breaker_does_not_stop_the_question, set_up),
        cmocka_unit_test_setup(the_question_goes_before_all_who_wait, set_up),
        cmocka_unit_test_setup(a_lost_question_is_asked_again, set_up),
        cmocka_unit_test_setup(a_commit_lost_after_the_deadline_is_not_asked_about, set_up),
        cmocka_unit_test_setup(cancelling_while_asking_leaves_it_unknown, set_up),
        cmocka_unit_test_setup(a_drain_waits_for_the_answer, set_up),
        cmocka_unit_test_setup(doubt_about_an_earlier_attempt_is_never_forgotten, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
