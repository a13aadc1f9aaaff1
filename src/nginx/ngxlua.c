/* Lua as ngx_lua runs it: the one file of this module that knows lua.h. It preloads the binding, runs the worker's part
 * that is written in Lua (lua/weir/worker.lua), and gives that part the module weir.ngx.
 *
 * No symbol of Lua's or ngx_lua's is bound when this module is loaded: they are weak, so that a missing ngx_lua is told by
 * a sentence of ours (wn_lua_objection) and not by the dynamic linker. */
#include "ngxweir.h"

#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <lualib.h>

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* Of ngx_lua's C API; Debian packages no header for it. */
lua_State *ngx_http_lua_get_global_state(ngx_conf_t *cf);
ngx_http_request_t *ngx_http_lua_get_request(lua_State *L);
ngx_int_t ngx_http_lua_add_package_preload(ngx_conf_t *cf, const char *package, lua_CFunction function);
int ngx_http_lua_ffi_sema_new(void **semaphore, int n, char **error);
#pragma weak ngx_http_lua_get_global_state
#pragma weak ngx_http_lua_get_request
#pragma weak ngx_http_lua_add_package_preload
#pragma weak ngx_http_lua_ffi_sema_new

enum { LUA_MODULE_LEAST = 10015 }; /* ngx_lua 0.10.15: the semaphore functions as they are called here */

#define WORKER_MODULE "weir.worker"
#define CHECK_MODULE  "weir.policyfile"

static struct {
    lua_State *L;      /* of the cycle this worker serves; NULL outside of workers */
    ngx_event_t stir;  /* posted: news */
    ngx_event_t later; /* a timer: news then */
} state;

/* ---- is there a Lua we can live with? ------------------------------------------------------------------- */

const char *wn_lua_objection(void)
{
    if (lua_gettop == NULL)
        return "ngx_http_lua_module is not loaded: put its load_module line, and that of ndk_http_module, "
               "before this "
               "module's";
    if (ngx_http_lua_get_global_state == NULL || ngx_http_lua_add_package_preload == NULL ||
        ngx_http_lua_get_request == NULL || ngx_http_lua_ffi_sema_new == NULL)
        return "the ngx_http_lua_module that is loaded lacks the semaphore functions of 0.10.15 and later, "
               "which this "
               "module waits with";
    if (lua_isyieldable == NULL || lua_getexdata == NULL)
        return "ngx_http_lua_module runs on another LuaJIT than OpenResty's (libluajit2), which this module "
               "needs";
    return NULL;
}

/* Threads inherit the request they are made in, which a policy outlives, so this one is made by no request and told of
 * none; ngx.* that needs a request says so in a policy. */
static lua_State *new_thread(void *ctx, lua_State *L)
{
    (void)ctx;
    lua_State *home = state.L != NULL ? state.L : L;
    lua_State *thread = lua_newthread(home);
    lua_setexdata(thread, NULL);
    if (home != L) lua_xmove(home, L, 1);
    return thread;
}

static int open_binding(lua_State *L)
{
    static const weir_lua_host host = {.name = "nginx",
                                       .logs = true,
                                       .title = NGINX_VER " (worker)",
                                       .lend = wn_host_lend,
                                       .bind = wn_host_bind,
                                       .take_back = wn_host_take_back,
                                       .watch = wn_host_watch,
                                       .may_wait = wn_gate_may_wait,
                                       .gate = wn_gate_new,
                                       .pass = wn_gate_pass,
                                       .open = wn_gate_open,
                                       .drop = wn_gate_drop,
                                       .thread = new_thread,
                                       .describe = wn_route_describe,
                                       .stir = wn_lua_stir};
    return weir_lua_open(L, &host);
}

/* ---- where the Lua files are ------------------------------------------------------------------------------- */

