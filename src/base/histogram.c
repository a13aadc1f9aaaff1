/* Bucket arithmetic. Below 1024 ns buckets are linear, 1024 >> bits wide; from there each octave has
 * 1 << bits buckets, up to 2^42 ns (73 minutes); the last bucket takes the rest. So 1 us with 6 bits falls in
 * a bucket of 16 ns, and no midpoint is further than half a bucket, 1/128 of the value, away. */
#include "base/histogram.h"

#include "base/check.h"

#include <string.h>

enum { LINEAR_BITS = 10, TOP_BITS = 42 };

static inline unsigned bucket_count(unsigned bits)
{
    return ((TOP_BITS - LINEAR_BITS + 1u) << bits) + 1u;
}

static inline unsigned bucket_of(uint64_t value, unsigned bits)
{
    if (value < (UINT64_C(1) << LINEAR_BITS)) return (unsigned)(value >> (LINEAR_BITS - bits));
    if (value >= (UINT64_C(1) << TOP_BITS)) return bucket_count(bits) - 1;
    unsigned octave = 63u - (unsigned)__builtin_clzll(value);
    unsigned within = (unsigned)(value >> (octave - bits)) - (1u << bits);
    return ((octave - LINEAR_BITS + 1) << bits) + within;
}

/* Lowest value of a bucket; of the last but one's successor, the top. */
static uint64_t bucket_floor(unsigned bucket, unsigned bits)
{
    unsigned octave = bucket >> bits; /* 0 is the linear part */
    uint64_t within = bucket & ((1u << bits) - 1);
    if (octave == 0) return within << (LINEAR_BITS - bits);
    return ((UINT64_C(1) << bits) + within) << (octave - 1 + LINEAR_BITS - bits);
}

static uint64_t bucket_middle(unsigned bucket, unsigned bits)
{
    uint64_t low = bucket_floor(bucket, bits), next = bucket_floor(bucket + 1, bits);
    return low + (next - low) / 2;
}

/* One writer: a load and a store each, no locked instruction. The bucket comes before the sums, as it is the
 * bucket that readers count. */
static inline void bump(_Atomic uint64_t *number, uint64_t by)
{
    uint64_t old = atomic_load_explicit(number, memory_order_relaxed);
    atomic_store_explicit(number, old + by, memory_order_relaxed);
}

static inline void raise_max(_Atomic uint64_t *max, uint64_t value)
{
    if (value > atomic_load_explicit(max, memory_order_relaxed)) {
        atomic_store_explicit(max, value, memory_order_relaxed);
    }
}

void wr_histogram_record_fine(struct wr_histogram_fine *histogram, uint64_t value_ns)
{
    raise_max(&histogram->max_ns, value_ns);
    bump(&histogram->bucket[bucket_of(value_ns, WR_FINE_BITS)], 1);
    bump(&histogram->count, 1);
    bump(&histogram->sum_ns, value_ns);
}

void wr_histogram_record_coarse(struct wr_histogram_coarse *histogram, uint64_t value_ns)
{
    raise_max(&histogram->max_ns, value_ns);
    bump(&histogram->bucket[bucket_of(value_ns, WR_COARSE_BITS)], 1);
    bump(&histogram->count, 1);
    bump(&histogram->sum_ns, value_ns);
}

void wr_histogram_view_init(struct wr_histogram_view *view, unsigned bits)
{
    WR_CHECK(bits == WR_FINE_BITS || bits == WR_COARSE_BITS);
    view->bits = bits;
    view->count = view->sum_ns = view->max_ns = 0;
    memset(view->bucket, 0,
           bucket_count(bits) * sizeof *view->bucket); /* of a coarse one the rest is never looked at */
}

/* The view's count is what its buckets hold: a writer may be between the bucket and its own count, or dead
 * there, and a quantile must still find its rank. The maximum is raised first, so behind its bucket there is nothing but
 * what came after we looked. */
static void merge(struct wr_histogram_view *view, const _Atomic uint64_t *bucket,
                  const _Atomic uint64_t *sum_ns, const _Atomic uint64_t *max_ns)
{
    uint64_t max = atomic_load_explicit(max_ns, memory_order_relaxed);
    if (max > view->max_ns) view->max_ns = max;
    for (unsigned i = 0, last = bucket_of(max, view->bits); i <= last; i++) {
        uint64_t n = atomic_load_explicit(&bucket[i], memory_order_relaxed);
        view->bucket[i] += n;
        view->count += n;
    }
    view->sum_ns += atomic_load_explicit(sum_ns, memory_order_relaxed);
}

void wr_histogram_merge_fine(struct wr_histogram_view *view, const struct wr_histogram_fine *from)
{
    WR_CHECK(view->bits == WR_FINE_BITS);
    merge(view, from->bucket, &from->sum_ns, &from->max_ns);
}

void wr_histogram_merge_coarse(struct wr_histogram_view *view, const struct wr_histogram_coarse *from)
{
    WR_CHECK(view->bits == WR_COARSE_BITS);
    merge(view, from->bucket, &from->sum_ns, &from->max_ns);
}

/* The smallest rank r, 1 .. count, with r >= q * count. NaN counts as 0. */
static uint64_t rank_of(double q, uint64_t count)
{
    if (!(q > 0)) return 1;
    if (q >= 1) return count;
    double exact = q * (double)count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact) rank++;
    if (rank < 1) return 1;
    return rank < count ? rank : count;
}

uint64_t wr_histogram_quantile(const struct wr_histogram_view *view, double q)
{
    if (view->count == 0) return 0;
    uint64_t rank = rank_of(q, view->count);
    if (rank == view->count) return view->max_ns; /* the one value that is known exactly */
    unsigned last = bucket_count(view->bits) - 1, bucket = 0;
    uint64_t seen = view->bucket[0];
    while (seen < rank && bucket < last) seen += view->bucket[++bucket];
    if (bucket == last) return view->max_ns;
    uint64_t middle = bucket_middle(bucket, view->bits);
    return middle < view->max_ns ? middle : view->max_ns;
}

/* Every value <= bound is counted, and of those above it at most the ones that share its bucket. */
uint64_t wr_histogram_count_below(const struct wr_histogram_view *view, uint64_t bound_ns)
{
    uint64_t total = 0;
    unsigned last = bucket_of(bound_ns, view->bits);
    for (unsigned i = 0; i <= last; i++) total += view->bucket[i];
    return total;
}

void wr_histogram_below(const struct wr_histogram_view *view, const uint64_t *edges, uint64_t *below,
                        unsigned count)
{
    uint64_t total = 0;
    unsigned bucket = 0;
    for (unsigned i = 0; i < count; i++) {
        for (unsigned end = bucket_of(edges[i], view->bits); bucket < end; bucket++)
            total += view->bucket[bucket];
        below[i] = total;
    }
}
