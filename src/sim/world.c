/* The world: its clock, its events, its trace; see weir/sim.h. */
#include "sim/world.h"

#include "base/check.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

enum { STILL_MOST = 1000000 };

/* ---- timers ------------------------------------------------------------------------------------------------------ */

int wr_sim_reserve(weir_sim *sim, size_t timers)
{
    size_t room = 256;
    while (room < sim->timers_made + timers) room *= 2;
    int code = wr_heap_reserve(&sim->heap, room);
    if (code == WEIR_OK) sim->timers_made += timers;
    return code;
}

void wr_sim_arm(weir_sim *sim, struct wr_timer *timer, uint64_t at_ns)
{
    int code = wr_heap_arm(&sim->heap, timer, at_ns < sim->now ? sim->now : at_ns);
    WR_CHECK(code == WEIR_OK); /* room was reserved when its owner was made */
}

void wr_sim_disarm(weir_sim *sim, struct wr_timer *timer)
{
    wr_heap_disarm(&sim->heap, timer);
}

struct alarm { /* what a weir_sim_alarm holds */
    struct wr_timer timer;
    void (*fn)(void *ctx);
    void *ctx;
    bool reserved;
};

_Static_assert(sizeof(struct alarm) <= sizeof(weir_sim_alarm), "the public alarm has room for ours");

static void alarm_fired(struct wr_timer *timer)
{
    struct alarm *alarm = WR_CONTAINER(timer, struct alarm, timer);
    alarm->fn(alarm->ctx);
}

void weir_sim_alarm_set(weir_sim *sim, weir_sim_alarm *public_, uint64_t at_ns, void (*fn)(void *ctx),
                        void *ctx)
{
    struct alarm *alarm = (struct alarm *)(void *)public_;
    if (!alarm->reserved) {
        int code = wr_sim_reserve(sim, 1);
        WR_CHECK(code == WEIR_OK);
        alarm->reserved = true;
    }
    alarm->timer.fire = alarm_fired;
    alarm->fn = fn;
    alarm->ctx = ctx;
    wr_sim_arm(sim, &alarm->timer, at_ns);
}

void weir_sim_alarm_clear(weir_sim *sim, weir_sim_alarm *public_)
{
    struct alarm *alarm = (struct alarm *)(void *)public_;
    wr_sim_disarm(sim, &alarm->timer);
    if (alarm->reserved) sim->timers_made--;
    alarm->reserved = false;
}

/* ---- trace --------------------------------------------------------------------------------------------------------- */

static const char *const event_names[WR_SIM_EVENTS] = {
    [WR_SIM_CONNECT_BEGUN] = "connect",
    [WR_SIM_CONNECT_REFUSED] = "connect refused",
    [WR_SIM_CONNECTED] = "connected",
    [WR_SIM_SENT] = "sent",
    [WR_SIM_SEND_FAILED] = "send failed",
    [WR_SIM_STARTED] = "started",
    [WR_SIM_FINISHED] = "finished",
    [WR_SIM_INTERRUPTED] = "interrupted",
    [WR_SIM_ANSWERED] = "answered",
    [WR_SIM_CANCEL] = "cancel",
    [WR_SIM_LINK_RESET] = "hung up",
    [WR_SIM_LINK_CLOSED] = "closed",
    [WR_SIM_FAULT_BEGINS] = "fault begins",
    [WR_SIM_FAULT_ENDS] = "fault ends",
    [WR_SIM_UP] = "up",
    [WR_SIM_STALLED] = "stalled",
};

