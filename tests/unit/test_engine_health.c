/* What the engine tells of itself: valid JSON in every state, and the right word for each. */
#include "support/fake_server.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct fake fake;
    weir_options options;
    weir_backend backends[2];
    int asked;
    bool out_of_memory;
};

static void *resize(void *ctx, void *old, size_t size)
{
    struct fake *fake = ctx;
    if (((struct fixture *)fake->user)->out_of_memory && size > 0) return NULL;
    if (size > 0) return realloc(old, size);
    free(old);
    return NULL;
}

static int set_up(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    fake_init(&f.fake);
    fake_options(&f.options);
    f.backends[0] = (weir_backend){.name = "primary", .conninfo = "host=a"};
    f.backends[1] = (weir_backend){.name = "replica", .conninfo = "host=b"};
    f.options.backends = f.backends;
    f.options.backend_count = 2;
    f.options.timeout_ns = FAKE_MS(500);
    f.options.breaker.min_calls = 3;
    f.options.retries = 0;
    f.fake.user = &f;
    f.fake.host.resize = resize;
    *state = &f;
    return 0;
}

static void run_ms(struct fixture *f, uint64_t ms)
{
    fake_run(&f->fake, FAKE_MS(ms));
}

/* ---- a strict reader of JSON: returns behind the value, or NULL ------------------------------ */

static const char *json_value(const char *at);

static const char *json_string(const char *at)
{
    if (*at++ != '"') return NULL;
    for (; *at != '"'; at++) {
        if ((unsigned char)*at < 0x20) return NULL;
        if (*at == '\\' && strchr("\"\\/bfnrtu", *++at) == NULL) return NULL;
    }
    return at + 1;
}

static const char *json_number(const char *at)
{
    const char *digits = at + (*at == '-');
    if (!isdigit((unsigned char)*digits)) return NULL;
    char *end;
    strtod(at, &end);
    return end;
}

static const char *json_members(const char *at, char close, bool named)
{
    at++;
    if (*at == close) return at + 1;
    for (;;) {
        if (named && ((at = json_string(at)) == NULL || *at++ != ':')) return NULL;
        at = json_value(at);
        if (at == NULL) return NULL;
        if (*at == close) return at + 1;
        if (*at++ != ',') return NULL;
    }
}

static const char *json_value(const char *at)
{
    static const char *const words[] = {"true", "false", "null"};
    if (*at == '{') return json_members(at, '}', true);
    if (*at == '[') return json_members(at, ']', false);
    if (*at == '"') return json_string(at);
    for (int i = 0; i < 3; i++) {
        if (strncmp(at, words[i], strlen(words[i])) == 0) return at + strlen(words[i]);
    }
    return json_number(at);
}

static void assert_json(const char *text)
{
    const char *end = json_value(text);
    if (end == NULL || *end != '\0') fprintf(stderr, "not JSON: %s\n", text);
    assert_non_null(end);
    assert_int_equal(*end, '\0');
}

static char report[1 << 19];

static const char *health(struct fixture *f)
{
    weir_health_json(f->fake.engine, report, sizeof report);
    return report;
}

static void all_reports_are_json(struct fixture *f)
{
    weir_engine *engine = f->fake.engine;
    assert_true(weir_stats_json(engine, report, sizeof report) < sizeof report);
    assert_json(report);
    assert_true(weir_calls_json(engine, 1000, report, sizeof report) < sizeof report);
    assert_json(report);
    assert_true(weir_events_json(engine, 0, report, sizeof report) < sizeof report);
    assert_json(report);
    assert_json(health(f));
}

static void expect(struct fixture *f, const char *words)
{
    assert_json(health(f));
    if (strstr(report, words) == NULL) fprintf(stderr, "no %s in %s\n", words, report);
    assert_non_null(strstr(report, words));
}

static void one_call(struct fixture *f, const char *backend)
{
    weir_call *call =
        fake_submit(&f->fake, (weir_request){.backend = backend, .context = "GET \"/\\\x01\xff?q=1"},
                    "select 1");
    run_ms(f, 20);
    weir_call_free(call);
}

/* ---- the words ------------------------------------------------------------------------------- */

static void an_engine_that_has_asked_nobody_yet_is_healthy(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    expect(f, "{\"status\":\"healthy\",\"checks\":{\"database\":{\"status\":\"unknown\"}");
    all_reports_are_json(f);
    fake_close(&f->fake);
}

