/* The books of a load. Everything has its place from the start: 2048 buckets of time, a pair of fine histograms per
 * phase and for the whole, 1024 moves of breakers; so counting allocates nothing and costs the same at any length. */
#include "load/tally.h"

#include "base/check.h"
#include "base/histogram.h"
#include "base/list.h"
#include "base/text.h"

#include <string.h>

enum { SPREAD_LOW_BITS = 10, SPREAD_BINS = 64, NAME_MAX_BYTES = 31 };

struct bucket {
    weir_tally_counts counts;
    struct wr_level level;        /* worst and most seen in it */
    uint32_t spread[SPREAD_BINS]; /* of latencies: two bins an octave, from 1 us on */
};

struct slot { /* a phase, or the whole */
    uint64_t from_ns, to_ns;
    weir_tally_counts counts;
    uint64_t ended_as[WR_CODES];
    struct wr_histogram_fine all, well;
};

struct weir_tally {
    const struct wr_memory *memory;
    uint64_t origin_ns, width_ns;
    size_t bucket_count; /* touched, or stepped over */
    struct bucket *buckets;
    struct bucket *current; /* the one last used, from current_from_ns on, one width wide */
    uint64_t current_from_ns;

    struct slot *slots; /* the phases, and last the whole */
    size_t phase_count;
    wr_phase_set set; /* the phases between set_from_ns and set_to_ns, where arrivals last were */
    uint64_t set_from_ns, set_to_ns;

    struct wr_level level; /* at level_ns; filled into the buckets up to that moment */
    size_t level_at;       /* bucket */
    struct wr_list watches;

    weir_tally_move *moves;
    size_t move_count;
    uint64_t moves_seen;
};

/* ---- latencies of a bucket ----------------------------------------------------------------------------- */

/* Two bins an octave: 1 to 1.5 and 1.5 to 2 times a power of two, so no value is further than a factor of 1.5 from any
 * other of its bin. */
static unsigned bin_of(uint64_t value_ns)
{
    if (value_ns < (UINT64_C(1) << SPREAD_LOW_BITS)) return 0;
    unsigned octave = 63u - (unsigned)__builtin_clzll(value_ns);
    unsigned bin = (octave - SPREAD_LOW_BITS) * 2 + (unsigned)(value_ns >> (octave - 1) & 1);
    return bin < SPREAD_BINS ? bin : SPREAD_BINS - 1;
}

static uint64_t bin_middle(unsigned bin)
{
    uint64_t half = UINT64_C(1) << (bin / 2 + SPREAD_LOW_BITS - 1);
    uint64_t low = bin % 2 == 0 ? 2 * half : 3 * half;
    return low + half / 2;
}

static uint64_t spread_p95(const struct bucket *bucket)
{
    uint64_t count = 0, seen = 0;
    for (unsigned i = 0; i < SPREAD_BINS; i++) count += bucket->spread[i];
    if (count == 0) return 0;
    uint64_t rank = count - count / 20;
    unsigned bin = 0;
    while (seen + bucket->spread[bin] < rank) seen += bucket->spread[bin++];
    uint64_t middle = bin_middle(bin), most = bucket->counts.latency_max_ns;
    return middle < most ? middle : most;
}

/* ---- buckets ------------------------------------------------------------------------------------------- */

static void add_counts(weir_tally_counts *to, const weir_tally_counts *from)
{
    to->arrived += from->arrived;
    to->ok += from->ok;
    to->failed += from->failed;
    to->refused += from->refused;
    to->timed_out += from->timed_out;
    to->unknown += from->unknown;
    to->calls += from->calls;
    to->attempts += from->attempts;
    to->latency_sum_ns += from->latency_sum_ns;
    if (from->latency_max_ns > to->latency_max_ns) to->latency_max_ns = from->latency_max_ns;
}

/* How much one would rather not see it. */
static int badness(weir_breaker_state state)
{
    static const int of[] = {
        [WEIR_CLOSED] = 0,    [WEIR_METRICS_ONLY] = 1, [WEIR_DISABLED] = 2,   [WEIR_FORCED_CLOSED] = 3,
        [WEIR_HALF_OPEN] = 4, [WEIR_OPEN] = 5,         [WEIR_FORCED_OPEN] = 6};
    return of[state];
}

weir_breaker_state wr_breaker_worse(weir_breaker_state a, weir_breaker_state b)
{
    return badness(a) >= badness(b) ? a : b;
}

