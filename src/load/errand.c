/* One request on its way:
 *   arrived -> calling -> (pausing -> calling ...) -> ended            and for a user: -> thinking -> arrived ...
 * It is told to the tally where it happens; the last call's end decides how the request ended. Errands come out of slabs
 * and are used again, so a steady state allocates nothing. */
#include "load/traffic.h"

#include "base/check.h"
#include "base/draw.h"
#include "base/text.h"

enum { SLAB_FIRST = 64, SLAB_MOST = 4096 };

static const uint64_t least_pause_ns = 1000000; /* of a user whose request took no time */

struct wr_slab {
    struct wr_slab *next;
    struct wr_errand errands[];
};

static void send(struct wr_errand *errand);
static void begin(struct wr_errand *errand, uint64_t at_ns);

static uint64_t now_of(const weir_load *load)
{
    return load->options.now_ns(load->options.ctx);
}

/* ---- memory -------------------------------------------------------------------------------------------- */

static int grow(weir_load *load, size_t count)
{
    if (wr_heap_reserve(&load->timers, load->errand_count + count) != WEIR_OK) return WEIR_ENOMEM;
    struct wr_slab *slab = wr_alloc(load->memory, sizeof *slab + count * sizeof slab->errands[0]);
    if (slab == NULL) return WEIR_ENOMEM;
    slab->next = load->slabs;
    load->slabs = slab;
    load->errand_count += count;
    for (size_t i = 0; i < count; i++) {
        slab->errands[i].load = load;
        wr_list_init(&slab->errands[i].turn);
        wr_list_append(&load->spare, &slab->errands[i].place);
    }
    return WEIR_OK;
}

int wr_errand_reserve(weir_load *load, size_t count)
{
    return grow(load, count > SLAB_FIRST ? count : SLAB_FIRST);
}

void wr_errand_release(weir_load *load)
{
    while (load->slabs != NULL) {
        struct wr_slab *slab = load->slabs;
        load->slabs = slab->next;
        wr_free(load->memory, slab);
    }
}

static struct wr_errand *take_spare(weir_load *load)
{
    size_t more = load->errand_count < SLAB_MOST ? load->errand_count : SLAB_MOST;
    if (wr_list_empty(&load->spare) && grow(load, more < SLAB_FIRST ? SLAB_FIRST : more) != WEIR_OK)
        return NULL;
    struct wr_errand *errand = WR_CONTAINER(wr_list_first(&load->spare), struct wr_errand, place);
    wr_list_remove(&errand->place);
    errand->user = false;
    return errand;
}

static void give_spare(struct wr_errand *errand)
{
    errand->state = WR_ERRAND_SPARE;
    wr_list_prepend(&errand->load->spare, &errand->place); /* the warmest one is used first */
}

/* ---- timers -------------------------------------------------------------------------------------------- */

/* Tells the owner if this is what the load is to be run for next, unless he is just running it. */
static void wait_until(struct wr_errand *errand, uint64_t at_ns)
{
    weir_load *load = errand->load;
    int code = wr_heap_arm(&load->timers, &errand->timer, at_ns);
    WR_CHECK(code == WEIR_OK); /* reserved by grow */
    if (load->running || load->options.sooner == NULL) return;
    bool next =
        wr_heap_earliest(&load->timers) == &errand->timer && wr_arrivals_next_ns(&load->arrivals) > at_ns;
    if (next) load->options.sooner(load->options.ctx);
}

/* A user thinks, and then sends again, if that is still in the load's time. */
static void think(struct wr_errand *errand, uint64_t now_ns)
{
    weir_load *load = errand->load;
    uint64_t pause = wr_dist_draw(&load->options.think, &load->think_rng);
    if (now_ns == errand->arrived_ns && pause < least_pause_ns) pause = least_pause_ns;
    if (load->closing || now_ns + pause >= load->options.until_ns) {
        give_spare(errand);
        return;
    }
    errand->state = WR_ERRAND_THINKING;
    wait_until(errand, now_ns + pause);
}

int wr_errand_user(weir_load *load)
{
    struct wr_errand *errand = take_spare(load);
    if (errand == NULL) return WEIR_ENOMEM;
    double part = wr_rng_unit(&load->think_rng);
    uint64_t pause = (uint64_t)(part * (double)wr_dist_draw(&load->options.think, &load->think_rng));
    uint64_t at_ns = load->options.from_ns + pause;
    errand->user = true;
    if (at_ns >= load->options.until_ns) {
        give_spare(errand);
        return WEIR_OK;
    }
    errand->state = WR_ERRAND_THINKING;
    wait_until(errand, at_ns);
    return WEIR_OK;
}

