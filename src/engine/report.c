/* Health, statistics, the flight recorder and the event log as JSON. One truth for every reader: the area. */
#include "engine/call.h"
#include "engine/health.h"
#include "engine/pool.h"
#include "weir/metrics.h"

#include <string.h>

/* ---- shared ------------------------------------------------------------------------------------------------- */

/* `empty` stands in when there was no memory for the report: it is valid JSON of the same kind. */
/* JSON knows one decimal point, whatever locale the host has set. */
static struct wr_buffer *begin(weir_engine *engine)
{
    engine->hosts_locale = uselocale(engine->plain_locale);
    wr_engine_refresh(engine);
    wr_buffer_clear(&engine->report);
    return &engine->report;
}

static size_t hand_over(weir_engine *engine, const char *empty, char *out, size_t size)
{
    const struct wr_buffer *b = &engine->report;
    uselocale(engine->hosts_locale);
    const char *text = b->failed ? empty : b->data;
    size_t whole = b->failed ? strlen(empty) : b->length;
    if (size > 0) {
        size_t length = whole < size - 1 ? whole : size - 1;
        memcpy(out, text, length);
        out[length] = '\0';
    }
    return whole;
}

/* From the server or from shared memory: five bytes, whatever they are. */
static void sqlstate_field(struct wr_buffer *b, const char *sqlstate)
{
    char text[6];
    memcpy(text, sqlstate, 5);
    text[5] = '\0';
    wr_buffer_printf(b, ",\"sqlstate\":");
    wr_buffer_json_string(b, text);
}

