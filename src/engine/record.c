/* The call's page in the flight recorder, filled as it happens and handed over when the call ends. */
#include "engine/call.h"

#include <string.h>

static uint32_t micros(uint64_t ns)
{
    uint64_t us = ns / 1000;
    return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static struct wr_recorded_attempt *page(struct weir_call *call)
{
    uint32_t index = call->attempt - 1;
    return &call->record.attempt[index < WR_RECORD_ATTEMPTS ? index : WR_RECORD_ATTEMPTS - 1];
}

/* With more attempts than fit, the oldest is dropped: the last ones say how it ended. */
void wr_record_attempt_start(struct weir_call *call)
{
    struct wr_recorded_attempt *all = call->record.attempt;
    if (call->attempt > WR_RECORD_ATTEMPTS) memmove(all, all + 1, (WR_RECORD_ATTEMPTS - 1) * sizeof *all);
    *page(call) = (struct wr_recorded_attempt){.start_us = micros(call->engine->now - call->started)};
}

void wr_record_leased(struct weir_call *call, const struct wr_conn *conn)
{
    struct wr_recorded_attempt *p = page(call);
    p->wait_us = micros(call->engine->now - call->queued_from);
    bool waited_for_it = conn->opened_at > call->queued_from;
    p->connect_us = waited_for_it ? micros(conn->greeting.connect_ns) : 0;
    p->backend_pid = conn->greeting.backend_pid;
}

void wr_record_attempt_end(struct weir_call *call, const char *sqlstate, weir_class class_)
{
    struct wr_recorded_attempt *p = page(call);
    p->run_us = micros(call->server_ns);
    p->phase = (uint8_t)call->phase;
    p->class_ = (uint8_t)class_;
    wr_text_copy(p->sqlstate, sizeof p->sqlstate, sqlstate);
}

void wr_record_backoff(struct weir_call *call, uint64_t delay_ns)
{
    page(call)->backoff_us = micros(delay_ns);
}

void wr_record_over(struct weir_call *call)
{
    struct weir_engine *engine = call->engine;
    struct wr_recorded_call *r = &call->record;
    uint64_t age_ns = engine->now - call->started;
    /* Wall time from the opening's: one clock read less per call, and the two clocks drift far less than they are read. */
    r->started_us = engine->opened_wall_us + (call->started - engine->opened_at) / 1000;
    r->duration_ns = age_ns;
    r->pool = call->pool->index;
    r->label = call->label;
    r->worker = wr_area_worker(engine->area);
    r->attempts = call->attempt;
    r->code = (int32_t)call->error.code;
    r->outcome = (uint8_t)call->error.outcome;
    r->unit = call->unit;
    r->xid = call->xid;
    wr_text_copy(r->sqlstate, sizeof r->sqlstate, call->failed ? call->error.sqlstate : "");
    wr_text_copy(r->context, sizeof r->context, call->context);
    wr_text_copy(r->traceparent, sizeof r->traceparent, call->traceparent);
    wr_recorder_add(engine->area, r);
}
