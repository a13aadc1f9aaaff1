/* The simulation's own structure. A world holds servers; a server holds sessions; a link is the client's end of one
 * session; a job is one segment (or one connect) on its way there, at work, and on its way back. Everything that will
 * happen is a timer on the world's one heap.
 *
 * The two ends of a connection know each other only by pointers that either side's death clears: a client that has gone
 * does not stop what its session runs, and a session that has gone is noticed by the client when a packet says so. */
#ifndef WR_WORLD_H
#define WR_WORLD_H

#include "base/draw.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/memory.h"
#include "base/rng.h"
#include "engine/driver.h"
#include "sim/ledger.h"
#include "weir/sim.h"

enum { WR_SIM_NAME = 32, WR_SIM_XIDS = 65536, WR_SIM_SAVEPOINTS = 16, WR_SIM_DISTS = 5 };

/* What is traced; each is one line and one step of the hash. */
enum wr_sim_event {
    WR_SIM_CONNECT_BEGUN = 0,
    WR_SIM_CONNECT_REFUSED,
    WR_SIM_CONNECTED,
    WR_SIM_SENT,
    WR_SIM_SEND_FAILED,
    WR_SIM_STARTED,
    WR_SIM_FINISHED,
    WR_SIM_INTERRUPTED,
    WR_SIM_ANSWERED,
    WR_SIM_CANCEL,
    WR_SIM_LINK_RESET,
    WR_SIM_LINK_CLOSED,
    WR_SIM_FAULT_BEGINS,
    WR_SIM_FAULT_ENDS,
    WR_SIM_UP,
    WR_SIM_STALLED,
    WR_SIM_EVENTS
};

struct weir_sim {
    uint64_t now;
    int64_t wall_step_us;
    struct wr_heap heap;
    size_t timers_made;
    uint64_t seed;
    struct wr_rng rng;
    uint64_t hash;
    uint64_t still; /* events since the clock last moved */
    bool running;
    void (*line)(void *ctx, const char *text);
    void *line_ctx;
    struct weir_driver driver;
    struct wr_list servers; /* in the order they were named */
    struct wr_list hosts;
    struct wr_list spare_jobs, spare_links, spare_sessions;
    uint64_t job_sequence, link_sequence;
    uint32_t server_count;
    struct wr_ledger ledger;
};

struct weir_sim_host {
    struct wr_list node;
    weir_sim *sim;
    weir_host hooks;
    weir_engine *engine; /* NULL until bound */
    struct wr_timer timer;
    bool due; /* the timer fired before an engine was bound */
    uint64_t stalled_until;
};

/* ---- the client's side ---------------------------------------------------------------------------------------- */

struct wr_sim_instance { /* one engine's driver */
    weir_sim *sim;
    weir_sim_host *host; /* found when first needed */
    struct wr_driver_env env;
    uint32_t connect_at_once;
    struct wr_list gates;
    void (*ready)(void *arg); /* of the event being delivered */
    void *ready_arg;
};

struct wr_sim_gate { /* one engine's connects to one address: how many at once */
    struct wr_list node;
    struct wr_sim_instance *instance;
    weir_sim_server *address;
    uint32_t under_way;
    struct wr_list waiting;
    unsigned targets;
};

struct wr_target {
    struct wr_sim_gate *gate;
    char user[64];
};

enum wr_sim_cancel { /* where a link's cancel is */
                     WR_SIM_CANCEL_NONE = 0,
                     WR_SIM_CANCEL_WAITS, /* repeated a little later, and withdrawn if the answer comes first */
                     WR_SIM_CANCEL_UNDERWAY, /* to the server; from here on it can hit */
                     WR_SIM_CANCEL_INBOX,    /* it lies at a server that is frozen */
                     WR_SIM_CANCEL_CONFIRMED /* has done what it could; the confirmation is on its way */
};

struct wr_link {
    struct wr_list node; /* of its server's links; or spare */
    uint64_t id;
    struct wr_sim_instance *instance;
    void *owner;
    weir_sim_server *server;
    struct wr_sim_session *session; /* NULL: the server's end has gone */
    struct wr_sim_session
        *backend;           /* what a cancel names; somebody else's when its pid is no longer the link's */
    struct wr_sim_job *job; /* the segment that has not been settled; may be lost already */
    bool busy;              /* a segment is under way */
    bool broken;            /* the client has seen the end of it */
    bool rung;              /* the end of it is here, and the client has not looked yet */
    bool unheard;           /* the end of it was told into a black hole */
    bool severed;           /* a middlebox has forgotten it: neither end hears the other again */
    bool closed;            /* the client has gone; only its cancel is left */
    char transaction;       /* as the last answer said */
    bool answered;          /* the answer is here and waits for the confirmation of a cancel */
    enum wr_sim_cancel cancel_stage;
    unsigned cancels;       /* sent for this segment */
    unsigned cancel_losses; /* of the one that is on its way, by a black hole */
    char farewell[6];       /* what the server said as it hung up; "" nothing */
    uint32_t pid;
    char user[64];
    struct wr_timer hangup; /* when the end of it reaches the client */
    struct wr_timer cancel;
};

