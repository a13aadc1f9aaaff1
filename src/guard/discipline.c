#include "guard/discipline.h"

#include "guard/moment.h"

static void set_overloaded(struct wr_discipline *d, bool overloaded)
{
    d->overloaded = overloaded;
    d->turning = false;
}

static void observe_adaptive(struct wr_discipline *d, uint64_t waited_ns, uint64_t allowed_ns)
{
    if (waited_ns > allowed_ns / 2) {
        set_overloaded(d, true);
    } else if (waited_ns < allowed_ns / 4) {
        set_overloaded(d, false);
    }
}

/* The moment from which the oldest waiter has said what it says now. That it waits too long began when it crossed the
 * target, which may be before anybody looked. */
static uint64_t since(const struct wr_discipline *d, uint64_t now_ns, uint64_t waited_ns)
{
    if (waited_ns <= d->target_ns) return now_ns;
    return wr_time_until(now_ns, waited_ns - d->target_ns);
}

static void observe_codel(struct wr_discipline *d, uint64_t now_ns, uint64_t waited_ns)
{
    bool too_long = waited_ns > d->target_ns;
    if (too_long == d->overloaded) {
        d->turning = false;
        return;
    }
    if (!d->turning) {
        d->turning = true;
        d->turning_since_ns = since(d, now_ns, waited_ns);
    }
    if (wr_time_until(now_ns, d->turning_since_ns) >= d->interval_ns) set_overloaded(d, too_long);
}

void wr_discipline_init(struct wr_discipline *d, enum wr_queue_kind kind, uint64_t target_ns,
                        uint64_t interval_ns)
{
    *d = (struct wr_discipline){.kind = kind, .target_ns = target_ns, .interval_ns = interval_ns};
}

void wr_discipline_observe(struct wr_discipline *d, uint64_t now_ns, bool empty, uint64_t oldest_waited_ns,
                           uint64_t oldest_allowed_ns)
{
    if (empty) {
        set_overloaded(d, false);
    } else if (d->kind == WR_QUEUE_ADAPTIVE) {
        observe_adaptive(d, oldest_waited_ns, oldest_allowed_ns);
    } else if (d->kind == WR_QUEUE_CODEL) {
        observe_codel(d, now_ns, oldest_waited_ns);
    }
}

bool wr_discipline_newest_first(const struct wr_discipline *d)
{
    return d->overloaded;
}

bool wr_discipline_should_drop(const struct wr_discipline *d, uint64_t waited_ns)
{
    return d->kind == WR_QUEUE_CODEL && d->overloaded && waited_ns > d->target_ns;
}
