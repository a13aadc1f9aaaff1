/* What a look at the engine costs: each document for 8 pools with 100 labels each, every label in use, and for as many
 * workers on one area as are named. Prints the median, the best and the worst time, the size, and what was allocated once
 * warm: nothing.
 *
 * Usage: bench_web [workers beside the own, default 0] [looks, default 200]. The others are processes that serve the same
 * calls and wait; they end with this one. */
#include "support/fake_server.h"
#include "weir/metrics.h"
#include "weir/web.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 4, BACKENDS = 2, LABELS = 100, MOST_LOOKS = 10000 };

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void open_engine(struct fake *fake, const char *area)
{
    static char names[CLIENTS][16];
    static weir_client clients[CLIENTS];
    static weir_backend backends[BACKENDS] = {{.name = "primary", .conninfo = "host=a"},
                                              {.name = "replica", .conninfo = "host=b"}};
    weir_options options;
    fake_init(fake);
    fake_options(&options);
    for (int i = 0; i < CLIENTS; i++) {
        snprintf(names[i], sizeof names[i], "client%d", i);
        clients[i] = (weir_client){.name = names[i], .kind = WEIR_SERVICE, .bypass_rls = true, .max = 10};
    }
    options.clients = clients;
    options.client_count = CLIENTS;
    options.backends = backends;
    options.backend_count = BACKENDS;
    options.area_path = area;
    fake_open(fake, &options);
}

static void call_everything(struct fake *fake)
{
    for (int i = 0; i < CLIENTS * BACKENDS * LABELS; i++) {
        char context[96], client[16];
        snprintf(context, sizeof context, "GET /api/v1/resource-%d/:id", i % LABELS);
        snprintf(client, sizeof client, "client%d", i / LABELS % CLIENTS);
        weir_request request = {.client = client,
                                .context = context,
                                .backend = i / LABELS / CLIENTS == 0 ? "primary" : "replica"};
        fake->service_ns = FAKE_MS(1) * (uint64_t)(1 + i % 50);
        weir_call *call = fake_submit(fake, request, "select 1");
        fake_run(fake, FAKE_MS(60));
        weir_call_free(call);
    }
}

static void start_others(int count, const char *area)
{
    static struct fake fake;
    for (int i = 0; i < count; i++) {
        int ready[2];
        char byte;
        if (pipe(ready) != 0) exit(1);
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            open_engine(&fake, area);
            call_everything(&fake);
            if (write(ready[1], "x", 1) != 1) _exit(1);
            for (;;) pause();
        }
        if (read(ready[0], &byte, 1) != 1) exit(1);
    }
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static void measure(weir_engine *engine, const char *path, const char *accept, int looks)
{
    static double took[MOST_LOOKS];
    weir_page page;
    weir_held before, after;
    for (int i = 0; i < 3; i++) (void)weir_page_get(weir_engine_area(engine), path, accept, &page);
    weir_held_now(engine, &before);
    for (int i = 0; i < looks; i++) {
        double from = now_ms();
        if (!weir_page_get(weir_engine_area(engine), path, accept, &page) || page.http != 200) exit(1);
        took[i] = now_ms() - from;
    }
    weir_held_now(engine, &after);
    qsort(took, (size_t)looks, sizeof *took, compare);
    printf("%-12s %-28s %9zu bytes  median %.2f ms  best %.2f  worst %.2f  allocations %llu\n", path,
           accept == NULL ? "" : accept, page.length, took[looks / 2], took[0], took[looks - 1],
           (unsigned long long)(after.allocations - before.allocations));
}

int main(int argc, char **argv)
{
    static struct fake fake;
    char area[64];
    int others = argc > 1 ? atoi(argv[1]) : 0, looks = argc > 2 ? atoi(argv[2]) : 200;
    if (looks < 1 || looks > MOST_LOOKS) looks = 200;
    snprintf(area, sizeof area, "/dev/shm/bench-web-%ld.area", (long)getpid());
    start_others(others, area);
    open_engine(&fake, others > 0 ? area : NULL);
    call_everything(&fake);
    printf("%d pools, %d labels each, %d workers\n", CLIENTS * BACKENDS, LABELS, 1 + others);
    measure(fake.engine, "/metrics", NULL, looks);
    measure(fake.engine, "/metrics", "application/openmetrics-text", looks);
    measure(fake.engine, "/health", NULL, looks);
    measure(fake.engine, "/stats.json", NULL, looks);
    measure(fake.engine, "/calls.json", NULL, looks);
    fake_free(&fake);
    unlink(area);
    return 0;
}
