/* Signals, and the limit of watchdog.c. A handler may only set a hook (lua_sethook is made for that), and a hook
 * belongs to one coroutine, so the coroutine that runs must be known: coroutine.resume and coroutine.wrap are
 * replaced by versions that note it. */
#include "cli.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include <lauxlib.h>

static lua_State *main_state;
static lua_State *volatile running;
static pthread_t main_thread;
static volatile sig_atomic_t caught;  /* the first signal */
static volatile sig_atomic_t pending; /* it has not yet reached the main coroutine */
static void (*volatile before_exit)(void);
static volatile sig_atomic_t hung_up; /* SIGHUP came, and nothing has been done about it yet */

/* While the console is there, Ctrl-C ends what it evaluates and nothing else: never the scheduler, which would lose track of
 * its tasks, nor a task that had nothing to do with it. */
static struct {
    lua_State *volatile scheduler;  /* who turns the loop; NULL: no console */
    lua_State *volatile evaluating; /* the task that evaluates, NULL: none does */
    lua_State *volatile resumed;    /* the task that the scheduler has resumed */
    volatile sig_atomic_t pending, asked;
    volatile sig_atomic_t pressed, insists; /* Ctrl-C came again: a pcall inside what runs does not save it */
} console;

/* ---- SIGHUP -------------------------------------------------------------------------------------------- */

/* Opens the files of all logs anew. Returns how many there are. */
static lua_Integer reopen_logs(lua_State *L)
{
    int top = lua_gettop(L);
    lua_Integer count = 0;

    if (!lua_checkstack(L, 4)) return 0;
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "weir.core") == LUA_TTABLE &&
        lua_getfield(L, -1, "reopen_logs") == LUA_TFUNCTION && lua_pcall(L, 0, 2, 0) == LUA_OK) {
        count = lua_tointeger(L, -2);
        if (lua_type(L, -1) == LUA_TSTRING) fprintf(stderr, "weir: %s\n", lua_tostring(L, -1));
    }
    lua_settop(L, top);
    return count;
}

/* To whoever writes a log to a file it means that the file has been moved away, to all others that the terminal has gone:
 * an end like any other. */
static void obey_hangup(lua_State *L)
{
    hung_up = 0;
    if (reopen_logs(L) > 0 || caught != 0) return;
    caught = SIGHUP;
    pending = 1;
}

/* ---- the error ----------------------------------------------------------------------------------------- */

static void on_hook(lua_State *L, lua_Debug *debug)
{
    if (hung_up) obey_hangup(L);
    if (console.pending && L == console.scheduler) console.pending = 0;
    bool interrupted = pending || console.pending, raises = interrupted || cli_watchdog_raises(L);

    (void)debug;
    bool insists = console.pending && console.insists;
    if (!cli_watchdog_stays() && !insists) lua_sethook(L, NULL, 0, 0);
    if (!raises) return;
    if (interrupted) {
        if (L == main_state) pending = 0;
        if (!insists) console.pending = 0;
        lua_pushliteral(L, "interrupted");
    }
    lua_error(L);
}

