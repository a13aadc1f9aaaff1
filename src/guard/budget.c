/* The retry budget: retries are paid for by success, so a dead backend gets a trickle instead of a storm.
 *
 * The token kind keeps its level in one word, in one of two forms. Above the floor time changes nothing, and the word
 * is the level. Below it time refills, and the word is the moment at which the floor will be reached, as in a
 * token bucket; nobody has to write for time to pass. The ratio kind counts requests and retries in sliding
 * seconds, as Finagle's RetryBudget does. */
#include "weir/guard.h"

#include "base/check.h"
#include "base/text.h"
#include "guard/defuse.h"
#include "guard/moment.h"
#include "guard/window.h"

#include <string.h>

#define NS_PER_SECOND UINT64_C(1000000000)
#define REFILL_NS     1e10 /* time alone refills an empty budget to the floor in this */
#define NANO          1e9  /* a level is kept in thousand-millionths of a token */
#define ROUNDING      1e-6 /* ten earned tenths are one token, whatever a double says */
#define IS_LEVEL      (UINT64_C(1) << 63)

static const double tokens_max = 1e9;

enum { ONE_GENERATION = 1 }; /* a budget's windows are never started afresh */

struct weir_budget {
    _Alignas(64) _Atomic uint64_t
        tokens; /* IS_LEVEL | nanotokens, or ns since epoch at which the floor is reached */
    uint64_t epoch_ns;
    double per_success, floor, cap;
    bool ratio;
    uint32_t seconds;
    _Alignas(64) struct wr_slide requests;
    struct wr_slide withdrawn;
};

/* ---- token kind ---- */

static double level_of(const weir_budget *budget, uint64_t word, uint64_t now)
{
    if (word & IS_LEVEL) return (double)(word & ~IS_LEVEL) / NANO;
    if (now >= word) return budget->floor;
    double level = budget->floor - (double)(word - now) * budget->floor / REFILL_NS;
    return level > 0 ? level : 0;
}

static uint64_t word_of(const weir_budget *budget, double level, uint64_t now)
{
    if (level >= budget->floor) return IS_LEVEL | (uint64_t)(level * NANO + 0.5);
    return now + (uint64_t)((budget->floor - level) / budget->floor * REFILL_NS + 0.5);
}