/* Beside an installed module they are where they were installed; the module of a build tree takes the source's. */
static const char *lua_folder(void)
{
    Dl_info info;
    char path[PATH_MAX + sizeof "/CMakeCache.txt"];
    if (dladdr((void *)(uintptr_t)&lua_folder, &info) == 0 || realpath(info.dli_fname, path) == NULL)
        return WEIR_LUA_DIR_INSTALL;
    char *slash = strrchr(path, '/');
    if (slash == NULL) return WEIR_LUA_DIR_INSTALL;
    memcpy(slash, "/CMakeCache.txt", sizeof "/CMakeCache.txt");
    return access(path, R_OK) == 0 ? WEIR_LUA_DIR_SOURCE : WEIR_LUA_DIR_INSTALL;
}

/* After what lua_package_path says, once. */
static void add_folder(lua_State *L)
{
    const char *folder = lua_folder();
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "path");
    if (lua_isstring(L, -1) && strstr(lua_tostring(L, -1), folder) == NULL) {
        lua_pushfstring(L, "%s;%s/?.lua;%s/?/init.lua", lua_tostring(L, -1), folder, folder);
        lua_setfield(L, -3, "path");
    }
    lua_pop(L, 2);
}

/* The loader of the modules that users require first: finds the others for them. */
static int open_file(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    add_folder(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "searchpath");
    lua_pushvalue(L, 1);
    lua_getfield(L, -3, "path");
    lua_call(L, 2, 2);
    if (!lua_isstring(L, -2)) return luaL_error(L, "module '%s' not found:%s", name, lua_tostring(L, -1));
    if (luaL_loadfile(L, lua_tostring(L, -2)) != 0) return lua_error(L);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* ---- weir.ngx: what the worker's Lua asks of nginx ----------------------------------------------------------- */

static const char stir_key = 0;

/* on_stir(fn): fn runs outside of any request whenever there is news; it must not wait. */
static int ngx_on_stir(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_pushlightuserdata(L, (void *)(uintptr_t)&stir_key);
    lua_pushvalue(L, 1);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 0;
}

/* stir([seconds]): runs it soon, or then at the latest. */
static int ngx_stir(lua_State *L)
{
    double seconds = luaL_optnumber(L, 1, 0);
    if (state.L == NULL) return 0;
    if (seconds <= 0) {
        wn_lua_stir(NULL);
        return 0;
    }
    ngx_msec_t delay = (ngx_msec_t)(seconds * 1000);
    if (!state.later.timer_set || (ngx_msec_int_t)(state.later.timer.key - ngx_current_msec - delay) > 0) {
        if (state.later.timer_set) ngx_del_timer(&state.later);
        ngx_add_timer(&state.later, delay);
    }
    return 0;
}

/* serve(handle): weir_status tells of this engine from now on; nil: of none. */
static int ngx_serve(lua_State *L)
{
    wn_status_engine = lua_touserdata(L, 1);
    return 0;
}

/* log(level, text) into nginx's error log. */
static int ngx_log(lua_State *L)
{
    static const char *const names[] = {"emerg", "alert", "crit", "error", "warn", "notice", "info", NULL};
    ngx_uint_t level = (ngx_uint_t)luaL_checkoption(L, 1, "error", names) + NGX_LOG_EMERG;
    ngx_log_error(level, ngx_cycle->log, 0, "weir: %s", luaL_checkstring(L, 2));
    return 0;
}

/* exiting() -> whether this worker was asked to leave. */
static int ngx_is_exiting(lua_State *L)
{
    lua_pushboolean(L, ngx_exiting || ngx_terminate || ngx_quit);
    return 1;
}

/* lasting() -> whether this Lua state is the worker's own: with lua_code_cache off each request has one of its own. */
static int ngx_lasting(lua_State *L)
{
    lua_pushboolean(L, state.L == NULL ||
                           lua_topointer(L, LUA_REGISTRYINDEX) == lua_topointer(state.L, LUA_REGISTRYINDEX));
    return 1;
}

/* apart(fn, ...): pcall, in a thread that belongs to no request and cannot be left: what would wait for nginx, and so let
 * other requests run meanwhile, raises. */
static int ngx_apart(lua_State *L)
{
    int count = lua_gettop(L);
    luaL_checkany(L, 1);
    lua_State *thread = new_thread(NULL, L);
    lua_insert(L, 1);
    luaL_checkstack(thread, count, "too many arguments");
    lua_xmove(L, thread, count);
    int code = lua_pcall(thread, count - 1, LUA_MULTRET, 0);
    count = lua_gettop(thread);
    luaL_checkstack(L, count + 1, "too many results");
    lua_pushboolean(L, code == 0);
    lua_xmove(thread, L, count);
    return count + 1;
}

static int open_ngx(lua_State *L)
{
    static const luaL_Reg functions[] = {{"on_stir", ngx_on_stir},    {"stir", ngx_stir},
                                         {"serve", ngx_serve},        {"log", ngx_log},
                                         {"exiting", ngx_is_exiting}, {"lasting", ngx_lasting},
                                         {"apart", ngx_apart},        {NULL, NULL}};
    lua_newtable(L);
    luaL_setfuncs(L, functions, 0);
    return 1;
}

ngx_int_t wn_lua_preload(ngx_conf_t *cf)
{
    static const struct {
        const char *name;
        lua_CFunction open;
    } modules[] = {{CHECK_MODULE, open_file},       {"weir.core", open_binding},
                   {"weir.ngx", open_ngx},          {"weir", open_file},
                   {WORKER_MODULE, open_file},      {"resty.weir", open_file},
                   {"resty.weir.pgmoon", open_file}};
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        if (ngx_http_lua_add_package_preload(cf, modules[i].name, modules[i].open) != NGX_OK)
            return NGX_ERROR;
    }
    return NGX_OK;
}

