/* Delays between attempts. The jitter kinds are those of "Exponential Backoff And Jitter" (AWS Architecture Blog,
 * 2015). */
#include "weir/guard.h"

#include "base/text.h"

/* factor^n, infinity where a double cannot hold it. Squaring keeps a large n cheap. */
static double power(double factor, uint32_t n)
{
    double result = 1.0;
    for (; n > 0; n >>= 1) {
        if (n & 1) result *= factor;
        factor *= factor;
    }
    return result;
}

/* Uniform in [0, most] from 64 random bits; the product's upper half is free of modulo bias worth speaking of. */
static uint64_t scale(uint64_t random, uint64_t most)
{
    if (most == UINT64_MAX) return random;
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)(((wide)random * (most + 1)) >> 64);
}

static uint64_t ceiling(const weir_backoff *b)
{
    double wanted = (double)b->base_ns * power(b->factor, b->step);
    return wanted < (double)b->cap_ns ? (uint64_t)wanted : b->cap_ns;
}

static uint64_t decorrelated(const weir_backoff *b, uint64_t random)
{
    uint64_t triple = b->previous_ns > UINT64_MAX / 3 ? UINT64_MAX : b->previous_ns * 3;
    uint64_t delay = b->base_ns + scale(random, triple - b->base_ns);
    return delay < b->cap_ns ? delay : b->cap_ns;
}

static uint64_t delay_of(const weir_backoff *b, uint64_t random)
{
    uint64_t e = ceiling(b);
    switch (b->kind) {
    case WEIR_BACKOFF_FULL:
        return scale(random, e);
    case WEIR_BACKOFF_EQUAL:
        return e / 2 + scale(random, e - e / 2);
    case WEIR_BACKOFF_DECORRELATED:
        return decorrelated(b, random);
    case WEIR_BACKOFF_EXPONENTIAL:
        return e;
    case WEIR_BACKOFF_CONSTANT:
    default:
        return b->base_ns;
    }
}

static int refuse(char *why, const char *sentence, double value)
{
    if (why != NULL) wr_text_format(why, WEIR_WHY_MAX, sentence, value);
    return WEIR_EINVAL;
}

int weir_backoff_init(weir_backoff *backoff, weir_backoff_kind kind, uint64_t base_ns, uint64_t cap_ns,
                      double factor, char *why)
{
    if ((unsigned)kind > WEIR_BACKOFF_CONSTANT)
        return refuse(why, "kind is %.0f: there is no such backoff", kind);
    if (base_ns == 0) return refuse(why, "base is %g: it must be above 0", 0);
    if (cap_ns < base_ns) return refuse(why, "cap is %g s: it must not be below base", (double)cap_ns / 1e9);
    if (!(factor >= 1.0)) return refuse(why, "factor is %g: it must be at least 1", factor);
    *backoff = (weir_backoff){
        .kind = kind, .base_ns = base_ns, .cap_ns = cap_ns, .factor = factor, .previous_ns = base_ns};
    return WEIR_OK;
}

uint64_t weir_backoff_next(weir_backoff *backoff, uint64_t random)
{
    uint64_t delay = delay_of(backoff, random);
    backoff->previous_ns = delay;
    if (backoff->step < UINT32_MAX) backoff->step++;
    return delay;
}

void weir_backoff_reset(weir_backoff *backoff)
{
    backoff->step = 0;
    backoff->previous_ns = backoff->base_ns;
}
