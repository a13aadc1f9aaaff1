/* The ledger of writes; see ledger.h. */
#include "sim/ledger.h"

#include <stdlib.h>

enum { ROOM_AT_FIRST = 1024 };

static size_t home_of(const struct wr_ledger *ledger, uint64_t number)
{
    return (size_t)((number * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (ledger->room - 1);
}

static struct wr_ledger_entry *find(const struct wr_ledger *ledger, uint64_t number)
{
    if (ledger->room == 0 || number == 0) return NULL;
    for (size_t at = home_of(ledger, number);; at = (at + 1) & (ledger->room - 1)) {
        if (ledger->slots[at].number == number) return &ledger->slots[at];
        if (ledger->slots[at].number == 0) return NULL;
    }
}

static struct wr_ledger_entry *place(struct wr_ledger *ledger, uint64_t number)
{
    size_t at = home_of(ledger, number);
    while (ledger->slots[at].number != 0) at = (at + 1) & (ledger->room - 1);
    return &ledger->slots[at];
}

static bool grow(struct wr_ledger *ledger)
{
    struct wr_ledger larger = *ledger;
    larger.room = ledger->room == 0 ? ROOM_AT_FIRST : ledger->room * 2;
    larger.slots = calloc(larger.room, sizeof *larger.slots);
    if (larger.slots == NULL) return false;
    for (size_t i = 0; i < ledger->room; i++) {
        if (ledger->slots[i].number != 0) *place(&larger, ledger->slots[i].number) = ledger->slots[i];
    }
    free(ledger->slots);
    *ledger = larger;
    return true;
}

/* NULL: 0, out of memory, or one too many of those that are kept for ever. */
static struct wr_ledger_entry *entry_of(struct wr_ledger *ledger, uint64_t number, bool opens)
{
    struct wr_ledger_entry *entry = find(ledger, number);
    if (entry != NULL || number == 0) return entry;
    if (!opens && ledger->kept >= WR_LEDGER_KEPT) return NULL;
    if (ledger->count * 2 >= ledger->room && !grow(ledger)) return NULL;
    entry = place(ledger, number);
    *entry = (struct wr_ledger_entry){.number = number};
    ledger->count++;
    entry->kept = !opens;
    if (entry->kept) ledger->kept++;
    return entry;
}

/* Closes the gap, so that no chain of colliding entries breaks. */
static void take_out(struct wr_ledger *ledger, struct wr_ledger_entry *entry)
{
    size_t hole = (size_t)(entry - ledger->slots), mask = ledger->room - 1;
    for (size_t at = (hole + 1) & mask; ledger->slots[at].number != 0; at = (at + 1) & mask) {
        size_t home = home_of(ledger, ledger->slots[at].number);
        if (((at - home) & mask) < ((at - hole) & mask)) continue;
        ledger->slots[hole] = ledger->slots[at];
        hole = at;
    }
    ledger->slots[hole].number = 0;
    ledger->count--;
}

static void judge(struct wr_ledger *ledger, const struct wr_ledger_entry *entry)
{
    weir_sim_books *books = &ledger->books;
    if (entry->effects > 1 && !entry->idempotent) books->twice++;
    if (entry->outcome == WEIR_OUTCOME_UNKNOWN) {
        if (entry->effects > 0) {
            books->unknown_there++;
        } else {
            books->unknown_not_there++;
        }
    } else if (entry->outcome == WEIR_OUTCOME_COMMITTED) {
        if (entry->effects == 0 && !entry->gone) books->lost++;
    } else if (entry->effects > 0) {
        books->undead++;
    }
}

static void settle(struct wr_ledger *ledger, struct wr_ledger_entry *entry)
{
    if (!entry->opened || !entry->closed || entry->references > 0) return;
    judge(ledger, entry);
    take_out(ledger, entry);
}

void wr_ledger_open(struct wr_ledger *ledger, uint64_t number, bool idempotent)
{
    struct wr_ledger_entry *entry = entry_of(ledger, number, true);
    if (entry == NULL || entry->opened) return;
    if (entry->kept) ledger->kept--;
    entry->kept = false;
    entry->opened = true;
    entry->idempotent = idempotent;
    ledger->books.opened++;
}

void wr_ledger_close(struct wr_ledger *ledger, uint64_t number, weir_outcome outcome)
{
    struct wr_ledger_entry *entry = find(ledger, number);
    if (entry == NULL || !entry->opened || entry->closed) return;
    entry->closed = true;
    entry->outcome = outcome;
    ledger->books.closed++;
    settle(ledger, entry);
}

void wr_ledger_hold(struct wr_ledger *ledger, uint64_t number)
{
    struct wr_ledger_entry *entry = entry_of(ledger, number, false);
    if (entry != NULL) entry->references++;
}

void wr_ledger_let_go(struct wr_ledger *ledger, uint64_t number)
{
    struct wr_ledger_entry *entry = find(ledger, number);
    if (entry == NULL) return;
    if (entry->references > 0) entry->references--;
    settle(ledger, entry);
}

void wr_ledger_took_effect(struct wr_ledger *ledger, uint64_t number)
{
    struct wr_ledger_entry *entry = entry_of(ledger, number, false);
    if (entry != NULL) entry->effects++;
}

void wr_ledger_lost_effect(struct wr_ledger *ledger, uint64_t number)
{
    struct wr_ledger_entry *entry = find(ledger, number);
    ledger->books.gone++;
    if (entry == NULL) return;
    if (entry->effects > 0) entry->effects--;
    entry->gone = true;
}

uint32_t wr_ledger_effects(const struct wr_ledger *ledger, uint64_t number)
{
    const struct wr_ledger_entry *entry = find(ledger, number);
    return entry == NULL ? 0 : entry->effects;
}

void wr_ledger_release(struct wr_ledger *ledger)
{
    free(ledger->slots);
    *ledger = (struct wr_ledger){0};
}