static void raise_soon_in(lua_State *L)
{
    lua_sethook(L, on_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

void cli_interrupt_hook_running(void)
{
    raise_soon_in(running);
}

/* ---- the signals --------------------------------------------------------------------------------------- */

bool cli_interrupt_in_lua_thread(int number)
{
    if (pthread_equal(pthread_self(), main_thread)) return true;
    pthread_kill(main_thread, number); /* a connector thread was hit */
    return false;
}

/* What runs is the evaluation: it is ended here. Else the console is asked to cancel it where it waits; if nobody has taken
 * that up when Ctrl-C comes again, whatever runs and lets nobody else run is ended. */
static void interrupt_evaluation(void)
{
    bool runs = console.resumed != NULL && console.resumed == console.evaluating;
    if ((runs || console.asked) && running != console.scheduler) {
        if (console.pressed) console.insists = 1;
        console.pending = 1;
        raise_soon_in(running);
    }
    console.pressed = 1;
    if (!runs) console.asked = 1;
}

static void on_signal(int number)
{
    int kept = errno;

    if (!cli_interrupt_in_lua_thread(number)) {
        errno = kept;
        return;
    }
    if (number == SIGINT && console.scheduler != NULL) {
        interrupt_evaluation();
    } else if (number == SIGHUP && !hung_up && caught == 0) {
        hung_up = 1;
        raise_soon_in(running);
    } else if (caught != 0) {
        if (before_exit != NULL) before_exit();
        _exit(128 + number);
    } else if (number != SIGHUP) {
        caught = number;
        pending = 1;
        raise_soon_in(running);
    }
    errno = kept;
}

int cli_interrupt_signal(void)
{
    return caught;
}

void cli_interrupt_console(lua_State *L, bool on)
{
    console.scheduler = on ? L : NULL;
    console.evaluating = NULL;
    console.pending = console.asked = 0;
}

void cli_interrupt_evaluating(lua_State *co)
{
    console.evaluating = co;
    console.pressed = console.insists = 0;
    if (co == NULL) console.pending = 0;
}

bool cli_interrupt_take(void)
{
    bool asked = console.asked != 0;
    console.asked = 0;
    return asked;
}

void cli_interrupt_before_exit(void (*act)(void))
{
    before_exit = act;
}

_Noreturn void cli_interrupt_no_reader(lua_State *L)
{
    if (caught != 0) _exit(128 + SIGPIPE);
    caught = SIGPIPE;
    pending = L != main_state;
    lua_pushliteral(L, "interrupted");
    lua_error(L);
    for (;;) {
    } /* lua_error does not return, but does not say so */
}

/* ---- who runs ------------------------------------------------------------------------------------------ */

/* Calls the function below `arguments` values on top of the stack, in which `co` runs. Back in L, a signal
 * that the coroutine has heard of goes on to L, and so outwards to the main one, and a limit that is over to
 * whoever set it: a scheduler must not outlive it. */
static int call_tracked(lua_State *L, lua_State *co, int arguments)
{
    int status;

    if (co != NULL) running = co;
    if (L == console.scheduler) console.resumed = co;
    if (co != NULL && cli_watchdog_stays()) raise_soon_in(co);
    status = lua_pcall(L, arguments, LUA_MULTRET, 0);
    running = L;
    if (L == console.scheduler) {
        console.resumed = NULL;
        console.pending = 0;
    }
    if (pending || console.pending || hung_up || cli_watchdog_goes_on()) raise_soon_in(L);
    return status;
}

static int tracked_resume(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    if (call_tracked(L, lua_tothread(L, 2), lua_gettop(L) - 1) != LUA_OK) return lua_error(L);
    return lua_gettop(L);
}

static int tracked_wrapped(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    if (call_tracked(L, lua_tothread(L, lua_upvalueindex(2)), lua_gettop(L) - 1) == LUA_OK)
        return lua_gettop(L);
    if (lua_type(L, -1) == LUA_TSTRING) { /* the original looked for our caller and found us */
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

/* What coroutine.wrap returns is a C function that keeps its coroutine as its first upvalue. */
static int tracked_wrap(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    if (lua_getupvalue(L, -1, 1) == NULL) return luaL_error(L, "coroutine.wrap of this Lua is not known");
    lua_pushcclosure(L, tracked_wrapped, 2);
    return 1;
}

static void replace_coroutine_function(lua_State *L, const char *name, lua_CFunction tracked)
{
    lua_getglobal(L, "coroutine");
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, tracked, 1);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

void cli_interrupt_catch(int number)
{
    /* Without SA_RESTART: a script that waits in io.read must hear of Ctrl-C. */
    struct sigaction action = {.sa_handler = on_signal};
    struct sigaction before;

    sigemptyset(&action.sa_mask);
    /* A shell starts background jobs with SIGINT ignored; that is to stay so. */
    if (sigaction(number, NULL, &before) == 0 && before.sa_handler == SIG_IGN) return;
    sigaction(number, &action, NULL);
}

void cli_interrupt_install(lua_State *L)
{
    main_state = running = L;
    caught = pending = hung_up = 0;
    main_thread = pthread_self();
    replace_coroutine_function(L, "resume", tracked_resume);
    replace_coroutine_function(L, "wrap", tracked_wrap);
    signal(SIGPIPE, SIG_IGN);
    cli_interrupt_catch(SIGINT);
    cli_interrupt_catch(SIGTERM);
    cli_interrupt_catch(SIGHUP);
}
