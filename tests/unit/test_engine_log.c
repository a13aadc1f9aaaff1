/* What the engine logs: a line per event with a name that stays, slow calls with their timeline, no more of a sort than
 * so many a second, and nothing of what nobody may read. */
#include "support/fake_server.h"
#include "weir/area.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#define TRACE  "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN   "00f067aa0ba902b7"
#define PARENT "00-" TRACE "-" SPAN "-01"
#define SECRET "hunter2"

enum { LINES = 256, LINE = 2048 };

struct fixture {
    struct fake fake;
    weir_options options;
    weir_client client;
    char lines[LINES][LINE];
    weir_log_level levels[LINES];
    int count;
    uint64_t patience_ms; /* for one call */
    bool full;            /* nobody takes lines */
    bool down;            /* the first attempts of a call fail */
    bool lose_commits, survive;
};

static bool take(void *ctx, weir_log_level level, const char *line, size_t length)
{
    struct fixture *f = ctx;
    if (f->full) return false;
    assert_true(f->count < LINES && length < LINE);
    assert_int_equal(strlen(line), length);
    assert_null(strchr(line, '\n'));
    f->levels[f->count] = level;
    memcpy(f->lines[f->count++], line, length + 1);
    return true;
}

static void answer(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                   struct fake_answer *answer)
{
    struct fixture *f = fake->user;
    (void)link;
    if (f->down && segment->kind == WR_SEGMENT_SINGLE) memcpy(answer->sqlstate, "40001", 6);
    if (f->lose_commits && segment->kind == WR_SEGMENT_COMMIT) answer->lost = true;
    if (f->survive) answer->survives = true;
}

static int set_up(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    fake_init(&f.fake);
    fake_options(&f.options);
    f.client = f.options.clients[0];
    f.client.password = SECRET;
    f.options.clients = &f.client;
    f.options.client_count = 1;
    f.options.breaker.min_calls = 1000;
    f.patience_ms = 20000;
    f.fake.user = &f;
    f.fake.answer = answer;
    f.fake.host.log = take;
    f.fake.host.log_ctx = &f;
    *state = &f;
    return 0;
}

static void open_engine(struct fixture *f)
{
    fake_open(&f->fake, &f->options);
}

/* The first line with this in it, from the `from`th on; NULL: none. */
static const char *line_with(struct fixture *f, int from, const char *text)
{
    for (int i = from; i < f->count; i++) {
        if (strstr(f->lines[i], text) != NULL) return f->lines[i];
    }
    return NULL;
}

static int lines_with(struct fixture *f, const char *text)
{
    int count = 0;
    for (int i = 0; i < f->count; i++) count += strstr(f->lines[i], text) != NULL;
    return count;
}

static const char *assert_line(struct fixture *f, const char *text)
{
    const char *line = line_with(f, 0, text);
    if (line == NULL)
        fail_msg("no line of %d says %s; the last is %s", f->count, text, f->lines[f->count - 1]);
    return line;
}

static void assert_says(const char *line, const char *text)
{
    if (strstr(line, text) == NULL) fail_msg("%s is not in: %s", text, line);
}

static void call_once(struct fixture *f, const char *context, const char *traceparent)
{
    weir_call *call =
        fake_submit(&f->fake,
                    (weir_request){.context = context, .traceparent = traceparent, .claims = SECRET},
                    "select '" SECRET "'");
    fake_run(&f->fake, FAKE_MS(f->patience_ms));
    weir_call_free(call);
}

/* ---- events ---- */

static void opening_draining_and_closing_are_told(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    assert_string_equal(f->lines[0],
                        "ts=2023-11-14T22:30:00.000000Z level=info event=engine.opened msg=\"engine test "
                        "opened with 1 pools\" name=test worker=1");
    assert_int_equal(f->levels[0], WEIR_LOG_INFO);
    weir_drain(f->fake.engine, 0);
    assert_line(f, "event=engine.draining");
    fake_close(&f->fake);
    assert_line(f, "event=engine.closed");
}

