/* Gates: how a coroutine waits where the loop turns by itself, as in nginx. The one place in this binding where a C
 * function yields, and it does so through the host. */
#include "lua_weir.h"

#define GATE_TYPE "weir.gate"

enum { FOR_EVER = 1000000000 }; /* seconds: some thirty years */

struct gate_box {
    struct wl_loop *loop;
    weir_lua_gate *gate; /* NULL: not made, or dropped */
};

bool wl_has_gates(const struct wl_loop *loop)
{
    return loop->host.turn == NULL && loop->sim == NULL;
}

int wl_gate_pass(struct wl_loop *loop, lua_State *L, weir_lua_gate *gate, double seconds)
{
    if (seconds < 0 || seconds > FOR_EVER) seconds = FOR_EVER;
    if (loop->busy > 0) return luaL_error(L, "a policy must not wait or call the database");
    return loop->host.pass(gate, L, (uint64_t)(seconds * 1e9));
}

int wl_gate_new(lua_State *L)
{
    char why[WEIR_WHY_MAX];
    struct wl_loop *loop = wl_loop_of(L);
    if (loop->busy > 0) return luaL_error(L, "a policy must not wait or call the database");
    if (!wl_has_gates(loop)) return luaL_error(L, "gates are for loops that turn by themselves");
    if (!loop->host.may_wait(loop->host.ctx, L, why)) return wl_refuse(L, why);
    struct gate_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (struct gate_box){.loop = loop};
    luaL_setmetatable(L, GATE_TYPE);
    box->gate = loop->host.gate(loop->host.ctx, L, NULL, NULL);
    if (box->gate == NULL) return luaL_error(L, "not enough memory");
    wl_loop_retain(loop);
    return 1;
}

static struct gate_box *check_gate(lua_State *L)
{
    struct gate_box *box = luaL_checkudata(L, 1, GATE_TYPE);
    if (box->gate == NULL) luaL_error(L, "the gate is gone");
    return box;
}

/* gate:pass([seconds]): waits until the gate is opened or the time is over, or wakes for no reason. */
static int gate_pass(lua_State *L)
{
    struct gate_box *box = check_gate(L);
    return wl_gate_pass(box->loop, L, box->gate, luaL_optnumber(L, 2, -1));
}

static int gate_open(lua_State *L)
{
    struct gate_box *box = check_gate(L);
    box->loop->host.open(box->gate);
    return 0;
}

static int gate_drop(lua_State *L)
{
    struct gate_box *box = luaL_checkudata(L, 1, GATE_TYPE);
    if (box->gate == NULL) return 0;
    box->loop->host.drop(box->gate);
    box->gate = NULL;
    wl_loop_release(box->loop);
    return 0;
}

void wl_gate_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"pass", gate_pass}, {"open", gate_open}, {"drop", gate_drop}, {"__gc", gate_drop}, {NULL, NULL}};
    luaL_newmetatable(L, GATE_TYPE);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
