/* Loads: made here, turned by a simulation or by a task, read by the scenario's runner. */
#include "lua_load.h"
#include "lua_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a load asks and tells ------------------------------------------------------------------------ */

static uint64_t on_now(void *ctx)
{
    const struct wl_engine *engine = ((struct wl_load *)ctx)->engine;
    return engine->sim != NULL ? weir_sim_now_ns(engine->sim->handle) : wl_now_ns();
}

static void on_opened(void *ctx, uint64_t number, bool idempotent)
{
    const struct wl_engine *engine = ((struct wl_load *)ctx)->engine;
    if (engine->sim != NULL) weir_sim_write_opened(engine->sim->handle, number, idempotent);
}

static void keep_outcome(struct wl_load *load, uint64_t number, weir_outcome outcome)
{
    if (load->told_count == load->told_room) {
        size_t room = load->told_room == 0 ? 256 : 2 * load->told_room;
        struct wl_told *larger = realloc(load->told, room * sizeof *larger);
        load->told_lost = load->told_lost || larger == NULL;
        if (larger == NULL) return;
        load->told = larger;
        load->told_room = room;
    }
    load->told[load->told_count++] = (struct wl_told){number, outcome};
}

static void on_closed(void *ctx, uint64_t number, weir_outcome outcome)
{
    struct wl_load *load = ctx;
    if (load->engine->sim != NULL) weir_sim_write_closed(load->engine->sim->handle, number, outcome);
    if (load->keep_outcomes) keep_outcome(load, number, outcome);
}

static void on_arrived(void *ctx)
{
    struct wl_loop *loop = ((struct wl_load *)ctx)->engine->loop;
    loop->arrivals = true;
    loop->wake = true;
}

static void rearm(void *ctx)
{
    struct wl_loop *loop = ((struct wl_load *)ctx)->engine->loop;
    if (loop->rearm_loads != NULL) loop->rearm_loads(loop);
}

/* ---- all loads of a loop ------------------------------------------------------------------------------- */

/* Loads of another world stand still. */
static bool is_here(const struct wl_load *load, const struct wl_loop *loop)
{
    return load->engine->sim == loop->sim;
}

void wl_loads_run(struct wl_loop *loop)
{
    loop->busy++;
    for (struct wl_load *load = loop->loads; load != NULL; load = load->next) {
        if (is_here(load, loop)) weir_load_run(load->handle);
    }
    wl_loop_leave(loop);
}

uint64_t wl_loads_due(const struct wl_loop *loop)
{
    uint64_t least = UINT64_MAX;
    for (const struct wl_load *load = loop->loads; load != NULL; load = load->next) {
        uint64_t due = is_here(load, loop) ? weir_load_due_ns(load->handle) : UINT64_MAX;
        if (due < least) least = due;
    }
    return least;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

/* Ends what is under way. The loop is busy: this enters the engine. */
static void shut(struct wl_load *load)
{
    struct wl_load **at = &load->engine->loop->loads;
    if (load->handle == NULL) return;
    while (*at != load) at = &(*at)->next;
    *at = load->next;
    load->next = NULL;
    weir_load_free(load->handle);
    load->handle = NULL;
}

void wl_loads_free_of(struct wl_engine *engine)
{
    struct wl_load *load = engine->loop->loads;
    while (load != NULL) {
        struct wl_load *next = load->next;
        if (load->engine == engine) shut(load);
        load = next;
    }
}

void wl_load_drop(struct wl_load *load)
{
    struct wl_engine *engine = load->engine;
    engine->loop->busy++;
    shut(load);
    engine->loop->busy--;
    wl_tally_release(load->tally);
    wl_numbers_release(load->numbers);
    wl_kept_free(load->kept);
    wl_bins_free(load->bins);
    wl_scratch_free(&load->scratch);
    free(load->told);
    free(load);
    wl_engine_release(engine);
}

struct wl_load *wl_load_unretire(struct wl_loop *loop)
{
    struct wl_load *load = loop->retired_loads;
    loop->retired_loads = load->next_retired;
    return load;
}

static int load_collect(lua_State *L)
{
    struct wl_load **box = luaL_checkudata(L, 1, WL_LOAD_TYPE);
    struct wl_load *load = *box;
    *box = NULL;
    if (load == NULL) return 0;
    struct wl_loop *loop = load->engine->loop;
    if (loop->busy == 0) {
        wl_load_drop(load);
        return 0;
    }
    load->next_retired = loop->retired_loads; /* a finaliser inside a policy: when the engine has been left */
    loop->retired_loads = load;
    return 0;
}

/* The box, at 4, holds a load with neither handle nor options. */
static struct wl_load *push_load(lua_State *L, struct wl_engine *engine, struct wl_tally *tally)
{
    struct wl_load **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, WL_LOAD_TYPE);
    struct wl_load *load = calloc(1, sizeof *load);
    if (load == NULL) luaL_error(L, "not enough memory");
    load->engine = engine;
    engine->references++;
    load->tally = tally;
    tally->references++;
    *box = load;
    return load;
}

