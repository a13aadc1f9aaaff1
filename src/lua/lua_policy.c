/* The operator's hooks: retry, route, label. Each runs on a Lua thread of its own, under lua_pcall (so it
 * can neither raise into the engine nor yield), watched by a hook that stops it when its time slice is over.
 *
 * The hook counts instructions, and once it has fired it fires at every one, so that a pcall inside the policy
 * cannot swallow it. It also hears of every call:
 * - On LuaJIT no hook interrupts compiled code, so each function that a policy calls is made to be interpreted
 *   from then on, before its first instruction. Its compiled code goes; that of others stays.
 * - A coroutine that was made outside is taken in when it is resumed.
 * - A call into C may take long, so the time is looked at there.
 * What it cannot stop is in README. */
#include "lua_weir.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HOOK_EVERY = 1000, HOOK_CHARGE_NS = 10000 }; /* a thousand instructions take about 10 us */
enum { WATCH_MASK = LUA_MASKCOUNT | LUA_MASKCALL };
enum { LEVELS = 100 };                                /* of calls, of a coroutine that was made outside */
enum hook { HOOK_RETRY = 1, HOOK_ROUTE, HOOK_LABEL }; /* also where its closure sits on the policy's stack */

struct wl_policy {
    lua_State *L; /* the thread; anchored by the engine's userdata */
    struct wl_loop *loop;
    uint64_t slice_ns, deadline_ns;
    bool counted;      /* by instructions, HOOK_CHARGE_NS for each round of the hook */
    uint64_t spent_ns; /* counted: in this call */
    bool tripped;
    char stopped[256]; /* tripped: where and why */
    /* Of the call under way: the closures reach it through their first upvalue, so that calling one pushes
     * nothing that could run out of memory outside the protected call. */
    const weir_failure *failure;
    const weir_request *request;
    const char *context;
    char *text; /* answer of route and label */
    size_t text_size;
    uint64_t delay_ns; /* answer of retry */
    bool again;
};

/* The hook gets only the coroutine it fires in, hence this. Policies do not nest: none may call the engine.
 */
static _Thread_local struct wl_policy *running;

/* After a round of the hook. */
static bool is_over(struct wl_policy *policy)
{
    if (!policy->counted) return wl_now_ns() >= policy->deadline_ns;
    policy->spent_ns += HOOK_CHARGE_NS;
    return policy->spent_ns > policy->slice_ns;
}

/* Cheap enough for every call into C: some milliseconds late, never early. */
static bool is_long_over(const struct wl_policy *policy)
{
    struct timespec now;
    if (policy->counted || clock_gettime(CLOCK_MONOTONIC_COARSE, &now) != 0) return false;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec >= policy->deadline_ns;
}

static void watch(lua_State *L, lua_Debug *activation);

static void stop(lua_State *L)
{
    (void)lua_sethook(L, watch, WATCH_MASK, 1);
    (void)lua_sethook(running->L, watch, WATCH_MASK, 1);
    if (running->tripped) luaL_error(L, "%s", running->stopped);
    luaL_where(L, 1);
    (void)snprintf(running->stopped, sizeof running->stopped,
                   "%.160sran longer than its time slice of %.14g seconds", lua_tostring(L, -1),
                   (double)running->slice_ns / 1e9);
    running->tripped = true;
    luaL_error(L, "%s", running->stopped);
}

#if WL_LUAJIT
/* The function on top is interpreted from now on. False if it is one of C's. */
static bool make_interpreted(lua_State *L)
{
    return luaJIT_setmode(L, -1, LUAJIT_MODE_FUNC | LUAJIT_MODE_OFF) != 0;
}

/* The calls that `thread` goes back to when it is resumed were made unseen, so they may go on in compiled code. */
static void take_in(lua_State *L, lua_State *thread)
{
    lua_Debug activation;
    if (lua_status(thread) != LUA_YIELD) return;
    if (!lua_checkstack(thread, 1) || lua_getstack(thread, LEVELS, &activation))
        luaL_error(L, "a policy cannot resume a coroutine that waits more than %d calls deep", LEVELS);
    for (int level = 0; lua_getstack(thread, level, &activation); level++) {
        (void)lua_getinfo(thread, "f", &activation);
        (void)make_interpreted(thread);
        lua_pop(thread, 1);
    }
}
#else
static bool make_interpreted(lua_State *L)
{
    return !lua_iscfunction(L, -1);
}

