/* The breaker's memory, and judging it: what the window, the probes and the clock say should happen. Nothing declared
 * here changes a breaker; only breaker.c moves one. */
#ifndef WR_BREAKER_H
#define WR_BREAKER_H

#include "guard/evidence.h"
#include "guard/lease.h"
#include "guard/settings.h"
#include "guard/window.h"
#include "weir/guard.h"

struct weir_breaker {
    /* Read by every call, written by moves. */
    _Alignas(64) _Atomic uint64_t word; /* [generation:32 | openings in a row:24 | state:8] */
    _Atomic uint64_t open_until, half_open_until;
    _Atomic uint64_t trouble; /* generation of the last failed or slow call */
    _Atomic uint64_t judged;  /* [generation:32 | second:31 | 1]: rates found good then, see is_quiet */
    _Atomic uint64_t streak;  /* failures in a row: [generation:32 | count:32] */
    struct wr_settings settings;

    _Alignas(64) struct wr_time_window time;
    struct wr_count_window count;

    _Alignas(64) _Atomic uint64_t refused;
    _Atomic uint32_t opened;
    _Atomic uint64_t entered[WEIR_BREAKER_STATES];
    _Atomic uint64_t reported; /* METRICS_ONLY: [generation:32 | a bit per rule:32] */
    struct wr_codes codes;
    struct wr_evidence_log log;
    struct wr_leases leases;
};

/* One reading of the word, to decide by and to swap against. */
struct wr_seen {
    uint64_t word;
    uint32_t generation;
    uint32_t in_a_row;
    weir_breaker_state state;
};

struct wr_move {
    weir_breaker_state to;
    weir_rule rule; /* NONE: only the window starts afresh, the last evidence stays */
    struct wr_counts counts;
    double rate, threshold;
    uint64_t at_ns;
};

enum { WR_IN_A_ROW_MAX = 0xffffff };

static inline struct wr_seen wr_breaker_look(const weir_breaker *b)
{
    uint64_t word = atomic_load_explicit(&b->word, memory_order_acquire);
    return (struct wr_seen){.word = word,
                            .generation = (uint32_t)(word >> 32),
                            .in_a_row = (uint32_t)(word >> 8) & WR_IN_A_ROW_MAX,
                            .state = (weir_breaker_state)(word & 7)};
}

/* Openings in a row once `to` has been entered. */
static inline uint32_t wr_seen_next_in_a_row(struct wr_seen seen, weir_breaker_state to)
{
    if (to == WEIR_OPEN) return seen.in_a_row < WR_IN_A_ROW_MAX ? seen.in_a_row + 1 : seen.in_a_row;
    return to == WEIR_HALF_OPEN || to == seen.state ? seen.in_a_row : 0;
}

static inline double wr_share(uint32_t part, uint32_t whole)
{
    return (double)part / (double)whole;
}

bool wr_breaker_is_slow(const weir_breaker *b, uint64_t elapsed_ns);
struct wr_counts wr_breaker_counts(const weir_breaker *b, uint32_t generation, uint64_t now_ns);

/* Each fills the rest of the move it calls for and returns true, or returns false. `skip` holds a bit for each rule
 * that is not to be tried. wr_judge_window and wr_judge_streak take the counts that stand in the move. */
bool wr_judge_window(const weir_breaker *b, struct wr_move *move, unsigned skip, uint32_t streak);
bool wr_judge_streak(const weir_breaker *b, struct wr_move *move, unsigned skip, uint32_t streak);
bool wr_judge_probes(const weir_breaker *b, struct wr_seen seen, uint64_t now_ns, struct wr_move *move);
bool wr_judge_time(const weir_breaker *b, struct wr_seen seen, uint64_t now_ns, struct wr_move *move);

#endif
