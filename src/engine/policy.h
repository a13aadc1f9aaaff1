/* The fence around the operator's hooks: a fault never takes a call down, it is counted and logged, the built-in
 * policy answers, and after policy_faults_max faults in a row the hooks are switched off. */
#ifndef WR_POLICY_H
#define WR_POLICY_H

#include "engine/engine.h"

/* Index of the backend for a request. Built-in: the first. pool_hint names the pool for the event, may be NULL. */
size_t wr_policy_route(struct weir_engine *engine, const weir_request *request);
/* Writes the label. Built-in: the context up to '?'. */
void wr_policy_label(struct weir_engine *engine, const char *context, char *label, size_t size);
/* True and the delay if the policy (or the built-in one) wants a retry. */
bool wr_policy_retry(struct weir_engine *engine, struct wr_pool *pool, const weir_failure *failure,
                     uint64_t *delay_ns);
/* Index of a backend by name, or backend_count. */
size_t wr_policy_find_backend(const struct weir_engine *engine, const char *name);

/* generation.c: hearing of newer policy texts in the area. */
void wr_policy_look(struct wr_timer *timer);
void wr_policy_notice(struct weir_engine *engine);
void wr_policy_look_soon(struct weir_engine *engine); /* in the next turn */

#endif
