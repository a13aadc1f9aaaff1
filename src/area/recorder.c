/* The flight recorder: one ring per worker slot, written by its owner alone. */
#include "area/layout.h"

enum { SEQUENCE_BITS = 40 };

static struct wr_call_cell *cell_of(const struct wr_area *area, uint32_t worker, uint64_t number)
{
    char *ring = wr_worker_part(area, worker) + area->at.recorder;
    return (struct wr_call_cell *)(void *)ring + (number & (area->shape.calls - 1));
}

/* The next odd turn, also over a cell that a killed writer left odd. */
static uint64_t writing_turn(uint64_t turn)
{
    return (turn + 1) | 1;
}

void wr_recorder_add(struct wr_area *area, const struct wr_recorded_call *call)
{
    struct wr_slot *slot = wr_slot_of(area, area->worker);
    uint64_t number = atomic_load_explicit(&slot->calls_recorded, memory_order_relaxed);
    struct wr_recorded_call copy = *call;
    copy.worker = area->worker;
    if (copy.id == 0) {
        uint64_t sequence = (number + 1) & ((UINT64_C(1) << SEQUENCE_BITS) - 1);
        copy.id = (uint64_t)area->worker << SEQUENCE_BITS | sequence;
    }
    struct wr_call_cell *cell = cell_of(area, area->worker, number);
    uint64_t turn = writing_turn(atomic_load_explicit(&cell->turn, memory_order_relaxed));
    atomic_store_explicit(&cell->turn, turn, memory_order_relaxed);
    wr_words_put(cell->word, &copy, WR_CALL_WORDS);
    atomic_store_explicit(&cell->turn, turn + 1, memory_order_release);
    atomic_store_explicit(&slot->calls_recorded, number + 1, memory_order_release);
}

/* False for a cell that is being written, was overwritten while we read, or never was written. Texts are
 * ended here, as a damaged file need not end them. */
static bool read_cell(const struct wr_call_cell *cell, struct wr_recorded_call *call)
{
    uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
    if (turn == 0 || (turn & 1) != 0) return false;
    wr_words_get(call, cell->word, WR_CALL_WORDS);
    if (atomic_load_explicit(&cell->turn, memory_order_relaxed) != turn) return false;
    call->sqlstate[sizeof call->sqlstate - 1] = '\0';
    call->context[sizeof call->context - 1] = '\0';
    call->traceparent[sizeof call->traceparent - 1] = '\0';
    for (int i = 0; i < WR_RECORD_ATTEMPTS; i++) {
        call->attempt[i].sqlstate[sizeof call->attempt[i].sqlstate - 1] = '\0';
    }
    return true;
}

uint64_t wr_recorder_count(const struct wr_area *area, uint32_t worker)
{
    return atomic_load_explicit(&wr_slot_of(area, worker)->calls_recorded, memory_order_acquire);
}

/* Whoever overwrites the cell meanwhile has raised the count by then. */
bool wr_recorder_get(const struct wr_area *area, uint32_t worker, uint64_t number,
                     struct wr_recorded_call *out)
{
    if (!read_cell(cell_of(area, worker, number - 1), out)) return false;
    uint64_t recorded = wr_recorder_count(area, worker);
    return number <= recorded && recorded - number < area->shape.calls;
}

/* ---- the newest of all ---- */

static bool is_older(const struct wr_recorded_call *a, const struct wr_recorded_call *b)
{
    return a->started_us != b->started_us ? a->started_us < b->started_us : a->id < b->id;
}

static void swap(struct wr_recorded_call *a, struct wr_recorded_call *b)
{
    struct wr_recorded_call held = *a;
    *a = *b;
    *b = held;
}

/* `heap` keeps its oldest call at the top. */
static void sift_down(struct wr_recorded_call *heap, size_t count, size_t at)
{
    for (;;) {
        size_t oldest = at, left = 2 * at + 1, right = left + 1;
        if (left < count && is_older(&heap[left], &heap[oldest])) oldest = left;
        if (right < count && is_older(&heap[right], &heap[oldest])) oldest = right;
        if (oldest == at) return;
        swap(&heap[at], &heap[oldest]);
        at = oldest;
    }
}

static void sift_up(struct wr_recorded_call *heap, size_t at)
{
    while (at > 0 && is_older(&heap[at], &heap[(at - 1) / 2])) {
        swap(&heap[at], &heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

static size_t offer(struct wr_recorded_call *heap, size_t count, size_t room,
                    const struct wr_recorded_call *call)
{
    if (count < room) {
        heap[count] = *call;
        sift_up(heap, count);
        return count + 1;
    }
    if (is_older(&heap[0], call)) {
        heap[0] = *call;
        sift_down(heap, count, 0);
    }
    return count;
}

static size_t offer_all_of(const struct wr_area *area, uint32_t worker, struct wr_recorded_call *heap,
                           size_t count, size_t room)
{
    uint64_t recorded = atomic_load_explicit(&wr_slot_of(area, worker)->calls_recorded, memory_order_acquire);
    uint64_t kept = recorded < area->shape.calls ? recorded : area->shape.calls;
    for (uint64_t back = 1; back <= kept; back++) {
        struct wr_recorded_call call;
        if (read_cell(cell_of(area, worker, recorded - back), &call)) count = offer(heap, count, room, &call);
    }
    return count;
}

size_t wr_recorder_read(const struct wr_area *area, struct wr_recorded_call *out, size_t room)
{
    size_t count = 0;
    if (room == 0) return 0;
    for (uint32_t worker = 1; worker <= wr_slots_used(area); worker++) {
        count = offer_all_of(area, worker, out, count, room);
    }
    for (size_t left = count; left > 1; left--) { /* the oldest goes last, again and again: newest first */
        swap(&out[0], &out[left - 1]);
        sift_down(out, left - 1, 0);
    }
    return count;
}
