/* weir/listen.h: notifications. A listener holds one connection of a pool outside the path of calls, and LISTENs on it.
 * When that is lost it comes back by itself, and says that something may have been missed meanwhile: PostgreSQL keeps no
 * notification for who was not there.
 *
 * - Identity: only a SERVICE client may listen. LISTEN asks for no privilege and knows no row-level security: who listens
 *   reads every payload that anybody sends on the channel, so an ANON client's listener is refused (WEIR_EINVAL).
 * - Not behind a transaction pooler, where a session is nobody's for long: refused (WEIR_EINVAL).
 * - The connection counts under the client's `max`. An idle one is taken if there is one, else one is opened, as for a call.
 *   The breaker is not asked, but a connect that fails is told to it. While every place is taken the listener waits for one.
 * - At least once per health interval (30 s if the monitor is off) the server must be heard of; else it is asked, and if it
 *   does not answer within connect_timeout the connection is given up as lost.
 * - A listener may be made, changed and freed from its own callback and from a call's. All that follows happens in a later
 *   turn. */
#ifndef WEIR_LISTEN_H
#define WEIR_LISTEN_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    WEIR_CHANNEL_MAX = 63,  /* bytes of a channel's name: what PostgreSQL cuts a name to */
    WEIR_CHANNELS_MAX = 256 /* channels of one listener */
};

typedef struct weir_listener weir_listener;

typedef enum weir_listen_kind { /* only ever grows at the end */
                                WEIR_LISTENING =
                                    0, /* all channels asked for are confirmed: at first, after a loss, after a change */
                                WEIR_NOTIFICATION,
                                WEIR_LISTEN_LOST, /* no connection: once per outage, and it goes on trying */
                                WEIR_LISTEN_OVER  /* the engine drains or was freed: the last event */
} weir_listen_kind;

typedef struct weir_listen_event { /* lives during the callback */
    weir_listen_kind kind;
    bool gap; /* LISTENING: notifications may have been missed since the last event but LOST */
    const char *channel, *payload; /* NOTIFICATION */
    uint32_t pid;                  /* NOTIFICATION: of the backend that sent it */
    const weir_error *error;       /* LOST */
} weir_listen_event;

typedef struct weir_listen_options {
    const char *client;  /* a SERVICE client's name */
    const char *backend; /* NULL: the first */
    const char *const
        *channels;        /* any text, taken literally (upper case and quotes too), 1 .. 63 bytes each */
    size_t channel_count; /* 0 .. 256; twice the same is once */
    void (*notify)(void *user, weir_listener *listener,
                   const weir_listen_event *event); /* from the loop only */
    void *user;
} weir_listen_options;

/* WEIR_OK; WEIR_EINVAL (unknown client or backend, ANON, pooler, a channel's name), WEIR_ESTATE (the engine closes, or a
 * fork), WEIR_ENOMEM; then *out is NULL and `why` says it. */
int weir_listener_open(weir_listener **out, weir_engine *engine, const weir_listen_options *options,
                       char *why);

/* Takes a channel in, or leaves it out. LISTENING follows when the server has confirmed; from a channel that was left out
 * nothing is heard from now on. WEIR_OK also if there is nothing to do; else as weir_listener_open. */
int weir_listener_add(weir_listener *listener, const char *channel, char *why);
int weir_listener_remove(weir_listener *listener, const char *channel, char *why);

/* All channels asked for are confirmed and the connection is not known to be lost. */
bool weir_listener_is_up(const weir_listener *listener);

/* No event comes any more; the connection is closed in the next turn. Due exactly once for each listener, before or after
 * weir_free (for which the host's resize must still work). Accepts NULL. */
void weir_listener_free(weir_listener *listener);

#ifdef __cplusplus
}
#endif
#endif
