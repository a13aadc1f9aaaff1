/* Log-linear histograms: fixed relative error, mergeable by adding, written by one writer with relaxed stores and
 * read by anyone. Values are nanoseconds. Fine: 64 sub-buckets per octave from 1 us to 1 h (value error <= 1 %).
 * Coarse: 4 sub-buckets per octave over the same range, for label series (error <= 12.5 %). Values below 1.024 us
 * fall in linear buckets, those from 2^42 ns (73 minutes) on in the last bucket. The sum is exact. */
#ifndef WR_HISTOGRAM_H
#define WR_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

enum { WR_FINE_BITS = 6, WR_COARSE_BITS = 2 };
enum { WR_FINE_BUCKETS = (1 << WR_FINE_BITS) * 33 + 1, WR_COARSE_BUCKETS = (1 << WR_COARSE_BITS) * 33 + 1 };

struct wr_histogram_fine {
    _Atomic uint64_t count, sum_ns, max_ns;
    _Atomic uint64_t bucket[WR_FINE_BUCKETS];
};

struct wr_histogram_coarse {
    _Atomic uint64_t count, sum_ns, max_ns;
    _Atomic uint64_t bucket[WR_COARSE_BUCKETS];
};

/* A plain merged copy for reading. */
struct wr_histogram_view {
    unsigned bits;
    uint64_t count, sum_ns, max_ns;
    uint64_t bucket[WR_FINE_BUCKETS];
};

void wr_histogram_record_fine(struct wr_histogram_fine *histogram, uint64_t value_ns);     /* single writer */
void wr_histogram_record_coarse(struct wr_histogram_coarse *histogram, uint64_t value_ns); /* single writer */
void wr_histogram_view_init(struct wr_histogram_view *view, unsigned bits);
void wr_histogram_merge_fine(struct wr_histogram_view *view, const struct wr_histogram_fine *from);
void wr_histogram_merge_coarse(struct wr_histogram_view *view, const struct wr_histogram_coarse *from);
/* In ns: the middle of the bucket, never above the maximum; the maximum itself for the last rank. 0 when empty; q is
 * clamped to [0,1]. */
uint64_t wr_histogram_quantile(const struct wr_histogram_view *view, double q);
/* All values <= bound, and of those above it at most the ones that share its bucket. */
uint64_t wr_histogram_count_below(const struct wr_histogram_view *view, uint64_t bound_ns);
/* Of edges in rising order, below[i]: how many values are less than edges[i]. Exact where an edge is a power of two or
 * one of its quarters beyond; elsewhere those that share the edge's bucket are left out. */
void wr_histogram_below(const struct wr_histogram_view *view, const uint64_t *edges, uint64_t *below,
                        unsigned count);

#endif
