/* A command whose work is done in Lua: its state, its one call, and what its end is worth. */
#include "cli.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>

/* ---- what every such command needs of the system ------------------------------------------------------- */

static double seconds_of(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* now() -> seconds of a clock that is never set. */
static int now(lua_State *L)
{
    lua_pushnumber(L, seconds_of(CLOCK_MONOTONIC));
    return 1;
}

/* clock() -> seconds since 1970. */
static int wall_clock(lua_State *L)
{
    lua_pushnumber(L, seconds_of(CLOCK_REALTIME));
    return 1;
}

/* wait(seconds): until then, or until a signal comes. Who reads our output may go away meanwhile; somebody who
 * has nothing to write would never hear of it. */
static int wait_function(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    struct pollfd out = {.fd = STDOUT_FILENO, .events = 0};

    if (cli_interrupt_signal() != 0) return luaL_error(L, "interrupted"); /* somebody has swallowed it */
    if (seconds < 0) seconds = 0;
    if (poll(&out, 1, (int)(seconds * 1e3)) > 0 && (out.revents & POLLERR) != 0) cli_interrupt_no_reader(L);
    return 0;
}

/* terminal() -> whether both standard input and output are one. */
static int is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
    return 1;
}

/* utf8() -> whether the locale can show more than ASCII. */
static int is_utf8(lua_State *L)
{
    setlocale(LC_CTYPE, ""); /* and no more than that: numbers keep their point */
    lua_pushboolean(L, strcmp(nl_langinfo(CODESET), "UTF-8") == 0);
    return 1;
}

static const luaL_Reg system_functions[] = {
    {"now", now},      {"clock", wall_clock}, {"wait", wait_function}, {"terminal", is_terminal},
    {"utf8", is_utf8}, {NULL, NULL},
};

/* ---- the call ------------------------------------------------------------------------------------------ */

struct lua_main {
    const char *module;
    void (*open_host)(lua_State *L);
    int argc;
    char **argv;
};

/* require(module).main(host, argument...), which returns the exit code. */
static int call_main(lua_State *L)
{
    const struct lua_main *what = lua_touserdata(L, 1);

    luaL_checkstack(L, what->argc + LUA_MINSTACK, "too many arguments");
    lua_getglobal(L, "require");
    lua_pushstring(L, what->module);
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "main");
    luaL_newlib(L, system_functions);
    if (what->open_host != NULL) what->open_host(L);
    for (int i = 1; i < what->argc; i++) lua_pushstring(L, what->argv[i]);
    lua_call(L, what->argc, 1);
    return 1;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    }
    return false;
}

static int code_after_signal(const struct cli_command *command, int number)
{
    const char *what = number == SIGINT    ? "interrupted"
                       : number == SIGTERM ? "terminated"
                       : number == SIGHUP  ? "hung up"
                                           : NULL;
    if (command->tells_signal && what != NULL) fprintf(stderr, "weir %s: %s\n", command->name, what);
    return 128 + number;
}

int cli_lua_main(const struct cli_command *command, const char *module, void (*open_host)(lua_State *L),
                 int argc, char **argv)
{
    struct lua_main what = {module, open_host, argc, argv};
    lua_State *L;
    int code = CLI_FAILED;

    if (asks_for_help(argc, argv)) {
        fputs(command->help, stdout);
        return CLI_OK;
    }
    L = cli_state_new();
    if (L == NULL) return CLI_FAILED;
    lua_pushcfunction(L, call_main);
    lua_pushlightuserdata(L, &what);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK)
        code = (int)lua_tointeger(L, -1);
    else
        cli_screen_finish();
    if (cli_interrupt_signal() != 0)
        code = code_after_signal(command, cli_interrupt_signal());
    else if (!lua_isinteger(L, -1))
        fprintf(stderr, "weir %s: %s\n", command->name, luaL_tolstring(L, -1, NULL));
    lua_close(L);
    return code;
}
