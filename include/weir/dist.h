/* weir/dist.h: how a duration is spread. Plain data, read by the load and by the simulated server. */
#ifndef WEIR_DIST_H
#define WEIR_DIST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum weir_dist_kind {
    WEIR_DIST_CONSTANT = 0, /* a */
    WEIR_DIST_UNIFORM,      /* between a and b */
    WEIR_DIST_EXPONENTIAL,  /* mean a */
    WEIR_DIST_NORMAL,       /* mean a, standard deviation b; what falls below zero counts by its size */
    WEIR_DIST_LOGNORMAL,    /* median a; b is the standard deviation of the logarithm */
    WEIR_DIST_PARETO,       /* least a, shape b > 0; a heavy tail, cut at c (0: 1000 times a) */
    WEIR_DIST_HISTOGRAM     /* recorded: bins of equal spread inside, see below */
} weir_dist_kind;

enum { WEIR_DIST_BINS = 4096 };

typedef struct weir_dist {
    weir_dist_kind kind;
    double a, b, c; /* seconds, where they are durations */
    /* HISTOGRAM: bin i reaches from edges[i] to edges[i + 1] seconds, count + 1 edges in rising order, and is drawn
     * with weight weights[i]. Not copied: both must outlive the distribution. count 1 .. WEIR_DIST_BINS. */
    const double *edges, *weights;
    size_t count;
} weir_dist;

/* WEIR_OK, or WEIR_EINVAL and a sentence in why (WEIR_WHY_MAX bytes, may be NULL) that begins with `knob`. */
int weir_dist_check(const weir_dist *dist, const char *knob, char *why);
double weir_dist_mean(const weir_dist *dist); /* seconds */

#ifdef __cplusplus
}
#endif
#endif
