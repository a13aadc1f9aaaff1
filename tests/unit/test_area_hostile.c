/* Whatever a file says, looking at it must do no harm: thousands of seeded changes to a live area's bytes, cut short now and
 * then, changed while it is read; every document, every figure and every page is asked for each time. What comes out must
 * be JSON. Nothing is timed here: what hangs is ended by the runner. */
#include "steer_fixture.h"

#include "weir/metrics.h"
#include "weir/web.h"

#include <fcntl.h>
#include <sys/mman.h>

enum { CHANGES = 12, ROUNDS = 4000, CUT_EVERY = 40, STEER_EVERY = 25, RACES = 300 };

struct hostile {
    struct steer *s;
    char copy[80];
    uint64_t *words, *whole; /* of the copy, as mapped; and as it was */
    size_t size, used;       /* bytes; words that lie in no hole */
    uint32_t *at;            /* their places */
    uint64_t seed;
};

static uint64_t next(struct hostile *h)
{
    h->seed ^= h->seed << 13;
    h->seed ^= h->seed >> 7;
    h->seed ^= h->seed << 17;
    return h->seed;
}

/* ---- is it JSON? ------------------------------------------------------------------------------------------------- */

static const char *json_value(const char *at, int depth);

static const char *json_string(const char *at)
{
    for (at++; *at != '"'; at++) {
        if ((unsigned char)*at < 0x20) return NULL;
        if (*at == '\\' && *++at == '\0') return NULL;
    }
    return at + 1;
}

static const char *json_number(const char *at)
{
    char *end = NULL;
    if (*at != '-' && (*at < '0' || *at > '9')) return NULL;
    (void)strtod(at, &end);
    return end == at ? NULL : end;
}

static const char *json_list(const char *at, char close, int depth)
{
    for (at++; *at != close;) {
        if (close == '}') {
            at = *at == '"' ? json_string(at) : NULL;
            if (at == NULL || *at++ != ':') return NULL;
        }
        at = json_value(at, depth + 1);
        if (at == NULL || (*at != ',' && *at != close)) return NULL;
        if (*at == ',' && *++at == close) return NULL;
    }
    return at + 1;
}

static const char *json_value(const char *at, int depth)
{
    if (depth > 32) return NULL;
    if (*at == '{') return json_list(at, '}', depth);
    if (*at == '[') return json_list(at, ']', depth);
    if (*at == '"') return json_string(at);
    if (strncmp(at, "true", 4) == 0) return at + 4;
    if (strncmp(at, "false", 5) == 0) return at + 5;
    return json_number(at);
}

static void assert_json(const char *document, const char *text)
{
    const char *end = json_value(text, 0);
    if (end == NULL || *end != '\0') fail_msg("%s is no JSON: %s", document, text);
}

/* ---- a live area and its copy ------------------------------------------------------------------------------------ */

/* Something of everything: calls that went well, failed and wait, a unit, an order, a forced breaker, a policy. */
static void live_a_little(struct steer *s)
{
    steer_open(s, &s->one);
    for (int i = 0; i < 20; i++) (void)steer_call(&s->one);
    s->one.refuse = true;
    steer_open(s, &s->two);
    s->two.refuse = true;
    for (int i = 0; i < 5; i++) (void)steer_call(&s->two);
    steer_attach(s);
    steer_order(s,
                (weir_order){.kind = WEIR_ORDER_POLICY, .text = "return { this = 'policy' }", .length = 26});
    steer_order(s, (weir_order){.kind = WEIR_ORDER_FORCE, .pool = "anon@primary", .state = WEIR_FORCED_OPEN});
    fake_run(&s->one, FAKE_MS(1100));
    fake_run(&s->two, FAKE_MS(1100));
    weir_area_detach(s->area);
    s->area = NULL;
}

static void note_used(struct hostile *h, int fd)
{
    off_t from = 0, to;
    h->at = malloc(h->size / 8 * sizeof *h->at);
    assert_non_null(h->at);
    while ((from = lseek(fd, from, SEEK_DATA)) >= 0 && (size_t)from < h->size) {
        to = lseek(fd, from, SEEK_HOLE);
        for (off_t at = from; at < to; at += 8) h->at[h->used++] = (uint32_t)(at / 8);
        from = to;
    }
}

