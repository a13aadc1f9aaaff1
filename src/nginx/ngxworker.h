/* The two ends of a worker process, called by nginx. */
#ifndef WN_NGXWORKER_H
#define WN_NGXWORKER_H

#include "ngxweir.h"

ngx_int_t wn_worker_start(ngx_cycle_t *cycle);
void wn_worker_stop(ngx_cycle_t *cycle);

#endif
