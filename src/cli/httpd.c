/* The HTTP server of `weir serve`; see httpd.h. libmicrohttpd reads requests and writes answers; here is what it does not do:
 * time limits for whole requests and answers (its own begins anew with each byte), room for newcomers when the connections
 * are used up, and who may ask for what. */
#include "httpinside.h"

#include "weir/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 400,    /* from then on the kernel keeps them waiting */
    CONNECTIONS_SOFT = 200,   /* from then on each new one costs the one that has idled longest */
    CONNECTION_BYTES = 16384, /* for a request's header and its answer's together */
    READING_S = 10,           /* for a whole request, and for having none */
    ANSWERING_S = 20,         /* until the whole answer is taken */
    TICK_NS = 1000000000      /* streams and time limits */
};

uint64_t cli_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- texts --------------------------------------------------------------------------------------------------- */

struct cli_text *cli_text_new(size_t length)
{
    struct cli_text *text = malloc(sizeof *text + length);
    if (text == NULL) return NULL;
    text->references = 1;
    text->length = length;
    return text;
}

void cli_text_release(struct cli_text *text)
{
    if (text != NULL && --text->references == 0) free(text);
}

/* ---- connections ----------------------------------------------------------------------------------------------- */

void http_client_enter(struct http_client *client, enum http_phase phase)
{
    struct cli_httpd *httpd = client->httpd;
    client->phase = phase;
    client->since_ns = cli_now_ns();
    TAILQ_REMOVE(&httpd->clients, client, link);
    TAILQ_INSERT_TAIL(&httpd->clients, client, link);
}

void http_client_shut(struct http_client *client)
{
    if (client->shut) return;
    client->shut = true;
    (void)shutdown(client->fd, SHUT_RDWR);
}

static struct http_client *longest_in(struct cli_httpd *httpd, enum http_phase phase)
{
    struct http_client *client;
    TAILQ_FOREACH(client, &httpd->clients, link)
    {
        if (client->phase == phase && !client->shut) return client;
    }
    return NULL;
}

static void make_room(struct cli_httpd *httpd)
{
    if (httpd->client_count <= CONNECTIONS_SOFT) return;
    struct http_client *client = longest_in(httpd, HTTP_READING);
    if (client == NULL) client = longest_in(httpd, HTTP_ANSWERING);
    if (client != NULL) http_client_shut(client);
}

static void connection_begins(struct cli_httpd *httpd, struct MHD_Connection *connection, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct http_client *client = calloc(1, sizeof *client);
    *context = client;
    if (client == NULL || info == NULL) return;
    client->httpd = httpd;
    client->connection = connection;
    client->fd = info->connect_fd;
    client->since_ns = cli_now_ns();
    make_room(httpd);
    TAILQ_INSERT_TAIL(&httpd->clients, client, link);
    httpd->client_count++;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct cli_httpd *httpd = cls;
    struct http_client *client = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        connection_begins(httpd, connection, context);
    } else if (client != NULL) {
        http_stream_abandon(client);
        TAILQ_REMOVE(&httpd->clients, client, link);
        httpd->client_count--;
        free(client);
        *context = NULL;
    }
}

static struct http_client *client_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct http_client *client = client_of(connection);
    (void)cls;
    (void)context;
    (void)code;
    if (client == NULL) return;
    http_stream_abandon(client);
    http_client_enter(client, HTTP_READING);
}

