/* 64 callers at once, each asking again as soon as it is answered: multiplexing off and on, in one run.
 *
 * The same read-only call through engines that differ in `max` and `multiplex` alone. Rounds alternate, so whatever else the
 * machine does hits all alike; the figure is the median of the rounds' ratios to the first engine, which does not
 * multiplex. Client CPU is this process's (the loop, libpq, and the crew's idle threads). Also counts what the engines
 * allocate once warm: nothing.
 *
 * Usage: bench_multiplex [seconds per round, default 0.5] [callers, default 64] */
#include "support/server.h"
#include "weir/uv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <uv.h>

enum { ROUNDS = 9, CALLERS_MAX = 1024 };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* ---- callers --------------------------------------------------------------------------------------------------- */

struct side { /* one engine and its callers */
    const char *name;
    uint32_t max, multiplex;
    weir_engine *engine;
    weir_uv *uv;
    weir_request request;
    weir_statement statement;
    size_t callers, under_way;
    double until;
    long calls;
    volatile bool done;
};

static void submit(struct side *side);

static void answered(void *user, weir_call *call)
{
    struct side *side = user;
    if (weir_call_error(call) != NULL) {
        fprintf(stderr, "bench: %s\n", weir_call_error(call)->message);
        exit(1);
    }
    weir_call_free(call);
    side->calls++;
    side->under_way--;
    if (now_s() < side->until) submit(side);
    side->done = side->under_way == 0;
}

static void submit(struct side *side)
{
    weir_call *call;
    char why[WEIR_WHY_MAX];
    side->under_way++;
    if (weir_submit(side->engine, &side->request, &side->statement, 1, &call, why) == WEIR_OK) return;
    fprintf(stderr, "bench: %s\n", why);
    exit(1);
}

static void side_open(struct side *side, uv_loop_t *loop, const char *conninfo, bool anon)
{
    weir_options options;
    weir_backend backend = {.name = "primary", .conninfo = conninfo};
    weir_client clients[] = {{.name = "service", .kind = WEIR_SERVICE, .bypass_rls = true},
                             {.name = "anon", .kind = WEIR_ANON, .user = "bench_anon", .role = "bench_web"}};
    char why[WEIR_WHY_MAX];
    for (int i = 0; i < 2; i++) {
        clients[i].max = side->max;
        clients[i].multiplex = side->multiplex;
        clients[i].queue_max = CALLERS_MAX;
    }
    weir_options_defaults(&options);
    options.backends = &backend;
    options.backend_count = 1;
    options.clients = clients;
    options.client_count = 2;
    if (weir_uv_new(&side->uv, loop, 1) != WEIR_OK ||
        weir_open(&side->engine, &options, weir_uv_hooks(side->uv), weir_driver_pg(), why) != WEIR_OK) {
        fprintf(stderr, "bench: %s\n", why);
        exit(1);
    }
    weir_uv_bind(side->uv, side->engine);
    side->request = (weir_request){.client = anon ? "anon" : "service",
                                   .context = "bench",
                                   .claims = anon ? "{\"sub\":\"u1\"}" : NULL,
                                   .readonly = true,
                                   .notify = answered,
                                   .user = side};
}

static double side_rate(struct side *side, double seconds, double *cpu_us)
{
    double from = now_s(), cpu_from = cpu_s();
    side->until = from + seconds;
    side->calls = 0;
    side->done = false;
    for (size_t i = 0; i < side->callers; i++) submit(side);
    weir_uv_run_until(side->uv, &side->done, 0);
    *cpu_us = (cpu_s() - cpu_from) * 1e6 / (double)side->calls;
    return (double)side->calls / (now_s() - from);
}

static void side_close(struct side *side)
{
    weir_free(side->engine);
    weir_uv_free(side->uv);
}

static unsigned long long allocations(const struct side *side)
{
    weir_held held;
    weir_held_now(side->engine, &held);
    return (unsigned long long)held.allocations;
}

/* ---- the comparison -------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values)
{
    double sorted[ROUNDS];
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, ROUNDS, sizeof *sorted, by_size);
    return sorted[ROUNDS / 2];
}

enum { SIDES = 6 };

struct figures {
    double rate[ROUNDS], share[ROUNDS], cpu_us[ROUNDS];
    unsigned long long allocations;
};

static void run_rounds(struct side *sides, struct figures *figures, double seconds)
{
    double unused;
    for (int i = 0; i < SIDES; i++) {
        side_rate(&sides[i], 0.2, &unused);
        figures[i].allocations = allocations(&sides[i]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < SIDES; i++) {
            struct figures *f = &figures[i];
            f->rate[round] = side_rate(&sides[i], seconds, &f->cpu_us[round]);
            f->share[round] = f->rate[round] / figures[0].rate[round];
        }
    }
    for (int i = 0; i < SIDES; i++) figures[i].allocations = allocations(&sides[i]) - figures[i].allocations;
}

static void compare(const char *title, const char *conninfo, bool anon, const char *sql, size_t callers,
                    double seconds)
{
    struct side sides[SIDES] = {{.name = "max 8", .max = 8},
                                {.name = "max 1", .max = 1},
                                {.name = "max 8, multiplex 8", .max = 8, .multiplex = 8},
                                {.name = "max 8, multiplex 16", .max = 8, .multiplex = 16},
                                {.name = "max 8, multiplex 64", .max = 8, .multiplex = 64},
                                {.name = "max 1, multiplex 64", .max = 1, .multiplex = 64}};
    struct figures figures[SIDES] = {{.allocations = 0}};
    uv_loop_t loop;
    uv_loop_init(&loop);
    for (int i = 0; i < SIDES; i++) {
        sides[i].callers = callers;
        sides[i].statement.sql = sql;
        side_open(&sides[i], &loop, conninfo, anon);
    }
    run_rounds(sides, figures, seconds);
    printf("%s, %zu callers\n", title, callers);
    for (int i = 0; i < SIDES; i++) {
        printf("  %-22s %8.0f calls/s   %.2f x   %5.2f us of client CPU a call   %llu allocations\n",
               sides[i].name, median(figures[i].rate), median(figures[i].share), median(figures[i].cpu_us),
               figures[i].allocations);
        side_close(&sides[i]);
    }
    uv_loop_close(&loop);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.5;
    size_t callers = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
    if (callers == 0 || callers > CALLERS_MAX) return 1;
    struct server *server = server_start(NULL);
    server_exec(server, "create role bench_web nologin; create role bench_anon login noinherit; grant "
                        "bench_web to bench_anon");
    server_exec(server, "create table ten as select n as id, 'row ' || n as name, n * 1.5::float8 as score, "
                        "n % 2 = 0 as even, repeat('x', 40) as text from generate_series(1, 10) n");
    const char *conninfo = server_conninfo(server, NULL);
    compare("SERVICE, SELECT 1", conninfo, false, "SELECT 1", callers, seconds);
    compare("SERVICE, 10 rows of 5 columns", conninfo, false, "select * from ten", callers, seconds);
    compare("ANON with role, SELECT 1", conninfo, true, "SELECT 1", callers, seconds);
    compare("SERVICE, 2 ms of waiting", conninfo, false, "select pg_sleep(0.002)", callers, seconds);
    server_free(server);
    return 0;
}
