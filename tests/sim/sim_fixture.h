/* One engine with a load on a simulated server. */
#ifndef SIM_FIXTURE_H
#define SIM_FIXTURE_H

#include "weir/load.h"
#include "weir/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MS(n)      ((uint64_t)(n)*1000000u)
#define SECONDS(n) ((uint64_t)(n)*1000000000u)
#define AT(n)      (WEIR_SIM_START + SECONDS(n))

enum { SIM_CALLS = 4 };

struct sim_fixture {
    weir_sim *sim;
    weir_sim_host *host;
    weir_engine *engine;
    weir_sim_server *primary;
    weir_options options; /* to be changed before sim_open */
    weir_backend backends[2];
    weir_client clients[2];

    weir_tally *tally;
    weir_load *load;
    weir_load_options arrivals; /* to be changed before sim_load */
    weir_load_call calls[SIM_CALLS];
    weir_load_rate rate;
    uint64_t numbers;
    weir_sim_alarm due;
};

/* A world, options with backend "primary" and clients "service" and "anon" (max 10 each); nothing is open yet. */
void sim_prepare(struct sim_fixture *f, uint64_t seed);
void sim_open(struct sim_fixture *f);
/* A load of single reads, single writes, units that read and write, and idempotent writes, `per_second` evenly. */
void sim_load(struct sim_fixture *f, double per_second, unsigned seconds);
void sim_run_to(struct sim_fixture *f, uint64_t at_ns);
/* Ends everything; fails the test if a call was left or something is not given back. */
void sim_close(struct sim_fixture *f);
weir_tally_counts sim_counts(struct sim_fixture *f);
void sim_fault(struct sim_fixture *f, weir_sim_fault fault);

/* One call of the SERVICE client, run to its end. The caller frees it. */
weir_call *sim_call(struct sim_fixture *f, weir_request request, const char *sql, const char *value);
weir_code sim_code(const weir_call *call);

#endif
