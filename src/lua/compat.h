/* What Lua 5.4 has and LuaJIT lacks, as far as this binding uses it. The binding is written against 5.4;
 * each shim below gives LuaJIT's 5.1 API the same meaning. */
#ifndef WL_COMPAT_H
#define WL_COMPAT_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#if LUA_VERSION_NUM < 502
#define WL_LUAJIT 1
#include <luajit.h>

#define lua_rawlen(L, i)                  lua_objlen((L), (i))
#define lua_newuserdatauv(L, size, slots) lua_newuserdata((L), (size))

static inline int lua_absindex(lua_State *L, int index)
{
    return index > 0 || index <= LUA_REGISTRYINDEX ? index : lua_gettop(L) + index + 1;
}

/* A userdata's environment is a table, so the one user value used here (slot 1) is always a table. */
static inline void wl_set_anchor(lua_State *L, int index)
{
    (void)lua_setfenv(L, index);
}

static inline void wl_get_anchor(lua_State *L, int index)
{
    lua_getfenv(L, index);
}

static inline void lua_rawsetp(lua_State *L, int index, const void *key)
{
    index = lua_absindex(L, index);
    lua_pushlightuserdata(L, (void *)key);
    lua_insert(L, -2);
    lua_rawset(L, index);
}

static inline int lua_rawgetp(lua_State *L, int index, const void *key)
{
    index = lua_absindex(L, index);
    lua_pushlightuserdata(L, (void *)key);
    lua_rawget(L, index);
    return lua_type(L, -1);
}

#else
#define WL_LUAJIT 0

static inline void wl_set_anchor(lua_State *L, int index)
{
    (void)lua_setiuservalue(L, index, 1);
}

static inline void wl_get_anchor(lua_State *L, int index)
{
    (void)lua_getiuservalue(L, index, 1);
}
#endif

#endif
