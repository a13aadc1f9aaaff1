/* A scanner of words: it walks the text as PostgreSQL's own lexer would (standard_conforming_strings on,
 * which the greeting insists on), skips what is quoted, and hands out identifiers one by one. */
#include "base/sqltext.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

enum { WORD_SIZE = 48 }; /* longer than any word asked for, cut ones match nothing */

struct scan {
    const char *at;
    char word[WORD_SIZE];
    bool disguised; /* a U&"..." identifier: it can spell any name, so none can be ruled out */
    bool commented; /* a comment has been passed over */
};

/* ---- the text ---- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool begins_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool in_word(char c)
{
    return begins_word(c) || (c >= '0' && c <= '9') || c == '$';
}

static const char *past_line(const char *at)
{
    while (*at != '\0' && *at != '\n' && *at != '\r') at++;
    return at;
}

/* Block comments nest. An unterminated one runs to the end, where the server will refuse the statement. */
static const char *past_block(const char *at)
{
    int depth = 0;
    do {
        if (at[0] == '/' && at[1] == '*') {
            depth++;
            at += 2;
        } else if (at[0] == '*' && at[1] == '/') {
            depth--;
            at += 2;
        } else if (*at != '\0') {
            at++;
        }
    } while (depth > 0 && *at != '\0');
    return at;
}

/* `at` is at the opening quote. A doubled quote simply opens the next literal, which comes to the same. */
static const char *past_quoted(const char *at, bool backslashes)
{
    char quote = *at++;
    while (*at != '\0' && *at != quote) {
        if (backslashes && at[0] == '\\' && at[1] != '\0') at++;
        at++;
    }
    return *at == '\0' ? at : at + 1;
}

/* E'...' goes on, backslashes and all, in a literal that follows on a later line. */
static const char *past_escaped(const char *at, bool *commented)
{
    for (;;) {
        at = past_quoted(at, true);
        const char *next = at;
        bool new_line = false;
        while (is_space(*next) || (next[0] == '-' && next[1] == '-')) {
            if (*next == '-') {
                next = past_line(next);
                *commented = true;
            }
            if (*next == '\n' || *next == '\r') new_line = true;
            if (*next != '\0') next++;
        }
        if (!new_line || *next != '\'') return at;
        at = next;
    }
}

/* $tag$ ... $tag$, or just past the dollar if it opens nothing (a parameter, an operator). */
static const char *past_dollar(const char *at)
{
    const char *end = at + 1;
    if (begins_word(*end)) {
        while (in_word(*end) && *end != '$') end++;
    }
    if (*end != '$') return at + 1;
    size_t length = (size_t)(end - at) + 1;
    for (const char *close = end + 1; (close = strchr(close, '$')) != NULL; close++) {
        if (strncmp(close, at, length) == 0) return close + length;
    }
    return end + strlen(end);
}

static void keep_word(struct scan *scan, const char *from, const char *to)
{
    size_t length = (size_t)(to - from) < WORD_SIZE ? (size_t)(to - from) : WORD_SIZE - 1;
    memcpy(scan->word, from, length);
    scan->word[length] = '\0';
}

/* A bare word, or a prefix of a literal (E'', B'', X'', N'', U&''), which is skipped with it. True for a
 * word. */
static bool take_word(struct scan *scan)
{
    const char *from = scan->at;
    while (in_word(*scan->at)) scan->at++;
    bool single = scan->at - from == 1;
    if (single && *scan->at == '\'') {
        scan->at = *from == 'e' || *from == 'E' ? past_escaped(scan->at, &scan->commented)
                                                : past_quoted(scan->at, false);
        return false;
    }
    if (single && (*from == 'u' || *from == 'U') && scan->at[0] == '&' && scan->at[1] == '"')
        scan->disguised = true;
    keep_word(scan, from, scan->at);
    return true;
}

static void take_identifier(struct scan *scan)
{
    const char *from = scan->at + 1;
    scan->at = past_quoted(scan->at, false);
    keep_word(scan, from, scan->at[-1] == '"' && scan->at > from ? scan->at - 1 : scan->at);
}

