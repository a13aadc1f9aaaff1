/* Engines: opening, closing, seeing and steering. */
#include "lua_weir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char engine_mark;

/* ---- the life of an engine ----------------------------------------------------------------------------- */

static void on_check(void *ctx, size_t index)
{
    struct wl_engine *engine = ctx;
    if (index >= WL_CHECKS_MAX) return;
    engine->checks_due |= UINT32_C(1) << index;
    wl_loop_wake(engine->loop);
    if (engine->listed_due) return;
    engine->listed_due = true;
    struct wl_news *news = wl_news_of(engine);
    engine->next_due = news->due;
    news->due = engine;
}

static void forget_due(struct wl_engine *engine)
{
    struct wl_engine **at = &wl_news_of(engine)->due;
    if (!engine->listed_due) return;
    while (*at != engine) at = &(*at)->next_due;
    *at = engine->next_due;
    engine->listed_due = false;
    engine->checks_due = 0;
}

static void unlist(struct wl_engine *engine)
{
    struct wl_engine **at = &engine->loop->engines;
    while (*at != NULL && *at != engine) at = &(*at)->next_open;
    if (*at == engine) *at = engine->next_open;
}

static void shut(struct wl_engine *engine)
{
    struct wl_loop *loop = engine->loop;
    unlist(engine);
    wl_loop_retain(loop);
    loop->busy++;
    wl_loads_free_of(engine);
    weir_free(engine->handle);
    engine->handle = NULL;
    if (engine->loan != NULL) loop->host.take_back(engine->loan);
    engine->loan = NULL;
    wl_sim_close_engine(engine);
    wl_policy_free(engine->policy);
    engine->policy = NULL;
    forget_due(engine);
    while (engine->spare != NULL) {
        struct wl_call *spare = engine->spare;
        engine->spare = spare->next;
        free(spare);
    }
    wl_loop_leave(loop);
    wl_loop_release(loop);
}

void wl_engines_shut(struct wl_loop *loop)
{
    while (loop->engines != NULL) shut(loop->engines);
}

void wl_engine_release(struct wl_engine *engine)
{
    if (--engine->references > 0) return;
    wl_scratch_free(&engine->scratch);
    free(engine->text);
    wl_sim_release_engine(engine);
    wl_loop_release(engine->loop);
    free(engine);
}

void wl_engine_drop(struct wl_engine *engine)
{
    shut(engine);
    wl_engine_release(engine);
}

static int engine_collect(lua_State *L)
{
    struct wl_box *box = luaL_checkudata(L, 1, WL_ENGINE_TYPE);
    struct wl_engine *engine = box->engine;
    box->engine = NULL;
    if (engine == NULL) return 0;
    if (engine->loop->busy == 0) {
        wl_engine_drop(engine);
        return 0;
    }
    engine->next =
        engine->loop->retired_engines; /* a finaliser inside a policy: when the engine has been left */
    engine->loop->retired_engines = engine;
    wl_loop_wake(engine->loop);
    return 0;
}

static struct wl_engine *check_engine(lua_State *L, int index)
{
    const struct wl_box *box = wl_check_marked(L, index, &engine_mark, sizeof *box, WL_ENGINE_TYPE);
    if (box->engine == NULL) luaL_error(L, "the engine is closed");
    return box->engine;
}

struct wl_engine *wl_engine_enterable(lua_State *L, int index)
{
    struct wl_engine *engine = check_engine(L, index);
    if (engine->loop->busy > 0) luaL_error(L, "a policy must not wait or call the database");
    if (wl_sim_stranger(engine)) luaL_error(L, WL_STRANGER);
    return engine->handle != NULL ? engine : NULL;
}

/* The same, only to look at it or to close it, which may be done from another world too. */
struct wl_engine *wl_engine_lookable(lua_State *L)
{
    struct wl_engine *engine = check_engine(L, 1);
    if (engine->loop->busy > 0) luaL_error(L, "a policy must not wait or call the database");
    return engine->handle != NULL ? engine : NULL;
}

static int fail(lua_State *L, const char *what)
{
    lua_pushnil(L);
    lua_pushnil(L);
    lua_pushstring(L, what);
    return 3;
}

