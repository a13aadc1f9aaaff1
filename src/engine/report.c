/* Health and statistics as JSON. One truth for every reader: the area. */
#include "area/policytext.h"
#include "engine/call.h"
#include "engine/pool.h"
#include "engine/sight.h"
#include "weir/metrics.h"

#include <math.h>
#include <string.h>

/* ---- shared ------------------------------------------------------------------------------------------------- */

void wr_json_number(struct wr_buffer *b, double number, int decimals)
{
    wr_buffer_printf(b, "%.*f", decimals, isfinite(number) && fabs(number) < 1e15 ? number : 0.0);
}

static double milliseconds(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void quantiles(struct wr_buffer *b, const char *name, const struct wr_histogram_view *view)
{
    double mean = view->count == 0 ? 0 : milliseconds(view->sum_ns) / (double)view->count;
    wr_buffer_printf(
        b,
        "\"%s\":{\"count\":%llu,\"sum\":%.3f,\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%."
        "3f,\"max\":%.3f}",
        name, (unsigned long long)view->count, milliseconds(view->sum_ns), mean,
        milliseconds(wr_histogram_quantile(view, 0.5)), milliseconds(wr_histogram_quantile(view, 0.9)),
        milliseconds(wr_histogram_quantile(view, 0.99)), milliseconds(wr_histogram_quantile(view, 0.999)),
        milliseconds(view->max_ns));
}

static uint64_t sum_of(const struct weir_area *sight, uint32_t pool, enum wr_counter counter)
{
    return wr_meter_counter(sight->area, pool, counter);
}

static uint64_t ended(const struct weir_area *sight, uint32_t pool)
{
    uint64_t all = 0;
    for (int c = WR_N_OK; c <= WR_N_CANCELLED; c++) all += sum_of(sight, pool, (enum wr_counter)c);
    return all;
}

/* ---- health --------------------------------------------------------------------------------------------------- */

static int badness(weir_breaker_state state)
{
    static const int of[] = {
        [WEIR_CLOSED] = 0,        [WEIR_OPEN] = 6,     [WEIR_HALF_OPEN] = 4,   [WEIR_FORCED_OPEN] = 5,
        [WEIR_FORCED_CLOSED] = 1, [WEIR_DISABLED] = 2, [WEIR_METRICS_ONLY] = 3};
    return (unsigned)state < WEIR_BREAKER_STATES ? of[state] : 6; /* a damaged one admits nothing */
}

/* A pool that nobody has any more, after a change of the policy, speaks for nobody. */
static weir_breaker_state worst_breaker(struct weir_area *sight)
{
    weir_breaker_state worst = WEIR_CLOSED;
    struct wr_pool_seen pool;
    for (uint32_t i = 0; i < wr_area_pool_count(sight->area); i++) {
        if (!wr_pool_is_in_use(sight, i) || !wr_sight_pool(sight, i, &pool)) continue;
        weir_breaker_state state = weir_breaker_state_at(pool.breaker, sight->now_ns);
        if (badness(state) > badness(worst)) worst = state;
    }
    return worst;
}

weir_health wr_assess(struct weir_area *sight)
{
    const struct wr_household *all = &sight->household;
    uint32_t answering = 0;
    bool degraded = all->policy_off || badness(worst_breaker(sight)) >= badness(WEIR_HALF_OPEN);
    for (uint32_t i = 0; i < all->backend_count; i++) {
        const struct wr_backend_card *b = &all->backend[i];
        if (b->ok || !b->known) answering++;
        if (b->known && !b->ok && b->critical) return WEIR_UNHEALTHY;
        if (b->known && !b->ok) degraded = true;
    }
    for (uint32_t i = 0; i < all->check_count; i++) {
        const struct wr_check_card *c = &all->check[i];
        if (!c->known || c->ok) continue;
        if (c->critical) return WEIR_UNHEALTHY;
        degraded = true;
    }
    if (answering == 0 || all->workers == 0) return WEIR_UNHEALTHY;
    return degraded ? WEIR_DEGRADED : WEIR_HEALTHY;
}

weir_health weir_health_now(weir_engine *engine)
{
    wr_sight_look(&engine->sight);
    return wr_assess(&engine->sight);
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

static void database_check(struct wr_buffer *b, const struct wr_household *all)
{
    bool any_known = false, any_ok = false;
    uint64_t elapsed = 0;
    const char *message = "";
    for (uint32_t i = 0; i < all->backend_count; i++) {
        const struct wr_backend_card *seen = &all->backend[i];
        if (seen->known && seen->ok && !any_ok) elapsed = seen->elapsed_ns;
        if (seen->known && !seen->ok) message = seen->message;
        any_known = any_known || seen->known;
        any_ok = any_ok || (seen->known && seen->ok);
    }
    check_line(b, "database", any_known, any_ok, elapsed, message);
}

static void pool_sums(struct wr_buffer *b, struct weir_area *sight)
{
    uint64_t started = 0, over = 0, ok = 0, count = 0, sum_ns = 0;
    struct wr_histogram_view view;
    for (uint32_t i = 0; i < wr_area_pool_count(sight->area); i++) {
        started += sum_of(sight, i, WR_N_STARTED);
        ok += sum_of(sight, i, WR_N_OK);
        over += ended(sight, i);
        wr_histogram_view_init(&view, WR_FINE_BITS);
        wr_meter_histogram(sight->area, i, WR_H_DURATION, &view);
        count += view.count;
        sum_ns += view.sum_ns;
    }
    double rate = over == 0 ? 100.0 : 100.0 * (double)ok / (double)over;
    double mean = count == 0 ? 0 : milliseconds(sum_ns) / (double)count;
    wr_buffer_printf(b,
                     "\"pool\":{\"totalRequests\":%llu,\"successRate\":\"%.2f\",\"averageResponseTime\":%.0f,"
                     "\"circuitState\":\"%s\"}",
                     (unsigned long long)started, rate, mean, weir_breaker_state_name(worst_breaker(sight)));
}

static void all_checks(struct wr_buffer *b, const struct wr_household *all)
{
    wr_buffer_printf(b, "\"checks\":{");
    database_check(b, all);
    for (uint32_t i = 0; i < all->check_count; i++) {
        const struct wr_check_card *c = &all->check[i];
        wr_buffer_printf(b, ",");
        check_line(b, c->name, c->known, c->ok, c->elapsed_ns, c->message);
    }
    wr_buffer_printf(b, "},");
}

static void breaker_states(struct wr_buffer *b, struct weir_area *sight)
{
    struct wr_pool_seen pool;
    bool first = true;
    for (uint32_t i = 0; i < wr_area_pool_count(sight->area); i++) {
        if (!wr_sight_pool(sight, i, &pool)) continue;
        if (!first) wr_buffer_printf(b, ",");
        first = false;
        wr_buffer_json_string(b, pool.name);
        wr_buffer_printf(b, ":\"%s\"",
                         weir_breaker_state_name(weir_breaker_state_at(pool.breaker, sight->now_ns)));
    }
}

void wr_document_health(struct weir_area *sight, struct wr_buffer *b, uint64_t argument)
{
    const struct wr_household *all = &sight->household;
    (void)argument;
    wr_buffer_printf(b, "{\"status\":\"%s\",", health_name(wr_assess(sight)));
    all_checks(b, all);
    pool_sums(b, sight);
    wr_buffer_printf(b, ",\"backends\":{");
    for (uint32_t i = 0; i < all->backend_count; i++) {
        const struct wr_backend_card *seen = &all->backend[i];
        if (i > 0) wr_buffer_printf(b, ",");
        check_line(b, seen->name, seen->known, seen->ok, seen->elapsed_ns, seen->message);
    }
    wr_buffer_printf(b, "},\"pools\":{");
    breaker_states(b, sight);
    wr_buffer_printf(b, "},\"uptime\":%.0f}", (double)wr_sight_uptime_ns(sight) / 1e9);
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

struct named_counter {
    const char *name;
    enum wr_counter counter;
};

struct at { /* which pool, seen how */
    struct weir_area *sight;
    const struct wr_pool_seen *pool;
};

static void counters(struct wr_buffer *b, const struct at *at, const char *group,
                     const struct named_counter *list, size_t count)
{
    wr_buffer_printf(b, "\"%s\":{", group);
    for (size_t i = 0; i < count; i++) {
        wr_buffer_printf(b, "%s\"%s\":%llu", i > 0 ? "," : "", list[i].name,
                         (unsigned long long)sum_of(at->sight, at->pool->index, list[i].counter));
    }
    wr_buffer_printf(b, "},");
}

#define COUNTERS(b, at, group, list) counters(b, at, group, list, sizeof(list) / sizeof *(list))

static void pool_counters(struct wr_buffer *b, const struct at *at)
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
    COUNTERS(b, at, "calls", calls);
    COUNTERS(b, at, "attempts", attempts);
    COUNTERS(b, at, "refused", refused);
    COUNTERS(b, at, "closed", closed);
    COUNTERS(b, at, "events", others);
}

static void pool_gauges(struct wr_buffer *b, const struct at *at)
{
    static const struct {
        const char *name;
        enum wr_gauge gauge;
    } all[] = {{"open", WR_G_CONNECTIONS},      {"idle", WR_G_IDLE},           {"busy", WR_G_BUSY},
               {"connecting", WR_G_CONNECTING}, {"canceling", WR_G_CANCELING}, {"waiting", WR_G_WAITING},
               {"in_flight", WR_G_IN_FLIGHT}};
    wr_buffer_printf(b, "\"connections\":{\"max\":%u,\"min\":%u", at->pool->max, at->pool->min);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        wr_buffer_printf(b, ",\"%s\":%lld", all[i].name,
                         (long long)wr_meter_gauge(at->sight->area, at->pool->index, all[i].gauge));
    }
    wr_buffer_printf(b, "},");
}

static void pool_breaker(struct wr_buffer *b, const struct at *at)
{
    weir_breaker_snapshot s;
    char text[WEIR_WHY_MAX] = "";
    wr_sight_breaker(at->sight, at->pool, &s);
    if (s.evidence.rule != WEIR_RULE_NONE) weir_evidence_text(&s.evidence, text, sizeof text);
    wr_buffer_printf(
        b,
        "\"breaker\":{\"state\":\"%s\",\"calls\":%u,\"failures\":%u,\"slow\":%u,\"refused\":%llu,"
        "\"opened\":%u,\"retry_after\":%.3f",
        weir_breaker_state_name(s.state), s.calls, s.failures, s.slow, (unsigned long long)s.refused,
        s.opened_count, s.retry_after_ns == UINT64_MAX ? 0 : (double)s.retry_after_ns / 1e9);
    if (s.failure_rate >= 0)
        wr_buffer_printf(b, ",\"failure_rate\":%.4f,\"slow_rate\":%.4f", s.failure_rate, s.slow_rate);
    bool probing = s.state == WEIR_OPEN || s.state == WEIR_HALF_OPEN;
    uint64_t now = at->sight->now_ns, probe_at = probing ? at->pool->probe_at_ns : 0;
    wr_buffer_printf(b, ",\"next_probe\":%.3f", probe_at > now ? (double)(probe_at - now) / 1e9 : 0.0);
    wr_buffer_printf(b, ",\"evidence\":");
    wr_buffer_json_string(b, text);
    wr_buffer_printf(b, "},");
}

static void pool_steering(struct wr_buffer *b, const struct at *at)
{
    const struct wr_pool_seen *pool = at->pool;
    wr_buffer_printf(b, "\"budget\":{\"level\":");
    wr_json_number(b, weir_budget_level(pool->budget, at->sight->now_ns), 1);
    wr_buffer_printf(b, ",\"cap\":");
    wr_json_number(b, weir_budget_cap(pool->budget), 1);
    wr_buffer_printf(b, "},\"paused\":%s,\"draining\":%s,\"resized\":%s,\"configured_max\":%u,",
                     pool->paused ? "true" : "false", pool->drained ? "true" : "false",
                     pool->resized != 0 ? "true" : "false", pool->configured_max);
    uint64_t left = pool->forced_until_ns > at->sight->now_ns ? pool->forced_until_ns - at->sight->now_ns : 0;
    wr_buffer_printf(b, "\"forced_for\":%.3f,\"kind\":\"%s\",\"multiplex\":%u,", (double)left / 1e9,
                     pool->kind == WEIR_ANON ? "anon" : "service", pool->multiplex);
}

/* How many calls took less than each edge: four edges per octave, which are bucket borders, from 33 us to 34 s. Two readings
 * differ by what has ended between them. */
enum { FIRST_OCTAVE = 15, LAST_OCTAVE = 35, EDGES = (LAST_OCTAVE - FIRST_OCTAVE) * 4 + 1 };

struct cumulated {
    uint64_t edges[EDGES], below[EDGES];
};

static void cumulate(struct cumulated *c, const struct wr_histogram_view *view)
{
    for (unsigned i = 0; i < EDGES; i++) c->edges[i] = (uint64_t)(4 + i % 4) << (FIRST_OCTAVE - 2 + i / 4);
    wr_histogram_below(view, c->edges, c->below, EDGES);
}

static void list(struct wr_buffer *b, const uint64_t *numbers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        wr_buffer_printf(b, "%s%llu", i > 0 ? "," : "", (unsigned long long)numbers[i]);
}

static void pool_histogram(struct wr_buffer *b, const struct wr_histogram_view *view)
{
    struct cumulated c;
    cumulate(&c, view);
    wr_buffer_printf(b, "\"histogram\":{\"edges_ms\":[");
    for (unsigned i = 0; i < EDGES; i++)
        wr_buffer_printf(b, "%s%.6g", i > 0 ? "," : "", milliseconds(c.edges[i]));
    wr_buffer_printf(b, "],\"below\":[");
    list(b, c.below, EDGES);
    wr_buffer_printf(b, "],\"count\":%llu},", (unsigned long long)view->count);
}

/* There may be hundreds: the edges are the pool's, and neither what is below no call nor what is above all is told. */
static void label_histogram(struct wr_buffer *b, const struct wr_histogram_view *view)
{
    struct cumulated c;
    unsigned first = 0, end = EDGES;
    cumulate(&c, view);
    while (first < EDGES && c.below[first] == 0) first++;
    while (end > first && c.below[end - 1] == view->count) end--;
    wr_buffer_printf(b, ",\"histogram\":{\"first\":%u,\"below\":[", first);
    list(b, c.below + first, end - first);
    wr_buffer_printf(b, "],\"count\":%llu}", (unsigned long long)view->count);
}

static void pool_latency(struct wr_buffer *b, const struct at *at)
{
    static const struct {
        const char *name;
        enum wr_pool_histogram which;
    } all[] = {{"duration_ms", WR_H_DURATION}, {"wait_ms", WR_H_WAIT}, {"connect_ms", WR_H_CONNECT}};
    struct wr_histogram_view view;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        wr_histogram_view_init(&view, WR_FINE_BITS);
        wr_meter_histogram(at->sight->area, at->pool->index, all[i].which, &view);
        quantiles(b, all[i].name, &view);
        wr_buffer_printf(b, ",");
        if (all[i].which == WR_H_DURATION) pool_histogram(b, &view);
    }
}

