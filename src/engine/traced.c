/* Calls with a trace, for exemplars: see weir/metrics.h. */
#include "area/recorder.h"
#include "engine/sight.h"
#include "weir/metrics.h"

#include <string.h>

enum { LOOKED_AT = 128, ID_AT = 3, ID_LENGTH = 32 };

/* version-traceid-parentid-flags; an id of zeros means none. What is in the area may be anything. */
static bool read_id(const struct wr_recorded_call *call, char id[ID_LENGTH + 1])
{
    static const char digits[] = "0123456789abcdef";
    char text[sizeof call->traceparent + 1] = "";
    memcpy(text, call->traceparent, sizeof call->traceparent);
    if (strlen(text) < 55 || text[2] != '-' || text[ID_AT + ID_LENGTH] != '-') return false;
    memcpy(id, text + ID_AT, ID_LENGTH);
    id[ID_LENGTH] = '\0';
    return strspn(id, digits) == ID_LENGTH && strspn(id, "0") != ID_LENGTH;
}

size_t weir_read_traced(weir_area *area, weir_traced_call *out, size_t most)
{
    struct wr_recorded_call calls[LOOKED_AT];
    size_t found = 0, count = wr_recorder_read(area->area, calls, LOOKED_AT);
    for (size_t i = 0; i < count && found < most; i++) {
        const struct wr_recorded_call *call = &calls[i];
        if (!read_id(call, out[found].trace_id)) continue;
        out[found].pool = call->pool;
        out[found].label = call->label;
        out[found].duration_ns = call->duration_ns;
        out[found++].ended_us = call->started_us + call->duration_ns / 1000;
    }
    return found;
}
