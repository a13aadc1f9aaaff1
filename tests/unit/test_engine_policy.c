/* The operator's hooks: what they may decide, what is refused whatever they say, and what happens when they
 * fail. */
#include "support/fake_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct fake fake;
    weir_options options;
    weir_backend backends[2];
    weir_decision route_says, label_says, retry_says;
    const char *backend, *label;
    uint64_t delay_ns;
    int routed, labelled, decided;
    weir_failure seen;
    char sqlstate[6];
    bool lost;
};

static weir_decision route(void *ctx, const weir_request *request, char *backend, size_t size, char *why)
{
    struct fixture *f = ctx;
    (void)request;
    (void)why;
    f->routed++;
    if (f->backend != NULL) snprintf(backend, size, "%s", f->backend);
    return f->route_says;
}

static weir_decision label(void *ctx, const char *context, char *out, size_t size, char *why)
{
    struct fixture *f = ctx;
    (void)context;
    f->labelled++;
    if (f->label != NULL) snprintf(out, size, "%s", f->label);
    if (f->label_says == WEIR_POLICY_FAULT) memset(why, 'w', WEIR_WHY_MAX); /* without an end */
    return f->label_says;
}

static weir_decision retry(void *ctx, const weir_failure *failure, uint64_t *delay_ns, char *why)
{
    struct fixture *f = ctx;
    f->decided++;
    f->seen = *failure;
    if (f->delay_ns != 0) *delay_ns = f->delay_ns;
    snprintf(why, WEIR_WHY_MAX, "policy.lua:3: oh");
    return f->retry_says;
}

static void answer(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                   struct fake_answer *answer)
{
    struct fixture *f = fake->user;
    (void)link;
    if (segment->kind != WR_SEGMENT_SINGLE) return;
    memcpy(answer->sqlstate, f->sqlstate, 6);
    answer->lost = f->lost;
}

static int set_up(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    fake_init(&f.fake);
    fake_options(&f.options);
    f.backends[0] = (weir_backend){.name = "primary", .conninfo = "host=a"};
    f.backends[1] = (weir_backend){.name = "replica", .conninfo = "host=b"};
    f.options.backends = f.backends;
    f.options.backend_count = 2;
    f.options.breaker.min_calls = 100000;
    f.options.timeout_ns = FAKE_MS(2000);
    f.options.policy = (weir_policy){&f, retry, NULL, NULL};
    f.retry_says = WEIR_RETRY;
    f.delay_ns = FAKE_MS(10);
    f.fake.user = &f;
    f.fake.answer = answer;
    memcpy(f.sqlstate, "40001", 6);
    *state = &f;
    return 0;
}

/* One call from start to end; the caller frees it. */
static weir_call *one_call(struct fixture *f, weir_request request)
{
    weir_call *call = fake_submit(&f->fake, request, "select 1");
    fake_run(&f->fake, FAKE_MS(2100));
    assert_int_equal(weir_call_status(call), WEIR_ENDED);
    return call;
}

static void end(struct fixture *f, weir_call *call)
{
    weir_call_free(call);
    fake_run(&f->fake, FAKE_MS(20));
    fake_close(&f->fake);
}

/* ---- retry ----------------------------------------------------------------------------------- */

static void a_policy_sees_what_failed_and_decides(void **state)
{
    struct fixture *f = *state;
    f->retry_says = WEIR_GIVE_UP;
    fake_open(&f->fake, &f->options);
    weir_call *call = one_call(f, (weir_request){.context = "GET /a?b"});
    assert_int_equal(f->decided, 1);
    assert_int_equal(f->seen.attempt, 1);
    assert_int_equal(f->seen.code, WEIR_CALL_SERVER);
    assert_int_equal(f->seen.class_, WEIR_CLASS_SAFE);
    assert_true(f->seen.remaining_ns < FAKE_MS(2000) && f->seen.backoff_ns <= FAKE_MS(50) &&
                f->seen.budget > 9);
    assert_int_equal(weir_call_error(call)->attempts, 1);
    end(f, call);
}

static void no_policy_gets_more_than_retries_max(void **state)
{
    struct fixture *f = *state;
    f->options.retries_max = 5;
    fake_open(&f->fake, &f->options);
    weir_call *call = one_call(f, (weir_request){0});
    assert_int_equal(weir_call_error(call)->attempts, 6);
    assert_int_equal(fake_counter(&f->fake, "attempts", "denied_max"), 1);
    assert_int_equal(fake_counter(&f->fake, "attempts", "retries"), 5);
    end(f, call);
}

