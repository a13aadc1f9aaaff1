/* Several processes over one mapped area, as an nginx with workers is. Each worker is the test's program started again,
 * with an engine of its own; a board that all have mapped says what it is to do and what it has done. */
#ifndef WR_TEST_CROWD_H
#define WR_TEST_CROWD_H

#include "support/harness.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

enum { CROWD_MOST = 8, CROWD_BURST_MS = 200 };

enum order {
    RUN = 0, /* in bursts, half of the workers at a time */
    PRESS,   /* all the time */
    REST,
    FAIL, /* calls that tell of an unwell server */
    HOLD, /* calls that last for ever */
    STOP
};

struct board {
    uint32_t max, each, connect_at_once; /* before the workers start */
    uint64_t lifetime_ns;                /* 0: for ever */
    weir_breaker_config breaker;
    _Atomic int order[CROWD_MOST];
    _Atomic long ok[CROWD_MOST], refused[CROWD_MOST], other[CROWD_MOST], running[CROWD_MOST];
};

struct crowd {
    struct server *server;
    struct harness h; /* the test's own engine on the area: it only looks */
    struct board *board;
    char area[128], paper[128], conninfo[512];
    int size;
    pid_t workers[CROWD_MOST]; /* 0: none */
};

/* In main, before the tests: an exit code if this process is a worker, else -1. */
int crowd_work(int argc, char **argv);

/* A board with defaults: max 8, six calls each, connect_at_once 4, idle ones closed after 40 ms. */
void crowd_prepare(struct crowd *crowd, struct server *server, int size);
/* Starts all workers and the own engine; conninfo NULL: straight to the server. */
void crowd_open(struct crowd *crowd, const char *conninfo);
void crowd_start(struct crowd *crowd, int number);
void crowd_kill(struct crowd *crowd, int number); /* -9, and collected */
void crowd_order(struct crowd *crowd, enum order order);
/* Every worker ends well, the own engine leaves nothing. */
void crowd_close(struct crowd *crowd);
void crowd_end(struct crowd *crowd); /* whatever became of the test, its workers end with it */

long crowd_figure(struct crowd *crowd, const char *group, const char *name);
long crowd_sum(const struct crowd *crowd, const _Atomic long *each);
long crowd_sessions(const struct crowd *crowd);
bool crowd_rests(void *crowd); /* for harness_until: no calls under way */
/* Every worker has ended 20 calls well since crowd_forget. */
bool crowd_has_worked(void *crowd);
void crowd_forget(struct crowd *crowd);

#endif
