/* The options in force, on the worker's card: numbers and names, nothing secret. Connection strings never get here, only
 * what the driver says of where they lead. */
#include "engine/card.h"

#include "engine/engine.h"
#include "engine/pool.h"

#include <string.h>

static void put_knobs(const weir_options *o, struct wr_options_card *c)
{
    c->timeout_ns = o->timeout_ns;
    c->connect_timeout_ns = o->connect_timeout_ns;
    c->acquire_timeout_ns = o->acquire_timeout_ns;
    c->idle_timeout_ns = o->idle_timeout_ns;
    c->lifetime_ns = o->lifetime_ns;
    c->leak_after_ns = o->leak_after_ns;
    c->cancel_wait_ns = o->cancel_wait_ns;
    c->queue_target_ns = o->queue_target_ns;
    c->queue_interval_ns = o->queue_interval_ns;
    c->health_interval_ns = o->health_interval_ns;
    c->probe_interval_ns = o->probe_interval_ns;
    c->connect_rate = o->connect_rate;
    c->connect_at_once = o->connect_at_once;
    c->prepared_max = o->prepared_max;
    c->queue = (uint32_t)o->queue;
    c->reset = (uint32_t)o->reset;
    c->policy_faults_max = o->policy_faults_max;
}

static void put_retries(const weir_options *o, struct wr_options_card *c)
{
    c->backoff = (uint32_t)o->backoff;
    c->backoff_base_ns = o->backoff_base_ns;
    c->backoff_cap_ns = o->backoff_cap_ns;
    c->backoff_factor = o->backoff_factor;
    c->retries = o->retries;
    c->retries_max = o->retries_max;
    c->ratio = o->budget.ratio;
    c->per_success = o->budget.per_success;
    c->floor = o->budget.floor;
    c->cap = o->budget.cap;
    c->budget_window_ns = o->budget.window_ns;
}

static void put_breaker(const weir_breaker_config *b, struct wr_options_card *c)
{
    c->window_ns = b->window_ns;
    c->window_calls = b->window_calls;
    c->min_calls = b->min_calls;
    c->failure_rate = b->failure_rate;
    c->slow_call_ns = b->slow_call_ns;
    c->slow_rate = b->slow_rate;
    c->consecutive = b->consecutive;
    c->rates_off = b->rates_off;
    c->open_for_ns = b->open_for_ns;
    c->permits = b->permits;
    c->half_open_wait_ns = b->half_open_wait_ns;
}

static void put_clients(const weir_options *o, struct wr_options_card *c)
{
    c->client_count = (uint32_t)o->client_count;
    for (size_t i = 0; i < o->client_count; i++) {
        const weir_client *from = &o->clients[i];
        struct wr_client_card *to = &c->client[i];
        wr_text_copy(to->name, sizeof to->name, from->name);
        wr_text_copy(to->user, sizeof to->user, from->user);
        wr_text_copy(to->role, sizeof to->role, from->role);
        to->kind = (uint32_t)from->kind;
        to->min = from->min;
        to->max = from->max;
        to->queue_max = from->queue_max;
        to->multiplex = from->multiplex;
    }
}

static void put_servers(const struct weir_engine *engine, struct wr_options_card *c)
{
    const weir_options *o = &engine->config.options;
    c->backend_count = (uint32_t)o->backend_count;
    for (size_t i = 0; i < o->backend_count; i++) {
        struct wr_server_card *to = &c->backend[i];
        wr_text_copy(to->name, sizeof to->name, o->backends[i].name);
        to->pooler = o->backends[i].pooler;
        to->critical = o->backends[i].critical;
        if (engine->driver->describe != NULL)
            engine->driver->describe(engine->pools[i].target, to->server, sizeof to->server);
    }
}

void wr_options_write(struct weir_engine *engine)
{
    struct wr_worker_record *record = wr_area_worker_record(engine->area, wr_area_worker(engine->area));
    struct wr_options_card card;
    memset(&card, 0, sizeof card);
    put_knobs(&engine->config.options, &card);
    put_retries(&engine->config.options, &card);
    put_breaker(&engine->config.options.breaker, &card);
    put_clients(&engine->config.options, &card);
    put_servers(engine, &card);
    wr_sheet_put(&record->options_turn, record->options, &card, sizeof card / 8);
}
