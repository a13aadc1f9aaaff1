/* The circuit breaker. Its whole state is one word; everything else is tagged with that word's generation and so is
 * forgotten by moving on. A mover first writes what the next state needs (its deadline), then swaps the word: whoever
 * loses the swap has changed nothing, and a process killed in between leaves the old state in force.
 *
 * What a killed process may leave undone is done by the next one that calls: a judgement all of whose votes are in,
 * a deadline that has passed, a lease that ran out. */
#include "guard/breaker.h"

#include "base/check.h"
#include "guard/moment.h"

#include <string.h>

enum { DAMAGED = 7 };

#define BIT(state) (1u << (unsigned)(state))
#define FORCED     (BIT(WEIR_FORCED_OPEN) | BIT(WEIR_FORCED_CLOSED) | BIT(WEIR_DISABLED) | BIT(WEIR_METRICS_ONLY))
#define ANY        (FORCED | BIT(WEIR_CLOSED) | BIT(WEIR_OPEN) | BIT(WEIR_HALF_OPEN) | BIT(DAMAGED))
#define COUNTING   (BIT(WEIR_CLOSED) | BIT(WEIR_FORCED_CLOSED) | BIT(WEIR_METRICS_ONLY))

/* may_enter[to] holds the states it may be entered from. Forced states and CLOSED may follow themselves: a fresh window.
 * DAMAGED is no state, but what the word of a mapped file may say after a foreign write: it admits nothing, and an
 * operator can still force or reset it. */
static const unsigned may_enter[] = {
    [WEIR_CLOSED] = ANY,
    [WEIR_OPEN] = BIT(WEIR_CLOSED) | BIT(WEIR_HALF_OPEN),
    [WEIR_HALF_OPEN] = BIT(WEIR_OPEN),
    [WEIR_FORCED_OPEN] = ANY,
    [WEIR_FORCED_CLOSED] = ANY,
    [WEIR_DISABLED] = ANY,
    [WEIR_METRICS_ONLY] = ANY,
};

/* ---- the word ---- */

static uint64_t pack(uint32_t generation, uint32_t in_a_row, weir_breaker_state state)
{
    return (uint64_t)generation << 32 | (uint64_t)in_a_row << 8 | (uint64_t)state;
}

static uint64_t half_open_end(const weir_breaker *b, uint64_t now_ns)
{
    uint64_t wait = WR_SETTING(&b->settings, half_open_wait_ns);
    return wait == 0 ? WR_NEVER : wr_add_saturating(now_ns, wait);
}

/* The deadline of the state that is about to be entered. False: another process moved first. */
static bool publish_deadline(weir_breaker *b, struct wr_seen seen, const struct wr_move *move)
{
    if (move->to == WEIR_OPEN) {
        uint64_t open_for = wr_settings_open_for(&b->settings, wr_seen_next_in_a_row(seen, WEIR_OPEN));
        return wr_moment_publish(&b->open_until, wr_add_saturating(move->at_ns, open_for), &b->word,
                                 seen.word);
    }
    if (move->to == WEIR_HALF_OPEN) {
        return wr_moment_publish(&b->half_open_until, half_open_end(b, move->at_ns), &b->word, seen.word);
    }
    return true;
}

static weir_evidence describe(const weir_breaker *b, struct wr_seen seen, const struct wr_move *move)
{
    weir_evidence evidence = {.from = seen.state,
                              .to = move->to,
                              .rule = move->rule,
                              .generation = seen.generation,
                              .calls = move->counts.calls,
                              .failures = move->counts.failures,
                              .slow = move->counts.slow,
                              .rate = move->rate,
                              .threshold = move->threshold,
                              .at_ns = move->at_ns};
    wr_codes_read(&b->codes, seen.generation, evidence.codes);
    return evidence;
}

/* The only writer of the word after init, so a state and its deadline, evidence and generation cannot disagree.
 * False: another process moved first and nothing was changed. */
