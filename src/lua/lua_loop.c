/* Turning the loop. Completions only mark calls as ready, so that no Lua code ever runs inside libuv or the
 * engine (policies aside); the scheduler in lua/weir/loop.lua asks afterwards who is ready and resumes them.
 */
#include "lua_weir.h"

#include "weir/sim.h"

#include <stdlib.h>
#include <time.h>

static const char loop_key = 0;

uint64_t wl_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct wl_loop *wl_loop_of(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &loop_key);
    struct wl_loop **box = lua_touserdata(L, -1);
    struct wl_loop *loop = box == NULL ? NULL : *box;
    lua_pop(L, 1);
    if (loop == NULL) luaL_error(L, "the Lua state is closing");
    return loop;
}

void wl_loop_retain(struct wl_loop *loop)
{
    loop->references++;
}

void wl_loop_release(struct wl_loop *loop)
{
    if (--loop->references > 0) return;
    loop->busy++;
    if (loop->host.close != NULL) loop->host.close(loop->host.ctx);
    free(loop->polls);
    free(loop);
}

void wl_loop_wake(struct wl_loop *loop)
{
    loop->wake = true;
    if (wl_has_gates(loop)) loop->host.stir(loop->host.ctx);
}

void wl_loop_leave(struct wl_loop *loop)
{
    while (loop->busy == 1 &&
           (loop->retired_calls != NULL || loop->retired_loads != NULL || loop->retired_engines != NULL)) {
        struct wl_call *call = loop->retired_calls;
        struct wl_engine *engine = loop->retired_engines;
        if (call != NULL) {
            loop->retired_calls = call->next;
            wl_call_drop(call);
        } else if (loop->retired_loads != NULL) {
            wl_load_drop(wl_load_unretire(loop));
        } else {
            loop->retired_engines = engine->next;
            wl_engine_drop(engine);
        }
    }
    loop->busy--;
}

static int loop_collect(lua_State *L)
{
    struct wl_loop **box = lua_touserdata(L, 1);
    struct wl_loop *loop = *box;
    *box = NULL;
    if (loop != NULL) wl_loop_release(loop);
    return 0;
}

void wl_loop_open(lua_State *L, const weir_lua_host *host)
{
    struct wl_loop **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, loop_collect);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    *box = calloc(1, sizeof **box);
    if (*box == NULL) luaL_error(L, "not enough memory");
    (*box)->references = 1;
    (*box)->polled = -1;
    (*box)->host = *host;
    lua_rawsetp(L, LUA_REGISTRYINDEX, &loop_key);
}

static int loop_now(lua_State *L)
{
    const struct wl_loop *loop = wl_loop_of(L);
    uint64_t since = loop->sim != NULL ? WEIR_SIM_START : 0;
    lua_pushnumber(L, (lua_Number)(wl_loop_now(loop) - since) / 1e9);
    return 1;
}

static bool has_news(const struct wl_loop *loop)
{
    return loop->news.first != NULL || loop->news.due != NULL || loop->news.heard != NULL || loop->arrivals ||
           (loop->polled >= 0 && loop->sim == NULL);
}

void wl_loop_turn(lua_State *L, struct wl_loop *loop, double seconds)
{
    const char *why = NULL;
    if (loop->sim != NULL) {
        loop->wake = has_news(loop);
        loop->busy++;
        bool went_on = wl_sim_turn(loop, seconds < 0 ? WL_TURN_MAX : seconds, &why);
        wl_loop_leave(loop);
        if (!went_on) luaL_error(L, "%s", why);
        return;
    }
    if (loop->host.turn == NULL) luaL_error(L, "the loop of %s turns by itself", loop->host.name);
    /* No turn ends before it began: libuv's host looks at the clock first. */
    uint64_t limit = seconds < 0 ? 0 : seconds < 50e-6 ? 50000 : (uint64_t)(seconds * 1e9);
    loop->wake = has_news(loop);
    loop->busy++;
    loop->host.turn(loop->host.ctx, &loop->wake, limit);
    wl_loop_leave(loop);
}

/* turn([seconds]) -> whether there is something for ready(), due() or polled(): waits for that, or until the time has
 * passed; without seconds, for ever. */
static int loop_turn(lua_State *L)
{
    struct wl_loop *loop = wl_loop_of(L);
    double seconds = luaL_optnumber(L, 1, -1);
    if (loop->busy > 0) return luaL_error(L, "a policy must not wait or call the database");
    wl_loop_turn(L, loop, seconds);
    lua_pushboolean(L, has_news(loop));
    return 1;
}

/* ready() -> the key of a call that has got an answer since, or nil. */
static int loop_ready(lua_State *L)
{
    struct wl_loop *loop = wl_loop_of(L);
    struct wl_call *call = loop->news.first;
    if (call == NULL) return 0;
    loop->news.first = call->next;
    if (loop->news.first == NULL) loop->news.last = NULL;
    call->next = NULL;
    call->ready = false;
    lua_pushlightuserdata(L, call);
    return 1;
}

/* due() -> the key of an engine and the number of one of its health checks that should run now, or nil. */
static int loop_due(lua_State *L)
{
    struct wl_loop *loop = wl_loop_of(L);
    if (loop->busy == 0 &&
        wl_has_gates(loop)) { /* no turn of ours ends where finalisers' leavings are freed */
        loop->busy++;
        wl_loop_leave(loop);
    }
    struct wl_engine *engine = loop->news.due;
    if (engine == NULL) return 0;
    int index = __builtin_ctz(engine->checks_due);
    engine->checks_due &= engine->checks_due - 1;
    if (engine->checks_due == 0) {
        loop->news.due = engine->next_due;
        engine->listed_due = false;
    }
    lua_pushlightuserdata(L, engine);
    lua_pushinteger(L, index + 1);
    return 2;
}

/* arrivals() -> whether requests have come in, since the last question, that are to be taken from a load. */
static int loop_arrivals(lua_State *L)
{
    struct wl_loop *loop = wl_loop_of(L);
    lua_pushboolean(L, loop->arrivals);
    loop->arrivals = false;
    return 1;
}

const luaL_Reg *wl_loop_functions(void)
{
    static const luaL_Reg functions[] = {
        {"now", loop_now}, {"turn", loop_turn},         {"ready", loop_ready},
        {"due", loop_due}, {"arrivals", loop_arrivals}, {"reopen_logs", wl_engine_reopen_logs},
        {NULL, NULL},
    };
    return functions;
}
