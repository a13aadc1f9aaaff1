/* weir/web.h: what an HTTP server shows of an engine, or of the engines on an area that is attached, whoever the server is. No sockets here: the caller has read a
 * request and writes the answer. Nothing here changes anything. */
#ifndef WEIR_WEB_H
#define WEIR_WEB_H

#include "weir/area.h"
#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weir_page {
    unsigned http;    /* status */
    const char *type; /* Content-Type; lives for ever */
    const char *body; /* until the next call with this area */
    size_t length;
} weir_page;

/* What GET `path` gives; `path` begins with a slash and may carry a query, `accept` is the request's Accept header or NULL.
 *
 *   /health        JSON: 200 healthy or degraded, 503 unhealthy. Accept: application/health+json adds the fields of
 *                  that draft, and `status` then says pass, warn or fail
 *   /livez         200 as long as somebody answers
 *   /readyz        200; 503 while draining, or when a backend marked critical does not answer
 *   /metrics       Prometheus text 0.0.4; OpenMetrics 1.0.0 if Accept prefers application/openmetrics-text;
 *                  with ?set=otel under the names of OpenTelemetry's conventions
 *   /stats.json, /calls.json?most=N (100), /events.json?after=N (0)   as weir_stats_json and its sisters give them
 *   /              the page, which asks for the three above by relative URL once a second, unless
 *                  there is a stream of events at /events (as `weir serve` has)
 *
 * False: there is no such document, *out is untouched. Out of memory: 500, with a body that says so. */
bool weir_page_get(weir_area *area, const char *path, const char *accept, weir_page *out);

/* The value of Content-Security-Policy that fits every answer: the page's one script and one style by their hashes,
 * connections to where it came from, and nothing else. Goes well with `Cache-Control: no-store` and
 * `X-Content-Type-Options: nosniff`. */
const char *weir_page_csp(void);

#ifdef __cplusplus
}
#endif
#endif
