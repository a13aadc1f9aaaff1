/* Several processes over one mapped area, as an nginx with workers is: one cap, one breaker, one set of
 * counters, also when a worker dies in the middle. Each worker is this program started again, with an
 * engine of its own. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
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

enum { WORKERS = 4, MAX = 8, EACH = 6, BURST_MS = 200, IDLE_MS = 40, PROBE_MS = 700 };

enum order {
    RUN = 0, /* in bursts, half of the workers at a time */
    PRESS,   /* all the time */
    REST,
    FAIL, /* calls that tell of an unwell server */
    STOP
};

/* What the test and its workers tell each other, in a file both have mapped. */
struct board {
    _Atomic int order[WORKERS];
    _Atomic long ok[WORKERS], refused[WORKERS], other[WORKERS], running[WORKERS];
};

struct fixture {
    struct server *server;
    struct harness h; /* the test's own engine on the area: it only looks */
    struct board *board;
    char area[128], paper[128];
    pid_t workers[WORKERS];
    long sampled_most, counted[4];
};

static struct board *map_board(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct board)) != 0) abort();
    void *memory = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) abort();
    return memory;
}

static void set_options(weir_options *options, weir_backend *backend, weir_client *client, const char *area,
                        const char *conninfo)
{
    *backend = (weir_backend){.name = "primary", .conninfo = conninfo};
    *client = (weir_client){
        .name = "service", .kind = WEIR_SERVICE, .user = "app_service", .bypass_rls = true, .max = MAX};
    weir_options_defaults(options);
    options->name = "shared";
    options->backends = backend;
    options->clients = client;
    options->backend_count = options->client_count = 1;
    options->area_path = area;
    options->timeout_ns = SECONDS(3);
    options->idle_timeout_ns = MS(IDLE_MS); /* what one does not need, another gets */
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

static void begin_call(struct worker *w);

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
    bool fail = w->board->order[w->number] == FAIL;
    weir_statement statement = {.sql = fail ? "select fails()" : "select pg_sleep(0.02)"};
    weir_request request = {.client = "service", .context = "work", .notify = on_end, .user = w};
    weir_call *call;
    w->at_work++;
    if (weir_submit(w->engine, &request, &statement, 1, &call, NULL) != WEIR_OK) _exit(4);
}

static void on_tick(uv_timer_t *timer)
{
    struct worker *w = timer->data;
    enum order order = (enum order)w->board->order[w->number];
    bool burst = (uv_hrtime() / MS(BURST_MS) + (uint64_t)w->number) % 2 == 0;
    while ((order == PRESS || order == FAIL || (order == RUN && burst)) && w->at_work < EACH) begin_call(w);
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
    set_options(&options, &backend, &client, argv[3], argv[4]);
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

/* ---- the test's side ------------------------------------------------------------------------- */

static void start_worker(struct fixture *f, int number)
{
    char digit[12], conninfo[512];
    snprintf(digit, sizeof digit, "%d", number);
    snprintf(conninfo, sizeof conninfo, "%s", server_conninfo(f->server, NULL));
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "worker", "worker", f->paper, f->area, conninfo, digit, (char *)NULL);
        _exit(127);
    }
    f->workers[number] = pid;
}

static int start(void **state)
{
    static struct fixture fixture;
    struct fixture *f = &fixture;
    f->server = server_start(NULL);
    harness_schema(f->server);
    server_exec(f->server, "create function fails() returns text language plpgsql as"
                           " $$ begin raise exception 'full' using errcode = '53200'; end $$");
    *state = f;
    return 0;
}

/* Whatever became of the test, its workers end with it. */
static int end_workers(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < WORKERS; i++) {
        if (f->workers[i] == 0) continue;
        kill(f->workers[i], SIGKILL);
        waitpid(f->workers[i], NULL, 0);
        f->workers[i] = 0;
    }
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    return 0;
}

