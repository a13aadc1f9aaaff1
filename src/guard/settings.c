#include "guard/settings.h"

#include "base/text.h"
#include "guard/evidence.h"
#include "guard/lease.h"
#include "guard/window.h"

#include <string.h>
#include <sys/auxv.h>

#define NS_PER_SECOND UINT64_C(1000000000)

typedef uint64_t (*open_for_function)(void *ctx, uint32_t k);

static bool is_rate(double r)
{
    return r > 0.0 && r <= 1.0; /* false for NaN */
}

/* The one macro that returns: every check reads as one line, and none can forget the code or the sentence. */
#define REFUSE(...)                                                                                          \
    do {                                                                                                     \
        if (why != NULL) wr_text_format(why, WEIR_WHY_MAX, __VA_ARGS__);                                     \
        return WEIR_EINVAL;                                                                                  \
    } while (0)

static int check_window(const weir_breaker_config *c, char *why)
{
    if (c->window_calls > WR_COUNT_CALLS) {
        REFUSE("window_calls is %u: it must be at most %d", c->window_calls, WR_COUNT_CALLS);
    }
    if (c->window_calls == 0 &&
        (c->window_ns < NS_PER_SECOND || c->window_ns > WR_SLIDE_SECONDS * NS_PER_SECOND)) {
        REFUSE("window is %.12g s: it must be 1 to %d s", (double)c->window_ns / 1e9, WR_SLIDE_SECONDS);
    }
    if (c->min_calls < 1) REFUSE("min_calls is 0: it must be at least 1");
    return WEIR_OK;
}

static int check_rules(const weir_breaker_config *c, char *why)
{
    if (!is_rate(c->failure_rate))
        REFUSE("failure_rate is %g: it must be above 0 and at most 1", c->failure_rate);
    if (!is_rate(c->slow_rate)) REFUSE("slow_rate is %g: it must be above 0 and at most 1", c->slow_rate);
    if (c->rates_off && c->consecutive == 0)
        REFUSE("consecutive is 0 with the rates off: nothing could ever trip");
    return WEIR_OK;
}

static int check_recovery(const weir_breaker_config *c, char *why)
{
    if (c->open_for_ns == 0) REFUSE("open_for is 0: it must be above 0");
    if (c->permits < 1 || c->permits > WR_LEASES) {
        REFUSE("half-open permits is %u: it must be 1 to %d", c->permits, WR_LEASES);
    }
    if (c->lease_ns == 0) REFUSE("lease is 0: it must be above 0");
    if ((unsigned)c->initial > WEIR_METRICS_ONLY)
        REFUSE("initial state is %d: there is no such state", (int)c->initial);
    return WEIR_OK;
}

int wr_settings_check(const weir_breaker_config *config, char *why)
{
    int code = check_window(config, why);
    if (code == WEIR_OK) code = check_rules(config, why);
    if (code == WEIR_OK) code = check_recovery(config, why);
    return code;
}

/* Tells one run of one program from all others, and survives fork, as code addresses do: the 16 random bytes the
 * kernel gives at exec. They also seed the stack protector, so what is derived from them here must not be
 * invertible; 128 bits go into 64. */
static uint64_t image_mark(void)
{
    static _Atomic uint64_t mark;
    uint64_t known = atomic_load_explicit(&mark, memory_order_relaxed);
    if (known != 0) return known;
    uint64_t words[3] = {0, 0, (uint64_t)(uintptr_t)&mark};
    const void *random_bytes = (const void *)getauxval(AT_RANDOM);
    if (random_bytes != NULL) memcpy(words, random_bytes, 16);
    known = wr_seal(words, 3) | 1;
    atomic_store_explicit(&mark, known, memory_order_relaxed);
    return known;
}

static uint64_t seal_function(uint64_t function, uint64_t ctx)
{
    uint64_t words[3] = {function, ctx, image_mark()};
    return wr_seal(words, 3);
}

#define STORE(field, value) atomic_store_explicit(&settings->field, value, memory_order_relaxed)

static void store_function(struct wr_settings *settings, const weir_breaker_config *config)
{
    uint64_t function = (uint64_t)(uintptr_t)config->open_for;
    uint64_t ctx = (uint64_t)(uintptr_t)config->open_for_ctx;
    STORE(function, function);
    STORE(ctx, ctx);
    STORE(seal, seal_function(function, ctx));
}

void wr_settings_store(struct wr_settings *settings, const weir_breaker_config *config)
{
    uint32_t calls = config->window_calls;
    uint64_t seconds = (config->window_ns + NS_PER_SECOND - 1) / NS_PER_SECOND;
    STORE(window, calls > 0 ? (uint64_t)calls << 32 : seconds);
    /* A count window never holds more than its length, so a larger min_calls would silence the rates for good. */
    STORE(min_calls, calls > 0 && config->min_calls > calls ? calls : config->min_calls);
    STORE(consecutive, config->consecutive);
    STORE(permits, config->permits);
    STORE(rates_off, config->rates_off);
    STORE(failure_rate, config->failure_rate);
    STORE(slow_rate, config->slow_rate);
    STORE(slow_call_ns, config->slow_call_ns);
    STORE(open_for_ns, config->open_for_ns);
    STORE(half_open_wait_ns, config->half_open_wait_ns);
    STORE(lease_ns, config->lease_ns);
    store_function(settings, config);
}

/* Clamped, because the word lies in memory that a faulty process can reach, and array sizes depend on it. */
struct wr_window_shape wr_settings_window(const struct wr_settings *settings)
{
    uint64_t word = WR_SETTING(settings, window);
    uint32_t calls = (uint32_t)(word >> 32), seconds = (uint32_t)word;
    if (calls > WR_COUNT_CALLS) calls = WR_COUNT_CALLS;
    if (seconds > WR_SLIDE_SECONDS) seconds = WR_SLIDE_SECONDS;
    return (struct wr_window_shape){.calls = calls, .seconds = seconds};
}

uint64_t wr_settings_open_for(const struct wr_settings *settings, uint32_t k)
{
    uint64_t function = WR_SETTING(settings, function);
    uint64_t ctx = WR_SETTING(settings, ctx);
    uint64_t plain = WR_SETTING(settings, open_for_ns);
    if (function == 0 || WR_SETTING(settings, seal) != seal_function(function, ctx)) return plain;
    uint64_t asked = ((open_for_function)(uintptr_t)function)((void *)(uintptr_t)ctx, k);
    return asked == 0 ? plain : asked;
}
