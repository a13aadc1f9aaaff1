/* Invariants that must hold in production too: a broken one stops the process with a place and a sentence
 * rather than going on with a connection whose owner is not known. Bad input and a failing server are errors,
 * never checks. */
#ifndef WR_CHECK_H
#define WR_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define WR_CHECK(condition)                                                                                  \
    do {                                                                                                     \
        if (__builtin_expect(!(condition), 0)) wr_check_failed(__FILE__, __LINE__, #condition);              \
    } while (0)

_Noreturn static inline void wr_check_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "weir: %s:%d: invariant broken: %s\n", file, line, condition);
    abort();
}

#endif
