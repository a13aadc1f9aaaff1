/* See sim_fixture.h. */
#include "sim_fixture.h"

#include <stdio.h>
#include <string.h>

static void prepare_engine(struct sim_fixture *f)
{
    assert_int_equal(weir_sim_host_new(&f->host, f->sim), WEIR_OK);
    f->primary = weir_sim_server_named(f->sim, "primary");
    weir_options_defaults(&f->options);
    f->backends[0] = (weir_backend){.name = "primary", .conninfo = ""};
    f->backends[1] = (weir_backend){.name = "replica", .conninfo = ""};
    f->clients[0] = (weir_client){.name = "service", .kind = WEIR_SERVICE, .bypass_rls = true, .max = 10};
    f->clients[1] = (weir_client){.name = "anon", .kind = WEIR_ANON, .role = "web_anon", .max = 10};
    f->options.name = "sim";
    f->options.backends = f->backends;
    f->options.backend_count = 1;
    f->options.clients = f->clients;
    f->options.client_count = 2;
}

void sim_prepare(struct sim_fixture *f, uint64_t seed)
{
    memset(f, 0, sizeof *f);
    assert_int_equal(weir_sim_new(&f->sim, seed), WEIR_OK);
    prepare_engine(f);
}

void sim_prepare_guest(struct sim_fixture *f, struct sim_fixture *host)
{
    memset(f, 0, sizeof *f);
    f->sim = host->sim;
    f->guest = true;
    f->numbers = UINT64_C(1) << 40; /* of its own */
    prepare_engine(f);
}

void sim_open(struct sim_fixture *f)
{
    char why[WEIR_WHY_MAX] = "";
    int code = weir_open(&f->engine, &f->options, weir_sim_hooks(f->host), weir_sim_driver(f->sim), why);
    if (code != WEIR_OK) fail_msg("weir_open: %s", why);
    weir_sim_bind(f->host, f->engine);
}

/* ---- the load ---------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void *ctx)
{
    return weir_sim_now_ns(((struct sim_fixture *)ctx)->sim);
}

static void opened(void *ctx, uint64_t number, bool idempotent)
{
    weir_sim_write_opened(((struct sim_fixture *)ctx)->sim, number, idempotent);
}

static void closed(void *ctx, uint64_t number, weir_outcome outcome)
{
    weir_sim_write_closed(((struct sim_fixture *)ctx)->sim, number, outcome);
}

static void load_due(void *ctx)
{
    struct sim_fixture *f = ctx;
    weir_load_run(f->load);
    uint64_t due = weir_load_due_ns(f->load);
    if (due != UINT64_MAX) weir_sim_alarm_set(f->sim, &f->due, due, load_due, f);
}

static const char *const number_value[] = {weir_load_number};
static const weir_statement read_one[] = {{.sql = "select name from contacts"}};
static const weir_statement write_one[] = {
    {.sql = "insert into t values ($1)", .values = number_value, .count = 1}};
static const weir_statement read_and_write[] = {{.sql = "select 1"},
                                                {.sql = "update t set n = $1",
                                                 .values = number_value,
                                                 .count = 1},
                                                {.sql = "select 2"}};

void sim_load(struct sim_fixture *f, double per_second, unsigned seconds)
{
    char why[WEIR_WHY_MAX] = "";
    uint64_t now = weir_sim_now_ns(f->sim);
    if (f->tally == NULL) assert_int_equal(weir_tally_new(&f->tally, now, MS(10), NULL, 0, why), WEIR_OK);
    f->calls[0] =
        (weir_load_call){.request = {.client = "anon", .context = "read", .claims = "{}", .readonly = true},
                         .statements = read_one,
                         .statement_count = 1,
                         .weight = 4};
    f->calls[1] = (weir_load_call){.request = {.client = "service", .context = "write"},
                                   .statements = write_one,
                                   .statement_count = 1,
                                   .weight = 2,
                                   .writes = true};
    f->calls[2] = (weir_load_call){.request = {.client = "service", .context = "unit"},
                                   .statements = read_and_write,
                                   .statement_count = 3,
                                   .weight = 3,
                                   .unit = true,
                                   .writes = true};
    f->calls[3] = (weir_load_call){.request = {.client = "service", .context = "again", .idempotent = true},
                                   .statements = write_one,
                                   .statement_count = 1,
                                   .weight = 1,
                                   .writes = true};
    f->rate = (weir_load_rate){now, per_second};
    f->arrivals.calls = f->calls;
    f->arrivals.call_count = SIM_CALLS;
    f->arrivals.rates = &f->rate;
    f->arrivals.rate_count = 1;
    f->arrivals.poisson = true;
    f->arrivals.from_ns = now;
    f->arrivals.until_ns = now + SECONDS(seconds);
    f->arrivals.seed = weir_sim_random(f->sim);
    f->arrivals.numbers = &f->numbers;
    f->arrivals.now_ns = now_ns;
    f->arrivals.opened = opened;
    f->arrivals.closed = closed;
    f->arrivals.ctx = f;
    if (weir_load_new(&f->load, f->engine, f->tally, &f->arrivals, why) != WEIR_OK) fail_msg("load: %s", why);
    weir_sim_alarm_set(f->sim, &f->due, weir_load_due_ns(f->load), load_due, f);
}

weir_tally_counts sim_counts(struct sim_fixture *f)
{
    weir_tally_counts counts;
    assert_true(weir_tally_counts_of(f->tally, WEIR_TALLY_PHASES, &counts));
    return counts;
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

void sim_run_to(struct sim_fixture *f, uint64_t at_ns)
{
    assert_int_equal(weir_sim_run(f->sim, NULL, at_ns), WEIR_SIM_TIME);
}

void sim_fault(struct sim_fixture *f, weir_sim_fault fault)
{
    char why[WEIR_WHY_MAX] = "";
    if (weir_sim_fault_begin(f->primary, &fault, why) != WEIR_OK) fail_msg("fault: %s", why);
}

void sim_close(struct sim_fixture *f)
{
    weir_held held;
    if (f->load != NULL) assert_int_equal(weir_load_open(f->load), 0);
    weir_load_free(f->load);
    if (f->engine != NULL) {
        (void)weir_sim_run(f->sim, NULL,
                           weir_sim_now_ns(f->sim) + MS(9700)); /* connections are cleaned, no probe is due */
        weir_held_now(f->engine, &held);
        if (held.calls + held.in_flight + held.leased + held.waiting + held.timers > 0) {
            fail_msg("still held: %zu calls, %zu in flight, %zu leased, %zu waiting, %zu timers", held.calls,
                     held.in_flight, held.leased, held.waiting, held.timers);
        }
    }
    weir_free(f->engine);
    weir_tally_free(f->tally);
    weir_sim_alarm_clear(f->sim, &f->due);
    weir_sim_host_free(f->host);
    if (!f->guest) weir_sim_free(f->sim);
}

