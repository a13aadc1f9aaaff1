/* Looking at an engine's pools for the tally. One watch per engine, however many loads it has, so that a breaker that
 * moves is told once. */
#include "load/tally.h"

#include "base/list.h"
#include "base/text.h"

/* Engines of more pools are looked at once in so long only: a look costs some 10 ns for each. */
enum { REST_NS = 1000000 };

struct wr_watch {
    struct wr_list place; /* in the tally's list */
    weir_tally *tally;
    weir_engine *engine;
    unsigned references;
    size_t pool_count;
    uint64_t looked_at_ns;
    struct wr_level level;
    weir_breaker_state breaker[]; /* of each pool, when last looked at */
};

static struct wr_watch *find(weir_tally *tally, const weir_engine *engine)
{
    struct wr_list *watches = wr_tally_watches(tally);
    for (struct wr_list *at = watches->next; at != watches; at = at->next) {
        struct wr_watch *watch = WR_CONTAINER(at, struct wr_watch, place);
        if (watch->engine == engine) return watch;
    }
    return NULL;
}

/* What the watches of all engines saw last, together. */
static void tell_level(weir_tally *tally, uint64_t now_ns)
{
    struct wr_level sum = {WEIR_CLOSED, 0, 0};
    struct wr_list *watches = wr_tally_watches(tally);
    for (struct wr_list *at = watches->next; at != watches; at = at->next) {
        const struct wr_watch *watch = WR_CONTAINER(at, struct wr_watch, place);
        sum.breaker = wr_breaker_worse(sum.breaker, watch->level.breaker);
        sum.waiting += watch->level.waiting;
        sum.connections += watch->level.connections;
    }
    wr_tally_level(tally, &sum, now_ns);
}

struct wr_watch *wr_watch_get(weir_tally *tally, weir_engine *engine, uint64_t now_ns)
{
    struct wr_watch *watch = find(tally, engine);
    if (watch != NULL) {
        watch->references++;
        return watch;
    }
    size_t pools = weir_pool_count(engine);
    watch = wr_alloc(wr_tally_memory(tally), sizeof *watch + pools * sizeof watch->breaker[0]);
    if (watch == NULL) return NULL;
    watch->tally = tally;
    watch->engine = engine;
    watch->references = 1;
    watch->pool_count = pools;
    weir_pool_view view;
    for (size_t i = 0; i < pools && weir_pool_now(engine, i, &view); i++) watch->breaker[i] = view.breaker;
    wr_list_append(wr_tally_watches(tally), &watch->place);
    wr_watch_look(watch, now_ns);
    return watch;
}

void wr_watch_put(struct wr_watch *watch)
{
    if (--watch->references > 0) return;
    wr_list_remove(&watch->place);
    wr_free(wr_tally_memory(watch->tally), watch);
}

static void tell_move(struct wr_watch *watch, const weir_pool_view *view, weir_breaker_state from,
                      uint64_t now_ns)
{
    weir_tally_move move = {.at_ns = now_ns, .from = from, .to = view->breaker};
    wr_text_copy(move.pool, sizeof move.pool, view->name);
    wr_tally_moved(watch->tally, &move);
}

/* Even if the clock stands where it stood: in a simulation much happens in one moment, and the next event may be far. */
void wr_watch_look(struct wr_watch *watch, uint64_t now_ns)
{
    struct wr_level level = {WEIR_CLOSED, 0, 0};
    weir_pool_view view;
    if (watch->pool_count > WEIR_TALLY_POOLS && now_ns - watch->looked_at_ns < REST_NS) return;
    watch->looked_at_ns = now_ns;
    for (size_t i = 0; i < watch->pool_count && weir_pool_now(watch->engine, i, &view); i++) {
        if (view.breaker != watch->breaker[i]) {
            tell_move(watch, &view, watch->breaker[i], now_ns);
            watch->breaker[i] = view.breaker;
        }
        level.breaker = wr_breaker_worse(level.breaker, view.breaker);
        level.waiting += view.waiting;
        level.connections += view.connections;
    }
    watch->level = level;
    tell_level(watch->tally, now_ns);
}
