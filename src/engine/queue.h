/* The calls that wait for a connection of a pool: bounded, oldest first while things go well (see discipline.h), and
 * never a connection wasted on one whose deadline cannot be met. */
#ifndef WR_QUEUE_H
#define WR_QUEUE_H

#include "engine/pool.h"

void wr_queue_init(struct wr_pool *pool);

/* Gives the call a connection now (wr_call_leased runs inside), or lets it wait. `front`: a lost COMMIT being looked
 * into, before all others and whatever the bound. False: as many wait as may. */
bool wr_queue_join(struct wr_pool *pool, struct weir_call *call, bool front);
/* wr_call_enter's: takes a call out. */
void wr_queue_leave(struct wr_pool *pool, struct weir_call *call);

/* Serves waiters from idle connections, then opens what is still needed. */
void wr_pool_serve(struct wr_pool *pool);

/* The breaker has opened: who waits is refused at once rather than left to find out alone. */
void wr_queue_flush(struct wr_pool *pool, const weir_evidence *evidence);

/* A connect has failed: somebody's attempt fails with it, or the breaker hears of it directly. */
void wr_queue_connect_failed(struct wr_pool *pool, const struct wr_fault *fault, bool probe);

#endif
