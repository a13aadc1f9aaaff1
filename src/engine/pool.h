/* A pool: the connections of one client on one backend, the calls that wait for them, and the guards before them.
 *
 * A connection's state is the list it is on; conn_enter (conn.c) is the only one who moves it. A connection is
 * leased to one call, or shared by several read-only ones (lane.h). It becomes idle again only in state 'I' (no transaction), with no unread result and no
 * cancel that could still arrive. */
#ifndef WR_POOL_H
#define WR_POOL_H

#include "area/meter.h"
#include "engine/engine.h"
#include "guard/discipline.h"

struct weir_listener;

enum wr_conn_state {
    WR_CONN_CONNECTING = 0, /* with the crew */
    WR_CONN_IDLE,
    WR_CONN_LEASED,    /* belongs to conn->call */
    WR_CONN_SHARED,    /* a lane: belongs to the calls on it, see lane.h */
    WR_CONN_CLEANING,  /* rolling back or resetting before it may be idle */
    WR_CONN_CANCELING, /* its call has gone; waits for the server's last word */
    WR_CONN_PROBING,   /* the monitor's */
    WR_CONN_LISTENING, /* belongs to conn->listener, until it is closed */
    WR_CONN_CLOSED,    /* on the engine's retired list until the turn ends */
    WR_CONN_STATES
};

struct wr_conn {
    struct wr_list link;
    struct wr_pool *pool;
    enum wr_conn_state state;
    struct wr_link *server;         /* NULL while connecting and when closed */
    struct weir_call *call;         /* LEASED only */
    struct weir_listener *listener; /* LISTENING, or CONNECTING for one */
    struct wr_lane *lane;           /* NULL until it is shared for the first time; kept with the memory */
    uint64_t id;
    uint64_t alive_at;             /* when the server was last heard of */
    uint64_t opened_at, retire_at; /* retire_at 0: never */
    uint32_t epoch;                /* of the pool when opened; an older one is stale */
    uint32_t card;                 /* its place in the area + 1; 0: it cannot be seen there */
    bool probe;                    /* opened for the monitor */
    bool turn;                     /* is one of the connects under way that the door counts */
    bool resetting;                /* CLEANING: the reset is under way, the rollback done */
    bool dirty;
    struct wr_greeting greeting;
    struct wr_timer timer; /* idle: retirement; canceling, cleaning: patience */
};

enum { WR_POOL_PAUSED = 1, WR_POOL_DRAINED = 2 };

struct wr_pool_record {       /* in the area, shared by all workers; the guards follow it, at fixed offsets */
    _Atomic uint32_t paused;  /* 0, or one of the above */
    _Atomic uint32_t resized; /* connections, as an operator wants it; 0: as configured */
    _Atomic uint32_t max, min, kind, multiplex; /* as the worker that came last has them configured */
    _Atomic uint64_t probe_at;     /* when a worker means to probe next, while the breaker is not closed */
    _Atomic uint64_t forced_until; /* when the breaker is no longer forced; 0: for good */
    _Atomic uint32_t wanted;       /* 1: a worker waits for a place that others' idle connections take up */
    _Atomic uint32_t claimed;      /* 1: ... and has less than its share: see places.c */
    _Atomic uint64_t claimed_until;
};

struct wr_pool {
    struct weir_engine *engine;
    const weir_client *client;
    const weir_backend *backend;
    size_t backend_index;
    char name[WR_NAME_MAX];
    struct wr_target *target;
    uint32_t index; /* in the area */
    struct wr_pool_record *record;
    weir_breaker *breaker;
    weir_budget *budget;
    struct wr_pool_meter *meter;

    struct wr_list conns[WR_CONN_STATES];
    size_t count[WR_CONN_STATES], total; /* of each state; of all but CLOSED */
    uint32_t epoch;                      /* raised to make all present connections stale */

    struct wr_list waiters; /* calls, oldest first */
    size_t waiting;
    size_t alone;     /* those of them that need a connection for themselves */
    uint32_t share;   /* calls per connection, 0: one at a time */
    uint64_t pace_ns; /* of a lane, from one answer to the next; a running mean */
    struct wr_discipline discipline;
    uint64_t service_floor_ns; /* decaying minimum of time on the server: nobody is faster */

