/* The flight recorder (finished calls with their timeline, one ring per worker) and the event log (one ring for all).
 * Writers never wait; a reader that meets an entry being written or overwritten skips it. Times: wall clock in
 * microseconds for when, nanoseconds for how long. No claims, parameters or secrets ever get here. */
#ifndef WR_RECORDER_H
#define WR_RECORDER_H

#include "area/sharedarea.h"

#include <stddef.h>
#include <stdint.h>

enum { WR_RECORD_ATTEMPTS = 4, WR_EVENT_TEXT = 320 };

struct wr_recorded_attempt {
    uint32_t start_us;   /* after the call's start */
    uint32_t wait_us;    /* of it in the queue */
    uint32_t connect_us; /* of it waiting for a new connection, 0 if reused */
    uint32_t run_us;     /* from sent to settled */
    uint32_t backoff_us; /* after it, 0 if last */
    uint32_t backend_pid;
    char sqlstate[6];      /* "" if none */
    uint8_t phase, class_; /* enum weir_phase, enum weir_class */
};

struct wr_recorded_call {
    uint64_t id;         /* unique in the area: worker << 40 | sequence; 0 lets wr_recorder_add give one */
    uint64_t started_us; /* wall clock */
    uint64_t duration_ns;
    uint32_t pool, label, worker;
    uint32_t attempts; /* all; only the last WR_RECORD_ATTEMPTS are kept below */
    int32_t code;      /* enum weir_code */
    uint8_t outcome;   /* enum weir_outcome */
    uint8_t unit;      /* 1 if a transaction */
    char sqlstate[6];
    uint64_t xid; /* 0 if none was known */
    char context[WR_LABEL_MAX];
    char traceparent[56]; /* "" if none was given */
    struct wr_recorded_attempt attempt[WR_RECORD_ATTEMPTS];
};

enum wr_event_kind {
    WR_EVENT_BREAKER = 1, /* transition, with evidence */
    WR_EVENT_POLICY,      /* fault, switched off */
    WR_EVENT_CONNECT,     /* failing, answering again */
    WR_EVENT_LEAK,
    WR_EVENT_IDENTITY, /* login refused */
    WR_EVENT_UNKNOWN,  /* a call ended unknown, or was resolved */
    WR_EVENT_AREA,     /* joined, replaced, worker reaped */
    WR_EVENT_ENGINE,   /* opened, draining, closed */
    WR_EVENT_HEALTH,
    WR_EVENT_OPERATOR
};

struct wr_event {
    uint64_t sequence;           /* 1, 2, ... in the area */
    uint64_t at_us;              /* wall clock */
    uint32_t kind, pool, worker; /* pool: index + 1, 0 none */
    char text[WR_EVENT_TEXT];    /* one sentence */
};

void wr_recorder_add(struct wr_area *area, const struct wr_recorded_call *call); /* own ring; sets `worker` */
/* Newest first over all workers by start time, at most `room`. Returns how many. */
size_t wr_recorder_read(const struct wr_area *area, struct wr_recorded_call *out, size_t room);

/* One worker's ring (a slot that was used): how many calls it has ever taken, and the one of that number, from 1; false if it
 * has been overwritten or is just being written. */
uint64_t wr_recorder_count(const struct wr_area *area, uint32_t worker);
bool wr_recorder_get(const struct wr_area *area, uint32_t worker, uint64_t number,
                     struct wr_recorded_call *out);

void wr_event_add(struct wr_area *area, enum wr_event_kind kind, uint32_t pool, uint64_t at_us,
                  const char *text);
/* Events with sequence > after, oldest first, at most `room` (the newest ones if there are more). */
size_t wr_event_read(const struct wr_area *area, uint64_t after, struct wr_event *out, size_t room);
const char *wr_event_kind_name(uint32_t kind); /* "breaker", ..., "?" */

#endif