/* The next word, quoted identifiers among them; false at the end. */
static bool next_word(struct scan *scan)
{
    while (*scan->at != '\0') {
        const char *at = scan->at;
        if (at[0] == '-' && at[1] == '-') {
            scan->at = past_line(at);
            scan->commented = true;
        } else if (at[0] == '/' && at[1] == '*') {
            scan->at = past_block(at);
            scan->commented = true;
        } else if (*at == '\'') {
            scan->at = past_quoted(at, false);
        } else if (*at == '"') {
            take_identifier(scan);
            return true;
        } else if (*at == '$') {
            scan->at = past_dollar(at);
        } else if (begins_word(*at)) {
            if (take_word(scan)) return true;
        } else if (*at >= '0' && *at <= '9') {
            while (in_word(*scan->at)) scan->at++;
        } else {
            scan->at++;
        }
    }
    scan->word[0] = '\0';
    return false;
}

/* `keyword` is in small letters. Looks at the first letter before it calls anything: every statement is held
 * against some thirty keywords on its way to the server. */
static bool is_keyword(const char *word, const char *keyword)
{
    return (word[0] | ('a' ^ 'A')) == keyword[0] && strcasecmp(word, keyword) == 0;
}

static bool word_is(const struct scan *scan, const char *keyword)
{
    return is_keyword(scan->word, keyword);
}

static bool is_one_of(const char *word, const char *const *list)
{
    for (; *list != NULL; list++) {
        if (is_keyword(word, *list)) return true;
    }
    return false;
}

/* ---- kinds ---- */

/* Past everything that may stand before the first keyword. */
static const char *beginning(const char *at)
{
    for (;;) {
        if (is_space(*at) || *at == ';' || *at == '(' || *at == ')') {
            at++;
        } else if (at[0] == '-' && at[1] == '-') {
            at = past_line(at);
        } else if (at[0] == '/' && at[1] == '*') {
            at = past_block(at);
        } else {
            return at;
        }
    }
}

static enum wr_sql_kind kind_of_rollback(struct scan *scan)
{
    next_word(scan);
    if (word_is(scan, "work") || word_is(scan, "transaction")) next_word(scan);
    return word_is(scan, "to") ? WR_SQL_SAVEPOINT : WR_SQL_TRANSACTION;
}

static enum wr_sql_kind kind_of_prepare(struct scan *scan)
{
    next_word(scan);
    return word_is(scan, "transaction") ? WR_SQL_TRANSACTION : WR_SQL_PLAIN;
}

enum wr_sql_kind wr_sql_classify(const char *sql)
{
    static const char *const ends[] = {"begin", "start", "commit", "end", "abort", NULL};
    struct scan scan = {.at = beginning(sql)};
    if (*scan.at == '\0') return WR_SQL_EMPTY;
    if (!begins_word(*scan.at)) return WR_SQL_PLAIN;
    next_word(&scan);
    if (is_one_of(scan.word, ends)) return WR_SQL_TRANSACTION;
    if (word_is(&scan, "rollback")) return kind_of_rollback(&scan);
    if (word_is(&scan, "prepare")) return kind_of_prepare(&scan);
    if (word_is(&scan, "savepoint") || word_is(&scan, "release")) return WR_SQL_SAVEPOINT;
    if (word_is(&scan, "call") || word_is(&scan, "do")) return WR_SQL_CALL;
    return word_is(&scan, "copy") ? WR_SQL_COPY : WR_SQL_PLAIN;
}

bool wr_sql_stands_alone(const char *sql)
{
    static const char *const alone[] = {"vacuum", "cluster", "reindex", "create", "drop",
                                        "alter",  "discard", "call",    "do",     NULL};
    struct scan scan = {.at = beginning(sql)};
    if (!begins_word(*scan.at)) return false;
    next_word(&scan);
    return is_one_of(scan.word, alone);
}

/* ---- what stays behind ---- */

/* SET LOCAL, SET TRANSACTION and SET CONSTRAINTS end with their transaction; every other SET is the
 * session's. */
static bool set_lasts(struct scan scan)
{
    static const char *const passing[] = {"local", "transaction", "constraints", NULL};
    next_word(&scan);
    return !is_one_of(scan.word, passing);
}

static bool dirty_from_its_start(const struct scan *first)
{
    static const char *const always[] = {"reset",   "listen", "unlisten", "prepare", "execute", "deallocate",
                                         "discard", "load",   "call",     "do",      NULL};
    if (word_is(first, "set")) return set_lasts(*first);
    return is_one_of(first->word, always);
}

