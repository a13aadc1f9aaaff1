/* Workers: whose turn it is, and how long it takes. FIFO: `workers` jobs at a time, the others wait in order. SHARED: all
 * at once; while they are more than `workers` each gets its share, so a job ends when the service that each has had by
 * then (virtual service) reaches its own: one number and one heap instead of a timer for each. */
#include "sim/world.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/text.h"

/* ---- jobs ---------------------------------------------------------------------------------------------------- */

struct wr_sim_job *wr_sim_job_new(weir_sim *sim)
{
    struct wr_list *node = wr_list_first(&sim->spare_jobs);
    struct wr_sim_job *job;
    if (node != NULL) {
        wr_list_remove(node);
        job = WR_CONTAINER(node, struct wr_sim_job, node);
    } else {
        job = calloc(1, sizeof *job);
        if (job == NULL || wr_sim_reserve(sim, 2) != WEIR_OK) {
            free(job);
            return NULL;
        }
        wr_list_init(&job->node);
        job->ops = job->few;
        job->op_room = job->result_room = WR_SIM_OPS;
        job->results = job->few_results;
    }
    job->id = ++sim->job_sequence;
    job->stage = WR_SIM_UNDERWAY;
    return job;
}

void wr_sim_job_free(struct wr_sim_job *job)
{
    weir_sim *sim = job->server->sim;
    wr_sim_disarm(sim, &job->timer);
    wr_sim_disarm(sim, &job->limit);
    wr_list_remove(&job->node);
    wr_sim_ops_release(job);
    for (size_t i = 0; i < job->result_count; i++) wr_result_release(&job->results[i]);
    job->result_count = 0;
    job->session = NULL;
    job->link = NULL;
    job->gate = NULL;
    job->owner = NULL;
    job->connect = job->failed = job->committed = job->xid_asked = job->dirty = job->commit_fails = false;
    job->timed_out = job->reset_after = job->role = job->readonly = job->want_xid = false;
    job->sqlstate[0] = job->message[0] = '\0';
    job->xid = job->asked_xid = job->timeout_ns = 0;
    job->xact = WR_XACT_NONE;
    wr_list_prepend(&sim->spare_jobs, &job->node);
}

/* ---- the end of a job's work ------------------------------------------------------------------------------------- */

static void start_waiting(weir_sim_server *server);

static void answered(struct wr_sim_job *job, bool direct)
{
    struct wr_sim_session *session = job->session;
    session->job = NULL;
    job->session = NULL;
    if (job->reset_after) {
        bool restart =
            wr_timer_armed(&session->server->fall) && !wr_sim_active(session->server, WEIR_SIM_CRASH);
        wr_sim_session_end(session, restart ? "57P01" : "");
        if (job->link != NULL) job->link->job = NULL;
        wr_sim_job_free(job);
        return;
    }
    job->transaction = session->transaction;
    if (session->hangup && wr_sim_reachable(session->server)) wr_sim_session_end(session, "");
    wr_sim_return(job, direct);
}

static void finish(struct wr_sim_job *job)
{
    weir_sim_server *server = job->server;
    wr_sim_trace(server->sim, WR_SIM_FINISHED, server, job->id, job->timed_out);
    wr_sim_work_leave(job);
    start_waiting(server); /* before the client hears: he may send on at once */
    if (job->connect) {
        wr_sim_connect_finished(job, true);
        return;
    }
    if (job->timed_out) {
        wr_sim_fail(job, "57014", "canceling statement due to statement timeout");
    } else {
        wr_sim_execute(job);
    }
    answered(job, true);
}

void wr_sim_work_interrupt(struct wr_sim_job *job, const char *sqlstate, const char *message)
{
    weir_sim_server *server = job->server;
    wr_sim_trace(server->sim, WR_SIM_INTERRUPTED, server, job->id, 0);
    wr_sim_work_leave(job);
    start_waiting(server);
    wr_sim_fail(job, sqlstate, message);
    answered(job, false);
}

/* ---- SHARED ---------------------------------------------------------------------------------------------------------- */

static double share(const weir_sim_server *server)
{
    if (wr_sim_active(server, WEIR_SIM_FREEZE)) return 0;
    if (server->running_count <= server->options.workers) return 1;
    return (double)server->options.workers / (double)server->running_count;
}

/* Before the number of those who share changes. */
static void advance(weir_sim_server *server)
{
    uint64_t now = server->sim->now;
    server->virtual_ns += (uint64_t)((double)(now - server->virtual_at) * share(server) + 0.5);
    server->virtual_at = now;
}

/* After it has changed. */
static void plan(weir_sim_server *server)
{
    struct wr_timer *first = wr_heap_earliest(&server->shared);
    double rate = share(server);
    wr_sim_disarm(server->sim, &server->shared_next);
    if (first == NULL || rate == 0) return;
    double left = first->at_ns > server->virtual_ns ? (double)(first->at_ns - server->virtual_ns) / rate : 0;
    wr_sim_arm(server->sim, &server->shared_next, server->sim->now + (uint64_t)(left + 0.5));
}

