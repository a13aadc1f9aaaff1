/* The tally of a run, and the counter of its requests' numbers. Moments are told in seconds since the tally was made. */
#include "lua_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- life ---------------------------------------------------------------------------------------------- */

void wl_tally_release(struct wl_tally *tally)
{
    if (tally == NULL || --tally->references > 0) return;
    weir_tally_free(tally->handle);
    free(tally);
}

void wl_numbers_release(struct wl_numbers *numbers)
{
    if (numbers == NULL || --numbers->references > 0) return;
    free(numbers);
}

static int tally_collect(lua_State *L)
{
    struct wl_tally **box = luaL_checkudata(L, 1, WL_TALLY_TYPE);
    struct wl_tally *tally = *box;
    *box = NULL;
    wl_tally_release(tally);
    return 0;
}

static int numbers_collect(lua_State *L)
{
    struct wl_numbers **box = luaL_checkudata(L, 1, WL_NUMBERS_TYPE);
    struct wl_numbers *numbers = *box;
    *box = NULL;
    wl_numbers_release(numbers);
    return 0;
}

/* core.numbers() -> a counter for the loads of one run */
int wl_numbers_new(lua_State *L)
{
    struct wl_numbers **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, WL_NUMBERS_TYPE);
    *box = calloc(1, sizeof **box);
    if (*box == NULL) return luaL_error(L, "not enough memory");
    (*box)->references = 1;
    return 1;
}

/* ---- options ------------------------------------------------------------------------------------------- */

struct phase_options {
    const char *name;
    uint64_t from_ns, to_ns;
};

static const struct wl_field phase_fields[] = {
    {"name", WL_STRING, offsetof(struct phase_options, name), 0, 0, NULL},
    {"from", WL_SECONDS, offsetof(struct phase_options, from_ns), 0, 0, NULL},
    {"to", WL_SECONDS, offsetof(struct phase_options, to_ns), 0, 0, NULL},
};

static bool read_phase(struct wl_reader *reader, struct wl_tally *tally, size_t i, weir_phase_span *out)
{
    struct phase_options read = {0};
    (void)snprintf(reader->path, sizeof reader->path, "phases[%zu]", i + 1);
    if (lua_type(reader->L, -1) != LUA_TTABLE)
        return wl_complain(reader, "", "is a %s; it must be a table", luaL_typename(reader->L, -1));
    if (!wl_read_fields(reader, -1, phase_fields, 3, &read)) return false;
    if (read.name == NULL || read.name[0] == '\0' || strlen(read.name) >= sizeof tally->names[i])
        return wl_complain(reader, "name", "is missing or too long; it must have 1 to %zu bytes",
                           sizeof tally->names[i] - 1);
    if (read.to_ns <= read.from_ns)
        return wl_complain(reader, "to", "is %.14g; it must be after from, %.14g", (double)read.to_ns / 1e9,
                           (double)read.from_ns / 1e9);
    memcpy(tally->names[i], read.name, strlen(read.name) + 1);
    *out = (weir_phase_span){tally->names[i], tally->origin_ns + read.from_ns, tally->origin_ns + read.to_ns};
    reader->path[0] = '\0';
    return true;
}

static bool read_phases(struct wl_reader *reader, struct wl_tally *tally, weir_phase_span *spans)
{
    lua_State *L = reader->L;
    if (!wl_enter_table(reader, 1, "phases")) return reader->why[0] == '\0';
    reader->path[0] = '\0';
    size_t count = lua_rawlen(L, -1);
    if (count > WEIR_TALLY_PHASES)
        return wl_complain(reader, "phases", "has %zu members; it must have at most %d", count,
                           WEIR_TALLY_PHASES);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        if (!read_phase(reader, tally, i, &spans[i])) return false;
        lua_pop(L, 1);
    }
    tally->phase_count = count;
    return true;
}

/* core.tally { bucket = seconds, phases = { { name =, from =, to = }, ... } } -> tally | nil, why */
int wl_tally_new(lua_State *L)
{
    static const struct wl_field fields[] = {{"bucket", WL_DURATION, 0, 0, 0, NULL},
                                             {"phases", WL_NESTED, 0, 0, 0, NULL}};
    struct wl_reader reader = {.L = L};
    weir_phase_span spans[WEIR_TALLY_PHASES];
    uint64_t bucket_ns = 10000000;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    struct wl_tally **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, WL_TALLY_TYPE);
    *box = calloc(1, sizeof **box);
    if (*box == NULL) return luaL_error(L, "not enough memory");
    (*box)->references = 1;
    (*box)->origin_ns = wl_loop_now(wl_loop_of(L));
    if (!wl_read_fields(&reader, 1, fields, 2, &bucket_ns) || !read_phases(&reader, *box, spans))
        return wl_refuse(L, reader.why);
    if (weir_tally_new(&(*box)->handle, (*box)->origin_ns, bucket_ns, spans, (*box)->phase_count,
                       reader.why) != WEIR_OK)
        return wl_refuse(L, reader.why);
    lua_settop(L, 2);
    return 1;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static struct wl_tally *check_tally(lua_State *L)
{
    struct wl_tally **box = luaL_checkudata(L, 1, WL_TALLY_TYPE);
    if (*box == NULL || (*box)->handle == NULL) luaL_error(L, "the tally is closed");
    return *box;
}

