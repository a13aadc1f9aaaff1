/* Reading for a scrape, see scrape.h. */
#include "web/scrape.h"

const weir_pool_figures *wr_scrape_pool(const struct wr_scrape *scrape, size_t index)
{
    const void *pools = scrape->w.data + scrape->pools_at;
    return (const weir_pool_figures *)pools + index;
}

const struct wr_series *wr_scrape_series(const struct wr_scrape *scrape, size_t index)
{
    const void *series = scrape->w.data + scrape->series_at;
    return (const struct wr_series *)series + index;
}

static void read_pools(struct wr_scrape *scrape)
{
    struct wr_writer *w = &scrape->w;
    scrape->pools_at = wr_writer_take(w, scrape->engine.pools * sizeof(weir_pool_figures));
    for (size_t i = 0; i < scrape->engine.pools && !w->failed; i++) {
        weir_pool_figures figures;
        if (weir_read_pool(w->engine, i, &figures)) {
            memcpy(w->data + scrape->pools_at + i * sizeof figures, &figures, sizeof figures);
        }
    }
}

/* They follow one another: nothing else is taken in between, and their size is a multiple of their alignment. */
static void read_series(struct wr_scrape *scrape)
{
    struct wr_writer *w = &scrape->w;
    scrape->series_at = wr_writer_take(w, 0);
    for (uint32_t pool = 0; pool < scrape->engine.pools; pool++) {
        for (uint32_t label = 0; label < scrape->engine.labels && !w->failed; label++) {
            struct wr_series series = {.pool = pool};
            if (!weir_read_label(w->engine, pool, label, &series.figures)) continue;
            wr_put(w, (const char *)&series, sizeof series);
            scrape->series_count++;
        }
    }
}

bool wr_scrape_read(struct wr_scrape *scrape, weir_engine *engine)
{
    *scrape = (struct wr_scrape){.open_metrics = false};
    wr_writer_init(&scrape->w, engine);
    weir_read_engine(engine, &scrape->engine);
    read_pools(scrape);
    read_series(scrape);
    scrape->text_at = scrape->w.length;
    return !scrape->w.failed;
}