/* A hook belongs to its thread, and one made inside inherits it. One that has another's hook keeps that. */
static void take_in(lua_State *L, lua_State *thread)
{
    (void)L;
    if (lua_gethook(thread) == NULL) lua_sethook(thread, watch, WATCH_MASK, HOOK_EVERY);
}
#endif

/* Takes the value on top off, and in what it is if that is a thread. */
static void take_in_top(lua_State *L)
{
    if (lua_type(L, -1) == LUA_TTHREAD) take_in(L, lua_tothread(L, -1));
    lua_pop(L, 1);
}

static void watch_call(lua_State *L, lua_Debug *activation)
{
    (void)lua_getinfo(L, "f", activation);
    bool native = !make_interpreted(L);
    if (native) { /* coroutine.resume has the thread as its argument, what coroutine.wrap gives as its upvalue */
        if (lua_getupvalue(L, -1, 1) != NULL) take_in_top(L);
        if (lua_getlocal(L, activation, 1) != NULL) take_in_top(L);
    }
    lua_pop(L, 1);
    if (native && is_long_over(running)) stop(L);
}

static void watch(lua_State *L, lua_Debug *activation)
{
    if (running == NULL)
        (void)lua_sethook(L, NULL, 0, 0); /* a coroutine that a policy has resumed which has returned since */
    else if (activation->event != LUA_HOOKCOUNT)
        watch_call(L, activation);
    else if (is_over(running))
        stop(L);
}

/* ---- what a policy sees -------------------------------------------------------------------------------- */

static void set_text(lua_State *L, const char *name, const char *value)
{
    if (value != NULL && value[0] != '\0')
        lua_pushstring(L, value);
    else
        lua_pushnil(L);
    lua_setfield(L, -2, name);
}

static void set_bool(lua_State *L, const char *name, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

/* The `call` both retry and route are given: one table, refilled each time, good until the policy returns. */
static void push_call(lua_State *L, const char *client, const char *context, bool readonly, bool idempotent)
{
    lua_pushvalue(L, lua_upvalueindex(3));
    set_text(L, "client", client);
    set_text(L, "context", context);
    set_bool(L, "readonly", readonly);
    set_bool(L, "idempotent", idempotent);
}

/* A fresh table each time: failures are rare, and a policy may well keep one. */
static void push_failure(lua_State *L, const weir_failure *failure)
{
    lua_createtable(L, 0, 20);
    set_bool(L, "safe", failure->class_ == WEIR_CLASS_SAFE);
    set_text(L, "class", weir_class_name(failure->class_));
    set_text(L, "code", weir_code_name(failure->code));
    set_text(L, "phase", weir_phase_name(failure->phase));
    set_text(L, "sqlstate", failure->sqlstate);
    set_text(L, "message", failure->message);
    set_text(L, "context", failure->context);
    set_text(L, "client", failure->client);
    set_text(L, "backend", failure->backend);
    set_text(L, "label", failure->label);
    lua_pushinteger(L, (lua_Integer)failure->attempt);
    lua_setfield(L, -2, "attempt");
    wl_set_number(L, "elapsed", (double)failure->elapsed_ns / 1e9);
    wl_set_number(L, "remaining", (double)failure->remaining_ns / 1e9);
    wl_set_number(L, "delay", (double)failure->backoff_ns / 1e9);
    wl_set_number(L, "budget", failure->budget);
    set_bool(L, "readonly", failure->readonly);
    set_bool(L, "idempotent", failure->idempotent);
    lua_pushvalue(L, lua_upvalueindex(4));
    lua_setmetatable(L, -2);
}

/* failure:backoff() -> what the configured backoff would wait; drawn once per failure. */
static int failure_backoff(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "delay");
    return 1;
}

