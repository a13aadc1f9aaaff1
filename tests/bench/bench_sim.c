/* How many simulated calls a second of real time is worth, on one core: load, engine, simulated server, and the tally.
 *
 * Three kinds of call from C, and a single statement with a Lua policy whose hooks are all set, under `weir run`. Each
 * runs for a while to warm up, is measured in rounds (the figure is the median), and then for ten times as long, after
 * which neither the process nor the engine may have grown.
 *
 * Usage: bench_sim [calls per round, default 50000]. The environment may name the command weir in WEIR_BIN and the
 * source tree in WEIR_SOURCE_DIR; defaults: build/weir and the working directory. */
#include "weir/load.h"
#include "weir/sim.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)

enum { ROUNDS = 5, PER_SECOND = 5000, WORKERS = 64 };

/* Of the processor; nothing here ever waits, so that is real time on a core of its own. */
static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double resident_mib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%*s %ld", &pages) != 1) pages = 0;
    if (file != NULL) fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1048576;
}

static void give_up(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

/* ---- a world with one engine and one load --------------------------------------------------------------------------- */

struct world {
    weir_sim *sim;
    weir_sim_host *host;
    weir_engine *engine;
    weir_tally *tally;
    weir_load *load;
    weir_sim_alarm due;
    uint64_t numbers;
};

static uint64_t now_ns(void *ctx)
{
    return weir_sim_now_ns(((struct world *)ctx)->sim);
}

static void opened(void *ctx, uint64_t number, bool idempotent)
{
    weir_sim_write_opened(((struct world *)ctx)->sim, number, idempotent);
}

static void closed(void *ctx, uint64_t number, weir_outcome outcome)
{
    weir_sim_write_closed(((struct world *)ctx)->sim, number, outcome);
}

static void load_due(void *ctx)
{
    struct world *world = ctx;
    weir_load_run(world->load);
    weir_sim_alarm_set(world->sim, &world->due, weir_load_due_ns(world->load), load_due, world);
}

static void open_engine(struct world *world)
{
    static const weir_backend backend = {.name = "primary", .conninfo = ""};
    static const weir_client clients[] = {
        {.name = "service", .kind = WEIR_SERVICE, .bypass_rls = true, .max = WORKERS},
        {.name = "anon", .kind = WEIR_ANON, .role = "web_anon", .max = WORKERS}};
    weir_options options;
    char why[WEIR_WHY_MAX] = "";
    weir_options_defaults(&options);
    options.name = "bench";
    options.backends = &backend;
    options.backend_count = 1;
    options.clients = clients;
    options.client_count = 2;
    if (weir_open(&world->engine, &options, weir_sim_hooks(world->host), weir_sim_driver(world->sim), why) !=
        WEIR_OK)
        give_up(why);
    weir_sim_bind(world->host, world->engine);
}

static void open_server(struct world *world)
{
    weir_sim_options options;
    weir_sim_server *server = weir_sim_server_named(world->sim, "primary");
    weir_sim_server_get(server, &options);
    options.workers = WORKERS;
    options.connections_max = 4 * WORKERS;
    options.service = (weir_dist){.kind = WEIR_DIST_EXPONENTIAL, .a = 0.001};
    if (weir_sim_server_set(server, &options, NULL) != WEIR_OK) give_up("the server's options are refused");
}

static void world_open(struct world *world, const weir_load_call *call)
{
    char why[WEIR_WHY_MAX] = "";
    weir_load_rate rate = {0, PER_SECOND};
    memset(world, 0, sizeof *world);
    if (weir_sim_new(&world->sim, 1) != WEIR_OK || weir_sim_host_new(&world->host, world->sim) != WEIR_OK)
        give_up("no memory");
    open_server(world);
    open_engine(world);
    if (weir_tally_new(&world->tally, now_ns(world), SECOND / 100, NULL, 0, why) != WEIR_OK) give_up(why);
    weir_load_options options = {.calls = call,
                                 .call_count = 1,
                                 .poisson = true,
                                 .rates = &rate,
                                 .rate_count = 1,
                                 .from_ns = now_ns(world),
                                 .until_ns = UINT64_MAX / 2,
                                 .seed = 1,
                                 .numbers = &world->numbers,
                                 .now_ns = now_ns,
                                 .opened = opened,
                                 .closed = closed,
                                 .ctx = world};
    if (weir_load_new(&world->load, world->engine, world->tally, &options, why) != WEIR_OK) give_up(why);
    weir_sim_alarm_set(world->sim, &world->due, weir_load_due_ns(world->load), load_due, world);
}

static void world_close(struct world *world)
{
    weir_load_free(world->load);
    weir_free(world->engine);
    weir_tally_free(world->tally);
    weir_sim_alarm_clear(world->sim, &world->due);
    weir_sim_host_free(world->host);
    weir_sim_free(world->sim);
}

static uint64_t calls_ended(const struct world *world)
{
    weir_tally_counts counts;
    if (!weir_tally_counts_of(world->tally, WEIR_TALLY_PHASES, &counts)) give_up("no whole");
    if (counts.failed > 0) give_up("a call failed");
    return counts.ok;
}

static uint64_t allocations(const struct world *world)
{
    weir_held held;
    weir_held_now(world->engine, &held);
    return held.allocations;
}

/* Calls per second. */
static double run(struct world *world, double calls)
{
    uint64_t before = calls_ended(world);
    double from = now_s();
    weir_sim_run(world->sim, NULL, now_ns(world) + (uint64_t)(calls / PER_SECOND * 1e9));
    double took = now_s() - from;
    return (double)(calls_ended(world) - before) / took;
}

/* ---- figures --------------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *name, const weir_load_call *call, double calls)
{
    struct world world;
    double rates[ROUNDS];
    world_open(&world, call);
    run(&world, 45 * PER_SECOND); /* the tally has used all of its buckets then */
    uint64_t allocated = allocations(&world);
    for (int i = 0; i < ROUNDS; i++) rates[i] = run(&world, calls);
    double resident = resident_mib();
    run(&world, calls * ROUNDS * 9);
    qsort(rates, ROUNDS, sizeof *rates, by_size);
    printf("  %-44s %8.0f calls/s   ten times as long: %+.2f MiB, %llu allocations\n", name,
           rates[ROUNDS / 2], resident_mib() - resident,
           (unsigned long long)(allocations(&world) - allocated));
    world_close(&world);
}