static double milliseconds(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void quantiles(struct wr_buffer *b, const char *name, const struct wr_histogram_view *view)
{
    double mean = view->count == 0 ? 0 : milliseconds(view->sum_ns) / (double)view->count;
    wr_buffer_printf(b,
                     "\"%s\":{\"count\":%llu,\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%."
                     "3f,\"max\":%.3f}",
                     name, (unsigned long long)view->count, mean,
                     milliseconds(wr_histogram_quantile(view, 0.5)),
                     milliseconds(wr_histogram_quantile(view, 0.9)),
                     milliseconds(wr_histogram_quantile(view, 0.99)),
                     milliseconds(wr_histogram_quantile(view, 0.999)), milliseconds(view->max_ns));
}

static uint64_t sum_of(const struct wr_pool *pool, enum wr_counter counter)
{
    return wr_meter_counter(pool->engine->area, pool->index, counter);
}

static uint64_t ended(const struct wr_pool *pool)
{
    uint64_t all = 0;
    for (int c = WR_N_OK; c <= WR_N_CANCELLED; c++) all += sum_of(pool, (enum wr_counter)c);
    return all;
}

/* ---- health --------------------------------------------------------------------------------------------------- */

static int badness(weir_breaker_state state)
{
    static const int of[] = {
        [WEIR_CLOSED] = 0,        [WEIR_OPEN] = 6,     [WEIR_HALF_OPEN] = 4,   [WEIR_FORCED_OPEN] = 5,
        [WEIR_FORCED_CLOSED] = 1, [WEIR_DISABLED] = 2, [WEIR_METRICS_ONLY] = 3};
    return of[state];
}

static weir_breaker_state worst_breaker(const weir_engine *engine)
{
    weir_breaker_state worst = WEIR_CLOSED;
    for (size_t i = 0; i < engine->pool_count; i++) {
        weir_breaker_state state = weir_breaker_state_at(engine->pools[i].breaker, engine->now);
        if (badness(state) > badness(worst)) worst = state;
    }
    return worst;
}

static weir_health assess(const weir_engine *engine)
{
    const weir_options *o = &engine->config.options;
    size_t answering = 0;
    bool degraded = engine->policy_off || badness(worst_breaker(engine)) >= badness(WEIR_HALF_OPEN);
    for (size_t b = 0; b < o->backend_count; b++) {
        struct wr_backend_view seen = wr_health_of_backend(engine, b);
        if (seen.ok || !seen.known) answering++;
        if (seen.known && !seen.ok && o->backends[b].critical) return WEIR_UNHEALTHY;
        if (seen.known && !seen.ok) degraded = true;
    }
    for (size_t i = 0; i < o->check_count; i++) {
        if (!engine->checks[i].known || engine->checks[i].ok) continue;
        if (o->checks[i].critical) return WEIR_UNHEALTHY;
        degraded = true;
    }
    if (answering == 0) return WEIR_UNHEALTHY;
    return degraded ? WEIR_DEGRADED : WEIR_HEALTHY;
}

weir_health weir_health_now(weir_engine *engine)
{
    wr_engine_refresh(engine);
    return assess(engine);
}

static const char *health_name(weir_health health)
{
    return health == WEIR_HEALTHY ? "healthy" : health == WEIR_DEGRADED ? "degraded" : "unhealthy";
}

static void check_line(struct wr_buffer *b, const char *name, bool known, bool ok, uint64_t elapsed,
                       const char *message)
{
    wr_buffer_json_string(b, name);
    wr_buffer_printf(b, ":{\"status\":\"%s\"", !known ? "unknown" : ok ? "healthy" : "unhealthy");
    if (known) wr_buffer_printf(b, ",\"responseTime\":%.0f", milliseconds(elapsed));
    if (known && !ok && message[0] != '\0') {
        wr_buffer_printf(b, ",\"message\":");
        wr_buffer_json_string(b, message);
    }
    wr_buffer_printf(b, "}");
}

static void database_check(struct wr_buffer *b, const weir_engine *engine)
{
    const weir_options *o = &engine->config.options;
    bool any_known = false, any_ok = false;
    uint64_t elapsed = 0;
    const char *message = "";
    for (size_t i = 0; i < o->backend_count; i++) {
        struct wr_backend_view seen = wr_health_of_backend(engine, i);
        if (seen.known && seen.ok && !any_ok) elapsed = seen.elapsed_ns;
        if (seen.known && !seen.ok) message = engine->backends[i].message;
        any_known = any_known || seen.known;
        any_ok = any_ok || (seen.known && seen.ok);
    }
    check_line(b, "database", any_known, any_ok, elapsed, message);
}

static void pool_sums(struct wr_buffer *b, const weir_engine *engine)
{
    uint64_t started = 0, over = 0, ok = 0, count = 0, sum_ns = 0;
    struct wr_histogram_view view;
    for (size_t i = 0; i < engine->pool_count; i++) {
        const struct wr_pool *pool = &engine->pools[i];
        started += sum_of(pool, WR_N_STARTED);
        ok += sum_of(pool, WR_N_OK);
        over += ended(pool);
        wr_histogram_view_init(&view, WR_FINE_BITS);
        wr_meter_histogram(engine->area, pool->index, WR_H_DURATION, &view);
        count += view.count;
        sum_ns += view.sum_ns;
    }
    double rate = over == 0 ? 100.0 : 100.0 * (double)ok / (double)over;
    double mean = count == 0 ? 0 : milliseconds(sum_ns) / (double)count;
    wr_buffer_printf(b,
                     "\"pool\":{\"totalRequests\":%llu,\"successRate\":\"%.2f\",\"averageResponseTime\":%.0f,"
                     "\"circuitState\":\"%s\"}",
                     (unsigned long long)started, rate, mean, weir_breaker_state_name(worst_breaker(engine)));
}

static void all_checks(struct wr_buffer *b, const weir_engine *engine)
{
    const weir_options *o = &engine->config.options;
    wr_buffer_printf(b, "\"checks\":{");
    database_check(b, engine);
    for (size_t i = 0; i < o->check_count; i++) {
        const struct wr_check_state *c = &engine->checks[i];
        wr_buffer_printf(b, ",");
        check_line(b, o->checks[i].name, c->known, c->ok, c->elapsed_ns, c->message);
    }
    wr_buffer_printf(b, "},");
}

size_t weir_health_json(weir_engine *engine, char *out, size_t size)
{
    const weir_options *o = &engine->config.options;
    struct wr_buffer *b = begin(engine);
    wr_buffer_printf(b, "{\"status\":\"%s\",", health_name(assess(engine)));
    all_checks(b, engine);
    pool_sums(b, engine);
    wr_buffer_printf(b, ",\"backends\":{");
    for (size_t i = 0; i < o->backend_count; i++) {
        struct wr_backend_view seen = wr_health_of_backend(engine, i);
        if (i > 0) wr_buffer_printf(b, ",");
        check_line(b, o->backends[i].name, seen.known, seen.ok, seen.elapsed_ns, engine->backends[i].message);
    }
    wr_buffer_printf(b, "},\"pools\":{");
    for (size_t i = 0; i < engine->pool_count; i++) {
        if (i > 0) wr_buffer_printf(b, ",");
        wr_buffer_json_string(b, engine->pools[i].name);
        wr_buffer_printf(b, ":\"%s\"",
                         weir_breaker_state_name(
                             weir_breaker_state_at(engine->pools[i].breaker, engine->now)));
    }
    wr_buffer_printf(b, "},\"uptime\":%.0f}", (double)(engine->now - engine->opened_at) / 1e9);
    return hand_over(engine, "{}", out, size);
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

struct named_counter {
    const char *name;
    enum wr_counter counter;
};

static void counters(struct wr_buffer *b, const struct wr_pool *pool, const char *group,
                     const struct named_counter *list, size_t count)
{
    wr_buffer_printf(b, "\"%s\":{", group);
    for (size_t i = 0; i < count; i++) {
        wr_buffer_printf(b, "%s\"%s\":%llu", i > 0 ? "," : "", list[i].name,
                         (unsigned long long)sum_of(pool, list[i].counter));
    }
    wr_buffer_printf(b, "},");
}

#define COUNTERS(b, pool, group, list) counters(b, pool, group, list, sizeof(list) / sizeof *(list))

static void pool_counters(struct wr_buffer *b, const struct wr_pool *pool)
{
    static const struct named_counter calls[] = {
        {"started", WR_N_STARTED},     {"ok", WR_N_OK},
        {"failed", WR_N_FAILED},       {"refused", WR_N_REFUSED},
        {"timeout", WR_N_TIMEOUT},     {"unknown", WR_N_UNKNOWN},
        {"cancelled", WR_N_CANCELLED}, {"abandoned", WR_N_ABANDONED}};
    static const struct named_counter attempts[] = {{"all", WR_N_ATTEMPTS},
                                                    {"retries", WR_N_RETRIES},
                                                    {"denied_budget", WR_N_DENIED_BUDGET},
                                                    {"denied_deadline", WR_N_DENIED_DEADLINE},
                                                    {"denied_unsafe", WR_N_DENIED_UNSAFE},
                                                    {"denied_max", WR_N_DENIED_MAX}};
    static const struct named_counter refused[] = {{"breaker_open", WR_N_REFUSED_BREAKER},
                                                   {"queue_full", WR_N_REFUSED_QUEUE},
                                                   {"acquire", WR_N_REFUSED_ACQUIRE},
                                                   {"paused", WR_N_REFUSED_PAUSED},
                                                   {"draining", WR_N_REFUSED_DRAINING}};
    static const struct named_counter closed[] = {{"all", WR_N_CLOSED},
                                                  {"idle", WR_N_CLOSED_IDLE},
                                                  {"lifetime", WR_N_CLOSED_LIFETIME},
                                                  {"error", WR_N_CLOSED_ERROR},
                                                  {"server", WR_N_CLOSED_PEEK},
                                                  {"cancel", WR_N_CLOSED_CANCEL},
                                                  {"shutdown", WR_N_CLOSED_SHUTDOWN}};
    static const struct named_counter others[] = {{"opened", WR_N_OPENED},
                                                  {"connect_failed", WR_N_CONNECT_FAILED},
                                                  {"cancels", WR_N_CANCELS},
                                                  {"resets", WR_N_RESETS},
                                                  {"heals", WR_N_HEALS},
                                                  {"leaks", WR_N_LEAKS},
                                                  {"probes", WR_N_PROBES},
                                                  {"probes_failed", WR_N_PROBES_FAILED},
                                                  {"resolved_committed", WR_N_RESOLVED_COMMITTED},
                                                  {"resolved_aborted", WR_N_RESOLVED_ABORTED},
                                                  {"resolved_not", WR_N_RESOLVED_NOT},
                                                  {"policy_calls", WR_N_POLICY_CALLS},
                                                  {"policy_faults", WR_N_POLICY_FAULTS}};
    COUNTERS(b, pool, "calls", calls);
    COUNTERS(b, pool, "attempts", attempts);
    COUNTERS(b, pool, "refused", refused);
    COUNTERS(b, pool, "closed", closed);
    COUNTERS(b, pool, "events", others);
}

static void pool_gauges(struct wr_buffer *b, const struct wr_pool *pool)
{
    static const struct {
        const char *name;
        enum wr_gauge gauge;
    } all[] = {{"open", WR_G_CONNECTIONS},      {"idle", WR_G_IDLE},           {"busy", WR_G_BUSY},
               {"connecting", WR_G_CONNECTING}, {"canceling", WR_G_CANCELING}, {"waiting", WR_G_WAITING},
               {"in_flight", WR_G_IN_FLIGHT}};
    wr_buffer_printf(b, "\"connections\":{\"max\":%u,\"min\":%u", wr_pool_max(pool), pool->client->min);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        wr_buffer_printf(b, ",\"%s\":%lld", all[i].name,
                         (long long)wr_meter_gauge(pool->engine->area, pool->index, all[i].gauge));
    }
    wr_buffer_printf(b, "},");
}

static void pool_breaker(struct wr_buffer *b, const struct wr_pool *pool)
{
    weir_breaker_snapshot s;
    char text[WEIR_WHY_MAX] = "";
    weir_breaker_snapshot_at(pool->breaker, pool->engine->now, &s);
    if (s.evidence.rule != WEIR_RULE_NONE) weir_evidence_text(&s.evidence, text, sizeof text);
    wr_buffer_printf(
        b,
        "\"breaker\":{\"state\":\"%s\",\"calls\":%u,\"failures\":%u,\"slow\":%u,\"refused\":%llu,"
        "\"opened\":%u,\"retry_after\":%.3f",
        weir_breaker_state_name(s.state), s.calls, s.failures, s.slow, (unsigned long long)s.refused,
        s.opened_count, s.retry_after_ns == UINT64_MAX ? 0 : (double)s.retry_after_ns / 1e9);
    if (s.failure_rate >= 0)
        wr_buffer_printf(b, ",\"failure_rate\":%.4f,\"slow_rate\":%.4f", s.failure_rate, s.slow_rate);
    wr_buffer_printf(b, ",\"evidence\":");
    wr_buffer_json_string(b, text);
    wr_buffer_printf(b, "},\"budget\":{\"level\":%.1f,\"cap\":%.1f},\"paused\":%s,",
                     weir_budget_level(pool->budget, pool->engine->now), weir_budget_cap(pool->budget),
                     atomic_load_explicit(&pool->record->paused, memory_order_relaxed) != 0 ? "true"
                                                                                            : "false");
}

static void pool_latency(struct wr_buffer *b, const struct wr_pool *pool)
{
    static const struct {
        const char *name;
        enum wr_pool_histogram which;
    } all[] = {{"duration_ms", WR_H_DURATION}, {"wait_ms", WR_H_WAIT}, {"connect_ms", WR_H_CONNECT}};
    struct wr_histogram_view view;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        wr_histogram_view_init(&view, WR_FINE_BITS);
        wr_meter_histogram(pool->engine->area, pool->index, all[i].which, &view);
        quantiles(b, all[i].name, &view);
        wr_buffer_printf(b, ",");
    }
}

