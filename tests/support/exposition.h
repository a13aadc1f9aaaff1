/* Reads what /metrics gives as strictly as the two formats are written down: a checker, and sums over samples. */
#ifndef EXPOSITION_H
#define EXPOSITION_H

#include <stdbool.h>
#include <stddef.h>

/* NULL if `text` is well formed: families once and in order, with HELP, TYPE and (where the name has one) UNIT before
 * their samples; names, labels and values as the format has them; no series twice; histograms that rise to +Inf, which is
 * their count; state sets with exactly one 1. Else a sentence with the line; until the next call. */
const char *exposition_fault(const char *text, bool open_metrics);

/* The sum of all samples whose line begins with `start` and contains `part` ("" any); -1 if there is none. */
double exposition_sum(const char *text, const char *start, const char *part);
size_t exposition_lines(const char *text, const char *start, const char *part);

/* NULL if no counter or bucket of `before` has fallen or gone in `after`, both in Prometheus' form; else its line. */
const char *exposition_fell(const char *before, const char *after);

#endif
