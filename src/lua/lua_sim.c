/* A simulated world for Lua: its clock takes the place of the loop's while a run lasts, and engines opened meanwhile are
 * opened on its servers. One world at a time; what belongs to the real one stands still until the run is over. */
#include "lua_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRACE_SLOT = 2, FAILURE_SLOT = 3, LINE_THREAD_SLOT = 4 };

struct wl_sim *wl_sim_check(lua_State *L)
{
    struct wl_sim **box = luaL_checkudata(L, 1, WL_SIM_TYPE);
    if (*box == NULL) luaL_error(L, "the simulation is closed");
    return *box;
}

struct wl_sim *wl_sim_steered(lua_State *L)
{
    struct wl_sim *sim = wl_sim_check(L);
    if (sim->in_line)
        luaL_error(L, "the function that is traced to must only look, not change the simulation");
    return sim;
}

bool wl_sim_stranger(const struct wl_engine *engine)
{
    return engine->handle != NULL && engine->sim != engine->loop->sim;
}

uint64_t wl_sim_random(struct wl_loop *loop)
{
    return weir_sim_random(loop->sim->handle);
}

void wl_sim_keep_failure(struct wl_sim *sim, lua_State *L)
{
    if (!sim->failed) lua_rawseti(L, 1, FAILURE_SLOT);
    sim->failed = true;
    lua_settop(L, 1);
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
    wl_loop_release(sim->loop);
    free(sim);
}

static int sim_collect(lua_State *L)
{
    struct wl_sim **box = luaL_checkudata(L, 1, WL_SIM_TYPE);
    struct wl_sim *sim = *box;
    *box = NULL;
    if (sim == NULL) return 0;
    sim->L = sim->line_L = NULL; /* collected with us; engines may still be closing */
    weir_sim_trace(sim->handle, NULL, NULL);
    wl_sim_release(sim);
    return 0;
}

/* A thread in `slot` of the anchor table on top, which lies at the bottom of its stack for good. */
static lua_State *new_thread(lua_State *L, int slot)
{
    lua_State *thread = lua_newthread(L);
    lua_rawseti(L, -2, slot);
    lua_pushvalue(L, -1);
    lua_xmove(L, thread, 1);
    return thread;
}

/* core.sim(seed) -> sim. */
int wl_sim_new(lua_State *L)
{
    struct wl_loop *loop = wl_loop_of(L);
    uint64_t seed = (uint64_t)luaL_checkinteger(L, 1);
    struct wl_sim **box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = NULL;
    luaL_setmetatable(L, WL_SIM_TYPE);
    lua_newtable(L);
    lua_State *asked = new_thread(L, 1), *traced = new_thread(L, LINE_THREAD_SLOT);
    wl_set_anchor(L, -2);
    *box = calloc(1, sizeof **box);
    if (*box == NULL || weir_sim_new(&(*box)->handle, seed) != WEIR_OK) {
        free(*box);
        *box = NULL;
        return luaL_error(L, "not enough memory");
    }
    (*box)->references = 1;
    (*box)->L = asked;
    (*box)->line_L = traced;
    (*box)->loop = loop;
    wl_loop_retain(loop);
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
    if (weir_sim_now_ns(sim->handle) <
        sim->stalled_until) { /* the program stands still; its callers pile up */
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

/* Calls and checks that wait to be heard of must only be taken by the scheduler of their own world. */
static void swap_news(struct wl_loop *loop, struct wl_sim *sim)
{
    struct wl_news news = loop->news;
    loop->news = sim->set_aside;
    sim->set_aside = news;
}

struct wl_news *wl_news_of(const struct wl_engine *engine)
{
    struct wl_loop *loop = engine->loop;
    if (engine->sim == loop->sim) return &loop->news;
    return engine->sim != NULL ? &engine->sim->set_aside : &loop->sim->set_aside;
}

static int sim_enter(lua_State *L)
{
    struct wl_sim *sim = wl_sim_steered(L);
    struct wl_loop *loop = wl_loop_of(L);
    if (loop->busy > 0) return luaL_error(L, "a policy must not run a simulation");
    if (loop->sim != NULL) return luaL_error(L, "a simulation is running already; one runs at a time");
    swap_news(loop, sim);
    wl_sim_retain(sim);
    loop->sim = sim;
    loop->rearm_loads = rearm_loads;
    return 0;
}

static int sim_leave(lua_State *L)
{
    struct wl_sim *sim = wl_sim_check(L);
    struct wl_loop *loop = wl_loop_of(L);
    if (loop->sim != sim) return 0;
    loop->sim = NULL;
    loop->rearm_loads = NULL;
    swap_news(loop, sim);
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
    engine->sim = sim;
    wl_sim_retain(sim);
    weir_host hooks = *weir_sim_hooks(engine->sim_host);
    if (options->seeded) hooks.seed = options->seed;
    options->engine.log_to = NULL; /* what never happened is no news for the real world's log */
    options->engine.slow_log_ns = 0;
    code = weir_open(&engine->handle, &options->engine, &hooks, weir_sim_driver(sim->handle), why);
    if (code == WEIR_OK) weir_sim_bind(engine->sim_host, engine->handle);
    return code;
}

void wl_sim_close_engine(struct wl_engine *engine)
{
    weir_sim_host_free(engine->sim_host);
    engine->sim_host = NULL;
}

/* Until then its calls may be on the list of its world. */
void wl_sim_release_engine(struct wl_engine *engine)
{
    if (engine->sim != NULL) wl_sim_release(engine->sim);
    engine->sim = NULL;
}

/* ---- seeing ------------------------------------------------------------------------------------------------------- */

static int sim_now(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)(weir_sim_now_ns(wl_sim_check(L)->handle) - WEIR_SIM_START) / 1e9);
    return 1;
}

