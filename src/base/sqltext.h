/* What can be told of a statement from its text alone, without parsing SQL: what kind its first words make
 * it, and whether it may leave something behind in the session. Strings, comments and quoting are understood,
 * so that a word inside a literal is not taken for a keyword; what a function does inside is not seen. */
#ifndef WR_SQLTEXT_H
#define WR_SQLTEXT_H

#include <stdbool.h>
#include <stddef.h>

enum wr_sql_kind {
    WR_SQL_PLAIN = 0,
    WR_SQL_TRANSACTION, /* BEGIN, START, COMMIT, END, ROLLBACK, ABORT, PREPARE TRANSACTION, ...: ends or
                           begins one */
    WR_SQL_SAVEPOINT,   /* SAVEPOINT, RELEASE, ROLLBACK TO */
    WR_SQL_CALL, /* CALL or DO: code that may itself commit when it stands outside a transaction block */
    WR_SQL_COPY,
    WR_SQL_EMPTY /* nothing but space, comments, semicolons, parentheses */
};

enum wr_sql_kind wr_sql_classify(const char *sql);

/* Could leave session state behind: settings, prepared statements, advisory locks, LISTEN, temporary tables,
 * cursors WITH HOLD. Errs on the side of true, which costs a reset of the connection and nothing else. */
bool wr_sql_may_dirty(const char *sql);

/* Is of a sort that the server may refuse inside a transaction block (VACUUM, CREATE INDEX CONCURRENTLY,
 * ...), told by its first word alone. Errs on the side of true. */
bool wr_sql_stands_alone(const char *sql);

struct wr_sql_facts { /* of one statement: what the three above say */
    enum wr_sql_kind kind;
    bool may_dirty, stands_alone;
};

struct wr_sql_facts wr_sql_facts(const char *sql);

/* Where a comment of ours can stand behind the statement: ahead of the semicolons and the space that end it. False if the
 * statement holds a comment already: that may mean something to those who read it, and is to stay as it is. */
bool wr_sql_comment_place(const char *sql, size_t *place);

#endif
