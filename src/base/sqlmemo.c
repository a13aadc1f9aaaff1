/* Each text has one place; whoever comes last has it. A text is compared whole: what is told of it decides what may run. */
#include "base/sqlmemo.h"

#include <stdint.h>
#include <string.h>

static uint64_t word_at(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* By its length and a few bytes: that two share a place costs time and nothing else. */
static size_t place_of(const char *sql, size_t length)
{
    uint64_t mix = length;
    if (length >= sizeof mix) {
        size_t last = length - sizeof mix;
        mix += word_at(sql) ^ word_at(sql + last / 2) * 3 ^ word_at(sql + last) * 5;
    }
    return (size_t)(mix * UINT64_C(0x9e3779b97f4a7c15) >> 32) % WR_SQL_MEMO_PLACES;
}

struct wr_sql_facts wr_sql_recall(struct wr_sql_memo *memo, const char *sql)
{
    size_t length = strlen(sql);
    if (length == 0 || length > WR_SQL_MEMO_TEXT) return wr_sql_facts(sql);
    size_t place = place_of(sql, length);
    if (memo->place[place].length != length || memcmp(memo->place[place].text, sql, length) != 0) {
        memo->place[place].facts = wr_sql_facts(sql);
        memo->place[place].length = length;
        memcpy(memo->place[place].text, sql, length);
    }
    return memo->place[place].facts;
}