    uint64_t look_again_ns;      /* after wr_conn_open was refused: how much later it is worth asking again */
    uint64_t lent_until;         /* a place was left to another worker, who has until then to take it */
    uint64_t connect_not_before; /* the server is out of slots (53300): wait for the connections we have */
    uint64_t fill_not_before;    /* up to `min`: after a failed connect that nobody waited for */
    weir_backoff connect_backoff;
    struct wr_timer grow_timer;
    bool connect_failing;       /* for one event per outage */
    struct wr_fault last_fault; /* of connecting */

    struct wr_timer probe_timer; /* while the breaker is not closed */
    uint64_t probe_delay_ns;
    bool probing;
    uint64_t probe_sent_at;
    uint64_t last_success_at, last_success_ns;
};

size_t wr_pool_record_bytes(void);
weir_breaker *wr_pool_breaker_in(void *record);
weir_budget *wr_pool_budget_in(void *record);

int wr_pool_init(struct wr_pool *pool, struct weir_engine *engine, size_t client, size_t backend, char *why);
void wr_pool_release(struct wr_pool *pool); /* all connections closed before */

uint32_t wr_pool_max(const struct wr_pool *pool);
size_t wr_pool_busy(const struct wr_pool *pool);  /* leased, shared, or at work of the engine's own */
size_t wr_pool_total(const struct wr_pool *pool); /* open or opening, canceling included */

/* Opens connections for those who wait and for `min`, within the caps. */
void wr_pool_grow(struct wr_pool *pool);
bool wr_pool_is_drained(const struct wr_pool *pool); /* by an operator */
void wr_pool_shrink(struct wr_pool *pool); /* closes idle ones that are too many, over all workers */
void wr_pool_evict(struct wr_pool *pool);  /* all present connections are stale */
void wr_pool_close_idle(struct wr_pool *pool);
/* Closes the coldest idle connection if another worker waits for its place under the common cap. */
void wr_pool_lend(struct wr_pool *pool);
void wr_pool_close_all(struct wr_pool *pool);

const char *wr_conn_state_name(uint32_t state); /* "idle", "leased", ...; "?" if out of range */
/* One more connection on its way, or NULL when the cap over all workers, memory or the driver forbids. */
struct wr_conn *wr_conn_open(struct wr_pool *pool, bool probe);
/* Its time is over: too old, of an earlier epoch, one too many, or the engine is draining. */
bool wr_conn_is_stale(const struct wr_conn *conn);
/* The call is done with the connection. What is left to do (rollback, reset) happens in the background. */
void wr_conn_give_back(struct wr_conn *conn, char transaction, bool dirty);
/* The call has gone while a segment is on the wire: wait for the server's last word, bounded by cancel_wait. */
void wr_conn_abandon(struct wr_conn *conn);
/* reason WR_COUNTERS: a connect that failed by itself, counted by its failure. */
void wr_conn_close(struct wr_conn *conn, enum wr_counter reason);
/* Into the idle list, with its retirement watched. */
void wr_conn_idle(struct wr_conn *conn);
void wr_conn_idle_due(struct wr_conn *conn);
/* A live idle connection, still on the idle list; dead and stale ones found on the way are closed. NULL: none. */
struct wr_conn *wr_pool_take_idle(struct wr_pool *pool);
void wr_conn_lease(struct wr_conn *conn, struct weir_call *call);
void wr_conn_share(struct wr_conn *conn);                                  /* idle: becomes a lane */
void wr_conn_listen(struct wr_conn *conn, struct weir_listener *listener); /* idle: becomes the listener's */

/* The monitor's: asks on an idle connection or opens one to ask on; wr_health_probed hears the end. False: none can be
 * had now. */
bool wr_pool_probe(struct wr_pool *pool);
void wr_pool_probe_send(struct wr_conn *conn);

/* The driver's answers (see driver.h). owner is the wr_conn. */
void wr_conn_connected(void *owner, struct wr_link *link, const struct wr_greeting *greeting,
                       const struct wr_fault *fault);
void wr_conn_settled(void *owner, struct wr_reply *reply);
void wr_conn_lost(void *owner, const struct wr_fault *fault);

#endif