static void begin(struct wl_load *load)
{
    struct wl_loop *loop = load->engine->loop;
    load->next = loop->loads;
    loop->loads = load;
    rearm(load);
}

/* core.load(engine, tally, options) -> load | nil, why. Moments in the options are counted from the tally's origin. */
int wl_load_new(lua_State *L)
{
    struct wl_reader reader = {.L = L};
    weir_load_options options;
    lua_settop(L, 3);
    struct wl_engine *engine = wl_engine_enterable(L, 1);
    struct wl_tally **tally = luaL_checkudata(L, 2, WL_TALLY_TYPE);
    luaL_checktype(L, 3, LUA_TTABLE);
    if (engine == NULL) return wl_refuse(L, "the engine is closed");
    if (*tally == NULL || (*tally)->handle == NULL) return luaL_error(L, "the tally is closed");
    struct wl_load *load = push_load(L, engine, *tally);
    lua_insert(L, 3); /* the options are on top */
    if (!wl_load_read(&reader, 4, load, &options)) return wl_refuse(L, reader.why);
    if (load->numbers != NULL) options.numbers = &load->numbers->last;
    options.now_ns = on_now;
    options.opened = on_opened;
    options.closed = on_closed;
    options.arrived = on_arrived;
    options.sooner = rearm;
    options.ctx = load;
    if (weir_load_new(&load->handle, engine->handle, load->tally->handle, &options, reader.why) != WEIR_OK)
        return wl_refuse(L, reader.why);
    begin(load);
    lua_settop(L, 3);
    return 1;
}

/* ---- methods ------------------------------------------------------------------------------------------- */

static struct wl_load *check_load(lua_State *L)
{
    struct wl_load **box = luaL_checkudata(L, 1, WL_LOAD_TYPE);
    if (*box == NULL) luaL_error(L, "the load is closed");
    return *box;
}

/* One that may be acted on, or NULL if it has been freed. */
static struct wl_load *check_active(lua_State *L)
{
    struct wl_load *load = check_load(L);
    if (load->engine->loop->busy > 0) luaL_error(L, "a policy must not drive a load");
    return load->handle != NULL ? load : NULL;
}

/* load:due() -> in how many seconds run() has something to do, or nil */
static int load_due(lua_State *L)
{
    struct wl_load *load = check_load(L);
    uint64_t due = load->handle == NULL ? UINT64_MAX : weir_load_due_ns(load->handle), now = on_now(load);
    if (due == UINT64_MAX) return 0;
    lua_pushnumber(L, due > now ? (lua_Number)(due - now) / 1e9 : 0);
    return 1;
}

static int load_run(lua_State *L)
{
    struct wl_load *load = check_active(L);
    if (load == NULL) return 0;
    if (wl_sim_stranger(load->engine)) return luaL_error(L, WL_STRANGER);
    load->engine->loop->busy++;
    weir_load_run(load->handle);
    wl_loop_leave(load->engine->loop);
    rearm(load);
    return 0;
}

static int load_observe(lua_State *L)
{
    struct wl_load *load = check_active(L);
    if (load != NULL) weir_load_observe(load->handle);
    return 0;
}

/* load:take() -> the place of a call in the options and the number of the request, or nil */
static int load_take(lua_State *L)
{
    struct wl_load *load = check_active(L);
    size_t call = 0;
    uint64_t number = 0;
    if (load == NULL || !weir_load_take(load->handle, &call, &number)) return 0;
    lua_pushinteger(L, (lua_Integer)call + 1);
    lua_pushinteger(L, (lua_Integer)number);
    return 2;
}

