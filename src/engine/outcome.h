/* What a failure means: one table from SQLSTATE to class, breaker verdict and reason, and the rules of phase on top.
 * Pure. Sources: PostgreSQL's errcodes and its documentation on serialization failure handling. */
#ifndef WR_OUTCOME_H
#define WR_OUTCOME_H

#include "engine/driver.h"

struct wr_circumstances { /* of the attempt that failed */
    weir_phase phase;     /* how far it had come */
    bool in_unit;         /* inside an explicit transaction */
    bool no_effect;       /* declared read-only, or known to have written nothing */
    bool connecting;      /* the fault is a failed connect */
};

struct wr_judgement {
    weir_code code;
    weir_class class_;
    weir_outcome outcome;
    weir_verdict verdict; /* for the breaker */
    const char *reason;   /* one word: "serialization", "connection", "constraint", ... */
    bool wrong_node;      /* 25006: writes went to a standby; connections of this pool are stale */
};

/* The words that `reason` may be, numbered from 0 in the order of the alphabet; "?" out of range. A word that is none of
 * them has the number of "other". */
const char *wr_outcome_reason_name(size_t number);
uint8_t wr_outcome_reason(const char *word);

struct wr_judgement wr_outcome_judge(const struct wr_fault *fault, const struct wr_circumstances *at);

#endif
