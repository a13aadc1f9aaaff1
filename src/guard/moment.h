/* Moments in flat shared memory, and the arithmetic of time every guard needs. */
#ifndef WR_MOMENT_H
#define WR_MOMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define WR_NEVER UINT64_MAX

static inline uint64_t wr_add_saturating(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static inline uint64_t wr_time_until(uint64_t at_ns, uint64_t now_ns)
{
    return at_ns > now_ns ? at_ns - now_ns : 0;
}

/* Sets a deadline that belongs to a CAS about to be tried on `word` (which held `seen`), so that whoever sees the new
 * word finds its deadline in place, and a process killed in between leaves none without. The order (load the
 * moment, look at the word, CAS the moment) is what keeps a stalled writer from giving an old deadline to a
 * later state: if the word had moved on it gives up, and if it moves on afterwards the next writer's CAS
 * makes this one fail. Rivals for the same move may replace each other's value; theirs are as good.
 * False: the word has moved on. */
static inline bool wr_moment_publish(_Atomic uint64_t *moment, uint64_t at_ns, const _Atomic uint64_t *word,
                                     uint64_t seen)
{
    uint64_t found;
    do {
        found = atomic_load(moment);
        if (atomic_load(word) != seen) return false;
    } while (!atomic_compare_exchange_weak(moment, &found, at_ns));
    return true;
}

#endif
