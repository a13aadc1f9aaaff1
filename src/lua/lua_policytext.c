/* Policy texts in the area: giving one to all workers, and hearing of another one's. */
#include "lua_weir.h"

#include <stdlib.h>

/* The engine says so inside a turn, where nothing of Lua runs. */
void wl_policytext_told(void *of, uint64_t generation)
{
    struct wl_engine *engine = of;
    (void)generation;
    engine->policy_news = true;
    wl_loop_wake(engine->loop);
}

/* engine:policy_news() -> whether there has been a newer text since the last question. */
int wl_policytext_news(lua_State *L)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    lua_pushboolean(L, engine != NULL && engine->policy_news);
    if (engine != NULL) engine->policy_news = false;
    return 1;
}

/* engine:policy_publish(text) -> its generation | nil, why */
int wl_policytext_publish(lua_State *L)
{
    char why[WEIR_WHY_MAX] = "";
    size_t length = 0;
    uint64_t generation = 0;
    struct wl_engine *engine = wl_engine_lookable(L);
    const char *text = luaL_checklstring(L, 2, &length);
    if (engine == NULL) return wl_refuse(L, "the engine is closed");
    if (weir_policy_publish(engine->handle, text, length, &generation, why) != WEIR_OK)
        return wl_refuse(L, why);
    lua_pushnumber(L, (lua_Number)generation);
    return 1;
}

/* engine:policy_read() -> the newest text, its generation | nil if there is none */
int wl_policytext_read(lua_State *L)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    uint64_t generation = 0;
    if (engine == NULL) return 0;
    char *text = lua_newuserdatauv(L, WEIR_POLICY_MAX + 1, 0);
    size_t length = weir_policy_read(engine->handle, text, WEIR_POLICY_MAX + 1, &generation);
    if (length == 0) return 0;
    lua_pushlstring(L, text, length);
    lua_pushnumber(L, (lua_Number)generation);
    return 2;
}

/* engine:policy_applied(generation, [why]): into the event log. */
int wl_policytext_applied(lua_State *L)
{
    struct wl_engine *engine = wl_engine_lookable(L);
    uint64_t generation = (uint64_t)luaL_checknumber(L, 2);
    if (engine != NULL) weir_policy_applied(engine->handle, generation, luaL_optstring(L, 3, NULL));
    return 0;
}