static void shared_fired(struct wr_timer *timer)
{
    weir_sim_server *server = WR_CONTAINER(timer, struct weir_sim_server, shared_next);
    advance(server);
    struct wr_timer *first = wr_heap_earliest(&server->shared);
    if (first == NULL) return;
    if (first->at_ns > server->virtual_ns) server->virtual_ns = first->at_ns; /* rounding */
    finish(WR_CONTAINER(first, struct wr_sim_job, timer));
}

static void share_in(struct wr_sim_job *job)
{
    weir_sim_server *server = job->server;
    advance(server);
    wr_list_append(&server->running, &job->node);
    server->running_count++;
    int code = wr_heap_arm(&server->shared, &job->timer, server->virtual_ns + job->service_ns);
    WR_CHECK(code == WEIR_OK);
    plan(server);
}

/* ---- FIFO ------------------------------------------------------------------------------------------------------------ */

static void work_fired(struct wr_timer *timer)
{
    finish(WR_CONTAINER(timer, struct wr_sim_job, timer));
}

/* A statement that cannot end in time is known to time out as it starts: one timer, not two. */
static void run_alone(struct wr_sim_job *job)
{
    weir_sim_server *server = job->server;
    uint64_t now = server->sim->now, end = now + job->service_ns;
    if (!job->connect) wr_sim_disarm(server->sim, &job->limit); /* a connect's is the client's patience */
    job->ends_at = end;
    job->timed_out = job->limit_at < end;
    if (job->timed_out) end = job->limit_at;
    job->timer.fire = work_fired;
    wr_list_append(&server->running, &job->node);
    server->running_count++;
    wr_sim_arm(server->sim, &job->timer, end);
}

/* ---- both -------------------------------------------------------------------------------------------------------------- */

static void start(struct wr_sim_job *job)
{
    weir_sim_server *server = job->server;
    job->stage = WR_SIM_RUNNING;
    wr_sim_trace(server->sim, WR_SIM_STARTED, server, job->id, job->service_ns);
    if (server->options.queue == WEIR_SIM_SHARED) {
        share_in(job);
    } else {
        run_alone(job);
    }
}

static bool has_worker(const weir_sim_server *server)
{
    return server->options.queue == WEIR_SIM_SHARED || server->running_count < server->options.workers;
}

static void start_waiting(weir_sim_server *server)
{
    while (server->waiting_count > 0 && has_worker(server) && !wr_sim_active(server, WEIR_SIM_FREEZE)) {
        struct wr_list *node = wr_list_first(&server->waiting);
        wr_list_remove(node);
        server->waiting_count--;
        start(WR_CONTAINER(node, struct wr_sim_job, node));
    }
}

static void limit_fired(struct wr_timer *timer)
{
    struct wr_sim_job *job = WR_CONTAINER(timer, struct wr_sim_job, limit);
    if (wr_sim_active(job->server, WEIR_SIM_FREEZE)) return; /* looked at when it thaws */
    wr_sim_work_interrupt(job, "57014", "canceling statement due to statement timeout");
}

static bool needs_no_worker(const struct wr_sim_job *job)
{
    return job->kind == WR_SEGMENT_ROLLBACK || job->kind == WR_SEGMENT_RESET ||
           job->kind == WR_SEGMENT_XACT_STATUS;
}

static uint64_t service_of(struct wr_sim_job *job)
{
    weir_sim_server *server = job->server;
    uint64_t service = 0;
    bool writes = false, fails = false; /* what follows a failure is not run */
    if (job->connect) return wr_dist_draw(&server->options.connect, &server->rng);
    if (job->kind == WR_SEGMENT_PROBE) return 0;
    for (size_t i = 0; i < job->op_count && !fails; i++) {
        const struct wr_sim_op *op = &job->ops[i];
        if (job->session->transaction == 'E' && op->verb != 'R') break; /* refused at once */
        service += wr_sim_op_service(server, op);
        writes = writes || op->writes;
        fails = wr_sim_op_fails(op);
    }
    bool commits = job->kind == WR_SEGMENT_COMMIT || (job->kind == WR_SEGMENT_SINGLE && writes && !fails);
    if (commits) service += wr_dist_draw(&server->options.commit, &server->rng);
    if (!wr_sim_active(server, WEIR_SIM_SLOW)) return service;
    return (uint64_t)((double)service * server->trouble[WEIR_SIM_SLOW].fault.factor);
}

