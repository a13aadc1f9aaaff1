/* Bounded text. Everything that leaves the engine (messages, labels, JSON) has a size it may not pass; cutting
 * happens between UTF-8 characters and never loses the terminating NUL. */
#ifndef WR_TEXT_H
#define WR_TEXT_H

#include "base/memory.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Copies at most size - 1 bytes, whole UTF-8 characters only. `from` may be NULL (gives ""). Returns bytes written. */
size_t wr_text_copy(char *to, size_t size, const char *from);
size_t wr_text_format(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Bytes of the UTF-8 character at `text`, which is not its end; 0 if there is none. */
size_t wr_text_character(const char *text);

/* A buffer that keeps its memory when emptied, so a reused one stops allocating. Strings live at stable offsets,
 * not addresses. On lack of memory `failed` sticks and the contents stay valid up to there. */
struct wr_buffer {
    char *data;
    size_t length, room;
    bool failed;
    const struct wr_memory *memory;
};

void wr_buffer_init(struct wr_buffer *buffer, const struct wr_memory *memory);
void wr_buffer_release(struct wr_buffer *buffer);
void wr_buffer_clear(struct wr_buffer *buffer); /* length 0, failed false, memory kept */
size_t wr_buffer_add(struct wr_buffer *buffer, const void *data, size_t length); /* offset where it was put */
size_t wr_buffer_add_text(struct wr_buffer *buffer, const char *text);           /* with its NUL; offset */
void wr_buffer_printf(struct wr_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void wr_buffer_json_string(struct wr_buffer *buffer,
                           const char *text); /* quoted and escaped; invalid UTF-8 becomes U+FFFD */

#endif