static void read_whole(struct hostile *h)
{
    struct stat found;
    int fd = open(h->s->path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &found), 0);
    h->size = (size_t)found.st_size;
    note_used(h, fd);
    h->whole = mmap(NULL, h->size, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(h->whole != MAP_FAILED);
    (void)close(fd);
}

static void make_copy(struct hostile *h)
{
    if (h->words != NULL) (void)munmap(h->words, h->size);
    (void)unlink(h->copy);
    int fd = open(h->copy, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)h->size), 0);
    h->words = mmap(NULL, h->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(h->words != MAP_FAILED);
    for (size_t i = 0; i < h->used; i++) h->words[h->at[i]] = h->whole[h->at[i]];
    (void)close(fd);
}

static void attach_copy(struct hostile *h)
{
    weir_area_detach(h->s->area);
    h->s->area = NULL;
    assert_int_equal(weir_area_attach(&h->s->area, h->copy, h->s->why), WEIR_OK);
}

static struct hostile begin(struct steer *s)
{
    struct hostile h = {.s = s, .seed = UINT64_C(0x2545f4914f6cdd1d)};
    (void)snprintf(h.copy, sizeof h.copy, "%s-copy", s->path);
    live_a_little(s);
    read_whole(&h);
    make_copy(&h);
    attach_copy(&h);
    return h;
}

static void end(struct hostile *h)
{
    (void)munmap(h->words, h->size);
    (void)munmap(h->whole, h->size);
    (void)unlink(h->copy);
    free(h->at);
    fake_free(&h->s->one);
    fake_free(&h->s->two);
}

/* ---- changing ---------------------------------------------------------------------------------------------------- */

/* Half of the time where something stands: empty words say little. */
static uint32_t place(struct hostile *h)
{
    for (int i = 0; i < 20; i++) {
        uint32_t at = h->at[next(h) % h->used];
        if (h->words[at] != 0 || i == 19) return at;
        if (next(h) % 16 == 0) return at;
    }
    return 0;
}

static uint64_t value(struct hostile *h, uint64_t old)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   2,
                                   63,
                                   64,
                                   65,
                                   0x7fffffff,
                                   0xffffffff,
                                   UINT64_MAX,
                                   UINT64_MAX - 1,
                                   UINT64_C(1) << 63,
                                   UINT64_C(0x7ff8000000000000),
                                   UINT64_C(0x7ff0000000000000),
                                   UINT64_C(0x8080808080808080),
                                   UINT64_C(0x2222222222222222),
                                   UINT64_C(0x5c5c5c5c5c5c5c5c)};
    switch (next(h) % 4) {
    case 0:
        return next(h);
    case 1:
        return old ^ UINT64_C(1) << (next(h) % 64);
    case 2:
        return odd[next(h) % (sizeof odd / sizeof *odd)];
    default:
        return h->words[h->at[next(h) % h->used]];
    }
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

static void read_documents(struct steer *s)
{
    static const char *const documents[] = {"stats",   "health", "calls",    "events",
                                            "workers", "conns",  "finished", "config"};
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        uint64_t argument = i == 2 ? 1000 : i == 6 ? UINT64_C(2) << 40 : 0;
        size_t length = weir_area_json(s->area, documents[i], argument, s->text, STEER_TEXT);
        assert_int_not_equal(length, 0);
        if (length < STEER_TEXT) assert_json(documents[i], s->text);
    }
}

static void read_figures(weir_area *area)
{
    weir_engine_figures engine;
    weir_pool_figures pool;
    weir_label_figures label;
    weir_backend_figures backend;
    weir_read_engine(area, &engine);
    for (size_t i = 0; i < 40; i++) (void)weir_read_pool(area, i, &pool);
    for (uint32_t i = 0; i < 70; i++) (void)weir_read_label(area, i % 3, i, &label);
    for (size_t i = 0; i < 20; i++) (void)weir_read_backend(area, i, &backend);
}

static void read_pages(weir_area *area)
{
    static const char *const paths[] = {"/health", "/readyz", "/metrics", "/stats.json", "/events.json"};
    weir_page page;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        assert_true(weir_page_get(area, paths[i], i == 2 ? "application/openmetrics-text" : NULL, &page));
    assert_true(weir_page_get(area, "/health", "application/health+json", &page));
}

static void look_at_all(struct steer *s)
{
    weir_order_progress progress;
    read_documents(s);
    read_figures(s->area);
    read_pages(s->area);
    for (uint64_t ticket = 0; ticket < 4; ticket++) weir_area_progress(s->area, ticket, &progress);
    (void)weir_area_look(s->area, s->why);
    (void)weir_area_may_steer(s->area, s->why);
}

