/* An engine on a libuv loop against a real server, driven through the public API alone, and jobs: calls and
 * units of work as little scripts. Every job must end exactly once, in time, and an engine must leave nothing
 * behind; harness_close fails the test otherwise.
 *
 *     harness_prepare(&h, server, NULL);
 *     h.options.retries = 0;
 *     harness_open(&h);
 *     struct job *job = harness_unit(&h, ANON, "a test");
 *     job_claims(job, "{\"sub\":\"%s\"}", "u1");
 *     job_step(job, "insert into ledger values ('%d')", 1);
 *     harness_run(&h, job);
 *     assert_int_equal(job->code, WEIR_CALL_OK);
 *     harness_close(&h);
 */
#ifndef WR_TEST_HARNESS_H
#define WR_TEST_HARNESS_H

#include "weir/uv.h"

#include "proxy.h"
#include "server.h"

#define MS(n)      ((uint64_t)(n)*1000000u)
#define SECONDS(n) ((uint64_t)(n)*1000000000u)

enum { SERVICE = 0, ANON, CLIENTS };

enum { JOB_STEPS = 8, JOB_VALUES = 4, JOB_ANSWER = 160 };

struct harness;

struct job {
    struct harness *harness;
    weir_call *call; /* NULL before it starts and after it has ended */
    bool unit;
    weir_request request; /* to be changed before it starts; its strings are the job's */
    struct step {
        char *sql;
        char *values[JOB_VALUES];
        size_t value_count;
    } steps[JOB_STEPS]; /* of a single call: its statements, all in one round trip */
    size_t step_count, at;
    weir_finish finish;                /* of a unit whose steps all went well; WEIR_COMMIT */
    bool swallow;                      /* unit: goes on after an error as if nothing had happened */
    bool pause;                        /* unit: after its last step it does nothing more and never ends */
    void (*on_ready)(struct job *job); /* unit: an attempt begins; may be NULL */
    void (*on_reply)(struct job *job, size_t step); /* a step has been answered well; may be NULL */
    void *user;
    struct job *next;

    /* what came of it */
    unsigned endings, runs; /* runs: how often a unit was READY */
    size_t ended_as;        /* the how-manieth of its engine's jobs to end, from 1 */
    weir_code code;
    weir_outcome outcome;
    uint32_t attempts;
    weir_error error;                    /* all zero if the code is OK */
    char answers[JOB_STEPS][JOB_ANSWER]; /* first value of each step, of the last attempt; "" for none */
    size_t rows[JOB_STEPS];
    uint64_t started_ns, took_ns;
};

enum { HARNESS_LAGS = 64 };

struct harness {
    struct server *server;
    weir_options options; /* to be changed between prepare and open */
    weir_backend backend;
    weir_client clients[CLIENTS];
    char conninfo[512];
    weir_engine *engine;
    struct uv_loop_s *loop;
    weir_uv *uv;
    struct uv_timer_s *ticker;
    struct job *jobs;
    size_t running, ended;
    size_t fds, threads;   /* before the engine was opened */
    long died_with_others; /* shared area: most that a killed worker left uncounted */
    long late_ms;          /* worst so far past a deadline, less what the machine kept us */
    uint64_t ticked_ns;
    struct lag {
        uint64_t at_ns, length_ns;
    } lags[HARNESS_LAGS];
    size_t lag_count;
};

/* Logins app_service (BYPASSRLS) and app_anon (NOINHERIT, member of web_anon), contacts of users u0 .. u49
 * under forced row-level security, and a ledger (id text, note text) where each row is one execution of a
 * write. */
void harness_schema(struct server *server);

/* Defaults for tests: one backend `primary`, pools of 10, short backoffs, no health interval, the breaker
 * too slow to trip. conninfo NULL: straight to the server. */
void harness_prepare(struct harness *h, struct server *server, const char *conninfo);
void harness_open(struct harness *h);
/* weir_open with the options as they stand and, should it work, weir_free: for options to be refused. */
int harness_try(struct harness *h, char *why);
/* Waits for the jobs that run, checks that nothing is held and that the counters agree, closes everything,
 * checks that no descriptor, thread or session is left. */
void harness_close(struct harness *h);
/* The same for an engine whose server is gone or cannot be asked: no look at its sessions. */
void harness_close_blind(struct harness *h);
/* weir_free in the middle of whatever goes on: every job must have ended and nothing be left. The jobs
 * stay readable; harness_forget_jobs is the test's to call. */
void harness_cut_off(struct harness *h);

/* Turns the loop until the condition holds; false after ms. */
bool harness_until(struct harness *h, bool (*condition)(void *arg), void *arg, int ms);
void harness_turn(struct harness *h, int ms);
/* Until every job has ended. */
void harness_wait(struct harness *h);

struct job *harness_call(struct harness *h, size_t client, const char *context); /* not started yet */
struct job *harness_unit(struct harness *h, size_t client, const char *context);
void job_claims(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
void job_step(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Of the last step. */
void job_value(struct job *job, const char *format, ...) __attribute__((format(printf, 2, 3)));
void job_start(struct job *job);
void harness_run(struct harness *h, struct job *job);   /* starts it and waits for its end */
void job_assert(const struct job *job, weir_code code); /* that it ended so; prints it otherwise */
void job_print(const struct job *job);
/* One statement of the SERVICE client, run to its end. */
struct job *harness_query(struct harness *h, const char *sql);
/* Forgets the jobs that have ended. */
void harness_forget_jobs(struct harness *h);

/* A figure of weir_stats_json, e.g. ("service@primary", "calls", "ok"). */
long harness_stat(struct harness *h, const char *pool, const char *group, const char *name);
/* The breaker's state of the pool, as in the statistics. Valid until the next call. */
const char *harness_breaker(struct harness *h, const char *pool);
/* Any of the four JSON writers; the caller frees. */
char *harness_stats(struct harness *h);
char *harness_health(struct harness *h);
char *harness_calls(struct harness *h);
char *harness_events(struct harness *h);

size_t count_fds(void);
size_t count_threads(void);

#endif
