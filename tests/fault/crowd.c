/* The workers' side and the test's; see crowd.h. */
#include "crowd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

enum { IDLE_MS = 40, PROBE_MS = 700, WORKED = 20 };

static struct board *map_board(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct board)) != 0) abort();
    void *memory = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) abort();
    return memory;
}

static void set_options(weir_options *options, weir_backend *backend, weir_client *client,
                        const struct board *board, const char *area, const char *conninfo)
{
    *backend = (weir_backend){.name = "primary", .conninfo = conninfo};
    *client = (weir_client){.name = "service",
                            .kind = WEIR_SERVICE,
                            .user = "app_service",
                            .bypass_rls = true,
                            .max = board->max};
    weir_options_defaults(options);
    options->name = "shared";
    options->backends = backend;
    options->clients = client;
    options->backend_count = options->client_count = 1;
    options->area_path = area;
    options->timeout_ns = SECONDS(3);
    options->idle_timeout_ns = MS(IDLE_MS); /* what one does not need, another gets */
    options->lifetime_ns = board->lifetime_ns;
    options->connect_at_once = board->connect_at_once;
    options->breaker = board->breaker;
    options->health_interval_ns = 0;
    options->retries = 0;
    options->probe_interval_ns = MS(PROBE_MS);
}

/* ---- a worker -------------------------------------------------------------------------------- */

struct worker {
    weir_engine *engine;
    struct board *board;
    int number;
    int at_work;
};

static void on_end(void *user, weir_call *call)
{
    struct worker *w = user;
    const weir_error *error = weir_call_error(call);
    if (error == NULL)
        w->board->ok[w->number]++;
    else if (error->code == WEIR_CALL_BREAKER_OPEN)
        w->board->refused[w->number]++;
    else
        w->board->other[w->number]++;
    weir_call_free(call);
    w->at_work--;
}

static void begin_call(struct worker *w)
{
    static const char *const work[] = {
        [PRESS] = "select pg_sleep(0.02)", [FAIL] = "select fails()", [HOLD] = "select pg_sleep(60)"};
    int order = w->board->order[w->number];
    weir_statement statement = {.sql = work[order == FAIL || order == HOLD ? order : PRESS]};
    weir_request request = {.client = "service", .context = "work", .notify = on_end, .user = w};
    weir_call *call;
    w->at_work++;
    if (weir_submit(w->engine, &request, &statement, 1, &call, NULL) != WEIR_OK) _exit(4);
}

static bool wants_work(const struct worker *w)
{
    bool burst = (uv_hrtime() / MS(CROWD_BURST_MS) + (uint64_t)w->number) % 2 == 0;
    int order = w->board->order[w->number];
    return order == PRESS || order == FAIL || order == HOLD || (order == RUN && burst);
}

static void on_tick(uv_timer_t *timer)
{
    struct worker *w = timer->data;
    while (wants_work(w) && w->at_work < (int)w->board->each) begin_call(w);
    w->board->running[w->number] = w->at_work;
}

/* Never returns to cmocka: an exit code is all it says. */
static int work(char **argv)
{
    struct worker w = {.board = map_board(argv[2]), .number = atoi(argv[5])};
    weir_options options;
    weir_backend backend;
    weir_client client;
    weir_uv *uv;
    uv_loop_t loop;
    uv_timer_t tick;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    set_options(&options, &backend, &client, w.board, argv[3], argv[4]);
    if (uv_loop_init(&loop) != 0 || weir_uv_new(&uv, &loop, (uint64_t)getpid()) != WEIR_OK) return 2;
    if (weir_open(&w.engine, &options, weir_uv_hooks(uv), weir_driver_pg(), NULL) != WEIR_OK) return 3;
    weir_uv_bind(uv, w.engine);
    uv_timer_init(&loop, &tick);
    tick.data = &w;
    uv_timer_start(&tick, on_tick, 0, 2);
    while (w.board->order[w.number] != STOP || w.at_work > 0) uv_run(&loop, UV_RUN_ONCE);
    weir_drain(w.engine, SECONDS(1));
    while (!weir_drained(w.engine)) uv_run(&loop, UV_RUN_ONCE);
    weir_free(w.engine);
    weir_uv_free(uv);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop) == 0 ? 0 : 5;
}

int crowd_work(int argc, char **argv)
{
    return argc == 6 && strcmp(argv[1], "worker") == 0 ? work(argv) : -1;
}