/* Adds `change` tokens, up to the cap; false and no effect if fewer would be left than none. */
static bool change_level(weir_budget *budget, double change, uint64_t now_ns)
{
    uint64_t now = wr_time_until(now_ns, budget->epoch_ns);
    uint64_t word = atomic_load_explicit(&budget->tokens, memory_order_relaxed);
    uint64_t next;
    do {
        double level = level_of(budget, word, now) + change;
        if (level < -ROUNDING) return false;
        if (level < 0) level = 0;
        if (level > budget->cap) level = budget->cap;
        next = word_of(budget, level, now);
        if (next == word) return true; /* full: the common case of a healthy backend writes nothing */
    } while (!atomic_compare_exchange_weak_explicit(&budget->tokens, &word, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

/* ---- ratio kind ---- */

static double balance(const weir_budget *budget, uint64_t second)
{
    uint64_t requests = wr_slide_sum(&budget->requests, ONE_GENERATION, second, budget->seconds);
    uint64_t withdrawn = wr_slide_sum(&budget->withdrawn, ONE_GENERATION, second, budget->seconds);
    return (double)requests * budget->per_success + budget->floor * budget->seconds - (double)withdrawn;
}

/* Withdraws first and looks then, so that of two at once neither overlooks the other; the one that went too far gives
 * back. Killed before giving back, it leaves one retry less until the window has passed. */
static bool withdraw_share(weir_budget *budget, uint64_t second)
{
    if (balance(budget, second) < 1.0 - ROUNDING) return false;
    wr_slide_add(&budget->withdrawn, ONE_GENERATION, second);
    if (balance(budget, second) >= -ROUNDING) return true;
    wr_slide_take_back(&budget->withdrawn, ONE_GENERATION, second);
    return false;
}

/* ---- public ---- */

#define REFUSE(...)                                                                                          \
    do {                                                                                                     \
        if (why != NULL) wr_text_format(why, WEIR_WHY_MAX, __VA_ARGS__);                                     \
        return WEIR_EINVAL;                                                                                  \
    } while (0)

static bool is_amount(double x)
{
    return x >= 0.0 && x <= tokens_max;
}

static int check(const weir_budget_config *c, char *why)
{
    if (!is_amount(c->per_success)) REFUSE("per_success is %g: it must be 0 to 1e9", c->per_success);
    if (!is_amount(c->floor)) REFUSE("floor is %g: it must be 0 to 1e9", c->floor);
    if (c->ratio) {
        if (c->window_ns < NS_PER_SECOND || c->window_ns > WR_SLIDE_SECONDS * NS_PER_SECOND) {
            REFUSE("window is %.12g s: it must be 1 to %d s", (double)c->window_ns / 1e9, WR_SLIDE_SECONDS);
        }
        return WEIR_OK;
    }
    if (!is_amount(c->cap) || c->cap < c->floor) REFUSE("cap is %g: it must be floor to 1e9", c->cap);
    if (c->cap < 1.0) REFUSE("cap is %g: below 1 no retry could ever be paid", c->cap);
    return WEIR_OK;
}

void weir_budget_defaults(weir_budget_config *config)
{
    *config =
        (weir_budget_config){.per_success = 0.1, .floor = 10, .cap = 100, .window_ns = 10 * NS_PER_SECOND};
}

size_t weir_budget_size(void)
{
    return sizeof(weir_budget);
}

int weir_budget_check(const weir_budget_config *config, char *why)
{
    return check(config, why);
}

int weir_budget_init(weir_budget *budget, const weir_budget_config *config, uint64_t now_ns, char *why)
{
    int code = check(config, why);
    if (code != WEIR_OK) return code;
    WR_CHECK((uintptr_t)budget % 64 == 0);
    memset(budget, 0, sizeof *budget);
    budget->epoch_ns = now_ns;
    budget->per_success = config->per_success;
    budget->floor = config->floor;
    budget->cap = config->ratio ? 0 : config->cap;
    budget->ratio = config->ratio;
    budget->seconds = (uint32_t)((config->window_ns + NS_PER_SECOND - 1) / NS_PER_SECOND);
    atomic_store(&budget->tokens, word_of(budget, budget->floor, 0));
    return WEIR_OK;
}

int weir_budget_configure(weir_budget *budget, const weir_budget_config *config, uint64_t now_ns, char *why)
{
    int code = check(config, why);
    if (code != WEIR_OK) return code;
    uint32_t seconds = (uint32_t)((config->window_ns + NS_PER_SECOND - 1) / NS_PER_SECOND);
    bool same = budget->ratio == config->ratio && budget->per_success == config->per_success &&
                budget->floor == config->floor && budget->cap == (config->ratio ? 0 : config->cap) &&
                budget->seconds == seconds;
    return same ? WEIR_OK : weir_budget_init(budget, config, now_ns, why);
}

void weir_budget_request(weir_budget *budget, uint64_t now_ns)
{
    if (budget->ratio) wr_slide_add(&budget->requests, ONE_GENERATION, wr_window_second(now_ns));
}

void weir_budget_success(weir_budget *budget, uint64_t now_ns)
{
    if (!budget->ratio) change_level(budget, budget->per_success, now_ns);
}

bool weir_budget_withdraw(weir_budget *budget, uint64_t now_ns)
{
    if (budget->ratio) return withdraw_share(budget, wr_window_second(now_ns));
    return change_level(budget, -1.0, now_ns);
}

double weir_budget_level(const weir_budget *budget, uint64_t now_ns)
{
    if (!budget->ratio) {
        uint64_t word = atomic_load_explicit(&budget->tokens, memory_order_relaxed);
        return level_of(budget, word, wr_time_until(now_ns, budget->epoch_ns));
    }
    double left = balance(budget, wr_window_second(now_ns));
    return left > 0 ? left : 0;
}

double weir_budget_cap(const weir_budget *budget)
{
    return budget->cap;
}

void wr_budget_defuse(weir_budget *copy)
{
    unsigned char ratio;
    memcpy(&ratio, &copy->ratio, sizeof ratio); /* a bool that is neither may be taken for anything */
    copy->ratio = (ratio & 1) != 0;
    if (copy->seconds > WR_SLIDE_SECONDS) copy->seconds = WR_SLIDE_SECONDS;
    if (!is_amount(copy->per_success)) copy->per_success = 0;
    if (!is_amount(copy->floor)) copy->floor = 0;
    if (!is_amount(copy->cap)) copy->cap = 0;
}
