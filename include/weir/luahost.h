/* weir/luahost.h: the Lua binding inside a program that has an event loop of its own, such as nginx.
 *
 * The binding is linked into such a program (it is no part of libweir) and opened with the table below. Everything happens
 * in the one thread that runs the Lua state. A program that lends no loop of its own gets libuv's: luaopen_weir_core. */
#ifndef WEIR_LUAHOST_H
#define WEIR_LUAHOST_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;
struct uv_loop_s;
struct weir_area;

/* What one coroutine waits at. The host's own. */
typedef struct weir_lua_gate weir_lua_gate;

typedef struct weir_lua_host {
    const char *name; /* weir.core's field `host`: which Lua files park, and how */
    const char *
        title; /* what workers are called in their area, see weir_options.host_name; NULL: the program's name */
    void *ctx;
    bool logs; /* the hooks lent have `log`: options can name it by the name above, and it is the default */
    /* Pushes a new Lua thread for policies to run on, which must not be tied to what L works for. NULL: lua_newthread. */
    struct lua_State *(*thread)(void *ctx, struct lua_State *L);

    /* The hooks for one engine, and what they belong to. WEIR_OK, WEIR_ENOMEM, WEIR_ESYS; WEIR_ESTATE: this process runs no
     * loop for engines. */
    int (*lend)(void *ctx, uint64_t seed, weir_host *hooks, void **loan);
    void (*bind)(void *loan, weir_engine *engine); /* from now on readiness reaches the engine */
    void (*take_back)(void *loan);                 /* after weir_free; accepts NULL */

    /* As weir_uv_watch, for descriptors of Lua's own. */
    int (*watch)(void *ctx, int fd, unsigned events, void (*ready)(void *user, int fd, unsigned events),
                 void *user);

    /* Turns the loop until *wake or the time is over (0: no limit). NULL: the loop turns by itself, and coroutines wait at
     * gates; then all of the following are there, else none. */
    void (*turn)(void *ctx, const volatile bool *wake, uint64_t timeout_ns);

    /* Whether the code that runs in L may wait; if not, a sentence in `why` (WEIR_WHY_MAX bytes). */
    bool (*may_wait)(void *ctx, struct lua_State *L, char *why);
    /* A gate for the coroutine that runs in L. `deserted` (may be NULL) is called at most once, from the loop, when that
     * coroutine can never pass it any more: it was killed while it waited, or what it belongs to has ended. NULL: no memory. */
    weir_lua_gate *(*gate)(void *ctx, struct lua_State *L, void (*deserted)(void *user), void *user);
    /* What a lua_CFunction returns to wait at the gate in L, at most so long. The coroutine goes on when the gate is opened, if
     * it was open already, when the time is over, or for no reason at all: a gate is a hint. */
    int (*pass)(weir_lua_gate *gate, struct lua_State *L, uint64_t timeout_ns);
    void (*open)(weir_lua_gate *gate); /* in a later turn; never runs Lua by itself */
    void (*drop)(weir_lua_gate *gate);
    /* Fills what the request leaves open, from what the coroutine in L is at work for: context, traceparent. The texts live
     * until the next call of this function. */
    void (*describe)(void *ctx, struct lua_State *L, weir_request *request);

    /* Lua has news to fetch (health checks that are due, descriptors that are ready): run what fetches them soon, and not
     * inside this. */
    void (*stir)(void *ctx);

    void (*close)(void *ctx); /* the last that is heard of it; may be NULL */
} weir_lua_host;

/* Like a lua_CFunction that opens weir.core: leaves the module on the stack and returns 1, or raises. The table is
 * copied. Once per Lua state. */
int weir_lua_open(struct lua_State *L, const weir_lua_host *host);

/* The same on a libuv loop that the program turns, too, or on one of its own (NULL). Whoever waits in Lua turns it, so not
 * from inside its callbacks. It must outlive the Lua state. Where the binding is built with libuv: not in nginx. */
int weir_lua_open_uv(struct lua_State *L, struct uv_loop_s *loop);

/* Pushes a handle for Lua on an area that stays the caller's: core.attach's methods. weir.core is loaded in L. The handle
 * must be closed (its method close) before the area goes. */
void weir_lua_push_area(struct lua_State *L, struct weir_area *area);

/* Ends all engines of this Lua state at once, as weir_free does; what Lua still holds of them stays safe to touch and to
 * collect. Before the host goes. */
void weir_lua_shut(struct lua_State *L);

#ifdef __cplusplus
}
#endif
#endif