void wr_sim_work_begin(struct wr_sim_job *job)
{
    weir_sim_server *server = job->server;
    uint64_t now = server->sim->now;
    if (!job->connect && needs_no_worker(job)) {
        wr_sim_execute(job);
        answered(job, false);
        return;
    }
    job->service_ns = service_of(job);
    if (job->connect && job->service_ns == 0) { /* free: whoever listens is no worker either */
        wr_sim_connect_finished(job, false);
        return;
    }
    bool limited = job->timeout_ns != 0 && !server->options.ignores_cancel;
    job->limit_at = limited ? now + job->timeout_ns : UINT64_MAX;
    if (limited && (server->options.queue == WEIR_SIM_SHARED || !has_worker(server))) {
        job->limit.fire = limit_fired;
        wr_sim_arm(server->sim, &job->limit, job->limit_at);
    }
    if (has_worker(server)) {
        start(job);
        return;
    }
    job->stage = WR_SIM_WAITING;
    wr_list_append(&server->waiting, &job->node);
    server->waiting_count++;
    if (server->waiting_count > server->stats.waiting_max) server->stats.waiting_max = server->waiting_count;
}

/* Of a running job's service, what is still to do. */
static uint64_t left_of(const struct wr_sim_job *job)
{
    const weir_sim_server *server = job->server;
    if (server->options.queue == WEIR_SIM_SHARED)
        return job->timer.at_ns > server->virtual_ns ? job->timer.at_ns - server->virtual_ns : 0;
    if (wr_sim_active(server, WEIR_SIM_FREEZE)) return job->left_ns;
    return job->ends_at > server->sim->now ? job->ends_at - server->sim->now : 0;
}

static void account(struct wr_sim_job *job)
{
    weir_sim_stats *stats = &job->server->stats;
    uint64_t left = left_of(job), spent = job->service_ns > left ? job->service_ns - left : 0;
    stats->busy_ns += spent;
    if (job->link == NULL && !job->connect) stats->wasted_ns += spent;
}

void wr_sim_work_leave(struct wr_sim_job *job)
{
    weir_sim_server *server = job->server;
    if (server->options.queue == WEIR_SIM_SHARED) advance(server);
    if (job->stage == WR_SIM_RUNNING) account(job);
    if (job->stage == WR_SIM_RUNNING && server->shared.count > 0 &&
        server->options.queue == WEIR_SIM_SHARED) {
        wr_heap_disarm(&server->shared, &job->timer);
    } else {
        wr_sim_disarm(server->sim, &job->timer);
    }
    if (job->stage == WR_SIM_RUNNING) server->running_count--;
    if (job->stage == WR_SIM_WAITING) server->waiting_count--;
    if (!job->connect) wr_sim_disarm(server->sim, &job->limit);
    wr_list_remove(&job->node);
    if (job->stage == WR_SIM_RUNNING && server->options.queue == WEIR_SIM_SHARED) plan(server);
}

void wr_sim_work_init(weir_sim_server *server)
{
    wr_heap_init(&server->shared, wr_memory_libc());
    server->shared_next.fire = shared_fired;
    server->virtual_at = server->sim->now;
    wr_list_init(&server->waiting);
    wr_list_init(&server->running);
}

void wr_sim_work_set(weir_sim_server *server, const weir_sim_options *options)
{
    advance(server);
    server->options = *options;
    if (server->options.queue == WEIR_SIM_SHARED) plan(server);
    start_waiting(server);
}

/* ---- frozen ---------------------------------------------------------------------------------------------------------- */

/* Called just before the server counts as frozen. */
void wr_sim_work_freeze(weir_sim_server *server)
{
    advance(server);
    wr_sim_disarm(server->sim, &server->shared_next);
    if (server->options.queue == WEIR_SIM_SHARED) return;
    for (struct wr_list *n = server->running.next; n != &server->running; n = n->next) {
        struct wr_sim_job *job = WR_CONTAINER(n, struct wr_sim_job, node);
        job->left_ns = left_of(job);
        wr_sim_disarm(server->sim, &job->timer);
    }
}

static void go_on(struct wr_sim_job *job)
{
    uint64_t now = job->server->sim->now, end = now + job->left_ns;
    job->ends_at = end;
    job->timed_out = job->limit_at < end;
    if (job->timed_out) end = job->limit_at > now ? job->limit_at : now;
    wr_sim_arm(job->server->sim, &job->timer, end);
}

/* Whose time ran out meanwhile hears of it now. */
static void look_at_limits(weir_sim_server *server, struct wr_list *list)
{
    for (struct wr_list *n = list->next; n != list; n = n->next) {
        struct wr_sim_job *job = WR_CONTAINER(n, struct wr_sim_job, node);
        bool passed = job->limit_at <= server->sim->now && !wr_timer_armed(&job->limit);
        if (!job->connect && passed) wr_sim_arm(server->sim, &job->limit, server->sim->now);
    }
}

/* Called just after it has ceased to be frozen. */
void wr_sim_work_thaw(weir_sim_server *server)
{
    server->virtual_at = server->sim->now;
    look_at_limits(server, &server->waiting);
    if (server->options.queue == WEIR_SIM_SHARED) {
        look_at_limits(server, &server->running);
        plan(server);
    } else {
        for (struct wr_list *n = server->running.next; n != &server->running; n = n->next) {
            go_on(WR_CONTAINER(n, struct wr_sim_job, node));
        }
    }
    start_waiting(server);
}
