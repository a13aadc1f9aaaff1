/* The deadline heap. Every timer knows its place, so moving or disarming one does not search. */
#include "base/heap.h"

#include "base/check.h"
#include "weir/guard.h"

enum { FIRST_ROOM = 16 };

static bool sooner(const struct wr_timer *a, const struct wr_timer *b)
{
    if (a->at_ns != b->at_ns) return a->at_ns < b->at_ns;
    return a->order < b->order;
}

static void put(struct wr_heap *heap, size_t index, struct wr_timer *timer)
{
    heap->slots[index] = timer;
    timer->place = index + 1;
}

static void sift_up(struct wr_heap *heap, size_t index, struct wr_timer *timer)
{
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (!sooner(timer, heap->slots[parent])) break;
        put(heap, index, heap->slots[parent]);
        index = parent;
    }
    put(heap, index, timer);
}

static void sift_down(struct wr_heap *heap, size_t index, struct wr_timer *timer)
{
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= heap->count) break;
        if (child + 1 < heap->count && sooner(heap->slots[child + 1], heap->slots[child])) child++;
        if (!sooner(heap->slots[child], timer)) break;
        put(heap, index, heap->slots[child]);
        index = child;
    }
    put(heap, index, timer);
}

/* Places `timer` where `index` has become free: it may belong above or below. */
static void settle_at(struct wr_heap *heap, size_t index, struct wr_timer *timer)
{
    if (index > 0 && sooner(timer, heap->slots[(index - 1) / 2])) {
        sift_up(heap, index, timer);
    } else {
        sift_down(heap, index, timer);
    }
}

void wr_heap_init(struct wr_heap *heap, const struct wr_memory *memory)
{
    *heap = (struct wr_heap){.memory = memory};
}

void wr_heap_release(struct wr_heap *heap)
{
    WR_CHECK(heap->count == 0);
    wr_free(heap->memory, heap->slots);
    heap->slots = NULL;
    heap->room = 0;
}

int wr_heap_reserve(struct wr_heap *heap, size_t room)
{
    if (room <= heap->room) return WEIR_OK;
    if (room > SIZE_MAX / sizeof(struct wr_timer *)) return WEIR_ENOMEM;
    struct wr_timer **wider = wr_resize(heap->memory, heap->slots, room * sizeof(struct wr_timer *));
    if (wider == NULL) return WEIR_ENOMEM;
    heap->slots = wider;
    heap->room = room;
    return WEIR_OK;
}

int wr_heap_arm(struct wr_heap *heap, struct wr_timer *timer, uint64_t at_ns)
{
    bool moving = wr_timer_armed(timer);
    if (!moving && heap->count == heap->room) {
        int code = wr_heap_reserve(heap, heap->room == 0 ? FIRST_ROOM : heap->room * 2);
        if (code != WEIR_OK) return code;
    }
    timer->at_ns = at_ns;
    timer->order = heap->armed_ever++;
    if (moving) {
        settle_at(heap, timer->place - 1, timer);
    } else {
        sift_up(heap, heap->count++, timer);
    }
    return WEIR_OK;
}

void wr_heap_disarm(struct wr_heap *heap, struct wr_timer *timer)
{
    if (!wr_timer_armed(timer)) return;
    size_t index = timer->place - 1;
    WR_CHECK(index < heap->count && heap->slots[index] == timer);
    timer->place = 0;
    struct wr_timer *last = heap->slots[--heap->count];
    if (last != timer) settle_at(heap, index, last);
}

struct wr_timer *wr_heap_earliest(const struct wr_heap *heap)
{
    return heap->count == 0 ? NULL : heap->slots[0];
}

struct wr_timer *wr_heap_pop_due(struct wr_heap *heap, uint64_t now_ns)
{
    struct wr_timer *timer = wr_heap_earliest(heap);
    if (timer == NULL || timer->at_ns > now_ns) return NULL;
    wr_heap_disarm(heap, timer);
    return timer;
}
