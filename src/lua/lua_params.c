/* Lua values as parameters of statements. Strings are passed by pointer; numbers are written into the
 * scratch, which is kept from call to call, so that the steady state allocates nothing here. */
#include "lua_weir.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARAMETERS_MAX = 65535, STATEMENTS_MAX = 1024 };

static bool say(char *why, const char *sentence)
{
    (void)snprintf(why, WEIR_WHY_MAX, "%s", sentence);
    return false;
}

static bool grow(void **block, size_t count, size_t size)
{
    void *larger = realloc(*block, count * size);
    if (larger == NULL) return false;
    *block = larger;
    return true;
}

static bool reserve_parameters(struct wl_scratch *s, size_t count)
{
    if (count <= s->room) return true;
    size_t room = s->room * 2 > count ? s->room * 2 : count + 16;
    if (!grow((void **)&s->values, room, sizeof *s->values) ||
        !grow((void **)&s->lengths, room, sizeof *s->lengths) ||
        !grow((void **)&s->formats, room, sizeof *s->formats) ||
        !grow((void **)&s->types, room, sizeof *s->types) ||
        !grow((void **)&s->digits, room, sizeof *s->digits)) {
        return false;
    }
    s->room = room;
    return true;
}

static bool reserve_statements(struct wl_scratch *s, size_t count)
{
    if (count <= s->statement_room) return true;
    if (!grow((void **)&s->statements, count + 8, sizeof *s->statements)) return false;
    s->statement_room = count + 8;
    return true;
}

void wl_scratch_free(struct wl_scratch *scratch)
{
    free(scratch->statements);
    free(scratch->values);
    free(scratch->lengths);
    free(scratch->formats);
    free(scratch->types);
    free(scratch->digits);
    *scratch = (struct wl_scratch){0};
}

/* The shortest text that reads back as the same number. Whole numbers never get an exponent: the server
 * would not take 1e+15 for an integer. */
static void write_double(char *out, double value)
{
    if (isnan(value)) {
        memcpy(out, "NaN", 4);
    } else if (isinf(value)) {
        (void)snprintf(out, WL_TEXT_MAX, "%sInfinity", value < 0 ? "-" : "");
    } else if (value == floor(value) && fabs(value) < 1e18) {
        (void)snprintf(out, WL_TEXT_MAX, "%.0f", value);
    } else {
        for (int precision = 15; precision <= 17; precision++) {
            (void)snprintf(out, WL_TEXT_MAX, "%.*g", precision, value);
            if (strtod(out, NULL) == value) break;
        }
        char *point = strchr(out, localeconv()->decimal_point[0]);
        if (point != NULL) *point = '.'; /* the server knows nothing of a locale the script may have set */
    }
}

static void write_number(lua_State *L, int index, char *out)
{
#if !WL_LUAJIT
    if (lua_isinteger(L, index)) {
        (void)snprintf(out, WL_TEXT_MAX, LUA_INTEGER_FMT, lua_tointeger(L, index));
        return;
    }
#endif
    write_double(out, lua_tonumber(L, index));
}

static bool add_string(lua_State *L, struct wl_scratch *s, int index, bool binary, char *why)
{
    size_t length = 0;
    const char *text = lua_tolstring(L, index, &length);
    if (length > 0x3fffffff) return say(why, "is longer than a gigabyte, which the server takes from nobody");
    s->values[s->used] = text;
    s->lengths[s->used] = (int)length;
    /* Text ends at its first zero byte; sent as binary it arrives whole. */
    s->formats[s->used] = binary || memchr(text, '\0', length) != NULL;
    return true;
}

/* A wrapper made by weir.json, weir.array or weir.bytea: [1] is the text, [2] says that it is binary. */
static bool add_wrapper(lua_State *L, struct wl_scratch *s, int index, char *why)
{
    if (!wl_is_parameter(L, index)) {
        return say(why,
                   "is a plain table; wrap it in weir.json(t) or weir.array(t) to say what it should become");
    }
    index = lua_absindex(L, index);
    lua_rawgeti(L, index, 2);
    bool binary = lua_toboolean(L, -1) != 0;
    lua_rawgeti(L, index, 1);
    bool good = lua_type(L, -1) == LUA_TSTRING && add_string(L, s, -1, binary, why);
    lua_pop(L, 2); /* the wrapper still holds the string */
    return good;
}

