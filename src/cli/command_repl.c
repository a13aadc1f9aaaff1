/* weir repl: the console. What happens is decided in lua/weir/console; terminal.c is the line editor. */
#include "cli.h"

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
    "usage; 3 there is no engine at PATH; 4 an order that not every worker has carried out.\n"
    "History is kept in ~/.weir_history, or in the file that WEIR_HISTORY names; an empty name keeps none.\n";

static int repl_command(int argc, char **argv)
{
    return cli_lua_main(&cli_command_repl, "weir.console.repl", NULL, argc, argv);
}

const struct cli_command cli_command_repl = {
    .name = "repl",
    .summary = "a Lua prompt beside a live engine, one's own or another process's",
    .help = help,
    .run = repl_command,
};
