/* A simulated world for Lua: its clock takes the place of the loop's while a run lasts, and engines opened meanwhile are
 * opened on its servers. One world at a time; what belongs to the real one stands still until the run is over. */
#include "lua_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct wl_sim *check_sim(lua_State *L)
{
    struct wl_sim **box = luaL_checkudata(L, 1, WL_SIM_TYPE);
    if (*box == NULL) luaL_error(L, "the simulation is closed");
    return *box;
}

bool wl_sim_stranger(const struct wl_engine *engine)
{
    return engine->handle != NULL && engine->sim != engine->loop->sim;
}

uint64_t wl_sim_random(struct wl_loop *loop)
{
    return weir_sim_random(loop->sim->handle);
}

void wl_sim_push_anchor(lua_State *L, struct wl_sim *sim)
{
    lua_pushvalue(sim->L, 1);
    lua_xmove(sim->L, L, 1);
}

/* The error is on top of the simulation's own stack; the first one is kept until it is asked for. */
void wl_sim_keep_failure(struct wl_sim *sim)
{
    if (!sim->failed) lua_rawseti(sim->L, 1, 3);
    sim->failed = true;
    lua_settop(sim->L, 1);
}

void wl_sim_retain(struct wl_sim *sim)
{
    sim->references++;
}

void wl_sim_release(struct wl_sim *sim)
{
    if (--sim->references > 0) return;
    weir_sim_free(sim->handle);
    wl_sim_asks_free(sim);
    wl_bins_free(sim->bins);
    free(sim);
}

static int sim_collect(lua_State *L)
{
    struct wl_sim **box = luaL_checkudata(L, 1, WL_SIM_TYPE);
    struct wl_sim *sim = *box;
    *box = NULL;
    if (sim == NULL) return 0;
    sim->L = NULL; /* collected with us; engines may still be closing */
    weir_sim_trace(sim->handle, NULL, NULL);
    wl_sim_release(sim);
    return 0;
}

/* core.sim(seed) -> sim. Its callbacks run on a thread of their own, anchored by the userdata. */
int wl_sim_new(lua_State *L)
{
    uint64_t seed = (uint64_t)luaL_checkinteger(L, 1);
    struct wl_sim **box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = NULL;
    luaL_setmetatable(L, WL_SIM_TYPE);
    lua_newtable(L);
    lua_State *thread = lua_newthread(L);
    lua_rawseti(L, -2, 1);
    lua_pushvalue(L, -1);
    lua_xmove(L, thread, 1); /* at the bottom of the thread's stack for good */
    wl_set_anchor(L, -2);
    *box = calloc(1, sizeof **box);
    if (*box == NULL || weir_sim_new(&(*box)->handle, seed) != WEIR_OK) {
        free(*box);
        *box = NULL;
        return luaL_error(L, "not enough memory");
    }
    (*box)->references = 1;
    (*box)->L = thread;
    return 1;
}

/* ---- the loop's time ------------------------------------------------------------------------------------------- */

uint64_t wl_loop_now(const struct wl_loop *loop)
{
    return loop->sim != NULL ? weir_sim_now_ns(loop->sim->handle) : wl_now_ns();
}

/* ---- loads: in a simulation they come by themselves ------------------------------------------------------------ */

static void rearm_loads(struct wl_loop *loop);

static void loads_due(void *ctx)
{
    struct wl_loop *loop = ctx;
    struct wl_sim *sim = loop->sim;
    if (sim == NULL) return;
    if (weir_sim_now_ns(sim->handle) < sim->stalled_until) { /* the program stands still; its callers pile up */
        weir_sim_alarm_set(sim->handle, &sim->loads, sim->stalled_until, loads_due, loop);
        return;
    }
    sim->loads_at = 0; /* the alarm is no longer set */
    wl_loads_run(loop);
    rearm_loads(loop);
}

static void rearm_loads(struct wl_loop *loop)
{
    struct wl_sim *sim = loop->sim;
    uint64_t due = wl_loads_due(loop);
    if (due == sim->loads_at) return;
    sim->loads_at = due;
    if (due == UINT64_MAX)
        weir_sim_alarm_clear(sim->handle, &sim->loads);
    else
        weir_sim_alarm_set(sim->handle, &sim->loads, due, loads_due, loop);
}

