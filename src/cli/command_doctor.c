/* weir doctor: what is wrong around a policy. The work is done in lua/weir/doctor/consultation.lua. */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
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

/* ---- what consultation.lua needs of the system ---------------------------------------------------------- */

static int is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty(STDOUT_FILENO));
    return 1;
}

/* Seconds since 1970, to be compared with a server's clock. */
static int wall_clock(lua_State *L)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec / 1e9);
    return 1;
}

static const luaL_Reg host[] = {{"terminal", is_terminal}, {"wall_clock", wall_clock}, {NULL, NULL}};

/* ---- the command ----------------------------------------------------------------------------------------- */

/* require("weir.doctor.consultation").main(host, argument...), which returns the exit code. */
static int call_main(lua_State *L)
{
    int argc = (int)lua_tointeger(L, 1);
    char **argv = lua_touserdata(L, 2);

    luaL_checkstack(L, argc + LUA_MINSTACK, "too many arguments");
    lua_getglobal(L, "require");
    lua_pushliteral(L, "weir.doctor.consultation");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "main");
    luaL_newlib(L, host);
    for (int i = 1; i < argc; i++) lua_pushstring(L, argv[i]);
    lua_call(L, argc, 1);
    return 1;
}

static int code_after_signal(int number)
{
    if (number == SIGINT) fputs("weir doctor: interrupted\n", stderr);
    if (number == SIGTERM) fputs("weir doctor: terminated\n", stderr);
    return 128 + number;
}

static int doctor_command(int argc, char **argv)
{
    lua_State *L;
    int code = CLI_FAILED;

    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") != 0 && strcmp(argv[i], "-h") != 0) continue;
        fputs(help, stdout);
        return CLI_OK;
    }
    L = cli_state_new();
    if (L == NULL) return CLI_FAILED;
    lua_pushcfunction(L, call_main);
    lua_pushinteger(L, argc);
    lua_pushlightuserdata(L, argv);
    if (lua_pcall(L, 2, 1, 0) == LUA_OK)
        code = (int)lua_tointeger(L, -1);
    else if (cli_interrupt_signal() == 0)
        fprintf(stderr, "weir doctor: %s\n", luaL_tolstring(L, -1, NULL));
    if (cli_interrupt_signal() != 0) code = code_after_signal(cli_interrupt_signal());
    lua_close(L);
    return code;
}

const struct cli_command cli_command_doctor = {
    .name = "doctor",
    .summary = "looks for what is wrong around a policy: roles, row-level security, sizes, servers",
    .help = help,
    .run = doctor_command,
};
