/* Copies of guards, taken from memory that anybody may have written to: what could hurt who reads them is taken out.
 * Numbers stay as they are where they are only shown. */
#ifndef WR_DEFUSE_H
#define WR_DEFUSE_H

#include "weir/guard.h"

void wr_breaker_defuse(weir_breaker *copy); /* no foreign function, and bounds that are bounds */
void wr_budget_defuse(weir_budget *copy);

#endif
