/* A load as a whole: its options, its turn, its end. */
#include "load/traffic.h"

#include "base/check.h"
#include "base/text.h"

static const double ns_per_second = 1e9;

/* ---- options ------------------------------------------------------------------------------------------- */

enum { POINTS_MAX = 256, USERS_MAX = 100000, CALLER_RETRIES_MAX = 1000 };

static int check_rates(const weir_load_options *o, char *why)
{
    if (o->rate_count > POINTS_MAX) {
        wr_text_format(why, WEIR_WHY_MAX, "rates are %zu; there may be %d", o->rate_count, POINTS_MAX);
        return WEIR_EINVAL;
    }
    for (size_t i = 0; i < o->rate_count; i++) {
        if (!(o->rates[i].per_second >= 0 && o->rates[i].per_second <= 1e7)) {
            wr_text_format(why, WEIR_WHY_MAX, "rate %zu is %g a second; it must be from 0 to 1e7", i + 1,
                           o->rates[i].per_second);
            return WEIR_EINVAL;
        }
        if (i > 0 && o->rates[i].at_ns < o->rates[i - 1].at_ns) {
            wr_text_format(why, WEIR_WHY_MAX, "rate %zu lies before the one in front of it", i + 1);
            return WEIR_EINVAL;
        }
    }
    return WEIR_OK;
}

static int check_bursts(const weir_load_options *o, char *why)
{
    if (o->burst_count > POINTS_MAX) {
        wr_text_format(why, WEIR_WHY_MAX, "bursts are %zu; there may be %d", o->burst_count, POINTS_MAX);
        return WEIR_EINVAL;
    }
    for (size_t i = 1; i < o->burst_count; i++) {
        if (o->bursts[i].at_ns >= o->bursts[i - 1].at_ns) continue;
        wr_text_format(why, WEIR_WHY_MAX, "burst %zu lies before the one in front of it", i + 1);
        return WEIR_EINVAL;
    }
    return WEIR_OK;
}

static int check_callers(const weir_load_options *o, char *why)
{
    if (o->users > USERS_MAX) {
        wr_text_format(why, WEIR_WHY_MAX, "users is %u; it must be at most %d", o->users, USERS_MAX);
        return WEIR_EINVAL;
    }
    if (o->users > 0 && weir_dist_check(&o->think, "think", why) != WEIR_OK) return WEIR_EINVAL;
    if (o->caller_retries > CALLER_RETRIES_MAX) {
        wr_text_format(why, WEIR_WHY_MAX, "caller_retries is %u; it must be at most %d", o->caller_retries,
                       CALLER_RETRIES_MAX);
        return WEIR_EINVAL;
    }
    if (o->caller_pause_ns > UINT64_C(3600000000000)) {
        wr_text_format(why, WEIR_WHY_MAX, "caller_pause is %g s; it must be at most 3600 s",
                       (double)o->caller_pause_ns / ns_per_second);
        return WEIR_EINVAL;
    }
    return WEIR_OK;
}

static int check_options(const weir_load_options *o, char *why)
{
    if (o->now_ns == NULL) {
        wr_text_format(why, WEIR_WHY_MAX, "now_ns is missing: a load goes by somebody's clock");
        return WEIR_EINVAL;
    }
    if (o->from_ns >= o->until_ns) {
        wr_text_format(why, WEIR_WHY_MAX, "until is %.9g s; it must be after from, %.9g s",
                       (double)o->until_ns / ns_per_second, (double)o->from_ns / ns_per_second);
        return WEIR_EINVAL;
    }
    int code = wr_mix_check(o, why);
    if (code == WEIR_OK) code = check_rates(o, why);
    if (code == WEIR_OK) code = check_bursts(o, why);
    if (code == WEIR_OK) code = check_callers(o, why);
    return code;
}

/* ---- making -------------------------------------------------------------------------------------------- */

static weir_load *make(const struct wr_memory *memory, weir_engine *engine, weir_tally *tally,
                       const weir_load_options *options)
{
    weir_load *load = wr_alloc(memory, sizeof *load);
    if (load == NULL) return NULL;
    load->memory = memory;
    load->engine = engine;
    load->tally = tally;
    load->options = *options;
    load->options.rates = NULL;
    load->options.bursts = NULL;
    if (options->numbers == NULL) load->options.numbers = &load->own_number;
    wr_heap_init(&load->timers, memory);
    wr_list_init(&load->open);
    wr_list_init(&load->spare);
    wr_list_init(&load->untaken);
    load->running = true; /* nobody is told of a due time before he has the load */
    return load;
}

/* A generator of its own for each question, so that the answers to one do not hang on how often the others were asked:
 * arrivals are the same whatever the engine does. */
