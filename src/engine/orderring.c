/* The ring of orders and the workers' words on them; see order.h. A cell is its writer's until somebody with a later ticket,
 * a whole lap on, takes it; as in the event log the checksum tells a mixture of two. */
#include "engine/order.h"

#include "base/text.h"
#include "engine/sight.h"

static struct wr_order_ring *ring_of(const struct wr_area *area)
{
    return wr_area_common(area);
}

size_t wr_order_bytes(void)
{
    return sizeof(struct wr_order_ring);
}

uint64_t wr_order_newest(const struct wr_area *area)
{
    return atomic_load(&ring_of(area)->begun);
}

static struct wr_order_cell *cell_of(struct wr_order_ring *ring, uint64_t ticket)
{
    return &ring->cell[ticket % WR_ORDERS];
}

static uint64_t checksum_of(const struct wr_order *order)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325), word;
    for (size_t i = 0; i < WR_ORDER_WORDS; i++) {
        memcpy(&word, (const char *)order + i * sizeof word, sizeof word);
        sum = (sum ^ word) * UINT64_C(0x100000001b3);
        sum ^= sum >> 32;
    }
    return sum;
}

/* ---- giving ---------------------------------------------------------------------------------------------------- */

static bool take_cell(struct wr_order_cell *cell, uint64_t ticket)
{
    uint64_t turn = atomic_load(&cell->turn);
    do {
        if (turn >= ticket * 2 - 1) return false;
    } while (!atomic_compare_exchange_weak(&cell->turn, &turn, ticket * 2 - 1));
    return true;
}

void wr_order_put(struct wr_area *area, struct wr_order *order)
{
    struct wr_order_ring *ring = ring_of(area);
    uint64_t ticket = atomic_fetch_add(&ring->begun, 1) + 1;
    struct wr_order_cell *cell = cell_of(ring, ticket);
    order->ticket = ticket;
    if (!take_cell(cell, ticket)) return;
    wr_words_put(cell->word, order, WR_ORDER_WORDS);
    atomic_store_explicit(&cell->checksum, checksum_of(order), memory_order_release);
    uint64_t turn = ticket * 2 - 1;
    atomic_compare_exchange_strong(&cell->turn, &turn, ticket * 2);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

enum wr_order_found wr_order_get(const struct wr_area *area, uint64_t ticket, struct wr_order *out)
{
    const struct wr_order_cell *cell = cell_of(ring_of(area), ticket);
    uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
    if (turn > ticket * 2) return WR_ORDER_LOST;
    if (turn < ticket * 2) return WR_ORDER_COMES;
    wr_words_get(out, cell->word, WR_ORDER_WORDS);
    uint64_t checksum = atomic_load_explicit(&cell->checksum, memory_order_acquire);
    if (atomic_load_explicit(&cell->turn, memory_order_relaxed) != turn) return WR_ORDER_LOST;
    if (out->ticket != ticket || checksum != checksum_of(out)) return WR_ORDER_LOST;
    out->user[sizeof out->user - 1] = out->reason[sizeof out->reason - 1] = '\0';
    return WR_ORDER_THERE;
}

/* ---- a worker's word ------------------------------------------------------------------------------------------- */

static void put_why(struct wr_ack *ack, const char *why)
{
    char text[WR_ACK_WHY] = "";
    wr_text_copy(text, sizeof text, why);
    wr_words_put(ack->why, text, sizeof text / 8);
}

void wr_order_ack(struct wr_area *area, uint64_t ticket, enum wr_verdict verdict, const char *why)
{
    struct wr_worker_record *record = wr_area_worker_record(area, wr_area_worker(area));
    struct wr_ack *ack = &record->ack[ticket % WR_ACKS];
    atomic_store(&ack->verdict, 0);
    put_why(ack, why);
    atomic_store(&ack->verdict, ticket << 2 | (uint64_t)verdict);
}

static void add_word_of(const struct wr_worker_record *record, uint64_t ticket, weir_order_progress *out)
{
    const struct wr_ack *ack = &record->ack[ticket % WR_ACKS];
    uint64_t verdict = atomic_load(&ack->verdict);
    out->workers++;
    if (verdict >> 2 != ticket) return;
    if ((verdict & 3) == WR_VERDICT_DONE) out->done++;
    if ((verdict & 3) != WR_VERDICT_REFUSED) return;
    out->refused++;
    char text[WR_ACK_WHY];
    wr_words_get(text, ack->why, sizeof text / 8);
    text[sizeof text - 1] = '\0';
    wr_text_copy(out->why, sizeof out->why, text);
}

void weir_area_progress(weir_area *area, uint64_t ticket, weir_order_progress *out)
{
    const struct wr_area *file = area->area;
    uint64_t newest = wr_order_newest(file);
    memset(out, 0, sizeof *out);
    if (ticket == 0 || ticket > newest || newest - ticket >= WR_ORDERS) return;
    for (uint32_t worker = 1; worker <= wr_area_workers_used(file); worker++) {
        const struct wr_worker_record *record = wr_area_worker_record(file, worker);
        if (!wr_area_worker_alive(file, worker) || atomic_load(&record->orders_from) >= ticket) continue;
        add_word_of(record, ticket, out);
    }
}