static bool enter(weir_breaker *b, struct wr_seen seen, const struct wr_move *move, weir_evidence *event)
{
    WR_CHECK((may_enter[move->to] & BIT(seen.state)) != 0);
    if (!publish_deadline(b, seen, move)) return false;
    weir_evidence evidence = describe(b, seen, move);
    evidence.generation =
        seen.generation == UINT32_MAX ? 1 : seen.generation + 1; /* 0 is the zeroed permit's */
    uint64_t next = pack(evidence.generation, wr_seen_next_in_a_row(seen, move->to), move->to);
    if (!atomic_compare_exchange_strong(&b->word, &seen.word, next)) return false;
    if (move->to == WEIR_OPEN) atomic_fetch_add(&b->opened, 1);
    if (move->to != seen.state) atomic_fetch_add(&b->entered[move->to], 1);
    if (move->rule != WEIR_RULE_NONE) wr_evidence_put(&b->log, &evidence);
    if (event != NULL) *event = evidence;
    return true;
}

static uint64_t judged_mark(const weir_breaker *b, uint32_t generation, uint64_t second)
{
    bool over_time = wr_settings_window(&b->settings).calls == 0;
    return (uint64_t)generation << 32 | (over_time ? second << 1 & 0xfffffffe : 0) | 1;
}

/* Whether a quick success may skip the judgement. It only lowers the rates, so it can trip in two ways: by making
 * min_calls full, or because older successes have left the window. Once the rates were judged good on enough
 * calls, neither can happen before the next second (in a count window: at all), and whatever raises a rate is
 * judged by itself. Before any failed or slow call there is nothing to judge. */
static bool is_quiet(const weir_breaker *b, uint32_t generation, uint64_t second)
{
    if (atomic_load_explicit(&b->trouble, memory_order_acquire) != generation) return true;
    return atomic_load_explicit(&b->judged, memory_order_relaxed) == judged_mark(b, generation, second);
}

/* ---- settling while calls flow ---- */

struct outcome {
    bool neutral, failed, slow;
    const char *code;
    uint64_t now_ns;
};

