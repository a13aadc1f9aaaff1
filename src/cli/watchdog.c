/* A limit of real time on Lua code. When it is over, the code hears of it as an error, first once, so that it can
 * clean up; while it goes on all the same, again and again; in the end at each instruction, so that no pcall in it
 * can swallow the error for ever. What it cannot stop is one long call into C: whoever started this process has to
 * end it then. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <lauxlib.h>

enum {
    WATCH_AGAIN_NS = 50 * 1000 * 1000, /* between two errors after the limit */
    WATCH_PATIENCE = 10,   /* errors with time between them; from then on one at each instruction */
    WATCH_LEVELS_MAX = 200 /* of a stack that are looked at */
};

static struct {
    timer_t timer;
    bool made;
    lua_State *outermost;           /* where cli_watchdog_call was called */
    const char *chunk;              /* of the code that is watched, "@FILE" */
    double limit;                   /* seconds */
    volatile sig_atomic_t expiries; /* since the limit was over; 0 before */
    volatile sig_atomic_t raise;    /* an expiry of which the outermost code has not heard */
    char why[512];                  /* FILE:LINE: sentence; empty until it is first raised */
} watch;

/* ---- the error ----------------------------------------------------------------------------------------- */

/* The innermost line of the watched file, or of anything written in Lua. */
static bool find_line(lua_State *L, const char *chunk, lua_Debug *found)
{
    for (int level = 0; level < WATCH_LEVELS_MAX && lua_getstack(L, level, found); level++) {
        if (lua_getinfo(L, "Sl", found) == 0 || found->currentline <= 0) continue;
        if (chunk == NULL || strcmp(found->source, chunk) == 0) return true;
    }
    return false;
}

static void write_why(lua_State *L)
{
    lua_Debug found;
    char where[sizeof found.short_src + 16] = "";

    if (find_line(L, watch.chunk, &found) || find_line(watch.outermost, watch.chunk, &found) ||
        find_line(L, NULL, &found))
        snprintf(where, sizeof where, "%s:%d: ", found.short_src, found.currentline);
    snprintf(watch.why, sizeof watch.why, "%sstill at work after %g s, the limit", where, watch.limit);
}

bool cli_watchdog_for_ever(void)
{
    return watch.expiries > WATCH_PATIENCE;
}

bool cli_watchdog_raises(lua_State *L)
{
    if (!watch.raise && !cli_watchdog_for_ever()) return false;
    if (L == watch.outermost) watch.raise = 0;
    if (watch.why[0] == '\0') write_why(L);
    lua_pushstring(L, watch.why);
    return true;
}

bool cli_watchdog_goes_on(void)
{
    return watch.raise || cli_watchdog_for_ever();
}

/* ---- the timer ----------------------------------------------------------------------------------------- */

static void on_expiry(int number)
{
    int kept = errno;

    if (cli_interrupt_in_lua_thread(number)) {
        if (watch.expiries <= WATCH_PATIENCE) watch.expiries++;
        watch.raise = 1;
        cli_interrupt_hook_running();
    }
    errno = kept;
}

/* SIGALRM is nobody else's here: libuv and libpq do not use it. */
static bool make_timer(void)
{
    struct sigaction action = {.sa_handler = on_expiry}; /* no SA_RESTART: a call that waits is to end */
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};

    if (watch.made) return true;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGALRM, &action, NULL) != 0) return false;
    watch.made = timer_create(CLOCK_MONOTONIC, &event, &watch.timer) == 0;
    return watch.made;
}

static bool set_timer(double seconds)
{
    double whole = floor(seconds);
    struct itimerspec spec = {
        .it_value = {.tv_sec = (time_t)whole, .tv_nsec = (long)((seconds - whole) * 1e9)},
        .it_interval = {.tv_sec = 0, .tv_nsec = seconds > 0 ? WATCH_AGAIN_NS : 0},
    };

    return timer_settime(watch.timer, 0, &spec, NULL) == 0;
}

/* An expiry that was under way must not reach what runs next. */
static bool disarm(void)
{
    bool late = watch.expiries > 0;

    set_timer(0);
    watch.expiries = 0;
    watch.raise = 0;
    return late;
}

/* ---- for Lua ------------------------------------------------------------------------------------------- */

static const char trace_key; /* its address: where in the registry the last traceback is */

/* Where the error was made; whoever gets it passed on would see only that. */
static int keep_traceback(lua_State *L)
{
    luaL_traceback(L, L, NULL, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &trace_key);
    return 1;
}

static void arm(lua_State *L, const char *chunk, double limit)
{
    watch.outermost = L;
    watch.chunk = chunk;
    watch.limit = limit;
    watch.why[0] = '\0';
    if (!make_timer() || !set_timer(limit)) luaL_error(L, "no timer for the limit: %s", strerror(errno));
}

/* watch(seconds, chunk, fn, ...) -> true, or false, error, traceback, whether the limit was over. An error that
 * fn has swallowed still counts. */
int cli_watchdog_call(lua_State *L)
{
    double limit = luaL_checknumber(L, 1);
    const char *chunk = luaL_checkstring(L, 2); /* stays on the stack below */
    int status;
    bool late;

    luaL_checkany(L, 3);
    luaL_argcheck(L, limit > 0 && limit < 1e9, 1, "a number of seconds above 0 is wanted");
    lua_pushcfunction(L, keep_traceback);
    lua_insert(L, 3);
    arm(L, chunk, limit);
    status = lua_pcall(L, lua_gettop(L) - 4, 0, 3);
    late = disarm() && watch.why[0] != '\0';
    lua_pushboolean(L, status == LUA_OK && !late);
    if (status == LUA_OK && !late) return 1;
    if (late)
        lua_pushstring(L, watch.why);
    else
        lua_pushvalue(L, -2);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &trace_key);
    lua_pushboolean(L, late);
    return 4;
}
