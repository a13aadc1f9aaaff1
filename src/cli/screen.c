/* The terminal as a screen, by ncurses: begin, size, put text with attributes, key, finish. Whatever ends the
 * program, the terminal is given back as it was: in order by cli_screen_finish, and where nothing is in order any
 * more (a second signal, a crash) by `restore`, which does only what a signal handler may. */
#include "cli.h"

#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define NCURSES_WIDECHAR 1
#include <curses.h>

#include <lauxlib.h>

enum { ESCAPE = 27, ESCAPE_WAIT_MS = 40, GOODBYE_MAX = 256 };

static struct {
    bool shown;
    SCREEN *terminal;
    struct termios before;
    char goodbye[GOODBYE_MAX]; /* leaves the alternate screen, shows the cursor, ends attributes */
    size_t goodbye_length;
} screen;

/* ---- the end ------------------------------------------------------------------------------------------- */

static void restore(void)
{
    if (!screen.shown) return;
    screen.shown = false;
    if (write(STDOUT_FILENO, screen.goodbye, screen.goodbye_length) < 0)
        return; /* nobody is there any more */
    tcsetattr(STDIN_FILENO, TCSANOW, &screen.before);
}

static void on_crash(int number)
{
    restore();
    raise(number); /* SA_RESETHAND: now as if there had been no handler */
}

/* SIGBUS is left to those who look at areas. */
static void catch_crashes(void)
{
    static const int numbers[] = {SIGSEGV, SIGABRT, SIGFPE, SIGILL};
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND};

    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
}

static void add_goodbye(const char *capability)
{
    const char *sequence = tigetstr(capability);
    size_t length = sequence == NULL || (intptr_t)sequence == -1 ? 0 : strlen(sequence);

    if (screen.goodbye_length + length > sizeof screen.goodbye) return;
    if (length > 0) memcpy(screen.goodbye + screen.goodbye_length, sequence, length);
    screen.goodbye_length += length;
}

void cli_screen_finish(void)
{
    if (!screen.shown) return;
    endwin();
    screen.shown = false;
}

static int finish(lua_State *L)
{
    (void)L;
    cli_screen_finish();
    return 0;
}

/* ---- the beginning ------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    short foreground;        /* -1: the terminal's own */
    attr_t attribute, plain; /* with and without colours */
} looks[] = {
    {"plain", -1, A_NORMAL, A_NORMAL},
    {"head", -1, A_BOLD, A_BOLD},
    {"dim", -1, A_DIM, A_NORMAL},
    {"rule", COLOR_CYAN, A_NORMAL, A_NORMAL},
    {"good", COLOR_GREEN, A_NORMAL, A_NORMAL},
    {"warn", COLOR_YELLOW, A_BOLD, A_BOLD},
    {"bad", COLOR_RED, A_BOLD, A_BOLD},
    {"select", -1, A_REVERSE, A_REVERSE},
    {"bar", COLOR_BLUE, A_NORMAL, A_NORMAL},
};

enum { LOOK_COUNT = sizeof looks / sizeof *looks };

static bool coloured;

static void begin_colours(bool wanted)
{
    coloured = wanted && has_colors() && start_color() == OK && use_default_colors() == OK;
    for (short i = 0; coloured && i < LOOK_COUNT; i++) {
        if (looks[i].foreground >= 0) init_pair((short)(i + 1), looks[i].foreground, -1);
    }
}

static int fail(lua_State *L, const char *why)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

static bool open_terminal(void)
{
    if (screen.terminal != NULL) return true; /* one for the life of the process */
    setlocale(LC_CTYPE, "");
    use_env(TRUE); /* LINES and COLUMNS say what a terminal does not; what it says itself goes before them */
    use_tioctl(TRUE);
    set_escdelay(ESCAPE_WAIT_MS);
    screen.terminal = newterm(NULL, stdout, stdin);
    return screen.terminal != NULL;
}

/* begin(colours) -> true, or nil and why not. */
static int begin(lua_State *L)
{
    const char *name = getenv("TERM");

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &screen.before) != 0)
        return fail(L, "standard input is no terminal");
    if (!open_terminal()) {
        lua_pushnil(L);
        lua_pushfstring(L, "a terminal of the kind '%s' is not known here", name != NULL ? name : "");
        return 2;
    }
    screen.goodbye_length = 0;
    add_goodbye("sgr0");
    add_goodbye("rmcup");
    add_goodbye("rmkx");
    add_goodbye("cnorm");
    screen.shown = true;
    cli_interrupt_before_exit(restore);
    cli_interrupt_catch(SIGQUIT);
    catch_crashes();
    begin_colours(lua_toboolean(L, 1));
    cbreak();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    curs_set(0);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- showing ------------------------------------------------------------------------------------------- */