/* ---- single calls ------------------------------------------------------------------------------------------------- */

static void ended(void *user, weir_call *call)
{
    (void)call;
    *(volatile bool *)user = true;
}

weir_call *sim_call(struct sim_fixture *f, weir_request request, const char *sql, const char *value)
{
    static volatile bool done;
    char why[WEIR_WHY_MAX] = "";
    weir_call *call = NULL;
    const char *values[] = {value};
    weir_statement statement = {.sql = sql, .values = values, .count = value == NULL ? 0 : 1};
    if (request.client == NULL) request.client = "service";
    if (request.context == NULL) request.context = "a test";
    request.notify = ended;
    request.user = (void *)&done;
    done = false;
    if (weir_submit(f->engine, &request, &statement, 1, &call, why) != WEIR_OK) fail_msg("submit: %s", why);
    assert_int_equal(weir_sim_run(f->sim, &done, weir_sim_now_ns(f->sim) + SECONDS(3600)), WEIR_SIM_FLAG);
    return call;
}

weir_code sim_code(const weir_call *call)
{
    const weir_error *error = weir_call_error(call);
    return error == NULL ? WEIR_CALL_OK : error->code;
}

/* ---- step by step -------------------------------------------------------------------------------------------------- */

static void noticed(void *user, weir_call *call)
{
    (void)call;
    *(volatile bool *)user = true;
}

static weir_request completed(struct sim_fixture *f, weir_request request)
{
    if (request.client == NULL) request.client = "service";
    if (request.context == NULL) request.context = "a test";
    if (strcmp(request.client, "anon") == 0 && request.claims == NULL) request.claims = "{}";
    request.notify = noticed;
    request.user = (void *)&f->noticed;
    return request;
}

weir_call *sim_submit(struct sim_fixture *f, weir_request request, const char *sql, const char *value)
{
    char why[WEIR_WHY_MAX] = "";
    weir_call *call = NULL;
    const char *values[] = {value};
    weir_statement statement = {.sql = sql, .values = values, .count = value == NULL ? 0 : 1};
    request = completed(f, request);
    if (weir_submit(f->engine, &request, &statement, 1, &call, why) != WEIR_OK) fail_msg("submit: %s", why);
    return call;
}

