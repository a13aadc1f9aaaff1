/* The threads that may block: for each server a few connectors and one canceller, so that one which is mute
 * keeps nobody waiting but its own callers. They are made when first needed (after any fork), run with all
 * signals blocked, and hand what they did to the loop through one descriptor. Every function here is for the
 * loop's thread. What crosses between threads is libc's memory, for the engine's belongs to the loop
 * alone. */
#ifndef WR_CREW_H
#define WR_CREW_H

#include "base/list.h"
#include "pg/handshake.h"

enum { WR_CREW_MOST = 16 }; /* connectors of one server */

struct wr_crew;
struct wr_site; /* one server, whoever logs in there */

struct wr_errand {        /* a connect, from its request to its delivery */
    struct wr_list place; /* waiting, or done */
    struct wr_target *target;
    struct wr_site *site;
    void *owner; /* NULL: forgotten, nobody wants it any more */
    uint64_t timeout_ns;
    struct wr_arrival arrival;
};

enum wr_cancel_state { WR_CANCEL_IDLE = 0, WR_CANCEL_QUEUED, WR_CANCEL_RUNNING, WR_CANCEL_DONE };

struct wr_cancel { /* one per link; outlives it if the link is closed while it is under way */
    struct wr_list place;
    PGcancel *handle;
    struct wr_site *site; /* the errand's */
    void *link;           /* NULL: the link is gone */
    enum wr_cancel_state state;
    uint64_t due_ns; /* not before */
};

int wr_crew_make(struct wr_crew **out, unsigned connectors); /* for each server, at most */
int wr_crew_fd(const struct wr_crew *crew); /* readable when something is done: take it all */

/* Joins the threads; connects under way are called off. A thread that cannot be called off (in name
 * resolution, in PQcancel against a frozen server) is waited for two seconds, then left behind; it frees the
 * crew when it ends. */
void wr_crew_free(struct wr_crew *crew);

int wr_crew_connect(struct wr_crew *crew, struct wr_target *target, uint64_t timeout_ns, void *owner);
void wr_crew_forget(struct wr_crew *crew, void *owner);

int wr_crew_cancel(struct wr_crew *crew, struct wr_cancel *cancel, uint64_t delay_ns);
/* True: it had not begun, and will not. */
bool wr_crew_withdraw(struct wr_crew *crew, struct wr_cancel *cancel);
/* The link goes away; frees now or when done. */
void wr_crew_abandon(struct wr_crew *crew, struct wr_cancel *cancel);

void wr_crew_heard(struct wr_crew *crew);                     /* empties the descriptor, before taking */
struct wr_errand *wr_crew_next_arrival(struct wr_crew *crew); /* NULL: none; free with wr_errand_free */
/* NULL: none. It is idle again; the abandoned are freed and not shown. */
struct wr_cancel *wr_crew_next_cancelled(struct wr_crew *crew);
void wr_errand_free(struct wr_errand *errand); /* closes an arrival not taken out of it */
void wr_crew_ring(struct wr_crew *crew);       /* makes the descriptor readable */

#endif
