/* One PGconn, in pipeline mode, as a state machine. A segment under way is a flight: a list of steps, each one command
 * on the wire. Answers come back in the same order, so the step at hand of the oldest flight always tells what a result
 * means. Several flights are under way only if all of them are shared segments (see driver.h).
 *
 * - IDLE -> RUNNING -> IDLE: the ordinary segment
 * - RUNNING -> HEALING -> IDLE: a BEGIN that met a stale statement; rolled back here, to be sent again
 * - RUNNING -> RUNNING: one of several flights has landed
 * - RUNNING -> HELD -> IDLE or RUNNING: the oldest one's results are there, the cancel's end is not
 * - any -> OVER: lost, and reported; only close() is left
 *
 * Who frees: wr_link_close, at any time; inside settled() the memory goes when settled() has returned. */
#ifndef WR_LINK_H
#define WR_LINK_H

#include "base/text.h"
#include "pg/crew.h"
#include "pg/pgresult.h"
#include "pg/statement.h"

enum wr_link_state { WR_LINK_IDLE = 0, WR_LINK_RUNNING, WR_LINK_HEALING, WR_LINK_HELD, WR_LINK_OVER };

enum wr_step_kind {
    WR_STEP_SYNC = 0,
    WR_STEP_PREAMBLE, /* role, claims, timeout, name: one select of set_configs */
    WR_STEP_PLAIN,    /* BEGIN, ROLLBACK, the parts of a reset: only success counts */
    WR_STEP_PREPARE,
    WR_STEP_DEALLOCATE,
    WR_STEP_DEALLOCATE_ALL,
    WR_STEP_STATEMENT, /* the caller's */
    WR_STEP_XID,
    WR_STEP_COMMIT,
    WR_STEP_XACT
};

struct wr_step {
    enum wr_step_kind kind;
    bool lenient; /* housekeeping ahead of the caller's own Sync: its failure is not the caller's */
    struct wr_statement *statement; /* PREPARE, DEALLOCATE: which; else the one executed by name, or NULL */
};

enum { WR_APPLICATION = 64, WR_PREAMBLES = 128 };

/* What the preamble may hold; also the index of its text. */
enum {
    WR_SHAPE_ROLE = 1,
    WR_SHAPE_CLAIMS = 2,
    WR_SHAPE_TIMEOUT = 4,
    WR_SHAPE_APPLICATION = 8,
    WR_SHAPE_SESSION = 16,
    WR_SHAPE_READONLY = 32,
    WR_SHAPE_READONLY_ON = 64 /* by default from now on; goes with SESSION */
};

struct wr_context {      /* the two settings that change from call to call */
    uint64_t timeout_ms; /* 0: none, or not known */
    bool named;          /* application is known */
    char application[WR_APPLICATION];
};

struct wr_flight { /* one segment under way; the link's, on its list of them or among the spare ones */
    struct wr_list place;
    uint64_t number;
    enum wr_segment_kind kind;
    bool shared;      /* others may be behind it, which rely on nothing it sets */
    bool settles;     /* shared, and what it sets is the session's */
    uint64_t edition; /* of the statement book by which it was written */
    struct wr_step *steps;
    size_t step_count, step_room, step_at;
    bool answered;         /* the step at hand has had its result */
    bool called;           /* a CALL or DO came through, which may have committed by itself */
    bool stale, stale_all; /* the error is about our statement cache, not the caller's SQL; all of it */
    struct weir_result *results;
    size_t result_room;
    struct wr_reply reply; /* grows while results come */
    struct wr_notices *notices;
};

struct wr_pg;

struct wr_link {
    struct wr_pg *pg;
    struct wr_target *target;
    void *owner;
    PGconn *conn;
    int fd; /* a duplicate of libpq's, which closes its own without asking; this one is ours */
    unsigned watched;
    bool pooler;   /* one stands between: no names, nothing for the session, and the server may change */
    char life[24]; /* of the server that greeted us, as WR_LIFE_SQL tells it */
    bool moved;    /* behind the pooler another one answers by now: not to be borrowed again */
    enum wr_link_state state;
    struct wr_list doomed;   /* on the driver's list while a loss is to be reported from the loop */
    bool delivering, closed; /* inside settled(); and close() was called there */

    struct wr_cancel *cancel;
    bool canceling;        /* the crew has not confirmed yet */
    unsigned cancel_tries; /* for this segment */