/* Calls and checks of the real world that wait to be heard of must not be taken by the simulation's scheduler. */
static int sim_enter(lua_State *L)
{
    struct wl_sim *sim = check_sim(L);
    struct wl_loop *loop = wl_loop_of(L);
    if (loop->busy > 0) return luaL_error(L, "a policy must not run a simulation");
    if (loop->sim != NULL) return luaL_error(L, "a simulation is running already; one runs at a time");
    sim->set_aside.first = loop->ready_first;
    sim->set_aside.last = loop->ready_last;
    sim->set_aside.due = loop->due;
    loop->ready_first = loop->ready_last = NULL;
    loop->due = NULL;
    wl_sim_retain(sim);
    loop->sim = sim;
    loop->rearm_loads = rearm_loads;
    return 0;
}

static int sim_leave(lua_State *L)
{
    struct wl_sim *sim = check_sim(L);
    struct wl_loop *loop = wl_loop_of(L);
    if (loop->sim != sim) return 0;
    loop->sim = NULL;
    loop->rearm_loads = NULL;
    if (sim->set_aside.last != NULL) {
        sim->set_aside.last->next = loop->ready_first;
        if (loop->ready_first == NULL) loop->ready_last = sim->set_aside.last;
        loop->ready_first = sim->set_aside.first;
    }
    struct wl_engine **end = &loop->due;
    while (*end != NULL) end = &(*end)->next_due;
    *end = sim->set_aside.due;
    wl_sim_release(sim);
    return 0;
}

bool wl_sim_turn(struct wl_loop *loop, double seconds, const char **why)
{
    struct wl_sim *sim = loop->sim;
    if (weir_sim_now_ns(sim->handle) < sim->stalled_until) /* the whole program stands still */
        (void)weir_sim_run(sim->handle, NULL, sim->stalled_until);
    uint64_t now = weir_sim_now_ns(sim->handle), wait = (uint64_t)(seconds * 1e9 + 0.5);
    if (seconds > 0 && wait == 0) wait = 1;
    /* Who turns the loop without ever waiting makes no time pass here, as it would in the real world. */
    sim->idle_turns = now == sim->turned_at ? sim->idle_turns + 1 : 0;
    sim->turned_at = now;
    if (sim->idle_turns > WL_SIM_IDLE_TURNS) {
        sim->idle_turns = 0;
        *why =
            "the simulation stands still: something runs over and over without waiting for any time to pass";
        return false;
    }
    weir_sim_end end = weir_sim_run(sim->handle, &loop->wake, now + wait);
    if (end != WEIR_SIM_STUCK) return true;
    *why = "the simulation stands still: a million events happened at one moment";
    return false;
}

int wl_sim_open_engine(struct wl_engine *engine, struct wl_options *options, char *why)
{
    struct wl_sim *sim = engine->loop->sim;
    int code = weir_sim_host_new(&engine->sim_host, sim->handle);
    if (code != WEIR_OK) return code;
    weir_host hooks = *weir_sim_hooks(engine->sim_host);
    if (options->seeded) hooks.seed = options->seed;
    code = weir_open(&engine->handle, &options->engine, &hooks, weir_sim_driver(sim->handle), why);
    if (code == WEIR_OK) weir_sim_bind(engine->sim_host, engine->handle);
    engine->sim = sim;
    wl_sim_retain(sim);
    return code;
}

void wl_sim_close_engine(struct wl_engine *engine)
{
    weir_sim_host_free(engine->sim_host);
    engine->sim_host = NULL;
    if (engine->sim != NULL) wl_sim_release(engine->sim);
    engine->sim = NULL;
}

/* ---- seeing ------------------------------------------------------------------------------------------------------- */

static int sim_now(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)(weir_sim_now_ns(check_sim(L)->handle) - WEIR_SIM_START) / 1e9);
    return 1;
}

static int sim_random(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)(weir_sim_random(check_sim(L)->handle) >> 11));
    return 1;
}

