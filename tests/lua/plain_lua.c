/* What `lua5.4 FILE ARGS...` does, or `luajit FILE ARGS...`, in a program that a sanitizer can be linked into: its
 * runtime must be there from the start, and the stock interpreter's is not. */
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#if LUA_VERSION_NUM < 502
/* With the C library's memory for every object: LuaJIT's own allocator takes pages from the kernel, and would show no
 * checker what has been freed. Its references carry their types, so that a search for leaks does not recognise them as
 * pointers: the state is closed however the program ends. */
static void *allocate(void *ctx, void *memory, size_t former, size_t size)
{
    (void)ctx;
    (void)former;
    if (size > 0) return realloc(memory, size);
    free(memory);
    return NULL;
}

static lua_State *new_state(void)
{
    return lua_newstate(allocate, NULL);
}

static void close_at_exit(lua_State *L)
{
    (void)luaL_dostring(L, "local exit = os.exit; function os.exit(code) exit(code, true) end");
}

static const char *text_of(lua_State *L)
{
    if (luaL_callmeta(L, 1, "__tostring")) lua_replace(L, 1);
    return lua_tostring(L, 1);
}
#else
static lua_State *new_state(void)
{
    return luaL_newstate();
}

static void close_at_exit(lua_State *L)
{
    (void)L;
}

static const char *text_of(lua_State *L)
{
    return luaL_tolstring(L, 1, NULL);
}
#endif

static int with_traceback(lua_State *L)
{
    luaL_traceback(L, L, text_of(L), 1);
    return 1;
}

int main(int argc, char **argv)
{
    lua_State *L = new_state();
    int status;

    if (L == NULL || argc < 2) {
        fprintf(stderr, "usage: %s FILE [ARGS]\n", argv[0]);
        return 2;
    }
    luaL_openlibs(L);
    close_at_exit(L);
    lua_createtable(L, argc - 2, 2);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - 1);
    }
    lua_setglobal(L, "arg");
    lua_pushcfunction(L, with_traceback);
    status = luaL_loadfile(L, argv[1]);
    if (status == LUA_OK) {
        for (int i = 2; i < argc; i++) lua_pushstring(L, argv[i]);
        status = lua_pcall(L, argc - 2, 0, 1);
    }
    if (status != LUA_OK) fprintf(stderr, "%s\n", lua_tostring(L, -1));
    lua_close(L);
    return status == LUA_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