/* ---- a segment under way ---------------------------------------------------------------------------------------- */

enum wr_sim_stage {
    WR_SIM_UNDERWAY = 0, /* to the server */
    WR_SIM_LIMBO,        /* vanished on its way there; on the server's limbo list */
    WR_SIM_INBOX,        /* arrived, and the server is frozen; on its inbox */
    WR_SIM_WAITING,      /* for a worker; on the server's waiting list */
    WR_SIM_RUNNING,
    WR_SIM_RETURNING, /* to the client */
    WR_SIM_LIMBO_BACK /* vanished on its way back; on the server's limbo list */
};

struct wr_sim_op { /* one statement, as far as it outlives its text */
    const struct wr_sim_rule *rule;
    uint64_t number;    /* of the write; 0: none */
    uint64_t savepoint; /* stands for its name */
    bool writes;
    char verb; /* 'i'nsert 'u'pdate 'd'elete 's'elect, 'S'avepoint, 'R'ollback to, 'L' release, '-' other */
    char sqlstate[6];         /* fails so */
    struct wr_sim_copy *copy; /* of text and values, for a rule that is asked; NULL otherwise */
};

enum { WR_SIM_OPS = 4 };

struct wr_sim_job {
    struct wr_list node;
    uint64_t id;
    enum wr_sim_stage stage;
    weir_sim_server *server;
    struct wr_sim_session *session;         /* NULL: a connect, or its session has gone */
    struct wr_link *link;                   /* NULL: nobody waits for the answer */
    struct wr_timer timer;                  /* the end of its stage */
    struct wr_timer limit;                  /* statement_timeout; connect: the client's patience */
    uint64_t sent_at, service_ns, limit_at; /* limit_at: UINT64_MAX none */
    uint64_t ends_at;                       /* FIFO: when all of the service is done */
    uint64_t left_ns;                       /* FIFO, frozen: of the service */

    /* a connect */
    bool connect;
    struct wr_sim_gate *gate;
    char user[64];
    void *owner;       /* NULL: the client has given up, or it is no connect */
    uint64_t begun_at; /* when it got its turn */

    /* a segment */
    enum wr_segment_kind kind;
    bool readonly, want_xid, role, timed_out, reset_after, dirty, commit_fails;
    uint64_t timeout_ns, asked_xid;
    struct wr_sim_op *ops, few[WR_SIM_OPS];
    size_t op_count, op_room;

    /* the answer */
    bool failed, committed, xid_asked;
    char sqlstate[6];
    char message[128];
    char transaction;
    uint64_t xid;
    enum wr_xact xact;
    struct weir_result *results, few_results[WR_SIM_OPS];
    size_t result_count, result_room;
};

/* ---- the server's side -------------------------------------------------------------------------------------------- */

struct wr_sim_session {
    struct wr_list node;
    weir_sim_server *server;
    struct wr_link *link;   /* NULL: the client has gone */
    struct wr_sim_job *job; /* at the server */
    uint32_t pid;
    bool
        hangup; /* the client has gone and the server may not have heard of it; without, and without a link: it
                  * never will */
    char transaction;
    uint64_t xid;
    char *claims, *role; /* of the transaction, for rules that are asked; NULL none */
    uint64_t *pending;   /* numbers of the writes of the open transaction */
    size_t pending_count, pending_room;
    uint32_t writes; /* of the open transaction, numbered or not */
    struct wr_sim_savepoint {
        uint64_t name;
        size_t pending_count;
        uint32_t writes;
    } savepoints[WR_SIM_SAVEPOINTS];
    size_t savepoint_count;
};

struct wr_sim_commit { /* of a write that replicas may not have yet */
    uint64_t number, at_ns;
};

struct wr_sim_trouble { /* one kind of fault */
    weir_sim_server *server;
    bool active;
    weir_sim_fault fault; /* strings are below */
    char sqlstate[6], text[96];
    weir_sim_server *to;
    uint32_t left; /* of `count` */
    uint64_t begun_at;
    struct wr_timer end;
};