/* ---- inside the protected call ------------------------------------------------------------------------- */

/* The function and its arguments are on top. From here on it is watched, and nothing of ours. */
static void call(lua_State *L, int arguments)
{
    (void)lua_sethook(L, watch, WATCH_MASK, HOOK_EVERY);
    lua_call(L, arguments, 1);
}

static struct wl_policy *policy_of(lua_State *L)
{
    struct wl_policy *policy = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushvalue(L, lua_upvalueindex(2));
    return policy;
}

static int run_retry(lua_State *L)
{
    struct wl_policy *policy = policy_of(L);
    const weir_failure *failure = policy->failure;
    push_failure(L, failure);
    push_call(L, failure->client, failure->context, failure->readonly, failure->idempotent);
    set_text(L, "backend", failure->backend);
    set_text(L, "label", failure->label);
    call(L, 2);
    policy->again = lua_toboolean(L, -1) != 0;
    if (!policy->again) return 0;
    if (lua_type(L, -1) != LUA_TNUMBER) {
        return luaL_error(L, "returned a %s; it must return nil, false, or a delay in seconds",
                          luaL_typename(L, -1));
    }
    double seconds = lua_tonumber(L, -1);
    if (!(seconds >= 0 && seconds <= 1e9)) {
        return luaL_error(L, "returned %f; a delay is a number of seconds, 0 or more", (lua_Number)seconds);
    }
    policy->delay_ns = (uint64_t)(seconds * 1e9);
    return 0;
}

static int run_route(lua_State *L)
{
    struct wl_policy *policy = policy_of(L);
    const weir_request *request = policy->request;
    push_call(L, request->client, request->context, request->readonly, request->idempotent);
    set_text(L, "backend", request->backend);
    set_text(L, "label", NULL);
    call(L, 1);
    if (lua_type(L, -1) != LUA_TSTRING) {
        if (lua_isnil(L, -1)) return luaL_error(L, "returned nil; it must name a backend for every call");
        return luaL_error(L, "returned a %s; it must return the name of a backend", luaL_typename(L, -1));
    }
    size_t length = 0;
    const char *name = lua_tolstring(L, -1, &length);
    if (length == 0 || length >= policy->text_size || strlen(name) != length) {
        return luaL_error(L, "returned a name that no backend can have");
    }
    memcpy(policy->text, name, length + 1);
    return 0;
}

static int run_label(lua_State *L)
{
    struct wl_policy *policy = policy_of(L);
    lua_pushstring(L, policy->context);
    call(L, 1);
    if (lua_type(L, -1) != LUA_TSTRING) {
        if (lua_isnil(L, -1)) return luaL_error(L, "returned nil; it must give a name for every context");
        return luaL_error(L, "returned a %s; it must return a string", luaL_typename(L, -1));
    }
    const char *label = lua_tostring(L, -1);
    if (label[0] == '\0') return luaL_error(L, "returned an empty string");
    (void)snprintf(policy->text, policy->text_size, "%s", label); /* cut to what the area's table holds */
    return 0;
}

/* ---- from the engine ----------------------------------------------------------------------------------- */

/* A policy that was stopped may still have caught that, as the last thing it did, so its answer says nothing. */
static void explain(const struct wl_policy *policy, int status, char *why)
{
    lua_State *L = policy->L;
    if (why == NULL) return;
    if (policy->tripped) {
        (void)snprintf(why, WEIR_WHY_MAX, "%.200s", policy->stopped);
    } else if (status == LUA_ERRMEM) {
        (void)snprintf(why, WEIR_WHY_MAX, "not enough memory");
    } else if (lua_type(L, -1) == LUA_TSTRING) {
        (void)snprintf(why, WEIR_WHY_MAX, "%.200s", lua_tostring(L, -1));
    } else {
        (void)snprintf(why, WEIR_WHY_MAX, "raised a %s", luaL_typename(L, -1));
    }
}