static void after_a_good_call_the_database_is_healthy(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    one_call(f, "primary");
    expect(f, "\"database\":{\"status\":\"healthy\",\"responseTime\":1}");
    expect(f, "\"totalRequests\":1,\"successRate\":\"100.00\",\"averageResponseTime\":3,\"circuitState\":"
              "\"CLOSED\"");
    all_reports_are_json(f);
    fake_close(&f->fake);
}

static void one_backend_down_is_degraded_and_all_down_is_unhealthy(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    one_call(f, "primary");
    f->fake.refuse = true;
    for (int i = 0; i < 3; i++) one_call(f, "replica");
    expect(f, "{\"status\":\"degraded\"");
    expect(f, "\"circuitState\":\"OPEN\"");
    expect(f, "\"service@replica\":\"OPEN\"");
    fake_crash(&f->fake);
    run_ms(f, 10);
    for (int i = 0; i < 3; i++) one_call(f, "primary");
    expect(f, "{\"status\":\"unhealthy\"");
    all_reports_are_json(f);
    f->fake.refuse = false;
    run_ms(f, 70000);
    expect(f, "{\"status\":\"degraded\""); /* half open until calls have shown it */
    fake_close(&f->fake);
}

static void a_forced_breaker_shows(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    for (weir_breaker_state s = WEIR_FORCED_OPEN; s <= WEIR_METRICS_ONLY; s = (weir_breaker_state)(s + 1)) {
        weir_force_breaker(f->fake.engine, NULL, s, NULL);
        expect(f, weir_breaker_state_name(s));
        one_call(f, "primary");
        all_reports_are_json(f);
    }
    fake_close(&f->fake);
}

static void draining_is_reported_like_any_other_time(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    one_call(f, "primary");
    weir_drain(f->fake.engine, FAKE_MS(10));
    all_reports_are_json(f);
    run_ms(f, 20);
    all_reports_are_json(f);
    fake_close(&f->fake);
}

static void answer_with_json_for_a_code(struct fake *fake, struct fake_link *link,
                                        const struct wr_segment *segment, struct fake_answer *answer)
{
    (void)fake;
    (void)link;
    (void)segment;
    memcpy(answer->sqlstate, "\"},{\"", 6);
}

static void what_a_hostile_server_sends_does_not_break_the_reports(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    f->fake.answer = answer_with_json_for_a_code;
    for (int i = 0; i < 5; i++) one_call(f, "primary");
    all_reports_are_json(f);
    run_ms(f, 10);
    fake_close(&f->fake);
}

static void a_report_says_how_long_it_is_and_never_writes_past_its_end(void **state)
{
    struct fixture *f = *state;
    char small[16];
    fake_open(&f->fake, &f->options);
    size_t whole = weir_health_json(f->fake.engine, report, sizeof report);
    assert_int_equal(strlen(report), whole);
    memset(small, 'x', sizeof small);
    assert_int_equal(weir_health_json(f->fake.engine, small, 8), whole);
    assert_int_equal(strlen(small), 7);
    assert_int_equal(small[8], 'x');
    assert_int_equal(weir_health_json(f->fake.engine, NULL, 0), whole);
    fake_close(&f->fake);
}

/* The number at place `index` of the list that follows `name`. */
static double in_list(const char *name, int index)
{
    const char *at = strstr(report, name);
    assert_non_null(at);
    for (at += strlen(name); index > 0; index--, at++) {
        at = strpbrk(at, ",]");
        assert_int_equal(*at, ',');
    }
    return strtod(at, NULL);
}

/* How many calls took less than the edge at `index`, of the pool told of first; the edge must be near `edge_ms`. */
static int below(struct fixture *f, int index, double edge_ms)
{
    weir_stats_json(f->fake.engine, report, sizeof report);
    assert_true(fabs(in_list("\"edges_ms\":[", index) - edge_ms) < edge_ms / 1000);
    return (int)in_list("\"below\":[", index);
}

