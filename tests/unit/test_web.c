/* What a path gives: status, type and body of each document in good times and bad. */
#include "web_fixture.h"

/* ---- health ---------------------------------------------------------------------------------- */

static void health_is_the_engines_own_document(void **state)
{
    struct web *w = *state;
    char own[4096];
    fake_open(&w->fake, &w->options);
    web_call(w, "GET /", NULL);
    web_get(w, "/health", NULL);
    weir_health_json(w->fake.engine, own, sizeof own);
    assert_string_equal(w->body, own);
    assert_int_equal(w->page.http, 200);
    assert_string_equal(w->page.type, "application/json");
    web_expect(
        w, "{\"status\":\"healthy\",\"checks\":{\"database\":{\"status\":\"healthy\",\"responseTime\":1}}");
    web_expect(w, "\"pool\":{\"totalRequests\":1,\"successRate\":\"100.00\",\"averageResponseTime\":3,"
                  "\"circuitState\":\"CLOSED\"}");
    fake_close(&w->fake);
}

static void degraded_is_200_and_unhealthy_is_503(void **state)
{
    struct web *w = *state;
    w->backends[1].critical = false;
    fake_open(&w->fake, &w->options);
    web_call(w, "GET /", "primary");
    web_outage(w, "replica");
    web_get(w, "/health", NULL);
    assert_int_equal(w->page.http, 200);
    web_expect(w, "{\"status\":\"degraded\"");
    fake_crash(&w->fake);
    fake_run(&w->fake, FAKE_MS(10));
    web_outage(w, "primary");
    web_get(w, "/health", NULL);
    assert_int_equal(w->page.http, 503);
    web_expect(w, "{\"status\":\"unhealthy\"");
    fake_close(&w->fake);
}

static void the_drafts_fields_stand_beside_the_others_when_asked_for(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_call(w, "GET /", NULL);
    web_get(w, "/health", "application/health+json");
    assert_string_equal(w->page.type, "application/health+json");
    web_expect(w, "{\"status\":\"pass\",\"version\":\"0\",\"releaseId\":\"" WEIR_VERSION "\",\"serviceId\":");
    web_expect(w, "\"checks\":{\"uptime\":[{");
    web_expect(
        w, "\"primary:responseTime\":[{\"componentType\":\"datastore\",\"status\":\"pass\",\"observedUnit\":"
           "\"ms\",\"observedValue\":1,\"time\":\"");
    web_expect(
        w, "\"}],\"database\":{\"status\":\"healthy\",\"responseTime\":1}},\"pool\":{\"totalRequests\":1,");
    web_expect_not(w, "replica:responseTime"); /* nobody has asked it yet */
    fake_close(&w->fake);
}

static void the_draft_says_warn_and_fail_with_the_reason(void **state)
{
    struct web *w = *state;
    w->backends[1].critical = false;
    fake_open(&w->fake, &w->options);
    web_call(w, "GET /", "primary");
    web_outage(w, "replica");
    web_get(w, "/health", "application/health+json");
    assert_int_equal(w->page.http, 200);
    web_expect(w, "{\"status\":\"warn\"");
    web_expect(
        w, "\"replica:responseTime\":[{\"componentType\":\"datastore\",\"status\":\"fail\",\"output\":\"");
    web_expect(w, "\"replica\":{\"status\":\"unhealthy\"");
    fake_close(&w->fake);
}

static void nobody_asks(void *ctx, size_t index)
{
    (void)ctx;
    (void)index;
}