struct weir_sim_server {
    struct wr_list node;
    weir_sim *sim;
    char name[WR_SIM_NAME];
    uint32_t index;
    weir_sim_options options;
    double *bins[WR_SIM_DISTS]; /* the recorded histograms of options, ours */
    struct wr_rng rng;
    weir_sim_server *leads_to; /* where a connect to this address gets */
    weir_sim_server *follows;  /* NULL: a primary */

    bool down, recovering, read_only;
    bool demoted; /* it was the primary until a failover: what still commits here is lost with the rest */
    uint32_t timeline;
    uint64_t system_id, life;
    struct wr_timer boot; /* up again, or out of recovery */
    uint64_t recovery_ns;
    struct wr_timer move; /* a failed-over address */
    unsigned asking;      /* a rule is being asked: what it does to the server waits until it has answered */
    struct wr_timer fall; /* ... namely its end */
    struct wr_sim_trouble trouble[WEIR_SIM_FAULTS];

    struct wr_list links;    /* the clients' ends */
    struct wr_list sessions; /* of clients; connects under way count in session_count too */
    uint32_t session_count;
    uint32_t last_pid;
    struct wr_list limbo, inbox, waiting, running;
    uint32_t waiting_count, running_count;
    struct wr_heap shared; /* SHARED: running jobs by the virtual service at which they end */
    struct wr_timer shared_next;
    uint64_t virtual_at, virtual_ns; /* virtual service done by then, per job */

    uint64_t next_xid, first_xid;
    uint8_t xids[WR_SIM_XIDS];     /* enum wr_xact */
    struct wr_sim_commit *commits; /* a ring, kept only while somebody follows */
    size_t commit_first, commit_count, commit_room;
    bool followed;
    uint64_t seen_until; /* a replica: what it has seen once it has seen for good */

    struct wr_list rules, old_rules;
    weir_sim_stats stats;
    uint64_t connect_second; /* the second being counted */
    uint32_t connects_in_it;
};

/* world.c */
void wr_sim_arm(weir_sim *sim, struct wr_timer *timer, uint64_t at_ns);
void wr_sim_disarm(weir_sim *sim, struct wr_timer *timer);
int wr_sim_reserve(weir_sim *sim, size_t timers); /* room for so many more; WEIR_OK or WEIR_ENOMEM */
void wr_sim_trace(weir_sim *sim, enum wr_sim_event event, const weir_sim_server *server, uint64_t a,
                  uint64_t b);

/* simhost.c */
weir_sim_host *wr_sim_host_of(weir_sim *sim, const void *engine); /* NULL: not bound yet */

/* simdriver.c */
void wr_sim_driver_fill(weir_sim *sim);
/* Lets the instance's engine hear of something, in a turn of its own. False: its program stands still, and `timer` has
 * been set to come back when it goes on. */
bool wr_sim_deliver(struct wr_sim_instance *instance, struct wr_timer *timer, void (*ready)(void *arg),
                    void *arg);

/* simlink.c: the client's end */
int wr_sim_link_send(struct wr_link *link, const struct wr_segment *segment, struct wr_fault *fault);
void wr_sim_link_cancel(struct wr_link *link);
void wr_sim_link_close(struct wr_link *link);
struct wr_link *wr_sim_link_new(struct wr_sim_instance *instance, void *owner, struct wr_sim_session *session,
                                const char *user); /* NULL: out of memory */
void wr_sim_link_free(struct wr_link *link);
void wr_sim_cancels_thawed(weir_sim_server *server); /* those that lay at a frozen server */
/* The session behind it has gone; the client hears of it as soon as a packet gets through. */
void wr_sim_link_hung_up(struct wr_link *link, const char *farewell);
void wr_sim_links_hear_again(weir_sim_server *server); /* the network is back */
void wr_sim_links_sever(
    weir_sim_server *server); /* it is back, and has forgotten the connections there were */
void wr_sim_link_answer(struct wr_sim_job *job); /* has arrived at the client; from its own timer only */

/* connect.c */
int wr_sim_connect(struct wr_sim_instance *instance, struct wr_target *target, uint64_t timeout_ns,
                   void *owner);
void wr_sim_connect_forget(struct wr_sim_instance *instance, void *owner);
void wr_sim_connect_arrived(struct wr_sim_job *job);               /* at a server that reads it */
void wr_sim_connect_finished(struct wr_sim_job *job, bool direct); /* the session is made */
void wr_sim_connect_answer(struct wr_sim_job *job);                /* at the client */

