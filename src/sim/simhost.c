/* What one engine of a simulation runs on: the world's clock, and one timer in it. */
#include "sim/world.h"

#include <stdlib.h>

/* The first of January 2026, so that records look like records. */
static const uint64_t wall_at_start_us = UINT64_C(1767225600000000);

static uint64_t host_now(void *ctx)
{
    return ((weir_sim_host *)ctx)->sim->now;
}

static uint64_t host_wall(void *ctx)
{
    const weir_sim *sim = ((weir_sim_host *)ctx)->sim;
    return wall_at_start_us + (sim->now - WEIR_SIM_START) / 1000 + (uint64_t)sim->wall_step_us;
}

/* There are no descriptors: the driver's one is a bell that the world rings. */
static int host_watch(void *ctx, int fd, unsigned events)
{
    (void)ctx;
    (void)fd;
    (void)events;
    return WEIR_OK;
}

static void host_arm(void *ctx, int64_t delay_ns)
{
    weir_sim_host *host = ctx;
    wr_sim_disarm(host->sim, &host->timer);
    if (delay_ns < 0) return;
    uint64_t at = host->sim->now + (uint64_t)delay_ns;
    wr_sim_arm(host->sim, &host->timer, at < host->stalled_until ? host->stalled_until : at);
}

static void timer_fired(struct wr_timer *timer)
{
    weir_sim_host *host = WR_CONTAINER(timer, struct weir_sim_host, timer);
    if (host->sim->now < host->stalled_until) {
        wr_sim_arm(host->sim, timer, host->stalled_until);
    } else if (host->engine != NULL) {
        weir_on_timer(host->engine);
    } else {
        host->due = true;
    }
}

int weir_sim_host_new(weir_sim_host **out, weir_sim *sim)
{
    *out = NULL;
    weir_sim_host *host = calloc(1, sizeof *host);
    if (host == NULL || wr_sim_reserve(sim, 1) != WEIR_OK) {
        free(host);
        return WEIR_ENOMEM;
    }
    host->sim = sim;
    host->timer.fire = timer_fired;
    host->hooks = (weir_host){.ctx = host,
                              .now_ns = host_now,
                              .wall_us = host_wall,
                              .watch = host_watch,
                              .arm = host_arm,
                              .seed = wr_rng_next(&sim->rng)};
    wr_list_init(&host->node);
    wr_list_append(&sim->hosts, &host->node);
    *out = host;
    return WEIR_OK;
}

const weir_host *weir_sim_hooks(weir_sim_host *host)
{
    return &host->hooks;
}

void weir_sim_bind(weir_sim_host *host, weir_engine *engine)
{
    host->engine = engine;
    if (engine != NULL && host->due) wr_sim_arm(host->sim, &host->timer, host->sim->now);
    host->due = false;
}

weir_sim_host *wr_sim_host_of(weir_sim *sim, const void *engine)
{
    for (struct wr_list *n = sim->hosts.next; n != &sim->hosts; n = n->next) {
        weir_sim_host *host = WR_CONTAINER(n, struct weir_sim_host, node);
        if (host->engine == engine) return host;
    }
    return NULL;
}

void weir_sim_stall(weir_sim_host *host, uint64_t until_ns)
{
    if (until_ns <= host->stalled_until) return;
    host->stalled_until = until_ns;
    wr_sim_trace(host->sim, WR_SIM_STALLED, NULL, until_ns - host->sim->now, 0);
}

void weir_sim_stall_all(weir_sim *sim, uint64_t until_ns)
{
    for (struct wr_list *n = sim->hosts.next; n != &sim->hosts; n = n->next) {
        weir_sim_stall(WR_CONTAINER(n, struct weir_sim_host, node), until_ns);
    }
}

void weir_sim_host_free(weir_sim_host *host)
{
    if (host == NULL) return;
    wr_sim_disarm(host->sim, &host->timer);
    host->sim->timers_made--;
    wr_list_remove(&host->node);
    free(host);
}
