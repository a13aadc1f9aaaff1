/* A breaker's configuration as it lies in shared memory: checked once, then read field by field while another process
 * may be writing a new one. Each field alone is always a permitted value, so a reader that sees a mixture of two
 * configurations for an instant decides by numbers that some operator wanted. */
#ifndef WR_SETTINGS_H
#define WR_SETTINGS_H

#include "weir/guard.h"

#include <stdatomic.h>

struct wr_settings {
    _Atomic uint64_t window; /* [calls:32 | seconds:32]: one word, as its halves only make sense together */
    _Atomic uint32_t min_calls;
    _Atomic uint32_t consecutive;
    _Atomic uint32_t permits;
    _Atomic bool rates_off;
    _Atomic double failure_rate, slow_rate;
    _Atomic uint64_t slow_call_ns;
    _Atomic uint64_t open_for_ns, half_open_wait_ns, lease_ns;
    /* The open_for function and its ctx mean something in one process image only. The seal covers both and a mark of
     * the image that stored them; where it does not fit (another program, or a torn read) open_for_ns is used. */
    _Atomic uint64_t function, ctx, seal;
};

struct wr_window_shape {
    uint32_t calls;   /* 1 .. WR_COUNT_CALLS, or 0 */
    uint32_t seconds; /* 1 .. WR_SLIDE_SECONDS if calls is 0 */
};

int wr_settings_check(const weir_breaker_config *config, char *why);
void wr_settings_store(struct wr_settings *settings, const weir_breaker_config *config);
struct wr_window_shape wr_settings_window(const struct wr_settings *settings);
/* How long the k-th opening in a row lasts. */
uint64_t wr_settings_open_for(const struct wr_settings *settings, uint32_t k);

#define WR_SETTING(settings, field) atomic_load_explicit(&(settings)->field, memory_order_relaxed)

#endif
