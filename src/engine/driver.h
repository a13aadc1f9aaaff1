/* What the engine asks of a server. Three implementations answer: src/pg over libpq, src/sim over a simulated server in
 * virtual time, and the scripted server of our tests (tests/support/fake_server.c).
 *
 * A link is one connection. One segment is under way on it; only shared ones may be several, as many as the engine sends
 * while has_room() says so, and they are answered in the order in which they were sent. Answers come through the
 * environment's functions, only ever from inside a ready() that the driver registered; the engine may send on, cancel or
 * close the link inside each of them. */
#ifndef WR_DRIVER_H
#define WR_DRIVER_H

#include "base/memory.h"
#include "base/sqltext.h"
#include "engine/result.h"
#include "weir/weir.h"

enum { WR_SEGMENT_STATEMENTS = 1024 }; /* statements per segment */

struct wr_link;   /* the driver's */
struct wr_target; /* the driver's: one login on one backend */

struct wr_login {     /* what a target is made from; strings copied by the driver */
    const char *pool; /* client@backend, for messages */
    const char *conninfo, *user, *password;
    const char *role; /* ANON, else NULL */
    weir_kind kind;
    bool pooler;
    uint32_t prepared_max;
};

struct wr_fault {
    char sqlstate[6];  /* "" if none is known */
    char severity[8];  /* unlocalised; "" if none */
    char message[512]; /* one line, without secrets */
    char detail[256], hint[256];
    uint32_t position;
    bool lost;        /* the link is of no more use: close it */
    bool identity;    /* connect: the login is refused by our own rules (message says which) */
    bool unreachable; /* connect: nobody answered (refused, timeout, DNS), as opposed to a server's no */
    bool ours; /* connect: what lacked was this process's (descriptors, memory): no word on the server */
};

struct wr_greeting {
    uint64_t system_id; /* 0 if it could not be read */
    uint32_t timeline;  /* 0 if it could not be read */
    uint64_t
        life; /* another after each restart and each crash recovery; unlike any if it could not be read */
    bool in_recovery;
    uint32_t server_version; /* 150020 */
    uint32_t backend_pid;
    uint64_t connect_ns; /* how long it took */
};

enum wr_segment_kind {
    WR_SEGMENT_SINGLE = 0, /* preamble + statements, an implicit transaction */
    WR_SEGMENT_BEGIN,      /* BEGIN + preamble + statements (may be none) */
    WR_SEGMENT_MORE,       /* statements inside the open transaction */
    WR_SEGMENT_COMMIT,
    WR_SEGMENT_ROLLBACK,
    WR_SEGMENT_PROBE,      /* the cheapest question that proves the server answers */
    WR_SEGMENT_RESET,      /* back to the baseline of a fresh session, prepared statements kept */
    WR_SEGMENT_XACT_STATUS /* what became of `xid` */
};

struct wr_segment { /* lives until send returns; the statements' memory until the segment is settled */
    enum wr_segment_kind kind;
    bool readonly; /* BEGIN READ ONLY; SINGLE: declared only */
    bool want_xid; /* BEGIN, MORE: also ask for the transaction's id */
    bool shared;   /* SINGLE, readonly: others like it may be under way with it. Each is a transaction of its
                              * own, and none relies on what another one sets */
    const char *isolation;   /* BEGIN: NULL for the server's default */
    const char *role;        /* NULL: stay the login */
    const char *claims;      /* JSON, NULL: none */
    const char *application; /* application_name; NULL: leave */
    const char *traceparent; /* sound; goes as a comment behind statements that have none; NULL: none */
    uint64_t timeout_ms;     /* statement_timeout, >= 1; 0: leave */
    const weir_statement *statements;
    const struct wr_sql_facts *facts; /* of each statement; NULL: not known, the driver looks itself */
    size_t count;
    uint64_t xid; /* XACT_STATUS */
};

static inline struct wr_sql_facts wr_segment_facts(const struct wr_segment *segment, size_t index)
{
    return segment->facts != NULL ? segment->facts[index] : wr_sql_facts(segment->statements[index].sql);
}

enum wr_xact {
    WR_XACT_NONE = 0,
    WR_XACT_IN_PROGRESS,
    WR_XACT_COMMITTED,
    WR_XACT_ABORTED,
    WR_XACT_FORGOTTEN,
    WR_XACT_FUTURE /* the server has not given out that number yet */
};