static int acquire(weir_load *load, const weir_load_options *options)
{
    struct wr_rng seeds;
    wr_rng_seed(&seeds, options->seed);
    int code = wr_arrivals_init(&load->arrivals, load->memory, options, wr_rng_next(&seeds));
    wr_rng_seed(&load->mix_rng, wr_rng_next(&seeds));
    wr_rng_seed(&load->think_rng, wr_rng_next(&seeds));
    if (code == WEIR_OK) code = wr_mix_init(&load->mix, load->memory, options);
    if (code == WEIR_OK) code = wr_errand_reserve(load, options->users);
    for (uint32_t i = 0; i < options->users && code == WEIR_OK; i++) code = wr_errand_user(load);
    if (code != WEIR_OK) return code;
    load->watch = wr_watch_get(load->tally, load->engine, options->now_ns(options->ctx));
    return load->watch != NULL ? WEIR_OK : WEIR_ENOMEM;
}

int wr_load_new(const struct wr_memory *memory, weir_load **out, weir_engine *engine, weir_tally *tally,
                const weir_load_options *options, char *why)
{
    char unused[WEIR_WHY_MAX];
    if (why == NULL) why = unused;
    *out = NULL;
    int code = check_options(options, why);
    if (code != WEIR_OK) return code;
    weir_load *load = make(memory, engine, tally, options);
    if (load == NULL || acquire(load, options) != WEIR_OK) {
        weir_load_free(load);
        wr_text_format(why, WEIR_WHY_MAX, "out of memory");
        return WEIR_ENOMEM;
    }
    load->running = false;
    *out = load;
    return WEIR_OK;
}

int weir_load_new(weir_load **out, weir_engine *engine, weir_tally *tally, const weir_load_options *options,
                  char *why)
{
    return wr_load_new(wr_memory_libc(), out, engine, tally, options, why);
}

/* ---- its turn ------------------------------------------------------------------------------------------ */

static uint64_t timer_ns(const weir_load *load)
{
    const struct wr_timer *earliest = wr_heap_earliest(&load->timers);
    return earliest == NULL ? UINT64_MAX : earliest->at_ns;
}

uint64_t weir_load_due_ns(const weir_load *load)
{
    uint64_t timer = timer_ns(load), arrival = wr_arrivals_next_ns(&load->arrivals);
    return timer < arrival ? timer : arrival;
}

static void do_next(weir_load *load, uint64_t due_ns)
{
    if (timer_ns(load) == due_ns) {
        struct wr_timer *timer = wr_heap_pop_due(&load->timers, due_ns);
        wr_errand_fired(WR_CONTAINER(timer, struct wr_errand, timer));
    } else {
        wr_arrivals_take(&load->arrivals);
        wr_errand_arrive(load, due_ns);
    }
}

void weir_load_run(weir_load *load)
{
    uint64_t now_ns = load->options.now_ns(load->options.ctx), due_ns = weir_load_due_ns(load);
    if (due_ns > now_ns || due_ns == UINT64_MAX) return;
    load->running = true;
    for (; due_ns <= now_ns; due_ns = weir_load_due_ns(load)) do_next(load, due_ns);
    load->running = false;
    wr_watch_look(load->watch, now_ns);
}

void weir_load_observe(weir_load *load)
{
    wr_watch_look(load->watch, load->options.now_ns(load->options.ctx));
}

size_t weir_load_open(const weir_load *load)
{
    return load->open_count;
}

/* They stand in the order of their arrival. */
uint64_t weir_load_oldest_ns(const weir_load *load)
{
    if (wr_list_empty(&load->open)) return UINT64_MAX;
    return WR_CONTAINER(load->open.next, struct wr_errand, place)->arrived_ns;
}

const char *weir_load_misuse(const weir_load *load)
{
    return load->misuse;
}

/* ---- its end ------------------------------------------------------------------------------------------- */

void weir_load_free(weir_load *load)
{
    if (load == NULL) return;
    load->closing = true;
    load->running = true; /* no due time matters any more */
    while (!wr_list_empty(&load->open))
        wr_errand_abort(WR_CONTAINER(wr_list_first(&load->open), struct wr_errand, place));
    if (load->watch != NULL) {
        wr_watch_look(load->watch, load->options.now_ns(load->options.ctx));
        wr_watch_put(load->watch);
    }
    for (struct wr_timer *timer; (timer = wr_heap_earliest(&load->timers)) != NULL;)
        wr_heap_disarm(&load->timers, timer); /* of users who think */
    wr_heap_release(&load->timers);
    wr_errand_release(load);
    wr_arrivals_release(&load->arrivals);
    wr_mix_release(&load->mix);
    wr_free(load->memory, load->customs.heads);
    wr_free(load->memory, load);
}
