/* A network that fails on purpose: a TCP listener in front of a server, with a thread of its own. It reads
 * the messages of PostgreSQL's protocol just far enough to know a BEGIN and a COMMIT when they pass, so that
 * a test can lose exactly the one it means. All functions may be called from the test's thread at any time;
 * what they set counts from then on.
 *
 * Answers are written without waiting long for the reader: not for tests that move megabytes. */
#ifndef WR_TEST_PROXY_H
#define WR_TEST_PROXY_H

#include <stdbool.h>
#include <stddef.h>

struct proxy;
struct server;

struct proxy *proxy_start(struct server *server);
void proxy_stop(struct proxy *proxy); /* resets what is left; accepts NULL */

/* "host=127.0.0.1 port=... dbname=postgres", without TLS; `more` is appended. Belongs to the proxy. */
const char *proxy_conninfo(struct proxy *proxy, const char *more);
/* New connections go to this server. */
void proxy_upstream(struct proxy *proxy, struct server *server);

/* RESET: at once; MUTE: accepted, then silence for good. */
enum proxy_door { PROXY_OPEN = 0, PROXY_RESET, PROXY_MUTE };
void proxy_door(struct proxy *proxy, enum proxy_door door);

/* Nothing moves any more on any connection, in either direction, until it is ended. */
void proxy_silence(struct proxy *proxy, bool silent);
/* Every burst is held back so long, each way. */
void proxy_delay(struct proxy *proxy, int ms);
/* Ends all connections. */
void proxy_reset_all(struct proxy *proxy);

enum proxy_loss {
    PROXY_LOSE_COMMIT = 1, /* the server never sees it */
    PROXY_LOSE_ANSWER,     /* the server has committed, its answer is dropped */
    PROXY_LOSE_CLIENT      /* the server gets it, and the client is cut off while it works */
};
/* So befalls the next `times` COMMITs. */
void proxy_at_commit(struct proxy *proxy, enum proxy_loss loss, size_t times);

enum proxy_way { PROXY_TO_SERVER = 0, PROXY_TO_CLIENT, PROXY_WAYS };
/* The next unit of work, counted from its BEGIN, is cut after `at` bytes that way, with a reset or an
 * orderly end by turns; the one after it after at + step, and so on below `end`. Units beyond pass
 * unharmed. Replaces earlier ones. */
void proxy_cut_units(struct proxy *proxy, enum proxy_way way, size_t at, size_t end, size_t step);
bool proxy_cuts_left(struct proxy *proxy);
/* The next connection is cut after `at` bytes that way, counted from its first. */
void proxy_cut_connect(struct proxy *proxy, enum proxy_way way, size_t at);
/* The next SQL text that starts so is forwarded, and its answer lost. NULL: none. */
void proxy_lose_answer_to(struct proxy *proxy, const char *sql);

size_t proxy_losses(struct proxy *proxy); /* how often any of the above has struck */
/* Passed since the last BEGIN, on its connection. */
size_t proxy_unit_bytes(struct proxy *proxy, enum proxy_way way);
size_t proxy_sessions(struct proxy *proxy);
size_t proxy_accepted(struct proxy *proxy); /* ever, cancel requests left out */
/* The most that were accepted and not yet ready for a query, at one time. */
size_t proxy_most_connecting(struct proxy *proxy);

#endif
