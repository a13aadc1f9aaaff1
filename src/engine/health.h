/* The monitor: looks at each backend every health interval, runs the program's own checks, and probes pools whose
 * breaker is open so that user traffic is never the guinea pig. */
#ifndef WR_HEALTH_H
#define WR_HEALTH_H

#include "engine/pool.h"

struct
    wr_backend_view { /* what this worker knows of a backend: by the monitor, or by the last call that went well */
    bool known, ok;
    uint64_t elapsed_ns, at_ns;
};
struct wr_backend_view wr_health_of_backend(const struct weir_engine *engine, size_t backend);

void wr_health_start(struct weir_engine *engine);
void wr_health_stop(struct weir_engine *engine);
/* The breaker is not closed: keep probing until it is. */
void wr_health_watch(struct wr_pool *pool);
/* A connect's end says as much about the backend as a probe's. */
void wr_health_connected(struct wr_pool *pool, const struct wr_fault *fault, uint64_t elapsed_ns);
/* A probe's end; fault NULL: it answered. */
void wr_health_probed(struct wr_pool *pool, const struct wr_fault *fault);
void wr_health_probe_fired(struct wr_timer *timer);

#endif
