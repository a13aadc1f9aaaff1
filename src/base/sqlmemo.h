/* What was told of the statements seen last, so that a program's few texts are scanned once and not at every call. Owner: an
 * engine. A longer text than TEXT is scanned each time. */
#ifndef WR_SQLMEMO_H
#define WR_SQLMEMO_H

#include "base/sqltext.h"

enum { WR_SQL_MEMO_PLACES = 64, WR_SQL_MEMO_TEXT = 1000 };

struct wr_sql_memo { /* all zero: empty */
    struct {
        size_t length; /* 0: nobody's */
        struct wr_sql_facts facts;
        char text[WR_SQL_MEMO_TEXT];
    } place[WR_SQL_MEMO_PLACES];
};

struct wr_sql_facts wr_sql_recall(struct wr_sql_memo *memo, const char *sql);

#endif
