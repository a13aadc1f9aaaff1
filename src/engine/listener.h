/* A listener: one connection in state LISTENING, outside the path of calls; see weir/listen.h.
 *
 * - APART: no connection; the timer says when to look for one
 * - CONNECTING: one is with the crew
 * - ASKING: LISTENs and UNLISTENs are under way; the timer is the answer's deadline
 * - AT_REST: all is confirmed; the timer says when the server must have been heard of
 * - PROBING: it was not, and is asked; the timer is the answer's deadline
 * - OVER: the engine drains or has gone
 *
 * Freeing and draining only mark and arm the timer: nothing dies inside a callback, and the driver may be in the middle of
 * handing over notifications. */
#ifndef WR_LISTENER_H
#define WR_LISTENER_H

#include "engine/pool.h"
#include "weir/listen.h"

enum wr_listener_state {
    WR_LISTENER_APART = 0,
    WR_LISTENER_CONNECTING,
    WR_LISTENER_ASKING,
    WR_LISTENER_AT_REST,
    WR_LISTENER_PROBING,
    WR_LISTENER_OVER
};

struct wr_channel {
    struct wr_list link;
    bool wanted; /* by the owner */
    bool asked;  /* a statement about it is under way */
    bool there;  /* LISTENed to on the present connection */
    char name[WEIR_CHANNEL_MAX + 1];
    char sql[16 + 2 * WEIR_CHANNEL_MAX]; /* of the statement under way */
};

struct weir_listener {
    struct wr_list link;
    struct weir_engine *engine; /* NULL once it has gone */
    struct wr_memory memory;
    struct wr_pool *pool;
    enum wr_listener_state state;
    struct wr_conn *conn; /* CONNECTING, ASKING, AT_REST, PROBING */
    struct wr_timer timer;
    weir_backoff backoff;
    struct wr_list channels;
    size_t channel_count;
    weir_statement *statements; /* room for as many as there were channels when they were last sent */
    size_t statement_room;
    bool freed;               /* by its owner */
    bool heard;               /* was listening at least once */
    bool gap;                 /* to be told with the next LISTENING */
    bool lost_told;           /* of the present outage */
    bool announce;            /* LISTENING is to be told when nothing is left to ask */
    uint64_t place_wanted_at; /* since when a place in the pool is waited for; 0: is not */
    void (*notify)(void *user, weir_listener *listener, const weir_listen_event *event);
    void *user;
};

/* The connection's events. The listener of a failed connect or a lost connection has none afterwards. */
void wr_listener_connected(struct weir_listener *listener);
void wr_listener_unconnected(struct weir_listener *listener, const struct wr_fault *fault);
void wr_listener_settled(struct weir_listener *listener, const struct wr_reply *reply);
void wr_listener_lost(struct weir_listener *listener, const struct wr_fault *fault);
/* The driver's; owner is the wr_conn. The link must not be closed inside. */
void wr_listener_notified(void *owner, const char *channel, const char *payload, uint32_t pid);

void wr_listeners_drain(struct weir_engine *engine); /* they end in the next turn */
void wr_listeners_end(struct weir_engine *engine);   /* weir_free: they end now, and outlive the engine */

#endif