static void raise_level(struct wr_level *to, const struct wr_level *from)
{
    to->breaker = wr_breaker_worse(to->breaker, from->breaker);
    if (from->waiting > to->waiting) to->waiting = from->waiting;
    if (from->connections > to->connections) to->connections = from->connections;
}

static void merge_buckets(struct bucket *to, const struct bucket *from)
{
    add_counts(&to->counts, &from->counts);
    raise_level(&to->level, &from->level);
    for (unsigned i = 0; i < SPREAD_BINS; i++) to->spread[i] += from->spread[i];
}

/* Two and two become one, in place. */
static void double_width(weir_tally *tally)
{
    size_t half = (tally->bucket_count + 1) / 2;
    for (size_t i = 0; i < half; i++) {
        struct bucket merged = tally->buckets[2 * i];
        if (2 * i + 1 < tally->bucket_count) merge_buckets(&merged, &tally->buckets[2 * i + 1]);
        tally->buckets[i] = merged;
    }
    memset(tally->buckets + half, 0, (tally->bucket_count - half) * sizeof *tally->buckets);
    tally->bucket_count = half;
    tally->level_at /= 2;
    tally->width_ns *= 2;
    tally->current = NULL;
}

/* From where the level was last known up to here nobody saw it change. */
static void carry_level(weir_tally *tally, size_t to)
{
    while (tally->level_at < to) raise_level(&tally->buckets[++tally->level_at].level, &tally->level);
}

static struct bucket *find_bucket(weir_tally *tally, uint64_t at_ns)
{
    uint64_t since = at_ns > tally->origin_ns ? at_ns - tally->origin_ns : 0;
    while (since / tally->width_ns >= WEIR_TALLY_BUCKETS) double_width(tally);
    size_t index = (size_t)(since / tally->width_ns);
    if (index >= tally->bucket_count) tally->bucket_count = index + 1;
    carry_level(tally, index);
    tally->current = &tally->buckets[index];
    tally->current_from_ns = tally->origin_ns + index * tally->width_ns;
    return tally->current;
}

static struct bucket *bucket_at(weir_tally *tally, uint64_t at_ns)
{
    if (tally->current != NULL && at_ns - tally->current_from_ns < tally->width_ns) return tally->current;
    return find_bucket(tally, at_ns);
}

/* ---- counting ------------------------------------------------------------------------------------------ */

static void find_set(weir_tally *tally, uint64_t at_ns)
{
    tally->set = 0;
    tally->set_from_ns = 0;
    tally->set_to_ns = UINT64_MAX;
    for (size_t i = 0; i < tally->phase_count; i++) {
        uint64_t edges[] = {tally->slots[i].from_ns, tally->slots[i].to_ns};
        for (int e = 0; e < 2; e++) {
            if (edges[e] <= at_ns && edges[e] > tally->set_from_ns) tally->set_from_ns = edges[e];
            if (edges[e] > at_ns && edges[e] < tally->set_to_ns) tally->set_to_ns = edges[e];
        }
        if (at_ns >= edges[0] && at_ns < edges[1]) tally->set |= (wr_phase_set)1 << i;
    }
}

static inline struct slot *whole(const weir_tally *tally)
{
    return &tally->slots[tally->phase_count];
}

wr_phase_set wr_tally_arrived(weir_tally *tally, uint64_t at_ns)
{
    if (at_ns < tally->set_from_ns || at_ns >= tally->set_to_ns) find_set(tally, at_ns);
    bucket_at(tally, at_ns)->counts.arrived++;
    whole(tally)->counts.arrived++;
    for (wr_phase_set rest = tally->set; rest != 0; rest &= rest - 1)
        tally->slots[__builtin_ctz(rest)].counts.arrived++;
    return tally->set;
}

static void count_call(struct slot *slot, weir_code code, uint32_t attempts)
{
    slot->counts.calls++;
    slot->counts.attempts += attempts;
    slot->ended_as[code]++;
}

void wr_tally_called(weir_tally *tally, wr_phase_set phases, uint64_t at_ns, weir_code code,
                     uint32_t attempts)
{
    struct bucket *bucket = bucket_at(tally, at_ns);
    WR_CHECK((unsigned)code < WR_CODES);
    bucket->counts.calls++;
    bucket->counts.attempts += attempts;
    count_call(whole(tally), code, attempts);
    for (; phases != 0; phases &= phases - 1)
        count_call(&tally->slots[__builtin_ctz(phases)], code, attempts);
}