/* ---- the test's side ------------------------------------------------------------------------- */

void crowd_prepare(struct crowd *crowd, struct server *server, int size)
{
    memset(crowd, 0, sizeof *crowd);
    crowd->server = server;
    crowd->size = size;
    snprintf(crowd->area, sizeof crowd->area, "%s/area", server_socket_dir(server));
    snprintf(crowd->paper, sizeof crowd->paper, "%s/board", server_socket_dir(server));
    unlink(crowd->area);
    unlink(crowd->paper);
    crowd->board = map_board(crowd->paper);
    crowd->board->max = 8;
    crowd->board->each = 6;
    crowd->board->connect_at_once = 4;
    weir_breaker_defaults(&crowd->board->breaker);
}

void crowd_start(struct crowd *crowd, int number)
{
    char digit[12];
    snprintf(digit, sizeof digit, "%d", number);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "worker", "worker", crowd->paper, crowd->area, crowd->conninfo, digit,
              (char *)NULL);
        _exit(127);
    }
    crowd->workers[number] = pid;
}

void crowd_open(struct crowd *crowd, const char *conninfo)
{
    if (conninfo == NULL) conninfo = server_conninfo(crowd->server, NULL);
    snprintf(crowd->conninfo, sizeof crowd->conninfo, "%s", conninfo);
    harness_prepare(&crowd->h, crowd->server, conninfo);
    crowd->h.clients[SERVICE].max = crowd->board->max;
    crowd->h.options.area_path = crowd->area;
    crowd->h.options.name = "shared";
    crowd->h.options.breaker = crowd->board->breaker;
    crowd->h.options.connect_at_once = crowd->board->connect_at_once;
    weir_budget_defaults(&crowd->h.options.budget);
    crowd->h.options.probe_interval_ns = MS(PROBE_MS);
    harness_open(&crowd->h); /* before the others: it remembers what was open in this process */
    for (int i = 0; i < crowd->size; i++) crowd_start(crowd, i);
}

void crowd_kill(struct crowd *crowd, int number)
{
    kill(crowd->workers[number], SIGKILL);
    waitpid(crowd->workers[number], NULL, 0);
    crowd->workers[number] = 0;
    crowd->board->running[number] = 0;
    crowd->h.died_with_others += crowd->board->each;
}

void crowd_order(struct crowd *crowd, enum order order)
{
    for (int i = 0; i < crowd->size; i++) crowd->board->order[i] = (int)order;
}

/* The own engine has no calls of its own to agree with the counters, which are everybody's. */
void crowd_close(struct crowd *crowd)
{
    crowd_order(crowd, STOP);
    for (int i = 0; i < crowd->size; i++) {
        int status = 0;
        if (crowd->workers[i] == 0) continue;
        assert_int_equal(waitpid(crowd->workers[i], &status, 0), crowd->workers[i]);
        crowd->workers[i] = 0;
        assert_int_equal(status, 0);
    }
    harness_close(&crowd->h);
    munmap(crowd->board, sizeof *crowd->board);
}

void crowd_end(struct crowd *crowd)
{
    for (int i = 0; i < CROWD_MOST; i++) {
        if (crowd->workers[i] == 0) continue;
        kill(crowd->workers[i], SIGKILL);
        waitpid(crowd->workers[i], NULL, 0);
        crowd->workers[i] = 0;
    }
}

long crowd_figure(struct crowd *crowd, const char *group, const char *name)
{
    return harness_stat(&crowd->h, "service@primary", group, name);
}

long crowd_sum(const struct crowd *crowd, const _Atomic long *each)
{
    long all = 0;
    for (int i = 0; i < crowd->size; i++) all += each[i];
    return all;
}

long crowd_sessions(const struct crowd *crowd)
{
    return server_ask_number(crowd->server,
                             "select count(*) from pg_stat_activity where usename = 'app_service'");
}

bool crowd_rests(void *arg)
{
    const struct crowd *crowd = arg;
    return crowd_sum(crowd, crowd->board->running) == 0;
}

bool crowd_has_worked(void *arg)
{
    const struct crowd *crowd = arg;
    for (int i = 0; i < crowd->size; i++) {
        if (crowd->workers[i] != 0 && crowd->board->ok[i] < WORKED) return false;
    }
    return true;
}

void crowd_forget(struct crowd *crowd)
{
    for (int i = 0; i < crowd->size; i++) crowd->board->ok[i] = 0;
}
