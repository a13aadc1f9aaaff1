/* A hash table over the texts, a list by use, and a small memory of what was seen once. */
#include "pg/statement.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static uint64_t mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

/* Eight bytes at a time; the texts come from the program, so nobody shops for collisions. */
static uint64_t hash_of(const char *sql, size_t length)
{
    uint64_t h = 0x243f6a8885a308d3u ^ length;
    for (; length >= 8; sql += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, sql, 8);
        h = mix(h, word);
    }
    uint64_t rest = 0;
    if (length > 0) memcpy(&rest, sql, length);
    return mix(mix(h, rest), 1) | 1; /* 0 marks an empty place among the seen */
}

void wr_statements_init(struct wr_statements *all, const struct wr_memory *memory, uint32_t most)
{
    *all = (struct wr_statements){.memory = memory, .most = most};
    wr_list_init(&all->by_use);
    wr_list_init(&all->stale);
    wr_list_init(&all->limbo);
    all->edition = 1;
}

/* ---- the table ---- */

static bool have_buckets(struct wr_statements *all)
{
    if (all->buckets != NULL) return true;
    size_t count = 16;
    while (count < all->most && count < 65536) count *= 2;
    all->buckets = wr_alloc(all->memory, count * sizeof *all->buckets);
    all->bucket_count = all->buckets == NULL ? 0 : count;
    return all->buckets != NULL;
}

static struct wr_statement **bucket(const struct wr_statements *all, uint64_t hash)
{
    return &all->buckets[(hash >> 8) & (all->bucket_count - 1)];
}

static struct wr_statement *find(const struct wr_statements *all, const char *sql, uint64_t hash)
{
    struct wr_statement *at = *bucket(all, hash);
    while (at != NULL && (at->hash != hash || strcmp(at->sql, sql) != 0)) at = at->next;
    return at;
}

/* Out of the book; the entry itself stays with the caller. */
static void take_out(struct wr_statements *all, struct wr_statement *statement)
{
    struct wr_statement **at = bucket(all, statement->hash);
    while (*at != statement) at = &(*at)->next;
    *at = statement->next;
    wr_list_remove(&statement->place);
    statement->listed = false;
    all->count--;
}

static struct wr_statement *make(struct wr_statements *all, const char *sql, size_t length, uint64_t hash)
{
    struct wr_statement *fresh = wr_alloc(all->memory, sizeof *fresh + length + 1);
    if (fresh == NULL) return NULL;
    wr_list_init(&fresh->place);
    fresh->hash = hash;
    memcpy(fresh->sql, sql, length);
    snprintf(fresh->name, sizeof fresh->name, "weir_%" PRIu64, ++all->named);
    return fresh;
}

void wr_statement_free(struct wr_statements *all, struct wr_statement *statement)
{
    wr_free(all->memory, statement);
}

/* ---- use ---- */

static bool first_sight(struct wr_statements *all, uint64_t hash)
{
    uint64_t *place = &all->seen[hash >> 56];
    bool first = *place != hash;
    *place = hash;
    return first;
}

/* True if one more fits, now or after the least used has gone. What this very segment uses is not thrown out:
 * later statements of it may name it. Nor is what the server has not yet said to know: its DEALLOCATE could
 * fail. */
static bool make_space(struct wr_statements *all, uint64_t segment, struct wr_statement **evicted)
{
    if (all->count < all->most) return true;
    struct wr_list *last = wr_list_last(&all->by_use);
    struct wr_statement *oldest = WR_CONTAINER(last, struct wr_statement, place);
    if (oldest->segment == segment || oldest->state != WR_STATEMENT_READY) return false;
    wr_statements_stale(all, oldest);
    *evicted = oldest;
    return true;
}

static struct wr_statement *enter(struct wr_statements *all, const char *sql, size_t length, uint64_t hash,
                                  uint64_t segment, struct wr_statement **evicted)
{
    if (first_sight(all, hash)) return NULL;
    struct wr_statement *fresh = make(all, sql, length, hash);
    if (fresh == NULL) return NULL;
    if (!make_space(all, segment, evicted)) {
        wr_statement_free(all, fresh);
        return NULL;
    }
    fresh->listed = true;
    fresh->next = *bucket(all, hash);
    *bucket(all, hash) = fresh;
    wr_list_prepend(&all->by_use, &fresh->place);
    all->count++;
    return fresh;
}

struct wr_statement *wr_statements_want(struct wr_statements *all, const char *sql, uint64_t segment,
                                        struct wr_statement **evicted)
{
    *evicted = NULL;
    if (all->most == 0 || all->off || !have_buckets(all)) return NULL;
    size_t length = strlen(sql);
    uint64_t hash = hash_of(sql, length);
    struct wr_statement *known = find(all, sql, hash);
    if (known == NULL) known = enter(all, sql, length, hash, segment, evicted);
    if (known == NULL) return NULL;
    known->segment = segment;
    wr_list_remove(&known->place);
    wr_list_prepend(&all->by_use, &known->place);
    return known;
}

struct wr_statement *wr_statement_fixed(struct wr_statements *all, const char *sql)
{
    if (all->most == 0 || all->off) return NULL;
    size_t length = strlen(sql);
    struct wr_statement *fresh = make(all, sql, length, hash_of(sql, length));
    if (fresh != NULL) fresh->fixed = true;
    return fresh;
}

/* ---- leaving the book ---- */

void wr_statements_unknown(struct wr_statements *all, struct wr_statement *statement, uint64_t segment)
{
    if (statement->state != WR_STATEMENT_PARSING || statement->parser != segment) return;
    statement->state = WR_STATEMENT_NEW;
    if (!statement->listed) return;
    take_out(all, statement);
    wr_statement_free(all, statement);
}

void wr_statements_stale(struct wr_statements *all, struct wr_statement *statement)
{
    if (!statement->listed) return;
    take_out(all, statement);
    wr_list_append(&all->stale, &statement->place);
}

void wr_statements_closed(struct wr_statements *all, struct wr_statement *statement)
{
    wr_list_remove(&statement->place);
    wr_statement_free(all, statement);
}

static void free_list(struct wr_statements *all, struct wr_list *list)
{
    for (struct wr_list *first; (first = wr_list_first(list)) != NULL;) {
        wr_list_remove(first);
        wr_statement_free(all, WR_CONTAINER(first, struct wr_statement, place));
    }
}

static void send_to_limbo(struct wr_statements *all, struct wr_list *list)
{
    for (struct wr_list *first; (first = wr_list_first(list)) != NULL;) {
        wr_list_remove(first);
        WR_CONTAINER(first, struct wr_statement, place)->listed = false;
        wr_list_append(&all->limbo, first);
    }
}

void wr_statements_forget(struct wr_statements *all)
{
    send_to_limbo(all, &all->by_use);
    send_to_limbo(all, &all->stale);
    if (all->buckets != NULL) memset(all->buckets, 0, all->bucket_count * sizeof *all->buckets);
    all->count = 0;
    all->edition++;
}

void wr_statements_calm(struct wr_statements *all)
{
    free_list(all, &all->limbo);
}

void wr_statements_release(struct wr_statements *all)
{
    wr_statements_forget(all);
    wr_statements_calm(all);
    wr_free(all->memory, all->buckets);
    all->buckets = NULL;
}
