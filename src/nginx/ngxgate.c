/* Gates: one semaphore of ngx_lua's for each coroutine that waits, posted from C. ngx_lua itself knows in which phases a
 * request may wait, and takes a coroutine that is killed out of its queue, so neither is done here again.
 *
 * It does not tell, though, that a coroutine was killed. Two things find out: a cleanup on the request, when the request
 * ends (the client went away, ngx.exit); and a sweep, ten times a second while somebody waits, over the gates at which
 * nobody stands any more (ngx.thread.kill).
 *
 * nginx's queue macros are several statements each: under an `if` they need braces. */
#include "ngxweir.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* Functions that lua-resty-core calls over FFI, the same from ngx_lua 0.10.15 on; no header of ngx_lua's has them. */
typedef struct ngx_http_lua_sema_s ngx_http_lua_sema_t;
int ngx_http_lua_ffi_sema_new(ngx_http_lua_sema_t **semaphore, int n, char **error);
int ngx_http_lua_ffi_sema_post(ngx_http_lua_sema_t *semaphore, int n);
int ngx_http_lua_ffi_sema_wait(ngx_http_request_t *r, ngx_http_lua_sema_t *semaphore, int wait_ms,
                               u_char *error, size_t *length);
int ngx_http_lua_ffi_sema_count(ngx_http_lua_sema_t *semaphore); /* posts nobody took, less those who wait */
void ngx_http_lua_ffi_sema_gc(ngx_http_lua_sema_t *semaphore);
#pragma weak ngx_http_lua_ffi_sema_new
#pragma weak ngx_http_lua_ffi_sema_post
#pragma weak ngx_http_lua_ffi_sema_wait
#pragma weak ngx_http_lua_ffi_sema_count
#pragma weak ngx_http_lua_ffi_sema_gc

enum { SWEEP_MS = 100, WAIT_MAX_MS = INT_MAX / 2, SPARES_MAX = 1024 };

struct weir_lua_gate {
    ngx_queue_t link;  /* among all gates in use, or the spare ones */
    ngx_queue_t stand; /* among those at which somebody waits; empty otherwise */
    ngx_queue_t bond;  /* among those of its request; empty otherwise */
    ngx_http_lua_sema_t *semaphore;
    void (*deserted)(void *user);
    void *user;
    bool opened; /* posted, and nobody has begun to wait since */
};

struct bonds { /* of one request, in its pool: the gates whose owners are to be told when it ends */
    ngx_queue_t gates;
};

static struct {
    ngx_log_t *log;
    ngx_queue_t used, spare, waiting;
    ngx_http_lua_sema_t *probe; /* never posted: asks whether waiting is allowed */
    ngx_event_t sweep;
    unsigned spares;
    bool dead;
} gates = {.dead = true};

/* ---- those who never come back --------------------------------------------------------------------------- */

static void unlink_from(ngx_queue_t *place)
{
    if (!ngx_queue_empty(place)) {
        ngx_queue_remove(place);
    }
    ngx_queue_init(place);
}

static void desert(weir_lua_gate *gate)
{
    void (*deserted)(void *user) = gate->deserted;
    unlink_from(&gate->stand);
    unlink_from(&gate->bond);
    gate->deserted = NULL;
    if (deserted != NULL) deserted(gate->user);
}

static void on_request_end(void *of)
{
    struct bonds *bonds = of;
    while (!gates.dead && !ngx_queue_empty(&bonds->gates)) {
        desert(ngx_queue_data(ngx_queue_head(&bonds->gates), weir_lua_gate, bond));
    }
}

/* One cleanup per request, however many calls it makes: it lives as long as the request. */
static struct bonds *bonds_of(ngx_http_request_t *r)
{
    struct bonds *bonds = ngx_http_get_module_ctx(r, ngx_http_weir_module);
    if (bonds != NULL) return bonds;
    ngx_http_cleanup_t *cleanup = ngx_http_cleanup_add(r, sizeof *bonds);
    if (cleanup == NULL) return NULL;
    bonds = cleanup->data;
    ngx_queue_init(&bonds->gates);
    cleanup->handler = on_request_end;
    ngx_http_set_ctx(r, bonds, ngx_http_weir_module);
    return bonds;
}

/* Killed coroutines leave the semaphore's queue, and nothing else is heard of them. Those found are put aside first: what
 * their owners then do may drop other gates. */
static void on_sweep(ngx_event_t *event)
{
    ngx_queue_t alone;
    ngx_queue_init(&alone);
    ngx_queue_t *at = ngx_queue_head(&gates.waiting);
    while (at != ngx_queue_sentinel(&gates.waiting)) {
        weir_lua_gate *gate = ngx_queue_data(at, weir_lua_gate, stand);
        at = ngx_queue_next(at);
        if (ngx_http_lua_ffi_sema_count(gate->semaphore) < 0) continue;
        ngx_queue_remove(&gate->stand);
        ngx_queue_insert_tail(&alone, &gate->stand);
    }
    while (!ngx_queue_empty(&alone)) {
        desert(ngx_queue_data(ngx_queue_head(&alone), weir_lua_gate, stand));
    }
    if (!ngx_queue_empty(&gates.waiting)) ngx_add_timer(event, SWEEP_MS);
}

/* ---- life ------------------------------------------------------------------------------------------------ */

ngx_int_t wn_gate_start(ngx_log_t *log)
{
    char *error = NULL;
    gates.log = log;
    ngx_queue_init(&gates.used);
    ngx_queue_init(&gates.spare);
    ngx_queue_init(&gates.waiting);
    gates.sweep = (ngx_event_t){.handler = on_sweep, .log = log, .cancelable = 1};
    gates.spares = 0;
    if (ngx_http_lua_ffi_sema_new(&gates.probe, 0, &error) != NGX_OK) return NGX_ERROR;
    gates.dead = false;
    return NGX_OK;
}

