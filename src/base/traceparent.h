/* The W3C trace context header `traceparent`: version-traceid-parentid-flags, in small hexadecimal digits. */
#ifndef WR_TRACEPARENT_H
#define WR_TRACEPARENT_H

#include <stdbool.h>

enum { /* where its parts lie, and how long they are */
       WR_TRACEPARENT_LENGTH = 55,
       WR_TRACE_ID_AT = 3,
       WR_TRACE_ID_LENGTH = 32,
       WR_SPAN_ID_AT = 36,
       WR_SPAN_ID_LENGTH = 16,
       WR_TRACE_FLAGS_AT = 53,
       WR_TRACE_FLAGS_LENGTH = 2
};

/* Whether `text` (may be NULL) is one, and so can be quoted anywhere as it is: nothing but hexadecimal digits and
 * dashes. Those of later versions that are longer are not: what follows in them has no known form. */
bool wr_traceparent_sound(const char *text);

#endif
