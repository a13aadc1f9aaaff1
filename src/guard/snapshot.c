/* Reading a breaker: for health pages, for refusals, and for processes that map it without the right to write. */
#include "guard/breaker.h"
#include "guard/defuse.h"
#include "guard/moment.h"

#include <string.h>

/* Where the breaker stands at `now_ns`, whether or not anybody has called since to make it so. */
static weir_breaker_state effective_state(const weir_breaker *b, struct wr_seen seen, uint64_t now_ns)
{
    struct wr_move move;
    if (!wr_judge_time(b, seen, now_ns, &move)) return seen.state;
    if (move.rule != WEIR_RULE_HALF_OPEN_WAIT) return move.to;
    uint64_t open_for = wr_settings_open_for(&b->settings, wr_seen_next_in_a_row(seen, WEIR_OPEN));
    return now_ns >= wr_add_saturating(move.at_ns, open_for) ? WEIR_HALF_OPEN : WEIR_OPEN;
}

static uint64_t retry_after(const weir_breaker *b, struct wr_seen seen, weir_breaker_state state,
                            uint64_t now_ns)
{
    if (state == WEIR_FORCED_OPEN) return WR_NEVER;
    if (state == WEIR_OPEN && seen.state == WEIR_OPEN)
        return wr_time_until(atomic_load(&b->open_until), now_ns);
    if (state == WEIR_OPEN) {
        uint64_t open_for = wr_settings_open_for(&b->settings, wr_seen_next_in_a_row(seen, WEIR_OPEN));
        return wr_time_until(wr_add_saturating(atomic_load(&b->half_open_until), open_for), now_ns);
    }
    if (state != WEIR_HALF_OPEN || seen.state != WEIR_HALF_OPEN) return 0;
    return wr_lease_free_in(&b->leases, WR_SETTING(&b->settings, permits), seen.generation, now_ns);
}

/* While open, the counts are those it opened on: the window itself has already started afresh. */
static struct wr_counts counts_to_show(const weir_breaker *b, struct wr_seen seen,
                                       const weir_breaker_snapshot *out, uint64_t now_ns)
{
    const weir_evidence *e = &out->evidence;
    if (seen.state == WEIR_OPEN && out->state == WEIR_OPEN) {
        return (struct wr_counts){.calls = e->calls, .failures = e->failures, .slow = e->slow};
    }
    if (seen.state == WEIR_HALF_OPEN) {
        return wr_lease_tally(&b->leases, WR_SETTING(&b->settings, permits), seen.generation);
    }
    return wr_breaker_counts(b, seen.generation, now_ns);
}

static void show_counts(const weir_breaker *b, struct wr_seen seen, uint64_t now_ns,
                        weir_breaker_snapshot *out)
{
    struct wr_counts counts = counts_to_show(b, seen, out, now_ns);
    bool probing = seen.state == WEIR_HALF_OPEN || out->evidence.from == WEIR_HALF_OPEN;
    uint32_t enough = WR_SETTING(&b->settings, min_calls);
    if (probing && (out->state == WEIR_OPEN || out->state == WEIR_HALF_OPEN))
        enough = WR_SETTING(&b->settings, permits);
    bool judged = counts.calls > 0 && counts.calls >= enough;
    out->calls = counts.calls;
    out->failures = counts.failures;
    out->slow = counts.slow;
    out->failure_rate = judged ? wr_share(counts.failures, counts.calls) : -1;
    out->slow_rate = judged ? wr_share(counts.slow, counts.calls) : -1;
}

weir_breaker_state weir_breaker_state_at(const weir_breaker *breaker, uint64_t now_ns)
{
    return effective_state(breaker, wr_breaker_look(breaker), now_ns);
}

static void take_snapshot(const weir_breaker *b, struct wr_seen seen, uint64_t now_ns,
                          weir_breaker_snapshot *out)
{
    *out = (weir_breaker_snapshot){.state = effective_state(b, seen, now_ns), .generation = seen.generation};
    /* The record of the very last move may be unwritten for an instant, or for ever if its writer was killed;
     * the reason of an earlier state must not pass for the reason of this one. */
    bool told = wr_evidence_get(&b->log, seen.generation, &out->evidence);
    if (told && out->evidence.to != seen.state) out->evidence = (weir_evidence){.to = seen.state};
    out->refused = atomic_load_explicit(&b->refused, memory_order_relaxed);
    out->opened_count = atomic_load_explicit(&b->opened, memory_order_relaxed);
    for (int i = 0; i < WEIR_BREAKER_STATES; i++) {
        out->entered[i] = atomic_load_explicit(&b->entered[i], memory_order_relaxed);
    }
    out->retry_after_ns = retry_after(b, seen, out->state, now_ns);
    show_counts(b, seen, now_ns, out);
}

/* Taken again if the breaker moved meanwhile, for the parts would then be of two generations. The bound is for a
 * breaker that never rests: a reader must not hang on it. */
void weir_breaker_snapshot_at(const weir_breaker *breaker, uint64_t now_ns, weir_breaker_snapshot *out)
{
    enum { TRIES = 8 };
    struct wr_seen seen;
    int tries = 0;
    do {
        seen = wr_breaker_look(breaker);
        take_snapshot(breaker, seen, now_ns, out);
    } while (++tries < TRIES && wr_breaker_look(breaker).word != seen.word);
}

void wr_breaker_defuse(weir_breaker *copy)
{
    uint32_t permits = WR_SETTING(&copy->settings, permits);
    unsigned char off;
    memcpy(&off, (const void *)&copy->settings.rates_off,
           sizeof off); /* one that is neither could be anything */
    atomic_store_explicit(&copy->settings.rates_off, (off & 1) != 0, memory_order_relaxed);
    atomic_store_explicit(&copy->settings.function, 0, memory_order_relaxed);
    if (permits > WR_LEASES) atomic_store_explicit(&copy->settings.permits, WR_LEASES, memory_order_relaxed);
}