/* Failures in a row, this call included. */
static uint32_t streak_after(weir_breaker *b, uint32_t generation, bool failed)
{
    uint64_t found = atomic_load_explicit(&b->streak, memory_order_relaxed);
    uint64_t next;
    do {
        uint32_t count = found >> 32 == generation ? (uint32_t)found : 0;
        if (!failed && count == 0) return 0;
        next = failed && count < UINT32_MAX ? count + 1u : failed ? count : 0;
        next |= (uint64_t)generation << 32;
    } while (!atomic_compare_exchange_weak_explicit(&b->streak, &found, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return (uint32_t)next;
}

static void count_call(weir_breaker *b, uint32_t generation, uint64_t second, bool failed, bool slow)
{
    struct wr_window_shape shape = wr_settings_window(&b->settings);
    if (shape.calls > 0) {
        wr_count_window_add(&b->count, generation, shape.calls, failed, slow);
    } else {
        wr_time_window_add(&b->time, generation, second, failed, slow);
    }
    /* After the count: who sees the trouble also finds it in the sums. */
    if ((failed || slow) && atomic_load_explicit(&b->trouble, memory_order_relaxed) != generation) {
        atomic_store_explicit(&b->trouble, generation, memory_order_release);
    }
}

static unsigned already_reported(const weir_breaker *b, struct wr_seen seen)
{
    if (seen.state != WEIR_METRICS_ONLY) return 0;
    uint64_t reported = atomic_load(&b->reported);
    return reported >> 32 == seen.generation ? (unsigned)(uint32_t)reported : 0;
}

/* True for the one caller that is the first to report this rule in this generation. */
static bool report(weir_breaker *b, struct wr_seen seen, const struct wr_move *move, weir_evidence *event)
{
    uint64_t found = atomic_load(&b->reported), next;
    do {
        uint64_t rules = found >> 32 == seen.generation ? (uint32_t)found : 0;
        if ((rules & (1u << move->rule)) != 0) return false;
        next = (uint64_t)seen.generation << 32 | rules | 1u << move->rule;
    } while (!atomic_compare_exchange_weak(&b->reported, &found, next));
    if (event != NULL) *event = describe(b, seen, move);
    return true;
}

static bool judge_window(weir_breaker *b, struct wr_seen seen, uint32_t streak, uint64_t now_ns,
                         weir_evidence *event)
{
    bool metrics_only = seen.state == WEIR_METRICS_ONLY;
    uint64_t second = wr_window_second(now_ns);
    struct wr_move move = {.to = metrics_only ? WEIR_METRICS_ONLY : WEIR_OPEN, .at_ns = now_ns};
    move.counts = wr_breaker_counts(b, seen.generation, now_ns);
    if (wr_judge_window(b, &move, already_reported(b, seen), streak)) {
        return metrics_only ? report(b, seen, &move, event) : enter(b, seen, &move, event);
    }
    if (move.counts.calls >= WR_SETTING(&b->settings, min_calls)) {
        atomic_store_explicit(&b->judged, judged_mark(b, seen.generation, second), memory_order_relaxed);
    }
    return false;
}

static bool settle_call(weir_breaker *b, struct wr_seen seen, const struct outcome *out, weir_evidence *event)
{
    uint64_t second = wr_window_second(out->now_ns);
    if (out->failed) wr_codes_add(&b->codes, seen.generation, out->code);
    count_call(b, seen.generation, second, out->failed, out->slow);
    uint32_t streak = streak_after(b, seen.generation, out->failed);
    if (seen.state == WEIR_FORCED_CLOSED) return false;
    if (!out->failed && !out->slow && is_quiet(b, seen.generation, second)) return false;
    return judge_window(b, seen, streak, out->now_ns, event);
}

/* ---- half-open ---- */

static bool settle_probe(weir_breaker *b, struct wr_seen seen, weir_permit permit, const struct outcome *out,
                         weir_evidence *event)
{
    struct wr_move move;
    if (wr_judge_time(b, seen, out->now_ns, &move)) return enter(b, seen, &move, event);
    unsigned vote =
        WR_BALLOT_VOTED | (out->failed ? WR_BALLOT_FAILED : 0u) | (out->slow ? WR_BALLOT_SLOW : 0u);
    if (!wr_lease_settle(&b->leases, permit, out->neutral ? WR_BALLOT_FREE : vote, out->now_ns)) return false;
    if (out->failed) wr_codes_add(&b->codes, seen.generation, out->code);
    uint32_t streak = streak_after(b, seen.generation, out->failed);
    bool judged = wr_judge_probes(b, seen, out->now_ns, &move);
    struct wr_move row = {.to = WEIR_OPEN, .counts = move.counts, .at_ns = out->now_ns};
    if (wr_judge_streak(b, &row, 0, streak) && !(judged && move.to == WEIR_OPEN))
        return enter(b, seen, &row, event);
    return judged && enter(b, seen, &move, event);
}

/* ---- admission ---- */

static bool refuse(weir_breaker *b)
{
    atomic_fetch_add_explicit(&b->refused, 1, memory_order_relaxed);
    return false;
}

static enum wr_claim claim(weir_breaker *b, struct wr_seen seen, uint32_t owner, uint64_t now_ns,
                           weir_permit *permit)
{
    struct wr_lease_terms terms = {.places = WR_SETTING(&b->settings, permits),
                                   .generation = seen.generation,
                                   .owner = owner,
                                   .now_ns = now_ns,
                                   .expires_ns =
                                       wr_add_saturating(now_ns, WR_SETTING(&b->settings, lease_ns))};
    return wr_lease_claim(&b->leases, &terms, permit);
}

/* Admission where nothing has to be looked up: every state but OPEN and HALF_OPEN. */
static bool admit_by_state(weir_breaker *b, struct wr_seen seen, weir_permit *permit)
{
    bool counting = (BIT(seen.state) & COUNTING) != 0;
    if (!counting && seen.state != WEIR_DISABLED) return refuse(b);
    permit->generation = seen.generation;
    permit->counted = counting;
    return true;
}

/* Whether all votes are in and their judge is about to tell somebody. Admission has nobody to tell, so it leaves the
 * judgement to the last voter or a tick, and takes it over only when nobody can be left to make it. */
static bool awaits_judge(const weir_breaker *b, struct wr_seen seen, weir_rule rule, uint64_t now_ns)
{
    if (rule != WEIR_RULE_HALF_OPEN_PASSED && rule != WEIR_RULE_HALF_OPEN_FAILED) return false;
    return !wr_lease_vote_expired(&b->leases, WR_SETTING(&b->settings, permits), seen.generation, now_ns);
}

static bool admit_while_recovering(weir_breaker *b, uint32_t owner, uint64_t now_ns, weir_permit *permit)
{
    for (;;) { /* each turn that does not end here means that somebody moved the breaker */
        struct wr_seen seen = wr_breaker_look(b);
        struct wr_move move;
        if (wr_judge_time(b, seen, now_ns, &move)) {
            if (awaits_judge(b, seen, move.rule, now_ns)) return refuse(b);
            enter(b, seen, &move, NULL);
        } else if (seen.state == WEIR_HALF_OPEN) {
            enum wr_claim got = claim(b, seen, owner, now_ns, permit);
            if (got != WR_CLAIM_STALE) return got == WR_CLAIM_GRANTED || refuse(b);
        } else if (seen.state == WEIR_OPEN) {
            return refuse(b);
        } else {
            return admit_by_state(b, seen, permit);
        }
    }
}

bool weir_breaker_admit(weir_breaker *breaker, uint32_t owner, uint64_t now_ns, weir_permit *permit)
{
    struct wr_seen seen = wr_breaker_look(breaker);
    *permit = (weir_permit){0};
    if (seen.state == WEIR_OPEN || seen.state == WEIR_HALF_OPEN) {
        return admit_while_recovering(breaker, owner, now_ns, permit);
    }
    return admit_by_state(breaker, seen, permit);
}

bool weir_breaker_settle(weir_breaker *breaker, weir_permit permit, weir_verdict verdict, uint64_t elapsed_ns,
                         const char *code, uint64_t now_ns, weir_evidence *event)
{
    struct wr_seen seen = wr_breaker_look(breaker);
    if (permit.generation != seen.generation || permit.counted == 0) return false;
    struct outcome out = {.neutral = verdict != WEIR_SUCCESS && verdict != WEIR_FAILURE,
                          .failed = verdict == WEIR_FAILURE,
                          .slow = wr_breaker_is_slow(breaker, elapsed_ns),
                          .code = code,
                          .now_ns = now_ns};
    if (seen.state == WEIR_HALF_OPEN) return settle_probe(breaker, seen, permit, &out, event);
    if (out.neutral || (BIT(seen.state) & COUNTING) == 0) return false;
    return settle_call(breaker, seen, &out, event);
}

/* ---- moves from outside ---- */

bool weir_breaker_tick(weir_breaker *breaker, uint64_t now_ns, weir_evidence *event)
{
    struct wr_seen seen = wr_breaker_look(breaker);
    struct wr_move move;
    return wr_judge_time(breaker, seen, now_ns, &move) && enter(breaker, seen, &move, event);
}

bool weir_breaker_probe_passed(weir_breaker *breaker, uint64_t now_ns, weir_evidence *event)
{
    struct wr_seen seen = wr_breaker_look(breaker);
    struct wr_move move = {.to = WEIR_HALF_OPEN, .rule = WEIR_RULE_PROBE, .at_ns = now_ns};
    return seen.state == WEIR_OPEN && enter(breaker, seen, &move, event);
}

bool weir_breaker_force(weir_breaker *breaker, weir_breaker_state state, uint64_t now_ns,
                        weir_evidence *event)
{
    if (state != WEIR_CLOSED && ((unsigned)state > WEIR_METRICS_ONLY || (BIT(state) & FORCED) == 0))
        return false;
    struct wr_move move = {.to = state, .rule = WEIR_RULE_OPERATOR, .at_ns = now_ns};
    struct wr_seen seen;
    do {
        seen = wr_breaker_look(breaker);
        if (seen.state == state && state == WEIR_CLOSED) return false;
    } while (!enter(breaker, seen, &move, seen.state == state ? NULL : event));
    return seen.state != state;
}

bool weir_breaker_release(weir_breaker *breaker, uint32_t generation, uint64_t now_ns, weir_evidence *event)
{
    struct wr_seen seen = wr_breaker_look(breaker);
    struct wr_move move = {.to = WEIR_CLOSED, .rule = WEIR_RULE_FORCE_ENDED, .at_ns = now_ns};
    return seen.generation == generation && (BIT(seen.state) & FORCED) != 0 &&
           enter(breaker, seen, &move, event);
}

void weir_breaker_reset(weir_breaker *breaker, uint64_t now_ns)
{
    struct wr_move move = {.to = WEIR_CLOSED, .rule = WEIR_RULE_RESET, .at_ns = now_ns};
    while (!enter(breaker, wr_breaker_look(breaker), &move, NULL)) {
    }
    atomic_store(&breaker->refused, 0);
    atomic_store(&breaker->opened, 0);
}

void weir_breaker_reclaim(weir_breaker *breaker, uint32_t owner, uint64_t now_ns)
{
    (void)now_ns;
    wr_lease_reclaim(&breaker->leases, wr_breaker_look(breaker).generation, owner);
}

/* ---- making one ---- */

void weir_breaker_defaults(weir_breaker_config *config)
{
    *config = (weir_breaker_config){
        .window_ns = UINT64_C(10000000000),
        .min_calls = 20,
        .failure_rate = 0.5,
        .slow_rate = 1.0,
        .open_for_ns = UINT64_C(60000000000),
        .permits = 10,
        .lease_ns = UINT64_C(60000000000),
        .initial = WEIR_CLOSED,
    };
}

size_t weir_breaker_size(void)
{
    return sizeof(weir_breaker);
}

int weir_breaker_init(weir_breaker *breaker, const weir_breaker_config *config, uint64_t now_ns, char *why)
{
    int code = wr_settings_check(config, why);
    if (code != WEIR_OK) return code;
    WR_CHECK((uintptr_t)breaker % 64 == 0);
    memset(breaker, 0, sizeof *breaker);
    wr_settings_store(&breaker->settings, config);
    uint32_t in_a_row = config->initial == WEIR_OPEN ? 1 : 0;
    if (config->initial == WEIR_OPEN) {
        uint64_t open_for = wr_settings_open_for(&breaker->settings, 1);
        atomic_store(&breaker->open_until, wr_add_saturating(now_ns, open_for));
    }
    atomic_store(&breaker->half_open_until, half_open_end(breaker, now_ns));
    atomic_store(&breaker->word, pack(1, in_a_row, config->initial));
    return WEIR_OK;
}

int weir_breaker_configure(weir_breaker *breaker, const weir_breaker_config *config, uint64_t now_ns,
                           char *why)
{
    int code = wr_settings_check(config, why);
    if (code != WEIR_OK) return code;
    struct wr_window_shape before = wr_settings_window(&breaker->settings);
    wr_settings_store(&breaker->settings, config);
    atomic_store(&breaker->judged, 0);
    struct wr_window_shape after = wr_settings_window(&breaker->settings);
    if (before.calls == after.calls && (before.seconds == 0) == (after.seconds == 0)) return WEIR_OK;
    struct wr_seen seen;
    do { /* calls now in flight were admitted to the old window and are not counted in the new one */
        seen = wr_breaker_look(breaker);
        if ((BIT(seen.state) & COUNTING) == 0) break; /* nothing is in the window */
    } while (!enter(breaker, seen, &(struct wr_move){.to = seen.state, .at_ns = now_ns}, NULL));
    return WEIR_OK;
}
