/* Weir inside nginx: what the files of this module share. One worker process is one thread, one nginx event loop, one Lua
 * state of ngx_lua's; all of this belongs to it.
 *
 * The module is configured in the master (ngxmodule.c, ngxcheck.c), starts in each worker (ngxworker.c), lends engines
 * nginx's events (ngxhost.c) and coroutines ngx_lua's semaphores (ngxgate.c), and answers weir_status (ngxstatus.c). */
#ifndef WN_NGXWEIR_H
#define WN_NGXWEIR_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>

#include "weir/luahost.h"

struct lua_State;

enum { WN_POLICY_MAX = 256 * 1024 }; /* bytes of a policy file */

struct wn_place { /* where in the configuration something was said */
    ngx_str_t file;
    ngx_uint_t line;
};

struct wn_conf { /* the http block's; lives with its cycle */
    ngx_str_t area;
    size_t area_size;
    ngx_str_t policy;      /* path of the file */
    ngx_str_t policy_text; /* as it was when the configuration was read */
    uint64_t read_us;      /* when that was, since 1970 */
    ngx_msec_t drain_timeout;
    struct wn_place area_place, policy_place;
    struct lua_State *L; /* ngx_lua's, of this cycle */
};

struct wn_location {    /* a location's */
    ngx_str_t document; /* that weir_status gives, whatever the URI is; empty: the URI names it */
};

extern ngx_module_t ngx_http_weir_module;

/* ---- ngxworker.c ---- */

bool wn_is_worker(void); /* and not the master or one of its helpers */

/* ---- ngxhost.c: engines on nginx's events ---- */

void wn_host_start(ngx_log_t *log);
int wn_host_lend(void *ctx, uint64_t seed, weir_host *hooks, void **loan);
void wn_host_bind(void *loan, weir_engine *engine);
void wn_host_take_back(void *loan);
int wn_host_watch(void *ctx, int fd, unsigned events, void (*ready)(void *user, int fd, unsigned events),
                  void *user);
/* Every engine there is gives up what is still under way. */
void wn_host_drain(void);

/* ---- ngxgate.c: coroutines on ngx_lua's semaphores ---- */

/* NGX_OK, or NGX_ERROR: no memory. */
ngx_int_t wn_gate_start(ngx_log_t *log);
bool wn_gate_may_wait(void *ctx, struct lua_State *L, char *why);
weir_lua_gate *wn_gate_new(void *ctx, struct lua_State *L, void (*deserted)(void *user), void *user);
int wn_gate_pass(weir_lua_gate *gate, struct lua_State *L, uint64_t timeout_ns);
void wn_gate_open(weir_lua_gate *gate);
void wn_gate_drop(weir_lua_gate *gate);
/* Gives all semaphores back; whatever is called afterwards does nothing. */
void wn_gate_stop(void);

/* ---- ngxlua.c: the one file that knows Lua ---- */

/* A sentence that says what is wrong with the ngx_lua that is loaded (NULL: none is), or NULL. */
const char *wn_lua_objection(void);
ngx_int_t wn_lua_preload(ngx_conf_t *cf);
/* Lets Lua read the policy as a worker will. NGX_OK, or NGX_ERROR and a sentence in `why` (WEIR_WHY_MAX bytes). */
ngx_int_t wn_lua_check(ngx_conf_t *cf, struct wn_conf *conf, char *why);
ngx_int_t wn_lua_start(struct wn_conf *conf, char *why);
void wn_lua_stop(struct wn_conf *conf);
/* Runs what Lua registered to be run when there is news, soon. */
void wn_lua_stir(void *ctx);
bool wn_lua_may_yield(struct lua_State *L);
int wn_lua_yield(struct lua_State *L); /* what a lua_CFunction returns to yield nothing */
int wn_lua_raise(struct lua_State *L, const char *sentence); /* does not return */
ngx_http_request_t *wn_lua_request(struct lua_State *L);     /* that the code in L works for; NULL: none */

/* ---- ngxcheck.c, ngxstatus.c, ngxroute.c ---- */

/* Whether the workers will be able to make the area. NGX_OK, or NGX_ERROR and a sentence in `why`. */
ngx_int_t wn_check_area(ngx_conf_t *cf, const struct wn_conf *conf, char *why);
extern weir_engine *wn_status_engine; /* of the policy, in this worker; NULL: not open */
ngx_int_t wn_status_handler(ngx_http_request_t *r);
char *wn_status_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
void *wn_status_create(ngx_conf_t *cf);
/* Fills context and traceparent from the request at work in L. */
void wn_route_describe(void *ctx, struct lua_State *L, weir_request *request);
ngx_int_t wn_route_variable(ngx_conf_t *cf); /* adds $weir_route */

#endif
