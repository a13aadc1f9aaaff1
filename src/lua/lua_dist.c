/* Distributions of durations out of Lua: a number of seconds, or a table as lua/weir/dist.lua makes them. */
#include "lua_weir.h"

#include <stdio.h>
#include <stdlib.h>

struct wl_bins {
    struct wl_bins *next;
    double number[]; /* count + 1 edges, then count weights */
};

struct parts { /* of a table; the lists are read by themselves */
    int kind;
    double a, b, c;
};

static const char *const kinds[] = {"constant",  "uniform", "exponential", "normal",
                                    "lognormal", "pareto",  "histogram",   NULL}; /* as weir_dist_kind */

static const struct wl_field part_fields[] = {
    {"kind", WL_CHOICE, offsetof(struct parts, kind), 0, 0, kinds},
    {"a", WL_NUMBER, offsetof(struct parts, a), -1e300, 1e300, NULL},
    {"b", WL_NUMBER, offsetof(struct parts, b), -1e300, 1e300, NULL},
    {"c", WL_NUMBER, offsetof(struct parts, c), -1e300, 1e300, NULL},
    {"edges", WL_NESTED, 0, 0, 0, NULL},
    {"weights", WL_NESTED, 0, 0, 0, NULL},
};

void wl_bins_free(struct wl_bins *bins)
{
    while (bins != NULL) {
        struct wl_bins *next = bins->next;
        free(bins);
        bins = next;
    }
}

/* Pushes the list `name` of the table at index. */
static bool push_list(struct wl_reader *reader, int index, const char *name)
{
    lua_pushstring(reader->L, name);
    lua_rawget(reader->L, index);
    return lua_type(reader->L, -1) == LUA_TTABLE ||
           wl_complain(reader, name, "is a %s; it must be a list of numbers", luaL_typename(reader->L, -1));
}

static bool copy_numbers(struct wl_reader *reader, int list, const char *name, double *into, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(reader->L, list, (int)i + 1);
        bool good = lua_type(reader->L, -1) == LUA_TNUMBER;
        if (good)
            into[i] = lua_tonumber(reader->L, -1);
        else
            (void)wl_complain(reader, name, "holds a %s at place %zu; it must hold numbers",
                              luaL_typename(reader->L, -1), i + 1);
        lua_pop(reader->L, 1);
        if (!good) return false;
    }
    return true;
}

/* The lists on top of the stack become one block; nothing here can raise once the block is made. */
static bool read_lists(struct wl_reader *reader, int edges, int weights, weir_dist *out,
                       struct wl_bins **bins)
{
    size_t count = lua_rawlen(reader->L, weights);
    if (count < 1 || count > WEIR_DIST_BINS)
        return wl_complain(reader, "weights", "holds %zu numbers; it must hold 1 to %d", count,
                           WEIR_DIST_BINS);
    if (lua_rawlen(reader->L, edges) != count + 1)
        return wl_complain(reader, "edges", "holds %zu numbers; with %zu weights it must hold %zu",
                           (size_t)lua_rawlen(reader->L, edges), count, count + 1);
    struct wl_bins *block = malloc(sizeof *block + (2 * count + 1) * sizeof *block->number);
    if (block == NULL) return wl_complain(reader, "edges", "cannot be kept: out of memory");
    block->next = *bins;
    *bins = block;
    out->edges = block->number;
    out->weights = block->number + count + 1;
    out->count = count;
    return copy_numbers(reader, edges, "edges", block->number, count + 1) &&
           copy_numbers(reader, weights, "weights", block->number + count + 1, count);
}

static bool read_bins(struct wl_reader *reader, int table, weir_dist *out, struct wl_bins **bins)
{
    int top = lua_gettop(reader->L);
    bool good = push_list(reader, table, "edges") && push_list(reader, table, "weights") &&
                read_lists(reader, top + 1, top + 2, out, bins);
    lua_settop(reader->L, top);
    return good;
}

static bool read_table(struct wl_reader *reader, int table, weir_dist *out, struct wl_bins **bins)
{
    struct parts parts = {.kind = -1};
    if (!wl_read_fields(reader, table, part_fields, sizeof part_fields / sizeof *part_fields, &parts))
        return false;
    if (parts.kind < 0) return wl_complain(reader, "kind", "is missing; it must name a distribution");
    *out = (weir_dist){.kind = (weir_dist_kind)parts.kind, .a = parts.a, .b = parts.b, .c = parts.c};
    return out->kind != WEIR_DIST_HISTOGRAM || read_bins(reader, table, out, bins);
}

/* The limits of the values, told with the whole path. */
static bool check(struct wl_reader *reader, const char *name, const weir_dist *dist)
{
    char knob[WL_PATH_MAX + 48];
    (void)snprintf(knob, sizeof knob, "%s%s%.40s", reader->path, reader->path[0] != '\0' ? "." : "", name);
    return weir_dist_check(dist, knob, reader->why) == WEIR_OK;
}

bool wl_dist_read(struct wl_reader *reader, int index, const char *name, weir_dist *out,
                  struct wl_bins **bins)
{
    lua_State *L = reader->L;
    weir_dist read = {.kind = WEIR_DIST_CONSTANT};
    index = lua_absindex(L, index);
    luaL_checkstack(L, 12, "a distribution");
    lua_pushstring(L, name);
    lua_rawget(L, index);
    int type = lua_type(L, -1);
    read.a = type == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
    lua_pop(L, 1);
    if (type == LUA_TNIL) return true;
    if (type != LUA_TNUMBER && type != LUA_TTABLE)
        return wl_complain(reader, name, "is a %s; it must be a number of seconds or a distribution",
                           lua_typename(L, type));
    if (type == LUA_TTABLE) {
        if (!wl_enter_table(reader, index, name)) return false;
        bool good = read_table(reader, lua_gettop(L), &read, bins);
        wl_leave_table(reader);
        if (!good) return false;
    }
    if (!check(reader, name, &read)) return false;
    *out = read;
    return true;
}

/* core.dist(holder, name) -> the mean in seconds of the distribution in the holder's field | nil, why */
int wl_dist_mean(lua_State *L)
{
    struct wl_reader reader = {.L = L};
    struct wl_bins *bins = NULL;
    weir_dist dist = {.kind = WEIR_DIST_CONSTANT};
    luaL_checktype(L, 1, LUA_TTABLE);
    bool good = wl_dist_read(&reader, 1, luaL_checkstring(L, 2), &dist, &bins);
    double mean = good ? weir_dist_mean(&dist) : 0;
    wl_bins_free(bins);
    if (good) {
        lua_pushnumber(L, mean);
        return 1;
    }
    lua_pushnil(L);
    lua_pushstring(L, reader.why);
    return 2;
}
