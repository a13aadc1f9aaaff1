/* A scripted server and a loop with a virtual clock, for tests of the engine alone. Nothing real is touched:
 * a link is a number, an answer is an event on the virtual clock. One fake serves one engine. */
#ifndef FAKE_SERVER_H
#define FAKE_SERVER_H

#include "engine/driver.h"
#include "weir/weir.h"

#define FAKE_MS(n) ((uint64_t)(n)*1000000u)

enum { FAKE_LINKS = 256, FAKE_EVENTS = 4096, FAKE_IDS = 32768, FAKE_PENDING = 16, FAKE_SHARE = 64 };

struct fake;

struct fake_answer { /* what a segment is answered with; preset to success after fake->service_ns */
    uint64_t after_ns;
    bool never; /* no answer ever (until the link is closed) */
    bool failed, lost;
    char sqlstate[6];
    uint64_t xid;
    bool commit_says_rollback;
    bool escapes;       /* a statement ends the transaction it stands in */
    bool no_xid_answer; /* the question about the transaction id stays open */
    bool heal;
    bool dirty;
    enum wr_xact xact;
    bool survives;           /* lost or left alone on the wire, it takes effect all the same */
    uint64_t in_progress_ns; /* ... and pg_xact_status says "in progress" for so long */
};

struct fake_xid { /* what became of a transaction, when the fake keeps books */
    enum wr_xact end;
    uint64_t end_at;
};

struct fake_flight { /* one segment on the wire */
    enum wr_segment_kind kind;
    size_t statements;
    bool want_xid, shared;
    struct fake_answer answer;
    int numbers[FAKE_PENDING]; /* of its statements */
    int number_count;
};

struct fake_link {
    struct fake *fake;
    bool open, cancelled; /* cancelled: before the answer was ready */
    bool cancelling;      /* a cancel is on its way: nobody may be sent after it */
    bool dirty;
    uint64_t xid;
    int pending[FAKE_PENDING]; /* statements of the open transaction, by number */
    int pending_count;
    void *owner;
    int number;
    char transaction;
    bool busy, is_idle_lost;
    struct fake_flight at_work; /* while busy */
    struct fake_flight behind[FAKE_SHARE];
    int behind_count;
    uint64_t due_at; /* of the answer, 0: none */
};

struct fake {
    weir_engine *engine;
    struct wr_driver_env env;
    uint64_t now, wall_us;
    bool armed;
    uint64_t armed_at;
    weir_host host;
    void (*ready)(void *arg, unsigned events); /* of the event being delivered */
    void *ready_arg;

    /* behaviour */
    uint64_t service_ns, connect_ns, cancel_ns;
    bool refuse;              /* connects fail at once, nobody there */
    bool mute;                /* connects end only by their timeout */
    char connect_sqlstate[6]; /* connects fail with this */
    bool identity;            /* connects fail because of the login */
    bool peek_fails;
    bool send_fails;    /* every link turns out dead when something is sent */
    bool watch_timeout; /* statement_timeout is obeyed */
    bool results_in_engine_memory;
    bool books; /* keeps xids and counts effects; statements are "select <number>" */
    uint64_t system_id, life;
    uint32_t timeline;
    const char *channel, *payload; /* of the notification being delivered */
    void (*answer)(struct fake *fake, struct fake_link *link, const struct wr_segment *segment,
                   struct fake_answer *answer);

    /* what was seen */
    struct fake_link links[FAKE_LINKS];
    struct fake_connect {
        struct fake *fake;
        void *owner;
        uint64_t due_at;
        bool used, fail;
    } connects[FAKE_LINKS];
    int most_in_flight; /* segments on one link at a time */
    bool full;          /* links have no room for another segment */
    int opened, connects_begun, sends, cancels, begins, commits, singles, rollbacks, resets, probes,
        xact_questions;
    int statements_run;    /* of segments that were answered well */
    int effects[FAKE_IDS]; /* per statement's number: how often it took effect */
    struct fake_xid xids[FAKE_IDS];
    uint64_t last_xid;
    uint64_t trace;         /* hash of everything that happened, in order */
    int order[FAKE_EVENTS]; /* users (as ints) in the order their segments were sent */
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
/* Every idle link hears a notification, whatever it LISTENs to. How many there were. */
int fake_notify(struct fake *fake, const char *channel, const char *payload);
/* Ends the engine; fails the test unless everything was given back. */
void fake_close(struct fake *fake);
/* What tests ask for. Client "service" and context "a test" unless the request says otherwise; misuse fails
 * the test. */
weir_call *fake_submit(struct fake *fake, weir_request request, const char *sql);
weir_call *fake_begin(struct fake *fake, weir_request request);
void fake_send(weir_call *call, const char *sql);
void fake_finish(weir_call *call, weir_finish how);
/* Code and outcome of an ended call: WEIR_CALL_OK and COMMITTED if it has no error. Fails the test if it has
 * not ended. */
weir_code fake_code(const weir_call *call);
weir_outcome fake_outcome(const weir_call *call);
/* Ends the engine, whatever is left. */
void fake_free(struct fake *fake);
/* A counter of weir_stats_json summed over all pools, e.g. "calls", "started". */
long fake_counter(struct fake *fake, const char *group, const char *name);
/* Asserts that no call, lease, waiter or call timer is left. */
void fake_assert_at_rest(struct fake *fake);
const weir_driver *fake_driver(struct fake *fake);
/* What a statement that went well gives: one row, one column. */
struct weir_result fake_result(const struct fake *fake);

#endif
