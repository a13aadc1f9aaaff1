/* /metrics from the figures of one scrape. What the two formats differ in: OpenMetrics names the families of counters
 * without _total, tells units and creation times, has info and state sets, and ends with # EOF. The samples are the same in
 * both, so what is stored does not depend on the format; but a state set has, beside `state`, the label that OpenMetrics
 * demands.
 *
 * Creation times are told of what begins with the area. A label's series begins with its first call, and nobody wrote down
 * when that was. */
#include "web/families.h"
#include "web/scrape.h"

#include <stdio.h>

/* ---- lines ---------------------------------------------------------------------------------------------------------- */

/* What many lines begin their labels with, escaped: a pool, and perhaps a label. */
struct names {
    char text[1024]; /* five bytes for each of a pool's name and of a label's, and what stands before */
    size_t length;
};

static void set_names(struct wr_scrape *s, struct names *names, const char *pool, const char *label)
{
    struct wr_writer *w = &s->w;
    size_t from = w->length;
    wr_puts(w, s->set->pool);
    wr_put_label(w, pool);
    if (label != NULL) {
        wr_puts(w, s->set->label);
        wr_put_label(w, label);
    }
    wr_puts(w, "\"");
    names->length = w->length - from;
    if (names->length > sizeof names->text) names->length = sizeof names->text;
    memcpy(names->text, w->data + from, names->length);
    w->length = from;
}

/* `name_suffix{names,extra} `: the value is the caller's. Either part may be missing. */
static void begin_line(struct wr_writer *w, const struct wr_family *family, const char *suffix,
                       const struct names *names, const char *extra)
{
    wr_puts(w, family->name);
    wr_puts(w, suffix);
    if (names != NULL || extra != NULL) wr_put(w, "{", 1);
    if (names != NULL) wr_put(w, names->text, names->length);
    if (names != NULL && extra != NULL) wr_put(w, ",", 1);
    if (extra != NULL) wr_puts(w, extra);
    if (names != NULL || extra != NULL) wr_put(w, "}", 1);
    wr_put(w, " ", 1);
}

static void end_line(struct wr_writer *w)
{
    wr_put(w, "\n", 1);
}

static const char *suffix_of(const struct wr_family *family)
{
    return family->type == WR_COUNTER ? "_total" : family->type == WR_INFO ? "_info" : "";
}

static void put_number(struct wr_scrape *s, const struct wr_family *family, const struct names *names,
                       const char *extra, uint64_t number)
{
    begin_line(&s->w, family, suffix_of(family), names, extra);
    wr_put_count(&s->w, number);
    end_line(&s->w);
}

static void put_created(struct wr_scrape *s, const struct wr_family *family, const struct names *names,
                        const char *extra)
{
    if (!s->open_metrics) return;
    begin_line(&s->w, family, "_created", names, extra);
    wr_put_moment(&s->w, s->engine.created_us);
    end_line(&s->w);
}

/* ---- histograms -------------------------------------------------------------------------------------------------------- */

/* The area counts what is less than an edge; in whole nanoseconds that is what is at most one less, and the bound says
 * so: each bucket is exact. */
static void set_bounds(struct wr_scrape *s)
{
    struct wr_writer *w = &s->w;
    for (size_t i = 0; i < WEIR_HISTOGRAM_EDGES; i++) {
        size_t from = w->length;
        wr_put_seconds(w, weir_histogram_edge_ns(i) - 1);
        size_t length = w->length - from;
        if (length >= WR_EDGE_TEXT) length = WR_EDGE_TEXT - 1;
        memcpy(s->le[i], w->data + from, length);
        s->le[i][length] = '\0';
        w->length = from;
    }
}

/* Behind a bucket's count: a call that is in it, and that can be looked up where traces are kept. */
static void put_exemplar(struct wr_writer *w, const weir_traced_call *call)
{
    wr_puts(w, " # {trace_id=\"");
    wr_puts(w, call->trace_id);
    wr_put(w, "\"} ", 3);
    wr_put_seconds(w, call->duration_ns);
    wr_put(w, " ", 1);
    wr_put_moment(w, call->ended_us);
}