static void the_programs_own_checks_are_in_the_draft_and_in_the_metrics(void **state)
{
    static const weir_check checks[] = {{.name = "redis"},
                                        {.name = "disk", .critical = true},
                                        {.name = "late"}};
    struct web *w = *state;
    w->options.checks = checks;
    w->options.check_count = 3;
    w->options.on_check = nobody_asks;
    fake_open(&w->fake, &w->options);
    web_call(w, "GET /", NULL);
    weir_check_settle(w->fake.engine, 0, false, FAKE_MS(3), "no \"pong\"");
    weir_check_settle(w->fake.engine, 1, true, FAKE_MS(4), NULL);
    web_get(w, "/health", "application/health+json");
    web_expect(w, "{\"status\":\"warn\"");
    web_expect(w, "\"redis:responseTime\":[{\"componentType\":\"component\",\"status\":\"warn\",\"output\":"
                  "\"no \\\"pong\\\"\",\"time\":\"");
    web_expect(w,
               "\"disk:responseTime\":[{\"componentType\":\"component\",\"status\":\"pass\",\"observedUnit\":"
               "\"ms\",\"observedValue\":4,");
    web_expect_not(w, "late:responseTime");
    web_metrics(w, true);
    web_expect(w, "weir_check_up{check=\"redis\"} 0\nweir_check_up{check=\"disk\"} 1\n# ");
    weir_check_settle(w->fake.engine, 1, false, FAKE_MS(4), "full");
    web_get(w, "/health", "application/health+json");
    assert_int_equal(w->page.http, 503);
    web_expect(w, "\"disk:responseTime\":[{\"componentType\":\"component\",\"status\":\"fail\"");
    fake_close(&w->fake);
}

/* ---- probes of an orchestrator --------------------------------------------------------------- */

static void a_draining_engine_is_alive_and_not_ready(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_get(w, "/readyz", NULL);
    assert_int_equal(w->page.http, 200);
    assert_string_equal(w->body, "ready\n");
    weir_drain(w->fake.engine, FAKE_MS(10));
    web_get(w, "/readyz", NULL);
    assert_int_equal(w->page.http, 503);
    assert_string_equal(w->body, "draining\n");
    web_get(w, "/livez", NULL);
    assert_int_equal(w->page.http, 200);
    fake_close(&w->fake);
}

static void only_the_loss_of_a_critical_backend_makes_unready(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_outage(w, "primary");
    web_get(w, "/readyz", NULL);
    assert_int_equal(w->page.http, 200);
    web_outage(w, "replica");
    web_get(w, "/readyz", NULL);
    assert_int_equal(w->page.http, 503);
    fake_close(&w->fake);
}

/* ---- the JSON documents ------------------------------------------------------------------------ */

static void the_json_documents_are_the_engines(void **state)
{
    struct web *w = *state;
    static char own[1 << 17];
    fake_open(&w->fake, &w->options);
    for (int i = 0; i < 150; i++) web_call(w, "GET /", NULL);
    weir_stats_json(w->fake.engine, own, sizeof own);
    const char *pools = strstr(own, "\"pools\"");
    assert_string_equal(strstr(web_get(w, "/stats.json", NULL), "\"pools\""), pools);
    assert_string_equal(w->page.type, "application/json");
    weir_calls_json(w->fake.engine, 100, own, sizeof own);
    assert_string_equal(web_get(w, "/calls.json", NULL), own);
    weir_events_json(w->fake.engine, 0, own, sizeof own);
    assert_string_equal(web_get(w, "/events.json", NULL), own);
    fake_close(&w->fake);
}

static void a_query_says_how_many_calls_and_after_which_event(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    for (int i = 0; i < 5; i++) web_call(w, "GET /", NULL);
    web_get(w, "/calls.json?x=1&most=2", NULL);
    assert_int_equal(exposition_lines(w->body, "", ""), 0); /* one line without an end */
    size_t calls = 0;
    for (const char *at = w->body; (at = strstr(at, "\"id\":")) != NULL; at++) calls++;
    assert_int_equal(calls, 2);
    web_get(w, "/events.json?after=0", NULL);
    web_expect(w, "\"sequence\":1,");
    web_get(w, "/events.json?after=1", NULL);
    web_expect_not(w, "\"sequence\":1,");
    assert_string_equal(web_get(w, "/events.json?after=999999", NULL), "[]");
    web_get(w, "/events.json?after=-5", NULL); /* no number: as if it were not there */
    web_expect(w, "\"sequence\":1,");
    web_get(w, "/events.json?before=3&after", NULL);
    web_expect(w, "\"sequence\":1,");
    fake_close(&w->fake);
}

