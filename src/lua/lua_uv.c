/* The binding on a libuv loop of its own, one per Lua state, which is turned by whoever waits: what `require "weir.core"`
 * finds in a script of stock Lua and in the command. */
#include "lua_weir.h"

#include "weir/uv.h"

int luaopen_weir_core(lua_State *L);

/* Engines on the state's loop; each has a weir_uv of its own for its timer and its descriptors. */
static int lend(void *ctx, uint64_t seed, weir_host *hooks, void **loan)
{
    struct weir_uv *uv = NULL;
    int code = weir_uv_new(&uv, weir_uv_loop(ctx), seed);
    if (code == WEIR_OK) *hooks = *weir_uv_hooks(uv);
    *loan = uv;
    return code;
}

static void bind(void *loan, weir_engine *engine)
{
    weir_uv_bind(loan, engine);
}

static void take_back(void *loan)
{
    weir_uv_free(loan);
}

static int watch(void *ctx, int fd, unsigned events, void (*ready)(void *user, int fd, unsigned events),
                 void *user)
{
    return weir_uv_watch(ctx, fd, events, ready, user);
}

static void turn(void *ctx, const volatile bool *wake, uint64_t timeout_ns)
{
    (void)weir_uv_run_until(ctx, wake, timeout_ns);
}

static void close_loop(void *ctx)
{
    weir_uv_free(ctx);
}

int weir_lua_open_uv(lua_State *L, struct uv_loop_s *loop)
{
    weir_lua_host host = {.name = "libuv",
                          .lend = lend,
                          .bind = bind,
                          .take_back = take_back,
                          .watch = watch,
                          .turn = turn,
                          .close = close_loop};
    struct weir_uv *uv = NULL;
    if (weir_uv_new(&uv, loop, 0) != WEIR_OK) return luaL_error(L, "cannot make an event loop");
    host.ctx = uv;
    return weir_lua_open(L, &host);
}

int luaopen_weir_core(lua_State *L)
{
    return weir_lua_open_uv(L, NULL);
}
