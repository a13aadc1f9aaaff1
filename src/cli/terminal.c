/* The line editor for the console, as the Lua module weir.terminal: libedit, whose way of waiting for a key is to turn the
 * loop, so that whatever else there is goes on while somebody thinks. */
#include "cli.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include <lauxlib.h>

enum { HISTORY_MAX = 1000, CANDIDATES_SHOWN = 100, PROMPT_MAX = 512 };

static struct {
    EditLine *line;
    History *history;
    lua_State *L; /* of the call of read() that is under way */
    char prompt[PROMPT_MAX];
    bool interrupted;
    struct termios before; /* how the terminal was found */
} terminal;

/* ---- keys ------------------------------------------------------------------------------------------------ */

/* Calls the waiting function at index 2 of read(): true once there is something to read, false to give up. */
static bool wait_for_key(void)
{
    lua_State *L = terminal.L;
    lua_pushvalue(L, 2);
    if (lua_pcall(L, 0, 1, 0) != LUA_OK) {
        terminal.interrupted = true;
        lua_pop(L, 1);
        return false;
    }
    bool ready = lua_toboolean(L, -1);
    lua_pop(L, 1);
    terminal.interrupted = !ready;
    return ready;
}

/* One byte; 0 at the end of the input, -1 if the session is to give this line up. */
static int read_byte(char *byte)
{
    for (;;) {
        if (!wait_for_key()) {
            errno = EINTR;
            return -1;
        }
        ssize_t got = read(STDIN_FILENO, byte, 1);
        if (got >= 0) return (int)got;
        if (errno != EINTR && errno != EAGAIN) return 0;
    }
}

static int get_key(EditLine *line, wchar_t *key)
{
    mbstate_t state = {0};
    char byte;
    (void)line;
    for (;;) {
        int got = read_byte(&byte);
        if (got <= 0) return got;
        size_t used = mbrtowc(key, &byte, 1, &state);
        if (used == (size_t)-2) continue; /* more of this character follows */
        if (used == (size_t)-1) *key = (unsigned char)byte;
        if (used == 0) *key = L'\0';
        return 1;
    }
}

/* ---- completion ------------------------------------------------------------------------------------------ */

