/* The flight recorder and the event log as JSON; see weir/area.h. */
#include "engine/call.h"
#include "engine/sight.h"

#include <string.h>

/* From the server or from shared memory: five bytes, whatever they are. */
static void sqlstate_field(struct wr_buffer *b, const char *sqlstate)
{
    char text[6];
    memcpy(text, sqlstate, 5);
    text[5] = '\0';
    wr_buffer_printf(b, ",\"sqlstate\":");
    wr_buffer_json_string(b, text);
}

static double milliseconds(uint64_t ns)
{
    return (double)ns / 1e6;
}

enum { CALLS_MOST = 1024, EVENTS_MOST = 1024 };

static void attempt_line(struct wr_buffer *b, const struct wr_recorded_attempt *a)
{
    wr_buffer_printf(b,
                     "{\"start_us\":%u,\"wait_us\":%u,\"connect_us\":%u,\"run_us\":%u,\"backoff_us\":%u,"
                     "\"backend_pid\":%u",
                     a->start_us, a->wait_us, a->connect_us, a->run_us, a->backoff_us, a->backend_pid);
    sqlstate_field(b, a->sqlstate);
    wr_buffer_printf(b, ",\"phase\":\"%s\",\"class\":\"%s\"}", weir_phase_name((weir_phase)a->phase),
                     weir_class_name((weir_class)a->class_));
}

/* `number`: which its worker's ring gave it; 0: not to be told. */
static void call_line(struct wr_buffer *b, struct weir_area *sight, const struct wr_recorded_call *r,
                      uint64_t number)
{
    wr_buffer_printf(b, "{");
    if (number != 0) wr_buffer_printf(b, "\"n\":%llu,", (unsigned long long)number);
    wr_buffer_printf(b, "\"id\":\"%llx\",\"started_us\":%llu,\"duration_ms\":%.3f,\"pool\":",
                     (unsigned long long)r->id, (unsigned long long)r->started_us,
                     milliseconds(r->duration_ns));
    wr_buffer_json_string(b, wr_sight_pool_name(sight, r->pool, "?"));
    wr_buffer_printf(b, ",\"label\":");
    wr_buffer_json_string(b, wr_sight_label(sight, r->label));
    wr_buffer_printf(b, ",\"context\":");
    wr_buffer_json_string(b, r->context);
    wr_buffer_printf(b, ",\"worker\":%u,\"code\":\"%s\",\"outcome\":\"%s\",\"unit\":%s,\"xid\":%llu",
                     r->worker, weir_code_name((weir_code)r->code),
                     weir_outcome_name((weir_outcome)r->outcome), r->unit != 0 ? "true" : "false",
                     (unsigned long long)r->xid);
    sqlstate_field(b, r->sqlstate);
    wr_buffer_printf(b, ",\"traceparent\":");
    wr_buffer_json_string(b, r->traceparent);
    wr_buffer_printf(b, ",\"attempts\":%u,\"timeline\":[", r->attempts);
    uint32_t kept = r->attempts < WR_RECORD_ATTEMPTS ? r->attempts : WR_RECORD_ATTEMPTS;
    for (uint32_t i = 0; i < kept; i++) {
        if (i > 0) wr_buffer_printf(b, ",");
        attempt_line(b, &r->attempt[i]);
    }
    wr_buffer_printf(b, "]}");
}

void wr_document_calls(struct weir_area *sight, struct wr_buffer *b, uint64_t most)
{
    size_t room = most < CALLS_MOST ? (size_t)most : CALLS_MOST;
    struct wr_recorded_call *calls = wr_alloc(sight->memory, (room + 1) * sizeof *calls);
    wr_buffer_printf(b, "[");
    size_t count = calls == NULL ? 0 : wr_recorder_read(sight->area, calls, room);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) wr_buffer_printf(b, ",");
        call_line(b, sight, &calls[i], 0);
    }
    wr_buffer_printf(b, "]");
    wr_free(sight->memory, calls);
}

/* Those of one worker that came after a number of its own, so that whoever follows misses none and knows of those that
 * were overwritten. argument: worker << 40 | number. */
void wr_document_finished(struct weir_area *sight, struct wr_buffer *b, uint64_t argument)
{
    uint32_t used = wr_area_workers_used(sight->area);
    uint64_t worker = argument >> 40, number = argument & ((UINT64_C(1) << 40) - 1), recorded = 0;
    bool first = true;
    wr_buffer_printf(b, "{\"workers\":%u,\"calls\":[", used);
    if (worker >= 1 && worker <= used) recorded = wr_recorder_count(sight->area, (uint32_t)worker);
    uint32_t kept = wr_area_shape(sight->area)->calls;
    if (recorded > kept && number < recorded - kept) number = recorded - kept;
    for (size_t told = 0; number < recorded && told < CALLS_MOST; number++) {
        struct wr_recorded_call call;
        if (!wr_recorder_get(sight->area, (uint32_t)worker, number + 1, &call)) continue;
        if (!first) wr_buffer_printf(b, ",");
        first = false;
        call_line(b, sight, &call, number + 1);
        told++;
    }
    wr_buffer_printf(b, "],\"recorded\":%llu}", (unsigned long long)recorded);
}

static void event_line(struct wr_buffer *b, struct weir_area *sight, const struct wr_event *e)
{
    wr_buffer_printf(b, "{\"sequence\":%llu,\"at_us\":%llu,\"kind\":\"%s\",\"worker\":%u,\"pool\":",
                     (unsigned long long)e->sequence, (unsigned long long)e->at_us,
                     wr_event_kind_name(e->kind), e->worker);
    wr_buffer_json_string(b, e->pool > 0 ? wr_sight_pool_name(sight, e->pool - 1, "") : "");
    wr_buffer_printf(b, ",\"text\":");
    wr_buffer_json_string(b, e->text);
    wr_buffer_printf(b, "}");
}

void wr_document_events(struct weir_area *sight, struct wr_buffer *b, uint64_t after)
{
    struct wr_event *events = wr_alloc(sight->memory, EVENTS_MOST * sizeof *events);
    wr_buffer_printf(b, "[");
    size_t count = events == NULL ? 0 : wr_event_read(sight->area, after, events, EVENTS_MOST);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) wr_buffer_printf(b, ",");
        event_line(b, sight, &events[i]);
    }
    wr_buffer_printf(b, "]");
    wr_free(sight->memory, events);
}
