/* A session: one backend process. Its client may have gone; it does not stop for that, and ends when it next has nothing
 * to do and hears of it. */
#include "sim/world.h"

#include <stdlib.h>
#include <string.h>

struct wr_sim_session *wr_sim_session_new(weir_sim_server *server)
{
    weir_sim *sim = server->sim;
    struct wr_list *node = wr_list_first(&sim->spare_sessions);
    struct wr_sim_session *session;
    if (node != NULL) {
        wr_list_remove(node);
        session = WR_CONTAINER(node, struct wr_sim_session, node);
        uint64_t *pending = session->pending;
        size_t room = session->pending_room;
        memset(session, 0, sizeof *session);
        session->pending = pending;
        session->pending_room = room;
    } else {
        session = calloc(1, sizeof *session);
        if (session == NULL) return NULL;
    }
    session->server = server;
    session->pid = ++server->last_pid;
    session->transaction = 'I';
    wr_list_init(&session->node);
    wr_list_append(&server->sessions, &session->node);
    return session;
}

void wr_sim_session_free(struct wr_sim_session *session)
{
    weir_sim_server *server = session->server;
    wr_list_remove(&session->node);
    server->session_count--;
    free(session->claims);
    free(session->role);
    session->claims = session->role = NULL;
    session->pid = 0; /* its memory outlives it: links remember whom their cancel names */
    wr_list_append(&server->sim->spare_sessions, &session->node);
}

/* ---- its transaction ------------------------------------------------------------------------------------------------ */

bool wr_sim_session_write(struct wr_sim_session *session, uint64_t number)
{
    weir_sim_server *server = session->server;
    if (session->xid == 0) {
        session->xid = server->next_xid++;
        server->xids[session->xid % WR_SIM_XIDS] = WR_XACT_IN_PROGRESS;
    }
    session->writes++;
    if (number == 0) return true;
    if (session->pending_count == session->pending_room) {
        size_t room = session->pending_room == 0 ? 8 : session->pending_room * 2;
        uint64_t *grown = realloc(session->pending, room * sizeof *grown);
        if (grown == NULL) return false;
        session->pending = grown;
        session->pending_room = room;
    }
    wr_ledger_hold(&server->sim->ledger, number);
    session->pending[session->pending_count++] = number;
    return true;
}

static void drop_from(struct wr_sim_session *session, size_t first)
{
    struct wr_ledger *ledger = &session->server->sim->ledger;
    for (size_t i = first; i < session->pending_count; i++) wr_ledger_let_go(ledger, session->pending[i]);
    session->pending_count = first;
}

void wr_sim_session_finish(struct wr_sim_session *session, bool commit)
{
    weir_sim_server *server = session->server;
    if (commit && session->writes > 0) {
        server->stats.writes += session->writes;
        for (size_t i = 0; i < session->pending_count; i++) {
            wr_ledger_took_effect(&server->sim->ledger, session->pending[i]);
            wr_sim_log_commit(server, session->pending[i]);
        }
    }
    if (session->xid != 0) {
        server->xids[session->xid % WR_SIM_XIDS] = commit ? WR_XACT_COMMITTED : WR_XACT_ABORTED;
    }
    if (commit) server->stats.commits++;
    if (!commit && session->transaction != 'I') server->stats.rollbacks++;
    drop_from(session, 0);
    session->xid = 0;
    session->writes = 0;
    session->savepoint_count = 0;
    session->transaction = 'I';
}

/* The outermost of too many is forgotten, which is the one least likely to be asked for. */
void wr_sim_session_savepoint(struct wr_sim_session *session, uint64_t name)
{
    struct wr_sim_savepoint *all = session->savepoints;
    if (session->savepoint_count == WR_SIM_SAVEPOINTS) {
        session->savepoint_count--;
        memmove(all, all + 1, session->savepoint_count * sizeof *all);
    }
    all[session->savepoint_count++] =
        (struct wr_sim_savepoint){name, session->pending_count, session->writes};
}

static struct wr_sim_savepoint *find_savepoint(struct wr_sim_session *session, uint64_t name)
{
    for (size_t i = session->savepoint_count; i > 0; i--) {
        if (session->savepoints[i - 1].name == name) return &session->savepoints[i - 1];
    }
    return NULL;
}

/* The savepoint itself stays, those set after it go. */
bool wr_sim_session_rollback_to(struct wr_sim_session *session, uint64_t name)
{
    const struct wr_sim_savepoint *to = find_savepoint(session, name);
    if (to == NULL) return false;
    session->savepoint_count = (size_t)(to - session->savepoints) + 1;
    session->writes = to->writes;
    drop_from(session, to->pending_count);
    session->transaction = 'T';
    return true;
}

bool wr_sim_session_release(struct wr_sim_session *session, uint64_t name)
{
    const struct wr_sim_savepoint *to = find_savepoint(session, name);
    if (to == NULL) return false;
    session->savepoint_count = (size_t)(to - session->savepoints);
    return true;
}

/* ---- its end ------------------------------------------------------------------------------------------------------- */

void wr_sim_session_end(struct wr_sim_session *session, const char *farewell)
{
    struct wr_link *link = session->link;
    struct wr_sim_job *job = session->job;
    wr_sim_session_finish(session, false);
    session->job = NULL;
    if (job != NULL) job->session = NULL; /* a connect's answer goes on, and says so */
    if (job != NULL && !job->connect) {
        if (job->link != NULL) job->link->job = NULL;
        if (job->stage == WR_SIM_WAITING || job->stage == WR_SIM_RUNNING) wr_sim_work_leave(job);
        wr_sim_job_free(job);
    }
    if (link != NULL) {
        link->session = NULL;
        session->link = NULL;
        wr_sim_link_hung_up(link, farewell);
    }
    wr_sim_session_free(session);
}

void wr_sim_session_hangup(struct wr_sim_session *session)
{
    weir_sim_server *server = session->server;
    session->link = NULL;
    session->hangup = true; /* and it ends when it next has nothing to do */
    if (session->job != NULL || wr_sim_active(server, WEIR_SIM_FREEZE) || !wr_sim_reachable(server)) return;
    wr_sim_session_end(session, "");
}
