/* weir doctor: what is wrong around a policy. The work is done in lua/weir/doctor/consultation.lua. */
#include "cli.h"

#include <unistd.h>

#include <lauxlib.h>

static const char help[] =
    "usage: weir doctor [OPTIONS] POLICY.lua\n\n"
    "Connects as each client of a policy to each of its backends, looks at the server, the roles, row-level\n"
    "security, poolers, sizes and timeouts, tries the policy's own functions, and prints what it found: "
    "each\n"
    "line ok, warn or fail, with why it matters and what to do about it.\n\n"
    "  POLICY.lua           returns the table of options that weir.open takes, or calls weir.open itself\n"
    "  --json               one JSON object for each line instead of text\n"
    "  --workers N          programs that open this policy, each with connections of its own; 1 if not "
    "given.\n"
    "                       Where the policy names an area its limits count for all, and N says nothing\n"
    "  --timeout SECONDS    what one check may take, 0.1 to 600; 5 if not given\n"
    "  --strict             warnings count as failures\n\n"
    "It changes nothing: all it says to a server is said in read-only transactions. It takes two connections "
    "of\n"
    "each client for a moment, and calls each function of the policy, its health checks too, once or a few\n"
    "times. Passwords are never printed.\n\n"
    "Exit codes: 0 no failure, 1 a failure (with --strict: or a warning), 2 wrong usage or a policy that "
    "cannot\n"
    "be read, 130 after Ctrl-C, 143 after SIGTERM, 141 if the reader of its output went away.\n"
    "Colours are used on a terminal, unless NO_COLOR is set.\n";

/* Whether the output is a terminal: nothing is read from the input. */
static int is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty(STDOUT_FILENO));
    return 1;
}

static void open_host(lua_State *L)
{
    lua_pushcfunction(L, is_terminal);
    lua_setfield(L, -2, "terminal");
}

static int doctor_command(int argc, char **argv)
{
    return cli_lua_main(&cli_command_doctor, "weir.doctor.consultation", open_host, argc, argv);
}

const struct cli_command cli_command_doctor = {
    .name = "doctor",
    .summary = "looks for what is wrong around a policy: roles, row-level security, sizes, servers",
    .help = help,
    .run = doctor_command,
    .tells_signal = true,
};
