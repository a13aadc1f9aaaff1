/* weir run: a script as the main task of the loop. */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lauxlib.h>

static const char help[] =
    "usage: weir run [--repl-on-error] FILE.lua [ARGUMENTS]\n\n"
    "Runs a Lua 5.4 script as a task of Weir's loop: calls to the database and weir.sleep park it, and\n"
    "what it starts with weir.spawn runs meanwhile. Ends when the script and all its tasks have ended.\n\n"
    "  FILE.lua     the script; - reads it from standard input\n"
    "  --repl-on-error\n"
    "               where the script fails, a prompt opens (on a terminal) with err, traceback and the\n"
    "               locals of the function that raised\n"
    "  ARGUMENTS    reach the script as ... and in the table arg\n\n"
    "Exit codes: 0 well, 1 the script failed (why is on stderr), 2 wrong usage, 130 after Ctrl-C, 143 after\n"
    "SIGTERM, 129 after SIGHUP, 141 if the reader of its output went away, or what the script hands to "
    "os.exit.\n"
    "A second Ctrl-C ends it at once. If a log is written to a file, SIGHUP opens that anew and ends "
    "nothing.\n\n"
    "WEIR_LUA_PATH names a folder that is searched first for Lua modules.\n";

/* ---- reading the script -------------------------------------------------------------------------------- */

/* Whether something can be read there; if not, why is on stderr. Opens nothing: it may be a pipe. */
static bool readable(const char *path)
{
    struct stat status;

    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        fprintf(stderr, "weir run: %s is a directory; a Lua script is wanted\n", path);
        return false;
    }
    if (access(path, R_OK) == 0) return true;
    fprintf(stderr, "weir run: cannot read %s: %s\n", path, strerror(errno));
    return false;
}

/* Leaves the compiled script on the stack. Precompiled chunks are refused: a crafted one can crash the VM. */
static int load_script(lua_State *L, const char *path)
{
    bool from_stdin = strcmp(path, "-") == 0;

    if (!from_stdin && !readable(path)) return CLI_USAGE;
    switch (luaL_loadfilex(L, from_stdin ? NULL : path, "t")) {
    case LUA_OK:
        return CLI_OK;
    case LUA_ERRMEM:
        fprintf(stderr, "weir run: not enough memory to read %s\n", path);
        return CLI_FAILED;
    default:
        fprintf(stderr, "weir run: not a Lua script: %s\n", lua_tostring(L, -1));
        return CLI_USAGE;
    }
}

/* ---- running it ---------------------------------------------------------------------------------------- */

/* As lua5.4 words it. */
static void print_failure(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TSTRING || luaL_getmetafield(L, index, "__tostring") != LUA_TNIL)
        fprintf(stderr, "weir: %s\n", luaL_tolstring(L, index, NULL));
    else
        fprintf(stderr, "weir: (error object is a %s value)\n", luaL_typename(L, index));
}

static int print_failure_protected(lua_State *L)
{
    print_failure(L, 1);
    return 0;
}

/* Tells why the script failed. What a signal ended needs no traceback, and is a failure even if the script
 * caught the error. */
static int failure_code(lua_State *L, int index)
{
    int signal = cli_interrupt_signal();

    if (signal == SIGINT) fputs("weir: interrupted\n", stderr);
    if (signal == SIGTERM) fputs("weir: terminated\n", stderr);
    if (signal == SIGHUP) fputs("weir: hung up\n", stderr);
    if (signal != 0) return 128 + signal;
    if (lua_isnil(L, index)) { /* the loop has told about each task */
        fputs("weir: the script failed\n", stderr);
        return CLI_FAILED;
    }
    lua_pushvalue(L, index);
    lua_pushcfunction(L, print_failure_protected);
    lua_insert(L, -2);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK)
        fputs("weir: the script failed, and so did its error's __tostring\n", stderr);
    return CLI_FAILED;
}

/* Calls require(module).run(script, ...); the script is on top of the stack. */
static int run_script(lua_State *L, const char *module, int argc, char **argv)
{
    int base = lua_gettop(L);

    if (!lua_checkstack(L, argc + LUA_MINSTACK)) {
        fputs("weir run: too many arguments\n", stderr);
        return CLI_USAGE;
    }
    lua_getglobal(L, "require");
    lua_pushstring(L, module);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) return failure_code(L, -1);
    lua_getfield(L, -1, "run");
    lua_pushvalue(L, base);
    for (int i = 0; i < argc; i++) lua_pushstring(L, argv[i]);
    if (lua_pcall(L, argc + 1, 2, 0) != LUA_OK) return failure_code(L, -1);
    if (lua_toboolean(L, -2) && cli_interrupt_signal() == 0) return CLI_OK;
    return failure_code(L, -1);
}

static int run_command(int argc, char **argv)
{
    lua_State *L;
    const char *module = "weir.loop";
    int first = 1, code;

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help, stdout);
        return CLI_OK;
    }
    if (argc > first && strcmp(argv[first], "--repl-on-error") == 0) {
        module = "weir.console.repl";
        first++;
    }
    if (argc > first && strcmp(argv[first], "--") == 0) {
        first++;
    } else if (argc > first && argv[first][0] == '-' && argv[first][1] != '\0') {
        fprintf(stderr, "weir run: unknown option '%s'; options of the script come after FILE.lua\n",
                argv[first]);
        return CLI_USAGE;
    }
    if (argc <= first) {
        fputs("weir run: a script is missing (usage: weir run FILE.lua [ARGUMENTS])\n", stderr);
        return CLI_USAGE;
    }
    L = cli_state_new();
    if (L == NULL) return CLI_FAILED;
    cli_state_set_arguments(L, argv[first], argc - first - 1, argv + first + 1);
    code = load_script(L, argv[first]);
    if (code == CLI_OK) code = run_script(L, module, argc - first - 1, argv + first + 1);
    lua_close(L);
    return code;
}

const struct cli_command cli_command_run = {
    .name = "run",
    .summary = "runs a Lua script with Weir's loop",
    .help = help,
    .run = run_command,
};
