/* Answers with an end. A document is made once and sent to whoever asks for the same within ten times what it took to make
 * it, and no more than a quarter of the thread's time goes into making them: whatever HTTP clients ask for, calls go on.
 * What is sent is shared, and all of it together has a bound, so slow readers cannot fill the memory. */
#include "httpinside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MS = 1000000,
    GOOD_FOR = 10,               /* times the cost */
    GOOD_MAX_MS = 1000,          /* however dear it was */
    CREDIT_MAX_MS = 50,          /* what may be spent at once */
    SHARE = 4,                   /* one part of so many of all time */
    BYTES_MAX = 64 * 1024 * 1024 /* of bodies */
};

struct body {
    struct http_answers *answers;
    size_t length;
    char data[];
};

/* ---- time ------------------------------------------------------------------------------------------------- */

static void fill_up(struct http_answers *answers)
{
    uint64_t now = cli_now_ns();
    int64_t most = (int64_t)CREDIT_MAX_MS * MS, credit = answers->credit_ns;
    credit += (int64_t)((now - answers->filled_ns) / SHARE);
    answers->filled_ns = now;
    answers->credit_ns = credit < most ? credit : most;
}

bool http_answer_affordable(struct cli_httpd *httpd)
{
    fill_up(&httpd->answers);
    return httpd->answers.credit_ns > 0;
}

void http_answer_spent(struct cli_httpd *httpd, uint64_t ns)
{
    fill_up(&httpd->answers);
    httpd->answers.credit_ns -= (int64_t)ns; /* a debt, which only time pays */
}

/* ---- responses ---------------------------------------------------------------------------------------------- */

void http_answer_headers(struct MHD_Response *response, const char *type)
{
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    (void)MHD_add_response_header(response, "X-Frame-Options", "DENY");
    (void)MHD_add_response_header(response, "Content-Security-Policy", weir_page_csp());
}

static void free_body(void *of)
{
    struct body *body = of;
    body->answers->bytes -= body->length;
    free(body);
}

/* A response that copies the text; NULL: out of memory, or too much is on its way. */
static struct MHD_Response *make_response(struct http_answers *answers, const char *text, size_t length)
{
    if (length > BYTES_MAX - answers->bytes) return NULL;
    struct body *body = malloc(sizeof *body + length);
    if (body == NULL) return NULL;
    body->answers = answers;
    body->length = length;
    memcpy(body->data, text, length);
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback_cls(length, body->data, free_body, body);
    if (response == NULL) {
        free(body);
        return NULL;
    }
    answers->bytes += length;
    return response;
}

static enum MHD_Result send_response(struct http_client *client, unsigned http, struct MHD_Response *response)
{
    http_client_enter(client, HTTP_ANSWERING);
    return MHD_queue_response(client->connection, http, response);
}

enum MHD_Result http_answer_text(struct http_client *client, unsigned http, const char *text)
{
    struct MHD_Response *response = make_response(&client->httpd->answers, text, strlen(text));
    if (response == NULL) return MHD_NO;
    http_answer_headers(response, "text/plain; charset=utf-8");
    if (http == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    if (http == MHD_HTTP_UNAUTHORIZED) {
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer realm=\"weir\"");
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Basic realm=\"weir\"");
    }
    if (http == MHD_HTTP_SERVICE_UNAVAILABLE)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    enum MHD_Result result = send_response(client, http, response);
    MHD_destroy_response(response);
    return result;
}

/* ---- what is kept --------------------------------------------------------------------------------------------- */

static void forget(struct http_cached *cached)
{
    if (cached->response != NULL) MHD_destroy_response(cached->response);
    cached->response = NULL;
}

void http_answers_forget(struct cli_httpd *httpd)
{
    for (size_t i = 0; i < HTTP_CACHED; i++) forget(&httpd->answers.cached[i]);
}

static struct http_cached *find(struct http_answers *answers, const char *key)
{
    for (size_t i = 0; i < HTTP_CACHED; i++) {
        struct http_cached *cached = &answers->cached[i];
        if (cached->response != NULL && strcmp(cached->key, key) == 0) return cached;
    }
    return NULL;
}

static struct http_cached *place_for(struct http_answers *answers, const char *key)
{
    struct http_cached *place = find(answers, key);
    for (size_t i = 0; i < HTTP_CACHED && place == NULL; i++) {
        if (answers->cached[i].response == NULL) place = &answers->cached[i];
    }
    if (place == NULL) place = &answers->cached[0];
    for (size_t i = 0; i < HTTP_CACHED && place->response != NULL && strcmp(place->key, key) != 0; i++) {
        if (answers->cached[i].made_ns < place->made_ns) place = &answers->cached[i];
    }
    forget(place);
    (void)snprintf(place->key, sizeof place->key, "%s", key);
    return place;
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

/* Those that a load balancer asks for cost next to nothing and are never refused for lack of time. */
static bool is_small(const char *target)
{
    return strncmp(target, "/health", 7) == 0 || strcmp(target, "/livez") == 0 ||
           strcmp(target, "/readyz") == 0;
}

static struct http_cached *make_document(struct http_client *client, const char *accept, const char *key,
                                         enum MHD_Result *result)
{
    struct cli_httpd *httpd = client->httpd;
    uint64_t began = cli_now_ns();
    weir_page page;
    if (!http_page(httpd, client->target, accept, &page)) {
        *result = http_answer_text(client, MHD_HTTP_NOT_FOUND, "there is no such document\n");
        return NULL;
    }
    struct MHD_Response *response = make_response(&httpd->answers, page.body, page.length);
    if (response == NULL) {
        *result = http_answer_text(client, MHD_HTTP_SERVICE_UNAVAILABLE, "too many slow readers\n");
        return NULL;
    }
    http_answer_headers(response, page.type);
    struct http_cached *cached = place_for(&httpd->answers, key);
    uint64_t now = cli_now_ns(), good = (now - began) * GOOD_FOR, most = (uint64_t)GOOD_MAX_MS * MS;
    cached->response = response;
    cached->http = page.http;
    cached->made_ns = now;
    cached->good_ns = good < most ? good : most;
    http_answer_spent(httpd, now - began);
    return cached;
}

enum MHD_Result http_answer_document(struct http_client *client, const char *accept)
{
    struct cli_httpd *httpd = client->httpd;
    char key[HTTP_TARGET_MAX + HTTP_ACCEPT_MAX];
    enum MHD_Result result = MHD_NO;
    (void)snprintf(key, sizeof key, "%s\n%s", client->target, accept != NULL ? accept : "");
    struct http_cached *cached = find(&httpd->answers, key);
    uint64_t age = cached != NULL ? cli_now_ns() - cached->made_ns : 0;
    if (cached == NULL || age > cached->good_ns) {
        bool affordable = is_small(client->target) || http_answer_affordable(httpd);
        if (!affordable && (cached == NULL || age > (uint64_t)GOOD_MAX_MS * MS))
            return http_answer_text(client, MHD_HTTP_SERVICE_UNAVAILABLE, "asked for too often\n");
        if (affordable) cached = make_document(client, accept, key, &result);
        if (cached == NULL) return result;
    }
    return send_response(client, cached->http, cached->response);
}
