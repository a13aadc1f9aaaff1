/* Backoff, retry budget, limiter and rate limiter for a script's own use; the breaker is in lua_breaker.c. */
#include "lua_weir.h"

#include <string.h>
#include <sys/random.h>

#define WL_BACKOFF_TYPE "weir.backoff"
#define WL_BUDGET_TYPE  "weir.budget"
#define WL_LIMIT_TYPE   "weir.limit"
#define WL_RATE_TYPE    "weir.rate"

uint64_t wl_seed(lua_State *L)
{
    uint64_t seed = 0;
    struct wl_loop *loop = wl_loop_of(L);
    if (loop->sim != NULL) return wl_sim_random(loop);
    /* Early in boot the kernel may have nothing to give; delays need to differ, not to be secret. */
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed) seed = wl_now_ns();
    return seed;
}

/* ---- backoff ------------------------------------------------------------------------------------------- */

struct backoff {
    weir_backoff backoff;
    uint64_t random; /* state of splitmix64 */
};

/* splitmix64 (Steele, Lea, Flood 2014): one addition of state, good enough to spread delays. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* core.backoff(options) -> backoff | nil, why */
int wl_backoff_new(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    weir_options defaults;
    struct wl_reader reader = {.L = L};
    luaL_checktype(L, 1, LUA_TTABLE);
    weir_options_defaults(&defaults);
    struct wl_backoff given = {(int)defaults.backoff,
                               defaults.backoff_base_ns,
                               defaults.backoff_cap_ns,
                               defaults.backoff_factor,
                               0,
                               false};
    if (!wl_backoff_read(&reader, 1, &given)) return wl_refuse(L, reader.why);
    struct backoff *self = lua_newuserdatauv(L, sizeof *self, 0);
    self->random = given.seeded ? given.seed : wl_seed(L);
    if (weir_backoff_init(&self->backoff, (weir_backoff_kind)given.kind, given.base_ns, given.cap_ns,
                          given.factor, why) != WEIR_OK) {
        return wl_refuse(L, why);
    }
    luaL_setmetatable(L, WL_BACKOFF_TYPE);
    return 1;
}

static int backoff_next(lua_State *L)
{
    struct backoff *self = luaL_checkudata(L, 1, WL_BACKOFF_TYPE);
    lua_pushnumber(L, (lua_Number)weir_backoff_next(&self->backoff, next_random(&self->random)) / 1e9);
    return 1;
}

static int backoff_reset(lua_State *L)
{
    struct backoff *self = luaL_checkudata(L, 1, WL_BACKOFF_TYPE);
    weir_backoff_reset(&self->backoff);
    return 0;
}

/* ---- retry budget -------------------------------------------------------------------------------------- */

/* core.budget(options[, now]) -> budget | nil, why */
int wl_budget_new(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    weir_budget_config config;
    struct wl_reader reader = {.L = L};
    luaL_checktype(L, 1, LUA_TTABLE);
    uint64_t now_ns = wl_guard_now(L, 2);
    weir_budget_defaults(&config);
    if (!wl_budget_read(&reader, 1, &config)) return wl_refuse(L, reader.why);
    void *memory = lua_newuserdatauv(L, weir_budget_size() + 63, 0);
    if (weir_budget_init(wl_aligned(memory), &config, now_ns, why) != WEIR_OK) return wl_refuse(L, why);
    luaL_setmetatable(L, WL_BUDGET_TYPE);
    return 1;
}

static weir_budget *check_budget(lua_State *L)
{
    return wl_aligned(luaL_checkudata(L, 1, WL_BUDGET_TYPE));
}

static int budget_request(lua_State *L)
{
    weir_budget_request(check_budget(L), wl_guard_now(L, 2));
    return 0;
}

static int budget_success(lua_State *L)
{
    weir_budget_success(check_budget(L), wl_guard_now(L, 2));
    return 0;
}