/* ---- the page ------------------------------------------------------------------------------------ */

static void the_page_comes_whole_and_its_policy_allows_nothing_from_elsewhere(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_get(w, "/", NULL);
    assert_int_equal(w->page.http, 200);
    assert_string_equal(w->page.type, "text/html; charset=utf-8");
    assert_int_equal(strncmp(w->body, "<!doctype html>", 15), 0);
    web_expect(w, "</html>");
    web_expect_not(w, "innerHTML");
    web_expect_not(w, "src=\"http");
    web_expect_not(w, " style=\"");
    assert_non_null(strstr(weir_page_csp(), "default-src 'none'"));
    assert_non_null(strstr(weir_page_csp(), "script-src 'sha256-"));
    assert_null(strstr(weir_page_csp(), "unsafe"));
    fake_close(&w->fake);
}

static void what_is_no_document_is_told_so_and_changes_nothing(void **state)
{
    static const char *const paths[] = {"/healthz",      "/health/",   "",  "health",
                                        "/metrics.json", "/../health", "//"};
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    weir_page page = {.http = 77};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_false(weir_page_get(weir_engine_area(w->fake.engine), paths[i], NULL, &page));
    }
    assert_int_equal(page.http, 77);
    fake_close(&w->fake);
}

static void without_memory_a_document_is_500_and_the_next_one_is_well(void **state)
{
    static const char *const paths[] = {"/health", "/metrics", "/stats.json", "/calls.json", "/events.json"};
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_call(w, "GET /", NULL);
    w->out_of_memory = true;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        web_get(w, paths[i], NULL);
        assert_int_equal(w->page.http, 500);
        assert_string_equal(w->body, "out of memory\n");
    }
    web_get(w, "/livez", NULL);
    assert_int_equal(w->page.http, 200);
    w->out_of_memory = false;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        web_get(w, paths[i], NULL);
        assert_int_equal(w->page.http, 200);
    }
    fake_close(&w->fake);
}

static void nothing_is_allocated_once_the_text_has_its_room(void **state)
{
    struct web *w = *state;
    weir_held before, after;
    fake_open(&w->fake, &w->options);
    for (int i = 0; i < 10; i++) web_call(w, "GET /", NULL);
    web_metrics(w, true);
    web_get(w, "/health", NULL);
    weir_held_now(w->fake.engine, &before);
    for (int i = 0; i < 3; i++) {
        web_metrics(w, true);
        web_metrics(w, false);
        web_get(w, "/health", "application/health+json");
        web_get(w, "/", NULL);
    }
    weir_held_now(w->fake.engine, &after);
    assert_int_equal(after.allocations, before.allocations);
    fake_close(&w->fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        web_test(health_is_the_engines_own_document),
        web_test(degraded_is_200_and_unhealthy_is_503),
        web_test(the_drafts_fields_stand_beside_the_others_when_asked_for),
        web_test(the_draft_says_warn_and_fail_with_the_reason),
        web_test(the_programs_own_checks_are_in_the_draft_and_in_the_metrics),
        web_test(a_draining_engine_is_alive_and_not_ready),
        web_test(only_the_loss_of_a_critical_backend_makes_unready),
        web_test(the_json_documents_are_the_engines),
        web_test(a_query_says_how_many_calls_and_after_which_event),
        web_test(the_page_comes_whole_and_its_policy_allows_nothing_from_elsewhere),
        web_test(what_is_no_document_is_told_so_and_changes_nothing),
        web_test(without_memory_a_document_is_500_and_the_next_one_is_well),
        web_test(nothing_is_allocated_once_the_text_has_its_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
