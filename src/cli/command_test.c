/* weir test: scenarios and luaunit tests. The work is done in lua/weir/testing/command.lua. */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

static const char help[] =
    "usage: weir test [OPTIONS] FILE.lua...\n\n"
    "Runs tests: each FILE is a Lua script that describes scenarios (weir.scenario), or has luaunit's\n"
    "global tables and functions named Test... or test..., or both. Each file runs in a process of its "
    "own.\n\n"
    "  --filter PATTERN     only cases whose name holds PATTERN, a plain text or a Lua pattern; with a\n"
    "                       leading ! only the others. Several may be given\n"
    "  --seed N             of all randomness; 1 if not given\n"
    "  --seeds N            runs each case N times, with the seeds from --seed on\n"
    "  --live               scenarios against a real PostgreSQL instead of in virtual time\n"
    "  --jobs N             files at once, 1 to 256; the number of cores, and 1 with --live, if not given\n"
    "  --limit SECONDS      of real time for one case; 60, and 600 with --live, if not given. A case that\n"
    "                       takes longer fails with the line where it was, and the run goes on\n"
    "  --format FORMAT      text, tap or junit\n"
    "  --output FILE        the report goes there, and a text to standard output\n"
    "  --record DIR         keeps a trace of each scenario there; the folder is made if it is not there\n"
    "  --pictures           shows the picture of scenarios that pass, too\n"
    "  --list               names the cases and runs none\n"
    "  --                   all that follows are files\n\n"
    "Exit codes: 0 all passed, 1 a case failed, 2 wrong usage or a file that cannot be loaded or holds no\n"
    "case (the others are run), 130 after Ctrl-C, 143 after SIGTERM, 141 if the reader of its output went\n"
    "away. The last line of the text is `N passed, N failed`, with `, N skipped` if there are any.\n"
    "Colours are used on a terminal, unless NO_COLOR is set. Scenarios and tests need luaunit 3.4 (Debian:\n"
    "lua-unit).\n";

/* The host of command.lua: the system as far as it needs it. */
static void open_host(lua_State *L)
{
    cli_children_open(L);
    lua_pushcfunction(L, cli_watchdog_call);
    lua_setfield(L, -2, "watch");
}

static int test_command(int argc, char **argv)
{
    return cli_lua_main(&cli_command_test, "weir.testing.command", open_host, argc, argv);
}

const struct cli_command cli_command_test = {
    .name = "test",
    .summary = "runs scenarios and luaunit tests",
    .help = help,
    .run = test_command,
    .tells_signal = true,
};
