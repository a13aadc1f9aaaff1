/* The parts of a load: what is asked (mix.c), when (arrivals.c), each request on its way (errand.c), and those that the
 * owner serves himself (custom.c). load.c holds them together. */
#ifndef WR_TRAFFIC_H
#define WR_TRAFFIC_H

#include "base/heap.h"
#include "base/list.h"
#include "load/arrivals.h"
#include "load/tally.h"

enum { WR_DIGITS = 24 };

/* ---- the mix (mix.c) ----------------------------------------------------------------------------------- */

struct wr_kind { /* a call of the mix, ready to be submitted */
    weir_request request;
    const weir_statement *statements; /* the caller's, or a copy whose values point at mix->digits */
    size_t count;
    double up_to; /* weights of all kinds up to and with this one */
    bool unit, writes, custom, numbered;
    weir_statement *copies; /* owned */
    const char **values;    /* owned */
};

struct wr_mix {
    struct wr_kind *kinds;
    size_t count;
    char digits[WR_DIGITS]; /* the number of the request that is being submitted; the engine copies it */
    const struct wr_memory *memory;
};

int wr_mix_check(const weir_load_options *options, char *why); /* WEIR_OK or WEIR_EINVAL */
/* WEIR_OK or WEIR_ENOMEM; release also what failed. */
int wr_mix_init(struct wr_mix *mix, const struct wr_memory *memory, const weir_load_options *options);
void wr_mix_release(struct wr_mix *mix);
struct wr_kind *wr_mix_draw(const struct wr_mix *mix, struct wr_rng *rng); /* one kind alone draws nothing */
void wr_mix_number(struct wr_mix *mix, uint64_t number);

/* ---- errands (errand.c) -------------------------------------------------------------------------------- */

enum wr_errand_state {
    WR_ERRAND_SPARE = 0, /* nobody's; or a user's who has sent his last */
    WR_ERRAND_THINKING,  /* of a user, between two requests: its timer is armed */
    WR_ERRAND_CALLING,   /* its call is with the engine */
    WR_ERRAND_PAUSING,   /* the caller tries again when its timer fires */
    WR_ERRAND_CUSTOM     /* with the owner, or waiting to be taken */
};

struct wr_errand {        /* a request on its way; a user keeps his for good */
    struct wr_list place; /* on load->open, from arrival to end, or on load->spare */
    struct wr_list turn;  /* on load->untaken */
    struct wr_timer timer;
    struct wr_errand *chain; /* in load->customs */
    weir_load *load;
    struct wr_kind *kind;
    weir_call *call;
    uint64_t number, arrived_ns;
    wr_phase_set phases;
    enum wr_errand_state state;
    weir_outcome outcome; /* of all its calls so far */
    uint32_t tries;       /* of the caller's own, so far */
    uint32_t step;        /* of a unit: the statement that is next */
    weir_code fault;      /* of a unit that could not go on; WEIR_CALL_OK if none */
    bool user;
};

struct wr_slab; /* of errands */

struct wr_customs { /* errands with the owner, by number */
    struct wr_errand **heads;
    size_t room, count; /* room is a power of two, or 0 */
};

struct weir_load {
    const struct wr_memory *memory;
    weir_load_options options; /* without the lists that were copied */
    weir_engine *engine;
    weir_tally *tally;
    struct wr_watch *watch;
    struct wr_mix mix;
    struct wr_arrivals arrivals;
    struct wr_heap timers; /* room for every errand, so arming cannot fail */
    struct wr_rng mix_rng, think_rng;
    struct wr_list open, spare, untaken;
    struct wr_slab *slabs;
    size_t errand_count, open_count;
    struct wr_customs customs;
    uint64_t own_number;
    bool running; /* inside weir_load_run */
    bool closing;
    char misuse[WEIR_WHY_MAX];
};

/* weir_load_new with memory of the caller's choice, which must outlive the load. */
int wr_load_new(const struct wr_memory *memory, weir_load **out, weir_engine *engine, weir_tally *tally,
                const weir_load_options *options, char *why);

int wr_errand_reserve(weir_load *load, size_t count);   /* so many spare ones; WEIR_OK or WEIR_ENOMEM */
void wr_errand_release(weir_load *load);                /* frees all of them; none is open */
void wr_errand_arrive(weir_load *load, uint64_t at_ns); /* an open arrival */
int wr_errand_user(weir_load *load);                    /* one more user; WEIR_OK or WEIR_ENOMEM */
void wr_errand_fired(struct wr_errand *errand);         /* its timer, which is disarmed */
/* A custom one ended. */
void wr_errand_settled(struct wr_errand *errand, const weir_error *error, uint32_t attempts);
void wr_errand_abort(struct wr_errand *errand); /* the load is being freed */

/* ---- custom arrivals (custom.c) ------------------------------------------------------------------------ */

int wr_customs_reserve(weir_load *load); /* for one more; WEIR_OK or WEIR_ENOMEM */
void wr_customs_add(weir_load *load, struct wr_errand *errand);
/* Taken out of the table, and of the line of those that wait to be taken. */
void wr_customs_remove(weir_load *load, struct wr_errand *errand);

#endif