static int budget_withdraw(lua_State *L)
{
    lua_pushboolean(L, weir_budget_withdraw(check_budget(L), wl_guard_now(L, 2)));
    return 1;
}

static int budget_level(lua_State *L)
{
    lua_pushnumber(L, weir_budget_level(check_budget(L), wl_guard_now(L, 2)));
    return 1;
}

static int budget_cap(lua_State *L)
{
    lua_pushnumber(L, weir_budget_cap(check_budget(L)));
    return 1;
}

/* ---- limiter ------------------------------------------------------------------------------------------- */

/* core.limit(max) -> limit | nil, why */
int wl_limit_new(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    double max = luaL_checknumber(L, 1);
    void *memory = lua_newuserdatauv(L, weir_limit_size() + 63, 0);
    uint32_t whole = max >= 1 && max <= 4294967295.0 ? (uint32_t)max : 0;
    if (weir_limit_init(wl_aligned(memory), whole, why) != WEIR_OK) return wl_refuse(L, why);
    luaL_setmetatable(L, WL_LIMIT_TYPE);
    return 1;
}

static weir_limit *check_limit(lua_State *L)
{
    return wl_aligned(luaL_checkudata(L, 1, WL_LIMIT_TYPE));
}

static int limit_acquire(lua_State *L)
{
    lua_pushboolean(L, weir_limit_acquire(check_limit(L), 0));
    return 1;
}

static int limit_release(lua_State *L)
{
    weir_limit_release(check_limit(L), 0);
    return 0;
}

static int limit_used(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)weir_limit_used(check_limit(L)));
    return 1;
}

static int limit_max(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)weir_limit_max(check_limit(L)));
    return 1;
}

/* ---- rate limiter -------------------------------------------------------------------------------------- */

/* core.rate(per_second, burst[, now]) -> rate | nil, why */
int wl_rate_new(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    double per_second = luaL_checknumber(L, 1), burst = luaL_checknumber(L, 2);
    uint64_t now_ns = wl_guard_now(L, 3);
    void *memory = lua_newuserdatauv(L, weir_rate_size() + 63, 0);
    if (weir_rate_init(wl_aligned(memory), per_second, burst, now_ns, why) != WEIR_OK)
        return wl_refuse(L, why);
    luaL_setmetatable(L, WL_RATE_TYPE);
    return 1;
}

/* take([now]) -> true | false, seconds until there is one */
static int rate_take(lua_State *L)
{
    uint64_t wait_ns = 0;
    weir_rate *self = wl_aligned(luaL_checkudata(L, 1, WL_RATE_TYPE));
    bool taken = weir_rate_take(self, wl_guard_now(L, 2), &wait_ns);
    lua_pushboolean(L, taken);
    if (taken) return 1;
    lua_pushnumber(L, (lua_Number)wait_ns / 1e9);
    return 2;
}

static void make_type(lua_State *L, const char *name, const luaL_Reg *methods)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

void wl_guard_open(lua_State *L)
{
    static const luaL_Reg backoff[] = {{"next", backoff_next}, {"reset", backoff_reset}, {NULL, NULL}};
    static const luaL_Reg budget[] = {{"request", budget_request},   {"success", budget_success},
                                      {"withdraw", budget_withdraw}, {"level", budget_level},
                                      {"cap", budget_cap},           {NULL, NULL}};
    static const luaL_Reg limit[] = {{"acquire", limit_acquire},
                                     {"release", limit_release},
                                     {"used", limit_used},
                                     {"max", limit_max},
                                     {NULL, NULL}};
    static const luaL_Reg rate[] = {{"take", rate_take}, {NULL, NULL}};
    make_type(L, WL_BACKOFF_TYPE, backoff);
    make_type(L, WL_BUDGET_TYPE, budget);
    make_type(L, WL_LIMIT_TYPE, limit);
    make_type(L, WL_RATE_TYPE, rate);
}
