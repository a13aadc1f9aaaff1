/* What the files of the HTTP server share; see httpd.h. */
#ifndef HTTPINSIDE_H
#define HTTPINSIDE_H

#include "httpd.h"

#include <sys/queue.h>

#include <microhttpd.h>

enum { HTTP_TARGET_MAX = 1024, HTTP_ACCEPT_MAX = 512 };

/* ---- a connection (httpd.c) ------------------------------------------------------------------------------- */

enum http_phase {
    HTTP_READING = 0, /* its next request, of which nothing may have come yet */
    HTTP_ANSWERING,   /* our answer is on its way */
    HTTP_STREAMING    /* the same, and it has no end */
};

struct http_client {
    TAILQ_ENTRY(http_client) link; /* the longest in its phase first */
    struct cli_httpd *httpd;
    struct MHD_Connection *connection;
    enum http_phase phase;
    uint64_t since_ns;            /* when the phase began */
    int fd;                       /* libmicrohttpd's */
    bool shut;                    /* we have shut it down; libmicrohttpd will notice */
    char target[HTTP_TARGET_MAX]; /* of the request, with its query; "" if it was too long */
};

TAILQ_HEAD(http_clients, http_client);

void http_client_enter(struct http_client *client, enum http_phase phase);
void http_client_shut(struct http_client *client); /* libmicrohttpd closes it in its next turn */

/* ---- answers (httpanswer.c) --------------------------------------------------------------------------------- */

enum { HTTP_CACHED = 8 };

struct http_cached {
    char key[HTTP_TARGET_MAX + HTTP_ACCEPT_MAX];
    struct MHD_Response *response; /* NULL: unused */
    unsigned http;
    uint64_t made_ns, good_ns; /* when it was made; for how long it is good */
};

struct http_answers {
    struct http_cached cached[HTTP_CACHED];
    size_t bytes;       /* of all bodies that are on their way or kept */
    int64_t credit_ns;  /* time that may be spent on documents */
    uint64_t filled_ns; /* when it was last counted up */
};

/* The document, made or kept. */
enum MHD_Result http_answer_document(struct http_client *client, const char *accept);
/* A short text of our own: allow and authenticate tell of headers that go with it. */
enum MHD_Result http_answer_text(struct http_client *client, unsigned http, const char *text);
void http_answer_headers(struct MHD_Response *response, const char *type);
bool http_answer_affordable(struct cli_httpd *httpd); /* whether there is time left for a large document */
void http_answer_spent(struct cli_httpd *httpd, uint64_t ns);
void http_answers_forget(struct cli_httpd *httpd); /* what is kept */

/* ---- streams of events (httpstream.c) -------------------------------------------------------------------------- */

enum { HTTP_PIECES = 4 };

struct http_stream {
    LIST_ENTRY(http_stream) link;
    struct http_client *client; /* NULL once its connection is closed */
    struct cli_httpd *httpd;
    struct cli_text *pieces[HTTP_PIECES]; /* to be sent, in this order */
    size_t piece_count, sent;             /* bytes of the first that are gone */
    uint64_t given_ns;                    /* when the first came */
    uint64_t after;                       /* the last event of the log that is sent or among the pieces */
    bool asleep;                          /* suspended: nothing to send */
    bool fresh;                           /* it was ready when this tick came */
    bool only_log;                        /* no figures */
};

LIST_HEAD(http_streams, http_stream);

enum MHD_Result http_stream_open(struct http_client *client, const char *last_event_id);
void http_stream_abandon(struct http_client *client);             /* its connection has closed */
void http_streams_tick(struct cli_httpd *httpd, uint64_t now_ns); /* once a second */
void http_streams_wake(struct cli_httpd *httpd);

/* ---- the daemon ------------------------------------------------------------------------------------------------- */

struct cli_httpd {
    struct MHD_Daemon *daemon;
    int fd;
    char *token;            /* NULL: anybody may ask */
    weir_area *area;        /* what is shown; NULL outside of cli_httpd_run, or if there is none */
    const char *trouble;    /* what /health has to tell; NULL: nothing */
    const weir_area *shown; /* what was shown last, to be compared only */
    uint64_t created_us;    /* since when what was shown last counts */
    struct http_clients clients;
    size_t client_count;
    struct http_answers answers;
    struct http_streams streams;
    size_t stream_count;
    uint64_t told;      /* the last event of the log that was told to streams */
    uint64_t ticked_ns; /* when streams and time limits were last looked after */
    char *metrics;      /* the last text of /metrics */
    size_t metrics_room;
    bool closing;
};

/* ---- what is shown (httppage.c) -------------------------------------------------------------------------------------- */

const char *http_trouble(const struct cli_httpd *httpd); /* a sentence, whether there is trouble or not */
bool http_path_is(const char *target, const char *path); /* whatever query the target has */
/* Families about this process (httpprocess.c); returns their length, 0 if there is no room. */
size_t http_process_text(bool open_metrics, char *out, size_t size);

/* The document of that path, as weir_page_get gives it. False: there is none. */
bool http_page(struct cli_httpd *httpd, const char *path, const char *accept, weir_page *page);

#endif