/* travel.c: packets */
void wr_sim_send(struct wr_sim_job *job); /* to the server */
/* To the client. direct: this is the job's own event, so without latency the client may hear of it at once. */
void wr_sim_return(struct wr_sim_job *job, bool direct);
void wr_sim_travel_again(weir_sim_server *server); /* what had vanished is sent again */
/* When TCP tries again for the first time at or after `now`: the waits double, from `wait_ns` up to two minutes. */
uint64_t wr_sim_next_try(uint64_t sent_at, uint64_t wait_ns, uint64_t now);
void wr_sim_arrive(struct wr_sim_job *job); /* at the server */
struct wr_sim_job *
wr_sim_travelling(struct wr_timer *timer); /* the job if it is the timer of one on its way */
uint64_t wr_sim_latency(weir_sim_server *server);
bool wr_sim_reachable(const weir_sim_server *server);

/* work.c: workers */
struct wr_sim_job *wr_sim_job_new(weir_sim *sim); /* NULL: out of memory */
void wr_sim_job_free(struct wr_sim_job *job);     /* on no list, no timer */
void wr_sim_work_begin(struct wr_sim_job *job);   /* waits for a worker or runs */
void wr_sim_work_leave(struct wr_sim_job *job);   /* waiting or running: takes it away */
void wr_sim_work_interrupt(struct wr_sim_job *job, const char *sqlstate, const char *message);
void wr_sim_work_freeze(weir_sim_server *server);
void wr_sim_work_thaw(weir_sim_server *server);
void wr_sim_work_init(weir_sim_server *server);
void wr_sim_work_set(weir_sim_server *server,
                     const weir_sim_options *options); /* the same queue if jobs run */

/* execute.c: what a segment does */
void wr_sim_execute(struct wr_sim_job *job);
void wr_sim_fail(struct wr_sim_job *job, const char *sqlstate, const char *message);

/* session.c */
struct wr_sim_session *wr_sim_session_new(weir_sim_server *server);
/* The server ends it: rolled back, its job given up, its client told. farewell: SQLSTATE or "". */
void wr_sim_session_end(struct wr_sim_session *session, const char *farewell);
void wr_sim_session_hangup(struct wr_sim_session *session); /* the client has gone */
void wr_sim_session_free(struct wr_sim_session *session);
bool wr_sim_session_write(struct wr_sim_session *session, uint64_t number); /* false: out of memory */
void wr_sim_session_finish(struct wr_sim_session *session, bool commit);
void wr_sim_session_savepoint(struct wr_sim_session *session, uint64_t name);
/* False: there is no such savepoint. */
bool wr_sim_session_rollback_to(struct wr_sim_session *session, uint64_t name);
bool wr_sim_session_release(struct wr_sim_session *session, uint64_t name);

/* rules.c */
struct wr_sim_rule;
bool wr_sim_errors_strike(weir_sim_server *server, const char *sql);
/* Fills ops from the statements, drawing what has to be drawn. WEIR_OK or WEIR_ENOMEM. */
int wr_sim_read_statements(struct wr_sim_job *job, const struct wr_segment *segment);
uint64_t wr_sim_number_of(const char *text); /* of a write whose first value this is; 0: none */
void wr_sim_ops_release(struct wr_sim_job *job);
uint64_t wr_sim_op_service(weir_sim_server *server, const struct wr_sim_op *op);
bool wr_sim_op_fails(const struct wr_sim_op *op); /* as is known before it runs */
/* The statement's result; false when its rule says that it fails (job's sqlstate and message are set). */
bool wr_sim_op_result(struct wr_sim_job *job, const struct wr_sim_op *op, struct weir_result *out);
void wr_sim_rules_free(weir_sim_server *server);
/* Makes a histogram's bins ours: *bins is to be freed. True for any other kind. False: out of memory. */
bool wr_sim_keep_bins(weir_dist *dist, double **bins);

/* faults.c */
void wr_sim_faults_init(weir_sim_server *server);
bool wr_sim_strikes(weir_sim_server *server, weir_sim_fault_kind kind); /* active, and the dice say so */
bool wr_sim_reset_strikes(weir_sim_server *server, weir_sim_phase phase);
static inline bool wr_sim_active(const weir_sim_server *server, weir_sim_fault_kind kind)
{
    return server->trouble[kind].active;
}

/* simserver.c */
void wr_sim_server_free(weir_sim_server *server);
void wr_sim_server_count_connect(weir_sim_server *server);
void wr_sim_log_commit(weir_sim_server *server, uint64_t number);
uint64_t wr_sim_seen_until(weir_sim_server *server); /* what a replica has of its primary */
void wr_sim_promote(weir_sim_server *server);
void wr_sim_server_down(weir_sim_server *server, const char *farewell);
void wr_sim_server_boot(weir_sim_server *server, uint64_t after_ns, uint64_t recovery_ns);

#endif
