/* weir repl: the console. What happens is decided in lua/weir/console; terminal.c is the line editor. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

static const char help[] =
    "usage: weir repl [POLICY.lua] [--area PATH] [-c COMMAND]... [--json] [--no-color]\n\n"
    "A Lua 5.4 prompt on Weir's loop, beside a live engine: what the engine sees can be asked, and its knobs "
    "be\n"
    "turned, without restarting anything. help() at the prompt lists what there is.\n\n"
    "  POLICY.lua      Lua that returns the options of weir.open, or an engine that it has opened: `db`\n"
    "  --area PATH     another process's engine, by the file it keeps its area in; with POLICY.lua, the "
    "file\n"
    "                  that the engine shares\n"
    "  -c COMMAND      runs it and ends: Lua, or a \\ command like '\\pools'; may be given again\n"
    "  --json          values as JSON, one line each\n"
    "  --no-color      no colours; there are none either under NO_COLOR and where the output is no "
    "terminal\n\n"
    "Lines read from a pipe or a file are run without a prompt. Exit codes: 0; 1 an error in Lua; 2 refused, "
    "or wrong\n"
    "usage; 3 there is no engine at PATH.\n"
    "History is kept in ~/.weir_history, or in the file that WEIR_HISTORY names; an empty name keeps none.\n";

/* Calls require("weir.console.repl").main(arguments). */
static int run_console(lua_State *L, int argc, char **argv)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "weir.console.repl");
    if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
        lua_getfield(L, -1, "main");
        lua_createtable(L, argc, 0);
        for (int i = 1; i < argc; i++) {
            lua_pushstring(L, argv[i]);
            lua_rawseti(L, -2, i);
        }
        if (lua_pcall(L, 1, 1, 0) == LUA_OK) return (int)lua_tointeger(L, -1);
    }
    if (cli_interrupt_signal() != 0) return 128 + cli_interrupt_signal();
    fprintf(stderr, "weir repl: %s\n", luaL_tolstring(L, -1, NULL));
    return CLI_FAILED;
}

static int repl_command(int argc, char **argv)
{
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help, stdout);
        return CLI_OK;
    }
    lua_State *L = cli_state_new();
    if (L == NULL) return CLI_FAILED;
    int code = run_console(L, argc, argv);
    lua_close(L);
    return code;
}

const struct cli_command cli_command_repl = {
    .name = "repl",
    .summary = "a Lua prompt beside a live engine, one's own or another process's",
    .help = help,
    .run = repl_command,
};
