/* The client's end of a connection: sends, hears, cancels, closes. */
#include "sim/world.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

#define MS 1000000ull

/* As src/pg does: a cancel that found nothing to end is repeated, each time later. */
enum { CANCEL_AGAIN = 6, CANCEL_AGAIN_MS = 5, CANCEL_LOSSES = 7 };

static void hangup_fired(struct wr_timer *timer);
static void request_cancel(struct wr_link *link);

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
    link->session = link->backend = session;
    link->pid = session->pid;
    link->transaction = session->transaction;
    link->hangup.fire = hangup_fired;
    wr_text_copy(link->user, sizeof link->user, user);
    wr_list_append(&link->server->links, &link->node);
    session->link = link;
    return link;
}

void wr_sim_link_free(struct wr_link *link)
{
    weir_sim *sim = link->server->sim;
    wr_sim_disarm(sim, &link->hangup);
    wr_sim_disarm(sim, &link->cancel);
    wr_list_remove(&link->node);
    wr_list_append(&sim->spare_links, &link->node);
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
    bool named = link->server->trouble[WEIR_SIM_ERRORS].fault.text !=
                 NULL; /* COMMIT is no statement of the caller's */
    job->commit_fails =
        named && segment->kind == WR_SEGMENT_COMMIT && wr_sim_errors_strike(link->server, "commit");
}

/* A segment in the wrong place is refused as src/pg does: the two ends would disagree about the transaction. */
static bool is_out_of_place(const struct wr_link *link, enum wr_segment_kind kind)
{
    static const char *const from[] = {
        [WR_SEGMENT_SINGLE] = "I",  [WR_SEGMENT_BEGIN] = "I",       [WR_SEGMENT_MORE] = "TE",
        [WR_SEGMENT_COMMIT] = "TE", [WR_SEGMENT_ROLLBACK] = "TE",   [WR_SEGMENT_PROBE] = "I",
        [WR_SEGMENT_RESET] = "I",   [WR_SEGMENT_XACT_STATUS] = "I",
    };
    return link->busy || strchr(from[kind], link->transaction) == NULL;
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
    if (link->broken || is_out_of_place(link, segment->kind) ||
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
    link->cancels = 0;
    if (link->severed) { /* and nobody will ever say so */
        wr_sim_job_free(job);
        return WEIR_OK;
    }
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
                             .dirty = job->dirty,
                             .xact = job->xact};
    if (job->failed) {
        reply.count = 0;
        wr_text_copy(reply.fault.sqlstate, sizeof reply.fault.sqlstate, job->sqlstate);
        wr_text_copy(reply.fault.severity, sizeof reply.fault.severity, "ERROR");
        wr_text_copy(reply.fault.message, sizeof reply.fault.message, job->message);
    }
    link->busy = link->answered = false;
    link->transaction = job->transaction;
    link->job = NULL;
    job->link = NULL;
    if (link->rung) wr_sim_arm(link->server->sim, &link->hangup, link->server->sim->now);
    wr_sim_trace(link->server->sim, WR_SIM_ANSWERED, link->server, job->id, job->failed);
    link->instance->env.settled(link->owner, &reply); /* may close the link */
    wr_sim_job_free(job);
}

