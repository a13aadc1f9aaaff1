/* The sliding windows of breaker and budget. Relaxed atomics suffice: each word stands for itself, and a guard that
 * decides adds its own call before it sums, so of several that cross a threshold at once the last one sees all. */
#include "guard/window.h"

#define NS_PER_SECOND 1000000000u

/* ---- one number per second ---- */

enum { COUNT_BITS = 24, SECOND_BITS = 26, GENERATION_BITS = 14 };

#define COUNT_MASK      ((UINT64_C(1) << COUNT_BITS) - 1)
#define SECOND_MASK     ((UINT64_C(1) << SECOND_BITS) - 1)
#define GENERATION_MASK ((UINT64_C(1) << GENERATION_BITS) - 1)

/* The bucket of this generation and second with nothing in it. */
static uint64_t empty_bucket(uint32_t generation, uint64_t second)
{
    return ((generation & GENERATION_MASK) << (COUNT_BITS + SECOND_BITS)) |
           ((second & SECOND_MASK) << COUNT_BITS);
}

/* Whether `a` comes after `b` in a number of `bits` bits that wraps. */
static bool later(uint64_t a, uint64_t b, int bits)
{
    uint64_t ahead = (a - b) & ((UINT64_C(1) << bits) - 1);
    return ahead != 0 && ahead < UINT64_C(1) << (bits - 1);
}

/* Whether what stands in a bucket is newer than `ours`: then it was rolled on while we were on our way. The second
 * decides, and the generation only within one second: generations come and go while a breaker does not count, so
 * a bucket left alone can be any number of them behind. */
static bool rolled_on(uint64_t found, uint64_t ours)
{
    uint64_t theirs = found >> COUNT_BITS & SECOND_MASK, mine = ours >> COUNT_BITS & SECOND_MASK;
    if (theirs != mine) return later(theirs, mine, SECOND_BITS);
    return later(found >> (COUNT_BITS + SECOND_BITS), ours >> (COUNT_BITS + SECOND_BITS), GENERATION_BITS);
}

uint64_t wr_window_second(uint64_t now_ns)
{
    return now_ns / NS_PER_SECOND;
}

void wr_slide_add(struct wr_slide *slide, uint32_t generation, uint64_t second)
{
    _Atomic uint64_t *bucket = &slide->bucket[second % WR_SLIDE_BUCKETS];
    uint64_t fresh = empty_bucket(generation, second);
    uint64_t found = atomic_load_explicit(bucket, memory_order_relaxed);
    uint64_t next;
    do {
        if ((found ^ fresh) <= COUNT_MASK) {
            if ((found & COUNT_MASK) == COUNT_MASK) return;
            next = found + 1;
        } else {
            if (found != 0 && rolled_on(found, fresh)) return;
            next = fresh + 1;
        }
    } while (!atomic_compare_exchange_weak_explicit(bucket, &found, next, memory_order_relaxed,
                                                    memory_order_relaxed));
}

void wr_slide_take_back(struct wr_slide *slide, uint32_t generation, uint64_t second)
{
    _Atomic uint64_t *bucket = &slide->bucket[second % WR_SLIDE_BUCKETS];
    uint64_t fresh = empty_bucket(generation, second);
    uint64_t found = atomic_load_explicit(bucket, memory_order_relaxed);
    do {
        if ((found ^ fresh) > COUNT_MASK || found == fresh) return;
    } while (!atomic_compare_exchange_weak_explicit(bucket, &found, found - 1, memory_order_relaxed,
                                                    memory_order_relaxed));
}

uint64_t wr_slide_sum(const struct wr_slide *slide, uint32_t generation, uint64_t second, uint32_t seconds)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < seconds; i++) {
        uint64_t at = second - i;
        uint64_t found = atomic_load_explicit(&slide->bucket[at % WR_SLIDE_BUCKETS], memory_order_relaxed);
        uint64_t above = found ^ empty_bucket(generation, at);
        if (above <= COUNT_MASK) sum += above;
    }
    return sum;
}

/* ---- the window over time ---- */

void wr_time_window_add(struct wr_time_window *window, uint32_t generation, uint64_t second, bool failed,
                        bool slow)
{
    /* The call first: a reader in between sees too low a rate for a moment, never one above 1. */
    wr_slide_add(&window->calls, generation, second);
    if (failed) wr_slide_add(&window->failures, generation, second);
    if (slow) wr_slide_add(&window->slow, generation, second);
}

