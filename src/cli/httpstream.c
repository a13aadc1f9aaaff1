/* /events: what the page shows, once a second, and the log of events, each with its number as `id`, so that who comes back
 * with Last-Event-ID misses none that the log still holds. The text of a second is made once and shared. Who has not taken
 * what he was given gets nothing more, and after ten seconds is cut off: nothing queues up for slow readers. */
#include "httpinside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    STREAMS_MAX = 32,
    PATIENCE_S = 10,          /* for a reader */
    HEARTBEAT_S = 15,         /* of a stream that tells nothing else */
    SEND_BUFFER = 128 * 1024, /* bytes that the kernel keeps for a reader */
    CALLS = 100               /* the page shows so many */
};

/* ---- texts -------------------------------------------------------------------------------------------------- */

struct build {
    struct cli_text *text; /* its length is the room */
    size_t length;
    bool failed;
};

static void add(struct build *build, const char *data, size_t length)
{
    if (build->failed) return;
    size_t room = build->text != NULL ? build->text->length : 0;
    if (length > room - build->length) {
        size_t larger = (build->length + length) * 2;
        struct cli_text *text = realloc(build->text, sizeof *text + larger);
        if (text == NULL) {
            build->failed = true;
            return;
        }
        text->references = 1;
        text->length = larger;
        build->text = text;
    }
    memcpy(build->text->data + build->length, data, length);
    build->length += length;
}

static void add_words(struct build *build, const char *words)
{
    add(build, words, strlen(words));
}

/* NULL: nothing was added, or there was no memory for it. */
static struct cli_text *finish(struct build *build)
{
    if (build->failed || build->length == 0) {
        free(build->text);
        return NULL;
    }
    build->text->length = build->length;
    return build->text;
}

static bool add_document(struct build *build, struct cli_httpd *httpd, const char *path)
{
    weir_page page;
    if (!http_page(httpd, path, NULL, &page) || page.http != 200) return false;
    add(build, page.body, page.length);
    return true;
}

/* ---- figures ------------------------------------------------------------------------------------------------- */

static struct cli_text *make_state(struct cli_httpd *httpd)
{
    struct build build = {.length = 0};
    char calls[32];
    uint64_t began = cli_now_ns();
    (void)snprintf(calls, sizeof calls, "/calls.json?most=%d", CALLS);
    add_words(&build, "data: {\"stats\":");
    bool good = httpd->area != NULL && add_document(&build, httpd, "/stats.json");
    add_words(&build, ",\"calls\":");
    good = good && add_document(&build, httpd, calls);
    add_words(&build, "}\n\n");
    http_answer_spent(httpd, cli_now_ns() - began);
    if (!good) { /* the stream goes on, and tells why there is nothing in it */
        build.length = 0;
        add_words(&build, ": ");
        add_words(&build, httpd->area == NULL ? http_trouble(httpd) : "out of memory");
        add_words(&build, "\n\n");
    }
    return finish(&build);
}

/* ---- the log --------------------------------------------------------------------------------------------------- */

/* Behind the object that begins at `at`. Strings may hold braces. */
static const char *object_end(const char *at, const char *to)
{
    bool quoted = false;
    for (int depth = 0; at < to; at++) {
        if (quoted && *at == '\\')
            at++;
        else if (*at == '"')
            quoted = !quoted;
        else if (!quoted && *at == '{')
            depth++;
        else if (!quoted && *at == '}' && --depth == 0)
            return at + 1;
    }
    return to;
}

static uint64_t number_of(const char *object, size_t length)
{
    static const char name[] = "\"sequence\":";
    const char *at = memmem(object, length, name, sizeof name - 1);
    return at != NULL ? strtoull(at + sizeof name - 1, NULL, 10) : 0;
}

