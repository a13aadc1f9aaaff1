/* Results as the engine sees them, over a PGresult, and the notices that came with a segment. */
#ifndef WR_PGRESULT_H
#define WR_PGRESULT_H

#include "base/memory.h"
#include "engine/result.h"

#include <libpq-fe.h>

enum { WR_NOTICES = 32, WR_NOTICE_SIZE = 256 };

/* Bounded in number and size: a statement can raise millions. Shared by the results of its segment. */
struct wr_notices {
    const struct wr_memory *memory;
    size_t references, count, dropped;
    char text[WR_NOTICES][WR_NOTICE_SIZE];
};

struct wr_notices *wr_notices_make(const struct wr_memory *memory); /* NULL: out of memory */
void wr_notices_add(struct wr_notices *notices, const PGresult *notice);
void wr_notices_drop(struct wr_notices *notices); /* accepts NULL */

/* Takes the PGresult over. */
struct weir_result wr_pgresult(PGresult *result);
/* Lets a result made by wr_pgresult carry the notices too; without memory for it they are left out. */
void wr_pgresult_attach(struct weir_result *result, struct wr_notices *notices);

#endif