static void no_policy_gets_more_than_the_budget(void **state)
{
    struct fixture *f = *state;
    f->options.budget.floor = 3;
    fake_open(&f->fake, &f->options);
    weir_call *call = one_call(f, (weir_request){0});
    assert_int_equal(weir_call_error(call)->attempts, 4);
    assert_int_equal(fake_counter(&f->fake, "attempts", "denied_budget"), 1);
    end(f, call);
}

static void no_policy_may_wait_past_the_deadline(void **state)
{
    struct fixture *f = *state;
    static const uint64_t delays[] = {FAKE_MS(2000), UINT64_MAX};
    for (size_t i = 0; i < 2; i++) {
        set_up(state);
        f->delay_ns = delays[i];
        fake_open(&f->fake, &f->options);
        weir_call *call = fake_submit(&f->fake, (weir_request){0}, "select 1");
        fake_run(&f->fake, FAKE_MS(20));
        assert_int_equal(fake_code(call), WEIR_CALL_SERVER); /* told at once rather than at the deadline */
        assert_int_equal(fake_counter(&f->fake, "attempts", "denied_deadline"), 1);
        end(f, call);
    }
}

static void no_policy_may_repeat_what_may_have_been_committed(void **state)
{
    static const struct {
        bool readonly, idempotent;
        uint32_t attempts;
    } cases[] = {{false, false, 1}, {true, false, 3}, {false, true, 3}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_up(state);
        f->options.retries_max = f->options.retries = 2;
        f->sqlstate[0] = '\0';
        f->lost = true;
        fake_open(&f->fake, &f->options);
        weir_call *call =
            one_call(f, (weir_request){.readonly = cases[i].readonly, .idempotent = cases[i].idempotent});
        assert_int_equal(weir_call_error(call)->attempts, cases[i].attempts);
        assert_int_equal(fake_counter(&f->fake, "attempts", "denied_unsafe"), cases[i].attempts == 1);
        assert_int_equal(fake_outcome(call),
                         cases[i].readonly ? WEIR_OUTCOME_ROLLED_BACK : WEIR_OUTCOME_UNKNOWN);
        end(f, call);
    }
}