static void put_bucket(struct wr_writer *w, const char *start, size_t length, const char *le, uint64_t count,
                       const weir_traced_call *call)
{
    wr_put(w, start, length);
    wr_puts(w, le);
    wr_put(w, "\"} ", 3);
    wr_put_count(w, count);
    if (call != NULL) put_exemplar(w, call);
    end_line(w);
}

static const weir_traced_call *traced_in(const struct wr_scrape *s, const struct wr_series *series,
                                         size_t bucket)
{
    if (series == NULL || s->traced_count == 0) return NULL;
    return wr_scrape_traced(s, series, bucket > 0 ? weir_histogram_edge_ns(bucket - 1) : 0,
                            bucket < WEIR_HISTOGRAM_EDGES ? weir_histogram_edge_ns(bucket) : UINT64_MAX);
}

/* series: whose calls may be told of as exemplars; NULL: nobody's. */
static void put_histogram(struct wr_scrape *s, const struct wr_family *family, const struct names *names,
                          const weir_histogram *histogram, const struct wr_series *series)
{
    struct wr_writer *w = &s->w;
    char start[sizeof names->text + 64];
    size_t from = w->length;
    wr_puts(w, family->name);
    wr_puts(w, "_bucket{");
    wr_put(w, names->text, names->length);
    wr_puts(w, ",le=\"");
    size_t length = w->length - from < sizeof start ? w->length - from : sizeof start;
    memcpy(start, w->data + from, length);
    w->length = from;
    for (size_t i = 0; i < WEIR_HISTOGRAM_EDGES; i++)
        put_bucket(w, start, length, s->le[i], histogram->below[i], traced_in(s, series, i));
    put_bucket(w, start, length, "+Inf", histogram->count, traced_in(s, series, WEIR_HISTOGRAM_EDGES));
    begin_line(w, family, "_sum", names, NULL);
    wr_put_seconds(w, histogram->sum_ns);
    end_line(w);
    begin_line(w, family, "_count", names, NULL);
    wr_put_count(w, histogram->count);
    end_line(w);
}

/* ---- families out of tables ---------------------------------------------------------------------------------------------- */

static uint64_t read_number(const void *figures, const struct wr_sample *sample, enum wr_source source)
{
    const char *at = (const char *)figures + sample->offset;
    uint32_t small;
    uint64_t large;
    switch (source) {
    case WR_OF_POOL_BOOL:
        return *(const bool *)(const void *)at ? 1 : 0;
    case WR_OF_POOL_U32:
        memcpy(&small, at, sizeof small);
        return small;
    default: /* signed ones are never below zero */
        memcpy(&large, at, sizeof large);
        return large;
    }
}

static void put_reasons(struct wr_scrape *s, const struct wr_family *family, const struct names *names,
                        const char *numbers)
{
    for (size_t i = 0; i < WEIR_REASONS; i++) {
        char extra[64];
        uint64_t number;
        (void)snprintf(extra, sizeof extra, "reason=\"%s\"", weir_reason_name(i));
        memcpy(&number, numbers + i * sizeof number, sizeof number);
        put_number(s, family, names, extra, number);
        put_created(s, family, names, extra);
    }
}

static void put_pool(struct wr_scrape *s, const struct wr_family *family, size_t index)
{
    struct names names;
    weir_pool_figures pool;
    wr_scrape_pool(s, index, &pool);
    set_names(s, &names, pool.name, NULL);
    for (const struct wr_sample *sample = family->samples; sample->offset != 0; sample++) {
        const char *at = (const char *)&pool + sample->offset;
        if (family->source == WR_OF_POOL_REASONS) {
            put_reasons(s, family, &names, at);
            continue;
        }
        if (family->source == WR_OF_POOL_HISTOGRAM) {
            put_histogram(s, family, &names, (const void *)at, NULL);
        } else {
            put_number(s, family, &names, sample->label, read_number(&pool, sample, family->source));
        }
        if (family->type != WR_GAUGE) put_created(s, family, &names, sample->label);
    }
}

