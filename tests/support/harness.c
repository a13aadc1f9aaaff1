#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <uv.h>

/* A loop that turns this often notices a condition soon; a gap much longer is a time in which it could not
 * turn. */
enum { TICK_MS = 5, GAP_MS = 15, PATIENCE_MS = 30000 };

/* ---- the database ---------------------------------------------------------------------------- */

void harness_schema(struct server *server)
{
    server_exec(server,
                "create role web_anon nologin;"
                "create role app_anon login noinherit password 'anon-secret';"
                "grant web_anon to app_anon;"
                "create role app_service login bypassrls password 'service-secret';"
                "create table contacts (id serial primary key, owner text not null, name text not null);"
                "alter table contacts enable row level security;"
                "alter table contacts force row level security;"
                "create policy own on contacts using"
                " (owner = nullif(current_setting('request.jwt.claims', true), '')::json->>'sub');"
                "insert into contacts (owner, name) select 'u' || u, 'friend ' || f"
                " from generate_series(0, 49) u, generate_series(1, 3) f;"
                "create table ledger (id text not null, note text);"
                "create index on ledger (id);"
                "grant all on contacts, ledger to web_anon, app_service;"
                "grant usage on sequence contacts_id_seq to web_anon, app_service;"
                "grant temporary on database postgres to public;"
                "grant create on schema public to app_service;");
}

/* ---- counting -------------------------------------------------------------------------------- */

static size_t count_entries(const char *path)
{
    DIR *folder = opendir(path);
    size_t count = 0;
    assert_non_null(folder);
    while (readdir(folder) != NULL) count++;
    closedir(folder);
    return count - 2;
}

size_t count_fds(void)
{
    return count_entries("/proc/self/fd") - 1; /* without the folder's own */
}

size_t count_threads(void)
{
    size_t all = count_entries("/proc/self/task");
#ifdef __SANITIZE_THREAD__
    return all > 1 ? all - 1
                   : all; /* ThreadSanitizer's own, which starts with the first thread of ours and stays */
#else
    return all;
#endif
}

/* ---- opening --------------------------------------------------------------------------------- */

void harness_prepare(struct harness *h, struct server *server, const char *conninfo)
{
    *h = (struct harness){.server = server};
    if (conninfo == NULL) conninfo = server_conninfo(server, "application_name=idle");
    snprintf(h->conninfo, sizeof h->conninfo, "%s", conninfo);
    h->backend = (weir_backend){.name = "primary", .conninfo = h->conninfo};
    h->clients[SERVICE] = (weir_client){.name = "service",
                                        .kind = WEIR_SERVICE,
                                        .user = "app_service",
                                        .password = "service-secret",
                                        .bypass_rls = true,
                                        .max = 10};
    h->clients[ANON] = (weir_client){.name = "anon",
                                     .kind = WEIR_ANON,
                                     .user = "app_anon",
                                     .password = "anon-secret",
                                     .role = "web_anon",
                                     .max = 10};
    weir_options_defaults(&h->options);
    h->options.name = "fault";
    h->options.health_interval_ns = 0;
    h->options.backoff_base_ns = MS(2);
    h->options.backoff_cap_ns = MS(50);
    h->options.breaker.min_calls = 1000000;
    h->options.budget.floor = 100000;
    h->options.budget.cap = 200000;
}

static void ticked(uv_timer_t *timer)
{
    struct harness *h = timer->data;
    uint64_t now = uv_hrtime(), gap = now - h->ticked_ns;
    if (gap > MS(GAP_MS)) h->lags[h->lag_count++ % HARNESS_LAGS] = (struct lag){now, gap - MS(TICK_MS)};
    h->ticked_ns = now;
}