/* Adds the value at index. Room was made before, so the pointers already handed out stay good. */
static bool add_value(lua_State *L, struct wl_scratch *s, int index, char *why)
{
    bool good = true;
    s->values[s->used] = NULL;
    s->lengths[s->used] = 0;
    s->formats[s->used] = 0;
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        break;
    case LUA_TBOOLEAN:
        s->values[s->used] = lua_toboolean(L, index) ? "t" : "f";
        break;
    case LUA_TNUMBER:
        write_number(L, index, s->digits[s->used]);
        s->values[s->used] = s->digits[s->used];
        break;
    case LUA_TSTRING:
        good = add_string(L, s, index, false, why);
        break;
    case LUA_TTABLE:
        if (!wl_is_null(L, index)) good = add_wrapper(L, s, index, why);
        break;
    default:
        (void)snprintf(why, WEIR_WHY_MAX,
                       "is a %s; it must be nil, a boolean, a number, a string, weir.null, weir.json, "
                       "weir.array or weir.bytea",
                       luaL_typename(L, index));
        good = false;
    }
    s->used++;
    return good;
}

static bool name_parameter(char *why, size_t statement, size_t parameter)
{
    char said[WEIR_WHY_MAX];
    memcpy(said, why, sizeof said);
    if (statement == 0)
        (void)snprintf(why, WEIR_WHY_MAX, "parameter $%zu %.220s", parameter, said);
    else
        (void)snprintf(why, WEIR_WHY_MAX, "parameter $%zu of statement %zu %.200s", parameter, statement,
                       said);
    return false;
}

static bool read_sql(lua_State *L, int index, weir_statement *statement, char *why)
{
    *statement = (weir_statement){0};
    if (lua_type(L, index) != LUA_TSTRING) {
        (void)snprintf(why, WEIR_WHY_MAX, "the SQL is a %s; it must be a string",
                       lua_isnone(L, index) ? "nil" : luaL_typename(L, index));
        return false;
    }
    size_t length = 0;
    statement->sql = lua_tolstring(L, index, &length);
    if (strlen(statement->sql) != length) return say(why, "the SQL holds a zero byte");
    return true;
}

static void begin_values(struct wl_scratch *s, weir_statement *statement, size_t count)
{
    statement->values = s->values + s->used;
    statement->lengths = s->lengths + s->used;
    statement->formats = s->formats + s->used;
    statement->count = count;
}

const weir_statement *wl_params_one(lua_State *L, struct wl_scratch *s, int first, int last, char *why)
{
    size_t count = last > first ? (size_t)(last - first) : 0;
    s->used = 0;
    why[0] = '\0';
    if (count > PARAMETERS_MAX) return say(why, "more than 65535 parameters"), NULL;
    if (!reserve_statements(s, 1) || !reserve_parameters(s, count)) return say(why, "out of memory"), NULL;
    if (!read_sql(L, first, s->statements, why)) return NULL;
    begin_values(s, s->statements, count);
    for (int i = first + 1; i <= last; i++) {
        if (!add_value(L, s, i, why)) return name_parameter(why, 0, (size_t)(i - first)), NULL;
    }
    return s->statements;
}

/* How many elements { sql, ... } has: its field n, or its largest index, so that a nil in the middle counts.
 */
static size_t members(lua_State *L, int index)
{
    size_t most = lua_rawlen(L, index);
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TNUMBER) {
            double key = lua_tonumber(L, -2);
            if (key > (double)most && key <= PARAMETERS_MAX + 1) most = (size_t)key;
        } else if (lua_type(L, -2) == LUA_TSTRING && strcmp(lua_tostring(L, -2), "n") == 0) {
            double n = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
            if (n > (double)most && n <= PARAMETERS_MAX + 1) most = (size_t)n;
        }
    }
    return most;
}

