/* What every part of the binding pushes: a refusal, and figures into the table on top. */
#include "lua_weir.h"

void *wl_check_marked(lua_State *L, int index, const char *mark, size_t size, const char *type)
{
    const char **head = lua_touserdata(L, index);
    bool known = head != NULL && lua_type(L, index) == LUA_TUSERDATA && lua_rawlen(L, index) >= size;
    return known && *head == mark ? head : luaL_checkudata(L, index, type);
}

int wl_refuse(lua_State *L, const char *why)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

void wl_set_count(lua_State *L, const char *name, uint64_t count)
{
    lua_pushinteger(L, (lua_Integer)count);
    lua_setfield(L, -2, name);
}

void wl_set_number(lua_State *L, const char *name, double number)
{
    lua_pushnumber(L, number);
    lua_setfield(L, -2, name);
}