static void pool_labels(struct wr_buffer *b, const struct wr_pool *pool)
{
    const struct wr_area *area = pool->engine->area;
    struct wr_series_sum sum;
    bool first = true;
    wr_buffer_printf(b, "\"labels\":[");
    for (uint32_t l = 0; l < wr_area_label_count(area); l++) {
        wr_meter_series_sum(area, pool->index, l, &sum);
        if (sum.duration.count == 0) continue;
        wr_buffer_printf(b, "%s{\"label\":", first ? "" : ",");
        wr_buffer_json_string(b, wr_area_label_text(area, l));
        wr_buffer_printf(b,
                         ",\"ok\":%llu,\"failed\":%llu,\"refused\":%llu,\"timeout\":%llu,\"unknown\":%llu,"
                         "\"cancelled\":%llu,\"retries\":%llu,",
                         (unsigned long long)sum.ok, (unsigned long long)sum.failed,
                         (unsigned long long)sum.refused, (unsigned long long)sum.timeout,
                         (unsigned long long)sum.unknown, (unsigned long long)sum.cancelled,
                         (unsigned long long)sum.retries);
        quantiles(b, "duration_ms", &sum.duration);
        wr_buffer_printf(b, "}");
        first = false;
    }
    wr_buffer_printf(b, "]");
}

