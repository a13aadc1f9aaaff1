/* A field is written behind the last one and taken back if it does not fit; room for the end is always kept. */
#include "base/logline.h"

#include "base/text.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

enum { END = 2, ESCAPE_MAX = 8 }; /* "}\n"; the longest piece that one character becomes */

static size_t room_left(const struct wr_log_line *line)
{
    return WR_LOG_LINE - END - line->length;
}

static bool add(struct wr_log_line *line, const char *piece, size_t length)
{
    if (length > room_left(line)) return false;
    memcpy(line->text + line->length, piece, length);
    line->length += length;
    return true;
}

static bool add_text(struct wr_log_line *line, const char *text)
{
    return add(line, text, strlen(text));
}

void wr_log_begin(struct wr_log_line *line, bool json)
{
    line->json = json;
    line->length = 0;
    if (json) add_text(line, "{");
}

/* ---- keys ---- */

static bool add_key(struct wr_log_line *line, const char *key)
{
    bool first = line->length == (line->json ? 1u : 0u);
    if (!line->json) return (first || add_text(line, " ")) && add_text(line, key) && add_text(line, "=");
    return (first || add_text(line, ",")) && add_text(line, "\"") && add_text(line, key) &&
           add_text(line, "\":");
}

static void add_field(struct wr_log_line *line, const char *key, const char *value)
{
    size_t before = line->length;
    if (!add_key(line, key) || !add_text(line, value)) line->length = before;
}

/* ---- text ---- */

static unsigned code_of(const unsigned char *at, size_t length)
{
    if (length == 1) return at[0];
    if (length == 2) return (at[0] & 0x1fu) << 6 | (at[1] & 0x3fu);
    if (length == 3) return (at[0] & 0x0fu) << 12 | (at[1] & 0x3fu) << 6 | (at[2] & 0x3fu);
    return (at[0] & 0x07u) << 18 | (at[1] & 0x3fu) << 12 | (at[2] & 0x3fu) << 6 | (at[3] & 0x3fu);
}

/* What makes a line read otherwise than it is: C0, DEL and C1, with which one can steer a terminal; the marks that turn the
 * direction of writing; and the separators of lines and paragraphs. */
static bool is_steering(unsigned code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e ||
           code == 0x200f || (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

static size_t escape(char *to, unsigned code)
{
    if (code == '\n') return wr_text_format(to, ESCAPE_MAX, "\\n");
    if (code == '\t') return wr_text_format(to, ESCAPE_MAX, "\\t");
    if (code == '\r') return wr_text_format(to, ESCAPE_MAX, "\\r");
    if (code == '"' || code == '\\') return wr_text_format(to, ESCAPE_MAX, "\\%c", (char)code);
    return wr_text_format(to, ESCAPE_MAX, "\\u%04x", code);
}

/* The character at `at` as it goes into the line: its bytes in `piece`, of which there are *size. Returns how many it
 * takes in the text. */
static size_t next_piece(const char *at, char *piece, size_t *size)
{
    size_t length = wr_text_character(at);
    if (length == 0) {
        *size = wr_text_format(piece, ESCAPE_MAX, "\xef\xbf\xbd");
        return 1;
    }
    unsigned code = code_of((const unsigned char *)at, length);
    if (is_steering(code) || code == '"' || code == '\\') {
        *size = escape(piece, code);
    } else {
        memcpy(piece, at, length);
        *size = length;
    }
    return length;
}

static bool is_bare(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-_./:@+*%,", c) != NULL);
}

/* logfmt: a word needs no quotes. */
static bool needs_quotes(const struct wr_log_line *line, const char *value)
{
    if (line->json) return true;
    while (is_bare(*value)) value++;
    return *value != '\0';
}

/* Whole characters only, as far as they fit; so a text may be cut but its field is sound. */
static bool add_quoted(struct wr_log_line *line, const char *value, size_t most)
{
    if (!add_text(line, "\"")) return false;
    size_t used = 0;
    while (*value != '\0') {
        char piece[ESCAPE_MAX];
        size_t size = 0, taken = next_piece(value, piece, &size);
        if (used + size > most || size + 1 > room_left(line)) break;
        add(line, piece, size);
        used += size;
        value += taken;
    }
    return add_text(line, "\"");
}

void wr_log_text(struct wr_log_line *line, const char *key, const char *value, size_t most)
{
    if (value == NULL || *value == '\0') return;
    size_t before = line->length;
    bool done = add_key(line, key);
    if (done && (needs_quotes(line, value) || strlen(value) > most))
        done = add_quoted(line, value, most);
    else if (done)
        done = add_text(line, value);
    if (!done) line->length = before;
}

void wr_log_part(struct wr_log_line *line, const char *key, const char *value, size_t length)
{
    char part[64];
    if (length >= sizeof part) return;
    memcpy(part, value, length);
    part[length] = '\0';
    wr_log_text(line, key, part, sizeof part);
}

/* ---- times and numbers ---- */

void wr_log_time(struct wr_log_line *line, const char *key, uint64_t us)
{
    time_t seconds = (time_t)(us / 1000000);
    struct tm utc;
    char value[64];
    if (gmtime_r(&seconds, &utc) == NULL) return; /* a clock of the year 2^31 */
    wr_text_format(value, sizeof value, "%04d-%02d-%02dT%02d:%02d:%02d.%06uZ", utc.tm_year + 1900,
                   utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                   (unsigned)(us % 1000000));
    wr_log_text(line, key, value, sizeof value);
}

void wr_log_count(struct wr_log_line *line, const char *key, uint64_t count)
{
    char value[24];
    wr_text_format(value, sizeof value, "%" PRIu64, count);
    add_field(line, key, value);
}

void wr_log_hex(struct wr_log_line *line, const char *key, uint64_t number)
{
    char value[24];
    wr_text_format(value, sizeof value, "%" PRIx64, number);
    wr_log_text(line, key, value, sizeof value);
}

/* Not by %f: a program may have set a locale with another decimal point. */
void wr_log_ms(struct wr_log_line *line, const char *key, uint64_t us)
{
    char value[32];
    wr_text_format(value, sizeof value, "%" PRIu64 ".%03u", us / 1000, (unsigned)(us % 1000));
    add_field(line, key, value);
}

void wr_log_raw(struct wr_log_line *line, const char *key, const char *value)
{
    if (line->json)
        add_field(line, key, value);
    else
        wr_log_text(line, key, value, WR_LOG_LINE);
}

void wr_log_end(struct wr_log_line *line)
{
    if (line->json) line->text[line->length++] = '}';
    line->text[line->length++] = '\n';
    line->text[line->length] = '\0';
}
