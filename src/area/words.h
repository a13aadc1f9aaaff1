/* Records that are copied into and out of shared memory word by word.
 *
 * By atomic words, so that a reader who meets a writer reads rubbish that it then throws away, but no data race. Release
 * and acquire on the words take the place of fences, which the thread sanitizer does not understand: a reader that sees
 * one new word also sees the odd turn before it. */
#ifndef WR_WORDS_H
#define WR_WORDS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void wr_words_put(_Atomic uint64_t *to, const void *from, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, (const char *)from + i * sizeof word, sizeof word);
        atomic_store_explicit(&to[i], word, memory_order_release);
    }
}

static inline void wr_words_get(void *to, const _Atomic uint64_t *from, size_t words)
{
    for (size_t i = 0; i < words; i++) {
        uint64_t word = atomic_load_explicit(&from[i], memory_order_acquire);
        memcpy((char *)to + i * sizeof word, &word, sizeof word);
    }
}

/* A sheet: a record with one writer, which puts the whole of it each time. `turn` is odd while that goes on; 0 means that
 * it was never put. A writer that was killed in the middle leaves it odd, and the next one goes on from there. */
static inline void wr_sheet_put(_Atomic uint64_t *turn, _Atomic uint64_t *to, const void *from, size_t words)
{
    uint64_t odd = (atomic_load_explicit(turn, memory_order_relaxed) + 1) | 1;
    atomic_store_explicit(turn, odd, memory_order_relaxed);
    wr_words_put(to, from, words);
    atomic_store_explicit(turn, odd + 1, memory_order_release);
}

/* False: there is none, or its writer died, or did not let us finish in a few tries. */
static inline bool wr_sheet_get(const _Atomic uint64_t *turn, void *to, const _Atomic uint64_t *from,
                                size_t words)
{
    enum { TRIES = 64 };
    for (int i = 0; i < TRIES; i++) {
        uint64_t before = atomic_load_explicit(turn, memory_order_acquire);
        if (before == 0) return false;
        if ((before & 1) != 0) continue;
        wr_words_get(to, from, words);
        if (atomic_load_explicit(turn, memory_order_relaxed) == before) return true;
    }
    return false;
}

#endif