static void enforce_limits(struct cli_httpd *httpd, uint64_t now)
{
    struct http_client *client;
    TAILQ_FOREACH(client, &httpd->clients, link)
    {
        uint64_t age = now - client->since_ns, second = 1000000000;
        if (client->phase == HTTP_READING && age > READING_S * second) http_client_shut(client);
        if (client->phase == HTTP_ANSWERING && age > ANSWERING_S * second) http_client_shut(client);
    }
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

/* The target as it was sent: what libmicrohttpd hands on later has lost its query. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct http_client *client = client_of(connection);
    (void)cls;
    if (client == NULL) return NULL;
    int length = snprintf(client->target, sizeof client->target, "%s", target);
    if (length < 0 || (size_t)length >= sizeof client->target) client->target[0] = '\0';
    return NULL;
}

static const char *header_of(const struct http_client *client, const char *name)
{
    return MHD_lookup_connection_value(client->connection, MHD_HEADER_KIND, name);
}

static bool may_ask(const struct http_client *client)
{
    if (client->httpd->token == NULL) return true;
    if (http_path_is(client->target, "/livez") || http_path_is(client->target, "/readyz")) return true;
    return cli_token_fits(client->httpd->token, header_of(client, MHD_HTTP_HEADER_AUTHORIZATION));
}

static enum MHD_Result answer(struct http_client *client)
{
    if (client->target[0] == '\0')
        return http_answer_text(client, MHD_HTTP_URI_TOO_LONG, "the address is too long\n");
    if (!may_ask(client)) return http_answer_text(client, MHD_HTTP_UNAUTHORIZED, "a token is needed\n");
    if (http_path_is(client->target, "/events"))
        return http_stream_open(client, header_of(client, "Last-Event-ID"));
    const char *accept = header_of(client, MHD_HTTP_HEADER_ACCEPT);
    return http_answer_document(client, accept != NULL && strlen(accept) < HTTP_ACCEPT_MAX ? accept : NULL);
}

/* First when the header is there: whoever is answered then loses his connection. Then for each part of a body, and last when
 * the request is whole. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **context)
{
    struct http_client *client = client_of(connection);
    bool first = *context == NULL;
    (void)cls;
    (void)url;
    (void)version;
    (void)upload;
    if (client == NULL) return MHD_NO;
    *context = client;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return http_answer_text(client, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    if (!first && *upload_size == 0) return answer(client);
    *upload_size = 0;
    return MHD_YES;
}

/* ---- the daemon ------------------------------------------------------------------------------------------------------ */

static void say_nothing(void *cls, const char *format, va_list arguments)
{
    (void)cls;
    (void)format;
    (void)arguments;
}

struct cli_httpd *cli_httpd_start(const struct cli_address *address, const char *token, char *why)
{
    struct cli_httpd *httpd = calloc(1, sizeof *httpd);
    if (httpd != NULL && token != NULL) httpd->token = strdup(token);
    if (httpd == NULL || (token != NULL && httpd->token == NULL)) {
        free(httpd);
        (void)snprintf(why, CLI_WHY_MAX, "out of memory");
        return NULL;
    }
    TAILQ_INIT(&httpd->clients);
    LIST_INIT(&httpd->streams);
    httpd->answers.filled_ns = httpd->ticked_ns = cli_now_ns();
    httpd->daemon =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
                         on_request, httpd, MHD_OPTION_EXTERNAL_LOGGER, say_nothing, NULL,
                         MHD_OPTION_LISTEN_SOCKET, address->fd, MHD_OPTION_CONNECTION_LIMIT,
                         (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                         (size_t)CONNECTION_BYTES, MHD_OPTION_NOTIFY_CONNECTION, on_connection, httpd,
                         MHD_OPTION_NOTIFY_COMPLETED, on_completed, httpd, MHD_OPTION_URI_LOG_CALLBACK,
                         on_target, httpd, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        httpd->daemon != NULL ? MHD_get_daemon_info(httpd->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (info != NULL) {
        httpd->fd = info->epoll_fd;
        return httpd;
    }
    (void)snprintf(why, CLI_WHY_MAX, "libmicrohttpd does not start");
    if (httpd->daemon != NULL) MHD_stop_daemon(httpd->daemon);
    free(httpd->token);
    free(httpd);
    return NULL;
}

int cli_httpd_fd(const struct cli_httpd *httpd)
{
    return httpd->fd;
}

size_t cli_httpd_connections(const struct cli_httpd *httpd)
{
    return httpd->client_count;
}

static double patience(const struct cli_httpd *httpd)
{
    MHD_UNSIGNED_LONG_LONG ms;
    if (httpd->client_count == 0) return -1;
    double wait = (double)(httpd->ticked_ns + TICK_NS - cli_now_ns()) / 1e9;
    if (wait < 0 || wait > 1) wait = 0;
    if (MHD_get_timeout(httpd->daemon, &ms) == MHD_YES && (double)ms / 1e3 < wait) wait = (double)ms / 1e3;
    return wait;
}

/* Since when an area counts tells whether it is another one: a policy that is read again opens a new engine on the old area,
 * and its log goes on. */
static void change(struct cli_httpd *httpd, weir_area *area)
{
    weir_engine_figures figures;
    httpd->shown = area;
    if (area == NULL) return;
    weir_read_engine(area, &figures);
    if (figures.created_us != httpd->created_us) httpd->told = 0;
    httpd->created_us = figures.created_us;
}

static void show(struct cli_httpd *httpd, weir_area *area, const char *trouble)
{
    bool same = area == httpd->shown && (trouble != NULL) == (httpd->trouble != NULL);
    if (!same) http_answers_forget(httpd);
    if (area != httpd->shown) change(httpd, area);
    httpd->area = area;
    httpd->trouble = trouble;
}

double cli_httpd_run(struct cli_httpd *httpd, weir_area *area, const char *trouble)
{
    show(httpd, area, trouble);
    (void)MHD_run(httpd->daemon);
    uint64_t now = cli_now_ns();
    if (now - httpd->ticked_ns >= TICK_NS) {
        httpd->ticked_ns = now;
        enforce_limits(httpd, now);
        http_streams_tick(httpd, now);
        (void)MHD_run(httpd->daemon);
    }
    httpd->area = NULL;
    return patience(httpd);
}

void cli_httpd_quiesce(struct cli_httpd *httpd)
{
    MHD_socket fd = MHD_quiesce_daemon(httpd->daemon);
    if (fd != MHD_INVALID_SOCKET) close(fd);
    httpd->closing = true;
    http_streams_wake(httpd);
}

void cli_httpd_stop(struct cli_httpd *httpd)
{
    if (httpd == NULL) return;
    http_answers_forget(httpd);
    cli_httpd_quiesce(httpd);
    (void)MHD_run(httpd->daemon); /* or it would find connections that are suspended */
    MHD_stop_daemon(httpd->daemon);
    free(httpd->metrics);
    free(httpd->token);
    free(httpd);
}
