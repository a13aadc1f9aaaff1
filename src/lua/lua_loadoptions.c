/* The options of a load out of Lua. Everything is copied: a load outlives the table it was made from. */
#include "lua_load.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* ---- memory -------------------------------------------------------------------------------------------- */

struct wl_kept {
    struct wl_kept *next;
    max_align_t block[];
};

void wl_kept_free(struct wl_kept *kept)
{
    while (kept != NULL) {
        struct wl_kept *next = kept->next;
        free(kept);
        kept = next;
    }
}

/* Memory for as long as the load lives; zeroed. */
static void *keep(struct wl_load *load, size_t size)
{
    struct wl_kept *kept = calloc(1, sizeof *kept + size);
    if (kept == NULL) return NULL;
    kept->next = load->kept;
    load->kept = kept;
    return kept->block;
}

static bool keep_text(struct wl_load *load, const char **text, size_t length)
{
    if (*text == NULL) return true;
    char *copy = keep(load, length + 1);
    if (copy == NULL) return false;
    memcpy(copy, *text, length);
    *text = copy;
    return true;
}

static bool out_of_memory(struct wl_reader *reader)
{
    return wl_complain(reader, "", "cannot be kept: out of memory");
}

/* ---- lists --------------------------------------------------------------------------------------------- */

/* Steps into member i of the list on top of the stack, by the name of the list; leave_member undoes it. */
static bool enter_member(struct wl_reader *reader, const char *name, size_t i)
{
    lua_rawgeti(reader->L, -1, (int)i);
    size_t used = strlen(reader->path);
    (void)snprintf(reader->path + used, sizeof reader->path - used, "%s%.20s[%zu]", used > 0 ? "." : "", name,
                   i);
    return lua_type(reader->L, -1) == LUA_TTABLE ||
           wl_complain(reader, "", "is a %s; it must be a table", luaL_typename(reader->L, -1));
}

static void leave_member(struct wl_reader *reader)
{
    lua_pop(reader->L, 1);
    char *dot = strrchr(reader->path, '.');
    *(dot != NULL ? dot : reader->path) = '\0';
}

/* Pushes the list `name` and gives its length. False: absent, with nothing pushed and no complaint, or no list. */
static bool push_list(struct wl_reader *reader, int index, const char *name, size_t most, size_t *count)
{
    lua_State *L = reader->L;
    lua_pushstring(L, name);
    lua_rawget(L, index);
    *count = 0;
    if (lua_type(L, -1) != LUA_TTABLE) {
        if (!lua_isnil(L, -1))
            (void)wl_complain(reader, name, "is a %s; it must be a list", luaL_typename(L, -1));
        lua_pop(L, 1);
        return false;
    }
    *count = lua_rawlen(L, -1);
    if (*count <= most) return true;
    (void)wl_complain(reader, name, "has %zu members; it must have at most %zu", *count, most);
    lua_pop(L, 1);
    return false;
}

struct pair {
    double at, value;
};

/* One number of the pair on top of the stack. */
static bool read_half(struct wl_reader *reader, int place, double most, const char *what, double *out)
{
    lua_rawgeti(reader->L, -1, place);
    bool number = lua_type(reader->L, -1) == LUA_TNUMBER;
    *out = number ? lua_tonumber(reader->L, -1) : 0;
    const char *type = luaL_typename(reader->L, -1);
    lua_pop(reader->L, 1);
    if (!number) return wl_complain(reader, "", "has %s that is a %s; it must be a number", what, type);
    if (*out >= 0 && *out <= most) return true;
    return wl_complain(reader, "", "has %s of %.14g; it must be from 0 to %.14g", what, *out, most);
}