/* libuv keeps two descriptors for signals from the first loop on, for good. */
static void let_libuv_settle(void)
{
    uv_loop_t loop;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void make_loop(struct harness *h)
{
    h->loop = malloc(sizeof *h->loop);
    h->ticker = malloc(sizeof *h->ticker);
    assert_true(h->loop != NULL && h->ticker != NULL);
    assert_int_equal(uv_loop_init(h->loop), 0);
    uv_timer_init(h->loop, h->ticker);
    h->ticker->data = h;
    h->ticked_ns = uv_hrtime();
    uv_timer_start(h->ticker, ticked, TICK_MS, TICK_MS);
}

static void close_loop(struct harness *h)
{
    weir_uv_free(h->uv);
    uv_close((uv_handle_t *)h->ticker, NULL);
    uv_run(h->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(h->loop), 0);
    free(h->loop);
    free(h->ticker);
}

static void join_options(struct harness *h)
{
    h->options.backends = &h->backend;
    h->options.backend_count = 1;
    h->options.clients = h->clients;
    h->options.client_count = CLIENTS;
}

int harness_try(struct harness *h, char *why)
{
    weir_engine *engine = NULL;
    join_options(h);
    make_loop(h);
    assert_int_equal(weir_uv_new(&h->uv, h->loop, 4711), WEIR_OK);
    int code = weir_open(&engine, &h->options, weir_uv_hooks(h->uv), weir_driver_pg(), why);
    if (code != WEIR_OK) assert_null(engine);
    weir_free(engine);
    close_loop(h);
    return code;
}

void harness_open(struct harness *h)
{
    char why[WEIR_WHY_MAX] = "";
    join_options(h);
    if (server_running(h->server)) server_ask(h->server, "select 1"); /* the fixture's own is no leak */
    let_libuv_settle();
    h->fds = count_fds();
    h->threads = count_threads();
    make_loop(h);
    assert_int_equal(weir_uv_new(&h->uv, h->loop, 4711), WEIR_OK);
    int code = weir_open(&h->engine, &h->options, weir_uv_hooks(h->uv), weir_driver_pg(), why);
    assert_string_equal(why, "");
    assert_int_equal(code, WEIR_OK);
    weir_uv_bind(h->uv, h->engine);
}

/* ---- turning --------------------------------------------------------------------------------- */

bool harness_until(struct harness *h, bool (*condition)(void *arg), void *arg, int ms)
{
    uint64_t until = uv_hrtime() + MS(ms);
    while (!condition(arg)) {
        if (uv_hrtime() > until) return false;
        uv_run(h->loop, UV_RUN_ONCE);
    }
    return true;
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

void harness_turn(struct harness *h, int ms)
{
    harness_until(h, never, NULL, ms);
}

static bool none_runs(void *arg)
{
    return ((struct harness *)arg)->running == 0;
}

void harness_wait(struct harness *h)
{
    if (harness_until(h, none_runs, h, PATIENCE_MS)) return;
    for (const struct job *job = h->jobs; job != NULL; job = job->next) {
        if (job->call != NULL)
            fprintf(stderr, "'%s' has not ended, step %zu\n", job->request.context, job->at);
    }
    fail_msg("%zu jobs have not ended", h->running);
}

/* ---- jobs ------------------------------------------------------------------------------------ */

__attribute__((format(printf, 1, 0))) static char *text_of(const char *format, va_list arguments)
{
    char *text = NULL;
    assert_true(vasprintf(&text, format, arguments) >= 0);
    return text;
}

static struct job *new_job(struct harness *h, size_t client, const char *context, bool unit)
{
    struct job *job = calloc(1, sizeof *job);
    assert_non_null(job);
    job->harness = h;
    job->unit = unit;
    job->request.client = h->clients[client].name;
    job->request.context = strdup(context);
    job->next = h->jobs;
    h->jobs = job;
    return job;
}

struct job *harness_call(struct harness *h, size_t client, const char *context)
{
    return new_job(h, client, context, false);
}

struct job *harness_unit(struct harness *h, size_t client, const char *context)
{
    return new_job(h, client, context, true);
}

void job_claims(struct job *job, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    job->request.claims = text_of(format, arguments);
    va_end(arguments);
}

void job_step(struct job *job, const char *format, ...)
{
    va_list arguments;
    assert_true(job->step_count < JOB_STEPS);
    va_start(arguments, format);
    job->steps[job->step_count++].sql = text_of(format, arguments);
    va_end(arguments);
}

void job_value(struct job *job, const char *format, ...)
{
    struct step *step = &job->steps[job->step_count - 1];
    va_list arguments;
    assert_true(step->value_count < JOB_VALUES);
    va_start(arguments, format);
    step->values[step->value_count++] = text_of(format, arguments);
    va_end(arguments);
}

static void free_job(struct job *job)
{
    for (size_t i = 0; i < job->step_count; i++) {
        for (size_t v = 0; v < job->steps[i].value_count; v++) free(job->steps[i].values[v]);
        free(job->steps[i].sql);
    }
    free((void *)(uintptr_t)job->request.context);
    free((void *)(uintptr_t)job->request.claims);
    free(job);
}

void harness_forget_jobs(struct harness *h)
{
    struct job *kept = NULL, *next;
    for (struct job *job = h->jobs; job != NULL; job = next) {
        next = job->next;
        if (job->call == NULL) {
            free_job(job);
        } else {
            job->next = kept;
            kept = job;
        }
    }
    h->jobs = kept;
}

/* ---- a job's life ---------------------------------------------------------------------------- */

static weir_statement statement_of(const struct step *step)
{
    return (weir_statement){.sql = step->sql,
                            .values = (const char *const *)step->values,
                            .count = step->value_count};
}

static void keep_answer(struct job *job, size_t step, size_t result_index)
{
    const weir_result *result = weir_call_result(job->call, result_index);
    const char *value = weir_result_value(result, 0, 0, NULL);
    job->rows[step] = weir_result_rows(result);
    snprintf(job->answers[step], JOB_ANSWER, "%s", value == NULL ? "" : value);
    if (job->on_reply != NULL) job->on_reply(job, step);
}

/* How long past its deadline, less the times in which the loop did not turn because the machine or the
 * test was busy. */
static long late_ms(const struct harness *h, uint64_t deadline, uint64_t now)
{
    uint64_t kept = now - h->ticked_ns > MS(GAP_MS) ? now - h->ticked_ns : 0;
    if (now <= deadline) return 0;
    for (size_t i = 0; i < HARNESS_LAGS; i++) {
        if (h->lags[i].at_ns > deadline) kept += h->lags[i].length_ns;
    }
    return now - deadline > kept ? (long)((now - deadline - kept) / 1000000) : 0;
}

static void job_ended(struct job *job)
{
    struct harness *h = job->harness;
    const weir_error *error = weir_call_error(job->call);
    uint64_t now = uv_hrtime();
    uint64_t timeout = job->request.timeout_ns != 0 ? job->request.timeout_ns : h->options.timeout_ns;
    long late = late_ms(h, job->started_ns + timeout, now);
    job->endings++;
    job->took_ns = now - job->started_ns;
    job->attempts = weir_call_attempt(job->call);
    job->outcome = WEIR_OUTCOME_COMMITTED;
    if (error != NULL) {
        job->error = *error;
        job->code = error->code;
        job->outcome = error->outcome;
    } else if (!job->unit) {
        for (size_t i = 0; i < job->step_count; i++) keep_answer(job, i, i);
    }
    if (late > h->late_ms) h->late_ms = late;
    job->ended_as = ++h->ended;
    h->running--;
    weir_call_free(job->call);
    job->call = NULL;
}

static void send_step(struct job *job)
{
    char why[WEIR_WHY_MAX] = "";
    weir_statement statement = statement_of(&job->steps[job->at]);
    int code = weir_unit_send(job->call, &statement, 1, why);
    assert_string_equal(why, "");
    assert_int_equal(code, WEIR_OK);
}

static void go_on(struct job *job)
{
    if (job->at < job->step_count) {
        send_step(job);
    } else if (!job->pause) {
        assert_int_equal(weir_unit_finish(job->call, job->finish), WEIR_OK);
    }
}

static void on_notify(void *user, weir_call *call)
{
    struct job *job = user;
    assert_ptr_equal(call, job->call);
    switch (weir_call_status(call)) {
    case WEIR_READY:
        job->runs++;
        job->at = 0;
        if (job->on_ready != NULL) job->on_ready(job);
        go_on(job);
        break;
    case WEIR_REPLIED:
        if (weir_call_error(call) != NULL && !job->swallow) {
            assert_int_equal(weir_unit_finish(call, WEIR_FAILED), WEIR_OK);
            break;
        }
        if (weir_call_error(call) == NULL) keep_answer(job, job->at, 0);
        job->at++;
        go_on(job);
        break;
    case WEIR_ENDED:
        job_ended(job);
        break;
    case WEIR_WAITING:
        fail_msg("told of a call that waits");
        break;
    }
}

void job_start(struct job *job)
{
    struct harness *h = job->harness;
    char why[WEIR_WHY_MAX] = "";
    weir_statement statements[JOB_STEPS];
    job->request.notify = on_notify;
    job->request.user = job;
    for (size_t i = 0; i < job->step_count; i++) statements[i] = statement_of(&job->steps[i]);
    job->started_ns = uv_hrtime();
    h->running++;
    int code = job->unit
                   ? weir_begin(h->engine, &job->request, &job->call, why)
                   : weir_submit(h->engine, &job->request, statements, job->step_count, &job->call, why);
    assert_string_equal(why, "");
    assert_int_equal(code, WEIR_OK);
}

static bool has_ended(void *arg)
{
    return ((struct job *)arg)->endings > 0;
}

void harness_run(struct harness *h, struct job *job)
{
    job_start(job);
    if (!harness_until(h, has_ended, job, PATIENCE_MS)) fail_msg("'%s' has not ended", job->request.context);
}

struct job *harness_query(struct harness *h, const char *sql)
{
    struct job *job = harness_call(h, SERVICE, "query");
    job_step(job, "%s", sql);
    harness_run(h, job);
    return job;
}

void job_print(const struct job *job)
{
    const weir_error *e = &job->error;
    fprintf(stderr, "'%s': %s, %s, %s in %s, %u attempts, %.1f ms, [%s] %s%s%s\n", job->request.context,
            weir_code_name(job->code), weir_class_name(e->class_), weir_outcome_name(job->outcome),
            weir_phase_name(e->phase), job->attempts, (double)job->took_ns / 1e6, e->sqlstate, e->message,
            e->evidence[0] != '\0' ? " | " : "", e->evidence);
}

void job_assert(const struct job *job, weir_code code)
{
    if (job->code != code) job_print(job);
    assert_int_equal(job->code, code);
}

/* ---- figures --------------------------------------------------------------------------------- */

static char *json_of(size_t (*write)(weir_engine *engine, char *out, size_t size), weir_engine *engine)
{
    size_t size = write(engine, NULL, 0) + 4096;
    char *text = malloc(size);
    assert_non_null(text);
    assert_true(write(engine, text, size) < size);
    return text;
}

static size_t all_calls(weir_engine *engine, char *out, size_t size)
{
    return weir_calls_json(engine, 1024, out, size);
}

static size_t all_events(weir_engine *engine, char *out, size_t size)
{
    return weir_events_json(engine, 0, out, size);
}

char *harness_stats(struct harness *h)
{
    return json_of(weir_stats_json, h->engine);
}

char *harness_health(struct harness *h)
{
    return json_of(weir_health_json, h->engine);
}

char *harness_calls(struct harness *h)
{
    return json_of(all_calls, h->engine);
}

char *harness_events(struct harness *h)
{
    return json_of(all_events, h->engine);
}

/* What follows `"pool":"POOL"`, then `"GROUP":{`, then `"NAME":`. */
static const char *figure(const char *json, const char *pool, const char *group, const char *name)
{
    char wanted[3][96];
    snprintf(wanted[0], sizeof wanted[0], "\"pool\":\"%s\"", pool);
    snprintf(wanted[1], sizeof wanted[1], "\"%s\":{", group);
    snprintf(wanted[2], sizeof wanted[2], "\"%s\":", name);
    const char *at = json;
    for (int i = 0; i < 3; i++) {
        at = strstr(at, wanted[i]);
        if (at == NULL) fail_msg("no %s in %s", wanted[i], json);
        at += strlen(wanted[i]);
    }
    return at;
}

long harness_stat(struct harness *h, const char *pool, const char *group, const char *name)
{
    char *json = harness_stats(h);
    long number = strtol(figure(json, pool, group, name), NULL, 10);
    free(json);
    return number;
}

const char *harness_breaker(struct harness *h, const char *pool)
{
    static char state[32];
    char *json = harness_stats(h);
    sscanf(figure(json, pool, "breaker", "state"), "\"%31[A-Z_]", state);
    free(json);
    return state;
}

/* ---- closing --------------------------------------------------------------------------------- */

static bool nothing_held(void *arg)
{
    struct weir_held held;
    weir_held_now(((struct harness *)arg)->engine, &held);
    return held.calls + held.in_flight + held.leased + held.connecting + held.canceling + held.timers +
               held.waiting ==
           0;
}

static void check_rest(struct harness *h)
{
    struct weir_held held;
    if (harness_until(h, nothing_held, h, 15000)) return;
    weir_held_now(h->engine, &held);
    fail_msg("held at rest: %zu calls, %zu in flight, %zu leased, %zu connecting, %zu canceling, %zu timers, "
             "%zu waiting",
             held.calls, held.in_flight, held.leased, held.connecting, held.canceling, held.timers,
             held.waiting);
}

static long number_at(const char *json, const char *pool, const char *group, const char *name)
{
    return strtol(figure(json, pool, group, name), NULL, 10);
}

static void check_sums(struct harness *h, const char *pool)
{
    static const char *const ends[] = {"ok", "failed", "refused", "timeout", "unknown", "cancelled"};
    char *json = harness_stats(h);
    long sum = 0;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) sum += number_at(json, pool, "calls", ends[i]);
    assert_int_equal(number_at(json, pool, "calls", "started"),
                     sum + number_at(json, pool, "calls", "abandoned"));
    assert_in_range(number_at(json, pool, "calls", "abandoned"), 0, h->died_with_others);
    assert_in_range(sum - number_at(json, pool, "duration_ms", "count"), 0, h->died_with_others);
    assert_in_range(number_at(json, pool, "events", "opened") - number_at(json, pool, "closed", "all") -
                        number_at(json, pool, "connections", "open"),
                    0, h->died_with_others);
    free(json);
}

static bool drained(void *arg)
{
    return weir_drained(((struct harness *)arg)->engine);
}

/* A joined thread is in /proc for a moment longer, and so is what a proxy's thread has yet to close. */
static void check_gone(const struct harness *h)
{
    for (int tries = 0; tries < 200 && (count_fds() > h->fds || count_threads() > h->threads); tries++)
        uv_sleep(10);
    assert_int_equal(count_threads(), h->threads);
    assert_int_equal(count_fds(), h->fds);
}

void harness_close_blind(struct harness *h)
{
    harness_wait(h);
    for (const struct job *job = h->jobs; job != NULL; job = job->next)
        assert_int_equal(job->endings, job->started_ns != 0);
    assert_true(h->late_ms <= 100);
    harness_forget_jobs(h);
    check_rest(h);
    check_sums(h, "service@primary");
    check_sums(h, "anon@primary");
    weir_drain(h->engine, SECONDS(2));
    assert_true(harness_until(h, drained, h, 3000));
    weir_free(h->engine);
    close_loop(h);
    check_gone(h);
}

void harness_cut_off(struct harness *h)
{
    weir_free(h->engine);
    for (const struct job *job = h->jobs; job != NULL; job = job->next)
        assert_int_equal(job->endings, job->started_ns != 0);
    close_loop(h);
    check_gone(h);
}

void harness_close(struct harness *h)
{
    char sql[160];
    harness_close_blind(h);
    snprintf(sql, sizeof sql,
             "select not exists (select from pg_stat_activity where usename like 'app\\_%%')");
    assert_true(server_wait(h->server, sql, 3000));
}
