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
    volatile bool noticed;
    bool guest; /* the world is another fixture's */
};

/* A world, options with backend "primary" and clients "service" and "anon" (max 10 each); nothing is open yet. */
void sim_prepare(struct sim_fixture *f, uint64_t seed);
/* The same in the world of `host`; closed before it. */
void sim_prepare_guest(struct sim_fixture *f, struct sim_fixture *host);
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

/* ---- calls step by step; each is freed by the caller ---- */

/* Submitted, and not waited for. */
weir_call *sim_submit(struct sim_fixture *f, weir_request request, const char *sql, const char *value);
weir_call *sim_begin(struct sim_fixture *f, weir_request request); /* holds a connection */
/* One statement of a unit, run to its reply. Its SQLSTATE, "" if it went well. */
const char *sim_send(struct sim_fixture *f, weir_call *call, const char *sql, const char *value);
void sim_finish(struct sim_fixture *f, weir_call *call,
                weir_finish how); /* run until it is READY again or has ENDED */
/* Until its status is none of WAITING. */
void sim_wait(struct sim_fixture *f, weir_call *call);
/* A unit that writes `value` and commits, retried as the engine says. */
weir_call *sim_write_unit(struct sim_fixture *f, weir_request request, const char *value);

struct sim_end { /* how a call is to have ended */
    weir_code code;
    weir_class class_;
    weir_outcome outcome;
    weir_phase phase;
    const char *sqlstate;
    uint32_t attempts;
};
void sim_expect(const weir_call *call, struct sim_end expected); /* frees nothing */
void sim_expect_well(const weir_call *call);

weir_sim_options sim_server(struct sim_fixture *f);
void sim_server_set(struct sim_fixture *f, weir_sim_options options);
/* Statements take 10 ms, COMMIT 1 ms, connects nothing, packets 1 ms each way: all times can be foretold. */
void sim_server_exact(struct sim_fixture *f);
weir_sim_stats sim_stats(struct sim_fixture *f);
/* Milliseconds since the start of the world. */
double sim_ms(const struct sim_fixture *f);
void sim_assert_ms(const struct sim_fixture *f, double expected); /* to the microsecond */
weir_dist sim_seconds(double seconds);                            /* always so long */

#endif
