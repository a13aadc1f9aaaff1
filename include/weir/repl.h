/* weir/repl.h: the console of `weir repl` inside a program of one's own, beside its engine. In the library weir-repl, which
 * stands on Lua 5.4 and libedit; libweir knows neither. */
#ifndef WEIR_REPL_H
#define WEIR_REPL_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;
struct uv_loop_s;

typedef struct weir_repl_options {
    /* What is seen and steered, as the global `db`: its view, with the methods that db:view() has in Lua. NULL: nothing,
     * until something typed opens an engine. It must outlive the call. */
    weir_engine *engine;
    /* The loop that the engine's host is on: it is turned while the prompt waits, so calls, timers and whatever else the
     * program has there go on. NULL: a loop of the console's own, and the program's stands still meanwhile. */
    struct uv_loop_s *loop;
    /* Lua 5.4: what is typed works on its globals. Standard libraries are open in it; weir.core is opened on `loop` if
     * the program has not done so (weir_lua_open_uv, which this library has, too). NULL: a state of the console's own, which ends with it. */
    struct lua_State *lua;
} weir_repl_options;

/* Reads from standard input until it ends (Ctrl-D on a terminal; else lines run without a prompt), evaluates, prints to
 * standard output. Blocks its caller: the thread that turns the loop, from outside any callback of it or of the engine.
 * Meanwhile SIGINT ends what is evaluated, SIGTERM and SIGHUP the session; the program's own handlers are back when it
 * returns. One at a time per process; the Lua modules are found beside the library, or where WEIR_LUA_PATH says.
 *
 * WEIR_OK when the session has ended, and in *code (may be NULL) 0, what went wrong first in a script (1 an error in
 * Lua, 2 refused, 3 unreachable), or 128 and the number of the signal that ended it. WEIR_ENOMEM; WEIR_ESYS: no modules,
 * or a prompt is there already: a sentence in `why` (WEIR_WHY_MAX bytes, may be NULL). */
int weir_repl_run(const weir_repl_options *options, int *code, char *why);

#ifdef __cplusplus
}
#endif
#endif
