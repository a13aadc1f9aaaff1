/* One caller, one connection, "SELECT 1": the engine beside a blocking raw-libpq loop and pgbench, in one run.
 *
 * Rounds alternate, so whatever else the machine does hits all alike, and the figure is the median of the rounds' ratios.
 * Twice: with the scheduler free to choose cores, and with caller and backend pinned to one core, because waking
 * an idle core costs more than the whole call and would hide the difference. Also counts what the engine allocates once
 * warm: nothing.
 *
 * Usage: bench_engine [seconds per round, default 0.5]. The environment may name the command weir in WEIR_BIN and the
 * source tree in WEIR_SOURCE_DIR; defaults: build/weir and the working directory. */
#include "support/server.h"
#include "weir/uv.h"

#include <libpq-fe.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

enum { ROUNDS = 9 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- raw libpq --------------------------------------------------------------------------------------------------- */

enum raw_kind { RAW_SIMPLE, RAW_PARAMS, RAW_PREPARED };

struct raw {
    PGconn *conn;
    enum raw_kind kind;
};

static PGresult *raw_call(const struct raw *raw)
{
    switch (raw->kind) {
    case RAW_SIMPLE:
        return PQexec(raw->conn, "SELECT 1");
    case RAW_PARAMS:
        return PQexecParams(raw->conn, "SELECT 1", 0, NULL, NULL, NULL, NULL, 0);
    default:
        return PQexecPrepared(raw->conn, "s", 0, NULL, NULL, NULL, 0);
    }
}

static void raw_open(struct raw *raw, const char *conninfo, enum raw_kind kind)
{
    raw->conn = PQconnectdb(conninfo);
    raw->kind = kind;
    if (PQstatus(raw->conn) != CONNECTION_OK) {
        fprintf(stderr, "bench: %s", PQerrorMessage(raw->conn));
        exit(1);
    }
    PQclear(PQprepare(raw->conn, "s", "SELECT 1", 0, NULL));
}

static double raw_rate(struct raw *raw, double seconds)
{
    double from = now_s(), to;
    long calls = 0;
    do {
        for (int i = 0; i < 100; i++) {
            PGresult *result = raw_call(raw);
            if (PQntuples(result) != 1) exit(1);
            PQclear(result);
        }
        calls += 100;
        to = now_s();
    } while (to - from < seconds);
    return (double)calls / (to - from);
}

/* ---- the engine ---------------------------------------------------------------------------------------------------- */

struct caller {
    weir_engine *engine;
    weir_uv *uv;
    weir_request request;
    double until;
    long calls;
    volatile bool done;
};

static void submit(struct caller *caller);

static void answered(void *user, weir_call *call)
{
    struct caller *caller = user;
    if (weir_call_error(call) != NULL) {
        fprintf(stderr, "bench: %s\n", weir_call_error(call)->message);
        exit(1);
    }
    weir_call_free(call);
    caller->calls++;
    if (caller->calls % 100 == 0 && now_s() >= caller->until) {
        caller->done = true;
    } else {
        submit(caller);
    }
}

static void submit(struct caller *caller)
{
    static const weir_statement statement = {.sql = "SELECT 1"};
    weir_call *call;
    char why[WEIR_WHY_MAX];
    if (weir_submit(caller->engine, &caller->request, &statement, 1, &call, why) == WEIR_OK) return;
    fprintf(stderr, "bench: %s\n", why);
    exit(1);
}

static void engine_open(struct caller *caller, uv_loop_t *loop, const char *conninfo, bool anon)
{
    weir_options options;
    weir_backend backend = {.name = "primary", .conninfo = conninfo};
    weir_client clients[] = {
        {.name = "service", .kind = WEIR_SERVICE, .bypass_rls = true, .max = 1},
        {.name = "anon", .kind = WEIR_ANON, .user = "bench_anon", .role = "bench_web", .max = 1}};
    char why[WEIR_WHY_MAX];
    weir_options_defaults(&options);
    options.backends = &backend;
    options.backend_count = 1;
    options.clients = clients;
    options.client_count = 2;
    if (weir_uv_new(&caller->uv, loop, 1) != WEIR_OK ||
        weir_open(&caller->engine, &options, weir_uv_hooks(caller->uv), weir_driver_pg(), why) != WEIR_OK) {
        fprintf(stderr, "bench: %s\n", why);
        exit(1);
    }
    weir_uv_bind(caller->uv, caller->engine);
    caller->request = (weir_request){.client = anon ? "anon" : "service",
                                     .context = "bench",
                                     .claims = anon ? "{\"sub\":\"u1\"}" : NULL,
                                     .notify = answered,
                                     .user = caller};
}

static double engine_rate(struct caller *caller, double seconds)
{
    double from = now_s();
    caller->until = from + seconds;
    caller->calls = 0;
    caller->done = false;
    submit(caller);
    weir_uv_run_until(caller->uv, &caller->done, 0);
    return (double)caller->calls / (now_s() - from);
}

static void engine_close(struct caller *caller)
{
    weir_free(caller->engine);
    weir_uv_free(caller->uv);
}

static unsigned long long allocations(struct caller *caller)
{
    weir_held held;
    weir_held_now(caller->engine, &held);
    return (unsigned long long)held.allocations;
}

/* ---- the same from Lua --------------------------------------------------------------------------------------------- */

struct lua {
    pid_t pid;
    FILE *to, *from;
};

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL ? value : otherwise;
}