/* { sql, ..., types = { 25, 0, 1700 } }: the types of the parameters, 0 and nil for the server to infer. The values begin
 * where the statement's do. */
static bool add_types(lua_State *L, struct wl_scratch *s, weir_statement *statement, int table, char *why)
{
    size_t first = s->used - statement->count;
    lua_getfield(L, table, "types");
    if (lua_isnil(L, -1) || statement->count == 0) return (void)lua_pop(L, 1), true;
    bool good =
        lua_type(L, -1) == LUA_TTABLE || say(why, "types is no table; it must be a list of type OIDs");
    for (size_t i = 0; good && i < statement->count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        double oid = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : lua_isnil(L, -1) ? 0 : -1;
        good = (oid >= 0 && oid <= (double)UINT32_MAX && oid == floor(oid)) ||
               say(why, "types holds something that is no type OID");
        if (good) s->types[first + i] = (uint32_t)oid;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    statement->types = s->types + first;
    return good;
}

static bool name_statement(char *why, size_t number)
{
    char said[WEIR_WHY_MAX];
    memcpy(said, why, sizeof said);
    (void)snprintf(why, WEIR_WHY_MAX, "statement %zu: %.220s", number, said);
    return false;
}

static bool add_statement(lua_State *L, struct wl_scratch *s, size_t number, char *why)
{
    int table = lua_gettop(L);
    size_t count = members(L, table);
    weir_statement *statement = &s->statements[number - 1];
    lua_rawgeti(L, table, 1);
    bool good = read_sql(L, -1, statement, why); /* the table holds the string */
    lua_pop(L, 1);
    if (!good) return name_statement(why, number);
    begin_values(s, statement, count - 1);
    for (size_t i = 2; i <= count; i++) {
        lua_rawgeti(L, table, (int)i);
        good = add_value(L, s, -1, why);
        lua_pop(L, 1);
        if (!good) return name_parameter(why, number, i - 1);
    }
    return add_types(L, s, statement, table, why) || name_statement(why, number);
}

static bool count_parameters(lua_State *L, int index, size_t count, size_t *parameters, char *why)
{
    *parameters = 0;
    for (size_t i = 1; i <= count; i++) {
        lua_rawgeti(L, index, (int)i);
        bool table = lua_type(L, -1) == LUA_TTABLE;
        if (table)
            *parameters += members(L, lua_gettop(L));
        else
            (void)snprintf(why, WEIR_WHY_MAX, "statement %zu is a %s; it must be a table { sql, ... }", i,
                           luaL_typename(L, -1));
        lua_pop(L, 1);
        if (!table) return false;
    }
    return *parameters <= PARAMETERS_MAX || say(why, "more than 65535 parameters");
}

const weir_statement *wl_params_many(lua_State *L, struct wl_scratch *s, int index, size_t *count, char *why)
{
    size_t parameters = 0;
    s->used = 0;
    why[0] = '\0';
    index = lua_absindex(L, index);
    luaL_checkstack(L, 8, "parameters");
    if (lua_type(L, index) != LUA_TTABLE) {
        (void)snprintf(why, WEIR_WHY_MAX, "the statements are a %s; they must be a list of { sql, ... }",
                       luaL_typename(L, index));
        return NULL;
    }
    *count = lua_rawlen(L, index);
    if (*count == 0 || *count > STATEMENTS_MAX) {
        (void)snprintf(why, WEIR_WHY_MAX, "a pipeline of %zu statements; it must have 1 to %d", *count,
                       STATEMENTS_MAX);
        return NULL;
    }
    if (!count_parameters(L, index, *count, &parameters, why)) return NULL;
    if (!reserve_statements(s, *count) || !reserve_parameters(s, parameters))
        return say(why, "out of memory"), NULL;
    for (size_t i = 1; i <= *count; i++) {
        lua_rawgeti(L, index, (int)i);
        bool good = add_statement(L, s, i, why);
        lua_pop(L, 1);
        if (!good) return NULL;
    }
    return s->statements;
}
