/* When requests arrive that wait for nobody: by a rate that changes over time, and in bursts. */
#ifndef WR_ARRIVALS_H
#define WR_ARRIVALS_H

#include "base/memory.h"
#include "base/rng.h"
#include "weir/load.h"

/* Between from_ns and from_ns + length the rate goes evenly from `rate` on, `slope` more with every second. */
struct wr_stretch {
    uint64_t from_ns;
    double seconds, rate, slope, total; /* total: arrivals expected in it */
};

/* By time rescaling: arrivals are those moments at which the integral of the rate has grown by one step since the last.
 * Steps of 1 give even arrivals, steps drawn from the exponential distribution of mean 1 an exact Poisson process, at
 * any rate and through any ramp. The integral is taken from the beginning of each stretch, so errors do not add up. */
struct wr_arrivals {
    struct wr_stretch *stretches;
    size_t stretch_count, stretch;
    double mass; /* of the current stretch, at the last arrival */
    bool poisson;
    struct wr_rng rng;
    uint64_t next_ns; /* of the rate; UINT64_MAX: none */

    weir_load_burst *bursts;
    size_t burst_count, burst;
    uint32_t burst_left;

    uint64_t until_ns;
    const struct wr_memory *memory;
};

/* Options have been checked. WEIR_OK or WEIR_ENOMEM; release also what failed. */
int wr_arrivals_init(struct wr_arrivals *arrivals, const struct wr_memory *memory,
                     const weir_load_options *options, uint64_t seed);
void wr_arrivals_release(struct wr_arrivals *arrivals);
uint64_t wr_arrivals_next_ns(const struct wr_arrivals *arrivals); /* UINT64_MAX: never again */
void wr_arrivals_take(struct wr_arrivals *arrivals);              /* the next one has arrived */

#endif
