/* A server's record in the area: a turnstile and a rate; see door.h. */
#include "engine/door.h"

#include "base/text.h"
#include "engine/engine.h"

#define SLACK_NS 1000000000u /* a connect that its deadline has ended is gone from the crew by then */

static size_t rate_at(void)
{
    return (sizeof(struct wr_turnstile) + 63) & ~(size_t)63;
}

size_t wr_door_bytes(void)
{
    return rate_at() + weir_rate_size();
}

static int open_door(struct weir_engine *engine, size_t backend, char *why)
{
    const weir_options *o = &engine->config.options;
    const char *name = o->backends[backend].name;
    void *record = NULL;
    bool created = false;
    int code = wr_area_server(engine->area, name, &record, &created);
    if (code != WEIR_OK) {
        wr_text_format(why, WEIR_WHY_MAX,
                       code == WEIR_ENOMEM ? "no room for backend %s in the area: %u backends at most"
                                           : "backend %s of the area is being made by another process",
                       name, wr_area_shape(engine->area)->servers);
        return code;
    }
    struct wr_door *door = &engine->doors[backend];
    door->turnstile = record;
    door->rate = (weir_rate *)(void *)((char *)record + rate_at());
    double rate = o->connect_rate > 0 ? o->connect_rate : 1; /* who has none does not ask */
    if (created) {
        code = weir_rate_init(door->rate, rate, o->connect_at_once, engine->now, why);
        if (code == WEIR_OK) wr_area_server_ready(engine->area, record);
    } else if (o->connect_rate > 0) {
        code = weir_rate_configure(door->rate, rate, o->connect_at_once, why);
    }
    return code;
}

int wr_doors_open(struct weir_engine *engine, char *why)
{
    const weir_options *o = &engine->config.options;
    if (!wr_area_is_shared(engine->area) && !(o->connect_rate > 0)) return WEIR_OK;
    int code = WEIR_OK;
    for (size_t b = 0; b < o->backend_count && code == WEIR_OK; b++) code = open_door(engine, b, why);
    return code;
}

bool wr_door_enter(struct weir_engine *engine, size_t backend, uint64_t *again_ns)
{
    const weir_options *o = &engine->config.options;
    const struct wr_door *door = &engine->doors[backend];
    if (door->turnstile == NULL) return true;
    struct wr_turn turn = {.owner = wr_area_worker(engine->area),
                           .at_once = o->connect_at_once,
                           .now_ns = engine->now,
                           .lasts_ns = o->connect_timeout_ns + SLACK_NS,
                           .rate = o->connect_rate > 0 ? door->rate : NULL};
    return wr_turnstile_enter(door->turnstile, &turn, again_ns);
}

void wr_door_leave(struct weir_engine *engine, size_t backend)
{
    const struct wr_door *door = &engine->doors[backend];
    if (door->turnstile != NULL) wr_turnstile_leave(door->turnstile, wr_area_worker(engine->area));
}

void wr_doors_reclaim(struct weir_engine *engine, uint32_t worker)
{
    for (uint32_t i = 0; i < wr_area_server_count(engine->area); i++) {
        struct wr_turnstile *turnstile = wr_area_server_record(engine->area, i);
        if (turnstile != NULL) wr_turnstile_reclaim(turnstile, worker);
    }
}
