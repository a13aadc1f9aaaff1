/* The text of the policy that all workers on an area follow, and its generation: 1, 2, ... in the life of the area, 0 while
 * there is none. */
#ifndef WR_POLICYTEXT_H
#define WR_POLICYTEXT_H

#include "area/sharedarea.h"

enum { WR_POLICY_BYTES = 256 * 1024 };

/* Makes `text` the newest. WEIR_OK and its generation; WEIR_EINVAL: empty or too long; WEIR_ESYS: another process has
 * been publishing for a second and lives. */
int wr_policy_put(struct wr_area *area, const char *text, size_t length, uint64_t *generation, char *why);
uint64_t wr_policy_generation(const struct wr_area *area);
/* The newest text, whole. Writes at most `size` bytes with NUL and returns its length, 0 if there is none. */
size_t wr_policy_get(const struct wr_area *area, char *out, size_t size, uint64_t *generation);

#endif