static void connects_that_fail_and_work_again_have_a_line_each(void **state)
{
    struct fixture *f = *state;
    f->options.retries = 0;
    open_engine(f);
    memcpy(f->fake.connect_sqlstate, "53300", 6);
    call_once(f, "a", NULL);
    call_once(f, "b", NULL);
    const char *line = assert_line(f, "event=connect.failing");
    assert_says(line, "level=warn ");
    assert_says(line, " pool=service@primary");
    assert_says(line, " sqlstate=53300");
    assert_int_equal(lines_with(f, "event=connect.failing"), 1);
    f->fake.connect_sqlstate[0] = '\0';
    call_once(f, "c", NULL);
    assert_says(assert_line(f, "event=connect.restored"), "level=info ");
    fake_close(&f->fake);
}

static void a_refused_login_is_an_error(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->fake.identity = true;
    call_once(f, "a", NULL);
    assert_says(assert_line(f, "event=identity.refused"), "level=error ");
    fake_close(&f->fake);
}

static void a_breaker_that_opens_says_why_and_one_that_closes_is_good_news(void **state)
{
    struct fixture *f = *state;
    f->options.breaker.min_calls = 2;
    f->options.breaker.window_ns = FAKE_MS(60000);
    f->patience_ms = 500;
    f->options.retries = 0;
    open_engine(f);
    f->fake.refuse = true;
    for (int i = 0; i < 4; i++) call_once(f, "a", NULL);
    const char *line = assert_line(f, "CLOSED -> OPEN");
    assert_says(line, "level=warn event=breaker.moved ");
    assert_says(line, "failure rate 1.00");
    assert_int_equal(weir_force_breaker(f->fake.engine, NULL, WEIR_FORCED_CLOSED, NULL), WEIR_OK);
    assert_says(assert_line(f, "-> FORCED_CLOSED"), "level=info event=breaker.moved ");
    fake_close(&f->fake);
}

static void a_lost_commit_names_its_call_and_its_trace(void **state)
{
    struct fixture *f = *state;
    f->fake.books = true;
    f->options.timeout_ns = FAKE_MS(500);
    open_engine(f);
    f->lose_commits = true;
    weir_call *call =
        fake_begin(&f->fake, (weir_request){.context = "POST /pay?card=1", .traceparent = PARENT});
    fake_run(&f->fake, FAKE_MS(100));
    fake_send(call, "select 1");
    fake_run(&f->fake, FAKE_MS(100));
    fake_finish(call, WEIR_COMMIT);
    f->fake.refuse = true; /* nobody can be asked */
    fake_run(&f->fake, FAKE_MS(20000));
    const char *asked = assert_line(f, "event=commit.unanswered"),
               *line = assert_line(f, "event=call.unknown");
    assert_says(asked, " call_id=10000000001 ");
    assert_says(asked, " trace_id=" TRACE " span_id=" SPAN " trace_flags=01");
    assert_says(line, "level=error ");
    assert_says(line, " call_id=10000000001 label=\"POST /pay\" ");
    assert_says(line, " trace_id=" TRACE " span_id=" SPAN " trace_flags=01");
    assert_says(line, " attempt=1");
    weir_call_free(call);
    fake_close(&f->fake);
}

static void a_commit_whose_answer_was_lost_is_told_of_again_when_it_is_known(void **state)
{
    struct fixture *f = *state;
    f->fake.books = true;
    open_engine(f);
    f->lose_commits = true;
    weir_call *call = fake_begin(&f->fake, (weir_request){.context = "POST /pay"});
    fake_run(&f->fake, FAKE_MS(100));
    fake_send(call, "select 1");
    fake_run(&f->fake, FAKE_MS(100));
    fake_finish(call, WEIR_ROLLBACK);
    fake_run(&f->fake, FAKE_MS(100));
    assert_null(line_with(f, 0, "event=commit."));
    weir_call_free(call);
    call = fake_begin(&f->fake, (weir_request){.context = "POST /pay"});
    fake_run(&f->fake, FAKE_MS(100));
    fake_send(call, "select 2");
    fake_run(&f->fake, FAKE_MS(100));
    f->survive = true;
    fake_finish(call, WEIR_COMMIT);
    fake_run(&f->fake, FAKE_MS(2000));
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    const char *line = assert_line(f, "event=commit.resolved");
    assert_says(line, "level=info ");
    assert_says(line, "was committed\"");
    assert_says(line, " call_id=10000000002 ");
    assert_null(line_with(f, 0, "event=call.unknown"));
    weir_call_free(call);
    fake_close(&f->fake);
}

