/* Reading for a scrape, see scrape.h. */
#include "web/scrape.h"

void wr_scrape_pool(const struct wr_scrape *scrape, size_t index, weir_pool_figures *out)
{
    memcpy(out, scrape->w.data + scrape->pools_at + index * sizeof *out, sizeof *out);
}

void wr_scrape_series(const struct wr_scrape *scrape, size_t index, struct wr_series *out)
{
    memcpy(out, scrape->w.data + scrape->series_at + index * sizeof *out, sizeof *out);
}

static void read_pools(struct wr_scrape *scrape)
{
    struct wr_writer *w = &scrape->w;
    scrape->pools_at = w->length;
    for (size_t i = 0; i < scrape->engine.pools; i++) {
        weir_pool_figures figures;
        if (!weir_read_pool(w->area, i, &figures)) figures.name = figures.client = figures.backend = "";
        wr_put(w, (const char *)&figures, sizeof figures);
    }
}

static void read_series_of(struct wr_scrape *scrape, size_t pool)
{
    struct wr_writer *w = &scrape->w;
    weir_pool_figures figures;
    wr_scrape_pool(scrape, pool, &figures);
    for (uint32_t label = 0; label < scrape->engine.labels && !w->failed; label++) {
        struct wr_series series = {.pool_number = (uint32_t)pool,
                                   .label_number = label,
                                   .pool = figures.name};
        if (!weir_read_label(w->area, pool, label, &series.figures)) continue;
        wr_put(w, (const char *)&series, sizeof series);
        scrape->series_count++;
    }
}

static void read_series(struct wr_scrape *scrape)
{
    scrape->series_at = scrape->w.length;
    for (size_t pool = 0; pool < scrape->engine.pools && !scrape->w.failed; pool++)
        read_series_of(scrape, pool);
}

bool wr_scrape_read(struct wr_scrape *scrape, weir_area *area)
{
    *scrape = (struct wr_scrape){.open_metrics = false};
    wr_writer_init(&scrape->w, area);
    weir_read_engine(area, &scrape->engine);
    read_pools(scrape);
    read_series(scrape);
    scrape->text_at = scrape->w.length;
    return !scrape->w.failed;
}

const weir_traced_call *wr_scrape_traced(const struct wr_scrape *scrape, const struct wr_series *series,
                                         uint64_t from_ns, uint64_t to_ns)
{
    for (size_t i = 0; i < scrape->traced_count; i++) {
        const weir_traced_call *call = &scrape->traced[i];
        bool is_its = call->pool == series->pool_number && call->label == series->label_number;
        if (is_its && call->duration_ns >= from_ns && call->duration_ns < to_ns) return call;
    }
    return NULL;
}