/* A list of { seconds, value }. NULL without complaint if it is absent or empty. */
static struct pair *read_pairs(struct wl_reader *reader, int index, const char *name, const char *what,
                               double most, struct wl_load *load, size_t *count)
{
    if (!push_list(reader, index, name, WL_LOAD_POINTS, count)) return NULL;
    struct pair *pairs = *count == 0 ? NULL : keep(load, *count * sizeof *pairs);
    bool good = *count == 0 || pairs != NULL || out_of_memory(reader);
    for (size_t i = 0; i < *count && good; i++) {
        good = enter_member(reader, name, i + 1) &&
               read_half(reader, 1, 366.0 * 86400, "a moment", &pairs[i].at) &&
               read_half(reader, 2, most, what, &pairs[i].value);
        if (good) leave_member(reader);
    }
    lua_settop(reader->L, index); /* the caller's table is on top between the parts */
    return good ? pairs : NULL;
}

static uint64_t moment(const struct wl_load *load, double seconds)
{
    return load->tally->origin_ns + (uint64_t)(seconds * 1e9 + 0.5);
}

static bool read_arrivals(struct wl_reader *reader, int index, struct wl_load *load, weir_load_options *out)
{
    size_t count = 0;
    struct pair *pairs = read_pairs(reader, index, "rates", "a rate", 1e7, load, &count);
    weir_load_rate *rates = pairs == NULL ? NULL : keep(load, count * sizeof *rates);
    if (pairs != NULL && rates == NULL) return out_of_memory(reader);
    for (size_t i = 0; i < count && rates != NULL; i++)
        rates[i] = (weir_load_rate){moment(load, pairs[i].at), pairs[i].value};
    out->rates = rates;
    out->rate_count = rates == NULL ? 0 : count;

    pairs = read_pairs(reader, index, "bursts", "a number of requests", 1e9, load, &count);
    weir_load_burst *bursts = pairs == NULL ? NULL : keep(load, count * sizeof *bursts);
    if (pairs != NULL && bursts == NULL) return out_of_memory(reader);
    for (size_t i = 0; i < count && bursts != NULL; i++)
        bursts[i] = (weir_load_burst){moment(load, pairs[i].at), (uint32_t)pairs[i].value};
    out->bursts = bursts;
    out->burst_count = bursts == NULL ? 0 : count;
    return reader->why[0] == '\0';
}

/* ---- statements ---------------------------------------------------------------------------------------- */

/* Is there a parameter $1 in the text? */
static bool takes_one(const char *sql)
{
    for (const char *at = sql; (at = strstr(at, "$1")) != NULL; at += 2) {
        if (at[2] < '0' || at[2] > '9') return true;
    }
    return false;
}

struct builder {           /* of the list of { sql, value ... } that lua_params.c reads */
    int call, list, marks; /* stack: the call's table, the list, the places that are the request's number */
    size_t values;
};

static void mark(lua_State *L, struct builder *b, size_t place)
{
    lua_pushboolean(L, 1);
    lua_rawseti(L, b->marks, (int)place);
}

/* The statement is on top of the stack, and above it the list of its values. */
static void copy_values(lua_State *L, struct builder *b, size_t count)
{
    for (size_t k = 1; k <= count; k++) {
        lua_rawgeti(L, -1, (int)k);
        if (lua_touserdata(L, -1) == (const void *)weir_load_number) {
            mark(L, b, b->values + k);
            lua_pop(L, 1);
            lua_pushboolean(L, 0); /* keeps the place for it */
        }
        lua_rawseti(L, -3, (int)k + 1);
    }
}

static size_t count_values(lua_State *L)
{
    lua_getfield(L, -1, "n"); /* of a list with nil in it */
    double n = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : -1;
    lua_pop(L, 1);
    return n >= 0 && n <= 65535 ? (size_t)n : (size_t)lua_rawlen(L, -1);
}