size_t weir_stats_json(weir_engine *engine, char *out, size_t size)
{
    weir_engine_figures figures;
    weir_read_engine(engine, &figures);
    struct wr_buffer *b = begin(engine);
    wr_buffer_printf(b, "{\"name\":");
    wr_buffer_json_string(b, engine->config.options.name);
    wr_buffer_printf(b, ",\"health\":\"%s\",\"workers\":%u,\"draining\":%s", health_name(figures.health),
                     figures.workers, figures.draining ? "true" : "false");
    wr_buffer_printf(
        b, ",\"uptime\":%.3f,\"in_flight\":%zu,\"allocations\":%llu,\"policy\":{\"off\":%s,\"message\":",
        (double)(engine->now - engine->opened_at) / 1e9, engine->in_flight,
        (unsigned long long)engine->allocations, engine->policy_off ? "true" : "false");
    wr_buffer_json_string(b, engine->policy_message);
    wr_buffer_printf(b, "},");
    all_checks(b, engine);
    wr_buffer_printf(b, "\"pools\":[");
    for (size_t i = 0; i < engine->pool_count; i++) {
        const struct wr_pool *pool = &engine->pools[i];
        wr_buffer_printf(b, "%s{\"pool\":\"%s\",\"client\":\"%s\",\"backend\":\"%s\",", i > 0 ? "," : "",
                         pool->name, pool->client->name, pool->backend->name);
        pool_counters(b, pool);
        pool_gauges(b, pool);
        pool_breaker(b, pool);
        pool_latency(b, pool);
        pool_labels(b, pool);
        wr_buffer_printf(b, "}");
    }
    wr_buffer_printf(b, "]}");
    return hand_over(engine, "{}", out, size);
}