void wr_errand_fired(struct wr_errand *errand)
{
    if (errand->state == WR_ERRAND_THINKING) {
        begin(errand, errand->timer.at_ns);
    } else {
        WR_CHECK(errand->state == WR_ERRAND_PAUSING);
        send(errand);
    }
}

/* ---- the end ------------------------------------------------------------------------------------------- */

/* What is true of the request after one more call: it was committed if any call was. */
static weir_outcome both(weir_outcome before, weir_outcome last)
{
    if (before == WEIR_OUTCOME_COMMITTED || last == WEIR_OUTCOME_COMMITTED) return WEIR_OUTCOME_COMMITTED;
    if (before == WEIR_OUTCOME_UNKNOWN || last == WEIR_OUTCOME_UNKNOWN) return WEIR_OUTCOME_UNKNOWN;
    return last;
}

static void end(struct wr_errand *errand, weir_code code, uint64_t now_ns)
{
    weir_load *load = errand->load;
    struct wr_verdict verdict = {
        .phases = errand->phases,
        .arrived_ns = errand->arrived_ns,
        .ended_ns = now_ns,
        .code = code,
        .outcome = errand->outcome,
    };
    wr_tally_ended(load->tally, &verdict);
    wr_list_remove(&errand->place);
    load->open_count--;
    if (errand->kind->writes && load->options.closed != NULL)
        load->options.closed(load->options.ctx, errand->number, errand->outcome);
    if (errand->user)
        think(errand, now_ns);
    else
        give_spare(errand);
}

static void call_ended(struct wr_errand *errand, weir_code code, weir_outcome outcome, uint32_t attempts)
{
    weir_load *load = errand->load;
    uint64_t now_ns = now_of(load);
    wr_tally_called(load->tally, errand->phases, now_ns, code, attempts);
    if (!load->running) wr_watch_look(load->watch, now_ns); /* run looks once, at its end */
    errand->outcome = both(errand->outcome, outcome);
    bool again =
        code != WEIR_CALL_OK && errand->tries < load->options.caller_retries && !errand->kind->custom;
    if (again && !load->closing) {
        errand->tries++;
        errand->state = WR_ERRAND_PAUSING;
        wait_until(errand, now_ns + load->options.caller_pause_ns);
    } else {
        end(errand, code, now_ns);
    }
}

/* ---- the engine's side --------------------------------------------------------------------------------- */

/* The call ended; frees it. */
static void collect(struct wr_errand *errand)
{
    weir_call *call = errand->call;
    const weir_error *error = weir_call_error(call);
    weir_code code = error == NULL ? WEIR_CALL_OK : error->code;
    weir_outcome outcome = error == NULL ? WEIR_OUTCOME_COMMITTED : error->outcome;
    uint32_t attempts = weir_call_attempt(call);
    if (errand->fault != WEIR_CALL_OK && code == WEIR_CALL_ROLLED_BACK) code = errand->fault;
    errand->call = NULL;
    weir_call_free(call);
    call_ended(errand, code, outcome, attempts);
}

static weir_code fault_of(weir_load *load, int code, const char *why)
{
    if (code == WEIR_ENOMEM) return WEIR_CALL_NO_MEMORY;
    if (load->misuse[0] == '\0') wr_text_copy(load->misuse, sizeof load->misuse, why);
    return WEIR_CALL_MISUSE;
}

/* The next statement of a unit, or its end. */
static void go_on(struct wr_errand *errand)
{
    const struct wr_kind *kind = errand->kind;
    char why[WEIR_WHY_MAX] = "";
    if (weir_call_error(errand->call) != NULL) {
        (void)weir_unit_finish(errand->call, WEIR_FAILED);
    } else if (errand->step == kind->count) {
        (void)weir_unit_finish(errand->call, WEIR_COMMIT);
    } else {
        if (kind->numbered) wr_mix_number(&errand->load->mix, errand->number);
        int code = weir_unit_send(errand->call, &kind->statements[errand->step++], 1, why);
        if (code == WEIR_OK) return;
        errand->fault = fault_of(errand->load, code, why);
        (void)weir_unit_finish(errand->call, WEIR_ROLLBACK);
    }
}

