/* A call: one unit of retry. Owner: whoever submitted it, from weir_submit/weir_begin to weir_call_free; its memory
 * then goes to the engine's spare list and is used again, buffers included, so a steady state allocates nothing.
 *
 * A call's state is the list it is on; wr_call_enter is the only one who moves it. Every call ends exactly once, in
 * wr_call_over. */
#ifndef WR_CALL_H
#define WR_CALL_H

#include "engine/engine.h"
#include "engine/outcome.h"
#include "engine/pool.h"

struct wr_arena { /* memory of one request, kept between uses */
    char *data;
    size_t room;
};

struct weir_call {
    struct wr_list place;       /* on the list of its state */
    struct wr_list notice;      /* on engine->notices while its owner is to be told */
    struct weir_engine *engine; /* NULL once the engine has been freed */
    struct wr_memory memory;    /* where this came from */
    struct wr_pool *pool;
    struct wr_conn *conn; /* LEASED to this call, or a lane it rides on */
    enum wr_call_state state;
    weir_status status;

    bool unit, readonly, idempotent;
    bool rides;       /* may share a connection with others (lane.h) */
    bool by_hand;     /* unit: not to be run again once its owner has begun */
    bool shown;       /* unit: its owner has been told READY */
    bool abandoned;   /* its owner has freed it */
    bool healed;      /* the statement cache has been mended once in this attempt */
    bool overdue;     /* the deadline passed while a segment was on the wire */
    bool spoiled;     /* unit: its transaction is not what its owner thinks; nothing more runs in it */
    bool begun;       /* unit: BEGIN has been sent in this attempt */
    bool has_effects; /* unit: a statement may have done what needs no xid: NOTIFY, a foreign table */
    bool xid_asked;
    char transaction; /* unit: as the server last said */
    bool dirty;       /* unit: session state may have been changed */
    bool failed;      /* `error` is of this attempt or final */
    bool permit_held;
    bool traced; /* its traceparent is sound */
    enum wr_segment_kind sending;

    /* the request; strings live in `head`, statements in `body` */
    struct wr_arena head, body;
    const char *client, *context, *claims, *backend, *isolation, *traceparent;
    size_t client_index;
    const weir_statement *statements;
    const struct wr_sql_facts *facts; /* of each */
    size_t statement_count;
    size_t request_size; /* bytes */
    void (*notify)(void *user, weir_call *call);
    void *user;

    uint64_t started, deadline;
    struct wr_timer deadline_timer, wake, leak_timer;

    uint32_t attempt;
    uint8_t reason;    /* why the last attempt failed, by number (outcome.h) */
    weir_outcome past; /* the worst that earlier attempts may have left behind */
    uint64_t attempt_from, queued_from, leased_at, sent_at, server_ns;
    weir_permit permit;
    weir_phase phase;
    uint64_t xid;
    uint64_t xid_system; /* which server, and which life of it, gave the xid */
    uint32_t xid_timeline;
    uint64_t xid_life;
    uint32_t resolve_step;
    struct wr_fault fault; /* of the attempt's failure so far, if `faulted` */
    bool faulted;
    weir_backoff backoff;
    uint32_t label;
    char label_text[WR_LABEL_MAX];

    struct weir_result *results;
    size_t result_count, result_room;
    weir_error error;
    struct wr_recorded_call record;
};

void wr_call_enter(struct weir_call *call, enum wr_call_state next);
/* The next (or first) attempt: route, admit, queue. */
void wr_call_attempt(struct weir_call *call);
/* Gives an idle connection to a call that waits or is about to. False: the link died before a byte of ours was on it; it
 * is closed and the call stands where it stood. */