/* ---- recorder and events ------------------------------------------------------------------------------------------- */

enum { CALLS_MOST = 1024, EVENTS_MOST = 1024 };

static void attempt_line(struct wr_buffer *b, const struct wr_recorded_attempt *a)
{
    wr_buffer_printf(b,
                     "{\"start_us\":%u,\"wait_us\":%u,\"connect_us\":%u,\"run_us\":%u,\"backoff_us\":%u,"
                     "\"backend_pid\":%u",
                     a->start_us, a->wait_us, a->connect_us, a->run_us, a->backoff_us, a->backend_pid);
    sqlstate_field(b, a->sqlstate);
    wr_buffer_printf(b, ",\"phase\":\"%s\",\"class\":\"%s\"}", weir_phase_name((weir_phase)a->phase),
                     weir_class_name((weir_class)a->class_));
}

static void call_line(struct wr_buffer *b, const weir_engine *engine, const struct wr_recorded_call *r)
{
    wr_buffer_printf(b, "{\"id\":\"%llx\",\"started_us\":%llu,\"duration_ms\":%.3f,\"pool\":",
                     (unsigned long long)r->id, (unsigned long long)r->started_us,
                     milliseconds(r->duration_ns));
    wr_buffer_json_string(b, r->pool < wr_area_pool_count(engine->area)
                                 ? wr_area_pool_name(engine->area, r->pool)
                                 : "?");
    wr_buffer_printf(b, ",\"label\":");
    wr_buffer_json_string(b, wr_area_label_text(engine->area, r->label));
    wr_buffer_printf(b, ",\"context\":");
    wr_buffer_json_string(b, r->context);
    wr_buffer_printf(b, ",\"worker\":%u,\"code\":\"%s\",\"outcome\":\"%s\",\"unit\":%s,\"xid\":%llu",
                     r->worker, weir_code_name((weir_code)r->code),
                     weir_outcome_name((weir_outcome)r->outcome), r->unit != 0 ? "true" : "false",
                     (unsigned long long)r->xid);
    sqlstate_field(b, r->sqlstate);
    wr_buffer_printf(b, ",\"traceparent\":");
    wr_buffer_json_string(b, r->traceparent);
    wr_buffer_printf(b, ",\"attempts\":%u,\"timeline\":[", r->attempts);
    uint32_t kept = r->attempts < WR_RECORD_ATTEMPTS ? r->attempts : WR_RECORD_ATTEMPTS;
    for (uint32_t i = 0; i < kept; i++) {
        if (i > 0) wr_buffer_printf(b, ",");
        attempt_line(b, &r->attempt[i]);
    }
    wr_buffer_printf(b, "]}");
}