static void put_series(struct wr_scrape *s, const struct wr_family *family, size_t index)
{
    struct names names;
    struct wr_series series;
    wr_scrape_series(s, index, &series);
    set_names(s, &names, series.pool, series.figures.label);
    for (const struct wr_sample *sample = family->samples; sample->offset != 0; sample++) {
        if (family->source == WR_OF_SERIES_HISTOGRAM) {
            put_histogram(s, family, &names, &series.figures.duration, &series);
        } else {
            put_number(s, family, &names, sample->label,
                       read_number(&series.figures, sample, family->source));
        }
    }
}

/* ---- families by hand ------------------------------------------------------------------------------------------------------ */

static void put_info(struct wr_scrape *s, const struct wr_family *family, const struct names *names,
                     const char *const pairs[][2], size_t count)
{
    struct wr_writer *w = &s->w;
    wr_puts(w, family->name);
    wr_puts(w, "_info{");
    if (names != NULL) wr_put(w, names->text, names->length);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 || names != NULL) wr_put(w, ",", 1);
        wr_puts(w, pairs[i][0]);
        wr_put(w, "=\"", 2);
        wr_put_label(w, pairs[i][1]);
        wr_put(w, "\"", 1);
    }
    wr_puts(w, "} 1\n");
}

static void put_states(struct wr_scrape *s, const struct wr_family *family, const struct names *names,
                       const char *const *states, size_t count, size_t current)
{
    for (size_t i = 0; i < count; i++) {
        char extra[96];
        const char *format = s->open_metrics ? "state=\"%s\",%s=\"%s\"" : "state=\"%s\"";
        (void)snprintf(extra, sizeof extra, format, states[i], family->name, states[i]);
        put_number(s, family, names, extra, i == current);
    }
}

static void put_up(struct wr_scrape *s, const struct wr_family *family, const char *label, const char *name,
                   bool up)
{
    struct wr_writer *w = &s->w;
    wr_puts(w, family->name);
    wr_puts(w, label);
    wr_put_label(w, name);
    wr_puts(w, up ? "\"} 1\n" : "\"} 0\n");
}

static void put_backends(struct wr_scrape *s, const struct wr_family *family)
{
    weir_backend_figures backend;
    for (size_t i = 0; weir_read_backend(s->w.area, i, &backend); i++) {
        if (backend.known) put_up(s, family, "{backend=\"", backend.name, backend.ok);
    }
}

static void put_checks(struct wr_scrape *s, const struct wr_family *family)
{
    weir_check_figures check;
    for (size_t i = 0; weir_read_check(s->w.area, i, &check); i++) {
        if (check.known) put_up(s, family, "{check=\"", check.name, check.ok);
    }
}

static void put_breaker_state(struct wr_scrape *s, const struct wr_family *family, const struct names *names,
                              const weir_pool_figures *pool)
{
    static const char *const states[] = {
        [WEIR_CLOSED] = "closed",
        [WEIR_OPEN] = "open",
        [WEIR_HALF_OPEN] = "half_open",
        [WEIR_FORCED_OPEN] = "forced_open",
        [WEIR_FORCED_CLOSED] = "forced_closed",
        [WEIR_DISABLED] = "disabled",
        [WEIR_METRICS_ONLY] = "metrics_only",
    };
    put_states(s, family, names, states, sizeof states / sizeof *states, (size_t)pool->breaker.state);
}

