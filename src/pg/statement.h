/* The prepared statements of one link. A text is prepared when it is seen for the second time; the least
 * recently used makes room. The book follows the server: a statement counts as prepared only once the server
 * has said so, and one that has left the book is closed on the server before the link grows past its
 * bound. */
#ifndef WR_STATEMENT_H
#define WR_STATEMENT_H

#include "base/list.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

enum { WR_SEEN = 256 };

enum wr_statement_state {
    WR_STATEMENT_NEW = 0, /* the server does not know it */
    WR_STATEMENT_PARSING, /* its Parse is under way */
    WR_STATEMENT_READY
};

struct wr_statement {
    struct wr_list place;      /* by use, or stale */
    struct wr_statement *next; /* in its bucket */
    uint64_t hash;
    uint64_t segment; /* that used it last */
    uint64_t
        parser; /* PARSING: the segment whose Parse it is; others run their text unnamed until it is known */
    enum wr_statement_state state;
    bool fixed;   /* the driver's own, never evicted */
    bool listed;  /* in the book */
    bool closing; /* stale, and its DEALLOCATE is under way */
    char name[24];
    char sql[];
};

struct wr_statements {
    const struct wr_memory *memory;
    uint32_t most, count;
    uint64_t named;        /* names given so far: none is used twice */
    bool off;              /* names collide on this server: a pooler is in between */
    uint64_t edition;      /* of the book: one more each time all of it is forgotten */
    bool drop_all;         /* what the server still knows is not known: DEALLOCATE ALL first */
    uint64_t dropping;     /* the edition for which that is under way */
    struct wr_list by_use; /* most recent first */
    struct wr_list stale;  /* out of the book, still known to the server */
    struct wr_list limbo;  /* forgotten; segments under way may still point to them */
    struct wr_statement **buckets;
    size_t bucket_count;
    uint64_t
        seen[WR_SEEN]; /* hashes of texts seen once: a text used once costs no memory and evicts nothing */
};

void wr_statements_init(struct wr_statements *all, const struct wr_memory *memory, uint32_t most);
void wr_statements_release(struct wr_statements *all);

/* The entry to run `sql` with in segment number `segment`, or NULL: send it unnamed. If *evicted is set, that
 * one must be deallocated in front of it (it is on the stale list until the server has done so). An entry in
 * state NEW must be parsed in front. */
struct wr_statement *wr_statements_want(struct wr_statements *all, const char *sql, uint64_t segment,
                                        struct wr_statement **evicted);

/* The driver's own texts (few, never evicted, not counted). NULL: out of memory, or names are off. */
struct wr_statement *wr_statement_fixed(struct wr_statements *all, const char *sql);
void wr_statement_free(struct wr_statements *all, struct wr_statement *statement);

/* Its Parse, by that segment, failed or was not run: the server does not know it. */
void wr_statements_unknown(struct wr_statements *all, struct wr_statement *statement, uint64_t segment);
/* The server knows it, but it must not be used any more. Nothing happens to one that has left the book. */
void wr_statements_stale(struct wr_statements *all, struct wr_statement *statement);
/* The server has closed it. */
void wr_statements_closed(struct wr_statements *all, struct wr_statement *statement);
/* Nothing is known any more; a new edition begins. The fixed ones are the caller's to set back. */
void wr_statements_forget(struct wr_statements *all);
/* No segment is under way: what was forgotten can be freed. */
void wr_statements_calm(struct wr_statements *all);

#endif
