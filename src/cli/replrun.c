/* weir_repl_run: the console for programs that embed the engine. */
#include "cli.h"

#include <signal.h>
#include <stdio.h>

#include <lauxlib.h>
#include <lualib.h>

#include "weir/area.h"
#include "weir/luahost.h"
#include "weir/repl.h"

static bool there; /* a prompt is */

/* ---- signals ------------------------------------------------------------------------------------------------- */

static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

enum { NUMBER_COUNT = sizeof numbers / sizeof *numbers };

static void keep_handlers(struct sigaction kept[NUMBER_COUNT])
{
    for (int i = 0; i < NUMBER_COUNT; i++) sigaction(numbers[i], NULL, &kept[i]);
}

static void restore_handlers(const struct sigaction kept[NUMBER_COUNT])
{
    for (int i = 0; i < NUMBER_COUNT; i++) sigaction(numbers[i], &kept[i], NULL);
}

/* ---- the session --------------------------------------------------------------------------------------------- */

static int open_core(lua_State *L)
{
    return weir_lua_open_uv(L, lua_touserdata(L, lua_upvalueindex(1)));
}

/* Runs protected with the options at 1: returns the exit code. */
static int talk(lua_State *L)
{
    const weir_repl_options *options = lua_touserdata(L, 1);
    if (options->lua == NULL) luaL_openlibs(L);
    lua_pushlightuserdata(L, options->loop);
    lua_pushcclosure(L, open_core, 1);
    cli_state_equip(L);
    cli_interrupt_install(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "weir.console.repl");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "embedded");
    if (options->engine != NULL)
        weir_lua_push_area(L, weir_engine_area(options->engine));
    else
        lua_pushnil(L);
    lua_call(L, 1, 1);
    return 1;
}

static int run_in(lua_State *L, const weir_repl_options *options, int *code, char *why)
{
    int top = lua_gettop(L);
    lua_pushcfunction(L, talk);
    lua_pushlightuserdata(L, (void *)(uintptr_t)options);
    int status = lua_pcall(L, 1, 1, 0);
    int signal = cli_interrupt_signal();
    if (status == LUA_OK) *code = (int)lua_tointeger(L, -1);
    if (signal != 0) *code = 128 + signal;
    if (status != LUA_OK && signal == 0) snprintf(why, WEIR_WHY_MAX, "%s", luaL_tolstring(L, -1, NULL));
    lua_settop(L, top);
    if (status == LUA_OK || signal != 0) return WEIR_OK;
    return status == LUA_ERRMEM ? WEIR_ENOMEM : WEIR_ESYS;
}

int weir_repl_run(const weir_repl_options *options, int *code, char *why)
{
    struct sigaction kept[NUMBER_COUNT];
    char unheard[WEIR_WHY_MAX];
    int ignored = 0;
    if (why == NULL) why = unheard;
    why[0] = '\0';
    if (there) {
        snprintf(why, WEIR_WHY_MAX, "there is a prompt already");
        return WEIR_ESYS;
    }
    lua_State *L = options->lua != NULL ? options->lua : luaL_newstate();
    if (L == NULL) {
        snprintf(why, WEIR_WHY_MAX, "not enough memory for a Lua state");
        return WEIR_ENOMEM;
    }
    there = true;
    keep_handlers(kept);
    int result = run_in(L, options, code != NULL ? code : &ignored, why);
    if (options->lua == NULL) lua_close(L);
    cli_interrupt_before_exit(NULL);
    restore_handlers(kept);
    there = false;
    return result;
}