static void put_by_pool(struct wr_scrape *s, const struct wr_family *family, size_t index)
{
    struct wr_writer *w = &s->w;
    struct names names;
    weir_pool_figures pool;
    wr_scrape_pool(s, index, &pool);
    set_names(s, &names, pool.name, NULL);
    switch (family->by_hand) {
    case WR_BREAKER_STATE:
        put_breaker_state(s, family, &names, &pool);
        break;
    case WR_BREAKER_RATIO:
        if (pool.breaker.failure_rate < 0) break;
        begin_line(w, family, "", &names, NULL);
        wr_put_ratio(w, pool.breaker.failure_rate);
        end_line(w);
        break;
    case WR_BREAKER_OPEN_UNTIL:
        if (pool.breaker.state != WEIR_OPEN || pool.breaker.retry_after_ns == UINT64_MAX) break;
        begin_line(w, family, "", &names, NULL);
        wr_put_moment(w, (s->engine.now_us + pool.breaker.retry_after_ns / 1000) / 1000 * 1000);
        end_line(w);
        break;
    case WR_BUDGET_RATIO:
        begin_line(w, family, "", &names, NULL);
        wr_put_ratio(w, pool.budget_cap > 0 ? pool.budget_level / pool.budget_cap : 0);
        end_line(w);
        break;
    default: /* WR_POOL_INFO */
        put_info(s, family, &names,
                 (const char *const[][2]){{"client", pool.client}, {"backend", pool.backend}}, 2);
    }
}

static void put_by_hand(struct wr_scrape *s, const struct wr_family *family)
{
    static const char *const health[] = {"healthy", "degraded", "unhealthy"};
    switch (family->by_hand) {
    case WR_AREA_CREATED:
        begin_line(&s->w, family, "", NULL, NULL);
        wr_put_moment(&s->w, s->engine.created_us);
        end_line(&s->w);
        break;
    case WR_BACKEND_UP:
        put_backends(s, family);
        break;
    case WR_CHECK_UP:
        put_checks(s, family);
        break;
    case WR_BUILD_INFO:
        put_info(s, family, NULL,
                 (const char *const[][2]){{"version", WEIR_VERSION}, {"engine", s->engine.name}}, 2);
        break;
    case WR_HEALTH:
        put_states(s, family, NULL, health, 3, (size_t)s->engine.health);
        break;
    case WR_LABELS:
        put_number(s, family, NULL, NULL, s->engine.labels);
        break;
    case WR_LABELS_MAX:
        put_number(s, family, NULL, NULL, s->engine.labels_max);
        break;
    case WR_WORKERS:
        put_number(s, family, NULL, NULL, s->engine.workers);
        break;
    default:
        for (size_t i = 0; i < s->engine.pools; i++) put_by_pool(s, family, i);
    }
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------------- */

static void put_comment(struct wr_scrape *s, const char *word, const struct wr_family *family,
                        const char *text)
{
    struct wr_writer *w = &s->w;
    wr_puts(w, word);
    wr_puts(w, family->name);
    if (!s->open_metrics) wr_puts(w, suffix_of(family));
    wr_put(w, " ", 1);
    wr_puts(w, text);
    end_line(w);
}

static const char *type_name(const struct wr_scrape *s, enum wr_family_type type)
{
    static const char *const names[] = {"gauge", "counter", "histogram", "stateset", "info"};
    bool only_open_metrics = type == WR_STATESET || type == WR_INFO;
    return names[only_open_metrics && !s->open_metrics ? WR_GAUGE : type];
}

static void put_family(struct wr_scrape *s, const struct wr_family *family)
{
    put_comment(s, "# HELP ", family, family->help);
    put_comment(s, "# TYPE ", family, type_name(s, family->type));
    if (s->open_metrics && family->unit != NULL) put_comment(s, "# UNIT ", family, family->unit);
    switch (family->source) {
    case WR_BY_HAND:
        put_by_hand(s, family);
        break;
    case WR_OF_SERIES_U64:
    case WR_OF_SERIES_HISTOGRAM:
        for (size_t i = 0; i < s->series_count; i++) put_series(s, family, i);
        break;
    default:
        for (size_t i = 0; i < s->engine.pools; i++) put_pool(s, family, i);
    }
}

void wr_exposition_write(struct wr_scrape *s)
{
    if (s->w.failed) return;
    set_bounds(s);
    if (s->open_metrics) s->traced_count = weir_read_traced(s->w.area, s->traced, WR_TRACED_MAX);
    for (size_t i = 0; i < s->set->count && !s->w.failed; i++) put_family(s, &s->set->families[i]);
    if (s->open_metrics) wr_puts(&s->w, "# EOF\n");
}
