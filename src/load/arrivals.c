/* Arrival processes; see arrivals.h. */
#include "load/arrivals.h"

#include <math.h>

/* ---- the rate, as stretches ---------------------------------------------------------------------------- */

static void add_stretch(struct wr_arrivals *a, uint64_t from_ns, uint64_t to_ns, double rate,
                        double rate_at_end)
{
    if (from_ns >= to_ns) return;
    double seconds = (double)(to_ns - from_ns) / 1e9;
    a->stretches[a->stretch_count++] = (struct wr_stretch){
        .from_ns = from_ns,
        .seconds = seconds,
        .rate = rate,
        .slope = (rate_at_end - rate) / seconds,
        .total = seconds * (rate + rate_at_end) / 2,
    };
}

static double rate_between(const weir_load_rate *a, const weir_load_rate *b, uint64_t at_ns)
{
    double part = (double)(at_ns - a->at_ns) / (double)(b->at_ns - a->at_ns);
    return a->per_second + part * (b->per_second - a->per_second);
}

/* Of the way from one point to the next, what lies in [from, until). */
static void add_between(struct wr_arrivals *a, const weir_load_rate *one, const weir_load_rate *other,
                        uint64_t from_ns)
{
    uint64_t begin = one->at_ns > from_ns ? one->at_ns : from_ns;
    uint64_t end = other->at_ns < a->until_ns ? other->at_ns : a->until_ns;
    if (begin >= end) return;
    add_stretch(a, begin, end, rate_between(one, other, begin), rate_between(one, other, end));
}

static void lay_out(struct wr_arrivals *a, const weir_load_rate *rates, size_t count, uint64_t from_ns)
{
    const weir_load_rate *last = &rates[count - 1];
    uint64_t first_at = rates[0].at_ns < a->until_ns ? rates[0].at_ns : a->until_ns;
    add_stretch(a, from_ns, first_at, rates[0].per_second, rates[0].per_second);
    for (size_t i = 0; i + 1 < count; i++) add_between(a, &rates[i], &rates[i + 1], from_ns);
    add_stretch(a, last->at_ns > from_ns ? last->at_ns : from_ns, a->until_ns, last->per_second,
                last->per_second);
}

/* ---- the next arrival ---------------------------------------------------------------------------------- */

static double draw_step(struct wr_arrivals *a)
{
    return a->poisson ? -log(1 - wr_rng_unit(&a->rng)) : 1;
}

/* Solves rate * x + slope * x^2 / 2 = mass, in the form that loses no digits when the slope is small. */
static double seconds_at(const struct wr_stretch *s, double mass)
{
    if (mass <= 0) return 0;
    if (s->slope == 0) return mass / s->rate;
    double square = s->rate * s->rate + 2 * s->slope * mass;
    return 2 * mass / (s->rate + sqrt(square > 0 ? square : 0));
}

static uint64_t moment_at(const struct wr_arrivals *a, const struct wr_stretch *s, double mass)
{
    double seconds = seconds_at(s, mass);
    uint64_t at = s->from_ns + (uint64_t)((seconds < s->seconds ? seconds : s->seconds) * 1e9);
    if (at >= a->until_ns) at = a->until_ns - 1; /* rounding */
    return a->next_ns != UINT64_MAX && at < a->next_ns ? a->next_ns : at;
}

static void step(struct wr_arrivals *a, double by)
{
    for (a->mass += by; a->stretch < a->stretch_count; a->stretch++) {
        const struct wr_stretch *s = &a->stretches[a->stretch];
        if (a->mass < s->total) {
            a->next_ns = moment_at(a, s, a->mass);
            return;
        }
        a->mass -= s->total;
    }
    a->next_ns = UINT64_MAX;
}

static uint64_t burst_ns(const struct wr_arrivals *a)
{
    return a->burst < a->burst_count ? a->bursts[a->burst].at_ns : UINT64_MAX;
}

/* Goes to the next burst that has requests and lies in [from, until). */
static void next_burst(struct wr_arrivals *a, uint64_t from_ns)
{
    for (; a->burst < a->burst_count; a->burst++) {
        const weir_load_burst *burst = &a->bursts[a->burst];
        a->burst_left = burst->requests;
        if (burst->at_ns >= a->until_ns)
            a->burst_count = a->burst; /* they are in order: the rest is late too */
        else if (burst->requests > 0 && burst->at_ns >= from_ns)
            return;
    }
}

uint64_t wr_arrivals_next_ns(const struct wr_arrivals *a)
{
    uint64_t burst = burst_ns(a);
    return burst < a->next_ns ? burst : a->next_ns;
}

void wr_arrivals_take(struct wr_arrivals *a)
{
    if (burst_ns(a) <= a->next_ns && burst_ns(a) != UINT64_MAX) {
        if (--a->burst_left > 0) return;
        a->burst++;
        next_burst(a, 0);
    } else if (a->next_ns != UINT64_MAX) {
        step(a, draw_step(a));
    }
}

/* ---- making and freeing -------------------------------------------------------------------------------- */

int wr_arrivals_init(struct wr_arrivals *a, const struct wr_memory *memory, const weir_load_options *options,
                     uint64_t seed)
{
    *a = (struct wr_arrivals){.poisson = options->poisson,
                              .next_ns = UINT64_MAX,
                              .until_ns = options->until_ns,
                              .memory = memory};
    wr_rng_seed(&a->rng, seed);
    if (options->rate_count > 0) {
        a->stretches = wr_alloc(memory, (options->rate_count + 1) * sizeof *a->stretches);
        if (a->stretches == NULL) return WEIR_ENOMEM;
        lay_out(a, options->rates, options->rate_count, options->from_ns);
        /* Even arrivals stand in the middle of their unit: 100 a second for a second are 100, not 99 or 101. */
        step(a, a->poisson ? draw_step(a) : 0.5);
    }
    if (options->burst_count > 0) {
        a->bursts = wr_alloc(memory, options->burst_count * sizeof *a->bursts);
        if (a->bursts == NULL) return WEIR_ENOMEM;
        for (size_t i = 0; i < options->burst_count; i++) a->bursts[i] = options->bursts[i];
        a->burst_count = options->burst_count;
        next_burst(a, options->from_ns);
    }
    return WEIR_OK;
}

void wr_arrivals_release(struct wr_arrivals *a)
{
    wr_free(a->memory, a->stretches);
    wr_free(a->memory, a->bursts);
    a->stretches = NULL;
    a->bursts = NULL;
}