static void pool_labels(struct wr_buffer *b, const struct at *at)
{
    const struct wr_area *area = at->sight->area;
    struct wr_series_sum sum;
    bool first = true;
    wr_buffer_printf(b, "\"labels\":[");
    for (uint32_t l = 0; l < wr_area_label_count(area); l++) {
        wr_meter_series_sum(area, at->pool->index, l, &sum);
        if (sum.duration.count == 0) continue;
        wr_buffer_printf(b, "%s{\"label\":", first ? "" : ",");
        wr_buffer_json_string(b, wr_sight_label(at->sight, l));
        wr_buffer_printf(b,
                         ",\"ok\":%llu,\"failed\":%llu,\"refused\":%llu,\"timeout\":%llu,\"unknown\":%llu,"
                         "\"cancelled\":%llu,\"retries\":%llu,",
                         (unsigned long long)sum.ok, (unsigned long long)sum.failed,
                         (unsigned long long)sum.refused, (unsigned long long)sum.timeout,
                         (unsigned long long)sum.unknown, (unsigned long long)sum.cancelled,
                         (unsigned long long)sum.retries);
        quantiles(b, "duration_ms", &sum.duration);
        label_histogram(b, &sum.duration);
        wr_buffer_printf(b, "}");
        first = false;
    }
    wr_buffer_printf(b, "]");
}

