/* /metrics: both formats, and that what they say is what happened. */
#include "web_fixture.h"

#include "area/meter.h"
#include "engine/engine.h"
#include "weir/metrics.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const char duration_count[] = "weir_call_duration_seconds_count";

static void assert_sum(const struct web *w, const char *start, const char *part, double expected)
{
    double sum = exposition_sum(w->body, start, part);
    if (sum != expected) print_error("%s %s is %g, not %g, in\n%s\n", start, part, sum, expected, w->body);
    assert_true(sum == expected);
}

/* Some of everything: good calls, refused ones, errors of the server, calls in vain. */
static void answer_every_third_with_an_error(struct fake *fake, struct fake_link *link,
                                             const struct wr_segment *segment, struct fake_answer *answer)
{
    (void)link;
    (void)segment;
    if (fake->sends % 3 == 0) snprintf(answer->sqlstate, sizeof answer->sqlstate, "23505");
}

static void mixed_traffic(struct web *w)
{
    w->fake.answer = answer_every_third_with_an_error;
    for (int i = 0; i < 12; i++) web_call(w, i % 2 == 0 ? "GET /a" : "GET /b", NULL);
    weir_pause(w->fake.engine, "service@primary", true, NULL);
    web_call(w, "GET /a", NULL);
    weir_pause(w->fake.engine, "service@primary", false, NULL);
    web_outage(w, "replica");
    web_call(w, "GET /b", "replica");
}

/* ---- form ------------------------------------------------------------------------------------- */

