/* The load's side of the tally: telling it what happened. What may be read of it is in weir/load.h.
 *
 * A request's phases are found once, when it arrives, and carried along as a set of bits; so its end is counted where
 * its beginning was. Buckets go by the moment something happened. */
#ifndef WR_TALLY_H
#define WR_TALLY_H

#include "base/memory.h"
#include "weir/load.h"

enum { WR_CODES = WEIR_CALL_ROLLED_BACK + 1 };

typedef uint32_t wr_phase_set; /* a bit per phase */

/* weir_tally_new with memory of the caller's choice, which must outlive the tally. */
int wr_tally_new(const struct wr_memory *memory, weir_tally **out, uint64_t origin_ns, uint64_t bucket_ns,
                 const weir_phase_span *phases, size_t phase_count, char *why);

/* The phases in which a request arrives at this moment; counts it. */
wr_phase_set wr_tally_arrived(weir_tally *tally, uint64_t at_ns);
/* One call of a request of these phases ended. */
void wr_tally_called(weir_tally *tally, wr_phase_set phases, uint64_t at_ns, weir_code code,
                     uint32_t attempts);

struct wr_verdict { /* on a request that ended */
    wr_phase_set phases;
    uint64_t arrived_ns, ended_ns;
    weir_code code;       /* of its last call */
    weir_outcome outcome; /* of all its calls */
};
void wr_tally_ended(weir_tally *tally, const struct wr_verdict *verdict);

/* ---- watching the pools of an engine (watch.c) --------------------------------------------------------- */

struct wr_watch; /* one per engine, shared by its loads */

struct wr_watch *wr_watch_get(weir_tally *tally, weir_engine *engine,
                              uint64_t now_ns); /* NULL: out of memory */
void wr_watch_put(struct wr_watch *watch);
void wr_watch_look(struct wr_watch *watch, uint64_t now_ns);

struct wr_level {               /* of all pools at one moment */
    weir_breaker_state breaker; /* the worst */
    uint32_t waiting, connections;
};
weir_breaker_state wr_breaker_worse(weir_breaker_state a, weir_breaker_state b);
/* The level is so from now_ns on, until it is told anew. */
void wr_tally_level(weir_tally *tally, const struct wr_level *level, uint64_t now_ns);
void wr_tally_moved(weir_tally *tally, const weir_tally_move *move);
struct wr_list *wr_tally_watches(weir_tally *tally);
const struct wr_memory *wr_tally_memory(const weir_tally *tally);

#endif
