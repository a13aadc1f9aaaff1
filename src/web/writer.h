/* Text put together in the engine's scratch memory. Numbers are written by hand: no locale, no format to parse, and fast
 * enough for twenty thousand lines in a few milliseconds. Lack of memory sticks in `failed`. */
#ifndef WR_WRITER_H
#define WR_WRITER_H

#include "weir/metrics.h"

#include <string.h>

struct wr_writer {
    weir_area *area;
    char *data; /* moves when it grows: keep offsets, not addresses */
    size_t length, room;
    bool failed;
};

void wr_writer_init(struct wr_writer *w, weir_area *area);
/* Room for `more` bytes; false and failed if there is none. */
bool wr_writer_grow(struct wr_writer *w, size_t more);

static inline void wr_put(struct wr_writer *w, const char *text, size_t length)
{
    if (w->room - w->length < length && !wr_writer_grow(w, length)) return;
    memcpy(w->data + w->length, text, length);
    w->length += length;
}

static inline void wr_puts(struct wr_writer *w, const char *text)
{
    wr_put(w, text, strlen(text));
}

void wr_put_count(struct wr_writer *w, uint64_t number);
void wr_put_seconds(struct wr_writer *w, uint64_t ns);   /* exact */
void wr_put_moment(struct wr_writer *w, uint64_t us);    /* seconds since 1970, exact */
void wr_put_ratio(struct wr_writer *w, double ratio);    /* six decimals; not a number and below zero: 0 */
void wr_put_rfc3339(struct wr_writer *w, uint64_t us);   /* 2026-01-31T12:00:00Z */
void wr_put_json(struct wr_writer *w, const char *text); /* quoted and escaped */
/* The value of a Prometheus label, without quotes. What is not printable UTF-8 becomes U+FFFD and two hex digits for each
 * byte, U+FFFD itself included: values that differ stay different, or two series would be one. */
void wr_put_label(struct wr_writer *w, const char *text);

#endif
