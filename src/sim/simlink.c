/* The client's end of a connection: sends, hears, cancels, closes. */
#include "sim/world.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

static void hangup_fired(struct wr_timer *timer);
static void cancel_fired(struct wr_timer *timer);

struct wr_link *wr_sim_link_new(struct wr_sim_instance *instance, void *owner, struct wr_sim_session *session,
                                const char *user)
{
    weir_sim *sim = instance->sim;
    struct wr_list *node = wr_list_first(&sim->spare_links);
    struct wr_link *link;
    if (node != NULL) {
        wr_list_remove(node);
        link = WR_CONTAINER(node, struct wr_link, node);
        memset(link, 0, sizeof *link);
    } else {
        link = calloc(1, sizeof *link);
        if (link == NULL || wr_sim_reserve(sim, 2) != WEIR_OK) {
            free(link);
            return NULL;
        }
    }
    wr_list_init(&link->node);
    link->id = ++sim->link_sequence;
    link->instance = instance;
    link->owner = owner;
    link->server = session->server;
    link->session = session;
    link->pid = session->pid;
    link->hangup.fire = hangup_fired;
    link->cancel.fire = cancel_fired;
    wr_text_copy(link->user, sizeof link->user, user);
    session->link = link;
    return link;
}

/* ---- sending --------------------------------------------------------------------------------------------------------- */

static bool carries_statements(enum wr_segment_kind kind)
{
    return kind == WR_SEGMENT_SINGLE || kind == WR_SEGMENT_BEGIN || kind == WR_SEGMENT_MORE;
}

static int send_failed(struct wr_link *link, struct wr_fault *fault)
{
    memset(fault, 0, sizeof *fault);
    fault->lost = true;
    wr_text_copy(fault->message, sizeof fault->message, "the connection was reset before anything was sent");
    link->broken = true;
    if (link->session != NULL) {
        struct wr_sim_session *session = link->session;
        link->session = NULL;
        wr_sim_session_hangup(session);
    }
    wr_sim_trace(link->server->sim, WR_SIM_SEND_FAILED, link->server, link->id, 0);
    return WEIR_ESYS;
}

static void keep_identity(struct wr_sim_session *session, const struct wr_segment *segment)
{
    if (segment->kind != WR_SEGMENT_BEGIN || wr_list_empty(&session->server->rules)) return;
    free(session->claims);
    free(session->role);
    session->claims = segment->claims == NULL ? NULL : strdup(segment->claims);
    session->role = segment->role == NULL ? NULL : strdup(segment->role);
}

static void fill_job(struct wr_sim_job *job, struct wr_link *link, const struct wr_segment *segment)
{
    job->server = link->server;
    job->link = link;
    job->session = link->session;
    job->kind = segment->kind;
    job->readonly = segment->readonly;
    job->want_xid = segment->want_xid;
    job->role = segment->role != NULL;
    job->timeout_ns = segment->timeout_ms * 1000000u;
    job->asked_xid = segment->xid;
}

/* The request or COMMIT is swallowed, and the reset is all that comes back. */
static bool is_swallowed(weir_sim_server *server, enum wr_segment_kind kind)
{
    if (carries_statements(kind)) return wr_sim_reset_strikes(server, WEIR_SIM_AFTER_SEND);
    return kind == WR_SEGMENT_COMMIT && wr_sim_reset_strikes(server, WEIR_SIM_AT_COMMIT);
}

static bool answer_is_swallowed(weir_sim_server *server, enum wr_segment_kind kind)
{
    if (carries_statements(kind)) return wr_sim_reset_strikes(server, WEIR_SIM_BEFORE_ANSWER);
    return kind == WR_SEGMENT_COMMIT && wr_sim_reset_strikes(server, WEIR_SIM_AFTER_COMMIT);
}