static const char *field_of(lua_State *L, int index, const char *name)
{
    lua_pushstring(L, name);
    lua_rawget(L, index);
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    lua_pop(L, 1); /* the table holds it */
    return text;
}

/* An error of a call as a table, or anything else a function may raise: of that nobody knows what it has left behind. */
static void read_error(lua_State *L, int index, weir_error *out)
{
    out->code = WEIR_CALL_SERVER;
    out->outcome = WEIR_OUTCOME_UNKNOWN;
    if (lua_type(L, index) != LUA_TTABLE) return;
    const char *code = field_of(L, index, "code"), *outcome = field_of(L, index, "outcome");
    for (int i = WEIR_CALL_SERVER; code != NULL && i <= WEIR_CALL_ROLLED_BACK; i++)
        if (strcmp(code, weir_code_name((weir_code)i)) == 0) out->code = (weir_code)i;
    for (int i = WEIR_OUTCOME_NONE; outcome != NULL && i <= WEIR_OUTCOME_UNKNOWN; i++)
        if (strcmp(outcome, weir_outcome_name((weir_outcome)i)) == 0) out->outcome = (weir_outcome)i;
}

/* load:settle(number, error or nil, attempts) */
static int load_settle(lua_State *L)
{
    struct wl_load *load = check_active(L);
    double number = luaL_checknumber(L, 2), attempts = luaL_optnumber(L, 4, 1);
    weir_error error = {0};
    if (load == NULL || !(number >= 0 && number <= 9007199254740992.0)) return 0;
    bool failed = !lua_isnoneornil(L, 3);
    if (failed) read_error(L, 3, &error);
    if (!(attempts >= 0 && attempts <= 1e6)) attempts = 1;
    weir_load_settle(load->handle, (uint64_t)number, failed ? &error : NULL, (uint32_t)attempts);
    return 0;
}

static int load_open(lua_State *L)
{
    struct wl_load *load = check_load(L);
    lua_pushinteger(L, load->handle == NULL ? 0 : (lua_Integer)weir_load_open(load->handle));
    return 1;
}

/* load:oldest() -> when the oldest request that has not ended arrived, or nil */
static int load_oldest(lua_State *L)
{
    struct wl_load *load = check_load(L);
    uint64_t at = load->handle == NULL ? UINT64_MAX : weir_load_oldest_ns(load->handle);
    if (at == UINT64_MAX) return 0;
    uint64_t origin = load->tally->origin_ns;
    lua_pushnumber(L, at > origin ? (lua_Number)(at - origin) / 1e9 : 0);
    return 1;
}

/* load:misuse() -> what the engine said when it would not take a call, or nil */
static int load_misuse(lua_State *L)
{
    struct wl_load *load = check_load(L);
    const char *why = load->handle == NULL ? "" : weir_load_misuse(load->handle);
    if (why[0] == '\0') return 0;
    lua_pushstring(L, why);
    return 1;
}

static int load_outcomes(lua_State *L)
{
    struct wl_load *load = check_load(L);
    if (!load->keep_outcomes) return luaL_error(L, "the load was made without keep_outcomes");
    if (load->told_lost) return luaL_error(L, "not enough memory: outcomes were lost");
    lua_createtable(L, 0, (int)load->told_count);
    for (size_t i = 0; i < load->told_count; i++) {
        lua_pushnumber(L, (lua_Number)load->told[i].number);
        lua_pushstring(L, weir_outcome_name(load->told[i].outcome));
        lua_rawset(L, -3);
    }
    return 1;
}

static int load_free(lua_State *L)
{
    struct wl_load *load = check_active(L);
    if (load == NULL) return 0;
    load->engine->loop->busy++;
    shut(load);
    wl_loop_leave(load->engine->loop);
    rearm(load);
    return 0;
}

void wl_load_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"due", load_due},           {"run", load_run},   {"observe", load_observe}, {"take", load_take},
        {"settle", load_settle},     {"open", load_open}, {"oldest", load_oldest},   {"misuse", load_misuse},
        {"outcomes", load_outcomes}, {"free", load_free}, {"__gc", load_collect},    {NULL, NULL},
    };
    wl_tally_open(L);
    luaL_newmetatable(L, WL_LOAD_TYPE);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