static void open_all(struct fixture *f)
{
    snprintf(f->area, sizeof f->area, "%s/area", server_socket_dir(f->server));
    snprintf(f->paper, sizeof f->paper, "%s/board", server_socket_dir(f->server));
    unlink(f->area);
    unlink(f->paper);
    f->board = map_board(f->paper);
    f->sampled_most = 0;
    memset(f->counted, 0, sizeof f->counted);
    for (int i = 0; i < WORKERS; i++) start_worker(f, i);
    harness_prepare(&f->h, f->server, NULL);
    f->h.clients[SERVICE].max = MAX;
    f->h.options.area_path = f->area;
    f->h.options.name = "shared";
    f->h.options.breaker = (weir_breaker_config){0};
    weir_breaker_defaults(&f->h.options.breaker);
    weir_budget_defaults(&f->h.options.budget);
    f->h.options.probe_interval_ns = MS(PROBE_MS);
    harness_open(&f->h);
}

static void order_all(struct fixture *f, enum order order)
{
    for (int i = 0; i < WORKERS; i++) f->board->order[i] = order;
}

/* The fixture's own engine has no calls of its own to agree with the counters, which are everybody's. */
static void close_all(struct fixture *f)
{
    order_all(f, STOP);
    for (int i = 0; i < WORKERS; i++) {
        int status = 0;
        if (f->workers[i] == 0) continue;
        assert_int_equal(waitpid(f->workers[i], &status, 0), f->workers[i]);
        f->workers[i] = 0;
        assert_int_equal(status, 0);
    }
    harness_close(&f->h);
    munmap(f->board, sizeof *f->board);
}

static long figure(struct fixture *f, const char *group, const char *name)
{
    return harness_stat(&f->h, "service@primary", group, name);
}

static long sessions(struct fixture *f)
{
    return server_ask_number(f->server,
                             "select count(*) from pg_stat_activity where usename = 'app_service'");
}

/* Sessions that are there now and a moment later: one whose client has left needs some time to go. */
static long lasting_sessions(struct fixture *f)
{
    char pids[1024], sql[1200];
    snprintf(pids, sizeof pids, "%s",
             server_ask(f->server, "select coalesce(string_agg(pid::text, ','), '0')"
                                   " from pg_stat_activity where usename = 'app_service'"));
    harness_turn(&f->h, 30);
    snprintf(sql, sizeof sql, "select count(*) from pg_stat_activity where pid in (%s)", pids);
    return server_ask_number(f->server, sql);
}

/* Samples for so long; the cap must hold in every one, and no counter may go back. */
static void watch_the_cap(struct fixture *f, int ms)
{
    static const char *const counters[] = {"started", "ok", "failed", "refused"};
    for (uint64_t until = uv_hrtime() + MS(ms); uv_hrtime() < until;) {
        long now = lasting_sessions(f);
        assert_in_range(now, 0, MAX);
        assert_in_range(figure(f, "connections", "open"), 0, MAX);
        if (now > f->sampled_most) f->sampled_most = now;
        for (int i = 0; i < 4; i++) {
            long count = figure(f, "calls", counters[i]);
            if (count < f->counted[i])
                fail_msg("%s went back from %ld to %ld", counters[i], f->counted[i], count);
            f->counted[i] = count;
        }
    }
}

static long sum(const _Atomic long *each)
{
    long all = 0;
    for (int i = 0; i < WORKERS; i++) all += each[i];
    return all;
}

static bool all_have_worked(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < WORKERS; i++) {
        if (f->workers[i] != 0 && f->board->ok[i] < 20) return false;
    }
    return true;
}

