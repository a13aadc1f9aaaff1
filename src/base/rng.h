/* xoshiro256**: seeded randomness for jitter. Not for secrets. */
#ifndef WR_RNG_H
#define WR_RNG_H

#include <stdint.h>

struct wr_rng {
    uint64_t word[4];
};

void wr_rng_seed(struct wr_rng *rng, uint64_t seed);
uint64_t wr_rng_next(struct wr_rng *rng);
double wr_rng_unit(struct wr_rng *rng); /* [0, 1) */

#endif
