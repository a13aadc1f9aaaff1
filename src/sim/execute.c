/* What a segment does at the moment it is executed: errors, effects, the transaction's state, results. */
#include "sim/world.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

void wr_sim_fail(struct wr_sim_job *job, const char *sqlstate, const char *message)
{
    struct wr_sim_session *session = job->session;
    job->failed = true;
    wr_text_copy(job->sqlstate, sizeof job->sqlstate, sqlstate);
    wr_text_copy(job->message, sizeof job->message, message);
    bool single = job->kind == WR_SEGMENT_SINGLE, commit = job->kind == WR_SEGMENT_COMMIT;
    if (single || commit) {
        wr_sim_session_finish(session, false);
    } else if (job->kind == WR_SEGMENT_BEGIN || job->kind == WR_SEGMENT_MORE) {
        session->transaction = 'E';
    }
}

static bool forbidden(struct wr_sim_job *job, const struct wr_sim_op *op)
{
    const weir_sim_server *server = job->server;
    if (!op->writes || !(server->read_only || job->readonly)) return false;
    wr_sim_fail(job, "25006", "cannot execute INSERT in a read-only transaction");
    return true;
}

static bool recovers(struct wr_sim_job *job, const struct wr_sim_op *op)
{
    struct wr_sim_session *session = job->session;
    if (session->transaction != 'E' || op->verb == 'R') return true;
    wr_sim_fail(job, "25P02",
                "current transaction is aborted, commands ignored until end of transaction block");
    return false;
}

/* SAVEPOINT, ROLLBACK TO, RELEASE; anything else is none of its business. */
static bool mind_savepoints(struct wr_sim_job *job, const struct wr_sim_op *op)
{
    struct wr_sim_session *session = job->session;
    bool known = true;
    if (op->verb == 'S') wr_sim_session_savepoint(session, op->savepoint);
    if (op->verb == 'R') known = wr_sim_session_rollback_to(session, op->savepoint);
    if (op->verb == 'L') known = wr_sim_session_release(session, op->savepoint);
    if (!known) wr_sim_fail(job, "3B001", "savepoint does not exist");
    return known;
}

static bool run_statement(struct wr_sim_job *job, const struct wr_sim_op *op)
{
    struct wr_sim_session *session = job->session;
    job->server->stats.statements++;
    if (!recovers(job, op) || forbidden(job, op)) return false;
    if (op->sqlstate[0] != '\0') {
        wr_sim_fail(job, op->sqlstate, "made to fail by the simulation");
        return false;
    }
    if (!mind_savepoints(job, op)) return false;
    struct weir_result *result = &job->results[job->result_count];
    if (!wr_sim_op_result(job, op, result)) return false;
    job->result_count++;
    if (op->writes && !wr_sim_session_write(session, op->number)) {
        wr_sim_fail(job, "53200", "out of memory");
        return false;
    }
    return true;
}

static void run_statements(struct wr_sim_job *job)
{
    struct wr_sim_session *session = job->session;
    if (job->role && wr_sim_active(job->server, WEIR_SIM_ROLE_LOST)) {
        wr_sim_fail(job, "42501", "permission denied to set role");
        return;
    }
    for (size_t i = 0; i < job->op_count; i++) {
        if (!run_statement(job, &job->ops[i])) return;
    }
    job->xid_asked = job->want_xid;
    job->xid = session->xid;
}

static void answer_about_xid(struct wr_sim_job *job)
{
    const weir_sim_server *server = job->server;
    if (job->asked_xid >= server->next_xid) {
        job->xact = WR_XACT_FUTURE;
    } else if (job->asked_xid < server->first_xid || job->asked_xid + WR_SIM_XIDS <= server->next_xid) {
        job->xact = WR_XACT_FORGOTTEN;
    } else {
        job->xact = (enum wr_xact)server->xids[job->asked_xid % WR_SIM_XIDS];
    }
}

static void keep_text(char **kept, const char *text)
{
    free(*kept);
    *kept = text == NULL ? NULL : strdup(text);
}

void wr_sim_execute(struct wr_sim_job *job)
{
    struct wr_sim_session *session = job->session;
    switch (job->kind) {
    case WR_SEGMENT_SINGLE:
        run_statements(job);
        if (!job->failed) wr_sim_session_finish(session, true);
        job->xid_asked = false;
        break;
    case WR_SEGMENT_BEGIN:
        session->transaction = 'T';
        run_statements(job);
        break;
    case WR_SEGMENT_MORE:
        run_statements(job);
        break;
    case WR_SEGMENT_COMMIT: /* what serializability or a deferred constraint has to say is said here */
        job->committed = session->transaction == 'T' && !job->commit_fails;
        if (session->transaction == 'T' && job->commit_fails) {
            wr_sim_fail(job, job->server->trouble[WEIR_SIM_ERRORS].sqlstate,
                        "made to fail by the simulation");
        } else {
            wr_sim_session_finish(session, job->committed);
        }
        break;
    case WR_SEGMENT_ROLLBACK:
        wr_sim_session_finish(session, false);
        break;
    case WR_SEGMENT_RESET:
        keep_text(&session->claims, NULL);
        keep_text(&session->role, NULL);
        break;
    case WR_SEGMENT_XACT_STATUS:
        answer_about_xid(job);
        break;
    case WR_SEGMENT_PROBE:
        break;
    }
}