static bool all_rest(void *arg)
{
    return sum(((struct fixture *)arg)->board->running) == 0;
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void four_workers_together_never_pass_the_cap_and_all_get_their_turn(void **state)
{
    struct fixture *f = *state;
    open_all(f);
    assert_true(harness_until(&f->h, all_have_worked, f, 10000));
    watch_the_cap(f, 700);
    order_all(f, PRESS);
    watch_the_cap(f, 300);
    assert_in_range(f->sampled_most, MAX / 2, MAX); /* under pressure, and never above */
    order_all(f, REST);
    assert_true(harness_until(&f->h, all_rest, f, 5000));
    assert_int_equal(sum(f->board->other), 0);
    assert_int_equal(figure(f, "calls", "ok"), sum(f->board->ok));
    assert_int_equal(figure(f, "calls", "started"), sum(f->board->ok));
    close_all(f);
}

static bool dead_is_reaped(void *arg)
{
    struct fixture *f = arg;
    return figure(f, "connections", "open") == sessions(f) &&
           figure(f, "connections", "in_flight") == sum(f->board->running);
}

static void what_a_killed_worker_held_is_free_again_within_three_seconds(void **state)
{
    struct fixture *f = *state;
    open_all(f);
    assert_true(harness_until(&f->h, all_have_worked, f, 10000));
    watch_the_cap(f, 200);
    kill(f->workers[1], SIGKILL);
    waitpid(f->workers[1], NULL, 0);
    f->workers[1] = 0;
    f->board->running[1] = 0;
    f->h.died_with_others = MAX;
    f->sampled_most = 0;
    uint64_t killed = uv_hrtime();
    watch_the_cap(f, 300);
    order_all(f, REST);
    assert_true(harness_until(&f->h, all_rest, f, 5000));
    assert_true(harness_until(&f->h, dead_is_reaped, f, 5000));
    assert_true(uv_hrtime() - killed < SECONDS(3));
    long counted = figure(f, "calls", "ok");
    assert_in_range(counted, sum(f->board->ok), sum(f->board->ok) + EACH);
    order_all(f, PRESS);
    watch_the_cap(f, 500);
    assert_in_range(f->sampled_most, MAX / 2, MAX);
        /* under pressure, and never above */ /* the others have its places */
    order_all(f, RUN);
    start_worker(f, 1);
    watch_the_cap(f, 300);
    close_all(f);
}

static bool all_are_refused(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < WORKERS; i++) {
        if (f->board->refused[i] == 0) return false;
    }
    return true;
}

static bool works_again(void *arg)
{
    struct fixture *f = arg;
    return strcmp(harness_breaker(&f->h, "service@primary"), "CLOSED") == 0;
}

static void the_breaker_one_worker_opens_is_open_for_all_and_closes_for_all(void **state)
{
    struct fixture *f = *state;
    open_all(f);
    assert_true(harness_until(&f->h, all_have_worked, f, 10000));
    order_all(f, REST);
    assert_true(harness_until(&f->h, all_rest, f, 5000));
    weir_force_breaker(f->h.engine, NULL, WEIR_DISABLED, NULL); /* and back: with a fresh window */
    weir_force_breaker(f->h.engine, NULL, WEIR_CLOSED, NULL);
    f->board->order[2] = FAIL;
    assert_true(harness_until(&f->h, all_have_worked, f, 10000));
    while (strcmp(harness_breaker(&f->h, "service@primary"), "OPEN") != 0) harness_turn(&f->h, 1);
    order_all(f, RUN);
    assert_true(harness_until(&f->h, all_are_refused, f, 2000));
    assert_true(harness_until(&f->h, works_again, f, 10000));
    close_all(f);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(four_workers_together_never_pass_the_cap_and_all_get_their_turn,
                                  end_workers),
        cmocka_unit_test_teardown(what_a_killed_worker_held_is_free_again_within_three_seconds, end_workers),
        cmocka_unit_test_teardown(the_breaker_one_worker_opens_is_open_for_all_and_closes_for_all,
                                  end_workers),
    };
    if (argc == 6 && strcmp(argv[1], "worker") == 0) return work(argv);
    return cmocka_run_group_tests(tests, start, stop);
}