void wr_sim_link_answer(struct wr_sim_job *job)
{
    struct wr_link *link = job->link;
    if (link == NULL) {
        wr_sim_job_free(job);
        return;
    }
    if (link->cancel_stage == WR_SIM_CANCEL_WAITS) {
        wr_sim_disarm(link->server->sim, &link->cancel);
        link->cancel_stage = WR_SIM_CANCEL_NONE;
    }
    if (link->cancel_stage != WR_SIM_CANCEL_NONE) {
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
    link->busy = false;
    link->job = NULL;
    link->cancel_stage = WR_SIM_CANCEL_NONE;
    wr_sim_disarm(link->server->sim, &link->cancel);
    if (job != NULL) job->link = NULL;
    wr_sim_trace(link->server->sim, WR_SIM_LINK_RESET, link->server, link->id, busy);
    if (busy) {
        link->instance->env.settled(link->owner, &reply);
    } else {
        link->instance->env.lost(link->owner, &reply.fault);
    }
}

/* An answer that waits for the confirmation of a cancel is known, and is told first. */
static void hangup_fired(struct wr_timer *timer)
{
    struct wr_link *link = WR_CONTAINER(timer, struct wr_link, hangup);
    if (!wr_sim_reachable(link->server) && !link->rung) {
        link->unheard = true;
        return;
    }
    link->rung = true;
    if (!link->answered) wr_sim_deliver(link->instance, timer, lost, link);
}

/* Never before the answer that was sent before it: both travel on one connection. */
static uint64_t behind_the_answer(const struct wr_link *link, uint64_t at)
{
    const struct wr_sim_job *job = link->job;
    bool under_way = job != NULL && job->stage == WR_SIM_RETURNING && wr_timer_armed(&job->timer);
    return under_way && job->timer.at_ns > at ? job->timer.at_ns : at;
}

void wr_sim_link_hung_up(struct wr_link *link, const char *farewell)
{
    weir_sim_server *server = link->server;
    if (link->broken || link->rung || link->unheard || wr_timer_armed(&link->hangup)) return;
    wr_text_copy(link->farewell, sizeof link->farewell, farewell);
    if (!wr_sim_reachable(server)) {
        link->unheard = true;
        return;
    }
    uint64_t at = server->sim->now + wr_sim_latency(server);
    wr_sim_arm(server->sim, &link->hangup, behind_the_answer(link, at));
}

void wr_sim_links_hear_again(weir_sim_server *server)
{
    uint64_t now = server->sim->now;
    for (struct wr_list *n = server->links.next; n != &server->links; n = n->next) {
        struct wr_link *link = WR_CONTAINER(n, struct wr_link, node);
        if (!link->unheard || link->severed || link->closed) continue;
        link->unheard = false;
        uint64_t next = wr_sim_next_try(server->trouble[WEIR_SIM_VANISH].begun_at, 200 * MS, now);
        wr_sim_arm(server->sim, &link->hangup, behind_the_answer(link, next + wr_sim_latency(server)));
    }
}

void wr_sim_links_sever(weir_sim_server *server)
{
    for (struct wr_list *n = server->links.next; n != &server->links; n = n->next) {
        struct wr_link *link = WR_CONTAINER(n, struct wr_link, node);
        link->severed = true;
        if (!link->rung) wr_sim_disarm(server->sim, &link->hangup);
        if (link->job != NULL && !link->answered) {
            link->job->link = NULL;
            link->job = NULL;
        }
        if (link->session != NULL) link->session->link = NULL;
        link->session = NULL;
    }
}

/* ---- cancelling ------------------------------------------------------------------------------------------------------- */

static void cancel_confirmed(void *arg)
{
    struct wr_link *link = arg;
    link->cancel_stage = WR_SIM_CANCEL_NONE;
    settled(link);
}

static void confirmed_fired(struct wr_timer *timer)
{
    struct wr_link *link = WR_CONTAINER(timer, struct wr_link, cancel);
    if (link->answered) {
        wr_sim_deliver(link->instance, timer, cancel_confirmed, link);
        return;
    }
    link->cancel_stage = WR_SIM_CANCEL_NONE;
    if (link->busy && link->cancels <= CANCEL_AGAIN) request_cancel(link);
}

static void confirm(struct wr_link *link)
{
    weir_sim_server *server = link->server;
    if (link->closed) {
        wr_sim_link_free(link);
        return;
    }
    link->cancel_stage = WR_SIM_CANCEL_CONFIRMED;
    link->cancel.fire = confirmed_fired;
    wr_sim_arm(server->sim, &link->cancel, server->sim->now + wr_sim_latency(server));
}

/* A cancel names a process, not a connection: it hits one whose client has gone, but not its successor. */
static struct wr_sim_session *session_of(const struct wr_link *link)
{
    struct wr_sim_session *backend = link->backend;
    return backend->server == link->server && backend->pid == link->pid ? backend : NULL;
}

static void take_effect(struct wr_link *link)
{
    weir_sim_server *server = link->server;
    struct wr_sim_session *session = session_of(link);
    struct wr_sim_job *job = session == NULL ? NULL : session->job;
    server->stats.cancels++;
    bool at_work = job != NULL && (job->stage == WR_SIM_WAITING || job->stage == WR_SIM_RUNNING);
    if (at_work && !server->options.ignores_cancel)
        wr_sim_work_interrupt(job, "57014", "canceling statement due to user request");
    confirm(link);
}

/* It comes on a connection of its own, whose first packet is sent again and again before the client gives up. */
static void cancel_fired(struct wr_timer *timer)
{
    struct wr_link *link = WR_CONTAINER(timer, struct wr_link, cancel);
    weir_sim_server *server = link->server;
    if (!wr_sim_reachable(server) && link->cancel_losses < CANCEL_LOSSES) {
        wr_sim_arm(server->sim, timer, server->sim->now + (1000 * MS << link->cancel_losses));
        link->cancel_losses++;
    } else if (!wr_sim_reachable(server) || server->down) {
        confirm(link);
    } else if (wr_sim_active(server, WEIR_SIM_FREEZE)) {
        link->cancel_stage = WR_SIM_CANCEL_INBOX;
    } else {
        take_effect(link);
    }
}

static void cancel_departs(struct wr_timer *timer)
{
    struct wr_link *link = WR_CONTAINER(timer, struct wr_link, cancel);
    weir_sim_server *server = link->server;
    link->cancel_stage = WR_SIM_CANCEL_UNDERWAY;
    link->cancel_losses = 0;
    link->cancel.fire = cancel_fired;
    wr_sim_trace(server->sim, WR_SIM_CANCEL, server, link->id, 0);
    uint64_t there = wr_sim_latency(server) * 3; /* a connection of its own: its handshake comes first */
    wr_sim_arm(server->sim, &link->cancel, server->sim->now + there);
}

static void request_cancel(struct wr_link *link)
{
    weir_sim *sim = link->server->sim;
    uint64_t wait = link->cancels == 0 ? 0 : CANCEL_AGAIN_MS * MS << link->cancels;
    link->cancels++;
    if (wait == 0) {
        cancel_departs(&link->cancel);
        return;
    }
    link->cancel_stage = WR_SIM_CANCEL_WAITS;
    link->cancel.fire = cancel_departs;
    wr_sim_arm(sim, &link->cancel, sim->now + wait);
}

void wr_sim_link_cancel(struct wr_link *link)
{
    if (!link->busy || link->answered || link->broken || link->cancel_stage != WR_SIM_CANCEL_NONE) return;
    link->cancels = 0;
    request_cancel(link);
}

void wr_sim_cancels_thawed(weir_sim_server *server)
{
    for (struct wr_list *n = server->links.next, *next = n->next; n != &server->links;
         n = next, next = n->next) {
        struct wr_link *link = WR_CONTAINER(n, struct wr_link, node);
        if (link->cancel_stage == WR_SIM_CANCEL_INBOX) take_effect(link);
    }
}

/* ---- closing ------------------------------------------------------------------------------------------------------------ */

/* A cancel that has been asked for is sent all the same: the statement would else run on. */
void wr_sim_link_close(struct wr_link *link)
{
    weir_sim_server *server = link->server;
    bool cancel_left = link->cancel_stage != WR_SIM_CANCEL_NONE &&
                       link->cancel_stage != WR_SIM_CANCEL_CONFIRMED && !link->answered && !link->broken;
    wr_sim_trace(server->sim, WR_SIM_LINK_CLOSED, server, link->id, 0);
    wr_sim_disarm(server->sim, &link->hangup);
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
    link->closed = true;
    link->job = NULL;
    link->busy = link->answered = false;
    link->owner = link->instance = NULL;
    if (!cancel_left) wr_sim_link_free(link);
}
