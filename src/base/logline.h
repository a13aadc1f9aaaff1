/* One line of a structured log, as logfmt or as JSON: pairs of a key, which is ours, and a value, which may come from
 * anywhere. A line never breaks, never gets longer than WR_LOG_LINE bytes, and is well-formed whatever it was given: a
 * text that is too long is cut, a field for which there is no room left is left out. Control characters (those of
 * terminals too) are escaped, and what is not UTF-8 becomes U+FFFD. */
#ifndef WR_LOGLINE_H
#define WR_LOGLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WR_LOG_LINE = 2048 }; /* bytes, the line feed among them; less than what a pipe takes in one piece */

struct wr_log_line {
    bool json;
    size_t length; /* so far; of the whole line once it has ended */
    char text[WR_LOG_LINE + 1];
};

void wr_log_begin(struct wr_log_line *line, bool json);
/* NULL and "" are left out. At most `most` bytes of the line for the text, escapes counted. */
void wr_log_text(struct wr_log_line *line, const char *key, const char *value, size_t most);
void wr_log_part(struct wr_log_line *line, const char *key, const char *value,
                 size_t length);                                          /* of a plain text */
void wr_log_time(struct wr_log_line *line, const char *key, uint64_t us); /* since 1970; RFC 3339, UTC */
void wr_log_count(struct wr_log_line *line, const char *key, uint64_t count);
void wr_log_hex(struct wr_log_line *line, const char *key, uint64_t number);
void wr_log_ms(struct wr_log_line *line, const char *key,
               uint64_t us); /* milliseconds, with three decimals */
/* JSON: `value` as it stands, which must be a whole value of JSON; logfmt: as a text. */
void wr_log_raw(struct wr_log_line *line, const char *key, const char *value);
void wr_log_end(struct wr_log_line *line);

#endif
