/* In which order a pool's queue is served, and whom it drops. Pure: it is told what the queue looks like and keeps a
 * few numbers; it knows neither waiters nor lists.
 *
 * FIFO is fair, and right as long as the queue is short. When a queue stands (longer than it can be served within the
 * callers' patience) FIFO serves exactly those who are about to give up, and everybody is late. Newest first
 * then serves those who can still be helped; the old ones time out as they would have anyway.
 *
 * ADAPTIVE, our default, changes over by the callers' own deadlines: overloaded when the oldest has waited more than
 * half of its allowance, until the queue was empty or the oldest has waited less than a quarter of it. It drops
 * nobody itself; deadlines do. A fixed 5 ms target would be wrong for a pool where a batch job may wait a minute.
 *
 * CODEL is controlled delay as in "Fail at Scale" (Maurer, ACM Queue 2015), for callers who rather hear "no" at once:
 * overloaded when the queue was never empty and the oldest waited longer than `target` for a whole `interval`;
 * then newest first, and who waited longer than `target` is dropped. Dropping empties the queue of its old
 * waiters at once, so the oldest alone cannot tell that the load is over: it ends when the queue was empty, or
 * when the oldest stayed within the target for a whole interval. */
#ifndef WR_DISCIPLINE_H
#define WR_DISCIPLINE_H

#include <stdbool.h>
#include <stdint.h>

enum wr_queue_kind {
    WR_QUEUE_FIFO = 0, /* never newest first, never drops */
    WR_QUEUE_ADAPTIVE, /* by the share of their allowance that waiters have spent */
    WR_QUEUE_CODEL     /* by a fixed target delay */
};

struct wr_discipline {
    enum wr_queue_kind kind;
    uint64_t target_ns, interval_ns; /* CODEL only */
    bool overloaded;
    bool turning;              /* CODEL: the oldest says the opposite of `overloaded` ... */
    uint64_t turning_since_ns; /* ... since then */
};

void wr_discipline_init(struct wr_discipline *d, enum wr_queue_kind kind, uint64_t target_ns,
                        uint64_t interval_ns);

/* To be told whenever the queue is served or grows, and from a timer while it stands. `oldest_allowed_ns` is the whole
 * time the oldest waiter may spend in the queue (WEIR: from entering it to its deadline). */
void wr_discipline_observe(struct wr_discipline *d, uint64_t now_ns, bool empty, uint64_t oldest_waited_ns,
                           uint64_t oldest_allowed_ns);
bool wr_discipline_newest_first(const struct wr_discipline *d);
bool wr_discipline_should_drop(const struct wr_discipline *d, uint64_t waited_ns);

#endif