struct wr_reply { /* lives during settled() */
    struct weir_result
        *results; /* one per statement that completed; take by copying and clearing, the rest is released */
    size_t count;
    bool failed;
    struct wr_fault fault; /* the FIRST error of the segment, when failed */
    char transaction;      /* 'I' idle, 'T' in a transaction, 'E' in a failed one, 0 not known */
    bool committed;        /* COMMIT: the tag was COMMIT */
    uint64_t xid;          /* 0: none assigned (or not asked) */
    bool xid_asked;        /* the xid answer is there: 0 then means "has written nothing so far" */
    bool heal;         /* the statement cache was stale and the segment had no effect: send it again, once */
    bool dirty;        /* session state may have been changed: reset before another borrower */
    enum wr_xact xact; /* XACT_STATUS */
};

/* Lent by the engine; outlives the driver's instance. Results may outlive both: what their release() needs must not be
 * memory of the engine's. */
struct wr_driver_env {
    void *engine;
    const struct wr_memory *memory;
    uint64_t (*now_ns)(void *engine);
    /* Full interest in fd, 0 forgets (required before the descriptor is closed). 0 on success. */
    int (*watch)(void *engine, int fd, unsigned events, void (*ready)(void *arg, unsigned events), void *arg);
    const char *scarce; /* the host's: what watch() takes one of for each descriptor */
    /* A connect has ended: link and greeting, or NULL and the fault. owner as given to connect. */
    void (*connected)(void *owner, struct wr_link *link, const struct wr_greeting *greeting,
                      const struct wr_fault *fault);
    /* The oldest segment has ended: the server is ready for the next, or the link is lost (fault.lost), and with it all
     * that were under way: they are not told one by one. After a cancel it comes only when the cancel itself has been
     * confirmed too, so what is sent afterwards can never be hit by a late one. */
    void (*settled)(void *owner, struct wr_reply *reply);
    void (*lost)(void *owner, const struct wr_fault *fault); /* while idle */
    /* A notification, of whatever the session LISTENs to: while idle, or after settled(), in the order of the wire. Unlike
     * inside the others the link must not be closed inside this one. NULL: they are dropped. */
    void (*notified)(void *owner, const char *channel, const char *payload, uint32_t pid);
};

struct weir_driver {
    const char *name;
    int (*start)(const weir_driver *self, void **instance, const struct wr_driver_env *env,
                 uint32_t connect_at_once, char *why);
    void (*stop)(void *instance); /* all links closed before; joins threads */
    /* Parses and checks; WEIR_EINVAL with a sentence that names the knob and holds no secret. instance NULL: only to check,
     * no connect will follow. */
    int (*target)(void *instance, const struct wr_login *login, struct wr_target **out, char *why);
    void (*target_free)(struct wr_target *target);
    /* Starts a connect that ends by deadline_ns at the latest; answered by connected(owner). More than connect_at_once to one server
     * wait their turn inside. The deadline counts from the moment the connect gets its turn: deadline = its start + timeout_ns. */
    int (*connect)(void *instance, struct wr_target *target, uint64_t timeout_ns, void *owner);
    void (*forget)(void *instance,
                   void *owner); /* connected(owner) will not come any more; what is made is closed */
    int (*send)(struct wr_link *link, const struct wr_segment *segment,
                struct wr_fault *fault); /* WEIR_OK; else lost */
    /* One more shared segment may be sent now: the link is idle, or others like it are under way and nothing is stuck
     * unsent. NULL: this driver sends one at a time. */
    bool (*has_room)(const struct wr_link *link);
    void (*cancel)(
        struct wr_link *link); /* of the segment under way, of several whichever the server is at; harmless
                                           * if there is none */
    bool (*peek)(struct wr_link *link);  /* idle: false if the server has hung up or said something fatal */
    void (*close)(struct wr_link *link); /* at any time; no answer comes any more */
    uint32_t (*pid)(const struct wr_link *link);
    void *world; /* what all instances of this driver share, such as a simulation; NULL: nothing */
    /* Where the target's server is, for people to read, and nothing secret. NULL: this driver does not say. */
    void (*describe)(const struct wr_target *target, char *out, size_t size);
};

#endif
