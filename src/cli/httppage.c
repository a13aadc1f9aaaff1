/* What is shown under a path: an area's documents, or why there are none. */
#include "httpinside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TROUBLE_MAX = 2 * WEIR_WHY_MAX };

const char *http_trouble(const struct cli_httpd *httpd)
{
    return httpd->trouble != NULL ? httpd->trouble : "there is nothing to show";
}

bool http_path_is(const char *target, const char *path)
{
    size_t length = strlen(path);
    return strncmp(target, path, length) == 0 && (target[length] == '\0' || target[length] == '?');
}

static void give(weir_page *page, unsigned http, const char *type, const char *body)
{
    *page = (weir_page){.http = http, .type = type, .body = body, .length = strlen(body)};
}

/* As much of the sentence as fits, as the inside of a JSON string. */
static void escape(char *out, size_t size, const char *text)
{
    size_t length = 0;
    for (; *text != '\0' && length + 7 < size; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\') out[length++] = '\\';
        out[length++] = byte < 0x20 ? ' ' : (char)byte;
    }
    out[length] = '\0';
}

/* What stands behind the status in a document, which comes first in each; without an area, the keys that each has. */
static const char *rest_of(const weir_page *page, size_t *length)
{
    static const char empty[] =
        ",\"checks\":{\"database\":{\"status\":\"unknown\"}},\"pool\":{\"totalRequests\":0,"
        "\"successRate\":\"100.00\",\"averageResponseTime\":0,\"circuitState\":\"CLOSED\"}}";
    const char *comma = page->length > 0 ? memchr(page->body, ',', page->length) : NULL;
    *length = comma != NULL ? page->length - (size_t)(comma - page->body) : sizeof empty - 1;
    return comma != NULL ? comma : empty;
}

static void give_health(struct cli_httpd *httpd, const char *path, const char *accept, weir_page *page)
{
    static char body[256 * 1024];
    char sentence[TROUBLE_MAX];
    size_t length;
    *page = (weir_page){.type = "application/json"};
    if (httpd->area != NULL) (void)weir_page_get(httpd->area, path, accept, page);
    bool draft = strcmp(page->type, "application/health+json") == 0;
    const char *rest = rest_of(page, &length);
    if (length > sizeof body / 2) rest = rest_of(&(weir_page){.length = 0}, &length);
    escape(sentence, sizeof sentence, http_trouble(httpd));
    (void)snprintf(body, sizeof body, "{\"status\":\"%s\",\"reason\":\"%s\"%.*s",
                   draft ? "fail" : "unhealthy", sentence, (int)length, rest);
    give(page, 503, page->type, body);
}

static void give_sentence(const struct cli_httpd *httpd, weir_page *page)
{
    static char body[TROUBLE_MAX];
    (void)snprintf(body, sizeof body, "%s\n", http_trouble(httpd));
    give(page, 503, "text/plain; charset=utf-8", body);
}

/* The area's families and the process's, which come before the end mark of OpenMetrics. */
static void give_metrics(struct cli_httpd *httpd, const char *path, const char *accept, weir_page *page)
{
    static const char eof[] = "# EOF\n";
    char more[4096];
    (void)weir_page_get(httpd->area, path, accept, page);
    bool open_metrics = strncmp(page->type, "application/openmetrics-text", 28) == 0;
    size_t of_end = open_metrics ? sizeof eof - 1 : 0;
    size_t length = http_process_text(open_metrics, more, sizeof more), whole = page->length + length;
    if (page->http != 200 || page->length < of_end || length == 0) return;
    if (httpd->metrics_room < whole) {
        char *larger = realloc(httpd->metrics, whole * 2);
        if (larger == NULL) return;
        httpd->metrics = larger;
        httpd->metrics_room = whole * 2;
    }
    memcpy(httpd->metrics, page->body, page->length - of_end);
    memcpy(httpd->metrics + page->length - of_end, more, length);
    memcpy(httpd->metrics + whole - of_end, eof, of_end);
    page->body = httpd->metrics;
    page->length = whole;
}

bool http_page(struct cli_httpd *httpd, const char *path, const char *accept, weir_page *page)
{
    bool troubled = httpd->area == NULL || httpd->trouble != NULL;
    if (troubled && http_path_is(path, "/livez")) {
        give(page, 200, "text/plain; charset=utf-8", "alive\n");
    } else if (troubled && http_path_is(path, "/health")) {
        give_health(httpd, path, accept, page);
    } else if (httpd->area == NULL || (troubled && http_path_is(path, "/readyz"))) {
        give_sentence(httpd, page);
    } else if (http_path_is(path, "/metrics") && strstr(path, "set=otel") == NULL) {
        give_metrics(httpd, path, accept, page);
    } else {
        return weir_page_get(httpd->area, path, accept, page);
    }
    return true;
}
