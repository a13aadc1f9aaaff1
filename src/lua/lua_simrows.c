/* Rows for a simulated server out of Lua tables: a list of tables with columns by name. */
#include "lua_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TYPE_BOOL = 16,
    TYPE_INT8 = 20,
    TYPE_TEXT = 25,
    TYPE_FLOAT8 = 701,
    COLUMNS_MAX = 1600,
    ROWS_MAX = 1000000
};

void wl_rows_free(struct wl_rows *rows)
{
    for (size_t i = 0; rows->names != NULL && i < rows->columns; i++) free(rows->names[i]);
    for (size_t i = 0; rows->values != NULL && i < rows->columns * rows->rows; i++) free(rows->values[i]);
    free(rows->names);
    free(rows->values);
    free(rows->types);
    *rows = (struct wl_rows){0};
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Column names of the first row on top of the stack, sorted: the order of a Lua table means nothing. */
static bool names_from_row(lua_State *L, struct wl_rows *rows)
{
    size_t count = 0;
    if (lua_type(L, -1) != LUA_TTABLE) return false;
    for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) count++;
    if (count == 0 || count > COLUMNS_MAX) return false;
    rows->names = calloc(count, sizeof *rows->names);
    for (lua_pushnil(L); rows->names != NULL && lua_next(L, -2) != 0; lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) {
            lua_pop(L, 2);
            return false;
        }
        rows->names[rows->columns] = strdup(lua_tostring(L, -2));
        if (rows->names[rows->columns++] == NULL) {
            lua_pop(L, 2);
            return false;
        }
    }
    if (rows->names != NULL) qsort(rows->names, rows->columns, sizeof *rows->names, by_text);
    return rows->names != NULL;
}

static bool names_from_list(lua_State *L, int list, struct wl_rows *rows)
{
    size_t count = lua_rawlen(L, list);
    if (count == 0 || count > COLUMNS_MAX) return false;
    rows->names = calloc(count, sizeof *rows->names);
    if (rows->names == NULL) return false;
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, list, (int)i + 1);
        bool good = lua_type(L, -1) == LUA_TSTRING;
        if (good) rows->names[rows->columns++] = strdup(lua_tostring(L, -1));
        good = good && rows->names[i] != NULL;
        lua_pop(L, 1);
        if (!good) return false;
    }
    return true;
}

static uint32_t type_of(lua_State *L)
{
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        return TYPE_BOOL;
    case LUA_TNUMBER: {
        double number = lua_tonumber(L, -1);
        bool whole = number >= -9.2e18 && number <= 9.2e18 && number == (double)(int64_t)number;
        return whole ? TYPE_INT8 : TYPE_FLOAT8;
    }
    default:
        return TYPE_TEXT;
    }
}

static void write_number(lua_State *L, char *out, size_t size)
{
#if LUA_VERSION_NUM >= 503
    if (lua_isinteger(L, -1)) {
        (void)snprintf(out, size, LUA_INTEGER_FMT, lua_tointeger(L, -1));
        return;
    }
#endif
    (void)snprintf(out, size, type_of(L) == TYPE_INT8 ? "%.0f" : "%.17g", lua_tonumber(L, -1));
}

/* The value on top as text; NULL for nil and weir.null. False: a table, a function or a zero byte, which no column
 * holds. */
static bool text_of(lua_State *L, char **out)
{
    char digits[40];
    *out = NULL;
    switch (lua_type(L, -1)) {
    case LUA_TNIL:
        return true;
    case LUA_TBOOLEAN:
        return (*out = strdup(lua_toboolean(L, -1) ? "t" : "f")) != NULL;
    case LUA_TNUMBER:
        write_number(L, digits, sizeof digits);
        return (*out = strdup(digits)) != NULL;
    case LUA_TSTRING:
        if (strlen(lua_tostring(L, -1)) != lua_rawlen(L, -1)) return false;
        return (*out = strdup(lua_tostring(L, -1))) != NULL;
    default:
        return wl_is_null(L, -1);
    }
}

static bool read_row(lua_State *L, int list, size_t row, struct wl_rows *rows)
{
    lua_rawgeti(L, list, (int)row + 1);
    bool good = lua_type(L, -1) == LUA_TTABLE;
    for (size_t c = 0; good && c < rows->columns; c++) {
        lua_pushstring(L, rows->names[c]);
        lua_rawget(L, -2);
        if (rows->types[c] == 0 && !lua_isnil(L, -1)) rows->types[c] = type_of(L);
        if (rows->types[c] == TYPE_INT8 && type_of(L) == TYPE_FLOAT8) rows->types[c] = TYPE_FLOAT8;
        good = text_of(L, &rows->values[row * rows->columns + c]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return good;
}

const char *wl_rows_read(lua_State *L, int list, int names, struct wl_rows *rows)
{
    size_t count = lua_rawlen(L, list);
    if (count > ROWS_MAX) return "rows has more than 1 000 000 members";
    bool named;
    if (lua_type(L, names) == LUA_TTABLE) {
        named = names_from_list(L, names, rows);
    } else {
        lua_rawgeti(L, list, 1);
        named = count > 0 && names_from_row(L, rows);
        lua_pop(L, 1);
    }
    if (!named) {
        if (count == 0 && lua_type(L, names) != LUA_TTABLE) return NULL; /* nothing at all */
        return "rows must be a list of tables with columns by name, or come with columns";
    }
    rows->rows = count;
    rows->types = calloc(rows->columns, sizeof *rows->types);
    rows->values = calloc(rows->columns * count + 1, sizeof *rows->values);
    if (rows->types == NULL || rows->values == NULL) return "there is not enough memory for the rows";
    for (size_t r = 0; r < count; r++) {
        if (!read_row(L, list, r, rows))
            return "a row holds a value that is no string (without zero bytes), number, boolean or weir.null";
    }
    for (size_t c = 0; c < rows->columns; c++) {
        if (rows->types[c] == 0) rows->types[c] = TYPE_TEXT;
    }
    return NULL;
}