static uint32_t clamp32(uint64_t n)
{
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* A reader may be stopped here for so long that its seconds leave the ring, and then see failures of which it no longer
 * finds the calls. Within its seconds calls only grow, so if they shrank its reading is void: it counts nothing
 * rather than judging by a rate that never was. */
struct wr_counts wr_time_window_sum(const struct wr_time_window *window, uint32_t generation, uint64_t second,
                                    uint32_t seconds)
{
    uint64_t calls_before = wr_slide_sum(&window->calls, generation, second, seconds);
    uint64_t slow = wr_slide_sum(&window->slow, generation, second, seconds);
    uint64_t failures = wr_slide_sum(&window->failures, generation, second, seconds);
    uint64_t calls = wr_slide_sum(&window->calls, generation, second, seconds);
    if (calls < calls_before) return (struct wr_counts){0};
    return (struct wr_counts){.calls = clamp32(calls), .failures = clamp32(failures), .slow = clamp32(slow)};
}

/* ---- the window over the last n calls ---- */

enum { TAG_SHIFT = 48 };

#define LANES      UINT64_C(0x0000ffffffffffff)
#define WENT_ROUND UINT64_C(0x80000000)
#define PLACE_MASK UINT64_C(0x7fffffff)

static uint64_t claim_place(struct wr_count_window *window, uint32_t generation, uint32_t size, bool *late)
{
    uint64_t found = atomic_load_explicit(&window->head, memory_order_relaxed);
    uint64_t place, next;
    do {
        uint32_t theirs = (uint32_t)(found >> 32);
        *late = theirs != generation && found != 0 && later(theirs, generation, 32);
        if (*late) return 0;
        place = theirs == generation ? (found & PLACE_MASK) % size : 0;
        uint64_t round = theirs == generation ? found & WENT_ROUND : 0;
        next = (uint64_t)generation << 32 | (place + 1 < size ? round | (place + 1) : WENT_ROUND);
    } while (!atomic_compare_exchange_weak_explicit(&window->head, &found, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return place;
}

static bool is_current(const struct wr_count_window *window, uint32_t generation)
{
    return atomic_load(&window->head) >> 32 == generation;
}

void wr_count_window_add(struct wr_count_window *window, uint32_t generation, uint32_t size, bool failed,
                         bool slow)
{
    bool late;
    uint64_t place = claim_place(window, generation, size, &late);
    if (late) return;
    _Atomic uint64_t *word = &window->word[place / WR_COUNT_PER_WORD];
    unsigned bit = (unsigned)(place % WR_COUNT_PER_WORD);
    uint64_t verdict = (UINT64_C(1) | (uint64_t)failed << 16 | (uint64_t)slow << 32) << bit;
    uint64_t others = LANES & ~(UINT64_C(0x000100010001) << bit);
    uint64_t tag = (uint64_t)(generation & 0xffffu) << TAG_SHIFT;
    uint64_t found = atomic_load(word);
    uint64_t next;
    do {
        /* A word of another generation is an older one's, as long as the head is still ours after it was loaded. */
        bool ours = (found & ~LANES) == tag;
        if (!ours && !is_current(window, generation)) return;
        next = tag | verdict | (ours ? found & others : 0);
    } while (!atomic_compare_exchange_weak_explicit(word, &found, next, memory_order_relaxed,
                                                    memory_order_relaxed));
}

/* Counts the bits of each 16-bit lane by itself. */
static uint64_t bits_per_lane(uint64_t x)
{
    x -= x >> 1 & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + (x >> 2 & UINT64_C(0x3333333333333333));
    x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (x + (x >> 8)) & UINT64_C(0x00ff00ff00ff00ff);
}

/* How many places this generation has claimed. What lies beyond may be so old that its 16-bit tag has come round. */
static uint32_t places_in_use(const struct wr_count_window *window, uint32_t generation, uint32_t size)
{
    uint64_t head = atomic_load_explicit(&window->head, memory_order_relaxed);
    if (head >> 32 != generation) return 0;
    uint32_t places = head & WENT_ROUND ? size : (uint32_t)(head & PLACE_MASK);
    return places < size ? places : size;
}

/* The bits of the first `places` calls of a word. */
static uint64_t lanes_of(uint32_t places)
{
    uint64_t lane = places < WR_COUNT_PER_WORD ? (UINT64_C(1) << places) - 1 : 0xffff;
    return lane | lane << 16 | lane << 32;
}

struct wr_counts wr_count_window_sum(const struct wr_count_window *window, uint32_t generation, uint32_t size)
{
    uint64_t tag = generation & 0xffffu, sums = 0;
    uint32_t places = places_in_use(window, generation, size);
    for (uint32_t at = 0; at < places; at += WR_COUNT_PER_WORD) {
        uint64_t found = atomic_load_explicit(&window->word[at / WR_COUNT_PER_WORD], memory_order_relaxed);
        /* 256 words of 16 calls fit a lane of the sum. */
        if (found >> TAG_SHIFT == tag) sums += bits_per_lane(found & lanes_of(places - at));
    }
    return (struct wr_counts){.calls = (uint32_t)(sums & 0xffff),
                              .failures = (uint32_t)(sums >> 16 & 0xffff),
                              .slow = (uint32_t)(sums >> 32 & 0xffff)};
}
