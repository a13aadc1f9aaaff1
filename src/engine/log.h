/* The structured log: what one worker has to tell, as it happens, line by line, for people and for what reads logs. The
 * event log in the area tells the same to whoever looks, of all workers and without a file.
 *
 * Never in a line: SQL, parameters, claims, passwords. A call is named by its label, from which the policy, or by default
 * we, have taken what is not for everybody. */
#ifndef WR_LOG_H
#define WR_LOG_H

#include "area/recorder.h"
#include "base/heap.h"
#include "base/sink.h"
#include "weir/weir.h"

struct wr_pool;
struct weir_call;

struct wr_event_facts { /* what a line can say of an event beside its sentence */
    const char *
        id; /* by which it can be found whatever the sentence says, "connect.failing"; NULL: its kind's name */
    weir_log_level level;
    const struct weir_call *call; /* NULL: none */
    const char *sqlstate;         /* NULL or "": none */
};

struct wr_log_flow {  /* lines of one sort */
    const char *what; /* they are about */
    uint64_t from_ns;
    uint32_t lines, suppressed; /* in the second since then */
};

struct wr_log {
    struct wr_sink sink;
    bool open;     /* there is somewhere to write to */
    uint64_t lost; /* lines that nobody took, and not told of yet */
    struct wr_log_flow events, slow;
    struct wr_timer flow_timer; /* armed while lines are suppressed: they are told of even if no more come */
};

/* After the options have been copied, before anything happens. WEIR_OK, WEIR_ESYS, WEIR_EINVAL. */
int wr_log_open(struct weir_engine *engine, char *why);
void wr_log_close(struct weir_engine *engine); /* accepts one that was not opened */

/* facts NULL: nothing but the kind and the sentence. */
void wr_log_event(struct weir_engine *engine, enum wr_event_kind kind, const struct wr_pool *pool,
                  const struct wr_event_facts *facts, uint64_t at_us, const char *text);
/* The call is over and its record complete. Logged if it took too long. */
void wr_log_over(struct weir_call *call);

#endif
