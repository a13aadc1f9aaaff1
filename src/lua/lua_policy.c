/* The operator's hooks: retry, route, label. Each runs on a Lua thread of its own, under lua_pcall (so it
 * can neither raise into the engine nor yield), watched by a count hook that stops it when its time slice is
 * over.
 *
 * What the hook cannot stop, and README says so: a finaliser, the message handler of xpcall, one long call
 * into C, and a coroutine that was made outside and never saw the hook. One made inside inherits it. Having
 * fired once, the hook fires at every instruction, so that a pcall inside the policy cannot swallow it. */
#include "lua_weir.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOOK_EVERY = 1000, HOOK_CHARGE_NS = 10000 };   /* a thousand instructions take about 10 us */
enum hook { HOOK_RETRY = 1, HOOK_ROUTE, HOOK_LABEL }; /* also where its closure sits on the policy's stack */

struct wl_policy {
    lua_State *L; /* the thread; anchored by the engine's userdata */
    struct wl_loop *loop;
    uint64_t slice_ns, deadline_ns;
    bool counted;      /* by instructions, HOOK_CHARGE_NS for each round of the hook */
    uint64_t spent_ns; /* counted: in this call */
    bool tripped;
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

static bool is_over(struct wl_policy *policy)
{
    if (!policy->counted) return wl_now_ns() >= policy->deadline_ns;
    policy->spent_ns += HOOK_CHARGE_NS;
    return policy->spent_ns > policy->slice_ns;
}

static void watch_policy(lua_State *L, lua_Debug *activation)
{
    (void)activation;
    if (running == NULL) { /* a coroutine made by a policy that has returned since */
        if (lua_gethookcount(L) != HOOK_EVERY) (void)lua_sethook(L, watch_policy, LUA_MASKCOUNT, HOOK_EVERY);
        return;
    }
    if (!is_over(running)) return;
    running->tripped = true;
    (void)lua_sethook(L, watch_policy, LUA_MASKCOUNT, 1);
    (void)lua_sethook(running->L, watch_policy, LUA_MASKCOUNT, 1);
    luaL_error(L, "ran longer than its time slice of %f seconds", (lua_Number)running->slice_ns / 1e9);
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
    lua_call(L, 2, 1);
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
    lua_call(L, 1, 1);
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
    lua_call(L, 1, 1);
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

#if WL_LUAJIT
/* The hook is the whole VM's here, so it is set for the length of one policy call and whatever was there put
 * back. */
struct former_hook {
    lua_Hook function;
    int mask, count;
};

static void begin_watch(struct wl_policy *policy, struct former_hook *former)
{
    *former =
        (struct former_hook){lua_gethook(policy->L), lua_gethookmask(policy->L), lua_gethookcount(policy->L)};
    (void)lua_sethook(policy->L, watch_policy, LUA_MASKCOUNT, HOOK_EVERY);
}

static void end_watch(struct wl_policy *policy, const struct former_hook *former)
{
    (void)lua_sethook(policy->L, former->function, former->mask, former->count);
}
#else
struct former_hook {
    int unused;
};

static void begin_watch(struct wl_policy *policy, struct former_hook *former)
{
    former->unused = 0; /* the hook stays on the policy's thread for good */
    if (policy->tripped) (void)lua_sethook(policy->L, watch_policy, LUA_MASKCOUNT, HOOK_EVERY);
}

static void end_watch(struct wl_policy *policy, const struct former_hook *former)
{
    (void)policy;
    (void)former;
}
#endif

static void explain(lua_State *L, int status, char *why)
{
    if (why == NULL) return;
    if (status == LUA_ERRMEM) {
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
    struct former_hook former;
    begin_watch(policy, &former);
    policy->tripped = false;
    policy->spent_ns = 0;
    if (!policy->counted) policy->deadline_ns = wl_now_ns() + policy->slice_ns;
    running = policy;
    policy->loop->busy++; /* the engine is at work, even where its loop is not ours and nobody has said so */
    lua_pushvalue(L, hook);
    int status = lua_pcall(L, 0, 0, 0);
    policy->loop->busy--; /* not left: what finalisers put aside waits until the engine has been */
    running = outer;
    end_watch(policy, &former);
    if (status != LUA_OK) explain(L, status, why);
    lua_settop(L, HOOK_LABEL);
    return status == LUA_OK;
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
#if WL_LUAJIT
    (void)luaJIT_setmode(L, lua_gettop(L),
                         LUAJIT_MODE_ALLFUNC | LUAJIT_MODE_OFF); /* no hook stops compiled code */
#endif
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
#if !WL_LUAJIT
    (void)lua_sethook(policy->L, watch_policy, LUA_MASKCOUNT, HOOK_EVERY);
#endif
}

void wl_policy_free(struct wl_policy *policy)
{
    free(policy); /* the thread is the garbage collector's */
}