static void two_readings_of_the_histogram_tell_how_long_calls_took_between_them(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    one_call(f, "primary"); /* 3 ms: it had to connect */
    assert_int_equal(below(f, 24, 2.097152), 0);
    assert_int_equal(below(f, 28, 4.194304), 1);
    one_call(f, "primary"); /* 1 ms */
    f->fake.service_ns = FAKE_MS(15);
    one_call(f, "primary");
    assert_int_equal(below(f, 0, 0.032768), 0);
    assert_int_equal(below(f, 19, 0.917504), 0);
    assert_int_equal(below(f, 20, 1.048576), 1);
    assert_int_equal(below(f, 28, 4.194304), 2);
    assert_int_equal(below(f, 35, 14.680064), 2);
    assert_int_equal(below(f, 36, 16.777216), 3);
    assert_int_equal(below(f, 80, 34359.738), 3);
    assert_non_null(strstr(report, "],\"count\":3}"));
    /* of the label, from the first edge above 1 ms to the last one below 15 ms */
    assert_non_null(
        strstr(report,
               ",\"histogram\":{\"first\":20,\"below\":[1,1,1,1,1,1,2,2,2,2,2,2,2,2,2,2],\"count\":3}}]"));
    fake_close(&f->fake);
}

static void without_memory_the_reports_are_empty_but_valid(void **state)
{
    struct fixture *f = *state;
    fake_open(&f->fake, &f->options);
    f->out_of_memory = true;
    assert_int_equal(weir_health_json(f->fake.engine, report, sizeof report), 2);
    assert_string_equal(report, "{}");
    weir_calls_json(f->fake.engine, 10, report, sizeof report);
    assert_string_equal(report, "[]");
    weir_events_json(f->fake.engine, 0, report, sizeof report);
    assert_string_equal(report, "[]");
    weir_stats_json(f->fake.engine, report, sizeof report);
    assert_string_equal(report, "{}");
    f->out_of_memory = false;
    all_reports_are_json(f);
    fake_close(&f->fake);
}

/* ---- checks and the monitor ------------------------------------------------------------------ */

static void count_questions(void *ctx, size_t index)
{
    (void)index;
    ((struct fixture *)ctx)->asked++;
}

static void open_with_checks(struct fixture *f)
{
    static const weir_check checks[] = {{.name = "redis"}, {.name = "disk", .critical = true}};
    f->options.checks = checks;
    f->options.check_count = 2;
    f->options.on_check = count_questions;
    f->options.check_ctx = f;
    f->options.health_interval_ns = FAKE_MS(1000);
    fake_open(&f->fake, &f->options);
    run_ms(f, 10);
}

static void the_programs_own_checks_are_asked_for_and_told(void **state)
{
    struct fixture *f = *state;
    open_with_checks(f);
    assert_int_equal(f->asked, 2);
    weir_check_settle(f->fake.engine, 0, true, FAKE_MS(3), NULL);
    weir_check_settle(f->fake.engine, 1, true, FAKE_MS(4), NULL);
    weir_check_settle(f->fake.engine, 9, true, 0, NULL);
    expect(f, "{\"status\":\"healthy\"");
    expect(f, "\"redis\":{\"status\":\"healthy\",\"responseTime\":3}");
    run_ms(f, 1000);
    weir_check_settle(f->fake.engine, 0, false, FAKE_MS(3), "no \"pong\"");
    weir_check_settle(f->fake.engine, 1, true, FAKE_MS(4), NULL);
    expect(f, "{\"status\":\"degraded\"");
    expect(f, "no \\\"pong\\\"");
    run_ms(f, 1000);
    weir_check_settle(f->fake.engine, 1, false, FAKE_MS(4), "full");
    expect(f, "{\"status\":\"unhealthy\"");
    fake_free(&f->fake);
}

static void a_check_that_does_not_answer_is_not_asked_again_and_counts_as_failed(void **state)
{
    struct fixture *f = *state;
    open_with_checks(f);
    weir_check_settle(f->fake.engine, 1, true, FAKE_MS(4), NULL);
    run_ms(f, 1010);
    assert_int_equal(f->asked, 3);
    expect(f, "{\"status\":\"degraded\"");
    expect(f, "has not answered");
    weir_check_settle(f->fake.engine, 0, true, FAKE_MS(1500), NULL);
    weir_check_settle(f->fake.engine, 1, true, FAKE_MS(4), NULL);
    expect(f, "{\"status\":\"healthy\"");
    fake_free(&f->fake);
}

