/* The pool's breaker as the engine uses it: admits and refuses calls, hears verdicts, writes transitions to the log. */
#ifndef WR_ADMISSION_H
#define WR_ADMISSION_H

#include "engine/call.h"

/* True: the call holds a permit. False: it has been refused and is over. */
bool wr_breaker_admit(struct weir_call *call);
void wr_breaker_refuse(struct weir_call *call, const weir_evidence *evidence);
/* A verdict that belongs to no call (a connect nobody waited for). */
void wr_breaker_tell(struct wr_pool *pool, weir_verdict verdict, const char *code);
/* A transition or an exceeded threshold: logged, and acted on. */
void wr_breaker_moved(struct wr_pool *pool, const weir_evidence *evidence);

#endif