/* ---- the worker's part that is written in Lua ------------------------------------------------------------------ */

/* Calls the function `name` of a module with the configuration. False, and a sentence in `why`, if it raises or returns
 * one. */
static bool call_lua(lua_State *L, const char *module, const char *name, const struct wn_conf *conf,
                     char *why)
{
    int top = lua_gettop(L);
    lua_getglobal(L, "require");
    lua_pushstring(L, module);
    bool ok = lua_pcall(L, 1, 1, 0) == 0;
    if (ok) {
        lua_getfield(L, -1, name);
        lua_pushlstring(L, (const char *)conf->policy_text.data, conf->policy_text.len);
        lua_pushlstring(L, (const char *)conf->policy.data, conf->policy.len);
        lua_pushlstring(L, (const char *)conf->area.data, conf->area.len);
        lua_pushnumber(L, (lua_Number)conf->area_size);
        lua_pushnumber(L, (lua_Number)conf->drain_timeout / 1000);
        lua_pushnumber(L, (lua_Number)conf->read_us);
        ok = lua_pcall(L, 6, 1, 0) == 0 && lua_isnil(L, -1);
    }
    if (!ok) {
        const char *text = lua_tostring(L, -1);
        (void)snprintf(why, WEIR_WHY_MAX, "%s", text != NULL ? text : "raised something that is no text");
    }
    lua_settop(L, top);
    return ok;
}

/* `nginx -t` makes ngx_lua read its directives and no Lua state, so the policy is tried in one of our own, which knows
 * nothing of lua_package_path: a policy that requires modules from there is checked no further than up to that. */
static ngx_int_t check_apart(ngx_conf_t *cf, struct wn_conf *conf, char *why)
{
    lua_State *L = luaL_newstate();
    if (L == NULL) return NGX_OK;
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, open_binding);
    lua_setfield(L, -2, "weir.core");
    lua_settop(L, 0);
    add_folder(L);
    bool ok = call_lua(L, CHECK_MODULE, "check", conf, why);
    lua_close(L);
    if (ok || strstr(why, "not found:") == NULL) return ok ? NGX_OK : NGX_ERROR;
    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "\"weir_policy\": the policy \"%V\" was not tried further than: %s", &conf->policy, why);
    return NGX_OK;
}

