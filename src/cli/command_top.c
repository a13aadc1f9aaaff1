/* weir top: a live screen of a running engine. The work is done in lua/weir/console/top.lua. */
#include "cli.h"

static const char help[] =
    "usage: weir top --area PATH [OPTIONS]\n\n"
    "Shows what an engine does, whatever process it is in, by looking at the area that it keeps: the file "
    "that\n"
    "was given as `area` to weir.open, or as weir_area to nginx. The engine is not asked and does not "
    "notice.\n\n"
    "  --area PATH          the file\n"
    "  --interval SECONDS   between two readings, 0.2 to 3600; 1 if not given. Rates are of that time\n"
    "  --once               prints one plain frame of 80 columns, or COLUMNS, and ends; takes one interval\n"
    "  --json               the same, as one JSON object in one line\n"
    "  -b                   batch: prints one plain frame, or JSON object, after another\n"
    "  -n N                 ends after so many frames\n\n"
    "Keys: 1 to 7 or Tab choose a view, arrows a line, Enter looks into it, Esc goes back, s < > sort, / "
    "filters,\n"
    "Space freezes, ? explains, q ends.\n\n"
    "Only ASCII is drawn if the locale is not UTF-8, and no colours if NO_COLOR is set.\n"
    "Exit codes: 0 well, 1 there is no such area or no terminal, 2 wrong usage, 130 after Ctrl-C, 143 after\n"
    "SIGTERM, 141 if the reader of its output went away.\n";

static int top_command(int argc, char **argv)
{
    return cli_lua_main(&cli_command_top, "weir.console.top", cli_screen_open, argc, argv);
}

const struct cli_command cli_command_top = {
    .name = "top",
    .summary = "shows live what a running engine does",
    .help = help,
    .run = top_command,
};
