/* Strict reading of option tables: every key is known, of the right type and in range, or one sentence says
 * which is not, by its full path. Values of strings are never quoted: one of them is a password. */
#include "lua_weir.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const double most_seconds = 366.0 * 24 * 3600;

bool wl_complain(struct wl_reader *reader, const char *name, const char *format, ...)
{
    if (reader->why[0] != '\0') return false; /* the first complaint stands */
    char said[160];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(said, sizeof said, format, arguments);
    va_end(arguments);
    const char *dot = reader->path[0] != '\0' && name[0] != '\0' ? "." : "";
    (void)snprintf(reader->why, sizeof reader->why, "%s%s%.40s%s%.140s", reader->path, dot, name,
                   reader->path[0] != '\0' || name[0] != '\0' ? " " : "", said);
    return false;
}

static size_t least_of(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Edit distance (Levenshtein) of two short words. */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 40 };
    size_t m = strlen(a), n = strlen(b), row[LONGEST + 1];
    if (m > LONGEST || n > LONGEST) return LONGEST;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 1; i <= m; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t above = row[j];
            row[j] = least_of(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[n];
}

static bool complain_unknown(struct wl_reader *reader, const char *key, const struct wl_field *fields,
                             size_t count)
{
    const char *nearest = NULL;
    size_t best = strlen(key) > 5 ? 4 : 3; /* at most 3 slips in a long word, 2 in a short one */
    for (size_t i = 0; i < count; i++) {
        size_t d = distance(key, fields[i].name);
        if (d < best) {
            best = d;
            nearest = fields[i].name;
        }
    }
    if (nearest != NULL) return wl_complain(reader, key, "is not a known option; did you mean %s?", nearest);
    return wl_complain(reader, key, "is not a known option");
}

static const struct wl_field *find_field(const char *name, const struct wl_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, fields[i].name) == 0) return &fields[i];
    }
    return NULL;
}

static bool check_keys(struct wl_reader *reader, int index, const struct wl_field *fields, size_t count)
{
    lua_State *L = reader->L;
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
        bool known = false;
        if (lua_type(L, -2) != LUA_TSTRING) {
            (void)wl_complain(reader, "", "has a key that is a %s; options have names", luaL_typename(L, -2));
        } else {
            const char *key = lua_tostring(L, -2);
            known = find_field(key, fields, count) != NULL || complain_unknown(reader, key, fields, count);
        }
        if (!known) {
            lua_pop(L, 2);
            return false;
        }
    }
    return true;
}

static bool wrong_type(struct wl_reader *reader, const struct wl_field *field, const char *wanted)
{
    return wl_complain(reader, field->name, "is a %s; it must be %s", luaL_typename(reader->L, -1), wanted);
}

static bool read_string(struct wl_reader *reader, const struct wl_field *field, char *into)
{
    if (lua_type(reader->L, -1) != LUA_TSTRING) return wrong_type(reader, field, "a string");
    size_t length = 0;
    const char *text = lua_tolstring(reader->L, -1, &length);
    if (strlen(text) != length)
        return wl_complain(reader, field->name, "holds a zero byte, which no option may");
    memcpy(into + field->offset, &text, sizeof text);
    return true;
}

static bool read_bool(struct wl_reader *reader, const struct wl_field *field, char *into)
{
    if (lua_type(reader->L, -1) != LUA_TBOOLEAN) return wrong_type(reader, field, "true or false");
    bool value = lua_toboolean(reader->L, -1) != 0;
    memcpy(into + field->offset, &value, sizeof value);
    return true;
}

static bool read_seconds(struct wl_reader *reader, const struct wl_field *field, char *into)
{
    if (lua_type(reader->L, -1) != LUA_TNUMBER) return wrong_type(reader, field, "a number of seconds");
    double seconds = lua_tonumber(reader->L, -1);
    bool positive = field->kind == WL_DURATION;
    if (!(seconds >= (positive ? 1e-9 : 0.0) && seconds <= most_seconds)) {
        return wl_complain(reader, field->name, "is %.14g; it must be %s 0 and at most a year, in seconds",
                           seconds, positive ? "more than" : "at least");
    }
    uint64_t ns = (uint64_t)(seconds * 1e9 + 0.5); /* 0.3 s is not one nanosecond short */
    if (seconds > 0 && ns == 0) ns = 1; /* 0 often means "off", which is not what a tiny number says */
    memcpy(into + field->offset, &ns, sizeof ns);
    return true;
}

