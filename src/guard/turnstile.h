/* A turnstile: at most so many inside at once over all owners (worker slots), in the order in which they came, and
 * optionally at a rate. Who may not go in yet holds a ticket and is told when to ask again; nobody is woken, as the one
 * who leaves cannot reach another process. The further back a ticket, the later it asks: no herd, and the front is quick.
 *
 * Everything is a lease, so that nothing is lost with a process: a ticket whose owner does not ask again in time is passed
 * over, and what is inside longer than it said counts no more. Plain shared memory, zeroed is empty; memory and time
 * are arguments. Each owner writes its own place alone; wr_turnstile_reclaim is for those who cannot any more. */
#ifndef WR_TURNSTILE_H
#define WR_TURNSTILE_H

#include "weir/guard.h"

#include <stdatomic.h>

enum { WR_TURN_OWNERS = 257 }; /* 0 .. 256 */

struct wr_turn_place {
    _Atomic uint64_t ticket;   /* 0: does not wait */
    _Atomic uint64_t asks_by;  /* later than that its ticket is passed over */
    _Atomic uint64_t inside;   /* how many */
    _Atomic uint64_t leave_by; /* later than that they count no more */
};

struct wr_turnstile {
    _Alignas(64) _Atomic uint64_t drawn; /* the last ticket */
    _Atomic uint32_t owners;             /* highest that ever asked, + 1: sums stop there */
    _Alignas(64) struct wr_turn_place place[WR_TURN_OWNERS];
};

struct wr_turn {
    uint32_t owner;
    uint32_t at_once; /* >= 1 */
    uint64_t now_ns;
    uint64_t lasts_ns; /* at most, once inside */
    weir_rate *rate;   /* NULL: none */
};

/* True: one more of the owner is inside, until wr_turnstile_leave. Else *again_ns from now the owner should ask again, if
 * it still wants to; asking for several at a time is asking several times. */
bool wr_turnstile_enter(struct wr_turnstile *turnstile, const struct wr_turn *turn, uint64_t *again_ns);
void wr_turnstile_leave(struct wr_turnstile *turnstile, uint32_t owner);
void wr_turnstile_reclaim(struct wr_turnstile *turnstile, uint32_t owner); /* of a dead owner: all it held */
uint64_t wr_turnstile_inside(const struct wr_turnstile *turnstile, uint64_t now_ns);

#endif