/* The child asks for the length of each round on its standard input and answers with its rate. */
static void lua_open(struct lua *lua, const char *conninfo)
{
    int in[2], out[2];
    char script[512];
    snprintf(script, sizeof script, "%s/tests/bench/bench_lua.lua", setting("WEIR_SOURCE_DIR", "."));
    if (pipe(in) != 0 || pipe(out) != 0) exit(1);
    lua->pid = fork();
    if (lua->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        for (int fd = 3; fd < 1024; fd++) close(fd);
        setenv("DATABASE_URL", conninfo, 1);
        execl(setting("WEIR_BIN", "build/weir"), "weir", "run", script, (char *)NULL);
        perror("bench: weir");
        _exit(1);
    }
    close(in[0]);
    close(out[1]);
    lua->to = fdopen(in[1], "w");
    lua->from = fdopen(out[0], "r");
}

static double lua_rate(struct lua *lua, double seconds)
{
    char line[64];
    fprintf(lua->to, "%f\n", seconds);
    fflush(lua->to);
    if (fgets(line, sizeof line, lua->from) != NULL) return atof(line);
    fprintf(stderr, "bench: the Lua side ended early\n");
    exit(1);
}

static void lua_close(struct lua *lua)
{
    fclose(lua->to);
    fclose(lua->from);
    waitpid(lua->pid, NULL, 0);
}

/* ---- pgbench --------------------------------------------------------------------------------------------------------- */

static double pgbench_rate(struct server *server, double seconds)
{
    char command[1024], line[256];
    double tps = 0;
    snprintf(command, sizeof command,
             "printf 'SELECT 1;\\n' > %s/bench.sql && /usr/lib/postgresql/15/bin/pgbench -n -M prepared -c 1 "
             "-T %d -f %s/bench.sql "
             "-h %s -p %d -U postgres postgres 2>/dev/null",
             server_socket_dir(server), seconds < 1 ? 1 : (int)seconds, server_socket_dir(server),
             server_socket_dir(server), server_port(server));
    FILE *pipe = popen(command, "r");
    while (pipe != NULL && fgets(line, sizeof line, pipe) != NULL) sscanf(line, "tps = %lf", &tps);
    if (pipe != NULL) pclose(pipe);
    return tps;
}

