/* Packets between a client and a server: latency, and what becomes of them when the network swallows them. TCP sends
 * again what was not acknowledged, later and later; so a request made in a black hole arrives some time after the hole
 * has closed, whether its client still waits or not. */
#include "sim/world.h"

#define MS 1000000ull

bool wr_sim_reachable(const weir_sim_server *server)
{
    return !wr_sim_active(server, WEIR_SIM_VANISH);
}

uint64_t wr_sim_latency(weir_sim_server *server)
{
    uint64_t latency = wr_dist_draw(&server->options.network, &server->rng);
    if (!wr_sim_active(server, WEIR_SIM_LATENCY)) return latency;
    return latency + (uint64_t)(server->trouble[WEIR_SIM_LATENCY].fault.seconds * 1e9);
}

static void vanish(struct wr_sim_job *job, enum wr_sim_stage stage)
{
    job->stage = stage;
    wr_list_append(&job->server->limbo, &job->node);
}

static void arrived_at_client(struct wr_sim_job *job)
{
    if (!wr_sim_reachable(job->server)) {
        vanish(job, WR_SIM_LIMBO_BACK);
    } else if (job->connect) {
        wr_sim_connect_answer(job);
    } else {
        wr_sim_link_answer(job);
    }
}

static void arrival_fired(struct wr_timer *timer)
{
    struct wr_sim_job *job = WR_CONTAINER(timer, struct wr_sim_job, timer);
    if (job->stage == WR_SIM_UNDERWAY) {
        wr_sim_arrive(job);
    } else {
        arrived_at_client(job);
    }
}

struct wr_sim_job *wr_sim_travelling(struct wr_timer *timer)
{
    return timer->fire == arrival_fired ? WR_CONTAINER(timer, struct wr_sim_job, timer) : NULL;
}

void wr_sim_send(struct wr_sim_job *job)
{
    weir_sim *sim = job->server->sim;
    job->sent_at = sim->now;
    job->timer.fire = arrival_fired;
    uint64_t latency = wr_sim_latency(job->server);
    job->stage = WR_SIM_UNDERWAY;
    if (latency == 0) {
        wr_sim_arrive(job);
    } else {
        wr_sim_arm(sim, &job->timer, sim->now + latency);
    }
}

void wr_sim_return(struct wr_sim_job *job, bool direct)
{
    weir_sim *sim = job->server->sim;
    job->sent_at = sim->now;
    job->timer.fire = arrival_fired;
    job->stage = WR_SIM_RETURNING;
    uint64_t latency = wr_sim_latency(job->server);
    if (latency == 0 && direct) {
        arrived_at_client(job);
    } else {
        wr_sim_arm(sim, &job->timer, sim->now + latency);
    }
}

/* A connection whose server has gone is answered by a reset; one that nobody reads waits in the kernel. */
void wr_sim_arrive(struct wr_sim_job *job)
{
    weir_sim_server *server = job->server;
    if (!wr_sim_reachable(server)) {
        vanish(job, WR_SIM_LIMBO);
    } else if (wr_sim_active(server, WEIR_SIM_FREEZE) && !server->down) {
        job->stage = WR_SIM_INBOX;
        wr_list_append(&server->inbox, &job->node);
    } else if (job->connect) {
        wr_sim_connect_arrived(job);
    } else if (job->session == NULL) {
        if (job->link != NULL) {
            job->link->job = NULL;
            wr_sim_link_hung_up(job->link, "");
        }
        wr_sim_job_free(job);
    } else {
        wr_sim_work_begin(job);
    }
}

uint64_t wr_sim_next_try(uint64_t sent_at, uint64_t wait_ns, uint64_t now)
{
    uint64_t wait = wait_ns, at = sent_at + wait;
    while (at < now) {
        wait = wait * 2 > 120000 * MS ? 120000 * MS : wait * 2;
        at += wait;
    }
    return at;
}

/* A connect whose client has closed the socket meanwhile is not tried again; data is, for the kernel sends on what it
 * was given. */
static bool is_tried_no_more(const struct wr_sim_job *job)
{
    return job->connect && job->owner == NULL && job->stage == WR_SIM_LIMBO;
}

void wr_sim_travel_again(weir_sim_server *server)
{
    struct wr_list *node;
    while ((node = wr_list_first(&server->limbo)) != NULL) {
        struct wr_sim_job *job = WR_CONTAINER(node, struct wr_sim_job, node);
        if (is_tried_no_more(job)) {
            wr_sim_job_free(job);
            continue;
        }
        wr_list_remove(node);
        job->stage = job->stage == WR_SIM_LIMBO ? WR_SIM_UNDERWAY : WR_SIM_RETURNING;
        uint64_t next = wr_sim_next_try(job->sent_at, job->connect ? 1000 * MS : 200 * MS, server->sim->now);
        wr_sim_arm(server->sim, &job->timer, next + wr_sim_latency(server));
    }
}
