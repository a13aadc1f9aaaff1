/* The health document, see healthdoc.h. The draft's `status` says pass, warn or fail, and its checks are lists under
 * "component:measurement"; all else in the document stays as it is without them. */
#include "web/healthdoc.h"

#include <stdio.h>

static const char *word_of(weir_health health)
{
    return health == WEIR_HEALTHY ? "pass" : health == WEIR_DEGRADED ? "warn" : "fail";
}

/* Room is found by asking: the document says how long it is. */
static size_t put_document(struct wr_writer *w)
{
    size_t from = w->length;
    for (;;) {
        size_t length = weir_area_json(w->area, "health", 0, w->data + from, w->room - from);
        if (length < w->room - from) {
            w->length = from + length;
            return length;
        }
        if (!wr_writer_grow(w, length + 1)) return 0;
    }
}

/* One in the draft's form, which ends with the time. `output`: why it is not well; NULL: the time that it took. */
struct told {
    const char *name, *component, *status, *output;
    uint64_t elapsed_ns, at_us;
};

static void put_check(struct wr_writer *w, const struct told *told)
{
    char key[96];
    (void)snprintf(key, sizeof key, "%s:responseTime", told->name);
    wr_put_json(w, key);
    wr_puts(w, ":[{\"componentType\":\"");
    wr_puts(w, told->component);
    wr_puts(w, "\",\"status\":\"");
    wr_puts(w, told->status);
    wr_puts(w, told->output == NULL ? "\",\"observedUnit\":\"ms\",\"observedValue\":" : "\",\"output\":");
    if (told->output == NULL) wr_put_count(w, (told->elapsed_ns + 500000) / 1000000);
    if (told->output != NULL) wr_put_json(w, told->output);
    wr_puts(w, ",\"time\":\"");
    wr_put_rfc3339(w, told->at_us);
    wr_puts(w, "\"}],");
}

static void put_backend_checks(struct wr_writer *w)
{
    weir_backend_figures backend;
    for (size_t i = 0; weir_read_backend(w->area, i, &backend); i++) {
        struct told told = {.name = backend.name,
                            .component = "datastore",
                            .status = backend.ok ? "pass" : "fail",
                            .output = backend.ok ? NULL : backend.message,
                            .elapsed_ns = backend.elapsed_ns,
                            .at_us = backend.at_us};
        if (backend.known) put_check(w, &told);
    }
}

/* One that is not critical only makes the whole a warning, and so is one itself. */
static void put_custom_checks(struct wr_writer *w)
{
    weir_check_figures check;
    for (size_t i = 0; weir_read_check(w->area, i, &check); i++) {
        struct told told = {.name = check.name,
                            .component = "component",
                            .status = check.ok         ? "pass"
                                      : check.critical ? "fail"
                                                       : "warn",
                            .output = check.ok ? NULL : check.message,
                            .elapsed_ns = check.elapsed_ns,
                            .at_us = check.at_us};
        if (check.known) put_check(w, &told);
    }
}

static void put_fields(struct wr_writer *w, const weir_engine_figures *engine)
{
    wr_puts(w, "{\"status\":\"");
    wr_puts(w, word_of(engine->health));
    wr_puts(w, "\",\"version\":\"0\",\"releaseId\":\"" WEIR_VERSION "\",\"serviceId\":");
    wr_put_json(w, engine->name);
    wr_puts(
        w, ",\"description\":\"calls to PostgreSQL through Weir\",\"checks\":{\"uptime\":[{\"componentType\":"
           "\"system\",\"observedUnit\":\"s\",\"observedValue\":");
    wr_put_count(w, engine->uptime_ns / 1000000000);
    wr_puts(w, ",\"status\":\"pass\",\"time\":\"");
    wr_put_rfc3339(w, engine->now_us);
    wr_puts(w, "\"}],");
    put_backend_checks(w);
    put_custom_checks(w);
}

void wr_healthdoc_write(struct wr_writer *w, bool fields)
{
    static const char checks[] = "\"checks\":{";
    if (w->failed) return;
    size_t from = w->length;
    if (!fields) {
        put_document(w);
        return;
    }
    weir_engine_figures engine;
    weir_read_engine(w->area, &engine);
    put_fields(w, &engine);
    size_t at = w->length, length = put_document(w);
    const char *begin = w->failed ? NULL : memmem(w->data + at, length, checks, sizeof checks - 1);
    if (begin == NULL) { /* a document without checks: there was no memory for it */
        w->length = from;
        w->failed = true;
        return;
    }
    size_t skipped = (size_t)(begin - (w->data + at)) + sizeof checks - 1;
    memmove(w->data + at, w->data + at + skipped, length - skipped);
    w->length = at + length - skipped;
}
