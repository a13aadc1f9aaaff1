/* weir/area.h: seeing and steering engines through the area that they keep, from inside and from another process.
 *
 * A weir_area is a handle on one area: an engine's own, or one that is attached by the path of its file. Everything that
 * can be seen or steered goes through such a handle, in the same way for both.
 *
 * Threads: a handle belongs to one thread at a time; an engine's own to the engine's thread. Looking at an attached area is
 * harmless for those who work on it (nothing is written, no worker is woken) and safe for who looks: a file that is cut
 * short, overwritten or hostile gives plausible zeros and WEIR_AREA_DAMAGED, and never a signal. For that the process has a
 * handler for SIGBUS while it has areas attached; faults elsewhere go to the handler that was there before. */
#ifndef WEIR_AREA_H
#define WEIR_AREA_H

#include "weir/guard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct weir_engine;

typedef struct weir_area weir_area;

/* ---- handles --------------------------------------------------------------------------------------------------- */

/* The engine's own area, private memory or a shared file. It lives as long as the engine; never NULL. */
weir_area *weir_engine_area(struct weir_engine *engine);

/* The area of the file at `path`, of whatever engine. It is mapped for writing where the file may be written, else for
 * reading alone. An area that is being made at this moment is waited for, a second at most. WEIR_OK; WEIR_ENOMEM; or
 * WEIR_ESYS: there is no such file, it is no area, of another layout, of an earlier boot, or damaged, or no engine has yet
 * been opened on it. *out is NULL then and `why` (WEIR_WHY_MAX bytes, may be NULL) says so in a sentence. The caller owns
 * the handle. */
int weir_area_attach(weir_area **out, const char *path, char *why);

/* Gives an attached handle back, with everything that it has handed out. Accepts NULL; an engine's own is left alone. */
void weir_area_detach(weir_area *area);

typedef enum weir_area_state {
    WEIR_AREA_LIVE = 0, /* at least one worker lives */
    WEIR_AREA_DESERTED, /* no worker lives: what is shown is what they left */
    WEIR_AREA_REPLACED, /* another file is at its path: workers that come later are there */
    WEIR_AREA_GONE,     /* no file is at its path any more */
    WEIR_AREA_DAMAGED   /* cut short or written over: what is shown cannot be trusted */
} weir_area_state;

/* How it stands now. `why`: a sentence, "" if it is LIVE; may be NULL. A few system calls. */
weir_area_state weir_area_look(weir_area *area, char *why);
const char *weir_area_state_name(weir_area_state state); /* "live", "deserted", ... */

const char *weir_area_path(const weir_area *area); /* "" for private memory; lives as long as the handle */

/* ---- seeing ---------------------------------------------------------------------------------------------------- */

/* JSON documents. Writes at most `size` bytes with NUL and returns the length of the whole text without NUL, like snprintf;
 * 0 for a document of another name.
 *
 *   stats     as weir_stats_json        health    as weir_health_json
 *   calls     as weir_calls_json; argument: how many at most
 *   events    as weir_events_json; argument: those after this sequence number
 *   finished  { workers, calls, recorded }: calls as they ended in one worker, for whoever follows; argument: worker << 40 | n,
 *             for those after its n-th. Each has its `n`; `recorded` counts all that it has ever had, workers its slots in use
 *   workers   pid, host, age of the heartbeat, policy in force, connections and calls of each worker that lives
 *   conns     connections one by one, 64 of each worker at most: state, since when, for which call
 *   config    the options in force, as the worker that opened last has them; nothing secret is in it
 *
 * Counters are sums over all workers, the dead included; what workers say of backends and checks is the newest that one of
 * them has said. */
size_t weir_area_json(weir_area *area, const char *document, uint64_t argument, char *out, size_t size);

/* ---- steering -------------------------------------------------------------------------------------------------- */

typedef enum weir_order_kind {
    WEIR_ORDER_PAUSE = 1, /* calls are refused; connections stay */
    WEIR_ORDER_DRAIN,     /* the same, and connections are closed as they get free */
    WEIR_ORDER_RESUME,    /* ends both */
    WEIR_ORDER_RESIZE,    /* connections that the pool may have, over all workers */
    WEIR_ORDER_RECONNECT, /* connections are closed as they get free, and others opened as they are needed */
    WEIR_ORDER_FORCE,     /* holds the breaker in a state */
    WEIR_ORDER_RESET,     /* the breaker back to normal, with a fresh window */
    WEIR_ORDER_KILL,      /* one running call ends as cancelled */
    WEIR_ORDER_POLICY     /* a policy text for all workers, as weir_policy_publish */
} weir_order_kind;

enum { WEIR_ORDER_REASON_MAX = 160 };

typedef struct weir_order {
    weir_order_kind kind;
    const char *pool; /* client@backend; NULL: all. Not for KILL and POLICY */
    uint32_t max;     /* RESIZE: 1 .. 10000; 0: as it is configured */
    weir_breaker_state
        state;          /* FORCE: FORCED_OPEN, FORCED_CLOSED, DISABLED, METRICS_ONLY; CLOSED ends forcing */
    uint64_t lasts_ns;  /* FORCE: after this it ends by itself; 0: it stays */
    uint64_t call;      /* KILL: id of a call that runs, as `conns` shows it */
    const char *text;   /* POLICY: copied */
    size_t length;      /* of the text */
    const char *reason; /* for the event log, cut to WEIR_ORDER_REASON_MAX - 1 bytes; NULL none */
} weir_order;

/* True if orders can be given through this handle; else `why` (WEIR_WHY_MAX bytes, may be NULL) says why not: the file may
 * not be written by this process, nobody works on it, or it is damaged. */
bool weir_area_may_steer(const weir_area *area, char *why);

/* Gives an order. What stands (paused, resized, forced) is in force when this returns and holds for workers that come
 * later too; what is to be done once is done by every worker that lives now, within a second. In an engine's own private memory
 * it is done when this returns. The event log keeps who gave it (user, uid, pid) and why.
 * WEIR_OK and *ticket (may be NULL), for weir_area_progress. WEIR_EINVAL: there is no such pool, or a number is out of
 * range. WEIR_ESYS: see weir_area_may_steer. WEIR_ESTATE: the engine was opened before a fork. */
int weir_area_order(weir_area *area, const weir_order *order, uint64_t *ticket, char *why);

typedef struct weir_order_progress {
    uint32_t workers; /* that live and were there when the order was given */
    uint32_t done;    /* of those */
    uint32_t refused; /* of those, and one of them says why */
    char why[WEIR_WHY_MAX];
} weir_order_progress;

/* What has become of an order so far. Of the last 64 orders; all zero for older ones, and when nobody was there. */
void weir_area_progress(weir_area *area, uint64_t ticket, weir_order_progress *out);

#ifdef __cplusplus
}
#endif
#endif