/* The events behind *after and up to `most`; *after becomes the last one's. NULL: there are none. */
static struct cli_text *make_log(struct cli_httpd *httpd, uint64_t *after, uint64_t most)
{
    struct build build = {.length = 0};
    char path[64];
    weir_page page;
    (void)snprintf(path, sizeof path, "/events.json?after=%llu", (unsigned long long)*after);
    if (httpd->area == NULL || !http_page(httpd, path, NULL, &page) || page.http != 200) return NULL;
    const char *to = page.body + page.length;
    for (const char *at = page.body; (at = memchr(at, '{', (size_t)(to - at))) != NULL;) {
        const char *end = object_end(at, to);
        uint64_t number = number_of(at, (size_t)(end - at));
        char head[64];
        if (number > most) break;
        (void)snprintf(head, sizeof head, "id: %llu\nevent: log\ndata: ", (unsigned long long)number);
        add_words(&build, head);
        add(&build, at, (size_t)(end - at));
        add_words(&build, "\n\n");
        if (number > *after) *after = number;
        at = end;
    }
    return finish(&build);
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

static void give(struct http_stream *stream, struct cli_text *text)
{
    if (text == NULL || stream->piece_count == HTTP_PIECES) return;
    if (stream->piece_count == 0) stream->given_ns = cli_now_ns();
    text->references++;
    stream->pieces[stream->piece_count++] = text;
}

static void take_first(struct http_stream *stream)
{
    cli_text_release(stream->pieces[0]);
    stream->piece_count--;
    memmove(stream->pieces, stream->pieces + 1, stream->piece_count * sizeof *stream->pieces);
    stream->sent = 0;
}

static void wake(struct http_stream *stream)
{
    if (!stream->asleep || stream->client == NULL) return;
    stream->asleep = false;
    MHD_resume_connection(stream->client->connection);
}

void http_streams_wake(struct cli_httpd *httpd)
{
    struct http_stream *stream;
    LIST_FOREACH(stream, &httpd->streams, link) wake(stream);
}

static ssize_t on_read(void *cls, uint64_t position, char *out, size_t most)
{
    struct http_stream *stream = cls;
    (void)position;
    if (stream->httpd->closing || stream->client == NULL || stream->client->shut)
        return MHD_CONTENT_READER_END_OF_STREAM;
    while (stream->piece_count > 0 && stream->sent == stream->pieces[0]->length) take_first(stream);
    if (stream->piece_count == 0) {
        stream->asleep = true;
        MHD_suspend_connection(stream->client->connection);
        return 0;
    }
    size_t left = stream->pieces[0]->length - stream->sent, count = left < most ? left : most;
    memcpy(out, stream->pieces[0]->data + stream->sent, count);
    stream->sent += count;
    return (ssize_t)count;
}

/* ---- opening and closing ---------------------------------------------------------------------------------------- */

static void on_free(void *cls)
{
    struct http_stream *stream = cls;
    while (stream->piece_count > 0) take_first(stream);
    LIST_REMOVE(stream, link);
    stream->httpd->stream_count--;
    free(stream);
}

void http_stream_abandon(struct http_client *client)
{
    struct http_stream *stream;
    LIST_FOREACH(stream, &client->httpd->streams, link)
    {
        if (stream->client == client) stream->client = NULL;
    }
}

/* What has happened since it was last told goes to all who are ready. */
static void tell_log(struct cli_httpd *httpd)
{
    uint64_t from = httpd->told;
    struct http_stream *stream;
    struct cli_text *news = make_log(httpd, &httpd->told, UINT64_MAX);
    LIST_FOREACH(stream, &httpd->streams, link)
    {
        stream->fresh = stream->piece_count == 0;
        if (!stream->fresh) continue;
        if (stream->after < from) { /* it was not ready before */
            struct cli_text *missed = make_log(httpd, &stream->after, from);
            give(stream, missed);
            cli_text_release(missed);
        }
        give(stream, news);
        stream->after = httpd->told;
    }
    cli_text_release(news);
}

static struct http_stream *new_stream(struct http_client *client, uint64_t after)
{
    static const char hello[] = "retry: 2000\n\n";
    struct cli_httpd *httpd = client->httpd;
    struct http_stream *stream = calloc(1, sizeof *stream);
    struct cli_text *text = cli_text_new(sizeof hello - 1);
    if (stream == NULL || text == NULL) {
        free(stream);
        cli_text_release(text);
        return NULL;
    }
    stream->httpd = httpd;
    stream->client = client;
    stream->only_log = strstr(client->target, "state=0") != NULL;
    memcpy(text->data, hello, sizeof hello - 1);
    give(stream, text);
    cli_text_release(text);
    tell_log(httpd);
    stream->after = after > httpd->told ? 0 : after; /* a number that the log never gave: another log's */
    text = make_log(httpd, &stream->after, httpd->told);
    give(stream, text);
    cli_text_release(text);
    stream->after = httpd->told;
    text = stream->only_log ? NULL : make_state(httpd);
    give(stream, text);
    cli_text_release(text);
    LIST_INSERT_HEAD(&httpd->streams, stream, link);
    httpd->stream_count++;
    return stream;
}

enum MHD_Result http_stream_open(struct http_client *client, const char *last_event_id)
{
    struct cli_httpd *httpd = client->httpd;
    int bytes = SEND_BUFFER;
    if (httpd->closing || httpd->stream_count >= STREAMS_MAX || !http_answer_affordable(httpd))
        return http_answer_text(client, MHD_HTTP_SERVICE_UNAVAILABLE, "too many streams\n");
    struct http_stream *stream =
        new_stream(client, last_event_id != NULL ? strtoull(last_event_id, NULL, 10) : 0);
    if (stream == NULL) return MHD_NO;
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, on_read, stream, on_free);
    if (response == NULL) {
        on_free(stream);
        return MHD_NO;
    }
    http_answer_headers(response, "text/event-stream");
    (void)setsockopt(client->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    http_client_enter(client, HTTP_STREAMING);
    enum MHD_Result result = MHD_queue_response(client->connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return result;
}

/* ---- once a second ------------------------------------------------------------------------------------------------ */

static void tell_state(struct cli_httpd *httpd, uint64_t now)
{
    static const char beat[] = ": nothing new\n\n";
    struct cli_text *state = make_state(httpd), *heartbeat = cli_text_new(sizeof beat - 1);
    struct http_stream *stream;
    if (heartbeat != NULL) memcpy(heartbeat->data, beat, sizeof beat - 1);
    LIST_FOREACH(stream, &httpd->streams, link)
    {
        if (stream->fresh && !stream->only_log) give(stream, state);
        if (stream->only_log && stream->piece_count == 0 &&
            now - stream->given_ns > (uint64_t)HEARTBEAT_S * 1000000000)
            give(stream, heartbeat);
    }
    cli_text_release(heartbeat);
    cli_text_release(state);
}

void http_streams_tick(struct cli_httpd *httpd, uint64_t now)
{
    struct http_stream *stream;
    if (LIST_EMPTY(&httpd->streams)) return;
    tell_log(httpd);
    tell_state(httpd, now);
    LIST_FOREACH(stream, &httpd->streams, link)
    {
        bool stuck = stream->piece_count > 0 && now > stream->given_ns + (uint64_t)PATIENCE_S * 1000000000;
        if (stuck && stream->client != NULL) http_client_shut(stream->client);
        if (stream->piece_count > 0) wake(stream);
    }
}
