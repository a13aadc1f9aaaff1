/* Cards of workers; see card.h. */
#include "engine/card.h"

#include "engine/call.h"
#include "engine/health.h"
#include "engine/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(struct wr_card) % 8 == 0, "cards are copied by words");
static_assert(sizeof(struct wr_options_card) % 8 == 0, "and so are options");

#define FRESH_NS UINT64_C(5000000000) /* a heartbeat is renewed once a second */

static struct wr_worker_record *record_of(const struct wr_area *area, uint32_t worker)
{
    return wr_area_worker_record(area, worker);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void put_backends(const struct weir_engine *engine, struct wr_card *card)
{
    const weir_options *o = &engine->config.options;
    card->backend_count = (uint32_t)o->backend_count;
    for (size_t i = 0; i < o->backend_count; i++) {
        struct wr_backend_view seen = wr_health_of_backend(engine, i);
        struct wr_backend_card *b = &card->backend[i];
        wr_text_copy(b->name, sizeof b->name, o->backends[i].name);
        b->critical = o->backends[i].critical;
        b->known = seen.known;
        b->ok = seen.known && seen.ok;
        b->elapsed_ns = seen.elapsed_ns;
        b->at_ns = seen.at_ns;
        if (seen.known && !seen.ok) wr_text_copy(b->message, sizeof b->message, engine->backends[i].message);
    }
}

static void put_checks(const struct weir_engine *engine, struct wr_card *card)
{
    const weir_options *o = &engine->config.options;
    card->check_count = (uint32_t)o->check_count;
    for (size_t i = 0; i < o->check_count; i++) {
        const struct wr_check_state *state = &engine->checks[i];
        struct wr_check_card *c = &card->check[i];
        wr_text_copy(c->name, sizeof c->name, o->checks[i].name);
        c->critical = o->checks[i].critical;
        c->known = state->known;
        c->ok = state->ok;
        c->elapsed_ns = state->elapsed_ns;
        c->at_ns = state->at_ns;
        wr_text_copy(c->message, sizeof c->message, state->message);
    }
}

static void put_pools(const struct weir_engine *engine, struct wr_card *card)
{
    for (size_t i = 0; i < engine->pool_count; i++) {
        card->pools |= UINT64_C(1) << engine->pools[i].index;
        card->connections += wr_pool_total(&engine->pools[i]);
    }
}

void wr_card_write(struct weir_engine *engine)
{
    struct wr_worker_record *record = record_of(engine->area, wr_area_worker(engine->area));
    struct wr_card *card = &engine->card;
    if (record == NULL || !wr_engine_is_ours(engine)) return;
    memset(card, 0, sizeof *card);
    card->process = wr_area_self(engine->area);
    card->opened_ns = engine->opened_at;
    card->opened_us = engine->opened_wall_us;
    card->written_ns = engine->now;
    card->generation = engine->policy_generation;
    card->in_flight = engine->in_flight;
    card->allocations = engine->allocations;
    card->draining = engine->state != WR_ENGINE_OPEN;
    card->policy_off = engine->policy_off;
    const char *host = engine->config.options.host_name;
    wr_text_copy(card->host, sizeof card->host, host != NULL ? host : program_invocation_short_name);
    wr_text_copy(card->policy_message, sizeof card->policy_message, engine->policy_message);
    put_pools(engine, card);
    put_backends(engine, card);
    put_checks(engine, card);
    wr_sheet_put(&record->card_turn, record->card, card, sizeof *card / 8);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void end_texts(struct wr_card *card)
{
    card->host[sizeof card->host - 1] = '\0';
    card->policy_message[sizeof card->policy_message - 1] = '\0';
    for (size_t i = 0; i < WR_BACKENDS_MAX; i++) {
        struct wr_backend_card *b = &card->backend[i];
        b->name[sizeof b->name - 1] = b->message[sizeof b->message - 1] = '\0';
    }
    for (size_t i = 0; i < WR_CHECKS_MAX; i++) {
        struct wr_check_card *c = &card->check[i];
        c->name[sizeof c->name - 1] = c->message[sizeof c->message - 1] = '\0';
    }
}

bool wr_card_read(const struct wr_area *area, uint32_t worker, bool gone, struct wr_card *card)
{
    const struct wr_worker_record *record = record_of(area, worker);
    if (record == NULL || !wr_sheet_get(&record->card_turn, card, record->card, sizeof *card / 8))
        return false;
    if (!gone && card->process != wr_area_worker_process(area, worker)) return false;
    if (card->backend_count > WR_BACKENDS_MAX) card->backend_count = WR_BACKENDS_MAX;
    if (card->check_count > WR_CHECKS_MAX) card->check_count = WR_CHECKS_MAX;
    end_texts(card);
    return true;
}

/* ---- together -------------------------------------------------------------------------------------------------- */

static bool lives(const struct wr_area *area, uint32_t worker, uint64_t now_ns)
{
    if (worker == wr_area_worker(area)) return true;
    uint64_t heard = wr_area_worker_heartbeat(area, worker);
    return wr_area_worker_process(area, worker) != 0 && heard != 0 && now_ns < heard + FRESH_NS;
}

/* The newest word counts, and any word more than none. */
static void merge_backend(struct wr_household *out, const struct wr_backend_card *from)
{
    uint32_t i = 0;
    while (i < out->backend_count && strcmp(out->backend[i].name, from->name) != 0) i++;
    if (i == WR_BACKENDS_MAX) return;
    struct wr_backend_card *to = &out->backend[i];
    bool newer = i == out->backend_count || (from->known && (!to->known || from->at_ns > to->at_ns));
    if (i == out->backend_count) out->backend_count++;
    if (newer) *to = *from;
}

static void merge_check(struct wr_household *out, const struct wr_check_card *from)
{
    uint32_t i = 0;
    while (i < out->check_count && strcmp(out->check[i].name, from->name) != 0) i++;
    if (i == WR_CHECKS_MAX) return;
    struct wr_check_card *to = &out->check[i];
    bool newer = i == out->check_count || (from->known && (!to->known || from->at_ns > to->at_ns));
    if (i == out->check_count) out->check_count++;
    if (newer) *to = *from;
}

static void merge(struct wr_household *out, const struct wr_card *card)
{
    bool first = out->told++ == 0;
    if (first || card->opened_ns < out->opened_ns) {
        out->opened_ns = card->opened_ns;
        out->opened_us = card->opened_us;
    }
    out->in_flight += card->in_flight;
    out->allocations += card->allocations;
    out->pools |= card->pools;
    out->draining = card->draining != 0 && (first || out->draining);
    out->policy_off = out->policy_off || card->policy_off != 0;
    if (out->policy_message[0] == '\0')
        memcpy(out->policy_message, card->policy_message, sizeof out->policy_message);
    for (uint32_t i = 0; i < card->backend_count; i++) merge_backend(out, &card->backend[i]);
    for (uint32_t i = 0; i < card->check_count; i++) merge_check(out, &card->check[i]);
}

static void merge_the_last(const struct wr_area *area, struct wr_household *out, struct wr_card *card)
{
    uint32_t last = 0;
    uint64_t written = 0;
    for (uint32_t worker = 1; worker <= wr_area_workers_used(area); worker++) {
        if (!wr_card_read(area, worker, true, card) || card->written_ns < written) continue;
        last = worker;
        written = card->written_ns;
    }
    if (last == 0 || !wr_card_read(area, last, true, card)) return;
    card->in_flight = 0; /* its calls have gone with it */
    merge(out, card);
    out->draining = true;
}

void wr_household_read(const struct wr_area *area, uint64_t now_ns, struct wr_household *out)
{
    struct wr_card card;
    uint32_t own = wr_area_worker(area);
    memset(out, 0, sizeof *out);
    if (own != 0 && wr_card_read(area, own, false, &card)) merge(out, &card);
    out->workers = own != 0 ? 1 : 0;
    for (uint32_t worker = 1; worker <= wr_area_workers_used(area); worker++) {
        if (worker == own || !lives(area, worker, now_ns)) continue;
        out->workers++;
        if (wr_card_read(area, worker, false, &card)) merge(out, &card);
    }
    if (out->workers == 0) merge_the_last(area, out, &card);
}
