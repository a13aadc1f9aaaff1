/* Handles on areas; see sight.h. */
#include "engine/sight.h"

#include "engine/engine.h"
#include "engine/order.h"
#include "engine/pool.h"
#include "guard/breaker.h"
#include "guard/defuse.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the handle ------------------------------------------------------------------------------------------------ */

static void *room(const struct weir_area *sight, size_t count, size_t size)
{
    return wr_alloc(sight->memory, count * size);
}

int wr_sight_init(struct weir_area *sight, const struct wr_memory *memory)
{
    const struct wr_area_shape *shape = wr_area_shape(sight->area);
    sight->memory = memory;
    wr_buffer_init(&sight->report, memory);
    sight->plain_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    sight->copy_base = room(sight, 1, wr_pool_record_bytes() + 64);
    sight->names = room(sight, shape->pools, sizeof *sight->names);
    sight->clients = room(sight, shape->pools, sizeof *sight->clients);
    sight->backends = room(sight, shape->pools, sizeof *sight->backends);
    sight->labels = room(sight, shape->labels, sizeof *sight->labels);
    if (sight->plain_locale == (locale_t)0 || sight->copy_base == NULL || sight->names == NULL ||
        sight->clients == NULL || sight->backends == NULL || sight->labels == NULL)
        return WEIR_ENOMEM;
    sight->copy = (void *)(((uintptr_t)sight->copy_base + 63) & ~(uintptr_t)63);
    return WEIR_OK;
}

void wr_sight_release(struct weir_area *sight)
{
    if (sight->memory == NULL) return;
    wr_buffer_release(&sight->report);
    wr_free(sight->memory, sight->copy_base);
    wr_free(sight->memory, sight->names);
    wr_free(sight->memory, sight->clients);
    wr_free(sight->memory, sight->backends);
    wr_free(sight->memory, sight->labels);
    wr_free(sight->memory, sight->scratch);
    if (sight->plain_locale != (locale_t)0) freelocale(sight->plain_locale);
    sight->memory = NULL;
}

weir_area *weir_engine_area(weir_engine *engine)
{
    return &engine->sight;
}

/* A worker takes its slot before it has pools, and writes its card when it has all of them. */
static bool was_opened(struct weir_area *sight)
{
    wr_sight_look(sight);
    return sight->household.told > 0;
}

int weir_area_attach(weir_area **out, const char *path, char *why)
{
    char unasked[WEIR_WHY_MAX];
    if (why == NULL) why = unasked;
    why[0] = '\0';
    *out = NULL;
    struct weir_area *sight = calloc(1, sizeof *sight);
    int code = sight == NULL ? WEIR_ENOMEM : wr_area_attach(&sight->area, path, why);
    if (code == WEIR_OK && !wr_engine_makes(wr_area_shape(sight->area))) {
        wr_text_format(why, WEIR_WHY_MAX,
                       "area %s was made by another build of this library: use the program that came with it",
                       path);
        code = WEIR_ESYS;
    }
    if (code == WEIR_OK && !was_opened(sight)) {
        wr_text_format(why, WEIR_WHY_MAX, "area %s: no engine has been opened on it yet", path);
        code = WEIR_ESYS;
    }
    if (code == WEIR_OK) code = wr_sight_init(sight, wr_memory_libc());
    if (code == WEIR_OK) {
        *out = sight;
        return WEIR_OK;
    }
    if (why[0] == '\0') wr_text_copy(why, WEIR_WHY_MAX, "out of memory");
    if (sight != NULL) weir_area_detach(sight);
    return code;
}

void weir_area_detach(weir_area *area)
{
    if (area == NULL || area->engine != NULL) return;
    wr_sight_release(area);
    wr_area_close(area->area);
    free(area);
}

weir_area_state weir_area_look(weir_area *area, char *why)
{
    static const weir_area_state states[] = {[WR_SIGHT_LIVE] = WEIR_AREA_LIVE,
                                             [WR_SIGHT_DESERTED] = WEIR_AREA_DESERTED,
                                             [WR_SIGHT_REPLACED] = WEIR_AREA_REPLACED,
                                             [WR_SIGHT_GONE] = WEIR_AREA_GONE,
                                             [WR_SIGHT_DAMAGED] = WEIR_AREA_DAMAGED};
    return states[wr_area_sight(area->area, why)];
}

