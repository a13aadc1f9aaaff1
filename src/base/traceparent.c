/* https://www.w3.org/TR/trace-context/#traceparent-header: ids of zeros only and version ff are invalid. */
#include "base/traceparent.h"

#include <stddef.h>
#include <string.h>

static const char shape[] = "00-00000000000000000000000000000000-0000000000000000-00";

static bool is_digit(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

static bool all_zero(const char *digits, size_t count)
{
    return strspn(digits, "0") >= count;
}

bool wr_traceparent_sound(const char *text)
{
    if (text == NULL) return false;
    for (size_t i = 0; i < WR_TRACEPARENT_LENGTH; i++) { /* a text that is too short ends here, too */
        if (shape[i] == '-' ? text[i] != '-' : !is_digit(text[i])) return false;
    }
    return text[WR_TRACEPARENT_LENGTH] == '\0' && strncmp(text, "ff", 2) != 0 &&
           !all_zero(text + WR_TRACE_ID_AT, WR_TRACE_ID_LENGTH) &&
           !all_zero(text + WR_SPAN_ID_AT, WR_SPAN_ID_LENGTH);
}
