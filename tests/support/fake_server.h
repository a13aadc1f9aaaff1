/* A scripted server and a loop with a virtual clock, for tests of the engine alone. Nothing real is touched: a
 * link is a number, an answer is an event on the virtual clock. One fake serves one engine. */
#ifndef FAKE_SERVER_H
#define FAKE_SERVER_H

#include "engine/driver.h"
#include "weir/weir.h"

#define FAKE_MS(n) ((uint64_t)(n) * 1000000u)

enum { FAKE_LINKS = 256, FAKE_EVENTS = 4096, FAKE_ROWS = 8 };

struct fake;

struct fake_answer {           /* what a segment is answered with; preset to success after fake->service_ns */
    uint64_t after_ns;
    bool never;                /* no answer ever (until the link is closed) */
    bool failed, lost;
    char sqlstate[6];
    uint64_t xid;
    bool commit_says_rollback;
    bool heal;
    bool dirty;
    enum wr_xact xact;
};

struct fake_link {
    bool open, cancelled;
    void *owner;
    int number;
    char transaction;
    bool busy, is_idle_lost;
    enum wr_segment_kind kind;
    size_t statements;
    struct fake_answer answer;
    uint64_t due_at;           /* of the answer, 0: none */
};

struct fake {
    weir_engine *engine;
    struct wr_driver_env env;
    uint64_t now, wall_us;
    bool armed;
    uint64_t armed_at;
    weir_host host;

    /* behaviour */
    uint64_t service_ns, connect_ns, cancel_ns;
    bool refuse;               /* connects fail at once, nobody there */
    bool mute;                 /* connects end only by their timeout */
    char connect_sqlstate[6];  /* connects fail with this */
    bool identity;             /* connects fail because of the login */
    bool peek_fails;
    uint64_t system_id;
    uint32_t timeline;
    void (*answer)(struct fake *fake, struct fake_link *link, const struct wr_segment *segment, struct fake_answer *answer);

    /* what was seen */
    struct fake_link links[FAKE_LINKS];
    struct fake_connect { void *owner; uint64_t due_at; bool used, fail; } connects[FAKE_LINKS];
    int opened, connects_begun, sends, cancels, begins, commits, singles, rollbacks, resets, probes, xact_questions;
    int statements_run;        /* of segments that were answered well */
    int order[FAKE_EVENTS];    /* users (as ints) in the order their segments were sent */
    int order_count;
    void *user;
};

void fake_init(struct fake *fake);
/* Options with one backend "primary", clients "service" and "anon" (max 2 each), no monitor. */
void fake_options(weir_options *options);
void fake_open(struct fake *fake, const weir_options *options);
/* Runs events and timers up to `ns` from now, in order. */
void fake_run(struct fake *fake, uint64_t ns);
/* Drops every open link, as a crash does; idle ones tell the engine. */
void fake_crash(struct fake *fake);
/* Ends the engine; fails the test unless everything was given back. */
void fake_close(struct fake *fake);
/* Asserts that no call, lease, waiter or call timer is left. */
void fake_assert_at_rest(struct fake *fake);
const weir_driver *fake_driver(struct fake *fake);

#endif
