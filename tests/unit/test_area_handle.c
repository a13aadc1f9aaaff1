/* Handles on areas: what can be attached and what cannot, how an area stands, and that what is seen through one handle is
 * what is seen through another. */
#include "steer_fixture.h"

#include "area/sharedarea.h"
#include "engine/config.h"

#include "weir/metrics.h"
#include "weir/web.h"

#include <fcntl.h>
#include <sys/mman.h>

static weir_area_state look(struct steer *s)
{
    return weir_area_look(s->area, s->why);
}

/* ---- attaching --------------------------------------------------------------------------------------------------- */

static void refused(struct steer *s, const char *path, const char *words)
{
    s->why[0] = '\0';
    assert_int_equal(weir_area_attach(&s->area, path, s->why), WEIR_ESYS);
    assert_null(s->area);
    if (strstr(s->why, words) == NULL) fail_msg("'%s' does not say '%s'", s->why, words);
    if (strstr(s->why, path) == NULL) fail_msg("'%s' does not name %s", s->why, path);
}

static void write_file(const char *path, const void *bytes, size_t length)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), length);
    (void)close(fd);
}

static void what_is_no_area_is_refused_in_a_sentence(void **state)
{
    struct steer *s = *state;
    char target[80];
    refused(s, s->path, "there is no such file");
    refused(s, "/nowhere/at/all", "there is no such file");
    refused(s, "/tmp", "is not a regular file");
    write_file(s->path, "", 0);
    refused(s, s->path, "is empty");
    write_file(s->path, "hello, world", 12);
    refused(s, s->path, "is not an area");
    write_file(s->path, "weirarea", 8);
    refused(s, s->path, "is cut short");
    assert_int_equal(unlink(s->path), 0);
    assert_int_equal(mkfifo(s->path, 0600), 0);
    refused(s, s->path, "is not a regular file");
    assert_int_equal(unlink(s->path), 0);
    (void)snprintf(target, sizeof target, "%s-elsewhere", s->path);
    assert_int_equal(symlink(target, s->path), 0);
    refused(s, s->path, "is a symbolic link");
}

/* The header as it lies in the file: magic, layout, ... */
static void spoil(struct steer *s, off_t at, uint32_t value)
{
    int fd = open(s->path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &value, sizeof value, at), sizeof value);
    (void)close(fd);
}

static void another_layout_and_a_damaged_header_are_told_apart(void **state)
{
    struct steer *s = *state;
    steer_open(s, &s->one);
    fake_close(&s->one);
    spoil(s, 8, 7);
    refused(s, s->path, "has layout 7, and this program reads layout ");
    spoil(s, 8, WR_AREA_LAYOUT);
    spoil(s, 40, 1000000); /* a shape */
    refused(s, s->path, "header damaged");
    spoil(s, 40, 63);
    refused(s, s->path, "header damaged: wrong checksum");
}

static void a_file_of_another_length_is_refused(void **state)
{
    struct steer *s = *state;
    steer_open(s, &s->one);
    fake_close(&s->one);
    assert_int_equal(truncate(s->path, 5000), 0);
    refused(s, s->path, "size 5000 found");
    assert_int_equal(truncate(s->path, 100), 0);
    refused(s, s->path, "is cut short");
}

static void an_area_that_is_being_made_is_waited_for(void **state)
{
    struct steer *s = *state;
    char draft[80];
    (void)snprintf(draft, sizeof draft, "%s.new", s->path);
    steer_open(s, &s->one);
    assert_int_equal(rename(s->path, draft), 0);
    pid_t child = fork();
    if (child == 0) {
        (void)usleep(50000);
        _exit(rename(draft, s->path) == 0 ? 0 : 1);
    }
    steer_attach(s);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(look(s), WEIR_AREA_LIVE);
    fake_close(&s->one);
}

static void a_draft_that_nobody_completes_is_waited_for_a_second_at_most(void **state)
{
    struct steer *s = *state;
    char draft[80];
    (void)snprintf(draft, sizeof draft, "%s.new", s->path);
    write_file(draft, "", 0);
    refused(s, s->path, "there is no such file");
    assert_int_equal(unlink(draft), 0);
}