static void the_monitor_notices_an_outage_and_its_end_without_traffic(void **state)
{
    struct fixture *f = *state;
    f->options.health_interval_ns = FAKE_MS(1000);
    f->options.breaker.min_calls = 1000;
    fake_open(&f->fake, &f->options);
    run_ms(f, 2100);
    expect(f, "\"database\":{\"status\":\"healthy\"");
    f->fake.refuse = true;
    fake_crash(&f->fake);
    run_ms(f, 2000);
    expect(f, "{\"status\":\"unhealthy\"");
    expect(f, "connection refused");
    f->fake.refuse = false;
    run_ms(f, 2000);
    expect(f, "{\"status\":\"healthy\"");
    fake_free(&f->fake);
}

static size_t times_in_events(struct fixture *f, const char *words)
{
    static char text[65536];
    size_t times = 0;
    (void)weir_events_json(f->fake.engine, 0, text, sizeof text);
    for (const char *at = text; (at = strstr(at, words)) != NULL; at++) times++;
    return times;
}

/* The breaker of one pool stays open, and calls go on being refused by it. */
static void a_backend_that_answers_one_pool_is_well_whatever_another_ones_breaker_says(void **state)
{
    struct fixture *f = *state;
    f->options.health_interval_ns = FAKE_MS(1000);
    f->options.probe_interval_ns = FAKE_MS(50000);
    fake_open(&f->fake, &f->options);
    f->fake.refuse = true;
    weir_request users = {.client = "anon", .claims = "{}", .context = "GET /", .backend = "primary"};
    for (int i = 0; i < 3; i++) {
        weir_call_free(fake_submit(&f->fake, users, "select 1"));
        run_ms(f, 20);
    }
    f->fake.refuse = false;
    for (int i = 0; i < 12; i++) {
        weir_call_free(fake_submit(&f->fake, users, "select 1"));
        run_ms(f, 500);
    }
    assert_int_equal(times_in_events(f, "primary answers again"), 1);
    expect(f, "\"primary\":{\"status\":\"healthy\"");
    fake_free(&f->fake);
}

static double next_probe_in(struct fixture *f)
{
    static char text[65536];
    (void)weir_stats_json(f->fake.engine, text, sizeof text);
    const char *at = strstr(text, "\"next_probe\":");
    assert_non_null(at);
    return atof(at + strlen("\"next_probe\":"));
}

/* It comes 1, 2, 4 and 8 s after the breaker opened, however often the monitor asks in between. */
static void the_monitor_does_not_slow_down_the_probes_of_an_open_breaker(void **state)
{
    struct fixture *f = *state;
    f->options.backend_count = 1;
    f->options.client_count = 1;
    f->options.health_interval_ns = FAKE_MS(250);
    f->options.probe_interval_ns = FAKE_MS(1000);
    f->fake.refuse = true;
    fake_open(&f->fake, &f->options);
    for (int i = 0; i < 3; i++) one_call(f, "primary");
    run_ms(f, 6000);
    assert_in_range(next_probe_in(f) * 1000, 1000, 3000);
    fake_free(&f->fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_engine_that_has_asked_nobody_yet_is_healthy, set_up),
        cmocka_unit_test_setup(after_a_good_call_the_database_is_healthy, set_up),
        cmocka_unit_test_setup(one_backend_down_is_degraded_and_all_down_is_unhealthy, set_up),
        cmocka_unit_test_setup(a_forced_breaker_shows, set_up),
        cmocka_unit_test_setup(draining_is_reported_like_any_other_time, set_up),
        cmocka_unit_test_setup(what_a_hostile_server_sends_does_not_break_the_reports, set_up),
        cmocka_unit_test_setup(a_report_says_how_long_it_is_and_never_writes_past_its_end, set_up),
        cmocka_unit_test_setup(two_readings_of_the_histogram_tell_how_long_calls_took_between_them, set_up),
        cmocka_unit_test_setup(without_memory_the_reports_are_empty_but_valid, set_up),
        cmocka_unit_test_setup(the_programs_own_checks_are_asked_for_and_told, set_up),
        cmocka_unit_test_setup(a_check_that_does_not_answer_is_not_asked_again_and_counts_as_failed, set_up),
        cmocka_unit_test_setup(the_monitor_notices_an_outage_and_its_end_without_traffic, set_up),
        cmocka_unit_test_setup(a_backend_that_answers_one_pool_is_well_whatever_another_ones_breaker_says,
                               set_up),
        cmocka_unit_test_setup(the_monitor_does_not_slow_down_the_probes_of_an_open_breaker, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
