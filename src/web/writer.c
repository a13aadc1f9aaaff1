/* Text in the engine's scratch memory, see writer.h. */
#include "web/writer.h"

#include "base/text.h"

#include <time.h>

/* ---- room -------------------------------------------------------------------------------------------------------- */

void wr_writer_init(struct wr_writer *w, weir_area *area)
{
    *w = (struct wr_writer){.area = area};
    w->data = weir_scratch(area, 1, &w->room);
    w->failed = w->data == NULL;
}

bool wr_writer_grow(struct wr_writer *w, size_t more)
{
    char *data = NULL;
    size_t room = w->room;
    if (!w->failed && more < SIZE_MAX - w->length) data = weir_scratch(w->area, w->length + more, &room);
    if (data == NULL) {
        w->failed = true;
        return false;
    }
    w->data = data;
    w->room = room;
    return true;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

enum { DIGITS = 20 };

/* The digits of `number`, at least `least` of them, at the end of `out`; returns where they begin. */
static char *digits(char out[DIGITS], uint64_t number, int least)
{
    char *at = out + DIGITS;
    for (; number != 0 || least > 0; least--) {
        *--at = (char)('0' + number % 10);
        number /= 10;
    }
    return at;
}

void wr_put_count(struct wr_writer *w, uint64_t number)
{
    char text[DIGITS], *from = digits(text, number, 1);
    wr_put(w, from, (size_t)(text + DIGITS - from));
}

/* A whole number of 10^-decimals, without the zeros behind. */
static void put_decimal(struct wr_writer *w, uint64_t whole, uint64_t fraction, int decimals)
{
    wr_put_count(w, whole);
    if (fraction == 0) return;
    char text[DIGITS], *from = digits(text, fraction, decimals), *to = text + DIGITS;
    while (to[-1] == '0') to--;
    wr_put(w, ".", 1);
    wr_put(w, from, (size_t)(to - from));
}

void wr_put_seconds(struct wr_writer *w, uint64_t ns)
{
    put_decimal(w, ns / 1000000000, ns % 1000000000, 9);
}

void wr_put_moment(struct wr_writer *w, uint64_t us)
{
    put_decimal(w, us / 1000000, us % 1000000, 6);
}

void wr_put_ratio(struct wr_writer *w, double ratio)
{
    double millionths = ratio * 1e6 + 0.5;
    uint64_t n = millionths > 0 && millionths < 1e18 ? (uint64_t)millionths : 0;
    put_decimal(w, n / 1000000, n % 1000000, 6);
}

void wr_put_rfc3339(struct wr_writer *w, uint64_t us)
{
    char text[32];
    time_t seconds = (time_t)(us / 1000000);
    struct tm when;
    if (gmtime_r(&seconds, &when) == NULL) return;
    wr_put(w, text, strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &when));
}

/* ---- strings ------------------------------------------------------------------------------------------------------- */

static void put_hex(struct wr_writer *w, const char *prefix, unsigned char byte)
{
    static const char hex[] = "0123456789abcdef";
    char text[2] = {hex[byte >> 4], hex[byte & 15]};
    wr_puts(w, prefix);
    wr_put(w, text, 2);
}

static bool is_printable(const char *text, size_t length)
{
    unsigned char byte = (unsigned char)*text;
    return length > 1 ? memcmp(text, "\xef\xbf\xbd", 3) != 0 : length == 1 && byte >= 0x20 && byte != 0x7f;
}

void wr_put_label(struct wr_writer *w, const char *text)
{
    while (*text != '\0') {
        size_t length = wr_text_character(text);
        if (*text == '\n') {
            wr_put(w, "\\n", 2);
        } else if (!is_printable(text, length)) {
            put_hex(w, "\xef\xbf\xbd", (unsigned char)*text);
            length = 1;
        } else {
            if (*text == '"' || *text == '\\') wr_put(w, "\\", 1);
            wr_put(w, text, length);
        }
        text += length;
    }
}

void wr_put_json(struct wr_writer *w, const char *text)
{
    wr_put(w, "\"", 1);
    while (*text != '\0') {
        size_t length = wr_text_character(text);
        if (length == 0) {
            wr_put(w, "\xef\xbf\xbd", 3);
            length = 1;
        } else if ((unsigned char)*text < 0x20) {
            put_hex(w, "\\u00", (unsigned char)*text);
        } else {
            if (*text == '"' || *text == '\\') wr_put(w, "\\", 1);
            wr_put(w, text, length);
        }
        text += length;
    }
    wr_put(w, "\"", 1);
}