static void both_formats_are_well_formed_whatever_has_happened(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_metrics(w, false);
    web_metrics(w, true);
    mixed_traffic(w);
    web_metrics(w, false);
    assert_string_equal(w->page.type, "text/plain; version=0.0.4; charset=utf-8");
    web_metrics(w, true);
    assert_string_equal(w->page.type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    for (weir_breaker_state s = WEIR_FORCED_OPEN; s <= WEIR_METRICS_ONLY; s = (weir_breaker_state)(s + 1)) {
        weir_force_breaker(w->fake.engine, NULL, s, NULL);
        web_metrics(w, false);
        web_metrics(w, true);
    }
    weir_drain(w->fake.engine, FAKE_MS(10));
    web_metrics(w, true);
    fake_close(&w->fake);
}

static void openmetrics_adds_units_creation_times_and_state_sets_to_the_same_samples(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_call(w, "GET /", NULL);
    web_metrics(w, false);
    web_expect(w, "# TYPE weir_calls_total counter\n");
    web_expect(w, "weir_calls_total{pool=\"service@primary\",label=\"GET /\",outcome=\"ok\"} 1\n");
    web_expect(w, "weir_breaker_state{pool=\"service@primary\",state=\"closed\"} 1\n");
    web_expect(w, "# TYPE weir_build_info gauge\n");
    web_expect_not(w, "_created{");
    web_expect_not(w, "# UNIT");
    web_metrics(w, true);
    web_expect(w, "# TYPE weir_calls counter\n");
    web_expect(w, "weir_calls_total{pool=\"service@primary\",label=\"GET /\",outcome=\"ok\"} 1\n");
    web_expect(w, "# TYPE weir_breaker_state stateset\n");
    web_expect(
        w, "weir_breaker_state{pool=\"service@primary\",state=\"closed\",weir_breaker_state=\"closed\"} 1\n");
    web_expect(w, "# UNIT weir_call_duration_seconds seconds\n");
    web_expect(w, "weir_connections_opened_created{pool=\"service@primary\"} ");
    web_expect(w, "weir_build_info{version=\"" WEIR_VERSION "\",engine=\"");
    fake_close(&w->fake);
}

static void hostile_labels_cannot_break_out_and_stay_apart(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_call(w, "a\"} 1\nweir_calls_total{pool=\"x", NULL);
    web_call(w, "back\\slash", NULL);
    web_call(w, "\xff", NULL);
    web_call(w, "\xfe", NULL);
    web_call(w,
             "\xef\xbf\xbd"
             "ff",
             NULL); /* what the first of them is written as */
    web_call(w, "\r\x7f\x01", NULL);
    web_call(w, "gr\xc3\xbc\xc3\x9f dich", NULL);
    web_call(w,
             "01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234"
             "56789",
             NULL);
    web_metrics(w, true);
    web_metrics(w, false);
    web_expect(w, "label=\"a\\\"} 1\\nweir_calls_total{pool=\\\"x\"");
    web_expect(w, "label=\"back\\\\slash\"");
    web_expect(w, "label=\"\xef\xbf\xbd"
                  "ff\"");
    web_expect(w, "label=\"\xef\xbf\xbd"
                  "ef\xef\xbf\xbd"
                  "bf\xef\xbf\xbd"
                  "bdff\"");
    web_expect(w, "label=\"\xef\xbf\xbd"
                  "0d\xef\xbf\xbd"
                  "7f\xef\xbf\xbd"
                  "01\"");
    web_expect(w, "label=\"gr\xc3\xbc\xc3\x9f dich\"");
    assert_sum(w, "weir_calls_total", "", 8);
    assert_sum(w, duration_count, "", 8);
    fake_close(&w->fake);
}

/* The area has room for 128 labels: what comes after counts as "other". */
static void the_number_of_series_has_a_bound(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    for (int i = 0; i < 200; i++) {
        char context[32];
        snprintf(context, sizeof context, "GET /%d", i);
        web_call(w, context, NULL);
    }
    web_metrics(w, true);
    web_metrics(w, false);
    assert_int_equal(exposition_lines(w->body, duration_count, ""), 128);
    assert_sum(w, "weir_calls_total", "label=\"other\",outcome=\"ok\"", 200 - 127);
    assert_sum(w, "weir_calls_total", "outcome=\"ok\"", 200);
    assert_sum(w, "weir_labels ", "", 128);
    fake_close(&w->fake);
}

/* ---- truth ------------------------------------------------------------------------------------ */

static void every_call_is_in_one_outcome_and_in_the_histogram(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    mixed_traffic(w);
    web_metrics(w, false);
    static const char *const names[][2] = {
        {"ok", "ok"},           {"failed", "failed"},   {"refused", "rejected"},
        {"timeout", "timeout"}, {"unknown", "unknown"}, {"cancelled", "cancelled"}};
    double all = 0;
    for (size_t i = 0; i < 6; i++) {
        char part[64];
        snprintf(part, sizeof part, "outcome=\"%s\"", names[i][1]);
        assert_sum(w, "weir_calls_total", part, (double)fake_counter(&w->fake, "calls", names[i][0]));
        all += exposition_sum(w->body, "weir_calls_total", part);
    }
    assert_true(all == 17);
    assert_sum(w, duration_count, "", all);
    assert_sum(w, "weir_call_duration_seconds_bucket", "le=\"+Inf\"", all);
    assert_sum(w, "weir_calls_started_total", "", all);
    assert_sum(w, "weir_calls_in_flight", "", 0);
    fake_close(&w->fake);
}

static void what_the_engine_counts_is_what_is_told(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    mixed_traffic(w);
    web_metrics(w, false);
    struct fake *f = &w->fake;
    assert_sum(w, "weir_attempts_total", "", (double)fake_counter(f, "attempts", "all"));
    assert_sum(w, "weir_rejected_total", "reason=\"paused\"", 1);
    assert_sum(w, "weir_rejected_total", "reason=\"breaker_open\"",
               (double)fake_counter(f, "refused", "breaker_open"));
    assert_sum(w, "weir_connect_failures_total", "", (double)fake_counter(f, "events", "connect_failed"));
    assert_sum(w, "weir_connections_opened_total", "", (double)fake_counter(f, "events", "opened"));
    assert_sum(w, "weir_connections{", "pool=\"service@primary\",state=\"idle\"", 1);
    assert_sum(w, "weir_connections_max", "pool=\"service@primary\"", 2);
    assert_sum(w, "weir_breaker_transitions_total", "pool=\"service@replica\",to=\"open\"", 1);
    assert_sum(w, "weir_breaker_state", "pool=\"service@replica\",state=\"open\"", 1);
    assert_sum(w, "weir_backend_up", "backend=\"primary\"", 1);
    assert_sum(w, "weir_backend_up", "backend=\"replica\"", 0);
    assert_sum(w, "weir_pool_info", "pool=\"anon@replica\",client=\"anon\",backend=\"replica\"", 1);
    assert_sum(w, "weir_workers", "", 1);
    assert_sum(w, "weir_health", "state=\"unhealthy\"", 1); /* the replica is critical */
    fake_close(&w->fake);
}

static void answer_twice_with_a_serialization_failure(struct fake *fake, struct fake_link *link,
                                                      const struct wr_segment *segment,
                                                      struct fake_answer *answer)
{
    (void)link;
    (void)segment;
    if (fake->sends <= 2) snprintf(answer->sqlstate, sizeof answer->sqlstate, "40001");
    if (fake->sends > 3) answer->never = true;
}

static void failures_and_retries_are_told_by_what_went_wrong(void **state)
{
    struct web *w = *state;
    w->options.retries = 3;
    w->fake.answer = answer_twice_with_a_serialization_failure;
    fake_open(&w->fake, &w->options);
    weir_call *call = fake_submit(&w->fake, (weir_request){.context = "in the end"}, "select 1");
    fake_run(&w->fake, FAKE_MS(400));
    assert_int_equal(fake_code(call), WEIR_CALL_OK);
    weir_call_free(call);
    call = fake_submit(&w->fake, (weir_request){.context = "never"}, "select 1");
    fake_run(&w->fake, FAKE_MS(600));
    assert_int_equal(fake_code(call), WEIR_CALL_TIMEOUT);
    weir_call_free(call);
    web_metrics(w, true);
    web_metrics(w, false);
    assert_sum(w, "weir_errors_total", "pool=\"service@primary\",reason=\"serialization\"", 2);
    assert_sum(w, "weir_errors_total", "reason=\"timeout\"", 1);
    assert_sum(w, "weir_errors_total", "", 3);
    assert_sum(w, "weir_retries_total", "reason=\"serialization\"", 2);
    assert_sum(w, "weir_retries_total", "", (double)fake_counter(&w->fake, "attempts", "retries"));
    fake_close(&w->fake);
}

static void connects_that_fail_are_told_by_what_the_server_said(void **state)
{
    struct web *w = *state;
    w->options.breaker.min_calls = 100;
    fake_open(&w->fake, &w->options);
    web_outage(w, "primary");
    snprintf(w->fake.connect_sqlstate, sizeof w->fake.connect_sqlstate, "53300");
    web_call(w, "full", "replica");
    w->fake.connect_sqlstate[0] = '\0';
    web_metrics(w, false);
    assert_true(exposition_sum(w->body,
                               "weir_connect_failures_total{pool=\"service@primary\",reason=\"connect\"}",
                               "") > 0);
    assert_true(exposition_sum(w->body, "weir_connect_failures_total{pool=\"service@replica\"",
                               "too_many_connections") > 0);
    assert_sum(w, "weir_connect_failures_total", "",
               (double)fake_counter(&w->fake, "events", "connect_failed"));
    fake_close(&w->fake);
}

static void an_open_breaker_tells_until_when(void **state)
{
    struct web *w = *state;
    w->options.breaker.open_for_ns = FAKE_MS(60000);
    fake_open(&w->fake, &w->options);
    web_metrics(w, false);
    assert_int_equal(exposition_lines(w->body, "weir_breaker_open_until", ""), 0);
    web_outage(w, "replica");
    web_metrics(w, false);
    double now = (double)w->fake.host.wall_us(w->fake.host.ctx) / 1e6;
    double until = exposition_sum(w->body, "weir_breaker_open_until", "");
    assert_true(until > now + 59 && until <= now + 60);
    fake_close(&w->fake);
}

static void a_duration_stands_in_the_right_bucket_and_the_sum_is_exact(void **state)
{
    struct web *w = *state;
    w->fake.service_ns = FAKE_MS(30);
    fake_open(&w->fake, &w->options);
    weir_call *call = fake_submit(&w->fake, (weir_request){.context = "slow"}, "select 1");
    fake_run(&w->fake, FAKE_MS(100));
    weir_call_free(call);
    web_metrics(w, false);
    assert_sum(w, "weir_call_duration_seconds_bucket", "le=\"0.020971519\"", 0);
    assert_sum(w, "weir_call_duration_seconds_bucket", "le=\"0.050331647\"", 1);
    double expected = 0.030 + (double)w->fake.connect_ns / 1e9;
    double sum = exposition_sum(w->body, "weir_call_duration_seconds_sum", "");
    assert_true(sum > expected - 1e-9 && sum < expected + 1e-9);
    fake_close(&w->fake);
}

static void a_connection_is_held_from_its_lease_until_it_is_given_back(void **state)
{
    struct web *w = *state;
    w->fake.service_ns = FAKE_MS(30);
    fake_open(&w->fake, &w->options);
    weir_call *unit = fake_begin(&w->fake, (weir_request){.context = "unit"});
    fake_run(&w->fake, FAKE_MS(10));
    assert_int_equal(weir_call_status(unit), WEIR_READY);
    fake_run(&w->fake, FAKE_MS(200)); /* which the program takes for something else */
    web_metrics(w, false);
    assert_sum(w, "weir_hold_duration_seconds_count{pool=\"service@primary\"}", "", 0);
    weir_unit_finish(unit, WEIR_ROLLBACK);
    fake_run(&w->fake, FAKE_MS(100));
    weir_call_free(unit);
    web_metrics(w, false);
    assert_sum(w, "weir_hold_duration_seconds_count{pool=\"service@primary\"}", "", 1);
    assert_true(exposition_sum(w->body, "weir_hold_duration_seconds_sum{pool=\"service@primary\"}", "") >
                0.199);
    fake_close(&w->fake);
}

static void each_lease_is_told_once_whatever_becomes_of_it(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    mixed_traffic(w);
    web_metrics(w, false);
    double leases = exposition_sum(w->body, "weir_acquire_wait_seconds_count", "");
    assert_true(leases >= 12);
    assert_sum(w, "weir_hold_duration_seconds_count", "", leases);
    fake_close(&w->fake);
}

static void the_names_of_opentelemetry_tell_the_same(void **state)
{
    static const char *const accept[] = {NULL, "application/openmetrics-text"};
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    mixed_traffic(w);
    web_metrics(w, false);
    double calls = exposition_sum(w->body, duration_count, "");
    for (int i = 0; i < 2; i++) {
        const char *text = web_get(w, "/metrics?x=1&set=otel", accept[i]);
        const char *fault = exposition_fault(text, i == 1);
        if (fault != NULL) print_error("%s\n", fault);
        assert_null(fault);
        web_expect(
            w, "db_client_connection_count{db_system_name=\"postgresql\",db_client_connection_pool_name=\""
               "service@primary\",db_client_connection_state=\"idle\"} 1\n");
        assert_sum(w, "db_client_operation_duration_seconds_count{", "", calls);
        assert_sum(w, "db_client_operation_duration_seconds_count{", "db_query_summary=\"GET /a\"", 7);
        web_expect_not(w, "\nweir_");
    }
    web_get(w, "/metrics?set=otelx", NULL);
    web_expect_not(w, "db_client");
    fake_close(&w->fake);
}

static void traced_call(struct web *w, const char *context, uint64_t took_ns, const char *traceparent)
{
    w->fake.service_ns = took_ns;
    weir_call *call =
        fake_submit(&w->fake, (weir_request){.context = context, .traceparent = traceparent}, "select 1");
    fake_run(&w->fake, FAKE_MS(400));
    weir_call_free(call);
}

/* The exemplar's own form, and that it is in its bucket, is looked after in web_metrics. */
static void openmetrics_names_the_newest_traced_call_of_each_bucket(void **state)
{
    static const char old[] = "00-000000000000000000000000000000aa-00f067aa0ba902b7-01",
                      newer[] = "00-000000000000000000000000000000bb-00f067aa0ba902b7-01",
                      slow[] = "00-000000000000000000000000000000cc-00f067aa0ba902b7-01";
    static const char *const unsound[] = {"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                                          "rubbish", "00-\"} 1 # {x=\"-",
                                          "00-000000000000000000000000000000DD-00f067aa0ba902b7-01"};
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_call(w, "warm", NULL);
    traced_call(w, "GET /a", FAKE_MS(30), old);
    traced_call(w, "GET /a", FAKE_MS(30), newer);
    traced_call(w, "GET /a", FAKE_MS(300), slow);
    for (size_t i = 0; i < sizeof unsound / sizeof *unsound; i++)
        traced_call(w, "GET /b", FAKE_MS(30), unsound[i]);
    web_metrics(w, true);
    web_expect(
        w, "label=\"GET /a\",le=\"0.050331647\"} 2 # {trace_id=\"000000000000000000000000000000bb\"} 0.03");
    web_expect(w, "le=\"0.536870911\"} 3 # {trace_id=\"000000000000000000000000000000cc\"} 0.3");
    web_expect_not(w, "aa\"}");
    assert_int_equal(exposition_lines(w->body, "weir_call_duration_seconds_bucket", "# {"), 2);
    web_metrics(w, false);
    web_expect_not(w, "trace_id");
    fake_close(&w->fake);
}

/* The edges are borders in the area's histograms, so what is on either side of one is told apart to the nanosecond. */
static void the_buckets_are_exact_at_their_edges(void **state)
{
    struct web *w = *state;
    weir_label_figures label;
    weir_pool_figures pool;
    fake_open(&w->fake, &w->options);
    struct wr_area *area = w->fake.engine->area;
    struct wr_series_meter *series = wr_meter_series(area, 0, 0);
    struct wr_pool_meter *meter = wr_meter_pool(area, 0);
    for (size_t i = 0; i < WEIR_HISTOGRAM_EDGES; i++) {
        for (uint64_t below = 0; below < 2; below++) {
            wr_count(&series->ok, 1);
            wr_histogram_record_coarse(&series->duration, weir_histogram_edge_ns(i) - below);
            wr_histogram_record_fine(&meter->wait, weir_histogram_edge_ns(i) - below);
        }
    }
    assert_true(weir_read_label(weir_engine_area(w->fake.engine), 0, 0, &label));
    assert_true(weir_read_pool(weir_engine_area(w->fake.engine), 0, &pool));
    for (size_t i = 0; i < WEIR_HISTOGRAM_EDGES; i++) {
        assert_int_equal(label.duration.below[i], 2 * i + 1);
        assert_int_equal(pool.wait.below[i], 2 * i + 1);
    }
    assert_int_equal(label.duration.count, 2 * WEIR_HISTOGRAM_EDGES);
    assert_int_equal(weir_histogram_edge_ns(WEIR_HISTOGRAM_EDGES), 0);
    fake_close(&w->fake);
}

/* ---- workers that die ------------------------------------------------------------------------- */

static void a_worker_killed_between_its_two_counts_leaves_a_call_without_a_duration(void **state)
{
    struct web *w = *state;
    fake_open(&w->fake, &w->options);
    web_call(w, "GET /", NULL);
    struct wr_area *area = w->fake.engine->area;
    wr_count(&wr_meter_series(area, 0, wr_area_label(area, "GET /"))->ok, 1);
    web_metrics(w, true);
    web_metrics(w, false);
    assert_sum(w, "weir_calls_total", "outcome=\"ok\"", 2);
    assert_sum(w, duration_count, "", 2);
    assert_sum(w, "weir_call_duration_seconds_bucket", "le=\"30.064771071\"", 1);
    fake_close(&w->fake);
}

static const char *area_path(void)
{
    static char path[128];
    snprintf(path, sizeof path, "/tmp/weir-web-%ld.area", (long)getpid());
    return path;
}

/* Another worker on the same area: it serves so many calls, says so, and is killed. */
static void a_worker_serves_and_dies(const char *path, int calls)
{
    int pipe_of[2];
    char byte = 0;
    assert_int_equal(pipe(pipe_of), 0);
    pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) _exit(1);
        static struct web *worker;
        void *state;
        if (web_set_up(&state) != 0) _exit(1);
        worker = state;
        worker->options.area_path = path;
        fake_open(&worker->fake, &worker->options);
        for (int i = 0; i < calls; i++) web_call(worker, "GET /shared", NULL);
        if (write(pipe_of[1], "x", 1) != 1) _exit(1);
        pause();
    }
    assert_int_equal(read(pipe_of[0], &byte, 1), 1);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(pipe_of[0]);
    close(pipe_of[1]);
}

