/* Evidence in flat shared memory: the last failure codes, and why the breaker last moved. */
#ifndef WR_EVIDENCE_H
#define WR_EVIDENCE_H

#include "weir/guard.h"

#include <stdatomic.h>

enum { WR_EVIDENCE_WORDS = 10, WR_EVIDENCE_SLOTS = 4, WR_CODES = 4 };

/* A code is 7 bytes and, in the eighth, the low bits of its generation: codes of an earlier window are no evidence. */
struct wr_codes {
    _Atomic uint32_t next;
    _Atomic uint64_t code[WR_CODES];
};

/* One record per generation, `generation` modulo the slots. The seal is a checksum over the words: a reader that
 * meets a half-written record, or one whose writer was killed, sees that the seal does not fit. */
struct wr_evidence_slot {
    _Atomic uint64_t word[WR_EVIDENCE_WORDS];
    _Atomic uint64_t seal;
};

struct wr_evidence_log {
    struct wr_evidence_slot slot[WR_EVIDENCE_SLOTS];
};

uint64_t wr_seal(const uint64_t *words, unsigned count); /* 64 well-mixed bits; not a secret */

void wr_codes_add(struct wr_codes *codes, uint32_t generation,
                  const char *code); /* NULL and "" are skipped */
void wr_codes_read(const struct wr_codes *codes, uint32_t generation,
                   char out[WR_CODES][8]); /* newest first */

void wr_evidence_put(struct wr_evidence_log *log, const weir_evidence *evidence);
/* The newest record not newer than `generation` that is whole; false if there is none. */
bool wr_evidence_get(const struct wr_evidence_log *log, uint32_t generation, weir_evidence *out);

#endif
