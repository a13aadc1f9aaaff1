/* Mapped files that others may cut short: who reads what is missing finds zeros instead of SIGBUS. */
#ifndef WR_SIGBUS_H
#define WR_SIGBUS_H

#include <stdbool.h>
#include <stddef.h>

/* From now on a missing page of this mapping is replaced by an empty one of our own when somebody touches it. Returns the
 * guard's number, or -1: as many mappings are guarded as can be. The process gets a handler for SIGBUS with the first
 * guard, and gives it back with the last; what is not ours goes to the handler that was there before. Any thread. */
int wr_sigbus_guard(void *base, size_t size);
void wr_sigbus_leave(int guard);  /* before the mapping goes; accepts -1 */
bool wr_sigbus_struck(int guard); /* whether a page was missing */

#endif