static void push_check_names(lua_State *L, const weir_options *options)
{
    lua_createtable(L, (int)options->check_count, 0);
    for (size_t i = 0; i < options->check_count; i++) {
        lua_pushstring(L, options->checks[i].name);
        lua_rawseti(L, -2, (int)i + 1);
    }
}

static int open_on_host(lua_State *L, struct wl_engine *engine, const struct wl_options *options, char *why)
{
    const weir_lua_host *host = &engine->loop->host;
    weir_host hooks;
    int code = host->lend(host->ctx, options->seeded ? options->seed : wl_seed(L), &hooks, &engine->loan);
    if (code == WEIR_ESTATE)
        (void)snprintf(why, WEIR_WHY_MAX, "engines are opened in workers, and this process of %s is none",
                       host->name);
    if (code != WEIR_OK) return code;
    code = weir_open(&engine->handle, &options->engine, &hooks, weir_driver_pg(), why);
    if (code == WEIR_OK) host->bind(engine->loan, engine->handle);
    return code;
}

static int start(lua_State *L, struct wl_engine *engine, struct wl_options *options)
{
    char why[WEIR_WHY_MAX] = "out of memory";
    options->engine.on_check = on_check;
    options->engine.check_ctx = engine;
    options->engine.on_policy = wl_policytext_told;
    options->engine.policy_ctx = engine;
    options->engine.host_name = engine->loop->host.title;
    engine->loop->busy++;
    int code = engine->loop->sim != NULL ? wl_sim_open_engine(engine, options, why)
                                         : open_on_host(L, engine, options, why);
    wl_loop_leave(engine->loop);
    if (code == WEIR_EINVAL) return wl_refuse(L, why);
    if (code != WEIR_OK) return fail(L, why);
    engine->next_open = engine->loop->engines;
    engine->loop->engines = engine;
    lua_pushlightuserdata(L, engine);
    push_check_names(L, &options->engine);
    return 3;
}

int wl_engine_new(lua_State *L)
{
    struct wl_options options = {0};
    struct wl_reader reader = {.L = L};
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (!wl_options_read(&reader, 1, &options)) return wl_refuse(L, reader.why);

    struct wl_loop *loop = wl_loop_of(L);
    if (loop->busy > 0) return luaL_error(L, "a policy must not open an engine");
    struct wl_box *box = lua_newuserdatauv(L, sizeof *box, 1);
    *box = (struct wl_box){.mark = &engine_mark};
    luaL_setmetatable(L, WL_ENGINE_TYPE);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    wl_set_anchor(L, 2);
    struct wl_engine *engine = box->engine = calloc(1, sizeof *engine);
    if (engine == NULL) return fail(L, "out of memory");
    engine->references = 1;
    engine->loop = loop;
    wl_loop_retain(loop);
    wl_policy_open(L, 1, 3, options.policy_slice_ns, loop->sim != NULL, &engine->policy,
                   &options.engine.policy);
    lua_settop(L, 2);
    return start(L, engine, &options);
}

/* check(options) -> true, or nil and a sentence: what is wrong with them, without opening anything. */
int wl_engine_check(lua_State *L)
{
    struct wl_options options = {0};
    struct wl_reader reader = {.L = L};
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    char why[WEIR_WHY_MAX] = "";
    if (!wl_options_read(&reader, 1, &options)) return wl_refuse(L, reader.why);
    if (weir_options_check(&options.engine, weir_driver_pg(), why) != WEIR_OK) return wl_refuse(L, why);
    lua_pushboolean(L, 1);
    return 1;
}

static int engine_close(lua_State *L)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    if (engine != NULL) shut(engine);
    return 0;
}

/* ---- seeing -------------------------------------------------------------------------------------------- */

enum document { HEALTH, STATS, CALLS, EVENTS };

static size_t write_document(weir_engine *engine, enum document which, uint64_t number, char *out,
                             size_t size)
{
    switch (which) {
    case HEALTH:
        return weir_health_json(engine, out, size);
    case STATS:
        return weir_stats_json(engine, out, size);
    case CALLS:
        return weir_calls_json(engine, (size_t)number, out, size);
    case EVENTS:
        return weir_events_json(engine, number, out, size);
    }
    return 0;
}