static void what_is_ordered_from_outside_is_told_by_who_obeys_and_what_is_ordered_here_once(void **state)
{
    struct fixture *f = *state;
    char path[] = "/tmp/weir-log-area.XXXXXX", why[WEIR_WHY_MAX] = "";
    weir_area *area = NULL;
    close(mkstemp(path));
    unlink(path);
    f->options.area_path = path;
    open_engine(f);
    assert_int_equal(weir_area_attach(&area, path, why), WEIR_OK);
    weir_order order = {.kind = WEIR_ORDER_FORCE,
                        .pool = "service@primary",
                        .state = WEIR_FORCED_OPEN,
                        .reason = "a\nmove"};
    assert_int_equal(weir_area_order(area, &order, NULL, why), WEIR_OK);
    assert_int_equal(lines_with(f, "event=operator.order"), 0);
    fake_run(&f->fake, FAKE_MS(600));
    const char *line = assert_line(f, "event=operator.order");
    assert_says(line, "level=info ");
    assert_says(line, "msg=\"force breaker FORCED_OPEN ordered by ");
    assert_says(line, ": a\\nmove\" name=test worker=1 pool=service@primary");
    assert_int_equal(weir_pause(f->fake.engine, NULL, true, NULL), WEIR_OK);
    fake_run(&f->fake, FAKE_MS(600));
    assert_int_equal(lines_with(f, "event=operator.order"), 2);
    assert_line(f, "msg=\"paused by ");
    weir_area_detach(area);
    fake_free(&f->fake);
    unlink(path);
}

static void below_the_level_nothing_is_written(void **state)
{
    struct fixture *f = *state;
    f->options.log_level = WEIR_LOG_WARN;
    open_engine(f);
    assert_int_equal(f->count, 0);
    weir_pause(f->fake.engine, NULL, true, NULL);
    assert_int_equal(f->count, 0);
    f->fake.refuse = true;
    weir_pause(f->fake.engine, NULL, false, NULL);
    call_once(f, "a", NULL);
    assert_line(f, "level=warn event=connect.failing");
    fake_close(&f->fake);
    set_up(state);
    f->options.log_level = WEIR_LOG_OFF;
    open_engine(f);
    f->fake.refuse = true;
    call_once(f, "a", NULL);
    fake_close(&f->fake);
    assert_int_equal(f->count, 0);
}

/* ---- slow calls ---- */

static void a_slow_call_is_logged_with_all_its_attempts(void **state)
{
    struct fixture *f = *state;
    f->options.slow_log_ns = FAKE_MS(100);
    f->options.retries = 2;
    f->options.backoff = WEIR_BACKOFF_CONSTANT;
    f->options.backoff_base_ns = FAKE_MS(60);
    open_engine(f);
    f->down = true;
    call_once(f, "GET /x?token=" SECRET, PARENT);
    const char *line = assert_line(f, "event=call.slow");
    assert_says(line, "level=warn ");
    assert_says(line, "msg=\"a call took longer than 100 ms\"");
    assert_says(line,
                " pool=service@primary call_id=10000000001 label=\"GET /x\" trace_id=" TRACE " span_id=" SPAN
                " trace_flags=01 duration_ms=125.000 code=server_error outcome=rolled_back sqlstate=40001 "
                "attempts=3 timeline_us=\"1: start 0 wait 2000 connect 2000 run 1000 backoff 60000 pid ");
    assert_says(line, " 40001; 2: start 63000 wait 0 connect 0 run 1000 backoff 60000 pid ");
    assert_says(line, " 40001; 3: start 124000 wait 0 connect 0 run 1000 backoff 0 pid ");
    f->down = false;
    int before = f->count;
    call_once(f, "quick", NULL);
    assert_int_equal(f->count, before);
    fake_close(&f->fake);
}

