/* HTTP for `weir serve`: a daemon of libmicrohttpd without threads of its own, turned by whoever watches its descriptor. It
 * gives what weir_page_get gives and a stream of events, and changes nothing. Everything has a bound, see httpd.c. */
#ifndef HTTPD_H
#define HTTPD_H

#include "weir/web.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- where it listens (httpaddress.c) -------------------------------------------------------------------- */

enum { CLI_ADDRESS_MAX = 256, CLI_WHY_MAX = 512 };

struct cli_address {
    int fd;                     /* -1: none */
    char text[CLI_ADDRESS_MAX]; /* "http://127.0.0.1:9450/" or "unix:PATH" */
    bool open_to_all;           /* others than this machine's users can reach it */
    char path[CLI_ADDRESS_MAX]; /* of a Unix socket, "" otherwise */
    uint64_t device, inode;     /* of that socket */
};

/* Listens at HOST:PORT, :PORT or PORT (on the loopback), [V6]:PORT, or unix:PATH. A socket that nobody listens on any more
 * is replaced; one in use, and whatever is no socket, is left alone. False: why has CLI_WHY_MAX bytes. */
bool cli_address_listen(struct cli_address *address, const char *text, char *why);

/* Removes the Unix socket if it is still ours. The descriptor is not closed. */
void cli_address_forget(struct cli_address *address);

/* ---- who may ask (httptoken.c) ----------------------------------------------------------------------------- */

/* True if the Authorization header carries the token: `Bearer TOKEN`, or `Basic` with it as the password, which is how a
 * browser can be asked for it. Takes as long for a wrong token as for the right one. header: NULL none. */
bool cli_token_fits(const char *token, const char *header);

/* ---- the daemon (httpd.c) ------------------------------------------------------------------------------------ */

struct cli_httpd;

/* The listening socket and the token (NULL: anybody may ask) are copied; the socket is closed with the daemon. NULL: why. */
struct cli_httpd *cli_httpd_start(const struct cli_address *address, const char *token, char *why);
void cli_httpd_stop(struct cli_httpd *httpd); /* accepts NULL */

/* Readable when cli_httpd_run has something to do. */
int cli_httpd_fd(const struct cli_httpd *httpd);

/* Does what there is to do and returns within how many seconds it wants to be called again; < 0: no hurry. `area` is what is
 * shown, until this returns; NULL: nothing, and every document but /livez is 503. trouble: a sentence that /health and
 * /readyz tell, with 503; NULL: none. */
double cli_httpd_run(struct cli_httpd *httpd, weir_area *area, const char *trouble);

/* No new connections from now on; streams end. */
void cli_httpd_quiesce(struct cli_httpd *httpd);

size_t cli_httpd_connections(const struct cli_httpd *httpd);

/* ---- inside -------------------------------------------------------------------------------------------------- */

uint64_t cli_now_ns(void);

/* A text that several answers send, freed with the last of them. */
struct cli_text {
    unsigned references;
    size_t length;
    char data[];
};

struct cli_text *cli_text_new(size_t length); /* with one reference; NULL: out of memory */
void cli_text_release(struct cli_text *text); /* accepts NULL */

#endif