void sim_wait(struct sim_fixture *f, weir_call *call)
{
    uint64_t end = weir_sim_now_ns(f->sim) + SECONDS(3600);
    while (weir_call_status(call) == WEIR_WAITING) {
        f->noticed = false;
        if (weir_sim_run(f->sim, &f->noticed, end) != WEIR_SIM_FLAG) fail_msg("a call never ended");
    }
}

weir_call *sim_begin(struct sim_fixture *f, weir_request request)
{
    char why[WEIR_WHY_MAX] = "";
    weir_call *call = NULL;
    request = completed(f, request);
    if (weir_begin(f->engine, &request, &call, why) != WEIR_OK) fail_msg("begin: %s", why);
    sim_wait(f, call);
    return call;
}

const char *sim_send(struct sim_fixture *f, weir_call *call, const char *sql, const char *value)
{
    char why[WEIR_WHY_MAX] = "";
    const char *values[] = {value};
    weir_statement statement = {.sql = sql, .values = values, .count = value == NULL ? 0 : 1};
    if (weir_unit_send(call, &statement, 1, why) != WEIR_OK) fail_msg("send: %s", why);
    sim_wait(f, call);
    const weir_error *error = weir_call_error(call);
    return error == NULL ? "" : error->sqlstate[0] != '\0' ? error->sqlstate : weir_code_name(error->code);
}

void sim_finish(struct sim_fixture *f, weir_call *call, weir_finish how)
{
    assert_int_equal(weir_unit_finish(call, how), WEIR_OK);
    sim_wait(f, call);
}

weir_call *sim_write_unit(struct sim_fixture *f, weir_request request, const char *value)
{
    weir_call *call = sim_begin(f, request);
    while (weir_call_status(call) == WEIR_READY) {
        bool well = sim_send(f, call, "insert into t values ($1)", value)[0] == '\0';
        if (weir_call_status(call) == WEIR_ENDED) break;
        sim_finish(f, call, well ? WEIR_COMMIT : WEIR_FAILED);
    }
    return call;
}

void sim_expect(const weir_call *call, struct sim_end expected)
{
    assert_int_equal(weir_call_status(call), WEIR_ENDED);
    const weir_error *e = weir_call_error(call);
    if (e == NULL) {
        fail_msg("the call ended well");
        return;
    }
    bool same = e->code == expected.code && e->class_ == expected.class_ && e->outcome == expected.outcome &&
                e->phase == expected.phase && strcmp(e->sqlstate, expected.sqlstate) == 0 &&
                e->attempts == expected.attempts;
    if (same) return;
    fail_msg("it ended as %s '%s', %s, %s, %s after %u attempts: %s", weir_code_name(e->code), e->sqlstate,
             weir_class_name(e->class_), weir_outcome_name(e->outcome), weir_phase_name(e->phase),
             e->attempts, e->message);
}

void sim_expect_well(const weir_call *call)
{
    assert_int_equal(weir_call_status(call), WEIR_ENDED);
    const weir_error *e = weir_call_error(call);
    if (e != NULL) fail_msg("%s '%s': %s", weir_code_name(e->code), e->sqlstate, e->message);
}

/* ---- the server ------------------------------------------------------------------------------------------------------ */

weir_dist sim_seconds(double seconds)
{
    return (weir_dist){.kind = WEIR_DIST_CONSTANT, .a = seconds};
}

weir_sim_options sim_server(struct sim_fixture *f)
{
    weir_sim_options options;
    weir_sim_server_get(f->primary, &options);
    return options;
}

void sim_server_set(struct sim_fixture *f, weir_sim_options options)
{
    char why[WEIR_WHY_MAX] = "";
    if (weir_sim_server_set(f->primary, &options, why) != WEIR_OK) fail_msg("set: %s", why);
}

void sim_server_exact(struct sim_fixture *f)
{
    weir_sim_options options = sim_server(f);
    options.service = sim_seconds(0.010);
    options.commit = sim_seconds(0.001);
    options.connect = sim_seconds(0);
    options.network = sim_seconds(0.001);
    sim_server_set(f, options);
}

weir_sim_stats sim_stats(struct sim_fixture *f)
{
    weir_sim_stats stats;
    weir_sim_server_stats(f->primary, &stats);
    return stats;
}

double sim_ms(const struct sim_fixture *f)
{
    return (double)(weir_sim_now_ns(f->sim) - WEIR_SIM_START) / 1e6;
}

void sim_assert_ms(const struct sim_fixture *f, double expected)
{
    double off = sim_ms(f) - expected;
    if (off > 0.001 || off < -0.001) fail_msg("it is %.6f ms instead of %.6f", sim_ms(f), expected);
}
