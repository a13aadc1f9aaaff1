/* Loads and tallies as the binding keeps them. Finalisers come in any order, so what a load needs it holds by a count of
 * references: its engine, its tally, its numbers. Its handle dies before its engine's does (wl_loads_free_of). */
#ifndef WL_LOAD_H
#define WL_LOAD_H

#include "lua_weir.h"

#include "weir/load.h"

#define WL_TALLY_TYPE   "weir.tally"
#define WL_NUMBERS_TYPE "weir.numbers"
#define WL_LOAD_TYPE    "weir.load"

enum { WL_LOAD_CALLS = 64, WL_LOAD_POINTS = 256 };

struct wl_tally {
    unsigned references; /* the userdata's one, and one per load */
    weir_tally *handle;
    uint64_t origin_ns;
    size_t phase_count;
    char names[WEIR_TALLY_PHASES][32];
};

struct wl_numbers {
    unsigned references;
    uint64_t last;
};

struct wl_kept; /* a block of memory the load's calls point into */

struct wl_told { /* how a request that writes ended */
    uint64_t number;
    weir_outcome outcome;
};

struct wl_load {
    weir_load *handle; /* NULL once freed */
    struct wl_engine *engine;
    struct wl_tally *tally;
    struct wl_numbers *numbers;
    struct wl_load *next; /* in loop->loads, while the handle lives */
    struct wl_load *next_retired;
    weir_load_call *calls; /* kept */
    struct wl_kept *kept;
    struct wl_bins *bins;
    struct wl_scratch scratch;
    struct wl_told *told;
    size_t told_count, told_room;
    bool keep_outcomes, told_lost;
};

void wl_tally_open(lua_State *L);
void wl_tally_release(struct wl_tally *tally); /* accepts NULL */
void wl_numbers_release(struct wl_numbers *numbers);

/* lua_loadoptions.c: fills out from the table at index; strings and lists are copied into what the load keeps. False,
 * with reader->why set. */
bool wl_load_read(struct wl_reader *reader, int index, struct wl_load *load, weir_load_options *out);
void wl_kept_free(struct wl_kept *kept);

#endif
