/* Faults: how each begins and ends; see weir/sim.h. */
#include "sim/world.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

static const char *const fault_names[WEIR_SIM_FAULTS] = {
    [WEIR_SIM_CRASH] = "crash",       [WEIR_SIM_RESTART] = "restart",     [WEIR_SIM_REFUSE] = "refuse",
    [WEIR_SIM_SLOW] = "slow",         [WEIR_SIM_FREEZE] = "freeze",       [WEIR_SIM_VANISH] = "vanish",
    [WEIR_SIM_LATENCY] = "latency",   [WEIR_SIM_RESET] = "reset",         [WEIR_SIM_ERRORS] = "errors",
    [WEIR_SIM_FAILOVER] = "failover", [WEIR_SIM_ROLE_LOST] = "role_lost", [WEIR_SIM_ROTATE] = "rotate",
};

const char *weir_sim_fault_name(weir_sim_fault_kind kind)
{
    return (unsigned)kind < WEIR_SIM_FAULTS ? fault_names[kind] : "?";
}

/* ---- checks ---------------------------------------------------------------------------------------------------------- */

static int bad(char *why, const char *format, double value)
{
    if (why != NULL) wr_text_format(why, WEIR_WHY_MAX, format, value);
    return WEIR_EINVAL;
}

static bool is_sqlstate(const char *text)
{
    return text != NULL && strlen(text) == 5;
}

static bool is_rate(double rate)
{
    return rate >= 0 && rate <= 1;
}

static int check_failover(const weir_sim_server *server, const weir_sim_fault *fault, char *why)
{
    if (fault->to == NULL) return bad(why, "to is missing; it must be the name of a replica", 0);
    const weir_sim_server *to = weir_sim_server_named(server->sim, fault->to);
    if (to == NULL || to == server) return bad(why, "to is no name of another server", 0);
    if (to->follows != server) return bad(why, "to names a server that does not follow this one", 0);
    return WEIR_OK;
}

static int check(const weir_sim_server *server, const weir_sim_fault *fault, char *why)
{
    switch (fault->kind) {
    case WEIR_SIM_SLOW:
        if (fault->factor > 0 && fault->factor <= 1e6) return WEIR_OK;
        return bad(why, "factor is %g; it must be above 0 and at most 1 000 000", fault->factor);
    case WEIR_SIM_LATENCY:
        if (fault->seconds >= 0 && fault->seconds <= 3600) return WEIR_OK;
        return bad(why, "seconds is %g; it must be 0 to 3 600", fault->seconds);
    case WEIR_SIM_REFUSE:
        if (fault->sqlstate == NULL || is_sqlstate(fault->sqlstate) || strcmp(fault->sqlstate, "-") == 0)
            return WEIR_OK;
        return bad(why, "sqlstate must be five characters like 53300, or - for nobody listening", 0);
    case WEIR_SIM_ERRORS:
        if (fault->text != NULL && strlen(fault->text) >= sizeof server->trouble->text)
            return bad(why, "text is %g characters long; 95 are the most", (double)strlen(fault->text));
        if (!is_sqlstate(fault->sqlstate)) return bad(why, "sqlstate must be five characters, like 40001", 0);
        return is_rate(fault->rate) ? WEIR_OK : bad(why, "rate is %g; it must be 0 to 1", fault->rate);
    case WEIR_SIM_RESET:
        if ((unsigned)fault->phase > WEIR_SIM_AFTER_COMMIT)
            return bad(why, "phase is %g, which is none", fault->phase);
        return is_rate(fault->rate) ? WEIR_OK : bad(why, "rate is %g; it must be 0 to 1", fault->rate);
    case WEIR_SIM_FAILOVER:
        return check_failover(server, fault, why);
    default:
        return (unsigned)fault->kind < WEIR_SIM_FAULTS ? WEIR_OK
                                                       : bad(why, "kind is %g, which is none", fault->kind);
    }
}

/* ---- beginning ------------------------------------------------------------------------------------------------------- */