static void one_pool(struct wr_buffer *b, struct weir_area *sight, const struct wr_pool_seen *pool)
{
    struct at at = {sight, pool};
    wr_buffer_printf(b, "{\"pool\":");
    wr_buffer_json_string(b, pool->name);
    wr_buffer_printf(b, ",\"client\":");
    wr_buffer_json_string(b, pool->client);
    wr_buffer_printf(b, ",\"backend\":");
    wr_buffer_json_string(b, pool->backend);
    wr_buffer_printf(b, ",");
    pool_counters(b, &at);
    pool_gauges(b, &at);
    pool_breaker(b, &at);
    pool_steering(b, &at);
    pool_latency(b, &at);
    pool_labels(b, &at);
    wr_buffer_printf(b, "}");
}

static void all_pools(struct wr_buffer *b, struct weir_area *sight)
{
    struct wr_pool_seen pool;
    bool first = true;
    wr_buffer_printf(b, "\"pools\":[");
    for (uint32_t i = 0; i < wr_area_pool_count(sight->area); i++) {
        if (!wr_sight_pool(sight, i, &pool)) continue;
        if (!first) wr_buffer_printf(b, ",");
        first = false;
        one_pool(b, sight, &pool);
    }
    wr_buffer_printf(b, "]");
}

/* By the gauges, which are of this moment, and not by the cards, which may be a second old. */
static uint64_t in_flight(const struct weir_area *sight)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < wr_area_pool_count(sight->area); i++)
        sum += (uint64_t)wr_meter_gauge(sight->area, i, WR_G_IN_FLIGHT);
    return sum;
}