/* Pushes a JSON text. What is told may grow between asking for its length and writing it, hence the loop. */
static int push_document(lua_State *L, enum document which, uint64_t number)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    if (engine == NULL) return wl_refuse(L, "the engine is closed");
    for (;;) {
        size_t length = write_document(engine->handle, which, number, engine->text, engine->text_room);
        if (length < engine->text_room) {
            lua_pushlstring(L, engine->text, length);
            return 1;
        }
        char *larger = realloc(engine->text, length + length / 4 + 256);
        if (larger == NULL) return luaL_error(L, "not enough memory");
        engine->text = larger;
        engine->text_room = length + length / 4 + 256;
    }
}

static int engine_health(lua_State *L)
{
    return push_document(L, HEALTH, 0);
}

static int engine_stats(lua_State *L)
{
    return push_document(L, STATS, 0);
}

static uint64_t check_count(lua_State *L, int index, double otherwise)
{
    double number = luaL_optnumber(L, index, otherwise);
    luaL_argcheck(L, number >= 0 && number <= 9007199254740992.0, index, "a whole number is needed");
    return (uint64_t)number;
}

static int engine_calls(lua_State *L)
{
    return push_document(L, CALLS, check_count(L, 2, 100));
}

static int engine_events(lua_State *L)
{
    return push_document(L, EVENTS, check_count(L, 2, 0));
}

static int engine_page(lua_State *L)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    const char *path = luaL_checkstring(L, 2), *accept = luaL_optstring(L, 3, NULL);
    if (engine == NULL) return wl_refuse(L, "the engine is closed");
    return wl_push_page(L, weir_engine_area(engine->handle), path, accept);
}

static int engine_held(lua_State *L)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    weir_held held = {0};
    if (engine != NULL) weir_held_now(engine->handle, &held);
    lua_createtable(L, 0, 9);
    wl_set_count(L, "calls", held.calls);
    wl_set_count(L, "in_flight", held.in_flight);
    wl_set_count(L, "leased", held.leased);
    wl_set_count(L, "connecting", held.connecting);
    wl_set_count(L, "canceling", held.canceling);
    wl_set_count(L, "idle", held.idle);
    wl_set_count(L, "timers", held.timers);
    wl_set_count(L, "waiting", held.waiting);
    wl_set_count(L, "allocations", held.allocations);
    return 1;
}

/* engine:handle() -> the engine of C, for the host's own use; nil once it is closed. */
static int engine_handle(lua_State *L)
{
    struct wl_engine *engine = check_engine(L, 1);
    if (engine->handle == NULL) return 0;
    lua_pushlightuserdata(L, engine->handle);
    return 1;
}

/* engine:area_replaced() -> why the area that was found is not the one in use; "" if it is. */
static int engine_area_replaced(lua_State *L)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    lua_pushstring(L, engine != NULL ? weir_area_replaced(engine->handle) : "");
    return 1;
}

static int engine_closed(lua_State *L)
{
    lua_pushboolean(L, check_engine(L, 1)->handle == NULL);
    return 1;
}

/* ---- steering ------------------------------------------------------------------------------------------ */

/* Common end of force and pause: true, or nil and why. */
static int answer(lua_State *L, struct wl_engine *engine, int code, const char *why)
{
    wl_loop_leave(engine->loop);
    if (code != WEIR_OK) return wl_refuse(L, why);
    lua_pushboolean(L, 1);
    return 1;
}

static int engine_force(lua_State *L)
{
    static const char *const names[] = {"auto", "open", "closed", "disabled", "metrics_only", NULL};
    static const weir_breaker_state states[] = {WEIR_CLOSED, WEIR_FORCED_OPEN, WEIR_FORCED_CLOSED,
                                                WEIR_DISABLED, WEIR_METRICS_ONLY};
    char why[WEIR_WHY_MAX] = "";
    struct wl_engine *engine = wl_engine_enterable(L, 1);
    const char *pool = luaL_optstring(L, 2, NULL);
    int state = luaL_checkoption(L, 3, "auto", names);
    if (engine == NULL) return wl_refuse(L, "the engine is closed");
    engine->loop->busy++;
    return answer(L, engine, weir_force_breaker(engine->handle, pool, states[state], why), why);
}

