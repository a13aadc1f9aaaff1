/* The event log: one ring that all workers write. A ticket is an event's sequence number; the cell it falls
 * on is its writer's until somebody with a later ticket, a whole lap on, takes it. A writer killed half-way
 * so costs one event until the next lap. One that merely slept for a lap may wake up and spill old words into
 * a newer event: the checksum, which covers the sequence too, makes readers skip that. */
#include "area/layout.h"

#include "base/text.h"

#include <stddef.h>

static struct wr_event_cell *cell_of(const struct wr_area *area, uint64_t ticket)
{
    struct wr_event_cell *ring = (struct wr_event_cell *)(void *)(area->base + area->at.events);
    return ring + ((ticket - 1) & (area->shape.events - 1));
}

static uint64_t writing(uint64_t ticket)
{
    return ticket * 2 - 1;
}

static uint64_t written(uint64_t ticket)
{
    return ticket * 2;
}

static uint64_t checksum_of(const struct wr_event *event)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325), word;
    for (size_t i = 0; i < WR_EVENT_WORDS; i++) {
        memcpy(&word, (const char *)event + i * sizeof word, sizeof word);
        sum = (sum ^ word) * UINT64_C(0x100000001b3);
        sum ^= sum >> 32; /* a multiplication alone never moves a high bit down */
    }
    return sum;
}

/* False if a later lap has the cell already: the event is lost, as any that the ring has passed. */
static bool take_cell(struct wr_event_cell *cell, uint64_t ticket)
{
    uint64_t turn = atomic_load(&cell->turn);
    do {
        if (turn >= writing(ticket)) return false;
    } while (!atomic_compare_exchange_weak(&cell->turn, &turn, writing(ticket)));
    return true;
}

static void put(struct wr_area *area, const struct wr_event *event)
{
    uint64_t ticket = event->sequence;
    struct wr_event_cell *cell = cell_of(area, ticket);
    if (!take_cell(cell, ticket)) return;
    wr_words_put(cell->word, event, WR_EVENT_WORDS);
    atomic_store_explicit(&cell->checksum, checksum_of(event), memory_order_release);
    uint64_t turn = writing(ticket);
    atomic_compare_exchange_strong(&cell->turn, &turn, written(ticket));
}

void wr_event_put_back(struct wr_area *area, const struct wr_event *event)
{
    atomic_store(&wr_shared_of(area)->events_begun, event->sequence);
    put(area, event);
}

void wr_event_add(struct wr_area *area, enum wr_event_kind kind, uint32_t pool, uint64_t at_us,
                  const char *text)
{
    uint64_t ticket = atomic_fetch_add(&wr_shared_of(area)->events_begun, 1) + 1;
    struct wr_event event;
    memset(&event, 0, sizeof event); /* no stray bytes of our stack in a shared file */
    event.sequence = ticket;
    event.at_us = at_us;
    event.kind = (uint32_t)kind;
    event.pool = pool;
    event.worker = area->worker;
    wr_text_copy(event.text, sizeof event.text, text);
    put(area, &event);
}

static bool read_cell(const struct wr_event_cell *cell, uint64_t ticket, struct wr_event *event)
{
    if (atomic_load_explicit(&cell->turn, memory_order_acquire) != written(ticket)) return false;
    wr_words_get(event, cell->word, WR_EVENT_WORDS);
    uint64_t checksum = atomic_load_explicit(&cell->checksum, memory_order_acquire);
    if (atomic_load_explicit(&cell->turn, memory_order_relaxed) != written(ticket)) return false;
    if (event->sequence != ticket || checksum != checksum_of(event)) return false;
    event->text[sizeof event->text - 1] = '\0';
    return true;
}

static void reverse(struct wr_event *events, size_t count)
{
    for (size_t i = 0; i < count / 2; i++) {
        struct wr_event held = events[i];
        events[i] = events[count - 1 - i];
        events[count - 1 - i] = held;
    }
}

/* Walks back from the newest, so that a full `out` holds the newest ones. */
size_t wr_event_read(const struct wr_area *area, uint64_t after, struct wr_event *out, size_t room)
{
    uint64_t last = atomic_load(&wr_shared_of(area)->events_begun);
    uint64_t kept = last < area->shape.events ? last : area->shape.events;
    size_t count = 0;
    for (uint64_t back = 0; back < kept && last - back > after && count < room; back++) {
        if (read_cell(cell_of(area, last - back), last - back, &out[count])) count++;
    }
    reverse(out, count);
    return count;
}

const char *wr_event_kind_name(uint32_t kind)
{
    static const char *const names[] = {
        [WR_EVENT_BREAKER] = "breaker",   [WR_EVENT_POLICY] = "policy",     [WR_EVENT_CONNECT] = "connect",
        [WR_EVENT_LEAK] = "leak",         [WR_EVENT_IDENTITY] = "identity", [WR_EVENT_UNKNOWN] = "unknown",
        [WR_EVENT_AREA] = "area",         [WR_EVENT_ENGINE] = "engine",     [WR_EVENT_HEALTH] = "health",
        [WR_EVENT_OPERATOR] = "operator",
    };
    if (kind >= sizeof names / sizeof names[0] || names[kind] == NULL) return "?";
    return names[kind];
}