static size_t common_length(lua_State *L, int list, lua_Integer count)
{
    lua_rawgeti(L, list, 1);
    const char *first = lua_tostring(L, -1);
    size_t length = strlen(first);
    for (lua_Integer i = 2; i <= count; i++) {
        lua_rawgeti(L, list, i);
        const char *other = lua_tostring(L, -1);
        size_t same = 0;
        while (same < length && first[same] == other[same]) same++;
        length = same;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return length;
}

static void show_candidates(lua_State *L, int list, lua_Integer count)
{
    fputc('\n', stdout);
    for (lua_Integer i = 1; i <= count && i <= CANDIDATES_SHOWN; i++) {
        lua_rawgeti(L, list, i);
        fprintf(stdout, "%s  ", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    if (count > CANDIDATES_SHOWN) fprintf(stdout, "and %d more", (int)(count - CANDIDATES_SHOWN));
    fputc('\n', stdout);
    fflush(stdout);
}

/* The function at index 3 of read() gives a list of what the word before the cursor may become, and how many bytes of it
 * are there already. */
static unsigned char complete(EditLine *line, int key)
{
    const LineInfo *info = el_line(line);
    lua_State *L = terminal.L;
    int top = lua_gettop(L);
    unsigned char result = CC_ERROR;
    (void)key;
    lua_pushvalue(L, 3);
    lua_pushlstring(L, info->buffer, (size_t)(info->cursor - info->buffer));
    if (lua_pcall(L, 1, 2, 0) == LUA_OK && lua_istable(L, top + 1)) {
        lua_Integer count = (lua_Integer)lua_rawlen(L, top + 1);
        size_t there = (size_t)lua_tointeger(L, top + 2);
        size_t length = count > 0 ? common_length(L, top + 1, count) : 0;
        if (length > there) {
            lua_rawgeti(L, top + 1, 1);
            lua_pushlstring(L, lua_tostring(L, -1) + there, length - there);
            result = el_insertstr(line, lua_tostring(L, -1)) == 0 ? CC_REFRESH : CC_ERROR;
        } else if (count > 1) {
            show_candidates(L, top + 1, count);
            result = CC_REDISPLAY;
        }
    }
    lua_settop(L, top);
    return result;
}

/* ---- the editor ------------------------------------------------------------------------------------------ */

static char *prompt(EditLine *line)
{
    (void)line;
    return terminal.prompt;
}

/* For a second signal, which ends the process at once. */
static void give_back(void)
{
    tcsetattr(STDIN_FILENO, TCSANOW, &terminal.before);
}

static bool start_editor(void)
{
    HistEvent event;
    if (terminal.line != NULL) return true;
    if (tcgetattr(STDIN_FILENO, &terminal.before) == 0) cli_interrupt_before_exit(give_back);
    (void)setlocale(LC_CTYPE, "");
    terminal.history = history_init();
    terminal.line = el_init("weir", stdin, stdout, stderr);
    if (terminal.line == NULL || terminal.history == NULL) return false;
    history(terminal.history, &event, H_SETSIZE, HISTORY_MAX);
    history(terminal.history, &event, H_SETUNIQUE, 1);
    el_set(terminal.line, EL_PROMPT_ESC, prompt, '\1');
    el_set(terminal.line, EL_EDITOR, "emacs");
    el_set(terminal.line, EL_SIGNAL, 0); /* they are handled in interrupt.c */
    el_set(terminal.line, EL_HIST, history, terminal.history);
    el_set(terminal.line, EL_GETCFN, get_key);
    el_set(terminal.line, EL_ADDFN, "weir-complete", "what the word may become", complete);
    el_set(terminal.line, EL_BIND, "^I", "weir-complete", NULL);
    el_set(terminal.line, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(terminal.line, NULL);
    return true;
}

/* read(prompt, wait, complete) -> line | nil, "eof" | nil, "interrupted" */
static int terminal_read(lua_State *L)
{
    int length = 0;
    lua_settop(L, 3);
    snprintf(terminal.prompt, sizeof terminal.prompt, "%s", luaL_checkstring(L, 1));
    if (!start_editor()) return luaL_error(L, "the line editor cannot be started");
    terminal.L = L;
    terminal.interrupted = false;
    fflush(stdout);
    el_set(terminal.line, EL_PREP_TERM,
           1); /* before the prompt is seen, or what is typed then is echoed twice */
    const char *text = el_gets(terminal.line, &length);
    el_set(terminal.line, EL_PREP_TERM, 0);
    terminal.L = NULL;
    if (text == NULL || length <= 0) {
        el_reset(terminal.line);
        lua_pushnil(L);
        lua_pushstring(L, terminal.interrupted ? "interrupted" : "eof");
        return 2;
    }
    if (text[length - 1] == '\n') length--;
    lua_pushlstring(L, text, (size_t)length);
    return 1;
}

/* ---- history --------------------------------------------------------------------------------------------- */

/* remember(line): the arrow keys find it. */
static int terminal_remember(lua_State *L)
{
    HistEvent event;
    const char *text = luaL_checkstring(L, 1);
    if (start_editor()) history(terminal.history, &event, H_ENTER, text);
    return 0;
}

/* load(path): what earlier sessions have left. */
static int terminal_load(lua_State *L)
{
    HistEvent event;
    const char *path = luaL_checkstring(L, 1);
    if (start_editor()) history(terminal.history, &event, H_LOAD, path);
    return 0;
}

/* save(path) -> true | nil, why. For nobody else to read. */
static int terminal_save(lua_State *L)
{
    HistEvent event;
    const char *path = luaL_checkstring(L, 1);
    if (terminal.history == NULL) return 0;
    mode_t before = umask(077);
    int saved = history(terminal.history, &event, H_SAVE, path);
    int error = errno;
    umask(before);
    if (saved < 0) {
        lua_pushnil(L);
        lua_pushfstring(L, "%s: %s", path, strerror(error));
        return 2;
    }
    (void)chmod(path, 0600);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- the module ------------------------------------------------------------------------------------------ */

/* is() -> whether somebody sits at both ends, whether the output is one */
static int terminal_is(lua_State *L)
{
    bool out = isatty(STDOUT_FILENO) == 1;
    lua_pushboolean(L, out && isatty(STDIN_FILENO) == 1);
    lua_pushboolean(L, out);
    return 2;
}

/* width() -> columns; 80 where nobody tells */
static int terminal_width(lua_State *L)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    lua_pushinteger(L, known ? size.ws_col : 80);
    return 1;
}

/* console(on): from now on Ctrl-C is for what the console evaluates; whoever calls this turns the loop. */
static int terminal_console(lua_State *L)
{
    cli_interrupt_console(L, lua_toboolean(L, 1));
    return 0;
}

/* evaluating(thread or nil): what Ctrl-C is to end. */
static int terminal_evaluating(lua_State *L)
{
    cli_interrupt_evaluating(lua_isnil(L, 1) ? NULL : lua_tothread(L, 1));
    return 0;
}

/* interrupted() -> true once for each Ctrl-C that nothing has heard of. */
static int terminal_interrupted(lua_State *L)
{
    lua_pushboolean(L, cli_interrupt_take());
    return 1;
}

/* ended() -> whether the session is to end: SIGTERM or SIGHUP came. */
static int terminal_ended(lua_State *L)
{
    lua_pushboolean(L, cli_interrupt_signal() != 0);
    return 1;
}

int cli_terminal_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"read", terminal_read},
        {"remember", terminal_remember},
        {"load", terminal_load},
        {"save", terminal_save},
        {"is", terminal_is},
        {"width", terminal_width},
        {"console", terminal_console},
        {"evaluating", terminal_evaluating},
        {"interrupted", terminal_interrupted},
        {"ended", terminal_ended},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