static void end_fired(struct wr_timer *timer)
{
    struct wr_sim_trouble *trouble = WR_CONTAINER(timer, struct wr_sim_trouble, end);
    weir_sim_heal(trouble->server, trouble->fault.kind);
}

static void fall_fired(struct wr_timer *timer);

void wr_sim_faults_init(weir_sim_server *server)
{
    server->fall.fire = fall_fired;
    for (size_t i = 0; i < WEIR_SIM_FAULTS; i++) {
        server->trouble[i].server = server;
        server->trouble[i].end.fire = end_fired;
        server->trouble[i].fault.kind = (weir_sim_fault_kind)i;
    }
}

static void keep(struct wr_sim_trouble *trouble, const weir_sim_fault *fault)
{
    trouble->fault = *fault;
    const char *sqlstate = fault->sqlstate == NULL             ? "53300"
                           : strcmp(fault->sqlstate, "-") == 0 ? ""
                                                               : fault->sqlstate;
    wr_text_copy(trouble->sqlstate, sizeof trouble->sqlstate, sqlstate);
    wr_text_copy(trouble->text, sizeof trouble->text, fault->text);
    trouble->fault.sqlstate = trouble->sqlstate;
    trouble->fault.text = fault->text == NULL ? NULL : trouble->text;
    trouble->fault.to = NULL;
    trouble->left = fault->count;
    trouble->begun_at = trouble->server->sim->now;
}

/* In the middle of a statement that began it, the statement's own session would die under its hands: it is ended when
 * the statement has come back, without effect. */
static void take_down(weir_sim_server *server, const weir_sim_fault *fault)
{
    if (server->asking > 0) {
        wr_sim_arm(server->sim, &server->fall, server->sim->now);
        return;
    }
    wr_sim_server_down(server, fault->kind == WEIR_SIM_RESTART ? "57P01" : "");
    if (fault->after_ns > 0) wr_sim_server_boot(server, fault->after_ns, fault->recovery_ns);
}

static void fall_fired(struct wr_timer *timer)
{
    weir_sim_server *server = WR_CONTAINER(timer, struct weir_sim_server, fall);
    const struct wr_sim_trouble *crash = &server->trouble[WEIR_SIM_CRASH],
                                *restart = &server->trouble[WEIR_SIM_RESTART];
    if (crash->active) {
        take_down(server, &crash->fault);
    } else if (restart->active) {
        take_down(server, &restart->fault);
    }
}

static void fail_over(weir_sim_server *server, const weir_sim_fault *fault)
{
    weir_sim_server *to = weir_sim_server_named(server->sim, fault->to);
    server->trouble[WEIR_SIM_FAILOVER].to = to;
    server->read_only = server->demoted = true;
    wr_sim_promote(to);
    wr_sim_arm(server->sim, &server->move, server->sim->now + fault->after_ns);
}

static void begin_effect(weir_sim_server *server, const weir_sim_fault *fault)
{
    switch (fault->kind) {
    case WEIR_SIM_CRASH:
    case WEIR_SIM_RESTART:
        take_down(server, fault);
        break;
    case WEIR_SIM_FREEZE:
        if (!wr_sim_active(server, WEIR_SIM_FREEZE)) wr_sim_work_freeze(server);
        break;
    case WEIR_SIM_FAILOVER:
        fail_over(server, fault);
        break;
    default:
        break;
    }
}

int weir_sim_fault_begin(weir_sim_server *server, const weir_sim_fault *fault, char *why)
{
    int code = check(server, fault, why);
    if (code != WEIR_OK) return code;
    weir_sim *sim = server->sim;
    struct wr_sim_trouble *trouble = &server->trouble[fault->kind];
    wr_sim_trace(sim, WR_SIM_FAULT_BEGINS, server, (uint64_t)fault->kind, fault->lasts_ns);
    begin_effect(server, fault);
    keep(trouble, fault);
    trouble->active = true;
    wr_sim_disarm(sim, &trouble->end);
    if (fault->lasts_ns > 0) wr_sim_arm(sim, &trouble->end, sim->now + fault->lasts_ns);
    return WEIR_OK;
}