const char *weir_area_state_name(weir_area_state state)
{
    static const char *const names[] = {"live", "deserted", "replaced", "gone", "damaged"};
    return (unsigned)state < sizeof names / sizeof *names ? names[state] : "?";
}

const char *weir_area_path(const weir_area *area)
{
    const char *path = wr_area_path(area->area);
    return path == NULL ? "" : path;
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void wr_sight_look_at_clock(struct weir_area *sight)
{
    struct weir_engine *engine = sight->engine;
    if (engine != NULL) {
        sight->now_ns = wr_engine_refresh(engine);
        sight->now_us = engine->host.wall_us(engine->host.ctx);
    } else {
        sight->now_ns = clock_ns(CLOCK_MONOTONIC);
        sight->now_us = clock_ns(CLOCK_REALTIME) / 1000;
    }
}

/* Of an engine's own the meters begin with it: its host's clock says when, and the area's would not, in a simulation. */
uint64_t wr_sight_created_us(const struct weir_area *sight)
{
    bool shared = sight->engine == NULL || wr_area_is_shared(sight->area);
    return shared ? wr_area_created_us(sight->area) : sight->engine->opened_wall_us;
}

void wr_sight_look(struct weir_area *sight)
{
    wr_sight_look_at_clock(sight);
    if (sight->engine != NULL) wr_card_write(sight->engine);
    wr_household_read(sight->area, sight->now_ns, &sight->household);
}

uint64_t wr_sight_uptime_ns(const struct weir_area *sight)
{
    bool known = sight->engine != NULL || sight->household.told > 0;
    uint64_t opened = sight->engine != NULL ? sight->engine->opened_at : sight->household.opened_ns;
    return known && sight->now_ns > opened ? sight->now_ns - opened : 0;
}

/* ---- pools ----------------------------------------------------------------------------------------------------- */

/* A pool never changes its name, so one copy does. Its two halves hold no @ themselves. */
static void learn_name(struct weir_area *sight, uint32_t index)
{
    char *name = sight->names[index];
    if (name[0] != '\0') return;
    wr_area_pool_name_copy(sight->area, index, name);
    const char *at = strchr(name, '@');
    size_t length = at == NULL ? strlen(name) : (size_t)(at - name);
    if (length >= WR_CARD_NAME) length = WR_CARD_NAME - 1;
    memcpy(sight->clients[index], name, length);
    sight->clients[index][length] = '\0';
    wr_text_copy(sight->backends[index], WR_CARD_NAME, at == NULL ? "" : at + 1);
}

const char *wr_sight_pool_name(struct weir_area *sight, uint32_t index, const char *otherwise)
{
    if (index >= wr_area_pool_count(sight->area)) return otherwise;
    learn_name(sight, index);
    return sight->names[index];
}

/* Taken again if the breaker moved meanwhile, for its parts would then be of two states; a bounded number of times. */
static void copy_record(const struct weir_area *sight, const void *record)
{
    enum { TRIES = 8 };
    const weir_breaker *live = wr_pool_breaker_in((void *)(uintptr_t)record);
    const weir_breaker *copied = wr_pool_breaker_in(sight->copy);
    for (int i = 0; i < TRIES; i++) {
        wr_words_get(sight->copy, record, wr_pool_record_bytes() / 8);
        if (wr_breaker_look(live).word == wr_breaker_look(copied).word) break;
    }
    wr_breaker_defuse(wr_pool_breaker_in(sight->copy));
    wr_budget_defuse(wr_pool_budget_in(sight->copy));
}

static uint32_t at_most(uint32_t number, uint32_t most)
{
    return number < most ? number : most;
}

bool wr_sight_pool(struct weir_area *sight, uint32_t index, struct wr_pool_seen *out)
{
    const void *live = wr_area_pool_record(sight->area, index);
    if (live == NULL) return false;
    copy_record(sight, live);
    learn_name(sight, index);
    const struct wr_pool_record *record = sight->copy;
    uint32_t max = at_most(record->max, WR_POOL_MAX), resized = record->resized;
    *out = (struct wr_pool_seen){
        .index = index,
        .name = sight->names[index],
        .client = sight->clients[index],
        .backend = sight->backends[index],
        .paused = record->paused != 0,
        .drained = record->paused == WR_POOL_DRAINED,
        .max = resized == 0 || resized > WR_POOL_MAX ? max : resized,
        .min = at_most(record->min, WR_POOL_MAX),
        .configured_max = max,
        .resized = resized > WR_POOL_MAX ? 0 : resized,
        .kind = record->kind,
        .multiplex = at_most(record->multiplex, WR_MULTIPLEX_MAX),
        .forced_until_ns = record->forced_until,
        .probe_at_ns = record->probe_at,
        .breaker = wr_pool_breaker_in(sight->copy),
        .budget = wr_pool_budget_in(sight->copy),
    };
    return true;
}

bool wr_pool_is_in_use(const struct weir_area *sight, uint32_t index)
{
    return index < 64 && (sight->household.pools >> index & 1) != 0;
}

void wr_sight_breaker(const struct weir_area *sight, const struct wr_pool_seen *pool,
                      weir_breaker_snapshot *out)
{
    weir_breaker_snapshot_at(pool->breaker, sight->now_ns, out);
}

const char *wr_sight_label(struct weir_area *sight, uint32_t label)
{
    if (label >= wr_area_shape(sight->area)->labels) return "";
    char *text = sight->labels[label];
    if (text[0] == '\0') wr_area_label_copy(sight->area, label, text);
    return text;
}

/* ---- documents ------------------------------------------------------------------------------------------------- */

/* `empty` stands in when there was no memory for the report: it is valid JSON of the same kind. */
static const struct {
    const char *name;
    wr_document *write;
    const char *empty;
} documents[] = {
    {"stats", wr_document_stats, "{}"},     {"health", wr_document_health, "{}"},
    {"calls", wr_document_calls, "[]"},     {"events", wr_document_events, "[]"},
    {"workers", wr_document_workers, "[]"}, {"conns", wr_document_conns, "[]"},
    {"config", wr_document_config, "{}"},   {"finished", wr_document_finished, "{}"},
};

static size_t hand_over(const struct wr_buffer *b, const char *empty, char *out, size_t size)
{
    const char *text = b->failed ? empty : b->data;
    size_t whole = b->failed ? strlen(empty) : b->length;
    if (size > 0) {
        size_t length = whole < size - 1 ? whole : size - 1;
        memcpy(out, text, length);
        out[length] = '\0';
    }
    return whole;
}

/* JSON knows one decimal point, whatever locale the program has set. */
size_t weir_area_json(weir_area *area, const char *document, uint64_t argument, char *out, size_t size)
{
    if (size > 0) out[0] = '\0';
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        if (strcmp(documents[i].name, document) != 0) continue;
        locale_t theirs = uselocale(area->plain_locale);
        wr_sight_look(area);
        wr_buffer_clear(&area->report);
        documents[i].write(area, &area->report, argument);
        uselocale(theirs);
        return hand_over(&area->report, documents[i].empty, out, size);
    }
    return 0;
}

size_t weir_health_json(weir_engine *engine, char *out, size_t size)
{
    return weir_area_json(&engine->sight, "health", 0, out, size);
}

size_t weir_stats_json(weir_engine *engine, char *out, size_t size)
{
    return weir_area_json(&engine->sight, "stats", 0, out, size);
}

size_t weir_calls_json(weir_engine *engine, size_t most, char *out, size_t size)
{
    return weir_area_json(&engine->sight, "calls", most, out, size);
}

size_t weir_events_json(weir_engine *engine, uint64_t after, char *out, size_t size)
{
    return weir_area_json(&engine->sight, "events", after, out, size);
}

/* ---- room ------------------------------------------------------------------------------------------------------ */

char *weir_scratch(weir_area *area, size_t least, size_t *size)
{
    if (least > area->scratch_room || area->scratch == NULL) {
        size_t larger = area->scratch_room < 4096 ? 4096 : area->scratch_room;
        while (larger < least && larger <= SIZE_MAX / 2) larger *= 2;
        char *moved = larger < least ? NULL : wr_resize(area->memory, area->scratch, larger);
        if (moved == NULL) return NULL;
        area->scratch = moved;
        area->scratch_room = larger;
    }
    *size = area->scratch_room;
    return area->scratch;
}
