/* Bounded text, the growing buffer, and JSON strings. */
#include "base/text.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_ROOM = 64 };

/* ---- UTF-8 ---- */

static bool is_continuation(unsigned char byte)
{
    return (byte & 0xc0u) == 0x80u;
}

/* Bytes that a lead byte promises, itself included; 0 if it cannot start a character. */
static size_t promised_length(unsigned char lead)
{
    if (lead < 0x80) return 1;
    if (lead >= 0xc2 && lead <= 0xdf) return 2;
    if (lead >= 0xe0 && lead <= 0xef) return 3;
    if (lead >= 0xf0 && lead <= 0xf4) return 4;
    return 0;
}

/* The second byte is where overlong forms, surrogates and code points past U+10FFFF show. */
static bool second_byte_fits(unsigned char lead, unsigned char second)
{
    switch (lead) {
    case 0xe0:
        return second >= 0xa0 && second <= 0xbf;
    case 0xed:
        return second >= 0x80 && second <= 0x9f;
    case 0xf0:
        return second >= 0x90 && second <= 0xbf;
    case 0xf4:
        return second >= 0x80 && second <= 0x8f;
    default:
        return is_continuation(second);
    }
}

size_t wr_text_character(const char *at)
{
    const unsigned char *text = (const unsigned char *)at;
    size_t length = promised_length(text[0]);
    if (length < 2) return length;
    if (!second_byte_fits(text[0], text[1])) return 0;
    for (size_t i = 2; i < length; i++) {
        if (!is_continuation(text[i])) return 0;
    }
    return length;
}

/* How much of the first `length` bytes to keep so that no character is cut. Bytes that are not UTF-8 stay. */
static size_t whole_characters(const char *text, size_t length)
{
    size_t back = 0;
    while (back < 3 && back < length && is_continuation((unsigned char)text[length - 1 - back])) back++;
    if (back == length) return length;
    size_t promised = promised_length((unsigned char)text[length - 1 - back]);
    return promised > back + 1 ? length - 1 - back : length;
}

/* ---- bounded copies ---- */

size_t wr_text_copy(char *to, size_t size, const char *from)
{
    if (size == 0) return 0;
    size_t length = from == NULL ? 0 : strnlen(from, size);
    if (length == size) length = whole_characters(from, size - 1);
    if (length > 0) memcpy(to, from, length);
    to[length] = '\0';
    return length;
}

size_t wr_text_format(char *to, size_t size, const char *format, ...)
{
    if (size == 0) return 0;
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(to, size, format, args);
    va_end(args);
    if (wanted < 0) {
        to[0] = '\0';
        return 0;
    }
    size_t length = (size_t)wanted;
    if (length >= size) {
        length = whole_characters(to, size - 1);
        to[length] = '\0';
    }
    return length;
}

/* ---- the buffer ---- */

void wr_buffer_init(struct wr_buffer *buffer, const struct wr_memory *memory)
{
    *buffer = (struct wr_buffer){.memory = memory};
}

void wr_buffer_release(struct wr_buffer *buffer)
{
    wr_free(buffer->memory, buffer->data);
    wr_buffer_init(buffer, buffer->memory);
}

void wr_buffer_clear(struct wr_buffer *buffer)
{
    buffer->length = 0;
    buffer->failed = false;
    if (buffer->data != NULL) buffer->data[0] = '\0';
}

/* Room for `more` bytes and a NUL behind them, which keeps `data` printable at any moment. */
static bool make_room(struct wr_buffer *buffer, size_t more)
{
    if (buffer->failed) return false;
    if (more < buffer->room - buffer->length) return true;
    size_t room = buffer->room < FIRST_ROOM ? FIRST_ROOM : buffer->room;
    while (room - buffer->length <= more && room <= SIZE_MAX / 2) room *= 2;
    char *wider = room - buffer->length <= more ? NULL : wr_resize(buffer->memory, buffer->data, room);
    if (wider == NULL) {
        buffer->failed = true;
        return false;
    }
    buffer->data = wider;
    buffer->room = room;
    return true;
}

size_t wr_buffer_add(struct wr_buffer *buffer, const void *data, size_t length)
{
    size_t offset = buffer->length;
    if (!make_room(buffer, length)) return offset;
    if (length > 0) memcpy(buffer->data + offset, data, length);
    buffer->length = offset + length;
    buffer->data[buffer->length] = '\0';
    return offset;
}

size_t wr_buffer_add_text(struct wr_buffer *buffer, const char *text)
{
    return wr_buffer_add(buffer, text, strlen(text) + 1);
}

void wr_buffer_printf(struct wr_buffer *buffer, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int wanted = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (wanted < 0) {
        buffer->failed = true;
    } else if (make_room(buffer, (size_t)wanted)) {
        vsnprintf(buffer->data + buffer->length, (size_t)wanted + 1, format, again);
        buffer->length += (size_t)wanted;
    }
    va_end(again);
}

/* ---- JSON ---- */

/* The two-character escape of a byte, or NULL if it has none. */
static const char *short_escape(unsigned char byte)
{
    switch (byte) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        return NULL;
    }
}

static bool stands_for_itself(unsigned char byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/* Writes one character and returns the bytes of input it took. */
static size_t json_character(struct wr_buffer *buffer, const unsigned char *text)
{
    const char *escape = short_escape(text[0]);
    size_t length = wr_text_character((const char *)text);
    if (escape != NULL) {
        wr_buffer_add(buffer, escape, 2);
    } else if (text[0] < 0x20) {
        wr_buffer_printf(buffer, "\\u%04x", text[0]);
    } else if (length == 0) {
        wr_buffer_add(buffer, "\xef\xbf\xbd", 3);
        length = 1;
    } else {
        wr_buffer_add(buffer, text, length);
    }
    return length;
}

void wr_buffer_json_string(struct wr_buffer *buffer, const char *text)
{
    const unsigned char *at = (const unsigned char *)(text == NULL ? "" : text);
    wr_buffer_add(buffer, "\"", 1);
    while (*at != '\0') {
        const unsigned char *plain = at;
        while (stands_for_itself(*at)) at++;
        wr_buffer_add(buffer, plain, (size_t)(at - plain));
        if (*at != '\0') at += json_character(buffer, at);
    }
    wr_buffer_add(buffer, "\"", 1);
}
