/* An area as it is seen and steered: a worker's own, or another process's. See weir/area.h. */
#ifndef WR_SIGHT_H
#define WR_SIGHT_H

#include "area/sharedarea.h"
#include "base/text.h"
#include "engine/card.h"
#include "weir/area.h"
#include "weir/weir.h"

#include <locale.h>

struct weir_area {
    struct wr_area *area;
    weir_engine *engine; /* whose own area it is; NULL: attached */
    const struct wr_memory *memory;
    uint64_t now_ns, now_us; /* as of the last look */
    struct wr_household household;
    void *copy, *copy_base;        /* of a pool's record: guards are read there and not where others write */
    char (*names)[WR_NAME_MAX];    /* of pools, as they were first seen */
    char (*clients)[WR_CARD_NAME]; /* the name's two halves */
    char (*backends)[WR_CARD_NAME];
    char (*labels)[WR_LABEL_MAX];
    struct wr_buffer report; /* JSON is put together here, under plain_locale ("C") */
    locale_t plain_locale;
    char *scratch; /* weir_scratch */
    size_t scratch_room;
};

/* Everything but `area` and `engine`, which are there already. WEIR_OK or WEIR_ENOMEM. */
int wr_sight_init(struct weir_area *sight, const struct wr_memory *memory);
void wr_sight_release(struct weir_area *sight); /* accepts what was not or half initialised */

/* Reads the clocks and what the workers say; before anything is read for one answer. */
void wr_sight_look(struct weir_area *sight);
uint64_t wr_sight_created_us(const struct weir_area *sight); /* when all counters stood at zero */
void wr_sight_look_at_clock(struct weir_area *sight); /* for figures that no worker tells */

/* Of the own engine; attached: of the oldest worker. */
uint64_t wr_sight_uptime_ns(const struct weir_area *sight);

/* A pool as it stands now: a copy of its record, with nothing in it that could hurt. Until the next one is read. */
struct wr_pool_seen {
    uint32_t index;
    const char *name, *client, *backend; /* live as long as the handle */
    bool paused, drained;
    uint32_t max, min, configured_max, resized, kind, multiplex;
    uint64_t forced_until_ns, probe_at_ns;
    const weir_breaker *breaker;
    const weir_budget *budget;
};
bool wr_sight_pool(struct weir_area *sight, uint32_t index, struct wr_pool_seen *out); /* false: not there */
bool wr_pool_is_in_use(const struct weir_area *sight, uint32_t index); /* some live worker has it */
const char *wr_sight_pool_name(struct weir_area *sight, uint32_t index, const char *otherwise);
const char *wr_sight_label(struct weir_area *sight, uint32_t label);
void wr_sight_breaker(const struct weir_area *sight, const struct wr_pool_seen *pool,
                      weir_breaker_snapshot *out);

/* report.c, following.c and listing.c: JSON documents. */
typedef void wr_document(struct weir_area *sight, struct wr_buffer *b, uint64_t argument);
wr_document wr_document_health, wr_document_stats, wr_document_calls, wr_document_events;
wr_document wr_document_finished, wr_document_workers, wr_document_conns, wr_document_config;
void wr_json_number(struct wr_buffer *b, double number, int decimals); /* what is none becomes 0 */

weir_health wr_assess(struct weir_area *sight); /* after wr_sight_look */

#endif