/* ---- the comparison ---------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, by_size);
    return values[ROUNDS / 2];
}

static void pin(pid_t pid, bool one_core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t i = 0; i < (one_core ? 1u : CPU_SETSIZE); i++) CPU_SET(i, &set);
    sched_setaffinity(pid, sizeof set, &set);
}

/* What each contender reached in each round, and its share of each raw loop's rate in the same round. */
enum contender { SIMPLE, PARAMS, PREPARED, ENGINE, LUA, WITH_ROLE, CONTENDERS };

struct figures {
    double rate[CONTENDERS][ROUNDS];
    unsigned long long allocations;
    long warm_calls;
};

static void report(struct figures *f, enum contender who, const char *name)
{
    double share[ROUNDS], rate[ROUNDS];
    memcpy(rate, f->rate[who], sizeof rate);
    printf("  %-32s %8.0f calls/s", name, median(rate));
    for (int raw = SIMPLE; raw <= PREPARED && who > PREPARED; raw++) {
        static const char *const names[] = {"PQexec", "PQexecParams", "PQexecPrepared"};
        for (int i = 0; i < ROUNDS; i++) share[i] = f->rate[who][i] / f->rate[raw][i];
        printf("   %.3f x %s", median(share), names[raw]);
    }
    printf("\n");
}

static void run_rounds(struct server *server, struct figures *f, double seconds)
{
    struct raw raw[3] = {{0}};
    struct caller service = {0}, anon = {0};
    struct lua lua;
    uv_loop_t loop;
    uv_loop_init(&loop);
    for (int kind = RAW_SIMPLE; kind <= RAW_PREPARED; kind++)
        raw_open(&raw[kind], server_conninfo(server, NULL), (enum raw_kind)kind);
    engine_open(&service, &loop, server_conninfo(server, NULL), false);
    engine_open(&anon, &loop, server_conninfo(server, NULL), true);
    lua_open(&lua, server_conninfo(server, NULL));
    lua_rate(&lua, 0.2);
    engine_rate(&service, 0.2);
    engine_rate(&anon, 0.2);
    unsigned long long before = allocations(&service);
    for (int i = 0; i < ROUNDS; i++) {
        for (int kind = RAW_SIMPLE; kind <= RAW_PREPARED; kind++)
            f->rate[kind][i] = raw_rate(&raw[kind], seconds);
        f->rate[ENGINE][i] = engine_rate(&service, seconds);
        f->warm_calls += service.calls;
        f->rate[LUA][i] = lua_rate(&lua, seconds);
        f->rate[WITH_ROLE][i] = engine_rate(&anon, seconds);
    }
    f->allocations = allocations(&service) - before;
    lua_close(&lua);
    engine_close(&service);
    engine_close(&anon);
    for (int kind = RAW_SIMPLE; kind <= RAW_PREPARED; kind++) PQfinish(raw[kind].conn);
    uv_loop_close(&loop);
}

static void compare(struct server *server, const char *name, bool one_core, double seconds)
{
    struct figures f = {.warm_calls = 0};
    pin(0, one_core);
    pin(server_pid(server), one_core); /* backends made from now on inherit it */
    run_rounds(server, &f, seconds);
    printf("%s\n", name);
    report(&f, SIMPLE, "raw libpq, PQexec");
    report(&f, PARAMS, "raw libpq, PQexecParams");
    report(&f, PREPARED, "raw libpq, PQexecPrepared");
    printf("  %-32s %8.0f calls/s\n", "pgbench -M prepared", pgbench_rate(server, 1));
    report(&f, ENGINE, "engine from C, SERVICE");
    report(&f, LUA, "engine from Lua, SERVICE");
    report(&f, WITH_ROLE, "engine from C, ANON, with role");
    printf("  allocations of the engine over %ld warm calls: %llu\n", f.warm_calls, f.allocations);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.5;
    struct server *server = server_start(NULL);
    server_exec(server, "create role bench_web nologin; create role bench_anon login noinherit; grant "
                        "bench_web to bench_anon");
    compare(server, "one core for caller and backend", true, seconds);
    compare(server, "cores as the scheduler likes", false, seconds);
    server_free(server);
    return 0;
}
