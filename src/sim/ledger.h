/* What became of each write: how often it took effect, and what its caller was told. One open-addressing table; an entry
 * goes as soon as its end was told and nothing of it is left anywhere, so it is as large as what is under way. */
#ifndef WR_LEDGER_H
#define WR_LEDGER_H

#include "weir/sim.h"

struct wr_ledger_entry {
    uint64_t number; /* 0: free */
    uint32_t effects;
    uint16_t references; /* jobs and open transactions that hold it */
    bool opened, closed, idempotent, gone, kept;
    weir_outcome outcome;
};

struct wr_ledger {
    struct wr_ledger_entry *slots;
    size_t room, count, kept; /* kept: never opened, so never forgotten */
    weir_sim_books books;
};

enum { WR_LEDGER_KEPT = 1000000 };

void wr_ledger_release(struct wr_ledger *ledger);
/* All accept 0, which is no write. Running out of memory leaves the write unobserved. */
void wr_ledger_open(struct wr_ledger *ledger, uint64_t number, bool idempotent);
void wr_ledger_close(struct wr_ledger *ledger, uint64_t number, weir_outcome outcome);
void wr_ledger_hold(struct wr_ledger *ledger, uint64_t number);
void wr_ledger_let_go(struct wr_ledger *ledger, uint64_t number);
void wr_ledger_took_effect(struct wr_ledger *ledger, uint64_t number);
void wr_ledger_lost_effect(struct wr_ledger *ledger, uint64_t number); /* by a failover */
uint32_t wr_ledger_effects(const struct wr_ledger *ledger, uint64_t number);

#endif
