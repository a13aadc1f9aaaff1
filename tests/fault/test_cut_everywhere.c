/* A connection cut after each byte of a unit's whole exchange, in both directions, from BEGIN to the
 * answer of COMMIT, and after the bytes of a connect: whatever is told must be what the ledger says. */
#include "support/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { AT_ONCE = 8 };

struct fixture {
    struct server *server;
    struct proxy *proxy;
    struct harness h;
    const char *name; /* of this round, in the ledger */
    int written;
    size_t retried;
};

static int start(void **state)
{
    static struct fixture fixture;
    fixture.server = server_start(NULL);
    harness_schema(fixture.server);
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    struct fixture *f = *state;
    server_free(f->server);
    return 0;
}

static void open_engine(struct fixture *f, const char *name, uint32_t retries)
{
    f->proxy = proxy_start(f->server);
    f->name = name;
    f->written = 0;
    harness_prepare(&f->h, f->server, proxy_conninfo(f->proxy, NULL));
    f->h.options.retries = retries;
    f->h.options.backoff_cap_ns = MS(5);
    f->h.options.connect_at_once = 8;
    harness_open(&f->h);
}

static void close_all(struct fixture *f)
{
    harness_close(&f->h);
    proxy_stop(f->proxy);
}

/* As its user, under row-level security: the preamble is part of the exchange. */
static struct job *write_unit(struct fixture *f)
{
    struct job *job = harness_unit(&f->h, ANON, "a write that is cut");
    job_claims(job, "{\"sub\":\"u%d\"}", f->written % 50);
    job_step(job, "insert into ledger values ($1, current_user)");
    job_value(job, "%s %d", f->name, f->written);
    job_step(job, "select owner from contacts limit 1");
    job->user = f;
    f->written++;
    return job;
}

/* ok: exactly once; rolled back: not at all; unknown: at most once. And never a foreign row. */
static void check_against_ledger(struct fixture *f)
{
    for (struct job *job = f->h.jobs; job != NULL; job = job->next) {
        char sql[160], mine[16];
        assert_int_equal(job->endings, 1);
        snprintf(sql, sizeof sql, "select count(*) from ledger where id = '%s' and note = 'web_anon'",
                 job->steps[0].values[0]);
        long times = server_ask_number(f->server, sql);
        if (job->code == WEIR_CALL_OK)
            assert_int_equal(times, 1);
        else if (job->outcome == WEIR_OUTCOME_UNKNOWN)
            assert_in_range(times, 0, 1);
        else
            assert_int_equal(times, 0);
        if (job->code != WEIR_CALL_OK) assert_true(job->outcome != WEIR_OUTCOME_COMMITTED);
        f->retried += job->attempts - 1;
        sscanf(job->request.claims, "{\"sub\":\"%15[^\"]", mine);
        if (job->code == WEIR_CALL_OK) assert_string_equal(job->answers[1], mine);
    }
    harness_forget_jobs(&f->h);
}

/* Bytes of one exchange on a fresh connection, where nothing is prepared yet: the longest there is. */
static size_t exchange_bytes(struct fixture *f, enum proxy_way way)
{
    struct job *job = write_unit(f);
    harness_run(&f->h, job);
    job_assert(job, WEIR_CALL_OK);
    return proxy_unit_bytes(f->proxy, way);
}

static void cut_at_every_byte(struct fixture *f, enum proxy_way way, size_t step)
{
    size_t bytes = exchange_bytes(f, way);
    assert_in_range(bytes, 100, 5000);
    proxy_cut_units(f->proxy, way, 0, bytes + 1, step);
    size_t before = proxy_losses(f->proxy);
    while (proxy_cuts_left(f->proxy)) {
        for (int i = 0; i < AT_ONCE; i++) job_start(write_unit(f));
        harness_wait(&f->h);
        check_against_ledger(f);
    }
    assert_true(proxy_losses(f->proxy) - before >= bytes / step * 3 / 4);
    proxy_cut_units(f->proxy, way, 0, 0, 1);
}

static void cut_on_the_way_to_the_server_each_unit_is_repeated_and_executes_once(void **state)
{
    struct fixture *f = *state;
    open_engine(f, "up, retried", 20);
    f->retried = 0;
    cut_at_every_byte(f, PROXY_TO_SERVER, 1);
    assert_true(f->retried > 100);
    close_all(f);
}

static void cut_on_the_way_to_the_client_each_unit_is_repeated_and_executes_once(void **state)
{
    struct fixture *f = *state;
    open_engine(f, "down, retried", 20);
    f->retried = 0;
    cut_at_every_byte(f, PROXY_TO_CLIENT, 1);
    assert_true(f->retried > 100);
    close_all(f);
}

static void cut_on_the_way_to_the_server_a_unit_that_is_not_repeated_tells_the_truth(void **state)
{
    struct fixture *f = *state;
    open_engine(f, "up, once", 0);
    f->retried = 0;
    cut_at_every_byte(f, PROXY_TO_SERVER, 1);
    assert_int_equal(f->retried, 0);
    close_all(f);
}

static void cut_on_the_way_to_the_client_a_unit_that_is_not_repeated_tells_the_truth(void **state)
{
    struct fixture *f = *state;
    open_engine(f, "down, once", 0);
    f->retried = 0;
    cut_at_every_byte(f, PROXY_TO_CLIENT, 1);
    assert_int_equal(f->retried, 0);
    close_all(f);
}

static void a_connect_cut_anywhere_is_tried_again(void **state)
{
    struct fixture *f = *state;
    open_engine(f, "connect", 5);
    for (size_t at = 0; at < 2400; at += 37) {
        proxy_cut_connect(f->proxy, at % 2 == 0 ? PROXY_TO_CLIENT : PROXY_TO_SERVER, at);
        proxy_reset_all(f->proxy);
        harness_turn(&f->h, 2);
        struct job *job = write_unit(f);
        harness_run(&f->h, job);
        job_assert(job, WEIR_CALL_OK);
    }
    assert_true(proxy_losses(f->proxy) > 40);
    check_against_ledger(f);
    close_all(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_on_the_way_to_the_server_each_unit_is_repeated_and_executes_once),
        cmocka_unit_test(cut_on_the_way_to_the_client_each_unit_is_repeated_and_executes_once),
        cmocka_unit_test(cut_on_the_way_to_the_server_a_unit_that_is_not_repeated_tells_the_truth),
        cmocka_unit_test(cut_on_the_way_to_the_client_a_unit_that_is_not_repeated_tells_the_truth),
        cmocka_unit_test(a_connect_cut_anywhere_is_tried_again),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
