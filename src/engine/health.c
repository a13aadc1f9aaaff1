/* Health: probes, checks, early half-open; see health.h. */
#include "engine/health.h"

#include "engine/admission.h"

#include <string.h>

#define SLOWEST_PROBE_NS 30000000000ull

static struct wr_pool *pool_of(struct weir_engine *engine, size_t client, size_t backend)
{
    return &engine->pools[client * engine->config.options.backend_count + backend];
}

/* Asks through a pool that has a connection at hand, else through the first client's. */
static struct wr_pool *pool_to_ask(struct weir_engine *engine, size_t backend)
{
    for (size_t c = 0; c < engine->config.options.client_count; c++) {
        struct wr_pool *pool = pool_of(engine, c, backend);
        if (pool->count[WR_CONN_IDLE] > 0) return pool;
    }
    for (size_t c = 0; c < engine->config.options.client_count; c++) {
        if (!wr_pool_is_drained(pool_of(engine, c, backend))) return pool_of(engine, c, backend);
    }
    return pool_of(engine, 0, backend);
}

static void start_probe(struct wr_pool *pool)
{
    if (pool->probing || wr_pool_is_drained(pool)) return;
    pool->probing = true;
    pool->probe_sent_at = pool->engine->now;
    if (wr_pool_probe(pool)) {
        wr_count(&pool->meter->counter[WR_N_PROBES], 1);
    } else {
        pool->probing = false; /* all connections are busy: the calls on them tell */
    }
}

struct wr_backend_view wr_health_of_backend(const struct weir_engine *engine, size_t backend)
{
    const struct wr_backend_state *state = &engine->backends[backend];
    struct wr_backend_view view = {state->known, state->ok, state->elapsed_ns,
                                   state->known ? state->at_ns : 0};
    for (size_t c = 0; c < engine->config.options.client_count; c++) {
        const struct wr_pool *pool = &engine->pools[c * engine->config.options.backend_count + backend];
        if (pool->last_success_at <= view.at_ns || pool->last_success_at == 0) continue;
        view = (struct wr_backend_view){true, true, pool->last_success_ns, pool->last_success_at};
    }
    return view;
}

/* A success since the last look is as good as a look. */
static bool heard_of_lately(struct weir_engine *engine, size_t backend)
{
    uint64_t interval = engine->config.options.health_interval_ns;
    for (size_t c = 0; c < engine->config.options.client_count; c++) {
        struct wr_pool *pool = pool_of(engine, c, backend);
        if (pool->last_success_at != 0 && engine->now - pool->last_success_at < interval / 2) return true;
    }
    return false;
}

static void ask_for_checks(struct weir_engine *engine)
{
    const weir_options *o = &engine->config.options;
    if (o->on_check == NULL) return;
    for (size_t i = 0; i < o->check_count; i++) {
        struct wr_check_state *check = &engine->checks[i];
        if (check->due) { /* asked a whole interval ago and still no answer */
            check->known = true;
            check->ok = false;
            wr_text_copy(check->message, sizeof check->message,
                         "the check has not answered within the health interval");
            continue;
        }
        check->due = true;
        check->asked_ns = engine->now;
        o->on_check(o->check_ctx, i);
    }
}

static void health_fired(struct wr_timer *timer)
{
    struct weir_engine *engine = WR_CONTAINER(timer, struct weir_engine, health_timer);
    const weir_options *o = &engine->config.options;
    for (size_t b = 0; b < o->backend_count; b++) {
        if (!heard_of_lately(engine, b)) start_probe(pool_to_ask(engine, b));
    }
    ask_for_checks(engine);
    wr_engine_arm(engine, timer, engine->now + o->health_interval_ns);
}

void wr_health_start(struct weir_engine *engine)
{
    engine->health_timer.fire = health_fired;
    for (size_t i = 0; i < engine->pool_count; i++) {
        struct wr_pool *pool = &engine->pools[i];
        if (pool->client->min > 0) wr_engine_arm(engine, &pool->grow_timer, engine->now);
        wr_health_watch(pool); /* a shared breaker may already be open */
    }
    if (engine->config.options.health_interval_ns != 0)
        wr_engine_arm(engine, &engine->health_timer, engine->now);
}

void wr_health_stop(struct weir_engine *engine)
{
    wr_engine_disarm(engine, &engine->health_timer);
    for (size_t i = 0; i < engine->pool_count; i++) wr_engine_disarm(engine, &engine->pools[i].probe_timer);
}

static void arm_probe(struct wr_pool *pool)
{
    uint64_t at = pool->engine->now + pool->probe_delay_ns;
    wr_engine_arm(pool->engine, &pool->probe_timer, at);
    atomic_store_explicit(&pool->record->probe_at, at, memory_order_relaxed);
}

/* Until somebody hears of it again. */
static void doubt(struct wr_pool *pool)
{
    struct wr_backend_state *backend = &pool->engine->backends[pool->backend_index];
    backend->known = true;
    backend->ok = false;
    backend->at_ns = pool->engine->now;
    wr_text_format(backend->message, sizeof backend->message, "breaker of %s is open", pool->name);
}