/* size() -> columns, rows. */
static int size(lua_State *L)
{
    lua_pushinteger(L, COLS);
    lua_pushinteger(L, LINES);
    return 2;
}

static int clear_screen(lua_State *L)
{
    (void)L;
    erase();
    return 0;
}

static int look_of(const char *name)
{
    for (int i = 0; i < LOOK_COUNT; i++) {
        if (strcmp(looks[i].name, name) == 0) return i;
    }
    return 0;
}

/* put(row, column, text, look): rows and columns from 0; what does not fit is cut off. */
static int put(lua_State *L)
{
    int row = (int)luaL_checkinteger(L, 1), column = (int)luaL_checkinteger(L, 2);
    const char *text = luaL_checkstring(L, 3);
    int look = look_of(luaL_optstring(L, 4, "plain"));
    attr_t attribute = coloured ? looks[look].attribute : looks[look].plain;

    if (row < 0 || row >= LINES || column < 0 || column >= COLS) return 0;
    attr_set(attribute, (short)(coloured && looks[look].foreground >= 0 ? look + 1 : 0), NULL);
    mvaddstr(row, column, text);
    attr_set(A_NORMAL, 0, NULL);
    return 0;
}

static int show(lua_State *L)
{
    (void)L;
    refresh();
    return 0;
}

/* ---- keys ---------------------------------------------------------------------------------------------- */

static const struct {
    wint_t code;
    const char *name;
} names[] = {
    {KEY_UP, "up"},          {KEY_DOWN, "down"},           {KEY_LEFT, "left"},    {KEY_RIGHT, "right"},
    {KEY_NPAGE, "pagedown"}, {KEY_PPAGE, "pageup"},        {KEY_HOME, "home"},    {KEY_END, "end"},
    {KEY_ENTER, "enter"},    {KEY_BACKSPACE, "backspace"}, {KEY_BTAB, "backtab"}, {KEY_RESIZE, "resize"},
};

static void push_character(lua_State *L, wint_t character)
{
    if (character == '\r' || character == '\n')
        lua_pushliteral(L, "enter");
    else if (character == '\t')
        lua_pushliteral(L, "tab");
    else if (character == ESCAPE)
        lua_pushliteral(L, "escape");
    else if (character == 127 || character == '\b')
        lua_pushliteral(L, "backspace");
    else if (character < ' ')
        lua_pushliteral(L, "other");
    else
        lua_pushfstring(L, "%U", (long)character);
}

static void push_key(lua_State *L, int kind, wint_t code)
{
    if (kind == OK) {
        push_character(L, code);
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].code != code) continue;
        lua_pushstring(L, names[i].name);
        return;
    }
    lua_pushliteral(L, "other");
}

/* key(seconds) -> the name of a key or a character, nil if none came in time. A signal ends the wait; so does a
 * change of size, which is the key "resize". A terminal that has gone away is the key "gone". */
static int key(lua_State *L)
{
    double seconds = luaL_checknumber(L, 1);
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    wint_t code = 0;
    int kind;

    if (cli_interrupt_signal() != 0) return luaL_error(L, "interrupted"); /* somebody has swallowed it */
    kind = get_wch(&code);

    if (kind == ERR && seconds > 0) {
        int ready = poll(&in, 1, (int)(seconds * 1e3));
        kind = get_wch(&code);
        if (kind == ERR && ready > 0 && (in.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) {
            lua_pushliteral(L, "gone");
            return 1;
        }
    }
    if (kind == ERR) return 0;
    push_key(L, kind, code);
    return 1;
}

static const luaL_Reg functions[] = {
    {"begin", begin}, {"size", size}, {"clear", clear_screen}, {"put", put},
    {"show", show},   {"key", key},   {"finish", finish},      {NULL, NULL},
};

void cli_screen_open(lua_State *L)
{
    luaL_newlib(L, functions);
    lua_setfield(L, -2, "screen");
}