/* Appends the values of statement i to the one on top of the stack. */
static bool add_values(struct wl_reader *reader, struct builder *b, int lists, size_t i, const char *sql)
{
    lua_State *L = reader->L;
    size_t count = 0;
    lua_pushnil(L);
    if (lists != 0) {
        lua_rawgeti(L, lists, (int)i);
        lua_remove(L, -2);
    }
    int type = lua_type(L, -1);
    if (type == LUA_TTABLE) {
        count = count_values(L);
        copy_values(L, b, count);
    }
    lua_pop(L, 1);
    if (type != LUA_TTABLE && type != LUA_TNIL)
        return wl_complain(reader, "values", "has a %s at place %zu; it must have a list for each statement",
                           lua_typename(L, type), i);
    if (type == LUA_TNIL && sql != NULL && takes_one(sql)) {
        count = 1;
        mark(L, b, b->values + 1);
        lua_pushboolean(L, 0);
        lua_rawseti(L, -2, 2);
    }
    lua_pushinteger(L, (lua_Integer)count + 1);
    lua_setfield(L, -2, "n");
    b->values += count;
    return true;
}

static bool add_statement(struct wl_reader *reader, struct builder *b, int sqls, int lists, size_t i)
{
    lua_State *L = reader->L;
    lua_newtable(L);
    if (lua_type(L, sqls) == LUA_TTABLE)
        lua_rawgeti(L, sqls, (int)i);
    else
        lua_pushvalue(L, sqls);
    const char *sql = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    lua_rawseti(L, -2, 1); /* the table holds the string */
    if (!add_values(reader, b, lists, i, sql)) return false;
    lua_rawseti(L, b->list, (int)i);
    return true;
}

/* Pushes the list and the marks. */
static bool build(struct wl_reader *reader, struct builder *b)
{
    lua_State *L = reader->L;
    lua_newtable(L);
    lua_newtable(L);
    lua_pushliteral(L, "sql");
    lua_rawget(L, b->call);
    lua_pushliteral(L, "values");
    lua_rawget(L, b->call);
    int top = lua_gettop(L), sqls = top - 1, lists = top;
    b->list = top - 3;
    b->marks = top - 2;
    int type = lua_type(L, sqls);
    if (type != LUA_TSTRING && type != LUA_TTABLE)
        return wl_complain(reader, "sql", "is a %s; it must be a string or a list of them",
                           lua_typename(L, type));
    if (!lua_isnil(L, lists) && lua_type(L, lists) != LUA_TTABLE)
        return wl_complain(reader, "values", "is a %s; it must have a list for each statement",
                           luaL_typename(L, lists));
    size_t count = type == LUA_TSTRING ? 1 : (size_t)lua_rawlen(L, sqls);
    size_t given = lua_isnil(L, lists) ? 0 : (size_t)lua_rawlen(L, lists);
    if (given > count)
        return wl_complain(reader, "values", "has %zu lists; there are %zu statements", given, count);
    for (size_t i = 1; i <= count; i++) {
        if (!add_statement(reader, b, sqls, given > 0 ? lists : 0, i)) return false;
    }
    return true;
}

/* From the scratch, whose pointers live as long as the Lua values, into memory of the load's own. */
static bool keep_statement(lua_State *L, const struct builder *b, struct wl_load *load, weir_statement *s,
                           size_t first)
{
    const char **values = keep(load, (s->count + 1) * sizeof *values);
    int *lengths = keep(load, (s->count + 1) * sizeof *lengths),
        *formats = keep(load, (s->count + 1) * sizeof *formats);
    if (values == NULL || lengths == NULL || formats == NULL) return false;
    if (!keep_text(load, &s->sql, strlen(s->sql))) return false;
    for (size_t i = 0; i < s->count; i++) {
        lua_rawgeti(L, b->marks, (int)(first + i + 1));
        bool number = lua_toboolean(L, -1) != 0;
        lua_pop(L, 1);
        values[i] = number ? weir_load_number : s->values[i];
        lengths[i] = number ? 0 : s->lengths[i];
        formats[i] = number ? 0 : s->formats[i];
        size_t length = formats[i] == 1 || values[i] == NULL ? (size_t)lengths[i] : strlen(values[i]);
        if (!number && !keep_text(load, &values[i], length)) return false;
    }
    s->values = values;
    s->lengths = lengths;
    s->formats = formats;
    return true;
}