static int sim_hash(lua_State *L)
{
    char text[20];
    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)weir_sim_hash(check_sim(L)->handle));
    lua_pushstring(L, text);
    return 1;
}

static int sim_note(lua_State *L)
{
    struct wl_sim *sim = check_sim(L);
    weir_sim_note(sim->handle, luaL_checkstring(L, 2));
    return 0;
}

static void set_count(lua_State *L, const char *name, uint64_t count)
{
    lua_pushinteger(L, (lua_Integer)count);
    lua_setfield(L, -2, name);
}

static int sim_books(lua_State *L)
{
    weir_sim_books books;
    weir_sim_books_now(check_sim(L)->handle, &books);
    lua_createtable(L, 0, 8);
    set_count(L, "opened", books.opened);
    set_count(L, "closed", books.closed);
    set_count(L, "twice", books.twice);
    set_count(L, "lost", books.lost);
    set_count(L, "undead", books.undead);
    set_count(L, "gone", books.gone);
    set_count(L, "unknown_there", books.unknown_there);
    set_count(L, "unknown_not_there", books.unknown_not_there);
    return 1;
}

static int sim_executions(lua_State *L)
{
    struct wl_sim *sim = check_sim(L);
    lua_pushinteger(L, weir_sim_executions(sim->handle, luaL_checkstring(L, 2)));
    return 1;
}

/* Lines go to a function kept in the anchor table at 2. */
static void on_line(void *ctx, const char *text)
{
    struct wl_sim *sim = ctx;
    lua_State *L = sim->L;
    lua_settop(L, 1);
    lua_rawgeti(L, 1, 2);
    lua_pushstring(L, text);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) wl_sim_keep_failure(sim);
}

static int sim_trace(lua_State *L)
{
    struct wl_sim *sim = check_sim(L);
    if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    wl_sim_push_anchor(L, sim);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, 2);
    if (lua_isnil(L, 2))
        weir_sim_trace(sim->handle, NULL, NULL);
    else
        weir_sim_trace(sim->handle, on_line, sim);
    return 0;
}

/* failure() -> the first error that a callback raised since the last question, or nil */
static int sim_failure(lua_State *L)
{
    struct wl_sim *sim = check_sim(L);
    if (!sim->failed) return 0;
    sim->failed = false;
    wl_sim_push_anchor(L, sim);
    lua_rawgeti(L, -1, 3);
    return 1;
}

/* ---- steering ------------------------------------------------------------------------------------------------------- */

static int sim_step_wall_clock(lua_State *L)
{
    struct wl_sim *sim = check_sim(L);
    double seconds = luaL_checknumber(L, 2);
    luaL_argcheck(L, seconds >= -1e9 && seconds <= 1e9, 2, "a number of seconds is needed");
    weir_sim_step_wall_clock(sim->handle, (int64_t)(seconds * 1e6));
    return 0;
}

static int sim_stall(lua_State *L)
{
    struct wl_sim *sim = check_sim(L);
    double seconds = luaL_checknumber(L, 2);
    luaL_argcheck(L, seconds >= 0 && seconds <= 1e9, 2, "a number of seconds is needed");
    uint64_t until = weir_sim_now_ns(sim->handle) + (uint64_t)(seconds * 1e9);
    if (until > sim->stalled_until) sim->stalled_until = until;
    weir_sim_stall_all(sim->handle, until);
    return 0;
}

void wl_sim_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"enter", sim_enter},
        {"leave", sim_leave},
        {"now", sim_now},
        {"random", sim_random},
        {"hash", sim_hash},
        {"note", sim_note},
        {"books", sim_books},
        {"executions", sim_executions},
        {"trace", sim_trace},
        {"failure", sim_failure},
        {"stall", sim_stall},
        {"step_wall_clock", sim_step_wall_clock},
        {"set", wl_sim_set},
        {"rule", wl_sim_rule},
        {"fault", wl_sim_fault},
        {"heal", wl_sim_heal},
        {"stats", wl_sim_stats},
        {"__gc", sim_collect},
        {NULL, NULL},
    };
    luaL_newmetatable(L, WL_SIM_TYPE);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