static void the_built_in_policy_leaves_what_would_fail_again(void **state)
{
    static const struct {
        const char *sqlstate;
        uint32_t attempts;
    } cases[] = {{"40001", 4}, {"40P01", 4}, {"55P03", 4}, {"53200", 4}, {"23505", 1},
                 {"42601", 1}, {"53100", 1}, {"57P01", 1}, {"ZZ999", 1}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_up(state);
        f->options.policy = (weir_policy){0};
        memcpy(f->sqlstate, cases[i].sqlstate, 6);
        fake_open(&f->fake, &f->options);
        weir_call *call = one_call(f, (weir_request){0});
        assert_int_equal(weir_call_error(call)->attempts, cases[i].attempts);
        end(f, call);
    }
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void a_hook_that_fails_is_replaced_for_this_call(void **state)
{
    struct fixture *f = *state;
    static const weir_decision faults[] = {WEIR_POLICY_FAULT, (weir_decision)42, (weir_decision)-1};
    char health[4096];
    for (size_t i = 0; i < 3; i++) {
        set_up(state);
        f->retry_says = faults[i];
        fake_open(&f->fake, &f->options);
        weir_call *call = one_call(f, (weir_request){0});
        assert_int_equal(weir_call_error(call)->attempts, 4); /* the built-in policy's three retries */
        assert_int_equal(fake_counter(&f->fake, "events", "policy_faults"), 4);
        weir_events_json(f->fake.engine, 0, health, sizeof health);
        assert_non_null(strstr(health, "policy.lua:3: oh"));
        end(f, call);
    }
}

static void a_hook_that_keeps_failing_is_switched_off_though_others_work(void **state)
{
    struct fixture *f = *state;
    f->options.policy = (weir_policy){f, retry, route, label};
    f->options.policy_faults_max = 5;
    f->route_says = f->label_says = WEIR_RETRY;
    f->backend = "replica";
    f->label = "all";
    f->retry_says = WEIR_POLICY_FAULT;
    fake_open(&f->fake, &f->options);
    for (int i = 0; i < 3; i++) weir_call_free(one_call(f, (weir_request){0}));
    assert_int_equal(f->decided, 5);
    assert_int_equal(f->routed, 2); /* off from within the second call on */
    assert_int_equal(weir_health_now(f->fake.engine), WEIR_DEGRADED);
    fake_run(&f->fake, FAKE_MS(20));
    fake_close(&f->fake);
}

static void good_answers_in_between_keep_a_hook_on(void **state)
{
    struct fixture *f = *state;
    f->options.policy_faults_max = 2;
    fake_open(&f->fake, &f->options);
    for (int i = 0; i < 6; i++) {
        f->retry_says = i % 2 == 0 ? WEIR_POLICY_FAULT : WEIR_GIVE_UP;
        f->options.retries = 0;
        weir_call *call = fake_submit(&f->fake, (weir_request){.timeout_ns = FAKE_MS(5)}, "select 1");
        fake_run(&f->fake, FAKE_MS(100));
        weir_call_free(call);
    }
    assert_int_equal(f->decided, 6);
    fake_close(&f->fake);
}

/* ---- route and label ------------------------------------------------------------------------- */

static void a_route_is_followed_and_nonsense_goes_to_the_first_backend(void **state)
{
    static const struct {
        weir_decision says;
        const char *backend, *asked, *pool;
    } cases[] = {{WEIR_RETRY, "replica", NULL, "service@replica"},
                 {WEIR_RETRY, "mars", NULL, "service@primary"},
                 {WEIR_RETRY, NULL, NULL, "service@primary"},
                 {WEIR_POLICY_FAULT, "replica", NULL, "service@primary"},
                 {WEIR_RETRY, "primary", "replica", "service@replica"}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_up(state);
        f->options.policy = (weir_policy){.ctx = f, .route = route};
        f->route_says = cases[i].says;
        f->backend = cases[i].backend;
        memcpy(f->sqlstate, "22012", 6);
        fake_open(&f->fake, &f->options);
        weir_call *call = one_call(f, (weir_request){.backend = cases[i].asked});
        assert_string_equal(weir_call_error(call)->pool, cases[i].pool);
        end(f, call);
    }
}

static void a_label_bounds_the_series_and_its_fault_falls_back(void **state)
{
    static const struct {
        weir_decision says;
        const char *label, *wanted;
    } cases[] = {{WEIR_RETRY, "all", "\"label\":\"all\""},
                 {WEIR_RETRY, "", "\"label\":\"GET /a\""},
                 {WEIR_POLICY_FAULT, NULL, "\"label\":\"GET /a\""},
                 {WEIR_GIVE_UP, "x", "\"label\":\"GET /a\""}};
    static char stats[1 << 18];
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_up(state);
        f->options.policy = (weir_policy){.ctx = f, .label = label};
        f->label_says = cases[i].says;
        f->label = cases[i].label;
        f->sqlstate[0] = '\0';
        fake_open(&f->fake, &f->options);
        weir_call *call = one_call(f, (weir_request){.context = "GET /a?b=c"});
        weir_stats_json(f->fake.engine, stats, sizeof stats);
        assert_non_null(strstr(stats, cases[i].wanted));
        end(f, call);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_policy_sees_what_failed_and_decides, set_up),
        cmocka_unit_test_setup(no_policy_gets_more_than_retries_max, set_up),
        cmocka_unit_test_setup(no_policy_gets_more_than_the_budget, set_up),
        cmocka_unit_test_setup(no_policy_may_wait_past_the_deadline, set_up),
        cmocka_unit_test_setup(no_policy_may_repeat_what_may_have_been_committed, set_up),
        cmocka_unit_test_setup(the_built_in_policy_leaves_what_would_fail_again, set_up),
        cmocka_unit_test_setup(a_hook_that_fails_is_replaced_for_this_call, set_up),
        cmocka_unit_test_setup(a_hook_that_keeps_failing_is_switched_off_though_others_work, set_up),
        cmocka_unit_test_setup(good_answers_in_between_keep_a_hook_on, set_up),
        cmocka_unit_test_setup(a_route_is_followed_and_nonsense_goes_to_the_first_backend, set_up),
        cmocka_unit_test_setup(a_label_bounds_the_series_and_its_fault_falls_back, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