static bool keep_statements(struct wl_reader *reader, const struct builder *b, struct wl_load *load,
                            weir_load_call *call)
{
    char why[WEIR_WHY_MAX];
    size_t count = 0, first = 0;
    const weir_statement *read = wl_params_many(reader->L, &load->scratch, b->list, &count, why);
    if (read == NULL) return wl_complain(reader, "", "cannot be sent: %s", why);
    weir_statement *kept = keep(load, count * sizeof *kept);
    if (kept == NULL) return out_of_memory(reader);
    for (size_t i = 0; i < count; i++) {
        kept[i] = read[i];
        if (!keep_statement(reader->L, b, load, &kept[i], first)) return out_of_memory(reader);
        first += read[i].count;
    }
    call->statements = kept;
    call->statement_count = count;
    return true;
}

/* ---- calls --------------------------------------------------------------------------------------------- */

struct call_options {
    weir_load_call call;
    int isolation;
};

static const char *const isolation_names[] = {"read committed", "repeatable read", "serializable", NULL};

#define AT(field) offsetof(struct call_options, call.field)
static const struct wl_field call_fields[] = {
    {"client", WL_STRING, AT(request.client), 0, 0, NULL},
    {"context", WL_STRING, AT(request.context), 0, 0, NULL},
    {"claims", WL_STRING, AT(request.claims), 0, 0, NULL},
    {"backend", WL_STRING, AT(request.backend), 0, 0, NULL},
    {"isolation", WL_CHOICE, offsetof(struct call_options, isolation), 0, 0, isolation_names},
    {"readonly", WL_BOOL, AT(request.readonly), 0, 0, NULL},
    {"idempotent", WL_BOOL, AT(request.idempotent), 0, 0, NULL},
    {"timeout", WL_DURATION, AT(request.timeout_ns), 0, 0, NULL},
    {"weight", WL_NUMBER, AT(weight), 1e-9, 1e9, NULL},
    {"unit", WL_BOOL, AT(unit), 0, 0, NULL},
    {"writes", WL_BOOL, AT(writes), 0, 0, NULL},
    {"custom", WL_BOOL, AT(custom), 0, 0, NULL},
    {"sql", WL_NESTED, 0, 0, 0, NULL},
    {"values", WL_NESTED, 0, 0, 0, NULL},
};
#undef AT

static bool keep_request(struct wl_load *load, weir_request *request)
{
    const char **texts[] = {&request->client, &request->context, &request->claims, &request->backend};
    for (size_t i = 0; i < COUNT(texts); i++) {
        if (*texts[i] != NULL && !keep_text(load, texts[i], strlen(*texts[i]))) return false;
    }
    return true;
}

/* The call's table is on top of the stack. */
static bool read_call(struct wl_reader *reader, struct wl_load *load, weir_load_call *out)
{
    struct call_options read = {.call = {.weight = 1}, .isolation = -1};
    struct builder b = {.call = lua_gettop(reader->L)};
    if (!wl_read_fields(reader, b.call, call_fields, COUNT(call_fields), &read)) return false;
    if (read.isolation >= 0) read.call.request.isolation = isolation_names[read.isolation];
    if (!keep_request(load, &read.call.request)) return out_of_memory(reader);
    if (!read.call.custom && !(build(reader, &b) && keep_statements(reader, &b, load, &read.call)))
        return false;
    lua_settop(reader->L, b.call);
    *out = read.call;
    return true;
}

static bool read_calls(struct wl_reader *reader, int index, struct wl_load *load, weir_load_options *out)
{
    size_t count = 0;
    if (!push_list(reader, index, "calls", WL_LOAD_CALLS, &count) || count == 0)
        return wl_complain(reader, "calls", "is missing or empty; there must be 1 to %d", WL_LOAD_CALLS);
    load->calls = keep(load, count * sizeof *load->calls);
    if (load->calls == NULL) return out_of_memory(reader);
    for (size_t i = 0; i < count; i++) {
        if (!enter_member(reader, "calls", i + 1) || !read_call(reader, load, &load->calls[i])) return false;
        leave_member(reader);
    }
    lua_settop(reader->L, index);
    out->calls = load->calls;
    out->call_count = count;
    return true;
}