static bool is_refusal(weir_code code)
{
    return code == WEIR_CALL_BREAKER_OPEN || code == WEIR_CALL_QUEUE_FULL ||
           code == WEIR_CALL_ACQUIRE_TIMEOUT || code == WEIR_CALL_PAUSED || code == WEIR_CALL_DRAINING;
}

static void count_end(weir_tally_counts *counts, const struct wr_verdict *v, uint64_t latency_ns)
{
    counts->latency_sum_ns += latency_ns;
    if (latency_ns > counts->latency_max_ns) counts->latency_max_ns = latency_ns;
    if (v->code == WEIR_CALL_OK) {
        counts->ok++;
        return;
    }
    counts->failed++;
    if (is_refusal(v->code)) counts->refused++;
    if (v->code == WEIR_CALL_TIMEOUT) counts->timed_out++;
    if (v->outcome == WEIR_OUTCOME_UNKNOWN) counts->unknown++;
}

static void end_in_slot(struct slot *slot, const struct wr_verdict *v, uint64_t latency_ns)
{
    count_end(&slot->counts, v, latency_ns);
    wr_histogram_record_fine(&slot->all, latency_ns);
    if (v->code == WEIR_CALL_OK) wr_histogram_record_fine(&slot->well, latency_ns);
}

void wr_tally_ended(weir_tally *tally, const struct wr_verdict *v)
{
    uint64_t latency_ns = v->ended_ns > v->arrived_ns ? v->ended_ns - v->arrived_ns : 0;
    struct bucket *bucket = bucket_at(tally, v->ended_ns);
    count_end(&bucket->counts, v, latency_ns);
    bucket->spread[bin_of(latency_ns)]++;
    end_in_slot(whole(tally), v, latency_ns);
    for (wr_phase_set rest = v->phases; rest != 0; rest &= rest - 1)
        end_in_slot(&tally->slots[__builtin_ctz(rest)], v, latency_ns);
}

/* ---- levels and moves ---------------------------------------------------------------------------------- */

void wr_tally_level(weir_tally *tally, const struct wr_level *level, uint64_t now_ns)
{
    struct bucket *bucket = bucket_at(tally, now_ns);
    tally->level = *level;
    raise_level(&bucket->level, level);
}

void wr_tally_moved(weir_tally *tally, const weir_tally_move *move)
{
    tally->moves_seen++;
    if (tally->move_count < WEIR_TALLY_MOVES) tally->moves[tally->move_count++] = *move;
}

struct wr_list *wr_tally_watches(weir_tally *tally)
{
    return &tally->watches;
}

const struct wr_memory *wr_tally_memory(const weir_tally *tally)
{
    return tally->memory;
}

/* ---- making and freeing -------------------------------------------------------------------------------- */

static int check_options(uint64_t bucket_ns, const weir_phase_span *phases, size_t count, char *why)
{
    if (bucket_ns == 0 || bucket_ns > UINT64_C(3600000000000)) {
        wr_text_format(why, WEIR_WHY_MAX, "bucket is %g s; it must be more than 0 and at most 3600 s",
                       (double)bucket_ns / 1e9);
        return WEIR_EINVAL;
    }
    if (count > WEIR_TALLY_PHASES) {
        wr_text_format(why, WEIR_WHY_MAX, "phases are %zu; there may be %d", count, WEIR_TALLY_PHASES);
        return WEIR_EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        const char *name = phases[i].name;
        if (name == NULL || name[0] == '\0' || strlen(name) > NAME_MAX_BYTES) {
            wr_text_format(why, WEIR_WHY_MAX, "phase %zu has the name '%.40s'; it must have 1 to %d bytes",
                           i + 1, name == NULL ? "" : name, NAME_MAX_BYTES);
            return WEIR_EINVAL;
        }
        if (phases[i].from_ns >= phases[i].to_ns) {
            wr_text_format(why, WEIR_WHY_MAX,
                           "phase '%s' ends at %.9g s; it must end after its beginning at %.9g s", name,
                           (double)phases[i].to_ns / 1e9, (double)phases[i].from_ns / 1e9);
            return WEIR_EINVAL;
        }
    }
    return WEIR_OK;
}