static void counters_never_fall_when_a_worker_dies_and_its_connections_go(void **state)
{
    struct web *w = *state;
    unlink(area_path());
    w->options.area_path = area_path();
    fake_open(&w->fake, &w->options);
    web_call(w, "GET /shared", NULL);
    double last = 0;
    for (int life = 1; life <= 3; life++) {
        a_worker_serves_and_dies(area_path(), 7);
        web_metrics(w, true);
        web_metrics(w, false);
        double now = exposition_sum(w->body, "weir_calls_total", "label=\"GET /shared\",outcome=\"ok\"");
        assert_true(now == 1 + 7 * life && now > last);
        assert_sum(w, duration_count, "GET /shared", now);
        fake_run(&w->fake, FAKE_MS(3000)); /* the dead one is found and cleared away */
        web_metrics(w, false);
        assert_sum(w, "weir_calls_total", "label=\"GET /shared\",outcome=\"ok\"", now);
        assert_sum(w, "weir_connections_opened_total", "pool=\"service@primary\"", 1 + life);
        assert_sum(w, "weir_connections{", "pool=\"service@primary\",state=\"idle\"", 1);
        assert_sum(w, "weir_workers", "", 1);
        last = now;
    }
    fake_close(&w->fake);
    unlink(area_path());
}

