/* Who may connect to a server now: connect_at_once and connect_rate hold over all workers of the area. In an area of our
 * own the driver's crew sees to connect_at_once, and in order. */
#ifndef WR_DOOR_H
#define WR_DOOR_H

#include "guard/turnstile.h"

#include <stddef.h>

struct weir_engine;

struct wr_door {                    /* of one backend; both are in the area */
    struct wr_turnstile *turnstile; /* NULL: everybody may */
    weir_rate *rate;
};

size_t wr_door_bytes(void); /* of a server's record in the area */
int wr_doors_open(struct weir_engine *engine, char *why);
/* True: one connect of this worker is under way until wr_door_leave. Else ask again *again_ns from now. */
bool wr_door_enter(struct weir_engine *engine, size_t backend, uint64_t *again_ns);
void wr_door_leave(struct weir_engine *engine, size_t backend);
void wr_doors_reclaim(struct weir_engine *engine, uint32_t worker); /* what a dead one held, of any server */

#endif