/* ---- ending ------------------------------------------------------------------------------------------------------------ */

/* Clients that went meanwhile are noticed now. */
static void notice_hangups(weir_sim_server *server)
{
    for (struct wr_list *n = server->sessions.next, *next = n->next; n != &server->sessions;
         n = next, next = n->next) {
        struct wr_sim_session *session = WR_CONTAINER(n, struct wr_sim_session, node);
        if (session->hangup && session->job == NULL) wr_sim_session_end(session, "");
    }
}

static void thaw(weir_sim_server *server)
{
    struct wr_list *node, inbox;
    wr_sim_work_thaw(server);
    wr_sim_cancels_thawed(server);
    wr_list_init(&inbox);
    while ((node = wr_list_first(&server->inbox)) != NULL) {
        wr_list_remove(node);
        wr_list_append(&inbox, node);
    }
    while ((node = wr_list_first(&inbox)) != NULL) {
        wr_list_remove(node);
        wr_sim_arrive(WR_CONTAINER(node, struct wr_sim_job, node));
    }
    notice_hangups(server);
}

/* What was under way on connections that are forgotten is lost without a word, and so is the news of their end. */
static void forget_limbo(weir_sim_server *server)
{
    for (struct wr_list *n = server->limbo.next, *next = n->next; n != &server->limbo;
         n = next, next = n->next) {
        struct wr_sim_job *job = WR_CONTAINER(n, struct wr_sim_job, node);
        if (job->connect) continue; /* a new one is tried again */
        if (job->session != NULL) job->session->job = NULL;
        if (job->link != NULL) job->link->job = NULL;
        wr_sim_job_free(job);
    }
    for (struct wr_list *n = server->sessions.next; n != &server->sessions; n = n->next)
        WR_CONTAINER(n, struct wr_sim_session, node)->hangup = false;
}

static void network_is_back(weir_sim_server *server)
{
    bool forgotten = server->trouble[WEIR_SIM_VANISH].fault.forgotten;
    if (forgotten) wr_sim_links_sever(server);
    if (forgotten) forget_limbo(server);
    wr_sim_travel_again(server);
    wr_sim_links_hear_again(server);
    notice_hangups(server);
}

void weir_sim_heal(weir_sim_server *server, weir_sim_fault_kind kind)
{
    weir_sim *sim = server->sim;
    if ((unsigned)kind >= WEIR_SIM_FAULTS) return;
    struct wr_sim_trouble *trouble = &server->trouble[kind];
    if (!trouble->active || kind == WEIR_SIM_FAILOVER) return; /* a promoted replica stays promoted */
    wr_sim_disarm(sim, &trouble->end);
    wr_sim_trace(sim, WR_SIM_FAULT_ENDS, server, (uint64_t)kind, 0);
    trouble->active = false;
    if (kind == WEIR_SIM_CRASH || kind == WEIR_SIM_RESTART) {
        wr_sim_server_boot(server, 0, trouble->fault.recovery_ns);
    } else if (kind == WEIR_SIM_FREEZE) {
        thaw(server);
    } else if (kind == WEIR_SIM_VANISH) {
        network_is_back(server);
    }
}

/* ---- dice ------------------------------------------------------------------------------------------------------------------ */

bool wr_sim_strikes(weir_sim_server *server, weir_sim_fault_kind kind)
{
    struct wr_sim_trouble *trouble = &server->trouble[kind];
    if (!trouble->active || (trouble->fault.count > 0 && trouble->left == 0)) return false;
    if (trouble->fault.rate < 1 && wr_rng_unit(&server->rng) >= trouble->fault.rate) return false;
    if (trouble->fault.count > 0) trouble->left--;
    return true;
}

bool wr_sim_reset_strikes(weir_sim_server *server, weir_sim_phase phase)
{
    const struct wr_sim_trouble *trouble = &server->trouble[WEIR_SIM_RESET];
    return trouble->active && trouble->fault.phase == phase && wr_sim_strikes(server, WEIR_SIM_RESET);
}