static void from_c(double calls)
{
    static const weir_statement read[] = {{.sql = "select 1"}};
    static const char *const number[] = {weir_load_number};
    static const weir_statement unit[] = {{.sql = "select 1"},
                                          {.sql = "update t set n = $1", .values = number, .count = 1}};
    const weir_load_call service = {.request = {.client = "service", .context = "read"},
                                    .statements = read,
                                    .statement_count = 1,
                                    .weight = 1};
    const weir_load_call anon = {
        .request = {.client = "anon", .context = "read", .claims = "{\"sub\":\"ada\"}", .readonly = true},
        .statements = read,
        .statement_count = 1,
        .weight = 1};
    const weir_load_call units = {.request = {.client = "service", .context = "unit"},
                                  .statements = unit,
                                  .statement_count = 2,
                                  .weight = 1,
                                  .unit = true,
                                  .writes = true};
    measure("from C, one statement, SERVICE", &service, calls);
    measure("from C, one statement, ANON", &anon, calls);
    measure("from C, a unit of four round trips", &units, calls);
}

static void from_lua(const char *calls)
{
    const char *weir = getenv("WEIR_BIN"), *source = getenv("WEIR_SOURCE_DIR");
    char script[4096];
    int status;
    snprintf(script, sizeof script, "%s/tests/bench/bench_sim.lua", source == NULL ? "." : source);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execl(weir == NULL ? "build/weir" : weir, "weir", "run", script, calls, (char *)NULL);
        perror("bench: weir");
        _exit(1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) give_up("the Lua side failed");
}

int main(int argc, char **argv)
{
    const char *calls = argc > 1 ? argv[1] : "50000";
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    printf("simulated calls, on one core\n");
    from_c(atof(calls));
    from_lua(calls);
    return 0;
}
