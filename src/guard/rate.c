/* The token bucket as GCRA: one word holds the moment at which the bucket would be full, so a take is one CAS and
 * time refills it without anybody writing. */
#include "weir/guard.h"

#include "base/check.h"
#include "base/text.h"
#include "guard/moment.h"

#include <string.h>

/* Time counts in sixteenths of a nanosecond since init: fine enough that a million tokens per second keep their rate
 * to four digits, and wide enough for 36 years. */
enum { UNITS_PER_NS = 16 };

static const double rate_max = 1e6;
static const double fill_seconds_max = 1e8;

struct weir_rate {
    _Alignas(64) _Atomic uint64_t full_at; /* units since epoch */
    uint64_t epoch_ns;
    _Atomic uint64_t interval;  /* units that earn one token */
    _Atomic uint64_t tolerance; /* how far full_at may lie ahead before a take is refused */
};

static int refuse(char *why, const char *sentence, double value)
{
    if (why != NULL) wr_text_format(why, WEIR_WHY_MAX, sentence, value);
    return WEIR_EINVAL;
}

size_t weir_rate_size(void)
{
    return sizeof(weir_rate);
}

static int check(double per_second, double burst, char *why)
{
    if (!(per_second > 0.0 && per_second <= rate_max)) {
        return refuse(why, "per_second is %g: it must be above 0 and at most 1000000", per_second);
    }
    if (!(burst >= 1.0)) return refuse(why, "burst is %g: it must be at least 1", burst);
    if (!(burst / per_second <= fill_seconds_max)) {
        return refuse(why, "burst is %g: at this per_second it would take more than 1e8 s to fill", burst);
    }
    return WEIR_OK;
}

/* Each of the two alone is a value that somebody wanted, should another process read in between. */
static void store(weir_rate *rate, double per_second, double burst)
{
    uint64_t interval = (uint64_t)(1e9 * UNITS_PER_NS / per_second + 0.5);
    atomic_store_explicit(&rate->interval, interval, memory_order_relaxed);
    atomic_store_explicit(&rate->tolerance, (uint64_t)((double)interval * (burst - 1.0) + 0.5),
                          memory_order_relaxed);
}

int weir_rate_init(weir_rate *rate, double per_second, double burst, uint64_t now_ns, char *why)
{
    int code = check(per_second, burst, why);
    if (code != WEIR_OK) return code;
    WR_CHECK((uintptr_t)rate % 64 == 0);
    memset(rate, 0, sizeof *rate);
    rate->epoch_ns = now_ns;
    store(rate, per_second, burst);
    return WEIR_OK;
}

int weir_rate_configure(weir_rate *rate, double per_second, double burst, char *why)
{
    int code = check(per_second, burst, why);
    if (code == WEIR_OK) store(rate, per_second, burst);
    return code;
}

bool weir_rate_take(weir_rate *rate, uint64_t now_ns, uint64_t *wait_ns)
{
    uint64_t now = wr_time_until(now_ns, rate->epoch_ns) * UNITS_PER_NS;
    uint64_t full_at = atomic_load_explicit(&rate->full_at, memory_order_relaxed);
    uint64_t interval = atomic_load_explicit(&rate->interval, memory_order_relaxed);
    uint64_t tolerance = atomic_load_explicit(&rate->tolerance, memory_order_relaxed);
    uint64_t from;
    do {
        from = full_at > now ? full_at : now;
        if (from - now > tolerance) {
            uint64_t wait = from - now - tolerance;
            if (wait_ns != NULL) *wait_ns = (wait + UNITS_PER_NS - 1) / UNITS_PER_NS;
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&rate->full_at, &full_at, from + interval,
                                                    memory_order_relaxed, memory_order_relaxed));
    if (wait_ns != NULL) *wait_ns = 0;
    return true;
}
