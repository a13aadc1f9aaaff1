/* The command weir: what its files share. */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>

#include <lua.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* ---- commands (command_*.c) ---------------------------------------------------------------------------- */

struct cli_command {
    const char *name;
    const char *summary;               /* one line, for the list of commands */
    const char *help;                  /* what `weir help NAME` prints */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */
    bool tells_signal;                 /* an end by a signal is not how it is meant to end: stderr says so */
};

extern const struct cli_command cli_command_run;
extern const struct cli_command cli_command_repl;
extern const struct cli_command cli_command_serve;
extern const struct cli_command cli_command_test;
extern const struct cli_command cli_command_doctor;
extern const struct cli_command cli_command_top;
extern const struct cli_command cli_command_tail;

/* ---- the Lua state of a script (lua_state.c) ----------------------------------------------------------- */

/* A state with the standard libraries and Weir; NULL and a sentence on stderr if there is none. Close it with
 * lua_close. */
lua_State *cli_state_new(void);

/* Makes Weir's modules known to a state: weir.core is opened by the function on top of the stack, which is taken off. */
void cli_state_equip(lua_State *L);

/* Sets the global `arg` as lua5.4 does: script at 0, its arguments from 1, "run" and the program below 0. */
void cli_state_set_arguments(lua_State *L, const char *script, int argc, char **argv);

/* ---- commands that are written in Lua (luamain.c) ------------------------------------------------------- */

/* Calls require(module).main(host, argument...) and returns the exit code that it returns; 128 and the number after
 * a signal; CLI_FAILED and its sentence on stderr if it raised. `host` is a table of what it needs of the system: now,
 * clock, wait, terminal, utf8, and what `open_host` (or NULL) adds to it. `--help` prints the command's help. */
int cli_lua_main(const struct cli_command *command, const char *module, void (*open_host)(lua_State *L),
                 int argc, char **argv);

/* ---- the terminal (screen.c) --------------------------------------------------------------------------- */

/* Adds the table `screen` to the table on top of the stack. */
void cli_screen_open(lua_State *L);

/* Gives the terminal back, if it was taken. */
void cli_screen_finish(void);

/* ---- Ctrl-C and its like (interrupt.c) ----------------------------------------------------------------- */

/* From now on the first SIGINT or SIGTERM raises the error "interrupted" in whatever Lua code runs, the
 * second ends the process at once; SIGHUP opens the files of all logs anew, or is like the others if there are
 * none; SIGPIPE is ignored. For one state per process: its coroutine library is told to keep track of the
 * running coroutine, because a hook can only be set on that. */
void cli_interrupt_install(lua_State *L);

/* The signal that came, 0 if none. SIGPIPE: standard output was closed by its reader. */
int cli_interrupt_signal(void);

/* While the console is on, SIGINT is for what it evaluates: `L` turns the loop, and is never interrupted. */
void cli_interrupt_console(lua_State *L, bool on);

/* The coroutine that SIGINT is to end, with all that it calls; NULL: none. */
void cli_interrupt_evaluating(lua_State *co);

/* True once for a SIGINT that came while something else ran, or nothing did: who waits is to be cancelled. */
bool cli_interrupt_take(void);

/* Standard output has no reader any more: does not return. The first time it raises "interrupted", so that
 * the script ends in order; if the script goes on writing all the same, the process ends at once. */
_Noreturn void cli_interrupt_no_reader(lua_State *L);

/* The same for another signal that would end the process. */
void cli_interrupt_catch(int number);

/* What is to be done before a second signal ends the process: only what a signal handler may. */
void cli_interrupt_before_exit(void (*act)(void));

/* For the handlers of other signals. False if another thread than Lua's was hit; the signal then goes there. */
bool cli_interrupt_in_lua_thread(int number);

/* From a handler: the Lua code that runs comes to on_hook at its next instruction. */
void cli_interrupt_hook_running(void);

/* ---- the line editor (terminal.c) ------------------------------------------------------------------------- */

/* For Lua: the module weir.terminal. */
int cli_terminal_open(lua_State *L);

/* ---- a limit of real time (watchdog.c) ----------------------------------------------------------------- */

/* For Lua: watch(seconds, chunk, fn, ...) calls fn(...) and lets it work for so long; then an error is raised in it
 * that begins with the line of `chunk` ("@FILE") where it was. Returns true; or false, the error, its traceback,
 * and whether it was the limit. Not inside itself. */
int cli_watchdog_call(lua_State *L);

/* For the hook: pushes the error if L is to hear that its time is over. */
bool cli_watchdog_raises(lua_State *L);

/* Whether whoever has resumed a coroutine is to hear it next. */
bool cli_watchdog_goes_on(void);

/* Whether the hook has to stay: the watched file is looked for, or the error is raised at each instruction. */
bool cli_watchdog_stays(void);

/* ---- child processes (children.c) ---------------------------------------------------------------------- */

/* Adds to the table on top of the stack what the supervisor and the worker of `weir test` need of the system. */
void cli_children_open(lua_State *L);

#endif