static const char *version_objection(lua_State *L, char *room, size_t size)
{
    lua_getglobal(L, "ngx");
    if (lua_istable(L, -1)) lua_getfield(L, -1, "config");
    if (lua_istable(L, -1)) lua_getfield(L, -1, "ngx_lua_version");
    int version = (int)lua_tointeger(L, -1);
    lua_settop(L, 0);
    if (version >= LUA_MODULE_LEAST) return NULL;
    (void)snprintf(room, size, "ngx_http_lua_module is %d.%d.%d; this module needs 0.10.15 or later",
                   version / 1000000, version / 1000 % 1000, version % 1000);
    return room;
}

ngx_int_t wn_lua_check(ngx_conf_t *cf, struct wn_conf *conf, char *why)
{
    conf->L = ngx_http_lua_get_global_state(cf);
    if (ngx_process == NGX_PROCESS_SIGNALLER)
        return NGX_OK; /* `nginx -s`: reads the file only to find the pid */
    if (conf->L == NULL && !ngx_test_config) {
        (void)snprintf(why, WEIR_WHY_MAX,
                       "ngx_http_lua_module has made no Lua state yet: load this module after it");
        return NGX_ERROR;
    }
    if (conf->L != NULL && version_objection(conf->L, why, WEIR_WHY_MAX) != NULL) return NGX_ERROR;
    if (conf->L != NULL) add_folder(conf->L);
    if (conf->policy.len == 0) return NGX_OK;
    if (conf->L == NULL) return check_apart(cf, conf, why);
    /* As ngx_lua does for init_by_lua: its os.getenv looks into the cycle that is being made. */
    volatile ngx_cycle_t *before = ngx_cycle;
    ngx_cycle = cf->cycle;
    bool ok = call_lua(conf->L, CHECK_MODULE, "check", conf, why);
    ngx_cycle = before;
    return ok ? NGX_OK : NGX_ERROR;
}

static void on_stir(ngx_event_t *event)
{
    (void)event;
    lua_State *L = state.L;
    if (L == NULL) return;
    int top = lua_gettop(L);
    lua_pushlightuserdata(L, (void *)(uintptr_t)&stir_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (lua_isfunction(L, -1) && lua_pcall(L, 0, 0, 0) != 0) {
        const char *text = lua_tostring(L, -1);
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "weir: %s",
                      text != NULL ? text : "an error without a text");
    }
    lua_settop(L, top);
}

void wn_lua_stir(void *ctx)
{
    (void)ctx;
    if (state.L != NULL) {
        ngx_post_event((&state.stir), &ngx_posted_next_events); /* once, however often it is asked for */
    }
}

ngx_int_t wn_lua_start(struct wn_conf *conf, char *why)
{
    state.L = conf->L;
    state.stir = (ngx_event_t){.handler = on_stir, .log = ngx_cycle->log, .cancelable = 1};
    state.later = state.stir;
    wn_lua_stir(NULL); /* what engines of init_worker_by_lua had to tell before */
    if (conf->policy.len == 0) return NGX_OK;
    return call_lua(conf->L, WORKER_MODULE, "start", conf, why) ? NGX_OK : NGX_ERROR;
}

static int shut(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(L, -1, "weir.core");
    if (!lua_isnil(L, -1)) weir_lua_shut(L);
    return 0;
}

void wn_lua_stop(struct wn_conf *conf)
{
    if (state.L == NULL || state.L != conf->L) return;
    wn_status_engine = NULL;
    if (state.stir.posted) {
        ngx_delete_posted_event(&state.stir);
    }
    if (state.later.timer_set) ngx_del_timer(&state.later);
    (void)lua_cpcall(state.L, shut, NULL);
    state.L = NULL;
}

/* ---- for the other files ----------------------------------------------------------------------------------------- */

bool wn_lua_may_yield(lua_State *L)
{
    return lua_isyieldable(L) != 0;
}

int wn_lua_yield(lua_State *L)
{
    return lua_yield(L, 0);
}

int wn_lua_raise(lua_State *L, const char *sentence)
{
    return luaL_error(L, "%s", sentence);
}

ngx_http_request_t *wn_lua_request(lua_State *L)
{
    return ngx_http_lua_get_request(L);
}
