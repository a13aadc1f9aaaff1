/* Drawing from the public distributions of weir/dist.h. */
#ifndef WR_DRAW_H
#define WR_DRAW_H

#include "base/rng.h"
#include "weir/dist.h"

/* One value in nanoseconds, at most 100 years. The distribution has passed weir_dist_check. A constant draws nothing. */
uint64_t wr_dist_draw(const weir_dist *dist, struct wr_rng *rng);
double wr_dist_normal(struct wr_rng *rng); /* mean 0, deviation 1 */

#endif