    struct wr_statements statements;
    struct wr_statement *preambles[WR_PREAMBLES], *xid_question, *probe;
    struct wr_settings settings;
    uint64_t timeout_cap_ms;
    struct wr_context baseline, session, wanted, local; /* of a fresh session; now; once this segment is
                                                         * through; of the open transaction */
    bool made_readonly; /* the session by default, by us; whether it still is, the server reports */
    bool user_prepared; /* SQL-level PREPARE was seen: a reset must clear those too */

    uint64_t segment; /* number of the last one sent */
    struct wr_list flights, spare_flights;
    struct wr_flight *writing;  /* the newest flight */
    struct wr_list unread;      /* on the driver's list while answers wait that the socket will not tell of */
    bool catching_up;           /* those are being told */
    struct wr_buffer text;      /* of SQL made up here */
    struct wr_fault last_words; /* a FATAL, or the 57P02 a crash sends as a warning, that came as a notice */
    bool fatal_heard;
};

struct wr_pg { /* one instance of the driver */
    const struct wr_driver_env *env;
    struct wr_crew *crew;
    struct wr_list doomed, unread;
};

static inline struct wr_flight *wr_link_oldest(struct wr_link *link)
{
    return WR_CONTAINER(link->flights.next, struct wr_flight,
                        place); /* there is one while a segment is under way */
}

/* link.c */
/* Takes the arrival; NULL, and the fault: this process has run out of something. */
struct wr_link *wr_link_make(struct wr_pg *pg, struct wr_errand *errand, struct wr_fault *fault);
void wr_link_close(struct wr_link *link);
void wr_link_ready(void *link, unsigned events);
void wr_link_cancel(struct wr_link *link);
void wr_link_cancelled(struct wr_link *link);   /* the crew has confirmed */
bool wr_link_uncancelled(struct wr_link *link); /* true: no cancel is on its way, nor will one be sent */
bool wr_link_peek(struct wr_link *link);
void wr_link_tell_notifications(struct wr_link *link);
void wr_link_doom(struct wr_link *link);    /* report the loss from the loop */
void wr_link_abandon(struct wr_link *link); /* over, without a report: the caller knows */
void wr_link_report_doomed(struct wr_link *link);
void wr_link_read_on(struct wr_link *link); /* of the driver's unread list */
bool wr_link_push(struct wr_link *link);    /* flushes, and watches what is needed; false: doomed */
struct wr_secrets wr_link_secrets(const struct wr_link *link);

/* segment.c */
struct wr_command {
    enum wr_step_kind kind;
    const char *sql;
    size_t count;
    const char *const *values;
    const int *lengths, *formats;
    const Oid *types;
};
bool wr_link_send_unnamed(struct wr_link *link, const struct wr_command *command);
/* The driver's own texts are worth a name from the first time on. */
bool wr_link_send_fixed(struct wr_link *link, const struct wr_command *command,
                        struct wr_statement **statement);
int wr_link_send(struct wr_link *link, const struct wr_segment *segment, struct wr_fault *fault);
bool wr_link_send_rollback(struct wr_link *link);     /* our own, to heal; false: broken */
void wr_link_forget_statements(struct wr_link *link); /* the book is empty, the server to be told so */
char wr_link_transaction(const struct wr_link *link); /* 'I', 'T', 'E', or 0 */
bool wr_link_has_room(const struct wr_link *link);

/* preamble.c: each sends what the segment needs and is not in force yet; false: broken */
bool wr_preamble_single(struct wr_link *link, const struct wr_segment *segment);
bool wr_preamble_local(struct wr_link *link, const struct wr_segment *segment); /* of a unit's BEGIN */
bool wr_preamble_more(struct wr_link *link, const struct wr_segment *segment);  /* inside it */
bool wr_preamble_send(struct wr_link *link, const struct wr_segment *segment, unsigned shape,
                      const struct wr_context *context, const struct wr_settings *extra);
unsigned
wr_preamble_identity(const struct wr_segment *segment); /* what must hold for this transaction alone */
/* Whether the server says that sessions are read-only by default: "on" or "off". Before 14 it says nothing. */
bool wr_preamble_readonly(const struct wr_link *link, const char *value);

/* reply.c */
bool wr_link_read(struct wr_link *link); /* all that has arrived; false: over or gone, hands off the link */
void wr_link_lose(struct wr_link *link); /* reports the loss, as what the state asks for */
bool wr_link_settle(
    struct wr_link *link); /* hands the oldest flight's reply over; false: the link has gone */

#endif
