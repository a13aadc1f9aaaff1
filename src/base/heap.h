/* Deadlines: a binary min-heap of timers embedded in their owners. O(log n) arm and disarm, O(1) earliest.
 * A timer that is armed twice moves. Ties fire in the order they were armed. */
#ifndef WR_HEAP_H
#define WR_HEAP_H

#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wr_timer {
    uint64_t at_ns;
    uint64_t order; /* arming order, breaks ties */
    size_t place;   /* index + 1 in the heap, 0 when not armed */
    void (*fire)(struct wr_timer *timer);
};

struct wr_heap {
    struct wr_timer **slots;
    size_t count, room;
    uint64_t armed_ever;
    const struct wr_memory *memory;
};

void wr_heap_init(struct wr_heap *heap, const struct wr_memory *memory);
void wr_heap_release(struct wr_heap *heap);             /* frees the array; timers must be disarmed */
int wr_heap_reserve(struct wr_heap *heap, size_t room); /* WEIR_OK or WEIR_ENOMEM; later arms of up to
                                                                          * `room` timers cannot fail */
int wr_heap_arm(struct wr_heap *heap, struct wr_timer *timer, uint64_t at_ns); /* WEIR_OK or WEIR_ENOMEM */
void wr_heap_disarm(struct wr_heap *heap, struct wr_timer *timer);             /* accepts an unarmed timer */
struct wr_timer *wr_heap_earliest(const struct wr_heap *heap);                 /* NULL when empty */
struct wr_timer *wr_heap_pop_due(struct wr_heap *heap, uint64_t now_ns); /* disarmed; NULL when none is due */
static inline bool wr_timer_armed(const struct wr_timer *timer)
{
    return timer->place != 0;
}

#endif