/* A worker has its slot before its engine is open. */
static void an_area_without_an_engine_yet_shows_nothing_half(void **state)
{
    struct steer *s = *state;
    struct wr_area_shape shape;
    struct wr_area *early = NULL;
    char replaced[WEIR_WHY_MAX];
    assert_int_equal(wr_engine_shape(&s->options, &shape, s->why), WEIR_OK);
    assert_int_equal(wr_area_open(&early, s->path, s->options.name, &shape, false, replaced, s->why),
                     WEIR_OK);
    refused(s, s->path, "no engine has been opened on it yet");
    steer_open(s, &s->one);
    steer_attach(s);
    assert_int_equal(look(s), WEIR_AREA_LIVE);
    fake_close(&s->one);
    wr_area_close(early);
}

/* ---- how it stands ----------------------------------------------------------------------------------------------- */

static void an_area_is_live_then_deserted_then_gone(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    assert_int_equal(look(s), WEIR_AREA_LIVE);
    assert_string_equal(s->why, "");
    assert_true(weir_area_may_steer(s->area, s->why));
    fake_close(&s->one);
    assert_int_equal(look(s), WEIR_AREA_DESERTED);
    assert_non_null(strstr(s->why, "no worker that lives"));
    assert_false(weir_area_may_steer(s->area, s->why));
    steer_expect(s, "stats", "\"ok\":1"); /* what they left */
    steer_expect(s, "stats", "\"health\":\"unhealthy\",\"workers\":0,\"draining\":true");
    steer_expect(s, "config", "\"clients\":[{");
    assert_string_equal(steer_read(s, s->area, "workers"), "[]");
    assert_string_equal(steer_read(s, s->area, "conns"), "[]");
    assert_int_equal(unlink(s->path), 0);
    assert_int_equal(look(s), WEIR_AREA_GONE);
    assert_false(weir_area_may_steer(s->area, s->why));
    steer_expect(s, "stats", "\"ok\":1");
    steer_open(s, &s->two);
    assert_int_equal(look(s), WEIR_AREA_REPLACED);
    assert_non_null(strstr(s->why, "attach again"));
    weir_area_detach(s->area);
    steer_attach(s);
    steer_expect(s, "stats", "\"ok\":0");
    fake_close(&s->two);
}