/* Only where a relation is being made, for `temp` is also what a sensor's column is called. */
static bool makes_temporary(const struct scan *scan, const char *before)
{
    static const char *const makers[] = {"create", "replace", "local", "global", "into", NULL};
    return (word_is(scan, "temp") || word_is(scan, "temporary")) && is_one_of(before, makers);
}

/* PostgreSQL's own functions that leave nothing behind, by far the most of what statements call. */
static const char *const clean_functions[] = {"count",
                                              "sum",
                                              "min",
                                              "max",
                                              "avg",
                                              "coalesce",
                                              "nullif",
                                              "greatest",
                                              "least",
                                              "now",
                                              "clock_timestamp",
                                              "statement_timestamp",
                                              "transaction_timestamp",
                                              "timeofday",
                                              "current_setting",
                                              "lower",
                                              "upper",
                                              "length",
                                              "char_length",
                                              "octet_length",
                                              "trim",
                                              "btrim",
                                              "ltrim",
                                              "rtrim",
                                              "substr",
                                              "substring",
                                              "replace",
                                              "position",
                                              "strpos",
                                              "left",
                                              "right",
                                              "concat",
                                              "concat_ws",
                                              "format",
                                              "split_part",
                                              "string_agg",
                                              "array_agg",
                                              "array_length",
                                              "array_upper",
                                              "array_lower",
                                              "cardinality",
                                              "unnest",
                                              "array_to_string",
                                              "string_to_array",
                                              "array_append",
                                              "array_remove",
                                              "array_position",
                                              "array_cat",
                                              "generate_series",
                                              "to_char",
                                              "to_date",
                                              "to_timestamp",
                                              "to_number",
                                              "date_trunc",
                                              "date_part",
                                              "extract",
                                              "age",
                                              "make_date",
                                              "make_interval",
                                              "make_timestamptz",
                                              "round",
                                              "floor",
                                              "ceil",
                                              "ceiling",
                                              "abs",
                                              "mod",
                                              "power",
                                              "sqrt",
                                              "random",
                                              "sign",
                                              "trunc",
                                              "exp",
                                              "ln",
                                              "log",
                                              "json_agg",
                                              "jsonb_agg",
                                              "json_build_object",
                                              "jsonb_build_object",
                                              "json_build_array",
                                              "jsonb_build_array",
                                              "json_object_agg",
                                              "jsonb_object_agg",
                                              "row_to_json",
                                              "to_json",
                                              "to_jsonb",
                                              "jsonb_set",
                                              "jsonb_array_elements",
                                              "json_array_elements",
                                              "jsonb_array_elements_text",
                                              "json_array_elements_text",
                                              "jsonb_array_length",
                                              "json_array_length",
                                              "jsonb_each",
                                              "jsonb_each_text",
                                              "json_each",
                                              "json_each_text",
                                              "jsonb_object_keys",
                                              "jsonb_path_query",
                                              "jsonb_path_exists",
                                              "jsonb_typeof",
                                              "bool_and",
                                              "bool_or",
                                              "every",
                                              "row_number",
                                              "rank",
                                              "dense_rank",
                                              "lag",
                                              "lead",
                                              "first_value",
                                              "last_value",
                                              "ntile",
                                              "percentile_cont",
                                              "percentile_disc",
                                              "mode",
                                              "stddev",
                                              "variance",
                                              "md5",
                                              "sha256",
                                              "encode",
                                              "decode",
                                              "gen_random_uuid",
                                              "pg_sleep",
                                              "pg_backend_pid",
                                              "version",
                                              "pg_typeof",
                                              "regexp_replace",
                                              "regexp_match",
                                              "regexp_matches",
                                              "to_tsvector",
                                              "to_tsquery",
                                              "plainto_tsquery",
                                              "websearch_to_tsquery",
                                              "ts_rank",
                                              "starts_with",
                                              "reverse",
                                              "repeat",
                                              "lpad",
                                              "rpad",
                                              "ascii",
                                              "chr",
                                              "initcap",
                                              "quote_ident",
                                              "quote_literal",
                                              "overlay",
                                              "bit_and",
                                              "bit_or",
                                              "pg_notify",
                                              "pg_current_xact_id",
                                              "pg_current_xact_id_if_assigned",
                                              "pg_advisory_xact_lock",
                                              "pg_try_advisory_xact_lock",
                                              "pg_cancel_backend",
                                              "pg_terminate_backend",
                                              "txid_current",
                                              "pg_is_in_recovery",
                                              "pg_relation_size",
                                              "pg_total_relation_size",
                                              "pg_database_size",
                                              "has_table_privilege",
                                              NULL};