static bool run(struct wl_policy *policy, enum hook hook, char *why)
{
    lua_State *L = policy->L;
    struct wl_policy *outer = running;
    /* LuaJIT's hook is the whole VM's, so what was there is put back; 5.4's is the thread's. */
    lua_Hook former = lua_gethook(L);
    int mask = lua_gethookmask(L), count = lua_gethookcount(L);
    policy->tripped = false;
    policy->spent_ns = 0;
    if (!policy->counted) policy->deadline_ns = wl_now_ns() + policy->slice_ns;
    running = policy;
    policy->loop->busy++; /* the engine is at work, even where its loop is not ours and nobody has said so */
    lua_pushvalue(L, hook);
    int status = lua_pcall(L, 0, 0, 0);
    policy->loop->busy--; /* not left: what finalisers put aside waits until the engine has been */
    running = outer;
    (void)lua_sethook(L, former, mask, count);
    bool good = status == LUA_OK && !policy->tripped;
    if (!good) explain(policy, status, why);
    lua_settop(L, HOOK_LABEL);
    return good;
}

static weir_decision on_retry(void *ctx, const weir_failure *failure, uint64_t *delay_ns, char *why)
{
    struct wl_policy *policy = ctx;
    policy->failure = failure;
    if (!run(policy, HOOK_RETRY, why)) return WEIR_POLICY_FAULT;
    if (!policy->again) return WEIR_GIVE_UP;
    *delay_ns = policy->delay_ns;
    return WEIR_RETRY;
}

static weir_decision on_route(void *ctx, const weir_request *request, char *backend, size_t size, char *why)
{
    struct wl_policy *policy = ctx;
    policy->request = request;
    policy->text = backend;
    policy->text_size = size;
    return run(policy, HOOK_ROUTE, why) ? WEIR_RETRY : WEIR_POLICY_FAULT;
}

static weir_decision on_label(void *ctx, const char *context, char *label, size_t size, char *why)
{
    struct wl_policy *policy = ctx;
    policy->context = context;
    policy->text = label;
    policy->text_size = size;
    return run(policy, HOOK_LABEL, why) ? WEIR_RETRY : WEIR_POLICY_FAULT;
}

/* ---- opening ------------------------------------------------------------------------------------------- */

/* Pushes the closure for the option `name`, or nil if it is no function. True if it is one. */
static bool push_hook(lua_State *L, int options, const char *name, lua_CFunction runner,
                      struct wl_policy *policy)
{
    lua_pushlightuserdata(L, policy);
    lua_pushstring(L, name);
    lua_rawget(L, options);
    if (lua_type(L, -1) != LUA_TFUNCTION) {
        lua_pop(L, 2);
        lua_pushnil(L);
        return false;
    }
    lua_createtable(L, 0, 8);
    lua_createtable(L, 0, 1);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, failure_backoff);
    lua_setfield(L, -2, "backoff");
    lua_setfield(L, -2, "__index");
    lua_pushcclosure(L, runner, 4);
    return true;
}

void wl_policy_open(lua_State *L, int index, int anchor, uint64_t slice_ns, bool counted,
                    struct wl_policy **out, weir_policy *hooks)
{
    luaL_checkstack(L, 12, "policies");
    *out = calloc(1, sizeof **out);
    if (*out == NULL) luaL_error(L, "not enough memory");
    struct wl_policy *policy = *out;
    policy->slice_ns = slice_ns;
    policy->counted = counted;
    policy->loop = wl_loop_of(L);
    const weir_lua_host *host = &policy->loop->host;
    policy->L = host->thread != NULL ? host->thread(host->ctx, L) : lua_newthread(L);
    lua_rawseti(L, anchor, 1);
    *hooks = (weir_policy){.ctx = policy};
    if (push_hook(L, index, "retry", run_retry, policy)) hooks->retry = on_retry;
    if (push_hook(L, index, "route", run_route, policy)) hooks->route = on_route;
    if (push_hook(L, index, "label", run_label, policy)) hooks->label = on_label;
    lua_xmove(L, policy->L, 3);
}

void wl_policy_free(struct wl_policy *policy)
{
    free(policy); /* the thread is the garbage collector's */
}