static int sim_random(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)(weir_sim_random(wl_sim_check(L)->handle) >> 11));
    return 1;
}

static int sim_hash(lua_State *L)
{
    char text[20];
    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)weir_sim_hash(wl_sim_check(L)->handle));
    lua_pushstring(L, text);
    return 1;
}

static int sim_note(lua_State *L)
{
    struct wl_sim *sim = wl_sim_steered(L);
    weir_sim_note(sim->handle, luaL_checkstring(L, 2));
    return 0;
}

static int sim_books(lua_State *L)
{
    weir_sim_books books;
    weir_sim_books_now(wl_sim_check(L)->handle, &books);
    lua_createtable(L, 0, 8);
    wl_set_count(L, "opened", books.opened);
    wl_set_count(L, "closed", books.closed);
    wl_set_count(L, "twice", books.twice);
    wl_set_count(L, "lost", books.lost);
    wl_set_count(L, "undead", books.undead);
    wl_set_count(L, "gone", books.gone);
    wl_set_count(L, "unknown_there", books.unknown_there);
    wl_set_count(L, "unknown_not_there", books.unknown_not_there);
    return 1;
}

static int sim_executions(lua_State *L)
{
    struct wl_sim *sim = wl_sim_check(L);
    lua_pushinteger(L, weir_sim_executions(sim->handle, luaL_checkstring(L, 2)));
    return 1;
}

/* It is called in the middle of things, so it can neither wait nor change anything. */
static void on_line(void *ctx, const char *text)
{
    struct wl_sim *sim = ctx;
    lua_State *L = sim->line_L;
    if (sim->in_line) return;
    sim->in_line = true;
    sim->loop->busy++;
    lua_settop(L, 1);
    lua_rawgeti(L, 1, TRACE_SLOT);
    lua_pushstring(L, text);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) wl_sim_keep_failure(sim, L);
    sim->loop->busy--;
    sim->in_line = false;
}

static int sim_trace(lua_State *L)
{
    struct wl_sim *sim = wl_sim_steered(L);
    if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    wl_get_anchor(L, 1);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, TRACE_SLOT);
    if (lua_isnil(L, 2))
        weir_sim_trace(sim->handle, NULL, NULL);
    else
        weir_sim_trace(sim->handle, on_line, sim);
    return 0;
}

/* failure() -> the first error that a callback raised since the last question, or nil */
static int sim_failure(lua_State *L)
{
    struct wl_sim *sim = wl_sim_check(L);
    if (!sim->failed) return 0;
    sim->failed = false;
    wl_get_anchor(L, 1);
    lua_rawgeti(L, -1, FAILURE_SLOT);
    return 1;
}

/* ---- steering ------------------------------------------------------------------------------------------------------- */

static int sim_step_wall_clock(lua_State *L)
{
    struct wl_sim *sim = wl_sim_steered(L);
    double seconds = luaL_checknumber(L, 2);
    luaL_argcheck(L, seconds >= -1e9 && seconds <= 1e9, 2, "a number of seconds is needed");
    weir_sim_step_wall_clock(sim->handle, (int64_t)(seconds * 1e6));
    return 0;
}

static int sim_stall(lua_State *L)
{
    struct wl_sim *sim = wl_sim_steered(L);
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