void wr_document_stats(struct weir_area *sight, struct wr_buffer *b, uint64_t argument)
{
    const struct wr_household *all = &sight->household;
    const weir_engine *own = sight->engine;
    bool draining = own != NULL ? own->state != WR_ENGINE_OPEN : all->draining;
    (void)argument;
    wr_buffer_printf(b, "{\"name\":");
    wr_buffer_json_string(b, wr_area_name(sight->area));
    wr_buffer_printf(b, ",\"health\":\"%s\",\"workers\":%u,\"draining\":%s", health_name(wr_assess(sight)),
                     all->workers, draining ? "true" : "false");
    wr_buffer_printf(b,
                     ",\"created_us\":%llu,\"now_us\":%llu,\"uptime\":%.3f,\"in_flight\":%llu,"
                     "\"allocations\":%llu,\"policy\":{\"generation\":%llu,\"off\":%s,\"message\":",
                     (unsigned long long)wr_sight_created_us(sight), (unsigned long long)sight->now_us,
                     (double)wr_sight_uptime_ns(sight) / 1e9, (unsigned long long)in_flight(sight),
                     (unsigned long long)all->allocations,
                     (unsigned long long)wr_policy_generation(sight->area),
                     all->policy_off ? "true" : "false");
    wr_buffer_json_string(b, all->policy_message);
    wr_buffer_printf(b, "},");
    all_checks(b, all);
    all_pools(b, sight);
    wr_buffer_printf(b, "}");
}