/* ---- workers at work ---------------------------------------------------------------------------- */

static pid_t a_worker_at_work(const char *path, int number)
{
    pid_t child = fork();
    if (child != 0) return child;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) _exit(1); /* a test that fails leaves nobody behind */
    void *state;
    if (web_set_up(&state) != 0) _exit(1);
    struct web *worker = state;
    worker->options.area_path = path;
    worker->fake.answer = answer_every_third_with_an_error;
    fake_open(&worker->fake, &worker->options);
    for (int i = 0;; i++) {
        char context[16];
        snprintf(context, sizeof context, "GET /%d", (i + number) % 3);
        web_call(worker, context, i % 7 == 0 ? "replica" : "primary");
    }
}

/* Others go on counting while we read, and are killed in the middle of it: each scrape is consistent in itself and none
 * tells less than the one before. */
static void every_scrape_agrees_with_itself_and_none_falls_behind(void **state)
{
    struct web *w = *state;
    enum { WORKERS = 3, SCRAPES = 200 };
    pid_t workers[WORKERS];
    int status;
    unlink(area_path());
    w->options.area_path = area_path();
    fake_open(&w->fake, &w->options);
    for (int i = 0; i < WORKERS; i++) workers[i] = a_worker_at_work(area_path(), i);
    char *before = strdup(web_metrics(w, false));
    for (int scrape = 0, alive = WORKERS; scrape < SCRAPES; scrape++) {
        web_metrics(w, false);
        const char *fallen = exposition_fell(before, w->body);
        if (fallen != NULL) print_error("%s\n", fallen);
        assert_null(fallen);
        double ended = exposition_sum(w->body, "weir_calls_total", "");
        if (ended >= 0) assert_sum(w, duration_count, "", ended);
        free(before);
        before = strdup(w->body);
        if (scrape % (SCRAPES / (WORKERS + 1)) == SCRAPES / (WORKERS + 1) - 1 && alive > 0) {
            assert_int_equal(kill(workers[--alive], SIGKILL), 0);
            assert_int_equal(waitpid(workers[alive], &status, 0), workers[alive]);
            assert_true(WIFSIGNALED(status)); /* it was at work until then */
        }
        fake_run(&w->fake, FAKE_MS(100));
    }
    assert_true(exposition_sum(w->body, "weir_calls_total", "") > 0);
    free(before);
    fake_close(&w->fake);
    unlink(area_path());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        web_test(both_formats_are_well_formed_whatever_has_happened),
        web_test(openmetrics_adds_units_creation_times_and_state_sets_to_the_same_samples),
        web_test(hostile_labels_cannot_break_out_and_stay_apart),
        web_test(the_number_of_series_has_a_bound),
        web_test(every_call_is_in_one_outcome_and_in_the_histogram),
        web_test(what_the_engine_counts_is_what_is_told),
        web_test(failures_and_retries_are_told_by_what_went_wrong),
        web_test(connects_that_fail_are_told_by_what_the_server_said),
        web_test(an_open_breaker_tells_until_when),
        web_test(a_duration_stands_in_the_right_bucket_and_the_sum_is_exact),
        web_test(a_connection_is_held_from_its_lease_until_it_is_given_back),
        web_test(each_lease_is_told_once_whatever_becomes_of_it),
        web_test(the_names_of_opentelemetry_tell_the_same),
        web_test(openmetrics_names_the_newest_traced_call_of_each_bucket),
        web_test(the_buckets_are_exact_at_their_edges),
        web_test(a_worker_killed_between_its_two_counts_leaves_a_call_without_a_duration),
        web_test(every_scrape_agrees_with_itself_and_none_falls_behind),
        web_test(counters_never_fall_when_a_worker_dies_and_its_connections_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
