/* A simulation as the binding keeps it. Owner: its userdata, and every engine opened in it; the world dies with the last of
 * them. */
#ifndef WL_SIM_H
#define WL_SIM_H

#include "lua_weir.h"

#include "weir/sim.h"

#define WL_SIM_TYPE "weir.simulation"

enum { WL_SIM_IDLE_TURNS = 100000 };

struct wl_sim_ask;

struct wl_sim {
    unsigned references;
    weir_sim *handle;
    lua_State
        *L; /* callbacks run here; its slot 1 is the anchor table: 1 the thread, 2 the trace's function, 3 the
                   * failure, from 4 on the functions of rules. NULL once the userdata has been collected */
    bool failed;
    uint64_t stalled_until, turned_at;
    unsigned idle_turns;
    weir_sim_alarm loads;
    uint64_t loads_at;       /* what the alarm is set to; 0: not known */
    struct wl_bins *bins;    /* of distributions */
    struct wl_sim_ask *asks; /* rules that are functions */
    int ask_count;
    struct {
        struct wl_call *first, *last;
        struct wl_engine *due;
    } set_aside; /* of the real world, while this one runs */
};

void wl_sim_retain(struct wl_sim *sim);
void wl_sim_release(struct wl_sim *sim);
void wl_sim_push_anchor(lua_State *L, struct wl_sim *sim);
void wl_sim_keep_failure(struct wl_sim *sim);
void wl_sim_asks_free(struct wl_sim *sim);

/* lua_simserver.c: methods of the simulation that take the name of a server first */
int wl_sim_set(lua_State *L);   /* sim:set(server, options) -> true | nil, why */
int wl_sim_rule(lua_State *L);  /* sim:rule(server, options) -> true | nil, why */
int wl_sim_fault(lua_State *L); /* sim:fault(server, kind, options) -> true | nil, why */
int wl_sim_heal(lua_State *L);  /* sim:heal(server, kind) -> true | nil, why */
int wl_sim_stats(lua_State *L); /* sim:stats(server) -> figures | nil, why */

#endif