static bool read_whole(struct wl_reader *reader, const struct wl_field *field, char *into)
{
    if (lua_type(reader->L, -1) != LUA_TNUMBER) return wrong_type(reader, field, "a whole number");
    double value = lua_tonumber(reader->L, -1);
    if (!(value >= field->least && value <= field->most) || floor(value) != value) {
        return wl_complain(reader, field->name, "is %.14g; it must be a whole number from %.0f to %.0f",
                           value, field->least, field->most);
    }
    uint32_t whole = (uint32_t)value;
    memcpy(into + field->offset, &whole, sizeof whole);
    return true;
}

static bool read_number(struct wl_reader *reader, const struct wl_field *field, char *into)
{
    if (lua_type(reader->L, -1) != LUA_TNUMBER) return wrong_type(reader, field, "a number");
    double value = lua_tonumber(reader->L, -1);
    if (!(value >= field->least && value <= field->most)) {
        return wl_complain(reader, field->name, "is %.14g; it must be from %g to %g", value, field->least,
                           field->most);
    }
    memcpy(into + field->offset, &value, sizeof value);
    return true;
}

static bool read_choice(struct wl_reader *reader, const struct wl_field *field, char *into)
{
    char list[128] = "";
    const char *value = lua_type(reader->L, -1) == LUA_TSTRING ? lua_tostring(reader->L, -1) : NULL;
    for (int i = 0; field->choices[i] != NULL; i++) {
        if (value != NULL && strcmp(value, field->choices[i]) == 0) {
            memcpy(into + field->offset, &i, sizeof i);
            return true;
        }
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", field->choices[i]);
    }
    if (value == NULL)
        return wl_complain(reader, field->name, "is a %s; it must be one of %s", luaL_typename(reader->L, -1),
                           list);
    return wl_complain(reader, field->name, "is '%.20s'; it must be one of %s", value, list);
}

static bool read_field(struct wl_reader *reader, const struct wl_field *field, void *into)
{
    switch (field->kind) {
    case WL_STRING:
        return read_string(reader, field, into);
    case WL_BOOL:
        return read_bool(reader, field, into);
    case WL_SECONDS:
    case WL_DURATION:
        return read_seconds(reader, field, into);
    case WL_WHOLE:
        return read_whole(reader, field, into);
    case WL_NUMBER:
        return read_number(reader, field, into);
    case WL_CHOICE:
        return read_choice(reader, field, into);
    case WL_NESTED:
        return true;
    }
    return false;
}

bool wl_read_fields(struct wl_reader *reader, int index, const struct wl_field *fields, size_t count,
                    void *into)
{
    lua_State *L = reader->L;
    index = lua_absindex(L, index);
    luaL_checkstack(L, 8, "options");
    if (!check_keys(reader, index, fields, count)) return false;
    for (size_t i = 0; i < count; i++) {
        lua_pushstring(L, fields[i].name);
        lua_rawget(L, index);
        bool good = lua_isnil(L, -1) || read_field(reader, &fields[i], into);
        lua_pop(L, 1);
        if (!good) return false;
    }
    return true;
}

bool wl_enter_table(struct wl_reader *reader, int index, const char *name)
{
    lua_State *L = reader->L;
    index = lua_absindex(L, index);
    luaL_checkstack(L, 8, "options");
    lua_pushstring(L, name);
    lua_rawget(L, index);
    if (lua_type(L, -1) != LUA_TTABLE) {
        if (!lua_isnil(L, -1))
            (void)wl_complain(reader, name, "is a %s; it must be a table", luaL_typename(L, -1));
        lua_pop(L, 1);
        return false;
    }
    size_t used = strlen(reader->path);
    (void)snprintf(reader->path + used, sizeof reader->path - used, "%s%.40s", used > 0 ? "." : "", name);
    return true;
}

void wl_leave_table(struct wl_reader *reader)
{
    lua_pop(reader->L, 1);
    char *dot = strrchr(reader->path, '.');
    if (dot != NULL)
        *dot = '\0';
    else
        reader->path[0] = '\0';
}
