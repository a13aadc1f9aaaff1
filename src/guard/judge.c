/* What the evidence says should happen to a breaker. Pure: nothing here writes. */
#include "guard/breaker.h"
#include "guard/moment.h"

struct wr_counts wr_breaker_counts(const weir_breaker *b, uint32_t generation, uint64_t now_ns)
{
    struct wr_window_shape shape = wr_settings_window(&b->settings);
    if (shape.calls > 0) return wr_count_window_sum(&b->count, generation, shape.calls);
    return wr_time_window_sum(&b->time, generation, wr_window_second(now_ns), shape.seconds);
}

bool wr_breaker_is_slow(const weir_breaker *b, uint64_t elapsed_ns)
{
    uint64_t limit = WR_SETTING(&b->settings, slow_call_ns);
    return limit != 0 && elapsed_ns > limit;
}

/* Tries one threshold; the first that is exceeded and not in `skip` fills the move. */
static bool exceeds(struct wr_move *move, unsigned skip, weir_rule rule, double rate, double threshold)
{
    if ((skip & (1u << rule)) != 0 || !(rate >= threshold)) return false;
    move->rule = rule;
    move->rate = rate;
    move->threshold = threshold;
    return true;
}

/* The share of slow calls counts only where a slow call is defined and rates are judged at all. */
static bool slow_exceeds(const weir_breaker *b, struct wr_move *move, unsigned skip, weir_rule rule)
{
    if (WR_SETTING(&b->settings, slow_call_ns) == 0 || WR_SETTING(&b->settings, rates_off)) return false;
    double rate = wr_share(move->counts.slow, move->counts.calls);
    return exceeds(move, skip, rule, rate, WR_SETTING(&b->settings, slow_rate));
}

bool wr_judge_streak(const weir_breaker *b, struct wr_move *move, unsigned skip, uint32_t streak)
{
    uint32_t limit = WR_SETTING(&b->settings, consecutive);
    return limit != 0 && exceeds(move, skip, WEIR_RULE_CONSECUTIVE, streak, limit);
}

/* Whether `move->counts` or the streak exceed a threshold not in `skip`. */
bool wr_judge_window(const weir_breaker *b, struct wr_move *move, unsigned skip, uint32_t streak)
{
    struct wr_counts *counts = &move->counts;
    if (!WR_SETTING(&b->settings, rates_off) && counts->calls >= WR_SETTING(&b->settings, min_calls)) {
        double rate = wr_share(counts->failures, counts->calls);
        double limit = WR_SETTING(&b->settings, failure_rate);
        if (exceeds(move, skip, WEIR_RULE_FAILURE_RATE, rate, limit)) return true;
        if (slow_exceeds(b, move, skip, WEIR_RULE_SLOW_RATE)) return true;
    }
    return wr_judge_streak(b, move, skip, streak);
}

/* Once every place has voted. `rates_off` silences the slow rate here; failed probes must count whatever the rules of
 * the window are, or a single failed probe would close a breaker that trips on failures in a row. */
bool wr_judge_probes(const weir_breaker *b, struct wr_seen seen, uint64_t now_ns, struct wr_move *move)
{
    uint32_t permits = WR_SETTING(&b->settings, permits);
    *move = (struct wr_move){.to = WEIR_OPEN, .at_ns = now_ns};
    move->counts = wr_lease_tally(&b->leases, permits, seen.generation);
    if (move->counts.calls < permits) return false;
    double rate = wr_share(move->counts.failures, move->counts.calls);
    double limit = WR_SETTING(&b->settings, failure_rate);
    if (exceeds(move, 0, WEIR_RULE_HALF_OPEN_FAILED, rate, limit)) return true;
    if (slow_exceeds(b, move, 0, WEIR_RULE_HALF_OPEN_FAILED)) return true;
    move->to = WEIR_CLOSED;
    move->rule = WEIR_RULE_HALF_OPEN_PASSED;
    move->rate = rate;
    move->threshold = limit;
    return true;
}

/* The move that time, or a judge who was killed, has left to be made. Wait without judgement opens at the moment it
 * ran out, not when somebody notices: a breaker nobody called for an hour must not begin an open spell then. */
bool wr_judge_time(const weir_breaker *b, struct wr_seen seen, uint64_t now_ns, struct wr_move *move)
{
    if (seen.state == WEIR_OPEN) {
        *move = (struct wr_move){.to = WEIR_HALF_OPEN, .rule = WEIR_RULE_OPEN_ENDED, .at_ns = now_ns};
        return now_ns >= atomic_load(&b->open_until);
    }
    if (seen.state != WEIR_HALF_OPEN) return false;
    if (wr_judge_probes(b, seen, now_ns, move)) return true;
    uint64_t end = atomic_load(&b->half_open_until);
    move->to = WEIR_OPEN;
    move->rule = WEIR_RULE_HALF_OPEN_WAIT;
    move->at_ns = end;
    return end != WR_NEVER && now_ns >= end;
}