int wr_sim_link_send(struct wr_link *link, const struct wr_segment *segment, struct wr_fault *fault)
{
    weir_sim_server *server = link->server;
    if (link->broken ||
        (carries_statements(segment->kind) && wr_sim_reset_strikes(server, WEIR_SIM_BEFORE_SEND)))
        return send_failed(link, fault);
    struct wr_sim_job *job = wr_sim_job_new(server->sim);
    if (job == NULL) return send_failed(link, fault);
    fill_job(job, link, segment);
    if (wr_sim_read_statements(job, segment) != WEIR_OK) {
        wr_sim_job_free(job);
        return send_failed(link, fault);
    }
    wr_sim_trace(server->sim, WR_SIM_SENT, server, job->id, (uint64_t)segment->kind);
    link->busy = true;
    link->answered = false;
    link->job = job;
    if (link->session != NULL) {
        keep_identity(link->session, segment);
        link->session->job = job;
        if (is_swallowed(server, segment->kind)) {
            wr_sim_session_end(link->session, "");
            return WEIR_OK;
        }
        job->reset_after = answer_is_swallowed(server, segment->kind);
    }
    wr_sim_send(job);
    return WEIR_OK;
}

/* ---- hearing --------------------------------------------------------------------------------------------------------- */

static void settled(void *arg)
{
    struct wr_link *link = arg;
    struct wr_sim_job *job = link->job;
    struct wr_reply reply = {.results = job->results,
                             .count = job->result_count,
                             .failed = job->failed,
                             .transaction = job->transaction,
                             .committed = job->committed,
                             .xid = job->xid,
                             .xid_asked = job->xid_asked,
                             .xact = job->xact};
    if (job->failed) {
        reply.count = 0;
        wr_text_copy(reply.fault.sqlstate, sizeof reply.fault.sqlstate, job->sqlstate);
        wr_text_copy(reply.fault.severity, sizeof reply.fault.severity, "ERROR");
        wr_text_copy(reply.fault.message, sizeof reply.fault.message, job->message);
    }
    link->busy = link->answered = false;
    link->job = NULL;
    job->link = NULL;
    wr_sim_trace(link->server->sim, WR_SIM_ANSWERED, link->server, job->id, job->failed);
    link->instance->env.settled(link->owner, &reply); /* may close the link */
    wr_sim_job_free(job);
}

void wr_sim_link_answer(struct wr_sim_job *job)
{
    struct wr_link *link = job->link;
    if (link == NULL) {
        wr_sim_job_free(job);
    } else if (link->cancelling) {
        link->answered = true; /* settled once the cancel cannot hit the next segment any more */
    } else {
        wr_sim_deliver(link->instance, &job->timer, settled, link);
    }
}

static void fill_farewell(const struct wr_link *link, struct wr_fault *fault)
{
    fault->lost = true;
    wr_text_copy(fault->sqlstate, sizeof fault->sqlstate, link->farewell);
    if (link->farewell[0] != '\0') wr_text_copy(fault->severity, sizeof fault->severity, "FATAL");
    wr_text_copy(fault->message, sizeof fault->message,
                 link->farewell[0] != '\0' ? "terminating connection due to administrator command"
                                           : "server closed the connection unexpectedly");
}

static void lost(void *arg)
{
    struct wr_link *link = arg;
    struct wr_sim_job *job = link->job;
    struct wr_reply reply = {.failed = true};
    bool busy = link->busy;
    fill_farewell(link, &reply.fault);
    link->broken = true;
    link->busy = link->cancelling = link->answered = false;
    link->job = NULL;
    wr_sim_disarm(link->server->sim, &link->cancel);
    if (job != NULL) {
        bool at_client = job->stage == WR_SIM_RETURNING && !wr_timer_armed(&job->timer);
        job->link = NULL;
        if (at_client) wr_sim_job_free(job);
    }
    wr_sim_trace(link->server->sim, WR_SIM_LINK_RESET, link->server, link->id, busy);
    if (busy) {
        link->instance->env.settled(link->owner, &reply);
    } else {
        link->instance->env.lost(link->owner, &reply.fault);
    }
}

