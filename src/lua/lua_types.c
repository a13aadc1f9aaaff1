/* The server's text forms as Lua values. No value changes on the way: what a Lua number cannot hold stays
 * text.
 *
 *   bool            boolean
 *   int2 int4 int8  integer; on LuaJIT, whose numbers are doubles, int8 beyond 2^53 stays text
 *   float4 float8   number, NaN and infinities too
 *   numeric         number if its digits survive the way there and back (all up to 15 digits do), else text
 *   json jsonb      decoded; whole numbers too large for a Lua number keep their digits as text
 *   bytea           the bytes
 *   arrays          tables, see lua_array.c
 *   all else        text */
#include "lua_weir.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum type_oid {
    OID_BOOL = 16,
    OID_BYTEA = 17,
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_JSON = 114,
    OID_FLOAT4 = 700,
    OID_FLOAT8 = 701,
    OID_NUMERIC = 1700,
    OID_JSONB = 3802
};

static bool read_whole(const char *text, size_t length, int64_t *out)
{
    bool negative = length > 0 && text[0] == '-';
    uint64_t value = 0;
    size_t i = negative ? 1 : 0;
    if (i == length || length - i > 19) return false; /* 19 digits cannot overflow 64 bits */
    for (; i < length; i++) {
        unsigned digit = (unsigned)(text[i] - '0');
        if (digit > 9) return false;
        value = value * 10 + digit;
    }
    if (value > (uint64_t)INT64_MAX + (negative ? 1 : 0)) return false;
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

static bool push_whole(lua_State *L, const char *text, size_t length)
{
    int64_t value = 0;
    if (!read_whole(text, length, &value)) return false;
#if WL_LUAJIT
    if (value > INT64_C(9007199254740992) || value < -INT64_C(9007199254740992)) return false;
    lua_pushnumber(L, (lua_Number)value);
#else
    lua_pushinteger(L, (lua_Integer)value);
#endif
    return true;
}

enum {
    DIGITS_EXACT = 15
}; /* so many digits are a whole number that a double holds, and so is 10 to that power */

/* The common case, without the cost of strtod: of two exact numbers the quotient is the double nearest to it. */
static bool read_short_double(const char *text, size_t length, double *out)
{
    static const double powers[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    bool negative = length > 0 && text[0] == '-';
    uint64_t digits = 0;
    size_t i = negative ? 1 : 0, after = 0, point = length;
    if (length - i > DIGITS_EXACT + 1) return false;
    for (; i < length; i++) {
        unsigned digit = (unsigned)(text[i] - '0');
        if (digit <= 9) {
            digits = digits * 10 + digit;
            after++;
        } else if (text[i] == '.' && point == length) {
            point = i;
            if (after == 0) return false;
            after = 0;
        } else {
            return false;
        }
    }
    if (after == 0 || digits >= 1000000000000000) return false;
    *out = (double)digits / powers[point == length ? 0 : after];
    if (negative) *out = -*out;
    return true;
}

/* strtod follows the locale a script may have set; the server does not. */
static bool read_double(const char *text, size_t length, double *out)
{
    char copy[64];
    char *end = NULL;
    if (read_short_double(text, length, out)) return true;
    *out = strtod(text, &end);
    if (end == text + length) return length > 0;
    const char *point = memchr(text, '.', length);
    if (point == NULL || length >= sizeof copy) return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    copy[point - text] = localeconv()->decimal_point[0];
    *out = strtod(copy, &end);
    return end == copy + length;
}

static bool push_double(lua_State *L, const char *text, size_t length)
{
    double value = 0;
    if (!read_double(text, length, &value)) return false;
    lua_pushnumber(L, value);
    return true;
}

enum { DIGITS_KEPT = 17 }; /* no double needs more to be told from all others */

/* The significant digits of a number as text: without sign, point, exponent and the zeros at both ends.
 * Returns how many there are, more than DIGITS_KEPT meaning too many to keep. */
static size_t significant(const char *text, size_t length, char digits[DIGITS_KEPT])
{
    size_t count = 0, zeros = 0;
    for (size_t i = 0; i < length && text[i] != 'e'; i++) {
        if (text[i] < '0' || text[i] > '9') continue;
        if (text[i] == '0') {
            if (count > 0) zeros++;
            continue;
        }
        if (count + zeros >= DIGITS_KEPT) return DIGITS_KEPT + 1;
        while (zeros > 0) {
            digits[count++] = '0';
            zeros--;
        }
        digits[count++] = text[i];
    }
    return count;
}

/* Whether the double still says the same digits as the text it was read from. */
static bool survives(const char *text, size_t length, double value)
{
    char wanted[DIGITS_KEPT], got[DIGITS_KEPT], printed[48];
    size_t count = significant(text, length, wanted);
    if (count <= 15) return true;
    if (count > DIGITS_KEPT) return false;
    int written = snprintf(printed, sizeof printed, "%.*e", (int)count - 1, value);
    return significant(printed, (size_t)written, got) == count && memcmp(wanted, got, count) == 0;
}

static bool push_numeric(lua_State *L, const char *text, size_t length)
{
    double value = 0;
    if (push_whole(L, text, length)) return true;
    if (!read_double(text, length, &value)) return false;
    if (isfinite(value) && !survives(text, length, value)) return false;
    if (isinf(value) && memchr(text, 'I', length) == NULL)
        return false; /* too large, as opposed to Infinity */
    if (value == 0 && significant(text, length, (char[DIGITS_KEPT]){0}) > 0) return false; /* too small */
    lua_pushnumber(L, value);
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static void push_hex(lua_State *L, const char *text, size_t length)
{
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (size_t i = 0; i + 1 < length; i += 2) {
        luaL_addchar(&buffer, (char)(hex_digit(text[i]) * 16 + hex_digit(text[i + 1])));
    }
    luaL_pushresult(&buffer);
}

static bool is_octal(const char *text, size_t length)
{
    if (length < 4) return false;
    for (size_t i = 1; i < 4; i++) {
        if (text[i] < '0' || text[i] > '7') return false;
    }
    return true;
}

/* bytea_output = escape: a backslash doubled, or three octal digits after one. */
static void push_escaped(lua_State *L, const char *text, size_t length)
{
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    for (size_t i = 0; i < length; i++) {
        if (text[i] != '\\') {
            luaL_addchar(&buffer, text[i]);
        } else if (is_octal(text + i, length - i)) {
            luaL_addchar(&buffer,
                         (char)((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0')));
            i += 3;
        } else {
            i++;
            if (i < length) luaL_addchar(&buffer, text[i]);
        }
    }
    luaL_pushresult(&buffer);
}

static bool push_bytes(lua_State *L, const char *text, size_t length)
{
    if (length >= 2 && text[0] == '\\' && text[1] == 'x')
        push_hex(L, text + 2, length - 2);
    else
        push_escaped(L, text, length);
    return true;
}

static bool push_json(lua_State *L, const struct wl_decoder *decoder, const char *text, size_t length)
{
    wl_push_json_reader(L, decoder);
    lua_pushlstring(L, text, length);
    lua_call(L, 1, 1);
    return true;
}

uint32_t wl_value_type(uint32_t type)
{
    switch (type) {
    case OID_BOOL:
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
    case OID_FLOAT4:
    case OID_FLOAT8:
    case OID_NUMERIC:
    case OID_BYTEA:
    case OID_TEXT:
    case OID_JSON:
    case OID_JSONB:
        return type;
    default:
        return wl_array_element(type) != 0 ? type : OID_TEXT;
    }
}

/* Apart from wl_push_value, which is called for every value and would save all registers for these few. */
__attribute__((noinline)) static bool push_rarer(lua_State *L, const struct wl_decoder *decoder,
                                                 uint32_t type, const char *text, size_t length)
{
    switch (type) {
    case OID_NUMERIC:
        return push_numeric(L, text, length);
    case OID_BYTEA:
        return push_bytes(L, text, length);
    case OID_JSON:
    case OID_JSONB:
        return push_json(L, decoder, text, length);
    default:
        if (wl_array_element(type) == 0) return false;
        wl_push_array(L, decoder, wl_array_element(type), text, length);
        return true;
    }
}

void wl_push_value(lua_State *L, const struct wl_decoder *decoder, uint32_t type, const char *text,
                   size_t length)
{
    bool pushed = false;
    switch (type) {
    case OID_TEXT:
        break;
    case OID_BOOL:
        lua_pushboolean(L, length > 0 && text[0] == 't');
        return;
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
        pushed = push_whole(L, text, length);
        break;
    case OID_FLOAT4:
    case OID_FLOAT8:
        pushed = push_double(L, text, length);
        break;
    default:
        pushed = push_rarer(L, decoder, type, text, length);
    }
    if (!pushed) lua_pushlstring(L, text, length);
}
