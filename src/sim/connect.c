/* Connecting: at most connect_at_once of one engine to one address at a time, the others wait their turn. A connect costs
 * the server work, as a fork and a login do. A client that gives up does not stop it: the session is made and dropped. */
#include "sim/world.h"

#include "base/text.h"

#include <string.h>

static void open_gate(struct wr_sim_gate *gate);

/* The client hears no more of it; the gate has room for the next. */
static void leave_gate(struct wr_sim_job *job)
{
    struct wr_sim_gate *gate = job->gate;
    wr_sim_disarm(job->server->sim, &job->limit);
    job->owner = NULL;
    job->gate = NULL;
    gate->under_way--;
    open_gate(gate);
}

static void tell(struct wr_sim_instance *instance, void *owner, struct wr_link *link, uint64_t begun_at,
                 const struct wr_fault *fault)
{
    struct wr_greeting greeting = {0};
    if (link != NULL) {
        const weir_sim_server *server = link->server;
        greeting = (struct wr_greeting){.system_id = server->system_id,
                                        .timeline = server->timeline,
                                        .life = server->life,
                                        .in_recovery = server->read_only,
                                        .server_version = 150018,
                                        .backend_pid = link->pid,
                                        .connect_ns = server->sim->now - begun_at};
    }
    instance->env.connected(owner, link, link == NULL ? NULL : &greeting, fault);
}

/* ---- the client's patience ------------------------------------------------------------------------------------------- */

static void gave_up(void *arg)
{
    struct wr_sim_job *job = arg;
    struct wr_sim_instance *instance = job->gate->instance;
    void *owner = job->owner;
    struct wr_fault fault = {.lost = true, .unreachable = true, .message = "timeout: no connection in time"};
    leave_gate(job);
    tell(instance, owner, NULL, 0, &fault);
}

static void patience_ended(struct wr_timer *timer)
{
    struct wr_sim_job *job = WR_CONTAINER(timer, struct wr_sim_job, limit);
    wr_sim_deliver(job->gate->instance, timer, gave_up, job);
}

static void start(struct wr_sim_gate *gate, struct wr_sim_job *job)
{
    weir_sim_server *address = gate->address;
    weir_sim *sim = address->sim;
    wr_list_remove(&job->node);
    gate->under_way++;
    job->server = address->leads_to;
    job->begun_at = sim->now;
    job->limit.fire = patience_ended;
    wr_sim_arm(sim, &job->limit, sim->now + job->timeout_ns);
    job->timeout_ns = 0; /* the server has none of its own */
    wr_sim_trace(sim, WR_SIM_CONNECT_BEGUN, job->server, job->id, 0);
    wr_sim_send(job);
}

static void open_gate(struct wr_sim_gate *gate)
{
    struct wr_list *node;
    while (gate->under_way < gate->instance->connect_at_once &&
           (node = wr_list_first(&gate->waiting)) != NULL) {
        start(gate, WR_CONTAINER(node, struct wr_sim_job, node));
    }
}

int wr_sim_connect(struct wr_sim_instance *instance, struct wr_target *target, uint64_t timeout_ns,
                   void *owner)
{
    struct wr_sim_job *job = wr_sim_job_new(instance->sim);
    if (job == NULL) return WEIR_ENOMEM;
    struct wr_sim_gate *gate = target->gate;
    job->server = gate->address;
    job->connect = true;
    job->gate = gate;
    job->owner = owner;
    job->timeout_ns = timeout_ns;
    wr_text_copy(job->user, sizeof job->user, target->user);
    wr_list_append(&gate->waiting, &job->node);
    open_gate(gate);
    return WEIR_OK;
}

static bool forget_waiting(struct wr_sim_gate *gate, const void *owner)
{
    for (struct wr_list *n = gate->waiting.next; n != &gate->waiting; n = n->next) {
        struct wr_sim_job *job = WR_CONTAINER(n, struct wr_sim_job, node);
        if (job->owner != owner) continue;
        wr_sim_job_free(job);
        return true;
    }
    return false;
}

static bool forget_armed(struct wr_sim_instance *instance, const void *owner)
{
    const struct wr_heap *heap = &instance->sim->heap;
    for (size_t i = 0; i < heap->count; i++) {
        struct wr_timer *timer = heap->slots[i];
        if (timer->fire != patience_ended) continue;
        struct wr_sim_job *job = WR_CONTAINER(timer, struct wr_sim_job, limit);
        if (job->owner != owner) continue;
        leave_gate(job);
        return true;
    }
    return false;
}