static bool acquire(weir_tally *tally, size_t phase_count)
{
    tally->buckets = wr_alloc(tally->memory, WEIR_TALLY_BUCKETS * sizeof *tally->buckets);
    tally->slots = wr_alloc(tally->memory, (phase_count + 1) * sizeof *tally->slots);
    tally->moves = wr_alloc(tally->memory, WEIR_TALLY_MOVES * sizeof *tally->moves);
    return tally->buckets != NULL && tally->slots != NULL && tally->moves != NULL;
}

int wr_tally_new(const struct wr_memory *memory, weir_tally **out, uint64_t origin_ns, uint64_t bucket_ns,
                 const weir_phase_span *phases, size_t phase_count, char *why)
{
    char unused[WEIR_WHY_MAX];
    if (why == NULL) why = unused;
    *out = NULL;
    int code = check_options(bucket_ns, phases, phase_count, why);
    if (code != WEIR_OK) return code;
    weir_tally *tally = wr_alloc(memory, sizeof *tally);
    if (tally != NULL) {
        wr_list_init(&tally->watches);
        tally->memory = memory;
    }
    if (tally == NULL || !acquire(tally, phase_count)) {
        weir_tally_free(tally);
        wr_text_format(why, WEIR_WHY_MAX, "out of memory");
        return WEIR_ENOMEM;
    }
    tally->origin_ns = origin_ns;
    tally->width_ns = bucket_ns;
    tally->phase_count = phase_count;
    for (size_t i = 0; i < phase_count; i++) {
        tally->slots[i].from_ns = phases[i].from_ns;
        tally->slots[i].to_ns = phases[i].to_ns;
    }
    *out = tally;
    return WEIR_OK;
}

int weir_tally_new(weir_tally **out, uint64_t origin_ns, uint64_t bucket_ns, const weir_phase_span *phases,
                   size_t phase_count, char *why)
{
    return wr_tally_new(wr_memory_libc(), out, origin_ns, bucket_ns, phases, phase_count, why);
}

void weir_tally_free(weir_tally *tally)
{
    if (tally == NULL) return;
    WR_CHECK(wr_list_empty(&tally->watches)); /* its loads were freed before */
    wr_free(tally->memory, tally->buckets);
    wr_free(tally->memory, tally->slots);
    wr_free(tally->memory, tally->moves);
    wr_free(tally->memory, tally);
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static const struct slot *slot_of(const weir_tally *tally, size_t phase)
{
    if (phase == WEIR_TALLY_PHASES) return whole(tally);
    return phase < tally->phase_count ? &tally->slots[phase] : NULL;
}

bool weir_tally_counts_of(const weir_tally *tally, size_t phase, weir_tally_counts *out)
{
    const struct slot *slot = slot_of(tally, phase);
    if (slot == NULL) return false;
    *out = slot->counts;
    return true;
}

uint64_t weir_tally_quantile(const weir_tally *tally, size_t phase, bool well, double q)
{
    struct wr_histogram_view view;
    const struct slot *slot = slot_of(tally, phase);
    if (slot == NULL) return 0;
    wr_histogram_view_init(&view, WR_FINE_BITS);
    wr_histogram_merge_fine(&view, well ? &slot->well : &slot->all);
    return wr_histogram_quantile(&view, q);
}

uint64_t weir_tally_ended_as(const weir_tally *tally, size_t phase, weir_code code)
{
    const struct slot *slot = slot_of(tally, phase);
    return slot == NULL || (unsigned)code >= WR_CODES ? 0 : slot->ended_as[code];
}

size_t weir_tally_bucket_count(const weir_tally *tally)
{
    return tally->bucket_count;
}

bool weir_tally_bucket_at(const weir_tally *tally, size_t index, weir_tally_bucket *out)
{
    if (index >= tally->bucket_count) return false;
    const struct bucket *bucket = &tally->buckets[index];
    *out = (weir_tally_bucket){
        .from_ns = tally->origin_ns + index * tally->width_ns,
        .to_ns = tally->origin_ns + (index + 1) * tally->width_ns,
        .counts = bucket->counts,
        .latency_p95_ns = spread_p95(bucket),
        .breaker = bucket->level.breaker,
        .waiting = bucket->level.waiting,
        .connections = bucket->level.connections,
    };
    return true;
}

size_t weir_tally_move_count(const weir_tally *tally)
{
    return tally->move_count;
}

uint64_t weir_tally_moves_seen(const weir_tally *tally)
{
    return tally->moves_seen;
}

bool weir_tally_move_at(const weir_tally *tally, size_t index, weir_tally_move *out)
{
    if (index >= tally->move_count) return false;
    *out = tally->moves[index];
    return true;
}
