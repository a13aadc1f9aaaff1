/* Sliding windows in flat shared memory. Any number of threads and processes add and sum at once without a lock.
 *
 * Every word carries the generation (and, for time, the second) it counts for beside its count, so one CAS both
 * rolls a word over and adds to it. That is why nothing ever has to be cleared, why an addition from an older
 * generation cannot land in a newer one, and why a process killed at any instruction leaves at most its own
 * call uncounted. */
#ifndef WR_WINDOW_H
#define WR_WINDOW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    WR_SLIDE_SECONDS = 60, /* the longest time window */
    WR_SLIDE_BUCKETS = 64, /* a power of two above it */
    WR_COUNT_CALLS = 4096, /* the longest count window */
    WR_COUNT_PER_WORD = 16,
    WR_COUNT_WORDS = WR_COUNT_CALLS / WR_COUNT_PER_WORD
};

/* One number per second. A bucket is [generation:14 | second:26 | count:24]; the count saturates. The second wraps
 * after two years, so an untouched bucket cannot be mistaken for a current one before that. */
struct wr_slide {
    _Atomic uint64_t bucket[WR_SLIDE_BUCKETS];
};

struct wr_counts {
    uint32_t calls, failures, slow;
};

struct wr_time_window {
    struct wr_slide calls, failures, slow;
};

/* The last n calls. A word is [generation:16 | slow:16 | failed:16 | present:16], one bit of each for 16 calls, so
 * a verdict becomes visible whole or not at all and sums need no aggregate that a killed process could falsify. */
struct wr_count_window {
    _Atomic uint64_t head; /* [generation:32 | went round:1 | next place:31] */
    _Atomic uint64_t word[WR_COUNT_WORDS];
};

/* Memory that is all zero is an empty window; generations start at 1. */

uint64_t wr_window_second(uint64_t now_ns);
void wr_slide_add(struct wr_slide *slide, uint32_t generation, uint64_t second);
void wr_slide_take_back(struct wr_slide *slide, uint32_t generation,
                        uint64_t second); /* one that was added */
/* The sum over `second` and the `seconds` - 1 before it. */
uint64_t wr_slide_sum(const struct wr_slide *slide, uint32_t generation, uint64_t second, uint32_t seconds);

void wr_time_window_add(struct wr_time_window *window, uint32_t generation, uint64_t second, bool failed,
                        bool slow);
struct wr_counts wr_time_window_sum(const struct wr_time_window *window, uint32_t generation, uint64_t second,
                                    uint32_t seconds);

/* `size` is the window's length in calls, 1 .. WR_COUNT_CALLS, the same in every call of one generation. */
void wr_count_window_add(struct wr_count_window *window, uint32_t generation, uint32_t size, bool failed,
                         bool slow);
struct wr_counts wr_count_window_sum(const struct wr_count_window *window, uint32_t generation,
                                     uint32_t size);

#endif
