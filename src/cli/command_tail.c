/* weir tail: finished calls and events as they happen. The work is done in lua/weir/console/tail.lua. */
#include "cli.h"

static const char help[] =
    "usage: weir tail --area PATH [OPTIONS]\n\n"
    "Prints calls that have ended and events of an engine, whatever process it is in, as they happen: one "
    "line\n"
    "each, each once, in the order of time. The engine is not asked and does not notice; what it has "
    "overwritten\n"
    "before it could be read is counted and told. Goes on when the engine is started again.\n\n"
    "  --area PATH          the file that was given as `area` to weir.open, or as weir_area to nginx\n"
    "  --calls, --events    only these; both if neither is given\n"
    "  --failed             only calls that did not end well\n"
    "  --slower SECONDS     only calls that took longer\n"
    "  --label L            only calls of this label\n"
    "  --pool P             only of this pool, client@backend\n"
    "  --json               one JSON object per line\n"
    "  -n LAST              begins with the last so many lines; 10 if not given\n"
    "  --once               ends after those\n"
    "  --wait               waits for an area that is not there yet\n\n"
    "Exit codes: 0 well, 1 there is no such area, 2 wrong usage, 130 after Ctrl-C, 143 after SIGTERM, 141 if "
    "the\n"
    "reader of its output went away.\n";

static int tail_command(int argc, char **argv)
{
    return cli_lua_main(&cli_command_tail, "weir.console.tail", NULL, argc, argv);
}

const struct cli_command cli_command_tail = {
    .name = "tail",
    .summary = "prints calls and events as they happen",
    .help = help,
    .run = tail_command,
};
