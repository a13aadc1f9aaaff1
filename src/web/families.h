/* The families of /metrics: names, types, help, and where their figures stand. */
#ifndef WR_FAMILIES_H
#define WR_FAMILIES_H

#include <stddef.h>

enum wr_family_type { WR_GAUGE, WR_COUNTER, WR_HISTOGRAM, WR_STATESET, WR_INFO };

enum wr_source { /* what a family has a sample of, and how it is read */
                 WR_OF_POOL_U64,
                 WR_OF_POOL_I64,
                 WR_OF_POOL_U32,
                 WR_OF_POOL_BOOL,
                 WR_OF_POOL_HISTOGRAM,
                 WR_OF_POOL_REASONS, /* an array by reason */
                 WR_OF_SERIES_U64,
                 WR_OF_SERIES_HISTOGRAM,
                 WR_BY_HAND /* exposition.c knows how */
};

enum wr_by_hand {
    WR_AREA_CREATED,
    WR_BACKEND_UP,
    WR_BREAKER_OPEN_UNTIL,
    WR_BREAKER_RATIO,
    WR_BREAKER_STATE,
    WR_BUDGET_RATIO,
    WR_BUILD_INFO,
    WR_CHECK_UP,
    WR_HEALTH,
    WR_LABELS,
    WR_LABELS_MAX,
    WR_POOL_INFO,
    WR_WORKERS
};

struct wr_sample {
    const char *label; /* beside the pool's, as it is written, e.g. reason="budget"; NULL none */
    size_t offset;     /* in weir_pool_figures or weir_label_figures */
};

struct wr_family {
    const char *name; /* without _total and _info */
    const char *unit; /* that the name ends in; NULL: none */
    const char *help;
    enum wr_family_type type;
    enum wr_source source;
    enum wr_by_hand by_hand;         /* source WR_BY_HAND */
    const struct wr_sample *samples; /* the others: ends with a zeroed one */
};

/* What one scrape gives, and what its series bear. */
struct wr_family_set {
    const struct wr_family *families; /* sorted by name */
    size_t count;
    const char *pool;  /* what stands before a pool's name, as it is written */
    const char *label; /* the same of a label */
};

extern const struct wr_family_set wr_native_set;
extern const struct wr_family_set
    wr_otel_set; /* OpenTelemetry's names, for those pools and labels have there */

#endif
