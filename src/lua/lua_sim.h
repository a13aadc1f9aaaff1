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
    struct wl_loop *loop;
    /* Rules and the trace's function run on threads of their own, since a rule may do what is traced. Slot 1 of both is the
     * anchor table: 1 and 4 the threads, 2 the trace's function, 3 the failure, from 5 on the functions of rules. NULL
     * once the userdata has been collected. */
    lua_State *L, *line_L;
    bool failed;
    bool in_line; /* the trace's function runs, in the middle of whatever it is told of */
    uint64_t stalled_until, turned_at;
    unsigned idle_turns;
    weir_sim_alarm loads;
    uint64_t loads_at;       /* what the alarm is set to; 0: not known */
    struct wl_bins *bins;    /* of distributions */
    struct wl_sim_ask *asks; /* rules that are functions */
    int ask_count;
    struct wl_news set_aside; /* of the real world, while this one runs; else its own */
};

void wl_sim_retain(struct wl_sim *sim);
void wl_sim_release(struct wl_sim *sim);
struct wl_sim *wl_sim_check(lua_State *L);   /* the one at 1 */
struct wl_sim *wl_sim_steered(lua_State *L); /* the same, to change something in it */
/* The error is on top of that thread of the simulation's; the first one is kept until it is asked for. */
void wl_sim_keep_failure(struct wl_sim *sim, lua_State *L);
void wl_sim_asks_free(struct wl_sim *sim);

/* ---- rows (lua_simrows.c) ---- */

struct wl_rows { /* as weir_sim_rule and weir_sim_answer want them; strings are ours */
    size_t columns, rows;
    char **names, **values;
    uint32_t *types;
};

void wl_rows_free(struct wl_rows *rows); /* and empties it */
/* A list of rows at `list`, and the column names at `names` or, if that is no table, those of the first row. NULL, or what
 * is wrong; free it in either case. */
const char *wl_rows_read(lua_State *L, int list, int names, struct wl_rows *rows);

/* lua_simserver.c: methods of the simulation that take the name of a server first */
int wl_sim_set(lua_State *L);   /* sim:set(server, options) -> true | nil, why */
int wl_sim_rule(lua_State *L);  /* sim:rule(server, options) -> true | nil, why */
int wl_sim_fault(lua_State *L); /* sim:fault(server, kind, options) -> true | nil, why */
int wl_sim_heal(lua_State *L);  /* sim:heal(server, kind) -> true | nil, why */
int wl_sim_stats(lua_State *L); /* sim:stats(server) -> figures | nil, why */

#endif
