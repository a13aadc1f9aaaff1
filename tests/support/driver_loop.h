/* A poll() loop that lends a driver its environment, and owners that write down what the driver told them:
 * for tests of a driver without an engine. Waiting helpers end the test with a sentence if nothing comes
 * within ten seconds. */
#ifndef WR_TEST_DRIVER_LOOP_H
#define WR_TEST_DRIVER_LOOP_H

#include "engine/driver.h"

enum { LOOP_RESULTS = 1024, LOOP_FDS = 256 };

struct loop {
    const struct weir_driver *driver;
    void *instance;
    struct wr_driver_env env;
    struct wr_memory memory;
    long allocated, allocations; /* blocks in use; calls so far */
    long refuse_at;              /* the allocation counted so fails, once; 0: none */
    unsigned watch_calls;
    struct watched {
        int fd;
        unsigned events, serial;
        void (*ready)(void *arg, unsigned events);
        void *arg;
    } fds[LOOP_FDS];
    size_t fd_count;
    unsigned serial;
};

struct session { /* an owner */
    struct loop *loop;
    struct wr_link *link;
    bool connected, settled, lost;
    unsigned settled_times, lost_times;
    struct wr_greeting greeting;
    struct wr_fault fault; /* of the connect, or of the loss */
    struct wr_reply reply; /* results point into the array below */
    struct weir_result results[LOOP_RESULTS];
    void (*on_settled)(struct session *session); /* inside settled(); NULL: nothing */
    void *user;
};

void loop_open(struct loop *loop, const struct weir_driver *driver, uint32_t connect_at_once);
void loop_close(struct loop *loop);        /* stops the driver; nothing may be left watched or allocated */
void loop_turn(struct loop *loop, int ms); /* one poll() of at most ms */
bool loop_until(struct loop *loop, bool (*done)(void *arg), void *arg, int ms);

/* conninfo, user and role may be NULL where they may be; the pool is called "test@primary". */
struct wr_target *loop_target(struct loop *loop, const struct wr_login *login);

void session_start(struct session *session, struct loop *loop, struct wr_target *target, uint64_t timeout_ns);
/* waits; false: session->fault */
bool session_open(struct session *session, struct loop *loop, struct wr_target *target);
void session_close(struct session *session); /* link and results */

void session_send(struct session *session, const struct wr_segment *segment); /* must be accepted */
void session_wait(struct session *session);                                   /* for settled */
void session_wait_lost(struct session *session);
const struct wr_reply *session_run(struct session *session, const struct wr_segment *segment);
void session_drop_results(struct session *session);

/* One statement without values as SINGLE: the usual thing. */
const struct wr_reply *session_query(struct session *session, const char *sql);
struct weir_statement statement(const char *sql);

/* First column of the first row of result `index`; "(null)", "(none)". */
const char *session_value(const struct session *session, size_t index);

#endif