bool wr_call_leased(struct weir_call *call, struct wr_conn *conn);
/* The segment on its connection has ended. */
void wr_call_settled(struct weir_call *call, struct wr_reply *reply);
/* The attempt failed: judged, told to the breaker, recorded; then resolved, retried or over. */
void wr_call_failed(struct weir_call *call, const struct wr_fault *fault, bool connecting);
/* The attempt succeeded. */
void wr_call_succeeded(struct weir_call *call);
/* Refused or given up before or between attempts. Format gives the message; evidence may be NULL. */
void wr_call_refuse(struct weir_call *call, weir_code code, enum wr_counter counter,
                    const weir_evidence *evidence, uint64_t retry_after_ns, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
/* Ends the call: exactly once. `error` must be filled unless code is WEIR_CALL_OK. */
void wr_call_over(struct weir_call *call, weir_code code);
void wr_call_notice(struct weir_call *call, weir_status status);
/* Sets what is said about the end: class and outcome are of this attempt, and give way to what an earlier one may have
 * left behind. What an earlier failure said is forgotten; code and context come in wr_call_over. */
void wr_call_say(struct weir_call *call, weir_class class_, weir_outcome outcome, const char *message);
/* Sends what the call's state asks for on its connection; false: the link was lost and closed, nothing was sent. */
bool wr_call_send(struct weir_call *call, enum wr_segment_kind kind);
void wr_call_drop_results(struct weir_call *call);
bool wr_call_take_results(struct weir_call *call, struct wr_reply *reply); /* false: out of memory */
int wr_call_check_request(struct weir_engine *engine, const weir_request *request, char *why);
int wr_call_check_statements(struct weir_engine *engine, const weir_statement *statements, size_t count,
                             bool alone, char *why);
/* Gives the permit back exactly once. */
void wr_call_settle_permit(struct weir_call *call, weir_verdict verdict, const char *code);
/* The connection goes back (or is abandoned when a segment is on the wire). */
void wr_call_let_go(struct weir_call *call);
void wr_call_keep_fault(struct weir_call *call, const struct wr_fault *fault);
/* Takes the connection from the call; the caller closes it or gives it back. */
struct wr_conn *wr_call_detach(struct weir_call *call);

/* lapse.c: deadline, wake, leak, and giving up */
void wr_call_deadline_fired(struct wr_timer *timer);
void wr_call_wake_fired(struct wr_timer *timer);
void wr_call_leak_fired(struct wr_timer *timer);
void wr_call_cancel_now(struct weir_call *call, weir_code code, const char *message);
/* 57014 from our own statement_timeout or cancel: the deadline, told by the server. */
bool wr_call_timed_out(const struct weir_call *call, const struct wr_fault *fault);

/* retry.c */
void wr_retry_decide(struct weir_call *call);

/* resolve.c: what became of a COMMIT whose answer was lost */
void wr_resolve_start(struct weir_call *call);
void wr_resolve_woken(struct weir_call *call);
void wr_resolve_leased(struct weir_call *call, struct wr_conn *conn);
void wr_resolve_settled(struct weir_call *call, struct wr_reply *reply);
void wr_resolve_no_connection(struct weir_call *call);

/* unit.c */
void wr_unit_settled(struct weir_call *call, struct wr_reply *reply);

/* request.c: the call's memory */
struct weir_call *wr_call_new(struct weir_engine *engine); /* NULL: out of memory */
int wr_call_keep_request(struct weir_call *call, const weir_request *request, char *why);
int wr_call_keep_statements(struct weir_call *call, const weir_statement *statements, size_t count,
                            char *why);
void wr_call_recycle(struct weir_call *call); /* over and freed by its owner: to the spare list */
void wr_call_destroy(struct weir_call *call); /* frees; on no list any more */

/* record.c: the call's page in the flight recorder */
void wr_record_attempt_start(struct weir_call *call);
void wr_record_leased(struct weir_call *call, const struct wr_conn *conn);
void wr_record_attempt_end(struct weir_call *call, const char *sqlstate, weir_class class_);
void wr_record_backoff(struct weir_call *call, uint64_t delay_ns);
void wr_record_over(struct weir_call *call);

#endif
