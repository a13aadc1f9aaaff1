/* What `weir test` needs of the system. Its supervisor starts one worker per file, this program again: in a process
 * group of its own, so that what a test has started ends with it, and killed by the kernel should the supervisor
 * die. A worker tells results through a pipe at descriptor 3. What it prints goes into a file in memory, which has
 * no name that could be left behind and never makes a writer wait. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>

enum {
    RESULTS_FD = 3, /* in the worker */
    ARGUMENTS_MAX = 4096,
    OUTPUT_MAX = 1024 * 1024, /* bytes of output that one call returns */
    CHUNK = 16384             /* bytes of results that one call returns */
};

struct child {
    pid_t pid;   /* 0 before it was started and after it was reaped */
    int results; /* our end of its pipe, -1 if none */
    int output;  /* what it has printed, -1 if none */
};

static const char child_type[] = "weir.cli.child";

static struct child *check_child(lua_State *L, int index)
{
    return luaL_checkudata(L, index, child_type);
}

static int push_failure(lua_State *L, const char *what)
{
    int number = errno;

    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", what, strerror(number));
    return 2;
}

/* ---- starting ------------------------------------------------------------------------------------------ */

/* In the child: only calls that are safe after a fork. */
static _Noreturn void become_worker(struct child *child, int results, pid_t parent, char **argv)
{
    static const char message[] = "weir test: this program could not be started again\n";
    int input = open("/dev/null", O_RDONLY);

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    if (input >= 0 && dup2(input, 0) == 0 && dup2(child->output, 1) == 1 && dup2(child->output, 2) == 2 &&
        (results == RESULTS_FD ? fcntl(results, F_SETFD, 0) == 0 : dup2(results, RESULTS_FD) == RESULTS_FD)) {
        execv("/proc/self/exe", argv);
        if (write(2, message, sizeof message - 1) < 0) _exit(126);
    }
    _exit(127);
}

static bool open_channels(struct child *child, int *results)
{
    int ends[2];

    child->output = memfd_create("weir-test-output", MFD_CLOEXEC);
    /* Appending: it has several writers, each with an offset of its own. */
    if (child->output < 0 || fcntl(child->output, F_SETFL, O_APPEND) != 0) return false;
    if (pipe2(ends, O_CLOEXEC) != 0) return false;
    child->results = ends[0];
    *results = ends[1];
    return fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0;
}

/* start{argument...} -> child, or nil and why not. */
static int start_child(lua_State *L)
{
    char *argv[ARGUMENTS_MAX + 2] = {(char *)"weir"};
    struct child *child;
    int results = -1;
    size_t count;

    luaL_checktype(L, 1, LUA_TTABLE);
    count = lua_rawlen(L, 1);
    luaL_argcheck(L, count <= ARGUMENTS_MAX, 1, "too many arguments");
    luaL_checkstack(L, (int)count + LUA_MINSTACK, NULL);
    for (size_t i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i);
        argv[i] = (char *)luaL_checkstring(L, -1);
    }
    child = lua_newuserdatauv(L, sizeof *child, 0);
    *child = (struct child){.results = -1, .output = -1};
    luaL_setmetatable(L, child_type);
    if (open_channels(child, &results)) {
        pid_t parent = getpid();

        fflush(NULL);
        child->pid = fork();
        if (child->pid == 0) become_worker(child, results, parent, argv);
        if (child->pid > 0) setpgid(child->pid, child->pid); /* here too: a signal must find the group */
    }
    if (child->pid <= 0) {
        child->pid = 0;
        push_failure(L, "no process could be started");
    }
    if (results >= 0) close(results);
    return child->pid > 0 ? 1 : 2;
}

/* ---- watching ------------------------------------------------------------------------------------------ */

/* child:read() -> what it has told, "" if nothing yet, nil when it has ended. */
static int read_child(lua_State *L)
{
    struct child *child = check_child(L, 1);
    char chunk[CHUNK];
    ssize_t count = read(child->results, chunk, sizeof chunk);

    if (count == 0) return 0;
    lua_pushlstring(L, chunk, count > 0 ? (size_t)count : 0);
    return 1;
}

/* child:written() -> how many bytes it has printed. */
static int written_by_child(lua_State *L)
{
    struct stat status = {.st_size = 0};

    fstat(check_child(L, 1)->output, &status);
    lua_pushinteger(L, status.st_size);
    return 1;
}