static void on_notify(void *user, weir_call *call)
{
    struct wr_errand *errand = user;
    weir_status status = weir_call_status(call);
    if (status == WEIR_ENDED) {
        collect(errand);
    } else {
        if (status == WEIR_READY) errand->step = 0;
        go_on(errand);
    }
}

static void send(struct wr_errand *errand)
{
    weir_load *load = errand->load;
    struct wr_kind *kind = errand->kind;
    char why[WEIR_WHY_MAX] = "";
    errand->state = WR_ERRAND_CALLING;
    errand->fault = WEIR_CALL_OK;
    kind->request.notify = on_notify;
    kind->request.user = errand;
    if (kind->numbered) wr_mix_number(&load->mix, errand->number);
    int code = kind->unit ? weir_begin(load->engine, &kind->request, &errand->call, why)
                          : weir_submit(load->engine, &kind->request, kind->statements, kind->count,
                                        &errand->call, why);
    if (code == WEIR_OK) return;
    errand->call = NULL;
    call_ended(errand, fault_of(load, code, why), WEIR_OUTCOME_NONE, 0);
}

/* ---- the beginning ------------------------------------------------------------------------------------- */

/* There is no memory to keep it in: it arrived, and it failed. Its number is not spent on it. */
static void lose(weir_load *load, wr_phase_set phases, uint64_t at_ns)
{
    uint64_t now_ns = now_of(load);
    struct wr_verdict verdict = {phases, at_ns, now_ns, WEIR_CALL_NO_MEMORY, WEIR_OUTCOME_NONE};
    wr_tally_called(load->tally, phases, now_ns, WEIR_CALL_NO_MEMORY, 0);
    wr_tally_ended(load->tally, &verdict);
}

static void hand_over(struct wr_errand *errand)
{
    errand->state = WR_ERRAND_CUSTOM;
    if (wr_customs_reserve(errand->load) == WEIR_OK)
        wr_customs_add(errand->load, errand);
    else
        call_ended(errand, WEIR_CALL_NO_MEMORY, WEIR_OUTCOME_NONE, 0);
}

static void begin(struct wr_errand *errand, uint64_t at_ns)
{
    weir_load *load = errand->load;
    errand->kind = wr_mix_draw(&load->mix, &load->mix_rng);
    errand->number = ++*load->options.numbers;
    errand->arrived_ns = at_ns;
    errand->phases = wr_tally_arrived(load->tally, at_ns);
    errand->outcome = WEIR_OUTCOME_NONE;
    errand->tries = 0;
    wr_list_append(&load->open, &errand->place);
    load->open_count++;
    if (errand->kind->writes && load->options.opened != NULL)
        load->options.opened(load->options.ctx, errand->number, errand->kind->request.idempotent);
    if (errand->kind->custom)
        hand_over(errand);
    else
        send(errand);
}

void wr_errand_arrive(weir_load *load, uint64_t at_ns)
{
    struct wr_errand *errand = take_spare(load);
    if (errand == NULL)
        lose(load, wr_tally_arrived(load->tally, at_ns), at_ns);
    else
        begin(errand, at_ns);
}

/* ---- from outside -------------------------------------------------------------------------------------- */

void wr_errand_settled(struct wr_errand *errand, const weir_error *error, uint32_t attempts)
{
    bool known = error != NULL && (unsigned)error->code < WR_CODES && error->code != WEIR_CALL_OK;
    weir_code code = error == NULL ? WEIR_CALL_OK : known ? error->code : WEIR_CALL_SERVER;
    wr_customs_remove(errand->load, errand);
    call_ended(errand, code, error == NULL ? WEIR_OUTCOME_COMMITTED : error->outcome, attempts);
}

void wr_errand_abort(struct wr_errand *errand)
{
    if (errand->state == WR_ERRAND_CALLING) {
        weir_call_cancel(errand->call); /* its error says what is true of it */
        collect(errand);
    } else if (errand->state == WR_ERRAND_CUSTOM) {
        bool taken = wr_list_empty(&errand->turn);
        wr_customs_remove(errand->load, errand);
        call_ended(errand, WEIR_CALL_CANCELLED, taken ? WEIR_OUTCOME_UNKNOWN : WEIR_OUTCOME_NONE, 0);
    } else {
        WR_CHECK(errand->state == WR_ERRAND_PAUSING);
        wr_heap_disarm(&errand->load->timers, &errand->timer);
        end(errand, WEIR_CALL_CANCELLED, now_of(errand->load));
    }
}