void wr_sim_connect_forget(struct wr_sim_instance *instance, void *owner)
{
    for (struct wr_list *n = instance->gates.next; n != &instance->gates; n = n->next) {
        if (forget_waiting(WR_CONTAINER(n, struct wr_sim_gate, node), owner)) return;
    }
    (void)forget_armed(instance, owner);
}

/* ---- at the server ----------------------------------------------------------------------------------------------------- */

static void refuse(struct wr_sim_job *job, const char *sqlstate, const char *message)
{
    weir_sim_server *server = job->server;
    server->stats.connects_refused++;
    wr_sim_trace(server->sim, WR_SIM_CONNECT_REFUSED, server, job->id, 0);
    job->failed = true;
    wr_text_copy(job->sqlstate, sizeof job->sqlstate, sqlstate);
    wr_text_copy(job->message, sizeof job->message, message);
    wr_sim_return(job, false);
}

void wr_sim_connect_arrived(struct wr_sim_job *job)
{
    weir_sim_server *server = job->server;
    const struct wr_sim_trouble *refused = &server->trouble[WEIR_SIM_REFUSE];
    if (server->down || (refused->active && refused->sqlstate[0] == '\0')) {
        refuse(job, "", "connection refused");
        return;
    }
    server->stats.connects++;
    wr_sim_server_count_connect(server);
    if (server->recovering) {
        refuse(job, "57P03", "the database system is starting up");
    } else if (refused->active) {
        refuse(job, refused->sqlstate, "refused by the simulation");
    } else if (wr_sim_active(server, WEIR_SIM_ROTATE)) {
        refuse(job, "28P01", "password authentication failed");
    } else if (server->session_count >= server->options.connections_max) {
        refuse(job, "53300", "sorry, too many clients already");
    } else {
        server->session_count++;
        if (server->session_count > server->stats.sessions_max)
            server->stats.sessions_max = server->session_count;
        wr_sim_work_begin(job);
    }
}

void wr_sim_connect_finished(struct wr_sim_job *job, bool direct)
{
    job->session = wr_sim_session_new(job->server); /* its place has been counted since it arrived */
    if (job->session == NULL) {
        job->server->session_count--;
        refuse(job, "53200", "out of memory");
    } else if (job->owner == NULL) {
        wr_sim_session_end(job->session, "");
        wr_sim_job_free(job);
    } else {
        job->session->job = job;
        wr_sim_return(job, direct);
    }
}

/* ---- at the client ------------------------------------------------------------------------------------------------------ */

static void connected(void *arg)
{
    struct wr_sim_job *job = arg;
    weir_sim_server *server = job->server;
    struct wr_sim_instance *instance = job->gate->instance;
    struct wr_sim_session *session = job->session;
    struct wr_fault fault = {.lost = true};
    struct wr_link *link = NULL;
    void *owner = job->owner;
    uint64_t begun_at = job->begun_at;
    wr_text_copy(fault.sqlstate, sizeof fault.sqlstate, job->sqlstate);
    wr_text_copy(fault.message, sizeof fault.message, job->message);
    fault.unreachable = job->failed && job->sqlstate[0] == '\0';
    if (job->failed && !fault.unreachable) wr_text_copy(fault.severity, sizeof fault.severity, "FATAL");
    if (session != NULL) {
        session->job = NULL;
        link = wr_sim_link_new(instance, owner, session, job->user);
        if (link == NULL) {
            wr_text_copy(fault.message, sizeof fault.message, "out of memory");
            wr_sim_session_end(session, "");
        }
    } else if (!job->failed) {
        fault.unreachable = true;
        wr_text_copy(fault.message, sizeof fault.message, "server closed the connection unexpectedly");
    }
    wr_sim_trace(server->sim, WR_SIM_CONNECTED, server, job->id, link == NULL ? 0 : link->pid);
    leave_gate(job);
    wr_sim_job_free(job);
    tell(instance, owner, link, begun_at, link == NULL ? &fault : NULL);
}

void wr_sim_connect_answer(struct wr_sim_job *job)
{
    if (job->owner != NULL) {
        wr_sim_deliver(job->gate->instance, &job->timer, connected, job);
        return;
    }
    if (job->session != NULL) {
        job->session->job = NULL;
        wr_sim_session_end(job->session, "");
    }
    wr_sim_job_free(job);
}