static int engine_pause(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    struct wl_engine *engine = wl_engine_enterable(L, 1);
    const char *pool = luaL_optstring(L, 2, NULL);
    bool paused = lua_toboolean(L, 3) != 0;
    if (engine == NULL) return wl_refuse(L, "the engine is closed");
    engine->loop->busy++;
    return answer(L, engine, weir_pause(engine->handle, pool, paused, why), why);
}

static int engine_drain(lua_State *L)
{
    struct wl_engine *engine = wl_engine_enterable(L, 1);
    double seconds = luaL_checknumber(L, 2);
    luaL_argcheck(L, seconds >= 0 && seconds <= 1e9, 2, "a number of seconds is needed");
    if (engine == NULL) return 0;
    engine->loop->busy++;
    weir_drain(engine->handle, (uint64_t)(seconds * 1e9));
    wl_loop_leave(engine->loop);
    return 0;
}

static int engine_drained(lua_State *L)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    lua_pushboolean(L, engine == NULL || weir_drained(engine->handle));
    return 1;
}

/* reopen_log() -> true, or nil and why. Also from within a policy: nothing but a descriptor changes. */
static int engine_reopen_log(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    const struct wl_engine *engine = check_engine(L, 1);
    if (engine->handle != NULL && weir_log_reopen(engine->handle, why) != WEIR_OK) return wl_refuse(L, why);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.reopen_logs() -> how many engines write a log to a path; and why the first of them that could not be opened anew
 * goes on with the old file. */
int wl_engine_reopen_logs(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "", first[WEIR_WHY_MAX] = "";
    unsigned count = 0;
    for (struct wl_engine *at = wl_loop_of(L)->engines; at != NULL; at = at->next_open) {
        if (at->handle == NULL || weir_log_path(at->handle) == NULL) continue;
        count++;
        if (weir_log_reopen(at->handle, why) != WEIR_OK && first[0] == '\0') memcpy(first, why, sizeof first);
    }
    lua_pushinteger(L, (lua_Integer)count);
    if (first[0] == '\0') return 1;
    lua_pushstring(L, first);
    return 2;
}

/* settle_check(index, ok, seconds, message): the answer of a health check that core.due() had asked for. */
static int engine_settle_check(lua_State *L)
{
    struct wl_engine *engine = wl_engine_enterable(L, 1);
    lua_Integer index = luaL_checkinteger(L, 2);
    bool ok = lua_toboolean(L, 3) != 0;
    double seconds = luaL_checknumber(L, 4);
    const char *message = luaL_optstring(L, 5, NULL);
    if (engine == NULL || index < 1) return 0;
    engine->loop->busy++;
    weir_check_settle(engine->handle, (size_t)index - 1, ok, seconds > 0 ? (uint64_t)(seconds * 1e9) : 0,
                      message);
    wl_loop_leave(engine->loop);
    return 0;
}

void wl_engine_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"request", wl_call_request},
        {"submit_many", wl_call_submit_many},
        {"begin", wl_call_begin},
        {"listen", wl_listen_new},
        {"close", engine_close},
        {"closed", engine_closed},
        {"handle", engine_handle},
        {"area_replaced", engine_area_replaced},
        {"area", wl_area_of_engine},
        {"policy_publish", wl_policytext_publish},
        {"policy_read", wl_policytext_read},
        {"policy_applied", wl_policytext_applied},
        {"policy_news", wl_policytext_news},
        {"health", engine_health},
        {"stats", engine_stats},
        {"calls", engine_calls},
        {"events", engine_events},
        {"page", engine_page},
        {"held", engine_held},
        {"force", engine_force},
        {"pause", engine_pause},
        {"drain", engine_drain},
        {"drained", engine_drained},
        {"settle_check", engine_settle_check},
        {"reopen_log", engine_reopen_log},
        {"__gc", engine_collect},
        {NULL, NULL},
    };
    luaL_newmetatable(L, WL_ENGINE_TYPE);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
