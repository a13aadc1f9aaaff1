/* A connect from start to a usable session, on a thread of its own: it may block, but only in poll() against
 * its own deadline, in name resolution (which libpq offers no way to bound) and in the arithmetic of SCRAM
 * and TLS. */
#ifndef WR_HANDSHAKE_H
#define WR_HANDSHAKE_H

#include "pg/target.h"

/* Settings every session, or behind a pooler every transaction, must start with: name, value, name, value,
 * each with its NUL. libc's memory. */
enum { WR_SETTINGS_MAX = 64 };

struct wr_settings {
    char *text;
    size_t length, count;
};

/* A number that is another after each restart and each crash, and on each server. Statistics are kept over an
 * orderly stop and start anew after a crash, also one the postmaster survives. */
#define WR_LIFE_SQL                                                                                          \
    "pg_catalog.hashtextextended(pg_catalog.concat(extract(epoch from "                                      \
    "pg_catalog.pg_postmaster_start_time()), ' ',"                                                           \
    " (select extract(epoch from stats_reset) from pg_catalog.pg_stat_bgwriter)), 0)"

struct wr_arrival { /* what a connect came to; without conn, the fault tells why */
    PGconn *conn;   /* non-blocking, in pipeline mode, idle */
    PGcancel *cancel;
    struct wr_greeting greeting;
    struct wr_settings settings;
    bool pooler;             /* one stands between, whether anybody said so or not */
    uint64_t timeout_cap_ms; /* statement_timeout as the session found it: never raised; 0 none */
    struct wr_fault fault;
};

struct wr_patience { /* how long, and who may call it off */
    uint64_t deadline_ns;
    int poke_fd; /* readable: look at called_off again */
    bool (*called_off)(void *arg);
    void *arg;
};

uint64_t wr_monotonic_ns(void);

/* Fills *arrival. Never leaves a connection behind when it fails. */
void wr_handshake(struct wr_arrival *arrival, const struct wr_target *target, uint64_t timeout_ns,
                  struct wr_patience *patience);

void wr_arrival_discard(struct wr_arrival *arrival); /* closes and frees whatever is there */

/* For greeting.c: waits for `events` (of poll) on the socket, or for the patience to end. */
enum wr_wait { WR_WAIT_READY = 0, WR_WAIT_TIMEOUT, WR_WAIT_CALLED_OFF };
enum wr_wait wr_wait_for(const PGconn *conn, short events, const struct wr_patience *patience);

/* greeting.c: asks who the server is and whether this login may be used, and sets the session up. False with
 * the fault filled. The connection is in pipeline mode. */
bool wr_greet(struct wr_arrival *arrival, const struct wr_target *target, const struct wr_patience *patience,
              const struct wr_secrets *secrets);

#endif
