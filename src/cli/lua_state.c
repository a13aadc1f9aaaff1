/* The Lua state of a script: standard libraries, Weir, and an orderly end. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

int luaopen_weir_core(lua_State *L);

/* ---- where the modules are ----------------------------------------------------------------------------- */

/* The folder the program is in. */
static bool find_program(char *folder, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", folder, size - 1);
    char *slash;

    if (length <= 0) return false;
    folder[length] = '\0';
    slash = strrchr(folder, '/');
    if (slash != NULL) *slash = '\0';
    return slash != NULL;
}

static bool is_build_tree(const char *folder)
{
    char path[PATH_MAX + sizeof "/CMakeCache.txt"];

    snprintf(path, sizeof path, "%s/CMakeCache.txt", folder);
    return access(path, R_OK) == 0;
}

static void add_folder(luaL_Buffer *paths, const char *folder)
{
    luaL_addstring(paths, folder);
    luaL_addstring(paths, "/?.lua;");
    luaL_addstring(paths, folder);
    luaL_addstring(paths, "/?/init.lua;");
}

/* Where this program was built, the source; otherwise the modules installed beside it, wherever that is now.
 * An installed program must not load code from a source folder that may have gone and come back as somebody
 * else's. */
static void add_own_folders(luaL_Buffer *paths)
{
    char folder[PATH_MAX], beside[PATH_MAX + sizeof "/../share/lua/5.4"];

    if (find_program(folder, sizeof folder)) {
        snprintf(beside, sizeof beside, "%s/../share/lua/5.4", folder);
        add_folder(paths, is_build_tree(folder) ? WEIR_LUA_DIR_SOURCE : beside);
    }
    add_folder(paths, WEIR_LUA_DIR_INSTALL);
}

static void set_search_path(lua_State *L)
{
    const char *override = getenv("WEIR_LUA_PATH");
    luaL_Buffer paths;

    lua_getglobal(L, "package");
    luaL_buffinit(L, &paths);
    if (override != NULL && override[0] != '\0') add_folder(&paths, override);
    add_own_folders(&paths);
    luaL_pushresult(&paths);
    lua_getfield(L, -2, "path");
    lua_concat(L, 2);
    lua_setfield(L, -2, "path");
    lua_pop(L, 1);
}

/* ---- output without a reader --------------------------------------------------------------------------- */

/* With SIGPIPE ignored, a script that prints for ever would do so unheard. Calls the original in the
 * upvalue. */
static int checked_output(lua_State *L)
{
    bool broken;

    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    errno = 0;
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    broken = errno == EPIPE && ferror(stdout);
    if (broken) cli_interrupt_no_reader(L);
    return lua_gettop(L);
}

/* Replaces the function `name` of the table on top of the stack. */
static void check_output_of(lua_State *L, const char *name)
{
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, checked_output, 1);
    lua_setfield(L, -2, name);
}

static void check_output(lua_State *L)
{
    lua_pushglobaltable(L);
    check_output_of(L, "print");
    lua_getglobal(L, "io");
    check_output_of(L, "write");
    luaL_getmetatable(L, LUA_FILEHANDLE);
    lua_getfield(L, -1, "__index"); /* methods of files */
    check_output_of(L, "write");
    check_output_of(L, "flush");
    lua_pop(L, 4);
}

/* ---- the end ------------------------------------------------------------------------------------------- */

/* os.exit(code [, close]): as the original, but the state is closed unless `close` is false, since engines
 * hold connections and throw-away servers their directories. */
static int exit_function(lua_State *L)
{
    if (lua_gettop(L) < 2) {
        lua_settop(L, 1);
        lua_pushboolean(L, 1);
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 2, 0);
    return 0;
}

static void close_at_exit(lua_State *L)
{
    lua_getglobal(L, "os");
    lua_getfield(L, -1, "exit");
    lua_pushcclosure(L, exit_function, 1);
    lua_setfield(L, -2, "exit");
    lua_pop(L, 1);
}

/* ---- the state ----------------------------------------------------------------------------------------- */

void cli_state_equip(lua_State *L)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_insert(L, -2);
    lua_setfield(L, -2, "weir.core");
    lua_pushcfunction(L, cli_terminal_open);
    lua_setfield(L, -2, "weir.terminal");
    lua_pop(L, 1);
    set_search_path(L);
}

static int set_up(lua_State *L)
{
    luaL_openlibs(L);
    lua_pushcfunction(L, luaopen_weir_core);
    cli_state_equip(L);
    check_output(L);
    close_at_exit(L);
    return 0;
}

lua_State *cli_state_new(void)
{
    lua_State *L = luaL_newstate();

    if (L != NULL) {
        lua_pushcfunction(L, set_up);
        if (lua_pcall(L, 0, 0, 0) == LUA_OK) {
            cli_interrupt_install(L);
            return L;
        }
        lua_close(L);
    }
    fputs("weir: not enough memory for a Lua state\n", stderr);
    return NULL;
}

void cli_state_set_arguments(lua_State *L, const char *script, int argc, char **argv)
{
    lua_createtable(L, argc, 3);
    lua_pushliteral(L, "weir");
    lua_rawseti(L, -2, -2);
    lua_pushliteral(L, "run");
    lua_rawseti(L, -2, -1);
    lua_pushstring(L, script);
    lua_rawseti(L, -2, 0);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setglobal(L, "arg");
}
