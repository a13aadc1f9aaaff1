/* The health document, see healthdoc.h. The draft's `status` says pass, warn or fail, and its checks are lists under
 * "component:measurement"; all else in the document stays as it is without them. */
#include "web/healthdoc.h"

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

static void put_backend_checks(struct wr_writer *w)
{
    weir_backend_figures backend;
    for (size_t i = 0; weir_read_backend(w->area, i, &backend); i++) {
        if (!backend.known) continue;
        wr_puts(w, "\"");
        wr_puts(w, backend.name); /* letters, digits, - and _ */
        wr_puts(w, ":responseTime\":[{\"componentType\":\"datastore\",\"status\":\"");
        wr_puts(w, backend.ok ? "pass\",\"observedUnit\":\"ms\",\"observedValue\":" : "fail\",\"output\":");
        if (backend.ok) wr_put_count(w, (backend.elapsed_ns + 500000) / 1000000);
        if (!backend.ok) wr_put_json(w, backend.message);
        wr_puts(w, ",\"time\":\"");
        wr_put_rfc3339(w, backend.at_us);
        wr_puts(w, "\"}],");
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
