/* Which document a path means; see weir/web.h. */
#include "weir/web.h"

#include "web/accept.h"
#include "web/healthdoc.h"
#include "web/pagetext.h"
#include "web/scrape.h"

#include <stdlib.h>

static const char plain_type[] = "text/plain; charset=utf-8";
static const char json_type[] = "application/json";

struct asked {
    weir_area *area;
    const char *query; /* behind the question mark, "" if there is none */
    const char *accept;
};

/* The number of `name=` in the query; `otherwise` if it is not there or no number. */
static uint64_t number_in(const char *query, const char *name, uint64_t otherwise)
{
    size_t length = strlen(name);
    for (const char *at = query; at != NULL && *at != '\0'; at = strchr(at, '&')) {
        if (*at == '&') at++;
        if (strncmp(at, name, length) != 0 || at[length] != '=') continue;
        const char *digits = at + length + 1;
        if (*digits < '0' || *digits > '9') return otherwise;
        return strtoull(digits, NULL, 10);
    }
    return otherwise;
}

/* Whether one of the query's parts is just that. */
static bool query_says(const char *query, const char *part)
{
    size_t length = strlen(part);
    for (const char *at = query; at != NULL && *at != '\0'; at = strchr(at, '&')) {
        if (*at == '&') at++;
        if (strncmp(at, part, length) == 0 && (at[length] == '\0' || at[length] == '&')) return true;
    }
    return false;
}

static void give(weir_page *out, unsigned http, const char *type, const char *body, size_t length)
{
    *out = (weir_page){.http = http, .type = type, .body = body, .length = length};
}

static void give_text(weir_page *out, unsigned http, const char *text)
{
    give(out, http, plain_type, text, strlen(text));
}

/* ---- the documents ----------------------------------------------------------------------------------------------- */

static void give_health(const struct asked *asked, weir_page *out)
{
    static const char draft_type[] = "application/health+json";
    bool draft = wr_accept_special(asked->accept, (struct wr_form){draft_type, NULL},
                                   (struct wr_form){json_type, NULL});
    weir_engine_figures engine;
    weir_read_engine(asked->area, &engine);
    unsigned http = engine.health == WEIR_UNHEALTHY ? 503 : 200;
    struct wr_writer w;
    wr_writer_init(&w, asked->area);
    wr_healthdoc_write(&w, draft);
    if (!w.failed) give(out, http, draft ? draft_type : json_type, w.data, w.length);
}

static void give_live(const struct asked *asked, weir_page *out)
{
    (void)asked;
    give_text(out, 200, "alive\n");
}

static void give_ready(const struct asked *asked, weir_page *out)
{
    weir_engine_figures engine;
    weir_read_engine(asked->area, &engine);
    if (engine.draining) {
        give_text(out, 503, "draining\n");
    } else if (engine.critical_down) {
        give_text(out, 503, "a critical backend does not answer\n");
    } else {
        give_text(out, 200, "ready\n");
    }
}

static void give_metrics(const struct asked *asked, weir_page *out)
{
    static const char open_type[] = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    static const char text_type[] = "text/plain; version=0.0.4; charset=utf-8";
    struct wr_scrape scrape;
    if (!wr_scrape_read(&scrape, asked->area)) return;
    scrape.open_metrics =
        wr_accept_special(asked->accept, (struct wr_form){"application/openmetrics-text", "1.0.0"},
                          (struct wr_form){"text/plain", "0.0.4"});
    scrape.set = query_says(asked->query, "set=otel") ? &wr_otel_set : &wr_native_set;
    wr_exposition_write(&scrape);
    if (scrape.w.failed) return;
    give(out, 200, scrape.open_metrics ? open_type : text_type, scrape.w.data + scrape.text_at,
         scrape.w.length - scrape.text_at);
}

/* Gives what `write` writes. It says how long its text is, whether there was room for it or not; by the next look it may
 * have grown. */
static void give_json(const struct asked *asked, weir_page *out,
                      size_t (*write)(const struct asked *asked, char *text, size_t size))
{
    size_t room;
    char *text = weir_scratch(asked->area, 1, &room);
    while (text != NULL) {
        size_t length = write(asked, text, room);
        if (length < room) {
            give(out, 200, json_type, text, length);
            return;
        }
        text = weir_scratch(asked->area, length + 1, &room);
    }
}

static size_t write_stats(const struct asked *asked, char *text, size_t size)
{
    return weir_area_json(asked->area, "stats", 0, text, size);
}

static size_t write_calls(const struct asked *asked, char *text, size_t size)
{
    return weir_area_json(asked->area, "calls", number_in(asked->query, "most", 100), text, size);
}

static size_t write_events(const struct asked *asked, char *text, size_t size)
{
    return weir_area_json(asked->area, "events", number_in(asked->query, "after", 0), text, size);
}

static void give_stats(const struct asked *asked, weir_page *out)
{
    give_json(asked, out, write_stats);
}

static void give_calls(const struct asked *asked, weir_page *out)
{
    give_json(asked, out, write_calls);
}

static void give_events(const struct asked *asked, weir_page *out)
{
    give_json(asked, out, write_events);
}

static void give_page(const struct asked *asked, weir_page *out)
{
    (void)asked;
    give(out, 200, "text/html; charset=utf-8", (const char *)wr_page_html, wr_page_html_length);
}

/* ---- by path ------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *path;
    void (*give)(const struct asked *asked, weir_page *out);
} documents[] = {
    {"/health", give_health},      {"/livez", give_live},
    {"/readyz", give_ready},       {"/metrics", give_metrics},
    {"/stats.json", give_stats},   {"/calls.json", give_calls},
    {"/events.json", give_events}, {"/", give_page},
};

bool weir_page_get(weir_area *area, const char *path, const char *accept, weir_page *out)
{
    const char *mark = strchr(path, '?');
    size_t length = mark == NULL ? strlen(path) : (size_t)(mark - path);
    struct asked asked = {area, mark == NULL ? "" : mark + 1, accept};
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        if (strlen(documents[i].path) != length || strncmp(path, documents[i].path, length) != 0) continue;
        give_text(out, 500, "out of memory\n"); /* unless the document can be given */
        documents[i].give(&asked, out);
        return true;
    }
    return false;
}

const char *weir_page_csp(void)
{
    return wr_page_csp;
}