/* ---- all of them --------------------------------------------------------------------------------------- */

struct load_options {
    weir_load_options load;
    double seed;
    bool keep_outcomes;
};

#define AT(field) offsetof(struct load_options, load.field)
static const struct wl_field load_fields[] = {
    {"calls", WL_NESTED, 0, 0, 0, NULL},
    {"poisson", WL_BOOL, AT(poisson), 0, 0, NULL},
    {"rates", WL_NESTED, 0, 0, 0, NULL},
    {"bursts", WL_NESTED, 0, 0, 0, NULL},
    {"users", WL_WHOLE, AT(users), 0, 100000, NULL},
    {"think", WL_NESTED, 0, 0, 0, NULL},
    {"from", WL_SECONDS, AT(from_ns), 0, 0, NULL},
    {"upto", WL_SECONDS, AT(until_ns), 0, 0, NULL},
    {"caller_retries", WL_WHOLE, AT(caller_retries), 0, 1000, NULL},
    {"caller_pause", WL_SECONDS, AT(caller_pause_ns), 0, 0, NULL},
    {"seed", WL_NUMBER, offsetof(struct load_options, seed), 0, 9007199254740992.0, NULL},
    {"numbers", WL_NESTED, 0, 0, 0, NULL},
    {"keep_outcomes", WL_BOOL, offsetof(struct load_options, keep_outcomes), 0, 0, NULL},
};
#undef AT

static bool read_numbers(struct wl_reader *reader, int index, struct wl_load *load)
{
    lua_State *L = reader->L;
    lua_pushliteral(L, "numbers");
    lua_rawget(L, index);
    struct wl_numbers **box = lua_touserdata(L, -1);
    bool given = !lua_isnil(L, -1), ours = false;
    if (box != NULL && lua_getmetatable(L, -1)) {
        luaL_getmetatable(L, WL_NUMBERS_TYPE);
        ours = lua_rawequal(L, -1, -2) != 0;
    }
    const char *type = luaL_typename(L, index + 1);
    lua_settop(L, index);
    if (!given) return true;
    if (!ours || *box == NULL)
        return wl_complain(reader, "numbers", "is a %s; it must come from core.numbers()", type);
    load->numbers = *box;
    load->numbers->references++;
    return true;
}

bool wl_load_read(struct wl_reader *reader, int index, struct wl_load *load, weir_load_options *out)
{
    struct load_options read = {.load = {.until_ns = UINT64_MAX}, .seed = 1};
    luaL_checkstack(reader->L, 24, "the options of a load");
    lua_settop(reader->L, index); /* what is read is pushed above, and gone after each part */
    if (!wl_read_fields(reader, index, load_fields, COUNT(load_fields), &read)) return false;
    if (read.seed != floor(read.seed))
        return wl_complain(reader, "seed", "is %.14g; it must be a whole number", read.seed);
    if (read.load.until_ns <= read.load.from_ns)
        return wl_complain(reader, "upto", "is %.14g; it must be after from, %.14g",
                           (double)read.load.until_ns / 1e9, (double)read.load.from_ns / 1e9);
    read.load.from_ns += load->tally->origin_ns;
    if (read.load.until_ns != UINT64_MAX) read.load.until_ns += load->tally->origin_ns;
    read.load.seed = (uint64_t)read.seed;
    load->keep_outcomes = read.keep_outcomes;
    if (!read_calls(reader, index, load, &read.load) || !read_arrivals(reader, index, load, &read.load) ||
        !wl_dist_read(reader, index, "think", &read.load.think, &load->bins) ||
        !read_numbers(reader, index, load))
        return false;
    *out = read.load;
    return true;
}
