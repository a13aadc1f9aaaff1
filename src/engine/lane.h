/* Multiplexing: a lane is a connection in state SHARED, with up to `multiplex` calls on it at a time, each a segment and so
 * a transaction of its own. Reads and writes of the socket then serve many calls at once, and the server need not sleep
 * between two of them.
 *
 * - Who rides: single read-only calls without anything that may dirty the session or must stand alone, and not large.
 *   They lose nothing when the lane is lost. All others take a connection for themselves; lanes and they share `max`.
 * - Which lane: the first one with room, so that few are full rather than many begun. A lane has room while what is on it
 *   will be through within LANE_NS at the pace seen lately; so long statements find no room and are spread over
 *   connections, as without multiplexing. Nor does one go where the oldest call runs long, has been given up, or where
 *   something is stuck unsent.
 * - When a call waits that needs a connection for itself, or another worker a place under the common cap, a lane takes no
 *   more once it has carried `multiplex` calls since it was idle.
 * - A cancel would hit whatever the server is at. It is sent only when nobody waits for anything on the lane any more; until
 *   then what is given up runs on, bounded by its statement_timeout, and its answer is thrown away. If it keeps others
 *   waiting for cancel_wait, the connection is closed and they fail as lost. */
#ifndef WR_LANE_H
#define WR_LANE_H

#include "engine/pool.h"

enum { WR_LANE_MOST = WR_MULTIPLEX_MAX };

struct wr_rider {
    struct weir_call *call; /* NULL: it has gone */
    uint64_t sent_at;
    uint64_t left_at; /* when its deadline passed or its caller went; 0: it is waited for */
};

struct
    wr_lane { /* a connection's; riders are a ring, oldest first, in the order of their segments on the wire */
    uint32_t first, count;
    uint32_t awaited; /* riders with left_at 0 */
    uint32_t carried; /* since the connection was idle */
    bool sealed;      /* takes no more until it is idle */
    bool cancelling;  /* a cancel is on its way, for the oldest */
    uint64_t head_since;
    struct wr_rider riders[WR_LANE_MOST];
};

/* Whether a call of a pool that multiplexes may ride; looked at once. */
bool wr_lane_admits(const struct weir_call *call);
/* How many may be on one lane at the present pace, 1 .. multiplex. */
uint32_t wr_lane_depth(const struct wr_pool *pool);
/* A lane with room, or NULL. */
struct wr_conn *wr_lane_find(struct wr_pool *pool);
/* The call gets a seat on a lane or on an idle connection that becomes one. False: no memory, or not a call for a lane. */
bool wr_lane_board(struct wr_conn *conn, struct weir_call *call);
/* Its segment is on the wire. */
void wr_lane_sent(struct wr_conn *conn, struct weir_call *call);
/* The oldest segment has ended. */
void wr_lane_settled(struct wr_conn *conn, struct wr_reply *reply);
/* The connection is of no more use: it is closed and every call on it fails with the fault. */
void wr_lane_break(struct wr_conn *conn, const struct wr_fault *fault, enum wr_counter reason);
void wr_lane_overdue(struct wr_conn *conn, const struct weir_call *call);
void wr_lane_leave(struct wr_conn *conn, const struct weir_call *call);
/* CANCELING, and the oldest has spoken its last word: true if more such are on the wire. */
bool wr_lane_forsakes(struct wr_conn *conn);
/* The connection's timer has fired. */
void wr_lane_due(struct wr_conn *conn);

#endif
