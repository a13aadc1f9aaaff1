/* The places of a pool, which all workers of the area share: who may open one more connection, and who must give one up.
 *
 * Places that stay idle are lent at once (wr_pool_lend). Under constant load nothing is idle, so a worker below its
 * fair share, max by the number of workers, that waits in vain lays a claim: while it stands, those who have their share
 * open no more, and who has more closes a connection when a call gives it back. With more workers than places the places
 * go round. */
#ifndef WR_PLACES_H
#define WR_PLACES_H

#include "engine/pool.h"

/* False: all are taken, or others have a better claim; *again_ns from now it is worth another look. */
bool wr_place_take(struct wr_pool *pool, uint64_t *again_ns);
void wr_place_leave(struct wr_pool *pool);
/* The same question, nothing taken. */
bool wr_place_is_free(struct wr_pool *pool, uint64_t *again_ns);
/* A connection that has just come back is to be closed, for another worker has a claim on its place. */
bool wr_place_is_owed(const struct wr_conn *conn);

/* The pool holds more than it may have: this worker alone, or, since an operator made it smaller, all together. */
bool wr_places_are_short(const struct wr_pool *pool);

#endif