/* child:output(from, to) -> these bytes of what it has printed. */
static int output_of_child(lua_State *L)
{
    struct child *child = check_child(L, 1);
    lua_Integer from = luaL_checkinteger(L, 2), length = luaL_checkinteger(L, 3) - from;
    luaL_Buffer text;
    ssize_t count;

    if (from < 0 || length <= 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    if (length > OUTPUT_MAX) length = OUTPUT_MAX;
    count = pread(child->output, luaL_buffinitsize(L, &text, (size_t)length), (size_t)length, from);
    luaL_pushresultsize(&text, count > 0 ? (size_t)count : 0);
    return 1;
}

/* child:signal("TERM" or "KILL"): to it and what it has started. */
static int signal_child(lua_State *L)
{
    static const char *const names[] = {"TERM", "KILL", NULL};
    static const int numbers[] = {SIGTERM, SIGKILL};
    struct child *child = check_child(L, 1);
    int number = numbers[luaL_checkoption(L, 2, NULL, names)];

    if (child->pid > 0) kill(-child->pid, number);
    return 0;
}

/* What the child has left in its group goes with it; while it is not reaped, the group's number is taken. */
static int end_child(struct child *child)
{
    siginfo_t information;
    int status = 0;

    while (waitid(P_PID, (id_t)child->pid, &information, WEXITED | WNOWAIT) != 0 && errno == EINTR) continue;
    kill(-child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) continue;
    child->pid = 0;
    return status;
}

/* child:reap() -> "exit" or "signal", and its number. For one that has ended or was killed. */
static int reap_child(lua_State *L)
{
    struct child *child = check_child(L, 1);
    int status;

    luaL_argcheck(L, child->pid > 0, 1, "it was reaped already");
    status = end_child(child);
    lua_pushstring(L, WIFSIGNALED(status) ? "signal" : "exit");
    lua_pushinteger(L, WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return 2;
}

static int free_child(lua_State *L)
{
    struct child *child = check_child(L, 1);

    if (child->pid > 0) {
        kill(-child->pid, SIGKILL);
        end_child(child);
    }
    if (child->results >= 0) close(child->results);
    if (child->output >= 0) close(child->output);
    child->results = child->output = -1;
    return 0;
}

/* poll({child...}, seconds): until one of them has told something or ended, a signal came, or the time is over. */
static int poll_children(lua_State *L)
{
    double seconds = luaL_checknumber(L, 2);
    size_t count = lua_rawlen(L, 1);
    struct pollfd *fds = lua_newuserdatauv(L, (count + 1) * sizeof *fds, 0);

    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 1, (lua_Integer)i + 1);
        fds[i] = (struct pollfd){.fd = check_child(L, -1)->results, .events = POLLIN};
        lua_pop(L, 1);
    }
    poll(fds, (nfds_t)count, (int)(seconds * 1e3));
    return 0;
}

/* ---- in the worker ------------------------------------------------------------------------------------- */

/* work() -> whether a supervisor listens. Once, at the start. */
static int begin_work(lua_State *L)
{
    struct stat status;
    bool good = fstat(RESULTS_FD, &status) == 0 && S_ISFIFO(status.st_mode) &&
                fcntl(RESULTS_FD, F_SETFD, FD_CLOEXEC) == 0;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* in step with stderr, and not lost in a crash */
    lua_pushboolean(L, good);
    return 1;
}

/* tell(text) hands it to the supervisor. One that has gone away has ended us already. */
static int tell(lua_State *L)
{
    size_t left;
    const char *text = luaL_checklstring(L, 1, &left);

    while (left > 0) {
        ssize_t count = write(RESULTS_FD, text, left);

        if (count < 0 && errno != EINTR) return luaL_error(L, "the supervisor is gone: %s", strerror(errno));
        if (count > 0) text += count, left -= (size_t)count;
    }
    return 0;
}

/* printed() -> how many bytes this process has printed. */
static int printed(lua_State *L)
{
    struct stat status = {.st_size = 0};

    fflush(stdout);
    fstat(1, &status);
    lua_pushinteger(L, S_ISREG(status.st_mode) ? status.st_size : 0);
    return 1;
}

/* interrupted() -> whether a signal asked this process to end. */
static int interrupted(lua_State *L)
{
    lua_pushboolean(L, cli_interrupt_signal() != 0);
    return 1;
}

/* ---- the rest ------------------------------------------------------------------------------------------ */

/* now() -> seconds of a clock that never jumps. */
static int now(lua_State *L)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    lua_pushnumber(L, (lua_Number)time.tv_sec + (lua_Number)time.tv_nsec / 1e9);
    return 1;
}

static int is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty(1));
    return 1;
}

static int cores(lua_State *L)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);

    lua_pushinteger(L, count > 0 ? count : 1);
    return 1;
}

/* kind(path) -> "file", "folder" or "other"; nil and why if nothing is there. */
static int kind(lua_State *L)
{
    struct stat status;

    if (stat(luaL_checkstring(L, 1), &status) != 0) {
        lua_pushnil(L);
        lua_pushstring(L, strerror(errno));
        return 2;
    }
    lua_pushstring(L, S_ISREG(status.st_mode) ? "file" : S_ISDIR(status.st_mode) ? "folder" : "other");
    return 1;
}

static int make_folder(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);

    if (mkdir(path, 0777) != 0) return push_failure(L, path);
    lua_pushboolean(L, 1);
    return 1;
}

static const luaL_Reg methods[] = {
    {"read", read_child},        {"written", written_by_child},
    {"output", output_of_child}, {"signal", signal_child},
    {"reap", reap_child},        {"close", free_child},
    {"__gc", free_child},        {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"start", start_child}, {"poll", poll_children},      {"work", begin_work},
    {"tell", tell},         {"printed", printed},         {"interrupted", interrupted},
    {"now", now},           {"terminal", is_terminal},    {"cores", cores},
    {"kind", kind},         {"make_folder", make_folder}, {NULL, NULL},
};

void cli_children_open(lua_State *L)
{
    luaL_newmetatable(L, child_type);
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