static weir_lua_gate *make(void)
{
    char *error = NULL;
    weir_lua_gate *gate = calloc(1, sizeof *gate);
    if (gate == NULL) return NULL;
    if (ngx_http_lua_ffi_sema_new(&gate->semaphore, 0, &error) == NGX_OK) return gate;
    free(gate);
    return NULL;
}

static weir_lua_gate *take(void)
{
    if (ngx_queue_empty(&gates.spare)) return make();
    weir_lua_gate *gate = ngx_queue_data(ngx_queue_head(&gates.spare), weir_lua_gate, link);
    ngx_queue_remove(&gate->link);
    gates.spares--;
    return gate;
}

static void destroy(weir_lua_gate *gate)
{
    ngx_http_lua_ffi_sema_gc(gate->semaphore);
    free(gate);
}

weir_lua_gate *wn_gate_new(void *ctx, struct lua_State *L, void (*deserted)(void *user), void *user)
{
    (void)ctx;
    ngx_http_request_t *r = gates.dead ? NULL : wn_lua_request(L);
    struct bonds *bonds = r != NULL ? bonds_of(r) : NULL;
    weir_lua_gate *gate = bonds != NULL ? take() : NULL;
    if (gate == NULL) return NULL;
    gate->deserted = deserted;
    gate->user = user;
    gate->opened = false;
    ngx_queue_insert_tail(&gates.used, &gate->link);
    ngx_queue_init(&gate->stand);
    ngx_queue_init(&gate->bond);
    if (deserted != NULL) {
        ngx_queue_insert_tail(&bonds->gates, &gate->bond);
    }
    return gate;
}

/* A semaphore with a post that nobody took would wake its next user at once. */
void wn_gate_drop(weir_lua_gate *gate)
{
    if (gates.dead) return; /* freed already, with all others */
    ngx_queue_remove(&gate->link);
    unlink_from(&gate->stand);
    unlink_from(&gate->bond);
    gate->deserted = NULL;
    if (gates.spares >= SPARES_MAX || ngx_http_lua_ffi_sema_count(gate->semaphore) != 0) {
        destroy(gate);
        return;
    }
    ngx_queue_insert_head(&gates.spare, &gate->link);
    gates.spares++;
}

static void destroy_all(ngx_queue_t *list)
{
    while (!ngx_queue_empty(list)) {
        ngx_queue_t *first = ngx_queue_head(list);
        ngx_queue_remove(first);
        destroy(ngx_queue_data(first, weir_lua_gate, link));
    }
}

/* ngx_lua complains of each semaphore that is left when its memory goes. */
void wn_gate_stop(void)
{
    if (gates.dead) return;
    gates.dead = true;
    if (gates.sweep.timer_set) ngx_del_timer(&gates.sweep);
    destroy_all(&gates.used);
    destroy_all(&gates.spare);
    ngx_http_lua_ffi_sema_gc(gates.probe);
}

/* ---- waiting --------------------------------------------------------------------------------------------- */

static bool refuse(char *why, const char *sentence)
{
    (void)snprintf(why, WEIR_WHY_MAX, "%s", sentence);
    return false;
}

bool wn_gate_may_wait(void *ctx, struct lua_State *L, char *why)
{
    (void)ctx;
    u_char text[128];
    size_t length = sizeof text;
    if (gates.dead) return refuse(why, "this process makes no calls: only nginx's workers do");
    ngx_http_request_t *r = wn_lua_request(L);
    if (r == NULL) return refuse(why, "nothing may wait here: there is no request and no timer");
    if (ngx_http_lua_ffi_sema_wait(r, gates.probe, 0, text, &length) == NGX_ERROR) {
        (void)snprintf(why, WEIR_WHY_MAX, "a call must wait for its answer, and here nothing may: %.*s",
                       (int)length, (const char *)text);
        return false;
    }
    if (wn_lua_may_yield(L)) return true;
    return refuse(
        why,
        "a call must wait for its answer, and here nothing may: this function was called by one of C that "
        "cannot be left, such as string.gsub or table.sort");
}

int wn_gate_pass(weir_lua_gate *gate, struct lua_State *L, uint64_t timeout_ns)
{
    u_char text[128];
    size_t length = sizeof text;
    uint64_t wait_ms = (timeout_ns + 999999) / 1000000;
    int wait = wait_ms > WAIT_MAX_MS ? WAIT_MAX_MS : wait_ms < 1 ? 1 : (int)wait_ms;
    ngx_http_request_t *r = gates.dead ? NULL : wn_lua_request(L);
    if (r == NULL || !wn_lua_may_yield(L)) return wn_lua_raise(L, "nothing may wait here");
    gate->opened = false;
    switch (ngx_http_lua_ffi_sema_wait(r, gate->semaphore, wait, text, &length)) {
    case NGX_OK:
        return 0;
    case NGX_AGAIN:
        if (ngx_queue_empty(&gate->stand)) {
            ngx_queue_insert_tail(&gates.waiting, &gate->stand);
        }
        if (!gates.sweep.timer_set) ngx_add_timer(&gates.sweep, SWEEP_MS);
        return wn_lua_yield(L);
    default:
        text[length < sizeof text ? length : sizeof text - 1] = '\0';
        return wn_lua_raise(L, (const char *)text);
    }
}

void wn_gate_open(weir_lua_gate *gate)
{
    if (gates.dead || gate->opened) return;
    gate->opened = true;
    unlink_from(&gate->stand);
    (void)ngx_http_lua_ffi_sema_post(gate->semaphore, 1);
}