static void hangup_fired(struct wr_timer *timer)
{
    struct wr_link *link = WR_CONTAINER(timer, struct wr_link, hangup);
    wr_sim_deliver(link->instance, timer, lost, link);
}

void wr_sim_link_hung_up(struct wr_link *link, const char *farewell)
{
    weir_sim_server *server = link->server;
    if (link->broken || wr_timer_armed(&link->hangup) || !wr_sim_reachable(server)) return;
    wr_text_copy(link->farewell, sizeof link->farewell, farewell);
    wr_sim_arm(server->sim, &link->hangup, server->sim->now + wr_sim_latency(server));
}

/* ---- cancelling ------------------------------------------------------------------------------------------------------- */

static void cancel_confirmed(void *arg)
{
    struct wr_link *link = arg;
    link->cancelling = false;
    if (link->answered) settled(link);
}

static void confirmed_fired(struct wr_timer *timer)
{
    struct wr_link *link = WR_CONTAINER(timer, struct wr_link, cancel);
    if (link->answered) {
        wr_sim_deliver(link->instance, timer, cancel_confirmed, link);
    } else {
        link->cancelling = false;
    }
}

static void confirm(struct wr_link *link)
{
    weir_sim_server *server = link->server;
    link->cancel_arrived = false;
    link->cancel.fire = confirmed_fired;
    wr_sim_arm(server->sim, &link->cancel, server->sim->now + wr_sim_latency(server));
}

static void take_effect(struct wr_link *link)
{
    weir_sim_server *server = link->server;
    struct wr_sim_job *job = link->job;
    server->stats.cancels++;
    bool at_work = job != NULL && (job->stage == WR_SIM_WAITING || job->stage == WR_SIM_RUNNING);
    if (at_work && !server->options.ignores_cancel)
        wr_sim_work_interrupt(job, "57014", "canceling statement due to user request");
    confirm(link);
}

/* One that gets lost is never confirmed: the link stays as it is until its owner gives it up. */
static void cancel_fired(struct wr_timer *timer)
{
    struct wr_link *link = WR_CONTAINER(timer, struct wr_link, cancel);
    weir_sim_server *server = link->server;
    if (!wr_sim_reachable(server)) return;
    if (server->down) {
        confirm(link);
    } else if (wr_sim_active(server, WEIR_SIM_FREEZE)) {
        link->cancel_arrived = true;
    } else {
        take_effect(link);
    }
}

void wr_sim_link_cancel(struct wr_link *link)
{
    weir_sim_server *server = link->server;
    if (!link->busy || link->cancelling || link->broken) return;
    link->cancelling = true;
    link->cancel.fire = cancel_fired;
    wr_sim_trace(server->sim, WR_SIM_CANCEL, server, link->id, 0);
    uint64_t there = wr_sim_latency(server) * 3; /* a connection of its own: its handshake comes first */
    wr_sim_arm(server->sim, &link->cancel, server->sim->now + there);
}

void wr_sim_cancel_thawed(struct wr_link *link)
{
    if (link->cancel_arrived) take_effect(link);
}

/* ---- closing ------------------------------------------------------------------------------------------------------------ */

void wr_sim_link_close(struct wr_link *link)
{
    weir_sim_server *server = link->server;
    weir_sim *sim = server->sim;
    wr_sim_trace(sim, WR_SIM_LINK_CLOSED, server, link->id, 0);
    wr_sim_disarm(sim, &link->hangup);
    wr_sim_disarm(sim, &link->cancel);
    if (link->job != NULL) {
        struct wr_sim_job *job = link->job;
        job->link = NULL;
        if (link->answered) wr_sim_job_free(job);
    }
    if (link->session != NULL) {
        struct wr_sim_session *session = link->session;
        link->session = NULL;
        wr_sim_session_hangup(session);
    }
    wr_list_append(&sim->spare_links, &link->node);
}