static void mix(weir_sim *sim, uint64_t value)
{
    sim->hash = (sim->hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    sim->hash ^= sim->hash >> 29;
}

static void print_time(const weir_sim *sim, char *out, size_t size)
{
    uint64_t since = sim->now - WEIR_SIM_START;
    wr_text_format(out, size, "%llu.%09llu", (unsigned long long)(since / 1000000000),
                   (unsigned long long)(since % 1000000000));
}

void wr_sim_trace(weir_sim *sim, enum wr_sim_event event, const weir_sim_server *server, uint64_t a,
                  uint64_t b)
{
    mix(sim, sim->now);
    mix(sim, (uint64_t)event << 56 ^ (uint64_t)(server == NULL ? 0 : server->index + 1) << 48 ^ a << 16 ^ b);
    if (sim->line == NULL) return;
    char text[192], at[32];
    print_time(sim, at, sizeof at);
    wr_text_format(text, sizeof text, "%s %s %s %llu %llu", at, server == NULL ? "-" : server->name,
                   event_names[event], (unsigned long long)a, (unsigned long long)b);
    sim->line(sim->line_ctx, text);
}

void weir_sim_trace(weir_sim *sim, void (*line)(void *ctx, const char *text), void *ctx)
{
    sim->line = line;
    sim->line_ctx = ctx;
}

void weir_sim_note(weir_sim *sim, const char *note)
{
    mix(sim, sim->now);
    for (const char *c = note; *c != '\0'; c++) mix(sim, (uint64_t)(unsigned char)*c);
    if (sim->line == NULL) return;
    char text[512], at[32];
    print_time(sim, at, sizeof at);
    wr_text_format(text, sizeof text, "%s %.400s", at, note);
    sim->line(sim->line_ctx, text);
}

uint64_t weir_sim_hash(const weir_sim *sim)
{
    return sim->hash;
}

/* ---- the world ------------------------------------------------------------------------------------------------------ */

int weir_sim_new(weir_sim **out, uint64_t seed)
{
    *out = NULL;
    weir_sim *sim = calloc(1, sizeof *sim);
    if (sim == NULL) return WEIR_ENOMEM;
    sim->now = WEIR_SIM_START;
    sim->hash = sim->seed = seed;
    wr_heap_init(&sim->heap, wr_memory_libc());
    wr_rng_seed(&sim->rng, seed);
    wr_list_init(&sim->servers);
    wr_list_init(&sim->hosts);
    wr_list_init(&sim->spare_jobs);
    wr_list_init(&sim->spare_links);
    wr_list_init(&sim->spare_sessions);
    wr_sim_driver_fill(sim);
    *out = sim;
    return WEIR_OK;
}

static void free_spares(weir_sim *sim)
{
    struct wr_list *node;
    while ((node = wr_list_first(&sim->spare_jobs)) != NULL) {
        struct wr_sim_job *job = WR_CONTAINER(node, struct wr_sim_job, node);
        wr_list_remove(node);
        if (job->ops != job->few) free(job->ops);
        if (job->results != job->few_results) free(job->results);
        free(job);
    }
    while ((node = wr_list_first(&sim->spare_links)) != NULL) {
        wr_list_remove(node);
        free(WR_CONTAINER(node, struct wr_link, node));
    }
    while ((node = wr_list_first(&sim->spare_sessions)) != NULL) {
        struct wr_sim_session *session = WR_CONTAINER(node, struct wr_sim_session, node);
        wr_list_remove(node);
        free(session->pending);
        free(session);
    }
}

void weir_sim_free(weir_sim *sim)
{
    if (sim == NULL) return;
    WR_CHECK(wr_list_empty(&sim->hosts) && !sim->running);
    struct wr_list *node;
    while ((node = wr_list_first(&sim->servers)) != NULL) {
        wr_sim_server_free(WR_CONTAINER(node, struct weir_sim_server, node));
    }
    free_spares(sim);
    struct wr_timer *left; /* alarms of the caller's */
    while ((left = wr_heap_earliest(&sim->heap)) != NULL) wr_heap_disarm(&sim->heap, left);
    wr_heap_release(&sim->heap);
    wr_ledger_release(&sim->ledger);
    free(sim);
}

uint64_t weir_sim_now_ns(const weir_sim *sim)
{
    return sim->now;
}

uint64_t weir_sim_random(weir_sim *sim)
{
    return wr_rng_next(&sim->rng);
}

void weir_sim_step_wall_clock(weir_sim *sim, int64_t by_us)
{
    sim->wall_step_us += by_us;
}

/* The next event at or before `until`; false if there is none. */
static bool step(weir_sim *sim, uint64_t until_ns)
{
    struct wr_timer *next = wr_heap_earliest(&sim->heap);
    if (next == NULL || next->at_ns > until_ns) return false;
    if (next->at_ns > sim->now) {
        sim->now = next->at_ns;
        sim->still = 0;
    }
    sim->still++;
    wr_heap_disarm(&sim->heap, next);
    next->fire(next);
    return true;
}

static weir_sim_end run(weir_sim *sim, const volatile bool *flag, uint64_t until_ns)
{
    for (;;) {
        if (flag != NULL && *flag) return WEIR_SIM_FLAG;
        if (sim->still > STILL_MOST) {
            sim->still = 0;
            return WEIR_SIM_STUCK;
        }
        if (step(sim, until_ns)) continue;
        if (until_ns == UINT64_MAX) return WEIR_SIM_IDLE;
        if (until_ns > sim->now) {
            sim->now = until_ns;
            sim->still = 0;
        }
        return WEIR_SIM_TIME;
    }
}

weir_sim_end weir_sim_run(weir_sim *sim, const volatile bool *flag, uint64_t until_ns)
{
    WR_CHECK(!sim->running);
    sim->running = true;
    weir_sim_end end = run(sim, flag, until_ns);
    sim->running = false;
    return end;
}

/* ---- the ledger, for programs ------------------------------------------------------------------------------------ */

void weir_sim_write_opened(weir_sim *sim, uint64_t number, bool idempotent)
{
    wr_ledger_open(&sim->ledger, number, idempotent);
}

void weir_sim_write_closed(weir_sim *sim, uint64_t number, weir_outcome outcome)
{
    wr_ledger_close(&sim->ledger, number, outcome);
}

uint32_t weir_sim_executions(const weir_sim *sim, const char *value)
{
    return wr_ledger_effects(&sim->ledger, wr_sim_number_of(value));
}

void weir_sim_books_now(const weir_sim *sim, weir_sim_books *out)
{
    *out = sim->ledger.books;
}