/* Called for each call that is refused, too: only the first time says something of the backend. */
void wr_health_watch(struct wr_pool *pool)
{
    struct weir_engine *engine = pool->engine;
    weir_breaker_state state = weir_breaker_state_at(pool->breaker, engine->now);
    if (state != WEIR_OPEN && state != WEIR_HALF_OPEN) return;
    if (wr_timer_armed(&pool->probe_timer) || engine->state != WR_ENGINE_OPEN) return;
    if (state == WEIR_OPEN) doubt(pool);
    pool->probe_delay_ns = engine->config.options.probe_interval_ns;
    arm_probe(pool);
}

/* Of the probes that end an open breaker early; those of the monitor come as they did. */
static void slow_down(struct wr_pool *pool)
{
    pool->probe_delay_ns *= 2;
    if (pool->probe_delay_ns > SLOWEST_PROBE_NS) pool->probe_delay_ns = SLOWEST_PROBE_NS;
}

void wr_health_probe_fired(struct wr_timer *timer)
{
    struct wr_pool *pool = WR_CONTAINER(timer, struct wr_pool, probe_timer);
    struct weir_engine *engine = pool->engine;
    weir_evidence moved;
    if (weir_breaker_tick(pool->breaker, engine->now, &moved)) wr_breaker_moved(pool, &moved);
    weir_breaker_state state = weir_breaker_state_at(pool->breaker, engine->now);
    if (state != WEIR_OPEN && state != WEIR_HALF_OPEN) return;
    if (state == WEIR_OPEN) start_probe(pool);
    if (wr_timer_armed(timer)) return;
    arm_probe(pool);
    if (state == WEIR_OPEN) slow_down(pool);
}

static weir_log_level level_of(bool ok)
{
    return ok ? WEIR_LOG_INFO : WEIR_LOG_WARN;
}

/* Answers again, or does not: one event per change. */
static void learn(struct wr_pool *pool, bool ok, uint64_t elapsed_ns, const char *message)
{
    struct weir_engine *engine = pool->engine;
    struct wr_backend_state *backend = &engine->backends[pool->backend_index];
    bool was_ok = !backend->known || backend->ok;
    backend->known = true;
    backend->ok = ok;
    backend->at_ns = engine->now;
    backend->elapsed_ns = elapsed_ns;
    wr_text_copy(backend->message, sizeof backend->message, message);
    if (was_ok == ok) return;
    wr_card_write(engine);
    wr_engine_event(engine, WR_EVENT_HEALTH, pool,
                    &(struct wr_event_facts){"health.backend", level_of(ok), NULL, NULL}, "backend %s %s%s%s",
                    pool->backend->name, ok ? "answers again" : "does not answer", ok ? "" : ": ",
                    backend->message);
}

/* A server that says no (wrong password, no slot left) is there; only silence and "going down" speak against it. */
void wr_health_connected(struct wr_pool *pool, const struct wr_fault *fault, uint64_t elapsed_ns)
{
    if (fault == NULL) {
        learn(pool, true, elapsed_ns, "");
    } else if (fault->unreachable || strncmp(fault->sqlstate, "57P", 3) == 0) {
        learn(pool, false, elapsed_ns, fault->message);
    }
}

void wr_health_probed(struct wr_pool *pool, const struct wr_fault *fault)
{
    struct weir_engine *engine = pool->engine;
    pool->probing = false;
    if (fault != NULL && fault->ours) return; /* the server was not asked */
    learn(pool, fault == NULL, engine->now - pool->probe_sent_at, fault == NULL ? "" : fault->message);
    if (fault != NULL) {
        wr_count(&pool->meter->counter[WR_N_PROBES_FAILED], 1);
        return;
    }
    pool->probe_delay_ns = engine->config.options.probe_interval_ns;
    weir_evidence moved;
    if (weir_breaker_probe_passed(pool->breaker, engine->now, &moved)) wr_breaker_moved(pool, &moved);
}

void weir_check_settle(weir_engine *engine, size_t index, bool ok, uint64_t elapsed_ns, const char *message)
{
    if (index >= engine->config.options.check_count || !wr_engine_is_ours(engine)) return;
    struct wr_check_state *check = &engine->checks[index];
    bool was_ok = !check->known || check->ok;
    wr_engine_refresh(engine);
    check->due = false;
    check->known = true;
    check->ok = ok;
    check->elapsed_ns = elapsed_ns;
    check->at_ns = engine->now;
    wr_text_copy(check->message, sizeof check->message, ok ? "" : message);
    if (was_ok == ok) return;
    wr_card_write(engine);
    wr_engine_event(engine, WR_EVENT_HEALTH, NULL,
                    &(struct wr_event_facts){"health.check", level_of(ok), NULL, NULL}, "check %s is %s%s%s",
                    engine->config.options.checks[index].name, ok ? "well again" : "failing", ok ? "" : ": ",
                    check->message);
}
