/* The module weir.core: what the Lua files in lua/weir build the public API on. Nobody else should require
 * it. */
#include "lua_weir.h"

#include "weir/load.h"

#include <stdint.h>

int weir_lua_open(lua_State *L, const weir_lua_host *host)
{
    static const luaL_Reg functions[] = {
        {"open", wl_engine_new},      {"check", wl_engine_check}, {"breaker", wl_breaker_new},
        {"backoff", wl_backoff_new},  {"budget", wl_budget_new},  {"limit", wl_limit_new},
        {"rate", wl_rate_new},        {"sim", wl_sim_new},        {"setup", wl_values_setup},
        {"decode", wl_values_decode}, {"load", wl_load_new},      {"tally", wl_tally_new},
        {"numbers", wl_numbers_new},  {"dist", wl_dist_mean},     {"gate", wl_gate_new},
        {"heard", wl_listen_heard},   {"attach", wl_area_attach}, {NULL, NULL},
    };
    wl_loop_open(L, host);
    wl_engine_open(L);
    wl_call_open(L);
    wl_listen_open(L);
    wl_gate_open(L);
    wl_area_open(L);
    wl_breaker_open(L);
    wl_guard_open(L);
    wl_sim_open(L);
    wl_load_open(L);
    luaL_newlib(L, functions);
    luaL_setfuncs(L, wl_loop_functions(), 0);
    luaL_setfuncs(L, wl_poll_functions(), 0);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, wl_call_query, 1);
    lua_setfield(L, -3, "query");
    lua_pushcclosure(L, wl_call_collect, 1);
    lua_setfield(L, -2, "collect");
    lua_pushlightuserdata(L, (void *)(uintptr_t)weir_load_number); /* as a value: the request's number */
    lua_setfield(L, -2, "number");
    lua_pushstring(L, host->name);
    lua_setfield(L, -2, "host");
    lua_pushliteral(L, WEIR_VERSION);
    lua_setfield(L, -2, "version");
    return 1;
}

void weir_lua_shut(lua_State *L)
{
    wl_engines_shut(wl_loop_of(L));
}