static void a_worker_that_was_killed_lives_no_more(void **state)
{
    struct steer *s = *state;
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        steer_open(s, &s->one);
        (void)!write(ready[1], "x", 1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    steer_attach(s);
    assert_int_equal(look(s), WEIR_AREA_LIVE);
    steer_expect(s, "workers", "\"host\":\"test_area_handle\"");
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(look(s), WEIR_AREA_DESERTED);
    assert_string_equal(steer_read(s, s->area, "workers"), "[]");
    (void)close(ready[0]);
    (void)close(ready[1]);
}

static const char *const documents[] = {"stats", "health", "calls", "events", "workers", "conns", "config"};

static void a_file_that_is_cut_short_reads_as_zeros_and_counts_as_damaged(void **state)
{
    struct steer *s = *state;
    weir_page page;
    steer_open(s, &s->one);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_close(&s->one);
    for (off_t length = 8192; length >= 0; length -= 4096) {
        steer_attach(s);
        assert_int_equal(look(s), WEIR_AREA_DESERTED);
        struct stat whole;
        assert_int_equal(stat(s->path, &whole), 0);
        assert_int_equal(truncate(s->path, length), 0);
        assert_int_equal(look(s), WEIR_AREA_DAMAGED);
        for (size_t i = 0; i < sizeof documents / sizeof *documents; i++)
            (void)steer_read(s, s->area, documents[i]);
        assert_true(weir_page_get(s->area, "/metrics", NULL, &page));
        assert_int_equal(page.http, 200);
        assert_int_equal(look(s), WEIR_AREA_DAMAGED);
        assert_false(weir_area_may_steer(s->area, s->why));
        weir_area_detach(s->area);
        s->area = NULL;
        assert_int_equal(truncate(s->path, whole.st_size), 0);
        assert_int_equal(unlink(s->path), 0);
        steer_open(s, &s->one);
        assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
        fake_close(&s->one);
    }
}

/* A fault that is not ours ends the process as ever, and who had a handler before keeps it. */
static void faults_elsewhere_are_not_swallowed(void **state)
{
    struct steer *s = *state;
    int status = 0;
    steer_open(s, &s->one);
    pid_t child = fork();
    if (child == 0) {
        (void)signal(SIGBUS, SIG_DFL); /* the test runner has a handler of its own */
        steer_attach(s);
        int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
        if (ftruncate(fd, 4096) != 0) _exit(1);
        volatile char *elsewhere = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        if (ftruncate(fd, 0) != 0) _exit(2);
        (void)elsewhere[0];
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
    fake_close(&s->one);
}

static volatile sig_atomic_t heard;

static void hear(int number)
{
    heard = number;
}

static void the_handler_that_was_there_before_hears_what_is_its_own_and_comes_back(void **state)
{
    struct steer *s = *state;
    struct sigaction theirs = {.sa_handler = hear}, now, before;
    assert_int_equal(sigaction(SIGBUS, &theirs, &before), 0);
    steer_open(s, &s->one);
    steer_attach(s);
    assert_int_equal(raise(SIGBUS), 0);
    assert_int_equal(heard, SIGBUS);
    weir_area_detach(s->area);
    s->area = NULL;
    assert_int_equal(sigaction(SIGBUS, &before, &now), 0);
    assert_ptr_equal(now.sa_handler, hear);
    fake_close(&s->one);
}

/* ---- seeing ------------------------------------------------------------------------------------------------------ */

/* Up to where the two clocks come in. */
static void own_and_attached_handle_show_the_same(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    for (int i = 0; i < 5; i++) assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_run(&s->one, FAKE_MS(1100));
    weir_area *own = weir_engine_area(s->one.engine);
    char *first = strdup(steer_read(s, own, "calls"));
    assert_string_equal(first, steer_read(s, s->area, "calls"));
    free(first);
    first = strdup(steer_read(s, own, "events"));
    assert_string_equal(first, steer_read(s, s->area, "events"));
    free(first);
    first = strdup(strstr(steer_read(s, own, "stats"), "\"pools\""));
    *strstr(first, "\"breaker\"") = '\0';
    steer_expect(s, "stats", first);
    free(first);
    steer_expect(s, "health", "\"database\":{\"status\":\"healthy\"");
    assert_int_equal(weir_area_json(own, "nonsense", 0, s->text, STEER_TEXT), 0);
    assert_string_equal(weir_area_path(own), s->path);
    assert_string_equal(weir_area_path(s->area), s->path);
    weir_area_detach(own); /* is the engine's, and stays */
    steer_expect(s, "stats", "\"name\":");
    fake_close(&s->one);
}

static void documents_are_written_like_snprintf_does(void **state)
{
    struct steer *s = *state;
    char little[16];
    steer_begin(s);
    size_t whole = weir_area_json(s->area, "stats", 0, s->text, STEER_TEXT);
    assert_int_equal(strlen(s->text), whole);
    assert_int_equal(weir_area_json(s->area, "stats", 0, NULL, 0), whole);
    assert_in_range(weir_area_json(s->area, "stats", 0, little, sizeof little), whole - 8, whole + 8);
    assert_int_equal(strlen(little), sizeof little - 1);
    fake_close(&s->one);
}

static void figures_and_pages_come_from_another_process_too(void **state)
{
    struct steer *s = *state;
    weir_engine_figures engine;
    weir_pool_figures pool;
    weir_label_figures label;
    weir_backend_figures backend;
    weir_page page;
    steer_begin(s);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_run(&s->one, FAKE_MS(1100));
    weir_read_engine(s->area, &engine);
    assert_int_equal(engine.workers, 1);
    assert_int_equal(engine.pools, 2);
    assert_int_equal(engine.health, WEIR_HEALTHY);
    assert_true(weir_read_pool(s->area, 0, &pool));
    assert_string_equal(pool.name, "service@primary");
    assert_string_equal(pool.client, "service");
    assert_string_equal(pool.backend, "primary");
    assert_int_equal(pool.max, 2);
    assert_int_equal(pool.ended.ok, 1);
    assert_false(weir_read_pool(s->area, 2, &pool));
    assert_true(weir_read_label(s->area, 0, 1, &label));
    assert_string_equal(label.label, "a test");
    assert_true(weir_read_backend(s->area, 0, &backend));
    assert_true(backend.known && backend.ok);
    assert_string_equal(backend.name, "primary");
    assert_false(weir_read_backend(s->area, 1, &backend));
    assert_true(weir_page_get(s->area, "/readyz", NULL, &page));
    assert_int_equal(page.http, 200);
    assert_true(weir_page_get(s->area, "/stats.json", NULL, &page));
    assert_non_null(strstr(page.body, "service@primary"));
    fake_close(&s->one);
    assert_true(weir_page_get(s->area, "/health", NULL, &page));
    assert_int_equal(page.http, 503); /* nobody is there */
}

static void what_the_newest_worker_says_of_a_backend_counts(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    steer_open(s, &s->two);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_run(&s->one, FAKE_MS(1100));
    steer_expect(s, "health", "\"backends\":{\"primary\":{\"status\":\"healthy\"");
    s->two.refuse = true;
    fake_run(&s->two, FAKE_MS(2000));
    assert_int_not_equal(steer_call(&s->two), WEIR_CALL_OK);
    steer_expect(s, "health", "\"backends\":{\"primary\":{\"status\":\"unhealthy\"");
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_run(&s->one, FAKE_MS(3000));
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_run(&s->one, FAKE_MS(1100));
    steer_expect(s, "health", "\"backends\":{\"primary\":{\"status\":\"healthy\"");
    fake_close(&s->one);
    fake_close(&s->two);
}

static void connections_are_shown_with_their_state_and_their_call(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    weir_call *unit = fake_begin(&s->one, (weir_request){.context = "POST /pay"});
    fake_run(&s->one, FAKE_MS(1));
    steer_expect(s, "conns", "\"state\":\"connecting\"");
    fake_run(&s->one, FAKE_MS(50));
    steer_expect(s, "conns", "\"pool\":\"service@primary\",\"state\":\"leased\",\"backend_pid\":");
    steer_expect(s, "conns", "\"label\":\"POST /pay\",\"call\":\"1000000000");
    fake_finish(unit, WEIR_ROLLBACK);
    fake_run(&s->one, FAKE_MS(50));
    steer_expect(s, "conns", "\"state\":\"idle\"");
    steer_expect_not(s, "conns", "POST /pay");
    weir_call_free(unit);
    fake_close(&s->one);
}

/* By numbers of the worker's own: what ends late is not missed, and what was overwritten is known of. */
static void who_follows_finished_calls_misses_none(void **state)
{
    struct steer *s = *state;
    steer_begin(s);
    const uint64_t worker = UINT64_C(1) << 40;
    weir_call *late = fake_begin(&s->one, (weir_request){.context = "late"});
    fake_run(&s->one, FAKE_MS(10));
    for (int i = 0; i < 3; i++) (void)steer_call(&s->one);
    (void)weir_area_json(s->area, "finished", worker, s->text, STEER_TEXT);
    assert_non_null(strstr(s->text, "{\"workers\":1,\"calls\":[{\"n\":1,"));
    assert_non_null(strstr(s->text, "\"recorded\":3}"));
    fake_finish(late, WEIR_COMMIT);
    fake_run(&s->one, FAKE_MS(10));
    weir_call_free(late);
    (void)weir_area_json(s->area, "finished", worker | 3, s->text, STEER_TEXT);
    assert_non_null(strstr(s->text, "\"calls\":[{\"n\":4,")); /* began first, ended last */
    assert_non_null(strstr(s->text, "\"label\":\"late\""));
    (void)weir_area_json(s->area, "finished", worker | 4, s->text, STEER_TEXT);
    assert_string_equal(s->text, "{\"workers\":1,\"calls\":[],\"recorded\":4}");
    (void)weir_area_json(s->area, "finished", 9 * worker, s->text, STEER_TEXT);
    assert_string_equal(s->text, "{\"workers\":1,\"calls\":[],\"recorded\":0}");
    for (int i = 0; i < 1000; i++) (void)steer_call(&s->one);
    (void)weir_area_json(s->area, "finished", worker | 4, s->text, STEER_TEXT);
    assert_non_null(strstr(s->text, "\"recorded\":1004}"));
    assert_null(strstr(s->text, "{\"n\":5,")); /* overwritten */
    assert_non_null(strstr(s->text, "{\"n\":1004,"));
    fake_close(&s->one);
}

static void an_open_breaker_says_when_it_is_probed_next(void **state)
{
    struct steer *s = *state;
    s->options.probe_interval_ns = FAKE_MS(60000);
    s->options.breaker.min_calls = 2;
    steer_begin(s);
    s->one.refuse = true;
    for (int i = 0; i < 4; i++) (void)steer_call(&s->one);
    steer_expect(s, "stats", "\"state\":\"OPEN\"");
    const char *at = strstr(steer_read(s, s->area, "stats"), "\"next_probe\":");
    double seconds = strtod(at + 13, NULL);
    assert_true(seconds > 50 && seconds < 70);
    fake_close(&s->one);
}

static void nothing_secret_is_in_the_area(void **state)
{
    struct steer *s = *state;
    weir_client clients[2];
    static const weir_backend backends[] = {
        {.name = "primary", .conninfo = "host=nowhere password=hunter2secret user=someone"}};
    memcpy(clients, s->options.clients, sizeof clients);
    clients[0].user = "app_service";
    clients[0].password = "correcthorsebattery";
    s->options.clients = clients;
    s->options.backends = backends;
    steer_begin(s);
    assert_int_equal(steer_call(&s->one), WEIR_CALL_OK);
    fake_run(&s->one, FAKE_MS(1100));
    steer_expect(s, "config", "\"user\":\"app_service\"");
    int fd = open(s->path, O_RDONLY);
    struct stat found;
    assert_int_equal(fstat(fd, &found), 0);
    const char *bytes = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_SHARED, fd, 0);
    assert_null(memmem(bytes, (size_t)found.st_size, "hunter2secret", 13));
    assert_null(memmem(bytes, (size_t)found.st_size, "correcthorsebattery", 19));
    (void)munmap((void *)(uintptr_t)bytes, (size_t)found.st_size);
    (void)close(fd);
    fake_close(&s->one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        steer_test(what_is_no_area_is_refused_in_a_sentence),
        steer_test(another_layout_and_a_damaged_header_are_told_apart),
        steer_test(a_file_of_another_length_is_refused),
        steer_test(an_area_that_is_being_made_is_waited_for),
        steer_test(a_draft_that_nobody_completes_is_waited_for_a_second_at_most),
        steer_test(an_area_without_an_engine_yet_shows_nothing_half),
        steer_test(an_area_is_live_then_deserted_then_gone),
        steer_test(a_worker_that_was_killed_lives_no_more),
        steer_test(a_file_that_is_cut_short_reads_as_zeros_and_counts_as_damaged),
        steer_test(faults_elsewhere_are_not_swallowed),
        steer_test(the_handler_that_was_there_before_hears_what_is_its_own_and_comes_back),
        steer_test(own_and_attached_handle_show_the_same),
        steer_test(documents_are_written_like_snprintf_does),
        steer_test(figures_and_pages_come_from_another_process_too),
        steer_test(what_the_newest_worker_says_of_a_backend_counts),
        steer_test(connections_are_shown_with_their_state_and_their_call),
        steer_test(who_follows_finished_calls_misses_none),
        steer_test(an_open_breaker_says_when_it_is_probed_next),
        steer_test(nothing_secret_is_in_the_area),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
