/* weir serve: an engine with an HTTP server beside it, in one thread. What happens when is decided in lua/weir/serve.lua; here
 * is what it needs of the system: signals that can be waited for, and the server as an object. */
#include "cli.h"
#include "httpd.h"
#include "servedarea.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <lauxlib.h>

static const char help[] =
    "usage: weir serve POLICY.lua --listen ADDRESS [OPTIONS]\n"
    "       weir serve --area PATH --listen ADDRESS [OPTIONS]\n\n"
    "Opens the engine of POLICY.lua and serves its health, metrics and a live page over HTTP; health checks\n"
    "run meanwhile. Without POLICY.lua it serves what other processes keep in the area at PATH, and follows\n"
    "it when it is replaced. Nothing that is served changes anything.\n\n"
    "  POLICY.lua          Lua 5.4 that returns the options of weir.open, or an engine that it has opened:\n"
    "                      then what it has started with weir.spawn runs, too\n"
    "  --listen ADDRESS    PORT or :PORT (on the loopback), HOST:PORT, [IPv6]:PORT, or unix:PATH; with port\n"
    "                      0 the system chooses, and the first line of the output tells\n"
    "  --area PATH         the engine keeps its figures in this shared file; for options that name none\n"
    "  --token-file FILE   only who sends its first line may ask: Authorization: Bearer, or as a password.\n"
    "                      /livez and /readyz stay open\n"
    "  --drain SECONDS     how long calls may take after SIGTERM; 10 if not given\n"
    "  --linger SECONDS    at least so long /readyz says 503 before the end; 0 if not given\n\n"
    "  /health /livez /readyz /metrics /stats.json /calls.json /events.json   and / for people\n"
    "  /events             server-sent events: once a second what the page shows, and the log of events\n\n"
    "The log is on stderr unless the policy says otherwise. SIGHUP opens a log file anew and reads\n"
    "POLICY.lua again; if there is a mistake in it, it is told and the old one stays. SIGTERM or Ctrl-C\n"
    "drains and ends, a second one ends at once. Exit codes: 0 after that, 1 the policy or the server\n"
    "failed, 2 wrong usage.\n";

/* ---- signals ------------------------------------------------------------------------------------------- */

static int signal_pipe[2] = {-1, -1};
static const int ends[] = {SIGTERM, SIGINT};
static struct sigaction before[2]; /* of cli_interrupt_install */

/* Any thread may be hit. The second of a kind goes to who handled it before: it ends what runs, even an endless loop. */
static void on_signal(int number)
{
    int kept = errno;
    char byte = number == SIGHUP ? 'H' : 'T';
    if (write(signal_pipe[1], &byte, 1) < 0) errno = kept; /* full: plenty of them are there already */
    for (size_t i = 0; number != SIGHUP && i < 2; i++) {
        if (before[i].sa_handler != SIG_IGN) (void)sigaction(ends[i], &before[i], NULL);
    }
    errno = kept;
}

/* signals() -> the descriptor that is readable once a signal has come. */
static int watch_signals(lua_State *L)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return luaL_error(L, "pipe: %s", strerror(errno));
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGHUP, &action, NULL);
    for (size_t i = 0; i < 2; i++) {
        (void)sigaction(ends[i], NULL, &before[i]);
        if (before[i].sa_handler != SIG_IGN) (void)sigaction(ends[i], &action, NULL);
    }
    lua_pushinteger(L, signal_pipe[0]);
    return 1;
}

/* signal() -> "hup" or "term", the next that came; nil if there is none. */
static int next_signal(lua_State *L)
{
    char byte;
    if (read(signal_pipe[0], &byte, 1) != 1) return 0;
    lua_pushstring(L, byte == 'H' ? "hup" : "term");
    return 1;
}

/* ---- the server as an object ------------------------------------------------------------------------------ */

struct server {
    struct cli_address address;
    struct cli_httpd *httpd; /* NULL once it is closed */
};

static const char server_type[] = "weir.cli.server";

static struct server *check_server(lua_State *L)
{
    struct server *server = luaL_checkudata(L, 1, server_type);
    if (server->httpd == NULL) luaL_error(L, "the server is closed");
    return server;
}

/* Many connections must not take the descriptors that calls need. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= 4096) return;
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* listen(address, token or nil) -> server | nil, why */
static int server_listen(lua_State *L)
{
    char why[CLI_WHY_MAX] = "";
    const char *text = luaL_checkstring(L, 1), *token = luaL_optstring(L, 2, NULL);
    struct server *server = lua_newuserdatauv(L, sizeof *server, 0);
    *server = (struct server){.address.fd = -1};
    luaL_setmetatable(L, server_type);
    raise_descriptor_limit();
    if (cli_address_listen(&server->address, text, why))
        server->httpd = cli_httpd_start(&server->address, token, why);
    if (server->httpd != NULL) return 1;
    cli_address_forget(&server->address);
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

/* server:address() -> its text, whether others than this machine's users can reach it */
static int server_address(lua_State *L)
{
    const struct server *server = check_server(L);
    lua_pushstring(L, server->address.text);
    lua_pushboolean(L, server->address.open_to_all);
    return 2;
}

static int server_getfd(lua_State *L)
{
    lua_pushinteger(L, cli_httpd_fd(check_server(L)->httpd));
    return 1;
}

/* What is shown: of an engine's handle, or an area that is attached. */
static weir_area *area_at(lua_State *L, int index)
{
    if (lua_islightuserdata(L, index)) return weir_engine_area(lua_touserdata(L, index));
    return cli_served_area(L, index);
}

/* server:run(what, trouble or nil) -> within how many seconds again; nil: when the descriptor is readable */
static int server_run(lua_State *L)
{
    struct server *server = check_server(L);
    double seconds = cli_httpd_run(server->httpd, area_at(L, 2), luaL_optstring(L, 3, NULL));
    if (seconds < 0) return 0;
    lua_pushnumber(L, seconds);
    return 1;
}

/* server:quiesce(): no new connections; streams end */
static int server_quiesce(lua_State *L)
{
    cli_httpd_quiesce(check_server(L)->httpd);
    return 0;
}

static int server_connections(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)cli_httpd_connections(check_server(L)->httpd));
    return 1;
}

static int server_close(lua_State *L)
{
    struct server *server = luaL_checkudata(L, 1, server_type);
    cli_address_forget(&server->address);
    cli_httpd_stop(server->httpd);
    server->httpd = NULL;
    return 0;
}

static void push_server_type(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"address", server_address},
        {"getfd", server_getfd},
        {"run", server_run},
        {"quiesce", server_quiesce},
        {"connections", server_connections},
        {"close", server_close},
        {"__gc", server_close},
        {NULL, NULL},
    };
    luaL_newmetatable(L, server_type);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

static int process_number(lua_State *L)
{
    lua_pushinteger(L, getpid());
    return 1;
}

/* ---- the command --------------------------------------------------------------------------------------------- */

static void open_host(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"listen", server_listen},   {"signals", watch_signals},    {"signal", next_signal},
        {"process", process_number}, {"attach", cli_served_attach}, {NULL, NULL},
    };
    push_server_type(L);
    luaL_setfuncs(L, functions, 0);
}

static int serve_command(int argc, char **argv)
{
    return cli_lua_main(&cli_command_serve, "weir.serve", open_host, argc, argv);
}

const struct cli_command cli_command_serve = {
    .name = "serve",
    .summary = "an engine's health, metrics and live page over HTTP",
    .help = help,
    .run = serve_command,
};