static void steer_it(struct steer *s, uint64_t random)
{
    static const weir_breaker_state states[] = {WEIR_CLOSED, WEIR_FORCED_OPEN, WEIR_DISABLED};
    weir_order order = {.kind = (weir_order_kind)(random % WEIR_ORDER_POLICY + 1),
                        .pool = random % 2 == 0 ? NULL : "service@primary",
                        .max = (uint32_t)(random % 10),
                        .state = states[random % 3],
                        .call = UINT64_C(1) << 40 | 3};
    if (order.kind != WEIR_ORDER_POLICY) (void)weir_area_order(s->area, &order, NULL, s->why);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void changed_bytes_do_no_harm(void **state)
{
    struct hostile h = begin(*state);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t at[CHANGES];
        size_t changes = 1 + next(&h) % CHANGES;
        for (size_t i = 0; i < changes; i++) {
            at[i] = place(&h);
            h.words[at[i]] = value(&h, h.words[at[i]]);
        }
        look_at_all(h.s);
        if (round % STEER_EVERY == 0) steer_it(h.s, next(&h));
        for (size_t i = 0; i < changes; i++) h.words[at[i]] = h.whole[at[i]];
        if (round % (4 * STEER_EVERY) == 0) { /* what the orders wrote */
            make_copy(&h);
            attach_copy(&h);
        }
    }
    look_at_all(h.s);
    attach_copy(&h); /* a name is learnt once, at the first look: that may have been a changed one */
    steer_expect(h.s, "stats", "\"pool\":\"service@primary\"");
    end(&h);
}

static void files_cut_short_at_any_place_do_no_harm(void **state)
{
    struct hostile h = begin(*state);
    for (int round = 0; round < ROUNDS / CUT_EVERY; round++) {
        size_t length = round % 2 == 0 ? next(&h) % h.size : h.at[next(&h) % h.used] * (size_t)8;
        assert_int_equal(truncate(h.copy, (off_t)length), 0);
        look_at_all(h.s);
        assert_int_equal(weir_area_look(h.s->area, h.s->why), WEIR_AREA_DAMAGED);
        steer_it(h.s, next(&h));
        make_copy(&h);
        attach_copy(&h);
    }
    end(&h);
}

/* What a file says that is attached anew each time, header and all. */
static void a_changed_header_is_refused_or_harmless(void **state)
{
    struct hostile h = begin(*state);
    for (int round = 0; round < ROUNDS / 4; round++) {
        uint32_t at = (uint32_t)(next(&h) % 64);
        h.words[at] = value(&h, h.words[at]);
        weir_area_detach(h.s->area);
        h.s->area = NULL;
        if (weir_area_attach(&h.s->area, h.copy, h.s->why) == WEIR_OK) look_at_all(h.s);
        h.words[at] = h.whole[at];
    }
    end(&h);
}

static void scribble(struct hostile *h)
{
    for (;;) {
        for (int i = 0; i < 50; i++) {
            uint32_t at = h->at[next(h) % h->used];
            h->words[at] = value(h, h->whole[at]);
            at = h->at[next(h) % h->used];
            h->words[at] = h->whole[at];
        }
        if (next(h) % 64 != 0) continue;
        (void)truncate(h->copy, (off_t)(next(h) % h->size));
        (void)truncate(h->copy, (off_t)h->size);
        for (size_t i = 0; i < h->used; i++) h->words[h->at[i]] = h->whole[h->at[i]];
    }
}

/* The scribbler touches what it has cut off itself only when the file is long again. */
static void a_file_that_changes_while_it_is_read_does_no_harm(void **state)
{
    struct hostile h = begin(*state);
    pid_t child = fork();
    if (child == 0) scribble(&h);
    for (int round = 0; round < RACES; round++) {
        look_at_all(h.s);
        if (round % 10 != 0) continue;
        weir_area_detach(h.s->area);
        h.s->area = NULL;
        while (weir_area_attach(&h.s->area, h.copy, h.s->why) != WEIR_OK) {
        }
    }
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        steer_test(changed_bytes_do_no_harm),
        steer_test(files_cut_short_at_any_place_do_no_harm),
        steer_test(a_changed_header_is_refused_or_harmless),
        steer_test(a_file_that_changes_while_it_is_read_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