static void in_json_its_timeline_is_a_list(void **state)
{
    struct fixture *f = *state;
    f->options.slow_log_ns = FAKE_MS(1);
    f->options.log_json = true;
    open_engine(f);
    call_once(f, "a", "not a traceparent");
    const char *line = assert_line(f, "\"event\":\"call.slow\"");
    assert_says(line, "{\"ts\":\"2023-11-14T22:30:00.");
    assert_says(line, "\"worker\":1,\"pool\":\"service@primary\",\"call_id\":\"10000000001\",\"label\":\"a\","
                      "\"duration_ms\":3.000,\"code\":\"ok\",\"outcome\":\"committed\",\"attempts\":1,"
                      "\"timeline\":[{\"attempt\":1,\"start_us\":0,\"wait_us\":2000,\"connect_us\":2000,"
                      "\"run_us\":1000,\"backoff_us\":0,\"backend_pid\":");
    assert_says(line, ",\"sqlstate\":\"\"}]}");
    assert_null(strstr(line, "trace"));
    fake_close(&f->fake);
}

static void of_many_attempts_the_last_are_told_by_their_numbers(void **state)
{
    struct fixture *f = *state;
    f->options.slow_log_ns = FAKE_MS(1);
    f->options.retries = 6;
    open_engine(f);
    f->down = true;
    call_once(f, "a", NULL);
    const char *line = assert_line(f, "event=call.slow");
    assert_says(line, " attempts=7 timeline_us=\"4: start ");
    assert_says(line, "; 7: start ");
    fake_close(&f->fake);
}

static void more_than_so_many_a_second_are_counted_instead(void **state)
{
    struct fixture *f = *state;
    f->options.slow_log_ns = FAKE_MS(1);
    open_engine(f);
    for (int i = 0; i < 25; i++) {
        weir_call *call = fake_submit(&f->fake, (weir_request){.context = "a"}, "select 1");
        fake_run(&f->fake, FAKE_MS(10));
        weir_call_free(call);
        if (i == 0) f->fake.service_ns = FAKE_MS(2);
    }
    assert_int_equal(lines_with(f, "event=call.slow"), 10);
    assert_int_equal(lines_with(f, "event=log.suppressed"), 0);
    fake_run(&f->fake, FAKE_MS(1000)); /* and no further call comes */
    const char *line = assert_line(f, "event=log.suppressed");
    assert_says(line, "level=warn ");
    assert_says(line, "msg=\"15 lines about slow calls suppressed\"");
    assert_says(line, " suppressed=15");
    call_once(f, "b", NULL);
    assert_int_equal(lines_with(f, "event=call.slow"), 11);
    assert_int_equal(lines_with(f, "event=log.suppressed"), 1);
    fake_close(&f->fake);
}

static void events_have_a_bound_of_their_own_told_at_the_end_at_the_latest(void **state)
{
    struct fixture *f = *state;
    f->options.slow_log_ns = FAKE_MS(1);
    open_engine(f);
    for (int i = 0; i < 60; i++) weir_pause(f->fake.engine, NULL, i % 2 == 0, NULL);
    assert_int_equal(lines_with(f, "event=operator.order"), 49); /* and the opening */
    call_once(f, "a", NULL);
    assert_int_equal(lines_with(f, "event=call.slow"), 1);
    for (int i = 0; i < 60; i++) weir_pause(f->fake.engine, NULL, i % 2 == 0, NULL);
    fake_close(&f->fake);
    assert_int_equal(lines_with(f, "msg=\"11 lines about events suppressed\""),
                     2); /* the closing among the latter */
}

/* ---- where to ---- */

static void lines_that_nobody_took_are_told_of_by_the_next(void **state)
{
    struct fixture *f = *state;
    open_engine(f);
    f->full = true;
    weir_pause(f->fake.engine, NULL, true, NULL);
    weir_pause(f->fake.engine, NULL, false, NULL);
    f->full = false;
    assert_int_equal(f->count, 1);
    weir_pause(f->fake.engine, NULL, true, NULL);
    assert_int_equal(f->count, 3);
    assert_says(f->lines[1], "level=warn event=log.lost ");
    assert_says(f->lines[1], " lost=2");
    assert_says(f->lines[2], "event=operator.order ");
    weir_pause(f->fake.engine, NULL, false, NULL);
    assert_int_equal(f->count, 4);
    fake_close(&f->fake);
}

