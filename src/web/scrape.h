/* One scrape: every figure read once into scratch memory, then written out family by family, so that what two families
 * say of the same calls agrees to the last one. */
#ifndef WR_SCRAPE_H
#define WR_SCRAPE_H

#include "web/families.h"
#include "web/writer.h"

enum { WR_EDGE_TEXT = 24 };

enum { WR_TRACED_MAX = 64 };

struct wr_series { /* a label in a pool */
    uint32_t pool_number, label_number;
    const char *pool;
    weir_label_figures figures;
};

struct wr_scrape {
    struct wr_writer w;
    bool open_metrics;
    const struct wr_family_set *set;
    weir_engine_figures engine;
    size_t pools_at, series_at, series_count; /* offsets in the writer's memory: it moves */
    size_t text_at;                           /* where the text begins */
    weir_traced_call traced[WR_TRACED_MAX];   /* for exemplars; read for OpenMetrics only */
    size_t traced_count;
    char le[WEIR_HISTOGRAM_EDGES][WR_EDGE_TEXT]; /* the buckets' upper bounds, as they are written */
};

/* False: out of memory. */
bool wr_scrape_read(struct wr_scrape *scrape, weir_area *area);
/* Copies: what was read lies in front of the text and moves when that grows. */
void wr_scrape_pool(const struct wr_scrape *scrape, size_t index, weir_pool_figures *out);
void wr_scrape_series(const struct wr_scrape *scrape, size_t index, struct wr_series *out);

/* The newest traced call of that series that took from_ns or more, and less than to_ns; NULL: none. */
const weir_traced_call *wr_scrape_traced(const struct wr_scrape *scrape, const struct wr_series *series,
                                         uint64_t from_ns, uint64_t to_ns);

/* The text, in Prometheus' form or, if scrape->open_metrics, in OpenMetrics'. */
void wr_exposition_write(struct wr_scrape *scrape);

#endif
