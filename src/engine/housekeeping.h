/* What a worker does for the area that it shares, once a second. */
#ifndef WR_HOUSEKEEPING_H
#define WR_HOUSEKEEPING_H

#include "engine/engine.h"

void wr_housekeeping_start(struct weir_engine *engine); /* shared areas only */

/* Takes back what a dead worker held anywhere in the area, in pools of other policies too: half-open permits, connects under
 * way, tickets. Also for a slot just claimed, whose last owner may be one that nobody has found yet. */
void wr_reclaim(struct weir_engine *engine, uint32_t worker);

/* Of a pool carried over from another area: what anybody over there holds of it is not held here. ctx: the engine. */
void wr_settle_record(void *ctx, void *record);

#endif