static void without_a_log_slow_calls_are_refused_and_all_else_goes_on(void **state)
{
    struct fixture *f = *state;
    char why[WEIR_WHY_MAX] = "";
    weir_engine *engine = NULL;
    f->fake.host.log = NULL;
    f->options.slow_log_ns = FAKE_MS(100);
    assert_int_equal(weir_open(&engine, &f->options, &f->fake.host, fake_driver(&f->fake), why), WEIR_EINVAL);
    assert_null(engine);
    assert_string_equal(why, "slow_log is 0.100 s, but there is no log for slow calls to be in: give log");
    f->options.slow_log_ns = 0;
    open_engine(f);
    call_once(f, "a", NULL);
    assert_null(weir_log_path(f->fake.engine));
    assert_int_equal(weir_log_reopen(f->fake.engine, why), WEIR_OK);
    fake_close(&f->fake);
}

static void what_no_log_can_be_is_refused(void **state)
{
    struct fixture *f = *state;
    char why[WEIR_WHY_MAX] = "";
    weir_engine *engine = NULL;
    f->options.log_to = "weir.log";
    assert_int_equal(weir_options_check(&f->options, NULL, why), WEIR_EINVAL);
    assert_string_equal(why, "log.to is 'weir.log': stderr, or a path with a '/' in it");
    f->options.log_to = "";
    assert_int_equal(weir_options_check(&f->options, NULL, why), WEIR_EINVAL);
    f->options.log_to = "/no/such/folder/log";
    assert_int_equal(weir_open(&engine, &f->options, &f->fake.host, fake_driver(&f->fake), why), WEIR_ESYS);
    assert_null(engine);
    assert_string_equal(why, "cannot open the log /no/such/folder/log: No such file or directory");
    f->options.log_to = NULL;
    f->options.log_level = (weir_log_level)7;
    assert_int_equal(weir_options_check(&f->options, NULL, why), WEIR_EINVAL);
    assert_non_null(strstr(why, "log.level"));
}

static void no_line_holds_sql_claims_parameters_or_passwords(void **state)
{
    struct fixture *f = *state;
    f->options.slow_log_ns = FAKE_MS(1);
    f->options.retries = 1;
    open_engine(f);
    f->down = true;
    call_once(f, "a?x=" SECRET, PARENT);
    f->fake.refuse = true;
    fake_crash(&f->fake);
    call_once(f, "b", PARENT);
    fake_close(&f->fake);
    assert_true(f->count > 4);
    assert_null(line_with(f, 0, SECRET));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        TEST(opening_draining_and_closing_are_told),
        TEST(connects_that_fail_and_work_again_have_a_line_each),
        TEST(a_refused_login_is_an_error),
        TEST(a_breaker_that_opens_says_why_and_one_that_closes_is_good_news),
        TEST(a_lost_commit_names_its_call_and_its_trace),
        TEST(a_commit_whose_answer_was_lost_is_told_of_again_when_it_is_known),
        TEST(what_is_ordered_from_outside_is_told_by_who_obeys_and_what_is_ordered_here_once),
        TEST(below_the_level_nothing_is_written),
        TEST(a_slow_call_is_logged_with_all_its_attempts),
        TEST(in_json_its_timeline_is_a_list),
        TEST(of_many_attempts_the_last_are_told_by_their_numbers),
        TEST(more_than_so_many_a_second_are_counted_instead),
        TEST(events_have_a_bound_of_their_own_told_at_the_end_at_the_latest),
        TEST(lines_that_nobody_took_are_told_of_by_the_next),
        TEST(without_a_log_slow_calls_are_refused_and_all_else_goes_on),
        TEST(what_no_log_can_be_is_refused),
        TEST(no_line_holds_sql_claims_parameters_or_passwords),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