size_t weir_calls_json(weir_engine *engine, size_t most, char *out, size_t size)
{
    struct wr_buffer *b = begin(engine);
    if (most > CALLS_MOST) most = CALLS_MOST;
    struct wr_recorded_call *calls = wr_alloc(&engine->memory, (most + 1) * sizeof *calls);
    wr_buffer_printf(b, "[");
    size_t count = calls == NULL ? 0 : wr_recorder_read(engine->area, calls, most);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) wr_buffer_printf(b, ",");
        call_line(b, engine, &calls[i]);
    }
    wr_buffer_printf(b, "]");
    wr_free(&engine->memory, calls);
    return hand_over(engine, "[]", out, size);
}

static void event_line(struct wr_buffer *b, const weir_engine *engine, const struct wr_event *e)
{
    bool has_pool = e->pool > 0 && e->pool <= wr_area_pool_count(engine->area);
    wr_buffer_printf(b, "{\"sequence\":%llu,\"at_us\":%llu,\"kind\":\"%s\",\"worker\":%u,\"pool\":",
                     (unsigned long long)e->sequence, (unsigned long long)e->at_us,
                     wr_event_kind_name(e->kind), e->worker);
    wr_buffer_json_string(b, has_pool ? wr_area_pool_name(engine->area, e->pool - 1) : "");
    wr_buffer_printf(b, ",\"text\":");
    wr_buffer_json_string(b, e->text);
    wr_buffer_printf(b, "}");
}

size_t weir_events_json(weir_engine *engine, uint64_t after, char *out, size_t size)
{
    struct wr_buffer *b = begin(engine);
    struct wr_event *events = wr_alloc(&engine->memory, EVENTS_MOST * sizeof *events);
    wr_buffer_printf(b, "[");
    size_t count = events == NULL ? 0 : wr_event_read(engine->area, after, events, EVENTS_MOST);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) wr_buffer_printf(b, ",");
        event_line(b, engine, &events[i]);
    }
    wr_buffer_printf(b, "]");
    wr_free(&engine->memory, events);
    return hand_over(engine, "[]", out, size);
}