/* What stands before a parenthesis without being a function: words of the grammar and types with a length. */
static const char *const grammar[] = {
    "in",     "values",    "and",         "or",       "not",     "from",    "where",        "having",
    "select", "as",        "on",          "using",    "over",    "exists",  "any",          "all",
    "some",   "row",       "when",        "then",     "else",    "join",    "union",        "intersect",
    "except", "lateral",   "group",       "distinct", "limit",   "offset",  "cast",         "check",
    "unique", "returning", "set",         "like",     "ilike",   "between", "materialized", "array",
    "case",   "default",   "numeric",     "decimal",  "varchar", "char",    "character",    "varying",
    "bit",    "timestamp", "timestamptz", "interval", "float",   NULL};

/* Words after which a name with a parenthesis is a relation with its columns. */
static const char *const before_relations[] = {"into",       "table", "with", "recursive",
                                               "references", "only",  NULL};

/* Words of the grammar only after another one; alone they may be anybody's functions. */
static bool is_grammar_after(const char *word, const char *before)
{
    static const char *const pairs[][2] = {{"conflict", "on"},  {"by", "group"},    {"by", "order"},
                                           {"by", "partition"}, {"key", "primary"}, {"key", "foreign"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (strcasecmp(word, pairs[i][0]) == 0 && strcasecmp(before, pairs[i][1]) == 0) return true;
    }
    return false;
}

static bool opens_parenthesis(const char *at)
{
    for (;;) {
        if (isspace((unsigned char)*at)) {
            at++;
        } else if (at[0] == '-' && at[1] == '-') {
            at = past_line(at);
        } else if (at[0] == '/' && at[1] == '*') {
            at = past_block(at);
        } else {
            return *at == '(';
        }
    }
}

/* A function nobody here knows may do anything to the session from inside: set, lock, listen, make temporary
 * tables. One of a schema other than pg_catalog is unknown whatever its name; so is a quoted one. */
static bool calls_unknown_function(const struct scan *scan, const char *sql, const char *before)
{
    if (!opens_parenthesis(scan->at)) return false;
    const char *start = scan->at - strlen(scan->word);
    bool quoted = scan->at[-1] == '"';
    bool qualified = !quoted && start > sql && start[-1] == '.';
    if (is_one_of(before, before_relations)) return false;
    if (quoted || (qualified && strcasecmp(before, "pg_catalog") != 0)) return true;
    if (is_one_of(scan->word, grammar) || is_grammar_after(scan->word, before)) return false;
    return !is_one_of(scan->word, clean_functions);
}

bool wr_sql_may_dirty(const char *sql)
{
    static const char *const telling[] = {"set_config",
                                          "pg_advisory_lock",
                                          "pg_advisory_lock_shared",
                                          "pg_try_advisory_lock",
                                          "pg_try_advisory_lock_shared",
                                          "pg_temp",
                                          "setseed",
                                          "pg_settings",
                                          "pg_replication_origin_session_setup",
                                          NULL};
    struct scan scan = {.at = beginning(sql)};
    char before[WORD_SIZE] = "";
    if (!next_word(&scan)) return false;
    if (dirty_from_its_start(&scan)) return true;
    bool explains = word_is(&scan, "explain");
    do {
        if (scan.disguised || is_one_of(scan.word, telling) || makes_temporary(&scan, before)) return true;
        if (word_is(&scan, "hold") && strcasecmp(before, "with") == 0) return true;
        if (explains && word_is(&scan, "execute")) return true;
        if (calls_unknown_function(&scan, sql, before)) return true;
        memcpy(before, scan.word, sizeof before);
    } while (next_word(&scan));
    return false;
}

struct wr_sql_facts wr_sql_facts(const char *sql)
{
    return (struct wr_sql_facts){.kind = wr_sql_classify(sql),
                                 .may_dirty = wr_sql_may_dirty(sql),
                                 .stands_alone = wr_sql_stands_alone(sql)};
}

/* ---- comments ---- */

bool wr_sql_comment_place(const char *sql, size_t *place)
{
    struct scan scan = {.at = sql};
    while (next_word(&scan)) {
        if (scan.commented) return false;
    }
    const char *end = scan.at;
    while (end > sql && (is_space(end[-1]) || end[-1] == ';')) end--;
    *place = (size_t)(end - sql);
    return !scan.commented;
}
