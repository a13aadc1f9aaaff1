/* The engine's own structure. Owner: whoever called weir_open; one thread. Everything it points to dies with it,
 * except calls their owners have not freed yet. */
#ifndef WR_ENGINE_H
#define WR_ENGINE_H

#include "area/recorder.h"
#include "area/sharedarea.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/rng.h"
#include "base/sqlmemo.h"
#include "engine/card.h"
#include "engine/config.h"
#include "engine/door.h"
#include "engine/driver.h"
#include "engine/log.h"
#include "engine/sight.h"

struct wr_pool;
struct weir_call;

enum wr_engine_state {
    WR_ENGINE_OPEN = 0,
    WR_ENGINE_DRAINING, /* no new calls */
    WR_ENGINE_CLOSING   /* weir_free is at work: nothing starts any more */
};

enum wr_call_state {
    WR_CALL_NEW = 0,        /* being set up, or between two attempts inside one function */
    WR_CALL_QUEUED,         /* waits for a connection, on its pool's waiters */
    WR_CALL_HELD,           /* a unit whose owner is at work: connection held, nothing on the wire */
    WR_CALL_SENT,           /* a segment is on the wire */
    WR_CALL_OVERDUE,        /* the deadline passed on the wire: a short grace to learn the truth */
    WR_CALL_BACKOFF,        /* waits for the next attempt */
    WR_CALL_RESOLVE_WAIT,   /* a lost COMMIT: waits before asking (again) what became of it */
    WR_CALL_RESOLVE_QUEUED, /* ... waits for a connection to ask on, on its pool's waiters */
    WR_CALL_RESOLVE_SENT,   /* ... has asked */
    WR_CALL_OVER,           /* ended; only its owner can do something with it */
    WR_CALL_STATES
};

enum wr_hook { WR_HOOK_ROUTE = 0, WR_HOOK_LABEL, WR_HOOK_RETRY, WR_HOOKS };

struct wr_watch { /* who wants to know about a descriptor */
    void (*ready)(void *arg, unsigned events);
    void *arg;
    unsigned events;
};

struct wr_check_state {
    bool due, known, ok;
    uint64_t elapsed_ns, at_ns, asked_ns;
    char message[128];
};

struct wr_backend_state { /* what the monitor knows of one backend */
    bool known, ok;
    uint64_t elapsed_ns, at_ns;
    char message[192];
};

struct weir_engine {
    struct wr_config config;
    weir_host host;
    struct wr_memory memory; /* counts into `allocations` */
    uint64_t allocations;
    const weir_driver *driver;
    void *instance; /* the driver's */
    struct wr_driver_env env;
    struct wr_area *area;
    char replaced[WEIR_WHY_MAX]; /* why the area that was found is not the one we use; "" if it is */
    bool area_adrift;            /* another file, or none, is where ours was */
    struct wr_rng rng;
    enum wr_engine_state state;
    unsigned forks; /* of this process and its ancestors when opened */

    uint64_t now; /* read once per turn or entry */
    bool in_turn;
    struct wr_heap timers;
    size_t timers_made; /* that exist, armed or not: the heap has room for all of them */
    uint64_t armed_at;  /* when the host will call; 0: not armed */

    struct wr_watch *watches; /* by descriptor */
    size_t watch_room;

    struct wr_sql_memo texts;

    struct wr_pool *pools; /* client-major: pools[client * backend_count + backend] */
    size_t pool_count;

    struct wr_list calls[WR_CALL_STATES]; /* all but QUEUED and RESOLVE_QUEUED, which sit on their pool */
    struct wr_list notices;               /* calls whose owner is to be told at the end of the turn */
    struct wr_list spare_calls;           /* freed by their owners, memory kept */
    size_t spare_count, call_count, in_flight;
    size_t orphans; /* calls and listeners that outlive the engine; the last one frees this structure */
    uint64_t call_sequence, conn_sequence;

    struct wr_list listeners;
    struct wr_list retired; /* connections closed in this turn, freed at its end */
    struct wr_list spare_conns;
    struct wr_conn_card *conn_card; /* in the area */
    uint64_t conn_cards;            /* a bit per card of a connection that is taken */

    struct wr_log log;

    struct wr_timer policy_timer; /* tells of a newer policy text in the next turn */
    uint64_t policy_seen;         /* generation that was read or told of */
    uint64_t policy_generation;   /* in force */
    struct wr_timer order_timer;  /* looks for orders; obey.c */
    uint64_t order_given;         /* ticket of the last one that was given here: it stands in the log */
    uint64_t orders_seen, awaited_ticket, awaited_generation, refused_generation;
    uint32_t order_looks; /* at an order that has been begun and is not there */
    char refused_why[WR_ACK_WHY];
    struct wr_timer housekeeping; /* shared areas: heartbeat and reaping, 1 s */
    struct wr_timer health_timer;
    struct wr_timer drain_timer;
    struct wr_backend_state backends[WR_BACKENDS_MAX];
    struct wr_door doors[WR_BACKENDS_MAX];
    struct wr_check_state checks[WR_CHECKS_MAX];
    uint64_t opened_at, opened_wall_us;

    struct weir_area sight; /* how we see our own area */
    struct wr_card card;    /* as it was written last */

    uint32_t policy_faults[WR_HOOKS]; /* of each hook, in a row */
    bool policy_off;
    char policy_message[WEIR_WHY_MAX];
};

/* Enters the event log, with the wall clock, and the structured one, with what that can say beside the sentence. pool and
 * facts may be NULL. */
void wr_engine_event(struct weir_engine *engine, enum wr_event_kind kind, const struct wr_pool *pool,
                     const struct wr_event_facts *facts, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Arms (or moves) a timer; the heap has room reserved for it, so this cannot fail. */
void wr_engine_arm(struct weir_engine *engine, struct wr_timer *timer, uint64_t at_ns);
void wr_engine_disarm(struct weir_engine *engine, struct wr_timer *timer);
/* `more` timers come into being: the heap makes room for them. WEIR_OK or WEIR_ENOMEM. */
int wr_engine_reserve_timers(struct weir_engine *engine, size_t more);
/* Outside a turn: tells the host when to call next. Inside one this happens at its end. */
void wr_engine_rearm(struct weir_engine *engine);

/* Frees a call whose engine has been closed. */
void wr_engine_bury(struct weir_call *orphan);

/* False in a child of the process that opened it: nothing of it may be used there. */
bool wr_engine_is_ours(const struct weir_engine *engine);

/* A moment that far away; "for ever" stays in the future. */
static inline uint64_t wr_after(uint64_t now_ns, uint64_t delay_ns)
{
    return delay_ns > UINT64_MAX / 2 - now_ns ? UINT64_MAX / 2 : now_ns + delay_ns;
}

uint64_t wr_engine_refresh(struct weir_engine *engine); /* reads the clock into engine->now */

#endif