/* A phase by its name or place, the whole if it is nil. */
static size_t check_phase(lua_State *L, const struct wl_tally *tally, int index)
{
    if (lua_isnoneornil(L, index)) return WEIR_TALLY_PHASES;
    if (lua_type(L, index) == LUA_TNUMBER) {
        double place = lua_tonumber(L, index);
        if (place >= 1 && place <= (double)tally->phase_count) return (size_t)place - 1;
    } else {
        const char *name = luaL_checkstring(L, index);
        for (size_t i = 0; i < tally->phase_count; i++) {
            if (strcmp(name, tally->names[i]) == 0) return i;
        }
    }
    luaL_error(L, "there is no phase '%s'", lua_tostring(L, index));
    return 0;
}

static void set_seconds(lua_State *L, const char *name, double ns)
{
    lua_pushnumber(L, (lua_Number)(ns / 1e9));
    lua_setfield(L, -2, name);
}

static void set_moment(lua_State *L, const struct wl_tally *tally, const char *name, uint64_t at_ns)
{
    set_seconds(L, name, at_ns > tally->origin_ns ? (double)(at_ns - tally->origin_ns) : 0);
}

static void set_counts(lua_State *L, const weir_tally_counts *counts)
{
    uint64_t ended = counts->ok + counts->failed;
    wl_set_count(L, "arrived", counts->arrived);
    wl_set_count(L, "ok", counts->ok);
    wl_set_count(L, "failed", counts->failed);
    wl_set_count(L, "refused", counts->refused);
    wl_set_count(L, "timed_out", counts->timed_out);
    wl_set_count(L, "unknown", counts->unknown);
    wl_set_count(L, "calls", counts->calls);
    wl_set_count(L, "attempts", counts->attempts);
    set_seconds(L, "latency_mean", ended == 0 ? 0 : (double)counts->latency_sum_ns / (double)ended);
    set_seconds(L, "latency_max", (double)counts->latency_max_ns);
}

static int tally_counts(lua_State *L)
{
    const struct wl_tally *tally = check_tally(L);
    weir_tally_counts counts = {0};
    (void)weir_tally_counts_of(tally->handle, check_phase(L, tally, 2), &counts);
    lua_createtable(L, 0, 12);
    set_counts(L, &counts);
    return 1;
}

/* tally:quantile(phase, q, well) -> seconds */
static int tally_quantile(lua_State *L)
{
    const struct wl_tally *tally = check_tally(L);
    size_t phase = check_phase(L, tally, 2);
    double q = luaL_checknumber(L, 3);
    lua_pushnumber(L,
                   (lua_Number)weir_tally_quantile(tally->handle, phase, lua_toboolean(L, 4) != 0, q) / 1e9);
    return 1;
}

/* tally:ended_as(phase) -> { ok = n, timeout = n, ... }: how many calls ended so; what never happened is absent */
static int tally_ended_as(lua_State *L)
{
    const struct wl_tally *tally = check_tally(L);
    size_t phase = check_phase(L, tally, 2);
    lua_newtable(L);
    for (int code = WEIR_CALL_OK; code <= WEIR_CALL_ROLLED_BACK; code++) {
        uint64_t count = weir_tally_ended_as(tally->handle, phase, (weir_code)code);
        if (count > 0) wl_set_count(L, weir_code_name((weir_code)code), count);
    }
    return 1;
}

static int tally_buckets(lua_State *L)
{
    const struct wl_tally *tally = check_tally(L);
    weir_tally_bucket bucket;
    lua_createtable(L, (int)weir_tally_bucket_count(tally->handle), 0);
    for (size_t i = 0; weir_tally_bucket_at(tally->handle, i, &bucket); i++) {
        lua_createtable(L, 0, 18);
        set_moment(L, tally, "from", bucket.from_ns);
        set_moment(L, tally, "to", bucket.to_ns);
        set_counts(L, &bucket.counts);
        set_seconds(L, "latency_p95", (double)bucket.latency_p95_ns);
        wl_set_count(L, "waiting", bucket.waiting);
        wl_set_count(L, "connections", bucket.connections);
        lua_pushstring(L, weir_breaker_state_name(bucket.breaker));
        lua_setfield(L, -2, "breaker");
        lua_rawseti(L, -2, (int)i + 1);
    }
    return 1;
}

/* tally:moves() -> list of { at, pool, from, to }, and how many there were, kept or not */
static int tally_moves(lua_State *L)
{
    const struct wl_tally *tally = check_tally(L);
    weir_tally_move move;
    lua_createtable(L, (int)weir_tally_move_count(tally->handle), 0);
    for (size_t i = 0; weir_tally_move_at(tally->handle, i, &move); i++) {
        lua_createtable(L, 0, 4);
        set_moment(L, tally, "at", move.at_ns);
        lua_pushstring(L, move.pool);
        lua_setfield(L, -2, "pool");
        lua_pushstring(L, weir_breaker_state_name(move.from));
        lua_setfield(L, -2, "from");
        lua_pushstring(L, weir_breaker_state_name(move.to));
        lua_setfield(L, -2, "to");
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_pushinteger(L, (lua_Integer)weir_tally_moves_seen(tally->handle));
    return 2;
}

void wl_tally_open(lua_State *L)
{
    static const luaL_Reg methods[] = {{"counts", tally_counts},
                                       {"quantile", tally_quantile},
                                       {"ended_as", tally_ended_as},
                                       {"buckets", tally_buckets},
                                       {"moves", tally_moves},
                                       {"__gc", tally_collect},
                                       {NULL, NULL}};
    luaL_newmetatable(L, WL_TALLY_TYPE);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    luaL_newmetatable(L, WL_NUMBERS_TYPE);
    lua_pushcfunction(L, numbers_collect);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 2);
}
